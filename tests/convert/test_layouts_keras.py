"""Layers against Keras': parameters by the table of layers, square throughout, and back into the model."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, converted, draws

import ptree as pt
from ptree import convert, nn

keras = pytest.importorskip("keras")
L = keras.layers
ZEROS = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}  # which are made sooner than draws


@pytest.fixture(autouse=True)
def _no_names_of_others():
    keras.backend.clear_session()


def shaken(model, seed=0):
    """The model with other numbers in all of its weights."""
    for at, variable in enumerate(model.weights):
        values = 0.5 * draws(*variable.shape, seed=seed + at)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return model


def model_of(*layers, shape, dtype="float32"):
    return shaken(keras.Sequential([keras.Input(shape, dtype=dtype), *layers], name="model"))


def check(net, model, *inputs, exact=True, names=None, **options):
    """Convert, compare, convert back, load: names are those of the layers in a `Sequential` called model."""
    names = {"": "model"} if names is None else names
    source = {variable.path: np.asarray(variable.value) for variable in model.weights}
    expected = called(model, *inputs)
    params, table = agrees(net, inputs, source, "keras", expected, exact=exact, names=names, **options)
    back = table.inverse.apply(params, like=model)
    shaken(model, seed=100)
    load(model, back)
    for variable in model.weights:
        np.testing.assert_array_equal(variable.value, source[variable.path])
    return params, table


def load(model, arrays):
    for variable in model.weights:
        variable.assign(arrays[variable.path])


def called(model, *inputs):
    """The output, compiled once rather than operation by operation."""
    call = jax.jit(lambda weights, others, *inputs: model.stateless_call(weights, others, *inputs, training=False)[0])
    trained, others = (
        [variable.value for variable in each] for each in (model.trainable_variables, model.non_trainable_variables)
    )
    return call(trained, others, *inputs)


def test_dense_of_one_and_several_axes():
    x = draws(3, 4)
    check(nn.Sequential(nn.Dense(4)), model_of(L.Dense(4, name="0"), shape=(4,)), x)
    sequence = draws(2, 3, 4)
    to_heads = L.EinsumDense("abc,cde->abde", (None, 2, 2), bias_axes="de", name="0")
    from_heads = L.EinsumDense("abde,dec->abc", (None, 4), bias_axes="c", name="1")
    net = nn.Sequential(nn.Dense((2, 2)), nn.Dense(4, axis=(-2, -1)))
    check(net, model_of(to_heads, from_heads, shape=(3, 4)), sequence)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_and_their_transposes(rank):
    x = draws(2, *(5, 6, 7)[:rank], 4)
    conv, transposed = getattr(L, f"Conv{rank}D"), getattr(L, f"Conv{rank}DTranspose")
    net = nn.Sequential(nn.Conv(4, (4,) * rank, groups=2), nn.ConvTranspose(4, (4,) * rank, stride=2))
    layers = [
        conv(4, 4, padding="same", groups=2, kernel_initializer="zeros", name="0"),
        transposed(4, 4, 2, padding="same", kernel_initializer="zeros", name="1"),
    ]
    check(net, model_of(*layers, shape=x.shape[1:]), x)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_convolutions_are_layers_of_their_own(multiplier):
    x = draws(2, 6, 6, 4)
    net = nn.Sequential(nn.Conv(4 * multiplier, (4, 4), groups=4))
    depthwise = L.DepthwiseConv2D(4, padding="same", depth_multiplier=multiplier, name="0")
    check(net, model_of(depthwise, shape=x.shape[1:]), x)
    grouped = L.Conv2D(4 * multiplier, 4, padding="same", groups=4, name="0")
    check(net, model_of(grouped, shape=x.shape[1:]), x, forms={"0": "groups"})


def test_transposes_in_groups_have_no_equal():
    with pytest.raises(pt.LayerError, match="the model, ConvTranspose in Keras: its ConvTranspose has no groups"):
        convert.layer_table(nn.ConvTranspose(4, (3, 3), groups=2), draws(1, 4, 4, 4), framework="keras")


def test_embeddings_and_norms():
    ids = np.array([[1, 2], [3, 0]])
    layers = [
        L.Embedding(4, 4, name="0"), L.BatchNormalization(name="1"), L.LayerNormalization(name="2"),
        L.RMSNormalization(name="3"), L.GroupNormalization(2, name="4"),
    ]  # fmt: skip
    net = nn.Sequential(
        nn.Embedding(4, 4),
        nn.BatchNorm(epsilon=1e-3),
        nn.LayerNorm(epsilon=1e-3),
        nn.RMSNorm(),
        nn.GroupNorm(2, epsilon=1e-3),
    )
    check(net, model_of(*layers, shape=(2,), dtype="int32"), ids, tolerance=1e-4)


def test_a_norm_over_several_axes_has_them_in_the_same_order():
    x = draws(2, 4, 4, 4)
    net = nn.Sequential(nn.LayerNorm(axis=(-3, -2, -1), epsilon=1e-3))
    check(net, model_of(L.LayerNormalization(axis=(1, 2, 3), name="0"), shape=(4, 4, 4)), x)


def test_recurrent_layers_have_one_bias_or_one_array_of_two():
    x = draws(2, 5, 4)
    layers = [
        L.LSTM(4, return_sequences=True, **ZEROS, name="0"), L.GRU(4, return_sequences=True, **ZEROS, name="1"),
        L.SimpleRNN(4, return_sequences=True, **ZEROS, name="2"),
    ]  # fmt: skip
    model = model_of(*layers, shape=(5, 4))
    net = nn.Sequential(nn.LSTM(4), nn.GRU(4), nn.RNN(4))
    params, table = check(net, model, x)
    # two biases of an LSTM go out as their sum, one way, and compute the same
    trained = pt.update(params, "{0,2}/hidden/bias", lambda bias: bias + 0.3)
    plan = table.inverse.plan(trained, like=model)
    assert "(one way)" in str(plan)
    load(model, table.inverse.apply(trained, like=model))
    np.testing.assert_allclose(called(model, x), jax.jit(net)(trained, x), rtol=1e-5, atol=1e-5)


def test_a_gru_with_the_reset_gate_before_the_product_has_no_equal():
    x = draws(2, 5, 4)
    model = model_of(L.GRU(4, reset_after=False, return_sequences=True, name="0"), shape=(5, 4))
    net = nn.Sequential(nn.GRU(4))
    table = convert.layer_table(net, x, framework="keras", names={"": "model"})
    with pytest.raises(
        pt.StructureError, match=r"the shape \[12\]; if it is the bias of a GRU of Keras, that has reset_aft"
    ):
        table.apply(model, like=net.spec(x))


def test_both_directions():
    x = draws(2, 5, 4)
    both = L.Bidirectional(L.LSTM(4, return_sequences=True, **ZEROS, name="lstm"), name="0")
    net = nn.Sequential(nn.Bidirectional(nn.LSTM(4)))
    check(net, model_of(both, shape=(5, 4)), x)
    other = L.Bidirectional(L.GRU(4, return_sequences=True, **ZEROS, name="mine"), name="0")
    names = {"": "model", "0/forward": "model/0/forward_mine", "0/backward": "model/0/backward_mine"}
    check(nn.Sequential(nn.Bidirectional(nn.GRU(4))), model_of(other, shape=(5, 4)), x, names=names)


def test_the_error_of_modules_that_keras_numbers_gives_their_names():
    keras.backend.clear_session()
    layers = [
        L.Bidirectional(L.GRU(4, return_sequences=True, **ZEROS), name="0"),
        L.Bidirectional(L.GRU(4, return_sequences=True, **ZEROS), name="1"),
    ]
    model, x = model_of(*layers, shape=(5, 4)), draws(2, 5, 4)
    net = nn.Sequential(*(nn.Bidirectional(nn.GRU(4)) for _ in layers))
    source = {variable.path: np.asarray(variable.value) for variable in model.weights}
    table = convert.layer_table(net, x, framework="keras", names={"": "model"})
    with pytest.raises(pt.StructureError, match="The source numbers modules") as error:
        table.apply(source, like=net.spec(x))
    (recommended,) = re.findall(r"names=(.*?})", str(error.value))
    names = eval(recommended)
    assert names == {"1/forward": "model/1/forward_gru_1", "1/backward": "model/1/backward_gru_1"}
    check(net, model, x, names={"": "model", **names})


def test_numbers_of_modules_that_may_be_of_several_layers_are_not_guessed():
    net, x = nn.Sequential(nn.Dense(4)), draws(2, 4)
    table = convert.layer_table(net, x, framework="keras", names={"0": "dense"})
    source = {f"dense_{at}/{name}": draws(*shape) for at in (1, 2) for name, shape in SHAPES_OF_DENSE.items()}
    with pytest.raises(pt.StructureError) as error:
        table.apply(source, like=net.spec(x))
    assert "numbers modules" not in str(error.value)
    one = {name: array for name, array in source.items() if name.startswith("dense_2")}
    with pytest.raises(pt.StructureError, match=r"give names={'0': 'dense_2'}\."):
        table.apply(one, like=net.spec(x))


SHAPES_OF_DENSE = {"kernel": (4, 4), "bias": (4,)}


@pytest.mark.parametrize("bias", [True, False])
def test_attention(bias):
    x = draws(2, 5, 4)
    i = keras.Input((5, 4))
    model = shaken(keras.Model(i, L.MultiHeadAttention(2, 2, use_bias=bias, dropout=0.1, name="attention")(i, i)))
    net = nn.Sequential({"attention": nn.MultiHeadAttention(2, use_bias=bias)})
    check(net, model, x, names={})
    model = shaken(keras.Model(i, L.GroupQueryAttention(2, 4, 2, use_bias=bias, name="attention")(i, i)))
    grouped = nn.Sequential({"attention": nn.MultiHeadAttention(4, head_dim=2, kv_heads=2, use_bias=bias)})
    check(grouped, model, x, names={})


def test_names_nesting_sharing_and_what_is_no_weight():
    x = draws(3, 4)
    i = keras.Input((4,))
    shared = L.Dense(4, activation="tanh", name="shared")
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4), L.BatchNormalization()], name="inner")
    y = L.Dropout(0.5)(shared(inner(shared(i))))
    model = shaken(keras.Model(i, L.Dense(4)(y)))
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(x, x, verbose=0)  # the states of metrics and of random numbers are no weights
    again = nn.Dense(4)
    net = nn.Sequential(
        {
            "first": nn.Sequential(again, jnp.tanh),
            "inner": nn.Sequential(nn.Dense(4), nn.BatchNorm(epsilon=1e-3)),
            "second": nn.Sequential(again, jnp.tanh),
            "drop": nn.Dropout(0.5),
            "last": nn.Dense(4),
        }
    )
    names = {"first/0": "shared", "inner/0": "inner/dense", "inner/1": "inner/batch_normalization", "last": "dense_1"}
    params, _ = check(net, model, x, names=names)
    assert params["second/0/kernel"] is params["first/0/kernel"]
    flat = nn.Sequential(nn.Flatten(), nn.Dense(4))  # channels are last in Keras too
    image = draws(2, 2, 2, 4)
    check(flat, model_of(L.Flatten(), L.Dense(4, name="1"), shape=(2, 2, 4)), image)


def test_two_weights_of_one_path_are_refused():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.other = L.Dense(4, name="d"), L.Dense(4, name="d")

        def call(self, x):
            return self.one(x) + self.other(x)

    model = Two()
    model(draws(3, 4))
    with pytest.raises(pt.StructureError, match="several weights of the Keras model have one path"):
        convert.Table({"a": "b"}).plan(model)


def test_a_model_keeps_its_numbers_in_a_conversion_of_names_alone():
    x = draws(3, 4)
    model = model_of(L.Dense(4, name="0"), shape=(4,))
    converted(nn.Sequential(nn.Dense(4)), (x,), model, "keras", called(model, x), names={"": "model"})


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of Keras, as it saves
def test_a_file_has_the_names_of_layers_and_a_live_model_its_own_name_before_them(tmp_path):
    x = draws(3, 4)
    model = model_of(L.Dense(4, name="a"), L.Dense(4, name="b"), shape=(4,))
    model.save(tmp_path / "m.keras")
    net = nn.Sequential({"a": nn.Dense(4), "b": nn.Dense(4)})
    of_file, _ = converted(net, (x,), tmp_path / "m.keras", "keras", called(model, x))
    of_model, _ = converted(net, (x,), model, "keras", called(model, x), names={"": "model"})
    np.testing.assert_array_equal(of_file["b/kernel"], of_model["b/kernel"])


def test_the_error_of_recurrent_layers_without_biases_gives_the_rows_that_convert_them():
    layers = (
        L.LSTM(4, return_sequences=True, use_bias=False, **ZEROS, name="0"),
        L.GRU(4, return_sequences=True, use_bias=False, **ZEROS, name="1"),
        L.SimpleRNN(4, return_sequences=True, use_bias=False, **ZEROS, name="2"),
    )
    model, x = model_of(*layers, shape=(5, 4)), draws(2, 5, 4)
    net = nn.Sequential(nn.LSTM(4), nn.GRU(4), nn.RNN(4))
    source = {variable.path: np.asarray(variable.value) for variable in model.weights}
    table = convert.layer_table(net, x, framework="keras", names={"": "model"})
    for _ in layers:
        with pytest.raises(pt.StructureError, match="If the layer is made without biases there, zeros are") as error:
            table.apply(source, like=net.spec(x))
        (recommended,) = re.findall(r"convert.Table\(.*\) \| table", str(error.value))
        table = eval(recommended, {"convert": convert, "table": table})
    params = table.apply(source, like=net.spec(x))
    np.testing.assert_allclose(net(params, x), called(model, x), atol=1e-6)
    back = table.inverse.apply(params, like=model)
    assert set(back) == set(source)
