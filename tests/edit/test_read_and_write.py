"""Reading and writing by path, on Trees and on any pytree."""

import re
from collections import OrderedDict, defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from trees import Block, Pair, arange, dense, equal, language_model, mlp

import ptree as pt

Z, O = jnp.zeros(2), jnp.ones(2)  # noqa: E741


@pytest.fixture
def params():
    return pt.tie(mlp(), {"4": "2"})


# selecting


def test_items_lists_paths_and_leaves_in_declared_order(params):
    assert pt.items(params, "**/kernel") == [(p, params[p]) for p in ("0/kernel", "2/kernel", "6/kernel")]
    assert pt.paths(params) == ["0/kernel", "0/bias", "2/kernel", "2/bias", "6/kernel", "6/bias"]
    assert pt.paths(params, aliases=True)[4:6] == ["4/kernel", "4/bias"]
    assert pt.paths(params, "2", aliases=True) == ["2/kernel", "2/bias", "4/kernel", "4/bias"]
    assert dict(pt.items(params, aliases=True))["4/bias"] is params["2/bias"]


def test_listings_of_plain_dicts_are_natural_after_jax_sorted_them():
    tree = {"layer_2": 1, "layer_10": 2, "layer_1": 3}
    assert pt.paths(tree) == ["layer_2", "layer_10", "layer_1"]
    assert pt.paths(jax.tree.map(lambda leaf: leaf, tree)) == ["layer_1", "layer_2", "layer_10"]


def test_mappings_of_other_libraries_are_listed_naturally_too():
    layers = defaultdict(int, {f"layer_{i}": i for i in range(12)})
    assert pt.paths(jax.tree.map(lambda leaf: leaf, layers)) == [f"layer_{i}" for i in range(12)]
    assert pt.set(layers, "layer_10", 5)["layer_10"] == 5
    assert equal(pt.merge(*pt.partition(layers, "layer_2")), layers)


def test_an_ordered_dict_is_listed_in_its_order():
    assert pt.paths(OrderedDict([("layer_10", 1), ("layer_2", 2)])) == ["layer_10", "layer_2"]


@pytest.mark.parametrize(
    ("selector", "paths"),
    [
        ("{0,6}", ["0/kernel", "0/bias", "6/kernel", "6/bias"]),
        ("{0,2}/bias", ["0/bias", "2/bias"]),
        (["0", "**/bias"], ["0/kernel", "0/bias", "2/bias", "6/bias"]),
        (["**", "!**/bias"], ["0/kernel", "2/kernel", "6/kernel"]),
        ("!**/bias", ["0/kernel", "2/kernel", "6/kernel"]),
        (["0", "!0/bias", "0/bias"], ["0/kernel", "0/bias"]),
        (re.compile(r"[06]/.*"), ["0/kernel", "0/bias", "6/kernel", "6/bias"]),
        (lambda path, leaf: leaf.ndim == 1, ["0/bias", "2/bias", "6/bias"]),
        (["2", lambda path, leaf: leaf.shape == (1,)], ["2/kernel", "2/bias", "6/bias"]),
    ],
)
def test_every_form_of_selector(params, selector, paths):
    assert pt.paths(params, selector) == paths
    assert pt.paths(pt.asdict(pt.drop(params, "4")), selector) == paths


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("**/bais", "the pattern '**/bais' matches nothing in 6 leaves. Did you mean '**/bias'?"),
        ("2/bais", "the pattern '2/bais' matches nothing: at '2' there are ['bias', 'kernel']. Did you mean '2/bias'?"),
        (["0", "!1", "7"], "the pattern '1' matches nothing: at the root there are ['0', '2', '4', '6'].\n"
                           "the pattern '7' matches nothing: at the root there are ['0', '2', '4', '6']."),
        ("{0..2}/bias", "in the pattern '{0..2}/bias' the alternative '1' matches nothing."),
        ("{0,2}/{bias,kernl}", "in the pattern '{0,2}/{bias,kernl}' the alternative 'kernl' matches nothing. Did you mean 'kernel'?"),
        (re.compile("bias"), "the regex 'bias' matches the whole of no path"),
        (lambda path, leaf: False, "the predicate '<lambda>' is true of no leaf"),
        (3, "not a selector: 3; a selector is a pattern such as '**/bias', a compiled regex,"
            " a function (path, leaf) -> bool, or a sequence of these"),
        ([], "not a selector: []; a selector is a pattern such as '**/bias', a compiled regex,"
             " a function (path, leaf) -> bool, or a sequence of these"),
    ],
)  # fmt: skip
def test_a_selection_that_matches_nothing_is_an_error(params, selector, message):
    for function in (pt.items, pt.select, pt.partition):
        says(pt.PatternError, message, function, params, selector)


def test_two_misspelt_segments_are_both_corrected():
    says(pt.PatternError, "the pattern '*/atn/kernal' matches nothing in 1 leaves. Did you mean '*/attn/kernel'?",
         pt.items, pt.Tree({"0": {"attn": {"kernel": 1}}}), "*/atn/kernal")  # fmt: skip


def test_everything_of_a_tree_without_leaves_is_nothing():
    empty = optax.sgd(0.1).init({"w": Z})
    assert pt.paths(empty, "**") == []
    assert pt.label(empty, {"**": 1}) == empty
    says(pt.PatternError, "the pattern 'n' matches nothing: there is no leaf below it", pt.items, {"n": {}}, "n")
    assert pt.update(empty, "**", lambda leaf: leaf) == empty
    with pytest.raises(pt.PatternError, match="the pattern 'a' matches nothing: at the root there are"):
        pt.paths(empty, "a")


def test_a_regex_of_bytes_is_refused():
    says(pt.PatternError, "the regex b'a' is of bytes, and paths are strings", pt.items, {"a": 1}, re.compile(b"a"))
    says(pt.PatternError, "the names to change are a dict, a pattern or a compiled regex -> a path; got re.compile(b'a'): 'b'",
         pt.rename, {"a": 1}, {re.compile(b"a"): "b"})  # fmt: skip


def test_a_predicate_or_a_function_that_raises_says_at_which_path():
    tree = {"enc": {"w": Z, "n": 3}}
    with pytest.raises(AttributeError) as error:
        pt.items(tree, lambda path, leaf: leaf.ndim == 1)
    assert error.value.__notes__ == ["in the predicate '<lambda>' at 'enc/n', 3"]
    with pytest.raises(ValueError, match="ambiguous") as error:
        pt.items(tree, ["!enc/n", lambda path, leaf: leaf > 0])
    assert error.value.__notes__ == ["in the predicate '<lambda>' at 'enc/w', f32[2]"]
    with pytest.raises(ZeroDivisionError) as error:
        pt.update(tree, "**/n", lambda leaf: leaf / 0)
    assert error.value.__notes__ == ["in ptree.update, at 'enc/n', 3"]


# set


def test_set_writes_through_a_tie_and_shares_the_rest(params):
    value = jnp.ones(8)
    new = pt.set(params, "4/bias", value)
    assert new["2/bias"] is new["4/bias"] is value
    assert new["0"] is params["0"]
    assert new["2/kernel"] is params["2/kernel"]


def test_set_writes_through_a_transpose():
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    new = pt.set(params, "head/kernel", jnp.ones((4, 10)))
    assert new["embed/table"].shape == (10, 4)
    assert (new["embed/table"] == 1).all()
    new = pt.update(params, "head/kernel", lambda w: w.at[0, 3].set(100))
    assert new["embed/table"][3, 0] == 100


def test_set_takes_a_subtree_and_writes_all_its_ties(params):
    new = pt.set(params, "4", {"kernel": jnp.zeros((8, 8)), "bias": jnp.ones(8)})
    assert (new["2/bias"] == 1).all()
    assert jax.tree.structure(new) == jax.tree.structure(params)
    layer = pt.Tree(dense(4, 8, 500))
    assert pt.set(params, "0", layer)["0"] is layer
    lm = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    new = pt.set(lm, "head", {"kernel": jnp.ones((4, 10)), "bias": jnp.zeros(10)})
    assert (new["embed/table"] == 1).all()
    assert pt.set(lm, "head", lm["head"]) == lm


def test_set_refuses_another_shape_dtype_or_structure_and_lists_all(params):
    fix = " Use ptree.put to replace it by something"
    says(pt.StructureError, f"cannot set '0/bias': expected f32[8], got f32[7].{fix} of another shape or dtype.",
         pt.set, params, "0/bias", jnp.ones(7))  # fmt: skip
    says(pt.StructureError, f"cannot set '4/bias': expected f32[8], got i32[8]. To keep the dtype, cast the value with .astype('float32').{fix} of another shape or dtype.",
         pt.set, params, "4/bias", jnp.ones(8, jnp.int32))  # fmt: skip
    says(pt.StructureError, f"cannot set '0/bias': expected f32[8], got 0.0. For an array of this number write jnp.full((8,), 0.0, 'float32').{fix} of another shape or dtype.",
         pt.set, params, "0/bias", 0.0)  # fmt: skip
    error = says(
        pt.StructureError,
        "cannot set '0':\n  '0/kernel': expected f32[4,8], got f32[8]\n  missing: ['0/bias']\n  unexpected: ['0/c']\n"
        f"{fix.strip()} else.",
        pt.set, params, "0", {"kernel": jnp.ones(8), "c": 2},
    )  # fmt: skip
    assert (error.missing, error.unexpected, error.misshapen, error.mistyped) == (["0/bias"], ["0/c"], ["0/kernel"], [])
    says(pt.PathError, "no path '0/c': at '0' there are ['bias', 'kernel'].", pt.set, params, "0/c", 1)


def test_set_ignores_nothing_that_it_was_given():
    for tree, path, value in [
        (pt.Tree({"e": {}}), "e", None), (pt.Tree({"n": None}), "n", {}), ({"a": {"x": 1}}, "a", {"x": 2, "y": None}),
    ]:  # fmt: skip
        with pytest.raises(pt.StructureError):
            pt.set(tree, path, value)


def test_two_values_for_one_tied_leaf_in_one_write_are_an_error(params):
    plain = pt.asdict(params)
    plain["4"] = {**plain["4"], "kernel": jnp.zeros((8, 8))}
    text = ("cannot set the whole tree: '2/kernel', f32[8,8], and '4/kernel', f32[8,8], are one tied leaf, and"
            " their values differ by up to 103."
            " Give both the same value, or untie them first")  # fmt: skip
    says(pt.TieError, text, pt.set, params, "", plain)
    with pytest.raises(pt.TieError, match="one tied leaf"):
        jax.jit(
            lambda a, b: pt.set(
                params, "", {**plain, "2": {**plain["2"], "kernel": a}, "4": {**plain["4"], "kernel": b}}
            )
        )(jnp.ones((8, 8)), jnp.ones((8, 8)))
    assert pt.set(params, "", pt.asdict(params)) == params


# update


def test_update_changes_the_selected_leaves_only(params):
    new = pt.update(params, "**/bias", lambda b: b + 1)
    assert (new["4/bias"] == params["2/bias"] + 1).all()
    assert new["0/kernel"] is params["0/kernel"]
    new = pt.update(params, "0/kernel", lambda w: (w + 1).at[0, 0].set(42))
    assert new["0/kernel"][0, 0] == 42
    says(pt.StructureError, "cannot update '0/bias': expected f32[8], got f32[1,8]."
         " To change shapes or dtypes, write chosen, rest = ptree.partition(tree, selector), and then"
         " ptree.merge(jax.tree.map(function, chosen), rest).",
         pt.update, params, "0/bias", lambda b: b[None])  # fmt: skip


# put and drop


def test_put_adds_and_replaces(params):
    new = pt.put(params, "head/out", {"kernel": 1, "bias": [2, 3]})
    assert pt.paths(new, "head") == ["head/out/kernel", "head/out/bias/0", "head/out/bias/1"]
    assert list(new) == [*params, "head"]
    assert new["0"] is params["0"]
    assert pt.ties(new) == pt.ties(params)
    assert pt.put(params, "0/kernel", 5)["0/kernel"] == 5
    assert pt.put(pt.Tree(), "a/b", 1) == pt.Tree({"a": {"b": 1}})


def test_put_at_a_source_changes_both_names_and_at_an_alias_ends_the_tie(params):
    value = jnp.zeros((3, 3))
    assert pt.put(params, "2/kernel", value)["4/kernel"] is value
    new = pt.put(params, "4/kernel", value)
    assert new["4/kernel"] is value
    assert new["2/kernel"] is params["2/kernel"]
    assert pt.ties(new) == {"4/bias": "2/bias"}


def test_what_goes_hands_its_leaf_to_the_first_alias():
    tree = pt.tie({"a": arange(2), "b": arange(2), "c": arange(2)}, {"b": "a", "c": "a"})
    new = pt.drop(tree, "a")
    assert new["b"] is new["c"] is tree["a"]
    assert pt.ties(new) == {"c": "b"}
    assert pt.ties(pt.put(tree, "a", {"x": 1})) == {"c": "b"}
    turned = pt.tie({"a": arange(2, 3), "b": arange(3, 2), "c": arange(3, 2), "d": arange(2, 3)},
                    {"b": pt.transposed("a"), "c": pt.transposed("a"), "d": "a"})  # fmt: skip
    new = pt.drop(turned, "a")
    assert pt.ties(new) == {"c": "b", "d": pt.transposed("b")}
    for name in "bcd":
        assert (new[name] == turned[name]).all()


def test_drop_removes_leaves_aliases_and_emptied_nodes(params):
    assert pt.paths(pt.drop(params, "**/kernel"), aliases=True) == ["0/bias", "2/bias", "4/bias", "6/bias"]
    assert pt.ties(pt.drop(params, "4/bias")) == {"4/kernel": "2/kernel"}
    assert "4" not in pt.drop(params, "4")
    assert pt.drop(params, ["**", "4"]) == pt.Tree()
    left = pt.drop(pt.Tree({"a": {"b": 1, "c": 2}, "e": {}}), "a")
    assert list(left) == ["e"]


def test_where_a_container_cannot_change_it_says_why():
    says(
        pt.StructureError,
        "cannot put '2': a tuple cannot take the new name '2'; it has ['0', '1']",
        pt.put,
        (1, 2),
        "2",
        1,
    )
    says(pt.StructureError, "cannot put 'c': a Pair cannot take the new name 'c'; it has ['left', 'right']",
         pt.put, Pair(1, 2), "c", 1)  # fmt: skip
    says(pt.StructureError, "cannot drop ['0']: a list cannot lose a child. ptree.partition leaves None in its place",
         pt.drop, [1, 2], "0")  # fmt: skip
    says(pt.PathError, "cannot put 'a/b': 'a' is 1, not a node. Drop it first", pt.put, {"a": 1}, "a/b", 2)
    says(pt.PathError, "cannot put 'a/b': 'a' is 1, not a node. Drop it first", pt.put, pt.Tree({"a": 1}), "a/b", 2)
    says(pt.PathError, "cannot put at '': that is the whole tree, so use the value itself", pt.put, {"a": 1}, "", 2)


# any pytree


def test_every_container_comes_back_as_it_was():
    trees = [
        {"a": [1, (2, Pair(3, {"b": 4}))]},
        Block(1, {"x": (2, 3)}),
        OrderedDict(z=1, a={"b": 2}),
        defaultdict(list, {"k": 1, "l": [2]}),
        optax.adam(1e-3).init(pt.Tree(mlp())),
    ]
    for tree in trees:
        for path in pt.paths(tree):
            old = pt.get(tree, path)
            new = pt.set(tree, path, old + 1)
            assert jax.tree.structure(new) == jax.tree.structure(tree)
            assert np.all(pt.get(new, path) == old + 1)
            assert type(new) is type(tree)
        assert equal(pt.update(tree, "**", lambda leaf: leaf), tree)


def test_optimiser_states_read_and_write_by_path(params):
    state = optax.adam(1e-3).init(params)
    assert pt.get(state, "0/mu/4/kernel") is pt.get(state, "0/mu/2/kernel")
    new = pt.set(state, "0/mu/4/bias", jnp.ones(8))
    assert (new[0].mu["2/bias"] == 1).all()
    says(pt.PathError, "no path '0/mu/2/kernle': at '0/mu/2' there are ['bias', 'kernel']. Did you mean '0/mu/2/kernel'?",
         pt.get, state, "0/mu/2/kernle")  # fmt: skip
    says(
        pt.PathError,
        "no path '0/nu2': at '0' there are ['count', 'mu', 'nu']. Did you mean '0/nu'?",
        pt.get,
        state,
        "0/nu2",
    )
    assert pt.paths(state, "*/mu/**/bias") == ["0/mu/0/bias", "0/mu/2/bias", "0/mu/6/bias"]


def test_keys_that_hold_a_slash_are_found_by_paths_that_spell_them_out():
    haiku = {"mlp/~/linear_0": {"w": 1}, "mlp/~/linear_1": {"w": 2}}
    assert pt.get(haiku, "mlp/~/linear_1/w") == 2
    assert pt.set(haiku, "mlp/~/linear_1/w", 5) == {"mlp/~/linear_0": {"w": 1}, "mlp/~/linear_1": {"w": 5}}
    assert pt.paths(haiku, "**/linear_1") == ["mlp/~/linear_1/w"]
    assert pt.get({"layers": {0: 1, 10: 2}}, "layers/10") == 2


def test_a_missing_name_below_a_key_with_slashes_says_what_is_there():
    says(
        pt.PathError,
        "no path 'mlp/~/linear_0/b': at 'mlp/~/linear_0' there are ['w'].",
        pt.get,
        {"mlp/~/linear_0": {"w": 1}},
        "mlp/~/linear_0/b",
    )
    with pytest.raises(pt.PathError, match=r"Did you mean 'mlp/~/linear_0'\?"):
        pt.get({"mlp/~/linear_0": {"w": 1}}, "mlp/~/linear_1")


# partition and merge


def test_partition_of_fixed_containers_leaves_none(params):
    part, rest = pt.partition([1, (2, 3)], "1/0")
    assert (part, rest) == ([None, (2, None)], [1, (None, 3)])
    assert pt.merge(part, rest) == [1, (2, 3)]
    state = optax.adam(1e-3).init(params)
    moments, others = pt.partition(state, "0/mu")
    assert type(moments[0]) is type(state[0])
    assert others[0].mu is None
    assert equal(pt.merge(moments, others), state)


def test_aliases_come_with_their_source(params):
    part, rest = pt.partition(params, "2")
    assert pt.ties(part) == pt.ties(params)
    assert pt.ties(rest) == {}
    assert list(pt.select(params, "6")) == ["6"]


def test_merge_refuses_overlaps_and_unlike_containers(params):
    error = says(
        pt.StructureError,
        "cannot merge: ['0/bias', '0/kernel'] are in more than one tree."
        " Drop one side first, or use ptree.set to replace values",
        pt.merge, params, pt.select(params, "0"),
    )  # fmt: skip
    assert error.unexpected == ["0/bias", "0/kernel"]
    says(pt.StructureError, "cannot merge: ['4/bias'] is in more than one tree."
         " Drop one side first, or use ptree.set to replace values", pt.merge, params, pt.Tree({"4/bias": 1}))  # fmt: skip
    says(
        pt.StructureError,
        "cannot merge at 'a': a list with ['0'] and a dict with ['b']",
        pt.merge,
        {"a": [1]},
        {"a": {"b": 1}},
    )
    assert pt.merge(pt.Tree({"a": 1}), {"b": {"c": 2}}) == pt.Tree({"a": 1, "b/c": 2})
    assert pt.merge({"a": 1}, {"b": 2}, {"c": {}}) == {"a": 1, "b": 2, "c": {}}


# flat dicts and names


def test_flatten_and_unflatten_keep_ties_empty_nodes_and_none(params):
    flat = pt.flatten(params)
    assert list(flat) == ["0/kernel", "0/bias", "2/kernel", "2/bias", "4/kernel", "4/bias", "6/kernel", "6/bias"]
    assert len(jax.tree.leaves(flat)) == 6
    assert pt.flatten(params, "**/kernel").keys() == {"0/kernel", "2/kernel", "4/kernel", "6/kernel"}
    assert pt.flatten({"a": {}, "b": None, "c": [1]}) == {"a": {}, "b": None, "c/0": 1}
    assert pt.unflatten({}) == pt.Tree()
    error = says(
        pt.StructureError, "cannot unflatten into `like`:\n  missing: ['b']\n  unexpected: ['c']",
        pt.unflatten, {"a": 1, "c": 2}, {"a": 0, "b": 0},
    )  # fmt: skip
    assert error.missing == ["b"]


def test_asdict_is_plain_all_the_way_and_shares_tied_objects(params):
    plain = pt.asdict(params)
    assert type(plain["4"]) is dict
    assert plain["4"]["kernel"] is plain["2"]["kernel"]


# set(..., at=)


def test_set_at_an_index_writes_that_part_and_checks_its_bounds(params):
    assert pt.set(params, "4/kernel", 7.0, at=(0, 1))["2/kernel"][0, 1] == 7
    assert (pt.set(params, "0/bias", jnp.ones(2), at=slice(2, 4))["0/bias"][2:4] == 1).all()
    assert pt.set({"w": np.zeros((3, 2))}, "w", 1, at=-1)["w"].tolist() == [[0, 0], [0, 0], [1, 1]]
    assert pt.set(params, "0/bias", True, at=params["0/bias"] > 10)["0/bias"].tolist() == [7, 8, 9, 10, 1, 1, 1, 1]
    inside = jax.jit(lambda i: pt.set(params, "0/bias", 5, at=i)["0/bias"])(3)
    assert inside[3] == 5
    before = np.zeros(3)
    pt.set({"w": before}, "w", 1, at=0)
    assert before[0] == 0


@pytest.mark.parametrize(
    ("path", "value", "at", "message"),
    [
        ("0/bias", 1, 99, "cannot set '0/bias' at [99]: it is f32[8], and index 99 is out of bounds for axis 0 with size 8"),
        ("0/kernel", 1, (0, 8), "cannot set '0/kernel' at [0, 8]: it is f32[4,8], and index 8 is out of bounds for axis 1 with size 8"),
        ("0/bias", 1, slice(8, 9), "cannot set '0/bias' at [8:9]: it is f32[8], and the index selects nothing of it"),
        ("0/bias", jnp.ones(3), slice(0, 2), "cannot set '0/bias' at [0:2]: expected a number or f32[2], got f32[3]"),
        ("0/bias", jnp.ones(2, int), slice(0, 2), "cannot set '0/bias' at [0:2]: expected a number or f32[2], got i32[2]"),
        ("0/bias", 1j, 0, "cannot set '0/bias' at [0]: expected a number that f32[8] can hold, got 1j"),
        ("0/bias", 1, "x", "cannot set '0/bias' at ['x']: it is f32[8], and only integers, slices (`:`), ellipsis (`...`),"
                           " numpy.newaxis (`None`) and integer or boolean arrays are valid indices"),
        ("0", 1, 0, "cannot set '0' at [0]: it is Tree, not an array"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_is_an_error_where_jax_is_silent(params, path, value, at, message):
    says(pt.StructureError, message, pt.set, params, path, value, at=at)


def test_a_partly_traced_index_is_checked_where_it_is_known():
    w = jnp.zeros((8, 2))
    with pytest.raises(pt.StructureError, match="index 99 is out of bounds for axis 1 with size 2"):
        jax.jit(lambda i: pt.set({"w": w}, "w", 1, at=(i, 99))["w"])(0)
    assert jax.jit(lambda i: pt.set({"w": w}, "w", 1, at=(i, 1))["w"])(3)[3, 1] == 1
    with pytest.raises(
        pt.StructureError, match=r"a mask that is only known inside of jit has no known shape; use jnp.where"
    ):
        jax.jit(lambda m: pt.set({"w": w}, "w", 1, at=m)["w"])(w > 0)


# masks and counts


def test_mask_and_count(params):
    mask = pt.mask(params, "**/bias")
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    assert [mask[path] for path in pt.paths(mask)] == [False, True] * 3
    assert pt.count(params) == 121
    assert pt.count(params, "2") == 72
    assert pt.count({"a": pt.Param((3, 4)), "b": 1}) == 13


# two trees


def test_check_lists_all_that_differs_by_path(params):
    assert pt.check(params, like=pt.abstract(params)) is None
    other = pt.put(pt.put(pt.drop(params, "6"), "0/bias", jnp.ones(3)), "0/kernel", jnp.ones((4, 8), jnp.bfloat16))
    error = says(
        pt.StructureError,
        "the tree is not like `like`:\n"
        "  '0/bias': expected f32[8] in `like`, got f32[3] in the tree\n"
        "  '0/kernel': expected f32[4,8] in `like`, got bf16[4,8] in the tree\n"
        "  missing in the tree: ['6/bias', '6/kernel']\n"
        "  unexpected in the tree: ['7']",
        pt.check, pt.put(other, "7", 1), params,
    )  # fmt: skip
    assert (error.missing, error.unexpected) == (["6/bias", "6/kernel"], ["7"])
    assert (error.misshapen, error.mistyped) == (["0/bias"], ["0/kernel"])
    tree = {"a": 1, "b": 1, "c": 1}
    error = says(
        pt.StructureError,
        "the tree is not like `like`: 'c' is tied to 'a' in `like`, and tied to 'b' in the tree.",
        pt.check, pt.tie(tree, {"c": "b"}), pt.tie(tree, {"c": "a"}),
    )  # fmt: skip


def test_a_long_report_shows_ten_of_a_kind_and_counts_the_rest():
    like = pt.Tree({f"l{i}": {"w": jnp.ones(2), "b": jnp.ones(1)} for i in range(40)})
    other = pt.Tree({f"l{i}": {"w": jnp.ones(3)} for i in range(40)})
    with pytest.raises(pt.StructureError) as error:
        pt.check(other, like)
    assert (
        "'l9/w': expected f32[2] in `like`, got f32[3] in the tree\n  and 30 more of another shape or dtype\n"
        in str(error.value)
    )
    assert str(error.value).endswith("'l9/b', and 30 more]")
    assert len(error.value.misshapen) == len(error.value.missing) == 40


def test_check_tells_ties_and_leaves_at_once():
    untied = {"e": Z, "h": Z, "n": O, "m": 1}
    tied = pt.tie(untied, {"h": "e"})
    says(pt.StructureError, "the tree is not like `like`:\n  missing in the tree: ['m']\n"
         "  'h' is a leaf of its own in `like`, and tied to 'e' in the tree",
         pt.check, pt.drop(tied, "m"), untied)  # fmt: skip
    says(
        pt.StructureError,
        "the tree is not like `like`: the root: expected 2.0 in `like`, got 1 in the tree.",
        pt.check,
        1,
        2.0,
    )


# what a review found


def test_conflicting_values_below_a_foreign_container_are_refused_too(params):
    state = optax.adam(1e-3).init(params)
    plain = pt.asdict(state[0].mu)
    plain["4"] = {**plain["4"], "bias": jnp.ones(8)}
    says(pt.TieError, "cannot set '0/mu': '0/mu/2/bias', f32[8], and '0/mu/4/bias', f32[8], are one tied leaf,"
         " and their values differ by up to 1."
         " Give both the same value, or untie them first", pt.set, state, "0/mu", plain)  # fmt: skip


def test_update_by_one_path_works_where_set_does(params):
    state = optax.adam(1e-3).init(params)
    new = pt.update(state, "0/mu/4/bias", lambda b: b + 1)
    assert (new[0].mu["2/bias"] == 1).all()
    says(pt.StructureError, "cannot update '4/bias': expected f32[8], got f32[7]."
         " To change shapes or dtypes, write chosen, rest = ptree.partition(tree, selector), and then"
         " ptree.merge(jax.tree.map(function, chosen), rest).",
         pt.update, params, "4/bias", lambda b: b[1:])  # fmt: skip


def test_put_finds_the_keys_of_foreign_dicts_as_set_does():
    assert pt.put({"mlp/~/linear_0": {"w": 1}}, "mlp/~/linear_0/w", 5) == {"mlp/~/linear_0": {"w": 5}}
    assert pt.put({"layers": {0: 1}}, "layers/1", 2) == {"layers": {0: 1, 1: 2}}
    says(pt.StructureError, "cannot put 'x': the keys beside 'x' are whole numbers", pt.put, {0: 1}, "x", 2)
    ordered = pt.put(OrderedDict(z=1), "a/b", 2)
    assert ordered == OrderedDict(z=1, a={"b": 2})
    assert type(ordered) is OrderedDict
    assert list(pt.set({"layer_1": 1, "layer_10": 2, "layer_2": 3}, "layer_2", 4)) == ["layer_1", "layer_10", "layer_2"]


def test_an_ambiguous_path_names_both_readings():
    says(
        pt.PathError,
        "the path 'a/b' is ambiguous: the keys read 'a' then 'b' or 'a/b'",
        pt.get,
        {"a": {"b": 1}, "a/b": 2},
        "a/b",
    )
    says(pt.PathError, "the path 'x/1' is ambiguous below 'x': the keys read the int 1 or the str '1'",
         pt.get, {"x": {1: 1, "1": 2}}, "x/1")  # fmt: skip
    text = "the path '1' is ambiguous: two leaves have it. Rename a key that holds '/' or is a number"
    says(pt.PathError, text, pt.update, {1: 1, "1": 2}, "*", lambda leaf: leaf)
    assert pt.get({"a": {"c": 1}, "a/b": 2}, "a/b") == 2


def test_unflatten_into_like_refuses_any_extra_name():
    says(
        pt.StructureError,
        "cannot unflatten into `like`: unexpected: ['zzz'].",
        pt.unflatten,
        {"a": 1, "zzz": {"q": 1}},
        {"a": 0},
    )


def test_unflatten_into_like_ignores_nothing():
    for odd in (None, {}, ()):
        says(
            pt.StructureError,
            "cannot unflatten into `like`: unexpected: ['zz'].",
            pt.unflatten,
            {"a": 1, "zz": odd},
            {"a": 1},
        )
    assert pt.unflatten({0: 5, 1: 6}, like=[0, 0]) == [5, 6]
    says(pt.StructureError, "unflatten takes a flat dict, path -> leaf, or a Tree; got None", pt.unflatten, None)


def test_no_function_looks_through_a_transpose_for_names_alone(monkeypatch):
    big = pt.tie({"e": jnp.ones((3, 2)), "h": {"k": jnp.ones((2, 3)), "b": jnp.ones(2)}}, {"h/k": pt.transposed("e")})
    monkeypatch.setattr(type(jnp.ones(1)), "swapaxes", None)
    assert pt.paths(big, aliases=True) == ["e", "h/k", "h/b"]
    assert pt.paths(pt.drop(big, "h/b"), aliases=True) == ["e", "h/k"]
    assert "h/k" in big
    assert pt.summary(big).rows[1].shape == (2, 3)


def test_raw_exceptions_of_python_do_not_come_through(params):
    says(pt.PatternError, r"cannot rename '0/bias' to '\\2': invalid group reference 2 at position 1",
         pt.rename, params, {re.compile("(0)/bias"): r"\2"})  # fmt: skip
    assert pt.rename({"a": {}, "b": {"c": 1}}, {"a": "a", "b": "b"}) == {"a": {}, "b": {"c": 1}}
    says(pt.PatternError, "cannot rename '0/bias' to '': the new path is empty", pt.rename, params, {"0/bias": ""})
    says(pt.PathError, f"no path '{'a/' * 48}a...{'/a' * 49}': it has 2000 segments, and no tree has over 256 levels",
         pt.put, pt.Tree(), "/".join("a" * 2000), 1)  # fmt: skip
    says(pt.StructureError, "cannot set 'a': expected None, got 1. Use ptree.put to replace it by something of another shape"
         " or dtype.", pt.set, {"a": None}, "a", 1)  # fmt: skip
    with pytest.raises(pt.PatternError, match="matches nothing in 1 leaves"):
        pt.items(pt.Tree({"kernel": {"x": 1}}), "{kernal/x,y}")


def test_arguments_of_the_wrong_kind_are_refused_in_a_sentence():
    tree = {"w": jnp.zeros((3, 2))}
    with pytest.raises(pt.PatternError, match=r"not a selector: f32\[2\]; a selector is"):
        pt.items(tree, jnp.ones(2))
    says(
        pt.StructureError,
        "update takes a function of a leaf, got 3; to set a value use ptree.set",
        pt.update,
        tree,
        "w",
        3,
    )
    assert pt.set(tree, "w", 1, at=[0, 1])["w"].tolist() == pt.set(tree, "w", 1, at=jnp.array([0, 1]))["w"].tolist()
    assert pt.set(tree, "w", 1, at=([0, 1], 1))["w"][:, 1].tolist() == [1, 1, 0]
    for number, dtype in ((10**400, "float32"), (1e30, "float16"), (-1e39, "float32")):
        with pytest.raises(pt.StructureError, match=r"expected a number that f.* can hold"):
            pt.set({"w": jnp.zeros(2, dtype)}, "w", number, at=0)
    assert pt.set(tree, "w", float("inf"), at=0)["w"][0, 0] == jnp.inf
    says(pt.StructureError, "the tree is not like `like`: 'a': expected int in `like`, got 1.0 in the tree.",
         pt.check, {"a": 1.0}, {"a": 10**5000})  # fmt: skip


@jax.tree_util.register_pytree_node_class
class Scaled:
    """A node whose constructor looks at its children, which JAX asks nodes not to do."""

    def __init__(self, scale, count):
        self.scale, self.count, self.dtype = scale, count, scale.dtype

    def tree_flatten(self):
        return (self.scale, self.count), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_a_node_that_needs_its_children_is_parted_below_them_or_refused():
    partial = jax.tree_util.Partial(max, 1, key=2)
    positional, keywords = pt.partition(partial, "0")
    assert (positional.args, keywords.args, keywords.keywords) == ((1,), (None,), {"key": 2})
    assert jax.tree.structure(pt.merge(positional, keywords)) == jax.tree.structure(partial)
    scaled = {"a": Scaled(jnp.float32(8), jnp.int32(3)), "b": jnp.ones(2)}
    whole, rest = pt.partition(scaled, "a")
    assert jax.tree.structure(pt.merge(whole, rest)) == jax.tree.structure(scaled)
    with pytest.raises(
        pt.StructureError, match="in 'a': a Scaled cannot have None in the place of a child: 'NoneType'"
    ):
        pt.partition(scaled, "a/0")
    with pytest.raises(
        pt.StructureError, match=r"a Scaled cannot be made with .* as its children: 'bool' object has no"
    ):
        pt.mask(scaled, "a")
