"""first: the spread of leaves, activations and gradients before training, beside theory, NumPy and PyTorch."""

import json
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree import initializers as I
from ptree import nn
from ptree.initializers._spread import spread_of
from ptree.look import first

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (512, 128))


def deep(count, kernel_init, activation, width=128):
    layers = [part for _ in range(count) for part in (nn.Dense(width, kernel_init=kernel_init), activation)]
    return nn.Sequential(*layers)


def rms(values):
    return float(np.sqrt(np.mean(np.square(np.asarray(values, np.float64)))))


# ------------------------------------------------------------------------------ theory


def test_he_on_relu_keeps_the_second_moment_forward_and_backward():
    start = first(deep(12, I.he_normal(), jax.nn.relu), X, KEY)
    outputs = np.array([layer.output for layer in start.layers]) ** 2
    # He et al. 2015: E[z^2] = 2 E[x^2] for the first layer, whose input is not rectified, and the same from there on
    np.testing.assert_allclose(outputs, 2.0, rtol=0.5)
    gradients = np.array([layer.gradient for layer in start.layers]) ** 2
    np.testing.assert_allclose(gradients, gradients[-1], rtol=0.5)
    assert all(verdict.endswith("steady") for verdict in start.verdicts)


def test_a_small_normal_start_vanishes_at_the_rate_of_theory():
    start = first(deep(20, I.normal(0.01), jnp.tanh), X, KEY)
    outputs = [layer.output for layer in start.layers]
    # tanh is the identity for small numbers, so each layer multiplies by 0.01 * sqrt(128)
    rate = 0.01 * math.sqrt(128)
    for at, output in enumerate(outputs[1:], 1):
        assert output == pytest.approx(outputs[0] * rate**at, rel=0.25)
    assert start.verdicts[0].startswith("activations shrink from 0.112 to ")
    assert all(verdict.endswith("over 19 layers: vanishing") for verdict in start.verdicts)


def test_gradients_far_below_the_squares_of_float32_are_measured():
    start = first(deep(24, I.normal(0.001), jnp.tanh, width=16), X[:, :16], KEY)
    rate = 0.001 * math.sqrt(16)
    ratio = start.layers[8].gradient / start.layers[-1].gradient  # about 1e-37, whose square is 0 in float32
    assert ratio > 0
    assert math.log(ratio) == pytest.approx(15 * math.log(rate), rel=0.05)


def test_a_start_that_explodes_or_is_not_finite_says_so():
    start = first(deep(12, I.normal(0.5), jax.nn.relu), X, KEY)
    assert [verdict.rpartition(": ")[2] for verdict in start.verdicts] == ["exploding", "exploding"]
    params = deep(4, I.he_normal(), jnp.tanh).init(KEY, X)
    params = pt.set(params, "2/kernel", params["2/kernel"].at[3, 4].set(jnp.nan))
    start = first(deep(4, I.he_normal(), jnp.tanh), X, KEY, params=params)
    assert start.verdicts == (
        "activations are NaN or inf from layer 2 of 3 on",
        "gradients are NaN or inf backward from layer 1 of 3 on",  # the derivative of tanh at NaN
        "2/kernel: NaN or inf in 1 of 16,384 numbers",
    )


def test_xavier_on_tanh_falls_slowly():
    start = first(deep(30, I.xavier_normal(), jnp.tanh), X, KEY)
    outputs = [layer.output for layer in start.layers]
    assert outputs[0] > outputs[9] > outputs[19] > outputs[29]
    # z' = -z^3 for small z: the second moment falls as 1 / (2 * layers)
    assert outputs[-1] == pytest.approx(math.sqrt(1 / (2 * 30)), rel=0.25)
    assert start.verdicts[0].endswith("over 29 layers")


# ------------------------------------------------------------------------------ beside others


def test_values_are_those_of_numpy_by_hand():
    params = {
        "a": {"w": np.random.default_rng(0).normal(size=(128, 32)).astype("f4"), "b": np.ones(32, "f4")},
        "c": {"w": np.random.default_rng(1).normal(size=(32, 4)).astype("f4")},
    }

    def f(params, x):
        return jnp.tanh(x @ params["a"]["w"] + params["a"]["b"]) @ params["c"]["w"]

    start = first(f, X, KEY, params=params, loss=lambda y: (y**2).sum())
    x = np.asarray(X, np.float64)
    z = x @ params["a"]["w"] + params["a"]["b"]
    h = np.tanh(z)
    y = h @ params["c"]["w"].astype("f8")
    dy = 2 * y
    dz = (dy @ params["c"]["w"].T) * (1 - h**2)
    a, c = start.layers
    assert (a.path, c.path) == ("a", "c")
    expected = [rms(x), rms(z), abs(z).max(), rms(dz), abs(dz).max()]
    np.testing.assert_allclose([a.source, a.output, a.largest, a.gradient, a.largest_gradient], expected, rtol=1e-4)
    np.testing.assert_allclose([c.source, c.output, c.gradient], [rms(h), rms(y), rms(dy)], rtol=1e-4)
    gradient = {leaf.path: leaf.gradient for leaf in start.leaves}
    np.testing.assert_allclose(gradient["a/w"], rms(x.T @ dz), rtol=1e-4)
    np.testing.assert_allclose(gradient["a/b"], rms(dz.sum(0)), rtol=1e-4)
    np.testing.assert_allclose(gradient["c/w"], rms(h.T @ dy), rtol=1e-4)


def test_values_are_those_of_pytorch_with_hooks():
    torch = pytest.importorskip("torch")
    net = nn.Sequential(nn.Dense(16), nn.LayerNorm(), jax.nn.relu, nn.Dense(4))
    params = net.init(KEY, X)
    start = first(net, X, KEY, params=params, loss=lambda y: (y**2).sum())
    twin = torch.nn.Sequential(
        torch.nn.Linear(128, 16), torch.nn.LayerNorm(16, eps=1e-5), torch.nn.ReLU(), torch.nn.Linear(16, 4)
    )
    with torch.no_grad():
        for at in ("0", "3"):
            twin[int(at)].weight.copy_(torch.tensor(np.asarray(params[f"{at}/kernel"]).T))
            twin[int(at)].bias.copy_(torch.tensor(np.asarray(params[f"{at}/bias"])))
    seen = {}

    def keep(name):
        def hook(module, inputs, output):
            output.retain_grad()
            seen[name] = (inputs[0], output)

        return hook

    for at in (0, 1, 3):
        twin[at].register_forward_hook(keep(str(at)))
    (twin(torch.tensor(np.asarray(X))) ** 2).sum().backward()
    assert [layer.path for layer in start.layers] == ["0", "1", "3"]
    for layer in start.layers:
        source, output = seen[layer.path]
        expected = [rms(source.detach()), rms(output.detach()), rms(output.grad)]
        np.testing.assert_allclose([layer.source, layer.output, layer.gradient], expected, rtol=1e-3)


# ------------------------------------------------------------------------------ which layers are found


def test_a_stack_and_separate_layers_have_the_same_rows():
    block = nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(8), jax.nn.relu))
    x = X[:, :8]
    stacked = first(nn.Repeat(block, 3), x, KEY)
    apart = first(nn.Repeat(block, 3, scan=False), x, KEY)
    assert [layer.path for layer in stacked.layers] == [f"{at}/inner/{part}" for at in range(3) for part in (0, 1)]
    assert [layer.path for layer in apart.layers] == [layer.path for layer in stacked.layers]
    for one, other in zip(stacked.layers, apart.layers):
        np.testing.assert_allclose(
            [one.source, one.output, one.gradient], [other.source, other.output, other.gradient], rtol=1e-4
        )
    # what flows into a norm is the stream, not what it has divided already
    assert stacked.layers[4].source > 1.1 > stacked.layers[5].source
    checkpointed = first(nn.Repeat(block, 3, remat=True), x, KEY)
    np.testing.assert_allclose(
        [layer.gradient for layer in checkpointed.layers], [layer.gradient for layer in stacked.layers], rtol=1e-4
    )


@dataclass(frozen=True)
class TiedLanguageModel(nn.Layer):
    embedding: nn.Layer
    body: nn.Layer

    def declare(self, x):
        hidden = jax.ShapeDtypeStruct((*x.shape, 8), jnp.float32)
        return {"embedding": self.embedding.spec(x), "body": self.body.spec(hidden)}

    def apply(self, params, x):
        hidden = self.body(params["body"], self.embedding(params["embedding"], x))
        return hidden @ params["embedding"]["table"].T


def test_a_layer_that_is_used_twice_has_two_rows_and_tokens_have_no_size():
    model = TiedLanguageModel(nn.Embedding(20, 8), nn.Sequential(nn.MultiHeadAttention(2), nn.LSTM(8)))
    start = first(model, jnp.arange(12).reshape(2, 6), KEY)
    paths = [layer.path for layer in start.layers]
    assert paths == [
        "embedding",
        *(f"body/0/{name}" for name in "qkvo"),
        "body/1/input",
        "body/1/hidden",
        "embedding (2)",
    ]
    assert start.layers[0].source is None
    assert start.layers[-1].gradient == pytest.approx(1, rel=0.2)  # the default: noise of size 1


def test_leaves_of_the_root_and_stacked_leaves_of_others_are_named():
    def flat(params, x):
        return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"]

    params = {"w1": jnp.eye(128), "b1": jnp.zeros(128), "w2": jnp.eye(128)}
    assert [layer.path for layer in first(jax.jit(flat), X, KEY, params=params).layers] == ["w1", "w2"]

    def scanned(params, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params["blocks"]["w"])[0]

    stack = {"blocks": {"w": jnp.stack([jnp.eye(128)] * 3)}}
    assert [layer.path for layer in first(scanned, X, KEY, params=stack).layers] == [
        "blocks[0]",
        "blocks[1]",
        "blocks[2]",
    ]


def test_a_model_runs_as_in_training():
    net = nn.Sequential(nn.Dense(16), nn.BatchNorm(), nn.Dropout(0.5), nn.Dense(4))
    start = first(net, 100 * X, KEY)
    assert [layer.path for layer in start.layers] == ["0", "1", "3"]
    assert start.layers[1].output == pytest.approx(1, rel=1e-3)  # by the statistics of the batch
    assert start.layers[2].source == pytest.approx(math.sqrt(2), rel=0.05)  # half of them, twice as large


# ------------------------------------------------------------------------------ leaves


@pytest.mark.parametrize(
    ("initializer", "shape"),
    [
        (I.normal(0.3, mean=1.0), (300, 200)),
        (I.uniform(-1, 3), (300, 200)),
        (I.truncated_normal(0.5), (300, 200)),
        (I.truncated_normal(1.0, lower=3.0, upper=4.0), (300, 200)),
        (I.rescaled_truncated_normal(0.5), (300, 200)),
        (I.he_normal(), (300, 200)),
        (I.he_uniform(), (300, 200)),
        (I.lecun_normal(), (3, 3, 30, 200)),
        (I.variance_scaling(2.0, "fan_avg", "normal"), (300, 200)),
        (I.orthogonal(2.0), (300, 200)),
        (I.sparse(0.75, 2.0), (300, 200)),
        (I.mixture((0.25, I.uniform(5, 10)), (0.75, I.normal(0.1))), (300, 200)),
        (I.constant(3), (300, 200)),
        (I.torch_linear.kernel, (300, 200)),
        (I.torch_embedding.kernel, (300, 200)),
        (I.keras_dense.kernel, (300, 200)),
    ],
)
def test_the_declared_spread_is_that_of_many_draws(initializer, shape):
    spread = spread_of(initializer, shape, np.dtype("float32"))
    drawn = np.asarray(initializer(KEY, shape, jnp.float32), np.float64)
    assert spread.mean == pytest.approx(drawn.mean(), abs=0.02 * (spread.std + abs(spread.mean)))
    assert spread.std == pytest.approx(drawn.std(), rel=0.02)
    assert spread.low <= drawn.min()
    assert drawn.max() <= spread.high


def test_the_declared_bounds_are_known_by_hand():
    he = spread_of(I.he_uniform(), (6, 4), np.dtype("float32"))
    assert (he.low, he.high, he.std) == pytest.approx((-1.0, 1.0, 1 / math.sqrt(3)))
    cut = spread_of(I.truncated_normal(0.5), (6, 4), np.dtype("float32"))
    assert (cut.low, cut.high) == pytest.approx((-1.0, 1.0))
    assert cut.std == pytest.approx(0.5 * 0.87962566)
    assert spread_of(I.normal(0.5), (3,), np.dtype("complex64")) is None


def test_declared_and_seen_spread_and_a_leaf_that_is_not_as_declared():
    spec = nn.Sequential(nn.Dense(64), nn.Dense(64)).spec(X)
    wrong = pt.set(spec, "1/kernel", pt.Param((64, 64), init=lambda key, shape, dtype: jnp.ones(shape, dtype)))
    start = first(nn.Sequential(nn.Dense(64), nn.Dense(64)), X, KEY, params=wrong)
    leaf = {leaf.path: leaf for leaf in start.leaves}
    assert leaf["0/kernel"].declared_std == pytest.approx(1 / math.sqrt(128), rel=1e-4)
    assert leaf["0/kernel"].std == pytest.approx(1 / math.sqrt(128), rel=0.02)
    # of a function of the user the declared spread is that of one draw
    assert (leaf["1/kernel"].declared_std, leaf["1/kernel"].std) == (0, 0)
    assert all(not leaf.problem for leaf in start.leaves)
    ruled = first(nn.Dense(64), X, KEY, rules={"kernel": I.normal(3.0)})
    assert ruled.leaves[0].declared_std == pytest.approx(3)

    odd = pt.Tree({"kernel": pt.Param((128, 64), init=I.normal(1.0))})
    assert "std" in _with_std(first(lambda p, x: x @ p["kernel"], X, KEY, params=odd), 2.0).leaves[0].problem


def _with_std(start, std):
    """The same, with another seen spread."""
    from dataclasses import replace

    return replace(start, leaves=(replace(start.leaves[0], std=std),))


# ------------------------------------------------------------------------------ faces


def test_it_is_data_json_csv_text_and_html():
    start = first(deep(4, I.he_normal(), jnp.tanh), X, KEY)
    plain = json.loads(json.dumps(start.to_dict(), allow_nan=False))
    assert [row["path"] for row in plain["layers"]] == ["0", "2", "4", "6"]
    assert plain["leaves"][0]["bounds"] == [pytest.approx(-0.284, abs=1e-3), pytest.approx(0.284, abs=1e-3)]
    assert start.to_csv().splitlines()[0] == "path,source,output,largest,gradient,largest_gradient"
    for width in (40, 80, 120):
        assert max(map(len, start.text(width).splitlines()[3:])) <= width
    assert "<script" not in start._repr_html_()
    assert "<td>" in start._repr_html_()
    assert repr(start).startswith("activations ")


def test_many_layers_are_folded_and_names_are_inert():
    start = first(nn.Repeat(nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(8))), 60), X[:, :8], KEY)
    text = start.text(120)
    assert "{0..59}/inner/0" in text
    assert len(text.splitlines()) < 14
    params = {"\x1b[31m<b>": {"w": jnp.eye(128)}, "z": {"w": jnp.eye(128)}}
    start = first(lambda p, x: jnp.tanh(x @ p["\x1b[31m<b>"]["w"]) @ p["z"]["w"], X, KEY, params=params)
    assert "\x1b" not in start.text(80)
    assert "<b>" not in start._repr_html_()


def test_its_plot_has_the_numbers():
    start = first(deep(5, I.he_normal(), jnp.tanh), X, KEY)
    above, below = start.plot().axes[:2]
    np.testing.assert_array_equal(above.lines[1].get_ydata(), [layer.output for layer in start.layers])
    np.testing.assert_array_equal(below.lines[0].get_ydata(), [layer.gradient for layer in start.layers])


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: first(jnp.tanh, X, KEY), pt.LayerError, "first(f, x, key, params=params)"),
        (lambda: first(nn.Dense, X, KEY), pt.LayerError, "got the class Dense: call it first"),
        (lambda: first(nn.Dense(2), jax.ShapeDtypeStruct((3, 4), "float32"), KEY), pt.StructureError, "Give data"),
        (lambda: first(nn.Dense(2), [[1.0, 2.0]], KEY), pt.StructureError, "Give data"),
        (lambda: first(nn.Dense(2), X, 0), pt.InitError, "use jax.random.key(0)"),
        (lambda: first(nn.Dense(2), X, KEY, loss=lambda y: y), pt.StructureError, "one real number from loss(output)"),
        (lambda: first(nn.Dense(2), X, KEY, rules={"kernal": I.zeros}), pt.PatternError, "Did you mean 'kernel'?"),
    ],
)
def test_bad_input_says_what_to_do(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)


def test_a_model_without_parameters_has_no_rows():
    start = first(nn.Sequential(jax.nn.relu), X, KEY)
    assert (start.layers, start.leaves) == ((), ())
    assert start.verdicts[0] == "activations flow through too few layers to compare"
    start.plot().draw_without_rendering()


def test_inputs_of_nan_are_named_however_few_the_layers():
    net = nn.Sequential(nn.Dense(8), nn.Dense(8))
    found = first(net, X * jnp.nan, KEY)
    assert found.verdicts[0] == "activations are NaN or inf from layer 1 of 1 on"
