"""TensorMakers: read the calls in PyTorch's pickles as descriptions of tensors and storages; nothing that a pickle names is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .._stored.dtypes import UNKNOWN
from .pickled_values import Global, PickledDict, PickledObject
from .restricted_pickle import Makers, PickleError
from .torch_dtypes import STORAGES, TorchDtype, torch_dtype

_MOST_AXES = 64  # of NumPy, and of PyTorch
_LONGEST_KEY = 200
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage", "torch.xpu", "torch.hpu")
_UNKNOWN_DTYPE = TorchDtype("unknown", UNKNOWN)
_LONGEST_NAME = 200  # of a class in a message
_NESTED = "is a nested tensor: save the list of its `unbind()`"
_JAGGED = "torch.nested._internal.nested_tensor.NestedTensor"
"""The class of nested tensors of the layout torch.jagged."""


@dataclass(frozen=True, slots=True)
class StorageInfo:
    """A storage: numbers one after the other, which tensors are views of."""

    key: str
    dtype: TorchDtype
    count: int
    """How many numbers of the dtype it has."""
    start: int = 0
    """Its first byte in the storage of this key, of which it may be a part in old files."""

    @property
    def nbytes(self) -> int:
        return self.count * self.dtype.numpy.itemsize


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor: which numbers of a storage it shows, in which shape."""

    dtype: TorchDtype
    shape: tuple[int, ...]
    storage: StorageInfo | None = None
    """None of a tensor that is not read."""
    offset: int = 0
    """Its first number, counted in numbers from the start of the storage."""
    strides: tuple[int, ...] = ()
    """Counted in numbers."""
    is_conjugate: bool = False
    is_negative: bool = False
    problem: str = ""


class TensorMakers(Makers):
    """Describe tensors, storages and objects; keep the storages, and the names of functions that a reader does not allow."""

    def __init__(self):
        self.storages: dict[str, StorageInfo] = {}
        """Key -> storage, as it is first referred to."""
        self.refused: dict[str, None] = {}
        """The names of functions and classes that the pickle calls, and that are not known to be harmless."""

    def called(self, function: Global, args: tuple[object, ...]) -> object:
        maker = _MAKERS.get(function.full_name)
        if maker is not None:
            return maker(*args)
        if function.full_name not in OBJECTS:
            self.refused[short_name(function)] = None
        return PickledObject(function, args)

    def persistent(self, key: object) -> object:
        """A storage, of which a file has the tag, class, key, device, size, and, if it is old, the part that is meant."""
        if not isinstance(key, tuple) or not key:
            raise PickleError("its pickle refers to something that is no storage")
        tag, *fields = key
        if tag == "module" and fields:  # a class and its source code, in whole modules of old files
            return fields[0]
        if tag != "storage" or len(fields) not in (4, 5):
            raise PickleError("its pickle refers to something that is no storage")
        storage = _storage(*fields[:4])
        self.storages.setdefault(storage.key, storage)
        if len(fields) == 5 and fields[4] is not None:
            return _part_of_storage(storage, fields[4])
        return storage


def _storage(kind: object, key: object, _device: object, count: object) -> StorageInfo:
    dtype = STORAGES.get(kind.name) if isinstance(kind, Global) and kind.module in _STORAGE_MODULES else None
    if dtype is None:
        raise PickleError("its pickle refers to a storage of an unknown kind")
    if not isinstance(key, str) or len(key) > _LONGEST_KEY:
        raise PickleError("its pickle refers to a storage by something that is no text")
    return StorageInfo(key, dtype, _size(count))


def _part_of_storage(storage: StorageInfo, view: object) -> StorageInfo:
    if not isinstance(view, tuple) or len(view) != 3:
        raise PickleError("its pickle refers to a part of a storage that it does not describe")
    _, offset, count = view
    return replace(storage, start=_size(offset) * storage.dtype.numpy.itemsize, count=_size(count))


def _size(given: object) -> int:
    if type(given) is not int or not 0 <= given < 1 << 63:
        raise PickleError("a tensor in its pickle has a size that is no size")
    return given


def _sizes(given: object) -> tuple[int, ...]:
    if not isinstance(given, tuple | list) or len(given) > _MOST_AXES:
        raise PickleError("a tensor in its pickle has a shape that is no shape")
    return tuple(map(_size, given))


# ---------------------------------------------------------------------------- tensors


def _tensor(storage: object, offset: object, shape: object, strides: object, *_: object) -> TensorInfo:
    if not isinstance(storage, StorageInfo):
        raise PickleError("a tensor in its pickle has no storage")
    return _view(storage, storage.dtype, offset, shape, strides)


def _tensor_v2(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _requires_grad: object = False,
    _hooks: object = None,
    metadata: object = None,
) -> TensorInfo:
    return _with_bits(_tensor(storage, offset, shape, strides), metadata)


def _tensor_v3(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    _requires_grad: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> TensorInfo:
    if not isinstance(storage, StorageInfo):
        raise PickleError("a tensor in its pickle has no storage")
    return _with_bits(_view(storage, _dtype(dtype), offset, shape, strides), metadata)


def _view(storage: StorageInfo, dtype: TorchDtype, offset: object, shape: object, strides: object) -> TensorInfo:
    sizes, steps = _sizes(shape), _sizes(strides)
    if len(sizes) != len(steps):
        raise PickleError("a tensor in its pickle has a shape and strides of different lengths")
    return TensorInfo(dtype, sizes, storage, _size(offset), steps, problem=dtype.problem)


def _dtype(given: object) -> TorchDtype:
    dtype = torch_dtype(given.name) if isinstance(given, Global) and given.module == "torch" else None
    if dtype is not None:
        return dtype
    name = short_name(given) if isinstance(given, Global) else "unknown"
    return replace(_UNKNOWN_DTYPE, problem=f"is of the dtype {name}, which this ptree does not know")


def _with_bits(tensor: TensorInfo, metadata: object) -> TensorInfo:
    """A tensor with the bits by which PyTorch conjugates and negates when numbers are used."""
    if not isinstance(metadata, PickledDict):
        return tensor
    bits = {key: value for key, value in metadata.items() if isinstance(key, str)}
    return replace(tensor, is_conjugate=bits.get("conj") is True, is_negative=bits.get("neg") is True)


def _parameter(data: object, *_: object) -> object:
    return data


def _tensor_of_device(data: object, dtype: object, *_: object) -> object:
    """A tensor of a TPU, which was saved as one of the CPU."""
    if not isinstance(data, TensorInfo):
        raise PickleError("a tensor in its pickle has no data")
    expected = _dtype(dtype)
    if expected == data.dtype:
        return data
    return replace(data, problem=f"is to be converted from torch.{data.dtype.name} to torch.{expected.name}")


def _of_type(function: object, kind: object, args: object, *_: object) -> object:
    """A tensor of a subclass, or with attributes of its own, which are left out."""
    if not isinstance(function, Global) or not isinstance(args, tuple) or not isinstance(kind, Global):
        raise PickleError("a tensor in its pickle is made by no function, or of no values")
    maker = _MAKERS.get(function.full_name)
    if maker is None:
        return TensorInfo(_UNKNOWN_DTYPE, (), problem=_unknown(kind, function))
    if maker is _of_type:
        raise PickleError("a tensor in its pickle is of a class inside another class")
    tensor = maker(*args)
    if kind.full_name in _PLAIN_TENSORS or not isinstance(tensor, TensorInfo):
        return tensor
    return replace(tensor, problem=tensor.problem or _subclass(kind))


_PLAIN_TENSORS = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")


def _unknown(kind: Global, function: Global) -> str:
    """What a tensor is that a function makes which is not read."""
    if kind.full_name == _JAGGED:
        return _NESTED
    return f"is of the class {short_name(kind)}, made by {short_name(function)}, which ptree does not read"


def _subclass(kind: Global) -> str:
    return f"is of the class {short_name(kind)}, a tensor only by what its code makes of it"


# ---------------------------------------------------------------------------- tensors that are not read


def _quantised(storage: object, offset: object, shape: object, strides: object, *_: object) -> TensorInfo:
    tensor = _tensor(storage, offset, shape, strides)
    return replace(tensor, problem=f"is a quantised tensor (torch.{tensor.dtype.name}): save its `dequantize()`")


def _sparse(layout: object, data: object) -> TensorInfo:
    fields = data if isinstance(data, tuple) else ()
    tensors = [field for field in fields if isinstance(field, TensorInfo)]
    # indices (of one or two kinds), then values, then the shape
    dtype = tensors[-1].dtype if tensors else _UNKNOWN_DTYPE
    shapes = [field for field in fields if isinstance(field, tuple)]
    shape = _sizes(shapes[0]) if shapes else ()
    kind = layout.args[0] if isinstance(layout, PickledObject) and layout.args else "sparse"
    kind = kind[:_LONGEST_NAME] if isinstance(kind, str) else "sparse"
    return TensorInfo(dtype, shape, problem=f"is a sparse tensor ({kind}): save its `to_dense()`")


def _nested(buffer: object, *_: object) -> TensorInfo:
    dtype = buffer.dtype if isinstance(buffer, TensorInfo) else _UNKNOWN_DTYPE
    return TensorInfo(dtype, (), problem=_NESTED)


def _meta(dtype: object, shape: object, *_: object) -> TensorInfo:
    return TensorInfo(_dtype(dtype), _sizes(shape), problem="is on the device 'meta', and has no numbers")


def _wrapper(kind: object, dtype: object, shape: object, *_: object) -> TensorInfo:
    problem = _subclass(kind) if isinstance(kind, Global) else "is a tensor of an unknown class"
    return TensorInfo(_dtype(dtype), _sizes(shape), problem=problem)


# ---------------------------------------------------------------------------- plain values


def _shape(values: object = (), *_: object) -> object:
    return tuple(values) if isinstance(values, tuple | list) else values


def _ordered_dict(items: object = (), *_: object) -> PickledDict:
    """An OrderedDict, empty or, by Python 2, of a list of pairs."""
    made = PickledDict()
    for pair in items if isinstance(items, list) else ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise PickleError("a dict in its pickle has items that are no pairs")
        made.flat.extend(pair)
    return made


def _default_dict(*_: object) -> PickledDict:
    return PickledDict()


def _counter(counts: object = None, *_: object) -> object:
    return counts if isinstance(counts, PickledDict) else PickledDict()


def _sequence(values: object = (), *_: object) -> object:
    return list(values) if isinstance(values, tuple | list) else []


def _encoded(text: object, encoding: object = "latin1", *_: object) -> bytes:
    """Bytes, which protocol 2 writes as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleError("bytes in its pickle are written in an unknown way")
    return text.encode("latin-1")


def _bytes(content: object = b"", *_: object) -> object:
    return content if isinstance(content, bytes) else b""


def _complex(real: object = 0.0, imaginary: object = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise PickleError("a complex number in its pickle is made of something else")
    return complex(real, imaginary)


def short_name(function: Global) -> str:
    """The name of a function or class for a message."""
    return ascii(function.full_name[:_LONGEST_NAME])[1:-1]


_MAKERS: dict[str, Callable[..., object]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _tensor_of_device,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch._utils._rebuild_nested_tensor": _nested,
    "torch._utils._rebuild_meta_tensor_no_storage": _meta,
    "torch._utils._rebuild_wrapper_subclass": _wrapper,
    "torch.nn.parameter.Parameter": _parameter,
    "torch.Size": _shape,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.Counter": _counter,
    "builtins.set": _sequence,
    "builtins.frozenset": _sequence,
    "builtins.list": _sequence,
    "__builtin__.set": _sequence,
    "__builtin__.frozenset": _sequence,
    "builtins.bytearray": _bytes,
    "builtins.complex": _complex,
    "__builtin__.complex": _complex,
    "_codecs.encode": _encoded,
}
"""What calls of these functions and classes are read as; there is nothing else that a pickle can make."""

NAMESPACES = ("argparse.Namespace", "types.SimpleNamespace")
ATTRIBUTE_DICTS = (
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)
PATHS = ("pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath", "pathlib.PureWindowsPath", "pathlib.Path")
DEVICE = "torch.device"
NUMPY_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
NUMPY_DTYPE = "numpy.dtype"
_LAYOUT = "torch.serialization._get_layout"
# the bounds of a size, which jagged tensors note for the compiler
_DYNAMIC_RANGE = "torch._dynamo.decorators._DimRange"
OBJECTS = frozenset(
    (*NAMESPACES, *ATTRIBUTE_DICTS, *PATHS, *NUMPY_ARRAYS, *NUMPY_SCALARS, NUMPY_DTYPE, DEVICE, _LAYOUT, _DYNAMIC_RANGE)
)
"""Objects beside the tensors that are read: their classes hold nothing but values. They are described, and not made either."""
