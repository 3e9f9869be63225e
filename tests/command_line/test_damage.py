"""Damaged files: what is readable is shown, the damaged leaf is named, the exit code is 1, and `load` refuses them."""

import json

import numpy as np
import pytest
from commands import ended_with_words as run
from safetensors.numpy import save_file

import ptree as pt

TABLE = np.arange(12, dtype="float32").reshape(4, 3)
LEAVES = {f"h/{at}/w": TABLE + at for at in range(4)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(LEAVES, "other.safetensors")
    pt.save("ptree.safetensors", pt.unflatten(LEAVES))
    return tmp_path


def parts(file):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write(file, header, data):
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def wrong_shape(header, data):
    header["h/1/w"]["shape"] = [5, 3]
    return data


def unknown_form(header, data):
    header["h/1/w"] = 1
    return data


def cut_off(header, data):
    places = header["h/1/w"]["data_offsets"], header["h/3/w"]["data_offsets"]
    header["h/3/w"]["data_offsets"], header["h/1/w"]["data_offsets"] = places
    return data[:-1]


@pytest.mark.parametrize("name", ["other.safetensors", "ptree.safetensors"])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (wrong_shape, "is F32[5, 3], which does not take 48 bytes"),
        (unknown_form, "its entry in the header is not a dtype, a shape and two data_offsets"),
        (cut_off, "is cut off"),
    ],
)
def test_a_leaf_that_is_damaged_is_named_and_the_others_are_read(folder, capsys, name, damage, why):
    header, data = parts(folder / name)
    write(folder / "bad.safetensors", header, damage(header, data))
    code, out, _ = run(capsys, "show", "bad.safetensors", "--width", "100")
    assert code == 1
    assert "{0,2..3}/w x3" in out
    assert f"! 'h/1/w' {why}" in out.replace("is damaged: its", "its")
    code, out, _ = run(capsys, "stats", "bad.safetensors", "--json")
    rows = {row["path"]: row for row in json.loads(out)["rows"]}
    assert code == 1
    assert rows["h/1/w"]["problem"]
    assert [rows[f"h/{at}/w"]["mean"] for at in (0, 2)] == [(TABLE + at).mean() for at in (0, 2)]
    code, out, _ = run(capsys, "check", "bad.safetensors")
    assert code == 1
    assert "'h/1/w' " in out
    assert "bad.safetensors: damaged or unreadable, " in out
    assert run(capsys, "get", "bad.safetensors", "h/1/w")[0] == 2
    assert run(capsys, "get", "bad.safetensors", "h/2/w")[1].startswith("[[ 2.")
    with pytest.raises(pt.FileError, match="not a whole safetensors file"):
        pt.load("bad.safetensors", verify=False)
    assert run(capsys, "rename", "bad.safetensors", "h", "g", "-o", "new.safetensors")[0] == 2


def test_a_changed_number_is_found_by_the_commands_that_read_numbers(folder, capsys):
    data = bytearray((folder / "ptree.safetensors").read_bytes())
    data[-1] ^= 1  # in the last number of the last leaf
    (folder / "bad.safetensors").write_bytes(data)
    assert run(capsys, "show", "bad.safetensors")[0] == 0  # reads the header alone
    for command in (["stats"], ["check"], ["report", "--out", "page.html"]):
        assert run(capsys, *command[:1], "bad.safetensors", *command[1:])[0] == 1, command
    for pair in (["bad.safetensors", "ptree.safetensors"], ["ptree.safetensors", "bad.safetensors"]):
        assert run(capsys, "diff", *pair)[0] == 1
        assert run(capsys, "report", *pair, "--out", "page.html")[0] == 1
    assert "'h/3/w' is damaged: its bytes are not" in run(capsys, "report", "bad.safetensors", "--out", "page.html")[2]
    assert run(capsys, "report", "ptree.safetensors", "--out", "page.html")[::2] == (0, "")
    assert run(capsys, "report", "ptree.safetensors", "other.safetensors", "--out", "page.html")[0] == 0
    assert run(capsys, "get", "bad.safetensors", "h/3/w")[0] == 2
    assert run(capsys, "convert", "bad.safetensors", "new.npz")[0] == 2
    assert run(capsys, "rename", "bad.safetensors", "h", "g", "-o", "new.safetensors")[0] == 2
    assert not (folder / "new.safetensors").exists()


def test_leaves_that_overlap_are_both_named(folder, capsys):
    header, data = parts(folder / "other.safetensors")
    header["h/1/w"]["data_offsets"] = [4, 52]
    write(folder / "bad.safetensors", header, data)
    code, out, _ = run(capsys, "show", "bad.safetensors")
    assert code == 1
    assert "! 'h/0/w' is damaged: it shares bytes with 'h/1/w'" in out
    assert "! 'h/1/w' is damaged: it shares bytes with 'h/0/w'" in out
    assert "{2..3}/w x2" in out


def test_a_leaf_inside_of_another_makes_both_unreadable(folder, capsys):
    header = {
        "whole": {"dtype": "U8", "shape": [100], "data_offsets": [0, 100]},
        "in": {"dtype": "U8", "shape": [2], "data_offsets": [4, 6]},
        "in/too": {"dtype": "U8", "shape": [2], "data_offsets": [90, 92]},
        "empty": {"dtype": "U8", "shape": [0], "data_offsets": [50, 50]},
        "last": {"dtype": "U8", "shape": [2], "data_offsets": [100, 102]},
    }
    write(folder / "bad.safetensors", header, bytes(102))
    rows = {row.path: row for row in pt.summary("bad.safetensors").rows}
    assert [path for path, row in rows.items() if not row.problem] == ["empty", "last"]


@pytest.mark.parametrize("name", ["other.safetensors", "ptree.safetensors"])
def test_bytes_of_no_leaf_are_named(folder, capsys, name):
    data = (folder / name).read_bytes()
    (folder / "long.safetensors").write_bytes(data + b"xx")
    for command in (["show"], ["stats"], ["diff", name], ["get", "h/0/w"], ["report", "-o", "page.html"]):
        code, out, err = run(capsys, command[0], "long.safetensors", *command[1:])
        assert code == 1, command
        assert out
        assert f"the last 2 of its {len(data) + 2:,} bytes belong to no leaf" in err
    code, out, _ = run(capsys, "check", "long.safetensors")
    assert code == 1
    assert "long.safetensors: damaged, though 4 leaves can be read" in out
    with pytest.raises(pt.FileError, match="its header describes"):
        pt.load("long.safetensors")


def test_a_gap_is_named(folder, capsys):
    header, data = parts(folder / "other.safetensors")
    del header["h/1/w"]
    write(folder / "bad.safetensors", header, data)
    code, out, _ = run(capsys, "check", "bad.safetensors")
    assert code == 1
    assert "the 48 bytes before 'h/2/w' belong to no leaf" in out


def test_a_header_that_was_changed_is_named_and_its_leaves_are_shown(folder, capsys):
    data = bytearray((folder / "ptree.safetensors").read_bytes())
    data[data.rindex(b'"h/2') + 1] = ord("g")
    (folder / "bad.safetensors").write_bytes(data)
    code, out, err = run(capsys, "show", "bad.safetensors")
    assert code == 1
    assert "g/2/w" in out
    assert "'bad.safetensors': its header is damaged: it is not what its checksum says" in err


def test_one_damaged_shard_leaves_the_others(folder, capsys):
    pt.save("m.index.json", pt.unflatten(LEAVES), max_shard_size=2 * TABLE.nbytes)
    shard = next(folder.glob("m-00002*"))
    header, data = parts(shard)
    header["h/2/w"]["shape"] = [5, 3]
    write(shard, header, data)
    code, out, _ = run(capsys, "show", "m")
    assert code == 1
    assert "{0..1,3}/w x3" in out
    assert "! 'h/2/w' is F32[5, 3]" in out


def test_a_flipped_byte_is_found_by_all_that_read_the_whole_leaf(folder, capsys):
    data = bytearray((folder / "ptree.safetensors").read_bytes())
    data[pt.open("ptree.safetensors").leaves["h/1/w"].start] ^= 1
    (folder / "bad.safetensors").write_bytes(data)
    said = "is damaged: its bytes are not what its checksum says"
    code, out, _ = run(capsys, "stats", "bad.safetensors")
    assert code == 1
    assert f"! h/1/w: not read: {said}" in out
    code, out, err = run(capsys, "get", "bad.safetensors", "h/1/w")
    assert (code, out) == (2, "")
    assert f"'h/1/w' {said}" in err
    assert run(capsys, "get", "bad.safetensors", "h/0/w")[0] == 0
    with pytest.raises(pt.FileError, match="'h/1/w' is damaged"):
        pt.look.nonfinite("bad.safetensors")
    row = pt.look.stats("ptree.safetensors", relative_to="bad.safetensors")["h/1/w"]
    assert said in row.problem


def test_a_tied_name_of_a_damaged_leaf_is_not_printed(folder, capsys):
    pt.save("t.safetensors", pt.tie({"a": TABLE, "b": TABLE.T}, {"b": pt.transposed("a")}))
    data = bytearray((folder / "t.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "t.safetensors").write_bytes(data)
    assert "is damaged" in run(capsys, "get", "t.safetensors", "b", "0")[2]


def test_what_ptree_does_not_know_is_no_damage(folder, capsys):
    header, data = parts(folder / "other.safetensors")
    header["h/1/w"]["dtype"] = "F99"
    write(folder / "new.safetensors", header, data)
    for command in ("show", "stats"):
        code, out, _ = run(capsys, command, "new.safetensors")
        assert code == 0
        assert "is of the dtype 'F99', which this ptree does not know" in out
