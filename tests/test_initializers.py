"""Each initialiser against its formula, and its text."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree import initializers as I

SHAPE = (400, 600)  # fan_in 400, fan_out 600; 240,000 draws: a spread is known to 0.3 %


def draw(init, shape=SHAPE, dtype=jnp.float32):
    return np.asarray(pt.init({"w": pt.Param(shape, dtype, init)}, jax.random.key(1))["w"], np.float64)


@pytest.mark.parametrize(
    ("init", "mean", "spread", "low", "high"),
    [
        (I.normal(0.01), 0, 0.01, None, None),
        (I.normal(0.5, mean=3), 3, 0.5, None, None),
        (I.truncated_normal(0.1), 0, 0.1 * 0.879626, -0.2, 0.2),
        (I.uniform(-0.1, 0.3), 0.1, 0.4 / math.sqrt(12), -0.1, 0.3),
        (I.xavier_uniform(), 0, math.sqrt(2 / 1000), -math.sqrt(6 / 1000), math.sqrt(6 / 1000)),
        (I.xavier_normal(), 0, math.sqrt(2 / 1000), None, None),
        (I.kaiming_uniform(), 0, math.sqrt(2 / 400), -math.sqrt(6 / 400), math.sqrt(6 / 400)),
        (I.kaiming_normal(), 0, math.sqrt(2 / 400), None, None),
        (I.lecun_uniform(), 0, math.sqrt(1 / 400), -math.sqrt(3 / 400), math.sqrt(3 / 400)),
        (I.lecun_normal(), 0, math.sqrt(1 / 400), None, None),
        (I.zeros, 0, 0, 0, 0),
        (I.ones, 1, 0, 1, 1),
        (I.constant(42), 42, 0, 42, 42),
    ],
    ids=repr,
)
def test_mean_spread_and_range_are_those_of_the_formula(init, mean, spread, low, high):
    w = draw(init)
    assert w.std() == pytest.approx(spread, rel=0.01, abs=1e-12)
    assert w.mean() == pytest.approx(mean, abs=5 * spread / math.sqrt(w.size) + 1e-7)
    if low is not None:
        assert low - 1e-6 <= w.min()
        assert w.max() <= high + 1e-6
        assert w.max() - w.min() >= 0.999 * (high - low)


def test_convolution_kernels_count_their_spatial_axes():
    assert draw(I.kaiming_normal(), (3, 3, 64, 128)).std() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.01)
    assert draw(I.xavier_uniform(), (5, 32, 64)).std() == pytest.approx(math.sqrt(2 / (5 * 96)), rel=0.02)


def test_orthogonal_and_identity():
    w = draw(I.orthogonal(2.0), (30, 20))
    np.testing.assert_allclose(w.T @ w, 4 * np.eye(20), atol=1e-5)
    np.testing.assert_array_equal(draw(I.identity(), (3, 4)), np.eye(3, 4))
    with pytest.raises(
        pt.InitError, match=r"cannot draw 'w', f32\[3\], with identity\(\): identity needs 2 axes, \(in, out\)"
    ):
        draw(I.identity(), (3,))


@pytest.mark.parametrize(
    ("init", "shape", "spread"),
    [
        (I.lecun_normal(in_axis=0, out_axis=(1, 2)), (256, 8, 64), 1 / 16),  # attention: (d, heads, k)
        (I.lecun_normal(in_axis=(0, 1), out_axis=2), (8, 64, 256), 1 / math.sqrt(512)),  # its output: (heads, k, d)
        (I.lecun_normal(batch_axis=0), (8, 400, 64), 1 / 20),  # experts, ensembles, stacks
        (I.xavier_uniform(batch_axis=(0, 1)), (2, 3, 100, 300), math.sqrt(2 / 400)),
        (I.kaiming_normal(mode="fan_out", groups=256), (3, 3, 1, 256), math.sqrt(2 / 9)),  # depthwise
        (I.xavier_normal(groups=4), (3, 16, 128), math.sqrt(2 / (3 * 16 + 3 * 32))),  # grouped
        (I.lecun_uniform(in_axis=-1, out_axis=-2), (300, 100), 1 / 10),  # (out, in), as PyTorch and Equinox
        (I.trunc_normal(0.1), SHAPE, 0.1),
        (I.trunc_normal(0.1, mean=1.0, lower=-1.0, upper=3.0), SHAPE, 0.1),
        (I.gpt2_residual(12), SHAPE, 0.02 / math.sqrt(24)),
        (I.mup(100), SHAPE, 0.01),
        (I.mup(100, role="output"), SHAPE, 0.005),
        (I.mup(100, role="input"), SHAPE, 0.02),
        (I.mixture((0.25, I.uniform(5, 10)), (0.5, I.zeros), (0.25, I.uniform(-10, -5))), SHAPE, math.sqrt(175 / 6)),
    ],
    ids=repr,
)  # fmt: skip
def test_fans_are_those_of_the_axes_that_were_named(init, shape, spread):
    w = draw(init, shape)
    assert w.std() == pytest.approx(spread, rel=0.02)
    assert w.mean() == pytest.approx(1.0 if "mean=1.0" in repr(init) else 0, abs=5 * spread / math.sqrt(w.size) + 1e-7)


def test_a_mixture_has_its_parts_in_their_shares():
    w = draw(I.mixture((0.25, I.uniform(5, 10)), (0.5, I.zeros), (0.25, I.uniform(-10, -5))))
    assert (w == 0).mean() == pytest.approx(0.5, abs=0.005)
    assert (w >= 5).mean() == pytest.approx(0.25, abs=0.005)
    assert np.abs(w[w != 0]).min() >= 5
    with pytest.raises(ValueError, match="the shares of a mixture must be at least 0 and add up to 1"):
        I.mixture((0.5, I.zeros))


def test_orthogonal_and_identity_of_batches_and_heads():
    w = draw(I.orthogonal(out_axis=(1, 2)), (30, 4, 5)).reshape(30, 20)
    np.testing.assert_allclose(w.T @ w, np.eye(20), atol=1e-5)
    batch = draw(I.orthogonal(batch_axis=0), (3, 8, 6))
    np.testing.assert_allclose(np.einsum("bij,bik->bjk", batch, batch), np.stack([np.eye(6)] * 3), atol=1e-5)
    assert not np.allclose(batch[0], batch[1])
    np.testing.assert_array_equal(draw(I.identity(batch_axis=0), (2, 3, 4)), np.stack([np.eye(3, 4)] * 2))
    plain = jax.nn.initializers.orthogonal()(jax.random.key(0), (3, 3, 8, 16))
    np.testing.assert_allclose(I.orthogonal()(jax.random.key(0), (3, 3, 8, 16)), plain, atol=1e-6)


def test_a_preset_on_a_bias_draws_by_the_kernel_beside_it():
    spec = {
        "a": {"kernel": pt.Param((25, 8000)), "bias": pt.Param((8000,))},
        "b": {"weight": pt.Param((4, 16)), "bias": pt.Param((4,))},
    }
    torch = pt.init(spec, jax.random.key(0), {"a": I.torch_linear, "b": I.torch_linear(in_axis=-1, out_axis=-2)})
    assert 0.199 < float(abs(torch["a/bias"]).max()) <= 0.2
    assert float(abs(torch["b/bias"]).max()) <= 0.25
    for preset in (I.keras_dense, I.flax_dense, I.mxnet_default):
        drawn = pt.init(spec, jax.random.key(0), {"**": preset})
        assert not drawn["a/bias"].any()
        assert drawn["a/kernel"].any()
    assert I.torch_linear() == I.torch_linear
    assert I.torch_linear(784) == I.torch_linear(fan_in=784)
    assert abs(draw(I.mxnet_default(0.5))).max() > 0.49
    assert not draw(I.torch_embedding(3), (10, 4))[3].any()
    with pytest.raises(pt.InitError, match=r"torch_linear takes the options \['fan_in', .* got \['fanin'\]"):
        I.torch_linear(fanin=3)
    assert repr(I.torch_linear(fan_in=784)) == "torch_linear(fan_in=784)"


@pytest.mark.parametrize("make", [
    lambda: I.normal(-1.0), lambda: I.normal(float("nan")), lambda: I.uniform(2, 1), lambda: I.trunc_normal(1.0, lower=2.0),
    lambda: I.normal(1.0, float("nan")), lambda: I.identity(float("nan")), lambda: I.uniform(0.0, np.float32("nan")),
    lambda: I.variance_scaling(np.float32(-1)), lambda: I.normal(np.float32(-2)), lambda: I.trunc_normal(1.0, 0.0, 5, 6),
    lambda: I.uniform(np.float32(2), np.float32(1)), lambda: I.truncated_normal(1.0, lower=8, upper=9), lambda: I.mixture(I.zeros),
    lambda: I.sparse(1.5), lambda: I.mup(0), lambda: I.gpt2_residual(0), lambda: I.variance_scaling(1.0, "fan"),
    lambda: I.lecun_normal(groups=0), lambda: I.gain("mish"),
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(make):
    with pytest.raises(pt.InitError, match=r"must|got|takes|known|less than a millionth"):
        make()


def test_each_says_what_it_will_do():
    texts = {
        "normal(0.02)": I.normal(0.02), "normal(0.1, mean=2.0)": I.normal(0.1, 2.0), "uniform(-1, 1)": I.uniform(-1, 1),
        "constant(3)": I.constant(3), "constant(f32[2])": I.constant(np.zeros(2, "float32")), "zeros": I.zeros, "ones": I.ones,
        "truncated_normal(0.1, lower=-3.0, upper=3.0)": I.truncated_normal(0.1, lower=-3.0, upper=3.0),
        "xavier_uniform()": I.xavier_uniform(), "kaiming_normal()": I.he_normal(), "lecun_normal()": I.lecun_normal(),
        "normal(0.5)": I.normal(np.float32(0.5)), "orthogonal()": I.orthogonal(), "orthogonal(2.0)": I.orthogonal(2.0), "identity()": I.identity(),
    }  # fmt: skip
    assert {text: repr(init) for text, init in texts.items()} == {text: text for text in texts}


def test_equal_options_are_equal_and_share_a_compiled_draw():
    assert I.normal(0.1) == I.normal(0.1) != I.normal(0.2)
    assert hash(I.normal(0.1)) == hash(I.normal(0.1))
    assert I.glorot_uniform() == I.xavier_uniform()
    table = np.zeros(3)
    one = I.constant(table)
    assert one == one
    assert one != I.constant(table)
    assert isinstance(hash(one), int)


def test_they_work_on_their_own_as_jaxs_do():
    assert I.normal(1.0)(jax.random.key(0), (2, 3)).dtype == jnp.float32
    assert (
        I.lecun_normal()(jax.random.key(0), (4, 3)) == jax.nn.initializers.lecun_normal()(jax.random.key(0), (4, 3))
    ).all()
