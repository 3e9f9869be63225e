"""Kinds of leaves in files: arrays of JAX, NumPy and PyTorch, Python numbers, PRNG keys, empty nodes; find a kind, fetch
values, make the leaf again.

Each kind is a class. A new kind is a subclass of `LeafKind` in `KINDS`, with a line in FORMAT.md and a test.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._errors import FileError
from .._stored.dtypes import CODES, LACKING, dtype_named
from .._stored.kinds import PYTHON_NUMBERS, may_have_dtype
from .._stored.stored_leaf import StoredLeaf
from .._tree import LEAF_TYPES, Leaf, PyTree, Tree, signature
from .._words import describe, lines, name_of, printable, quoted, short_dtype, shortened, with_fixes

if TYPE_CHECKING:
    import torch

# JAX need not be asked whether it opens one: a third of the calls of a load
LEAF_TYPES.add(StoredLeaf)

_LONGEST_NAME = 60  # characters of the name of a function
LACKING_DTYPE = "a dtype that safetensors does not have"
"""The end of the sentence about a leaf of such a dtype."""

NUMBERS = (bool, int, float, complex)
"""Python's numbers."""

Array: TypeAlias = "jax.Array | np.ndarray | torch.Tensor"
"""The array of a leaf, before its numbers are fetched to the host."""


class LeafKind(ABC):
    """A kind of leaves: how they are recognised, written and read."""

    can_be_placed = False
    """Whether `shardings=` puts these leaves on devices, where no `like` says what they become."""

    @abstractmethod
    def matches(self, leaf: Leaf) -> bool:
        """Whether a leaf is of this kind."""

    @abstractmethod
    def name_of(self, leaf: Leaf) -> str:
        """The name of this leaf's kind in a file."""

    @abstractmethod
    def has_name(self, name: str) -> bool:
        """Whether a name in a file stands for this kind."""

    def obstacle(self, leaf: Leaf, may_be_spread: bool) -> str:
        """Say why this leaf cannot be saved; "" if it can. `may_be_spread`: parts of it may be in other processes."""
        return ""

    def abstract(self, stored: StoredLeaf) -> jax.ShapeDtypeStruct:
        """The shape and dtype of the leaf that a file holds."""
        return jax.ShapeDtypeStruct(stored.shape, stored.dtype)

    @abstractmethod
    def array_of(self, leaf: Leaf) -> Array:
        """The array whose bytes are stored, which may still be on its devices."""

    @abstractmethod
    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> Leaf:
        """Make a leaf of an array that was read."""

    def adopt(self, value: Leaf, path: str) -> Leaf:
        """Turn a loaded value into a leaf of this kind, because a leaf of `like` is of this kind."""
        return as_jax(value, path)


class JaxArray(LeafKind):
    """The kind of arrays of JAX, and of leaves that are loaded for a `Param` or a `jax.ShapeDtypeStruct`."""

    can_be_placed = True

    def matches(self, leaf: Leaf) -> bool:
        return isinstance(leaf, jax.Array)

    def name_of(self, leaf: Leaf) -> str:
        return ""

    def has_name(self, name: str) -> bool:
        return name == ""

    def obstacle(self, leaf: Leaf, may_be_spread: bool) -> str:
        # before the other checks: a tracer has no devices, and raises errors of its own
        if isinstance(leaf, Tracer):
            return "a tracer: save outside of jax.jit"
        if leaf.is_deleted():
            return f"{describe(leaf)}, deleted: it was donated to a jitted function"
        if not (may_be_spread or leaf.is_fully_addressable or leaf.is_fully_replicated):
            return f"{describe(leaf)}, of which a part is in other processes: save it with ptree.save, all processes together, or with Checkpoints(..., backend='orbax')"
        return ""

    def array_of(self, leaf: jax.Array) -> jax.Array:
        return leaf

    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> jax.Array:
        return to_jax(array, stored.name)


class PrngKey(JaxArray):
    """Typed PRNG keys of JAX; a file holds their key words."""

    def matches(self, leaf: Leaf) -> bool:
        return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def name_of(self, leaf: jax.Array) -> str:
        return f"key:{jax.random.key_impl(leaf)}"

    def has_name(self, name: str) -> bool:
        return name.startswith("key:")

    def abstract(self, stored: StoredLeaf) -> jax.ShapeDtypeStruct:
        dtype = key_dtype(stored.kind.removeprefix("key:"))
        # the last axis counts the words of a key
        return jax.ShapeDtypeStruct(stored.shape[:-1], stored.dtype if dtype is None else dtype)

    def array_of(self, leaf: jax.Array) -> jax.Array:
        return jax.random.key_data(leaf)

    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> jax.Array:
        implementation = stored.kind.removeprefix("key:")
        try:
            return jax.random.wrap_key_data(jnp.asarray(array), impl=implementation)
        # an implementation that this process does not have, or the wrong number of words
        except (ValueError, TypeError) as error:
            raise FileError(f"{quoted(stored.name)} cannot be a PRNG key: {error}") from None


@cache
def key_dtype(implementation: str) -> Any:
    """The dtype of PRNG keys of an implementation; None where this process does not have it. No device is started.

    >>> key_dtype("threefry2x32"), key_dtype("unknown")
    (key<fry>, None)
    """
    try:
        return jax.eval_shape(lambda: jax.random.key(0, impl=implementation)).dtype
    except ValueError:
        return None


class NumpyArray(LeafKind):
    """Arrays of NumPy."""

    can_be_placed = True

    def matches(self, leaf: Leaf) -> bool:
        return isinstance(leaf, np.ndarray)

    def name_of(self, leaf: Leaf) -> str:
        return "numpy"

    def has_name(self, name: str) -> bool:
        return name == "numpy"

    def obstacle(self, leaf: Leaf, may_be_spread: bool) -> str:
        # safetensors has no mask, and without it the hidden values would come back as valid
        return "a masked array" if isinstance(leaf, np.ma.MaskedArray) else ""

    def array_of(self, leaf: np.ndarray) -> np.ndarray:
        return leaf

    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> np.ndarray:
        return array

    def adopt(self, value: Leaf, path: str) -> np.ndarray:
        if isinstance(value, jax.Array):
            return np.array(value)  # a copy: NumPy's view of an array of JAX is read-only
        return np.asarray(value)


class _OneNumber(LeafKind):
    """Base of the kinds whose leaves are one number."""

    def array_of(self, leaf: Leaf) -> np.ndarray:
        return np.asarray(leaf)


class NumpyScalar(_OneNumber):
    """Numbers of NumPy, such as `np.float32(2)`."""

    def matches(self, leaf: Leaf) -> bool:
        return isinstance(leaf, np.generic)

    def name_of(self, leaf: Leaf) -> str:
        return "scalar"

    def has_name(self, name: str) -> bool:
        return name == "scalar"

    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> np.generic | np.ndarray:
        return array[()]  # NumPy gives its scalar for an array without axes

    def adopt(self, value: Leaf, path: str) -> np.generic | np.ndarray:
        return np.asarray(value)[()]


class PythonNumber(_OneNumber):
    """The kind of Python's numbers: bool, int and float."""

    def matches(self, leaf: Leaf) -> bool:
        return type(leaf) in (bool, int, float)  # by type: np.float64 is a subclass of float

    def name_of(self, leaf: Leaf) -> str:
        return type(leaf).__name__

    def has_name(self, name: str) -> bool:
        return name in PYTHON_NUMBERS

    def obstacle(self, leaf: Leaf, may_be_spread: bool) -> str:
        # NumPy makes an array of objects of an int that is too long for its dtypes
        return "an int of more than 64 bits" if np.asarray(leaf).dtype == object else ""

    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> bool | int | float:
        return array.item()


class TorchTensor(LeafKind):
    """Tensors of PyTorch, which is imported only to read one."""

    def matches(self, leaf: Leaf) -> bool:
        # importing PyTorch takes seconds; if nobody has imported it, no leaf is a tensor of it
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(leaf, torch.Tensor)

    def name_of(self, leaf: Leaf) -> str:
        return "torch"

    def has_name(self, name: str) -> bool:
        return name == "torch"

    def obstacle(self, leaf: torch.Tensor, may_be_spread: bool) -> str:
        if not has_memory(leaf):
            return f"a {type(leaf).__name__} of PyTorch, without memory of its own"
        if leaf.is_quantized:
            return "a quantized tensor of PyTorch: dequantize() it"
        if leaf.device.type == "meta":
            return "a tensor of PyTorch on the device meta, which holds no values"
        if str(leaf.layout) != "torch.strided":
            return f"a tensor of PyTorch of the layout {leaf.layout} on the device {leaf.device}"
        return ""

    def array_of(self, leaf: torch.Tensor) -> torch.Tensor:
        return leaf

    def leaf_of(self, array: np.ndarray, stored: StoredLeaf) -> torch.Tensor:
        return self._tensor_of(array, stored.name)

    def adopt(self, value: Leaf, path: str) -> torch.Tensor:
        return value if self.matches(value) else self._tensor_of(np.asarray(value), path)

    def _tensor_of(self, array: np.ndarray, path: str) -> torch.Tensor:
        try:
            import torch
        except ImportError:
            raise FileError(
                f"{quoted(path)} was saved from PyTorch, which is not installed: load it with `like`"
            ) from None
        dtype = getattr(torch, array.dtype.name)
        if not array.size:  # PyTorch views no empty memory as another dtype
            return torch.empty(array.shape, dtype=dtype)
        # through bytes, as NumPy's bfloat16 is unknown to PyTorch; a copy, as PyTorch may write to its memory
        flat = torch.from_numpy(array.reshape(-1).view(np.uint8).copy())
        return flat.view(dtype).reshape(array.shape)


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor has memory that holds its values, as fake, masked, nested, traced and uninitialized ones have not."""
    import torch

    is_wrapper = type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]
    if is_wrapper or tensor.is_nested or torch.nn.parameter.is_lazy(tensor):
        return False
    if str(tensor.layout) != "torch.strided":
        return True
    try:
        tensor.data_ptr()
    except RuntimeError:  # inside of torch.func.grad and torch.vmap
        return False
    return True


JAX_ARRAY = JaxArray()
NUMPY_ARRAY = NumpyArray()
PYTHON_NUMBER = PythonNumber()
TORCH_TENSOR = TorchTensor()
# a PRNG key is a jax.Array too, hence it comes before those
KINDS: tuple[LeafKind, ...] = (PrngKey(), JAX_ARRAY, NUMPY_ARRAY, NumpyScalar(), PYTHON_NUMBER, TORCH_TENSOR)
"""All kinds; the first that matches a leaf is its kind."""


def kind_of(leaf: Leaf) -> LeafKind | None:
    """Find the kind of a leaf; None if files hold no such leaves."""
    for kind in KINDS:
        if kind.matches(leaf):
            return kind
    return None


def kind_named(name: str) -> LeafKind | None:
    """Find the kind of leaves that has this name in files; None if this ptree does not know it."""
    for kind in KINDS:
        if kind.has_name(name):
            return kind
    return None


def is_static(leaf: Leaf) -> bool:
    """Whether a leaf is no array and no number, such as a function, a text or a dtype: no file holds it."""
    return kind_of(leaf) is None and not isinstance(leaf, NUMBERS) and not isinstance(signature(leaf), tuple)


def empty_name(node: PyTree) -> str:
    """The name in a file for None ("none") and for a node without leaves ("node"); "" for every other leaf or node."""
    if node is None:
        return "none"
    return "node" if not jax.tree.leaves(node) else ""


def empty_node(name: str) -> Tree | None:
    """Read back the node without leaves that has this name in a file."""
    return None if name == "none" else Tree()


# ------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class UnsavedLeaf:
    """A leaf that is not written to a file yet: its description, and the array, whose bytes are fetched one leaf at a time."""

    stored: StoredLeaf
    array: Array

    def bytes(self) -> np.ndarray:
        """All bytes in C order, little-endian: a view if the array is so in memory, otherwise a copy."""
        array = np.asarray(self.host_array(), order="C")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        return array.reshape(-1).view(np.uint8)

    def host_array(self) -> np.ndarray:
        """The values on the host."""
        if isinstance(self.array, jax.Array):
            return fetched(self.array)
        if isinstance(self.array, np.ndarray):
            return self.array
        return _torch_on_host(self.array).view(self.stored.dtype).reshape(self.stored.shape)

    def snapshot(self) -> UnsavedLeaf:
        """The leaf with its values as they are now: a copy, or a view if it is JAX's, which no one writes to."""
        now = self.host_array()
        # JAX writes to no array in place, and keeps the memory of a CPU array while NumPy has a view of it
        is_safe = isinstance(self.array, jax.Array) and _is_on_cpu(self.array)
        return replace(self, array=now if is_safe else now.copy())

    @property
    def is_here(self) -> bool:
        """Whether this process has all of the leaf."""
        if not isinstance(self.array, jax.Array):
            return True
        return self.array.is_fully_addressable or self.array.is_fully_replicated


def _is_on_cpu(array: jax.Array) -> bool:
    return all(device.platform == "cpu" for device in array.devices())


def unsaved(name: str, leaf: Leaf, may_be_spread: bool = False) -> UnsavedLeaf | str:
    """Describe a leaf that is to be written to a file; or say why its kind cannot be."""
    kind = kind_of(leaf)
    if kind is None:
        shown = describe(leaf)
        if hasattr(leaf, "init"):  # a Param
            return f"a Param, {shown}, not drawn yet: ptree.init first"
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return f"a ShapeDtypeStruct, {shown}, which has no values: save the arrays that have this shape"
        kind_name = type(leaf).__name__
        if callable(leaf) and shown == kind_name:
            shown = shortened(printable(name_of(leaf)), _LONGEST_NAME)
        return shown if hasattr(leaf, "shape") or shown == kind_name else f"{shown}, a {kind_name}"
    obstacle = kind.obstacle(leaf, may_be_spread)
    if obstacle:
        return obstacle
    array = kind.array_of(leaf)
    try:
        dtype = dtype_of(array)
    except (TypeError, ValueError, SyntaxError):  # one with fields, or one that only PyTorch has
        return f"{describe(leaf)}, {LACKING_DTYPE}"
    is_known = dtype in CODES or dtype in LACKING
    kind_name = kind.name_of(leaf)
    if not is_known or not may_have_dtype(kind_name, dtype):
        return f"{describe(leaf)}, {LACKING_DTYPE}"
    return UnsavedLeaf(StoredLeaf(name, kind_name, dtype, tuple(array.shape)), array)


def dtype_of(array: Array) -> np.dtype:
    """The NumPy dtype of an array of JAX, NumPy or PyTorch, in this machine's byte order."""
    if isinstance(array, (np.ndarray, jax.Array)):
        return np.dtype(array.dtype).newbyteorder("=")
    return dtype_named(str(array.dtype).removeprefix("torch."))


def fetched(array: jax.Array) -> np.ndarray:
    """Fetch the values of an array of JAX to the host, where the array keeps no copy, as it would for `np.asarray(array)`."""
    if not array.is_fully_addressable:  # replicated over several hosts: each device has all values
        array = array.addressable_data(0)
    # a new array of the same buffers: the copy on the host that JAX caches goes with it
    parts = [shard.data for shard in array.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts))


def _torch_on_host(tensor: torch.Tensor) -> np.ndarray:
    """Read the bytes of a tensor of PyTorch; as bytes, because `tensor.numpy()` refuses bfloat16."""
    import torch

    # `numpy()` refuses gradients, and conjugated or negated views
    whole = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    # PyTorch views as bytes only what has a stride of 1, which tensors of no number or one number need not have
    flat = whole.as_strided((whole.numel(),), (1,))
    return flat.view(torch.uint8).numpy()


# ------------------------------------------------------------------------------- reading


def leaf_of(array: np.ndarray, stored: StoredLeaf) -> Leaf:
    """Make the leaf that a file holds, by its kind, of the array that was read."""
    refuse_unreadable([stored])
    kind = kind_named(stored.kind) or NUMPY_ARRAY
    return kind.leaf_of(array, stored)


def refuse_unreadable(leaves: Iterable[StoredLeaf]) -> None:
    """Raise one FileError for all leaves of dtypes, shapes and kinds that this ptree cannot read."""
    problems: list[str] = []
    for leaf in leaves:
        problem = leaf.unreadable
        if not problem and kind_named(leaf.kind) is None:
            problem = f"is of the kind {quoted(leaf.kind)}, which this ptree does not know"
        if problem:
            problems.append(f"{quoted(leaf.name)} {problem}")
    if problems:
        raise FileError(with_fixes(problems, ["select= loads the others."]))


def for_like(stored: StoredLeaf) -> StoredLeaf:
    """The kind in which a leaf is read for a `like`: JAX's for PyTorch's, NumPy's if JAX would cut its 64 bits to 32."""
    return without_cut(replace(stored, kind="")) if stored.kind == "torch" else without_cut(stored)


def without_cut(stored: StoredLeaf) -> StoredLeaf:
    """The kind in which a leaf is read with all its bits: NumPy's for an array of JAX's that JAX would cut to 32 bits."""
    return replace(stored, kind="numpy") if stored.kind == "" and is_cut(stored.dtype) else stored


def expected(leaf: Leaf) -> Leaf:
    """The shape and dtype that a leaf of `like` expects in the file, for arrays of PyTorch or of another byte order too."""
    is_foreign = isinstance(leaf, np.ndarray) and not leaf.dtype.isnative
    if is_foreign or TORCH_TENSOR.matches(leaf):
        return jax.ShapeDtypeStruct(tuple(leaf.shape), dtype_of(leaf))
    return leaf


def abstract(leaf: Leaf) -> Leaf:
    """The shape and dtype of a leaf in a file or in `like`, numbers included; a leaf that has none is returned as it is."""
    if isinstance(leaf, StoredLeaf):
        return (kind_named(leaf.kind) or NUMPY_ARRAY).abstract(leaf)
    if isinstance(leaf, NUMBERS):
        return jax.ShapeDtypeStruct((), np.asarray(leaf).dtype)
    return expected(leaf)


def adopted(value: Leaf, like: Leaf, path: str) -> Leaf:
    """Turn a value read from a file into a leaf of the kind of `like`; into a JAX array if that is a Param or a shape."""
    return (kind_of(like) or JAX_ARRAY).adopt(value, path)


def as_jax(value: Leaf, path: str) -> Leaf:
    """Turn a NumPy array or scalar into a JAX array; return any other value as it is."""
    return to_jax(value, path) if isinstance(value, (np.ndarray, np.generic)) else value


def to_jax(array: np.ndarray | np.generic, path: str) -> jax.Array:
    """Put an array of NumPy on JAX's default device, without a copy if JAX can use its memory."""
    refuse_cut({path: array.dtype}.items())  # device_put would cut without a word
    return jax.device_put(array, may_alias=True)


def is_cut(dtype: np.dtype) -> bool:
    """Whether JAX would cut numbers of this dtype from 64 bits to 32."""
    return jax.dtypes.canonicalize_dtype(dtype) != dtype


def refuse_cut(dtypes: Iterable[tuple[str, np.dtype]]) -> None:
    """Raise one FileError for all arrays whose numbers JAX would cut to 32 bits."""
    cut = [f"{quoted(path)} is {short_dtype(dtype)}" for path, dtype in dtypes if is_cut(dtype)]
    if cut:
        them = "it" if len(cut) == 1 else "them"
        raise FileError(
            f"{lines(cut, ', ')}, and JAX would cut {them} to 32 bits:"
            " call jax.config.update('jax_enable_x64', True) first, or load into a `like` of NumPy or with cast=True"
        )
