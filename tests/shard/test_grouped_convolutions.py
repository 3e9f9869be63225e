"""Convolutions in groups and under `jax.vmap` on meshes of several axes, where XLA's own gradient is a multiple of the true one."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ptree import nn, shard, train

LAYERS = {
    "depthwise": nn.Conv(8, (3, 3), groups=8),
    "strided": nn.Conv(16, (3, 2), groups=4, stride=2, padding="VALID"),
    "dilated": nn.Conv(8, (3, 3), groups=2, dilation=2, padding=((1, 2), 0), use_bias=False),
    "circular": nn.Conv(8, (3, 3), groups=4, padding="CIRCULAR"),
    "transposed": nn.ConvTranspose(8, (3, 3), groups=4, stride=2),
    "transposed, cropped": nn.ConvTranspose(16, (4, 3), groups=2, stride=(2, 1), padding=1),
}
IMAGES = jax.random.normal(jax.random.key(0), (8, 9, 9, 8))
SMALL = jax.random.normal(jax.random.key(2), (3, 8, 5, 5, 4))
"""An input of its own for each member of an ensemble."""
MEMBERS = {
    "Conv": nn.Conv(8, (3, 3), stride=2),
    "ConvTranspose": nn.ConvTranspose(8, (3, 3), stride=2),
    "Conv, groups": nn.Conv(8, (3, 3), groups=2),
}
BATCHES = [P("data"), P("model"), P(("data", "model"))]


def mesh_of(kind=AxisType.Auto):
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(kind,) * 2)


def loss_of(layer):
    return lambda params, x: (jnp.sin(layer(params, x)) ** 2).sum()


def drawn(layer, x=IMAGES):
    return layer.init(jax.random.key(1), x)


def ensemble(layer, x=SMALL):
    """The parameters of three members, stacked."""
    return jax.vmap(layer.init, (0, None))(jax.random.split(jax.random.key(1), 3), x[0])


def placed(tree, mesh, spec):
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, spec)), tree)


def close(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=5e-5), got, expected)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_gradients_are_those_of_one_device(name, batch):
    layer = LAYERS[name]
    params = drawn(layer)
    gradients = jax.jit(jax.grad(loss_of(layer), (0, 1)))
    expected = gradients(params, IMAGES)
    mesh = mesh_of()
    close(gradients(placed(params, mesh, P()), placed(IMAGES, mesh, batch)), expected)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", MEMBERS)
def test_the_gradients_of_an_ensemble_are_those_of_one_device(name, kind):
    members = jax.vmap(MEMBERS[name])
    params, mesh = ensemble(MEMBERS[name]), mesh_of(kind)
    function = jax.jit(jax.value_and_grad(loss_of(members), (0, 1)))
    expected = function(params, SMALL)
    with nullcontext() if kind == AxisType.Auto else jax.set_mesh(mesh):
        for batch in BATCHES:
            close(function(placed(params, mesh, P()), placed(SMALL, mesh, P(None, *batch))), expected)


def test_an_ensemble_whose_members_are_split_has_the_gradients_of_one_device():
    members, mesh = jax.vmap(nn.Conv(8, (3, 3))), mesh_of()
    inputs = jnp.concatenate([SMALL, SMALL[:1] + 1])
    params = jax.vmap(nn.Conv(8, (3, 3)).init, (0, None))(jax.random.split(jax.random.key(1), 4), SMALL[0])
    function = jax.jit(jax.value_and_grad(loss_of(members), (0, 1)))
    got = function(placed(params, mesh, P("model")), placed(inputs, mesh, P(None, "data")))
    close(got, function(params, inputs))


@pytest.mark.parametrize("name", ["Conv", "Conv, groups"])
def test_derivatives_forward_and_of_second_order_are_those_of_one_device(name):
    """XLA ends the process at the second gradient of JAX's own convolutions in groups."""
    members, mesh = jax.vmap(MEMBERS[name]), mesh_of()
    params = ensemble(MEMBERS[name])
    gradients = jax.grad(lambda params, x: loss_of(members)(params, x) / 50, (0, 1))

    @jax.jit
    def derivatives(params, x):
        tangents = jax.tree.map(jnp.cos, (params, x))
        size = lambda params, x: sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients(params, x)))
        return jax.jvp(members, (params, x), tangents)[1], jax.grad(size, (0, 1))(params, x)

    close(derivatives(placed(params, mesh, P()), placed(SMALL, mesh, P(None, "data"))), derivatives(params, SMALL))


def test_an_ensemble_of_networks_is_trained_as_on_one_device():
    blocks = {"stem": nn.Conv(4, (3, 3)), "more": nn.Conv(4, (3, 3), groups=2), "up": nn.ConvTranspose(4, (2, 2))}
    net = nn.Sequential({**blocks, "relu": jax.nn.relu, "flat": nn.Flatten(), "head": nn.Dense(4)})
    images, labels = SMALL[0], jnp.arange(8) % 4
    params = jax.vmap(net.init, (0, None))(jax.random.split(jax.random.key(1), 3), images)

    def loss(params, batch):
        images, labels = batch
        losses = jax.vmap(
            lambda params: optax.softmax_cross_entropy_with_integer_labels(net(params, images), labels).mean()
        )
        return losses(params).sum()

    def trained(params, batch):
        step = train.step(loss, optax.sgd(0.05), donate=False)
        state = step.init(params)
        losses = []
        for _ in range(5):
            state, metrics = step(state, batch)
            losses.append(float(metrics.loss))
        return losses

    mesh = mesh_of()
    batch = placed((images, labels), mesh, P("data"))
    on_mesh = trained(shard.place(params, shard.plan(params, P(), mesh)), batch)
    np.testing.assert_allclose(on_mesh, trained(params, (images, labels)), rtol=1e-5)


def test_parts_of_a_batch_in_shard_map_have_the_gradients_of_the_whole():
    layer, mesh = LAYERS["depthwise"], mesh_of()
    params = drawn(layer)
    by_part = jax.shard_map(
        lambda params, x: jax.lax.psum(loss_of(layer)(params, x), "data"),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
    )
    gradients = lambda loss: jax.jit(jax.grad(loss, (0, 1)))(params, IMAGES)
    close(gradients(by_part), gradients(loss_of(layer)))


def test_jax_itself_gives_a_multiple():
    """When this fails, JAX has mended it, and `ptree/nn/_convolution_primitive.py` can go."""
    kernel = drawn(LAYERS["depthwise"])["kernel"]
    numbers = ("NHWC", "HWIO", "NHWC")

    def loss(kernel, x):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=8)
        return y.sum()

    gradient = jax.jit(jax.grad(loss))
    mesh = mesh_of()
    got = gradient(placed(kernel, mesh, P()), placed(IMAGES, mesh, P("data")))
    np.testing.assert_allclose(got, 2 * gradient(kernel, IMAGES), rtol=1e-5, atol=1e-4)
