"""Convolutions with circular, reflected, replicated and causal padding, against PyTorch, Flax and Keras: values and gradients."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from grids import data, drawn, grid, shown

import ptree as pt
from ptree import nn

linen = pytest.importorskip("flax.linen")

SPACE = {1: (11,), 2: (7, 8), 3: (5, 4, 6)}
MODES = ["circular", "reflect", "replicate"]


def with_gradients(function, params, x):
    """The output, and the gradients of a loss that weighs every output differently."""

    def loss(params, x):
        y = function(params, x)
        return (y * data(*y.shape, seed=7)).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(params, x)
    return y, gradients


def agree(ours, theirs, params, x):
    y, (of_params, of_x) = with_gradients(ours, params, x)
    expected, (their_params, their_x) = with_gradients(theirs, pt.asdict(params), x)
    close(y, expected)
    close(of_x, their_x)
    for path, gradient in pt.items(of_params):
        close(gradient, their_params[path])


def close(got, expected):
    got, expected = np.asarray(got), np.asarray(expected)
    scale = max(1.0, float(abs(expected).max()))
    np.testing.assert_allclose(got / scale, expected / scale, atol=2e-5)


def agree_with_torch(layer, peer, params, x):
    """The values, and the gradients of kernel, bias and input, of one of PyTorch's convolution modules."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        peer.weight.copy_(torch.tensor(np.moveaxis(np.asarray(params["kernel"]), (-1, -2), (0, 1))))
        peer.bias.copy_(torch.tensor(np.array(params["bias"])))
    theirs = torch.tensor(np.array(x), requires_grad=True)
    expected = peer(theirs.movedim(-1, 1)).movedim(1, -1)
    y, (of_params, of_x) = with_gradients(layer, params, x)
    close(y, expected.detach())
    (expected * torch.tensor(data(*y.shape, seed=7))).sum().backward()
    close(of_x, theirs.grad)
    close(np.moveaxis(np.asarray(of_params["kernel"]), (-1, -2), (0, 1)), peer.weight.grad)
    close(of_params["bias"], peer.bias.grad)


@pytest.mark.parametrize("options", grid(rank=[1, 2, 3], mode=MODES, steps=[(1, 2), (2, 1)]), ids=shown)
def test_padding_modes_are_those_of_pytorch(options):
    torch = pytest.importorskip("torch")
    rank, mode, (stride, dilation) = options.values()
    padding = (2, 1, 3)[:rank]
    groups = 2 if stride == 2 else 1
    x = data(2, *SPACE[rank], 4)
    rest = {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding, "padding_mode": mode}
    peer = [torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d][rank - 1](4, 6, 2, **rest)
    layer = nn.Conv(6, 2, **rest)
    agree_with_torch(layer, peer, drawn(layer, x), x)


@pytest.mark.parametrize("options", grid(mode=MODES, size=[2, 3, 4]), ids=shown)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_with_a_mode_is_that_of_pytorch(options):
    torch = pytest.importorskip("torch")
    mode, size = options.values()
    x = data(2, 7, 8, 3)
    peer = torch.nn.Conv2d(3, 4, size, padding="same", padding_mode=mode)
    layer = nn.Conv(4, size, padding_mode=mode)
    agree_with_torch(layer, peer, drawn(layer, x), x)


FLAX = grid(padding=["CIRCULAR", "REFLECT"], size=[2, 3], stride=[1, 2], dilation=[1, 2])


@pytest.mark.parametrize("options", FLAX, ids=shown)
def test_circular_and_reflected_padding_are_those_of_flax(options):
    padding, size, stride, dilation = options.values()
    x = data(2, 7, 8, 4)
    layer = nn.Conv(6, size, padding=padding, stride=stride, dilation=dilation, groups=2)
    peer = linen.Conv(6, (size, size), strides=stride, padding=padding, kernel_dilation=dilation, feature_group_count=2)
    agree(layer, lambda p, x: peer.apply({"params": p}, x), drawn(layer, x), x)


@pytest.mark.parametrize("options", grid(size=[1, 2, 5], stride=[1, 2], dilation=[1, 3]), ids=shown)
def test_causal_padding_is_that_of_flax(options):
    x = data(2, 9, 4)
    layer = nn.Conv(
        6, options["size"], padding="CAUSAL", stride=options["stride"], dilation=options["dilation"], groups=2
    )
    peer = linen.Conv(
        6,
        (options["size"],),
        strides=options["stride"],
        padding="CAUSAL",
        kernel_dilation=options["dilation"],
        feature_group_count=2,
    )
    params = drawn(layer, x)
    agree(layer, lambda p, x: peer.apply({"params": p}, x), params, x)
    later = x.copy()
    later[:, 5:] += 1  # nothing before sees it
    kept = 1 + 4 // options["stride"]
    np.testing.assert_array_equal(layer(params, later)[:, :kept], layer(params, x)[:, :kept])


def test_a_ring_in_one_axis_and_zeros_in_the_other():
    """A map of the earth: around the equator, and to the poles."""
    x = data(2, 6, 8, 3)
    layer = nn.Conv(4, 3, padding_mode=("zeros", "circular"))
    params = drawn(layer, x)
    wrapped = jnp.concatenate([x[:, :, -1:], x, x[:, :, :1]], 2)
    inside = nn.Conv(4, 3, padding=("SAME", "VALID"))
    close(layer(params, x), inside(params, wrapped))
    np.testing.assert_allclose(layer(params, np.roll(x, 3, 2)), np.roll(layer(params, x), 3, 2), atol=1e-5)
    same = nn.Conv(4, 3, padding=("SAME", "CIRCULAR"))
    np.testing.assert_array_equal(same(params, x), layer(params, x))
    amounts = nn.Conv(4, 3, padding=(1, (1, 1)), padding_mode=("zeros", "circular"))
    np.testing.assert_array_equal(amounts(params, x), layer(params, x))


def test_a_video_is_causal_in_time_only():
    x = data(2, 5, 6, 7, 3)
    layer = nn.Conv(4, 3, padding=("CAUSAL", "SAME", "SAME"))
    params = drawn(layer, x)
    assert layer(params, x).shape == (2, 5, 6, 7, 4)
    by_hand = nn.Conv(4, 3, padding=((2, 0), (1, 1), (1, 1)))
    np.testing.assert_array_equal(layer(params, x), by_hand(params, x))
    edge = nn.Conv(4, 3, padding=("CAUSAL", "SAME", "SAME"), padding_mode=("replicate", "zeros", "zeros"))
    first = jnp.concatenate([x[:, :1], x[:, :1], x], 1)
    close(edge(params, x), nn.Conv(4, 3, padding=("VALID", "SAME", "SAME"))(params, first))


# ------------------------------------------------------------------------------ transposed


TRANSPOSED = grid(padding=["CIRCULAR", "REFLECT", "REPLICATE"], size=[2, 3, 5], stride=[1, 2, 3])


@pytest.mark.parametrize("options", TRANSPOSED, ids=shown)
def test_a_transposed_convolution_is_the_gradient_of_the_convolution(options):
    x = data(2, 4, 5, 3)
    size, stride = options["size"], options["stride"]
    rest = {"padding": options["padding"], "stride": stride, "use_bias": False}
    layer = nn.ConvTranspose(4, size, **rest)
    params = drawn(layer, x)
    y = layer(params, x)
    assert y.shape == (2, 4 * stride, 5 * stride, 4)
    down = nn.Conv(3, size, **rest)
    forward = lambda big: down({"kernel": jnp.swapaxes(params["kernel"], -1, -2)}, big)
    (gradient,) = jax.vjp(forward, jnp.zeros(y.shape))[1](jnp.asarray(x))
    close(y, gradient)


@pytest.mark.parametrize("options", grid(mode=MODES, padding=[0, 2], stride=[1, 2], dilation=[1, 2]), ids=shown)
def test_a_transposed_convolution_with_a_mode_is_the_gradient_of_the_convolution(options):
    x, padding = data(2, 5, 3), options["padding"]
    rest = {
        "stride": options["stride"],
        "dilation": options["dilation"],
        "padding_mode": options["mode"],
        "use_bias": False,
    }
    layer = nn.ConvTranspose(4, 3, padding=padding, **rest)
    params = drawn(layer, x)
    y = layer(params, x)
    zeros = nn.ConvTranspose(4, 3, padding=padding, **{**rest, "padding_mode": "zeros"})
    assert y.shape == zeros(params, x).shape
    forward = lambda big: nn.Conv(3, 3, padding=padding, **rest)(
        {"kernel": jnp.swapaxes(params["kernel"], -1, -2)}, big
    )
    (gradient,) = jax.vjp(forward, jnp.zeros(y.shape))[1](jnp.asarray(x))
    close(y, gradient)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 1), (2, 2), (3, 2), (4, 2), (2, 3), (4, 3)])
def test_a_circular_transposed_convolution_is_that_of_flax(size, stride):
    """Of sizes for which Flax's is the gradient of its own convolution: (2, 1), (4, 1) and (3, 3) are a place beside it."""
    x = data(2, 4, 5, 3)
    layer = nn.ConvTranspose(4, size, stride=stride, padding="CIRCULAR")
    peer = linen.ConvTranspose(4, (size, size), (stride, stride), padding="CIRCULAR", transpose_kernel=True)

    def theirs(p, x):  # whose kernel is (space..., out, in), of the convolution
        return peer.apply({"params": {"kernel": jnp.swapaxes(p["kernel"], -1, -2), "bias": p["bias"]}}, x)

    agree(layer, theirs, drawn(layer, x), x)


FLAX_TRANSPOSED = grid(padding=["SAME", "CIRCULAR"], size=[2, 3, 4], stride=[1, 2], dilation=[1, 2])


@pytest.mark.parametrize("options", FLAX_TRANSPOSED, ids=shown)
def test_a_transposed_convolution_with_the_kernel_of_flax_flipped_is_that_of_flax(options):
    """By default, Flax's does not slide its kernel backwards; wrapped, it is a place later where it is no gradient of its Conv."""
    padding, size, stride, dilation = options.values()
    x = data(2, 5, 6, 3)
    rest = {"padding": padding, "use_bias": False}
    peer = linen.ConvTranspose(2, (size, size), (stride, stride), kernel_dilation=(dilation, dilation), **rest)
    layer = nn.ConvTranspose(2, size, stride=stride, dilation=dilation, **rest)
    kernel = drawn(layer, x)["kernel"]
    y = layer({"kernel": jnp.flip(kernel, (0, 1))}, x)
    reach = dilation * (size - 1)
    is_beside = padding == "CIRCULAR" and stride == 2 and reach % 2 == 0
    close(jnp.roll(y, (1, 1), (1, 2)) if is_beside else y, peer.apply({"params": {"kernel": kernel}}, x))


@pytest.mark.parametrize("options", grid(stride=[2, 3], extra=[0, 1]), ids=shown)
def test_padding_below_0_is_the_output_padding_of_pytorch(options):
    torch = pytest.importorskip("torch")
    stride, extra = options.values()
    x = data(2, 5, 6, 3)
    layer = nn.ConvTranspose(4, 3, stride=stride, padding=((0, -extra), (0, -extra)))
    params = drawn(layer, x)
    weight = torch.tensor(np.moveaxis(np.asarray(params["kernel"]), (-2, -1), (0, 1)))
    expected = torch.nn.functional.conv_transpose2d(
        torch.tensor(x).movedim(-1, 1), weight, torch.tensor(np.array(params["bias"])), stride, 0, extra
    )
    close(layer(params, x), expected.movedim(1, -1).numpy())


# --------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.Conv(8, 3, padding="circular"), "Conv(8, 3, padding='circular'): expected padding to be 'SAME', 'VALID',"
         " 'CAUSAL', 'CIRCULAR', 'REFLECT', 'REPLICATE', a number of at least 0, or for each axis one of these or (before,"
         " after), got 'circular': write 'CIRCULAR'"),
        (lambda: nn.Conv(8, 3, padding_mode="wrap"), "Conv(8, 3, padding_mode='wrap'): expected padding_mode to be one of"
         " 'zeros', 'circular', 'reflect', 'replicate', or a tuple with one for each axis, got 'wrap'"),
        (lambda: nn.Conv(8, 3, padding=-1), "Conv(8, 3, padding=-1): expected padding to be 'SAME', 'VALID', 'CAUSAL',"
         " 'CIRCULAR', 'REFLECT', 'REPLICATE', a number of at least 0, or for each axis one of these or (before, after),"
         " got -1"),
        (lambda: nn.Conv(8, 3, padding="CIRCULAR", padding_mode="reflect"), "Conv(8, 3, padding='CIRCULAR',"
         " padding_mode='reflect'): expected padding 'SAME', 'VALID' or numbers with a padding_mode, got 'CIRCULAR'"),
        (lambda: nn.Conv(8, (3, 3), padding="CAUSAL").spec(jnp.ones((1, 5, 5, 2))), "Conv(8, (3, 3), padding='CAUSAL'):"
         " expected one axis of space, or which axis is time, as in padding=('CAUSAL', 'SAME'), got f32[1,5,5,2]"),
        (lambda: nn.Conv(8, 3, padding_mode=("zeros", "circular")).spec(jnp.ones((1, 5, 2))), "Conv(8, 3,"
         " padding_mode=('zeros', 'circular')): expected a padding_mode of 1 entries, for the axes of space, got ('zeros',"
         " 'circular')"),
        (lambda: nn.ConvTranspose(8, 3, padding="CAUSAL"), "ConvTranspose(8, 3, padding='CAUSAL'): expected padding to be"
         " 'SAME', 'VALID', 'CIRCULAR', 'REFLECT', 'REPLICATE', a whole number, or for each axis one of these or (before,"
         " after), got 'CAUSAL'"),
        (lambda: nn.MaxPool(2, padding="CIRCULAR"), "MaxPool(2, padding='CIRCULAR'): expected padding to be 'SAME', 'VALID', a"
         " number of at least 0, or for each axis one of these or (before, after), got 'CIRCULAR'"),
    ],
)  # fmt: skip
def test_padding_that_there_is_not_is_refused(call, message):
    says(pt.LayerError, message, call)


def test_pools_take_a_padding_for_each_axis():
    x = data(1, 6, 7, 2)
    mixed = nn.MaxPool(3, 2, padding=("SAME", 1))
    expected = nn.MaxPool(3, 2, padding=((0, 1), (1, 1)))
    np.testing.assert_array_equal(mixed({}, x), expected({}, x))
    mean = nn.AvgPool(3, 2, padding=("VALID", "SAME"), count_padding=False)
    np.testing.assert_array_equal(mean({}, x), nn.AvgPool(3, 2, padding=(0, (1, 1)), count_padding=False)({}, x))


@pytest.mark.parametrize("options", grid(mode=MODES, sides=[(2, 2), (3, 3), (0, 3), (4, 4), (4, 0)]), ids=shown)
def test_padding_wider_than_the_input_is_refused_where_pytorch_refuses_it(options):
    torch = pytest.importorskip("torch")
    mode, (before, after) = options.values()
    layer, x = nn.Conv(2, 3, padding=((before, after),), padding_mode=mode), data(1, 3, 1)
    params = {"kernel": data(3, 1, 2), "bias": data(2)}
    try:
        padded = torch.nn.functional.pad(torch.tensor(x).movedim(-1, 1), (before, after), mode=mode).movedim(1, -1)
    except RuntimeError:
        name, most = ("reflected", 2) if mode == "reflect" else ("circular", 3)
        text = (
            f"{layer!r}: expected a {name} padding of at most {most} on axis 0 of space, which has 3 places, got a padding"
            f" of {(before, after)}"
        )
        says(pt.LayerError, text, layer, params, x)
        return
    close(layer(params, x), nn.Conv(2, 3, padding="VALID")(params, padded.numpy()))


X = jnp.ones((1, 4, 2, 1))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv(2, 5, padding="REFLECT"), "a reflected padding of at most 1 on axis 1 of space, which has 2 places, got a padding of (2, 2)"),
        (nn.Conv(2, 3, dilation=3, padding="CIRCULAR"),
         "a circular padding of at most 2 on axis 1 of space, which has 2 places, got a padding of (3, 3)"),
        (nn.Conv(2, 5, padding="SAME", padding_mode="reflect"),
         "a reflected padding of at most 1 on axis 1 of space, which has 2 places, got a padding of (2, 2)"),
        (nn.Conv(2, 5, padding=(4, 2), padding_mode=("reflect", "circular")),
         "a reflected padding of at most 3 on axis 0 of space, which has 4 places, got a padding of (4, 4)"),
        (nn.ConvTranspose(2, 5, padding="REFLECT"),
         "a reflected padding of at most 1 on axis 1 of space, which has 2 places, got a padding of (2, 2)"),
        (nn.ConvTranspose(2, 7, padding="CIRCULAR"),
         "a circular padding of at most 2 on axis 1 of space, which has 2 places, got a padding of (3, 3)"),
    ],
)  # fmt: skip
def test_padding_wider_than_one_axis_is_refused_also_by_name_and_in_jit(layer, expected):
    params = layer.init(jax.random.key(0), jnp.ones((1, 9, 9, 1)))
    for call in (layer, jax.jit(lambda params, x: layer(params, x))):
        says(pt.LayerError, f"{layer!r}: expected {expected}", call, params, X)


def test_zeros_and_the_edge_pad_as_widely_as_one_likes():
    for options in ({"padding": "REPLICATE"}, {"padding": 4}, {"padding": 4, "padding_mode": "replicate"}):
        layer = nn.Conv(2, 9, **options)
        assert layer(layer.init(jax.random.key(0), X), X).shape == (1, 4, 2, 2)


@pytest.mark.parametrize("padding", ["SAME", "CAUSAL", "CIRCULAR", "REFLECT", "REPLICATE"])
def test_a_size_that_is_a_symbol_is_padded(padding):
    (size,) = jax.export.symbolic_shape("size", constraints=["size >= 4"])
    layer = nn.Conv(4, 3, padding=padding)
    params = layer.init(jax.random.key(0), jnp.ones((2, 9, 3)))
    call = jax.jit(lambda params, x: layer(params, x))
    exported = jax.export.export(call)(pt.asdict(params), jax.ShapeDtypeStruct((2, size, 3), jnp.float32))
    x = data(2, 9, 3)
    close(exported.call(pt.asdict(params), x), layer(params, x))
