"""Looking at parameters of any pytree, spec or file: the summary.

Opened when it is used, so that looking at a file does not import JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._first import first as first
    from ._first_rows import First as First
    from ._first_rows import FirstLayer as FirstLayer
    from ._first_rows import FirstLeaf as FirstLeaf
    from ._plots_distributions import plot_distributions as plot_distributions
    from ._plots_history import plot_history as plot_history
    from ._plots_kernels import plot_kernels as plot_kernels
    from ._plots_similarity import plot_similarity as plot_similarity
    from ._plots_spectra import plot_singular_values as plot_singular_values
    from ._summary import Row as Row
    from ._summary import Summary as Summary
    from ._summary import summary as summary

_MODULES = {
    "_first": "first",
    "_first_rows": "First FirstLayer FirstLeaf",
    "_plots_distributions": "plot_distributions",
    "_plots_history": "plot_history",
    "_plots_kernels": "plot_kernels",
    "_plots_similarity": "plot_similarity",
    "_plots_spectra": "plot_singular_values",
    "_summary": "Row Summary summary",
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f"ptree.look.{module}"), name)
            return value
    raise AttributeError(f"module 'ptree.look' has no attribute {name!r}")


__all__ = [
    "First", "FirstLayer", "FirstLeaf", "Row", "Summary", "first", "plot_distributions", "plot_history", "plot_kernels",
    "plot_similarity", "plot_singular_values", "summary",
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
