"""resize: leaves with more or fewer rows, as a table for a larger vocabulary; what both sizes have is kept, the rest is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..._draw import Param
from ..._draw import init as init_leaves
from ..._edit import Selector, choose
from ..._edit import get as get_leaf
from ..._errors import InitError, PatternError, StructureError
from ..._numbers import whole_number
from ..._shardings import is_spread
from ..._tree import Leaf, PyTree, Tie, Tree, aliases, leaves, replace_leaves, stacked_axes
from ..._words import describe, lines, quoted
from .moved_slots import Shape, with_corner

T = TypeVar("T")
Initializer: TypeAlias = Callable[..., Any]
"""`(key, shape, dtype) -> array`, as in `ptree.initializers`."""


def resize(
    params: T,
    sizes: Mapping[Selector, int | tuple[int, ...]],
    *,
    init: Initializer | Mapping[Any, Initializer] | None = None,
    key: jax.Array | None = None,
) -> T:
    """Parameters in which some leaves have another size: what both sizes have is kept, new rows are drawn.

    >>> import jax, jax.numpy as jnp
    >>> from ptree import Tree, initializers as I, transposed
    >>> params = Tree({"embed": {"table": jnp.ones((5, 2))}, "head": transposed("embed/table"), "bias": jnp.ones(5)})
    >>> larger = resize(params, {"embed/table": 8, "bias": 8}, init={"bias": I.zeros, "**": I.normal(0.02)}, key=jax.random.key(0))
    >>> larger["embed/table"].shape, larger["head"].shape, larger["bias"].tolist()
    ((8, 2), (2, 8), [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])

    New rows are those that `ptree.init` would draw for the whole leaf in its new shape with this key. Ties stay, so that a
    tied head follows its table. The state of the optimiser follows by `carry(..., resized=...)`. A leaf that does not change is
    shared with `params`, and arrays that are sharded over devices stay so. Shapes and specs are resized too.

    Args:
        params: any pytree of arrays.
        sizes: leaf -> its new size along the first axis, or all its new sizes as a tuple. An alias has the sizes that it
            shows. Of a stack the sizes are those of one layer.
        init: what draws the new rows, one initialiser for all or rules, selector -> initialiser. It is not needed where
            nothing grows.
        key: as for `ptree.init`.

    Raises:
        PatternError: a name that matches nothing, or sizes that are none.
        StructureError: another number of axes, two sizes for one leaf, or a size that the devices do not divide.
        InitError: something grows, and there is no initialiser or key.
    """
    shapes = _new_shapes(params, sizes)
    found = dict(leaves(params))
    growing = [path for path, shape in shapes.items() if _grows(found[path], shape)]
    drawn = _drawn(found, {path: shapes[path] for path in growing}, init, key)
    new: dict[str, Leaf] = {}
    problems: list[str] = []
    for path, shape in shapes.items():
        try:
            new[path] = _resized(found[path], shape, drawn.get(path))
        except ValueError as error:  # of jax.device_put
            wanted = jax.ShapeDtypeStruct(shape, found[path].dtype)
            problems.append(f"{quoted(path)} cannot be {describe(wanted)} where it is: {error}")
    if problems:
        raise StructureError(lines(["cannot resize:", *problems]))
    return replace_leaves(params, new)


# ------------------------------------------------------------------------------------- shapes


def _new_shapes(params: PyTree, sizes: Mapping[Selector, int | tuple[int, ...]]) -> dict[str, Shape]:
    """The new shape of each leaf that is named, by its own path.

    Raises:
        PatternError, StructureError: it lists all problems.
    """
    if not isinstance(sizes, Mapping):
        raise PatternError(f"resize takes a dict, leaf -> size; got {describe(sizes)}")
    ties = aliases(params)
    shapes: dict[str, Shape] = {}
    problems: list[str] = []
    for name, size in sizes.items():
        named: dict[str, Tie | None] = {}
        if isinstance(name, str) and name in ties:
            named[name] = ties[name]
        else:
            named = dict.fromkeys(path for path, _ in choose(params, name))
        for path, alias_of in named.items():
            shape = _new_shape(get_leaf(params, str(path)), str(path), size)
            if isinstance(shape, str):
                problems.append(shape)
                continue
            own = alias_of.source if isinstance(alias_of, Tie) else str(path)
            shape = _through(alias_of, shape)
            if shapes.setdefault(own, shape) != shape:
                problems.append(f"{quoted(own)} would be {shapes[own]} and {shape}")
    if problems:
        raise StructureError(lines([f"cannot resize: {problems[0]}", *problems[1:]]))
    return shapes


def _through(tie: Tie | None, shape: Shape) -> Shape:
    """The shape of the source of which an alias shows this shape."""
    if tie is None:
        return shape
    return tie.write(jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _new_shape(leaf: Leaf, path: str, size: int | tuple[int, ...]) -> Shape | str:
    """The new shape of a leaf, or what is wrong with its size."""
    if not hasattr(leaf, "shape"):
        return f"{quoted(path)} is {describe(leaf)}, which has no size"
    depth = stacked_axes(path)
    stacks, own = tuple(leaf.shape[:depth]), tuple(leaf.shape[depth:])
    wanted = size if isinstance(size, tuple | list) else (size, *own[1:])
    numbers = [whole_number(number) for number in wanted]
    if any(number is None or number < 1 for number in numbers):
        return f"{quoted(path)} would have the size {quoted(size)}: expected whole numbers from 1 on"
    if len(numbers) != len(own):
        layer = "a layer of " if depth else ""
        return f"{layer}{quoted(path)} is {own}, which has {len(own)} axes; got {quoted(size)}"
    return (*stacks, *(number for number in numbers if number is not None))


# ------------------------------------------------------------------------------------- values


def _grows(leaf: Leaf, shape: Shape) -> bool:
    is_array = isinstance(leaf, jax.Array | np.ndarray)
    return is_array and any(new > old for new, old in zip(shape, leaf.shape, strict=True))


def _drawn(
    found: Mapping[str, Leaf],
    shapes: Mapping[str, Shape],
    init: Initializer | Mapping[Any, Initializer] | None,
    key: jax.Array | None,
) -> dict[str, Leaf]:
    """Draw the leaves that grow, in their new shapes."""
    if not shapes:
        return {}
    if init is None or key is None:
        missing = "init=, such as ptree.initializers.normal(0.02)," if init is None else "key="
        raise InitError(f"{lines([quoted(path) for path in shapes], ', ')} would grow: give {missing} for the new rows")
    spec = Tree({path: Param(shape, found[path].dtype) for path, shape in shapes.items()})
    rules = init if isinstance(init, Mapping) else {"**": init}
    return dict(leaves(init_leaves(spec, key, rules)))


def _resized(leaf: Leaf, shape: Shape, drawn: Leaf | None) -> Leaf:
    if isinstance(leaf, Param):
        return replace(leaf, shape=shape)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=leaf.sharding)
    if leaf.shape == shape:
        return leaf
    if drawn is None:
        shared = tuple(slice(size) for size in shape)
        new = np.asarray(leaf)[shared] if is_spread(leaf) else leaf[shared]
    else:
        new = with_corner(drawn, leaf)
    if isinstance(leaf, np.ndarray):
        return np.array(new)
    return jax.device_put(new, leaf.sharding) if is_spread(leaf) else new
