"""The command line on what is no file of parameters, on damaged files, on closed outputs, and on names with dots."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from commands import ended_with_words as run
from safetensors.numpy import load_file, save_file

import ptree as pt

TABLE = np.arange(12, dtype="float32").reshape(4, 3)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    return err


# ----------------------------------------------------------------------------- what is no file of parameters


def other_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (other_archive, "a zip archive without an array of NumPy"),
        (lambda path: path.write_bytes(pickle.dumps({"w": 1}, protocol=2)), "a pickle that torch.save did not write"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "it is no whole HDF5 file"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(100)), "version 0 of GGUF, which is not read"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + bytes(100)), "an .npy file"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(folder, capsys, write, why):
    write(folder / "model.bin")
    message = refused(capsys, "show", "model.bin")
    assert "cannot read 'model.bin': " in message
    assert why in message


def test_a_header_whose_length_begins_like_a_pickle_is_read(folder, capsys):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(0x280)
    (folder / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert (folder / "m.safetensors").read_bytes()[:2] == b"\x80\x02"
    assert run(capsys, "show", "m.safetensors")[0] == 0


def test_an_archive_of_nothing_has_no_leaves(folder, capsys):
    np.savez("empty.npz")
    assert "0 leaves" in run(capsys, "show", "empty.npz")[1]


def test_a_folder_is_read_where_one_file_is_in_it_and_else_says_what_there_is(folder, capsys):
    (folder / "run").mkdir()
    assert "the folder 'run' holds no parameters that ptree reads" in refused(capsys, "show", "run")
    save_file({"w": TABLE}, "run/adapter.safetensors")
    (folder / "run" / "notes.txt").write_text("x")
    assert "12 parameters" in run(capsys, "show", "run")[1]
    save_file({"w": TABLE}, "run/other.safetensors")
    assert "name one of them: ['adapter.safetensors', 'other.safetensors']" in refused(capsys, "show", "run")


def test_a_folder_with_one_index_of_any_name_is_read(folder, capsys):
    save_file({"a.w": TABLE}, "part-1.safetensors")
    save_file({"b.w": TABLE}, "part-2.safetensors")
    files = {"a.w": "part-1.safetensors", "b.w": "part-2.safetensors"}
    (folder / "unet.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert "24 parameters" in run(capsys, "show", ".")[1]


def test_a_link_that_leads_nowhere_is_not_its_own_correction(folder, capsys):
    os.symlink("gone.safetensors", "link.safetensors")
    assert "leads to 'gone.safetensors', where there is no file" in refused(capsys, "show", "link.safetensors")


# ----------------------------------------------------------------------------- damage


def test_of_a_file_that_is_cut_off_the_rest_is_shown_and_what_is_lost_is_named(folder, capsys):
    save_file({f"h.{at}.w": TABLE + at for at in range(4)}, "whole.safetensors")
    data = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(data[:-50])
    code, out, _ = run(capsys, "show", "cut.safetensors")
    assert code == 1
    assert "{0..1}/w x2  [4, 3]" in out
    assert "! 'h/2/w' is cut off" in out
    rows = json.loads(run(capsys, "stats", "cut.safetensors", "--json")[1])["rows"]
    assert [row["mean"] for row in rows][:2] == [5.5, 6.5]
    assert [bool(row["problem"]) for row in rows] == [False, False, True, True]
    code, out, _ = run(capsys, "check", "cut.safetensors")
    assert code == 1
    assert "damaged or unreadable, 2 of 4 leaves" in out
    assert "'h/3/w' ('h.3.w' in the file) is cut off" in refused(capsys, "get", "cut.safetensors", "h.3.w")
    with pytest.raises(pt.FileError, match="not a whole safetensors file"):
        pt.load("cut.safetensors")


@pytest.mark.parametrize("by_ptree", [True, False])
def test_of_shards_of_which_one_is_missing_the_others_are_shown(folder, capsys, by_ptree):
    if by_ptree:
        pt.save("m.index.json", pt.Tree({"a": TABLE, "b": TABLE}), max_shard_size=TABLE.nbytes)
    else:
        save_file({"a": TABLE}, "m-1.safetensors")
        save_file({"b": TABLE}, "m-2.safetensors")
        files = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
        (folder / "m.index.json").write_text(json.dumps({"weight_map": files}))
    shards = json.loads((folder / "m.index.json").read_text())["weight_map"]
    (folder / shards["b"]).unlink()
    code, out, _ = run(capsys, "show", "m")
    assert code == 1
    assert "a  [4, 3]" in out
    assert f"! 'b' is in '{shards['b']}', which is not there" in out
    assert "a  " in run(capsys, "stats", "m")[1]
    assert run(capsys, "check", "m")[0] == 1
    assert run(capsys, "diff", "m", "m")[0] in (0, 1)
    assert "which is not there" in refused(capsys, "get", "m", "b")
    with pytest.raises(pt.FileError, match="not beside it"):
        pt.load("m")
    (folder / shards["a"]).unlink()
    assert "not beside it" in run(capsys, "show", "m")[2]


def test_of_shards_of_which_one_has_a_damaged_header_the_others_are_shown(folder, capsys):
    pt.save("m.index.json", pt.Tree({"a": TABLE, "b": TABLE}), max_shard_size=TABLE.nbytes)
    shards = json.loads((folder / "m.index.json").read_text())["weight_map"]
    data = bytearray((folder / shards["b"]).read_bytes())
    data[20] ^= 255
    (folder / shards["b"]).write_bytes(data)
    code, out, _ = run(capsys, "show", "m", "--width", "400")
    assert code == 1
    assert "a  [4, 3]" in out
    assert f"! 'b' is in '{shards['b']}', which is damaged: " in out
    assert "a  " in run(capsys, "stats", "m")[1]
    assert run(capsys, "check", "m")[0] == 1
    assert run(capsys, "diff", "m", "m")[0] == 1
    assert "which is damaged" in refused(capsys, "get", "m", "b")
    with pytest.raises(pt.FileError, match="its header is damaged"):
        pt.load("m")
    (folder / shards["a"]).write_bytes(b"")
    assert run(capsys, "check", "m")[0] == 1
    assert "cannot read" in run(capsys, "show", "m")[2]


@pytest.mark.parametrize("command", ["show", "check", "stats", "diff"])
def test_a_fifo_is_no_file_and_not_waited_for(folder, capsys, command):
    os.mkfifo("pipe")
    files = ["pipe", "pipe"] if command == "diff" else ["pipe"]
    assert "'pipe': it is a FIFO, a socket or a device, not a file" in refused(capsys, command, *files)


def test_a_damaged_member_of_an_archive_is_named_and_the_others_are_read(folder, capsys):
    np.savez("m.npz", good=TABLE, bad=TABLE)
    with zipfile.ZipFile("m.npz") as archive:
        start = archive.getinfo("bad.npy").header_offset
    data = bytearray((folder / "m.npz").read_bytes())
    data[start + 200] ^= 1
    (folder / "m.npz").write_bytes(data)
    assert "good  [4, 3]" in run(capsys, "show", "m.npz")[1]
    assert "! bad: not read: is damaged: Bad CRC-32" in run(capsys, "stats", "m.npz")[1]
    assert run(capsys, "check", "m.npz")[0] == 1
    found = pt.look.nonfinite("m.npz")
    assert not found
    assert "is damaged" in str(found)


def test_a_damaged_file_is_not_written_anew_with_the_right_checksums(folder, capsys):
    pt.save("m.safetensors", pt.Tree({"a": TABLE, "b": TABLE}))
    data = bytearray((folder / "m.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "m.safetensors").write_bytes(data)
    assert "is damaged" in refused(capsys, "rename", "m.safetensors", "a", "c", "-o", "new.safetensors")
    assert not (folder / "new.safetensors").exists()


def test_a_header_of_another_form_is_described_without_words_of_python(folder, capsys):
    for table in ([1], {"w": 1}, {"w": {"dtype": "F32", "shape": [1], "data_offsets": None}}):
        header = json.dumps(table).encode()
        (folder / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        assert "it is not a table of names, each with a dtype" in refused(capsys, "show", "m.safetensors")


# ----------------------------------------------------------------------------- wrong use


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["show", "m.safetensors", "--depth", "0"], "'0' is no number of levels"),
        (["diff", "m.safetensors", "m.safetensors", "--tolerance", "nan"], "'nan' is no tolerance"),
        (["diff", "m.safetensors", "m.safetensors", "--tolerance", "-1e-3"], "'-1e-3' is no tolerance"),
        (["get", "m.safetensors", "w", "::0"], "'::0' is no part of an index"),
        (["diff", "m.safetensors"], "required: B."),
        (["show", "m.safetensors", "hh.0"], "Did you mean 'h/0'?"),
        (["plot", "m.safetensors", "-o", "p.xyz"], "cannot draw 'p.xyz'"),
        (["rename", "m.npz", "a", "b", "-o", "c.safetensors"], "only those are changed"),
    ],
)
def test_wrong_arguments_say_what_is_right(capsys, arguments, why):
    save_file({"w": TABLE, "h.0.w": TABLE}, "m.safetensors")
    np.savez("m.npz", a=TABLE)
    assert why in refused(capsys, *arguments)


def test_an_index_may_begin_with_a_minus(capsys):
    save_file({"w": TABLE}, "m.safetensors")
    assert run(capsys, "get", "m.safetensors", "w", "-1,0") == (0, "9.\n", "")


def test_numbers_of_dtypes_that_npy_lacks_stay_what_they_are(capsys):
    numbers = {"bf": ml_dtypes.bfloat16, "f8": ml_dtypes.float8_e4m3fn, "i4": ml_dtypes.int4, "u4": ml_dtypes.uint4}
    pt.save("m.safetensors", pt.Tree({name: np.arange(4).astype(dtype) for name, dtype in numbers.items()}))
    for name in numbers:
        assert run(capsys, "get", "m.safetensors", name, "-o", f"{name}.npy")[0] == 0
        part = np.load(f"{name}.npy")
        assert part.dtype.kind in "fiu"
        np.testing.assert_array_equal(part, np.arange(4))


def test_a_node_is_no_leaf_and_its_leaves_are_named(capsys):
    save_file({"h.0.w": TABLE, "h.0.b": TABLE}, "m.safetensors")
    for path in ("h/0", "h.0"):
        assert "Name a leaf in it: ['h/0/" in refused(capsys, "get", "m.safetensors", path)


def test_texts_are_not_drawn(capsys):
    np.savez("m.npz", text=np.array("x"), w=TABLE)
    assert run(capsys, "plot", "m.npz", "-o", "p.png") == (0, "p.png\n", "")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_a_closed_output_is_no_error(folder, closed):
    save_file({"w": TABLE}, "m.safetensors")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m ptree show m.safetensors {closed}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ----------------------------------------------------------------------------- names with dots


def test_names_with_dots_are_renamed_as_the_paths_that_are_shown_and_keep_their_dots(folder, capsys):
    save_file({"h.0.w": TABLE, "h.1.w": TABLE + 1, "wte": TABLE}, "m.safetensors", {"format": "pt"})
    assert run(capsys, "rename", "m.safetensors", "h/*/**", "blocks/*/**", "-o", "a.safetensors")[0] == 0
    assert run(capsys, "rename", "m.safetensors", "h.*.w", "blocks.*.w", "-o", "b.safetensors")[0] == 0
    for name in ("a.safetensors", "b.safetensors"):
        found = load_file(name)
        assert sorted(found) == ["blocks.0.w", "blocks.1.w", "wte"]
        np.testing.assert_array_equal(found["blocks.1.w"], TABLE + 1)
    assert run(capsys, "tie", "m.safetensors", "h/0/w=wte", "-o", "tied.safetensors")[0] == 0
    assert [*pt.ties(pt.load("tied.safetensors"))] == ["h.0.w"]


def test_the_latest_checkpoint_of_a_folder_is_renamed(capsys):
    with pt.Checkpoints("run") as steps:
        steps.save(1, {"a": TABLE})
    assert run(capsys, "rename", "run", "a", "b", "-o", "new.safetensors")[0] == 0
    assert [*pt.load("new.safetensors")] == ["b"]
