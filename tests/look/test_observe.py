"""observe: three numbers of each leaf from inside a jitted step, as one array with names."""

import csv

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says

import ptree as pt
from ptree.look import observe

RANDOM = np.random.default_rng(0)
PARAMS = {
    "w": RANDOM.standard_normal((30, 40)).astype(np.float32),
    "half": jnp.asarray(RANDOM.standard_normal(50), jnp.bfloat16),
    "wave": (RANDOM.standard_normal(5) + 1j * RANDOM.standard_normal(5)).astype(np.complex64),
    "n": np.arange(3),
    "none": np.zeros((0, 2), np.float32),
    "f": np.tanh,
    "blocks": {":": {"k": RANDOM.standard_normal((3, 4, 5)).astype(np.float32)}},
}


def wide(leaf):
    return np.asarray(leaf).astype(np.complex128 if np.iscomplexobj(leaf) else np.float64)


def test_numbers_are_numpys_of_each_leaf_and_layer():
    arrays = {name: leaf for name, leaf in PARAMS.items() if name != "f"}
    found = jax.jit(observe)(arrays).params
    k = PARAMS["blocks"][":"]["k"]
    expected = {
        "w": PARAMS["w"],
        "half": PARAMS["half"],
        "wave": np.abs(PARAMS["wave"]),
        "none": PARAMS["none"],
        **{f"blocks/{at}/k": k[at] for at in range(3)},
    }
    assert sorted(found.paths) == sorted(expected)
    for at, path in enumerate(found.paths):
        leaf = wide(expected[path])
        assert found.counts[at] == leaf.size
        np.testing.assert_allclose(found.norm[at], np.linalg.norm(leaf), rtol=1e-5)
        assert found.largest[at] == pytest.approx(np.abs(leaf).max(initial=0), rel=1e-6)
        if leaf.size:
            np.testing.assert_allclose(found.mean[at], leaf.mean(), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.std[at], leaf.std(), rtol=1e-4)


def test_a_training_step_with_a_part_of_the_parameters():
    optimiser = optax.sgd(0.1)
    params = pt.Tree({"enc": {"w": jnp.ones((3, 3))}, "head": {"w": jnp.full(3, 2.0)}})

    @jax.jit
    def step(params, state, x):
        trained, rest = pt.partition(params, "head/**")
        loss = lambda trained: ((x @ rest["enc/w"]) * pt.merge(trained, rest)["head/w"]).sum()
        grads = jax.grad(loss)(trained)
        updates, state = optimiser.update(grads, state)
        return observe(params, grads, updates)

    found = step(params, optimiser.init(pt.partition(params, "head/**")[0]), jnp.ones(3))
    assert found.params.paths == ("enc/w", "head/w")
    assert found.grads.paths == found.updates.paths == ("head/w",)
    np.testing.assert_allclose(found.grads.norm, [3 * 3**0.5], rtol=1e-6)
    np.testing.assert_allclose(found.ratio, [0.3 * 3**0.5 / (2 * 3**0.5)], rtol=1e-6)
    assert repr(found) == "<Observed params: 2 leaves, grads: 1 leaves, updates: 1 leaves>"


def test_it_goes_through_scan_and_to_the_host():
    def body(params, x):
        return jax.tree.map(lambda leaf: leaf + x, params), observe(params)

    _, found = jax.lax.scan(body, {"w": jnp.zeros(4)}, jnp.arange(3.0))
    np.testing.assert_allclose(found.params.mean[:, 0], [0, 0, 1])
    host = jax.device_get(found)
    assert isinstance(host.params.norm, np.ndarray)
    np.testing.assert_allclose(host.params.std, found.params.std)


def test_nan_and_inf_are_seen():
    found = observe({"a": jnp.ones(2), "b": jnp.array([1, jnp.nan]), "c": jnp.array([jnp.inf, 1])}).params
    assert np.isfinite(found.numbers).all(-1).tolist() == [True, False, False]


def test_a_stranger_among_the_gradients_is_an_error():
    with pytest.raises(pt.StructureError, match="grads have a leaf 'v', which the parameters do not have"):
        observe({"w": jnp.ones(2)}, {"v": jnp.ones(2)})
    with pytest.raises(pt.StructureError, match=r"at 'w' updates have the shape \(3,\), the parameters \(2,\)"):
        observe({"w": jnp.ones(2)}, None, {"w": jnp.ones(3)})
    with pytest.raises(pt.StructureError, match="no grads were observed"):
        observe({"w": jnp.ones(2)}).grads
    assert observe({}).params.paths == ()


def test_sharded_leaves_are_not_gathered():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
    leaf = jax.device_put(jnp.ones((4, 8 * len(jax.devices()))), jax.NamedSharding(mesh, jax.P(None, "d")))
    text = jax.jit(observe).lower({"w": leaf}).compile().as_text()
    assert "all-reduce" in text
    assert "all-gather" not in text


def test_each_statistic_is_read_by_path_also_where_a_part_is_trained():
    params = {"a": jnp.full(4, 2.0), "b": jnp.zeros(3), "c": {"w": jnp.ones(1)}, "z": jnp.ones(2)}
    updates = {"b": jnp.zeros(3), "c": {"w": jnp.full(1, 0.5)}, "z": jnp.full(2, 2.0)}
    found = jax.jit(observe)(params, None, updates)
    for read in (found, jax.device_get(found)):
        assert {path: float(ratio) for path, ratio in read.by_path("updates/ratio").items()} == {
            "b": 0,
            "c/w": 0.5,
            "z": 2,
        }
        assert {path: float(norm) for path, norm in read.by_path("params/norm").items()} == pytest.approx(
            {"a": 4, "b": 0, "c/w": 1, "z": 2**0.5}
        )
        assert list(read.by_path("updates/largest", "c")) == ["c/w"]
        for statistic in read.statistics:
            group, _, kind = statistic.partition("/")
            leaves = read.groups[group]
            numbers = read.ratio if kind == "ratio" else getattr(leaves, kind)
            assert list(read.by_path(statistic)) == list(leaves.paths)
            np.testing.assert_array_equal(list(read.by_path(statistic).values()), numbers)


def test_statistics_have_the_names_that_a_history_has(tmp_path):
    params = {"w": jnp.ones(2)}
    found = observe(params, params, params)
    with pt.look.History(tmp_path) as history:
        history.record(0, found)
        assert history.statistics == found.statistics
        for statistic in found.statistics:
            np.testing.assert_allclose(history.values(statistic)[0], list(found.by_path(statistic).values()), rtol=1e-6)


def test_numbers_by_path_keep_the_axes_of_a_scan():
    _, found = jax.lax.scan(lambda carry, x: (carry, observe({"w": carry * x})), jnp.ones(4), jnp.arange(3.0))
    assert found.by_path("params/largest")["w"].tolist() == [0, 1, 2]


def first_and_second_step():
    """A linear layer whose bias begins with zeros: parameters and updates of two steps, with a leaf that stays as it is."""
    params = {"bias": jnp.zeros(2), "still": jnp.zeros(2), "kernel": jnp.full(2, 4.0), "none": jnp.zeros((0, 2))}
    updates = {**params, "bias": jnp.full(2, 0.5), "kernel": jnp.full(2, 1.0)}
    return [(params, updates), (jax.tree.map(jnp.add, params, updates), updates)]


RATIOS = [
    {"bias": np.nan, "kernel": 0.25, "none": 0, "still": 0},
    {"bias": 1, "kernel": 0.2, "none": 0, "still": 0},
]


def test_the_ratio_of_a_leaf_of_zeros_is_undefined_and_hides_no_other():
    for (params, updates), expected in zip(first_and_second_step(), RATIOS, strict=True):
        compiled = jax.jit(lambda params, updates: observe(params, None, updates).by_path("updates/ratio"))
        for ratios in (
            observe(params, None, updates).by_path("updates/ratio"),
            jax.device_get(observe(params, None, updates)).by_path("updates/ratio"),
            compiled(params, updates),
        ):
            assert {path: float(ratio) for path, ratio in ratios.items()} == pytest.approx(expected, nan_ok=True)
            assert {ratio.dtype for ratio in ratios.values()} == {np.dtype(np.float32)}
        largest = jnp.nanmax(observe(params, None, updates).ratio)
        assert largest == max(ratio for ratio in expected.values() if ratio == ratio)


def test_a_ratio_that_is_not_finite_stays_so_where_a_norm_is_not():
    params = {
        "a": jnp.ones(1),
        "b": jnp.ones(1),
        "c": jnp.zeros(1),
        "d": jnp.full(1, jnp.nan),
        "e": jnp.full(1, jnp.inf),
    }
    updates = {
        "a": jnp.full(1, jnp.nan),
        "b": jnp.full(1, jnp.inf),
        "c": params["d"],
        "d": jnp.ones(1),
        "e": jnp.ones(1),
    }
    expected = {"a": np.nan, "b": np.inf, "c": np.nan, "d": np.nan, "e": 0}
    for found in (observe(params, None, updates), jax.device_get(observe(params, None, updates))):
        ratios = found.by_path("updates/ratio")
        assert {path: float(ratio) for path, ratio in ratios.items()} == pytest.approx(expected, nan_ok=True)


def test_numpy_does_not_warn_of_leaves_of_zeros(recwarn):
    params, updates = first_and_second_step()[0]
    assert len(jax.device_get(observe(params, None, updates)).ratio) == 4
    assert not recwarn


def test_values_tables_and_files_have_the_same_ratios(tmp_path):
    with pt.look.History(tmp_path / "run") as history:
        for at, (params, updates) in enumerate(first_and_second_step()):
            history.record(at, observe(params, None, updates))
    for read in (history, pt.look.History(tmp_path / "run")):
        expected = [[row[path] for path in read.paths] for row in RATIOS]
        np.testing.assert_allclose(read.values("updates/ratio"), expected, rtol=1e-6)
    history.to_csv(tmp_path / "run.csv")
    with open(tmp_path / "run.csv", newline="") as opened:
        for row in csv.DictReader(opened):
            expected = RATIOS[int(row["step"])][row["path"]]
            assert float(row["updates/ratio"]) == pytest.approx(expected, nan_ok=True, rel=1e-6)


def test_the_ratio_keeps_the_axes_of_a_scan():
    def body(params, update):
        return jax.tree.map(jnp.add, params, update), observe(params, None, update)

    _, found = jax.lax.scan(body, {"b": jnp.zeros(1)}, {"b": jnp.array([[0.0], [2.0], [1.0]])})
    np.testing.assert_array_equal(found.by_path("updates/ratio")["b"], [0, np.nan, 0.5])


def test_a_statistic_that_was_not_observed_says_what_there_is():
    found = observe({"w": jnp.ones(2)})
    with pytest.raises(
        pt.PathError, match=r"no statistic 'grads/norm' was observed: there are \['params/mean', 'params/norm'"
    ):
        found.by_path("grads/norm")
    with pytest.raises(pt.PathError, match=r"no statistic 'ratio' was observed"):
        found.by_path("ratio")
    with pytest.raises(pt.PatternError, match="the pattern 'v' matches nothing"):
        found.by_path("params/norm", "v")


def stacked_model():
    """Parameters with a stack, whole numbers that are not observed and a tie, and updates of a part of them."""
    params = pt.Tree(
        {
            "embed": {"table": jnp.ones((5, 3))},
            "blocks": {":": {"k": jnp.ones((2, 3, 3)), "b": jnp.ones((2, 3))}},
            "0": [jnp.ones(2), jnp.ones(1)],
            "head": jnp.ones((3, 5)),
            "count": jnp.zeros((), jnp.int32),
        }
    )
    params = pt.tie(params, {"head": pt.transposed("embed/table")})
    return params, pt.select(params, ["blocks", "0"])


@pytest.mark.parametrize(
    ("selector", "params_paths", "updates_paths"),
    [
        ("blocks", ["blocks/0/k", "blocks/0/b", "blocks/1/k", "blocks/1/b"], None),
        ("blocks/*/k", ["blocks/0/k", "blocks/1/k"], None),
        (["0/1", "blocks/*/b"], ["blocks/0/b", "blocks/1/b", "0/1"], None),
        (["head", "0/0"], ["embed/table", "0/0"], ["0/0"]),
    ],
)
@pytest.mark.parametrize("kind", ["mask", "as dicts", "in a list", "of NumPy"])
def test_a_mask_of_the_parameters_reads_what_it_marks(selector, params_paths, updates_paths, kind, tmp_path):
    params, updates = stacked_model()
    found = observe(params, None, updates)
    mask = pt.mask(params, selector)
    if kind == "as dicts":  # with a mark for each name of the tied leaf
        mask = pt.asdict(mask)
    elif kind == "in a list":
        mask = [mask]
    elif kind == "of NumPy":
        mask = jax.tree.map(np.bool_, mask)
    updates_paths = params_paths if updates_paths is None else updates_paths
    with pt.look.History(tmp_path) as history:
        history.record(0, found)
    for statistic, paths in {"params/norm": params_paths, "updates/ratio": updates_paths}.items():
        assert sorted(found.by_path(statistic, mask)) == sorted(paths)
    wanted = [path for path in history.paths if path in params_paths]
    for read in (history, pt.look.History(tmp_path)):
        np.testing.assert_array_equal(read.values("params/norm", mask), history.values("params/norm", wanted))
    figure = pt.look.plot_history(history, mask, statistics=["params/norm"])
    assert [line.get_label() for line in figure.axes[0].lines] == wanted


def test_a_mask_of_single_layers_reads_these():
    found = observe(stacked_model()[0])
    mask = dict.fromkeys(found.params.paths, False)
    assert list(found.by_path("params/norm", {**mask, "blocks/1/b": True})) == ["blocks/1/b"]


def test_a_mask_of_layers_in_lists_that_are_stacked_in_part():
    stacks = {"groups": {":": {"blocks": [{"k": jnp.ones((3, 2))}, {"k": jnp.ones((3, 2))}]}}}
    found = observe(stacks)
    mask = {"groups": {":": {"blocks": [{"k": False}, {"k": True}]}}}
    assert list(found.by_path("params/norm", mask)) == [f"groups/{at}/blocks/1/k" for at in range(3)]


def test_masks_that_are_lists_or_modules_read_what_they_mark():
    leaves = [jnp.ones(1), (jnp.ones(2), jnp.ones(3))]
    assert list(observe(leaves).by_path("params/norm", [True, (False, True)])) == ["0", "1/1"]
    layers = [{"w": jnp.ones(1)}, {"w": jnp.ones(2)}]
    assert list(observe(layers).by_path("params/norm", ({"w": False}, {"w": True}))) == ["1/w"]
    model = eqx.nn.MLP(2, 2, 3, 1, key=jax.random.key(0))
    found = observe(model)
    marked = pt.mask(model, "**/bias")
    assert callable(marked)
    assert list(found.by_path("params/norm", marked)) == ["layers/0/bias", "layers/1/bias"]
    assert list(found.by_path("params/norm", [marked, "!layers/0"])) == ["layers/1/bias"]


def test_a_mask_that_fits_nothing_that_was_observed_says_so():
    params, updates = stacked_model()
    found = observe(params, None, updates)
    message = "the mask is True at no leaf that was observed"
    for mask in (pt.mask(params, "count"), jax.tree.map(lambda _: False, params)):
        says(pt.PatternError, message, found.by_path, "params/norm", mask)
    says(pt.PatternError, message, found.by_path, "updates/ratio", pt.mask(params, "embed"))
    missing = r"^a mask has True or False at each leaf of the tree: missing in the mask: \['blocks/0/k', 'blocks/1/k'"
    with pytest.raises(pt.PatternError, match=missing):
        found.by_path("params/norm", {"embed": {"table": True}, "0": [True, False]})
    with pytest.raises(pt.PatternError, match=r"not a selector: a Tree"):
        found.by_path("params/norm", params)
    with pytest.raises(pt.PatternError, match="'0/0' is 1, and not True or False"):
        found.by_path("params/norm", {**pt.flatten(pt.mask(params, "blocks")), "0/0": 1})
