"""Claims: naming, selecting, reading and writing by path cost less than with the peers, at any size.

- naming every leaf of a Tree: at most 0.4 times `flax.traverse_util.flatten_dict(sep="/")`; of a dict: at most 1;
- a pattern with a fixed prefix does not grow with the rest of the tree;
- `**/attn/{q,v}/kernel`: at most 0.6 times flattening with flax and filtering with one compiled regex;
- a mask: at most 1 times `flax.traverse_util.path_aware_map`, also of 100,000 leaves, of a Tree and of a dict;
- `get`: at most 1 us plus 0.3 us a segment; `set`: at most 4 times nested `{**t, ...}` by hand (8 in a plain dict), and
  at least 100 times faster than `equinox.tree_at` at 10,000 leaves;
- reading a node of aliases again: at most 0.5 us.

Edits of structure are shown beside a recursion by hand that does this one thing, where one is short.

Run it with `python benchmarks/paths.py`. Times are of the processor. All run in one process, in turn; results are
checked equal first.
"""

import argparse
import platform
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from flax import traverse_util

import ptree as pt

SUB = [("attn", name) for name in "qkvo"] + [("mlp", name) for name in ("up", "gate", "down")]
Rows = list[tuple[str, str, Callable[[], Any], str]]  # what, who, function, what it is a ratio to


def transformer(leaves: int) -> dict[str, Any]:
    """Layers of seven dense sub-layers, 14 leaves each; a leaf is one small NumPy array, shared."""
    leaf = np.zeros(1, "float32")
    layers = range(max(1, leaves // 14))
    return {
        f"layer_{at}": {b: {s: {"kernel": leaf, "bias": leaf} for a, s in SUB if a == b} for b in ("attn", "mlp")}
        for at in layers
    }


def by_jax(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def by_hand(tree: Any, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        out.update(by_hand(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value})
    return out


def naming(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    return [
        ("naming", "ptree, a Tree", lambda: pt.flatten(tree), ""),
        ("naming", "ptree, a dict", lambda: pt.flatten(plain), ""),
        ("naming", "flax flatten_dict", lambda: traverse_util.flatten_dict(plain, sep="/"), "ptree, a Tree"),
        ("naming", "jax flatten_with_path", lambda: by_jax(plain), ""),
        ("naming", "recursion by hand", lambda: by_hand(plain), ""),
    ]


def selecting(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    regex = re.compile(r"(?:.*/)?attn/[qv]/kernel")
    wanted = re.compile(r"layer_7/.*")

    def filtered(pattern: re.Pattern[str]) -> dict[str, Any]:
        return {k: v for k, v in traverse_util.flatten_dict(plain, sep="/").items() if pattern.fullmatch(k)}

    def path_aware() -> Any:
        return traverse_util.path_aware_map(
            lambda path, _: path[-1] == "kernel" and path[-2] in ("q", "v") and path[-3] == "attn", plain
        )

    return [
        ("**/attn/{q,v}/kernel", "ptree", lambda: dict(pt.items(tree, "**/attn/{q,v}/kernel")), ""),
        ("**/attn/{q,v}/kernel", "flax and a regex", lambda: filtered(regex), "ptree"),
        ("mask of these", "ptree, a Tree", lambda: pt.mask(tree, "**/attn/{q,v}/kernel"), ""),
        ("mask of these", "ptree, a dict", lambda: pt.mask(plain, "**/attn/{q,v}/kernel"), ""),
        ("mask of these", "flax path_aware_map", path_aware, "ptree, a Tree"),
        ("layer_7/**", "ptree", lambda: dict(pt.items(tree, "layer_7/**")), ""),
        ("layer_7/**", "flax and a regex", lambda: filtered(wanted), "ptree"),
    ]


def reading(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    def by_keys() -> Any:
        return plain["layer_7"]["attn"]["v"]["kernel"]

    return [
        ("get, 4 segments", "tree[path]", lambda: tree["layer_7/attn/v/kernel"], ""),
        ("get, 4 segments", "pt.get", lambda: pt.get(tree, "layer_7/attn/v/kernel"), ""),
        ("get, 4 segments", "dict by hand", by_keys, ""),
    ]


def writing(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    new = np.ones(1, "float32")

    def by_keys() -> Any:
        t = plain
        layer = t["layer_7"]
        return {**t, "layer_7": {**layer, "attn": {**layer["attn"], "v": {**layer["attn"]["v"], "kernel": new}}}}

    return [
        ("set", "ptree, a Tree", lambda: pt.set(tree, "layer_7/attn/v/kernel", new), ""),
        ("set", "ptree, a dict", lambda: pt.set(plain, "layer_7/attn/v/kernel", new), ""),
        ("set", "nested {**t, ...}", by_keys, "ptree, a Tree"),
        (
            "set",
            "equinox tree_at",
            lambda: eqx.tree_at(lambda t: t["layer_7"]["attn"]["v"]["kernel"], plain, new),
            "ptree, a Tree",
        ),
    ]


def named(tree: Any, wanted: str) -> Any:
    """The leaves of one name, by hand."""
    below = {name: named(value, wanted) for name, value in tree.items() if isinstance(value, dict)}
    return {name: value for name, value in tree.items() if name == wanted} | below


def together(a: Any, b: Any) -> Any:
    """Two nested dicts as one, by hand."""
    merged = {**a, **b}
    for name in a.keys() & b.keys():
        merged[name] = together(a[name], b[name])
    return merged


def editing(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    parts, plain_parts = pt.partition(tree, "**/kernel"), pt.partition(plain, "**/kernel")

    def parted() -> Any:
        return named(plain, "kernel"), named(plain, "bias")

    return [
        ("partition", "ptree, a Tree", lambda: pt.partition(tree, "**/kernel"), ""),
        ("partition", "ptree, a dict", lambda: pt.partition(plain, "**/kernel"), ""),
        ("partition", "recursion by hand", parted, "ptree, a dict"),
        ("merge", "ptree, a Tree", lambda: pt.merge(*parts), ""),
        ("merge", "ptree, a dict", lambda: pt.merge(*plain_parts), ""),
        ("merge", "recursion by hand", lambda: together(*plain_parts), "ptree, a dict"),
        ("drop", "ptree, a Tree", lambda: pt.drop(tree, "**/bias"), ""),
        ("drop", "ptree, a dict", lambda: pt.drop(plain, "**/bias"), ""),
        ("drop", "recursion by hand", lambda: named(plain, "kernel"), "ptree, a dict"),
        ("rename", "ptree, a Tree", lambda: pt.rename(tree, {"layer_*": "block_*"}), ""),
        ("rename", "ptree, a dict", lambda: pt.rename(plain, {"layer_*": "block_*"}), ""),
    ]


def tied(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    both = pt.Tree({"encoder": tree, "decoder": tree})
    shared = pt.tie(both, {"decoder/*": "encoder/*"})
    return [
        ("tie of half", "ptree", lambda: pt.tie(both, {"decoder/*": "encoder/*"}), ""),
        ("mask, tied", "ptree", lambda: pt.mask(shared, "encoder/**/kernel"), ""),
        ("mask, tied", "ptree, untied", lambda: pt.mask(both, "**/kernel"), ""),
        ("node of aliases again", "tree[path]", lambda: shared["decoder"], ""),
        ("node of aliases again", "dict by hand", lambda: plain, ""),
    ]


def states(tree: pt.Tree, plain: dict[str, Any]) -> Rows:
    ours, theirs = optax.trace(0.9).init(tree), optax.adam(1.0).init(plain)
    del ours
    return [
        ("count of Adam's state", "ptree", lambda: pt.get(theirs, "0/count"), ""),
        ("count of Adam's state", "optax.tree.get", lambda: optax.tree.get(theirs, "count"), "ptree"),
    ]


LIMITS = {
    "naming": "one string and one dict entry a leaf, and a call a node",
    "**/attn/{q,v}/kernel": "one dict look-up a node of the tree",
    "mask of these": "the selection, then a new tree of the same size",
    "layer_7/**": "the nodes on the path; the rest of the tree is not entered",
    "get, 4 segments": "splitting the path, and one dict look-up a segment",
    "set": "copying the tuple of each node on the path, so its width",
    "partition": "naming every leaf, and two new trees",
    "merge": "naming every leaf of two trees, and a new tree",
    "drop": "naming every leaf under all its names, and a new tree",
    "rename": "matching and naming every leaf",
    "tie of half": "matching every leaf, and comparing two shapes a tie",
    "mask, tied": "the selection, then a new tree of the same size",
    "node of aliases again": "two dict look-ups",
    "count of Adam's state": "opening two foreign containers through JAX",
}


def microseconds(function: Callable[[], Any]) -> float:
    calls = 1
    while True:
        start = time.process_time()  # other programs on the machine do not count
        for _ in range(calls):
            function()
        took = time.process_time() - start
        if took > 0.002:
            return took / calls * 1e6
        calls *= 4


def plainly(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(plainly, value))
    return pt.asdict(value) if type(value) is pt.Tree else value


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--leaves", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000])
    options = arguments.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, jax {jax.__version__}")
    print(f"{'what':22} {'leaves':>7}  {'who':22} {'us':>12}  {'ptree / this':>12}")
    for group in (naming, selecting, reading, writing, editing, tied, states):
        for leaves in options.leaves:
            plain = transformer(max(leaves, 120))
            rows = group(pt.Tree(plain), plain)
            for what in dict.fromkeys(what for what, *_ in rows):
                same = [row for row in rows if row[0] == what]
                first = plainly(same[0][2]())
                assert all(plainly(function()) == first for _, _, function, _ in same)
                times: dict[str, list[float]] = {who: [] for _, who, _, _ in same}
                for _ in range(options.rounds):
                    for _, who, function, _ in same:
                        times[who].append(microseconds(function))
                middle = {who: statistics.median(values) for who, values in times.items()}
                for _, who, _, ours in same:
                    ratio = f"{middle[ours] / middle[who]:12.3f}" if ours else ""
                    print(f"{what:22} {leaves:7}  {who:22} {middle[who]:12.2f}  {ratio}")
                print(f"{'':22} {'':7}  ptree is limited by: {LIMITS[what]}")


if __name__ == "__main__":
    main()
