"""Benchmark scripts tell names, numbers and packages that are not there, before they measure."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WHO = ["ptree", "by hand", "Flax linen", "Flax nnx", "Haiku"]


@pytest.fixture
def turns(monkeypatch):
    """The module that runs the benchmarks which take turns, and a call of it with a command line."""
    spec = importlib.util.spec_from_file_location("_turns", BENCHMARKS / "_turns.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(who, size):
        if who == "Haiku":
            raise ModuleNotFoundError("No module named 'haiku'", name="haiku")
        raise AssertionError("nobody should be measured")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
        module.run("script.py", make, WHO, [4], [])

    return call


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--who", "nnx"], "nobody is called 'nnx', did you mean 'Flax nnx'?"),
        (["--who", "ptree", "flax"], "nobody is called 'flax', did you mean 'Flax linen' or 'Flax nnx'?"),
        (["--who", "Hakiu"], "nobody is called 'Hakiu', did you mean 'Haiku'?"),
        (["--who", "zzz", "haiku"], "nobody is called 'zzz'; nobody is called 'haiku', did you mean 'Haiku'? (there are"
         " 'ptree', 'by hand', 'Flax linen', 'Flax nnx', 'Haiku')"),
        (["--rounds", "0"], "expected a number of at least 1, got 0"),
        (["--sizes", "4", "-1"], "expected a number of at least 1, got -1"),
        (["--json", "/no/such/folder/a.json"], "there is no folder /no/such/folder"),
    ],
)  # fmt: skip
def test_a_command_line_that_cannot_be_measured_is_refused_at_once(turns, capsys, arguments, text):
    with pytest.raises(SystemExit) as stopped:
        turns(*arguments)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err.replace("\n", " ")


def test_a_package_that_is_not_installed_is_named(turns):
    with pytest.raises(SystemExit, match=r"^Haiku needs the package 'haiku', which is not installed$"):
        turns("--child", "Haiku", "4")


def test_every_script_with_names_goes_through_this():
    for script in BENCHMARKS.glob("[a-z]*.py"):
        text = script.read_text()
        assert '"--who"' not in text, script.name
