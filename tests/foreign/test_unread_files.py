"""A file that is not read: the message says which format its ending is of and what is there, the same by every way to it."""

import gzip
import json
import pickle

import numpy as np
import pytest
from commands import ended_with_words as run

import ptree as pt
from ptree import convert

READS = {"load": pt.load, "open": pt.open, "read": convert.read, "summary": pt.summary}
COMMANDS = {
    "show": lambda path: ["show", path],
    "check": lambda path: ["check", path],
    "stats": lambda path: ["stats", path],
    "diff": lambda path: ["diff", "good.safetensors", path],
    "convert": lambda path: ["convert", path, "new.npz"],
}
KINDS = {
    ".pt": "a file of PyTorch",
    ".pth": "a file of PyTorch",
    ".bin": "a file of PyTorch",
    ".ckpt": "a checkpoint of PyTorch or TensorFlow",
    ".h5": "an HDF5 file",
    ".weights.h5": "an HDF5 file",
    ".hdf5": "an HDF5 file",
    ".keras": "a file of Keras",
    ".msgpack": "a file of Flax",
    ".params": "a file of MXNet",
    ".npz": "an archive of NumPy",
    ".gguf": "a file of GGUF",
}
UNREAD = {".onnx": "a model of ONNX", ".npy": "an array of NumPy", ".pkl": "a pickle of Python"}
CONTENTS = {
    b"": "it is empty (0 bytes)",
    b"\n": "it is of no format that ptree reads; it begins with b'\\n' (1 byte)",
    b"hello, this is a text": "it is of no format that ptree reads; it begins with b'hello, t' (21 bytes)",
    b"hello, this is a {text": "it is of no format that ptree reads; it begins with b'hello, t' (22 bytes)",
    bytes(1000): f"it is of no format that ptree reads; it begins with {bytes(8)} (1,000 bytes)",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pt.save("good.safetensors", {"w": np.ones(3)})
    return tmp_path


def messages_of(path, capsys):
    """What each way to read a file says of it; it fails by each of them."""
    said = {}
    for name, read in READS.items():
        with pytest.raises(pt.FileError) as raised:
            read(path)
        said[name] = str(raised.value)
    for name, arguments in COMMANDS.items():
        code, out, err = run(capsys, *arguments(path))
        assert (code in (1, 2), out) == (True, ""), name
        said[name] = err.removeprefix("ptree: ").rstrip("\n").replace("\\\\", "\\")
    return said


@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "one byte", "text", "text with a brace", "zeros"])
@pytest.mark.parametrize("ending", KINDS)
def test_the_format_of_the_ending_is_expected_and_what_is_there_is_said(folder, capsys, ending, content):
    path = f"m{ending}"
    (folder / path).write_bytes(content)
    known = ".h5" if ending == ".weights.h5" else ending
    expected = f"cannot read {path!r}: expected {KINDS[ending]}, as it ends in {known}; {CONTENTS[content]}"
    assert messages_of(path, capsys) == dict.fromkeys([*READS, *COMMANDS], expected)


@pytest.mark.parametrize("ending", UNREAD)
@pytest.mark.parametrize("content", [b"", b"\x08\x08\x12\x05ptree" + bytes(20)])
def test_a_format_that_is_not_read_is_named_by_the_ending(folder, capsys, ending, content):
    path = f"m{ending}"
    (folder / path).write_bytes(content)
    expected = f"cannot read {path!r}: it ends in {ending}, as {UNREAD[ending]}, which ptree does not read ({len(content)} bytes)"
    assert messages_of(path, capsys) == dict.fromkeys([*READS, *COMMANDS], expected)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("path", ["m.xyz", "m", "m.PT"])
def test_another_ending_says_no_format(folder, capsys, path, content):
    (folder / path).write_bytes(content)
    expected = f"cannot read {path!r}: {CONTENTS[content]}"
    assert messages_of(path, capsys) == dict.fromkeys([*READS, *COMMANDS], expected)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "`git lfs pull` fetches that"),
        (b"<!DOCTYPE html><html>404</html>", "it is a page of HTML"),
        (gzip.compress(b"x" * 100, mtime=0), "it is compressed with gzip"),
        (pickle.dumps({"w": 1}), "it is a pickle that torch.save did not write"),
    ],
    ids=["lfs", "html", "gzip", "pickle"],
)
@pytest.mark.parametrize("ending", [".pt", ".h5", ".keras", ".npz", ".gguf", ".msgpack"])
def test_what_is_there_is_said_where_its_first_bytes_tell(folder, capsys, ending, content, what):
    (folder / f"m{ending}").write_bytes(content)
    for said in messages_of(f"m{ending}", capsys).values():
        assert said.startswith(f"cannot read 'm{ending}': expected {KINDS[ending]}, as it ends in {ending}; it is ")
        assert what in said


@pytest.mark.parametrize("name", ["m.npz", "m.keras", "m.pt", "m.h5", "m.gguf", "m.msgpack", "m.params", "m.index"])
def test_a_file_that_is_cut_short_is_never_called_safetensors(folder, capsys, name):
    to = {"m.keras": None, "m.index": "tensorflow"}.get(name)
    if name == "m.keras":
        convert.write("m.npz", {"layer/kernel": np.ones((20, 3), "f4")})
        (folder / "m.npz").rename("m.keras")  # an archive too
    else:
        convert.write(name.removesuffix(".index"), {"layer/kernel": np.ones((20, 3), "f4")}, to=to)
    whole = (folder / name).read_bytes()
    for size in (0, 1, 7, 8, 9, 40, len(whole) // 2):
        (folder / name).write_bytes(whole[:size])
        for said in messages_of(name, capsys).values():
            assert name in said
            assert "safetensors" not in said


@pytest.mark.parametrize("size", [0, 3, 8, 20])
def test_safetensors_are_called_so_where_the_name_or_the_first_bytes_say_it(folder, capsys, size):
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:size])
    for said in messages_of("cut.safetensors", capsys).values():
        assert f"it is not a whole safetensors file ({size} bytes)" in said
    (folder / "cut.pt").write_bytes(whole[:20])
    for said in messages_of("cut.pt", capsys).values():
        assert "it is not a whole safetensors file (20 bytes)" in said


@pytest.mark.parametrize("count", [122, 123, 124, 123 + 256])
def test_a_gguf_of_any_number_of_tensors_is_no_safetensors(capsys, count):
    """The byte of the number 123 is `{`, which a header of safetensors begins with at the same place."""
    arrays = {f"blk.{at}.weight": np.full(2, at, "f4") for at in range(count)}
    convert.write("m.gguf", arrays)
    for read in (pt.load, convert.read):
        assert {name: array[1] for name, array in read("m.gguf").items()} == {name: a[1] for name, a in arrays.items()}
    with pt.open("m.gguf") as file:
        assert len(file) == count
    assert f"{count} leaves" in run(capsys, "show", "m.gguf")[1]
    assert run(capsys, "check", "m.gguf")[0] == 0


def test_shards_of_pytorch_by_an_index_are_named_by_the_command_too(folder, capsys):
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "pytorch_model-1.bin"}}))
    convert.write("pytorch_model-1.bin", {"w": np.ones(3)})
    said = messages_of("pytorch_model.bin.index.json", capsys)
    for message in said.values():
        assert "it is an index of shards in PyTorch's own format, which are read one by one" in message
    with pytest.raises(FileNotFoundError):
        pt.load("other.bin.index.json")
