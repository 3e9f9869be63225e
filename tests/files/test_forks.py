"""Processes that are forked while a save goes on: they hold none of its locks, do not wait for it, and save on their own."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ptree as pt

# a script that hangs is killed by the alarm; a child ends with `os._exit`, as XLA's threads, which it lacks, are waited for
START = """
import os, signal, sys, time, traceback, numpy as np, ptree as pt
signal.alarm(60)
folder = sys.argv[1]
file = folder + "/m.safetensors"
tree = {name: np.full(2_000, 2.0) for name in "abc"}
real_write = os.pwrite
slowness = [0.1]

def slow(*args):
    time.sleep(slowness[0])
    return real_write(*args)

os.pwrite = slow

def begun(save):
    before = len(os.listdir(folder))
    saved = save()
    while len(os.listdir(folder)) == before:
        time.sleep(0.005)
    return saved

def in_child(function):
    child = os.fork()
    if not child:
        signal.alarm(60)
        slowness[0] = 0
        try:
            function()
            os._exit(7)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return child

def holds(path):
    return all((leaf == 2).all() for leaf in pt.load(path).values())
"""

CASES = {
    "the lock of a folder": """
saved = begun(lambda: pt.save(file, tree, max_shard_size=20_000, background=True))
child = in_child(lambda: time.sleep(50))
saved.result()
slowness[0] = 0
pt.save(file, tree, max_shard_size=20_000)  # it would wait for the child to end
pt.save(file, tree)
assert holds(file) and os.listdir(folder) == ["m.safetensors"]
assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it is still there
os.kill(child, signal.SIGKILL)
""",
    "what the child does": """
saved = begun(lambda: pt.save(file, tree, background=True))
checkpoints = pt.Checkpoints(folder + "/run")
checkpoints.save(1, tree)

def other():
    try:
        saved.result()
    except pt.FileError as error:
        assert f"is saved by process {os.getppid()}" in str(error), error
    else:
        raise AssertionError("it is not the save of this process")
    checkpoints.wait()
    pt.save(folder + "/child", tree)
    pt.save(folder + "/child", tree, background=True).result()
    with pt.Checkpoints(folder + "/of_child") as own:
        own.save(1, tree)
    checkpoints.close()
    pt.save(folder + "/child", tree, max_shard_size=20_000, background=True).result()

child = in_child(other)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
saved.result()
checkpoints.close()
assert holds(file) and holds(folder + "/child")
assert checkpoints.steps() == pt.Checkpoints(folder + "/of_child").steps() == [1]
""",
    "a child that saves to the same path": """
saved = begun(lambda: pt.save(file, {"old": np.zeros(10_000)}, background=True))

def other():
    pt.save(file, tree)
    assert holds(file)

child = in_child(other)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
saved.result()
assert os.listdir(folder) == ["m.safetensors"]
""",
}


@pytest.mark.parametrize("name", CASES)
def test_a_forked_process_is_apart_from_the_saves_of_its_parent(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", START + CASES[name], str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


KILLED = """
saved = begun(lambda: pt.save(file, tree, max_shard_size=20_000 if sys.argv[2] == "shards" else None, background=True))
child = in_child(lambda: time.sleep(50))
slowness[0] = 100
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("form", ["one file", "shards"])
def test_what_a_killed_process_left_is_swept_although_its_child_lives(tmp_path, form):
    script = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", START + KILLED, str(tmp_path), form], stdout=subprocess.PIPE, text=True
    )
    child = int(script.stdout.readline())
    try:
        assert script.wait() == -signal.SIGKILL
        assert len(os.listdir(tmp_path)) > 0
        pt.save(tmp_path / "m.safetensors", {"a": np.ones(3)})
        assert os.listdir(tmp_path) == ["m.safetensors"]
        os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)
        script.stdout.close()


# ----------------------------------------------------------------------------- beside a trainer

TRAINER = """
import sys, warnings, numpy as np, ptree as pt
folder, size, keep = sys.argv[1], sys.argv[2], int(sys.argv[3])
with pt.Checkpoints(folder, keep=keep, max_shard_size=int(size) if size != "None" else None) as checkpoints:
    for step in range(10**9):
        checkpoints.save(step, {name: np.full(500, step) for name in "abc"})
        if step == 2:
            print("ready", flush=True)
"""


@pytest.mark.parametrize("size", [None, 4000])
@pytest.mark.parametrize("keep", [1, 2])
def test_a_step_is_loaded_beside_a_trainer_that_removes_old_ones(tmp_path, size, keep, long):
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(tmp_path), str(size), str(keep)], stdout=subprocess.PIPE
    )
    try:
        assert trainer.stdout.readline() == b"ready\n"
        checkpoints, newest, end = pt.Checkpoints(tmp_path), 0, time.monotonic() + (60 if long else 1)
        while time.monotonic() < end or newest < 5:  # a busy machine takes longer
            step, tree = checkpoints.load()
            assert {number for leaf in tree.values() for number in leaf.tolist()} == {step}
            assert step >= newest
            newest = step
            assert checkpoints.steps()
    finally:
        trainer.kill()
        trainer.wait()
        trainer.stdout.close()


@pytest.mark.parametrize("backend", ["ptree", "orbax"])
@pytest.mark.parametrize("moment", ["listed", "opened"])
def test_a_step_that_goes_while_it_is_looked_at_is_not_missed(tmp_path, monkeypatch, backend, moment):
    """At each moment of a load the newest step may be removed, and a newer one be there."""
    tree = {"a": np.ones(3)}
    with pt.Checkpoints(tmp_path, backend=backend) as checkpoints:
        checkpoints.save(1, tree)

    def replaced():
        with pt.Checkpoints(tmp_path, keep=1, backend=backend) as other:
            other.save(2, tree)

    from ptree.files import _checkpoints, _steps

    if moment == "listed":
        real = _steps.os.listdir

        def listdir(folder):
            names = real(folder)
            monkeypatch.undo()
            replaced()
            return names

        monkeypatch.setattr(_steps.os, "listdir", listdir)
    else:
        real_load = _checkpoints.load

        def load(*args, **options):
            monkeypatch.undo()
            replaced()
            return real_load(*args, **options)

        monkeypatch.setattr(_checkpoints, "load", load)
    assert pt.Checkpoints(tmp_path).load()[0] == 2
    with pytest.raises(pt.FileError, match="no step 1 in"):
        pt.Checkpoints(tmp_path).load(step=1)


def test_steps_that_always_go_are_told_and_do_not_hang(tmp_path, monkeypatch):
    from ptree.files import _checkpoints

    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": np.ones(3)})
    content = (tmp_path / "step_1.safetensors").read_bytes()
    at = [1]

    def load(path, *_, **__):
        path.unlink()
        at[0] += 1
        (tmp_path / f"step_{at[0]}.safetensors").write_bytes(content)
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(_checkpoints, "load", load)
    with pytest.raises(pt.FileError, match="removed by another process before they can be read"):
        checkpoints.load()
