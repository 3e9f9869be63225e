"""Drawing: keys by path, declared and chosen initialisers, one program per kind, shardings, stacks, what is refused."""

import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from trees import TREES, equal, mlp

import ptree as pt
from ptree import initializers as I
from ptree._draw.keys import path_keys
from ptree._draw.threefry import fused

KEY = jax.random.key(0)
BLOCK = {"qkv": {"kernel": pt.Param((16, 48), init=I.normal(0.02)), "bias": pt.Param((48,), init=I.zeros)},
         "up": {"kernel": pt.Param((16, 64), "bfloat16", init=I.xavier_uniform()), "scale": pt.Param((16,), init=I.uniform(-1, 1))}}  # fmt: skip
SPEC = pt.tie(
    {
        "wte": pt.Param((64, 16), init=I.rescaled_truncated_normal(0.02)),
        "blocks": [BLOCK] * 3,
        "head": pt.Param((16, 64)),
    },
    {"head": pt.transposed("wte"), "blocks/2/qkv": "blocks/0/qkv"},
)


# -------------------------------------------------------------------------------- keys


def test_a_million_paths_have_a_million_keys():
    words = ["".join(letters) for count in (1, 2, 3) for letters in itertools.product("ab01_", repeat=count)]
    several = (itertools.product(words, repeat=count) for count in (1, 2, 3))  # "ab/a" beside "a/ba"
    paths = [*map("/".join, itertools.islice(itertools.chain.from_iterable(several), 1_000_000))]
    assert len({*paths}) == 1_000_000
    rows, _ = path_keys(KEY, paths)
    assert len(np.unique(rows.view(np.uint64))) == len(paths)


def test_keys_are_the_same_inside_of_jit():
    names = ["a", "b/c/d", "blocks/11/attn/q/kernel", "β"]
    inside = jax.jit(lambda key: path_keys(key, names)[0])(KEY)
    np.testing.assert_array_equal(path_keys(KEY, names)[0], inside)
    assert path_keys(KEY, [""])[0].tolist() == [jax.random.key_data(KEY).tolist()]


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_raw_keys_of_any_implementation_draw_what_typed_ones_draw(impl):
    key = jax.random.key(5, impl=impl)
    with jax.default_prng_impl(impl):
        chex.assert_trees_all_equal(pt.init(SPEC, jax.random.key_data(key)), pt.init(SPEC, key))
    raw = pt.random.child_key(jax.random.key_data(key), "a/b")
    assert raw.dtype == jnp.uint32
    if impl != "unsafe_rbg":  # a raw key of 4 words is one of rbg unless JAX is told otherwise
        chex.assert_trees_all_equal(pt.init(SPEC, jax.random.key_data(key)), pt.init(SPEC, key))
        assert (raw == jax.random.key_data(pt.random.child_key(key, "a/b"))).all()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_key_depends_on_its_path_alone_with_any_implementation(impl):
    key = jax.random.key(3, impl=impl)
    spec = pt.Tree({f"l{i}": {"w": pt.Param((3,), init=I.normal(1.0))} for i in range(5)})
    whole, alone = pt.init(spec, key), pt.init(pt.select(spec, "l3"), key)
    assert (whole["l3/w"] == alone["l3/w"]).all()
    assert pt.random.keys(spec, key)["l2/w"] == pt.random.child_key(pt.random.child_key(key, "l2"), "w")


def test_no_leaf_key_is_used_twice():
    with jax.debug_key_reuse(True):
        params = pt.init(SPEC, KEY)
        pt.init(SPEC, KEY)  # the same root key twice is what reproducible means
        pt.init(
            {
                "m": pt.Param((8, 8), init=I.mixture((0.5, I.normal(1.0)), (0.5, I.uniform()))),
                "s": pt.Param((8, 8), init=I.sparse(0.5)),
            },
            KEY,
        )
    assert (pt.init(SPEC, KEY)["wte"] == params["wte"]).all()


def test_adding_removing_reordering_and_tying_change_no_other_leaf():
    whole = dict(pt.items(pt.init(SPEC, KEY)))
    for path in whole:
        for name, leaf in pt.items(pt.init(pt.drop(SPEC, lambda p, _, path=path: p == path), KEY)):
            if name in whole and not name.startswith("blocks/2/qkv"):  # those take over from a source
                assert (leaf == whole[name]).all()
    backwards = pt.Tree(dict(reversed(list(pt.asdict(pt.untie(SPEC)).items()))))
    drawn = pt.init(backwards, KEY, {"head": I.zeros}, strict=False)
    assert all((drawn[path] == leaf).all() for path, leaf in whole.items())


def test_a_spec_can_be_drawn_piece_by_piece():
    whole = pt.init(SPEC, KEY)
    for piece in ("wte", "blocks/0", "blocks/1/up"):
        part = pt.init(pt.select(SPEC, piece), KEY)
        assert all((whole[path] == leaf).all() for path, leaf in pt.items(part))
    assert equal(pt.init(SPEC["blocks/1"], pt.random.child_key(KEY, "blocks/1")), whole["blocks/1"])


# ------------------------------------------------------------------------------ programs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_draws_in_one_pass_have_jaxs_own_bits(dtype):
    for make in (
        I.normal(1.0),
        I.uniform(-1, 1),
        I.lecun_normal(),
        I.truncated_normal(1.0),
        I.mixture((0.5, I.zeros), (0.5, I.normal(1.0))),
    ):
        for shape in ((8193, 513), (3, 5, 7), (2, 2)):
            ours = pt.init({"w": pt.Param(shape, dtype, make)}, KEY)["w"]
            assert (ours == jax.jit(make, static_argnums=(1, 2))(pt.random.child_key(KEY, "w"), shape, dtype)).all()
    for width in ("uint8", "uint16", "uint32"):
        key = jax.random.wrap_key_data(jax.random.key_data(KEY), impl=fused("threefry2x32"))
        assert (jax.random.bits(key, (999, 33), width) == jax.random.bits(KEY, (999, 33), width)).all()
    assert fused("rbg") == "rbg"


def test_compilations_grow_with_kinds_not_with_leaves():
    compiled = []

    def listen(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    spec = {f"l{i}": pt.Param((3 + i % 10, 7), init=I.normal(0.0123)) for i in range(300)}
    path_keys(KEY, list(spec))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        pt.init(spec, KEY)
        assert len(compiled) == 10
        pt.init(spec, jax.random.key(1))
        assert len(compiled) == 10
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_model_of_70_billion_parameters_is_declared_and_counted_without_memory():
    d, hidden, heads = 8192, 28672, 64
    block = {
        "attn": {"q": pt.Param((d, heads, 128)), "k": pt.Param((d, 8, 128)), "v": pt.Param((d, 8, 128)), "o": pt.Param((heads, 128, d))},
        "mlp": {"gate": pt.Param((d, hidden)), "up": pt.Param((d, hidden)), "down": pt.Param((hidden, d))},
        "norm": [pt.Param((d,)), pt.Param((d,))],
    }  # fmt: skip
    spec = pt.Tree(
        {"embed": pt.Param((128256, d)), "blocks": [block] * 80, "norm": pt.Param((d,)), "head": pt.Param((d, 128256))}
    )
    assert pt.count(spec) == pt.count(pt.abstract(spec)) == 70_553_706_496
    assert "70,553,706,496" in str(pt.summary(spec))


# -------------------------------------------------------------------------------- reinit


def test_reinit_by_the_spec_draws_what_was_declared():
    params = pt.init(SPEC, KEY, {"wte": I.ones}, strict=False)
    other = pt.update(params, "**", jnp.zeros_like)
    again = pt.reinit(other, KEY, ["blocks/0", "blocks/1/up/**"], spec=SPEC)
    assert again["wte"] is other["wte"]
    assert (again["blocks/0/qkv/kernel"] == params["blocks/0/qkv/kernel"]).all()
    assert again["blocks/2/qkv/kernel"] is again["blocks/0/qkv/kernel"]
    assert pt.ties(again) == pt.ties(params)
    says(pt.PatternError, "reinit takes rules, selector -> initialiser; to draw the leaves of a selector as they were"
         " declared, give spec=", pt.reinit, params, KEY, "wte")  # fmt: skip
    says(pt.PathError, "the spec has no ['x']", pt.reinit, {"x": jnp.ones(2)}, KEY, "x", spec=SPEC)
    says(pt.StructureError, "cannot draw by the spec: 'wte': expected f32[64,16] in the spec, got f32[3] in the tree.",
         pt.reinit, {"wte": jnp.ones(3)}, KEY, "wte", spec=SPEC)  # fmt: skip
    says(pt.InitError, "the spec declares no initialiser for ['a']",
         pt.reinit, {"a": jnp.ones(2)}, KEY, "a", spec={"a": pt.Param((2,))})  # fmt: skip


@pytest.mark.parametrize("name", [name for name in TREES if name not in ("PRNG keys", "empty", "numpy")])
def test_reinit_over_the_corpus_keeps_structure_shapes_and_dtypes(name):
    tree = TREES[name]
    new = pt.reinit(tree, KEY, {"**": I.ones})
    assert jax.tree.structure(new) == jax.tree.structure(tree)
    for old, leaf in zip(jax.tree.leaves(tree), jax.tree.leaves(new), strict=True):
        if hasattr(old, "shape") and old.dtype.itemsize < 8:
            assert (leaf.shape, leaf.dtype) == (old.shape, old.dtype)
    paths = pt.paths(tree)[::2]
    part = pt.reinit(tree, KEY, {lambda path, leaf: path in paths: I.ones})
    assert all(pt.get(part, path) is leaf for path, leaf in pt.items(tree) if path not in paths)


# ------------------------------------------------------------------------------ shardings


def mesh_of(*sizes):
    return jax.make_mesh(sizes, ("data", "model")[: len(sizes)])


RULES = {"wte": P("model", None), "**/qkv/kernel": P(None, "model"), "**": P()}


@pytest.mark.parametrize("sizes", [(1, 8), (8, 1), (2, 4), (4, 2)])
def test_sharded_values_are_those_of_one_device(sizes):
    mesh = mesh_of(*sizes)
    whole = pt.init(SPEC, KEY)
    for shardings in (
        RULES, NamedSharding(mesh, P()), pt.label(SPEC, RULES), {p: NamedSharding(mesh, s) for p, s in RULES.items()}, P(),
    ):  # fmt: skip
        params = pt.init(SPEC, KEY, shardings=shardings, mesh=mesh)
        chex.assert_trees_all_equal(params, whole)
        assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(params))
        assert pt.ties(params) == pt.ties(whole)
    sharded = pt.init(SPEC, KEY, shardings=RULES, mesh=mesh)
    assert sharded["wte"].sharding == NamedSharding(mesh, P("model"))
    with jax.set_mesh(mesh):
        chex.assert_trees_all_equal(pt.init(SPEC, KEY, shardings=RULES), whole)
        chex.assert_trees_all_equal(pt.init(SPEC, KEY), whole)
        chex.assert_trees_all_equal(pt.reinit(whole, KEY, "**/kernel", spec=SPEC), whole)
        assert pt.init(SPEC, KEY, shardings=RULES)["wte"].sharding.spec == P("model")
        inside = jax.jit(lambda k: pt.init(SPEC, k, shardings=RULES))(KEY)
    for path, leaf in pt.items(inside):  # XLA folds factors into each other there: the last bit may differ
        np.testing.assert_allclose(leaf, whole[path], rtol=1e-6 if leaf.dtype == jnp.float32 else 4e-3)
    assert inside["wte"].sharding.spec == P("model", None)
    again = pt.reinit(sharded, KEY, {"wte": I.normal(1.0)})
    assert again["wte"].sharding == sharded["wte"].sharding


def test_no_device_makes_more_than_its_shard():
    mesh = mesh_of(8)
    for init in (I.normal(0.02), I.xavier_uniform(), I.rescaled_truncated_normal(0.02)):
        draw = jax.jit(
            lambda k, init=init: init(k, (4096, 1024), jnp.float32), out_shardings=NamedSharding(mesh, P("data"))
        )
        program = draw.lower(KEY).compile()
        assert program.memory_analysis().output_size_in_bytes <= 4096 * 1024 * 4 // 8
        assert "[4096,1024]" not in program.as_text()
        assert "[4194304]" not in program.as_text()
    spec = {"w": pt.Param((4096, 1024), init=I.normal(0.02))}
    params = pt.init(spec, KEY, shardings=P("data"), mesh=mesh)
    assert {shard.data.shape for shard in params["w"].addressable_shards} == {(512, 1024)}
    chex.assert_trees_all_equal(params, pt.init(spec, KEY))


def test_a_draw_again_stays_on_its_device():
    device = jax.devices()[3]
    old = jax.device_put(mlp(), device)
    new = pt.reinit(old, KEY, {"**/kernel": I.normal(1.0)})
    assert new["2"]["kernel"].sharding == SingleDeviceSharding(device)


def test_shardings_that_do_not_fit_are_all_listed():
    mesh = mesh_of(8)
    spec = {"a": pt.Param((9,), init=I.zeros), "b": pt.Param((8,), init=I.zeros), "c": pt.Param((8,), init=I.zeros)}
    with pytest.raises(pt.InitError) as error:
        pt.init(spec, KEY, shardings={"a": P("data"), "b": P("tensor"), "c": P(None, "data")}, mesh=mesh)
    text = str(error.value)
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("cannot place")] == [
        f"cannot place 'a', f32[9], as {P('data')}", f"cannot place 'b', f32[8], as {P('tensor')}",
        f"cannot place 'c', f32[8], as {P(None, 'data')}",
    ]  # fmt: skip
    says(pt.PatternError, "no sharding for ['b', 'c']: add a rule for '**'",
         pt.init, spec, KEY, shardings={"a": P()}, mesh=mesh)  # fmt: skip
    says(pt.PatternError, "no sharding for ['a', 'b']\nno leaf of its own for the sharding at ['z']",
         pt.init, spec, KEY, shardings=pt.Tree({"c": P(), "z": P()}), mesh=mesh)  # fmt: skip
    says(
        pt.InitError,
        "'**' is no Sharding and no PartitionSpec, but ('x',): write P(\"x\"), a jax.sharding.PartitionSpec",
        pt.init,
        spec,
        KEY,
        shardings={"**": ("x",)},
        mesh=mesh,
    )
    says(pt.InitError, "shardings are a Sharding, a PartitionSpec, a tree of them or rules; got 'x': write P(\"x\"), a jax.sharding.PartitionSpec",
         pt.init, spec, KEY, shardings="x", mesh=mesh)  # fmt: skip
    says(pt.InitError, "mesh= is the mesh of PartitionSpecs: give shardings= too", pt.init, spec, KEY, mesh=mesh)
    for wrong in ("m", 3):
        with pytest.raises(pt.InitError, match=r"mesh= takes a jax\.sharding\.Mesh, got"):
            pt.init(spec, KEY, shardings=P(), mesh=wrong)
    with pytest.raises(
        pt.InitError, match=r"cannot place 'a', f32\[9\], as .*: its 2 entries are for 2 axes, and the leaf has 1"
    ):
        pt.init(spec, KEY, shardings=P(None, "data"), mesh=mesh)
    with pytest.raises(pt.InitError, match="cannot place 'w'"):
        pt.init({"w": pt.Param((8, 8), init=I.zeros)}, KEY, shardings=P("data", "data"), mesh=mesh)
    with pytest.raises(pt.InitError, match=r"a PartitionSpec needs a mesh: give mesh=, or call it under jax\.set_mesh"):
        pt.init(spec, KEY, shardings=P())


# ------------------------------------------------------- rules for stacks and for single layers


NESTED = pt.Tree({
    "groups": [{"blocks": [{"w": pt.Param((16, 8)), "b": pt.Param((8,))}] * 2, "scale": pt.Param((16,))}] * 4,
    "head": {"w": pt.Param((16, 8)), "b": pt.Param((8,))},
})  # fmt: skip


def in_three_forms():
    """Single layers, a stack of groups, and a stack of stacks, with how each is taken apart again."""
    groups = pt.stacks.stack(NESTED, "groups")
    return {
        "apart": (NESTED, lambda tree: tree),
        "stacked": (groups, lambda tree: pt.stacks.unstack(tree, "groups")),
        "stack of stacks": (
            pt.stacks.stack(groups, "groups/:/blocks"),
            lambda tree: pt.stacks.unstack(pt.stacks.unstack(tree, "groups/:/blocks"), "groups"),
        ),
    }


@pytest.mark.parametrize(
    "init",
    [
        I.torch_linear, I.keras_dense, I.mxnet_default, I.lecun_normal(in_axis=0, out_axis=1), I.orthogonal(batch_axis=()),
        I.Scheme(I.kaiming_normal(mode="fan_out"), bias=lambda site: I.constant(site.kernel[0])),
    ],
    ids=repr,
)  # fmt: skip
def test_an_initialiser_sees_one_layer_of_a_stack_and_the_kernel_of_that_layer(init):
    bias = init if isinstance(init, I.Scheme) else I.normal(1.0)
    rules = {"**/w": init, "**/b": bias, "**/scale": I.uniform(-1, 1)}
    apart = pt.init(NESTED, KEY, rules)
    for spec, take_apart in in_three_forms().values():
        assert equal(take_apart(pt.init(spec, KEY, rules)), apart)
        again = pt.reinit(pt.init(spec, jax.random.key(5), rules), KEY, rules)
        assert equal(take_apart(again), apart)


def shard_shape_of_a_layer(leaf, stacks):
    """The shape of a shard without the axes of stacks, none of which may be split."""
    shard = leaf.sharding.shard_shape(leaf.shape)
    assert shard[:stacks] == leaf.shape[:stacks]
    return shard[stacks:]


@pytest.mark.parametrize("sizes", [(1, 8), (8, 1), (2, 4), (4, 2)])
@pytest.mark.parametrize("form", ["apart", "stacked", "stack of stacks"])
def test_a_partition_spec_cuts_a_stack_as_it_cuts_the_layers(form, sizes):
    mesh = mesh_of(*sizes)
    spec, _ = in_three_forms()[form]
    draws = {"**": I.normal(1.0)}
    whole = pt.init(spec, KEY, draws)
    rules = {"**/w": P("data", "model"), "**/b": P("model"), "**/scale": P("data")}
    cut = {"w": (16 // sizes[0], 8 // sizes[1]), "b": (8 // sizes[1],), "scale": (16 // sizes[0],)}
    named = {pattern: NamedSharding(mesh, spec) for pattern, spec in rules.items()}
    with_regex = {
        re.compile(".*/w"): rules["**/w"],
        ("**/b", "!**/w"): rules["**/b"],
        lambda p, _: p.endswith("scale"): P("data"),
    }
    for shardings in (rules, named, with_regex, pt.label(spec, rules)):
        params = pt.init(spec, KEY, draws, shardings=shardings, mesh=mesh)
        chex.assert_trees_all_equal(params, whole)
        for path, leaf in pt.items(params):
            assert shard_shape_of_a_layer(leaf, path.count(":")) == cut[path.split("/")[-1]], path
    for one in (P(), P("data"), NamedSharding(mesh, P("data"))):
        for path, leaf in pt.items(pt.init(spec, KEY, {**draws}, shardings=one, mesh=mesh)):
            first = 8 if path.endswith("b") else 16
            wanted = first // (sizes[0] if one != P() else 1)
            assert shard_shape_of_a_layer(leaf, path.count(":"))[0] == wanted, path


def test_rules_for_one_layer_hold_inside_of_jit_and_under_a_mesh_of_the_context():
    mesh = jax.make_mesh((2, 4), ("data", "model"))
    spec, _ = in_three_forms()["stack of stacks"]
    rules = {"**/w": P(None, "model"), "**": P()}
    with jax.set_mesh(mesh):
        outside = pt.init(spec, KEY, {"**": I.normal(1.0)}, shardings=rules)
        inside = jax.jit(lambda key: pt.init(spec, key, {"**": I.normal(1.0)}, shardings=rules))(KEY)
    for params in (outside, inside):
        assert params["groups/:/blocks/:/w"].sharding.spec == P(None, None, None, "model")
        assert params["head/w"].sharding.spec == P(None, "model")


def test_a_pattern_that_spells_a_stack_says_where_its_axis_goes():
    mesh = mesh_of(4, 2)
    spec, _ = in_three_forms()["stack of stacks"]
    draws = {"**": I.normal(1.0)}
    whole = pt.init(spec, KEY, draws)
    for pattern, given, expected in (
        ("groups/:/blocks/:/w", P("data", None, None, "model"), P("data", None, None, "model")),
        ("groups/:/blocks/*/w", P("data", None, "model"), P("data", None, None, "model")),
        ("groups/*/blocks/:/w", P("model", "data"), P(None, "model", "data")),
        ("**/:/w", P("model", "data"), P(None, "model", "data")),
        (("groups/:/**/w", "!head"), P("data", "model"), P("data", None, "model")),
        (re.compile("groups/:/blocks/.*/w"), P("data", None, "model"), P("data", None, None, "model")),
        ("groups/*/blocks/*/w", P(None, "model"), P(None, None, None, "model")),
    ):
        for shardings in (
            {pattern: given, "**": P()},
            {pattern: NamedSharding(mesh, given), "**": NamedSharding(mesh, P())},
        ):
            params = pt.init(spec, KEY, draws, shardings=shardings, mesh=mesh)
            assert params["groups/:/blocks/:/w"].sharding.spec == expected, pattern
            chex.assert_trees_all_equal(params, whole)
    groups = {"groups/:": P("data"), "**": P()}  # a pattern of a node is for all that is below it
    assert pt.init(spec, KEY, draws, shardings=groups, mesh=mesh)["groups/:/blocks/:/b"].sharding.spec == P("data")


def test_a_sharding_at_its_place_in_a_tree_is_that_of_the_whole_array():
    mesh = mesh_of(4, 2)
    spec, _ = in_three_forms()["stack of stacks"]
    draws = {"**": I.normal(1.0)}
    first = pt.init(spec, KEY, draws, shardings={"groups/:": P("data"), "**": P()}, mesh=mesh)
    again = pt.init(spec, KEY, draws, shardings=jax.tree.map(lambda leaf: leaf.sharding, first))
    assert all(again[path].sharding == leaf.sharding for path, leaf in pt.items(first))
    device = jax.devices()[3]
    for shardings in (SingleDeviceSharding(device), {"**": SingleDeviceSharding(device)}):
        assert pt.init(spec, KEY, draws, shardings=shardings)["groups/:/scale"].devices() == {device}


def test_a_spec_that_does_not_fit_one_layer_names_path_layer_axis_and_size():
    mesh = mesh_of(2, 4)
    spec = pt.stacks.stack(pt.Tree({"blocks": [{"w": pt.Param((16, 30), init=I.zeros)}] * 8}), "blocks")
    with pytest.raises(pt.InitError) as error:
        pt.init(spec, KEY, shardings={"**": P(None, "model")}, mesh=mesh)
    asked = "cannot place 'blocks/:/w', f32[8,16,30], of layers (16, 30), as"
    assert str(error.value).startswith(f"{asked} {P(None, 'model')}: ")
    assert "dimension 1 of size 30 cannot be divided by model=4: 28 and 32 can" in str(error.value)
    says(
        pt.InitError,
        f"{asked} {P('data', None, 'model')}: its 3 entries are for 3 axes, and one layer has 2. To split the axis of the"
        " stack, spell it ':' in the pattern of a rule",
        pt.init, spec, KEY, shardings={"**": P("data", None, "model")}, mesh=mesh,
    )  # fmt: skip
    with pytest.raises(pt.InitError, match=r"cannot place 'blocks/:/w', .*the mesh has no axis 'tensor', it has"):
        pt.init(spec, KEY, shardings={"**": P("tensor")}, mesh=mesh)
    with pytest.raises(pt.InitError, match=r"cannot place 'blocks/:/w', .*: it is no Sharding and no PartitionSpec"):
        pt.init(spec, KEY, shardings=pt.Tree({"blocks": {":": {"w": "data"}}}), mesh=mesh)


# ------------------------------------------------------------------------- what is refused


LEAKED = []


def leaking(key, shape, dtype):
    if not LEAKED:
        jax.jit(lambda x: LEAKED.append(x) or x)(jnp.zeros(shape, dtype))
    return LEAKED[0]


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (pt.Param((2,), init=lambda k, s, d: jnp.full(s, jnp.nan)), "cannot draw 'a/w': its initialiser returned NaN"),
        (pt.Param((2,), init=leaking), "cannot draw 'a/w', f32[2], with leaking: Encountered an unexpected tracer"),
        (pt.Param((0, 4), init=I.normal(1.0)), "cannot draw 'a/w': f32[0,4] has no elements. Give an array in its place"),
        (jax.ShapeDtypeStruct((-1, 4), jnp.float32), "cannot draw 'a/w': f32[-1,4] has a negative size"),
        (pt.Param((2,), "int32", I.normal(1.0)), "cannot draw 'a/w', i32[2], with normal(1.0): "),
        (pt.Param((2, 2), "bool", I.xavier_uniform()), "cannot draw 'a/w', bool[2,2], with xavier_uniform(): "),
        (pt.Param((2,), "int32", I.uniform(0, 5)), "cannot draw 'a/w', i32[2], with uniform(0, 5): "),
        (pt.Param((2,), "int32", I.constant(0.5)), "cannot draw 'a/w', i32[2], with constant(0.5): i32 cannot hold 0.5"),
        (pt.Param((2,), "uint8", I.constant(-1)), "cannot draw 'a/w', u8[2], with constant(-1): u8 cannot hold -1"),
        (pt.Param((8,), init=I.torch_linear), "cannot draw 'a/w', f32[8], with torch_linear: it is a bias without a kernel beside it; give it torch_linear(fan_in=...)"),
        (pt.Param((8,), init=I.kaiming_normal()), "cannot draw 'a/w', f32[8], with kaiming_normal(): in_axis=-2 is not there in a shape with 1 axis"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_names_the_path(leaf, message):
    with pytest.raises(pt.InitError) as error:
        pt.init({"a": {"w": leaf}}, KEY, {"a/w": I.ones} if isinstance(leaf, jax.ShapeDtypeStruct) else None)
    assert str(error.value).startswith(message)


def test_an_int_is_no_key_and_the_error_says_what_is():
    says(pt.InitError, "not a PRNG key: 3; use jax.random.key(3)", pt.init, SPEC, 3)


# ---------------------------------------------------------------------- what a review found


def test_shape_structs_and_keys_say_where_a_leaf_is_to_live():
    mesh = mesh_of(8)
    sharded = pt.init(SPEC, KEY, shardings={"wte": P("data"), "**": P()}, mesh=mesh)
    again = pt.init(pt.abstract(sharded), KEY, {"**": I.normal(1.0)})
    assert again["wte"].sharding == sharded["wte"].sharding
    device = jax.devices()[5]
    assert pt.init(SPEC, jax.device_put(KEY, device))["wte"].devices() == {device}
    inside = jax.jit(lambda k, t: pt.reinit(t, k, {"wte": I.normal(1.0)}))(KEY, sharded)
    assert inside["wte"].sharding.spec == P("data", None)


def test_mixtures_and_sparse_draw_the_same_in_x64():
    spec = {
        "m": pt.Param((30, 30), init=I.mixture((0.5, I.zeros), (0.5, I.normal(1.0)))),
        "s": pt.Param((30, 30), init=I.sparse(0.5)),
    }
    params = pt.init(spec, KEY)
    with jax.enable_x64(True):
        chex.assert_trees_all_equal(pt.init(spec, KEY), params)


@pytest.mark.filterwarnings("ignore")
def test_initialisers_that_have_no_hash_are_drawn_all_the_same():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Table:
        table: object

        def __call__(self, key, shape, dtype):
            return jnp.asarray(self.table, dtype)

    for table in (np.ones(3), jnp.ones(3), [1, 1, 1]):
        assert (
            pt.init({"w": pt.Param((3,), init=Table(table)), "v": pt.Param((3,), init=Table(table))}, KEY)["v"].tolist()
            == [1] * 3
        )
    assert pt.init({"w": pt.Param((3,), init=I.constant([1, 2, 3]))}, KEY)["w"].tolist() == [1, 2, 3]


def test_transfer_guards_and_strict_promotion_are_kept():
    with jax.transfer_guard("disallow"), jax.numpy_dtype_promotion("strict"):
        pt.init(SPEC, KEY)
        pt.init({"w": pt.Param((4, 4), "bfloat16", I.orthogonal())}, KEY)


@pytest.mark.parametrize(("leaf", "message"), [
    (pt.Param((1 << 40, 1 << 20), init=I.normal(1.0)), "cannot draw 'w': f32[1099511627776,1048576] is larger than any memory"),
    (pt.Param((4, 4), "int8", I.orthogonal()), "cannot draw 'w', i8[4,4], with orthogonal(): it draws floats, and the leaf is i8; use constant, or a function of your own"),
    (pt.Param((2,), "float16", I.constant(2**40)), "cannot draw 'w', f16[2], with constant(1099511627776): f16 cannot hold 1099511627776"),
    (pt.Param((16, 4, 4), init=I.torch_linear), "cannot draw 'w', f32[16,4,4], with torch_linear: torch_linear takes every axis as in, out or batch, and the shape"
     " (16, 4, 4) has more: name them all in in_axis, out_axis and batch_axis, or take torch_conv"),
    (pt.Param((8,), init=I.keras_dense), "cannot draw 'w', f32[8], with keras_dense: it is a bias without a kernel beside it; give it a rule of its own, such as zeros"),
])  # fmt: skip
def test_what_else_cannot_be_drawn(leaf, message):
    says(pt.InitError, message, pt.init, {"w": leaf}, KEY)


def test_a_scale_beside_a_weight_of_one_axis_is_no_kernel():
    norm = {"weight": jnp.ones(8), "bias": jnp.ones(8)}
    with pytest.raises(pt.InitError, match=r"cannot draw 'bias', .*a bias without a kernel beside it"):
        pt.reinit(norm, KEY, {"bias": I.torch_linear})
    says(pt.PatternError, "reinit takes rules, selector -> initialiser; to draw the leaves of a selector as they were"
         " declared, give spec=", pt.reinit, norm, KEY, [("weight", I.zeros)])  # fmt: skip


@pytest.mark.parametrize("make", [
    lambda: pt.Param((3,), None), lambda: pt.Param((3,), "str"), lambda: pt.Param(True), lambda: pt.Param((3,), trainable="no"),
])  # fmt: skip
def test_declarations_that_make_no_sense_are_refused(make):
    with pytest.raises(pt.InitError, match=r"bad dtype|bad shape|trainable is True or False"):
        make()


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_swapped_arguments_say_the_order_without_the_values_of_arrays(key):
    what = "key<fry>[]" if key.ndim == 0 else "u32[2]"
    spec = {"a": pt.Param((2,), init=I.zeros)}
    for text, call, *args in (
        (f"got child_key('enc/bias', {what}); the order is child_key(key, path)", pt.random.child_key, "enc/bias", key),
        (f"got keys({what}, dict); the order is keys(tree, key)", pt.random.keys, key, spec),
        (f"got init({what}, dict); the order is init(spec, key)", pt.init, key, spec),
        (f"got init(dict, dict, {what}); the order is init(spec, key, rules)", pt.init, spec, {"a": I.ones}, key),
        (f"got reinit({what}, dict); the order is reinit(params, key, rules)", pt.reinit, key, spec, {"a": I.ones}),
        (
            f"got reinit(dict, dict, {what}); the order is reinit(params, key, rules)",
            pt.reinit,
            spec,
            {"a": I.ones},
            key,
        ),
    ):
        says(pt.InitError, f"swapped arguments: {text}", call, *args)
    says(pt.PathError, "no path can be an array, i32[3]: a path is a string such as 'blocks/3', or an int",
         pt.random.child_key, key, jnp.arange(3))  # fmt: skip
    assert pt.random.keys(key, key).shape == key.shape  # a tree that is one leaf, and this a key


def test_a_name_that_holds_a_colon_is_no_stack():
    spec = {"conv:0": [{"w": pt.Param((2, 3), init=I.normal(1.0))}] * 2, "a:b": pt.Param((2,), init=I.normal(1.0))}
    apart = pt.init(spec, KEY)
    assert equal(pt.init(pt.stacks.stack(pt.Tree(spec), "conv:0"), KEY), pt.stacks.stack(apart, "conv:0"))


def test_a_rule_that_speaks_of_axes_needs_the_path_of_the_source_not_a_transposed_alias():
    spec = pt.tie(
        {"embed": pt.Param((50, 8), init=I.zeros), "head": pt.Param((8, 50))}, {"head": pt.transposed("embed")}
    )
    message = (
        "the rule 'head' matches 'embed' only by its alias 'head', which is transposed(embed), and its value is for the"
        " axes of the leaf: name 'embed' in the rule"
    )
    says(pt.PatternError, message, pt.init, spec, KEY, {"head": I.lecun_normal()})
    params = pt.init(spec, KEY)
    says(pt.PatternError, message, pt.reinit, params, KEY, {"head": I.lecun_normal()})
    mesh = jax.make_mesh((1,), ("model",))
    with pytest.raises(pt.PatternError, match="only by its alias 'head'"):
        pt.init(spec, KEY, shardings={"head": P("model"), "**": P()}, mesh=mesh)
    assert pt.label(spec, {"head": 1})["embed"] == 1  # a label does not speak of axes
    same_axes = pt.tie({"a": pt.Param((3, 2), init=I.zeros), "b": pt.Param((3, 2))}, {"b": "a"})
    assert float(pt.init(same_axes, KEY, {"b": I.ones})["a"].sum()) == 6
