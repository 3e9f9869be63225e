"""stats: right numbers for every dtype, in chunks, on devices and from files; a table with folded layers."""

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import ptree as pt
from ptree._words import columns
from ptree.look import stats
from ptree.look._stats.moments import moments_of, together

RANDOM = np.random.default_rng(0)
DTYPES = [
    "float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool", "int8", "uint8", "int16", "uint16", "int32",
    "uint32", "int64", "int4", "uint4", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float4_e2m1fn", "int2",
]  # fmt: skip


def numbers(dtype, count):
    wide = RANDOM.normal(0.5, 1, count)
    if dtype.startswith("complex"):
        wide = wide + 1j * RANDOM.normal(0, 1, count)
    return wide.astype(getattr(ml_dtypes, dtype, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 70_001)])
def test_statistics_of_every_dtype_are_numpys_in_f64(dtype, shape):
    leaf = numbers(dtype, math.prod(shape)).reshape(shape)
    row = stats({"w": leaf})["w"]
    wide = leaf.astype(np.complex128 if dtype.startswith("complex") else np.float64)
    np.testing.assert_allclose(row.mean, wide.mean(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(row.std, wide.std(), rtol=2e-6)
    np.testing.assert_allclose(row.norm, np.linalg.norm(wide), rtol=2e-6)
    assert row.largest == pytest.approx(np.abs(wide).max(), rel=1e-12)
    assert row.zeros == (wide == 0).sum()
    assert (row.count, row.nonfinite, row.first) == (leaf.size, 0, None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64", "float8_e5m2"])
def test_what_is_not_finite_is_counted_and_left_out(dtype):
    leaf = numbers(dtype, 200_000).reshape(2, 100_000)
    leaf[1, 7], leaf[1, 99_999], leaf[1, 60_000] = np.nan, np.inf, -np.inf
    row = stats({"w": leaf})["w"]
    wide = leaf.astype(np.complex128 if dtype == "complex64" else np.float64)
    finite = wide[np.isfinite(wide)]
    assert (row.nonfinite, row.first) == (3, (1, 7))
    np.testing.assert_allclose([row.mean, row.std], [finite.mean(), finite.std()], rtol=2e-6, atol=1e-8)


def test_a_leaf_of_nan_alone_and_an_empty_leaf_have_no_mean():
    found = stats({"nan": np.full((2, 3), np.nan, "float32"), "none": np.zeros((0, 4), "float32"), "zero": np.zeros(3)})
    assert math.isnan(found["nan"].mean)
    assert math.isnan(found["nan"].largest)
    assert (found["nan"].nonfinite, found["nan"].first) == (6, (0, 0))
    assert math.isnan(found["none"].std)
    assert (found["none"].count, found["none"].shape) == (0, (0, 4))
    assert (found["zero"].mean, found["zero"].std, found["zero"].norm, found["zero"].zeros) == (0, 0, 0, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("end", ["max", "smallest_normal"])
def test_squares_of_the_largest_and_the_least_numbers_neither_overflow_nor_vanish(dtype, end):
    size = float(getattr(ml_dtypes.finfo(dtype), end))
    leaf = np.array([size, -size, size, -size] * 30_000, getattr(ml_dtypes, dtype, dtype))
    row = stats({"w": leaf})["w"]
    assert row.std == pytest.approx(size, rel=1e-6)
    assert row.mean == pytest.approx(0, abs=size * 1e-6)
    assert row.largest == size
    if dtype != "float64" or end != "max":  # else the norm itself is more than a float holds
        assert row.norm == pytest.approx(size * math.sqrt(leaf.size), rel=1e-6)


def test_a_small_spread_about_a_large_mean_keeps_its_digits():
    leaf = (1 + 1e-4 * RANDOM.standard_normal(300_000)).astype(np.float32)  # the scale of a LayerNorm
    row = stats({"w": leaf})["w"]
    np.testing.assert_allclose(row.std, leaf.astype(float).std(), rtol=1e-9)
    np.testing.assert_allclose(row.mean, leaf.astype(float).mean(), rtol=1e-12)


def test_a_mean_over_a_billion_numbers_loses_no_digits():
    part = np.full(1 << 16, 0.1, np.float32)
    part[::2] = 0.3
    repeats = (1 << 30) // part.size
    whole = together([moments_of(part)] * repeats)
    assert whole.finite == 1 << 30
    # as exact as the sum of one chunk in f32, however many chunks there are
    assert whole.mean == pytest.approx((float(np.float32(0.1)) + float(np.float32(0.3))) / 2, rel=2**-22)
    assert whole.std == pytest.approx(0.1, rel=1e-6)  # in f32 alone it is 0.099998


def test_an_array_in_the_order_of_columns_has_the_index_of_its_own_axes():
    leaf = np.asfortranarray(np.zeros((3, 5), "float32"))
    leaf[1, 4] = np.nan
    assert stats({"w": leaf})["w"].first == (1, 4)


def test_the_layers_of_a_stack_have_rows_of_their_own():
    kernel = RANDOM.standard_normal((3, 50, 2000)).astype(np.float32)
    kernel[2, 49, 7] = np.inf
    found = stats({"blocks": {":": {"kernel": kernel}}, "head": np.ones(2, "float32")})
    assert [row.path for row in found.rows] == ["blocks/0/kernel", "blocks/1/kernel", "blocks/2/kernel", "head"]
    np.testing.assert_allclose(
        [row.std for row in found.rows[:2]], kernel[:2].astype(float).std(axis=(1, 2)), rtol=1e-6
    )
    assert (found.rows[2].first, found.rows[2].shape) == ((49, 7), (50, 2000))
    assert str(found).splitlines()[1].startswith("blocks/{0..2}/kernel")


def test_relative_change_is_that_of_norms():
    before = {f"h/{layer}/w": RANDOM.standard_normal((4, 30_000)).astype(np.float32) for layer in range(3)}
    after = {name: leaf * np.float32(1 + 0.01 * layer) for layer, (name, leaf) in enumerate(before.items())}
    after["new"] = np.ones(2, "float32")
    found = stats(pt.unflatten(after), relative_to=pt.unflatten(before))
    wide = {name: after[name].astype(float) for name in before}
    expected = [np.linalg.norm(wide[name] - leaf) / np.linalg.norm(leaf.astype(float)) for name, leaf in before.items()]
    np.testing.assert_allclose([found[name].relative for name in before], expected, rtol=1e-5)
    assert (found["new"].relative, found.unmatched) == (None, 1)
    assert "1 leaf has no counterpart" in str(found)


def test_relative_change_may_be_to_a_file_of_another_dtype(tmp_path):
    leaf = RANDOM.standard_normal((5, 20_000)).astype(np.float32)
    pt.save(tmp_path / "half.safetensors", {"w": leaf.astype(np.float16)})
    expected = np.linalg.norm(leaf - leaf.astype(np.float16).astype(float)) / np.linalg.norm(
        leaf.astype(np.float16).astype(float)
    )
    found = stats({"w": leaf}, relative_to=tmp_path / "half.safetensors")["w"].relative
    assert found == pytest.approx(expected, rel=1e-5)


def test_relative_to_a_tree_of_other_names_is_an_error():
    with pytest.raises(pt.StructureError, match="no leaf of 'dict' has one of the same path"):
        stats({"w": np.ones(3)}, relative_to={"v": np.ones(3)})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int32", "int8"])
def test_quantiles_are_within_one_percent_of_numpys(dtype):
    leaf = (RANDOM.standard_normal(100_000) * 100).clip(-100, 100).astype(getattr(ml_dtypes, dtype, dtype))
    shares = (0.0, 0.01, 0.25, 0.75, 0.99, 1.0)
    found = stats({"w": leaf}, quantiles=shares)["w"].quantiles
    np.testing.assert_allclose(list(found.values()), np.quantile(leaf.astype(float), shares), rtol=0.01)


def test_quantiles_of_zeros_and_small_whole_numbers_are_exact():
    tree = {"zero": np.zeros(9, "float32"), "n": np.arange(101), "mixed": np.array([0.0, 0, 0, 0.3], "float32")}
    found = stats(tree, quantiles=[0.25, 0.5])
    assert found["zero"].quantiles == {0.25: 0, 0.5: 0}
    assert found["n"].quantiles == {0.25: 25, 0.5: 50}
    assert found["mixed"].quantiles[0.5] == pytest.approx(0, abs=1e-40)


@pytest.mark.parametrize(
    "leaf",
    [
        np.array([1e300, 2e300]),
        np.array([-1e-300, 3e-310, 2.0]),
        np.linspace(-1, 1, 1001),
        np.arange(100_000),
        np.array([2**64 - 1, 7], "uint64"),
        np.array([1e-42, -3e-41, 5e-44, 0], "float32"),
        np.array([1e300, 1e30, 1e-30, 1e-300, -1e300, 0, np.nan, np.inf]),
        RANDOM.standard_normal(1001) * 1e200 ** RANDOM.uniform(-1, 1, 1001),
        np.array([3e4, -6e4], "float16"),
        np.array([1.7e308, -1.7e308, 1.0]),
    ],
)
def test_the_least_and_largest_quantiles_are_exact_and_others_are_of_any_size(leaf):
    finite = leaf[np.isfinite(leaf)].astype(float)
    least, low, largest = stats({"w": leaf}, quantiles=(0, 0.3, 1))["w"].quantiles.values()
    assert (least, largest) == (finite.min(), finite.max())
    # on the way from one number to the next, give or take a bin
    ends = [np.quantile(finite, 0.3, method=side) for side in ("lower", "higher")]
    assert ends[0] - abs(ends[0]) / 100 <= low <= ends[1] + abs(ends[1]) / 100


def test_the_median_of_numbers_around_zero_is_zero():
    assert stats({"w": np.linspace(-1, 1, 1001)}, quantiles=[0.5])["w"].quantiles[0.5] == 0


def test_numbered_names_of_every_form_are_one_row():
    tree = {f"l{at}": {"w": np.full(3, at)} for at in range(4)} | {f"conv{at}x": np.full(2, at) for at in range(1, 3)}
    lines = stats(tree).text(80).splitlines()
    assert [line.split()[0] for line in lines] == ["path", "l{0..3}/w", "conv{1..2}x"]
    folded = str(pt.summary(tree))
    assert "conv{1..2}x" in folded
    assert "l{0..3}/w" in folded


def test_a_layer_without_a_counterpart_leaves_a_blank():
    layers = {str(at): {"w": np.full(2, 1.0 + at)} for at in range(6)}
    before = {str(at): {"w": np.ones(2)} for at in (0, 1, 4, 5)}
    assert "▁▂  ▇█ 0..5" in stats(layers, relative_to=before).text(80)


def test_noise_has_bars_of_one_height():
    spread = [0.02, 0.0200002, 0.01999]
    tree = {str(at): np.array([-std, std]) for at, std in enumerate(spread)}
    assert "▄▄▄" in stats(tree).text(80)


def test_a_leaf_of_size_0_has_dashes_and_one_of_nan_has_nan():
    table = stats({"empty": np.ones((0, 3)), "bad": np.full(2, np.nan), "w": np.ones(2)}, quantiles=[0.5]).text(80)
    empty, bad = (next(line for line in table.splitlines() if line.startswith(name)) for name in ("empty", "bad"))
    assert empty.split()[1:] == ["-"] * 4
    assert "nan" in bad


def test_a_very_long_name_takes_few_lines():
    assert len(stats({"x" * 10_000: np.ones(2)}).text(40).splitlines()) < 14


def test_quantiles_leave_out_what_is_not_finite():
    leaf = np.array([np.nan, -np.inf, 1e300, 2, 3], np.float64)
    assert stats({"w": leaf}, quantiles=[0, 1])["w"].quantiles == {0: 2, 1: 1e300}
    assert math.isnan(stats({"w": leaf[:2]}, quantiles=[0.5])["w"].quantiles[0.5])
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats({"w": leaf}, quantiles=[50])


def test_leaves_without_numbers_have_a_row_that_says_why():
    deleted = jnp.ones(3)
    deleted.delete()
    tree = {"name": "gpt", "f": np.tanh, "key": jax.random.key(0), "w": 2.5, "gone": deleted, "yes": True}
    found = stats(tree)
    assert found["w"].mean == 2.5
    assert found["yes"].mean == 1
    assert {row.path for row in found.rows if row.problem} == {"name", "f", "key", "gone"}
    assert "! gone: not read: is deleted" in str(found)


def test_arrays_that_hold_no_numbers_are_named_and_other_byte_orders_are_read():
    tree = {
        "text": np.array(["a", "b"]),
        "time": np.array(["2026"], "datetime64[s]"),
        "big": np.array([1, 3], ">f4"),
        "w": 10**30,
    }
    found = stats(tree)
    assert {row.path for row in found.rows if row.problem} == {"text", "time"}
    assert (found["big"].mean, found["w"].mean) == (2, 1e30)


def test_what_has_no_numbers_at_all_is_an_error():
    with pytest.raises(pt.StructureError, match=r"no numbers to look at: 'w' has no numbers yet.*ptree\.summary"):
        stats(pt.Tree({"w": pt.Param((3,))}))
    with pytest.raises(pt.StructureError, match="not a tree"):
        stats(np.tanh)
    assert str(stats({})) == "dict: no leaves"


def test_a_tied_leaf_is_read_once():
    tree = pt.tie({"a": {"w": np.ones(3)}, "b": {"w": np.ones(3)}}, {"b": "a"})
    assert [row.path for row in stats(tree).rows] == ["a/w"]


def test_tensors_of_pytorch_are_read():
    torch = pytest.importorskip("torch")
    assert stats({"w": torch.tensor([1.0, 3.0], dtype=torch.bfloat16)})["w"].mean == 2


def test_files_of_each_kind_are_read_without_jax(tmp_path):
    tree = {"h": [{"w": numbers("bfloat16", 100_000)}, {"w": numbers("bfloat16", 100_000)}], "b": numbers("float32", 9)}
    pt.save(tmp_path / "a.safetensors", tree)
    (tmp_path / "shards").mkdir()
    pt.save(tmp_path / "shards" / "model.safetensors", tree, max_shard_size=100_000)
    np.savez(tmp_path / "a.npz", b=tree["b"])
    files = [tmp_path / "a.safetensors", tmp_path / "shards", tmp_path / "a.npz"]
    code = (
        "import sys\nfrom ptree.look import stats\n"
        "for file in sys.argv[1:]: print(stats(file).to_csv())\n"
        "assert 'jax' not in sys.modules and 'optax' not in sys.modules, 'jax was imported'"
    )
    ran = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True)
    expected = stats(tree).to_csv()
    assert sorted(ran.stdout.split("\n\n")[0].splitlines()) == sorted(expected.splitlines())
    assert sorted(ran.stdout.split("\n\n")[1].splitlines()) == sorted(expected.splitlines())
    bias = next(line for line in expected.splitlines() if line.startswith("b,"))
    assert ran.stdout.split("\n\n")[2].splitlines()[1] == bias


def test_a_damaged_leaf_is_named_and_the_others_are_read(tmp_path):
    file = tmp_path / "a.safetensors"
    pt.save(file, {"a": np.ones(10, "float32"), "b": np.ones(100_000, "float32")})
    with pt.open(file) as opened:
        with open(file, "r+b") as raw:
            raw.truncate(file.stat().st_size - 4)
        found = stats(opened)
    assert found["b"].mean == 1
    assert "it ends at" in found["a"].problem
    assert "! a: not read" in str(found)


def test_a_path_without_statistics_is_an_error():
    with pytest.raises(pt.PathError, match=r"no statistics of 'h/0/v'\. Did you mean 'h/0/w'"):
        stats({"h": [{"w": np.ones(3)}]})["h/0/v"]


def test_data_is_plain_python_that_json_holds():
    tree = {"w": np.array([np.nan], "float32"), "c": np.array([1 + 1j]), "s": np.ones((2, 2))}
    data = stats(tree, quantiles=[0.5]).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["rows"][0]["mean"] == "nan"
    assert data["rows"][0]["first"] == [0]
    header, *lines = stats(tree, quantiles=[0.5]).to_csv().splitlines()
    assert header.endswith("q0.5")
    assert all(line.count(",") == header.count(",") for line in lines)


MODEL = {
    "transformer": {
        "blocks": [
            {"mlp": {"c_fc": {"weight": RANDOM.standard_normal((8, 32)) * (1 + at)}, "ln": {"bias": np.zeros(8)}}}
            for at in range(12)
        ]
    }
}
MODEL["transformer"]["blocks"][11]["mlp"]["c_fc"]["weight"][3, 7] = np.nan


def test_layers_fold_into_a_row_and_what_is_not_finite_has_a_line():
    lines = str(stats(MODEL)).splitlines()
    assert [line.split(" ")[0] for line in lines[1:3]] == [
        "transformer/blocks/{0..11}/mlp/c_fc/weight",
        "transformer/blocks/{0..11}/mlp/ln/bias",
    ]
    assert "▁" in lines[1]
    assert "█!" in lines[1]
    assert "100%" in lines[2]
    assert lines[3] == "! transformer/blocks/11/mlp/c_fc/weight: 1 non-finite, first at (3, 7)"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("relative_to", [None, MODEL])
def test_a_table_fits_its_width_and_cuts_no_path(width, relative_to):
    name = "a_very_long_name_of_a_layer_" * 4
    tree = {**MODEL, "x": {name: {name: np.ones(3)}}}
    text = stats(tree, relative_to=relative_to, quantiles=[0.5]).text(width)
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(line.strip().split(" ")[0] for line in text.splitlines())
    assert f"x/{name}/{name}" in joined
    assert "transformer/blocks/{0..11}/mlp/c_fc/weight" in joined


def test_layers_of_flax_fold_and_what_is_no_layer_does_not():
    layer = {"kernel": np.ones((2, 2)), "bias": np.ones(2)}
    text = stats({"Dense_0": layer, "Dense_1": layer, "Norm_0": layer, "1" * 5000: np.ones(1)}).text(80)
    assert "Dense_{0..1}/kernel" in text
    assert "Norm_0/kernel" in text


def test_a_whole_number_beyond_all_floats_is_named():
    text = stats({"a": 10**400, "w": np.ones(2)}).text(200)
    assert "! a: not read: is a whole number of 1329 bits" in text


def test_a_text_is_no_leaf_that_lacks_a_counterpart():
    tree = {"w": np.ones(2), "name": "x"}
    assert stats(tree, relative_to=tree).unmatched == 0


def test_wide_very_long_and_empty_names_are_laid_out(tmp_path):
    text = stats({"日本語": np.ones(2), "w": np.ones(2), "x" * 10_000: np.ones(2)}).text(60)
    rows = text.splitlines()
    assert columns(rows[1]) == columns(rows[2]) == len(rows[0])
    assert len(rows) < 30
    assert "\n''  " in stats(np.ones(3)).text(60)


def test_layers_whose_numbers_would_be_very_long_are_named_by_a_pattern():
    text = stats({"h": {str(at): {f"w{at % 2}": np.ones(1)} for at in range(100)}}).text(80)
    assert "h/*/w0" in text
    assert "h/*/w1" in text


def test_names_that_a_terminal_would_obey_are_written_inert():
    text = stats({"\x1b[31mred\n": np.array([np.nan]), "ok": np.ones(1)}).text(color=True)
    assert "\x1b[31mred" not in text.replace("\x1b[31m!", "")
    assert len(text.splitlines()) == 4


@pytest.mark.parametrize("spec", [jax.P(None, "d", "m"), jax.P("m"), jax.P(), jax.P(None, ("m", "d"))])
def test_arrays_over_several_devices_are_reduced_where_they_are(spec):
    mesh = jax.sharding.Mesh(np.array(jax.devices()).reshape(4, 2), ("d", "m"))
    leaf = RANDOM.standard_normal((2, 16, 10_000)).astype(np.float32)
    leaf[1, 3, 4999] = leaf[1, 5, 1] = np.nan
    spread = jax.device_put(leaf, jax.NamedSharding(mesh, spec))
    agree(stats({"x": {":": spread}}).rows, stats({"x": {":": leaf}}).rows)


def test_arrays_with_a_sharding_of_another_kind_are_too():
    leaf = RANDOM.standard_normal((8, 1000)).astype(np.float32)
    spread = jax.pmap(lambda row: row)(leaf)
    agree(stats({"x": spread}).rows, stats({"x": leaf}).rows)


def agree(found, expected):
    for got, row in zip(found, expected, strict=True):
        assert (got.nonfinite, got.first, got.zeros, got.count) == (row.nonfinite, row.first, row.zeros, row.count)
        np.testing.assert_allclose([got.mean, got.std, got.largest], [row.mean, row.std, row.largest], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "bool", "float8_e5m2"])
def test_the_program_for_accelerators_agrees_with_numpy(dtype):
    from ptree.look._sources.source_of import source_of
    from ptree.look._stats import device_moments as device
    from ptree.look._stats.stack_layers import layers_of

    leaf = jnp.asarray(numbers(dtype, 3 * 70_001).reshape(3, 70_001))
    if dtype in ("float32", "bfloat16"):
        leaf = leaf.at[2, 70_000].set(jnp.inf).at[0, 0].set(jnp.finfo(dtype).max)
    source = source_of({":": leaf})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_is_for_device", lambda array: True)
        started = device.device_moments(source, ":", layers_of(":", leaf.shape))
        assert started is not None
        found = started()
    for got, row in zip(found, stats({":": leaf}).rows, strict=True):
        assert (got.nonfinite, got.zeros, got.largest) == (row.nonfinite, row.zeros, row.largest)
        assert got.first == (row.first[0] if row.first else -1)
        np.testing.assert_allclose([got.mean, got.std, got.norm], [row.mean, row.std, row.norm], rtol=1e-5)
