"""Container, the base of layers with named parts: check each part or wrap a function, call it with its parameters, options and
key; name it in errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Protocol, TypeAlias

import jax

from .._draw import abstract, child_key
from .._edit import set
from .._errors import LayerError
from .._shardings import as_traced
from .._tree import PyTree, Tree
from .._words import describe
from ._compiled import compile_key
from ._foreign_modules import has_parameters, missing_methods, module_misfit
from ._inputs import MissingParameterError, misfit
from ._lambda import Lambda
from ._layer import Layer, P, Params, adapted, is_layer

Options: TypeAlias = Mapping[str, PyTree]
"""The options of a call, `key` and `train` included."""


class CallPart(Protocol):
    """Function that calls a part: `(name, layer, x, params) -> (y, params)`, with the parameters of the whole container."""

    def __call__(self, name: str, layer: Layer, x: PyTree, params: P, /) -> tuple[PyTree, P]: ...


_NOTHING = Tree()


class Container(Layer):
    """Base of containers, which are layers made of layers. `run` calls the parts in order.

    A part's parameters are at its name; a part without parameters has no node. With `key` each part gets its own key,
    derived from its name; other options go to the layers that take them.
    """

    def run(self, params: P, x: PyTree, call: CallPart) -> tuple[PyTree, P]:
        """Call the parts in order; return the output, and the parameters as the last of these calls returned them."""
        raise NotImplementedError

    def apply(self, params: Params, x: PyTree, **options: PyTree) -> PyTree:
        check_options(self, options)
        y, _ = self.run(params, x, _calls(options))
        return y

    def updated(self, params: P, x: PyTree, *, key: jax.Array | None = None, **options: PyTree) -> tuple[PyTree, P]:
        check_options(self, options)
        return self.run(params, x, _updates(key, options))

    def _is_one_function(self) -> bool:
        return not self._holds_equal_layers

    @cached_property
    def _holds_equal_layers(self) -> bool:
        """Whether it holds the same few layers three times each or more, as a whole network does and a block does not.

        Each of these is compiled once for all its uses. One more function around them would save nothing, and JAX would
        take what is inside through each of its transforms twice: a tenth of the trace of an MLP of 4 to 32 layers.
        """
        keys = [compile_key(layer) for _, layer in self.parts() if not isinstance(layer, Lambda)]
        try:
            return bool(keys) and len(keys) >= 3 * len({*keys})
        except TypeError:  # a field without a hash
            return False


def _calls(options: Options) -> CallPart:
    """Call parts outside of training; the parameters stay as they are."""

    def call(name: str, layer: Layer, x: PyTree, params: P) -> tuple[PyTree, P]:
        return call_part(name, layer, params, x, options), params

    return call


def _updates(key: jax.Array | None, options: Options) -> CallPart:
    """Call parts in training; the container's parameters get the new running statistics."""

    def update(name: str, layer: Layer, x: PyTree, params: P) -> tuple[PyTree, P]:
        taken = options_for(layer, name, options)
        if key is not None:
            taken["key"] = child_key(key, name)
        y, new = call_in_part(layer.updated, name, layer, params, x, taken)
        # Most layers have no statistics: without a copy the parameters stay the same objects.
        if not new or new is _params_of(name, params):
            return y, params
        return y, set(params, name, new)

    return update


def check_options(container: Layer, options: Options) -> None:
    """Raise for an option that no layer of a container takes. `key` and `train` are always accepted."""
    if not options:  # the usual call outside of training: the layers inside need not be walked
        return
    # A train step passes these to any model, also to one without dropout.
    accepted = container.call_options() | {"key", "train"}
    unknown = [name for name in options if name not in accepted]
    if unknown:
        raise LayerError(f"{type(container).__name__}: expected options that a layer in it takes, got {unknown}")


def options_for(layer: Layer, name: str, options: Options) -> dict[str, PyTree]:
    """The options that a part takes, with a key of its own."""
    if not options:  # as in `check_options`
        return {}
    accepted = layer.call_options()
    taken = {option: value for option, value in options.items() if option in accepted}
    # By name rather than by order: adding a layer before a Dropout does not change its mask.
    if taken.get("key") is not None:
        taken["key"] = child_key(taken["key"], name)
    return taken


def call_part(name: str, layer: Layer, params: Params, x: PyTree, options: Options) -> PyTree:
    """Call a part of a container with its parameters and options."""
    return call_in_part(layer, name, layer, params, x, options_for(layer, name, options))


def call_in_part(
    function: Callable[..., PyTree], name: str, layer: Layer, params: Params, x: PyTree, options: Options
) -> PyTree:
    """Call a part's function with the part's parameters; an error gets the name of the part in its path."""
    try:
        return function(_params_of(name, params), x, **options)
    except MissingParameterError as error:
        # No node for the whole part: say that, rather than name the first leaf that the part looked for.
        if isinstance(params, Mapping) and name not in params:
            raise misfit(layer, f"parameters under the name {name!r}", f"parameters {sorted(params)}") from None
        raise error.inside(name) from None
    except LayerError as error:  # `from None`: the chain would repeat the message once per container
        raise error.inside(name) from None


def _params_of(name: str, params: Params) -> Params:
    """The parameters of a part; an empty Tree if it has none."""
    if not isinstance(params, Mapping):  # the layer that needs a parameter raises, with its path
        return params
    return params.get(name, _NOTHING)


def declared(name: str, layer: Layer, x: PyTree) -> tuple[Tree, PyTree]:
    """Declare a part of a container: its spec for an input of these shapes, and the shapes of its output."""
    try:
        spec = layer.spec(x)
        # A new function each time: JAX caches by equality, and a layer that changes stays equal to itself.
        params, x = jax.tree.map(as_traced, (abstract(spec), x))
        return spec, jax.eval_shape(lambda params, x: layer(params, x), params, x)
    except LayerError as error:
        raise located(error, name) from None


def located(error: LayerError, name: str) -> LayerError:
    """The error of a part with its name put before the path; a part without a name shares the container's path."""
    return error.inside(name) if name else error


def named_layers(
    kind: str, given: Sequence[PyTree], pairs: Sequence[tuple[str, PyTree]] | None
) -> tuple[tuple[str, PyTree], ...]:
    """The named parts of a container as they are given, layers and functions one by one, one dict, or pairs (name, part)."""
    if pairs is not None:
        if given:  # it would not be clear which come first
            raise LayerError(f"{kind}: expected layers one by one or as layers=, got both")
        if isinstance(pairs, Mapping):
            return _checked(kind, [*pairs.items()])
        if all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            return _checked(kind, pairs)
        return _checked(kind, [*enumerate(pairs)])  # layers without names, as they are given one by one
    if len(given) == 1 and isinstance(given[0], Mapping):
        return _checked(kind, [*given[0].items()])
    return _checked(kind, [*enumerate(given)])


def _checked(kind: str, pairs: Sequence[tuple[str | int, PyTree]]) -> tuple[tuple[str, PyTree], ...]:
    """Check the parts of a container, and their names, which differ and have no `/`."""
    parts: dict[str, PyTree] = {}
    for given, part in pairs:
        name = str(given) if isinstance(given, int) else given
        # A name is one segment of the paths below it.
        if not isinstance(name, str) or not name or "/" in name:
            raise LayerError(f"bad name {name!r} in {kind}: expected a string without '/'")
        if name in parts:
            raise LayerError(f"two layers of one name in {kind}: {[str(name) for name, _ in pairs]}")
        check_part(f"at {name!r}, {kind}", part)
        parts[name] = part
    return tuple(parts.items())


def as_layers(parts: Sequence[tuple[str, PyTree]]) -> tuple[tuple[str, Layer], ...]:
    """The named parts of a container as layers."""
    return tuple((name, as_layer(part)) for name, part in parts)


def as_layer(part: PyTree) -> Layer:
    """A layer of a container's part: a function becomes a Lambda, a layer of another class gets an adapter."""
    return adapted(part) if is_layer(part) else Lambda(part)


def check_part(where: str, part: PyTree) -> None:
    """Raise for what is neither a layer nor a function, with what to write instead."""
    # Classes first: `Dense` in the place of `Dense(8)` is callable and would pass as a function.
    if isinstance(part, type):
        raise LayerError(f"{where}: expected a layer, got the class {part.__name__}; call it first")
    if is_layer(part):
        return
    expected = f"{where}: expected a layer or a function, got"
    if isinstance(part, (list, tuple)):
        raise LayerError(f"{expected} a {type(part).__name__}; several are one layer as Sequential(*layers)")
    if not callable(part):
        raise LayerError(f"{expected} {describe(part)}{missing_methods(part)}")
    if has_parameters(part):
        raise LayerError(f"{expected} {module_misfit(part)}")


def drawn_in_lines(kind: str, layers: Sequence[tuple[str, Layer]]) -> str:
    """Draw a container with a line for each part; a layer object that is a part again shows the name of its first place."""
    first: dict[int, str] = {}
    lines: list[str] = []
    for name, layer in layers:
        place = first.setdefault(id(layer._object()), name)
        text = repr(layer) if place == name else f"= {place}"
        lines.append(f"  {name}: " + text.replace("\n", "\n  "))
    if not lines:
        return f"{kind}()"
    return "\n".join([f"{kind}(", *lines, ")"])
