"""Every kind of node that JAX knows comes back as it was, from every function: the laws over pytrees of other libraries."""

import jax
import pytest
from foreign import FOREIGN

import ptree as pt

# their constructors look at their children, so that `jax.tree.map` cannot put None or a label there either
FILLABLE = {name: tree for name, tree in FOREIGN.items() if name not in ("interpolator", "jmp loss scale")}

everywhere = pytest.mark.parametrize("tree", FILLABLE.values(), ids=FILLABLE)


def same_nodes(a, b):
    """Whether two trees have the same structure, and containers of the same types where JAX compares less."""
    return jax.tree.structure(a) == jax.tree.structure(b) and type(a) is type(b)


def same_leaves(a, b):
    return all(x is y for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize("name", ["interpolator", "jmp loss scale"])
def test_a_node_that_jax_cannot_fill_is_refused_and_kept_whole_in_a_larger_tree(name):
    tree = FOREIGN[name]
    with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the constructor raises
        jax.tree.map(lambda leaf: None, tree)
    with pytest.raises(pt.StructureError, match="cannot have None in the place of a child"):
        pt.partition(tree, among({pt.paths(tree)[0]}))
    whole = {"a": tree, "b": 1}
    assert same_nodes(pt.merge(*pt.partition(whole, "a")), whole)


def selections(paths):
    """The first, the last, every second, all but one, and all of these paths."""
    chosen = [paths[:1], paths[-1:], paths[::2], paths[1::2], paths[:-1], paths]
    return dict.fromkeys(frozenset(names) for names in chosen if names)


def among(names):
    return lambda path, leaf: path in names


def test_the_corpus_is_large():
    assert len(FILLABLE) >= 98
    assert sum(name.startswith("imitated") for name in FOREIGN) <= 10


@everywhere
def test_merge_undoes_partition(tree):
    for names in selections(pt.paths(tree)):
        chosen, rest = pt.partition(tree, among(names))
        for merged in (pt.merge(chosen, rest), pt.merge(rest, chosen)):
            assert same_nodes(merged, tree)
            assert same_leaves(merged, tree)
        assert len(jax.tree.leaves(chosen)) == len(names)
        assert {*map(id, jax.tree.leaves(chosen))} == {id(pt.get(tree, name)) for name in names}


@everywhere
def test_three_parts_merge_in_any_order(tree):
    paths = pt.paths(tree)
    if len(paths) < 3:
        return
    first, rest = pt.partition(tree, among(frozenset(paths[::3])))
    second, third = pt.partition(rest, among(frozenset(paths[1::3])))
    for parts in ((first, second, third), (third, first, second), (second, third, first)):
        merged = pt.merge(*parts)
        assert same_nodes(merged, tree)
        assert same_leaves(merged, tree)


@everywhere
def test_what_keeps_every_leaf_keeps_every_node(tree):
    paths = pt.paths(tree)
    if not paths:
        return
    everything = among(frozenset(paths))
    assert same_nodes(pt.update(tree, everything, lambda leaf: leaf), tree)
    assert same_nodes(pt.unflatten(pt.flatten(tree), like=tree), tree)
    assert same_nodes(pt.label(tree, {everything: "label"}), tree)
    for names in selections(paths):
        assert same_nodes(pt.mask(tree, among(names)), tree)


@everywhere
def test_one_leaf_is_set_put_and_updated_in_its_place(tree):
    for path, leaf in pt.items(tree):
        other = jax.tree.map(lambda leaf: leaf, [leaf])[0]
        for new in (pt.set(tree, path, other), pt.update(tree, among({path}), lambda leaf: leaf)):
            assert same_nodes(new, tree)
            assert same_leaves(new, tree)
        if path:
            marker = leaf.copy() if isinstance(leaf, jax.Array) else leaf
            new = pt.put(tree, path, marker)
            assert same_nodes(new, tree)
            assert pt.get(new, path) is marker
            assert sum(a is not b for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(tree), strict=True)) <= 1


@everywhere
def test_drop_and_select_give_what_is_left_in_the_same_containers_or_say_which_cannot_lose_a_child(tree):
    paths = pt.paths(tree)
    for names in selections(paths):
        kept = pt.select(tree, among(names))
        assert {*pt.paths(kept)} == names
        if names:
            assert type(kept) is type(tree)
        gone = frozenset(paths) - names
        if not gone:
            continue
        try:
            left = pt.drop(tree, among(gone))
        except pt.StructureError as error:
            assert "cannot lose a child" in str(error)
            continue
        assert {*pt.paths(left)} == names
        for name in names:
            assert pt.get(left, name) is pt.get(tree, name)
        if names:
            assert type(left) is type(tree)


@everywhere
def test_renaming_a_leaf_keeps_all_other_nodes_or_says_which_keeps_its_names(tree):
    for path in pt.paths(tree)[:2]:
        if not path or "/" in path.rpartition("/")[2]:
            continue
        above, _, name = path.rpartition("/")
        try:
            new = pt.rename(tree, {escaped(path): f"{escaped(above)}/9{name}" if above else f"9{name}"})
        except pt.StructureError as error:
            assert "keeps its own names" in str(error) or "the keys beside" in str(error)
            continue
        except pt.PathError as error:
            assert "ambiguous" in str(error) or "not equally deep" in str(error)
            continue
        assert type(new) is type(tree)
        back = pt.rename(new, {escaped(f"{above}/9{name}" if above else f"9{name}"): path})
        assert same_nodes(back, tree)


def escaped(path):
    return "".join(f"\\{character}" if character in "*?[]{}!\\" else character for character in path)


@everywhere
def test_a_new_name_changes_no_other_node(tree):
    nodes = dict.fromkeys(path.rpartition("/")[0] for path in pt.paths(tree) if path)
    for above in [*nodes][:4]:
        try:
            new = pt.put(tree, f"{above}/new" if above else "new", 1.0)
        except (pt.StructureError, pt.PathError):
            continue
        assert same_nodes(pt.drop(new, f"{escaped(above)}/new" if above else "new"), tree)
