"""Dropout: in training, set a random share of the elements to 0 and scale up the rest."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from .._tree import PyTree
from ._explicit_axes import like_input, splits_output
from ._inputs import floats_or_complex, misfit
from ._layer import Layer, Params


@dataclass(frozen=True, eq=False, repr=False)
class Dropout(Layer):
    """With a key, sets a share `rate` of the elements to 0 and scales the others by 1 / (1 - rate).

    >>> drop = Dropout(0.5)
    >>> x = jnp.ones(4)
    >>> drop({}, x) is x
    True
    >>> drop({}, x, key=jax.random.key(1)).tolist()
    [2.0, 0.0, 2.0, 2.0]

    Without a key, outside of training, the output is the input. In a container the key of each Dropout is derived
    from its path: the same step key gives the same mask in every model in which it has that path, scanned or not
    (Srivastava et al. 2014).

    Args:
        rate: the share of elements that are set to 0, at least 0 and below 1.

    Raises:
        LayerError: a rate that is not at least 0 and below 1, an input of whole numbers, or training without a key.
    """

    rate: float

    @splits_output(like_input)
    def apply(self, params: Params, x: PyTree, *, key: jax.Array | None = None, train: bool = False) -> PyTree:
        if self.rate == 0:
            return x
        # Otherwise a forgotten key would silently mean training without dropout.
        if key is None and train:
            raise misfit(self, "a key in training, key=jax.random.fold_in(key, step)", "train=True and no key")
        floats_or_complex(self, x)  # also without a key, so that evaluation refuses what training would
        if key is None:
            return x
        x = jnp.asarray(x)
        keep = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        return jnp.where(keep, x / (1 - self.rate), 0).astype(x.dtype)
