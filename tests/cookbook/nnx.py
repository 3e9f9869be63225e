"""What recipes of the cookbook take with Flax nnx and optax. The tests run these functions, and `count.py` counts their lines.

A module is changed in place where nnx does so; the tests give each function a module of its own.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm, self.fc = nnx.LayerNorm(8, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + jax.nn.relu(self.fc(self.norm(x)))


class Encoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(20, 8, rngs=rngs)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return x


class Classifier(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, classes: int = 3) -> None:
        self.encoder, self.head = Encoder(rngs), nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.head(self.encoder(ids).mean(axis=1))


class LanguageModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed, self.head = nnx.Embed(50, 8, rngs=rngs), nnx.Linear(8, 50, rngs=rngs)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.head(self.embed(ids))


IDS = jnp.zeros((2, 5), "int32")


def make(seed: int, classes: int = 3) -> Classifier:
    return Classifier(nnx.Rngs(seed), classes)


def loss(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    ids, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(model(ids), labels).mean()


def arrays(model: Classifier) -> dict[str, np.ndarray]:
    """The arrays under the names of PyTorch's model, in its layout, for the tests."""
    head = model.head
    assert head.bias is not None
    found = {
        "embed.weight": model.encoder.embed.embedding[...],
        "head.weight": head.kernel[...].T,
        "head.bias": head.bias[...],
    }
    for at, block in enumerate(model.encoder.blocks):
        fc, norm = block.fc, block.norm
        found |= {f"layers.{at}.fc.weight": fc.kernel[...].T, f"layers.{at}.fc.bias": fc.bias[...]}
        found |= {f"layers.{at}.norm.weight": norm.scale[...], f"layers.{at}.norm.bias": norm.bias[...]}
    return {name: np.asarray(array) for name, array in found.items()}


# --------------------------------------------------------------------------- look up and change


def see_all(model: Classifier) -> str:
    """How do I see all parameters, with shapes and sizes?"""
    return nnx.tabulate(model, IDS)


def count(model: Classifier) -> tuple[int, int, int]:
    """How do I count the parameters, and those that are trained?

    https://flax.readthedocs.io/en/latest/guides/filters_guide.html
    """
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    kernels = sum(leaf[...].size for path, leaf in flat if path[-1] == "kernel")
    trained = sum(leaf[...].size for path, leaf in flat if path[0] != "encoder")
    return sum(leaf[...].size for _, leaf in flat), kernels, trained


def change_one(layer: nnx.Linear) -> None:
    """How do I change a weight of an nnx model?

    https://flax.readthedocs.io/en/latest/guides/surgery.html
    """
    layer.kernel[...] = jnp.ones((4, 3))


def flat_names_and_back(model: Classifier) -> tuple[dict[str, jax.Array], nnx.State]:
    """How do I go from nested dicts to flat names and back?"""
    state = nnx.state(model, nnx.Param)
    flat = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(state)}
    back = [(path, leaf.replace(flat["/".join(map(str, path))])) for path, leaf in nnx.to_flat_state(state)]
    return flat, nnx.from_flat_state(back)


def replace_head(model: Classifier, classes: int) -> Classifier:
    """How do I replace the head for another number of classes?

    https://flax.readthedocs.io/en/latest/guides/surgery.html
    """
    model.head = nnx.Linear(8, classes, rngs=nnx.Rngs(3))
    return model


def mix(encoder_of: Classifier, head_of: Classifier) -> Classifier:
    """How do I take the encoder of one model and the head of another?"""
    mixed = nnx.clone(encoder_of)
    mixed.head = nnx.clone(head_of.head)
    return mixed


def average(runs: list[Classifier]) -> Classifier:
    """How do I average checkpoints, or the weights of several runs?"""
    states = [nnx.state(run) for run in runs]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *states)
    return nnx.merge(nnx.graphdef(runs[0]), mean)


def prune(model: Classifier) -> Classifier:
    """How do I prune the smallest weights, all layers together?"""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    kernels = [leaf for path, leaf in flat if path[-1] == "kernel"]
    limit = jnp.quantile(jnp.concatenate([abs(w[...]).ravel() for w in kernels]), 0.8)
    small = [(path, w.replace(jnp.where(abs(w[...]) < limit, 0, w[...]))) for path, w in flat if path[-1] == "kernel"]
    nnx.update(model, nnx.from_flat_state(small))
    return model


def cast(model: Classifier) -> Classifier:
    """How do I cast a model to bfloat16, but not its norms?"""
    flat = []
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if "norm" not in path:
            flat.append((path, leaf.replace(leaf[...].astype(jnp.bfloat16))))
    nnx.update(model, nnx.from_flat_state(flat))
    return model


def moments_of_a_layer(optimizer: nnx.Optimizer) -> tuple[jax.Array, jax.Array]:
    """How do I look up Adam's moments of one layer?"""
    adam: Any = optimizer.opt_state[0]
    return adam.mu["head"]["kernel"][...], adam.nu["head"]["kernel"][...]


# ---------------------------------------------------------------------------- initialise, share


def initialise(model: Classifier, key: jax.Array) -> Classifier:
    """How do I initialise one layer differently?

    https://flax.readthedocs.io/en/latest/guides/surgery.html
    """
    keys = jax.random.split(key, 1 + len(model.encoder.blocks))
    kernel = model.head.kernel
    kernel[...] = jax.nn.initializers.normal(0.01)(keys[0], kernel.shape, kernel.dtype)
    for block, one in zip(model.encoder.blocks, keys[1:]):
        kernel = block.fc.kernel
        kernel[...] = jax.nn.initializers.orthogonal()(one, kernel.shape, kernel.dtype)
    return model


def tie() -> nnx.Module:
    """How do I tie the output layer to the embedding?"""

    class Tied(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embed, self.bias = nnx.Embed(50, 8, rngs=rngs), nnx.Param(jnp.zeros(50))

        def __call__(self, ids: jax.Array) -> jax.Array:
            return self.embed.attend(self.embed(ids)) + self.bias[...]

    return Tied(nnx.Rngs(0))


# ----------------------------------------------------------------------------------------- train


def freeze_and_unfreeze(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> Iterator[Classifier]:
    """How do I freeze the encoder and unfreeze it later?

    https://flax.readthedocs.io/en/latest/guides/filters_guide.html
    """
    is_head = nnx.All(nnx.Param, nnx.PathContains("head"))
    is_encoder = nnx.All(nnx.Param, nnx.PathContains("encoder"))
    of_head = nnx.Optimizer(model, optax.adam(1e-2), wrt=is_head)
    of_head.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, is_head))(model, batch))
    yield model
    of_encoder = nnx.Optimizer(model, optax.adam(1e-2), wrt=is_encoder)
    grads = nnx.grad(loss, argnums=nnx.DiffState(0, nnx.Param))(model, batch)
    of_head.update(model, nnx.filter_state(grads, nnx.PathContains("head")))
    of_encoder.update(model, nnx.filter_state(grads, nnx.PathContains("encoder")))
    yield model


def rates(model: Classifier) -> optax.GradientTransformation:
    """How do I give layers different learning rates?

    https://flax.readthedocs.io/en/latest/guides/optimization_cookbook.html
    """

    def label(path: tuple[Any, ...]) -> str:
        if path[0] == "encoder":
            return "encoder"
        return "bias" if path == ("head", "bias") else "rest"

    def labels(state: nnx.State) -> nnx.State:
        return nnx.from_flat_state([(path, leaf.replace(label(path))) for path, leaf in nnx.to_flat_state(state)])

    rules = {"encoder": optax.adam(1e-5), "bias": optax.sgd(0.1), "rest": optax.adam(1e-3)}
    return optax.multi_transform(rules, labels)


def decay(model: Classifier) -> optax.GradientTransformation:
    """How do I leave biases and norms out of weight decay?"""

    def mask(state: nnx.State) -> nnx.State:
        flat = nnx.to_flat_state(state)
        return nnx.from_flat_state([(path, leaf.replace(path[-1] == "kernel")) for path, leaf in flat])

    return optax.adamw(1e-3, weight_decay=0.1, mask=mask)


def accumulate(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> Classifier:
    """How do I accumulate gradients over microbatches?

    https://flax.readthedocs.io/en/latest/guides/optimization_cookbook.html
    """
    optimizer = nnx.Optimizer(model, optax.MultiSteps(optax.adam(1e-2), every_k_schedule=4), wrt=nnx.Param)
    ids, labels = batch
    for part in zip(jnp.split(ids, 4), jnp.split(labels, 4)):
        optimizer.update(model, nnx.grad(loss)(model, part))
    return model


def moving_average(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> tuple[Classifier, Classifier]:
    """How do I keep a moving average (EMA) of the weights?

    https://flax.readthedocs.io/en/latest/guides/optimization_cookbook.html
    """
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    averaged = nnx.clone(model)
    for _ in range(10):
        optimizer.update(model, nnx.grad(loss)(model, batch))
        new, old = nnx.state(model, nnx.Param), nnx.state(averaged, nnx.Param)
        nnx.update(averaged, jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, new, old))
    return model, averaged


def three_seeds(keys: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I train three seeds at once?

    https://flax.readthedocs.io/en/latest/guides/randomness.html
    """

    @nnx.vmap
    def start(key: jax.Array) -> tuple[Classifier, nnx.Optimizer]:
        model = Classifier(nnx.Rngs(key))
        return model, nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    @nnx.vmap
    def step(model: Classifier, optimizer: nnx.Optimizer) -> jax.Array:
        value, grads = nnx.value_and_grad(loss)(model, batch)
        optimizer.update(model, grads)
        return value

    return step(*start(keys))


def resume(model: Classifier, batch: tuple[jax.Array, jax.Array], folder: str, last: int) -> tuple[int, Classifier]:
    """How do I resume a run after a crash?

    https://flax.readthedocs.io/en/latest/guides/checkpointing.html
    """
    import orbax.checkpoint as ocp

    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=3)) as manager:
        first = manager.latest_step() or 0
        if first:
            state = nnx.to_pure_dict(nnx.state((model, optimizer)))
            state = manager.restore(first, args=ocp.args.StandardRestore(state))
            nnx.update((model, optimizer), state)
        for at in range(first + 1, last + 1):
            optimizer.update(model, nnx.grad(loss)(model, batch))
            state = nnx.to_pure_dict(nnx.state((model, optimizer)))
            manager.save(at, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
    return first, model


def resize(model: Classifier, words: int, key: jax.Array) -> Classifier:
    """How do I resize the vocabulary?"""
    table = model.encoder.embed.embedding[...]
    drawn = 0.02 * jax.random.normal(key, (words - len(table), 8), table.dtype)
    model.encoder.embed = nnx.Embed(words, 8, rngs=nnx.Rngs(0))
    model.encoder.embed.embedding[...] = jnp.concatenate([table, drawn])
    return model


def penalty(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I add an L2 penalty of the kernels to the loss?"""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    kernels = sum(jnp.sum(w[...] ** 2) for path, w in flat if path[-1] == "kernel")
    return loss(model, batch) + 1e-3 * kernels


def gradients_of_some(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> nnx.State:
    """How do I compute gradients of some parameters only?

    https://flax.readthedocs.io/en/latest/guides/filters_guide.html
    """
    wanted = nnx.All(nnx.PathContains("head"), nnx.PathContains("kernel"))
    return nnx.grad(loss, argnums=nnx.DiffState(0, wanted))(model, batch)


# ----------------------------------------------------------------------- files, look, devices


def load_a_part(model: Classifier, checkpoint: dict[str, Any]) -> tuple[Classifier, list[str], list[str]]:
    """How do I load a part of a checkpoint, under other names?"""
    from flax import traverse_util

    flat = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    kept = dict.fromkeys("/".join(map(str, path)) for path in flat)
    loaded, dropped = [], []
    for names, array in traverse_util.flatten_dict(checkpoint).items():
        path = ("encoder", *(int(name) if name.isdigit() else name for name in names[1:]))
        if names[0] != "body":
            dropped.append("/".join(names))
        elif path not in flat or flat[path].shape != array.shape:
            raise ValueError(f"{names} does not fit")
        else:
            loaded.append((path, flat[path].replace(array)))
            del kept["/".join(map(str, path))]
    nnx.update(model, nnx.from_flat_state(loaded))
    return model, list(kept), dropped


def from_pytorch(state_dict: dict[str, np.ndarray], model: Classifier) -> Classifier:
    """How do I load a PyTorch checkpoint into my Flax model?

    https://flax.readthedocs.io/en/latest/migrating/convert_pytorch_to_flax.html
    """
    targets: dict[str, nnx.Param] = {"embed.weight": model.encoder.embed.embedding}
    for at, block in enumerate(model.encoder.blocks):
        targets |= {f"layers.{at}.fc.weight": block.fc.kernel, f"layers.{at}.fc.bias": block.fc.bias}
        targets |= {f"layers.{at}.norm.weight": block.norm.scale, f"layers.{at}.norm.bias": block.norm.bias}
    targets |= {"head.weight": model.head.kernel, "head.bias": model.head.bias}
    kernels = {id(layer.kernel) for layer in [model.head, *(block.fc for block in model.encoder.blocks)]}
    if targets.keys() != state_dict.keys():
        raise ValueError(sorted(targets.keys() ^ state_dict.keys()))
    for name, target in targets.items():
        array = state_dict[name].T if id(target) in kernels else state_dict[name]
        if array.shape != target.shape:
            raise ValueError(f"{name}: expected {target.shape}, got {array.shape}")
        target[...] = jnp.asarray(array)
    return model


def from_linen(params: dict[str, jax.Array], layer: nnx.Linear) -> nnx.Linear:
    """How do I go from Flax linen to nnx?

    https://flax.readthedocs.io/en/latest/guides/bridge_guide.html
    """
    nnx.update(layer, {name: nnx.Param(array) for name, array in params.items()})
    return layer


def not_finite(model: Classifier) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Which leaf is NaN?"""
    found = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        places = np.argwhere(~np.isfinite(leaf[...]))
        if len(places):
            found["/".join(map(str, path))] = (len(places), tuple(places[0].tolist()))
    return found


def gradient_norms(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> dict[str, float]:
    """How do I log the gradient norm of each layer?"""
    flat = nnx.to_flat_state(nnx.grad(loss)(model, batch))
    kernels = [(path, leaf[...]) for path, leaf in flat if path[-1] == "kernel"]
    return {"/".join(map(str, path)): float(jnp.linalg.norm(leaf)) for path, leaf in kernels}


def shard(model: Classifier, mesh: jax.sharding.Mesh) -> Classifier:
    """How do I shard a model by rules?

    https://flax.readthedocs.io/en/latest/guides/flax_gspmd.html
    """
    placed = []
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        spec = jax.P()
        if path[-1] == "kernel" and leaf.shape[1] % mesh.shape["model"] == 0:
            spec = jax.P(None, "model")
        if path[-1] == "embedding":
            spec = jax.P("model")
        placed.append((path, leaf.replace(jax.device_put(leaf[...], jax.NamedSharding(mesh, spec)))))
    nnx.update(model, nnx.from_flat_state(placed))
    return model
