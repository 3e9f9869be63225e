"""Where an array is, if that was chosen on purpose; put arrays onto devices, constrain values inside of jit."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, Sharding

from .._errors import StructureError
from .._tree import Leaf, Leaves, PyTree, has_explicit_axes, leaves, plain
from .._words import listed


def placement(leaf: Leaf) -> Sharding | None:
    """The placement of an array, its sharding if that was chosen on purpose; None if JAX may move it, and for other leaves.

    Inside of `jit` JAX knows it only on a mesh with explicit axes.
    """
    if isinstance(leaf, Tracer):
        sharding = getattr(jax.typeof(leaf), "sharding", None)
        return sharding if has_explicit_axes(sharding) else None
    # JAX moves arrays that are not committed to a device; a ShapeDtypeStruct has no such attribute
    is_committed = getattr(leaf, "committed", True)
    return getattr(leaf, "sharding", None) if is_committed else None


def deleted(pairs: Leaves) -> list[str]:
    """Paths of the arrays whose memory was donated to a function, or that were deleted."""
    return [
        path
        for path, leaf in pairs
        if isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer) and leaf.is_deleted()
    ]


def refuse_deleted(error: Exception, call: str, trees: Mapping[str, PyTree]) -> None:
    """Raise with the paths if an error of JAX comes from arrays that were donated or deleted: its own names none.

    To be asked when the error is there: to look at all arrays before each call would take its time.

    Args:
        error: what JAX raised.
        call: what was asked for.
        trees: what a tree is in the call, "the batch" -> the tree.

    Raises:
        StructureError: some of their arrays are gone.
    """
    if "deleted" not in str(error):
        return
    gone = {what: deleted(leaves(tree)) for what, tree in trees.items()}
    places = [what if paths == [""] else f"{listed(paths)} of {what}" for what, paths in gone.items() if paths]
    if not places:
        return
    raise StructureError(
        f"{call}: these arrays were donated or deleted: {', '.join(places)}. A step of training uses the memory of the state"
        " that it is given again: go on from what it returned, or give it a copy, jax.tree.map(jnp.copy, tree)"
    ) from error


def constrained(value: jax.Array, sharding: Sharding) -> jax.Array:
    """Constrain a value to a sharding inside of `jit`; JAX has one function for explicit mesh axes, one for the others."""
    if has_explicit_axes(sharding):
        return jax.sharding.reshard(value, sharding)
    return jax.lax.with_sharding_constraint(value, sharding)


def put(leaf: Leaf, sharding: Sharding) -> Leaf:
    """`jax.device_put`, also onto devices of several processes, each of which holds the same leaf."""
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:  # it is divided over the processes already
        return jax.jit(lambda leaf: leaf, out_shardings=sharding)(leaf)
    # NumPy has no PRNG keys, hence by way of their words
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = put(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    # `jax.device_put` would first compare the values in all processes
    numbers = np.asarray(leaf)
    numbers = numbers.astype(jax.dtypes.canonicalize_dtype(numbers.dtype), copy=False)
    # with the dtype: a process without a device of the sharding holds no part that would say it
    return jax.make_array_from_callback(numbers.shape, sharding, lambda index: numbers[index], dtype=numbers.dtype)


def in_one_spelling(sharding: Sharding) -> Sharding:
    """A sharding with a spec that does not end in None: P(None) and P() are one for devices, and two for a compiled step."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    spec = plain(sharding.spec)
    return sharding if spec is sharding.spec else sharding.update(spec=spec)
