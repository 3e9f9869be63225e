"""diff: rules of renamed leaves are true; leaves are paired before some are selected."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptree as pt
from ptree.look import diff


def matrix(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((3, 3))


def check_rules(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    """`ptree.rename` by each rule gives the names after of exactly the leaves that the rule claims."""
    names_after = {leaf.tobytes(): path for path, leaf in after.items()}
    partner = {path: names_after.get(leaf.tobytes()) for path, leaf in before.items()}
    for rule in diff(before, after).rules:
        renamed = pt.rename(before, {rule.before: rule.after})
        moved = {old: new for old, new in zip(before, renamed, strict=True) if old != new}
        claimed = {old: new for old, new in moved.items() if new in after}
        assert len(claimed) == rule.count
        assert claimed == {old: partner[old] for old in claimed}
        kept = {old for old, new in partner.items() if old == new}
        assert not kept & {*moved}


words = st.sampled_from(["a", "b", "h", "0", "1", "w", "x{1", "!y"])
paths = st.lists(words, min_size=1, max_size=4).map("/".join)
moves = st.sampled_from([
    lambda path: path,
    lambda path: f"x/{path}",
    lambda path: path.replace("h", "blocks"),
    lambda path: path.replace("0", "2"),
    lambda path: path.removeprefix("a/"),
    lambda path: f"{path}/v",
    lambda path: "/".join([*path.split("/")[:1], "new", *path.split("/")[1:]]),
    lambda path: None,
])  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(paths, moves), min_size=1, max_size=9, unique_by=lambda pair: pair[0]))
def test_renaming_by_a_rule_gives_the_names_of_exactly_the_leaves_that_it_claims(moved):
    before = {path: matrix(at) for at, (path, _) in enumerate(moved)}
    after: dict[str, np.ndarray] = {}
    for path, move in moved:
        name = move(path)
        if name is not None and name not in after:
            after[name] = before[path]
    check_rules(before, after)


def test_a_rule_does_not_move_leaves_that_kept_their_name():
    table = matrix(0)
    before, after = {"h/w": matrix(1), "e": table}, {"x/h/w": matrix(1), "e": table}
    found = diff(before, after)
    assert [(rule.before, rule.after, rule.count) for rule in found.rules] == [("h/**", "x/h/**", 1)]
    check_rules(before, after)
    layers = {f"h.{layer}.{name}": matrix(2 * layer + at) for layer in range(4) for at, name in enumerate("ab")}
    rules = diff(
        {**layers, "wte": table}, {**{f"model.{path}": leaf for path, leaf in layers.items()}, "wte": table}
    ).rules
    assert [(rule.before, rule.after, rule.count) for rule in rules] == [("h.**", "model.h.**", 8)]


def test_leaves_of_one_node_that_go_to_two_nodes_follow_two_rules():
    before = {f"enc/{layer}/w": matrix(layer) for layer in range(4)}
    after = {f"{'b' if layer < 2 else 'a'}/{layer % 2}/w": matrix(layer) for layer in range(4)}
    found = diff(before, after)
    assert found.counts == {"same": 0, "renamed": 4}
    assert all(rule.count == 1 for rule in found.rules)
    check_rules(before, after)


def test_a_rule_holds_where_a_leaf_was_removed():
    before = {f"h/{layer}/{name}": matrix(3 * layer + at) for layer in range(3) for at, name in enumerate("wmb")}
    after = {f"x/{path}": leaf for path, leaf in before.items() if not path.endswith("m")}
    found = diff(before, after)
    assert [(rule.before, rule.after, rule.count) for rule in found.rules] == [("**", "x/**", 6)]
    assert found.counts == {"same": 0, "renamed": 6, "removed": 3}
    check_rules(before, after)


def test_a_tied_name_that_stayed_is_not_moved_by_a_rule():
    before = pt.tie(pt.Tree({"h": {"w": matrix(0), "k": matrix(1)}, "e": matrix(1)}), {"h/k": "e"})
    after = pt.rename(before, {"h/w": "x/w"})
    assert [(rule.before, rule.after) for rule in diff(before, after).rules] in ([], [("h/w/**", "x/w/**")])


# ------------------------------------------------------------------- a selector and partners


def test_a_selected_leaf_finds_its_partner_under_a_name_that_is_not_selected():
    before = {f"h/{layer}/w": matrix(layer) for layer in range(3)}
    after = {f"x/{layer}/w": matrix(layer) for layer in range(3)}
    found = diff(before, after, selector="h/1/**")
    assert found.counts == {"same": 0, "renamed": 1}
    assert [(rule.before, rule.after, rule.count) for rule in found.rules] == [("h/**", "x/**", 1)]
    assert diff(before, after, selector="x/1/**").counts == {"same": 0, "renamed": 1}
    with pytest.raises(pt.PatternError):
        diff(before, after, selector="y/**")


@pytest.mark.parametrize("selector", ["h/1/**", "h/:/w"])
def test_a_selected_layer_finds_its_stack(selector):
    layers = {f"h/{layer}/{name}": matrix(layer) for layer in range(3) for name in "wb"}
    stack = {f"h/:/{name}": np.stack([matrix(layer) for layer in range(3)]) for name in "wb"}
    for before, after in ((layers, stack), (stack, layers)):
        found = diff(before, after, selector=selector)
        assert {row.kind for row in found.rows} == {"restacked"}
        assert len(found.rows) == (1 if "w" in selector else 2)


# ------------------------------------------------------------------------------ ties and copies


def test_a_tie_that_follows_its_renamed_source_is_the_same_tie():
    tree = pt.tie(pt.Tree({"h": {"k": np.ones((2, 3))}, "e": np.ones((3, 2))}), {"h/k": pt.transposed("e")})
    found = diff(tree, pt.rename(tree, {"e": "emb"}))
    assert [(row.kind, row.path) for row in found.rows] == [("renamed", "emb")]


def test_tables_that_are_equal_in_each_layer_are_no_copies_of_each_other():
    table = np.arange(6.0)
    after = {f"h/{layer}/freqs": table.copy() for layer in range(4)}
    assert {row.note for row in diff({}, after).rows} == {""}
    assert {row.note for row in diff({"e": table}, {"e": table, **after}).rows} == {"a copy of e"}


def test_renamed_leaves_count_as_the_same_in_data_as_in_text():
    leaves = {f"h/{layer}": matrix(layer) for layer in range(3)}
    found = diff(leaves, {f"x/{path}": leaf for path, leaf in leaves.items()})
    assert (found.to_dict()["unchanged"], found.unchanged) == (3, 3)
    assert str(found).startswith("3 the same")


def test_csv_has_shapes_as_in_a_summary_and_inert_texts():
    found = diff({"=cmd": np.ones((2, 3)), "\x1b[31mw": np.ones(2)}, {})
    text = found.to_csv()
    assert "2x3" in text
    assert "'=cmd" in text
    assert "\x1b" not in text
    assert "\x1b" not in pt.summary({"\x1b[31mw": np.ones(2)}).to_csv()
