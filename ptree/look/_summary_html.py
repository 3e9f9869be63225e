"""Write a summary as a table of HTML, for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from .._words import printable
from ._summary_lines import Line, lines_of
from ._summary_text import blocks_of, footer_of, main_dtype

if TYPE_CHECKING:
    from ._summary import Summary

_ROOM = 60  # columns for the leaves of a node in its own row


def summary_html(summary: Summary) -> str:
    """The table of a summary as HTML for a notebook; names are inert, and markup in them is escaped."""
    dtype = main_dtype(summary.by_dtype)
    rows = [_html_row(line, summary.count) for line in lines_of(blocks_of(summary), dtype, lambda size: _ROOM)]
    caption = f"<caption style='text-align:left'>{escape(printable(summary.title))}</caption>" if summary.title else ""
    footer = "<br>".join(escape(text) for text in footer_of(summary))
    return (
        f"<table style='font-family:monospace;white-space:pre;text-align:left'>{caption}<tbody>{''.join(rows)}</tbody>"
        f"<tfoot><tr><td colspan='5' style='text-align:left'>{footer}</td></tr></tfoot></table>"
    )


def _html_row(line: Line, whole: int) -> str:
    cells = [escape(line.label), escape(line.contents)]
    numbers = ["", "", ""]
    if line.size is not None:
        share = line.size.count / whole if whole else 0.0
        bar = f"<div style='background:#4c78a8;height:0.7em;width:{share * 8:.3f}em'></div>"
        numbers = [f"{line.size.count:,}", f"{share:.1%}", bar]
    left = "".join(f"<td style='text-align:left'><bdi>{cell}</bdi></td>" for cell in cells)
    right = "".join(f"<td style='text-align:right'>{cell}</td>" for cell in numbers[:2])
    return f"<tr>{left}{right}<td style='width:8em'>{numbers[2]}</td></tr>"
