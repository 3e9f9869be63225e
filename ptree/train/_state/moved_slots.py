"""Slots of old leaves as slots of new ones: one layer of a stack, layers stacked, axes in another order, another size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._shardings import is_spread
from ..._tree import Leaf
from .origins import Origin, Piece

Shape = tuple[int, ...]


class OldSlot(NamedTuple):
    """A slot of an old parameter, and the parameter's shape."""

    value: Leaf
    param_shape: Shape

    @property
    def extra_axes(self) -> int | None:
        """How many axes the slot has before those of its parameter; None if it does not have those of its parameter."""
        shape = np.shape(self.value)
        extra = len(shape) - len(self.param_shape)
        return extra if extra >= 0 and shape[extra:] == self.param_shape else None


def piece_shape(piece: Piece, param_shape: Shape) -> Shape:
    """The shape of the part of an old parameter that a piece is."""
    if not piece.via:
        return param_shape[len(piece.layer) :]
    shape = jax.ShapeDtypeStruct(param_shape[len(piece.layer) :], jnp.float32)
    for transform in piece.via:
        shape = transform.see(shape)
    return shape.shape


def moved_slot(slots: Sequence[OldSlot], origin: Origin, wanted: jax.ShapeDtypeStruct) -> Leaf | None:
    """The slot of a new parameter made of those of its pieces; None if it would not have the wanted shape.

    Nothing is broadcast, and numbers change their width alone: floats stay floats.
    """
    parts = [_part(slot, piece) for slot, piece in zip(slots, origin.pieces, strict=True)]
    if any(part is None for part in parts):
        return None
    value = parts[0] if not origin.grid else _stacked(parts, origin.grid, slots[0].extra_axes or 0)
    if value is None or np.shape(value) != wanted.shape:
        return None
    return cast_slot(value, wanted.dtype)


def _part(slot: OldSlot, piece: Piece) -> Leaf | None:
    """What a piece takes of a slot; None if the slot has no part of its own for the piece."""
    value, depth = slot.value, len(piece.layer)
    extra = slot.extra_axes
    if depth:
        first = extra or 0
        if extra is None and np.shape(value)[:depth] != slot.param_shape[:depth]:
            return None
        value = value[(slice(None),) * first + piece.layer]
    if piece.via and extra is None:
        return None  # such as a sum over one axis: it is not known over which
    for transform in piece.via:
        value = transform.see(value)
    return value


def _stacked(parts: Sequence[Leaf], grid: Shape, axis: int) -> Leaf | None:
    shape = np.shape(parts[0])
    if any(np.shape(part) != shape for part in parts):
        return None
    stacked = jnp.stack(parts, axis)
    return stacked.reshape(*shape[:axis], *grid, *shape[axis:])


def cast_slot(value: Leaf, dtype: np.dtype) -> Leaf | None:
    """The value in another width of its kind, f32 in bf16; None where the kinds differ."""
    own = np.asarray(value).dtype if not hasattr(value, "dtype") else value.dtype
    if own == dtype:
        return value
    for kind in (jnp.floating, jnp.complexfloating, jnp.signedinteger, jnp.unsignedinteger):
        if jnp.issubdtype(own, kind) and jnp.issubdtype(dtype, kind):
            return value.astype(dtype)
    return None


# --------------------------------------------------------------------------------------- sizes


def can_be_resized(slot: Shape, fresh: Shape, old_param: Shape, new_param: Shape) -> bool:
    """Whether each axis of a slot kept its size, or changed as an axis of the parameter did."""
    if len(slot) != len(fresh) or len(old_param) != len(new_param):
        return False
    changes = {*zip(old_param, new_param, strict=True)}
    return all(before == after or (before, after) in changes for before, after in zip(slot, fresh, strict=True))


def with_corner(fresh: Leaf, old: Leaf) -> Leaf:
    """The array `fresh` with the numbers of `old` at the places that both have."""
    shared = tuple(slice(0, min(a, b)) for a, b in zip(np.shape(fresh), np.shape(old), strict=True))
    if is_spread(fresh) or is_spread(old):  # parts of arrays on meshes with explicit axes cannot be written in place
        whole = np.array(fresh)
        whole[shared] = np.asarray(old)[shared]
        return jnp.asarray(whole)
    return jnp.asarray(fresh).at[shared].set(jnp.asarray(old)[shared])
