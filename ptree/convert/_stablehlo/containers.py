"""Containers of inputs and outputs as processes without ptree know them: dicts, lists, tuples and None stay, all others are
flat dicts, path -> array."""

from __future__ import annotations

from types import NoneType

import jax

from ..._edit import leaves, unflatten
from ..._tree import PyTree


def in_plain_containers(tree: PyTree) -> PyTree:
    """The same leaves in dicts, lists and tuples alone: a Tree, a named tuple, a module in it is a flat dict, path -> leaf.

    >>> from ptree import Tree
    >>> in_plain_containers((Tree({"enc": {"w": 1}}), [2, None]))
    ({'enc/w': 1}, [2, None])
    """
    return jax.tree.map(_flat, tree, is_leaf=_is_no_plain_container)


def in_containers_of(plain: PyTree, like: PyTree) -> PyTree:
    """The inverse of `in_plain_containers`: the leaves in the containers of `like`."""
    return jax.tree.map(_refilled, like, plain, is_leaf=_is_no_plain_container)


def _is_no_plain_container(node: PyTree) -> bool:
    if type(node) is dict:
        return not all(type(key) is str for key in node)
    return type(node) not in (list, tuple, NoneType)


def _is_leaf(node: PyTree) -> bool:
    return jax.tree_util.all_leaves([node])


def _flat(node: PyTree) -> PyTree:
    return node if _is_leaf(node) else dict(leaves(node))


def _refilled(like: PyTree, plain: PyTree) -> PyTree:
    return plain if _is_leaf(like) else unflatten(plain, like=like)
