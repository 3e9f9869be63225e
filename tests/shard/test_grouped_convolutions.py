"""The gradient of a grouped convolution's kernel on meshes with automatic axes, where XLA's own is a multiple of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ptree import nn

LAYERS = {
    "depthwise": nn.Conv(8, (3, 3), groups=8),
    "strided": nn.Conv(16, (3, 2), groups=4, stride=2, padding="VALID"),
    "dilated": nn.Conv(8, (3, 3), groups=2, dilation=2, padding=((1, 2), 0), use_bias=False),
    "circular": nn.Conv(8, (3, 3), groups=4, padding="CIRCULAR"),
    "transposed": nn.ConvTranspose(8, (3, 3), groups=4, stride=2),
    "transposed, cropped": nn.ConvTranspose(16, (4, 3), groups=2, stride=(2, 1), padding=1),
}
IMAGES = jax.random.normal(jax.random.key(0), (8, 9, 9, 8))


def loss_of(layer):
    return lambda params, x: (jnp.sin(layer(params, x)) ** 2).sum()


def drawn(layer, x=IMAGES):
    return layer.init(jax.random.key(1), x)


def placed(tree, mesh, spec):
    return jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, spec)), tree)


def close(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, expected)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", [P("data"), P("model"), P(("data", "model"))], ids=str)
def test_gradients_are_those_of_one_device(name, batch):
    layer = LAYERS[name]
    params = drawn(layer)
    gradients = jax.jit(jax.grad(loss_of(layer), (0, 1)))
    expected = gradients(params, IMAGES)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    close(gradients(placed(params, mesh, P()), placed(IMAGES, mesh, batch)), expected)


def test_jax_itself_gives_a_multiple():
    """When this fails, JAX has mended it, and `ptree/nn/_grouped_convolution.py` can go."""
    kernel = drawn(LAYERS["depthwise"])["kernel"]
    numbers = ("NHWC", "HWIO", "NHWC")

    def loss(kernel, x):
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=8)
        return y.sum()

    gradient = jax.jit(jax.grad(loss))
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    got = gradient(placed(kernel, mesh, P()), placed(IMAGES, mesh, P("data")))
    np.testing.assert_allclose(got, 2 * gradient(kernel, IMAGES), rtol=1e-5, atol=1e-4)


def by_single_groups(layer, params, x):
    """The convolution of each group by a layer without groups."""
    single = nn.Conv(
        layer.features // layer.groups, layer.kernel_size, stride=layer.stride, padding=layer.padding, use_bias=False
    )
    inputs = jnp.split(x, layer.groups, -1)
    kernels = jnp.split(params["kernel"], layer.groups, -1)
    outputs = [single({"kernel": kernel}, part) for kernel, part in zip(kernels, inputs)]
    return jnp.concatenate(outputs, -1) + params["bias"]


@pytest.mark.parametrize("name", ["depthwise", "strided"])
def test_derivatives_of_all_orders_are_those_of_the_groups_apart(name):
    layer = LAYERS[name]
    params, x = drawn(layer), IMAGES[:2]
    tangents = jax.tree.map(jnp.cos, (params, x))
    apart = lambda params, x: by_single_groups(layer, params, x)
    close(jax.jvp(layer, (params, x), tangents), jax.jvp(apart, (params, x), tangents))
    twice = lambda f: jax.jvp(jax.grad(lambda *at: (f(*at) ** 3).mean(), (0, 1)), (params, x), tangents)
    close(twice(layer), twice(apart))
    per_example = lambda f: jax.vmap(jax.grad(lambda params, x: f(params, x[None]).sum()), (None, 0))(params, x)
    close(per_example(layer), per_example(apart))


def test_a_frozen_kernel_or_input_costs_no_convolution():
    layer = LAYERS["depthwise"]
    params = drawn(layer)

    def convolutions(argument):
        gradient = jax.grad(lambda params, x: layer(params, x).sum(), argument)
        return str(jax.make_jaxpr(gradient)(params, IMAGES)).count("conv_general_dilated[")

    assert (convolutions(0), convolutions(1), convolutions((0, 1))) == (2, 2, 3)
