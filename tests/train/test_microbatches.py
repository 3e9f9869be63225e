"""Accumulation of gradients: microbatches give what the whole batch gives, also where they do not count alike."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import nn, train


def masked_mean(params, batch):
    """The mean of what is no padding: NaN where there is nothing else."""
    errors = (params["w"] * batch["x"] - batch["y"]) ** 2
    return (errors * batch["mask"]).sum() / batch["mask"].sum()


def tokens(batch):
    return batch["mask"].sum()


def masked_batch(mask, seed=0):
    draw = np.random.default_rng(seed)
    size = len(mask)
    numbers = lambda: jnp.asarray(draw.standard_normal(size), jnp.float32)
    return {"x": numbers(), "y": numbers(), "mask": jnp.asarray(mask, jnp.float32)}


def gradient(loss, batch, params=None, **options):
    """The loss and the gradient of one step, which plain gradient descent with rate 1 subtracts."""
    step = train.step(loss, optax.sgd(1.0), **options)
    params = {"w": jnp.float32(2.0)} if params is None else params
    before = jax.tree.map(np.array, params)
    state, metrics = step(step.init(params), batch)
    return float(metrics.loss), float(before["w"] - state.params["w"]), metrics


def test_a_masked_mean_over_microbatches_is_that_of_the_whole_batch():
    # microbatch 0 has the rows 0 and 2, microbatch 1 the rows 1 and 3; three of four count, with the losses 3, 1 and 2
    batch = {"x": jnp.float32([3, 1, 99, 2]), "mask": jnp.float32([1, 1, 0, 1])}
    loss = lambda params, batch: params["w"] * (batch["x"] * batch["mask"]).sum() / batch["mask"].sum()
    whole = gradient(loss, batch, {"w": jnp.float32(1)})
    right = gradient(loss, batch, {"w": jnp.float32(1)}, accumulate=2, weight=tokens)
    mean_of_means = gradient(loss, batch, {"w": jnp.float32(1)}, accumulate=2)
    assert whole[:2] == right[:2] == (2.0, 2.0)
    assert mean_of_means[:2] == (2.25, 2.25)  # what comes out where each microbatch counts alike
    assert float(right[2].weight) == 3


@pytest.mark.parametrize(
    "mask", [[1, 0, 1, 1, 1, 1, 0, 1], [1, 0, 0, 0, 1, 0, 0, 0]], ids=["uneven", "three are empty"]
)
def test_any_number_of_microbatches_gives_the_loss_of_the_whole_batch(mask):
    batch = masked_batch(mask)
    expected = jax.value_and_grad(masked_mean)({"w": jnp.float32(2)}, batch)
    for count in (1, 2, 4):
        loss, grad, _ = gradient(masked_mean, batch, accumulate=count, weight=tokens)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
        np.testing.assert_allclose(grad, expected[1]["w"], rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_in_which_nothing_counts_has_no_gradient(count):
    loss, grad, metrics = gradient(masked_mean, masked_batch([0, 0, 0, 0]), accumulate=count, weight=tokens)
    assert (loss, grad, float(metrics.weight)) == (0, 0, 0)


def test_weights_may_be_numbers_of_python_bools_or_whole():
    batch = masked_batch([1, 1, 1, 1])
    for weight in (lambda batch: 1, lambda batch: 2.5, lambda batch: batch["mask"][0] > 0, lambda batch: jnp.int32(3)):
        loss, _, _ = gradient(masked_mean, batch, accumulate=2, weight=weight)
        np.testing.assert_allclose(loss, masked_mean({"w": 2}, batch), rtol=1e-6)
    for weight, got in (
        (lambda batch: batch["mask"], r"f32\[2\]"),
        (lambda batch: None, "None"),
        (lambda batch: 1j, "1j"),
    ):
        with pytest.raises(pt.StructureError, match=rf"weight\(batch\) must return one real number.*got {got}"):
            gradient(masked_mean, batch, accumulate=2, weight=weight)


def test_microbatches_have_every_nth_row_and_leaves_without_axes_are_in_all():
    def loss(params, batch):
        return params["w"] * batch["rate"] * batch["x"].mean(), (batch["x"], batch["tag"])

    batch = {"x": jnp.arange(6.0), "rate": jnp.float32(0.5), "tag": 3}
    value, _, metrics = gradient(loss, batch, accumulate=3, has_aux=True)
    assert metrics.aux[0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert metrics.aux[1].tolist() == [3, 3, 3]
    assert value == 2 * 0.5 * 2.5


def test_each_microbatch_has_a_key_of_its_own():
    def loss(params, batch, key):
        return params["w"] * 0 + batch.mean(), jax.random.uniform(key)

    step = train.step(loss, optax.sgd(1.0), accumulate=4, has_aux=True)
    root = jax.random.key(5)
    state, metrics = step(step.init({"w": jnp.float32(1)}, key=root), jnp.ones(4))
    _, later = step(state, jnp.ones(4))
    of_step = jax.random.fold_in(root, 0)
    expected = [float(jax.random.uniform(jax.random.fold_in(of_step, at))) for at in range(4)]
    assert metrics.aux.tolist() == expected
    assert len({*metrics.aux.tolist(), *later.aux.tolist()}) == 8


def test_gradients_of_bfloat16_are_summed_in_float32():
    # 1 + 255 / 256: a sum in bfloat16, which has 8 bits, stays at 1 after the first of the small ones
    params = {"w": jnp.zeros((), jnp.bfloat16)}
    loss = lambda params, batch: (params["w"] * batch["x"].astype(jnp.bfloat16)).sum().astype(jnp.float32)
    batch = {"x": jnp.float32([256] + [1] * 255)}
    step = train.step(loss, optax.sgd(1.0), accumulate=256, observe=lambda params, grads, updates: grads)
    _, metrics = step(step.init(params), batch)
    grad = metrics.observed["w"]
    assert grad.dtype == jnp.bfloat16  # as without accumulation
    assert float(grad) == float(jnp.bfloat16((256 + 255) / 256))
    naive = jnp.zeros((), jnp.bfloat16)
    for term in batch["x"]:
        naive = naive + (term / 256).astype(jnp.bfloat16)
    assert float(naive) == 1.0


def test_microbatches_need_the_memory_of_one():
    def loss(params, x):
        for _ in range(4):
            x = jnp.tanh(x @ params["w"])
        return x.mean()

    x = jnp.ones((512, 32))
    needed = {}
    for count in (1, 8):
        step = train.step(loss, optax.sgd(0.1), accumulate=count)
        compiled = jax.jit(step.pure).lower(step.init({"w": jnp.ones((32, 32))}), x).compile()
        needed[count] = compiled.memory_analysis().temp_size_in_bytes
    assert needed[8] < needed[1] / 2


def test_a_search_along_a_line_sees_the_whole_batch():
    batch = masked_batch([1, 0, 1, 1, 1, 1, 0, 1])
    found = []
    for options in ({}, {"accumulate": 2, "weight": tokens}):
        step = train.step(masked_mean, optax.lbfgs(), **options)
        state, _ = step(step.init({"w": jnp.float32(2)}), batch)
        found.append(float(state.params["w"]))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_a_batch_that_cannot_be_divided_is_one_error_with_all_paths():
    step = train.step(lambda params, batch: params["w"].sum(), optax.sgd(0.1), accumulate=4)
    state = step.init({"w": jnp.ones(2)})
    batch = {"x": jnp.ones((30, 3)), "y": jnp.ones(32), "z": jnp.ones((8, 2)), "none": jnp.ones((0, 2)), "rate": 1.0}
    with pytest.raises(pt.StructureError) as error:
        step(state, batch)
    assert str(error.value).splitlines() == [
        "cannot divide the batch into accumulate=4 microbatches along the first axis:",
        "  'none' is f32[0,2]: 0 rows are no multiple of 4",
        "  'x' is f32[30,3]: 30 rows are no multiple of 4",
        "  'z' is f32[8,2] with 8 rows, 'y' has 32",
    ]
    with pytest.raises(pt.StructureError, match="the batch is f32\\[6\\]: 6 rows are no multiple of 4"):
        step(state, jnp.ones(6))
    with pytest.raises(pt.StructureError, match="it has no array with an axis"):
        step(state, {"rate": 1.0})
    state, _ = step(state, jnp.ones(8))  # nothing has changed
    assert int(state.step) == 1


def test_running_statistics_of_microbatches_go_back_by_their_mean():
    net = nn.Sequential(nn.Dense(4), nn.BatchNorm(), nn.Dense(2))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3)), jnp.float32)
    kept = "**/{mean,var}"

    def norm_loss(params, x):
        y, new = net.updated(params, x)
        return jnp.square(y - 1).mean(), pt.select(new, kept)

    step = train.step(norm_loss, train.groups({kept: train.FROZEN, "**": optax.sgd(0.1)}), has_aux=True, accumulate=2)
    state = step.init(net.init(jax.random.key(0), x))
    parts = [norm_loss(state.params, x[at::2])[1]["1/mean"] for at in range(2)]
    for number in range(2):  # the second step takes the state without being compiled again
        state, metrics = step(state, x)
        assert metrics.aux["1/mean"].shape == (2, 4)
        mean = jax.tree.map(lambda leaf: leaf.mean(0), metrics.aux)
        state = dataclasses.replace(state, params=pt.merge(pt.drop(state.params, kept), mean))
        if number == 0:
            np.testing.assert_allclose(state.params["1/mean"], sum(parts) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [None, lambda batch: batch["tokens"].sum()], ids=["alike", "weighted"])
def test_a_loss_in_float64_has_sums_in_float64(weight):
    with jax.enable_x64(True):
        batch = {"x": jnp.arange(12.0) / 7 + 0.1, "tokens": jnp.arange(12.0) / 3 + 1}

        def loss(params, batch):
            terms = (params["w"] * batch["x"]) ** 3
            return terms.mean() if weight is None else (terms * batch["tokens"]).sum() / batch["tokens"].sum()

        found = {}
        for count in (1, 3):
            value, grad, metrics = gradient(loss, batch, {"w": jnp.float64(1.3)}, accumulate=count, weight=weight)
            assert metrics.loss.dtype == jnp.float64
            found[count] = value, grad
        np.testing.assert_allclose(found[3], found[1], rtol=1e-14)


@pytest.mark.parametrize(
    ("params", "of_loss"), [("float32", "float64"), ("float32", "bfloat16"), ("complex64", "float64")]
)
def test_the_dtype_of_a_loss_may_be_another_than_that_of_the_parameters(params, of_loss):
    with jax.enable_x64(True):
        loss = lambda params, x: jnp.mean(jnp.abs(params["w"] * x) ** 2).astype(of_loss)
        step = train.step(loss, optax.sgd(0.5), accumulate=3)
        state, metrics = step(step.init({"w": jnp.asarray(1, params)}), jnp.ones(6, jnp.float32))
        np.testing.assert_allclose(state.params["w"], 0, atol=4e-3)  # as exact as bfloat16
        assert metrics.loss == 1
        assert metrics.loss.dtype == ("float64" if of_loss == "float64" else "float32")
