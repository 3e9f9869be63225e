"""Call a function once a module is imported, so that an optional library is not imported for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_Path = Sequence[str] | None


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
