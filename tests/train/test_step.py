"""A training step beside JAX and optax by hand: values, kinds of parameters, keys, donation, gradients of what is trained alone."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import look, nn, train

RANDOM = np.random.default_rng(0)


def plain_params():
    draw = np.random.default_rng(1)
    kernel = lambda *shape: jnp.asarray(draw.standard_normal(shape) / 2, jnp.float32)
    return {
        "enc": {"kernel": kernel(4, 8), "bias": jnp.zeros(8)},
        "head": {"kernel": kernel(8, 2), "bias": jnp.zeros(2)},
    }


def model(params, x):
    x = jnp.tanh(x @ params["enc"]["kernel"] + params["enc"]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def loss(params, batch):
    return jnp.square(model(params, batch["x"]) - batch["y"]).mean()


def batches(count, rows=8):
    draw = np.random.default_rng(2)
    make = lambda *shape: jnp.asarray(draw.standard_normal(shape), jnp.float32)
    return [{"x": make(rows, 4), "y": make(rows, 2)} for _ in range(count)]


def by_hand(loss, optimiser, params, data):
    """Steps as one writes them, with their losses."""
    state, losses = optimiser.init(params), []

    @jax.jit
    def one(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimiser.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    for batch in data:
        params, state, value = one(params, state, batch)
        losses.append(float(value))
    return params, state, losses


def run(step, state, data):
    losses = []
    for batch in data:
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    return state, losses


def assert_same(a, b, tolerance=0.0):
    a, b = dict(pt.items(a)), dict(pt.items(b))
    assert a.keys() == b.keys()
    for path, leaf in a.items():
        np.testing.assert_allclose(leaf, b[path], rtol=tolerance, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("make", [dict, pt.Tree])
def test_steps_are_those_by_hand_to_the_bit(make):
    optimiser, data = optax.adamw(1e-2), batches(5)
    expected, slots, losses = by_hand(loss, optimiser, plain_params(), data)
    step = train.step(loss, optimiser)
    state, found = run(step, step.init(make(plain_params())), data)
    assert found == losses
    assert type(state.params) is make
    assert_same(state.params, expected)
    assert_same(state.optimiser, slots)
    assert int(state.step) == 5


def test_a_tied_tree_takes_the_steps_of_one_leaf_by_hand():
    table = jnp.asarray(RANDOM.standard_normal((6, 3)), jnp.float32)
    tied = pt.tie({"embed": table, "head": table.T}, {"head": pt.transposed("embed")})
    batch = jnp.array([0, 3, 5])

    def tied_loss(params, batch):
        return -jax.nn.log_softmax(params["embed"][batch] @ params["head"])[jnp.arange(3), batch].mean()

    def one_leaf(params, batch):
        return tied_loss({"embed": params["embed"], "head": params["embed"].T}, batch)

    expected, _, losses = by_hand(one_leaf, optax.adam(0.1), {"embed": table}, [batch] * 4)
    step = train.step(tied_loss, optax.adam(0.1), ema=0.5)
    state, found = run(step, step.init(tied), [batch] * 4)
    np.testing.assert_allclose(found, losses, rtol=1e-6)
    np.testing.assert_allclose(state.params["head"].T, expected["embed"], rtol=1e-5)
    assert pt.ties(state.params) == pt.ties(state.averaged) == pt.ties(tied)
    assert pt.paths(state.optimiser, "**/embed") == ["0/mu/embed", "0/nu/embed"]


def test_stacked_and_apart_take_the_same_steps():
    layer = nn.Residual(nn.Sequential(nn.Dense(8), jnp.tanh, nn.Dense(4)))
    x = jnp.asarray(RANDOM.standard_normal((6, 4)), jnp.float32)
    found = []
    for scan in (True, False):
        net = nn.Repeat(layer, 3, scan=scan)
        step = train.step(
            lambda params, x, net=net: jnp.square(net(params, x) - 1).mean(), optax.adamw(1e-2), accumulate=2
        )
        state, losses = run(step, step.init(net.init(jax.random.key(0), x)), [x] * 3)
        apart = state.params if not scan else pt.stacks.unstack(state.params, "")
        found.append((losses, apart))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    assert_same(found[0][1], found[1][1], 1e-5)


def test_modules_of_equinox_train_without_what_is_no_array():
    module = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    optimiser, data = optax.adam(1e-2), batches(3)
    with pytest.raises(pt.StructureError, match=r"'activation' is .*; 'final_activation' is .*eqx.partition") as error:
        train.step(loss, optimiser).init(module)
    assert "eqx.combine(arrays, static)" in str(error.value)
    arrays, static = eqx.partition(module, eqx.is_array)

    def module_loss(arrays, batch):
        return jnp.square(jax.vmap(eqx.combine(arrays, static))(batch["x"]) - batch["y"]).mean()

    expected, _, losses = by_hand(module_loss, optimiser, jax.tree.map(jnp.copy, arrays), data)
    step = train.step(module_loss, optimiser)
    state, found = run(step, step.init(arrays), data)
    assert found == losses
    assert isinstance(state.params, eqx.nn.MLP)
    assert_same(state.params, expected)


def test_what_holds_no_floats_stays_as_it_is_and_has_no_slot():
    params = {
        "w": jnp.ones(2),
        "n": jnp.arange(3),
        "on": jnp.array([True]),
        "key": jax.random.key(3),
        "list": [jnp.ones(1), 4],
    }
    step = train.step(
        lambda p, x: (p["w"] * p["n"][1] * x + p["list"][0] * p["list"][1]).sum(), optax.adam(0.1), ema=0.9
    )
    state = step.init(params)
    assert pt.paths(state.optimiser) == ["0/count", "0/mu/list/0", "0/mu/w", "0/nu/list/0", "0/nu/w"]
    state, _ = run(step, state, [jnp.ones(2)] * 2)
    assert state.params["n"].tolist() == [0, 1, 2]
    assert int(state.params["list"][1]) == 4
    assert bool(state.params["key"] == jax.random.key(3))
    assert state.params["w"].tolist() != [1, 1]
    assert jax.tree.structure(state.averaged) == jax.tree.structure(state.params)


def test_frozen_leaves_keep_every_bit_and_no_gradient_of_them_is_computed():
    net = nn.Sequential({str(at): nn.Dense(64) for at in range(6)})
    x = jnp.ones((128, 64))
    net_loss = lambda params, x: jnp.square(net(params, x)).mean()
    params = net.init(jax.random.key(0), x)
    before = jax.tree.map(np.array, params)
    everything = train.step(net_loss, optax.adam(1e-3))
    head = train.step(net_loss, train.groups({"5": optax.adam(1e-3), "**": train.FROZEN}))
    state = head.init(params)
    assert {path.split("/mu/")[-1] for path in pt.paths(state.optimiser, "**/mu/**")} == {"5/kernel", "5/bias"}
    # forward, and the gradients of one kernel of six: not those of the others, and none of activations
    forward = look.flops(net_loss, params, x).total
    assert look.flops(head.pure, state, x).total < 1.3 * forward
    assert look.flops(everything.pure, everything.init(params), x).total > 2.5 * forward
    state, _ = run(head, state, [x] * 2)
    for path, leaf in pt.items(state.params):
        assert np.array_equal(leaf, before[path]) == (not path.startswith("5/")), path


def test_a_loss_with_a_key_gets_one_for_each_step_from_one_root():
    root = jax.random.key(7)
    step = train.step(lambda p, x, key: p["w"].sum() * 0 + jax.random.uniform(key), optax.sgd(0.1))
    _, losses = run(step, step.init({"w": jnp.ones(2)}, key=root), [jnp.ones(1)] * 3)
    assert losses == [float(jax.random.uniform(jax.random.fold_in(root, at))) for at in range(3)]
    assert not root.is_deleted()
    with pytest.raises(TypeError, match=r"the loss takes a key: step.init\(params, key=jax.random.key\(0\)\)"):
        step.init({"w": jnp.ones(2)})
    with pytest.raises(TypeError, match=r"expected one key, such as jax.random.key\(0\), got 3"):
        step.init({"w": jnp.ones(2)}, key=3)


def test_old_keys_and_a_key_that_is_given_already():
    draw = lambda p, x, key: p["w"].sum() * 0 + jax.random.uniform(key)
    root = jax.random.PRNGKey(1)
    step = train.step(draw, optax.sgd(0.1))
    _, losses = run(step, step.init({"w": jnp.ones(2)}, key=root), [jnp.ones(1)] * 2)
    assert losses == [float(jax.random.uniform(jax.random.fold_in(root, at))) for at in range(2)]
    given = train.step(functools.partial(draw, key=root), optax.sgd(0.1))
    _, losses = run(given, given.init({"w": jnp.ones(2)}), [jnp.ones(1)] * 2)
    assert losses == [float(jax.random.uniform(root))] * 2


def test_what_comes_with_the_loss_and_what_is_observed():
    def with_aux(params, batch):
        predicted = model(params, batch["x"])
        return jnp.square(predicted - batch["y"]).mean(), {"largest": predicted.max()}

    (batch,) = batches(1)
    params = plain_params()
    grads = jax.grad(loss)(params, batch)
    step = train.step(with_aux, optax.sgd(0.5), has_aux=True, observe=look.observe)
    _, metrics = step(step.init(jax.tree.map(jnp.copy, params)), batch)
    np.testing.assert_allclose(metrics.aux["largest"], model(params, batch["x"]).max(), rtol=1e-6)
    for path, norm in zip(metrics.observed.grads.paths, metrics.observed.grads.norm):
        np.testing.assert_allclose(norm, jnp.linalg.norm(pt.get(grads, path)), rtol=1e-5)
    np.testing.assert_allclose(metrics.observed.updates.norm, 0.5 * metrics.observed.grads.norm, rtol=1e-6)
    observed = metrics.observed.params  # before the update
    largest = observed.largest[observed.paths.index("enc/kernel")]
    np.testing.assert_allclose(largest, jnp.abs(params["enc"]["kernel"]).max(), rtol=1e-6)


def test_running_statistics_come_with_the_loss_and_go_into_the_parameters():
    net = nn.Sequential(nn.Dense(4), nn.BatchNorm(), nn.Dense(2))
    x = jnp.asarray(RANDOM.standard_normal((8, 3)), jnp.float32)
    kept = "**/{mean,var}"

    def norm_loss(params, x):
        y, new = net.updated(params, x)
        return jnp.square(y - 1).mean(), pt.select(new, kept)

    rules = train.groups({kept: train.FROZEN, "**": optax.sgd(0.1)})
    step = train.step(norm_loss, rules, has_aux=True)
    state = step.init(net.init(jax.random.key(0), x))
    statistics, params = pt.partition(jax.tree.map(jnp.copy, state.params), kept)
    for _ in range(3):
        by_hand = lambda params, statistics=statistics: norm_loss(pt.merge(params, statistics), x)
        (_, statistics), grads = jax.value_and_grad(by_hand, has_aux=True)(params)
        params = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, params, grads)
        state, metrics = step(state, x)
        state = dataclasses.replace(state, params=pt.merge(pt.drop(state.params, kept), metrics.aux))
    assert_same(state.params, pt.merge(params, statistics), 1e-5)
    assert not bool((state.params["1/mean"] == 0).any())


def test_a_state_is_used_once_unless_it_is_kept():
    (batch,) = batches(1)
    step = train.step(loss, optax.adam(1e-2))
    first = step.init(plain_params())
    second, _ = step(first, batch)
    assert first.params["enc"]["kernel"].is_deleted()
    with pytest.raises(pt.StructureError, match=r"was given to a step before.*donate=False") as error:
        step(first, batch)
    assert "'params/enc/kernel'" in str(error.value)
    kept = train.step(loss, optax.adam(1e-2), donate=False)
    once, _ = kept(second, batch)
    twice, _ = kept(second, batch)
    assert_same(once, twice)


def test_parameters_that_share_memory_are_donated_once():
    w = jnp.ones(3)
    alias = jax.device_put(w, w.sharding)  # another array over the same memory
    step = train.step(lambda p, x: (p["a"] * p["b"] * p["c"] * x).sum(), optax.contrib.schedule_free_sgd(0.1), ema=0.9)
    state = step.init({"a": w, "b": w, "c": alias, "empty": jnp.zeros((0, 2)), "none": jnp.zeros((0, 2))})
    state, _ = run(step, state, [jnp.ones(3)] * 2)
    assert bool((state.params["a"] == state.params["c"]).all())


def test_arrays_of_numpy_and_numbers_of_python_are_taken_and_the_step_is_traced_once():
    traced = []

    def numbers_loss(params, x):
        traced.append(1)
        return (params["w"] * params["scale"] * x).sum()

    step = train.step(numbers_loss, optax.adamw(0.1))
    state = step.init({"w": np.ones(3, np.float32), "scale": 1.0, "weak": jnp.asarray(2.0)})
    count = None
    for _ in range(4):
        state, _ = step(state, np.ones(3, np.float32))
        count = count or len(traced)
    assert len(traced) == count
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_the_pure_step_can_be_scanned():
    data = batches(4)
    step = train.step(loss, optax.adam(1e-2))
    expected, losses = run(step, step.init(plain_params()), data)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *data)
    state, metrics = jax.lax.scan(step.pure, step.init(plain_params()), stacked)
    np.testing.assert_allclose(metrics.loss, losses, rtol=1e-6)
    assert_same(state.params, expected.params, 1e-6)


def test_steps_over_parameters_of_bfloat16_are_those_by_hand():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), plain_params())
    data = batches(3)
    expected, slots, losses = by_hand(loss, optax.adamw(1e-2), jax.tree.map(jnp.copy, half), data)
    step = train.step(loss, optax.adamw(1e-2))
    state, found = run(step, step.init(half), data)
    assert found == losses
    assert_same(jax.tree.map(jnp.float32, state.params), jax.tree.map(jnp.float32, expected))
    assert [leaf.dtype for leaf in jax.tree.leaves(state.optimiser)] == [leaf.dtype for leaf in jax.tree.leaves(slots)]


def plateau():
    return optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))


OPTIMISERS = {
    "adafactor": lambda: optax.adafactor(1e-2),
    "apply_if_finite": lambda: optax.apply_if_finite(optax.adam(1e-2), 3),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(1e-2, 10)),
    "lbfgs": lambda: optax.lbfgs(),
    "lookahead-free": lambda: optax.contrib.schedule_free_adamw(1e-2),
    "multi_steps": lambda: optax.MultiSteps(optax.adam(1e-2), 2),
    "muon": lambda: optax.contrib.muon(1e-2),
    "noisy_sgd": lambda: optax.noisy_sgd(1e-2, key=jax.random.key(0)),
    "plateau": plateau,
    "polyak_sgd": lambda: optax.polyak_sgd(),
    "prodigy": lambda: optax.contrib.prodigy(),
    "sophia": lambda: optax.contrib.sophia(1e-2),
    "sm3": lambda: optax.sm3(1e-2),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_of_all_kinds_take_the_steps_by_hand(name):
    optimiser = OPTIMISERS[name]()
    if isinstance(optimiser, optax.MultiSteps):
        optimiser_by_hand = optimiser.gradient_transformation()
    else:
        optimiser_by_hand = optax.with_extra_args_support(optimiser)
    data = batches(3)
    params = plain_params()
    slots = optimiser_by_hand.init(params)

    @jax.jit
    def one(params, slots, batch):
        value, grads = jax.value_and_grad(loss)(params, batch)
        value_fn = lambda params, obj_fn=None: loss(params, batch)
        updates, slots = optimiser_by_hand.update(
            grads, slots, params, value=value, grad=grads, value_fn=value_fn, obj_fn=value_fn
        )
        return optax.apply_updates(params, updates), slots

    for batch in data:
        params, slots = one(params, slots, batch)
    step = train.step(loss, optimiser)
    state, _ = run(step, step.init(plain_params()), data)
    assert_same(state.params, params, 1e-6)
    assert len(jax.tree.leaves(state.optimiser)) == len(jax.tree.leaves(slots))
