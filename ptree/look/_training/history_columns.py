"""Columns of a history: statistics of chosen leaves from a part, those that follow from others too; the leaves of all parts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._sources.selection import Names
from .._sources.source import LeafInfo
from .history_parts import STATISTICS, Part

if TYPE_CHECKING:
    from ..._paths import Selector

Norms: TypeAlias = Any
"""An array of NumPy or JAX, or a tracer."""


def leaves_of_parts(parts: Iterable[Part]) -> dict[str, int]:
    """The paths of all leaves of all parts, with how many numbers each has."""
    leaves: dict[str, int] = {}
    for part in parts:
        for _, paths, counts in part.groups:
            leaves.update(zip(paths, counts))
    return leaves


def statistic_names(parts: Iterable[Part]) -> list[str]:
    """What a history gives: statistics of each group, the ratio of updates to parameters, and scalars."""
    groups: dict[str, None] = {}
    scalars: dict[str, None] = {}
    for part in parts:
        groups.update(dict.fromkeys(name for name, _, _ in part.groups))
        scalars.update(dict.fromkeys(part.scalars))
    return [*statistics_of_groups(groups), *scalars]


def statistics_of_groups(groups: Iterable[str]) -> list[str]:
    """The statistics of the leaves of each group that was observed, and the ratio of updates to parameters.

    >>> statistics_of_groups(["params"])
    ['params/mean', 'params/norm', 'params/largest', 'params/std']
    """
    groups = list(groups)
    names = [f"{group}/{statistic}" for group in groups for statistic in (*STATISTICS, "std")]
    return [*names, "updates/ratio"] if "updates" in groups else names


def stored_for(statistic: str) -> list[str]:
    """The stored statistics from which one is found."""
    group, _, kind = statistic.partition("/")
    if kind == "std":
        return [f"{group}/mean", f"{group}/norm"]
    if kind == "ratio":
        return ["updates/norm", "params/norm"]
    return [statistic]


class Columns:
    """The numbers of one part by statistic and path."""

    def __init__(self, part: Part):
        self.part = part
        self._groups = {
            name: ({path: at for at, path in enumerate(paths)}, counts) for name, paths, counts in part.groups
        }

    def values(self, statistic: str, paths: Sequence[str]) -> np.ndarray:
        """`f64[step, leaf]`; NaN where a leaf was not observed."""
        group, _, kind = statistic.partition("/")
        with np.errstate(all="ignore"):
            if kind == "std":
                return self._std(group, paths)
            if kind == "ratio":
                return ratio_of(self._stored("updates", "norm", paths), self._stored("params", "norm", paths))
            return self._stored(group, kind, paths)

    def are_recorded(self, statistic: str, paths: Sequence[str]) -> np.ndarray:
        """`bool[leaf]`: whether a statistic of these leaves is in the part; a frozen leaf has no gradients and updates."""
        groups = {stored.partition("/")[0] for stored in stored_for(statistic)}
        recorded = np.ones(len(paths), bool)
        for group in groups:
            places, _ = self._groups.get(group, ({}, ()))
            recorded &= [path in places for path in paths]
        return recorded

    def _stored(self, group: str, kind: str, paths: Sequence[str]) -> np.ndarray:
        found = np.full((len(self.part.steps), len(paths)), np.nan)
        places, _ = self._groups.get(group, ({}, ()))
        there = [at for at, path in enumerate(paths) if path in places]
        if there:
            columns = [places[paths[at]] for at in there]
            found[:, there] = self.part.numbers[f"{group}/{kind}"][:, columns]
        return found

    def _std(self, group: str, paths: Sequence[str]) -> np.ndarray:
        places, counts = self._groups.get(group, ({}, ()))
        count = np.array([counts[places[path]] if path in places else 1 for path in paths])
        mean, norm = self._stored(group, "mean", paths), self._stored(group, "norm", paths)
        return np.sqrt(np.maximum(norm**2 / np.maximum(count, 1) - mean**2, 0))


def ratio_of(updates: Norms, params: Norms) -> Norms:
    """|update| / |parameter| of norms, arrays of NumPy or JAX. Of a leaf of zeros it is NaN, and 0 where it is not updated.

    >>> ratio_of(np.array([0.5, 0.5, 0]), np.array([2.0, 0, 0])).tolist()
    [0.25, nan, 0.0]
    """
    arrays = updates.__array_namespace__()  # of JAX inside of `jit`; reading a history does not import it
    of_zeros = arrays.where(ratio_is_undefined(updates, params), math.nan, updates)
    with np.errstate(divide="ignore", invalid="ignore"):
        return arrays.where(params == 0, of_zeros, updates / params)


def ratio_is_undefined(updates: Norms, params: Norms) -> Norms:
    """Whether a leaf of zeros is updated, as a bias is at the first step: no ratio says how large that update is."""
    return (params == 0) & (updates > 0)


def select_paths(leaves: Mapping[str, int], selector: Selector | None) -> list[str]:
    """The paths that a selector means, with its errors where it matches nothing. A mask is one of all parameters."""
    if selector is None:
        return [*leaves]
    infos = {path: LeafInfo(path, None, "", count, 0) for path, count in leaves.items()}
    return Names(infos, {}, are_parts=True).selected(selector)
