"""Layer, the base class of all layers: declare, spec, init, apply, call; parts inside its fields, shared ones too; adapters
for classes like a layer."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import ClassVar, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import jax
import numpy as np

from .._draw import Param, init
from .._edit import Rules, leaves
from .._errors import LayerError, TieError
from .._paths import join
from .._ties import tie
from .._tree import PyTree, Tree, explicit_axes_problem
from .._words import describe, lines, name_of
from ..initializers import Recipe
from ._arguments import check_arguments, check_values
from ._compiled import call
from ._equality import FieldEquality, fields_of
from ._foreign_modules import has_parameters, missing_methods, module_misfit

Params: TypeAlias = Mapping[str, PyTree]
"""A layer's parameters: a Tree, or nested dicts."""
P = TypeVar("P", bound=Params)
Initializer: TypeAlias = Callable[..., jax.Array]
"""`(key, shape, dtype) -> array`"""


class Layer(FieldEquality):
    """Base class of all layers: a pure function of parameters and an input, which declares the parameters it needs.

    To write a layer, make a frozen dataclass of its options with two methods. `declare(x)` gives the parameters for an
    input like `x`, a mapping of `Param` and of other layers' `spec(x)`; `apply(params, x)` computes the output.
    This class adds `spec`, `init` and the call.

    >>> from dataclasses import dataclass
    >>> import jax.numpy as jnp, ptree as pt
    >>> from ptree import nn
    >>> @dataclass(frozen=True)
    ... class Scaled(nn.Layer):
    ...     inner: nn.Layer
    ...     def declare(self, x):
    ...         return {"inner": self.inner.spec(x), "scale": pt.Param((), init=pt.initializers.ones)}
    ...     def apply(self, params, x):
    ...         return params["scale"] * self.inner(params["inner"], x)
    >>> layer = Scaled(nn.Dense(8))
    >>> params = layer.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params
    Tree(
      inner/kernel  f32[4,8]
      inner/bias    f32[8]
      scale         f32[]
    )
    >>> layer(params, jnp.ones((2, 4))).shape
    (2, 8)

    - The input of `declare` may be a `jax.ShapeDtypeStruct`: read its shape and dtype only.
    - Options of a call are keyword arguments of `apply`. A layer that needs randomness takes `key=None`, one that
      behaves differently in training `train=False`. Containers pass options on to the layers that take them.
    - A layer object in two places, in fields or at two of the paths that `parts` yields, has one set of parameters:
      `spec` ties them.
    - Inside of `jax.jit` a call is a compiled function that equal layers share, so `apply` must be pure: what it
      reads besides its fields is read once. A class with more than frozen fields is a layer too; it is equal to
      itself only, and its calls are not compiled.
    - `@dataclass(frozen=True)` compares fields by `==`. With `eq=False` layers compare as those of `ptree.nn` do: 1,
      1.0 and True differ, and so do two layers of which only one contains an object twice. Use it where layers are
      static arguments of `jax.jit`. Compiled calls never mix up layers, with or without it.
    """

    statistics: ClassVar[tuple[str, ...]] = ()
    """Names of the leaves that `updated` sets, such as running statistics; the optimiser leaves them alone."""
    is_loop: ClassVar[bool] = False
    """Whether a call runs a JAX loop, which is compiled outside of `jax.jit` too."""

    def __new__(cls, *given: object, **options: object) -> Self:
        # Before the dataclass's own `__init__`, whose TypeError would not say what to write instead.
        check_arguments(cls, given, options)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check the values of the arguments of this package's layers, and make Python's numbers of NumPy's."""
        check_values(self)

    def declare(self, x: PyTree, /) -> Mapping[str, PyTree]:
        """For layers to define: the parameters for an input like `x`, by name. By default none.

        Args:
            x: an input, or a `jax.ShapeDtypeStruct` of its shape.
        """
        return {}

    def apply(self, params: Params, x: PyTree, /) -> PyTree:
        """For layers to define: compute the output from parameters and an input. Must be pure.

        Args:
            params: the parameters that `declare` names.
            x: the input.

        Raises:
            LayerError: the layer does not define it.
        """
        name = type(self).__name__
        raise LayerError(
            f"{name}: expected a method apply(self, params, x), which gives the output{missing_methods(self)}"
        )

    def spec(self, *inputs: PyTree) -> Tree:
        """The parameters that the layer needs for an input like this, as a Tree of `Param`. Nothing is computed.

        Args:
            *inputs: the inputs of a call, or their `jax.ShapeDtypeStruct`.

        Raises:
            LayerError: the input does not fit the layer, or `declare` gives something other than parameters.
            TieError: one layer object at two places that need parameters of other shapes.
        """
        tree = _declared(self, inputs)
        table: dict[str, str] = {}
        for again, first in self._sharing().items():
            # A layer without parameters has no node to tie.
            if again in tree and first in tree:
                table[again] = first
        if not table:
            return tree
        try:
            return tie(tree, table)
        except TieError as error:
            raise TieError(f"{error} One layer object stands at both places: make two layers of it.") from None

    def __call__(self, params: Params, *inputs: PyTree, **options: PyTree) -> PyTree:
        """Call `apply`; inside of `jax.jit` as a compiled function that equal layers share.

        Raises:
            LayerError: the input or the parameters do not fit the layer.
        """
        try:
            if not self._is_one_function():
                return type(self).apply(self, params, *inputs, **options)
            if self.is_loop:
                self._check_values(inputs, options)
            return call(type(self).apply, self, (params, *inputs), options, always=self.is_loop)
        except Exception as error:
            problem = explicit_axes_problem(error)
            if problem is None:
                raise
            raise LayerError(f"{self!r}: {problem}") from error

    def init(self, key: jax.Array, x: PyTree, rules: Rules | None = None) -> Tree:
        """Draw the layer's parameters for an input like `x`: `ptree.init(self.spec(x), key, rules)`.

        Args:
            key: `jax.random.key(seed)`.
            x: an input, or its `jax.ShapeDtypeStruct`.
            rules: selector -> initialiser, which override those of the layers.

        Raises:
            LayerError: `x` does not fit the layer.
            InitError, PatternError: as `ptree.init`.
        """
        return init(self.spec(x), key, rules)

    def updated(self, params: P, x: PyTree, *, key: jax.Array | None = None, **options: PyTree) -> tuple[PyTree, P]:
        """The output in training, and the parameters with new running statistics; all others are the same objects.

        Args:
            params: the layer's parameters.
            x: the input.
            key: the key of this step, for dropout.
            **options: further options of a call.

        Raises:
            LayerError: a class of your own that contains a `BatchNorm`: it must define `updated` itself.
        """
        # A call would return the output alone, and the new statistics would silently be lost.
        if any(layer._keeps_statistics() for _, layer in layers_in(self)):
            raise LayerError(
                f"{self!r}: it holds layers with running statistics, so define `updated(params, x, *, key=None)`, which"
                " returns the output and the new parameters"
            )
        accepted = self.call_options()
        if "key" in accepted:
            options["key"] = key
        if "train" in accepted:
            options["train"] = True
        return self(params, x, **options), params

    def parts(self) -> Iterator[tuple[str, PyTree]]:
        """The layers inside, each with the path that its parameters have in `spec`.

        By default those in the fields: a layer under the name of its field, several in one field as `blocks/0`, `blocks/1`.
        """
        for field in fields_of(self):
            yield from _layers_in_field(getattr(self, field.name), field.name)

    def call_options(self) -> frozenset[str]:
        """The names of the options that a call takes; with `**options` also those of the layers inside."""
        # A layer may override the call itself: without its options, dropout inside would silently be off.
        calls_apply = type(self).__call__ is Layer.__call__
        function = type(self).apply if calls_apply else type(self).__call__
        names, takes_others = _keywords(function)
        if takes_others:
            names = names.union(*(layer.call_options() for _, layer in layers_in(self)))
        return names

    def _sharing(self) -> Mapping[str, str]:
        return self._shared_places

    @cached_property
    def _shared_places(self) -> Mapping[str, str]:
        """The places of layer objects that are shared: path -> path of the object's first place."""
        return _shared_places(self)

    def _check_values(self, inputs: tuple[PyTree, ...], options: Mapping[str, PyTree]) -> None:
        """Check the values of a loop's options before it is compiled, when they are no longer known; by default none."""

    def _is_one_function(self) -> bool:
        """Whether a call is a compiled function as a whole, rather than those of the layers inside."""
        return True

    def _object(self) -> object:
        """The object that has one set of parameters in all of its places: the layer, or the one in an adapter."""
        return self

    def _keeps_statistics(self) -> bool:
        """Whether this layer, or one inside of it, has running statistics."""
        return bool(self.statistics) or any(layer._keeps_statistics() for _, layer in layers_in(self))

    def __repr__(self) -> str:
        """The layer as a call of its constructor: options without a default, and those that differ from their default."""
        parts: list[str] = []
        in_order_of_call = sorted(fields_of(self), key=lambda field: bool(field.kw_only))
        for field in in_order_of_call:
            value = getattr(self, field.name)
            text = value.__name__ if isinstance(value, type) else repr(value)
            if field.default is dataclasses.MISSING:  # such fields come first, by position
                parts.append(text)
            elif value != field.default or isinstance(value, bool) is not isinstance(field.default, bool):  # True == 1
                parts.append(f"{field.name}={text}")
        return f"{type(self).__name__}({', '.join(parts)})"


@runtime_checkable
class LayerLike(Protocol):
    """The methods that make an object a layer."""

    def spec(self, x: PyTree, /) -> Mapping[str, PyTree]: ...
    def __call__(self, params: Params, x: PyTree, /) -> PyTree: ...


@runtime_checkable
class _Updating(Protocol):
    """A layer of another class that returns its new running statistics itself."""

    def updated(self, params: P, x: PyTree, /, *, key: jax.Array | None, **options: PyTree) -> tuple[PyTree, P]: ...


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Foreign(Layer):
    """Adapter for a layer of another class: any object with `spec(x)` and `__call__(params, x)`."""

    layer: LayerLike

    def _object(self) -> object:
        return self.layer

    def _keeps_statistics(self) -> bool:
        return bool(getattr(self.layer, "statistics", ()))  # not part of the protocol

    def spec(self, *inputs: PyTree) -> Tree:
        return Tree(self.layer.spec(*inputs))

    def __call__(self, params: Params, *inputs: PyTree, **options: PyTree) -> PyTree:
        # Not compiled: nothing says that the object is pure, or when it is equal to another.
        return self.layer(params, *inputs, **options)

    def updated(self, params: P, x: PyTree, *, key: jax.Array | None = None, **options: PyTree) -> tuple[PyTree, P]:
        if isinstance(self.layer, _Updating):
            return self.layer.updated(params, x, key=key, **options)
        return super().updated(params, x, key=key, **options)

    def parts(self) -> Iterator[tuple[str, PyTree]]:
        return iter(())  # its own `spec` ties what is shared inside

    def call_options(self) -> frozenset[str]:
        names, _ = _keywords(type(self.layer).__call__)
        return names

    def __repr__(self) -> str:
        return repr(self.layer)


def _declared(layer: Layer, inputs: tuple[PyTree, ...]) -> Tree:
    """What a layer declares, checked to be parameters."""
    declare: Callable[..., Mapping[str, PyTree]] = layer.declare
    try:
        given = declare(*inputs)
    except AttributeError as error:
        problem = _field_misfit(layer, error)
        if problem is None:
            raise
        raise LayerError(f"{type(layer).__name__}: {problem}") from None
    expected = f"{type(layer).__name__}: expected parameters from declare, Param by name"
    if not isinstance(given, (Mapping, list, tuple)):
        hint = "; is there a `return`?" if given is None else ""
        raise LayerError(f"{expected}, got {type(given).__name__}{hint}")
    tree = Tree(given)
    problems = [f"at {path!r} {_not_a_param(leaf)}" for path, leaf in leaves(tree) if not _may_be_declared(leaf)]
    if problems:
        raise LayerError(f"{expected}, got {lines(problems, '; ')}")
    return tree


def _field_misfit(layer: Layer, error: AttributeError) -> str | None:
    """The problem of a field that holds no layer, where `declare` calls its `spec`; None for an error of another kind."""
    if isinstance(error.obj, Layer):
        return None
    values = {field.name: getattr(layer, field.name) for field in fields_of(layer)}
    if error.name == "declare":  # the `spec` of a class: its `self` is the input
        names = [name for name, value in values.items() if isinstance(value, type)]
        return f"expected a layer in the field {names[0]!r}, got {_not_a_layer(values[names[0]])}" if names else None
    if error.name != "spec":
        return None
    names = [name for name, value in values.items() if value is error.obj]
    where = f"in the field {names[0]!r}" if names else "where declare calls its spec"
    return f"expected a layer {where}, got {_not_a_layer(error.obj)}"


def _may_be_declared(leaf: PyTree) -> bool:
    """Whether a leaf may be in a spec: a Param, an array that is drawn already, or None."""
    return leaf is None or isinstance(leaf, (Param, jax.Array, np.ndarray, np.generic))


def _not_a_param(leaf: PyTree) -> str:
    """What `declare` gives in the place of a parameter, and what to write instead."""
    if isinstance(leaf, type):
        return f"the class {leaf.__name__}: call it first"
    if is_layer(leaf):
        return f"the layer {leaf!r}: write its spec(x)"
    if inspect.ismethod(leaf):
        return f"the method {name_of(leaf)}: call it, {name_of(leaf)}(x)"
    if isinstance(leaf, Recipe):
        return f"the initialiser {leaf!r}: write Param(shape, init={leaf!r})"
    if callable(leaf):
        return f"the function {name_of(leaf)}: it has no parameters, leave it out"
    return f"{describe(leaf)}: write Param(shape, dtype, init=...)"


def _not_a_layer(value: PyTree) -> str:
    """What a field holds in the place of a layer, and what to write instead."""
    if isinstance(value, type):
        return f"the class {value.__name__}: call it first"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__}: write Sequential(*layers), or declare each of them"
    if not callable(value):
        return f"{describe(value)}{missing_methods(value)}"
    if has_parameters(value):
        return module_misfit(value)
    name = name_of(value)
    return f"the function {name}: give nn.Lambda({name}), or call it in apply and declare nothing for it"


def layers_in(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """The layers inside a layer, with the paths that `parts` yields; layers of other classes in an adapter, no functions."""
    for path, part in layer.parts():
        if is_layer(part):
            yield path, adapted(part)


def is_layer(value: PyTree) -> bool:
    """Whether an object is a layer, of this or another class. A class itself is not, although it has the methods."""
    if isinstance(value, Layer):  # a fast path: 0.1 us, where the check of a Protocol takes 4 to 100
        return True
    # Most fields are numbers, flags and None; this was a tenth of the first trace of a small model.
    if not callable(value) or isinstance(value, type):
        return False
    return isinstance(value, LayerLike)


def adapted(value: LayerLike) -> Layer:
    """A layer as it is, or in an adapter if it is of another class."""
    return value if isinstance(value, Layer) else Foreign(value)


def _layers_in_field(value: PyTree, path: str) -> Iterator[tuple[str, PyTree]]:
    """The layers inside a field, which may be a list, tuple or dict of them."""
    if is_layer(value):
        yield path, value
    elif isinstance(value, (list, tuple, Mapping)):
        named = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, part in named:
            yield from _layers_in_field(part, f"{path}/{name}")


def _shared_places(layer: Layer) -> dict[str, str]:
    """Find layer objects that are shared: path -> path of the object's first place, without the layers inside of it."""
    # Objects are kept beside their places: `parts` may make layers on the fly, and an id is reused once its object is gone.
    first: dict[int, tuple[object, str]] = {}
    again: dict[str, str] = {}
    # A stack rather than recursion: paths may be 256 levels deep.
    pending = _parts_in_reverse("", layer)
    while pending:
        path, part = pending.pop()
        _, place = first.setdefault(id(part._object()), (part._object(), path))
        if place == path:
            pending += _parts_in_reverse(path, part)
        else:
            again[path] = place
    return again


def _parts_in_reverse(path: str, layer: Layer) -> list[tuple[str, Layer]]:
    """The layers inside with their whole paths, in reverse: `pop` then takes the first one first."""
    return [(join(path, name), part) for name, part in layers_in(layer)][::-1]


@lru_cache(maxsize=1024)  # `inspect.signature` takes longer than a small layer's call
def _keywords(function: Callable[..., PyTree]) -> tuple[frozenset[str], bool]:
    """The names of the arguments of a layer's call or `apply`, and whether it takes `**options`."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function that is not written in Python
        return frozenset(), False
    names = frozenset(argument.name for argument in arguments)
    return names, any(argument.kind is argument.VAR_KEYWORD for argument in arguments)
