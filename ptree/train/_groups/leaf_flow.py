"""Which leaves the numbers of a function's results come from, by its jaxpr, and how: number by number, or through sums.

An optimiser treats a stack as its layers apart if it computes each number from the number at the same place of other
arrays, and from sums over all leaves. A sum over one leaf, its norm say, is another one in a stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from ..._jaxprs import inner_jaxprs, opened
from ..._tree import PyTree, map_leaves

Sources: TypeAlias = frozenset[str]
"""The paths of the leaves that a value comes from."""

_REORDERING = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "rev", "fft"}
"""Primitives that keep the shape of an array, and not the place of its numbers."""
_SUMMING = {"reduce_sum", "dot_general"}
"""Primitives whose scalar results are sums over the numbers of a leaf."""
_ADDING = {"add", "add_any", "convert_element_type", "copy", "copy_p", "stop_gradient"}
"""Primitives that may combine the sums of single layers into the sum over all layers."""
_NOTHING: Sources = frozenset()


class LeafFlow:
    """The flow from the leaves of a tree to the leaves of a function's result, which has the same paths."""

    def __init__(self, function: Callable[[PyTree], PyTree], tree: PyTree, alike: Sequence[Collection[str]] = ()):
        """Trace the function with shapes.

        Args:
            function: tree -> tree of the same paths.
            tree: shapes and dtypes.
            alike: groups of leaves that a stack would hold as one, the same leaf of each layer.
        """
        self.is_by_number = True
        """Whether each number comes from the numbers at its own place, and from sums over groups of leaves that are whole."""
        self.primitives: Counter[str] = Counter()
        self._alike = [frozenset(paths) for paths in alike]
        closed = jax.make_jaxpr(function)(tree)
        names = jax.tree.leaves(map_leaves(tree, lambda path, leaf: path))
        found = self._through(closed.jaxpr, [frozenset({name}) for name in names])
        self.sources: dict[str, Sources] = dict(zip(names, found, strict=True))
        """Each leaf of the result -> the leaves that it comes from."""

    def _through(self, jaxpr: Jaxpr, given: Sequence[Sources]) -> list[Sources]:
        """The sources of the results of a jaxpr, from those of its arguments."""
        sources: dict[Any, Sources] = dict(zip(jaxpr.invars, given, strict=True))

        def of(variable: Any) -> Sources:
            return _NOTHING if isinstance(variable, Literal) else sources.get(variable, _NOTHING)

        for equation in jaxpr.eqns:
            taken = [of(variable) for variable in equation.invars]
            sources.update(zip(equation.outvars, self._of_equation(equation, taken), strict=True))
        return [of(variable) for variable in jaxpr.outvars]

    def _of_equation(self, equation: JaxprEqn, taken: Sequence[Sources]) -> list[Sources]:
        if equation.primitive.name == "cond":
            return self._of_branches(equation.params["branches"], taken)
        inner = [opened(function) for function in inner_jaxprs(equation)]
        if len(inner) == 1 and len(inner[0].invars) == len(taken) and equation.primitive.name not in {"scan", "while"}:
            return self._through(inner[0], taken)
        self.primitives[equation.primitive.name] += 1
        if inner or not self._keeps_places(equation, taken):
            self.is_by_number = False
        return [frozenset().union(*taken)] * len(equation.outvars)

    def _of_branches(self, branches: Sequence[ClosedJaxpr], taken: Sequence[Sources]) -> list[Sources]:
        """The sources of what `jax.lax.cond` gives: those in any branch, and those of the index of the branch."""
        index, *given = taken
        if not self._takes_layers_alike(index):
            self.is_by_number = False
        found = [self._through(branch.jaxpr, given) for branch in branches]
        return [index.union(*sources) for sources in zip(*found, strict=True)]

    def _keeps_places(self, equation: JaxprEqn, taken: Sequence[Sources]) -> bool:
        name = equation.primitive.name
        arrays = {_shape(variable) for variable in equation.invars} - {()}
        results = {_shape(variable) for variable in equation.outvars}
        if name in _REORDERING or len(arrays) > 1:
            return False
        if arrays and results == {()}:
            return name in _SUMMING
        if arrays and results != arrays:
            return False
        scalars = [
            sources
            for variable, sources in zip(equation.invars, taken, strict=True)
            if _shape(variable) == () and not self._takes_layers_alike(sources)
        ]
        return not scalars or (results == {()} and name in _ADDING)

    def _takes_layers_alike(self, sources: Sources) -> bool:
        """Whether the sources hold a leaf of all layers, or of none."""
        return all(not (group & sources) or group <= sources for group in self._alike)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape
