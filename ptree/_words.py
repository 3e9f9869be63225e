"""Words of messages and tables: describe a leaf or dtype in short, quote and list names, lines of problems with fixes, nearest
name, column widths."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache

SHOWN = 10
"""How many names a message lists before it counts the rest."""

_MOST_QUOTED = 200  # characters
_MOST_LITERAL = 32  # characters
_MOST_CHARACTERS_COMPARED = 200
_MOST_NAMES_COMPARED = 5000
_NARROWEST_COLUMN = 12
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")  # powers of 1024, as memory is sized


# ------------------------------------------------------------------------------- one name


def printable(name: str, width: int | None = None) -> str:
    r"""Make a name inert for terminals, messages and logs: what is invisible or obeyed becomes an escape that is read.

    >>> print(printable("\x1b[31mβ 日本\n"))
    \x1b[31mβ 日本\n
    >>> printable("model" * 2000, width=15)
    'modelm...lmodel'

    Escaped are control characters, newlines, format characters such as right-to-left marks, lone surrogates, unassigned
    characters, spaces other than the plain one, and letters that have no shape. Markup is left as it is: a page of HTML
    escapes it on its own.

    Args:
        name: any text.
        width: the most columns of a terminal; the middle of a longer name is left out.
    """
    if not (name.isascii() and name.isprintable()):  # nearly every name is both
        name = "".join(map(_inert, name))
    return name if width is None else shortened(name, width)


def printable_path(path: str) -> str:
    """Make a path inert, and write names in it that are empty as `''`.

    >>> print(printable_path(""), printable_path("enc//w"), printable_path("enc/w"))
    '' enc/''/w enc/w
    """
    has_empty_name = not path or path[0] == "/" or path[-1] == "/" or "//" in path
    if not has_empty_name:
        return printable(path)
    return "/".join(printable(name) or "''" for name in path.split("/"))


# What Python calls printable and no font draws: fillers, blanks and variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def _inert(character: str) -> str:
    if character.isprintable() and not _INVISIBLE.match(character):
        return character
    return ascii(character)[1:-1]


def columns(text: str) -> int:
    """The columns of a terminal that a text takes: two for each wide character, such as those of Chinese and Japanese.

    >>> columns("kernel"), columns("日本")
    (6, 4)
    """
    if text.isascii():
        return len(text)
    return len(text) + sum(map(_is_wide, text))


def _is_wide(character: str) -> bool:
    import unicodedata  # a library of its own to load, and most names are ASCII

    return unicodedata.east_asian_width(character) in "WF"


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Pad a text with spaces to a number of columns; `right` puts the spaces before it."""
    width -= columns(text) - len(text)
    return text.rjust(width) if right else text.ljust(width)


def shortened(text: str, width: int) -> str:
    """Cut the middle out of a text that takes too many columns: both ends say the most.

    >>> shortened("a_rather_long_name", 11)
    'a_ra...name'
    """
    if columns(text) <= width:
        return text
    kept = max(0, width - len("..."))
    head = kept // 2
    return _begin(text, head) + "..." + _begin(text[::-1], kept - head)[::-1]


def _begin(text: str, width: int) -> str:
    """As much of the beginning of a text as fits into so many columns."""
    begin = text[:width]
    while columns(begin) > width:
        begin = begin[:-1]
    return begin


def quoted(given: object) -> str:
    """Quote what a caller passed: its repr, shortened where it would fill a screen; an array by its shape and dtype."""
    # The repr of an array waits for its values, and an error must not print them.
    if getattr(given, "shape", ()) != ():
        return describe(given)
    if isinstance(given, Mapping) or _holds_arrays(given):
        return f"a {type(given).__name__}"
    try:
        return printable(repr(given), _MOST_QUOTED)
    except ValueError:  # an int of more digits than Python prints
        if isinstance(given, int):
            return f"a number of {given.bit_length()} bits"
        return type(given).__name__


def _holds_arrays(given: object) -> bool:
    return isinstance(given, tuple | list) and any(
        hasattr(item, "shape") or isinstance(item, Mapping) or _holds_arrays(item) for item in given
    )


def name_of(function: object) -> str:
    """Name a function, or the function in a `functools.partial`, for a message; the repr of a callable without a name."""
    inner = getattr(function, "func", function)
    name = getattr(inner, "__name__", None)
    return name if isinstance(name, str) else repr(function)


# -------------------------------------------------------------------------------- leaves


_SHORT = (("bfloat", "bf"), ("float", "f"), ("complex", "c"), ("uint", "u"), ("int", "i"))


def short_dtype(dtype: Hashable) -> str:
    """The short name of a dtype, for messages: `f32` for `float32`, `bf16` for `bfloat16`, `key<fry>` for typed PRNG keys."""
    return _short_dtype(dtype)


@lru_cache(maxsize=256, typed=True)  # NumPy takes 4 microseconds to write a dtype, and a tree may have 100,000 leaves
def _short_dtype(dtype: Hashable) -> str:
    name = str(dtype).removeprefix("torch.")
    for long, short in _SHORT:
        if re.match(long + r"\d", name):
            return short + name.removeprefix(long)
    return printable(name)


def describe(leaf: object) -> str:
    """Describe a leaf in a few characters: `f32[4,8]`; a short literal as it is; otherwise its type.

    >>> import numpy as np
    >>> describe(np.zeros((4, 8), "float32")), describe(True), describe("frozen"), describe(object())
    ('f32[4,8]', 'True', "'frozen'", 'object')
    """
    if isinstance(leaf, type):  # np.float32 has the attributes of an array
        return leaf.__name__
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)  # an array of any library
    if isinstance(shape, Iterable) and dtype is not None:  # the module numpy has functions of these names
        return f"{short_dtype(dtype)}[{','.join(map(str, shape))}]"
    if _is_literal(leaf):
        text = printable(repr(leaf))
        if len(text) <= _MOST_LITERAL:
            return text
    return type(leaf).__name__


def describe_apart(expected: object, got: object) -> tuple[str, str]:
    """Describe two leaves that differ: with the kinds of the arrays, where shape and dtype read the same.

    >>> import numpy as np
    >>> from ptree import Param
    >>> describe_apart(np.zeros(3), np.zeros(4)), describe_apart(np.zeros(2, "float32"), Param((2,)))
    (('f64[3]', 'f64[4]'), ('f32[2] (numpy.ndarray)', 'f32[2] (ptree.Param)'))
    """
    before, after = describe(expected), describe(got)
    if before != after:
        return before, after
    return f"{before} ({_kind(expected)})", f"{after} ({_kind(got)})"


def _kind(leaf: object) -> str:
    """The type of a leaf as its users write it."""
    if type(leaf).__name__ == "ArrayImpl":
        return "jax.Array"
    return f"{type(leaf).__module__.split('.')[0]}.{type(leaf).__name__}"


def _is_literal(leaf: object) -> bool:
    if isinstance(leaf, int) and not isinstance(leaf, bool):
        return leaf.bit_length() < 100  # Python refuses to print an int of 4,301 digits
    return isinstance(leaf, bool | float | complex | str | bytes | None)


# --------------------------------------------------------------------- lists of names and problems


def listed(names: Iterable[str]) -> str:
    """List names for a message: the first ten, then a count.

    >>> listed(["kernel", "bias"])
    "['kernel', 'bias']"
    """
    names = list(names)
    shown = ", ".join(map(quoted, names[:SHOWN]))
    more = len(names) - SHOWN
    if more > 0:
        return f"[{shown}, and {more} more]"
    return f"[{shown}]"


def lines(problems: Sequence[str], between: str = "\n") -> str:
    """List problems for a message, each on a line: the first ten, then a count."""
    shown = list(problems[:SHOWN])
    more = len(problems) - SHOWN
    if more > 0:
        shown.append(f"and {more} more")
    return between.join(shown)


def with_fixes(problems: Sequence[str], fixes: Iterable[str] = (), between: str = "\n") -> str:
    """Problems, then what to do about them, each fix once; all on one line where there is one problem.

    >>> with_fixes(["'a' is a node"], ["Name a leaf in it."])
    "'a' is a node. Name a leaf in it."
    """
    text = lines(problems, between)
    different = dict.fromkeys(fix for fix in fixes if fix)
    if not different:
        return text
    fix = " ".join(different)
    if len(problems) > 1:
        return f"{text}{between}{fix}"
    end = "" if text.endswith((".", "?")) else "."
    return f"{text}{end} {fix}"


def number_ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as the braces of a pattern: `{0..11}`, `{0..3,5}`.

    >>> number_ranges([0, 1, 2, 5])
    '{0..2,5}'
    """
    parts: list[str] = []
    first = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            low, high = numbers[first], numbers[at - 1]
            parts.append(str(low) if low == high else f"{low}..{high}")
            first = at
    return "{" + ",".join(parts) + "}"


# ------------------------------------------------------------------------------ suggestions


def nearest(wrong: str, names: Iterable[str]) -> str | None:
    """The nearest of the names, which was likely meant; None if none is near, or if the search would take long.

    >>> nearest("bais", ["bias", "kernel"])
    'bias'
    """
    import difflib  # slow to import, and needed for an error only

    names = list(names)
    if len(wrong) > _MOST_CHARACTERS_COMPARED or len(names) > _MOST_NAMES_COMPARED:
        return None  # the time grows with the square of the length, and with the number of names
    matches = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return matches[0] if matches else None


def suggestion(wrong: str, names: Iterable[str], prefix: str = "") -> str:
    """Suggest the nearest of the names, ` Did you mean 'x'?`; an empty text if none is near.

    >>> suggestion("bais", ["bias", "kernel"], "2/")
    " Did you mean '2/bias'?"
    """
    near = nearest(wrong, names)
    return "" if near is None else f" Did you mean {quoted(prefix + near)}?"


def in_bytes(count: int) -> str:
    """A size in bytes, in the largest unit of which there is at least one: `1.5 MiB`."""
    if count < 1024:
        return f"{count} B"
    # By bits, since a logarithm in floats can be off by one at a power of 1024.
    power = min((count.bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{count / 1024**power:.1f} {_UNITS[power]}"


# --------------------------------------------------------------------------------- tables


def table(rows: Sequence[Sequence[str]], *, right: Collection[int] = (), width: int | None = None) -> list[str]:
    """Lay out a table as lines of text: columns two spaces apart, each as wide as its longest cell.

    >>> rows = [("path", "count", "dtype"), ("a/kernel", "32", "f32"), ("head", "= a/kernel")]
    >>> for line in table(rows, right={1}):
    ...     print(line)
    path      count  dtype
    a/kernel     32  f32
    head      = a/kernel

    The last cell of a row with fewer cells than others extends over the columns to its right. Control characters are
    shown as escapes.

    Args:
        rows: the cells of each row.
        right: the columns that are aligned to the right.
        width: the most characters of a line; the first column, which holds the paths, is shortened to fit.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = _column_widths(cells)
    if width is None or not widths:
        return [_line(row, widths, right) for row in cells]
    others = sum(widths[1:]) + 2 * len(widths[1:])
    widths[0] = min(widths[0], max(width - others, _NARROWEST_COLUMN))
    return [shortened(_line(row, widths, right), width) for row in cells]


def _line(row: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    cells: list[str] = []
    for column, cell in enumerate(row):
        if column == 0 and len(row) > 1:  # the others are short, and a cell that runs over them is cut with the line
            cell = shortened(cell, widths[0])
        cells.append(padded(cell, widths[column], right=column in right))
    return "  ".join(cells).rstrip()


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column of a table: its longest cell, without a last cell that extends over other columns."""
    count = max(map(len, rows), default=0)
    widths = [0] * count
    for row in rows:
        is_short = len(row) < count
        cells = row[:-1] if is_short else row
        for column, cell in enumerate(cells):
            widths[column] = max(widths[column], columns(cell))
    return widths
