"""GGUF files, against the package gguf of llama.cpp."""

import struct

import gguf
import ml_dtypes
import numpy as np
import pytest
from hostile_files import changed, check_damaged, cut

from ptree import FileError
from ptree._foreign import open_foreign
from ptree._foreign.gguf_file import open_gguf, write_gguf

WITHOUT = {"Q8_1", "Q8_K", "Q1_0"}
"""Kinds that the package gguf does not dequantise."""


def quantised(kind, table):
    """A table quantised, where the package can; else blocks of small random bytes."""
    try:
        return gguf.quants.quantize(table, kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (table.shape[0], table.shape[1] // block * size)
        return np.random.default_rng(1).integers(0, 60, shape, np.uint8)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A file with each kind of number that GGUF has, and what the package makes of them."""
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "tiny")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc"] * 5)
    writer.add_array("numbers", [1, 2, 3])
    writer.add_float32("epsilon", 0.5)
    writer.add_bool("flag", True)
    table = np.random.default_rng(0).normal(size=(3, 512)).astype("float32")
    expected = {}
    for kind in gguf.GGMLQuantizationType:
        if kind.name in ("I8", "I16", "I32", "I64", "F64"):
            expected[kind.name] = (
                np.arange(6).astype(kind.name.lower().replace("i", "int").replace("f", "float")).reshape(2, 3)
            )
            writer.add_tensor(kind.name, expected[kind.name])
            continue
        numbers = quantised(kind, table)
        writer.add_tensor(kind.name, np.asarray(numbers), raw_dtype=kind)
        expected[kind.name] = None if kind.name in WITHOUT else gguf.quants.dequantize(numbers, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, expected


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random bytes are not all numbers
def test_every_kind_of_number_is_read_as_the_package_reads_it(tables):
    path, expected = tables
    with open_foreign(path) as file:
        assert file.format == "GGUF"
        assert list(file.arrays) == list(expected)
        for name, table in expected.items():
            if table is None:
                with pytest.raises(
                    FileError, match=f"cannot read '{name}' in .*: the package gguf does not dequantise it"
                ):
                    file.read(name)
                continue
            found = file.read(name)
            assert (found.shape, found.dtype) == (file.arrays[name].shape, file.arrays[name].dtype)
            np.testing.assert_array_equal(found.astype(table.dtype), table)
            for index in (np.s_[1], np.s_[:2, 1:3], np.s_[1, 2], np.s_[..., ::-1]):
                np.testing.assert_array_equal(file.part(name, index).astype(table.dtype), table[index])


def test_metadata_is_text(tables):
    with open_gguf(str(tables[0])) as file:
        assert file.metadata == {
            "general.architecture": "llama", "general.name": "tiny", "tokenizer.ggml.tokens": "10 values",
            "numbers": "3 values", "epsilon": "0.5", "flag": "True",
        }  # fmt: skip


@pytest.fixture
def arrays():
    table = np.random.default_rng(0).normal(size=(2, 3, 4))
    return {
        "f32": table.astype("float32"),
        "f16": table[0].astype("float16"),
        "bf16": table[0, 0].astype(ml_dtypes.bfloat16),
        "f64": table,
        "i64": np.arange(3),
        "transposed": table[0].T,
        "big": np.arange(3, dtype=">i4"),
    }


def test_the_package_reads_what_is_written(arrays, tmp_path):
    write_gguf(tmp_path / "a.gguf", arrays, metadata={"general.name": "tiny"})
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert reader.get_field("general.name").contents() == "tiny"
    assert [tensor.name for tensor in reader.tensors] == list(arrays)
    for tensor in reader.tensors:
        array = arrays[tensor.name]
        assert tuple(reversed(tensor.shape.tolist())) == array.shape
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type) if tensor.name == "bf16" else tensor.data
        np.testing.assert_array_equal(found, array.astype(found.dtype))
    with open_gguf(str(tmp_path / "a.gguf")) as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.read(name), array)


def test_what_gguf_cannot_hold_is_refused(tmp_path):
    with pytest.raises(FileError, match=r"GGUF has no such dtypes: \['a: u8'\]"):
        write_gguf(tmp_path / "a.gguf", {"a": np.ones(1, "uint8")})
    with pytest.raises(FileError, match=r"names of at most 63 bytes, and at most 4 axes; got \['a', 'bbbb"):
        write_gguf(tmp_path / "a.gguf", {"a": np.ones((1,) * 5), "b" * 64: np.ones(1), "c": np.ones(1)})
    assert not list(tmp_path.iterdir())


def test_other_versions_are_refused(tmp_path):
    file = tmp_path / "a.gguf"
    for version, reason in (
        (1, "version 1 of GGUF, which is not read"),
        (3 << 24, "it is big-endian, which is not read"),
    ):
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, 0))
        with pytest.raises(FileError, match=reason):
            open_gguf(str(file))


def test_without_the_package_only_quantised_tensors_are_refused(tables, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with open_gguf(str(tables[0])) as file:
        assert file.read("F32").shape == (3, 512)
        with pytest.raises(FileError, match=r"need the package gguf: pip install 'ptree-jax\[gguf\]'"):
            file.read("Q4_0")


def test_damaged_files(arrays, tmp_path):
    small = {name: array.reshape(-1)[:2] for name, array in arrays.items()}
    write_gguf(tmp_path / "a.gguf", small)
    data = (tmp_path / "a.gguf").read_bytes()
    refused, count = check_damaged(open_gguf, tmp_path / "b", cut(data[:-24]))  # the last bytes are a filling
    assert refused == count
    refused, count = check_damaged(open_gguf, tmp_path / "b", changed(data, 200))
    assert 0 < refused < count


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_quantised_tensors(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor("w", gguf.quants.quantize(np.ones((2, 32), "float32"), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "a.gguf").read_bytes()
    check_damaged(open_gguf, tmp_path / "b", [*cut(data), *changed(data, 150)])
