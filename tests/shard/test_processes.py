"""Two processes of four devices each: every layout trains as one device does; runs go on elsewhere, and after a process was killed.

The model and its layouts are those of `examples/10_many_devices.py`.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from processes import outputs, started
from trees import equal

import ptree as pt

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

EXAMPLE = Path(__file__).parents[2] / "examples" / "10_many_devices.py"
LAYOUTS = ("dp", "fsdp", "tp", "2d")

LOAD = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("example", {str(EXAMPLE)!r})
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)
assert (jax.process_count(), jax.device_count(), len(jax.local_devices())) == (2, 8, 4)
"""


def load_example():
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load_example()


@pytest.fixture(scope="module")
def expected(example, tmp_path_factory):
    """The losses of 20 steps on one device."""
    return example.run("dp", tmp_path_factory.mktemp("alone"), 20, jax.devices()[:1])


def same(losses, expected):
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)


EVERY_LAYOUT = (
    LOAD
    + """
import json
folder, *layouts = arguments
losses = {layout: example.run(layout, f"{folder}/{layout}", 20, jax.devices()) for layout in layouts}
print(json.dumps(losses))
"""
)


def test_two_processes_train_every_layout_as_one_device(tmp_path, expected):
    for printed in outputs(EVERY_LAYOUT, tmp_path, *LAYOUTS):
        found = json.loads(printed.splitlines()[-1])
        assert [*found] == [*LAYOUTS]
        for losses in found.values():
            same(losses, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_eight_devices_train_every_layout_as_one(layout, tmp_path, example, expected):
    same(example.run(layout, tmp_path, 20, jax.devices()), expected)


@pytest.mark.parametrize(("folder", "code"), [("run", 0), ("file", 1)])
def test_the_launcher_of_the_example_ends_with_its_processes(folder, code, tmp_path):
    (tmp_path / "file").write_text("no folder of checkpoints")
    options = ["--layout", "2d", "--devices", "1", "--until", "1", "--folder", str(tmp_path / folder)]
    apart = os.environ | {"PYTHONPATH": str(EXAMPLE.parents[1])}
    run = subprocess.run([sys.executable, EXAMPLE, *options], env=apart, capture_output=True, text=True, timeout=200)
    assert run.returncode == code, run.stderr
    if code:
        assert "processes that failed, and their exit codes: {" in run.stderr
    else:
        assert run.stdout.startswith("2d: <Plan of 20 leaves on data=1, model=2: ")
        assert pt.Checkpoints(tmp_path / "run").steps() == [1]


# ------------------------------------------------------------------------------- from one layout to another

ONE_LAYOUT = (
    LOAD
    + """
import json
folder, layout, until = arguments
print(json.dumps(example.run(layout, folder, int(until), jax.devices())))
"""
)


def test_a_run_goes_on_in_other_layouts_and_numbers_of_processes(tmp_path, example, expected):
    losses = example.run("fsdp", tmp_path, 5, jax.devices())
    first, second = outputs(ONE_LAYOUT, tmp_path, "tp", 10)
    assert first.splitlines()[-1] == second.splitlines()[-1]
    losses += json.loads(first.splitlines()[-1])
    losses += example.run("2d", tmp_path, 15, jax.devices()[:4])
    losses += example.run("dp", tmp_path, 20, jax.devices()[:1])
    same(losses, expected)


FILES = """
import os, numpy as np, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P

folder = arguments[0]
mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
rules = {"layers/*/kernel": P("model", "data"), "**": P()}
whole = np.arange(3 * 16 * 8, dtype="float32").reshape(3, 16, 8)

def check(tree, spec):
    kernel = tree["layers/:/kernel"]
    assert kernel.sharding.is_equivalent_to(NamedSharding(mesh, spec), 3), kernel.sharding
    for shard in kernel.addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])

spread = pt.load(folder + "/one.safetensors", shardings=rules, mesh=mesh)  # a file of one process
check(spread, P(None, "model", "data"))
step, state = pt.Checkpoints(folder + "/run").load(like=spread)  # steps of one process
assert step == 7
check(state, P(None, "model", "data"))
with pt.Checkpoints(folder + "/spread", backend="orbax") as checkpoints:
    checkpoints.save(8, spread)
step, columns = pt.Checkpoints(folder + "/spread").load(shardings={"layers/*/kernel": P(None, "model"), "**": P()}, mesh=mesh)
assert step == 8
check(columns, P(None, None, "model"))
everywhere = pt.load(folder + "/one.safetensors", shardings=P(), mesh=mesh)  # each process has it whole
if rank == 0:
    pt.save(folder + "/two.safetensors", everywhere)
with pt.Checkpoints(folder + "/run", keep=1) as checkpoints:
    checkpoints.save(9, everywhere)
print("done")
"""


def test_files_and_checkpoints_go_from_one_process_to_two_and_back(tmp_path):
    devices = jax.make_mesh((8,), ("all",), axis_types=(jax.sharding.AxisType.Auto,))
    kernel = np.arange(3 * 16 * 8, dtype="float32").reshape(3, 16, 8)
    layers = [{"kernel": jnp.asarray(layer), "bias": jnp.ones(3)} for layer in kernel]
    tree = pt.stacks.stack(pt.Tree({"layers": layers, "key": jax.random.key(3)}), "layers")
    tree = pt.set(
        tree, "layers/:/kernel", jax.device_put(tree["layers/:/kernel"], NamedSharding(devices, P(None, "all")))
    )
    pt.save(tmp_path / "one.safetensors", tree)
    with pt.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(7, tree)
    for printed in outputs(FILES, tmp_path):
        assert printed.endswith("done\n")
    assert equal(pt.load(tmp_path / "two.safetensors"), tree)
    for folder, number in {"spread": 8, "run": 9}.items():
        step, back = pt.Checkpoints(tmp_path / folder).load(like=tree)
        assert step == number
        assert equal(back, tree)
        assert back["layers/:/kernel"].sharding == tree["layers/:/kernel"].sharding


# ------------------------------------------------------------------------------- a process that dies

KILLED = (
    LOAD
    + """
import os, signal, sys, threading, time
folder = arguments[0]

def kill_in_the_middle_of_saving():
    while not any(name.startswith("step_20") for name in os.listdir(folder)):
        time.sleep(0.0005)
    print("killed", time.time(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if rank == 1:
    sys.setswitchinterval(1e-4)
    threading.Thread(target=kill_in_the_middle_of_saving, daemon=True).start()
example.run("2d", folder, 40, jax.devices())
print("not killed")
"""
)


def test_a_process_is_killed_while_it_saves_the_other_ends_and_the_run_goes_on(tmp_path, example, expected):
    with started(KILLED, tmp_path) as (first, second):
        printed, code = second.wait(timeout=300)
        assert code == -9, printed
        killed = float(printed.split("killed ")[1])
        printed, code = first.wait(timeout=60)
        assert code != 0, printed
        assert "not killed" not in printed
        assert time.time() - killed < 60  # ten seconds without a heartbeat, and what a busy machine adds
    assert "step_20" not in os.listdir(tmp_path)
    assert [name for name in os.listdir(tmp_path) if name.startswith("step_20")], "the step was half written"
    assert pt.Checkpoints(tmp_path).steps() == [10]
    losses = example.run("fsdp", tmp_path, 20, jax.devices())
    same(losses, expected[10:])
    assert sorted(os.listdir(tmp_path)) == ["step_10", "step_20"]


RAISES = """
import jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree import train
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows = NamedSharding(mesh, P("data"))
x = jax.make_array_from_callback((8, 2), rows, lambda index: np.ones((8, 2), "float32")[index])
step = train.step(lambda params, x: jnp.square(x @ params["w"]).mean(), optax.sgd(0.1))
w = jax.make_array_from_callback((2,), NamedSharding(mesh, P()), lambda index: np.ones(2, "float32")[index])
state = step.init({"w": w})
for number in range(1000):
    state, metrics = step(state, x)
    float(metrics.loss)
    if rank == 1 and number == 2:
        raise SystemExit("no more data")
"""


def test_a_process_that_raises_ends_the_others_too():
    with started(RAISES, shutdown=5) as (first, second):
        ended = time.monotonic()
        for process in (second, first):
            printed, code = process.wait(timeout=120)
            assert code != 0, printed
        assert time.monotonic() - ended < 100


# ------------------------------------------------------------------------------- steps of two processes

STEPS = """
import jax.numpy as jnp, numpy as np, optax, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree import train

mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
)

def spread(array, spec):
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])

def loss(params, x):
    return jnp.square(jnp.tanh(x @ params["up"]) @ params["down"] - params["bias"]).mean()

draw = np.random.default_rng(0)
make = lambda *shape: draw.standard_normal(shape).astype("float32")
whole, x = {"up": make(8, 16), "down": make(16, 4), "bias": make(4)}, make(16, 8)

def losses(params, x, count=4):
    step = train.step(loss, optax.adamw(1e-2), ema=0.9)
    state, found = step.init(params), []
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    for number in range(count):
        given = state
        state, metrics = step(given, x)
        found.append(float(metrics.loss))
        if number == 0:
            compiled.clear()
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.params)), "donated"
    assert compiled == []
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before
    assert all(len(sharding.device_set) == len(state.params["up"].sharding.device_set) for sharding in before)
    return found

expected = losses({name: jnp.array(leaf) for name, leaf in whole.items()}, x)
layouts = [
    {"up": P(), "down": P(None, None), "bias": P(None)},
    {"up": P("data"), "down": P("data", None), "bias": P()},
    {"up": P(None, "model"), "down": P("model", None), "bias": P(None)},
    {"up": P("data", "model"), "down": P("model", "data"), "bias": P("data")},
]
for layout in layouts:
    params = {name: spread(leaf, layout[name]) for name, leaf in whole.items()}
    np.testing.assert_allclose(losses(params, spread(x, P("data"))), expected, rtol=1e-5)
print("done")
"""


def test_in_each_layout_a_step_is_compiled_once_nothing_drifts_and_the_state_is_donated():
    for printed in outputs(STEPS):
        assert printed.endswith("done\n")


# ------------------------------------------------------------------------------- processes that differ

DIFFERENT_STATES = """
import jax.numpy as jnp, numpy as np, optax, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree import train

mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

def spread(array, spec):
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])

whole, x = np.ones((8, 8), "float32"), np.ones((16, 8), "float32")
step = train.step(lambda params, x: jnp.square(x @ params["w"]).mean(), optax.sgd(0.1))
state = step.init({"w": spread(whole, P("data") if rank == 0 else P(None, "data"))})
try:
    step(state, spread(x, P("data")))
except pt.StructureError as error:
    print(error)
# the same state, and a batch of which one process has more rows
state = step.init({"w": spread(whole, P("data"))})
try:
    step(state, spread(np.ones((16 + 8 * rank, 8), "float32"), P("data")))
except pt.StructureError as error:
    print(error)
state, metrics = step(state, spread(x, P("data")))
print(float(metrics.loss))
"""


def test_states_or_batches_that_differ_are_an_error_in_all_processes_before_the_first_step():
    for printed in outputs(DIFFERENT_STATES, timeout=120):
        assert printed.replace("PartitionSpec", "P").splitlines()[-7:] == [
            "process 1 has another state or batch than process 0:",
            "  'state: params/w': f32[8,8] over P('data',) in process 0, f32[8,8] over P(None, 'data') in process 1",
            "Give all processes the same rules, mesh and tree",
            "process 1 has another state or batch than process 0:",
            "  'batch:': f32[16,8] over P('data',) in process 0, f32[24,8] over P('data',) in process 1",
            "Give all processes the same rules, mesh and tree",
            "64.0",
        ]


DIFFERENT_RULES = """
import time, numpy as np, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree import shard

def mesh_of(devices, model=2):
    return jax.make_mesh((len(devices) // model, model), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2, devices=devices)

def told(attempt):
    try:
        attempt()
    except pt.PtreeError as error:
        print(error)

mesh, key = mesh_of(jax.devices()), jax.random.key(0)
spec = pt.Tree({"up": pt.Param((24, 48), init=pt.initializers.zeros), "down": pt.Param((48, 24), init=pt.initializers.zeros)})
same = shard.plan(spec, {"up": P(None, "model"), "**": P("model")}, mesh)
for _ in range(3):
    assert pt.init(spec, key, shardings=same)["up"].sharding == same["up"]

last = rank == jax.process_count() - 1
rules = {"up": P("data"), "down": P()} if last else {"up": P(None, "model"), "**": P("model")}
other = shard.plan(spec, rules, mesh)
told(lambda: pt.init(spec, key, shardings=other))
told(lambda: shard.place({"up": np.zeros((24, 48), "float32"), "down": np.zeros((48, 24), "float32")}, other))
told(lambda: shard.check_processes(shard.plan(spec, P(), mesh if last else mesh_of(jax.devices(), model=1))))
told(lambda: shard.check_processes(shard.plan(spec if last else pt.put(spec, "head", spec["up"]), P(), mesh)))
shard.check_processes(same)

# what only this process has is nobody else's business
own = shard.plan(spec, P("data") if rank else P(), mesh_of(jax.local_devices()))
assert pt.init(spec, key, shardings=own)["up"].is_fully_addressable

# one raises an error in its plan, and never comes
start = time.monotonic()
if last:
    told(lambda: shard.plan(spec, {"upp": P(), "**": P()}, mesh))
else:
    told(lambda: shard.check_processes(same, timeout=2))
    assert time.monotonic() - start < 20
print("end")
"""

UP = "  'up': f32[24,48] over P(None, 'model') by the rule 'up' in process 0, f32[24,48] over P('data',) by the rule 'up' in process {}"
DOWN = "  'down': f32[48,24] over P('model',) by the rule '**' in process 0, f32[48,24] over P() by the rule 'down' in process {}"
FIX = "Give all processes the same rules, mesh and tree"


@pytest.mark.parametrize("count", [2, 3])
def test_plans_that_differ_are_an_error_in_all_processes_that_names_the_process_and_the_rule(count):
    last = count - 1
    found = outputs(DIFFERENT_RULES, count=count, devices=2, timeout=120)
    for rank, printed in enumerate(found):
        *lines, absent, end = printed.replace("PartitionSpec", "P").splitlines()
        expected = [f"process {last} has another plan than process 0:", DOWN.format(last), UP.format(last), FIX] * 2
        devices = ", ".join(f"{first}..{first + 1}" for first in range(0, 2048 * count, 2048))
        expected += [
            f"process {last} has another plan than process 0:",
            f"  'the mesh': data={2 * count}, model=1 over the devices {devices} in process 0,"
            f" data={count}, model=2 over the devices {devices} in process {last}",
            FIX,
            f"process {last} has another plan than process 0:",
            f"  'head': f32[24,48] over P() by the rule '**' in process 0, not in process {last}",
            FIX,
        ]
        assert lines == expected
        assert absent.startswith(
            "the pattern 'upp' matches nothing" if rank == last else "waited 2 s for the plan of process"
        )
        assert end == "end"


DIFFERENT_SHARDINGS = """
import numpy as np, ptree as pt
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree import shard

def mesh_of(devices):
    return jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)

def told(attempt):
    try:
        attempt()
    except pt.PtreeError as error:
        print(error)

folder, = arguments
mesh, key = mesh_of(jax.devices()), jax.random.key(0)
spec = pt.Tree({"up": pt.Param((8, 4), init=pt.initializers.normal()), "down": pt.Param((4, 8), init=pt.initializers.normal())})
tree = {"up": np.arange(32, dtype="float32").reshape(8, 4), "down": np.ones((4, 8), "float32")}
file = f"{folder}/m.safetensors"
if rank == 0:
    pt.save(file, tree)
multihost_utils.sync_global_devices("saved")

# rules of other words, and shardings in another order, are the same placement
same = {"up": P("data"), "**": P(None, "data")} if rank else {"down": P(None, "data"), "up": P("data", None)}
assert pt.init(spec, key, shardings=same, mesh=mesh)["up"].sharding.spec == P("data")
assert pt.load(file, shardings=same, mesh=mesh)["down"].sharding.spec == P(None, "data")

other = {"up": P("data") if rank else P(None, "data"), "**": P()}
told(lambda: pt.load(file, shardings=other, mesh=mesh))
told(lambda: pt.load(file, like=spec, shardings=other, mesh=mesh))
told(lambda: pt.init(spec, key, shardings=other, mesh=mesh))
told(lambda: pt.load(file, shardings={"up": NamedSharding(mesh, P("data" if rank else None)), "down": NamedSharding(mesh, P())}))
reversed_mesh = mesh_of(jax.devices()[::-1])
told(lambda: pt.load(file, shardings={"**": P()}, mesh=reversed_mesh if rank else mesh))
two = {"up": NamedSharding(mesh, P()), "down": NamedSharding(reversed_mesh, P())}
told(lambda: pt.load(file, shardings=two if rank else two | {"up": two["down"], "down": two["up"]}))

# what only this process has is nobody else's business
local = mesh_of(jax.local_devices())
assert pt.load(file, shardings={"up": P("data") if rank else P(), "**": P()}, mesh=local)["up"].is_fully_addressable

# a mesh of the devices of the first process alone: the others have no part of the arrays
first = mesh_of([device for device in jax.devices() if device.process_index == 0])
plan = shard.plan(tree, {"up": P("data"), "**": P()}, first)
keys = {"key": jax.random.split(key, 4), "count": np.int64(3), "small": np.ones((2, 2), "int8")}
placed_keys = shard.place(keys, shard.plan(keys, {"key": P("data"), "**": P()}, first))
assert [str(placed_keys[name].dtype) for name in keys] == ["key<fry>", "int32", "int8"]
for found in (pt.load(file, shardings=plan), pt.load(file, shardings=NamedSharding(first, P("data"))), shard.place(tree, plan)):
    assert [found[name].dtype for name in tree] == [np.float32] * 2
    for name in tree:
        for part in found[name].addressable_shards:
            assert np.array_equal(part.data, tree[name][part.index])
    assert bool(found["up"].addressable_shards) == (rank == 0)
print("end")
"""


def test_shardings_that_differ_without_a_plan_are_an_error_in_all_processes(tmp_path):
    up = "  'up': f32[8,4] over P(None, 'data') in process 0, f32[8,4] over P('data',) in process 1"
    begin = "process 1 has another placement than process 0:"
    on, back = (
        "of the mesh data=4 over the devices 0..1, 2048..2049",
        "of the mesh data=4 over the devices 2049, 2048, 1, 0",
    )
    expected = [begin, up, FIX] * 3
    expected += [begin, "  'up': f32[8,4] over P() in process 0, f32[8,4] over P('data',) in process 1", FIX]
    expected += [
        begin,
        "  'the mesh': data=4 over the devices 0..1, 2048..2049 in process 0, data=4 over the devices 2049, 2048, 1, 0 in process 1",
        FIX,
        begin,
        f"  'down': f32[4,8] over P() {on} in process 0, f32[4,8] over P() {back} in process 1",
        f"  'up': f32[8,4] over P() {back} in process 0, f32[8,4] over P() {on} in process 1",
        FIX,
    ]
    for printed in outputs(DIFFERENT_SHARDINGS, tmp_path, devices=2, timeout=120):
        assert printed.replace("PartitionSpec", "P").splitlines() == [*expected, "end"]
