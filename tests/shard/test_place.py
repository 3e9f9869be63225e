"""Arrays are placed by a plan, outside of jit and inside; a mesh, a tree or a leaf that is another than the plan's is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from processes import outputs
from trees import SPECS, TREES, equal

import ptree as pt
from ptree import initializers as I
from ptree import shard, train

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

RULES = {"**/kernel": P("data", "model"), "**": P()}
KINDS = [AxisType.Auto, AxisType.Explicit]


def mesh(kind=AxisType.Auto, sizes=(4, 2)):
    return jax.make_mesh(
        sizes, ("data", "model"), axis_types=(kind, kind), devices=jax.devices()[: sizes[0] * sizes[1]]
    )


def params():
    draw = np.random.default_rng(0)
    return {"enc": {"kernel": draw.standard_normal((8, 6), np.float32), "bias": np.ones(6, np.float32)}, "scale": 2.0}


def message(error, call, *args, **options):
    with pytest.raises(error) as caught:
        call(*args, **options)
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_placed_as_by_hand(kind):
    plan = shard.plan(params(), RULES, mesh(kind))
    placed = shard.place(params(), plan)
    by_hand = jax.device_put(params(), plan.shardings)
    assert jax.tree.structure(placed) == jax.tree.structure(by_hand)
    for mine, theirs in zip(jax.tree.leaves(placed), jax.tree.leaves(by_hand), strict=True):
        assert mine.sharding == theirs.sharding
        np.testing.assert_array_equal(mine, theirs)
    again = shard.place(placed, plan)
    parts = zip(again["enc"]["kernel"].addressable_shards, placed["enc"]["kernel"].addressable_shards, strict=True)
    assert all(a.data.unsafe_buffer_pointer() == b.data.unsafe_buffer_pointer() for a, b in parts)  # nothing is copied


@pytest.mark.parametrize("kind", KINDS)
def test_inside_of_jit_values_are_constrained(kind):
    devices = mesh(kind)
    plan = shard.plan(params(), RULES, devices)

    @jax.jit
    def halved(tree):
        return shard.place(jax.tree.map(lambda leaf: leaf / 2, tree), plan)

    with jax.set_mesh(devices):
        new = halved(jax.tree.map(jnp.asarray, params()))
        assert new["enc"]["kernel"].sharding == plan["enc/kernel"]
        assert new["enc"]["bias"].sharding.is_fully_replicated
        of_spec = shard.plan(SPEC, RULES, devices)
        drawn = jax.jit(lambda key: pt.init(SPEC, key, shardings=of_spec))(jax.random.key(0))
        assert drawn["enc/kernel"].sharding == of_spec["enc/kernel"]
    np.testing.assert_array_equal(new["enc"]["kernel"], params()["enc"]["kernel"] / 2)


SPEC = pt.Tree({"enc": {"kernel": pt.Param((8, 6), init=I.normal(1.0)), "bias": pt.Param((6,), init=I.zeros)}})


def test_keys_and_64_bits_are_placed_as_jax_does():
    tree = {"key": jax.random.split(jax.random.key(0), 8), "wide": np.arange(8.0), "count": np.int64(3)}
    placed = shard.place(tree, shard.plan(tree, {"{key,wide}": P("data"), "**": P()}, mesh()))
    assert (placed["wide"].dtype, placed["count"].dtype) == ("float32", "int32")
    assert placed["key"].sharding.spec == P("data")
    assert (jax.random.key_data(placed["key"]) == jax.random.key_data(tree["key"])).all()


def test_a_plan_for_an_abstract_mesh_is_placed_on_one_of_the_same_axes():
    plan = shard.plan(params(), RULES, AbstractMesh((4, 2), ("data", "model")))
    for kind in KINDS:
        assert shard.place(params(), plan.on(mesh(kind)))["enc"]["kernel"].sharding.mesh == mesh(kind)
        with jax.set_mesh(mesh(kind)):
            assert shard.place(params(), plan)["enc"]["kernel"].sharding == NamedSharding(
                mesh(kind), P("data", "model")
            )
            drawn = pt.init(
                SPEC, jax.random.key(0), shardings=shard.plan(SPEC, RULES, AbstractMesh((4, 2), ("data", "model")))
            )
            assert drawn["enc/kernel"].sharding.mesh == mesh(kind)
    text = message(shard.ShardingError, shard.place, params(), plan)
    assert text.startswith("the plan is for an AbstractMesh (data=4, model=2), which has no devices to place arrays on")
    assert "jax.set_mesh(mesh)" in text
    for call in (lambda: plan.on(mesh(sizes=(2, 2))), lambda: plan.on(AbstractMesh((2, 4), ("model", "data")))):
        assert "the plan is for a mesh with data=4, model=2, and this one has" in message(shard.ShardingError, call)
    assert "plan.on takes a jax.sharding.Mesh, got 'data'" in message(shard.ShardingError, plan.on, "data")


def test_an_abstract_mesh_is_no_place_to_draw_on():
    abstract = AbstractMesh((4, 2), ("data", "model"))
    text = message(pt.InitError, pt.init, SPEC, jax.random.key(0), shardings=RULES, mesh=abstract)
    assert text.startswith("mesh= is an AbstractMesh (data=4, model=2), which has no devices to place arrays on")
    text = message(pt.InitError, pt.init, SPEC, jax.random.key(0), shardings=NamedSharding(abstract, P()))
    assert "which has no devices" in text
    text = message(pt.InitError, pt.init, SPEC, jax.random.key(0), shardings=shard.plan(SPEC, RULES, abstract))
    assert "which has no devices" in text


@pytest.mark.parametrize("sizes", [(2, 2), (2, 4)])
def test_another_mesh_than_the_plans_is_refused(sizes):
    plan = shard.plan(params(), RULES, mesh())
    with jax.set_mesh(mesh(sizes=sizes)):
        text = message(shard.ShardingError, shard.place, params(), plan)
        names = f"data={sizes[0]}, model={sizes[1]}"
        assert text.startswith(
            "the plan is for another mesh than that of jax.set_mesh: it has the axes data=4, model=2,"
        )
        assert f"the other {names}" in text
        assert "another mesh" in message(
            shard.ShardingError, pt.init, SPEC, jax.random.key(0), shardings=shard.plan(SPEC, RULES, mesh())
        )
        with pytest.raises(shard.ShardingError, match="another mesh"):
            jax.jit(lambda tree: shard.place(tree, plan))(jax.tree.map(jnp.asarray, params()))


def test_meshes_with_other_devices_or_kinds_of_axes_are_others():
    plan = shard.plan(params(), RULES, mesh())
    with jax.set_mesh(mesh(AxisType.Explicit)):
        text = message(shard.ShardingError, shard.place, params(), plan)
        assert "its axes are data=Auto, model=Auto, those of the other data=Explicit, model=Explicit" in text
    turned = jax.sharding.Mesh(np.array(jax.devices()[::-1]).reshape(4, 2), ("data", "model"))
    with jax.set_mesh(turned):
        assert "it is over other devices" in message(shard.ShardingError, shard.place, params(), plan)
        with pytest.raises(shard.ShardingError, match=r"than that of jax.set_mesh: it is over other devices"):
            jax.jit(lambda tree: shard.place(tree, plan))(jax.tree.map(jnp.asarray, params()))
    with jax.set_mesh(mesh()):
        jax.jit(lambda tree: shard.place(tree, plan))(jax.tree.map(jnp.asarray, params()))
    swapped = jax.make_mesh((2, 4), ("model", "data"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(swapped):
        assert "are in the order ['data', 'model']" in message(shard.ShardingError, shard.place, params(), plan)


def test_a_plan_for_another_tree_is_refused_with_all_that_differs():
    plan = shard.plan(params(), RULES, mesh())
    other = {"enc": {"kernel": jnp.ones((8, 4)), "extra": jnp.ones(2)}, "scale": 1.0}
    assert message(pt.StructureError, shard.place, other, plan).splitlines() == [
        "the plan is for another tree:",
        "  'enc/kernel': expected f32[8,6] in the plan, got f32[8,4] in the tree",
        "  missing in the tree: ['enc/bias']",
        "  unexpected in the tree: ['enc/extra']",
    ]
    shard.place(
        jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params()), plan
    )  # another dtype is no other place


def test_nothing_is_placed_inside_of_shard_map():
    plan = shard.plan({"w": jnp.ones(8)}, P(), mesh())
    place = jax.shard_map(lambda w: shard.place({"w": w}, plan)["w"], mesh=mesh(), in_specs=P(), out_specs=P())
    assert message(shard.ShardingError, place, jnp.ones(8)) == (
        "inside of jax.shard_map axes of the mesh are manual, and nothing is placed by a plan: place it outside"
    )


def test_a_plan_of_a_tree_with_other_ties_says_what_is_tied():
    apart = pt.Tree({"embed": jnp.ones((8, 4)), "head": jnp.ones((8, 4))})
    tied = pt.tie(apart, {"head": "embed"})
    assert message(pt.StructureError, shard.place, apart, shard.plan(tied, P("data"), mesh())) == (
        "the plan is for another tree: unexpected in the tree: ['head']. tied in the plan and apart in the tree: ['head']. Plan"
        " again, for the tree as it is now"
    )
    text = message(pt.StructureError, shard.place, tied, shard.plan(apart, P("data"), mesh()))
    assert text.endswith("tied in the tree and apart in the plan: ['head']. Plan again, for the tree as it is now")


def test_what_has_no_numbers_cannot_be_placed():
    plan = shard.plan(SPEC, RULES, mesh())
    text = message(pt.StructureError, shard.place, SPEC, plan)
    assert text.startswith(
        "there are no numbers to place at ['enc/kernel', 'enc/bias']: draw them where they live, ptree.init("
    )
    assert "no numbers" in message(pt.StructureError, shard.place, pt.abstract(SPEC), plan)
    with pytest.raises(
        TypeError, match=r"place\(tree, plan\): expected what ptree\.shard\.plan\(tree, rules, mesh\) makes, got dict"
    ):
        shard.place(params(), RULES)


def test_arrays_whose_memory_a_step_has_donated_are_named():
    given = {"kernel": jnp.ones((8, 6)), "bias": jnp.zeros(6)}
    plan = shard.plan(given, {"kernel": P("data"), "**": P()}, mesh())
    step = train.step(lambda params, x: (x @ params["kernel"] + params["bias"]).mean(), optax.sgd(0.1))
    step(step.init(shard.place(jax.tree.map(jnp.copy, given), plan)), jnp.ones((4, 8)))
    step(
        step.init(shard.place(given, plan)), jnp.ones((4, 8))
    )  # the bias is whole on each device, the first of which had it
    assert [path for path, leaf in pt.items(given) if leaf.is_deleted()] == ["bias"]
    text = message(pt.StructureError, shard.place, given, plan)
    assert text.startswith("arrays to place were deleted: ['bias']. They, or arrays that share their memory")
    assert "place(jax.tree.map(jnp.copy, tree), plan)" in text


def test_ties_and_containers_stay():
    tied = pt.Tree({"embed": jnp.ones((8, 4)), "head": pt.transposed("embed")})
    placed = shard.place(tied, shard.plan(tied, {"embed": P("data")}, mesh()))
    assert pt.ties(placed) == pt.ties(tied)
    assert placed["head"].sharding.spec == P(None, "data")


@pytest.mark.parametrize("name", TREES)
def test_every_tree_can_be_planned_and_placed(name):
    tree = TREES[name]
    plan = shard.plan(tree, P(), mesh())
    assert jax.tree.structure(plan.shardings) == jax.tree.structure(tree)
    assert plan.bytes_per_device == plan.bytes == plan.replicated_bytes
    assert [leaf.path for leaf in plan.leaves] == pt.paths(tree)
    placed = shard.place(tree, plan)
    assert equal(placed, jax.device_put(tree))
    assert plan.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(placed))
    assert plan.table(80)
    assert str(plan.explain())
    followed = shard.like({"average": tree}, plan)
    assert [leaf.reason for leaf in followed.leaves] == ["as its parameter"] * len(plan.leaves)


@pytest.mark.parametrize("name", [name for name in SPECS if name != "labels"])
def test_every_spec_can_be_planned(name):
    plan = shard.plan(SPECS[name], P(), AbstractMesh((4, 2), ("data", "model")))
    assert [leaf.path for leaf in plan.leaves] == pt.paths(SPECS[name])


PROCESS = """
import jax.numpy as jnp, numpy as np, optax, ptree as pt
from jax.sharding import AxisType, PartitionSpec as P
from ptree import shard, train

mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto))
weights = {"w": np.arange(64.0).reshape(8, 8) / 64, "b": np.zeros(8, "float32")}
tree = weights | {"key": jax.random.split(jax.random.key(0), 8)}
plan = shard.plan(tree, {"w": P("data", "model"), "key": P("data"), "**": P()}, mesh)
placed = shard.place(tree, plan)
assert all(leaf.sharding == plan[path] for path, leaf in pt.items(placed))
again = shard.place(placed, shard.plan(tree, {"w": P("model", "data"), "**": P()}, mesh))
part = again["w"].addressable_shards[0]
np.testing.assert_array_equal(part.data, weights["w"].astype("float32")[part.index])

plan = shard.plan(weights, {"w": P("data", "model"), "**": P()}, mesh)
optimiser = optax.adafactor(1e-2, min_dim_size_to_factor=2)
step = train.step(lambda params, x: jnp.square(x @ params["w"] + params["b"]).mean(), optimiser)
state = step.init(shard.place(weights, plan))
planned = shard.like(state, plan)
assert planned["optimiser/0/v_row/w"].spec == P("data")
assert all(leaf.sharding == planned[path] for path, leaf in pt.items(state))
batch = {"x": np.ones((16, 8), "float32")}
x = shard.place(batch, shard.plan(batch, P("data"), mesh))["x"]
for _ in range(2):
    state, metrics = step(state, x)
assert all(leaf.sharding == planned[path] for path, leaf in pt.items(state))

alone = train.step(step.pure.gradients.loss.function, optimiser)
expected = alone.init(jax.tree.map(jnp.asarray, weights))
for _ in range(2):
    expected, of_one = alone(expected, batch["x"])
np.testing.assert_allclose(float(metrics.loss), float(of_one.loss), rtol=1e-5)
print("done")
"""


def test_two_processes_place_and_train_by_one_plan():
    for printed in outputs(PROCESS):
        assert printed.endswith("done\n")
