"""Sequential, layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._errors import LayerError
from .._tree import Tree
from .._words import describe, name_of
from ._call import apply, check_options, declared, shape_after, shape_of, update
from ._layer import Layer


@dataclass(frozen=True, init=False)
class Sequential(Layer):
    """Layers one after the other, named by position or by the keys of a dict; plain functions are layers too.

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

    The same layer *object* at two places, at any depth, is one set of parameters: the spec then has a tie.
    A layer without parameters has no node in the tree. With `key`, each layer that takes one gets its own,
    derived from its name; other options, such as attention's `mask=`, go to the layers that take them.

    Raises:
        LayerError: something that is no layer, a bad name, or an input that does not fit; it names the path.
        TieError: one layer object at two places that need other shapes.
    """

    layers: tuple[tuple[str, Any], ...]

    def __init__(self, *layers: Any):
        object.__setattr__(self, "layers", named("Sequential", layers))

    def parts(self) -> Iterator[tuple[str, Any]]:
        return iter(self.layers)

    def spec(self, x: Any) -> Tree:
        specs: dict[str, Tree] = {}
        x = shape_of(x)
        for name, layer in self.layers:
            own = declared(layer, name, x)
            if len(own):
                specs[name] = own
            x = shape_after(layer, name, own, x)
        return Tree(specs)

    def __call__(self, params: Any, x: Any, *, key: Any = None, train: bool = False, **options: Any) -> Any:
        check_options(self, options)
        for name, layer in self.layers:
            x = apply(layer, name, params, x, key, train, options)
        return x

    def updated(self, params: Any, x: Any, *, key: Any = None, **options: Any) -> tuple[Any, Any]:
        check_options(self, options)
        for name, layer in self.layers:
            x, params = update(layer, name, params, x, key, options)
        return x, params

    def __getitem__(self, name: int | str) -> Any:
        """The layer at a position, or of a name."""
        if isinstance(name, int) and -len(self) <= name < len(self):
            return self.layers[name][1]
        found = dict(self.layers)
        if name not in found:
            raise LayerError(f"no layer {name!r} in Sequential: there are {list(found)}")
        return found[name]

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return in_lines("Sequential", self.layers)


def named(kind: str, layers: Sequence[Any]) -> tuple[tuple[str, Any], ...]:
    """The layers that a container is given, one after the other or as a dict, each with its name."""
    given = layers[0].items() if len(layers) == 1 and isinstance(layers[0], Mapping) else enumerate(layers)
    pairs = tuple((str(name) if isinstance(name, int) else name, layer) for name, layer in given)
    if len({name for name, _ in pairs}) < len(pairs):
        raise LayerError(f"two layers of one name in {kind}: {[name for name, _ in pairs]}")
    for name, layer in pairs:
        if not isinstance(name, str) or not name or "/" in name:
            raise LayerError(f"bad name {name!r} in {kind}: expected a string without '/'")
        check_part(f"at {name!r}, {kind}", layer)
    return pairs


def check_part(where: str, layer: Any) -> None:
    """What a container holds is a layer or a function."""
    if not callable(layer):
        raise LayerError(f"{where}: expected a layer or a function, got {describe(layer)}")
    if isinstance(layer, type):
        raise LayerError(f"{where}: expected a layer, got the class {layer.__name__}; call it first")


def in_lines(kind: str, layers: Sequence[tuple[str, Any]]) -> str:
    """A container as a person would draw it: a line for each layer, and the first name of one that stands there again."""
    first: dict[int, str] = {}
    lines: list[str] = []
    for name, layer in layers:
        text = repr(layer) if hasattr(layer, "spec") else name_of(layer)
        if hasattr(layer, "spec") and id(layer) in first:
            text = f"= {first[id(layer)]}"
        first.setdefault(id(layer), name)
        lines.append(f"  {name}: " + text.replace("\n", "\n  "))
    return "\n".join([f"{kind}(", *lines, ")"]) if lines else f"{kind}()"
