"""Parallel, several branches on one input, whose outputs are summed or combined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax

from .._errors import LayerError
from .._tree import PyTree, Tree, like_placed
from .._words import describe
from ._container import CallPart, Container, as_layers, declared, drawn_in_lines, named_layers
from ._inputs import common_dtype, shapes_of
from ._layer import Layer, P


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Parallel(Container):
    """Call several layers on one input in parallel, and combine their outputs, by default as their sum.

    >>> import jax, jax.numpy as jnp
    >>> from ptree.nn import Dense
    >>> net = Parallel({"a": Dense(8), "b": Dense(4)}, combine=lambda a, b: jnp.concatenate([a, b], -1))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> net(params, jnp.ones((2, 3))).shape, list(params)
    ((2, 12), ['a', 'b'])

    Args:
        *given: layers and functions one by one, or one dict: name -> layer.
        layers: instead of these, pairs (name, layer), as in the attribute `layers`.
        combine: a function of all outputs, which returns one.

    Raises:
        LayerError: no layers, or outputs that cannot be added up.
    """

    layers: tuple[tuple[str, PyTree], ...]
    combine: Callable[..., PyTree] | None

    def __init__(
        self,
        *given: PyTree,
        layers: Sequence[tuple[str, PyTree]] | None = None,
        combine: Callable[..., PyTree] | None = None,
    ):
        if combine is not None and not callable(combine):
            raise LayerError(f"Parallel: expected a function of all outputs as combine, got {combine!r}")
        object.__setattr__(self, "layers", named_layers("Parallel", given, layers))
        object.__setattr__(self, "combine", combine)
        if not self.layers:  # there would be no output
            raise LayerError("Parallel: expected at least one layer")

    @cached_property
    def _layers(self) -> tuple[tuple[str, Layer], ...]:
        return as_layers(self.layers)

    def parts(self) -> Iterator[tuple[str, Layer]]:
        return iter(self._layers)

    def declare(self, x: PyTree) -> dict[str, Tree]:
        x = shapes_of(x)
        specs: dict[str, Tree] = {}
        outputs: list[PyTree] = []
        for name, layer in self._layers:
            spec, y = declared(name, layer, x)
            outputs.append(y)
            if len(spec):
                specs[name] = spec
        jax.eval_shape(self._combined, *outputs)  # raises if the outputs cannot be combined
        return specs

    def run(self, params: P, x: PyTree, call: CallPart) -> tuple[PyTree, P]:
        outputs: list[PyTree] = []
        for name, layer in self._layers:
            y, params = call(name, layer, x, params)
            outputs.append(y)
        return self._combined(*outputs), params

    def _combined(self, *outputs: PyTree) -> PyTree:
        if self.combine is not None:
            return self.combine(*outputs)
        # Addition would broadcast, say (2, 1) to (2, 8), in silence.
        if len({y.shape for y in outputs}) > 1:
            got = ", ".join(map(describe, outputs))
            raise LayerError(f"Parallel: expected outputs of one shape to add up, or combine=, got {got}")
        common_dtype(self, None, *outputs)  # raises where JAX adds no such dtypes, with the path of the layer
        first, *others = outputs  # from the first, as 0 + x could change the dtype
        return sum((like_placed(y, first) for y in others), first)

    def __repr__(self) -> str:
        return drawn_in_lines("Parallel", self._layers)
