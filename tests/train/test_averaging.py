"""The moving average of parameters: in float32, apart in memory, of what is trained, beside PyTorch's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import train


def pull(params, target):
    return sum(jnp.square(leaf.astype(jnp.float32) - target).sum() for leaf in jax.tree.leaves(params))


def run(step, state, count, target=1.0):
    for _ in range(count):
        state, _ = step(state, jnp.float32(target))
    return state


def test_the_average_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    step = train.step(pull, optax.sgd(0.1), ema=0.8)
    state = step.init({"w": jnp.float32([3, -1])})
    module = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        module.weight[:] = torch.tensor([[3.0], [-1.0]])
    averages = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8))
    averages.update_parameters(module)  # the first call copies; there is no correction of a bias
    optimiser = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(6):
        optimiser.zero_grad()
        ((module.weight - 1) ** 2).sum().backward()
        optimiser.step()
        averages.update_parameters(module)
        state = run(step, state, 1)
        np.testing.assert_allclose(state.ema["w"], averages.module.weight.detach().numpy()[:, 0], rtol=1e-6)


def test_an_average_of_bfloat16_goes_all_the_way():
    frozen_at_one = train.step(lambda params, x: (params["w"] * 0).sum(), optax.sgd(0.0), ema=0.999)
    state = frozen_at_one.init({"w": jnp.zeros((), jnp.bfloat16)})
    state = dataclasses.replace(state, params={"w": jnp.ones((), jnp.bfloat16)})
    naive = jnp.zeros((), jnp.bfloat16)
    for _ in range(2000):
        naive = naive * 0.999 + jnp.bfloat16(1) * (1 - 0.999)
    assert float(naive) == 0.5
    state = jax.lax.fori_loop(0, 2000, lambda _, state: frozen_at_one.pure(state, 0.0)[0], state)
    assert state.ema["w"].dtype == jnp.float32
    np.testing.assert_allclose(state.ema["w"], 1 - 0.999**2000, rtol=1e-4)
    assert state.averaged["w"].dtype == jnp.bfloat16


def test_the_average_is_no_second_name_of_the_parameters():
    params = {"w": jnp.ones(3), "half": jnp.ones(2, jnp.bfloat16)}
    step = train.step(pull, optax.sgd(0.1), ema=0.9)
    state = step.init(params)
    assert state.ema["w"].unsafe_buffer_pointer() != state.params["w"].unsafe_buffer_pointer()
    state = run(step, state, 2, 0.0)
    assert float(state.params["w"][0]) < float(state.ema["w"][0]) < 1


def test_a_function_gives_the_decay_of_each_step():
    debiased = lambda step: (
        0.9 * (1 - 0.9**step) / (1 - 0.9 ** (step + 1))
    )  # without the start: only values after steps
    step = train.step(pull, optax.sgd(0.1), ema=debiased)
    state = step.init({"w": jnp.float32(5)})
    values, expected = [], 0.0
    for at in range(5):
        state = run(step, state, 1)
        values.append(float(state.params["w"]))
        weights = 0.9 ** np.arange(at, -1, -1)
        expected = (weights * values).sum() / weights.sum()
        np.testing.assert_allclose(state.ema["w"], expected, rtol=1e-5)


def test_only_what_is_trained_has_an_average_and_all_are_read():
    rules = train.groups({"base": train.FROZEN, "**": optax.sgd(0.1)})
    step = train.step(pull, rules, ema=0.5)
    state = run(step, step.init(pt.Tree({"base": {"w": jnp.ones(4)}, "head": {"w": jnp.zeros(2)}})), 1, 2.0)
    assert pt.paths(state.ema) == ["head/w"]
    assert state.averaged["base/w"] is state.params["base/w"]
    np.testing.assert_allclose(state.averaged["head/w"], 0.5 * state.params["head/w"])
    assert jax.tree.structure(state.averaged) == jax.tree.structure(state.params)


def test_a_leaf_that_is_trained_later_begins_its_average_at_its_value():
    params = {"base": jnp.ones(2), "head": jnp.zeros(2)}
    before = train.step(pull, train.groups({"base": train.FROZEN, "**": optax.sgd(0.1)}), ema=0.5)
    state = run(before, before.init(params), 2, 3.0)
    after = train.step(pull, train.groups({"**": optax.sgd(0.1)}), ema=0.5)
    head = state.ema["head"].tolist()
    unfrozen = dataclasses.replace(state, optimiser=after.pure.optimiser.init(state.params))
    state = run(after, unfrozen, 1, 3.0)
    np.testing.assert_allclose(state.ema["base"], 0.5 * 1 + 0.5 * state.params["base"])
    np.testing.assert_allclose(state.ema["head"], 0.5 * np.array(head) + 0.5 * state.params["head"], rtol=1e-6)


def test_an_average_that_begins_or_ends_in_the_middle():
    plain, averaging = train.step(pull, optax.sgd(0.1)), train.step(pull, optax.sgd(0.1), ema=0.5)
    state = run(plain, plain.init({"w": jnp.zeros(2)}), 1)
    with pytest.raises(pt.StructureError, match=r"no moving average. Make the step with one: step\(..., ema=0.999\)"):
        state.averaged
    value = float(state.params["w"][0])
    state = run(averaging, state, 1)
    np.testing.assert_allclose(state.ema["w"], 0.5 * value + 0.5 * state.params["w"], rtol=1e-6)
    with pytest.raises(pt.StructureError, match=r"has a moving average, and the step none.*replace\(state, ema=None\)"):
        plain(state, jnp.float32(1))
    plain(dataclasses.replace(state, ema=None), jnp.float32(1))


def test_decays_that_cannot_be():
    for decay, error in (
        (1.0, ValueError),
        (-0.1, ValueError),
        (float("nan"), ValueError),
        ("0.9", TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match=r"expected a decay.*ema=0.999"):
            train.step(pull, optax.sgd(0.1), ema=decay)


def test_the_averaged_parameters_stay_valid_and_can_be_trained_on():
    step = train.step(lambda params, x: jnp.square(params["w"] - x).mean(), optax.adam(0.1), ema=0.9)
    state = step.init({"w": jnp.zeros(3)})
    state, _ = step(state, 1.0)
    averaged = state.averaged
    state, _ = step(state, 1.0)
    assert np.isfinite(averaged["w"]).all()
    state, _ = step(dataclasses.replace(state, params=state.averaged), 1.0)
    shared = dataclasses.replace(state, params=state.ema)
    state, _ = step(shared, 1.0)
    assert int(state.step) == 4


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize("node", [None, {}, [], ()], ids=repr)
def test_nodes_without_leaves_stay_in_the_averaged_parameters(node, is_frozen, tmp_path):
    make = lambda: {"a": jnp.ones(3), "b": jnp.ones(2), "without": node}
    rules = {"a": train.FROZEN} if is_frozen else {}
    loss = lambda params, x: params["a"].sum() + (params["b"].sum() * x).mean()
    step = train.step(loss, train.groups({**rules, "**": optax.sgd(0.1)}), accumulate=2, ema=0.5)
    state = step.init(make())
    before = jax.tree.structure(state)
    for _ in range(2):
        state, _ = step(state, jnp.ones(2))
    assert is_frozen or jax.tree.structure(state) == before
    assert jax.tree.structure(state.averaged) == jax.tree.structure(make())
    np.testing.assert_array_equal(state.averaged["b"], state.ema["b"])
    carried, _ = train.carry_state(state, make(), step)
    assert jax.tree.structure(carried.averaged) == jax.tree.structure(make())
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        loaded, report = train.load_state(checkpoints, make(), step)
    assert not report.fresh
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    np.testing.assert_array_equal(loaded.averaged["b"], state.averaged["b"])
