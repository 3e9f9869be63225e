"""stack, unstack and scan, and what one layer of a stack is."""

from itertools import product

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import load_file
from trees import arange, dense, equal, language_model

import ptree as pt
from ptree import initializers as I


def declared(n=6, **more):
    block = {
        "q": {"kernel": pt.Param((4, 6), init=I.normal(1.0)), "bias": pt.Param((6,), init=I.zeros)},
        "o": {
            "kernel": pt.Param((6, 4), jnp.bfloat16, init=I.uniform(0.5, 1.0)),
            "turn": pt.Param((4, 4), init=I.orthogonal()),
        },
    }
    return pt.Tree({"embed": pt.Param((9, 4), init=I.truncated_normal(0.3)), "blocks": [block] * n, **more})


@pytest.fixture
def apart():
    return pt.init(declared(), jax.random.key(0))


@pytest.fixture
def stacked(apart):
    return pt.stacks.stack(apart, "blocks")


def test_stack_and_unstack_are_inverse_and_keep_the_order(apart, stacked):
    assert pt.paths(stacked) == [
        "embed",
        "blocks/:/q/kernel",
        "blocks/:/q/bias",
        "blocks/:/o/kernel",
        "blocks/:/o/turn",
    ]
    assert stacked["blocks/:/q/kernel"].shape == (6, 4, 6)
    assert equal(pt.stacks.unstack(stacked, "blocks"), apart)
    assert pt.paths(pt.stacks.unstack(stacked, "blocks")) == pt.paths(apart)
    assert equal(pt.stacks.stack(pt.stacks.unstack(stacked, "blocks"), "blocks"), stacked)
    assert stacked["embed"] is apart["embed"]
    assert pt.count(stacked) == pt.count(apart)


def test_a_stacked_spec_draws_bit_for_bit_what_the_layers_draw(apart):
    assert equal(pt.init(pt.stacks.stack(declared(), "blocks"), jax.random.key(0)), pt.stacks.stack(apart, "blocks"))
    rules = {"blocks/*/q/kernel": I.torch_linear, "**/bias": I.torch_linear, "**/turn": I.kaiming_normal()}
    for key in (jax.random.key(3), jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")):
        one = pt.init(declared(), key, {**rules, "**": I.normal(2.0)})
        assert equal(
            pt.init(pt.stacks.stack(declared(), "blocks"), key, {**rules, "**": I.normal(2.0)}),
            pt.stacks.stack(one, "blocks"),
        )
    again = pt.reinit(pt.stacks.stack(apart, "blocks"), jax.random.key(7), {"blocks/*/q": I.normal(1.0)})
    assert equal(again, pt.stacks.stack(pt.reinit(apart, jax.random.key(7), {"blocks/*/q": I.normal(1.0)}), "blocks"))


def test_a_stack_of_stacks_draws_the_same_too():
    group = {"blocks": [{"w": pt.Param((3, 2), init=I.normal(1.0))}] * 2, "scale": pt.Param((3,), init=I.normal(1.0))}
    spec = pt.Tree({"groups": [group] * 3})
    both = pt.stacks.stack(pt.stacks.stack(spec, "groups"), "groups/:/blocks")
    assert both["groups/:/blocks/:/w"].shape == (3, 2, 3, 2)
    params, one = pt.init(both, jax.random.key(0)), pt.init(spec, jax.random.key(0))
    for i in range(3):
        np.testing.assert_array_equal(params[f"groups/{i}/scale"], one[f"groups/{i}/scale"])
        for j in range(2):
            for read in (
                params[f"groups/{i}/blocks/{j}/w"],
                params["groups"][i]["blocks"][j]["w"],
                pt.get(pt.asdict(params), f"groups/{i}/blocks/{j}/w"),
            ):
                np.testing.assert_array_equal(read, one[f"groups/{i}/blocks/{j}/w"])
    assert params["groups/:/blocks/1/w"].shape == (3, 3, 2)
    assert equal(pt.stacks.unstack(pt.stacks.unstack(params, "groups/:/blocks"), "groups"), one)
    assert equal(pt.stacks.unstack(pt.stacks.unstack(params, "groups"), "groups/1/blocks")["groups/1"], one["groups/1"])


def test_keys_and_abstract_and_trainable_know_layers(apart, stacked):
    keys = pt.random.keys(stacked, jax.random.key(5))
    assert keys["blocks/:/q/kernel"].shape == (6,)
    assert keys["blocks/:/q/kernel"][4] == pt.random.keys(apart, jax.random.key(5))["blocks/4/q/kernel"]
    assert keys["embed"] == pt.random.child_key(jax.random.key(5), "embed")
    assert equal(pt.abstract(stacked), pt.stacks.stack(pt.abstract(apart), "blocks"))
    assert equal(
        pt.mask(pt.stacks.stack(declared(), "blocks"), lambda path, leaf: leaf.trainable),
        pt.stacks.stack(pt.mask(declared(), lambda path, leaf: leaf.trainable), "blocks"),
    )


def test_a_number_reads_one_layer_from_anywhere(apart, stacked):
    for at in range(6):
        for path in ("q/kernel", "q/bias", "o/kernel"):
            expected = apart[f"blocks/{at}/{path}"]
            for read in (
                stacked[f"blocks/{at}/{path}"],
                stacked["blocks"][at][path],
                stacked["blocks"][f"{at}/{path}"],
                stacked.get(f"blocks/{at}/{path}"),
                pt.get(stacked, f"blocks/{at}/{path}"),
                pt.get(pt.asdict(stacked), f"blocks/{at}/{path}"),
            ):
                assert read.dtype == expected.dtype
                np.testing.assert_array_equal(read, expected)
        assert equal(stacked["blocks"][at], apart["blocks"][at])
    assert "blocks/5/q" in stacked
    assert "blocks/6/q" not in stacked
    assert stacked.get("blocks/6") is None
    says(pt.PathError, "no path 'blocks/6/q': at 'blocks' is a stack of 6 layers: ':' is all its layers, a number a single one",
         lambda: stacked["blocks/6/q"])  # fmt: skip
    says(pt.PathError, "no path 'blocks/x': at 'blocks' is a stack of 6 layers: ':' is all its layers, a number a single one",
         pt.get, pt.asdict(stacked), "blocks/x")  # fmt: skip
    spec = pt.stacks.stack(declared(), "blocks")
    assert spec["blocks/2/q/kernel"] == declared()["blocks/2/q/kernel"]
    assert pt.abstract(stacked)["blocks/2/q/kernel"].shape == (4, 6)
    assert pt.mask(stacked, "**/bias")["blocks/2/q/bias"] is True


def test_get_and_items_read_the_same_layers_of_labels():
    mixed = pt.Tree({"b": {":": {"w": np.ones((3, 2)), "label": "x"}}})
    for tree in (mixed, pt.asdict(mixed)):
        for stack in (tree, pt.mask(tree, "**"), {"outer": pt.mask(tree, "**/w")}):
            above = "outer/" if "outer" in stack else ""
            for name, layer in product(("w", "label"), (0, 2, 3, 12)):
                path = f"{above}b/{layer}/{name}"
                try:
                    [(found, value)] = pt.items(stack, path)
                except pt.PatternError:
                    with pytest.raises(pt.PathError):
                        pt.get(stack, path)
                    assert layer > 2
                else:
                    assert found == path
                    np.testing.assert_array_equal(pt.get(stack, path), value)
    assert pt.paths(pt.mask(mixed, "**"), "b/{0..2}/w") == ["b/0/w", "b/1/w", "b/2/w"]


def test_what_a_put_replaces_does_not_count_for_the_layers_of_a_stack():
    for kind in (pt.Tree, dict):
        tree = kind({"b": {":": {"w": np.ones((3, 2))}}})
        assert pt.put(tree, "b/:/w", np.ones((5, 2)))["b"][":"]["w"].shape == (5, 2)
        assert pt.put(tree, "b/:", {"v": np.ones(4), "u": np.ones((4, 1))})["b"][":"]["v"].shape == (4,)
        assert pt.put(tree, "b/:/w", {"v": np.ones(4)})["b"][":"]["w"]["v"].shape == (4,)
        two = kind({"b": {":": {"w": np.ones((3, 2)), "v": np.ones(3)}}})
        nested = kind({"b": {":": {"c": {":": {"w": np.ones((3, 2))}}}}})
        assert pt.put(nested, "b/:/c/:/w", np.ones((5, 7)))["b"][":"]["c"][":"]["w"].shape == (5, 7)
        for refused, path, value in (
            (two, "b/:/w", np.ones((5, 2))),
            (two, "b/:/u", np.ones(5)),
            (tree, "b/:", {"v": np.ones(4), "u": np.ones(5)}),
            (tree, "b/:/w", np.float32(1)),
            (kind({"b": {":": {"a": np.ones(3), "c": {":": {"w": np.ones((3, 2))}}}}}), "b/:/c/:/w", np.ones((5, 7))),
        ):
            with pytest.raises(pt.StructureError, match="layers: its axis"):
                pt.put(refused, path, value)


def test_set_and_update_write_one_layer(apart, stacked):
    new = pt.set(stacked, "blocks/2/q/kernel", jnp.ones((4, 6)))
    assert equal(new, pt.stacks.stack(pt.set(apart, "blocks/2/q/kernel", jnp.ones((4, 6))), "blocks"))
    assert new["blocks/:/q/bias"] is stacked["blocks/:/q/bias"]
    assert equal(
        pt.set(stacked, "blocks/0", apart["blocks/5"]),
        pt.stacks.stack(pt.set(apart, "blocks/0", apart["blocks/5"]), "blocks"),
    )
    assert float(pt.set(stacked, "blocks/1/q/kernel", 7.0, at=(2, 3))["blocks/:/q/kernel"][1, 2, 3]) == 7
    assert equal(
        pt.update(stacked, "blocks/3/q/kernel", jnp.sin),
        pt.stacks.stack(pt.update(apart, "blocks/3/q/kernel", jnp.sin), "blocks"),
    )
    assert equal(
        pt.update(stacked, "blocks/*/q/kernel", jnp.sin),
        pt.stacks.stack(pt.update(apart, "blocks/*/q/kernel", jnp.sin), "blocks"),
    )
    plain = jax.tree.map(np.asarray, pt.asdict(stacked))
    before = plain["blocks"][":"]["q"]["bias"].copy()
    assert (pt.set(plain, "blocks/2/q/bias", np.ones(6, "float32"))["blocks"][":"]["q"]["bias"][2] == 1).all()
    np.testing.assert_array_equal(plain["blocks"][":"]["q"]["bias"], before)
    jitted = jax.jit(lambda p, v: pt.set(p, "blocks/2/q/kernel", v))(stacked, jnp.ones((4, 6)))
    assert equal(jitted, new)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: pt.set(t, "blocks/2/q/kernel", jnp.ones((4, 5))), pt.StructureError,
         "cannot set 'blocks/2/q/kernel': expected f32[4,6], got f32[4,5]."
         " One layer of a stack cannot have a shape or dtype of its own: ptree.stacks.unstack it first."),
        (lambda t: pt.set(t, "blocks/2/q", {"kernel": jnp.ones((4, 6)), "b": 1}), pt.StructureError,
         "cannot set 'blocks/2/q':\n  missing: ['blocks/2/q/bias']\n  unexpected: ['blocks/2/q/b']\n"
         "Use ptree.put to replace it by something else."),
        (lambda t: pt.put(t, "blocks/2/q/new", 1), pt.StructureError,
         "cannot put 'blocks/2/q/new': it is in one layer of the stack 'blocks', and all its layers are alike."
         " Use ptree.set for other values, or ptree.stacks.unstack it first"),
        (lambda t: pt.update(t, "blocks/?/*", jnp.sin), pt.PatternError, "the pattern 'blocks/?/*' matches nothing in 5 leaves."),
        (lambda t: pt.update(t, "blocks/1?/*", jnp.sin), pt.PatternError, "the pattern 'blocks/1?/*' matches nothing in 5 leaves."
         " In a stack '*' is all layers, and a whole number or {0..5} single ones"),
        (lambda t: pt.drop(t, "blocks/2/q/bias"), pt.PatternError, "'blocks/2/q/bias' is a single layer of 'blocks/:/q/bias', one"
         " leaf for all layers: write '*' in the place of the number, or ptree.stacks.unstack first"),
        (lambda t: pt.put(t, "blocks/:/q/bias", jnp.ones((5, 6))), pt.StructureError,
         "cannot put 'blocks/:/q/bias': it is f32[5,6], and the stack has 6 layers: its axis 0 must have that size"),
        (lambda t: pt.tie(t, {"blocks/1/q/bias": "blocks/2/q/bias"}), pt.TieError,
         "cannot tie 'blocks/1/q/bias' to 'blocks/2/q/bias': 'blocks/1/q/bias' is one layer of 'blocks/:/q/bias'\n"
         "cannot tie 'blocks/1/q/bias' to 'blocks/2/q/bias': 'blocks/2/q/bias' is one layer of 'blocks/:/q/bias'\n"
         "Tie whole stacks, or ptree.stacks.unstack them first."),
        (lambda t: pt.sharing.gradient_by_use(lambda p: 0.0, t, "blocks/1/q/bias"), pt.PathError,
         "'blocks/1/q/bias' is one layer of the leaf 'blocks/:/q/bias'. Name that, and take its layer"),
        (lambda t: pt.stacks.stack(t, "blocks"), pt.StructureError, "cannot stack 'blocks': it is a stack already"),
        (lambda t: pt.stacks.stack(t, "embed"), pt.StructureError,
         "cannot stack 'embed': its layers would be named '0', '1', ...; it is f32[9,4]"),
        (lambda t: pt.stacks.stack(t, "blocks/:/q"), pt.StructureError,
         "cannot stack 'blocks/:/q': its layers would be named '0', '1', ...; its names are ['bias', 'kernel']"),
        (lambda t: pt.stacks.stack(t, "blocks/2/q"), pt.StructureError,
         "cannot stack 'blocks/2/q': it is in one layer of a stack; name 'blocks/:/q'"),
        (lambda t: pt.stacks.unstack(t, "embed"), pt.StructureError,
         "cannot unstack 'embed': it is no stack, whose one name would be ':'"),
        (lambda t: pt.stacks.unstack(t, "nothing"), pt.PathError,
         "no path 'nothing': at the root there are ['blocks', 'embed']."),
        (lambda t: pt.stacks.unstack(pt.unflatten({**pt.flatten(t), "blocks/:/q/bias": jnp.ones((5, 6))}), "blocks"), pt.StructureError,
         "cannot unstack 'blocks': 6 layers in 'blocks/:/o/turn', 5 layers in 'blocks/:/q/bias'"),
        (lambda t: pt.stacks.unstack(pt.mask(t, "**"), "blocks"), pt.StructureError,
         "cannot unstack 'blocks': its leaves do not say how many layers there are; give size="),
        (lambda t: pt.stacks.scan(lambda x, p: (x, None), 0, {"a": 1}), pt.StructureError,
         "cannot scan: the layers would be a stack, or named '0', '1', ...; there are ['a']"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_with_a_stack_is_said(stacked, call, error, message):
    says(error, message, call, stacked)


def test_layers_that_differ_are_reported_by_path(apart):
    says(pt.StructureError, "cannot stack 'blocks': layer 3 is not like layer 0:\n"
         "  'blocks/3/q/kernel': expected f32[4,6], got f32[3,3]\n  missing: ['blocks/3/q/bias']",
         lambda: pt.stacks.stack(pt.drop(pt.put(apart, "blocks/3/q/kernel", jnp.ones((3, 3))), "blocks/3/q/bias"), "blocks"))  # fmt: skip
    says(pt.StructureError, "cannot stack: in layer 1 'blocks/q/bias' is declared with init=ones, but with init=zeros in layer 0",
         lambda: pt.stacks.stack(pt.put(declared(), "blocks/1/q/bias", pt.Param((6,), init=I.ones)), "blocks"))  # fmt: skip
    labels = pt.label(apart, {"blocks/1/**": "b", "**": "a"})
    with pytest.raises(pt.StructureError, match="in layer 1 'blocks/q/kernel' is 'b', but 'a' in layer 0"):
        pt.stacks.stack(labels, "blocks")
    tied = pt.tie(apart, {"blocks/1/q/bias": "blocks/0/q/bias"})
    says(pt.TieError, "cannot stack 'blocks': 'blocks/1/q/bias' is tied to 'blocks/0/q/bias', and a stack has no tie into a"
         " single layer. Untie it first; one layer that is used n times is nn.Repeat(layer, n, shared=True)",
         pt.stacks.stack, tied, "blocks")  # fmt: skip
    one = pt.tie({"blocks": [dense(2, 2), dense(2, 2)], "x": arange(2)}, {"x": "blocks/0/bias"})
    with pytest.raises(pt.TieError, match="'x' is tied to 'blocks/0/bias'"):
        pt.stacks.stack(one, "blocks")


def test_a_mask_of_a_stack_is_the_stack_of_the_masks(apart, stacked):
    assert equal(pt.mask(stacked, "**/bias"), pt.stacks.stack(pt.mask(apart, "**/bias"), "blocks"))
    assert equal(pt.stacks.unstack(pt.mask(stacked, "**/bias"), "blocks", 6), pt.mask(apart, "**/bias"))
    with pytest.raises(pt.StructureError, match="one value for all"):
        pt.set(pt.mask(stacked, "**/bias"), "blocks/2/q/bias", False)


def body(x, own):
    y = jnp.tanh(x @ own["q"]["kernel"] + own["q"]["bias"]) @ own["o"]["kernel"].astype(jnp.float32)
    return x + y, y.sum()


def loss(params, x):
    x, ys = pt.stacks.scan(body, x, params["blocks"])
    return (x**2).sum() + (ys**2).sum()


def test_scan_over_a_stack_is_the_loop_over_its_layers(apart, stacked):
    x = arange(3, 4) / 10
    value, grads = jax.jit(jax.value_and_grad(loss))(stacked, x)
    one, apart_grads = jax.jit(jax.value_and_grad(loss))(apart, x)
    np.testing.assert_allclose(value, one, rtol=1e-5)
    chex.assert_trees_all_close(grads, pt.stacks.stack(apart_grads, "blocks"), rtol=2e-4, atol=2e-4)
    by_hand = x
    for at in range(6):
        by_hand, _ = body(by_hand, stacked["blocks"][at])
    np.testing.assert_allclose(pt.stacks.scan(body, x, stacked["blocks"])[0], by_hand, rtol=1e-5)
    back = x
    for at in reversed(range(6)):
        back, _ = body(back, stacked["blocks"][at])
    for params in (stacked, apart):
        np.testing.assert_allclose(pt.stacks.scan(body, x, params["blocks"], reverse=True)[0], back, rtol=1e-5)
        for options in (
            {"remat": True},
            {"remat": jax.checkpoint_policies.dots_saveable},
            {"unroll": 2},
            {"unroll": True},
        ):
            again = jax.grad(lambda p, options=options: pt.stacks.scan(body, x, p["blocks"], **options)[0].sum())(
                params
            )
            chex.assert_trees_all_close(
                again, jax.grad(lambda p: pt.stacks.scan(body, x, p["blocks"])[0].sum())(params), rtol=1e-4, atol=1e-5
            )
    scale = jnp.arange(6.0)
    for params in (stacked, apart):
        xs, ys = pt.stacks.scan(lambda x, own, s: (x + s, s * own["q"]["bias"].sum()), 0.0, params["blocks"], scale)
        assert float(xs) == 15
        assert ys.shape == (6,)


def test_a_scan_outside_of_jit_traces_its_function_once(apart, stacked):
    traced = []

    def block(x, own):
        traced.append(x)
        return x + own["q"]["bias"].sum(), None

    for _ in range(3):
        pt.stacks.scan(block, jnp.ones(2), stacked["blocks"])
    assert len(traced) == 1
    unhashable = type("Own", (), {"__hash__": None, "__call__": lambda self, x, own: (x, None)})()
    assert float(pt.stacks.scan(unhashable, jnp.ones(2), stacked["blocks"])[0].sum()) == 2


def test_what_scan_runs_over_is_of_as_many_layers(apart, stacked):
    for params in (apart, stacked):
        scan = lambda xs, params=params: pt.stacks.scan(lambda c, own, x: (c, x), 0.0, params["blocks"], xs)
        says(
            pt.StructureError,
            "cannot scan: expected xs with an axis of 6 layers in front, got f32[5]",
            scan,
            jnp.ones(5),
        )
        says(pt.StructureError, "cannot scan: expected 'b' in xs with an axis of 6 layers in front, got f32[]",
             scan, {"a": jnp.ones((6, 2)), "b": jnp.float32(1)})  # fmt: skip


def test_a_wildcard_about_names_does_not_match_all_layers_of_a_stack():
    """Or a stack would be initialised unlike its layers, of which some have such names."""
    for pattern in (
        "blocks/?/q/bias",
        "blocks/[!1]/q/bias",
        "blocks/?*/q/bias",
        "blocks/{1?,2*}/q/bias",
    ):
        with pytest.raises(pt.PatternError, match="matches nothing"):
            pt.update(pt.stacks.stack(declared(), "blocks"), pattern, lambda leaf: leaf)
    for pattern in (
        "blocks/*/q/bias",
        "blocks/:/q/bias",
        "**/q/bias",
        "blocks/{:,0}/q/bias",
        "blocks/**/q/bias",
        "blocks/{*,:}/q/bias",
    ):
        assert [path for path, _ in pt.items(pt.stacks.stack(declared(), "blocks"), pattern)] == ["blocks/:/q/bias"]


def test_a_stack_is_compiled_once_whatever_its_depth():
    def lines(n):
        spec = pt.abstract(pt.stacks.stack(declared(n), "blocks"))
        return jax.jit(jax.grad(loss)).lower(spec, jax.ShapeDtypeStruct((3, 4), "float32")).as_text().count("\n")

    assert lines(4) == lines(40)


def test_optimisers_vmap_and_files_take_a_stack(stacked, apart, tmp_path):
    optimiser, x = optax.adamw(1e-2), arange(3, 4) / 10
    floats = pt.update(stacked, "**/o/kernel", lambda w: w)
    state = optimiser.init(floats)
    updates, _ = optimiser.update(jax.grad(loss)(floats, x), state, floats)
    assert jax.tree.structure(optax.apply_updates(floats, updates)) == jax.tree.structure(stacked)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), stacked)
    assert jax.vmap(loss, (0, None))(many, x).shape == (2,)

    file = tmp_path / "a.safetensors"
    pt.save(file, stacked)
    assert equal(pt.load(file), stacked)
    assert equal(pt.load(file, like=stacked), stacked)
    assert equal(pt.load(file, like=apart), apart)
    assert load_file(file)["blocks/:/q/kernel"].shape == (6, 4, 6)
    pt.save(file, apart)
    assert equal(pt.load(file, like=pt.stacks.stack(declared(), "blocks")), stacked)
    says(pt.StructureError, f"cannot load {str(file)!r} into `like`:\n"
         "  'blocks/:/o/kernel': expected bf16[5,6,4] in `like`, got bf16[6,6,4] in the file\n"
         "  'blocks/:/o/turn': expected f32[5,4,4] in `like`, got f32[6,4,4] in the file\n"
         "  'blocks/:/q/bias': expected f32[5,6] in `like`, got f32[6,6] in the file\n"
         "  'blocks/:/q/kernel': expected f32[5,4,6] in `like`, got f32[6,4,6] in the file",
         lambda: pt.load(file, like=pt.stacks.stack(declared(5), "blocks")))  # fmt: skip
    pt.save(file, stacked)
    with pytest.raises(pt.StructureError, match="unexpected in the file") as raised:
        pt.load(file, like=declared(5))
    assert raised.value.unexpected == [f"blocks/5/{name}" for name in ("o/kernel", "o/turn", "q/bias", "q/kernel")]


def test_a_sharded_stack_is_drawn_in_place_with_the_same_bits(apart):
    mesh = jax.make_mesh((2, 4), ("layer", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spec = pt.Tree({"blocks": [{"w": pt.Param((8, 4), init=I.normal(1.0))}] * 4})
    whole = pt.init(pt.stacks.stack(spec, "blocks"), jax.random.key(0))
    for where in (P(None, "model"), P("layer", "model"), P("layer"), P()):
        placed = pt.init(pt.stacks.stack(spec, "blocks"), jax.random.key(0), shardings={"blocks/:/w": where}, mesh=mesh)
        assert placed["blocks/:/w"].sharding == NamedSharding(mesh, where)
        np.testing.assert_array_equal(placed["blocks/:/w"], whole["blocks/:/w"])


def test_the_summary_folds_layers(stacked):
    assert str(pt.summary(stacked, "blocks/*/q")).splitlines() == [
        "blocks/:/q/ x6  kernel [4, 6], bias [6]  180  100.0%",
        "----------------------------------------------------",
        "180 parameters, 720 B, 2 leaves; f32",
    ]


def test_a_language_model_of_plain_dicts_stacks_too():
    plain = language_model()
    stacked = pt.stacks.stack(plain, "blocks")
    assert type(stacked) is type(stacked["blocks"]) is dict
    assert equal(pt.stacks.unstack(stacked, "blocks"), plain)
    assert equal(
        pt.stacks.stack([dense(2, 2), dense(2, 2)], ""), {":": jax.tree.map(lambda a: jnp.stack([a, a]), dense(2, 2))}
    )


# --------------------------------------------------------------------- optimisers that look at ranks


def nested_stacks():
    """Random single layers in groups, and the same as a stack of stacks."""

    def normal(*shape):
        return pt.Param(shape, init=I.normal(1.0))

    block = {"w": normal(6, 8), "heads": normal(2, 3, 8), "b": normal(8)}
    spec = pt.Tree({"embed": normal(9, 6), "groups": [{"blocks": [block] * 2, "scale": normal(6)}] * 3})
    return spec, lambda tree: pt.stacks.stack(pt.stacks.stack(tree, "groups"), "groups/:/blocks")


def test_the_rank_of_a_layer_does_not_count_the_axes_of_stacks():
    spec, stacked = nested_stacks()
    ranks = pt.stacks.layer_ranks(stacked(spec))
    assert equal(ranks, stacked(pt.stacks.layer_ranks(spec)))
    assert [rank for _, rank in pt.items(ranks)] == [2, 2, 3, 1, 1]
    assert pt.stacks.layer_ranks({"a": [jnp.ones((2, 3)), 5]}) == {"a": [2, 0]}


@pytest.mark.parametrize("consistent_rms", [None, 0.2])
def test_muon_updates_each_layer_of_a_stack_as_if_it_were_alone(consistent_rms):
    spec, stacked = nested_stacks()
    params, grads = (pt.init(spec, jax.random.key(seed)) for seed in (0, 1))
    for numbers in (pt.stacks.muon_dimension_numbers, pt.stacks.muon_dimension_numbers(stacked(params))):
        muon = optax.contrib.muon(0.1, muon_weight_dimension_numbers=numbers, consistent_rms=consistent_rms)
        together, _ = jax.jit(muon.update)(stacked(grads), muon.init(stacked(params)), stacked(params))
        plain = optax.contrib.muon(0.1, consistent_rms=consistent_rms)  # it takes each leaf of two axes for a matrix
        apart, _ = jax.jit(plain.update)(grads, plain.init(params), params)
        chex.assert_trees_all_close(together, stacked(apart), rtol=2e-5, atol=2e-6)
    unaware = optax.contrib.muon(0.1)  # without the numbers a stack of vectors is taken for a matrix
    wrong, _ = unaware.update(stacked(grads), unaware.init(stacked(params)), stacked(params))
    assert not np.allclose(wrong["groups/:/scale"], stacked(apart)["groups/:/scale"], rtol=1e-2)


def test_ranks_as_labels_keep_a_stack_of_vectors_from_being_factored():
    spec = pt.Tree(
        {"blocks": [{"w": pt.Param((6, 8), init=I.normal(1.0)), "b": pt.Param((8,), init=I.normal(1.0))}] * 5}
    )
    params = pt.init(spec, jax.random.key(0))
    stacked = pt.stacks.stack(params, "blocks")

    def optimiser():
        factored, whole = (optax.scale_by_factored_rms(factored=yes, min_dim_size_to_factor=2) for yes in (True, False))
        return optax.partition({2: factored, 1: whole}, pt.stacks.layer_ranks)

    together, _ = optimiser().update(stacked, optimiser().init(stacked), stacked)
    apart, _ = optimiser().update(params, optimiser().init(params), params)
    chex.assert_trees_all_close(pt.stacks.unstack(together, "blocks"), apart, rtol=1e-5)
    unaware = optax.scale_by_factored_rms(min_dim_size_to_factor=2)
    wrong, _ = unaware.update(stacked, unaware.init(stacked), stacked)
    assert not np.allclose(wrong["blocks/:/b"], together["blocks/:/b"], rtol=1e-2)


def test_reinit_of_single_layers_draws_what_they_draw_apart(stacked, apart):
    key = jax.random.key(9)
    rules = {"blocks/2/q/bias": I.normal(1.0), "blocks/{0,1}/q/bias": I.normal(3.0)}
    new = pt.reinit(stacked, key, rules)
    expected = pt.reinit(apart, key, rules)
    assert equal(pt.stacks.unstack(new, "blocks"), expected)
    assert new["blocks/:/q/kernel"] is stacked["blocks/:/q/kernel"]
    both = pt.reinit(stacked, key, {"blocks/2/q/bias": I.zeros, "blocks/*/q/bias": I.ones})
    assert both["blocks/:/q/bias"][:, 0].tolist() == [1, 1, 0, 1, 1, 1]
    says(pt.PatternError, "the rule 'blocks/2/q/bias' applies to no leaf: ['blocks/*/q/bias'] before it applies to all that it matches",
         pt.reinit, stacked, key, {"blocks/*/q/bias": I.ones, "blocks/2/q/bias": I.zeros})  # fmt: skip
    again = pt.reinit(both, jax.random.key(3), "blocks/2/q/kernel", spec=pt.stacks.stack(declared(), "blocks"))
    changed = (again["blocks/:/q/kernel"] != both["blocks/:/q/kernel"]).any((1, 2))
    assert changed.tolist() == [False, False, True, False, False, False]
    assert equal(again["blocks/2/q/kernel"], pt.init(declared(), jax.random.key(3))["blocks/2/q/kernel"])
