"""The state of a whole run in a changed model: in memory and from checkpoints; groups, averages, loss scale, other optimisers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import train
from ptree.train import FROZEN, groups
from ptree.train._state import load_state

ADAM = optax.adam(1e-2)


def loss(params, x):
    return sum(jnp.square(leaf.astype(jnp.float32) * x).sum() for leaf in jax.tree.leaves(params))


def model(head=2):
    return pt.Tree({"embed": jnp.ones((4, 3)), "enc": {"kernel": jnp.ones((3, 3))}, "head": jnp.ones((3, head))})


def run(optimiser, params, steps, **options):
    step = train.step(loss, optimiser, **options)
    state = step.init(jax.tree.map(jnp.copy, params))
    for _ in range(steps):
        state, _ = step(state, 1.0)
    return step, state


def kept(state):
    return jax.tree.map(jnp.copy, state)


def saved(folder, state):
    checkpoints = pt.Checkpoints(folder)
    checkpoints.save(int(state.step), kept(state))
    checkpoints.wait()
    return checkpoints


def counts(state):
    cohorts = [cohort for found in state.optimiser.groups.values() for cohort in found]
    return {cohort.paths: int(optax.tree.get(cohort.state, "count")) for cohort in cohorts}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def refusal(call):
    with pytest.raises(pt.PtreeError) as raised:
        call()
    return str(raised.value)


def test_a_run_that_is_loaded_into_the_same_model_goes_on_bit_for_bit(tmp_path):
    step, state = run(groups({"embed": FROZEN, "**": ADAM}), model(), 2, ema=0.9)
    loaded, report = train.load_state(saved(tmp_path, state), model(), step)
    assert_same(loaded, state)
    assert report.kept == ("enc/kernel", "head")
    again, _ = step(loaded, 1.0)
    expected, _ = step(state, 1.0)
    assert_same(again, expected)


def test_other_groups_names_and_heads_in_one_load(tmp_path):
    _, state = run(groups({"embed": FROZEN, "**": ADAM}), model(), 3, ema=0.5)
    renames = {"enc/kernel": "encoder/kernel"}
    changed = pt.rename(model(head=5), renames)
    after = train.step(loss, groups({"**": ADAM}), ema=0.5)
    loaded, report = train.load_state(saved(tmp_path, state), changed, after, renames=renames, missing="keep")
    assert report.kept == ("encoder/kernel",)
    assert report.fresh == {
        "embed": "was not trained before",
        "head": "its shape is (3, 5) now, (3, 2) before",
    }
    assert counts(loaded) == {("encoder/kernel",): 3, ("embed", "head"): 0}
    assert loaded.params["encoder/kernel"].tolist() == state.params["enc/kernel"].tolist()
    assert loaded.params["head"].tolist() == model(head=5)["head"].tolist()
    assert loaded.ema["encoder/kernel"].tolist() == state.ema["enc/kernel"].tolist()
    assert loaded.ema["embed"].tolist() == model()["embed"].tolist()
    assert int(loaded.step) == 3
    after(loaded, 1.0)


def test_cohorts_that_joined_in_an_earlier_run(tmp_path):
    frozen, state = run(groups({"embed": FROZEN, "**": ADAM}), model(), 3)
    every = train.step(loss, groups({"**": ADAM}))
    state, _ = train.carry_state(state, state.params, every, before=frozen)
    state, _ = every(state, 1.0)
    assert counts(state) == {("enc/kernel", "head"): 4, ("embed",): 1}
    loaded, report = train.load_state(saved(tmp_path, state), model(), every)
    assert_same(loaded, state)
    assert not report.fresh


def test_plain_optimisers_dicts_averages_and_loss_scale(tmp_path):
    params = {"w": jnp.ones(3, jnp.float16), "n": jnp.arange(2)}
    step, state = run(ADAM, params, 2, ema=0.9, scale=train.LossScale())
    loaded, _ = train.load_state(saved(tmp_path, state), params, step)
    assert_same(loaded, state)
    without = train.step(loss, groups({"w": ADAM, "n": FROZEN}))
    carried, report = train.carry_state(state, state.params, without, before=step)
    assert (carried.ema, carried.scale, report.kept) == (None, None, ("w",))


def test_a_table_that_has_grown(tmp_path):
    step, state = run(groups({"**": ADAM}), model(), 2, ema=0.5)
    after = train.step(loss, groups({"**": ADAM}), ema=0.5)
    larger = train.resize(model(), {"embed": 6}, init=pt.initializers.constant(5), key=jax.random.key(0))
    loaded, report = train.load_state(saved(tmp_path, state), larger, after, before=step, resized="embed")
    assert not report.fresh
    assert loaded.params["embed"][:4].tolist() == state.params["embed"].tolist()
    assert loaded.params["embed"][4:].tolist() == [[5, 5, 5], [5, 5, 5]]
    assert loaded.ema["embed"][4:].tolist() == [[5, 5, 5], [5, 5, 5]]
    after(loaded, 1.0)


def test_a_checkpoint_of_other_groups(tmp_path):
    before, state = run(groups({"enc": ADAM, "**": FROZEN}), model(), 1)
    after = train.step(loss, groups({"**": ADAM}))
    checkpoints = saved(tmp_path, state)
    error = refusal(lambda: train.load_state(checkpoints, model(), after))
    assert "the checkpoint is of other groups" in error
    assert "groups/enc/0/state" in error
    loaded, report = train.load_state(checkpoints, model(), after, before=before)
    assert report.kept == ("enc/kernel",)
    assert counts(loaded) == {("enc/kernel",): 1, ("embed", "head"): 0}


def test_a_checkpoint_of_another_optimiser_or_of_something_else(tmp_path):
    step, state = run(ADAM, model(), 1)
    other = train.step(loss, optax.sgd(0.1, momentum=0.9))
    error = refusal(lambda: train.load_state(saved(tmp_path / "a", state), model(), other))
    assert "the state in the checkpoint is of another optimiser" in error
    assert "optimiser/0/mu/embed" in error
    checkpoints = pt.Checkpoints(tmp_path / "b")
    checkpoints.save(1, {"w": jnp.ones(2)})
    error = refusal(lambda: train.load_state(checkpoints, model(), step))
    assert error == "the checkpoint is no TrainState: expected 'params' and 'optimiser' in it, got Tree"


def test_parameters_that_the_file_does_not_have_are_refused_unless_they_may_stay(tmp_path):
    frozen = train.step(loss, train.groups({"encoder": FROZEN, "**": optax.adam(1e-3)}))
    state, _ = frozen(frozen.init(pt.Tree({"encoder": jnp.ones(3), "head": jnp.ones(2)})), 1.0)
    checkpoints = saved(tmp_path, state)
    renamed = train.step(loss, train.groups({"enc": FROZEN, "**": optax.adam(1e-3)}))
    like = pt.Tree({"enc": jnp.zeros(3), "head": jnp.zeros(2)})
    error = refusal(lambda: train.load_state(checkpoints, like, renamed, before=frozen))
    assert "'enc':" in error
    assert 'renames={"old": "new"}' in error
    loaded, _ = train.load_state(checkpoints, like, renamed, before=frozen, renames={"encoder": "enc"})
    assert loaded.params["enc"].tolist() == [1.0, 1.0, 1.0]
    kept, report = train.load_state(checkpoints, like, renamed, before=frozen, missing="keep")
    assert report.fresh == {"enc": "a new parameter"}
    assert kept.params["enc"].tolist() == [0.0, 0.0, 0.0]
    longer = pt.Tree({"encoder": jnp.zeros(4), "head": jnp.zeros(2)})
    assert "'encoder': its shape is (4,) now, (3,) before" in refusal(
        lambda: train.load_state(checkpoints, longer, frozen)
    )


def test_parameters_of_another_dtype_are_cast_if_that_is_said(tmp_path):
    step = train.step(loss, optax.sgd(1e-3))
    checkpoints = saved(tmp_path, step(step.init({"w": jnp.ones(3)}), 1.0)[0])
    like = {"w": jnp.ones(3, jnp.bfloat16)}
    assert "'w' is f32[3] in the file, and bf16[3] in `like`" in refusal(
        lambda: train.load_state(checkpoints, like, step)
    )
    loaded, _ = train.load_state(checkpoints, like, step, cast=True)
    assert loaded.params["w"].dtype == jnp.bfloat16


def test_a_run_is_read_to_where_the_parameters_of_the_changed_model_are(tmp_path, monkeypatch):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    rows = NamedSharding(mesh, P("d"))
    whole = NamedSharding(mesh, P())
    params = pt.Tree({"b": {":": {"w": jnp.ones((4, 8, 4))}}, "bias": jnp.ones(4)})
    step, state = run(optax.adam(0.1), params, 1, ema=0.9)
    checkpoints = saved(tmp_path, state)
    read: dict[str, object] = {}
    found = load_state._state_in_file

    def spied(file, *rest):
        read.update({path: leaf.sharding for path, leaf in pt.items(file)})
        return found(file, *rest)

    monkeypatch.setattr(load_state, "_state_in_file", spied)
    stacked = {
        "b": {":": {"w": jax.ShapeDtypeStruct((4, 8, 4), jnp.float32, sharding=NamedSharding(mesh, P(None, "d")))}}
    }
    like = pt.Tree({**stacked, "bias": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=rows)})
    loaded, _ = train.load_state(checkpoints, like, step)
    for name in ("params", "optimiser/0/mu", "optimiser/0/nu", "ema"):
        assert read[f"{name}/b/:/w"] == NamedSharding(mesh, P(None, "d"))
        assert read[f"{name}/bias"] == rows
    assert read["optimiser/0/count"] == read["step"] == whole
    assert {path: leaf.sharding for path, leaf in pt.items(loaded)} == read
    assert_same(jax.tree.map(np.asarray, loaded), jax.tree.map(np.asarray, state))
    layers = pt.Tree(
        {"b": {str(at): {"w": jax.device_put(jnp.ones((8, 4)), rows)} for at in range(4)}, "bias": jnp.ones(4)}
    )
    apart, _ = train.load_state(checkpoints, layers, step)
    assert read["params/b/:/w"].spec == read["optimiser/0/mu/b/:/w"].spec == P(None, "d")
    assert apart.params["b/2/w"].shape == apart.optimiser[0].mu["b/2/w"].shape == (8, 4)


def test_a_table_of_another_size_that_devices_do_not_divide_is_read_whole(tmp_path):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    rows = NamedSharding(mesh, P("d"))
    _, state = run(ADAM, {"table": jnp.ones((6, 2))}, 1)
    like = {"table": jax.device_put(jnp.zeros((8, 2)), rows)}
    after = train.step(loss, ADAM)
    loaded, _ = train.load_state(saved(tmp_path, state), like, after, resized="table")
    assert loaded.params["table"][:6].tolist() == state.params["table"].tolist()
    assert not loaded.params["table"][6:].any()
    assert loaded.optimiser[0].mu["table"].sharding == loaded.params["table"].sharding == rows
    after(loaded, 1.0)


def test_shapes_are_enough_for_what_the_file_has(tmp_path):
    step, state = run(groups({"**": ADAM}), model(), 1)
    checkpoints = saved(tmp_path, state)
    loaded, _ = train.load_state(checkpoints, jax.eval_shape(model), step)
    assert_same(loaded, state)
    error = refusal(lambda: train.load_state(checkpoints, jax.eval_shape(lambda: model(head=5)), step, missing="keep"))
    assert "'head' is not in the file, or not all of it, and a shape alone in `like`" in error
    assert "give state.params" in refusal(lambda: train.load_state(checkpoints, state, step))


def test_a_leaf_that_is_frozen_in_the_middle_keeps_its_average(tmp_path):
    every, state = run(groups({"**": optax.sgd(0.1)}), model(), 3, ema=0.5)
    average = np.asarray(state.averaged["embed"])
    frozen = train.step(loss, groups({"embed": FROZEN, "**": optax.sgd(0.1)}), ema=0.5)
    loaded, _ = train.load_state(saved(tmp_path, state), model(), frozen, before=every)
    carried, _ = train.carry_state(state, state.params, frozen, before=every)
    assert_same(loaded, carried)
    assert carried.averaged["embed"].tolist() == average.tolist()
    embed = np.asarray(state.params["embed"])
    carried, _ = frozen(carried, 1.0)
    np.testing.assert_allclose(carried.averaged["embed"], (average + embed) / 2, rtol=1e-6)
    _, state = run(groups({"**": optax.sgd(0.1)}), model(), 3, ema=0.5)
    state = dataclasses.replace(state, optimiser=carried.optimiser)  # without carry_state
    state, _ = frozen(state, 1.0)
    np.testing.assert_allclose(state.averaged["embed"], (average + embed) / 2, rtol=1e-6)


def test_a_checkpoint_of_other_groups_names_the_function_that_loads_it(tmp_path):
    _, state = run(groups({"embed": FROZEN, "**": ADAM}), model(), 1)
    every = train.step(loss, groups({"**": ADAM}))
    error = refusal(lambda: saved(tmp_path, state).load(like=every.init(model())))
    assert "missing in the file: ['optimiser/groups/**/0/state/0/mu/embed'" in error
    assert "ptree.train.load_state loads a run by path" in error
