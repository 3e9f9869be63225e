"""Lay out a summary as text of a given width: columns that fit, bars of shares, totals below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..._garbage_collection import collection_paused
from ..._words import columns, in_bytes, padded, printable, quoted, shortened
from .._wrapping import wrapped
from .fold import Block, Size, fold
from .lines import Line, lines_of
from .row import Row
from .totals import SummaryData, Total

_GAP = 2
_NARROWEST = 40
_WIDE_ENOUGH_FOR_SHARES = 60
_WIDE_ENOUGH_FOR_BYTES = 96
_LEAST_ROOM = 32  # columns for names and contents, beside shares
_ROOM_BESIDE_OUTPUTS = 20
_WIDEST_BAR = 20
_NARROWEST_BAR = 8
_LONGEST_NAME = 1000  # columns, in lines as many as it takes
_PROBLEMS_SHOWN = 10
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


class _Column:
    """A column of numbers at the right: its cells, one for each line, and the width of the widest."""

    def __init__(self, cells: Sequence[str]):
        self.cells = cells
        self.width = max(map(columns, cells), default=0)

    def free_beside(self, cell: str) -> int:
        """The columns that a cell leaves free."""
        return self.width - columns(cell)


def summary_text(summary: SummaryData, width: int, *, color: bool) -> str:
    """The table of a summary, at most `width` columns wide."""
    width = max(width, _NARROWEST)
    body = _Table(summary, width).text_lines()
    title = wrapped(_without_middle(printable(summary.title), width), width) if summary.title else []
    footer = [part for text in footer_of(summary) for part in wrapped(_without_middle(text, width), width)]
    widest = max(map(columns, [*(text for text, _ in body), *footer]), default=0)
    rule = "-" * min(widest, width)
    shown = [_colored(text, line) if color else text for text, line in body]
    return "\n".join([*title, *shown, rule, *footer])


def blocks_of(summary: SummaryData) -> tuple[Block, ...]:
    """The rows of a summary as blocks: folded, or one for each row."""
    with collection_paused():
        if summary.fold:
            return fold(summary.rows, depth=summary.depth)
        return tuple(map(_block_of_row, summary.rows))


def _block_of_row(row: Row) -> Block:
    is_alias = row.tied_to is not None
    size = Size(row.count, row.bytes, 0 if is_alias else 1, row.flops or 0)
    return Block(printable(row.path), 1, size, row, row.tied_to or "")


class _Table:
    """The body of the table: a column of names, one of contents, and numbers at the right."""

    def __init__(self, summary: SummaryData, width: int):
        self.summary, self.width = summary, width
        self.lines = self._lines_that_fit()
        self.numbers = self._numbers(self.lines)
        room = width - _width_of(self.numbers)
        labels, contents = _widest_label(self.lines), self._contents_width()
        self.gap = _GAP if labels + _GAP + contents <= room else 1
        self.labels = min(labels, max(room - contents - self.gap, room // 3))
        self.contents = min(contents, room - self.labels - self.gap)
        self.bar = self._bar_width(room - self.labels - self.gap - self.contents - 1)

    def _lines_that_fit(self) -> list[Line]:
        """The lines, in which a node has its leaves beside its name where there is room."""
        blocks, dtype = blocks_of(self.summary), main_dtype(self.summary.by_dtype)
        # with as much in a line as there is, which shows how wide names and numbers are
        lines = lines_of(blocks, dtype, lambda size: self.width)
        numbers = self._numbers(lines)
        room = self.width - _width_of(numbers)
        beside_names = room - _widest_label(lines) - 1
        longest = beside_names if beside_names >= room // 3 else room // 2
        # contents may run into the first column of numbers, as far as that is free
        return lines_of(blocks, dtype, lambda size: longest + numbers[0].free_beside(_count(size)))

    def _numbers(self, lines: Sequence[Line]) -> list[_Column]:
        """The columns of numbers that the width has room for and that say something."""
        summary = self.summary
        found: list[_Column] = []
        if any(line.output is not None for line in lines):
            found.append(_Column(["" if line.output is None else str([*line.output]) for line in lines]))
        found.append(_Column([_count(line.size) for line in lines]))
        if self.width >= _WIDE_ENOUGH_FOR_BYTES and summary.bytes:
            found.append(_Column([in_bytes(line.size.bytes) if line.size else "" for line in lines]))
        if any(line.size and line.size.flops for line in lines):
            found.append(_Column([_flops(line.size) for line in lines]))
        if any(line.output is not None for line in lines) and self.width - _width_of(found) < _ROOM_BESIDE_OUTPUTS:
            found = found[1:]  # names and shapes need the room that the outputs of layers would take
        shares = _Column([_share(line.size, summary.count) for line in lines])
        has_room = self.width - _width_of([*found, shares]) >= _LEAST_ROOM
        if self.width >= _WIDE_ENOUGH_FOR_SHARES and summary.count and has_room:
            found.append(shares)
        return found

    def _contents_width(self) -> int:
        """The columns that the contents need beside the numbers."""
        widest = 0
        for line, number in zip(self.lines, self.numbers[0].cells):
            if line.size is not None:
                widest = max(widest, columns(line.contents) - self.numbers[0].free_beside(number))
        return widest

    def _bar_width(self, left: int) -> int:
        has_shares = self.width >= _WIDE_ENOUGH_FOR_BYTES and self.summary.count > 0
        return min(left, _WIDEST_BAR) if has_shares and left >= _NARROWEST_BAR else 0

    def text_lines(self) -> list[tuple[str, Line]]:
        """The lines of the body as text, each with what it is of."""
        found: list[tuple[str, Line]] = []
        for at, line in enumerate(self.lines):
            found += [(text, line) for text in self._plain(at, line)]
        return found

    def _plain(self, at: int, line: Line) -> list[str]:
        above, label = self._label(line)
        if line.size is None:
            return [*above, *_run_over(label, self.labels + self.gap, line.contents, self.width)]
        free = self.numbers[0].free_beside(self.numbers[0].cells[at])
        more, contents = _fitted(line.contents, self.contents + free)
        text = self._beginning(label, contents)
        stop = self.labels + self.gap + self.contents
        for column in self.numbers:
            stop += _GAP + column.width
            text += padded(column.cells[at], stop - columns(text), right=True)
        if self.bar:
            text += " " + _bar(line.size.count / self.summary.count, self.bar)
        indented = [" " * (self.labels + self.gap) + part for part in more]
        return [*above, text.rstrip(), *indented]

    def _beginning(self, label: str, contents: str) -> str:
        """The label and the contents; a label without contents runs into their column."""
        return padded(label, self.labels) + " " * self.gap + contents if contents else label

    def _label(self, line: Line) -> tuple[list[str], str]:
        """The label in its column; one that is too long stands in lines of its own above."""
        has_both_columns = line.size is not None and not line.contents
        room = self.labels + self.gap + self.contents if has_both_columns else self.labels
        if columns(line.label) <= room:
            return [], line.label
        return wrapped(_without_middle(line.label, self.width), self.width), ""


def _colored(text: str, line: Line) -> str:
    """A line with ANSI codes: ties dimmed, the names of the outermost nodes bold."""
    if line.size is None:
        return f"{_DIM}{text}{_PLAIN}"
    if line.level == 0 and text.startswith(line.label):
        return f"{_BOLD}{line.label}{_PLAIN}{text[len(line.label) :]}"
    return text


# -------------------------------------------------------------------------------- cells


def _widest(texts: Iterable[str]) -> int:
    return max(map(columns, texts), default=0)


def _widest_label(lines: Iterable[Line]) -> int:
    """The widest label that has contents beside it."""
    return _widest(line.label for line in lines if line.contents)


def _width_of(numbers: Iterable[_Column]) -> int:
    return sum(column.width + _GAP for column in numbers)


def _count(size: Size | None) -> str:
    return "" if size is None else f"{size.count:,}"


def _share(size: Size | None, whole: int) -> str:
    return "" if size is None or not whole else f"{size.count / whole:.1%}"


def _flops(size: Size | None) -> str:
    return "" if size is None or not size.flops else in_flops(size.flops)


def in_flops(count: int) -> str:
    """A number of operations in thousands, millions and so on, of which there is at least one: `15.96 GFLOP`."""
    power = min((len(str(count)) - 1) // 3, 5)
    if power == 0:
        return f"{count} FLOP"
    return f"{count / 1000**power:.2f} {'kMGTP'[power - 1]}FLOP"


def _bar(share: float, width: int) -> str:
    """A share as a bar, in eighths of a column; what is more than nothing shows."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def _without_middle(text: str, width: int) -> str:
    """A text as it is; of over 1,000 columns the beginning and the end, in three lines."""
    if columns(text) <= _LONGEST_NAME:
        return text
    return f"{shortened(text, 3 * width)} ({len(text):,} characters)"


def _fitted(contents: str, width: int) -> tuple[list[str], str]:
    """Contents in their column, and what of them goes into lines below."""
    if columns(contents) <= width:
        return [], contents
    first, *more = wrapped(_without_middle(contents, width), width, indent="")
    return more, first


def _run_over(label: str, labels: int, contents: str, width: int) -> list[str]:
    """The line of an alias: its source may run over the columns of numbers, and else goes below."""
    line = padded(label, labels) + contents
    if columns(line) <= width:
        return [line.rstrip()]
    indent = "    "
    below = [indent + part for part in wrapped(_without_middle(contents, width), width - len(indent), indent="")]
    return [label, *below] if label else below


# ------------------------------------------------------------------------------- totals


def main_dtype(by_dtype: dict[str, Total]) -> str:
    """The dtype of most numbers, which is not written at each leaf."""
    return next(iter(by_dtype), "")


def footer_of(summary: SummaryData) -> list[str]:
    """The totals; then the operations, the memory and the damaged leaves, where these are known."""
    leaves = len(summary.leaves)
    parameters = "1 parameter" if summary.count == 1 else f"{summary.count:,} parameters"
    in_leaves = "1 leaf" if leaves == 1 else f"{leaves:,} leaves"
    texts = [f"{parameters}, {in_bytes(summary.bytes)}, {in_leaves}"]
    tied = len(summary.rows) - leaves
    if tied:
        texts[0] += f", {tied:,} tied"
    if summary.by_dtype:
        texts[0] += f"; {_dtypes(summary)}"
    if summary.trainable is not None:
        is_all = summary.trainable == summary.count
        texts[0] += "; all trainable" if is_all else f"; {summary.trainable:,} trainable"
    if summary.flops is not None:
        without = summary.flops.total - sum(summary.flops.by_leaf.values())
        rest = f"; {without:,} of them without parameters" if without else ""
        texts.append(f"a call: {summary.flops}{rest}")
    if summary.memory is not None:
        parts = [f"{name} {in_bytes(size)}" for name, size in summary.memory.items()]
        texts.append(f"compile().memory_analysis(): {', '.join(parts)}")
    return [*texts, *_problems(summary.leaves)]


def _dtypes(summary: SummaryData) -> str:
    """Each dtype with its share, or with its count where that is less than a thousandth; one alone by its name."""
    if len(summary.by_dtype) == 1:
        return printable(next(iter(summary.by_dtype)))
    shown: list[str] = []
    for dtype, total in summary.by_dtype.items():
        share = total.count / summary.count if summary.count else 0.0
        amount = f"{share:.1%}" if share >= 0.001 else f"{total.count:,}"
        shown.append(f"{printable(dtype)} {amount}")
    return ", ".join(shown)


def _problems(rows: Sequence[Row]) -> list[str]:
    damaged = [row for row in rows if row.problem]
    texts = [f"! {quoted(row.path)} {printable(row.problem)}" for row in damaged[:_PROBLEMS_SHOWN]]
    more = len(damaged) - _PROBLEMS_SHOWN
    if more > 0:
        texts.append(f"! and {more:,} more")
    return texts
