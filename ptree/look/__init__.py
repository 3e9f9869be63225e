"""Look at the parameters of any pytree, spec or file: tables, statistics, differences, plots, reports, training.

>>> import numpy as np
>>> from ptree import look
>>> before = {"enc": {"w": np.ones((4, 8), "f4")}, "b": np.ones(8, "f4")}
>>> print(look.summary(before))
enc/w  [4, 8]  32  80.0%
b      [8]      8  20.0%
-----------------------------------
40 parameters, 160 B, 2 leaves; f32
>>> print(look.diff(before, {**before, "b": np.full(8, 1.5, "f4")}))
1 the same, 1 changed
changed     path  relative  largest  cosine
            b     0.5       0.5      1.000

Most used are `summary`, `diff` and `stats`. A result is data first, `rows`, `to_dict()` and `to_csv()`, and prints as a table. A file
is given by its path, and looking at it does not import JAX. Guide: `examples/guides/looking.md`.
"""

from typing import TYPE_CHECKING

from .._imports import late_names

if TYPE_CHECKING:
    from ._diff.diff import diff as diff
    from ._diff.differences import Difference as Difference
    from ._diff.pairs import RenameRule as RenameRule
    from ._diff.result import Diff as Diff
    from ._first.first import first as first
    from ._first.result import First as First
    from ._first.rows import FirstLayer as FirstLayer
    from ._first.rows import FirstLeaf as FirstLeaf
    from ._flops.flops import Flops as Flops
    from ._flops.flops import flops as flops
    from ._plots.plot_distributions import plot_distributions as plot_distributions
    from ._plots.plot_history import plot_history as plot_history
    from ._plots.plot_kernels import plot_kernels as plot_kernels
    from ._plots.plot_similarity import plot_similarity as plot_similarity
    from ._plots.plot_spectra import plot_singular_values as plot_singular_values
    from ._report.report import report as report
    from ._stats.nonfinite import NonFinite as NonFinite
    from ._stats.nonfinite import NonFiniteLeaf as NonFiniteLeaf
    from ._stats.nonfinite import nonfinite as nonfinite
    from ._stats.result import Stats as Stats
    from ._stats.rows import LeafStats as LeafStats
    from ._stats.stats import stats as stats
    from ._summary.result import Summary as Summary
    from ._summary.row import Row as Row
    from ._summary.summary import summary as summary
    from ._summary.totals import Total as Total
    from ._training.guard import NonFiniteError as NonFiniteError
    from ._training.guard import guard as guard
    from ._training.history import History as History
    from ._training.observe import Observed as Observed
    from ._training.observe import ObservedLeaves as ObservedLeaves
    from ._training.observe import observe as observe
    from ._training.unused import unused as unused

_MODULES = {
    "_diff.diff": "diff",
    "_diff.pairs": "RenameRule",
    "_diff.result": "Diff",
    "_diff.differences": "Difference",
    "_first.first": "first",
    "_first.result": "First",
    "_first.rows": "FirstLayer FirstLeaf",
    "_flops.flops": "Flops flops",
    "_training.guard": "NonFiniteError guard",
    "_training.history": "History",
    "_stats.nonfinite": "NonFinite NonFiniteLeaf nonfinite",
    "_training.observe": "Observed ObservedLeaves observe",
    "_plots.plot_distributions": "plot_distributions",
    "_plots.plot_history": "plot_history",
    "_plots.plot_kernels": "plot_kernels",
    "_plots.plot_similarity": "plot_similarity",
    "_plots.plot_spectra": "plot_singular_values",
    "_report.report": "report",
    "_summary.row": "Row",
    "_stats.result": "Stats",
    "_stats.rows": "LeafStats",
    "_stats.stats": "stats",
    "_summary.result": "Summary",
    "_summary.summary": "summary",
    "_summary.totals": "Total",
    "_training.unused": "unused",
}

__getattr__ = late_names("ptree.look", _MODULES)


__all__ = [
    "summary", "stats", "diff", "report", "nonfinite", "first", "flops", "unused", "observe", "History", "guard",
    "plot_distributions", "plot_history", "plot_kernels", "plot_similarity", "plot_singular_values", "Summary", "Row",
    "Total", "Stats", "LeafStats", "Diff", "Difference", "RenameRule", "NonFinite", "NonFiniteLeaf", "NonFiniteError",
    "First", "FirstLayer", "FirstLeaf", "Flops", "Observed", "ObservedLeaves",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
