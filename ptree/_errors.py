"""Exceptions that ptree raises: an error for each kind of problem, all of them a PtreeError.

    PtreeError
    ├── PathError       (KeyError)    a path that does not exist
    ├── PatternError    (ValueError)  a pattern that is malformed, or that matches nothing
    ├── StructureError  (ValueError)  two trees that do not fit each other
    ├── TieError        (ValueError)  a tie that cannot be made, or two values for one tied leaf
    ├── InitError       (ValueError)  a parameter that cannot be drawn
    ├── LayerError      (ValueError)  an input or parameters that do not fit a layer
    └── FileError       (ValueError)  a file that cannot be written or read

Each is also the builtin exception that a caller would guess. A message says what was attempt, where, what was
expected, what was found, and the likely fix; it never prints an array or a treedef.
"""

from __future__ import annotations

from collections.abc import Sequence


class PtreeError(Exception):
    """Base of all exceptions that ptree raises."""

    __module__ = "ptree"


class PathError(PtreeError, KeyError):
    """Error for a path that does not exist."""

    __module__ = "ptree"

    def __str__(self) -> str:  # KeyError would show the repr of the text
        return str(self.args[0]) if self.args else ""


class PatternError(PtreeError, ValueError):
    """Error for a pattern that is malformed, or that matches nothing."""

    __module__ = "ptree"


class StructureError(PtreeError, ValueError):
    """Error for two trees that do not fit each other; lists of paths say where.

    The lists are `missing`, `unexpected`, `misshapen` (another shape) and `mistyped` (another dtype), and `damaged` for
    leaves of a file whose bytes have changed since they were written.
    """

    __module__ = "ptree"

    def __init__(
        self,
        text: str,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        misshapen: Sequence[str] = (),
        mistyped: Sequence[str] = (),
    ):
        super().__init__(text)
        self.missing = list(missing)
        self.unexpected = list(unexpected)
        self.misshapen = list(misshapen)
        self.mistyped = list(mistyped)
        self.damaged: list[str] = []

    def __reduce__(self):
        facts = (self.args[0], self.missing, self.unexpected, self.misshapen, self.mistyped)
        return type(self), facts, vars(self)


class TieError(PtreeError, ValueError):
    """Error for a tie that cannot be made, or two different values written to one tied leaf."""

    __module__ = "ptree"


class InitError(PtreeError, ValueError):
    """Error for a parameter that cannot be drawn."""

    __module__ = "ptree"


class LayerError(PtreeError, ValueError):
    """Error for an input, or parameters, that do not fit a layer: `path` is the layer's, `what` the problem."""

    __module__ = "ptree"

    def __init__(self, what: str, path: str = ""):
        super().__init__(f"at {path!r}, {what}" if path else what)
        self.what, self.path = what, path

    def inside(self, name: str) -> LayerError:
        """The same error, seen from a container in which the layer has this name."""
        path = f"{name}/{self.path}" if self.path else name
        return LayerError(self.what, path)

    def __reduce__(self):
        return type(self), (self.what, self.path)


class FileError(PtreeError, ValueError):
    """Error for a file that cannot be written or read.

    `is_damage` says whether its bytes have changed since they were written; `damaged` lists the leaves that have.
    """

    __module__ = "ptree"

    def __init__(self, text: str, is_damage: bool = False):
        super().__init__(text)
        self.is_damage = is_damage
        self.damaged: list[str] = []

    def __reduce__(self):
        return type(self), (self.args[0], self.is_damage), vars(self)
