"""first: look at a model before training: the standard deviation of its leaves, and the size of activations and gradients in each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ..._draw import Param, child_key, init
from ..._edit import Rules, leaves
from ..._errors import LayerError, StructureError
from ..._tree import PyTree, replace_leaves
from ..._words import describe
from ...initializers._spread import Spread
from .._plots.declared import declared_spreads
from .._sources.tree_source import TreeSource
from .._stats.moments import NONE, Moments, moments_of, together
from .result import First
from .rows import FirstLayer, FirstLeaf
from .signals import Signal, Signals, signals_of


@runtime_checkable
class _Layer(Protocol):
    def spec(self, x: PyTree, /) -> Mapping[str, PyTree]: ...
    def __call__(self, params: PyTree, x: PyTree, /) -> PyTree: ...


@runtime_checkable
class _Trained(Protocol):
    """A layer that has a call for training, in which dropout is on and norms use the batch."""

    def spec(self, x: PyTree, /) -> Mapping[str, PyTree]: ...
    def updated(self, params: PyTree, x: PyTree, /, *, key: jax.Array | None) -> tuple[PyTree, PyTree]: ...


def first(
    model: Callable[..., PyTree],
    x: PyTree,
    key: jax.Array,
    *,
    params: PyTree = None,
    loss: Callable[[PyTree], jax.Array] | None = None,
    rules: Rules | None = None,
) -> First:
    """Look at a model before training: a vanishing or exploding start is seen in the sizes of activations and gradients.

    >>> from ptree import initializers as I, nn
    >>> layers = [part for _ in range(10) for part in (nn.Dense(64, kernel_init=I.normal(0.01)), jnp.tanh)]
    >>> x = jax.random.normal(jax.random.key(1), (32, 64))
    >>> start = first(nn.Sequential(*layers), x, jax.random.key(0))
    >>> start.verdicts[0]
    'activations shrink from 0.079... to ...e-10 over 9 layers: vanishing'

    The parameters are drawn as `ptree.init` does, and one batch runs forward and backward, as in training if the model
    has `updated`. Layers are found in what JAX traces: a layer is a node whose leaves are used one after the other,
    such as a product with `0/kernel` and a sum with `0/bias`. So it works for any function, and for layers in
    loops too. `output` is the root mean square of what flows out of a layer, before the activation function;
    `gradient` that of the gradient with respect to it. The verdict on activations compares what flows in to the second layer and
    to the last; the one on gradients, the outputs of all layers but the last.

    Theory: with `he_normal` and relu the mean square of the outputs stays (He et al. 2015), with `xavier_normal` and
    tanh it falls slowly (Glorot and Bengio 2010).

    Args:
        model: a layer with `spec(x)`, called `model(params, x)`, or with `params` any such function.
        x: a batch: arrays, not their shapes alone.
        key: draws the parameters, the dropout and the gradient of the output.
        params: parameters that are there, or a spec; by default `model.spec(x)`.
        loss: a function from the output to one number. By default the gradient of the output is standard normal
            noise, so that the gradient in each layer is what one of size 1 at the output becomes.
        rules: as for `init`: selector -> initialiser.

    Returns:
        `First`: `layers`, `leaves` and `verdicts`; it prints as two tables. `plot()` gives a figure.

    Raises:
        LayerError: the model has no `spec` and no `params` are given, or x does not fit the model.
        StructureError: x has no values, or the loss is not one number.
        InitError, PatternError: as `ptree.init`.
    """
    _refuse_without_values(x)
    spec = _spec(model, x, params)
    is_drawn = bool(rules) or any(isinstance(leaf, Param) for _, leaf in leaves(spec))
    drawn = init(spec, key, rules) if is_drawn else spec
    declared = declared_spreads(spec, rules) if is_drawn else {}
    values = {path: leaf for path, leaf in leaves(drawn) if _is_array(leaf)}
    output = _loss(loss, child_key(key, "gradient of the output"))
    signals = signals_of(_function(model, drawn, child_key(key, "dropout")), values, x, output)
    rows = tuple(_leaf_row(path, leaf, declared.get(path), signals) for path, leaf in values.items())
    return First(tuple(_layer_row(signal) for signal in signals.layers), rows)


def _refuse_without_values(x: PyTree) -> None:
    for leaf in jax.tree.leaves(x):
        if isinstance(leaf, (jax.ShapeDtypeStruct, Param)) or not hasattr(leaf, "dtype"):
            raise StructureError(
                f"expected a batch with values as x, got {describe(leaf)}, a {type(leaf).__name__}."
                " Give data, or jax.random.normal(key, shape)"
            )


def _spec(model: Callable[..., PyTree], x: PyTree, params: PyTree) -> PyTree:
    if params is not None:
        return params
    if isinstance(model, type):
        raise LayerError(f"expected a layer, got the class {model.__name__}: call it first, {model.__name__}(...)")
    if not isinstance(model, _Layer):
        raise LayerError(
            f"expected a layer with spec(x), got {describe(model)}."
            " Of a function f(params, x) give the parameters: first(f, x, key, params=params)"
        )
    return model.spec(x)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def _function(model: Callable[..., PyTree], params: PyTree, key: jax.Array) -> Callable[..., PyTree]:
    """The model as a function of its leaves by path, as it is called in training."""

    def call(values: Mapping[str, Any], x: PyTree) -> PyTree:
        whole = replace_leaves(params, values)
        if isinstance(model, _Trained):
            y, _ = model.updated(whole, x, key=key)
            return y
        return model(whole, x)

    return call


def _loss(loss: Callable[[PyTree], jax.Array] | None, key: jax.Array) -> Callable[[PyTree], jax.Array]:
    if loss is None:
        return lambda y: _along_noise(y, key)

    def checked(y: PyTree) -> jax.Array:
        value = loss(y)
        if jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
            raise StructureError(f"expected one real number from loss(output), got {describe(value)}")
        return value

    return checked


def _along_noise(y: PyTree, key: jax.Array) -> jax.Array:
    """A number whose gradient with respect to the output is standard normal noise."""
    total = jnp.zeros((), jnp.float32)
    for at, leaf in enumerate(jax.tree.leaves(y)):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            noise = jax.random.normal(jax.random.fold_in(key, at), leaf.shape, jnp.float32)
            total += jnp.vdot(noise.astype(leaf.dtype), leaf).astype(jnp.float32)
    return total


def _layer_row(signal: Signal) -> FirstLayer:
    source = signal.source
    return FirstLayer(
        signal.layer,
        None if source is None else source.rms,
        signal.output.rms,
        signal.output.largest,
        signal.gradient.rms,
        signal.gradient.largest,
    )


def _leaf_row(path: str, leaf: Any, declared: Spread | None, signals: Signals) -> FirstLeaf:
    moments = _moments(leaf)
    gradient = signals.gradients.get(path)
    return FirstLeaf(
        path,
        tuple(leaf.shape),
        None if declared is None else declared.mean,
        None if declared is None else declared.std,
        None if declared is None else (declared.low, declared.high),
        float(np.real(moments.mean)),
        moments.std,
        moments.largest,
        moments.finite,
        moments.nonfinite,
        None if gradient is None else gradient.rms,
    )


def _moments(leaf: Any) -> Moments:
    source = TreeSource({"leaf": leaf})
    info = source.leaves["leaf"]
    if info.problem or info.dtype.startswith("key<") or not info.count:
        return NONE
    return together([moments_of(chunk) for chunk in source.chunks("leaf")])
