"""Layers against those of Haiku: parameters by the table of layers, square throughout, and back into its dicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, draws, same_arrays, with_noise

import ptree as pt
from ptree import convert, nn

hk = pytest.importorskip("haiku")


def check(net, function, *inputs, **options):
    """A function of Haiku without statistics; exact unless it is said."""
    transformed = hk.without_apply_rng(hk.transform(function))
    params = with_noise(jax.eval_shape(transformed.init, jax.random.key(0), *inputs))
    return agrees(net, inputs, params, "haiku", jax.jit(transformed.apply)(params, *inputs), **options)


def unrolled(core, x):
    ys, _ = hk.dynamic_unroll(core, x.swapaxes(0, 1), core.initial_state(x.shape[0]))
    return ys.swapaxes(0, 1)


def test_dense_convolutions_and_their_transposes():
    x = draws(3, 4)
    check(nn.Dense(4), lambda x: hk.Linear(4)(x), x, names={"": "linear"})
    for rank in (1, 2):
        x = draws(2, *(4, 5)[:rank], 4)

        def function(x, rank=rank):
            conv, transposed = getattr(hk, f"Conv{rank}D"), getattr(hk, f"Conv{rank}DTranspose")
            x = transposed(4, 4, 2, name="b")(conv(4, 4, feature_group_count=2, name="a")(x))
            return hk.DepthwiseConv2D(2, 4, name="c")(x) if rank == 2 else x

        layers = {"a": nn.Conv(4, (4,) * rank, groups=2), "b": nn.ConvTranspose(4, (4,) * rank, stride=2)}
        if rank == 2:
            layers["c"] = nn.Conv(8, (4, 4), groups=4)
        check(nn.Sequential(layers), function, x, tolerance=1e-4)
    with pytest.raises(pt.LayerError, match="its ConvNDTranspose has no groups"):
        convert.layer_table(nn.ConvTranspose(4, 3, groups=2), draws(1, 4, 4), framework="haiku")


def test_several_axes_are_those_of_a_matrix():
    x = draws(2, 3, 4)
    net = nn.Sequential({"a": nn.Dense((2, 2)), "b": nn.Dense(4, axis=(-2, -1))})
    check(net, lambda x: hk.Linear(4, name="b")(hk.Linear(4, name="a")(x)), x)


def test_embeddings_and_norms():
    ids = np.array([[1, 2, 0], [3, 0, 2]])

    def function(ids):
        x = hk.LayerNorm(-1, True, True)(hk.Embed(4, 4)(ids))
        return hk.GroupNorm(2)(hk.RMSNorm(-1)(x))

    net = nn.Sequential(
        {
            "embed": nn.Embedding(4, 4),
            "layer_norm": nn.LayerNorm(),
            "rms_norm": nn.RMSNorm(epsilon=1e-5),
            "group_norm": nn.GroupNorm(2),
        }
    )
    check(net, function, ids, tolerance=1e-4)


def test_averages_of_batch_norm_are_in_a_state_beside_the_parameters():
    x = draws(2, 4, 4, 4)

    def function(x, train):
        x = hk.Linear(4)(hk.BatchNorm(True, True, 0.9)(x, train))
        return hk.BatchNorm(True, True, 0.9, name="second")(x.mean((1, 2)), train)

    transformed = hk.without_apply_rng(hk.transform_with_state(function))
    params, state = transformed.init(jax.random.key(0), x, True)
    for seed in range(3):
        _, state = transformed.apply(params, state, draws(2, 4, 4, 4, seed=seed), True)
    pair = with_noise(params), state
    expected, _ = transformed.apply(*pair, x, False)
    net = nn.Sequential(
        {
            "batch_norm": nn.BatchNorm(),
            "linear": nn.Dense(4),
            "mean": lambda x: x.mean((1, 2)),
            "second": nn.BatchNorm(),
        }
    )
    # of the averages one way: what counted the steps is not kept
    table = convert.layer_table(net, x, framework="haiku")
    assert "(one way)" in str(table.plan(pair, net.spec(x)))
    ours = table.apply(pair, like=net.spec(x))
    np.testing.assert_allclose(net(ours, x), expected, rtol=1e-4, atol=1e-5)
    back = table.inverse.apply(ours, like=pair)
    same_arrays(back[0], pair[0])
    for module in state:
        same_arrays(back[1][module]["average"], state[module]["average"])
    again, after = transformed.apply(*back, x, False)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-5)
    # a step of training moves the averages from where they were
    _, after = transformed.apply(*back, x, True)
    _, moved = net.updated(ours, x)
    np.testing.assert_allclose(
        after["batch_norm/~/mean_ema"]["average"].reshape(-1), moved["batch_norm/mean"], rtol=1e-4, atol=1e-5
    )


def test_a_batch_norm_inside_of_ones_own_layer_has_as_many_axes_as_its_input():
    class Own(nn.Layer):
        norm = nn.BatchNorm()

        def parts(self):
            yield "norm", self.norm

        def declare(self, x):
            return {"norm": self.norm.spec(x)}

        def apply(self, params, x):
            return self.norm(params["norm"], x)

    rows = list(convert.layer_table(Own(), draws(3, 5, 4), framework="haiku"))
    assert "'0/norm/scale' -> 'norm/scale', reshape((1, 1, 4), (4,))" in rows

    class Within(Own):
        def apply(self, params, x):
            return nn.BatchNorm.apply(self.norm, params["norm"], x)

    with pytest.raises(pt.LayerError, match="'norm', BatchNorm in Haiku: its scale has as many axes as the input"):
        convert.layer_table(Within(), draws(3, 4), framework="haiku")


def test_recurrent_layers():
    x = draws(2, 5, 4)

    def function(x):
        return unrolled(hk.VanillaRNN(4), unrolled(hk.LSTM(4), x))

    net = nn.Sequential({"lstm": nn.LSTM(4), "vanilla_rnn": nn.RNN(4, activation=jax.nn.relu)})
    params, table = check(net, function, x, exact=False)  # 1 is added to the forget gate, and taken away again
    trained = pt.update(params, "lstm/hidden/bias", lambda bias: bias + 0.3)
    transformed = hk.without_apply_rng(hk.transform(function))
    out = table.inverse.apply(trained, like=jax.eval_shape(transformed.init, jax.random.key(0), x))
    np.testing.assert_allclose(jax.jit(transformed.apply)(out, x), jax.jit(net)(trained, x), rtol=1e-4, atol=1e-5)


def test_its_gru_has_no_equal():
    with pytest.raises(pt.LayerError) as error:
        convert.layer_table(nn.Sequential(nn.GRU(4)), draws(2, 5, 4), framework="haiku")
    assert str(error.value) == (
        "layer_table: no table between Haiku and this model:\n'0', GRU in Haiku: its GRU applies the reset gate to the state before"
        " the product, and so computes something else"
    )


def test_both_directions_are_two_modules():
    x = draws(2, 5, 4)

    def function(x):
        back = unrolled(hk.LSTM(4, name="back"), x[:, ::-1])[:, ::-1]
        return jnp.concatenate([unrolled(hk.LSTM(4, name="there"), x), back], -1)

    check(nn.Bidirectional(nn.LSTM(4)), function, x, names={"forward": "there", "backward": "back"}, exact=False)


def test_attention():
    x = draws(2, 5, 4)

    def function(x):
        return hk.MultiHeadAttention(2, 2, w_init=hk.initializers.RandomNormal(), name="attention")(x, x, x)

    check(nn.MultiHeadAttention(2), function, x, names={"": "attention"})
    grouped = nn.MultiHeadAttention(2, kv_heads=1)
    with pytest.raises(pt.LayerError, match="its MultiHeadAttention has no kv_heads"):
        convert.layer_table(grouped, x, framework="haiku")
    names = {"q": "a", "k": "b", "v": "c", "o": "d"}
    assert "'b/w' -> 'k/kernel', split_axis(1, (1, 2))" in list(
        convert.layer_table(grouped, x, framework="haiku", names=names)
    )


def test_nested_modules_and_shared_ones():
    x = draws(3, 4)

    def function(x):
        shared = hk.Linear(4)
        return hk.Linear(4)(shared(hk.nets.MLP([4, 4], activation=jnp.tanh, activate_final=True)(shared(x))))

    again = nn.Dense(4)
    mlp = nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense(4), jnp.tanh)
    net = nn.Sequential({"linear": again, "mlp": mlp, "again": again, "linear_1": nn.Dense(4)})
    params, _ = check(net, function, x, names={"mlp/0": "mlp/~/linear_0", "mlp/2": "mlp/~/linear_1"})
    assert params["again/kernel"] is params["linear/kernel"]
