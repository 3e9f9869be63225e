"""Sharing of parameters, beyond `ptree.tie`: find equal leaves to tie, register a transform for ties, see each use's gradient.

Guide: `examples/guides/ties.md`.
"""

from ._ties.equal_leaves import find_ties as find_ties
from ._ties.uses import gradient_by_use as gradient_by_use
from ._tree.tie import register_transform as register_transform

__all__ = ["find_ties", "gradient_by_use", "register_transform"]
