"""Transform, a named and invertible way to see one leaf as another: axes in another order, or functions that users register."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from functools import lru_cache
from operator import index
from types import FunctionType
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from .._errors import TieError
from .._words import describe, listed, name_of, quoted
from .derived_leaf import DerivedLeaf
from .leaf import Leaf, signature

Function: TypeAlias = Callable[[Any], Any]
"""Of an array, gives an array."""

_INVERSE = "inverse of "


class Transform:
    """Two functions that undo each other, and a name: files and equality know the name alone.

    `forward` makes of the source array what the alias reads, and `inverse` of what is written to the alias the source
    array. A permutation has `axes`, the new order of the last axes; of registered functions they are empty.
    """

    # no dataclass, whose code is generated at import: it takes as long as three small modules
    __slots__ = ("axes", "forward", "inverse", "name")

    def __init__(self, name: str, forward: Function, inverse: Function, axes: tuple[int, ...] = ()):
        self.name, self.forward, self.inverse, self.axes = name, forward, inverse, axes

    def __repr__(self) -> str:
        return f"Transform({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:  # functions of a user's own cannot be pickled
        return transform_named, (self.name,)

    def inverted(self) -> Transform:
        """The way back; a transform that is its own inverse says so by holding one function twice."""
        if self.axes:
            return permuted(_inverse_order(self.axes))
        if self.forward is self.inverse:
            return self
        is_inverse = self.name.startswith(_INVERSE)
        name = self.name.removeprefix(_INVERSE) if is_inverse else _INVERSE + self.name
        return Transform(name, self.inverse, self.forward)

    def see(self, leaf: Leaf) -> Leaf:
        """What the alias shows of a leaf."""
        return self._applied(self.forward, leaf)

    def undo(self, leaf: Leaf) -> Leaf:
        """The leaf of which the alias shows this."""
        return self._applied(self.inverse, leaf)

    def _applied(self, function: Function, leaf: Leaf) -> Leaf:
        """A function of arrays applied to any leaf: to the shape where a leaf has no values, not at all without a shape.

        Raises:
            TieError: a node of arrays in the leaf's place, of which it is not known what the transform makes; the sharding of an
                array that is divided, which does not say how many axes this has.
        """
        is_array = hasattr(leaf, "__array__") and hasattr(leaf, "shape")  # a Tree has the first, and refuses
        if not is_array:
            problem = self._node_problem(leaf) or self._sharding_problem(leaf)
            if problem:
                raise TieError(problem)
            if not hasattr(leaf, "shape"):
                return leaf
        try:
            if is_array or isinstance(leaf, DerivedLeaf):
                return function(leaf)
            seen = self._applied_to_shape(function, leaf)
        except Exception as error:
            error.add_note(f"in the transform {self.name!r} of a tie, of {describe(leaf)}")
            raise
        if not is_dataclass(leaf) or isinstance(leaf, type):
            return seen
        return replace(leaf, shape=seen.shape, dtype=seen.dtype)  # pyright: ignore[reportCallIssue]  # a Param

    def _node_problem(self, leaf: Leaf) -> str:
        """Why a node in the place of a leaf cannot be seen through the transform; empty for a leaf, or where it can."""
        if self.axes and isinstance(leaf, DerivedLeaf):  # it knows its own axes
            return ""
        if not is_registered_node(leaf):
            return ""
        return f"a {type(leaf).__name__} is no array that {quoted(self.name)} can show: read it under its own path, or untie it"

    def _sharding_problem(self, leaf: Leaf) -> str:
        """Why a sharding cannot be seen through the transform; empty for other leaves, and where nothing is divided."""
        if isinstance(leaf, NamedSharding):
            is_divided = any(leaf.spec)
        elif isinstance(leaf, PartitionSpec):
            is_divided = any(leaf)
        else:
            is_divided = isinstance(leaf, Sharding) and not leaf.is_fully_replicated
        if not is_divided:
            return ""
        what = "PartitionSpec" if isinstance(leaf, PartitionSpec) else type(leaf).__name__
        return (
            f"a {what} does not say how many axes its array has, so that it cannot be shown {quoted(self.name)}: take it"
            " by the path of the leaf that is tied, or plan[alias] of the ptree.shard.Plan that it is from"
        )

    def _applied_to_shape(self, function: Function, leaf: Leaf) -> jax.ShapeDtypeStruct:
        if self.axes:  # without JAX, which would cut NumPy's 64 bits to 32
            return jax.ShapeDtypeStruct(function(np.empty(leaf.shape, np.void)).shape, leaf.dtype)
        # in the dtype that JAX computes in: JAX 0.12 warns of shapes of 64 bits where it has 32
        dtype: Any = jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True)
        return jax.eval_shape(function, jax.ShapeDtypeStruct(leaf.shape, dtype))

    def shown(self, source: str) -> str:
        """The source as people write it: `transposed(embed/table)`, `transposed(conv/kernel, (3, 2, 0, 1))`."""
        order = f", {self.axes}" if self.axes not in ((), (1, 0)) else ""
        return f"{self.name.partition('(')[0]}({source}{order})"

    def misfit(self, leaf: Leaf) -> str:
        """Why a leaf cannot be seen through the transform; empty where it can."""
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
            first_line = str(error).splitlines()[0] if str(error) else ""
            return f"raises {type(error).__name__}: {first_line}"
        return "" if signature(back) == signature(leaf) else f"cannot be undone: the way back gives {describe(back)}"


def is_registered_node(leaf: Leaf) -> bool:
    """Whether what is in the place of a leaf is a node with arrays inside of a type that was registered with JAX.

    A mapping, a list or a tuple, as in a state of an optimiser or in a Hessian, is not: transforms see these as they are.
    """
    if isinstance(leaf, (Mapping, list, tuple)):
        return False
    arrays = jax.tree.leaves(leaf)
    is_leaf = len(arrays) == 1 and arrays[0] is leaf
    return not is_leaf and any(hasattr(array, "shape") for array in arrays)


# ------------------------------------------------------------------------- axes in another order


@lru_cache(maxsize=256)
def permuted(axes: tuple[int, ...]) -> Transform:
    """The last axes of a leaf in another order; axes before them stay, and a leaf with fewer axes is seen as it is."""
    name = "transposed" if axes == (1, 0) else f"transposed({', '.join(map(str, axes))})"
    back = _inverse_order(axes)
    forward = _permutation(axes)
    return Transform(name, forward, forward if back == axes else _permutation(back), axes)


def _inverse_order(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The order of axes that undoes an order."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _permutation(axes: tuple[int, ...]) -> Function:
    def permute(leaf: Leaf) -> Leaf:
        before = len(leaf.shape) - len(axes)
        if before < 0:
            return leaf
        return leaf.transpose(*range(before), *(before + axis for axis in axes))

    return permute


def order_of(axes: Sequence[int]) -> tuple[int, ...]:
    """The axes as positions from 0; raises TieError where each axis does not stand in them once."""
    try:
        order = tuple(index(axis) + (len(axes) if axis < 0 else 0) for axis in axes)
    except (TypeError, ValueError):
        order = ()
    if not order or sorted(order) != list(range(len(order))):
        raise TieError(f"not an order of axes: {quoted(axes)}; each of 0 to n - 1 stands in it once, as in (1, 0)")
    return order


# ------------------------------------------------------------------------------- by their names

_registered: dict[str, Transform] = {}


def registered(name: str, forward: Function, inverse: Function) -> Transform:
    """Register a pair of functions under a name; the same pair again is the same transform.

    Raises:
        TieError: a name that is no identifier, or is taken by other functions; something that is no function.
    """
    if not isinstance(name, str) or not name.isidentifier() or name == "transposed":
        raise TieError(f"cannot register the transform {quoted(name)}: a name is an identifier, and not 'transposed'")
    for function in (forward, inverse):
        if not callable(function):
            raise TieError(f"cannot register the transform {name!r}: {describe(function)} is not a function")
    if name not in _registered:
        _registered[name] = Transform(name, forward, inverse)
    there = _registered[name]
    if not (_are_alike(there.forward, forward) and _are_alike(there.inverse, inverse)):
        raise TieError(
            f"cannot register the transform {name!r}: it is registered with other functions, {name_of(there.forward)} and"
            f" {name_of(there.inverse)}. Choose another name (one with captured values is another function each time)"
        )
    return there


def _are_alike(a: Function, b: Function) -> bool:
    """Whether two functions do the same for certain: one object, or one text that was run twice, as in a notebook."""
    if a is b:
        return True
    if not isinstance(a, FunctionType) or not isinstance(b, FunctionType):
        return False
    for function in (a, b):
        if function.__closure__ or function.__defaults__ or function.__kwdefaults__:
            return False
    return a.__code__ == b.__code__ and a.__globals__ is b.__globals__


def transform_named(name: str) -> Transform:
    """The transform of a name: files and pickles hold names only.

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
