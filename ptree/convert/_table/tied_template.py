"""TiedTemplate: a state dict of PyTorch as `like`, in which several names are one parameter: a row for one of them is enough."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..._errors import StructureError
from ..._paths.dotted_names import with_slashes
from ..._tree import Leaf, PyTree
from ..._words import lines, quoted
from .._framework_states import framework_state
from .._tied_tensors import tied_tensors
from .row import Row


@dataclass(frozen=True)
class TiedTemplate:
    """What a table fills, and the names that get the value of another one."""

    like: PyTree
    """The template without the names that get their value from another."""
    whole: dict[str, Leaf] | None = None
    """The template with all names; None where none are tied."""
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A name of the template -> other names of the same parameter."""

    def completed(self, values: PyTree) -> PyTree:
        """The values with those of the other names.

        Raises:
            StructureError: names of one parameter have different values.
        """
        if self.whole is None:
            return values
        whole: dict[str, Leaf] = dict(values)
        differing: list[str] = []
        for name, others in self.others.items():
            for other in others:
                if not _is_equal(whole[name], whole.setdefault(other, whole[name])):
                    differing.append(f"{quoted(name)} and {quoted(other)} are tied in `like` and get different values")
        if differing:
            raise StructureError(f"cannot fill `like`: {lines(differing)}")
        return type(self.whole)((name, whole[name]) for name in self.whole)


def tied_template(rows: Sequence[Row], like: PyTree) -> TiedTemplate:
    """The template for rows: a state dict or a module of another framework as a dict, anything else as it is."""
    state = framework_state(like)
    template = like if state is None else dict(state.arrays())
    if type(template) not in (dict, OrderedDict):
        return TiedTemplate(template)
    groups: dict[str, list[str]] = {}
    for name, first in tied_tensors(template.items()).items():
        groups.setdefault(first, [first]).append(name)
    others: dict[str, tuple[str, ...]] = {}
    left_out: set[str] = set()
    for group in groups.values():
        given = [name for name in group if _is_given(rows, name)] or group[:1]
        others[given[0]] = tuple(name for name in group if name != given[0])
        left_out.update(name for name in group if name not in given)
    if not others:
        return TiedTemplate(template)
    reduced = {name: leaf for name, leaf in template.items() if name not in left_out}
    return TiedTemplate(reduced, template, others)


def _is_given(rows: Sequence[Row], name: str) -> bool:
    """Whether a row may give a name."""
    path = with_slashes(name)
    return any(pattern.read(path) is not None for row in rows for pattern in row.targets)


def _is_equal(one: Leaf, other: Leaf) -> bool:
    if one is other:
        return True
    return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
