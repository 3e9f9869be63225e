"""observe: three numbers of each leaf from inside a jitted step, as one array with names."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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
