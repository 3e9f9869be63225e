"""tie, untie, ties, and what they refuse."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from trees import arange, dense, language_model, mlp

import ptree as pt
from ptree import initializers as I
from ptree import nn


def test_a_tie_is_one_leaf_with_two_names():
    params = pt.tie(mlp(), {"4": "2"})
    assert len(jax.tree.leaves(params)) == 6
    assert pt.summary(params).count == pt.summary(mlp()).count - 72
    assert pt.ties(params) == {"4/kernel": "2/kernel", "4/bias": "2/bias"}
    assert pt.tie(params, {"4": "2"}) is params
    assert pt.tie(params, {}) is params


def test_ties_before_and_after_init_are_the_same():
    spec = pt.Tree(
        {"embed": {"table": pt.Param((10, 4))}, "head": {"kernel": pt.Param((4, 10)), "bias": pt.Param((10,))}}
    )
    table = {"head/kernel": pt.transposed("embed/table")}
    rules, key = {"embed": I.normal(1.0), "**/bias": I.zeros}, jax.random.key(0)
    before = pt.init(pt.tie(spec, table), key, rules)
    after = pt.tie(pt.init(spec, key, {**rules, "head/kernel": I.zeros}), table)
    chex.assert_trees_all_equal(before, after)
    assert spec["head/kernel"].shape == (4, 10)
    assert pt.tie(spec, table)["head/kernel"].shape == (4, 10)


def test_chains_collapse_and_two_transposes_cancel():
    tree = pt.tie(
        {"a": arange(2, 3), "b": arange(3, 2), "c": arange(2, 3)}, {"c": pt.transposed("b"), "b": pt.transposed("a")}
    )
    assert pt.ties(tree) == {"b": pt.transposed("a"), "c": "a"}
    assert repr(pt.ties(tree)["b"]) == "transposed('a')"
    three = pt.tie({"a": 1, "b": 1, "c": 1}, {"c": "b", "b": "a"})
    assert pt.ties(three) == {"b": "a", "c": "a"}
    assert pt.ties(pt.tie(pt.tie({"a": 1, "b": 1, "c": 1}, {"c": "b"}), {"b": "a"})) == {"b": "a", "c": "a"}


def test_a_tie_lives_in_the_lowest_node_that_holds_both_ends():
    tree = pt.tie({"enc": mlp(), "dec": mlp()}, {"enc/4": "enc/2", "dec/0": "enc/0"})
    assert pt.ties(tree["enc"]) == {"4/kernel": "2/kernel", "4/bias": "2/bias"}
    assert pt.ties(tree["dec"]) == {}
    assert tree["dec"]["0"] is tree["enc"]["0"]
    assert list(tree["dec"]) == ["0", "2", "4", "6"]


def test_untie_gives_each_name_an_array_of_its_own():
    params = pt.tie(mlp(), {"4": "2"})
    apart = pt.untie(params)
    assert apart["4/kernel"] is not apart["2/kernel"]
    chex.assert_trees_all_equal(apart["4"], apart["2"])
    says(pt.PatternError, "the pattern '2' matches nothing: at the root there are ['4'].", pt.untie, params, "2")
    assert pt.ties(pt.untie(params, "4/bias")) == {"4/kernel": "2/kernel"}
    assert pt.untie(apart) is apart
    expected = np.asarray(params["2/bias"]) + 1
    donated = jax.jit(lambda p: jax.tree.map(lambda leaf: leaf + 1, p), donate_argnums=0)(apart)
    assert (donated["4/bias"] == expected).all()


def test_a_tied_model_trains_as_one_written_with_one_leaf():
    tied = pt.tie({"a": dense(3, 3), "b": dense(3, 3)}, {"b": "a"})
    x = arange(2, 3) / 10

    def forward(a, b):
        return jnp.tanh(jnp.tanh(x @ a["kernel"] + a["bias"]) @ b["kernel"] + b["bias"]).sum()

    def train(params, loss):
        optimiser = optax.adamw(1e-2)
        state = optimiser.init(params)
        for _ in range(3):
            updates, state = optimiser.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    ours = train(tied, lambda p: forward(p["a"], p["b"]))
    by_hand = train(dense(3, 3), lambda p: forward(p, p))
    chex.assert_trees_all_close(pt.asdict(ours["a"]), by_hand, atol=1e-6)
    assert ours["b"] is ours["a"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"0": "2"}, "cannot tie '0' to '2': '0/kernel' is f32[4,8] and '2/kernel' is f32[8,8]"),
        ({"0/bias": "6/bias"}, "cannot tie '0/bias' to '6/bias': '0/bias' is f32[8] and '6/bias' is f32[1]"),
        ({"2/bias": "n"}, "cannot tie '2/bias' to 'n': '2/bias' is f32[8] and 'n' is i32[8]"),
        ({"0": "9"}, "cannot tie '0' to '9': there is no '9'."),
        ({"0/bais": "2/bias"}, "cannot tie '0/bais' to '2/bias': there is no '0/bais'. Did you mean '0/bias'?"),
        ({"0": "2/bias"}, "cannot tie '0' to '2/bias': '0' is a node and '2/bias' is a leaf"),
        ({"2": "q"}, "cannot tie '2' to 'q': '2/bias' has no 'q/bias'\ncannot tie '2' to 'q': 'q/w' has no '2/w'"),
        ({"0/bias": "0"}, "cannot tie '0/bias' to '0': one lies inside the other"),
        ({"0": "0"}, "cannot tie '0' to '0': it is the same path"),
        ({"0/kernel": pt.transposed("6/kernel")},
         "cannot tie '0/kernel' to '6/kernel': '0/kernel' is f32[4,8] and 'transposed(6/kernel)' is f32[1,8]"),
        ({"2/bias": pt.transposed("0/bias")},
         "cannot tie '2/bias' to '0/bias': 'transposed(0/bias)' needs two axes or more, and the source is f32[8]"),
        ({"2/bias": "0/bias", "4/bias": "2/bias", "0/bias": "4/bias"},
         "cannot tie '0/bias' to '4/bias': the ties go in a circle, '0/bias' -> '4/bias' -> '2/bias' -> '0/bias'"),
        ({"4": "2", "4/bias": "0/bias"}, "cannot tie '4/bias' to '0/bias': the table ties what is above it too"),
    ],
)  # fmt: skip
def test_a_tie_that_cannot_be_made_says_why_and_changes_nothing(table, message):
    tree = pt.Tree({**mlp(), "n": jnp.zeros(8, jnp.int32), "q": {"kernel": jnp.zeros((8, 8)), "w": jnp.zeros(2)}})
    before = jax.tree.structure(tree)
    says(pt.TieError, message, pt.tie, tree, table)
    assert jax.tree.structure(tree) == before


def test_a_tied_tree_can_be_written_down_with_its_ties():
    tree = pt.Tree({**language_model(), "head": {"kernel": pt.transposed("embed/table"), "bias": arange(10)}})
    assert tree == pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    says(pt.TieError, "cannot tie 'b' to 'a/w': there is no 'a/w'.", pt.Tree, {"a": 1, "b": pt.transposed("a/w")})


def test_the_same_layer_object_is_one_set_of_parameters_at_any_depth():
    shared = nn.Dense(8)
    net = nn.Sequential({"enc": nn.Sequential(shared, jax.nn.relu), "mid": nn.Dense(8), "dec": nn.Sequential(shared)})
    params = net.init(jax.random.key(0), jnp.ones((2, 8)))
    assert pt.ties(params) == {"dec/0/kernel": "enc/0/kernel", "dec/0/bias": "enc/0/bias"}
    assert params["dec"][0] is params["enc"][0]
    equal_but_not_the_same = nn.Sequential(nn.Dense(8), nn.Dense(8))
    assert pt.ties(equal_but_not_the_same.spec(jnp.ones((2, 8)))) == {}
    drop = nn.Dropout(0.5)
    assert pt.ties(nn.Sequential(drop, nn.Dense(2), drop).spec(jnp.ones((2, 8)))) == {}
    says(pt.TieError, "cannot tie '2' to '0': '2/kernel' is f32[3,8] and '0/kernel' is f32[4,8]",
         nn.Sequential(shared, nn.Dense(3), shared).init, jax.random.key(0), jnp.ones((2, 4)))  # fmt: skip
