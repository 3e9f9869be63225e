"""Ties: two names for one leaf."""

from .equal_leaves import find_ties as find_ties
from .prefixes import prefix as prefix
from .tables import tie as tie
from .tables import ties as ties
from .untie import untie as untie
from .uses import gradient_by_use as gradient_by_use
