"""Words: how leaves, names, lists and tables are written for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

SHOWN = 10
"""How many names a message lists before it counts the rest."""


def shortened(text: str, width: int) -> str:
    """A text that is too long loses its middle: both ends say the most."""
    if len(text) <= width:
        return text
    head = (width - 3) // 2
    return text[:head] + "..." + text[len(text) - (width - 3 - head) :]


def quoted(given: object) -> str:
    """What a caller gave, in quotes, cut where it would fill a screen."""
    try:
        return shortened(repr(given), 200)
    except ValueError:  # a number of more digits than Python prints
        return f"a number of {given.bit_length()} bits" if isinstance(given, int) else type(given).__name__


def listed(names: Iterable[str]) -> str:
    """The names as a person would list them: the first ten, then a count.

    >>> listed(["kernel", "bias"])
    "['kernel', 'bias']"
    """
    names = list(names)
    shown = ", ".join(map(quoted, names[:SHOWN]))
    return f"[{shown}]" if len(names) <= SHOWN else f"[{shown}, and {len(names) - SHOWN} more]"


def lines(problems: Sequence[str], between: str = "\n") -> str:
    """Problems on a line each: the first ten, then a count."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return between.join([*problems[:SHOWN], *more])


def with_fixes(problems: Sequence[str], fixes: Iterable[str] = (), between: str = "\n") -> str:
    """Problems, and after them once each what to do: all on one line where there is one problem.

    >>> with_fixes(["'a' is a node"], ["Name a leaf in it."])
    "'a' is a node. Name a leaf in it."
    """
    text, fix = lines(problems, between), " ".join(dict.fromkeys(filter(None, fixes)))
    if not fix:
        return text
    if len(problems) > 1:
        return f"{text}{between}{fix}"
    return f"{text}{'' if text[-1] in '.?' else '.'} {fix}"


def nearest(wrong: str, names: Iterable[str]) -> str | None:
    """The name that was likely meant.

    >>> nearest("bais", ["bias", "kernel"])
    'bias'
    """
    import difflib

    names = list(names)
    if len(wrong) > 200 or len(names) > 5000:  # it takes time with the square of the one, and with each of the others
        return None
    return next(iter(difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)), None)


def suggestion(wrong: str, names: Iterable[str], prefix: str = "") -> str:
    """` Did you mean 'x'?` with the nearest of the names, or nothing.

    >>> suggestion("bais", ["bias", "kernel"], "2/")
    " Did you mean '2/bias'?"
    """
    near = nearest(wrong, names)
    return "" if near is None else f" Did you mean {quoted(prefix + near)}?"


_SHORT = (("bfloat", "bf"), ("float", "f"), ("complex", "c"), ("uint", "u"), ("int", "i"))


def short_dtype(dtype: Any) -> str:
    """`f32` for `float32`, `bf16` for `bfloat16`, `key<fry>` for typed PRNG keys."""
    name = str(dtype).removeprefix("torch.")
    for long, short in _SHORT:
        if re.match(long + r"\d", name):
            return short + name.removeprefix(long)
    return name


def describe(leaf: Any) -> str:
    """A leaf in a few characters: `f32[4,8]`; a short literal as it is; otherwise its type.

    >>> import numpy as np
    >>> describe(np.zeros((4, 8), "float32")), describe(True), describe("frozen"), describe(object())
    ('f32[4,8]', 'True', "'frozen'", 'object')
    """
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{short_dtype(dtype)}[{','.join(map(str, shape))}]"
    plain = isinstance(leaf, (bool, float, complex, str, bytes, type(None)))
    if (plain or (isinstance(leaf, int) and leaf.bit_length() < 100)) and len(text := repr(leaf)) <= 32:
        return text
    return type(leaf).__name__


def name_of(function: Any) -> str:
    """A function, of any kind, as a person would write it."""
    name = getattr(getattr(function, "func", function), "__name__", None)  # of a functools.partial too
    return name if isinstance(name, str) else repr(function)
