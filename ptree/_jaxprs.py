"""The functions inside of the equations of a jaxpr: branches, bodies of loops, inner jits."""

from __future__ import annotations

from collections.abc import Iterator

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


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
