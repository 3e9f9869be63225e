"""Looking at parameters of any pytree, spec or file: the summary.

Opened when it is used, so that looking at a file does not import JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._diff import diff as diff
    from ._diff_pairs import RenameRule as RenameRule
    from ._diff_result import Diff as Diff
    from ._differences import Difference as Difference
    from ._first import first as first
    from ._first_rows import First as First
    from ._first_rows import FirstLayer as FirstLayer
    from ._first_rows import FirstLeaf as FirstLeaf
    from ._flops import Flops as Flops
    from ._flops import flops as flops
    from ._guard import NonFiniteError as NonFiniteError
    from ._guard import guard as guard
    from ._history import History as History
    from ._nonfinite import NonFinite as NonFinite
    from ._nonfinite import NonFiniteLeaf as NonFiniteLeaf
    from ._nonfinite import nonfinite as nonfinite
    from ._observe import Observed as Observed
    from ._observe import ObservedLeaves as ObservedLeaves
    from ._observe import observe as observe
    from ._plots_distributions import plot_distributions as plot_distributions
    from ._plots_history import plot_history as plot_history
    from ._plots_kernels import plot_kernels as plot_kernels
    from ._plots_similarity import plot_similarity as plot_similarity
    from ._plots_spectra import plot_singular_values as plot_singular_values
    from ._report import report as report
    from ._row import Row as Row
    from ._stats import LeafStats as LeafStats
    from ._stats import Stats as Stats
    from ._stats import stats as stats
    from ._summary import Summary as Summary
    from ._summary import Total as Total
    from ._summary import summary as summary
    from ._unused import unused as unused

_MODULES = {
    "_diff": "diff",
    "_diff_pairs": "RenameRule",
    "_diff_result": "Diff",
    "_differences": "Difference",
    "_first": "first",
    "_first_rows": "First FirstLayer FirstLeaf",
    "_flops": "Flops flops",
    "_guard": "NonFiniteError guard",
    "_history": "History",
    "_nonfinite": "NonFinite NonFiniteLeaf nonfinite",
    "_observe": "Observed ObservedLeaves observe",
    "_plots_distributions": "plot_distributions",
    "_plots_history": "plot_history",
    "_plots_kernels": "plot_kernels",
    "_plots_similarity": "plot_similarity",
    "_plots_spectra": "plot_singular_values",
    "_report": "report",
    "_row": "Row",
    "_stats": "LeafStats Stats stats",
    "_summary": "Summary Total summary",
    "_unused": "unused",
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f"ptree.look.{module}"), name)
            return value
    raise AttributeError(f"module 'ptree.look' has no attribute {name!r}")


__all__ = [
    "Diff", "Difference", "First", "FirstLayer", "FirstLeaf", "Flops", "History", "LeafStats", "NonFinite", "NonFiniteError", "NonFiniteLeaf", "Observed", "ObservedLeaves", "RenameRule", "Row", "Stats", "Summary", "Total", "diff", "first", "flops", "guard", "nonfinite", "observe", "plot_distributions", "plot_history", "plot_kernels", "plot_similarity", "plot_singular_values", "report", "stats", "summary", "unused",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
