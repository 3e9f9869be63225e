"""The path language on the parameters of the real libraries: containers keep their types."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from trees import equal

import ptree as pt
from ptree import initializers as I

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox as eqx
    import haiku as hk
    from flax import linen, nnx
    from flax.core import FrozenDict, freeze

KEY = jax.random.key(0)
X = jnp.ones((2, 3))


class LinenMLP(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.relu(linen.Dense(4)(x)))


class NnxMLP(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](jax.nn.relu(self.layers[0](x)))


def haiku_params():
    net = hk.transform(lambda x: hk.nets.MLP([4, 2])(x))
    return net.init(jax.random.PRNGKey(0), X), net


def foreign():
    linen_params = LinenMLP().init(KEY, X)
    mlp = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    return {
        "linen": (linen_params, "params/Dense_0/kernel", "**/bias", 2),
        "linen frozen": (freeze(linen_params), "params/Dense_1/bias", "**/kernel", 2),
        "nnx": (nnx.state(NnxMLP(nnx.Rngs(0))), "layers/0/kernel/value", "layers/*/bias", 2),
        "haiku": (haiku_params()[0], "mlp/~/linear_1/w", "mlp/~/*/b", 2),
        "equinox": (mlp, "layers/0/weight", "layers/{0..1}/bias", 2),
        "optax adam": (optax.adamw(1e-3).init(linen_params), "0/mu/params/Dense_0/kernel", "*/nu/**", 4),
        "optax chain": (
            optax.chain(optax.clip(1.0), optax.sgd(1e-2, momentum=0.9)).init(mlp_arrays(mlp)), "1/0/trace/layers/1/bias", "**/weight", 2,
        ),
    }  # fmt: skip


def mlp_arrays(mlp):
    return eqx.filter(mlp, eqx.is_array)


FOREIGN = foreign()


@pytest.mark.parametrize("name", FOREIGN)
def test_reading_writing_and_selecting_give_back_the_same_containers(name):
    tree, path, pattern, count = FOREIGN[name]
    old = pt.get(tree, path)
    new = pt.set(tree, path, old + 1)
    assert type(new) is type(tree)
    assert jax.tree.structure(new) == jax.tree.structure(tree)
    np.testing.assert_array_equal(pt.get(new, path), old + 1)
    assert sum(a is not b for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(new), strict=True)) == 1
    assert len(pt.paths(tree, pattern)) == count
    chosen, rest = pt.partition(tree, pattern)
    assert type(chosen) is type(tree)
    assert len(pt.paths(chosen)) == count
    assert equal(pt.merge(chosen, rest), tree)
    zeroed = pt.update(tree, pattern, jnp.zeros_like)
    assert jax.tree.structure(zeroed) == jax.tree.structure(tree)
    assert all(not leaf.any() for _, leaf in pt.items(zeroed, pattern))
    mask = pt.mask(tree, pattern)
    assert jax.tree.structure(mask) == jax.tree.structure(tree)
    assert pt.count(tree, pattern) == sum(leaf.size for _, leaf in pt.items(tree, pattern))
    assert equal(pt.unflatten(pt.flatten(tree), like=tree), tree)
    assert pt.label(tree, {pattern: "a"}, default="b") is not tree
    with pytest.raises(pt.PathError, match=r"at .* there are \["):
        pt.get(tree, path + "s")


@pytest.mark.parametrize("name", FOREIGN)
def test_a_leaf_is_drawn_again_and_the_model_still_runs(name):
    tree, path, _, _ = FOREIGN[name]
    new = pt.reinit(tree, KEY, {path: I.normal(1.0)})
    assert jax.tree.structure(new) == jax.tree.structure(tree)
    assert not (pt.get(new, path) == pt.get(tree, path)).all()


def test_the_libraries_run_on_what_ptree_changed():
    params = FOREIGN["linen"][0]
    out = LinenMLP().apply(pt.update(params, "**", jnp.zeros_like), X)
    assert not out.any()
    assert not jax.vmap(pt.update(FOREIGN["equinox"][0], "**/{weight,bias}", jnp.zeros_like))(X).any()
    haiku, net = haiku_params()
    assert not net.apply(pt.update(haiku, "**", jnp.zeros_like), jax.random.PRNGKey(0), X).any()
    model = NnxMLP(nnx.Rngs(0))
    nnx.update(model, pt.update(nnx.state(model), "**", jnp.zeros_like))
    assert not model(X).any()


def test_a_tied_linen_model_trains_through_asdict():
    layer = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
    tied = pt.tie({"Dense_0": layer, "Dense_1": layer}, {"Dense_1": "Dense_0"})

    class Square(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(4)(linen.Dense(4)(x))

    grads = jax.grad(lambda p: Square().apply({"params": pt.asdict(p)}, jnp.ones((2, 4))).sum())(tied)
    apart = jax.grad(lambda p: Square().apply({"params": p}, jnp.ones((2, 4))).sum())(pt.asdict(tied))
    np.testing.assert_allclose(grads["Dense_0/kernel"], apart["Dense_0"]["kernel"] + apart["Dense_1"]["kernel"])


def test_put_and_drop_where_the_container_allows_it():
    params = FOREIGN["linen"][0]
    assert pt.paths(pt.put(params, "params/head/kernel", X), "params/head") == ["params/head/kernel"]
    assert pt.paths(pt.drop(params, "**/bias")) == ["params/Dense_1/kernel", "params/Dense_0/kernel"]
    frozen = pt.drop(FOREIGN["linen frozen"][0], "params/Dense_0")
    assert type(frozen) is FrozenDict
    with pytest.raises(pt.StructureError, match=r"cannot drop \['layers/0/bias'\]: a Linear cannot lose a child"):
        pt.drop(FOREIGN["equinox"][0], "layers/0/bias")
    with pytest.raises(pt.StructureError, match="a MLP cannot take the new name 'head'"):
        pt.put(FOREIGN["equinox"][0], "head", X)
    assert pt.paths(pt.drop(FOREIGN["nnx"][0], "layers/0"), "**/bias/value") == ["layers/1/bias/value"]
    larger = pt.put(FOREIGN["linen frozen"][0], "params/head/kernel", X)
    assert type(larger) is FrozenDict
    assert larger["params"]["head"]["kernel"] is X
    state = FOREIGN["nnx"][0]
    larger = pt.put(state, "head", nnx.Param(X))
    assert type(larger) is type(state)
    assert pt.get(larger, "head/value") is X
    assert pt.get(larger, "layers/0/kernel") is pt.get(state, "layers/0/kernel")


def test_a_new_haiku_module_is_a_key_with_slashes_as_its_neighbours_are():
    params = FOREIGN["haiku"][0]
    larger = pt.put(params, "mlp/~/linear_2/w", X)
    assert set(larger) == {*params, "mlp/~/linear_2"}
    assert pt.put(larger, "mlp/~/linear_2/b", X)["mlp/~/linear_2"].keys() == {"w", "b"}
    assert pt.put(params, "mlp/~/linear_2", {"w": X})["mlp/~/linear_2"]["w"] is X
    assert pt.put({"a/b": 1}, "c/d", 2) == {"a/b": 1, "c/d": 2}
    for tree in ({"a/b": 1, "c": {"d": 1}}, {"a/b": {"c": {"d": 1}}}):
        with pytest.raises(pt.PathError, match=r"keys such as 'a/b' hold '/', and what is below them is not equally"):
            pt.put(tree, "x", 2)


def test_a_variable_of_nnx_is_a_node_and_the_error_says_where_its_array_is():
    state = FOREIGN["nnx"][0]
    says(
        pt.StructureError,
        "cannot set 'layers/0/bias': expected a node with ['value'], got f32[4]. Did you mean 'layers/0/bias/value'?"
        " Use ptree.put to replace it by something else.",
        pt.set, state, "layers/0/bias", jnp.ones(4),
    )  # fmt: skip
    new = pt.set(state, "layers/0/bias/value", jnp.ones(4))
    assert pt.get(new, "layers/0/bias")[...].tolist() == [1] * 4


def test_save_and_load_into_the_libraries_containers(tmp_path):
    for name, (tree, *_) in FOREIGN.items():
        if name == "equinox":
            tree = mlp_arrays(tree)
        file = tmp_path / f"{name}.safetensors"
        pt.save(file, tree)
        assert equal(pt.load(file, like=tree), tree)


def test_a_summary_of_each_fits_a_terminal():
    for tree, *_ in FOREIGN.values():
        assert max(map(len, str(pt.summary(tree)).splitlines())) <= 80


def test_labels_and_masks_that_are_a_module_go_to_optax_in_a_function():
    arrays = mlp_arrays(FOREIGN["equinox"][0])
    labels = pt.label(arrays, {"**/bias": "plain", "**": "frozen"})
    mask = pt.mask(arrays, "**/bias")
    decayed = pt.train.decayed(arrays)
    assert all(map(callable, (labels, mask, decayed)))  # else this test and the guide's line could go
    grads = jax.tree.map(jnp.ones_like, arrays)
    for optimiser in (
        optax.multi_transform({"plain": optax.sgd(1.0), "frozen": optax.set_to_zero()}, lambda _: labels),
        optax.chain(
            optax.masked(optax.scale(-1.0), lambda _: mask), optax.masked(optax.set_to_zero(), lambda _: decayed)
        ),
    ):
        updates, _ = optimiser.update(grads, optimiser.init(arrays), arrays)
        assert all((leaf == -1).all() for _, leaf in pt.items(updates, "**/bias"))
        assert not any(leaf.any() for _, leaf in pt.items(updates, "**/weight"))
