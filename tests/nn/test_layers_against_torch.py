"""Each layer against PyTorch's own over a grid of options: values, and the gradients of parameters and input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import data, drawn, grid, shown

import ptree as pt
from ptree import initializers as I
from ptree import nn

torch = pytest.importorskip("torch")
F = torch.nn.functional


def tensor(x):
    return torch.tensor(np.array(x), requires_grad=True)


def agree(ours, theirs, params, x, to_torch, *, tolerance=1e-5, grads_of=None):
    """The same values, and the same gradients of a loss that weighs every output differently.

    `ours(params, x)`, `theirs(tensors, x)`; `to_torch` is path -> how a leaf, and so its gradient, looks in PyTorch.
    """
    tensors = {path: tensor(to_torch.get(path, np.asarray)(leaf)) for path, leaf in pt.items(params)}
    theirs_x = tensor(x) if np.issubdtype(np.asarray(x).dtype, np.floating) else torch.tensor(x)
    expected = theirs(tensors, theirs_x)
    value = jax.jit(ours)(params, x)
    np.testing.assert_allclose(value, expected.detach().numpy(), atol=tolerance, rtol=1e-4)
    np.testing.assert_allclose(ours(params, x), value, atol=tolerance, rtol=1e-4)
    weights = data(*value.shape, seed=7)

    def loss(params, x):
        return (ours(params, x) * weights).sum()

    (expected * torch.tensor(weights)).sum().backward()
    which = (0, 1) if theirs_x.requires_grad else 0
    grads = jax.jit(jax.grad(loss, which))(params, x)
    grads, *of_x = grads if which != 0 else (grads,)
    for path, grad in pt.items(grads):
        if tensors[path].grad is None:
            assert not np.any(grad), path
            continue
        got, wanted = to_torch.get(path, np.asarray)(grad), tensors[path].grad.numpy()
        scale = max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(got / scale, wanted / scale, atol=tolerance, err_msg=path)
    for grad in of_x:
        np.testing.assert_allclose(grad, theirs_x.grad.numpy(), atol=5 * tolerance, rtol=1e-4)


def turned(kernel):
    return np.asarray(kernel).T


def conv_kernel(kernel):
    """(space..., in / groups, out) as PyTorch's (out, in / groups, space...)."""
    return np.moveaxis(np.asarray(kernel), (-1, -2), (0, 1))


# ----------------------------------------------------------------------------- multiply


@pytest.mark.parametrize("options", grid(use_bias=[True, False], lead=[(3,), (2, 3), ()]), ids=shown)
def test_dense(options):
    layer, x = nn.Dense(5, use_bias=options["use_bias"]), data(*options["lead"], 4)
    agree(layer, lambda t, x: F.linear(x, t["kernel"], t.get("bias")), drawn(layer, x), x, {"kernel": turned})


def test_dense_over_several_axes_is_einsum():
    x = data(2, 3, 4, 5)
    out = nn.Dense((6, 7))
    agree(out, lambda t, x: torch.einsum("abci,iok->abcok", x, t["kernel"]) + t["bias"], drawn(out, x), x, {})
    both = nn.Dense((6, 7), axis=(-2, -1))
    agree(both, lambda t, x: torch.einsum("abij,ijok->abok", x, t["kernel"]) + t["bias"], drawn(both, x), x, {})
    back = nn.Dense(6, axis=(-3, -2, -1))
    agree(back, lambda t, x: torch.einsum("ahij,hijo->ao", x, t["kernel"]) + t["bias"], drawn(back, x), x, {})
    wide = nn.Dense((64, 64), axis=(-2, -1)).spec(jnp.ones((2, 16, 16)))["kernel"]  # fan in is 256
    assert float(pt.init({"w": wide}, jax.random.key(0))["w"].std()) == pytest.approx(1 / 16, rel=0.01)


def test_embedding_and_attend():
    layer, ids = nn.Embedding(9, 4), np.array([[1, 2, 8], [0, 1, 1]])
    agree(layer, lambda t, x: F.embedding(x, t["table"]), drawn(layer, ids), ids, {})
    x = data(2, 3, 4)
    agree(layer.attend, lambda t, x: x @ t["table"].T, drawn(layer, ids), x, {})


# ----------------------------------------------------------------------------- normalise


@pytest.mark.parametrize(
    "options", grid(use_bias=[True, False], epsilon=[1e-5, 0.1], shape=[(4, 6), (2, 3, 6)]), ids=shown
)
def test_layer_norm(options):
    layer, x = nn.LayerNorm(epsilon=options["epsilon"], use_bias=options["use_bias"]), data(*options["shape"])
    agree(
        layer, lambda t, x: F.layer_norm(x, (6,), t["scale"], t.get("bias"), options["epsilon"]), drawn(layer, x), x, {}
    )


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
def test_rms_norm(epsilon):
    layer, x = nn.RMSNorm(epsilon=epsilon), data(2, 3, 6)
    agree(layer, lambda t, x: F.rms_norm(x, (6,), t["scale"], epsilon), drawn(layer, x), x, {})


@pytest.mark.parametrize("options", grid(groups=[1, 2, 6], shape=[(3, 6), (2, 5, 6), (2, 4, 5, 6)]), ids=shown)
def test_group_norm(options):
    layer, x = nn.GroupNorm(options["groups"]), data(*options["shape"])
    theirs = lambda t, x: F.group_norm(x.movedim(-1, 1), options["groups"], t["scale"], t["bias"]).movedim(1, -1)
    agree(layer, theirs, drawn(layer, x), x, {}, tolerance=3e-5)  # a group of one number is rounding alone


@pytest.mark.parametrize(
    "options", grid(train=[True, False], shape=[(7, 6), (2, 5, 6), (2, 4, 5, 6)], momentum=[0.9, 0.3]), ids=shown
)
def test_batch_norm(options):
    layer, x = nn.BatchNorm(momentum=options["momentum"]), data(*options["shape"])
    params = pt.update(drawn(layer, x), "var", lambda v: abs(v) + 0.5)
    train, momentum = options["train"], 1 - options["momentum"]
    mean, var = torch.tensor(np.array(params["mean"])), torch.tensor(np.array(params["var"]))

    def theirs(t, x):
        y = F.batch_norm(x.movedim(-1, 1), mean, var, t["scale"], t["bias"], train, momentum)
        return y.movedim(1, -1)

    def ours(params, x):
        frozen = jax.lax.stop_gradient((params["mean"], params["var"]))
        return layer(pt.set(pt.set(params, "mean", frozen[0]), "var", frozen[1]), x, train=train)

    y, new = layer.updated(params, x)
    agree(ours, theirs, params, x, {})
    if train:
        np.testing.assert_allclose(new["mean"], mean, atol=1e-5)
        np.testing.assert_allclose(new["var"], var, atol=1e-5)
        np.testing.assert_allclose(y, layer(params, x, train=True), rtol=1e-5)
        assert new["scale"] is params["scale"]
        assert [leaf for _, leaf in pt.items(pt.mask(layer.spec(x), lambda path, leaf: leaf.trainable))] == [
            True,
            True,
            False,
            False,
        ]


# ----------------------------------------------------------------------------- space

CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
SPACE = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}


@pytest.mark.parametrize(
    "options",
    grid(rank=[1, 2, 3], stride=[1, 2], padding=[0, 2, "VALID"], dilation=[1, 2], groups=[1, 2, 4]),
    ids=shown,
)
def test_conv(options):
    rank, padding = options["rank"], 0 if options["padding"] == "VALID" else options["padding"]
    rest = {name: options[name] for name in ("stride", "dilation", "groups")}
    layer, x = nn.Conv(8, (3,) * rank, padding=options["padding"], **rest), data(2, *SPACE[rank], 4)
    theirs = lambda t, x: CONVS[rank](x.movedim(-1, 1), t["kernel"], t["bias"], padding=padding, **rest).movedim(1, -1)
    agree(layer, theirs, drawn(layer, x), x, {"kernel": conv_kernel}, tolerance=2e-5)


@pytest.mark.parametrize("options", grid(rank=[1, 2, 3], size=[2, 3, 4], dilation=[1, 2]), ids=shown)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv_with_same_padding(options):
    rank = options["rank"]
    layer, x = nn.Conv(5, options["size"], dilation=options["dilation"], use_bias=False), data(2, *SPACE[rank], 3)
    theirs = lambda t, x: CONVS[rank](
        x.movedim(-1, 1), t["kernel"], padding="same", dilation=options["dilation"]
    ).movedim(1, -1)
    agree(layer, theirs, drawn(layer, x), x, {"kernel": conv_kernel}, tolerance=2e-5)
    assert layer(drawn(layer, x), x).shape == (2, *SPACE[rank], 5)


def test_depthwise_and_uneven_conv():
    x = data(2, 9, 8, 4)
    layer = nn.Conv(8, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2)), groups=4)
    assert drawn(layer, x)["kernel"].shape == (3, 2, 1, 8)
    theirs = lambda t, x: F.conv2d(
        F.pad(x.movedim(-1, 1), (0, 2, 1, 0)), t["kernel"], t["bias"], (2, 1), groups=4
    ).movedim(1, -1)
    agree(layer, theirs, drawn(layer, x), x, {"kernel": conv_kernel})
    one = data(9, 8, 4)  # without a batch, and with two axes of it
    np.testing.assert_allclose(layer(drawn(layer, x), one), layer(drawn(layer, x), one[None])[0], rtol=1e-5)
    many = data(2, 3, 9, 8, 4)
    assert layer(drawn(layer, x), many).shape == (2, 3, 4, 9, 8)


@pytest.mark.parametrize(
    "options", grid(rank=[1, 2, 3], stride=[1, 2, 3], padding=[0, 1], dilation=[1, 2], groups=[1, 2]), ids=shown
)
def test_conv_transpose(options):
    rank, groups = options["rank"], options["groups"]
    rest = {name: options[name] for name in ("stride", "padding", "dilation", "groups")}
    layer, x = nn.ConvTranspose(6, (3,) * rank, **rest), data(2, *SPACE[rank][:rank], 4)

    def kernel(k):  # (space, in / groups, out) as PyTorch's (in, out / groups, space)
        parts = np.split(np.asarray(k), groups, -1)
        return np.concatenate([np.moveaxis(part, (-2, -1), (0, 1)) for part in parts], 0)

    theirs = lambda t, x: TRANSPOSED[rank](x.movedim(-1, 1), t["kernel"], t["bias"], **rest).movedim(1, -1)
    agree(layer, theirs, drawn(layer, x), x, {"kernel": kernel}, tolerance=2e-5)


@pytest.mark.parametrize("options", grid(size=[2, 3, 4], stride=[1, 2, 3]), ids=shown)
def test_conv_transpose_with_same_padding_undoes_the_shape_of_a_conv(options):
    x = data(1, 5, 6, 3)
    layer = nn.ConvTranspose(4, options["size"], stride=options["stride"])
    y = layer(drawn(layer, x), x)
    assert y.shape == (1, 5 * options["stride"], 6 * options["stride"], 4)
    down = nn.Conv(3, options["size"], stride=options["stride"], use_bias=False)
    kernel = data(options["size"], options["size"], 4, 3)
    gradient = jax.vjp(lambda big: down({"kernel": jnp.asarray(kernel)}, big), jnp.zeros(y.shape))[1](jnp.asarray(x))[0]
    up = nn.ConvTranspose(4, options["size"], stride=options["stride"], use_bias=False)
    np.testing.assert_allclose(up({"kernel": jnp.asarray(np.swapaxes(kernel, -1, -2))}, x), gradient, atol=1e-5)


@pytest.mark.parametrize("options", grid(rank=[1, 2, 3], window=[2, 3], stride=[None, 1, 2], padding=[0, 1]), ids=shown)
def test_pools(options):
    rank, window, stride, padding = options.values()
    x = data(2, *SPACE[rank], 3)
    most = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[rank]
    mean = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
    agree(
        nn.MaxPool(window, stride, padding=padding),
        lambda _, x: most(x.movedim(-1, 1), window, stride, padding).movedim(1, -1),
        pt.Tree(),
        x,
        {},
    )
    for counts in (True, False):
        theirs = lambda _, x, counts=counts: mean(
            x.movedim(-1, 1), window, stride, padding, count_include_pad=counts
        ).movedim(1, -1)
        agree(nn.AvgPool(window, stride, padding=padding, count_padding=counts), theirs, pt.Tree(), x, {})


# ----------------------------------------------------------------------------- sequences


@pytest.mark.parametrize("options", grid(kind=["LSTM", "GRU"], given=[False, True], reverse=[False, True]), ids=shown)
def test_recurrent(options):
    x, kind = data(3, 6, 4), options["kind"]
    layer = getattr(nn, kind)(5, reverse=options["reverse"])
    params = drawn(layer, x)
    states = [data(3, 5, seed=at) for at in range(1, layer.states + 1)] if options["given"] else None
    peer = getattr(torch.nn, kind)(4, 5, batch_first=True)
    names = {
        "input/kernel": "weight_ih_l0",
        "hidden/kernel": "weight_hh_l0",
        "input/bias": "bias_ih_l0",
        "hidden/bias": "bias_hh_l0",
    }

    def theirs(t, x):
        state = None if states is None else [torch.tensor(s)[None] for s in states]
        state = state if state is None or kind == "LSTM" else state[0]
        weights = {names[path]: value for path, value in t.items()}
        x = x.flip(1) if options["reverse"] else x
        ys, last = torch.func.functional_call(
            peer, weights, (x, state) if state is None else (x, tuple(state) if kind == "LSTM" else state)
        )
        theirs.last = last
        return ys.flip(1) if options["reverse"] else ys

    agree(
        lambda p, x: layer(p, x, state=states),
        theirs,
        params,
        x,
        {"input/kernel": turned, "hidden/kernel": turned},
        tolerance=2e-5,
    )
    _, last = layer.run(params, x, states)
    for ours, other in zip(last, theirs.last if kind == "LSTM" else [theirs.last], strict=True):
        np.testing.assert_allclose(ours, other[0].detach(), atol=1e-5)
    if not options["reverse"]:
        state = layer.run(params, x[:, :4])[1]
        np.testing.assert_allclose(layer.run(params, x[:, 4:], state)[0], layer.run(params, x)[0][:, 4:], atol=1e-5)


def torch_attention(t, x, context=None, mask=None, causal=False, groups=1):
    context = x if context is None else context
    q, k, v = (
        torch.einsum("bti,ihd->bhtd", at, t[f"{n}/kernel"]) + t[f"{n}/bias"][:, None]
        for n, at in (("q", x), ("k", context), ("v", context))
    )
    k, v = (value.repeat_interleave(groups, 1) for value in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return torch.einsum("bhtd,hdo->bto", y, t["o/kernel"]) + t["o/bias"]


@pytest.mark.parametrize("options", grid(causal=[False, True], kv_heads=[None, 2, 1], head_dim=[None, 6]), ids=shown)
def test_attention(options):
    layer, x = nn.MultiHeadAttention(4, **options), data(2, 5, 8)
    params = drawn(layer, x)
    groups = 4 // (options["kv_heads"] or 4)
    agree(
        layer,
        lambda t, x: torch_attention(t, x, causal=options["causal"], groups=groups),
        params,
        x,
        {},
        tolerance=2e-5,
    )


def test_attention_is_pytorchs_module():
    layer, x = nn.MultiHeadAttention(4), data(2, 5, 8)
    params = drawn(layer, x)
    peer = torch.nn.MultiheadAttention(8, 4, batch_first=True)
    with torch.no_grad():
        joined = [np.asarray(params[f"{n}/kernel"]).reshape(8, 8).T for n in "qkv"]
        peer.in_proj_weight.copy_(torch.tensor(np.concatenate(joined)))
        peer.in_proj_bias.copy_(
            torch.tensor(np.concatenate([np.asarray(params[f"{n}/bias"]).reshape(8) for n in "qkv"]))
        )
        peer.out_proj.weight.copy_(torch.tensor(np.asarray(params["o/kernel"]).reshape(8, 8).T))
        peer.out_proj.bias.copy_(torch.tensor(np.array(params["o/bias"])))
    expected = peer(torch.tensor(x), torch.tensor(x), torch.tensor(x))[0]
    np.testing.assert_allclose(layer(params, x), expected.detach(), atol=1e-5)


def test_attention_with_padding_and_a_context():
    layer, x, context = nn.MultiHeadAttention(2), data(2, 5, 8), data(2, 7, 6, seed=1)
    params = pt.init(layer.spec(x, context), jax.random.key(0), {"**": I.normal(0.3)})
    seen = np.arange(7)[None] < np.array([7, 4])[:, None]
    mask = seen[:, None, None, :]
    ours = lambda p, x: layer(p, x, context=context, mask=mask)
    theirs = lambda t, x: torch_attention(t, x, torch.tensor(context), torch.tensor(mask))
    agree(ours, theirs, params, x, {}, tolerance=2e-5)
    longer = np.concatenate([context, data(2, 3, 6, seed=2)], 1)  # what is masked does not count
    more = np.concatenate([seen, np.zeros((2, 3), bool)], 1)[:, None, None, :]
    np.testing.assert_allclose(layer(params, x, context=longer, mask=more), ours(params, x), atol=1e-5)


def test_rotary_positions_turn_halves_by_their_place():
    layer, x = nn.MultiHeadAttention(2, rotary=10000.0), data(1, 6, 8)
    params = drawn(layer, x)

    def theirs(t, x):
        q, k, v = (torch.einsum("bti,ihd->bthd", x, t[f"{n}/kernel"]) + t[f"{n}/bias"] for n in "qkv")
        angle = torch.arange(6)[:, None, None] * 10000.0 ** (-torch.arange(2) / 2.0)
        turn = torch.polar(torch.ones_like(angle), angle)
        q, k = (torch.view_as_real(torch.complex(z[..., :2], z[..., 2:]) * turn) for z in (q, k))
        q, k = (torch.cat([z[..., 0], z[..., 1]], -1) for z in (q, k))
        y = F.scaled_dot_product_attention(*(z.movedim(1, 2) for z in (q, k, v)))
        return torch.einsum("bhtd,hdo->bto", y, t["o/kernel"]) + t["o/bias"]

    agree(layer, theirs, params, x, {}, tolerance=2e-5)
    moved = layer(params, x, positions=jnp.arange(6)[None] + 100)  # only distances count
    np.testing.assert_allclose(moved, layer(params, x), atol=1e-4)


@pytest.mark.parametrize("options", grid(causal=[True], kv_heads=[None, 1], rotary=[None, 10000.0]), ids=shown)
def test_decoding_with_a_cache_is_attention_to_all(options):
    layer, x = nn.MultiHeadAttention(4, **options), data(2, 9, 8)
    params = drawn(layer, x)
    expected = layer(params, x)
    cache = layer.cache(2, 12, head_dim=2)
    step = jax.jit(lambda cache, x: layer(params, x, cache=cache))
    pieces = []
    for a, b in ((0, 4), (4, 5), (5, 6), (6, 9)):
        y, cache = step(cache, x[:, a:b])
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), expected, atol=1e-5)
    assert int(cache["length"]) == 9
