"""Edits of structure, put, drop, partition, merge, tie and Tree(...): keys of all kinds, containers and gaps stay as they are."""

from collections import Counter, OrderedDict, defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from trees import Block, Pair, arange, equal

import ptree as pt

Z = jnp.zeros(2)

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


def test_a_path_for_put_that_two_keys_could_begin_is_ambiguous():
    with pytest.raises(
        pt.PathError, match="the path 'a/b/new' is ambiguous: the keys read 'a' then 'b/new' or 'a/b' then"
    ):
        pt.put({"a": {"x": 1}, "a/b": {"y": 1}}, "a/b/new", 1)


def test_put_and_rename_see_the_same_ambiguities_as_get():
    both = {"a/b": {"c": 1}, "a": {"b": {"c": 2}}}
    with pytest.raises(pt.PathError, match="is ambiguous"):
        pt.put(both, "a/b/c", 9)
    with pytest.raises(pt.PathError, match="is ambiguous"):
        pt.put({1: "x", "1": "y"}, "1", "z")
    with pytest.raises(pt.PathError, match="is ambiguous"):
        pt.rename({0: 1, "0": 2}, {"0": "x"})
    says(pt.StructureError, "cannot put '01': the keys beside '01' are whole numbers", pt.put, {0: 1, 1: 9}, "01", 5)
    says(pt.PatternError, "the names to change are a dict, a pattern or a compiled regex -> a path; got list",
         pt.rename, {"a": 1}, [("a", "b")])  # fmt: skip
    says(pt.PatternError, "the pattern 'enc/k' renames nothing: earlier rules apply to all that it matches",
         pt.rename, pt.Tree({"enc": {"k": 1}}), {"**/k": "**/kk", "enc/k": "x"})  # fmt: skip


def test_put_beside_keys_with_slashes_ends_on_shared_and_circular_dicts():
    shared = {"w": 1}
    for _ in range(40):
        shared = {"a": shared, "b/c": shared}
    circle = {"a/b": 1}
    circle["x"] = circle
    for tree in (shared, circle):
        with pytest.raises(pt.PathError, match="is not equally deep"):
            pt.put(tree, "q/r", 1)


def test_merge_and_put_make_no_tree_that_others_refuse():
    with pytest.raises(pt.StructureError, match=r"cannot merge: \['a/b'\] is in more than one tree"):
        pt.merge({"a/b": 1}, {"a": {"b": 2}})
    for a, b in (({1: 1}, {"1": 2}), ({"1": 1}, {1: 2})):
        with pytest.raises(pt.StructureError, match=r"cannot merge: \['1'\] is in more than one tree"):
            pt.merge(a, b)
    with pytest.raises(pt.StructureError, match=r"cannot merge: \['0'\] is in more than one tree"):
        pt.merge([1], [2], [3])
    assert pt.put({-1: 1, 0: 2}, "-2", 5) == {-1: 1, 0: 2, -2: 5}
    for node, kind in (({None: 1}, "NoneType"), ({(1, 2): 1}, "tuple"), ({b"a": 1}, "bytes")):
        says(pt.StructureError, f"cannot put 'a': the keys beside 'a' are of the type {kind}", pt.put, node, "a", 5)
    says(pt.PathError, "cannot put 'a': the tree is 5, not a node.", pt.put, 5, "a", 3)


def test_what_a_layer_of_a_stack_is_not_cannot_be_put_beside_it():
    stacked = pt.stacks.stack(pt.Tree({"blocks": [{"w": arange(2)}] * 3}), "blocks")
    says(
        pt.StructureError,
        "cannot put 'blocks/3': 'blocks' is a stack of 3 layers. To add a layer use ptree.stacks.unstack first",
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
    "tree", [(pt.Tree({"w": 1, "b": 2}), 3), Block(pt.Tree({"w": 1, "b": 2}), 3)], ids=["tuple", "dataclass"]
)
def test_a_mapping_in_a_container_that_keeps_its_names_stays_when_it_loses_its_last_leaf(tree):
    for part in (pt.drop(tree, "*/b"), pt.partition(tree, lambda path, leaf: not path.endswith("b"))[0]):
        left = pt.drop(part, "*/w")
        assert type(left) is type(tree)
        assert pt.get(left, "0" if isinstance(tree, tuple) else "kernel") == pt.Tree()


@pytest.mark.parametrize("empty", [None, {}, (), pt.Tree()])
def test_a_container_that_keeps_its_names_goes_with_its_last_leaf(empty):
    for parent in (dict, pt.Tree):
        assert pt.drop(parent({"m": Block(1, empty), "c": 2}), "m/kernel") == parent({"c": 2})
        assert pt.drop(parent({"m": Block({"a": 1}, empty), "c": 2}), "m/kernel/a") == parent({"c": 2})
    assert pt.drop({"m": Block({"a": 1}, {"b": 3})}, "m/kernel") == {"m": Block({}, {"b": 3})}
    assert pt.drop({"m": Block(empty, empty), "c": 2, "d": 3}, "c") == {"m": Block(empty, empty), "d": 3}
    for refused in ({"m": Block(1, {"b": 3})}, Block(1, empty), [Block(1, empty), 2]):
        with pytest.raises(pt.StructureError, match="cannot lose a child"):
            pt.drop(refused, "**/kernel")


def test_merging_keys_of_one_name_beside_keys_with_slashes_gives_one_key():
    assert pt.merge({"1": {"b": 0}, "a/b": {"c": 1}}, {1: {"a/b": 3}}) == {"1": {"b": 0, "a/b": 3}, "a/b": {"c": 1}}


def test_a_mapping_that_loses_everything_stays_of_its_kind():
    for kind in (OrderedDict(a=1), defaultdict(int, a=1), {"a": 1}):
        assert type(pt.drop(kind, "**")) is type(pt.partition(kind, "a")[1]) is type(kind)
        assert not pt.drop(kind, "**")


def test_mappings_become_trees_where_another_part_has_a_tree():
    merged = pt.merge({"a": pt.Tree({"x": 1})}, {"a": {"y": {"z": 2}}})
    assert type(merged) is dict
    assert type(merged["a"]["y"]) is pt.Tree


def test_gaps_beside_an_alias_keep_their_order():
    tree = pt.tie({"a": {"x": 1}, "b": {"c": 2, "k": {"m": 3, "n": 1}}}, {"b/k/n": "a/x"})
    parts = pt.partition(tree, lambda path, leaf: path in ("a/x", "b/c"))
    assert pt.paths(pt.merge(*parts), aliases=True) == ["a/x", "b/c", "b/k/m", "b/k/n"]


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


def test_put_and_drop_elsewhere_keep_the_ties_of_containers():
    tied = pt.tie({"a": Z, "b": Z, "c": Z}, {"b": "a"})
    trees = jax.tree.map(lambda leaf: pt.Tree({"m": leaf}), tied)
    for changed in (pt.put(trees, "q", 1), pt.drop(trees, "c")):
        assert pt.ties(changed) == {"b/m": "a/m"}
    pairs = jax.tree.map(lambda leaf: (leaf, leaf), tied)
    assert pairs == jax.tree.map(lambda pair: pair, pairs)


def test_a_dict_of_a_tied_tree_knows_its_ties_after_an_edit():
    unpacked = {**pt.tie({"a": Z, "b": Z, "c": Z}, {"b": "a"})}
    for left in (pt.drop(unpacked, "c"), pt.select(unpacked, "{a,b}"), pt.merge(*pt.partition(unpacked, "c"))):
        assert type(left) is dict
        assert pt.ties(pt.Tree(left)) == {"b": "a"}


def test_a_dropped_alias_is_gone_from_every_view():
    tree = pt.tie({"a": {"w": 1, "v": 1}, "b": {"w": 1, "v": 1}}, {"a/v": "a/w", "b": "a"})
    left = pt.drop(tree, "b/v")
    assert "b/v" not in left
    assert list(left["b"]) == ["w"]
    assert pt.asdict(left)["b"] == {"w": 1}
    assert pt.set(left, "b", left["b"]) == left


def test_drop_beside_a_tie_sees_what_it_sees_without_one():
    tied = pt.tie({"emb": {"t": Z}, "head": {"k": Z}}, {"head/k": "emb/t"})
    assert pt.drop({"m": tied, "c": Counter(a=1), "d": 1}, "c") == {"m": tied, "d": 1}
    assert pt.paths(pt.drop({"a": 1, "a/b": 2, "m": tied}, "m/head"), aliases=True) == ["a", "a/b", "m/emb/t"]
    assert pt.paths(pt.drop({"m": tied, "x": 1}, ["m/head", "x"]), aliases=True) == ["m/emb/t"]
    says(
        pt.PatternError,
        "the pattern 'zz' matches nothing: at the root there are ['m', 'x'].",
        pt.drop,
        {"m": tied, "x": 1},
        "zz",
    )


def test_merge_keeps_the_order_of_aliases_in_a_node_of_aliases_only():
    tie = type(pt.transposed("a"))
    tree = pt.Tree({"a": 1, "b": 2, "l0": {"a": tie("b"), "b": tie("a")}})
    for parts in (pt.partition(tree, "a"), pt.partition(tree, "a")[::-1]):
        assert pt.paths(pt.merge(*parts), aliases=True) == ["a", "b", "l0/a", "l0/b"]


# ------------------------------------------------------------------------------- words


def test_dropping_all_that_is_there_by_removing_all_is_an_error():
    says(pt.PatternError, "the selector removes all that it selects", pt.drop, pt.Tree({"a": {"b": 1}}), "!a")


def test_a_single_leaf_has_no_segment_for_a_star():
    for call in (pt.items, pt.drop, pt.mask):
        with pytest.raises(pt.PatternError, match="matches nothing"):
            call(np.ones(2), "*")


def test_untie_says_which_alternative_matches_nothing():
    tied = pt.tie({"a": 1, "b": 1}, {"b": "a"})
    says(
        pt.PatternError,
        "in the pattern '{b,c}' the alternative 'c' matches no alias: there are ['b']",
        pt.untie,
        tied,
        "{b,c}",
    )


def test_keys_of_unknown_depth_say_what_was_asked():
    tree = {"mlp/w": pt.Tree({"b": 1, "c": 2}), "a": (3,)}
    with pytest.raises(pt.PathError, match=r"^cannot rename: keys such as 'mlp/w' hold '/'"):
        pt.rename(tree, {"*/w/b": "k/*/w/b"})
