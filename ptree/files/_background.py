"""Calls in background threads, which Python waits for at exit, also in a child process; a failure that nobody collects is
logged and printed at the end."""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from multiprocessing import parent_process, util
from typing import Any, Generic, TypeVar

from .._errors import FileError
from .._stored.operating_system import call_in_forked_child
from ._threads import thread_pool

T = TypeVar("T")

_log = logging.getLogger("ptree")
_numbers = itertools.count()
_lock = threading.Lock()
_unfinished: dict[int, tuple[str, Future[Any]]] = {}
"""Number of a call -> what it writes, and its outcome."""
_failures: dict[int, str] = {}
"""Number of a call that failed -> a line of text; the exception itself would hold the leaves in memory."""
_reported: set[int] = set()
"""Numbers of the failed calls that were logged or printed: each is reported once."""
_AFTER_ALL = -100
"""After the finalizers of multiprocessing itself, which write what is left in queues."""
_child = 0
"""The process in which `_at_end_of_child` is registered."""


class Background(Generic[T]):
    """A call in a thread of its own. If it fails and nobody calls `result`, the failure is logged, and printed at exit."""

    def __init__(self, name: str, call: Callable[[], T]):
        self._name, self._number, self._process = name, next(_numbers), os.getpid()
        self._is_collected = True  # until there is an outcome
        number = self._number  # not `self`: the handle may go while the thread runs
        self._outcome = _begun(lambda: _call(number, name, call))
        self._is_collected = False
        _register_end_of_child()
        with _lock:
            _unfinished[number] = name, self._outcome
        self._outcome.add_done_callback(lambda _: _finish(number))

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process began it; a forked process has a copy of the handle, and no such thread."""
        return self._process == os.getpid()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end, at most so many seconds; raises what the call raised."""
        if not self.done():
            self._refuse_other_process()
            self._outcome.exception(timeout)  # raises TimeoutError, which the call itself may do as well
        self._is_collected = True
        with _lock:
            _unfinished.pop(self._number, None)
            _failures.pop(self._number, None)
        return self._outcome.result()

    def done(self) -> bool:
        return self._outcome.done()

    def error(self) -> BaseException | None:
        """What the call raised; None if it did not fail, or has not ended."""
        return self._outcome.exception() if self.done() else None

    def _refuse_other_process(self) -> None:
        if not self.is_of_this_process:
            raise FileError(f"{self._name!r} is saved by process {self._process}, which this one was forked from")

    def __del__(self) -> None:
        if not self._is_collected and self.is_of_this_process:
            number, name = self._number, self._name
            self._outcome.add_done_callback(lambda outcome: _log_failure(number, name, outcome))


def _begun(call: Callable[[], T]) -> Future[T]:
    """Begin a call in a thread; while Python shuts down, which allows no new threads, do it at once."""
    pool = thread_pool("ptree.save")
    try:
        outcome = pool.submit(call)
    except RuntimeError:
        outcome = _called(call)
    pool.shutdown(wait=False)  # the thread ends with its work; Python waits for it at exit
    return outcome


def _called(call: Callable[[], T]) -> Future[T]:
    """Call at once, in this thread; an error is kept for `result`, as a thread keeps it."""
    outcome = Future[T]()
    try:
        outcome.set_result(call())
    except Exception as error:
        outcome.set_exception(error)
    return outcome


def _call(number: int, name: str, call: Callable[[], T]) -> T:
    """Note a failure before there is an outcome: who waits for outcomes goes on before their callbacks have run."""
    try:
        return call()
    except BaseException as error:
        with _lock:
            _failures[number] = _line(name, error)
        raise


def _finish(number: int) -> None:
    with _lock:
        _unfinished.pop(number, None)


def _log_failure(number: int, name: str, outcome: Future[Any]) -> None:
    error = outcome.exception()
    if error is not None and _is_first_report(number):
        _log.error("not saved in the background: %s", _line(name, error))


def _is_first_report(number: int) -> bool:
    """Whether the failure of a call was not reported yet; from now on it counts as reported."""
    with _lock:
        is_first = number not in _reported
        _reported.add(number)
    return is_first


def _line(name: str, error: BaseException) -> str:
    return f"{name}: {type(error).__name__}: {error}"


# ------------------------------------------------------------------------------- at exit


def _report_lost(stderr: Any) -> bool:
    """Wait for all calls and print those that are lost; an interrupt ends the waiting. Return whether any is lost."""
    waiting = dict(_unfinished)
    try:
        wait([outcome for _, outcome in waiting.values()])
    except KeyboardInterrupt:
        with _interrupts_ignored():  # the next interrupt would keep the loss from being printed
            return _print_lost(_lost(waiting), stderr)
    return _print_lost(_lost(waiting), stderr)


@contextmanager
def _interrupts_ignored() -> Generator[None]:
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    if handler is not None:  # None is a handler of another language
        signal.signal(signal.SIGINT, handler)


def _lost(waiting: dict[int, tuple[str, Future[Any]]]) -> dict[int, str]:
    """Give a line for each call that failed or is still running, by its number, and forget them."""
    with _lock:
        lost = dict(_failures)
        _failures.clear()
        for number, (name, outcome) in waiting.items():
            if not outcome.done():
                lost.setdefault(number, f"{name}: interrupted")
                _unfinished.pop(number, None)
    return lost


def _print_lost(lost: dict[int, str], stderr: Any) -> bool:
    """Print the failures that were not logged when they happened. Return whether there are failures."""
    unreported = [line for number, line in lost.items() if _is_first_report(number)]
    if unreported and stderr is not None:  # there is none in a Windows program without a console
        with suppress(OSError, ValueError):  # a pipe that nobody reads, or closed
            print("ptree: not saved in the background:", *unreported, sep="\n  ", file=stderr)
    return bool(lost)


def _at_exit() -> None:
    """Print what was not saved, and let the process end with an error."""
    stderr = sys.stderr
    sys.stderr = _FailingAtExit(stderr)  # before the waiting, as an interrupt can end this function anywhere
    if not _report_lost(stderr):
        sys.stderr = stderr


class _FailingAtExit:
    """A stderr that cannot be flushed when Python ends, so that Python exits with 120, as the page of `sys.exit` says.

    An exception at exit does not change the exit code, and `os._exit` would keep others from what they do at exit.
    """

    closed = False  # Python flushes only what is open

    def __init__(self, stderr: Any):
        self._stderr = stderr

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stderr, name)

    def flush(self) -> None:
        if self._stderr is not None and not self._stderr.closed:
            self._stderr.flush()
        if sys.is_finalizing():
            raise OSError("not all was saved")


def _register_end_of_child() -> None:
    """Register the same for the end of a child by multiprocessing, which runs nothing of `atexit`."""
    global _child
    if parent_process() is not None and _child != os.getpid():
        _child = os.getpid()
        util.Finalize(None, _at_end_of_child, exitpriority=_AFTER_ALL)


def _at_end_of_child() -> None:
    is_failing = sys.exc_info()[0] is not None
    if (
        _report_lost(sys.stderr) and not is_failing
    ):  # multiprocessing shows what has ended the child, and gives it an exit code
        sys.exit(1)


def _forget_calls() -> None:
    """In a forked process, the calls are those of its parent."""
    global _lock
    _lock = threading.Lock()
    _unfinished.clear()
    _failures.clear()
    _reported.clear()


def _wait_for_all() -> None:
    wait([outcome for _, outcome in list(_unfinished.values())])


# Before `concurrent.futures` ends its threads, after which Orbax cannot finish what it has begun. Python 3.12 begins no
# threads at all at this point, so that there a save with Orbax may be reported as lost.
with suppress(AttributeError, RuntimeError):  # it is private; and while Python ends, it is too late
    threading._register_atexit(_wait_for_all)  # pyright: ignore[reportAttributeAccessIssue]
for _ in range(2):  # an interrupt can end a function before its first line; where it did not, the second finds nothing
    atexit.register(_at_exit)
call_in_forked_child(_forget_calls)
