"""Check the options of operations: whole numbers, sizes, constants and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ..._errors import PatternError
from ..._stored.dtypes import dtype_named
from ..._words import quoted
from ...files._cast import lost_value

Option: TypeAlias = Any
"""What a caller gave as an option."""


def plain(option: Option) -> Option:
    """An option as Python's own numbers and tuples, so that it is written as text that can be read again."""
    if isinstance(option, (list, tuple)):
        return tuple(map(plain, option))
    return option.item() if isinstance(option, np.generic) else option


def _is_whole(option: Option) -> bool:
    return isinstance(option, int) and not isinstance(option, bool)


def _is_number(option: Option) -> bool:
    return isinstance(option, (int, float))


def _is_sizes(option: Option) -> bool:
    return isinstance(option, tuple) and all(map(_is_whole, option))


def _is_whole_or_sizes(option: Option) -> bool:
    return _is_whole(option) or _is_sizes(option)


def _is_pair_or_none(option: Option) -> bool:
    return option is None or (_is_sizes(option) and len(option) == 2)


def _is_tuple(option: Option) -> bool:
    return isinstance(option, tuple)


def _is_text(option: Option) -> bool:
    return isinstance(option, str)


_KINDS: dict[str, tuple[Callable[[Option], bool], str]] = {
    "int": (_is_whole, "a whole number"),
    "float": (_is_number, "a number"),
    "str": (_is_text, "a text"),
    "tuple[int, ...]": (_is_sizes, "a tuple of whole numbers"),
    "int | tuple[int, ...]": (_is_whole_or_sizes, "a whole number or a tuple of them"),
    "tuple[Operation, ...]": (_is_tuple, "a tuple of operations"),
    "tuple[int, int] | None": (_is_pair_or_none, "None or a pair of whole numbers"),
}
"""The annotation of an option -> whether a value is of it, and what to call it."""


def check_kind(operation: str, option: str, annotation: str, value: Option) -> None:
    """Refuse an option of another type than its annotation says; a new annotation needs a line above."""
    is_right, kind = _KINDS[annotation]
    if not is_right(value):
        raise PatternError(f"{operation}: expected {option}, {kind}; got {quoted(value)}")


def require_count(operation: str, option: str, count: int, least: int = 1) -> None:
    """Refuse a number of parts or copies that is too small."""
    if count < least:
        raise PatternError(f"{operation}: expected {option}, {least} or more; got {count}")


def require_sizes(operation: str, sizes: tuple[int, ...]) -> None:
    """Refuse negative sizes, and an empty tuple."""
    if not sizes or min(sizes) < 0:
        raise PatternError(f"{operation}: expected sizes of 0 or more; got {sizes}")


def dtype_of_option(operation: str, name: str) -> np.dtype:
    """The dtype of a name, of numbers or truth values."""
    try:
        dtype = dtype_named(name)
    except TypeError:
        raise PatternError(f"{operation}: {name!r} is no dtype") from None
    is_of_numbers = jnp.issubdtype(dtype, jnp.number) or dtype == np.bool_
    if not is_of_numbers:
        raise PatternError(f"{operation}: {name!r} is no dtype of numbers")
    return dtype


def require_held(operation: str, constant: float, dtype: np.dtype) -> None:
    """Refuse a constant that a dtype does not hold; floats may round it."""
    if not _is_held(constant, dtype):
        raise PatternError(f"{operation}: {dtype} does not hold {constant}")


def _is_held(constant: float, dtype: np.dtype) -> bool:
    if jnp.issubdtype(dtype, jnp.integer):
        limits = ml_dtypes.iinfo(dtype)
        if isinstance(constant, float) and not constant.is_integer():
            return False
        return int(limits.min) <= constant <= int(limits.max)
    if dtype == np.bool_:
        return constant in (0, 1)
    real = dtype if jnp.issubdtype(dtype, jnp.floating) else np.dtype(np.float64)
    try:
        value = np.float64(constant)
    except OverflowError:
        return False
    return not lost_value(value, real)
