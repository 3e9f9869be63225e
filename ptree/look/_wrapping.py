"""Wrap a text into lines of at most so many columns of a terminal: behind a space, else behind a slash or a dot of a name."""

from __future__ import annotations

from .._words import columns

INDENT = "  "


def wrapped(text: str, width: int, *, indent: str = INDENT) -> list[str]:
    """Break a text into lines of at most `width` columns, of which all but the first begin with `indent`.

    >>> wrapped("encoder/layer/0/weight", 12)
    ['encoder/', '  layer/0/', '  weight']
    >>> wrapped("148 parameters, 584 B", 15, indent="")
    ['148 parameters,', '584 B']

    A line ends behind a space of its second half; where there is none behind a slash, else a dot, else inside of a word.
    Nothing but spaces is left out.
    """
    found: list[str] = []
    begin = ""
    while columns(begin) + columns(text) > width:
        stop = _end_of_line(text, width - columns(begin))
        found.append((begin + text[:stop]).rstrip())
        text, begin = text[stop:].lstrip(), indent
    return [*found, begin + text]


def _end_of_line(text: str, width: int) -> int:
    """How many characters of a text go into a line of so many columns; at least one."""
    fits = max(width, 1)
    while fits > 1 and columns(text[:fits]) > width:
        fits -= 1
    half = fits // 2
    space = text.rfind(" ", half, fits + 1)  # the space behind the last word is left out
    if space >= 0:
        return space + 1
    separator = text.rfind("/", half, fits)
    if separator < 0:
        separator = text.rfind(".", half, fits)
    return fits if separator < 0 else separator + 1
