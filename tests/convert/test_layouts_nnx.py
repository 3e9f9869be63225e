"""Layers against those of Flax nnx: parameters by the table of layers, square throughout, and back into the module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, draws, same_arrays, with_noise

import ptree as pt
from ptree import convert, nn

nnx = pytest.importorskip("flax.nnx")


def shaken(module, seed=0):
    nnx.update(module, with_noise(nnx.state(module, (nnx.Param, nnx.BatchStat)), seed))
    return module


def called(module, *inputs):
    graph, state = nnx.split(module)  # `nnx.jit` of the lowest Flax calls JAX with an argument that it has no more
    return jax.jit(lambda state, *inputs: nnx.merge(graph, state)(*inputs))(state, *inputs)


def check(net, module, *inputs, **options):
    shaken(module)
    state = nnx.state(module)
    expected = called(module, *inputs)
    params, table = agrees(net, inputs, state, "nnx", expected, **options)
    same_arrays(table.apply(module, like=net.spec(*inputs)), params)
    same_arrays(
        table.apply(nnx.to_pure_dict(nnx.state(module, (nnx.Param, nnx.BatchStat))), like=net.spec(*inputs)), params
    )
    filled = table.inverse.apply(params, like=module)
    shaken(module, seed=9)
    nnx.update(module, filled)
    same_arrays(nnx.state(module), state)
    return params, table


ZEROS = {"kernel_init": nnx.initializers.zeros, "recurrent_kernel_init": nnx.initializers.zeros}
"""Made sooner than draws."""


@pytest.fixture
def rngs():
    return nnx.Rngs(0)


def test_dense_of_one_and_several_axes(rngs):
    x = draws(2, 3, 4)
    module = nnx.Sequential(
        nnx.Linear(4, 4, rngs=rngs), jnp.tanh, nnx.LinearGeneral(4, (2, 2), rngs=rngs),
        nnx.LinearGeneral((2, 2), 4, axis=(-2, -1), rngs=rngs), nnx.Dropout(0.5, deterministic=True, rngs=rngs),
    )  # fmt: skip
    net = nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense((2, 2)), nn.Dense(4, axis=(-2, -1)), nn.Dropout(0.5))
    check(net, module, x)


@pytest.mark.parametrize("rank", [1, 2])
def test_convolutions_and_transposes_in_both_forms(rank, rngs):
    x = draws(2, *(4, 5)[:rank], 4)
    window, strides = (4,) * rank, (2,) * rank
    module = nnx.Sequential(
        nnx.Conv(4, 4, window, feature_group_count=2, rngs=rngs), nnx.ConvTranspose(4, 4, window, strides, rngs=rngs),
        nnx.ConvTranspose(4, 4, window, strides, transpose_kernel=True, rngs=rngs),
    )  # fmt: skip
    net = nn.Sequential(nn.Conv(4, window, groups=2), *(nn.ConvTranspose(4, window, stride=2) for _ in range(2)))
    check(net, module, x, forms={"2": "transpose_kernel"}, tolerance=1e-4)


def test_embeddings_norms_and_their_statistics(rngs):
    ids = np.array([[1, 2, 0], [3, 0, 2]])
    module = nnx.Sequential(
        nnx.Embed(4, 4, rngs=rngs), nnx.BatchNorm(4, use_running_average=True, rngs=rngs), nnx.LayerNorm(4, rngs=rngs),
        nnx.RMSNorm(4, rngs=rngs), nnx.GroupNorm(4, 2, rngs=rngs),
    )  # fmt: skip
    six = {"epsilon": 1e-6}
    net = nn.Sequential(nn.Embedding(4, 4), nn.BatchNorm(), nn.LayerNorm(**six), nn.RMSNorm(), nn.GroupNorm(2, **six))
    check(net, module, ids, tolerance=1e-4)


def test_recurrent_layers_in_both_forms(rngs):
    x = draws(2, 5, 4)
    cells = [nnx.OptimizedLSTMCell, nnx.LSTMCell, nnx.GRUCell, nnx.SimpleCell]
    module = nnx.Sequential(*(nnx.RNN(cell(4, 4, **ZEROS, rngs=rngs), rngs=rngs) for cell in cells))
    net = nn.Sequential(nn.LSTM(4), nn.LSTM(4), nn.GRU(4), nn.RNN(4))
    params, table = check(net, module, x, forms={"1": "LSTMCell"})
    summed = pt.update(params, "{0,1,3}/{input,hidden}/bias", lambda bias: bias + 0.3)
    summed = pt.update(summed, "2/hidden/bias", lambda bias: bias.at[:8].add(0.3))  # of the gates r and z
    nnx.update(module, table.inverse.apply(summed, like=module))
    np.testing.assert_allclose(called(module, x), jax.jit(net)(summed, x), rtol=1e-5, atol=1e-5)


def test_a_hidden_bias_of_a_gru_that_nnx_has_no_place_for_is_refused(rngs):
    x = draws(2, 5, 4)
    net = nn.GRU(4)
    module = nnx.RNN(nnx.GRUCell(4, 4, **ZEROS, rngs=rngs), rngs=rngs)
    params, table = check(net, module, x)
    trained = pt.update(params, "hidden/bias", lambda bias: bias.at[-1].set(0.5))
    with pytest.raises(
        pt.StructureError, match="the last of 4 parts is not zero, and the other side has no place for it"
    ):
        table.inverse.apply(trained, like=module)


def test_both_directions(rngs):
    x = draws(2, 5, 4)
    directions = [nnx.RNN(nnx.OptimizedLSTMCell(4, 4, **ZEROS, rngs=rngs), rngs=rngs) for _ in range(2)]
    check(nn.Bidirectional(nn.LSTM(4)), nnx.Bidirectional(*directions, rngs=rngs), x)


@pytest.mark.parametrize("kv_heads", [None, 2])
def test_attention_with_grouped_queries_and_norms(kv_heads, rngs):
    x = draws(2, 5, 4)
    grouped = {} if kv_heads is None else {"num_kv_heads": kv_heads}
    module = nnx.MultiHeadAttention(4, 4, 8, decode=False, normalize_qk=True, rngs=rngs, **grouped)
    net = nn.MultiHeadAttention(4, head_dim=2, kv_heads=kv_heads, qk_norm=nn.LayerNorm(epsilon=1e-6, use_bias=False))
    check(net, module, x, tolerance=1e-4)  # a norm of two numbers that are close enlarges rounding
    plain = nnx.MultiHeadAttention(4, 4, use_bias=False, decode=False, rngs=rngs)
    check(nn.MultiHeadAttention(4, use_bias=False), plain, x)


def test_fields_and_shared_modules(rngs):
    x = draws(2, 4)

    class Net(nnx.Module):
        def __init__(self):
            self.shared = nnx.Linear(4, 4, rngs=rngs)
            self.blocks = nnx.List([nnx.Sequential(nnx.Linear(4, 4, rngs=rngs), jnp.tanh) for _ in range(2)])
            self.twice = self.shared

        def __call__(self, x):
            x = self.shared(x)
            for block in self.blocks:
                x = block(x)
            return self.twice(x)

    again = nn.Dense(4)
    net = nn.Sequential({"shared": again, "blocks": nn.Repeat(nn.Sequential(nn.Dense(4), jnp.tanh), 2), "twice": again})
    _, table = check(net, Net(), x)
    assert "'blocks/{0..1}/layers/0/kernel' -> 'blocks/{0..1}/0/kernel', as_is" in list(table)
    with pytest.raises(pt.LayerError, match="names: no layer 'tvice'"):
        convert.layer_table(net, x, framework="nnx", names={"tvice": "a"})
