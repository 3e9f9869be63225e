"""Loss scaling for float16: it backs off and grows as in PyTorch, and a step that is skipped changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import train


def half_loss(params, x):
    """Its gradient in float16 is infinite where x times the scale is 65520 or more, and 0 where it is below 3e-8."""
    return (params["w"].astype(jnp.float16) * x).sum().astype(jnp.float32)


def test_scale_and_skipped_steps_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    inputs = [2.0, 8.0, 1.0, 1.0, 1.0, 300.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    step = train.step(half_loss, optax.sgd(0.01), scale=train.LossScale(2.0**15, every=3))
    state = step.init({"w": jnp.zeros(1)})
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=3)
    w = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([w], 0.01)
    for x in inputs:
        optimiser.zero_grad()
        scaler.scale((w.half() * torch.tensor([x], dtype=torch.float16)).sum().float()).backward()
        scaler.step(optimiser)
        scaler.update()
        state, _ = step(state, jnp.float16([x]))
        assert float(state.scale.value) == scaler.get_scale(), x
        np.testing.assert_allclose(state.params["w"], w.detach().numpy(), rtol=1e-6)
    assert int(state.scale.skipped) > 2
    assert int(state.step) == len(inputs)


def test_a_skipped_step_changes_no_bit_of_parameters_slots_and_average():
    step = train.step(half_loss, optax.adamw(0.1), scale=train.LossScale(2.0**15), ema=0.9)
    state, _ = step(step.init({"w": jnp.float32([1, 2])}), jnp.float16([0.5, 1]))
    before = jax.tree.map(np.array, (state.params, state.optimiser, state.ema))
    state, metrics = step(state, jnp.float16([30000, 1]))
    assert bool(metrics.skipped)
    after = (state.params, state.optimiser, state.ema)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    assert int(state.optimiser[0].count) == 1
    assert int(state.step) == 2  # which counts batches: the next one has another key
    state, metrics = step(state, jnp.float16([1, 1]))
    assert not bool(metrics.skipped)
    assert int(state.optimiser[0].count) == 2


def test_small_gradients_are_not_lost_and_the_loss_is_told_without_the_scale():
    x = jnp.float16([1e-7])  # 0 in float16 after any factor below one half
    loss = lambda params, x: half_loss(params, x) / 1024
    small = train.step(loss, optax.sgd(1.0))
    scaled = train.step(loss, optax.sgd(1.0), scale=train.LossScale())
    lost, _ = small(small.init({"w": jnp.zeros(1)}), x)
    kept, metrics = scaled(scaled.init({"w": jnp.zeros(1)}), x)
    assert float(lost.params["w"][0]) == 0
    np.testing.assert_allclose(kept.params["w"], -np.float32(x) / 1024, rtol=1e-2)
    assert float(metrics.loss) == 0


def test_parameters_in_float16_have_slots_in_float32():
    loss = lambda params, x: (params["w"] * x).sum()
    step = train.step(loss, optax.adam(1e-3), scale=train.LossScale(2.0**12))
    state = step.init({"w": jnp.ones(2, jnp.float16)})
    for _ in range(2):
        state, _ = step(state, jnp.float16([1e-3, 1e-4]))
    assert state.params["w"].dtype == jnp.float16
    assert state.optimiser[0].nu["w"].dtype == jnp.float32
    # the square of a gradient of 1e-4 is 0 in float16
    np.testing.assert_allclose(state.optimiser[0].nu["w"], (1 - 0.999**2) * np.float32([1e-6, 1e-8]), rtol=1e-2)


def test_microbatches_share_one_scale_and_one_decision():
    step = train.step(half_loss, optax.sgd(1.0), accumulate=2, scale=train.LossScale(2.0**15))
    state = step.init({"w": jnp.zeros(1)})
    state, metrics = step(state, jnp.float16([1.0, 30000.0]))
    assert bool(metrics.skipped)
    assert float(state.params["w"][0]) == 0
    state, metrics = step(state, jnp.float16([1.0, 2.0]))
    assert not bool(metrics.skipped)
    assert float(state.params["w"][0]) == -1.5


def test_gradients_of_zero_do_not_drive_the_scale_to_infinity_and_it_never_falls_below_the_least():
    step = train.step(half_loss, optax.sgd(1.0), scale=train.LossScale(4.0, every=1, least=2.0, most=16.0))
    state = step.init({"w": jnp.zeros(1)})
    scales = []
    for x in [0] * 4 + [65504] * 5:
        state, _ = step(state, jnp.float16([x]))
        scales.append(float(state.scale.value))
    assert scales == [8, 16, 16, 16, 8, 4, 2, 2, 2]


def test_frozen_leaves_and_an_optimiser_of_groups():
    rules = train.groups({"base": train.FROZEN, "**": optax.adam(0.1)}, clip=1.0)
    loss = lambda params, x: (
        (params["base"].astype(jnp.float16) * params["w"].astype(jnp.float16) * x).sum().astype(jnp.float32)
    )
    step = train.step(loss, rules, scale=train.LossScale(2.0**15))
    state, metrics = step(step.init({"base": jnp.ones(1), "w": jnp.ones(1)}), jnp.float16([4]))
    assert bool(metrics.skipped)
    state, metrics = step(state, jnp.float16([1]))
    assert not bool(metrics.skipped)
    np.testing.assert_allclose(state.params["w"], [0.9], rtol=1e-5)


def test_a_scale_that_begins_in_the_middle():
    plain, scaled = (
        train.step(half_loss, optax.sgd(1.0)),
        train.step(half_loss, optax.sgd(1.0), scale=train.LossScale(8.0)),
    )
    state, _ = plain(plain.init({"w": jnp.zeros(1)}), jnp.float16([1]))
    state, metrics = scaled(state, jnp.float16([1]))
    assert (float(state.scale.value), bool(metrics.skipped)) == (8, False)
    with pytest.raises(pt.StructureError, match=r"has a loss scale, and the step none.*replace\(state, scale=None\)"):
        plain(state, jnp.float16([1]))


def test_scales_that_cannot_be():
    with pytest.raises(TypeError, match=r"step\(scale=\): expected ptree.train.LossScale\(\), got 1024.0"):
        train.step(half_loss, optax.sgd(1.0), scale=1024.0)
    for options in (
        {"initial": 0},
        {"least": 4, "initial": 2},
        {"every": 0},
        {"growth": 0.5},
        {"backoff": 2},
        {"most": float("inf")},
    ):
        with pytest.raises(ValueError, match="LossScale"):
            train.LossScale(**options)
    with pytest.raises(TypeError, match=r"LossScale\(growth=\): expected a number, got '2'"):
        train.LossScale(growth="2")


@pytest.mark.parametrize("make", [lambda: optax.adafactor(0.1), optax.lbfgs], ids=["adafactor", "lbfgs"])
def test_an_optimiser_that_keeps_the_dtypes_of_16_bit_parameters_says_the_way_out(make):
    loss = lambda params, x: (params["w"].astype(jnp.float16) ** 2 * x).sum()
    step = train.step(loss, make(), scale=train.LossScale(8.0))
    with pytest.raises(pt.StructureError, match=r"parameters \['w'\].*Keep the parameters in float32, and cast inside"):
        step(step.init({"w": jnp.ones((2, 2), jnp.float16)}), jnp.float16(1))
    state, _ = step(step.init({"w": jnp.ones((2, 2), jnp.float32)}), jnp.float16(1))
    assert bool((state.params["w"] < 1).all())
