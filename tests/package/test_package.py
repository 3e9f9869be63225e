"""The face of the package: what it exports, and what importing it costs and touches."""

import ast
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from slow import SLOW

import ptree as pt

ROOT = Path(pt.__file__).parent
PROJECT = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

NAMESPACES = {"convert", "initializers", "look", "nn", "random", "shard", "sharing", "stacks", "train"}


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


def imports():
    """(file, absolute name of what is imported, whether only in a function or for types) for all files of the package."""
    for file in ROOT.rglob("*.py"):
        tree = ast.parse(file.read_text())
        outer = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
        outer += [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        inner = {id(node) for part in outer for node in ast.walk(part)}
        folder = ["ptree", *file.parent.relative_to(ROOT).parts]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = folder[: len(folder) - node.level + 1] if node.level else []
                module = ".".join([*start, *filter(None, [node.module])])
                names = [f"{module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                yield file.relative_to(ROOT), name, id(node) in inner


ROOMS = [
    "__main__",
    "_command_line",
    "convert",
    "train",
    "shard",
    "nn",
    "look",
    "files",
    "_draw",
    "_shardings",
    "stacks",
    "_ties",
    "_edit",
    "_tree",
    "initializers",
    "_foreign",
    "_stored",
    "_paths",
    "_words",
    "_terminal",
    "_jaxprs",
    "_numbers",
    "_errors",
    "_garbage_collection",
    "_imports",
]
APART = {"nn", "files"}
"""These do not import each other, and only `look` imports one of them: it looks at the files that are loaded."""
WITHOUT_JAX = ["look", "_foreign", "_stored", "_paths"]
"""Importing these does not import JAX, so that the command line looks at a file at once."""


def test_each_room_imports_only_rooms_below_it():
    for file, name, _ in imports():
        room, target = file.parts[0].removesuffix(".py"), name.split(".")[1:2]
        if not name.startswith("ptree.") or room not in ROOMS or target == [room]:
            continue
        assert target[0] in ROOMS, f"{file} imports {name}"
        assert ROOMS.index(room) < ROOMS.index(target[0]), f"{file} imports {name}"
        assert not {room, *target} <= APART, f"{file} imports {name}"


def distribution(requirement):
    return re.match(r"[\w-]+", requirement)[0].replace("-", "_")


def test_what_is_imported_is_what_is_required():
    foreign = {(name.split(".")[0], inner) for _, name, inner in imports()}
    foreign = {
        (name, inner) for name, inner in foreign if name not in sys.stdlib_module_names | {"ptree", "_ptree_command"}
    }
    required = {distribution(requirement) for requirement in PROJECT["dependencies"]}
    assert {name for name, inner in foreign if not inner} <= required
    assert required <= {name for name, _ in foreign}
    assert {name for name, _ in foreign} - required == {
        "equinox",
        "etils",
        "fsspec",
        "flax",
        "gguf",
        "keras",
        "onnx",
        "h5py",
        "matplotlib",
        "orbax",
        "torch",
        "treescope",
    }


def test_messages_name_extras_that_there_are():
    pages = [ROOT.parent / "README.md", *(ROOT.parent / "examples").rglob("*.md")]
    texts = [file.read_text() for file in [*ROOT.rglob("*.py"), *pages]]
    named = {extra for text in texts for extra in re.findall(r"ptree-jax\[(\w+)\]", text)}
    assert "orbax" in named
    assert named <= EXTRAS.keys()
    assert not any("ptree[" in text for text in texts)


def test_each_slow_test_is_there():
    files = Path(__file__).parents[1].rglob("test_*.py")
    names = {name for file in files for name in re.findall(r"^ *def (test_\w+)", file.read_text(), flags=re.MULTILINE)}
    assert names >= SLOW


def test_importing_starts_no_backend_and_loads_nothing_heavy():
    code = (
        "import dataclasses, sys, jax\n"
        "before, made, dataclass = set(sys.modules), [], dataclasses.dataclass\n"
        "dataclasses.dataclass = lambda *args, **options: made.append(args) or dataclass(*args, **options)\n"
        "import ptree\n"
        "assert len(made) <= 1, 'each dataclass takes as long as three small modules'\n"
        "lazy = {f'ptree.{name}' for name in ('_edit', '_ties', '_draw', 'random', 'initializers', 'nn', 'files', 'look', 'convert', 'shard', 'train')}\n"
        "assert not lazy & set(sys.modules), lazy & set(sys.modules)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, 'a backend was started'\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= {'ptree'}, new"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", WITHOUT_JAX)
def test_what_looks_at_files_does_not_import_jax(room):
    code = f"import sys, ptree.{room}; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_trees_are_registered_when_jax_is_imported_after_ptree():
    code = "import ptree, sys; assert 'jax' not in sys.modules; import jax; assert 'ptree._tree' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ptree' has no attribute 'lod'"):
        pt.lod  # pyright: ignore


def test_tests_need_no_more_than_the_extra_they_are_installed_with():
    """The README's test command installs `.[test]`: a module that imports more when it is collected would end the run."""
    others = {
        "torch",
        "torchcrepe",
        "transformers",
        "tensorflow",
        "mxnet",
        "tensorboard",
        "pyarrow",
    }
    found = []
    for file in (ROOT.parent / "tests").rglob("*.py"):
        if file.parent.name in ("samples", "cookbook"):  # not collected; a test imports those that it can
            continue
        after_check = False
        for node in ast.parse(file.read_text()).body:
            after_check = after_check or "importorskip" in ast.unparse(node)
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if not after_check and any(name.partition(".")[0] in others for name in names):
                found.append(f"{file.name}: {ast.unparse(node)}")
    assert not found
