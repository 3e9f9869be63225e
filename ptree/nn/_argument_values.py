"""Check the values of a layer's arguments: sizes, axes, padding, numbers, flags, dtypes, initialisers; NumPy's numbers become
Python's."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .. import initializers
from .._words import describe, name_of, quoted, suggestion
from ._rotary import Rotary

LARGEST_SIZE = 2**31 - 1
"""The largest size of an axis: the largest index in int32, the dtype of JAX's indices."""

PADDING_MODES: Mapping[str, str] = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "replicate": "edge",
}
"""What the padding of a convolution is filled with, in PyTorch's words -> in those of `jnp.pad`."""


class UnfitError(Exception):
    """A value that does not fit its argument: what was expected, and as the end of the sentence what to write instead, if
    that is clear."""

    def __init__(self, expected: str, fix: str = ""):
        super().__init__(expected)
        self.expected, self.fix = expected, fix


Check: TypeAlias = Callable[[object], object]
"""Checks the value of an argument, and returns it as the layer keeps it. Raises `UnfitError`."""


# ------------------------------------------------------------------------------- whole numbers


def whole_number(value: object) -> int | None:
    """A whole number of Python, NumPy or JAX, also an array without axes, as an int; None for anything else.

    >>> whole_number(np.int64(3)), whole_number(np.array(3)), whole_number(3.0), whole_number(True)
    (3, 3, None, None)
    """
    # Python's bool is an int, and would pass as the size 1.
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:  # also of a tracer, whose value is not known
        return None


def size(value: object) -> int:
    """Check a number of features, groups, steps or the like: a whole number of at least 1."""
    return _whole_from(1, value, "a whole number of at least 1")


def sizes(value: object) -> int | tuple[int, ...]:
    """Check a size, or a tuple with one for each axis."""
    several = _sequence(value)
    if several is None:
        return _whole_from(1, value, "a whole number of at least 1, or a tuple of them")
    if not several:
        raise UnfitError("a whole number of at least 1, or a tuple of them")
    return tuple(_whole_from(1, one, "a tuple of whole numbers of at least 1") for one in several)


def axes(value: object) -> int | tuple[int, ...]:
    """Check an axis, or a tuple of different axes."""
    expected = "an axis such as -1, or a tuple of different ones such as (-2, -1)"
    several = _sequence(value)
    if several is None:
        return _whole_from(-LARGEST_SIZE, value, expected)
    numbers = tuple(_whole_from(-LARGEST_SIZE, one, expected) for one in several)
    if not numbers or len({*numbers}) < len(numbers):
        raise UnfitError(expected)
    return numbers


def last_axes(value: object) -> int | tuple[int, ...]:
    """Check axes that are the last ones in their order: -1, (-2, -1) and so on."""
    checked = axes(value)
    several = checked if isinstance(checked, tuple) else (checked,)
    if several != tuple(range(-len(several), 0)):
        raise UnfitError("the last axes, such as -1 or (-2, -1)")
    return checked


def index(value: object) -> int:
    """Check a position, which may count from the end: any whole number."""
    return _whole_from(-LARGEST_SIZE, value, "a whole number")


def _whole_from(least: int, value: object, expected: str) -> int:
    number = whole_number(value)
    if number is None:
        raise UnfitError(expected, _as_whole(value))
    if number < least:
        raise UnfitError(expected)
    if number > LARGEST_SIZE:
        raise UnfitError(f"{expected}, and at most {LARGEST_SIZE}")
    return number


def _as_whole(value: object) -> str:
    """What to write instead of a text or a float that means a whole number."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return f": write {int(value)}"
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(value) < LARGEST_SIZE:
        return f": write {int(value)}"
    return ""


def _sequence(value: object) -> list[object] | None:
    """The items of a list, tuple or array with an axis; None for anything else."""
    if isinstance(value, Tracer):
        return None
    is_array = isinstance(value, (np.ndarray, jax.Array)) and value.ndim > 0
    return list(value) if is_array or isinstance(value, (list, tuple)) else None  # pyright: ignore[reportArgumentType]


# ----------------------------------------------------------------------------------- padding


def padding(names: Collection[str], least: int = 0) -> Check:
    """A check of the padding of a window: one of these names, a number, or for each axis a name, a number or
    (before, after).

    Args:
        names: such as "SAME" and "VALID".
        least: the smallest number; below 0 it takes places away.
    """
    quoted_names = ", ".join(map(repr, names))
    number = "a number of at least 0" if least == 0 else "a whole number"
    expected = f"{quoted_names}, {number}, or for each axis one of these or (before, after)"

    def check(value: object) -> object:
        if isinstance(value, str):
            return one_padding(value)
        several = _sequence(value)
        if several is None:
            return one_padding(value)
        if not several:  # it has the length of no input
            raise UnfitError(expected)
        return tuple(map(one_axis, several))

    def one_axis(value: object) -> object:
        pair = _sequence(value)
        if pair is None:
            return one_padding(value)
        if len(pair) != 2:
            raise UnfitError(expected)
        before, after = pair
        return _whole_from(least, before, expected), _whole_from(least, after, expected)

    def one_padding(value: object) -> object:
        if not isinstance(value, str):
            return _whole_from(least, value, expected)
        if value in names:
            return value
        raise UnfitError(expected, _in_capitals(value, names) or _as_whole(value))

    return check


def _in_capitals(value: str, names: Collection[str]) -> str:
    """What to write instead of the name of a padding as in PyTorch and Keras, "same"."""
    return f": write {value.upper()!r}" if value.upper() in names else ""


def padding_mode(value: object) -> str | tuple[str, ...]:
    """Check what padding is filled with: a name, or a tuple with one for each axis."""
    several = _sequence(value)
    modes = [value] if several is None else several
    for mode in modes or [None]:
        if not isinstance(mode, str) or mode not in PADDING_MODES:
            names = ", ".join(map(repr, PADDING_MODES))
            raise UnfitError(f"one of {names}, or a tuple with one for each axis", _nearest(mode, PADDING_MODES))
    return value if isinstance(value, str) else tuple(map(str, modes))


# ------------------------------------------------------------------------------ other numbers


def real_number(
    *, least: float = -math.inf, above: float = -math.inf, below: float = math.inf, such_as: str = ""
) -> Check:
    """A check of a finite real number within these bounds."""
    bounds: list[str] = []
    if least > -math.inf:
        bounds.append(f"of at least {least:g}")
    if above > -math.inf:
        bounds.append(f"above {above:g}")
    if below < math.inf:
        bounds.append(f"below {below:g}")
    expected = " ".join(["a finite number", " and ".join(bounds)]).strip() + such_as

    def check(value: object) -> float:
        number = _real(value)
        if number is None:
            raise UnfitError(expected, _as_real(value))
        # NaN is neither within the bounds nor out of them.
        if not (math.isfinite(number) and number >= least and number > above and number < below):
            raise UnfitError(expected)
        return number

    return check


def _real(value: object) -> float | None:
    """A real number of Python, NumPy or JAX as one of Python; None for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, int):
        return int(value) if abs(value) < 1e300 else math.inf  # it may be too large for a float
    if isinstance(value, float):
        return float(value)  # NumPy's float64 is one too
    # A number of NumPy or an array without axes, also of bfloat16, which is no subclass of NumPy's floats.
    if isinstance(value, (np.generic, np.ndarray, jax.Array)) and not isinstance(value, Tracer):
        is_real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
        return float(value) if is_real and value.ndim == 0 else None
    return None


def _as_real(value: object) -> str:
    if not isinstance(value, str):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    return f": write {number!r}" if math.isfinite(number) else ""


# ----------------------------------------------------------------- flags, names and functions


def flag(value: object) -> bool:
    """Check True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, int) and value in (0, 1):
        raise UnfitError("True or False", f": write {bool(value)}")
    raise UnfitError("True or False")


def size_or_flag(value: object) -> int | bool:
    """Check a whole number of at least 1, or True for all and False for one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    return _whole_from(1, value, "a whole number of at least 1, or True for all")


def flag_or_function(value: object) -> object:
    """Check True, False, or a function."""
    if callable(value):
        return value
    return flag(value)


def one_of(*choices: str | None) -> Check:
    """A check of one of several names."""
    expected = " or ".join([", ".join(map(repr, choices[:-1])), repr(choices[-1])])

    def check(value: object) -> object:
        # By type first: an array has no truth value for `==`.
        if isinstance(value, str | None) and value in choices:
            return value
        names = [choice for choice in choices if choice is not None]
        raise UnfitError(expected, _nearest(value, names))

    return check


def _nearest(value: object, names: Collection[str]) -> str:
    near = suggestion(value, names) if isinstance(value, str) else ""
    return f".{near}" if near else ""


def text(value: object) -> str:
    """Check a name."""
    if isinstance(value, str):
        return value
    raise UnfitError("a name")


def axis_names(value: object) -> str | tuple[str, ...]:
    """Check the name of a mapped axis, or a tuple of names."""
    if isinstance(value, str) and value:
        return value
    several = _sequence(value)
    if several and all(isinstance(one, str) and one for one in several):
        return tuple(map(str, several))
    raise UnfitError("the name of an axis of jax.shard_map, jax.vmap or jax.pmap, or a tuple of names")


def function(value: object) -> object:
    """Check a function."""
    if callable(value):
        return value
    raise UnfitError("a function")


def rotary(value: object) -> object:
    """Check a `Rotary`, or the base of one."""
    if isinstance(value, Rotary):
        return value
    return _ROTARY_BASE(value)


def optional(check: Check) -> Check:
    """A check that takes None too."""

    def checked(value: object) -> object:
        if value is None:
            return None
        try:
            return check(value)
        except UnfitError as unfit:
            raise UnfitError(f"{unfit.expected}, or None", unfit.fix) from None

    return checked


# -------------------------------------------------------------------- dtypes and initialisers


def param_dtype(value: object) -> object:
    """Check the dtype of parameters: a dtype of numbers, also whole ones, which quantised parameters are."""
    return _dtype_of_kind(value, np.number, "a dtype of numbers such as jnp.float32")


def compute_dtype(value: object) -> object:
    """Check the dtype that a layer computes in: floats, as whole numbers would cut off the input's fractions."""
    return _dtype_of_kind(value, jnp.inexact, "a dtype of floats such as jnp.bfloat16")


def _dtype_of_kind(value: object, kind: type, expected: str) -> object:
    if value is None:  # NumPy reads it as float64
        raise UnfitError(expected)
    try:
        dtype = jnp.dtype(value)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except TypeError:
        raise UnfitError(expected, _nearest(value, _DTYPES)) from None
    if not jnp.issubdtype(dtype, kind):
        raise UnfitError(expected)
    return value


_DTYPES = ("float32", "bfloat16", "float16", "float64", "complex64", "complex128", "int8", "int32")


def initializer(value: object) -> object:
    """Check an initialiser: a function `(key, shape, dtype) -> array`."""
    expected = "an initialiser, a function (key, shape, dtype) -> array"
    if isinstance(value, str):
        raise UnfitError(expected, _named_initializer(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise UnfitError(expected, f": write initializers.constant({value!r})")
    if not callable(value) or isinstance(value, type):
        raise UnfitError(expected)
    # `normal` in the place of `normal(0.1)` would fail only when it draws.
    if inspect.isfunction(value) and value in vars(initializers).values():
        raise UnfitError(expected, f": call it first, initializers.{name_of(value)}(...)")
    return value


def _named_initializer(name: str) -> str:
    """What to write instead of the name of an initialiser, as in Keras: "glorot_uniform"."""
    if name in initializers.__all__:
        call = "(...)" if inspect.isfunction(vars(initializers)[name]) else ""
        return f": write initializers.{name}{call}"
    return _nearest(name, initializers.__all__)


# ------------------------------------------------------------------------ the tables of checks


_FILLED = ("CIRCULAR", "REFLECT", "REPLICATE")
_ROTARY_BASE = real_number(above=1, such_as=", such as 1e4, a Rotary")

CHECKS: Mapping[str, Check] = {
    "features": size,
    "Dense.features": sizes,
    "Dense.axis": last_axes,
    "axis": axes,
    "feature_axes": optional(axes),
    "axis_name": optional(axis_names),
    "num_embeddings": size,
    "padding_idx": optional(index),
    "kernel_size": sizes,
    "window": sizes,
    "stride": sizes,
    "MaxPool.stride": optional(sizes),
    "AvgPool.stride": optional(sizes),
    "padding": padding(("SAME", "VALID")),
    "Conv.padding": padding(("SAME", "VALID", "CAUSAL", *_FILLED)),
    "ConvTranspose.padding": padding(("SAME", "VALID", *_FILLED), least=-LARGEST_SIZE),
    "padding_mode": padding_mode,
    "dilation": sizes,
    "groups": size,
    "heads": size,
    "head_dim": optional(size),
    "kv_heads": optional(size),
    "MultiHeadAttention.window": optional(size),
    "MultiHeadAttention.scale": optional(real_number()),
    "rotary": optional(rotary),
    "soft_cap": optional(real_number(above=0)),
    "dropout": real_number(least=0, below=1),
    "implementation": one_of(None, "xla", "cudnn"),
    "n": size,
    "unroll": size_or_flag,
    "remat": flag_or_function,
    "epsilon": real_number(least=0),
    "momentum": real_number(least=0, below=1),
    "rate": real_number(least=0, below=1),
    "forget_bias": real_number(),
    "activation": function,
    "function": function,
    "name": text,
    **dict.fromkeys(("use_bias", "use_scale", "causal", "reverse", "shared", "scan", "count_padding"), flag),
    **dict.fromkeys(("kernel_init", "recurrent_init", "table_init"), optional(initializer)),
    "bias_init": initializer,
    "param_dtype": param_dtype,
    "dtype": optional(compute_dtype),
}
"""Name of an argument -> its check; `Layer.argument` where one layer takes other values than the rest."""


def shown(value: object) -> str:
    """The value of an argument, for a message: an array by its shape and dtype, a function by its name."""
    if isinstance(value, Tracer):
        return describe(value)
    if callable(value) and not isinstance(value, str):
        return name_of(value)
    return " ".join(quoted(value).split())  # on one line: a Sequential is shown on several


def problems_with(kind: type, values: Mapping[str, object]) -> dict[str, str]:
    """What is wrong with the values of a layer's arguments: name -> "expected ..., got ..." and what to write instead."""
    problems: dict[str, str] = {}
    for name, check, _ in checks_of(kind):
        if name not in values:
            continue
        try:
            check(values[name])
        except UnfitError as unfit:
            problems[name] = _problem(name, unfit, values[name])
    return problems


def _problem(name: str, unfit: UnfitError, value: object) -> str:
    text = f"expected {name} to be {unfit.expected}, got {shown(value)}"
    return f"{text}{unfit.fix}"


@lru_cache(maxsize=1024)  # bounded, as classes made in a notebook would be kept for ever
def checks_of(kind: type) -> tuple[tuple[str, Check, object], ...]:
    """The arguments of a layer of this package that are checked: name, check and default."""
    found: list[tuple[str, Check, object]] = []
    for field in dataclasses.fields(kind):
        check = CHECKS.get(f"{kind.__name__}.{field.name}") or CHECKS.get(field.name)
        if check is not None and field.init:
            found.append((field.name, check, field.default))
    return tuple(found)
