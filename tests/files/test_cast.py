"""load(cast=True): every value comes back in the dtype of the template, or the leaf and the value are named."""

import itertools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from errors import says
from jax.sharding import NamedSharding, PartitionSpec

import ptree as pt
from ptree.files._cast import lost_value

FLOATS = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "float8_e3m4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
]  # fmt: skip
INTS = ["int2", "int4", "int8", "int16", "int32", "int64", "uint2", "uint4", "uint8", "uint16", "uint32", "uint64"]


def dtype_of(name):
    return np.dtype(getattr(ml_dtypes, name, name))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


def values_of(dtype):
    """All values of a dtype of up to 8 bits; of others those around the ends of all dtypes."""
    if dtype.itemsize == 1:
        return np.unique(np.arange(256, dtype="uint8").view(dtype).astype("float32"))
    numbers = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-300, 1.0, -1.0]
    for name in FLOATS:
        largest = float(ml_dtypes.finfo(dtype_of(name)).max)
        for factor in (0.97, 1, 1 + 2**-12, 1 + 2**-9, 1.01, 1.05, 1.2, 1.4, 1.6, 2):
            if largest * factor < np.inf:
                numbers += [largest * factor, -largest * factor]
    with np.errstate(over="ignore"):
        return np.array(numbers).astype(dtype)


def is_held(number, dtype):
    """By the definition: the nearest number that the dtype has is finite, as if its exponent had no end."""
    limits = ml_dtypes.finfo(dtype)
    if np.isnan(number):
        return bool(np.isnan(np.float64(np.nan).astype(dtype)))
    if np.isinf(number):
        return bool(np.isinf(np.float64(number).astype(dtype)))
    if dtype.name == "float8_e8m0fnu" and number < 2.0**-127:  # it has powers of two alone, and no 0
        return False
    largest = float(limits.max)
    spacing = math.ldexp(float(limits.eps), math.frexp(largest)[1] - 1)
    end = largest / 2 + spacing / 4  # halved, as the end of float64 would overflow
    return bool(abs(number) / 2 < end or (abs(number) / 2 == end and _takes_the_tie(dtype)))


def _takes_the_tie(dtype):
    """Whether the number between the largest one and the next is rounded down, to the even one."""
    return dtype.name in ("float8_e4m3fn",)


@pytest.mark.parametrize("target", FLOATS)
def test_a_float_is_lost_if_and_only_if_the_dtype_has_no_near_one(target):
    target = dtype_of(target)
    for source in map(dtype_of, FLOATS):
        for number in values_of(source).astype(source):
            expected = "" if source == target or is_held(float(number), target) else str(float(number))
            assert lost_value(np.array([number]), target) == expected, (source, number)


def test_a_whole_number_is_lost_if_and_only_if_it_is_out_of_range():
    numbers = [0, 1, -1, 127, 128, 255, 256, -128, -129, 2**31 - 1, 2**31, -(2**31) - 1]
    for source, target in itertools.permutations(map(dtype_of, INTS), 2):
        limits, wide = ml_dtypes.iinfo(target), ml_dtypes.iinfo(source)
        for number in (int(wide.min), int(wide.max), *numbers):
            if wide.min <= number <= wide.max:
                is_in_range = limits.min <= number <= limits.max
                assert lost_value(np.array([number], source), target) == ("" if is_in_range else str(number))


def test_all_lost_values_are_told_at_once_and_nothing_is_loaded(file):
    pt.save(file, {"f": jnp.array([1.0, 1e5, -3.0]), "i": jnp.array([3, 300]), "n": jnp.array([-1]), "ok": jnp.array([1e-9]), "c": np.array([1e300 + 1j])})  # fmt: skip
    like = {"f": jnp.zeros(3, "float16"), "i": jnp.zeros(2, "uint8"), "n": np.zeros(1, "uint32"), "ok": jnp.zeros(1, "float16"), "c": jnp.zeros(1, "complex64")}  # fmt: skip
    says(
        pt.FileError,
        f"cannot load {str(file)!r} into `like`: 'f' has 100000.0 in the file, which f16 in `like` does not hold\n"
        "'i' has 300 in the file, which u8 in `like` does not hold\n"
        "'n' has -1 in the file, which u32 in `like` does not hold\n"
        "'c' has 1e+300 in the file, which c64 in `like` does not hold",
        lambda: pt.load(file, like, cast=True),
    )
    with pytest.raises(pt.StructureError, match=r"missing in the file: \['more'\]\n.*'f' has 100000.0 in the file"):
        pt.load(file, {"f": jnp.zeros(3, "float16"), "more": jnp.zeros(1)}, select="f", cast=True)


def test_infinity_and_nan_stay_where_the_dtype_has_them(file):
    values = jnp.array([jnp.inf, -jnp.inf, jnp.nan, 65519.0, 1e-30])
    pt.save(file, {"a": values, "b": jnp.array([1.0, jnp.inf])})
    for dtype in ("float16", "bfloat16", "float64"):
        back = pt.load(file, {"a": np.zeros(5, dtype_of(dtype))}, select="a", cast=True)["a"]
        assert back.tobytes() == np.asarray(values).astype(dtype_of(dtype)).tobytes()
    with pytest.raises(pt.FileError, match="'b' has inf in the file, which f4_e2m1fn in `like` does not hold"):
        pt.load(file, {"b": jnp.zeros(2, "float4_e2m1fn")}, select="b", cast=True)


def test_numbers_of_other_groups_are_not_converted(file):
    pt.save(file, {"f": jnp.ones(2), "i": jnp.ones(2, int), "b": jnp.ones(2, bool), "c": jnp.ones(2, complex)})
    for name, dtype in [("f", "int32"), ("i", "float32"), ("i", "bool"), ("b", "int32"), ("b", "float32"), ("c", "float32"), ("f", "complex64")]:  # fmt: skip
        with pytest.raises(pt.StructureError, match=f"'{name}': expected") as raised:
            pt.load(file, {name: jnp.zeros(2, dtype)}, select=name, cast=True)
        assert str(raised.value).endswith(" cast=True changes the width of a dtype, not its kind.")
        with pytest.raises(pt.StructureError) as raised:
            pt.load(file, {name: jnp.zeros(2, dtype)}, select=name)
        assert "cast=True" not in str(raised.value)


def test_another_dtype_says_that_cast_converts_it(file):
    pt.save(file, {"a": jnp.ones(2)})
    says(
        pt.StructureError,
        f"cannot load {str(file)!r} into `like`: 'a': expected bf16[2] in `like`, got f32[2] in the file."
        " cast=True converts to the dtypes of `like`.",
        lambda: pt.load(file, {"a": jnp.zeros(2, "bfloat16")}),
    )
    assert pt.load(file, {"a": jnp.zeros(2, "bfloat16")}, cast=True)["a"].dtype == "bfloat16"


def test_a_number_that_an_array_of_one_cannot_hold_is_told(file):
    pt.save(file, {"lr": 1e5, "step": 300, "nan": float("nan")})
    back = pt.load(file, {"lr": jnp.float32(0), "step": jnp.int32(0), "nan": jnp.float16(0)})
    assert (float(back["lr"]), int(back["step"])) == (1e5, 300)
    assert np.isnan(back["nan"])
    for cast in (False, True):
        with pytest.raises(pt.StructureError, match=r"'lr': expected f16\[\] in `like`, got 100000.0 in the file"):
            pt.load(file, {"lr": jnp.float16(0)}, select="lr", cast=cast)
        with pytest.raises(pt.StructureError, match=r"'step': expected u8\[\] in `like`, got 300 in the file"):
            pt.load(file, {"step": np.uint8(0)}, select="step", cast=cast)


def test_values_are_lost_in_stacks_shards_and_parts_too(file):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    layers = pt.Tree({"blocks": [{"w": jnp.zeros((8, 2)).at[3, 1].set(at * 5e4)} for at in range(3)]})
    stacked = pt.stacks.stack(layers, "blocks")
    half = jax.tree.map(lambda leaf: leaf.astype("float16"), pt.abstract(layers) and layers)
    half_stacked = pt.stacks.stack(half, "blocks")
    for tree in (layers, stacked):
        for size in (None, 64):
            pt.save(file, tree, max_shard_size=size)
            for spec in (None, PartitionSpec("d")):
                options = {} if spec is None else {"shardings": NamedSharding(mesh, spec)}
                with pytest.raises(pt.FileError, match=r"'blocks/2/w' has 100000.0 in the file, which f16"):
                    pt.load(file, half, cast=True, **options)
                in_file = "blocks/2/w" if tree is layers else "blocks/:/w"
                with pytest.raises(pt.FileError, match=f"'{in_file}' has 100000.0 in the file, which f16"):
                    pt.load(file, half_stacked, cast=True, **options)
                held = pt.load(file, jax.tree.map(lambda leaf: leaf.astype("bfloat16"), layers), cast=True, **options)
                assert float(held["blocks/2/w"].max()) == float(jnp.bfloat16(1e5))


@pytest.mark.parametrize("inner", ["layers", "stack"])
def test_a_lost_value_of_a_stack_in_a_stack_is_told_by_its_path_in_the_file(file, inner):
    values = jnp.zeros((2, 3, 4)).at[1, 2, 0].set(1e5)
    layers = [{"b": [{"w": values[outer, at]} for at in range(3)]} for outer in range(2)]
    if inner == "stack":
        layers = [{"b": {":": {"w": values[outer]}}} for outer in range(2)]
    pt.save(file, {"a": layers})
    like = {"a": {":": {"b": {":": {"w": jnp.zeros((2, 3, 4), "float16")}}}}}
    name = "a/1/b/2/w" if inner == "layers" else "a/1/b/:/w"
    with pytest.raises(pt.FileError, match=f"'{name}' has 100000.0 in the file, which f16"):
        pt.load(file, like, cast=True)


def test_a_leaf_that_keeps_its_value_loses_none(file):
    pt.save(file, {"a": jnp.array([1e5]), "b": jnp.ones(2)})
    like = {"a": jnp.zeros(2, "float16"), "b": jnp.zeros(2, "float16")}
    tree, report = pt.load_report(file, like, cast=True, mismatch="keep")
    assert report.kept == ["a"]
    assert report.cast == ["b"]
    assert tree["a"] is like["a"]


def test_where_the_dtype_holds_all_no_value_is_read_again(file, monkeypatch):
    monkeypatch.setattr("ptree.files._cast._extremes_of", lambda array: pytest.fail("it is read again"))
    for source, target in [("bfloat16", "float32"), ("float16", "float32"), ("float8_e5m2", "float16"), ("int8", "int32"), ("uint8", "int16")]:  # fmt: skip
        pt.save(file, {"a": jnp.ones(3, source)})
        assert pt.load(file, {"a": jnp.zeros(3, target)}, cast=True)["a"].dtype == target


def test_leaves_of_pytorch_and_scalars_are_cast_alike(file):
    torch = pytest.importorskip("torch")
    pt.save(file, {"t": torch.tensor([1.0, 1e5]), "s": np.float64(1e5), "z": torch.zeros(0)})
    back = pt.load(file, {"t": torch.zeros(2, dtype=torch.bfloat16), "s": np.float32(0), "z": torch.zeros(0, dtype=torch.float16)}, cast=True)  # fmt: skip
    assert torch.equal(back["t"], torch.tensor([1.0, 1e5], dtype=torch.bfloat16))
    assert back["s"] == np.float32(1e5)
    assert back["z"].dtype == torch.float16
    with pytest.raises(pt.FileError, match=r"'t' has 100000.0.*\n's' has 100000.0"):
        pt.load(file, {"t": torch.zeros(2, dtype=torch.float16), "s": np.float16(0)}, select=["t", "s"], cast=True)
