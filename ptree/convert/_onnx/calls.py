"""Rules for calls of functions, whose equations are translated in their place: jit, remat, custom derivatives; platforms."""

from __future__ import annotations

import numpy as np

from .translation import CALLS, Equation, Rule, Translation, constant_value, rule
from .values import Value


def _call(parameter: str) -> Rule:
    def translate(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
        return t.run_closed(equation.options[parameter], inputs)

    return translate


for _primitive, _parameter in CALLS.items():
    rule(_primitive)(_call(_parameter))


@rule("platform_index")
def _platform(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    """The function of `jax.lax.platform_dependent` for a CPU, or its default."""
    platforms = equation.options["platforms"]
    with_cpu = [at for at, names in enumerate(platforms) if names is None or "cpu" in names]
    return [constant_value(np.asarray(with_cpu[0], equation.outputs[0].dtype))]


@rule("debug_callback", "debug_print")
def _debug(t: Translation, equation: Equation, inputs: list[Value]) -> list[Value]:
    """Printing and the like changes no number, and is left out."""
    return []
