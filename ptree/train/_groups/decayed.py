"""decayed: the mask of weight decay: kernels, and no biases, scales and tables, in a stack as apart."""

from __future__ import annotations

import re
from collections.abc import Collection

from ..._edit import names_of_leaves
from ..._tree import Leaf, PyTree, check_tree_without_extra_axes, map_leaves
from ...stacks import layer_shape
from .leaf_groups import has_gradient

_BIAS_OR_SCALE = re.compile(r"(.*_)?(bias|bias_[kv]|scale|offset|gamma|beta)(_\d+|_[ih]h_l\d+(_reverse)?)?")
"""The last name in a path of what is no kernel, whatever its rank: a bias of attention has two axes."""
_TABLE_LEAF = re.compile(r"(.*_)?(table|emb|embed|embedding|embeddings|wte|wpe|token)(_\d+)?")
"""The last name in a path of a table."""
_BIASES = re.compile(r"(.*_)?bias(_\d+)?")
"""The name of a module of Haiku that is a bias alone, whose array is `b`."""
_TABLE_MODULE = re.compile(r"wte|wpe|(.*_)?emb|.*embed.*")
"""The name of a module whose `weight` is a table: libraries name kernels so too."""


def decayed(params: PyTree) -> PyTree:
    """True at the leaves that weight decay is for, kernels; False at biases, scales, tables, and what holds no floats.

    >>> import jax.numpy as jnp, optax
    >>> from ptree import Tree, stacks
    >>> block = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4), "norm/scale": jnp.ones(4)}
    >>> params = stacks.stack(Tree({"embed/table": jnp.ones((9, 4)), "blocks": [block] * 3}), "blocks")
    >>> decayed(params)
    Tree(
      embed/table          False
      blocks/:/kernel      True
      blocks/:/bias        False
      blocks/:/norm/scale  False
    )
    >>> optimiser = optax.adamw(3e-4, weight_decay=0.1, mask=decayed)

    The usual test, `ndim > 1`, also decays the biases of a stack and those of attention, and tables. By `decayed` a leaf
    is decayed if one layer of it has two axes or more, and neither its name nor an alias says that it is a bias, scale, offset or
    table: `kernel`, `weight` and `w` of any library are kernels, but for a `weight` below `embed`, `wte` or `wpe`. A kernel
    that is tied to a table is not decayed.

    Args:
        params: any pytree of arrays, shapes or `Param`.

    Returns:
        A tree of the same structure with bools, as `mask=` of optax takes it, or this function itself.

    Raises:
        StructureError: a stack has more axes than when it was made, as in an ensemble: put the tree under `:`.
    """
    check_tree_without_extra_axes(params)
    names: dict[str, list[str]] = {}
    for name in names_of_leaves(params):
        names.setdefault(name.path, []).append(name.name)
    every_name = {name for found in names.values() for name in found}

    def is_decayed(path: str, leaf: Leaf) -> bool:
        return _is_kernel(path, leaf) and not any(_is_spared(name, every_name) for name in names[path])

    return map_leaves(params, is_decayed)


def _is_kernel(path: str, leaf: Leaf) -> bool:
    return has_gradient(leaf) and len(layer_shape(path, leaf)) >= 2


def _is_spared(name: str, every_name: Collection[str]) -> bool:
    if is_bias_or_scale(name) or is_table(name):
        return True
    *above, last = _without_value(name).split("/")
    module = above[-1] if above else ""
    # a bias of Haiku, with the axes of an image where these come last; a kernel elsewhere, as in LoRA
    return last == "b" and ("/".join([*above, "w"]) in every_name or _BIASES.fullmatch(module) is not None)


def is_table(path: str) -> bool:
    """Whether a path of a leaf says that it is a table of embeddings."""
    *above, last = _without_value(path).split("/")
    if last in {"weight", "w"}:
        return len(above) > 0 and _TABLE_MODULE.fullmatch(above[-1]) is not None
    return _TABLE_LEAF.fullmatch(last) is not None


def is_bias_or_scale(name: str) -> bool:
    """Whether a path of a leaf says that it is a bias, or a scale or offset of a norm, however many axes it has."""
    return _BIAS_OR_SCALE.fullmatch(_without_value(name).rpartition("/")[2]) is not None


def _without_value(path: str) -> str:
    """The path of a parameter; that of a variable of nnx without its last name, `value`."""
    return path.removesuffix("/value")
