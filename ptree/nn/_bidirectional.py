"""Bidirectional, two recurrent layers over one sequence, forward and backward in time, whose outputs are combined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from .._errors import LayerError
from .._tree import PyTree, Tree, entries_of
from .._words import describe
from ._compiled import call
from ._container import Options, call_in_part, declared, located
from ._explicit_axes import split_along, splits_output, those_that_divide
from ._inputs import misfit, shapes_of
from ._layer import Layer, Params
from ._recurrent import Recurrent, State


@dataclass(frozen=True, eq=False, repr=False)
class Bidirectional(Layer):
    """Run two recurrent layers forward and backward in time: f32[batch, time, in] -> f32[batch, time, 2 features].

    >>> from ptree.nn import LSTM, Sequential
    >>> layer = Bidirectional(LSTM(8))
    >>> x = jnp.ones((2, 5, 4))
    >>> params = layer.init(jax.random.key(0), x)
    >>> list(params), layer(params, x).shape
    (['forward', 'backward'], (2, 5, 16))
    >>> padded = layer(params, x, lengths=jnp.array([5, 2]))  # the second sequence goes backward from its step 1
    >>> ys, (forward, backward) = layer.run(params, x)        # and the last state of each
    >>> deep = Sequential(Bidirectional(LSTM(8)), Bidirectional(LSTM(8)))   # passes `lengths=` to each

    The outputs are those of the forward layer, then those of the backward layer, as in PyTorch and Keras (Schuster and
    Paliwal 1997). `layer.run` gives the last states too, (forward, backward), and takes such a pair as `state`.

    Args:
        forward: an LSTM, GRU or RNN.
        backward: the layer for the other direction, with `reverse=True`; by default one like `forward`, with parameters of its
            own.
        combine: a function of both outputs, such as `jnp.add`; by default they are concatenated.

    Raises:
        LayerError: a layer that is not recurrent, or runs in the other direction; what the two layers raise, with their path.
    """

    forward: Recurrent
    backward: Recurrent | None = None
    _: KW_ONLY
    combine: Callable[[jax.Array, jax.Array], jax.Array] | None = None

    is_loop = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_direction("forward", self.forward, False)
        if self.backward is not None:
            _check_direction("backward", self.backward, True)
        if self.combine is not None and not callable(self.combine):
            raise LayerError(
                f"Bidirectional: expected a function of both outputs as combine, such as jnp.add, got {self.combine!r}"
            )

    @cached_property
    def _backward(self) -> Recurrent:
        return replace(self.forward, reverse=True) if self.backward is None else self.backward

    def parts(self) -> Iterator[tuple[str, Recurrent]]:
        yield "forward", self.forward
        yield "backward", self._backward

    def declare(self, x: PyTree) -> dict[str, Tree]:
        x = shapes_of(x)
        outputs: list[PyTree] = []
        specs: dict[str, Tree] = {}
        for name, layer in self.parts():
            specs[name], y = declared(name, layer, x)
            outputs.append(y)
        jax.eval_shape(self._combined, *outputs)  # raises if the outputs cannot be combined
        return specs

    def apply(
        self,
        params: Params,
        x: PyTree,
        *,
        state: Sequence[Sequence[jax.Array]] | None = None,
        lengths: ArrayLike | None = None,
    ) -> jax.Array:
        ys, _ = self._scanned(params, x, state=state, lengths=lengths)
        return ys

    def run(
        self,
        params: Params,
        x: PyTree,
        state: Sequence[Sequence[jax.Array]] | None = None,
        *,
        lengths: ArrayLike | None = None,
    ) -> tuple[jax.Array, tuple[State, State]]:
        """The combined outputs, and the last states of the forward and the backward layer.

        Args:
            params: the layer's parameters.
            x: f32[batch, time, in].
            state: the first states of both, as a pair; zeros where none is given.
            lengths: i32[batch], the number of valid steps of each sequence, as for `LSTM.run`.

        Raises:
            LayerError: an input, parameters, lengths or states that do not fit; lengths out of range where they are known.
        """
        options = {"state": state, "lengths": lengths}
        self._check_values((x,), options)
        return call(type(self)._scanned, self, (params, x), options, always=True)

    def _check_values(self, inputs: tuple[PyTree, ...], options: Options) -> None:
        # The lengths of both directions are the same.
        try:
            self.forward._check_values(inputs, options)
        except LayerError as error:
            raise located(error, "forward") from None

    def _scanned(
        self,
        params: Params,
        x: PyTree,
        *,
        state: Sequence[Sequence[jax.Array]] | None,
        lengths: ArrayLike | None,
    ) -> tuple[jax.Array, tuple[State, State]]:
        outputs: list[jax.Array] = []
        last: list[State] = []
        for (name, layer), first in zip(self.parts(), self._states(state), strict=True):
            options = {"state": first, "lengths": lengths}
            ys, end = call_in_part(layer.run, name, layer, params, x, options)
            outputs.append(ys)
            last.append(end)
        forward, backward = last
        return self._combined(*outputs), (forward, backward)

    def _states(self, state: Sequence[Sequence[jax.Array]] | None) -> Sequence[Sequence[jax.Array] | None]:
        """The first states of both layers; None for zeros."""
        if state is None:
            return None, None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            got = f"{len(state)} of them" if isinstance(state, (tuple, list)) else describe(state)
            raise misfit(self, "a pair of states, (forward, backward)", got)
        return state

    def _combined(self, forward: jax.Array, backward: jax.Array) -> jax.Array:
        if self.combine is not None:
            return self.combine(forward, backward)
        return self._concatenated(Tree(), (forward, backward))

    def _split(self, params: Params, x: PyTree) -> PartitionSpec:
        *batch, features = entries_of(x[0])
        return split_along(batch, those_that_divide([features], [sum(part.shape[-1] for part in x)]))

    @splits_output(_split)
    def _concatenated(self, params: Params, x: PyTree) -> jax.Array:
        return jnp.concatenate(x, -1)


def _check_direction(name: str, layer: PyTree, reverse: bool) -> None:
    expected = f"Bidirectional: expected a recurrent layer, such as LSTM(8), as {name}"
    if isinstance(layer, type):
        raise LayerError(f"{expected}, got the class {layer.__name__}; call it first")
    if not isinstance(layer, Recurrent):
        raise LayerError(f"{expected}, got {layer!r}")
    if layer.reverse != reverse:
        raise LayerError(f"Bidirectional: expected reverse={reverse} of the {name} layer, got {layer!r}")
