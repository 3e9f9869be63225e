"""Whether one end of a tie fits the other, leaf by leaf; and if not, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._edit import each_entry, everything, read_or
from .._paths import join, split
from .._tree import MISSING, Tie, Tree, find, indexed, largest_difference, shape_only, signature
from .._words import SHOWN, describe, suggestion
from .equal_leaves import is_transpose

Problem = tuple[str, str]
"""What is wrong, and what to do about it."""


class Fit:
    """The check of ties in one tree."""

    def __init__(self, tree: Tree):
        self.tree, self._hints = tree, 0

    def problems(self, alias: str, source: Tie) -> list[Problem]:
        """Why the alias cannot be the source; nothing where it can."""
        asked = f"cannot tie {alias!r} to {source.source!r}"
        return [(f"{asked}: {text}", fix) for text, fix in self._found(alias, source)]

    def _found(self, alias: str, source: Tie) -> Iterator[Problem]:
        there, here = split(source.source), split(alias)
        if here == there:
            yield "it is the same path", ""
            return
        if there[: len(here)] == here or here[: len(there)] == there:
            yield "one lies inside the other", "Tie two nodes that lie apart, or single leaves in them."
            return
        single = [(end, layer[0]) for end in (here, there) if (layer := indexed(self.tree, end)) is not None]
        for end, whole in single:
            text = f"{'/'.join(end)!r} is one layer of {'/'.join(whole)!r}"
            yield text, "Tie whole stacks, or ptree.stacks.unstack them first."
        own, new = find(self.tree, here), find(self.tree, there)
        lost = [end for end, node in ((here, own), (there, new)) if node is MISSING]
        for end in () if single else lost:
            yield self._lost(end), ""
        if lost or single:
            return
        if type(own) is Tree and type(new) is not Tree:
            yield self._uneven(alias, source.source, own, alias, there[-1]), "Name a leaf in it."
        elif type(new) is Tree and type(own) is not Tree:
            yield self._uneven(source.source, alias, new, source.source, here[-1]), "Name a leaf in it."
        else:
            yield from _of_nodes(alias, own, source, new)

    def _lost(self, end: list[str]) -> str:
        path = "/".join(end)
        if read_or(self.tree, end, MISSING) is not MISSING:
            return f"{path!r} lies inside a container that is no Tree, which stays whole"
        self._hints += 1  # each takes a look at all names
        return f"there is no {path!r}.{suggestion(path, self._names) if self._hints <= SHOWN else ''}"

    @cached_property
    def _names(self) -> list[str]:
        return [*self.tree, *(path for path, _ in each_entry(self.tree))]

    @staticmethod
    def _uneven(node: str, leaf: str, tree: Tree, above: str, name: str) -> str:
        meant = suggestion(name, [name] if name in tree else [], f"{above}/")
        return f"{node!r} is a node and {leaf!r} is a leaf{'.' if meant else ''}{meant}"


def _of_nodes(alias: str, a: Any, source: Tie, b: Any) -> Iterator[Problem]:
    own, new = everything(a), everything(b)
    if source.via and any(find(b, split(path)) is MISSING if type(b) is Tree else path for path in new):
        yield f"no transform sees into a container that is no Tree, in {source.source!r}", "Put a Tree in its place."
        return
    fix = "Tie the leaves that both have, one by one or by a pattern."
    for path in own:
        if path not in new:
            yield f"{join(alias, path)!r} has no {join(source.source, path)!r}", fix
    for path in new:
        if path not in own:
            yield f"{join(source.source, path)!r} has no {join(alias, path)!r}", fix
    for path in own:
        if path in new:
            yield from _of_leaves(join(alias, path), own[path], join(source.source, path), new[path], source)


def _of_leaves(alias: str, own: Any, path: str, leaf: Any, tie: Tie) -> Iterator[Problem]:
    plain = all(step.axes for step in tie.via)  # JAX would cut NumPy's 64 bits to 32, a function of NumPy's would not
    seen, shown = leaf if isinstance(leaf, np.ndarray) and not plain else shape_only(leaf), path
    for step in tie.via:
        why, shown = step.misfit(seen), step.shown(shown)
        if why:
            fix = "Tie them without a transform." if signature(own) == signature(leaf) else ""
            yield f"{shown!r} {why}, and {path!r} is {describe(leaf)}", fix if step.axes else "Mend its two functions."
            return
        seen = step.see(seen)
    if signature(own) != signature(seen):
        yield f"{alias!r} is {describe(own)} and {shown!r} is {describe(seen)}", _fix(own, seen, path, tie)
    elif not tie.via and is_transpose(own, leaf):
        text = f"{alias!r}, {describe(own)}, holds the transpose of {path!r}, {describe(leaf)}"
        yield text, f"Did you mean ptree.transposed({path!r})? If not, ptree.put equal values there first."
    elif off := _unreliable(leaf, tie):
        text = f"the inverse of {shown!r} does not undo it: {describe(leaf)} comes back changed by up to {off:.3g}"
        yield text, "Mend its two functions."


def _fix(own: Any, seen: Any, path: str, tie: Tie) -> str:
    """What to do about two leaves of other shapes or dtypes."""
    a, b = signature(own), signature(seen)
    if not isinstance(a, tuple) or not isinstance(b, tuple):
        return ""
    if a[0] == b[0]:
        return "A tie does not cast: give both one dtype first, with ptree.put."
    if not tie.via and len(a[0]) > 1 and a[0] == (*b[0][:-2], *b[0][:-3:-1]):
        return f"Did you mean ptree.transposed({path!r})?"
    return "A tie neither broadcasts nor reshapes: both need one shape."


def _unreliable(leaf: Any, tie: Tie) -> float:
    """By how much the way through registered transforms and back changes values that are known, beyond rounding."""
    if all(step.axes for step in tie.via) or not isinstance(leaf, (jax.Array, np.ndarray)) or isinstance(leaf, Tracer):
        return 0.0
    off = largest_difference(leaf, tie.write(tie.read(leaf))) or 0.0
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return off
    size = float(jnp.max(jnp.where(jnp.isfinite(leaf), jnp.abs(leaf), 0), initial=0))
    return 0.0 if off <= 16 * float(jnp.finfo(leaf.dtype).eps) * size else off
