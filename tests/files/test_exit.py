"""Saves that are pending when a process ends: all is written, or the process says what is not and ends with an error."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import ptree as pt

# the first two lines of each case: a save is still being written when the script has ended, as each write takes a while
START = """
import atexit, os, signal, sys, threading, time, numpy as np, ptree as pt
folder = sys.argv[1]
file = folder + "/m.safetensors"
tree = {name: np.full(200_000, 2.0) for name in "abc"}
real_write = os.pwrite
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what runs in its background ignore it

def slow(*args):
    time.sleep(0.05)
    return real_write(*args)

def full(*args):
    time.sleep(0.05)
    raise OSError(28, "No space left on device")

os.pwrite = slow
"""

# who waits for an outcome goes on long before the callbacks of the outcome are called
LATE_CALLBACKS = """
from concurrent.futures import Future
real_callbacks = Future._invoke_callbacks
Future._invoke_callbacks = lambda outcome: time.sleep(0.5) or real_callbacks(outcome)
"""

INTERRUPT_AGAIN_AND_AGAIN = """
def interrupt():
    while True: time.sleep(0.1); os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
"""

# name -> (script, exit code, whether the new tree is there, what stderr has to say)
CASES = {
    "ends": ("pt.save(file, tree, background=True)", 0, True, ""),
    "with the handle": ("saved = pt.save(file, tree, background=True)", 0, True, ""),
    "sys.exit": ("pt.save(file, tree, background=True); sys.exit(3)", 3, True, ""),
    "exception": ("pt.save(file, tree, background=True); 1 / 0", 1, True, "ZeroDivisionError"),
    "shards": ("pt.save(file, tree, max_shard_size='2MB', background=True)", 0, True, ""),
    "checkpoints": ("c = pt.Checkpoints(folder); c.save(1, tree)", 0, True, ""),
    "checkpoints in shards": ("pt.Checkpoints(folder, max_shard_size='2MB').save(1, tree)", 0, True, ""),
    "two of one path": (
        "pt.save(file, {'a': np.zeros(300_000)}, background=True); pt.save(file, tree, background=True)",
        0,
        True,
        "",
    ),
    "daemon thread": (
        "t = threading.Thread(target=lambda: pt.save(file, tree, background=True), daemon=True); t.start(); t.join()",
        0,
        True,
        "",
    ),
    "in a thread that outlives the script": (
        "main = threading.main_thread()\n"
        "def late():\n    main.join(); time.sleep(0.2); pt.save(file, tree, background=True)\n"
        "threading.Thread(target=late).start()",
        0,
        True,
        "",
    ),
    "full, in a thread that outlives the script": (
        "main = threading.main_thread()\n"
        "def late():\n    main.join(); os.pwrite = full; pt.save(file, tree, background=True)\n"
        "threading.Thread(target=late).start()",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, in atexit": (
        "def late(): os.pwrite = full; pt.save(file, tree, background=True)\natexit.register(late)",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "in atexit": ("atexit.register(lambda: pt.save(file, tree, background=True))", 0, True, ""),
    "full": (
        "os.pwrite = full; pt.save(file, tree, background=True)",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, with the handle": (
        "os.pwrite = full; saved = pt.save(file, tree, background=True)",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, shards": (
        "os.pwrite = full; pt.save(file, tree, max_shard_size='2MB', background=True)",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, checkpoints": (
        "os.pwrite = full; c = pt.Checkpoints(folder); c.save(1, tree)",
        120,
        False,
        "step_1.safetensors: OSError: [Errno 28]",
    ),
    "full, sys.exit": ("os.pwrite = full; pt.save(file, tree, background=True); sys.exit(3)", 120, False, "Errno 28"),
    "full, exception": ("os.pwrite = full; pt.save(file, tree, background=True); 1 / 0", 120, False, "Errno 28"),
    "full long before": (
        "os.pwrite = full; saved = pt.save(file, tree, background=True)\n"
        "while not saved.done(): time.sleep(0.01)\n"
        "del saved",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, collected": (
        "os.pwrite = full; saved = pt.save(file, tree, background=True)\ntry: saved.result()\nexcept OSError: pass",
        0,
        False,
        "",
    ),
    "full, collected by the next step": (
        "c = pt.Checkpoints(folder); os.pwrite = full; c.save(1, tree)\n"
        "try: c.save(2, tree)\nexcept OSError: os.pwrite = slow\n"
        "c.save(3, tree)",
        0,
        True,
        "",
    ),
    "full, and others have things to do at exit": (
        "def late(): print('late', flush=True, file=sys.stderr); open(folder + '/late', 'w').close()\n"
        "os.pwrite = full; pt.save(file, tree, background=True); atexit.register(late)",
        120,
        False,
        "late",
    ),
    "full, no stderr": ("os.pwrite = full; sys.stderr = None; pt.save(file, tree, background=True)", 120, False, ""),
    "full, stderr closed": (
        "os.pwrite = full; sys.stderr.close(); pt.save(file, tree, background=True)",
        120,
        False,
        "",
    ),
    "killed": (
        "pt.save(file, tree, background=True); os.kill(os.getpid(), signal.SIGTERM)",
        -signal.SIGTERM,
        False,
        "",
    ),
    "os._exit": ("pt.save(file, tree, background=True); os._exit(0)", 0, False, ""),
    "interrupted at exit": (
        "os.fsync = lambda _: time.sleep(60)\npt.save(file, tree, background=True)\n" + INTERRUPT_AGAIN_AND_AGAIN,
        None,  # the signal, or 120
        False,
        "m.safetensors: interrupted",
    ),
    "interrupted while the loss is printed": (
        "class Stderr:\n"
        "    closed, flush = False, sys.stderr.flush\n"
        "    def write(self, text, real=sys.stderr):\n"
        "        if 'interrupted' in text: os.kill(os.getpid(), signal.SIGINT)\n"
        "        real.write(text)\n"
        "sys.stderr = Stderr()\n"
        "os.fsync = lambda _: time.sleep(60)\n"
        "pt.save(file, tree, background=True)\n" + INTERRUPT_AGAIN_AND_AGAIN,
        None,  # the signal, or 120
        False,
        "m.safetensors: interrupted",
    ),
    "forked": (
        "saved = pt.save(file, tree, background=True)\n"
        "child = os.fork()\n"
        "if not child: sys.exit(5)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5",
        0,
        True,
        "",
    ),
    "multiprocessing": (
        "import multiprocessing as mp\n"
        "child = mp.get_context('fork').Process(target=lambda: pt.save(file, tree, background=True) and None)\n"
        "child.start(); child.join(); sys.exit(child.exitcode)",
        0,
        True,
        "",
    ),
    "multiprocessing, full": (
        "import multiprocessing as mp\n"
        "os.pwrite = full\n"
        "child = mp.get_context('fork').Process(target=lambda: pt.save(file, tree, background=True) and None)\n"
        "child.start(); child.join(); sys.exit(child.exitcode)",
        1,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "multiprocessing, full, late callbacks": (
        LATE_CALLBACKS + "import multiprocessing as mp\n"
        "os.pwrite = full\n"
        "child = mp.get_context('fork').Process(target=lambda: pt.save(file, tree, background=True) and None)\n"
        "child.start(); child.join(); sys.exit(child.exitcode)",
        1,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, in atexit, late callbacks": (
        LATE_CALLBACKS + "def late(): os.pwrite = full; pt.save(file, tree, background=True)\natexit.register(late)",
        120,
        False,
        "m.safetensors: OSError: [Errno 28]",
    ),
    "full, collected, late callbacks": (
        LATE_CALLBACKS + "os.pwrite = full; saved = pt.save(file, tree, background=True)\n"
        "try: saved.result()\nexcept OSError: pass",
        0,
        False,
        "",
    ),
    "multiprocessing, full, exception": (
        "import multiprocessing as mp\n"
        "os.pwrite = full\n"
        "child = mp.get_context('fork').Process(target=lambda: pt.save(file, tree, background=True) and 1 / 0)\n"
        "child.start(); child.join(); sys.exit(child.exitcode)",
        1,
        False,
        "ZeroDivisionError",
    ),
}

# all cases at once, each in a process that is forked after the imports, which take seconds, and ends as any script does
ALL = """
import gc, json, os, sys
import numpy as np, ptree as pt
gc.freeze()  # a process that ends then leaves what was imported as it is: a third of the time
pt.save(sys.argv[1] + "/first", {"a": np.zeros(1)}, background=True).result()
children = {}
for at, (name, code) in enumerate(json.loads(sys.stdin.read()).items()):
    child = os.fork()
    if not child:
        sys.argv[1] += f"/{at}"
        os.mkdir(sys.argv[1])
        os.dup2(os.open(sys.argv[1] + "/stderr", os.O_WRONLY | os.O_CREAT), 2)
        break
    children[name] = child
else:
    codes = {name: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for name, child in children.items()}
    print(json.dumps(codes))
    code = ""
exec(code)
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The exit code of each case, and its folder."""
    folder = tmp_path_factory.mktemp("exit")
    scripts = json.dumps({name: START + code for name, (code, *_) in CASES.items()})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALL, str(folder)],
        input=scripts,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout)
    return {name: (codes[name], folder / str(at)) for at, name in enumerate(CASES)}


def is_whole(place):
    """Whether the new tree is at a path."""
    try:
        tree = pt.load(place)
    except FileNotFoundError:
        return False
    assert sorted(tree) == ["a", "b", "c"]
    return all((leaf == 2).all() for leaf in tree.values())


@pytest.mark.parametrize("name", CASES)
def test_what_is_pending_at_exit_is_written_or_the_process_fails_and_says_so(ended, name):
    _, code, is_written, said = CASES[name]
    ended_with, folder = ended[name]
    stderr = (folder / "stderr").read_text()
    assert ended_with == code if code is not None else ended_with in (120, -signal.SIGINT), stderr
    steps = pt.Checkpoints(folder).steps()
    place = folder / (f"step_{steps[-1]}.safetensors" if steps else "m.safetensors")
    assert is_whole(place) == is_written
    assert said in stderr
    if not said:
        assert stderr == ""


def test_others_do_what_they_have_to_do_at_exit(ended):
    assert (ended["full, and others have things to do at exit"][1] / "late").exists()


@pytest.mark.parametrize("name", ["ends", "full"])
def test_the_same_in_a_script_of_its_own(tmp_path, name):
    code, exit_code, is_written, said = CASES[name]
    done = subprocess.run([sys.executable, "-c", START + code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == exit_code
    assert said in done.stderr
    assert is_whole(tmp_path / "m.safetensors") == is_written


# what the script does at its end; the rooms and threads that it needs are first loaded then
LATE = """
import atexit, sys, threading, numpy as np, ptree as pt
folder, when = sys.argv[1:]
tree = {name: np.full(200_000, 2.0) for name in "abc"}

def save():
    saved = pt.save(folder + "/m.safetensors", tree, background=True)
    pt.save(folder + "/shards", tree, max_shard_size="2MB", background=True)
    with pt.Checkpoints(folder + "/run") as checkpoints:
        checkpoints.save(1, tree)
    saved.result()
    loaded = pt.load(folder + "/m.safetensors")["a"]
    print(saved.done(), saved, len(checkpoints.steps()), (loaded == 2).all())

def outlive():
    main.join()
    save()

main = threading.main_thread()
if when == "atexit":
    atexit.register(save)
else:
    threading.Thread(target=outlive).start()
"""


@pytest.mark.parametrize("when", ["atexit", "in a thread that outlives the script"])
def test_a_first_save_while_python_ends_is_written(tmp_path, when):
    done = subprocess.run([sys.executable, "-c", LATE, str(tmp_path), when], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"True <saved {str(tmp_path / 'm.safetensors')!r}, 4.8 MB> 1 True\n"
    assert is_whole(tmp_path / "m.safetensors")
    assert is_whole(tmp_path / "shards")
    assert is_whole(tmp_path / "run" / "step_1.safetensors")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "Errno 28" in case[3]])
def test_a_failed_save_is_reported_once(ended, name):
    stderr = (ended[name][1] / "stderr").read_text()
    assert stderr.count("not saved in the background") == 1
    assert stderr.count("Errno 28") == 1


def test_a_failed_save_whose_handle_is_gone_is_logged_at_once(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    saved = pt.save(tmp_path / "m", {"a": np.zeros(3)}, background=True)
    with pytest.raises(OSError, match="No space left"):
        saved.result()
    del saved  # collected: nothing is told twice
    assert not caplog.records
    saved = pt.save(tmp_path / "m", {"a": np.zeros(3)}, background=True)
    while not saved.done():
        pass
    number = saved._size._number
    del saved
    assert "not saved in the background" in caplog.text
    assert str(tmp_path / "m") in caplog.text
    # this process is not to fail at its end
    from ptree.files import _background

    assert "No space left" in _background._failures.pop(number)


def test_a_file_that_is_still_open_at_the_exit_is_closed_in_silence(tmp_path):
    pt.save(tmp_path / "m.safetensors", {"a": 1})
    code = "import sys, ptree; file = ptree.open(sys.argv[1]); print(len(file))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.safetensors")], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
