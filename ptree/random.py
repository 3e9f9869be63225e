"""Random keys by path: the PRNG key that `ptree.init` uses for the parameter at each path.

Both functions are for code of your own that draws what `ptree.init` would. Guide: `examples/guides/initialisation.md`.
"""

from ._draw import child_key as child_key
from ._draw import keys as keys

__all__ = ["child_key", "keys"]
