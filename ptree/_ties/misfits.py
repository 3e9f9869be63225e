"""Misfits: whether the ends of a tie fit each other, leaf by leaf, and undo their transforms; each problem with why, and what
to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._edit import readings
from .._paths import join, split
from .._tree import (
    MISSING,
    BareTree,
    Leaf,
    PyTree,
    Tie,
    Tree,
    entries,
    largest_difference,
    locate,
    names_in,
    read,
    shape_only,
    signature,
)
from .._words import SHOWN, describe, quoted, suggestion
from .equal_leaves import is_transpose


class Problem(NamedTuple):
    """A problem with a tie, and the likely fix."""

    text: str
    fix: str


class Misfits:
    """The check of ties in one tree."""

    def __init__(self, tree: Tree):
        self.tree = tree
        self._hints = 0

    def problems(self, alias: str, source: Tie) -> list[Problem]:
        """Why the alias cannot be the source; nothing where it can."""
        attempt = f"cannot tie {quoted(alias)} to {quoted(source.source)}"
        return [Problem(f"{attempt}: {text}", fix) for text, fix in self._found(alias, source)]

    def _found(self, alias: str, source: Tie) -> Sequence[Problem]:
        here, there = split(alias), split(source.source)
        return (
            _of_paths(here, there)
            or self._of_single_layers(here, there)
            or self._of_missing_ends(here, there)
            or self._of_ends(alias, source)
        )

    def _of_single_layers(self, here: list[str], there: list[str]) -> list[Problem]:
        problems: list[Problem] = []
        for end in (here, there):
            place = locate(self.tree, end)
            if place is not None and place.layers:
                text = f"{quoted('/'.join(end))} is one layer of {quoted(place.spelt)}"
                problems.append(Problem(text, "Tie whole stacks, or ptree.stacks.unstack them first."))
        return problems

    def _of_missing_ends(self, here: list[str], there: list[str]) -> list[Problem]:
        return [self._missing(end) for end in (here, there) if self._end(end) is MISSING]

    def _end(self, segments: list[str]) -> PyTree:
        """What is at one end, `MISSING` where there is nothing, or a container that is no Tree is on the way."""
        place = locate(self.tree, segments)
        if place is None or not all(isinstance(step.node, BareTree) for step in place.steps):
            return MISSING
        return read(place)

    def _missing(self, end: list[str]) -> Problem:
        path = "/".join(end)
        if locate(self.tree, end) is not None:
            fix = "ptree.tie(ptree.flatten(tree), table) opens it, and of that ptree.unflatten(tied, like=tree) is the way back."
            return Problem(f"{quoted(path)} lies inside a container that is no Tree, which stays whole", fix)
        self._hints += 1
        hint = suggestion(path, self._names) if self._hints <= SHOWN else ""  # each one scans all names
        return Problem(f"there is no {quoted(path)}.{hint}", "")

    @cached_property
    def _names(self) -> list[str]:
        return [*(names_in(self.tree) or ()), *entries(self.tree)]

    def _of_ends(self, alias: str, source: Tie) -> Sequence[Problem]:
        a, b = self._end(split(alias)), self._end(split(source.source))
        if isinstance(a, BareTree) == isinstance(b, BareTree):
            return list(_of_nodes(alias, a, source, b))
        if isinstance(a, Tree):
            text = _uneven(alias, source.source, a, alias, source.source)
        else:
            text = _uneven(source.source, alias, b, source.source, alias)
        return [Problem(text, "Name a leaf in it.")]


def _of_paths(here: list[str], there: list[str]) -> list[Problem]:
    if here == there:
        return [Problem("it is the same path", "")]
    if there[: len(here)] == here or here[: len(there)] == there:
        return [Problem("one lies inside the other", "Tie two nodes that lie apart, or single leaves in them.")]
    return []


def _uneven(node: str, leaf: str, tree: Tree, above: str, like: str) -> str:
    name = split(like)[-1]
    meant = suggestion(name, [name] if name in tree else [], f"{above}/")
    return f"{quoted(node)} is a node and {quoted(leaf)} is a leaf{'.' if meant else ''}{meant}"


# ----------------------------------------------------------------------------------- leaf by leaf


def _of_nodes(alias: str, a: PyTree, source: Tie, b: PyTree) -> Iterator[Problem]:
    ours, theirs = readings(a), readings(b)
    if source.via and _has_foreign_container(b, list(theirs)):
        text = f"no transform sees into a container that is no Tree, in {quoted(source.source)}"
        yield Problem(text, "Put a Tree in its place.")
        return
    fix = "Tie the leaves that both have, one by one or by a pattern."
    for path in ours:
        if path not in theirs:
            yield Problem(f"{quoted(join(alias, path))} has no {quoted(join(source.source, path))}", fix)
    for path in theirs:
        if path not in ours:
            yield Problem(f"{quoted(join(source.source, path))} has no {quoted(join(alias, path))}", fix)
    for path in ours:
        if path in theirs:
            yield from _of_leaves(join(alias, path), ours[path], join(source.source, path), theirs[path], source)


def _has_foreign_container(node: PyTree, paths: Sequence[str]) -> bool:
    """Whether one of these leaves lies in a container that is no Tree."""
    if not isinstance(node, BareTree):
        return any(paths)
    for path in paths:
        place = locate(node, split(path))
        if place is None or not all(isinstance(step.node, BareTree) for step in place.steps):
            return True
    return False


def _of_leaves(alias: str, ours: Leaf, path: str, leaf: Leaf, tie: Tie) -> Iterator[Problem]:
    # JAX would cut NumPy's 64 bits to 32, a function of NumPy's would not
    needs_values = isinstance(leaf, np.ndarray) and not _is_permutation(tie)
    seen, shown = leaf if needs_values else shape_only(leaf), path
    for step in tie.via:
        why, shown = step.misfit(seen), step.shown(shown)
        if why:
            fix = "Tie them without a transform." if signature(ours) == signature(leaf) else ""
            yield Problem(
                f"{quoted(shown)} {why}, and {quoted(path)} is {describe(leaf)}",
                fix if step.axes else "Mend its two functions.",
            )
            return
        seen = step.see(seen)
    if signature(ours) != signature(seen):
        text = f"{quoted(alias)} is {describe(ours)} and {quoted(shown)} is {describe(seen)}"
        yield Problem(text, _fix(ours, seen, path, tie))
    elif not tie.via and is_transpose(ours, leaf):
        text = f"{quoted(alias)}, {describe(ours)}, holds the transpose of {quoted(path)}, {describe(leaf)}"
        yield Problem(
            text, f"Did you mean ptree.transposed({quoted(path)})? If not, ptree.put equal values there first."
        )
    else:
        error = _round_trip_error(leaf, tie)
        if error:
            text = f"the inverse of {quoted(shown)} does not undo it: {describe(leaf)} comes back changed by up to {error:.3g}"
            yield Problem(text, "Mend its two functions.")


def _is_permutation(tie: Tie) -> bool:
    """Whether all transforms of a tie only move axes; so do none at all."""
    return all(step.axes for step in tie.via)


def _fix(ours: Leaf, seen: Leaf, path: str, tie: Tie) -> str:
    """What to do about two leaves of other shapes or dtypes."""
    a, b = signature(ours), signature(seen)
    if not isinstance(a, tuple) or not isinstance(b, tuple):
        return ""
    shape, other = a[0], b[0]
    if shape == other:
        return "A tie does not cast: give both one dtype first, with ptree.put."
    if not tie.via and len(shape) > 1 and shape == (*other[:-2], *other[:-3:-1]):
        return f"Did you mean ptree.transposed({quoted(path)})?"
    return "A tie neither broadcasts nor reshapes: both need one shape."


def _round_trip_error(leaf: Leaf, tie: Tie) -> float:
    """By how much the tie's registered transforms and back change this leaf; 0.0 within rounding."""
    if _is_permutation(tie) or not isinstance(leaf, jax.Array | np.ndarray) or isinstance(leaf, Tracer):
        return 0.0
    error = largest_difference(leaf, tie.write(tie.read(leaf))) or 0.0
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return error
    size = float(jnp.max(jnp.where(jnp.isfinite(leaf), jnp.abs(leaf), 0), initial=0))
    rounding = 16 * float(jnp.finfo(leaf.dtype).eps) * size
    return 0.0 if error <= rounding else error
