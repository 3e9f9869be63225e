"""LayerForms: `forms=` of a layer table, for layers that a framework has in several forms, with other layouts."""

from __future__ import annotations

from collections.abc import Mapping

from ..._errors import PatternError
from ..._words import describe, lines, quoted
from ...nn import Layer
from .._table.names import NamePattern
from .framework import Framework, NoEqualError


class LayerForms:
    """The forms of layers by patterns of their paths; it notes which patterns match a layer that has this form."""

    def __init__(self, forms: Mapping[str, str] | None, framework: Framework):
        if forms is not None and not isinstance(forms, Mapping):
            raise PatternError(
                f"forms is a dict, paths of layers -> forms, such as {{'2': 'transpose_kernel'}}; got {describe(forms)}"
            )
        self._framework = framework
        self._forms = dict(forms or {})
        self._patterns = _parsed(self._forms)
        self._used: set[str] = set()

    def form_of(self, path: str, layer: Layer) -> str:
        """The form of a layer; empty for the usual one. A pattern may match layers of other classes, which have no forms.

        Raises:
            NoEqualError: a form that this layer does not have.
        """
        for pattern, form in self._forms.items():
            if not self._matches(pattern, path):
                continue
            possible = self._framework.forms.get(type(layer), ())
            if form in possible:
                self._used.add(pattern)
                return form
            if possible:
                raise NoEqualError(f"there is no form {quoted(form)}, only {', '.join(map(quoted, possible))}")
        return ""

    def _matches(self, pattern: str, path: str) -> bool:
        if not path or not pattern:  # the whole model
            return pattern == path
        return self._patterns[pattern].read(path) is not None

    def problems(self) -> list[str]:
        """A sentence for each pattern that matches no layer with such a form."""
        unused = [pattern for pattern in self._forms if pattern not in self._used]
        return [
            f"forms: {quoted(pattern)} matches no layer that may have another form; {self._possible()}"
            for pattern in unused
        ]

    def _possible(self) -> str:
        """The layers that have forms in the framework, and these."""
        forms = [
            f"{kind.__name__} may be {' or '.join(map(quoted, names))}" for kind, names in self._framework.forms.items()
        ]
        return f"in {self._framework.title} {', '.join(forms) or 'no layer has another form'}"


def _parsed(forms: Mapping[str, str]) -> dict[str, NamePattern]:
    """The patterns of layers inside the model, whose path is empty and no pattern."""
    patterns: dict[str, NamePattern] = {}
    problems: list[str] = []
    for text in forms:
        try:
            if text != "":
                patterns[text] = NamePattern(text)
        except PatternError as error:
            problems.append(f"forms: {error}")
    if problems:
        raise PatternError(lines(problems))
    return patterns
