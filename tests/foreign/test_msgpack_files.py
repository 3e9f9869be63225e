"""Flax's MessagePack files, against flax.serialization."""

import ml_dtypes
import msgpack
import numpy as np
import pytest
from flax import serialization
from hostile_files import changed, check_damaged, cut

from ptree import FileError
from ptree._foreign import flax_msgpack, open_foreign
from ptree._foreign.flax_msgpack import open_msgpack, write_msgpack

KINDS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4,
)  # fmt: skip


def saved(tmp_path, tree):
    file = tmp_path / "a.msgpack"
    file.write_bytes(serialization.to_bytes(tree))
    return file


def flattened(tree, before=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{before}{key}/")
        else:
            yield before + key, value


@pytest.fixture
def tree():
    kinds = {np.dtype(kind).name: np.arange(6).reshape(2, 3).astype(kind) for kind in KINDS}
    return {
        "params": {"Dense_0": {"kernel": np.ones((3, 4), "float32"), "bias": np.zeros(4, ml_dtypes.bfloat16)}},
        "kinds": kinds,
        "empty": np.zeros((0, 3)),
        "scalar": np.array(2.5),
        "list": [np.arange(2), {"x": np.arange(3)}],
    }


def test_every_dtype_is_read(tmp_path, tree):
    expected = dict(flattened(serialization.to_state_dict(tree)))
    with open_foreign(saved(tmp_path, tree)) as file:
        assert file.format == "Flax msgpack"
        assert list(file.arrays) == list(expected)
        for name, array in expected.items():
            found = file.read(name)
            np.testing.assert_array_equal(found, array)
            assert (
                (found.dtype, found.shape)
                == (array.dtype, array.shape)
                == (file.arrays[name].dtype, file.arrays[name].shape)
            )


def test_numbers_of_python_and_numpy_texts_and_nothing(tmp_path):
    tree = {"step": 5, "minus": -3, "rate": 1.5, "flag": True, "none": None, "text": "words", "complex": 1 + 2j}
    tree |= {"numpy": np.float32(3), "large": 2**63 + 1, "empty": {}}
    with open_msgpack(str(saved(tmp_path, tree))) as file:
        values = {name: file.read(name) for name in file.arrays}
        assert file.metadata == {"text": "words"}
    assert {name: value.item() for name, value in values.items()} == {
        name: tree[name] for name in tree if name not in ("none", "text", "empty")
    }
    assert values["numpy"].dtype == np.float32
    assert values["large"].dtype == np.uint64


def test_arrays_that_flax_splits_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    table = np.arange(300.0).reshape(10, 30)
    with open_msgpack(str(saved(tmp_path, {"a": {"w": table}, "b": np.ones(3)}))) as file:
        assert list(file.arrays) == ["a/w", "b"]
        np.testing.assert_array_equal(file.read("a/w"), table)
        for index in (np.s_[3:7, 2], np.s_[9], np.s_[..., 5], np.s_[4, 29]):
            np.testing.assert_array_equal(file.part("a/w", index), table[index])


@pytest.mark.parametrize("most", [1 << 30, 16])
def test_flax_reads_what_is_written(tmp_path, tree, monkeypatch, most):
    monkeypatch.setattr(flax_msgpack, "_MOST_CHUNK", most)
    arrays = dict(flattened(serialization.to_state_dict(tree)))
    write_msgpack(tmp_path / "b.msgpack", arrays)
    restored = serialization.from_bytes(tree, (tmp_path / "b.msgpack").read_bytes())
    found = dict(flattened(serialization.to_state_dict(restored)))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_an_array_at_the_name_of_a_dict_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"both an array and others below it: \['a', 'a/b'\]"):
        write_msgpack(tmp_path / "a.msgpack", {"a": np.ones(1), "a/b": np.ones(1), "a/b/c": np.ones(1)})


def test_names_that_clash_when_they_are_joined_are_refused(tmp_path):
    file = saved(tmp_path, {"a": {"b": np.ones(1)}, "a/b": np.ones(1)})
    with pytest.raises(FileError, match="several arrays have the same name, once their keys are joined by '/'"):
        open_msgpack(str(file))


def test_other_messages_are_refused(tmp_path):
    file = tmp_path / "a.msgpack"
    for content, reason in (
        (msgpack.packb([1, 2]), ""),
        (msgpack.packb(5), "a single value"),
        (msgpack.packb({"a": 1}) + b"\0", "1 bytes follow its end"),
        (b"\x81\xa1a" * 500, "nested more than 256 levels deep"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "would end at"),
    ):
        file.write_bytes(content)
        if not reason:
            with open_msgpack(str(file)) as opened:
                assert [opened.read(name).item() for name in ("0", "1")] == [1, 2]
            continue
        with pytest.raises(FileError, match=reason):
            open_msgpack(str(file))


def test_arrays_without_numbers_are_named(tmp_path):
    file = tmp_path / "a.msgpack"
    odd = msgpack.packb(([2], "datetime64", b"0" * 16))
    file.write_bytes(
        msgpack.packb({"date": msgpack.ExtType(1, odd), "other": msgpack.ExtType(9, b"x"), "raw": b"xyz", "n": 1})
    )
    with open_msgpack(str(file)) as opened:
        assert {name: array.problem for name, array in opened.arrays.items()} == {
            "date": "has the dtype 'datetime64', which is not known",
            "other": "is an extension of MessagePack with the code 9",
            "raw": "holds bytes and no numbers",
            "n": "",
        }


def test_damaged_files(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 16)
    tree = {
        "p": {"w": np.arange(6.0).reshape(2, 3), "b": np.ones(2, ml_dtypes.bfloat16)},
        "n": 5,
        "c": 1j,
        "s": np.int8(3),
    }
    data = saved(tmp_path, tree).read_bytes()
    refused, count = check_damaged(open_msgpack, tmp_path / "b", cut(data))
    assert refused == count == len(data)
    refused, count = check_damaged(open_msgpack, tmp_path / "b", changed(data, 300))
    assert 0 < refused < count
