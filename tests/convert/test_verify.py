"""verify: modules of PyTorch beside layers of ptree.nn, and what is said of each way in which a conversion goes wrong."""

import collections
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import keras
import ml_dtypes
import numpy as np
import pytest

import ptree as pt
from ptree import convert, nn
from ptree.convert import VerificationError, verify

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def numbers(tensor):
    return jnp.asarray(tensor.detach().numpy())


def hint(source, ours, inputs=0.0, **options):
    """The sentences about the first difference."""
    found = verify(lambda x: source, lambda x: ours, np.float32(inputs), **options)
    assert not found.ok
    return " ".join(found.first.hints)


# ----------------------------------------------------------------- PyTorch beside ptree.nn


def with_layers(module):
    """A function that returns the output of a Sequential and of each of its layers."""

    def run(x):
        x = torch.from_numpy(x)
        named = {}
        for name, layer in module.named_children():
            x = layer(x)
            named[name] = x
        return x, named

    return run


def layers_of(net, params):
    """The same of a Sequential of ptree.nn."""

    def run(x):
        named = {}
        for at, (_, layer) in enumerate(net.layers):
            x = layer(params[str(at)], x) if str(at) in params else layer(x)
            named[f"layer{at}"] = x
        return x, named

    return run


def mlp():
    torch.manual_seed(0)
    source = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.GELU(),
        torch.nn.Linear(8, 8),
        torch.nn.LayerNorm(8),
        torch.nn.Linear(8, 3),
    )
    exact = lambda x: jax.nn.gelu(x, approximate=False)
    net = nn.Sequential(nn.Dense(8), exact, nn.Dense(8), nn.LayerNorm(epsilon=1e-5), nn.Dense(3))
    params = net.spec(jnp.ones((1, 6)))
    for at in (0, 2, 4):
        params = pt.put(params, f"{at}/kernel", numbers(source[at].weight).T)
        params = pt.put(params, f"{at}/bias", numbers(source[at].bias))
    params = pt.put(params, "3/scale", numbers(source[3].weight))
    params = pt.put(params, "3/bias", numbers(source[3].bias))
    return source.eval(), net, params


NAMES = {str(at): f"layer{at}" for at in range(5)}


def replaced(net, at, layer):
    layers = [old for _, old in net.layers]
    layers[at] = layer
    return nn.Sequential(*layers)


def test_an_mlp_that_is_the_same():
    source, net, params = mlp()
    found = verify(source, lambda x: net(params, x), floats(7, 6))
    assert found.ok
    assert bool(found)
    assert found.checklist == ()
    assert found.check() is None
    (row,) = found.rows
    assert (row.name, row.shape, row.dtype, row.count) == ("output", (7, 3), "f32", 21)
    assert 0 < row.absolute < 1e-6
    assert row.cosine == pytest.approx(1)
    assert found.text().startswith("the same: 1 value within the tolerance\n")


def test_intermediate_values_are_paired_by_names_and_come_in_order():
    source, net, params = mlp()
    found = verify(with_layers(source), jax.jit(layers_of(net, params)), floats(7, 6), names=NAMES)
    assert found.ok
    assert [row.name for row in found.rows] == ["0", "1", "2", "3", "4", "output"]
    assert [row.name_ours for row in found.rows] == [*NAMES.values(), "output"]
    assert [row.is_output for row in found.rows] == [False] * 5 + [True]


def test_a_square_kernel_that_is_not_transposed_is_found_and_named():
    source, net, params = mlp()
    params = pt.set(params, "2/kernel", params["2/kernel"].T)
    found = verify(with_layers(source), layers_of(net, params), floats(7, 6), names=NAMES)
    assert found.first.name == "2"
    assert found.first.hints[0].startswith("a square kernel of 8x8 is transposed on one side")
    assert "square kernels: a missing transpose does not change the shape" in found.checklist
    text = found.text()
    assert "The first that differs in the order of computation: '2'" in text
    lone = verify(source[2], lambda x: nn.Dense(8)(params["2"], x), floats(7, 8))
    assert "a square kernel of 8x8 is transposed" in lone.first.hints[0]


def test_outputs_of_submodules_are_taken_by_their_names():
    source, net, params = mlp()
    source = torch.nn.Sequential(*source, torch.nn.ReLU(inplace=True))  # which writes into the output before it
    run = layers_of(net, params)

    def ours(x):
        y, named = run(x)
        return jax.nn.relu(y), named

    found = verify(source, ours, torch.from_numpy(floats(7, 6)), names=NAMES)
    assert found.ok
    assert [row.name for row in found.rows] == ["0", "1", "2", "3", "4", "output"]
    assert not any(layer._forward_hooks for layer in source)
    found = verify(source, layers_of(replaced(net, 3, nn.LayerNorm(epsilon=1e-3)), params), floats(7, 6), names=NAMES)
    assert found.first.name == "3"


def test_the_epsilon_of_a_norm_is_found_and_named():
    source, net, params = mlp()
    net = replaced(net, 3, nn.LayerNorm(epsilon=1e-3))
    found = verify(with_layers(source), layers_of(net, params), floats(7, 6), names=NAMES)
    assert found.first.name == "3"
    assert found.first.hints[0] == "a LayerNorm of epsilon 1e-05 in the source and 0.001 in ours"
    assert any("LayerNorm 1e-5 in PyTorch" in item for item in found.checklist)


def test_the_tanh_form_of_gelu_is_found_and_named():
    source, net, params = mlp()
    net = replaced(net, 1, jax.nn.gelu)
    found = verify(with_layers(source), layers_of(net, params), floats(7, 6), names=NAMES)
    assert found.first.name == "1"
    named = "the source is the exact gelu (erf) of a value before it, ours the tanh-approximated gelu"
    assert found.first.hints[0] == named
    assert not verify(source, lambda x: net(params, x), floats(700, 6)).ok  # by the output alone too


def test_another_padding_of_a_convolution_is_found_and_named():
    source = torch.nn.Conv1d(3, 5, 3, padding=1).eval()
    params = pt.Tree({"kernel": numbers(source.weight).transpose(2, 1, 0), "bias": numbers(source.bias)})

    def ours(stride, *padding):
        layer = nn.Conv(5, (3,), stride=stride, padding=padding)
        return lambda x: layer(params, x.transpose(0, 2, 1)).transpose(0, 2, 1)

    x = floats(2, 3, 16)
    assert verify(source, ours(1, (1, 1)), x).ok
    found = verify(source, ours(1, (0, 2)), x)
    assert "the source shifted by -1 along axis 2: padding at one end" in found.first.hints[0]
    found = verify(source, ours(1, (2, 2)), x)
    assert "axis 2 has 16 in the source and 18 in ours: padding" in found.first.hints[0]
    source.stride = (2,)
    assert verify(source, ours(2, (1, 1)), x).ok
    found = verify(source, ours(2, (0, 1)), x)  # what "SAME" is for a stride of 2
    assert "or the padding of a window with a stride" in found.first.hints[0]


def test_zeros_in_place_of_reflected_numbers_at_the_border_are_found():
    source = torch.nn.Conv1d(3, 5, 3, padding=1, padding_mode="reflect").eval()
    layer = nn.Conv(5, (3,), padding=[(1, 1)])
    params = pt.Tree({"kernel": numbers(source.weight).transpose(2, 1, 0), "bias": numbers(source.bias)})
    found = verify(source, lambda x: layer(params, x.transpose(0, 2, 1)).transpose(0, 2, 1), floats(2, 3, 16))
    assert "at the border of axis 2 (the first 1 and the last 1 of 16): padding of a window" in found.first.hints[0]


def test_channels_last_is_named_as_an_order_of_axes():
    source = torch.nn.Conv2d(3, 4, 3).eval()
    kernel, bias = numbers(source.weight).transpose(2, 3, 1, 0), numbers(source.bias)
    ours = lambda x: nn.Conv(4, (3, 3), padding="VALID")(
        pt.Tree({"kernel": kernel, "bias": bias}), x.transpose(0, 2, 3, 1)
    )
    found = verify(source, ours, floats(2, 3, 9, 7))
    assert found.first.problem == "other shape"
    assert "axes in the order (0, 2, 3, 1): channel order" in found.first.hints[0]
    assert verify(source, lambda x: ours(x).transpose(0, 3, 1, 2), floats(2, 3, 9, 7)).ok


def test_a_batch_norm_in_training_mode_is_seen():
    source = torch.nn.BatchNorm1d(4)
    with torch.no_grad():
        source.running_var.copy_(torch.tensor([1.0, 2.0, 0.5, 3.0]))
        source.running_mean.copy_(torch.tensor([0.1, 0.2, -0.5, 1.0]))
    params = pt.Tree(
        {
            "scale": numbers(source.weight),
            "bias": numbers(source.bias),
            "mean": numbers(source.running_mean),
            "var": numbers(source.running_var),
        }
    )
    ours = lambda x: (x - params["mean"]) / jnp.sqrt(params["var"] + 1e-5) * params["scale"] + params["bias"]
    found = verify(source, ours, floats(64, 4))
    assert not found.ok
    assert "offset for each channel of axis 1: a norm's epsilon" in found.first.hints[0]
    assert "the source is a module of PyTorch in training mode: call .eval() on it" in found.text(200)
    assert verify(source.eval(), ours, floats(64, 4)).ok


def test_modules_keep_their_mode_their_gradients_and_the_inputs():
    source = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(4, 4))
    x = floats(3, 4)
    before = x.copy()
    weight, bias = numbers(source[1].weight), numbers(source[1].bias)
    assert verify(source, lambda x: jax.nn.relu(x) @ weight.T + bias, x).ok
    assert np.array_equal(x, before)
    assert source.training
    assert source[1].weight.grad is None
    x.flags.writeable = False  # as JAX's and mapped arrays are
    assert verify(source.forward, lambda x: jax.nn.relu(x) @ weight.T + bias, jnp.asarray(x)).ok


def test_a_layer_of_keras():
    layer = keras.layers.Dense(4)
    x = floats(3, 5)
    layer(x)
    kernel, bias = layer.kernel.value, layer.bias.value
    assert verify(layer, lambda x: x @ kernel + bias, x).ok
    assert verify(lambda x: layer.kernel, lambda x: kernel, x).ok  # a variable


# ------------------------------------------------------------------------ patterns of errors


BASE = floats(6, 8)


def test_orders():
    square = floats(5, 5)
    assert "axes in the order (1, 0): a transpose" in hint(square, square.T)
    assert "in reverse along axis 1" in hint(BASE, BASE[:, ::-1])
    order = [3, 0, 1, 2, 7, 5, 6, 4]
    assert f"in another order along axis 1, {order}" in hint(BASE, BASE[:, order])
    gates = np.concatenate([BASE[:, :2], BASE[:, 4:6], BASE[:, 2:4], BASE[:, 6:]], 1)
    assert "4 equal parts of axis 1 in the order (0, 2, 1, 3): gates" in hint(BASE, gates)
    heads = BASE.reshape(6, 2, 4).transpose(1, 0, 2).reshape(6, 8)
    assert "same numbers in another order: a reshape" in hint(BASE, heads)


def test_shapes():
    assert "the same numbers in the same order, in another shape" in hint(BASE, BASE.reshape(2, 3, 8))
    flat = floats(2, 3, 4)
    assert "another order and shape: channel order before a flatten" in hint(
        flat.reshape(2, -1), flat.transpose(1, 0, 2).reshape(-1, 3)
    )
    assert "axis 1 has 8 in the source and 7 in ours: padding, stride" in hint(BASE, BASE[:, 1:])
    assert "2 axes in the source, 1 in ours" in hint(BASE, BASE.sum(1))
    assert "as many numbers in another shape, and other values" in hint(BASE, floats(48))


def test_factors_and_offsets():
    assert "the source times 0.125 = 1/8: attention's scale" in hint(BASE, BASE / 8)
    assert "times 8 = sqrt(64)" not in hint(BASE, BASE * 8)
    assert "times 5.657 = sqrt(32)" in hint(BASE, BASE * np.float32(32**0.5))
    assert "the source times -1" in hint(BASE, -BASE)
    assert "the source times 1 - 0.0004" in hint(BASE, BASE * np.float32(0.9996))
    assert "the source plus 1: a bias" in hint(BASE, BASE + 1)
    rows = floats(50, 8)
    assert "an offset for each channel of axis 1: a bias" in hint(rows, rows + floats(8))
    assert "a factor for each channel of axis 1" in hint(rows, rows * (1 + abs(floats(8))))
    assert "a factor and an offset" not in hint(rows, rows * (1 + abs(floats(8))))
    images = floats(4, 3, 5, 5)
    assert "an offset for each channel of axis 1" in hint(images, images + floats(3, 1, 1))
    assert "a factor for each position" in hint(rows, rows * (1 + abs(floats(50, 1))))


def test_places():
    masked = floats(4, 12, 8)
    other = masked.copy()
    other[:, 5:9] = 0
    assert "at [5, 6, 7, 8] of 12 along axis 1: padded or masked positions" in hint(masked, other)
    one = masked.copy()
    one[1, 2, 3] += 1
    assert "1 of 384 differ, at [1] of 4 along axis 0, at [2] of 12 along axis 1, at [3] of 8" in hint(masked, one)


def test_sizes():
    rows = floats(30, 8)
    assert "everywhere close, off by" in hint(rows, rows + 1e-3 * floats(30, 8))
    assert "alike but not the same (cosine 0.9" in hint(rows, rows + 0.2 * floats(30, 8))
    assert "unlike (cosine" in hint(rows, floats(30, 8))


def test_one_side_that_is_zero_everywhere():
    assert "ours is 0 everywhere: weights that are still zero" in hint(BASE, np.zeros_like(BASE))
    assert "the source is 2 everywhere" in hint(np.full_like(BASE, 2), BASE)


def test_large_arrays_are_described_by_a_part(monkeypatch):
    monkeypatch.setattr("ptree.convert._verify.hints._MOST_NUMBERS", 100)
    large = floats(12, 30)
    other = large.copy()
    other[7] *= 2
    assert "at [7] of 12 along axis 0" in hint(large, other)
    assert "in reverse along axis 1" in hint(large, large[:, ::-1])


def test_products_that_are_rounded_to_bfloat16_are_close_everywhere():
    kernel = floats(64, 32)

    def rounded(x):
        return jnp.asarray(x, jnp.bfloat16).astype(jnp.float32) @ jnp.asarray(kernel, jnp.bfloat16).astype(jnp.float32)

    found = verify(lambda x: x @ kernel, rounded, floats(100, 64))
    assert "the precision of products" in found.first.hints[0]
    assert any("jax_default_matmul_precision" in item for item in found.checklist)


def test_a_rotation_the_other_way_is_suggested():
    angles = np.arange(1, 7)[:, None] * np.float32(0.3)

    def rotated(sign):
        def run(x):
            a, b = np.split(x, 2, -1)
            cos, sin = np.cos(angles), sign * np.sin(angles)
            return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)

        return run

    found = verify(rotated(1), rotated(-1), floats(6, 8))
    assert "or a rotation goes the other way" in found.first.hints[0]


def test_no_cause_is_named_for_errors_by_chance():
    for _ in range(30):
        x, y = floats(4, 6), floats(4, 6)
        found = verify(lambda x, y=y: y, lambda x, y=y: y + floats(4, 6), x)
        assert not re.search("kernel of|epsilon of|order|shifted|factor for|offset for", found.first.hints[0])


def test_an_error_that_grows_gradually_is_told_from_one_wrong_layer():
    h = floats(200)
    noise = floats(200)
    source = lambda x: {f"h{at}": h for at in range(9)}
    ours = lambda x: {f"h{at}": h + np.float32(2e-7 * 3**at) * noise for at in range(9)}
    found = verify(source, ours, h)
    assert "the error grew gradually, from" in found.first.hints[-1]
    sudden = lambda x: {f"h{at}": h + np.float32(1e-6 if at < 5 else 1e-2) * noise for at in range(9)}
    found = verify(source, sudden, h)
    assert found.first.name == "h5"
    assert "gradually" not in " ".join(found.first.hints)


@pytest.mark.parametrize("name", ["silu (swish)", "elu", "relu", "leaky relu of slope 0.2"])
def test_other_activations_are_named(name):
    functions = {
        "silu (swish)": torch.nn.SiLU(),
        "elu": torch.nn.ELU(),
        "relu": torch.nn.ReLU(),
        "leaky relu of slope 0.2": torch.nn.LeakyReLU(0.2),
    }
    found = verify(functions[name], jnp.tanh, floats(40))
    assert found.first.hints[0] == f"the source is the {name} of a value before it, ours the tanh"


def test_rms_norms_epsilon_is_named():
    def norm(eps):
        return lambda x: x / np.sqrt(np.mean(x**2, -1, keepdims=True) + eps) * np.arange(1, 9, dtype=np.float32)

    found = verify(norm(1e-6), norm(1e-5), 0.01 * floats(30, 8))
    assert found.first.hints[0] == "a RMSNorm of epsilon 1e-06 in the source and 1e-05 in ours"


# --------------------------------------------------------------------------------- tolerance


def test_the_tolerance_is_that_of_the_coarser_dtype_and_the_largest_number():
    x = np.array([1.0, -2.0], np.float32)
    assert verify(lambda x: x, lambda x: x, x).rows[0].tolerance == 256 * 2.0**-23 * 2
    half = verify(lambda x: x, lambda x: x.astype(ml_dtypes.bfloat16), x)
    assert half.rows[0].tolerance == 4 * 2.0**-7 * 2
    assert (half.rows[0].dtype, half.rows[0].dtype_ours) == ("f32", "bf16")
    assert half.ok
    assert verify(lambda x: x, lambda x: x.astype(np.float64), x).rows[0].tolerance == 256 * 2.0**-23 * 2
    assert verify(lambda x: x, lambda x: x + np.float32(0.1), x, tolerance=0.2).ok
    assert not verify(lambda x: x, lambda x: x + np.float32(0.1), x, tolerance=0.05).ok
    with jax.enable_x64(True):
        wide = x.astype(np.float64)
        assert not verify(lambda x: x, lambda x: jnp.asarray(x) + 1e-7, wide).ok


@pytest.mark.parametrize("length", [64, 1024, 8192])
def test_products_of_real_lengths_are_within_the_tolerance(length):
    kernel = floats(length, 16)
    exact = lambda x: x.astype(np.float64) @ kernel.astype(np.float64)
    found = verify(exact, lambda x: jnp.asarray(x) @ kernel, floats(8, length))
    assert found.ok
    assert found.rows[0].absolute < found.rows[0].tolerance / 4


def test_an_lstm_of_160_steps_is_within_the_tolerance():
    source = torch.nn.LSTM(8, 16, batch_first=True).eval()
    w_i, w_h = numbers(source.weight_ih_l0), numbers(source.weight_hh_l0)
    bias = numbers(source.bias_ih_l0) + numbers(source.bias_hh_l0)

    def ours(x):
        def step(carry, x):
            h, c = carry
            i, f, g, o = jnp.split(x @ w_i.T + h @ w_h.T + bias, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((len(x), 16))
        (h, c), all_h = jax.lax.scan(step, (zeros, zeros), x.swapaxes(0, 1))
        return all_h.swapaxes(0, 1), (h[None], c[None])

    found = verify(source, ours, floats(4, 160, 8))
    assert found.ok
    assert [row.name for row in found.rows] == ["output/0", "output/1/0", "output/1/1"]


def test_integers_are_exact_also_of_64_bits():
    big = np.array([2**60, 2**60 + 1])
    assert verify(lambda x: big, lambda x: big.copy(), 0).ok
    found = verify(lambda x: big, lambda x: big + np.array([0, 1]), 0)
    assert found.rows[0].differing == 1
    assert found.rows[0].at == (1,)
    assert found.rows[0].absolute == 1
    assert found.rows[0].hints == ()
    assert not verify(lambda x: big, lambda x: big + np.array([0, 1]), 0, tolerance=0.5).ok
    assert verify(lambda x: big.astype(np.int32), lambda x: big.astype(np.int32).astype(np.int64), 0).ok
    assert not verify(lambda x: np.array([True]), lambda x: np.array([False]), 0).ok
    found = verify(lambda x: np.array([1, 2]), lambda x: np.array([1.0, 2.0]), 0)
    assert found.first.problem == "integers in the source, floats in ours"


def test_complex_numbers_and_small_dtypes_are_compared():
    values = (floats(6) + 1j * floats(6)).astype(np.complex64)
    assert verify(lambda x: values, lambda x: jnp.asarray(values), 0).ok
    assert "the source times" in hint(values, values * np.complex64(1j))
    assert verify(lambda x: values, lambda x: values * np.complex64(1 + 1e-6), 0).ok
    assert verify(np.fft.fft, jnp.fft.fft, floats(8, 6)).ok
    assert not verify(np.fft.fft, lambda x: jnp.fft.fft(x) * 1.001, floats(8, 6)).ok
    for dtype in ("bfloat16", "float8_e4m3fn", "float16", "int4"):
        small = np.array([1, 2, 3], getattr(ml_dtypes, dtype, dtype))
        assert verify(lambda x, small=small: small, lambda x, small=small: jnp.asarray(small), 0).ok, dtype
    assert verify(lambda x: torch.tensor([1.5, 2]).bfloat16(), lambda x: jnp.array([1.5, 2], jnp.bfloat16), 0).ok


# --------------------------------------------------------------------------------- bad input


def test_nan_on_one_side_is_a_difference_and_its_place_is_named():
    other = BASE.copy()
    other[2, 3] = np.nan
    found = verify(lambda x: BASE, lambda x: other, 0)
    assert found.first.problem.startswith("1 of 48 is NaN or infinite on one side, first at (2, 3)")
    assert (found.first.nonfinite, found.first.nonfinite_ours) == (0, 1)
    assert not verify(lambda x: other, lambda x: BASE, 0).ok
    assert not verify(lambda x: np.array([np.inf, 1]), lambda x: np.array([-np.inf, 1]), 0).ok


def test_nan_on_both_sides_is_the_same_and_said():
    other = BASE.copy()
    other[2, 3] = np.nan
    other[0, 0] = -np.inf
    found = verify(lambda x: other, lambda x: other.copy(), 0)
    assert found.ok
    assert "'output': 2 are NaN or infinite on both sides, and prove nothing" in found.text(120)
    all_nan = np.full(3, np.nan)
    found = verify(lambda x: all_nan, lambda x: all_nan, 0)
    assert not found.ok
    assert "everywhere on both sides, so nothing is proven" in found.first.problem


def test_exceptions_of_either_side_are_in_the_report_with_their_batch():
    def picky(x):
        if x.ndim != 2:
            raise ValueError("wants\ntwo axes")
        return x

    found = verify(lambda x: x, picky, [floats(2, 2), floats(2), floats(3, 3)])
    assert not found.ok
    assert [row.batch for row in found.rows] == [0, 2]
    assert [(failure.side, failure.batch) for failure in found.failures] == [("ours", 1)]
    text = found.text()
    assert text.startswith("not verified: a call failed")
    assert "! ours raised on batch 1: ValueError: wants two axes" in text
    with pytest.raises(VerificationError) as caught:
        found.check()
    assert isinstance(caught.value.__cause__, ValueError)
    both = verify(picky, lambda x: 1 / 0, floats(2))
    assert [failure.side for failure in both.failures] == ["source", "ours"]
    assert both.rows == ()


def test_empty_outputs_and_no_outputs_are_no_proof():
    empty = np.zeros((0, 4), np.float32)
    found = verify(lambda x: empty, lambda x: empty, 0)
    assert not found.ok
    assert "without any numbers, so nothing was compared" in found.text(120)
    assert verify(lambda x: (empty, BASE), lambda x: (empty, BASE), 0).ok
    assert not verify(lambda x: None, lambda x: None, 0).ok
    with pytest.raises(pt.StructureError, match="inputs is an empty list"):
        verify(lambda x: x, lambda x: x, [])


def test_outputs_of_other_structures():
    found = verify(lambda x: (x, x), lambda x: (x,), floats(3))
    assert [row.problem for row in found.rows] == ["", "an output that only the source has"]
    found = verify(lambda x: {"a": x}, lambda x: {"a": x, "b": x}, floats(3))
    assert [(row.name, row.problem) for row in found.rows] == [("a", ""), ("b", "an output that only ours has")]
    assert verify(lambda x: {"logits": x}, lambda x: x, floats(3)).ok  # the only output
    assert verify(lambda x: {"a": [x, (x + 1,)], "b": None}, lambda x: {"b": None, "a": (x, [x + 1])}, floats(3)).ok
    assert not verify(lambda x: "text", lambda x: "text", 0).ok
    assert verify(lambda x: pt.Tree({"a": {"b": x}}), lambda x: {"a": {"b": x}}, floats(3)).ok


class Eager:
    """As TensorFlow's arrays are: no type of ours, and a method `numpy`."""

    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


class Described(collections.OrderedDict):
    """As the outputs of transformers are."""


@dataclasses.dataclass
class Outputs:
    logits: object
    hidden: object = None


def test_outputs_of_other_libraries_types():
    x = floats(3)
    named = {"logits": x, "hidden": [x, x]}
    assert verify(lambda x: Eager(x), lambda x: x, x).ok
    assert verify(lambda x: Outputs(Eager(x), (x, x)), lambda x: named, x).ok
    assert verify(lambda x: Described(logits=x, hidden=(x, x)), lambda x: named, x).ok
    assert verify(lambda x: Described(logits=x, past=None), lambda x: x, x).ok
    found = verify(lambda x: object(), lambda x: x, x)
    assert found.first.problem.startswith("in the source it is no array: object")


def test_numbers_of_all_sizes():
    x = floats(5, 4).astype(np.float64)
    found = verify(lambda x: x * 1e300, lambda x: x * 1e30, x)
    assert found.first.cosine == pytest.approx(1)
    assert verify(lambda x: x * 1e300, lambda x: x * 1e300, x).ok
    assert verify(lambda x: x * 1e-300, lambda x: x * 1e-300, x).ok
    assert not verify(lambda x: x * 1e-300, lambda x: x * 2e-300, x).ok
    assert not verify(lambda x: np.float32(3), lambda x: jnp.float32(4), x).ok
    assert not verify(lambda x: x, lambda x: x[:, :0], x).ok


def test_names_that_are_in_neither_are_an_error_with_the_nearest():
    source, net, params = mlp()
    with pytest.raises(pt.StructureError, match=r"'layre0' is no value of ours\. Did you mean 'layer0'\?"):
        verify(with_layers(source), layers_of(net, params), floats(2, 6), names={"0": "layre0"})


def test_intermediate_values_without_a_partner_are_listed():
    source, net, params = mlp()
    found = verify(with_layers(source), layers_of(net, params), floats(2, 6), names={"0": "layer0"})
    assert found.ok
    assert found.only_source == ("1", "2", "3", "4")
    assert found.only_ours == ("layer1", "layer2", "layer3", "layer4")
    assert "as only the source has them: ['1', '2', '3', '4']" in found.text(120)


def test_keyword_arguments_and_several_batches():
    source = lambda ids, mask: ids * mask
    found = verify(source, source, [{"ids": floats(3), "mask": np.float32(n)} for n in range(4)])
    assert found.ok
    assert found.batches == 4
    wrong = lambda ids, mask: ids * mask + (mask == 2)
    found = verify(source, wrong, [{"ids": floats(3), "mask": np.float32(n)} for n in range(4)])
    assert found.first.batch == 2
    assert "DIFFERS (batch 2)" in found.text(120)


# ------------------------------------------------------------------------------------ report


def wrong_model():
    source, net, params = mlp()
    params = pt.set(params, "2/kernel", params["2/kernel"].T)
    long = {f"{name}": f"a/{ours}" for name, ours in NAMES.items()}

    def ours(x):
        y, named = layers_of(net, params)(x)
        return y, {f"a/{name}": value for name, value in named.items()}

    return verify(with_layers(source), ours, [floats(7, 6), floats(3, 6)], names=long)


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_page(width):
    for found in (
        wrong_model(),
        verify(lambda x: (x, np.nan), lambda x: 1 / 0, floats(3)),
        verify(lambda x: {"n\x1b" * 70: BASE}, lambda x: {"n\x1b" * 70: BASE.T}, 0),
    ):
        text = found.text(width)
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text


def test_of_many_values_those_that_differ_are_shown():
    source = {f"h{at}": BASE for at in range(1000)}
    ours = {**source, "h777": BASE + 1}
    text = verify(lambda x: source, lambda x: ours, 0).text(100)
    assert "h777" in text
    assert "and 950 more" in text
    assert len(text.splitlines()) < 100


def test_the_error_has_the_whole_report():
    found = wrong_model()
    with pytest.raises(AssertionError) as caught:
        found.check()
    assert isinstance(caught.value, pt.PtreeError)
    assert caught.value.verification is found
    message = str(caught.value)
    assert "The first that differs in the order of computation: '2'" in message
    assert "a square kernel of 8x8 is transposed" in message
    assert "Other causes than weights:" in message
    assert re.search(r"2 -> a/layer2 .* DIFFERS", message)


def test_the_report_is_plain_data():
    data = json.loads(json.dumps(wrong_model().to_dict(), allow_nan=False))
    assert data["first"] == "2"
    assert data["rows"][0]["ok"] is True
    assert data["batches"] == 2


@pytest.mark.parametrize("tolerance", [float("nan"), float("inf"), -1, -1e-9, "1e-3", True, [1e-3], 1e-3j, np.ones(2)])
def test_a_tolerance_is_a_finite_number_of_at_least_0(tolerance):
    with pytest.raises(pt.StructureError, match="expected the largest absolute error that is allowed"):
        verify(lambda x: x, lambda x: x + 1, 0.0, tolerance=tolerance)


def test_a_tolerance_may_be_any_real_number():
    for tolerance in (0, 1, 0.5, np.float32(0.5), np.int64(1), jnp.float32(0.5)):
        assert verify(lambda x: x, lambda x: x, 0.0, tolerance=tolerance).ok


def test_no_transposed_kernel_is_suggested_for_errors_near_the_tolerance():
    """As of another gelu, before a layer that mixes the features."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        kernel, after = rng.normal(size=(2, 6, 6))
        x = rng.normal(size=(3, 6))
        source = np.float32(x @ kernel @ after)
        error = np.float32(rng.normal(size=(3, 6)) * 256 * 2.0**-23 * np.abs(source).max())
        found = verify(lambda x, y=source: y, lambda x, y=source + error: y, np.float32(x))
        assert "transposed" not in " ".join(found.first.hints if found.first else ())


def test_a_transposed_kernel_is_found_in_bfloat16_and_among_768_features():
    for size, dtype, rows in ((64, ml_dtypes.bfloat16, 40), (768, np.float32, 5)):
        x, kernel = floats(rows, size), floats(size, size)
        source, ours = (x @ kernel).astype(dtype), (x @ kernel.T).astype(dtype)
        found = verify(lambda x, y=source: y, lambda x, y=ours: y, x)
        assert "is transposed on one side" in found.first.hints[0]


def test_numbers_that_differ_beside_a_large_one_are_counted():
    source, ours = np.float32([1e6, 1, 0]), np.float32([1e6, 2, 0])
    found = verify(lambda x: source, lambda x: ours, 0)
    assert found.ok
    assert found.rows[0].unseen == 1
    assert (
        "! 'output': 1 of 3 differs by more than a tenth of the usual size there, within the tolerance"
        in found.text(200)
    )
    assert not verify(lambda x: source, lambda x: ours, 0, tolerance=0.1).ok
    quiet = verify(lambda x: source, lambda x: ours, 0, tolerance=10)  # the user says that it is enough
    assert quiet.ok
    assert not quiet.rows[0].unseen
    noise = np.float32(RNG.normal(size=10_000))
    assert not verify(lambda x: noise, lambda x: noise + np.float32(1e-6), 0).rows[0].unseen
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        assert not verify(lambda x: noise, lambda x, dtype=dtype: noise.astype(dtype), 0).rows[0].unseen


def beside(large, small):
    return np.concatenate([large, small], -1).astype(np.float32)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_small_numbers_that_differ_beside_many_large_ones_are_counted(axes):
    """As probabilities beside the coordinates of boxes, on channels last and second."""
    rng = np.random.default_rng(0)
    boxes, chances = rng.uniform(0, 5120, (100, 20)), rng.uniform(0.2, 0.8, (100, 1))
    source, ours = beside(boxes, chances).transpose(axes), beside(boxes, chances + 0.1).transpose(axes)
    found = verify(lambda x: source[None], lambda x: ours[None], 0)
    assert found.ok
    assert found.rows[0].unseen == 100
    large, one = np.full(6, 1e6), np.ones(4)  # without channels
    assert verify(lambda x: beside(large, one), lambda x: beside(large, 2 * one), 0).rows[0].unseen == 4


def test_rounding_is_not_counted_as_small_numbers_that_differ():
    rng = np.random.default_rng(0)
    for shape in ((3,), (1, 1000), (8, 6), (64, 64), (2, 3, 16, 16)):
        x = rng.normal(size=shape)
        for dtype, error in ((np.float32, 1e-5), (np.float16, 1e-3), (ml_dtypes.bfloat16, 5e-3)):
            source, ours = x.astype(dtype), (x + error * rng.uniform(-1, 1, shape)).astype(dtype)
            found = verify(lambda x, y=source: y, lambda x, y=ours: y, 0)
            assert found.ok
            assert not found.rows[0].unseen, (shape, dtype)
    assert not verify(lambda x: np.float32(3), lambda x: np.float32(3.00001), 0).rows[0].unseen


@pytest.mark.parametrize("values", [
    lambda x, y: {"a/b": x, "a": {"b": y}}, lambda x, y: {1: x, "1": y}, lambda x, y: {"output": x, "": y},
    lambda x, y: (x, {"output": y}), lambda x, y: (x - x, {"a/b": x, "a": {"b": y}}),
])  # fmt: skip
def test_values_of_one_name_are_not_verified(values):
    for pair in ((BASE + 9, BASE), (BASE, BASE + 9)):
        found = verify(lambda x: values(BASE, BASE), lambda x, pair=pair: values(*pair), 0)
        assert not found.ok
        assert "is the name of 2 values, so they cannot be told apart" in found.text(200)


def test_the_checklist_is_there_for_differences_and_not_for_calls_that_raise():
    broken = verify(lambda x: x, lambda x: 1 / 0, floats(2))
    assert broken.checklist == ()
    assert "Other causes" not in broken.text()
    norm = torch.nn.BatchNorm1d(4)  # one row has no variance, so PyTorch raises in training mode
    training = verify(norm, lambda x: x, floats(1, 4))
    assert training.failures[0].side == "source"
    assert training.checklist == ("the source is a module of PyTorch in training mode: call .eval() on it",)
    assert verify(lambda x: None, lambda x: None, 0).checklist == ()
    assert len(verify(lambda x: x, lambda x: x + 1, floats(2)).checklist) > 5


def test_public_names():
    assert convert.verify is verify
    assert convert.Verification.__module__ == "ptree.convert"


def test_one_value_differs_and_a_call_that_failed_has_no_checklist():
    assert verify(lambda x: x, lambda x: x + 1, BASE).text().startswith("not the same: 1 of 1 value differs\n")
    failed = verify(lambda x: x, lambda x: 1 / 0, BASE)
    assert failed.checklist == ()
    assert "What is no weight" not in failed.text()
