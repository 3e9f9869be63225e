"""Checkpoints: a run that is killed at any moment goes on as if nothing had been.

50 kills instead of 8: `pytest --hypothesis-profile=long tests/files/test_checkpoints.py`.
"""

import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file
from trees import TREES, equal

import ptree as pt

BACKENDS = ["ptree", "orbax"]


def state(at=0):
    params = pt.tie(
        {"a": {"kernel": jnp.full((3, 4), float(at))}, "b": {"kernel": jnp.full((4, 3), float(at))}},
        {"b/kernel": pt.transposed("a/kernel")},
    )
    return {
        "params": params,
        "opt": optax.adam(1e-3).init(params),
        "key": jax.random.key(7),
        "step": at,
        "numpy": np.full(2, float(at)),
        "half": jnp.ones((2, 3), jnp.bfloat16),
        "none": jnp.zeros((0, 3)),
        "int4": jnp.ones(3, jnp.int4),
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_newest_of_the_last_steps_comes_back(tmp_path, backend):
    with pt.Checkpoints(tmp_path / "run", keep=2, every=10, backend=backend) as checkpoints:
        assert checkpoints.steps() == []
        for step in range(1, 45):
            assert checkpoints.save(step, state(step)) == (step % 10 == 0)
        checkpoints.wait()
        assert checkpoints.steps() == [30, 40]
        assert checkpoints.save(44, state(44), always=True)
    again = pt.Checkpoints(tmp_path / "run")
    step, back = again.load(like=state())
    assert step == 44
    assert equal(back, state(44))
    assert pt.ties(back["params"]) == pt.ties(state()["params"])
    step, back = again.load(step=40)
    assert equal(pt.get(back, "params/a/kernel"), jnp.full((3, 4), 40.0))
    again.remove(40)
    assert again.steps() == [44]
    assert len(os.listdir(tmp_path / "run")) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if type(tree) is pt.Tree])
def test_law_5_holds_for_checkpoints(tmp_path, backend, name):
    tree = TREES[name]
    with pt.Checkpoints(tmp_path, backend=backend) as checkpoints:
        checkpoints.save(0, tree)
        back = checkpoints.load()[1]
        assert equal(back, tree)
        assert pt.ties(back) == pt.ties(tree)
        assert equal(checkpoints.load(like=tree)[1], tree)


def test_one_backend_goes_on_with_what_the_other_wrote(tmp_path):
    for step, backend in [(1, "ptree"), (2, "orbax"), (3, "ptree"), (4, "orbax")]:
        with pt.Checkpoints(tmp_path, keep=3, backend=backend) as checkpoints:
            if step > 1:
                found, back = checkpoints.load(like=state())
                assert found == step - 1
                assert equal(back, state(step - 1))
            checkpoints.save(step, state(step))
    assert sorted(os.listdir(tmp_path)) == ["step_2", "step_3.safetensors", "step_4"]
    assert load_file(tmp_path / "step_3.safetensors")["numpy"].tolist() == [3, 3]
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as plain:  # as its own users read it
        np.testing.assert_array_equal(plain.restore(tmp_path / "step_4")["params"]["a"]["kernel"], np.full((3, 4), 4.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_come_back_to_their_devices(tmp_path, backend):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(jnp.arange(64.0).reshape(16, 4), NamedSharding(mesh, PartitionSpec("d")))
    whole = jax.device_put(jnp.arange(3.0), NamedSharding(mesh, PartitionSpec()))
    tree = {
        "spread": spread,
        "whole": whole,
        "key": jax.device_put(jax.random.key(0), NamedSharding(mesh, PartitionSpec())),
    }
    with pt.Checkpoints(tmp_path, backend=backend) as checkpoints:
        checkpoints.save(1, tree)
        _, back = checkpoints.load(like=tree)
        assert {name: leaf.sharding for name, leaf in back.items()} == {
            name: leaf.sharding for name, leaf in tree.items()
        }
        assert equal(back, tree)
        _, back = checkpoints.load(like=tree, shardings={"**": PartitionSpec()}, mesh=mesh)
        assert back["spread"].is_fully_replicated
        like = {**tree, "spread": jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=spread.sharding)}
        assert checkpoints.load(like=like)[1]["spread"].sharding == spread.sharding


def test_a_damaged_step_is_passed_over_with_a_warning(tmp_path):
    with pt.Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, state(step))
    for step, cut in ((3, 100), (2, -1)):
        path = tmp_path / f"step_{step}.safetensors"
        path.write_bytes(path.read_bytes()[:cut])
    with pytest.warns(UserWarning, match="step [32] is passed over: cannot load"):
        assert checkpoints_load(tmp_path) == 1
    with pytest.raises(pt.FileError, match=r"step_3\.safetensors"):
        pt.Checkpoints(tmp_path).load(step=3)


def checkpoints_load(folder):
    return pt.Checkpoints(folder).load(like=state())[0]


def test_bad_input_is_told(tmp_path):
    checkpoints = pt.Checkpoints(tmp_path)
    says(pt.FileError, f"no step in '{tmp_path}'", checkpoints.load)
    checkpoints.save(5, state())
    says(pt.FileError, f"no step 4 in '{tmp_path}': it has 5", lambda: checkpoints.load(step=4))
    says(pt.FileError, f"no step 4 in '{tmp_path}': it has 5", lambda: checkpoints.remove(4))
    says(
        pt.FileError,
        f"cannot save step 4 in '{tmp_path}': it has later ones, 5. Remove them with Checkpoints.remove(step), or use another folder",
        lambda: checkpoints.save(4, state()),
    )
    says(pt.FileError, "cannot save step -1: expected one from 0 on", lambda: checkpoints.save(-1, state()))
    with pytest.raises(TypeError):
        checkpoints.save(1.5, state())
    with pytest.raises(pt.FileError, match="cannot save these leaves"):
        checkpoints.save(6, {"a": object()})
    says(
        pt.FileError,
        "expected backend 'ptree' or 'orbax', got 'torch'",
        lambda: pt.Checkpoints(tmp_path, backend="torch"),
    )
    says(
        pt.FileError,
        "expected keep to be a whole number of at least 1, got 0",
        lambda: pt.Checkpoints(tmp_path, keep=0),
    )
    text = "'gs://bucket' is no folder of this machine: mount it, or use backend='orbax', which takes gs:// and s3://"
    says(pt.FileError, text, lambda: pt.Checkpoints("gs://bucket"))
    with (
        pt.Checkpoints(tmp_path / "o", backend="orbax") as other,
        pytest.raises(pt.FileError, match=r"Orbax has one name for \['a.b', 'a/b'\]"),
    ):
        other.save(0, {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match="file"):
        pt.Checkpoints(file).save(0, state())
    checkpoints.save(7, state())
    checkpoints.close()
    assert checkpoints.steps() == [5, 7]


def test_what_goes_wrong_in_the_background_is_raised_by_the_next_call(tmp_path, monkeypatch):
    checkpoints = pt.Checkpoints(tmp_path)
    checkpoints.save(1, state(1))
    checkpoints.wait()
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    checkpoints.save(2, state(2))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(3, state(3))
    monkeypatch.undo()
    checkpoints.save(3, state(3))
    checkpoints.close()
    assert checkpoints.steps() == [1, 3]


def test_what_was_left_by_crashes_is_removed(tmp_path):
    (tmp_path / f".step_9.safetensors.{'0' * 32}.tmp").write_bytes(b"half")
    (tmp_path / "step_9.orbax-checkpoint-tmp-17").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    with pt.Checkpoints(tmp_path, max_shard_size=100) as checkpoints:
        checkpoints.save(1, state(1))
        assert equal(checkpoints.load(like=state())[1], state(1))
    assert "notes.txt" in os.listdir(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if "tmp" in name or "step_9" in name]
    pt.Checkpoints(tmp_path).remove(1)
    assert os.listdir(tmp_path) == ["notes.txt"]


RUN = """
import sys, jax, jax.numpy as jnp, optax, ptree as pt
from ptree import nn, initializers as I

net = nn.Sequential(nn.Dense(8), jnp.tanh, nn.Dropout(0.5), nn.Dense(1))
optimiser = optax.adam(1e-2)

@jax.jit
def train(state):
    key, data, noise = jax.random.split(state["key"], 3)
    x = jax.random.normal(data, (16, 4))
    loss = lambda params: jnp.mean((net(params, x, train=True, key=noise) - x.sum(1, keepdims=True)) ** 2)
    updates, opt = optimiser.update(jax.grad(loss)(state["params"]), state["opt"])
    return {"params": optax.apply_updates(state["params"], updates), "opt": opt, "key": key}

folder, last = sys.argv[1], int(sys.argv[2])
params = net.init(jax.random.key(0), jnp.zeros((16, 4)))
step, state = 0, {"params": params, "opt": optimiser.init(params), "key": jax.random.key(1)}
with pt.Checkpoints(folder, keep=2, every=5) as checkpoints:
    if checkpoints.steps():
        step, state = checkpoints.load(like=state)
    train(state)
    print("ready", flush=True)
    while step < last:
        state = train(state)
        step += 1
        if checkpoints.save(step, state):
            print(step, flush=True)  # the one before is on the disk
"""


def test_killed_again_and_again_it_trains_as_if_it_had_never_been(tmp_path, long):
    draw, newest = np.random.default_rng(0), 0
    for _ in range(50 if long else 8):
        run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "killed"), "1000000"], stdout=subprocess.PIPE)
        assert run.stdout.readline() == b"ready\n"
        for _ in range(draw.integers(2, 5)):
            assert run.stdout.readline()  # it has begun to write a step
        time.sleep(draw.uniform(0, 0.02))
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        before, newest = newest, pt.Checkpoints(tmp_path / "killed").steps()[-1]
        assert newest > before  # it comes further each time
    step, state = pt.Checkpoints(tmp_path / "killed").load()
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path / "whole"), str(step)], check=True, stdout=subprocess.PIPE)
    assert equal(pt.Checkpoints(tmp_path / "whole").load(step=step)[1], state)
    assert len(os.listdir(tmp_path / "whole")) == 2


@pytest.mark.parametrize("backends", [("orbax", "ptree"), ("ptree", "orbax"), ("orbax", "orbax"), ("ptree", "ptree")])
def test_a_step_that_is_saved_again_is_the_new_one(tmp_path, backends):
    for at, backend in enumerate(backends):
        with pt.Checkpoints(tmp_path, backend=backend, max_shard_size=100 if at else None) as checkpoints:
            checkpoints.save(5, state(at))
    assert equal(checkpoints.load(like=state())[1], state(1))
    pt.Checkpoints(tmp_path).remove(5)
    assert os.listdir(tmp_path) == []


DAMAGE = """
import sys, warnings, jax, jax.numpy as jnp, numpy as np, ptree as pt
from pathlib import Path
from trees import equal

folder = Path(sys.argv[1])
tree = {"a": jnp.arange(1000.0), "k": jax.random.key(0), "n": np.arange(3)}
with pt.Checkpoints(folder, backend="orbax") as checkpoints:
    checkpoints.save(1, tree)
    checkpoints.save(2, tree)
files = [path for path in (folder / "step_2").rglob("*") if path.is_file() and path.stat().st_size > 20]
passed = 0
for path in files:
    whole = path.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in (9, len(whole) // 2, -15)]
    for edited in (whole[:-10], b"", *flipped):
        path.write_bytes(edited)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            step, back = pt.Checkpoints(folder).load(like=tree)
        assert equal(back, tree)
        assert step == 2 or any(str(folder / "step_2") in str(warning.message) for warning in seen)
        passed += step == 1
    path.write_bytes(whole)
assert passed > len(files)
"""


def test_any_damage_to_a_folder_by_orbax_is_passed_over(tmp_path):
    # in a process of its own: Orbax closes its event loop over unfinished tasks, which complain at any later moment
    paths = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr


def test_a_step_that_was_passed_over_neither_stops_the_run_nor_counts(tmp_path):
    with pt.Checkpoints(tmp_path, every=100) as checkpoints:
        checkpoints.save(100, state(1))
        checkpoints.save(200, state(2))
    path = tmp_path / "step_200.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pt.Checkpoints(tmp_path, every=50, keep=2) as checkpoints:
        with pytest.warns(UserWarning, match="step 200 is passed over"):
            assert checkpoints.load(like=state())[0] == 100
        checkpoints.save(150, state(1))
        checkpoints.wait()
        assert checkpoints.steps() == [100, 150, 200]
        checkpoints.save(200, state(2))
    assert checkpoints.steps() == [150, 200]
    assert checkpoints.load(like=state())[0] == 200


def test_what_is_no_damage_is_not_passed_over(tmp_path, monkeypatch):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1))
    with pt.Checkpoints(tmp_path, backend="orbax") as checkpoints:
        checkpoints.save(2, state(2))
    with pytest.raises(pt.StructureError, match="missing in the file"):
        checkpoints.load(like={**state(), "z": 1})
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(pt.FileError, match="Orbax is not installed"):
        checkpoints.load(like=state())


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_begins_after_the_end(tmp_path, backend):
    with pt.Checkpoints(tmp_path, backend=backend) as checkpoints:
        checkpoints.save(1, state(1))
    says(pt.FileError, "cannot save step 2: these Checkpoints are closed", lambda: checkpoints.save(2, state(2)))
    assert checkpoints.load(like=state())[0] == 1
    assert len(os.listdir(tmp_path)) == 1


def test_numbers_that_became_arrays_come_back(tmp_path):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"epoch": jnp.int32(3), "best": jnp.float32(0.5), "on": True})
        _, back = checkpoints.load(like={"epoch": 0, "best": float("inf"), "on": jnp.bool_(False)})
        assert (back["epoch"].dtype, int(back["epoch"]), float(back["best"]), bool(back["on"])) == (
            "int32",
            3,
            0.5,
            True,
        )
        with pytest.raises(pt.StructureError, match="'epoch'"):
            checkpoints.load(like={"epoch": 0.0, "best": 0.0, "on": True})


@pytest.mark.parametrize("folder", ["a\0b", "\0", b"run", "", 3, {"w": 1}])
def test_what_cannot_be_a_folder_is_refused_at_once(folder):
    with pytest.raises(pt.FileError, match="path"):
        pt.Checkpoints(folder)
