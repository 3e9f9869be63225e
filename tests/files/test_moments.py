"""At each moment of a read another process replaces a file by shards, or shards by a file: the old tree or the new one is read."""

import builtins
import os

import numpy as np
import pytest

import ptree as pt
from ptree import convert
from ptree.look._sources.file_source import file_source


def tree(value):
    return {name: np.full(300, value) for name in "abc"}


def looked_at(path):
    with file_source(path) as source:
        return [source.values(name) for name in source.leaves]


def opened(path):
    with pt.open(path) as file:
        return [leaf[...] for leaf in file.values()]


READERS = {
    "load": lambda path: [*pt.load(path).values()],
    "load mapped": lambda path: [*pt.load(path, mmap=True).values()],
    "load like": lambda path: [*pt.load(path, like=tree(0)).values()],
    "open": opened,
    "look": looked_at,
    "convert.read": lambda path: [*convert.read(path).values()],
}


class Moments:
    """Calls to the system, before some of which another process saves."""

    def __init__(self, monkeypatch):
        self.count, self._saves = 0, {}
        for module, name in ((os, "stat"), (os, "open"), (builtins, "open")):
            monkeypatch.setattr(module, name, self._counting(getattr(module, name)))

    def _counting(self, call):
        def counted(*args, **options):
            save = self._saves.pop(self.count, None)
            self.count += 1
            if save is not None:
                at, saves, self._saves = self.count, self._saves, {}
                save()
                self.count, self._saves = at, saves
            return call(*args, **options)

        return counted

    def begin(self, saves):
        """From now on, save before each of these calls: number of the call -> what saves."""
        self.count, self._saves = 0, {**saves}


@pytest.fixture(params=["file", "folder"])
def place(request, tmp_path):
    """The path that is read, and the path of its file."""
    if request.param == "file":
        return str(tmp_path / "m.safetensors"), tmp_path / "m.safetensors"
    return str(tmp_path), tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("sizes", [(None, 3000), (3000, None), (3000, 3000), (None, None)])
def test_a_tree_is_read_while_another_takes_its_place(place, name, sizes, monkeypatch):
    path, file = place
    before, after = sizes
    READERS[name](_saved(file, before, 0))  # what it imports is not counted
    moments = Moments(monkeypatch)
    first = 0
    while first == 0 or first < moments.count:
        # and once more a few calls later, back to what was there
        moments.begin({})
        _saved(file, before, 1)
        second = first + 1 + first % 5
        moments.begin({first: lambda: _saved(file, after, 2), second: lambda: _saved(file, before, 3)})
        values = {number for leaf in READERS[name](path) for number in np.asarray(leaf).tolist()}
        assert len(values) == 1
        assert values <= {1, 2, 3}
        first += 1
    assert first > 3


def _saved(file, size, value):
    pt.save(file, tree(value), max_shard_size=size)
    return str(file)
