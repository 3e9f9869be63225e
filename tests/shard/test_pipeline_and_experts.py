"""A stack spread over its layers, one part of the pipeline on each device, and experts as a stack spread over the devices:
placed by a plan, they take the steps of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import initializers as I
from ptree import nn, shard, train

pytestmark = pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")

LAYERS, WIDTH, ROWS, MICROBATCHES, STEPS = 4, 8, 16, 8, 5


def mesh_of(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def batches(mesh=None, spec=None):
    draw = np.random.default_rng(0)
    for _ in range(STEPS):
        rows = draw.standard_normal((ROWS, WIDTH)).astype("float32")
        yield rows if mesh is None else jax.device_put(rows, NamedSharding(mesh, spec))


def trained(loss, params, rows):
    """The losses of some steps, and the parameters after them; state and slots stay where they are."""
    step = train.step(loss, optax.adamw(1e-2), ema=0.9)
    state = step.init(params)
    before = [leaf.sharding for leaf in jax.tree.leaves(state)]
    losses = []
    for batch in rows:
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert [leaf.sharding for leaf in jax.tree.leaves(state)] == before
    return losses, state


def same(found, expected):
    losses, state = found
    expected_losses, expected_state = expected
    np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
    for path, leaf in pt.items(expected_state):
        np.testing.assert_allclose(pt.get(state, path), leaf, rtol=1e-4, atol=1e-5, err_msg=path)


# ------------------------------------------------------------------------------- a pipeline

BLOCK = nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(2 * WIDTH), jnp.tanh, nn.Dense(WIDTH)))
NET = nn.Sequential({"blocks": nn.Repeat(BLOCK, LAYERS), "head": nn.Dense(3)})
PIPE = {"blocks/:": P("pipe"), "**": P()}


def net_loss(params, rows):
    return jnp.square(NET(params, rows) - 1).mean()


def pipelined_loss(mesh):
    """The same loss, where each device runs its own layer on the rows that the device before has sent."""

    def stage(layers, parts):
        own = jax.tree.map(lambda leaf: leaf[0], layers)
        at, last = jax.lax.axis_index("pipe"), LAYERS - 1
        parts = parts.reshape(MICROBATCHES, -1, WIDTH)
        to_the_next = [(device, device + 1) for device in range(last)]

        def tick(received, time):
            mine = jnp.where(at == 0, parts[jnp.minimum(time, MICROBATCHES - 1)], received)
            done = BLOCK(own, mine)
            return jax.lax.ppermute(done, "pipe", to_the_next), done

        start = jax.lax.pcast(jnp.zeros_like(parts[0]), "pipe", to="varying")
        _, done = jax.lax.scan(tick, start, jnp.arange(MICROBATCHES + last))
        # only what the last device computed from its first full tick on is the result
        return jax.lax.psum(jnp.where(at == last, done[last:], 0), "pipe").reshape(-1, WIDTH)

    def loss(params, rows):
        run = jax.shard_map(stage, mesh=mesh, in_specs=(P("pipe"), P("data")), out_specs=P("data"))
        hidden = run(params["blocks"][":"], rows)
        return jnp.square(NET[1](params["head"], hidden) - 1).mean()

    return loss


@pytest.fixture(scope="module")
def layers_on_one_device():
    params = NET.init(jax.random.key(0), jnp.ones((ROWS, WIDTH)), {"**/kernel": I.lecun_normal(), "**": I.normal(0.1)})
    return params, trained(net_loss, jax.tree.map(jnp.copy, params), batches())


@pytest.mark.parametrize("way", ["a scan over the layers", "a pipeline of microbatches"])
def test_a_stack_spread_over_its_layers_takes_the_steps_of_one_device(way, layers_on_one_device):
    params, expected = layers_on_one_device
    mesh = mesh_of(data=2, pipe=LAYERS)
    plan = shard.plan(params, PIPE, mesh)
    loss = net_loss if way == "a scan over the layers" else pipelined_loss(mesh)
    # copied, as what lies on every device after `place` shares the memory of what was given, and is donated with it
    placed = shard.place(jax.tree.map(jnp.copy, params), plan)
    found = trained(loss, placed, batches(mesh, P("data")))
    same(found, expected)
    kernel = found[1].params["blocks/:/inner/1/kernel"]
    assert kernel.sharding.spec == P("pipe")
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(1, WIDTH, 2 * WIDTH)}  # one layer each
    slots = [leaf.sharding.spec for _, leaf in pt.items(found[1].optimiser, "**/mu/blocks/**/kernel")]
    assert slots == [P("pipe")] * 2


def test_a_stack_spread_over_its_layers_is_planned_drawn_and_read_layer_by_layer():
    mesh, x = mesh_of(data=2, pipe=LAYERS), jnp.ones((ROWS, WIDTH))
    plan = shard.plan(NET.spec(x), PIPE, mesh)
    assert plan["blocks/:/inner/1/kernel"].spec == P("pipe")
    assert plan["blocks/3/inner/1/kernel"].spec == P()  # of the stack's axis nothing is left in one layer
    size = 4 * sum(leaf.size for _, leaf in pt.items(NET.spec(x), "blocks"))
    head = 4 * pt.count(NET.spec(x), "head")
    assert plan.bytes_per_device == size // LAYERS + head
    params = pt.init(NET.spec(x), jax.random.key(0), shardings=plan)
    alone = pt.init(NET.spec(x), jax.random.key(0))
    for path, leaf in pt.items(params):
        assert leaf.sharding == plan[path]
        np.testing.assert_array_equal(leaf, alone[path], err_msg=path)
    np.testing.assert_array_equal(params["blocks/2/inner/1/kernel"], alone["blocks/2/inner/1/kernel"])


def test_a_pipeline_that_does_not_divide_the_layers_is_an_error():
    with pytest.raises(
        shard.ShardingError, match=r"'blocks/:/inner/1/kernel'.*dimension 0 of size 4 cannot be divided by pipe=8"
    ):
        shard.plan(NET.spec(jnp.ones((1, WIDTH))), PIPE, mesh_of(pipe=8))


# ------------------------------------------------------------------------------- experts

EXPERTS = 4
EXPERT = nn.Sequential({"up": nn.Dense(16), "act": nn.Lambda(jax.nn.relu), "down": nn.Dense(WIDTH)})


def experts_spec():
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), "float32")
    spec = pt.Tree(
        {"router": nn.Dense(EXPERTS).spec(x), "experts": [EXPERT.spec(x)] * EXPERTS, "norm": nn.LayerNorm().spec(x)}
    )
    return pt.stacks.stack(spec, "experts")


def experts_loss(params, rows):
    """Each row goes to two experts, all of which run, one on each device."""
    normal = nn.LayerNorm()(params["norm"], rows)
    scores = jax.nn.softmax(nn.Dense(EXPERTS)(params["router"], normal))
    least = jax.lax.top_k(scores, 2)[0][:, -1:]
    gates = jnp.where(scores >= least, scores, 0)
    each = jax.vmap(EXPERT, in_axes=(0, None))(params["experts"][":"], normal)
    out = rows + jnp.einsum("re,erw->rw", gates, each)
    return jnp.square(out - 1).mean()


@pytest.fixture(scope="module")
def experts_on_one_device():
    params = pt.init(experts_spec(), jax.random.key(1))
    return trained(experts_loss, params, batches())


EXPERT_LAYOUTS = {
    "an expert on each device": {"experts/:": P("expert"), "**": P()},
    "an expert on two, each by columns and rows": {
        "experts/:/up/kernel": P("expert", None, "data"),
        "experts/:/up/bias": P("expert", "data"),
        "experts/:/down/kernel": P("expert", "data"),
        "experts/:": P("expert"),
        "**": P(),
    },
    "a layout for one expert": {
        "experts/*/up/kernel": P(None, "expert"),
        "experts/*/down/kernel": P("expert"),
        "**": P(),
    },
}


@pytest.mark.parametrize("layout", EXPERT_LAYOUTS)
def test_experts_spread_over_devices_take_the_steps_of_one_device(layout, experts_on_one_device):
    mesh = mesh_of(data=2, expert=EXPERTS)
    plan = shard.plan(experts_spec(), EXPERT_LAYOUTS[layout], mesh)
    params = pt.init(experts_spec(), jax.random.key(1), shardings=plan)
    losses, state = trained(experts_loss, params, batches(mesh, P("data")))
    same((losses, state), experts_on_one_device)
    for path, leaf in pt.items(state.params):
        assert leaf.sharding == plan[path], path
    parts = [shard.data.size for shard in state.params["experts/:/up/kernel"].addressable_shards]
    assert parts == [WIDTH * 16 // (2 if "two" in layout else 1)] * 8


def test_experts_come_back_from_a_file_onto_other_devices(tmp_path):
    spec = experts_spec()
    params = pt.init(
        spec,
        jax.random.key(1),
        shardings=shard.plan(spec, EXPERT_LAYOUTS["an expert on each device"], mesh_of(data=2, expert=4)),
    )
    pt.save(tmp_path / "experts.safetensors", params)
    plan = shard.plan(spec, {"experts/:": P("expert"), "**": P()}, mesh_of(expert=2, data=4))
    back = pt.load(tmp_path / "experts.safetensors", shardings=plan)
    for path, leaf in pt.items(params):
        assert back[path].sharding == plan[path]
        np.testing.assert_array_equal(back[path], leaf, err_msg=path)
