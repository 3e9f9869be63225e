"""Plots: the lines, bins and colours that are drawn, on trees and files; which arguments are refused. No pixels."""

import builtins
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import ptree as pt
from ptree import initializers as I
from ptree.look import (
    History,
    observe,
    plot_distributions,
    plot_history,
    plot_kernels,
    plot_similarity,
    plot_singular_values,
)
from ptree.look._training.history_columns import ratio_of

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

RANDOM = np.random.default_rng(0)


def stack_of(count, shape=(16, 8)):
    return {"h": [{"w": RANDOM.normal(size=shape).astype("f4")} for _ in range(count)]}


def drawn(figure):
    """Draw, so that what fails only then fails here."""
    figure.draw_without_rendering()
    return figure


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


# ------------------------------------------------------------------------------ distributions


def test_a_histogram_has_numpys_counts():
    from ptree.look._plots.distributions import distribution_of, layers_of_leaves
    from ptree.look._sources.source_of import source_of

    numbers = RANDOM.normal(size=100_000).astype("f4")
    source = source_of({"w": numbers})
    distribution = distribution_of(source, layers_of_leaves(source, ["w"])[0])
    edges = np.linspace(-4, 4, 41)
    expected, _ = np.histogram(numbers, edges)
    # a number is known to 0.8 percent of itself, so some at the borders are counted in the next bin
    np.testing.assert_allclose(distribution.histogram(edges), expected, atol=0.08 * expected.max())
    assert distribution.histogram(np.array([-100.0, 100.0])).tolist() == [100_000]
    np.testing.assert_allclose(
        distribution.quantiles([0.023, 0.5, 0.977]), np.quantile(numbers, [0.023, 0.5, 0.977]), atol=0.02
    )
    halves = np.round(numbers * 2) / 2
    source = source_of({"w": halves.astype(ml_dtypes.bfloat16)})  # whose upper 16 bits are all of it
    distribution = distribution_of(source, layers_of_leaves(source, ["w"])[0])
    edges = np.arange(-4.25, 4.5, 0.5)
    np.testing.assert_array_equal(distribution.histogram(edges), np.histogram(halves, edges)[0])


def test_a_few_layers_are_histograms_with_the_declared_spread():
    spec = pt.Tree({"h": {str(at): {"w": pt.Param((64, 64), init=I.uniform(-0.5, 0.5))} for at in range(4)}})
    figure = drawn(plot_distributions(pt.init(spec, jax.random.key(0)), spec=spec))
    (ax,) = figure.axes
    assert titles(figure) == ["h/{0..3}/w"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2", "3"]
    ends = {label: set() for label in ("declared mean ± std", "declared bounds")}
    for collection in ax.collections:
        if collection.get_label() in ends:
            ends[collection.get_label()] |= {round(float(segment[0][0]), 4) for segment in collection.get_segments()}
    assert ends == {"declared mean ± std": {-0.2887, 0.2887}, "declared bounds": {-0.5, 0.5}}


def test_updates_of_0_to_a_leaf_of_0_have_the_ratio_0(tmp_path):
    steps = {
        "params": {"b": np.zeros(2, "f4"), "w": np.ones(2, "f4")},
        "updates": {"b": np.zeros(2, "f4"), "w": np.ones(2, "f4")},
    }
    history = pt.look.History(tmp_path)
    for step in range(3):
        history.record(step, jax.jit(lambda steps: pt.look.observe(steps["params"], updates=steps["updates"]))(steps))
    figure = drawn(plot_history(history))
    assert "NaN or inf" not in [line.get_label() for ax in figure.axes for line in ax.lines]


def bias_from_zeros(steps, leaves):
    """Norms over training of biases that begin with zeros, and of a kernel; a NaN at the last step of the kernel."""
    biases = {f"{at}/bias": np.arange(steps, dtype=float) for at in range(leaves)}
    params = {**biases, "kernel": np.full(steps, 4.0)}
    updates = {path: np.ones(steps) for path in params}
    updates["kernel"][-1] = np.nan
    return {"params/norm": params, "updates/norm": updates}


class WithNorms:
    """A history that has the ratio itself, as a `History` has."""

    def __init__(self, norms):
        self.norms = {statistic: np.stack([*by_path.values()], 1) for statistic, by_path in norms.items()}
        self.paths = list(norms["params/norm"])
        self.steps = np.arange(len(self.norms["params/norm"]))
        self.statistics = ["params/norm", "updates/norm", "updates/ratio"]

    def values(self, statistic):
        norms = self.norms
        return ratio_of(norms["updates/norm"], norms["params/norm"]) if "ratio" in statistic else norms[statistic]


@pytest.mark.parametrize("given", [lambda norms: norms, WithNorms])
def test_the_ratio_to_a_leaf_of_zeros_is_a_gap_and_no_fault(given):
    (ax,) = drawn(plot_history(given(bias_from_zeros(4, 1)), statistics=["updates/ratio"])).axes
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["0/bias"].get_ydata(), [np.nan, 1, 1 / 2, 1 / 3])
    np.testing.assert_array_equal(lines["kernel"].get_ydata(), [0.25, 0.25, 0.25, np.nan])
    assert lines["NaN or inf"].get_xdata().tolist() == [3]  # of the kernel alone
    (ax,) = drawn(plot_history(given(bias_from_zeros(4, 1)), "0/bias", statistics=["updates/ratio"])).axes
    assert [line.get_label() for line in ax.lines] == ["0/bias"]


@pytest.mark.parametrize("given", [lambda norms: norms, WithNorms])
def test_of_many_leaves_the_ratio_to_zeros_is_grey_and_not_black(given):
    figure = drawn(plot_history(given(bias_from_zeros(4, 20)), statistics=["updates/ratio"]))
    ratios, bad = figure.axes[0].collections[:2]
    assert np.argwhere(~bad.get_array().mask).tolist() == [[20, 3]]  # of the kernel, which comes last
    assert ratios.get_array().mask[:, 0].sum() == 20
    assert figure.axes[0].get_title(loc="right") == "grey: 0 or undefined, black: NaN or inf"


@pytest.mark.parametrize("given", [lambda norms: norms, WithNorms])
def test_a_step_without_a_ratio_hides_none_of_those_drawn_with_it(given):
    norms = bias_from_zeros(4500, 1)
    norms["params/norm"]["1/bias"] = np.zeros(4500)
    norms["updates/norm"]["1/bias"] = np.ones(4500)
    (ax,) = drawn(plot_history(given(norms), statistics=["updates/ratio"])).axes
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(lines["0/bias"].get_ydata()[:2], [1, 1 / 5])  # the largest of steps 0 to 4, and 5 to 9
    assert np.isnan(lines["1/bias"].get_ydata()).all()
    assert lines["NaN or inf"].get_xdata().tolist() == [4495]


def history_of_a_thawed_layer(folder, leaves=1, steps=4):
    """A layer that is frozen for the first steps, one that always is, and one with a NaN gradient at the last step."""
    params = {"thawed": jnp.ones(2), "frozen": jnp.ones(2)}
    params["trained"] = {f"{at}": jnp.ones(2) for at in range(leaves)}
    history = History(folder)
    with history:
        for step in range(steps):
            grads = {"trained": dict(params["trained"])}
            if step >= steps // 2:
                grads["thawed"] = jnp.ones(2)
            if step == steps - 1:
                grads["trained"]["0"] = jnp.full(2, jnp.nan)
            history.record(step, observe(params, grads=grads, updates=grads))
    return history


def test_a_frozen_leaf_is_no_fault(tmp_path):
    history = history_of_a_thawed_layer(tmp_path / "run")
    figure = drawn(plot_history(history))
    colors = set()
    for ax, statistic in zip(figure.axes, ["params/norm", "grads/norm", "updates/norm", "updates/ratio"], strict=True):
        lines = {line.get_label(): line for line in ax.lines}
        assert ("frozen" in lines) == (statistic == "params/norm")
        assert {"thawed", "trained/0"} <= {*lines}
        if statistic != "params/norm":
            assert np.isnan(lines["thawed"].get_ydata()).tolist() == [True, True, False, False]
            assert lines["NaN or inf"].get_xdata().tolist() == [3]
        colors.add(lines["trained/0"].get_color())
    assert len(colors) == 1  # in all panels
    recorded = history.are_recorded("updates/ratio")
    assert dict(zip(history.paths, recorded.T.tolist())) == {
        "thawed": [False, False, True, True],
        "frozen": [False] * 4,
        "trained/0": [True] * 4,
    }


def test_panels_of_frozen_leaves_alone_say_that_nothing_was_recorded(tmp_path):
    figure = drawn(plot_history(history_of_a_thawed_layer(tmp_path / "run"), "frozen"))
    assert [[text.get_text() for text in ax.texts] for ax in figure.axes] == [[], *[["not recorded"]] * 3]


def test_rows_of_a_thawed_leaf_are_grey_before(tmp_path):
    history = history_of_a_thawed_layer(tmp_path / "run", leaves=20)
    figure = drawn(plot_history(history, statistics=["grads/norm"]))
    norms, bad = figure.axes[0].collections[:2]
    assert norms.get_array().shape == (21, 4)
    assert norms.get_array().mask.sum() == 3  # two steps of the frozen layer, and the NaN
    assert (~bad.get_array().mask).sum() == 1
    assert figure.axes[0].get_title(loc="right") == "grey: 0 or not recorded, black: NaN or inf"


def test_the_steps_before_a_leaf_is_trained_hide_none_of_those_drawn_with_them(tmp_path):
    history = history_of_a_thawed_layer(tmp_path / "run", steps=2002)  # three steps at each point
    (ax,) = drawn(plot_history(history, statistics=["updates/norm"])).axes
    lines = {line.get_label(): line for line in ax.lines}
    assert np.isnan(lines["thawed"].get_ydata()).sum() == 1001 // 3
    assert lines["NaN or inf"].get_xdata().tolist() == [2001]


def test_numbers_beyond_the_range_of_f32_are_drawn_where_they_are():
    figure = drawn(plot_distributions({"w": np.linspace(-3e300, 2e300, 1000), "v": np.array([1.7e308, -1.7e308, 0])}))
    assert figure.axes[0].get_xlim() == pytest.approx((-3.15e300, 2.15e300))
    assert np.isfinite(figure.axes[1].get_xlim()).all()


def test_sizes_of_complex_numbers_are_called_so():
    figure = drawn(plot_distributions({"w": np.array([3 + 4j, -5]), "v": np.ones(3, "f4")}))
    assert sorted(titles(figure)) == ["sizes |z| of w", "v"]


def test_many_layers_are_bands_between_their_quantiles():
    tree = stack_of(300, (32, 32))
    tree["h"][7]["w"] = np.full((32, 32), np.nan, "f4")
    tree["h"][9]["w"] = np.zeros((32, 32), "f4")
    spec = {"h": [{"w": pt.Param((32, 32), init=I.normal(0.5))} for _ in range(300)]}
    figure = drawn(plot_distributions(tree, spec=spec))
    (ax,) = figure.axes
    lines = {line.get_label(): line for line in ax.lines}
    median = lines["median"].get_ydata()
    expected = [np.median(layer["w"]) for layer in tree["h"]]
    np.testing.assert_allclose(median, expected, atol=0.01)
    assert np.isnan(median[7])
    assert median[9] == 0
    assert lines["NaN or inf"].get_xdata().tolist() == [7]
    ends = [line.get_ydata()[0] for line in ax.lines if line.get_label() == "declared mean ± std"]
    assert ends == [-0.5, 0.5]
    inner = np.concatenate([path.vertices for path in ax.collections[2].get_paths()])  # cut at the gap
    at = inner[:, 0] == 20
    low, high = np.quantile(tree["h"][20]["w"], [0.159, 0.841])
    np.testing.assert_allclose([inner[at, 1].min(), inner[at, 1].max()], [low, high], rtol=0.02)


def test_stacks_are_drawn_layer_by_layer_and_large_trees_by_their_largest_groups():
    stacked = pt.Tree({"h": {":": {"w": jnp.arange(20.0 * 6).reshape(20, 2, 3)}}})
    spec = pt.Tree({"h": {":": {"w": pt.Param((20, 2, 3), init=I.constant(4.0))}}})
    (ax,) = plot_distributions(stacked, spec=spec).axes
    median = next(line for line in ax.lines if line.get_label() == "median").get_ydata()
    np.testing.assert_allclose(median, np.arange(20) * 6 + 2.5, atol=0.6)
    assert {line.get_ydata()[0] for line in ax.lines if line.get_label() == "declared mean ± std"} == {4.0}
    wide = {f"{letter}w": np.ones(at + 1) for at, letter in enumerate("abcdefghijklmnopqrst")}
    figure = plot_distributions(wide)
    assert titles(figure) == [f"{letter}w" for letter in "efghijklmnopqrst"]
    assert figure.get_supxlabel() == "4 smaller groups of leaves are not drawn: give a selector"


ODD = {
    "long $name$ " * 20: {"x" * 300: np.ones(3)},
    "\x1b[31m\n": np.ones(2),
    "scalar": 3.0,
    "nan": np.full(3, np.nan),
    "inf": np.array([1, np.inf, -np.inf]),
    "zero": np.zeros((2, 3)),
    "bf16": jnp.ones((3, 3), jnp.bfloat16),
    "i8": np.arange(-128, 128).astype("i1").reshape(16, 16),
    "i4": np.arange(-8, 8).astype(ml_dtypes.int4).reshape(4, 4),
    "fp8": np.ones((2, 2), ml_dtypes.float8_e4m3fn),
    "complex": np.array([[1 + 2j, 0], [3, 4]]),
    "bool": np.eye(3) > 0,
    "huge": np.array([[1e300, -1e300], [1e-300, 0]]),
    "empty": np.zeros((0, 3)),
    "text": "frozen",
    "function": print,
    "key": jax.random.key(0),
}


def test_leaves_of_all_kinds_are_drawn_or_left_out():
    figure = drawn(plot_distributions(ODD))
    shown = titles(figure)
    assert {"scalar", "nan", "zero", "bf16", "i{4,8}", "fp8", "sizes |z| of complex", "bool", "huge"} <= {*shown}
    assert not {"empty", "text", "function", "key"} & {*shown}
    assert r"\x1b[31m\n" in shown
    by_title = dict(zip(shown, figure.axes))
    assert [text.get_text() for text in by_title["nan"].texts] == ["3 NaN or inf"]
    assert [text.get_text() for text in by_title["inf"].texts] == ["2 NaN or inf"]
    drawn(plot_singular_values(ODD))
    drawn(plot_similarity(ODD, ODD))
    for name in ("scalar", "nan", "inf", "zero", "bf16", "i8", "i4", "fp8", "bool", "huge"):
        drawn(plot_kernels(ODD, name))


# ------------------------------------------------------------------------------ kernels


def pixels(figure):
    return figure.axes[0].images[0].get_array()


def test_a_matrix_is_drawn_as_it_is_with_colours_symmetric_around_zero():
    matrix = RANDOM.normal(size=(20, 30))
    matrix[3, 4] = np.nan
    figure = drawn(plot_kernels({"w": matrix}, "w"))
    shown = pixels(figure)
    np.testing.assert_array_equal(shown.filled(np.nan), matrix)
    low, high = figure.axes[0].images[0].get_clim()
    assert low == -high
    assert high == pytest.approx(np.nanquantile(abs(matrix), 0.999))
    assert figure.axes[0].get_title(loc="right") == "1 NaN or inf drawn black"
    assert figure.axes[0].images[1].get_array()[3, 4].tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("layout", ["spatial first", "pytorch"])
def test_filters_are_a_grid_of_inputs_and_outputs(layout):
    kernel = RANDOM.normal(size=(3, 3, 4, 8))
    given = kernel if layout == "spatial first" else kernel.transpose(3, 2, 0, 1)
    shown = pixels(plot_kernels({"k": given}, "k"))
    assert shown.shape == (4 * 4 - 1, 8 * 4 - 1)
    np.testing.assert_array_equal(shown[8:11, 20:23], kernel[:, :, 2, 5])
    assert shown.mask[3].all()
    assert shown.mask[:, 3].all()


def test_the_layers_of_a_stack_are_side_by_side_or_one_alone():
    stack = RANDOM.normal(size=(6, 10, 20)).astype("f4")
    tree = pt.Tree({"h": {":": {"w": stack, "b": stack[:, 0]}}})
    shown = pixels(plot_kernels(tree, "h/:/w"))
    np.testing.assert_array_equal(shown[:10, :20], stack[0])
    np.testing.assert_array_equal(shown[13:23, :20], stack[2])  # in rows of two
    np.testing.assert_array_equal(pixels(plot_kernels(tree, "h/4/w")), stack[4])
    np.testing.assert_array_equal(pixels(plot_kernels(tree, "h/:/b")), stack[:, 0])


def test_a_large_matrix_is_thinned_out():
    matrix = np.arange(5000 * 4, dtype="f4").reshape(5000, 4)
    figure = plot_kernels({"w": matrix}, "w")
    shown = pixels(figure)
    assert shown.shape == (768, 4)
    np.testing.assert_array_equal(shown[[0, -1]], matrix[[0, -1]])
    assert titles(figure)[0] == "w  [5,000, 4]: 768 rows and 4 columns, evenly spread"


@pytest.mark.parametrize(
    ("tree", "path", "error", "words"),
    [
        ({"kernel": np.ones(3)}, "kernal", pt.PatternError, "no leaf 'kernal' in 1 leaves. Did you mean 'kernel'?"),
        ({"k": pt.Param((3, 4))}, "k", pt.StructureError, "Draw it first: ptree.init(spec, key)"),
        ({"k": np.ones((0, 3))}, "k", pt.StructureError, "has no elements"),
        ({"k": np.ones(3) * 1j}, "k", pt.StructureError, "jnp.real(leaf)"),
        ({"k": jax.random.key(0)}, "k", pt.StructureError, "is a PRNG key"),
        ({"k": print}, "k", pt.StructureError, "holds no numbers"),
        ({"k": np.ones(3)}, 3, TypeError, "expected the path of one leaf"),
    ],
)
def test_what_is_no_kernel_is_refused(tree, path, error, words):
    with pytest.raises(error) as raised:
        plot_kernels(tree, path)
    assert words in str(raised.value)


# ------------------------------------------------------------------------------ singular values


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (3, 3, 4, 8), (40, 3000), (3000, 40), (2, 2)])
def test_singular_values_are_numpys(shape):
    matrix = RANDOM.normal(size=shape)
    (ax,) = plot_singular_values({"w": matrix}).axes
    expected = np.linalg.svd(matrix.reshape(-1, shape[-1]), compute_uv=False)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=1e-6)


def test_the_largest_values_of_a_matrix_of_two_long_sides(monkeypatch):
    from ptree.look._plots import spectra as _spectra
    from ptree.look._plots.distributions import layers_of_leaves
    from ptree.look._sources.source_of import source_of

    monkeypatch.setattr(_spectra, "LARGEST_SIDE", 64)  # 2,048 in use, which takes seconds
    monkeypatch.setattr(_spectra, "MOST_VALUES", 40)
    left, right = np.linalg.qr(RANDOM.normal(size=(210, 30)))[0], np.linalg.qr(RANDOM.normal(size=(206, 30)))[0]
    values = 0.8 ** np.arange(30)
    source = source_of({"w": (left * values) @ right.T})
    found = _spectra.singular_values(source, layers_of_leaves(source, ["w"])[0])
    np.testing.assert_allclose(found[:30], values, rtol=1e-6)
    assert len(found) == 40


def test_of_many_layers_evenly_spread_ones_are_drawn_and_bad_ones_named():
    tree = stack_of(300)
    tree["h"][299]["w"] = np.full((16, 8), np.inf)
    figure = drawn(plot_singular_values(tree))
    ax = figure.axes[0]
    assert ax.get_title(loc="left") == "h/{0..299}/w, 16 of 300 layers"
    assert len(ax.lines) == 16
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.linalg.svd(tree["h"][0]["w"], compute_uv=False), rtol=1e-5)
    assert [text.get_text() for text in ax.texts] == ["not drawn: 299"]
    with pytest.raises(pt.StructureError, match="there is no matrix to draw"):
        plot_singular_values({"b": np.ones(3)})


# ------------------------------------------------------------------------------ similarity


def test_similarity_is_that_by_hand():
    a, b = stack_of(3), stack_of(3)
    b["h"][1]["w"] = a["h"][1]["w"] * 1.5
    b["h"][2]["w"] = a["h"][2]["w"]
    figure = drawn(plot_similarity(a, b))
    cosine, relative, overlap = (ax.lines[0].get_ydata() for ax in figure.axes)
    one, other = a["h"][0]["w"].astype("f8"), b["h"][0]["w"].astype("f8")
    expected = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
    np.testing.assert_allclose(cosine, [expected, 1, 1], rtol=1e-6)
    expected = np.linalg.norm(other - one) / np.linalg.norm(one)
    np.testing.assert_allclose(relative, [expected, 0.5, 0], rtol=1e-6)
    # the first 4 of 8 directions, by the SVD
    first, second = np.linalg.svd(one)[2][:4], np.linalg.svd(other)[2][:4]
    angles = np.linalg.svd(first @ second.T, compute_uv=False)
    np.testing.assert_allclose(overlap, [np.mean(angles**2), 1, 1], rtol=1e-6)


def test_the_largest_directions_of_a_wide_matrix_are_those_of_the_svd():
    from ptree.look._plots.distributions import layers_of_leaves
    from ptree.look._plots.spectra import largest_directions
    from ptree.look._sources.source_of import source_of

    matrix = RANDOM.normal(size=(400, 300))
    source = source_of({"w": matrix})
    found = largest_directions(source, layers_of_leaves(source, ["w"])[0], 8)
    expected = np.linalg.svd(matrix)[2][:8].T
    assert np.sum((found.T @ expected) ** 2) / 8 == pytest.approx(1, abs=1e-3)


def test_a_checkpoint_and_a_tree_with_other_leaves(tmp_path):
    a = {"h": [{"w": np.full((40, 50), at + 1.0, "f4")} for at in range(3)], "x": np.ones(2), "old": np.ones(3)}
    b = {"h": [{"w": np.full((40, 50), 2.0, "f4")} for _ in range(3)], "x": np.ones(3), "new": np.ones(4)}
    pt.save(tmp_path / "a.safetensors", a)
    figure = drawn(plot_similarity(tmp_path / "a.safetensors", b))
    assert figure.get_supxlabel() == "leaves in one of the two alone: 2; leaves of another shape: 1"
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [1, 0, 1 / 3], rtol=1e-6)
    with pytest.raises(pt.StructureError, match="no leaf of the same path and shape"):
        plot_similarity({"a": np.ones(3)}, {"b": np.ones(3)})


def test_numbers_whose_squares_overflow_have_a_cosine():
    a, b = {"w": np.array([1e200, 1e200])}, {"w": np.array([1e200, 0])}
    figure = plot_similarity(a, b)
    assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(1 / np.sqrt(2))


# ------------------------------------------------------------------------------ history


def test_lines_and_the_ratio_of_two_norms():
    arrays = {
        "params/norm": {"a/w": [2.0, 4.0, 8.0], "a/b": [1.0, 1.0, 1.0]},
        "updates/norm": {"a/w": [1.0, 1.0, np.nan], "a/b": [0.0, 0.5, 0.25]},
        "loss": [3.0, 2.0, 1.0],
    }
    figure = drawn(plot_history(arrays))
    assert titles(figure) == ["loss", "params/norm", "updates/norm", "updates/ratio"]
    ratio = figure.axes[3]
    np.testing.assert_array_equal(ratio.lines[0].get_ydata(), [0.5, 0.25, np.nan])
    np.testing.assert_array_equal(ratio.lines[2].get_xdata(), [2])  # where a number is not finite
    figure = plot_history(arrays, "**/b", statistics=["params/norm"])
    assert [line.get_label() for line in figure.axes[0].lines] == ["a/b"]


def test_many_leaves_are_rows_of_colours_in_groups_and_spikes_are_kept():
    steps = 4500
    norms = {f"h/{at}/{name}": np.ones(steps) for at in range(300) for name in ("w", "b")}
    norms["h/7/w"][1234] = 50
    norms["h/8/w"][2000] = np.inf
    norms["h/9/w"][:] = 0
    figure = drawn(plot_history({"grads/norm": norms}))
    mesh, bad = figure.axes[0].collections[:2]
    shown = mesh.get_array()
    assert shown.shape == (600, 900)
    assert shown[7, 1234 // 5] == 50  # all kernels first
    assert shown.mask[9].all()
    assert np.argwhere(~bad.get_array().mask).tolist() == [[8, 400]]


class Recorded:
    def __init__(self):
        self.steps = np.array([10, 20])
        self.paths = ["a", "b"]
        self.statistics = ["grads/norm", "loss", "other"]

    def values(self, statistic):
        return {"grads/norm": np.array([[1.0, 2.0], [3.0, 4.0]]), "loss": np.array([5.0, 6.0])}[statistic]


def test_a_recorded_history_is_drawn_at_its_steps():
    figure = drawn(plot_history(Recorded(), "b"))
    assert titles(figure) == ["loss", "grads/norm"]
    (line,) = figure.axes[1].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([10, 20], [2, 4])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: plot_history({}), pt.StructureError, "the history is empty"),
        (lambda: plot_history(3), pt.StructureError, "expected a History, or arrays"),
        (lambda: plot_history({"n": {"a": [1], "b": [1, 2]}}), pt.StructureError, "got shapes [1], [2]"),
        (lambda: plot_history({"loss": [1]}, statistics=["los"]), pt.PathError, "Did you mean 'loss'?"),
        (lambda: plot_history({"n": {"w": [1]}}, "v"), pt.PatternError, "matches nothing"),
        (lambda: plot_history({"n": [1], "m": [1]}, ax=Figure().subplots()), pt.StructureError, "ax= is for one"),
        (lambda: plot_distributions({"w": np.ones(3)}, "v"), pt.PatternError, "matches nothing"),
        (lambda: plot_distributions({}), pt.StructureError, "dict has no leaves"),
        (lambda: plot_distributions({"w": pt.Param((3,))}), pt.StructureError, "Draw it first"),
        (lambda: plot_distributions("no.safetensors"), FileNotFoundError, "no file 'no.safetensors'"),
        (lambda: plot_distributions({"w": np.ones(3)}, ax=3), TypeError, "expected axes of matplotlib"),
        (lambda: plot_distributions({"w": np.ones(3)}, figure=3), TypeError, "expected a figure of matplotlib"),
    ],
)
def test_bad_input_says_what_to_do(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)


# ------------------------------------------------------------------------------ figures


def test_given_axes_and_figures_are_drawn_in():
    figure = Figure()
    left, right = figure.subfigures(1, 2)
    tree = stack_of(3)
    assert plot_distributions(tree, figure=left) is left
    ax = right.subplots()
    assert plot_distributions(tree, ax=ax) is right
    assert ax.collections
    assert plot_kernels(tree, "h/0/w", ax=ax).axes[0] is ax
    assert plot_singular_values(tree, ax=ax) is right
    with pytest.raises(TypeError, match="got both"):
        plot_kernels(tree, "h/0/w", ax=ax, figure=left)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    for call in (
        lambda: plot_distributions({"w": np.ones(3)}),
        lambda: plot_kernels({"w": np.ones(3)}, "w"),
        lambda: plot_history({"loss": [1]}),
    ):
        with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'ptree-jax\[plot\]'"):
            call()


def test_files_are_drawn_without_jax_and_nothing_through_pyplot(tmp_path):
    np.savez(tmp_path / "a.npz", **{"h/0/w": np.ones((4, 3)), "h/1/w": np.ones((4, 3))})
    code = """
import sys
from ptree.look import plot_distributions, plot_kernels, plot_similarity, plot_singular_values
path = sys.argv[1]
for figure in (plot_distributions(path), plot_kernels(path, "h/0/w"), plot_singular_values(path), plot_similarity(path, path)):
    figure.draw_without_rendering()
print("jax" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npz")], capture_output=True, text=True)
    assert ran.stdout == "False False\n", ran.stderr
