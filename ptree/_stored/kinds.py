"""What a file may state about a leaf of each kind: one number has no axes, and some kinds lack some dtypes.

A kind is a name, as FORMAT.md lists them; a kind that this ptree does not know may have every shape and dtype.
"""

from __future__ import annotations

import numpy as np

from .dtypes import LACKING
from .stored_leaf import StoredLeaf

PYTHON_NUMBERS = ("bool", "int", "float")
_ONE_NUMBER = ("scalar", *PYTHON_NUMBERS)
_KEY = "key:"


def misfit_of(stored: StoredLeaf) -> str:
    """Say what a file states about a leaf that cannot be true of its kind; "" if all can."""
    if stored.kind in _ONE_NUMBER and stored.shape:
        return f"has the shape {[*stored.shape]}, and must be one number"
    return ""


def may_have_dtype(kind: str, dtype: np.dtype) -> bool:
    """Whether leaves of a kind can have this dtype."""
    if kind == "torch":
        return dtype not in LACKING
    if kind == "" or kind.startswith(_KEY):
        return not dtype.name.startswith("float6_")  # JAX has no arrays of 6-bit floats, NumPy has (ml_dtypes)
    return True
