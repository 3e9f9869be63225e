"""Many processes, two of them on this machine: each reads its own part, and both write one checkpoint."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from trees import equal

import ptree as pt

PROCESS = """
import sys, jax
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, rank)
import jax.numpy as jnp, numpy as np, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P

assert (jax.process_count(), jax.device_count(), len(jax.local_devices())) == (2, 8, 4)
mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
whole = np.arange(64 * 32, dtype="float32").reshape(64, 32)
with pt.open(folder + "/m.safetensors") as file:
    before = file.bytes_read
    loaded = file.read([file.leaves["rows"]], {"rows": NamedSharding(mesh, P("d"))}).values["rows"]
    assert file.bytes_read - before == whole.nbytes // 2, file.bytes_read
shardings = {"rows": P("d"), "columns": P(None, "d"), "bias": P(), "key": P()}
state = pt.load(folder + "/m.safetensors", shardings=shardings, mesh=mesh)
for name in ("rows", "columns"):
    assert not state[name].is_fully_addressable
    for shard in state[name].addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])
try:
    pt.save(folder + "/no.safetensors", state)
except pt.FileError as error:
    assert "a part is in other processes: save it with Checkpoints(..., backend='orbax')" in str(error)
else:
    raise AssertionError

with pt.Checkpoints(folder + "/spread", keep=1, backend="orbax") as checkpoints:
    for step in (1, 2):
        checkpoints.save(step, state)
with pt.Checkpoints(folder + "/spread", backend="orbax") as checkpoints:
    step, back = checkpoints.load(like=state)
    assert step == 2
    for name, leaf in state.items():
        assert back[name].sharding == leaf.sharding, name
        for one, other in zip(back[name].addressable_shards, leaf.addressable_shards):
            assert (one.data == other.data).all()

same = pt.select(state, ["bias", "key"])  # each process has it whole
with pt.Checkpoints(folder + "/same") as checkpoints:
    checkpoints.save(3, same)
jax.experimental.multihost_utils.sync_global_devices("saved")
step, back = pt.Checkpoints(folder + "/same").load(like=same)
assert step == 3 and not back["bias"].is_fully_addressable and back["bias"].is_fully_replicated
print("done")
"""


def test_two_processes_read_their_own_parts_and_write_one_checkpoint(tmp_path):
    whole = np.arange(64 * 32, dtype="float32").reshape(64, 32)
    tree = pt.Tree(
        {"rows": jnp.asarray(whole), "columns": jnp.asarray(whole), "bias": jnp.arange(5.0), "key": jax.random.key(3)}
    )
    pt.save(tmp_path / "m.safetensors", tree)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    apart = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(port), str(tmp_path)],
            env=apart, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            told, _ = process.communicate(timeout=120)
            assert process.returncode == 0, told
            assert told.endswith("done\n")
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for folder in ("spread", "same"):
        step, back = pt.Checkpoints(tmp_path / folder).load()
        assert len(os.listdir(tmp_path / folder)) == 1
        assert equal(back, pt.select(tree, [*back]))
    assert step == 3
