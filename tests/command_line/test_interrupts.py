"""Ctrl-C at any time: no traceback, no crash, an exit code that is not 0, and no half-written file."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

_START = """
import os, signal, sys

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

# a shell lets what runs in its background ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
_IN_AN_IMPORT = """
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED"]:
            interrupt()

sys.meta_path.insert(0, Interrupting())
"""
_IN_A_WRITE = "os.fsync = interrupt\n"
_IN_A_DESTRUCTOR = """
class Lost:
    __del__ = interrupt

fsync = os.fsync
os.fsync = lambda file: (Lost(), fsync(file))
"""
_RUN = "from _ptree_command import main\nsys.exit(main())\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"h.0.w": np.ones((4, 3), "float32")}, "m.safetensors")
    return tmp_path


def ended(code, *arguments, **environment):
    """The exit code of a program in another process, and what it wrote."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


RENAME = ["rename", "m.safetensors", "h", "g", "-o", "n.safetensors"]


@pytest.mark.parametrize("module", ["ptree", "argparse", "numpy.linalg", "jax._src.lib"])
def test_an_interrupt_in_an_import_ends_the_program_in_silence(module):
    found = ended(_START + _IN_AN_IMPORT + _RUN, *RENAME, INTERRUPTED=module)
    assert found == (-signal.SIGINT, "", "")
    assert os.listdir() == ["m.safetensors"]


@pytest.mark.parametrize(
    "command",
    [
        RENAME,
        ["get", "m.safetensors", "h/0/w", "-o", "w.npy"],
        ["report", "m.safetensors", "-o", "page.html"],
        ["plot", "m.safetensors", "-o", "plot.png"],
    ],
    ids=lambda command: command[0],
)
def test_an_interrupt_while_a_file_is_written_leaves_no_part_of_it(command):
    assert ended(_START + _IN_A_WRITE + _RUN, *command) == (130, "", "")
    assert os.listdir() == ["m.safetensors"]


def test_an_interrupt_in_a_destructor_is_not_lost(folder):
    assert ended(_START + _IN_A_DESTRUCTOR + _RUN, *RENAME) == (130, "", "")
    # it was too late for the file, which is whole
    assert ended(_START + _RUN, "check", "n.safetensors")[0] == 0


def test_an_interrupt_that_a_shell_has_ignored_stays_so(folder):
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    code, out, err = ended(_START + ignored + _IN_AN_IMPORT + _RUN, "show", "m.safetensors", INTERRUPTED="argparse")
    assert (code, err) == (0, "")
    assert "12 parameters" in out
