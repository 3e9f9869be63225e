"""Arrays that were donated or deleted are named by their paths where JAX's own error names none."""

import jax
import jax.numpy as jnp
import optax
import pytest

import ptree as pt
from ptree import train


def loss(params, x):
    return (params["head"]["w"] * x + params["b"]).sum()


def params():
    return {"head": {"w": jnp.ones(3)}, "b": jnp.zeros(3)}


def gone(*shape):
    array = jnp.ones(shape)
    array.delete()
    return array


FIX = "go on from what it returned, or give it a copy, jax.tree.map(jnp.copy, tree)"


def refused(said, call):
    with pytest.raises(pt.StructureError) as raised:
        call()
    assert said in str(raised.value)
    assert str(raised.value).endswith(FIX)


def test_value_and_grad_names_donated_parameters_and_arguments():
    value_and_grad = train.value_and_grad(loss, "**")
    given = params()
    step = train.step(loss, optax.sgd(0.1))
    step(step.init(given), jnp.ones(3))
    refused(
        "value_and_grad: these arrays were donated or deleted: ['head/w', 'b'] of the parameters.",
        lambda: value_and_grad(given, jnp.ones(3)),
    )
    refused("['0'] of the other arguments", lambda: value_and_grad(params(), gone(3)))
    with pytest.raises((RuntimeError, ValueError), match="deleted"):  # an array that it was not given
        train.value_and_grad(lambda params: loss(params, given["b"]), "b")(params())


@pytest.mark.parametrize("is_first", [True, False])
def test_a_step_names_what_was_deleted_since_the_last_one(is_first):
    step = train.step(loss, optax.adam(0.1))
    state = step.init(params())
    if not is_first:
        state, _ = step(state, jnp.ones(3))
    refused("step(state, batch): these arrays were donated or deleted: the batch.", lambda: step(state, gone(3)))
    state, _ = step(state, jnp.ones(3))
    state.params["head"]["w"].delete()  # the newest state, which is not looked at before a step
    refused("['params/head/w'] of the state", lambda: step(state, jnp.ones(3)))


def test_a_step_names_deleted_parts_of_a_batch():
    step = train.step(lambda params, batch: loss(params, batch["x"]["image"]), optax.sgd(0.1))
    state = step.init(params())
    refused("['x/image'] of the batch", lambda: step(state, {"x": {"image": gone(3)}, "y": jnp.ones(1)}))


def test_updates_name_donated_gradients_states_and_parameters():
    optimiser = train.groups({"**": optax.adam(0.1)})
    state, grads = optimiser.init(params()), params()
    updates, _ = optimiser.update(grads, state, params())
    refused("['b', 'head/w'] of the gradients", lambda: optimiser.update(jax.tree.map(lambda _: gone(3), grads), state))
    used = jax.tree.map(jnp.copy, state)
    for leaf in jax.tree.leaves(used):
        leaf.delete()
    refused(" of the state", lambda: optimiser.update(grads, used))
    refused("['b'] of the parameters", lambda: train.apply_updates({**params(), "b": gone(3)}, updates))
    refused("['b'] of the updates", lambda: train.apply_updates(params(), {"b": gone(3)}))


def test_other_errors_stay_as_they_are():
    def broken(params, x):
        raise RuntimeError("the cache was deleted")

    for call in (
        lambda: train.value_and_grad(broken, "**")(params(), 1.0),
        lambda: train.step(broken, optax.sgd(0.1))(train.step(loss, optax.sgd(0.1)).init(params()), 1.0),
    ):
        with pytest.raises(RuntimeError, match="the cache was deleted"):
            call()
