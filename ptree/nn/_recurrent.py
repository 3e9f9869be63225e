"""Recurrent layers, LSTM (with a forget bias), GRU and the plain RNN: a state and its gates, scanned along time, also of a
padded batch with lengths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from operator import matmul
from typing import ClassVar, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from .. import initializers
from .._draw import Param
from .._tree import PyTree, entries_of
from .._words import describe, lines, name_of
from ._compiled import call
from ._explicit_axes import entries_at, split_along, splits_output, those_that_divide
from ._inputs import cast, floats, misfit, parameter, parameters_in
from ._layer import Initializer, Layer, Params
from ._products import product

State: TypeAlias = tuple[jax.Array, ...]
"""What a recurrent layer keeps from step to step; the first array is also the output."""


@dataclass(frozen=True, eq=False, repr=False)
class Recurrent(Layer):
    """Base of the recurrent layers LSTM, GRU and RNN: f32[batch, time, in] -> f32[batch, time, features]."""

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
            "input": self._declare_gates(features_in, kernel_init, self._input_bias_init()),
            "hidden": self._declare_gates(self.features, recurrent_init, self.bias_init),
        }

    def _declare_gates(self, features_in: int, kernel_init: Initializer, bias_init: Initializer) -> dict[str, Param]:
        width = self.gates * self.features  # all gates in one kernel: one product rather than three or four
        kernel = Param((features_in, width), self.param_dtype, kernel_init)
        return {"kernel": kernel, "bias": Param((width,), self.param_dtype, bias_init)}

    def _input_bias_init(self) -> Initializer:
        return self.bias_init

    def _split_with_state(self, params: Params, x: PyTree, **options: PyTree) -> tuple[PartitionSpec, PyTree]:
        features = those_that_divide(entries_at(params, "hidden", "kernel")[-1:], (self.features,))
        entries = entries_of(x)
        return split_along(entries[:-1], features), (split_along(entries[:-2], features),) * self.states

    def apply(
        self, params: Params, x: PyTree, *, state: Sequence[jax.Array] | None = None, lengths: ArrayLike | None = None
    ) -> jax.Array:
        ys, _ = self._scanned(params, x, state=state, lengths=lengths)
        return ys

    def run(
        self,
        params: Params,
        x: PyTree,
        state: Sequence[jax.Array] | None = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> tuple[jax.Array, State]:
        """All outputs f32[batch, time, features], and the last state, from which the next piece of a sequence goes on.

        Args:
            params: the layer's parameters.
            x: f32[batch, time, in].
            state: the first state; zeros where none is given.
            lengths: i32[batch], the number of valid steps of each sequence. Outputs after them are 0; the last state is
                that after the last valid step, and with `reverse` the first step is the last valid one. Padding does not
                count, not even NaN. A length that is not from 0 to the time of `x` is an error where its value is known;
                inside of `jax.jit`, or in a block that `Repeat` repeats, it gives NaN for that sequence.

        Raises:
            LayerError: an input, parameters, lengths or a state that do not fit.
        """
        # As for the call of a layer, so that equal layers compile the loop once.
        options = {"state": state, "lengths": lengths}
        self._check_values((x,), options)
        return call(type(self)._scanned, self, (params, x), options, always=True)

    def _check_values(self, inputs: tuple[PyTree, ...], options: Mapping[str, PyTree]) -> None:
        lengths = options.get("lengths")
        if lengths is None:
            return
        x = self._checked(inputs[0])
        counts = self._checked_lengths(x, lengths)
        if isinstance(counts, Tracer):
            return
        time = x.shape[-2]
        values = np.asarray(counts)
        impossible = np.argwhere((values < 0) | (values > time))
        if not len(impossible):
            return
        rows = [_row_of(values, tuple(map(int, row))) for row in impossible]
        raise misfit(self, f"lengths from 0 to {time}, the time of the input {describe(x)}", lines(rows, ", "))

    @splits_output(_split_with_state)
    def _scanned(
        self, params: Params, x: PyTree, *, state: Sequence[jax.Array] | None, lengths: ArrayLike | None
    ) -> tuple[jax.Array, State]:
        kernel, bias, recurrent, hidden_bias = self._leaves(params, x)
        x, kernel, bias, recurrent, hidden_bias = cast(self, self.dtype, x, kernel, bias, recurrent, hidden_bias)
        first = self._first_state(x, state)
        if lengths is None:
            return self._scan(x, first, None, kernel, bias, recurrent, hidden_bias)
        counts = self._checked_lengths(x, lengths)
        time = x.shape[-2]
        valid = jnp.arange(time, dtype=counts.dtype) < counts[..., None]
        # Before the product: NaN in the padding would reach the kernel's gradient, as 0 * NaN is NaN.
        x = jnp.where(valid[..., None], x, 0)
        ys, last = self._scan(x, first, valid, kernel, bias, recurrent, hidden_bias)
        ys = jnp.where(valid[..., None], ys, 0)
        # `_check_values` has raised where lengths are known; while JAX is tracing nothing can.
        possible = (counts >= 0) & (counts <= time)
        return _nan_unless(possible[..., None], ys), tuple(_nan_unless(possible, part) for part in last)

    def _scan(
        self,
        x: jax.Array,
        first: State,
        valid: jax.Array | None,
        kernel: jax.Array,
        bias: jax.Array,
        recurrent: jax.Array,
        hidden_bias: jax.Array,
    ) -> tuple[jax.Array, State]:
        """Scan along time; a step that is not valid, as it is padding, keeps the state."""
        # One large product for all times is faster than a small one per step. `scan` loops over the first axis.
        from_input = jnp.moveaxis(product(self, x, kernel, matmul) + bias, -2, 0)
        valid = None if valid is None else jnp.moveaxis(valid, -1, 0)

        def step(state: State, at: tuple[jax.Array, jax.Array | None]) -> tuple[State, jax.Array]:
            from_input, valid = at
            from_hidden = product(self, state[0], recurrent, matmul) + hidden_bias
            new = self._step(state, from_input, from_hidden)
            if valid is not None:
                new = tuple(jnp.where(valid[..., None], part, old) for part, old in zip(new, state, strict=True))
            return new, new[0]

        last, ys = jax.lax.scan(step, first, (from_input, valid), reverse=self.reverse, unroll=self.unroll)
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
        expected = f"a state of {self.states} arrays of the shape {shape}"
        if not isinstance(state, (tuple, list)):  # an array by itself would be taken for one state per sequence
            raise misfit(self, f"{expected} in a tuple", describe(state))
        shapes = [getattr(part, "shape", None) for part in state]
        if shapes != [shape] * self.states:
            raise misfit(self, expected, ", ".join(map(describe, state)) or "none")
        return tuple(part.astype(x.dtype) for part in state)  # `scan` refuses a state whose dtype changes

    def _checked_lengths(self, x: jax.Array, lengths: ArrayLike) -> jax.Array:
        """The lengths as an array, checked to be a whole number for each sequence of the batch."""
        expected = f"lengths i32[{','.join(map(str, x.shape[:-2]))}], the valid steps of each sequence"
        try:
            counts = jnp.asarray(lengths)
        except (TypeError, ValueError):
            raise misfit(self, expected, describe(lengths)) from None
        if counts.shape != x.shape[:-2] or not jnp.issubdtype(counts.dtype, jnp.integer):
            raise misfit(self, expected, describe(counts))
        # A sequence may have more steps than the largest int8.
        return counts if counts.dtype.itemsize >= 4 else counts.astype(jnp.int32)

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> State:
        """The state after one step, from the products with both kernels."""
        raise NotImplementedError(f"{type(self).__name__} has no `_step`")

    def _checked(self, x: PyTree) -> jax.Array:
        if len(floats(self, x).shape) < 2:
            raise misfit(self, "an input of an axis of time and one of features", describe(x))
        return x


def _row_of(lengths: np.ndarray, row: tuple[int, ...]) -> str:
    """The length of one sequence for a message, with its place in the batch."""
    place = ", ".join(map(str, row))
    return f"{lengths[row]} in row {place}" if place else f"{lengths[row]}"


def _nan_unless(possible: jax.Array, values: jax.Array) -> jax.Array:
    """The values of possible sequences, and NaN for the others; both have the axes of the batch in front."""
    return jnp.where(possible[..., None], values, jnp.nan)


@dataclass(frozen=True, eq=False, repr=False)
class LSTM(Recurrent):
    """Long short-term memory, scanned along time: f32[batch, time, in] -> f32[batch, time, features].

    >>> layer = LSTM(8, forget_bias=1.0)
    >>> x = jnp.ones((2, 5, 4))
    >>> params = layer.init(jax.random.key(0), x)
    >>> layer(params, x).shape
    (2, 5, 8)
    >>> ys, (h, c) = layer.run(params, x)                     # and the last state, for the next piece of a sequence
    >>> bool((ys[:, -1] == h).all())
    True
    >>> padded = layer(params, x, lengths=jnp.array([5, 2]))  # the second sequence has 2 steps; after them it is 0
    >>> padded[1].any(-1).tolist()
    [True, True, False, False, False]

    `input/kernel` is (in, 4 features) and `hidden/kernel` (features, 4 features): the gates i, f, g, o, as in PyTorch
    (Hochreiter and Schmidhuber 1997). The state is (h, c), zeros where none is given.

    Args:
        features: the size of the state.
        reverse: scan from the last step to the first; outputs stay in the order of the input.
        kernel_init: initialiser of the input's kernel; by default Xavier's uniform.
        recurrent_init: initialiser of the state's kernel; by default orthogonal.
        bias_init: initialiser of both biases.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.
        unroll: how many steps are compiled in a row.
        forget_bias: where the bias of the forget gate starts, in `input/bias`: 1.0, as Keras has it, keeps gradients over
            more steps (Jozefowicz et al. 2015). The other gates start from `bias_init`. A rule of `init` for `input/bias`
            draws all gates instead.

    Raises:
        LayerError: an input with another number of features than the kernel, or without an axis of time; lengths or a
            state of another shape; a length that is known to be out of range.
    """

    _: KW_ONLY
    forget_bias: float = 0.0

    gates = 4
    states = 2

    def _input_bias_init(self) -> Initializer:
        return _ForgetBias(self.bias_init, self.forget_bias) if self.forget_bias else self.bias_init

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> State:
        _, c = state
        i, f, g, o = jnp.split(from_input + from_hidden, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c


@dataclass(frozen=True, repr=False)
class _ForgetBias:
    """Initialiser of an LSTM's bias: the forget gate, the second of four, starts at a number, the others as given."""

    others: Initializer
    value: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
        features = shape[-1] // 4
        return self.others(key, shape, dtype).at[..., features : 2 * features].set(self.value)

    def __repr__(self) -> str:
        return f"{name_of(self.others)}, forget gate {self.value}"


@dataclass(frozen=True, eq=False, repr=False)
class GRU(Recurrent):
    """Gated recurrent unit, scanned along time: f32[batch, time, in] -> f32[batch, time, features].

    >>> layer = GRU(8)
    >>> x = jnp.ones((2, 5, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (2, 5, 8)

    `input/kernel` is (in, 3 features) and `hidden/kernel` (features, 3 features): the gates r, z, n, as in PyTorch
    (Cho et al. 2014; the reset gate is applied to the product with the hidden kernel). The state is (h,). `lengths` and the
    other options are as for `LSTM`.

    Args:
        features: the size of the state.
        reverse: scan from the last step to the first; outputs stay in the order of the input.
        kernel_init: initialiser of the input's kernel; by default Xavier's uniform.
        recurrent_init: initialiser of the state's kernel; by default orthogonal.
        bias_init: initialiser of both biases.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.
        unroll: how many steps are compiled in a row.

    Raises:
        LayerError: an input with another number of features than the kernel, or without an axis of time; lengths or a
            state of another shape; a length that is known to be out of range.
    """

    gates = 3
    states = 1

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> State:
        (h,) = state
        r, z, n = jnp.split(from_input, 3, -1)
        hidden_r, hidden_z, hidden_n = jnp.split(from_hidden, 3, -1)
        z = jax.nn.sigmoid(z + hidden_z)
        # As PyTorch and cuDNN do; the paper applies the reset gate to h before the product.
        n = jnp.tanh(n + jax.nn.sigmoid(r + hidden_r) * hidden_n)
        return ((1 - z) * n + z * h,)


@dataclass(frozen=True, eq=False, repr=False)
class RNN(Recurrent):
    """Plain (Elman) recurrent layer without gates, scanned along time: f32[batch, time, in] -> f32[batch, time, features].

    >>> layer = RNN(8)
    >>> x = jnp.ones((2, 5, 4))
    >>> layer(layer.init(jax.random.key(0), x), x).shape
    (2, 5, 8)

    Each step is `h = activation(x @ kernel + bias + h @ hidden_kernel + hidden_bias)`, as in PyTorch's RNN and Keras'
    SimpleRNN (Elman 1990). The state is (h,). `lengths` and the other options are as for `LSTM`.

    Args:
        features: the size of the state.
        reverse: scan from the last step to the first; outputs stay in the order of the input.
        kernel_init: initialiser of the input's kernel; by default Xavier's uniform.
        recurrent_init: initialiser of the state's kernel; by default orthogonal.
        bias_init: initialiser of both biases.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.
        unroll: how many steps are compiled in a row.
        activation: a function of each step's sum.

    Raises:
        LayerError: an input with another number of features than the kernel, or without an axis of time; lengths or a
            state of another shape; a length that is known to be out of range.
    """

    _: KW_ONLY
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh

    gates = 1
    states = 1

    def _step(self, state: State, from_input: jax.Array, from_hidden: jax.Array) -> State:
        total = from_input + from_hidden
        h = self.activation(total)
        # `scan` would raise for a state that changes, without naming the layer.
        if h.shape != total.shape:
            raise misfit(self, f"an activation that keeps the shape {total.shape}", describe(h))
        return (h.astype(total.dtype),)
