"""Layers: shapes, printing, keys, and errors that name the layer."""

import dataclasses
import functools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from jax.sharding import NamedSharding, PartitionSpec

import ptree as pt
from ptree import nn, train
from ptree._words import describe

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
        assert hash(layer) == hash(dataclasses.replace(layer))
        with pytest.raises(dataclasses.FrozenInstanceError):
            layer.features = 3


def test_a_sequential_is_a_sequence_of_its_layers(key):
    dense, last = nn.Dense(8), nn.Dense(1)
    net = nn.Sequential(dense, jax.nn.relu, last)
    assert [*net][::2] == [dense, last]
    assert [*net][2] is net[2] is net[-1] is net["2"] is last
    assert [repr(layer) for _, layer in net.parts()] == ["Dense(8)", "relu", "Dense(1)"]
    assert [*reversed(net)] == [*net][::-1]
    assert len(net) == 3
    assert dense in net
    assert nn.Dense(8) in net  # one like it
    assert jax.nn.relu in net
    assert "1" in net
    for other in (nn.Dense(9), jax.nn.gelu, "3", 1, nn.Dense):
        assert other not in net
    assert nn.Sequential(*net) == net
    first, *rest = net
    assert (first, len(rest)) == (dense, 2)
    assert not nn.Sequential()
    for at in (3, -4):
        says(pt.LayerError, f"no layer {at} in Sequential: there are ['0', '1', '2']", net.__getitem__, at)


def test_a_slice_of_a_sequential_keeps_names_and_runs_with_the_same_parameters(key):
    net = nn.Sequential({"stem": nn.Dense(8), "act": jnp.tanh, "head": nn.Dense(2)})
    params = net.init(key, X)
    assert [name for name, _ in net[1:].layers] == ["act", "head"]
    assert type(net[:2]) is nn.Sequential
    np.testing.assert_array_equal(net[1:](params, net[:1](params, X)), net(params, X))
    assert net[:1] + net[1:] == net
    assert net[::-1] != net
    assert net[:0] == nn.Sequential()
    numbered = nn.Sequential(nn.Dense(8), jnp.tanh, nn.Dense(2))
    assert numbered[:2] + numbered[2:] == numbered


def test_sequentials_are_joined(key):
    shared = nn.Dense(4)
    both = nn.Sequential(shared, jnp.tanh) + nn.Sequential(shared, nn.Dense(1))
    assert [name for name, _ in both.layers] == ["0", "1", "2", "3"]
    assert pt.ties(both.spec(X)) == {"2/kernel": "0/kernel", "2/bias": "0/bias"}
    named = nn.Sequential({"a": nn.Dense(4)}) + nn.Sequential(jnp.tanh)
    assert [name for name, _ in named.layers] == ["a", "0"]
    says(
        pt.LayerError,
        "two layers of one name in Sequential: ['a', '0', 'a']",
        lambda: named + nn.Sequential({"a": jnp.tanh}),
    )
    with pytest.raises(TypeError, match="unsupported operand"):
        named + 3


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


def test_a_negative_row_is_outside_of_the_table():
    layer = nn.Embedding(5, 3)
    params = layer.init(jax.random.key(0), jnp.arange(3))
    assert jnp.isnan(layer(params, jnp.array([-1]))).all()
    assert jnp.isnan(layer(params, jnp.array([-1], jnp.int8))).all()
    assert not jnp.isnan(layer(params, jnp.array([4], jnp.uint8))).any()


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
    assert (deep == inner({}, x, key=pt.random.child_key(key, "b"))).all()
    says(
        pt.LayerError,
        "Dropout(1.5): expected rate to be a finite number of at least 0 and below 1, got 1.5",
        nn.Dropout,
        1.5,
    )


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
        (lambda: nn.Dense(-1), "Dense(-1): expected features to be a whole number of at least 1, or a tuple of them, got -1"),
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


# ------------------------------------------------------------------------- many times one layer


def block(width=8, **options):
    return nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(width), jax.nn.relu, nn.Dropout(0.5)), **options)


def test_repeat_is_the_layers_one_after_the_other(key):
    x = jax.random.normal(key, (3, 8))
    stacked, apart = nn.Repeat(block(), 5), nn.Repeat(block(), 5, scan=False)
    params, single = stacked.init(key, x), apart.init(key, x)
    assert pt.paths(params) == [":/inner/0/scale", ":/inner/0/bias", ":/inner/1/kernel", ":/inner/1/bias"]
    assert pt.stacks.unstack(params, "") == single
    by_hand = x
    for at in range(5):
        by_hand = block()(single[at], by_hand)
    for net, own in ((stacked, params), (apart, single), (stacked, single), (apart, params)):
        np.testing.assert_allclose(net(own, x), by_hand, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(jax.jit(net)(own, x), by_hand, rtol=1e-5, atol=1e-6)
    dropped = stacked(params, x, key=key)
    np.testing.assert_allclose(apart(single, x, key=key), dropped, rtol=1e-5, atol=1e-6)
    masks = [pt.nn.Dropout(0.5)({}, jnp.ones((3, 8)), key=pt.random.child_key(key, f"{at}/inner/3")) for at in range(5)]
    assert len({mask.tobytes() for mask in map(np.asarray, masks)}) == 5
    grads = jax.grad(lambda p: (stacked(p, x) ** 2).sum())(params)
    expected = jax.grad(lambda p: (apart(p, x) ** 2).sum())(single)
    chex.assert_trees_all_close(pt.stacks.unstack(grads, ""), expected, rtol=1e-4, atol=1e-4)
    for options in ({"remat": True}, {"unroll": True}, {"remat": jax.checkpoint_policies.dots_saveable, "unroll": 2}):
        net = nn.Repeat(block(), 5, **options)
        again = jax.jit(jax.grad(lambda p, net=net: (net(p, x) ** 2).sum()))(params)
        chex.assert_trees_all_close(again, grads, rtol=1e-4, atol=1e-4)


def test_a_shared_repeat_has_the_layers_own_parameters(key):
    x = jax.random.normal(key, (3, 8))
    net = nn.Sequential(nn.Repeat(block(), 4, shared=True))
    params = net.init(key, x)
    assert pt.paths(params) == ["0/inner/0/scale", "0/inner/0/bias", "0/inner/1/kernel", "0/inner/1/bias"]
    by_hand = x
    for _ in range(4):
        by_hand = block()(params[0], by_hand)
    np.testing.assert_allclose(net(params, x), by_hand, rtol=1e-5, atol=1e-6)
    assert net(params, x, key=key).shape == (3, 8)
    grads = jax.grad(lambda p: (net(p, x) ** 2).sum())(params)
    assert float(abs(grads["0/inner/1/kernel"]).max()) > 0


def test_groups_of_different_layers_repeat_and_a_remainder_follows(key):
    x = jax.random.normal(key, (3, 8))
    group = nn.Sequential({"local": block(), "global": nn.Residual(nn.Dense(8, use_bias=False))})
    net = nn.Sequential({"groups": nn.Repeat(group, 3), "rest": block()})
    params = net.init(key, x)
    assert params["groups/:/global/inner/kernel"].shape == (3, 8, 8)
    assert net(params, x).shape == (3, 8)
    assert pt.summary(params).count == 3 * (8 * 8 + 8 + 16 + 64) + 72 + 16
    nested = nn.Repeat(nn.Repeat(block(), 2), 3)
    own = nested.init(key, x)
    assert own[":/:/inner/1/kernel"].shape == (3, 2, 8, 8)
    np.testing.assert_array_equal(
        own["1/1/inner/1/kernel"],
        nn.Repeat(nn.Repeat(block(), 2, scan=False), 3, scan=False).init(key, x)["1/1/inner/1/kernel"],
    )


@pytest.mark.parametrize("scan", [True, False])
def test_running_statistics_come_out_of_any_container(key, scan):
    x = jax.random.normal(key, (16, 8)) * 3 + 1
    one = nn.Residual(nn.Sequential(nn.BatchNorm(), nn.Dense(8)))
    net = nn.Sequential({
        "stem": nn.Sequential(nn.BatchNorm(), jax.nn.relu), "blocks": nn.Repeat(one, 3, scan=scan),
        "two": nn.Parallel(nn.BatchNorm(), nn.Dense(8)),
    })  # fmt: skip
    params = net.init(key, x)
    assert (net(params, x, train=True) != net(params, x)).any()
    y, new = jax.jit(net.updated)(params, x)
    np.testing.assert_allclose(y, net(params, x, train=True), rtol=1e-4, atol=1e-5)
    changed = [path for path, leaf in pt.items(new) if (leaf != params[path]).any()]
    assert {path.rpartition("/")[2] for path in changed} == {"mean", "var"}
    assert len(changed) == 2 * (5 if not scan else 3)
    np.testing.assert_allclose(new["stem/0/mean"], 0.1 * x.mean(0), rtol=1e-4, atol=1e-5)
    layer = net["stem"]({**params["stem"]}, x, train=True)
    second = nn.BatchNorm().updated(params["blocks"][0]["inner"][0], layer)[1]
    np.testing.assert_allclose(new["blocks"][0]["inner"][0]["mean"], second["mean"], rtol=1e-4, atol=1e-5)
    assert net.updated(params, x)[1]["blocks"] is not params["blocks"]

    def loss(params):
        y, new = net.updated(params, x)
        return (y**2).mean(), new

    grads, new = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert not np.any(grads["stem/0/mean"])
    trained = pt.merge(pt.select(params, "!**/{mean,var}"), pt.select(new, "**/{mean,var}"))
    assert jax.tree.structure(trained) == jax.tree.structure(params)
    y, _ = nn.Sequential(nn.Dense(8)).updated(nn.Sequential(nn.Dense(8)).init(key, x), x)
    assert y.shape == (16, 8)


def test_a_container_of_ones_own_is_asked_for_its_statistics(key):
    @dataclasses.dataclass(frozen=True, repr=False)
    class Wrapped(nn.Layer):
        inner: nn.Layer

        def declare(self, x):
            return {"inner": self.inner.spec(x)}

        def apply(self, params, x):
            return self.inner(params["inner"], x)

    x = jnp.ones((4, 8))
    net = nn.Sequential(Wrapped(nn.BatchNorm()))
    with pytest.raises(
        pt.LayerError, match=r"at '0', Wrapped\(BatchNorm\(\)\): it holds layers with running statistics"
    ):
        net.updated(net.init(key, x), x)
    plain = nn.Sequential(Wrapped(nn.Dense(2)))
    params = plain.init(key, x)
    assert plain.updated(params, x)[1] is params


# ------------------------------------------------------------------------------- compiled calls


class Times(nn.Layer):  # no dataclass
    def __init__(self, by):
        self.by = by

    def apply(self, params, x):
        return self.by * x


@dataclasses.dataclass
class Mutable(nn.Layer):
    by: float

    def apply(self, params, x):
        return self.by * x


@dataclasses.dataclass(frozen=True, repr=False)
class Fixed(nn.Layer):
    by: object
    hidden: object = dataclasses.field(default=None, compare=False)

    def apply(self, params, x):
        return x * (self.by if self.hidden is None else self.hidden)


def test_layers_that_are_not_what_their_fields_say_are_never_mixed_up():
    double = lambda layer: float(jax.jit(lambda x: layer({}, x))(jnp.float32(1)))
    assert Times(2.0) != Times(2.0)
    assert repr(Times(2.0)) == "Times()"
    assert double(nn.Sequential(Times(2.0), Times(3.0))) == 6
    layer = Mutable(2.0)
    assert double(layer) == 2
    layer.by = 5.0
    assert double(layer) == 5
    assert double(Fixed(2.0, 3.0)) == 3
    assert double(Fixed(2.0, 4.0)) == 4
    assert str(jax.jit(lambda x: Fixed(1)({}, x))(jnp.int32(1)).dtype) == "int32"
    assert str(jax.jit(lambda x: Fixed(1.0)({}, x))(jnp.int32(1)).dtype) == "float32"
    assert nn.Repeat(nn.Dense(4), 2, unroll=True) != nn.Repeat(nn.Dense(4), 2, unroll=1)
    again = pickle.loads(pickle.dumps(layer := nn.Dense(4)))
    assert (again, hash(again)) == (layer, hash(layer))
    assert "_identity" in vars(layer)
    assert "_identity" not in layer.__getstate__()  # a hash is another in another process


def test_what_is_known_stays_known_inside_of_jit():
    @dataclasses.dataclass(frozen=True, repr=False)
    class Often(nn.Layer):
        def apply(self, params, x, *, n=1, f=None):
            for _ in range(int(n) + int(params["more"])):
                x = f(x)
            return x

    class Unhashable:
        __hash__ = None

        def __call__(self, x):
            return x + 1

    params = {"more": np.int32(1)}
    assert float(jax.jit(lambda x: Often()(params, x, n=np.int64(2), f=Unhashable()))(1.0)) == 4


def test_loops_are_compiled_once_outside_of_jit_too(key):
    traced = []

    @dataclasses.dataclass(frozen=True, repr=False)
    class Counted(nn.Layer):
        def apply(self, params, x):
            traced.append(x)
            return x * 2

    x = jnp.ones((2, 3, 4))
    net = nn.Repeat(Counted(), 3)
    before = len(traced)
    for _ in range(3):
        assert float(net({}, x)[0, 0, 0]) == 8
    assert len(traced) - before == 1
    compiles = []
    listen = lambda name, *_, **__: compiles.append(name)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for layer in (nn.LSTM(3), nn.GRU(3), nn.Repeat(nn.Dense(4), 3), nn.Repeat(nn.Dense(4), 2, scan=False)):
            params = layer.init(key, x)
            layer(params, x)
            compiles.clear()
            layer(params, x)
            assert not [name for name in compiles if "compile" in name]
            jax.jit(lambda x: x + len(compiles))(x)
            assert [name for name in compiles if "compile" in name]  # it would be seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def tanhs(net, params, x):
    """How many there are in the compiled gradient."""
    grad = jax.jit(jax.grad(lambda p: net(p, x).sum()))
    return grad.lower(params).compile().as_text().count(" tanh(")


@pytest.mark.parametrize("options", [{"scan": False}, {"unroll": True}, {"shared": True, "unroll": True}])
def test_remat_computes_again_scanned_or_not(key, options):
    block = nn.Sequential(nn.Dense(8), jnp.tanh, nn.Dense(8), jnp.tanh)
    kept, again = (nn.Repeat(block, 4, remat=remat, **options) for remat in (False, True))
    x = jax.random.normal(key, (4, 8))
    params = kept.init(key, x)
    assert tanhs(again, params, x) > tanhs(kept, params, x)
    grads = [jax.grad(lambda p, net=net: net(p, x).sum())(params) for net in (kept, again)]
    chex.assert_trees_all_close(*grads, rtol=1e-5)
    policy = nn.Repeat(block, 4, remat=jax.checkpoint_policies.everything_saveable, **options)
    assert "policy=None" not in str(jax.make_jaxpr(jax.grad(lambda p: policy(p, x).sum()))(params))


def test_layers_without_parameters_repeat(key):
    x = jnp.ones((8, 50))
    for net in (
        nn.Repeat(nn.Dropout(0.5), 2),
        nn.Repeat(nn.Residual(nn.Dropout(0.5)), 2, scan=False),
        nn.Repeat(jnp.tanh, 3),
    ):
        params = nn.Sequential(net).init(key, x)
        assert len(params) == 0
        assert nn.Sequential(net)(params, x).shape == x.shape
    kept = nn.Repeat(nn.Dropout(0.5), 2)({}, x, key=key)
    assert set(kept.ravel().tolist()) == {0.0, 4.0}


def test_a_shared_layer_inside_and_outside_of_repeat_is_one(key):
    layer = nn.Dense(8)
    x = jnp.ones((4, 8))
    net = nn.Sequential(layer, nn.Repeat(layer, 3, shared=True))
    assert pt.ties(net.init(key, x)) == {"1/kernel": "0/kernel", "1/bias": "0/bias"}
    params = net.init(key, x)
    by_hand = x
    for _ in range(4):
        by_hand = layer(params["0"], by_hand)
    np.testing.assert_allclose(net(params, x), by_hand, rtol=1e-6)


def test_a_place_after_the_cache_is_nan_where_its_length_is_not_known(key):
    layer, x = nn.MultiHeadAttention(2, causal=True), jax.random.normal(key, (1, 6, 4))
    params = layer.init(key, x)
    step = jax.jit(lambda x, cache: layer(params, x, cache=cache))
    cache = layer.cache(1, 4, head_dim=2)
    for at in range(6):
        y, cache = step(x[:, at : at + 1], cache)
        assert bool(jnp.isnan(y).all()) == (at >= 4)
        assert at >= 4 or bool(jnp.isfinite(y).all())


def test_a_mask_with_a_cache_is_of_the_caches_places(key):
    layer, x = nn.MultiHeadAttention(2), jax.random.normal(key, (2, 5, 4))
    params = layer.init(key, x)
    seen = jnp.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], bool)[:, None, None]
    expected = layer(params, x, mask=seen)
    wide = jnp.pad(seen, ((0, 0), (0, 0), (0, 0), (0, 3)))
    y, _ = layer(params, x, cache=layer.cache(2, 8, head_dim=2), mask=wide)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_options_go_through_containers_to_the_layers_that_take_them(key):
    attention = nn.Sequential(nn.LayerNorm(), nn.MultiHeadAttention(2), nn.Dropout(0.1))
    block = nn.Sequential(nn.Residual(attention), nn.Residual(nn.Sequential(nn.Dense(4), jnp.tanh)))
    net, apart = nn.Repeat(block, 3, remat=True), nn.Repeat(block, 3, scan=False)
    x = jax.random.normal(key, (2, 5, 4))
    params = net.init(key, x)
    mask = (jnp.arange(5) < jnp.array([[5], [3]]))[:, None, None]
    y = net(params, x, mask=mask)
    np.testing.assert_allclose(y[1, :3], net(params, x.at[1, 3:].add(7.0), mask=mask)[1, :3], atol=1e-6)
    assert not np.allclose(y[1, :3], net(params, x)[1, :3], atol=1e-3)
    np.testing.assert_allclose(y, apart(pt.stacks.unstack(params, ""), x, mask=mask), atol=1e-5)
    trained = jax.jit(lambda p, k: net(p, x, mask=mask, key=k, train=True))(params, key)
    np.testing.assert_allclose(trained, net.updated(params, x, mask=mask, key=key)[0], atol=1e-5)
    both = nn.Parallel(nn.MultiHeadAttention(2), nn.Dense(4))
    assert both(both.init(key, x), x, mask=mask).shape == x.shape
    says(pt.LayerError, "Repeat: expected options that a layer in it takes, got ['maks']", net, params, x, maks=mask)


def test_pools_of_narrow_floats_sum_in_float32():
    ones = jnp.ones((1, 64, 64, 1))
    assert float(nn.AvgPool(64)({}, ones.astype("bfloat16")).squeeze()) == 1
    assert float(nn.AvgPool(64)({}, 20 * ones.astype("float16")).squeeze()) == 20
    assert nn.AvgPool(2)({}, ones.astype("bfloat16")).dtype == jnp.bfloat16


def test_equal_layers_are_traced_once(key):
    traced = []

    @dataclasses.dataclass(frozen=True)
    class Counted(nn.Layer):
        width: int

        def declare(self, x):
            return {"w": pt.Param((x.shape[-1], self.width), init=pt.initializers.normal(0.1))}

        def apply(self, params, x):
            traced.append(self)
            return jnp.tanh(x @ params["w"])

    net = nn.Sequential(*[Counted(8) for _ in range(20)])
    params = net.init(key, jnp.ones((2, 8)))
    traced.clear()
    jax.jit(jax.grad(lambda p, x: net(p, x).sum())).lower(params, jnp.ones((3, 8)))
    assert len(traced) == 1
    net(params, jnp.ones((3, 8)))
    assert len(traced) == 21  # where values are known, each call is a call


def test_a_block_is_one_compiled_function_and_a_network_of_equal_layers_is_none(key):
    block = nn.Sequential(nn.LayerNorm(), nn.Dense(4), jnp.tanh, nn.Dense(4))
    deep, branches = nn.Sequential(*[block] * 3), nn.Parallel(nn.Dense(4), nn.Dense(4), nn.Dense(4))
    few = nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense(4), jnp.tanh)
    for net, names in (
        (block, ["Sequential"]),
        (few, ["Sequential"]),
        (branches, ["Dense"] * 3),
        (deep, ["Sequential"] * 3),
    ):
        traced = jax.jit(net).trace(net.init(key, X), X).jaxpr
        assert [eqn.params["name"] for eqn in traced.eqns if "name" in eqn.params] == names
        params = net.init(key, X)
        np.testing.assert_allclose(jax.jit(net)(params, X), net(params, X), rtol=1e-6)


def test_a_layer_may_look_at_values_where_they_are_known(key):
    @dataclasses.dataclass(frozen=True)
    class Looks(nn.Layer):
        def apply(self, params, x):
            return x * 2 if float(x.sum()) > 0 else x

    net = nn.Sequential(nn.Dense(4), Looks())
    params = pt.Tree({"0": nn.Dense(4).init(key, X)})
    assert net(params, X).shape == (2, 4)
    with pytest.raises(jax.errors.ConcretizationTypeError):
        jax.jit(net)(params, X)


def transformer(width=8, layers=3, **options):
    attention = nn.MultiHeadAttention(2, causal=True)
    mlp = nn.Sequential(nn.Dense(16), jax.nn.gelu, nn.Dense(width))
    one = nn.Sequential(
        nn.Residual(nn.Sequential(nn.LayerNorm(), attention)), nn.Residual(nn.Sequential(nn.RMSNorm(), mlp))
    )
    return nn.Repeat(one, layers, **options)


@pytest.mark.parametrize("scan", [True, False])
def test_nothing_is_given_up_for_compiled_calls(key, scan):
    """Forward and reverse mode, twice, over batches, with remat, on devices, in 64 bits: as of the plain function."""
    net = transformer(layers=2, scan=scan)
    x = jax.random.normal(key, (2, 4, 8))
    params = net.init(key, x)

    def plain(params, x):  # the same by hand, so that no call is a compiled function of its own
        for at in range(2):
            own = params[at] if scan is False else params[":"]
            own = own if scan is False else jax.tree.map(lambda leaf, at=at: leaf[at], own)
            with jax.disable_jit():
                x = net.layer(own, x)
        return x

    def value(f):
        return lambda p, x: jnp.sin(f(p, x)).sum()

    ours, theirs = value(net), value(plain)
    grad_by_hand = jax.jit(jax.grad(theirs))  # not operation by operation, of which each would be compiled
    expected = grad_by_hand(params, x)
    close = functools.partial(chex.assert_trees_all_close, rtol=2e-4, atol=2e-4)
    close(jax.jit(ours)(params, x), jax.jit(theirs)(params, x))
    close(jax.jit(jax.grad(ours))(params, x), expected)
    close(jax.grad(ours)(params, x), expected)
    tangent = jax.tree.map(jnp.ones_like, params)
    close(
        jax.jit(lambda p: jax.jvp(lambda p: ours(p, x), (p,), (tangent,)))(params),
        jax.jit(lambda p: jax.jvp(lambda p: theirs(p, x), (p,), (tangent,)))(params),
    )
    twice = lambda f: jax.grad(lambda x: (jax.grad(f, 1)(params, x) ** 2).sum())(x)
    close(jax.jit(twice, static_argnums=0)(ours), jax.jit(twice, static_argnums=0)(theirs))
    many = jnp.stack([x, x + 1, x * 2])
    close(
        jax.jit(jax.vmap(jax.grad(ours), (None, 0)))(params, many),
        jax.tree.map(lambda *g: jnp.stack(g), *(grad_by_hand(params, each) for each in many)),
    )
    close(jax.jit(jax.grad(jax.checkpoint(ours)))(params, x), expected)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    close(jax.jit(jax.grad(ours))(params, placed), expected)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        value = lambda x: jax.jit(net)(wide, x).sum()
        x = np.asarray(x, np.float64)
        assert value(x).dtype == np.float64
        grad, step = jax.grad(value)(x), np.zeros_like(x)
        step[1, 2, 3] = 1e-5  # a difference that float32 anywhere inside would drown
        difference = (value(x + step) - value(x - step)) / 2e-5
        np.testing.assert_allclose(grad[1, 2, 3], difference, rtol=1e-7)


def test_compute_dtype_is_apart_from_parameter_dtype(key):
    x, ids = jnp.ones((2, 4, 8), jnp.float32), jnp.ones((2, 3), int)
    for layer in (nn.Dense(8, dtype=jnp.bfloat16), nn.LayerNorm(dtype=jnp.bfloat16), nn.RMSNorm(dtype=jnp.bfloat16), nn.GroupNorm(2, dtype=jnp.bfloat16),
                  nn.BatchNorm(dtype=jnp.bfloat16), nn.Conv(8, 3, dtype=jnp.bfloat16), nn.ConvTranspose(8, 3, dtype=jnp.bfloat16),
                  nn.MultiHeadAttention(2, dtype=jnp.bfloat16), nn.LSTM(8, dtype=jnp.bfloat16), nn.GRU(8, dtype=jnp.bfloat16)):  # fmt: skip
        params = layer.init(key, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        assert layer(params, x).dtype == jnp.bfloat16
        assert {
            leaf.dtype
            for leaf in jax.tree.leaves(
                jax.jit(jax.grad(lambda p, layer=layer: layer(p, x).astype("float32").sum()))(params)
            )
        } == {jnp.dtype("float32")}
        small = dataclasses.replace(layer, dtype=None, param_dtype=jnp.bfloat16)
        assert small(small.init(key, x), x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    table = nn.Embedding(5, 8, dtype=jnp.bfloat16)
    assert table(table.init(key, ids), ids).dtype == jnp.bfloat16
    assert table.attend(table.init(key, ids), x).dtype == jnp.bfloat16


def attend(key, options=(), **given):
    layer, x = nn.MultiHeadAttention(2, **dict(options)), jnp.ones((2, 5, 4))
    return layer(layer.init(key, x), x, **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: nn.Sequential({"b": nn.Repeat(nn.Dense(5), 3)}).init(k, X),
         "at 'b', Repeat(Dense(5), 3): expected a layer whose output is like its input, f32[2,4], got f32[2,5]"),
        (lambda k: nn.Repeat(nn.Dense(4, dtype=jnp.bfloat16), 3).init(k, X),
         "Repeat(Dense(4, dtype=bfloat16), 3): expected a layer whose output is like its input, f32[2,4], got bf16[2,4]; cast the"
         " input, or give the layers dtype=, to have one dtype throughout"),
        (lambda k: nn.Repeat(nn.Sequential(nn.Dense(4), nn.Conv(3, (3, 3))), 3).init(k, X),
         "at ':/1', Conv(3, (3, 3)): expected an input of 2 axes of space and one of features, got f32[2,4]"),
        (lambda k: nn.Repeat(nn.Dense(4), 3)(nn.Repeat(nn.Dense(4), 2).init(k, X), X),
         "Repeat(Dense(4), 3): expected the parameters of 3 layers, got those of 2"),
        (lambda k: nn.Repeat(nn.Dense(4), 3)(nn.Repeat(nn.Dense(4), 3).init(k, X), jnp.ones((2, 5))),
         "at ':', Dense(4): expected 4 features for the kernel f32[4,4], got the input f32[2,5]"),
        (lambda k: nn.Residual(nn.Dense(3)).init(k, X), "Residual: expected an inner layer that keeps the shape, got f32[2,3] for f32[2,4]"),
        (lambda k: nn.Sequential({"a": nn.MultiHeadAttention(3)}).init(k, jnp.ones((2, 5, 8))),
         "at 'a', MultiHeadAttention(3): expected features that 3 heads divide, or head_dim=, got the input f32[2,5,8]"),
        (lambda k: nn.MultiHeadAttention(4, kv_heads=3),
         "MultiHeadAttention(4, kv_heads=3): expected heads that kv_heads divide, got 4 and 3"),
        (lambda k: nn.MultiHeadAttention(4, rotary=1e4).init(k, jnp.ones((2, 5, 12))),
         "MultiHeadAttention(4, rotary=10000.0): expected an even number of features in each head for rotary positions, got 3"),
        (lambda k: nn.MultiHeadAttention(2).init(k, jnp.ones((5, 8))),
         "MultiHeadAttention(2): expected an input of the shape (batch, time, features), got f32[5,8]"),
        (lambda k: nn.Sequential({"bn": nn.BatchNorm()})(nn.Sequential({"bn": nn.BatchNorm()}).init(k, X), X[:1], train=True),
         "at 'bn', BatchNorm(): expected more than one value for each feature in training, got the input f32[1,4]"),
        (lambda k: nn.GroupNorm(3).init(k, X), "GroupNorm(3): expected features that 3 groups divide, got the input f32[2,4]"),
        (lambda k: nn.Conv(8, 3, groups=3).init(k, jnp.ones((1, 9, 4))),
         "Conv(8, 3, groups=3): expected features that 3 groups divide, got 8"),
        (lambda k: nn.Conv(8, 3)(nn.Conv(8, 3).init(k, jnp.ones((1, 9, 4))), jnp.ones((1, 9, 5))),
         "Conv(8, 3): expected 4 features for the kernel f32[3,4,8], got the input f32[1,9,5]"),
        (lambda k: nn.Conv(8, 0), "Conv(8, 0): expected kernel_size to be a whole number of at least 1, or a tuple of them, got 0"),
        (lambda k: nn.Conv(8, 3, padding="same"), "Conv(8, 3, padding='same'): expected padding to be 'SAME', 'VALID', 'CAUSAL',"
         " 'CIRCULAR', 'REFLECT', 'REPLICATE', a number of at least 0, or for each axis one of these or"
         " (before, after), got 'same': write 'SAME'"),
        (lambda k: nn.LSTM(4).init(k, jnp.ones(4)), "LSTM(4): expected an input of an axis of time and one of features, got f32[4]"),
        (lambda k: nn.Dense(4, axis=(0, -1)), "Dense(4, axis=(0, -1)): expected axis to be the last axes, such as -1 or (-2, -1), got (0, -1)"),
        (lambda k: nn.Dense(4, axis=(-2, -1)).init(k, jnp.ones(4)), "Dense(4, axis=(-2, -1)): expected an input of at least 2 axes, got f32[4]"),
        (lambda k: nn.Parallel(nn.Dense(4), nn.Dense(3)).init(k, X),
         "Parallel: expected outputs of one shape to add up, or combine=, got f32[2,4], f32[2,3]"),
        (lambda k: nn.Parallel(), "Parallel: expected at least one layer"),
        (lambda k: nn.Conv(6, 9, padding="VALID")(nn.Conv(6, 9).init(k, jnp.ones((2, 8, 4))), jnp.ones((2, 8, 4))),
         "Conv(6, 9, padding='VALID'): expected an input that holds the window at least once, got f32[2,8,4]"),
        (lambda k: nn.Conv(6, 3, stride=(1, 2)).init(k, jnp.ones((2, 8, 4))),
         "Conv(6, 3, stride=(1, 2)): expected a stride of 1 entries, for the axes of space, got (1, 2)"),
        (lambda k: nn.Conv(6, 3, padding=((1, 2, 3),)), "Conv(6, 3, padding=((1, 2, 3),)): expected padding to be 'SAME', 'VALID',"
         " 'CAUSAL', 'CIRCULAR', 'REFLECT', 'REPLICATE', a number"
         " of at least 0, or for each axis one of these or (before, after), got ((1, 2, 3),)"),
        (lambda k: nn.MaxPool(2, stride=0), "MaxPool(2, stride=0): expected stride to be a whole number of at least 1, or a tuple of them, or None, got 0"),
        (lambda k: nn.MaxPool(2, padding=3),
         "MaxPool(2, padding=3): expected a padding below the window, which would else hold nothing"),
        (lambda k: nn.ConvTranspose(4, 3, padding=9)(nn.ConvTranspose(4, 3).init(k, jnp.ones((2, 8, 4))), jnp.ones((2, 8, 4))),
         "ConvTranspose(4, 3, padding=9): expected an output of at least one place on each axis, got [-8] for the input f32[2,8,4]"),
        (lambda k: nn.LayerNorm()({"scale": jnp.ones((4, 4)), "bias": jnp.zeros(4)}, X),
         "LayerNorm(): expected a scale of the shape (4,), got f32[4,4]"),
        (lambda k: nn.BatchNorm()({"scale": jnp.ones(4), "bias": jnp.ones(4), "mean": jnp.zeros(()), "var": jnp.ones(4)}, X),
         "BatchNorm(): expected a mean of the shape (4,), got f32[]"),
        (lambda k: nn.Dense(4)({"kernel": 2.0, "bias": 1.0}, X), "Dense(4): expected an array as kernel, got 2.0"),
        (lambda k: nn.Sequential({"d": nn.Dropout(0.5)})({}, X, train=True), "at 'd', Dropout(0.5): expected a key in training,"
         " key=jax.random.fold_in(key, step), got train=True and no key"),
        (lambda k: nn.Dropout(0.1)({}, jnp.arange(4), key=k), "Dropout(0.1): expected an input of floats with at least one axis, got i32[4]"),
        (lambda k: nn.LSTM(3)(nn.LSTM(3).init(k, jnp.ones((2, 5, 4))), jnp.ones((2, 5, 6))),
         "LSTM(3): expected 4 features for the input's kernel, got the input f32[2,5,6]"),
        (lambda k: nn.LSTM(3).run(nn.LSTM(3).init(k, jnp.ones((2, 5, 4))), jnp.ones((2, 5, 4)), (jnp.ones((1, 3)),) * 2),
         "LSTM(3): expected a state of 2 arrays of the shape (2, 3), got f32[1,3], f32[1,3]"),
        (lambda k: attend(k, mask=jnp.ones((2, 5), bool)),
         "MultiHeadAttention(2): expected a mask that broadcasts to bool[2, 2, 5, 5], of four axes, got bool[2,5]; write"
         " mask[:, None, None] for (batch, places)"),
        (lambda k: attend(k, mask=jnp.ones((2, 1, 1, 5))),
         "MultiHeadAttention(2): expected a mask that broadcasts to bool[2, 2, 5, 5], of four axes, got f32[2,1,1,5]; write"
         " mask != 0 for one of 0 and 1, bias= for what is added to the scores"),
        (lambda k: attend(k, context=jnp.ones((1, 5, 4))), "MultiHeadAttention(2): expected a context f32[2,places,features], got f32[1,5,4]"),
        (lambda k: attend(k, cache={}), "MultiHeadAttention(2): expected what cache(...) or the last call gave, got a cache with []"),
        (lambda k: attend(k, positions=jnp.arange(5)), "MultiHeadAttention(2): expected positions i32[2,5] or i32[1,5], got i32[5];"
         " write positions[None]"),
        (lambda k: attend(k, {"causal": True}, context=jnp.ones((2, 5, 4))), "MultiHeadAttention(2, causal=True): expected no"
         " cache, causal= or rotary= with a context, whose places have no order, got both"),
        (lambda k: nn.MultiHeadAttention(2, rotary=True),
         "MultiHeadAttention(2, rotary=True): expected rotary to be a finite number above 1, such as 1e4, a Rotary, or None, got True"),
        (lambda k: nn.MultiHeadAttention(2, implementation="foo"),
         "MultiHeadAttention(2, implementation='foo'): expected implementation to be None, 'xla' or 'cudnn', got 'foo'"),
        (lambda k: nn.Parallel({0: nn.Dense(4), "0": nn.Dense(4)}), "two layers of one name in Parallel: ['0', '0']"),
        (lambda k: nn.Parallel(nn.Dense(4), combine="concat"), "Parallel: expected a function of all outputs as combine, got 'concat'"),
        (lambda k: nn.Residual(nn.Dense), "Residual: expected a layer, got the class Dense; call it first"),
        (lambda k: nn.Repeat(nn.Dense(4), 2.0), "Repeat(Dense(4), 2.0): expected n to be a whole number of at least 1, got 2.0: write 2"),
        (lambda k: nn.Repeat(3, 3), "Repeat: expected a layer or a function, got 3"),
    ],
)  # fmt: skip
def test_layers_refuse_what_does_not_fit_and_say_where(key, call, message):
    says(pt.LayerError, message, call, key)


def test_floats_are_asked_for_by_every_layer_that_computes(key):
    ints = jnp.ones((2, 4, 8), int)
    for layer in (nn.Dense(2), nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(2), nn.BatchNorm(), nn.Conv(2, 3), nn.ConvTranspose(2, 3), nn.MaxPool(2),
                  nn.AvgPool(2), nn.MultiHeadAttention(2), nn.LSTM(3), nn.GRU(3)):  # fmt: skip
        with pytest.raises(
            pt.LayerError, match=r"expected an input of floats with at least one axis, got i32\[2,4,8\]"
        ):
            layer(layer.init(key, jnp.ones((2, 4, 8))), ints)


def test_a_sequence_longer_than_the_cache_is_refused(key):
    layer, x = nn.MultiHeadAttention(2, causal=True), jnp.ones((1, 5, 4))
    params = layer.init(key, x)
    cache = layer.cache(1, 8, head_dim=2)
    says(pt.LayerError, "MultiHeadAttention(2, causal=True): expected at most 8 places in all, the length of the cache, got 9 after"
         " the 0 it holds", layer, params, jnp.ones((1, 9, 4)), cache=cache)  # fmt: skip
    _, cache = layer(params, x, cache=cache)
    with pytest.raises(pt.LayerError, match="expected at most 8 places in all"):
        layer(params, x, cache=cache)
    with pytest.raises(
        pt.LayerError, match=r"expected a cache with k of the shape \(2, places, 2, 2\), got f32\[1,8,2,2\]"
    ):
        layer(params, jnp.ones((2, 5, 4)), cache=layer.cache(1, 8, head_dim=2))
    says(pt.LayerError, "MultiHeadAttention(2): expected head_dim= for the cache, which depends on the input",
         nn.MultiHeadAttention(2).cache, 1, 8)  # fmt: skip


# ------------------------------------------------------------------------------------ ids of an embedding


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("padding_idx", [None, 250])
def test_an_id_of_any_dtype_reads_its_row_or_nan(dtype, x64, padding_idx):
    """Also where JAX would wrap it: 2**32 is 0 in 32 bits, 300 is 44 in uint8, 255 is -1 in int8."""
    layer = nn.Embedding(300, 2, padding_idx=padding_idx)
    table = np.arange(600, dtype="float32").reshape(300, 2)
    limits = np.iinfo(dtype)
    candidates = [
        -(2**63),
        -(2**32),
        -1,
        0,
        44,
        127,
        250,
        255,
        299,
        300,
        2**16,
        2**31,
        2**32,
        2**32 + 44,
        2**63,
        2**64 - 1,
    ]
    ids = [number for number in candidates if limits.min <= number <= limits.max]
    expected = np.stack([table[number] if 0 <= number < 300 else np.full(2, np.nan) for number in ids])
    with jax.enable_x64(x64):
        np.testing.assert_array_equal(layer({"table": table}, np.array(ids, dtype)), expected)
        closed = jax.jit(lambda table: layer({"table": table}, np.array(ids, dtype)))
        np.testing.assert_array_equal(closed(table), expected)
        for number, row in zip(ids, expected):
            np.testing.assert_array_equal(layer({"table": table}, np.dtype(dtype).type(number)), row)
        if x64 or limits.bits < 64:  # otherwise JAX has made 32 bits of it before the layer sees it
            traced = jax.jit(lambda table, ids: layer({"table": table}, ids))
            np.testing.assert_array_equal(traced(table, np.array(ids, dtype)), expected)
            gradient = jax.grad(lambda table: jnp.nansum(layer({"table": table}, jnp.asarray(np.array(ids, dtype)))))(
                table
            )
            read = [number for number in ids if 0 <= number < 300 and number != padding_idx]
            assert sorted(read) == np.flatnonzero(gradient[:, 0]).tolist()


@pytest.mark.parametrize("padding_idx", [0, 3, -1, np.int64(2)])
def test_padding_has_a_row_of_zeros_and_no_gradient_as_in_pytorch(key, padding_idx):
    torch = pytest.importorskip("torch")
    peer = torch.nn.Embedding(6, 4, padding_idx=int(padding_idx))
    layer, ids = nn.Embedding(6, 4, padding_idx=padding_idx), np.array([[0, 1, 3], [5, 3, 2]])
    drawn = layer.init(key, ids)
    row = int(padding_idx) % 6
    assert not drawn["table"][row].any()
    others = np.arange(6) != row
    np.testing.assert_array_equal(drawn["table"][others], nn.Embedding(6, 4).init(key, ids)["table"][others])
    assert not nn.Repeat(layer, 2, scan=True).layer.init(key, ids)["table"][row].any()
    params = {"table": peer.weight.detach().numpy() + 1}  # the row is read as it is, also where it is not zero
    weights = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    with torch.no_grad():
        peer.weight += 1
    theirs = peer(torch.tensor(ids))
    (theirs * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(layer(params, ids), theirs.detach().numpy(), rtol=1e-6)
    for loss in (
        lambda p: (layer(p, ids) * weights).sum(),
        lambda p: (jax.jit(layer)(p, jnp.asarray(ids)) * weights).sum(),
    ):
        np.testing.assert_allclose(jax.grad(loss)(params)["table"], peer.weight.grad.numpy(), rtol=1e-6)


def test_a_tied_output_layer_still_trains_the_row_of_padding(key):
    """As in PyTorch, where `padding_idx` belongs to the lookup: the head reads the row too."""
    layer, ids = nn.Embedding(6, 4, padding_idx=0), np.array([0, 1, 3])
    params = layer.init(key, ids)
    gradient = jax.grad(lambda p: layer.attend(p, layer(p, ids) + 1).sum())(params)["table"]
    assert gradient[0].all()


def test_specs_of_equal_embeddings_with_padding_are_equal(key):
    one, other = nn.Embedding(6, 4, padding_idx=-6), nn.Embedding(6, 4, padding_idx=0)
    assert one == other
    assert one.spec(jnp.arange(3)) == other.spec(jnp.arange(3))
    assert repr(one) == "Embedding(6, 4, padding_idx=0)"
    assert pickle.loads(pickle.dumps(one)).spec(jnp.arange(3)) == one.spec(jnp.arange(3))
    for number in (6, -7):
        says(pt.LayerError, f"Embedding(6, 4, padding_idx={number}): expected a padding_idx from -6 to 5, got {number}",
             nn.Embedding, 6, 4, padding_idx=number)  # fmt: skip


# ------------------------------------------------------------------------------------ inputs of any dtype


INPUT = (2, 6, 8)
EVERY_LAYER = {
    "Dense": nn.Dense(3), "Conv": nn.Conv(4, 3), "ConvTranspose": nn.ConvTranspose(4, 3), "LayerNorm": nn.LayerNorm(),
    "RMSNorm": nn.RMSNorm(), "GroupNorm": nn.GroupNorm(2), "BatchNorm": nn.BatchNorm(), "LSTM": nn.LSTM(3), "GRU": nn.GRU(3),
    "MultiHeadAttention": nn.MultiHeadAttention(2), "MaxPool": nn.MaxPool(2), "AvgPool": nn.AvgPool(2),
    "Dropout": nn.Dropout(0.5), "Flatten": nn.Flatten(), "Embedding": nn.Embedding(9, 4),
}  # fmt: skip
TAKES_COMPLEX = {
    "Dense",
    "Conv",
    "ConvTranspose",
    "LayerNorm",
    "RMSNorm",
    "GroupNorm",
    "BatchNorm",
    "AvgPool",
    "Dropout",
    "Flatten",
}
TAKES_8_BITS = {"MaxPool", "AvgPool", "Dropout", "Flatten"}


def called_on(name, x):
    layer = EVERY_LAYER[name]
    params = layer.init(
        jax.random.key(0),
        jnp.ones(
            INPUT,
            int if name == "Embedding" else "complex64" if name == "BatchNorm" and jnp.iscomplexobj(x) else "float32",
        ),
    )
    options = {"key": jax.random.key(1)} if name == "Dropout" else {}
    return layer(params, x, **options)


@pytest.mark.parametrize("name", EVERY_LAYER)
def test_an_input_of_another_dtype_is_computed_with_or_refused_by_name(name):
    takes = {
        "complex64": name in TAKES_COMPLEX,
        "float8_e4m3fn": name in TAKES_8_BITS,
        "float8_e5m2": name in TAKES_8_BITS,
        "int32": name in {"Embedding", "Flatten"},
        "uint8": name in {"Embedding", "Flatten"},
        "bool": name == "Flatten",
    }
    for dtype, is_taken in takes.items():
        x = jnp.ones(INPUT, dtype)
        if is_taken:
            y = called_on(name, x)
            assert y.dtype == ("float32" if name == "Embedding" else dtype)
            assert np.isfinite(np.asarray(y, "complex64")).all()
            continue
        with pytest.raises(pt.LayerError) as raised:
            called_on(name, x)
        assert repr(EVERY_LAYER[name]) in str(raised.value) or "at 'q', Dense" in str(raised.value)
        assert describe(x) in str(raised.value)


@pytest.mark.parametrize("name", sorted(EVERY_LAYER.keys() - {"Flatten", "Embedding", "MaxPool", "Dropout"}))
def test_8_bit_floats_are_computed_with_in_the_dtype_that_is_asked_for(name):
    layer = EVERY_LAYER[name]
    if any(field.name == "dtype" for field in dataclasses.fields(layer)):
        layer = dataclasses.replace(layer, dtype=jnp.float32)
    x = jax.random.normal(jax.random.key(0), INPUT).astype("float8_e5m2")
    params = layer.init(jax.random.key(0), x.astype("float32"))
    expected = layer(params, x.astype("float32"))
    np.testing.assert_allclose(
        np.asarray(layer(params, x), "float32"), expected, rtol=0.2 if name == "AvgPool" else 1e-5
    )


@pytest.mark.parametrize(
    "name", sorted(TAKES_COMPLEX - {"Dropout", "Flatten", "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm"})
)
def test_a_layer_that_is_linear_takes_complex_numbers_by_their_parts(name):
    layer = EVERY_LAYER[name]
    if any(field.name == "use_bias" for field in dataclasses.fields(layer)):
        layer = dataclasses.replace(layer, use_bias=False)
    re, im = np.random.default_rng(0).normal(size=(2, *INPUT)).astype("float32")
    params = layer.init(jax.random.key(0), re)
    y = layer(params, re + 1j * im)
    np.testing.assert_allclose(y, layer(params, re) + 1j * layer(params, im), atol=1e-5)
    if "dtype" in {field.name for field in dataclasses.fields(layer)}:
        with pytest.raises(pt.LayerError, match=r"expected real numbers for dtype=f32, got c64\[2,6,8\]"):
            dataclasses.replace(layer, dtype="float32")(params, re + 1j * im)


def test_a_tensor_of_pytorch_is_refused_by_its_type():
    torch = pytest.importorskip("torch")
    got = "f32[2,6,8] of torch.Tensor: make it a NumPy array"
    for name in ("Dense", "LayerNorm", "MaxPool", "Flatten", "Embedding", "Conv"):
        with pytest.raises(pt.LayerError) as raised:
            called_on(name, torch.ones(INPUT))
        assert str(raised.value).endswith(got)
    net = nn.Sequential(nn.Dense(3))
    says(pt.LayerError, f"expected an input of arrays, got {got}", net.spec, torch.ones(INPUT))
    says(pt.LayerError, "expected an input of arrays, got 'text'", net.spec, "text")


def test_float64_of_numpy_is_taken_without_a_warning():
    for name in EVERY_LAYER.keys() - {"Embedding"}:
        assert called_on(name, np.ones(INPUT)).dtype in (jnp.float32, np.float64)


@pytest.mark.parametrize("has_64_bits", [False, True])
def test_parameters_of_64_bits_are_declared_so_and_traced_as_jax_computes(has_64_bits):
    """JAX 0.12 warns where it is to trace a shape in a dtype that it has not."""
    dense = functools.partial(nn.Dense, param_dtype="float64")
    net = nn.Sequential(dense(4), nn.Residual(nn.Sequential(dense(4))), nn.Parallel(dense(3), dense(3)))
    with jax.enable_x64(has_64_bits):
        spec = net.spec(jax.ShapeDtypeStruct((2, 4), "float64"))
        assert {leaf.dtype.name for leaf in jax.tree.leaves(spec)} == {"float64"}
        table = pt.convert.layer_table(net, jax.ShapeDtypeStruct((2, 4), "float64"), framework="torch")
        assert (
            len(table.plan(table.inverse.apply(jax.tree.map(lambda leaf: np.ones(leaf.shape), spec)), spec).steps) == 8
        )
        params = jax.tree.map(lambda leaf: np.ones(leaf.shape), spec)
        assert net(params, np.ones((2, 4))).dtype == ("float64" if has_64_bits else "float32")
        shapes = train.step(lambda params, x: net(params, x).sum(), optax.adam(0.1)).init(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes.params)} == {net(params, np.ones((2, 4))).dtype}


def test_a_sum_of_8_bit_floats_and_others_is_refused_by_the_container(key):
    x = jnp.ones((2, 8), "float8_e4m3fn")
    dense = nn.Dense(8, dtype="float32")
    for net, got in (
        (nn.Residual(dense), "f8_e4m3fn[2,8] and f32[2,8]"),
        (nn.Parallel(dense, nn.Dropout(0)), "f32[2,8] and f8_e4m3fn[2,8]"),
    ):
        message = (
            "expected dtypes that JAX promotes to one, or the option dtype=, such as dtype=jnp.float32, got " + got
        )
        with pytest.raises(pt.LayerError) as raised:
            net(net.init(key, x.astype("float32")), x)
        assert str(raised.value) == f"{net!r}: {message}"
