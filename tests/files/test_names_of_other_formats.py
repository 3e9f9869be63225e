"""A tree that is saved under a name of another format: it is said, and such files are read as the safetensors that they are."""

import os
import re
import warnings

import numpy as np
import pytest
from commands import ended_with_words as run
from safetensors import SafetensorError
from safetensors.numpy import load_file
from trees import equal

import ptree as pt
from ptree import convert

TREE = {"layer": {"kernel": np.arange(6.0, dtype="f4").reshape(2, 3), "bias": np.ones(3, "f4")}}
ENDINGS = [
    ".pt", ".pth", ".bin", ".ckpt", ".h5", ".hdf5", ".weights.h5", ".keras", ".msgpack", ".params", ".index", ".npz", ".gguf",
    ".onnx", ".npy", ".pkl", ".pickle",
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved_silently(path, tree=TREE, **options):
    """A file as an earlier ptree wrote it without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pt.save(path, tree, **options).result()


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_name_of_another_format_is_a_warning_and_the_file_is_written(ending, background):
    with pytest.warns(UserWarning, match=r"ptree\.save writes safetensors") as warned:
        saved = pt.save(f"m{ending}", TREE, background=background)
    saved.result()
    assert [warning.filename for warning in warned] == [__file__]  # the line of the call
    said = str(warned[0].message)
    assert re.match(
        rf"'m{ending}' ends in \.\w+, as (an?|the) .* does, but ptree\.save writes safetensors whatever the name", said
    )
    assert re.search(r"Name it 'm(\.weights)?\.safetensors'", said)
    assert sorted(load_file(f"m{ending}")) == ["layer/bias", "layer/kernel"]
    assert equal(pt.load(f"m{ending}"), pt.Tree(TREE))


def test_the_message_is_whole():
    with pytest.warns(UserWarning, match=r"ptree\.save writes safetensors") as warned:
        pt.save("m.pt", TREE)
    assert str(warned[0].message) == (
        "'m.pt' ends in .pt, as a file of PyTorch does, but ptree.save writes safetensors whatever the name is: ptree.load reads"
        " it, and programs that go by the name do not. Name it 'm.safetensors'; ptree.convert.write('m.pt', tree) writes a file"
        " of PyTorch"
    )
    with pytest.warns(
        UserWarning, match=r"ptree\.convert\.to_onnx\(function, params, \*inputs, path='m\.onnx'\) writes"
    ):
        pt.save("m.onnx", TREE)
    with pytest.warns(UserWarning, match=r"Name it 'm\.safetensors'$"):
        pt.save("m.npy", TREE)


@pytest.mark.parametrize(
    "ending", [".pt", ".pth", ".bin", ".ckpt", ".index", ".h5", ".hdf5", ".msgpack", ".params", ".npz", ".gguf"]
)
def test_the_recommended_call_writes_the_format_of_the_name(ending):
    path = f"m{ending}"
    with pytest.warns(UserWarning, match=r"ptree\.save writes safetensors") as warned:
        pt.save(path, TREE)
    call = re.search(r"ptree\.convert\.write\(.*?\)", str(warned[0].message))[0]
    os.remove(path)
    eval(call, {"ptree": pt, "tree": TREE})
    with pytest.raises((SafetensorError, FileNotFoundError)):
        load_file(path)
    found = convert.read(path)
    kernel = next(array for name, array in found.items() if "kernel" in name)
    np.testing.assert_array_equal(kernel.ravel(), TREE["layer"]["kernel"].ravel())


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_that_were_saved_so_are_read_in_every_way(capsys, ending):
    path = f"m{ending}"
    saved_silently(path)
    pt.save("m.safetensors", TREE)
    assert equal(pt.load(path, like=TREE), TREE)
    assert equal(pt.load(path, mmap=True), pt.Tree(TREE))
    with pt.open(path) as file:
        assert list(file) == ["layer/kernel", "layer/bias"]
        np.testing.assert_array_equal(file["layer/kernel"][1], TREE["layer"]["kernel"][1])
    assert sorted(convert.read(path)) == ["layer/bias", "layer/kernel"]
    assert f"m{ending}: safetensors, " in run(capsys, "show", path)[1]
    assert run(capsys, "check", path) == (0, f"{path}: whole, 2 leaves with the right checksum\n", "")
    assert run(capsys, "diff", path, "m.safetensors")[:2] == (0, "2 the same\n")
    assert run(capsys, "get", path, "layer/bias")[1].startswith("[1")
    assert pt.look.stats(path)["layer/bias"].mean == 1
    pt.save("again.safetensors", pt.load(path))
    assert pt.load("again.safetensors") == pt.load("m.safetensors")


@pytest.mark.parametrize("ending", [".pt", ".npz", ".h5", ".index"])
def test_a_damaged_one_is_said_to_be_damaged_safetensors(capsys, ending, folder):
    path = f"m{ending}"
    saved_silently(path)
    data = bytearray((folder / path).read_bytes())
    data[-1] ^= 1
    (folder / path).write_bytes(data)
    with pytest.raises(pt.FileError, match="damaged, their bytes are not what their checksums say"):
        pt.load(path)
    assert run(capsys, "check", path)[0] == 1
    (folder / path).write_bytes(data[:-1])
    for read in (pt.load, pt.open, convert.read):
        with pytest.raises(pt.FileError, match="it is not a whole safetensors file"):
            read(path)


def test_where_warnings_are_errors_nothing_is_written():
    saved_silently("m.pt")
    before = os.stat("m.pt")
    for name in ("m.pt", "n.pt"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match=r"ptree\.save writes safetensors"):
                pt.save(name, TREE)
    assert os.listdir() == ["m.pt"]
    assert os.stat("m.pt") == before


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("m.safetensors", None), ("m", None), ("m.v2", None), ("m.PT", None), ("pt", None), ("m.pt.safetensors", None),
        ("m.pt/", None), ("m.pt", 30), ("m.bin/", 30), ("m.safetensors.index.json", 30), (".", None), ("there.pt", None),
        ("there.pt", 30),
    ],
)  # fmt: skip
def test_other_names_and_folders_are_no_warning(name, size):
    os.mkdir("there.pt")
    pt.save(name, TREE, max_shard_size=size)
    assert equal(pt.load(name), pt.Tree(TREE))


def test_what_cannot_be_saved_is_an_error_and_no_warning():
    with pytest.raises(pt.FileError, match="cannot save these leaves"):
        pt.save("m.pt", {"a": object()})
    assert os.listdir() == []


def test_shards_beside_such_a_file_are_a_warning_too():
    saved_silently("m.pt")
    with pytest.warns(UserWarning, match="'m.pt' ends in .pt"):
        pt.save("m.pt", TREE, max_shard_size=30)
    assert equal(pt.load("m.pt"), pt.Tree(TREE))


@pytest.mark.parametrize("ending", [".pt", ".npz", ".onnx"])
def test_the_command_refuses_such_a_name_before_it_reads(capsys, ending, folder):
    pt.save("m.safetensors", TREE)
    for arguments in (["rename", "m.safetensors", "layer", "dense"], ["tie", "m.safetensors", "a=b"]):
        code, out, err = run(capsys, *arguments, "-o", f"new{ending}")
        assert (code, out) == (2, "")
        assert f"cannot write 'new{ending}': it ends in {ending}, as " in err
        assert "this command writes safetensors. Name it 'new.safetensors'; `ptree convert` writes other formats" in err
    assert os.listdir() == ["m.safetensors"]
    assert run(capsys, "convert", "m.safetensors", "new.npz")[0] == 0
    assert sorted(np.load("new.npz")) == ["layer/bias", "layer/kernel"]
    assert run(capsys, "rename", "m.safetensors", "layer", "dense", "-o", "new.safetensors")[0] == 0
    assert [*pt.load("new.safetensors")] == ["dense"]
