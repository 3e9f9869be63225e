"""Layers against those of Equinox: parameters by the table of layers, square throughout, and back into new modules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, draws, same_arrays, with_noise

import ptree as pt
from ptree import convert, nn

eqx = pytest.importorskip("equinox")
E = eqx.nn
KEY = jax.random.key(0)


def shaken(module):
    arrays, rest = eqx.partition(module, eqx.is_array)
    return eqx.combine(with_noise(arrays), rest)


def check(net, module, x, call=None, **options):
    """A module on single examples; `call` is how it is called on a batch."""
    module = shaken(module)
    call = call or (lambda module, x: jax.vmap(module)(x))
    return agrees(net, (x,), module, "equinox", jax.jit(lambda x: call(module, x))(x), **options)


def first(x):
    return jnp.moveaxis(x, -1, 1)


def last(x):
    return jnp.moveaxis(x, 1, -1)


def over_space(module, x):
    return last(jax.vmap(module)(first(x)))


def test_dense_of_one_and_several_axes():
    x = draws(3, 4)
    module = E.Sequential([E.Linear(4, 4, key=KEY), E.Lambda(jnp.tanh), E.Linear(4, 4, use_bias=False, key=KEY)])
    check(nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense(4, use_bias=False)), module, x)
    heads = nn.Sequential(nn.Dense((2, 2)), lambda x: x.reshape(3, 4), nn.Dense(4))
    check(heads, E.Sequential([E.Linear(4, 4, key=KEY), E.Identity(), E.Linear(4, 4, key=KEY)]), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_and_their_transposes(rank):
    x = draws(2, *(5, 6, 7)[:rank], 4)
    conv, transposed = getattr(E, f"Conv{rank}d"), getattr(E, f"ConvTranspose{rank}d")
    layers = [conv(4, 4, 4, padding=2, groups=2, key=KEY)]
    layers += [transposed(4, 4, 4, 2, padding=1, groups=groups, key=KEY) for groups in (1, 2)]
    ours = [nn.ConvTranspose(4, (4,) * rank, stride=2, padding=1, groups=groups) for groups in (1, 2)]
    net = nn.Sequential(nn.Conv(4, (4,) * rank, padding=2, groups=2), *ours)
    check(net, E.Sequential(layers), x, over_space, tolerance=1e-4)


def test_embeddings_and_norms():
    ids = np.array([[1, 2], [3, 0]])
    layers = E.Sequential([E.Embedding(4, 4, key=KEY), E.LayerNorm(4), E.RMSNorm(4, use_bias=False)])
    net = nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(), nn.RMSNorm(epsilon=1e-5))
    check(net, layers, ids, lambda module, ids: jax.vmap(jax.vmap(module))(ids), tolerance=1e-4)
    check(nn.GroupNorm(2), E.GroupNorm(2, 4), draws(2, 5, 4), over_space)
    with pytest.raises(pt.LayerError, match="may have its axes in another order"):
        convert.layer_table(nn.LayerNorm(axis=(-2, -1)), draws(2, 4, 4), framework="equinox")


def test_running_statistics_are_in_a_state_beside_the_module():
    x = draws(4, 4)

    class Net(eqx.Module):
        z: E.BatchNorm  # the fields are in another order than the calls
        a: E.BatchNorm
        linear: E.Linear

        def __init__(self):
            self.a, self.z = (E.BatchNorm(4, "batch", mode="ema") for _ in range(2))
            self.linear = E.Linear(4, 4, key=KEY)

        def __call__(self, x, state):
            x, state = self.a(x, state)
            return self.z(self.linear(x), state)

    module, state = E.make_with_state(Net)()
    module = shaken(module)

    def run(module, state, x):
        return jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    for seed in range(2):  # `set` of a state makes the one before unusable
        _, state = run(module, state, draws(4, 4, seed=seed))
    module = eqx.nn.inference_mode(module)
    net = nn.Sequential({"a": nn.BatchNorm(), "linear": nn.Dense(4), "z": nn.BatchNorm()})
    expected, _ = run(module, state, x)
    params, table = agrees(net, (x,), (module, state), "equinox", expected)
    fresh = E.make_with_state(Net)()
    filled, state_filled = table.inverse.apply(params, like=(eqx.nn.inference_mode(fresh[0]), fresh[1]))
    np.testing.assert_array_equal(run(filled, state_filled, x)[0], expected)
    assert not state_filled.get(filled.a.ema_first_time_index)


class Recurrent(eqx.Module):
    """A cell along time, as users of Equinox write it."""

    cell: eqx.Module

    def __call__(self, x):
        size = self.cell.hidden_size
        zeros = jnp.zeros((size,))
        is_lstm = isinstance(self.cell, E.LSTMCell)

        def step(state, x):
            state = self.cell(x, state)
            return state, (state[0] if is_lstm else state)

        return jax.lax.scan(step, (zeros, zeros) if is_lstm else zeros, x)[1]


def test_recurrent_cells_have_one_bias_or_one_and_a_part():
    x = draws(2, 5, 4)
    for net, cell in ((nn.LSTM(4), E.LSTMCell), (nn.GRU(4), E.GRUCell)):
        module = Recurrent(cell(4, 4, key=KEY))
        params, table = check(net, module, x, names={"": "cell"})
        trained = pt.update(params, "*/bias", lambda bias: bias + 0.3)
        out = table.inverse.apply(trained, like=module)
        np.testing.assert_allclose(jax.vmap(out)(x), jax.jit(net)(trained, x), rtol=1e-5, atol=1e-5)
    with pytest.raises(pt.LayerError, match="it has no cell of a plain RNN"):
        convert.layer_table(nn.RNN(4), x, framework="equinox")
    both = convert.layer_table(nn.Bidirectional(nn.GRU(4)), x, framework="equinox")
    assert "'backward/weight_hh' -> 'backward/hidden/kernel', linear" in list(both)


@pytest.mark.parametrize("bias", [True, False])
def test_attention(bias):
    x = draws(2, 5, 4)
    flags = {f"use_{part}_bias": bias for part in ("query", "key", "value", "output")}
    module = E.MultiheadAttention(2, 4, key=KEY, **flags)
    check(nn.MultiHeadAttention(2, use_bias=bias), module, x, lambda module, x: jax.vmap(module)(x, x, x))
    with pytest.raises(pt.LayerError, match="its MultiheadAttention has no kv_heads"):
        convert.layer_table(nn.MultiHeadAttention(2, kv_heads=1), x, framework="equinox")


def test_flattened_features_have_the_channels_first_there():
    x = draws(2, 4, 4, 4)
    module = E.Sequential([E.Conv2d(4, 4, 3, key=KEY), E.Lambda(jnp.ravel), E.Linear(16, 4, key=KEY)])
    net = nn.Sequential(nn.Conv(4, (3, 3), padding="VALID"), nn.Flatten(), nn.Dense(4))
    check(net, module, x, lambda module, x: jax.vmap(module)(first(x)))


def test_fields_nesting_and_shared_modules():
    x = draws(2, 4)

    class Net(eqx.Module):
        shared: E.Linear
        blocks: list
        twice: E.Linear

        def __init__(self):
            self.shared = self.twice = E.Linear(4, 4, key=KEY)
            self.blocks = [E.Sequential([E.LayerNorm(4), E.Linear(4, 4, key=key)]) for key in jax.random.split(KEY)]

        def __call__(self, x):
            x = self.shared(x)
            for block in self.blocks:
                x = block(x)
            return self.twice(x)

    def tied(module):
        return eqx.tree_at(lambda m: m.twice, module, module.shared)

    again = nn.Dense(4)
    blocks = nn.Repeat(nn.Sequential(nn.LayerNorm(), nn.Dense(4)), 2)
    net = nn.Sequential({"shared": again, "blocks": blocks, "twice": again})
    module = tied(shaken(Net()))
    params, _ = agrees(net, (x,), module, "equinox", jax.vmap(module)(x))
    assert params["twice/kernel"] is params["shared/kernel"]
    same_arrays(tied(module), module)
