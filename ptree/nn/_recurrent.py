"""Recurrent layers, LSTM and GRU: a state and its gates, scanned along the time axis of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._tree import PyTree
from .._words import describe
from ._compiled import call
from ._inputs import cast, floats, misfit, parameter, parameters_in
from ._layer import Initializer, Layer, Params

State = tuple[jax.Array, ...]


@dataclass(frozen=True, eq=False, repr=False)
class _Recurrent(Layer):
    """Base of the recurrent layers LSTM and GRU: f32[batch, time, in] -> f32[batch, time, features]."""

    features: int
    _: KW_ONLY
    reverse: bool = False
    kernel_init: Initializer | None = None
    recurrent_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    unroll: int = 1

    is_loop = True
    # What a subclass sets: how many gates share a kernel, and how many arrays are its state.
    gates: ClassVar[int]
    states: ClassVar[int]

    def declare(self, x: PyTree) -> dict[str, dict[str, Param]]:
        features_in = self._checked(x).shape[-1]
        kernel_init = self.kernel_init or initializers.xavier_uniform()
        recurrent_init = self.recurrent_init or initializers.orthogonal()
        return {
            "input": self._declare_gates(features_in, kernel_init),
            "hidden": self._declare_gates(self.features, recurrent_init),
        }

    def _declare_gates(self, features_in: int, kernel_init: Initializer) -> dict[str, Param]:
        width = self.gates * self.features  # all gates in one kernel: one product rather than three or four
        kernel = Param((features_in, width), self.param_dtype, kernel_init)
        return {"kernel": kernel, "bias": Param((width,), self.param_dtype, self.bias_init)}

    def apply(self, params: Params, x: PyTree, *, state: Sequence[jax.Array] | None = None) -> jax.Array:
        ys, _ = self._scanned(params, x, state)
        return ys

    def run(self, params: Params, x: PyTree, state: Sequence[jax.Array] | None = None) -> tuple[jax.Array, State]:
        """All outputs f32[batch, time, features], and the last state, from which the next piece of a sequence goes on.

        Raises:
            LayerError: an input, parameters or a state that do not fit.
        """
        # As for the call of a layer, so that equal layers compile the loop once.
        return call(type(self)._scanned, self, (params, x), {"state": state}, always=True)

    def _scanned(self, params: Params, x: PyTree, state: Sequence[jax.Array] | None = None) -> tuple[jax.Array, State]:
        kernel, bias, recurrent, hidden_bias = self._leaves(params, x)
        x, kernel, bias, recurrent, hidden_bias = cast(self, self.dtype, x, kernel, bias, recurrent, hidden_bias)
        first = self._first_state(x, state)
        # One large product for all times is faster than a small one per step. `scan` loops over the first axis.
        from_input = jnp.moveaxis(x @ kernel + bias, -2, 0)

        def step(state: State, from_input: jax.Array) -> tuple[State, jax.Array]:
            hidden = state[0]  # the first array of a state is also the output
            return self._step(state, from_input, hidden @ recurrent + hidden_bias)

        last, ys = jax.lax.scan(step, first, from_input, reverse=self.reverse, unroll=self.unroll)
        return jnp.moveaxis(ys, 0, -2), last

    def _leaves(self, params: Params, x: PyTree) -> list[jax.Array]:
        """The recurrent layer's kernel and bias for the input, and those for the state, checked to fit."""
        of_input, of_hidden = parameters_in(params, "input", self), parameters_in(params, "hidden", self)
        features_in = parameter(of_input, "kernel", self).shape[0]
        # Before the shapes of all leaves: the usual mistake, another number of features in, names both numbers.
        if self._checked(x).shape[-1] != features_in:
            raise misfit(self, f"{features_in} features for the input's kernel", f"the input {describe(x)}")
        width = self.gates * self.features
        return [
            parameter(of_input, "kernel", self, (features_in, width)),
            parameter(of_input, "bias", self, (width,)),
            parameter(of_hidden, "kernel", self, (self.features, width)),
            parameter(of_hidden, "bias", self, (width,)),
        ]

    def _first_state(self, x: jax.Array, state: Sequence[jax.Array] | None) -> State:
        """The first state of the sequence, zeros by default, checked to fit the input."""
        shape = (*x.shape[:-2], self.features)
        if state is None:
            return (jnp.zeros(shape, x.dtype),) * self.states
        shapes = [getattr(part, "shape", None) for part in state]
        if shapes != [shape] * self.states:
            got = ", ".join(map(describe, state))
            raise misfit(self, f"a state of {self.states} arrays of the shape {shape}", got)
        return tuple(part.astype(x.dtype) for part in state)  # `scan` refuses a state whose dtype changes

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> tuple[State, jax.Array]:
        raise NotImplementedError

    def _checked(self, x: PyTree) -> jax.Array:
        if len(floats(self, x).shape) < 2:
            raise misfit(self, "an input of an axis of time and one of features", describe(x))
        return x


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(_Recurrent):
    """Long short-term memory, scanned along time: f32[batch, time, in] -> f32[batch, time, features].

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

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> tuple[State, jax.Array]:
        _, c = state
        i, f, g, o = jnp.split(from_input + from_hidden, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h


@dataclass(frozen=True, eq=False, repr=False)
class GRU(_Recurrent):
    """Gated recurrent unit, scanned along time: f32[batch, time, in] -> f32[batch, time, features].

    >>> layer = GRU(8)
    >>> x = jnp.ones((2, 5, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (2, 5, 8)

    `input/kernel` is (in, 3 features) and `hidden/kernel` (features, 3 features): the gates r, z, n, as in PyTorch
    (Cho et al. 2014; the reset gate is applied to the product with the hidden kernel). The state is (h,).

    Raises:
        LayerError: an input with another number of features than the kernel, or without an axis of time.
    """

    gates = 3
    states = 1

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> tuple[State, jax.Array]:
        (h,) = state
        r, z, n = jnp.split(from_input, 3, -1)
        hidden_r, hidden_z, hidden_n = jnp.split(from_hidden, 3, -1)
        z = jax.nn.sigmoid(z + hidden_z)
        # As PyTorch and cuDNN do; the paper applies the reset gate to h before the product.
        n = jnp.tanh(n + jax.nn.sigmoid(r + hidden_r) * hidden_n)
        h = (1 - z) * n + z * h
        return (h,), h
