"""Sources of trees, specs and other pytrees, of files that `ptree.open` gave, and of checkpoints by Orbax."""

from __future__ import annotations

import io
import math
from collections.abc import Hashable, Iterator
from functools import lru_cache
from types import FunctionType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..._draw import Param
from ..._edit import entries
from ..._edit import leaves as leaves_of
from ..._errors import StructureError
from ..._tree import LEAF_TYPES, Leaf, PyTree, Tie, opened, shape_only, signature
from ..._words import describe, printable, quoted, short_dtype
from ...files._foreign_tree import ForeignTree
from ...files._kinds import UnsavedLeaf, unsaved
from ...files._open import File
from ...files._saved_tree import SavedTree, stored_ties
from .foreign_source import OpenForeignSource
from .source import CHUNK, Alias, LeafInfo, Source, in_chunks
from .stored_source import MISMATCH, StoredSource, alias_of, info_of

_NAMED = {ModuleType: "module", type: "class", FunctionType: "function"}


def tree_source(thing: PyTree) -> Source:
    """The source of a pytree, or of a file that `ptree.open` gave.

    Raises:
        StructureError: it is no tree: a layer, a function, a text.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    if isinstance(thing, File):
        return OpenFileSource(thing.stored)
    if isinstance(thing, ForeignTree):
        return OpenForeignSource(thing.foreign_file)
    if opened(thing) is None and not _is_array(thing):
        raise StructureError(f"not a tree: {_described(thing)}.{_advice(thing)}")
    return TreeSource(thing)


class OpenFileSource(StoredSource):
    """A file that the caller opened, and closes."""

    def close(self) -> None:
        """Leave the file open."""


def _described(thing: Leaf) -> str:
    for kind, name in _NAMED.items():
        if isinstance(thing, kind):
            return f"the {name} {printable(thing.__name__)}"
    shown, kind = describe(thing), type(thing).__name__
    return shown if kind in shown else f"{shown}, a {kind}"


def _advice(thing: Leaf) -> str:
    if isinstance(thing, io.IOBase):
        return " Give the path of the file, or open it with ptree.open"
    if isinstance(thing, Iterator):
        return " Give a dict or a list of the arrays that it yields"
    if hasattr(thing, "spec") and not isinstance(thing, type):
        return " Give the parameters of the layer, or layer.spec(x)"
    return " Give a dict of arrays, a Tree, or the path of a file"


class TreeSource(Source):
    """A pytree: its arrays are read where they are."""

    def __init__(self, tree: PyTree):
        self.tree = tree
        self.title = type(tree).__name__
        names = entries(tree)
        has_arrays_alone = all(type(value) in LEAF_TYPES for value in names.values())
        # of most trees: a second walk would take as long as all the rest
        self.values_by_path = names if has_arrays_alone else dict(leaves_of(tree))
        ties = {} if has_arrays_alone else {path: value for path, value in names.items() if isinstance(value, Tie)}
        self.aliases = {
            path: _alias(path, tie, self.values_by_path[tie.source])
            for path, tie in ties.items()
            if tie.source in self.values_by_path
        }
        self.order = [path for path in names if path in self.values_by_path or path in self.aliases]
        self.leaves = {path: _info(path, leaf) for path, leaf in self.values_by_path.items()}

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        return in_chunks(self.part(path).reshape(-1), most)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        leaf = self.values_by_path[path]
        if self.leaves[path].problem:
            raise StructureError(f"{quoted(path)} {self.leaves[path].problem}")
        return host_array(leaf)[index]

    def value(self, path: str) -> object:
        return self.values_by_path[path]


def host_array(leaf: Leaf) -> np.ndarray:
    """The numbers of a leaf as an array of NumPy, without a copy where they are on the CPU; of PRNG keys their words."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if type(leaf).__module__.partition(".")[0] == "torch":
        found = unsaved("", leaf)  # which knows how PyTorch keeps bfloat16
        if isinstance(found, UnsavedLeaf):
            return found.host_array()
    return np.asarray(leaf)


def _alias(path: str, tie: Tie, source: Leaf) -> Alias:
    about = signature(tie.read(shape_only(source)))
    shape = about[0] if isinstance(about, tuple) else None
    has_axes_only = all(transform.axes for transform in tie.via)
    axes = tuple(transform.axes for transform in tie.via) if has_axes_only else None
    return Alias(path, tie.source, tie.shown(), shape, axes)


def _is_array(leaf: Leaf) -> bool:
    return isinstance(signature(leaf), tuple) or isinstance(leaf, (bool, int, float, complex))


def _info(path: str, leaf: Leaf) -> LeafInfo:
    about = signature(leaf)
    if not isinstance(about, tuple):
        return _info_of_no_array(path, leaf)
    shape, dtype = about
    short, count, nbytes = _sizes(shape, dtype)
    if type(leaf) is np.ndarray and not dtype.hasobject:  # most leaves, in half of the time
        return LeafInfo(path, shape, short, count, nbytes)
    problem = _problem(leaf)
    is_declared = problem.startswith(_NO_NUMBERS_YET)
    return LeafInfo(path, shape, short, count, nbytes, _trainable(leaf), problem, is_declared)


@lru_cache(maxsize=1024)  # 100,000 leaves have a few shapes
def _sizes(shape: tuple[int, ...], dtype: Hashable) -> tuple[str, int, int]:
    """The dtype in short, how many numbers an array has, and how many bytes they take."""
    count = math.prod(shape)
    return short_dtype(dtype), count, count * getattr(dtype, "itemsize", 0)


def _info_of_no_array(path: str, leaf: Leaf) -> LeafInfo:
    is_number = isinstance(leaf, (bool, int, float, complex))
    problem = "" if is_number else f"holds no numbers: it is {describe(leaf)}"
    if isinstance(leaf, int) and leaf.bit_length() > _MOST_BITS:
        problem = f"is a whole number of {leaf.bit_length()} bits, too large for a floating-point number"
    return LeafInfo(path, None, type(leaf).__name__, int(is_number), 0, None, problem)


_MOST_BITS = 1023
"""Of a whole number that is still less than the largest floating-point number."""
_NO_NUMBERS_YET = "has no numbers yet"


def _trainable(leaf: Leaf) -> bool | None:
    if type(leaf) in LEAF_TYPES and type(leaf) is not Param:  # arrays, which do not say it
        return None
    trainable = getattr(leaf, "trainable", None)  # of a Param, and of variables of other libraries
    return trainable if isinstance(trainable, bool) else None


def _problem(leaf: Leaf) -> str:
    """Why a leaf has no numbers that can be read; "" where it has."""
    if isinstance(leaf, Tracer):
        return "is a tracer: look at it outside of jax.jit"
    if isinstance(leaf, jax.Array):
        if leaf.is_deleted():
            return "is deleted: it was donated to a jitted function"
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return "is in part in other processes"
        return ""
    if isinstance(leaf, np.ndarray) and leaf.dtype.hasobject:
        return "holds Python objects, which are not read"
    has_numbers = hasattr(leaf, "__array__") or type(leaf).__module__.partition(".")[0] == "torch"
    return "" if has_numbers else f"{_NO_NUMBERS_YET}: it is a {type(leaf).__name__}"


class SavedTreeSource(Source):
    """A checkpoint by Orbax, which is read leaf by leaf."""

    is_file = True

    def __init__(self, saved: SavedTree, title: str, about: str):
        self.saved, self.title, self.about = saved, title, about
        self.files = (saved.path,)
        ties = stored_ties(saved.ties)
        self.order = [name for name in saved.facts.order if name in saved.leaves or name in ties]
        self.leaves = {name: info_of(name, saved.leaves[name]) for name in self.order if name not in ties}
        self.aliases = {name: alias_of(name, ties[name], self.leaves) for name in self.order if name in ties}

    def chunks(self, path: str, most: int = CHUNK) -> Iterator[np.ndarray]:
        return in_chunks(self.part(path).reshape(-1), most)

    def part(self, path: str, index: Any = ...) -> np.ndarray:
        read = self.saved.read([self.saved.leaves[path]])
        if read.damaged:
            error = self.saved.damage_error(read.damaged)
            error.damage = MISMATCH
            raise error
        return host_array(read.values[path])[index]

    def has_checksum(self, path: str) -> bool:
        return self.saved.leaves[path].checksum != ""

    def close(self) -> None:
        self.saved.close()
