"""The format: plain safetensors, with what only ptree knows in the metadata under the key `ptree`, as JSON.

    version   1. A reader MUST refuse a higher one.
    order     every path in declared order: leaves, aliases, and nodes without leaves.
    ties      alias -> [source, [names of the transforms, first applied first]]. An alias MAY have a tensor too, equal to
              what it shows of its source, for readers that know no ties; where the two differ, a reader MUST say so.
    empty     path -> "node" or "none", for a node without leaves and for None.
    kinds     path -> what a leaf is, where it is not a jax array: "numpy", "scalar" (of NumPy), "bool", "int", "float", or
              "key:" and the implementation for a typed PRNG key, whose tensor holds the key's words.

A file without this metadata is any safetensors file: its names are the paths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer

from .._errors import FileError, lines, quoted
from .._leaf import describe, short_dtype
from .._nested import Nested, build, insert
from .._paths import DEEPEST, split
from .._select import entry_dict
from .._tie import Tie
from .._transform import transform_named
from .._tree import Tree

VERSION = 1

_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
DTYPES = {code: np.dtype(getattr(ml_dtypes, name, name)) for code, name in _NAMES.items()}
"""safetensors' name of a dtype -> the dtype."""


@dataclass
class Facts:
    """What the metadata says of a tree."""

    order: list[str] = field(default_factory=list)
    ties: dict[str, Tie] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        ties = {alias: [tie.source, [step.name for step in tie.via]] for alias, tie in self.ties.items()}
        facts = {"version": VERSION, "order": self.order, "ties": ties, "empty": self.empty, "kinds": self.kinds}
        return json.dumps(facts)

    @staticmethod
    def from_json(text: str) -> Facts:
        """Raises ValueError, TypeError or KeyError where the text is not what `to_json` writes."""
        facts = json.loads(text)
        if facts["version"] > VERSION:
            raise ValueError(f"it has version {facts['version']} of the format; this ptree reads up to {VERSION}")
        ties = {a: Tie(source, tuple(map(transform_named, names))) for a, (source, names) in facts["ties"].items()}
        names = [*facts["order"], *(tie.source for tie in ties.values())]
        if not all(type(text) is str and text for text in (*names, *facts["kinds"].values())):
            raise TypeError("a name in its metadata is not a string, or is empty")
        return Facts(list(facts["order"]), ties, dict(facts["empty"]), dict(facts["kinds"]))


def taken_apart(tree: Any, expand_ties: bool) -> tuple[dict[str, np.ndarray], Facts]:
    """The tensors and the facts of a tree; raises one FileError that lists every leaf a file cannot hold."""
    values = entry_dict(tree)
    tensors: dict[str, np.ndarray] = {}
    facts = Facts()
    problems: list[str] = []
    for path, value in values.items():
        if path == "__metadata__":
            problems.append(f"{path!r} is the one name that safetensors keeps for itself; ptree.rename it")
            continue
        if path.count("/") >= DEEPEST or (not path.isprintable() and _not_utf8(path)):
            problems.append(f"{quoted(path)}: a name is valid Unicode of at most {DEEPEST} segments")
            continue
        if not path:
            raise FileError(f"cannot save {describe(value)}: a leaf needs a name; save Tree({{'name': leaf}})")
        facts.order.append(path)
        if type(value) is Tie:
            facts.ties[path] = value
            if not expand_ties:
                continue
            value = value.read(values[value.source])
        if value is None:
            facts.empty[path] = "none"
        elif not jax.tree.leaves(value):
            facts.empty[path] = "node"
        else:
            array, kind = _tensor(value)
            if array is None:
                problems.append(f"{path!r} is {kind}")
                continue
            tensors[path] = array
            if kind:
                facts.kinds[path] = kind
    if problems:
        told = lines(problems, "\n  ")
        raise FileError(f"cannot save these leaves, a file holds arrays, numbers and PRNG keys:\n  {told}")
    return tensors, facts


def _not_utf8(path: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in path)


def _tensor(leaf: Any) -> tuple[np.ndarray | None, str]:
    """The array to be written and the leaf's kind; or None and why not."""
    kind = ""
    if isinstance(leaf, Tracer):
        return None, "a tracer: save outside of jax.jit"
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        kind = f"key:{jax.random.key_impl(leaf)}"
        leaf = jax.random.key_data(leaf)
    elif isinstance(leaf, np.ma.MaskedArray):
        return None, "a masked array"
    elif isinstance(leaf, (np.ndarray, np.generic)):
        kind = "numpy" if isinstance(leaf, np.ndarray) else "scalar"
    elif type(leaf) in (bool, int, float):
        kind = type(leaf).__name__
    elif not isinstance(leaf, jax.Array):
        return None, describe(leaf) if hasattr(leaf, "shape") else f"{describe(leaf)}, a {type(leaf).__name__}"
    array = np.asarray(leaf, order="C")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype not in DTYPES.values():
        return None, f"{describe(array)}, a dtype that safetensors does not have"
    return array, kind


def leaf_of(array: np.ndarray, kind: str, path: str) -> Any:
    """The leaf as it was saved, from its tensor."""
    match kind.partition(":"):
        case ("numpy", _, _):
            return array
        case ("scalar", _, _):
            return array[()]
        case ("bool" | "int" | "float", _, _):
            return array.item()
        case ("key", _, impl):
            return jax.random.wrap_key_data(jnp.asarray(array), impl=impl)
        case ("", _, _):
            return to_jax(array, path)
    raise ValueError(f"{path!r} is of the kind {kind!r}, which this ptree does not know")


def to_jax(array: np.ndarray | np.generic, path: str) -> jax.Array:
    """The array on JAX's default device, or a FileError where JAX would cut it to 32 bits."""
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise FileError(
            f"{path!r} is {short_dtype(array.dtype)}, and JAX would cut it to 32 bits:"
            " call jax.config.update('jax_enable_x64', True) first"
        )
    return jnp.asarray(array)


def put_together(leaves: Mapping[str, Any], facts: Facts) -> Tree:
    """The tree of leaves and facts; raises ptree's errors, or ValueError where they do not fit each other."""
    empty = {path: None if kind == "none" else Tree() for path, kind in facts.empty.items()}
    values = {**empty, **facts.ties, **leaves}
    if sorted(values) != sorted(facts.order):
        lost, strange = {*facts.order} - {*values}, {*values} - {*facts.order}
        raise ValueError(f"its metadata does not fit its leaves: {sorted(lost or strange)[:3]}")
    nested = Nested()
    for path in facts.order:
        insert(nested, split(path), values[path])
    return build(nested)
