"""The state that an optimiser makes of parameters: its layout at once, and of its leaves only those that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun

from ..._shardings import is_spread
from ..._tree import Leaf, PyTree, leaves
from .slots import Init, StateLayout, abstract, layout_by_path, marked, marked_layout


class InitialState:
    """What `init` makes of parameters. No leaf is computed before it is asked for."""

    def __init__(self, init: Init, params: PyTree):
        self._init, self.params = init, params
        shapes = abstract(params)
        expected = jax.eval_shape(init, shapes)
        try:
            layout = marked_layout(jax.eval_shape(init, marked(shapes)), shapes)
        except Exception:  # a mask by a user's function may refuse a tree that has one name more on each path
            layout = None
        if layout is None or layout.structure != jax.tree.structure(expected):
            layout = layout_by_path(expected, shapes)
        self.layout: StateLayout = layout

    def of(self, params: PyTree) -> InitialState:
        """The state that the same optimiser makes of other parameters."""
        return InitialState(self._init, params)

    def leaves(self, wanted: Sequence[int]) -> dict[int, jax.Array]:
        """Some leaves of the state, by their numbers; only these are computed and take memory.

        A slot with the shape of its parameter goes where the parameter is.
        """
        if not wanted:
            return {}
        placed = dict(leaves(self.params))
        shardings: list[jax.sharding.Sharding | None] = []
        for at in wanted:
            param = placed.get(self.layout.about[at].param or "")
            shardings.append(sharding_beside(param, self.layout.shapes[at].shape))
        # `jit` would compile all of `init`
        part, inputs = _part_of_jaxpr(jax.jit(self._init).trace(abstract(self.params)).jaxpr, wanted)
        params = jax.tree.leaves(self.params)
        values = jax.jit(jaxpr_as_fun(part), out_shardings=shardings)(*[params[at] for at in inputs])
        return dict(zip(wanted, values, strict=True))


def _part_of_jaxpr(closed: ClosedJaxpr, wanted: Sequence[int]) -> tuple[ClosedJaxpr, list[int]]:
    """A jaxpr of some of the outputs, without what is not needed for them; and the numbers of the inputs that it takes."""
    jaxpr = closed.jaxpr
    outputs = [jaxpr.outvars[at] for at in wanted]
    needed = {output for output in outputs if isinstance(output, Var)}
    equations: list[Any] = []
    for equation in reversed(jaxpr.eqns):
        if needed.isdisjoint(equation.outvars):
            continue
        equations.append(equation)
        needed.update(value for value in equation.invars if isinstance(value, Var))
    inputs = [at for at, variable in enumerate(jaxpr.invars) if variable in needed]
    variables = [jaxpr.invars[at] for at in inputs]
    part = jaxpr.replace(eqns=equations[::-1], invars=variables, outvars=outputs)
    return ClosedJaxpr(part, closed.consts), inputs


def sharding_beside(param: Leaf, shape: tuple[int, ...]) -> jax.sharding.Sharding | None:
    """Where a slot of this shape goes: where its parameter is, if that is sharded over devices and of the same shape."""
    if is_spread(param) and param.shape == shape:
        return param.sharding
    return None
