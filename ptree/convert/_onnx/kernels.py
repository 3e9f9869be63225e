"""Dtypes of integers for which ONNX Runtime's CPU has no kernel of an operation, and the wider dtype to compute in."""

from __future__ import annotations

import numpy as np

_FLOATS = {"float16", "bfloat16", "float32", "float64"}
# ONNX Runtime itself puts casts to float32 around operations on float16.
_KERNELS = {
    "Max": {"int8", "uint8", "int32", "uint32", "int64", "uint64"},
    "Min": {"int8", "uint8", "int32", "uint32", "int64", "uint64"},
    "Where": {"int32", "int64", "uint8"},
    "MatMul": {"int32", "int64", "uint32", "uint64"},
    "Neg": {"int8", "int16", "int32", "int64"},
    "Pow": {"int32", "int64"},
    "Pad": {"bool", "int8", "uint8", "int32", "int64", "uint32", "uint64"},
    "Less": {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"},
    "ReduceSum": {"int32", "int64"},
    "ReduceProd": {"int32", "int64"},
    "ReduceMax": {"int32", "int64"},
    "ReduceMin": {"int32", "int64"},
    "ArgMax": {"int32", "int64"},
    "ArgMin": {"int32", "int64"},
    "CumSum": {"int32", "int64"},
    "TopK": {"int32", "int64"},
    "MaxPool": set(),
}
"""Operation -> the dtypes of integers that it computes in."""
_AS_LESS = ("Greater", "LessOrEqual", "GreaterOrEqual")
_SMALL = {"bool", "int8", "uint8", "int16", "uint16"}


def computed_dtype(op: str, dtype: np.dtype) -> np.dtype:
    """The dtype to compute an operation in: the array's own where there is a kernel, else one that holds its numbers."""
    kernels = _KERNELS.get("Less" if op in _AS_LESS else op)
    if kernels is None or dtype.name in _FLOATS or dtype.name in kernels:
        return dtype
    if op == "MaxPool":
        return np.dtype(np.float64)  # which holds all integers of 32 bits
    return np.dtype(np.int32 if dtype.name in _SMALL else np.int64)
