"""Prefix trees over Trees with ties and stacks, as JAX and optax take them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import TREES, arange, dense, language_model, mlp, tied

import ptree as pt


def lm():
    return tied({"head/kernel": pt.transposed("embed/table")}, language_model())


def test_vmap_takes_it_as_in_axes_of_a_tied_tree():
    params = lm()
    axes = pt.prefix(params, {"": None, "head": 0})
    heads = pt.set(params, "head/bias", arange(10))
    many = jax.tree.unflatten(
        jax.tree.structure(params), [leaf[None] + jnp.zeros((3, 1)) if leaf is heads["head/bias"] else leaf for leaf in jax.tree.leaves(heads)]
    )  # fmt: skip

    def logits(params, x):
        return x @ params["head"]["kernel"] + params["head"]["bias"]

    out = jax.vmap(logits, in_axes=(axes, None))(many, arange(2, 4))
    assert out.shape == (3, 2, 10)
    np.testing.assert_allclose(out[1], logits(heads, arange(2, 4)))


@pytest.mark.parametrize(("embed", "head"), [(0, 1), (1, 0), (0, None), (None, 0)])
def test_each_node_has_an_axis_of_its_own(embed, head):
    whole = {"embed": {"table": arange(5, 3)}, "head": {"kernel": arange(3, 5), "bias": arange(5)}}
    params = tied({"head/kernel": pt.transposed("embed/table")}, whole)
    axes = pt.prefix(params, {"embed": embed, "head": head})
    table = params["embed/table"] if embed is None else jnp.stack([params["embed/table"]] * 4, embed)
    bias = params["head/bias"] if head is None else jnp.stack([params["head/bias"]] * 4, head)
    many = jax.tree.unflatten(jax.tree.structure(params), [table, bias])

    def logits(params, x):
        return x @ params["head/kernel"] + params["head"]["bias"]

    out = jax.vmap(logits, in_axes=(axes, None))(many, arange(2, 3))
    np.testing.assert_allclose(out[3], logits(params, arange(2, 3)))
    with pytest.raises(ValueError, match="vmap in_axes"):  # a dict written by hand, that a tied Tree does not take
        jax.vmap(logits, in_axes=(pt.Tree({"embed": embed, "head": head}), None))(many, arange(2, 3))


def test_optax_takes_it_as_labels_and_masks():
    params = lm()
    labels = pt.prefix(params, {"embed": "slow", "blocks": "fast", "head": "fast"})
    optimiser = optax.partition({"slow": optax.sgd(0.5), "fast": optax.sgd(2.0)}, labels)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimiser.update(ones, optimiser.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert {path: float(leaf.ravel()[0]) for path, leaf in pt.items(updates, "*/{table,bias}")} == {
        "embed/table": -0.5,
        "head/bias": -2,
    }
    assert float(updates["blocks/0/q/kernel"][0, 0]) == -2
    masked = optax.masked(optax.scale(-1.0), pt.prefix(params, {"": False, "blocks/1": True}))
    updates, _ = masked.update(ones, masked.init(params), params)
    assert {path for path, leaf in pt.items(updates) if float(leaf.ravel()[0]) == -1} == {*pt.paths(params, "blocks/1")}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_it_is_a_prefix_of_every_tree_of_the_corpus(tree):
    own_paths = pt.paths(tree)
    if not own_paths:
        return
    first = own_paths[0].split("/")[0] if own_paths[0] and type(tree) is pt.Tree else own_paths[0]
    made = pt.prefix(tree, {"": "rest", first: "first"})
    found = {}

    def take(value, node):
        for leaf in jax.tree.leaves(node):
            found.setdefault(value, []).append(leaf)

    jax.tree.map(take, made, tree)
    expected = [leaf for path, leaf in pt.items(tree) if path == first or path.startswith(f"{first}/")]
    assert {*map(id, found["first"])} == {*map(id, expected)}
    assert len(found["first"]) + len(found.get("rest", ())) == len(own_paths)


def test_a_node_at_two_paths_can_have_two_values():
    node = pt.Tree(dense(2, 2))
    tree = pt.Tree({"a": node, "b": node})
    made = pt.prefix(tree, {"a": 0, "b/kernel": 1, "b/bias": 2})
    assert pt.flatten(made) == {"a": 0, "b/kernel": 1, "b/bias": 2}


def test_a_value_in_the_place_of_a_node_with_aliases_is_shown():
    made = pt.prefix(lm(), {"embed": 0, "blocks": 1, "head": 2})
    assert dict(pt.items(made)) == {"embed": 0, "blocks": 1, "head": 2}
    assert made["head"] == 2
    assert "head    2" in repr(made)


def test_a_node_of_aliases_alone_goes_with_its_source():
    params = tied({"4": "2"}, mlp())
    made = pt.prefix(params, {"0": 0, "2": 1, "4": 1, "6": 0})
    assert dict(pt.items(made)) == {"0": 0, "2": 1, "6": 0}
    with pytest.raises(
        pt.StructureError,
        match=r"the prefix has 0 at '4' and 1 at '2/kernel', which are one leaf: '4/kernel' is tied to '2/kernel'. Leave '4' out",
    ):
        pt.prefix(params, {"0": 0, "2": 1, "4": 0, "6": 0})


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"embed": 0}, pt.StructureError, r"the prefix has no value for \['head/bias'\]. Name them, or give a value for all others at ''"),
        ({"embed": 0, "haed": 1}, pt.PathError, r"no path 'haed': at the root there are \['embed', 'head'\]. Did you mean 'head'\?"),
        ({"embed": 0, "head/*": 1}, pt.PathError, "no path 'head/\\*'"),
        (0, pt.StructureError, "prefix takes a dict, path -> value; got 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told(table, error, message):
    tree = tied(
        {"head/kernel": pt.transposed("embed/table")},
        {"embed": {"table": arange(5, 3)}, "head": {"kernel": arange(3, 5), "bias": 1}},
    )
    with pytest.raises(error, match=message):
        pt.prefix(tree, table)


def test_one_layer_of_a_stack_has_no_value_of_its_own():
    params = pt.stacks.stack(pt.Tree(language_model()), "blocks")
    assert pt.prefix(params, {"": None, "blocks": 0})["blocks"] == 0
    with pytest.raises(
        pt.PathError, match="'blocks/1' is one layer of 'blocks/:': a prefix has one value for all layers"
    ):
        pt.prefix(params, {"": None, "blocks/1": 0})
