"""Lambda, a layer that wraps a plain function such as an activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._tree import PyTree
from .._words import name_of
from ._layer import Layer, Params


@dataclass(frozen=True, eq=False, repr=False)
class Lambda(Layer):
    """Wrap a function without parameters as a layer, with a name to print. Containers do it for plain functions.

    >>> Lambda(lambda x: x[:, -1], "last")
    Lambda(last)
    >>> import jax
    >>> Lambda(jax.nn.relu)                                   # without a name it is shown as the function
    relu
    """

    function: Callable[[PyTree], PyTree]
    name: str = ""

    def apply(self, params: Params, x: PyTree) -> PyTree:
        return self.function(x)

    def __repr__(self) -> str:
        return f"Lambda({self.name})" if self.name else name_of(self.function)
