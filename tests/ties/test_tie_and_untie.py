"""tie, untie, ties, and what they refuse."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from jax.sharding import NamedSharding, PartitionSpec
from trees import arange, dense, equal, language_model, mlp

import ptree as pt
from ptree import initializers as I
from ptree import nn

Z = jnp.zeros(2)


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
    says(pt.PatternError, "the pattern '2' matches no alias: there are ['4/kernel', '4/bias']", pt.untie, params, "2")
    says(pt.PatternError, "'2/bias' is a source: name its aliases, ['4/bias']", pt.untie, params, "2/bias")
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
        ({"0": "2"}, "cannot tie '0' to '2': '0/kernel' is f32[4,8] and '2/kernel' is f32[8,8]."
         " A tie neither broadcasts nor reshapes: both need one shape."),
        ({"0/bias": "6/bias"}, "cannot tie '0/bias' to '6/bias': '0/bias' is f32[8] and '6/bias' is f32[1]."
         " A tie neither broadcasts nor reshapes: both need one shape."),
        ({"2/bias": "n"}, "cannot tie '2/bias' to 'n': '2/bias' is f32[8] and 'n' is i32[8]."
         " A tie does not cast: give both one dtype first, with ptree.put."),
        ({"0": "9"}, "cannot tie '0' to '9': there is no '9'."),
        ({"0/bais": "2/bias"}, "cannot tie '0/bais' to '2/bias': there is no '0/bais'. Did you mean '0/bias'?"),
        ({"0": "2/bias"}, "cannot tie '0' to '2/bias': '0' is a node and '2/bias' is a leaf."
         " Did you mean '0/bias'? Name a leaf in it."),
        ({"2": "q"}, "cannot tie '2' to 'q': '2/bias' has no 'q/bias'\ncannot tie '2' to 'q': 'q/w' has no '2/w'\n"
         "Tie the leaves that both have, one by one or by a pattern."),
        ({"0/bias": "0"}, "cannot tie '0/bias' to '0': one lies inside the other."
         " Tie two nodes that lie apart, or single leaves in them."),
        ({"0": "0"}, "cannot tie '0' to '0': it is the same path"),
        ({"0/kernel": pt.transposed("6/kernel")},
         "cannot tie '0/kernel' to '6/kernel': '0/kernel' is f32[4,8] and 'transposed(6/kernel)' is f32[1,8]."
         " A tie neither broadcasts nor reshapes: both need one shape."),
        ({"2/bias": pt.transposed("0/bias")},
         "cannot tie '2/bias' to '0/bias': 'transposed(0/bias)' needs two axes or more, and '0/bias' is f32[8]."
         " Tie them without a transform."),
        ({"2/bias": "0/bias", "4/bias": "2/bias", "0/bias": "4/bias"},
         "cannot tie '0/bias' to '4/bias': the ties go in a circle, '0/bias' -> '4/bias' -> '2/bias' -> '0/bias'."
         " Leave one of them out"),
        ({"4": "2", "4/bias": "0/bias"}, "cannot tie '4/bias' to '0/bias': the table ties '4', above it, to '2'."
         " Leave one of them out."),
    ],
)  # fmt: skip
def test_a_tie_that_cannot_be_made_says_why_and_changes_nothing(table, message):
    tree = pt.Tree({**mlp(), "n": jnp.zeros(8, jnp.int32), "q": {"kernel": jnp.zeros((8, 8)), "w": jnp.zeros(2)}})
    before = jax.tree.structure(tree)
    says(pt.TieError, message, pt.tie, tree, table)
    assert jax.tree.structure(tree) == before


def test_tie_refuses_to_drop_an_empty_node():
    with pytest.raises(pt.TieError, match="'b/n' has no 'a/n'"):
        pt.tie({"a": {"x": 1}, "b": {"x": 1, "n": None}}, {"b": "a"})


def test_ties_of_ties_cannot_explode():
    bomb = {"a": 1, "n0": {"0": pt.transposed("a"), "1": pt.transposed("a")}}
    for level in range(1, 40):
        source = type(pt.transposed("a"))(f"n{level - 1}")
        bomb[f"n{level}"] = {"0": source, "1": source}
    with pytest.raises(pt.TieError, match="ties of ties stand for more than 100,000 leaves"):
        pt.Tree(bomb)


def test_large_trees_are_tied_as_a_whole_once_or_many_times():
    large = {f"layer_{at}": {str(leaf): leaf for leaf in range(1000)} for at in range(110)}
    both = pt.tie(pt.Tree({"encoder": large, "decoder": large}), {"decoder": "encoder"})
    assert len(pt.ties(both)) == 110_000
    assert pt.Tree({"encoder": large, "decoder": type(pt.transposed("a"))("encoder")}) == both
    tower = {str(leaf): leaf for leaf in range(2000)}
    towers = pt.tie(pt.Tree({str(at): tower for at in range(60)}), {f"{{1..{59}}}": "0"})
    assert len(pt.ties(towers)) == 59 * 2000


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
    says(pt.TieError, "cannot tie '2' to '0': '2/kernel' is f32[3,8] and '0/kernel' is f32[4,8]."
         " A tie neither broadcasts nor reshapes: both need one shape."
         " One layer object stands at both places: make two layers of it.",
         nn.Sequential(shared, nn.Dense(3), shared).init, jax.random.key(0), jnp.ones((2, 4)))  # fmt: skip


# ------------------------------------------------------------------ by pattern, by object, by value


def two_stacks():
    return {name: {str(at): dense(4, 4, start) for at in range(3)} for name, start in (("enc", 1), ("dec", 50))}


def test_what_wildcards_stand_for_is_filled_in_on_the_right():
    tree = pt.tie(two_stacks(), {"dec/*": "enc/*"})
    assert pt.ties(tree) == {f"dec/{at}/{leaf}": f"enc/{at}/{leaf}" for at in range(3) for leaf in ("kernel", "bias")}
    assert tree == pt.tie(two_stacks(), {"dec": "enc"})
    crossed = pt.tie(two_stacks(), {"dec/*/kernel": pt.transposed("enc/*/kernel")})
    assert pt.ties(crossed)["dec/2/kernel"] == pt.transposed("enc/2/kernel")


def test_braces_on_the_right_stand_for_those_on_the_left():
    tree = {"enc": {"q": arange(2), "k": arange(3)}, "dec": {"query": arange(2), "key": arange(3)}}
    tied = pt.tie(tree, {"dec/{query,key}": "enc/{q,k}"})
    assert pt.ties(tied) == {"dec/query": "enc/q", "dec/key": "enc/k"}
    shifted = pt.tie(two_stacks(), {"dec/{1..2}/kernel": pt.transposed("enc/{0..1}/kernel")})
    assert pt.ties(shifted) == {f"dec/{at + 1}/kernel": pt.transposed(f"enc/{at}/kernel") for at in range(2)}
    says(pt.PatternError, "cannot tie 'dec/{query,key}' to 'enc/{q,k,v}': {q,k,v} on the right has 3 names, and the braces on the left"
         " that it stands for have 2", pt.tie, tree, {"dec/{query,key}": "enc/{q,k,v}"})  # fmt: skip
    named = {"x{p,q}": arange(2), "a": arange(2), "b": arange(2)}
    assert pt.ties(pt.tie(named, {"{a,b}": "x{p,q}"})) == {"a": "x{p,q}", "b": "x{p,q}"}


def test_without_wildcards_on_the_right_all_are_tied_to_one_source():
    spec = pt.Tree({"blocks": [{"kernel": pt.Param((4, 4)), "bias": pt.Param((4,))} for _ in range(12)]})
    albert = pt.tie(spec, {"blocks/*": "blocks/0"})
    assert pt.count(albert) == 20
    assert len(pt.ties(albert)) == 22
    params = pt.init(albert, jax.random.key(0), {"**": I.normal(1.0)})
    assert params["blocks"]["11"]["kernel"] is params["blocks/0/kernel"]
    assert pt.ties(pt.tie(spec, {"blocks/{1..11}": "blocks/0"})) == pt.ties(albert)
    net = nn.Sequential(*[nn.Dense(4)] * 12)
    assert pt.count(net.spec(jnp.ones((1, 4)))) == 20


def test_a_name_that_is_there_is_no_pattern_and_an_escaped_pattern_is_a_name():
    tree = {"a*": 1, "ab": 1, "c": 1}
    assert pt.ties(pt.tie(tree, {"a*": "c"})) == {"a*": "c"}
    assert pt.ties(pt.tie(tree, {r"a\*": "c"})) == {"a*": "c"}
    assert pt.ties(pt.tie(tree, {"a?": "c"})) == {"a*": "c", "ab": "c"}


def test_tying_by_object_finds_how_jax_code_shares():
    shared, bias = arange(4, 4), arange(4)
    block = {"kernel": shared, "bias": bias}
    params = pt.tie(
        {
            "enc": [block, {"kernel": arange(4, 4), "bias": arange(4)}],
            "dec": {"x": block, "y": shared},
            "n": [1, 1, None, None],
        }
    )
    assert pt.ties(params) == {"dec/x/kernel": "enc/0/kernel", "dec/x/bias": "enc/0/bias", "dec/y": "enc/0/kernel"}
    assert params["dec/y"] is shared
    numbers = np.ones(3)
    assert pt.ties(pt.tie({"a": numbers, "b": numbers, "c": numbers.copy()})) == {"b": "a"}
    param = pt.Param((3,))
    assert pt.ties(pt.tie({"a": param, "b": param})) == {}  # a declaration that was written once, not a parameter
    assert jax.jit(lambda p: pt.tie({"a": p["w"], "b": p["w"]})["a"].sum())({"w": numbers}) == 3
    chex.assert_trees_all_equal(pt.tie(pt.asdict(params)), params)


def test_find_ties_reports_equal_and_transposed_leaves_and_changes_nothing():
    table = arange(5, 4)
    square = arange(3, 3)
    loaded = {
        "embed": {"table": table}, "head": {"kernel": jnp.array(table.T), "bias": jnp.zeros(5)}, "copy": jnp.array(table),
        "a": square, "b": jnp.array(square.T), "norm": {"scale": jnp.ones(5), "bias": jnp.zeros(5)},
        "half": table.astype(jnp.bfloat16), "numpy": np.array(table), "one": jnp.ones(1), "two": jnp.ones(1), "name": "x",
        "conv": arange(2, 4, 5), "conv_t": arange(2, 4, 5).swapaxes(1, 2), "nan": jnp.array([1, jnp.nan]), "nan too": np.array([1, np.nan], "float32"),
    }  # fmt: skip
    assert pt.sharing.find_ties(loaded) == {
        "head/kernel": pt.transposed("embed/table"), "copy": "embed/table", "numpy": "embed/table", "b": pt.transposed("a"),
        "conv_t": pt.transposed("conv"), "nan too": "nan",
    }  # fmt: skip
    says(pt.TieError, "cannot find ties: the values of 'w' are not known. Draw them, outside of jax.jit",
         pt.sharing.find_ties, {"w": pt.Param((3,))})  # fmt: skip
    with pytest.raises(pt.TieError, match="not known"):
        jax.jit(pt.sharing.find_ties)({"w": square})


def test_find_ties_compares_every_number():
    big = jax.random.normal(jax.random.key(0), (300, 200))
    assert pt.sharing.find_ties({"a": big, "b": big.at[299, 7].set(0)}) == {}
    assert pt.sharing.find_ties({"a": big, "b": big.T.at[7, 299].set(0)}) == {}
    assert pt.sharing.find_ties({"a": jnp.zeros((50, 50)), "b": jnp.zeros((50, 50))}) == {}


# ------------------------------------------------------------------------------- transforms


def double(w):
    return w * 2


def half(w):
    return w / 2


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def there(self, w):
        return w * self.factor

    def back(self, w):
        return w / self.factor


def test_a_registered_transform_reads_writes_trains_and_stays_in_files(tmp_path):
    doubled = pt.sharing.register_transform("twice", double, half)
    tree = pt.tie({"a": arange(3), "b": arange(3)}, {"b": doubled("a")})
    assert repr(pt.ties(tree)["b"]) == "twice('a')"
    assert tree["b"].tolist() == [0, 2, 4]
    assert pt.set(tree, "b", jnp.array([2.0, 2, 2]))["a"].tolist() == [1, 1, 1]
    assert jax.jit(jax.grad(lambda p: p["a"].sum() + p["b"].sum()))(tree)["a"].tolist() == [3, 3, 3]
    pt.save(tmp_path / "a.safetensors", tree)
    assert pt.load(tmp_path / "a.safetensors") == tree
    heir = pt.drop(tree, "a")  # the way back is a transform too
    assert heir["b"].tolist() == [0, 2, 4]
    three = pt.drop(pt.tie({"a": arange(3), "b": arange(3), "c": arange(3)}, {"b": doubled("a"), "c": "a"}), "a")
    assert repr(pt.ties(three)) == "{'c': inverse of twice('b')}"
    pt.save(tmp_path / "b.safetensors", three)
    assert pt.load(tmp_path / "b.safetensors") == three
    assert pt.ties(pt.tie({**pt.asdict(three), "d": arange(3)}, {**pt.ties(three), "d": doubled("c")})) == {
        "c": pt.ties(three)["c"],
        "d": "b",
    }


def test_a_permutation_acts_on_the_last_axes_and_has_one_name():
    kernel = arange(2, 3, 4, 5)
    tree = pt.tie({"a": kernel, "b": kernel.transpose(3, 2, 0, 1)}, {"b": pt.transposed("a", (3, 2, 0, 1))})
    np.testing.assert_array_equal(tree["b"], kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(pt.set(tree, "b", tree["b"] + 1)["a"], kernel + 1)
    assert pt.transposed("a", (-1, -2)) == pt.transposed("a", (1, 0)) == pt.transposed("a")
    assert repr(pt.transposed("a", (0, 1))) == "Tie('a')"
    assert pt.transposed(pt.transposed("a", (2, 0, 1)), (1, 2, 0)) == pt.transposed("a", (0, 1))
    assert repr(pt.ties(tree)["b"]) == "transposed('a', (3, 2, 0, 1))"
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), tree)
    assert stacked["b"].shape == (2, 5, 4, 2, 3)
    assert jax.tree.map(lambda leaf: leaf.sum(), tree)["b"].shape == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"*/kernel": "x/*/y/*"},
         "cannot tie '*/kernel' to 'x/*/y/*': the left has 1 wildcard, the right has 2 of '*', '**', '?' and '{a,b}'"),
        ({"{2,4}": "6", "4": "2"},
         "cannot tie '4' twice: '{2,4}' ties it to '6', '4' to '2'\n"
         "cannot tie '2' to '6': '2/kernel' is f32[8,8] and '6/kernel' is f32[8,1]\n"
         "cannot tie '2' to '6': '2/bias' is f32[8] and '6/bias' is f32[1]\n"
         "cannot tie '4' to '6': '4/kernel' is f32[8,8] and '6/kernel' is f32[8,1]\n"
         "cannot tie '4' to '6': '4/bias' is f32[8] and '6/bias' is f32[1]\n"
         "Leave one of them out. A tie neither broadcasts nor reshapes: both need one shape."),
        ({2: "4", "2": "6"}, "cannot tie '2' twice: 2 ties it to '4', '2' to '6'. Leave one of them out."),
        ({"x*": "2"}, "cannot tie 'x*' to '2': the pattern 'x*' matches nothing in 9 leaves."),
        ({"2/kernel": "6/kernel"},
         "cannot tie '2/kernel' to '6/kernel': '2/kernel' is f32[8,8] and '6/kernel' is f32[8,1]."
         " A tie neither broadcasts nor reshapes: both need one shape."),
        ({"0/kernel": "tall"}, "cannot tie '0/kernel' to 'tall': '0/kernel' is f32[4,8] and 'tall' is f32[8,4]."
         " Did you mean ptree.transposed('tall')?"),
        ({"2/kernel": pt.transposed("4/kernel", (0, 2, 1))},
         "cannot tie '2/kernel' to '4/kernel': 'transposed(4/kernel, (0, 2, 1))' needs just 3 axes, and '4/kernel' is"
         " f32[8,8]. Tie them without a transform."),
        ({"**": "2/bias"}, "cannot tie '**' to '2/bias': it matches the whole tree. Name leaves, as in '**/bias'"),
        (["2"], "the ties are a dict, alias -> source; got list"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_says_why_and_changes_nothing(table, message):
    tree = pt.Tree({**mlp(), "tall": arange(8, 4)})
    before, leaves = jax.tree.structure(tree), jax.tree.leaves(tree)
    says(
        pt.PatternError if "wildcard" in message or "whole tree" in message else pt.TieError,
        message,
        pt.tie,
        tree,
        table,
    )
    assert jax.tree.structure(tree) == before
    assert all(a is b for a, b in zip(leaves, jax.tree.leaves(tree), strict=True))


def test_a_forgotten_transpose_of_a_square_kernel_is_seen():
    kernel = arange(8, 8)
    says(pt.TieError, "cannot tie 'b' to 'a': 'b', f32[8,8], holds the transpose of 'a', f32[8,8]."
         " Did you mean ptree.transposed('a')? If not, ptree.put equal values there first.", pt.tie, {"a": kernel, "b": kernel.T}, {"b": "a"})  # fmt: skip
    symmetric = kernel + kernel.T
    assert pt.ties(pt.tie({"a": symmetric, "b": symmetric.T}, {"b": "a"})) == {"b": "a"}


def test_a_transform_that_cannot_be_undone_is_refused():
    wrong = pt.sharing.register_transform("wrong", lambda w: w / 2, lambda w: w * 3)
    rows = pt.sharing.register_transform("rows", lambda w: w[:2], lambda w: w)
    fails = pt.sharing.register_transform("fails", lambda w: w @ w, lambda w: w)
    tree = {"a": arange(4, 3), "b": arange(4, 3), "k": jnp.zeros((4, 3), jnp.int32)}
    says(pt.TieError, "cannot tie 'b' to 'a': the inverse of 'wrong(a)' does not undo it: f32[4,3] comes back changed by up"
         " to 5.5. Mend its two functions.", pt.tie, tree, {"b": wrong("a")})  # fmt: skip
    says(pt.TieError, "cannot tie 'b' to 'a': 'rows(a)' cannot be undone: the way back gives f32[2,3], and 'a' is"
         " f32[4,3]. Mend its two functions.", pt.tie, tree, {"b": rows("a")})  # fmt: skip
    with pytest.raises(pt.TieError, match=r"cannot tie 'b' to 'a': 'fails\(a\)' raises TypeError: "):
        pt.tie(tree, {"b": fails("a")})
    says(pt.TieError, "cannot tie 'k' to 'a': 'k' is i32[4,3] and 'a' is f32[4,3]. A tie does not cast: give both one dtype"
         " first, with ptree.put.", pt.tie, tree, {"k": "a"})  # fmt: skip


def test_bad_transforms_are_refused_where_they_are_made():
    pt.sharing.register_transform("mine", double, half)
    pt.sharing.register_transform("mine", double, half)  # the same again
    for _ in range(2):
        pt.sharing.register_transform("again", lambda w: w + 1, lambda w: w - 1)
    says(pt.TieError, "cannot register the transform 'mine': it is registered with other functions, double and half. Choose"
         " another name (one with captured values is another function each time)",
         pt.sharing.register_transform, "mine", half, double)  # fmt: skip
    twice = lambda factor: (lambda w: w * factor, lambda w: w / factor)
    pt.sharing.register_transform("captures", *twice(2))
    for other in (twice(2), twice(4), (Scale(2).there, Scale(2).back)):
        with pytest.raises(pt.TieError, match="captured values"):
            pt.sharing.register_transform("captures", *other)
    for name in ("a b", "transposed", "", 3):
        says(pt.TieError, f"cannot register the transform {name!r}: a name is an identifier, and not 'transposed'",
             pt.sharing.register_transform, name, double, half)  # fmt: skip
    says(
        pt.TieError,
        "cannot register the transform 'x': 3 is not a function",
        pt.sharing.register_transform,
        "x",
        3,
        half,
    )
    for axes in ((0, 0), (1, 2), (), 3, (0, "x"), "10", (1.9, 0.2)):
        with pytest.raises(pt.TieError, match="not an order of axes"):
            pt.transposed("a", axes)


# ------------------------------------------------------------------------------- writing, and uses


def test_dropping_the_source_hands_the_leaf_to_the_first_alias_and_put_over_an_alias_unties():
    tree = pt.tie({"a": arange(2, 3), "b": arange(3, 2), "c": arange(2, 3)}, {"b": pt.transposed("a"), "c": "a"})
    left = pt.drop(tree, "a")
    assert pt.ties(left) == {"c": pt.transposed("b")}
    np.testing.assert_array_equal(left["c"], tree["a"])
    assert pt.ties(pt.drop(tree, "b")) == {"c": "a"}
    apart = pt.put(tree, "b", jnp.ones(7))
    assert pt.ties(apart) == {"c": "a"}
    assert apart["a"] is tree["a"]
    renamed = pt.rename(tree, {"a": "deep/a"})
    assert pt.ties(renamed) == {"b": pt.transposed("deep/a"), "c": "deep/a"}
    merged = pt.merge(*pt.partition(tree, "a"), {"d": 1})
    assert pt.ties(merged) == pt.ties(tree)


def test_a_pattern_that_names_only_an_alias_writes_what_the_alias_shows():
    tree = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    scale = jnp.arange(10.0)
    new = pt.update(tree, "head/k*", lambda kernel: kernel * scale)
    np.testing.assert_array_equal(new["head/kernel"], tree["head/kernel"] * scale)
    np.testing.assert_array_equal(new["embed/table"], tree["embed/table"] * scale[:, None])


def test_a_node_of_aliases_keeps_the_ties_inside_of_it():
    tree = pt.tie({"a": {"w": Z, "v": Z}, "b": {"w": Z, "v": Z}}, {"a/v": "a/w", "b": "a"})
    assert pt.ties(tree["b"]) == {"v": "w"}
    new = pt.set(tree, "b", pt.update(tree["b"], "w", lambda w: w + 1))
    assert (new["a/v"] == 1).all()


def test_gradient_by_use_tells_the_uses_apart():
    params = pt.tie({"a": arange(2, 3), "b": arange(3, 2), "c": arange(2)}, {"b": pt.transposed("a")})

    def loss(p, scale):
        return scale * (p["a"] ** 2).sum() + (p["b"] * arange(3, 2)).sum(), "more"

    by_use, aux = pt.sharing.gradient_by_use(loss, params, "b", 3.0, has_aux=True)
    assert aux == "more"
    np.testing.assert_array_equal(by_use["a"], 6 * params["a"])
    np.testing.assert_array_equal(by_use["b"], arange(3, 2).T)
    assert list(pt.sharing.gradient_by_use(lambda p: p["c"].sum(), params, "c")) == ["c"]
    assert list(pt.sharing.gradient_by_use(lambda p: p["w"][0].sum(), {"w": [arange(2)]}, "w/0")) == ["w/0"]
    says(
        pt.PathError,
        "no leaf at 'x': a node is there. Name one of ['x/y']",
        pt.sharing.gradient_by_use,
        loss,
        {"x": {"y": 1.0}},
        "x",
    )
    says(
        pt.PathError,
        "no path 'd': at the root there are ['a', 'b', 'c'].",
        pt.sharing.gradient_by_use,
        loss,
        params,
        "d",
    )


# ------------------------------------------------------------------------------- models


def test_a_layer_of_ones_own_is_tied_where_it_holds_one_layer_twice():
    @dataclass(frozen=True)
    class Twice(nn.Layer):
        first: nn.Layer
        more: tuple[nn.Layer, ...]
        named: dict[str, nn.Layer]

        def declare(self, x):
            return {
                "first": self.first.spec(x),
                "more": [part.spec(x) for part in self.more],
                "named": {name: part.spec(x) for name, part in self.named.items()},
            }

        def apply(self, params, x):
            return self.named["b"](params["named"]["b"], self.more[1](params["more"][1], x))

    one, two = nn.Dense(4), nn.Dense(4)
    net = Twice(one, (two, one), {"a": nn.Sequential(two), "b": two})
    assert pt.ties(net.spec(jnp.ones((1, 4)))) == {
        f"{alias}/{leaf}": f"{source}/{leaf}"
        for alias, source in (("more/1", "first"), ("named/a/0", "more/0"), ("named/b", "more/0"))
        for leaf in ("kernel", "bias")
    }
    params = net.init(jax.random.key(0), jnp.ones((1, 4)))
    assert net(params, jnp.ones((1, 4))).shape == (1, 4)
    assert len(jax.tree.leaves(params)) == 4


def test_embedding_attends_with_its_own_table():
    layer = nn.Embedding(50, 8)
    params = layer.init(jax.random.key(0), jnp.zeros(3, int))
    x = jnp.ones((2, 3, 8))
    np.testing.assert_allclose(layer.attend(params, x), x @ params["table"].T, rtol=1e-6)
    says(pt.LayerError, "Embedding(50, 8): expected 8 features to attend with, got the input f32[2,7]",
         layer.attend, params, jnp.ones((2, 7)))  # fmt: skip


# ------------------------------------------------------------------------------- what a review found


class Both(NamedTuple):
    x: Any
    y: Any


def test_putting_a_tie_follows_chains_and_refuses_what_is_not_there():
    tree = pt.tie({"a": arange(2, 3), "b": arange(2, 3)}, {"b": "a"})
    turned = pt.put(tree, "a", pt.transposed("b"))
    assert pt.ties(turned) == {"a": pt.transposed("b")}
    np.testing.assert_array_equal(turned["b"], tree["b"])
    more = pt.put(tree, "c", pt.transposed("b"))
    assert pt.ties(more) == {"b": "a", "c": pt.transposed("a")}
    with pytest.raises(pt.TieError, match="there is no 'zz'"):
        pt.put(tree, "c", pt.transposed("zz"))
    says(pt.TieError, "cannot put transposed('a') at 'b': a dict holds no ties; ptree.tie makes a Tree of it",
         pt.put, {"a": arange(2, 3)}, "b", pt.transposed("a"))  # fmt: skip
    says(pt.TieError, "cannot put transposed('v') at 'b': it needs two axes or more, and 'v' is f32[2]",
         pt.put, pt.Tree({"v": arange(2)}), "b", pt.transposed("v"))  # fmt: skip
    says(pt.TieError, "cannot tie 'm/b' to 'v': 'transposed(v)' needs two axes or more, and 'v' is f32[2]",
         pt.Tree, {"v": arange(2), "m": {"b": pt.transposed("v")}})  # fmt: skip


def test_a_tie_can_be_put():
    tree = pt.put(pt.Tree({"a": arange(2, 3)}), "b/c", pt.transposed("a"))
    assert tree["b/c"].shape == (3, 2)
    assert pt.ties(tree) == {"b/c": pt.transposed("a")}


def test_a_container_in_the_place_of_a_leaf_is_tied_whole():
    tree = pt.Tree({"a": Both(arange(2, 3), arange(2)), "b": Both(arange(2, 3), arange(2))})
    tied = pt.tie(tree, {"b": "a"})
    assert pt.paths(tied, aliases=True) == ["a/x", "a/y", "b/x", "b/y"]
    assert pt.untie(tied)["b"].x is not tied["a"].x
    says(
        pt.TieError,
        "cannot tie 'b' to 'a': no transform sees into a container that is no Tree, in 'a'. Put a Tree in its place.",
        pt.tie,
        tree,
        {"b": pt.transposed("a")},
    )
    says(pt.TieError, "cannot tie 'b/x' to 'a/x': 'b/x' lies inside a container that is no Tree, which stays whole\n"
         "cannot tie 'b/x' to 'a/x': 'a/x' lies inside a container that is no Tree, which stays whole\n"
         "ptree.tie(ptree.flatten(tree), table) opens it, and of that ptree.unflatten(tied, like=tree) is the way back.",
         pt.tie, tree, {"b/x": "a/x"})  # fmt: skip
    opened = pt.tie(pt.flatten(tree), {"b/x": "a/x"})
    back = pt.unflatten(pt.set(opened, "b/x", arange(2, 3) + 1), like=tree)
    assert type(back["b"]) is Both
    assert back["a"].x is back["b"].x
    assert float(back["a"].x[0, 0]) == 1
    by_use = pt.sharing.gradient_by_use(lambda p: (p["a"].x * 2).sum() + p["b"].x.sum(), tied, "b/x")
    assert {name: float(grad[0, 0]) for name, grad in by_use.items()} == {"a/x": 2, "b/x": 1}


def test_no_transform_looks_into_a_container_in_the_place_of_a_leaf():
    tied = pt.tie({"w": arange(2, 3), "h": arange(3, 2)}, {"h": pt.transposed("w")})
    state = jax.tree.map(lambda leaf: {"m": leaf}, tied)
    assert pt.set(state, "h/m", pt.get(state, "h/m"))["w"]["m"].shape == (2, 3)
    hessian = jax.hessian(lambda p: (p["w"] ** 2).sum() * p["h"].sum())(tied)
    assert equal(pt.update(hessian, "w/h", lambda leaf: leaf), hessian)
    assert pt.set(hessian, "h/w", hessian["h"]["w"])["w"]["w"].shape == (2, 3, 2, 3)


def test_trees_inside_other_containers_are_untied_and_looked_into():
    state = optax.adam(1e-3).init(pt.tie(mlp(), {"4": "2"}))
    assert len(jax.tree.leaves(pt.untie(state))) == len(jax.tree.leaves(state)) + 4
    assert type(pt.untie(state)) is type(state)
    held = {"m": pt.tie({"a": arange(2), "b": arange(2)}, {"b": "a"}), "s": arange(2)}
    by_use = pt.sharing.gradient_by_use(lambda p: (p["m"]["a"] * 2).sum() + p["m"]["b"].sum(), held, "m/b")
    assert {name: float(grad[0]) for name, grad in by_use.items()} == {"m/a": 2, "m/b": 1}
    assert pt.untie(held, "m/b")["m"]["b"] is not held["m"]["a"]
    tied = pt.tie(mlp(), {"4": "2"})
    says(pt.PatternError, "'2/bias' is a source: name its aliases, ['4/bias']", pt.untie, tied, "2/bias")
    assert pt.untie(tied, lambda path, leaf: leaf.shape == (8,))["4/bias"] is not tied["2/bias"]


def test_any_kind_of_array_can_be_tied_and_compared():
    mesh = jax.make_mesh((8,), ("m",))
    put = lambda leaf: jax.device_put(leaf, NamedSharding(mesh, PartitionSpec("m")))
    for shape in ((8,), (8, 4), (8, 8)):
        leaf = jax.random.normal(jax.random.key(0), shape)
        assert pt.ties(pt.tie({"a": put(leaf), "b": put(leaf + 0)}, {"b": "a"})) == {"b": "a"}
        assert pt.sharing.find_ties({"a": put(leaf), "b": leaf + 0}) == {"b": "a"}
    first, second = jax.devices()[:2]
    square = jax.random.normal(jax.random.key(0), (4, 4))
    apart = {"a": jax.device_put(square, first), "b": jax.device_put(square, second)}
    assert pt.sharing.find_ties(apart) == {"b": "a"}
    assert pt.ties(pt.tie(apart, {"b": "a"})) == {"b": "a"}
    keys = {name: jax.random.split(jax.random.key(at), 3) for at, name in enumerate("ab")}
    assert pt.ties(pt.tie(keys, {"b": "a"})) == {"b": "a"}
    assert pt.sharing.find_ties(keys) == {}
    for dtype in ("float64", "int64", "float16", "bool", "complex128"):
        table = np.arange(6).reshape(2, 3).astype(dtype)
        found = pt.sharing.find_ties({"embed": table, "head": table.T.copy()})
        assert found == {"head": pt.transposed("embed")}
        tied = pt.tie({"embed": table, "head": table.T.copy()}, found)
        assert pt.set(tied, "", pt.asdict(tied))["head"].dtype == table.dtype
    wide = pt.sharing.register_transform("wide", double, half)
    assert pt.tie({"a": np.ones(3), "b": np.ones(3)}, {"b": wide("a")})["b"].dtype == np.float64
    for nan in (np.array([1, np.nan, np.inf]), jnp.array([1, jnp.nan, -jnp.inf])):
        assert pt.ties(pt.tie({"a": nan, "b": nan + 0}, {"b": wide("a")})) == {"b": wide("a")}


def test_layers_that_share_differ_from_those_that_do_not():
    @dataclass(frozen=True, eq=False)  # as ptree's own layers compare
    class Pair(nn.Layer):
        first: nn.Layer
        second: tuple[Any, ...]

        def declare(self, x):
            return {"first": self.first.spec(x), "second": [[part.spec(x) for part in row] for row in self.second]}

    one = nn.Dense(4)
    shared, apart = Pair(one, ((one,),)), Pair(nn.Dense(4), ((nn.Dense(4),),))
    assert shared != apart
    assert shared == Pair(one, ((one,),))
    assert hash(apart) == hash(Pair(nn.Dense(4), ((nn.Dense(4),),)))
    x = jnp.ones((1, 4))
    draw = jax.jit(lambda net, key: net.init(key, x), static_argnums=0)
    assert pt.ties(draw(apart, jax.random.key(0))) == {}
    assert pt.ties(draw(shared, jax.random.key(0))) == {
        f"second/0/0/{leaf}": f"first/{leaf}" for leaf in ("kernel", "bias")
    }

    @dataclass(frozen=True)
    class Made(nn.Layer):
        width: int

        def parts(self):
            return ((f"b{at}", nn.Dense(self.width)) for at in range(4))

        def declare(self, x):
            return {name: part.spec(x) for name, part in self.parts()}

    assert pt.ties(Made(4).spec(x)) == {}


def test_reading_tied_nodes_again_and_again_puts_them_together_once():
    tree = pt.tie({"enc": [dense(4, 4)] * 3, "dec": [dense(4, 4)] * 3, "x": arange(2)}, {"dec/*": "enc/*"})
    assert tree["dec"] is tree["dec"]
    assert tree["dec"]["1"]["kernel"] is tree["enc/1/kernel"]
    new = pt.set(tree, "enc/1/bias", jnp.ones(4))
    assert (new["dec"]["1"]["bias"] == 1).all()
    assert (tree["dec"]["1"]["bias"] != 1).any()


def test_many_typos_are_told_in_little_time():
    tree = {f"layer_{at}": dense(2, 2) for at in range(500)}
    with pytest.raises(pt.TieError, match="and 490 more"):
        pt.tie(tree, {f"layer_{at}/bais": "layer_0/bias" for at in range(500)})


def test_a_name_that_is_there_is_no_pattern_on_the_right_either():
    tree = {"a*": arange(2), "ab": arange(2), "x y": arange(2)}
    for table in ({"ab": r"a\*"}, {"ab": "a*"}, {"{ab,x y}": "a*"}, {"{ab,x y}": r"a\*"}, {"x?y": "a*"}):
        assert {*pt.ties(pt.tie(tree, table)).values()} == {"a*"}
