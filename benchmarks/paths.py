"""Claims: naming, selecting, reading and writing by path cost less than with the peers, at any size.

- naming every leaf of a Tree: at most 0.4 times `flax.traverse_util.flatten_dict(sep="/")`; of a dict: at most 1;
- a pattern with a fixed prefix does not grow with the rest of the tree;
- `**/attn/{q,v}/kernel`: at most 0.6 times flattening with flax and filtering with one compiled regex;
- a mask: at most 1 times `flax.traverse_util.path_aware_map`, also of 100,000 leaves, of a Tree and of a dict;
- `get`: at most 1 us plus 0.3 us a segment; `set`: at most 4 times nested `{**t, ...}` by hand (8 in a plain dict), and
  at least 100 times faster than `equinox.tree_at` at 10,000 leaves;
- reading a node of aliases again: at most 0.5 us.

Edits of structure are shown beside a recursion by hand that does this one thing, where one is short. Each needs at the least:
naming, one string and one entry of a dict a leaf; a selection, a look-up a node; a mask, the selection and a new tree; `get`, a
look-up a segment; `set`, a copy of each node on the path; the others name every leaf and make new trees.

Run it with `python benchmarks/paths.py`. Times are of the processor. All run in one process, in turn; results are
checked equal first.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import optax
from _command import Given, Option, main
from _results import Aim, Row
from _timing import ratio
from flax import traverse_util

import ptree as pt

SUB = [("attn", name) for name in "qkvo"] + [("mlp", name) for name in ("up", "gate", "down")]


class Contestant(NamedTuple):
    what: str
    who: str
    function: Callable[[], Any]
    beside: tuple[str, ...] = ()
    """The ways of ptree's that are set in a ratio to this one."""


ALONE = ("ptree",)
BOTH = ("ptree, a Tree", "ptree, a dict")


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


def naming(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    return [
        Contestant("naming", "ptree, a Tree", lambda: pt.flatten(tree)),
        Contestant("naming", "ptree, a dict", lambda: pt.flatten(plain)),
        Contestant("naming", "flax flatten_dict", lambda: traverse_util.flatten_dict(plain, sep="/"), BOTH),
        Contestant("naming", "jax flatten_with_path", lambda: by_jax(plain), BOTH),
        Contestant("naming", "recursion by hand", lambda: by_hand(plain), BOTH),
    ]


def selecting(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    regex = re.compile(r"(?:.*/)?attn/[qv]/kernel")
    wanted = re.compile(r"layer_7/.*")

    def filtered(pattern: re.Pattern[str]) -> dict[str, Any]:
        return {k: v for k, v in traverse_util.flatten_dict(plain, sep="/").items() if pattern.fullmatch(k)}

    def path_aware() -> Any:
        return traverse_util.path_aware_map(
            lambda path, _: path[-1] == "kernel" and path[-2] in ("q", "v") and path[-3] == "attn", plain
        )

    return [
        Contestant("`**/attn/{q,v}/kernel`", "ptree", lambda: dict(pt.items(tree, "**/attn/{q,v}/kernel"))),
        Contestant("`**/attn/{q,v}/kernel`", "flax and a regex", lambda: filtered(regex), ALONE),
        Contestant("mask of these", "ptree, a Tree", lambda: pt.mask(tree, "**/attn/{q,v}/kernel")),
        Contestant("mask of these", "ptree, a dict", lambda: pt.mask(plain, "**/attn/{q,v}/kernel")),
        Contestant("mask of these", "flax path_aware_map", path_aware, BOTH),
        Contestant("`layer_7/**`", "ptree", lambda: dict(pt.items(tree, "layer_7/**"))),
        Contestant("`layer_7/**`", "flax and a regex", lambda: filtered(wanted), ALONE),
    ]


def reading(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    def by_keys() -> Any:
        return plain["layer_7"]["attn"]["v"]["kernel"]

    return [
        Contestant("get, 4 segments", "tree[path]", lambda: tree["layer_7/attn/v/kernel"]),
        Contestant("get, 4 segments", "pt.get", lambda: pt.get(tree, "layer_7/attn/v/kernel")),
        Contestant("get, 4 segments", "dict by hand", by_keys, ("tree[path]", "pt.get")),
    ]


def writing(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    new = np.ones(1, "float32")

    def replaced(tree: Any) -> Any:
        return tree["layer_7"]["attn"]["v"]["kernel"]

    def by_keys() -> Any:
        t = plain
        layer = t["layer_7"]
        return {**t, "layer_7": {**layer, "attn": {**layer["attn"], "v": {**layer["attn"]["v"], "kernel": new}}}}

    return [
        Contestant("set", "ptree, a Tree", lambda: pt.set(tree, "layer_7/attn/v/kernel", new)),
        Contestant("set", "ptree, a dict", lambda: pt.set(plain, "layer_7/attn/v/kernel", new)),
        Contestant("set", "`{**t, ...}` by hand", by_keys, BOTH),
        Contestant("set", "equinox tree_at", lambda: eqx.tree_at(replaced, plain, new), BOTH),
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


def editing(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    parts, plain_parts = pt.partition(tree, "**/kernel"), pt.partition(plain, "**/kernel")

    def parted() -> Any:
        return named(plain, "kernel"), named(plain, "bias")

    return [
        Contestant("partition", "ptree, a Tree", lambda: pt.partition(tree, "**/kernel")),
        Contestant("partition", "ptree, a dict", lambda: pt.partition(plain, "**/kernel")),
        Contestant("partition", "recursion by hand", parted, BOTH),
        Contestant("merge", "ptree, a Tree", lambda: pt.merge(*parts)),
        Contestant("merge", "ptree, a dict", lambda: pt.merge(*plain_parts)),
        Contestant("merge", "recursion by hand", lambda: together(*plain_parts), BOTH),
        Contestant("drop", "ptree, a Tree", lambda: pt.drop(tree, "**/bias")),
        Contestant("drop", "ptree, a dict", lambda: pt.drop(plain, "**/bias")),
        Contestant("drop", "recursion by hand", lambda: named(plain, "kernel"), BOTH),
        Contestant("rename", "ptree, a Tree", lambda: pt.rename(tree, {"layer_*": "block_*"})),
        Contestant("rename", "ptree, a dict", lambda: pt.rename(plain, {"layer_*": "block_*"})),
    ]


def tied(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    both = pt.Tree({"encoder": tree, "decoder": tree})
    shared = pt.tie(both, {"decoder/*": "encoder/*"})
    return [
        Contestant("tie of half", "ptree", lambda: pt.tie(both, {"decoder/*": "encoder/*"})),
        Contestant("mask, tied", "ptree", lambda: pt.mask(shared, "encoder/**/kernel")),
        Contestant("mask, tied", "ptree, untied", lambda: pt.mask(both, "**/kernel"), ALONE),
        Contestant("node of aliases again", "tree[path]", lambda: shared["decoder"]),
        Contestant("node of aliases again", "dict by hand", lambda: plain, ("tree[path]",)),
    ]


def states(tree: pt.Tree, plain: dict[str, Any]) -> list[Contestant]:
    ours, theirs = optax.trace(0.9).init(tree), optax.adam(1.0).init(plain)
    del ours
    return [
        Contestant("count of Adam's state", "ptree", lambda: pt.get(theirs, "0/count")),
        Contestant("count of Adam's state", "optax.tree.get", lambda: optax.tree.get(theirs, "count"), ALONE),
    ]


def seconds(function: Callable[[], Any]) -> float:
    """Of the processor, a call, in a turn of two milliseconds or more."""
    calls = 1
    while True:
        start = time.process_time()  # other programs on the machine do not count
        for _ in range(calls):
            function()
        took = time.process_time() - start
        if took > 0.002:
            return took / calls
        calls *= 4


def plainly(value: Any) -> Any:
    if type(value) is tuple:
        return tuple(map(plainly, value))
    return pt.asdict(value) if type(value) is pt.Tree else value


LIMIT_OF_GET = 1e-6 + 4 * 0.3e-6  # for four segments
VALUES = {("get, 4 segments", "tree[path]"): LIMIT_OF_GET, ("get, 4 segments", "pt.get"): LIMIT_OF_GET, ("node of aliases again", "tree[path]"): 0.5e-6}  # fmt: skip
RATIOS = {
    ("naming", "flax flatten_dict", "a Tree"): 0.4,
    ("naming", "flax flatten_dict", "a dict"): 1.0,
    ("`**/attn/{q,v}/kernel`", "flax and a regex", "ptree"): 0.6,
    ("mask of these", "flax path_aware_map", "a Tree"): 1.0,
    ("mask of these", "flax path_aware_map", "a dict"): 1.0,
    ("set", "`{**t, ...}` by hand", "a Tree"): 4.0,
    ("set", "`{**t, ...}` by hand", "a dict"): 8.0,
    ("set", "equinox tree_at", "a Tree"): 0.01,
}
"""What, beside whom, and which way of ptree's -> the most that ptree's time is to be of this one's."""
SHOWN = (1_000,)
SMALL = 10_000  # below so many leaves, `set` has no target beside Equinox


def rows(given: Given) -> Iterator[Row]:
    for group in (naming, selecting, reading, writing, editing, tied, states):
        for leaves in given.leaves:
            plain = transformer(max(leaves, 120))
            contestants = group(pt.Tree(plain), plain)
            for what in dict.fromkeys(each.what for each in contestants):
                same = [each for each in contestants if each.what == what]
                yield from measured(same, leaves, given.rounds)


def measured(same: list[Contestant], leaves: int, rounds: int) -> Iterator[Row]:
    """Rows of one thing that several do, which are checked to find the same."""
    first = plainly(same[0].function())
    assert all(plainly(each.function()) == first for each in same)
    times: dict[str, list[float]] = {each.who: [] for each in same}
    for _ in range(rounds):
        for each in same:
            times[each.who].append(seconds(each.function))
    for each in same:
        size, in_file_only = f"{leaves:,} leaves", leaves not in SHOWN
        row = Row(each.what, each.who, median(times[each.who]), "s", size, in_file_only=in_file_only)
        limit = VALUES.get((each.what, each.who))
        if limit is not None:
            row = replace(row, aim=Aim(limit, "value"))
        if not each.beside:
            yield row
        for ours in each.beside:
            share, spread = ratio(times[ours], times[each.who])
            form = ours.removeprefix("ptree, ")
            limit = RATIOS.get((each.what, each.who, form))
            aim = None if limit is None or (each.who == "equinox tree_at" and leaves < SMALL) else Aim(limit)
            yield replace(row, ratio=share, ratio_of=form, spread=spread, aim=aim)


OPTIONS = [
    Option("--rounds", 7, "how often all take their turn"),
    Option("--leaves", [100, 1_000, 10_000, 100_000], "how many leaves the trees have"),
]

if __name__ == "__main__":
    main(rows, OPTIONS, ["flax", "equinox", "optax"])
