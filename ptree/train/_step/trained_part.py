"""The leaves of parameters that an optimiser trains, apart from the rest: gradients are computed for these alone."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from ..._edit import leaves, merge, partition
from ..._errors import StructureError
from ..._tree import PyTree
from .._groups.frozen import FROZEN
from .._groups.groups import Groups
from .._groups.leaf_groups import has_gradient


@dataclass(frozen=True)
class TrainedPart:
    """Which leaves are trained, by path; `split` and `joined` are inverse."""

    paths: frozenset[str]
    is_everything: bool
    """Whether all leaves are trained: then nothing is taken apart."""

    @classmethod
    def of(cls, optimiser: optax.GradientTransformation, params: PyTree) -> TrainedPart:
        """The leaves that `groups` trains; with any other optimiser the floating-point leaves.

        Raises:
            StructureError: there is none.
            PatternError: the rules of the groups do not fit the parameters.
        """
        found = leaves(params)
        if not found:
            raise StructureError("there is nothing to train: the parameters have no leaves")
        if optimiser is FROZEN:
            raise StructureError("there is nothing to train: the optimiser is FROZEN")
        if isinstance(optimiser, Groups):
            paths = frozenset(optimiser.trained(params))
        else:
            paths = frozenset(path for path, leaf in found if has_gradient(leaf))
        if not paths:
            raise StructureError(f"there is nothing to train: none of the {len(found)} leaves holds floats")
        return cls(paths, len(paths) == len(found))

    def split(self, params: PyTree) -> tuple[PyTree, PyTree]:
        """The trained leaves, and the rest."""
        if self.is_everything:
            return params, None
        return partition(params, lambda path, leaf: path in self.paths)

    def joined(self, trained: PyTree, rest: PyTree) -> PyTree:
        return trained if self.is_everything else merge(trained, rest)
