"""Rotary positions against the published formulas: complex numbers, Hugging Face's and GPT-J's, scaled frequencies."""

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from grids import data, drawn, grid, shown

import ptree as pt
from ptree import nn

torch = pytest.importorskip("torch")


def halves(x, cos, sin):
    """Hugging Face's Llama: x cos + rotate_half(x) sin, with the angles twice, one after the other."""
    a, b = x.chunk(2, -1)
    return x * torch.cat([cos, cos], -1) + torch.cat([-b, a], -1) * torch.cat([sin, sin], -1)


def pairs(x, cos, sin):
    """Meta's Llama and GPT-J: neighbours are a complex number."""
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous()) * torch.complex(cos, sin)
    return torch.view_as_real(turned).flatten(-2)


@pytest.mark.parametrize(
    "options", grid(pairs=[False, True], fraction=[1.0, 0.5, 0.25], dtype=["float32", "bfloat16", "float16"]), ids=shown
)
def test_pairs_halves_and_a_part_of_the_head(options):
    *_, fraction, dtype = options.values()
    rotary = nn.Rotary(100.0, pairs=options["pairs"], fraction=fraction)
    x = jnp.asarray(data(2, 5, 3, 16), dtype)
    positions = np.array([[0, 1, 2, 3, 4], [7, 9, 400, 2, 2]])
    size = int(16 * fraction)
    there = torch.tensor(np.asarray(x, "float64"))
    angle = torch.tensor(positions)[..., None, None] * 100.0 ** (-torch.arange(0, size, 2).double() / size)
    turned = (pairs if options["pairs"] else halves)(there[..., :size], angle.cos(), angle.sin())
    expected = torch.cat([turned, there[..., size:]], -1)
    y = jax.jit(rotary.rotate)(x, positions)
    assert y.dtype == dtype
    np.testing.assert_allclose(
        y.astype("float32"), expected, atol={"float32": 5e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    )


@pytest.mark.parametrize("options", [{}, {"pairs": True}, {"fraction": 0.5}, {"pairs": True, "fraction": 0.5}])
def test_only_distances_count_and_a_cache_goes_on_where_it_was(options):
    rotary = nn.Rotary(100.0, **options).llama3(4, context=20)
    layer, x = nn.MultiHeadAttention(2, causal=True, rotary=rotary), data(2, 6, 16)
    params = drawn(layer, x)
    call = jax.jit(lambda x, positions: layer(params, x, positions=positions))
    expected = layer(params, x)
    np.testing.assert_allclose(call(x, jnp.arange(6)[None] + 50), expected, atol=1e-4)
    assert not np.allclose(call(x, 2 * jnp.arange(6)[None]), expected, atol=1e-3)
    y, cache = layer(params, x[:, :4], cache=layer.cache(2, 6, 8))
    z, _ = layer(params, x[:, 4:], cache=cache)
    np.testing.assert_allclose(jnp.concatenate([y, z], 1), expected, atol=1e-5)


def test_weights_in_pairs_are_weights_in_halves_in_another_order():
    """How Llama's own files are converted to Hugging Face's: features of queries and keys are put in another order."""
    x = data(2, 5, 16)
    in_pairs, in_halves = (nn.MultiHeadAttention(2, rotary=nn.Rotary(pairs=kind)) for kind in (True, False))
    params = drawn(in_pairs, x)
    order = [*range(0, 8, 2), *range(1, 8, 2)]
    moved = pt.update(params, "{q,k}/*", lambda leaf: leaf[..., order])
    np.testing.assert_allclose(in_halves(moved, x), in_pairs(params, x), atol=1e-5)


# ------------------------------------------------------------------------------------ frequencies


def plain(base, size):
    return [base ** (-2 * pair / size) for pair in range(size // 2)]


def llama3(base, size, factor, context, low, high):
    """By wavelength, as in Meta's `apply_scaling`."""
    scaled = []
    for frequency in plain(base, size):
        wavelength = 2 * math.pi / frequency
        if wavelength < context / high:
            scaled.append(frequency)
        elif wavelength > context / low:
            scaled.append(frequency / factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            scaled.append((1 - smooth) * frequency / factor + smooth * frequency)
    return scaled


def yarn(base, size, factor, context, slow, fast):
    """By dimension, as in the authors' code, which Hugging Face's is of."""
    dimension = lambda turns: size * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))
    first, last = max(math.floor(dimension(fast)), 0), min(math.ceil(dimension(slow)), size - 1)
    last = last + 0.001 if first == last else last
    scaled = []
    for pair, frequency in enumerate(plain(base, size)):
        ramp = min(max((pair - first) / (last - first), 0), 1)
        scaled.append(frequency / factor * ramp + frequency * (1 - ramp))
    return scaled


@pytest.mark.parametrize(
    "options", grid(base=[1e4, 5e5], size=[64, 128], factor=[1, 4, 8.0], context=[2048, 8192]), ids=shown
)
def test_scaled_frequencies(options):
    base, size, factor, context = options.values()
    rotary = nn.Rotary(base)
    linear = [frequency / factor for frequency in plain(base, size)]
    for got, expected in [
        (rotary, plain(base, size)),
        (rotary.linear(factor), linear),
        (rotary.llama3(factor, context=context), llama3(base, size, factor, context, 1, 4)),
        (rotary.llama3(factor, context=context, low=2, high=9), llama3(base, size, factor, context, 2, 9)),
        (rotary.yarn(factor, context=context), yarn(base, size, factor, context, 1, 32)),
        (rotary.yarn(factor, context=context, slow=3, fast=4), yarn(base, size, factor, context, 3, 4)),
        (nn.Rotary(base, scaling=lambda f: f / factor), linear),
    ]:
        np.testing.assert_allclose(got.frequencies(size), expected, rtol=1e-12)
    assert rotary.yarn(factor, context=context).amplitude == pytest.approx(1 + 0.1 * math.log(factor))


def test_frequencies_of_llama_31():
    """Three of 64, worked out by hand: a kept one, one in between, and the last, divided by 8."""
    got = nn.Rotary(500_000).llama3(8, context=8192).frequencies(128)
    middle = 500_000 ** (-31 / 64)
    kept = (8192 * middle / (2 * math.pi) - 1) / 3
    assert 0 < kept < 1
    expected = [1.0, kept * middle + (1 - kept) * middle / 8, 500_000 ** (-63 / 64) / 8]
    np.testing.assert_allclose([got[0], got[31], got[63]], expected, rtol=1e-12)


def test_the_amplitude_is_a_factor_of_what_is_rotated():
    x, positions = data(1, 4, 2, 8), np.arange(4)[None]
    rotary = nn.Rotary(100.0, fraction=0.5)
    y, z = (r.rotate(jnp.asarray(x), positions) for r in (rotary, nn.Rotary(100.0, fraction=0.5, amplitude=1.5)))
    np.testing.assert_allclose(z[..., :4], 1.5 * y[..., :4], rtol=1e-6)
    np.testing.assert_array_equal(z[..., 4:], x[..., 4:])


def test_a_rotary_is_a_constant():
    a, b = (nn.Rotary(1e4, pairs=True).yarn(4, context=2048) for _ in range(2))
    layers = [nn.MultiHeadAttention(2, rotary=rotary) for rotary in (a, b)]
    assert (a, hash(a), layers[0], hash(layers[0])) == (b, hash(b), layers[1], hash(layers[1]))
    assert pickle.loads(pickle.dumps(layers[0])) == layers[0]
    assert nn.Rotary(1e4) != nn.Rotary(1e4, pairs=True) != a
    assert nn.MultiHeadAttention(2, rotary=1e4) != nn.MultiHeadAttention(2, rotary=nn.Rotary(1e4).linear(2))
    assert repr(nn.MultiHeadAttention(2, rotary=nn.Rotary(5e5, pairs=True))) == (
        "MultiHeadAttention(2, rotary=Rotary(base=500000.0, pairs=True))"
    )


X = np.ones((2, 5, 20), "float32")
REFUSED = [
    (lambda: nn.Rotary(1), "Rotary: expected a base above 1, such as 1e4, got 1"),
    (lambda: nn.Rotary(True), "Rotary: expected a base above 1, such as 1e4, got True"),
    (lambda: nn.Rotary("1e4"), "Rotary: expected a base above 1, such as 1e4, got '1e4'"),
    (lambda: nn.Rotary(fraction=0), "Rotary: expected a fraction above 0 and at most 1, got 0"),
    (lambda: nn.Rotary(fraction=64), "Rotary: expected a fraction above 0 and at most 1, got 64"),
    (lambda: nn.Rotary(scaling=4), "Rotary: expected a function of the frequencies as scaling, such as lambda f: f / 4, got 4"),
    (lambda: nn.Rotary().linear(0.5), "Rotary.linear: expected a factor of at least 1, got 0.5"),
    (lambda: nn.Rotary().llama3(8, context=64, low=4), "Rotary.llama3: expected high above low, got low=4 and high=4.0"),
    (lambda: nn.Rotary().yarn(8, context=64, fast=1), "Rotary.yarn: expected fast above slow, got slow=1.0 and fast=1"),
    (lambda: nn.MultiHeadAttention(2, rotary=nn.Rotary(fraction=0.5)).spec(X), "MultiHeadAttention(2, rotary=Rotary(fraction=0.5)):"
     " expected an even number of features in each head for rotary positions, got 5 of 10, the fraction 0.5"),
    (lambda: nn.MultiHeadAttention(2, rotary=nn.Rotary(fraction=0.05)).spec(X), "MultiHeadAttention(2,"
     " rotary=Rotary(fraction=0.05)): expected an even number of features in each head for rotary positions, got 0 of 10,"
     " the fraction 0.05"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "text"), REFUSED)
def test_options_that_do_not_fit_are_refused(call, text):
    says(pt.LayerError, text, call)


def test_a_scaling_of_another_number_of_frequencies_is_refused():
    rotary = nn.Rotary(scaling=lambda f: f[:2])
    text = f"{rotary!r}: expected a scaling that returns 8 frequencies, f[8], got the shape (2,)"
    says(pt.LayerError, text, rotary.frequencies, 16)
