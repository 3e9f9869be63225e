"""The arrays of a safetensors file as any reader gives them, and how a program turns them back into the leaves of parameters:
key words into PRNG keys, bytes into int4, pairs into complex128."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._shardings import as_traced
from ..._stored.dtypes import LACKING, Storage
from ..._stored.stored_leaf import StoredLeaf
from ..._tree import Leaf
from ..._words import describe, quoted

Spec = jax.ShapeDtypeStruct
"""A shape and a dtype."""

_KEY = "key:"
_DEFAULT_KEY_KIND = "key:threefry2x32"
_NUMBERS = (bool, int, float, complex)
_PACKED_FLOATS = ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn")
"""Floats of less than a byte: XLA has no conversion from the byte in which a file holds one of them."""


@dataclass(frozen=True)
class Weight:
    """A leaf that a function expects, and the array of a file that it is made of."""

    spec: Spec
    """The leaf as JAX traces it, weakly typed where it is a number of Python."""
    key_kind: str = ""
    """Of a PRNG key `key:` and its implementation."""

    def leaf_of(self, array: jax.Array) -> jax.Array:
        """Make the leaf of the array in the file, inside a traced program."""
        dtype = self.spec.dtype
        if self.key_kind:
            return jax.random.wrap_key_data(array, impl=self.key_kind.removeprefix(_KEY))
        if array.dtype == dtype:
            return array
        if array.shape != self.spec.shape:  # the pairs of a complex128
            return jax.lax.complex(array[..., 0], array[..., 1]).astype(dtype)
        if jnp.issubdtype(dtype, jnp.integer):  # int4 and the like: the byte of -1 is 15, and the conversion wraps
            return array.astype(dtype)
        return jax.lax.bitcast_convert_type(array, dtype)


def is_array(leaf: Leaf) -> bool:
    """Whether a leaf is an array, a number, a `Param` or a `jax.ShapeDtypeStruct`; all others are static, such as functions."""
    if isinstance(leaf, _NUMBERS):
        return True
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUMm":  # objects, texts and dates
        return False
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and not isinstance(leaf, type)


def has_values(leaf: Leaf) -> bool:
    """Whether a leaf holds numbers; a `Param` and a `jax.ShapeDtypeStruct` have a shape alone."""
    return isinstance(leaf, (*_NUMBERS, jax.Array)) or hasattr(leaf, "__array__")


def weight_of(leaf: Leaf, stored: StoredLeaf) -> Weight:
    """Describe how a leaf is made of what a file holds."""
    spec = traced_spec(leaf)
    if not is_key(spec.dtype):
        return Weight(spec)
    if stored.kind.startswith(_KEY):
        return Weight(spec, stored.kind)
    if isinstance(leaf, jax.Array):  # in a file by another program, which holds the words alone
        return Weight(spec, f"{_KEY}{jax.random.key_impl(leaf)}")
    return Weight(spec, _DEFAULT_KEY_KIND)


def traced_spec(leaf: Leaf) -> Spec:
    """The shape and dtype with which JAX traces a leaf: 64 bits are cut to 32 where JAX has only these."""
    if hasattr(leaf, "init"):  # a Param
        leaf = Spec(leaf.shape, leaf.dtype)
    spec = jax.eval_shape(_identity, as_traced(leaf))
    return Spec(spec.shape, spec.dtype, weak_type=spec.weak_type)  # without its sharding


def _identity(leaf: Leaf) -> Leaf:
    return leaf


def is_key(dtype: Any) -> bool:
    """Whether a dtype is that of typed PRNG keys."""
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def saved_spec(leaf: Leaf) -> Spec:
    """The shape and dtype that the header of a file has for a leaf which `ptree.save` writes."""
    if isinstance(leaf, _NUMBERS):
        leaf = np.asarray(leaf)
    if is_key(leaf.dtype):
        return jax.eval_shape(jax.random.key_data, Spec(leaf.shape, leaf.dtype))
    return _in_header(tuple(leaf.shape), np.dtype(leaf.dtype))


def header_spec(stored: StoredLeaf) -> Spec:
    """The shape and dtype in the header of a file, which every reader of safetensors sees."""
    return _in_header(stored.shape, stored.dtype)


def _in_header(shape: tuple[int, ...], dtype: np.dtype) -> Spec:
    storage = LACKING.get(dtype) or Storage(dtype)
    return Spec((*shape, *storage.axes), storage.dtype)


def argument_specs(stored: Mapping[str, StoredLeaf]) -> dict[str, Spec]:
    """The arguments of a program that takes what a file holds: JAX may have 32 bits only, and cuts what it is given."""
    found: dict[str, Spec] = {}
    for name, leaf in stored.items():
        spec = header_spec(leaf)
        found[name] = Spec(spec.shape, jax.dtypes.canonicalize_dtype(spec.dtype))
    return found


def dtype_problem(path: str, leaf: Leaf) -> str:
    """Say why a program cannot make a leaf of the bytes in a file; "" where it can."""
    name = str(getattr(leaf, "dtype", "")).removeprefix("torch.")
    if name in _PACKED_FLOATS:
        return f"{quoted(path)} is {describe(leaf)}, which a program cannot unpack from a file: cast it, such as to float8_e4m3fn"
    return ""
