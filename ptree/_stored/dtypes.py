"""The dtypes of safetensors by their codes (F32, BF16, ...), and the storage of dtypes that it lacks (int4, complex128, ...)."""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def dtype_named(name: str) -> np.dtype:
    """Find the dtype of a name such as 'bfloat16', in `ml_dtypes` or else in NumPy.

    Raises:
        TypeError: neither of them has a dtype of this name.
    """
    return np.dtype(getattr(ml_dtypes, name, name))


DTYPES = {code: dtype_named(name) for code, name in _NAMES.items()}
"""safetensors' name of a dtype -> the dtype."""
CODES = {dtype: code for code, dtype in DTYPES.items()}
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
"""safetensors' dtypes of less than a byte, which NumPy cannot read as they are packed -> bits of a number."""
UNKNOWN = np.dtype(np.void)
"""Stands for a dtype that this ptree does not know."""


class Storage(NamedTuple):
    """The storage of a dtype that safetensors lacks: a dtype that it has, and axes that are added at the end."""

    dtype: np.dtype
    axes: tuple[int, ...] = ()


# ml_dtypes keeps each number of these in one byte of memory, also those of 2 and 4 bits
_ONE_BYTE_EACH = (
    "int2", "int4", "uint2", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
)  # fmt: skip
# older versions of ml_dtypes lack some of them, hence `hasattr`
LACKING: dict[np.dtype, Storage] = {
    **{dtype_named(name): Storage(np.dtype("uint8")) for name in _ONE_BYTE_EACH if hasattr(ml_dtypes, name)},
    # a last axis of two for the real and the imaginary part; safetensors has complex64 alone
    np.dtype("complex128"): Storage(np.dtype("float64"), (2,)),
}
"""A dtype that safetensors lacks -> how it is stored."""
LACKING_BY_NAME = {dtype.name: dtype for dtype in LACKING}
