"""Which axes of an Equinox weight, (out, in), are features in and out; warn where an initialiser takes one for the other."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .._paths import split
from .._tree import Leaf, PyTree, locate, stacked_axes
from .._words import quoted
from ..stacks import layer_shape
from .scheme_sites import as_scheme, initializer_at

if TYPE_CHECKING:  # a sixth of the time of `import ptree`, which draws nothing
    from ..initializers import Initializer


class _Layout(NamedTuple):
    """Where a weight of a layer has its features in and out."""

    layer: str
    order: str
    in_axis: int
    out_axis: int
    batch_axes: tuple[int, ...]
    """The axes in front of an ensemble, as `equinox.filter_vmap` makes it."""

    @property
    def options(self) -> str:
        """The options of an initialiser that reads the weight rightly."""
        axes = f"in_axis={self.in_axis}, out_axis={self.out_axis}"
        if not self.batch_axes:
            return axes
        batch = self.batch_axes[0] if len(self.batch_axes) == 1 else self.batch_axes
        return f"{axes}, batch_axis={batch}"

    def __str__(self) -> str:
        in_front = "members, " * len(self.batch_axes)
        return f"weights of equinox.nn.{self.layer} are ({in_front}{self.order})"


_NAMED = 2
"""How many paths a warning names where there are many."""
_WEIGHTS = ("weight", "weight_ih", "weight_hh")
_CELLS = ("GRUCell", "LSTMCell")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def warn_of_swapped_axes(
    tree: PyTree, leaf_at: Mapping[str, Leaf], initializers: Mapping[str, Initializer], *, stacklevel: int
) -> None:
    """Warn of each initialiser whose fan is not that of the Equinox weights that it is to draw, if that changes the draw.

    Args:
        tree: the tree in which the leaves are.
        leaf_at: path -> leaf.
        initializers: path -> initialiser, of the leaves that are drawn.
        stacklevel: as for `warnings.warn`, counted from the caller.
    """
    if "equinox" not in sys.modules:  # then no layer of it can be in the tree
        return
    swapped: dict[tuple[str, _Layout], list[str]] = {}
    for path, initializer in initializers.items():
        layout = _layout_at(tree, path, initializer)
        if layout is not None and not _is_drawn_alike(tree, path, leaf_at[path], initializer, layout):
            swapped.setdefault((quoted(initializer), layout), []).append(path)
    for (initializer, layout), paths in swapped.items():
        warnings.warn(
            f"{_first_of(paths)}:\n"
            f"  wrong standard deviation by {initializer},\n"
            f"  as {layout}.\n"
            f"  Right: {_with_options(initializer, layout.options)}",
            stacklevel=stacklevel + 1,
        )


def is_in_layer(tree: PyTree, path: str) -> bool:
    """Whether a leaf is an array of a layer of `equinox.nn`."""
    bases = type(_node_above(tree, path)).__mro__
    return any(base.__module__.startswith("equinox.nn.") for base in bases)


def output_axis(tree: PyTree, path: str) -> int | None:
    """The axis of features out of a weight of a layer of Equinox; None for any other leaf."""
    name = path.rpartition("/")[2]
    if "equinox" not in sys.modules or name not in _WEIGHTS:
        return None
    layer = _node_above(tree, path)
    weight = getattr(layer, name, None)
    if weight is None:
        return None
    layout = _layout_of(layer, len(weight.shape) - stacked_axes(path))
    return None if layout is None else layout.out_axis


def _with_options(initializer: str, options: str) -> str:
    """The call of an initialiser with these options; of one that has options, or parts, those to add or to change."""
    name = initializer.removesuffix("()")
    return f"{name}({options})" if name.isidentifier() else f"the same with {options}"


def _first_of(paths: Sequence[str]) -> str:
    """Some paths, and the number of the others: two fit into a line of a terminal."""
    others = len(paths) - _NAMED
    if others <= 1:  # to count one takes as much room as its name
        return ", ".join(map(quoted, paths))
    return f"{', '.join(map(quoted, paths[:_NAMED]))} and {others} more"


def _layout_at(tree: PyTree, path: str, initializer: Initializer) -> _Layout | None:
    """The layout of a weight, or of the weight beside a bias that a scheme draws; None where no layer of Equinox says it."""
    name = path.rpartition("/")[2]
    is_beside_weight = name == "bias" and as_scheme(initializer) is not None
    if name not in _WEIGHTS and not is_beside_weight:
        return None
    layer = _node_above(tree, path)
    weight = getattr(layer, "weight" if is_beside_weight else name, None)
    return _layout_of(layer, len(getattr(weight, "shape", ())) - stacked_axes(path))


def _node_above(tree: PyTree, path: str) -> object:
    """The layer that holds a leaf, as the tree keeps it: to read it would slice the layers of a stack."""
    place = locate(tree, split(path.rpartition("/")[0]))
    return None if place is None else place.kept


def _layout_of(layer: object, rank: int) -> _Layout | None:
    """The layout of a layer whose weight has so many axes."""
    # by name, as ptree does not import Equinox
    for base in type(layer).__mro__:
        if not base.__module__.startswith("equinox.nn."):
            continue
        name = base.__qualname__
        if name == "Linear" or name in _CELLS:
            return _Layout(name, "out, in", -1, -2, (*range(rank - 2),))
        if name in _CONVOLUTIONS:
            spatial = getattr(layer, "num_spatial_dims", 1)
            return _layout_of_convolution(name, spatial, (*range(rank - spatial - 2),))
    return None


def _layout_of_convolution(name: str, spatial: int, batch_axes: tuple[int, ...]) -> _Layout:
    order = "out, in, spatial..."
    if batch_axes:
        return _Layout(name, order, -(spatial + 1), -(spatial + 2), batch_axes)
    return _Layout(name, order, 1, 0, ())


def _is_drawn_alike(tree: PyTree, path: str, leaf: Leaf, initializer: Initializer, layout: _Layout) -> bool:
    from ..initializers import draw_alike, with_axes

    right = with_axes(initializer, layout.in_axis, layout.out_axis, layout.batch_axes)
    one, other = (initializer_at(each, tree, path, leaf) for each in (initializer, right))
    return draw_alike(one, other, layer_shape(path, leaf), leaf.dtype)
