"""The check of each argument of each layer by name (CHECKS), a rotary base included; values as shown in a message, and all
problems with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache

from jax.core import Tracer

from .._words import describe, name_of, quoted
from ._argument_checks import (
    LARGEST_SIZE,
    Check,
    UnfitError,
    axis_names,
    flag,
    flag_or_function,
    function,
    one_of,
    optional,
    real_within,
    size_or_flag,
    text,
)
from ._dtype_checks import compute_dtype, initializer, param_dtype
from ._rotary import Rotary
from ._size_checks import axes, index, last_axes, padding, padding_mode, size, sizes


def rotary(value: object) -> object:
    """Check a `Rotary`, or the base of one."""
    if isinstance(value, Rotary):
        return value
    return _ROTARY_BASE(value)


_FILLED = ("CIRCULAR", "REFLECT", "REPLICATE")
_ROTARY_BASE = real_within(above=1, such_as=", such as 1e4, a Rotary")
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
    "MultiHeadAttention.scale": optional(real_within()),
    "rotary": optional(rotary),
    "soft_cap": optional(real_within(above=0)),
    "dropout": real_within(least=0, below=1),
    "implementation": one_of(None, "xla", "cudnn"),
    "n": size,
    "unroll": size_or_flag,
    "remat": flag_or_function,
    "epsilon": real_within(least=0),
    "momentum": real_within(least=0, below=1),
    "rate": real_within(least=0, below=1),
    "forget_bias": real_within(),
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
    """Show the value of an argument in a message: an array by its shape and dtype, a function by its name."""
    if isinstance(value, Tracer):
        return describe(value)
    if callable(value) and not isinstance(value, str):
        return name_of(value)
    return " ".join(quoted(value).split())  # on one line: a Sequential is shown on several


def problems_with(kind: type, values: Mapping[str, object]) -> dict[str, str]:
    """Find the problems with the values of a layer's arguments: name -> "expected ..., got ..." and what to write instead."""
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
