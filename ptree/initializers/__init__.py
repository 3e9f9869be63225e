"""Initialisers: functions `(key, shape, dtype) -> array`, those of `jax.nn.initializers` under the field's names.

>>> import jax, ptree as pt
>>> from ptree import initializers as I
>>> spec = pt.Tree({"kernel": pt.Param((4, 8)), "bias": pt.Param((8,))})
>>> params = pt.init(spec, jax.random.key(0), {"kernel": I.xavier_uniform(), "bias": I.zeros})

Most used are `normal`, `xavier_uniform` and `zeros`. Guide: `examples/guides/initialisation.md`.

`zeros`, `ones` and the presets (`torch_linear`, `keras_dense`, ...) are initialisers as they stand; the others
are called with their options first, and presets may be. Each says by its `repr` what it will do, and two
with equal options are equal, so they share one compiled draw. A preset is a `Scheme`: one initialiser for the
kernel and one for the bias beside it. `Scheme` makes your own.

Kernels are `(in, out)` or `(spatial..., in, out)`. Three options say which axes count as fan, each an axis
or several: `in_axis`, by default -2, `out_axis`, by default -1, and `batch_axis`, by default none, for the
axis of an ensemble or of experts, which never counts. (The axis of a stack needs no option: each layer is
drawn for itself.) All other axes are spatial and count for both fans:

    fan_in  = product of in_axis  * product of the spatial axes
    fan_out = product of out_axis * product of the spatial axes / groups

Weights of PyTorch and Equinox are `(out, in)`, and need `lecun_normal(in_axis=-1, out_axis=-2)`, their convolutions
`(out, in, spatial...)` `torch_conv(in_axis=1, out_axis=0)`: without these the spread is that of the other axis. `init` and `reinit`
warn of it where the tree holds layers of Equinox.

An attention kernel `(d, heads, k)` has `in_axis=0, out_axis=(1, 2)`, a kernel of 8 experts `(8, in, out)` `batch_axis=0`,
and a depthwise convolution `(3, 3, 1, 64)` `groups=64`: 9 and 9.

Leaves of 16 bits and fewer are drawn in float32 and rounded. JAX's own initialisers draw in the dtype of the leaf: in
bfloat16 `jax.nn.initializers.normal(1.0)` has 128 distinct values, a mean of -0.011 and nothing beyond 2.9 (ptree: 4,136
values, -0.0001 and 5.2 in 4 M draws), so that a `Dense` of 4,096 positive inputs starts at -1.1 standard deviations. Bounds hold after
rounding: `uniform(low, high)` never gives `high`, and a cut Gaussian no number beyond its cut.
"""

from ._distributions import mixture as mixture
from ._distributions import normal as normal
from ._distributions import rescaled_truncated_normal as rescaled_truncated_normal
from ._distributions import sparse as sparse
from ._distributions import truncated_normal as truncated_normal
from ._distributions import uniform as uniform
from ._fans import gain as gain
from ._fans import glorot_normal as glorot_normal
from ._fans import glorot_uniform as glorot_uniform
from ._fans import he_normal as he_normal
from ._fans import he_uniform as he_uniform
from ._fans import kaiming_normal as kaiming_normal
from ._fans import kaiming_uniform as kaiming_uniform
from ._fans import lecun_normal as lecun_normal
from ._fans import lecun_uniform as lecun_uniform
from ._fans import orthogonal as orthogonal
from ._fans import variance_scaling as variance_scaling
from ._fans import xavier_normal as xavier_normal
from ._fans import xavier_uniform as xavier_uniform
from ._options import called_first as called_first
from ._options import is_factory as is_factory
from ._other_axes import draw_alike as draw_alike
from ._other_axes import with_axes as with_axes
from ._presets import flax_conv as flax_conv
from ._presets import flax_dense as flax_dense
from ._presets import gpt2_residual as gpt2_residual
from ._presets import keras_conv as keras_conv
from ._presets import keras_dense as keras_dense
from ._presets import keras_embedding as keras_embedding
from ._presets import mup as mup
from ._presets import mxnet_default as mxnet_default
from ._presets import torch_conv as torch_conv
from ._presets import torch_embedding as torch_embedding
from ._presets import torch_linear as torch_linear
from ._recipe import Draw as Draw
from ._recipe import Initializer as Initializer
from ._recipe import Recipe as Recipe
from ._recipe import draw_of as draw_of
from ._scheme import Scheme as Scheme
from ._scheme import Site as Site
from ._values import constant as constant
from ._values import dirac as dirac
from ._values import identity as identity
from ._values import ones as ones
from ._values import zeros as zeros

__all__ = [
    "normal", "truncated_normal", "rescaled_truncated_normal", "uniform", "mixture", "sparse", "variance_scaling",
    "xavier_uniform", "xavier_normal", "glorot_uniform", "glorot_normal", "kaiming_uniform", "kaiming_normal",
    "he_uniform", "he_normal", "lecun_uniform", "lecun_normal", "gain", "orthogonal", "zeros", "ones", "constant",
    "identity", "dirac", "torch_linear", "torch_conv", "torch_embedding", "keras_dense", "keras_conv", "keras_embedding",
    "flax_dense", "flax_conv", "mxnet_default", "gpt2_residual", "mup", "Scheme", "Site",
]  # fmt: skip


def __getattr__(name: str) -> None:
    if name == "trunc_normal":
        raise AttributeError(
            "ptree.initializers has no trunc_normal. truncated_normal(stddev) has the standard deviation before the cut, as JAX's,"
            " Keras' and PyTorch's trunc_normal_ do; rescaled_truncated_normal(stddev) has it after the cut"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
