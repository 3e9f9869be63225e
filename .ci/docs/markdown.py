"""Docstrings as the Markdown that pdoc reads."""

from __future__ import annotations

import re
from importlib import import_module
from types import ModuleType

from public_names import PACKAGE


def as_markdown(docstring: str, module: ModuleType) -> str:
    """A docstring as pdoc should read it: examples as fenced blocks, and classes of `ptree` with their module.

    Markdown takes a line of dashes in an example for a heading if it has no fence, and the stars of `**options` for bold letters.
    """
    text = re.sub(r"^( *)>>> (?:.*\n?)(?:^\1\S.*\n?|^\1  +\S.*\n?)*", _fenced, docstring, flags=re.MULTILINE)

    def with_module(name: re.Match[str]) -> str:
        is_elsewhere = name[1] in import_module(PACKAGE).__all__ and name[1] not in module.__all__
        return f"`{PACKAGE}.{name[1]}`" if is_elsewhere else name[0]

    text = re.sub(
        r"^    (\*+)(\w+:)", lambda found: "    " + r"\*" * len(found[1]) + found[2], text, flags=re.MULTILINE
    )
    return re.sub(r"`([A-Z]\w+)`", with_module, text)


def _fenced(example: re.Match[str]) -> str:
    indent = example[1]
    return f"{indent}```pycon\n{example[0].rstrip()}\n{indent}```\n"
