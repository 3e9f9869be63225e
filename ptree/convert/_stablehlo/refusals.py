"""What a traced function holds that no file can: callbacks into Python, arrays that it captured from outside of its arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

from ..._jaxprs import inner_jaxprs, opened
from ..._tree import Leaf
from ..._words import describe, in_bytes, listed

_MOST_DESCRIBED = 3
_CALLBACKS = {"debug_print": "jax.debug.print", "debug_callback": "jax.debug.callback"}
"""Primitives of callbacks under another name than the function that a user calls; `pure_callback` and `io_callback` have it."""


def callback_problem(traced: ClosedJaxpr) -> str:
    """Say which callbacks into Python a traced function has; "" if none."""
    names = [equation.primitive.name for jaxpr in _jaxprs(traced) for equation in opened(jaxpr).eqns]
    found = [_CALLBACKS.get(name, f"jax.{name}") for name in names if "callback" in name or name in _CALLBACKS]
    if not found:
        return ""
    return f"it calls back into Python by {listed(dict.fromkeys(found))}, which is not there where the program runs. Remove the calls"


def capture_problem(traced: ClosedJaxpr, params: Mapping[str, Leaf], most_bytes: int) -> str:
    """Say which arrays a traced function captured that should be arguments; "" if none.

    Args:
        traced: the function.
        params: path -> leaf; a function that captured one of these would keep its old weights whatever the file holds.
        most_bytes: of all other constants together.
    """
    constants = _constants(traced)
    path_of = {id(leaf): path for path, leaf in params.items()}
    captured = [path_of[number] for number in constants if number in path_of]
    if captured:
        return (
            f"it reads {listed(captured)} from outside instead of from its first argument, so that the weights would be in the"
            " program. Write f(params, x) so that it uses the `params` that it is given"
        )
    sizes = {number: _nbytes(constant) for number, constant in constants.items()}
    total = sum(sizes.values())
    if total <= most_bytes:
        return ""
    largest = sorted(constants, key=lambda number: -sizes[number])[:_MOST_DESCRIBED]
    shown = ", ".join(describe(constants[number]) for number in largest)
    more = len(constants) - len(largest)
    rest = f" and {more} more" if more else ""
    return (
        f"it captured constants of {in_bytes(total)}: {shown}{rest}. Weights are passed in `params`, which go to the"
        f" safetensors file; what is no weight is allowed by max_constants (now {in_bytes(most_bytes)})"
    )


def _nbytes(array: Any) -> int:
    return prod(array.shape) * array.dtype.itemsize


def _constants(traced: ClosedJaxpr) -> dict[int, Any]:
    """Each captured array once, by its id."""
    found: dict[int, Any] = {}
    for jaxpr in _jaxprs(traced):
        if not isinstance(jaxpr, ClosedJaxpr):
            continue
        for constant in jaxpr.consts:
            found[id(constant)] = constant
    return found


def _jaxprs(traced: ClosedJaxpr | Jaxpr) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The function, and all functions in its equations: branches, bodies of loops, inner jits."""
    yield traced
    for equation in opened(traced).eqns:
        for inner in inner_jaxprs(equation):
            yield from _jaxprs(inner)
