"""Layers that users write: dataclasses of several kinds, plain classes, subclasses, and objects that are no Layer."""

import dataclasses
import functools
import pickle
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Half(nn.Layer):
    pass


@dataclass(frozen=True)
class WithForward(nn.Layer):
    def forward(self, params, x):
        return x


@dataclass(frozen=True)
class WithCall(nn.Layer):
    def call(self, params, x):
        return x


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        (Half(), ""),
        (WithForward(), "; forward is called apply in ptree"),
        (WithCall(), "; call is called apply in ptree"),
    ],
)
def test_a_layer_without_apply_says_what_is_missing_and_where(layer, hint):
    text = f"{type(layer).__name__}: expected a method apply(self, params, x), which gives the output{hint}"
    says(pt.LayerError, text, layer, {}, X)
    says(pt.LayerError, text, jax.jit(layer), {}, X)
    for net, path in (
        (nn.Sequential({"a": layer}), "a"), (nn.Residual(nn.Sequential(layer)), "inner/0"), (nn.Repeat(layer, 2), ":"),
        (nn.Parallel(nn.Dense(4), layer), "1"),
    ):  # fmt: skip
        says(pt.LayerError, f"at '{path}', {text}", net.init, KEY, X)


class SpecAlone:
    def spec(self, x):
        return {}


def test_an_object_with_a_spec_and_no_call_is_told_so():
    text = "expected a layer or a function, got SpecAlone; it has spec(x), but no __call__(self, params, x)"
    says(pt.LayerError, f"at '0', Sequential: {text}", nn.Sequential, SpecAlone())
    says(pt.LayerError, f"Residual: {text}", nn.Residual, SpecAlone())
    says(pt.LayerError, f"Repeat: {text}", nn.Repeat, SpecAlone(), 2)


@dataclass(frozen=True)
class Declares(nn.Layer):
    """Declares what it is given, or what a function of itself and the input gives."""

    what: Any
    inner: Any = field(default_factory=lambda: nn.Dense(4))

    def declare(self, x):
        return self.what(self, x) if callable(self.what) else self.what

    def apply(self, params, x):
        return x


@pytest.mark.parametrize(
    ("what", "got"),
    [
        (lambda self, x: {"a": self.inner}, "at 'a' the layer Dense(4): write its spec(x)"),
        (lambda self, x: {"a": [self.inner, self.inner.spec(x)]}, "at 'a/0' the layer Dense(4): write its spec(x)"),
        (lambda self, x: {"a": self.inner.spec}, "at 'a' the method spec: call it, spec(x)"),
        ({"a": nn.Dense}, "at 'a' the class Dense: call it first"),
        ({"a": pt.Param}, "at 'a' the class Param: call it first"),
        ({"a": jnp.tanh, "b": pt.Param((3,))}, "at 'a' the function tanh: it has no parameters, leave it out"),
        ({"a": pt.initializers.zeros}, "at 'a' the initialiser zeros: write Param(shape, init=zeros)"),
        ({"a": "zeros"}, "at 'a' 'zeros': write Param(shape, dtype, init=...)"),
        ({"a": jax.ShapeDtypeStruct((3,), "float32")}, "at 'a' f32[3]: write Param(shape, dtype, init=...)"),
        ({"a": (3, 4)}, "at 'a/0' 3: write Param(shape, dtype, init=...); at 'a/1' 4: write Param(shape, dtype, init=...)"),
        (None, "NoneType; is there a `return`?"),
        (pt.Param((3,)), "Param"),
    ],
)  # fmt: skip
def test_what_declare_gives_instead_of_parameters_is_told_with_the_fix(what, got):
    layer = Declares(what)
    text = f"Declares: expected parameters from declare, Param by name, got {got}"
    says(pt.LayerError, text, layer.spec, X)
    says(pt.LayerError, text, layer.init, KEY, X)
    says(pt.LayerError, f"at 'block', {text}", nn.Sequential({"block": layer}).init, KEY, X)


def torch_module():
    return pytest.importorskip("torch").nn.Linear(4, 3)


def equinox_module():
    return pytest.importorskip("equinox").nn.Linear(4, 3, key=KEY)


def linen_module():
    return pytest.importorskip("flax.linen").Dense(3)


def nnx_module():
    nnx = pytest.importorskip("flax.nnx")
    return nnx.Linear(4, 3, rngs=nnx.Rngs(0))


def keras_module():
    return pytest.importorskip("keras").layers.Dense(3)


ELSEWHERE = (
    "whose parameters would not be in the tree: write a layer around it, with spec(x) and a call (params, x), or lambda x:"
    " module(x) if they are to stay as they are"
)
MODULES = [
    (torch_module, "Linear of torch"), (equinox_module, "Linear of equinox"), (linen_module, "Dense of flax"),
    (nnx_module, "Linear of flax"), (keras_module, "Dense of keras"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name"), MODULES, ids=[name for _, name in MODULES])
def test_a_module_of_another_library_is_no_function_without_parameters(make, name):
    module = make()
    says(pt.LayerError, f"at '1', Sequential: expected a layer or a function, got a {name}, {ELSEWHERE}",
         nn.Sequential, nn.Dense(4), module)  # fmt: skip
    says(pt.LayerError, f"Lambda: expected a function, got a {name}, {ELSEWHERE}", nn.Lambda, module)
    layer = Declares(lambda self, x: {"inner": self.inner.spec(x)}, module)
    says(pt.LayerError, f"Declares: expected a layer in the field 'inner', got a {name}, {ELSEWHERE}", layer.spec, X)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (jnp.tanh, "the function tanh: give nn.Lambda(tanh), or call it in apply and declare nothing for it"),
        (jax.nn.relu, "the function relu: give nn.Lambda(relu), or call it in apply and declare nothing for it"),
        (functools.partial(jnp.sum, axis=0), "the function sum: give nn.Lambda(sum), or call it in apply and declare nothing for it"),
        (None, "None"),
        (nn.Dense, "the class Dense: call it first"),
        ([nn.Dense(3)], "a list: write Sequential(*layers), or declare each of them"),
        (3, "3"),
    ],
)  # fmt: skip
def test_a_field_that_holds_no_layer_is_named_with_the_fix(value, got):
    layer = Declares(lambda self, x: {"inner": self.inner.spec(x)}, value)
    text = f"Declares: expected a layer in the field 'inner', got {got}"
    says(pt.LayerError, text, layer.spec, X)
    says(pt.LayerError, f"at 'a/inner', {text}", nn.Sequential({"a": nn.Residual(layer)}).init, KEY, X)
    elsewhere = Declares(lambda self, x: {"inner": value.spec(x)})
    with pytest.raises((pt.LayerError, AttributeError)):
        elsewhere.spec(X)


def test_an_attribute_error_of_ones_own_stays_what_it_is():
    layer = Declares(lambda self, x: {"a": self.nothing})
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        layer.spec(X)


def test_what_is_recommended_for_functions_in_fields_works():
    layer = Declares(lambda self, x: {"inner": self.inner.spec(x)}, nn.Lambda(jnp.tanh))
    assert len(layer.init(KEY, X)["inner"]) == 0
    kept = nnx_module()
    assert nn.Sequential(lambda x: kept(x), nn.Dense(2)).init(KEY, X)["1/kernel"].shape == (3, 2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("options", [{}, {"scan": False}, {"shared": True}, {"remat": True}, {"unroll": True}])
def test_a_repeated_layer_that_changes_the_dtype_is_named(dtype, options):
    net = nn.Sequential({"a": nn.Repeat(nn.Dense(4), 2, **options)})
    params, short = net.init(KEY, X), {"bfloat16": "bf16", "float16": "f16"}[dtype]
    text = (
        f"at 'a', {net['a']!r}: expected a layer whose output is like its input, {short}[2,4], got f32[2,4]; cast the input,"
        " or give the layers dtype=, to have one dtype throughout"
    )
    for call in (net, jax.jit(net), lambda p, x: net.init(KEY, x), net.updated if not options.get("shared") else net):
        says(pt.LayerError, text, call, params, X.astype(dtype))
    throughout = nn.Repeat(nn.Dense(4, dtype=dtype), 2, **options)
    assert throughout(params["a"], X.astype(dtype)).dtype == dtype


def test_a_repeated_layer_that_changes_the_shape_or_the_structure_is_named():
    twice = nn.Lambda(lambda x: jnp.concatenate([x, x], -1), "twice")
    pair = nn.Lambda(lambda x: (x, x), "pair")
    text = "Repeat(Lambda({}), 2): expected a layer whose output is like its input, f32[2,4], got {}"
    for layer, got in ((twice, "f32[2,8]"), (pair, "('f32[2,4]', 'f32[2,4]')")):
        says(pt.LayerError, text.format(layer.name, got), nn.Repeat(layer, 2), {}, X)
        nested = nn.Residual(nn.Repeat(layer, 2))
        says(pt.LayerError, "at 'inner', " + text.format(layer.name, got), nested.init, KEY, X)
    deep = nn.Repeat(nn.Repeat(twice, 2), 3)
    says(pt.LayerError, "at ':', " + text.format("twice", "f32[2,8]"), deep, {}, X)
    swap = nn.Repeat(lambda x: {"a": x["b"], "b": x["a"]}, 3)  # any pytree that stays as it is
    assert float(swap({}, {"a": X, "b": 2 * X})["a"][0, 0]) == 2


# ---------------------------------------------------------------------------- containers give back what they were given


def test_containers_keep_what_they_were_given():
    one, dense = Object(), nn.Dense(4)
    given = [jnp.tanh, dense, one, nn.Lambda(abs)]
    net = nn.Sequential(*given)
    assert all(net[at] is part for at, part in enumerate(given))
    assert [*net] == given
    assert [*reversed(net)] == given[::-1]
    assert [part for _, part in net.layers] == given
    assert nn.Sequential({"act": jnp.tanh})["act"] is jnp.tanh
    assert net[:1][0] is jnp.tanh
    assert (net + nn.Sequential(one))[-1] is one
    assert [part for _, part in nn.Parallel(jnp.tanh, one).layers] == [jnp.tanh, one]
    assert nn.Residual(jnp.tanh).inner is jnp.tanh
    assert nn.Repeat(one, 2).layer is one
    assert all(isinstance(layer, nn.Layer) for _, layer in net.parts())
    assert net(net.init(KEY, X), X).shape == (2, 4)


def test_a_sequential_is_a_sequence():
    dense = nn.Dense(8)
    net = nn.Sequential(dense, jnp.tanh, nn.Dense(8), nn.Dense(1))
    assert isinstance(net, Sequence)
    assert not isinstance(nn.Parallel(dense), Sequence)
    assert (net.index(jnp.tanh), net.index(nn.Dense(8)), net.index(dense, 1), net.index(dense, -3, -1)) == (1, 0, 2, 2)
    assert (net.count(dense), net.count(jnp.tanh), net.count(jnp.sin)) == (2, 1, 0)
    assert jnp.tanh in net
    assert nn.Dense(1) in net
    assert "1" in net
    assert nn.Dense not in net
    assert 3 not in net
    assert [*Sequence.__iter__(net)] == [*net]  # by position, until an IndexError
    assert net[np.int64(-1)] == nn.Dense(1)
    match net:
        case [first, *_, last]:
            assert (first, last) == (dense, nn.Dense(1))
    says(pt.LayerError, "no layer Dense(3) in Sequential, or not within these bounds", net.index, nn.Dense(3))
    for bad in (4, -5, "b", 1.0, None):
        with pytest.raises(IndexError, match=r"no layer .* in Sequential: there are"):
            net[bad]
    shared = nn.Sequential(dense, dense)
    assert shared.count(dense) == 2
    assert pt.ties(shared.spec(jnp.ones((2, 8)))) == {"1/kernel": "0/kernel", "1/bias": "0/bias"}


def test_nonsense_in_the_place_of_a_function_or_a_count_is_refused():
    for make in (lambda: nn.Repeat(nn.Dense(4), True), lambda: nn.Repeat(nn.Dense(4), 2.0), lambda: nn.Lambda(3)):
        with pytest.raises(pt.LayerError, match="expected"):
            make()
    for given in (nn.Dense, nn.Dense(3)):
        says(pt.LayerError, "Lambda: expected a function, got the layer Dense, which needs no Lambda", nn.Lambda, given)
    assert nn.Lambda(jnp.float32)({}, jnp.int32(1)).dtype == "float32"  # a class that is a function


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
    with pytest.raises(
        pt.LayerError, match="like its input"
    ):  # the loop is traced anew, and an output of floats does not fit
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


class CalledWithX:
    """A function with a state, and no layer."""

    by = 2.0

    def __call__(self, x):
        return x * self.by


@pytest.mark.parametrize("make", [Object, CalledWithX])
def test_an_object_of_another_class_that_can_change_is_never_compiled_with_an_old_value(make):
    one = make()
    nets = [
        nn.Sequential(one),
        nn.Residual(one),
        nn.Parallel(one),
        nn.Repeat(one, 1),
        nn.Sequential(nn.Sequential(one)),
    ]
    x = jnp.ones(1)
    for by in (2.0, 5.0):
        one.by = by
        for net in nets:
            params, expected = net.init(KEY, x), by + isinstance(net, nn.Residual)
            assert float(jax.jit(lambda p, x, net=net: net(p, x))(params, x)[0]) == expected, net
            assert float(net(params, x)[0]) == expected, net


def test_functions_of_libraries_do_not_keep_a_network_from_being_compiled():
    functions = [
        jax.nn.relu,
        jnp.tanh,
        jnp.sin,
        functools.partial(jnp.sum, axis=0),
        jax.lax.stop_gradient,
        np.tanh,
        abs,
    ]
    for function in functions:
        assert nn.Sequential(nn.Dense(4), function)._identity.is_constant, function


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
    assert says(pt.LayerError, "Gained(units=3): units is called features in ptree", lambda: Gained(units=3))


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
    assert all(isinstance(layer, nn.Layer) for _, layer in net.parts())
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
    (nn.LSTM(8), {"reverse": True}), (nn.GRU(8), {"unroll": 2}), (nn.RNN(8), {"activation": jax.nn.relu}),
    (nn.Bidirectional(nn.LSTM(8)), {"forward": nn.GRU(8)}), (nn.LSTM(8), {"forget_bias": 1.0}), (nn.MaxPool(2), {"stride": 1}),
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
