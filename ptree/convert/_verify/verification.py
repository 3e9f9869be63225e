"""Verification: what two functions returned for the same inputs, compared, as text, as JSON, and as an error for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..._errors import PtreeError
from ..._terminal import terminal_width
from ...look._plain_values import json_value
from .comparison import Comparison
from .text import verification_text
from .verification_data import VerificationData

Json = Any
"""What JSON can hold."""


class VerificationError(PtreeError, AssertionError):
    """Error for two functions that do not agree. `verification` has the comparisons.

    >>> import numpy as np
    >>> from ptree import convert
    >>> found = convert.verify(np.tanh, np.sin, np.linspace(-1, 1, 5))
    >>> try:
    ...     found.check()
    ... except convert.VerificationError as error:
    ...     print(error.verification.rows[0].differing)
    4
    """

    __module__ = "ptree.convert"

    def __init__(self, text: str, verification: Verification):
        super().__init__(text)
        self.verification = verification
        """What `verify` found."""

    def __reduce__(self):
        return type(self), (self.args[0], self.verification)


@dataclass(frozen=True, repr=False, eq=False)
class Verification(VerificationData):
    """Two functions on the same inputs, value by value; true where they agree. It prints as a table.

    >>> import numpy as np
    >>> from ptree import convert
    >>> found = convert.verify(np.tanh, np.sin, np.linspace(-1, 1, 5))
    >>> found.ok, found.batches, len(found.rows)
    (False, 1, 1)
    """

    __module__ = "ptree.convert"

    def check(self) -> None:
        """Raise one error with the whole report unless all agrees.

        Raises:
            VerificationError: a value differs, a function raised, or nothing was compared.
        """
        if self.ok:
            return
        raise VerificationError("\n" + self.text(100), self) from next((fail.error for fail in self.failures), None)

    def to_dict(self) -> dict[str, Json]:
        """All of it as dicts, lists, texts and numbers, for JSON; NaN and inf are the texts "nan" and "inf"."""
        failures = [
            {"side": failure.side, "batch": failure.batch, "message": failure.message} for failure in self.failures
        ]
        return {
            "ok": self.ok,
            "batches": self.batches,
            "first": None if self.first is None else self.first.name,
            "rows": [_plain(row) for row in self.rows],
            "failures": failures,
            "only_source": list(self.only_source),
            "only_ours": list(self.only_ours),
            "checklist": list(self.checklist),
        }

    def text(self, width: int = 80, *, most: int | None = 50) -> str:
        """The comparison as text of lines of at most `width` characters.

        Args:
            width: the most characters of a line; from 40 on it reads well.
            most: how many values are shown, those that differ first, and then a count; None for all.
        """
        return verification_text(self, width, most)

    def __repr__(self) -> str:
        return self.text(terminal_width())


def _plain(row: Comparison) -> dict[str, Json]:
    names: Sequence[str] = [column.name for column in fields(row)]
    return {"ok": row.ok, **{name: json_value(getattr(row, name)) for name in names}}
