"""Random keys by path: the PRNG key that `ptree.init` uses for the parameter at each path."""

from ._draw import child_key as child_key
from ._draw import keys as keys

__all__ = ["child_key", "keys"]
