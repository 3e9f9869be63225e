"""Rules, a value for each leaf: label gives the first that matches, explain shows why, and a rule without effect is an error."""

import re

import jax
import jax.numpy as jnp
import pytest
from errors import says
from trees import mlp

import ptree as pt
from ptree import initializers as I


@pytest.fixture
def params():
    return pt.tie(mlp(), {"4": "2"})


def test_label_gives_each_leaf_the_value_of_the_first_rule_that_matches(params):
    labels = pt.label(params, {"**/bias": "none", ("2", "!2/bias"): "tied", "**": "decay"})
    assert pt.flatten(labels, ["**", "!6"]) == {
        "0/kernel": "decay", "0/bias": "none", "2/kernel": "tied", "2/bias": "none",
        "4/kernel": pt.flatten(labels)["4/kernel"], "4/bias": pt.flatten(labels)["4/bias"],
    }  # fmt: skip
    assert labels["4/kernel"] == "tied"
    assert pt.label(params, {"0": 1}, default=2)["6/bias"] == 2
    assert pt.label(params, {"0": 1, "9": 3}, default=2, strict=False)["0/bias"] == 1
    assert pt.label([1, (2,)], {"0": "a", lambda path, leaf: leaf == 2: "b"}) == ["a", ("b",)]


def test_rules_that_do_not_cover_are_one_error_that_lists_all(params):
    says(
        pt.PatternError,
        "the pattern '**/bais' matches nothing in 6 leaves. Did you mean '**/bias'?\n"
        "the pattern '9' matches nothing: at the root there are ['0', '2', '4', '6'].\n"
        "no rule matches ['2/kernel', '2/bias', '6/kernel', '6/bias']: add a rule for '**', or give default=",
        pt.label, params, {"**/bais": 1, "0": 2, "9": 3},
    )  # fmt: skip
    says(pt.PatternError, "rules are a dict, selector -> value; got 3", pt.label, params, 3)


def test_explain_shows_what_took_each_leaf_and_what_it_shadowed(params):
    told = pt.explain(params, {"**/bias": 1, "2": 2, re.compile("0/.*"): 3, "7": 4})
    assert str(told) == (
        "leaf      rule     shadowed\n"
        "0/kernel  0/.*\n"
        "0/bias    **/bias  0/.*\n"
        "2/kernel  2\n"
        "2/bias    **/bias  2\n"
        "6/kernel  -\n"
        "6/bias    **/bias\n"
        "dead: the pattern '7' matches nothing: at the root there are ['0', '2', '4', '6'].\n"
        "unmatched: ['6/kernel']"
    )
    assert told.unmatched == ["6/kernel"]
    assert list(told.dead) == ["7"]


def test_rules_of_one_name_are_told_apart():
    told = pt.explain({"a": 1}, {lambda path, leaf: leaf == 9: 1, lambda path, leaf: leaf == 8: 2, "**": 3})
    assert str(told).count("dead: the predicate") == 2
    assert list(told.dead) == ["<lambda>", "<lambda> (2)"]


def test_every_dead_rule_is_listed_also_those_of_one_name():
    rules = {lambda path, leaf: leaf == 1: 1, lambda path, leaf: leaf == 99: 2, lambda path, leaf: leaf == 98: 3}
    says(pt.PatternError, "the predicate '<lambda>' is true of no leaf\nthe predicate '<lambda>' is true of no leaf",
         pt.label, {"a": 1}, rules)  # fmt: skip


def test_a_rule_that_comes_too_late_is_an_error():
    tree = pt.Tree({"enc": {"kernel": 1, "bias": 2}, "head": {"kernel": 3}})
    late = "the rule '**/bias' applies to no leaf: ['**'] before it applies to all that it matches"
    for call in (
        pt.label,
        lambda t, r: pt.init(t, jax.random.key(0), r),
        lambda t, r: pt.reinit(t, jax.random.key(0), r),
    ):
        says(pt.PatternError, late, call, tree, {"**": I.zeros, "**/bias": I.ones})
    told = pt.explain(tree, {"**": 1, "**/bias": 2})
    assert told.dead == {"**/bias": late}
    assert pt.label(tree, {"**": 1, "**/bias": 2}, strict=False)["enc/bias"] == 1
    says(pt.PatternError, "the rule '*/kernel' applies to no leaf: ['enc', 'head'] before it applies to all that it matches",
         pt.label, tree, {"enc": 1, "head": 2, "*/kernel": 3})  # fmt: skip
    assert pt.label(tree, {"enc": 1, "head": 2, "**": 3})["head/kernel"] == 2


def test_dtypes_by_rules_cast_each_leaf_once_and_keep_ties_and_stacks():
    block = {"norm": {"scale": jnp.ones(3)}, "fc": {"kernel": jnp.ones((3, 3)), "count": jnp.arange(3)}}
    tree = {"embed": jnp.ones((5, 3)), "head": {"kernel": jnp.ones((3, 5))}, "blocks": [block] * 2}
    tree = pt.stacks.stack(pt.tie(tree, {"head/kernel": pt.transposed("embed")}), "blocks")
    dtypes = pt.label(tree, {"**/norm/**": jnp.float32, "**/count": jnp.int32, "**": jnp.bfloat16})
    cast = jax.tree.map(jnp.astype, tree, dtypes)
    assert {path: leaf.dtype.name for path, leaf in pt.items(cast, aliases=True)} == {
        "embed": "bfloat16",
        "head/kernel": "bfloat16",
        "blocks/:/norm/scale": "float32",
        "blocks/:/fc/kernel": "bfloat16",
        "blocks/:/fc/count": "int32",
    }
    assert jax.tree.structure(cast) == jax.tree.structure(tree)
