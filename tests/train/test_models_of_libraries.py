"""Training steps of modules of Flax nnx and Equinox: the numbers of these libraries' own loops, and a resumed run that is the same."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ptree as pt
from ptree import train

STEPS = 6
X = jnp.asarray(np.random.default_rng(0).normal(size=(12, 4)), jnp.float32)
BATCH = {"x": X, "labels": X[:, :3].argmax(-1)}
RATE = 1e-2


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def assert_close(ours, theirs):
    for path, leaf in pt.items(theirs):
        np.testing.assert_allclose(pt.get(ours, path), leaf, atol=1e-5, err_msg=path)


def assert_bits(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), (_, b) in zip(pt.items(ours), pt.items(theirs), strict=True):
        is_key = jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key)
        a, b = (jax.random.key_data(leaf) if is_key else leaf for leaf in (a, b))
        np.testing.assert_array_equal(a, b, err_msg=path)


# ------------------------------------------------------------------------------------------- nnx


class Module(nnx.Module):
    def __init__(self, rngs):
        self.encoder = nnx.Linear(4, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.relu(self.norm(self.encoder(x)))))


def nnx_run(folder, last, seed=0):
    """The state after `last` steps, which goes on from what is in the folder."""
    graphdef, params, others = nnx.split(Module(nnx.Rngs(seed)), nnx.Param, ...)

    def loss(variables, batch):
        module = nnx.merge(graphdef, variables["params"], variables["others"], copy=True)
        value = cross_entropy(module(batch["x"]), batch["labels"])
        return value, nnx.split(module, nnx.Param, ...)[2]

    rules = {"{others,params/encoder}": train.FROZEN, "**/kernel": optax.adamw(RATE, weight_decay=0.1), "**": optax.adam(RATE)}  # fmt: skip
    step = train.step(loss, train.groups(rules), has_aux=True)
    state = step.init({"params": params, "others": others})
    with pt.Checkpoints(folder) as checkpoints:
        done, state = checkpoints.load(like=state) if checkpoints.steps() else (0, state)
        for at in range(done + 1, last + 1):
            state, metrics = step(state, BATCH)
            state = dataclasses.replace(state, params={**state.params, "others": metrics.aux})
            checkpoints.save(at, state)
    return state


def test_nnx_is_trained_as_by_its_own_loop(tmp_path):
    state = nnx_run(tmp_path, STEPS)
    module = Module(nnx.Rngs(0))
    first = nnx.state(nnx.clone(module), nnx.Param)
    wanted = nnx.All(nnx.Param, nnx.Not(nnx.PathContains("encoder")))
    kernels = lambda tree: pt.mask(tree, "**/kernel")
    others = lambda tree: jax.tree.map(lambda is_kernel: not is_kernel, kernels(tree))
    decaying = optax.masked(optax.adamw(RATE, weight_decay=0.1), kernels)
    optimizer = nnx.Optimizer(module, optax.chain(decaying, optax.masked(optax.adam(RATE), others)), wrt=wanted)
    for _ in range(STEPS):
        grads = nnx.grad(lambda module: cross_entropy(module(X), BATCH["labels"]), argnums=nnx.DiffState(0, wanted))(
            module
        )
        optimizer.update(module, grads)
    assert_close(state.params["params"], nnx.state(module, nnx.Param))
    assert_close(state.params["others"]["norm"], nnx.state(module, nnx.BatchStat)["norm"])
    assert_bits(state.params["params"]["encoder"], first["encoder"])
    assert float(abs(pt.get(state.params, "others/norm/mean/value")).max()) > 0.01
    assert int(pt.get(state.params, "others/dropout/rngs/count/value")) == STEPS


def test_a_run_of_nnx_that_is_resumed_is_the_same_run(tmp_path):
    whole = nnx_run(tmp_path / "whole", STEPS)
    nnx_run(tmp_path / "parts", 2)
    assert_bits(nnx_run(tmp_path / "parts", STEPS, seed=9), whole)


def test_statistics_that_are_not_split_off_are_among_what_is_trained():
    everything, norm = train.groups({"**": optax.adamw(RATE)}), nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    assert set(everything.trained(nnx.state(norm))) == {"bias/value", "mean/value", "scale/value", "var/value"}
    assert set(everything.trained(nnx.state(norm, nnx.Param))) == {"bias/value", "scale/value"}
    with pytest.raises(pt.PatternError, match=r"dropout/rngs/count/value.*hold no floating-point numbers"):
        everything.trained(nnx.state(Module(nnx.Rngs(0))))


# --------------------------------------------------------------------------------------- Equinox


class Net(eqx.Module):
    encoder: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear
    mean: jax.Array

    def __init__(self, key):
        self.encoder = eqx.nn.Linear(4, 16, key=jax.random.fold_in(key, 0))
        self.dropout = eqx.nn.Dropout(0.1)
        self.head = eqx.nn.Linear(16, 3, key=jax.random.fold_in(key, 1))
        self.mean = jnp.zeros(4)

    def __call__(self, x, key=None):
        return self.head(self.dropout(jax.nn.relu(self.encoder(x - self.mean)), key=key))


def equinox_loss(model, batch, key):
    logits = jax.vmap(model)(batch["x"], jax.random.split(key, len(batch["x"])))
    return cross_entropy(logits, batch["labels"])


def equinox_run(folder, last, seed=0):
    params, static = eqx.partition(Net(jax.random.key(seed)), eqx.is_inexact_array)
    rules = {"{encoder,mean}": train.FROZEN, "**/weight": optax.adamw(RATE, weight_decay=0.1), "**": optax.adam(RATE)}
    loss = lambda params, batch, key: equinox_loss(eqx.combine(params, static), batch, key)
    step = train.step(loss, train.groups(rules))
    state = step.init(params, key=jax.random.key(seed + 1))
    with pt.Checkpoints(folder) as checkpoints:
        done, state = checkpoints.load(like=state) if checkpoints.steps() else (0, state)
        for at in range(done + 1, last + 1):
            state, _ = step(state, BATCH)
            checkpoints.save(at, state)
    return state


def test_equinox_is_trained_as_by_its_own_loop(tmp_path):
    state = equinox_run(tmp_path, STEPS)
    model = Net(jax.random.key(0))
    is_trained = jax.tree.map(lambda _: False, model)
    is_trained = eqx.tree_at(lambda net: (net.head.weight, net.head.bias), is_trained, (True, True))
    trained, rest = eqx.partition(model, is_trained)
    decay = eqx.tree_at(lambda net: net.head.weight, jax.tree.map(lambda _: False, trained), True)
    optimiser = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.1, mask=decay), optax.scale(-RATE))
    slots = optimiser.init(trained)
    for at in range(STEPS):
        key = jax.random.fold_in(jax.random.key(1), at)
        grads = jax.grad(lambda trained, key=key: equinox_loss(eqx.combine(trained, rest), BATCH, key))(trained)
        updates, slots = optimiser.update(grads, slots, trained)
        trained = eqx.apply_updates(trained, updates)
    assert_close(state.params, eqx.filter(eqx.combine(trained, rest), eqx.is_inexact_array))
    assert_bits(state.params.encoder, eqx.filter(model.encoder, eqx.is_inexact_array))


def test_a_run_of_equinox_that_is_resumed_is_the_same_run(tmp_path):
    whole = equinox_run(tmp_path / "whole", STEPS)
    equinox_run(tmp_path / "parts", 2)
    assert_bits(equinox_run(tmp_path / "parts", STEPS, seed=9), whole)
