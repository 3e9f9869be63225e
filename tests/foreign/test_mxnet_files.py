"""MXNet's .params, against files that MXNet 1.9.1 wrote."""

import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hostile_files import changed, check_damaged, cut

from ptree import FileError
from ptree._foreign import open_foreign
from ptree._foreign.mxnet_params import open_mxnet, write_mxnet

SAMPLES = Path(__file__).parent / "samples"
OUTPUTS = np.load(SAMPLES / "mxnet_outputs.npz")


def arrays_of(path):
    with open_foreign(path) as file:
        assert file.format == "MXNet params"
        return {name: file.read(name) for name in file.arrays}


def dense(arrays, name, x):
    return x @ arrays[f"{name}weight"].T + arrays[f"{name}bias"]


def relu(x):
    return np.maximum(x, 0)


def test_the_networks_of_the_chapter_have_gluons_outputs():
    x = OUTPUTS["inputs"]
    mlp = arrays_of(SAMPLES / "mxnet_mlp.params")
    assert {name: array.shape for name, array in mlp.items()} == {
        "0.weight": (8, 4), "0.bias": (8,), "1.weight": (1, 8), "1.bias": (1,),
    }  # fmt: skip
    np.testing.assert_allclose(dense(mlp, "1.", relu(dense(mlp, "0.", x))), OUTPUTS["mlp"], rtol=1e-5)

    shared = arrays_of(SAMPLES / "mxnet_shared_mlp.params")
    np.testing.assert_array_equal(shared["1.weight"], shared["2.weight"])
    for layer in ("0.", "1.", "2."):
        x = relu(dense(shared, layer, x))
    np.testing.assert_allclose(dense(shared, "3.", x), OUTPUTS["shared_mlp"], rtol=1e-5)


def test_an_exported_network_keeps_its_prefixes():
    arrays = arrays_of(SAMPLES / "mxnet_exported-0000.params")
    first, last = sorted({name.removesuffix("weight") for name in arrays if name.endswith("weight")})
    x = relu(dense({name.removeprefix("arg:"): array for name, array in arrays.items()}, first[4:], OUTPUTS["inputs"]))
    norm = {name.rpartition("_")[2]: array for name, array in arrays.items() if "batchnorm" in name}
    assert [name[:4] for name in arrays if "running" in name] == ["aux:", "aux:"]
    x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["gamma"] + norm["beta"]
    y = x @ arrays[f"{last}weight"].T + arrays[f"{last}bias"]
    np.testing.assert_allclose(y, OUTPUTS["exported"], rtol=1e-4)


def test_every_dtype_of_mxnet():
    arrays = arrays_of(SAMPLES / "mxnet_dtypes.params")
    assert sorted(arrays) == ["bfloat16", "float16", "float32", "float64", "int32", "int64", "int8", "uint8"]
    for name, array in arrays.items():
        assert array.dtype.name == name
        np.testing.assert_array_equal(array.astype("float32"), np.arange(6).reshape(2, 3))


def test_scalars_and_empty_arrays_of_numpys_semantics():
    arrays = arrays_of(SAMPLES / "mxnet_numpy.params")
    assert arrays["scalar"].shape == ()
    assert arrays["scalar"] == 1.5
    assert arrays["empty"].shape == (0, 3)
    assert arrays["bool"].tolist() == [True, False]


def test_a_list_is_named_by_its_places():
    arrays = arrays_of(SAMPLES / "mxnet_list.params")
    assert {name: array.tolist() for name, array in arrays.items()} == {"0": [1, 2], "1": [[3]]}


@pytest.mark.parametrize("version", [0, 1])
def test_the_older_layouts(version):
    np.testing.assert_array_equal(arrays_of(SAMPLES / f"mxnet_v{version}.params")["w"], np.arange(6).reshape(2, 3))


def test_sparse_arrays_are_refused_by_name_and_the_others_read():
    with open_mxnet(str(SAMPLES / "mxnet_sparse.params")) as file:
        assert {name: array.problem.partition(":")[0] for name, array in file.arrays.items()} == {
            "before": "",
            "rows": "is a sparse array (row_sparse)",
            "csr": "is a sparse array (csr)",
            "no rows": "is a sparse array (row_sparse)",
            "after": "",
        }
        assert file.arrays["rows"].shape == (4, 3)
        assert [file.read("before").tolist(), file.read("after").tolist()] == [[1], [2]]
        with pytest.raises(
            FileError, match=r"cannot read 'csr' in .*: it is a sparse array \(csr\): save it as a dense"
        ):
            file.read("csr")


def test_what_is_written_is_mxnets_own_bytes(tmp_path):
    for name in ("mlp", "shared_mlp", "exported-0000", "dtypes", "numpy"):
        original = SAMPLES / f"mxnet_{name}.params"
        write_mxnet(tmp_path / "a.params", arrays_of(original))
        assert (tmp_path / "a.params").read_bytes() == original.read_bytes(), name


def test_views_and_other_byte_orders_are_written(tmp_path):
    arrays = {"t": np.arange(6.0).reshape(2, 3).T, "big": np.arange(3, dtype=">i4"), "step": np.arange(6.0)[::2]}
    write_mxnet(tmp_path / "a.params", arrays)
    for name, array in arrays_of(tmp_path / "a.params").items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype.isnative


def test_a_part_is_read_alone(tmp_path):
    table = np.arange(60.0).reshape(3, 4, 5)
    write_mxnet(tmp_path / "a.params", {"w": table})
    with open_mxnet(str(tmp_path / "a.params")) as file:
        for index in (np.s_[1], np.s_[1:, 2], np.s_[..., -1], np.s_[::-2, 1:3], np.s_[2, 3, 4]):
            np.testing.assert_array_equal(file.part("w", index), table[index])


def test_dtypes_that_mxnet_lacks_are_refused_together_and_the_old_file_stays(tmp_path):
    file = tmp_path / "a.params"
    write_mxnet(file, {"w": np.ones(2)})
    before = file.read_bytes()
    with pytest.raises(FileError) as raised:
        write_mxnet(file, {"a": np.ones(2, "complex64"), "b": np.ones(2), "c": np.ones(2, ml_dtypes.float8_e5m2)})
    assert str(raised.value) == "MXNet has no such dtypes: ['a: c64', 'c: f8_e5m2']; cast them first"
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.params"]


def test_two_arrays_of_one_name_are_refused(tmp_path):
    data = (SAMPLES / "mxnet_mlp.params").read_bytes().replace(b"1.bias", b"0.bias")
    (tmp_path / "a.params").write_bytes(data)
    with pytest.raises(FileError, match=r"several arrays have the same name: \['0.bias'\]"):
        open_mxnet(str(tmp_path / "a.params"))


def test_counts_and_shapes_that_no_file_has_are_refused_at_once(tmp_path):
    file = tmp_path / "a.params"
    entry = struct.pack("<Iii2q3i", 0xF993FAC9, 0, 2, 1 << 40, 1 << 40, 1, 0, 0)
    for data in (
        struct.pack("<3Q", 0x112, 0, 1 << 60),
        struct.pack("<3Q", 0x112, 0, 1) + entry,
        struct.pack("<3QI", 0x112, 0, 1, 0xFFFFFFFF),
    ):
        file.write_bytes(data)
        with pytest.raises(FileError, match=r"cannot read '.*a.params'"):
            open_mxnet(str(file))


@pytest.mark.parametrize("name", ["sparse", "numpy", "v0", "v1"])
def test_damaged_files(name, tmp_path):
    data = (SAMPLES / f"mxnet_{name}.params").read_bytes()
    refused, count = check_damaged(open_mxnet, tmp_path / "a.params", cut(data))
    assert refused == count == len(data)
    refused, count = check_damaged(open_mxnet, tmp_path / "a.params", changed(data, 150))
    assert 0 < refused < count
