"""Transform, a named and invertible way to see one leaf as another: axes in another order, or what a user registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import lru_cache
from operator import index
from types import FunctionType
from typing import Any

import jax
import numpy as np

from .._errors import TieError
from .._words import describe, listed, name_of, quoted
from .leaf import signature

_INVERSE = "inverse of "


@dataclass(frozen=True)
class Transform:
    """Two functions that undo each other, and a name: files and equality know the name alone."""

    name: str
    forward: Callable[[Any], Any] = field(compare=False)  # source array -> what the alias reads
    inverse: Callable[[Any], Any] = field(compare=False)  # what is written to the alias -> source array
    axes: tuple[int, ...] = field(default=(), compare=False)  # of a permutation: the new order of the last axes

    def __reduce__(self) -> Any:  # functions of a user's own cannot be pickled
        return transform_named, (self.name,)

    def inverted(self) -> Transform:
        """The way back; a transform that is its own inverse says so by holding one function twice."""
        if self.axes:
            return permuted(_back(self.axes))
        if self.forward is self.inverse:
            return self
        name = self.name.removeprefix(_INVERSE) if self.name.startswith(_INVERSE) else _INVERSE + self.name
        return Transform(name, self.inverse, self.forward)

    def see(self, leaf: Any) -> Any:
        """What the alias shows of a leaf."""
        return self._through(self.forward, leaf)

    def undo(self, leaf: Any) -> Any:
        """The leaf of which the alias shows this."""
        return self._through(self.inverse, leaf)

    def _through(self, function: Callable[[Any], Any], leaf: Any) -> Any:
        """A function of arrays applied to any leaf: what has no shape is itself, what has no values its shape."""
        if not hasattr(leaf, "shape"):
            return leaf
        try:
            if hasattr(leaf, "__array__"):
                return function(leaf)
            if self.axes:  # known without JAX, which would cut NumPy's 64 bits to 32
                seen = jax.ShapeDtypeStruct(function(np.empty(leaf.shape, np.void)).shape, leaf.dtype)
            else:
                seen = jax.eval_shape(function, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
        except Exception as error:
            error.add_note(f"in the transform {self.name!r} of a tie, of {describe(leaf)}")
            raise
        if not is_dataclass(leaf) or isinstance(leaf, type):
            return seen
        return replace(leaf, shape=seen.shape, dtype=seen.dtype)  # a Param

    def shown(self, source: str) -> str:
        """As a person would write it: `transposed(embed/table)`, `transposed(conv/kernel, (3, 2, 0, 1))`."""
        order = f", {self.axes}" if self.axes not in ((), (1, 0)) else ""
        return f"{self.name.partition('(')[0]}({source}{order})"

    def misfit(self, leaf: Any) -> str:
        """Why a leaf cannot be seen so, or nothing."""
        shape = getattr(leaf, "shape", None)
        if shape is None:
            return ""
        if self.axes == (1, 0):
            return "needs two axes or more" if len(shape) < 2 else ""
        if self.axes:
            return f"needs just {len(self.axes)} axes" if len(shape) != len(self.axes) else ""
        try:
            back = self.undo(self.see(leaf))
        except Exception as error:
            return f"raises {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return "" if signature(back) == signature(leaf) else f"cannot be undone: the way back gives {describe(back)}"


# ------------------------------------------------------------------------- axes in another order


@lru_cache(maxsize=256)
def permuted(axes: tuple[int, ...]) -> Transform:
    """The last axes of a leaf in this order; axes before them stay, and a leaf with fewer axes is seen as it is."""
    name = "transposed" if axes == (1, 0) else f"transposed({', '.join(map(str, axes))})"
    forward, back = _mover(axes), _back(axes)
    return Transform(name, forward, forward if back == axes else _mover(back), axes)


def _back(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The order of axes that undoes one."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _mover(axes: tuple[int, ...]) -> Callable[[Any], Any]:
    def moved(leaf: Any) -> Any:
        before = len(leaf.shape) - len(axes)
        return leaf if before < 0 else leaf.transpose(*range(before), *(before + axis for axis in axes))

    return moved


# ------------------------------------------------------------------------------- by their names

_registered: dict[str, Transform] = {}


def registered(name: str, forward: Callable[[Any], Any], inverse: Callable[[Any], Any]) -> Transform:
    """Give a pair of functions a name; the same pair again is the same transform."""
    if not isinstance(name, str) or not name.isidentifier() or name == "transposed":
        raise TieError(f"cannot register the transform {quoted(name)}: a name is an identifier, and not 'transposed'")
    for function in (forward, inverse):
        if not callable(function):
            raise TieError(f"cannot register the transform {name!r}: {describe(function)} is not a function")
    known = _registered.get(name)
    if known is None:
        known = _registered[name] = Transform(name, forward, inverse)
    elif not (_alike(known.forward, forward) and _alike(known.inverse, inverse)):
        raise TieError(
            f"cannot register the transform {name!r}: it is registered with other functions, {name_of(known.forward)} and"
            f" {name_of(known.inverse)}. Choose another name (one with captured values is another function each time)"
        )
    return known


def _alike(a: Any, b: Any) -> bool:
    """Whether two functions do the same for certain: one object, or one text that was run twice, as in a notebook."""
    if a is b:
        return True
    plain = all(
        isinstance(f, FunctionType) and not (f.__closure__ or f.__defaults__ or f.__kwdefaults__) for f in (a, b)
    )
    return plain and a.__code__ == b.__code__ and a.__globals__ is b.__globals__


def transform_named(name: str) -> Transform:
    """The transform of this name: in files and pickles there are names only.

    Raises:
        TieError: no transform has the name.
    """
    if name.startswith(_INVERSE):
        return transform_named(name.removeprefix(_INVERSE)).inverted()
    if name == "transposed":
        return permuted((1, 0))
    axes = name.removeprefix("transposed(").removesuffix(")").split(", ")
    if name.startswith("transposed(") and all(axis.isdecimal() and len(axis) < 4 for axis in axes):
        return permuted(order_of([int(axis) for axis in axes]))
    if name not in _registered:
        there = listed(["transposed", *_registered])
        raise TieError(
            f"no transform has the name {quoted(name)}: there are {there}."
            " Call ptree.sharing.register_transform with this name first"
        )
    return _registered[name]


def order_of(axes: Sequence[int]) -> tuple[int, ...]:
    """The axes as positions from 0, or an error where they are no order of all axes."""
    try:
        order = tuple(index(axis) + (len(axes) if axis < 0 else 0) for axis in axes)
    except (TypeError, ValueError):
        order = ()
    if not order or sorted(order) != list(range(len(order))):
        raise TieError(f"not an order of axes: {quoted(axes)}; each of 0 to n - 1 stands in it once, as in (1, 0)")
    return order
