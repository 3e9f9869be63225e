"""flops: the numbers of PyTorch's FlopCounterMode, from the jaxpr alone; what is in loops, branches and wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import nn
from ptree.look import flops

torch = pytest.importorskip("torch")
tnn = torch.nn
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402


def of_torch(model, x, *, backward=False):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        out = model(x)
        if backward:
            out.float().sum().backward()
    return counter.get_total_flops()


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, "float32")


def with_backward(model):
    """The gradient with respect to the parameters alone, as of a first layer whose input needs none."""
    return jax.value_and_grad(lambda params, x: model(params, x).sum())


def test_an_mlp_forward_and_with_backward():
    peer = tnn.Sequential(tnn.Linear(784, 256), tnn.ReLU(), tnn.Linear(256, 128), tnn.ReLU(), tnn.Linear(128, 10))
    model = nn.Sequential(nn.Dense(256), jax.nn.relu, nn.Dense(128), jax.nn.relu, nn.Dense(10))
    params, x = model.spec(f32(64, 784)), f32(64, 784)
    forward = flops(model, params, x)
    assert forward.total == of_torch(peer, torch.zeros(64, 784)) == 2 * 64 * (784 * 256 + 256 * 128 + 128 * 10)
    assert forward.by_leaf == {
        "0/kernel": 2 * 64 * 784 * 256,
        "2/kernel": 2 * 64 * 256 * 128,
        "4/kernel": 2 * 64 * 128 * 10,
    }
    assert flops(with_backward(model), params, x).total == of_torch(peer, torch.zeros(64, 784), backward=True)


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 4])
def test_convolutions(padding, stride, groups):
    peer = tnn.Conv2d(4, 8, 5, stride=stride, padding=padding, groups=groups)
    kernel, x = f32(5, 5, 4 // groups, 8), f32(2, 14, 14, 4)

    def conv(kernel, x):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
        )  # fmt: skip

    assert flops(conv, kernel, x).total == of_torch(peer, torch.zeros(2, 4, 14, 14))
    x_of_torch = torch.zeros(2, 4, 14, 14, requires_grad=True)
    both = jax.value_and_grad(lambda kernel, x: conv(kernel, x).sum(), argnums=(0, 1))
    found = flops(both, kernel, x).total
    assert found == 3 * flops(conv, kernel, x).total
    if groups == 1:  # PyTorch's count of the gradient of a grouped kernel leaves the groups out
        assert found == of_torch(peer, x_of_torch, backward=True)


def test_a_transposed_convolution_counts_its_inputs_and_not_the_zeros_between_them():
    peer = tnn.ConvTranspose2d(6, 5, 3, stride=2)
    transposed = lambda kernel, x: jax.lax.conv_transpose(x, kernel, (2, 2), "VALID")
    assert flops(transposed, f32(3, 3, 6, 5), f32(2, 7, 7, 6)).total == of_torch(peer, torch.zeros(2, 6, 7, 7))


def test_a_cnn():
    peer = tnn.Sequential(
        tnn.Conv2d(1, 16, 5), tnn.ReLU(), tnn.MaxPool2d(2), tnn.Conv2d(16, 32, 5), tnn.ReLU(), tnn.MaxPool2d(2),
        tnn.Flatten(), tnn.Linear(512, 10),
    )  # fmt: skip
    model = nn.Sequential(
        nn.Conv(16, 5, padding="VALID"), jax.nn.relu, nn.MaxPool(2), nn.Conv(32, 5, padding="VALID"), jax.nn.relu,
        nn.MaxPool(2), nn.Flatten(), nn.Dense(10),
    )  # fmt: skip
    params, x = model.spec(f32(8, 28, 28, 1)), f32(8, 28, 28, 1)
    assert flops(model, params, x).total == of_torch(peer, torch.zeros(8, 1, 28, 28))
    assert flops(with_backward(model), params, x).total == of_torch(peer, torch.zeros(8, 1, 28, 28), backward=True)


class Block(tnn.Module):
    """A block of GPT-2."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = tnn.LayerNorm(width), tnn.LayerNorm(width)
        self.qkv, self.out = tnn.Linear(width, 3 * width), tnn.Linear(width, width)
        self.up, self.down = tnn.Linear(width, 4 * width), tnn.Linear(4 * width, width)

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (
            part.reshape(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.ln_1(x)).chunk(3, -1)
        )
        y = tnn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(tnn.functional.gelu(self.up(self.ln_2(x))))


def block(params, x, heads):
    batch, length, _ = x.shape
    h = jax.nn.standardize(x) * params["ln_1"]["scale"]
    q, k, v = jnp.split((h @ params["qkv"]).reshape(batch, length, 3 * heads, -1), 3, axis=2)
    scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k))
    x = x + jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x.shape) @ params["out"]
    return x + jax.nn.gelu(jax.nn.standardize(x) @ params["up"]) @ params["down"]


def gpt_spec(layers, width, vocabulary, stacked):
    inside = {"ln_1": {"scale": f32(width)}, "qkv": f32(width, 3 * width), "out": f32(width, width)}
    inside |= {"up": f32(width, 4 * width), "down": f32(4 * width, width)}
    blocks = pt.Tree({"wte": f32(vocabulary, width), "h": [inside] * layers, "lm_head": f32(vocabulary, width)})
    tied = pt.tie(blocks, {"lm_head": "wte"})
    return pt.stacks.stack(tied, "h") if stacked else tied


def gpt(params, tokens, heads, *, remat=False):
    x = params["wte"][tokens]
    x, _ = pt.stacks.scan(lambda x, layer: (block(layer, x, heads), None), x, params["h"], remat=remat)
    return x @ params["lm_head"].T


@pytest.mark.parametrize("stacked", [False, True])
def test_gpt_2_small_at_64_tokens(stacked):
    with torch.device("meta"):
        blocks = tnn.Sequential(*[Block(768, 12) for _ in range(12)])
        peer = tnn.Sequential(tnn.Embedding(50257, 768), blocks, tnn.Linear(768, 50257, bias=False))
        expected = of_torch(peer, torch.zeros(1, 64, dtype=torch.int64))
        expected_backward = of_torch(peer, torch.zeros(1, 64, dtype=torch.int64), backward=True)
    params, tokens = gpt_spec(12, 768, 50257, stacked), jax.ShapeDtypeStruct((1, 64), "int32")
    found = flops(lambda p, x: gpt(p, x, 12), params, tokens)
    assert found.total == expected == 15_963_095_040
    attention = 12 * 2 * 2 * 12 * 64 * 64 * 64  # of no parameter
    assert sum(found.by_leaf.values()) == found.total - attention
    assert found.by_leaf["wte"] == 2 * 64 * 768 * 50257
    step = jax.value_and_grad(lambda p, x: gpt(p, x, 12).sum())
    assert flops(step, params, tokens).total == expected_backward == 47_889_285_120


W, X = f32(8, 8), f32(4, 8)
ONE = 2 * 4 * 8 * 8


def test_wrappers_count_what_is_in_them():
    product = lambda w, x: x @ w

    @jax.custom_vjp
    def with_rule(w, x):
        return x @ w

    with_rule.defvjp(lambda w, x: (x @ w, None), lambda _, g: (g, g))

    @jax.custom_jvp
    def with_tangent(w, x):
        return x @ w

    with_tangent.defjvp(lambda values, tangents: (values[1] @ values[0], tangents[1] @ values[0]))

    for function in (
        product,
        jax.jit(product),
        jax.jit(jax.jit(product)),
        jax.checkpoint(product),
        with_rule,
        with_tangent,
    ):
        assert flops(function, W, X).total == ONE
        assert flops(function, {"w": W}["w"], X).by_leaf == {"": ONE}


def test_remat_counts_what_is_computed_again():
    loss = lambda function: jax.grad(lambda w, x: jnp.tanh(function(w, jnp.tanh(x @ w))).sum())
    twice = lambda w, x: jnp.tanh(x @ w) @ w
    plain, again = flops(loss(twice), W, X).total, flops(loss(jax.checkpoint(twice)), W, X).total
    assert again - plain in (ONE, 2 * ONE)


def test_a_scan_counts_as_often_as_it_runs_and_a_scan_in_a_scan_too():
    inner = lambda w, x: jax.lax.scan(lambda c, _: (c @ w, None), x, length=5)[0]
    assert flops(inner, W, X).total == 5 * ONE
    outer = lambda w, x: jax.lax.scan(lambda c, _: (inner(w, c), None), x, length=3)[0]
    assert flops(outer, W, X).total == 15 * ONE
    assert flops(lambda w, x: jax.lax.fori_loop(0, 7, lambda _, c: c @ w, x), W, X).total == 7 * ONE


def test_a_branch_counts_as_its_largest():
    branches = [lambda w, x: x, lambda w, x: x @ w @ w, lambda w, x: x @ w]
    assert flops(lambda w, x, i: jax.lax.switch(i, branches, w, x), W, X, jnp.int32(0)).total == 2 * ONE


def test_what_is_not_known_is_named():
    loop = lambda w, x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w, x) @ w
    found = flops(loop, W, X)
    assert (found.total, found.unknown) == (ONE, ("while",))
    assert str(found) == "512 FLOP; not counted: while"
    assert flops(lambda w: jnp.linalg.svd(w)[1] + jnp.linalg.svd(w.T)[1], W).unknown == ("svd (2)",)


def test_shard_map_counts_all_devices():
    mesh = Mesh(np.array(jax.devices()[:4]), "d")
    function = jax.shard_map(lambda w, x: x @ w, mesh=mesh, in_specs=(P(), P("d")), out_specs=P("d"))
    assert flops(function, W, X).total == ONE


def test_a_vmap_and_a_batched_product():
    assert flops(jax.vmap(lambda w, x: x @ w), f32(3, 8, 8), f32(3, 4, 8)).total == 3 * ONE
    assert flops(lambda w, x: jnp.einsum("bij,bjk->bik", w, x), f32(3, 2, 5), f32(3, 5, 7)).total == 3 * 2 * 2 * 5 * 7


def test_a_ragged_product_meets_one_group_for_each_row():
    groups = jnp.array([1, 3])
    assert flops(lambda w, x: jax.lax.ragged_dot(x, w, groups), f32(2, 8, 8), X).total == ONE


def test_other_leaves_than_arrays_are_constants():
    found = flops(lambda p, x: p["act"](x @ p["w"]) * p["scale"], {"act": jnp.tanh, "w": W, "scale": 2.0}, X)
    assert found.by_leaf == {"w": ONE}
    assert flops(lambda: jnp.ones(3)).total == 0
    assert found.to_dict() == {"total": ONE, "by_primitive": {"dot_general": ONE}, "by_leaf": {"w": ONE}, "unknown": []}


def test_arrays_of_64_bits_are_counted_like_those_of_32():
    product = lambda params, x: x @ params["w"]
    assert flops(product, {"w": np.ones((3, 5))}, np.ones((2, 3))).total == 2 * 2 * 3 * 5
    assert flops(product, {"w": np.ones((3, 5))}, jax.ShapeDtypeStruct((2, 3), "float64")).total == 2 * 2 * 3 * 5
