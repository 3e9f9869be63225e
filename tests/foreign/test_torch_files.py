"""PyTorch's files, read without it: the numbers are those of torch.load, in both formats, and torch.load reads what is written."""

import io
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from ptree import FileError, PathError
from ptree._foreign import open_foreign
from ptree._foreign.torch_dtypes import TORCH_NAMES
from ptree._foreign.torch_write import write_torch

torch = pytest.importorskip("torch")

FORMATS = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
READ_DTYPES = [getattr(torch, name) for name in TORCH_NAMES.values()]


def saved(path: Path, value: object, is_zip: bool = True) -> str:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return str(path)


def bytes_of(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""


def assert_same(array: np.ndarray, tensor: torch.Tensor) -> None:
    name = str(tensor.dtype).removeprefix("torch.")
    assert array.dtype == np.dtype(getattr(ml_dtypes, name, name))
    assert array.shape == tuple(tensor.shape)
    assert array.tobytes() == bytes_of(tensor)


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    if dtype == torch.bool:
        return torch.rand(shape) > 0.5
    if dtype.is_complex:
        return torch.randn(*shape, dtype=dtype)
    if dtype.is_floating_point:
        return torch.randn(*shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.conv = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
        self.lstm = torch.nn.LSTM(4, 6, bidirectional=True)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


@FORMATS
@pytest.mark.parametrize("dtype", READ_DTYPES, ids=str)
def test_every_dtype_and_shape_is_torchs(tmp_path, dtype, is_zip):
    whole = random_tensor(dtype, 4, 5, 6)
    tensors = {
        "whole": whole,
        "transposed": whole.permute(2, 0, 1),
        "strided": whole[1:, ::2, 3],
        "scalar": whole[2, 3, 1],
        "empty": whole[:0],
        "one": whole[:1, :1],
        "expanded": whole[:, :1, :1].expand(4, 3, 6),
    }
    if dtype in (torch.bool, torch.float64):
        tensors["parameter"] = torch.nn.Parameter(random_tensor(torch.float32, 3))
    with open_foreign(saved(tmp_path / "m.pt", tensors, is_zip)) as file:
        assert file.format == ("PyTorch (zip)" if is_zip else "PyTorch (legacy)")
        assert list(file.arrays) == list(tensors)
        for name, tensor in tensors.items():
            assert_same(file.read(name), tensor)
            if tensor.ndim:
                assert_same(file.part(name, (slice(1, 3),)), tensor[1:3])


@FORMATS
def test_a_modules_names_order_and_ties_are_kept(tmp_path, is_zip):
    expected = Net().state_dict()
    with open_foreign(saved(tmp_path / "m.pth", expected, is_zip)) as file:
        assert file.aliases == {"head.weight": "embed.weight"}
        assert [*file.arrays, "head.weight"] == list(expected)
        for name, tensor in expected.items():
            assert_same(file.read(name), tensor)


@FORMATS
def test_a_checkpoint_is_read_with_what_is_beside_its_tensors(tmp_path, is_zip):
    net = Net()
    # as that of torch.optim.Adam, which takes seconds to import
    optimiser = {
        "state": {1: {"step": torch.tensor(1.0), "exp_avg": torch.randn(4, 3, 3, 3)}},
        "param_groups": [{"lr": 0.25, "betas": (0.9, 0.999), "foreach": None, "params": list(range(30))}],
    }
    checkpoint = {
        "epoch": 3,
        "state_dict": net.state_dict(),
        "optimizer": optimiser,
        "note": "best \u00fc",
        "list": [torch.ones(2), {"inner": torch.zeros(1)}],
        "counts": Counter("aab"),
        "default": defaultdict(list),
        "device": torch.device("cuda:1"),
        "dtype": torch.bfloat16,
        "size": torch.Size([3, 4]),
        "bytes": b"abc",
        "set": {1},
        "none": None,
        3: torch.ones(3),
    }
    with open_foreign(saved(tmp_path / "m.ckpt", checkpoint, is_zip)) as file:
        assert_same(file.read("state_dict/conv.0.weight"), net.conv[0].weight)
        assert_same(file.read("optimizer/state/1/exp_avg"), optimiser["state"][1]["exp_avg"])
        assert_same(file.read("list/1/inner"), torch.zeros(1))
        assert_same(file.read("3"), torch.ones(3))
        assert file.aliases == {"state_dict/head.weight": "state_dict/embed.weight"}
        assert file.metadata["optimizer/param_groups/0/lr"] == "0.25"
        assert file.metadata["optimizer/param_groups/0/betas"] == "[0.9, 0.999]"
        assert file.metadata["optimizer/param_groups/0/params"].endswith("14, 15, and 14 more]")
        expected = {
            "epoch": "3",
            "note": "best \u00fc",
            "device": "cuda:1",
            "dtype": "torch.bfloat16",
            "size": "[3, 4]",
        }
        assert {name: file.metadata[name] for name in expected} == expected
        assert file.metadata["counts/a"] == "2"
        assert (file.metadata["bytes"], file.metadata["set"], file.metadata["none"]) == ("3 bytes", "[1]", "None")


@FORMATS
@pytest.mark.parametrize("root", ["tensor", "list", "parameter"])
def test_roots_that_are_no_dicts(tmp_path, root, is_zip):
    tensor = torch.arange(6.0).reshape(2, 3)
    value = {"tensor": tensor, "list": [tensor, (tensor + 1,)], "parameter": torch.nn.Parameter(tensor)}[root]
    with open_foreign(saved(tmp_path / "m.pt", value, is_zip)) as file:
        assert list(file.arrays) == (["0", "1/0"] if root == "list" else ["tensor"])
        assert_same(file.read("0" if root == "list" else "tensor"), tensor)


@FORMATS
def test_bits_of_conjugation_and_negation(tmp_path, is_zip):
    z = torch.randn(3, 4, dtype=torch.complex64)
    tensors = {"conj": z.conj(), "neg": z.conj().imag, "both": z.conj().T}
    assert tensors["conj"].is_conj()
    assert tensors["neg"].is_neg()
    with open_foreign(saved(tmp_path / "m.pt", tensors["conj"], is_zip)) as file:
        assert_same(file.read("tensor"), tensors["conj"])
    with open_foreign(saved(tmp_path / "n.pt", tensors["neg"], is_zip)) as file:
        assert_same(file.read("tensor"), tensors["neg"])
        assert_same(file.part("tensor", 1), tensors["neg"][1])
    with open_foreign(saved(tmp_path / "b.pt", tensors["both"], is_zip)) as file:
        assert_same(file.read("tensor"), tensors["both"])


@pytest.mark.filterwarnings("ignore::UserWarning")  # quantised and half complex tensors are deprecated
@FORMATS
def test_tensors_that_are_not_read_are_named_and_the_others_are(tmp_path, is_zip):
    plain = torch.ones(2, 3)
    tensors = {
        "plain": plain,
        "quantised": torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
        "channels": torch.quantize_per_channel(plain, torch.ones(2), torch.zeros(2).long(), 0, torch.quint8),
        "sparse": plain.to_sparse(),
        "meta": torch.empty(3, 4, device="meta"),
        "half": torch.zeros(2, dtype=torch.complex32),
    }
    problems = {
        "quantised": "is a quantised tensor (torch.qint8): save its `dequantize()`",
        "channels": "is a quantised tensor (torch.quint8): save its `dequantize()`",
        "sparse": "is a sparse tensor (torch.sparse_coo): save its `to_dense()`",
        "meta": "is on the device 'meta', and has no numbers",
        "half": "is of the dtype torch.complex32, which NumPy lacks",
    }
    with open_foreign(saved(tmp_path / "m.pt", tensors, is_zip)) as file:
        assert {name: array.problem for name, array in file.arrays.items() if array.problem} == problems
        assert {name: array.shape for name, array in file.arrays.items()} == {
            name: tuple(tensor.shape) for name, tensor in tensors.items()
        }
        assert_same(file.read("plain"), plain)
        for name, problem in problems.items():
            with pytest.raises(FileError, match="cannot read") as error:
                file.read(name)
            assert problem in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nested_and_csr_tensors_are_named(tmp_path):
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    tensors = {"nested": nested, "csr": torch.eye(3).to_sparse_csr(), "plain": torch.ones(1)}
    with open_foreign(saved(tmp_path / "m.pt", tensors)) as file:
        assert file.arrays["nested"].problem == "is a nested tensor: save the list of its `unbind()`"
        assert file.arrays["csr"].problem == "is a sparse tensor (torch.sparse_csr): save its `to_dense()`"
        assert_same(file.read("plain"), torch.ones(1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_jagged_nested_tensors_are_named_beside_tensors_that_are_read(tmp_path):
    jagged = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(3, 3)], layout=torch.jagged)
    with open_foreign(saved(tmp_path / "m.pt", {"jagged": jagged, "plain": torch.ones(1)})) as file:
        assert file.arrays["jagged"].problem == "is a nested tensor: save the list of its `unbind()`"
        assert_same(file.read("plain"), torch.ones(1))


def test_a_tensor_that_an_unknown_function_makes_is_named_with_it(tmp_path):
    class OfItsOwn(torch.Tensor):
        def __reduce_ex__(self, protocol):
            return torch._tensor._rebuild_from_type_v2, (torch.nn.functional.relu, torch.Tensor, (1,), {})

    path = saved(tmp_path / "m.pt", {"odd": torch.ones(2).as_subclass(OfItsOwn), "plain": torch.ones(1)})
    with open_foreign(path) as file:
        problem = "is of the class torch.Tensor, made by torch.nn.functional.relu, which ptree does not read"
        assert file.arrays["odd"].problem == problem
        with pytest.raises(FileError, match=re.escape(problem)):
            file.read("odd")
        assert_same(file.read("plain"), torch.ones(1))


def test_dicts_in_dicts_are_read_up_to_100_levels(tmp_path):
    def nested(depth):
        return {"a": nested(depth - 1)} if depth else torch.ones(1)

    with open_foreign(saved(tmp_path / "m.pt", nested(100))) as file:
        assert_same(file.read("/".join("a" * 100)), torch.ones(1))
    with pytest.raises(FileError, match="its containers are nested more than 100 levels deep"):
        open_foreign(saved(tmp_path / "n.pt", nested(101)))


class Subclass(torch.Tensor):
    pass


@FORMATS
def test_subclasses_are_named_and_attributes_are_left_out(tmp_path, is_zip):
    with_attribute = torch.ones(2)
    with_attribute.note = "x"
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.note = "y"
    tensors = {"sub": torch.ones(2).as_subclass(Subclass), "attribute": with_attribute, "parameter": parameter}
    with open_foreign(saved(tmp_path / "m.pt", tensors, is_zip)) as file:
        assert "Subclass, a tensor only by" in file.arrays["sub"].problem
        assert_same(file.read("attribute"), with_attribute)
        assert_same(file.read("parameter"), parameter)


@FORMATS
def test_numpys_arrays_and_plain_objects_beside_the_tensors(tmp_path, is_zip):
    from argparse import Namespace

    array = np.arange(6.0, dtype="float32").reshape(2, 3)
    checkpoint = {
        "c": array,
        "f": np.asfortranarray(array),
        "swapped": array.astype(">f4"),
        "number": np.float64(2.5),
        "args": Namespace(lr=0.1, sizes=[1, 2]),
        "path": Path("a/b"),
        "objects": np.array([None], dtype=object),
    }
    with open_foreign(saved(tmp_path / "m.pt", checkpoint, is_zip)) as file:
        for name in ("c", "f", "swapped"):
            np.testing.assert_array_equal(file.read(name), array)
            assert file.read(name).dtype == np.float32
            np.testing.assert_array_equal(file.part(name, (..., 1)), array[:, 1])
        expected = {"number": "2.5", "args/lr": "0.1", "args/sizes": "[1, 2]", "path": "a/b"}
        assert {name: file.metadata[name] for name in expected} == expected
        assert file.metadata["objects"] == "an array of Python objects"


def test_storages_of_a_big_endian_machine_are_swapped(tmp_path):
    tensors = {str(dtype): random_tensor(dtype, 3, 4) for dtype in READ_DTYPES}
    source = io.BytesIO()
    torch.save(tensors, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
        for member, tensor in zip(_storages_of(old), tensors.values()):
            words = np.frombuffer(old.read(member), f"u{_word(tensor.dtype)}")
            new.writestr(member, words.byteswap().tobytes())
        new.writestr("archive/byteorder", "big")
        new.writestr("archive/data.pkl", old.read("archive/data.pkl"))
        new.writestr("archive/version", "3\n")
    theirs = torch.load(tmp_path / "big.pt")
    with open_foreign(tmp_path / "big.pt") as file:
        for name, tensor in tensors.items():
            assert_same(file.read(name), tensor)
            # PyTorch does not swap the dtypes of which it stores bytes
            if tensor.dtype not in torch.storage._new_dtypes():
                assert torch.equal(theirs[name], tensor)


def _storages_of(archive: zipfile.ZipFile) -> list[str]:
    names = [name for name in archive.namelist() if name.startswith("archive/data/")]
    return sorted(names, key=lambda name: int(name.rsplit("/", 1)[1]))


def _word(dtype: torch.dtype) -> int:
    return dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@FORMATS
def test_every_protocol_of_pickles(tmp_path, protocol, is_zip):
    tensors = {"w": torch.ones(2, 3), "n": {"b": torch.zeros(4), "big": 2**70, "text": "x" * 300, "set": {1, 2}}}
    torch.save(tensors, tmp_path / "m.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    with open_foreign(tmp_path / "m.pt") as file:
        assert_same(file.read("n/b"), torch.zeros(4))
        assert file.metadata == {"n/big": str(2**70), "n/text": "x" * 300, "n/set": "[1, 2]"}


def test_a_state_dict_of_many_names_is_torchs(tmp_path):
    tensors = OrderedDict((f"layer.{number}.weight", torch.full((1,), float(number))) for number in range(3000))
    with open_foreign(saved(tmp_path / "m.pt", tensors)) as file:
        assert list(file.arrays) == list(tensors)
        assert [float(file.read(name)[0]) for name in list(tensors)[::500]] == [0, 500, 1000, 1500, 2000, 2500]


def test_a_file_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "m.pt", {"w": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    with open_foreign(path) as file:
        assert_same(file.read("w"), torch.ones(3))


def test_reading_copies_nothing_and_a_closed_file_says_so(tmp_path):
    with open_foreign(saved(tmp_path / "m.pt", {"w": torch.arange(12.0).reshape(3, 4)})) as file:
        array = file.read("w")
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert array.ctypes.data % 64 == 0
    np.testing.assert_array_equal(array, np.arange(12.0).reshape(3, 4))  # mapped memory stays
    with pytest.raises(FileError, match="is closed"):
        file.read("w")


def test_a_wrong_name_is_answered_with_the_nearest(tmp_path):
    nearest = pytest.raises(PathError, match=r"no array 'fc.weigth' in .* Did you mean 'fc.weight'\?")
    with open_foreign(saved(tmp_path / "m.pt", {"fc.weight": torch.ones(3)})) as file, nearest:
        file.read("fc.weigth")


def test_neither_torch_nor_jax_is_imported(tmp_path):
    path = saved(tmp_path / "m.pt", {"w": torch.ones(3)})
    code = (
        "import sys; from ptree._foreign import open_foreign;"
        f" print(open_foreign({path!r}).read('w')); print([n for n in ('torch', 'jax') if n in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ, PYTHONPATH=".")
    )
    assert run.stdout.split("\n")[:2] == ["[1. 1. 1.]", "[]"]


# ---------------------------------------------------------------------------- writing


def all_dtypes() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays = {}
    for dtype, name in TORCH_NAMES.items():
        numbers = rng.integers(0, 2, (2, 3, 4), "uint8") if name == "bool" else rng.bytes(24 * dtype.itemsize)
        arrays[f"{name}.w"] = np.frombuffer(numbers, dtype).reshape(2, 3, 4)
    return arrays


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_is_written(tmp_path, mmap):
    arrays = all_dtypes() | {
        "model/fc.bias": np.asarray(3.0),
        "empty": np.zeros((0, 2), "float32"),
        "swapped": np.arange(3, dtype=">f4"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "\u00e4 name": np.ones(1),
    }
    write_torch(tmp_path / "m.pt", arrays, aliases={"model/tied": "float32.w"})
    loaded = torch.load(tmp_path / "m.pt", weights_only=True, mmap=mmap)
    loaded["model/fc.bias"] = loaded["model"]["fc.bias"]
    for name, array in arrays.items():
        native = array.astype("float32") if name == "swapped" else array
        assert_same(native, loaded[name])
        assert loaded[name].is_contiguous()
    assert loaded["model"]["tied"].data_ptr() == loaded["float32.w"].data_ptr()
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        assert archive.testzip() is None


def test_what_is_written_is_read_back(tmp_path):
    arrays = all_dtypes() | {"a/b.c": np.ones(2), "a/d/e": np.zeros(())}
    write_torch(tmp_path / "m.pt", arrays, aliases={"tied": "a/b.c"})
    with open_foreign(tmp_path / "m.pt") as file:
        assert set(file.arrays) == set(arrays)
        assert file.aliases == {"tied": "a/b.c"}
        for name, array in arrays.items():
            read = file.read(name)
            assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_jax_arrays_are_written(tmp_path):
    import jax.numpy as jnp

    write_torch(tmp_path / "m.pt", {"w": jnp.ones((2, 3), jnp.bfloat16)})
    assert_same(np.ones((2, 3), ml_dtypes.bfloat16), torch.load(tmp_path / "m.pt")["w"])


@pytest.mark.parametrize(
    ("arrays", "aliases", "problem"),
    [
        ({"w": np.zeros(2, ml_dtypes.int4)}, {}, "'w' is i4, a dtype that PyTorch lacks"),
        ({"w": np.array(["a"])}, {}, "a dtype that PyTorch lacks"),
        ({"w": np.array([None])}, {}, "a dtype that PyTorch lacks"),
        ({"a": np.ones(1), "a/b": np.ones(1)}, {}, "'a/b' lies inside the name of another array"),
        ({"a/b": np.ones(1), "a": np.ones(1)}, {}, "'a' is also the beginning of another name"),
        ({"a": np.ones(1)}, {"b": "c"}, "'b' is tied to 'c', no array"),
        ({"a": np.ones(1)}, {"a": "a"}, "'a' is both an alias and an array"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(tmp_path, arrays, aliases, problem):
    path = tmp_path / "m.pt"
    path.write_bytes(b"old")
    with pytest.raises(FileError, match="cannot write") as error:
        write_torch(path, arrays, aliases=aliases)
    assert problem in str(error.value)
    assert os.listdir(tmp_path) == ["m.pt"]
    assert path.read_bytes() == b"old"
