"""A pool of one thread, also while Python ends and begins no new threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

try:
    from concurrent.futures import ThreadPoolExecutor
except RuntimeError:  # Python loads it at its first use, and refuses to once the main thread has ended
    ThreadPoolExecutor = None

T = TypeVar("T")


class _NoThreads(Executor):
    """A pool that has no threads, and answers as `ThreadPoolExecutor` does while Python ends."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **options: Any) -> Future[T]:
        raise RuntimeError("Python ends, and begins no new threads")


def thread_pool(name: str) -> Executor:
    """A pool of one thread. While Python ends its `submit` raises RuntimeError: the caller does the work itself."""
    if ThreadPoolExecutor is None:
        return _NoThreads()
    return ThreadPoolExecutor(1, name)
