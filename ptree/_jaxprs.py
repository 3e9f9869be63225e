"""Equations of a jaxpr: the functions inside of them (branches, bodies of loops, inner jits), and the lines of code that made them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

_TRACING = "trace_to_jaxpr"
"""JAX's function around one that it traces."""
_LIBRARIES = (str(Path(jax.__file__).parent) + os.sep, str(Path(__file__).parent) + os.sep)
"""The folders of JAX and of this package."""


def inner_jaxprs(equation: JaxprEqn) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The functions among the parameters of an equation; JAX names them otherwise in each primitive, and `cond` has a tuple."""
    for value in equation.params.values():
        values = value if isinstance(value, list | tuple) else (value,)
        for item in values:
            if isinstance(item, ClosedJaxpr | Jaxpr):
                yield item


def opened(jaxpr: ClosedJaxpr | Jaxpr) -> Jaxpr:
    """The function without the constants that it captured."""
    return jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr


def scan_counts(parameters: Mapping[str, Any]) -> tuple[int, int]:
    """How many inputs of a scan each step gets unchanged, and how many it carries over; those behind them are sliced.

    Args:
        parameters: those of the equation.
    """
    if "num_consts" in parameters:
        return parameters["num_consts"], parameters["num_carry"]
    # from JAX 0.12 on the equation has its inputs in three groups in place of the counts; a group's length is that of its leaves
    unchanged, carried, _ = parameters["ft_in"].unpack()
    return len(unchanged), len(carried)


def frames_of(equation: JaxprEqn) -> list[Any]:
    """The calls in which an equation was made inside of the function that JAX traced, the innermost first.

    JAX 0.9 also has the calls outside of that function: those of its first caller, as what is traced is kept.
    """
    traceback = equation.source_info.traceback
    frames = [] if traceback is None else traceback.frames
    return list(takewhile(lambda frame: frame.function_name != _TRACING, frames))


def user_frame(frames: Iterable[Any]) -> Any:
    """The innermost call that is neither in JAX nor in this package; None where there is none."""
    return next((frame for frame in frames if not frame.file_name.startswith(_LIBRARIES)), None)
