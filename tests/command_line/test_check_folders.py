"""`ptree check FOLDER`: it checks what the folder stands for, and names every other file of parameters as not checked."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from commands import ended_with_words as run
from safetensors.numpy import save_file

import ptree as pt
from ptree import convert

WHOLE = "{}: whole, 1 leaf with the right checksum\n"
READABLE = "{}: readable, 1 leaf without a checksum, so that changed numbers would not show\n"
KERNEL = np.ones((2, 3), "f4")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    return tmp_path / "d"


def write(*names):
    """Write a file of its own format for each name; its one array is `layer/kernel`."""
    for name in names:
        path = os.path.join("d", name)
        if name.endswith(".safetensors") or "." not in name:
            pt.save(path, {"layer": {"kernel": KERNEL}})
        elif name.endswith(".keras"):
            Path(path).write_bytes(b"PK")
        elif name.endswith(".index"):
            convert.write(path.removesuffix(".index"), {"layer/kernel": KERNEL}, to="tensorflow")
        else:
            convert.write(path, {"layer/kernel": KERNEL})


def write_shards(file):
    pt.save(os.path.join("d", file), {"a": np.ones(9), "b": np.ones(9)}, max_shard_size=80)


def not_checked(*names):
    count = "1 other file" if len(names) == 1 else f"{len(names)} other files"
    return f"d: not checked, {count}: {[*names]}\n" if names else ""


# the files of a folder; the one that is checked first
MIXES = [
    ["model.safetensors"],
    ["model.safetensors", "pytorch_model.bin"],
    ["model.safetensors", "x.npz"],
    ["model.safetensors", "a.safetensors", "b.safetensors"],
    ["model.safetensors", "a.h5", "b.keras", "c.gguf", "d.msgpack", "e.params", "f.ckpt.index", "g.pth", "h.hdf5"],
    ["adapter.safetensors", "x.pt", "y.pt"],
    ["model.safetensors", "weights"],
    ["a.npz", "b.pt"],
    ["weights", "a.pt"],
]


@pytest.mark.parametrize("names", MIXES, ids=" ".join)
@pytest.mark.parametrize("spelled", ["d", "d/", "./d", "d/../d"])
def test_what_is_not_checked_is_named(capsys, names, spelled):
    write(*names)
    first, *others = names
    expected = WHOLE.format(first) + not_checked(*sorted(others))
    assert run(capsys, "check", spelled) == (0, expected, "")


def test_of_the_current_folder_too(capsys, folder, monkeypatch):
    write("model.safetensors", "x.pt")
    monkeypatch.chdir(folder)
    assert run(capsys, "check", ".")[1] == WHOLE.format("model.safetensors") + not_checked("x.pt")
    assert run(capsys, "check", "model.safetensors")[1] == WHOLE.format("model.safetensors")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x.pt", WHOLE), ("pytorch_model.bin", WHOLE), ("x.npz", WHOLE), ("weights", WHOLE), ("x.ckpt.index", WHOLE),
        ("x.h5", READABLE), ("x.gguf", READABLE), ("x.msgpack", READABLE), ("x.params", READABLE),
    ],
)  # fmt: skip
def test_the_only_file_of_a_folder_is_checked(capsys, folder, name, said):
    write(name)
    (folder / "config.json").write_text("{}")
    (folder / "vocab.txt").write_text("a")
    (folder / "sub").mkdir()
    assert run(capsys, "check", "d") == (0, said.format(name), "")
    assert run(capsys, "show", "d")[0] == 0


@pytest.mark.parametrize(
    "names",
    [
        ["a.pt", "b.pt"], ["a.h5", "b.h5"], ["a.h5", "b.keras"], ["a.gguf", "b.pt", "c.msgpack"],
        ["a.safetensors", "b.safetensors"], ["a.safetensors", "b.npz"], ["a.npz", "b.npz"], ["a", "b"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "show", "stats"])
def test_of_several_files_one_is_to_be_named(capsys, command, names):
    write(*names)
    said = f"ptree: the folder 'd' holds several files, name one of them: {names}\n"
    assert run(capsys, command, "d") == (2, "", said)
    assert run(capsys, "check", f"d/{names[0]}")[0] == 0


def test_a_folder_without_parameters_says_what_is_in_it(capsys, folder):
    said = (
        "ptree: the folder 'd' holds no parameters that ptree reads: a file of safetensors or of another framework, an index of"
        " shards, step_N of Checkpoints, a checkpoint by Orbax; "
    )
    assert run(capsys, "check", "d") == (2, "", f"{said}it is empty\n")
    (folder / "notes.txt").write_text("{}")
    (folder / "m.onnx").write_bytes(b"\x08\x08")
    assert run(capsys, "check", "d") == (2, "", f"{said}it has ['m.onnx', 'notes.txt']\n")


def test_an_index_and_its_shards_are_one_and_all_else_is_named(capsys, folder):
    write_shards("model.safetensors")
    said = "model.safetensors.index.json: whole, 2 leaves with the right checksum\n"
    assert run(capsys, "check", "d") == (0, said, "")
    write("other.safetensors", "pytorch_model.bin")
    assert run(capsys, "check", "d") == (0, said + not_checked("other.safetensors", "pytorch_model.bin"), "")
    write_shards("ema.safetensors")
    names = ["ema-00001-of-00002.safetensors", "ema-00002-of-00002.safetensors", "ema.safetensors.index.json"]
    assert run(capsys, "check", "d")[1] == said + not_checked(*names, "other.safetensors", "pytorch_model.bin")


def test_a_file_beside_shards_of_its_name_is_checked_and_they_are_not(capsys, folder):
    write_shards("model.safetensors")
    save_file({"layer.kernel": KERNEL}, "d/model.safetensors")
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    assert run(capsys, "check", "d")[1] == READABLE.format("model.safetensors") + not_checked(*shards)


def test_a_shard_that_is_damaged_is_not_called_unchecked(capsys, folder):
    write_shards("model.safetensors")
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:5])
    code, out, _ = run(capsys, "check", "d")
    assert code == 1
    assert "model.safetensors.index.json: damaged or unreadable, 1 of 2 leaves" in out
    assert "not checked" not in out


def test_an_index_of_shards_of_pytorch_says_what_to_do_and_does_not_hide_safetensors(capsys, folder):
    (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
    write("pytorch_model-1.bin")
    code, out, err = run(capsys, "check", "d")
    assert (code, out) == (2, "")
    assert "an index of shards in PyTorch's own format, which are read one by one" in err
    write("adapter.safetensors")
    others = not_checked("pytorch_model-1.bin", "pytorch_model.bin.index.json")
    assert run(capsys, "check", "d") == (0, WHOLE.format("adapter.safetensors") + others, "")


def test_the_latest_step_is_checked_and_the_others_are_named(capsys, folder):
    with pt.Checkpoints("d", keep=None) as checkpoints:
        for step in (1, 2, 10):
            checkpoints.save(step, {"layer": {"kernel": KERNEL}})
    write("best.safetensors")
    others = not_checked("best.safetensors", "step_1.safetensors", "step_2.safetensors")
    assert run(capsys, "check", "d") == (0, WHOLE.format("d/step_10.safetensors") + others, "")


def test_steps_by_orbax_are_named_too(capsys):
    pytest.importorskip("orbax.checkpoint")
    with pt.Checkpoints("d", backend="orbax", keep=None) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"kernel": jnp.ones(3)})
    assert run(capsys, "check", "d")[1] == WHOLE.format("d/step_2") + not_checked("step_1")


def test_a_damaged_file_names_the_others_too(capsys, folder):
    write("model.safetensors", "x.pt")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    code, out, _ = run(capsys, "check", "d")
    said = "'layer/kernel' is damaged: its bytes are not what its checksum says\n"
    assert (code, out) == (1, f"{said}model.safetensors: damaged or unreadable, 1 of 1 leaf\n{not_checked('x.pt')}")


def test_a_link_to_the_file_that_is_read_is_no_other_file(capsys, folder):
    write("blob.safetensors")
    os.rename("d/blob.safetensors", "blob")
    os.symlink(os.path.abspath("blob"), folder / "model.safetensors")
    os.symlink("model.safetensors", folder / "again.safetensors")
    os.symlink("gone", folder / "gone.safetensors")
    assert run(capsys, "check", "d")[1] == WHOLE.format("model.safetensors")


def test_many_files_are_counted_and_names_cannot_write_to_the_terminal(capsys, folder):
    write("model.safetensors", *(f"{at:02}.npz" for at in range(13)))
    os.rename("d/12.npz", "d/\x1b[31m.npz")
    out = run(capsys, "check", "d")[1]
    assert "d: not checked, 13 other files: [" in out
    assert out.endswith(", and 3 more]\n")
    assert "\x1b" not in out
