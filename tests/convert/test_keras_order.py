"""Files of Keras 2, whose weights Keras assigns by the order of the layers."""

import keras
import numpy as np
import pytest

from ptree import convert

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # in Keras


def two_layers(first, second):
    """A model of two layers of the same shapes."""
    layers = [keras.layers.Dense(4, name=name) for name in (first, second)]
    model = keras.Sequential([keras.layers.Input((4,)), *layers])
    return model, {variable.path.partition("/")[2]: np.asarray(variable.value) for variable in model.weights}


def test_layers_in_the_order_of_jax_are_warned_of_as_keras_would_exchange_them(tmp_path):
    model, weights = two_layers("hidden", "code")
    weights = {name: array + number for number, (name, array) in enumerate(weights.items())}
    in_order = dict(sorted(weights.items()))  # as jax.tree.map returns it
    with pytest.warns(UserWarning, match=r"by the order of the layers, .*\['code', 'hidden'\].*template=") as caught:
        convert.write(tmp_path / "a.h5", in_order)
    assert caught[0].filename == __file__
    model.load_weights(tmp_path / "a.h5")
    np.testing.assert_array_equal(np.asarray(model.layers[0].kernel.value), weights["code/kernel"])  # the wrong one
    convert.write(tmp_path / "b.h5", weights)  # in the order of the model: no warning
    model.load_weights(tmp_path / "b.h5")
    np.testing.assert_array_equal(np.asarray(model.layers[0].kernel.value), weights["hidden/kernel"])
    convert.write(tmp_path / "c.h5", in_order, template=tmp_path / "b.h5")
    model.load_weights(tmp_path / "c.h5")
    np.testing.assert_array_equal(np.asarray(model.layers[0].kernel.value), weights["hidden/kernel"])


def test_the_query_and_key_of_an_attention_in_the_order_of_jax_are_warned_of(tmp_path):
    inputs = keras.Input((3, 4))
    attention = keras.layers.MultiHeadAttention(4, 4, use_bias=False, name="attention")
    model = keras.Model(inputs, attention(inputs, inputs))
    weights = {variable.path: np.asarray(variable.value) for variable in model.weights}
    convert.write(tmp_path / "a.h5", weights)
    with pytest.warns(UserWarning, match="'attention/attention_output', 'attention/key', 'attention/query'"):
        convert.write(tmp_path / "b.h5", dict(sorted(weights.items())))
    model.load_weights(tmp_path / "b.h5")
    loaded = {variable.path: np.asarray(variable.value) for variable in model.weights}
    np.testing.assert_array_equal(loaded["attention/query/kernel"], weights["attention/attention_output/kernel"])
