"""Features that are read flattened, beside PyTorch modules with channels first: equal outputs, or a refusal that names the layer."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import draws

from ptree import convert, nn
from ptree.convert._layouts.axis_order import ChannelsFirst, axes_of
from ptree.convert._layouts.flow_walk import FlowWalk
from ptree.convert._layouts.model_layers import ModelLayers

torch = pytest.importorskip("torch")
import beside_torch  # noqa: E402 - needs PyTorch
from beside_torch import modules, one  # noqa: E402

T = torch.nn
F = torch.nn.functional

X = draws(2, 4, 4, 4)
STEPS = draws(2, 4, 4)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def check(net, by_path, forward, x=X, **options):
    return beside_torch.check(net, by_path, forward, x, **options)


def refused(net, match, x=X, **options):
    beside_torch.refused(net, match, x, **options)


ORDERED = "linear >> flatten_order((4, 4, 4), (1, 2, 0))"


def test_only_the_first_repetition_reads_what_was_flattened():
    for scan in (True, False):
        net = nn.Sequential({"c": one(), "f": nn.Flatten(), "r": nn.Repeat(nn.Dense(64), 3, scan=scan)})
        by_path = {"c": T.Conv2d(4, 4, 1), "r/0": T.Linear(64, 64), "r/1": T.Linear(64, 64), "r/2": T.Linear(64, 64)}
        table = check(net, by_path, lambda m, x: m("r/2")(m("r/1")(m("r/0")(m("c")(x).flatten(1)))))
        assert [row for row in table if "flatten_order" in row] == [f"'r.0.weight' -> 'r/0/kernel', {ORDERED}"]


def test_norms_in_a_repeat_keep_the_order_for_the_next_repetition():
    net = nn.Sequential({"c": one(), "f": nn.Flatten(), "r": nn.Repeat(nn.LayerNorm(), 3)})
    by_path = {"c": T.Conv2d(4, 4, 1)} | {f"r/{at}": T.LayerNorm(64) for at in range(3)}
    root = modules(**by_path)
    for at in range(3):
        T.init.normal_(root.get_submodule(f"r.{at}").weight)

    def forward(m, x):
        y = m("c")(x).flatten(1)
        for at in range(3):
            y = m(f"r/{at}")(y)
        return y.unflatten(1, (4, 4, 4)).permute(0, 2, 3, 1).flatten(1)

    check(net, by_path, forward)


def test_a_layer_that_would_need_two_orders_is_refused():
    shared = nn.Dense(64)
    net = nn.Sequential(one(), nn.Flatten(), shared, shared)
    refused(
        net,
        "'2', Dense in PyTorch: it is called twice, with features that are flattened in another order .*: make two layers",
    )
    refused(nn.Sequential(one(), nn.Flatten(), nn.Repeat(nn.Dense(64), 2, shared=True)), "it is called twice")
    # one order in all places is fine
    norm = nn.LayerNorm()
    net = nn.Sequential(one(), nn.Flatten(), norm, jnp.tanh, norm, nn.Dense(4))
    module = T.LayerNorm(64)
    T.init.normal_(module.weight)
    by_path = {"0": T.Conv2d(4, 4, 1), "2": module, "4": module, "5": T.Linear(64, 4)}
    check(net, by_path, lambda m, x: m("5")(m("4")(m("2")(m("0")(x).flatten(1)).tanh())))
    # two repetitions share no parameters
    twice = nn.Sequential(
        one(), nn.Flatten(), nn.Repeat(nn.Sequential(nn.LayerNorm(), nn.Dropout(0.5)), 2), nn.Dense(4)
    )
    assert sum("flatten_order" in row for row in convert.layer_table(twice, X)) == 3


def test_a_skip_connection_over_flattened_features_is_refused_if_the_branches_differ():
    net = nn.Sequential(one(), nn.Flatten(), nn.Residual(nn.Dense(64)))
    refused(
        net,
        "'2/inner', Dense in PyTorch: `add` takes its output and features that are flattened in another order there",
    )
    refused(nn.Sequential(*net, nn.Dense(3)), "'3', Dense in PyTorch")
    kept = nn.Sequential(one(), nn.Flatten(), nn.Residual(nn.BatchNorm()), nn.Dense(3))
    by_path = {"0": T.Conv2d(4, 4, 1), "2/inner": T.BatchNorm1d(64), "3": T.Linear(64, 3)}
    T.init.normal_(by_path["2/inner"].weight)

    def forward(m, x):
        y = m("0")(x).flatten(1)
        return m("3")(y + m("2/inner")(y))

    check(kept, by_path, forward)


def test_branches_with_one_order_keep_it():
    def gate(second):
        return nn.Parallel({"a": nn.Dense(64), "b": second}, combine=lambda a, b: a * b)

    refused(nn.Sequential(one(), nn.Flatten(), gate(lambda x: x)), "'2/a', Dense in PyTorch: `mul` at test_flat")
    table = check(
        nn.Sequential(one(), nn.Flatten(), gate(nn.Dense(64)), nn.Dense(3)),
        {"0": T.Conv2d(4, 4, 1), "2/a": T.Linear(64, 64), "2/b": T.Linear(64, 64), "3": T.Linear(64, 3)},
        lambda m, x: m("3")(m("2/a")(m("0")(x).flatten(1)) * m("2/b")(m("0")(x).flatten(1))),
    )
    assert sum("flatten_order" in row for row in table) == 2
    check(
        nn.Sequential(nn.Parallel({"a": nn.Sequential(one(), nn.Flatten()), "b": nn.Sequential(one(), nn.Flatten())}), nn.Dense(3)),
        {"0/a/0": T.Conv2d(4, 4, 1), "0/b/0": T.Conv2d(4, 4, 1), "1": T.Linear(64, 3)},
        lambda m, x: m("1")(m("0/a/0")(x).flatten(1) + m("0/b/0")(x).flatten(1)),
    )  # fmt: skip
    swish = nn.Parallel(lambda x: x, jax.nn.sigmoid, combine=lambda a, b: a * b)
    check(
        nn.Sequential(one(), nn.Flatten(), swish, nn.Dense(3)),
        {"0": T.Conv2d(4, 4, 1), "3": T.Linear(64, 3)},
        lambda m, x: m("3")(F.silu(m("0")(x).flatten(1))),
    )


def test_branches_of_channels_are_joined_as_in_inception():
    joined = nn.Parallel({"a": one(), "b": nn.Conv(2, 1)}, combine=lambda a, b: jnp.concatenate([a, b], -1))
    check(
        nn.Sequential(joined, nn.Flatten(), nn.Dense(3)),
        {"0/a": T.Conv2d(4, 4, 1), "0/b": T.Conv2d(4, 2, 1), "2": T.Linear(96, 3)},
        lambda m, x: m("2")(torch.cat([m("0/a")(x), m("0/b")(x)], 1).flatten(1)),
    )
    flat = nn.Parallel(lambda x: x, lambda x: x, combine=lambda a, b: jnp.concatenate([a, b], -1))
    refused(
        nn.Sequential(one(), nn.Flatten(), flat, nn.Dense(3)),
        "'3', Dense in PyTorch: .*`concatenate` does not keep an order",
    )


def test_groups_of_flattened_features_are_other_groups_there():
    refused(
        nn.Sequential(one(), nn.Flatten(), nn.GroupNorm(8), nn.Dense(3)),
        "'2', GroupNorm in PyTorch: its groups are of other features there",
    )
    by_path = {"0": T.Conv2d(4, 4, 1), "2": T.GroupNorm(1, 64), "3": T.Linear(64, 3)}
    T.init.normal_(by_path["2"].weight)
    check(
        nn.Sequential(one(), nn.Flatten(), nn.GroupNorm(1), nn.Dense(3)),
        by_path,
        lambda m, x: m("3")(m("2")(m("0")(x).flatten(1))),
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.cumsum(x, -1), lambda x: x[:, :32], lambda x: jnp.roll(x, 1, -1), lambda x: x[:, ::-1],
        lambda x: x * jnp.arange(64.0), lambda x: x.reshape(2, 8, 8).swapaxes(1, 2).reshape(2, 64), lambda x: jnp.sort(x),
        lambda x: x.reshape(2, 32, 2).sum(-1), lambda x: x @ jnp.tri(64),
    ],
)  # fmt: skip
def test_functions_that_mix_flattened_features_are_refused(function):
    net = nn.Sequential(one(), nn.Flatten(), nn.Lambda(function, "mixed"), nn.Dense(3))
    refused(
        net,
        r"'3', Dense in PyTorch: .*not known: `\w+` does not keep an order that can be followed \(test_flattened_features.py:\d+",
    )
    own = {"3.weight": ("3/kernel", convert.linear)}
    assert len(convert.layer_table(net, X, own=own)) == 4


@pytest.mark.parametrize("layer", [nn.Dense(3), nn.LSTM(4), nn.GRU(4), nn.Conv(4, 1), nn.MultiHeadAttention(2)])
def test_features_of_which_some_are_flattened_are_refused(layer):
    net = nn.Sequential(one(), lambda x: x.reshape(2, 4, 16), layer)
    refused(net, "'2', .* in PyTorch: .*some axes are flattened together, and others are not")


@pytest.mark.parametrize("layer", [nn.Conv(4, 1, groups=1), nn.LSTM(4)])
def test_layers_without_rows_in_another_order_are_refused(layer):
    net = nn.Sequential(one(), nn.Flatten(), lambda x: x[:, None], layer)
    refused(net, "'3', .* in PyTorch: it reads features that are flattened in another order there")


@pytest.mark.parametrize(
    "steps",
    [
        [lambda x: x.transpose(0, 3, 1, 2).reshape(2, -1)],
        [lambda x: x.transpose(0, 3, 1, 2), nn.Flatten()],
        [lambda x: jnp.moveaxis(x, -1, 1), jnp.positive, lambda x: x.reshape(len(x), -1)],
    ],
)
def test_who_transposes_by_hand_gets_no_other_order(steps):
    net = nn.Sequential({"c": one(), **{f"step{at}": step for at, step in enumerate(steps)}, "d": nn.Dense(3)})
    by_path = {"c": T.Conv2d(4, 4, 1), "d": T.Linear(64, 3)}
    table = check(net, by_path, lambda m, x: m("d")(m("c")(x).flatten(1)))
    assert "'d.weight' -> 'd/kernel', linear" in list(table)


@pytest.mark.parametrize("layer", [nn.Dense(3), nn.LSTM(4), nn.Conv(4, (1,)), nn.MultiHeadAttention(1)])
def test_flattened_features_as_places_are_refused(layer):
    net = nn.Sequential(one(), nn.Flatten(), lambda x: x[:, :, None], layer, nn.Flatten(), nn.Dense(3))
    refused(net, "'3', .* in PyTorch: .*channels are flattened into an axis of places")


@pytest.mark.parametrize("layer", [nn.MaxPool(2), nn.GroupNorm(2, use_scale=False, use_bias=False)])
def test_after_layers_without_parameters_that_mix_flattened_features_the_order_is_not_known(layer):
    as_places = lambda x: x[:, :, None] if isinstance(layer, nn.MaxPool) else x
    net = nn.Sequential(one(), nn.Flatten(), as_places, layer, nn.Flatten(), nn.Dense(3))
    refused(
        net,
        "'5', Dense in PyTorch: .*(`reduce_window_max` does not keep an order|a GroupNorm has groups of flattened features)",
    )


@pytest.mark.parametrize("norm", ["LayerNorm", "RMSNorm"])
def test_norms_of_flattened_features_beside_another_axis_keep_the_order(norm):
    net = nn.Sequential(one(), nn.Flatten(), lambda x: x[:, None], getattr(nn, norm)(epsilon=1e-5), nn.Dense((2, 3)))
    by_path = {"0": T.Conv2d(4, 4, 1), "3": getattr(T, norm)(64, eps=1e-5), "4": T.Linear(64, 6)}
    T.init.normal_(by_path["3"].weight)
    check(net, by_path, lambda m, x: m("4")(m("3")(m("0")(x).flatten(1)[:, None])).unflatten(-1, (2, 3)))


def test_another_transpose_is_refused():
    net = nn.Sequential(one(), lambda x: x.transpose(0, 2, 1, 3), nn.Flatten(), nn.Dense(3))
    refused(net, "'3', Dense in PyTorch: .*the axes were transposed before they were flattened")


def test_layers_with_the_channels_last_make_no_channels_first():
    check(
        nn.Sequential(nn.Dense(4), nn.Flatten(), nn.Dense(3)),
        {"0": T.Linear(4, 4), "2": T.Linear(64, 3)},
        lambda m, x: m("2")(m("0")(x).flatten(1)),
        channels_first=False,
    )
    check(
        nn.Sequential(one(), nn.Dense(4), nn.Flatten(), nn.Dense(3)),
        {"0": T.Conv2d(4, 4, 1), "1": T.Linear(4, 4), "3": T.Linear(64, 3)},
        lambda m, x: m("3")(m("1")(m("0")(x).permute(0, 2, 3, 1)).flatten(1)),
    )
    check(
        nn.Sequential(nn.Conv(4, (1,)), nn.LSTM(4), nn.Flatten(), nn.Dense(3)),
        {"0": T.Conv1d(4, 4, 1), "1": T.LSTM(4, 4, batch_first=True), "3": T.Linear(16, 3)},
        lambda m, x: m("3")(m("1")(m("0")(x).transpose(1, 2))[0].flatten(1)),
        STEPS,
    )

    def attended(m, x):
        y = m("0")(x).transpose(1, 2)
        return m("3")(m("1")(y, y, y)[0].flatten(1))

    check(
        nn.Sequential(nn.Conv(4, (1,)), nn.MultiHeadAttention(2), nn.Flatten(), nn.Dense(3)),
        {"0": T.Conv1d(4, 4, 1), "1": T.MultiheadAttention(4, 2, batch_first=True), "3": T.Linear(16, 3)},
        attended,
        STEPS,
    )


def test_layers_that_may_be_turned_in_the_framework_are_refused_before_a_flatten():
    for unsure in (nn.LayerNorm(), nn.RMSNorm()):
        refused(
            nn.Sequential(one(), unsure, nn.Flatten(), nn.Dense(3)), r"'3', Dense .*'1', \w+Norm, reads channels last"
        )
    for unsure in (nn.BatchNorm(), nn.GroupNorm(2), nn.MaxPool(2)):
        net = nn.Sequential(nn.Dense(4), unsure, nn.Flatten(), nn.Dense(3))
        refused(net, "'3', Dense .*('1', .*|a pool), reads channels first there, and its input may have them last")
    # without a flatten each reads single features
    assert len(convert.layer_table(nn.Sequential(nn.Dense(4), nn.BatchNorm(), nn.Dense(3)), X)) == 9
    block = nn.Residual(nn.Sequential(one(), nn.LayerNorm(), nn.Dense(8), jax.nn.gelu, nn.Dense(4)))
    net = nn.Sequential(one(), block, nn.LayerNorm(), lambda x: x.mean((1, 2)), nn.Dense(3))
    assert "'4.weight' -> '4/kernel', linear" in list(convert.layer_table(net, X))
    refused(nn.Sequential(one(), block, nn.Flatten(), nn.Dense(3)), "'3', Dense in PyTorch")


def test_an_image_that_is_flattened_at_once_may_have_its_channels_first_or_last():
    refused(
        nn.Sequential(nn.Flatten(), nn.Dense(3)), r"'1', Dense .*the input f32\[2,4,4,4\] may have its channels first"
    )
    for x in (draws(2, 4, 4, 1), draws(2, 4, 4), draws(2, 1, 1, 4)):
        assert len(convert.layer_table(nn.Sequential(nn.Flatten(), nn.Dense(3)), x)) == 2
    for layer in (nn.MaxPool(2), nn.BatchNorm(), nn.GroupNorm(2)):
        net = nn.Sequential(jnp.tanh, layer, nn.Flatten(), nn.Dense(3))
        assert any("flatten_order" in row for row in convert.layer_table(net, X))


def test_a_sequence_that_is_flattened_beside_a_convolution_is_refused():
    convolved = nn.Sequential(nn.Conv(4, (1,)), lambda x: x.mean(1), nn.Dense(3))
    net = nn.Parallel({"a": convolved, "b": nn.Sequential(nn.Flatten(), nn.Dense(3))})
    refused(
        net, "'b/1', Dense in PyTorch: .*the input is flattened, and another layer has its channels first there", STEPS
    )


def test_means_and_softmax_over_space_leave_the_channels():
    pooled = lambda x: jax.nn.relu(x).mean((1, 2))
    by_path = {"0": T.Conv2d(4, 4, 1), "2": T.Linear(4, 3)}
    check(nn.Sequential(one(), pooled, nn.Dense(3)), by_path, lambda m, x: m("2")(m("0")(x).relu().mean((2, 3))))
    kept = nn.Sequential(one(), lambda x: x.max(1, keepdims=True), jax.nn.softmax, nn.Flatten(), nn.Dense(3))
    by_path = {"0": T.Conv2d(4, 4, 1), "4": T.Linear(16, 3)}
    check(kept, by_path, lambda m, x: m("4")(m("0")(x).amax(2, keepdim=True).softmax(1).flatten(1)))
    scaled = nn.Sequential(
        one(), lambda x: (x - jnp.arange(4.0)) * x.mean((1, 2), keepdims=True), nn.Flatten(), nn.Dense(3)
    )
    by_path = {"0": T.Conv2d(4, 4, 1), "3": T.Linear(64, 3)}

    def forward(m, x):
        y = m("0")(x)
        return m("3")(((y - torch.arange(4.0).view(4, 1, 1)) * y.mean((2, 3), keepdim=True)).flatten(1))

    check(scaled, by_path, forward)


def test_places_are_flattened_into_tokens():
    net = nn.Sequential(one(), lambda x: x.reshape(2, 16, 4), nn.MultiHeadAttention(2), lambda x: x[:, 0], nn.Dense(3))
    by_path = {"0": T.Conv2d(4, 4, 1), "2": T.MultiheadAttention(4, 2, batch_first=True), "4": T.Linear(4, 3)}

    def forward(m, x):
        y = m("0")(x).flatten(2).transpose(1, 2)
        return m("4")(m("2")(y, y, y)[0][:, 0])

    check(net, by_path, forward)


def test_after_a_layer_of_ones_own_the_order_is_not_known():
    @dataclass(frozen=True)
    class Turned(nn.Layer):
        inner: nn.Layer

        def declare(self, x):
            return {"inner": self.inner.spec(x)}

        def apply(self, params, x):
            return self.inner(params["inner"], x)

    net = nn.Sequential(Turned(one()), nn.Flatten(), nn.Dense(3))
    by_path = {"0/inner": T.Conv2d(4, 4, 1), "2": T.Linear(64, 3)}
    check(net, by_path, lambda m, x: m("2")(m("0/inner")(x).flatten(1)))
    by_path = {"0": T.Conv2d(4, 4, 1), "2/inner": T.Linear(64, 3)}
    check(
        nn.Sequential(one(), nn.Flatten(), Turned(nn.Dense(3))),
        by_path,
        lambda m, x: m("2/inner")(m("0")(x).flatten(1)),
    )
    assert len(convert.layer_table(nn.Sequential(Turned(one()), one(), nn.Flatten(), nn.Dense(3)), X)) == 6

    class Reversed(nn.Flatten):
        def apply(self, params, x):
            return super().apply(params, x)[:, ::-1]

    refused(nn.Sequential(one(), Reversed(), nn.Dense(3)), "'2', Dense in PyTorch: .*`rev` does not keep an order")
    for framework in ("keras", "linen", "nnx", "haiku"):  # channels are last there too
        assert len(convert.layer_table(nn.Sequential(one(), Reversed(), nn.Dense(3)), X, framework=framework)) == 4


def test_a_dense_layer_over_several_axes_of_an_image_is_refused():
    refused(nn.Sequential(one(), nn.Dense(3, axis=(-3, -2, -1))), "'1', Dense in PyTorch")
    over_places = nn.Sequential(one(), lambda x: x.transpose(0, 3, 1, 2), nn.Dense(3, axis=(-2, -1)))
    by_path = {"0": T.Conv2d(4, 4, 1), "2": T.Linear(16, 3)}
    check(over_places, by_path, lambda m, x: m("2")(m("0")(x).flatten(2)))


def _steps():
    """Layers that keep the number of axes, with a function that makes PyTorch's for a number of channels."""
    return st.sampled_from(["conv", "pool", "batch", "group", "tanh", "scaled", "residual", "dropout"])


def _flat_steps():
    return st.sampled_from(["dense", "layer", "batch", "tanh", "softmax", "residual norm", "dropout"])


def _pair(step, size):
    """A layer here, and its module: for `size` features, which both keep."""
    here = {
        "conv": lambda: (nn.Conv(size, 3, padding=1), T.Conv2d(size, size, 3, padding=1)),
        "pool": lambda: (nn.MaxPool(2, 1), T.MaxPool2d(2, 1)),
        "group": lambda: (nn.GroupNorm(2), T.GroupNorm(2, size)),
        "tanh": lambda: (jnp.tanh, T.Tanh()),
        "dropout": lambda: (nn.Dropout(0.5), T.Dropout(0.5)),
        "dense": lambda: (nn.Dense(size), T.Linear(size, size)),
        "layer": lambda: (nn.LayerNorm(), T.LayerNorm(size)),
        "softmax": lambda: (jax.nn.softmax, T.Softmax(-1)),
    }
    return here[step]()


class _Skip(T.Module):
    """`x + inner(x)`, with the name of the part here."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class _Scaled(T.Module):
    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True)


def _layers(steps, size, is_flat):
    pairs = []
    for step in steps:
        if step == "batch":
            pairs.append((nn.BatchNorm(), (T.BatchNorm1d if is_flat else T.BatchNorm2d)(size)))
        elif step == "scaled":
            pairs.append((lambda x: x * x.mean((1, 2), keepdims=True), _Scaled()))
        elif step == "residual":
            layer, module = _pair("conv", size)
            pairs.append((nn.Residual(layer), _Skip(module)))
        elif step == "residual norm":
            layer, module = _pair("layer", size)
            pairs.append((nn.Residual(layer), _Skip(module)))
        else:
            pairs.append(_pair(step, size))
    return pairs


@settings(max_examples=12, deadline=None)
@given(st.lists(_steps(), min_size=1, max_size=3), st.lists(_flat_steps(), max_size=3), st.integers(0, 999))
def test_random_stacks_agree_with_pytorch(steps, flat_steps, seed):
    torch.manual_seed(seed)
    convolved = _layers(["conv", *steps], 2, is_flat=False)
    side = 5 - steps.count("pool")
    features = 2 * side * (side + 1)
    flat = _layers(flat_steps, features, is_flat=True)
    pairs = [*convolved, (nn.Flatten(), T.Flatten()), *flat, (nn.Dense(3), T.Linear(features, 3))]
    net = nn.Sequential(*(layer for layer, _ in pairs))
    module = T.Sequential(*(module for _, module in pairs)).eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.normal_(0, 0.3)
            if "running_var" in name:
                value.abs_().add_(0.5)
    x = draws(2, 5, 6, 2, seed=seed)
    with torch.no_grad():
        expected = module(torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))).numpy()
    table = convert.layer_table(net, x)
    params = table.apply(module.state_dict(), like=net.spec(x))
    output = jax.jit(partial(net))(params, x)
    np.testing.assert_allclose(output, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_the_axes_of_transposed_and_reshaped_arrays_are_those_of_their_positions(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple))
    steps = data.draw(st.lists(st.sampled_from(["transpose", "merge", "insert", "reduce", "elementwise"]), max_size=5))
    draws_of_steps = [data.draw(st.integers(0, 99)) for _ in steps]

    def function(x):
        for step, number in zip(steps, draws_of_steps, strict=True):
            at = number % max(x.ndim - 1, 1)
            if step == "transpose":
                x = jnp.swapaxes(x, at, (at + 1) % x.ndim) if x.ndim else x
            elif step == "merge" and x.ndim > 1:
                x = x.reshape(*x.shape[:at], x.shape[at] * x.shape[at + 1], *x.shape[at + 2 :])
            elif step == "insert":
                x = jnp.expand_dims(x, at)
            elif step == "reduce" and x.ndim > 1 and x.shape[at] == 1:
                x = x.max(at)
            elif step == "elementwise":
                x = jnp.where(x > 3, x, x * 1)
        return x

    positions = jnp.arange(math.prod(shape)).reshape(shape)
    axes = tuple(axes_of(at, size) for at, size in enumerate(shape))
    walk = FlowWalk(ModelLayers(nn.Flatten()))
    (layout,) = walk.run(jax.make_jaxpr(function)(positions), [ChannelsFirst(axes)])
    assert isinstance(layout, ChannelsFirst)
    found = layout.axes
    order = [axis.position for parts in found for axis in parts]
    size_1 = [at for at, size in enumerate(shape) if size == 1]
    expected = positions.squeeze(tuple(size_1))
    kept = [at for at in range(len(shape)) if at not in size_1]
    expected = expected.transpose([kept.index(position) for position in order])
    got = function(positions)
    assert [math.prod(axis.size for axis in parts) for parts in found] == [*got.shape]
    np.testing.assert_array_equal(got, expected.reshape(got.shape))
