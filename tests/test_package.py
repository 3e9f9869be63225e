"""The face of the package: what it exports, and what importing it costs and touches."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

import ptree as pt

ROOT = Path(pt.__file__).parent


NAMESPACES = {"initializers", "nn", "random", "sharing", "stacks"}


def test_all_is_exactly_what_is_exported():
    public = {name for name in vars(pt) if not name.startswith("_")} | set(dir(pt))
    modules = {name for name in public if isinstance(getattr(pt, name), types.ModuleType)}
    assert public - modules | NAMESPACES == set(pt.__all__)
    assert len(pt.__all__) == len(set(pt.__all__))
    assert len([name for name in pt.__all__ if not name.endswith("Error") and name not in NAMESPACES]) < 40


@pytest.mark.parametrize("module", [pt, *(getattr(pt, name) for name in sorted(NAMESPACES))], ids=lambda m: m.__name__)
def test_every_public_name_says_what_it_is(module):
    names = getattr(module, "__all__", [n for n in dir(module) if n[0] != "_" and n not in ("annotations",)])
    for name in names:
        value = getattr(module, name)
        assert value.__doc__, name
        if isinstance(value, types.FunctionType) and module is pt:
            assert ">>>" in value.__doc__, f"{name} has no example"


def test_public_classes_say_where_they_are_used_from():
    for name in pt.__all__:
        value = getattr(pt, name)
        if isinstance(value, type):
            assert value.__module__ == "ptree", name


def test_the_layout_on_disk_has_no_drawers():
    names = {path.stem for path in ROOT.rglob("*.py")}
    assert not names & {"utils", "misc", "helpers", "common", "base", "_utils", "_helpers", "_common", "_base"}


def test_importing_starts_no_backend_and_loads_nothing_heavy():
    code = (
        "import sys, jax; before = set(sys.modules); import ptree\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a backend was started'\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= {'ptree'}, new"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ptree' has no attribute 'lod'"):
        pt.lod  # pyright: ignore
