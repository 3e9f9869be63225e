"""lora, view and merged: draws, files, stacks, ties, training beside PyTorch, ensembles of deltas, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import nn, train
from ptree.train import Rank, lora, merged, view

KEY = jax.random.key(0)
BLOCK = nn.Residual(nn.Sequential(nn.LayerNorm(), nn.MultiHeadAttention(4)))
NET = nn.Repeat(BLOCK, 3)
RULES = {"**/{q,v}/kernel": Rank(2, alpha=3)}


def floats(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


X = floats(2, 5, 16)


@pytest.fixture(scope="module")
def params():
    return NET.init(jax.random.key(1), X)


def other_values(delta):
    """The delta with other values for all factors, so that neither is 0."""
    return pt.Tree({path: 0.3 * floats(*leaf.shape, seed=at) for at, (path, leaf) in enumerate(pt.items(delta))})


# ------------------------------------------------------------------------------------- drawing


def test_nothing_changes_at_first_and_only_a_gets_no_gradient(params):
    delta = lora(params, RULES, KEY)
    np.testing.assert_array_equal(NET(view(params, delta), X), NET(params, X))
    grads = jax.grad(lambda delta: (NET(view(params, delta), X) ** 2).sum())(delta)
    assert all(np.any(grad) == path.endswith("/b") for path, grad in pt.items(grads))


def test_factors_of_stacked_and_single_layers_are_the_same_bits(params):
    apart = pt.stacks.unstack(params, "")
    delta, one_by_one = lora(params, RULES, KEY), lora(apart, RULES, KEY)
    assert pt.stacks.unstack(delta, "") == one_by_one
    assert pt.stacks.stack(one_by_one, "") == delta
    changed = other_values(delta)
    np.testing.assert_allclose(
        NET(view(apart, pt.stacks.unstack(changed, "")), X), NET(view(params, changed), X), atol=1e-5
    )


def test_a_draw_depends_on_the_key_and_the_path_alone(params):
    delta = lora(params, RULES, KEY)
    again = lora(params, {"**/q/kernel": Rank(2, alpha=7), "**/o/kernel": Rank(4)}, KEY)
    np.testing.assert_array_equal(delta[":/inner/1/q/kernel/scale=1.5/a"], again[":/inner/1/q/kernel/scale=3.5/a"])
    assert not np.array_equal(delta[":/inner/1/q/kernel/scale=1.5/a"], delta[":/inner/1/v/kernel/scale=1.5/a"])
    other_key = lora(params, RULES, jax.random.key(5))
    assert not np.array_equal(delta[":/inner/1/q/kernel/scale=1.5/a"], other_key[":/inner/1/q/kernel/scale=1.5/a"])


def test_the_spread_of_a_is_one_over_the_inputs_of_one_layer():
    params = pt.Tree({":": {"q": jnp.zeros((2, 400, 4, 8)), "o": jnp.zeros((2, 4, 100, 64))}})
    delta = lora(params, {"**/q": Rank(16, inputs=1), "**/o": Rank(16, inputs=2)}, KEY)
    assert float(delta[":/q/scale=1/a"].std()) == pytest.approx(400**-0.5, rel=0.05)
    assert float(delta[":/o/scale=1/a"].std()) == pytest.approx(400**-0.5, rel=0.05)


def test_an_initialiser_of_ones_own_sees_one_layer(params):
    seen = []

    def draw(key, shape, dtype):
        seen.append(shape)
        return jnp.ones(shape, dtype)

    delta = lora(params, {"**/o/kernel": Rank(2, init=draw)}, KEY)
    assert {*seen} == {(4, 4, 2)}
    assert (delta[":/inner/1/o/kernel/scale=1/a"] == 1).all()


def test_shapes_are_enough_to_plan(params):
    planned = jax.eval_shape(lambda: lora(params, RULES, KEY))
    of_shapes = lora(pt.abstract(params), RULES, KEY)
    pt.check(of_shapes, like=planned)
    assert of_shapes == lora(params, RULES, KEY)


def test_the_first_rule_that_matches_counts(params):
    delta = lora(params, {"**/q/kernel": Rank(1), "**/{q,k}/kernel": Rank(2)}, KEY)
    assert {path: leaf.shape[-1] for path, leaf in pt.items(delta, "**/a")} == {
        ":/inner/1/q/kernel/scale=1/a": 1,
        ":/inner/1/k/kernel/scale=1/a": 2,
    }


def test_scales():
    assert Rank(8).scale == 1
    assert Rank(8, alpha=16).scale == 2
    assert Rank(16, alpha=8, stabilized=True).scale == 2
    params = {"w": jnp.zeros((8, 8))}
    for rank in (Rank(3, alpha=1), Rank(3, alpha=1e-9), Rank(7, alpha=1e9), Rank(5, alpha=3, stabilized=True)):
        assert view(params, lora(params, {"w": rank}, KEY))["w"].scale == rank.scale


# --------------------------------------------------------------------------------------- files


def test_a_delta_is_saved_alone_and_loads_into_either_form(params, tmp_path):
    apart = pt.stacks.unstack(params, "")
    delta = other_values(lora(params, RULES, KEY))
    pt.save(tmp_path / "delta.safetensors", delta)
    assert (tmp_path / "delta.safetensors").stat().st_size < 12_000
    assert pt.load(tmp_path / "delta.safetensors") == delta
    single = pt.load(tmp_path / "delta.safetensors", like=lora(apart, RULES, KEY))
    np.testing.assert_allclose(NET(view(apart, single), X), NET(view(params, delta), X), atol=1e-5)


def test_a_delta_of_another_scale_does_not_load(params, tmp_path):
    pt.save(tmp_path / "delta.safetensors", lora(params, RULES, KEY))
    other = lora(params, {"**/{q,v}/kernel": Rank(2, alpha=6)}, KEY)
    with pytest.raises(pt.StructureError, match=r"missing in the file: \[':/inner/1/q/kernel/scale=3/a'"):
        pt.load(tmp_path / "delta.safetensors", like=other)


def test_any_reader_of_safetensors_gets_the_scale(params, tmp_path):
    from safetensors.numpy import load_file

    pt.save(tmp_path / "delta.safetensors", lora(params, RULES, KEY))
    arrays = load_file(tmp_path / "delta.safetensors")
    assert view(params, pt.Tree(arrays))[":/inner/1/q/kernel"].scale == 1.5


def test_what_was_seen_is_no_checkpoint_that_loads_as_parameters(params, tmp_path):
    pt.save(tmp_path / "seen.safetensors", view(params, lora(params, RULES, KEY)))
    with pytest.raises(pt.LayerError, match=r"at ':/inner/1/q', .*: expected an array as kernel, got Tree"):
        NET(pt.load(tmp_path / "seen.safetensors"), X)


def test_merged_parameters_are_plain_and_predict_the_same(params, tmp_path):
    delta = other_values(lora(params, RULES, KEY))
    whole = merged(params, delta)
    assert jax.tree.structure(whole) == jax.tree.structure(params)
    assert whole[":/inner/1/k/kernel"] is params[":/inner/1/k/kernel"]
    np.testing.assert_allclose(NET(whole, X), NET(view(params, delta), X), atol=1e-4)
    pt.save(tmp_path / "merged.safetensors", whole)
    pt.load(tmp_path / "merged.safetensors", like=params)


# --------------------------------------------------------------------------------------- training


def test_training_is_that_of_pytorch_by_hand():
    torch = pytest.importorskip("torch")
    net, x, y = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(3)), floats(16, 5), floats(16, 3, seed=1)
    params = net.init(KEY, x)
    delta = lora(params, {"**/kernel": Rank(2, alpha=4)}, KEY)
    theirs = {path: torch.tensor(np.array(leaf), requires_grad=True) for path, leaf in pt.items(delta)}
    fixed = {path: torch.tensor(np.array(leaf)) for path, leaf in pt.items(params)}
    optimiser = optax.adamw(1e-2, weight_decay=0.1)
    state = optimiser.init(delta)
    torch_optimiser = torch.optim.AdamW(theirs.values(), lr=1e-2, weight_decay=0.1, eps=1e-8)

    @jax.jit
    def step(delta, state):
        loss = lambda delta: ((net(view(params, delta), x) - y) ** 2).mean()
        value, grads = jax.value_and_grad(loss)(delta)
        updates, state = optimiser.update(grads, state, delta)
        return optax.apply_updates(delta, updates), state, value

    def dense(x, at):
        low = (x @ theirs[f"{at}/kernel/scale=2/a"]) @ theirs[f"{at}/kernel/scale=2/b"]
        return x @ fixed[f"{at}/kernel"] + 2 * low + fixed[f"{at}/bias"]

    for _ in range(8):
        delta, state, value = step(delta, state)
        torch_optimiser.zero_grad()
        loss = ((dense(dense(torch.tensor(x), 0).relu(), 2) - torch.tensor(y)) ** 2).mean()
        loss.backward()
        torch_optimiser.step()
        assert float(value) == pytest.approx(loss.item(), rel=1e-4)
    for path, leaf in pt.items(delta):
        np.testing.assert_allclose(leaf, theirs[path].detach(), atol=1e-4, err_msg=path)


def test_decay_and_every_optimiser_leave_the_scale_alone(params):
    delta = lora(params, RULES, KEY)
    optimiser = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1.0))
    updates, _ = optimiser.update(delta, optimiser.init(delta), delta)
    delta = optax.apply_updates(delta, updates)
    assert view(params, delta)[":/inner/1/q/kernel"].scale == 1.5


def test_stacked_and_single_layers_train_alike_with_remat(params):
    deep, apart = nn.Repeat(BLOCK, 3, remat=True), pt.stacks.unstack(params, "")
    delta = other_values(lora(params, RULES, KEY))
    of_stack = jax.jit(jax.grad(lambda delta: (deep(view(params, delta), X) ** 2).mean()))(delta)
    of_each = jax.jit(jax.grad(lambda delta: (deep(view(apart, delta), X) ** 2).mean()))(pt.stacks.unstack(delta, ""))
    for path, grad in pt.items(pt.stacks.stack(of_each, "")):
        np.testing.assert_allclose(grad, of_stack[path], atol=1e-5)


def test_many_deltas_of_one_model_at_once(params):
    deltas = jax.vmap(lambda key: jax.tree.map(lambda w: w + 0.1, lora(params, RULES, key)))(jax.random.split(KEY, 3))
    many = jax.vmap(lambda delta: NET(view(params, delta), X))(deltas)
    second = jax.tree.map(lambda leaf: leaf[1], deltas)
    np.testing.assert_allclose(many[1], NET(view(params, second), X), atol=1e-5)


def test_a_function_by_hand_over_plain_dicts():
    params = {"table": floats(9, 6), "kernel": floats(6, 4), "bias": floats(4)}
    delta = other_values(lora(params, {"kernel": Rank(2), "table": Rank(3)}, KEY))

    def model(p, ids):
        return p["table"][ids] @ p["kernel"] + p["bias"]

    ids = jnp.array([[3, 1], [8, 0]])
    expected = model(merged(params, delta), ids)
    np.testing.assert_allclose(model(view(params, delta), ids), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(model)(view(params, delta), ids), expected, atol=1e-5)
    np.testing.assert_allclose(
        floats(2, 6) @ view(params, delta)["kernel"], floats(2, 6) @ merged(params, delta)["kernel"], atol=1e-5
    )
    np.testing.assert_allclose(view(params, delta)["kernel"].array(), merged(params, delta)["kernel"])
    with pytest.raises(TypeError, match="LowRank"):
        jnp.einsum("bi,io->bo", floats(2, 6), view(params, delta)["kernel"])


# -------------------------------------------------------------------------------------------- ties


def tied_model(via=pt.transposed):
    tree = pt.Tree({"embed": {"table": floats(9, 6)}, "head": {"kernel": floats(6, 9), "bias": floats(9)}})
    return pt.tie(tree, {"head/kernel": via("embed/table")})


def test_a_tied_kernel_has_one_pair_of_factors_and_reads_through_its_transpose():
    params = tied_model()
    delta = other_values(lora(params, {"embed/table": Rank(2, alpha=3)}, KEY))
    assert pt.paths(delta) == ["embed/table/scale=1.5/a", "embed/table/scale=1.5/b"]
    seen, whole = view(params, delta), merged(params, delta)
    assert pt.ties(seen) == pt.ties(params) == pt.ties(whole)
    assert seen["head/kernel"].shape == (6, 9)
    head, x, ids = nn.Dense(9), floats(3, 6), jnp.array([1, 5])
    np.testing.assert_allclose(head(seen["head"], x), head(whole["head"], x), atol=1e-5)

    def loss(p):
        return (head(p["head"], nn.Embedding(9, 6)(p["embed"], ids)) ** 2).sum()

    grads = jax.grad(lambda delta: loss(view(params, delta)))(delta)
    expected = jax.grad(lambda delta: loss(merged(params, delta)))(delta)
    for path, grad in pt.items(grads):
        np.testing.assert_allclose(grad, expected[path], rtol=1e-3, atol=1e-3)


def test_a_kernel_that_is_used_twice_is_adapted_twice():
    shared = nn.Dense(6)
    net, x = nn.Sequential(shared, jax.nn.relu, shared), floats(3, 6)
    params = net.init(KEY, x)
    delta = other_values(lora(params, {"0/kernel": Rank(2)}, KEY))
    np.testing.assert_allclose(net(view(params, delta), x), net(merged(params, delta), x), atol=1e-5)
    by_alias = lora(params, {"2/kernel": Rank(2)}, KEY)  # a leaf has all its names
    assert by_alias == lora(params, {"0/kernel": Rank(2)}, KEY)


def test_attentions_output_is_its_queries_seen_through_a_permutation():
    params = pt.Tree({"q": {"kernel": floats(8, 2, 4)}, "o": {"kernel": pt.transposed("q/kernel", (1, 2, 0))}})
    delta = other_values(lora(params, {"q/kernel": Rank(3, inputs=1)}, KEY))
    seen, whole = view(params, delta), merged(params, delta)
    to_output, x = nn.Dense(8, axis=(-2, -1), use_bias=False), floats(5, 2, 4)
    assert seen["o/kernel"].inputs == 2
    np.testing.assert_allclose(to_output(seen["o"], x), to_output(whole["o"], x), atol=1e-5)


def test_a_tie_inside_of_a_stack():
    block = pt.tie({"up": floats(6, 4), "down": floats(4, 6)}, {"down": pt.transposed("up")})
    params = pt.stacks.stack(pt.Tree({"b": [block, block]}), "b")
    delta = other_values(lora(params, {"b/*/up": Rank(2)}, KEY))
    seen, whole = view(params, delta), merged(params, delta)
    assert seen["b/:/down"].shape == (2, 4, 6)
    np.testing.assert_allclose(floats(3, 4) @ seen["b/1/down"], floats(3, 4) @ whole["b/1/down"], atol=1e-5)

    def step(x, p):
        return x @ p["up"] @ p["down"], None

    x, _ = pt.stacks.scan(step, floats(3, 6), seen["b"])
    y, _ = pt.stacks.scan(step, floats(3, 6), whole["b"])
    np.testing.assert_allclose(x, y, atol=1e-4, rtol=1e-4)


def test_ties_that_factors_cannot_be_seen_through_are_refused():
    scaled = pt.sharing.register_transform("lora_doubled", lambda w: w * 2, lambda w: w / 2)
    params = pt.Tree({"a": floats(4, 4), "b": scaled("a")})
    with pytest.raises(pt.TieError, match=r"lora: 'b' is lora_doubled\(a\): a LowRank is no array.*ptree.untie it"):
        lora(params, {"a": Rank(2)}, KEY)
    swapped = pt.Tree({"a": floats(3, 4, 5), "b": pt.transposed("a", (0, 2, 1))})
    with pytest.raises(pt.TieError, match="the 2 that are summed over stay side by side"):
        lora(swapped, {"a": Rank(2, inputs=2)}, KEY)
    with pytest.raises(pt.PatternError, match="its value is for the axes of the leaf: name 'embed/table' in the rule"):
        lora(tied_model(), {"**/kernel": Rank(2)}, KEY)


def test_a_delta_for_an_alias_is_refused():
    delta = lora(pt.untie(tied_model()), {"head/kernel": Rank(2)}, KEY)
    with pytest.raises(pt.StructureError, match=r"'head/kernel' is an alias of 'transposed\(embed/table\)'"):
        view(tied_model(), delta)


# --------------------------------------------------------------------------------------- bad input


def said(error, call, *args):
    with pytest.raises(error) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        ({"**/q/kernel": Rank(17)}, pt.StructureError, "':/inner/1/q/kernel', f32[3,16,4,4], has a rank of 16 at most, and the rule says 17"),
        ({"**/0/scale": Rank(1)}, pt.StructureError, "':/inner/0/scale', f32[3,16], is no kernel, which has two axes or more in each layer"),
        ({"**/q/*": Rank(1)}, pt.StructureError, "':/inner/1/q/bias', f32[3,4,4], is no kernel"),
        ({"**/q/kernel": Rank(1, inputs=3)}, pt.StructureError, "has 3 axes in each layer, and inputs=3 leaves none for the output"),
        ({"**/q/kernel": 8}, pt.PatternError, "expected rules selector -> Rank, as in {'**/kernel': Rank(8)}, got 8"),
        ({"**/w/kernel": Rank(8)}, pt.PatternError, "the pattern '**/w/kernel' matches nothing in 10 leaves"),
        ({"1/**/q/kernel": Rank(8)}, pt.PatternError, "is a single layer of ':/inner/1/q/kernel'"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit(params, rules, error, text):
    assert text in said(error, lora, params, rules, KEY)


def test_all_problems_are_told_at_once(params):
    text = said(pt.StructureError, lora, params, {"**/kernel": Rank(17)}, KEY)
    assert text.count("has a rank of 16 at most") == 4


def test_a_kernel_of_three_axes_needs_its_bias_or_a_number():
    params = {"q": {"kernel": floats(8, 2, 4)}, "conv": {"kernel": floats(3, 8, 4), "bias": floats(4)}}
    text = said(pt.StructureError, lora, params, {"**/kernel": Rank(2)}, KEY)
    assert text.startswith(
        "lora: 'q/kernel', f32[8,2,4], may sum over 1 to 2 of the axes (8, 2, 4), and there is no bias"
    )
    assert "write Rank(2, inputs=1)" in text
    assert "conv" not in text
    other_layout = {"weight": floats(5, 3, 4), "bias": floats(5)}  # PyTorch's, of which the bias has the first axis
    assert "may sum over" in said(pt.StructureError, lora, other_layout, {"weight": Rank(2)}, KEY)


def test_a_wrong_number_of_inputs_is_refused_where_it_multiplies(params):
    delta = lora(params, {"**/q/kernel": Rank(2, inputs=2)}, KEY)
    text = said(pt.LayerError, NET, view(params, delta), X)
    assert "at ':/inner/1/q', Dense((4, 4)): expected a kernel f32[16,4,4] with inputs=1" in text
    assert text.endswith("got LowRank(f32[16,4,4], rank=2, scale=1) with inputs=2")


@pytest.mark.parametrize("dtype", ["int8", "int4", "bool", "complex64"])
def test_a_base_that_is_no_float_is_refused(dtype):
    text = said(pt.StructureError, lora, {"kernel": jnp.zeros((4, 4), dtype)}, {"kernel": Rank(1)}, KEY)
    assert "is no kernel of real floats; a quantised one is dequantised first" in text


def test_floats_of_8_bits_and_arrays_of_numpy_in_64():
    params = {"small": jnp.ones((4, 4), "float8_e4m3fn"), "wide": np.ones((4, 4))}
    delta = other_values(lora(params, {"**": Rank(1)}, KEY))
    assert {leaf.dtype for _, leaf in pt.items(lora(params, {"**": Rank(1)}, KEY))} == {np.dtype("float32")}
    assert merged(params, delta)["small"].dtype == "float8_e4m3fn"
    x = floats(2, 4)
    expected = x @ merged(params, delta)["wide"]
    np.testing.assert_allclose(x @ view(params, delta)["wide"], expected, atol=1e-5)
    layer, params = nn.Dense(4, use_bias=False), {"kernel": params["wide"]}
    delta = pt.rename(pt.select(delta, "wide"), {"wide": "kernel"})
    np.testing.assert_allclose(layer(view(params, delta), x), expected, atol=1e-5)


def test_what_is_no_array_is_refused():
    assert "'w' is 3.0, no kernel" in said(pt.StructureError, lora, {"w": 3.0}, {"w": Rank(1)}, KEY)
    assert "swapped arguments" in said(pt.InitError, lora, KEY, {"w": Rank(1)}, {"w": floats(2, 2)})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rank": 0}, "expected a rank of at least 1, got 0"),
        ({"rank": 2.5}, "expected a rank of at least 1, got 2.5"),
        ({"rank": True}, "expected a rank of at least 1, got True"),
        ({"rank": 2, "alpha": 0}, "expected an alpha above 0, got 0"),
        ({"rank": 2, "alpha": math.nan}, "expected an alpha above 0, got nan"),
        ({"rank": 2, "inputs": 0}, "expected inputs, a number of axes of at least 1, got 0"),
        ({"rank": 2, "init": 0.1}, "expected a function (key, shape, dtype) -> array as init, got 0.1"),
    ],
)
def test_numbers_of_a_rank(options, text):
    assert text in said(pt.InitError, lambda: Rank(**options))


def test_a_delta_of_another_model_is_refused_with_all_its_kernels(params):
    delta = lora(params, RULES, KEY)
    wider = NET.init(KEY, floats(1, 2, 32))
    text = said(pt.StructureError, view, wider, delta)
    assert text.startswith(
        "the delta is of other parameters: ':/inner/1/q/kernel' is f32[3,32,4,8], and its factors are a f32[3,16,2]"
    )
    assert "':/inner/1/v/kernel'" in text
    assert "there is no ':/inner/1/q/kernel'" in said(pt.StructureError, merged, {"kernel": floats(2, 2)}, delta)
    fewer_layers = nn.Repeat(BLOCK, 2).init(KEY, X)
    assert "is f32[2,16,4,4], and its factors are a f32[3,16,2]" in said(pt.StructureError, view, fewer_layers, delta)


def test_the_other_form_is_named(params):
    apart = pt.stacks.unstack(params, "")
    text = said(pt.StructureError, view, apart, lora(params, RULES, KEY))
    assert "there is no ':/inner/1/q/kernel', but layers of it: ptree.stacks.unstack the delta" in text
    text = said(pt.StructureError, view, params, lora(apart, RULES, KEY))
    assert "there is no '0/inner/1/q/kernel', but layers of it: ptree.stacks.stack the delta" in text


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({}, "no delta of ptree.train.lora: it has no factors"),
        ({"kernel/a": floats(4, 2), "kernel/b": floats(2, 4)}, "'kernel/a' does not say its scale, as in 'kernel/scale=1/a'"),
        ({"kernel/scale=x/a": floats(4, 2)}, "'kernel/scale=x/a' does not say its scale"),
        ({"kernel/scale=nan/a": floats(4, 2)}, "'kernel/scale=nan/a' does not say its scale"),
        ({"kernel/scale=1/a": floats(4, 2)}, "'kernel' has the factor ['a'] alone"),
        ({"kernel/scale=1/a": floats(4, 2), "kernel/scale=2/b": floats(2, 4)}, "the factors of 'kernel' have the scales 1.0 and 2.0"),
        ({"kernel/scale=1/a": floats(4, 2), "kernel/scale=2/a": floats(4, 2)}, "'kernel' has two factors a, of the scales 1.0 and 2.0"),
        ({"kernel/scale=1/c": floats(4, 2)}, "'kernel/scale=1/c' is no factor, KERNEL/scale=NUMBER/a or b: f32[4,2]"),
        ({"kernel/scale=1/a": floats(4, 2), "kernel/scale=1/b": floats(3, 4)}, "'kernel' is f32[4,4], and its factors are"),
        ({"kernel/scale=1/a": floats(4), "kernel/scale=1/b": floats(4)}, "'kernel' is f32[4,4], and its factors are"),
    ],
)  # fmt: skip
def test_what_is_no_delta(delta, text):
    assert text in said(pt.StructureError, view, {"kernel": floats(4, 4)}, pt.Tree(delta))


def test_a_selection_keeps_the_scale(params):
    delta = lora(params, RULES, KEY)
    part = pt.select(delta, "**/q")
    assert view(params, part)[":/inner/1/q/kernel"].scale == 1.5
    assert isinstance(view(params, part)[":/inner/1/v/kernel"], jax.Array)


def test_an_initialiser_that_fails_is_named_with_the_factor():
    with pytest.raises(pt.InitError, match="'w/a'"):
        lora({"w": floats(4, 4)}, {"w": Rank(2, init=lambda key, shape, dtype: jnp.full(shape, jnp.nan))}, KEY)


@pytest.mark.parametrize("index", [(0, 1), slice(1, 3), None, ...])
def test_a_low_rank_table_takes_numbers_of_rows_alone(index):
    params = pt.Tree({"table": jnp.ones((5, 4))})
    table = view(params, lora(params, {"table": Rank(2)}, jax.random.key(0)))["table"]
    assert table[jnp.array([[0, 1]])].shape == (1, 2, 4)
    with pytest.raises(TypeError, match="takes the numbers of rows"):
        table[index]


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_factors_of_kernels_on_a_mesh_are_on_it_and_train_alone():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    kernels = {"out": {"kernel": jax.random.normal(jax.random.key(0), (8, 4))}}
    x = jax.random.normal(jax.random.key(1), (16, 8))
    losses = []
    for base, batch in ((kernels, x), (jax.device_put(kernels, rows), jax.device_put(x, rows))):
        delta = train.lora(base, {"**/kernel": train.Rank(2)}, jax.random.key(2))
        loss = lambda delta, x, base=base: jnp.square(x @ train.view(base, delta)["out"]["kernel"] - 1).mean()
        step = train.step(loss, optax.adam(0.1))
        state = step.init(delta)
        for _ in range(3):
            state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert all(leaf.sharding == jax.NamedSharding(mesh, jax.P()) for leaf in jax.tree.leaves(state.params))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
