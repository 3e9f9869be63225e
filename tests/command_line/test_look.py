"""Commands that look: show, stats, diff, report and plot; their widths, forms, colours and exit codes."""

import csv
import io
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import ptree as pt
from ptree._command_line import main

RNG = np.random.default_rng(0)


def gpt(blocks=12, width=32):
    """Names as those of PyTorch's modules."""
    leaves = {"wte.weight": RNG.normal(size=(500, width)), "lm_head.bias": np.zeros(500)}
    for at in range(blocks):
        leaves |= {
            f"h.{at}.{name}.weight": RNG.normal(size=(width, width)) for name in ("attn.query", "attn.key", "mlp.c_fc")
        }
        leaves |= {f"h.{at}.{name}.bias": np.zeros(width) for name in ("attn.query", "attn.key", "mlp.c_fc")}
    return {name: leaf.astype("float32") for name, leaf in leaves.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    before = gpt()
    save_file(before, tmp_path / "before.safetensors", {"format": "pt"})
    after = {name.replace("h.", "blocks.", 1): leaf + 0.1 * ("c_fc.weight" in name) for name, leaf in before.items()}
    save_file(after, tmp_path / "after.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = main(arguments)
    out, err = capsys.readouterr()
    assert err == ""
    return code, out


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("command", [["show", "before.safetensors"], ["stats", "before.safetensors"], ["diff", "before.safetensors", "after.safetensors"]], ids=lambda c: c[0])  # fmt: skip
def test_a_table_fits_the_width_and_names_every_block(folder, capsys, command, width):
    _, out = run(capsys, *command, "--width", str(width))
    assert max(map(len, out.splitlines())) <= width
    assert "{0..11}" in out
    assert len(out.splitlines()) < 40


def test_show_folds_blocks_and_siblings_and_counts_all(folder, capsys):
    code, out = run(capsys, "show", "before.safetensors", "--width", "100")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("before.safetensors: safetensors, ")
    assert any(line.startswith("h/{0..11}/ x12") for line in lines)
    assert any("{query,key}/ x2" in line or "{key,query}/ x2" in line for line in lines)
    count = sum(leaf.size for leaf in gpt().values())
    assert f"{count:,} parameters" in lines[-1]
    _, unfolded = run(capsys, "show", "before.safetensors", "--no-fold", "--width", "120")
    assert len(unfolded.splitlines()) >= 74
    _, chosen = run(capsys, "show", "before.safetensors", "h/3/**", "!**/bias")
    assert f"{3 * 32 * 32:,} parameters" in chosen


def test_diff_has_the_exit_codes_of_diff(folder, capsys):
    assert run(capsys, "diff", "before.safetensors", "before.safetensors")[0] == 0
    code, out = run(capsys, "diff", "before.safetensors", "after.safetensors")
    assert code == 1
    assert "h/** -> blocks/**" in out
    assert "blocks/{0..11}/mlp/c_fc/weight" in out
    assert main(["diff", "before.safetensors", "nothing.safetensors"]) == 2
    assert "no file 'nothing.safetensors'" in capsys.readouterr().err


def test_stats_are_those_of_numpy(folder, capsys):
    _, out = run(capsys, "stats", "before.safetensors", "wte/weight", "--csv")
    (row,) = csv.DictReader(io.StringIO(out))
    leaf = np.asarray(pt.open("before.safetensors")["wte.weight"], np.float64)
    assert row["path"] == "wte/weight"
    np.testing.assert_allclose([float(row["mean"]), float(row["std"])], [leaf.mean(), leaf.std()], rtol=1e-5, atol=1e-8)
    _, out = run(capsys, "stats", "after.safetensors", "**/c_fc/weight", "--relative-to", "after.safetensors", "--json")
    assert all(row["relative"] == 0 for row in json.loads(out)["rows"])


def test_colours_are_for_terminals_alone(folder, capsys, monkeypatch):
    arguments = ("show", "before.safetensors")
    assert "\x1b" not in run(capsys, *arguments)[1]
    assert "\x1b[" in run(capsys, *arguments, "--color", "always")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run(capsys, *arguments)[1]


def test_report_and_plot_write_files(folder, capsys):
    assert run(capsys, "report", "before.safetensors", "after.safetensors", "-o", "page.html") == (0, "page.html\n")
    assert "<!doctype html>" in (folder / "page.html").read_text().lower()
    assert run(capsys, "plot", "before.safetensors", "**/c_fc/weight", "-o", "plot.png") == (0, "plot.png\n")
    assert (folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plot", "before.safetensors", "--kind", "kernels"]) == 2
    assert "of one leaf" in capsys.readouterr().err


def test_shards_folders_and_steps_are_files_too(folder, capsys):
    tree = pt.Tree({"w": np.arange(4000.0), "v": np.arange(4000.0)})
    pt.save(folder / "sharded.safetensors", tree, max_shard_size=20_000)
    with pt.Checkpoints(folder / "run") as checkpoints:
        for step in (5, 9):
            checkpoints.save(step, tree)
    for place, said in (("sharded.safetensors", "2 shards"), ("run", "the latest of 2 steps, 5 to 9")):
        _, out = run(capsys, "show", place)
        assert "8,000 parameters" in out
        assert said in out
    assert run(capsys, "diff", "sharded.safetensors", "run")[0] == 0
