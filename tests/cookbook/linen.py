"""What recipes of the cookbook take with Flax linen and optax. The tests run these functions, and `count.py` counts their lines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, serialization, traverse_util

Params = dict[str, Any]


class Encoder(linen.Module):
    words: int = 20

    @linen.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        x = linen.Embed(self.words, 8)(ids)
        x = x + linen.relu(linen.Dense(8)(linen.LayerNorm()(x)))
        return x + linen.relu(linen.Dense(8)(linen.LayerNorm()(x)))


class Classifier(linen.Module):
    classes: int = 3

    def setup(self) -> None:
        self.encoder, self.head = Encoder(), linen.Dense(self.classes)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.head(self.encoder(ids).mean(axis=1))


class LanguageModel(linen.Module):
    def setup(self) -> None:
        self.embed, self.head = linen.Embed(50, 8), linen.Dense(50)

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.head(self.embed(ids))


MODEL = Classifier()
IDS = jnp.zeros((2, 5), "int32")


def make(seed: int, classes: int = 3) -> Params:
    return Classifier(classes).init(jax.random.key(seed), IDS)["params"]


@jax.jit
def loss(params: Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    ids, labels = batch
    logits = MODEL.apply({"params": params}, ids)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def arrays(params: Params) -> dict[str, np.ndarray]:
    """The arrays under the names of PyTorch's model, in its layout, for the tests."""
    found = {
        "embed.weight": params["encoder"]["Embed_0"]["embedding"],
        "head.weight": params["head"]["kernel"].T,
        "head.bias": params["head"]["bias"],
    }
    for at in range(2):
        dense, norm = params["encoder"][f"Dense_{at}"], params["encoder"][f"LayerNorm_{at}"]
        found |= {f"layers.{at}.fc.weight": dense["kernel"].T, f"layers.{at}.fc.bias": dense["bias"]}
        found |= {f"layers.{at}.norm.weight": norm["scale"], f"layers.{at}.norm.bias": norm["bias"]}
    return {name: np.asarray(array) for name, array in found.items()}


# --------------------------------------------------------------------------- look up and change


def see_all() -> str:
    """How do I see all parameters, with shapes and sizes?

    https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/inspection.html
    """
    return MODEL.tabulate(jax.random.key(0), IDS, depth=3)


def count(params: Params) -> tuple[int, int, int]:
    """How do I count the parameters, and those that are trained?"""
    flat = traverse_util.flatten_dict(params, sep="/")
    kernels = sum(leaf.size for path, leaf in flat.items() if path.endswith("/kernel"))
    trained = sum(leaf.size for path, leaf in flat.items() if not path.startswith("encoder/"))
    return sum(leaf.size for leaf in flat.values()), kernels, trained


def flat_names_and_back(params: Params) -> tuple[dict[str, jax.Array], Params]:
    """How do I go from nested dicts to flat names and back?

    https://flax-linen.readthedocs.io/en/latest/api_reference/flax.traverse_util.html
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    return flat, traverse_util.unflatten_dict(flat, sep="/")


def rename(params: Params) -> Params:
    """How do I rename parts of a model?"""
    import re

    flat = {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        new = re.sub(r"^encoder/Dense_(\d+)/", r"blocks/\1/fc/", path)
        new = re.sub(r"^encoder/LayerNorm_(\d+)/", r"blocks/\1/norm/", new)
        flat[re.sub(r"^head/", "out/", new)] = leaf
    return traverse_util.unflatten_dict(flat, sep="/")


def replace_head(params: Params, classes: int) -> Params:
    """How do I replace the head for another number of classes?

    https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/transfer_learning.html
    """
    fresh = Classifier(classes).init(jax.random.key(3), IDS)["params"]
    return {**params, "head": fresh["head"]}


def mix(encoder_of: Params, head_of: Params) -> Params:
    """How do I take the encoder of one model and the head of another?"""
    return {"encoder": encoder_of["encoder"], "head": head_of["head"]}


def average(runs: list[Params]) -> Params:
    """How do I average checkpoints, or the weights of several runs?"""
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *runs)


def prune(params: Params) -> Params:
    """How do I prune the smallest weights, all layers together?"""
    flat = traverse_util.flatten_dict(params, sep="/")
    sizes = jnp.concatenate([abs(w).ravel() for path, w in flat.items() if path.endswith("/kernel")])
    limit = jnp.quantile(sizes, 0.8)
    for path, w in flat.items():
        if path.endswith("/kernel"):
            flat[path] = jnp.where(abs(w) < limit, 0, w)
    return traverse_util.unflatten_dict(flat, sep="/")


def cast(params: Params) -> Params:
    """How do I cast a model to bfloat16, but not its norms?"""

    def one(path: tuple[str, ...], leaf: jax.Array) -> jax.Array:
        is_norm = any(part.startswith("LayerNorm_") for part in path)
        return leaf if is_norm else leaf.astype(jnp.bfloat16)

    return traverse_util.path_aware_map(one, params)


def moments_of_a_layer(slots: Any) -> tuple[jax.Array, jax.Array]:
    """How do I look up Adam's moments of one layer?"""
    return slots[0].mu["head"]["kernel"], slots[0].nu["head"]["kernel"]


# ---------------------------------------------------------------------------- initialise, share


def initialise(params: Params, key: jax.Array) -> Params:
    """How do I initialise one layer differently?

    https://flax-linen.readthedocs.io/en/latest/guides/model_inspection/model_surgery.html
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    for at, (path, leaf) in enumerate(flat.items()):
        one = jax.random.fold_in(key, at)
        if path == "head/kernel":
            flat[path] = jax.nn.initializers.normal(0.01)(one, leaf.shape, leaf.dtype)
        elif path.startswith("encoder/Dense_") and path.endswith("/kernel"):
            flat[path] = jax.nn.initializers.orthogonal()(one, leaf.shape, leaf.dtype)
    return traverse_util.unflatten_dict(flat, sep="/")


def tie() -> tuple[Any, Params]:
    """How do I tie the output layer to the embedding?

    https://github.com/google/flax/issues/1263
    """

    class Tied(LanguageModel):
        def setup(self) -> None:
            self.embed = linen.Embed(50, 8)
            self.bias = self.param("bias", linen.initializers.zeros, (50,))

        def __call__(self, ids: jax.Array) -> jax.Array:
            return self.embed.attend(self.embed(ids)) + self.bias

    return Tied(), Tied().init(jax.random.key(0), IDS)["params"]


# ----------------------------------------------------------------------------------------- train


def freeze_and_unfreeze(params: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, Params]:
    """How do I freeze the encoder and unfreeze it later?

    https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/transfer_learning.html
    """
    labels = {"encoder": "encoder", "head": "head"}
    frozen = optax.multi_transform({"encoder": optax.set_to_zero(), "head": optax.adam(1e-2)}, labels)
    whole = optax.multi_transform({"encoder": optax.adam(1e-2), "head": optax.adam(1e-2)}, labels)
    slots = frozen.init(params)
    updates, slots = frozen.update(jax.grad(loss)(params, batch), slots)
    first = optax.apply_updates(params, updates)
    kept = slots.inner_states["head"]
    slots = whole.init(first)
    slots = slots._replace(inner_states={**slots.inner_states, "head": kept})
    updates, slots = whole.update(jax.grad(loss)(first, batch), slots)
    return first, optax.apply_updates(first, updates)


def rates(params: Params) -> optax.GradientTransformation:
    """How do I give layers different learning rates?"""
    labels = {"encoder": "encoder", "head": {"kernel": "rest", "bias": "bias"}}
    rules = {"encoder": optax.adam(1e-5), "bias": optax.sgd(0.1), "rest": optax.adam(1e-3)}
    return optax.multi_transform(rules, labels)


def decay(params: Params) -> optax.GradientTransformation:
    """How do I leave biases and norms out of weight decay?"""
    mask = traverse_util.path_aware_map(lambda path, leaf: path[-1] == "kernel", params)
    return optax.adamw(1e-3, weight_decay=0.1, mask=mask)


def accumulate(params: Params, batch: tuple[jax.Array, jax.Array]) -> Params:
    """How do I accumulate gradients over microbatches?"""
    optimiser = optax.MultiSteps(optax.adam(1e-2), every_k_schedule=4)
    slots = optimiser.init(params)
    ids, labels = batch
    for part in zip(jnp.split(ids, 4), jnp.split(labels, 4)):
        updates, slots = optimiser.update(jax.grad(loss)(params, part), slots, params)
        params = optax.apply_updates(params, updates)
    return params


def moving_average(params: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, Params]:
    """How do I keep a moving average (EMA) of the weights?"""
    optimiser = optax.adam(1e-2)
    slots, averaged = optimiser.init(params), params
    for _ in range(10):
        updates, slots = optimiser.update(jax.grad(loss)(params, batch), slots)
        params = optax.apply_updates(params, updates)
        averaged = optax.incremental_update(params, averaged, 0.1)
    return params, averaged


def three_seeds(keys: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I train three seeds at once?

    https://flax-linen.readthedocs.io/en/latest/guides/parallel_training/ensembling.html
    """
    optimiser = optax.adam(1e-2)
    starts = jax.vmap(lambda key: MODEL.init(key, IDS)["params"])(keys)
    slots = jax.vmap(optimiser.init)(starts)

    @jax.jit
    @jax.vmap
    def step(params: Params, slots: Any) -> tuple[Params, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, slots = optimiser.update(grads, slots)
        return optax.apply_updates(params, updates), slots, value

    _, _, losses = step(starts, slots)
    return losses


def resume(params: Params, batch: tuple[jax.Array, jax.Array], path: str, last: int) -> tuple[int, Params]:
    """How do I resume a run after a crash?

    https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/use_checkpointing.html
    """
    import os

    optimiser = optax.adam(1e-2)
    state = {"step": 0, "params": params, "slots": optimiser.init(params)}
    if os.path.exists(path):
        with open(path, "rb") as file:
            state = serialization.from_bytes(state, file.read())
    first = int(state["step"])
    for at in range(first + 1, last + 1):
        grads = jax.grad(loss)(state["params"], batch)
        updates, slots = optimiser.update(grads, state["slots"])
        state = {"step": at, "params": optax.apply_updates(state["params"], updates), "slots": slots}
        with open(path + ".new", "wb") as file:
            file.write(serialization.to_bytes(state))
        os.replace(path + ".new", path)
    return first, state["params"]


def resize(params: Params, words: int, key: jax.Array) -> Params:
    """How do I resize the vocabulary?"""
    table = params["encoder"]["Embed_0"]["embedding"]
    drawn = 0.02 * jax.random.normal(key, (words - len(table), 8), table.dtype)
    larger = {"embedding": jnp.concatenate([table, drawn])}
    return {**params, "encoder": {**params["encoder"], "Embed_0": larger}}


def penalty(params: Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I add an L2 penalty of the kernels to the loss?"""
    flat = traverse_util.flatten_dict(params, sep="/")
    kernels = sum(jnp.sum(w**2) for path, w in flat.items() if path.endswith("/kernel"))
    return loss(params, batch) + 1e-3 * kernels


def gradients_of_some(params: Params, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I compute gradients of some parameters only?"""

    def of_kernel(kernel: jax.Array) -> jax.Array:
        return loss({**params, "head": {**params["head"], "kernel": kernel}}, batch)

    return jax.grad(of_kernel)(params["head"]["kernel"])


# --------------------------------------------------------------------- files, other frameworks


def save_and_load(params: Params, path: str, like: Params) -> Params:
    """How do I save and load the parameters of a Flax model?

    https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/use_checkpointing.html
    """
    with open(path, "wb") as file:
        file.write(serialization.to_bytes(params))
    with open(path, "rb") as file:
        loaded = serialization.from_bytes(like, file.read())
    expected = traverse_util.flatten_dict(like, sep="/")
    misfits = []
    for name, leaf in traverse_util.flatten_dict(loaded, sep="/").items():
        if (leaf.shape, leaf.dtype) != (expected[name].shape, expected[name].dtype):
            misfits.append(f"{name}: expected {expected[name].shape}, got {leaf.shape}")
    if misfits:
        raise ValueError("\n".join(misfits))
    return loaded


def differences(before: Params, after: Params) -> dict[str, str]:
    """What changed between two checkpoints?"""
    a, b = traverse_util.flatten_dict(before, sep="/"), traverse_util.flatten_dict(after, sep="/")
    found = {path: "removed" for path in a if path not in b}
    found |= {path: "added" for path in b if path not in a}
    for path in a.keys() & b.keys():
        if a[path].shape != b[path].shape:
            found[path] = "reshaped"
        elif not np.array_equal(a[path], b[path]):
            change = jnp.linalg.norm(b[path] - a[path]) / jnp.linalg.norm(a[path])
            found[path] = f"changed by {change:.3g}"
    return found


def load_a_part(params: Params, checkpoint: dict[str, Any]) -> tuple[Params, list[str], list[str]]:
    """How do I load a part of a checkpoint, under other names?

    https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/transfer_learning.html
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    kept = dict.fromkeys(flat)
    dropped = []
    for name, leaf in traverse_util.flatten_dict(checkpoint, sep="/").items():
        path = name.replace("body/", "encoder/", 1)
        if not name.startswith("body/"):
            dropped.append(name)
        elif path not in flat or flat[path].shape != leaf.shape:
            raise ValueError(f"{name} does not fit")
        else:
            flat[path] = leaf
            del kept[path]
    return traverse_util.unflatten_dict(flat, sep="/"), list(kept), dropped


def from_pytorch(state_dict: dict[str, np.ndarray], params: Params) -> Params:
    """How do I load a PyTorch checkpoint into my Flax model?

    https://flax-linen.readthedocs.io/en/latest/guides/converting_and_upgrading/convert_pytorch_to_flax.html
    """
    import re

    flat = {}
    for name, array in state_dict.items():
        path = name.replace("embed.weight", "encoder/Embed_0/embedding")
        path = re.sub(r"layers\.(\d+)\.norm\.weight", r"encoder/LayerNorm_\1/scale", path)
        path = re.sub(r"layers\.(\d+)\.norm\.bias", r"encoder/LayerNorm_\1/bias", path)
        path = re.sub(r"layers\.(\d+)\.fc\.weight", r"encoder/Dense_\1/kernel", path)
        path = re.sub(r"layers\.(\d+)\.fc\.bias", r"encoder/Dense_\1/bias", path)
        path = path.replace("head.weight", "head/kernel").replace("head.bias", "head/bias")
        flat[path] = jnp.asarray(array.T if path.endswith("/kernel") else array)
    expected = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}
    if {path: leaf.shape for path, leaf in flat.items()} != expected:
        raise ValueError("the checkpoint does not fit the model")
    return traverse_util.unflatten_dict(flat, sep="/")


# ---------------------------------------------------------------------------------- look, devices


def not_finite(params: Params) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Which leaf is NaN?"""
    found = {}
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        places = np.argwhere(~np.isfinite(leaf))
        if len(places):
            found[path] = (len(places), tuple(places[0].tolist()))
    return found


def gradient_norms(params: Params, batch: tuple[jax.Array, jax.Array]) -> dict[str, float]:
    """How do I log the gradient norm of each layer?"""
    flat = traverse_util.flatten_dict(jax.grad(loss)(params, batch), sep="/")
    return {path: float(jnp.linalg.norm(leaf)) for path, leaf in flat.items() if path.endswith("/kernel")}


def update_ratios(params: Params, batch: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """How large are updates beside the weights?"""
    optimiser = optax.adam(1e-3)

    @jax.jit
    def step(params: Params, slots: Any) -> tuple[Params, Any, Params]:
        updates, slots = optimiser.update(jax.grad(loss)(params, batch), slots)
        ratios = jax.tree.map(lambda u, p: jnp.linalg.norm(u) / jnp.linalg.norm(p), updates, params)
        return optax.apply_updates(params, updates), slots, ratios

    _, _, ratios = step(params, optimiser.init(params))
    return traverse_util.flatten_dict(ratios, sep="/")


def shard(params: Params, mesh: jax.sharding.Mesh) -> Params:
    """How do I shard a model by rules?"""

    def place(path: tuple[str, ...], leaf: jax.Array) -> jax.Array:
        spec = jax.P()
        if path[-1] == "kernel" and leaf.shape[1] % mesh.shape["model"] == 0:
            spec = jax.P(None, "model")
        if path[-1] == "embedding":
            spec = jax.P("model")
        return jax.device_put(leaf, jax.NamedSharding(mesh, spec))

    return traverse_util.path_aware_map(place, params)
