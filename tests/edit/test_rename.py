"""rename: each leaf under its new name, in containers of the same kind, and what it refuses."""

import re
from collections import OrderedDict

import jax
import jax.numpy as jnp
import optax
import pytest
from errors import says
from trees import mlp

import ptree as pt

Z = jnp.zeros(2)


@pytest.fixture
def params():
    return pt.tie(mlp(), {"4": "2"})


def test_rename_fills_in_what_the_wildcards_took(params):
    new = pt.rename(params, {"*/kernel": "layers/*/w", "*/bias": "layers/*/b"})
    assert pt.paths(new, "layers/2") == ["layers/2/w", "layers/2/b"]
    assert new["layers/4/w"] is params["2/kernel"]
    assert pt.ties(new) == {"layers/4/w": "layers/2/w", "layers/4/b": "layers/2/b"}
    assert pt.rename({"enc": {"l_0": 1}}, {"enc/l_*": "x/*"}) == {"x": {"0": 1}}
    assert pt.rename({"enc/l_0": 1, "b": 2}, {"enc/l_*": "x.*"}) == {"x.0": 1, "b": 2}
    assert pt.rename({"enc": {"l_0": 1}}, {re.compile(r"enc/l_(\d)"): r"l\1/enc"}) == {"l0": {"enc": 1}}
    assert pt.rename({"a": {"b": 1}}, {"a": "c"}) == {"c": {"b": 1}}
    assert pt.rename({"a": 1, "b": 2}, {"a": "b", "b": "a"}) == {"b": 1, "a": 2}


LAYERS = {"l": {str(at): {"query": {"w": 10 * at}, "key": {"w": 10 * at + 1}} for at in range(3)}}
HEADS = {"heads": {str(at): {"q": {"w": 10 * at}, "k": {"w": 10 * at + 1}} for at in range(3)}}


@pytest.mark.parametrize(
    ("tree", "table", "expected"),
    [
        (LAYERS, {"l/*/{query,key}": "heads/*/{q,k}"}, HEADS),
        (LAYERS, {"l/{0..2}/{key,query}/**": "heads/*/{k,q}/**"}, HEADS),
        (LAYERS, {"l/{0..2}/{query,key}/w": "heads/{0..2}/{q,k}/w"}, HEADS),
        (LAYERS, {"**/{query,key}/w": "**/*/kernel"}, {"l": {n: {"query": {"kernel": v["query"]["w"]}, "key": {"kernel": v["key"]["w"]}}
                                                           for n, v in LAYERS["l"].items()}}),
        ({"layer_3": 1, "layer_4": 2}, {"layer_{3,4}": "blocks/{0..1}"}, {"blocks/0": 1, "blocks/1": 2}),
        ({"layer_3": 1, "layer_4": 2}, {"layer_{3..4}": "blocks/{03..04}"}, {"blocks/03": 1, "blocks/04": 2}),
        ({"q_w": 1, "q_b": 2, "k_w": 3}, {"{q,k}_{w,b}": "{query,key}.{kernel,bias}"}, {"query.kernel": 1, "query.bias": 2, "key.kernel": 3}),
        ({"a": 1, "b": 2}, {"{a,b}": "{b,a}"}, {"b": 1, "a": 2}),
        ({"a,b": 1, "c": 2}, {r"{a\,b,c}": "{x,y}"}, {"x": 1, "y": 2}),
        ({"norm": 1, "pre_norm": 2}, {"{,pre_}norm": "{post_,}norm"}, {"post_norm": 1, "norm": 2}),
        ({"a": {"x": 1}, "b": 2}, {"{a/x,b}": "c"}, None),
        ({"a": {"x": 1}, "b": 2}, {"{a/*,b}": "c"}, None),
        ({"a": 1}, {"a": "x{0}"}, {"x{0}": 1}),
        ({"a": 1}, {"a": r"x\{p,q\}"}, {"x{p,q}": 1}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [dict, pt.Tree])
def test_rename_fills_in_braces_by_the_alternative_that_matched(kind, tree, table, expected):
    if expected is None:
        with pytest.raises(pt.PtreeError):
            pt.rename(kind(tree), table)
        return
    assert pt.rename(kind(tree), table) == kind(expected)


def test_rename_there_and_back_by_braces():
    tree = {"enc": {"q_proj": {"kernel": 1, "bias": 2}, "k_proj": {"kernel": 3, "bias": 4}}}
    there = pt.rename(tree, {"enc/{q,k}_proj/{kernel,bias}": "body/{query,key}/{w,b}"})
    assert there == {"body": {"query": {"w": 1, "b": 2}, "key": {"w": 3, "b": 4}}}
    assert pt.rename(there, {"body/{query,key}/{w,b}": "enc/{q,k}_proj/{kernel,bias}"}) == tree


@pytest.mark.parametrize(("table", "why"), [
    ({"{a,b}/w": "{x,y,z}/w"}, "{x,y,z} on the right has 3 names, and the braces on the left that it stands for have 2"),
    ({"*/w": "{x,y}/w"}, "{x,y} on the right stands for a wildcard on the left that is no list of names:"
     " write '*' on the right to keep what it matches, or a row for each name"),
    ({"{a,b*}/w": "{x,y}/w"}, "{x,y} on the right stands for a wildcard on the left that is no list of names:"
     " write '*' on the right to keep what it matches, or a row for each name"),
    ({"{a,b}/w": "{x/p,y}/w"}, "{x/p,y} on the right holds '/', and braces there are a list of names of one segment: write a row for each name"),
    ({"{a,b}/w": "{x*,y}/w"}, "{x*,y} on the right holds wildcards, and braces there are a list of plain names: write a row for each name"),
    ({"{a,b}/w": "{x{1,2},y}/w"}, "'{x{1,2},y}/w', on the right, has braces beside or inside of braces with names: write a row for each"
     " name, or '\\{' and '\\}' for the characters"),
    ({"{a,b}/w": "{x, y}/w"}, "bad pattern '{x, y}': a space beside '{', ',' or '}' would belong to the name. Write '{x,y}', or"
     " '\\ ' where a name has that space"),
    ({"{a,b}/w": "x/w"}, "the left has 1 wildcard, the right has 0 of '*', '**', '?' and '{a,b}'"),
    ({"a/w": "{x,y}/w"}, "the left has 0 wildcards, the right has 1 of '*', '**', '?' and '{a,b}'"),
    ({"{a,b}/w": "{0..99999999}/w"}, "{0..99999999} on the right has more than 10,000 numbers: write a row for each name"),
])  # fmt: skip
def test_rename_says_which_braces_do_not_correspond(table, why):
    ((old, new),) = table.items()
    says(pt.PatternError, f"cannot rename {old!r} to {new!r}: {why}", pt.rename, {"a": {"w": 1}, "b": {"w": 2}}, table)


@pytest.mark.parametrize(("old", "new", "braces", "held", "left", "right"), [
    ("{enc/q,dec/w}", "x/*", "{enc/q,dec/w}", "'/'", "0 wildcards", 1),
    ("{enc/q,dec/w}", "x/{a,b}", "{enc/q,dec/w}", "'/'", "0 wildcards", 1),
    ("{enc/{q,k},dec/w}", "x", "{enc/{q,k},dec/w}", "'/'", "1 wildcard", 0),
    ("{enc/*,dec/w}", "x/*/*", "{enc/*,dec/w}", "'/'", "1 wildcard", 2),
    ("*/{q,k,w}/{a/b,c}", "*/x/{a,c}/{e,f}", "{a/b,c}", "'/'", "2 wildcards", 3),
    ("{enc/**,dec}", "x/*/*", "{enc/**,dec}", "'/'", "1 wildcard", 2),
    ("enc/{**,q}", "x", "{**,q}", "'**'", "1 wildcard", 0),
])  # fmt: skip
def test_rename_says_that_braces_with_a_slash_are_no_wildcard(old, new, braces, held, left, right):
    tree = {"enc": {"q": {"a": {"b": 1}, "c": 2}, "k": {"c": 3}}, "dec": {"w": {"c": 4}}}
    why = (
        f"the left has {left}, the right has {right} of '*', '**', '?' and '{{a,b}}'."
        f" {braces!r} holds {held}, so it is no wildcard: write a row for each name in it"
    )
    says(pt.PatternError, f"cannot rename {old!r} to {new!r}: {why}", pt.rename, tree, {old: new})
    assert pt.paths(tree) == ["enc/q/a/b", "enc/q/c", "enc/k/c", "dec/w/c"]


def test_a_row_for_each_name_renames_what_braces_with_a_slash_cannot():
    tree = {"enc": {"q": 1}, "dec": {"w": 2}}
    assert pt.rename(tree, {"enc/q": "x/q", "dec/w": "x/w"}) == {"x": {"q": 1, "w": 2}}


def test_rename_refuses_what_would_lose_a_leaf(params):
    says(
        pt.StructureError,
        "cannot rename: '0/bias' and '2/bias' both land on '2/bias'",
        pt.rename,
        params,
        {"0/bias": "2/bias"},
    )
    says(pt.PatternError, "cannot rename '*/bias' to 'b': the left has 1 wildcard, the right has 0 of '*', '**', '?' and '{a,b}'",
         pt.rename, params, {"*/bias": "b"})  # fmt: skip
    says(pt.PatternError, "the pattern '9' matches nothing: at the root there are ['0', '2', '4', '6'].",
         pt.rename, params, {"9": "8"})  # fmt: skip
    says(
        pt.StructureError,
        "cannot rename at the root: a list keeps its own names",
        pt.rename,
        [1],
        {"0": "1"},
    )


def test_rename_never_loses_a_leaf_below_where_another_lands():
    for tree in ({"a": {"x": 1, "y": 3}, "b": 2}, pt.Tree({"a": {"x": 1, "y": 3}, "b": 2})):
        says(
            pt.StructureError,
            "cannot rename: 'b' lands on 'a', and 'a/x' below it, on 'a/x'",
            pt.rename,
            tree,
            {"b": "a"},
        )
        says(
            pt.StructureError,
            "cannot rename: 'a/x' lands on 'a', and 'a/y' below it, on 'a/y'",
            pt.rename,
            tree,
            {"a/x": "a"},
        )
        assert pt.rename(tree, {"b": "a/z"})["a"]["z"] == 2
    says(
        pt.StructureError,
        "cannot rename: 'b' lands on 'a', and 'a/0' below it, on 'a/0'",
        pt.rename,
        {"a": [1, 2], "b": 3},
        {"b": "a"},
    )


def test_rename_of_a_dict_moves_whole_containers():
    tied = pt.tie(mlp(), {"4": "2"})
    moved = pt.rename({"m": tied, "o": [1, (2,)], "e": {}}, {"m": "k", "o": "p", "e": "f/g"})
    assert moved["k"] is tied
    assert moved == {"k": tied, "p": [1, (2,)], "f": {"g": {}}}
    says(
        pt.StructureError,
        "cannot rename inside 'a': a list keeps its own names",
        pt.rename,
        {"a": [1, 2]},
        {"a/0": "a/x"},
    )
    assert pt.rename({0: 1}, {"0": "a"}) == {"a": 1}


HAIKU = {"mlp/~/linear_0": {"w": 1, "b": 2}, "mlp/~/linear_1": {"w": 3, "b": 4}}


@pytest.mark.parametrize(("tree", "table", "expected"), [
    (HAIKU, {"mlp/~/linear_*": "net/~/linear_*"}, {"net/~/linear_0": {"w": 1, "b": 2}, "net/~/linear_1": {"w": 3, "b": 4}}),
    (HAIKU, {"mlp/~/linear_0": "mlp/~/linear_1", "mlp/~/linear_1": "mlp/~/linear_0"},
     {"mlp/~/linear_1": {"w": 1, "b": 2}, "mlp/~/linear_0": {"w": 3, "b": 4}}),
    (HAIKU, {"**/w": "**/kernel"}, {"mlp/~/linear_0": {"kernel": 1, "b": 2}, "mlp/~/linear_1": {"kernel": 3, "b": 4}}),
    ({"layers": [{"a": 1}, {"a": 2}]}, {"**/a": "**/w"}, {"layers": [{"w": 1}, {"w": 2}]}),
    ({"e": {"l": [{"k": 1}]}, "z": ()}, {"e/l/*/k": "enc/l/*/w"}, {"enc": {"l": [{"w": 1}]}, "z": ()}),
    ({"gen": pt.Tree({"a": 1}), "disc": pt.Tree({"a": 2})}, {"**/a": "**/w"}, {"gen": pt.Tree({"w": 1}), "disc": pt.Tree({"w": 2})}),
    ([{"a": 1}, ({"a": 2},)], {"**/a": "**/w"}, [{"w": 1}, ({"w": 2},)]),
    ({1: {"a": 1}, 2: {"a": 2}}, {"1": "7"}, {7: {"a": 1}, 2: {"a": 2}}),
    ({"a": 1, "b": {"c": 2}}, {"b/c": "c2"}, {"a": 1, "c2": 2}),
    ({"a": {"x": 1, "y": 3}, "b": 2}, {"b": "a/z"}, {"a": {"x": 1, "y": 3, "z": 2}}),
])  # fmt: skip
def test_rename_keeps_every_container_and_every_leaf(tree, table, expected):
    renamed = pt.rename(tree, table)
    assert renamed == expected
    assert jax.tree.structure(renamed) == jax.tree.structure(expected)
    assert sorted(jax.tree.leaves(renamed)) == sorted(jax.tree.leaves(tree))


def test_rename_keeps_kinds_of_mappings_and_order_and_shares_the_rest():
    tree = OrderedDict(z=OrderedDict(b=1, a=2), m={"k": [3]})
    renamed = pt.rename(tree, {"z": "y"})
    assert renamed == OrderedDict(y=OrderedDict(b=1, a=2), m={"k": [3]})
    assert list(renamed) == ["y", "m"]
    assert renamed["m"] is tree["m"]
    assert type(pt.rename(OrderedDict(z=1, a=2), {"z": "q"})) is OrderedDict
    state = pt.rename(optax.adam(1.0).init({"a": Z}), {"**/a": "**/b"})
    assert pt.paths(state) == ["0/count", "0/mu/b", "0/nu/b"]
    wide = {f"m/~/l_{at}": {"w": at} for at in range(5000)}  # by one write a name this took minutes
    assert len(pt.rename(wide, {"m/~/l_*": "n/~/l_*"})) == 5000


@pytest.mark.parametrize(("tree", "table", "message"), [
    ({1: 1, 2: 2}, {"1": "x"}, "cannot rename: the keys beside 'x' are whole numbers"),
    ({"a": [1, 2]}, {"a/0": "a/x"}, "cannot rename inside 'a': a list keeps its own names"),
    ({"a": [1, 2], "b": 3}, {"b": "a/z"}, "cannot rename: in 'a': a list keeps its own names, ['0', '1']"),
    (3, {"a": "b"}, "cannot rename: the tree is a single leaf, which has no name"),
])  # fmt: skip
def test_rename_says_what_cannot_take_a_name(tree, table, message):
    says(pt.StructureError, message, pt.rename, tree, table)


@pytest.mark.parametrize("tree", [pt.Tree({"a": {"b": 1}}), {"a": {"b": 1}}, {"a/b": 1}])
def test_rename_refuses_paths_that_are_none(tree):
    for table in (
        {re.compile("a/(b)"): ""},
        {re.compile("a/(b)"): "x//y"},
        {"a/b": "x//y"},
        {"a/b": "/x"},
        {"a/b": "x/"},
    ):
        with pytest.raises(pt.PatternError, match=r"the new path (is empty|has an empty segment)"):
            pt.rename(tree, table)
