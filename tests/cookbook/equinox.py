"""What recipes of the cookbook take with Equinox and optax. The tests run these functions, and `count.py` counts their lines."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    fc: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        self.norm, self.fc = eqx.nn.LayerNorm(8), eqx.nn.Linear(8, 8, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + jax.nn.relu(self.fc(self.norm(x)))


class Encoder(eqx.Module):
    embed: eqx.nn.Embedding
    blocks: list[Block]

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.embed, self.blocks = eqx.nn.Embedding(20, 8, key=keys[0]), [Block(keys[1]), Block(keys[2])]

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = jax.vmap(self.embed)(ids)
        for block in self.blocks:
            x = jax.vmap(block)(x)
        return x


class Classifier(eqx.Module):
    encoder: Encoder
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array, classes: int = 3) -> None:
        keys = jax.random.split(key)
        self.encoder, self.head = Encoder(keys[0]), eqx.nn.Linear(8, classes, key=keys[1])

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.head(self.encoder(ids).mean(axis=0))


class LanguageModel(eqx.Module):
    embed: eqx.nn.Embedding
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key)
        self.embed, self.head = eqx.nn.Embedding(50, 8, key=keys[0]), eqx.nn.Linear(8, 50, key=keys[1])

    def __call__(self, ids: jax.Array) -> jax.Array:
        return jax.vmap(self.head)(jax.vmap(self.embed)(ids))


def make(seed: int, classes: int = 3) -> Classifier:
    return Classifier(jax.random.key(seed), classes)


@eqx.filter_jit
def loss(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    ids, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(ids), labels).mean()


def arrays(model: Classifier) -> dict[str, np.ndarray]:
    """The arrays under the names of PyTorch's model, in its layout, for the tests."""
    found: dict[str, Any] = {"embed.weight": model.encoder.embed.weight}
    found |= {"head.weight": model.head.weight, "head.bias": model.head.bias}
    for at, block in enumerate(model.encoder.blocks):
        found |= {f"layers.{at}.fc.weight": block.fc.weight, f"layers.{at}.fc.bias": block.fc.bias}
        found |= {f"layers.{at}.norm.weight": block.norm.weight, f"layers.{at}.norm.bias": block.norm.bias}
    return {name: np.asarray(array) for name, array in found.items()}


# --------------------------------------------------------------------------- look up and change


def see_all(model: Classifier) -> str:
    """How do I see all parameters, with shapes and sizes?"""
    return eqx.tree_pformat(model, width=80)


def count(model: Classifier) -> tuple[int, int, int]:
    """How do I count the parameters, and those that are trained?

    https://github.com/patrick-kidger/equinox/issues/198
    """
    arrays = eqx.filter(model, eqx.is_inexact_array)
    linear = [node for node in jax.tree.leaves(model, is_leaf=is_linear) if is_linear(node)]
    kernels = sum(layer.weight.size for layer in linear)
    trained = sum(leaf.size for leaf in jax.tree.leaves(arrays.head))
    return sum(leaf.size for leaf in jax.tree.leaves(arrays)), kernels, trained


def is_linear(node: Any) -> bool:
    return isinstance(node, eqx.nn.Linear)


def change_one(mlp: eqx.nn.MLP) -> eqx.nn.MLP:
    """How do I read or change one weight of an Equinox model?

    https://docs.kidger.site/equinox/api/manipulation/
    """
    mlp = eqx.tree_at(lambda mlp: mlp.layers[0].bias, mlp, jnp.ones(8))
    return eqx.tree_at(lambda mlp: [layer.weight for layer in mlp.layers], mlp, replace_fn=lambda w: 0.5 * w)


def flat_names_and_back(model: Classifier) -> tuple[dict[str, jax.Array], Classifier]:
    """How do I go from nested dicts to flat names and back?

    https://github.com/patrick-kidger/equinox/issues/362
    """
    arrays, static = eqx.partition(model, eqx.is_array)
    with_paths, treedef = jax.tree.flatten_with_path(arrays)
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in with_paths}
    back = [flat[jax.tree_util.keystr(path, simple=True, separator="/")] for path, _ in with_paths]
    return flat, eqx.combine(jax.tree.unflatten(treedef, back), static)


def replace_head(model: Classifier, classes: int) -> Classifier:
    """How do I replace the head for another number of classes?

    https://docs.kidger.site/equinox/api/manipulation/
    """
    return eqx.tree_at(lambda model: model.head, model, eqx.nn.Linear(8, classes, key=jax.random.key(3)))


def mix(encoder_of: Classifier, head_of: Classifier) -> Classifier:
    """How do I take the encoder of one model and the head of another?"""
    return eqx.tree_at(lambda model: model.head, encoder_of, head_of.head)


def average(runs: list[Classifier]) -> Classifier:
    """How do I average checkpoints, or the weights of several runs?"""
    arrays = [eqx.filter(run, eqx.is_array) for run in runs]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *arrays)
    return eqx.combine(mean, runs[0])


def prune(model: Classifier) -> Classifier:
    """How do I prune the smallest weights, all layers together?"""

    def kernels(model: Classifier) -> list[jax.Array]:
        return [node.weight for node in jax.tree.leaves(model, is_leaf=is_linear) if is_linear(node)]

    limit = jnp.quantile(jnp.concatenate([abs(w).ravel() for w in kernels(model)]), 0.8)
    return eqx.tree_at(kernels, model, replace_fn=lambda w: jnp.where(abs(w) < limit, 0, w))


def cast(model: Classifier) -> Classifier:
    """How do I cast a model to bfloat16, but not its norms?"""

    def is_norm(node: Any) -> bool:
        return isinstance(node, eqx.nn.LayerNorm)

    def one(node: Any) -> Any:
        return node.astype(jnp.bfloat16) if eqx.is_inexact_array(node) else node

    return jax.tree.map(one, model, is_leaf=is_norm)


def moments_of_a_layer(slots: Any) -> tuple[jax.Array, jax.Array]:
    """How do I look up Adam's moments of one layer?"""
    return slots[0].mu.head.weight, slots[0].nu.head.weight


# ---------------------------------------------------------------------------- initialise, share


def initialise(model: Classifier, key: jax.Array) -> Classifier:
    """How do I initialise one layer differently?

    https://docs.kidger.site/equinox/tricks/
    """

    def kernels(model: Classifier) -> list[jax.Array]:
        return [block.fc.weight for block in model.encoder.blocks]

    keys = jax.random.split(key, 3)
    head = jax.nn.initializers.normal(0.01)(keys[0], model.head.weight.shape)
    model = eqx.tree_at(lambda model: model.head.weight, model, head)
    orthogonal = jax.nn.initializers.orthogonal()
    return eqx.tree_at(kernels, model, [orthogonal(one, w.shape) for one, w in zip(keys[1:], kernels(model))])


def initialise_all(mlp: eqx.nn.MLP, key: jax.Array) -> eqx.nn.MLP:
    """How do I initialise an Equinox model?

    https://docs.kidger.site/equinox/tricks/
    """

    def kernels(mlp: eqx.nn.MLP) -> list[jax.Array]:
        return [layer.weight for layer in mlp.layers]

    def biases(mlp: eqx.nn.MLP) -> list[jax.Array | None]:
        return [layer.bias for layer in mlp.layers]

    lecun = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
    keys = jax.random.split(key, len(mlp.layers))
    mlp = eqx.tree_at(kernels, mlp, [lecun(one, w.shape) for one, w in zip(keys, kernels(mlp))])
    return eqx.tree_at(biases, mlp, replace_fn=jnp.zeros_like)


def tie() -> eqx.Module:
    """How do I tie the output layer to the embedding?

    https://docs.kidger.site/equinox/api/nn/shared/
    """

    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key: jax.Array) -> None:
            model = LanguageModel(key)
            self.shared = eqx.nn.Shared(model, lambda m: m.head.weight, lambda m: m.embed.weight)

        def __call__(self, ids: jax.Array) -> jax.Array:
            return self.shared()(ids)

    return Tied(jax.random.key(0))


# ----------------------------------------------------------------------------------------- train


def freeze_and_unfreeze(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> tuple[Classifier, Classifier]:
    """How do I freeze the encoder and unfreeze it later?

    https://docs.kidger.site/equinox/examples/frozen_layer/
    """
    nothing = jax.tree.map(lambda leaf: False, model)
    is_head = eqx.tree_at(lambda m: m.head, nothing, jax.tree.map(eqx.is_inexact_array, model.head))
    head, encoder = eqx.partition(model, is_head)
    optimiser = optax.adam(1e-2)
    slots = optimiser.init(head)
    grads = eqx.filter_grad(lambda head: loss(eqx.combine(head, encoder), batch))(head)
    updates, slots = optimiser.update(grads, slots)
    first = eqx.combine(eqx.apply_updates(head, updates), encoder)
    head_grads, encoder_grads = eqx.partition(eqx.filter_grad(loss)(first, batch), is_head)
    encoder_slots = optimiser.init(eqx.filter(encoder, eqx.is_inexact_array))
    head_updates, slots = optimiser.update(head_grads, slots)
    encoder_updates, encoder_slots = optimiser.update(encoder_grads, encoder_slots)
    return first, eqx.apply_updates(first, eqx.combine(head_updates, encoder_updates))


def rates(model: Classifier) -> optax.GradientTransformation:
    """How do I give layers different learning rates?"""
    labels = jax.tree.map(lambda leaf: "rest", eqx.filter(model, eqx.is_inexact_array))
    encoder = jax.tree.map(lambda leaf: "encoder", labels.encoder)
    labels = eqx.tree_at(lambda labels: (labels.encoder, labels.head.bias), labels, (encoder, "bias"))
    rules = {"encoder": optax.adam(1e-5), "bias": optax.sgd(0.1), "rest": optax.adam(1e-3)}
    return optax.multi_transform(rules, lambda _: labels)  # a module of labels is callable, and optax would call it


def decay(model: Classifier) -> optax.GradientTransformation:
    """How do I leave biases and norms out of weight decay?"""

    def kernels(tree: Any) -> list[Any]:
        return [tree.head.weight, *(block.fc.weight for block in tree.encoder.blocks)]

    mask = jax.tree.map(lambda leaf: False, eqx.filter(model, eqx.is_inexact_array))
    mask = eqx.tree_at(kernels, mask, replace_fn=lambda leaf: True)
    return optax.adamw(1e-3, weight_decay=0.1, mask=mask)


def accumulate(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> Classifier:
    """How do I accumulate gradients over microbatches?"""
    optimiser = optax.MultiSteps(optax.adam(1e-2), every_k_schedule=4)
    slots = optimiser.init(eqx.filter(model, eqx.is_inexact_array))
    ids, labels = batch
    for part in zip(jnp.split(ids, 4), jnp.split(labels, 4)):
        updates, slots = optimiser.update(eqx.filter_grad(loss)(model, part), slots)
        model = eqx.apply_updates(model, updates)
    return model


def moving_average(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> tuple[Classifier, Classifier]:
    """How do I keep a moving average (EMA) of the weights?"""
    optimiser = optax.adam(1e-2)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    slots, averaged = optimiser.init(params), params
    for _ in range(10):
        grads = eqx.filter_grad(loss)(eqx.combine(params, static), batch)
        updates, slots = optimiser.update(grads, slots)
        params = eqx.apply_updates(params, updates)
        averaged = optax.incremental_update(params, averaged, 0.1)
    return eqx.combine(params, static), eqx.combine(averaged, static)


def three_seeds(keys: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I train three seeds at once?

    https://docs.kidger.site/equinox/tricks/
    """
    optimiser = optax.adam(1e-2)
    models = eqx.filter_vmap(Classifier)(keys)
    slots = eqx.filter_vmap(optimiser.init)(eqx.filter(models, eqx.is_inexact_array))

    @eqx.filter_jit
    @eqx.filter_vmap
    def step(model: Classifier, slots: Any) -> tuple[Classifier, Any, jax.Array]:
        value, grads = eqx.filter_value_and_grad(loss)(model, batch)
        updates, slots = optimiser.update(grads, slots)
        return eqx.apply_updates(model, updates), slots, value

    _, _, losses = step(models, slots)
    return losses


def resume(model: Classifier, batch: tuple[jax.Array, jax.Array], path: str, last: int) -> tuple[int, Classifier]:
    """How do I resume a run after a crash?

    https://docs.kidger.site/equinox/examples/serialisation/
    """
    import os

    optimiser = optax.adam(1e-2)
    state: Any = (jnp.array(0), model, optimiser.init(eqx.filter(model, eqx.is_inexact_array)))
    if os.path.exists(path):
        state = eqx.tree_deserialise_leaves(path, state)
    first = int(state[0])
    for at in range(first + 1, last + 1):
        _, model, slots = state
        updates, slots = optimiser.update(eqx.filter_grad(loss)(model, batch), slots)
        state = (jnp.array(at), eqx.apply_updates(model, updates), slots)
        eqx.tree_serialise_leaves(path + ".new", state)
        os.replace(path + ".new", path)
    return first, state[1]


def resize(model: Classifier, words: int, key: jax.Array) -> Classifier:
    """How do I resize the vocabulary?"""
    table = model.encoder.embed.weight
    drawn = 0.02 * jax.random.normal(key, (words - len(table), 8), table.dtype)
    larger = eqx.nn.Embedding(weight=jnp.concatenate([table, drawn]))
    return eqx.tree_at(lambda model: model.encoder.embed, model, larger)


def penalty(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I add an L2 penalty of the kernels to the loss?"""
    linear = [node for node in jax.tree.leaves(model, is_leaf=is_linear) if is_linear(node)]
    return loss(model, batch) + 1e-3 * sum(jnp.sum(layer.weight**2) for layer in linear)


def gradients_of_some(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """How do I compute gradients of some parameters only?

    https://docs.kidger.site/equinox/examples/frozen_layer/
    """

    def of_kernel(kernel: jax.Array) -> jax.Array:
        return loss(eqx.tree_at(lambda model: model.head.weight, model, kernel), batch)

    return jax.grad(of_kernel)(model.head.weight)


# ----------------------------------------------------------------------- files, look, devices


def save_and_load(mlp: eqx.nn.MLP, path: str, like: eqx.nn.MLP) -> eqx.nn.MLP:
    """How do I save an Equinox model, whose activation functions are leaves?

    https://docs.kidger.site/equinox/api/serialisation/
    """
    eqx.tree_serialise_leaves(path, mlp)
    return eqx.tree_deserialise_leaves(path, like)


def differences(before: Classifier, after: Classifier) -> dict[str, str]:
    """What changed between two checkpoints?"""

    def flat(model: Classifier) -> dict[str, jax.Array]:
        arrays = jax.tree.leaves_with_path(eqx.filter(model, eqx.is_array))
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in arrays}

    a, b = flat(before), flat(after)
    found = {path: "removed" for path in a if path not in b}
    found |= {path: "added" for path in b if path not in a}
    for path in a.keys() & b.keys():
        if a[path].shape != b[path].shape:
            found[path] = "reshaped"
        elif not np.array_equal(a[path], b[path]):
            change = jnp.linalg.norm(b[path] - a[path]) / jnp.linalg.norm(a[path])
            found[path] = f"changed by {change:.3g}"
    return found


def mlp_from_pytorch(state_dict: dict[str, np.ndarray], mlp: eqx.nn.MLP) -> eqx.nn.MLP:
    """How do I load PyTorch weights into Equinox?

    https://github.com/patrick-kidger/equinox/issues/642
    """
    targets = lambda mlp: [leaf for layer in mlp.layers for leaf in (layer.weight, layer.bias)]
    new = [jnp.asarray(array) for array in state_dict.values()]
    if [leaf.shape for leaf in new] != [leaf.shape for leaf in targets(mlp)]:
        raise ValueError("the checkpoint does not fit the model")
    return eqx.tree_at(targets, mlp, new)


def from_pytorch(state_dict: dict[str, np.ndarray], model: Classifier) -> Classifier:
    """The classifier with the weights of a checkpoint of PyTorch."""

    def targets(model: Classifier) -> dict[str, Any]:
        found: dict[str, Any] = {"embed.weight": model.encoder.embed.weight}
        found |= {"head.weight": model.head.weight, "head.bias": model.head.bias}
        for at, block in enumerate(model.encoder.blocks):
            found |= {f"layers.{at}.fc.weight": block.fc.weight, f"layers.{at}.fc.bias": block.fc.bias}
            found |= {f"layers.{at}.norm.weight": block.norm.weight, f"layers.{at}.norm.bias": block.norm.bias}
        return found

    expected = {name: leaf.shape for name, leaf in targets(model).items()}
    if {name: array.shape for name, array in state_dict.items()} != expected:
        raise ValueError("the checkpoint does not fit the model")
    new = [jnp.asarray(state_dict[name]) for name in expected]
    return eqx.tree_at(lambda model: list(targets(model).values()), model, new)


def not_finite(model: Classifier) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Which leaf is NaN?"""
    found = {}
    for path, leaf in jax.tree.leaves_with_path(eqx.filter(model, eqx.is_inexact_array)):
        places = np.argwhere(~np.isfinite(leaf))
        if len(places):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            found[name] = (len(places), tuple(places[0].tolist()))
    return found


def gradient_norms(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> dict[str, float]:
    """How do I log the gradient norm of each layer?"""
    norms = {}
    for path, leaf in jax.tree.leaves_with_path(eqx.filter_grad(loss)(model, batch)):
        if leaf.ndim == 2 and "embed" not in jax.tree_util.keystr(path):
            norms[jax.tree_util.keystr(path, simple=True, separator="/")] = float(jnp.linalg.norm(leaf))
    return norms


def update_ratios(model: Classifier, batch: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
    """How large are updates beside the weights?"""
    optimiser = optax.adam(1e-3)

    @eqx.filter_jit
    def step(model: Classifier, slots: Any) -> tuple[Classifier, Any, Any]:
        updates, slots = optimiser.update(eqx.filter_grad(loss)(model, batch), slots)
        weights = eqx.filter(model, eqx.is_inexact_array)
        ratios = jax.tree.map(lambda u, p: jnp.linalg.norm(u) / jnp.linalg.norm(p), updates, weights)
        return eqx.apply_updates(model, updates), slots, ratios

    _, _, ratios = step(model, optimiser.init(eqx.filter(model, eqx.is_inexact_array)))
    flat = jax.tree.leaves_with_path(ratios)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): ratio for path, ratio in flat}


def shard(model: Classifier, mesh: jax.sharding.Mesh) -> Classifier:
    """How do I shard a model by rules?

    https://docs.kidger.site/equinox/examples/parallelism/
    """

    def place(path: Any, leaf: Any) -> Any:
        if not eqx.is_array(leaf):
            return leaf
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = jax.P()
        if name.endswith("embed/weight"):
            spec = jax.P("model")
        elif leaf.ndim == 2 and leaf.shape[0] % mesh.shape["model"] == 0:
            spec = jax.P("model", None)
        return jax.device_put(leaf, jax.NamedSharding(mesh, spec))

    return jax.tree.map_with_path(place, model)
