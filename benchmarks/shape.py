"""Claim: the code is as easy to read as that of the libraries that it learns from.

Run it with `python benchmarks/shape.py`; `--details` also names what was counted. It prints the same numbers for ptree and for
those of its models that are installed, counted by the same code, without tests:

- branches per 100 lines of code, functions with more than 10, and functions that call themselves;
- annotations that are plain `Any`, and comments per 100 lines;
- how often a call goes from a function of one file to one of another: `set` of a tied leaf and of a tied node, `save`, and
  `load(like=)` of an MLP with a tied layer; for Equinox `tree_at`, and leaves to a file and back;
- modules that import each other in a cycle, also for types alone; imports inside a function of what is neither optional nor slow;
- how often a search for the name and the first line of a function finds its file, first or among the first three, by the
  names of the files and the first paragraph of their docstrings.

They say where to look. A function that is cut at a random line to please a counter is worse than before.
"""

import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import _finding as finding
import _modules as source
import equinox as eqx
import jax
import jax.numpy as jnp
from _command import keep_rows, parser_of
from _modules import Module
from _results import Aim, Row

import ptree as pt
from ptree import nn

MODELS = {
    "Equinox": ("equinox", ""),
    "optax": ("optax", ""),
    "Haiku": ("haiku", ""),
    "Orbax v1": ("orbax", "checkpoint/experimental/v1"),
    "chex": ("chex", ""),
    "Flax": ("flax", ""),
}
"""Title -> the package, and the folder in it."""

OPTIONAL = ("jax.extend", "matplotlib", "orbax", "torch")
SLOW = ("concurrent.futures", "difflib", "hashlib", "importlib", "tqdm")


class Measure(NamedTuple):
    """A number, the target for ptree's, and what was counted."""

    title: str
    aim: Aim | None
    value: float
    unit: str = ""
    details: Sequence[str] = ()


def at_most(limit: float) -> Aim:
    return Aim(limit, "value")


def at_least(limit: float) -> Aim:
    return Aim(limit, "value", "at least")


def density(modules: Sequence[Module]) -> Measure:
    share = 100 * sum(map(source.branches, modules)) / sum(map(source.code_lines, modules))
    return Measure("branches per 100 code lines", at_most(16), share)


def long_functions(modules: Sequence[Module]) -> Measure:
    total, details = 0, []
    for module in modules:
        for function in module.functions():
            if source.is_overload(function):
                continue
            total += 1
            count = source.complexity(function)
            if count > 10:
                details.append(f"{module.path}:{function.lineno} {function.name}: {count}")
    return Measure("functions over 10 branches", at_most(3), 100 * len(details) / total, "%", details)


def recursive_functions(modules: Sequence[Module]) -> Measure:
    details = [
        f"{module.path}:{function.lineno} {function.name}"
        for module in modules
        for function in module.functions()
        if source.is_recursive(function)
    ]
    return Measure("directly recursive functions", at_most(14), len(details), "", details)


def any_annotations(modules: Sequence[Module]) -> Measure:
    counts = {module.path: source.annotations(module) for module in modules}
    plain = {path: sum(given in ("Any", "typing.Any") for given in found) for path, found in counts.items()}
    share = 100 * sum(plain.values()) / sum(map(len, counts.values()))
    details = [f"{path}: {plain[path]} of {len(found)}" for path, found in counts.items() if plain[path]]
    return Measure("annotations that are `Any`", at_most(10), share, "%", details)


def comments(modules: Sequence[Module]) -> Measure:
    share = 100 * sum(map(source.comment_lines, modules)) / sum(map(source.text_lines, modules))
    return Measure("comments per 100 lines", at_least(5), share)


def import_cycles(modules: Sequence[Module]) -> Measure:
    details = [" ".join(cycle) for cycle in source.import_cycles(source.import_graph(modules))]
    return Measure("import cycles", at_most(0), len(details), "", details)


def inner_imports(modules: Sequence[Module]) -> Measure:
    details: list[str] = []
    for module in modules:
        for imported in source.imports(module):
            excused = any(f"{imported.target}.".startswith(f"{name}.") for name in OPTIONAL + SLOW)
            if imported.in_function and not excused:
                details.append(f"{module.path}:{imported.line} {imported.target}")
    return Measure("imports inside functions", at_most(0), len(details), "", details)


def found_files(modules: Sequence[Module]) -> list[Measure]:
    files = [module for module in modules if not module.is_package]
    search = finding.Search(files)
    first, among, total, details = 0, 0, 0, []
    for module in files:
        for question in finding.questions(module):
            best = search.best(question, 3)
            total += 1
            first += best[:1] == [module.path]
            among += module.path in best
            if best[:1] != [module.path]:
                details.append(f"{module.path}: {question!r}; found {best}")
    return [
        Measure("a search for a function finds its file first", at_least(60), 100 * first / total, "%", details),
        Measure("... among the first three", at_least(80), 100 * among / total, "%"),
    ]


def lines(modules: Sequence[Module]) -> Measure:
    return Measure("code lines", None, sum(map(source.code_lines, modules)))


def measures(modules: Sequence[Module]) -> list[Measure]:
    return [
        density(modules),
        long_functions(modules),
        recursive_functions(modules),
        any_annotations(modules),
        comments(modules),
        import_cycles(modules),
        inner_imports(modules),
        *found_files(modules),
        lines(modules),
    ]


def calls_into_other_files(folder: Path, call: Callable[[], object]) -> int:
    """Count how often a call goes on in another file of this folder; the first call, which fills caches, does not count."""
    call()
    files: list[str] = []

    def enter(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(f"{folder}/") and not code.co_name.startswith("<"):
            files.append(code.co_filename)

    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(None)
    return sum(before != after for before, after in pairwise(files))


def calls_of_ptree(folder: Path, file: str) -> list[Measure]:
    net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(8), jax.nn.relu, nn.Dense(8), jax.nn.relu, nn.Dense(1))
    params = pt.init(pt.tie(net.spec(jnp.ones((2, 4))), {"4": "2"}), jax.random.key(0))
    bias, node = jnp.ones(8), {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}
    pt.save(file, params)
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "set of a tied leaf": (6, lambda: pt.set(params, "4/bias", bias)),
        "set of a tied node": (30, lambda: pt.set(params, "4", node)),
        "save": (50, lambda: pt.save(file, params)),
        "load(like=)": (120, lambda: pt.load(file, like=params)),
    }
    return [
        Measure(f"calls into another file: {what}", at_most(most), calls_into_other_files(folder, call))
        for what, (most, call) in calls.items()
    ]


def calls_of_equinox(folder: Path, file: str) -> list[int]:
    mlp = eqx.nn.MLP(4, 1, 8, 3, key=jax.random.key(0))
    layer = eqx.nn.Linear(8, 8, key=jax.random.key(1))
    return [
        calls_into_other_files(folder, lambda: eqx.tree_at(lambda tree: tree.layers[1].bias, mlp, jnp.ones(8))),
        calls_into_other_files(folder, lambda: eqx.tree_at(lambda tree: tree.layers[1], mlp, layer)),
        calls_into_other_files(folder, lambda: eqx.tree_serialise_leaves(file, mlp)),
        calls_into_other_files(folder, lambda: eqx.tree_deserialise_leaves(file, mlp)),
    ]


def folder_of(package: str) -> Path | None:
    """Find the folder of a package; None if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def rows(ours: list[Measure], others: dict[str, list[float]]) -> Iterator[Row]:
    """A row for each measure of ptree, and of the others that have it."""
    for at, measure in enumerate(ours):
        yield Row(measure.title, "ptree", measure.value, measure.unit, aim=measure.aim)
        for title, values in others.items():
            if at < len(values):
                yield Row(measure.title, title, values[at], measure.unit, in_file_only=True)


def main() -> None:
    parser = parser_of([])
    parser.add_argument("--details", action="store_true", help="name what was counted in ptree")
    given = parser.parse_args()

    home = Path(pt.__file__).parent
    ours = measures(source.read_package(home, "ptree"))
    others: dict[str, list[float]] = {}
    for title, (package, below) in MODELS.items():
        folder = folder_of(package)
        if folder is not None:
            name = ".".join([package, *Path(below).parts])
            others[title] = [measure.value for measure in measures(source.read_package(folder / below, name))]
    with tempfile.TemporaryDirectory() as scratch:
        ours += calls_of_ptree(home, f"{scratch}/m.safetensors")
        others["Equinox"] += calls_of_equinox(Path(eqx.__file__).parent, f"{scratch}/m.eqx")

    keep_rows(rows(ours, others), given.json, ["equinox", "optax", "dm-haiku", "orbax-checkpoint", "chex", "flax"])
    if given.details:
        for measure in ours:
            if measure.details:
                print("", f"{measure.title}: {measure.value:.3g}", *measure.details, sep="\n  ")


if __name__ == "__main__":
    main()
