"""Layouts that convert.suggest is certain of: models of other frameworks, converted by its table, give equal outputs."""

import jax
import layouts
import numpy as np
import pytest
from layouts import draws

import ptree as pt
from ptree import convert, nn

TOLERANCE = float(layouts.TOLERANCE)
KEY = jax.random.key(0)
MIRRORED = "Flax, Haiku and Equinox hold the kernel of a transposed convolution mirrored, other frameworks do not"


def agrees(source, net, x, expected):
    """Whether the certain rows alone fill the net, and it returns what the model of the other framework does."""
    suggestion = convert.suggest(source, net.spec(x))
    assert suggestion.ambiguous == (), str(suggestion)
    same_outputs(suggestion.table, source, net, x, expected)
    return suggestion


def same_outputs(table, source, net, x, expected):
    params = table.apply(source, like=net.spec(x))
    np.testing.assert_allclose(net(params, x), expected, rtol=TOLERANCE, atol=TOLERANCE)


def marked_row(suggestion):
    """The only row in doubt, which is so as the kernel may be mirrored."""
    (row,) = suggestion.ambiguous
    assert row.doubts[-1] == MIRRORED
    return row


def one_choice_is_right(source, net, x, expected):
    """Nothing certain is wrong: of the choices of the row in doubt one gives equal outputs."""
    suggestion = convert.suggest(source, net.spec(x))
    row = marked_row(suggestion)
    certain = [row.entry for row in suggestion.rows if not row.doubts]
    right = 0
    for choice in (row, *row.alternatives):
        params = convert.Table([*certain, choice.entry]).apply(source, like=net.spec(x))
        right += np.allclose(net(params, x), expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert right == 1
    return row


# ------------------------------------------------------------------------------- PyTorch


def test_convolutions_and_transposed_ones_in_one_list_keep_the_layouts_of_their_classes():
    torch = pytest.importorskip("torch")
    tn = torch.nn
    module = tn.Sequential(tn.Conv2d(1, 8, 3, padding=1), tn.ReLU(), tn.ConvTranspose2d(8, 8, 2, stride=2))
    net = nn.Sequential(nn.Conv(8, 3), jax.nn.relu, nn.ConvTranspose(8, 2, stride=2, padding="VALID"))
    x = draws(1, 4, 4, 1)
    suggestion = agrees(module, net, x, in_torch(torch, module, x))
    assert [row.entry for row in suggestion.rows if "bias" not in row.sources[0]] == [
        ("0.weight", ("0/kernel", convert.conv)),
        ("2.weight", ("2/kernel", convert.conv_transpose())),
    ]


def in_torch(torch, module, x):
    """What a module with channels first returns for images, with channels last."""
    with torch.no_grad():
        return np.moveaxis(module(torch.tensor(np.moveaxis(x, -1, 1))).numpy(), 1, -1)


def test_many_layers_of_two_classes_are_two_rows():
    torch = pytest.importorskip("torch")
    tn = torch.nn
    kinds = [tn.Conv2d, tn.ConvTranspose2d, tn.Conv2d, tn.Conv2d, tn.ConvTranspose2d]
    module = tn.Sequential(*[kind(3, 3, 3, padding=1) for kind in kinds])
    net = nn.Sequential(*[nn.Conv(3, 3) if kind is tn.Conv2d else nn.ConvTranspose(3, 3) for kind in kinds])
    x = draws(2, 5, 5, 3)
    suggestion = agrees(module, net, x, in_torch(torch, module, x))
    assert [row.sources[0] for row in suggestion.rows] == ["{0,2,3}.weight", "*.bias", "{1,4}.weight"]


def test_what_a_class_says_proves_nothing_for_a_layer_of_another_class():
    torch = pytest.importorskip("torch")

    class Own(torch.nn.Module):
        """A layer whose weight lies in a way that only its author knows."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8, 8))

    module = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), Own(), torch.nn.Embedding(8, 8))
    like = {at: {"kernel": pt.Param(shape)} for at, shape in (("0", (4, 8)), ("1", (8, 8)), ("2", (8, 8)))}
    suggestion = convert.suggest(module, like)
    assert [*suggestion.table] == ["'0.weight' -> '0/kernel', linear", "'2.weight' -> '2/kernel', as_is"]
    (row,) = suggestion.ambiguous
    assert row.sources == ("1.weight",)


@pytest.mark.parametrize(("features", "groups"), [(4, 2), (6, 2), (4, 4), (8, 4), (4, 1)])
def test_the_groups_of_a_transposed_convolution_are_those_of_its_module(features, groups):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, features, 3, stride=2, groups=groups))
    net = nn.Sequential(nn.ConvTranspose(features, 3, stride=2, groups=groups, padding="VALID"))
    x = draws(1, 4, 4, 4)
    suggestion = agrees(module, net, x, in_torch(torch, module, x))
    assert suggestion.rows[0].operation == convert.conv_transpose(groups)


def test_a_layer_in_two_places_is_known_under_both_names():
    torch = pytest.importorskip("torch")
    shared = torch.nn.Linear(4, 4, bias=False)
    module = torch.nn.Sequential(shared, torch.nn.ReLU(), shared)
    suggestion = convert.suggest(module, {at: {"kernel": pt.Param((4, 4))} for at in "02"})
    assert [row.sources for row in suggestion.rows] == [("*.weight",)]
    params = suggestion.table.apply(module)
    for at in "02":
        np.testing.assert_array_equal(params[f"{at}/kernel"], shared.weight.detach().numpy().T)


def test_the_class_of_a_weight_norm_is_that_of_its_layer():
    torch = pytest.importorskip("torch")
    from torch.nn.utils.parametrizations import weight_norm

    module = torch.nn.Sequential(weight_norm(torch.nn.ConvTranspose2d(3, 3, 2, stride=2)))
    net = nn.Sequential(nn.ConvTranspose(3, 2, stride=2, padding="VALID"))
    x = draws(1, 4, 4, 3)
    agrees(module, net, x, in_torch(torch, module, x))


def test_a_square_weight_of_a_class_is_as_it_is_in_a_module_of_the_same_class():
    torch = pytest.importorskip("torch")
    eqx = pytest.importorskip("equinox")
    module = torch.nn.Linear(4, 4)
    for like in (torch.nn.Linear(4, 4), eqx.nn.Linear(4, 4, key=KEY)):
        weight = convert.suggest(module, like).table.apply(module)["weight"]
        np.testing.assert_array_equal(weight, module.weight.detach().numpy())


@pytest.mark.parametrize("leaf", ["weight", "w", "matrix"])
def test_a_square_weight_that_may_be_no_kernel_is_in_doubt_whatever_its_class(leaf):
    """A `weight` of a dict may lie as in PyTorch, and a `w` in any way."""
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4, bias=False)})
    (row,) = convert.suggest(module, {"a": {leaf: np.ones((4, 4), "f4")}}).ambiguous
    assert [repr(choice.operation) for choice in (row, *row.alternatives)] == ["as_is", "linear"]


def test_shapes_that_contradict_the_class_of_a_module_are_in_doubt():
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(8, 4, bias=False)})
    (row,) = convert.suggest(module, {"a": {"kernel": pt.Param((4, 8))}}).ambiguous
    assert row.doubts == ("the class of the module says another layout than the shapes",)


# ------------------------------------------------------------------------------- mirrored kernels


@pytest.mark.parametrize("features", [3, 5])
def test_modules_of_equinox_say_that_their_kernels_are_mirrored(features):
    eqx = pytest.importorskip("equinox")
    keys = jax.random.split(KEY, 2)
    module = eqx.nn.Sequential(
        [
            eqx.nn.ConvTranspose2d(3, features, 2, stride=2, key=keys[0]),
            eqx.nn.Conv2d(features, features, 3, padding=1, key=keys[1]),
        ]
    )
    net = nn.Sequential(nn.ConvTranspose(features, 2, stride=2, padding="VALID"), nn.Conv(features, 3))
    x = draws(1, 4, 4, 3)
    agrees(module, net, x, np.moveaxis(module(np.moveaxis(x[0], -1, 0)), 0, -1)[None])


@pytest.mark.parametrize("transpose_kernel", [False, True])
@pytest.mark.parametrize("features", [3, 5])
def test_modules_of_nnx_say_how_their_kernels_lie(features, transpose_kernel):
    nnx = pytest.importorskip("flax.nnx")
    options = {"strides": (2, 2), "padding": "VALID", "transpose_kernel": transpose_kernel, "rngs": nnx.Rngs(0)}
    module = nnx.Sequential(
        nnx.ConvTranspose(3, features, (2, 2), **options), nnx.Conv(features, features, (3, 3), rngs=nnx.Rngs(1))
    )
    net = nn.Sequential(nn.ConvTranspose(features, 2, stride=2, padding="VALID"), nn.Conv(features, 3))
    x = draws(1, 4, 4, 3)
    agrees(module, net, x, module(x))


@pytest.mark.parametrize("name", ["up", "conv_2", "deconv"])
@pytest.mark.parametrize("features", [3, 5])
def test_models_of_keras_say_which_convolutions_are_transposed(features, name):
    """The kernel of a square one lies the other way round, whatever other convolutions prove."""
    keras = pytest.importorskip("keras")
    layers = [
        keras.Input((4, 4, 2)),
        keras.layers.Conv2D(3, 3, padding="same", name="conv_1"),
        keras.layers.Conv2DTranspose(features, 2, strides=2, name=name),
    ]
    model = keras.Sequential(layers)
    model.set_weights([draws(*weight.shape) for weight in model.weights])
    net = nn.Sequential(nn.Conv(3, 3), nn.ConvTranspose(features, 2, stride=2, padding="VALID"))
    x = draws(1, 4, 4, 2)
    rows = [
        row.entry for row in convert.suggest(model, net.spec(x)).rows if "kernel" in row.targets[0] and not row.doubts
    ]
    # the biases are of one size, and not told apart
    biases = [(f"{model.name}/conv_1/bias", "0/bias"), (f"{model.name}/{name}/bias", "1/bias")]
    same_outputs(convert.Table([*rows, *biases]), model, net, x, model(x))


@pytest.mark.parametrize("features", [3, 5])
def test_a_transposed_convolution_of_linen_that_its_name_tells_is_in_doubt(features):
    linen = pytest.importorskip("flax.linen")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.ConvTranspose(features, (2, 2), strides=(2, 2), padding="VALID")(x)

    x = draws(1, 4, 4, 3)
    params = Model().init(KEY, x)
    net = nn.Sequential(nn.ConvTranspose(features, 2, stride=2, padding="VALID"))
    one_choice_is_right(params, net, x, Model().apply(params, x))


def test_a_transposed_convolution_of_linen_is_certain_for_linen():
    params = {"params": {"a": {"ConvTranspose_0": {"kernel": draws(2, 2, 3, 5)}}}}
    like = {"params": {"b": {"ConvTranspose_0": {"kernel": draws(2, 2, 3, 5)}}}}
    suggestion = convert.suggest(params, like)
    assert [*suggestion.table] == ["'params/a/ConvTranspose_0/kernel' -> 'params/b/ConvTranspose_0/kernel'"]


@pytest.mark.parametrize("features", [3, 5])
def test_a_transposed_convolution_of_haiku_is_in_doubt(features):
    hk = pytest.importorskip("haiku")
    model = hk.without_apply_rng(hk.transform(lambda x: hk.Conv2DTranspose(features, 2, stride=2, padding="VALID")(x)))
    x = draws(1, 4, 4, 3)
    params = model.init(KEY, x)
    net = nn.Sequential(nn.ConvTranspose(features, 2, stride=2, padding="VALID"))
    one_choice_is_right(params, net, x, model.apply(params, x))


@pytest.mark.parametrize("is_module", [True, False])
def test_a_transposed_convolution_of_pytorch_is_certain_for_ptree_and_in_doubt_for_linen(is_module):
    torch = pytest.importorskip("torch")
    linen = pytest.importorskip("flax.linen")
    module = torch.nn.Sequential(torch.nn.ConvTranspose2d(3, 5, 2, stride=2))
    source = module if is_module else {name: array.numpy() for name, array in module.state_dict().items()}
    x = draws(1, 4, 4, 3)
    expected = in_torch(torch, module, x)
    agrees(source, nn.Sequential(nn.ConvTranspose(5, 2, stride=2, padding="VALID")), x, expected)
    model = linen.Sequential([linen.ConvTranspose(5, (2, 2), strides=(2, 2), padding="VALID")])
    suggestion = convert.suggest(source, model.init(KEY, x))
    row = marked_row(suggestion)
    certain = [row.entry for row in suggestion.rows if not row.doubts]
    (flipped,) = row.alternatives
    params = convert.Table([*certain, flipped.entry]).apply(source, like=model.init(KEY, x))
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_names_that_say_a_transposed_convolution_contradict_the_layout_of_a_plain_one():
    """As of groups, of which a state dict does not tell how many there are."""
    source = {"deconv.weight": draws(8, 2, 3, 3)}
    row = marked_row(convert.suggest(source, pt.unflatten({"up/kernel": pt.Param((3, 3, 2, 8))})))
    assert row.operation == convert.conv
