"""The folder of a run's steps: one of this machine, or one that Orbax reaches at a URL such as `gs://bucket/run`."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .._errors import FileError
from .._stored.locations import is_orbax
from .._stored.operating_system import status_of
from .._stored.steps import SavedStep, number_of_step, saved_steps
from .._stored.urls import is_url, shown_url
from .._words import quoted
from ._orbax import CHECKPOINT, is_whole_checkpoint, place_of
from ._steps import ORBAX_DRAFT, remove_step, sweep_folder

if TYPE_CHECKING:
    from etils import epath


class StepFolder(ABC):
    """A folder with the steps of a run."""

    @abstractmethod
    def key(self) -> Path:
        """The folder's identity, by which two Checkpoints of one folder are known."""

    @abstractmethod
    def steps(self) -> list[SavedStep]:
        """List the steps, the newest first."""

    @abstractmethod
    def path_of(self, name: str) -> str:
        """The path of a step."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the folder, and remove what crashes have left in it; no other process writes to it."""

    @abstractmethod
    def is_taken(self, path: str) -> bool:
        """Whether a foreign file or folder stands where Orbax would write a step."""

    @abstractmethod
    def has_gone(self, step: SavedStep) -> bool:
        """Whether another process has removed a step since it was listed."""

    @abstractmethod
    def remove(self, step: SavedStep) -> None:
        """Remove a step."""


class LocalFolder(StepFolder):
    """A folder of this machine."""

    def __init__(self, folder: str):
        self._folder = Path(os.path.abspath(folder))  # the program may change its working folder

    def key(self) -> Path:
        return Path(os.path.realpath(self._folder))

    def steps(self) -> list[SavedStep]:
        return saved_steps(self._folder)

    def path_of(self, name: str) -> str:
        return str(self._folder / name)

    def prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        sweep_folder(self._folder)

    def is_taken(self, path: str) -> bool:
        return status_of(path) is not None and not is_orbax(path)

    def has_gone(self, step: SavedStep) -> bool:
        return step.has_gone()

    def remove(self, step: SavedStep) -> None:
        remove_step(step.path)


class UrlFolder(StepFolder):
    """A folder at a URL, in which each step is a checkpoint by Orbax.

    Raises:
        FileError: a kind of URL that Orbax does not take, or for which a package is missing.
    """

    def __init__(self, url: str):
        self._url = url
        try:
            self._folder: epath.Path = place_of(url)
        except KeyError:
            raise FileError(
                f"Checkpoints(folder): {quoted(shown_url(url))} is of no kind that Orbax takes: gs:// and s3:// are, and folders of"
                " this machine"
            ) from None

    def key(self) -> Path:
        return Path(self._url)

    def steps(self) -> list[SavedStep]:
        with self._packages_named():
            if not self._folder.exists():  # it is made with the first step
                return []
            numbers = {number_of_step(place.name): place for place in self._folder.iterdir()}
            places = {number: place for number, place in numbers.items() if number is not None}
            # a place has the methods of a Path that a step needs
            found = [
                SavedStep(number, place, 0)  # pyright: ignore[reportArgumentType]
                for number, place in places.items()
                if is_whole_checkpoint(place)
            ]
        return sorted(found, key=lambda step: step.number, reverse=True)

    def path_of(self, name: str) -> str:
        return os.fspath(self._folder / name)

    def prepare(self) -> None:
        with self._packages_named():
            self._folder.mkdir(parents=True, exist_ok=True)
            for place in self._folder.iterdir():
                before, mark, _ = place.name.partition(ORBAX_DRAFT)
                if mark and number_of_step(before) is not None:
                    place.rmtree()

    def is_taken(self, path: str) -> bool:
        return False  # what is there without being whole is a save of Orbax that was cut short, which it replaces

    def has_gone(self, step: SavedStep) -> bool:
        return not is_whole_checkpoint(place_of(os.fspath(step.path)))

    def remove(self, step: SavedStep) -> None:
        place = place_of(os.fspath(step.path))
        (place / CHECKPOINT).unlink(missing_ok=True)  # first: a process that loads must not take a part for a step
        place.rmtree()

    @contextmanager
    def _packages_named(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise FileError(f"cannot reach {quoted(shown_url(self._url))} by Orbax: {error}") from error


def step_folder(folder: str) -> StepFolder:
    """The folder of steps at a path or a URL."""
    return UrlFolder(folder) if is_url(folder) else LocalFolder(folder)
