"""Pytrees of other libraries: JAX's own kinds of node, and states and modules of optax, Flax, Equinox, chex and Haiku.

Those of penzai, blackjax, diffrax and numpyro are imitated: nodes registered as these libraries register theirs.
"""

import collections
import dataclasses
import functools
import warnings
from typing import Any, Generic, NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import tree_util as jtu
from jax.experimental import sparse

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox as eqx
    import flax
    import haiku as hk
    import jmp
    from flax import linen, nnx
    from flax.core import FrozenDict, freeze
    from flax.training import dynamic_scale, train_state

KEY = jax.random.key(0)
X = jnp.ones((2, 3))


def ones(*shape):
    return jnp.ones(shape)


def params():
    return {"dense": {"kernel": ones(3, 4), "bias": ones(4)}, "scale": jnp.float32(2)}


# ---------------------------------------------------------------------------------- JAX's own


class Pair(NamedTuple):
    left: Any
    right: Any


class Nested(NamedTuple):
    pair: Pair
    many: tuple
    extra: Any = None


PlainPair = collections.namedtuple("PlainPair", ["a", "b"])


@jtu.register_pytree_node_class
class WithoutKeys:
    def __init__(self, x, y, name="n"):
        self.x, self.y, self.name = x, y, name

    def tree_flatten(self):
        return (self.x, self.y), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        return cls(*children, name)


@jtu.register_pytree_with_keys_class
class WithKeys:
    def __init__(self, x, y, flag=True):
        self.x, self.y, self.flag = x, y, flag

    def tree_flatten_with_keys(self):
        return ((jtu.GetAttrKey("x"), self.x), (jtu.GetAttrKey("y"), self.y)), self.flag

    @classmethod
    def tree_unflatten(cls, flag, children):
        return cls(*children, flag)


@jtu.register_pytree_with_keys_class
class WithDictKeys(dict):
    """A subclass of dict that is a node of its own, with its keys in the static part."""

    def tree_flatten_with_keys(self):
        names = tuple(sorted(self))
        return tuple((jtu.DictKey(name), self[name]) for name in names), names

    @classmethod
    def tree_unflatten(cls, names, children):
        return cls(zip(names, children, strict=True))


@jtu.register_pytree_with_keys_class
class Bag(collections.abc.Mapping):
    """A mapping that is no dict, gives other objects than it keeps, and keeps something besides its items."""

    def __init__(self, items, name):
        self._items, self.name = dict(items), name

    def __getitem__(self, key):
        value = self._items[key]
        return Bag(value, "view") if isinstance(value, dict) else value

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def tree_flatten_with_keys(self):
        names = tuple(sorted(self._items))
        return tuple((jtu.DictKey(name), self._items[name]) for name in names), (names, self.name)

    @classmethod
    def tree_unflatten(cls, static, children):
        return cls(dict(zip(static[0], children, strict=True)), static[1])


@jtu.register_pytree_with_keys_class
class Numbered:
    """A node whose keys are whole numbers that are no positions."""

    def __init__(self, children, numbers):
        self.children, self.numbers = list(children), tuple(numbers)

    def tree_flatten_with_keys(self):
        return tuple(
            (jtu.FlattenedIndexKey(at), child) for at, child in zip(self.numbers, self.children, strict=True)
        ), self.numbers

    @classmethod
    def tree_unflatten(cls, numbers, children):
        return cls(children, numbers)


@jtu.register_pytree_node_class
class Checked:
    """A node that refuses children without a shape, as careless constructors do, but for JAX's placeholders."""

    def __init__(self, w):
        if type(w) is not object and not hasattr(w, "shape") and w is not None and not isinstance(w, str | bool | int):
            raise TypeError("an array, please")
        self.w = w

    def tree_flatten(self):
        return (self.w,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


class Childless:
    pass


jtu.register_pytree_node(Childless, lambda node: ((), None), lambda static, children: Childless())


class ListNode(list):
    pass


jtu.register_pytree_node(ListNode, lambda node: (tuple(node), None), lambda static, children: ListNode(children))


class TupleNode(tuple):
    pass


jtu.register_pytree_node(TupleNode, lambda node: (tuple(node), None), lambda static, children: TupleNode(children))


@jtu.register_static
@dataclasses.dataclass(frozen=True)
class Static:
    name: str


@functools.partial(jtu.register_dataclass, data_fields=["w", "inner"], meta_fields=["rate", "name"])
@dataclasses.dataclass
class WithMeta:
    w: Any
    inner: Any
    rate: float = 0.1
    name: str = "n"


@jtu.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frozen:
    w: Any
    b: Any = None
    size: int = dataclasses.field(default=3, metadata={"static": True})


@jtu.register_dataclass
@dataclasses.dataclass
class AllStatic:
    size: int = dataclasses.field(default=3, metadata={"static": True})


def jax_trees():
    ordered = collections.OrderedDict(
        [("z", ones(2)), ("a", ones(1)), ("m", collections.OrderedDict(y=ones(3), x=ones(1)))]
    )
    by_default = collections.defaultdict(list, b=ones(1), a={"w": ones(2)})
    return {
        "dict": params(),
        "dict of dicts of one": {"a": {"b": {"c": ones(1)}}},
        "dict declared out of order": {"z": ones(1), "a": {"y": ones(2), "b": ones(1)}, "m": ones(3)},
        "dict with int keys": {0: ones(1), 10: ones(2), 2: ones(3)},
        "dict with negative keys": {-1: ones(1), 3: ones(2)},
        "dict with float keys": {0.5: ones(1), 1.5: ones(2)},
        "dict with tuple keys": {("a", 1): ones(1), ("b", 2): ones(2)},
        "dict with bool keys": {True: ones(1), False: ones(2)},
        "dict with keys that hold slashes": {"a/b": {"w": ones(1)}, "a/c": {"w": ones(2), "b": ones(1)}},
        "dict with dots and spaces": {"a.b": ones(1), "c d": ones(2), "é": ones(1)},
        "dict with empty nodes": {"a": {}, "b": [], "c": (), "w": ones(1), "n": None},
        "OrderedDict": ordered,
        "OrderedDict in a list": [ordered, ordered],
        "defaultdict": by_default,
        "defaultdict of a lambda": collections.defaultdict(lambda: 0, w=ones(1), v=ones(2)),
        "defaultdict without a factory": collections.defaultdict(None, w=ones(1), v=ones(1)),
        "list": [ones(1), [ones(2), ones(3)], ones(1)],
        "list of one": [ones(1)],
        "tuple": (ones(1), (ones(2),), ()),
        "tuple with None": (None, ones(1), None, {"w": ones(1)}),
        "list of None": [None, ones(1)],
        "list of (kernel, bias)": [(ones(3, 4), ones(4)), (ones(4, 2), ones(2))],
        "NamedTuple": Pair(ones(1), ones(2)),
        "NamedTuple, nested": Nested(Pair(ones(1), None), (ones(1), {"w": ones(2)})),
        "namedtuple by collections": PlainPair([ones(1), ones(2)], ones(1)),
        "node without keys": WithoutKeys(ones(1), {"w": ones(2), "v": ones(1)}),
        "node with keys": WithKeys([ones(1)], ones(2), flag=False),
        "nodes in nodes": WithKeys(WithoutKeys(ones(1), WithKeys(ones(2), ones(1))), (ones(1), None)),
        "node that is a dict": WithDictKeys(b=ones(1), a={"w": ones(2)}),
        "node that is a mapping": Bag({"x": {"z": ones(1), "y": ones(2)}, "w": ones(3)}, "kept"),
        "mappings in mappings": {"outer": Bag({"inner": Bag({"w": ones(1), "v": ones(1)}, "one")}, "two"), "b": ones(1)},
        "node with numbers": Numbered([ones(1), ones(2)], (3, 7)),
        "node that checks its children": {"a": Checked(ones(2)), "b": ones(1)},
        "node that is a list": ListNode([ones(1), ones(2)]),
        "node that is a tuple": {"t": TupleNode((ones(1), ones(2)))},
        "nodes without children": {"a": Childless(), "b": ones(1), "c": Static("s"), "d": ones(2)},
        "static nodes": [Static("one"), ones(1), Static("two")],
        "dataclass with meta fields": WithMeta(ones(2), {"v": ones(1), "u": ones(1)}, 0.5, "m"),
        "frozen dataclass": Frozen(ones(1), ones(2), 7),
        "frozen dataclass with None": Frozen(ones(1)),
        "dataclass, all static": {"a": AllStatic(4), "w": ones(1)},
        "dataclasses in a dict": {"a": WithMeta(Frozen(ones(1), ones(1)), [ones(2)]), "b": [Frozen(ones(2))]},
        "Partial": jtu.Partial(jnp.add, ones(2)),
        "Partial with keywords": jtu.Partial(jnp.where, x=ones(2), y={"w": ones(1)}),
        "Partial in a Partial": jtu.Partial(jtu.Partial(jnp.add, ones(2)), ones(1)),
        "vjp function": jax.vjp(jnp.sin, ones(3))[1],
        "typed PRNG keys": {"key": jax.random.key(1), "keys": jax.random.split(jax.random.key(2), 3), "w": ones(1)},
        "raw PRNG keys": {"key": jax.random.PRNGKey(1), "w": ones(1)},
        "rbg keys": [jax.random.key(0, impl="rbg"), jax.random.key(0, impl="unsafe_rbg")],
        "shapes": {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": [jax.ShapeDtypeStruct((), jnp.int8)]},
        "Python numbers": {"a": 1, "b": [2.0, True, 1j], "c": "text"},
        "NumPy": {"a": np.ones(2), "b": (np.float64(3), np.arange(2))},
        "BCOO": {"m": sparse.BCOO.fromdense(jnp.eye(3)), "w": ones(1)},
        "BCSR": [sparse.BCSR.fromdense(jnp.eye(2))],
        "named result": jnp.linalg.eigh(jnp.eye(2)),
        "gaussian_kde": jax.scipy.stats.gaussian_kde(jnp.arange(5.0)),
        "interpolator": jax.scipy.interpolate.RegularGridInterpolator((jnp.arange(3.0),), jnp.arange(3.0)),
        "shared leaves": (lambda w: {"a": w, "b": [w, w]})(ones(2)),
        "shared nodes": (lambda node: {"a": node, "b": [node, node]})({"w": ones(2), "b": ones(1)}),
        "deep": functools.reduce(lambda below, at: {f"level_{at}": below, "b": ones(1)}, range(30), {"w": ones(1)}),
    }  # fmt: skip


# ------------------------------------------------------------------------------------- optax

OPTIMISERS = {
    name: getattr(optax, name)
    for name in (
        "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamaxw", "adamw", "amsgrad", "fromage", "lamb", "lars", "lion",
        "nadam", "nadamw", "noisy_sgd", "novograd", "optimistic_gradient_descent", "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "sm3", "yogi",
        "adafactor",
    )
}  # fmt: skip


def optax_states():
    tree = params()
    labels = {"dense": {"kernel": "a", "bias": "b"}, "scale": "b"}
    adam = optax.adam(1e-3)
    wrapped = {
        "sgd with momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
        "adafactor of large": optax.adafactor(1e-3, min_dim_size_to_factor=2, momentum=0.9),
        "schedule": optax.adam(optax.cosine_decay_schedule(1e-3, 10)),
        "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.add_decayed_weights(1e-4), optax.scale(-1.0)),
        "named chain": optax.named_chain(("clip", optax.clip(1.0)), ("adam", adam)),
        "masked": optax.masked(adam, {"dense": {"kernel": True, "bias": False}, "scale": False}),
        "masked by a function": optax.masked(adam, lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)),
        "multi_transform": optax.multi_transform({"a": adam, "b": optax.sgd(0.1, momentum=0.5)}, labels),
        "partition": optax.partition({"a": adam, "b": optax.set_to_zero()}, labels),
        "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3, weight_decay=0.1),
        "inject a schedule": optax.inject_hyperparams(optax.sgd)(learning_rate=lambda count: 1 / (count + 1)),
        "MultiSteps": optax.MultiSteps(adam, every_k_schedule=3),
        "apply_if_finite": optax.apply_if_finite(adam, 3),
        "apply_every": optax.apply_every(4),
        "ema": optax.ema(0.9),
        "trace": optax.trace(0.9),
        "flatten": optax.flatten(adam),
        "add_noise": optax.add_noise(0.1, 0.5, 3),
        "adaptive clip": optax.adaptive_grad_clip(0.1),
        "centralize": optax.chain(optax.centralize(), adam),
        "scale_by_rss": optax.scale_by_rss(),
        "lbfgs": optax.lbfgs(),
        "zoom linesearch": optax.scale_by_zoom_linesearch(5),
        "backtracking": optax.scale_by_backtracking_linesearch(5),
        "polyak": optax.polyak_sgd(),
        "conditionally": optax.conditionally_transform(adam, lambda step: step > 3),
        "skip large": optax.contrib.skip_large_updates(1.0) if hasattr(optax.contrib, "skip_large_updates") else optax.identity(),
        "schedule free": optax.contrib.schedule_free_adamw(1e-3),
        "prodigy": optax.contrib.prodigy(),
        "dadapt": optax.contrib.dadapt_adamw(),
        "muon": optax.contrib.muon(1e-3),
        "sophia": optax.contrib.sophia(1e-3),
        "momo": optax.contrib.momo(),
        "sam": optax.contrib.sam(adam, optax.sgd(0.1), sync_period=2),
        "reduce_on_plateau": optax.contrib.reduce_on_plateau(),
    }  # fmt: skip
    states = {name: make(1e-3).init(tree) for name, make in OPTIMISERS.items() if name not in ("noisy_sgd",)}
    states["noisy_sgd"] = (
        optax.noisy_sgd(1e-3, key=0).init(tree)
        if "key" in optax.noisy_sgd.__code__.co_varnames
        else optax.noisy_sgd(1e-3).init(tree)
    )
    states.update({name: optimiser.init(tree) for name, optimiser in wrapped.items()})
    states["lookahead"] = optax.lookahead(adam, 5, 0.5).init(optax.LookaheadParams(tree, tree))
    states["LookaheadParams"] = optax.LookaheadParams(tree, tree)
    states["of a list"] = adam.init([(ones(3, 4), ones(4)), (ones(4, 2), ones(2))])
    return {f"optax {name}": state for name, state in states.items()}


# ---------------------------------------------------------------------------- Flax, nnx, chex, ...


class LinenMLP(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.BatchNorm(use_running_average=False)(linen.Dense(4)(x))
        return linen.Dense(2)(linen.relu(x))


class TwoDense(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(jnp.tanh(linen.Dense(3)(x)))


class TwoLinear(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)


class PartitionedMLP(linen.Module):
    @linen.compact
    def __call__(self, x):
        init = linen.with_partitioning(linen.initializers.ones, ("in", "out"))
        return linen.Dense(4, kernel_init=init)(x)


@flax.struct.dataclass
class FlaxState:
    params: Any
    step: int
    name: str = flax.struct.field(pytree_node=False, default="n")


class FlaxNode(flax.struct.PyTreeNode):
    w: Any
    inner: Any
    rate: float = flax.struct.field(pytree_node=False, default=0.5)


class Block(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)])
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.named = nnx.Dict({"a": nnx.Param(ones(2)), "b": nnx.Variable(ones(1))})


def partitioned_variables():
    """Variables whose kernel is boxed with its sharding. The lowest Flax asks JAX for the mesh by a deprecated name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="jax.interpreters.pxla", category=DeprecationWarning)
        return PartitionedMLP().init(KEY, X)


def flax_trees():
    variables = LinenMLP().init(KEY, X)
    block = Block(nnx.Rngs(0))
    graph, state = nnx.split(block)
    _, trained, rest = nnx.split(block, nnx.Param, ...)
    plain = dict(variables["params"])
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    return {
        "linen variables": variables,
        "FrozenDict": freeze(variables),
        "FrozenDict in a dict": {"params": freeze(plain), "extra": {"w": ones(1)}},
        "FrozenDict of one": FrozenDict(w=ones(1), v=ones(2)),
        "linen Partitioned": partitioned_variables(),
        "linen TrainState": train_state.TrainState.create(apply_fn=LinenMLP().apply, params=plain, tx=optax.adam(1e-3)),
        "linen TrainState, frozen": train_state.TrainState.create(apply_fn=None, params=freeze(plain), tx=optax.sgd(0.1, momentum=0.9)),
        "linen DynamicScale": dynamic_scale.DynamicScale(),
        "flax.struct dataclass": FlaxState(params(), 3),
        "flax.struct PyTreeNode": FlaxNode(ones(2), [FlaxNode(ones(1), None)]),
        "linen LSTM carry": linen.OptimizedLSTMCell(4).initialize_carry(KEY, (2, 3)),
        "nnx state": state,
        "nnx state of parameters": trained,
        "nnx state of the rest": rest,
        "nnx state of one layer": nnx.state(module),
        "nnx pure dict": nnx.to_pure_dict(state),
        "nnx State of dicts": nnx.State({"x": {"z": ones(1), "y": ones(2)}, "w": ones(3)}),
        "nnx State of lists": nnx.State({"x": {"y": [ones(1), ones(2)]}, "w": ones(3)}),
        "nnx State in a dict": {"params": nnx.State({"x": {"y": ones(1), "b": ones(1)}}), "step": 3},
        "nnx State of States": nnx.State({"x": nnx.State({"z": ones(1), "y": {"w": ones(2)}}), "w": ones(3)}),
        "nnx State with int keys": nnx.State({"layers": {0: {"w": ones(1)}, 1: {"w": ones(2)}}}),
        "nnx module": module,
        "nnx module of modules": block,
        "nnx Param": nnx.Param(ones(2)),
        "nnx Params in a dict": {"w": nnx.Param(ones(2)), "b": nnx.Variable(ones(1))},
        "nnx optimiser": nnx.state(nnx.Optimizer(module, optax.adam(1e-3), wrt=nnx.Param)),
        "nnx graph and state": (graph, state),
        "optax of nnx state": optax.adam(1e-3).init(trained),
        "optax of nnx State of dicts": optax.adam(1e-3).init(nnx.State({"x": {"z": ones(1), "y": ones(2)}, "w": ones(3)})),
    }  # fmt: skip


@chex.dataclass
class Chex:
    a: Any
    b: Any


@chex.dataclass(frozen=True)
class ChexFrozen:
    b: Any
    a: Any


@chex.dataclass(mappable_dataclass=False)
class ChexPlain:
    a: Any
    b: Any


@chex.dataclass
class ChexOfNames:
    """Fields that are named as what a mapping has."""

    values: Any
    keys: Any
    items: Any


class EqxBlock(eqx.Module):
    linear: eqx.nn.Linear
    scales: list
    named: dict
    rate: float = eqx.field(static=True, default=0.1)
    function: Any = jax.nn.relu


T = TypeVar("T")


class EqxGeneric(eqx.Module, Generic[T]):
    w: T
    maybe: Any = None


def other_trees():
    x = jnp.ones((2, 3))
    haiku = hk.transform(lambda x: hk.nets.MLP([4, 2], name="net")(x))
    haiku_state = hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.9)(x, is_training=True))
    mlp = eqx.nn.MLP(3, 2, 4, 2, key=KEY)
    norm, norm_state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="ema")
    return {
        "chex": Chex(a=ones(1), b={"x": ones(1), "y": ones(2)}),
        "chex, frozen": ChexFrozen(a=ones(1), b=Chex(a=ones(2), b=None)),
        "chex, not a mapping": ChexPlain(a=ones(1), b=[ones(1), ones(2)]),
        "chex in a dict": {"s": Chex(a=ones(1), b=ones(2)), "w": ones(1)},
        "chex in a list": [Chex(a=ones(1), b=ones(2)), ChexFrozen(a=ones(1), b=ones(2))],
        "chex with names of a mapping": ChexOfNames(values=ones(1), keys=ones(2), items={"w": ones(1)}),
        "optax of chex": optax.adam(1e-3).init(Chex(a=ones(1), b={"x": ones(1)})),
        "Haiku": haiku.init(jax.random.PRNGKey(0), x),
        "Haiku with state": haiku_state.init(jax.random.PRNGKey(0), x),
        "optax of Haiku": optax.adamw(1e-3).init(haiku.init(jax.random.PRNGKey(0), x)),
        "jmp loss scale": jmp.DynamicLossScale(jnp.float32(2.0**15)),
        "Equinox MLP": mlp,
        "Equinox arrays": eqx.filter(mlp, eqx.is_array),
        "Equinox static": eqx.filter(mlp, eqx.is_array, inverse=True),
        "Equinox module of one's own": EqxBlock(eqx.nn.Linear(2, 2, key=KEY), [ones(1), ones(2)], {"a": ones(1)}),
        "Equinox, without bias": eqx.nn.Linear(2, 2, use_bias=False, key=KEY),
        "Equinox, generic": EqxGeneric(w=(ones(1), ones(2))),
        "Equinox GRU": eqx.nn.GRUCell(2, 3, key=KEY),
        "Equinox attention": eqx.nn.MultiheadAttention(2, 4, key=KEY),
        "Equinox Sequential": eqx.nn.Sequential([eqx.nn.Linear(2, 3, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(0.1)]),
        "Equinox BatchNorm": norm,
        "Equinox State": norm_state,
        "Equinox Partial": eqx.Partial(jnp.add, ones(2)),
        "Equinox ensemble": eqx.filter_vmap(lambda key: eqx.nn.Linear(2, 2, key=key))(jax.random.split(KEY, 3)),
        "optax of Equinox": optax.adam(1e-3).init(eqx.filter(mlp, eqx.is_array)),
    }  # fmt: skip


# ------------------------------------------------------------- imitated: what is not installed


class HMCState(NamedTuple):
    """As blackjax.mcmc.hmc.HMCState."""

    position: Any
    logdensity: Any
    logdensity_grad: Any


class DualAveragingState(NamedTuple):
    """As blackjax's."""

    log_x: Any
    log_x_avg: Any
    step: Any
    avg_error: Any
    mu: Any


class WindowState(NamedTuple):
    """As blackjax's window adaptation, with states in states."""

    ss_state: DualAveragingState
    imm_state: Any
    step_size: Any
    inverse_mass_matrix: Any


class Dopri5(eqx.Module):
    """As diffrax's solvers: static fields, and other modules."""

    scan_kind: Any = eqx.field(static=True, default=None)
    root: Any = None


class Solution(eqx.Module):
    """As diffrax.Solution."""

    t0: Any
    t1: Any
    ts: Any
    ys: Any
    stats: dict
    solver_state: Any = None
    made_jump: Any = None


class PenzaiStruct:
    """As penzai's pytree dataclasses: fields by name, others in the static part."""

    def __init__(self, fields, static):
        self.fields, self.static = dict(fields), static


jtu.register_pytree_with_keys(
    PenzaiStruct,
    lambda node: (
        tuple((jtu.GetAttrKey(name), child) for name, child in node.fields.items()),
        (tuple(node.fields), node.static),
    ),
    lambda static, children: PenzaiStruct(zip(static[0], children, strict=True), static[1]),
)


class NamedArray:
    """As penzai's NamedArray: an array and the names of its axes."""

    def __init__(self, data, names):
        self.data, self.names = data, names


jtu.register_pytree_with_keys(
    NamedArray,
    lambda node: (((jtu.GetAttrKey("data_array"), node.data),), node.names),
    lambda names, children: NamedArray(children[0], names),
)


def imitated_trees():
    position = {"mu": ones(1), "tau": ones(8)}
    averaging = DualAveragingState(*(jnp.float32(at) for at in range(5)))
    weight = NamedArray(ones(2, 3), ("in", "out"))
    return {
        "imitated: blackjax HMC": HMCState(position, jnp.float32(1), position),
        "imitated: blackjax window": WindowState(averaging, (ones(2), ones(2, 2)), jnp.float32(1), ones(2)),
        "imitated: blackjax chains": jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), HMCState(position, jnp.float32(1), position)),
        "imitated: diffrax solution": Solution(0.0, 1.0, ones(5), {"y": ones(5, 2)}, {"num_steps": jnp.int32(4)}),
        "imitated: diffrax solver": {"solver": Dopri5(), "state": (False, ones(2)), "y0": ones(2)},
        "imitated: penzai layer": PenzaiStruct({"weights": weight, "bias": NamedArray(ones(3), ("out",))}, "Linear"),
        "imitated: penzai model": PenzaiStruct({"sublayers": [PenzaiStruct({"w": weight}, "a"), PenzaiStruct({}, "relu")], "x": None}, "Seq"),
        "imitated: numpyro SVI state": (optax.adam(1e-3).init(position), {"auto_loc": ones(3)}, jax.random.key(0)),
    }  # fmt: skip


FOREIGN: dict[str, Any] = {**jax_trees(), **optax_states(), **flax_trees(), **other_trees(), **imitated_trees()}
