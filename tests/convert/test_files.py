"""Files that are read and written by name: what formats cannot hold, stacks, templates, and open files as sources."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree import convert as c
from ptree._stored.dtypes import CODES, LACKING

FORMATS = {
    "torch": "m.pt",
    "hf": "m.safetensors",
    "flax": "m.msgpack",
    "mxnet": "m.params",
    "npz": "m.npz",
    "gguf": "m.gguf",
}


def numbers(*shape, dtype="float32"):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


STACK = pt.stacks.stack(
    {"l": {"0": {"kernel": numbers(2, 3)}, "1": {"kernel": numbers(2, 3) + 6}}, "bias": numbers(2)}, "l"
)


@pytest.mark.parametrize("form", FORMATS)
def test_a_stack_is_written_as_single_layers(form, tmp_path):
    path = tmp_path / FORMATS[form]
    c.write(path, STACK, to=form)
    found = {name.replace("/", "."): array for name, array in c.read(path).items()}
    assert sorted(found) == ["bias", "l.0.kernel", "l.1.kernel"]
    np.testing.assert_array_equal(found["l.1.kernel"], numbers(2, 3) + 6)


def test_a_stack_in_a_stack_is_written_as_single_layers_and_a_file_of_ptree_keeps_it(tmp_path):
    inner = {"b": {"0": {"w": numbers(2)}, "1": {"w": numbers(2)}}}
    tree = pt.stacks.stack(pt.stacks.stack(pt.stacks.stack({"a": {"0": inner, "1": inner}}, "a/0/b"), "a/1/b"), "a")
    c.write(tmp_path / "m.pt", tree)
    assert list(c.read(tmp_path / "m.pt")) == ["a.0.b.0.w", "a.0.b.1.w", "a.1.b.0.w", "a.1.b.1.w"]
    c.write(tmp_path / "m.safetensors", STACK, to="ptree")
    assert pt.paths(pt.load(tmp_path / "m.safetensors")) == pt.paths(STACK)


@pytest.mark.parametrize("name", ["m.safetensors", "shards"])
def test_typed_keys_are_read_as_their_words(name, tmp_path):
    key, keys = jax.random.key(3), jax.random.split(jax.random.key(0), (3, 4))
    tree = {
        "key": key,
        "same": key,
        "keys": keys,
        "turned": keys.T,
        "rbg": jax.random.key(1, impl="rbg"),
        "w": numbers(2),
    }
    tied = pt.tie(tree, {"same": "key", "turned": pt.transposed("keys")})
    words = {name: np.asarray(jax.random.key_data(leaf)) for name, leaf in tree.items() if name != "w"}
    path = tmp_path / name
    pt.save(path, tied, max_shard_size=None if name == "m.safetensors" else 32)
    found = c.read(path)
    assert list(found) == list(tree)
    for leaf, array in words.items():
        assert found[leaf].dtype == np.uint32
        np.testing.assert_array_equal(found[leaf], array)
    c.write(tmp_path / "m.npz", found)
    np.testing.assert_array_equal(c.read(tmp_path / "m.npz")["turned"], words["turned"])
    with pt.open(path) as file:
        assert file["turned"].shape == (4, 3, 2)
        np.testing.assert_array_equal(np.asarray(file["turned"]), words["turned"])


def test_layers_of_stacked_keys_are_read_by_name(tmp_path):
    keys = jax.random.split(jax.random.key(0), 3)
    pt.save(tmp_path / "m.safetensors", pt.stacks.stack(pt.Tree({"l": [{"key": key} for key in keys]}), "l"))
    np.testing.assert_array_equal(c.read(tmp_path / "m.safetensors")["l/:/key"], jax.random.key_data(keys))
    with pt.open(tmp_path / "m.safetensors") as file:
        found = c.Table({"l/*/key": "key_*"}).apply(file)
    np.testing.assert_array_equal(found["key_1"], jax.random.key_data(keys[1]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "int64"])
def test_tensors_of_pytorch_that_ptree_saved_are_read_without_it(dtype, tmp_path):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6, dtype=getattr(torch, dtype)).reshape(2, 3)
    pt.save(tmp_path / "m.safetensors", pt.tie({"a": tensor, "b": tensor.T.clone()}, {"b": pt.transposed("a")}))
    found = c.read(tmp_path / "m.safetensors")
    assert {name: (array.shape, array.dtype.name) for name, array in found.items()} == {
        "a": ((2, 3), dtype), "b": ((3, 2), dtype)
    }  # fmt: skip
    np.testing.assert_array_equal(found["b"].astype(float), np.arange(6.0).reshape(2, 3).T)
    code = (
        "import sys; sys.modules['torch'] = None; from ptree import convert;"
        f" print(convert.read({str(tmp_path / 'm.safetensors')!r})['b'].shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "(3, 2)\n", run.stderr


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_safetensors_for_others_hold_what_other_readers_read(dtype, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    array = np.array([[1, 0, 1], [0, 1, 0]]).astype(dtype)
    c.write(tmp_path / "m.safetensors", {"a.b": array})
    found = load_file(tmp_path / "m.safetensors")["a.b"]
    assert str(found.dtype) == f"torch.{dtype}"
    assert found.shape == (2, 3)
    np.testing.assert_array_equal(found.flatten().view(torch.uint8).numpy(), array.reshape(-1).view("uint8"))


def test_a_dtype_that_only_ptree_would_read_is_no_safetensors_for_others(tmp_path):
    path = tmp_path / "m.safetensors"
    arrays = {f"a.{dtype}": np.array([1, 0, 1]).astype(dtype) for dtype in LACKING}
    path.write_text("was there before")
    for options in ({}, {"to": "hf"}):
        with pytest.raises(pt.FileError, match=r"safetensors has no such dtypes: .*'a.int4: i4'.*; cast them first"):
            c.write(path, arrays | {"b.c": numbers(2)}, **options)
    with pytest.raises(pt.FileError, match=r"safetensors has no such dtypes: \['a.complex128: c128'\]"):
        c.write(path, {"a.complex128": arrays["a.complex128"]})
    assert path.read_text() == "was there before"
    c.write(path, arrays, to="ptree")  # which the message names
    found = c.read(path)
    for name, array in arrays.items():
        assert found[name.replace(".", "/")].dtype == array.dtype
        np.testing.assert_array_equal(found[name.replace(".", "/")].view("uint8"), array.view("uint8"))


@pytest.mark.parametrize("name", ["m.npz", "m.msgpack", "m.params", "m.gguf", "m.h5"])
def test_a_name_that_a_format_would_cut_is_refused(name, tmp_path):
    with pytest.raises(pt.FileError, match="NUL"):
        c.write(tmp_path / name, {"hidden/a\0b": numbers(2)})
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "b", "a": "c"}',
        '[{"from": "a", "to": "b", "to": "c"}]',
    ],
)
def test_a_table_with_a_key_twice_is_refused(text, tmp_path):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(pt.FileError, match="these keys stand there more than once"):
        c.Table.load(tmp_path / "t.json")


@pytest.mark.parametrize("name", ["m.pt", "m.npz", "m.msgpack"])
def test_an_open_file_of_another_framework_is_a_source(name, tmp_path):
    path, source = tmp_path / name, {"fc.weight": numbers(3, 2), "fc.bias": numbers(3)}
    c.write(path, source)
    table = c.Table({"fc.weight": ("fc/kernel", c.linear), "fc.bias": "fc/bias"})
    like = {"fc": {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}}
    with pt.open(path) as file:
        assert table.plan(file, like).ok
        params = table.apply(file, like)
        assert table.carried(file) == {}
        c.write(tmp_path / "out.npz", file)
        assert len(c.suggest(file, like).rows) == 2
    np.testing.assert_array_equal(params["fc"]["kernel"], numbers(3, 2).T)
    assert len(c.read(tmp_path / "out.npz")) == 2


@pytest.mark.parametrize("name", ["m.pt", "m.npz", "m.safetensors"])
def test_leaves_of_an_open_file_are_arrays_of_a_source(name, tmp_path):
    path, source = tmp_path / name, {"fc.weight": numbers(3, 2), "mask": numbers(3)}
    c.write(path, source)
    table = c.Table({"fc.weight": ("fc/kernel", c.linear), "mask": c.carry})
    with pt.open(path) as file:
        leaves = {leaf.replace("/", "."): file[leaf] for leaf in file}
        back = table.inverse.apply(table.apply(leaves), carried={"mask": leaves["mask"]})
        assert len(pt.look.summary(file).rows) == len(pt.look.stats(file).rows) == 2
        assert file[next(iter(file))].shape  # still open
    for key, array in source.items():
        np.testing.assert_array_equal(back[key], array)


def test_names_that_are_tied_in_an_open_file_stay_tied(tmp_path):
    torch = pytest.importorskip("torch")
    weight = torch.ones(3, 2)
    torch.save({"a": weight, "b": weight}, tmp_path / "m.pt")
    with pt.open(tmp_path / "m.pt") as file:
        c.write(tmp_path / "n.pt", file)
    loaded = torch.load(tmp_path / "n.pt")
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr()


def test_a_template_is_for_files_of_keras(tmp_path):
    with pytest.raises(pt.FileError, match=r"template= is for files of Keras, .keras, .h5 or .hdf5"):
        c.write(tmp_path / "m.pt", {"a": numbers(2)}, template=tmp_path / "m.keras")
    with pytest.raises(pt.FileError, match="template= is for files of Keras, and to= says 'torch'"):
        c.write(tmp_path / "m.keras", {"a": numbers(2)}, to="torch", template=tmp_path / "m.keras")
    for name in ("m.weights.h5", "m.h5"):
        with pytest.raises(pt.FileError, match=r"it is a copy of '.*m.keras', so its name ends in .keras"):
            c.write(tmp_path / name, {"a": numbers(2)}, template=tmp_path / "m.keras")
    with pytest.raises(pt.FileError, match=r"so its name ends in .weights.h5"):
        c.write(tmp_path / "m.h5", {"a": numbers(2)}, template=tmp_path / "m.weights.h5")
    with pytest.raises(pt.FileError, match=r"a .keras has the architecture of the model too; give template="):
        c.write(tmp_path / "m.keras", {"a": numbers(2)})


@pytest.mark.parametrize(
    ("name", "to", "said"),
    [
        ("m.keras", "keras2", "a .keras is written by template= alone"),
        ("m.npz", "torch", "its name says to='npz'"),
        ("m.h5", "keras", "its name says to='keras2'"),
        ("m.weights.h5", "keras2", "its name says to='keras'"),
        ("m.safetensors", "npz", "its name says to='hf' or 'ptree'"),
        (".", "torch", "'.' is a folder"),
        (".", "npz", "is a folder"),
    ],
)
def test_a_name_that_says_another_format_is_refused(name, to, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pt.FileError, match=re.escape(said)):
        c.write(name, {"a/b": numbers(2)}, to=to)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["m.npz", "m.msgpack", "m.params", "m.gguf", "m.h5", "m.ckpt"])
def test_a_name_that_is_no_unicode_is_refused(name, tmp_path):
    with pytest.raises(pt.FileError, match=r"valid Unicode text; got .*udc80"):
        c.write(tmp_path / name, {"hidden/a\udc80": numbers(2)})
    assert not [*tmp_path.iterdir()]


def test_names_that_a_format_could_not_give_back_are_refused(tmp_path):
    with pytest.raises(pt.FileError, match=r"HDF5 has no groups that are called '\.'"):
        c.write(tmp_path / "m.h5", {"l/a/./b": numbers(2)})
    for depth in (256, 257):
        name = "/".join(["a"] * depth)
        if depth == 256:
            c.write(tmp_path / "m.msgpack", {name: numbers(2)})
            assert list(c.read(tmp_path / "m.msgpack")) == [name]
            continue
        with pytest.raises(pt.FileError, match="at most 256 segments"):
            c.write(tmp_path / "m.msgpack", {name: numbers(2)})


@pytest.mark.parametrize("read", [c.read, pt.open, pt.load])
def test_what_is_no_file_of_parameters_is_said(read, tmp_path):
    (tmp_path / "notes.bin").write_bytes(b"hello, this is text" * 9)
    with pytest.raises(pt.FileError, match=r"it is of no format that ptree reads; it begins with b'hello, t'"):
        read(tmp_path / "notes.bin")
    (tmp_path / "m.bin.index.json").write_text('{"weight_map": {"a": "m-1.bin"}}')
    with pytest.raises(pt.FileError, match="an index of shards in PyTorch's own format"):
        read(tmp_path / "m.bin.index.json")
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors in the folder '.*': it is empty"):
        read(folder)
    c.write(folder / "pytorch_model.bin", {"a": numbers(2)})
    with pytest.raises(FileNotFoundError, match=r"it has \['pytorch_model.bin'\]; name the file"):
        read(folder)
    (tmp_path / "cut.safetensors").write_bytes(b"hello, this is text")
    with pytest.raises(pt.FileError, match="not a whole safetensors file"):
        read(tmp_path / "cut.safetensors")


def test_wrong_calls_are_said(tmp_path):
    with pytest.raises(pt.FileError, match="3"):
        c.read(3)
    with pytest.raises(pt.PatternError, match=r"a row is a pair, names of the source and names of the target; got 'a'"):
        c.Table(["a", "b"])
    with pytest.raises(pt.PatternError, match=r"expected a table after `\|`"):
        c.Table({"a": "b"}) | {"c": "d"}
    (tmp_path / "t.json").write_text(json.dumps([{"from": "a", "to": "b"}]))
    assert c.Table.load(tmp_path / "t.json") == c.Table({"a": "b"})
