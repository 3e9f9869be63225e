"""Values that a function of any framework returns, by name and as NumPy arrays; no framework is imported for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ..._edit import leaves
from ..._words import describe

OUTPUT = "output"
"""The name of what a function returns as a whole; parts of it are `output/0`, `output/logits`, ..."""
_SEVERAL = (
    "is the name of {} values, so they cannot be told apart: a key with '/' beside nested ones, a number beside its text, or an"
    " intermediate value that is called like the output"
)


@dataclass(frozen=True)
class Values:
    """What a function returned: name -> array; intermediate values, where it gave some, before the output."""

    arrays: Mapping[str, np.ndarray]
    outputs: frozenset[str]
    """The names of what is output; the others are intermediate values."""
    problems: Mapping[str, str]
    """Name -> what is there in the place of an array."""

    @cached_property
    def names(self) -> list[str]:
        return [*self.arrays, *self.problems]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays or name in self.problems


def values_of(returned: Any) -> Values:
    """Take apart what a function returned: `output`, `{name: value}`, or `(output, {name: value})`."""
    intermediate: list[tuple[str, Any]] = []
    output = returned
    if type(returned) is tuple and len(returned) == 2 and _has_names(returned[1]):
        output, named = returned
        intermediate = [*_parts(named, "")]
    prefix = OUTPUT if intermediate or not _has_named_parts(output) else ""
    outputs = [*_parts(output, prefix)]
    counts = Counter(name for name, _ in (*intermediate, *outputs))
    arrays: dict[str, np.ndarray] = {}
    problems: dict[str, str] = {}
    for name, value in (*intermediate, *outputs):
        if counts[name] > 1:
            problems[name] = _SEVERAL.format(counts[name])
            continue
        try:
            arrays[name] = to_numpy(value)
        except (TypeError, ValueError, AttributeError) as error:
            problems[name] = f"is no array: {describe(value)} ({error})"
    return Values(arrays, frozenset(name for name, _ in outputs), problems)


def _has_names(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _has_named_parts(output: Any) -> bool:
    """Whether an output is a dict, a dataclass or a named tuple, whose parts need no further name."""
    children = _children(output)
    return bool(children) and not any(name.isdecimal() for name, _ in children)


def _parts(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The arrays in nested dicts, lists, tuples, dataclasses and other pytrees, in their order, each with its path."""
    children = _children(value)
    if children is None:
        yield prefix or OUTPUT, value
        return
    for name, child in children:
        yield from _parts(child, f"{prefix}/{name}" if prefix else name)


def _children(value: Any) -> list[tuple[str, Any]] | None:
    """The named children of a container; None for a leaf."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(str(name), child) for name, child in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return list(value._asdict().items())  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, list | tuple):
        return [(str(at), child) for at, child in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if jax.tree_util.all_leaves([value]):
        return None
    return [(path, leaf) for path, leaf in leaves(value) if path]


def to_numpy(value: Any) -> np.ndarray:
    """An array of PyTorch, TensorFlow, Keras, MXNet, JAX or NumPy as NumPy's, found by its methods rather than its type.

    Raises:
        TypeError, ValueError, AttributeError: it is no array of numbers.
    """
    if isinstance(value, jax.Array):
        return _jax_to_numpy(value)
    if hasattr(value, "detach"):  # PyTorch
        return _torch_to_numpy(value)
    if hasattr(value, "asnumpy"):  # MXNet
        return value.asnumpy()
    if hasattr(value, "numpy") and not hasattr(value, "__array__"):  # some of TensorFlow
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "biufc" and array.dtype != _BFLOAT16 and not _is_small_float(array.dtype):
        raise TypeError(f"of the dtype {array.dtype}")
    return array


_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _is_small_float(dtype: np.dtype) -> bool:
    """Whether a dtype is one of ml_dtypes, which NumPy takes for raw bytes."""
    return dtype.type.__module__.startswith("ml_dtypes")


def _jax_to_numpy(array: jax.Array) -> np.ndarray:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return np.asarray(jax.random.key_data(array))
    return np.asarray(array)


def _torch_to_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if str(tensor.layout) != "torch.strided":
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy has none of its own
        return tensor.float().numpy().astype(_BFLOAT16)
    return tensor.numpy()
