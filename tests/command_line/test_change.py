"""Commands that write files: what they must not lose: other files, shards, names with dots, ties, nodes without leaves."""

import json
import os

import numpy as np
import pytest
from commands import ended
from commands import succeeded as run
from safetensors.numpy import load_file, save_file

import ptree as pt

TABLE = np.arange(12, dtype="float32").reshape(4, 3)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments):
    code, out, err = ended(capsys, *arguments)
    assert (code, out) == (2, "")
    return err


# ----------------------------------------------------------------------------- files that are there


@pytest.mark.parametrize("target", ["m.safetensors", "notes.txt", "link", "folder"])
def test_get_replaces_no_file(folder, capsys, target):
    save_file({"w": TABLE}, "m.safetensors")
    (folder / "notes.txt").write_text("notes")
    os.symlink("notes.txt", "link")
    (folder / "folder").mkdir()
    before = (folder / "m.safetensors").read_bytes()
    assert repr(target) in refused(capsys, "get", "m.safetensors", "w", "-o", target)
    assert (folder / "m.safetensors").read_bytes() == before
    assert (folder / "notes.txt").read_text() == "notes"
    assert [*(folder / "folder").iterdir()] == []


@pytest.mark.parametrize("target", ["m.safetensors", "m.safetensors.index.json", "folder"])
def test_rename_replaces_neither_a_file_nor_shards(folder, capsys, target):
    save_file({"w": TABLE}, "from.safetensors")
    (folder / "folder").mkdir()
    pt.save("m.safetensors", pt.Tree({"a": TABLE, "b": TABLE}), max_shard_size=TABLE.nbytes)
    before = sorted(os.listdir())
    assert target in refused(capsys, "rename", "from.safetensors", "w", "v", "-o", target)
    assert sorted(os.listdir()) == before


def test_an_interrupted_npy_file_is_not_there(folder, capsys, monkeypatch):
    save_file({"w": TABLE}, "m.safetensors")

    def interrupted(file, *_, **__):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    assert ended(capsys, "get", "m.safetensors", "w", "-o", "part.npy")[0] == 130
    assert os.listdir() == ["m.safetensors"]


# ----------------------------------------------------------------------------- shards


def shards(count=8):
    return pt.Tree({"h": {str(at): {"w": TABLE + at} for at in range(count)}})


@pytest.mark.parametrize("name", ["model.safetensors", "shards"])
def test_shards_that_are_renamed_in_place_stay_shards(folder, capsys, name):
    (folder / "d").mkdir()
    pt.save(folder / "d" / f"{name}.index.json", shards(), max_shard_size=2 * TABLE.nbytes)
    run(capsys, "rename", "d", "h/**", "blocks/**", "--in-place")
    index = json.loads((folder / "d" / f"{name}.index.json").read_text())
    files = {*index["weight_map"].values()}
    assert len(files) == 4
    assert {*os.listdir("d")} == {*files, f"{name}.index.json"}
    assert "96 parameters" in run(capsys, "show", "d", "blocks/*/w")
    assert "8 leaves with the right checksum" in run(capsys, "check", "d")


def test_shards_that_are_renamed_to_another_file_stay_shards(folder, capsys):
    pt.save("m.safetensors", shards(), max_shard_size=2 * TABLE.nbytes)
    run(capsys, "rename", "m.safetensors", "h/**", "blocks/**", "-o", "new.safetensors")
    files = {*json.loads((folder / "new.safetensors.index.json").read_text())["weight_map"].values()}
    assert len(files) == 4
    np.testing.assert_array_equal(pt.load("new.safetensors")["blocks/7/w"], TABLE + 7)
    assert sorted(pt.paths(pt.load("m.safetensors"))) == sorted(pt.paths(shards()))


def test_shards_of_another_program_are_named_where_they_are_left(folder, capsys):
    for at in range(2):
        save_file({f"h.{at}.w": TABLE + at}, f"m-{at}.safetensors")
    files = {f"h.{at}.w": f"m-{at}.safetensors" for at in range(2)}
    (folder / "m.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    out = run(capsys, "rename", "m.safetensors.index.json", "h/*/w", "b/*/w", "--in-place")
    assert "no longer needed: ['m-0.safetensors', 'm-1.safetensors']" in out
    assert "24 parameters" in run(capsys, "show", "m.safetensors", "b/*/w")


def test_one_shard_is_not_renamed_in_its_place(folder, capsys):
    pt.save("m.safetensors", shards(), max_shard_size=2 * TABLE.nbytes)
    shard = sorted(folder.glob("m-00001*"))[0].name
    assert "is a shard of 'm.safetensors.index.json'" in refused(capsys, "rename", shard, "h", "g", "--in-place")
    assert "8 leaves with the right checksum" in run(capsys, "check", "m.safetensors")
    run(capsys, "rename", shard, "h", "g", "-o", "part.safetensors")


def test_a_folder_is_read_whose_one_file_has_no_ending(folder, capsys):
    (folder / "d").mkdir()
    pt.save("d/weights", shards())
    (folder / "d" / "notes.txt").write_text("x" * 100)
    assert "96 parameters" in run(capsys, "show", "d")


# ----------------------------------------------------------------------------- names with dots


def dotted():
    leaves = {f"h.{at}.{name}": TABLE + (name == "w") * at for at in range(3) for name in ("w", "b")}
    return {**leaves, "e": TABLE}


def test_renamed_names_with_dots_are_paths_again(folder, capsys):
    save_file(dotted(), "w.safetensors", {"format": "pt"})
    run(capsys, "rename", "w.safetensors", "h/*/w", "b/*/w", "-o", "w2.safetensors")
    assert "b/{0..2}/w x3" in run(capsys, "show", "w2.safetensors")
    assert "36 parameters" in run(capsys, "show", "w2.safetensors", "b/*/w")
    run(capsys, "rename", "w2.safetensors", "b/**", "c/**", "-o", "w3.safetensors")
    assert {*load_file("w3.safetensors")} == {*[f"c.{at}.w" for at in range(3)], *[f"h.{at}.b" for at in range(3)], "e"}
    assert run(capsys, "get", "w3.safetensors", "c/2/w") == run(capsys, "get", "w3.safetensors", "c.2.w")
    assert "b/** -> c/**" in ended(capsys, "diff", "w2.safetensors", "w3.safetensors")[1]


def test_ties_of_names_with_dots_take_patterns_and_follow_renames(folder, capsys):
    save_file(dotted(), "w.safetensors")
    run(capsys, "tie", "w.safetensors", "h/{1,2}/b=h/0/b", "-o", "t.safetensors")
    tied = pt.load("t.safetensors")
    assert pt.ties(tied) == {"h.1.b": "h.0.b", "h.2.b": "h.0.b"}
    assert "= h/0/b" in run(capsys, "show", "t.safetensors", "--no-fold")
    assert "60 parameters" in run(capsys, "show", "t.safetensors")
    run(capsys, "tie", "t.safetensors", "h.0.w=h.0.b", "-o", "t2.safetensors")
    run(capsys, "rename", "t2.safetensors", "h.**", "x.h.**", "-o", "t3.safetensors")
    assert pt.ties(pt.load("t3.safetensors"))["x.h.2.b"] == pt.ties(pt.load("t3.safetensors"))["x.h.1.b"]
    assert {*pt.load("t3.safetensors")} == {*[f"x.{name}" for name in dotted() if name != "e"], "e"}
    assert run(capsys, "get", "t3.safetensors", "x/h/2/b") == run(capsys, "get", "w.safetensors", "h/2/b")


def test_a_transposed_tie_of_names_with_dots(folder, capsys):
    save_file({"wte.weight": TABLE, "head.weight": TABLE.T.copy()}, "w.safetensors")
    run(capsys, "tie", "w.safetensors", "head/weight=transposed(wte/weight)", "-o", "t.safetensors")
    assert "= transposed(wte/weight)" in run(capsys, "show", "t.safetensors")
    run(capsys, "rename", "t.safetensors", "wte", "emb", "-o", "t2.safetensors")
    assert "= transposed(emb/weight)" in run(capsys, "show", "t2.safetensors")
    np.testing.assert_array_equal(pt.load("t2.safetensors")["head.weight"], TABLE.T)


def test_nodes_without_leaves_stay_beside_names_with_dots(capsys):
    pt.save("m.safetensors", pt.Tree({"a.b": TABLE, "nothing": pt.Tree({})}))
    run(capsys, "rename", "m.safetensors", "a", "c", "-o", "n.safetensors")
    assert pt.asdict(pt.load("n.safetensors")).keys() == {"c.b", "nothing"}


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("e.", "an empty segment"),
        ("e..w", "would not be a path"),
        ("x.h.0.w", "both land on"),
        ("x/.h/0", "would not be a path"),
    ],
)
def test_a_name_with_dots_that_could_not_be_read_again_is_refused(folder, capsys, new, why):
    save_file({"a": TABLE, "x.h.0.w": TABLE}, "w.safetensors")
    assert why in refused(capsys, "rename", "w.safetensors", "a", new, "-o", "new.safetensors")
    assert not (folder / "new.safetensors").exists()


def test_one_name_cannot_be_tied_twice(capsys):
    save_file(dotted(), "w.safetensors")
    assert "'h/1/b' twice" in refused(capsys, "tie", "w.safetensors", "h.1.b=h.0.b", "h/1/b=e", "-o", "t.safetensors")
