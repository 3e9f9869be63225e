"""ModuleNames: `names=` of a layer table, patterns of the model's module paths -> paths of modules in another framework."""

from __future__ import annotations

from collections.abc import Mapping

from ..._errors import PatternError
from ..._words import describe, lines, quoted, suggestion
from .._table.row import Row, parsed_row


class ModuleNames:
    """The modules that `names` gives another path; it notes which of its patterns match some layer."""

    def __init__(self, names: Mapping[str, str] | None):
        if names is not None and not isinstance(names, Mapping):
            raise PatternError(
                f"names is a dict, paths of layers -> paths of modules, such as {{'0': 'encoder.dense'}}; got {describe(names)}"
            )
        given = dict(names or {})
        self.root: str = given.pop("", "").replace(".", "/")
        """The path of the whole model's module."""
        self._rows: dict[str, Row] = _parsed(given)
        self._used: set[str] = set()
        self._seen: list[str] = []

    def module_of(self, path: str) -> str | None:
        """The module of a layer, if a pattern matches its path; the first pattern that does."""
        self._seen.append(path)
        for pattern, row in self._rows.items():
            (source,), (target,) = row.sources, row.targets
            captures = source.read(path)
            if captures is None:
                continue
            module = target.write(source.translate(captures, target))
            if module is not None:
                self._used.add(pattern)
                return module
        return None

    def problems(self) -> list[str]:
        """A sentence for each pattern that matches no layer."""
        unused = [pattern for pattern in self._rows if pattern not in self._used]
        return [f"names: no layer {quoted(pattern)}.{suggestion(pattern, self._seen)}" for pattern in unused]


def _parsed(names: Mapping[str, str]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    problems: list[str] = []
    for pattern, module in names.items():
        try:
            rows[pattern] = parsed_row(pattern, module)
        except PatternError as error:
            problems.append(f"names: {error}")
    if problems:
        raise PatternError(lines(problems))
    return rows
