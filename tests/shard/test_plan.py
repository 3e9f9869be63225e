"""A plan says where each leaf lives, on devices that there need not be, and what does not fit, before anything is allocated."""

import itertools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from trees import equal

import ptree as pt
from ptree import initializers as I
from ptree import shard, train

WIDE = AbstractMesh((512, 8), ("data", "model"))
SMALL = AbstractMesh((4, 2), ("data", "model"))


def mesh(kind=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind, kind))


def block(width=64):
    up, down = pt.Param((width, 4 * width)), pt.Param((4 * width, width))
    return {"up": {"kernel": up, "bias": pt.Param((4 * width,))}, "down": {"kernel": down}, "scale": pt.Param((width,))}


def gpt(width=64, layers=3, vocabulary=512):
    table = pt.Param((vocabulary, width))
    return pt.Tree({"embed": {"table": table}, "blocks": [block(width)] * layers, "head": pt.transposed("embed/table")})


RULES = {
    "embed/table": P("model", "data"),
    "**/up/kernel": P("data", "model"),
    "**/up/bias": P("model"),
    "**/down/kernel": P("model", "data"),
    "**": P(),
}


def specs(plan):
    return {leaf.path: leaf.sharding.spec for leaf in plan.leaves}


def message(error, call, *args, **options):
    with pytest.raises(error) as caught:
        call(*args, **options)
    return str(caught.value)


# -------------------------------------------------------------------------------- what it says


def test_4096_devices_are_planned_where_there_are_8():
    plan = shard.plan(
        gpt(768, 12, 50_304), RULES | {"embed/table": P("model")}, AbstractMesh((256, 8), ("data", "model"))
    )
    assert plan.devices == 2048
    plan = shard.plan(gpt(1024, 12, 50_304), RULES, WIDE)
    assert plan.devices == 4096
    assert plan["embed/table"] == NamedSharding(WIDE, P("model", "data"))
    assert all(isinstance(leaf, NamedSharding) for leaf in jax.tree.leaves(plan.shardings))
    assert jax.tree.structure(plan.shardings) == jax.tree.structure(pt.abstract(gpt(1024, 12, 50_304)))


def test_a_stack_and_its_layers_are_divided_alike():
    apart = shard.plan(gpt(), RULES, SMALL)
    stacked = shard.plan(pt.stacks.stack(gpt(), "blocks"), RULES, SMALL)
    assert stacked["blocks/:/up/kernel"].spec == P(None, "data", "model")
    for path in specs(apart):
        assert apart[path] == stacked[path], path  # "blocks/2/up/kernel" of a stack is the layer's
    assert apart.bytes_per_device == stacked.bytes_per_device
    assert apart.replicated_bytes == stacked.replicated_bytes
    piped = shard.plan(pt.stacks.stack(gpt(layers=4), "blocks"), {"blocks/:": P("data"), "**": P()}, SMALL)
    assert piped["blocks/:/up/bias"].spec == P("data")
    assert piped["blocks/1/up/bias"].spec == P()


def test_what_each_device_holds_is_what_jax_puts_there():
    plan = shard.plan(gpt(), RULES, mesh())
    params = pt.init(gpt(), jax.random.key(0), {"**": I.normal(1.0)}, shardings=plan)
    held = dict.fromkeys(jax.devices(), 0)
    for leaf in plan.leaves:
        array = params[leaf.path]
        assert array.sharding == plan[leaf.path]
        assert leaf.sharding.shard_shape(leaf.shape) == array.addressable_shards[0].data.shape
        assert leaf.is_replicated == array.is_fully_replicated
        for part in array.addressable_shards:
            held[part.device] += part.data.nbytes
    assert set(held.values()) == {plan.bytes_per_device}
    assert plan.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert plan.replicated_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(params) if leaf.is_fully_replicated)


def test_bytes_are_right_for_every_kind_of_leaf():
    tree = {
        "half": pt.Param((8, 8), "bfloat16"),
        "int4": jax.ShapeDtypeStruct((8,), jnp.int8),
        "key": jax.random.split(jax.random.key(0), 8),
        "bool": np.zeros((8,), bool),
        "number": 3.0,
        "count": 7,
        "empty": jnp.zeros((0, 8)),
        "scalar": jnp.float32(1),
    }
    plan = shard.plan(tree, {"{half,int4,key,bool,empty}": P("data"), "**": P()}, SMALL)
    sizes = {leaf.path: (leaf.bytes, leaf.bytes_per_device) for leaf in plan.leaves}
    assert sizes == {
        "half": (128, 32), "int4": (8, 2), "key": (64, 16), "bool": (8, 2), "number": (4, 4), "count": (4, 4), "empty": (0, 0),
        "scalar": (4, 4),
    }  # fmt: skip


def test_two_spellings_of_a_spec_are_one():
    spelled = [P(), P(None), P(None, None), P((), None)]
    plans = [shard.plan({"w": pt.Param((4, 8))}, spec, SMALL) for spec in spelled]
    assert len(set(plans)) == 1
    assert plans[0]["w"].spec == P()
    one = shard.plan({"w": pt.Param((4, 8))}, P("data", None), SMALL)
    assert one == shard.plan({"w": pt.Param((4, 8))}, P(("data",)), SMALL)
    assert one["w"].spec == P("data")


def test_drawn_and_loaded_arrays_have_the_one_spelling(tmp_path):
    spec = pt.Tree({"w": pt.Param((8, 8), init=I.ones), "blocks": {":": {"w": pt.Param((2, 8, 8), init=I.ones)}}})
    rules = {"w": P("data", None), "**": P(None, None)}
    devices = mesh()
    planned = shard.plan(spec, rules, devices)
    params = pt.init(spec, jax.random.key(0), shardings=rules, mesh=devices)
    pt.save(tmp_path / "m.safetensors", params)
    loaded = pt.load(tmp_path / "m.safetensors", shardings=rules, mesh=devices)
    of_arrays = pt.init(
        spec, jax.random.key(0), shardings={"**": NamedSharding(devices, P(None))}
    )  # a NamedSharding as a rule
    at_their_paths = pt.load(
        tmp_path / "m.safetensors",
        shardings={
            "w": NamedSharding(devices, P("data", None)),
            "blocks": {":": {"w": NamedSharding(devices, P(None))}},
        },
    )
    for tree in (params, loaded, at_their_paths):
        assert {path: leaf.sharding for path, leaf in pt.items(tree)} == {
            path: planned[path] for path in pt.paths(tree)
        }
    assert {leaf.sharding.spec for leaf in jax.tree.leaves(of_arrays)} == {P()}


def test_the_mesh_is_that_of_set_mesh():
    assert shard.plan(gpt(), {"embed": NamedSharding(SMALL, P("model")), "**": P()}).mesh == SMALL  # or of a sharding
    with jax.set_mesh(mesh(AxisType.Explicit)):
        plan = shard.plan(gpt(), RULES)
        assert plan.mesh == mesh(AxisType.Explicit)
        inside = jax.jit(lambda: [shard.plan(gpt(), RULES)["embed/table"].spec == P("model", "data") and jnp.zeros(())])
        assert jax.tree.leaves(inside())[0] == 0
    assert "a PartitionSpec needs a mesh" in message(shard.ShardingError, shard.plan, gpt(), RULES)
    assert "a PartitionSpec needs a mesh" in message(
        shard.ShardingError, shard.plan, gpt(), RULES, AbstractMesh((), ())
    )
    assert "mesh= takes a jax.sharding.Mesh, got 'data'" in message(
        shard.ShardingError, shard.plan, gpt(), RULES, "data"
    )


def test_any_pytree_and_an_open_file_can_be_planned(tmp_path):
    params = pt.init(gpt(), jax.random.key(0), {"**": I.zeros})
    pt.save(tmp_path / "m.safetensors", params)
    expected = shard.plan(params, RULES, SMALL)
    with pt.open(tmp_path / "m.safetensors") as file:
        of_file = shard.plan(file, RULES, SMALL)
    assert specs(of_file) == specs(expected)
    assert of_file["head"] == expected["head"]
    plain = shard.plan(pt.asdict(params), {"head": P("data", "model")} | RULES, SMALL)
    assert type(plain.shardings) is dict
    assert jax.tree.structure(plain.shardings) == jax.tree.structure(pt.asdict(params))
    by_place = shard.plan(params, expected.shardings, SMALL)  # a tree of shardings, each of the whole array
    assert specs(by_place) == specs(expected)


@pytest.mark.parametrize("shape", [(), (8,), (4, 2)])
@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_an_open_file_are_planned_as_they_are_loaded(tmp_path, implementation, shape):
    keys = jax.random.split(jax.random.key(0, impl=implementation), shape)
    tree = pt.Tree({"w": jnp.ones((8, 4)), "keys": keys, "count": 3})
    pt.save(tmp_path / "m.safetensors", tree)
    rules = {"w": P("data"), "keys": P("data") if shape else P(), "**": P()}
    with pt.open(tmp_path / "m.safetensors") as file:
        plan = shard.plan(file, rules, mesh())
        assert shard.auto(file, mesh()) == shard.auto(tree, mesh())
    of_tree = shard.plan(tree, rules, mesh())
    assert plan["keys"] == of_tree["keys"]
    assert [plan.by_path["keys"][1:3], plan.by_path["keys"].bytes] == [
        (shape, keys.dtype),
        of_tree.by_path["keys"].bytes,
    ]
    for like in (None, tree):
        loaded = pt.load(tmp_path / "m.safetensors", like=like, shardings=plan)
        assert loaded["keys"].sharding.is_equivalent_to(plan["keys"], len(shape))  # JAX adds None to the spec of keys
        assert equal(loaded, tree)
    placed = shard.place(pt.load(tmp_path / "m.safetensors"), plan)["keys"]
    assert placed.sharding.is_equivalent_to(plan["keys"], len(shape))


def test_keys_that_this_process_does_not_know_are_planned_by_their_words(tmp_path):
    file = tmp_path / "m.safetensors"
    pt.save(file, {"key": jax.random.split(jax.random.key(0), 8)})
    file.write_bytes(file.read_bytes().replace(b"threefry2x32", b"threefry9x99"))
    with pt.open(file, verify=False) as opened:
        leaf = shard.plan(opened, P("data"), mesh()).by_path["key"]
    assert (leaf.shape, leaf.dtype) == ((8,), np.uint32)


def test_a_loaded_tree_lives_where_the_plan_says(tmp_path):
    params = pt.init(gpt(), jax.random.key(0), {"**": I.normal(1.0)})
    pt.save(tmp_path / "m.safetensors", params)
    plan = shard.plan(gpt(), RULES, mesh())
    loaded = pt.load(tmp_path / "m.safetensors", shardings=plan)
    assert loaded == params
    assert all(loaded[leaf.path].sharding == leaf.sharding for leaf in plan.leaves)
    some = pt.load(tmp_path / "m.safetensors", select="**/kernel", shardings=plan)
    assert some == pt.select(params, "**/kernel")
    assert all(some[path].sharding == plan[path] for path in pt.paths(some))
    other = shard.plan(gpt(layers=2), RULES, mesh())
    text = message(pt.StructureError, pt.load, tmp_path / "m.safetensors", shardings=other)
    assert "the plan is for another tree" in text
    assert "unexpected in the tree: ['blocks/2/" in text


# ------------------------------------------------------------------------------------- ties


def test_a_tied_leaf_is_placed_once_and_its_alias_shows_it():
    plan = shard.plan(gpt(), RULES, SMALL)
    assert [leaf.path for leaf in plan.leaves if "head" in leaf.path] == []
    assert plan["head"].spec == P("data", "model")  # through the transpose
    table = pt.Param((8, 4))
    same = shard.plan(pt.tie(pt.Tree({"a": table, "b": table}), {"b": "a"}), {"a": P("data")}, SMALL)
    assert same["b"] == same["a"]
    assert len(same.leaves) == 1


def test_a_sharding_is_not_read_through_a_transpose_but_by_the_plan():
    tree = pt.tie(pt.Tree({"e": jnp.ones((8, 4)), "h": jnp.ones((4, 8)), "same": jnp.ones((8, 4))}), {
        "h": pt.transposed("e"), "same": "e",
    })  # fmt: skip
    plan = shard.plan(tree, {"e": P("data")}, mesh())
    assert jax.tree.structure(plan.shardings) == jax.tree.structure(tree)
    total = jax.jit(lambda params: params["h"].sum(), in_shardings=(plan.shardings,))
    assert total(jax.device_put(tree, plan.shardings)) == 32
    assert plan.shardings["same"] == plan["same"] == plan["e"]
    assert plan["h"].spec == P(None, "data")
    text = (
        " does not say how many axes its array has, so that it cannot be shown 'transposed': take it by the path of the leaf that is"
        " tied, or plan[alias] of the ptree.shard.Plan that it is from"
    )
    assert message(pt.TieError, lambda: plan.shardings["h"]) == "a NamedSharding" + text
    assert message(pt.TieError, pt.set, plan.shardings, "h", plan["h"]) == "a NamedSharding" + text
    assert message(pt.TieError, pt.items, plan.shardings, aliases=True) == "a NamedSharding" + text
    specs_alone = pt.label(tree, {"e": P("data")})
    assert message(pt.TieError, lambda: specs_alone["h"]) == "a PartitionSpec" + text
    assert "h     = transposed(e)" in repr(plan.shardings)
    whole = shard.plan(tree, P(), mesh())
    assert whole.shardings["h"] == whole["h"]


def test_rules_that_give_a_tied_leaf_two_placements_are_an_error():
    rules = {"embed/table": P("model"), "head": P(None, "data"), "**": P()}
    text = message(pt.PatternError, shard.plan, gpt(), rules, SMALL)
    assert text == (
        f"the rules 'embed/table' and 'head' place one leaf in two ways: 'embed/table' as {P('model')}, and 'head'"
        f" (transposed(embed/table)), which is tied to it, as {P(None, 'data')}. Give {P(None, 'model')} for 'head', or leave out"
        " the rule 'head'"
    )
    agreeing = {"embed/table": P("model"), "head": P(None, "model"), "**": P()}
    assert shard.plan(gpt(), agreeing, SMALL)["embed/table"].spec == P("model")
    text = message(pt.PatternError, shard.plan, gpt(), {"head": P(None, "model"), "**": P()}, SMALL)
    assert "matches 'embed/table' only by its alias 'head'" in text
    assert "name 'embed/table' in the rule" in text


def test_rules_of_which_one_takes_other_leaves_too_are_compared_by_the_tied_one():
    table = pt.Param((8, 4), init=I.zeros)
    tree = pt.tie(
        pt.Tree({"enc": {"w": table, "v": table}, "dec": {"w": table, "v": table, "out": table}}), {"dec/w": "enc/w"}
    )

    def planned(rules, tree=tree):
        return shard.plan(tree, rules, SMALL)["enc/w"].spec

    text = message(pt.PatternError, planned, {"enc": P("model"), "dec": P("data"), "**": P()})
    assert "the rules 'enc' and 'dec' place one leaf in two ways: 'enc/w' as" in text
    assert "leave it out of that rule: ('dec', '!dec/w')" in text
    assert planned({"enc": P("model"), ("dec", "!dec/w"): P("data"), "**": P()}) == P("model")
    assert planned({"enc": P("model"), "dec": P("model", None), "**": P()}) == P("model")  # the same
    text = message(pt.PatternError, planned, {"dec": P("data"), "enc": P("model"), "**": P()})  # the alias is first
    assert "the rules 'dec' and 'enc' place one leaf in two ways: 'dec/w' as" in text
    text = message(pt.PatternError, planned, {"enc/*": P("model"), "dec/**": P("data"), "**": P()})
    assert "the rules 'enc/*' and 'dec/**'" in text
    drawn_text = message(
        pt.PatternError, pt.init, tree, jax.random.key(0), shardings={"enc": P("model"), "dec": P("data")}, mesh=mesh()
    )
    assert "the rules 'enc' and 'dec' place one leaf" in drawn_text


def test_a_general_rule_that_matches_an_alias_is_no_conflict():
    table = pt.Param((8, 4))
    tree = pt.tie(
        pt.Tree({"net": {"embed": {"table": table}, "head": {"kernel": table}, "mid": {"kernel": table}}}),
        {"net/head/kernel": "net/embed/table"},
    )
    for general in ("**", "**/kernel", "net/*/kernel", "net/**", "net"):  # which do not tell head from embed
        plan = shard.plan(tree, {"net/embed/table": P("model"), general: P("data")}, SMALL)
        assert plan["net/head/kernel"].spec == P("model")
        assert plan["net/mid/kernel"].spec == P("data")
    for special in ("**/{head,mid}/kernel", "net/head", "**/head/*"):
        text = message(
            pt.PatternError, shard.plan, tree, {"net/embed/table": P("model"), special: P("data"), "**": P()}, SMALL
        )
        assert "place one leaf in two ways: 'net/embed/table' as" in text
    stacked = pt.tie(
        pt.Tree({"enc": {":": {"w": pt.Param((2, 8, 4))}}, "dec": {":": {"w": pt.Param((2, 8, 4)), "v": table}}}),
        {"dec/:/w": "enc/:/w"},
    )
    assert shard.plan(stacked, {"enc": P("model"), "dec/:/w": P(None, "model"), "**": P()}, SMALL)["enc/:/w"].spec == P(
        None, "model"
    )
    text = message(pt.PatternError, shard.plan, stacked, {"enc": P("model"), "dec/:": P("model"), "**": P()}, SMALL)
    assert f"'dec/:/w', which is tied to it, as {P('model')}. Give {P(None, 'model')} for" in text
    text = message(pt.PatternError, shard.plan, stacked, {"enc": P("model"), "dec": P("data"), "**": P()}, SMALL)
    assert f"'dec/:/w', which is tied to it, as {P('data')}. Give {P('model')} for" in text
    text = message(pt.PatternError, shard.plan, stacked, {"enc/:": P("model"), "dec": P("data"), "**": P()}, SMALL)
    assert f"Give {P('model')}, in a rule that spells each ':', for 'dec/:/w'" in text


TRANSPOSED = pt.Tree({
    "embed": pt.Param((96, 64)),
    "hidden": pt.Param((8, 8)),
    "head": pt.transposed("embed"),
    "out": pt.transposed("embed"),
})  # fmt: skip
ROWS, COLUMNS = P("model"), P(None, "model")


@pytest.mark.parametrize(
    "rules",
    [
        {"embed": ROWS, "head": COLUMNS},
        {"embed": ROWS, "h*": COLUMNS, "out": COLUMNS},
        {"{head,out}": COLUMNS, "embed": ROWS},
        {"head": COLUMNS, "**": ROWS},
        {"h*": COLUMNS, "e*": ROWS, "out": COLUMNS},
        {("h*", "!hidden"): COLUMNS, "embed": ROWS},
        {re.compile("h.*"): COLUMNS, re.compile("e.*"): ROWS},
    ],
)
def test_rules_that_agree_for_a_transposed_leaf_may_come_in_any_order(rules):
    hidden = COLUMNS if {"h*", re.compile("h.*")} & {*rules} else ROWS if rules.get("**") == ROWS else P()
    for order in itertools.permutations([item for item in rules.items() if item[0] != "**"]):
        plan = shard.plan(TRANSPOSED, {**dict(order), "**": rules.get("**", P())}, SMALL)
        assert [plan[path].spec for path in ("embed", "head", "out", "hidden")] == [ROWS, COLUMNS, COLUMNS, hidden]
        assert plan.by_path["embed"].rule[0] in "e*"  # the rule for the leaf's own axes


@pytest.mark.parametrize(
    ("rules", "other", "spec", "left_out", "by"),
    [
        ({"embed": ROWS, "head": ROWS}, "head", COLUMNS, "leave out the rule 'head'", {"embed": ROWS}),
        ({"head": ROWS, "embed": ROWS}, "embed", COLUMNS, "leave out the rule 'head'", {"embed": ROWS}),
        ({"embed": ROWS, "h*": ROWS}, "h*", COLUMNS, "leave it out of that rule: ('h*', '!head')",
         {"embed": ROWS, ("h*", "!head"): ROWS}),
        ({"h*": ROWS, "embed": ROWS}, "embed", COLUMNS, "leave 'head' out of the rule 'h*': ('h*', '!head')",
         {("h*", "!head"): ROWS, "embed": ROWS}),
        ({"head": COLUMNS, "out": ROWS, "embed": ROWS}, "out", COLUMNS, "leave out the rule 'out'", {"head": COLUMNS, "embed": ROWS}),
    ],
)  # fmt: skip
def test_rules_that_follow_the_advice_about_a_transposed_leaf_are_taken(rules, other, spec, left_out, by):
    text = message(pt.PatternError, shard.plan, TRANSPOSED, {**rules, "**": P()}, SMALL)
    name = "head" if other == "h*" else other
    assert text.endswith(f". Give {spec} for '{name}', or {left_out}")
    for followed, embed in (({**rules, other: spec}, COLUMNS if other == "embed" else ROWS), (by, ROWS)):
        assert shard.plan(TRANSPOSED, {**followed, "**": P()}, SMALL)["embed"].spec == embed


def test_axes_in_another_order_are_compared_both_ways():
    spec = pt.Tree({"conv": pt.Param((2, 4, 8)), "back": pt.transposed("conv", (2, 0, 1))})
    by_alias = P("data", None, "model")  # of the axes 8, 2, 4
    for rules in ({"conv": P(None, "model", "data")}, {"back": by_alias, "conv": P(None, "model", "data")}):
        plan = shard.plan(spec, rules, SMALL)
        assert plan["conv"].spec == P(None, "model", "data")
        assert plan["back"].spec == by_alias
    text = message(pt.PatternError, shard.plan, spec, {"back": by_alias, "conv": P("model", "data")}, SMALL)
    assert f"Give {P(None, 'model', 'data')} for 'conv'" in text


def test_rules_for_tied_numbers_and_regexes():
    numbers = pt.tie(pt.Tree({"a": jnp.ones(()), "b": jnp.ones(()), "n": 1, "m": 1}), {"b": "a", "m": "n"})
    assert shard.plan(numbers, {"{a,n}": P(), "b": P(), "**": P()}, SMALL)["m"].spec == P()
    tree = pt.tie(pt.Tree({"a": pt.Param((8, 4)), "b": pt.Param((8, 4)), "bb": pt.Param((8,))}), {"b": "a"})
    text = message(pt.PatternError, shard.plan, tree, {"a": P("data"), re.compile("b.*"): P("model")}, SMALL)
    assert text.endswith(f"Give {P('data')} for 'b', or leave it out of that rule: '!b'")


def test_the_arrays_inside_of_registered_nodes_are_placed():
    params = pt.init(gpt(layers=1), jax.random.key(0), {"**": I.normal(1.0)})
    delta = train.lora(params, {"**/up/kernel": train.Rank(4)}, jax.random.key(1))
    names = pt.paths(delta)
    plan = shard.plan(delta, {names[0]: P("data"), "**": P()}, mesh())
    assert [*specs(plan)] == names
    assert jax.tree.structure(plan.shardings) == jax.tree.structure(delta)
    placed = shard.place(delta, plan)
    assert jax.tree.leaves(placed)[0].sharding in {leaf.sharding for leaf in plan.leaves}


# ------------------------------------------------------------------------- what does not fit


def test_all_that_does_not_fit_is_one_error_with_the_sizes_that_would():
    tree = {
        "a": pt.Param((9, 8)), "b": pt.Param((16, 30)), "c": pt.Param((8, 8)), "d": pt.Param((8, 8)), "e": pt.Param((8,)),
        "f": pt.Param((12, 8)), "fine": pt.Param((8, 8)),
    }  # fmt: skip
    rules = {
        "a": P("data"), "b": P(None, ("data", "model")), "c": P("modl"), "d": P("data", "data"), "e": P(None, "data"),
        "f": P(("data", "model"), "pipe"), "fine": P("data"),
    }  # fmt: skip
    assert message(shard.ShardingError, shard.plan, tree, rules, SMALL).splitlines() == [
        f"cannot place 'a', f32[9,8], as {P('data')}: dimension 0 of size 9 cannot be divided by data=4: 8 and 12 can",
        f"cannot place 'b', f32[16,30], as {P(None, ('data', 'model'))}: dimension 1 of size 30 cannot be divided by data=4 x model=2 = 8: 24 and 32 can",
        f"cannot place 'c', f32[8,8], as {P('modl')}: the mesh has no axis 'modl', it has data=4, model=2. Did you mean 'model'?",
        f"cannot place 'd', f32[8,8], as {P('data', 'data')}: 'data' is in it 2 times, and an axis can divide one dimension",
        f"cannot place 'e', f32[8], as {P(None, 'data')}: its 2 entries are for 2 axes, and the leaf has 1",
        f"cannot place 'f', f32[12,8], as {P(('data', 'model'), 'pipe')}: the mesh has no axis 'pipe', it has data=4, model=2;"
        " dimension 0 of size 12 cannot be divided by data=4 x model=2 = 8: 8 and 16 can",
    ]  # fmt: skip


def test_leaves_with_one_problem_are_one_line():
    spec = pt.Tree({"blocks": [{"w": pt.Param((10, 4))}] * 30})
    text = message(shard.ShardingError, shard.plan, spec, P("data"), SMALL)
    assert text.startswith("cannot place ['blocks/0/w', 'blocks/1/w', ")
    assert "and 20 more], f32[10,4], as" in text
    assert len(text.splitlines()) == 1
    stacked = message(shard.ShardingError, shard.plan, pt.stacks.stack(spec, "blocks"), P("data"), SMALL)
    assert "f32[30,10,4], of layers (10, 4), as" in stacked
    assert "dimension 0 of size 10 cannot be divided by data=4: 8 and 12 can" in stacked
    long = message(
        shard.ShardingError, shard.plan, {f"w{i}": pt.Param((4 * i + 1,)) for i in range(40)}, P("data"), SMALL
    )
    assert long.splitlines()[-1] == "and 30 more"


def test_specs_that_do_not_say_where_parts_are_are_refused():
    tree = {"w": pt.Param((8, 8))}
    assert "UNCONSTRAINED leaves it open" in message(
        shard.ShardingError, shard.plan, tree, P(P.UNCONSTRAINED, "data"), SMALL
    )
    unreduced = P("data", unreduced={"model"})
    assert "unreduced or reduced axes is the result" in message(shard.ShardingError, shard.plan, tree, unreduced, SMALL)
    alone = SingleDeviceSharding(jax.devices()[0])
    assert "a plan is of PartitionSpecs and NamedShardings" in message(
        shard.ShardingError, shard.plan, tree, alone, SMALL
    )
    elsewhere = NamedSharding(AbstractMesh((8, 2), ("data", "model")), P("data"))
    text = message(shard.ShardingError, shard.plan, tree, {"w": elsewhere}, SMALL)
    assert "another mesh than that of the plan: it has the axes data=4, model=2, the other data=8, model=2" in text


def test_memory_of_the_host_is_not_counted_as_that_of_devices():
    tree = {"table": pt.Param((1024, 8)), "scale": pt.Param((8,)), "w": pt.Param((8, 8))}
    on_host = NamedSharding(mesh(), P("data"), memory_kind="pinned_host")
    whole = NamedSharding(mesh(), P(), memory_kind="pinned_host")
    plan = shard.plan(tree, {"table": on_host, "scale": whole, "w": P("data")})
    assert plan.bytes_per_device == 8 * 8 * 4 // 4
    assert plan.host_bytes_per_device == 1024 * 8 * 4 // 4 + 8 * 4
    assert plan.replicated_bytes == 0
    assert plan["table"].memory_kind == "pinned_host"
    table = " ".join(plan.table(110).split())
    assert "data in pinned_host 8.0 KiB host" in table
    assert "replicated in pinned_host 32 B host" in table
    assert "; 64 B per device" in table
    assert "8.0 KiB in the host's memory for each device" in table
    explained = plan.explain()
    assert "8.0 KiB host" in str(explained)
    assert [share.bytes_per_device for share in explained.rules] == [0, 0, 64]
    state = shard.like({"mu": tree, "count": pt.Param(())}, plan)
    assert (state.bytes_per_device, state.host_bytes_per_device) == (64 + 4, plan.host_bytes_per_device)
    assert [kind.memory_kind for kind in (plan.on(mesh())["table"], state["mu/table"])] == ["pinned_host"] * 2
    assert "host" not in shard.plan(tree, P(), mesh()).table(110)


def test_rules_are_strict():
    tree = {"w": pt.Param((8, 8)), "b": pt.Param((8,))}
    assert message(pt.PatternError, shard.plan, tree, {"w": P()}, SMALL) == "no sharding for ['b']: add a rule for '**'"
    assert "the pattern 'v' matches nothing" in message(pt.PatternError, shard.plan, tree, {"v": P(), "**": P()}, SMALL)
    late = message(pt.PatternError, shard.plan, tree, {"**": P(), "w": P("data")}, SMALL)
    assert late == "the rule 'w' applies to no leaf: ['**'] before it applies to all that it matches"
    wrong = message(shard.ShardingError, shard.plan, tree, {"w": "data", "**": P()}, SMALL)
    assert wrong == (
        "'w' is no Sharding and no PartitionSpec, but 'data': write P(\"data\"), a jax.sharding.PartitionSpec"
    )


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        ("data", 'P("data")'),
        (None, "P()"),
        ((None, "data"), 'P(None, "data")'),
        ([["data", "model"]], 'P(("data", "model"))'),
    ],
)
def test_a_rule_that_is_no_spec_names_the_spec_that_is_meant(value, fix):
    tree = {"w": pt.Param((8, 8)), "b": pt.Param((8,))}
    assert f"but {value!r}: write {fix}" in message(
        shard.ShardingError, shard.plan, tree, {"w": value, "**": P()}, SMALL
    )


def test_a_rule_that_is_something_else_is_described():
    wrong = message(shard.ShardingError, shard.plan, {"w": pt.Param((8, 8))}, {"w": 3}, SMALL)
    assert wrong == "'w' is no Sharding and no PartitionSpec, but 3"


def test_what_is_no_array_is_named():
    text = message(pt.StructureError, shard.plan, {"w": pt.Param((8,)), "act": jax.nn.relu, "name": "x"}, P(), SMALL)
    assert text.startswith("only arrays live on devices, but 'act' is ")
    assert "'name' is 'x'" in text
    texts = {
        "w": np.ones(8),
        "objects": np.array([None, 1]),
        "words": np.array(["a"]),
        "days": np.array(["2020-01-01"], "M8[D]"),
    }
    text = message(pt.StructureError, shard.plan, texts, P(), SMALL)
    assert "'w'" not in text
    assert all(f"'{name}' is " in text for name in ("objects", "words", "days"))


# ---------------------------------------------------------------------- what cannot be divided


def test_what_cannot_be_divided_stays_whole_if_it_may():
    tree = {"table": pt.Param((50257, 768)), "w": pt.Param((30, 768)), "scale": pt.Param(())}
    everywhere = shard.plan(tree, P("model", "data"), SMALL, otherwise="replicate")
    assert specs(everywhere) == {"table": P(None, "data"), "w": P("model", "data"), "scale": P()}
    table = next(leaf for leaf in everywhere.leaves if leaf.path == "table")
    assert table.undivided == ("dimension 0 of size 50257 cannot be divided by model=2: 50256 and 50258 can",)
    assert "-, data *" in everywhere.table(120)
    assert "* table: dimension 0 of size 50257 cannot be divided by model=2: 50256 and 50258 can" in everywhere.table(
        120
    )
    by_rule = shard.plan(tree, {"scale": P(), "**": P("model", "data")}, SMALL, otherwise={"table": "replicate"})
    assert specs(by_rule) == specs(everywhere)
    text = message(
        shard.ShardingError, shard.plan, tree, {"scale": P(), "**": P("model")}, SMALL, otherwise={"w": "replicate"}
    )
    assert text.startswith("cannot place 'table'")


def test_only_indivisible_dimensions_are_forgiven():
    tree = {"w": pt.Param((9, 9)), "b": pt.Param((9,))}
    text = message(shard.ShardingError, shard.plan, tree, P("tensor", "data"), SMALL, otherwise="replicate")
    assert text.splitlines()[0].endswith("the mesh has no axis 'tensor', it has data=4, model=2")
    assert "its 2 entries are for 2 axes, and the leaf has 1" in text


def test_a_policy_that_is_none():
    tree = {"w": pt.Param((9, 9))}
    for wrong in ("ignore", {"w": "pad"}):
        assert "otherwise= is 'error' or 'replicate', got" in message(
            shard.ShardingError, shard.plan, tree, P("data"), SMALL, otherwise=wrong
        )
    assert "got None" in message(shard.ShardingError, shard.plan, tree, P("data"), SMALL, otherwise=None)
    with pytest.raises(pt.PatternError, match="the pattern 'v' matches nothing"):
        shard.plan(tree, P("data"), SMALL, otherwise={"v": "replicate"})


# ----------------------------------------------------------------------------------- reading it


def test_a_path_that_is_not_there_has_a_suggestion():
    plan = shard.plan(gpt(), RULES, SMALL)
    assert "Did you mean 'blocks/0/up/kernel'?" in message(pt.PathError, lambda: plan["blocks/0/up/kernl"])
    assert "'blocks/0/up' is a node" in message(pt.PathError, lambda: plan["blocks/0/up"])
    assert "blocks/0/up/kernel" in plan
    assert "head" in plan
    stacked = shard.plan(pt.stacks.stack(gpt(), "blocks"), RULES, SMALL)
    for other in (plan, stacked):
        assert "blocks/2/up/kernel" in other
        assert "blocks/3/up/kernel" not in other


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_table_fits_its_width_and_folds_layers(width):
    plan = shard.plan(gpt(768, 12, 50257), RULES, SMALL, otherwise={"embed": "replicate"})
    lines = plan.table(width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 16
    if width == 120:
        assert lines[0].split("  ")[0] == "path"
        assert any(line.startswith("blocks/{0..11}/up/kernel x12") and line.endswith("**/up/kernel") for line in lines)
        total = f"{plan.devices} devices: data=4, model=2; "
        assert any(line.startswith(total) for line in lines)


def test_names_with_numbers_are_folded_where_all_are_there():
    tree = {f"layer_{i}/expert{j}/w": pt.Param((8, 8)) for i in range(4) for j in range(3)} | {"w07": pt.Param((8,))}
    text = shard.plan(tree, P("data"), SMALL).table(120)
    assert "layer_{0..3}/expert{0..2}/w x12" in text
    del tree["layer_2/expert1/w"]
    assert "layer_*/expert*/w x11" in shard.plan(tree, P("data"), SMALL).table(120)


def test_a_hundred_different_leaves_are_a_hundred_lines():
    plan = shard.plan({f"group{i}/a_name_that_is_long": pt.Param((8 * (i + 1),)) for i in range(100)}, P("data"), SMALL)
    assert len(plan.table(80).splitlines()) == 103


def test_explain_says_what_each_rule_takes_and_why_leaves_are_everywhere():
    plan = shard.plan(gpt(64, 3, 511), RULES, SMALL, otherwise={"embed": "replicate"})
    told = plan.explain()
    by_rule = {share.rule: share for share in told.rules}
    assert by_rule["**/up/kernel"].leaves == 3
    assert by_rule["**/up/kernel"].bytes == 3 * 64 * 256 * 4
    assert by_rule["**/up/kernel"].bytes_per_device == 3 * 64 * 256 * 4 // 8
    assert by_rule["**"].replicated_bytes == by_rule["**"].bytes
    assert told.replicated["blocks/0/scale"] == "by '**'"
    assert sum(share.bytes_per_device for share in told.rules) == plan.bytes_per_device
    assert told.biggest[0].path == "embed/table"
    assert told.tied == {"head": "embed/table"}
    text = str(told)
    assert "tied: head lives where embed/table does" in text
    assert "blocks/{0..2}/scale" in text
    one = shard.plan({"w": pt.Param((8,))}, P("data"), AbstractMesh((1,), ("data",)))
    assert one.explain().replicated == {"w": "the axes that divide it have one device"}


def test_an_empty_tree_has_an_empty_plan():
    plan = shard.plan({}, {}, SMALL)
    assert (plan.leaves, plan.bytes_per_device, plan.shardings) == ((), 0, {})
    assert "8 devices: data=4, model=2" in plan.table(80)
    assert str(plan.explain())


def test_a_plan_is_immutable_in_use_and_goes_through_pickle():
    plan = shard.plan(gpt(), RULES, SMALL)
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert hash(plan) == hash(shard.plan(gpt(), RULES, SMALL))
    assert plan != shard.plan(gpt(), RULES, AbstractMesh((2, 2), ("data", "model")))
    assert repr(plan).startswith("<Plan of 13 leaves on data=4, model=2: ")


def test_a_plan_is_read_as_a_mapping_of_paths():
    params = {"enc": {"w": jnp.ones((8, 4))}, "b": jnp.zeros(4)}
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    plan = shard.plan(params, {"enc": P("data"), "**": P()}, mesh)
    assert dict(plan) == {path: plan[path] for path in pt.paths(params)}
    assert [*plan] == pt.paths(params)
    assert len(plan) == 2
