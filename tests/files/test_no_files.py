"""Loading a path at which there is no regular file: what is there is named, and nothing waits for it."""

import json
import os
import socket
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt

# each call of a process that is stopped when it hangs; the result of each is a line
CALLS = """
import json, os, sys, numpy as np, ptree as pt
os.chdir(sys.argv[1])
calls = {
    "load": lambda path: pt.load(path),
    "load with like": lambda path: pt.load(path, {"a": np.zeros(2)}),
    "load_report": lambda path: pt.load_report(path),
    "mmap": lambda path: pt.load(path, mmap=True),
    "open": lambda path: pt.open(path),
}
errors = {}
for path in json.loads(sys.argv[2]):
    for name, call in calls.items():
        try:
            call(path)
        except pt.FileError as error:
            errors[f"{name} {path}"] = str(error)
checkpoints = pt.Checkpoints("run")
print(json.dumps([errors, checkpoints.steps(), checkpoints.load()[0]]))
with checkpoints:
    checkpoints.save(9, {"a": np.zeros(2)})
"""


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, monkeypatch):
    working_folder = os.getcwd()
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo("fifo")
    os.symlink("fifo", "link")
    os.symlink("link", "link of a link")
    os.mkdir("folder")
    os.mkfifo("folder/model.safetensors")
    os.mkdir("sharded")
    os.mkfifo("sharded/model.safetensors.index.json")
    os.symlink("/dev/zero", "device")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    pt.save("shards.index.json", {"a": np.zeros(9), "b": np.zeros(9)}, max_shard_size=80)
    shard = next(name for name in sorted(os.listdir()) if name.startswith("shards-"))
    os.unlink(shard)
    os.mkfifo(shard)
    with pt.Checkpoints("run", keep=None) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"a": np.zeros(2)})
    for name in ("step_3.safetensors", "step_4.safetensors", "step_5.safetensors.index.json"):
        if os.path.exists(f"run/{name}"):
            os.unlink(f"run/{name}")
        os.mkfifo(f"run/{name}")
    os.mkdir("run/step_6")
    os.mkfifo("run/step_6/_CHECKPOINT_METADATA")
    said = {
        "fifo": "'fifo' is a FIFO, not a file",
        "link": "'link' is a FIFO, not a file",
        "link of a link": "'link of a link' is a FIFO, not a file",
        "folder": "'folder/model.safetensors' is a FIFO, not a file",
        "sharded": "'sharded/model.safetensors.index.json' is a FIFO, not a file",
        "shards": f"'{shard}' is a FIFO, not a file",
        "device": "'device' is a device, not a file",
        "/dev/null": "'/dev/null' is a device, not a file",
        "socket": "'socket' is a socket, not a file",
    }
    done = subprocess.run(
        [sys.executable, "-c", CALLS, str(tmp_path), json.dumps([*said])],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=working_folder,
    )
    assert done.returncode == 0, done.stderr
    errors, steps, newest = json.loads(done.stdout)
    for path, message in said.items():
        for call in ("load", "load with like", "load_report", "mmap", "open"):
            assert errors[f"{call} {path}"] == f"cannot load: {message}"
    assert (steps, newest) == ([1, 2], 2)


def test_a_step_with_a_shard_that_is_no_file_is_passed_over(tmp_path):
    with pt.Checkpoints(tmp_path, max_shard_size=80) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"a": np.zeros(9), "b": np.zeros(9)})
    shard = next(path for path in sorted(tmp_path.iterdir()) if path.name.startswith("step_2-"))
    shard.unlink()
    os.mkfifo(shard)
    with pytest.warns(UserWarning, match="step 2 is passed over: .*is a FIFO, not a file"):
        assert pt.Checkpoints(tmp_path).load()[0] == 1


def test_a_link_to_a_file_is_loaded(tmp_path):
    pt.save(tmp_path / "file", {"a": jnp.arange(3)})
    os.symlink(tmp_path / "file", tmp_path / "link")
    assert pt.load(tmp_path / "link")["a"].tolist() == [0, 1, 2]
