"""What a step refuses: losses, parameters, optimiser states and arguments that do not fit; nothing changes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import train

PARAMS = {"w": jnp.ones(3), "b": jnp.zeros(3)}


def params():
    return jax.tree.map(jnp.copy, PARAMS)


def good(params, x):
    return (params["w"] * x + params["b"]).sum()


def refused(loss, error, match, x=jnp.ones(3), **options):
    step = train.step(loss, optax.adam(0.1), **options)
    state = step.init(params())
    with pytest.raises(error, match=match):
        step(state, x)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert state.params["w"].tolist() == [1, 1, 1]


def test_losses_that_are_not_one_floating_point_number():
    refused(
        lambda p, x: p["w"] * x,
        pt.StructureError,
        r"must return one number, got f32\[3\]. Take the mean of it: loss.mean\(\)",
    )
    refused(
        lambda p, x: (p["w"] > x).sum(), pt.StructureError, r"floating-point number, got i32\[\], which has no gradient"
    )
    refused(lambda p, x: p["w"].sum() * 1j, pt.StructureError, r"floating-point number, got c64\[\]")
    refused(lambda p, x: None, pt.StructureError, "must return one floating-point number, got None")
    refused(lambda p, x: {"loss": p["w"].sum()}, pt.StructureError, "must return one floating-point number, got dict")
    refused(lambda p, x: (p["w"].sum(), 1), pt.StructureError, "returned a pair.*has_aux=True")
    refused(
        lambda p, x: p["w"].sum(), pt.StructureError, r"must return a pair \(loss, aux\), got f32\[\]", has_aux=True
    )
    refused(lambda p, x: (p["w"] * x, 1), pt.StructureError, r"must return one number, got f32\[3\]", has_aux=True)


def test_a_loss_that_is_not_finite_at_the_first_step_names_what_is_not():
    refused(
        lambda p, x: jnp.log(-good(p, x)),
        train.LossError,
        "the loss is nan at the first step.*\n.*parameters and batch are finite",
    )
    refused(lambda p, x: good(p, x) / 0, ArithmeticError, "the loss is inf")
    refused(
        good,
        train.LossError,
        r"in the batch 'batch': 1 of 3 are not finite, first at \(1,\)",
        x=jnp.array([1, jnp.nan, 1]),
    )
    step = train.step(lambda p, x: good(p, x["x"]), optax.adam(0.1), accumulate=2)
    state = step.init(params() | {"b": jnp.array([0, 0, jnp.inf])})
    with pytest.raises(train.LossError, match=r"in the parameters 'b': 1 of 3.*\n.*in the batch 'batch/x': 1 of 6"):
        step(state, {"x": jnp.ones((2, 3)).at[1, 1].set(-jnp.inf)})
    state = dataclasses.replace(state, params=params())  # and the run goes on
    state, metrics = step(state, {"x": jnp.ones((2, 3))})
    assert np.isfinite(metrics.loss)


def test_losses_that_cannot_be_called():
    with pytest.raises(TypeError, match="expected a function loss\\(params, batch\\), got 3"):
        train.step(3, optax.sgd(0.1))
    for wrong in (lambda params: 0.0, lambda params, batch, other: 0.0, lambda params, batch, *, rng: 0.0):
        with pytest.raises(
            TypeError, match=r"must be called as loss\(params, batch\) or loss\(params, batch, key=key\)"
        ):
            train.step(wrong, optax.sgd(0.1))


def test_parameters_that_cannot_be_trained():
    step = train.step(good, optax.adam(0.1))
    with pytest.raises(pt.StructureError, match="nothing to train: the parameters have no leaves"):
        step.init({})
    with pytest.raises(pt.StructureError, match="nothing to train: none of the 2 leaves holds floats"):
        step.init({"n": jnp.arange(3), "m": 4})
    with pytest.raises(pt.StructureError, match=r"'name' is 'gpt'; 'spec' is f32\[2\].*ptree.init\(spec, key\)"):
        step.init({"w": jnp.ones(2), "name": "gpt", "spec": pt.Param((2,))})
    frozen = train.step(good, train.FROZEN)
    with pytest.raises(pt.StructureError, match="the optimiser is FROZEN"):
        frozen.init(params())
    with pytest.raises(pt.PatternError, match="nothing is trained"):
        train.step(good, train.groups({"**": train.FROZEN})).init(params())
    with pytest.raises(pt.PatternError, match=r"'bias'"):
        train.step(good, train.groups({"bias": optax.sgd(1.0), "**": train.FROZEN})).init(params())


def test_a_state_of_another_optimiser_names_the_slots():
    sgd, adam = train.step(good, optax.sgd(0.1, momentum=0.9)), train.step(good, optax.adam(0.1))
    state = sgd.init(params())
    with pytest.raises(pt.StructureError) as error:
        adam(state, jnp.ones(3))
    assert str(error.value).splitlines() == [
        "the state is of another optimiser, or of other parameters:",
        "  missing in the state: ['0/count', '0/mu/b', '0/mu/w', '0/nu/b', '0/nu/w']",
        "  unexpected in the state: ['0/trace/b', '0/trace/w']",
        "ptree.train.carry takes over what fits; step.init(params) begins anew.",
    ]
    state, _ = sgd(state, jnp.ones(3))  # nothing has changed
    lion = train.step(good, optax.lion(0.1))
    other = dataclasses.replace(
        lion.init(params()), optimiser=optax.chain(optax.scale_by_lion(), optax.identity()).init(params())
    )
    with pytest.raises(pt.StructureError, match="another optimiser: the paths of its slots are the same"):
        lion(other, jnp.ones(3))


def test_a_state_of_other_parameters_or_groups():
    adam = train.step(good, optax.adam(0.1))
    state = adam.init(params())
    grown = dataclasses.replace(state, params={"w": jnp.ones(4), "b": jnp.zeros(4)})
    with pytest.raises(
        pt.StructureError, match=r"'0/mu/b': expected f32\[4\] in this optimiser, got f32\[3\] in the state"
    ):
        adam(grown, jnp.ones(4))
    one = train.step(good, train.groups({"b": train.FROZEN, "**": optax.adam(0.1)}))
    other = train.step(good, train.groups({"**": optax.adam(0.1)}))
    with pytest.raises(pt.StructureError, match=r"of other groups"):
        other(one.init(params()), jnp.ones(3))
    with pytest.raises(pt.StructureError):
        one(state, jnp.ones(3))
    slots = train.step(good, train.groups({"b": train.FROZEN, "**": optax.sgd(0.1)}))
    with pytest.raises(pt.StructureError, match="is of another optimiser"):
        slots(one.init(params()), jnp.ones(3))


def test_what_is_no_state_and_a_key_that_is_missing():
    step = train.step(good, optax.adam(0.1))
    with pytest.raises(TypeError, match=r"expected what step.init\(params\) makes, got dict"):
        step(params(), jnp.ones(3))
    keyed = train.step(lambda p, x, key: good(p, x), optax.adam(0.1))
    with pytest.raises(TypeError, match=r"dataclasses.replace\(state, key=jax.random.key\(0\)\)"):
        keyed(step.init(params()), jnp.ones(3))


def test_arguments_that_do_not_fit():
    for options, error, match in (
        ({"accumulate": 0}, ValueError, "at least one microbatch"),
        ({"accumulate": 2.0}, TypeError, "whole number of microbatches, got 2.0"),
        ({"weight": "mask"}, TypeError, r"step\(weight=\): expected a function"),
        ({"observe": True}, TypeError, r"such as ptree.look.observe, got True"),
    ):
        with pytest.raises(error, match=match):
            train.step(good, optax.adam(0.1), **options)
    for optimiser in (0.1, optax.adam, None):
        with pytest.raises(TypeError, match=r"expected an optimiser of optax, such as optax.adamw\(3e-4\)"):
            train.step(good, optimiser)


def test_parameters_that_an_earlier_run_has_donated_are_named():
    step = train.step(lambda params, x: (params["w"] * x).sum(), optax.sgd(0.1))
    params = {"w": jnp.ones(3)}
    step(step.init(params), 1.0)
    with pytest.raises(pt.StructureError, match=r"given to step.init before.*'w'"):
        step.init(params)


def test_an_optimiser_that_looks_at_norms_warns_of_a_stack():
    params = pt.stacks.stack(pt.Tree({"blocks": [{"w": jnp.ones((4, 4))}] * 3}), "blocks")
    step = train.step(lambda params, x: (params["blocks/:/w"] * x).sum(), optax.lamb(0.1))
    with pytest.warns(UserWarning, match="by_layer"):
        step.init(params)


def test_a_loss_that_explicit_axes_do_not_know_is_named_with_what_to_write():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    loss = lambda params, labels: optax.softmax_cross_entropy_with_integer_labels(params["w"], labels).mean()
    with jax.set_mesh(mesh):
        params = {"w": jax.device_put(jnp.ones((8, 16)), P("data", "model"))}
        labels = jax.device_put(jnp.arange(8), P("data"))
        step = train.step(loss, optax.sgd(0.1), donate=False)
        with pytest.raises(pt.StructureError, match=r"the loss <lambda>: JAX cannot tell .*auto_axes"):
            step(step.init(params), labels)
        step = train.step(jax.sharding.auto_axes(loss, out_sharding=P()), optax.sgd(0.1), donate=False)
        _, metrics = step(step.init(params), labels)
    np.testing.assert_allclose(metrics.loss, np.log(16), rtol=1e-6)


def test_arrays_of_a_spec_that_a_step_has_donated_are_named_by_init():
    def spec(table):
        return pt.Tree({"w": pt.Param((3,), init=pt.initializers.ones), "table": table, "fixed": jnp.ones(3)})

    loss = lambda params, x: (params["w"] * params["table"] * params["fixed"] * x).sum()
    step = train.step(loss, train.groups({"fixed": train.FROZEN, "**": optax.sgd(0.1)}))
    given = spec(jnp.ones(3))
    drawn = pt.init(given, jax.random.key(0))
    assert drawn["table"] is given["table"]
    step(step.init(drawn), 1.0)
    with pytest.raises(pt.InitError) as error:
        pt.init(given, jax.random.key(0))
    assert str(error.value).startswith("the spec holds arrays that were deleted: ['table']. init hands on")
    pt.init(given, jax.random.key(0), {"table": pt.initializers.ones})  # drawn, so the old values are not needed
    with pytest.raises(pt.StructureError, match=r"share their memory with what was, as a spec's arrays.*\['table'\]"):
        step.init({**dict(pt.items(given)), "w": jnp.ones(3)})
    for kept in (spec(np.ones(3, np.float32)), spec(jnp.ones(3))):  # NumPy arrays stay, and so does what is copied
        for _ in range(2):
            new = pt.init(kept, jax.random.key(0))
            step(step.init(new if isinstance(new["table"], np.ndarray) else jax.tree.map(jnp.copy, new)), 1.0)
        assert kept["table"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("inside", [jax.jit, jax.vmap])
def test_a_step_inside_of_jit_or_vmap_says_what_to_use_there(inside):
    step = train.step(lambda params, x: jnp.square(params["w"] * x).sum(), optax.adam(0.1))
    state = step.init({"w": jnp.ones((3, 2))})
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state) if inside is jax.vmap else state
    with pytest.raises(pt.StructureError, match=r"cannot be called inside of jit, vmap, .* step\.pure\(state, batch\)"):
        inside(step)(states, jnp.ones((3, 1)))
    new, _ = inside(step.pure)(states, jnp.ones((3, 1)))
    assert new.params["w"].shape == states.params["w"].shape


def test_a_state_that_a_step_has_used_is_not_carried():
    step = train.step(lambda params, x: jnp.square(params["w"] * x).sum(), optax.adam(0.1))
    used = step.init(pt.Tree({"w": jnp.ones(2)}))
    state, _ = step(used, 1.0)
    with pytest.raises(
        pt.StructureError, match=r"was given to a step before, which has used its memory again: \['params/w"
    ):
        train.carry_state(used, state.params, step)
    with pytest.raises(TypeError, match=r"^carry_state\(state, params, step\): expected what step.init"):
        train.carry_state(state.params, state.params, step)


def test_leaves_that_resize_has_changed_are_loaded_as_the_error_says(tmp_path):
    def loss(params, x):
        return sum(jnp.square(leaf * x).sum() for leaf in jax.tree.leaves(params))

    step = train.step(loss, optax.adam(0.1))
    state, _ = step(step.init(pt.Tree({"table": jnp.ones((4, 2)), "bias": jnp.ones(4)})), 1.0)
    sizes = {"table": 6, "bias": 6}
    larger = train.resize(state.params, sizes, init=pt.initializers.normal(), key=jax.random.key(0))
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        with pytest.raises(
            pt.StructureError, match=r"'bias': its shape is \(6,\) now, \(4,\) before(.|\n)*resized=\[\.\.\.\]"
        ):
            train.load_state(checkpoints, larger, step, resized="table")
        loaded, _ = train.load_state(checkpoints, larger, step, resized=[*sizes])
    np.testing.assert_array_equal(loaded.optimiser[0].mu["bias"], [*state.optimiser[0].mu["bias"], 0, 0])
