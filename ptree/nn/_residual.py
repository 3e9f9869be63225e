"""Residual, a skip connection: `x + inner(x)`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .._errors import LayerError
from .._tree import PyTree, Tree, like_placed
from .._words import describe
from ._container import CallPart, Container, as_layer, check_part, declared
from ._inputs import common_dtype, shapes_of
from ._layer import Layer, P


@dataclass(frozen=True, eq=False, repr=False)
class Residual(Container):
    """Residual connection, `x + inner(x)` (He et al. 2016).

    >>> import jax, jax.numpy as jnp
    >>> from ptree.nn import Dense, LayerNorm, Sequential
    >>> block = Residual(Sequential(LayerNorm(), Dense(8)))
    >>> block.init(jax.random.key(0), jnp.ones((2, 8)))
    Tree(
      inner/0/scale   f32[8]
      inner/0/bias    f32[8]
      inner/1/kernel  f32[8,8]
      inner/1/bias    f32[8]
    )

    Args:
        inner: a layer or function whose output has the shape of its input.

    Raises:
        LayerError: the inner layer changes the shape.
    """

    inner: PyTree

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("Residual", self.inner)

    @cached_property
    def _inner(self) -> Layer:
        return as_layer(self.inner)

    def parts(self) -> Iterator[tuple[str, Layer]]:
        yield "inner", self._inner

    def declare(self, x: PyTree) -> dict[str, Tree]:
        x = shapes_of(x)
        spec, y = declared("inner", self._inner, x)
        _check_same_shape(x, y)
        return {"inner": spec} if len(spec) else {}  # no empty nodes, as in other containers

    def run(self, params: P, x: PyTree, call: CallPart) -> tuple[PyTree, P]:
        y, params = call("inner", self._inner, x, params)
        _check_same_shape(x, y)
        common_dtype(self, None, x, y)  # raises where JAX adds no such dtypes, with the path of the layer
        return x + like_placed(y, x), params


def _check_same_shape(x: PyTree, y: PyTree) -> None:
    # Otherwise `x + y` would broadcast, silently. An input that is not one array has no shape, and fails too.
    if getattr(x, "shape", None) != getattr(y, "shape", ()):
        raise LayerError(f"Residual: expected an inner layer that keeps the shape, got {describe(y)} for {describe(x)}")
