"""Nothing breaks a tie: tied trees x whatever is done to parameters, beside the same models with one leaf by hand.

Each model is written twice: as a tied Tree, and as nested dicts that hold each shared leaf once, with a table that
says by hand which name reads which leaf. Whatever is done to both, the tie must hold, and the numbers must agree.
"""

import copy
import functools
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax import contrib
from trees import arange, dense, equal, language_model, mlp

import ptree as pt
from ptree import initializers as I
from ptree import nn
from ptree._tree.leaf import same

doubled = pt.sharing.register_transform("doubled", lambda w: w * 2, lambda w: w / 2)
T, CONV = pt.transposed, (3, 2, 0, 1)


def floats(tree):
    """Values that are neither equal nor large."""
    return jax.tree.map(lambda leaf: jnp.sin(leaf * 0.7 + leaf.ndim).astype(jnp.float32), tree)


def seq2seq():
    embed, block = nn.Embedding(10, 4), nn.Dense(4)
    enc = nn.Sequential({"embed": embed, "a": block, "b": nn.Dense(4)})
    dec = nn.Sequential({"embed": embed, "a": nn.Sequential(block, nn.Dense(4)), "b": block})
    return pt.abstract(Both(enc, dec).spec(jnp.zeros(3, int)))


@dataclass(frozen=True)
class Both(nn.Layer):
    enc: nn.Layer
    dec: nn.Layer

    def declare(self, x):
        return pt.Tree({"enc": self.enc.spec(x), "dec": self.dec.spec(x)})


@dataclass(frozen=True)
class Model:
    """A tied tree, the same parameters each once in plain dicts, and what each name reads of them."""

    tied: pt.Tree
    once: Any
    reads: dict[str, tuple[str, Any]]


def model(plain, table, by_hand, make=pt.tie):
    plain = floats(plain)
    names = dict(pt.items(plain))
    once: dict[str, Any] = {}
    for name, leaf in names.items():
        if name not in by_hand:
            *above, last = name.split("/")
            functools.reduce(lambda node, key: node.setdefault(key, {}), above, once)[last] = leaf
    return Model(make(plain, table), once, {name: by_hand.get(name, (name, None)) for name in names})


def swapped(w):
    return jnp.swapaxes(w, -1, -2)


def moved(w):
    return jnp.moveaxis(w, (-1, -2, -4, -3), (-4, -3, -2, -1))


def both(alias, source):
    return {f"{alias}/{name}": (f"{source}/{name}", None) for name in ("kernel", "bias")}


def student():
    return {"embed": {"table": arange(10, 4)}, "head": {"kernel": arange(4, 10), "bias": arange(10)}, "mlp": mlp()}


OWN = {"4": "2"}
MODELS: dict[str, Model] = {
    "a leaf": model(mlp(), {"4/kernel": "2/kernel"}, {"4/kernel": ("2/kernel", None)}),
    "a subtree": model(mlp(), {"4": "2"}, both("4", "2")),
    "an alias before its source": model(mlp(), {"2": "4"}, both("2", "4")),
    "transposed": model(language_model(), {"head/kernel": T("embed/table")}, {"head/kernel": ("embed/table", swapped)}),
    "square transposed": model({"a": {"w": arange(3, 3)}, "b": {"w": arange(3, 3, start=5)}}, {"b/w": T("a/w")}, {"b/w": ("a/w", swapped)}),
    "permuted": model({"a": {"w": arange(2, 3, 4, 5)}, "b": arange(5, 4, 2, 3)}, {"b": T("a/w", CONV)}, {"b": ("a/w", moved)}),
    "through a registered transform": model(
        {"a": arange(2, 3), "b": arange(2, 3), "c": arange(3, 2)},
        {"b": doubled("a"), "c": T(doubled("a"))},
        {"b": ("a", lambda w: w * 2), "c": ("a", lambda w: swapped(w * 2))},
    ),
    "a chain": model(
        {name: {"w": arange(3, 3)} for name in "abcd"},
        {"d": "c", "c/w": T("b/w"), "b": "a"},
        {"b/w": ("a/w", None), "c/w": ("a/w", swapped), "d/w": ("a/w", swapped)},
    ),
    "two aliases of one source": model(mlp() | {"5": dense(8, 8)}, {"4": "2", "5": "2"}, both("4", "2") | both("5", "2")),
    "all blocks by one pattern": model(
        language_model(), {"blocks/*": "blocks/0"},
        both("blocks/1/q", "blocks/0/q") | both("blocks/1/v", "blocks/0/v") | both("blocks/2/q", "blocks/0/q") | both("blocks/2/v", "blocks/0/v"),
    ),
    "nested models with ties of their own": model(
        {"a": mlp(), "b": mlp()}, None, both("a/4", "a/2") | both("b/4", "b/2"),
        lambda plain, _: pt.Tree({name: pt.tie(part, OWN) for name, part in plain.items()}),
    ),
    "models tied across and inside": model(
        {"student": student(), "teacher": student()}, {"teacher/embed/table": "student/embed/table", "teacher/mlp": "student/mlp"},
        {"teacher/embed/table": ("student/embed/table", None), "student/head/kernel": ("student/embed/table", swapped),
         "teacher/head/kernel": ("student/embed/table", swapped)}
        | both("student/mlp/4", "student/mlp/2") | both("teacher/mlp/0", "student/mlp/0") | both("teacher/mlp/2", "student/mlp/2")
        | both("teacher/mlp/4", "student/mlp/2") | both("teacher/mlp/6", "student/mlp/6"),
        lambda plain, table: pt.tie({name: pt.tie(part, {"head/kernel": T("embed/table"), "mlp/4": "mlp/2"}) for name, part in plain.items()}, table),
    ),
    "in each layer of a stack": model(
        {"blocks": {":": {"q": arange(5, 2, 3), "k": arange(5, 3, 2), "n": arange(5, 3)}}, "x": arange(2)},
        {"blocks/:/k": T("blocks/:/q")}, {"blocks/:/k": ("blocks/:/q", swapped)},
    ),
    "across stacks": model(
        {name: {"blocks": {":": {"kernel": arange(3, 2, 2), "bias": arange(3, 2)}}, "x": arange(2)} for name in ("enc", "dec")},
        {"dec/blocks": "enc/blocks"}, both("dec/blocks/:", "enc/blocks/:"),
    ),
    "one layer object at many places": model(
        pt.asdict(jax.tree.map(lambda leaf: arange(*leaf.shape), pt.untie(seq2seq()))), pt.ties(seq2seq()),
        {"dec/embed/table": ("enc/embed/table", None)} | both("dec/a/0", "enc/a") | both("dec/b", "enc/a"),
    ),
}  # fmt: skip
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def walk(tree, name):
    for segment in name.split("/"):
        tree = tree[segment]
    return tree


def losses(model):
    """The loss of the tied tree, read from node to node, and the same of the leaves written once."""

    def loss(read, x):
        return sum((jnp.sin(read(name) * (at + 1) + x)).mean() for at, name in enumerate(model.reads))

    def by_hand(params, name):
        source, seen = model.reads[name]
        return walk(params, source) if seen is None else seen(walk(params, source))

    return (
        lambda params, x: loss(lambda name: walk(params, name), x),
        lambda params, x: loss(lambda name: by_hand(params, name), x),
    )


def holds(model, tree, once, exact=False):
    """The tie holds in a tree that something has been done to, and the leaves are those of the model by hand."""
    assert type(tree) is pt.Tree
    assert pt.ties(tree) == pt.ties(model.tied)
    assert jax.tree.structure(tree) == jax.tree.structure(model.tied)
    ours, theirs = jax.tree.leaves(tree), jax.tree.leaves(once)
    assert len(ours) == len(theirs) == len(jax.tree.leaves(model.once))
    for a, b in zip(ours, theirs, strict=True):
        if not hasattr(a, "__array__"):
            assert a == b
        elif exact:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
        else:
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    for name, (source, seen) in model.reads.items():
        if name != source and seen is None:
            assert tree[name] is walk(tree, name) is tree[source]
        elif hasattr(tree[source], "__array__") and seen is not None and tree[source].ndim >= model.tied[source].ndim:
            np.testing.assert_array_equal(np.asarray(walk(tree, name)), np.asarray(seen(tree[source])))


X, XS = jnp.float32(0.3), jnp.linspace(-1.0, 1.0, 3)


def sgd(loss):
    return lambda params, x: jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params, x))


def stacked(params):
    return jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf * 2]), params)


def placed(loss, params):
    mesh = Mesh(np.array(jax.devices()[:8]), ("all",))
    assert mesh.size == 8
    place = lambda leaf: NamedSharding(mesh, PartitionSpec(*("all" if n % 8 == 0 else None for n in leaf.shape[:1])))
    params = jax.device_put(params, jax.tree.map(place, params))
    assert all(len(leaf.devices()) == 8 for leaf in jax.tree.leaves(params))
    return jax.jit(jax.grad(loss))(params, X)


def donated(loss, params):
    fresh = jax.tree.map(jnp.array, params)
    new = jax.jit(sgd(loss), donate_argnums=0)(fresh, X)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(fresh))
    return new


OPERATIONS = {
    "jit": lambda loss, p: jax.jit(lambda p: jax.tree.map(lambda leaf: leaf * 2, p))(p),
    "grad": lambda loss, p: jax.grad(loss)(p, X),
    "grad in jit": lambda loss, p: jax.jit(jax.grad(loss))(p, X),
    "value_and_grad with has_aux": lambda loss, p: jax.value_and_grad(lambda p, x: (loss(p, x), p), has_aux=True)(p, X)[1],
    "the aux of value_and_grad": lambda loss, p: jax.value_and_grad(lambda p, x: (loss(p, x), p), has_aux=True)(p, X)[0][1],
    "jvp of grad": lambda loss, p: jax.jvp(lambda p: jax.grad(loss)(p, X), (p,), (p,))[1],
    "vjp": lambda loss, p: jax.vjp(lambda p: loss(p, X), p)[1](jnp.float32(2))[0],
    "linearize": lambda loss, p: jax.tree.map(lambda leaf: leaf * jax.linearize(lambda p: loss(p, X), p)[1](p), p),
    "vmap over a batch": lambda loss, p: jax.vmap(jax.grad(loss), (None, 0))(p, XS),
    "vmap over an ensemble": lambda loss, p: jax.vmap(sgd(loss))(stacked(p), XS),
    "scan": lambda loss, p: jax.lax.scan(lambda p, x: (sgd(loss)(p, x), loss(p, x)), p, XS)[0],
    "scan over an ensemble": lambda loss, p: jax.lax.scan(lambda x, p: (x, sgd(loss)(p, x)), X, stacked(p))[1],
    "fori_loop": lambda loss, p: jax.lax.fori_loop(0, 3, lambda at, p: sgd(loss)(p, XS[at]), p),
    "cond": lambda loss, p: jax.lax.cond(loss(p, X) > -99, lambda p: sgd(loss)(p, X), lambda p: p, p),
    "remat": lambda loss, p: jax.grad(jax.checkpoint(loss))(p, X),
    "donation": donated,
    "eval_shape": lambda loss, p: jax.eval_shape(jax.grad(loss), p, X),
    "tree.map": lambda loss, p: jax.tree.map(lambda leaf: leaf + 1, p),
    "tree.map of two trees": lambda loss, p: jax.tree.map(jnp.add, p, jax.grad(loss)(p, X)),
    "tree.map_with_path": lambda loss, p: jax.tree.map_with_path(lambda path, leaf: leaf * len(path), p),
    "tree.transpose": lambda loss, p: jax.tree.transpose(jax.tree.structure(p), jax.tree.structure((0, 0)), jax.tree.map(lambda a: (a, a), p))[1],
    "ravel_pytree": lambda loss, p: (lambda flat, back: back(flat * 2))(*jax.flatten_util.ravel_pytree(p)),
    "device_put with shardings": placed,
    "pickle": lambda loss, p: pickle.loads(pickle.dumps(p)),
    "deepcopy": lambda loss, p: copy.deepcopy(p),
    "jit with static structure": lambda loss, p: jax.jit(lambda leaves, s: jax.tree.unflatten(s, leaves), static_argnums=1)(jax.tree.leaves(p), jax.tree.structure(p)),
}  # fmt: skip
EXACT = {"pickle", "deepcopy", "the aux of value_and_grad", "tree.transpose", "jit with static structure", "tree.map"}


@models
@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_that_jax_does_breaks_a_tie(model, name):
    tied, once = losses(model)
    holds(model, OPERATIONS[name](tied, model.tied), OPERATIONS[name](once, model.once), exact=name in EXACT)


@models
def test_the_forward_pass_is_the_one_by_hand_bit_for_bit(model):
    tied, once = losses(model)
    assert float(jax.jit(tied)(model.tied, X)) == float(jax.jit(once)(model.once, X))
    apart = pt.untie(model.tied)
    assert float(jax.jit(tied)(apart, X)) == pytest.approx(float(jax.jit(once)(model.once, X)), rel=1e-6)


# ---------------------------------------------------------------------------------- optimisers


def optimisers():
    """Every optimiser on optax's page: its aliases, and those of contrib that take one gradient."""
    kept = vars(optax._src.alias)
    named = {name: f for name, f in vars(optax).items() if callable(f) and name.islower() and kept.get(name) is f}
    named = {name: f for name, f in named.items() if getattr(f, "func", f).__module__ == optax._src.alias.__name__}
    assert {"adamw", "nadamw", "lbfgs", "polyak_sgd", "sm3"} < {*named}
    assert len(named) >= 31, sorted(named)
    extra = (
        "acprop ademamix simplified_ademamix adopt cocob dadapt_adamw madgrad momo momo_adam muon prodigy"
        " schedule_free_adamw schedule_free_sgd sophia"
    )
    return named | {f"contrib.{name}": getattr(contrib, name) for name in extra.split()}


OPTIMISERS = optimisers()
OPTIONS = {"contrib.cocob": {}, "polyak_sgd": {}, "noisy_sgd": {"learning_rate": 1e-2, "key": jax.random.key(0)}}
ALSO_TOLD = {  # what an optimiser asks for beside the gradient
    "lbfgs": ("value", "grad", "value_fn"),
    "polyak_sgd": ("value",),
    "contrib.momo": ("value",),
    "contrib.momo_adam": ("value",),
    "contrib.sophia": ("obj_fn",),
}


def three_steps(name, loss, params):
    """The parameters, the last update and the state after three steps."""
    optimiser = OPTIMISERS[name](**OPTIONS.get(name, {"learning_rate": 1e-2}))

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(loss)(params, X)
        function = functools.partial(loss, x=X)
        told = {"value": value, "grad": grads, "value_fn": function, "obj_fn": function}
        told = {what: told[what] for what in ALSO_TOLD.get(name, ())}
        updates, state = optimiser.update(grads, state, params, **told)
        return optax.apply_updates(params, updates), updates, state

    state = optimiser.init(params)
    for _ in range(3):
        params, updates, state = step(params, state)
    return params, updates, state


@pytest.mark.parametrize("which", ["models tied across and inside", "a chain"])
@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
def test_every_optimiser_sees_one_leaf(name, which):
    model = MODELS[which]
    tied, by_hand = losses(model)
    params, updates, state = three_steps(name, tied, model.tied)
    once, plain_updates, plain = three_steps(name, by_hand, model.once)
    holds(model, params, once)
    holds(model, updates, plain_updates)
    assert len(jax.tree.leaves(state)) == len(jax.tree.leaves(plain))
    for part in jax.tree.leaves(state, is_leaf=lambda node: type(node) is pt.Tree):
        assert type(part) is not pt.Tree or pt.ties(part) == pt.ties(model.tied)
    assert any(
        not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(model.tied), strict=True)
    )


# ------------------------------------------------------------------------- every function of ptree


def everywhere(path, leaf):
    return True


def other(leaf):
    return leaf * 2 + 1


def key():
    return jax.random.key(1)


def written_through_each_name(model):
    tree, once = model.tied, model.once
    for name, (source, _) in model.reads.items():
        value = other(walk(tree, name))
        tree = pt.set(tree, name, value)
        np.testing.assert_array_equal(tree[name], value)
        once = pt.set(once, source, tree[source])
        element = (0,) * value.ndim
        again = pt.set(tree, name, 5.0, at=element)
        assert float(again[name][element]) == 5.0
        assert pt.ties(again) == pt.ties(model.tied)
    return tree, once


def read_everywhere(model):
    """Each leaf and each node between, by `get` and by hand, is what the names say."""
    tree = model.tied
    for name, (source, seen) in model.reads.items():
        segments = name.split("/")
        for at in range(len(segments)):
            above, below = "/".join(segments[:at]), "/".join(segments[at:])
            expected = tree[source] if seen is None else seen(tree[source])
            np.testing.assert_array_equal(pt.get(pt.get(tree, above), below), expected)
            np.testing.assert_array_equal(dict(pt.items(pt.get(tree, above), aliases=True))[below], expected)
    return tree


def unstacked_and_back(model):
    """A tie inside of layers stays when they are taken apart and put together; one across stacks is two ends of it."""
    tree = model.tied
    if model is MODELS["in each layer of a stack"]:
        apart = pt.stacks.unstack(tree, "blocks")
        assert pt.ties(apart) == {f"blocks/{at}/k": T(f"blocks/{at}/q") for at in range(5)}
        tree = pt.stacks.stack(apart, "blocks")
    elif model is not MODELS["across stacks"]:
        two = pt.Tree({"all": [tree, tree]})
        tree = pt.stacks.unstack(pt.stacks.stack(two, "all"), "all")["all"][1]
    return tree, model.once


def kept_in_a_file(model, tmp_path, **options):
    file = tmp_path / "a.safetensors"
    pt.save(file, model.tied, **options)
    assert equal(pt.load(file), model.tied)
    assert pt.paths(pt.load(file), aliases=True) == pt.paths(model.tied, aliases=True)
    apart = pt.load(file, like=pt.untie(model.tied))
    assert equal(apart, pt.untie(model.tied))
    pt.save(file, apart)
    assert pt.ties(pt.load(file)) == {}
    return pt.load(file, like=model.tied), model.once


def loaded_with_a_report(model, folder):
    file = folder / "m.safetensors"
    pt.save(file, model.tied)
    back, report = pt.load_report(file, like=model.tied)
    assert sorted(report.loaded) == sorted(pt.paths(model.tied))
    return back, model.once


def read_by_name(model, folder):
    """Every name of an open file reads as it reads in the tree, aliases too."""
    file = folder / "m.safetensors"
    pt.save(file, model.tied)
    with pt.open(file) as opened:
        assert list(opened) == pt.paths(model.tied, aliases=True)
        read = {path: leaf[...] for path, leaf in opened.items()}
        assert all(same(leaf, model.tied[path]) for path, leaf in read.items())
        assert all(opened[path].shape == leaf.shape for path, leaf in read.items())
    return pt.load(file), model.once


FUNCTIONS = {
    "get": lambda m, _: (read_everywhere(m), m.once),
    "set": lambda m, _: written_through_each_name(m),
    "put": lambda m, _: (pt.drop(pt.put(m.tied, "new/leaf", X), "new"), m.once),
    "update": lambda m, _: tuple(pt.update(t, everywhere, other) for t in (m.tied, m.once)),
    "items": lambda m, _: (pt.tie(dict(pt.items(m.tied, aliases=True)), pt.ties(m.tied)), m.once),
    "select": lambda m, _: (pt.select(m.tied, everywhere), m.once),
    "partition": lambda m, _: (pt.merge(*pt.partition(m.tied, lambda path, _: path == pt.paths(m.tied)[0])), m.once),
    "merge": lambda m, _: (pt.merge(*pt.partition(m.tied, lambda path, _: path == pt.paths(m.tied)[-1])[::-1]), m.once),
    "mask": lambda m, _: tuple(pt.mask(t, lambda path, leaf: leaf.ndim > 1) for t in (m.tied, m.once)),
    "drop": lambda m, _: (pt.drop(pt.put(m.tied, "z", X), "z"), m.once),
    "rename": lambda m, _: (pt.rename(pt.rename(m.tied, {"**": "under/**"}), {"under/**": "**"}), m.once),
    "flatten": lambda m, _: (pt.unflatten(pt.flatten(m.tied)), m.once),
    "unflatten": lambda m, _: (pt.unflatten(pt.flatten(m.tied), like=m.tied), m.once),
    "asdict": lambda m, _: (pt.tie(pt.asdict(m.tied), pt.ties(m.tied)), m.once),
    "label": lambda m, _: tuple(pt.label(t, {lambda path, leaf: leaf.ndim > 1: 1.0}, default=0.0) for t in (m.tied, m.once)),
    "init": lambda m, _: tuple(pt.init(pt.abstract(t), key(), {"**": I.normal(1.0)}) for t in (m.tied, m.once)),
    "reinit": lambda m, _: tuple(pt.reinit(t, key(), {"**": I.uniform(0.0, 1.0)}) for t in (m.tied, m.once)),
    "abstract": lambda m, _: tuple(pt.abstract(t) for t in (m.tied, m.once)),
    "keys": lambda m, _: tuple(jax.tree.map(jax.random.key_data, pt.random.keys(t, key())) for t in (m.tied, m.once)),
    "tie": lambda m, _: (pt.tie(m.tied, pt.ties(m.tied)), m.once),
    "untie": lambda m, _: (pt.tie(pt.untie(m.tied), pt.ties(m.tied)), m.once),
    "stack": lambda m, _: unstacked_and_back(m),
    "unstack": lambda m, _: unstacked_and_back(m),
    "save": lambda m, folder: kept_in_a_file(m, folder),
    "load": lambda m, folder: kept_in_a_file(m, folder, expand_ties=True),
    "load_report": lambda m, folder: loaded_with_a_report(m, folder),
    "layer_ranks": lambda m, _: tuple(pt.stacks.layer_ranks(t) for t in (m.tied, m.once)),
    "open": lambda m, folder: read_by_name(m, folder),
}  # fmt: skip
ASKED = {
    "paths",
    "count",
    "explain",
    "check",
    "ties",
    "prefix",
    "find_ties",
    "summary",
    "gradient_by_use",
    "muon_dimension_numbers",
    "scan",
}  # the tests below
NO_TREE = {"child_key", "transposed", "register_transform"}


def test_each_function_of_ptree_is_here():
    namespaces = {"random", "sharing", "stacks"}
    public = (
        {name for name in pt.__all__ if name.islower()}
        - {"nn", "initializers", "look", "convert", "train", "shard"}
        - namespaces
    )
    public |= {name for namespace in namespaces for name in getattr(pt, namespace).__all__}
    assert public == {*FUNCTIONS} | ASKED | NO_TREE


@models
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_of_ptree_breaks_a_tie(model, name, tmp_path):
    holds(model, *FUNCTIONS[name](model, tmp_path))


@models
def test_what_is_said_of_a_tied_tree(model):
    shared = {name for name, (source, _) in model.reads.items() if name != source}
    assert set(pt.paths(model.tied)) == {*model.reads} - shared
    assert sorted(pt.paths(model.tied, aliases=True)) == sorted(model.reads)
    assert pt.count(model.tied) == pt.count(model.once) == pt.summary(model.tied).count
    assert {row.path for row in pt.explain(model.tied, {"**": 1}).rows} == {*model.reads} - shared
    told = pt.ties(model.tied)
    assert {name: told[name] if isinstance(told[name], str) else told[name].source for name in told} == {
        name: model.reads[name][0] for name in shared
    }
    assert pt.check(model.tied, like=model.tied) is None
    with pytest.raises(pt.StructureError, match="tied to"):
        pt.check(pt.untie(model.tied), like=model.tied)
    assert set(pt.paths(pt.asdict(model.tied))) == {*model.reads}


@models
def test_a_prefix_is_one_of_the_tied_tree(model):
    for path in pt.paths(model.tied):
        axes = pt.prefix(model.tied, {"": 0, path: 1})
        spread = jax.tree.map(lambda axis, node: jax.tree.map(lambda leaf: axis, node), axes, model.tied)
        assert {name for name, axis in pt.items(spread) if axis == 1} == {path}
        assert jax.tree.structure(spread) == jax.tree.structure(model.tied)


@models
def test_find_ties_finds_what_was_tied(model):
    drawn = pt.reinit(model.tied, key(), {"**": I.normal(1.0)})  # so that nothing else is equal
    plain = {source for source, seen in model.reads.values() if seen not in (None, swapped)}  # it knows one transform
    found = pt.sharing.find_ties(pt.untie(drawn))
    assert pt.sharing.find_ties(drawn) == {}
    told = {name: at for name, (at, _) in model.reads.items() if name != at and at not in plain and drawn[at].size > 1}
    assert len(found) == len(told) + (
        model is MODELS["through a registered transform"]  # b and c are one to another
    )
    back = pt.tie(pt.untie(drawn), found)
    assert all(np.array_equal(back[name], drawn[name]) for name in model.reads)


@models
def test_the_contributions_of_all_names_add_up_to_the_gradient(model):
    tied, _ = losses(model)
    grads = jax.grad(tied)(model.tied, X)
    for name, (source, _) in model.reads.items():
        uses = [source, *(use for use, (at, _) in model.reads.items() if at == source and use != source)]
        by_use = jax.jit(lambda p, x, name=name: pt.sharing.gradient_by_use(tied, p, name, x))(model.tied, X)
        assert {*by_use} == {*uses}
        np.testing.assert_allclose(sum(by_use.values()), grads[source], rtol=1e-5, atol=2e-6)
    assert next(iter(pt.sharing.gradient_by_use(tied, model.tied, name, X))) == source


# ------------------------------------------------------------------------------ other processes


@models
def test_orbax_keeps_the_tie(model, tmp_path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a", model.tied)
        checkpointer.wait_until_finished()
        holds(model, checkpointer.restore(tmp_path / "a", pt.abstract(model.tied)), model.once, exact=True)


def test_a_fresh_process_finds_every_tie_and_the_same_bits(tmp_path):
    for name, model in MODELS.items():
        pt.save(tmp_path / f"{name}.safetensors", model.tied)
        (tmp_path / f"{name}.pickle").write_bytes(pickle.dumps(model.tied))
    program = """
import pathlib, pickle, sys, ptree as pt, numpy as np
pt.sharing.register_transform("doubled", lambda w: w * 2, lambda w: w / 2)
for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    tree = pickle.loads(file.read_bytes()) if file.suffix == ".pickle" else pt.load(file)
    bits = [np.asarray(leaf).tobytes().hex() for _, leaf in pt.items(tree, aliases=True)]
    print(repr((file.name, repr(pt.ties(tree)), bits)))
"""
    told = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, text=True)
    expected = [
        repr((f"{name}.{end}", repr(pt.ties(model.tied)), [np.asarray(leaf).tobytes().hex() for _, leaf in pt.items(model.tied, aliases=True)]))
        for name, model in MODELS.items() for end in ("pickle", "safetensors")
    ]  # fmt: skip
    assert sorted(told.stdout.splitlines()) == sorted(expected)


def test_a_process_that_does_not_know_a_transform_says_what_to_do(tmp_path):
    pt.save(tmp_path / "a.safetensors", MODELS["through a registered transform"].tied)
    program = "import sys, ptree as pt\ntry: pt.load(sys.argv[1])\nexcept pt.FileError as error: print(error)"
    file = str(tmp_path / "a.safetensors")
    told = subprocess.run([sys.executable, "-c", program, file], check=True, capture_output=True, text=True).stdout
    assert told.endswith(
        "no transform has the name 'doubled': there are ['transposed']."
        " Call ptree.sharing.register_transform with this name first\n"
    )
