"""Keras' files: .keras, .weights.h5 and Keras 2's h5, against Keras 3 and against files that TensorFlow wrote."""

import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
from hostile_files import check_damaged, cut
from keras import layers

from ptree import FileError
from ptree._foreign import open_foreign
from ptree._foreign.keras_files import open_h5_file, open_keras
from ptree._foreign.keras_writing import layers_in_doubt, update_keras, write_keras_h5, write_keras_weights

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # in Keras
SAMPLES = Path(__file__).parent / "samples"
OUTPUTS = np.load(SAMPLES / "tensorflow_outputs.npz")


def arrays_of(path):
    with open_foreign(path) as file:
        return {name: file.read(name) for name in file.arrays if not name.startswith("optimizer/")}


def network():
    """Layers of all kinds whose variables Keras stores in another way: inner layers, wrappers, models in models."""
    zeros = {"kernel_initializer": "zeros"}  # to draw weights that are replaced takes most of the time
    recurrent = {**zeros, "recurrent_initializer": "zeros"}
    inputs = keras.Input((4, 8))
    x = layers.MultiHeadAttention(2, 4, name="attention", **zeros)(inputs, inputs)
    x = layers.GroupQueryAttention(2, 4, 2, use_bias=False, name="grouped", **zeros)(x, x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm", **recurrent), name="both")(x)
    x = layers.TimeDistributed(layers.Dense(3, name="inner", **zeros), name="times")(x)
    x = layers.BatchNormalization(scale=False, name="norm")(x)
    x = layers.BatchNormalization(name="whole_norm")(x)
    x = layers.LayerNormalization(center=False, name="layer_norm")(x)
    x = layers.PReLU(name="prelu")(layers.Dropout(0.5, name="drop")(x))
    x = layers.Conv1D(3, 2, use_bias=False, name="conv", **zeros)(x)
    depthwise = {"depthwise_initializer": "zeros", "pointwise_initializer": "zeros"}
    x = layers.SeparableConv1D(4, 2, name="separable", **depthwise)(x)
    cells = [layers.GRUCell(3, name=name, **recurrent) for name in ("first", "second")]
    x = layers.RNN(layers.StackedRNNCells(cells, name="cells"), name="stack")(x)
    deep = keras.Sequential([layers.Dense(2, name="deepest", **zeros)], name="deep")
    outer = [layers.Dense(8, name="in_a", **zeros), deep, layers.Dense(8, name="in_b", **zeros)]
    x = keras.Sequential(outer, name="nested")(x)
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def model():
    model = network()
    numbers = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(numbers.normal(size=variable.shape))
    return model


@pytest.fixture
def new_values(model):
    numbers = np.random.default_rng(1)
    return {v.path: numbers.normal(size=v.shape).astype("float32") for v in model.weights}


def assert_has(model, arrays):
    for variable in model.weights:
        np.testing.assert_array_equal(np.asarray(variable.value), arrays[variable.path])


def save_legacy(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)


# ------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "name", ["keras_mlp.keras", "keras_shared_mlp.keras", "keras2_mlp.h5", "keras2_shared_mlp.h5", "keras2_model.h5"]
)
def test_the_networks_of_the_chapter_have_tensorflows_outputs(name):
    arrays = arrays_of(SAMPLES / name)
    x = OUTPUTS["inputs"]
    for layer in ["hidden", "shared", "shared"] if "shared" in name else ["hidden"]:
        x = np.maximum(x @ arrays[f"{layer}/kernel"] + arrays[f"{layer}/bias"], 0)
    y = x @ arrays["output/kernel"] + arrays["output/bias"]
    np.testing.assert_allclose(y, OUTPUTS[name.partition(".")[0]], rtol=1e-5)


def test_weights_alone_are_named_by_groups_and_those_of_the_archive_by_layers():
    groups = arrays_of(SAMPLES / "keras_shared_mlp.weights.h5")
    assert list(groups) == [f"layers/{layer}/vars/{at}" for layer in ("dense", "dense_1", "dense_2") for at in (0, 1)]
    named = arrays_of(SAMPLES / "keras_shared_mlp.keras")
    for one, other in zip(groups.values(), named.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_names_and_values_are_keras_own_for_layers_of_all_kinds(model, tmp_path):
    model.save(tmp_path / "a.keras")
    save_legacy(model, tmp_path / "a.h5")
    for file in ("a.keras", "a.h5"):
        arrays = arrays_of(tmp_path / file)
        assert arrays.keys() == {variable.path for variable in model.weights}, file
        assert_has(model, arrays)
    assert list(arrays_of(tmp_path / "a.keras")) == [variable.path for variable in model.weights]


def test_the_optimizer_comes_last_and_apart(tmp_path):
    small = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="d")])
    small.compile("adam", "mse")
    small.fit(np.ones((1, 2)), np.ones((1, 2)), verbose=0)
    small.save(tmp_path / "a.keras")
    save_legacy(small, tmp_path / "a.h5")
    for file in ("a.keras", "a.h5"):
        with open_foreign(tmp_path / file) as opened:
            names = list(opened.arrays)
        assert names[:2] == ["d/kernel", "d/bias"]
        assert len(names) > 2
        assert all(name.startswith("optimizer/") for name in names[2:])


def test_layers_of_unknown_classes_keep_numbers(tmp_path):
    @keras.saving.register_keras_serializable("of_this_test")
    class Dense(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(1,), name="scale")
            self.shift = self.add_weight(shape=(1,), name="shift")

        def call(self, x):
            return x * self.scale + self.shift

    keras.Sequential([keras.Input((2,)), Dense(name="mine"), layers.Dense(2, name="d")]).save(tmp_path / "a.keras")
    assert list(arrays_of(tmp_path / "a.keras")) == ["mine/vars/0", "mine/vars/1", "d/kernel", "d/bias"]


def test_bfloat16_both_ways(tmp_path):
    policy = keras.DTypePolicy("bfloat16")
    small = keras.Sequential([keras.Input((3,)), layers.Dense(2, dtype=policy, name="d")])
    small.save_weights(tmp_path / "a.weights.h5")
    arrays = arrays_of(tmp_path / "a.weights.h5")
    kernel = arrays["layers/dense/vars/0"]
    assert kernel.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(kernel, np.asarray(small.weights[0].value))
    doubled = {name: (array * 2).astype(array.dtype) for name, array in arrays.items()}
    write_keras_weights(tmp_path / "b.weights.h5", doubled)
    update_keras(tmp_path / "c.weights.h5", tmp_path / "a.weights.h5", doubled)
    for file in ("b.weights.h5", "c.weights.h5"):
        small.load_weights(tmp_path / file)
        np.testing.assert_array_equal(np.asarray(small.weights[0].value), kernel * 2)


def test_names_in_attributes_that_keras_splits(tmp_path):
    from keras.src.legacy.saving.legacy_h5_format import save_attributes_to_hdf5_group as save_attributes

    names = [f"layer_{at:04d}" + "x" * 2000 for at in range(40)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        save_attributes(file, "layer_names", [name.encode() for name in names])
        assert "layer_names" not in file.attrs
        for name in names:
            group = file.create_group(name)
            save_attributes(group, "weight_names", [f"{name}/kernel:0".encode()])
            group[f"{name}/kernel:0"] = np.ones(1)
    assert list(arrays_of(tmp_path / "a.h5")) == [f"{name}/kernel" for name in names]
    write_keras_h5(tmp_path / "b.h5", arrays_of(tmp_path / "a.h5"))
    assert list(arrays_of(tmp_path / "b.h5")) == [f"{name}/kernel" for name in names]


def test_any_other_hdf5_file_is_named_by_its_paths_and_links_outside_are_not_followed(tmp_path):
    table = np.arange(210.0).reshape(5, 6, 7)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/table"] = table
        file["number"], file["none"], file["text"] = 3.0, np.zeros((0, 3)), "words"
        file["complex"], file["big"] = np.ones(2, "complex64"), np.arange(3, dtype=">f4")
        file["outside"] = h5py.ExternalLink("/etc/other.h5", "/w")
        file.create_dataset("bomb", shape=(1 << 33,), dtype="f4", chunks=(1 << 20,), compression="gzip")
        file.create_dataset("away", shape=(3,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 12)])
    with open_foreign(tmp_path / "a.h5") as opened:
        assert opened.format == "HDF5"
        assert {name: array.problem for name, array in opened.arrays.items()} == {
            "group/table": "", "number": "", "none": "", "complex": "", "big": "",
            "text": "holds no numbers",
            "bomb": "would take 34,359,738,368 bytes, of which nearly nothing is in the file",
            "away": "lies in another file, which is not opened",
        }  # fmt: skip
        assert opened.read("big").dtype.isnative
        for index in (
            np.s_[1],
            np.s_[::-1],
            np.s_[1, 2:4],
            np.s_[..., 3],
            np.s_[4:1:-2, ::-1],
            np.s_[3:3],
            np.s_[None, 1],
            [1, 2],
        ):
            np.testing.assert_array_equal(opened.part("group/table", index), table[index])
        assert opened.part("none", np.s_[:, 1]).shape == (0,)


# ------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("file", ["a.keras", "a.weights.h5", "a.h5"])
def test_a_copy_with_new_values_is_loaded_by_keras(file, model, new_values, tmp_path):
    save = model.save_weights if file == "a.weights.h5" else model.save
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(tmp_path / file)
    values = new_values
    if file == "a.weights.h5":
        model.save(tmp_path / "named.keras")
        with open_keras(str(tmp_path / "named.keras")) as opened:
            places = opened.dataset_paths()
        values = {places[name].removeprefix("/"): array for name, array in new_values.items()}
    update_keras(tmp_path / f"b{file}", tmp_path / file, values)
    other = network()
    other.load_weights(tmp_path / f"b{file}")
    assert_has(other, new_values)
    update_keras(tmp_path / file, tmp_path / file, values)  # over the template itself
    other.load_weights(tmp_path / file)
    assert_has(other, new_values)


def test_a_whole_model_is_loaded_from_a_copy(tmp_path):
    update_keras(tmp_path / "a.keras", SAMPLES / "keras_mlp.keras", {"hidden/bias": np.zeros(8, "float32")})
    loaded = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(np.asarray(loaded.layers[0].bias.value), np.zeros(8))
    kernel = arrays_of(SAMPLES / "keras_mlp.keras")["hidden/kernel"]
    np.testing.assert_array_equal(np.asarray(loaded.layers[0].kernel.value), kernel)


def test_weights_of_keras_2_and_3_are_written_from_names_alone(model, new_values, tmp_path):
    # names in another order inside a layer are put right
    reordered = {}
    for layer in dict.fromkeys(name.split("/")[0] for name in new_values):
        if layer in ("attention", "grouped", "both", "stack", "nested"):
            names = [name for name in new_values if name.startswith(f"{layer}/")]
        else:
            names = sorted(name for name in new_values if name.startswith(f"{layer}/"))
        reordered |= {name: new_values[name] for name in names}
    write_keras_h5(tmp_path / "a.h5", reordered)
    other = network()
    other.load_weights(tmp_path / "a.h5")
    assert_has(other, new_values)

    model.save_weights(tmp_path / "b.weights.h5")
    groups = arrays_of(tmp_path / "b.weights.h5")
    write_keras_weights(tmp_path / "c.weights.h5", groups)
    other.load_weights(tmp_path / "c.weights.h5")
    assert_has(other, {variable.path: np.asarray(variable.value) for variable in model.weights})


@pytest.mark.parametrize(
    ("layers", "in_doubt"),
    [
        ("dense dense_1 dense_2 dense_10", False),
        ("dense dense_1 dense_10 dense_2", True),
        ("dense_1 dense", True),
        ("block0 block1", False),
        ("block1 block10 block2", True),
        ("a b", True),
        ("b a", False),
        ("a", False),
    ],
)
def test_an_order_is_in_doubt_if_counts_do_not_ascend_or_names_are_sorted(layers, in_doubt):
    arrays = {f"{layer}/kernel": np.ones((2, 2), "float32") for layer in layers.split()}
    assert layers_in_doubt(arrays) == ([layers.split()] if in_doubt else [])
    inside = {f"outer/{name}": array for name, array in arrays.items()}
    assert layers_in_doubt(inside) == ([[f"outer/{layer}" for layer in layers.split()]] if in_doubt else [])
    other_shapes = {name: np.ones((2, number), "float32") for number, name in enumerate(arrays)}
    assert layers_in_doubt(other_shapes) == []  # Keras raises for a wrong order


def test_what_does_not_fit_is_reported_at_once(tmp_path):
    wrong = {"hidden/kernel": np.ones((8, 4), "float32"), "hidden/bias": np.ones(8), "other": np.ones(1)}
    with pytest.raises(FileError) as raised:
        update_keras(tmp_path / "a.keras", SAMPLES / "keras_mlp.keras", wrong)
    assert str(raised.value).split("\n")[1:] == [
        "  'hidden/kernel' has the shape (4, 8) in it, and (8, 4) in `arrays`",
        "  'hidden/bias' is f32 in it, and f64 in `arrays`",
        "  'other' is not in it",
    ]
    assert not list(tmp_path.iterdir())


def test_names_that_do_not_suffice_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"which these do not tell: \['hidden/kernel'\]; fill a copy"):
        write_keras_weights(tmp_path / "a.weights.h5", {"hidden/kernel": np.ones(1), "layers/dense/vars/0": np.ones(1)})
    with pytest.raises(FileError, match=r"hidden/kernel; got \['kernel', '/bias', 'a/'\]"):
        write_keras_h5(
            tmp_path / "a.h5", {"kernel": np.ones(1), "/bias": np.ones(1), "a/": np.ones(1), "a/b": np.ones(1)}
        )
    with pytest.raises(FileError, match=r"Keras 2 has no such dtypes: \['a/b: bf16'\]"):
        write_keras_h5(tmp_path / "a.h5", {"a/b": np.ones(1, ml_dtypes.bfloat16)})
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------- bad input


def test_files_without_weights_are_refused(tmp_path):
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.attrs["model_config"] = "{}"
    with pytest.raises(
        FileError, match="no array is in this HDF5 file: it holds the architecture of a Keras model alone"
    ):
        open_h5_file(str(tmp_path / "empty.h5"))
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    with pytest.raises(FileError, match=r"it has no model\.weights\.h5"):
        open_foreign(tmp_path / "empty.keras")


def repacked(path, compression, **members):
    with zipfile.ZipFile(SAMPLES / "keras_mlp.keras") as old, zipfile.ZipFile(path, "w", compression) as new:
        for member in old.namelist():
            new.writestr(member, members.get(member.partition(".")[0], old.read(member)))


def test_compressed_archives_are_read_and_bombs_are_not(tmp_path):
    repacked(tmp_path / "a.keras", zipfile.ZIP_DEFLATED)
    expected = arrays_of(SAMPLES / "keras_mlp.keras")
    for name, array in arrays_of(tmp_path / "a.keras").items():
        np.testing.assert_array_equal(array, expected[name])
    repacked(tmp_path / "b.keras", zipfile.ZIP_DEFLATED, model=bytes(1 << 24))
    with pytest.raises(FileError, match="16,777,216 bytes of weights in"):
        open_keras(str(tmp_path / "b.keras"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_weights_are_compared_with_the_checksum_of_the_archive(compression, tmp_path):
    path = tmp_path / "a.keras"
    repacked(path, compression)
    with open_foreign(path) as file:
        assert all(file.has_checksum(name) for name in file.arrays)
        name = next(name for name, array in file.arrays.items() if len(array.shape) == 2)
        right = file.read(name)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("model.weights.h5")
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"model.weights.h5") - 46 + 16  # the CRC-32 in the directory
    assert int.from_bytes(data[directory : directory + 4], "little") == member.CRC
    data[directory] ^= 1
    path.write_bytes(data)
    if compression == zipfile.ZIP_DEFLATED:  # compared as it is unpacked
        with pytest.raises(FileError, match=r"Bad CRC-32 for file 'model\.weights\.h5'"):
            open_foreign(path)
        return
    with open_foreign(path) as file:
        for _ in range(2):
            with pytest.raises(
                FileError, match=rf"cannot read '{name}' in .*: its member 'model\.weights\.h5' is damaged"
            ):
                file.read(name)
        np.testing.assert_array_equal(file.part(name, np.s_[:]), right)
    with open_foreign(path, verify=False) as file:
        np.testing.assert_array_equal(file.read(name), right)


@pytest.mark.parametrize(
    "config", ["[" * 100_000, "null", "[1]", '{"config": {"layers": [1, null, {"config": 3}]}}', "{"]
)
def test_odd_configs_are_refused_or_leave_the_names_of_groups(config, tmp_path):
    repacked(tmp_path / "a.keras", zipfile.ZIP_STORED, config=config)
    if config[0] in "[{" and config[-1] in "[{":
        with pytest.raises(FileError, match=r"it is not a whole \.keras file"):
            open_keras(str(tmp_path / "a.keras"))
    else:
        assert next(iter(arrays_of(tmp_path / "a.keras"))).startswith("layers/dense/vars/")


@pytest.mark.parametrize("name", ["keras2_mlp.h5", "keras_mlp.weights.h5", "keras_mlp.keras"])
def test_cut_files(name, tmp_path):
    data = (SAMPLES / name).read_bytes()
    refused, count = check_damaged(open_foreign, tmp_path / "a", cut(data, 293))
    assert refused == count


def test_changed_files(tmp_path):
    """In a process of its own: the library of HDF5 can crash on a damaged file."""
    code = """if True:
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from hostile_files import changed, check_damaged
        from ptree._foreign import open_foreign
        for name in sys.argv[3:]:
            refused, count = check_damaged(open_foreign, Path(sys.argv[2]), changed(Path(name).read_bytes(), 120))
            assert 0 < refused < count
    """
    files = [str(SAMPLES / name) for name in ("keras2_mlp.h5", "keras_mlp.weights.h5", "keras_mlp.keras")]
    command = [sys.executable, "-c", code, str(Path(__file__).parents[1]), str(tmp_path / "a"), *files]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
