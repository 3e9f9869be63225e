"""Lambda, a layer that wraps a plain function such as an activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .._errors import LayerError
from .._tree import PyTree
from .._words import name_of
from ._foreign_modules import has_parameters, module_misfit
from ._layer import Layer, Params


@dataclass(frozen=True, eq=False, repr=False)
class Lambda(Layer):
    """Wrap a function without parameters as a layer, with a name to print. Containers do it for plain functions.

    >>> Lambda(lambda x: x[:, -1], "last")
    Lambda(last)
    >>> import jax
    >>> Lambda(jax.nn.relu)                                   # without a name it is shown as the function
    relu

    Args:
        function: from the input to the output, without parameters.
        name: how it is printed; by default the function's name.

    Raises:
        LayerError: something that is no function: a layer, which needs no Lambda, or a module of another library.
    """

    function: Callable[[PyTree], PyTree]
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = self.function if isinstance(self.function, type) else type(self.function)
        if issubclass(kind, Layer):  # it would be called as a function of the input alone
            raise LayerError(f"Lambda: expected a function, got the layer {kind.__name__}, which needs no Lambda")
        if has_parameters(self.function):
            raise LayerError(f"Lambda: expected a function, got {module_misfit(self.function)}")

    def apply(self, params: Params, x: PyTree) -> PyTree:
        return self.function(x)

    def __repr__(self) -> str:
        return f"Lambda({self.name})" if self.name else name_of(self.function)
