"""Every layer of ptree.nn under `jax.set_mesh` with explicit axes, in every layout, beside the same layer on one device."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import nn

EXPLICIT, AUTO = AxisType.Explicit, AxisType.Auto


def mesh_of(*kinds: AxisType) -> jax.sharding.Mesh:
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds or (EXPLICIT, EXPLICIT), devices=jax.devices()[:4])


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


# ------------------------------------------------------------------------------------------- layers


@dataclasses.dataclass
class Case:
    layer: nn.Layer
    x: jax.Array
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    call: Callable[..., Any] | None = None

    def loss(self, params: Any, x: jax.Array, options: dict[str, Any]) -> tuple[jax.Array, Any]:
        """A sum in which each element of all outputs has its own weight, and the outputs."""
        call = self.call or (lambda layer, params, x, **options: layer(params, x, **options))
        y = call(self.layer, params, x, **options)
        total = jnp.zeros(())
        for leaf in jax.tree.leaves(y):
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                weights = jnp.arange(1, leaf.size + 1, dtype=leaf.dtype).reshape(leaf.shape) / leaf.size
                total += ((1 + jnp.sin(leaf)) * weights).sum()
        return total, y


class Doubled(nn.Layer):
    """A layer of one's own, of operations for each element."""

    def declare(self, x):
        return {"scale": pt.Param((x.shape[-1],), init=pt.initializers.ones)}

    def apply(self, params, x):
        return 2 * params["scale"] * x


def updated(layer, params, x, **options):
    return layer.updated(params, x, **options)


def with_state(layer, params, x, **options):
    return layer.run(params, x, **options)


def decoded(layer, params, x, **options):
    """Three places at once, then one."""
    y, cache = layer(params, x[:, :3], **options)
    z, cache = layer(params, x[:, 3:], cache=cache)
    return y, z, cache


SEQUENCE, IMAGES = numbers(4, 4, 8), numbers(4, 8, 8, 4)
IDS = jax.random.randint(jax.random.key(3), (4, 6), 0, 16)
SEEN = jnp.arange(4) < jnp.array([[4], [2], [3], [1]])
ATTENTION = nn.MultiHeadAttention(4, causal=True, rotary=1e4)
BLOCK = nn.Sequential(
    nn.Residual(nn.Sequential(nn.LayerNorm(), ATTENTION)),
    nn.Residual(nn.Sequential(nn.RMSNorm(), nn.Dense(16), jax.nn.gelu, nn.Dense(8))),
)
CASES: dict[str, dict[str, Case]] = {
    "Layer": {"own": Case(Doubled(), SEQUENCE)},
    "Dense": {
        "matrix": Case(nn.Dense(16), SEQUENCE),
        "heads": Case(nn.Dense((4, 2)), SEQUENCE),
        "of heads": Case(nn.Dense(6, axis=(-2, -1), use_bias=False), SEQUENCE),
    },
    "Embedding": {
        "lookup": Case(nn.Embedding(16, 8, padding_idx=3), IDS),
        "attend": Case(nn.Embedding(16, 8), SEQUENCE, call=lambda layer, params, x: layer.attend(params, x)),
    },
    "Conv": {
        "two axes": Case(nn.Conv(8, (3, 3), stride=2), IMAGES),
        "groups": Case(nn.Conv(8, 3, groups=2, padding="CAUSAL"), SEQUENCE),
        "circular": Case(nn.Conv(8, 3, padding="CIRCULAR"), SEQUENCE),
    },
    "ConvTranspose": {"two axes": Case(nn.ConvTranspose(8, (3, 3), stride=2), IMAGES)},
    "LayerNorm": {"last": Case(nn.LayerNorm(), SEQUENCE), "all": Case(nn.LayerNorm(axis=(-2, -1)), SEQUENCE)},
    "RMSNorm": {"last": Case(nn.RMSNorm(), SEQUENCE)},
    "GroupNorm": {"groups": Case(nn.GroupNorm(2), IMAGES)},
    "BatchNorm": {
        "in use": Case(nn.BatchNorm(), IMAGES),
        "training": Case(nn.BatchNorm(), SEQUENCE, {"train": True, "mask": SEEN}),
        "updated": Case(nn.BatchNorm(), SEQUENCE, call=updated),
    },
    "MultiHeadAttention": {
        "causal": Case(ATTENTION, SEQUENCE),
        "grouped": Case(nn.MultiHeadAttention(4, kv_heads=2, qk_norm=nn.RMSNorm()), SEQUENCE, {"mask": SEEN[:, None, None]}),
        "context": Case(nn.MultiHeadAttention(4), SEQUENCE, {"context": numbers(4, 6, 8, seed=5)}),
        "dropout": Case(nn.MultiHeadAttention(4, dropout=0.5), SEQUENCE, {"key": jax.random.key(7), "train": True}),
        "cache": Case(ATTENTION, SEQUENCE, {"cache": ATTENTION.cache(4, 6, 2)}, decoded),
        "cache by row": Case(ATTENTION, SEQUENCE, {"cache": ATTENTION.cache(4, 8, 2) | {"length": jnp.arange(4)}}, decoded),
    },
    "Rotary": {"pairs": Case(nn.MultiHeadAttention(4, rotary=nn.Rotary(1e4, pairs=True)), SEQUENCE)},
    "LSTM": {
        "sequence": Case(nn.LSTM(8), SEQUENCE),
        "state": Case(nn.LSTM(8), SEQUENCE, {"state": (numbers(4, 8), numbers(4, 8)), "lengths": jnp.array([4, 2, 3, 1])}, with_state),
    },
    "GRU": {"sequence": Case(nn.GRU(8), SEQUENCE), "odd": Case(nn.GRU(6), SEQUENCE, {"lengths": jnp.array([4, 2, 3, 1])})},
    "RNN": {"reverse": Case(nn.RNN(8, reverse=True), SEQUENCE)},
    "Bidirectional": {
        "joined": Case(nn.Bidirectional(nn.LSTM(8)), SEQUENCE, {"lengths": jnp.array([4, 2, 3, 1])}),
        "added": Case(nn.Bidirectional(nn.GRU(8), combine=jnp.add), SEQUENCE),
    },
    "MaxPool": {"two axes": Case(nn.MaxPool(2), IMAGES)},
    "AvgPool": {"edges": Case(nn.AvgPool(3, stride=2, padding="SAME", count_padding=False), IMAGES)},
    "Dropout": {"training": Case(nn.Dropout(0.5), SEQUENCE, {"key": jax.random.key(5)}), "in use": Case(nn.Dropout(0.5), SEQUENCE)},
    "Flatten": {"images": Case(nn.Flatten(), IMAGES)},
    "Lambda": {"gelu": Case(nn.Lambda(jax.nn.gelu), SEQUENCE)},
    "Sequential": {
        "network": Case(
            nn.Sequential(nn.Conv(8, (3, 3)), nn.BatchNorm(), jax.nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dense(6)), IMAGES, call=updated
        ),
    },
    "Residual": {"block": Case(BLOCK, SEQUENCE)},
    "Parallel": {"sum": Case(nn.Parallel(nn.Dense(8), nn.Sequential(nn.Dense(16), nn.Dense(8)), nn.Lambda(jnp.tanh)), SEQUENCE)},
    "Repeat": {
        "stacked": Case(nn.Repeat(BLOCK, 2), SEQUENCE),
        "apart": Case(nn.Repeat(BLOCK, 2, scan=False), SEQUENCE),
        "unrolled": Case(nn.Repeat(BLOCK, 2, unroll=True), SEQUENCE),
        "remat": Case(nn.Repeat(BLOCK, 2, remat=True), SEQUENCE),
        "shared": Case(nn.Repeat(nn.Residual(nn.Dense(8)), 2, shared=True), SEQUENCE),
        "statistics": Case(nn.Repeat(nn.Sequential(nn.Dense(8), nn.BatchNorm()), 2), SEQUENCE, call=updated),
        "dropout": Case(nn.Repeat(nn.Sequential(nn.Dense(8), nn.Dropout(0.5)), 2), SEQUENCE, {"key": jax.random.key(5)}),
    },
}  # fmt: skip
ALL = [(name, kind) for name, cases in CASES.items() for kind in cases]


def test_every_public_layer_has_a_case():
    assert {*CASES} == {*nn.__all__}


# ------------------------------------------------------------------------------------------- layouts


def split(shape: tuple[int, ...], **axes: int) -> P:
    """A PartitionSpec that splits the axis of this number by each mesh axis, where it divides."""
    entries: list[Any] = [None] * len(shape)
    for name, axis in axes.items():
        if -len(shape) <= axis < len(shape) and shape[axis] % 2 == 0 and entries[axis] is None:
            entries[axis] = name
    return P(*entries)


def largest(shape: tuple[int, ...]) -> int:
    return int(np.argmax(shape)) if shape else 0


def column(path: str, shape: tuple[int, ...]) -> int:
    return 1 if re.search(r"\b[qkv]/kernel", path) else -1


def row(path: str, shape: tuple[int, ...]) -> int:
    if path.endswith("table"):
        return 0
    if not path.endswith("kernel"):
        return 9  # not split
    return 0 if re.search(r"\b[qkvo]/kernel", path) or len(shape) < 3 else -2


LAYOUTS: dict[str, Callable[[str, tuple[int, ...]], P]] = {
    "data": lambda path, shape: P(),
    "fsdp": lambda path, shape: split(shape, data=largest(shape)),
    "column": lambda path, shape: split(shape, model=column(path, shape)),
    "row": lambda path, shape: split(shape, model=row(path, shape)),
    "both": lambda path, shape: split(shape, model=row(path, shape), data=column(path, shape)),
}


def spec_of_layer(layout: str, path: str, leaf: Any) -> P:
    stacks = path.split("/").count(":")
    spec = LAYOUTS[layout](path, leaf.shape[stacks:])
    return P(*[None] * stacks, *spec)


def placed_params(params: pt.Tree, layout: str, mesh: jax.sharding.Mesh) -> pt.Tree:
    placed = {
        path: jax.device_put(leaf, NamedSharding(mesh, spec_of_layer(layout, path, leaf)))
        for path, leaf in pt.items(params)
    }
    return pt.unflatten(placed, like=params)


def along_batch(array: Any, batch: int, mesh: jax.sharding.Mesh) -> Any:
    """An input whose batch, its first axis, is split over the data; keys, small masks and lengths of all stay whole."""
    if not isinstance(array, jax.Array) or jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return array
    return jax.device_put(array, NamedSharding(mesh, P("data") if array.shape[:1] == (batch,) else P()))


def close(got: Any, expected: Any) -> None:
    got, expected = jax.device_get(got), jax.device_get(expected)
    if got.dtype.kind == "f":
        scale = max(float(np.nanmax(np.abs(expected), initial=0)), 0.1)  # a gradient of 0 has the rounding of its terms
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * scale)
    else:
        np.testing.assert_array_equal(got, expected)


def by_entry(array: jax.Array) -> list[Any]:
    spec = tuple(array.sharding.spec)
    return [*spec, *[None] * (array.ndim - len(spec))]


def drawn(layer: nn.Layer, x: jax.Array) -> pt.Tree:
    """Parameters of which no number is a special one; a variance is above 0."""
    leaves: dict[str, jax.Array] = {}
    params = layer.init(jax.random.key(1), x)
    for at, (path, leaf) in enumerate(pt.items(params)):
        moved = leaf + 0.3 * numbers(*leaf.shape, seed=at)
        leaves[path] = jnp.abs(moved) if path.endswith("var") else moved
    return pt.unflatten(leaves, like=params) if leaves else params


@pytest.fixture(scope="module")
def on_one_device():
    """Loss, outputs and gradients of each case without a mesh, computed once."""
    found: dict[Any, Any] = {}

    def run(name: str, kind: str) -> Any:
        if (name, kind) not in found:
            case = CASES[name][kind]
            params = drawn(case.layer, case.x)
            found[name, kind] = params, value_and_gradients(case, params, case.x, case.options, jitted=True)
        return found[name, kind]

    return run


def value_and_gradients(case: Case, params: Any, x: jax.Array, options: dict[str, Any], *, jitted: bool) -> Any:
    static = {name: value for name, value in options.items() if isinstance(value, bool)}
    arrays = {name: value for name, value in options.items() if name not in static}
    wrt = (0, 1) if jnp.issubdtype(x.dtype, jnp.floating) else 0
    function = jax.value_and_grad(
        lambda params, x, arrays: case.loss(params, x, {**static, **arrays}), wrt, has_aux=True
    )
    return (jax.jit(function) if jitted else function)(params, x, arrays)


def run_on(mesh: jax.sharding.Mesh, layout: str, case: Case, params: Any, *, jitted: bool) -> Any:
    with jax.set_mesh(mesh):
        batch = len(case.x)
        options = jax.tree.map(lambda leaf: along_batch(leaf, batch, mesh), case.options)
        return value_and_gradients(
            case, placed_params(params, layout, mesh), along_batch(case.x, batch, mesh), options, jitted=jitted
        )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name, kind", ALL)
def test_values_and_gradients_are_those_of_one_device(name, kind, layout, on_one_device):
    params, expected = on_one_device(name, kind)
    got = run_on(mesh_of(), layout, CASES[name][kind], params, jitted=True)
    jax.tree.map(close, got, expected)
