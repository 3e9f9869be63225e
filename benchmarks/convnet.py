"""Claim: a ResNet of ptree's layers traces, compiles and steps no slower than hand-written JAX and the peers.

A stem, then 3 and 9 basic blocks (two 3x3 convolutions, batch norms, ReLU; He et al. 2016) in three stages of 16, 32 and 64
features on images of 32x32, batch 16, float32: one step of Adam in training, with new running statistics. The same
weights for all, and the losses of the first five steps are checked to agree. The baseline is hand-written JAX over
nested dicts; peers are Flax linen, Flax nnx, Equinox (whose images are channels first) and Haiku with their own layers, and
PyTorch, eager and compiled. Run it with `python benchmarks/convnet.py` (with the `bench` and `torch` extras).
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _training import in_jax, in_torch, nested
from _turns import Column, Made, run

BATCH, SIZE, CLASSES, STAGES = 16, 32, 10, (16, 32, 64)
Flat = dict[str, np.ndarray]


def plan(blocks: int) -> Iterator[tuple[str, int, int, int]]:
    """Name, features in, features out and stride of each block."""
    before = STAGES[0]
    for stage, features in enumerate(STAGES):
        for at in range(blocks // 3):
            yield f"b{stage}{at}", before, features, 2 if stage and not at else 1
            before = features


def weights(blocks: int) -> Flat:
    draw = np.random.default_rng(0)
    made: Flat = {}

    def conv(name: str, size: int, i: int, o: int) -> None:
        scale = np.float32((2 / (size * size * i)) ** 0.5)
        made[f"{name}/kernel"] = draw.standard_normal((size, size, i, o), "float32") * scale
        made[f"{name}_n/scale"], made[f"{name}_n/bias"] = np.ones(o, "float32"), np.zeros(o, "float32")
        made[f"{name}_n/mean"], made[f"{name}_n/var"] = np.zeros(o, "float32"), np.ones(o, "float32")

    conv("stem", 3, 3, STAGES[0])
    for name, i, o, stride in plan(blocks):
        conv(f"{name}/c1", 3, i, o)
        conv(f"{name}/c2", 3, o, o)
        if stride > 1:
            conv(f"{name}/c0", 1, i, o)
    made["head/kernel"] = draw.standard_normal((STAGES[-1], CLASSES), "float32") / np.float32(8)
    return {**made, "head/bias": np.zeros(CLASSES, "float32")}


def split(flat: Flat) -> tuple[Flat, Flat]:
    """Parameters, and running statistics."""
    statistics = {path: value for path, value in flat.items() if path.endswith(("mean", "var"))}
    return {path: value for path, value in flat.items() if path not in statistics}, statistics


# ------------------------------------------------------------------------- by hand
# Each is `model(flat, blocks) -> (params, statistics, apply)`, `apply(params, statistics, x) -> (logits, statistics)`.


def by_hand(flat: Flat, blocks: int) -> Any:
    def conv(p: Any, x: Any, stride: int) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, p["kernel"], (stride, stride), "SAME", dimension_numbers=layout)

    def norm(p: Any, old: Any, x: Any) -> tuple[Any, Any]:
        mean = x.mean((0, 1, 2))
        var = ((x - mean) ** 2).mean((0, 1, 2))
        new = {"mean": 0.9 * old["mean"] + 0.1 * mean, "var": 0.9 * old["var"] + 0.1 * var}
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * p["scale"] + p["bias"], new

    def normed(p: Any, old: Any, new: Any, name: str, x: Any, stride: int = 1) -> Any:
        y, new[f"{name}_n"] = norm(p[f"{name}_n"], old[f"{name}_n"], conv(p[name], x, stride))
        return y

    def apply(p: Any, statistics: Any, x: Any) -> Any:
        new: dict[str, Any] = {}
        x = jax.nn.relu(normed(p, statistics, new, "stem", x))
        for name, _, _, stride in plan(blocks):
            own, old = p[name], statistics[name]
            new[name] = {}
            y = jax.nn.relu(normed(own, old, new[name], "c1", x, stride))
            y = normed(own, old, new[name], "c2", y)
            x = jax.nn.relu(y + (normed(own, old, new[name], "c0", x, stride) if stride > 1 else x))
        return x.mean((1, 2)) @ p["head"]["kernel"] + p["head"]["bias"], new

    return *map(nested, split(flat)), apply


# ------------------------------------------------------------------------- ptree


def ptree(flat: Flat, blocks: int) -> Any:
    import ptree as pt
    from ptree import nn

    def normed(name: str, features: int, size: int, stride: int) -> dict[str, Any]:
        return {name: nn.Conv(features, (size, size), stride=stride, use_bias=False), f"{name}_n": nn.BatchNorm()}

    def block(features: int, stride: int) -> Any:
        inner = nn.Sequential(
            {**normed("c1", features, 3, stride), "relu": jax.nn.relu, **normed("c2", features, 3, 1)}
        )
        if stride == 1:
            return nn.Sequential({"sum": nn.Residual(inner), "relu": jax.nn.relu})
        short = nn.Sequential(normed("c0", features, 1, stride))
        return nn.Sequential({"sum": nn.Parallel({"inner": inner, "short": short}), "relu": jax.nn.relu})

    parts = {name: block(features, stride) for name, _, features, stride in plan(blocks)}
    stem = {**normed("stem", STAGES[0], 3, 1), "relu": jax.nn.relu}
    net = nn.Sequential({**stem, **parts, "mean": lambda x: x.mean((1, 2)), "head": nn.Dense(CLASSES)})
    tree = pt.rename(pt.Tree(flat), {"b*/{c1,c1_n,c2,c2_n}": "b*/sum/inner/?", "b*/{c0,c0_n}": "b*/sum/short/?"})
    running = "**/{mean,var}"
    statistics, params = pt.partition(jax.tree.map(jnp.asarray, tree), running)

    def apply(params: Any, statistics: Any, x: Any) -> Any:
        y, new = net.updated(pt.merge(params, statistics), x)
        return y, pt.partition(new, running)[0]

    return params, statistics, apply


# ------------------------------------------------------------------------- peers


def linen(flat: Flat, blocks: int) -> Any:
    from flax import linen as fnn

    def normed(name: str, x: Any, features: int, size: int = 3, stride: int = 1) -> Any:
        x = fnn.Conv(features, (size, size), stride, use_bias=False, name=name)(x)
        return fnn.BatchNorm(False, momentum=0.9, epsilon=1e-5, name=f"{name}_n")(x)

    class Block(fnn.Module):
        features: int
        stride: int

        @fnn.compact
        def __call__(self, x: Any) -> Any:
            y = fnn.relu(normed("c1", x, self.features, 3, self.stride))
            y = normed("c2", y, self.features)
            return fnn.relu(y + (normed("c0", x, self.features, 1, self.stride) if self.stride > 1 else x))

    class Model(fnn.Module):
        @fnn.compact
        def __call__(self, x: Any) -> Any:
            x = fnn.relu(normed("stem", x, STAGES[0]))
            for name, _, features, stride in plan(blocks):
                x = Block(features, stride, name=name)(x)
            return fnn.Dense(CLASSES, name="head")(x.mean((1, 2)))

    def apply(params: Any, statistics: Any, x: Any) -> Any:
        y, new = Model().apply({"params": params, "batch_stats": statistics}, x, mutable=["batch_stats"])
        return y, new["batch_stats"]

    return *map(nested, split(flat)), apply


def nnx(flat: Flat, blocks: int) -> Any:
    from flax import nnx as x_

    rngs = x_.Rngs(0)

    class Normed(x_.Module):
        def __init__(self, i: int, o: int, size: int = 3, stride: int = 1):
            self.conv = x_.Conv(i, o, (size, size), stride, use_bias=False, rngs=rngs)
            self.norm = x_.BatchNorm(o, momentum=0.9, epsilon=1e-5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.norm(self.conv(x), use_running_average=False)

    class Block(x_.Module):
        def __init__(self, i: int, o: int, stride: int):
            self.c1, self.c2 = Normed(i, o, 3, stride), Normed(o, o)
            self.c0 = Normed(i, o, 1, stride) if stride > 1 else None

        def __call__(self, x: Any) -> Any:
            y = self.c2(x_.relu(self.c1(x)))
            return x_.relu(y + (x if self.c0 is None else self.c0(x)))

    class Model(x_.Module):
        def __init__(self) -> None:
            self.stem = Normed(3, STAGES[0])
            for name, i, o, stride in plan(blocks):
                setattr(self, name, Block(i, o, stride))
            self.head = x_.Linear(STAGES[-1], CLASSES, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x_.relu(self.stem(x))
            for name, *_ in plan(blocks):
                x = getattr(self, name)(x)
            return self.head(x.mean((1, 2)))

    graph, *states = x_.split(Model(), x_.Param, x_.BatchStat)
    for state, part in zip(states, split(flat), strict=True):
        own = {path.replace("_n/", "/norm/").replace("/kernel", "/conv/kernel"): value for path, value in part.items()}
        moved = {path.replace("head/conv", "head"): value for path, value in own.items()}
        x_.replace_by_pure_dict(state, nested(moved))

    def apply(params: Any, statistics: Any, x: Any) -> Any:
        model = x_.merge(graph, params, statistics, copy=True)
        y = model(x)
        return y, x_.state(model, x_.BatchStat)

    return *states, apply


def equinox(flat: Flat, blocks: int) -> Any:
    import equinox as eqx

    key, p = jax.random.key(0), nested(flat)

    class Normed(eqx.Module):
        conv: Any
        norm: Any

        def __init__(self, own: Any, name: str, stride: int = 1):
            kernel = jnp.moveaxis(own[name]["kernel"], (-1, -2), (0, 1))
            o, i, size, _ = kernel.shape
            conv = eqx.nn.Conv2d(i, o, size, stride, "SAME", use_bias=False, key=key)
            self.conv = eqx.tree_at(lambda c: c.weight, conv, kernel)
            self.norm = eqx.nn.BatchNorm(o, "batch", mode="batch", momentum=0.9)

        def __call__(self, x: Any, state: Any) -> Any:
            return self.norm(self.conv(x), state)

    class Block(eqx.Module):
        c1: Any
        c2: Any
        c0: Any

        def __init__(self, own: Any, stride: int):
            self.c1, self.c2 = Normed(own, "c1", stride), Normed(own, "c2")
            self.c0 = Normed(own, "c0", stride) if stride > 1 else None

        def __call__(self, x: Any, state: Any) -> Any:
            y, state = self.c1(x, state)
            y, state = self.c2(jax.nn.relu(y), state)
            if self.c0 is not None:
                x, state = self.c0(x, state)
            return jax.nn.relu(x + y), state

    class Model(eqx.Module):
        stem: Any
        blocks: list[Any]
        head: Any

        def __init__(self) -> None:
            self.stem = Normed(p, "stem")
            self.blocks = [Block(p[name], stride) for name, _, _, stride in plan(blocks)]
            head = eqx.nn.Linear(STAGES[-1], CLASSES, key=key)
            self.head = eqx.tree_at(lambda l: (l.weight, l.bias), head, (p["head"]["kernel"].T, p["head"]["bias"]))  # noqa: E741

        def __call__(self, x: Any, state: Any) -> Any:
            x, state = self.stem(x, state)
            x = jax.nn.relu(x)
            for block in self.blocks:
                x, state = block(x, state)
            return self.head(x.mean((1, 2))), state

    model, state = eqx.nn.make_with_state(Model)()
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply(params: Any, statistics: Any, x: Any) -> Any:
        batched = jax.vmap(eqx.combine(params, static), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return batched(jnp.moveaxis(x, -1, 1), statistics)

    return params, state, apply


def haiku(flat: Flat, blocks: int) -> Any:
    import haiku as hk

    def normed(name: str, x: Any, features: int, size: int = 3, stride: int = 1) -> Any:
        x = hk.Conv2D(features, size, stride, with_bias=False, name=name)(x)
        return hk.BatchNorm(True, True, 0.9, 1e-5, name=f"{name}_n")(x, True)

    def model(x: Any) -> Any:
        x = jax.nn.relu(normed("stem", x, STAGES[0]))
        for name, _, features, stride in plan(blocks):
            y = jax.nn.relu(normed(f"{name}_c1", x, features, 3, stride))
            y = normed(f"{name}_c2", y, features)
            x = jax.nn.relu(y + (normed(f"{name}_c0", x, features, 1, stride) if stride > 1 else x))
        return hk.Linear(CLASSES, name="head")(x.mean((1, 2)))

    pure = hk.without_apply_rng(hk.transform_with_state(model))
    params, state = pure.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    for path, value in split(flat)[0].items():
        *above, name = path.split("/")
        named = {"kernel": "w", "bias": "b" if above == ["head"] else "offset", "scale": "scale"}[name]
        own = params["_".join(above)]
        own[named] = jnp.asarray(value).reshape(own[named].shape)
    return params, state, pure.apply


MODELS: dict[str, Callable[[Flat, int], Any]] = {
    "ptree": ptree, "by hand": by_hand, "Flax linen": linen, "Flax nnx": nnx, "Equinox": equinox, "Haiku": haiku,
}  # fmt: skip


# ------------------------------------------------------------------------- PyTorch


def in_pytorch(flat: Flat, blocks: int, x: np.ndarray, labels: np.ndarray, compiled: bool) -> Made:
    import torch

    F = torch.nn.functional

    def tensor(path: str, value: np.ndarray) -> Any:
        return torch.tensor(
            np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)) if path.endswith("kernel") else value)
        )

    params, statistics = ({path: tensor(path, value) for path, value in part.items()} for part in split(flat))

    def normed(p: Any, name: str, x: Any, stride: int = 1) -> Any:
        kernel, own = p[f"{name}/kernel"], f"{name}_n"
        total = max(kernel.shape[-1] - stride, 0)  # as in "SAME"
        x = F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), kernel, stride=stride)
        old = statistics[f"{own}/mean"], statistics[f"{own}/var"]
        return F.batch_norm(x, *old, p[f"{own}/scale"], p[f"{own}/bias"], True)

    def loss(p: Any, x: Any, labels: Any) -> Any:
        x = F.relu(normed(p, "stem", x))
        for name, _, _, stride in plan(blocks):
            y = normed(p, f"{name}/c2", F.relu(normed(p, f"{name}/c1", x, stride)))
            x = F.relu(y + (normed(p, f"{name}/c0", x, stride) if stride > 1 else x))
        return F.cross_entropy(F.linear(x.mean((2, 3)), p["head/kernel"], p["head/bias"]), labels)

    kept = {path: torch.nn.Parameter(value) for path, value in params.items()}
    images = torch.tensor(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    return in_torch(kept, loss, images, torch.tensor(labels).long(), compiled=compiled, steps=3)


def make(who: str, blocks: int) -> Made:
    draw = np.random.default_rng(1)
    x = draw.standard_normal((BATCH, SIZE, SIZE, 3), "float32")
    labels = draw.integers(CLASSES, size=BATCH).astype("int32")
    flat = weights(blocks)
    if who.startswith("PyTorch"):
        return in_pytorch(flat, blocks, x, labels, who.endswith("compiled"))
    params, statistics, apply = MODELS[who](flat, blocks)

    def loss(params: Any, statistics: Any, x: Any, labels: Any) -> Any:
        logits, statistics = apply(params, statistics, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), statistics

    return in_jax(params, loss, jnp.asarray(x), labels, statistics=statistics, steps=3)


NO_SLOWER = {"by hand": 1.0, "Flax linen": 1.0, "Flax nnx": 1.0, "Equinox": 1.0, "Haiku": 1.0}
COLUMNS = [
    Column("trace + lower", ("trace", "lower"), aims=NO_SLOWER),
    Column("compile", ("compile",), aims=NO_SLOWER),
    Column("step of Adam", ("step",), aims=NO_SLOWER),
    Column("dispatch", ("dispatch",), in_file_only=True),
    Column("peak of memory", ("peak",), "B", in_file_only=True),
]

if __name__ == "__main__":
    run(__file__, make, [*MODELS, "PyTorch, eager", "PyTorch, compiled"], [3, 9], COLUMNS, aims_from=9, shown=(9,))
