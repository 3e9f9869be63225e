"""The exceptions that ptree raises.

    PtreeError
    ├── PathError       (KeyError)    a path that is not there
    ├── PatternError    (ValueError)  a pattern that is malformed, or that matches nothing
    ├── StructureError  (ValueError)  two trees that do not fit each other
    ├── TieError        (ValueError)  a tie that cannot be made, or two values for one tied leaf
    ├── InitError       (ValueError)  a parameter that cannot be drawn
    ├── LayerError      (ValueError)  an input or parameters that do not fit a layer
    └── FileError       (ValueError)  a file that cannot be written or read

Each is also the builtin exception that a caller would guess. A message says what was asked, where, what was
expected, what was there, and the likely fix; it never prints an array or a treedef.
"""

from __future__ import annotations

from collections.abc import Sequence


class PtreeError(Exception):
    """Any error that ptree raises itself."""

    __module__ = "ptree"


class PathError(PtreeError, KeyError):
    """A path that is not there."""

    __module__ = "ptree"

    def __str__(self) -> str:  # KeyError would show the repr of the text
        return str(self.args[0]) if self.args else ""


class PatternError(PtreeError, ValueError):
    """A pattern that is malformed, or that matches nothing."""

    __module__ = "ptree"


class StructureError(PtreeError, ValueError):
    """Two trees that do not fit each other; lists of paths say where.

    The lists are `missing`, `unexpected`, `misshapen` (another shape) and `mistyped` (another dtype), and `damaged` for
    leaves of a file whose bytes are not what was written.
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
    """A tie that cannot be made, or two different values written to one tied leaf."""

    __module__ = "ptree"


class InitError(PtreeError, ValueError):
    """A parameter that cannot be drawn."""

    __module__ = "ptree"


class LayerError(PtreeError, ValueError):
    """An input, or parameters, that do not fit a layer: `path` says which layer, `what` does not fit."""

    __module__ = "ptree"

    def __init__(self, what: str, path: str = ""):
        super().__init__(f"at {path!r}, {what}" if path else what)
        self.what, self.path = what, path

    def inside(self, name: str) -> LayerError:
        """The same error with the name of the layer in its container put before the path."""
        return LayerError(self.what, f"{name}/{self.path}" if self.path else name)

    def __reduce__(self):
        return type(self), (self.what, self.path)


class FileError(PtreeError, ValueError):
    """A file that cannot be written or read.

    `is_damage` says whether its bytes are not what was written; `damaged` lists the leaves of which that is known.
    """

    __module__ = "ptree"

    def __init__(self, text: str, is_damage: bool = False):
        super().__init__(text)
        self.is_damage = is_damage
        self.damaged: list[str] = []

    def __reduce__(self):
        return type(self), (self.args[0], self.is_damage), vars(self)
