"""The presets beside what Keras and Flax themselves draw; PyTorch's are in `test_initializers_against_torch.py`."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

import ptree as pt
from ptree import initializers as I

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import haiku as hk
    import keras
    from flax import linen

KEY = jax.random.key(7)


def by_keras(layer, *shape):
    keras.utils.set_random_seed(0)
    layer.build(shape)
    return layer


def by_flax(layer, x):
    return layer.init(KEY, x)["params"]


def by_haiku(make, x):
    (params,) = hk.transform(lambda x: make()(x)).init(KEY, x).values()
    return params


DENSE = by_keras(keras.layers.Dense(200), None, 300)
CASES = [
    (I.keras_dense, DENSE.kernel),
    (I.keras_conv, by_keras(keras.layers.Conv2D(64, 3), None, 9, 9, 32).kernel),
    (I.keras_conv, by_keras(keras.layers.Conv2D(128, 3, groups=4), None, 9, 9, 64).kernel),
    (I.keras_embedding, by_keras(keras.layers.Embedding(1000, 64), None).embeddings),
    (I.he_normal(), by_keras(keras.layers.Dense(200, kernel_initializer="he_normal"), None, 300).kernel),
    (I.he_uniform(), by_keras(keras.layers.Dense(200, kernel_initializer="he_uniform"), None, 300).kernel),
    (I.lecun_normal(), by_keras(keras.layers.Dense(200, kernel_initializer="lecun_normal"), None, 300).kernel),
    (I.truncated_normal(0.05), by_keras(keras.layers.Dense(200, kernel_initializer="truncated_normal"), None, 300).kernel),
    (I.flax_dense, by_flax(linen.Dense(200), jnp.ones((1, 300)))["kernel"]),
    (I.flax_conv, by_flax(linen.Conv(256, (3, 3), feature_group_count=4), jnp.ones((1, 9, 9, 64)))["kernel"]),
    (
        I.flax_dense(in_axis=0, out_axis=(1, 2)),
        by_flax(linen.DenseGeneral((8, 32)), jnp.ones((1, 256)))["kernel"],
    ),
    (
        I.flax_dense(in_axis=(0, 1), out_axis=2),
        by_flax(linen.DenseGeneral(256, axis=(-2, -1)), jnp.ones((1, 8, 32)))["kernel"],
    ),
    (I.variance_scaling(0.87962566**2), by_haiku(lambda: hk.Linear(200), jnp.ones((1, 300)))["w"]),
]  # fmt: skip


@pytest.mark.parametrize(("init", "theirs"), CASES, ids=[f"{init}-{at}" for at, (init, _) in enumerate(CASES)])
def test_draws_have_the_distribution_of_the_frameworks_own(init, theirs):
    theirs = np.asarray(theirs)
    ours = np.asarray(pt.init({"w": pt.Param(theirs.shape, init=init)}, KEY)["w"])
    assert ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3
    assert ks_2samp(ours.ravel() * 1.05, theirs.ravel()).pvalue < 1e-3  # enough draws to notice a wrong fan
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


def test_biases_beside_a_kernel_start_where_the_frameworks_start_them():
    theirs = {"keras": np.asarray(DENSE.bias), "flax": by_flax(linen.Dense(200), jnp.ones((1, 300)))["bias"]}
    spec = {"kernel": pt.Param((300, 200)), "bias": pt.Param((200,))}
    for name, preset in (("keras", I.keras_dense), ("flax", I.flax_dense)):
        np.testing.assert_array_equal(pt.init(spec, KEY, {"**": preset})["bias"], theirs[name])


def test_one_keras_initialiser_in_two_layers_draws_twice_the_same_and_ours_does_not():
    shared = keras.initializers.GlorotUniform(seed=1)
    a, b = (by_keras(keras.layers.Dense(8, kernel_initializer=shared), None, 4).kernel for _ in range(2))
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    init = I.glorot_uniform()
    ours = pt.init({"a": pt.Param((4, 8), init=init), "b": pt.Param((4, 8), init=init)}, KEY)
    assert not (ours["a"] == ours["b"]).any()
