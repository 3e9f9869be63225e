"""Layers against those of Flax linen: parameters by the table of layers, square throughout, and back into the variables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, draws, with_noise

import ptree as pt
from ptree import convert, nn

fl = pytest.importorskip("flax.linen")


def check(net, module, *inputs, variables=None, **options):
    variables = with_noise(jax.jit(module.init)(jax.random.key(0), *inputs)) if variables is None else variables
    expected = jax.jit(module.apply)(variables, *inputs)
    return agrees(net, inputs, variables, "linen", expected, **options)


def test_dense_of_one_and_several_axes():
    x = draws(2, 3, 4)
    module = fl.Sequential([fl.Dense(4), jnp.tanh, fl.DenseGeneral((2, 2)), fl.DenseGeneral(4, axis=(-2, -1))])
    params, _ = check(nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense((2, 2)), nn.Dense(4, axis=(-2, -1))), module, x)
    assert params["2/kernel"].shape == (4, 2, 2)
    check(nn.Dense(4, use_bias=False), fl.Dense(4, use_bias=False), x)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_and_transposes_in_both_forms(rank):
    x = draws(2, *(4, 5, 6)[:rank], 4)
    window, strides = (4,) * rank, (2,) * rank
    module = fl.Sequential(
        [
            fl.Conv(4, window, feature_group_count=2),
            fl.ConvTranspose(4, window, strides),
            fl.ConvTranspose(4, window, strides, transpose_kernel=True),
        ]
    )
    net = nn.Sequential(nn.Conv(4, window, groups=2), *(nn.ConvTranspose(4, window, stride=2) for _ in range(2)))
    check(net, module, x, forms={"2": "transpose_kernel"}, tolerance=1e-4)


def test_forms_are_checked():
    net, x = nn.Sequential(nn.ConvTranspose(4, 3), nn.Dense(4)), draws(1, 4, 4)
    with pytest.raises(
        pt.LayerError, match="'0', ConvTranspose in Flax linen: there is no form 'flipped', only 'transpose_kernel'"
    ):
        convert.layer_table(net, x, framework="linen", forms={"**": "flipped"})
    assert len(convert.layer_table(net, x, framework="linen", forms={"**": "transpose_kernel"})) == 4
    with pytest.raises(pt.LayerError, match="has no groups"):
        convert.layer_table(nn.ConvTranspose(4, 3, groups=2), x, framework="linen")


def test_embeddings_norms_and_their_statistics():
    ids = np.array([[1, 2, 0], [3, 0, 2]])
    module = fl.Sequential([fl.Embed(4, 4), fl.BatchNorm(True), fl.LayerNorm(), fl.RMSNorm(), fl.GroupNorm(2)])
    six = {"epsilon": 1e-6}
    net = nn.Sequential(nn.Embedding(4, 4), nn.BatchNorm(), nn.LayerNorm(**six), nn.RMSNorm(), nn.GroupNorm(2, **six))
    _, table = check(net, module, ids, tolerance=1e-4)
    assert "'batch_stats/layers_1/mean' -> '1/mean', as_is" in list(table)


def test_recurrent_layers_have_small_kernels_and_few_biases():
    x = draws(2, 5, 4)
    net = nn.Sequential(nn.LSTM(4), nn.LSTM(4), nn.GRU(4), nn.RNN(4))
    cells = [fl.LSTMCell(4), fl.OptimizedLSTMCell(4), fl.GRUCell(4), fl.SimpleCell(4)]
    module = fl.Sequential([fl.RNN(cell) for cell in cells])
    params, table = check(net, module, x)
    # the biases that linen does not have go out as sums, and compute the same
    trained = pt.update(params, "*/{input,hidden}/bias", lambda bias: bias + 0.3)
    variables = with_noise(jax.jit(module.init)(jax.random.key(0), x))
    out = table.inverse.apply(trained, like=variables)
    np.testing.assert_allclose(jax.jit(module.apply)(out, x), jax.jit(net)(trained, x), rtol=1e-5, atol=1e-5)


def test_both_directions():
    x = draws(2, 5, 4)
    module = fl.Bidirectional(fl.RNN(fl.LSTMCell(4)), fl.RNN(fl.LSTMCell(4)))
    check(nn.Bidirectional(nn.LSTM(4)), module, x)


@pytest.mark.parametrize("bias", [True, False])
def test_attention_with_normed_queries(bias):
    x = draws(2, 5, 4)
    module = fl.MultiHeadDotProductAttention(2, use_bias=bias, normalize_qk=True)
    net = nn.MultiHeadAttention(2, use_bias=bias, qk_norm=nn.LayerNorm(epsilon=1e-6, use_bias=False))
    _, table = check(net, module, x, tolerance=1e-4)  # a norm of two numbers that are close enlarges rounding
    assert "'params/query_ln/scale' -> 'q_norm/scale', as_is" in list(table)


def test_attention_of_four_dense_modules():
    x = draws(2, 5, 4)

    class Attention(fl.Module):
        @fl.compact
        def __call__(self, x):
            q, k, v = (fl.Dense(4, name=name)(x).reshape(2, 5, 2, 2) for name in ("query", "key", "value"))
            return fl.Dense(4, name="dense")(fl.dot_product_attention(q, k, v).reshape(2, 5, 4))

    names = {"q": "query", "k": "key", "v": "value", "o": "dense"}
    check(nn.MultiHeadAttention(2), Attention(), x, names=names)


def test_lists_of_modules_nesting_and_sharing():
    x = draws(2, 4)

    class Net(fl.Module):
        def setup(self):
            self.shared = fl.Dense(4)
            self.blocks = [fl.Sequential([fl.LayerNorm(epsilon=1e-5), fl.Dense(4)]) for _ in range(2)]

        def __call__(self, x):
            x = self.shared(x)
            for block in self.blocks:
                x = block(x)
            return self.shared(x)

    again = nn.Dense(4)
    block = nn.Sequential(nn.LayerNorm(), nn.Dense(4))
    net = nn.Sequential({"shared": again, "blocks": nn.Repeat(block, 2), "last": again})
    params, table = check(net, Net(), x)
    assert params["last/kernel"] is params["shared/kernel"]
    assert "'params/blocks_{0..1}/layers_1/kernel' -> 'blocks/{0..1}/1/kernel', as_is" in list(table)
    check(
        nn.Sequential({"a": again, "blocks": nn.Repeat(block, 2, scan=False), "b": again}),
        Net(),
        x,
        names={"a": "shared"},
    )
