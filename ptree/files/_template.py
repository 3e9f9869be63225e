"""Fit a file to a template, `like`, and report: match stacks, single layers, broken ties, numbers and casts; missing, kept,
likely renamed leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp
import numpy as np

from .._edit import Differences, aliases, differences, get_or, leaves, paths, structure_error
from .._errors import FileError, StructureError
from .._paths import STACKED
from .._tree import Leaf, PyTree, Tree, copied, largest_difference, names_in, same, signature
from .._words import SHOWN, describe, lines, listed, nearest, quoted, short_dtype
from ..stacks import stack, unstack
from ._cast import converted, is_cast_to, is_of_other_kind, lost_value
from ._kinds import NUMBERS, expected, is_static
from ._mixed_layers import is_layer_of, layers_of_one_dtype

_COMPARED = 500
"""Missing names are compared with so many unexpected ones, as each pair takes time and a message should not."""
_RENAMES_SHOWN = 3


@dataclass(frozen=True)
class Report:
    """What became of each leaf of `like`, and of each leaf of the file: lists of paths."""

    loaded: list[str] = field(default_factory=list)
    cast: list[str] = field(default_factory=list)
    """Loaded leaves that were converted from another dtype."""
    kept: list[str] = field(default_factory=list)
    """Leaves whose value in `like` was kept."""
    drawn: list[str] = field(default_factory=list)
    """Leaves that were drawn by the initialisers of `like`."""
    dropped: list[str] = field(default_factory=list)
    """Leaves of the file that were not loaded."""

    def __str__(self) -> str:
        shown = [f"{name} {len(paths)}: {listed(paths)}" for name, paths in vars(self).items() if paths]
        return "\n".join(shown) or "nothing"


@dataclass(frozen=True)
class Allowed:
    """The differences between file and `like` that are allowed: casts, missing leaves, mismatched shapes and dtypes."""

    cast: bool = False
    missing: Literal["error", "keep", "init"] = "error"
    mismatch: Literal["error", "keep"] = "error"

    def __post_init__(self):
        if self.missing not in ("error", "keep", "init") or self.mismatch not in ("error", "keep"):
            raise FileError(
                "expected missing 'error', 'keep' or 'init', mismatch 'error' or 'keep';"
                f" got {self.missing!r}, {self.mismatch!r}"
            )


@dataclass(frozen=True)
class Fit:
    """How a file fits `like`: the value of each leaf of `like`, the report, and all differences."""

    values: Mapping[str, Leaf]
    """Path in `like` -> its value from the file."""
    report: Report
    expected: Mapping[str, Leaf]
    """Path -> what `like` expects in the file, for the leaves that are to come from there."""
    differences: Differences
    problems: Sequence[str]
    """A sentence for each tie of `like` whose names have different values in the file, and for each value lost by a cast."""
    allowed: Allowed
    origin: str = "the file"
    """What the values are from, for messages."""

    def error(self, attempt: str, damaged: Sequence[str]) -> StructureError | FileError | None:
        """One error that lists all problems, or None."""
        problems = [*self.problems]
        if damaged:
            problems.append(f"damaged, their bytes are not what their checksums say: {listed(damaged)}")
        error = None
        if self.differences:
            error = structure_error(
                attempt, self.differences, self.expected, self.values,
                sides=(" in `like`", f" in {self.origin}"), ties=problems, fix=self._likely_fix(),
            )  # fmt: skip
        elif problems:
            error = FileError(f"{attempt}: {lines(problems)}", is_damage=bool(damaged))
        # for callers that recover, as Checkpoints does with the step before
        if error is not None:
            error.damaged = [*damaged]
        return error

    def _likely_fix(self) -> str:
        axes = likely_fix_of_axes(self.differences, self.expected, self.values)
        fixes = [self._likely_fix_of_names(), self._likely_fix_of_dtypes(), axes, self._likely_fix_of_slots()]
        return " ".join(filter(None, fixes))

    def _likely_fix_of_names(self) -> str:
        missing, unexpected = self.differences.missing, self.differences.unexpected
        renamed = _likely_renamed(
            {name: signature(self.expected[name]) for name in missing[:SHOWN]},
            {name: signature(self.values[name]) for name in unexpected},
        )
        if renamed:
            shown = [f"{old!r}: {new!r}" for old, new in renamed.items()][:_RENAMES_SHOWN]
            more = ["..."] if len(renamed) > _RENAMES_SHOWN else []
            return f"Renamed? Then rename={{{', '.join([*shown, *more])}}}."
        if unexpected and not missing:
            return "select= loads a part of the file."
        are_numbers = [isinstance(self.expected[name], NUMBERS) for name in missing]
        if missing and not unexpected and all(are_numbers):
            return "missing='keep' keeps the values of `like`."
        return ""

    def _likely_fix_of_dtypes(self) -> str:
        for name in self.differences.mistyped:
            value, required = self.values[name], self.expected[name]
            if is_cast_to(value, required):
                return "cast=True converts to the dtypes of `like`."
            if self.allowed.cast and is_of_other_kind(value, required):
                return "cast=True changes the width of a dtype, not its kind."
        return ""

    def _likely_fix_of_slots(self) -> str:
        """For the state of a training run whose groups, or other parts of the optimiser, have changed."""
        names = (*self.differences.missing, *self.differences.unexpected)
        if any(name.startswith("optimiser/") for name in names):
            return "Other groups, or another optimiser? ptree.train.load_state loads a run by path, before= the step that made it."
        return ""


def likely_fix_of_axes(different: Differences, required: Mapping[str, Leaf], values: Mapping[str, Leaf]) -> str:
    """The operation that an array may need whose axes are in another order than `like` has them; "" if there is none."""
    for name in different.misshapen:
        got, like = values[name].shape, required[name].shape
        if len(like) < 2 or sorted(got) != sorted(like):
            continue
        operation = "linear" if len(like) == 2 else "conv"
        return (
            f"{quoted(name)} has its axes in another order: a row of ptree.convert.Table puts them right, such as with"
            f" ptree.convert.{operation}, and ptree.convert.suggest proposes one."
        )
    return ""


def fit(got: Tree, like: PyTree, allowed: Allowed, dropped: Collection[str] = (), *, origin: str = "the file") -> Fit:
    """Plan how the leaves of a file fill `like`.

    Args:
        got: what was read.
        like: the template.
        allowed: how the two may differ.
        dropped: leaves of the file that were not read, for the report.
        origin: what the leaves are from, for messages.

    Raises:
        StructureError: single layers that cannot be stacked as they are in `like`.
        FileError: a leaf that is to keep its value in `like` and has none there.
    """
    template = dict(leaves(like))
    matched = _match(got, like, template, allowed.cast, origin)
    different = differences(matched.expected, matched.values)
    kept = _kept(template, different, allowed)
    drawn = [name for name in different.missing if name not in kept] if allowed.missing == "init" else []
    settled = {*kept, *drawn}
    report = Report(
        loaded=[name for name in template if name not in settled],
        cast=[name for name in matched.cast if name not in settled],
        kept=kept,
        drawn=drawn,
        dropped=[*dropped, *(name for name in kept if name in matched.values)],
    )
    lost = _without(matched.lost, settled)
    return Fit(
        _without(matched.values, settled), report, _without(matched.expected, settled),
        different.without(settled), [*matched.broken_ties, *lost.values()], allowed, origin,
    )  # fmt: skip


@dataclass(frozen=True)
class _Matched:
    """Leaves of the file matched with those of `like`, path by path; no difference is judged yet."""

    values: Mapping[str, Leaf]
    expected: Mapping[str, Leaf]
    cast: Collection[str]
    lost: Mapping[str, str]
    """Path -> a sentence about a value that the dtype of `like` does not hold."""
    broken_ties: Sequence[str]


def _match(got: Tree, like: PyTree, template: Mapping[str, Leaf], may_cast: bool, origin: str) -> _Matched:
    """Bring the leaves of the file into the stacks, ties and numbers of `like`, and into its dtypes if that is allowed."""
    tree = _restacked(layers_of_one_dtype(got, like) if may_cast else got, like)
    ties = _fit_ties(like, tree, _leaves_for(template, tree), origin)
    shared = [name for name in template if name in ties.values]
    numbers = {name: _as_number_of(template[name], ties.values[name]) for name in shared}
    to_cast = _dtypes_to_cast_to(template, numbers) if may_cast else {}
    lost = _lost_values(numbers, to_cast, got, origin)
    cast = {name: converted(numbers[name], dtype) for name, dtype in to_cast.items()}
    values = {**ties.values, **numbers, **cast}
    required = {name: _required(expected(leaf), values.get(name)) for name, leaf in template.items()}
    return _Matched(values, required, cast.keys(), lost, ties.problems)


def _kept(template: Mapping[str, Leaf], different: Differences, allowed: Allowed) -> list[str]:
    """List the leaves that keep their value in `like`.

    Raises:
        FileError: there is no value to keep in `like`.
    """
    # what no file holds, such as the activation function of a module, is always kept
    kept = [name for name in different.missing if allowed.missing == "keep" or is_static(template[name])]
    if allowed.mismatch == "keep":
        mismatched = {*different.misshapen, *different.mistyped}
        kept += [name for name in template if name in mismatched]
    valueless = [name for name in kept if not _has_value(template[name])]
    if valueless:
        raise FileError(f"there is no value to keep in `like` for {listed(valueless)}")
    return kept


def _has_value(leaf: Leaf) -> bool:
    """Whether a leaf of `like` has a value that can be kept, and not only a shape and dtype."""
    return hasattr(leaf, "__array__") or not isinstance(signature(leaf), tuple)


def _without(leaves: Mapping[str, Leaf], names: Collection[str]) -> dict[str, Leaf]:
    return {name: leaf for name, leaf in leaves.items() if name not in names}


# ------------------------------------------------------------------------------- stacks


def _restacked(tree: Tree, like: PyTree) -> Tree:
    """Match the stacks of `like`: stack single layers of the file where `like` has a stack, and unstack the other way round."""
    place = _first_apart_in(like, tree)
    while place is not None:  # once an outer stack is unstacked, the inner ones have other paths
        tree = unstack(tree, place)
        place = _first_apart_in(like, tree)
    for place in _stacks(like):
        if _are_layers(names_in(tree.get(place))):
            tree = stack(tree, place)
    return tree


def _first_apart_in(like: PyTree, tree: Tree) -> str | None:
    """Find a stack of the tree of which the template has single layers, the outermost first."""
    for place in _stacks(tree):
        if _are_layers(names_in(get_or(like, place, None))):
            return place
    return None


def _stacks(tree: PyTree) -> list[str]:
    """Find the stacks of a template or file, outer ones first: the inner ones have other paths once these are unstacked."""
    depths: dict[str, int] = {}
    for path in paths(tree, aliases=True):
        segments = path.split("/")
        for at, segment in enumerate(segments):
            if segment == STACKED:
                depths["/".join(segments[:at])] = at
    return sorted(depths, key=lambda place: depths[place])


def _are_layers(names: Collection[str] | None) -> bool:
    """Whether these are the names of single layers that fit a stack, "0", "1", ..."""
    if not names:
        return False
    return {*names} == {str(at) for at in range(len(names))}


# ------------------------------------------------------------------------------- ties


def _leaves_for(template: Mapping[str, Leaf], tree: Tree) -> dict[str, Leaf]:
    """The leaves of the file to match with `like`; for a name that only the file ties, a copy of its value."""
    found = dict(leaves(tree))
    tied = aliases(tree)
    copies = {name: copied(tree[name]) for name in template if name in tied and name not in found}
    return {**found, **copies}


@dataclass(frozen=True)
class _FittedTies:
    """The leaves matched with the ties of `like`, and a sentence for each tie that the values in the file contradict."""

    values: Mapping[str, Leaf]
    problems: list[str]


def _fit_ties(like: PyTree, tree: Tree, values: Mapping[str, Leaf], origin: str) -> _FittedTies:
    """Match the ties of `like`: make one leaf of names that it ties, if their values in the file are equal."""
    in_file, left = aliases(tree), dict(values)
    problems: list[str] = []
    found_under: dict[str, str] = {}  # the source -> the alias that its value was found under
    for alias, tie in aliases(like).items():
        if in_file.get(alias) == tie:  # tied in both, so there is one value
            continue
        if alias in tree and tie.source in left:
            left.pop(alias, None)  # None: the file ties the alias, but to another leaf or through another transform
            expected_value = tie.read(left[tie.source])
            if not same(expected_value, tree[alias]):
                other = found_under.get(tie.source, tie.shown())
                problems.append(describe_broken_tie(alias, tree[alias], other, expected_value, "`like`", origin))
        elif alias in left:  # the file has the value under the alias alone, and `like` under the source
            found_under[tie.source] = alias
            left[tie.source] = tie.write(left.pop(alias))
    return _FittedTies(left, problems)


def describe_broken_tie(name: str, value: Leaf, other: str, other_value: Leaf, tied_in: str, differ_in: str) -> str:
    """Describe a broken tie: two names that are tied in `like` or the metadata, and differ in the file."""
    distance = largest_difference(value, other_value)
    if distance is None:  # they have no numbers to subtract, or not the same shape
        by = ""
    elif np.isnan(distance):
        by = ": one holds NaN"
    else:
        by = f", by up to {distance:.3g}"
    both = f"{quoted(name)}, {describe(value)}, and {quoted(other)}, {describe(other_value)}"
    return f"{both}, are tied in {tied_in} and differ in {differ_in}{by}"


# ------------------------------------------------------------------------------- numbers and dtypes

_NUMBER_DTYPES = {"bool": jnp.bool_, "int": jnp.integer, "float": jnp.floating, "complex": jnp.complexfloating}


def _number_type(leaf: Leaf) -> str | None:
    """Python's type of a number, or of an array of one number, to match with `like`; None for other leaves."""
    if isinstance(leaf, NUMBERS):
        return type(leaf).__name__
    if getattr(leaf, "shape", None) != () or not hasattr(leaf, "dtype"):
        return None
    # by JAX: NumPy does not count bfloat16 as a float
    for name, dtype in _NUMBER_DTYPES.items():
        if jnp.issubdtype(leaf.dtype, dtype):
            return name
    return None


def _are_one_type(like: Leaf, value: Leaf) -> bool:
    """Whether values of file and `like` are both one number of one type, one of them perhaps as an array.

    The first step of training turns a number, such as a step count, into an array.
    """
    number_type = _number_type(like)
    return number_type is not None and number_type == _number_type(value)


def _as_number_of(like: Leaf, value: Leaf) -> Leaf:
    """Turn a number from the file into the dtype of an array of one number in `like`; return other values as they are."""
    if not isinstance(value, NUMBERS) or isinstance(like, NUMBERS):
        return value
    if not _are_one_type(like, value):
        return value
    array = np.asarray(value)
    # rounding a float is what every float32 does; 300 in int8, or 1e5 in float16, is an error instead
    return value if lost_value(array, like.dtype) else array.astype(like.dtype)


def _required(like: Leaf, value: Leaf) -> Leaf:
    """The leaf of `like` that the value in the file must match; for a number, any array of one number of its type will do."""
    is_array_for_number = isinstance(like, NUMBERS) and not isinstance(value, NUMBERS)
    if is_array_for_number and _are_one_type(like, value):
        return value
    return like


def _dtypes_to_cast_to(template: Mapping[str, Leaf], values: Mapping[str, Leaf]) -> dict[str, np.dtype]:
    """The dtypes of `like` that values are converted to, for `cast=True`: floats to floats, whole numbers to whole numbers."""
    dtypes: dict[str, np.dtype] = {}
    for name, value in values.items():
        like = expected(template[name])
        if is_cast_to(value, like):
            dtypes[name] = np.dtype(like.dtype)
    return dtypes


def _lost_values(values: Mapping[str, Leaf], dtypes: Mapping[str, np.dtype], got: Tree, origin: str) -> dict[str, str]:
    """Describe each lost value: a number that its new dtype does not hold."""
    sentences: dict[str, str] = {}
    for name, dtype in dtypes.items():
        lost = lost_value(values[name], dtype)
        if lost:
            in_file = _layer_that_loses(got, name, dtype)
            sentences[name] = (
                f"{quoted(in_file)} has {lost} in {origin}, which {short_dtype(dtype)} in `like` does not hold"
            )
    return sentences


def _layer_that_loses(got: Tree, name: str, dtype: np.dtype) -> str:
    """The path in the file of the first layer of a stack with a value that a dtype does not hold; a leaf that is no stack itself."""
    if STACKED not in name.split("/"):
        return name
    for path, leaf in leaves(got):
        if is_layer_of(path, name) and lost_value(leaf, dtype):
            return path
    return name


# ------------------------------------------------------------------------------- renamed leaves


def _likely_renamed(missing: Mapping[str, object], unexpected: Mapping[str, object]) -> dict[str, str]:
    """Guess leaves that were renamed between file and `like`, at most four of one shape and dtype: old name -> new name."""
    # by shape and dtype: a leaf of another shape cannot be the renamed one
    unused: dict[object, list[str]] = {}
    for name, kind in unexpected.items():
        unused.setdefault(kind, []).append(name)
    renamed: dict[str, str] = {}
    for name, kind in missing.items():
        near = nearest(name, unused.get(kind, [])[:_COMPARED])
        if near is not None:
            renamed[near] = name
            unused[kind].remove(near)  # a leaf has one new name
        if len(renamed) > _RENAMES_SHOWN:  # one more than is shown, so that the message ends in "..."
            break
    return renamed
