"""Each layer that Flax and Keras have, against theirs over a grid of options: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import data, drawn, grid, shown

import ptree as pt
from ptree import nn

linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
keras = pytest.importorskip("keras")
RNGS = nnx.Rngs(0)


def agree(ours, peers, params, x, *, tolerance=1e-5):
    """The same values, and the same gradients of a loss that weighs every output differently.

    All are functions of ptree's parameters, so that a peer says how they look in the other framework.
    """
    x = jnp.asarray(x)
    weights = data(*jax.eval_shape(ours, params, x).shape, seed=7)
    inputs = (params, x) if jnp.issubdtype(x.dtype, jnp.floating) else (params,)

    def with_gradients(function):
        def run(*inputs):
            y, pulled = jax.vjp(lambda params, x=x: function(params, x), *inputs)
            return y, pulled(weights)

        return jax.jit(run)(*inputs)

    y, got = with_gradients(ours)
    for peer in peers:
        expected, wanted = with_gradients(peer)
        np.testing.assert_allclose(y, expected, atol=tolerance, rtol=1e-4)
        for path, grad in pt.items(wanted):
            scale = max(1.0, float(np.abs(grad).max()))
            np.testing.assert_allclose(pt.get(got, path) / scale, grad / scale, atol=tolerance, err_msg=path)


def in_linen(module, own=lambda p: p, **options):
    """`own` makes linen's parameters, or its collections, of ptree's."""

    def call(p, x):
        made = own(pt.asdict(p))
        return module.apply(made if "params" in made else {"params": made}, x, **options)

    return call


def in_nnx(module, own=lambda p: p, call=None):
    graph, state = nnx.split(module)

    def called(p, x):
        filled = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(filled, {**nnx.to_pure_dict(state), **own(pt.asdict(p))})
        merged = nnx.merge(graph, filled)
        return (call or type(merged).__call__)(merged, x)

    return called


def in_keras(layer, own=lambda p: [*p.values()], x=None, **options):
    """`own` lists Keras' trainable weights."""

    def call(p, x):
        if not layer.built:
            layer.build(x.shape)
        frozen = [weight.value for weight in layer.non_trainable_variables]
        return layer.stateless_call(own(pt.asdict(p)), frozen, x, **options)[0]

    return call


def check(layer, x, *peers, tolerance=1e-5):
    agree(layer, peers, drawn(layer, x), x, tolerance=tolerance)


# ----------------------------------------------------------------------------- multiply


@pytest.mark.parametrize("options", grid(use_bias=[True, False], lead=[(3,), (2, 3)]), ids=shown)
def test_dense(options):
    bias, x = options["use_bias"], data(*options["lead"], 4)
    theirs = [linen.Dense(5, use_bias=bias), nnx.Linear(4, 5, use_bias=bias, rngs=RNGS)]
    keras_layer = keras.layers.Dense(5, use_bias=bias)
    check(nn.Dense(5, use_bias=bias), x, in_linen(theirs[0]), in_nnx(theirs[1]), in_keras(keras_layer))


def test_dense_over_several_axes():
    x = data(2, 3, 4)
    check(
        nn.Dense((5, 6)),
        x,
        in_linen(linen.DenseGeneral((5, 6))),
        in_nnx(nnx.LinearGeneral(4, (5, 6), rngs=RNGS)),
        in_keras(keras.layers.EinsumDense("abi,ijk->abjk", (None, 5, 6), bias_axes="jk")),
    )
    check(
        nn.Dense(5, axis=(-2, -1)),
        x,
        in_linen(linen.DenseGeneral(5, axis=(-2, -1))),
        in_nnx(nnx.LinearGeneral((3, 4), 5, axis=(-2, -1), rngs=RNGS)),
        in_keras(keras.layers.EinsumDense("aij,ijk->ak", 5, bias_axes="k")),
    )


def test_embedding_and_attend():
    layer, ids, x = nn.Embedding(9, 4), np.array([[1, 2, 8], [0, 1, 1]]), data(2, 3, 4)
    own = lambda p: {"embedding": p["table"]}
    theirs, other = linen.Embed(9, 4), nnx.Embed(9, 4, rngs=RNGS)
    check(layer, ids, in_linen(theirs, own), in_nnx(other, own), in_keras(keras.layers.Embedding(9, 4)))
    attend = in_linen(theirs, own, method="attend"), in_nnx(other, own, lambda m, x: m.attend(x))
    agree(layer.attend, attend, drawn(layer, ids), x)


# ----------------------------------------------------------------------------- normalise


@pytest.mark.parametrize(
    "options", grid(use_bias=[True, False], epsilon=[1e-5, 0.1], shape=[(4, 6), (2, 3, 6)]), ids=shown
)
def test_layer_norm(options):
    epsilon, bias = options["epsilon"], options["use_bias"]
    check(
        nn.LayerNorm(epsilon=epsilon, use_bias=bias),
        data(*options["shape"]),
        in_linen(linen.LayerNorm(epsilon, use_bias=bias)),
        in_nnx(nnx.LayerNorm(6, epsilon=epsilon, use_bias=bias, rngs=RNGS)),
        in_keras(keras.layers.LayerNormalization(epsilon=epsilon, center=bias)),
    )


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_rms_norm(epsilon):
    check(
        nn.RMSNorm(epsilon=epsilon),
        data(2, 3, 6),
        in_linen(linen.RMSNorm(epsilon)),
        in_nnx(nnx.RMSNorm(6, epsilon=epsilon, rngs=RNGS)),
        in_keras(keras.layers.RMSNormalization(epsilon=epsilon)),
    )


@pytest.mark.parametrize("options", grid(groups=[1, 2, 3], shape=[(3, 6), (2, 5, 6), (2, 4, 5, 6)]), ids=shown)
def test_group_norm(options):
    groups = options["groups"]
    check(
        nn.GroupNorm(groups),
        data(*options["shape"]),
        in_linen(linen.GroupNorm(groups, epsilon=1e-5)),
        in_nnx(nnx.GroupNorm(6, groups, epsilon=1e-5, rngs=RNGS)),
        in_keras(keras.layers.GroupNormalization(groups, epsilon=1e-5)),
        tolerance=3e-5,
    )


@pytest.mark.parametrize("options", grid(shape=[(7, 6), (2, 5, 6), (2, 4, 5, 6)], train=[True, False]), ids=shown)
def test_batch_norm(options):
    layer, x, train = nn.BatchNorm(momentum=0.7, epsilon=1e-3), data(*options["shape"]), options["train"]
    params = pt.update(drawn(layer, x), "var", lambda v: abs(v) + 0.5)
    mean, var = params["mean"], params["var"]
    ours = lambda p, x: layer(pt.set(pt.set(p, "mean", mean), "var", var), x, train=train)
    taken = lambda p: {name: p[name] for name in ("scale", "bias")}
    statistics = {"batch_stats": {"mean": mean, "var": var}}
    theirs = linen.BatchNorm(not train, momentum=0.7, epsilon=1e-3)
    other = keras.layers.BatchNormalization(momentum=0.7, epsilon=1e-3)
    other.build(x.shape)
    other.moving_mean.assign(mean)
    other.moving_variance.assign(var)
    in_flax = lambda p, x: theirs.apply({"params": taken(p), **statistics}, x, mutable=["batch_stats"])[0]
    agree(ours, [in_flax, in_keras(other, lambda p: [p["scale"], p["bias"]], training=train)], params, x)
    if train:
        _, new = layer.updated(params, x)
        _, moved = theirs.apply({"params": taken(params), **statistics}, x, mutable=["batch_stats"])
        *_, (keras_mean, keras_var) = other.stateless_call(
            [params["scale"], params["bias"]], [mean, var], x, training=True
        )
        count = x.size // 6
        for one in (moved["batch_stats"], {"mean": keras_mean, "var": keras_var}):
            np.testing.assert_allclose(new["mean"], one["mean"], atol=1e-6)
            unbiased = (one["var"] - 0.7 * var) * count / (count - 1)  # theirs is the biased variance
            np.testing.assert_allclose(new["var"], 0.7 * var + unbiased, atol=1e-5)


# ----------------------------------------------------------------------------- space

SPACE = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}


@pytest.mark.parametrize(
    "options",
    grid(rank=[1, 2, 3], stride=[1, 2], padding=["SAME", "VALID"], dilation=[1, 2], groups=[1, 2]),
    ids=shown,
)
def test_conv(options):
    rank, stride, padding, dilation, groups = options.values()
    x, size = data(2, *SPACE[rank], 4), (3,) * rank
    flax = {"strides": stride, "padding": padding, "kernel_dilation": dilation, "feature_group_count": groups}
    peers = [in_linen(linen.Conv(6, size, **flax)), in_nnx(nnx.Conv(4, 6, size, **flax, rngs=RNGS))]
    if stride == 1 or dilation == 1:  # Keras refuses both
        kind = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[rank]
        own = kind(6, size, strides=stride, padding=padding.lower(), dilation_rate=dilation, groups=groups)
        peers.append(in_keras(own))
    check(nn.Conv(6, size, stride=stride, padding=padding, dilation=dilation, groups=groups), x, *peers, tolerance=2e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_depthwise_conv(rank):
    x, size = data(2, *SPACE[rank], 4), (3,) * rank
    kind = {1: keras.layers.DepthwiseConv1D, 2: keras.layers.DepthwiseConv2D}[rank]
    own = lambda p: [p["kernel"].reshape(*size, 4, 2), p["bias"]]  # (space..., in, out / in)
    check(nn.Conv(8, size, groups=4), x, in_keras(kind(size, padding="same", depth_multiplier=2), own), tolerance=2e-5)


@pytest.mark.parametrize(
    "options", grid(rank=[1, 2, 3], stride=[1, 2], padding=["SAME", "VALID"], size=[2, 3, 4]), ids=shown
)
def test_conv_transpose(options):
    rank, stride, padding, size = options.values()
    x, window = data(2, *SPACE[rank], 4), (size,) * rank
    space = tuple(range(rank))

    def flipped(p):  # Flax slides the kernel as it is
        return {**p, "kernel": jnp.flip(p["kernel"], space)}

    own = {"strides": (stride,) * rank, "padding": padding}
    peers = [
        in_linen(linen.ConvTranspose(6, window, **own), flipped),
        in_nnx(nnx.ConvTranspose(4, 6, window, **own, rngs=RNGS), flipped),
    ]
    kind = {1: keras.layers.Conv1DTranspose, 2: keras.layers.Conv2DTranspose, 3: keras.layers.Conv3DTranspose}[rank]
    layer = kind(6, window, strides=stride, padding=padding.lower())
    peers.append(in_keras(layer, lambda p: [jnp.swapaxes(p["kernel"], -1, -2), p["bias"]]))
    check(nn.ConvTranspose(6, window, stride=stride, padding=padding), x, *peers, tolerance=2e-5)


@pytest.mark.parametrize(
    "options", grid(rank=[1, 2, 3], window=[2, 3], stride=[None, 1, 2], padding=["SAME", "VALID"]), ids=shown
)
def test_pools(options):
    rank, window, stride, padding = options.values()
    x, none = data(2, *SPACE[rank], 3), pt.Tree()
    windows, strides = (window,) * rank, (stride or window,) * rank

    def in_flax(pool, **more):
        return lambda _, x: pool(x, windows, strides, padding, **more)

    kinds = {name: getattr(keras.layers, f"{name}Pooling{rank}D") for name in ("Max", "Average")}
    largest, mean = (kind(window, stride or window, padding.lower()) for kind in kinds.values())
    agree(
        nn.MaxPool(window, stride, padding=padding),
        [in_flax(linen.max_pool), in_flax(nnx.max_pool), in_keras(largest)],
        none,
        x,
    )
    agree(nn.AvgPool(window, stride, padding=padding), [in_flax(linen.avg_pool), in_flax(nnx.avg_pool)], none, x)
    without = nn.AvgPool(window, stride, padding=padding, count_padding=False)
    agree(without, [in_flax(linen.avg_pool, count_include_pad=False), in_keras(mean)], none, x)


# ----------------------------------------------------------------------------- sequences


def gates(array, count):
    return jnp.split(array, count, -1)


def lstm_in_flax(p):
    """Biases of Flax' cell are with the hidden kernels alone."""
    cell = {f"i{name}": {"kernel": k} for name, k in zip("ifgo", gates(p["input"]["kernel"], 4), strict=True)}
    hidden = zip(
        "ifgo", gates(p["hidden"]["kernel"], 4), gates(p["input"]["bias"] + p["hidden"]["bias"], 4), strict=True
    )
    return {"cell": {**cell, **{f"h{name}": {"kernel": k, "bias": b} for name, k, b in hidden}}}


def gru_in_flax(p):
    """Biases of Flax' cell are with the input's kernels; the new state has one more."""
    (ri, zi, ni), (rh, zh, nh) = gates(p["input"]["bias"], 3), gates(p["hidden"]["bias"], 3)
    biases = {"r": ri + rh, "z": zi + zh, "n": ni}
    kernels, hidden = (dict(zip("rzn", gates(p[n]["kernel"], 3), strict=True)) for n in ("input", "hidden"))
    cell = {f"i{name}": {"kernel": kernels[name], "bias": biases[name]} for name in "rzn"}
    return {
        "cell": {
            **cell,
            **{f"h{name}": {"kernel": hidden[name]} for name in "rz"},
            "hn": {"kernel": hidden["n"], "bias": nh},
        }
    }


def gru_in_keras(p):
    """The gates in the order z, r, n."""
    turned = lambda array: jnp.concatenate([gates(array, 3)[at] for at in (1, 0, 2)], -1)
    kernels = [turned(p[name]["kernel"]) for name in ("input", "hidden")]
    return [*kernels, jnp.stack([turned(p[name]["bias"]) for name in ("input", "hidden")])]


@pytest.mark.parametrize("reverse", [False, True])
def test_lstm(reverse):
    own = linen.RNN(linen.OptimizedLSTMCell(5), reverse=reverse, keep_order=True)
    layer = keras.layers.LSTM(5, return_sequences=True, go_backwards=reverse)
    weights = lambda p: [p["input"]["kernel"], p["hidden"]["kernel"], p["input"]["bias"] + p["hidden"]["bias"]]
    in_order = in_keras(layer, weights)
    theirs = (lambda p, x: in_order(p, x)[:, ::-1]) if reverse else in_order
    check(nn.LSTM(5, reverse=reverse), data(3, 6, 4), in_linen(own, lstm_in_flax), theirs, tolerance=2e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_gru(reverse):
    own = linen.RNN(linen.GRUCell(5), reverse=reverse, keep_order=True)
    in_order = in_keras(keras.layers.GRU(5, return_sequences=True, go_backwards=reverse), gru_in_keras)
    theirs = (lambda p, x: in_order(p, x)[:, ::-1]) if reverse else in_order
    check(nn.GRU(5, reverse=reverse), data(3, 6, 4), in_linen(own, gru_in_flax), theirs, tolerance=2e-5)


def rnn_in_flax(p):
    """The bias of Flax' cell is with the input's kernel."""
    bias = p["input"]["bias"] + p["hidden"]["bias"]
    return {"cell": {"i": {"kernel": p["input"]["kernel"], "bias": bias}, "h": {"kernel": p["hidden"]["kernel"]}}}


def rnn_in_keras(p):
    return [p["input"]["kernel"], p["hidden"]["kernel"], p["input"]["bias"] + p["hidden"]["bias"]]


CELLS = {
    "LSTM": (nn.LSTM, linen.OptimizedLSTMCell, lstm_in_flax, keras.layers.LSTM, rnn_in_keras),
    "GRU": (nn.GRU, linen.GRUCell, gru_in_flax, keras.layers.GRU, gru_in_keras),
    "RNN": (nn.RNN, linen.SimpleCell, rnn_in_flax, keras.layers.SimpleRNN, rnn_in_keras),
}


@pytest.mark.parametrize("kind", CELLS)
def test_bidirectional_with_lengths(kind):
    """Flax and Keras leave other values than 0 in the padding, which is left out of the comparison."""
    make, cell, to_flax, keras_layer, to_keras = CELLS[kind]
    x, lengths = data(3, 6, 4), np.array([6, 1, 4])
    valid = (np.arange(6) < lengths[:, None])[..., None]
    flax = linen.Bidirectional(linen.RNN(cell(5)), linen.RNN(cell(5)))
    own = lambda p: {f"{way}_rnn": to_flax(p[way]) for way in ("forward", "backward")}
    in_flax = in_linen(flax, own, seq_lengths=lengths)
    both = keras.layers.Bidirectional(keras_layer(5, return_sequences=True))
    masked = in_keras(both, lambda p: [*to_keras(p["forward"]), *to_keras(p["backward"])], mask=valid[..., 0])
    agree(
        lambda p, x: nn.Bidirectional(make(5))(p, x, lengths=jnp.array(lengths)),
        [lambda p, x: in_flax(p, x) * valid, lambda p, x: masked(p, x) * valid],
        drawn(nn.Bidirectional(make(5)), x),
        x,
        tolerance=2e-5,
    )


@pytest.mark.parametrize("options", grid(causal=[False, True], head_dim=[None, 6], use_bias=[True, False]), ids=shown)
def test_attention(options):
    causal, head_dim, bias = options.values()
    size, x = head_dim or 2, data(2, 5, 8)
    layer = nn.MultiHeadAttention(4, head_dim=head_dim, causal=causal, use_bias=bias)
    mask = linen.make_causal_mask(jnp.ones((2, 5))) if causal else None
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    own = lambda p: {names[name]: part for name, part in p.items()}
    theirs = linen.MultiHeadDotProductAttention(4, qkv_features=4 * size, use_bias=bias)
    other = nnx.MultiHeadAttention(4, 8, 4 * size, use_bias=bias, decode=False, rngs=RNGS)
    attend = keras.layers.MultiHeadAttention(4, size, use_bias=bias)
    attend.build((2, 5, 8), (2, 5, 8))
    listed = lambda p: [leaf for name in "qkvo" for leaf in p[name].values()]

    def in_keras_(p, x):
        return attend.stateless_call(listed(p), [], x, x, use_causal_mask=causal)[0]

    in_flax = in_nnx(other, own, lambda m, x: m(x, mask=mask))
    check(layer, x, in_linen(theirs, own, mask=mask), in_flax, in_keras_, tolerance=2e-5)


@pytest.mark.parametrize("options", grid(kv_heads=[2, 1], causal=[False, True]), ids=shown)
def test_grouped_attention(options):
    kv_heads, causal = options.values()
    layer, x = nn.MultiHeadAttention(4, kv_heads=kv_heads, causal=causal), data(2, 5, 8)
    attend = keras.layers.GroupQueryAttention(2, 4, kv_heads)
    attend.build((2, 5, 8), (2, 5, 8))
    listed = lambda p: [leaf for name in "qkvo" for leaf in p[name].values()]
    check(layer, x, lambda p, x: attend.stateless_call(listed(p), [], x, x, use_causal_mask=causal)[0], tolerance=2e-5)


# ----------------------------------------------------------------------------- whole networks


def test_a_residual_network_of_all_kinds():
    x = data(2, 8, 8, 3)
    inner = {"n": nn.GroupNorm(2), "r": jax.nn.relu, "c": nn.Conv(4, 3)}
    net = nn.Sequential(
        {
            "c": nn.Conv(4, 3),
            "b": nn.Residual(nn.Sequential(inner)),
            "p": nn.MaxPool(2),
            "f": nn.Flatten(),
            "d": nn.Dense(5),
        }
    )

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(4, (3, 3), name="c")(x)
            y = linen.relu(linen.GroupNorm(2, epsilon=1e-5, name="n")(x))
            x = linen.max_pool(x + linen.Conv(4, (3, 3), name="inner")(y), (2, 2), (2, 2))
            return linen.Dense(5, name="d")(x.reshape(len(x), -1))

    inputs = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    z = keras.layers.ReLU()(keras.layers.GroupNormalization(2, epsilon=1e-5)(y))
    y = keras.layers.Add()([y, keras.layers.Conv2D(4, 3, padding="same")(z)])
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(keras.layers.MaxPooling2D(2)(y))))

    def own(p):
        return {"c": p["c"], "n": p["b"]["inner"]["n"], "inner": p["b"]["inner"]["c"], "d": p["d"]}

    def in_keras_(p, x):
        listed = [leaf for part in own(pt.asdict(p)).values() for leaf in part.values()]
        return model.stateless_call(listed, [], x)[0]

    check(net, x, in_linen(Net(), own), in_keras_, tolerance=3e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_scales_what_it_keeps_as_flax_and_keras_do(rate):
    x, key = jnp.asarray(data(200, 100)), jax.random.key(3)
    theirs = linen.Dropout(rate, deterministic=False).apply({}, x, rngs={"dropout": key})
    other = keras.layers.Dropout(rate, seed=1)(x, training=True)
    for y in (nn.Dropout(rate)({}, x, key=key), theirs, other):
        kept = np.asarray(y != 0)
        assert kept.mean() == pytest.approx(1 - rate, abs=0.02)
        np.testing.assert_allclose(np.asarray(y)[kept], np.asarray(x)[kept] / (1 - rate), rtol=1e-6)
