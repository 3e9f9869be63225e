"""Looking at parameters of any pytree, spec or file: the summary.

Opened when it is used, so that looking at a file does not import JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._flops import Flops as Flops
    from ._flops import flops as flops
    from ._row import Row as Row
    from ._summary import Summary as Summary
    from ._summary import Total as Total
    from ._summary import summary as summary

_MODULES = {
    "_flops": "Flops flops",
    "_row": "Row",
    "_summary": "Summary Total summary",
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(f"ptree.look.{module}"), name)
            return value
    raise AttributeError(f"module 'ptree.look' has no attribute {name!r}")


__all__ = ["Flops", "Row", "Summary", "Total", "flops", "summary"]


def __dir__() -> list[str]:
    return sorted(__all__)
