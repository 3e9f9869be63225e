"""Edits of structure, put, drop, partition, merge, tie and Tree(...): keys of all kinds, containers and gaps stay as they are."""

import numpy as np
import pytest
from errors import says
from trees import Block, Pair, arange, equal

import ptree as pt

SLASHED = {
    "net/~/linear": {"w": arange(2), "b": pt.Tree({"x": arange(1)})},
    "net/~/linear_1": {"w": arange(3)},
    "top": arange(1),
}


@pytest.mark.parametrize("selector", ["net/~/linear/b/x", "net/~/linear/*", "top", "**/w"])
def test_keys_that_hold_slashes_stay_one_key(selector):
    selected, rest = pt.partition(SLASHED, selector)
    assert {*selected, *rest} <= {*SLASHED}
    assert equal(pt.merge(selected, rest), SLASHED)
    assert equal(pt.merge(rest, selected), SLASHED)
    assert {*pt.drop(SLASHED, selector)} <= {*SLASHED}
    assert {*pt.select(SLASHED, selector)} <= {*SLASHED}


def test_keys_that_hold_slashes_stay_inside_a_container_of_a_tree():
    inner = pt.Tree({"pair": Pair({"a/b": arange(2)}, arange(1))})
    nested = pt.Tree({"x": inner, "y": arange(2)})
    assert nested["x/pair"] is inner["pair"]
    assert pt.drop(nested, "y")["x/pair"] is inner["pair"]


@pytest.mark.parametrize("key", [-1, 0, 10])
def test_a_write_below_a_number_as_a_key_replaces_and_adds_no_key(key):
    tree = {key: {"w": arange(2)}, 7: arange(1)}
    for new in (pt.set(tree, f"{key}/w", arange(2, start=5)), pt.put(tree, f"{key}/w", arange(2, start=5))):
        assert list(new) == [key, 7]
        assert new[key]["w"][0] == 5


def test_writing_a_node_keeps_the_order_of_a_dict():
    tree = {"enc": {"w": arange(2), "a": arange(1)}}
    new = pt.set(tree, "enc", {"a": arange(1), "w": arange(2, start=1)})
    assert list(new["enc"]) == ["w", "a"]
    assert pt.set(tree, "enc", tree["enc"]) is tree


def test_what_a_layer_of_a_stack_is_not_cannot_be_put_beside_it():
    stacked = pt.stacks.stack(pt.Tree({"blocks": [{"w": arange(2)}] * 3}), "blocks")
    says(
        pt.StructureError,
        "cannot put 'blocks/3': at the root is a stack of 3 layers: ':' names all its layers, a number one."
        " To add a layer use ptree.stacks.unstack first",
        pt.put,
        stacked,
        "blocks/3",
        {"w": arange(2)},
    )


# -------------------------------------------------------------------------------- empty nodes, gaps


def test_a_tree_without_leaves_is_kept_where_it_is_put():
    empty, gaps = pt.Tree(), pt.partition(pt.Tree({"w": 1}), "**")[1]
    for nothing in (empty, gaps):
        nested = pt.Tree({"frozen": nothing, "rest": {"w": 1, "b": 2}})
        assert list(nested) == ["frozen", "rest"]
        assert list(pt.drop(nested, "rest/b")) == ["frozen", "rest"]


def test_none_and_keys_below_it_are_two_keys_for_one_path():
    for tree in ({"a": None, "a/b": 1}, {"a/b": 1, "a": None}, {"x": {"a": None, "a/b": 1}}):
        with pytest.raises(pt.StructureError, match=r"two keys land on the path '(x/)?a'"):
            pt.Tree(tree)
    assert pt.paths(pt.merge(pt.Tree({"a": None}), pt.Tree({"a/b": 1}))) == ["a/b"]


def test_a_gap_is_in_nobodys_way():
    part = pt.partition(pt.Tree({"a": {"b": 1}, "c": 2}), "c")[0]
    assert pt.paths(pt.merge(part, pt.Tree({"a": 3}))) == ["a", "c"]


@pytest.mark.parametrize(
    "tree", [(pt.Tree({"w": 1, "b": 2}),), Block(pt.Tree({"w": 1, "b": 2}), 3)], ids=["tuple", "dataclass"]
)
def test_a_container_loses_no_child_although_a_gap_is_left(tree):
    part = pt.partition(tree, lambda path, leaf: not path.endswith("b"))[0]
    with pytest.raises(pt.StructureError, match="cannot lose a child"):
        pt.drop(part, "*/w")


def test_mappings_become_trees_where_another_part_has_a_tree():
    merged = pt.merge({"a": pt.Tree({"x": 1})}, {"a": {"y": {"z": 2}}})
    assert type(merged) is dict
    assert type(merged["a"]["y"]) is pt.Tree


# ------------------------------------------------------------------------- containers and ties


def twice(node):
    return pt.Tree({"a": node(), "b": node(), "w": arange(2)})


def pair():
    return {"in": Pair(arange(2), arange(3)), "w": arange(1)}


def test_a_container_inside_a_tied_node_is_tied_as_a_whole():
    tied = pt.tie(twice(pair), {"b": "a"})
    assert pt.ties(tied) == {"b/in": "a/in", "b/w": "a/w"}
    assert tied["b/in"] is tied["a/in"]
    assert tied["b/in/left"] is tied["a/in"].left


def test_an_empty_node_inside_a_tied_node_stays():
    tied = pt.tie(twice(lambda: {"w": arange(1), "none": {}}), {"b": "a"})
    assert list(tied["b"]) == ["w", "none"]
    assert equal(pt.untie(tied), twice(lambda: {"w": arange(1), "none": {}}))


def test_a_tie_ends_at_no_part_of_a_container():
    tree = twice(pair)
    with pytest.raises(pt.TieError, match="'a/in' is a container that is no Tree, which is tied as a whole"):
        pt.put(tree, "w", pt.transposed("a/in/left", (0,)))
    with pytest.raises(pt.TieError, match="it lies inside a container that is no Tree"):
        pt.put(tree, "a/in/left", pt.transposed("w", (0,)))


# ------------------------------------------------------------------------------- words


def test_dropping_all_that_is_there_by_taking_all_away_is_an_error():
    says(pt.PatternError, "the selector takes away all that it selects", pt.drop, pt.Tree({"a": {"b": 1}}), "!a")


def test_a_single_leaf_has_no_segment_for_a_star():
    for call in (pt.items, pt.drop, pt.mask):
        with pytest.raises(pt.PatternError, match="matches nothing"):
            call(np.ones(2), "*")


def test_untie_says_which_alternative_matches_nothing():
    tied = pt.tie({"a": 1, "b": 1}, {"b": "a"})
    says(
        pt.PatternError,
        "in the pattern '{b,c}' the alternative 'c' matches nothing.",
        pt.untie,
        tied,
        "{b,c}",
    )


def test_keys_of_unknown_depth_say_what_was_asked():
    tree = {"mlp/w": pt.Tree({"b": 1, "c": 2}), "a": (3,)}
    with pytest.raises(pt.PathError, match=r"^cannot rename: keys such as 'mlp/w' hold '/'"):
        pt.rename(tree, {"*/w/b": "k/*/w/b"})
