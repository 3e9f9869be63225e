"""A step over eight devices: nothing drifts, it is compiled once, and its numbers are those of one device."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from processes import outputs

import ptree as pt
from ptree import nn, train

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


def loss(params, batch):
    hidden = jnp.tanh(batch["x"] @ params["enc"]["kernel"] + params["enc"]["bias"])
    return jnp.square(hidden @ params["head"]["kernel"] - batch["y"]).mean()


def params_and_batch():
    draw = np.random.default_rng(0)
    make = lambda *shape: draw.standard_normal(shape).astype(np.float32) / 4
    params = {"enc": {"kernel": make(8, 16), "bias": np.zeros(16, np.float32)}, "head": {"kernel": make(16, 4)}}
    return params, {"x": make(16, 8), "y": make(16, 4)}


LAYOUTS = {
    "replicated": {"**": P()},
    "replicated, spelled out": {"**/kernel": P(None, None), "**": P(None)},
    "fully sharded": {"**/kernel": P("data"), "**": P()},
    "tensor parallel": {"enc/kernel": P(None, "model"), "enc/bias": P("model"), "head/kernel": P("model", None)},
}


def placed(layout, devices=None):
    devices = mesh() if devices is None else devices
    params, batch = params_and_batch()
    specs = pt.label(params, layout)
    params = jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(devices, spec)), params, specs)
    return params, jax.device_put(batch, NamedSharding(devices, P("data")))


def compiled_after_the_first(step, state, batch, steps=4):
    """How many programs are compiled after the first step, and the state at the end."""
    COMPILED.clear()
    state, _ = step(state, batch)
    assert COMPILED
    COMPILED.clear()
    for _ in range(steps - 1):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics.loss)
    return len(COMPILED), state


@pytest.mark.parametrize("name", LAYOUTS)
def test_nothing_drifts_and_the_step_is_compiled_once(name):
    params, batch = placed(LAYOUTS[name])
    step = train.step(loss, optax.adamw(1e-2), ema=0.9, accumulate=2)
    state = step.init(params)
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    assert all(len(sharding.device_set) == 8 for sharding in before)  # counts and numbers of steps too
    count, state = compiled_after_the_first(step, state, batch)
    assert count == 0
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before
    plain, whole = params_and_batch()
    alone = train.step(loss, optax.adamw(1e-2), ema=0.9, accumulate=2)
    expected = alone.init(plain)
    for _ in range(4):
        expected, _ = alone(expected, whole)
    for path, leaf in pt.items(expected.params):
        np.testing.assert_allclose(leaf, pt.get(state.params, path), rtol=2e-5, atol=2e-6, err_msg=path)


@pytest.mark.parametrize(
    "optimiser", [optax.adafactor(1e-2), optax.sm3(1e-2), optax.contrib.muon(1e-2)], ids=["adafactor", "sm3", "muon"]
)
def test_slots_of_other_shapes_stay_where_they_are(optimiser):
    params, batch = placed(LAYOUTS["fully sharded"])
    step = train.step(loss, optimiser)
    state = step.init(params)
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    count, state = compiled_after_the_first(step, state, batch, steps=3)
    assert count == 0
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before


def test_a_history_of_parameters_is_divided_as_they_are():
    params, _ = placed(LAYOUTS["tensor parallel"])
    step = train.step(loss, optax.lbfgs(memory_size=3))
    state = step.init(params)
    found = {path: leaf.sharding.spec for path, leaf in pt.items(state.optimiser, "**/diff_params_memory/**")}
    assert {path.split("/memory/")[-1].split("diff_params_memory/")[-1]: spec for path, spec in found.items()} == {
        "enc/kernel": P(None, None, "model"),
        "enc/bias": P(None, "model"),
        "head/kernel": P(None, "model"),
    }


def test_an_array_at_two_paths_is_put_on_the_devices_twice_and_donated():
    devices = mesh()
    shared, batch = jnp.ones((8, 4)), jax.device_put(jnp.ones((8, 4)), NamedSharding(devices, P("data")))
    spread = jax.device_put(jnp.ones((8, 4)), NamedSharding(devices, P("data")))
    everywhere = jax.device_put(jnp.ones((8, 4)), NamedSharding(devices, P()))
    first_part = everywhere.addressable_shards[0].data
    loss = lambda params, x: sum(jnp.square(leaf * x).sum() for leaf in params.values())
    for params in (
        {"a": shared, "b": shared, "spread": spread},  # JAX stops the whole process if a buffer is donated twice
        {"a": everywhere, "b": first_part, "spread": jnp.copy(spread)},
    ):
        step = train.step(loss, optax.sgd(0.1))
        state = step.init(params)
        for _ in range(2):
            state, _ = step(state, batch)
        for leaf in state.params.values():
            np.testing.assert_allclose(leaf, np.full((8, 4), 0.64), rtol=1e-6)


def test_one_device_is_compiled_once_whether_arrays_are_bound_to_it_or_not():
    params, batch = params_and_batch()
    for where in (jnp.asarray, lambda leaf: jax.device_put(leaf, jax.devices()[0])):
        step = train.step(loss, optax.adamw(1e-2))
        state = step.init(jax.tree.map(where, params))
        count, _ = compiled_after_the_first(step, state, batch)
        assert count == 0


def test_two_spellings_of_a_sharding_are_one_program():
    params, batch = placed(LAYOUTS["replicated"])
    spelled, _ = placed(LAYOUTS["replicated, spelled out"])
    step = train.step(loss, optax.sgd(1e-2))
    state, _ = step(step.init(params), batch)
    COMPILED.clear()
    step(dataclasses.replace(state, params=spelled), batch)  # without a warning that it is compiled again
    assert not COMPILED


ONE = {
    "a device that is not the first": lambda: jax.devices()[3],
    "a mesh of one": lambda: NamedSharding(jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",)), P("data")),
    "a mesh of one that is not the first": lambda: NamedSharding(
        jax.sharding.Mesh(np.array(jax.devices()[3:4]), ("data",)), P("data")
    ),
}


@pytest.mark.parametrize("name", ONE)
def test_counts_follow_parameters_that_are_on_one_device(name):
    params, batch = params_and_batch()
    there = jax.tree.map(lambda leaf: jax.device_put(leaf, ONE[name]()), params)
    kind = type(there["head"]["kernel"].sharding)
    step = train.step(loss, optax.adamw(1e-2), ema=0.9)
    state = step.init(there, key=jax.random.key(0))
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    assert len({frozenset(sharding.device_set) for sharding in before}) == 1
    assert {type(sharding) for sharding in before} == {kind}
    count, state = compiled_after_the_first(step, state, batch)
    assert count == 0
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before
    alone = train.step(loss, optax.adamw(1e-2), ema=0.9)
    expected = alone.init(params)
    for _ in range(4):
        expected, _ = alone(expected, batch)
    np.testing.assert_allclose(state.params["head"]["kernel"], expected.params["head"]["kernel"], rtol=1e-5)


def test_a_state_whose_parameters_were_moved_to_another_device_follows_them():
    params, batch = params_and_batch()
    step = train.step(loss, optax.adamw(1e-2))
    state = step.init(params)
    step(state, batch)
    state = step.init(params)
    moved = dataclasses.replace(state, params=jax.device_put(state.params, jax.devices()[5]))
    with pytest.warns(UserWarning, match="compiled again"):
        after, _ = step(moved, batch)
    assert {device.id for leaf in jax.tree.leaves(after) for device in leaf.devices()} == {5}


def refusal(call, *args):
    with pytest.raises(pt.StructureError) as error:
        call(*args)
    return str(error.value)


def test_parameters_on_different_meshes_or_devices_are_refused_by_path():
    params, batch = placed(LAYOUTS["fully sharded"])
    turned = jax.sharding.Mesh(np.array(jax.devices()[::-1]), ("z",))
    first_four = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("z",))
    step = train.step(loss, optax.adam(1e-2))
    for other, text in (
        (turned, "z=8 over the devices 7, 6, 5, 4, 3, 2, 1, 0"),
        (first_four, "z=4 over the devices 0..3"),
    ):
        head = jax.device_put(params["head"], NamedSharding(other, P("z")))
        assert refusal(step.init, params | {"head": head}) == (
            "the parameters are on different devices: 'enc/bias' is on data=4, model=2 over the devices 0..7, but 'head/kernel' is on"
            f" {text}. Put all of them on the same: ptree.shard.place(params, ptree.shard.plan(params, rules, mesh))"
        )
        state = step.init(jax.tree.map(jnp.copy, params))
        moved = dataclasses.replace(state, params=jax.device_put(state.params, NamedSharding(other, P())))
        text_of_state = refusal(step, moved, batch)
        assert text_of_state.startswith("the parts of the state are on different devices: 'params/enc/bias' is on z=")
        assert "'optimiser/0/mu/enc/bias' is on data=4, model=2 over the devices 0..7" in text_of_state
        assert "shard.place(state, shard.like(state, plan))" in text_of_state
    whole, _ = params_and_batch()
    alone = jax.device_put(whole, jax.devices()[2]) | {"enc": jax.device_put(whole["enc"], jax.devices()[4])}
    assert refusal(step.init, alone) == (
        "the parameters are on different devices: 'enc/bias' is on the device 4, but 'head/kernel' is on the device 2."
        " Put all of them on the same: jax.device_put(params, device)"
    )
    # the same devices in the same order are one place, whatever the axes are called
    line = jax.sharding.Mesh(np.array(jax.devices()), ("z",))
    step.init(params | {"head": jax.device_put(params["head"], NamedSharding(line, P("z")))})


def test_a_batch_on_the_devices_in_another_order_is_refused_before_it_is_compiled():
    params, batch = placed(LAYOUTS["fully sharded"])
    turned = NamedSharding(jax.sharding.Mesh(np.array(jax.devices()[::-1]), ("z",)), P("z"))
    step = train.step(loss, optax.adam(1e-2))
    state = step.init(params)
    COMPILED.clear()
    assert refusal(step, state, batch | {"x": jax.device_put(batch["x"], turned)}) == (
        "the batch is on other devices than the state, which is on data=4, model=2 over the devices 0..7: 'x' is on z=8 over the devices"
        " 7, 6, 5, 4, 3, 2, 1, 0. Divide its rows over the same mesh: jax.device_put(batch, NamedSharding(mesh, P('data')))"
    )
    square = train.step(lambda params, x: jnp.square(x @ params["w"]).mean(), optax.sgd(0.1))
    state = square.init({"w": jax.device_put(jnp.ones((8, 2)), jax.devices()[3])})
    assert refusal(square, state, jax.device_put(jnp.ones((8, 8)), turned)) == (
        "the batch is on other devices than the state, which is on the device 3: the array is on z=8 over the devices"
        " 7, 6, 5, 4, 3, 2, 1, 0. Put it there, jax.device_put(batch, device), or the parameters on its mesh: ptree.shard.place(params, plan)"
    )
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def test_parameters_in_the_memory_of_the_host_are_named():
    where = NamedSharding(mesh(), P("data"))
    x = jax.device_put(jnp.ones((8, 8)), where)
    params = lambda: {"w": jax.device_put(jnp.ones((8, 4)), where.with_memory_kind("pinned_host")), "b": jnp.zeros(4)}
    step = train.step(lambda params, x: jnp.square(x @ params["w"] + params["b"]).mean(), optax.sgd(0.1))
    text = refusal(step, step.init(params()), x)
    assert text.startswith(
        "the step computes with leaves that are not in the memory of their devices: in pinned_host ['params/w']. Move what is trained"
    )
    step = train.step(lambda params, x: jnp.square(x @ params["w"][:, :3] + params["b"]).mean(), optax.sgd(0.1))
    with pytest.raises((TypeError, ValueError), match="shape"):  # another mistake is left as it is
        step(step.init(jax.tree.map(lambda leaf: jax.device_put(leaf, where.update(spec=P())), params())), x)


if jax.__version_info__ >= (0, 10):  # XLA of JAX 0.9 cannot run such a function on CPUs

    def test_a_loss_may_move_frozen_leaves_from_the_memory_of_the_host():
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        alone = {"w": jax.device_put(jnp.ones((8, 4)), here.with_memory_kind("pinned_host")), "b": jnp.zeros(4)}
        moving = lambda params, x: jnp.square(x @ jax.device_put(params["w"], here) + params["b"]).mean()
        step = train.step(moving, train.groups({"w": train.FROZEN, "**": optax.sgd(0.1)}))
        state, metrics = step(step.init(alone), jnp.ones((8, 8)))
        assert float(metrics.loss) == 64
        assert state.params["w"].sharding.memory_kind == "pinned_host"


PROCESS = """
import jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree import train

assert (jax.process_count(), jax.device_count(), len(jax.local_devices())) == (2, 8, 4)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

def spread(array, spec):
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])

def loss(params, x, key):
    return jnp.square(x @ params["w"] + params["b"] - jax.random.uniform(key)).mean()

w, x = np.arange(16, dtype="float32").reshape(8, 2) / 10, np.linspace(0, 1, 128, dtype="float32").reshape(16, 8)
def losses(params, x):
    step = train.step(loss, optax.adamw(1e-2), accumulate=2, ema=0.9, scale=train.LossScale(8.0))
    state = step.init(params, key=jax.random.key(0))
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    found = []
    for _ in range(3):
        state, metrics = step(state, x)
        found.append(float(metrics.loss))
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before
    return found

expected = losses({"w": w, "b": np.zeros(2, "float32")}, x)
for spec in (P("data"), P(None, None)):
    np.testing.assert_allclose(losses({"w": spread(w, spec), "b": np.zeros(2, "float32")}, spread(x, P("data"))), expected, rtol=1e-5)
print("done")
"""


def test_two_processes_take_the_steps_of_one():
    for printed in outputs(PROCESS):
        assert printed.endswith("done\n")


def test_microbatches_of_a_divided_batch_are_gathered_from_nowhere():
    params, batch = placed(LAYOUTS["replicated"])
    step = train.step(loss, optax.sgd(1e-2), accumulate=4)
    text = jax.jit(step.pure).lower(step.init(params), batch).compile().as_text()
    assert re.findall(r"(all-gather|all-to-all|collective-permute)[.\d]*\(", text) == []
    assert "all-reduce" in text


def test_a_step_over_explicit_axes_takes_the_steps_of_one_device():
    devices = mesh(AxisType.Explicit)
    params, batch = placed(LAYOUTS["replicated"], devices)
    plain, whole = params_and_batch()
    for count in (1, 2):
        with jax.set_mesh(devices):
            step = train.step(loss, optax.adamw(1e-2), accumulate=count)
            programs, state = compiled_after_the_first(step, step.init(jax.tree.map(jnp.copy, params)), batch, steps=3)
        alone = train.step(loss, optax.adamw(1e-2), accumulate=count)
        expected = alone.init(jax.tree.map(jnp.asarray, plain))
        for _ in range(3):
            expected, _ = alone(expected, whole)
        np.testing.assert_allclose(
            jax.device_get(state.params["enc"]["kernel"]), expected.params["enc"]["kernel"], rtol=2e-5, atol=2e-6
        )
        assert programs == 0


def test_a_stack_with_layers_by_rules_over_devices():
    net = nn.Repeat(nn.Residual(nn.Dense(16)), 3)
    x = jnp.ones((16, 16))
    params = pt.init(net.spec(x), jax.random.key(0), shardings={"**/kernel": P("model"), "**": P()}, mesh=mesh())
    rules = train.groups({"**/bias": train.FROZEN, "**": optax.adamw(1e-2)})
    step = train.step(lambda params, x: jnp.square(net(params, x)).mean(), rules)
    state = step.init(params)
    kernel = state.params[":/inner/kernel"].sharding
    count, state = compiled_after_the_first(step, state, jax.device_put(x, NamedSharding(mesh(), P("data"))), steps=3)
    assert count == 0
    assert [leaf.sharding for _, leaf in pt.items(state.optimiser, "**/mu/**")] == [kernel]
