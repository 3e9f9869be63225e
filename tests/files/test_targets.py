"""What may be at the path of a save: only files are replaced, a link itself and never its target, with their permissions."""

import errno
import fcntl
import json
import os
import socket
import stat

import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree.files._turns import _turns

TREE = {"a": np.arange(4.0), "b": np.arange(4.0)}
FORMS = {"one file": None, "shards": 32}


@pytest.fixture(params=FORMS)
def size(request):
    return FORMS[request.param]


def holds(path):
    return all((leaf == TREE[name]).all() for name, leaf in pt.load(path).items())


# ----------------------------------------------------------------------------- links


@pytest.mark.parametrize("target", ["file", "elsewhere", "relative", "nothing", "itself", "link"])
def test_a_link_is_replaced_and_its_target_stays(tmp_path, size, target):
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir()
    blobs.mkdir()
    blob = blobs / "x"
    pt.save(blob, {"old": 1})
    before = blob.read_bytes()
    link = snapshot / "model.safetensors"
    (blobs / "link").symlink_to(blob)
    targets = {
        "file": blob,
        "elsewhere": blob,
        "relative": "../blobs/x",  # as in the cache of Hugging Face
        "nothing": blobs / "nothing",
        "itself": link,
        "link": blobs / "link",
    }
    link.symlink_to(targets[target])
    pt.save(link, TREE, max_shard_size=size)
    assert holds(link)
    assert holds(snapshot)
    assert blob.read_bytes() == before
    assert sorted(os.listdir(blobs)) == ["link", "x"]
    assert not [name for name in os.listdir(snapshot) if (snapshot / name).is_symlink()]
    assert len(os.listdir(snapshot)) == (1 if size is None else 3)


def test_shards_that_are_links_are_replaced_and_their_targets_stay(tmp_path, size):
    snapshot, blobs = tmp_path / "snapshot", tmp_path / "blobs"
    snapshot.mkdir()
    pt.save(blobs.mkdir() or blobs, TREE, max_shard_size=32)
    before = {path: path.read_bytes() for path in blobs.iterdir()}
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../blobs/{path.name}")
    assert holds(snapshot)
    pt.save(snapshot, TREE, max_shard_size=size)
    assert holds(snapshot)
    assert {path: path.read_bytes() for path in blobs.iterdir()} == before
    assert not [name for name in os.listdir(snapshot) if (snapshot / name).is_symlink()]
    assert len(os.listdir(snapshot)) == (1 if size is None else 3)


def test_a_link_to_a_folder_on_the_way_is_followed(tmp_path, size):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    pt.save(tmp_path / "link" / "m", TREE, max_shard_size=size)
    pt.save(tmp_path / "link", TREE, max_shard_size=size)
    assert holds(tmp_path / "real" / "m")
    assert holds(tmp_path / "real")
    assert (tmp_path / "link").is_symlink()


def test_links_in_a_folder_of_checkpoints_are_read_and_their_targets_stay(tmp_path):
    for backend in ("ptree", "orbax"):
        with pt.Checkpoints(tmp_path / "other", backend=backend) as checkpoints:
            checkpoints.save(len(checkpoints.steps()), {"a": jnp.ones(2)})
    (tmp_path / "run").mkdir()
    for name in ("step_0.safetensors", "step_1"):
        (tmp_path / "run" / name).symlink_to(tmp_path / "other" / name)
    (tmp_path / "run" / "step_9.safetensors").symlink_to("nothing")
    checkpoints = pt.Checkpoints(tmp_path / "run", keep=1)
    assert checkpoints.load()[0] == 1
    assert checkpoints.load(step=0)[0] == 0
    with checkpoints:
        checkpoints.save(2, {"a": jnp.ones(2)})
    assert checkpoints.steps() == [2]
    assert pt.Checkpoints(tmp_path / "other").steps() == [0, 1]
    assert pt.Checkpoints(tmp_path / "other").load()[0] == 1


# ----------------------------------------------------------------------------- no files


def make(kind, path):
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a device":
        path.symlink_to("/dev/null")
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            folder = os.open(path.parent, os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path of a socket must be short
            os.close(folder)


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("place", ["m", "m.index.json"])
@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a device", "a socket"])
def test_only_files_are_replaced(tmp_path, size, kind, place, background):
    make(kind, tmp_path / place)
    before = os.lstat(tmp_path / place)
    path = tmp_path / "m"
    if kind == "a folder" and place == "m":  # a folder means `model.safetensors` in it
        (path / "model.safetensors").mkdir()
    with pytest.raises(pt.FileError, match=rf"cannot save '.*{kind}"):
        pt.save(path, TREE, max_shard_size=size, background=background)
    after = os.lstat(tmp_path / place)
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert os.listdir(tmp_path) == [place]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full", "/dev/stdout"])
def test_a_device_stays_what_it_is(device):
    before = os.lstat(device).st_mode
    if stat.S_ISREG(os.stat(device).st_mode):  # where pytest has put the output into a file
        return
    with pytest.raises(pt.FileError, match=r"is a (device|FIFO)"):
        pt.save(device, TREE)
    assert os.lstat(device).st_mode == before


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a device", "a socket"])
@pytest.mark.parametrize("name", ["step_5.safetensors", "step_5.safetensors.index.json"])
def test_what_is_no_file_is_no_step(tmp_path, kind, name):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, TREE)
    make(kind, tmp_path / name)
    with pt.Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == [3]
        assert checkpoints.load()[0] == 3
        checkpoints.save(4, TREE)
        with pytest.raises(pt.FileError, match=f"is {kind}"):
            checkpoints.save(5, TREE)
        checkpoints.save(6, TREE)
    assert checkpoints.steps() == [3, 4, 6]


# ----------------------------------------------------------------------------- permissions


@pytest.mark.parametrize("before", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400])
def test_new_files_have_the_permissions_of_those_they_replace(tmp_path, size, before, mode):
    file = tmp_path / "model.safetensors"
    pt.save(file, TREE, max_shard_size=before)
    for path in tmp_path.iterdir():
        path.chmod(mode)
    for _ in range(2):
        pt.save(file, TREE, max_shard_size=size)
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}
        assert len(os.listdir(tmp_path)) == (1 if size is None else 3)


def test_nobody_gains_permissions_where_those_of_shards_differ(tmp_path, size):
    file = tmp_path / "model.safetensors"
    pt.save(file, TREE, max_shard_size=32)
    index = tmp_path / "model.safetensors.index.json"
    for path in tmp_path.iterdir():
        path.chmod(0o644 if path == index else 0o600)
    pt.save(file, TREE, max_shard_size=size)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_no_file_is_open_to_others_while_it_is_written(tmp_path, size, monkeypatch):
    file = tmp_path / "model.safetensors"
    pt.save(file, TREE)
    file.chmod(0o600)
    real, modes = os.open, []

    def watched(path, flags, mode=0o777, **options):
        descriptor = real(path, flags, mode, **options)
        if flags & os.O_CREAT:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    pt.save(file, TREE, max_shard_size=size)
    assert set(modes) == {0o600}


# ----------------------------------------------------------------------------- what cannot be told is not "not there"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["stat", "lstat"])
def test_a_status_that_cannot_be_read_is_told(tmp_path, size, monkeypatch, code, name):
    file = tmp_path / "model.safetensors"
    pt.save(file, TREE)
    real = getattr(os, name)

    def fails(path, *args, **options):
        if os.fspath(path) in (str(file), f"{file}.index.json"):
            raise OSError(code, os.strerror(code), str(path))
        return real(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, name, fails)
        with pytest.raises(OSError, match=os.strerror(code)):
            pt.save(file, {"a": 1}, max_shard_size=size)
    assert os.listdir(tmp_path) == [file.name]
    assert holds(file)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_folder_whose_steps_cannot_be_told_does_not_look_empty(tmp_path, monkeypatch, code):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, TREE)
    real = {name: getattr(os, name) for name in ("stat", "listdir")}
    for name in real:

        def fails(path, *args, name=name, **options):
            if os.fspath(path).startswith(str(tmp_path)):
                raise OSError(code, os.strerror(code), str(path))
            return real[name](path, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(os, name, fails)
            for call in (checkpoints.steps, checkpoints.load):
                with pytest.raises(OSError, match=os.strerror(code)):
                    call()
    assert checkpoints.load()[0] == 1


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_a_shard_that_cannot_be_removed_is_removed_by_the_next_save(tmp_path, size, monkeypatch, code):
    file = tmp_path / "model.safetensors"
    pt.save(file, TREE, max_shard_size=32)
    real, stuck = os.unlink, str(tmp_path / "model-00002-of-00002.safetensors")

    def fails(path, **options):
        if os.fspath(path) == stuck:
            raise OSError(code, os.strerror(code), stuck)
        real(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", fails)
        pt.save(file, TREE, max_shard_size=size)
        pt.save(file, TREE, max_shard_size=size)
    assert os.path.exists(stuck)
    assert holds(file)
    pt.save(file, TREE, max_shard_size=size)
    assert len(os.listdir(tmp_path)) == (1 if size is None else 3)


def test_an_index_names_no_shards_that_have_long_gone(tmp_path):
    file = tmp_path / "model.safetensors"
    sizes = set()
    for _ in range(6):
        pt.save(file, TREE, max_shard_size=32)
        sizes.add((tmp_path / "model.safetensors.index.json").stat().st_size)
    assert len(sizes) <= 3  # without tags, then with tags, which replace names without and with


def test_shards_by_another_program_are_not_swept_with_what_a_crash_left(tmp_path):
    file, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    pt.save(file, TREE, max_shard_size=32)
    left = tmp_path / f".{index.name}.{'0' * 32}.tmp"
    left.write_bytes(
        index.read_bytes()
    )  # a crash of ptree, which had chosen the names that Hugging Face has then taken
    names = [path.name for path in tmp_path.glob("model-*")]
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(zip("ab", names))}))
    pt.save(file, TREE)
    assert {*names} < {*os.listdir(tmp_path)}
    assert left.name not in os.listdir(tmp_path)


# ----------------------------------------------------------------------------- without file locks


@pytest.fixture
def no_locks(monkeypatch):
    """A disk without file locks, as many network disks are."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("first", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("second", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("before", [{}, {"max_shard_size": 32}], ids=["one file", "shards"])
def test_of_two_savers_without_locks_one_is_whole(tmp_path, no_locks, monkeypatch, first, second, before):
    """Whenever the second one saves while the first does, one of the two trees is there, not a mixture and not nothing."""
    real = {name: getattr(os, name) for name in ("open", "replace", "rename", "unlink")}
    for at in range(60):
        file = tmp_path / str(at) / "model.safetensors"
        file.parent.mkdir()
        pt.save(file, {"a": np.zeros(4), "b": np.zeros(4)}, **before)
        steps = [0]

        def step(*args, name, at=at, file=file, steps=steps, **options):
            steps[0] += 1
            if steps[0] == at:
                _turns.clear()  # as in another process, which does not know this one's turns
                pt.save(file, {"a": np.full(4, 2.0), "b": np.full(4, 2.0)}, max_shard_size=second)
            return real[name](*args, **options)

        with monkeypatch.context() as patched:
            for name in real:
                patched.setattr(
                    os, name, lambda *args, name=name, step=step, **options: step(*args, name=name, **options)
                )
            pt.save(file, {"a": np.full(4, 1.0), "b": np.full(4, 1.0)}, max_shard_size=first)
        found = {number for leaf in pt.load(file).values() for number in leaf.tolist()}
        assert found in ({1.0}, {2.0}), (at, os.listdir(file.parent))
        if steps[0] < at:
            break
    assert at > 3
    assert steps[0] < at
