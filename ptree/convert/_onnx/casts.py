"""Rules for casts: of floats to integers and to 8-bit floats as JAX does them, which ONNX leaves open or does otherwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from .graph import Graph
from .translation import Equation, NoOnnxFormError, Translation, rule
from .values import Value


@rule("convert_element_type")
def _convert(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result = equation.outputs[0]
    if x.dtype == result.dtype:
        return [x]
    tensor = t.graph.tensor(x)
    if _is_float(x.dtype) and jnp.issubdtype(result.dtype, np.integer):
        converted = _saturated(t.graph, tensor, x.dtype, result.dtype)
    elif result.dtype.name.startswith("float8"):
        # by default ONNX gives the largest number for those that are too large; JAX gives infinity or NaN
        converted = t.graph.add("Cast", tensor, to=result.dtype, saturate=0)
    else:
        converted = t.graph.cast(tensor, result.dtype)
    return [t.graph.value(converted, result, x.tensor_shape)]


def _is_float(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, np.floating)


def _saturated(graph: Graph, tensor: str, dtype: np.dtype, to: np.dtype) -> str:
    """Floats as integers: rounded towards zero, the nearest integer for numbers out of range, and 0 for NaN."""
    about = ml_dtypes.iinfo(to)
    if dtype.itemsize < 4:
        dtype = np.dtype(np.float32)
        tensor = graph.cast(tensor, dtype)
    largest = _largest_float(int(about.max), dtype)
    low, high = graph.number(int(about.min), dtype), graph.number(largest, dtype)
    number = graph.add("Where", graph.add("IsNaN", tensor), graph.number(0, dtype), tensor)
    inside = graph.cast(graph.add("Clip", number, low, high), to)
    if int(largest) == int(about.max):
        return inside
    # 2**31 - 1 is no float32: above its largest float below there are none but numbers out of range
    is_above = graph.add("Greater", tensor, high)
    return graph.typed("Where", to, to, is_above, graph.number(int(about.max), to), inside, uncast=(is_above,))


def _largest_float(largest: int, dtype: np.dtype) -> float:
    """The largest float that is at most this integer."""
    nearest = dtype.type(largest)
    if int(nearest) <= largest:
        return float(nearest)
    return float(np.nextafter(nearest, dtype.type(0)))


@rule("reduce_precision")
def _reduce_precision(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    (x,) = inputs
    result = equation.outputs[0]
    bits = equation.options["exponent_bits"], equation.options["mantissa_bits"]
    for dtype in (x.dtype, np.dtype(np.float16), np.dtype(jax.numpy.bfloat16)):
        about = jax.numpy.finfo(dtype)
        if bits == (about.nexp, about.nmant):
            narrow = t.graph.cast(t.graph.tensor(x), dtype)
            return [t.graph.value(t.graph.cast(narrow, result.dtype), result, x.tensor_shape)]
    raise NoOnnxFormError(f"{bits[0]} bits of exponent and {bits[1]} of mantissa, as no dtype of ONNX has")
