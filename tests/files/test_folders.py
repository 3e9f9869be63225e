"""Folders of checkpoints and of shards to which anything has happened: what is whole is found, and nothing else is touched.

The long run, 20,000 folders of each kind: `pytest --hypothesis-profile=long tests/files/test_folders.py`.
"""

import os
import random
import shutil
import socket
import stat
import warnings

import numpy as np
import pytest
from trees import equal

import ptree as pt

NAMES = "abc"


def tree(at):
    return pt.Tree({name: np.full(5, float(at)) for name in NAMES})


# ----------------------------------------------------------------------------- what may happen to a folder


def flipped(path, draw):
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def cut(path, draw):
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def longer(path, draw):
    path.write_bytes(path.read_bytes() + bytes(draw.randrange(1, 100)))


def foreign(path, draw):
    path.write_bytes(draw.choice([b"\0" * 200, b"{}", b"PK\3\4" + bytes(100), b"\xff" * 8 + b"x" * 50, b"[]\n"]))


def gone(path, draw):
    path.unlink()


DAMAGE = [flipped, cut, longer, foreign, gone]


def make_folder(place, outside):
    place.mkdir()
    (place / "mine").write_text("mine")


def make_empty_folder(place, outside):
    place.mkdir()


def make_fifo(place, outside):
    os.mkfifo(place)


def make_socket(place, outside):
    folder = os.open(place.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{folder}/{place.name}")
    os.close(folder)


def make_device(place, outside):
    place.symlink_to("/dev/zero")


def make_dangling(place, outside):
    place.symlink_to(outside / "nothing")


def make_loop(place, outside):
    place.symlink_to(place)


def make_link_to_folder(place, outside):
    place.symlink_to(outside)


KINDS = [
    make_folder, make_empty_folder, make_fifo, make_socket, make_device, make_dangling, make_loop, make_link_to_folder
]  # fmt: skip

# none of these is a step, whatever is there
ODD_STEPS = [
    "step_", "step_-1", "step_01", "step_7.5", "step_1e3", "step_٣", "step_²", "step_9\n", "step_9.safetensors\n", "STEP_9",
    "step_" + "9" * 200, "step_9.safetensors.bak", "xstep_9.safetensors", "step_9.safetensors.index.json.old",
    "step_\x1b[31m9", b"step_9\xff.safetensors", "step_9.ckpt", ".step_9.safetensors", "notes.txt",
]  # fmt: skip
HEX = "0123456789abcdef" * 2


def something(place, draw, outside, kinds):
    """Put something at a place, if that is free: one of the kinds, or a file."""
    if os.path.lexists(place) or (len(os.fsencode(place.name)) > 60 and make_socket in kinds):
        return
    draw.choice(kinds)(place, outside)


def make_file(place, outside):
    place.write_text("mine")


def picture(folder):
    """All that is in a folder: names, kinds, targets of links, content and times of files."""
    seen = {}
    for root, folders, files in os.walk(os.fsencode(folder)):
        for name in folders + files:
            path = os.path.join(root, name)
            status = os.lstat(path)
            what = b""
            if stat.S_ISLNK(status.st_mode):
                what = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    what = file.read()
            seen[path] = (stat.S_IFMT(status.st_mode), what, stat.S_ISREG(status.st_mode) and status.st_mtime_ns)
    return seen


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder of someone else, with whole steps and shards, to which links may lead."""
    folder = tmp_path_factory.mktemp("outside")
    pt.save(folder / "model.safetensors", tree(77), max_shard_size=40)
    pt.save(folder / "blob", tree(78))
    return folder


# ----------------------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose second step is in shards."""
    folder = tmp_path_factory.mktemp("run")
    for step in (1, 2, 3):
        with pt.Checkpoints(folder, max_shard_size=40 if step == 2 else None) as checkpoints:
            checkpoints.save(step, tree(step), metrics={"loss": step})
    return folder


def files_of(folder, step):
    """The files of a step that decide whether it is whole: without the first of them it is not there."""
    shards = sorted(folder.glob(f"step_{step}-*"))
    if shards:
        return [folder / f"step_{step}.safetensors.index.json", *shards]
    return [folder / f"step_{step}.safetensors"]


def as_link(path, store):
    """Make a file a link to itself elsewhere, as in Hugging Face's cache."""
    store.mkdir(exist_ok=True)
    path.rename(store / path.name)
    path.symlink_to(store / path.name)


def test_the_newest_whole_step_is_found_and_the_run_goes_on(tmp_path, run, outside, long):
    before = picture(outside)
    for seed in range(20_000 if long else 60):
        draw = random.Random(seed)
        folder, store = tmp_path / f"run{seed}", tmp_path / f"store{seed}"
        shutil.copytree(run, folder)
        state = {1: "whole", 2: "whole", 3: "whole"}
        for step in state:
            files = files_of(folder, step)
            if draw.random() < 0.2:
                as_link(draw.choice(files), store)
            if draw.random() < 0.5:
                path = draw.choice(files)
                what = draw.choice(DAMAGE)
                what(path, draw)
                state[step] = "gone" if what is gone and path == files[0] else "damaged"
        odd = [folder / os.fsdecode(name) for name in draw.sample(ODD_STEPS, 4)]
        for place in odd:
            something(place, draw, outside, [*KINDS, make_file])
        not_files = [folder / "step_8.safetensors", folder / "step_9.safetensors.index.json", folder / "step_7"]
        for place in draw.sample(not_files, 2):
            something(
                place, draw, outside, [kind for kind in KINDS if place.name != "step_7" or kind is not make_device]
            )
        left = f".step_{draw.randrange(1, 5)}.safetensors{draw.choice(['', '.index.json'])}.{HEX}.tmp"
        something(folder / left, draw, outside, [*KINDS, make_file])
        something(folder / "step_6.orbax-checkpoint-tmp-1", draw, outside, [make_file, make_link_to_folder, make_fifo])
        others = {path: what for path, what in picture(folder).items() if not is_of_run(os.fsdecode(path), left)}
        stored = picture(store)

        checkpoints = pt.Checkpoints(folder, keep=2)
        there = [step for step in (3, 2, 1) if state[step] != "gone"]
        whole = [step for step in there if state[step] == "whole"]
        assert checkpoints.steps() == there[::-1], seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if whole:
                step, back = checkpoints.load()
                assert step == whole[0], seed
                assert equal(back, tree(step)), seed
            else:
                with pytest.raises(pt.FileError):
                    checkpoints.load()
            with checkpoints:
                checkpoints.save(5, tree(5))
            step, back = pt.Checkpoints(folder).load()
        assert (step, equal(back, tree(5))) == (5, True), seed
        kept = [number for number in whole if number in checkpoints.steps()]
        # two steps are to stay; a damaged one that nobody has looked at counts as one
        assert kept[:1] == whole[:1] or 5 not in there, seed
        after = picture(folder)
        assert {path: after.get(path) for path in others} == others, seed
        assert picture(outside) == before, seed
        assert picture(store) == stored, seed
        shutil.rmtree(folder)
        shutil.rmtree(store, ignore_errors=True)


def is_of_run(path, left):
    """Whether ptree may change or remove what is at a path: steps 1 to 5, and a draft that is a file."""
    name = os.path.basename(path)
    is_draft = name == left and stat.S_ISREG(os.lstat(path).st_mode)
    return is_draft or any(name.startswith((f"step_{step}.safe", f"step_{step}-")) for step in range(1, 6))


# ----------------------------------------------------------------------------- shards


def test_a_folder_of_shards_has_one_whole_tree_or_none_and_takes_a_new_one(tmp_path, outside, long):
    before = picture(outside)
    for seed in range(20_000 if long else 60):
        draw = random.Random(seed)
        folder = tmp_path / f"shards{seed}"
        store = tmp_path / f"store{seed}"
        folder.mkdir()
        file = folder / "model.safetensors"
        for at in range(draw.randrange(1, 4)):
            pt.save(file, tree(at), max_shard_size=draw.choice([40, 40, 90, None]))
        ours = sorted(folder.iterdir())
        if draw.random() < 0.3:
            as_link(draw.choice(ours), store)
        for path in draw.sample(ours, min(draw.randrange(3), len(ours))):
            draw.choice(DAMAGE)(path, draw)
        drafts = [f".model.safetensors{end}.{HEX}.tmp" for end in ("", ".index.json")]
        for name in drafts:
            kinds = [*KINDS, make_file, half_index]
            something(folder / name, draw, outside, kinds)
        odd = ["model-00001-of-00009.safetensors", "model-9.safetensors", "model.safetensors.bak", "model"]
        for name in draw.sample(odd, 2):
            something(folder / name, draw, outside, [*KINDS, make_file])
        for name in ("model.safetensors", "model.safetensors.index.json"):
            if draw.random() < 0.1:
                # a link to a folder means `model.safetensors` in that
                kinds = [kind for kind in KINDS if kind is not make_link_to_folder]
                something(folder / name, draw, outside, kinds)
        others = {
            path: what
            for path, what in picture(folder).items()
            if os.path.basename(os.fsdecode(path)) in odd or b"/mine" in path
        }
        stored = picture(store)

        place = draw.choice([file, folder])
        if not any(stat.S_ISFIFO(os.stat(path).st_mode) for path in folder.glob("model.safetensors*") if path.exists()):
            try:
                back = pt.load(place)
                assert any(equal(back, tree(at)) for at in range(3)) or equal(back, tree(77)), seed
            except (pt.FileError, OSError):
                pass
        try:
            pt.save(file, tree(9), max_shard_size=draw.choice([None, 40]), background=draw.random() < 0.3).result()
        except pt.FileError as error:
            assert "and only files are replaced" in str(error), seed
        else:
            if not file.is_dir():
                assert equal(pt.load(file), tree(9)), seed
        after = picture(folder)
        assert {path: after.get(path) for path in others} == others, seed
        assert picture(outside) == before, seed
        assert picture(store) == stored, seed
        shutil.rmtree(folder)
        shutil.rmtree(store, ignore_errors=True)


def half_index(place, outside):
    """A draft that a crash left: an index that names files which are not to be removed."""
    names = ["../outside", "/etc/passwd", "model.safetensors", "notes.txt", "model-00001-of-00009.safetensors/.."]
    shards = ", ".join(f'"{name}": "{name}"' for name in names)
    place.write_text(f'{{"metadata": {{}}, "weight_map": {{{shards}}}}}')
