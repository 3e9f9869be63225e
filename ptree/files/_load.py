"""Load a tree from a safetensors file, with a report: open what is saved, select and rename leaves, read, fill `like`, draw
missing ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import jax
from jax.sharding import Mesh, Sharding

from .._draw import init
from .._edit import Selector, leaves, map_leaves, paths, replace_leaves
from .._edit import rename as rename_leaves
from .._edit import select as select_leaves
from .._errors import FileError, InitError, PtreeError
from .._shardings import Plan, Shardings
from .._stored.locations import checked_location, is_orbax
from .._stored.urls import is_url, shown_url
from .._tree import Leaf, PyTree, Tree, same
from .._words import listed, name_of, quoted, with_fixes
from ._block_reading import read_shardings
from ._foreign_tree import ForeignTree, is_foreign_file
from ._kernels import warn_of_kernels
from ._kinds import adopted, for_like, refuse_unreadable
from ._leaf_targets import all_placed, shapes_of, targets_by_rules, targets_of_like
from ._open import open_file
from ._orbax import OrbaxCheckpoint, is_checkpoint_at_url, is_tree_of_orbax, refuse_folder_of_checkpoints
from ._saved_tree import Compare, SavedTree
from ._template import Allowed, Fit, Report, describe_broken_tie, fit

Renames: TypeAlias = Mapping[Any, str]
"""Pattern or compiled regex -> new path."""


def load(
    path: str | os.PathLike[str],
    like: PyTree = None,
    *,
    select: Selector | None = None,
    rename: Renames | None = None,
    cast: bool = False,
    missing: Literal["error", "keep", "init"] = "error",
    mismatch: Literal["error", "keep"] = "error",
    key: jax.Array | None = None,
    shardings: Shardings | Callable[[PyTree], Shardings] | None = None,
    mesh: Mesh | None = None,
    verify: bool | None = None,
    mmap: bool = False,
) -> PyTree:
    """Load a tree from a safetensors file: just what was saved, with its ties, order and types.

    With `like` (parameters, a spec, an abstract tree, any pytree) the file's leaves are put into the containers
    and ties of `like`, and every leaf must be there with the same shape and dtype. Where only one of the two is
    tied: names that the file lacks are filled from their source, and names that `like` ties must be equal in the
    file. A stack loads into single layers, and the other way round. Files by other programs load too; their names
    are the paths. Every leaf is compared with its checksum. A leaf that another program calls a weight and `rename` calls a
    kernel may be transposed: a warning says so where its shape does not tell.

    >>> import tempfile, ptree as pt, jax, jax.numpy as jnp
    >>> file = tempfile.mkdtemp() + "/mlp.safetensors"
    >>> _ = pt.save(file, {"enc": {"bias": jnp.zeros(8)}})
    >>> pt.load(file, like={"enc": {"bias": jax.ShapeDtypeStruct((8,), jnp.float32)}})["enc"]["bias"].shape
    (8,)

    Args:
        path: the file; a folder with `model.safetensors` or an index of shards; a checkpoint by Orbax, of `Checkpoints`
            or another program; or a file of another framework, such as PyTorch's `.pt`, which is read without it. A URL of
            a safetensors file, an index or a folder is read by ranges, as in `ptree.open`.
        like: the template that the leaves are put into.
        select: load only these leaves of the file.
        rename: the names of the file -> those of `like`, as in `ptree.rename`; applied after `select`.
        cast: convert floats to the floats of `like`, whole numbers to its whole numbers, complex numbers to its complex
            ones. Rounding and underflow are not reported; a value that the new dtype does not hold, such as 1e5 in float16
            or infinity in float8_e4m3fn, is an error.
        missing: for leaves that the file does not have, "keep" the values of `like`, or draw them ("init") as its spec
            says, with `key`. What no file holds, such as the activation function of a module, is always kept.
        mismatch: for leaves of another shape or dtype in the file, "keep" the values of `like`.
        key: a PRNG key, for `missing="init"`: values are bit for bit what `ptree.init` would draw.
        shardings: where the leaves of the tree that comes out go, as in `ptree.init`, with `mesh`; or a function of this tree, with
            shapes as leaves, that gives them; by default each goes where that of `like` was put. Of a leaf that is sharded over devices each process reads only the bytes of its
            own parts, which are not compared with checksums by default.
        mesh: the mesh of the PartitionSpecs of `shardings`; by default that of `jax.set_mesh`.
        verify: whether to compare with the checksums; by default the header and, without `mmap`, all leaves that are read
            whole. True compares those that are sharded too, for which each process reads all of them; False nothing.
        mmap: on a CPU, arrays use the mapped memory of the file, as in `ptree.open`.

    Returns:
        A Tree; with `like`, its kind of containers. Arrays are on JAX's default device; what was saved
        from NumPy comes back as NumPy, unless `shardings` places it.

    Raises:
        FileError: no safetensors file, one that stops half-way, damaged leaves, leaves of dtypes that this ptree does not
            know, two values for what is tied in `like`, or values that `cast` would lose.
        StructureError: leaves that are missing, unexpected, misshapen or mistyped; it lists all of them.
        PatternError: a selector, a rule or a name to be renamed that matches nothing.
        InitError: a sharding that does not fit its leaf.
        OSError: the file is not there or cannot be read.
    """
    tree, _ = load_report(
        path, like, select=select, rename=rename, cast=cast, missing=missing, mismatch=mismatch, key=key,
        shardings=shardings, mesh=mesh, verify=verify, mmap=mmap,
    )  # fmt: skip
    return tree


def load_report(
    path: str | os.PathLike[str],
    like: PyTree = None,
    *,
    select: Selector | None = None,
    rename: Renames | None = None,
    cast: bool = False,
    missing: Literal["error", "keep", "init"] = "error",
    mismatch: Literal["error", "keep"] = "error",
    key: jax.Array | None = None,
    shardings: Shardings | Callable[[PyTree], Shardings] | None = None,
    mesh: Mesh | None = None,
    verify: bool | None = None,
    mmap: bool = False,
) -> tuple[PyTree, Report]:
    """Load as `ptree.load` does, and report what became of each leaf.

    >>> import tempfile, ptree as pt, jax.numpy as jnp
    >>> file = tempfile.mkdtemp() + "/mlp.safetensors"
    >>> _ = pt.save(file, {"enc": {"bias": jnp.zeros(8)}})
    >>> model = pt.Tree({"encoder": {"bias": jnp.ones(8)}, "head": {"bias": jnp.ones(2)}})
    >>> tree, report = pt.load_report(file, model, rename={"enc": "encoder"}, missing="keep")
    >>> print(report)
    loaded 1: ['encoder/bias']
    kept 1: ['head/bias']

    Args:
        path, like, select, rename, cast, missing, mismatch, key, shardings, mesh, verify, mmap: as for `ptree.load`.

    Returns:
        The tree; and a report with the lists of paths `loaded`, `cast`, `kept`, `drawn` and `dropped`.

    Raises:
        FileError, StructureError, PatternError, InitError, OSError: as from `ptree.load`.
    """
    allowed = Allowed(cast, missing, mismatch)
    # without a template these options would do nothing, in silence
    if like is None and allowed != Allowed():
        raise FileError("cast, missing and mismatch say how a file is to fit a `like`: give like=")
    location = checked_location(path, "load(path, like)")
    name = shown_url(location)
    if isinstance(like, (str, os.PathLike)):
        raise FileError(f"load(path, like): like= is a tree, and select= takes a pattern; got {quoted(like)}")
    compare = _compared(verify, mmap)
    with closing(_open_saved(location, verify is not False, mmap, compare)) as saved:
        content = _content(saved, compare)
        chosen = _chosen(content.tree, select, rename)
        with _prefixed(f"cannot load {name!r}"):
            refuse_unreadable(leaf for _, leaf in leaves(chosen))
        if isinstance(shardings, Plan) and select is not None:
            shardings = shardings.of_part(
                chosen if like is None else like
            )  # a plan of all leaves is one of some of them
        targets = _targets(chosen, like, shardings, mesh)
        loaded = _read(saved, chosen, like, targets, compare)
    loaded = replace(loaded, damaged=[*content.damaged, *loaded.damaged], dropped=_not_in(chosen, content.tree))
    attempt = f"cannot load {name!r}"
    if like is not None:
        fitted = _into_like(f"{attempt} into `like`", loaded, like, allowed, key, targets)
        warn_of_kernels(saved, chosen, is_fitted=True)
        return fitted
    if loaded.damaged:
        raise saved.damage_error(loaded.damaged)
    _refuse_broken_ties(attempt, content.broken_ties)
    placed = all_placed(dict(leaves(loaded.tree)), targets)
    warn_of_kernels(saved, chosen, is_fitted=False)
    return replace_leaves(loaded.tree, placed), Report(loaded=paths(chosen), dropped=loaded.dropped)


def _compared(verify: bool | None, mmap: bool) -> Compare:
    """Which leaves `load` compares with their checksums, by its options `verify` and `mmap`."""
    if verify:
        return "all leaves"
    # with mmap, hashing would read the whole file, which mapping is to avoid
    if verify is False or mmap:
        return "no leaves"
    return "whole leaves"


def _open_saved(path: str, verify: bool, mmap: bool, compare: Compare) -> SavedTree:
    """Open the tree that is saved at a path: one file, shards, a file of another framework, or a checkpoint by Orbax."""
    if is_url(path):
        if not mmap and is_checkpoint_at_url(path):
            return OrbaxCheckpoint(path, verify)
        return open_file(path, verify=verify, mmap=mmap)
    if not (is_orbax(path) or is_tree_of_orbax(path)):
        refuse_folder_of_checkpoints(path)
        if is_foreign_file(path):
            return ForeignTree(path, verify=compare != "no leaves", mmap=mmap)
        return open_file(path, verify=verify, mmap=mmap)
    if mmap:
        raise FileError(f"cannot load {path!r} with mmap=True: Orbax wrote it, and its arrays are compressed")
    return OrbaxCheckpoint(path, verify)


@dataclass(frozen=True)
class _Content:
    """The tree of an open file, unread; aliases whose values in the file differ from their source are leaves in it."""

    tree: Tree
    broken_ties: Sequence[str]
    """A sentence for each of these aliases."""
    damaged: Sequence[str]
    """Aliases that were compared with their source, and are damaged."""


def _content(saved: SavedTree, compare: Compare) -> _Content:
    """Compare aliases that have tensors in the file, as `expand_ties` writes them, with the leaves that they are tied to."""
    broken: dict[str, str] = {}
    damaged: list[str] = []
    for alias, tie in saved.ties.items():
        if alias not in saved.leaves or tie.source not in saved.leaves:
            continue
        if saved.leaves[alias].unreadable or saved.leaves[tie.source].unreadable:
            continue
        read = saved.read([saved.leaves[alias], saved.leaves[tie.source]], compare=compare)
        if alias in read.damaged:
            damaged.append(alias)
        if read.damaged:
            continue  # a damaged source is listed when it is read with the other leaves
        value, expected = read.values[alias], tie.read(read.values[tie.source])
        # another program may have changed one of the two: loading either value alone could be wrong
        if not same(expected, value):
            broken[alias] = describe_broken_tie(alias, value, tie.shown(), expected, "its metadata", "its tensors")
    return _Content(saved.stored_tree(apart=broken), [*broken.values()], damaged)


def _chosen(tree: Tree, select: Selector | None, rename: Renames | None) -> Tree:
    """Select the leaves of the file to load, and rename them."""
    chosen = tree if select is None else select_leaves(tree, select)
    return chosen if rename is None else rename_leaves(chosen, rename)


def _targets(
    chosen: Tree, like: PyTree, shardings: Shardings | Callable[[PyTree], Shardings] | None, mesh: Mesh | None
) -> dict[str, Sharding]:
    """Path in the loaded tree -> the sharding that the leaf is placed by."""
    tree = chosen if like is None else like
    if callable(shardings):
        shardings = _called(shardings, shapes_of(tree))
    if shardings is not None:
        return targets_by_rules(tree, shardings, mesh)
    return {} if like is None else targets_of_like(like)


def _called(function: Callable[[PyTree], Shardings], shapes: PyTree) -> Shardings:
    """What a function given as `shardings=` returns for the shapes of a file.

    Raises:
        InitError: it returned None, as a function without `return` does.
    """
    shardings = function(shapes)
    if shardings is None:
        raise InitError(
            f"load(shardings={name_of(function)}): expected the function to return shardings or rules, got None"
        )
    return shardings


@dataclass(frozen=True)
class _Loaded:
    """The tree that was read from a file, not fitted to `like` yet."""

    tree: Tree
    damaged: list[str]
    dropped: list[str] = field(default_factory=list)
    """Leaves of the file that were not chosen."""


def _read(saved: SavedTree, chosen: Tree, like: PyTree, targets: Mapping[str, Sharding], compare: Compare) -> _Loaded:
    """Read the selected leaves; a leaf that is to be sharded is read in parts, if possible."""
    stored = dict(leaves(chosen))
    shapes = {path: leaf.shape for path, leaf in stored.items()}
    if like is not None:
        stored = {path: for_like(leaf) for path, leaf in stored.items()}
        shapes = {path: tuple(leaf.shape) for path, leaf in leaves(like) if path in targets}
    read = saved.read(stored.values(), read_shardings(stored, shapes, targets), compare)
    tree = map_leaves(chosen, lambda _, leaf: read.values[leaf.name])
    return _Loaded(tree, read.damaged)


def _not_in(chosen: Tree, tree: Tree) -> list[str]:
    """List the leaves of the file that were not selected, under their names in the file."""
    return sorted({*paths(tree)} - {leaf.name for _, leaf in leaves(chosen)})


def _refuse_broken_ties(attempt: str, broken_ties: Sequence[str]) -> None:
    if broken_ties:
        fix = "Load them with a `like` in which they are apart"
        raise FileError(f"{attempt}: {with_fixes(broken_ties, [fix])}")


@contextmanager
def _prefixed(attempt: str) -> Iterator[None]:
    """Let ptree's errors begin with the attempt: "cannot load 'm.safetensors': ..."."""
    try:
        yield
    except PtreeError as error:
        raise type(error)(f"{attempt}: {error}") from None


def _into_like(
    attempt: str,
    loaded: _Loaded,
    like: PyTree,
    allowed: Allowed,
    key: jax.Array | None,
    targets: Mapping[str, Sharding],
) -> tuple[PyTree, Report]:
    """Fit what was read from the file into `like`, and report; or raise one error that lists all problems."""
    with _prefixed(attempt):
        plan = fit(loaded.tree, like, allowed, loaded.dropped)
        if plan.report.drawn and key is None:
            raise FileError(f"missing='init' draws {listed(plan.report.drawn)}, for which it needs key=")
    error = plan.error(attempt, loaded.damaged)
    if error is not None:
        raise error
    with _prefixed(attempt):
        return _filled(like, plan, key, targets), plan.report


def _filled(like: PyTree, plan: Fit, key: jax.Array | None, targets: Mapping[str, Sharding]) -> PyTree:
    """Fill `like` with loaded, kept and drawn leaves, placed on their devices."""
    template = dict(leaves(like))
    loaded = {path: adopted(value, template[path], path) for path, value in plan.values.items()}
    kept = {path: template[path] for path in plan.report.kept}
    drawn = _drawn(like, plan.report.drawn, key)
    return replace_leaves(like, all_placed({**loaded, **kept, **drawn}, targets))


def _drawn(like: PyTree, names: Sequence[str], key: jax.Array | None) -> Mapping[str, Leaf]:
    """Draw the leaves of a spec that the file does not have."""
    if not names or key is None:
        return {}
    # a value depends on key and path alone, so that a part of the spec draws what the whole would
    among = {*names}
    part = select_leaves(like, lambda path, _: path in among)
    return dict(leaves(init(part, key)))
