"""The convolution of the layers beside `jax.lax.conv_general_dilated`, on one device: all derivatives and kinds of `vmap`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ptree import nn
from ptree.nn._convolution_primitive import convolution

CASES = {
    "one axis": ((2, 6, 4), (3, 4, 3), {"stride": (2,), "padding": "SAME", "dilation": (1,)}),
    "cropped": ((2, 7, 4), (2, 2, 6), {"stride": (1,), "padding": ((-1, 2),), "dilation": (2,), "groups": 2}),
    "depthwise": ((1, 4, 5, 3), (3, 2, 1, 6), {"stride": (1, 2), "padding": "VALID", "dilation": (1, 2), "groups": 3}),
    "transposed": (
        (2, 3, 3, 4),
        (3, 3, 2, 4),
        {"stride": (1, 1), "padding": ((2, 1), (1, 1)), "dilation": (1, 1), "groups": 2, "input_dilation": (2, 1)},
    ),
    "three axes": ((2, 3, 3, 2, 2), (2, 2, 1, 2, 2), {"stride": (1, 2, 1), "padding": "SAME", "dilation": (1, 1, 1)}),
}
AXES = [(0, 0), (1, -1), (0, None), (None, 1)]
"""Which axes of input and kernel `vmap` goes over."""


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape).astype("float32"))


def both(name):
    """The layers' convolution, and JAX's with the same options."""
    x, kernel, options = CASES[name]
    space = "DHW"[5 - len(x) :]
    axes = jax.lax.conv_dimension_numbers(x, kernel, (f"N{space}C", f"{space}IO", f"N{space}C"))
    by_jax = partial(
        jax.lax.conv_general_dilated,
        window_strides=options["stride"],
        padding=options["padding"],
        lhs_dilation=options.get("input_dilation"),
        rhs_dilation=options["dilation"],
        dimension_numbers=axes,
        feature_group_count=options.get("groups", 1),
    )
    return partial(convolution, numbers=axes, **options), by_jax


def derivatives(function, x, kernel):
    """Values, forward and backward derivatives, and those of second order both ways."""
    tangents = jnp.cos(x), jnp.cos(kernel)
    gradients = jax.grad(lambda x, kernel: jnp.sin(function(x, kernel)).sum(), (0, 1))
    norm = lambda x, kernel: sum((leaf**2).sum() for leaf in gradients(x, kernel))
    return jax.jvp(function, (x, kernel), tangents), jax.jvp(gradients, (x, kernel), tangents), jax.grad(norm, (0, 1))(x, kernel)


def close(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max()), got, expected)


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_jax(name):
    inputs = numbers(*CASES[name][0]), numbers(*CASES[name][1])
    got, expected = (jax.jit(partial(derivatives, function))(*inputs) for function in both(name))
    close(got, expected)


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_vmap_is_that_of_jax(axes):
    x, kernel = (numbers(3, *shape) for shape in CASES["cropped"][:2])
    inputs = [
        array[0] if axis is None else jnp.moveaxis(array, 0, axis) for array, axis in zip((x, kernel), axes, strict=True)
    ]

    def gradients(function):
        members = jax.vmap(function, axes)
        return jax.jit(jax.value_and_grad(lambda x, kernel: jnp.sin(members(x, kernel)).sum(), (0, 1)))(*inputs)

    got, expected = map(gradients, both("cropped"))
    close(got, expected)


def test_gradients_for_each_example_and_vmap_of_vmap_are_those_of_jax():
    x, kernel = numbers(2, 3, *CASES["cropped"][0]), numbers(2, *CASES["cropped"][1])

    def gradients(function):
        single = jax.grad(lambda x, kernel: jnp.sin(function(x, kernel)).sum(), (0, 1))
        return jax.jit(jax.vmap(jax.vmap(single, (0, None))))(x, kernel)

    got, expected = map(gradients, both("cropped"))
    close(got, expected)


def test_vmap_over_no_members_gives_none():
    own, _ = both("cropped")
    x, kernel = jnp.zeros((0, 2, 7, 4)), jnp.zeros((0, 2, 2, 6))
    assert jax.vmap(own)(x, kernel).shape == (0, 2, 6, 6)
    assert jax.vmap(own, (None, 0))(x[:0].sum(0), kernel).shape == (0, 2, 6, 6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_stays(dtype):
    layer = nn.Conv(6, 3, groups=2, dtype=dtype)
    x = numbers(2, 6, 4)
    params = layer.init(jax.random.key(0), x)
    assert layer(params, x).dtype == dtype
    gradient = jax.jit(jax.grad(lambda params: layer(params, x).astype("float32").sum()))(params)
    full = jax.grad(lambda params: nn.Conv(6, 3, groups=2)(params, x).sum())(params)
    np.testing.assert_allclose(gradient["kernel"], full["kernel"], rtol=0.05, atol=0.1)


def test_a_precision_around_the_call_is_that_of_the_convolution():
    own, _ = both("one axis")
    inputs = numbers(*CASES["one axis"][0]), numbers(*CASES["one axis"][1])

    def program(precision):
        def function(x, kernel):
            with jax.default_matmul_precision(precision):
                return own(x, kernel)

        return jax.jit(function).lower(*inputs).as_text()

    assert "HIGHEST" in program("highest")
    assert "HIGHEST" not in program("bfloat16")


def test_a_gradient_is_exported_for_batches_of_all_sizes():
    layer = nn.Conv(4, (3, 3), stride=2)
    x = numbers(2, 6, 6, 3)
    params = layer.init(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda params, x: jnp.sin(layer(params, x)).sum()))
    (batch,) = export.symbolic_shape("batch")
    shapes = jax.eval_shape(lambda: params), jax.ShapeDtypeStruct((batch, 6, 6, 3), x.dtype)
    exported = export.deserialize(export.export(gradient)(*shapes).serialize())
    close(dict(exported.call(params, x)), dict(gradient(params, x)))


def test_a_stack_of_convolutions_computed_again_in_the_backward_pass():
    x = numbers(2, 6, 4)
    stack = nn.Repeat(nn.Conv(4, 3), 3, remat=True)
    params = stack.init(jax.random.key(0), x)
    plain = nn.Repeat(nn.Conv(4, 3), 3, scan=False)
    loss = lambda net: jax.jit(jax.grad(lambda params: jnp.sin(net(params, x)).sum()))(params)
    close(loss(stack), loss(plain))


@pytest.mark.parametrize("scan", [True, False])
def test_a_policy_that_saves_products_saves_convolutions(scan):
    x = numbers(2, 6, 4)

    def convolutions(remat):
        stack = nn.Repeat(nn.Sequential(nn.Conv(4, 3), jnp.sin), 2, remat=remat, scan=scan)
        params = stack.init(jax.random.key(0), x)
        gradient = jax.grad(lambda params: jnp.sin(stack(params, x)).sum())
        return str(jax.make_jaxpr(gradient)(params)).count("conv_general_dilated[")

    assert convolutions(jax.checkpoint_policies.dots_saveable) == convolutions(False)
    assert convolutions(True) > convolutions(False)


def test_a_frozen_kernel_or_input_costs_no_convolution():
    layer = nn.Conv(8, (3, 3), groups=8)
    images = numbers(8, 9, 9, 8)
    params = layer.init(jax.random.key(1), images)

    def convolutions(argument):
        gradient = jax.grad(lambda params, x: layer(params, x).sum(), argument)
        return str(jax.make_jaxpr(gradient)(params, images)).count("conv_general_dilated[")

    assert (convolutions(0), convolutions(1), convolutions((0, 1))) == (2, 2, 3)
