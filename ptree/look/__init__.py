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
    from ._summary import Row as Row
    from ._summary import Summary as Summary
    from ._summary import summary as summary

_MODULES = {
    "_diff": "diff",
    "_diff_pairs": "RenameRule",
    "_diff_result": "Diff",
    "_differences": "Difference",
    "_summary": "Row Summary summary",
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f"ptree.look.{module}"), name)
            return value
    raise AttributeError(f"module 'ptree.look' has no attribute {name!r}")


__all__ = ["Diff", "Difference", "RenameRule", "Row", "Summary", "diff", "summary"]


def __dir__() -> list[str]:
    return sorted(__all__)
