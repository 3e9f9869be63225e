"""Slices of a leaf in a file, along any axis, are NumPy's, and read about their own bytes."""

import itertools
import random

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file
from trees import equal

import ptree as pt
from ptree._stored.dtypes import DTYPES, LACKING
from ptree._stored.leaf_parts import GAP

MIB = 1 << 20


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


def random_index(draw, shape):
    """A basic index of NumPy: integers, slices of any sign and step, None, and one ellipsis at most."""
    entries = []
    axes = draw.randrange(len(shape) + 1)
    for size in shape[:axes]:
        if size and draw.random() < 0.3:
            entries.append(draw.choice([int, np.int64])(draw.randrange(-size, size)))
        else:
            bounds = [draw.choice([None, draw.randrange(-size - 2, size + 3)]) for _ in range(2)]
            entries.append(slice(*bounds, draw.choice([None, 1, 2, 3, 7, -1, -2, -5])))
    if draw.random() < 0.4:  # the last entries are those of the last axes
        at = draw.randrange(len(entries) + 1)
        after = len(entries) - at
        ends = shape[len(shape) - after :] if after else ()
        entries = entries[:at] + [Ellipsis] + [slice(None, None, -2) if size else slice(0) for size in ends]
    for _ in range(draw.choice([0, 0, 1, 2])):
        entries.insert(draw.randrange(len(entries) + 1), None)
    return tuple(entries) if len(entries) != 1 or draw.random() < 0.5 else entries[0]


SHAPES = [(), (7,), (0,), (5, 0, 3), (4, 6), (3, 5, 7), (2, 3, 4, 5), (1, 1, 1), (2, 1500), (3, 700, 9), (300, 3000)]


@pytest.mark.parametrize("mmap", [False, True])
def test_every_basic_index_is_that_of_numpy(file, mmap, long):
    arrays = {f"a{at}": np.arange(np.prod(shape), dtype="int32").reshape(shape) for at, shape in enumerate(SHAPES)}
    pt.save(file, arrays)
    draw = random.Random(0)
    with pt.open(file, mmap=mmap) as opened:
        for array, name in itertools.product(range(4000 if long else 60), arrays):
            array = arrays[name]
            index = random_index(draw, array.shape)
            if isinstance(index, type(...)):
                continue
            before = opened.bytes_read
            got = opened[name][index]
            assert got.shape == array[index].shape, index
            np.testing.assert_array_equal(got, array[index], err_msg=str(index))
            assert opened.bytes_read - before <= array.nbytes, index


def test_indices_by_arrays_are_numpys_too(file):
    array = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    pt.save(file, {"a": array})
    indices = [
        [1, 3], np.array([0, 0, 2]), (slice(1, 3), [0, 5]), ([1, 2], slice(None), 3), (0, slice(None), [1, 2]), (0, ..., [1, 2]),
        (slice(None, None, -1), [2, 1], [3, 4]), array % 3 == 0, (slice(2), array[0] % 2 == 0), True, (None, True, 1), np.array(2), jnp.int32(-1),
        (np.array([True, False, True, True]), slice(1, 4)), ..., (), (..., None), (None, ..., 1), (False,),
    ]  # fmt: skip
    with pt.open(file) as opened:
        for index in indices:
            np.testing.assert_array_equal(opened["a"][index], array[np.asarray(index) if isinstance(index, jax.Array) else index], str(index))  # fmt: skip


def test_what_is_no_index_is_numpys_error_and_reads_nothing(file):
    array = np.arange(24.0).reshape(4, 6)
    pt.save(file, {"a": array, "b": np.float32(3)})
    with pt.open(file) as opened:
        before = opened.bytes_read
        for index in (4, -5, (0, 6), (0, 0, 0), (..., ...), "a", 1.5, (slice(None), 1.0), [9], slice("a", None)):
            with pytest.raises((IndexError, TypeError)) as by_numpy:
                array[index]
            with pytest.raises(type(by_numpy.value)) as raised:
                opened["a"][index]
            assert str(raised.value) == str(by_numpy.value), index
        with pytest.raises(ValueError, match="slice step cannot be zero"):
            opened["a"][::0]
        with pytest.raises(IndexError):
            opened["b"][0]
        assert opened.bytes_read == before


def test_columns_read_their_own_bytes_and_gaps_below_a_page(file):
    wide = np.zeros((4096, 8192), "float32")  # 128 MiB, of which these columns are 2
    wide[:, :128] = np.arange(128)
    narrow = np.arange(4096.0 * 512).reshape(4096, 512).astype("float32")  # rows of 2 KiB
    pt.save(file, {"wide": wide, "narrow": narrow, "deep": wide.reshape(64, 64, 64, 128)})
    with pt.open(file) as opened:

        def read(name, index):
            before = opened.bytes_read
            np.testing.assert_array_equal(opened[name][index], {"wide": wide, "narrow": narrow}.get(name, wide.reshape(64, 64, 64, 128))[index])  # fmt: skip
            return opened.bytes_read - before

        assert read("wide", (slice(None), slice(128))) == 2 * MIB
        assert read("wide", (slice(None, None, -2), slice(127, None, -1))) == MIB
        assert read("wide", (slice(None, None, 512), 7)) == 8 * 4
        assert read("wide", (..., -1)) == 4096 * 4  # one number of each row
        assert read("wide", slice(10, 4000, 100)) == 40 * 8192 * 4  # rows apart
        assert read("deep", (slice(None), slice(1, 3), slice(5, 7), slice(10))) == 64 * 2 * (128 + 10) * 4
        # runs with gaps of less than a page are read as one: from the first number to the last
        assert read("narrow", (slice(None), slice(128))) == narrow.nbytes - (512 - 128) * 4
        assert read("narrow", (slice(None, None, 4), slice(None))) == narrow.nbytes // 4  # gaps of 6 KiB
        assert GAP == 4096


def test_a_part_with_gaps_that_is_larger_than_its_buffer_is_right(file):
    array = np.arange(5 * (1 << 20) * 2, dtype="int32").reshape(5, 1 << 20, 2)  # rows of 8 MiB
    pt.save(file, {"a": array})
    with pt.open(file) as opened:
        for index in (
            (slice(None), slice(None), 1),
            (slice(1, 5), slice(3, None, 3), slice(1)),
            (slice(None), slice(None, None, -7)),
        ):
            np.testing.assert_array_equal(opened["a"][index], array[index])


@pytest.mark.parametrize("dtype", ["int4", "uint2", "float4_e2m1fn", "float8_e4m3fn", "bfloat16", "complex128", "bool"])
def test_slices_of_every_width_of_numbers(file, dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    array = (np.arange(30).reshape(5, 6) % 2).astype(dtype)
    pt.save(file, {"odd": np.ones(3, "uint8"), "a": array})
    with pt.open(file) as opened:
        for index in ((slice(None), 1), (slice(None, None, -2), slice(1, 5, 3)), 3, (..., None, slice(2))):
            got = opened["a"][index]
            assert got.dtype == dtype
            np.testing.assert_array_equal(np.asarray(got), array[index])


def test_a_layer_of_a_stack_is_sliced_by_its_own_bytes(file):
    layers = [{"w": np.arange(64 * 4096.0).reshape(64, 4096).astype("float32") + at} for at in range(3)]
    nested = [{"b": [{"w": np.arange(6.0).reshape(2, 3) + at + 10 * outer} for at in range(4)]} for outer in range(3)]
    tree = pt.stacks.stack(pt.Tree({"blocks": layers, "outer": nested}), "blocks")
    for path in ("outer/0/b", "outer/1/b", "outer/2/b", "outer"):
        tree = pt.stacks.stack(tree, path)
    pt.save(file, tree)
    with pt.open(file) as opened:
        for index in ((slice(None), slice(8)), (-1, slice(None, None, -1)), slice(2, 4), (..., 0), None):
            before = opened.bytes_read
            np.testing.assert_array_equal(opened["blocks/2/w"][index], layers[2]["w"][index])
            if index == (slice(None), slice(8)):
                assert opened.bytes_read - before == 64 * 8 * 4
        np.testing.assert_array_equal(opened["outer/:/b/2/w"][1:, ..., -1], np.stack([n["b"][2]["w"] for n in nested])[1:, ..., -1])  # fmt: skip
        np.testing.assert_array_equal(opened["outer/1/b/:/w"][::-2, 1], np.stack([b["w"] for b in nested[1]["b"]])[::-2, 1])  # fmt: skip
        np.testing.assert_array_equal(opened["outer/1/b/3/w"][:, 1:], nested[1]["b"][3]["w"][:, 1:])


def test_a_tie_through_transposes_is_sliced_by_the_bytes_of_its_source(file):
    table = jnp.arange(2048 * 1024.0).reshape(2048, 1024)
    cube = jnp.arange(4 * 5 * 6.0).reshape(4, 5, 6)
    tree = pt.tie(
        {"table": table, "head": table.T, "cube": cube, "turned": cube.transpose(2, 0, 1), "same": table},
        {"head": pt.transposed("table"), "turned": pt.transposed("cube", (2, 0, 1)), "same": "table"},
    )
    pt.save(file, tree)
    with pt.open(file) as opened:

        def read(name, index):
            before = opened.bytes_read
            got = opened[name][index]
            assert isinstance(got, jax.Array)
            np.testing.assert_array_equal(got, np.asarray(tree[name])[index])
            return opened.bytes_read - before

        assert read("head", (slice(None), 5)) == 1024 * 4  # a column of the head is a row of the table
        assert read("head", (slice(None), slice(-3, None))) == 3 * 1024 * 4
        assert read("same", slice(7, 9)) == 2 * 1024 * 4
        for index in ((1, slice(None, None, -1), slice(2)), (..., -2), (None, slice(4, 1, -2)), ([0, 5], slice(1, 3))):
            read("turned", index)
    layers = [{"w": jnp.arange(6.0).reshape(2, 3) + at, "v": jnp.arange(6.0).reshape(2, 3).T + at} for at in range(3)]
    stacked = pt.stacks.stack(pt.Tree({"b": layers}), "b")
    pt.save(file, pt.tie(stacked, {"b/:/v": pt.transposed("b/:/w")}))
    with pt.open(file) as opened:
        np.testing.assert_array_equal(opened["b/:/v"][1:, :, 1], stacked["b/:/v"][1:, :, 1])
        np.testing.assert_array_equal(opened["b/2/v"][::-1, 1:], layers[2]["v"][::-1, 1:])


def test_a_tie_by_a_function_of_ones_own_is_read_whole(file):
    doubled = pt.sharing.register_transform("sliced_doubled", lambda x: 2 * x, lambda x: x / 2)
    pt.save(file, pt.Tree({"a": jnp.arange(6.0), "b": doubled("a")}))
    with pt.open(file) as opened:
        assert opened["b"][1:3].tolist() == [2.0, 4.0]


def test_keys_and_numbers_and_files_of_others(file, tmp_path):
    keys = jax.random.split(jax.random.key(0), 5)
    pt.save(file, pt.tie({"k": keys, "n": 3, "same": keys}, {"same": "k"}))
    with pt.open(file) as opened:
        np.testing.assert_array_equal(opened["k"][1:3, ::-1], jax.random.key_data(keys)[1:3, ::-1])
        assert (opened["same"][2] == keys[2]).all()
        assert opened["n"][...] == 3
        assert opened["n"][()] == 3
    foreign = tmp_path / "other.safetensors"  # a header without ptree's alignment: leaves begin at any byte
    array = np.arange(15.0).reshape(3, 5)
    save_file({"x": np.ones(1, "uint8"), "a.b": array}, foreign)
    with pt.open(foreign) as opened:
        np.testing.assert_array_equal(opened["a.b"][:, 1::2], array[:, 1::2])


def test_all_of_a_leaf_is_compared_with_its_checksum_and_a_part_is_not(file):
    pt.save(file, {"a": np.arange(64.0).reshape(8, 8)})
    with pt.open(file) as opened:
        at = opened.leaves["a"].start
    with open(file, "r+b") as raw:
        raw.seek(at)
        raw.write(b"\x01")
    with pt.open(file) as opened:
        for index in (..., (), slice(None), (slice(None), slice(None, None, -1)), (..., None)):
            with pytest.raises(pt.FileError, match=r"checksums say: \['a'\]"):
                opened["a"][index]
        assert opened["a"][1:].shape == (7, 8)


# ----------------------------------------------------------------------------- shards along inner axes


def mesh_of_8(*shape, names):
    return jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(shape))


@pytest.mark.parametrize("spec", [(None, "d"), ("e", "d"), (None, "d", "e"), (None, ("d", "e")), (None, None, "d")])
@pytest.mark.parametrize("shape", [(64, 8, 4096), (64, 64, 16), (8, 8, 8)])
def test_shards_along_inner_axes_read_each_byte_once(file, spec, shape):
    array = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    pt.save(file, {"a": jnp.asarray(array)})
    sharding = NamedSharding(mesh_of_8(4, 2, names=("d", "e")), PartitionSpec(*spec))
    with pt.open(file) as opened:
        before = opened.bytes_read
        back = opened.read([opened.leaves["a"]], {"a": sharding}).values["a"]
        assert opened.bytes_read - before == array.nbytes  # narrow columns of eight devices are read together
    assert back.sharding == sharding
    assert equal(back, jnp.asarray(array))


def test_devices_of_one_process_that_hold_a_part_read_that_part(file):
    array = np.arange(512 * 4096.0, dtype="float32").reshape(512, 4096)
    pt.save(file, {"a": jnp.asarray(array)})
    devices = np.array(jax.devices())
    # two of eight columns, as the devices of one of four processes would hold them
    sharding = NamedSharding(jax.sharding.Mesh(devices, "d"), PartitionSpec(None, "d"))
    index = sharding.devices_indices_map(array.shape)
    with pt.open(file) as opened:
        before = opened.bytes_read
        for device in devices[2:4]:
            np.testing.assert_array_equal(opened["a"][index[device]], array[index[device]])
        assert opened.bytes_read - before == array.nbytes // 4


@pytest.mark.parametrize("dtype", [*DTYPES.values(), *LACKING], ids=str)
def test_columns_and_strided_slices_of_every_dtype_are_numpys(file, dtype):
    numbers = np.arange(24 * 40) % 2 if dtype.itemsize == 1 else np.arange(24 * 40)
    array = (numbers.reshape(24, 40) + 1).astype(dtype)
    array[::5] = array.dtype.type(1)
    pt.save(file, {"w": array})
    with pt.open(file) as opened:
        for index in (np.s_[:, 1:3], np.s_[::2, ::-3], np.s_[3:20:4, 7], np.s_[..., ::7], np.s_[5, 2:9]):
            part = np.asarray(opened["w"][index])
            assert part.dtype == dtype
            assert part.tobytes() == np.ascontiguousarray(array[index]).tobytes()
    narrow = jax.dtypes.canonicalize_dtype(dtype) != dtype
    if narrow or dtype.name.startswith("float6"):  # JAX has no arrays of these
        return
    mesh = jax.make_mesh((4, 2), ("data", "model"))
    for spec in (PartitionSpec(None, "data"), PartitionSpec("model", "data")):
        placed = pt.load(file, shardings={"w": spec}, mesh=mesh)["w"]
        assert placed.dtype == dtype
        assert np.asarray(placed).tobytes() == array.tobytes()
