"""Plan: what a table would do with a source, array by array, what is left over on either side, and why it cannot be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import numpy as np

from ..._edit import Differences, structure_error, unflatten
from ..._errors import PtreeError, StructureError
from ..._paths.dotted_names import with_slashes
from ..._tree import PyTree, Tree
from ..._words import listed, printable, quoted
from ...files._mixed_layers import layers_of_one_dtype
from ...files._template import Allowed, fit, likely_fix_of_axes
from ...look._wrapping import wrapped
from .._named_arrays import NamedArrays
from .layers_without_biases import fix_of_biases
from .matches import Matches
from .numbered_modules import fix_of_numbers
from .partial_layers import PartialLayers, partial_layers
from .plan_text import misfit_lines, step_lines
from .row import Row
from .source_steps import steps_of_sources
from .square_kernels import square_kernels
from .stack_layers import misfits_of_layers
from .step import Step
from .target_names import TargetNames
from .way_back import not_written_back
from .written_steps import (
    idle_constants,
    idle_rows_of_carried,
    problems_of_carried,
    steps_of_carried,
    steps_of_constants,
)


@dataclass(frozen=True)
class Plan:
    """What a table would do with a source. Nothing is read or converted yet.

    >>> import numpy as np
    >>> from ptree import convert
    >>> table = convert.Table({"0.weight": ("dense/kernel", convert.linear)})
    >>> plan = table.plan({"0.weight": np.ones((8, 4))}, like={"dense": {"kernel": np.ones((4, 8))}})
    >>> plan.ok, plan.missing
    (True, ())

    `print(plan)` shows each array: its name and shape, the name and shape it gets, and the operation; then what is left over.
    """

    steps: tuple[Step, ...]
    """What happens to each array: its names in the source, its names in the target, the operation."""
    title: str
    """The source for messages."""
    carried: tuple[str, ...] = ()
    """Names in the source that are kept to be written back."""
    unused: tuple[str, ...] = ()
    """Names in the source for which no row is there."""
    idle_rows: tuple[str, ...] = ()
    """Rows that match nothing: right for what may be absent, and what a misspelt row looks like."""
    partial_layers: tuple[PartialLayers, ...] = ()
    """Without `like`, arrays that a row gives for other layers than any other row: right for some models, and what a lost array
    looks like."""
    kept_ties: tuple[str, ...] = ()
    """Sentences for arrays that are kept and are another name of one that is converted."""
    missing: tuple[str, ...] = ()
    """Leaves of `like` that no array fills."""
    problems: tuple[str, ...] = ()
    """Why the plan cannot be carried out, a sentence each, beside unused and missing names and misfits."""
    differences: Differences = field(default=Differences(), repr=False)
    """In what the results differ from `like`."""
    rows: tuple[Row, ...] = field(default=(), repr=False)
    """The rows of the table."""
    expected: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Path -> what `like` has there, for messages."""
    got: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Path -> what the table would give there, for messages."""

    __module__ = "ptree.convert"

    @cached_property
    def not_written_back(self) -> tuple[str, ...]:
        """Names in the source that `table.inverse` would not give back: an earlier row takes what they became."""
        return not_written_back(self.rows, self.steps)

    @property
    def ok(self) -> bool:
        """Whether `apply` would convert the source; only values may still not fit, such as of two names that are tied."""
        return not (self.unused or self.problems or self.differences)

    def text(self, width: int = 80) -> str:
        """The plan for people: a line for each array, folded where a row does the same to several; then what is left over.

        Args:
            width: the most characters of a line; from 40 on it reads well.
        """
        leftovers = [part for line in self._leftovers() for part in wrapped(line, width)]
        return "\n".join([*step_lines(self.steps, width), *leftovers])

    def _leftovers(self) -> list[str]:
        """Lines for what is left over on either side, and for what cannot be done."""
        lines: list[str] = []
        for title, names in (
            ("kept to be written back", self.carried),
            ("not written back by the inverse under this name", self.not_written_back),
            ("left over in the source", self.unused),
            ("rows that match nothing", self.idle_rows),
            ("missing for `like`", self.missing),
            ("not in `like`", self.differences.unexpected),
        ):
            if names:
                lines.append(f"{title}, {len(names)}: {listed(names)}")
        lines += [f"in some layers only: {printable(partial.text)}" for partial in self.partial_layers]
        lines += map(printable, self.kept_ties)
        different = (*self.differences.misshapen, *self.differences.mistyped)
        lines += misfit_lines(self.steps, different, self.expected, self.got)
        return [*lines, *map(printable, self.problems)]

    def __str__(self) -> str:
        return self.text()

    def _fixes(self) -> list[str]:
        """What may mend the table."""
        fixes: list[str] = []
        if self.unused and self._matches_nothing:
            expected = [pattern.text for row in self.rows for pattern in row.sources]
            fixes.append(
                f"No row matches a name of the source: they are for {listed(expected)}. For a table of layer_table, names="
                ' says what layers are called there, such as names={"": "model"}; names such as layers/dense/vars/0 do not tell the'
                " layer: let Keras save a .keras instead."
            )
        elif self.unused:
            fixes.append("A row `name: carry` keeps an array to write it back, `name: fill(0)` leaves it out.")
        fixes += self._fix_of_dots()
        of_numbers = fix_of_numbers([row for row in self.rows if row.text in self.idle_rows], self.unused)
        if of_numbers:
            fixes.append(of_numbers)
        of_biases = fix_of_biases(self.missing, self.expected)
        if of_biases:
            fixes.append(of_biases)
        of_axes = likely_fix_of_axes(self.differences, self.expected, self.got)
        if of_axes:
            fixes.append(of_axes)
        return fixes

    def _fix_of_dots(self) -> list[str]:
        """What may mend a row that is written with dots, for a source in which a dot does not separate segments."""
        patterns = [pattern for row in self.rows for pattern in row.sources]
        for name in self.unused:
            path = with_slashes(name)
            if path != name and any(pattern.read(path) is not None for pattern in patterns):
                shown = name.replace(".", "?")
                return [
                    f"Other names in the source have slashes, so that a dot in {quoted(name)} is a character of it: a row of this"
                    f" very name takes it, or a pattern such as {quoted(shown)}."
                ]
        return []

    @property
    def _matches_nothing(self) -> bool:
        return bool(self.rows) and len(self.idle_rows) == len(self.rows)

    def error(self) -> StructureError | None:
        """One error that lists all problems; None if there is none."""
        if self.ok:
            return None
        problems = [f"no row takes {quoted(name)} of the source" for name in self.unused]
        fix = " ".join(self._fixes())
        return structure_error(
            f"cannot convert {self.title}", self.differences, self.expected, self.got,
            sides=(" in `like`", " from the source"), ties=[*self.problems, *problems], fix=fix,
        )  # fmt: skip


def planned(
    rows: Sequence[Row],
    arrays: NamedArrays,
    like: PyTree,
    carried: Mapping[str, np.ndarray] | None = None,
    *,
    cast: bool = False,
) -> Plan:
    """Plan the conversion of a source by rows, into `like` if that is given."""
    names = TargetNames(rows, like)
    matches = Matches(rows, arrays)
    of_sources = steps_of_sources(matches, names)
    of_carried = steps_of_carried(rows, names, carried or {})
    given = {target for step in (*of_sources.steps, *of_carried.steps) for target in step.targets}
    constants = steps_of_constants(rows, names, given)
    steps = (*of_sources.steps, *of_carried.steps, *constants)
    problems = (
        *of_sources.problems,
        *of_carried.problems,
        *problems_of_carried(rows, names, carried),
        *names.problems(),
        *_clashes(steps),
        *square_kernels(steps),
    )
    plan = Plan(
        steps,
        arrays.title,
        carried=tuple(step.sources[0].name for step in steps if step.operation.is_carried),
        unused=matches.unused(),
        idle_rows=(*matches.idle_rows(), *idle_rows_of_carried(rows, names, carried), *idle_constants(rows, names)),
        problems=problems,
        partial_layers=partial_layers(steps) if like is None else (),
        kept_ties=_kept_ties(steps, arrays),
        rows=tuple(rows),
    )
    return plan if like is None else _compared(plan, like, cast)


def _clashes(steps: Sequence[Step]) -> list[str]:
    """A sentence for each name that two steps would give, or one step twice."""
    first: dict[str, Step] = {}
    problems: list[str] = []
    for step in steps:
        for target in dict.fromkeys(step.targets):
            if step.targets.count(target) > 1:
                problems.append(f"several arrays of the row {step.row.text} become {quoted(target)}")
            other = first.setdefault(target, step)
            if other is not step:
                problems.append(f"{_shown_sources(other)} and {_shown_sources(step)} both become {quoted(target)}")
    return problems


def _kept_ties(steps: Sequence[Step], arrays: NamedArrays) -> tuple[str, ...]:
    """A sentence for each array that is kept and has the very same numbers as one that is converted."""
    converted = {source.path for step in steps if not step.operation.is_carried for source in step.sources}
    sentences: list[str] = []
    for step in steps:
        if step.operation.is_carried and step.sources[0].same_as in converted:
            kept, other = step.sources[0].name, arrays.by_path[step.sources[0].same_as].name
            sentences.append(
                f"{quoted(kept)} is tied to {quoted(other)} in the source, and would be written back as it was, whatever became of"
                f" {quoted(other)}: it needs no row"
            )
    return tuple(sentences)


def _shown_sources(step: Step) -> str:
    return ", ".join(quoted(source.name) for source in step.sources) or f"the row {step.row.text}"


def _compared(plan: Plan, like: PyTree, cast: bool) -> Plan:
    """The plan with what its results lack and differ in beside `like`."""
    flat: dict[str, jax.ShapeDtypeStruct] = {}
    for step in plan.steps:
        for target, (shape, dtype) in zip(step.targets, step.outcome, strict=False):
            flat[target] = jax.ShapeDtypeStruct(shape, dtype)
    try:
        got = tree_of_results(flat)
        fitted = fit(layers_of_one_dtype(got, like) if cast else got, like, Allowed(), origin="the source")
    except PtreeError as error:
        return replace(plan, problems=(*plan.problems, str(error)))
    different = fitted.differences
    if cast:  # what a cast makes equal, `apply` finds out
        different = different._replace(mistyped=())
    of_layers = misfits_of_layers(flat, like, (*different.missing, *different.misshapen))
    problems = (*plan.problems, *(problem for problem in fitted.problems if not cast), *of_layers)
    return replace(
        plan,
        problems=problems,
        missing=tuple(different.missing),
        differences=different,
        expected=fitted.expected,
        got=fitted.values,
    )


def tree_of_results(flat: Mapping[str, PyTree]) -> Tree:
    """The tree of a flat dict of results.

    Raises:
        PathError, StructureError: their names make no tree.
    """
    return unflatten(flat) if flat else Tree()
