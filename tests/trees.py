"""The corpus: awkward trees, over which every law runs."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ptree as pt


class Pair(NamedTuple):
    left: Any
    right: Any


@jax.tree_util.register_dataclass
@dataclass
class Block:
    kernel: Any
    inner: Any


def arange(*shape: int, dtype: Any = jnp.float32, start: int = 0) -> jax.Array:
    size = int(np.prod(shape))
    return (jnp.arange(size, dtype=jnp.float32) + start).reshape(shape).astype(dtype)


def dense(i: int, o: int, start: int = 0) -> dict[str, jax.Array]:
    return {"kernel": arange(i, o, start=start), "bias": arange(o, start=start + 7)}


def mlp() -> dict[str, Any]:
    return {"0": dense(4, 8), "2": dense(8, 8, 40), "4": dense(8, 8, 40), "6": dense(8, 1, 90)}


def language_model() -> dict[str, Any]:
    blocks = {str(i): {"q": dense(4, 4, i), "v": dense(4, 4, i)} for i in range(3)}
    return {"embed": {"table": arange(10, 4)}, "blocks": blocks, "head": {"kernel": arange(4, 10), "bias": arange(10)}}


def deep(levels: int) -> dict[str, Any]:
    tree: Any = {"leaf": arange(2)}
    for level in range(levels):
        tree = {f"level_{level}": tree}
    return tree


def tied(table: dict[str, Any], tree: dict[str, Any]) -> pt.Tree:
    return pt.tie(tree, table)


def square() -> dict[str, Any]:
    return {"a": {"w": arange(3, 3)}, "b": {"w": arange(3, 3).T}}


TREES: dict[str, Any] = {
    "empty": pt.Tree(),
    "one leaf": pt.Tree({"w": arange(3)}),
    "mlp": pt.Tree(mlp()),
    "declared out of order": pt.Tree({"z": arange(2), "a": {"y": arange(1), "b": arange(3)}, "m": arange(2)}),
    "deep": pt.Tree(deep(60)),
    "wide": pt.Tree({f"layer_{i}": {"kernel": arange(2, 2, start=i), "bias": arange(2)} for i in range(120)}),
    "empty nodes": pt.Tree({"a": {}, "b": {"c": {}, "w": arange(2)}, "n": None}),
    "tied subtree": tied({"4": "2"}, mlp()),
    "tied leaf": tied({"4/kernel": "2/kernel"}, mlp()),
    "tied twice": tied({"blocks/1": "blocks/0", "blocks/2": "blocks/0"}, language_model()),
    "tied across": tied({"blocks/2/q": "blocks/0/v", "blocks/1/v/bias": "head_bias"}, {**language_model(), "head_bias": arange(4)}),
    "tied transposed": tied({"head/kernel": pt.transposed("embed/table")}, language_model()),
    "tied square transposed": tied({"b/w": pt.transposed("a/w")}, square()),
    "tied chain": tied({"4": "2", "5/kernel": pt.transposed("4/kernel")}, {**mlp(), "5": {"kernel": arange(8, 8)}}),
    "nested with ties of its own": pt.Tree({"student": tied({"4": "2"}, mlp()), "teacher": tied({"4": "2"}, mlp())}),
    "tied across models": tied(
        {"teacher/embed/table": "student/embed/table"},
        {
            "student": tied({"head/kernel": pt.transposed("embed/table")}, language_model()),
            "teacher": tied({"head/kernel": pt.transposed("embed/table")}, language_model()),
        },
    ),
    "stacked": pt.Tree(pt.stacks.stack(language_model(), "blocks")),
    "stacked, tied inside": pt.stacks.stack(
        pt.Tree({"blocks": [tied({"k": pt.transposed("q")}, {"q": arange(2, 3, start=at), "k": arange(3, 2), "n": arange(3)}) for at in range(4)]}), "blocks"
    ),
    "stacks tied to each other": tied(
        {"dec/blocks": "enc/blocks"}, {name: pt.stacks.stack({"blocks": [dense(2, 2, at) for at in range(3)]}, "blocks") for name in ("enc", "dec")}
    ),
    "a stack of stacks": pt.stacks.stack(
        pt.stacks.stack(pt.Tree({"groups": [{"blocks": [dense(2, 3, 5 * i + j) for j in range(2)], "w": arange(2)} for i in range(3)]}), "groups"), "groups/:/blocks"
    ),
    "a plain stack": pt.stacks.stack(language_model(), "blocks"),
    "0-d": pt.Tree({"scale": jnp.float32(3), "shift": jnp.int32(2)}),
    "size 0": pt.Tree({"w": jnp.zeros((0, 4)), "b": jnp.zeros((3, 0))}),
    "dtypes": pt.Tree(
        {str(d): arange(3, dtype=d) for d in (jnp.bfloat16, jnp.float16, jnp.int8, jnp.uint32, jnp.bool_, jnp.complex64)}
        | {"float8": arange(3, dtype=jnp.float8_e4m3fn)}
    ),
    "PRNG keys": pt.Tree({"key": jax.random.key(3), "more": jax.random.split(jax.random.key(1), 3), "w": arange(2)}),
    "numpy": pt.Tree({"w": np.arange(6, dtype=np.float64).reshape(2, 3), "n": np.arange(3)}),
    "unicode and spaces": pt.Tree({"block 1": {"β": arange(2)}, "日本": arange(1), "a.b": arange(1), "layer[0]*": arange(1)}),
    "ordered dict": OrderedDict(z=arange(2), a=OrderedDict(y=arange(3), b=arange(1)), m={"k": (arange(1),)}),
    "default dict": defaultdict(dict, layer_10={"w": arange(2)}, layer_2={"w": arange(3)}),
    "plain dict": {"b": {"kernel": arange(2), "bias": arange(1)}, "a": arange(3)},
    "dict with int keys": {"layers": {0: arange(1), 10: arange(2), 2: arange(3)}},
    "list": [arange(1), {"w": arange(2)}, [arange(3)]],
    "tuple with None": (arange(1), None, {"w": arange(2)}),
    "named tuple": Pair(arange(1), Pair(arange(2), arange(3))),
    "dataclass": Block(arange(2, 2), {"bias": arange(2), "more": (arange(1),)}),
    "adam state": optax.adam(1e-3).init(pt.Tree(mlp())),
    "adam state of a tied tree": optax.adam(1e-3).init(tied({"4": "2"}, mlp())),
    "a bare array": arange(3),
}  # fmt: skip

SPECS: dict[str, pt.Tree] = {
    "spec": pt.Tree({"0": {"kernel": pt.Param((4, 8)), "bias": pt.Param((8,))}, "2": {"kernel": pt.Param((8, 8))}}),
    "abstract": pt.abstract(TREES["tied transposed"]),
    "labels": pt.Tree({"enc": {"w": "decay", "b": "none"}, "head": {"w": "decay"}}),
    "mask": pt.Tree({"enc": {"w": True, "b": False}}),
}

ARRAYS = {name: tree for name, tree in TREES.items() if name != "PRNG keys"}
"""Without typed keys, for what does arithmetic or compares with NumPy."""


def equal(a: Any, b: Any) -> bool:
    """Same structure, containers and ties, and the same leaves bit for bit."""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        map(same_leaf, jax.tree.leaves(a), jax.tree.leaves(b))
    )


def same_leaf(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b) or getattr(a, "dtype", None) != getattr(b, "dtype", None):
        return False
    if not hasattr(a, "__array__"):
        return a == b
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
