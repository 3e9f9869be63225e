"""Layers made of layers side by side: Residual and Parallel; and Lambda, a function with a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from .._errors import LayerError
from .._tree import Tree
from .._words import describe, name_of
from ._call import apply, check_options, declared, shape_after, shape_of, update
from ._layer import Layer
from ._sequential import check_part, in_lines, named


@dataclass(frozen=True, repr=False)
class Residual(Layer):
    """`x + inner(x)` (He et al. 2016).

    >>> import jax.numpy as jnp
    >>> from ptree.nn import Dense, LayerNorm, Sequential
    >>> block = Residual(Sequential(LayerNorm(), Dense(8)))
    >>> block.init(jax.random.key(0), jnp.ones((2, 8)))
    Tree(
      inner/0/scale   f32[8]
      inner/0/bias    f32[8]
      inner/1/kernel  f32[8,8]
      inner/1/bias    f32[8]
    )

    Raises:
        LayerError: an inner layer that changes the shape.
    """

    inner: Any

    def __post_init__(self) -> None:
        check_part("Residual", self.inner)

    def spec(self, x: Any) -> Tree:
        x = shape_of(x)
        own = declared(self.inner, "inner", x)
        self._same(x, shape_after(self.inner, "inner", own, x))
        return Tree({"inner": own} if len(own) else {})

    def __call__(self, params: Any, x: Any, *, key: Any = None, train: bool = False, **options: Any) -> Any:
        check_options(self, options)
        return self._same(x, apply(self.inner, "inner", params, x, key, train, options))

    def updated(self, params: Any, x: Any, *, key: Any = None, **options: Any) -> tuple[Any, Any]:
        check_options(self, options)
        y, params = update(self.inner, "inner", params, x, key, options)
        return self._same(x, y), params

    def _same(self, x: Any, y: Any) -> Any:
        if getattr(x, "shape", None) != getattr(y, "shape", ()):
            raise LayerError(
                f"Residual: expected an inner layer that keeps the shape, got {describe(y)} for {describe(x)}"
            )
        return x + y if hasattr(y, "__array__") else y


@dataclass(frozen=True, init=False)
class Parallel(Layer):
    """Layers that all get the input, and what makes one output of theirs: by default their sum.

    >>> import jax.numpy as jnp
    >>> from ptree.nn import Dense
    >>> net = Parallel({"a": Dense(8), "b": Dense(4)}, combine=lambda a, b: jnp.concatenate([a, b], -1))
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> net(params, jnp.ones((2, 3))).shape, list(params)
    ((2, 12), ['a', 'b'])

    Raises:
        LayerError: no layers, or outputs that cannot be added up.
    """

    layers: tuple[tuple[str, Any], ...]
    combine: Callable[..., Any] | None

    def __init__(self, *layers: Any, combine: Callable[..., Any] | None = None):
        if combine is not None and not callable(combine):
            raise LayerError(f"Parallel: expected a function of all outputs as combine, got {combine!r}")
        object.__setattr__(self, "layers", named("Parallel", layers))
        object.__setattr__(self, "combine", combine)
        if not self.layers:
            raise LayerError("Parallel: expected at least one layer")

    def parts(self) -> Iterator[tuple[str, Any]]:
        return iter(self.layers)

    def spec(self, x: Any) -> Tree:
        x = shape_of(x)
        specs = {name: declared(layer, name, x) for name, layer in self.layers}
        jax.eval_shape(self._combined, *(shape_after(layer, name, specs[name], x) for name, layer in self.layers))
        return Tree({name: own for name, own in specs.items() if len(own)})

    def __call__(self, params: Any, x: Any, *, key: Any = None, train: bool = False, **options: Any) -> Any:
        check_options(self, options)
        return self._combined(*(apply(layer, name, params, x, key, train, options) for name, layer in self.layers))

    def updated(self, params: Any, x: Any, *, key: Any = None, **options: Any) -> tuple[Any, Any]:
        check_options(self, options)
        ys: list[Any] = []
        for name, layer in self.layers:
            y, params = update(layer, name, params, x, key, options)
            ys.append(y)
        return self._combined(*ys), params

    def __repr__(self) -> str:
        return in_lines("Parallel", self.layers)

    def _combined(self, *ys: Any) -> Any:
        if self.combine is not None:
            return self.combine(*ys)
        if len({y.shape for y in ys}) > 1:
            raise LayerError(
                f"Parallel: expected outputs of one shape to add up, or combine=, got {', '.join(map(describe, ys))}"
            )
        return sum(ys[1:], ys[0])


@dataclass(frozen=True, repr=False)
class Lambda(Layer):
    """A function without parameters as a layer, with a name to be printed. Plain functions are layers as they are.

    >>> import jax.numpy as jnp
    >>> Lambda(lambda x: x[:, -1], "last")
    Lambda(last)
    """

    function: Callable[[Any], Any]
    name: str = ""

    def __call__(self, params: Any, x: Any) -> Any:
        return self.function(x)

    def __repr__(self) -> str:
        return f"Lambda({self.name or name_of(self.function)})"
