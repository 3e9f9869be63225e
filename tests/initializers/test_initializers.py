"""Each initialiser against its formula, and its text; schemes; options that are refused."""

import copy
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says

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
        (I.rescaled_truncated_normal(0.1), SHAPE, 0.1),
        (I.rescaled_truncated_normal(0.1, mean=1.0, lower=-1.0, upper=3.0), SHAPE, 0.1),
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
    lambda: I.normal(-1.0), lambda: I.normal(float("nan")), lambda: I.uniform(2, 1), lambda: I.rescaled_truncated_normal(1.0, lower=2.0),
    lambda: I.normal(1.0, float("nan")), lambda: I.identity(float("nan")), lambda: I.uniform(0.0, np.float32("nan")),
    lambda: I.variance_scaling(np.float32(-1)), lambda: I.normal(np.float32(-2)), lambda: I.rescaled_truncated_normal(1.0, 0.0, 5, 6),
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


# -------------------------------------------------------------------------------- schemes

LAYER = {"kernel": pt.Param((6, 4)), "bias": pt.Param((4,)), "scale": pt.Param((4,))}


def test_a_scheme_says_what_is_drawn_for_a_kernel_and_for_the_bias_beside_it():
    sites = []

    def bias(site):
        sites.append(site)
        return I.constant(site.kernel[0])

    scheme = I.Scheme(I.ones, bias=bias)
    params = pt.init({"a": LAYER, "bias": pt.Param((2,))}, jax.random.key(0), {"**": scheme})
    assert params["a/bias"].tolist() == [6] * 4
    assert all((params[path] == 1).all() for path in ("a/kernel", "a/scale", "bias"))  # no kernel stands beside `bias`
    assert sites == [I.Site("a/bias", (4,), np.dtype("float32"), (6, 4))]
    assert repr(scheme) == "Scheme(ones, bias=bias)"
    declared = {"w": pt.Param((3, 2), init=scheme), "b": pt.Param((2,), "bfloat16", scheme)}
    assert pt.init(declared, jax.random.key(0))["b"].tolist() == [3, 3]
    assert pt.reinit(params, jax.random.key(0), {"a": I.Scheme(I.zeros, bias=lambda site: I.ones)})["a/bias"].all()
    assert scheme(jax.random.key(0), (2, 3)).tolist() == [[1] * 3] * 2  # by itself it draws a kernel
    named = I.Scheme(I.ones, lambda site: I.zeros, kernel_names=("table",), bias_names=("shift",))
    params = pt.init(
        {"table": pt.Param((2, 2)), "shift": pt.Param((2,)), "bias": pt.Param((2,))}, jax.random.key(0), {"**": named}
    )
    assert not params["shift"].any()
    assert params["bias"].all()


def test_schemes_are_made_of_schemes():
    only_kernels = I.Scheme(I.torch_linear, bias=lambda site: I.zeros)
    only_biases = I.Scheme(I.lecun_normal(), bias=I.torch_linear.bias)
    torch = pt.init(LAYER, jax.random.key(0), {"**/scale": I.ones, "**": I.torch_linear})
    a = pt.init(LAYER, jax.random.key(0), {"**/scale": I.ones, "**": only_kernels})
    b = pt.init(LAYER, jax.random.key(0), {"**/scale": I.ones, "**": only_biases})
    assert (a["kernel"] == torch["kernel"]).all()
    assert not a["bias"].any()
    assert (b["bias"] == torch["bias"]).all()
    assert (
        b["kernel"] == pt.init({"kernel": LAYER["kernel"]}, jax.random.key(0), {"**": I.lecun_normal()})["kernel"]
    ).all()
    assert I.torch_linear.bias(I.Site("bias", (4,), np.dtype("float32"), (100, 4))) == I.torch_linear(100).kernel


def test_the_kernel_beside_a_bias_may_be_tied_to_another():
    spec = pt.tie({"embed": pt.Param((50, 8)), "head": {"kernel": pt.Param((8, 50)), "bias": pt.Param((50,))}},
                  {"head/kernel": pt.transposed("embed")})  # fmt: skip
    scheme = I.Scheme(I.ones, bias=lambda site: I.constant(site.kernel[0]))
    assert pt.init(spec, jax.random.key(0), {"**": scheme})["head/bias"].tolist() == [8] * 50


def test_a_scheme_that_makes_no_sense_is_refused():
    a = "an initialiser is a function (key, shape, dtype) -> array"
    says(pt.InitError, "kernel must be an initialiser, (key, shape, dtype) -> array, got 0.5", I.Scheme, 0.5)
    says(pt.InitError, "bias must be a function from a site to an initialiser, got 0.0", I.Scheme, I.ones, 0.0)
    wrong = I.Scheme(I.ones, bias=lambda site: 0.0)
    says(pt.InitError, f"cannot draw 'bias': not an initialiser: 0.0; {a}. Use initializers.constant(0.0)",
         pt.init, LAYER, jax.random.key(0), {"**": wrong})  # fmt: skip
    failing = I.Scheme(I.ones, bias=lambda site: 1 / 0)
    says(pt.InitError, "cannot draw 'bias' by Scheme(ones, bias=<lambda>): division by zero",
         pt.init, LAYER, jax.random.key(0), {"**": failing})  # fmt: skip


def test_presets_are_values():
    for preset in (
        I.torch_linear,
        I.torch_linear(784),
        I.keras_dense(in_axis=0),
        I.mxnet_default,
        I.torch_embedding(3),
    ):
        assert pickle.loads(pickle.dumps(preset)) == preset == copy.deepcopy(preset)
        assert hash(preset) == hash(copy.deepcopy(preset))
        assert isinstance(preset, I.Scheme)
    assert I.torch_linear != I.torch_linear(784) != I.torch_conv(784)
    assert I.keras_dense(in_axis=0)(out_axis=1) == I.keras_dense(in_axis=0, out_axis=1)
    key = jax.random.key(0)
    assert (I.torch_linear(key, (3, 4)) == I.torch_linear(key, shape=(3, 4), dtype=jnp.float32)).all()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: I.normal("a"), "stddev must be a number, got 'a'"),
    (lambda: I.uniform(0, "1"), "high must be a number, got '1'"),
    (lambda: I.xavier_uniform(in_axis="a"), "in_axis must be an axis, as a whole number, or a tuple of them, got 'a'"),
    (lambda: I.xavier_uniform(groups=1.5), "groups must be a whole number of at least 1, got 1.5"),
    (lambda: I.constant("x"), "constant takes a number or an array of numbers, got 'x'"),
    (lambda: I.constant(None), "constant takes a number or an array of numbers, got None"),
    (lambda: I.sparse("a"), "sparsity must be a number from 0 to 1, got 'a'"),
    (lambda: I.gpt2_residual("x"), "layers must be a whole number of at least 1, got 'x'"),
    (lambda: I.truncated_normal(1.0, lower="a"), "lower and upper must be numbers, got 'a' and 2.0"),
    (lambda: I.torch_linear(1, 2, 3, 4, 5),
     "torch_linear takes the options ['fan_in', 'in_axis', 'out_axis', 'batch_axis'], got ['1', '2', '3', '4', '5']"),
    (lambda: I.torch_linear(jnp.ones(3)), "fan_in must be a number, got f32[3]"),
])  # fmt: skip
def test_options_of_another_type_are_refused_when_they_are_given(make, message):
    says(pt.InitError, message, make)
