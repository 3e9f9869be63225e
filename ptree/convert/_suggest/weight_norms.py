"""Weights that are stored in parts: magnitude and direction of a weight norm, the vectors of a spectral norm, masks of pruning."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._named_arrays import NamedArray
from .._operations.operation import Operation
from .._operations.weight_norm import WeightNorm
from .families import Family, described_of
from .name_words import is_part_of_weight

_DIRECTION = re.compile(r"^((?:.*/)?weight\w*)_v$|^(.*parametrizations/\w+/original)1$")
"""PyTorch's two forms of a weight norm: `weight_v` beside `weight_g`, `original1` beside `original0`."""
_HELPER = re.compile(r"(^|/)parametrizations/\w+/\d+/|(^|/)weight_(u|v|mask)$")
"""The vectors u and v of a spectral norm, and the mask of a pruned weight."""


@dataclass(frozen=True)
class StoredParts:
    """The arrays of a source apart: those that may fill a leaf, and those that are a part of another one's weight."""

    whole: list[NamedArray]
    magnitudes: dict[str, NamedArray]
    """Path of a direction -> the magnitude beside it."""
    helpers: list[NamedArray]
    """Vectors of spectral norms and masks, which are no parameters of a layer."""


def stored_parts(sources: Sequence[NamedArray], targets: Iterable[NamedArray]) -> StoredParts:
    """Take magnitudes and helpers out of a source, unless the target has such parts too."""
    if any(is_part_of_weight(array.path) for array in targets):
        return StoredParts([*sources], {}, [])
    by_path = {array.path: array for array in sources}
    magnitudes: dict[str, NamedArray] = {}
    for path, array in by_path.items():
        magnitude = by_path.get(_path_of_magnitude(path))
        if magnitude is not None and _is_magnitude_of(magnitude, array):
            magnitudes[path] = magnitude
    aside = {array.path for array in magnitudes.values()}
    helpers = [array for path, array in by_path.items() if path not in magnitudes and _is_helper(path, by_path)]
    aside |= {array.path for array in helpers}
    return StoredParts([array for array in sources if array.path not in aside], magnitudes, helpers)


def _path_of_magnitude(path: str) -> str:
    """The path of the magnitude that belongs to a direction; empty for a name of no direction."""
    found = _DIRECTION.match(path)
    if found is None:
        return ""
    return f"{found[1]}_g" if found[1] is not None else f"{found[2]}0"


def _is_magnitude_of(magnitude: NamedArray, direction: NamedArray) -> bool:
    """Whether the shapes are those of a weight norm: one number for each place of one axis."""
    shape, whole = described_of(magnitude).shape, described_of(direction).shape
    if len(shape) != len(whole) or len(shape) < 2:
        return False
    longer = [axis for axis, size in enumerate(shape) if size != 1]
    return len(longer) < 2 and all(shape[axis] == whole[axis] for axis in longer)


def _is_helper(path: str, by_path: dict[str, NamedArray]) -> bool:
    layer = path.rpartition("/")[0]
    is_beside_original = f"{layer}/weight_orig".lstrip("/") in by_path or "parametrizations/" in path
    return is_beside_original and _HELPER.search(path) is not None


def magnitude_family(direction: Family, magnitudes: dict[str, NamedArray]) -> Family | None:
    """The magnitudes of the members of a family; None if there are none."""
    ending = _path_of_magnitude(direction.texts[-1])
    if not ending or any(member.path not in magnitudes for member in direction.members.values()):
        return None
    members = {numbers: magnitudes[member.path] for numbers, member in direction.members.items()}
    return Family((*direction.texts[:-1], ending), members)


def weight_norm_of(magnitude: Family, operation: Operation) -> Operation:
    """The weight of a magnitude and a direction, and then what is done with a weight."""
    axes = [axis for axis, size in enumerate(magnitude.shapes[0]) if size != 1]
    return WeightNorm(axes[0] if axes else 0) >> operation  # which keeps `as_is`, as a layout that is said
