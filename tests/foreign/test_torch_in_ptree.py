"""PyTorch's files where a path of a file is given: ptree.open, ptree.load, and the commands that look at files."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree._command_line import main
from ptree.look._sources.selection import selected
from ptree.look._sources.source_of import source_of

torch = pytest.importorskip("torch")


def modules() -> torch.nn.Module:
    embed, head = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False)
    head.weight = embed.weight
    return torch.nn.ModuleDict({"embed": embed, "fc": torch.nn.Sequential(torch.nn.Linear(3, 4)), "head": head})


@pytest.fixture(params=["zip", "legacy"])
def saved(request, tmp_path):
    """The path of a file, and the state_dict in it."""
    state = modules().state_dict()
    path = str(tmp_path / "m.pt")
    torch.save(state, path, _use_new_zipfile_serialization=request.param == "zip")
    return path, state


@pytest.mark.parametrize("mmap", [False, True])
def test_open_is_a_mapping_of_pytorchs_names(saved, mmap):
    path, state = saved
    with pt.open(path, mmap=mmap) as file:
        assert set(file) == set(state)
        assert len(file) == 4
        for name, tensor in state.items():
            leaf = file[name]
            assert (leaf.shape, str(leaf.dtype)) == (tuple(tensor.shape), "float32")
            assert isinstance(leaf[...], jax.Array)
            np.testing.assert_array_equal(leaf[...], tensor.numpy())
            np.testing.assert_array_equal(leaf[1:3], tensor[1:3].numpy())
            np.testing.assert_array_equal(np.asarray(leaf), tensor.numpy())
        assert "'fc.0.bias': f32[4] in" in repr(file["fc.0.bias"])
        with pytest.raises(pt.PathError, match=r"Did you mean 'fc\.0\.bias'"):
            file["fc.0.bais"]
    with pytest.raises(pt.FileError, match="is closed"):
        file["fc.0.bias"][...]


def test_load_gives_a_tree_with_its_ties_and_arrays_of_their_own(saved):
    path, state = saved
    tree = pt.load(path)
    assert set(pt.paths(tree)) == {"embed.weight", "fc.0.weight", "fc.0.bias"}
    assert tree["head.weight"] is tree["embed.weight"]
    np.testing.assert_array_equal(tree["fc.0.weight"], state["fc.0.weight"].numpy())
    with open(path, "r+b") as file:  # a program that writes into the file does not change what was loaded
        file.write(bytes(100))
    np.testing.assert_array_equal(tree["fc.0.bias"], state["fc.0.bias"].numpy())


def test_load_fits_a_template_by_new_names_and_warns_of_kernels(saved):
    path, state = saved
    like = {"table": jnp.zeros((6, 4)), "out": jnp.zeros((6, 4)), "fc": {"weight": np.zeros((4, 3), "float32")}}
    rename = {"embed.weight": "table", "head.weight": "out", "fc.0.weight": "fc/weight"}
    tree, report = pt.load_report(path, like, select=[*rename], rename=rename)
    np.testing.assert_array_equal(tree["out"], state["embed.weight"].numpy())
    assert isinstance(tree["fc"]["weight"], np.ndarray)
    assert report.dropped == ["fc.0.bias"]
    square = {"fc": torch.ones(3, 3)}
    torch.save({"fc.weight": square["fc"]}, path)
    with pytest.warns(UserWarning, match="these kernels may be transposed: 'fc/kernel'"):
        pt.load(path, {"fc": {"kernel": jnp.zeros((3, 3))}}, rename={"fc.weight": "fc/kernel"})


def test_a_leaf_is_read_in_parts_onto_devices(tmp_path):
    path = tmp_path / "m.pt"
    tensor = torch.arange(64.0).reshape(16, 4)
    torch.save({"w": tensor, "t": tensor.T}, path)
    mesh = jax.make_mesh((8,), ("x",))
    tree = pt.load(path, shardings={"w": jax.P("x"), "t": jax.P(None, "x")}, mesh=mesh)
    assert len(tree["w"].addressable_shards) == 8
    np.testing.assert_array_equal(tree["w"], tensor.numpy())
    np.testing.assert_array_equal(tree["t"], tensor.T.numpy())


def test_tensors_that_are_not_read_are_refused_by_name_and_the_others_load(tmp_path):
    path = tmp_path / "m.pt"
    torch.save({"a": torch.ones(2), "s": torch.eye(2).to_sparse(), "long": torch.ones(1).long()}, path)
    with pytest.raises(pt.FileError, match=r"'s' is a sparse tensor .* select= loads the others"):
        pt.load(path)
    with pytest.raises(pt.FileError, match="'long' is i64, and JAX would cut it to 32 bits"):
        pt.load(path, select=["*", "!s"])
    assert pt.paths(pt.load(path, select="a")) == ["a"]
    with pt.open(path) as file:
        assert isinstance(file["long"][...], np.ndarray)
        assert "which is a sparse tensor" in repr(file["s"])
        with pytest.raises(pt.FileError, match="'s' is a sparse tensor"):
            file["s"][...]


def test_code_and_damage_are_refused_where_a_path_is_given(tmp_path):
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    for read in (pt.open, pt.load, source_of):
        with pytest.raises(pt.FileError, match=r"a whole object of the class torch\.nn\.modules\.linear\.Linear"):
            read(path)


def test_all_damaged_leaves_are_named_at_once(tmp_path):
    path = tmp_path / "m.pt"
    arrays = {"fc.weight": np.arange(50, dtype="f4"), "fc.bias": np.arange(20, dtype="f4") + 70, "n": np.ones(3, "f4")}
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    data = bytearray(path.read_bytes())
    for name in ("fc.weight", "fc.bias"):
        data[data.index(arrays[name].tobytes()) + 6] ^= 1
    path.write_bytes(data)
    said = "is damaged: its bytes are not what its checksum says"
    lines = [
        f"cannot read {name!r} in {str(path)!r}: its member 'm/data/{at}' {said}"
        for at, name in enumerate(("fc.weight", "fc.bias"))
    ]
    like = {name: jnp.zeros(array.shape) for name, array in arrays.items()}
    for read in (lambda: pt.load(path), lambda: pt.load(path, like), lambda: pt.convert.read(path)):
        with pytest.raises(pt.FileError) as raised:
            read()
        assert str(raised.value).splitlines() == lines
        assert raised.value.is_damage
        assert raised.value.damaged == ["fc.weight", "fc.bias"]
    assert pt.load(path, select="n")["n"].tolist() == [1, 1, 1]


def meant(error):
    """What the error of a call suggests."""
    return re.search(r"Did you mean '(.*)'\?$", str(error.value)).group(1)


@pytest.mark.parametrize("pattern", ["fc/0/bias", "fc", "fc/0", "fc/**", "**/bias", "fc/0/{weight,bias}", "fc/*/bias"])
def test_a_path_that_the_commands_show_is_answered_with_the_name_to_paste(saved, pattern):
    """In Python names are as in the file, where the commands show their dots as slashes."""
    path, _ = saved
    with source_of(path) as source:
        shown = {source.leaves[leaf].path.replace("/", ".") for leaf in selected(source, pattern)}
    tree = pt.load(path)
    for read in (lambda given: pt.load(path, select=given), lambda given: pt.select(tree, given)):
        with pytest.raises(pt.PatternError, match="the names there have dots in them") as error:
            read(pattern)
        assert set(pt.paths(read(meant(error)))) == shown


def test_a_path_that_the_commands_show_reads_nothing_and_says_which_name_does(saved, tmp_path):
    path, state = saved
    tree = pt.load(path)
    with pt.open(path) as file:
        for read in (tree.__getitem__, lambda given: pt.get(tree, given), lambda given: file[given][...]):
            with pytest.raises(pt.PathError) as error:
                read("fc/0/bias")
            np.testing.assert_array_equal(read(meant(error)), state["fc.0.bias"].numpy())
    with pytest.raises(pt.PatternError) as error:
        pt.load(path, rename={"fc/0/bias": "b"})
    assert pt.load(path, rename={meant(error): "b"})["b"].shape == (4,)
    torch.save({"model": state, "epoch": 3}, tmp_path / "nested.pt")
    tree = pt.load(tmp_path / "nested.pt")
    with pytest.raises(pt.PathError, match=r"the names there have dots in them. Did you mean 'model/fc\.0\.bias'\?"):
        tree["model/fc/0/bias"]
    with pytest.raises(pt.PatternError, match=r"Did you mean 'model/fc\.0\.\*'\?"):
        pt.load(tmp_path / "nested.pt", select="model/fc/0")


@pytest.mark.parametrize(
    "patterns", [["fc.0.bias"], ["fc.0.{weight,bias}"], ["fc.*"], ["**", "!head.weight", "!fc.0.weight"], ["fc"]]
)
def test_the_commands_take_names_as_they_are_in_the_file_and_paths(saved, patterns, capsys):
    path, _ = saved
    assert main(["show", path, *patterns]) == 0
    by_name = capsys.readouterr().out
    assert main(["show", path, *(pattern.replace(".", "/") for pattern in patterns)]) == 0
    assert capsys.readouterr().out == by_name
    assert "bias" in by_name
    assert "embed" not in by_name or "!head.weight" not in patterns


def test_a_misspelt_name_is_answered_with_a_path(saved, capsys):
    path, _ = saved
    for pattern, said in (("fc.0.bais", "'fc/0/bias'"), ("fc.0.{bias,wieght}", "'weight'")):
        assert main(["show", path, pattern]) == 2
        assert f"Did you mean {said}?" in capsys.readouterr().err


def test_the_commands_read_pytorchs_files(saved, tmp_path, capsys):
    path, state = saved
    assert main(["show", path]) == 0
    shown = capsys.readouterr().out
    assert "head/weight   = embed/weight" in shown
    assert shown.startswith("m.pt: PyTorch (")
    assert main(["stats", path]) == 0
    assert "fc/0/bias" in capsys.readouterr().out
    assert main(["get", path, "fc.0.bias"]) == 0
    shown = np.array(capsys.readouterr().out.strip("[]\n").split(","), "float32")
    np.testing.assert_allclose(shown, state["fc.0.bias"].numpy(), rtol=1e-6)
    other = tmp_path / "other.pt"
    torch.save({**state, "fc.0.bias": state["fc.0.bias"] + 1}, other)
    assert main(["diff", path, str(other)]) == 1
    assert "fc/0/bias" in capsys.readouterr().out
    assert main(["report", path, "-o", str(tmp_path / "page.html")]) == 0
    assert "fc/0/bias" in (tmp_path / "page.html").read_text()
    assert main(["report", path, "-o", path]) != 0  # it does not replace the parameters


def test_dicts_and_dots_are_both_nodes_and_what_is_no_path_stays(tmp_path):
    path = tmp_path / "m.ckpt"
    torch.save({"state_dict": modules().state_dict(), "epoch": 4}, path)
    with source_of(path) as source:
        assert "state_dict/fc/0/bias" in source.leaves
        assert "epoch=4" in source.about
        assert source.aliases["state_dict/head/weight"].source == "state_dict/embed/weight"
    torch.save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}, path)
    with source_of(path) as source:
        assert [*source.leaves] == ["a.b", "a/b"]
        assert [float(source.values(name)[0]) for name in source.leaves] == [1, 0]


def test_show_imports_neither_jax_nor_torch(saved):
    code = (
        "import sys; from ptree._command_line import main;"
        f" main(['show', {saved[0]!r}]); print([n for n in ('torch', 'jax') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("[]")
