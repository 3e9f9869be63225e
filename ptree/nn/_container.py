"""Container, the base of layers of layers: each part gets its parameters, options and key, and errors name its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import jax

from .._draw import abstract, child_key
from .._edit import set
from .._errors import LayerError
from .._tree import PyTree, Tree
from .._words import describe
from ._inputs import MissingParameterError, misfit
from ._lambda import Lambda
from ._layer import Layer, P, Params, adapted, is_layer

Options: TypeAlias = Mapping[str, PyTree]
"""The options of a call, `key` and `train` included."""


class CallPart(Protocol):
    """`(name, layer, x, params) -> (y, params)`, where `params` are those of the container."""

    def __call__(self, name: str, layer: Layer, x: PyTree, params: P, /) -> tuple[PyTree, P]: ...


_NOTHING = Tree()


class Container(Layer):
    """Base of layers of layers. A container says in `run` in which order its parts are called.

    A part's parameters stand under its name; a part without parameters has no node. With `key` each gets a key of its
    own, derived from its name; other options go to the layers that take them.
    """

    def run(self, params: P, x: PyTree, call: CallPart) -> tuple[PyTree, P]:
        """The output, and the parameters as the calls of the parts give them back."""
        raise NotImplementedError

    def apply(self, params: Params, x: PyTree, **options: PyTree) -> PyTree:
        check_options(self, options)
        y, _ = self.run(params, x, _calls(options))
        return y

    def updated(self, params: P, x: PyTree, *, key: jax.Array | None = None, **options: PyTree) -> tuple[PyTree, P]:
        check_options(self, options)
        return self.run(params, x, _updates(key, options))


def _calls(options: Options) -> CallPart:
    """Parts are called; the parameters stay as they are."""

    def call(name: str, layer: Layer, x: PyTree, params: P) -> tuple[PyTree, P]:
        return call_part(name, layer, params, x, options), params

    return call


def _updates(key: jax.Array | None, options: Options) -> CallPart:
    """Parts are called in training; the container's parameters get their new statistics."""

    def update(name: str, layer: Layer, x: PyTree, params: P) -> tuple[PyTree, P]:
        taken = options_for(layer, name, options)
        if key is not None:
            taken["key"] = child_key(key, name)
        y, new = _called_with(layer.updated, name, layer, params, x, taken)
        if not new or new is _params_of(name, params):  # nothing changed: the container's parameters stay one object
            return y, params
        return y, set(params, name, new)

    return update


def check_options(container: Layer, options: Options) -> None:
    """An option that no layer of a container takes is a mistake. A key and `train` may be given in any case."""
    if not options:  # the usual call outside of training: the layers inside need not be walked
        return
    accepted = container.call_options() | {"key", "train"}
    unknown = [name for name in options if name not in accepted]
    if unknown:
        raise LayerError(f"{type(container).__name__}: expected options that a layer in it takes, got {unknown}")


def options_for(layer: Layer, name: str, options: Options) -> dict[str, PyTree]:
    """The options that one part takes, with its own key."""
    if not options:
        return {}
    accepted = layer.call_options()
    taken = {option: value for option, value in options.items() if option in accepted}
    # By name rather than by order: a mask of dropout does not change where a layer is added before it.
    if taken.get("key") is not None:
        taken["key"] = child_key(taken["key"], name)
    return taken


def call_part(name: str, layer: Layer, params: Params, x: PyTree, options: Options) -> PyTree:
    """The output of one part, called with what belongs to it."""
    return _called_with(layer, name, layer, params, x, options_for(layer, name, options))


def _called_with(
    function: Callable[..., PyTree], name: str, layer: Layer, params: Params, x: PyTree, options: Options
) -> PyTree:
    """Call a part's function with the part's parameters; an error says where the part stands."""
    try:
        return function(_params_of(name, params), x, **options)
    except MissingParameterError as error:
        if isinstance(params, Mapping) and name not in params:
            raise misfit(layer, f"parameters under the name {name!r}", f"parameters {sorted(params)}") from None
        raise error.inside(name) from None
    except LayerError as error:
        raise error.inside(name) from None


def _params_of(name: str, params: Params) -> Params:
    """The parameters of a part: nothing where it has none. What is no mapping is refused by the layer that needs it."""
    return params.get(name, _NOTHING) if isinstance(params, Mapping) else params


def declared(name: str, layer: Layer, x: PyTree) -> tuple[Tree, PyTree]:
    """The spec of one part for an input of these shapes, and the shapes of its output."""
    try:
        spec = layer.spec(x)
        # A new function each time: JAX would keep the shapes of `layer` for all that compare equal to it.
        return spec, jax.eval_shape(lambda params, x: layer(params, x), abstract(spec), x)
    except LayerError as error:
        raise located(error, name) from None


def located(error: LayerError, name: str) -> LayerError:
    """An error of a part as it is seen from the container; a part without a name is seen as the container itself."""
    return error.inside(name) if name else error


def named_layers(
    kind: str, given: Sequence[PyTree], pairs: Sequence[tuple[str, PyTree]] | None
) -> tuple[tuple[str, Layer], ...]:
    """The layers that a container is given, with their names: one by one, as one dict, or as pairs (name, layer)."""
    if pairs is not None:
        if given:
            raise LayerError(f"{kind}: expected layers one by one or as layers=, got both")
        return _checked(kind, pairs)
    if len(given) == 1 and isinstance(given[0], Mapping):
        return _checked(kind, [*given[0].items()])
    return _checked(kind, [*enumerate(given)])


def _checked(kind: str, pairs: Sequence[tuple[str | int, PyTree]]) -> tuple[tuple[str, Layer], ...]:
    """Pairs of a name and a layer, whose names are different, and without `/`."""
    layers: dict[str, Layer] = {}
    for given, layer in pairs:
        name = str(given) if isinstance(given, int) else given
        if not isinstance(name, str) or not name or "/" in name:
            raise LayerError(f"bad name {name!r} in {kind}: expected a string without '/'")
        if name in layers:
            raise LayerError(f"two layers of one name in {kind}: {[str(name) for name, _ in pairs]}")
        layers[name] = as_layer(f"at {name!r}, {kind}", layer)
    return tuple(layers.items())


def as_layer(where: str, layer: PyTree) -> Layer:
    """What a container is given, as a Layer: a function becomes a Lambda, a layer of other origin gets an adapter."""
    if isinstance(layer, type):
        raise LayerError(f"{where}: expected a layer, got the class {layer.__name__}; call it first")
    if is_layer(layer):
        return adapted(layer)
    if isinstance(layer, (list, tuple)):
        raise LayerError(
            f"{where}: expected a layer or a function, got a {type(layer).__name__}; several are one layer as Sequential(*layers)"
        )
    if not callable(layer):
        raise LayerError(f"{where}: expected a layer or a function, got {describe(layer)}")
    return Lambda(layer)


def drawn_in_lines(kind: str, layers: Sequence[tuple[str, Layer]]) -> str:
    """A container with a line for each layer; of a layer object that stands again, the name of its first place."""
    first: dict[int, str] = {}
    lines: list[str] = []
    for name, layer in layers:
        place = first.setdefault(id(layer._object()), name)
        text = repr(layer) if place == name else f"= {place}"
        lines.append(f"  {name}: " + text.replace("\n", "\n  "))
    return "\n".join([f"{kind}(", *lines, ")"]) if lines else f"{kind}()"
