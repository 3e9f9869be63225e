"""Import late: the names of a package when they are first used, and a function that waits until a library is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_Path = Sequence[str] | None


def late_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package that imports its modules when a name of them is first used.

    Args:
        package: its name.
        modules: each module of the package -> its names, with spaces between them; a module may be a name itself.
    """
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{module_of[name]}")
        value = module if name == module_of[name] else getattr(module, name)
        setattr(sys.modules[package], name, value)  # so that it is found without this function from now on
        return value

    return get


def when_imported(name: str, function: Callable[[ModuleType], object]) -> None:
    """Call the function with the module of this name: now if it is there, else right after its import."""
    module = sys.modules.get(name)
    if module is not None:
        function(module)
        return
    sys.meta_path.insert(0, _Finder(name, function))


class _Finder:
    """Finds one module as Python would, and calls a function when its code has run; then it is gone."""

    def __init__(self, name: str, function: Callable[[ModuleType], object]):
        self.name, self.function = name, function

    def find_spec(self, name: str, path: _Path = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)  # the search below comes by here
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            # a loader of one's own would hide what `inspect` and others ask of Python's
            setattr(spec.loader, "exec_module", self._then_called(spec.loader.exec_module))  # noqa: B010
        return spec

    def _then_called(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def execute_and_call(module: ModuleType) -> None:
            execute(module)
            self.function(module)

        return execute_and_call
