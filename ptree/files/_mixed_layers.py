"""Bring single layers of several dtypes to one dtype, so that they can be stacked and then cast to that of the template."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from .._edit import leaves, map_leaves
from .._paths import STACKED
from .._tree import Leaf, PyTree, Tree, signature
from ._cast import converted

_GROUPS = (jnp.floating, jnp.integer, jnp.complexfloating)


def layers_of_one_dtype(got: Tree, like: PyTree) -> Tree:
    """The tree with the layers of each stack of `like` in a dtype that holds all their numbers; other leaves stay.

    Layers of floats beside layers of whole numbers stay, too: a cast does not convert these.
    """
    dtypes = mixed_layers(got, like)
    if not dtypes:
        return got
    return map_leaves(got, lambda path, leaf: _converted(leaf, dtypes[path]) if path in dtypes else leaf)


def mixed_layers(got: Tree, like: PyTree) -> dict[str, np.dtype]:
    """The path of each layer that another layer of its stack differs from in dtype -> the dtype that holds both."""
    stacks = [path for path, _ in leaves(like) if STACKED in path.split("/")]
    layers = _layers_of_stacks(got, stacks)
    found: dict[str, np.dtype] = {}
    for dtypes in layers.values():
        common = _common(dtypes.values())
        if common is not None:
            found.update(dict.fromkeys(dtypes, common))
    return found


def _layers_of_stacks(got: Tree, stacks: Iterable[str]) -> dict[str, dict[str, np.dtype]]:
    """The path of each stack -> the paths of its layers, each with its dtype."""
    by_form: dict[str, list[str]] = {}
    for stack in stacks:
        by_form.setdefault(_form(stack), []).append(stack)
    layers: dict[str, dict[str, np.dtype]] = {}
    for path, leaf in leaves(got):
        kind = signature(leaf)
        for stack in by_form.get(_form(path), ()):
            if isinstance(kind, tuple) and is_layer_of(path, stack):
                layers.setdefault(stack, {})[path] = np.dtype(leaf.dtype)
    return layers


def _form(path: str) -> str:
    """A path without the numbers of layers, to look stacks up."""
    return "/".join(STACKED if segment.isdecimal() else segment for segment in path.split("/"))


def is_layer_of(path: str, stacked: str) -> bool:
    """Whether a leaf is the leaf of a stack, or a layer of it, as "b/1/w" is of "b/:/w"."""
    segments, pattern = path.split("/"), stacked.split("/")
    if len(segments) != len(pattern):
        return False
    return all(one == other or (other == STACKED and one.isdecimal()) for one, other in zip(segments, pattern))


def _common(dtypes: Iterable[np.dtype]) -> np.dtype | None:
    """The narrowest dtype of the same group that holds the numbers of several; None where they are one, or of several groups."""
    distinct = [*dict.fromkeys(dtypes)]
    groups = [group for group in _GROUPS if all(jnp.issubdtype(dtype, group) for dtype in distinct)]
    if len(distinct) < 2 or not groups:
        return None
    common = distinct[0]
    for dtype in distinct[1:]:
        common = np.dtype(_promoted(common, dtype))
    return common if jnp.issubdtype(common, groups[0]) else None


def _promoted(one: np.dtype, other: np.dtype) -> np.dtype:
    if jnp.issubdtype(one, jnp.integer):
        return np.promote_types(one, other)
    try:
        return np.dtype(jnp.promote_types(one, other))
    except ValueError:  # floats of 8 bits, which JAX does not promote
        return np.dtype(np.float32)


def _converted(leaf: Leaf, dtype: np.dtype) -> Leaf:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, dtype)
    return converted(leaf, dtype)
