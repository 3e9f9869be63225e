"""Layers against PyTorch's: parameters by the table of layers, square throughout, and back into `load_state_dict`."""

import copy
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, draws

import ptree as pt
from ptree import convert, nn

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def shaken(module):
    """The module with other numbers in all of its arrays, in evaluation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(0.5 * torch.randn(value.shape, generator=generator))
            if "running_var" in name:
                value.copy_(value.abs() + 0.5)
    return module.eval()


def first(x):
    """Channels first, from last."""
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def called(module, *inputs):
    with torch.no_grad():
        y = module(*(torch.from_numpy(np.asarray(x)) for x in inputs))
    return (y[0] if isinstance(y, tuple) else y).numpy()


def check(net, module, *inputs, expected=None, **options):
    shaken(module)
    expected = called(module, *inputs) if expected is None else expected(module)
    params, table = agrees(net, inputs, module.state_dict(), "torch", expected, **options)
    module.load_state_dict(table.inverse.apply(params, like=module), strict=True)
    return params, table


@pytest.mark.parametrize("bias", [True, False])
def test_a_square_matrix_is_transposed(bias):
    x = draws(3, 4)
    params, _ = check(nn.Dense(4, use_bias=bias), torch.nn.Linear(4, 4, bias=bias), x)
    assert set(params) == ({"kernel", "bias"} if bias else {"kernel"})


def test_several_axes_in_and_out_are_those_of_a_matrix():
    x = draws(3, 2, 2)
    heads = torch.nn.Linear(2, 4)
    check(nn.Dense((2, 2)), heads, x, expected=lambda m: called(m, x).reshape(3, 2, 2, 2))
    merge = torch.nn.Linear(4, 4)
    both = nn.Dense((2, 2), axis=(-2, -1))
    check(both, merge, x, expected=lambda m: called(m, x.reshape(3, 4)).reshape(3, 2, 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"groups": 2}, {"groups": 4}, {"dilation": 2, "bias": False}, {"stride": 2}],
    ids=["plain", "groups", "depthwise", "dilation", "stride"],
)
def test_convolutions(rank, options):
    x = draws(2, *(5, 6, 7)[:rank], 4)
    ours = {("use_bias" if name == "bias" else name): value for name, value in options.items()}
    net = nn.Conv(4, (4,) * rank, padding=2, **ours)
    module = getattr(torch.nn, f"Conv{rank}d")(4, 4, 4, padding=2, **options)
    check(net, module, x, expected=lambda m: np.moveaxis(called(m, first(x)), 1, -1))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_transposed_convolutions_are_regrouped_and_not_flipped(rank, groups):
    x = draws(2, *(3, 4, 5)[:rank], 4)
    net = nn.ConvTranspose(4, (4,) * rank, stride=2, padding=1, groups=groups)
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(4, 4, 4, stride=2, padding=1, groups=groups)
    check(net, module, x, expected=lambda m: np.moveaxis(called(m, first(x)), 1, -1))


def test_embeddings():
    ids = np.array([[1, 2], [3, 0]])
    check(nn.Embedding(4, 4), torch.nn.Embedding(4, 4), ids)


def test_norms():
    x = draws(2, 5, 4)
    check(nn.LayerNorm(), torch.nn.LayerNorm(4), x)
    check(nn.LayerNorm(use_bias=False), torch.nn.LayerNorm(4, bias=False), x)
    check(nn.RMSNorm(epsilon=1e-5), torch.nn.RMSNorm(4, eps=1e-5), x)
    net, module = nn.GroupNorm(2), torch.nn.GroupNorm(2, 4)
    check(net, module, x, expected=lambda m: np.moveaxis(called(m, first(x)), 1, -1))


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_leaves_its_counter_out_and_writes_zero(affine):
    x = draws(2, 5, 4)
    net, module = nn.BatchNorm(use_scale=affine, use_bias=affine), torch.nn.BatchNorm1d(4, affine=affine)
    _, table = check(net, module, x, expected=lambda m: np.moveaxis(called(m, first(x)), 1, -1))
    assert "'num_batches_tracked' -> fill(dtype='int64')" in list(table)


def test_recurrent_layers_have_two_biases():
    x = draws(2, 5, 4)
    check(nn.LSTM(4), torch.nn.LSTM(4, 4, batch_first=True), x)
    check(nn.GRU(4), torch.nn.GRU(4, 4, batch_first=True), x)
    check(nn.RNN(4), torch.nn.RNN(4, 4, batch_first=True), x)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_both_directions_and_several_layers_of_one_module(kind):
    x = draws(2, 5, 4)
    layer = getattr(nn, kind)
    module = getattr(torch.nn, kind)(4, 4, num_layers=2, bidirectional=True, batch_first=True)
    net = nn.Sequential(nn.Bidirectional(layer(4)), nn.Bidirectional(layer(4)))
    _, table = check(net, module, x, names={"*": ":*"})
    assert "'weight_hh_l1_reverse' -> '1/backward/hidden/kernel', linear" in list(table)
    inside = torch.nn.ModuleDict({"rnn": module})
    check(net, inside, x, names={"*": "rnn:*"}, expected=lambda m: called(m["rnn"], x))


def test_the_directions_may_be_modules_of_their_own():
    x = draws(2, 5, 4)
    module = torch.nn.ModuleDict(
        {"there": torch.nn.GRU(4, 4, batch_first=True), "back": torch.nn.GRU(4, 4, batch_first=True)}
    )

    def expected(m):
        return np.concatenate([called(m["there"], x), called(m["back"], x[:, ::-1].copy())[:, ::-1]], -1)

    check(nn.Bidirectional(nn.GRU(4)), module, x, names={"forward": "there", "backward": "back"}, expected=expected)


@pytest.mark.parametrize("bias", [True, False])
def test_attention_with_one_matrix_for_queries_keys_and_values(bias):
    x = draws(2, 5, 4)
    net = nn.MultiHeadAttention(2, use_bias=bias)
    module = torch.nn.MultiheadAttention(4, 2, bias=bias, batch_first=True)
    _, table = check(net, module, x, expected=lambda m: called(m, x, x, x))
    row = "'in_proj_weight' -> 'q/kernel', 'k/kernel', 'v/kernel', split(3) >> linear >> split_axis(-1, (2, 2))"
    assert row in list(table)


def test_attention_with_keys_of_another_size():
    x, context, values = draws(2, 5, 4), draws(2, 3, 6, seed=1), draws(2, 3, 2, seed=2)
    net = nn.MultiHeadAttention(2)
    module = shaken(torch.nn.MultiheadAttention(4, 2, kdim=6, vdim=2, batch_first=True))
    table = convert.layer_table(net, x, context, values)
    params = table.apply(module.state_dict(), like=net.spec(x, context, values))
    expected = called(module, x, context, values)
    np.testing.assert_allclose(net(params, x, context=context, values=values), expected, rtol=1e-5, atol=1e-5)
    module.load_state_dict(table.inverse.apply(params, like=module))


def test_attention_of_four_linear_modules():
    x = draws(2, 5, 4)

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
            self.value, self.dense = torch.nn.Linear(4, 2), torch.nn.Linear(4, 4)

        def forward(self, x):
            q = self.query(x).unflatten(-1, (2, 2)).transpose(1, 2)
            k, v = (part(x).unflatten(-1, (1, 2)).transpose(1, 2) for part in (self.key, self.value))
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return self.dense(y.transpose(1, 2).flatten(-2))

    names = {"q": "query", "k": "key", "v": "value", "o": "dense"}
    net = nn.MultiHeadAttention(2, kv_heads=1)
    check(net, Attention(), x, names=names)
    same_heads = torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in names.values()})
    table = convert.layer_table(nn.MultiHeadAttention(2), x, names=names)
    assert table.plan(same_heads.state_dict(), nn.MultiHeadAttention(2).spec(x)).ok


def test_features_that_are_flattened_have_the_channels_last_here():
    x = draws(2, 4, 4, 4)
    net = nn.Sequential(
        nn.Conv(4, 3, padding=1), jnp.tanh, nn.MaxPool(2), nn.Flatten(), nn.BatchNorm(), nn.Dropout(0.5), nn.Dense(4)
    )
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
        torch.nn.BatchNorm1d(16), torch.nn.Dropout(0.5), torch.nn.Linear(16, 4),
    )  # fmt: skip
    _, table = check(net, module, x, expected=lambda m: called(m, first(x)))
    assert "'6.weight' -> '6/kernel', linear >> flatten_order((4, 2, 2), (1, 2, 0))" in list(table)
    # the same in one dimension, where only the convolution tells axes of space from those of time
    steps = draws(2, 4, 4)
    net = nn.Sequential(
        nn.Residual(nn.Sequential(nn.Conv(4, (3,), padding=1))), nn.Sequential(nn.Flatten(), nn.Dense(4))
    )
    inner = torch.nn.Conv1d(4, 4, 3, padding=1)
    module = torch.nn.ModuleDict(
        {
            "0": torch.nn.ModuleDict({"inner": torch.nn.ModuleList([inner])}),
            "1": torch.nn.ModuleDict({"1": torch.nn.Linear(16, 4)}),
        }
    )

    def expected(m):
        x = torch.from_numpy(first(steps))
        return m["1"]["1"]((x + inner(x)).flatten(1)).detach().numpy()

    check(net, module, steps, expected=expected)
    by_function = nn.Sequential(nn.Conv(4, 3, padding=1), lambda x: x.reshape(len(x), -1), jnp.tanh, nn.Dense(4))
    module = torch.nn.Sequential(
        torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Tanh(), torch.nn.Linear(64, 4)
    )
    check(by_function, module, x, expected=lambda m: called(m, first(x)), tolerance=1e-4)
    of_time = nn.Sequential(nn.Dense(4), nn.Flatten(), nn.Dense(4))
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Flatten(), torch.nn.Linear(16, 4))
    check(of_time, module, steps)


def test_nested_modules_and_names_by_patterns():
    x = draws(2, 5, 4)

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            layers = [
                torch.nn.TransformerEncoderLayer(4, 2, 4, 0.0, batch_first=True, activation=torch.tanh)
                for _ in range(3)
            ]
            self.encoder = torch.nn.Module()
            self.encoder.layer = torch.nn.ModuleList(layers)

        def forward(self, x):
            for layer in self.encoder.layer:
                x = layer(x)
            return x

    block = nn.Sequential(
        {
            "attended": nn.Residual(nn.MultiHeadAttention(2)),
            "norm1": nn.LayerNorm(),
            "fed": nn.Residual(nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense(4))),
            "norm2": nn.LayerNorm(),
        }
    )
    names = {
        "blocks/*/attended/inner": "encoder.layer.*.self_attn",
        "blocks/*/fed/inner/0": "encoder.layer.*.linear1",
        "blocks/*/fed/inner/2": "encoder.layer.*.linear2",
        "blocks/*": "encoder.layer.*",
    }
    for repeated in (nn.Repeat(block, 3), nn.Repeat(block, 3, scan=False), nn.Sequential(block, *separate(block, 2))):
        net = nn.Sequential({"blocks": repeated})
        check(net, Encoder(), x, names=names, tolerance=1e-5)


def separate(block, count):
    """Further blocks like this one that share no parameters with it."""
    return [copy.deepcopy(block) for _ in range(count)]


def test_shared_modules_have_both_names_and_fill_one_leaf():
    x = draws(2, 4)
    shared = nn.Dense(4)
    net = nn.Sequential(shared, jnp.tanh, nn.Sequential(shared, nn.Dense(4)))
    linear = torch.nn.Linear(4, 4)
    module = torch.nn.Sequential(linear, torch.nn.Tanh(), torch.nn.Sequential(linear, torch.nn.Linear(4, 4)))
    params, _ = check(net, module, x)
    assert params["2/0/kernel"] is params["0/kernel"]
    only_first = {name: value for name, value in module.state_dict().items() if not name.startswith("2.0")}
    table = convert.layer_table(net, x)
    assert table.plan(only_first, net.spec(x)).ok
    assert len(convert.layer_table(net, x, names={"0": "one", "2/0": "one"})) == 4
    apart = {**module.state_dict(), "2.0.weight": torch.zeros(4, 4)}
    with pytest.raises(pt.StructureError, match="tied"):
        table.apply(apart, like=net.spec(x))


def test_an_mlp_of_the_readme():
    module = shaken(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4)))
    x = draws(3, 4)
    net = nn.Sequential(nn.Dense(4), jax.nn.relu, nn.Dense(4))
    table = convert.layer_table(net, x)
    params = table.apply(module, like=net.spec(x))
    np.testing.assert_allclose(net(params, x), called(module, x), rtol=1e-5, atol=1e-6)
    module.load_state_dict(table.inverse.apply(params, like=module))
    bare = table.inverse.apply(params)
    assert {name: array.shape for name, array in bare.items()} == {
        name: tuple(value.shape) for name, value in module.state_dict().items()
    }


def test_a_norm_over_several_axes_is_refused_until_the_order_is_said():
    x = draws(2, 4, 4, 4)
    net = nn.LayerNorm(axis=(-3, -2, -1))
    with pytest.raises(
        pt.LayerError, match=r"the model, LayerNorm in PyTorch: a scale of the shape \[4, 4, 4\] may have its axes"
    ):
        convert.layer_table(net, x)
    module = torch.nn.LayerNorm((4, 4, 4))
    own = {"weight": ("scale", convert.permute((1, 2, 0))), "bias": ("bias", convert.permute((1, 2, 0)))}
    check(net, module, x, own=own, expected=lambda m: np.moveaxis(called(m, first(x)), 1, -1))


def test_layers_of_ones_own_and_what_has_no_known_layout():
    @dataclass(frozen=True)
    class Scaled(nn.Layer):
        parts_inside: tuple[nn.Layer, ...]
        head: nn.Layer

        def declare(self, x):
            inside = {str(at): part.spec(x) for at, part in enumerate(self.parts_inside)}
            return {
                "parts_inside": inside,
                "head": self.head.spec(x),
                "gain": pt.Param((4, 4)),
                "token": pt.Param((4,)),
            }

        def apply(self, params, x):
            for at, part in enumerate(self.parts_inside):
                x = part(params["parts_inside"][str(at)], x)
            return self.head(params["head"], x @ params["gain"] + params["token"])

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts_inside = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
            self.head = torch.nn.Linear(4, 4)
            self.mix = torch.nn.Linear(4, 4)

        def forward(self, x):
            for part in self.parts_inside:
                x = part(x)
            return self.head(self.mix(x))

    x = draws(3, 4)
    net = Scaled((nn.Dense(4), nn.Dense(4)), nn.Dense(4))
    with pytest.raises(pt.LayerError) as error:
        convert.layer_table(net, x)
    assert str(error.value) == (
        "layer_table: no table between PyTorch and this model:\nthe model, Scaled: the layout of 'gain', 'token' in PyTorch is not"
        " known: say it in own={name there: path, or (path, operation)}"
    )
    own = {"mix.weight": ("gain", convert.linear), "mix.bias": "token"}
    check(net, Module(), x, own=own)
    check(net, Module(), x, own=convert.Table(own))
    with pytest.raises(pt.LayerError, match="gain"):
        convert.layer_table(net, x, own={"mix.bias": "token"})


def test_own_rows_replace_those_of_layers():
    """GPT-2's Conv1D is (in, out), which a square shape does not tell."""

    class Conv1D(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = torch.nn.Parameter(torch.empty(4, 4)), torch.nn.Parameter(torch.empty(4))

        def forward(self, x):
            return x @ self.weight + self.bias

    x = draws(3, 4)
    net = nn.Sequential(nn.Dense(4), nn.Dense(4))
    module = torch.nn.Sequential(Conv1D(), torch.nn.Linear(4, 4))
    check(net, module, x, own={"0.weight": ("0/kernel", convert.as_is)})
    with pytest.raises(pt.LayerError, match=r"own has a row for 'q/kernel', and 'in_proj_weight' gives .* together"):
        convert.layer_table(nn.MultiHeadAttention(2), draws(2, 3, 4), own={"a.weight": ("q/kernel", convert.linear)})


def test_bad_names_forms_and_frameworks_are_errors():
    x = draws(3, 4)
    net = nn.Sequential({"stem": nn.Dense(4), "head": nn.Dense(4)})
    with pytest.raises(pt.LayerError, match=r"names: no layer 'steem'. Did you mean 'stem'\?"):
        convert.layer_table(net, x, names={"steem": "a"})
    with pytest.raises(pt.LayerError, match=r"'a.weight' would be 'stem/kernel' and 'head/kernel'"):
        convert.layer_table(net, x, names={"stem": "a", "head": "a"})
    with pytest.raises(pt.PatternError, match=r"names: row 'b\*' -> 'x': the wildcards"):
        convert.layer_table(net, x, names={"b*": "x"})
    with pytest.raises(
        pt.LayerError, match=r"'stem' matches no layer that may have another form; in PyTorch no layer has"
    ):
        convert.layer_table(net, x, forms={"stem": "transpose_kernel"})
    with pytest.raises(pt.PatternError, match="names: the module of the whole model, '', is a path; got 5"):
        convert.layer_table(net, x, names={"": 5})
    with pytest.raises(ValueError, match='framework="linen" or framework="nnx"'):
        convert.layer_table(net, x, framework="flax")
    with pytest.raises(ValueError, match=r"no framework 'pytorch'"):
        convert.layer_table(net, x, framework="pytorch")
    with pytest.raises(pt.LayerError, match="expected a layer"):
        convert.layer_table(torch.nn.Linear(4, 4), x)
    with pytest.raises(pt.LayerError, match="expected an input"):
        convert.layer_table(net)


def test_what_is_left_over_or_missing_is_named():
    x = draws(3, 4)
    net = nn.Sequential(nn.Dense(4, use_bias=False), nn.Dense(4))
    state = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, bias=False)).state_dict()
    with pytest.raises(pt.StructureError) as error:
        convert.layer_table(net, x).apply(state, like=net.spec(x))
    assert error.value.missing == ["1/bias"]
    assert "'0.bias'" in str(error.value)


def test_names_with_special_characters_are_literal():
    x = draws(3, 4)
    net = nn.Sequential({"a*": nn.Dense(4), "a[0]": nn.Dense(4), "{b}": nn.Dense(4)})
    module = torch.nn.Sequential()
    for name in ("a*", "a[0]", "{b}"):
        module.add_module(name, torch.nn.Linear(4, 4))
    check(net, module, x)


def test_bfloat16_and_stacks_that_have_batch_norm():
    x = draws(2, 5, 4)
    net = nn.Sequential(nn.Dense(4, param_dtype=jnp.bfloat16))
    module = torch.nn.Sequential(torch.nn.Linear(4, 4)).bfloat16()
    params = convert.layer_table(net, x).apply(module, like=net.spec(x))
    back = convert.layer_table(net, x).inverse.apply(params, like=module)
    assert torch.equal(back["0.weight"], module.state_dict()["0.weight"])
    net = nn.Repeat(nn.Sequential(nn.BatchNorm(), nn.Repeat(nn.Dense(4), 2)), 3)
    layers = [
        torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(2))))
        for _ in range(3)
    ]
    _, table = check(net, torch.nn.Sequential(*layers), x[:, 0])
    assert "'{0..2}.1.{0..1}.weight' -> '{0..2}/1/{0..1}/kernel', linear" in list(table)
    bare = table.inverse.apply(net.init(jax.random.key(0), x[:, 0]))
    assert bare["2.0.num_batches_tracked"] == 0
    shared = nn.Repeat(nn.Sequential(nn.Dense(4), jnp.tanh), 3, shared=True)
    one = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())
    check(shared, one, x, expected=lambda m: called(torch.nn.Sequential(m, m, m), x))


def test_branches():
    x = draws(2, 4)
    net = nn.Parallel({"a": nn.Dense(4), "b": nn.Sequential(nn.Dense(4), jnp.tanh)})
    module = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(4, 4), "b": torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh())}
    )
    check(net, module, x, expected=lambda m: called(m["a"], x) + called(m["b"], x))


def test_a_layer_may_be_the_whole_module_and_the_model_may_be_a_layer_with_forms():
    x = draws(2, 4)
    for names in ({"0": ""}, {"*": ""}):
        check(nn.Sequential(nn.Dense(4)), torch.nn.Linear(4, 4), x, names=names)
    with pytest.raises(pt.LayerError, match="'weight' would be '0/kernel' and '1/kernel'"):
        convert.layer_table(nn.Sequential(nn.Dense(4), nn.Dense(4)), x, names={"*": ""})
    image = draws(2, 4, 4, 3)
    table = convert.layer_table(nn.ConvTranspose(4, 3), image, framework="linen", forms={"": "transpose_kernel"})
    assert "'params/kernel' -> 'kernel', swap(-1, -2)" in list(table)
    with pytest.raises(pt.PatternError, match=r"forms: bad pattern 'a\['"):
        convert.layer_table(nn.Dense(4), x, framework="linen", forms={"a[": "transpose_kernel"})
    with pytest.raises(pt.PatternError, match="names: expected a path of a layer -> a path of a module; got '0' -> 5"):
        convert.layer_table(nn.Sequential(nn.Dense(4)), x, names={"0": 5})


BARE = {
    "LSTM": (nn.LSTM(4), torch.nn.LSTM(4, 4, bias=False, batch_first=True)),
    "GRU": (nn.GRU(4), torch.nn.GRU(4, 4, bias=False, batch_first=True)),
    "RNN": (nn.RNN(4), torch.nn.RNN(4, 4, bias=False, batch_first=True)),
    "both directions": (
        nn.Sequential(nn.Bidirectional(nn.LSTM(4))),
        torch.nn.LSTM(4, 4, bias=False, batch_first=True, bidirectional=True),
    ),
}


@pytest.mark.parametrize("name", BARE)
def test_the_error_of_a_recurrent_layer_without_biases_gives_the_rows_that_convert_it(name):
    net, module = BARE[name]
    x, state = draws(2, 5, 4), shaken(module).state_dict()
    table = convert.layer_table(net, x, names={"0" if name == "both directions" else "": ""})
    for _ in range(2 if name == "both directions" else 1):
        with pytest.raises(pt.StructureError, match="If the layer is made without biases there, zeros are") as error:
            table.apply(state, like=net.spec(x))
        table = with_biases(table, str(error.value))
    params = table.apply(state, like=net.spec(x))
    np.testing.assert_allclose(net(params, x), called(module, x), atol=1e-6)
    module.load_state_dict(table.inverse.apply(params, like=module), strict=True)


def with_biases(table, text):
    """The table that a message recommends."""
    (recommended,) = re.findall(r"convert.Table\(.*\) \| table", text)
    return eval(recommended, {"convert": convert, "table": table})


def test_the_zeros_for_biases_have_the_dtype_of_like():
    net, x = nn.LSTM(4), jnp.ones((2, 5, 4), "bfloat16")
    like = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, "bfloat16"), net.init(jax.random.key(0), x))
    state = {name: np.ones((16, 4), like["hidden/bias"].dtype) for name in ("weight_ih_l0", "weight_hh_l0")}
    table = convert.layer_table(net, x)
    with pytest.raises(pt.StructureError) as error:
        table.apply(state, like=like)
    params = with_biases(table, str(error.value)).apply(state, like=like)
    assert params["hidden/bias"].dtype == "bfloat16"
    assert not params["hidden/bias"].any()


def test_zeros_are_recommended_where_nothing_but_recurrent_biases_is_missing():
    net, x = nn.Sequential(nn.LSTM(4), nn.Dense(4)), draws(2, 5, 4)
    state = shaken(
        torch.nn.ModuleList([torch.nn.LSTM(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False)])
    ).state_dict()
    with pytest.raises(pt.StructureError, match="missing from the source") as error:
        convert.layer_table(net, x).apply(state, like=net.spec(x))
    assert "without biases" not in str(error.value)
