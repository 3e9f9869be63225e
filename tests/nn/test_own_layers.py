"""Layers that users write: dataclasses of several kinds, plain classes, subclasses, and objects that are no Layer."""

import dataclasses
import functools
import pickle
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says

import ptree as pt
from ptree import nn

X = jnp.ones((2, 4))
KEY = jax.random.key(0)


@dataclass(frozen=True)
class Scaled(nn.Layer):
    """With the equality of a dataclass."""

    inner: nn.Layer
    by: float = 2.0

    def declare(self, x):
        return {"inner": self.inner.spec(x), "scale": pt.Param((), init=pt.initializers.ones)}

    def apply(self, params, x):
        return self.by * params["scale"] * self.inner(params["inner"], x)


@dataclass(frozen=True, eq=False)
class Strict(nn.Layer):
    """With the equality of ptree's own layers."""

    inner: nn.Layer | None = None
    by: Any = 1
    again: nn.Layer | None = None

    def declare(self, x):
        return {name: part.spec(x) for name, part in self.parts()}

    def apply(self, params, x):
        return x * self.by


@dataclass(frozen=True, slots=True)
class Slotted(nn.Layer):
    """Fields in slots."""

    by: float = 1.0

    def declare(self, x):
        return {"w": pt.Param(x.shape[-1:], init=pt.initializers.constant(self.by))}

    def apply(self, params, x):
        return x * params["w"]


class Plain(nn.Layer):
    """Not a dataclass."""

    def __init__(self, width):
        self.width = width

    def declare(self, x):
        return {"w": pt.Param((x.shape[-1], self.width), init=pt.initializers.ones)}

    def apply(self, params, x):
        return x @ params["w"]


class Object:
    """No Layer at all."""

    def __init__(self, by=3.0):
        self.by = by

    def spec(self, x):
        return {"w": pt.Param((x.shape[-1],), init=pt.initializers.ones)}

    def __call__(self, params, x, *, key=None):
        return x * params["w"] * self.by * (1 if key is None else 0)


@pytest.mark.parametrize(
    ("layer", "paths", "value"),
    [
        (Scaled(nn.Lambda(jnp.negative)), ["scale"], -2),
        (Scaled(nn.Dense(4, kernel_init=pt.initializers.ones)), ["inner/kernel", "inner/bias", "scale"], 8),
        (Strict(), [], 1),
        (Slotted(5.0), ["w"], 5),
        (Plain(4), ["w"], 4),
        (Object(), ["w"], 3),
    ],
)
def test_a_layer_of_any_style_works_alone_in_containers_and_under_transforms(layer, paths, value):
    tree = pt.init(layer.spec(X), KEY)
    assert pt.paths(tree) == paths
    assert float(layer(tree, X)[0, 0]) == value
    for net, factor in (
        (nn.Sequential(layer), 1), (nn.Residual(layer), None), (nn.Parallel(layer, layer), 2), (nn.Repeat(layer, 2), value)
    ):  # fmt: skip
        params = net.init(KEY, X)
        expected = 1 + value if factor is None else value * factor
        for call in (net, jax.jit(net)):
            assert float(call(params, X)[0, 0]) == expected, net
        grads = jax.jit(jax.grad(lambda p, net=net: net(p, X).sum()))(params)
        assert jax.tree.structure(grads) == jax.tree.structure(params)


def test_declare_may_give_a_tree_nested_dicts_or_nothing():
    @dataclass(frozen=True)
    class Nested(nn.Layer):
        kind: str

        def declare(self, x):
            leaf = pt.Param(x.shape[-1:], init=pt.initializers.ones)
            return {"tree": pt.Tree({"a/b": leaf}), "dict": {"a": {"b": leaf}}, "list": {"a": [leaf]}}[self.kind]

        def apply(self, params, x):
            return x

    assert [pt.paths(Nested(kind).spec(X)) for kind in ("tree", "dict", "list")] == [["a/b"], ["a/b"], ["a/0"]]
    assert nn.Lambda(jnp.tanh).spec(X) == pt.Tree()
    assert type(Nested("dict").spec(X)) is pt.Tree


def test_a_layer_without_apply_says_what_is_missing():
    @dataclass(frozen=True)
    class Half(nn.Layer):
        pass

    says(NotImplementedError, "Half has no `apply(self, params, x)`", Half(), {}, X)


# ---------------------------------------------------------------------------- equality


def test_with_eq_false_layers_compare_with_types_and_sharing():
    one = nn.Dense(4)
    assert Strict(one, 1) == Strict(nn.Dense(4), 1)
    assert len({Strict(one, 1), Strict(nn.Dense(4), 1)}) == 1
    for other in (Strict(one, 1.0), Strict(one, True), Strict(nn.Dense(5), 1), nn.Dense(4)):
        assert Strict(one, 1) != other
    assert Strict(one, 0.0) != Strict(one, -0.0)
    assert Strict(one, (1, 2)) != Strict(one, (1, 2.0))
    shared, apart = Strict(one, 1, one), Strict(one, 1, nn.Dense(4))
    assert shared != apart
    assert shared == Strict(one, 1, one)
    assert pt.ties(shared.spec(X)) == {"again/kernel": "inner/kernel", "again/bias": "inner/bias"}
    assert pt.ties(apart.spec(X)) == {}
    draw = jax.jit(lambda net: net.init(KEY, X), static_argnums=0)
    assert [len(pt.ties(draw(net))) for net in (shared, apart)] == [2, 0]


def test_with_the_equality_of_a_dataclass_calls_are_still_never_mixed_up():
    @dataclass(frozen=True)
    class Times(nn.Layer):
        by: Any

        def apply(self, params, x):
            return x * self.by

    assert Times(1) == Times(1.0) == Times(True)
    for by, dtype in ((1, "int32"), (1.0, "float32"), (True, "int32"), (1, "int32")):
        for net in (Times(by), nn.Sequential(Times(by)), nn.Residual(Times(by)), nn.Parallel(Times(by))):
            y = jax.eval_shape(lambda x, net=net: net({}, x), jnp.int32(1))
            assert y.dtype == dtype, (by, net)
    assert nn.Repeat(Times(1), 2)({}, jnp.int32(1)).dtype == "int32"
    with pytest.raises(TypeError, match="carry"):  # the loop is traced anew, and an output of floats does not fit
        nn.Repeat(Times(1.0), 2)({}, jnp.int32(1))
    assert nn.Sequential(Times(1)) != nn.Sequential(Times(1.0))
    one = nn.Dense(4)

    @dataclass(frozen=True)
    class Pair(nn.Layer):
        first: nn.Layer
        second: nn.Layer

        def declare(self, x):
            return {"first": self.first.spec(x), "second": self.second.spec(x)}

        def apply(self, params, x):
            return self.second(params["second"], self.first(params["first"], x))

    assert Pair(one, one) == Pair(nn.Dense(4), nn.Dense(4))  # as a dataclass compares
    assert nn.Sequential(Pair(one, one)) != nn.Sequential(Pair(nn.Dense(4), nn.Dense(4)))
    assert len(pt.ties(Pair(one, one).spec(X))) == 2
    assert pt.ties(Pair(nn.Dense(4), nn.Dense(4)).spec(X)) == {}


def test_shapes_are_not_taken_from_a_layer_that_only_compares_equal():
    @dataclass(frozen=True)
    class Wide(nn.Layer):
        by: Any = field(compare=False)

        def apply(self, params, x):
            return jnp.concatenate([x] * self.by, -1)

    assert Wide(1) == Wide(3)
    assert nn.Sequential(Wide(1), nn.Dense(2)).spec(X)["1/kernel"].shape == (4, 2)
    assert nn.Sequential(Wide(3), nn.Dense(2)).spec(X)["1/kernel"].shape == (12, 2)


@dataclass
class Changing(nn.Layer):
    by: float

    def apply(self, params, x):
        return self.by * x


def test_a_layer_that_can_change_is_never_compiled_with_an_old_value():
    layer = Changing(2.0)
    nets = [layer, nn.Sequential(layer), nn.Residual(layer), nn.Repeat(layer, 2), nn.Sequential(nn.Sequential(layer))]
    run = lambda net: float(jax.jit(lambda x: net({}, x))(jnp.float32(1)))
    assert [run(net) for net in nets] == [2, 2, 3, 4, 2]
    layer.by = 5.0
    assert [run(net) for net in nets] == [5, 5, 6, 25, 5]
    assert [float(net({}, jnp.float32(1))) for net in nets] == [5, 5, 6, 25, 5]
    assert nn.Sequential(layer) == nn.Sequential(layer)
    assert nn.Sequential(layer) != nn.Sequential(Changing(5.0))


def test_fields_without_a_hash_are_fine():
    @dataclass(frozen=True)
    class Holds(nn.Layer):
        table: Any

        def apply(self, params, x):
            return x * jnp.asarray([2.0] if isinstance(self.table, dict) else self.table)

    for table in ({"a": 2.0}, [2.0], np.full(4, 2.0, "float32"), jnp.full(4, 2.0)):
        for net in (Holds(table), nn.Sequential(Holds(table)), nn.Repeat(Holds(table), 1)):
            assert float(jax.jit(lambda x, net=net: net({}, x))(X)[0, 0]) == 2
    with pytest.raises(TypeError):
        hash(nn.Sequential(Holds({"a": 2.0})))


def test_cached_properties_do_not_make_a_layer_another():
    @dataclass(frozen=True, eq=False)
    class Cached(nn.Layer):
        width: int

        @functools.cached_property
        def inner(self):
            return nn.Dense(self.width)

        def declare(self, x):
            return {"inner": self.inner.spec(x)}

        def apply(self, params, x):
            return self.inner(params["inner"], x)

    one, two = Cached(3), Cached(3)
    params = one.init(KEY, X)
    assert one(params, X).shape == (2, 3)
    assert one == two
    assert hash(one) == hash(two)
    assert "inner" in vars(one)
    assert "inner" not in one.__getstate__()


def test_layers_pickle_without_what_they_keep():
    for layer in (nn.Sequential(nn.Dense(4), nn.Lambda(abs)), Scaled(nn.Dense(3)), Plain(3), nn.Sequential(Object())):
        spec = layer.spec(X)
        hash(layer)
        again = pickle.loads(pickle.dumps(layer))
        assert not [name for name in vars(again) if name.startswith("_")]
        assert again.spec(X) == spec


# ---------------------------------------------------------------------------- subclasses


def test_a_subclass_of_a_layer_adds_to_what_it_declares_and_computes():
    @dataclass(frozen=True, eq=False, repr=False)
    class Gained(nn.Dense):
        gain: float = 2.0

        def declare(self, x):
            return {**super().declare(x), "gain": pt.Param((), init=pt.initializers.constant(self.gain))}

        def apply(self, params, x):
            return params["gain"] * super().apply(params, x)

    @dataclass(frozen=True, eq=False, repr=False)
    class Shifted(Gained):
        def apply(self, params, x):
            return 1 + super().apply(params, x)

    net = nn.Sequential(Shifted(3, kernel_init=pt.initializers.ones), nn.Dense(1))
    params = net.init(KEY, X)
    assert pt.paths(params["0"]) == ["kernel", "bias", "gain"]
    assert float(net[0](params["0"], X)[0, 0]) == 9
    assert jax.jit(net)(params, X).shape == (2, 1)
    assert Shifted(3) != Gained(3)
    assert repr(Shifted(3, use_bias=False)) == "Shifted(3, use_bias=False)"
    assert says(pt.LayerError, "Gained(units=3): units is called features here", lambda: Gained(units=3))


def test_a_subclass_with_a_constructor_of_its_own_says_what_it_takes():
    class Ladder(nn.Sequential):
        def __init__(self, *widths):
            super().__init__(*[nn.Dense(width) for width in widths])

    net = Ladder(8, 4, 2)
    assert len(net) == 3
    assert net(net.init(KEY, X), X).shape == (2, 2)


def test_a_layer_that_overrides_the_call_itself_still_gets_its_options():
    @dataclass(frozen=True)
    class Direct(nn.Layer):
        def __call__(self, params, x, *, key=None):
            return x if key is None else 0 * x

    net = nn.Sequential(Direct())
    assert float(net({}, X).sum()) == 8
    assert float(net({}, X, key=KEY).sum()) == 0


# ---------------------------------------------------------------------------- objects that are no Layer


def test_an_object_that_is_no_layer_is_wrapped_once_and_shares_by_object():
    one = Object()
    net = nn.Sequential(one, nn.Sequential({"a": one, "b": Object()}), jnp.tanh)
    assert pt.ties(net.spec(X)) == {"1/a/w": "0/w"}
    assert all(isinstance(layer, nn.Layer) for layer in net)
    params = net.init(KEY, X)
    assert float(abs(net(params, X, key=KEY)).max()) == 0
    assert nn.Sequential(one) == nn.Sequential(one)
    assert nn.Sequential(one) != nn.Sequential(Object())
    held = Strict(one, 1, one)  # in a field of a layer, where nothing wraps it
    assert pt.ties(held.spec(X)) == {"again/w": "inner/w"}


def test_an_object_that_is_no_layer_updates_its_statistics():
    class Counts(Object):
        statistics = ("w",)

        def updated(self, params, x, *, key=None):
            return self(params, x), {"w": params["w"] + 1}

    net = nn.Sequential(Counts(), jnp.tanh)
    params = net.init(KEY, X)
    _, new = net.updated(params, X)
    assert float(new["0/w"][0]) == 2
    _, same = nn.Sequential(Object()).updated(params, X)
    assert same is params


# ---------------------------------------------------------------------------- replace

EVERY = [
    (nn.Dense(8), {"features": 4}), (nn.Embedding(9, 4), {"dtype": jnp.bfloat16}), (nn.Conv(8, 3), {"stride": 2}),
    (nn.ConvTranspose(8, 3), {"groups": 2}), (nn.LayerNorm(), {"epsilon": 0.1}), (nn.RMSNorm(), {"epsilon": 0.1}),
    (nn.GroupNorm(2), {"groups": 4}), (nn.BatchNorm(), {"momentum": 0.5}), (nn.MultiHeadAttention(4), {"causal": True}),
    (nn.LSTM(8), {"reverse": True}), (nn.GRU(8), {"unroll": 2}), (nn.MaxPool(2), {"stride": 1}),
    (nn.AvgPool(2), {"count_padding": False}), (nn.Dropout(0.5), {"rate": 0.1}), (nn.Lambda(jnp.tanh), {"name": "tanh"}),
    (nn.Sequential(nn.Dense(8), jnp.tanh), {"layers": (("a", nn.Dense(3)), ("b", jnp.tanh))}),
    (nn.Parallel(nn.Dense(8), jnp.tanh), {"combine": jnp.maximum}), (nn.Residual(nn.Dense(8)), {"inner": jnp.tanh}),
    (nn.Repeat(nn.Dense(8), 3), {"n": 4}), (nn.Repeat(jnp.tanh, 3), {"layer": nn.Dense(8)}),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "changes"), EVERY, ids=[f"{type(layer).__name__}-{[*new]}" for layer, new in EVERY])
def test_dataclasses_replace_works_for_every_layer(layer, changes):
    assert dataclasses.replace(layer) == layer
    assert hash(dataclasses.replace(layer)) == hash(layer)
    other = dataclasses.replace(layer, **changes)
    assert other != layer
    assert type(other) is type(layer)
    assert dataclasses.replace(other, **{name: getattr(layer, name) for name in changes}) == layer


def test_every_layer_is_in_the_test_of_replace():
    assert {type(layer).__name__ for layer, _ in EVERY} == {*nn.__all__} - {"Layer", "Flatten", "Rotary"}


def test_replace_keeps_what_is_shared():
    shared = nn.Dense(4)
    net = dataclasses.replace(nn.Parallel(shared, shared), combine=jnp.maximum)
    assert len(pt.ties(net.spec(X))) == 2
    says(pt.LayerError, "Sequential: expected layers one by one or as layers=, got both",
         lambda: nn.Sequential(shared, layers=(("a", shared),)))  # fmt: skip
