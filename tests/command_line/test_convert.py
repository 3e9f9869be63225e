"""The command convert: plans, tables, formats by name or option, and what it refuses."""

import json
import os

import numpy as np
import pytest
from commands import ended
from commands import succeeded as run

import ptree as pt
from ptree import convert as c

STATE = {
    "layers.0.weight": np.arange(12, dtype="float32").reshape(4, 3),
    "layers.0.bias": np.ones(4, "float32"),
    "layers.1.weight": np.arange(8, dtype="float32").reshape(2, 4),
    "layers.1.bias": np.zeros(2, "float32"),
    "pooler.weight": np.ones((2, 2), "float32"),
}
TABLE = c.Table({
    "layers.*.weight": ("blocks/*/kernel", c.linear), "layers.*.bias": "blocks/*/bias", "pooler.**": c.carry,
})  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c.write("model.pt", STATE)
    TABLE.save("table.json")
    return tmp_path


def same(one, other):
    assert sorted(one) == sorted(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_a_plan_is_printed_and_nothing_is_written(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    before = sorted(os.listdir(folder))
    assert run(capsys, "convert", "model.pt", "--plan", "--table", "table.json").splitlines() == [
        "layers.0.weight  f32[4,3]  ->  blocks/0/kernel  f32[3,4]  linear",
        "layers.0.bias    f32[4]    ->  blocks/0/bias    f32[4]",
        "layers.1.weight  f32[2,4]  ->  blocks/1/kernel  f32[4,2]  linear",
        "layers.1.bias    f32[2]    ->  blocks/1/bias    f32[2]",
        "pooler.weight    f32[2,2]  ->                             carry",
        "kept to be written back, 1: ['pooler.weight']",
    ]
    assert sorted(os.listdir(folder)) == before


def test_a_table_is_carried_out_and_back(capsys):
    assert run(capsys, "convert", "model.pt", "model.safetensors", "--table", "table.json") == (
        "model.safetensors: 4 arrays, 104 B\n"
        "not in it, as the table keeps them, 1: ['pooler.weight']\n"
        "the way back takes them from there: --inverse --carried model.pt\n"
    )
    tree = pt.load("model.safetensors")
    np.testing.assert_array_equal(tree["blocks/1/kernel"], STATE["layers.1.weight"].T)
    back = ("convert", "model.safetensors", "back.pt", "--table", "table.json", "--inverse", "--carried", "model.pt")
    run(capsys, *back)
    same(c.read("back.pt"), STATE)


def test_the_way_back_says_that_kept_arrays_are_missing(folder, capsys):
    run(capsys, "convert", "model.pt", "model.safetensors", "--table", "table.json")
    back = ("convert", "model.safetensors", "back.pt", "--table", "table.json", "--inverse")
    for more in ((), ("--plan",)):
        code, _, err = ended(capsys, *back, *more)
        assert code == 2
        assert "--carried FILE is missing: the file that has what the table carries, ['pooler.**']" in err
    c.write("other.pt", {name: array for name, array in STATE.items() if "pooler" not in name})
    code, _, err = ended(capsys, *back, "--carried", "other.pt")
    assert code == 2
    assert "'other.pt' has nothing of what the table carries, ['pooler.**']" in err
    assert not (folder / "back.pt").exists()
    assert "write_back" in run(capsys, *back[:2], "--plan", *back[3:], "--carried", "model.pt")


@pytest.mark.parametrize(
    "arguments",
    [
        ("model.pt", "--to", "npz", "m.npz"),
        ("--to", "npz", "model.pt", "m.npz"),
        ("model.pt", "m.npz", "--to=npz"),
    ],
)
def test_options_may_stand_anywhere(capsys, arguments):
    run(capsys, "convert", *arguments)
    assert len(c.read("m.npz")) == len(STATE)
    run(capsys, "get", "--out", "a.npy", "m.npz", "layers/0/bias", "0")
    assert run(capsys, "get", "m.npz", "layers/0/bias", "-1") == "1.\n"
    code, _, err = ended(capsys, "convert", "model.pt", "m.npz", "more.npz")
    assert code == 2
    assert "unrecognized arguments: more.npz" in err


@pytest.mark.parametrize("out", ["m.npz", "m.safetensors", "m.msgpack", "m.params", "m.gguf", "m.bin"])
def test_another_format_keeps_names_and_numbers(capsys, out):
    run(capsys, "convert", "model.pt", out)
    found = {name.replace("/", "."): array for name, array in c.read(out).items()}
    same(found, STATE)


def test_a_format_can_be_said(capsys):
    run(capsys, "convert", "model.pt", "weights", "--to", "torch")
    same(c.read("weights"), STATE)
    run(capsys, "convert", "model.pt", "hf.safetensors", "--to", "hf")
    with pt.open("hf.safetensors") as file:
        assert file.metadata["format"] == "pt"
    assert "no format; give to= (--to), one of" in ended(capsys, "convert", "model.pt", "m.unknown")[2]
    assert (
        "--to: there is no 'tourch'. Did you mean 'torch'?"
        in ended(capsys, "convert", "model.pt", "m.pt", "--to", "tourch")[2]
    )


def test_what_does_not_fit_is_one_report_and_nothing_is_written(folder, capsys):
    c.Table({"layers.*.weight": ("blocks/*/kernel", c.linear)}).save("short.json")
    code, out, err = ended(capsys, "convert", "model.pt", "m.npz", "--table", "short.json")
    assert (code, out) == (2, "")
    assert "no row takes 'layers.0.bias'" in err
    assert "no row takes 'pooler.weight'" in err
    assert not (folder / "m.npz").exists()
    assert ended(capsys, "convert", "model.pt", "--plan", "--table", "short.json")[0] == 1


def test_files_that_are_there_are_not_replaced(folder, capsys):
    before = (folder / "model.pt").read_bytes()
    for out in ("model.pt", "table.json"):
        code, _, err = ended(capsys, "convert", "model.pt", out, "--to", "npz")
        assert code == 2
        assert out in err
    assert (folder / "model.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.pt",), "the file to write is missing"),
        (("model.pt", "m.npz", "--inverse"), "need --table"),
        (("nothing.pt", "m.npz"), "no file 'nothing.pt'"),
        (("model.pt", "m.npz", "--table", "nothing.json"), "nothing.json"),
        (("model.pt", "m.npz", "--table", "model.pt"), "cannot read the table 'model.pt'"),
        (("model.pt", "m.npz", "--table", "bad.json"), "no operation 'linaer'. Did you mean 'linear'?"),
        (("table.json", "m.npz"), "table.json"),
    ],
)
def test_wrong_use_is_said(capsys, arguments, message):
    with open("bad.json", "w") as file:
        json.dump([{"from": "a", "to": "b", "operation": "linaer"}], file)
    code, out, err = ended(capsys, "convert", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
