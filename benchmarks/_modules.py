"""The modules of a package as text and as syntax trees, and what can be counted in them."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

TESTS = {"tests", "test", "testing", "_tests"}
BRANCHES = (ast.If, ast.For, ast.While, ast.IfExp, ast.ExceptHandler, ast.comprehension)
DIRECTIVE = re.compile(
    r"#\s*(type:|pyright|noqa|fmt|pylint|mypy|ruff|Copyright|Licensed|you may not|You may|http|Unless|distributed|WITHOUT"
    r"|See the|limitations)"
)
"""A comment for a program, or a line of a licence."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One file of a package, without its tests."""

    name: str
    """With dots: `ptree.nn`."""
    path: str
    """Below the package's folder: `nn/__init__.py`."""
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]


@dataclass(frozen=True)
class Import:
    """One name that a module imports."""

    module: str
    """The module that it is written in."""
    target: str
    """Absolute, with dots; of `from .. import x`, the name of `x`."""
    line: int
    in_function: bool


def read_package(folder: Path, name: str) -> list[Module]:
    """Read all modules below a folder, but for tests."""
    modules: list[Module] = []
    for file in sorted(folder.rglob("*.py")):
        path = file.relative_to(folder)
        if TESTS.intersection(path.parts) or path.name.startswith("test_") or path.name.endswith("_test.py"):
            continue
        parts = [name, *path.with_suffix("").parts]
        if parts[-1] == "__init__":
            parts.pop()
        text = file.read_text(encoding="utf8")
        modules.append(Module(".".join(parts), path.as_posix(), text, ast.parse(text)))
    return modules


def code_lines(module: Module) -> int:
    """Count the lines of code: without docstrings, comments, empty lines and imports."""
    docstrings: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            docstrings.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    count = 0
    for number, line in enumerate(module.text.split("\n"), 1):
        line = line.strip()
        if line and number not in docstrings and not line.startswith(("#", "import ", "from ")):
            count += 1
    return count


def text_lines(module: Module) -> int:
    """Count the lines that are neither empty nor a comment."""
    lines = [line.strip() for line in module.text.split("\n")]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def comment_lines(module: Module) -> int:
    """Count the comments that speak to a person."""
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(DIRECTIVE.match(comment) is None for comment in comments)


def branches(module: Module) -> int:
    """Count what takes one way or another: `if`, loops, ternaries, `except`, comprehensions."""
    return sum(isinstance(node, BRANCHES) for node in ast.walk(module.tree))


def complexity(function: Function) -> int:
    """Count the ways through a function: branches, conditions in them, `and`, `or`, `assert` and `case`, and one."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, (*BRANCHES, ast.Assert, ast.match_case)):
            count += 1
        if isinstance(node, ast.comprehension):
            count += len(node.ifs)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def is_overload(function: Function) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in function.decorator_list)


def is_recursive(function: Function) -> bool:
    """Whether the function calls its own name; a method does so as `self.name`, which is not counted."""
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(isinstance(call, ast.Name) and call.id == function.name for call in calls)


def annotations(module: Module) -> list[str | None]:
    """List the annotation of each argument and each result; None where there is none."""
    found: list[ast.expr | None] = []
    for function in module.functions():
        arguments = function.args
        for argument in chain(arguments.posonlyargs, arguments.args, arguments.kwonlyargs):
            if argument.arg not in ("self", "cls"):
                found.append(argument.annotation)
        found.append(function.returns)
    return [None if annotation is None else ast.unparse(annotation) for annotation in found]


def imports(module: Module) -> list[Import]:
    """List every name that a module imports, also those for type checkers alone."""
    inner = {id(node) for function in module.functions() for node in ast.walk(function)}
    return [
        Import(module.name, target, node.lineno, id(node) in inner)
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for target in _targets(node, module)
    ]


def _targets(node: ast.Import | ast.ImportFrom, module: Module) -> Iterator[str]:
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.Import):
        yield from names
        return
    start = node.module or ""
    if node.level:
        above = node.level - 1 if module.is_package else node.level
        parents = module.name.split(".")
        start = ".".join([*parents[: len(parents) - above], *start.split(".")]).rstrip(".")
    for name in names:
        yield f"{start}.{name}"


def import_graph(modules: Sequence[Module]) -> dict[str, set[str]]:
    """Give the modules that each module imports; a name from a package counts for the file that the package has it from."""
    known = {module.name for module in modules}
    lists = {module.name: imports(module) for module in modules}
    origins: dict[str, str] = {}
    for module in modules:
        if module.is_package:
            for imported in lists[module.name]:
                origins[f"{module.name}.{imported.target.rpartition('.')[2]}"] = imported.target
    graph: dict[str, set[str]] = {}
    for module in modules:
        if not module.is_package:
            targets = {_file_of(imported.target, known, origins) for imported in lists[module.name]}
            graph[module.name] = targets - {module.name, ""}
    return graph


def _file_of(target: str, known: set[str], origins: dict[str, str]) -> str:
    """Follow a name through the packages that hand it on, to its module; "" where it is none of these modules."""
    passed: set[str] = set()
    while target in origins and target not in known and target not in passed:
        passed.add(target)
        target = origins[target]
    if target in known:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in known else ""


def import_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """List the groups of modules that import each other, directly or not."""
    reached = {name: _reachable(graph, name) for name in graph}
    groups: set[frozenset[str]] = set()
    for name in graph:
        if name in reached[name]:
            groups.add(frozenset(other for other in reached[name] if name in reached.get(other, ())))
    return [sorted(group) for group in groups]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in reached:
                reached.add(target)
                waiting.append(target)
    return reached
