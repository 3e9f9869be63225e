"""ModuleNames: `names=` of a layer table, patterns of the model's module paths -> paths of modules in another framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..._errors import PatternError
from ..._words import describe, lines, quoted, suggestion
from .._table.names import NamePattern
from .._table.row import parsed_row


@dataclass(frozen=True)
class _Renaming:
    """Paths of layers, and the paths of their modules."""

    source: NamePattern
    target: NamePattern | None
    """None for the module of the whole model, whose path is empty."""

    def module_of(self, path: str) -> str | None:
        """The path of a layer's module; None for a layer that the pattern does not match."""
        captures = self.source.read(path)
        if captures is None:
            return None
        return "" if self.target is None else self.target.write(self.source.translate(captures, self.target))


class ModuleNames:
    """The modules that `names` gives another path; it notes which of its patterns match some layer."""

    def __init__(self, names: Mapping[str, str] | None):
        if names is not None and not isinstance(names, Mapping):
            raise PatternError(
                f"names is a dict, paths of layers -> paths of modules, such as {{'0': 'encoder.dense'}}; got {describe(names)}"
            )
        given = dict(names or {})
        root = given.pop("", "")
        if not isinstance(root, str):
            raise PatternError(f"names: the module of the whole model, '', is a path; got {describe(root)}")
        self.root = root.replace(".", "/")
        """The path of the whole model's module."""
        self._renamings = _parsed(given)
        self._used: set[str] = set()
        self._seen: list[str] = []

    def module_of(self, path: str) -> str | None:
        """The module of a layer, if a pattern matches its path; the first pattern that does."""
        self._seen.append(path)
        for pattern, renaming in self._renamings.items():
            module = renaming.module_of(path)
            if module is not None:
                self._used.add(pattern)
                return module
        return None

    def problems(self) -> list[str]:
        """A sentence for each pattern that matches no layer."""
        unused = [pattern for pattern in self._renamings if pattern not in self._used]
        return [f"names: no layer {quoted(pattern)}.{suggestion(pattern, self._seen)}" for pattern in unused]


def _parsed(names: Mapping[str, str]) -> dict[str, _Renaming]:
    renamings: dict[str, _Renaming] = {}
    problems: list[str] = []
    for pattern, module in names.items():
        try:
            renamings[pattern] = _renaming(pattern, module)
        except PatternError as error:
            problems.append(f"names: {error}")
    if problems:
        raise PatternError(lines(problems))
    return renamings


def _renaming(pattern: str, module: str) -> _Renaming:
    if module == "":
        return _Renaming(NamePattern(pattern), None)
    if not isinstance(pattern, str) or not isinstance(module, str):
        raise PatternError(
            f"expected a path of a layer -> a path of a module; got {quoted(pattern)} -> {quoted(module)}"
        )
    row = parsed_row(pattern, module)
    return _Renaming(row.sources[0], row.targets[0])
