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
from ptree import nn, train

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
ALL = [(name, kind) for name, cases in CASES.items() for kind in cases if kind not in ("apart", "unrolled", "remat")]
"""Of these forms of Repeat values are compared where a stack is trained."""
CONTAINERS = {"Sequential", "Residual", "Parallel", "Repeat"}
"""Their kernels are those of other layers."""


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
        scale = max(float(np.nanmax(np.abs(expected), initial=0)), 0.5)  # a gradient of 0 has the rounding of its terms
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * scale)
    else:
        np.testing.assert_array_equal(got, expected)


def by_entry(array: Any) -> list[Any]:
    """What splits each axis of an array, or of its shape and sharding."""
    spec = tuple(array.sharding.spec)
    return [*spec, *[None] * (len(array.shape) - len(spec))]


def drawn(layer: nn.Layer, *inputs: jax.Array) -> pt.Tree:
    """Parameters of which no number is a special one, without compiling a draw; a variance is above 0."""
    draw = np.random.default_rng(0)

    def number(path: str, leaf: pt.Param) -> jax.Array:
        values = draw.normal(0.5 if path.endswith("scale") else 0, 0.5, leaf.shape).astype("float32")
        return jnp.asarray(np.abs(values) + 0.5 if path.endswith("var") else values)

    spec = layer.spec(*inputs)
    leaves = {path: number(path, leaf) for path, leaf in pt.items(spec)}
    return pt.unflatten(leaves, like=spec) if leaves else spec


def function_of(case: Case) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The loss, outputs and gradients of a case as a function of arrays, and its options that are arrays."""
    static = {name: value for name, value in case.options.items() if isinstance(value, bool)}
    arrays = {name: value for name, value in case.options.items() if name not in static}
    wrt = (0, 1) if jnp.issubdtype(case.x.dtype, jnp.floating) else 0
    return jax.value_and_grad(
        lambda params, x, given: case.loss(params, x, {**static, **given}), wrt, has_aux=True
    ), arrays


def placed_inputs(case: Case, params: pt.Tree, layout: str, mesh: jax.sharding.Mesh) -> tuple[Any, Any, Any]:
    _, arrays = function_of(case)
    batch = len(case.x)
    options = jax.tree.map(lambda leaf: along_batch(leaf, batch, mesh), arrays)
    return placed_params(params, layout, mesh), along_batch(case.x, batch, mesh), options


def specs_of(function: Callable[..., Any], *inputs: Any) -> list[tuple[Any, ...]]:
    """How each output of a function is split, by tracing alone."""
    return [tuple(aval.sharding.spec) for aval in jax.jit(function).trace(*inputs).jaxpr.out_avals]


def is_refused(name: str, layout: str) -> bool:
    """Whether JAX cannot run a layer of one's own, which multiplies what one mesh axis splits differently."""
    return name == "Layer" and layout in ("fsdp", "both")


# ------------------------------------------------------------------------------------------- all layers, all layouts


@pytest.mark.parametrize("name", CASES)
def test_batches_stay_split_and_gradients_are_split_as_their_parameters(name):
    mesh = mesh_of()
    for kind, case in CASES[name].items():
        params = drawn(case.layer, case.x)
        function, _ = function_of(case)
        for layout in LAYOUTS:
            if is_refused(name, layout):
                continue
            with jax.set_mesh(mesh):
                inputs = placed_inputs(case, params, layout, mesh)
                (_, ys), grads = jax.jit(function).trace(*inputs).out_info
            wrt = inputs[:2] if isinstance(grads, tuple) else inputs[0]
            for leaf, grad in zip(jax.tree.leaves(wrt), jax.tree.leaves(grads), strict=True):
                assert by_entry(grad) == by_entry(leaf), (kind, layout)
            for y in jax.tree.leaves(ys):
                if y.shape[:1] == case.x.shape[:1] and not isinstance(ys, pt.Tree) and "cache" not in kind:
                    assert y.sharding.spec[0] == "data", (kind, layout)


def value_layouts(name: str, kind: str, params: pt.Tree) -> list[str]:
    """The layouts whose values are compared: for each layer with a kernel, or a table, those that split it one way too."""
    layouts = ["row" if is_refused(name, "both") else "both"]
    is_first = kind == next(iter(CASES[name]))
    has_kernel = any(path.endswith(("kernel", "table")) for path in pt.paths(params))
    if is_first and has_kernel and name not in CONTAINERS:
        layouts += ["column", "row"]
    return layouts


@pytest.mark.parametrize(("name", "kind"), ALL)
def test_values_and_gradients_are_those_of_one_device(name, kind):
    case, mesh = CASES[name][kind], mesh_of()
    params = drawn(case.layer, case.x)
    function, arrays = function_of(case)
    expected = jax.jit(function)(params, case.x, arrays)
    with jax.set_mesh(mesh):
        inputs = [placed_inputs(case, params, layout, mesh) for layout in value_layouts(name, kind, params)]
        # one program for all layouts is compiled faster than one for each
        got = jax.jit(lambda inputs: [function(*each) for each in inputs])(inputs)
    for each in got:
        jax.tree.map(close, each, expected)


@pytest.mark.parametrize("layout", ["column", "fsdp"])
@pytest.mark.parametrize(
    ("name", "kind"), [("Dense", "matrix"), ("Embedding", "lookup"), ("MultiHeadAttention", "causal")]
)
def test_values_outside_of_jit_are_those_of_one_device(name, kind, layout):
    case, mesh = CASES[name][kind], mesh_of()
    params = drawn(case.layer, case.x)
    expected = case.layer(params, case.x)
    with jax.set_mesh(mesh):
        placed, x, _ = placed_inputs(case, params, layout, mesh)
        got = case.layer(placed, x)
    close(got, expected)
    assert by_entry(got)[0] == "data"


# ------------------------------------------------------------------------------------------- how outputs are split


@pytest.mark.parametrize(
    ("layer", "layout", "expected"),
    [
        (nn.Dense(16), "data", ("data", None, None)),
        (nn.Dense(16), "column", ("data", None, "model")),
        (nn.Dense(16), "row", ("data", None, None)),
        (nn.Dense(16), "fsdp", ("data", None, None)),  # a mesh axis splits one axis of an output, here the batch
        (nn.Dense((4, 2)), "column", ("data", None, None, "model")),
        (nn.MultiHeadAttention(4), "column", ("data", None, "model")),
        (nn.MultiHeadAttention(4), "row", ("data", None, None)),
        (nn.LSTM(8), "column", ("data", None, "model")),
        (nn.GRU(5), "column", ("data", None, None)),  # 15 columns of gates, but 5 features
        (nn.Conv(8, 3), "column", ("data", None, "model")),
        (nn.Conv(8, 3), "row", ("data", None, None)),
        (nn.LayerNorm(), "column", ("data", None, None)),
        (nn.Bidirectional(nn.RNN(8)), "column", ("data", None, "model")),
    ],
)
def test_an_output_is_split_by_the_batch_and_by_the_kernels_columns(layer, layout, expected):
    mesh = mesh_of()
    with jax.set_mesh(mesh):
        params = placed_params(drawn(layer, SEQUENCE), layout, mesh)
        assert specs_of(layer, params, along_batch(SEQUENCE, 4, mesh)) == [expected]


@pytest.mark.parametrize(
    ("spec", "looked_up", "attended"),
    [
        (P("model", None), ("data", None, None), ("data", None, "model")),
        (P(None, "model"), ("data", None, "model"), ("data", None, None)),
        (P("data", "model"), ("data", None, "model"), ("data", None, None)),
    ],
)
def test_a_table_is_split_by_vocabulary_or_by_features(spec, looked_up, attended):
    mesh, layer = mesh_of(), nn.Embedding(16, 8)
    with jax.set_mesh(mesh):
        params = {"table": jax.device_put(jnp.ones((16, 8)), NamedSharding(mesh, spec))}
        assert specs_of(layer, params, along_batch(IDS, 4, mesh)) == [looked_up]
        assert specs_of(layer.attend, params, along_batch(SEQUENCE, 4, mesh)) == [attended]


def test_axes_of_batch_and_space_stay_split_where_they_divide():
    mesh = mesh_of()
    images = jax.device_put(IMAGES, NamedSharding(mesh, P(None, "data", "model")))
    sequence = jax.device_put(SEQUENCE, NamedSharding(mesh, P("data", "model")))
    attend, conv = nn.MultiHeadAttention(4), nn.Conv(8, (3, 3))
    with jax.set_mesh(mesh):
        assert specs_of(nn.MaxPool(2), {}, images) == [(None, "data", "model", None)]
        assert specs_of(nn.AvgPool(3, padding="VALID", stride=2), {}, images) == [(None, None, None, None)]  # 3 places
        assert specs_of(conv, drawn(conv, IMAGES), images) == [(None, "data", "model", None)]
        assert specs_of(attend, drawn(attend, SEQUENCE), sequence) == [("data", "model", None)]


def test_a_row_parallel_product_sums_and_gathers_nothing():
    mesh, layer = mesh_of(), nn.Dense(16, use_bias=False)
    with jax.set_mesh(mesh):
        x = jax.device_put(SEQUENCE, NamedSharding(mesh, P("data", None, "model")))
        params = {"kernel": jax.device_put(jnp.ones((8, 16)), NamedSharding(mesh, P("model")))}
        program = jax.jit(layer).lower(params, x).compile().as_text() or ""
    assert "all-reduce" in program
    assert "all-gather" not in program


def test_a_loop_keeps_the_split_of_its_input_whatever_its_layers_give():
    mesh, net = mesh_of(), nn.Repeat(nn.Dense(8), 2)
    with jax.set_mesh(mesh):
        params = placed_params(drawn(net, SEQUENCE), "column", mesh)
        assert specs_of(net, params, along_batch(SEQUENCE, 4, mesh)) == [("data", None, None)]


# ------------------------------------------------------------------------------------------- other meshes


@pytest.mark.parametrize("kinds", [(EXPLICIT, AUTO), (AUTO, EXPLICIT)])
def test_explicit_axes_beside_automatic_ones(kinds):
    mesh = mesh_of(*kinds)
    net = nn.Sequential(nn.Dense(8), ATTENTION, nn.Flatten(), nn.Dense(4))
    params = drawn(net, SEQUENCE)
    loss = lambda params, x: jnp.sin(net(params, x)).sum()
    expected = jax.jit(jax.grad(loss))(params, SEQUENCE)
    with jax.set_mesh(mesh):
        got = jax.jit(jax.grad(loss))(placed_params(params, "both", mesh), along_batch(SEQUENCE, 4, mesh))
    jax.tree.map(close, got, expected)


def test_explicit_axes_inside_of_a_shard_map_over_another():
    mesh, layer = mesh_of(), nn.Sequential(nn.Embedding(16, 8), nn.MultiHeadAttention(4), nn.Dense(4))
    params = drawn(layer, IDS)
    expected = layer(params, IDS)
    with jax.set_mesh(mesh):
        # the table by vocabulary, so that a lookup by itself would fail
        placed = placed_params(params, "row", mesh)
        by_part = jax.shard_map(layer, in_specs=(P(), P("data")), out_specs=P("data"), axis_names={"data"})
        close(jax.jit(by_part)(placed, along_batch(IDS, 4, mesh)), expected)


def test_layers_under_vmap():
    mesh, layer = mesh_of(), nn.Dense(16)
    params = drawn(layer, SEQUENCE)
    expected = layer(params, SEQUENCE)
    with jax.set_mesh(mesh):
        placed = placed_params(params, "row", mesh)
        got = jax.vmap(layer, in_axes=(None, 0))(placed, along_batch(SEQUENCE, 4, mesh))
    close(got, expected)


# ------------------------------------------------------------------------------------------- stacks over their own axis


def stack_over(mesh: jax.sharding.Mesh) -> tuple[pt.Tree, pt.Tree]:
    layers = [{"w": numbers(4, 8, seed=at), "b": numbers(8, seed=at)} for at in range(4)]
    stack = pt.stacks.stack(pt.Tree({"blocks": layers}), "blocks")
    specs = {"blocks/:/w": P("data", None, "model"), "blocks/:/b": P("data")}
    placed = {path: jax.device_put(leaf, NamedSharding(mesh, specs[path])) for path, leaf in pt.items(stack)}
    return stack, pt.unflatten(placed, like=stack)


@pytest.mark.parametrize("jitted", [False, True])
def test_one_layer_of_a_stack_that_is_spread_over_its_layers_is_read_and_written(jitted):
    mesh = mesh_of()
    stack, spread = stack_over(mesh)

    def read_and_write(tree):
        written = pt.set(tree, "blocks/2/w", jnp.ones((4, 8)))
        element = pt.set(tree, "blocks/1/w", 7.0, at=(0, 1))
        return tree["blocks/2/w"], tree["blocks"][3]["b"], dict(pt.items(tree, "blocks/{0,3}/w")), written, element

    function = jax.jit(read_and_write) if jitted else read_and_write
    with jax.set_mesh(mesh):
        got = function(spread)
    jax.tree.map(close, got, read_and_write(stack))
    assert by_entry(got[0]) == [None, "model"]
    assert by_entry(got[3]["blocks/:/w"]) == by_entry(got[4]["blocks/:/w"]) == ["data", None, "model"]


def test_a_layer_is_read_without_a_mesh_of_jax_too():
    stack, spread = stack_over(mesh_of())
    close(spread["blocks/2/w"], stack["blocks/2/w"])
    written = pt.set(spread, "blocks/2/b", numbers(8, seed=9))
    close(written["blocks/2/b"], numbers(8, seed=9))


def test_the_gradient_of_a_layer_that_is_read_is_spread_over_the_layers():
    mesh = mesh_of()
    stack, spread = stack_over(mesh)
    loss = lambda tree: jnp.sin(tree["blocks/2/w"]).sum()
    with jax.set_mesh(mesh):
        got = jax.jit(jax.grad(loss))(spread)
    jax.tree.map(close, got, jax.grad(loss)(stack))
    assert by_entry(got["blocks/:/w"]) == ["data", None, "model"]


@pytest.mark.parametrize("options", [{}, {"remat": True}, {"unroll": True}, {"unroll": 2}, {"scan": False}])
def test_a_stack_that_is_spread_over_its_layers_is_trained(options):
    mesh, net = mesh_of(), nn.Repeat(nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(8))), 4, **options)
    params = drawn(net, SEQUENCE)

    def loss(params, x):
        return (net(params, x) ** 2).mean()

    @jax.jit
    def step(params, x):
        value, grads = jax.value_and_grad(loss)(params, x)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    def trained(params, x):
        values = []
        for _ in range(5):
            params, value = step(params, x)
            values.append(value)
        return params, values

    expected = trained(params, SEQUENCE)
    with jax.set_mesh(mesh):
        spec = P() if "scan" in options else P("model")
        spread = jax.tree.map(lambda leaf: jax.device_put(leaf, NamedSharding(mesh, spec)), params)
        got = trained(spread, along_batch(SEQUENCE, 4, mesh))
    jax.tree.map(close, got, expected)
    assert by_entry(jax.tree.leaves(got[0])[0])[0] == spec[0] if len(spec) else True


# ------------------------------------------------------------------------------------------- ties and low-rank kernels


def test_a_tied_language_model_in_every_layout():
    mesh = mesh_of()
    net = nn.Sequential(
        {"embed": nn.Embedding(16, 8), "blocks": nn.Repeat(BLOCK, 2), "head": nn.Dense(16, use_bias=False)}
    )
    params = pt.tie(drawn(net, IDS), {"head/kernel": pt.transposed("embed/table")})
    loss = jax.grad(lambda params, ids: jnp.sin(net(params, ids)).sum())
    expected = jax.jit(loss)(params, IDS)
    with jax.set_mesh(mesh):
        for layout in LAYOUTS:
            placed, ids = placed_params(params, layout, mesh), along_batch(IDS, 4, mesh)
            grads = jax.jit(loss).trace(placed, ids).out_info
            assert by_entry(grads["embed/table"]) == by_entry(placed["embed/table"]), layout
        got = jax.jit(loss)(placed, ids)
    jax.tree.map(close, got, expected)


def test_low_rank_kernels_in_a_stack():
    mesh, net = mesh_of(), nn.Repeat(nn.Residual(ATTENTION), 2)
    params = drawn(net, SEQUENCE)
    delta = train.lora(params, {"**/{q,v}/kernel": train.Rank(2)}, jax.random.key(2))
    delta = jax.tree.map(lambda leaf: leaf + 0.1, delta)
    loss = lambda delta, params, x: jnp.sin(net(train.view(params, delta), x)).sum()
    expected = jax.jit(jax.grad(loss))(delta, params, SEQUENCE)
    with jax.set_mesh(mesh):
        got = jax.jit(jax.grad(loss))(delta, placed_params(params, "both", mesh), along_batch(SEQUENCE, 4, mesh))
    jax.tree.map(close, got, expected)


# ------------------------------------------------------------------------------------------- errors, and no mesh


def test_what_jax_refuses_names_the_layer_and_what_to_write():
    mesh = mesh_of()
    merge = lambda x: jnp.einsum("bti,bsi->bts", x, x)
    net = nn.Sequential({"stem": nn.Lambda(jnp.tanh), "block": nn.Sequential(nn.Lambda(merge, "scores"))})
    split_features = jax.device_put(SEQUENCE, NamedSharding(mesh, P("data", None, "model")))
    with jax.set_mesh(mesh):
        for call in (net, jax.jit(net)):
            with pytest.raises(pt.LayerError, match="JAX cannot tell how a result is split") as found:
                call({}, split_features)
            assert str(found.value).startswith("at 'block/0', Lambda(scores): ")
            assert "jax.sharding.auto_axes(function, out_sharding=PartitionSpec(...))" in str(found.value)
        # what the message says to write
        fixed = nn.Sequential(nn.Lambda(jnp.tanh), jax.sharding.auto_axes(merge, out_sharding=P("data")))
        assert fixed({}, split_features).shape == (4, 4, 4)


def test_an_error_of_a_function_that_speaks_of_shards_is_its_own():
    def read(x):
        raise ValueError("no shard 3 of the replicated data, f32[4@data]")

    net = nn.Sequential({"read": nn.Lambda(read)})
    with jax.set_mesh(mesh_of()):
        for call in (net, jax.jit(net)):
            with pytest.raises(Exception, match="no shard 3") as found:
                call({}, SEQUENCE)
            assert "auto_axes" not in str(found.value)


def test_loops_in_functions_of_ones_own_are_refused_with_their_path():
    mesh, x = mesh_of(), along_batch(SEQUENCE, 4, mesh_of())
    over_batch = lambda x: jax.lax.scan(lambda carry, part: (carry + part, None), jnp.zeros((4, 8)), x)[0]
    moved = lambda x: jax.lax.fori_loop(0, 2, lambda _, y: jax.sharding.reshard(y, P("model")), x)
    with jax.set_mesh(mesh):
        for function in (over_batch, moved):
            with pytest.raises(pt.LayerError, match=r"at 'a/0', .*out_sharding="):
                nn.Sequential({"a": nn.Sequential(function)})({}, x)


def test_a_layer_of_ones_own_is_refused_with_its_name():
    mesh, case = mesh_of(), CASES["Layer"]["own"]
    with jax.set_mesh(mesh), pytest.raises(pt.LayerError, match=r"Doubled\(\): JAX cannot tell"):
        case.layer(placed_params(drawn(case.layer, case.x), "fsdp", mesh), along_batch(case.x, 4, mesh))


def test_errors_of_other_kinds_stay_what_they_are():
    mesh = mesh_of()
    with jax.set_mesh(mesh):
        with pytest.raises(pt.LayerError, match="expected 8 features for the kernel"):
            nn.Dense(4)(drawn(nn.Dense(4), SEQUENCE), numbers(4, 3))
        with pytest.raises(pt.LayerError, match="expected the parameter 'kernel'"):
            nn.Dense(4)({}, SEQUENCE)
        with pytest.raises(ZeroDivisionError):
            nn.Lambda(lambda x: x * (1 / 0))({}, SEQUENCE)


def test_a_call_without_the_mesh_of_its_arrays_says_so():
    mesh = mesh_of()
    params = placed_params(drawn(nn.Embedding(16, 8), IDS), "row", mesh)
    with pytest.raises(pt.LayerError, match=r"Embedding\(16, 8\): expected a call under jax.set_mesh\(mesh\)"):
        nn.Embedding(16, 8)(params, along_batch(IDS, 4, mesh))


@pytest.mark.parametrize("name", ["Dense", "Embedding", "Conv", "MultiHeadAttention", "LSTM", "BatchNorm", "Repeat"])
def test_without_explicit_axes_nothing_is_added(name):
    case = next(iter(CASES[name].values()))
    function, arrays = function_of(case)
    params = drawn(case.layer, case.x)
    plain = str(jax.make_jaxpr(function)(params, case.x, arrays))
    assert "reshard" not in plain
    assert "sharding_constraint" not in plain
