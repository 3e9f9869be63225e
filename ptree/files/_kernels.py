"""Warn of kernels that may be transposed: loaded from a PyTorch weight of a shape that does not tell its layout."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Sequence

from .._edit import leaves
from .._stored.stored_leaf import StoredLeaf
from .._tree import Tree, stacked_axes
from .._words import describe, lines, quoted
from ._saved_tree import SavedTree

_WEIGHT = re.compile(r"weight", re.IGNORECASE)
_KERNEL = re.compile(r"(.*_)?kernels?(_?[0-9]+)?(:0)?", re.IGNORECASE)
# of Haiku, (in, out), and of many programs of their own
_SHORT_WEIGHT = re.compile(r"(.*_)?w(:0)?", re.IGNORECASE)
_PARAMETRISED = re.compile(r"original\d*")


def warn_of_kernels(saved: SavedTree, chosen: Tree, is_fitted: bool) -> None:
    """Warn where a `weight` of PyTorch, (out, in, ...), is loaded as a `kernel`, (..., in, out), and its shape does not tell.

    Args:
        saved: the file.
        chosen: what was loaded of it, by the new paths.
        is_fitted: whether shapes were compared with a template: then only a shape that fits both layouts is in doubt.
    """
    doubtful: list[tuple[str, StoredLeaf]] = []
    for path, leaf in leaves(chosen):
        shape = leaf.shape[stacked_axes(path) :]
        if _is_weight_as_kernel(saved, leaf, path) and (fits_both_layouts(shape) if is_fitted else len(shape) > 1):
            doubtful.append((path, leaf))
    if not doubtful:
        return
    shown = [f"{quoted(path)}, {describe(leaf)}, from {quoted(leaf.name)}" for path, leaf in doubtful]
    warnings.warn(
        f"these kernels may be transposed: {lines(shown, '; ')}. PyTorch's weights are (out, in, ...), kernels are"
        " (..., in, out), and a shape that fits both does not tell. A table says the layout:"
        f" {_call(saved.path, *doubtful[0])}; with `as_is` it stays. ptree.convert.suggest(path, like) proposes a table, and"
        " ptree.convert.layer_table(net, *inputs) has that of layers of ptree.nn",
        stacklevel=_frames_of_ptree() + 1,
    )


def _call(file: str, path: str, leaf: StoredLeaf) -> str:
    """The call that converts one leaf, and says its layout."""
    layout = "linear" if len(leaf.shape) - stacked_axes(path) == 2 else "conv"
    name = quoted(leaf.name)
    table = f"ptree.convert.Table({{{name}: ({quoted(path)}, ptree.convert.{layout})}})"
    return f"{table}.apply({{{name}: ptree.convert.read({quoted(file)})[{name}]}})"


def _frames_of_ptree() -> int:
    """How many frames of ptree lie between the caller of this function and the program that called ptree."""
    count = 0
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("ptree."):
        count += 1
        frame = frame.f_back
    return count - 1


def _is_weight_as_kernel(saved: SavedTree, leaf: StoredLeaf, path: str) -> bool:
    # ptree may have written arrays under the names of a state dict: convert.write(..., to="hf")
    is_of_state_dict = "." in leaf.name and "/" not in leaf.name
    is_foreign = saved.is_foreign or leaf.kind == "torch" or is_of_state_dict
    return is_foreign and is_between_layouts(leaf.name, path, is_short_sure=True)


def is_between_layouts(source: str, target: str, *, is_short_sure: bool) -> bool:
    """Whether a weight becomes a kernel or a `w`, or the other way round: their layouts differ between frameworks.

    Args:
        source, target: names, with dots or slashes between segments.
        is_short_sure: whether `w` and `kernel` have the same layout, (in, out), as in Haiku; in other programs `w` may have any.
    """
    layouts = {layout_of_name(source), layout_of_name(target)}
    if layouts == {"w", "kernel"}:
        return not is_short_sure
    return len(layouts) == 2 and "weight" in layouts and "" not in layouts


def layout_of_name(name: str) -> str:
    """By the last segment of a name, but for numbers and the `value` of nnx: "weight", "kernel", "w", or "" of all others."""
    *parents, last = re.split(r"[./]", name)
    while parents and (last == "value" or last.isdecimal()):  # nnx' kernel/value; kernels/0
        last = parents.pop()
    if _PARAMETRISED.fullmatch(last) and parents:  # parametrizations.weight.original1
        last = parents[-1]
    if _KERNEL.fullmatch(last):
        return "kernel"
    if _WEIGHT.search(last):
        return "weight"
    return "w" if _SHORT_WEIGHT.fullmatch(last) else ""


def fits_both_layouts(shape: Sequence[int]) -> bool:
    """Whether a kernel of this shape would have the same shape in PyTorch, of a Linear, a convolution, a transposed one or experts."""
    if len(shape) < 2:
        return False
    first, second, *spatial = shape
    layouts = [(*spatial, second, first)]
    if spatial:
        layouts.append((*spatial, first, second))
        layouts.append((*shape[:-2], shape[-1], shape[-2]))  # matrices of several experts, each transposed
    return tuple(shape) in layouts
