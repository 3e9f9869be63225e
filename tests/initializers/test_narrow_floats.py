"""Draws in 16-bit and 8-bit floats, and at the ends of every float: moments, tails, distinct values and bounds against theory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from scipy import stats

import ptree as pt
from ptree import initializers as I

KEY = jax.random.key(3)
SHAPE = (1024, 2048)  # 2 M draws: a mean is known to 0.0007 of a spread
SIXTEEN_BITS = ["bfloat16", "float16"]
NARROW = [*SIXTEEN_BITS, "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e3m4"]
FLOATS = ["float32", *NARROW]


def drawn(init, dtype, shape=SHAPE, key=KEY):
    value = init(key, shape, dtype)
    assert value.dtype == dtype
    return np.asarray(value).astype(np.float64)


def cut(lower, upper, stddev=1.0):
    return stats.truncnorm(lower, upper, scale=stddev)


GLOROT = math.sqrt(6 / 3072)
HE = math.sqrt(2 / 1024) / 0.87962566103423978


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
@pytest.mark.parametrize(
    ("init", "theory", "distinct"),
    [
        (I.normal(1.0), stats.norm(), 2900),
        (I.normal(0.02, mean=0.1), stats.norm(0.1, 0.02), 300),
        (I.truncated_normal(0.5), cut(-2, 2, 0.5), 2400),
        (I.truncated_normal(1.0, lower=-10, upper=10), stats.norm(), 2900),
        (I.truncated_normal(1.0, lower=-math.inf, upper=1.0), cut(-math.inf, 1.0), 2400),
        (I.uniform(-1, 1), stats.uniform(-1, 2), 2400),
        (I.glorot_uniform(), stats.uniform(-GLOROT, 2 * GLOROT), 2400),
        (I.he_normal(), cut(-2, 2, HE), 2400),
        (I.variance_scaling(2.0, "fan_out", "normal"), stats.norm(0, math.sqrt(2 / 2048)), 2900),
    ],
    ids=lambda value: "theory" if hasattr(value, "cdf") else repr(value),  # its repr has an address in it
)
def test_moments_tails_and_distinct_values_are_those_of_the_distribution(init, theory, distinct, dtype):
    w = drawn(init, dtype).ravel()
    assert w.mean() == pytest.approx(theory.mean(), abs=0.003 * theory.std())
    assert w.std() == pytest.approx(theory.std(), rel=0.003)
    assert len(np.unique(w)) >= distinct
    # 1 of 100,000 is beyond: 21 draws
    step = 2.0**-8 if dtype == "bfloat16" else 2.0**-11
    low, high = theory.ppf(1e-5), theory.ppf(1 - 1e-5)
    assert w.min() <= low + abs(low) * step
    assert w.max() >= high - abs(high) * step
    # a number of 16 bits stands for all up to halfway to the next one
    ordered = np.sort(w)
    values = ordered[:: 1 << 10].astype(dtype)
    after = np.nextafter(values, np.asarray(jnp.finfo(dtype).max, dtype))
    halfway = (values.astype(np.float64) + after.astype(np.float64)) / 2
    share = np.searchsorted(ordered, values.astype(np.float64), side="right") / w.size
    assert np.abs(share - theory.cdf(halfway)).max() < 0.0025


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_a_layer_of_positive_inputs_starts_without_a_bias(dtype):
    """Sums over 4,096 inputs: in JAX's own bfloat16 they are at -1.1 spreads on average."""
    kernel = drawn(I.lecun_normal(), dtype, (4096, 2048))
    outputs = kernel.sum(axis=0)  # each has the spread 1
    assert abs(outputs.mean()) < 5 / math.sqrt(2048)
    assert 0.45 < (outputs < 0).mean() < 0.55


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("init", [
    I.normal(1.0), I.uniform(0.25, 2), I.truncated_normal(0.5, 0.1), I.rescaled_truncated_normal(0.3), I.glorot_uniform(), I.lecun_normal(),
    I.kaiming_normal(), I.kaiming_uniform(), I.orthogonal(), I.torch_linear, I.torch_conv, I.keras_embedding, I.mxnet_default, I.gpt2_residual(3),
    I.mup(8), I.mixture((0.5, I.normal(1.0)), (0.5, I.uniform(0.5, 1))), I.sparse(0.5, 1.0), I.torch_embedding(1),
], ids=repr)  # fmt: skip
def test_every_initialiser_draws_narrow_floats_in_float32_and_rounds_them(init, dtype):
    narrow, wide = drawn(init, dtype, (24, 40)), init(KEY, (24, 40), "float32")
    rounded = np.asarray(wide.astype(dtype)).astype(np.float64)
    assert np.isfinite(narrow).all()
    if "mixture" in repr(init):  # each part has bounds of its own
        assert (narrow == rounded).mean() > 0.9
    else:  # only what rounding would put beyond a bound is another number
        np.testing.assert_array_equal(narrow, np.clip(rounded, narrow.min(), narrow.max()))
        assert (narrow == rounded).mean() > 0.8


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (-1, 1), (-0.1, 0.3), (-1, 0), (0.3, 1.7), (-0.02, 0), (1, 1.0625), (-1 / 3, 2 / 7), (7.9, 9.1)],
)
def test_uniform_stays_from_low_to_below_high(low, high, dtype):
    w = drawn(I.uniform(low, high), dtype, (256, 512))
    assert low <= w.min()
    assert w.max() < high
    limits = jnp.finfo(dtype)
    step = max(0.02, float(limits.eps)) * (abs(low) + abs(high)) + float(limits.smallest_subnormal)
    assert w.mean() == pytest.approx((low + high) / 2, abs=step)


@pytest.mark.parametrize("dtype", ["float32", *SIXTEEN_BITS])
@pytest.mark.parametrize(("low", "high"), [(1000, 1001), (-1001, -1000), (4096, 4100), (2000, 2001)])
def test_an_interval_of_few_numbers_gives_no_other(low, high, dtype):
    """`uniform(1000, 1001)` has 16,384 float32 numbers; rounding gave 1001 once in 32,768 draws."""
    init = I.uniform(low, high)
    if dtype == "bfloat16" and low == -1001:
        says(pt.InitError, "bf16 has no number of at least -1001.0 and below -1000.0", init, KEY, (3,), dtype)
        return
    w = drawn(init, dtype, (512, 1024))
    assert low <= w.min()
    assert w.max() < high


def test_jitted_and_sharded_draws_keep_the_bounds_too():
    spec = {
        "w": pt.Param((512, 1024), "bfloat16", I.uniform(-1, 1)),
        "v": pt.Param((512, 1024), "float32", I.uniform(1000, 1001)),
    }
    outside = pt.init(spec, KEY)
    inside = jax.jit(lambda key: pt.init(spec, key))(KEY)
    for params in (outside, inside):
        assert float(params["w"].max()) < 1
        assert float(params["v"].max()) < 1001
    assert (outside["w"] == inside["w"]).all()


@pytest.mark.parametrize("dtype", ["float32", *SIXTEEN_BITS, "float8_e4m3fn"])
@pytest.mark.parametrize(("lower", "upper"), [(-2, 2), (-1, 3), (-0.3, 0.1), (0, 1.7), (-3, -1), (3, 4)])
@pytest.mark.parametrize(("stddev", "mean"), [(0.02, 0.0), (1 / 3, 0.7)])
def test_a_cut_is_never_passed(lower, upper, stddev, mean, dtype):
    w = drawn(I.truncated_normal(stddev, mean, lower, upper), dtype, (128, 256))
    assert mean + lower * stddev <= w.min()
    assert w.max() <= mean + upper * stddev


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(("lower", "upper"), [
    (-2, 2), (-1, 3), (-5, 5), (-6, 6), (-10, 10), (-100, 100), (-math.inf, math.inf), (0, math.inf), (-math.inf, -1), (-30, 0.5), (2, 4),
    (3, 5), (4, math.inf), (-6, -4), (4.5, 5.5), (-math.inf, -4.7),
])  # fmt: skip
def test_cut_gaussians_agree_with_scipy(lower, upper, dtype):
    theory = cut(lower, upper)
    with jax.enable_x64(dtype == "float64"):
        w = drawn(I.truncated_normal(1.0, lower=lower, upper=upper), dtype, (512, 512)).ravel()
    assert w.mean() == pytest.approx(
        theory.mean(), abs=0.01 * theory.std() + (0.004 * abs(theory.mean()) if dtype == "bfloat16" else 0)
    )
    assert w.std() == pytest.approx(theory.std(), rel=0.02)
    if dtype != "bfloat16":
        assert stats.kstest(w, theory.cdf).pvalue > 1e-4
        assert len(np.unique(w)) > 30_000


def test_a_wide_cut_gives_no_outlier():
    """In 16 M draws of float32 about two of erf are -1, whose inverse is infinite: they were drawn as the cut itself."""
    w = I.truncated_normal(1.0, lower=-1e6, upper=1e6)(jax.random.key(0), (4096, 4096))
    assert 4.8 < float(abs(w).max()) < 6


@pytest.mark.parametrize(("init", "dtype", "message"), [
    (I.normal(20_000), "float16", "it draws numbers from -110000 to 110000, and f16 holds those from -65504 to 65504"),
    (I.uniform(0, 1e6), "float16", "it draws numbers from 0 to 1e+06, and f16 holds those from -65504 to 65504"),
    (I.normal(1e38), "float32", "it draws numbers from -5.5e+38 to 5.5e+38, and f32 holds those from -3.40282e+38 to 3.40282e+38"),
    (I.normal(100), "float8_e4m3fn", "it draws numbers from -550 to 550, and f8_e4m3fn holds those from -448 to 448"),
    (I.normal(1.0), "float8_e8m0fnu", "it draws numbers from -5.5 to 5.5, and f8_e8m0fnu holds those from 5.87747e-39"),
    (I.uniform(-1e-3, 0), "float8_e4m3fn", "f8_e4m3fn has no number of at least -0.001 and below 0.0"),
    (I.uniform(1001, 1002), "bfloat16", "bf16 has no number of at least 1001.0 and below 1002.0"),
])  # fmt: skip
def test_what_a_dtype_cannot_hold_is_refused(init, dtype, message):
    with pytest.raises(pt.InitError) as error:
        pt.init({"w": pt.Param((4, 4), dtype, init)}, KEY)
    assert str(error.value).startswith("cannot draw 'w', ")
    assert message in str(error.value)


def test_float64_has_its_own_53_bits():
    with jax.enable_x64(True):
        w = drawn(I.uniform(0.0, 1.0), "float64", (1000,))
        assert (w.astype(np.float32) != w).mean() > 0.99
        assert drawn(I.normal(1.0), "float64", (512, 512)).std() == pytest.approx(1, rel=0.01)
