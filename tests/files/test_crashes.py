"""Crashes, full and read-only disks, and many at once: what a save leaves is the old file or the new one, whole.

200 killed saves instead of 12: `pytest --hypothesis-profile=long tests/files/test_crashes.py`.
"""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time

import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


# ----------------------------------------------------------------------------- killed, and many at once


def test_what_a_crash_left_is_swept_and_what_is_being_written_is_not(file):
    left = file.with_name(f".{file.name}.{'0' * 32}.tmp")
    left.write_bytes(b"half")
    other = file.with_name(".m.safetensors.txt")
    other.write_bytes(b"not ours")
    pt.save(file, {"a": jnp.ones(2)})
    assert sorted(os.listdir(file.parent)) == sorted([file.name, other.name])


SAVER = """
import sys, numpy as np, ptree as pt
for at in range(10**6):
    pt.save(sys.argv[1], {str(leaf): np.full(10_000, at) for leaf in range(30)})
    if at == 2:
        print("ready", flush=True)
"""


def of_one_save(file):
    return len({number for leaf in pt.load(file).values() for number in leaf.tolist()}) == 1


def kill_in_a_save(process, folder):
    """Stop the process again and again, until it is stopped in the midst of a save; and kill it there."""
    while True:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # it has stopped
        if len(os.listdir(folder)) > 1:
            break
        process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_killed_while_it_saves_the_old_file_or_the_new_one_is_there(file, long):
    draw = np.random.default_rng(0)
    for _ in range(200 if long else 12):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(file)], stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"  # it saves again and again
        time.sleep(draw.uniform(0, 0.05))
        kill_in_a_save(process, file.parent)
        assert len(os.listdir(file.parent)) == 2  # the draft is left, and the one before was swept
        assert of_one_save(file)
    pt.save(file, {"a": 1})
    assert os.listdir(file.parent) == [file.name]


def test_a_reader_and_two_savers_at_once(file):
    pt.save(file, {"0": np.zeros(10_000)})
    savers = [subprocess.Popen([sys.executable, "-c", SAVER, str(file)], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for process in savers:
            assert process.stdout.readline()
        for _ in range(60):
            assert of_one_save(file)
    finally:
        for process in savers:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_file_that_shrinks_while_it_is_read_is_refused(file):
    pt.save(file, {"a": np.zeros(100_000)})
    with pt.open(file) as opened:
        os.truncate(file, 1000)
        with pytest.raises(pt.FileError, match="it ends at 1,000 bytes, and had"):
            opened["a"][...]


STEPS = [(os, "open"), (fcntl, "flock"), (os, "chmod"), (os, "pwrite"), (os, "fsync"), (os, "replace")]


@pytest.fixture
def steps(monkeypatch):
    """The names of the steps that were taken; with `stop`, one raises before it is taken."""

    class Steps(list):
        stop, error = -1, None

    taken = Steps()

    def watched(name, real):
        def step(*args):
            taken.append(name)
            if len(taken) == taken.stop:
                raise taken.error
            return real(*args)

        return step

    for module, name in STEPS:
        monkeypatch.setattr(module, name, watched(name, getattr(module, name)))
    return taken


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")], ids=repr)
def test_stopped_at_any_step_the_old_file_or_the_new_one_is_there_and_no_draft(file, steps, error):
    pt.save(file, {"a": 1, "b": 1})
    for steps.stop in range(1, 100):
        steps.clear()
        steps.error = error
        try:
            pt.save(file, {"a": 2, "b": 2})
            if len(steps) < steps.stop:
                break
            assert steps[steps.stop - 1] == "flock"  # a disk without locks
        except type(error) as raised:
            assert raised is error
        assert os.listdir(file.parent) == [file.name], steps
        assert pt.load(file) in (pt.Tree({"a": 1, "b": 1}), pt.Tree({"a": 2, "b": 2}))
    assert steps.count("pwrite") == 4


def test_a_file_is_on_disk_before_it_takes_the_place_of_the_old_one_and_its_name_after(file, steps):
    pt.save(file, {"a": 1})
    assert [step for step in steps if step in ("pwrite", "fsync", "replace")] == [
        *3 * ["pwrite"],
        "fsync",
        "replace",
        "fsync",
    ]


# ----------------------------------------------------------------------------- full and read-only disks


def runs(code, folder, within=()):
    done = subprocess.run([*within, sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


FULL = """
import errno, os, resource, sys, numpy as np, ptree as pt
file, other = sys.argv[1] + "/m.safetensors", sys.argv[1] + "/other"
pt.save(file, {{"a": np.arange(50_000)}})
{fill}
try:
    pt.save(file, {{"a": np.zeros(100_000), "b": np.zeros(100_000)}})
except OSError as error:
    assert (error.errno, error.filename) == (errno.{error}, file), error
else:
    raise AssertionError("it is not full")
assert {{*os.listdir(sys.argv[1])}} <= {{"m.safetensors", "other"}}
assert (pt.load(file)["a"] == np.arange(50_000)).all()
{free}
pt.save(file, {{"a": np.zeros(100_000), "b": np.zeros(100_000)}})
assert pt.load(file)["b"].shape == (100_000,)
"""

READ_ONLY = """
import errno, os, subprocess, sys, numpy as np, ptree as pt
file = sys.argv[1] + "/m.safetensors"
pt.save(file, {{"a": np.arange(3)}})
{close}
try:
    pt.save(file, {{"a": np.zeros(3)}})
except OSError as error:
    assert (error.errno, error.filename) == (errno.{error}, file), error
else:
    raise AssertionError("it is not read-only")
assert os.listdir(sys.argv[1]) == ["m.safetensors"]
assert (pt.load(file)["a"] == np.arange(3)).all()
"""


def test_a_file_that_may_not_be_so_long_leaves_the_old_one(tmp_path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, -1))"
    runs(FULL.format(fill=limit.format(900_000), error="EFBIG", free=limit.format(-1)), tmp_path)


def test_a_folder_that_may_not_be_written_keeps_the_old_file():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to other users
        closed = "os.chmod(sys.argv[1], 0o555); os.getuid() or os.setuid(65534)"
        runs(READ_ONLY.format(close=closed, error="EACCES"), folder)


def can(way):
    """Whether a command may mount a disk that only it sees."""
    try:
        return not subprocess.run([*way, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode
    except OSError:
        return False


MOUNT = 'mount -t tmpfs -o size=2m none "$4" && exec "$@"'
"""Before the command, whose fourth word is the folder: a disk of 2 MB there, which only the command sees."""
WAYS = [("unshare", "-m"), ("unshare", "-rm")]
WITHIN = [[*way, "sh", "-c", MOUNT, "sh"] for way in WAYS if can(way)]

if WITHIN:  # where the system lets a test mount a disk

    def test_a_full_disk_leaves_the_old_file(tmp_path):
        fill = "open(other, 'wb').write(bytes(1 << 20))"
        runs(FULL.format(fill=fill, error="ENOSPC", free="os.remove(other)"), tmp_path, WITHIN[0])

    def test_a_read_only_disk_keeps_the_old_file(tmp_path):
        remount = "subprocess.run(['mount', '-o', 'remount,ro', sys.argv[1]], check=True)"
        runs(READ_ONLY.format(close=remount, error="EROFS"), tmp_path, WITHIN[0])
