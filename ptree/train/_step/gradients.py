"""The loss of a batch and its gradients, of the whole batch or summed over microbatches in a scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import PyTree
from .._wide_floats import at_least_float32
from .loss_function import LossFunction
from .microbatches import Microbatches, Weight, microbatches, shares, weight_of
from .trained_part import TrainedPart


class Gradients(NamedTuple):
    """The mean loss of a batch, what comes with it, and the gradients of the trained leaves."""

    loss: jax.Array
    aux: PyTree
    grads: PyTree
    weight: jax.Array | None


@dataclass(frozen=True)
class BatchGradients:
    """How the loss of a batch and its gradients are computed."""

    loss: LossFunction
    accumulate: int
    weight: Weight | None

    def __call__(
        self,
        part: TrainedPart,
        trained: PyTree,
        rest: PyTree,
        batch: PyTree,
        key: jax.Array | None,
        scale: jax.Array | None,
    ) -> Gradients:
        """Gradients in the dtypes of the leaves; with a scale in float32 or wider, and divided by the scale again."""
        joined = _Joined(self.loss, part, rest)
        if self.accumulate == 1:
            found = self._of_whole(joined, trained, batch, key, scale)
        else:
            found = self._of_parts(joined, trained, batch, key, scale)
        if scale is None:
            grads = jax.tree.map(lambda grad, leaf: grad.astype(leaf.dtype), found.grads, trained)
        else:
            grads = jax.tree.map(lambda grad: grad.astype(at_least_float32(grad.dtype)) / scale, found.grads)
        return found._replace(grads=grads)

    def value(
        self, part: TrainedPart, trained: PyTree, rest: PyTree, batch: PyTree, key: jax.Array | None
    ) -> jax.Array:
        """The mean loss alone, for optimisers that search along a line."""
        joined = _Joined(self.loss, part, rest)
        if self.accumulate == 1:
            value, _ = joined(trained, batch, key, None)
            if self.weight is None:
                return value
            weight = weight_of(self.weight, batch, at_least_float32(value.dtype))
            return jnp.where(weight > 0, value, 0)
        parts = microbatches(batch, self.accumulate)
        dtype = _dtype_of_sums(joined, trained, parts, key)
        share = shares(parts, self.accumulate, self.weight, dtype).shares

        def add(total: jax.Array, turn: tuple) -> tuple[jax.Array, None]:
            at, fraction, rows = turn
            value = joined(trained, parts.assembled(rows), _folded(key, at), None)[1][0]
            return total + jnp.where(fraction > 0, value * fraction, 0), None

        turns = (jnp.arange(self.accumulate), share, parts.rows)
        return jax.lax.scan(add, jnp.zeros((), dtype), turns)[0]

    def _of_whole(
        self, joined: _Joined, trained: PyTree, batch: PyTree, key: jax.Array | None, scale: jax.Array | None
    ) -> Gradients:
        (_, (value, aux)), grads = jax.value_and_grad(joined, has_aux=True)(trained, batch, key, scale)
        loss = value.astype(at_least_float32(value.dtype))
        if self.weight is None:
            return Gradients(loss, aux, grads, None)
        weight = weight_of(self.weight, batch, loss.dtype)
        counts = weight > 0
        return Gradients(jnp.where(counts, loss, 0), aux, _if_it_counts(counts, grads), weight)

    def _of_parts(
        self, joined: _Joined, trained: PyTree, batch: PyTree, key: jax.Array | None, scale: jax.Array | None
    ) -> Gradients:
        """A scan over the microbatches, with sums in float32 or wider: in bfloat16 small terms would be lost."""
        parts = microbatches(batch, self.accumulate)
        dtype = _dtype_of_sums(joined, trained, parts, key)
        share, total = shares(parts, self.accumulate, self.weight, dtype)

        def add(sums: PyTree, turn: tuple) -> tuple[PyTree, tuple]:
            at, fraction, rows = turn
            factor = fraction if scale is None else fraction * scale
            (_, (value, aux)), grads = jax.value_and_grad(joined, has_aux=True)(
                trained, parts.assembled(rows), _folded(key, at), factor
            )
            if self.weight is not None:
                grads = _if_it_counts(fraction > 0, grads)
            sums = jax.tree.map(lambda sum_, grad: sum_ + grad.astype(sum_.dtype), sums, grads)
            return sums, (value.astype(at_least_float32(value.dtype)), aux)

        zeros = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, at_least_float32(leaf.dtype)), trained)
        grads, (values, aux) = jax.lax.scan(add, zeros, (jnp.arange(self.accumulate), share, parts.rows))
        loss = jnp.where(share > 0, values * share, 0).sum()
        return Gradients(loss, aux, grads, total)


@dataclass(frozen=True)
class _Joined:
    """The loss as a function of the trained leaves, multiplied by a factor; the loss itself comes with it."""

    loss: LossFunction
    part: TrainedPart
    rest: PyTree

    def __call__(
        self, trained: PyTree, batch: PyTree, key: jax.Array | None, factor: jax.Array | None
    ) -> tuple[jax.Array, tuple[jax.Array, PyTree]]:
        value, aux = self.loss(self.part.joined(trained, self.rest), batch, key)
        if factor is None:
            return value, (value, aux)
        # in float32, since a loss in float16 is at most 65504
        return value.astype(at_least_float32(value.dtype)) * factor, (value, aux)


def _dtype_of_sums(joined: _Joined, trained: PyTree, parts: Microbatches, key: jax.Array | None) -> np.dtype:
    """The dtype in which the losses of microbatches are added: that of the loss, at least float32."""
    has_float64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    if not has_float64:  # then the loss need not be traced once more
        return np.dtype(np.float32)

    def loss_of_first(trained: PyTree, rows: dict[int, jax.Array]) -> jax.Array:
        first = parts.assembled({at: of_leaf[0] for at, of_leaf in rows.items()})
        return joined(trained, first, key, None)[0]

    return at_least_float32(jax.eval_shape(loss_of_first, trained, parts.rows).dtype)


def _if_it_counts(counts: jax.Array, grads: PyTree) -> PyTree:
    """Zeros where nothing in a batch counts: the mean of nothing is NaN, and so are its gradients."""
    return jax.tree.map(lambda grad: jnp.where(counts, grad, 0), grads)


def _folded(key: jax.Array | None, at: jax.Array) -> jax.Array | None:
    return None if key is None else jax.random.fold_in(key, at)
