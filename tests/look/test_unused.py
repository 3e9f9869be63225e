"""unused: dependence in the traced program, through every kind of operation with a program in it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import nn
from ptree.look import unused

X = jnp.ones(3)
A, B, C = jnp.ones(3), jnp.ones(3), jnp.ones(3)


@jax.custom_vjp
def first_of(a, b):
    return a


first_of.defvjp(lambda a, b: (a, None), lambda _, g: (g, g))


@jax.custom_jvp
def second_of(a, b):
    return b


second_of.defjvp(lambda primals, tangents: (primals[1], tangents[1]))


def scanned(p):
    """The carry takes two steps to bring b to the first place, and c never gets there."""

    def step(carry, x):
        _, second, third = carry
        return (second + x, p["b"], third * p["c"]), third

    (first, _, _), _ = jax.lax.scan(step, (p["a"], X, X), jnp.ones((4, 3)))
    return first.sum()


def looped(p):
    def body(state):
        at, value, other = state
        return at + 1, value + p["b"], other * p["c"]

    return jax.lax.while_loop(lambda state: state[0] < p["a"].sum(), body, (0.0, X, X))[1].sum()


def branched(p):
    return jax.lax.cond(p["a"][0] > 0, lambda: p["b"] + 1, lambda: X).sum()


def buffered(p):
    memory = jax.new_ref(jnp.zeros(3))
    memory[...] = p["a"]
    return memory[...].sum() + p["b"].sum()


LOSSES = {
    "plain": (lambda p: (p["a"] * p["b"]).sum(), ["c"]),
    "nothing": (lambda p: jnp.float32(1), ["a", "b", "c"]),
    "times zero": (lambda p: (p["a"] * 0).sum(), ["b", "c"]),
    "dead code": (lambda p: (jnp.sin(p["c"]), p["a"].sum())[1], ["b", "c"]),
    "jit": (lambda p: jax.jit(lambda a, b, c: (a + b, c))(p["a"], p["b"], p["c"])[0].sum(), ["c"]),
    "jit, the other": (lambda p: jax.jit(lambda a, b, c: (a + b, c))(p["a"], p["b"], p["c"])[1].sum(), ["a", "b"]),
    "remat": (lambda p: jax.checkpoint(lambda a, b: (a, jnp.sin(b)))(p["a"], p["b"])[1].sum(), ["a", "c"]),
    "custom_vjp": (lambda p: first_of(p["a"], p["b"]).sum(), ["b", "c"]),
    "custom_jvp": (lambda p: second_of(p["a"], p["b"]).sum(), ["a", "c"]),
    "scan": (scanned, ["c"]),
    "while": (looped, ["c"]),
    "cond": (branched, ["c"]),
    "stop_gradient": (lambda p: jax.lax.stop_gradient(p["a"]).sum() + p["b"].sum(), ["c"]),
    "reduction": (lambda p: jax.lax.reduce(p["a"], p["b"][0], lambda a, b: a + b, (0,)), ["c"]),
    "vmap": (lambda p: jax.vmap(lambda a, b: a)(p["a"], p["b"]).sum(), ["b", "c"]),
    "aux": (lambda p: (p["a"].sum(), p["b"]), ["b", "c"]),
    "gradient": (lambda p: jax.grad(lambda a: (a * p["b"]).sum())(p["a"]).sum(), ["a", "c"]),
    "reference": (buffered, ["c"]),
    "solve": (lambda p: jnp.linalg.solve(jnp.diag(p["a"]), p["b"]).sum(), ["c"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_leaf_is_unused_if_the_loss_does_not_depend_on_it(name):
    loss, expected = LOSSES[name]
    assert unused(loss, {"a": A, "b": B, "c": C}) == expected


def test_the_order_is_declared_order_and_ties_are_followed():
    params = pt.tie(pt.Tree({"z": {"w": A}, "a": {"w": B}, "t": {"w": A}}), {"t": "z"})
    assert unused(lambda p: p["t/w"].sum(), params) == ["a/w"]
    assert unused(lambda p: jnp.float32(0), params) == ["z/w", "a/w"]


def test_specs_and_shapes_are_enough():
    net = nn.Sequential(nn.Dense(4), jax.nn.relu, nn.Dense(2))
    x = jax.ShapeDtypeStruct((8, 3), "float32")
    spec = pt.put(net.spec(x), "extra", pt.Param((1000, 1000)))
    assert unused(lambda p, x: net(p, x).sum(), spec, x) == ["extra"]


def test_batches_may_hold_anything():
    batch = {"x": np.ones(3), "labels": np.arange(3), "name": "train", "key": jax.random.key(0)}

    def loss(params, batch, flag):
        noise = jax.random.normal(batch["key"], (3,))
        return (batch["x"] * params["a"] + noise).sum() if batch["name"] == "train" and flag else params["b"].sum()

    assert unused(loss, {"a": np.ones(3), "b": B, "act": np.tanh}, batch, True) == ["b"]
    assert unused(loss, {"a": np.ones(3), "b": B}, batch, False) == ["a"]


def test_a_model_in_a_stack_of_layers():
    params = {"blocks": {":": {"w": jnp.ones((4, 3)), "old": jnp.ones((4, 3))}}}

    def loss(p, x):
        return jax.lax.scan(lambda h, layer: (jnp.tanh(h * layer["w"]), layer["old"]), x, p["blocks"][":"])[0].sum()

    assert unused(loss, params, X) == ["blocks/:/old"]


def test_a_state_of_an_optimiser_is_a_tree_too():
    state = optax.adam(1e-3).init({"a": A})
    assert unused(lambda state: state[0].mu["a"].sum(), state) == ["0/count", "0/nu/a"]


def test_a_loss_of_several_numbers_is_an_error():
    with pytest.raises(pt.StructureError, match=r"should return the loss, one number.*returns f32\[3\]"):
        unused(lambda p: p["a"], {"a": A})
