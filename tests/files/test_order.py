"""Saves to one path end in the order of their calls, however it is spelt, in the background or not."""

import itertools
import os
import threading
import time

import numpy as np
import pytest

import ptree as pt


@pytest.fixture
def slow_at_first(monkeypatch):
    """The first file to be flushed takes longer than all after it; without an order it would be the last to end."""
    real, flushed = os.fsync, itertools.count()

    def fsync(file):
        if not next(flushed):
            time.sleep(0.15)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)


def tree(at):
    return {name: np.full(3, at) for name in "abc"}


def saved_at(path):
    return {number for leaf in pt.load(path).values() for number in leaf.tolist()}


def spellings(folder):
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    plain = folder / "real" / "model.safetensors"
    yield plain
    yield str(plain)
    yield f"{plain.parent}/./{plain.name}"
    yield os.path.relpath(plain)
    yield folder / "link" / "model.safetensors"
    yield f"{folder}/link/../real//./model.safetensors"
    yield f"{plain}/"
    yield f"{plain}.index.json"
    yield folder / "real"  # a folder means `model.safetensors` in it
    yield f"{folder}/link/"


@pytest.mark.parametrize("form", range(10))
@pytest.mark.parametrize("in_background", [True, False])
def test_the_later_call_wins_through_any_spelling(tmp_path, slow_at_first, form, in_background):
    paths = [*spellings(tmp_path)]
    first = pt.save(paths[0], tree(1), background=True)
    second = pt.save(paths[form], tree(2), background=in_background)
    first.result()
    second.result()
    assert saved_at(paths[0]) == {2}
    assert os.listdir(tmp_path / "real") == ["model.safetensors"]


@pytest.mark.parametrize("forms", [*itertools.product([None, 24], repeat=3)])
def test_the_last_of_many_wins_in_either_form(tmp_path, slow_at_first, forms):
    file = tmp_path / "model.safetensors"
    handles = [pt.save(file, tree(at), max_shard_size=size, background=True) for at, size in enumerate(forms)]
    for handle in handles:
        handle.result()
    assert saved_at(file) == {2}
    assert len(os.listdir(tmp_path)) == (1 if forms[-1] is None else 4)


def test_a_change_of_the_working_folder_does_not_change_where_a_save_goes(tmp_path, slow_at_first, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    saved = pt.save("m.safetensors", tree(1), background=True)
    checkpoints = pt.Checkpoints("run")
    checkpoints.save(1, tree(1))
    monkeypatch.chdir(tmp_path / "other")
    checkpoints.save(2, tree(2))
    saved.result()
    checkpoints.close()
    assert saved_at(tmp_path / "m.safetensors") == {1}
    assert sorted(os.listdir(tmp_path / "run")) == ["step_1.safetensors", "step_2.safetensors"]
    assert os.listdir(tmp_path / "other") == []


def test_saves_to_different_paths_do_not_wait_for_each_other(tmp_path, monkeypatch):
    go, real = threading.Event(), os.fsync
    held = threading.local()

    def fsync(file):
        if getattr(held, "free", False) is False:
            assert go.wait(60)
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    held.free = True  # in this thread
    first = pt.save(tmp_path / "one", tree(1), background=True)
    pt.save(tmp_path / "other", tree(2))
    assert not first.done()
    go.set()
    first.result()
    assert saved_at(tmp_path / "one") == {1}


def test_a_save_that_fails_lets_the_next_one_begin(tmp_path, slow_at_first, monkeypatch):
    file = tmp_path / "m"
    pt.save(file, tree(0))
    real = os.replace
    fails = iter([True])

    def replace(*args):
        if next(fails, False):
            raise OSError(5, "Input/output error")
        return real(*args)

    monkeypatch.setattr(os, "replace", replace)
    first = pt.save(file, tree(1), background=True)
    pt.save(file, tree(2))
    with pytest.raises(OSError, match="Input/output"):
        first.result()
    assert saved_at(file) == {2}


def test_a_save_that_is_interrupted_while_it_waits_keeps_the_order(tmp_path, monkeypatch):
    go, real = threading.Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (go.wait(60), real(file)))
    first = pt.save(tmp_path / "m", tree(1), background=True)
    from ptree.files._turns import Turn

    with monkeypatch.context() as patched:
        patched.setattr(Turn, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            pt.save(tmp_path / "m", tree(2))
    third = pt.save(tmp_path / "m", tree(3), background=True)
    time.sleep(0.02)
    assert not first.done()
    assert not third.done()
    go.set()
    third.result()
    first.result()
    assert saved_at(tmp_path / "m") == {3}


@pytest.mark.parametrize("backends", [*itertools.product(["ptree", "orbax"], repeat=2)])
def test_of_two_checkpoints_of_one_folder_the_later_call_wins(tmp_path, slow_at_first, backends):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    one = pt.Checkpoints(tmp_path / "run", backend=backends[0])
    other = pt.Checkpoints(tmp_path / "link", backend=backends[1])
    one.save(1, tree(1))
    other.save(1, tree(2))
    one.close()
    other.close()
    step, back = pt.Checkpoints(tmp_path / "run").load()
    assert step == 1
    assert {int(number) for leaf in back.values() for number in leaf} == {2}
    assert len(os.listdir(tmp_path / "run")) == 1
