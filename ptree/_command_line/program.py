"""Run one command: exit codes, messages instead of tracebacks, pipes that are closed early."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

from .._errors import FileError, PtreeError
from .._words import printable
from .arguments import parser
from .encoding import write_any_character

DIFFERENT = 1
"""Exit code where two files differ, or a file is damaged."""
WRONG = 2
"""Exit code of a wrong use, and of what cannot be read or written; argparse has the same."""
_INTERRUPTED = 130
_PIPE_CLOSED = 141
_TRACEBACK = "PTREE_TRACEBACK"
_MODULES = {
    "show": "look", "stats": "stats", "diff": "look", "report": "look", "plot": "look", "plan": "plan",
    "get": "get", "check": "check", "rename": "change", "tie": "change", "convert": "convert", "completion": "completion",
}  # fmt: skip
"""Command -> the module with its function `run_COMMAND`, which is imported for it alone: some take half a second."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of the command line and return its exit code: 0, 1 (differs, damaged) or 2 (wrong use, unreadable)."""
    # where JAX is needed, for checkpoints by Orbax and for changes, it must not take a GPU
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    _open_closed_streams()
    write_any_character()
    given = parser().parse_args(arguments)
    try:
        with _quiet():
            code = _run(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # what is left in the buffer would raise again when Python flushes it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        print(f"ptree: {message_of(error)}", file=sys.stderr)
        is_damage = isinstance(error, FileError) and error.is_damage
        return DIFFERENT if is_damage and given.command == "check" else WRONG


def _run(given: argparse.Namespace) -> int:
    module = import_module(f".{_MODULES[given.command]}", __package__)
    return getattr(module, f"run_{given.command}")(given)


def message_of(error: Exception) -> str:
    """Write an error as the text that follows `ptree: `."""
    if isinstance(error, PtreeError):
        return _lines(str(error))
    if isinstance(error, OSError) and error.strerror:
        place = f" {str(error.filename)!r}" if error.filename is not None else ""
        return _lines(f"{error.strerror[0].lower()}{error.strerror[1:]}{place}")
    if isinstance(error, (OSError, ImportError)):
        return _lines(str(error))
    return _lines(f"an error that should not happen, {type(error).__name__}: {error}. {_TRACEBACK}=1 shows where")


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def _open_closed_streams() -> None:
    """Let what is written vanish where a shell has closed the output, `>&-`: Python has None for it."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - until the program ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of other libraries, and tracebacks of threads of Orbax, out of what a command writes."""
    if os.environ.get(_TRACEBACK):
        yield
        return
    before = logging.root.manager.disable
    excepthook = threading.excepthook
    logging.disable(logging.WARNING)
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        logging.disable(before)
        threading.excepthook = excepthook
