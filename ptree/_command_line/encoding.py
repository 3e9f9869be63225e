"""Characters that the encoding of a terminal or a pipe lacks: bars in ASCII, and letters as the escapes that name them."""

from __future__ import annotations

import codecs
import io
import sys

_HEIGHTS = dict(zip("▁▂▃▄▅▆▇█", "_.-:=+*#"))
_WIDTHS = dict.fromkeys("▏▎▍▌▋▊▉", "|")
_IN_ASCII = {**_HEIGHTS, **_WIDTHS}
_NAME = "ptree.in_ascii"


def write_any_character() -> None:
    """Write bars and letters that an encoding lacks in ASCII, rather than end with an error."""
    codecs.register_error(_NAME, _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook or a test has replaced it by another kind
            stream.reconfigure(errors=_NAME)


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(character) or ascii(character)[1:-1] for character in lacking), error.end
