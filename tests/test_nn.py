"""Layers: shapes, printing, keys, and errors that name the layer."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from errors import says

import ptree as pt
from ptree import nn

X = jnp.ones((2, 4))


@pytest.fixture
def key():
    return jax.random.key(0)


def rgnet():
    def block1():
        return nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(4), jax.nn.relu)

    return nn.Sequential(nn.Sequential({f"block {i}": block1() for i in range(4)}), nn.Dense(1))


def test_a_sequential_infers_sizes_and_names_by_position(key):
    net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))
    params = net.init(key, X)
    assert {path: leaf.shape for path, leaf in pt.items(params)} == {
        "0/kernel": (4, 8), "0/bias": (8,), "2/kernel": (8, 1), "2/bias": (1,),
    }  # fmt: skip
    assert net(params, X).shape == (2, 1)
    assert (net(params, X) == net(pt.asdict(params), X)).all()
    assert net.spec(jax.ShapeDtypeStruct((2, 4), jnp.float32)) == net.spec(X)


def test_nested_blocks_print_indented_and_count_309(key):
    net = rgnet()
    lines = repr(net).splitlines()
    assert lines[:5] == [
        "Sequential(",
        "  0: Sequential(",
        "    block 0: Sequential(",
        "      0: Dense(8)",
        "      1: relu",
    ]
    assert lines[-2:] == ["  1: Dense(1)", ")"]
    assert len(lines) == 29
    params = net.init(key, X)
    assert pt.summary(params).count == 309
    assert params["0/block 1/0/bias"] is params[0]["block 1"][0]["bias"]
    assert net[0]["block 1"][0] == nn.Dense(8)
    assert len(net) == 2


def test_layers_are_frozen_and_hashable():
    for layer in (nn.Dense(8), nn.Embedding(3, 2), nn.LayerNorm(), nn.Dropout(0.1), nn.Flatten(), rgnet()):
        assert hash(layer) == hash(dataclasses.replace(layer)) if not isinstance(layer, nn.Sequential) else hash(layer)
        with pytest.raises(dataclasses.FrozenInstanceError):
            layer.features = 3


def test_a_layer_is_traced_once_as_a_static_argument(key):
    traced = []

    def forward(net, params, x):
        traced.append(1)
        return net(params, x)

    fast = jax.jit(forward, static_argnums=0)
    for _ in range(2):
        net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))
        fast(net, net.init(key, X), X)
    assert len(traced) == 1


def test_a_hand_written_layer_with_a_spec_is_a_layer(key):
    class Scale:  # no base class needed
        def spec(self, x):
            return pt.Tree({"scale": pt.Param(x.shape[-1:], init=pt.initializers.ones)})

        def __call__(self, params, x):
            return x * params["scale"]

    net = nn.Sequential(nn.Dense(3), Scale())
    params = net.init(key, X)
    assert pt.paths(params) == ["0/kernel", "0/bias", "1/scale"]
    assert net(params, X).shape == (2, 3)


def test_embedding_reads_rows_and_nan_outside_of_the_table(key):
    layer = nn.Embedding(5, 3)
    ids = jnp.array([[0, 4], [2, 2]])
    params = layer.init(key, ids)
    assert (layer(params, ids) == params["table"][ids]).all()
    assert jnp.isnan(layer(params, jnp.array([5]))).all()


def test_flatten_keeps_the_first_axis():
    assert nn.Flatten()({}, jnp.ones((2, 3, 4))).shape == (2, 12)
    net = nn.Sequential(nn.Flatten(), nn.Dense(2))
    assert net.spec(jnp.ones((5, 3, 4)))["1/kernel"].shape == (12, 2)


def test_dropout_needs_a_key_and_each_has_its_own(key):
    net = nn.Sequential({"a": nn.Dropout(0.5), "b": nn.Sequential(nn.Dropout(0.5))})
    x = jnp.ones((50, 50))
    params = net.init(key, x)
    assert net(params, x) is x
    y = net(params, x, key=key)
    assert set(y.ravel().tolist()) == {0.0, 4.0}
    assert float((y > 0).mean()) == pytest.approx(0.25, abs=0.03)
    assert (net(params, x, key=key) == y).all()
    inner = nn.Sequential(nn.Dropout(0.5))
    deep = nn.Sequential({"b": inner})({}, x, key=key)
    assert (deep == inner({}, x, key=pt.child_key(key, "b"))).all()
    says(pt.LayerError, "Dropout(1.5): expected a rate of at least 0 and below 1, got 1.5", nn.Dropout, 1.5)


def test_parameters_may_be_of_another_dtype(key):
    net = nn.Sequential(nn.Dense(8, param_dtype=jnp.bfloat16), nn.LayerNorm(param_dtype=jnp.bfloat16))
    params = net.init(key, X.astype(jnp.bfloat16))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"bfloat16"}
    assert net(params, X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: rgnet()(p, X[:, :3]),
         "at '0/block 0/0', Dense(8): expected 4 features for the kernel f32[4,8], got the input f32[2,3]"),
        (lambda p: rgnet()(pt.drop(p, "0/block 1/0/bias"), X),
         "at '0/block 1/0', Dense(8): expected the parameter 'bias', got parameters ['kernel']"),
        (lambda p: rgnet()({"0": 3}, X), "at '0/block 0/0', Dense(8): expected the parameter 'kernel', got parameters 3"),
        (lambda p: nn.Sequential(nn.Dense(8))({"1": 3}, X),
         "Dense(8): expected parameters under the name '0', got parameters ['1']"),
        (lambda p: nn.Sequential(nn.Dense(16))({"0": {"kernel": jnp.ones((4, 8))}}, X),
         "at '0', Dense(16): expected a kernel of the shape (4, 16), got f32[4,8]"),
        (lambda p: nn.Embedding(3, 2)({"table": jnp.ones((4, 2))}, jnp.arange(2)),
         "Embedding(3, 2): expected a table of the shape (3, 2), got f32[4,2]"),
        (lambda p: nn.Sequential(nn.Embedding(3, 4)).spec(X),
         "at '0', Embedding(3, 4): expected whole numbers that say which rows, got the input f32[2,4]"),
        (lambda p: nn.Sequential({"a": nn.Sequential(nn.Dense(2))}).spec(jnp.float32(3)),
         "at 'a/0', Dense(2): expected an input of floats with at least one axis, got f32[]"),
        (lambda p: nn.LayerNorm()({"scale": jnp.ones(3), "bias": jnp.ones(3)}, X),
         "LayerNorm(): expected 3 features for the scale f32[3], got the input f32[2,4]"),
        (lambda p: nn.Sequential(3), "at '0', Sequential: expected a layer or a function, got 3"),
        (lambda p: nn.Sequential(nn.Dense), "at '0', Sequential: expected a layer, got the class Dense; call it first"),
        (lambda p: nn.Sequential({"a/b": nn.Dense(2)}), "bad name 'a/b' in Sequential: expected a string without '/'"),
        (lambda p: nn.Sequential({"a": nn.Dense(2)})["b"], "no layer 'b' in Sequential: there are ['a']"),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_layer_by_its_path(key, call, message):
    error = says(pt.LayerError, message, call, rgnet().init(key, X))
    assert error.path in message


def test_sharing_is_part_of_what_makes_two_nets_equal(key):
    shared = nn.Dense(8)
    tied, apart = nn.Sequential(shared, shared), nn.Sequential(nn.Dense(8), nn.Dense(8))
    assert tied != apart
    assert tied == nn.Sequential(shared, shared)
    init = jax.jit(lambda net, key: net.init(key, jnp.ones((2, 8))), static_argnums=0)
    assert pt.ties(init(tied, key)) == {"1/kernel": "0/kernel", "1/bias": "0/bias"}
    assert pt.ties(init(apart, key)) == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Sequential({0: nn.Dense(2), "0": nn.Dense(3)}), "two layers of one name in Sequential: ['0', '0']"),
        (lambda: nn.Dense(-1), "Dense: expected a number of features of at least 1, got -1"),
        (lambda: nn.Dense(2).spec([[1.0]]), "Dense(2): expected an array, got a list"),
        (lambda: nn.Dense(2).spec(jnp.ones((2, 3), int)),
         "Dense(2): expected an input of floats with at least one axis, got i32[2,3]"),
        (lambda: nn.LayerNorm().spec(jnp.ones((2, 3), int)),
         "LayerNorm(): expected an input of floats with at least one axis, got i32[2,3]"),
        (lambda: nn.Flatten()({}, jnp.float32(1)), "Flatten(): expected an array with at least one axis, got f32[]"),
        (lambda: nn.Sequential(nn.Dense(2))[7], "no layer 7 in Sequential: there are ['0']"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_with_a_sentence(call, message):
    says(pt.LayerError, message, call)


def test_a_layer_shows_the_options_that_differ():
    assert (
        repr(nn.Dense(8, use_bias=False, param_dtype=jnp.bfloat16)) == "Dense(8, use_bias=False, param_dtype=bfloat16)"
    )
    assert repr(nn.Embedding(3, 4)) == "Embedding(3, 4)"
    assert repr(nn.LayerNorm(epsilon=1e-6)) == "LayerNorm(epsilon=1e-06)"


def test_an_empty_batch_flattens():
    assert nn.Flatten()({}, jnp.ones((0, 3, 4))).shape == (0, 12)
