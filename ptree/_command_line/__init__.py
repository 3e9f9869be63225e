"""The command line `ptree`: look at files of parameters, compare, check and change them. For files it does not import JAX."""

from .program import main as main
