"""What is compiled and what is kept: numbers are arguments of a program, and programs of functions go with them."""

import gc
import weakref
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree import initializers as I
from ptree._draw import compilers

KEY = jax.random.key(0)
PARAMS = {"w": jnp.zeros((6, 10))}


@pytest.fixture
def compilations():
    """The events of XLA's compilations so far."""
    events = []

    def listen(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("make", [
    lambda n: I.normal(n), lambda n: I.normal(1.0, n), lambda n: I.truncated_normal(n), lambda n: I.truncated_normal(1.0, lower=-n),
    lambda n: I.rescaled_truncated_normal(n), lambda n: I.uniform(-n, n / 2), lambda n: I.variance_scaling(n), lambda n: I.variance_scaling(n, "fan_avg", "uniform"),
    lambda n: I.xavier_uniform(n), lambda n: I.kaiming_normal(n), lambda n: I.orthogonal(n), lambda n: I.sparse(n / 9, n), lambda n: I.mup(8 * n, n),
    lambda n: I.gpt2_residual(int(8 * n)), lambda n: I.torch_linear(8 * n), lambda n: I.mxnet_default(n),
    lambda n: I.mixture((n / 9, I.normal(n)), (1 - n / 9, I.uniform(0, n))), lambda n: I.mixture((0.5, I.constant(n)), (0.5, I.zeros)),
], ids=lambda make: repr(make(1.0)))  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_initialisers_that_differ_in_numbers_share_a_program(make, dtype, compilations):
    def draw(n):
        return pt.init({"w": pt.Param((7, 9), dtype, make(n))}, KEY)["w"]

    first = draw(1.5)
    before = len(compilations)
    values = [draw(1 + n / 16) for n in range(5)]
    assert len(compilations) == before
    assert all(not (value == first).all() for value in values)  # the numbers are not those of the first
    again = pt.init({"w": pt.Param((7, 9), dtype, make(1.25))}, KEY)["w"]
    assert (again == values[4]).all()


def test_a_model_with_a_spread_for_each_layer_compiles_once(compilations):
    spec = {f"layer{at}": pt.Param((5, 11), init=I.normal(0.02 / (1 + at) ** 0.5)) for at in range(40)}
    pt.random.keys(spec, KEY)
    before = len(compilations)
    params = pt.init(spec, KEY)
    assert len(compilations) <= before + 1
    for at in (0, 7, 39):
        alone = pt.init({f"layer{at}": spec[f"layer{at}"]}, KEY)
        assert (alone[f"layer{at}"] == params[f"layer{at}"]).all()


def test_what_was_compiled_of_a_function_goes_with_the_function():
    def once():
        initializer = lambda key, shape, dtype: jax.random.normal(key, shape, dtype) * 3
        pt.reinit(PARAMS, KEY, {"w": initializer})
        assert initializer in compilers._compilers
        return weakref.ref(initializer)

    references = [once() for _ in range(3)]
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    assert not any(key.__name__ == "<lambda>" and "once" in key.__qualname__ for key in compilers._compilers)


def test_a_function_that_is_kept_is_compiled_once(compilations):
    initializer = jax.nn.initializers.normal(0.5)
    spec = {"w": pt.Param((3, 13), init=initializer), "v": pt.Param((3, 13), init=initializer)}
    keys = [jax.random.key(seed) for seed in range(3)]
    pt.init(spec, KEY)
    before = len(compilations)
    for key in keys:
        pt.init(spec, key)
    assert len(compilations) == before


@dataclass(frozen=True)
class Scaled:
    factor: float

    def __call__(self, key, shape, dtype):
        return jax.random.normal(key, shape, dtype) * self.factor


class Model:
    def start(self, key, shape, dtype):
        return jnp.ones(shape, dtype)


def test_functions_that_are_equal_share_a_program_and_few_are_kept(compilations):
    model = Model()
    for make in (lambda: Scaled(2.0), lambda: model.start, lambda: I.mixture((0.5, I.zeros), (0.5, Scaled(3.0)))):
        pt.reinit(PARAMS, KEY, {"w": make()})
        before = len(compilations)
        pt.reinit(PARAMS, KEY, {"w": make()})
        assert len(compilations) == before
    for factor in np.linspace(0, 1, 3):
        pt.reinit(PARAMS, KEY, {"w": Scaled(float(factor))})
    for cache in (compilers._compiler_by_value, compilers._compiled_structure):
        assert cache.cache_info().maxsize <= 512
    assert compilers._compiler_by_value.cache_info().maxsize <= 32


def test_the_recipe_of_a_program_is_found_with_a_mesh_and_inside_of_jit():
    mesh = jax.make_mesh((8,), ("data",))
    spec = {
        "w": pt.Param((16, 4), "bfloat16", I.truncated_normal(0.3)),
        "v": pt.Param((16, 4), init=I.xavier_uniform()),
    }
    whole = pt.init(spec, KEY)
    for shardings in (jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()):
        params = pt.init(spec, KEY, shardings=shardings, mesh=mesh)
        assert all((params[path] == whole[path]).all() for path in spec)
    device = jax.devices()[3]
    assert pt.init(spec, jax.device_put(KEY, device))["w"].devices() == {device}
