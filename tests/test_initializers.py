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


def test_each_says_what_it_will_do():
    texts = {
        "normal(0.02)": I.normal(0.02), "normal(0.1, mean=2.0)": I.normal(0.1, 2.0), "uniform(-1, 1)": I.uniform(-1, 1),
        "constant(3)": I.constant(3), "constant(f32[2])": I.constant(np.zeros(2, "float32")), "zeros": I.zeros, "ones": I.ones,
        "truncated_normal(0.1, lower=-3.0, upper=3.0)": I.truncated_normal(0.1, lower=-3.0, upper=3.0),
        "xavier_uniform()": I.xavier_uniform(), "kaiming_normal()": I.he_normal(), "lecun_normal()": I.lecun_normal(),
        "orthogonal()": I.orthogonal(), "orthogonal(2.0)": I.orthogonal(2.0), "identity()": I.identity(),
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
