"""The public modules, names and objects of the package, and the source of its classes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pdoc.doc_ast

PACKAGE = "ptree"


def public_modules() -> list[ModuleType]:
    """The package, and the modules among its public names."""
    package = import_module(PACKAGE)
    values = [getattr(package, name) for name in package.__all__]
    return [package, *(value for value in values if isinstance(value, ModuleType))]


def public_objects() -> Iterator[tuple[str, str, object]]:
    """(module, name, object) for each public name. Reading a name also imports what the package imports late."""
    for module in public_modules():
        for name in module.__all__:
            yield module.__name__, name, getattr(module, name)


def public_addresses() -> dict[int, str]:
    """The id of each public object -> its public name, `ptree.nn.Dense`; an object with two has the shorter one."""
    addresses: dict[int, str] = {}
    for module, name, value in public_objects():
        addresses.setdefault(id(value), f"{module}.{name}")
    return addresses


def modules_with(name: str, value: object) -> Iterator[ModuleType]:
    """The package's modules in which this name is this object, its own module among them."""
    for module in [*sys.modules.values()]:
        if getattr(module, "__name__", "").startswith(PACKAGE) and vars(module).get(name) is value:
            yield module


def class_source(cls: type) -> str:
    """The source of a class; `inspect` does not find it where the class names its public module instead of its own."""
    for module in modules_with(cls.__name__, cls):
        for node in pdoc.doc_ast.parse(module).body:
            if getattr(node, "name", "") == cls.__name__:
                lines = inspect.getsource(module).splitlines(keepends=True)
                return "".join(lines[node.lineno - 1 : node.end_lineno])
    return ""


def use_public_names() -> None:
    """Give each public class the name and module by which it is used; pdoc still finds its source."""
    classes = {value: (module, name) for module, name, value in public_objects() if isinstance(value, type)}
    bases = {base for cls in classes for base in cls.__mro__ if base.__module__.startswith(PACKAGE)}
    sources = {base: class_source(base) for base in bases}
    for cls, (module, name) in classes.items():
        cls.__module__, cls.__name__, cls.__qualname__ = module, name, name
    find_source = pdoc.doc_ast.get_source

    def get_source(value: object) -> str:
        known = isinstance(value, type) and value in sources
        return sources[value] if known else find_source(value)

    pdoc.doc_ast.get_source = get_source
