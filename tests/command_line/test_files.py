"""Commands of one file: get, check, rename, tie; their messages and exit codes. Right values are those of NumPy."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from commands import ended
from safetensors.numpy import save_file

import ptree as pt
from ptree._command_line.file_arguments import index_of

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(50, 8)).astype("float32")
LAYERS = [RNG.normal(size=(8, 4)).astype("float32") for _ in range(3)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    layers = {str(at): {"w": layer, "b": np.zeros(4, "float32")} for at, layer in enumerate(LAYERS)}
    tree = pt.Tree({"wte": TABLE, "h": layers, "head": TABLE.T})
    tied = pt.tie(tree, {"head": pt.transposed("wte")})
    pt.save(tmp_path / "m.safetensors", tied, metadata={"step": "7"})
    pt.save(tmp_path / "stacked.safetensors", pt.stacks.stack(tied, "h"))
    save_file({"a.w": TABLE, "b.w": TABLE, "ids": np.arange(5)}, tmp_path / "foreign.safetensors")
    np.savez(tmp_path / "m.npz", w=TABLE, f=np.asfortranarray(TABLE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, *arguments):
    code, out, err = ended(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("ptree: ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("file", "path", "index", "value"),
    [
        ("m.safetensors", "wte", [], TABLE),
        ("m.safetensors", "head", ["1, :3"], TABLE.T[1, :3]),
        ("m.safetensors", "h/2/w", ["...,-1"], LAYERS[2][..., -1]),
        ("stacked.safetensors", "h/2/w", ["0"], LAYERS[2][0]),
        ("stacked.safetensors", "h/:/w", [":,0"], np.stack(LAYERS)[:, 0]),
        ("stacked.safetensors", "head", [], TABLE.T),
        ("foreign.safetensors", "ids", ["1:4:2"], np.arange(5)[1:4:2]),
        ("m.npz", "f", ["7"], TABLE[7]),
        (".", "wte", ["-1"], TABLE[-1]),
    ],
)  # fmt: skip
def test_get_reads_a_leaf_an_alias_a_layer_or_a_part(folder, capsys, file, path, index, value):
    if file == ".":
        shutil.copy("m.safetensors", "model.safetensors")
    assert ended(capsys, "get", file, path, *index, "--out", "part.npy") == (0, "", "")
    np.testing.assert_array_equal(np.load("part.npy"), value)
    code, out, _ = ended(capsys, "get", file, path, *index)
    assert code == 0
    assert out.startswith("[")


def test_get_says_what_is_wrong(folder, capsys):
    assert "no leaf 'h/0/v' in m.safetensors. Did you mean 'h/0/w'?" in refused(capsys, "get", "m.safetensors", "h/0/v")
    assert "'wte' has the shape (50, 8): index 99 is out of bounds" in refused(
        capsys, "get", "m.safetensors", "wte", "99"
    )
    assert "no leaf 'h/1/w'" not in refused(capsys, "get", "stacked.safetensors", "h/9/w")
    for index in ("x", "1e3", "0:1:2:3", "__import__('os')"):
        assert "is no part of an index" in refused(capsys, "get", "m.safetensors", "wte", index)


def test_an_index_is_numpys():
    assert index_of("3, 0:10:2, ..., :") == (3, slice(0, 10, 2), ..., slice(None, None))
    assert index_of("[-1]") == (-1,)


def test_check_compares_each_leaf_with_its_checksum(folder, capsys):
    assert ended(capsys, "check", "m.safetensors")[:2] == (
        0,
        "m.safetensors: whole, 7 leaves with the right checksum\n",
    )
    data = bytearray((folder / "m.safetensors").read_bytes())
    for path in ("h/1/w", "wte"):
        data[pt.open("m.safetensors").leaves[path].start] ^= 1
    (folder / "m.safetensors").write_bytes(data)
    code, out, err = ended(capsys, "check", "m.safetensors")
    assert (code, err) == (1, "")
    assert "'h/1/w' is damaged" in out
    assert "'wte' is damaged" in out
    assert "damaged or unreadable, 2 of 7 leaves" in out


def test_check_says_which_files_have_no_checksums(folder, capsys):
    code, out, _ = ended(capsys, "check", "foreign.safetensors")
    assert code == 0
    assert "readable, 3 leaves without a checksum, so that changed numbers would not show" in out


def test_check_of_a_damaged_header_or_archive_is_1(folder, capsys):
    (folder / "junk.safetensors").write_bytes(b"hello world and more")
    data = bytearray((folder / "m.npz").read_bytes())
    data[200] ^= 1
    (folder / "broken.npz").write_bytes(data)
    for name in ("junk.safetensors", "broken.npz"):
        code, out, err = ended(capsys, "check", name)
        assert code == 1
        assert name in out + err
        assert "Traceback" not in err


def test_rename_writes_other_names_and_keeps_the_metadata(folder, capsys):
    assert ended(capsys, "rename", "m.safetensors", "h/*/**", "blocks/*/**", "-o", "new.safetensors") == (
        0,
        "new.safetensors\n",
        "",
    )
    with pt.open("new.safetensors") as file:
        assert file.metadata == {"step": "7"}
        assert [*file] == ["wte", *(f"blocks/{at}/{name}" for at in range(3) for name in ("w", "b")), "head"]
    back = pt.load("new.safetensors")
    assert pt.ties(back) == {"head": "transposed(wte)"} or "head" in pt.ties(back)
    np.testing.assert_array_equal(back["blocks/1/w"], LAYERS[1])
    assert "matches nothing in 7 leaves" in refused(
        capsys, "rename", "m.safetensors", "g/*", "x/*", "-o", "other.safetensors"
    )
    assert not (folder / "other.safetensors").exists()


def test_tie_makes_one_leaf_of_equal_ones_of_any_dtype(folder, capsys):
    assert ended(capsys, "tie", "foreign.safetensors", "b.w=a.w", "--in-place")[0] == 0
    assert pt.open("foreign.safetensors")["ids"][...].dtype == np.int64
    assert (folder / "foreign.safetensors").stat().st_size < 1.7 * TABLE.nbytes
    save_file({"w": TABLE, "t": TABLE.T.copy(), "u": TABLE + 1}, "other.safetensors")
    assert ended(capsys, "tie", "other.safetensors", "t=transposed(w)", "-o", "tied.safetensors")[0] == 0
    assert ended(capsys, "get", "tied.safetensors", "t", "-o", "t.npy")[0] == 0
    np.testing.assert_array_equal(np.load("t.npy"), TABLE.T)
    for wrong, why in (("u=w", "not equal"), ("t=nothing", "there is no 'nothing'"), ("t", "expected ALIAS=SOURCE")):
        assert why in refused(capsys, "tie", "other.safetensors", wrong, "-o", "no.safetensors")
    assert not (folder / "no.safetensors").exists()


def test_what_is_there_is_not_written_over(folder, capsys):
    before = (folder / "foreign.safetensors").read_bytes()
    assert "there is 'foreign.safetensors' already" in refused(
        capsys, "rename", "m.safetensors", "h", "g", "-o", "foreign.safetensors"
    )
    assert (folder / "foreign.safetensors").read_bytes() == before


@pytest.mark.parametrize("command", ["show", "stats", "check"])
def test_what_cannot_be_read_is_named_with_the_nearest_file(folder, capsys, command):
    assert refused(capsys, command, "m.safetensor") == "ptree: no file 'm.safetensor'. Did you mean 'm.safetensors'?\n"


def test_wrong_uses_say_the_right_one(capsys):
    assert "there is no 'shw'. Did you mean 'show'?" in refused(capsys, "shw", "x")
    assert "the following arguments are required: FILE" in refused(capsys, "show")
    assert "20 on" in refused(capsys, "show", "x", "--width", "7")
    assert ended(capsys, "--version") == (0, f"ptree {pt.__version__}\n", "")


def test_a_name_cannot_write_to_the_terminal(folder, capsys):
    save_file({"a\x1b[31mb\nc\u202e": TABLE}, "odd.safetensors")
    for arguments in (["show"], ["stats"], ["check"], ["diff", "m.safetensors"]):
        _, out, err = ended(capsys, arguments[0], "odd.safetensors", *arguments[1:])
        assert "\x1b" not in out + err
        assert "\u202e" not in out + err
        assert "\\x1b[31mb" in out or arguments == ["check"]
    assert "\x1b" not in refused(capsys, "get", "odd.safetensors", "a\x1b[31mbc")


def test_files_are_looked_at_without_jax(folder):
    code = (
        "import sys\n"
        "from ptree._command_line import main\n"
        "for command in (['show'], ['stats'], ['check'], ['diff', 'stacked.safetensors'], ['get', 'wte']):\n"
        "    main([command[0], 'm.safetensors', *command[1:]])\n"
        "assert not {'jax', 'matplotlib', 'optax'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_a_pipe_that_closes_early_is_no_error(folder):
    save_file({f"leaf_{at}": TABLE[:1] for at in range(20_000)}, "many.safetensors")
    command = f"{sys.executable} -m ptree show many.safetensors --no-fold | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 141
    assert done.stderr == ""


def test_an_encoding_without_bars_has_others_and_names_letters(folder):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path)}
    save_file({f"β.{at}.w": TABLE * (at + 1) for at in range(3)}, "greek.safetensors")
    for command, expected in (("show", "#####"), ("stats", "_=#")):
        arguments = [sys.executable, "-m", "ptree", command, "greek.safetensors", "--width", "120"]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        assert "\\u03b2" in done.stdout
        assert "?" not in done.stdout


@pytest.mark.parametrize(
    ("shell", "checks"), [("bash", ["bash", "-n"]), ("zsh", ["zsh", "-n"]), ("fish", ["fish", "-n"])]
)
def test_completion_is_a_script_with_all_commands(tmp_path, capsys, shell, checks):
    code, script, _ = ended(capsys, "completion", shell)
    assert code == 0
    for word in ("show", "diff", "relative-to", "singular-values", "completion"):
        assert word in script
    file = tmp_path / "script"
    file.write_text(script)
    if shutil.which(shell):  # bash is everywhere
        assert subprocess.run([*checks, str(file)], capture_output=True, text=True).stderr == ""


def test_bash_completes_commands_options_and_choices(tmp_path, capsys):
    (tmp_path / "script").write_text(ended(capsys, "completion", "bash")[1])

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        code = f"source {tmp_path / 'script'}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _ptree; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert completed("ptree", "s") == ["show", "stats"]
    assert "--relative-to" in completed("ptree", "stats", "f", "--")
    assert completed("ptree", "plot", "f", "--kind", "k") == ["kernels"]
    assert completed("ptree", "completion", "") == ["-h", "--help", "bash", "zsh", "fish"]


def test_json_is_json(folder, capsys):
    for command in (
        ["show", "m.safetensors"],
        ["stats", "m.safetensors"],
        ["diff", "m.safetensors", "stacked.safetensors"],
    ):
        _, out, _ = ended(capsys, *command, "--json")
        assert isinstance(json.loads(out), dict)
