"""The state of an optimiser, and of a whole run, lives with the parameters that it is of: nothing drifts, and a step is compiled once."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import initializers as I
from ptree import shard, train

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)
ABSTRACT = AbstractMesh((4, 2), ("data", "model"))
RULES = {"**/kernel": P("data", "model"), "**/bias": P("model"), "**": P()}
SPEC = pt.Tree({
    "enc": {"kernel": pt.Param((8, 16), init=I.normal(0.3)), "bias": pt.Param((16,), init=I.zeros)},
    "blocks": {":": {"kernel": pt.Param((3, 16, 16), init=I.normal(0.3)), "bias": pt.Param((3, 16), init=I.zeros)}},
    "scale": pt.Param((), init=I.ones),
})  # fmt: skip


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


def loss(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["enc/kernel"] + params["enc/bias"])
    for layer in range(3):
        block = jax.tree.map(lambda leaf, at=layer: leaf[at], params["blocks/:"])
        hidden = jnp.tanh(hidden @ block["kernel"] + block["bias"])
    return jnp.square(hidden.sum(-1) * params["scale"] - batch["y"]).mean()


def batch():
    draw = np.random.default_rng(1)
    return {"x": draw.standard_normal((16, 8), np.float32), "y": draw.standard_normal(16, np.float32)}


def drawn(plan=None):
    return pt.init(SPEC, jax.random.key(0), shardings=plan)


def specs(plan):
    return {leaf.path: leaf.sharding.spec for leaf in plan.leaves}


def state_specs(optimiser, rules=RULES, **options):
    plan = shard.plan(SPEC, rules, ABSTRACT)
    return specs(shard.like(jax.eval_shape(optimiser.init, pt.abstract(SPEC)), plan, **options))


OPTIMISERS = {
    "adamw": optax.adamw(1e-2),
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "sm3": optax.sm3(1e-2),
    "multi steps": optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
    "groups": train.groups({"**/bias": optax.sgd(1e-2, momentum=0.9), "**": optax.adamw(1e-2)}, clip=1.0),
    "schedule free": optax.contrib.schedule_free_adamw(1e-2),
    "by layer": train.by_layer(optax.adafactor(1e-2, min_dim_size_to_factor=4)),
}


# ------------------------------------------------------------------------------ which sharding


def test_moments_live_with_their_parameters_and_counts_everywhere():
    found = state_specs(OPTIMISERS["adamw"])
    assert found["0/count"] == P()
    for moment in ("0/mu/", "0/nu/"):
        assert found[f"{moment}enc/kernel"] == P("data", "model")
        assert found[f"{moment}blocks/:/kernel"] == P(None, "data", "model")
        assert found[f"{moment}blocks/:/bias"] == P(None, "model")
        assert found[f"{moment}scale"] == P()


def test_rows_and_columns_are_divided_as_the_axes_that_are_left():
    found = state_specs(OPTIMISERS["adafactor"])
    assert (found["0/v_row/enc/kernel"], found["0/v_col/enc/kernel"]) == (P("data"), P("model"))
    # all of a stack's axes but the last, and but the last but one; 16 x 16 does not say which
    assert found["0/v_row/blocks/:/kernel"] == P(None, "data")
    assert found["0/v_col/blocks/:/kernel"] == P(None, "model")
    assert (found["0/v/enc/bias"], found["0/v_row/enc/bias"]) == (P("model"), P())
    by_layer = state_specs(OPTIMISERS["by layer"])
    assert by_layer["stacks/blocks/:/0/v_row/blocks/:/kernel"] == P(None, "data")
    assert by_layer["stacks/blocks/:/0/v_col/blocks/:/kernel"] == P(None, "model")
    assert by_layer["stacks/blocks/:/0/count"] == P()


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (8, 8), (4, 8, 8), (8, 4, 8), (8, 8, 4)])
def test_rows_and_columns_are_those_of_optax(shape):
    """A gradient that is not zero at one place along an axis shows which axes the slots of optax have."""
    mesh_axes = ("a", "b", "c")[: len(shape)]
    whole = AbstractMesh((2,) * len(shape), mesh_axes)
    optimiser = optax.scale_by_factored_rms(min_dim_size_to_factor=1, decay_rate=0.0)
    params = {"w": jnp.ones(shape)}
    state = optimiser.init(params)
    found = shard.like(state, shard.plan(params, P(*mesh_axes), whole))
    for axis, name in enumerate(mesh_axes):
        at_one_place = {"w": jnp.zeros(shape).at[(slice(None),) * axis + (1,)].set(1.0)}
        _, after = optimiser.update(at_one_place, state, params)
        for slots in ("v_row", "v_col"):
            slot = np.asarray(getattr(after, slots)["w"])
            entries = [*found[f"{slots}/w"].spec, None, None, None]
            varies = [not np.allclose(np.diff(slot, axis=slot_axis), 0) for slot_axis in range(slot.ndim)]
            assert [entries[slot_axis] == name for slot_axis in range(slot.ndim)] == varies


def test_each_axis_of_sm3_and_a_history():
    found = state_specs(OPTIMISERS["sm3"])
    assert [found[f"0/mu/blocks/:/kernel/{axis}"] for axis in range(3)] == [P(), P("data"), P("model")]
    history = state_specs(optax.scale_by_lbfgs(memory_size=3))
    assert history["diff_params_memory/blocks/:/kernel"] == P(None, None, "data", "model")
    assert history["diff_params_memory/enc/bias"] == P(None, "model")
    assert history["weights_memory"] == P()


def test_sums_that_keep_their_axes():
    plan = shard.plan({"w": pt.Param((8, 16))}, P("data", "model"), ABSTRACT)
    state = {"rows": {"w": jnp.zeros((8, 1))}, "columns": {"w": jnp.zeros((1, 16))}, "other": {"w": jnp.zeros((5, 2))}}
    assert specs(shard.like(state, plan)) == {"rows/w": P("data"), "columns/w": P(None, "model"), "other/w": P()}


def test_a_layers_axis_that_is_divided_stays_divided():
    spec = {"blocks": {":": {"w": pt.Param((4, 8, 8))}}}
    plan = shard.plan(spec, {"blocks/:/w": P("data", None, "model")}, ABSTRACT)
    state = jax.eval_shape(train.by_layer(optax.adam(1e-3)).init, pt.abstract(spec))
    found = specs(shard.like(state, plan))
    assert found["stacks/blocks/:/0/mu/blocks/:/w"] == P("data", None, "model")
    by_rule = specs(shard.like(state, plan, {"**/{mu,nu}/**": P("model")}))  # the counts of the layers follow nothing
    assert by_rule["stacks/blocks/:/0/count"] == P()


def test_a_parameter_named_like_a_part_of_a_state_is_not_mistaken_for_it():
    params = {
        "w": jnp.ones((8, 8)),
        "mu": {"w": jnp.ones((8, 8))},
        "count": jnp.ones((4, 2)),
        "0": {"mu": {"w": jnp.ones((8, 8))}},
    }
    rules = {"w": P("data"), "mu/w": P(None, "data"), "count": P("data", "model"), "0/mu/w": P("model")}
    found = specs(shard.like(optax.adam(1e-3).init(params), shard.plan(params, rules, ABSTRACT)))
    assert found == {
        "0/count": P(),
        **{f"0/{moment}/{path}": spec for moment in ("mu", "nu") for path, spec in rules.items()},
    }  # fmt: skip


def test_parameters_that_are_one_array_and_states_with_holes():
    plan = shard.plan(jnp.ones((8, 8)), P("data"), ABSTRACT)
    assert specs(shard.like(optax.adam(1e-3).init(jnp.ones((8, 8))), plan)) == {
        "0/count": P(),
        "0/mu": P("data"),
        "0/nu": P("data"),
    }
    masked = optax.masked(optax.adam(1e-3), lambda params: pt.mask(params, "**/kernel"))
    found = state_specs(masked)
    assert found["inner_state/0/mu/enc/kernel"] == P("data", "model")
    assert set(found) == {
        "inner_state/0/count",
        *(f"inner_state/0/{m}/{p}/kernel" for m in ("mu", "nu") for p in ("enc", "blocks/:")),
    }


def test_a_whole_run_with_average_key_and_statistics():
    spec = SPEC | {"norm/mean": pt.Param((16,), init=I.zeros), "norm/var": pt.Param((16,), init=I.ones)}
    plan = shard.plan(spec, {"norm": P("model")} | RULES, mesh())
    step = train.step(
        lambda params, x, key: loss(params, x), train.groups({"norm": train.FROZEN, "**": optax.adam(1e-2)}), ema=0.9
    )
    state = step.init(pt.init(spec, jax.random.key(0), shardings=plan), key=jax.random.key(1))
    whole = shard.like(state, plan)
    found = specs(whole)
    assert found["params/norm/mean"] == P("model")
    assert (found["ema/blocks/:/kernel"], found["step"], found["key"]) == (P(None, "data", "model"), P(), P())
    assert found["optimiser/groups/**/0/state/0/mu/enc/kernel"] == P("data", "model")
    assert all(leaf.sharding == whole[path] for path, leaf in pt.items(state))
    assert isinstance(whole.shardings, train.TrainState)


# ------------------------------------------------------------------------------------- rules


def test_moments_alone_are_divided_by_a_rule():
    plan = shard.plan(SPEC, P(), ABSTRACT)
    state = jax.eval_shape(optax.adam(1e-3).init, pt.abstract(SPEC))
    zero = shard.like(state, plan, {"**/{mu,nu}/**": P("data")}, otherwise="replicate")
    assert zero["0/mu/blocks/:/kernel"].spec == P(None, "data")  # a spec is of one layer
    assert (zero["0/mu/scale"].spec, zero["0/count"].spec) == (P(), P())
    assert zero.bytes_per_device < shard.like(state, plan).bytes_per_device / 3
    with pytest.raises(
        shard.ShardingError, match=r"cannot place .*'0/mu/scale'.*its 1 entries are for 1 axes, and the leaf has 0"
    ):
        shard.like(state, plan, {"**/{mu,nu}/**": P("data")})
    with pytest.raises(pt.PatternError, match="bad pattern 'mu/'"):
        shard.like(state, plan, {"mu/": P("data")})
    with pytest.raises(
        pt.StructureError, match=r"the plan is for other parameters than the state: it has \['enc/kernel', "
    ):
        shard.like(optax.adam(1e-3).init({"w": jnp.ones((4, 4))}), plan)
    with pytest.raises(TypeError, match=r"like\(state, plan\): expected what ptree\.shard\.plan"):
        shard.like(state, RULES)
    assert {leaf.reason for leaf in zero.leaves} == {"**/{mu,nu}/**", "of no parameter"}


def ruled_specs(optimiser, rules):
    plan = shard.plan(SPEC, P(), ABSTRACT)
    return specs(shard.like(jax.eval_shape(optimiser.init, pt.abstract(SPEC)), plan, rules))


def test_a_rule_for_slots_speaks_of_one_layer_of_the_parameter():
    by_layer = ruled_specs(train.by_layer(optax.adam(1e-3)), {"**/mu/**/kernel": P("data", "model")})
    assert by_layer["stacks/blocks/:/0/mu/blocks/:/kernel"] == P(None, "data", "model")
    assert by_layer["stacks/others/0/mu/enc/kernel"] == P("data", "model")
    assert by_layer["stacks/blocks/:/0/nu/blocks/:/kernel"] == P()
    history = ruled_specs(optax.scale_by_lbfgs(memory_size=4), {"diff_*/**/kernel": P("data", "model")})
    assert history["diff_params_memory/enc/kernel"] == P(None, "data", "model")
    assert history["diff_params_memory/blocks/:/kernel"] == P(None, None, "data", "model")
    both = ruled_specs(train.by_layer(optax.scale_by_lbfgs(memory_size=4)), {"**/diff_*/**/kernel": P("data")})
    assert both["stacks/blocks/:/diff_params_memory/blocks/:/kernel"] == P(None, None, "data")  # layers, history, rows
    sums = ruled_specs(optax.sm3(1e-2), {"0/mu/**/kernel/1": P("data")})
    assert sums["0/mu/enc/kernel/1"] == sums["0/mu/blocks/:/kernel/1"] == P("data")
    rows = ruled_specs(OPTIMISERS["by layer"], {"**/{v_row,v_col}/**/kernel": P("data")})
    assert rows["stacks/blocks/:/0/v_row/blocks/:/kernel"] == P(None, "data")


def test_a_rule_for_slots_may_spell_the_axis_of_the_stack():
    spec = pt.Tree({"blocks": {":": {"w": pt.Param((4, 6, 8))}}})
    plan = shard.plan(spec, P(), ABSTRACT)

    def found(optimiser, path, rule, wanted=P("data", None, "model")):
        return shard.like(jax.eval_shape(optimiser.init, pt.abstract(spec)), plan, {rule: wanted})[path].spec

    by_layer = train.by_layer(optax.adam(1e-3))
    path = "stacks/blocks/:/0/mu/blocks/:/w"
    assert found(by_layer, path, "**/mu/blocks/:/w") == P("data", None, "model")
    assert found(by_layer, path, "stacks/blocks/:/0/mu/**") == P("data", None, "model")
    assert found(by_layer, path, "stacks/*/*/0/mu/**", P(None, "model")) == P(None, None, "model")
    lbfgs = optax.scale_by_lbfgs(memory_size=3)
    assert found(lbfgs, "diff_params_memory/blocks/:/w", "diff_params_memory/blocks/:/w") == P(
        None, "data", None, "model"
    )
    stacked = {"runs": {":": {"mu": {"w": jnp.ones((2, 8, 8))}}}}  # states in a stack, of a parameter that is in none
    alone = shard.plan({"w": pt.Param((8, 8))}, P("model"), ABSTRACT)
    assert shard.like(stacked, alone)["runs/:/mu/w"].spec == P(None, "model")
    assert shard.like(stacked, alone, {"**/w": P("data")})["runs/:/mu/w"].spec == P(None, "data")
    assert shard.like(stacked, alone, {"runs/:/mu/w": P("model", "data")})["runs/:/mu/w"].spec == P("model", "data")


def test_a_rule_for_a_slot_whose_axes_are_unclear_is_an_error():
    spec = pt.Tree({"blocks": {":": {"w": pt.Param((8, 8))}}})
    plan = shard.plan(spec, P(), ABSTRACT)
    state = {"sums": {"blocks": {":": {"w": jnp.ones(8)}}}}
    with pytest.raises(shard.ShardingError) as error:
        shard.like(pt.Tree(state), plan, {"sums/**": P("data")})
    assert str(error.value) == (
        f"the rule 'sums/**' gives 'sums/blocks/:/w', f32[8], {P('data')}, and it is unclear which axes of 'blocks/:/w', of shape"
        " (8, 8), it has: give it P() by a rule that comes before, or spell the stack ':' in the rule"
    )
    assert shard.like(pt.Tree(state), plan, {"sums/**": P()})["sums/blocks/:/w"].spec == P()
    assert shard.like(pt.Tree(state), plan, {"sums/blocks/:/w": P("data")})["sums/blocks/:/w"].spec == P("data")
    with pytest.raises(shard.ShardingError, match=r"The spec of a slot is for the axes of one layer of its parameter"):
        ruled_specs(optax.scale_by_lbfgs(memory_size=4), {"diff_params_memory/**/kernel": P(None, None, "data")})


# --------------------------------------------------------------------------------- in training


def test_jit_of_init_makes_slots_where_they_live():
    plan = shard.plan(SPEC, RULES, mesh())
    params = drawn(plan)
    optimiser = optax.adam(1e-3)
    alone = jax.jit(optimiser.init)(params)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(alone)} == {1}  # the trap
    planned = shard.like(jax.eval_shape(optimiser.init, params), plan)
    state = jax.jit(optimiser.init, out_shardings=planned.shardings)(params)
    assert all(leaf.sharding == planned[path] for path, leaf in pt.items(state))


@pytest.mark.parametrize("name", ["adamw", "adafactor", "groups"])
def test_a_step_by_hand_is_compiled_once_and_uses_the_memory_again(name):
    optimiser = OPTIMISERS[name]
    plan = shard.plan(SPEC, RULES, mesh())
    params = drawn(plan)
    slots = shard.like(jax.eval_shape(optimiser.init, params), plan)
    state = jax.jit(optimiser.init, out_shardings=slots.shardings)(params)

    def update(params, state, batch):
        updates, state = optimiser.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(update, donate_argnums=(0, 1), out_shardings=(plan.shardings, slots.shardings))
    data = jax.device_put(batch(), NamedSharding(mesh(), P("data")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that a donated buffer could not be used
        for _ in range(3):
            before = params, state
            params, state = step(params, state, data)
            # what the optimiser does not read, such as rows that it does not keep, is no argument of the program
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before[0]))
    assert step._cache_size() == 1
    assert all(leaf.sharding == slots[path] for path, leaf in pt.items(state))


TRAINED = [name for name in OPTIMISERS if name != "sm3"]  # which optax does not have for a single number


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_of_training_keeps_to_the_plan(name, kind):
    optimiser, devices = OPTIMISERS[name], mesh(kind)
    rules = RULES if kind == AxisType.Auto else {"**": P()}
    plan = shard.plan(SPEC, rules, devices)
    with jax.set_mesh(devices):
        step = train.step(loss, optimiser, ema=0.9)
        state = quietly(step.init, drawn(plan))
        planned = shard.like(state, plan)
        assert all(leaf.sharding == planned[path] for path, leaf in pt.items(state))
        data = jax.device_put(batch(), NamedSharding(devices, P("data")))
        for number in range(4):
            if number == 1:
                COMPILED.clear()
            before = state
            state, metrics = step(state, data)
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))
        assert not COMPILED
        assert all(leaf.sharding == planned[path] for path, leaf in pt.items(state))
    alone = train.step(loss, optimiser, ema=0.9)
    expected = quietly(alone.init, drawn())
    for _ in range(4):
        expected, of_one = alone(expected, batch())
    np.testing.assert_allclose(metrics.loss, of_one.loss, rtol=1e-5)
    for path, leaf in pt.items(expected.params):
        np.testing.assert_allclose(leaf, jax.device_get(state.params[path]), rtol=2e-5, atol=2e-5, err_msg=path)


def quietly(call, *args):
    with warnings.catch_warnings():  # that an optimiser sees a stack as one parameter
        warnings.simplefilter("ignore")
        return call(*args)


def test_moments_that_are_divided_where_parameters_are_not_train_the_same():
    plan = shard.plan(SPEC, P(), mesh())
    step = train.step(loss, optax.adam(1e-2))
    state = step.init(drawn(plan))
    zero = shard.like(state, plan, {"optimiser/**/{mu,nu}/**": P("data")}, otherwise="replicate")
    state = shard.place(state, zero)
    data = jax.device_put(batch(), NamedSharding(mesh(), P("data")))
    for number in range(4):
        if number == 1:
            COMPILED.clear()
        state, metrics = step(state, data)
    assert not COMPILED
    assert all(leaf.sharding == zero[path] for path, leaf in pt.items(state))
    alone = train.step(loss, optax.adam(1e-2))
    expected = alone.init(drawn())
    for _ in range(4):
        expected, of_one = alone(expected, batch())
    np.testing.assert_allclose(metrics.loss, of_one.loss, rtol=1e-5)


def test_a_batch_on_one_device_in_a_step_on_a_mesh_is_named():
    plan = shard.plan(SPEC, RULES, mesh())
    step = train.step(loss, optax.sgd(1e-2))
    state = step.init(drawn(plan))
    step(
        dataclasses.replace(state, params=jax.tree.map(jnp.copy, state.params)), batch()
    )  # JAX moves what is on no device yet
    alone = batch() | {"y": jax.device_put(batch()["y"], jax.devices()[3])}
    with pytest.raises(pt.StructureError) as error:
        step(step.init(drawn(plan)), alone)
    assert str(error.value).startswith(
        "the batch is on other devices than the state, which is on data=4, model=2 over the devices 0..7: 'y' is on the device 3."
    )
    assert "jax.device_put(batch, NamedSharding(mesh, P('data')))" in str(error.value)


def test_a_leaf_of_a_state_on_one_device_is_moved_to_the_others():
    plan = shard.plan(SPEC, RULES, mesh())
    step = train.step(loss, optax.sgd(1e-2))
    state = step.init(drawn(plan))
    moved = dataclasses.replace(state, step=jax.device_put(state.step, jax.devices()[2]))
    after, _ = step(moved, batch())
    assert after.step.sharding == NamedSharding(mesh(), P())


def test_a_whole_state_is_planned_before_anything_is_drawn():
    plan = shard.plan(SPEC, RULES, mesh())
    step = train.step(loss, optax.adam(1e-2), ema=0.9, scale=train.LossScale(8.0))
    shapes = jax.eval_shape(step.init, pt.abstract(SPEC))
    state = step.init(drawn(plan))
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    planned, expected = shard.like(shapes, plan), shard.like(state, plan)
    assert {leaf.path: leaf.sharding for leaf in planned.leaves} == {
        leaf.path: leaf.sharding for leaf in expected.leaves
    }
    assert planned.bytes_per_device == expected.bytes_per_device
    assert all(leaf.sharding == planned[path] for path, leaf in pt.items(state))
