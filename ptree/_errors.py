"""Exceptions that ptree raises: an error for each kind of problem, all of them a PtreeError.

    PtreeError
    ├── PathError       (KeyError)    a path that does not exist
    ├── PatternError    (ValueError)  a pattern that is malformed, or that matches nothing
    ├── StructureError  (ValueError)  two trees that do not fit each other
    ├── TieError        (ValueError)  a tie that cannot be made, or two values for one tied leaf
    ├── InitError       (ValueError)  a parameter that cannot be drawn
    ├── LayerError      (ValueError)  an input or parameters that do not fit a layer
    └── FileError       (ValueError)  a file that cannot be written or read

Each is also the builtin exception that a caller would guess. A message says what was attempted, where, what was
expected, what was found, and the likely fix; it never prints an array or a treedef.
"""

from __future__ import annotations

from collections.abc import Sequence


class PtreeError(Exception):
    """Base of all exceptions that ptree raises.

    >>> import ptree as pt
    >>> try:
    ...     pt.get({"enc": {"bias": 1}}, "enc/bais")
    ... except pt.PtreeError as error:
    ...     print(type(error).__name__, isinstance(error, KeyError))
    PathError True
    """

    __module__ = "ptree"


class PathError(PtreeError, KeyError):
    """Error for a path that does not exist.

    >>> import ptree as pt
    >>> pt.get({"enc": {"bias": 1}}, "enc/bais")
    Traceback (most recent call last):
        ...
    ptree.PathError: no path 'enc/bais': at 'enc' there are ['bias']. Did you mean 'enc/bias'?

    It is a `KeyError` too.
    """

    __module__ = "ptree"

    def __str__(self) -> str:  # KeyError would show the repr of the text
        return str(self.args[0]) if self.args else ""


class PatternError(PtreeError, ValueError):
    """Error for a pattern that is malformed, or that matches nothing.

    >>> import ptree as pt
    >>> pt.items({"enc": {"bias": 1}}, "**/bais")
    Traceback (most recent call last):
        ...
    ptree.PatternError: the pattern '**/bais' matches nothing in 1 leaves. Did you mean '**/bias'?

    It is a `ValueError` too.
    """

    __module__ = "ptree"


class StructureError(PtreeError, ValueError):
    """Error for two trees that do not fit each other; lists of paths say where.

    >>> import ptree as pt
    >>> try:
    ...     pt.check({"w": 1, "b": 2}, like={"w": 1, "c": 2})
    ... except pt.StructureError as error:
    ...     print(error.missing, error.unexpected)
    ['c'] ['b']

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
        """Paths that should be there."""
        self.unexpected = list(unexpected)
        """Paths that should not be there."""
        self.misshapen = list(misshapen)
        """Paths of leaves of another shape."""
        self.mistyped = list(mistyped)
        """Paths of leaves of another dtype."""
        self.damaged: list[str] = []
        """Paths of leaves in a file whose bytes have changed since they were written."""

    def __reduce__(self):
        facts = (self.args[0], self.missing, self.unexpected, self.misshapen, self.mistyped)
        return type(self), facts, vars(self)


class TieError(PtreeError, ValueError):
    """Error for a tie that cannot be made, or two different values written to one tied leaf.

    >>> import ptree as pt
    >>> pt.tie({"a": 1, "b": 2.5}, {"b": "c"})
    Traceback (most recent call last):
        ...
    ptree.TieError: cannot tie 'b' to 'c': there is no 'c'.

    It is a `ValueError` too.
    """

    __module__ = "ptree"


class InitError(PtreeError, ValueError):
    """Error for a parameter that cannot be drawn.

    >>> import jax, ptree as pt
    >>> pt.init({"bias": pt.Param((8,))}, jax.random.key(0))
    Traceback (most recent call last):
        ...
    ptree.InitError: no initialiser for ['bias']: give Param(..., init=...), or a rule such as {'**/bias': initializers.zeros}

    It is a `ValueError` too.
    """

    __module__ = "ptree"


class LayerError(PtreeError, ValueError):
    """Error for an input, or parameters, that do not fit a layer: `path` is the layer's, `what` the problem.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import nn
    >>> layer = nn.Sequential(nn.Dense(4))
    >>> layer(layer.init(jax.random.key(0), jnp.ones((2, 3))), jnp.ones((2, 5)))
    Traceback (most recent call last):
        ...
    ptree.LayerError: at '0', Dense(4): expected 3 features for the kernel f32[3,4], got the input f32[2,5]

    It is a `ValueError` too.
    """

    __module__ = "ptree"

    def __init__(self, what: str, path: str = ""):
        super().__init__(f"at {path!r}, {what}" if path else what)
        self.what, self.path = what, path

    def inside(self, name: str) -> LayerError:
        """The same error, seen from a container in which the layer has this name.

        Args:
            name: the name of the layer in the container.
        """
        path = f"{name}/{self.path}" if self.path else name
        return LayerError(self.what, path)

    def __reduce__(self):
        return type(self), (self.what, self.path)


class FileError(PtreeError, ValueError):
    """Error for a file that cannot be written or read.

    >>> import pathlib, tempfile, ptree as pt
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "m.safetensors"
    >>> _ = path.write_bytes(b"text")
    >>> pt.load(path)
    Traceback (most recent call last):
        ...
    ptree.FileError: cannot load '...': it is not a whole safetensors file (4 bytes): it is shorter than the 8 bytes that say how
    long the header is

    `is_damage` says whether its bytes have changed since they were written; `damaged` lists the leaves that have.

    It is a `ValueError` too.
    """

    __module__ = "ptree"

    def __init__(self, text: str, is_damage: bool = False):
        super().__init__(text)
        self.is_damage = is_damage
        """Whether the file's bytes have changed since they were written."""
        self.damaged: list[str] = []
        """Paths of the leaves whose bytes have."""
        self.damage = ""
        """Of an error about one damaged leaf: what is wrong with its bytes, without the names of the leaf and of the file."""

    def __reduce__(self):
        return type(self), (self.args[0], self.is_damage), vars(self)
