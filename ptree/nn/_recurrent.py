"""Layers that go along a sequence: LSTM and GRU, scanned over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .. import initializers
from .._draw import Param
from .._errors import LayerError
from .._tree import Tree
from .._words import describe
from ._call import cast, floating, need, unfit
from ._compiled import compiled
from ._layer import Layer


@dataclass(frozen=True, repr=False)
class _Recurrent(Layer):
    """What LSTM and GRU have in common: f32[batch, time, in] -> f32[batch, time, features]."""

    features: int
    reverse: bool = False
    kernel_init: Callable[..., Any] | None = None
    recurrent_init: Callable[..., Any] | None = None
    bias_init: Callable[..., Any] = initializers.zeros
    param_dtype: Any = jnp.float32
    dtype: Any = None
    unroll: int = 1

    is_loop = True
    gates = 0
    states = 0

    def spec(self, x: Any) -> Tree:
        draws = {
            ("input", "kernel"): self.kernel_init or initializers.xavier_uniform(),
            ("hidden", "kernel"): self.recurrent_init or initializers.orthogonal(),
        }
        return Tree({
            node: {name: Param(shape, self.param_dtype, draws.get((node, name), self.bias_init)) for name, shape in of.items()}
            for node, of in self._shapes(self._input(x).shape[-1]).items()
        })  # fmt: skip

    def _shapes(self, features: int) -> dict[str, dict[str, tuple[int, ...]]]:
        wide = self.gates * self.features
        return {
            node: {"kernel": (size, wide), "bias": (wide,)}
            for node, size in {"input": features, "hidden": self.features}.items()
        }

    def __call__(self, params: Any, x: Any, *, state: Any = None) -> Any:
        return self.run(params, x, state)[0]

    @partial(compiled, always=True)
    def run(self, params: Any, x: Any, state: Any = None) -> tuple[Any, Any]:
        """All outputs f32[batch, time, features], and the last state, to go on with.

        Raises:
            LayerError: an input, parameters or a state that do not fit.
        """
        features = need(need(params, "input", self), "kernel", self).shape[0]
        if self._input(x).shape[-1] != features:
            raise unfit(self, f"{features} features for the input's kernel", f"the input {describe(x)}")
        leaves = [
            need(need(params, node, self), name, self, shape)
            for node, of in self._shapes(features).items()
            for name, shape in of.items()
        ]
        x, kernel, bias, recurrent, hidden_bias = cast(self.dtype, x, *leaves)
        shape = (*x.shape[:-2], self.features)
        if state is None:
            state = (jnp.zeros(shape, x.dtype),) * self.states
        if [getattr(part, "shape", None) for part in state] != [shape] * self.states:
            raise unfit(self, f"a state of {self.states} arrays of the shape {shape}", ", ".join(map(describe, state)))
        state = [part.astype(x.dtype) for part in state]
        before = jnp.moveaxis(x @ kernel + bias, -2, 0)  # for all times at once

        def step(state: Any, gates: Any) -> tuple[Any, Any]:
            return self._step(state, gates, state[0] @ recurrent + hidden_bias)

        state, ys = jax.lax.scan(step, tuple(state), before, reverse=self.reverse, unroll=self.unroll)
        return jnp.moveaxis(ys, 0, -2), state

    def _step(self, state: Any, gates: Any, hidden: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def _input(self, x: Any) -> Any:
        if len(floating(self, x).shape) < 2:
            raise unfit(self, "an input of an axis of time and one of features", describe(x))
        return x

    def __post_init__(self) -> None:
        if self.features < 1:
            raise LayerError(f"{type(self).__name__}: expected a number of features of at least 1, got {self.features}")


@dataclass(frozen=True, repr=False)
class LSTM(_Recurrent):
    """Long short-term memory along time: f32[batch, time, in] -> f32[batch, time, features].

    >>> layer = LSTM(8)
    >>> x = jnp.ones((2, 5, 4))
    >>> params = layer.init(jax.random.key(0), x)
    >>> layer(params, x).shape
    (2, 5, 8)
    >>> ys, (h, c) = layer.run(params, x)                     # and the last state, for the next piece of a sequence
    >>> bool((ys[:, -1] == h).all())
    True

    `input/kernel` is (in, 4 features) and `hidden/kernel` (features, 4 features): the gates i, f, g, o, as in PyTorch
    (Hochreiter and Schmidhuber 1997). The state is (h, c), zeros where none is given.

    Raises:
        LayerError: an input with another number of features than the kernel, or without an axis of time.
    """

    gates = 4
    states = 2

    def _step(self, state: Any, gates: Any, hidden: Any) -> tuple[Any, Any]:
        i, f, g, o = jnp.split(gates + hidden, 4, -1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h


@dataclass(frozen=True, repr=False)
class GRU(_Recurrent):
    """Gated recurrent unit along time: f32[batch, time, in] -> f32[batch, time, features].

    >>> layer = GRU(8)
    >>> x = jnp.ones((2, 5, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (2, 5, 8)

    `input/kernel` is (in, 3 features) and `hidden/kernel` (features, 3 features): the gates r, z, n, as in PyTorch
    (Cho et al. 2014; the reset gate is applied to what the hidden kernel gives). The state is (h,).

    Raises:
        LayerError: an input with another number of features than the kernel, or without an axis of time.
    """

    gates = 3
    states = 1

    def _step(self, state: Any, gates: Any, hidden: Any) -> tuple[Any, Any]:
        (r, z, n), (hr, hz, hn) = jnp.split(gates, 3, -1), jnp.split(hidden, 3, -1)
        z = jax.nn.sigmoid(z + hz)
        n = jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn)
        h = (1 - z) * n + z * state[0]
        return (h,), h
