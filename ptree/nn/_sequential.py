"""Sequential, a chain of layers: each one is called with the output of the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

from .._errors import LayerError
from .._numbers import whole_number
from .._tree import PyTree, Tree
from ._container import CallPart, Container, as_layers, declared, drawn_in_lines, named_layers
from ._inputs import shapes_of
from ._layer import Layer, P


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Sequential(Container):
    """Call layers in sequence. They are named by position or by the keys of a dict; plain functions are layers too.

    >>> import jax, jax.numpy as jnp
    >>> from ptree.nn import Dense
    >>> net = Sequential(Dense(8), jax.nn.relu, Dense(1))
    >>> net
    Sequential(
      0: Dense(8)
      1: relu
      2: Dense(1)
    )
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> net(params, jnp.ones((2, 4))).shape
    (2, 1)

    The same layer *object* in two places, at any depth, has one set of parameters: the spec then has a tie.
    A layer without parameters has no node in the tree. With `key`, each layer that takes a key gets its own,
    derived from its name; other options, such as attention's `mask=`, go to the layers that take them.

    It is a sequence (`collections.abc.Sequence`) of its layers and functions as they were given: `net[0]`, `net["stem"]`,
    `net[-1]`, `len(net)`, `for layer in net`, `layer in net`, `net.index(layer)`, `reversed(net)`. `net.parts()` yields
    names and layers, in which a function is a `Lambda`. A slice keeps the names, so it runs with the same parameters. `+`
    joins two; if both are named by position, the layers are numbered again.

    >>> net[:2](params, jnp.ones((2, 4))).shape
    (2, 8)
    >>> [name for name, _ in (net + Sequential(Dense(3))).layers]
    ['0', '1', '2', '3']

    Args:
        *given: layers and functions one by one, or one dict: name -> layer.
        layers: instead of these, pairs (name, layer), as in the attribute `layers`.

    Raises:
        LayerError: an argument that is not a layer, a bad name, or an input that does not fit; it names the path.
        TieError: one layer object in two places that need different shapes.
    """

    layers: tuple[tuple[str, PyTree], ...]

    def __init__(self, *given: PyTree, layers: Sequence[tuple[str, PyTree]] | None = None):
        object.__setattr__(self, "layers", named_layers("Sequential", given, layers))

    @cached_property
    def _layers(self) -> tuple[tuple[str, Layer], ...]:
        return as_layers(self.layers)

    def parts(self) -> Iterator[tuple[str, Layer]]:
        return iter(self._layers)

    def declare(self, x: PyTree) -> dict[str, Tree]:
        specs: dict[str, Tree] = {}
        x = shapes_of(x)
        for name, layer in self._layers:
            spec, x = declared(name, layer, x)
            if len(spec):  # an activation has no node
                specs[name] = spec
        return specs

    def run(self, params: P, x: PyTree, call: CallPart) -> tuple[PyTree, P]:
        for name, layer in self._layers:
            x, params = call(name, layer, x, params)
        return x, params

    @overload
    def __getitem__(self, at: slice) -> Sequential: ...
    @overload
    def __getitem__(self, at: int | str) -> PyTree: ...
    def __getitem__(self, at: int | str | slice) -> PyTree:
        """The layer or function at a position or with a name; for a slice a Sequential, whose layers keep their names."""
        if isinstance(at, slice):
            return Sequential(layers=self.layers[at])
        number = whole_number(at)
        if number is not None and -len(self) <= number < len(self):
            _, layer = self.layers[number]
            return layer
        # A number out of range is no name either, and gets the same message.
        by_name = dict(self.layers)
        if not isinstance(at, str) or at not in by_name:
            raise NoSuchLayerError(f"no layer {at!r} in Sequential: there are {list(by_name)}")
        return by_name[at]

    def __iter__(self) -> Iterator[PyTree]:
        return iter(self._given())

    def __reversed__(self) -> Iterator[PyTree]:
        return reversed(self._given())

    def __contains__(self, layer: object) -> bool:
        """Whether it contains an equal layer or function, or a layer with this name."""
        if isinstance(layer, str):
            return layer in dict(self.layers)
        return layer in self._given()

    def index(self, layer: object, *bounds: int) -> int:
        """The first position of an equal layer or function, from a start and before a stop, as of a list.

        Args:
            layer: what is looked for.
            *bounds: the first position that counts, and the position before which it ends.

        Raises:
            LayerError: there is none.
        """
        try:
            return self._given().index(layer, *bounds)
        except ValueError:
            raise LayerError(f"no layer {layer!r} in Sequential, or not within these bounds") from None

    def count(self, layer: object) -> int:
        """How many layers or functions are equal to this one.

        Args:
            layer: what is counted.
        """
        return self._given().count(layer)

    def _given(self) -> tuple[PyTree, ...]:
        return tuple(layer for _, layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __add__(self, other: Sequential) -> Sequential:
        """A Sequential of the layers of both."""
        if not isinstance(other, Sequential):
            return NotImplemented
        # Numbers are positions, and would occur twice; names that somebody chose are kept.
        if self._is_numbered() and other._is_numbered():
            return Sequential(*self, *other)
        return Sequential(layers=self.layers + other.layers)

    def _is_numbered(self) -> bool:
        """Whether the layers are named by their positions."""
        return [name for name, _ in self.layers] == [str(at) for at in range(len(self))]

    def __repr__(self) -> str:
        return drawn_in_lines("Sequential", self._layers)


class NoSuchLayerError(LayerError, IndexError):
    """Error for a position or a name without a layer; an IndexError, as of any sequence."""


# By registration: a base class would bring a metaclass of its own.
Sequence.register(Sequential)  # pyright: ignore[reportAttributeAccessIssue]
