"""Layer, what every layer is; and how a container calls its parts."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache, wraps
from typing import Any

import jax
import jax.numpy as jnp

from .._errors import LayerError, TieError
from .._keys import child_key
from .._leaf import describe
from .._params import abstract, init
from .._rules import Rules
from .._ties import tie
from .._tree import Tree


class Layer:
    """A layer is a frozen dataclass that derives from this, with `spec(x)` and `__call__(params, x)`.

    `spec` declares the parameters for an input like `x` (an array or a `jax.ShapeDtypeStruct`; nothing is
    computed); `__call__` is pure. One that needs randomness takes `key=None` as a keyword.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "spec" in vars(cls):
            cls.spec = _with_ties(vars(cls)["spec"])
        if "__eq__" not in vars(cls):
            cls.__eq__, cls.__hash__ = Layer.__eq__, Layer.__hash__  # which @dataclass then leaves alone

    def spec(self, x: Any) -> Tree:
        """The parameters that the layer needs for an input like `x`; none, unless a layer says otherwise.

        The same layer object at two of the paths that `parts` names is tied in what a layer of your own returns here.
        """
        return Tree()

    def __call__(self, params: Any, x: Any) -> Any:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        """Whether two layers have equal options and share the same layers: two that are equal are not one layer twice."""
        return type(self) is type(other) and self._facts == other._facts  # pyright: ignore[reportAttributeAccessIssue]

    def __hash__(self) -> int:
        return hash(self._facts)

    @cached_property
    def _facts(self) -> tuple[Any, ...]:
        options = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        return (*(getattr(self, option.name) for option in options if option.compare), *self._repeats.items())

    def __repr__(self) -> str:
        """The layer as a person would write it: options without a default, and those that differ from theirs."""
        parts: list[str] = []
        for option in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, option.name)
            text = value.__name__ if isinstance(value, type) else repr(value)
            if option.default is dataclasses.MISSING:
                parts.append(text)
            elif value != option.default:
                parts.append(f"{option.name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def init(self, key: Any, x: Any, rules: Rules | None = None) -> Tree:
        """Draw the layer's parameters for an input like `x`: `ptree.init(self.spec(x), key, rules)`.

        Raises:
            LayerError: `x` does not fit the layer.
            InitError, PatternError: as `ptree.init`.
        """
        return init(self.spec(x), key, rules)

    def parts(self) -> Iterator[tuple[str, Any]]:
        """The layers inside, each with the path that its parameters have in `spec`.

        By default the fields: one that holds a layer by its name, one that holds several as `blocks/0`, `blocks/1`.
        """
        for option in dataclasses.fields(self) if dataclasses.is_dataclass(self) else ():
            yield from _layers_in(getattr(self, option.name), option.name)

    @cached_property
    def _repeats(self) -> dict[str, str]:
        """Where the same layer object stands again: path -> path of its first place. What is in it is not listed again."""
        first: dict[int, tuple[Any, str]] = {}  # with the layer, so that its id is no other's
        again: dict[str, str] = {}

        def visit(layer: Any, prefix: str) -> None:
            for name, part in layer.parts() if hasattr(layer, "parts") else ():
                if not hasattr(part, "spec"):
                    continue
                known = first.setdefault(id(part), (part, prefix + name))[1]
                if known == prefix + name:
                    visit(part, f"{known}/")
                else:
                    again[prefix + name] = known

        visit(self, "")
        return again


def _layers_in(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The layers in a field, which may be a container of them."""
    if hasattr(value, "spec"):
        yield path, value
    elif isinstance(value, (list, tuple, Mapping)):
        for name, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _layers_in(part, f"{path}/{name}")


def _with_ties(spec: Callable[..., Any]) -> Callable[..., Tree]:
    """A layer's `spec` that ties what stands in the layer twice."""

    @wraps(spec)
    def tied(self: Layer, *inputs: Any, **options: Any) -> Tree:
        tree = Tree(spec(self, *inputs, **options))
        table = {again: first for again, first in self._repeats.items() if again in tree and first in tree}
        try:
            return tie(tree, table)
        except TieError as error:
            raise TieError(f"{error} One layer object stands at both places: make two layers of it.") from None

    return tied


def floating(layer: Any, x: Any) -> Any:
    """The input of a layer that computes with it: an array with at least one axis, not of whole numbers."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise unfit(layer, "an array", f"a {type(x).__name__}")
    if not x.shape or not jnp.issubdtype(x.dtype, jnp.inexact):
        raise unfit(layer, "an input of floats with at least one axis", describe(x))
    return x


def unfit(layer: Any, expected: str, got: str) -> LayerError:
    """The error for an input or parameters that do not fit; containers add where the layer is."""
    return LayerError(f"{layer!r}: expected {expected}, got {got}")


_NOTHING = Tree()


@lru_cache(maxsize=1024)
def _takes_key(kind: type) -> bool:
    try:
        return "key" in inspect.signature(kind.__call__).parameters
    except (TypeError, ValueError):
        return False


def apply(layer: Any, name: str, params: Any, x: Any, key: Any) -> Any:
    """What one part of a container does to its input; a plain function has no parameters."""
    if not hasattr(layer, "spec"):
        return layer(x)
    own = params  # what is no mapping goes on to the layer that needs a parameter, and is refused there
    if isinstance(params, Mapping):
        own = params.get(name, _NOTHING)
    options = {"key": child_key(key, name)} if key is not None and _takes_key(type(layer)) else {}
    try:
        return layer(own, x, **options)
    except LayerError as error:
        if own is _NOTHING and isinstance(params, Mapping) and not error.path:
            raise unfit(layer, f"parameters under the name {name!r}", f"parameters {sorted(params)}") from None
        raise error.inside(name) from None


def shape_after(layer: Any, name: str, spec: Tree, x: Any) -> Any:
    """The input of the next part, as shapes and dtypes."""
    return jax.eval_shape(lambda params, x: apply(layer, name, params, x, None), Tree({name: abstract(spec)}), x)


def need(params: Any, name: str, layer: Any) -> Any:
    """A layer's own parameter, or an error that says which is missing."""
    try:
        return params[name]
    except (KeyError, TypeError):
        there = sorted(params) if isinstance(params, Mapping) else describe(params)
        raise unfit(layer, f"the parameter {name!r}", f"parameters {there}") from None
