"""Train one model over many devices and processes, by rules: data parallel, fully sharded, tensor parallel, or both.

Run it with `python examples/10_many_devices.py` (40 seconds on two CPU cores). It trains a small GPT of `07_gpt.py` for 20 steps on
one device; then again in two halves, the first on eight virtual devices of one process, fully sharded, the second on two
processes of four devices each, which go on from the checkpoint of the first, fully sharded and tensor parallel. The losses are the
same. `--layout tp --processes 2 --devices 4 --folder FOLDER` is one such run alone.

`RULES`, `batch` and `run` are what to copy for a model of your own. They are the same on one device and on a cluster, where the
cluster's own launcher starts the processes, and `jax.distributed.initialize()` finds the others by itself.
"""

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import shard, train

STEPS, BATCH, CONTEXT = 20, 16, 32


def module_of_gpt() -> Any:
    """The example beside this one, whose name is no name of a module."""
    spec = importlib.util.spec_from_file_location("gpt", Path(__file__).with_name("07_gpt.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gpt = module_of_gpt()
# 128 rather than the number of letters: a size that many devices divide
MODEL = gpt.GPT(vocabulary=128, context=CONTEXT, width=64, layers=2, heads=8)

# ------------------------------------------------------------------------------- what lives where

# how the axes of one layer are divided: over "data" to be fully sharded, over "model" to be tensor parallel
RULES = {
    "wte": P("model", "data"),
    "blocks/*/attn/{q,k,v}/kernel": P("data", "model"),  # by heads
    "blocks/*/attn/{q,k,v}/bias": P("model"),
    "blocks/*/attn/o/kernel": P("model", None, "data"),
    "blocks/*/up/kernel": P("data", "model"),  # columns
    "blocks/*/up/bias": P("model"),
    "blocks/*/down/kernel": P("model", "data"),  # rows
    "**": P(),  # norms, positions and the other biases: everywhere
}


def mesh_and_rules(layout: str, devices: Sequence[Any]) -> tuple[Mesh, dict[str, P]]:
    """One table of rules for all layouts: the mesh says how many devices are for the data, and how many for the model."""
    count = len(devices)
    model = {"dp": 1, "fsdp": 1, "tp": count, "2d": min(count, 2)}[layout]
    auto = (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh((count // model, model), ("data", "model"), axis_types=auto, devices=devices)
    return mesh, {"**": P()} if layout == "dp" else RULES


# ------------------------------------------------------------------------------- each process

TEXT = "\n".join(topics[name] for name in sorted(topics)).encode("ascii", "replace")
IDS = np.frombuffer(TEXT, "uint8").astype("int32")


def batch(step: int, mesh: Mesh) -> jax.Array:
    """i32[BATCH, CONTEXT + 1], the same for a step wherever it runs; each process makes the rows of its own devices."""
    starts = np.random.default_rng(step).integers(len(IDS) - CONTEXT - 1, size=BATCH)

    def rows(index: Any) -> np.ndarray:
        return IDS[starts[index[0], None] + np.arange(CONTEXT + 1)]

    return jax.make_array_from_callback((BATCH, CONTEXT + 1), NamedSharding(mesh, P("data")), rows)


def loss(params: Any, windows: jax.Array) -> jax.Array:
    logits, _ = MODEL(params, windows[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).mean()


def run(layout: str, folder: str, until: int, devices: Sequence[Any]) -> list[float]:
    """Train until a step, from the newest one in the folder, whatever layout and number of processes saved it."""
    mesh, rules = mesh_and_rules(layout, devices)
    plan = shard.plan(MODEL.spec(), rules, mesh)
    if jax.process_index() == 0:
        print(f"{layout}: {plan!r}")  # and print(plan) is a table of all leaves
    params = pt.init(MODEL.spec(), jax.random.key(0), shardings=plan)  # each device draws its own part
    step = train.step(loss, optax.adamw(1e-3, mask=train.decayed))
    state = step.init(params)  # the moments lie where their parameters lie
    losses: list[float] = []
    with pt.Checkpoints(folder, keep=2, every=10, backend="orbax") as checkpoints:
        done, state = checkpoints.load(like=state) if checkpoints.steps() else (0, state)
        for number in range(done, until):
            state, metrics = step(state, batch(number, mesh))
            losses.append(float(metrics.loss))
            checkpoints.save(number + 1, state, always=number + 1 == until)
    return losses


# ------------------------------------------------------------------------------- the launcher


def launch(layout: str, folder: str, until: int, processes: int, devices: int) -> list[float]:
    """Start the processes on this machine, each with virtual devices of the CPU, and return the losses of the first."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, __file__, "--layout", layout, "--folder", folder, "--until", str(until)]
    with socket.socket() as port, tempfile.TemporaryFile("w+") as printed:
        port.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT, 1
        )  # as JAX does, so that it can have the port, and no other
        port.bind(("127.0.0.1", 0))
        command += ["--processes", str(processes), "--address", f"127.0.0.1:{port.getsockname()[1]}", "--rank"]
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(processes):
                output = printed if rank == 0 else subprocess.DEVNULL
                started.append(subprocess.Popen([*command, str(rank)], env=environment, stdout=output))
            failed = failures(started)
        finally:
            for process in started:  # none is left waiting for one that has failed
                process.kill()
                process.wait()
        printed.seek(0)
        lines = [line for line in printed.read().splitlines() if not line.startswith("[Gloo]")]
    if failed:
        sys.exit(f"processes that failed, and their exit codes: {failed}")
    print(*lines[:-1], sep="\n")
    return json.loads(lines[-1])


def failures(processes: Sequence["subprocess.Popen[bytes]"]) -> dict[int, int]:
    """Wait until all have ended or one has failed: the exit codes of those that failed."""
    while True:
        codes = {rank: process.poll() for rank, process in enumerate(processes)}
        failed = {rank: code for rank, code in codes.items() if code}
        if failed or None not in codes.values():
            return failed
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=("dp", "fsdp", "tp", "2d"), help="run this one alone")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=4, help="virtual devices of each process")
    parser.add_argument("--folder", help="where steps are saved, and from where a run goes on")
    parser.add_argument("--until", type=int, default=STEPS, help="the last step")
    parser.add_argument("--address", help="of the first process, for the processes that the launcher starts")
    parser.add_argument("--rank", type=int, help="the number of the process that the launcher starts")
    given = parser.parse_args()

    if given.rank is not None:
        if given.processes > 1:
            # a cluster needs only the last of these: when a process dies, the others end after 10 s instead of 100
            jax.distributed.initialize(
                given.address,
                given.processes,
                given.rank,
                coordinator_bind_address=given.address,
                heartbeat_timeout_seconds=10,
            )
        print(json.dumps(run(given.layout, given.folder, given.until, jax.devices())))
        return

    with tempfile.TemporaryDirectory() as place:
        if given.layout:
            launch(given.layout, given.folder or place, given.until, given.processes, given.devices)
            return
        alone = launch("dp", f"{place}/alone", STEPS, processes=1, devices=1)
        first = launch("fsdp", f"{place}/many", STEPS // 2, processes=1, devices=given.processes * given.devices)
        second = launch("2d", f"{place}/many", STEPS, given.processes, given.devices)
    difference = float(np.abs(np.subtract(first + second, alone)).max())
    assert len(first) == len(second) == STEPS // 2, "the second half goes on where the first one was saved"
    assert difference < 1e-5, difference
    meshes = f"1, {given.processes * given.devices} and {given.processes} x {given.devices} devices"
    print(f"{STEPS} steps on {meshes}, {alone[0]:.3f} to {alone[-1]:.3f} nats: losses differ by {difference:.0e}")


if __name__ == "__main__":
    main()
