"""Shards and their index, in Hugging Face's form: they load as one file does, and never as a mixture of two."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from jax.sharding import PartitionSpec
from safetensors.numpy import load_file, save_file
from trees import TREES, equal, language_model

import ptree as pt

PLAIN = ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def three(start=0.0):
    return pt.Tree(
        {"a": jnp.arange(4.0) + start, "b": {"c": np.arange(4) + start, "d": jnp.ones(2)}, "key": jax.random.key(1)}
    )


def test_the_form_is_the_one_that_hugging_face_reads(file):
    pt.save(file, three(), max_shard_size=32, metadata={"format": "pt"})
    assert sorted(os.listdir(file.parent)) == [*PLAIN, INDEX]
    index = json.loads((file.parent / INDEX).read_text())
    assert index["metadata"]["total_size"] == 16 + 32 + 8 + 8
    assert index["metadata"]["format"] == "pt"
    assert index["weight_map"] == {"a": PLAIN[0], "b/c": PLAIN[1], "b/d": PLAIN[2], "key": PLAIN[2]}
    for name, shard in index["weight_map"].items():
        assert name in load_file(file.parent / shard)
    for path in (file, file.parent, file.parent / INDEX):
        assert equal(pt.load(path), three())
    assert equal(pt.load(file, like=three()), three())
    with pt.open(file) as opened:
        assert opened.metadata == {"format": "pt"}
        assert [*opened] == ["a", "b/c", "b/d", "key"]
        assert equal(opened["b/c"][1:3], np.arange(1.0, 3.0))
    part = pt.load(file.parent / PLAIN[2])  # each is a file of its own
    assert pt.paths(part) == ["b/d", "key"]


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if type(tree) is pt.Tree])
def test_law_5_holds_for_shards(file, name):
    tree = TREES[name]
    for options in ({"max_shard_size": 1}, {"max_shard_size": "64", "expand_ties": True}, {"max_shard_size": "1 GiB"}):
        pt.save(file, tree, **options)
        back = pt.load(file)
        assert equal(back, tree)
        assert pt.paths(back, aliases=True) == pt.paths(tree, aliases=True)
        assert pt.ties(back) == pt.ties(tree)
    assert os.listdir(file.parent) == [file.name]  # it fits into one


def test_what_was_there_in_either_form_is_replaced(file):
    folder = file.parent
    pt.save(file, three(1), max_shard_size=32)
    pt.save(file, three(2), max_shard_size=32)  # names that are taken get a tag
    assert equal(pt.load(folder), three(2))
    assert len(os.listdir(folder)) == 4
    assert not {*PLAIN} & {*os.listdir(folder)}
    pt.save(file, three(3))
    assert os.listdir(folder) == [file.name]
    pt.save(file, three(4), max_shard_size=32)  # never a name that a reader of an old index may look for
    assert len(os.listdir(folder)) == 4
    assert not {*PLAIN} & {*os.listdir(folder)}
    assert equal(pt.load(file), three(4))


def test_files_of_others_are_read_and_never_removed(file):
    folder = file.parent
    tensors = {"b": np.arange(3, dtype="float32"), "a": np.ones(2, "int32")}
    for name, shard in zip(tensors, PLAIN):
        save_file({name: tensors[name]}, folder / shard)
    files = dict(zip(tensors, PLAIN))
    (folder / INDEX).write_text(
        json.dumps({"metadata": {"total_size": 32.0, "total_parameters": 5}, "weight_map": files})
    )
    assert pt.paths(pt.load(folder)) == ["b", "a"]
    assert equal(pt.load(folder)["b"], jnp.arange(3.0))
    pt.save(file, three())
    assert sorted(os.listdir(folder)) == [*PLAIN[:2], file.name, INDEX]
    pt.save(file, three(), max_shard_size=32)
    assert {*PLAIN[:2], INDEX} < {*os.listdir(folder)}
    assert equal(pt.load(folder), three())


def test_a_flipped_byte_in_any_of_the_files_is_found(file):
    pt.save(file, three(), max_shard_size=32)
    for path in sorted(file.parent.iterdir()):
        whole = path.read_bytes()
        for at in range(len(whole)):
            for edited in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
                path.write_bytes(edited)
                with pytest.raises(pt.FileError, match=str(file.parent)):
                    pt.load(file)
        path.write_bytes(whole)
    assert equal(pt.load(file), three())


def test_shards_of_another_save_and_missing_ones_are_named(file):
    folder = file.parent
    pt.save(file, three(1), max_shard_size=32)
    old = (folder / PLAIN[1]).read_bytes()
    new = file.parent / "new"
    new.mkdir()
    pt.save(new, three(2), max_shard_size=32)
    (new / PLAIN[1]).write_bytes(old)
    says(
        pt.FileError,
        f"cannot load '{new / INDEX}': these shards were not saved together with it: ['{PLAIN[1]}']",
        lambda: pt.load(new),
    )
    (new / PLAIN[1]).unlink()
    (new / PLAIN[2]).unlink()
    says(
        pt.FileError,
        f"cannot load '{new / INDEX}': these shards are not beside it: ['{PLAIN[1]}', '{PLAIN[2]}']",
        lambda: pt.load(new),
    )
    with pytest.raises(FileNotFoundError):
        pt.load(folder / "nothing")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "it is not a whole index of shards: 'weight_map'"),
        ("[]", "it is not a whole index of shards"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "shards are files beside it, and it names '../x.safetensors'"),
        ('{"weight_map": {"a": "/x.safetensors"}}', "shards are files beside it, and it names '/x.safetensors'"),
        ('{"weight_map": {"a": ""}}', "shards are files beside it, and it names ''"),
        ('{"weight_map": {"a": 5}}', "5 is no name"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "a name twice"),
        ('{"weight_map": [1]}', "it is not a whole index of shards"),
        ('{"metadata": 5, "weight_map": {}}', "it is not a whole index of shards"),
        ('{"weight_map": {"z": "model-1.safetensors"}}', "its shards do not have what it says they have: ['z']"),
        ('{"weight_map": {"a": "\\u0000"}}', "shards are files beside it"),
        ("[" * 100_000, "it is not a whole index of shards"),
    ],
)
def test_a_hostile_index_is_refused(file, text, why):
    save_file({"a": np.ones(2, "float32")}, file.parent / "model-1.safetensors")
    (file.parent / INDEX).write_text(text)
    with pytest.raises(pt.FileError) as raised:
        pt.load(file)
    assert why in str(raised.value)
    assert str(file.parent / INDEX) in str(raised.value)


@pytest.mark.parametrize("size", [0, -1, "5 apples", "", "GB", "1e3", [5], "0.1"])
def test_a_size_that_is_none_is_refused(file, size):
    with pytest.raises(
        pt.FileError, match="expected max_shard_size in bytes or as text such as '5GB' or '500MiB', got"
    ):
        pt.save(file, three(), max_shard_size=size)


def test_each_device_reads_its_own_bytes_of_shards(file):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    tree = {"a": jnp.arange(64.0 * 32).reshape(64, 32), "b": jnp.arange(16.0)}
    pt.save(file, tree, max_shard_size="4KB")
    loaded = pt.load(file, shardings={"a": PartitionSpec("d"), "b": PartitionSpec()}, mesh=mesh)
    assert equal(loaded, pt.Tree(tree))
    assert len(loaded["a"].addressable_shards) == 8
    with pt.open(file) as opened:
        shard, at = opened.stored.by_leaf["a"].path, opened.leaves["a"].start + 5
    with open(shard, "r+b") as raw:
        raw.seek(at)
        byte = raw.read(1)
        raw.seek(at)
        raw.write(bytes([byte[0] ^ 1]))
    spread = {"shardings": {"a": PartitionSpec(None, "d"), "b": PartitionSpec()}, "mesh": mesh}
    assert not equal(pt.load(file, **spread), pt.Tree(tree))
    with pytest.raises(pt.FileError, match=r"checksums say: \['a'\]") as raised:
        pt.load(file, **spread, verify=True)
    assert raised.value.damaged == ["a"]
    pt.save(file, tree, max_shard_size="4KB")
    assert equal(pt.load(file, **spread, verify=True), pt.Tree(tree))
    mapped = pt.load(file, mmap=True)
    pt.save(file, {"a": jnp.zeros(3)}, max_shard_size="4KB", background=True).result()
    assert equal(mapped, pt.Tree(tree))
    assert os.listdir(file.parent) == [file.name]


SAVER = """
import sys, numpy as np, ptree as pt
for at in range(10**6):
    pt.save(sys.argv[1], {name: np.full(2_000, at) for name in "abcdef"}, max_shard_size=40_000 if at % 3 else None)
    if at == 1:
        print("ready", flush=True)
"""


def saver(file):
    process = subprocess.Popen([sys.executable, "-c", SAVER, str(file)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def stop(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_killed_while_it_saves_shards_one_whole_tree_is_there(file):
    draw = np.random.default_rng(0)
    for _ in range(12):
        process = saver(file)
        time.sleep(draw.uniform(0, 0.1))
        stop(process)
        assert len({value for leaf in pt.load(file).values() for value in leaf.tolist()}) == 1
    for size in (40_000, None, 40_000):
        pt.save(file, {name: np.ones(2_000) for name in "abcdef"}, max_shard_size=size)
        assert len(os.listdir(file.parent)) == (4 if size else 1)


def test_readers_and_savers_of_shards_at_once(file):
    savers = [saver(file), saver(file)]
    try:
        for _ in range(60):
            assert len({value for leaf in pt.load(file).values() for value in leaf.tolist()}) == 1
    finally:
        for process in savers:
            stop(process)


def test_a_file_of_language_models_has_its_layers_together(file):
    pt.save(file, language_model(), max_shard_size="100")
    with pt.open(file) as opened:
        assert [*opened] == pt.paths(language_model())


def test_a_disk_that_is_full_at_any_moment_leaves_what_was_there(file, monkeypatch):
    pt.save(file, three(1), max_shard_size=32)
    before, real, left = sorted(os.listdir(file.parent)), os.pwrite, [0]

    def pwrite(*args):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, "pwrite", pwrite)
    for writes in range(20):
        left[0] = writes
        try:
            pt.save(file, three(2), max_shard_size=32)
            break
        except OSError as error:
            assert "model" in error.filename
        assert sorted(os.listdir(file.parent)) == before
        assert equal(pt.load(file), three(1))
    assert writes > 10
    assert equal(pt.load(file), three(2))


def test_a_function_of_shardings_that_returns_nothing_is_refused(tmp_path):
    pt.save(tmp_path / "w.safetensors", {"w": jnp.ones(3)})
    with pytest.raises(pt.InitError, match="expected the function to return shardings or rules, got None"):
        pt.load(tmp_path / "w.safetensors", shardings=lambda shapes: None)
