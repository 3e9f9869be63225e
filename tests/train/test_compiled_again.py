"""A step that is compiled again in the middle of a run says why, by path, once for each kind of batch."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import train


def loss(params, batch):
    return (params["w"] * batch["x"]).mean() + (params["w"] * batch["y"][0]).mean()


def batch(rows=4, dtype=jnp.float32):
    return {"x": jnp.ones((rows, 2), dtype), "y": [jnp.ones(2)]}


def started():
    step = train.step(loss, optax.sgd(0.1, momentum=0.9))
    state, _ = step(step.init({"w": jnp.ones(2)}), batch())
    return step, state


def warned(step, state, batch):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        state, _ = step(state, batch)
    return state, [str(warning.message) for warning in found]


def test_a_smaller_batch_is_named_once():
    step, state = started()
    with pytest.warns(UserWarning, match="compiled again") as found:
        state, _ = step(state, batch(3))
    assert str(found[0].message) == (
        "the step is compiled again, as the batch has changed: 'x' is f32[3,2], it was f32[4,2]."
        " Drop or pad what is left over at the end of the data, or pad to few sizes"
    )
    assert found[0].filename == __file__
    for rows in (4, 3, 4, 3):  # both are compiled by now
        state, texts = warned(step, state, batch(rows))
        assert texts == []


def test_another_dtype_a_new_leaf_one_that_is_gone_and_a_number():
    step, state = started()
    state, texts = warned(step, state, batch(dtype=jnp.bfloat16))
    assert "'x' is bf16[4,2], it was f32[4,2]." in texts[0]
    state, texts = warned(step, state, batch() | {"z": 1.0})
    assert "'x' is f32[4,2], it was bf16[4,2], 'z' is new." in texts[0]
    state, texts = warned(step, state, batch())
    assert texts == []
    state, texts = warned(step, state, batch() | {"z": 3.0})  # another number is no other program
    assert texts == []


def test_arrays_of_numpy_are_as_those_of_jax():
    step, state = started()
    state, texts = warned(step, state, jax.tree.map(np.asarray, batch()))
    assert texts == []


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_batch_that_lies_elsewhere():
    devices = jax.make_mesh((8,), ("data",))
    step = train.step(lambda params, x: (params["w"] * x).mean(), optax.sgd(0.1))
    divided, whole = (jax.device_put(jnp.ones((8, 2)), NamedSharding(devices, spec)) for spec in (P("data"), P()))
    state = step.init({"w": jax.device_put(jnp.ones(2), NamedSharding(devices, P()))})
    state, _ = step(state, divided)
    state, texts = warned(step, state, whole)
    assert "the batch has changed: it is f32[8,2] over P(), it was f32[8,2] over P('data',)." in texts[0].replace(
        "PartitionSpec", "P"
    )


def test_a_parameter_of_another_shape_or_dtype_is_named():
    step, state = started()
    wider = dataclasses.replace(state, params={"w": state.params["w"].astype(jnp.bfloat16)})
    state, texts = warned(step, wider, batch())
    assert texts == ["the step is compiled again, as the state has changed: 'params/w' is bf16[2], it was f32[2]"]


def test_a_new_run_of_another_shape_is_no_surprise():
    step = train.step(lambda params, x: (params["w"] * x).sum(), optax.sgd(0.1))
    for size in (2, 3):
        _, texts = warned(step, step.init({"w": jnp.ones(size)}), jnp.ones(size))
        assert texts == []


def test_an_optimiser_that_changes_its_state_is_refused():
    def init(params):
        return {"sum": jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.bfloat16), params)}

    def update(updates, state, params=None):
        return updates, {"sum": jax.tree.map(jnp.add, state["sum"], updates)}

    step = train.step(loss, optax.GradientTransformation(init, update))
    with pytest.raises(
        pt.StructureError,
        match=r"changes the shape or dtype of its state.*\n.*'sum/w' was bf16\[2\] and becomes f32\[2\]",
    ):
        step(step.init({"w": jnp.ones(2)}), batch())
    growing = optax.GradientTransformation(
        lambda params: (), lambda updates, state, params=None: (updates, (*state, 0))
    )
    step = train.step(loss, growing)
    with pytest.raises(pt.StructureError, match="returns a state of another structure"):
        step(step.init({"w": jnp.ones(2)}), batch())
