"""The node of a stack has the length, the names and the items of its layers, as if they were not stacked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import TREES, arange, dense, equal, language_model, tied

import ptree as pt
from ptree import nn


def scaled(block, x):
    return jnp.tanh(x * block["w"] + block["b"])


def blocks(count, dtype=jnp.float32):
    return [{"w": arange(3, start=at, dtype=dtype), "b": arange(3, start=at, dtype=dtype)} for at in range(count)]


def stacked(tree, *paths):
    for path in paths:
        tree = pt.stacks.stack(tree, path)
    return tree


STACKS = {
    "a stack": (stacked(pt.Tree({"blocks": blocks(5)}), "blocks"), "blocks"),
    "of one layer": (stacked(pt.Tree({"blocks": blocks(1)}), "blocks"), "blocks"),
    "of twelve, whose names sort otherwise": (stacked(pt.Tree({"blocks": blocks(12)}), "blocks"), "blocks"),
    "the whole tree": (stacked(pt.Tree(blocks(3)), ""), ""),
    "deeper": (stacked(pt.Tree({"a": {"b": {"blocks": blocks(3)}}}), "a/b/blocks"), "a/b/blocks"),
    "tied inside": (TREES["stacked, tied inside"], "blocks"),
    "tied to another": (TREES["stacks tied to each other"], "dec/blocks"),
    "a stack of stacks": (TREES["a stack of stacks"], "groups"),
    "a stack in a layer of a stack": (TREES["a stack of stacks"]["groups"]["1"], "blocks"),
    "numpy": (stacked(pt.Tree({"blocks": jax.tree.map(np.asarray, blocks(3))}), "blocks"), "blocks"),
    "a spec": (stacked(pt.Tree({"blocks": [{"w": pt.Param((3,)), "b": pt.Param((3,))} for _ in range(4)]}), "blocks"), "blocks"),
    "shapes": (pt.abstract(stacked(pt.Tree({"blocks": blocks(4)}), "blocks")), "blocks"),
    "one number for each layer": (stacked(pt.Tree({"scales": [{"w": jnp.float32(at)} for at in range(3)]}), "scales"), "scales"),
}  # fmt: skip


@pytest.mark.parametrize(("tree", "path"), STACKS.values(), ids=STACKS)
def test_len_iteration_items_and_in_agree_with_the_numbered_form(tree, path):
    node = pt.get(tree, path)
    apart = pt.stacks.unstack(node, "")
    assert len(node) == len(apart)
    assert list(node) == list(apart) == list(node.keys())
    assert bool(node)
    for name in [*apart, "0", len(apart), str(len(apart)), "00", "-1", -1, "x"]:
        assert (name in node) == (name in apart) == (name in node.keys())  # noqa: SIM118
    assert node.get(str(len(apart)), 7) == 7
    for (name, layer), (same_name, expected), value in zip(node.items(), apart.items(), node.values(), strict=True):
        assert name == same_name
        assert equal(layer, expected)
        assert equal(value, expected)
        assert equal(node[int(name)], expected)
    assert equal(pt.Tree(dict(node)), pt.Tree(dict(apart)))
    assert equal(pt.Tree({**node}), apart)


def test_a_loop_over_the_layers_runs_over_all_of_them_also_inside_jit():
    apart = pt.Tree({"blocks": blocks(4)})
    params = stacked(apart, "blocks")

    def by_number(params, x):
        for at in range(len(params["blocks"])):
            x = scaled(params["blocks"][at], x)
        return x

    def by_value(params, x):
        for block in params["blocks"].values():
            x = scaled(block, x)
        return x

    x = jnp.ones(3)
    expected = jax.lax.scan(
        lambda x, block: (scaled(block, x), None), x, jax.tree.map(lambda *w: jnp.stack(w), *blocks(4))
    )[0]
    for loop in (by_number, by_value, jax.jit(by_number), jax.jit(by_value)):
        np.testing.assert_allclose(loop(params, x), expected, rtol=1e-6)
        np.testing.assert_allclose(loop(apart, x), expected, rtol=1e-6)
    grads = jax.grad(lambda p: by_number(p, x).sum())(params)
    np.testing.assert_allclose(
        grads["blocks/2/w"], jax.grad(lambda p: by_number(p, x).sum())(apart)["blocks/2/w"], rtol=1e-6
    )


def test_the_whole_stack_is_still_one_name():
    params = stacked(pt.Tree(language_model()), "blocks")
    assert ":" in params["blocks"]
    assert params["blocks"][":"]["q/kernel"].shape == (3, 4, 4)
    assert pt.asdict(params)["blocks"].keys() == {":"}
    assert all(a is b for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(pt.asdict(params)), strict=True))
    assert pt.unflatten(pt.flatten(params)) == params
    assert pt.Tree({"more": params})["more"] == params
    assert list(params) == ["embed", "blocks", "head"]


@pytest.mark.parametrize("leaf", [True, "decay", None, 3])
def test_layers_that_nothing_counts_are_not_iterated_and_the_way_is_named(leaf):
    labels = jax.tree.map(lambda _: leaf, stacked(pt.Tree({"blocks": blocks(3)}), "blocks"))
    for use in (len, list, dict, lambda node: [*node.items()], lambda node: [*node.values()]):
        with pytest.raises(
            pt.StructureError, match=r"how many layers the stack has is not known: .* no shape, do not say"
        ):
            use(labels["blocks"])
    assert bool(labels["blocks"])
    assert labels["blocks"][":"]["w"] == leaf
    if leaf is not None:
        assert len(pt.stacks.unstack(labels, "blocks", 3)["blocks"]) == 3


def test_leaves_that_disagree_are_told():
    broken = pt.Tree({":": {"w": jnp.ones((3, 2)), "b": jnp.ones(4)}})
    with pytest.raises(pt.StructureError, match=r"how many layers the stack has is not known: its leaves have 3 or 4"):
        len(broken)


def test_repeated_layers_count_theirs_either_way():
    net = nn.Repeat(nn.Dense(3), 4)
    x = jnp.ones((2, 3))
    params = net.init(jax.random.key(0), x)
    assert len(params) == 4
    expected = net(params, x)
    for layer in params.values():
        x = nn.Dense(3)(layer, x)
    np.testing.assert_allclose(x, expected, rtol=1e-5)
    with pytest.raises(pt.LayerError, match="expected the parameters of 4 layers, got those of 3"):
        net(pt.stacks.stack(pt.Tree([dense(3, 3)] * 3), ""), x)


def test_ties_into_a_stack_are_in_each_layer():
    halves = {name: stacked(pt.Tree({"blocks": blocks(3)}), "blocks") for name in ("enc", "dec")}
    tree = tied({"dec/blocks": "enc/blocks"}, halves)
    assert [layer["w"].tolist() for layer in tree["dec/blocks"].values()] == [
        block["w"].tolist() for block in blocks(3)
    ]


@pytest.mark.parametrize("wrap", [jax.jit, jax.vmap])
def test_a_traced_number_is_no_path_and_what_works_is_said(wrap):
    stack = pt.stacks.stack(pt.Tree({"blocks": [{"w": jnp.full(2, at)} for at in range(3)]}), "blocks")["blocks"]
    with pytest.raises(pt.PathError, match=r"traces has no value yet: \[':'\] gives all layers.*ptree\.stacks\.scan"):
        wrap(lambda at: stack[at]["w"])(jnp.arange(3) if wrap is jax.vmap else 1)
    picked = wrap(lambda at: stack[":"]["w"][at])(jnp.arange(3) if wrap is jax.vmap else 1)
    assert picked.tolist() == ([[0, 0], [1, 1], [2, 2]] if wrap is jax.vmap else [1, 1])
