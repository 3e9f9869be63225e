"""The dtypes of PyTorch: NumPy's dtype for each, the names of the storages in files, and those that NumPy has no numbers for."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from .._stored.dtypes import UNKNOWN, dtype_named


@dataclass(frozen=True, slots=True)
class TorchDtype:
    """A dtype of PyTorch, and how its numbers are read."""

    name: str
    """As `torch.` writes it: "float32"."""
    numpy: np.dtype
    """The dtype of its numbers; of a dtype that is not read, one of the same size, or an unknown one."""
    problem: str = ""
    """Why tensors of it are not read."""


_SAME_NAME = (
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "bool",
    "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
_QUANTISED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32", "quint4x2": "uint8", "quint2x4": "uint8"}
_WITHOUT_NUMPY = {
    "complex32": UNKNOWN, "float4_e2m1fn_x2": np.dtype("uint8"),
    "bits8": np.dtype("uint8"), "bits16": np.dtype("uint16"),
    "bits1x8": np.dtype("uint8"), "bits2x4": np.dtype("uint8"), "bits4x2": np.dtype("uint8"),
    **{f"{kind}{bits}": UNKNOWN for kind in ("int", "uint") for bits in range(1, 8)},
}  # fmt: skip
_OLD_NAMES = {
    "double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32", "short": "int16",
    "cfloat": "complex64", "cdouble": "complex128", "chalf": "complex32",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64", "UntypedStorage": "uint8",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip


def _all_dtypes() -> dict[str, TorchDtype]:
    # older versions of ml_dtypes lack some of them
    named = [name for name in _SAME_NAME if hasattr(np, name) or hasattr(ml_dtypes, name)]
    found = {name: TorchDtype(name, dtype_named(name)) for name in named}
    for name, stored in _QUANTISED.items():
        found[name] = TorchDtype(name, np.dtype(stored), f"is a quantised tensor (torch.{name})")
    for name, stored in _WITHOUT_NUMPY.items():
        found[name] = TorchDtype(name, stored, f"is of the dtype torch.{name}, which NumPy lacks")
    return found


DTYPES = _all_dtypes()
"""By PyTorch's name."""
STORAGES = {storage: DTYPES[name] for storage, name in _STORAGES.items()}
"""By the name of the class of a storage."""
TORCH_NAMES = {dtype.numpy: name for name, dtype in DTYPES.items() if not dtype.problem}
"""NumPy's dtype -> PyTorch's name."""
STORAGE_NAMES = {
    dtype.numpy: name for name, dtype in STORAGES.items() if not dtype.problem and name != "UntypedStorage"
}
"""NumPy's dtype -> the class of a storage; PyTorch has none for the newer dtypes, which it stores as bytes."""


def torch_dtype(name: str) -> TorchDtype | None:
    """The dtype of a name, also of an old one such as "half"; None if it is no dtype that ptree knows."""
    return DTYPES.get(_OLD_NAMES.get(name, name))
