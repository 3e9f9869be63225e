"""Dense, the fully connected (linear) layer: a matrix product with a kernel, plus a bias."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from .. import initializers
from .._draw import Param
from .._tree import PyTree, entries_of
from .._words import describe
from ._explicit_axes import entries_at, split_along, splits_output
from ._inputs import cast, floats_or_complex, misfit, parameter
from ._layer import Initializer, Layer, Params
from ._products import product

# Made once: specs of equal layers then hold the same function.
_LECUN = initializers.lecun_normal()


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Layer):
    """`x @ kernel + bias` over the last axis: f32[..., in] -> f32[..., features].

    >>> layer = Dense(8)
    >>> layer.init(jax.random.key(0), jnp.ones((2, 4)))
    Tree(
      kernel  f32[4,8]
      bias    f32[8]
    )
    >>> heads = Dense((4, 16))                                # several axes out, as for the heads of attention
    >>> heads.init(jax.random.key(0), jnp.ones((2, 64)))["kernel"].shape
    (64, 4, 16)
    >>> Dense(64, axis=(-2, -1)).init(jax.random.key(0), jnp.ones((2, 4, 16)))["kernel"].shape
    (4, 16, 64)

    The kernel is (in..., features...), drawn by LeCun's normal; the bias starts at 0.

    Args:
        features: the size of the output's last axis, or of several axes.
        use_bias: whether there is a bias.
        kernel_init: initialiser of the kernel; by default LeCun's normal.
        bias_init: initialiser of the bias.
        param_dtype: the dtype of the parameters.
        dtype: the dtype it computes in; by default the one that JAX promotes input and parameters to.
        axis: the axes of the input that are summed over, which must be the last ones.

    Raises:
        LayerError: an input of another shape than the kernel, or of whole numbers.
    """

    features: int | tuple[int, ...]
    _: KW_ONLY
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer = initializers.zeros
    param_dtype: DTypeLike = jnp.float32
    dtype: DTypeLike | None = None
    axis: int | tuple[int, ...] = -1

    def declare(self, x: PyTree) -> dict[str, Param]:
        shape = self._kernel_shape(x)
        leaves = {"kernel": Param(shape, self.param_dtype, self.kernel_init or self._default_init(len(shape)))}
        if self.use_bias:
            leaves["bias"] = Param(self._output_axes, self.param_dtype, self.bias_init)
        return leaves

    def _split(self, params: Params, x: PyTree) -> PartitionSpec:
        inputs = len(self._summed_axes)
        return split_along(entries_of(x)[:-inputs], entries_at(params, "kernel")[inputs:])

    @splits_output(_split)
    def apply(self, params: Params, x: PyTree) -> jax.Array:
        kernel = self._kernel(params, x)
        if self.use_bias:
            bias = parameter(params, "bias", self, self._output_axes)
            x, kernel, bias = cast(self, self.dtype, x, kernel, bias)
        else:
            x, kernel = cast(self, self.dtype, x, kernel)
            bias = None
        inputs = len(self._summed_axes)
        batch = x.shape[: x.ndim - inputs]

        def multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
            # A product of two matrices: XLA compiles it faster, and with fewer copies, than one over several axes.
            features_in = math.prod(kernel.shape[:inputs])
            return x.reshape(*batch, features_in) @ kernel.reshape(features_in, math.prod(kernel.shape[inputs:]))

        y = product(self, x, kernel, multiply, inputs=inputs)
        if bias is not None:
            y = y + bias.reshape(-1)
        return y.reshape(*batch, *self._output_axes)

    def _kernel(self, params: Params, x: PyTree) -> jax.Array:
        """The kernel of the Dense layer, checked to fit the input."""
        kernel = parameter(params, "kernel", self)
        axes_in = kernel.ndim - len(self._output_axes)
        # The usual mistake, another number of features in, gets a message that names both numbers.
        if axes_in == 1 and floats_or_complex(self, x).shape[-1] != kernel.shape[0]:
            expected = f"{kernel.shape[0]} features for the kernel {describe(kernel)}"
            raise misfit(self, expected, f"the input {describe(x)}")
        return parameter(params, "kernel", self, self._kernel_shape(x))

    def _kernel_shape(self, x: PyTree) -> tuple[int, ...]:
        count = len(self._summed_axes)
        if len(floats_or_complex(self, x).shape) < count:
            raise misfit(self, f"an input of at least {count} axes", describe(x))
        return (*x.shape[len(x.shape) - count :], *self._output_axes)

    def _default_init(self, rank: int) -> Initializer:
        if rank == 2:
            return _LECUN
        # By default in and out are the last two axes and all others a window, which gives another fan-in.
        count = len(self._summed_axes)
        return initializers.lecun_normal(in_axis=tuple(range(count)), out_axis=tuple(range(count, rank)))

    @property
    def _output_axes(self) -> tuple[int, ...]:
        return self.features if isinstance(self.features, tuple) else (self.features,)

    @property
    def _summed_axes(self) -> tuple[int, ...]:
        return self.axis if isinstance(self.axis, tuple) else (self.axis,)
