"""Place the state of a run: every leaf an array of its own on the devices of the parameters, in one spelling of its sharding."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from ..._edit import leaves, map_leaves
from ..._errors import StructureError
from ..._shardings import following, home_of, in_one_spelling, parameters_of_slots, put
from ..._tree import Leaf, PyTree
from ..._words import SHOWN, describe, quoted
from .home import is_elsewhere


def as_arrays(tree: PyTree, what: str) -> PyTree:
    """Parameters or a state with every leaf an array of JAX, of a dtype that no step changes.

    Raises:
        StructureError: leaves that are no arrays, such as functions.
    """
    problems = [(path, leaf) for path, leaf in leaves(tree) if not _is_array(leaf)]
    if problems:
        raise StructureError(_not_arrays(problems, what))
    return map_leaves(tree, lambda path, leaf: strong(leaf))


def strong(leaf: Leaf) -> jax.Array:
    """An array without a weak type: a step would give a strong one back, and be compiled again."""
    if isinstance(leaf, jax.Array) and not jax.typeof(leaf).weak_type:
        return leaf
    array = jnp.asarray(leaf)
    return jnp.array(array, array.dtype)


def _is_array(leaf: Leaf) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    if isinstance(leaf, np.ndarray | np.generic):
        return leaf.dtype.kind not in "OSUMm"
    return isinstance(leaf, bool | int | float | complex)


def _not_arrays(problems: list[tuple[str, Leaf]], what: str) -> str:
    shown = [f"{quoted(path)} is {describe(leaf)}" for path, leaf in problems[:SHOWN]]
    more = len(problems) - SHOWN
    if more > 0:
        shown.append(f"and {more} more")
    text = f"a step takes arrays, but in {what} {'; '.join(shown)}."
    if any(isinstance(leaf, jax.ShapeDtypeStruct) or type(leaf).__name__ == "Param" for _, leaf in problems):
        return f"{text} Draw them first: ptree.init(spec, key)"
    return (
        f"{text} Keep what is no array apart: arrays, static = eqx.partition(model, eqx.is_array), and a loss that begins"
        " with model = eqx.combine(arrays, static)"
    )


# ------------------------------------------------------------------------------- on devices


def placed(tree: PyTree) -> PyTree:
    """Each leaf committed to its devices; what lies on one device goes where the parameters are, on all devices of their mesh.

    Optimisers make their counts, and what has another shape than the parameter, on the default device; committed, since a step
    gives committed arrays back and would be compiled again for these.

    Args:
        tree: parameters, or the state of a run, which begins with them.
    """
    home = home_of(tree)

    def leaf_placed(path: str, leaf: Leaf) -> Leaf:
        sharding = leaf.sharding
        if home is not None and is_elsewhere(sharding, home):
            sharding = home
        sharding = in_one_spelling(sharding)
        if leaf.committed and leaf.sharding == sharding:
            return leaf
        return put(leaf, sharding)

    return map_leaves(tree, leaf_placed)


class _Parameter(NamedTuple):
    """A parameter that lies on a mesh."""

    shape: tuple[int, ...]
    sharding: NamedSharding


def like_parameters(slots: PyTree, trained: PyTree) -> PyTree:
    """Slots of the optimiser placed as their parameters, or as the axes of these that they have."""
    parameters: dict[str, _Parameter] = {}
    for path, leaf in leaves(trained):
        if isinstance(leaf.sharding, NamedSharding):
            parameters[path] = _Parameter(leaf.shape, leaf.sharding)
    pairs = leaves(slots)
    parameter_of = parameters_of_slots([path for path, _ in pairs], parameters)
    sharding_of = following(pairs, parameter_of, parameters)
    return map_leaves(slots, lambda path, slot: put(slot, sharding_of[path]) if path in sharding_of else slot)


# --------------------------------------------------------------------------------- in memory


def apart(tree: PyTree) -> PyTree:
    """A copy of each array whose memory, or a part of it, an earlier leaf has: one buffer cannot be donated twice.

    An array that is put on several devices shares the memory of its first device with the array that was there.
    """
    seen: set[int] = set()

    def leaf_apart(path: str, leaf: Leaf) -> Leaf:
        buffers = _buffers(leaf)
        if not seen.isdisjoint(buffers):
            return put(jnp.copy(leaf), leaf.sharding)
        seen.update(buffers)
        return leaf

    return map_leaves(tree, leaf_apart)


def _buffers(leaf: Any) -> tuple[int, ...]:
    """Where the parts of an array are in memory; nothing for one without numbers."""
    if leaf.size == 0:
        return ()
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return tuple(shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards)
