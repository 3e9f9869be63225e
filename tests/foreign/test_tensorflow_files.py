"""TensorFlow's checkpoints, against files that TensorFlow 2.21 wrote; what is written is compared with those byte for byte."""

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hostile_files import changed, check_damaged, cut, read_all

import ptree as pt
from ptree import FileError, convert
from ptree._foreign import open_foreign
from ptree._foreign.crc32c import crc32c
from ptree._foreign.sorted_table import table_bytes, table_entries
from ptree._foreign.tensorflow_checkpoint import open_tensorflow, write_tensorflow

SAMPLES = Path(__file__).parent / "samples"
OUTPUTS = np.load(SAMPLES / "tensorflow_outputs.npz")
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def arrays_of(path):
    with open_foreign(path) as file:
        assert file.format == "TensorFlow checkpoint"
        return {name: file.read(name) for name, array in file.arrays.items() if not array.problem}


@pytest.mark.parametrize("name", ["tensorflow_mlp", "tensorflow_weights.index", "tensorflow_saved_model"])
def test_the_network_of_the_chapter_has_tensorflows_outputs(name):
    arrays = arrays_of(SAMPLES / name)
    layers = "model/layer_with_weights" if name == "tensorflow_mlp" else "layer_with_weights"
    hidden = np.maximum(OUTPUTS["inputs"] @ arrays[f"{layers}-0/kernel"] + arrays[f"{layers}-0/bias"], 0)
    y = hidden @ arrays[f"{layers}-1/kernel"] + arrays[f"{layers}-1/bias"]
    np.testing.assert_allclose(y, OUTPUTS["tensorflow_mlp"], rtol=1e-5)


def test_every_dtype():
    arrays = arrays_of(SAMPLES / "tensorflow_dtypes")
    assert arrays.pop("scalar") == np.float32(1.5)
    assert arrays.pop("empty").shape == (0, 3)
    assert arrays.pop("bool").tolist() == [True, False]
    assert arrays.pop("complex64").tolist() == arrays.pop("complex128").tolist() == [[1 + 2j, -3j]]
    assert len(arrays) == 12
    for name, array in arrays.items():
        assert array.dtype.name == name
        np.testing.assert_array_equal(array.astype("float64"), np.arange(6).reshape(2, 3))
    with open_tensorflow(str(SAMPLES / "tensorflow_dtypes")) as file:
        assert file.arrays["text"].problem == "holds text"
        np.testing.assert_array_equal(file.part("float64", np.s_[1, ::2]), [3, 5])


@pytest.mark.parametrize(
    "given", ["tensorflow_shards", "tensorflow_shards.index", "tensorflow_shards.data-00001-of-00002"]
)
def test_several_shards(given):
    arrays = arrays_of(SAMPLES / given)
    assert {name: array[0, 0] for name, array in arrays.items()} == {"a": 1, "c": 2, "shared/b": 2}


def test_a_tensor_in_slices_is_named():
    with open_tensorflow(str(SAMPLES / "tensorflow_slices")) as file:
        assert list(file.arrays) == ["split", "whole"]
        assert file.arrays["split"].shape == (4, 2)
        assert file.read("whole").tolist() == [1, 1, 1]
        with pytest.raises(FileError, match=r"it is stored in slices \(a partitioned variable\)"):
            file.read("split")


def test_the_latest_checkpoint_of_a_folder_and_the_only_one(tmp_path):
    for name in ("ckpt-1", "ckpt-2"):
        write_tensorflow(tmp_path / name, {"w": np.full(1, int(name[-1]))})
    with pytest.raises(FileError, match="of no format that ptree reads"):
        open_foreign(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-1"\n')
    assert arrays_of(tmp_path)["w"] == 2
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "ckpt-2.index").unlink()
    assert arrays_of(tmp_path)["w"] == 1


def test_a_missing_shard_is_named(tmp_path):
    shutil.copy(SAMPLES / "tensorflow_shards.index", tmp_path)
    shutil.copy(SAMPLES / "tensorflow_shards.data-00000-of-00002", tmp_path)
    with pytest.raises(FileError, match=r"of its shards \['.*tensorflow_shards\.data-00001-of-00002'\] are not there"):
        open_tensorflow(str(tmp_path / "tensorflow_shards"))


def table_of(path):
    return dict(table_entries(path.read_bytes()))


def test_what_is_written_is_what_tensorflow_writes(tmp_path):
    names = ["bfloat16", "bool", "complex128", "empty", "float16", "float32", "int8", "scalar", "uint64"]
    arrays = arrays_of(SAMPLES / "tensorflow_dtypes")
    write_tensorflow(tmp_path / "a", {name: arrays[name] for name in names})
    ours, theirs = table_of(tmp_path / "a.index"), table_of(SAMPLES / "tensorflow_dtypes.index")
    assert ours[b""] == theirs[b""]
    for name in names:
        key = f"{name}{SUFFIX}".encode()
        # offsets differ, as there are fewer arrays; all else is the same, the checksum too
        assert without_offset(ours[key]) == without_offset(theirs[key]), name
    found = arrays_of(tmp_path / "a")
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], arrays[name])


def without_offset(message):
    from ptree._foreign.protobuf_fields import fields

    return [field for field in fields(message) if field[0] != 4]


def test_many_names_of_many_dtypes(tmp_path):
    arrays = {f"model/layer.{at}/{name}": np.full((2, at % 3), at, "float32") for at in range(700) for name in "ab"}
    arrays |= {"f8": np.ones(3, ml_dtypes.float8_e4m3fn), "big": np.arange(3, dtype=">i4"), "t": np.ones((2, 3)).T}
    write_tensorflow(tmp_path / "a.index", arrays)
    found = arrays_of(tmp_path / "a")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")


def test_names_that_clash_without_their_suffix_are_kept_whole(tmp_path):
    write_tensorflow(tmp_path / "a", {"w": np.ones(1)})
    entries = table_of(tmp_path / "a.index")
    entries[b"w"] = entries[f"w{SUFFIX}".encode()]
    (tmp_path / "a.index").write_bytes(table_bytes(entries))
    assert sorted(arrays_of(tmp_path / "a")) == ["w", f"w{SUFFIX}"]


def test_a_big_endian_checkpoint(tmp_path):
    values = np.arange(5, dtype=">f4")
    write_tensorflow(tmp_path / "a", {"w": values.view("u1")})
    entries = table_of(tmp_path / "a.index")
    key = f"w{SUFFIX}".encode()
    # dtype float32, one axis of 5
    entries[key] = entries[key].replace(b"\x08\x04\x12\x04\x12\x02\x08\x14", b"\x08\x01\x12\x04\x12\x02\x08\x05")
    entries[b""] = entries[b""][:2] + b"\x10\x01" + entries[b""][2:]
    (tmp_path / "a.index").write_bytes(table_bytes(entries))
    np.testing.assert_array_equal(arrays_of(tmp_path / "a")["w"], values)


def test_a_compressed_index_is_refused_by_name(tmp_path):
    data = bytearray(table_bytes({b"": b"\x08\x01"}))
    end = data.index(b"\0\0\0\0\x01\0\0\0") + 8  # of the first block
    data[end] = 1
    from ptree._foreign.crc32c import masked_crc32c

    data[end + 1 : end + 5] = masked_crc32c(bytes(data[: end + 1])).to_bytes(4, "little")
    (tmp_path / "a.index").write_bytes(data)
    with pytest.raises(FileError, match=r"it is compressed \(snappy\), which is not read"):
        open_tensorflow(str(tmp_path / "a"))


def test_the_checksum_of_messages_of_all_lengths():
    def bit_by_bit(data):
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF

    # the values of RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    numbers = np.random.default_rng(0)
    for length in [*range(10), 255, 511, 512, 513, 777, 65_535, 65_541, 98_311]:
        message = numbers.integers(0, 256, length, np.uint8)
        assert crc32c(message) == bit_by_bit(message.tolist()), length


@pytest.mark.parametrize("name", ["tensorflow_shards", "tensorflow_dtypes"])
def test_damaged_files_are_refused_or_have_their_values(name, tmp_path):
    for file in SAMPLES.glob(f"{name}.*"):
        shutil.copy(file, tmp_path)
    right = read_all(open_tensorflow, SAMPLES / name)
    index, data = tmp_path / f"{name}.index", next(tmp_path.glob("*.data-00000*"))
    whole = index.read_bytes()
    refused, count = check_damaged(open_tensorflow, index, cut(whole, 5), right)
    assert refused == count
    refused, _ = check_damaged(open_tensorflow, index, changed(whole, 100), right)
    assert refused > 0
    index.write_bytes(whole)

    def open_by_index(_):
        return open_tensorflow(str(index))

    check_damaged(open_by_index, data, [*cut(data.read_bytes(), 29), *changed(data.read_bytes(), 40)], right)


@pytest.mark.parametrize("path", ["tensorflow_mlp", "tensorflow_mlp.index", "tensorflow_saved_model"])
def test_a_checkpoint_of_several_files_is_opened_by_each_of_its_names(path):
    place = SAMPLES / path
    names = sorted(convert.read(place))
    with pt.open(place) as file:
        assert sorted(file) == names
    assert len(pt.summary(place).rows) == len(names)
    with pytest.raises(pt.FileError, match=r"_iterations.* is i64"):  # which JAX would cut to 32 bits
        pt.load(place)
