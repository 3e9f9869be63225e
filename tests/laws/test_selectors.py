"""The law of selectors over the corpus: a leaf has all its names, a number names single layers, braces are strict."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from trees import SPECS, TREES, arange, equal, language_model, same_leaf

import ptree as pt
from ptree import initializers as I
from ptree._edit import assign

ALL = {
    **TREES,
    **SPECS,
    "tied as a whole": pt.tie(
        {name: {"in": {"pair": (arange(2), pt.Tree({"w": arange(3)}))}, "w": arange(2)} for name in "ab"}, {"b": "a"}
    ),
    "a leaf tied into a stack": pt.tie(
        {"x": arange(3, 2), "blocks": {":": {"w": arange(3, 2)}}}, {"blocks/:/w": "x"}
    ),
}  # fmt: skip


def aliases(tree):
    """Alias -> own path of the leaf; of a container that is tied as a whole a pair for each leaf in it."""
    own = set(pt.paths(tree))
    found = {}
    for alias, tie in pt.ties(tree).items():
        source = tie if isinstance(tie, str) else tie.source
        if source in own:
            found[alias] = source
        else:
            found.update({alias + path[len(source) :]: path for path in own if path.startswith(f"{source}/")})
    return found


TIED = {name: tree for name, tree in ALL.items() if type(tree) is pt.Tree and pt.ties(tree)}
on_tied = pytest.mark.parametrize("tree", TIED.values(), ids=TIED)


def equal_pairs(a, b):
    return [path for path, _ in a] == [path for path, _ in b] and all(
        same_leaf(one, two) for (_, one), (_, two) in zip(a, b, strict=True)
    )


# ---------------------------------------------------------------------- a leaf has all its names


def selectors_of(name):
    above, _, last = name.rpartition("/")
    star = f"{above}/{last[:-1]}?" if above else name
    return {"path": name, "wildcard": star, "regex": re.compile(re.escape(name)), "sequence": [name]}


@on_tied
def test_an_alias_selects_the_leaf_in_every_function(tree):
    for alias, own in aliases(tree).items():
        for selector in selectors_of(alias).values():
            if pt.paths(tree, selector) != [own]:  # a wildcard may match its neighbours too
                assert own in pt.paths(tree, selector)
                continue
            assert equal_pairs(pt.items(tree, selector), pt.items(tree, own))
            assert pt.paths(tree, selector, aliases=True) == pt.paths(tree, own, aliases=True)
            assert pt.count(tree, selector) == pt.count(tree, own)
            assert equal(pt.select(tree, selector), pt.select(tree, own))
            assert all(map(equal, pt.partition(tree, selector), pt.partition(tree, own)))
            assert equal(pt.mask(tree, selector), pt.mask(tree, own))
            assert pt.flatten(tree, selector).keys() == pt.flatten(tree, own).keys()
            assert equal(pt.update(tree, selector, lambda leaf: leaf), tree)


@on_tied
def test_an_alias_takes_the_leaf_in_every_rule(tree):
    for alias, own in aliases(tree).items():
        assert equal(pt.label(tree, {alias: "a"}, default="b"), pt.label(tree, {own: "a"}, default="b"))
        assert assign(tree, {alias: 1}) == assign(tree, {own: 1})
        row = next(row for row in pt.explain(tree, {alias: 1, "**": 2}).rows if row.path == own)
        assert (row.rule, row.alias, row.shadowed) == (alias, alias, ("**",))
        named_twice = pt.explain(tree, {own: 1, alias: 2})
        assert alias in named_twice.dead, "the second rule takes nothing"


@on_tied
def test_removing_an_alias_removes_the_leaf(tree):
    if len(pt.paths(tree)) == 1:
        return
    for alias, own in aliases(tree).items():
        assert pt.paths(tree, f"!{alias}") == pt.paths(tree, f"!{own}")
        assert own not in pt.paths(tree, ["**", f"!{alias}"])


@on_tied
def test_a_leaf_is_listed_once_by_however_many_names_it_matches(tree):
    for selector in ("**", re.compile(".*"), ["**", *aliases(tree)]):
        assert pt.paths(tree, selector) == pt.paths(tree)
        assert pt.count(tree, selector) == pt.count(tree)


@on_tied
def test_a_predicate_is_asked_once_for_each_leaf_with_its_own_path(tree):
    asked = []
    pt.mask(tree, lambda path, leaf: asked.append(path) or True)
    assert asked == pt.paths(tree)


@on_tied
def test_drop_and_untie_act_on_names(tree):
    for alias, own in aliases(tree).items():
        if any(alias.startswith(f"{name}/") for name in pt.ties(tree)):
            continue  # one leaf of a container that is tied as a whole
        dropped = pt.drop(tree, alias)
        assert own in pt.paths(dropped)
        assert alias not in pt.paths(dropped, aliases=True)
        apart = pt.untie(tree, alias)
        assert {own, alias} <= {*pt.paths(apart)}
        renamed = pt.rename(tree, {alias: "new/name"})
        assert own in pt.paths(renamed)
        assert {"new/name", alias} & {*pt.paths(renamed, aliases=True)} == {"new/name"}


@on_tied
def test_update_by_an_alias_sees_and_writes_what_the_alias_shows(tree):
    for alias in aliases(tree):
        seen = []

        def note(leaf, seen=seen):
            seen.append(leaf)
            return leaf * 0 if hasattr(leaf, "__array__") else leaf

        new = pt.update(tree, alias, note)
        assert [same_leaf(one, pt.get(tree, alias)) for one in seen] == [True]
        assert same_leaf(pt.get(new, alias), note(pt.get(tree, alias)))


@pytest.mark.parametrize("kind", ["parameters", "spec", "Param"])
def test_values_for_axes_by_an_alias_with_other_axes_are_one_error(kind):
    tree = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table"), "blocks/1": "blocks/0"})
    if kind == "spec":
        tree = pt.abstract(tree)
    elif kind == "Param":
        tree = jax.tree.map(lambda leaf: pt.Param(leaf.shape), tree)
    with pytest.raises(pt.PatternError) as raised:
        assign(tree, {"head/kernel": 1, "**": 2}, for_axes=True)
    assert str(raised.value) == (
        "the rule 'head/kernel' matches 'embed/table' only by its alias 'head/kernel', which is transposed(embed/table),"
        " and its value is for the axes of the leaf: name 'embed/table' in the rule"
    )
    assert assign(tree, {"head/kernel": 1}) == {"embed/table": 1}
    assert assign(tree, {"blocks/1/q/kernel": 1}, for_axes=True) == {"blocks/0/q/kernel": 1}
    # what takes the leaf is what counts: by its own path, or before the rule with the alias
    assert assign(tree, {"{head,embed}/*": 1}, for_axes=True)["embed/table"] == 1
    assert assign(tree, {"embed/table": 1, "head": 2}, for_axes=True)["embed/table"] == 1


# -------------------------------------------------------------------------- single layers by number

STACKED = {name: tree for name, tree in TREES.items() if any(":" in path.split("/") for path in pt.paths(tree))}
on_stacked = pytest.mark.parametrize("tree", STACKED.values(), ids=STACKED)


def stacks_in(tree):
    """The paths of all stacks, the innermost first."""
    found = {}
    for path in pt.paths(tree, aliases=True):
        segments = path.split("/")
        for at, segment in enumerate(segments):
            if segment == ":":
                found["/".join(segments[:at])] = at
    return sorted(found, key=lambda path: -path.count("/"))


def unstacked(tree):
    tree = pt.untie(tree)
    for path in stacks_in(tree):
        tree = pt.stacks.unstack(tree, path)
    return tree


def test_the_corpus_has_stacks_of_all_kinds():
    assert {"a stack of stacks", "a plain stack", "stacks tied to each other", "stacked, tied inside"} <= {*STACKED}


@on_stacked
def test_single_layers_are_those_of_the_unstacked_tree(tree):
    apart = unstacked(tree)
    for path, leaf in pt.items(apart):
        assert same_leaf(jnp.asarray(pt.get(tree, path)), jnp.asarray(leaf))
        ((_, selected),) = pt.items(tree, path)
        if pt.paths(tree, path) == [path]:  # not by an alias, which may show another shape
            assert same_leaf(selected, leaf)
        assert pt.count(tree, path) == leaf.size


def numbered(tree):
    """The single layers that have a path of their own in the tree, with the path of the whole leaf."""
    own = {path: path.split("/") for path in pt.paths(tree)}
    found = {}
    for path in pt.paths(unstacked(tree)):
        for whole, segments in own.items():
            parts = path.split("/")
            if len(parts) != len(segments) or whole == path:
                continue
            if all(a == b or (b == ":" and a.isdecimal()) for a, b in zip(parts, segments, strict=True)):
                found[path] = whole
    return found


@on_stacked
def test_a_write_of_a_single_layer_is_that_of_the_unstacked_tree(tree):
    apart = pt.untie(tree)
    for path in numbered(apart):
        value = pt.get(apart, path) + 1
        expected = pt.set(unstacked(apart), path, value)
        assert equal(unstacked(pt.set(apart, path, value)), expected)
        assert equal(unstacked(pt.update(apart, path, lambda leaf: leaf + 1)), expected)


@on_stacked
def test_all_layers_by_number_are_the_whole_stack(tree):
    apart = pt.untie(tree)
    stack = stacks_in(apart)[-1]
    size = next(leaf.shape[0] for path, leaf in pt.items(apart) if path.startswith(f"{stack}/:/"))
    whole = pt.update(apart, f"{stack}/*", lambda leaf: leaf * 2)
    assert equal(pt.update(apart, f"{stack}/{{0..{size - 1}}}", lambda leaf: leaf * 2), whole)
    assert pt.count(apart, f"{stack}/{{0..{size - 1}}}") == pt.count(apart, f"{stack}/:")
    rest = pt.items(apart, [f"{stack}/*", f"!{stack}/0"])
    assert sum(leaf.size for _, leaf in rest) == pt.count(apart, stack) * (size - 1) // size
    jitted = jax.jit(lambda t: pt.update(t, f"{stack}/0", lambda leaf: leaf * 2))(apart)
    assert equal(jitted, jax.tree.map(jnp.asarray, pt.update(apart, f"{stack}/0", lambda leaf: leaf * 2)))


@on_stacked
def test_single_layers_are_one_error_where_one_thing_is_wanted_for_each_leaf(tree):
    for path, whole in numbered(tree).items():
        expected = (
            f"{path!r} is a single layer of {whole!r}, one leaf for all layers:"
            " write '*' in the place of the number, or ptree.stacks.unstack first"
        )
        says(pt.PatternError, expected, pt.mask, tree, path)
        says(pt.PatternError, expected, pt.select, tree, path)
        says(pt.PatternError, expected, pt.partition, tree, path)
        says(pt.PatternError, expected, pt.flatten, tree, path)
        says(pt.PatternError, expected, pt.label, tree, {path: 1}, default=2)
        says(pt.PatternError, expected, assign, tree, {path: 1})


def test_layers_inside_of_layers():
    tree = jax.tree.map(jnp.ones_like, TREES["a stack of stacks"])
    kernel = "groups/:/blocks/:/kernel"
    for selector, shape in {
        "groups/1/blocks/:/kernel": (2, 2, 3),
        "groups/:/blocks/1/kernel": (3, 2, 3),
        "groups/1/blocks/0/kernel": (2, 3),
    }.items():
        assert [(path, leaf.shape) for path, leaf in pt.items(tree, selector)] == [(selector, shape)]
    assert pt.paths(tree, "groups/{0,2}/blocks/*/kernel") == ["groups/0/blocks/:/kernel", "groups/2/blocks/:/kernel"]
    assert pt.paths(tree, ["groups/{1,2}/blocks/*/kernel", "!groups/1/blocks/0"]) == [
        "groups/1/blocks/1/kernel",
        "groups/2/blocks/:/kernel",
    ]
    # a layer that two patterns select is changed once
    both = pt.update(tree, ["groups/:/blocks/1/kernel", "groups/1/blocks/:/kernel"], lambda leaf: leaf + 1)
    assert both[kernel][:, :, 0, 0].tolist() == [[1, 2], [2, 2], [1, 2]]


def test_layers_of_what_is_tied_inside_of_a_stack():
    tree = TREES["stacked, tied inside"]
    assert pt.paths(tree, "blocks/{0,3}/k") == ["blocks/0/q", "blocks/3/q"]
    assert pt.paths(tree, "blocks/1/k", aliases=True) == ["blocks/1/q", "blocks/1/k"]
    new = pt.update(tree, "blocks/1/k", lambda leaf: leaf + jnp.arange(2))
    assert (new["blocks/:/q"] - tree["blocks/:/q"])[:, :, 0].tolist() == [[0, 0], [0, 1], [0, 0], [0, 0]]
    rest = pt.update(TREES["stacks tied to each other"], ["dec", "!dec/blocks/1"], lambda leaf: leaf * 0)
    assert [float(layer.sum()) for layer in rest["enc/blocks/:/kernel"]] == [0, 10, 0]


# ------------------------------------------------------------------------------- braces are strict

BRACES = pt.tie({"enc": {"w": 1, "b": 2}, "dec": {"w": 1}, "head": {"w": 1}}, {"head": "dec"})


@pytest.mark.parametrize(
    "call",
    [
        lambda s: pt.items(BRACES, s),
        lambda s: pt.paths(BRACES, s),
        lambda s: pt.count(BRACES, s),
        lambda s: pt.flatten(BRACES, s),
        lambda s: pt.select(BRACES, s),
        lambda s: pt.partition(BRACES, s),
        lambda s: pt.mask(BRACES, s),
        lambda s: pt.drop(BRACES, s),
        lambda s: pt.update(BRACES, s, lambda leaf: leaf),
        lambda s: pt.label(BRACES, {s: 1}, default=2),
        lambda s: assign(BRACES, {s: 1}),
        lambda s: pt.rename(BRACES, {s: "new/*"}),
        lambda s: pt.items(BRACES, ["**", f"!{s}"]),
    ],
)
def test_an_alternative_that_matches_nothing_is_the_same_error_everywhere(call):
    call("{enc,head}/w")
    with pytest.raises(pt.PatternError) as raised:
        call("{enc,haed}/w")
    assert str(raised.value) == (
        "in the pattern '{enc,haed}/w' the alternative 'haed' matches nothing. Did you mean 'head'?"
    )


def test_alternatives_in_tables_of_ties():
    with pytest.raises(pt.TieError, match=r"in the pattern '\{head,haed\}/w' the alternative 'haed' matches nothing"):
        pt.tie(pt.untie(BRACES), {"{head,haed}/w": "dec/w"})
    says(
        pt.PatternError,
        "in the pattern '{head,haed}/w' the alternative 'haed' matches no alias: there are ['head/w']. Did you mean 'head'?",
        pt.untie,
        BRACES,
        "{head,haed}/w",
    )


def test_alternatives_may_match_one_leaf_by_several_names():
    assert pt.paths(BRACES, "{dec,head}/w") == ["dec/w"]


# ------------------------------------------------------- a stack is as its layers, also through aliases


def tied_stacks():
    """Trees with stacks and ties, and the same trees with their layers apart."""
    layers = [{"w": jnp.full((2, 3), float(i)), "u": jnp.zeros((2, 3)), "n": jnp.ones(2)} for i in range(4)]
    inside = pt.tie(pt.stacks.stack(pt.Tree({"blocks": layers}), "blocks"), {"blocks/:/u": "blocks/:/w"})
    inside_apart = pt.tie(pt.Tree({"blocks": layers}), {"blocks/*/u": "blocks/*/w"})
    both = {name: [{"w": jnp.full((2,), float(i))} for i in range(3)] for name in ("enc", "dec")}
    whole = pt.tie({name: pt.stacks.stack(pt.Tree(part), "") for name, part in both.items()}, {"dec": "enc"})
    whole_apart = pt.tie(both, {"dec": "enc"})
    group = [{"l": [{"w": jnp.full(2, 10.0 * i + j)} for j in range(2)], "b": jnp.full(1, float(i))} for i in range(3)]
    nested_apart = pt.Tree({"g": group})
    nested = pt.stacks.stack(pt.stacks.stack(nested_apart, "g"), "g/:/l")
    return {"inside": (inside, inside_apart), "whole": (whole, whole_apart), "nested": (nested, nested_apart)}


SELECTORS = {
    "inside": ["blocks/1/u", "blocks/{0,2}/u", ["blocks/*/u", "!blocks/1"], "**/3/u", ["!blocks/{0,1}/u"]],
    "whole": ["dec/1", ["dec", "!dec/1"], "{dec,enc}/{0..1}/w", ["dec", "!enc/0"]],
    "nested": ["g/1/l/0", ["g/*/l/0", "!g/1"], ["g/1", "!g/*/l/0"], ["g/1/l/*/w", "!g/1/l/0"], "**/1/**", "g/{0,2}/b"],
}


def apart(tree):
    """All layers of a tree by path, of stacks or not."""
    found = {}
    for path, leaf in pt.items(tree):
        axes = path.split("/").count(":")
        for index in np.ndindex(*leaf.shape[:axes]):
            numbers = iter(index)
            name = "/".join(str(next(numbers)) if segment == ":" else segment for segment in path.split("/"))
            found[name] = np.asarray(leaf[index])
    return found


def equal_apart(stacked, layers):
    ours, theirs = apart(stacked), apart(layers)
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        np.testing.assert_array_equal(value, theirs[path], err_msg=path)


@pytest.mark.parametrize(("name", "selector"), [(n, s) for n, all_of in SELECTORS.items() for s in all_of], ids=str)
def test_what_is_done_to_layers_of_a_stack_is_what_is_done_to_the_layers_apart(name, selector):
    stacked, layers = tied_stacks()[name]
    assert pt.count(stacked, selector) == pt.count(layers, selector)
    equal_apart(pt.update(stacked, selector, lambda w: w + 100), pt.update(layers, selector, lambda w: w + 100))
    key = jax.random.key(0)
    rules = {tuple(selector) if isinstance(selector, list) else selector: I.normal(1.0)}
    equal_apart(pt.reinit(stacked, key, rules), pt.reinit(layers, key, rules))


@pytest.mark.parametrize(
    ("name", "path"),
    [("inside", "blocks/1"), ("inside", "blocks/2/u"), ("whole", "dec/1"), ("whole", "enc/2"), ("nested", "g/1/l/0")],
)
def test_a_layer_that_is_set_as_a_node_is_the_layer_that_is_set_apart(name, path):
    stacked, layers = tied_stacks()[name]
    value = jax.tree.map(lambda leaf: leaf + 100, pt.get(stacked, path))
    equal_apart(pt.set(stacked, path, value), pt.set(layers, path, value))
    assert jax.tree.structure(pt.set(stacked, path, value)) == jax.tree.structure(stacked)
    below = pt.set({"opt": stacked}, f"opt/{path}", value)
    equal_apart(below["opt"], pt.set(layers, path, value))
    if isinstance(value, pt.Tree):
        plain = pt.set(stacked, path, {name: value[name] for name in value})
        equal_apart(plain, pt.set(layers, path, value))


def test_a_stack_takes_no_leaf_of_another_number_of_layers_and_no_ties_that_cross():
    stacked, _ = tied_stacks()["inside"]
    with pytest.raises(pt.StructureError, match=r"it is f32\[3\], and the stack has 4 layers"):
        pt.put(stacked, "blocks/:/new", jnp.ones(3))
    assert pt.put(stacked, "blocks/:/new", jnp.ones((4, 2)))["blocks/3/new"].shape == (2,)
    whole, _ = tied_stacks()["whole"]
    for path in ("enc", "dec"):
        with pytest.raises(pt.TieError, match="only one of the two would be unstacked"):
            pt.stacks.unstack(whole, path)
