"""Each layer with low-rank kernels, beside PyTorch's own on `W + scale * a @ b`: values, gradients, and which products are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree import nn
from ptree._jaxprs import inner_jaxprs, opened
from ptree.train import Rank, lora, merged, view

torch = pytest.importorskip("torch")
F = torch.nn.functional


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def trained(delta):
    """The delta with other values for all factors, so that neither is 0."""
    return pt.Tree({path: 0.3 * floats(*leaf.shape, seed=at) for at, (path, leaf) in enumerate(pt.items(delta))})


def torch_kernels(params, delta, groups=1):
    """The kernels of PyTorch with `scale * a @ b` added, and its leaves of the factors, by path."""
    factors = {path: torch.tensor(np.asarray(leaf), requires_grad=True) for path, leaf in pt.items(delta)}
    kernels = {path: torch.tensor(np.asarray(leaf)) for path, leaf in pt.items(params)}
    for path, a in factors.items():
        above, _, name = path.rpartition("/")
        if name == "a":
            kernel, _, scale = above.rpartition("/scale=")
            change = torch.tensordot(a, factors[f"{above}/b"], 1)
            kernels[kernel] = kernels[kernel] + float(scale) * change
    return kernels, factors


def conv(x, w, stride=1, padding=0, groups=1):
    """A convolution of PyTorch with features last."""
    rank = x.ndim - 2
    x, w = x.movedim(-1, 1), w.movedim((-1, -2), (0, 1))
    return (F.conv1d, F.conv2d)[rank - 1](x, w, stride=stride, padding=padding, groups=groups).movedim(1, -1)


def attention(p, x):
    q, k, v = (torch.einsum("btd,dhk->bhtk", x, p[f"{name}/kernel"]) + p[f"{name}/bias"][:, None] for name in "qkv")
    y = F.scaled_dot_product_attention(q, k, v)
    return torch.einsum("bhtk,hkd->btd", y, p["o/kernel"]) + p["o/bias"]


def recurrent(module):
    def run(p, x):
        names = {"input": "ih", "hidden": "hh"}
        weights = {f"weight_{short}_l0": p[f"{name}/kernel"].T for name, short in names.items()}
        weights |= {f"bias_{short}_l0": p[f"{name}/bias"] for name, short in names.items()}
        layer = module(x.shape[-1], 6, batch_first=True)
        return torch.func.functional_call(layer, weights, x)[0]

    return run


def transposed_conv(p, x):
    x, w = x.movedim(-1, 1), p["kernel"].movedim((-1, -2), (1, 0))  # (in, out, window), as there is one group
    return F.conv_transpose1d(x, w, stride=2).movedim(1, -1) + p["bias"]


CASES = {
    "Dense": (nn.Dense(7), floats(3, 5), {"kernel": Rank(2, alpha=3)}, lambda p, x: x @ p["kernel"] + p["bias"]),
    "Dense, several axes out": (
        nn.Dense((3, 4)), floats(2, 3, 5), {"kernel": Rank(2, alpha=3)},
        lambda p, x: torch.einsum("btd,dhk->bthk", x, p["kernel"]) + p["bias"],
    ),
    "Dense, several axes in": (
        nn.Dense(6, axis=(-2, -1)), floats(2, 3, 4), {"kernel": Rank(3)},
        lambda p, x: torch.einsum("bhk,hkd->bd", x, p["kernel"]) + p["bias"],
    ),
    "Dense, several axes in and out, no bias": (
        nn.Dense((3, 2), axis=(-2, -1), use_bias=False), floats(2, 3, 4), {"kernel": Rank(3, inputs=2)},
        lambda p, x: torch.einsum("bhk,hkde->bde", x, p["kernel"]),
    ),
    "attention": (nn.MultiHeadAttention(4), floats(2, 5, 12), {"**/kernel": Rank(2, alpha=1)}, attention),
    "Conv": (
        nn.Conv(6, (3, 2), stride=2, padding="VALID"), floats(2, 7, 8, 4), {"kernel": Rank(3, alpha=4)},
        lambda p, x: conv(x, p["kernel"], stride=2) + p["bias"],
    ),
    "Conv in groups": (
        nn.Conv(6, 3, padding=1, groups=2), floats(2, 7, 4), {"kernel": Rank(2, alpha=4)},
        lambda p, x: conv(x, p["kernel"], padding=1, groups=2) + p["bias"],
    ),
    "Conv by depth": (
        nn.Conv(4, 3, padding=1, groups=4, use_bias=False), floats(2, 7, 4), {"kernel": Rank(2, inputs=2)},
        lambda p, x: conv(x, p["kernel"], padding=1, groups=4),
    ),
    "ConvTranspose": (nn.ConvTranspose(6, 3, stride=2, padding="VALID"), floats(2, 7, 4), {"kernel": Rank(3)}, transposed_conv),
    "LSTM": (nn.LSTM(6), floats(2, 5, 4), {"**/kernel": Rank(3, alpha=1)}, recurrent(torch.nn.LSTM)),
    "GRU": (nn.GRU(6), floats(2, 5, 4), {"**/kernel": Rank(3, alpha=1)}, recurrent(torch.nn.GRU)),
    "RNN": (nn.RNN(6), floats(2, 5, 4), {"**/kernel": Rank(3, alpha=1)}, recurrent(torch.nn.RNN)),
    "Embedding": (
        nn.Embedding(9, 6), np.array([[1, 8, 0]], "int32"), {"table": Rank(3, alpha=1)}, lambda p, x: p["table"][x.long()],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_low_rank_kernel_is_pytorchs_sum(name):
    layer, x, rules, theirs = CASES[name]
    params = pt.Tree({path: floats(*leaf.shape, seed=99) for path, leaf in pt.items(layer.spec(x))})
    delta = trained(lora(params, rules, jax.random.key(0)))
    kernels, factors = torch_kernels(params, delta)
    expected = theirs(kernels, torch.tensor(x))
    weights = floats(*expected.shape, seed=3)
    (expected * torch.tensor(weights)).sum().backward()

    def loss(delta):
        y = layer(view(params, delta), x)
        return (y * weights).sum(), y

    grads, y = jax.jit(jax.grad(loss, has_aux=True))(delta)
    np.testing.assert_allclose(y, expected.detach(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(layer(merged(params, delta), x), y, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(layer(view(params, delta), x), y, atol=1e-4, rtol=1e-4)
    for path, grad in pt.items(grads):
        np.testing.assert_allclose(grad, factors[path].grad, atol=1e-3, rtol=1e-3, err_msg=path)


def equations(jaxpr):
    """All equations of a jaxpr, those of inner functions and loops too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in inner_jaxprs(equation):
            yield from equations(opened(inner))


def shapes_made(function, *args):
    """The shapes of all that is computed, apart from reshapes and casts."""
    found = set()
    for equation in equations(jax.make_jaxpr(function)(*args).jaxpr):
        inner = list(inner_jaxprs(equation))
        if equation.primitive.name not in ("reshape", "convert_element_type", "transpose") and not inner:
            found |= {var.aval.shape for var in equation.outvars}
    return found


@pytest.mark.parametrize(
    "name", [name for name in CASES if name not in ("ConvTranspose", "Conv by depth")]
)  # flips a kernel; as large
def test_neither_the_product_nor_its_gradient_is_as_large_as_the_kernel(name):
    layer, _, rules, _ = CASES[name]
    x = {"attention": floats(2, 5, 12), "Embedding": np.array([1, 2], "int32")}.get(name, CASES[name][1])
    params = jax.tree.map(jnp.zeros_like, layer.init(jax.random.key(0), x))
    delta = lora(params, rules, jax.random.key(0))
    kernels = {leaf.shape for path, leaf in pt.items(params) if f"{path}/" in " ".join(pt.paths(delta)) + "/"}
    assert kernels

    def loss(delta, x):
        return (layer(view(params, delta), x) ** 2).sum()

    def of_sum(delta, x):
        return (layer(merged(params, delta), x) ** 2).sum()

    assert not kernels & shapes_made(jax.grad(loss), delta, x)
    assert kernels & shapes_made(jax.grad(of_sum), delta, x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_of_16_bits_has_factors_of_32_and_computes_in_16(dtype):
    layer, x = nn.Dense(8), jnp.asarray(floats(2, 4), dtype)
    params = jax.tree.map(lambda w: w.astype(dtype), layer.init(jax.random.key(0), x))
    delta = trained(lora(params, {"kernel": Rank(2)}, jax.random.key(0)))
    y = layer(view(params, delta), x)
    by_hand = x @ view(params, delta)["kernel"] + params["bias"]
    assert y.dtype == by_hand.dtype == dtype
    assert np.array_equal(by_hand, y)
    assert {leaf.dtype for _, leaf in pt.items(delta)} == {np.dtype("float32")}
    assert merged(params, delta)["kernel"].dtype == dtype
    np.testing.assert_allclose(
        y.astype("float32"), layer(merged(params, delta), x).astype("float32"), rtol=0.1, atol=0.05
    )


def test_the_output_of_a_language_model_reads_a_low_rank_table_backwards():
    layer, x = nn.Embedding(9, 6), floats(2, 6)
    params = layer.init(jax.random.key(0), jnp.zeros(2, int))
    delta = trained(lora(params, {"table": Rank(3, alpha=6)}, jax.random.key(0)))
    np.testing.assert_allclose(layer.attend(view(params, delta), x), x @ merged(params, delta)["table"].T, atol=1e-5)
    assert np.isnan(layer(view(params, delta), jnp.array([9, -1]))).all()


def test_lengths_reverse_and_both_directions_of_a_recurrent_layer():
    layer, x, lengths = nn.Bidirectional(nn.LSTM(5)), floats(2, 6, 4), jnp.array([6, 2])
    params = layer.init(jax.random.key(0), x)
    delta = trained(lora(params, {"**/kernel": Rank(2)}, jax.random.key(0)))
    expected = layer(merged(params, delta), x, lengths=lengths)
    np.testing.assert_allclose(layer(view(params, delta), x, lengths=lengths), expected, atol=1e-5)


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT", "CAUSAL", "SAME"])
def test_paddings_of_convolutions(padding):
    layer, x = nn.Conv(6, 3, padding=padding, dilation=2), floats(2, 9, 4)
    params = layer.init(jax.random.key(0), x)
    delta = trained(lora(params, {"kernel": Rank(2)}, jax.random.key(0)))
    np.testing.assert_allclose(layer(view(params, delta), x), layer(merged(params, delta), x), atol=1e-5)


def test_attention_with_a_cache_and_grouped_heads():
    layer, x = nn.MultiHeadAttention(4, kv_heads=2, causal=True, rotary=1e4), floats(2, 6, 16)
    params = layer.init(jax.random.key(0), x)
    delta = trained(lora(params, {"**/kernel": Rank(2)}, jax.random.key(0)))
    low = view(params, delta)
    _, cache = layer(low, x[:, :4], cache=layer.cache(2, 6, head_dim=4))
    y, _ = layer(low, x[:, 4:], cache=cache)
    np.testing.assert_allclose(y, layer(merged(params, delta), x)[:, 4:], atol=1e-5)


def test_norms_and_biases_refuse_a_low_rank_parameter():
    layer, x = nn.LayerNorm(axis=(-2, -1)), floats(2, 4, 4)
    params = layer.init(jax.random.key(0), x)
    delta = lora(params, {"scale": Rank(2)}, jax.random.key(0))
    with pytest.raises(pt.LayerError, match=r"expected an array as scale, got LowRank\(f32\[4,4\], rank=2, scale=1\)"):
        layer(view(params, delta), x)


def test_a_table_with_a_row_for_padding_refuses_factors():
    layer, ids = nn.Embedding(9, 6, padding_idx=0), jnp.array([0, 1])
    params = layer.init(jax.random.key(0), ids)
    with pytest.raises(pt.LayerError, match="expected an array as the table, whose row for padding stays, got LowRank"):
        layer(view(params, lora(params, {"table": Rank(2)}, jax.random.key(0))), ids)
