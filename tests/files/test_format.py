"""The file format: damage, dtypes, places, and reading a part; a file loads what was saved, or says what is wrong."""

import itertools
import json
import os
import threading

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from errors import says
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file
from trees import equal

import ptree as pt
from ptree import initializers as I
from ptree._stored.safetensors import SafetensorsFile


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


def tied():
    tree = pt.Tree(
        {
            "a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": np.arange(3, dtype="int16")},
            "step": 7,
            "key": jax.random.key(3),
            "b": {"kernel": jnp.arange(6.0).reshape(2, 3).T},
        }
    )
    return pt.tie(tree, {"b/kernel": pt.transposed("a/kernel")})


def loads_or_refuses(file, tree):
    """The exact original, or an error of ptree's that names the file."""
    try:
        back = pt.load(file)
    except pt.FileError as error:
        assert str(file) in str(error)
        return False
    assert equal(back, tree)
    assert pt.ties(back) == pt.ties(tree)
    return True


# ----------------------------------------------------------------------------- damage


def test_every_flipped_byte_of_a_file_is_found(file):
    tree = tied()
    pt.save(file, tree)
    whole = file.read_bytes()
    assert loads_or_refuses(file, tree)
    for at in range(len(whole)):
        for bits in (0x01, 0x20, 0xFF):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
            assert not loads_or_refuses(file, tree), at


def test_every_truncation_and_doubled_byte_is_found(file):
    tree = tied()
    pt.save(file, tree)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at])
        assert not loads_or_refuses(file, tree), at
        file.write_bytes(whole[: at + 1] + whole[at:])
        assert not loads_or_refuses(file, tree), at


@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=12), st.integers(0, 12)), min_size=1, max_size=4)
)
@settings(deadline=None)
def test_any_edit_is_found(tmp_path_factory, edits):
    file = tmp_path_factory.getbasetemp() / "edited.safetensors"
    tree = tied()
    pt.save(file, tree)
    data = whole = file.read_bytes()
    for place, new, taken in edits:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + taken :]
    file.write_bytes(data)
    assert loads_or_refuses(file, tree) == (data == whole)


def test_damaged_leaves_are_all_named(file):
    pt.save(file, tied())
    with pt.open(file) as opened:
        places = [opened.leaves[name].start for name in ("a/bias", "a/kernel")]
    with open(file, "r+b") as raw:
        for place in places:
            raw.seek(place)
            raw.write(b"\xff")
    told = f"cannot load {str(file)!r}: damaged, their bytes are not what their checksums say: ['a/bias', 'a/kernel']"
    with pytest.raises(pt.FileError) as raised:
        pt.load(file)
    assert sorted(raised.value.damaged) == ["a/bias", "a/kernel"]
    assert len(str(raised.value)) == len(told)
    with pytest.raises(pt.StructureError, match="damaged") as raised:
        pt.load(file, like=pt.drop(tied(), "step"))
    assert raised.value.unexpected == ["step"]
    assert sorted(raised.value.damaged) == ["a/bias", "a/kernel"]
    assert pt.load(file, verify=False)["step"] == 7


def header(table, data=b""):
    text = json.dumps(table).encode() if not isinstance(table, bytes) else table
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff" * 8, "its first 8 bytes say that the header has 18,446,744,073,709,551,615 bytes"),
        ((10**7).to_bytes(8, "little") + b"{}", "say that the header has 10,000,000 bytes, and it has 10 in all"),
        (header(b"[" * 100_000), "its header is damaged"),
        (header(b'{"a":' * 100_000), "its header is damaged"),
        (header(b"\xff{}"), "its header is damaged"),
        (header(b'{"a": 1}'), "its header is damaged"),
        (header(b"[]"), "its header is damaged"),
        (header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1"),
         "it has a name twice"),
        (header({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, b"123"),
         "the bytes of 'b' and of 'a' overlap"),
        (header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"12"), "the bytes of 'a' and of the header leave a gap"),
        (header({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}, b"1"), "its header describes"),
        (header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"12"), "its header describes"),
        (header({"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}, b"12345678"), "which does not take 8 bytes"),
        (header({"a": {"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}}, b"1"), "no whole numbers from 0 on"),
        (header({"a": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"1"), "no whole numbers from 0 on"),
        (header({"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 1]}}, b"1"), "of the dtype 'Q9', which this ptree does not know"),
        (header({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, b"12"), "'a' is F4[3], which does not take 2 bytes"),
        (header({"a": {"dtype": "F32", "shape": [2**64], "data_offsets": [0, 0]}}), "are too large"),
        (header({"a": {"dtype": "U8", "shape": [1] * 65, "data_offsets": [0, 1]}}, b"1"), "65 axes"),
        (header({"a": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}), "longer than what NumPy can have"),
        (header({"": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}), "'' cannot be the name of a leaf"),
        (header({"\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}), "'\\ud800' cannot be a name"),
        (header({"__metadata__": {"ptree": 5}}), "its metadata are not text"),
    ],
)  # fmt: skip
def test_a_hostile_header_is_refused(file, data, why):
    file.write_bytes(data)
    with pytest.raises(pt.FileError) as raised:
        pt.load(file)
    assert why in str(raised.value)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    ("leaf", "facts", "why"),
    [
        (np.arange(2), {"kinds": {"a": "int"}}, "'a' has the shape [2], and must be one number"),
        (np.arange(2), {"kinds": {"a": "key:rbg"}}, "'a' cannot be a PRNG key: JAX encountered invalid PRNG key data"),
        (np.arange(2), {"kinds": {"a": "key:own"}}, "'a' cannot be a PRNG key: unrecognized PRNG implementation"),
        (np.arange(2), {"kinds": {"a": "tensor"}}, "'a' is of the kind 'tensor', which this ptree does not know"),
        (np.arange(2), {"dtypes": {"a": "int4"}}, "'a' is int64[2], and cannot be int4 too"),
        (np.arange(3.0), {"dtypes": {"a": "complex128"}}, "'a' is float64[3], and cannot be complex128 too"),
        (np.zeros(2, "uint8"), {"dtypes": {"a": "int4"}, "kinds": {"a": "torch"}}, "'a' is uint8[2], and cannot be int4 too"),
        (np.zeros(2, "uint8"), {"dtypes": {"a": "float6_e2m3fn"}, "kinds": {}}, "'a' is uint8[2], and cannot be float6_e2m3fn too"),
        (np.zeros(2, "uint8"), {"dtypes": {"a": "int5"}}, "'a' is of the dtype 'int5', which this ptree does not know"),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_true_of_a_leaf_are_refused(file, leaf, facts, why):
    told = json.dumps({"version": 1, "order": ["a"], "ties": {}, "kinds": {"a": "numpy"}, **facts})
    save_file({"a": leaf}, file, {"ptree": told})
    with pytest.raises(pt.FileError) as raised:
        pt.load(file, verify=False)
    assert why in str(raised.value)
    assert str(file) in str(raised.value)


def test_a_long_chain_of_ties_loads_in_any_order(file):
    names = [f"n{at:04}" for at in range(4001)]
    ties = {alias: [source, []] for alias, source in itertools.pairwise(names)}
    for order in (names, names[::-1]):
        about = {"version": 1, "order": order, "ties": {name: ties[name] for name in order if name in ties}}
        save_file({names[-1]: np.arange(3, dtype="float32")}, file, {"ptree": json.dumps(about)})
        back = pt.load(file, verify=False)
        assert pt.ties(back) == dict.fromkeys(names[:-1], names[-1])
        assert back[names[0]].tolist() == [0, 1, 2]


def test_ties_that_stand_for_too_many_levels_are_refused(file, monkeypatch):
    monkeypatch.setattr("ptree._tree.chains.MOST_LEVELS_OF_A_TIE", 1)
    monkeypatch.setattr("ptree._tree.chains.MOST_TIES", 40)
    about = {"version": 1, "order": ["a/x/y/z", *"bcdefgh"], "ties": {name: ["a", []] for name in "bcdefgh"}}
    save_file({"a/x/y/z": np.arange(3.0)}, file, {"ptree": json.dumps(about)})
    with pytest.raises(pt.FileError, match=r"ties of ties stand for more than [0-9,]+ leaves, or 40 levels of them"):
        pt.load(file, verify=False)


def test_names_are_names_and_never_places(file):
    file.write_bytes(header({"../x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"1"))
    assert pt.paths(pt.load(file)) == ["../x"]
    assert os.listdir(file.parent) == [file.name]


# ----------------------------------------------------------------------------- dtypes and kinds


@pytest.mark.parametrize("name", [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64",
    "complex128", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e3m4",
    "float8_e4m3", "float8_e4m3b11fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn",
])  # fmt: skip
def test_every_dtype_comes_back_bit_for_bit(file, name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    values = (np.arange(6) % 2).reshape(2, 3).astype(dtype)
    with jax.enable_x64(True):
        tree = {
            "numpy": values,
            "turned": values.T,
            "jax": jnp.asarray(values),
            "none": values[:0],
            "one": values[1, 1].reshape(()),
        }
        pt.save(file, tree)
        back = pt.load(file)
        assert type(back["jax"]) is type(tree["jax"])
        for path, leaf in tree.items():
            assert back[path].dtype == dtype
            assert back[path].shape == leaf.shape
            assert np.asarray(back[path]).tobytes() == np.asarray(leaf).tobytes()


def test_leaves_of_pytorch_come_back(file):
    torch = pytest.importorskip("torch")
    tree = {
        "a": torch.arange(6.0).reshape(2, 3).T,
        "b": torch.ones(3, dtype=torch.bfloat16),
        "c": torch.tensor(True),
        "d": torch.nn.Parameter(torch.ones(2)),
    }
    pt.save(file, tree)
    back = pt.load(file)
    for name, leaf in tree.items():
        assert torch.equal(back[name], leaf)
        assert back[name].dtype == leaf.dtype
    in_jax = pt.load(
        file, like={name: jax.ShapeDtypeStruct(leaf.shape, str(leaf.dtype)[6:]) for name, leaf in tree.items()}
    )
    np.testing.assert_array_equal(in_jax["a"], tree["a"].numpy())
    assert torch.equal(torch.tensor(load_file(file)["a"]), tree["a"])


def test_data_are_where_they_can_be_mapped(file):
    tree = {
        "odd": jnp.ones(3),
        "a": jnp.ones(16),
        "h": jnp.ones(5, jnp.float16),
        "b": jnp.ones((32, 8)),
        "c": jnp.ones(7, bool),
    }
    pt.save(file, tree, metadata={"run": "7", "é": "ü"})
    with pt.open(file) as opened:
        assert {opened.leaves[name].start % 64 for name in ("a", "b")} == {0}
        for entry in opened.leaves.values():
            assert entry.start % entry.dtype.itemsize == 0
        assert opened.metadata == {"run": "7", "é": "ü"}
        assert list(opened) == ["odd", "a", "h", "b", "c"]
    with pytest.raises(
        pt.FileError, match=r"cannot save metadata under \['ptree'\]: ptree keeps these names for itself"
    ):
        pt.save(file, tree, metadata={"ptree": "x"})


def test_containers_are_on_record(file):
    pt.save(file, {"a": [jnp.ones(2), (jnp.ones(1),)]})
    with pt.open(file) as opened:
        assert opened.containers == {"a": "list", "a/1": "tuple"}


# ----------------------------------------------------------------------------- a part of it


def test_only_what_is_asked_for_is_read(file):
    big = np.arange(64 * 128 * 8, dtype="float32").reshape(64, 128, 8)
    pt.save(file, pt.tie({"big": jnp.asarray(big), "other": np.ones(1000), "same": jnp.asarray(big)}, {"same": "big"}))
    with pt.open(file) as opened:
        first = opened.bytes_read
        assert first < 2000
        leaf = opened["big"]
        assert (leaf.shape, leaf.dtype, leaf.nbytes) == (big.shape, np.float32, big.nbytes)
        assert opened.bytes_read == first
        for index in (3, -1, slice(2, 5), slice(None, None, -7), (5, slice(3, 9)), (5, 6, 7), (slice(1, 3), 4), (..., 0), (2, ..., 1), [1, 5],
                      (slice(0, 0),), (None, 3), np.array([True] * 64)):  # fmt: skip
            before = opened.bytes_read
            got = leaf[index]
            np.testing.assert_array_equal(got, big[index])
            assert isinstance(got, jax.Array)
            if (isinstance(index, slice) and index.step is None) or isinstance(index, int):
                assert opened.bytes_read - before == np.asarray(got).nbytes
        np.testing.assert_array_equal(opened["same"][3], big[3])
        with pytest.raises(pt.PathError, match="Did you mean 'other'"):
            opened["othr"]
        with pytest.raises(IndexError):
            leaf[64]
        kept = opened["other"]
    with pytest.raises(pt.FileError, match="is closed"):
        kept[...]


def test_mapped_arrays_outlive_the_file_that_save_replaces(file):
    tree = {"a": jnp.arange(1024.0), "b": np.arange(64)}
    pt.save(file, tree)
    mapped = pt.load(file, mmap=True)
    assert equal(mapped, pt.Tree(tree))
    pt.save(file, {"a": jnp.zeros(1024), "b": np.zeros(64)})
    assert equal(mapped, pt.Tree(tree))
    assert float(pt.load(file)["a"].sum()) == 0
    stepped = jax.jit(lambda p: jax.tree.map(lambda leaf: leaf + 1, p), donate_argnums=0)(pt.load(file, mmap=True))
    assert float(stepped["a"].sum()) == 1024
    assert float(pt.load(file)["a"].sum()) == 0  # donated, and not written into


@pytest.mark.parametrize(
    "spec", [("d",), (None, "d"), (None, None, "d"), ("d", None, "e"), ("e", "d"), (None, ("d", "e"))]
)
@pytest.mark.parametrize("width", [16, 2048])
def test_a_part_along_any_axis_reads_its_own_bytes(file, spec, width):
    mesh = jax.make_mesh((4, 2), ("d", "e"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    tree = pt.Tree({"a": jnp.arange(8.0 * 8 * width).reshape(8, 8, width)})
    pt.save(file, tree)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    with pt.open(file) as opened:
        before = opened.bytes_read
        back = opened.read([opened.leaves["a"]], {"a": sharding}).values["a"]
        if width > 1024:  # or it reads crumbs with what is between
            assert opened.bytes_read - before == tree["a"].nbytes
    assert back.sharding == sharding
    assert equal(back, tree["a"])
    assert equal(pt.load(file, shardings={"a": sharding}, mmap=True), tree)


def test_each_shard_reads_its_own_bytes(file):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    tree = {"a": jnp.arange(64.0 * 32).reshape(64, 32), "b": jnp.arange(16.0)}
    pt.save(file, tree)
    loaded = pt.load(file, shardings={"a": PartitionSpec("d"), "b": PartitionSpec()}, mesh=mesh)
    by_shape = lambda tree: {
        path: PartitionSpec("d") if leaf.ndim > 1 else PartitionSpec() for path, leaf in pt.items(tree)
    }
    again = pt.load(file, shardings=by_shape, mesh=mesh)
    assert [leaf.sharding for _, leaf in pt.items(again)] == [leaf.sharding for _, leaf in pt.items(loaded)]
    assert loaded["a"].sharding == NamedSharding(mesh, PartitionSpec("d"))
    assert equal(loaded, pt.Tree(tree))
    with pt.open(file) as opened:
        before = opened.bytes_read
        opened.read([opened.leaves["a"]], {"a": NamedSharding(mesh, PartitionSpec("d"))})
        assert opened.bytes_read - before == 64 * 32 * 4
        before = opened.bytes_read
        half = NamedSharding(jax.sharding.Mesh(np.array(jax.devices()[:1]), "d"), PartitionSpec())
        opened.read([opened.leaves["b"]], {"b": half})
        assert opened.bytes_read - before == 64
    again = {"a": loaded["a"], "b": loaded["b"]}
    pt.save(file, again)  # gathered
    assert equal(pt.load(file), pt.Tree(tree))


# ----------------------------------------------------------------------------- ways to load


def test_ways_out_of_what_does_not_fit(file):
    pt.save(file, {"enc": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "head": {"kernel": jnp.ones((3, 5))}})
    spec = pt.Tree({
        "encoder": {"kernel": pt.Param((2, 3), init=I.normal(1.0)), "bias": pt.Param((3,), jnp.bfloat16, init=I.zeros)},
        "head": {"kernel": pt.Param((3, 4), init=I.normal(1.0))}, "new": pt.Param((2,), init=I.normal(1.0)),
    })  # fmt: skip
    params = pt.init(spec, jax.random.key(0))
    with pytest.raises(pt.StructureError) as raised:
        pt.load(file, like=params)
    assert raised.value.missing == ["encoder/bias", "encoder/kernel", "new"]
    assert raised.value.misshapen == ["head/kernel"]
    assert "Renamed? Then rename={'enc/kernel': 'encoder/kernel'}." in str(raised.value)
    tree, report = pt.load_report(
        file, like=params, rename={"enc": "encoder"}, cast=True, missing="keep", mismatch="keep"
    )
    assert tree["new"] is params["new"]
    assert tree["head/kernel"] is params["head/kernel"]
    assert tree["encoder/bias"].dtype == jnp.bfloat16
    assert (report.loaded, report.kept, report.cast) == (
        ["encoder/kernel", "encoder/bias"],
        ["new", "head/kernel"],
        ["encoder/bias"],
    )
    drawn = pt.load(
        file, like=spec, rename={"enc": "encoder"}, select="enc", cast=True, missing="init", key=jax.random.key(0)
    )
    np.testing.assert_array_equal(drawn["new"], params["new"])  # bit for bit what init draws
    np.testing.assert_array_equal(drawn["head/kernel"], params["head/kernel"])
    np.testing.assert_array_equal(drawn["encoder/kernel"], np.ones((2, 3)))
    only, report = pt.load_report(file, select="enc/**")
    assert pt.paths(only) == ["enc/kernel", "enc/bias"]
    assert report.dropped == ["head/kernel"]
    with pytest.raises(pt.FileError, match="there is no value to keep in `like` for"):
        pt.load(file, like=spec, rename={"enc": "encoder"}, missing="keep", mismatch="keep", cast=True)
    with pytest.raises(pt.FileError, match="needs key="):
        pt.load(file, like=spec, rename={"enc": "encoder"}, missing="init")
    with pytest.raises(pt.FileError, match="expected missing"):
        pt.load(file, like=spec, missing="ignore")
    says(
        pt.FileError,
        "cast, missing and mismatch say how a file is to fit a `like`: give like=",
        lambda: pt.load(file, cast=True),
    )


# ----------------------------------------------------------------------------- saving


def test_saving_in_the_background_keeps_what_was_there(file):
    params = {"a": jnp.arange(100_000.0), "n": np.arange(5)}
    pending = pt.save(file, params, background=True)
    params["n"][:] = 0
    changed = jax.jit(lambda a: a * 0, donate_argnums=0)(params["a"])
    changed.block_until_ready()
    pending.result()
    back = pt.load(file)
    np.testing.assert_array_equal(back["a"], np.arange(100_000.0))
    np.testing.assert_array_equal(back["n"], np.arange(5))
    with pytest.raises(FileNotFoundError):
        pt.save(file.parent / "no" / "m.safetensors", {"a": 1}, background=True).result()


# ----------------------------------------------------------------------------- what a review found


def test_names_that_cannot_be_read_back_are_not_written(file):
    for tree in ({"l": {"": jnp.ones(3)}}, {"x/": 1}, {"/x": 1}, {"//": 1}):
        with pytest.raises(pt.FileError, match="none of them empty"):
            pt.save(file, tree)
    assert not file.exists()


def test_all_that_is_read_whole_is_compared_with_its_checksum(file):
    pt.save(file, {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(2)})
    with pt.open(file) as opened:
        place = opened.leaves["a"].start
    with open(file, "r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff")
    with pt.open(file) as opened:
        for read in (
            lambda a: a[...],
            lambda a: a[:],
            lambda a: np.asarray(a),
            lambda a: a[(slice(None), slice(None))],
        ):
            with pytest.raises(pt.FileError, match="damaged") as raised:
                read(opened["a"])
            assert raised.value.is_damage
        assert opened["a"][1].tolist() == [3, 4, 5]
        assert opened["b"][True].shape == (1, 2)
        with pytest.raises(pt.PathError, match="no leaf 3"):
            opened[3]


def test_64_bits_go_into_numpy_and_through_cast(file):
    pt.save(file, {"a": np.arange(3.0), "n": np.arange(3)})
    save_file({"a": np.arange(3.0), "n": np.arange(3)}, file)
    with pytest.raises(pt.FileError, match=r"'n' is i64, 'a' is f64, and JAX would cut them to 32 bits"):
        pt.load(file)
    like = {"a": np.zeros(3), "n": np.zeros(3, int)}
    assert pt.load(file, like=like)["a"].dtype == "float64"
    cast = pt.load(file, like={"a": jnp.zeros(3), "n": jnp.zeros(3, "int32")}, cast=True)
    assert (cast["a"].dtype, cast["n"].dtype) == ("float32", "int32")
    with pytest.raises(pt.StructureError, match=r"expected f32\[3\] in `like`, got f64\[3\] in the file"):
        pt.load(file, like={"a": jnp.zeros(3), "n": np.zeros(3, int)})


def test_numpy_comes_back_as_one_can_use_it(file):
    pt.save(file, {"a": jnp.arange(3.0), "big": np.arange(3, dtype=">f4")})
    back = pt.load(file, like={"a": np.zeros(3, "float32"), "big": np.zeros(3, ">f4")})
    back["a"] += 1
    assert back["big"].tolist() == [0, 1, 2]
    pt.save(file, {"a": np.arange(64)})
    assert not pt.load(file, like={"a": np.zeros(64, int)}, mmap=True)["a"].flags.owndata  # it is the file's


def test_leaves_of_pytorch_that_are_views_or_nowhere(file):
    torch = pytest.importorskip("torch")
    turned = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex64).conj()
    pt.save(file, {"c": turned, "n": turned.imag})
    back = pt.load(file)
    assert torch.equal(back["c"], turned)
    assert torch.equal(back["n"], turned.imag)
    kept = pt.load(file, like={"c": turned, "n": turned.imag, "t": torch.ones(3)}, missing="keep")
    assert torch.equal(kept["t"], torch.ones(3))
    record = np.rec.array([(1,)], dtype=[("x", int)])
    with pytest.raises(pt.FileError, match="cannot save these leaves") as raised:
        pt.save(file, {"m": torch.ones(2, device="meta"), "r": record, "i": 10**30})
    assert all(
        told in str(raised.value)
        for told in (
            "'m' is a tensor of PyTorch on the device meta, which holds no values",
            "'r' is",
            "an int of more than 64 bits",
        )
    )


def test_ten_thousand_names_that_do_not_fit_are_told_and_few_are_looked_at(file, monkeypatch):
    looked_at = []
    monkeypatch.setattr("ptree.files._template.nearest", lambda name, names: looked_at.extend(names))
    pt.save(file, {f"a{at}.weight": np.zeros(1) for at in range(10_000)})
    with pytest.raises(pt.StructureError) as raised:
        pt.load(file, like={f"a/{at}/kernel": np.zeros(1) for at in range(10_000)})
    assert (len(raised.value.missing), len(raised.value.unexpected)) == (10_000, 10_000)
    assert len(looked_at) == 10 * 500


def test_links_as_in_the_cache_of_hugging_face(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    snapshot.mkdir()
    blobs.mkdir()
    tree = pt.Tree({"a": jnp.ones(4), "b": jnp.ones(4)})
    pt.save(tmp_path / "s.index.json", tree, max_shard_size=16)
    for at, path in enumerate(sorted(tmp_path.glob("s*"))):
        if path.is_file():
            path.rename(blobs / str(at))
            (snapshot / path.name).symlink_to(blobs / str(at))
    for path in (snapshot / "s", snapshot / "s.index.json"):
        assert equal(pt.load(path), tree)
    (tmp_path / "link.index.json").symlink_to(snapshot / "s.index.json")
    with pytest.raises(pt.FileError, match="these shards are not beside it"):  # the link goes on to the blob
        pt.load(tmp_path / "link")


def test_arguments_that_are_none(file):
    with pytest.raises(pt.FileError, match="expected the path of a file"):
        pt.save("", {"a": 1})
    with pytest.raises(pt.FileError, match="expected names and texts"):
        pt.save(file, {"a": 1}, metadata="abc")
    with pytest.raises(pt.FileError, match="valid Unicode text"):
        pt.save(file, {"a": 1}, metadata={"a": 1})
    with pytest.raises(pt.FileError, match="expected max_shard_size"):
        pt.save(file, {"a": 1}, max_shard_size="1" * 400)
    for wrong in ({"keep": 2.5}, {"every": 1.5}, {"keep": "3"}, {"every": None}, {"every": 0}):
        with pytest.raises(pt.FileError, match="to be a whole number of at least 1"):
            pt.Checkpoints(file, **wrong)


def test_swapped_arguments_are_told(tmp_path):
    tree, path = {"a": jnp.ones(2)}, str(tmp_path / "m.safetensors")
    expected = "the path comes first, a str or a pathlib.Path; got dict"
    says(pt.FileError, f"save(path, tree): {expected}", pt.save, tree, path)
    says(pt.FileError, f"load(path, like): {expected}", pt.load, tree, path)
    says(pt.FileError, f"load(path, like): {expected}", pt.load_report, tree)
    says(pt.FileError, f"open(path): {expected}", pt.open, tree)
    says(
        pt.FileError,
        "Checkpoints.save(step, tree): the step comes first, a whole number; got dict. The two are swapped",
        lambda: pt.Checkpoints(tmp_path).save(tree, 3),
    )
    assert os.listdir(tmp_path) == []


def test_a_save_gives_a_handle(file):
    saved = pt.save(file, {"a": jnp.ones(300)})
    assert saved.done()
    assert saved.result() is None
    assert repr(saved) == f"<saved {str(file)!r}, 1.5 kB>"
    assert round(file.stat().st_size / 1000, 1) == 1.5
    shards = pt.save(file, {"a": jnp.ones(300), "b": jnp.ones(300)}, max_shard_size=1200, background=True)
    shards.result()
    size = sum(path.stat().st_size for path in file.parent.iterdir())
    assert repr(shards) == f"<saved {str(file) + '.index.json'!r}, {size / 1000:.1f} kB>"
    nowhere = file.parent / "no" / "m.safetensors"
    lost = pt.save(nowhere, {"a": 1}, background=True)
    with pytest.raises(FileNotFoundError):
        lost.result()
    assert repr(lost) == f"<{str(nowhere)!r} was not saved: FileNotFoundError>"


def test_a_save_in_the_background_says_that_it_is_not_done(file, monkeypatch):
    may_write, real = threading.Event(), os.pwrite

    def pwrite(*args):
        may_write.wait()
        return real(*args)

    monkeypatch.setattr(os, "pwrite", pwrite)
    saved = pt.save(file, {"a": 1}, background=True)
    assert not saved.done()
    assert repr(saved) == f"<saving {str(file)!r}>"
    with pytest.raises(TimeoutError):
        saved.result(timeout=0.01)
    may_write.set()
    saved.result()
    assert pt.load(file)["a"] == 1


# ----------------------------------------------------------------------------- shardings follow the tree that comes out


def mesh_of_8():
    return jax.make_mesh((4, 2), ("d", "e"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def bytes_read_by(call, monkeypatch):
    """What a call returns, and how many bytes of data it read beside the header."""
    opened = []
    real = SafetensorsFile.close

    def close(self):
        if self not in opened:
            opened.append(self)
        real(self)

    monkeypatch.setattr(SafetensorsFile, "close", close)
    result = call()
    monkeypatch.undo()
    return result, sum(one.bytes_read - min(leaf.start for leaf in one.header.leaves.values()) for one in opened)


def test_shardings_place_what_the_file_does_not_have(file):
    mesh = mesh_of_8()
    pt.save(file, {"a": jnp.ones((8, 4)), "wrong": jnp.ones(3), "step": 3})
    like = pt.Tree({
        "a": pt.Param((8, 4)), "new": pt.Param((8, 2), init=I.normal(1.0)), "key": pt.Param((16,), init=I.normal(1.0)), "step": 0,
    })  # fmt: skip
    rules = {"new": PartitionSpec("d", "e"), "step": PartitionSpec(), "**": PartitionSpec("d")}
    tree, report = pt.load_report(
        file, like, select=["a", "step"], missing="init", key=jax.random.key(0), shardings=rules, mesh=mesh
    )
    assert report.drawn == ["new", "key"]
    assert {path: leaf.sharding.spec for path, leaf in pt.items(tree) if path != "step"} == {
        "a": PartitionSpec("d"),
        "new": PartitionSpec("d", "e"),
        "key": PartitionSpec("d"),
    }
    assert tree["step"] == 3
    expected = pt.init(pt.drop(like, ["a", "step"]), jax.random.key(0))
    assert equal(jax.device_get(tree["new"]), jax.device_get(expected["new"]))
    model = pt.Tree(
        {
            "a": jnp.zeros((8, 4)),
            "wrong": jnp.zeros(4),
            "new": jnp.zeros(8),
            "n": np.zeros(4),
            "key": jax.random.split(jax.random.key(0), 4),
        }
    )
    kept = pt.load(
        file, model, select=["a", "wrong"], missing="keep", mismatch="keep", shardings=PartitionSpec("d"), mesh=mesh
    )
    assert all(kept[name].sharding == NamedSharding(mesh, PartitionSpec("d")) for name in ("a", "wrong", "new", "key"))
    assert isinstance(kept["n"], np.ndarray)  # as in `like`
    assert kept["a"].sum() == 32


def test_shardings_may_be_a_tree_shaped_like_like(file):
    mesh = mesh_of_8()
    pt.save(file, {"old": {"a": jnp.ones((8, 4)), "b": jnp.ones(8)}, "more": jnp.ones(1)})
    like = {"new": [jnp.zeros((8, 4)), jnp.zeros(8)]}
    placed = {"new": [NamedSharding(mesh, PartitionSpec("d", "e")), NamedSharding(mesh, PartitionSpec("e"))]}
    back = pt.load(file, like, select="old", rename={"old/a": "new/0", "old/b": "new/1"}, shardings=placed)
    assert [leaf.sharding for leaf in back["new"]] == placed["new"]
    with pytest.raises(pt.PatternError, match="more"):  # a leaf that does not come out
        pt.load(file, like, select="old", rename={"old/a": "new/0", "old/b": "new/1"}, mesh=mesh,
                shardings={"more": PartitionSpec(), "**": PartitionSpec()})  # fmt: skip


def layers_and_stack():
    layers = pt.Tree(
        {"blocks": [{"w": jnp.arange(8.0 * 1024).reshape(8, 1024) + at, "b": jnp.ones(1024) * at} for at in range(4)]}
    )
    return layers, pt.stacks.stack(layers, "blocks")


def test_a_stack_that_loads_into_layers_gives_each_what_the_rule_says(file, monkeypatch):
    mesh, (layers, stacked) = mesh_of_8(), layers_and_stack()
    pt.save(file, stacked)
    rules = {"blocks/*/w": PartitionSpec(None, "d"), "**": PartitionSpec("e")}
    back, read = bytes_read_by(lambda: pt.load(file, like=layers, shardings=rules, mesh=mesh), monkeypatch)
    assert equal(jax.device_get(back), jax.device_get(layers))
    for at in range(4):
        assert back[f"blocks/{at}/w"].sharding == NamedSharding(mesh, PartitionSpec(None, "d"))
        assert back[f"blocks/{at}/b"].sharding == NamedSharding(mesh, PartitionSpec("e"))
    assert read == sum(leaf.nbytes for _, leaf in pt.items(stacked))  # each byte once, for the device that holds it
    apart = pt.load(file, like=layers, shardings={"blocks/0/*": PartitionSpec(), "**": PartitionSpec("e")}, mesh=mesh)
    assert apart["blocks/0/w"].is_fully_replicated
    assert apart["blocks/1/w"].sharding.spec == PartitionSpec("e")


def test_layers_that_load_into_a_stack_go_where_its_sharding_says(file, monkeypatch):
    mesh, (layers, stacked) = mesh_of_8(), layers_and_stack()
    pt.save(file, layers)
    for spec, is_read_in_parts in ((PartitionSpec(None, None, "d"), True), (PartitionSpec("d"), False)):
        placed = {"blocks": {":": {"w": NamedSharding(mesh, spec), "b": NamedSharding(mesh, PartitionSpec())}}}
        calls = []
        monkeypatch.setattr(SafetensorsFile, "block", count_calls(SafetensorsFile.block, calls))
        back = pt.load(file, like=stacked, shardings=placed)
        monkeypatch.undo()
        assert back["blocks/:/w"].sharding == NamedSharding(mesh, spec)
        assert equal(jax.device_get(back), jax.device_get(stacked))
        assert bool(calls) == is_read_in_parts


def count_calls(real, calls):
    def counted(*args):
        calls.append(args)
        return real(*args)

    return counted
