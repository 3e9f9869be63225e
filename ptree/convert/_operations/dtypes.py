"""Cast: another dtype, refused where it does not hold a number of the array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from ..._errors import PatternError
from ...files._cast import lost_value
from .operation import Described, EachArray, MisfitError, Operation
from .options import dtype_of_option

_KINDS = (jnp.floating, jnp.integer, jnp.complexfloating)


@dataclass(frozen=True, repr=False)
class Cast(EachArray):
    """Another dtype: `cast("bfloat16", "float32")`, from the first to the second. Refuses what the new dtype does not hold.

    >>> from ptree.convert import cast
    >>> cast("float64", "float32").apply([np.ones(2)])[0].dtype
    dtype('float32')

    Args:
        before: the dtype in the source, by name.
        after: the dtype in the target.
    """

    before: str
    after: str = ""  # for a message that says what to write; Python's own speaks of __init__

    def __repr__(self) -> str:
        return f"{self.name}({self.before!r}, {self.after!r})"

    def change(self, array: np.ndarray) -> np.ndarray:
        self._require_before(array.dtype)
        lost = lost_value(array, self._after)
        if lost:
            raise MisfitError(f"{self.after} does not hold {lost}")
        with np.errstate(all="ignore"):  # NumPy would warn of underflow
            return array.astype(self._after)

    def check_options(self) -> None:
        if not self.after:
            raise PatternError(
                f"cast: expected two dtypes, of the source and of the target, such as cast('bfloat16', 'float32'); got {self.before!r}"
                " alone. Table.apply(..., cast=True) casts to what `like` has"
            )
        before, after = self._before, self._after
        if not any(jnp.issubdtype(before, kind) and jnp.issubdtype(after, kind) for kind in _KINDS):
            raise PatternError(
                f"cast: expected two dtypes of floats, of whole numbers or of complex numbers; got {before} and {after}"
            )

    @property
    def _before(self) -> np.dtype:
        return dtype_of_option("cast", self.before)

    @property
    def _after(self) -> np.dtype:
        return dtype_of_option("cast", self.after)

    def _require_before(self, dtype: np.dtype) -> None:
        if dtype != self._before:
            raise MisfitError(f"cast is from {self.before}, and the array is {dtype}")

    def outcome(self, arrays: Sequence[Described]) -> list[Described]:
        for array in arrays:
            self._require_before(array.dtype)
        return [Described(array.shape, self._after) for array in arrays]

    @property
    def inverse(self) -> Operation:
        return Cast(self.after, self.before)

    @property
    def is_one_way(self) -> bool:
        # A dtype holds all numbers of another if nothing changes in `before -> after -> before`: floats by their digits and range.
        before, after = self._before, self._after
        if jnp.issubdtype(before, jnp.complexfloating):
            return before.itemsize > after.itemsize
        if jnp.issubdtype(before, jnp.integer):
            return not _holds_range(ml_dtypes.iinfo(after), ml_dtypes.iinfo(before))
        narrow, wide = ml_dtypes.finfo(before), ml_dtypes.finfo(after)
        return wide.nmant < narrow.nmant or wide.maxexp < narrow.maxexp


def _holds_range(wide: ml_dtypes.iinfo, narrow: ml_dtypes.iinfo) -> bool:
    return int(wide.min) <= int(narrow.min) and int(wide.max) >= int(narrow.max)
