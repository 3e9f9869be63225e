"""Each primitive of JAX, exported as ONNX and run in onnxruntime, against JAX."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax
from onnx_runs import check, nodes, run, spec, symbols

from ptree import convert

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4, 5)).astype("float32")
POSITIVE = np.abs(X) + np.float32(0.1)
WHOLE = np.arange(60, dtype="int32").reshape(3, 4, 5) - 30
TRUTH = X > 0
EDGES = np.array(
    [
        0.0,
        -0.0,
        1e-8,
        -1e-8,
        1e-3,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        88.0,
        -88.0,
        200.0,
        -200.0,
        0.49999997,
        np.inf,
        -np.inf,
        np.nan,
    ],
    "float32",
)


def check_function(folder: Path, f: Any, *inputs: Any, **options: Any) -> None:
    check(folder / "f.onnx", lambda params, *given: f(*given), {}, inputs, **options)


def all_of(functions: Any, *inputs: Any) -> list[Any]:
    return [function(*inputs) for function in functions]


def each(names: str) -> Any:
    return partial(all_of, [getattr(lax, name) for name in names.split()])


UNARY = "neg sign floor ceil exp exp2 tanh logistic sin cos tan sinh cosh atan asinh abs erf erfc is_finite expm1 cbrt square"


def test_functions_of_one_number(tmp_path):
    check_function(tmp_path, each(UNARY), X)
    check_function(tmp_path, each("log log1p sqrt rsqrt acosh"), POSITIVE + 1)
    check_function(tmp_path, each("asin acos atanh"), np.clip(X, -0.9, 0.9))


def test_functions_at_zero_infinity_and_nan(tmp_path):
    names = "neg floor ceil exp exp2 tanh logistic atan abs erf erfc is_finite expm1 log log1p sqrt cbrt square"
    check_function(tmp_path, each(names), EDGES)


def test_functions_that_are_equations_of_their_own_in_some_versions_of_jax(tmp_path):
    check_function(tmp_path, jnp.log2, EDGES)
    slopes = [jax.grad(lambda x, f=f: f(x).sum()) for f in (jnp.tanh, jnp.arcsin, jnp.arctanh)]
    check_function(tmp_path, lambda x: all_of(slopes, x), np.clip(X, -0.9, 0.9))
    polynomials = lambda x: (jnp.polyval(x[0, 0], x), jnp.polyval(jnp.ones(1), x), jnp.polyval(jnp.arange(12.0), x))
    check_function(tmp_path, polynomials, np.clip(X, -0.9, 0.9))


def test_small_numbers_keep_their_digits(tmp_path):
    small = np.array([1e-9, -1e-9, 3e-7, -2e-5, 1e-3, 0.3], "float32")

    def relative(x):
        return lax.expm1(x) / x, lax.log1p(x) / x

    check_function(tmp_path, relative, small, tolerance=5e-7)


@pytest.mark.parametrize(
    ("dtype", "last", "tolerance"), [("float16", 2.0, 2e-3), ("float32", 9.1, 8e-7), ("float64", 26.0, 2e-15)]
)
def test_erfc_keeps_its_relative_precision_where_it_is_near_zero(dtype, last, tolerance, tmp_path):
    x = np.concatenate([np.linspace(-6, last, 20011), [1e-8, -1e-8, 0.46875]]).astype(dtype)
    with jax.enable_x64(True):
        convert.to_onnx(lambda _, x: lax.erfc(x), {}, spec(*x.shape, dtype=dtype), path=tmp_path / "f.onnx")
    (got,) = run(tmp_path / "f.onnx", [x])
    assert got.dtype == dtype
    np.testing.assert_allclose(got.astype("float64"), [math.erfc(number) for number in x], rtol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_erfc_at_zeros_infinity_and_nan(dtype, tmp_path):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 6e4, -6e4, 30.0, -30.0], dtype)
    with jax.enable_x64(True):
        convert.to_onnx(lambda _, x: lax.erfc(x), {}, spec(9, dtype=dtype), path=tmp_path / "f.onnx")
    (got,) = run(tmp_path / "f.onnx", [x])
    np.testing.assert_array_equal(got, np.array([np.nan, 0, 2, 1, 1, 0, 2, 0, 2], dtype))


def test_no_form_of_erfc_overflows_for_numbers_of_another(tmp_path):
    x = np.array([0.0, 1e-30, -0.3, 2.0, -3.0, 5.0, 1e30, -1e30, np.inf, -np.inf], "float32")
    convert.to_onnx(lambda _, x: lax.erfc(x), {}, spec(10), path=tmp_path / "f.onnx")
    model = onnx.load(tmp_path / "f.onnx")
    computed = [name for node in model.graph.node for name in node.output if name != model.graph.output[0].name]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in computed)
    onnx.save(model, tmp_path / "all.onnx")
    arrays = run(tmp_path / "all.onnx", [x])
    assert len(arrays) > 60
    not_finite = [array for array in arrays if array.dtype == np.float32 and not np.isfinite(array).all()]
    np.testing.assert_array_equal(not_finite, [[*x[:6], 30.0, x[7], 30.0, -np.inf]])  # the input, cut at one end so far


def test_tails_of_the_normal_distribution_keep_their_digits(tmp_path):
    x = np.array([-12.0, -8.0, -4.0, 0.5, 3.0, 4.0, 5.0, 8.0], "float32")

    def tails(x):
        cut = jnp.maximum(x, -2.0)
        return jnp.log(lax.erfc(cut)), jax.scipy.special.log_ndtr(x), jnp.log(jax.scipy.stats.norm.sf(cut))

    convert.to_onnx(lambda _, x: tails(x), {}, spec(8), path=tmp_path / "f.onnx")
    for got, expected in zip(run(tmp_path / "f.onnx", [x]), tails(x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=3e-6)
    np.testing.assert_allclose(run(tmp_path / "f.onnx", [x])[0][5:], [-17.98778, -27.20089, -66.65947], rtol=1e-6)


def test_gelu_has_the_short_form_of_erfc_and_other_products_do_not(tmp_path):
    x = np.linspace(-8, 8, 101).astype("float32")
    forms = (
        partial(jax.nn.gelu, approximate=False),
        lambda x: x * lax.erfc(-x / np.sqrt(2).astype("float32")) / 2,
        lambda x: x * 0.5 * lax.erfc(x * -np.float32(np.sqrt(0.5))),
    )
    for form in forms:
        check_function(tmp_path, form, x, tolerance=1e-6)
        assert "Erf" in nodes(tmp_path / "f.onnx")
        assert "Exp" not in nodes(tmp_path / "f.onnx")
    check_function(tmp_path, forms[0], x.astype("float16"), tolerance=1e-2)
    assert "Exp" not in nodes(tmp_path / "f.onnx")
    convert.to_onnx(lambda _, x: (x * lax.erfc(x), x[::-1] * lax.erfc(x)), {}, spec(101), path=tmp_path / "f.onnx")
    assert "Erf" not in nodes(tmp_path / "f.onnx")
    exact = np.array([math.erfc(number) for number in x])
    for got, factor in zip(run(tmp_path / "f.onnx", [x]), (x, x[::-1]), strict=True):
        np.testing.assert_allclose(got, factor * exact, rtol=2e-6)


def test_functions_of_two_numbers(tmp_path):
    check_function(tmp_path, each("add sub mul div max min rem atan2 eq ne lt le gt ge"), X, POSITIVE)
    check_function(tmp_path, each("pow"), POSITIVE, X)
    divisors = np.where(WHOLE == 0, 3, WHOLE[::-1])
    check_function(tmp_path, each("add sub mul div max min rem eq ne lt le"), WHOLE, divisors)


def test_extremes_and_clipping_keep_nan(tmp_path):
    check_function(tmp_path, lambda x: (jnp.maximum(x, 0.0), jnp.minimum(x, 0.0), jnp.clip(x, -1, 1)), EDGES)


def test_extremes_over_an_axis_and_their_places_keep_nan(tmp_path):
    """The maximum of numbers and NaN is NaN in JAX, and its place that of the first NaN."""
    x = X.copy()
    x[0, 1, 2] = x[0, 1, 4] = x[2, 0, 0] = np.nan
    x[1, :, 1], x[1, :, 2] = np.inf, -np.inf

    def f(x):
        extremes = [x.max(axis) for axis in (0, 1, 2, (0, 1), None)] + [x.min(axis) for axis in (1, -1, None)]
        places = [x.argmax(axis) for axis in (0, 1, 2)] + [x.argmin(axis) for axis in (0, 1, 2)]
        return extremes, places, jax.nn.softmax(x), jnp.argmax(x), jax.nn.logsumexp(x, 1)

    for dtype in ("float32", "float16"):
        check_function(tmp_path, f, x.astype(dtype), tolerance=1e-5 if dtype == "float32" else 2e-2)
    (size,) = symbols("size")
    open_size = spec(size, 5)
    check(tmp_path / "g.onnx", lambda _, x: (x.max(0), x.argmin(0)), {}, (x[0],), (x[2],), specs=[open_size])


def test_extremes_over_no_numbers_are_the_initial_value(tmp_path):
    (size,) = symbols("size")
    f = lambda _, x: [jnp.max(x, 0, initial=-jnp.inf), jnp.min(x, 0, initial=5.0), jnp.max(x, (0, 1), initial=-1.0)]
    empty = np.zeros((0, 5), "float32")
    check(tmp_path / "f.onnx", f, {}, (empty,), (X[0],), specs=[spec(size, 5)])


def test_angles_of_zeros_of_both_signs_infinity_and_nan(tmp_path):
    edges = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -3e30], "float32")
    check_function(tmp_path, jnp.arctan2, edges[:, None], edges[None])


OUTSIDE = [
    np.nan,
    np.inf,
    -np.inf,
    3e9,
    -3e9,
    1e20,
    -1e20,
    70000,
    -70000,
    300,
    -300,
    127.9,
    -128.9,
    1.7,
    -1.7,
    -0.5,
    2**31,
    -(2.0**31),
]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_out_of_range_become_the_nearest_integers(tmp_path, dtype):
    names = "int8 uint8 int16 uint16 int32 uint32 bool"
    x = np.array(OUTSIDE, "float32").astype(dtype)
    if dtype == "bfloat16":  # a float32 outside, as ONNX Runtime has no bfloat16 for inputs
        check_function(
            tmp_path, lambda x: [x.astype(dtype).astype(to) for to in names.split()], np.array(OUTSIDE, "float32")
        )
        return
    check_function(tmp_path, lambda x: [x.astype(to) for to in names.split()], x)


def test_floats_out_of_range_become_the_nearest_integers_of_64_bits(tmp_path):
    x = np.array([*OUTSIDE, 2.0**63, -(2.0**63), 2.0**64, 4294967295.0, 1e300], "float64")
    with jax.enable_x64(True):
        names = "int8 uint8 int32 uint32 int64 uint64"
        check_function(tmp_path, lambda x: [x.astype(to) for to in names.split()], x)
        with np.errstate(over="ignore"):
            narrow = x.astype("float32")
        check_function(tmp_path, lambda x: [x.astype(to) for to in ("int64", "uint64")], narrow)


def test_integers_out_of_range_wrap(tmp_path):
    x = np.array([0, -1, 127, 128, 255, 256, 70000, -70000, 2**31 - 1, -(2**31)], "int32")
    check_function(
        tmp_path, lambda x: [x.astype(to) for to in ("int8", "uint8", "int16", "uint16", "uint32", "bool")], x
    )


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_floats_out_of_range_become_the_8_bit_floats_of_jax(tmp_path, dtype):
    x = np.array([1e6, -1e6, 448, 464, 500, 1.3, -0.01, np.nan, np.inf], "float32")
    check_function(tmp_path, lambda x: x.astype(dtype).astype("float32"), x)


def test_rounding_of_halves(tmp_path):
    finite = EDGES[:-3]
    ways = (lax.RoundingMethod.AWAY_FROM_ZERO, lax.RoundingMethod.TO_NEAREST_EVEN)
    check_function(tmp_path, lambda x: [lax.round(x, way) for way in ways], finite)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32", "bool"])
def test_integers_for_which_onnxruntime_has_few_kernels(tmp_path, dtype):
    numbers = WHOLE.astype(dtype)
    places = np.full_like(numbers, 2)

    def f(a, b):
        batched = (((2,), (2,)), ((0,), (0,)))
        both = [a < b, jnp.where(a > b, a, b), a.max(1), a.argmax(0), jnp.pad(a, 1), jnp.sort(a, 1)]
        if dtype == "bool":
            return both
        shifted = [lax.shift_left(a, places), lax.shift_right_logical(a, places)]
        sums = [a.sum(), (a % 5).prod(1), lax.cumsum(a, 1), lax.dot_general(a, b, batched)]
        return [*both, *shifted, *sums, jnp.maximum(a, b), a + b, a * b]

    check_function(tmp_path, f, numbers, numbers[::-1])


def test_bits_and_truth(tmp_path):
    check_function(tmp_path, each("bitwise_and bitwise_or bitwise_xor"), WHOLE, WHOLE[::-1])
    check_function(tmp_path, each("bitwise_and bitwise_or bitwise_xor"), TRUTH, TRUTH[::-1])
    check_function(tmp_path, lambda a, b: (~a, ~b, jnp.any(b, 1), jnp.all(b)), WHOLE, TRUTH)


def test_powers_casts_and_choices(tmp_path):
    def f(x, whole, truth, which):
        powers = x**2, x**3, x**-1, x**-2, whole**2, whole**3
        casts = (x * 10).astype("int32"), whole.astype("float32"), whole.astype(bool), truth.astype("int8")
        narrow = x.astype("bfloat16").astype("float32"), lax.reduce_precision(x, 8, 7)
        choices = jnp.where(truth, x, 0), jnp.where(truth, truth[::-1], whole > 3), lax.select_n(which, x, -x, x * 3)
        return powers, casts, narrow, choices

    which = np.broadcast_to(np.array([0, 1, 2, 1], "int32")[:, None], (3, 4, 5))
    check_function(tmp_path, f, POSITIVE, WHOLE, TRUTH, which)


def test_activations(tmp_path):
    names = "relu gelu silu elu selu celu softplus mish leaky_relu hard_swish relu6 log_sigmoid softmax log_softmax logsumexp"
    functions = [getattr(jax.nn, name) for name in names.split()]
    functions.append(partial(jax.nn.gelu, approximate=False))
    functions.append(lambda x: jax.nn.softmax(100 * x, axis=1))
    functions.append(lambda x: jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf)))
    check_function(tmp_path, partial(all_of, functions), X * 3)


# ------------------------------------------------------------------------------------- shapes


def test_shapes(tmp_path):
    def f(a):
        views = (
            a.reshape(12, 5),
            a.reshape(-1),
            a.T,
            a.swapaxes(0, 1),
            a[None],
            a[:, None].squeeze(1),
            jnp.tile(a, (2, 1, 1)),
        )
        joined = (
            jnp.concatenate([a, 2 * a], 1),
            jnp.stack([a, a], -1),
            jnp.repeat(a, 2, 1),
            jnp.broadcast_to(a, (2, 3, 4, 5)),
        )
        parts = a[1:], a[:, 1:3, ::2], a[-1], a[..., 0], a[:, -2:], jnp.split(a, [1, 3], 2)
        turned = a[::-1], jnp.flip(a, (0, 2)), jnp.roll(a, 1, 1)
        return views, joined, parts, turned

    check_function(tmp_path, f, X)


def test_padding_of_all_kinds(tmp_path):
    def f(a):
        with_holes = (
            lax.pad(a, 1.0, [(1, 2, 0), (0, 0, 2), (-1, 1, 0)]),
            lax.pad(a, 0.0, [(-1, 0, 1), (0, -2, 0), (2, -1, 3)]),
        )
        return with_holes, [
            jnp.pad(a, ((1, 1), (0, 1), (2, 2)), mode) for mode in ("wrap", "reflect", "edge", "constant")
        ]

    check_function(tmp_path, f, X)


def test_numbers_that_are_made(tmp_path):
    def f(a):
        made = a + jnp.arange(5), lax.broadcasted_iota("int32", (3, 4), 1), jnp.eye(4), jnp.tril(a), jnp.ones(3), 2.0
        drawn = jax.random.normal(jax.random.key(0), (4, 5)) + a
        return made, drawn, jnp.zeros((100, 100)), a[0, 0, 0] + jnp.arange(100_000), a + jnp.nan, a * jnp.inf

    check_function(tmp_path, f, X)


def test_arrays_without_axes_and_without_elements(tmp_path):
    check_function(tmp_path, lambda x: (x + 1, x[None], x * jnp.ones(3), x.reshape(1, 1)), np.float32(2))

    def f(x):
        none = x[:0]
        return none, jnp.concatenate([none, x]), none.sum(), none.reshape(0, 20), jnp.zeros((2, 0)) @ jnp.zeros((0, 3))

    check_function(tmp_path, f, X)
    batch, _ = symbols()
    check_function(tmp_path, lambda x: (x[:, :0], jnp.zeros((x.shape[0], 0)), jnp.concatenate([x[:, :0], x], 1)), X, specs=[
        spec(batch, 4, 5)
    ])  # fmt: skip


def test_one_value_as_several_outputs(tmp_path):
    check_function(tmp_path, lambda x, y: (x, x, y, jnp.exp(x), x), X, TRUTH)


# --------------------------------------------------------------------------------- reductions


def test_reductions(tmp_path):
    def f(a, whole):
        floats = a.sum(), a.sum((0, 2)), a.max(1), a.min(-1), a.prod(1), a.mean(), a.var(1), a.argmax(1), a.argmin()
        integers = whole.sum(), whole.max(1), whole.min(), whole.prod(2), whole.argmax(1), jnp.argmax(a > 0, -1)
        running = jnp.cumsum(a, 1), lax.cumsum(a, 2, reverse=True), jnp.cumprod(a, 1), lax.cummax(a, 0)
        return floats, integers, running, lax.cummin(whole, 2, reverse=True), lax.associative_scan(jnp.add, a)

    check_function(tmp_path, f, X, WHOLE)


def test_sorting(tmp_path):
    ties = np.round(X)
    check_function(
        tmp_path,
        lambda a, b: (
            jnp.sort(a, 1),
            jnp.argsort(b, 2),
            lax.top_k(a, 3),
            jnp.median(a, 1),
            lax.sort((b, a), num_keys=2),
        ),
        X,
        ties,
    )


def test_matrix_products_in_all_forms(tmp_path):
    def f(a, vector, matrix, q, k):
        plain = a @ a.swapaxes(1, 2), a @ vector, vector @ vector, jnp.outer(vector, vector), vector @ matrix.T
        several = jnp.tensordot(a, matrix, ((1, 2), (0, 1))), jnp.tensordot(a, matrix, 0)
        forms = "bkgtd,bskd->bkgts", "bkgtd,bskd->bts", "bkgtd,bskd->kbgtsd", "bkgtd,bskd->"
        return plain, several, [jnp.einsum(form, q, k) for form in forms]

    q = RANDOM.normal(size=(2, 3, 2, 4, 5)).astype("float32")
    k = RANDOM.normal(size=(2, 6, 3, 5)).astype("float32")
    check_function(tmp_path, f, X, X[0, 0], X[0], q, k)


def test_a_product_of_halves_is_summed_in_float32(tmp_path):
    def f(a):
        return jnp.einsum("abc,adc->abd", a, a, preferred_element_type="float32")

    check_function(tmp_path, f, (10 * X).astype("float16"))


# ------------------------------------------------------------------------------------ indices

ROWS = np.array([0, 2, 1], "int32")
OUTSIDE = np.array([7, 2, -1, -9], "int32")


def test_look_ups(tmp_path):
    def f(a, rows, row):
        by_rows = a[rows], a[:, rows], jnp.take_along_axis(a, rows[:, None, None], 1), a[rows, rows], a[rows, :, rows]
        windows = jax.vmap(lambda start: lax.dynamic_slice(a, (start, 1, 0), (2, 2, 5)))(rows)
        batched = jax.vmap(lambda own, start: lax.dynamic_slice(own, (start, 0), (2, 5)))(a, rows)
        mapped = jax.vmap(lambda own, at: own[:, at], (1, 0))(a, jnp.arange(4))
        single = (
            a[row],
            a[:, row, 1],
            lax.dynamic_index_in_dim(a, row, 1),
            lax.dynamic_slice(a, (row, 0, row + 3), (2, 4, 2)),
        )
        return by_rows, windows, batched, mapped, single

    check_function(tmp_path, f, X, ROWS, np.int32(2))


def test_look_ups_along_axes_without_an_index(tmp_path):
    def f(a, rows):
        numbers = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0, 2), start_index_map=(1,))
        part = lax.gather(a[:1, :, :1], rows[:, None], numbers, (1, 2, 1))
        numbers = lax.GatherDimensionNumbers(offset_dims=(1, 2, 3), collapsed_slice_dims=(), start_index_map=())
        return part, lax.gather(a, rows[:, None][:, :0], numbers, (2, 4, 3))

    check_function(tmp_path, f, X, ROWS)


def test_look_ups_outside_of_the_array(tmp_path):
    def f(a, rows):
        options = {"mode": "fill", "wrap_negative_indices": False}
        floats = (
            a.at[rows].get(**options),
            a.at[:, rows].get(**options, fill_value=7),
            jnp.take(a, rows, 0, mode="clip"),
        )
        truth = (a > 0).at[rows].get(mode="fill"), (a > 0).at[rows].get(mode="fill", fill_value=False)
        return floats, truth, a.astype(int).at[rows].get(mode="fill")

    check_function(tmp_path, f, X, OUTSIDE)


def test_updates_at_places(tmp_path):
    def f(a, rows, new, row):
        columns = new.swapaxes(0, 1)[:3]
        reduced = (
            a.at[rows].add(new),
            a.at[:, rows].multiply(columns),
            a.at[rows].max(new),
            a.at[rows, rows].min(new[:, 0]),
        )
        written = a.at[rows].set(new), a.at[rows, 1:3].set(new[:, 1:3]), a.at[rows, :, rows].set(new[:, :, 0])
        counted = jnp.zeros(5, int).at[jnp.array([1, 1, 2])].add(rows)
        block = lax.dynamic_update_slice(a, a[:2, :1] * 0, (row, row + 1, 0)), a.at[row].set(1.0)
        own = jax.vmap(lambda old, at: lax.dynamic_update_slice(old, jnp.ones((2, 3)), (at, 0)))(a, rows)
        return reduced, written, counted, block, own

    check_function(tmp_path, f, X, ROWS, X[::-1].copy(), np.int32(2))


def test_updates_of_the_whole_array(tmp_path):
    check_function(
        tmp_path, lambda a, b: (a.at[:].set(b), a.at[...].add(b), a.at[:].max(2 * b), a.at[:, :].set(3.0)), X, X[::-1]
    )


def test_updates_outside_of_the_array_are_dropped(tmp_path):
    def f(a, rows, new):
        rows_of_4 = a.at[:, rows].add(new.swapaxes(0, 1)[:3], mode="drop")
        own = jax.vmap(lambda old, at: old.at[at].set(0.0, mode="drop"))(a, rows)
        return a.at[rows].set(new, mode="drop"), a.at[rows].add(new, mode="drop"), rows_of_4, own

    check_function(tmp_path, f, X, np.array([0, 12, 1], "int32"), X[::-1].copy())


# ----------------------------------------------------------------------- convolutions, windows


def convolution(x: Any, kernel: Any, **options: Any) -> Any:
    rank = len(x) - 2
    axes = "DHW"[3 - rank :]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    options = {"window_strides": (1,) * rank, "padding": "SAME", "dimension_numbers": numbers, **options}
    arrays = RANDOM.normal(size=x).astype("float32"), RANDOM.normal(size=kernel).astype("float32")
    return partial(lax.conv_general_dilated, **options), arrays


CONVOLUTIONS = {
    "1-D": convolution((2, 9, 4), (3, 4, 6), window_strides=(2,)),
    "2-D, dilated": convolution((2, 9, 8, 4), (3, 2, 4, 6), window_strides=(2, 1), rhs_dilation=(1, 2)),
    "3-D": convolution((2, 5, 6, 7, 4), (2, 3, 2, 4, 6), window_strides=(1, 2, 1), padding="VALID"),
    "groups": convolution((2, 9, 8, 4), (3, 2, 2, 6), window_strides=(2, 1), feature_group_count=2),
    "depthwise": convolution((2, 9, 8, 4), (3, 2, 1, 8), feature_group_count=4),
    "cropped": convolution((2, 9, 8, 4), (3, 2, 4, 6), padding=[(-1, 2), (0, -2)]),
    "features first": convolution((2, 4, 9, 8), (6, 4, 3, 2), dimension_numbers=("NCHW", "OIHW", "NCHW")),
    "no axis of space": convolution((2, 4), (5, 4), dimension_numbers=lax.ConvDimensionNumbers((0, 1), (0, 1), (0, 1))),
    "transposed 1-D": convolution((2, 5, 4), (3, 4, 6), padding=[(2, 2)], lhs_dilation=(2,)),
    "transposed 2-D": convolution((2, 5, 4, 4), (3, 2, 4, 6), padding=[(1, 2), (1, 0)], lhs_dilation=(2, 3)),
    "transposed, beyond": convolution(
        (2, 5, 4, 4), (3, 2, 4, 6), padding=[(3, 5), (-1, 4)], lhs_dilation=(2, 3), rhs_dilation=(2, 1)
    ),
    "transposed in groups": convolution(
        (2, 5, 4, 4), (3, 2, 2, 6), padding=[(1, 2), (1, 1)], lhs_dilation=(2, 2), feature_group_count=2
    ),
    "transposed 3-D": convolution(
        (2, 5, 4, 3, 4), (3, 2, 2, 4, 6), padding=[(2, 2), (1, 1), (0, 1)], lhs_dilation=(2, 1, 2)
    ),
    "spread and strided": convolution(
        (2, 5, 4, 4), (3, 2, 4, 6), padding=[(1, 2), (1, 0)], lhs_dilation=(3, 2), window_strides=(2, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(tmp_path, name):
    f, (x, kernel) = CONVOLUTIONS[name]
    check_function(tmp_path, f, x, kernel)
    if name.startswith("transposed"):  # which does not multiply by zeros
        assert "ConvTranspose" in nodes(tmp_path / "f.onnx")


@pytest.mark.parametrize("kind", ["max", "min", "sum"])
def test_windows(tmp_path, kind):
    function, start = {"max": (lax.max, -np.inf), "min": (lax.min, np.inf), "sum": (lax.add, 0.0)}[kind]
    neutral = np.float32(start)

    def f(x):
        window = partial(lax.reduce_window, init_value=neutral, computation=function)
        image = partial(window, x, window_dimensions=(1, 3, 2, 1))
        plain = image(window_strides=(1, 2, 2, 1), padding="SAME")
        dilated = image(window_strides=(1, 1, 2, 1), padding="VALID", window_dilation=(1, 2, 1, 1))
        wide = [(0, 0), (3, 1), (0, 4), (0, 0)]
        spread = image(window_strides=(1, 2, 2, 1), padding=wide, base_dilation=(1, 2, 1, 1))
        three = window(x, window_dimensions=(2, 3, 2, 1), window_strides=(1, 1, 1, 1), padding="VALID")
        one = window(x[0, :, 0, 0], window_dimensions=(3,), window_strides=(1,), padding="SAME")
        return plain, dilated, spread, three, one

    check_function(tmp_path, f, RANDOM.normal(size=(2, 7, 6, 3)).astype("float32"))


def test_windows_of_integers(tmp_path):
    least = np.iinfo("int32").min
    check_function(tmp_path, lambda x: lax.reduce_window(x, least, lax.max, (1, 3, 2), (1, 2, 2), "SAME"), WHOLE)


# ---------------------------------------------------------------------------- loops, branches


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("over", ["rows", "nothing"])
def test_scans(tmp_path, reverse, over):
    def f(x):
        def step(state, row):
            row = state * 0 if row is None else row
            state = jnp.tanh(state @ x[0, :, :4].T * 0.1 + row)
            return state, (state, state[0])

        rows = x[..., :4] if over == "rows" else None
        return lax.scan(step, x[0, :, :4] * 0 + 1, rows, 3, reverse=reverse)

    check_function(tmp_path, f, X)
    assert ("Scan" if over == "rows" else "Loop") in nodes(tmp_path / "f.onnx")


def test_scans_that_pass_values_through(tmp_path):
    def f(x):
        swapped = lax.scan(lambda state, row: ((state[1], state[0]), (row, state[0], x)), (x[0], x[1]), x)
        empty = lax.scan(lambda state, row: (state + row, state), x[0], x[:0])
        nested = lax.scan(lambda a, row: lax.scan(lambda b, cell: (b + cell * x.sum(), b), a, row), x[0, 0], x)
        return swapped, empty, nested

    check_function(tmp_path, f, X)


def test_what_is_the_same_in_all_iterations_is_computed_once(tmp_path):
    def f(x):
        return lax.scan(lambda state, row: (state + jnp.sin(x[0]) @ row, None), x[0] @ x[0].T, x.swapaxes(1, 2))[0]

    check_function(tmp_path, lambda x: f(x[:, :4, :4]), X)
    import onnx

    main = [node.op_type for node in onnx.load(tmp_path / "f.onnx").graph.node]
    assert "Sin" in main


def test_other_loops(tmp_path):
    def f(x, count):
        doubled = lax.while_loop(
            lambda state: state[0].sum() < 100, lambda state: (state[0] * 2 + x, state[1] + 1), (x, 0)
        )
        counted = lax.fori_loop(0, 4, lambda at, state: state.at[at].add(x[0, 0, 0]), x[0])
        none = lax.while_loop(lambda state: state[0, 0] < 0, lambda state: state - 1, x[0])
        return doubled, counted, none, lax.fori_loop(0, count, lambda at, state: state + at, x)

    check_function(tmp_path, f, POSITIVE, np.int32(3))


def test_a_while_loop_under_vmap_goes_on_row_by_row(tmp_path):
    def doubled(row, is_on):
        return lax.while_loop(lambda state: state[0].sum() < 10, lambda state: (2 * state[0], ~state[1]), (row, is_on))

    rows = np.array([[1, 1], [3, 0.5], [20, 1]], "float32")
    check_function(tmp_path, jax.vmap(doubled), rows, np.array([True, False, True]))


def test_branches(tmp_path):
    def f(x, at):
        chosen = lax.cond(x.sum() > 0, lambda a: a + 1, lambda a: a * 2, x)
        switched = lax.switch(at, [lambda a: a, lambda a: a * 0, lambda a: jnp.full_like(a, 3.0)], x)
        in_a_scan = lax.scan(
            lambda s, row: (lax.cond(row.sum() > 0, lambda s: s + row, lambda s: s, s), s.sum()), x[0], x
        )
        platform = lax.platform_dependent(x, cpu=lambda a: a + 1, default=lambda a: a + 2)
        return chosen, switched, in_a_scan, platform

    runs = [(X, np.int32(at)) for at in (-1, 0, 1, 2, 9)]
    check(tmp_path / "f.onnx", lambda params, x, at: f(x, at), {}, *runs)


def test_calls_are_opened(tmp_path):
    @jax.custom_vjp
    def doubled(x):
        return 2 * x

    doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (g,))
    check_function(tmp_path, jax.checkpoint(lambda x: jax.jit(jnp.sin)(doubled(jax.nn.relu(x)))), X)
    check_function(tmp_path, jax.grad(lambda x: jnp.tanh(x @ x.swapaxes(1, 2)).sum()), X)


# -------------------------------------------------------------------------------------- sizes


def test_arithmetic_of_symbolic_sizes(tmp_path):
    def f(x):
        batch, length, _ = x.shape
        flat = x.reshape(batch * length, 5), x.reshape(batch, -1), jnp.concatenate([x, x], 1)
        sizes = jnp.arange(2 * length + 1), x.sum() / batch, jnp.zeros((batch, length + batch)), x[:, : length // 2]
        turned = x[:, ::-1], x[:, 1:], x[:, -1], x[:, ::2], jnp.pad(x, ((0, 0), (length, 1), (0, 0)))
        larger = jnp.ones(jax.core.max_dim(batch, length)), jnp.arange(length % 3)
        return flat, sizes, turned, larger

    batch, length = symbols("batch, length", "length >= 2")
    runs = [(X,), (RANDOM.normal(size=(5, 7, 5)).astype("float32"),), (X[:1, :2],)]
    check(tmp_path / "f.onnx", lambda params, x: f(x), {}, *runs, specs=[spec(batch, length, 5)])
