"""The command plan: where the parameters of a file live on a mesh, by rules of a file or proposed; widths, forms, errors."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ended, succeeded
from safetensors.numpy import save_file

import ptree as pt

MESH = ("--mesh", "data=8,model=4")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small Llama under its published names."""
    width, wide, keys = 64, 256, 32
    shapes = {"model.embed_tokens.weight": (320, width), "model.norm.weight": (width,)}
    for at in range(12):
        layer = f"model.layers.{at}"
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": (keys, width) for name in "kv"}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": (wide, width) for name in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (width, wide)}
        shapes |= {f"{layer}.input_layernorm.weight": (width,)}
    save_file({name: np.zeros(shape, "float16") for name, shape in shapes.items()}, tmp_path / "llama.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rules_file(folder, rules):
    (folder / "rules.json").write_text(rules if isinstance(rules, str) else json.dumps(rules))
    return "rules.json"


RULES = {
    "**/{q,k,v,gate,up}_proj/weight": ["model", "data"],
    "**/{o,down}_proj/weight": ["data", "model"],
    "model/embed_tokens": [["data", "model"]],
    "**": [],
}


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_fits_and_says_what_each_device_holds(folder, capsys, width):
    rules = rules_file(folder, RULES)
    out = succeeded(capsys, "plan", "llama.safetensors", *MESH, "--rules", rules, "--width", str(width))
    assert max(map(len, out.splitlines())) <= width
    assert len(out.splitlines()) < 40
    assert "32 devices: data=8, model=4" in out
    for heading in ("biggest", "on every device"):
        assert any(line.startswith(heading) for line in out.splitlines())


def test_long_reasons_leave_the_title_and_the_paths_readable(tmp_path, capsys):
    path = "model.language_model.decoder.layers.0.attention.query_layernorm_projection.weight"
    save_file({path: np.zeros((1000003, 1), "int8")}, tmp_path / "m.safetensors")
    rules = tmp_path / "rules.json"
    rules.write_text('{"**": ["data"]}')
    command = ("plan", str(tmp_path / "m.safetensors"), "--mesh", "data=4096", "--rules", str(rules), "--replicate")
    *_, title, row = succeeded(capsys, *command, "--width", "80").splitlines()
    assert title.split("  ")[0] == "on every device"
    assert row.startswith("model/lang")
    assert "can" in row
    assert len(row) <= 80


def test_json_has_every_leaf_and_the_sums_of_hand(folder, capsys):
    rules = rules_file(folder, RULES)
    found = json.loads(succeeded(capsys, "plan", "llama.safetensors", *MESH, "--rules", rules, "--json"))
    replicated = 13 * 64 * 2
    divided = (320 * 64 + 12 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 256 * 64)) * 2
    assert (found["devices"], found["mesh"]) == (32, {"data": 8, "model": 4})
    assert (found["bytes"], found["replicated_bytes"]) == (replicated + divided, replicated)
    assert found["bytes_per_device"] == replicated + divided // 32
    assert found["rules"] == RULES
    table = next(leaf for leaf in found["leaves"] if leaf["path"] == "model/embed_tokens/weight")
    assert table == {
        "path": "model/embed_tokens/weight", "shape": [320, 64], "dtype": "f16", "loaded_as": "f16", "spec": [["data", "model"]],
        "bytes": 40960, "bytes_per_device": 1280, "rule": "model/embed_tokens", "undivided": [],
    }  # fmt: skip


def test_csv_has_a_line_for_each_leaf(folder, capsys):
    rules = rules_file(folder, {"**": None})
    out = succeeded(capsys, "plan", "llama.safetensors", *MESH, "--rules", rules, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 98
    assert rows[0]["shape"] == "320x64"
    assert rows[0]["spec"] == "[]"
    assert {row["bytes"] == row["bytes_per_device"] for row in rows} == {True}


def test_proposed_rules_are_written_and_give_the_same_plan(folder, capsys):
    auto = ("plan", "llama.safetensors", *MESH, "--auto", "--min-size", "1000")
    proposed = succeeded(capsys, *auto, "-o", "rules.json", "--json")
    assert json.loads((folder / "rules.json").read_text()) == json.loads(proposed)["rules"]
    again = succeeded(capsys, "plan", "llama.safetensors", *MESH, "--rules", "rules.json", "--json")
    assert again == proposed
    assert json.loads(proposed)["rules"]["**/{down_proj,o_proj}/weight"] == ["data", "model"]
    code, out, err = ended(capsys, *auto, "-o", "rules.json")
    assert (code, out) == (2, "")
    assert "there is 'rules.json' already" in err


def test_roles_of_axes_and_of_kernels_are_said(folder, capsys):
    command = ("plan", "llama.safetensors", "--mesh", "x=8,y=4", "--auto", "--min-size", "1000", "--json")
    code, _, err = ended(capsys, *command)
    assert code == 2
    assert "no axis of the mesh (x=8, y=4) has a name that says what it is for" in err
    found = json.loads(succeeded(capsys, *command, "--axes", "fsdp=x,tensor=y"))
    assert found["rules"]["**/{down_proj,o_proj}/weight"] == ["x", "y"]
    found = json.loads(succeeded(capsys, *command, "--axes", "fsdp=x+y"))
    assert [["x", "y"]] in found["rules"].values()
    found = json.loads(succeeded(capsys, *command, "--axes", "tensor=y", "--kernels", "in_out"))
    assert next(entries for selector, entries in found["rules"].items() if "o_proj" in selector) == ["y"]


def test_what_cannot_be_divided_is_an_error_or_replicated(folder, capsys):
    rules = rules_file(folder, {"**/embed_tokens/weight": ["model"], "**": []})
    command = ("plan", "llama.safetensors", "--mesh", "model=3", "--rules", rules)
    code, out, err = ended(capsys, *command)
    assert (code, out) == (2, "")
    assert "'model/embed_tokens/weight'" in err
    assert "320" in err
    assert "318 and 321 can" in err
    assert "*" in succeeded(capsys, *command, "--replicate")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mesh", "data"], "'data' is no mesh: write it as data=8,model=4"),
        (["--mesh", "data=0"], "the axis 'data' of a mesh has a size from 1 on, not '0'"),
        (["--mesh", "data=2,data=4"], "'data=2,data=4' has 'data' twice"),
        (["--mesh", "data=99999999999", "--auto"],
         "the mesh data=99999999999 has 99,999,999,999 devices, and JAX has shardings over 2,147,483,647 at most"),
        (["--mesh", "data=65536,model=65536", "--rules", "rules.json"], "has 4,294,967,296 devices"),
        (["--auto"], "the following arguments are required: --mesh"),
        ([*MESH], "one of the arguments --rules --auto is required"),
        ([*MESH, "--auto", "--rules", "rules.json"], "not allowed with argument"),
        ([*MESH, "--auto", "--min-size", "many"], "'many' is no count"),
        ([*MESH, "--rules", "rules.json", "--min-size", "1"], "--min-size: only with --auto"),
        ([*MESH, "--auto", "--axes", "fdsp=data"], "--axes: there is no role 'fdsp'"),
        (["--mesh", "ab=2", "--auto"], "Say it: --axes fsdp=ab"),
        ([*MESH, "--rules", "none.json"], "no such file or directory 'none.json'"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_exit_code_2(folder, capsys, arguments, words):
    rules_file(folder, {"**": []})
    code, out, err = ended(capsys, "plan", "llama.safetensors", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("ptree: ")
    assert words in err


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("{", "'rules.json' is no JSON"),
        ("[]", "'rules.json': rules are an object"),
        ('{"**": "data"}', "'**' has \"data\"; expected a list"),
        ('{"**": [1]}', "'**' has [1]; expected a list"),
        ('{"**": {"data": 0}}', "'**' has"),
        ('{"**": [], "**": ["data"]}', "the selector '**' is there twice"),
        ('{"**/q_prj": ["data"], "**": []}', "Did you mean"),
        ('{"**": ["tensor"]}', "the mesh has no axis 'tensor'"),
        ('{"**/norm": []}', "add a rule for '**'"),
    ],
)
def test_rules_that_are_wrong_are_refused(folder, capsys, rules, words):
    code, out, err = ended(capsys, "plan", "llama.safetensors", *MESH, "--rules", rules_file(folder, rules))
    assert (code, out) == (2, "")
    assert words in err
    assert "should not happen" not in err


def test_ties_stacks_and_unusual_dtypes_are_planned(tmp_path, capsys):
    tree = pt.Tree({
        "embed": jnp.zeros((32, 8), jnp.bfloat16),
        "head": jnp.zeros((8, 32), jnp.bfloat16),
        "blocks": {":": {"up": jnp.zeros((3, 8, 16)), "down": jnp.zeros((3, 16, 8))}},
        "key": jax.random.key(0),
        "keys": jax.random.split(jax.random.key(0, impl="rbg"), 3),
        "small": jnp.zeros((8, 2), jnp.int4),
        "step": 3,
    })  # fmt: skip
    pt.save(tmp_path / "m.safetensors", pt.tie(tree, {"head": pt.transposed("embed")}))
    found = json.loads(
        succeeded(capsys, "plan", str(tmp_path / "m.safetensors"), "--mesh", "data=2,model=2", "--auto", "--json")
    )
    leaves = {leaf["path"]: leaf for leaf in found["leaves"]}
    keys = [[leaves[path][name] for name in ("shape", "dtype", "loaded_as", "bytes")] for path in ("key", "keys")]
    assert keys == [[[], "key<fry>", "key<fry>", 8], [[3], "key<rbg>", "key<rbg>", 48]]
    spec = {path: leaf["spec"] for path, leaf in leaves.items()}
    assert spec["embed"] == ["model"]
    assert "head" not in spec
    assert spec["blocks/:/up"] == [None, None, "model"]
    assert spec["blocks/:/down"] == [None, "model"]
    assert spec["key"] == spec["small"] == []


def test_a_damaged_file_is_planned_as_far_as_it_is_readable(folder, capsys):
    whole = (folder / "llama.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-1000])
    code, out, err = ended(capsys, "plan", "cut.safetensors", *MESH, "--auto")
    assert code == 1
    assert "32 devices" in out
    assert "Traceback" not in err


def test_no_array_is_read_and_no_device_is_started(folder):
    code = (
        "import sys; from ptree._command_line import main\n"
        "import ptree._stored.stored as stored\n"
        "def refuse(*_, **__): raise AssertionError('numbers were read')\n"
        "for name in ('chunks', 'array', 'run', 'block'):\n"
        "    for found in vars(stored).values():\n"
        "        if isinstance(found, type) and name in vars(found): setattr(found, name, refuse)\n"
        "assert main(['plan', 'llama.safetensors', '--mesh', 'data=1024,model=4', '--auto']) == 0\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends, xla_bridge._backends\n"
    )
    here = os.environ | {"PYTHONPATH": str(Path(pt.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=here)
    assert done.returncode == 0, done.stderr
    assert "4,096 devices" in done.stdout


def test_sizes_of_64_bits_say_that_jax_loads_32(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({"w": np.zeros((4, 4))}, "wide.safetensors")
    rules_file(tmp_path, {"**": []})
    out = succeeded(capsys, "plan", "wide.safetensors", "--mesh", "data=2", "--rules", "rules.json")
    assert "f64[4,4]" in out
    assert "sizes of f64 are of 32 bits, as JAX loads it: JAX_ENABLE_X64=1" in out
    [leaf] = json.loads(
        succeeded(capsys, "plan", "wide.safetensors", "--mesh", "data=2", "--rules", "rules.json", "--json")
    )["leaves"]
    assert (leaf["dtype"], leaf["loaded_as"], leaf["bytes"]) == ("f64", "f32", 64)
    with jax.enable_x64(True):
        wide = succeeded(capsys, "plan", "wide.safetensors", "--mesh", "data=2", "--rules", "rules.json")
    assert "128 B" in wide
    assert "32 bits" not in wide
