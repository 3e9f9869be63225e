"""Stacks with more axes than when they were made, as of ensembles: a number that would name another axis is refused."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import nn, train

KEYS = jax.random.split(jax.random.key(0), 3)
NET = nn.Sequential({"stem": nn.Dense(4), "b": nn.Repeat(nn.Residual(nn.Dense(4)), 5)})
X = jnp.ones((2, 4))


def drawn(key):
    return NET.init(key, X)


ENSEMBLE = jax.vmap(drawn)(KEYS)
ONE = drawn(KEYS[1])

READINGS = {
    "get": lambda tree: tree["b/2/inner/bias"],
    "get of a node": lambda tree: tree["b"][2],
    "in": lambda tree: "b/2" in tree,
    "len": lambda tree: len(tree["b"]),
    "iteration": lambda tree: list(tree["b"]),
    "values": lambda tree: list(tree["b"].values()),
    "items": lambda tree: pt.items(tree, "b/2"),
    "a range": lambda tree: pt.items(tree, "b/{0..1}/**"),
    "count": lambda tree: pt.count(tree, "b/2"),
    "set": lambda tree: pt.set(tree, "b/2/inner/bias", jnp.ones(4)),
    "update": lambda tree: pt.update(tree, "b/2/**", lambda leaf: leaf),
    "reinit": lambda tree: pt.reinit(tree, KEYS[0], {"b/2/**": pt.initializers.zeros}),
    "unstack": lambda tree: pt.stacks.unstack(tree, "b"),
    "scan": lambda tree: pt.stacks.scan(lambda x, p: (x, None), X, tree["b"]),
}
ADDED = {
    "vmap of init": lambda: ENSEMBLE,
    "a stack of members": lambda: jax.tree.map(lambda *leaves: jnp.stack(leaves), ONE, ONE, ONE),
    "per-example gradients": lambda: jax.vmap(jax.grad(lambda p, x: NET(p, x).sum()), (None, 0))(
        ONE, jnp.ones((3, 2, 4))
    ),
    "jacobian": lambda: jax.jacobian(lambda p: NET(p, X).sum(0)[:3])(ONE),
    "jit": lambda: jax.jit(lambda tree: tree)(ENSEMBLE),
    "pickle": lambda: pickle.loads(pickle.dumps(ENSEMBLE)),
    "copy": lambda: copy.deepcopy(ENSEMBLE),
    "shapes": lambda: jax.eval_shape(lambda: ENSEMBLE),
}


@pytest.mark.parametrize("name", READINGS)
def test_a_number_that_would_name_the_member_is_refused(name):
    with pytest.raises(
        pt.StructureError, match=r"no single layers in the stack.*: each leaf has an axis more than when"
    ):
        READINGS[name](ENSEMBLE)
    READINGS[name](ONE)


@pytest.mark.parametrize("name", ADDED)
def test_whatever_added_the_axis(name):
    with pytest.raises(pt.StructureError, match="no single layers in the stack 'b'"):
        ADDED[name]()["b/2/inner/bias"]


def test_the_way_to_say_it_reads_member_and_layer():
    members = pt.Tree({":": ENSEMBLE})
    np.testing.assert_array_equal(members["1/b/2/inner/kernel"], ONE["b/2/inner/kernel"])
    np.testing.assert_array_equal(members[":/b/2/inner/kernel"][1], ONE["b/2/inner/kernel"])
    assert (len(members), len(members["1/b"])) == (3, 5)
    assert members["1"] == ONE
    apart = pt.stacks.unstack(members, "")
    assert apart["1"] == ONE
    changed = pt.update(members, "1/b/2/**", jnp.zeros_like)
    assert not changed["1/b/2/inner/kernel"].any()
    assert changed["0/b/2/inner/kernel"].any()
    sums = jax.vmap(NET, (0, None))(members[":"], X)
    np.testing.assert_allclose(sums[1], NET(ONE, X), atol=1e-6)


def test_the_message_names_paths_that_read():
    with pytest.raises(pt.StructureError) as caught:
        ENSEMBLE["b/2"]
    assert str(caught.value) == (
        "no single layers in the stack 'b': each leaf has an axis more than when the stack was made, as jax.vmap and"
        " jax.jacobian add them. Put the tree under ':', ptree.Tree({':': tree}): then '0/b/3' is layer 3 of the first member,"
        " and ':/b/3' layer 3 of all"
    )
    members = pt.Tree({":": ENSEMBLE})
    assert members["0/b/3/inner/bias"].shape == (4,)
    assert members[":/b/3/inner/bias"].shape == (3, 4)


def test_whole_leaves_and_all_layers_read_as_before():
    assert ENSEMBLE["b/:/inner/kernel"].shape == (3, 5, 4, 4)
    assert pt.paths(ENSEMBLE, "b/*/**") == ["b/:/inner/kernel", "b/:/inner/bias"]
    assert pt.mask(ENSEMBLE, "b/*/**")["b/:/inner/bias"] is True


def test_inside_of_the_mapped_function_layers_read():
    third = jax.vmap(lambda p: p["b/2/inner/kernel"])(ENSEMBLE)
    np.testing.assert_array_equal(third[1], ONE["b/2/inner/kernel"])


def test_trees_with_fewer_axes_or_other_leaves_read_as_before():
    labels = pt.label(ONE, {"**": "x"})
    assert labels["b/2/inner/bias"] == "x"
    sums = jax.tree.map(lambda leaf: leaf.sum(tuple(range(1, leaf.ndim))), ONE)
    assert sums["b/2/inner/kernel"].shape == ()
    hessian = jax.hessian(lambda p: (p["b/:/inner/bias"] ** 2).sum())(pt.select(ONE, "b"))
    assert hessian["b/2/inner/bias"]["b/:/inner/bias"].shape == (4, 5, 4)


def test_a_leaf_of_other_axes_that_is_put_into_a_stack_is_no_extra_axis():
    tree = pt.Tree({"b": {":": {"w": jnp.ones((5, 4))}}})
    assert pt.put(tree, "b/:/w", jnp.ones((5, 4, 2)))["b/2/w"].shape == (4, 2)
    assert pt.put(tree, "b/:/w", {"x": jnp.ones((5, 4, 2, 3))})["b/2/w/x"].shape == (4, 2, 3)
    assert pt.put(tree, "b/:/v", jnp.ones((5, 4, 2)))["b/2/v"].shape == (4, 2)
    nested = pt.Tree({"g": {":": {"b": {":": {"w": jnp.ones((3, 5, 4))}}}}})
    assert pt.put(nested, "g/:/b/:/w", jnp.ones((3, 5, 4, 2)))["g/1/b/2/w"].shape == (4, 2)
    put = pt.put(ENSEMBLE, "b/:/inner/bias", jnp.ones((3, 5, 4)))
    with pytest.raises(pt.StructureError, match="no single layers in the stack 'b'"):
        put["b/2/inner/bias"]


def test_arrays_in_the_places_of_labels_are_no_extra_axes():
    labels = pt.Tree({"b": {":": {"w": "normal", "v": 0.0}}})
    assert jax.tree.map(lambda label: jnp.ones((5, 4)), labels)["b/2/w"].shape == (4,)


def test_an_alias_of_a_stack_is_refused_alike():
    tree = pt.tie(pt.Tree({"e": ONE["b"], "d": ONE["b"]}), {"d": "e"})
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), tree)
    for read in (
        lambda t: t["d/1/inner/bias"],
        lambda t: t["d"][1],
        lambda t: len(t["d"]),
        lambda t: pt.items(t, "d/1"),
    ):
        with pytest.raises(pt.StructureError, match="no single layers in the stack"):
            read(many)
        read(tree)


def test_a_stack_of_stacks_reads_at_both_levels():
    inner = pt.stacks.stack(pt.Tree({"b": [{"w": jnp.full(2, at)} for at in range(4)]}), "b")
    outer = pt.stacks.stack(pt.Tree({"g": [inner, inner, inner]}), "g")
    assert outer["g/1/b/2/w"].tolist() == outer["g/:/b/2/w"][1].tolist() == [2, 2]
    with pytest.raises(pt.StructureError, match="no single layers in the stack"):
        outer["g/:"]["b/2/w"]  # without the outer stack its axis is one too many
    assert pt.stacks.unstack(outer, "g")["g/1/b/2/w"].tolist() == [2, 2]


def test_a_layout_with_other_axes_is_equal():
    assert jax.tree.structure(ENSEMBLE) == jax.tree.structure(ONE)
    built = pt.Tree({"b": {":": {"inner": {"bias": ENSEMBLE["b/:/inner/bias"]}}}})
    same = jax.tree.map(jnp.add, built, pt.select(ENSEMBLE, "b/*/inner/bias"))
    assert same["b/:/inner/bias"].shape == (3, 5, 4)


EDITED = {
    "select": lambda tree: pt.select(tree, "b/**"),
    "drop": lambda tree: pt.drop(tree, "b/**/bias"),
    "drop outside": lambda tree: pt.drop(tree, "stem"),
    "partition and merge": lambda tree: pt.merge(*pt.partition(tree, "**/bias")),
    "rename inside": lambda tree: pt.rename(tree, {"b/:/inner/kernel": "b/:/inner/w"}),
    "put": lambda tree: pt.put(tree, "b/:/z", jnp.ones((3, 5, 4))),
    "put outside": lambda tree: pt.put(tree, "z", jnp.ones(3)),
    "update": lambda tree: pt.update(tree, "**/bias", lambda leaf: leaf + 1),
}


@pytest.mark.parametrize("name", EDITED)
def test_an_ensemble_stays_one_when_it_is_edited(name):
    edited = EDITED[name](ENSEMBLE)
    leaf = "b/2/inner/w" if name == "rename inside" else "b/2/inner/kernel"
    with pytest.raises(pt.StructureError, match="each leaf has an axis more"):
        edited[leaf]
    assert pt.Tree({":": edited})[f":/{leaf}"].shape == (3, 4, 4)
    apart = EDITED[name](ONE) if name != "put" else pt.put(ONE, "b/:/z", jnp.ones((5, 4)))
    assert apart[leaf].shape == (4, 4)


AXES_OF_LAYERS = {
    "layer_ranks": lambda tree: pt.stacks.layer_ranks(tree),
    "muon_dimension_numbers": lambda tree: pt.stacks.muon_dimension_numbers(tree),
    "decayed": train.decayed,
    "by_layer": lambda tree: train.by_layer(optax.lamb(0.1)).init(tree),
    "scaled": lambda tree: train.scaled({"**/b/*": np.ones(5), "**": 1.0}).init(tree),
    "depth_factors": lambda tree: train.depth_factors(tree, 0.5, ["**/stem", "**/b/*"]),
    "lora": lambda tree: train.lora(tree, {"**/inner/kernel": train.Rank(2)}, KEYS[0]),
}


@pytest.mark.parametrize("name", AXES_OF_LAYERS)
def test_what_counts_layers_by_axes_refuses_an_ensemble(name):
    with pytest.raises(pt.StructureError, match="no single layers in the stack 'b': each leaf has an axis more"):
        AXES_OF_LAYERS[name](ENSEMBLE)
    AXES_OF_LAYERS[name](ONE)


@pytest.mark.parametrize("name", [name for name in AXES_OF_LAYERS if name not in ("scaled", "depth_factors")])
def test_under_a_name_for_its_axis_an_ensemble_is_a_stack_of_members(name):
    AXES_OF_LAYERS[name](pt.Tree({":": ENSEMBLE}))


def test_members_under_a_name_for_their_axis_go_through_plain_dicts_files_and_training(tmp_path):
    members = pt.Tree({":": ENSEMBLE})
    expected = ONE["b/2/inner/kernel"]
    path = ":/b/:/inner/kernel"
    for tree in (pt.Tree(dict(pt.items(members))), {":": pt.asdict(ENSEMBLE)}):
        np.testing.assert_array_equal(pt.get(tree, "1/b/2/inner/kernel"), expected)
    pt.save(tmp_path / "members.safetensors", members)
    np.testing.assert_array_equal(pt.load(tmp_path / "members.safetensors")["1/b/2/inner/kernel"], expected)
    delta = train.lora(members, {path: train.Rank(2)}, KEYS[0])
    assert sorted(leaf.shape for _, leaf in pt.items(delta)) == [(3, 5, 2, 4), (3, 5, 4, 2)]
    assert train.decayed(members)[path] is True
    assert train.decayed(members)[":/b/:/inner/bias"] is False
    optimiser = train.by_layer(optax.lamb(0.1))
    updates, _ = optimiser.update(members, optimiser.init(members), members)
    apart, _ = optimiser.update(ONE, optimiser.init(ONE), ONE)
    np.testing.assert_allclose(updates["1/b/2/inner/kernel"], apart["b/2/inner/kernel"], rtol=1e-5)


def test_a_stack_whose_first_leaf_alone_has_other_axes_reads():
    tree = pt.Tree({"b": {":": {"a": jnp.ones((5, 4)), "w": jnp.ones((5, 4))}}})
    other = jax.tree.map(lambda leaf: leaf, pt.put(tree, "b/:/a", jnp.ones((5, 4, 2))))
    assert other["b/2/w"].shape == (4,)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), other)
    with pytest.raises(pt.StructureError, match="each leaf has an axis more"):
        many["b/2/w"]
    fewer = pt.put(other, "b/:/a", jnp.ones(5))
    with pytest.raises(pt.StructureError, match="each leaf has an axis more"):
        jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), fewer)["b/2/w"]


def test_a_leaf_of_other_axes_in_an_ensemble_leaves_it_one():
    tree = pt.Tree({"b": {":": {"a": jnp.ones((5, 4)), "w": jnp.ones((5, 4))}}})
    replaced = pt.put(ENSEMBLE, "b/:/inner/bias", jnp.ones((3, 5, 4, 2)))
    with pytest.raises(pt.StructureError, match="each leaf has an axis more"):
        replaced["b/2/inner/kernel"]
    assert pt.put(tree, "b/:/a", jnp.ones((5, 4, 1)))["b/2/w"].shape == (4,)
