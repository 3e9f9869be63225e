"""`ptree check` says of each format whether it has checksums; where it has, a changed number is found, and its leaf is named."""

import shutil
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest
from commands import ended_with_words as run
from safetensors.numpy import save_file

import ptree as pt
from ptree import convert

torch = pytest.importorskip("torch")

SAMPLES = Path(__file__).parents[1] / "foreign" / "samples"
KERNEL = np.random.default_rng(0).normal(size=(64, 64)).astype("f4")
ARRAYS = {"encoder.0.weight": KERNEL, "encoder.0.bias": np.arange(64, dtype="f4"), "scale": np.float32([2.5])}


def tensors():
    return {name: torch.from_numpy(array.copy()) for name, array in ARRAYS.items()}


def written(name, **options):
    """A function that writes a file with the arrays."""
    return lambda: convert.write(name, ARRAYS, **options)


def datasets(**options):
    def write():
        with h5py.File("m.h5", "w") as file:
            for name, array in ARRAYS.items():
                file.create_dataset(
                    name.replace(".", "/"), data=array, chunks=array.shape if options else None, **options
                )

    return write


def checkpoint():
    with pt.Checkpoints("run", backend="orbax") as checkpoints:
        checkpoints.save(1, {name: jnp.asarray(array) for name, array in ARRAYS.items()})


def without_crc():
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors(), "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is checked -> how it is written, the file whose bytes are changed, and what is said of the changed leaf, behind its name.
WITH_CHECKSUMS = {
    "m.safetensors": (
        lambda: pt.save("m.safetensors", pt.unflatten(ARRAYS)),
        "m.safetensors",
        "its bytes are not what its checksum says",
    ),
    "m.pt": (
        lambda: torch.save(tensors(), "m.pt"),
        "m.pt",
        "its member 'm/data/0' is damaged: its bytes are not what its checksum says",
    ),
    "m.npz": (
        lambda: np.savez("m.npz", **ARRAYS),
        "m.npz",
        "Bad CRC-32 for file 'encoder.0.weight.npy'",
    ),
    "m.index": (
        written("m", to="tensorflow"),
        "m.data-00000-of-00001",
        "its bytes are not what its checksum says",
    ),
    "m.h5": (
        datasets(fletcher32=True),
        "m.h5",
        "its dataset cannot be read: ",
    ),
}


@pytest.mark.parametrize("name", WITH_CHECKSUMS)
def test_a_changed_number_is_found_and_its_leaf_is_named(folder, capsys, name):
    write, file, said = WITH_CHECKSUMS[name]
    write()
    assert run(capsys, "check", name)[:2] == (0, f"{name}: whole, 3 leaves with the right checksum\n")
    data = bytearray((folder / file).read_bytes())
    data[data.index(KERNEL.tobytes()) + 9] ^= 1
    (folder / file).write_bytes(data)
    code, out, _ = run(capsys, "check", name)
    assert code == 1
    lines = out.splitlines()
    in_the_file = "" if name in ("m.index", "m.h5") else " ('encoder.0.weight' in the file)"
    assert lines[0].startswith(f"'encoder/0/weight'{in_the_file} is damaged: {said}")
    assert lines[1:] == [f"{name}: damaged or unreadable, 1 of 3 leaves"]
    assert said in run(capsys, "get", name, "encoder/0/weight")[2]


def test_a_keras_archive_has_one_checksum_for_all_its_weights(folder, capsys):
    shutil.copy(SAMPLES / "keras_mlp.keras", "m.keras")
    code, out, _ = run(capsys, "check", "m.keras")
    assert (code, "leaves with the right checksum" in out) == (0, True)
    name, array = next((name, array) for name, array in convert.read("m.keras").items() if array.ndim == 2)
    data = bytearray((folder / "m.keras").read_bytes())
    data[data.index(array.tobytes()) + 1] ^= 4
    (folder / "m.keras").write_bytes(data)
    code, out, _ = run(capsys, "check", "m.keras")
    assert code == 1
    why = "its member 'model.weights.h5' is damaged: its bytes are not what its checksum says"
    assert f"{name!r} is damaged: {why}\n" in out
    for read in (pt.load, convert.read):
        with pytest.raises(pt.FileError, match=r"its member 'model\.weights\.h5' is damaged") as raised:
            read("m.keras")
        assert name in raised.value.damaged
    with pt.open("m.keras", verify=False) as file:
        assert file[name][...].shape == array.shape


def test_streams_of_gzip_have_checksums_too(folder, capsys):
    datasets(compression="gzip")()
    assert run(capsys, "check", "m.h5")[:2] == (0, "m.h5: whole, 3 leaves with the right checksum\n")
    with h5py.File("m.h5") as file:
        chunk = file["encoder/0/weight"].id.get_chunk_info(0)
    whole = (folder / "m.h5").read_bytes()
    for at in range(chunk.byte_offset, chunk.byte_offset + chunk.size, 501):
        (folder / "m.h5").write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        code, out, _ = run(capsys, "check", "m.h5")
        assert code == 1
        assert out.startswith("'encoder/0/weight' is damaged: its dataset cannot be read: ")


def test_a_checkpoint_by_orbax_has_those_that_ptree_wrote(folder, capsys):
    pytest.importorskip("orbax.checkpoint")
    checkpoint()
    code, out, _ = run(capsys, "check", "run")
    assert code == 0
    assert "3 leaves with the right checksum" in out


def test_a_leaf_of_orbax_that_is_not_what_ptree_wrote_is_named_in_the_same_form(folder, capsys):
    pytest.importorskip("orbax.checkpoint")
    with pt.Checkpoints("run", backend="orbax", keep=None) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"same": jnp.ones(3), "other": jnp.full(3, float(step))})
    shutil.copy("run/step_1/_CHECKPOINT_METADATA", "run/step_2/_CHECKPOINT_METADATA")
    said = "'other' is damaged: its bytes are not what its checksum says\nrun/step_2: damaged or unreadable, 1 of 2 leaves\n"
    assert run(capsys, "check", "run") == (1, f"{said}run: not checked, 1 other file: ['step_1']\n", "")


WITHOUT_CHECKSUMS = {
    "m.safetensors": lambda: save_file(ARRAYS, "m.safetensors"),
    "m.pt": without_crc,
    "old.pt": lambda: torch.save(tensors(), "old.pt", _use_new_zipfile_serialization=False),
    "m.h5": datasets(),
    "m.msgpack": written("m.msgpack"),
    "m.params": written("m.params"),
    "m.gguf": written("m.gguf"),
}


@pytest.mark.parametrize("name", WITHOUT_CHECKSUMS)
def test_formats_without_checksums_are_not_called_whole(folder, capsys, name):
    WITHOUT_CHECKSUMS[name]()
    said = f"{name}: readable, 3 leaves without a checksum, so that changed numbers would not show\n"
    assert run(capsys, "check", name)[:2] == (0, said)


def test_no_bytes_have_the_checksum_0_and_arrays_in_a_pickle_that_of_the_pickle(capsys):
    torch.save({"empty": torch.ones(0, 3), "w": torch.ones(2), "numpy": np.ones(3)}, "m.pt")
    assert run(capsys, "check", "m.pt")[:2] == (0, "m.pt: whole, 3 leaves with the right checksum\n")
