"""A leaf as a file holds it: a kind, a dtype, a shape, and bytes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer

from .._errors import FileError
from .._words import describe, lines, quoted, short_dtype
from ._format import CODES, STORED

if TYPE_CHECKING:
    from ._source import Unread


@dataclass
class Tensor:
    """A leaf that can be written: what its bytes are of, and the leaf, which is fetched when its turn comes."""

    leaf: Any
    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    own_dtype: str = ""
    """The name of the leaf's dtype, where safetensors does not have it."""

    @property
    def size(self) -> int:
        return self.dtype.itemsize * prod(self.shape)

    def bytes(self) -> np.ndarray[Any, Any]:
        """All bytes in C order, little end first: a view where the leaf is so in memory, otherwise a copy."""
        if self.kind == "torch":
            import torch

            return (
                self.leaf.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            )
        array = fetched(self.leaf) if isinstance(self.leaf, jax.Array) else np.asarray(self.leaf)
        array = np.asarray(array, order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return array.reshape(-1).view(np.uint8)

    def hold(self) -> None:
        """Keep the bytes as they are now, whatever becomes of the leaf: of a jax array on a CPU a view does."""
        on_cpu = isinstance(self.leaf, jax.Array) and all(device.platform == "cpu" for device in self.leaf.devices())
        now = self.bytes()
        self.leaf, self.kind = (now if on_cpu else now.copy()), self.kind if self.kind != "torch" else "held torch"


def tensor_of(leaf: Any, parts: bool = False) -> Tensor | str:
    """The leaf, ready to be written; or why it cannot be. With `parts`, some may be in other processes."""
    if isinstance(leaf, Tracer):
        return "a tracer: save outside of jax.jit"
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        return f"{describe(leaf)}, deleted: it was donated to a jitted function"
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated or parts):
        return (
            f"{describe(leaf)}, of which a part is in other processes: save it with Checkpoints(..., backend='orbax')"
        )
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return _as_stored(jax.random.key_data(leaf), f"key:{jax.random.key_impl(leaf)}")
    if isinstance(leaf, np.ma.MaskedArray):
        return "a masked array"
    if isinstance(leaf, jax.Array):
        return _as_stored(leaf, "")
    if isinstance(leaf, (np.ndarray, np.generic)):
        return _as_stored(leaf, "numpy" if isinstance(leaf, np.ndarray) else "scalar")
    if type(leaf) in (bool, int, float):
        number = np.asarray(leaf)
        return "an int of more than 64 bits" if number.dtype == object else _as_stored(number, type(leaf).__name__)
    if is_torch(leaf):
        if str(leaf.layout) != "torch.strided" or leaf.is_quantized or leaf.device.type == "meta":
            return f"a tensor of PyTorch of the layout {leaf.layout} on the device {leaf.device}"
        return _as_stored(leaf, "torch")
    return describe(leaf) if hasattr(leaf, "shape") else f"{describe(leaf)}, a {type(leaf).__name__}"


def _as_stored(leaf: Any, kind: str) -> Tensor | str:
    try:
        name = str(leaf.dtype).removeprefix("torch.")
        dtype = np.dtype(getattr(ml_dtypes, name, name)).newbyteorder("=")
    except (TypeError, ValueError, SyntaxError):  # one with fields, or of PyTorch alone
        return f"{describe(leaf)}, a dtype that safetensors does not have"
    shape = tuple(leaf.shape)
    if dtype in CODES:
        return Tensor(leaf, kind, dtype, shape)
    if dtype in STORED and kind != "torch":
        stored, behind = STORED[dtype]
        return Tensor(leaf, kind, stored, (*shape, *behind), dtype.name)
    return f"{describe(leaf)}, a dtype that safetensors does not have"


def is_torch(leaf: Any) -> bool:
    """Whether a leaf is PyTorch's, which is not imported for this."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(leaf, torch.Tensor)


def abstract_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a tensor of PyTorch, in JAX's words."""
    name = str(leaf.dtype).removeprefix("torch.")
    return jax.ShapeDtypeStruct(tuple(leaf.shape), np.dtype(getattr(ml_dtypes, name, name)))


def fetched(leaf: jax.Array) -> np.ndarray[Any, Any]:
    """The values on the host; the array itself keeps no copy of them, as it would of what `np.asarray` gives."""
    if not leaf.is_fully_addressable:  # each process has it whole
        return fetched(leaf.addressable_data(0))
    parts = [shard.data for shard in leaf.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts))


def leaf_of(array: Any, kind: str, path: str) -> Any:
    """The leaf as it was saved, from its tensor."""
    match kind.partition(":"):
        case ("numpy", _, _):
            return array
        case ("scalar", _, _):
            return array[()]
        case ("bool" | "int" | "float", _, _):
            return array.item()
        case ("key", _, impl):
            try:
                return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
            except (ValueError, TypeError) as error:
                raise FileError(f"{quoted(path)} cannot be a PRNG key: {error}") from None
        case ("torch", _, _):
            return to_torch(array, path)
        case ("", _, _):
            return to_jax(array, path)
    raise FileError(f"{quoted(path)} is of the kind {quoted(kind)}, which this ptree does not know")


def on_devices(read: Callable[[Any], np.ndarray[Any, Any]], leaf: Unread, kind: str, sharding: Any) -> jax.Array:
    """The array or key where its sharding says, of parts that are read once for all devices that hold the same."""
    parts: dict[Any, np.ndarray[Any, Any]] = {}

    def part(index: Any) -> np.ndarray[Any, Any]:
        known = tuple(one.indices(size)[:2] for one, size in zip(index, leaf.shape, strict=True))
        if known not in parts:
            parts[known] = read(index)
        return parts[known]

    made = jax.make_array_from_callback(leaf.shape, sharding, part)
    return leaf_of(made, kind, leaf.name) if kind.startswith("key:") else made


def moved(array: jax.Array, sharding: Any) -> jax.Array:
    """The array or key where a sharding says, which may be on devices of other processes too."""
    if array.sharding == sharding:
        return array
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(moved(jax.random.key_data(array), sharding), impl=jax.random.key_impl(array))
    return jax.make_array_from_callback(array.shape, sharding, np.asarray(array).__getitem__)


def to_jax(array: np.ndarray[Any, Any] | np.generic, path: str) -> jax.Array:
    """The array on JAX's default device, not copied where it can be mapped there."""
    check_bits({path: array.dtype})
    return jax.device_put(array, may_alias=True)


def is_cut(dtype: np.dtype[Any]) -> bool:
    """Whether it has 64 bits that JAX would cut to 32."""
    return jax.dtypes.canonicalize_dtype(dtype) != dtype


def check_bits(dtypes: Mapping[str, np.dtype[Any]]) -> None:
    """Raise FileError for all leaves that JAX would cut."""
    if cut := [f"{quoted(path)} is {short_dtype(dtype)}" for path, dtype in dtypes.items() if is_cut(dtype)]:
        raise FileError(
            f"{lines(cut, ', ')}, and JAX would cut {'it' if len(cut) == 1 else 'them'} to 32 bits:"
            " call jax.config.update('jax_enable_x64', True) first, or load into a `like` of NumPy or with cast=True"
        )


def kind_of(leaf: Unread, as_saved: bool) -> str:
    """The kind to read a leaf as: without `as_saved`, JAX's for PyTorch's, and NumPy's for what JAX would cut."""
    kind = "" if leaf.kind == "torch" and not as_saved else leaf.kind
    return "numpy" if kind == "" and not as_saved and is_cut(leaf.dtype) else kind


def to_torch(array: np.ndarray[Any, Any], path: str) -> Any:
    try:
        import torch
    except ImportError:
        raise FileError(f"{quoted(path)} was saved from PyTorch, which is not installed: load it with `like`") from None
    flat = torch.from_numpy(array.reshape(-1).view(np.uint8).copy())
    return flat.view(getattr(torch, array.dtype.name)).reshape(array.shape)
