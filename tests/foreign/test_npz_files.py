"""NumPy's archives, against NumPy."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from hostile_files import changed, check_damaged, cut, read_all

from ptree import FileError
from ptree._foreign import open_foreign
from ptree._foreign.npz_file import NpzFile, write_npz

KINDS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
)  # fmt: skip


@pytest.fixture
def arrays():
    found = {f"kinds/{kind}": np.arange(6).reshape(2, 3).astype(kind) for kind in KINDS}
    table = np.random.default_rng(0).normal(size=(4, 5, 6))
    found |= {"table": table, "fortran": np.asfortranarray(table), "scalar": np.array(2.5), "empty": np.zeros((0, 3))}
    return found | {"big": np.arange(3, dtype=">i4")}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_parts_and_chunks_are_numpys(save, arrays, tmp_path):
    save(tmp_path / "a.npz", **arrays)
    with open_foreign(tmp_path / "a.npz") as file:
        assert isinstance(file, NpzFile)
        assert list(file.arrays) == list(arrays)
        for name, array in arrays.items():
            found = file.read(name)
            np.testing.assert_array_equal(found, array)
            assert found.dtype == array.dtype.newbyteorder("=") == file.arrays[name].dtype
            chunks = list(file.chunks(name, 16))
            np.testing.assert_array_equal(np.concatenate([np.zeros(0, found.dtype), *chunks]), array.reshape(-1))
        for name in ("table", "fortran"):
            for index in (np.s_[1], np.s_[1:3, ::-1], np.s_[..., 2], np.s_[-1, 2, 3], np.s_[3:3]):
                np.testing.assert_array_equal(file.part(name, index), arrays[name][index])


def test_numpy_reads_what_is_written(arrays, tmp_path):
    write_npz(tmp_path / "a.npz", arrays)
    with np.load(tmp_path / "a.npz") as found:
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype


def test_dtypes_whose_names_numpy_does_not_write_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"NumPy's npz has no such dtypes: \['w: bf16'\]; cast them first"):
        write_npz(tmp_path / "a.npz", {"w": np.ones(2, ml_dtypes.bfloat16), "b": np.ones(2)})
    assert not list(tmp_path.iterdir())


def test_objects_are_described_and_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", objects=np.array([1, "x"], object), w=np.ones(2))
    with open_foreign(tmp_path / "a.npz") as file:
        assert file.arrays["objects"].problem == "holds Python objects, which are not read"
        assert file.read("w").tolist() == [1, 1]
        with pytest.raises(FileError, match="it holds Python objects, which are not read"):
            file.read("objects")


def test_a_header_that_states_more_than_is_there_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("w.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"shape": (1 << 40,), "fortran_order": False, "descr": "<f4"})
    with open_foreign(tmp_path / "a.npz") as file:
        assert file.arrays["w"].problem.startswith("is damaged: it is cut short: 4,398,046,511,104 bytes")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_are_refused_or_have_their_values(save, tmp_path):
    save(tmp_path / "a.npz", w=np.arange(6.0), f=np.asfortranarray(np.arange(6).reshape(2, 3)))
    data = (tmp_path / "a.npz").read_bytes()
    right = read_all(NpzFile, tmp_path / "a.npz")
    refused, count = check_damaged(NpzFile, tmp_path / "b.npz", cut(data), right)
    assert refused == count
    refused, count = check_damaged(NpzFile, tmp_path / "b.npz", changed(data, 200), right)
    assert 0 < refused < count


def test_a_changed_number_before_more_bytes_than_the_array_has_is_found(tmp_path):
    array = np.arange(300.0)
    np.save(tmp_path / "w.npy", array)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("w.npy", (tmp_path / "w.npy").read_bytes() + bytes(3 << 20))
    with open_foreign(tmp_path / "a.npz") as file:
        np.testing.assert_array_equal(file.read("w"), array)
        np.testing.assert_array_equal(np.concatenate(list(file.chunks("w", 1000))), array)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(array.tobytes()) + 100] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with open_foreign(tmp_path / "a.npz") as file:
        for read in (lambda: file.read("w"), lambda: list(file.chunks("w", 1000))):
            with pytest.raises(FileError, match=r"cannot read 'w' in .*: Bad CRC-32 for file 'w.npy'") as raised:
                read()
            assert raised.value.damaged == ["w"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_chunks_of_any_damaged_archive_raise_file_errors(save, tmp_path):
    save(tmp_path / "a.npz", w=np.arange(6.0), empty=np.zeros((0, 3)))
    data = (tmp_path / "a.npz").read_bytes()
    right = {"w": np.arange(6.0), "empty": np.zeros(0)}
    refused = 0
    for version in changed(data, 300):
        (tmp_path / "b.npz").write_bytes(version)
        try:
            with NpzFile(str(tmp_path / "b.npz")) as file:
                for name in right.keys() & file.arrays.keys():
                    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *file.chunks(name, 16)]), right[name])
        except FileError:
            refused += 1
    assert refused


@pytest.mark.parametrize("names", [("a.npy", "a.npy"), ("a.npy", "a")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(names, tmp_path):
    np.save(tmp_path / "a.npy", np.ones(2))
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        for name in names:
            archive.write(tmp_path / "a.npy", name)
    with pytest.raises(FileError, match=r"several arrays have the same name: \['a'\]"):
        NpzFile(str(tmp_path / "m.npz"))
