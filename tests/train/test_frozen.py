"""What freezing spares: no gradient of a frozen leaf is computed, it has no slot, and its bytes in a file stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors import safe_open

import ptree as pt
from ptree import nn, train
from ptree._jaxprs import inner_jaxprs, opened

WIDTH, DEPTH = 32, 6
NET = nn.Sequential(*[nn.Dense(WIDTH, use_bias=False) if at % 2 == 0 else jnp.tanh for at in range(2 * DEPTH)])
X = jnp.ones((8, WIDTH))


def parameters():
    return NET.init(jax.random.key(0), X)


def loss(params, x=X):
    return (NET(params, x) ** 2).mean()


FROZEN = {"{0,2,4}": train.FROZEN, "**": optax.adam(1e-2)}


def products(jaxpr):
    """How many products of matrices a jaxpr computes, those of inner ones too."""
    inner = sum(products(opened(one)) for equation in jaxpr.eqns for one in inner_jaxprs(equation))
    return inner + sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)


def test_no_gradient_of_frozen_leaves_is_in_the_program():
    params = parameters()
    optimiser = train.groups(FROZEN)
    every = jax.make_jaxpr(jax.value_and_grad(loss))(params)
    some = jax.make_jaxpr(train.value_and_grad(loss, wrt=optimiser))(params)
    # forwards 6; backwards for each kernel one, and one to go on to the layer before it
    assert products(every.jaxpr) == 6 + 6 + 5
    assert products(some.jaxpr) == 6 + 3 + 2


def operations(step, *args):
    return jax.jit(step).lower(*args).compile().cost_analysis()["flops"]


def test_a_frozen_step_costs_what_partition_by_hand_costs():
    params = parameters()
    optimiser, adam = train.groups(FROZEN), optax.adam(1e-2)

    def step(params, state):
        _, grads = train.value_and_grad(loss, wrt=optimiser)(params)
        updates, state = optimiser.update(grads, state, params)
        return train.apply_updates(params, updates), state

    def with_all_gradients(params, state):
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    def by_hand(trained, frozen, state):
        grads = jax.grad(lambda trained: loss(pt.merge(trained, frozen)))(trained)
        updates, state = adam.update(grads, state, trained)
        return optax.apply_updates(trained, updates), state

    frozen, trained = pt.partition(params, "{0,2,4}")
    ours = operations(step, params, optimiser.init(params))
    assert ours <= 1.01 * operations(by_hand, trained, frozen, adam.init(trained))
    assert operations(with_all_gradients, params, optimiser.init(params)) <= 1.05 * ours, "XLA drops what nothing reads"

    def all_trained(params, state):
        updates, state = adam.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    assert ours < 0.75 * operations(all_trained, params, adam.init(params))


def test_the_clip_keeps_no_frozen_gradient_alive():
    """A global norm outside of the groups reads all gradients: then XLA can drop none."""
    params = parameters()
    inside = train.groups(FROZEN, clip=1.0)
    outside = optax.chain(optax.clip_by_global_norm(1.0), train.groups(FROZEN))

    def step(optimiser):
        return lambda params, state: optimiser.update(jax.grad(loss)(params), state, params)

    assert operations(step(inside), params, inside.init(params)) < 0.75 * operations(
        step(outside), params, outside.init(params)
    )


def leaf_bytes(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_files_of_frozen_leaves_are_the_same_after_training(tmp_path):
    params = parameters()
    optimiser = train.groups({**FROZEN, "**": optax.adamw(1e-2, weight_decay=0.5)}, clip=1.0)
    pt.save(tmp_path / "before.safetensors", params)

    @jax.jit
    def step(params, state):
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for _ in range(5):
        params, state = step(params, state)
    pt.save(tmp_path / "after.safetensors", params)
    before, after = (leaf_bytes(tmp_path / f"{when}.safetensors") for when in ("before", "after"))
    assert {name for name in before if before[name] != after[name]} == {"6/kernel", "8/kernel", "10/kernel"}


# -------------------------------------------------------------------------------- value_and_grad


def test_gradients_of_a_selection_are_those_of_all():
    params = pt.tie({"a": jnp.arange(3.0), "b": jnp.ones(3), "c": [jnp.ones(3), jnp.arange(3.0)]}, {"b": "a"})
    loss = lambda p, x, scale: (scale * x * p["a"] * p["b"] * p["c/0"]).sum() + (p["c/1"] ** 3).sum()
    every = jax.grad(loss)(params, 2.0, scale=jnp.arange(3.0))
    for selector in ["a", "b", "c/*", ["**", "!c/0"], lambda path, leaf: path == "c/1"]:
        value, some = jax.jit(lambda p, s=selector: train.value_and_grad(loss, wrt=s)(p, 2.0, scale=jnp.arange(3.0)))(
            params
        )
        assert pt.paths(some) == pt.paths(params, selector)
        np.testing.assert_allclose(value, loss(params, 2.0, scale=jnp.arange(3.0)), rtol=1e-6)
        for path, grad in pt.items(some):
            np.testing.assert_allclose(grad, pt.get(every, path), rtol=1e-6, err_msg=path)


def test_auxiliary_values_come_along():
    (value, aux), grads = train.value_and_grad(lambda p: (p["w"].sum(), {"n": 3}), wrt="w", has_aux=True)(
        {"w": jnp.ones(2), "v": 1}
    )
    assert (float(value), aux, list(grads)) == (2.0, {"n": 3}, ["w"])


@pytest.mark.parametrize(
    ("loss", "has_aux", "text"),
    [
        (lambda p: p["w"], False, "must return one number, got f32[2]. Take the mean of it: loss.mean()"),
        (
            lambda p: (p["w"].sum(), 1),
            False,
            "returned a pair. If its second value comes with the loss, say has_aux=True",
        ),
        (
            lambda p: p["w"].sum().astype(int),
            False,
            "must return a floating-point number, got i32[], which has no gradient",
        ),
        (lambda p: (p["w"], 1), True, "must return one number, got f32[2]"),
        (lambda p: p["w"].sum(), True, "must return a pair (loss, aux), got f32[]"),
    ],
)
def test_a_loss_that_is_no_number_is_an_error(loss, has_aux, text):
    with pytest.raises(pt.StructureError) as caught:
        train.value_and_grad(loss, wrt="w", has_aux=has_aux)({"w": jnp.ones(2)})
    assert "the loss <lambda>" in str(caught.value)
    assert text in str(caught.value)


def test_a_selection_without_gradients_is_an_error():
    params = {"w": jnp.ones(2), "count": jnp.int32(1), "flag": True}
    with pytest.raises(pt.PatternError, match=r"no gradient with respect to \['count', 'flag'\]"):
        train.value_and_grad(lambda p: p["w"].sum(), wrt="**")(params)
    with pytest.raises(pt.PatternError, match=r"the pattern 'v' matches nothing"):
        train.value_and_grad(lambda p: p["w"].sum(), wrt="v")(params)
    stacked = pt.stacks.stack(pt.Tree({"b": [{"w": jnp.ones(2)}] * 2}), "b")
    with pytest.raises(pt.PatternError, match="unstack"):
        train.value_and_grad(lambda p: p["b/0/w"].sum(), wrt="b/0/w")(stacked)


@pytest.mark.parametrize("donate", [True, False])
def test_a_step_neither_copies_nor_donates_frozen_leaves_and_the_key(donate):
    params = parameters()
    key = jax.random.key(1)
    step = train.step(lambda params, x, key: loss(params, x), train.groups(FROZEN), ema=0.9, donate=donate)
    first = step.init(params, key=key)
    state, _ = step(first, X)
    state, _ = step(state, X)
    for path in ("0/kernel", "2/kernel", "4/kernel"):
        assert state.params[path] is first.params[path]
        assert state.params[path].unsafe_buffer_pointer() == params[path].unsafe_buffer_pointer()
        assert state.averaged[path] is first.params[path]
    assert state.key is first.key
    assert not key.is_deleted()
    assert params["6/kernel"].is_deleted() == donate
    assert first.params["6/kernel"].is_deleted() == donate
    assert not (state.params["6/kernel"] == parameters()["6/kernel"]).all()


def test_the_compiled_step_has_frozen_leaves_as_inputs_alone():
    step = train.step(loss, train.groups(FROZEN))
    state = step.init(parameters())
    state, _ = step(state, X)
    (compiled,) = step._compiled.values()
    changed, unchanged = compiled.parts(state)
    outputs = jax.eval_shape(compiled.jitted, changed, unchanged, X)[0]
    assert len(unchanged) == 3
    assert len(outputs) == len(changed) == len(jax.tree.leaves(state)) - 3
