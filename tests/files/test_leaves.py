"""Every kind of leaf in every awkward form: it comes back bit for bit, or `save` refuses it by name and writes nothing."""

import itertools
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import ptree as pt
from ptree._stored.dtypes import CODES, LACKING


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


SHAPES = [(), (0,), (1,), (3, 0, 2), (0, 0), (1, 1, 1), (2, 3)]

FORMS = {
    "contiguous": lambda a: a,
    "transposed": lambda a: a.T,
    "backwards": lambda a: np.flip(a) if a.ndim else a,
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a,
    "in Fortran's order": lambda a: np.asfortranarray(a),
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "read-only": lambda a: _read_only(a),
    "not aligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), a.dtype, a.size, 1).reshape(a.shape),
    "a matrix": lambda a: np.asmatrix(a) if a.ndim == 2 else a,
}


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def numbers(shape, dtype):
    """Values that every dtype has, not all alike."""
    count = int(np.prod(shape))
    return (np.arange(count) % 2).reshape(shape).astype(dtype)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("dtype", [*CODES, *LACKING], ids=str)
def test_arrays_of_numpy_come_back_from_every_form(file, dtype):
    tree = {}
    for shape, (form, made) in itertools.product(SHAPES, FORMS.items()):
        tree[f"{form} {shape}"] = made(numbers(shape, dtype))
    pt.save(file, tree)
    back = pt.load(file)
    for name, array in tree.items():
        assert isinstance(back[name], np.ndarray), name
        assert (back[name].dtype, back[name].shape) == (dtype, array.shape), name
        native = np.ascontiguousarray(array).astype(dtype)
        assert back[name].tobytes() == native.tobytes(), name


def test_memory_maps_of_numpy_come_back(file):
    mapped = np.memmap(file.with_name("raw"), np.float32, "w+", shape=(2, 3))
    mapped[:] = np.arange(6).reshape(2, 3)
    pt.save(file, {"a": mapped, "b": mapped[:, ::2]})
    np.testing.assert_array_equal(pt.load(file)["a"], mapped)
    np.testing.assert_array_equal(pt.load(file)["b"], mapped[:, ::2])


JAX_DTYPES = [dtype for dtype in [*CODES, *LACKING] if dtype.itemsize < 8 and not dtype.name.startswith("float6")]


@pytest.mark.parametrize("dtype", JAX_DTYPES, ids=str)
def test_arrays_of_jax_come_back_from_every_shape(file, dtype):
    tree = {str(shape): jnp.asarray(numbers(shape, dtype)) for shape in SHAPES}
    pt.save(file, tree)
    back = pt.load(file)
    for name, array in tree.items():
        assert isinstance(back[name], jax.Array)
        assert (back[name].dtype, back[name].shape) == (dtype, array.shape)
        assert np.asarray(back[name]).tobytes() == np.asarray(array).tobytes()


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_come_back_from_every_shape(file, implementation):
    keys = jax.random.split(jax.random.key(7, impl=implementation), 6).reshape(2, 3)
    tree = {"one": keys[0, 0], "none": keys[:0], "2 x 3": keys, "turned": keys.T, "middle": keys[:, None, 1:]}
    pt.save(file, tree)
    back = pt.load(file)
    for name, key in tree.items():
        assert (back[name].dtype, back[name].shape) == (key.dtype, key.shape)
        np.testing.assert_array_equal(jax.random.key_data(back[name]), jax.random.key_data(key))


NUMBERS = [
    True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 0.0, -0.0, float("inf"), float("nan"), 5e-324,
    np.float16(6e-8), np.float64(1 / 3), np.int8(-128), np.uint64(2**64 - 1), np.bool(True), np.complex64(1 - 2j),
    np.complex128(1 - 2j), ml_dtypes.bfloat16(1.5), ml_dtypes.float8_e5m2(np.inf), ml_dtypes.int4(-8),
]  # fmt: skip


def test_numbers_of_python_and_numpy_come_back(file):
    tree = {str(at): number for at, number in enumerate(NUMBERS)}
    pt.save(file, tree)
    back = pt.load(file)
    for name, number in tree.items():
        assert type(back[name]) is type(number), name
        assert np.asarray(back[name]).tobytes() == np.asarray(number).tobytes(), name


REFUSED = {
    "a text": "x",
    "bytes": b"x",
    "a complex": 1j,
    "a long int": 2**64,
    "a function": len,
    "an object": object(),
    "a dtype": np.dtype("float32"),
    "a type": np.float32,
    "a type of JAX": jnp.float32,
    "an array of objects": np.array([1, None]),
    "an array of text": np.array(["x"]),
    "a date": np.datetime64("2020"),
    "dates": np.array(["2020"], "datetime64[D]"),
    "durations": np.array([1], "timedelta64[s]"),
    "a record": np.zeros(2, [("x", int)]),
    "bytes without a type": np.zeros(2, "V4"),
    "a masked array": np.ma.masked_array([1, 2], [0, 1]),
    "a long double": np.zeros(2, "longdouble"),
    "no gradient": np.zeros(2, jax.dtypes.float0),
    "a shape": jax.ShapeDtypeStruct((2,), "float32"),
    "a Param": pt.Param((2,)),
}


def test_what_a_file_cannot_hold_is_refused_by_name_and_all_at_once(file):
    if np.dtype("longdouble") == np.dtype("float64"):
        REFUSED.pop("a long double")
    for name, leaf in REFUSED.items():
        with pytest.raises(pt.FileError, match=f"'{name}' is "):
            pt.save(file, {name: leaf, "good": 1})
    with pytest.raises(pt.FileError) as raised:
        pt.save(file, REFUSED)
    assert str(raised.value).count("' is ") == 10
    assert f"and {len(REFUSED) - 10} more" in str(raised.value)
    assert not file.exists()
    with pytest.raises(
        pt.FileError, match=r"'a shape' is a ShapeDtypeStruct, f32\[2\], which has no values: save the arrays"
    ):
        pt.save(file, {"a shape": REFUSED["a shape"]})


# ----------------------------------------------------------------------------- PyTorch

TORCH_DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32",
    "float64", "complex64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


def torch_bytes(tensor):
    torch = sys.modules["torch"]
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return plain.numpy().tobytes() if plain.dtype == torch.bool else bytes(plain.untyped_storage())[: plain.nbytes]


@pytest.mark.parametrize("name", TORCH_DTYPES)
def test_tensors_of_pytorch_come_back_from_every_shape(file, name):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, name)
    tree = {}
    for shape in SHAPES:
        tree[str(shape)] = torch.tensor(numbers(shape, "float32")).to(dtype)
    tree["turned"] = tree["(2, 3)"].T
    tree["every second"] = tree["(2, 3)"][:, ::2]
    tree["broadcast"] = tree["(1,)"].expand(3, 4)
    tree["one in a row"] = tree["(2, 3)"].T[:1, :1].expand(1, 1)[0]
    tree["no rows of a turned one"] = tree["(2, 3)"].T[:0]
    pt.save(file, tree)
    back = pt.load(file)
    for path, tensor in tree.items():
        assert (back[path].dtype, back[path].shape) == (dtype, tensor.shape), path
        assert torch_bytes(back[path]) == torch_bytes(tensor), path
    again = pt.load(file, like=tree)
    assert all(again[path].shape == tensor.shape for path, tensor in tree.items())


def test_views_and_parameters_of_pytorch_come_back(file):
    torch = pytest.importorskip("torch")
    x = torch.arange(12.0).reshape(3, 4)
    turned = torch.complex(x, x + 1).conj()
    tree = {
        "parameter": torch.nn.Parameter(x),
        "with a gradient": x.clone().requires_grad_() * 2,
        "conjugated": turned,
        "negated": turned.imag,
        "negated and empty": turned.imag[:0],
        "conjugated and empty": turned[:0],
        "channels last": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "a part": x[1:, 1:],
        "flipped": x.flip(0),
    }
    pt.save(file, tree)
    back = pt.load(file)
    for path, tensor in tree.items():
        assert torch.equal(back[path], tensor.detach()), path


def test_tensors_of_pytorch_without_values_are_refused(file):
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = torch.ones(2, 3)
    with FakeTensorMode():
        fake = torch.ones(3)
    refused = {
        "meta": x.to("meta"),
        "meta and empty": x[:0].to("meta"),
        "sparse": x.to_sparse(),
        "sparse and empty": x[:0].to_sparse(),
        "fake": fake,
        "uninitialized": torch.nn.UninitializedParameter(),
        "complex128": x.to(torch.complex128),
        "a byte for eight": torch.empty(3, dtype=torch.bits8),
    }
    for name, tensor in refused.items():
        with pytest.raises(pt.FileError, match=f"'{name}' is "):
            pt.save(file, {name: tensor})

    def save_inside(tensor):
        with pytest.raises(pt.FileError, match="'traced' is a Tensor of PyTorch, without memory of its own"):
            pt.save(file, {"traced": tensor})
        return tensor.sum()

    torch.func.grad(save_inside)(x)
    torch.func.vmap(save_inside)(x)
    assert not file.exists()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantized_nested_and_masked_tensors_are_refused(file):
    torch = pytest.importorskip("torch")
    x = torch.ones(2, 3)
    refused = {
        "complex32": x.to(torch.complex32),
        "quantized": torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        "nested": torch.nested.nested_tensor([x, x[:1]]),
        "jagged": torch.nested.nested_tensor([x, x[:1]], layout=torch.jagged),
        "compressed": x.to_sparse_csr(),
        "masked": torch.masked.masked_tensor(x, x > 0),
    }
    for name, tensor in refused.items():
        with pytest.raises(pt.FileError, match=f"'{name}' is "):
            pt.save(file, {name: tensor})
    assert not file.exists()
