"""NamedArrays: the arrays of anything that a conversion reads, by name: trees, state dicts, modules, open files, paths of files.

The numbers of an array are fetched when they are asked for. A stack is there whole, under `blocks/:/w`, and by single
layers, under `blocks/0/w`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from .._edit import names_of_leaves
from .._errors import FileError, StructureError
from .._foreign.foreign_file import ForeignFile
from .._paths import STACKED
from .._paths.dotted_names import paths_of_names
from .._stored.locations import is_orbax
from .._tree import Leaf, PyTree
from .._words import describe, quoted
from ..files._foreign_tree import ForeignLeaf, ForeignTree
from ..files._kinds import LACKING_DTYPE, is_static, unsaved
from ..files._load import load
from ..files._open import File
from ..files._open_leaf import OpenAlias, OpenLeaf
from ..files._orbax import is_tree_of_orbax
from ._framework_states import framework_state
from ._opening import open_arrays
from ._operations.operation import Described, Operation
from ._tied_tensors import tied_tensors


@dataclass(frozen=True)
class NamedArray:
    """One array of a source, or one layer of a stacked one; its numbers are not fetched yet."""

    name: str
    """As its framework writes it: `encoder.layer.0.weight`."""
    path: str
    """The same as a path: `encoder/layer/0/weight`."""
    described: Described | None
    """Its shape and dtype; None where its numbers cannot be read."""
    fetch: Callable[[], np.ndarray]
    problem: str = ""
    """Why its numbers cannot be read; empty where they can be."""
    same_as: str = ""
    """The path of the array that has the very same numbers: the source of a tie, the whole of a layer; empty for no other."""
    layout: Operation | None = None
    """The operation that makes it a kernel of ptree.nn, as the class of its module says; None where that is not known."""

    @property
    def is_layer(self) -> bool:
        """Whether this is one layer of a stacked array."""
        return STACKED in self.same_as.split("/") and STACKED not in self.path.split("/")


class NamedArrays:
    """The arrays of a source by path, in its order."""

    def __init__(self, arrays: Mapping[str, NamedArray], title: str):
        self.by_path = dict(arrays)
        self.title = title
        """The source for messages: `a dict`, `'model.pt'`."""
        self.is_dotted = any("." in array.name and array.name != path for path, array in self.by_path.items())


@contextmanager
def opened_arrays(source: PyTree) -> Iterator[NamedArrays]:
    """The arrays of a source; a file at a path is closed at the end.

    Raises:
        FileError: a file that is not read, or damaged.
        StructureError: a source without an array.
        OSError: the file is not there or cannot be read.
    """
    if not isinstance(source, (str, os.PathLike)):
        yield named_arrays(source)
        return
    path = os.fspath(source)
    if is_orbax(path) or is_tree_of_orbax(path):  # compressed: it can only be read whole
        yield named_arrays(load(path))
        return
    with open_arrays(path) as file:
        yield named_arrays(file)


def named_arrays(source: PyTree) -> NamedArrays:
    """The arrays of a tree, a state dict, a module or an open file.

    Raises:
        StructureError: there is no array in it.
    """
    if isinstance(source, NamedArrays):
        return source
    if isinstance(source, ForeignTree):
        source = source.foreign_file
    if isinstance(source, ForeignFile):
        return NamedArrays(_of_foreign_file(source), quoted(source.path))
    title = quoted(source.path) if isinstance(source, File) else _with_article(type(source).__name__)
    state = framework_state(source)
    leaves = _leaves_of(source if state is None else dict(state.arrays()))
    if not leaves:
        raise StructureError(f"there is no array in the source: {describe(source)}")
    if [leaf.name for leaf in leaves] == [""]:
        raise StructureError(f"the source is {describe(leaves[0].leaf)} without a name: expected a dict, name -> array")
    return NamedArrays(_of_leaves(leaves), title)


def _with_article(name: str) -> str:
    return f"an {name}" if name[:1] in "AEIOUaeiou" else f"a {name}"


@dataclass(frozen=True)
class _NamedLeaf:
    name: str
    leaf: Leaf
    same_as: str = ""


def _leaves_of(source: PyTree) -> list[_NamedLeaf]:
    """Every leaf that is an array or may be one, under all its names."""
    if isinstance(source, File):
        return [
            _NamedLeaf(name, leaf, leaf.source.name if isinstance(leaf, OpenAlias) else "")
            for name, leaf in source.items()
        ]
    found: list[_NamedLeaf] = []
    for entry in names_of_leaves(source):
        leaf = entry.seen_shape() if entry.leaf is None else entry.seen()
        if leaf is not None and not is_static(leaf):
            found.append(_NamedLeaf(entry.name, leaf, entry.path if entry.tie is not None else ""))
    return found


def _of_leaves(leaves: list[_NamedLeaf]) -> dict[str, NamedArray]:
    paths = {name: path for path, name in paths_of_names(leaf.name for leaf in leaves).items()}
    tied = tied_tensors((leaf.name, leaf.leaf) for leaf in leaves)
    found: dict[str, NamedArray] = {}
    for leaf in leaves:
        path = paths[leaf.name]
        same_as = leaf.same_as or tied.get(leaf.name, "")
        whole = _named_array(leaf, path, paths.get(same_as, same_as))
        found[path] = whole
        found.update(_layers_of(leaf, whole))
    return found


def _named_array(leaf: _NamedLeaf, path: str, same_as: str) -> NamedArray:
    if isinstance(leaf.leaf, (OpenLeaf, OpenAlias)):
        described = Described(tuple(leaf.leaf.shape), np.dtype(leaf.leaf.dtype))
        return NamedArray(leaf.name, path, described, partial(_read, leaf.leaf), same_as=same_as)
    if isinstance(leaf.leaf, ForeignLeaf):
        return _of_foreign_leaf(leaf, path, same_as)
    saved = unsaved(leaf.name, leaf.leaf)
    if isinstance(saved, str):
        return NamedArray(
            leaf.name,
            path,
            _declared(leaf.leaf),
            _nothing,
            f"is {saved.replace(LACKING_DTYPE, 'which is no dtype of parameters')}",
            same_as,
        )
    return NamedArray(
        leaf.name, path, Described(saved.stored.shape, saved.stored.dtype), saved.host_array, same_as=same_as
    )


def _of_foreign_leaf(leaf: _NamedLeaf, path: str, same_as: str) -> NamedArray:
    found = leaf.leaf
    problem = found.stored.unreadable
    described = None if problem else Described(tuple(found.shape), np.dtype(found.dtype))
    return NamedArray(leaf.name, path, described, found.__array__, problem, same_as)


def _declared(leaf: Leaf) -> Described | None:
    """The shape and dtype of a leaf of a spec, which has no numbers; a plan needs no more."""
    try:
        return Described(tuple(leaf.shape), np.dtype(leaf.dtype))
    except (AttributeError, TypeError):  # of a dtype that NumPy does not have
        return None


def _read(leaf: OpenLeaf | OpenAlias) -> np.ndarray:
    return leaf.__array__()  # as it is stored: `leaf[...]` would be a typed key, or a tensor of PyTorch


def _nothing() -> np.ndarray:
    raise AssertionError("an array with a problem is not fetched")


def _layers_of(leaf: _NamedLeaf, whole: NamedArray) -> dict[str, NamedArray]:
    """The single layers of a stacked array, by path."""
    segments = whole.path.split("/")
    stacks = [at for at, segment in enumerate(segments) if segment == STACKED]
    if not stacks or whole.described is None:
        return {}
    shape, dtype = whole.described
    found: dict[str, NamedArray] = {}
    for layers in itertools.product(*(range(size) for size in shape[: len(stacks)])):
        for at, layer in zip(stacks, layers, strict=False):
            segments[at] = str(layer)
        path = "/".join(segments)
        described = Described(shape[len(stacks) :], dtype)
        fetch = partial(_layer, leaf.leaf, whole, layers)
        found[path] = NamedArray(path, path, described, fetch, whole.problem, same_as=whole.path)
    return found


def _layer(leaf: Leaf, whole: NamedArray, layers: tuple[int, ...]) -> np.ndarray:
    if isinstance(leaf, OpenLeaf):  # only the bytes of the layer are read
        return np.asarray(leaf[layers])
    is_plain = isinstance(leaf, jax.Array) and whole.described is not None and leaf.dtype == whole.described.dtype
    if is_plain:  # one layer is copied from its device, not the whole stack
        return np.asarray(leaf[layers])
    return whole.fetch()[layers]


def _of_foreign_file(file: ForeignFile) -> dict[str, NamedArray]:
    names = [*file.arrays, *file.aliases]
    if not names:
        raise FileError(f"there is no array in {quoted(file.path)}")
    paths = {name: path for path, name in paths_of_names(names).items()}
    found: dict[str, NamedArray] = {}
    for name in names:
        source = file.aliases.get(name, name)
        array = file.arrays[source]
        described = None if array.problem else Described(array.shape, array.dtype)
        same_as = paths[source] if source != name else ""
        found[paths[name]] = NamedArray(
            name, paths[name], described, partial(file.read, source), array.problem, same_as
        )
    return found
