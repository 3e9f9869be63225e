"""Layer, what every layer is."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache, wraps
from typing import Any, ClassVar

from .._draw import init
from .._edit import Rules
from .._errors import LayerError, TieError
from .._paths import join
from .._ties import tie
from .._tree import Tree
from ._compiled import compiled


class Layer:
    """A layer is a frozen dataclass that derives from this, with `spec(x)` and `__call__(params, x)`.

    `spec` declares the parameters for an input like `x` (an array or a `jax.ShapeDtypeStruct`; nothing is
    computed); `__call__` is pure. One that needs randomness takes `key=None` as a keyword, one that does otherwise in
    training `train=False`; a container passes both, and other options, on to the layers that take them. Inside of `jax.jit` each call is
    a compiled function of its own, which equal layers share: so what it reads besides its fields is read once. A
    class that keeps something else than such fields is a layer too: its objects are equal to themselves alone, and
    not compiled apart.
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    """The layer's leaves that `updated` sets, rather than the optimiser."""
    is_loop: ClassVar[bool] = False
    """Whether a call is a loop of JAX's, which compiles outside of `jax.jit` too."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "spec" in vars(cls):
            cls.spec = _with_ties(vars(cls)["spec"])
        if "__call__" in vars(cls):
            cls.__call__ = compiled(vars(cls)["__call__"], always=cls.is_loop)
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
        if self is other or not isinstance(other, Layer):
            return self is other
        return type(self) is type(other) and self.is_fixed and other.is_fixed and self._facts == other._facts

    def __hash__(self) -> int:
        return self._hash if self.is_fixed else object.__hash__(self)

    @cached_property
    def _hash(self) -> int:
        return hash((type(self), self._facts))

    @cached_property
    def _facts(self) -> tuple[Any, ...]:
        return (*(_fact(getattr(self, option.name)) for option in _options(self)), *self._repeats.items())

    @property
    def is_fixed(self) -> bool:
        """Whether the layer is what its fields say, for good: a frozen dataclass, or nothing, and no more than that."""
        made = getattr(self, "__dataclass_params__", None)
        options = {option.name for option in _options(self)}
        return (made is None or made.frozen) and options.issuperset({*vars(self)}.difference(_CACHED))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _CACHED}

    def __repr__(self) -> str:
        """The layer as a person would write it: options without a default, and those that differ from theirs."""
        parts: list[str] = []
        for option in _options(self):
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

    def updated(self, params: Any, x: Any, *, key: Any = None, **options: Any) -> tuple[Any, Any]:
        """The output in training, and the parameters with new running statistics; all others are the same objects.

        Raises:
            LayerError: a container of your own that holds a `BatchNorm`: it is to say how the statistics come out.
        """
        if any(_keeps_statistics(part) for _, part in self.parts()):
            raise LayerError(
                f"{self!r}: it holds layers with running statistics, so define `updated(params, x, *, key=None)`, which"
                " returns the output and the new parameters"
            )
        always = {"key": key, "train": True}
        return self(
            params, x, **options, **{name: value for name, value in always.items() if takes(self, name)}
        ), params

    def parts(self) -> Iterator[tuple[str, Any]]:
        """The layers inside, each with the path that its parameters have in `spec`.

        By default the fields: one that holds a layer by its name, one that holds several as `blocks/0`, `blocks/1`.
        """
        for option in _options(self):
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
                path = join(prefix, name)
                known = first.setdefault(id(part), (part, path))[1]
                if known == path:
                    visit(part, path)
                else:
                    again[path] = known

        visit(self, "")
        return again


_CACHED = ("_facts", "_hash", "_repeats")


def _options(layer: Layer) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(layer) if dataclasses.is_dataclass(layer) else ()


def _fact(value: Any) -> Any:
    """An option, told apart from equal ones of another kind: 1, 1.0 and True; 0.0 and -0.0."""
    if isinstance(value, tuple):
        return tuple(map(_fact, value))
    return (type(value), repr(value) if isinstance(value, (float, complex)) else value)


def _keeps_statistics(layer: Any) -> bool:
    return bool(getattr(layer, "statistics", ())) or any(
        _keeps_statistics(part) for _, part in (layer.parts() if hasattr(layer, "parts") else ())
    )


def takes(layer: Any, option: str) -> bool:
    """Whether calls of the layer have an option; a container passes on those of the layers in it."""
    named, passes_on = _call_options(type(layer))
    return option in named or (passes_on and any(takes(part, option) for _, part in layer.parts()))


@lru_cache(maxsize=1024)
def _call_options(kind: type) -> tuple[frozenset[str], bool]:
    """The options that a call of this kind of layer names, and whether it has others too."""
    try:
        options = inspect.signature(kind.__call__).parameters.values()
    except (TypeError, ValueError):
        return frozenset(), False
    others = any(option.kind is option.VAR_KEYWORD for option in options)
    return frozenset(option.name for option in options), others and hasattr(kind, "parts")


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
