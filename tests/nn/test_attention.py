"""Attention against numbers by hand, PyTorch and Flax: masks, places without anything to see, dropout, narrow floats, caches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from grids import data, drawn, grid, shown

import ptree as pt
from ptree import nn

torch = pytest.importorskip("torch")
linen = pytest.importorskip("flax.linen")
nnx = pytest.importorskip("flax.nnx")
F = torch.nn.functional


def by_hand(layer, params, x, sees, context=None):
    """Attention in float64, place after place; `sees(row, place)` lists the places that this one sees."""
    p = {path: np.asarray(leaf, "float64") for path, leaf in pt.items(params)}
    x = np.asarray(x, "float64")
    context = x if context is None else context
    q, k, v = (
        np.einsum("bti,ihd->bthd", source, p[f"{name}/kernel"]) + p[f"{name}/bias"]
        for name, source in (("q", x), ("k", context), ("v", context))
    )
    if layer.rotary is not None:
        q, k = by_complex_numbers(q, layer.rotary), by_complex_numbers(k, layer.rotary)
    heads, size = q.shape[2:]
    k, v = (np.repeat(z, heads // z.shape[2], 2) for z in (k, v))
    y = np.zeros_like(q)
    for row, place, head in np.ndindex(q.shape[:3]):
        seen = sees(row, place)
        if not len(seen):
            continue
        scores = k[row, seen, head] @ q[row, place, head] / size**0.5
        weights = np.exp(scores - scores.max())
        y[row, place, head] = weights / weights.sum() @ v[row, seen, head]
    return np.einsum("bthd,hdo->bto", y, p["o/kernel"]) + p["o/bias"]


def by_complex_numbers(z, base):
    """Rotary positions 0, 1, ... in halves."""
    half = z.shape[-1] // 2
    angle = np.arange(z.shape[1])[:, None, None] * base ** (-np.arange(half) / half)
    turned = (z[..., :half] + 1j * z[..., half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], -1)


# ------------------------------------------------------------------------------- a cache that is full


CAPACITY = 6
PIECES = [(0, 4), (4, 8), (8, 9), (9, 12)]


def seen_of_a_cache(causal, pieces=PIECES, capacity=CAPACITY):
    """Of what is called in pieces: a place sees what the cache holds after its piece, and if causal no later place."""
    ends = {place: min(end, capacity) for start, end in pieces for place in range(start, end)}
    return lambda row, place: range(min(place + 1, ends[place]) if causal else ends[place])


@pytest.mark.parametrize("options", grid(causal=[False, True], rotary=[None, 100.0], kv_heads=[None, 1]), ids=shown)
def test_places_that_fit_a_cache_are_right_the_rest_is_nan_and_the_cache_keeps_what_it_holds(options):
    layer, x = nn.MultiHeadAttention(2, head_dim=4, **options), data(2, 12, 8)
    params = drawn(layer, x)
    expected = by_hand(layer, params, x, seen_of_a_cache(options["causal"]))
    step = jax.jit(lambda cache, x: layer(params, x, cache=cache))
    cache = layer.cache(2, CAPACITY)
    for start, end in PIECES:
        before = cache
        y, cache = step(cache, x[:, start:end])
        fit = max(0, min(end, CAPACITY) - start)
        np.testing.assert_allclose(y[:, :fit], expected[:, start : start + fit], atol=1e-5)
        assert jnp.isnan(y[:, fit:]).all()
        for name in "kv":
            np.testing.assert_array_equal(cache[name][:, :start], before[name][:, :start])
            assert jnp.isfinite(cache[name]).all()
        assert int(cache["length"]) == min(end, CAPACITY)
    says(
        pt.LayerError,
        f"{layer!r}: expected at most 6 places in all, the length of the cache, got 1 after the 6 it holds",
        lambda: layer(params, x[:, :1], cache=cache),
    )


@pytest.mark.parametrize("options", grid(causal=[False, True], dtype=["bfloat16", "float16", "float32"]), ids=shown)
def test_rows_of_a_cache_may_hold_different_numbers_of_places(options):
    """Row 0 holds 1 place and row 1 holds 5 of 6: the first has room for four more, the second for one."""
    causal, dtype = options.values()
    layer, x = nn.MultiHeadAttention(2, head_dim=4, rotary=100.0, causal=causal, dtype=dtype), data(2, 9, 8)
    params = drawn(layer, x)
    step = jax.jit(lambda cache, x: layer(params, x, cache=cache))
    lengths, time = [1, 5], 4
    _, prompt = step(layer.cache(2, CAPACITY), x[:, :5])
    y, cache = step(prompt | {"length": jnp.array(lengths)}, jnp.stack([x[0, 1:5], x[1, 5:9]]))
    for row, length in enumerate(lengths):
        pieces = [(0, length), (length, length + time)]
        expected = by_hand(layer, params, x[row][None, : length + time], seen_of_a_cache(causal, pieces))
        fit = min(time, CAPACITY - length)
        tolerance = 1e-5 if dtype == "float32" else 0.05
        np.testing.assert_allclose(
            y[row, :fit].astype("float32"), expected[0, length : length + fit], atol=tolerance, rtol=tolerance
        )
        assert jnp.isnan(y[row, fit:]).all()
        np.testing.assert_array_equal(cache["k"][row, :length], prompt["k"][row, :length])
    assert cache["length"].tolist() == [5, 6]
    np.testing.assert_array_equal(cache["k"][0, 5:], prompt["k"][0, 5:])


def test_a_cache_without_a_traced_length_is_an_error_before_anything_is_lost():
    layer, x = nn.MultiHeadAttention(2, causal=True), data(2, 8, 4)
    params = drawn(layer, x)
    _, cache = layer(params, x[:, :4], cache=layer.cache(2, 6, 2))
    for length in (4, np.int64(4), jnp.array([1, 4])):
        says(
            pt.LayerError,
            f"{layer!r}: expected at most 6 places in all, the length of the cache, got 4 after the 4 it holds",
            lambda length=length: layer(params, x[:, 4:], cache=cache | {"length": length}),
        )
    says(
        pt.LayerError,
        f"{layer!r}: expected at most 6 places in all, the length of the cache, got 8 after those it holds",
        lambda: jax.jit(lambda c: layer(params, x, cache=c))(cache),
    )
    closed_over = jax.jit(lambda x: layer(params, x, cache=cache))(x[:, 4:])[0]
    assert jnp.isnan(closed_over).any(2).tolist() == [[False, False, True, True]] * 2


def test_a_cache_is_written_under_vmap_scan_and_remat():
    layer, x = nn.MultiHeadAttention(2, causal=True, rotary=100.0), data(3, 2, 5, 4)
    params = drawn(layer, x[0])
    caches = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), layer.cache(2, 4, 2))
    step = lambda cache, x: layer(params, x, cache=cache)[::-1]
    for run in (step, jax.checkpoint(step)):
        new, y = jax.vmap(run)(caches, x[:, :, :3])
        for one in range(3):
            np.testing.assert_allclose(y[one], layer(params, x[one][:, :3]), atol=1e-5)
        new, y = jax.vmap(run)(new, x[:, :, 3:])
        assert jnp.isnan(y).any((0, 1, 3)).tolist() == [False, True]
        np.testing.assert_allclose(y[:, :, 0], [layer(params, one)[:, 3] for one in x], atol=1e-5)
    places = x[0].swapaxes(0, 1)[:, :, None]
    _, y = jax.lax.scan(step, layer.cache(2, 4, 2), places)
    np.testing.assert_allclose(y[:4, :, 0].swapaxes(0, 1), layer(params, x[0][:, :4]), atol=1e-5)
    assert jnp.isnan(y[4]).all()


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "bfloat16", "float16"])
def test_a_cache_may_be_of_narrower_floats_than_the_layer(dtype):
    layer, x = nn.MultiHeadAttention(2, causal=True), data(2, 5, 8)
    params = drawn(layer, x)
    y, cache = jax.jit(lambda c: layer(params, x, cache=c))(layer.cache(2, 6, 4, dtype))
    assert (y.dtype, cache["k"].dtype) == ("float32", dtype)
    np.testing.assert_allclose(y, layer(params, x), atol=0.2 if "8" in dtype else 0.02)


def test_decoding_is_that_of_flax_place_after_place():
    layer, x = nn.MultiHeadAttention(2, causal=True), data(2, 5, 8)
    params = drawn(layer, x)
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    own = {names[name]: part for name, part in pt.asdict(params).items()}
    module = linen.MultiHeadDotProductAttention(2, decode=True)
    state = module.init(jax.random.key(0), jnp.asarray(x))["cache"]
    other = nnx.MultiHeadAttention(2, 8, decode=True, rngs=nnx.Rngs(0))
    nnx.update(other, {name: {leaf: nnx.Param(value) for leaf, value in part.items()} for name, part in own.items()})
    other.init_cache((2, 5, 8))
    cache = layer.cache(2, 5, 4)
    for at in range(5):
        now = jnp.asarray(x[:, at : at + 1])
        expected, updated = module.apply({"params": own, "cache": state}, now, mutable=["cache"])
        state = updated["cache"]
        y, cache = layer(params, now, cache=cache)
        np.testing.assert_allclose(y, expected, atol=1e-5)
        np.testing.assert_allclose(y, other(now), atol=1e-5)
    np.testing.assert_allclose(cache["k"], state["cached_key"].reshape(cache["k"].shape), atol=1e-5)


# ---------------------------------------------------------------------------------------------- masks


def torch_attention(t, x, visible=None, bias=None):
    """PyTorch's, with everything that hides a place in one mask or one bias."""
    q, k, v = (torch.einsum("bti,ihd->bhtd", x, t[f"{n}/kernel"]) + t[f"{n}/bias"][:, None] for n in "qkv")
    k, v = (z.repeat_interleave(q.shape[1] // z.shape[1], 1) for z in (k, v))
    if bias is not None:
        visible = bias if visible is None else bias.masked_fill(~visible, -torch.inf)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    return torch.einsum("bhtd,hdo->bto", y, t["o/kernel"]) + t["o/bias"]


def agrees_with_torch(ours, params, x, visible, bias=None):
    """Values and gradients."""
    tensors = {path: torch.tensor(np.asarray(leaf), requires_grad=True) for path, leaf in pt.items(params)}
    x_there = torch.tensor(x, requires_grad=True)
    expected = torch_attention(tensors, x_there, visible, bias)

    @jax.jit
    def with_gradients(params, x):
        y, pulled = jax.vjp(ours, params, x)
        return y, *pulled(2 * y)

    y, grads, grad = with_gradients(params, x)
    np.testing.assert_allclose(y, expected.detach(), atol=1e-5)
    expected.square().sum().backward()
    np.testing.assert_allclose(grad, x_there.grad, atol=1e-4)
    for path, leaf in pt.items(grads):
        np.testing.assert_allclose(leaf, tensors[path].grad, atol=1e-4, err_msg=path)


def lower(time, places=None):
    return np.tri(time, places, dtype=bool)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("full", [(2, 4, 5, 5), (2, 1, 1, 5), (1, 4, 5, 1)])
def test_masks_and_biases_are_pytorchs(causal, full):
    """Random masks leave rows that see nothing, causal ones many: zeros, as in PyTorch, in values and gradients."""
    layer, x = nn.MultiHeadAttention(4, kv_heads=2, causal=causal), data(2, 5, 8)
    params = drawn(layer, x)
    random = np.random.default_rng(3)
    mask = random.random(full) < 0.4
    mask[:1, :1, :1] = False
    hidden = np.where(random.random(full) < 0.7, random.normal(size=full), -np.inf).astype("float32")
    order = lower(5) if causal else np.ones((5, 5), bool)
    visible = torch.tensor(np.broadcast_to(mask & order, (2, 4, 5, 5)))
    bias = torch.tensor(np.broadcast_to(hidden, (2, 4, 5, 5)).copy())
    assert not visible.any(-1).all()
    agrees_with_torch(lambda p, x: layer(p, x, mask=mask), params, x, visible)
    agrees_with_torch(lambda p, x: layer(p, x, mask=mask, bias=hidden), params, x, visible, bias)
    agrees_with_torch(lambda p, x: layer(p, x, bias=hidden), params, x, torch.tensor(order).expand(2, 4, 5, 5), bias)


def test_a_mask_of_every_shape_that_broadcasts_is_the_whole_one():
    layer, x = nn.MultiHeadAttention(4, kv_heads=2, causal=True), data(2, 5, 8)
    params = drawn(layer, x)
    call = jax.jit(lambda mask, bias: layer(params, x, mask=mask, bias=bias))
    random = np.random.default_rng(3)
    whole = (2, 4, 5, 5)
    for shape in itertools.product(*[(1, size) for size in whole]):
        mask, bias = random.random(shape) < 0.6, random.normal(size=shape).astype("float32")
        expected = call(np.broadcast_to(mask, whole), np.broadcast_to(bias, whole))
        np.testing.assert_allclose(layer(params, x, mask=mask, bias=bias), expected, atol=1e-5)


@pytest.mark.parametrize("options", grid(causal=[False, True], window=[None, 2], cached=[False, True]), ids=shown)
def test_a_place_that_may_see_nothing_gets_zeros_with_a_cache_or_without(options):
    causal, window, cached = options.values()
    if window and not causal:
        return
    layer, x = nn.MultiHeadAttention(2, causal=causal, window=window, rotary=100.0), data(2, 5, 8)
    params = drawn(layer, x)
    mask = np.ones((2, 1, 5, 5), bool)
    mask[0, :, :, :2] = False  # padding on the left: the first two places, if causal, see nothing
    mask[1, :, 3] = False
    order = lower(5) if causal else np.ones((5, 5), bool)
    if window:
        order = order & (np.arange(5) > np.arange(5)[:, None] - window)
    visible = mask[:, 0] & order
    expected = by_hand(layer, params, x, lambda row, place: np.flatnonzero(visible[row, place]))

    def call(params, x, mask):
        if not cached:
            return layer(params, x, mask=mask)
        return layer(params, x, mask=jnp.pad(mask, [(0, 0)] * 3 + [(0, 2)]), cache=layer.cache(2, 7, 4))[0]

    y = jax.jit(call)(params, x, mask)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(call(params, x, mask), expected, atol=1e-5)
    np.testing.assert_allclose(y[1, 3], params["o/bias"], atol=1e-6)
    grads = jax.jit(jax.grad(lambda p, x: call(p, x, mask).sum(), (0, 1)))(params, x)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("low", [-np.inf, np.finfo("float32").min, -1e9])
def test_no_bias_lets_a_causal_place_see_the_future(low):
    """Also where a whole row has the large negative number that other libraries add to hide a place."""
    layer, x = nn.MultiHeadAttention(2, causal=True), data(1, 5, 8)
    params = drawn(layer, x)
    bias = np.zeros((1, 1, 5, 5), "float32")
    bias[:, :, :, :3] = low
    changed = np.where(np.arange(5)[:, None] < 3, x, x + 5)
    call = jax.jit(lambda x: layer(params, x, bias=bias))
    y, z = call(x), call(changed)
    np.testing.assert_array_equal(y[:, :3], z[:, :3])
    assert jnp.isfinite(y).all()
    grad = jax.jit(jax.grad(lambda bias: layer(params, x, bias=bias).sum()))(bias)
    assert jnp.isfinite(grad).all()


def test_hidden_nan_of_the_bias_is_not_hidden_as_if_it_were_minus_infinity():
    layer, x = nn.MultiHeadAttention(2), data(1, 3, 4)
    bias = np.zeros((1, 1, 1, 3), "float32")
    bias[..., 0] = np.nan
    assert jnp.isnan(layer(drawn(layer, x), x, bias=bias)).all()


MASKS = [
    ("mask", np.ones((2, 4), bool), "; write mask[:, None, None] for (batch, places)"),
    ("mask", np.ones((4, 4), bool), "; write mask[None, None] for (time, places)"),
    ("mask", np.ones((2, 4, 4), bool), "; write mask[:, None] for (batch, time, places)"),
    ("mask", np.ones((1, 4, 4), bool), "; write mask[:, None] for (batch, time, places)"),
    ("mask", np.ones((2, 1, 4), bool), "; write mask[:, None] for (batch, time, places)"),
    ("mask", np.ones((1, 4), bool), "; write mask[:, None, None] for (batch, places)"),
    ("mask", np.ones(4, bool), "; write mask[None, None, None] for (places,)"),
    ("bias", np.zeros((1, 4, 4), "float32"), "; write bias[:, None] for (batch, time, places)"),
    ("bias", np.zeros((3, 4, 4), "float32"), ""),
    ("mask", np.ones((2, 1, 1, 4), "int32"), "; write mask != 0 for one of 0 and 1, bias= for what is added to the scores"),
    ("mask", np.ones((2, 4), "float32"), "; write mask != 0 for one of 0 and 1, bias= for what is added to the scores;"
     " write mask[:, None, None] for (batch, places)"),
    ("mask", np.ones((2, 1, 1, 3), bool), ""), ("mask", np.ones((2, 3, 1, 4), bool), ""),
    ("bias", np.ones((2, 1, 1, 4), bool), "; write mask= for it"), ("bias", np.ones((2, 1, 1, 4), "int32"), ""),
    ("bias", np.zeros((4, 4), "float32"), "; write bias[None, None] for (time, places)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "array", "fix"), MASKS)
def test_a_mask_that_does_not_fit_is_refused_with_what_to_write(name, array, fix):
    layer, x = nn.MultiHeadAttention(2), data(2, 4, 8)
    params = drawn(layer, x)
    kind = "bool" if name == "mask" else "f32"
    short = {"bool": "bool", "int32": "i32", "float32": "f32"}[str(array.dtype)]
    got = f"{short}[{','.join(map(str, array.shape))}]"
    text = f"{layer!r}: expected a {name} that broadcasts to {kind}[2, 2, 4, 4], of four axes, got {got}{fix}"
    says(pt.LayerError, text, lambda: layer(params, x, **{name: array}))


def test_a_mask_or_bias_for_each_head_is_refused_with_what_to_write():
    layer, x = nn.MultiHeadAttention(4), data(2, 3, 8)
    params = drawn(layer, x)
    text = (
        "MultiHeadAttention(4): expected a bias that broadcasts to f32[2, 4, 3, 3], of four axes, got f32[4,3,3]; write"
        " bias[None] for (heads, time, places)"
    )
    says(pt.LayerError, text, lambda: layer(params, x, bias=np.zeros((4, 3, 3), "float32")))


# ---------------------------------------------------------------- what else changes scores and weights


def test_a_window_is_pytorchs_band():
    layer, x = nn.MultiHeadAttention(2, causal=True, window=3), data(2, 7, 8)
    params = drawn(layer, x)
    band = np.tri(7, dtype=bool) & ~np.tri(7, k=-3, dtype=bool)
    agrees_with_torch(layer, params, x, torch.tensor(band))
    cache, pieces = layer.cache(2, 9, 4), []
    for start, end in ((0, 2), (2, 3), (3, 7)):
        y, cache = layer(params, x[:, start:end], cache=cache)
        pieces.append(y)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), layer(params, x), atol=1e-5)


@pytest.mark.parametrize("options", grid(soft_cap=[None, 0.5], scale=[None, 0.7], kv_heads=[None, 1]), ids=shown)
def test_scale_and_soft_cap(options):
    soft_cap, scale, _ = options.values()
    layer, x = nn.MultiHeadAttention(2, causal=True, **options), data(2, 4, 8)
    params = drawn(layer, x)

    def expected(p, x):
        q, k, v = (jnp.einsum("bti,ihd->bthd", x, p[n]["kernel"]) + p[n]["bias"] for n in "qkv")
        k, v = (jnp.repeat(z, 2 // z.shape[2], 2) for z in (k, v))
        scores = jnp.einsum("bthd,bshd->bhts", q, k) * (scale or 0.5)
        scores = scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)
        weights = jax.nn.softmax(scores, where=lower(4))
        return jnp.einsum("bhts,bshd,hdo->bto", weights, v, p["o"]["kernel"]) + p["o"]["bias"]

    with_gradient = lambda f: jax.jit(lambda p, x: (f(p, x), jax.grad(lambda x: f(p, x).sum())(x)))
    for got, wanted in zip(with_gradient(layer)(params, x), with_gradient(expected)(params, x)):
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_qk_norm_is_that_of_flax_and_shares_nothing_between_queries_and_keys():
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False)
    layer, x = nn.MultiHeadAttention(2, qk_norm=norm), data(2, 5, 8)
    params = drawn(layer, x)
    assert [*layer.spec(x)] == ["q", "k", "v", "q_norm", "k_norm", "o"]
    assert not pt.ties(nn.Sequential(norm, nn.MultiHeadAttention(2, qk_norm=norm)).spec(jnp.ones((1, 2, 4))))
    names = {"q": "query", "k": "key", "v": "value", "o": "out", "q_norm": "query_ln", "k_norm": "key_ln"}
    own = {names[name]: part for name, part in pt.asdict(params).items()}
    theirs = linen.MultiHeadDotProductAttention(2, normalize_qk=True)
    np.testing.assert_allclose(layer(params, x), theirs.apply({"params": own}, x), atol=1e-5)
    again = nn.MultiHeadAttention(2, kv_heads=1, qk_norm=nn.RMSNorm(), causal=True, rotary=100.0)
    params = drawn(again, x)
    y, _ = again(params, x, cache=again.cache(2, 5, 4))
    np.testing.assert_allclose(y, again(params, x), atol=1e-5)
    plain = nn.MultiHeadAttention(2, qk_norm=lambda z: z)
    assert [*plain.spec(x)] == ["q", "k", "v", "o"]
    params = drawn(plain, x)
    np.testing.assert_allclose(plain(params, x), nn.MultiHeadAttention(2)(params, x), atol=1e-6)


@pytest.mark.parametrize("sizes", [(6, 5), (8, 3)])
def test_keys_and_values_of_other_sizes_are_those_of_pytorchs_module(sizes):
    k_size, v_size = sizes
    layer, x = nn.MultiHeadAttention(2), data(2, 5, 8)
    context, values = data(2, 7, k_size, seed=1), data(2, 7, v_size, seed=2)
    params = pt.init(layer.spec(x, context, values), jax.random.key(0), {"**": pt.initializers.normal(0.3)})
    peer = torch.nn.MultiheadAttention(8, 2, kdim=k_size, vdim=v_size, batch_first=True)
    flat = lambda name, *shape: torch.tensor(np.asarray(params[name]).reshape(shape).T.copy())
    with torch.no_grad():
        for name, size in (("q", 8), ("k", k_size), ("v", v_size)):
            getattr(peer, f"{name}_proj_weight").copy_(flat(f"{name}/kernel", size, 8))
        peer.in_proj_bias.copy_(torch.cat([flat(f"{name}/bias", 8) for name in "qkv"]))
        peer.out_proj.weight.copy_(flat("o/kernel", 8, 8))
        peer.out_proj.bias.copy_(flat("o/bias", 8))
    padding = np.arange(7)[None] >= np.array([[7], [4]])
    expected = peer(*map(torch.tensor, (x, context, values)), key_padding_mask=torch.tensor(padding))[0]
    y = layer(params, x, context=context, values=values, mask=~padding[:, None, None])
    np.testing.assert_allclose(y, expected.detach(), atol=1e-5)


def test_dropout_of_weights_is_that_of_flax_bit_for_bit():
    layer, x = nn.MultiHeadAttention(2, dropout=0.4, causal=True), data(2, 5, 8)
    params, key = drawn(layer, x), jax.random.key(1)

    def flax(x):
        q, k, v = (jnp.einsum("bti,ihd->bthd", x, params[n]["kernel"]) + params[n]["bias"] for n in "qkv")
        y = linen.dot_product_attention(
            q, k, v, mask=lower(5)[None, None], dropout_rng=key, dropout_rate=0.4, broadcast_dropout=False, deterministic=False
        )  # fmt: skip
        return jnp.einsum("bthd,hdo->bto", y, params["o/kernel"]) + params["o/bias"]

    np.testing.assert_allclose(layer(params, x, key=key, train=True), flax(x), atol=1e-5)
    ours = lambda x: layer(params, x, key=key)
    got, wanted = (jax.jit(jax.grad(lambda x, f=f: f(x).sum()))(x) for f in (ours, flax))
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    np.testing.assert_array_equal(layer(params, x), nn.MultiHeadAttention(2, causal=True)(params, x))
    says(
        pt.LayerError,
        f"{layer!r}: expected a key in training, key=jax.random.fold_in(key, step), got train=True and no key",
        lambda: layer(params, x, train=True),
    )


def test_dropout_of_weights_over_a_context_with_mask_and_bias_is_that_of_flax():
    layer, x, context = nn.MultiHeadAttention(4, dropout=0.3), data(2, 5, 8), data(2, 7, 8, seed=1)
    params, key = drawn(layer, x), jax.random.key(2)
    mask = np.random.default_rng(0).random((2, 1, 5, 7)) < 0.7
    bias = data(1, 4, 5, 7, seed=2)
    q, k, v = (
        jnp.einsum("bti,ihd->bthd", source, params[n]["kernel"]) + params[n]["bias"]
        for n, source in zip("qkv", (x, context, context), strict=True)
    )
    attended = linen.dot_product_attention(
        q, k, v, bias=bias, mask=mask, dropout_rng=key, dropout_rate=0.3, broadcast_dropout=False, deterministic=False
    )  # fmt: skip
    expected = jnp.einsum("bthd,hdo->bto", attended, params["o/kernel"]) + params["o/bias"]
    y = layer(params, x, context=context, mask=mask, bias=bias, key=key, train=True)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_dropout_of_weights_in_containers_has_a_key_of_each_layers_own():
    x = data(2, 4, 8)
    net = nn.Repeat(nn.Residual(nn.MultiHeadAttention(2, dropout=0.5)), 3)
    params = drawn(net, x)
    apart = nn.Repeat(net.layer, 3, scan=False)
    key = jax.random.key(0)
    y = net(params, x, key=key, train=True)
    np.testing.assert_allclose(y, apart(pt.stacks.unstack(params, ""), x, key=key, train=True), atol=1e-5)
    np.testing.assert_allclose(y, net.updated(params, x, key=key)[0], atol=1e-5)
    assert not np.allclose(y, net(params, x, key=jax.random.key(1), train=True), atol=1e-2)
    assert "key" not in nn.MultiHeadAttention(2).call_options()
    says(
        pt.LayerError,
        "at ':/inner', MultiHeadAttention(2, dropout=0.5): expected a key in training, key=jax.random.fold_in(key, step),"
        " got train=True and no key",
        lambda: net(params, x, train=True),
    )


# ------------------------------------------------------------------------------------------- dtypes


DTYPES = [("float16", 0.01), ("bfloat16", 0.08), ("float32", 1e-5)]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("where", ["dtype", "param_dtype", "input"])
def test_narrow_floats_under_jit_and_grad(dtype, tolerance, where):
    options = {"dtype": {"dtype": dtype}, "param_dtype": {"param_dtype": dtype}, "input": {"param_dtype": dtype}}[where]
    layer = nn.MultiHeadAttention(2, kv_heads=1, causal=True, rotary=100.0, **options)
    plain, x = nn.MultiHeadAttention(2, kv_heads=1, causal=True, rotary=100.0), data(2, 5, 8)
    params = drawn(layer, x)
    wide = jax.tree.map(lambda leaf: leaf.astype("float32"), params)
    given = jnp.asarray(x, dtype if where == "input" else "float32")
    loss = lambda layer: lambda p, x: layer(p, x).astype("float32").sum()
    y, grads = jax.jit(layer.__call__)(params, given), jax.jit(jax.grad(loss(layer), (0, 1)))(params, given)
    assert y.dtype == (jnp.float32 if where == "param_dtype" else dtype)
    np.testing.assert_allclose(y.astype("float32"), plain(wide, x), atol=tolerance, rtol=tolerance)
    for got, wanted in zip(*map(jax.tree.leaves, (grads, jax.grad(loss(plain), (0, 1))(wide, x)))):
        got, size = np.asarray(got, "float32"), float(jnp.abs(wanted).max())
        np.testing.assert_allclose(got / max(size, 1), wanted / max(size, 1), atol=2 * tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_scores_that_16_bits_do_not_hold_are_summed_in_float32(dtype):
    layer, x = nn.MultiHeadAttention(1, dtype=dtype), np.full((1, 3, 64), 4.0, "float32")
    eye = np.eye(64, dtype="float32")
    params = {name: {"kernel": (eye * 16).reshape(64, 1, 64), "bias": np.zeros((1, 64))} for name in "qkv"}
    params = pt.Tree({**params, "o": {"kernel": eye.reshape(1, 64, 64), "bias": np.zeros(64)}})
    params = jax.tree.map(jnp.float32, params)
    y = jax.jit(lambda p, x: layer(p, x))(params, x)  # each score is 64 * 64 * 64 = 262,144, above float16's 65,504
    np.testing.assert_array_equal(y.astype("float32"), 64.0)


def test_float64_is_float64(recwarn):
    with jax.enable_x64(True):
        layer, x = (
            nn.MultiHeadAttention(2, causal=True, rotary=100.0, param_dtype="float64"),
            data(2, 5, 8).astype("float64"),
        )
        params = drawn(layer, x)
        expected = by_hand(layer, params, x, lambda row, place: range(place + 1))
        np.testing.assert_allclose(layer(params, x), expected, atol=1e-12)
        y, _ = jax.jit(lambda c: layer(params, x, cache=c))(layer.cache(2, 5, 4))
        np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize("where", ["input", "param_dtype"])
def test_complex_numbers_are_refused(where):
    layer = nn.MultiHeadAttention(2, **({"param_dtype": "complex64"} if where == "param_dtype" else {}))
    x = jnp.ones((1, 3, 4), "complex64" if where == "input" else "float32")
    text = (
        "queries and keys of real numbers, got c64[1,3,2,2]"
        if where == "param_dtype"
        else ("an input of real floats with at least one axis, got c64[1,3,4]")
    )
    text = f"{layer!r}: expected {text}"
    says(pt.LayerError, text, lambda: layer(layer.init(jax.random.key(0), x), x))


def test_options_that_do_not_fit_are_refused():
    layer, x = nn.MultiHeadAttention(2, head_dim=4), jnp.ones((2, 3, 8))
    params, cache = drawn(layer, x), layer.cache(2, 6)
    call = lambda **options: layer(params, x, **options)
    for text, refused in [
        ("MultiHeadAttention(2, window=3): expected causal=True with a window, got causal=False",
         lambda: nn.MultiHeadAttention(2, window=3)),
        ("MultiHeadAttention(2, dropout=1.0): expected dropout to be a finite number of at least 0 and below 1, got 1.0",
         lambda: nn.MultiHeadAttention(2, dropout=1.0)),
        ("MultiHeadAttention(2, soft_cap=0): expected soft_cap to be a finite number above 0, or None, got 0",
         lambda: nn.MultiHeadAttention(2, soft_cap=0)),
        ("MultiHeadAttention(2, dropout=0.1, implementation='cudnn'): expected no dropout= or soft_cap= with cuDNN, got one",
         lambda: nn.MultiHeadAttention(2, dropout=0.1, implementation="cudnn")),
        ("MultiHeadAttention(2, window=0): expected window to be a whole number of at least 1, or None, got 0",
         lambda: nn.MultiHeadAttention(2, causal=True, window=0)),
        ("MultiHeadAttention: expected a layer or a function, got 3", lambda: nn.MultiHeadAttention(2, qk_norm=3)),
        (f"{layer!r}: expected head_dim=4 for the cache, got 8", lambda: layer.cache(2, 6, 8)),
        (f"{layer!r}: expected a dtype of floats for the cache, got int8", lambda: layer.cache(2, 6, dtype="int8")),
        (f"{layer!r}: expected values for 3 places, as there are keys, got f32[2,4,8]", lambda: call(values=jnp.ones((2, 4, 8)))),
        (f"{layer!r}: expected positions i32[2,3] or i32[1,3], got bool[2,3]", lambda: call(positions=jnp.ones((2, 3), bool))),
        (f"{layer!r}: expected what cache(...) or the last call gave, got tuple", lambda: call(cache=(1, 2))),
        (f"{layer!r}: expected a cache with k of the shape (2, places, 2, 4), got f32[3,2,6,2,4]",
         lambda: call(cache=jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), cache))),
        (f"{layer!r}: expected the length of a cache, i32[] or i32[2], got i32[3]", lambda: call(cache=cache | {"length": jnp.ones(3, int)})),
        (f"{layer!r}: expected the length of a cache, i32[] or i32[2], got f32[]", lambda: call(cache=cache | {"length": jnp.ones(())})),
    ]:  # fmt: skip
        says(pt.LayerError, text, refused)


def test_layers_with_caches_overrun_together():
    """Two blocks, scanned: the second gets NaN at the places that do not fit, and is right at those that do."""
    block, x = nn.MultiHeadAttention(2, rotary=100.0, causal=True), data(2, 8, 8)
    net = nn.Repeat(block, 2)
    params = drawn(net, x)
    expected = net(params, x)
    caches = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), block.cache(2, 6, 4))
    step = jax.jit(lambda x, caches: pt.stacks.scan(lambda x, p, cache: block(p, x, cache=cache), x, params, caches))
    y, caches = step(x[:, :4], caches)
    z, caches = step(x[:, 4:], caches)
    np.testing.assert_allclose(jnp.concatenate([y, z[:, :2]], 1), expected[:, :6], atol=1e-5)
    assert jnp.isnan(z[:, 2:]).all()
    assert jnp.isfinite(caches["v"]).all()
    assert caches["length"].tolist() == [6, 6]
