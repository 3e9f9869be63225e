"""Table: a conversion between the names of two frameworks that is planned, applied and inverted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ..._errors import PatternError
from ..._tree import PyTree
from ..._words import describe, lines, quoted
from .._framework_states import framework_state
from .._named_arrays import opened_arrays
from .apply import applied
from .conversion_plan import Plan, planned
from .row import Row, Source, Target, parsed_row
from .table_file import read_rows, write_rows
from .tied_template import tied_template


class Table:
    """A conversion as a table: the names of a source -> the names of a target, with an operation where layouts differ.

    >>> import numpy as np
    >>> from ptree import convert
    >>> table = convert.Table({
    ...     "layers.*.weight": ("blocks/*/kernel", convert.linear),
    ...     "layers.*.bias": "blocks/*/bias",
    ... })
    >>> source = {"layers.0.weight": np.ones((8, 4), "f4"), "layers.0.bias": np.zeros(8, "f4")}
    >>> params = table.apply(source)
    >>> {name: array.shape for name, array in params.items()}
    {'blocks/0/kernel': (4, 8), 'blocks/0/bias': (8,)}
    >>> table.inverse.apply(params)["layers.0.weight"].shape
    (8, 4)

    Patterns are anchored at both ends, and the wildcards of a row correspond one to one, in order; braces with as many
    choices on both sides correspond by position: `"{query,key}.weight": "{q,k}/kernel"`. The first row that matches a name
    takes it. Segments are joined by dots or by slashes; without `like`, the names on the right are all written in one of these
    ways. A row may have several names on the left, as a tuple, or on the right, with an operation that joins or splits:
    `"in_proj_weight": ("q/kernel", "k/kernel", "v/kernel", split(3) >> linear)`.

    Args:
        rows: a dict, or (left, right) pairs: a pattern or a tuple of patterns -> a pattern, or a tuple of patterns with the
            operation last; `carry` and `fill(...)` alone, for what has no place on the right.

    Raises:
        PatternError: a malformed pattern, wildcards that do not correspond, names that do not fit the operation; all of them.
    """

    __module__ = "ptree.convert"

    def __init__(self, rows: Mapping[Source, Target] | Iterable[tuple[Source, Target]]):
        if not isinstance(rows, (Mapping, Iterable)) or isinstance(rows, str):
            raise PatternError(f"a table is a dict, names of the source -> names of the target; got {describe(rows)}")
        pairs = [*rows.items()] if isinstance(rows, Mapping) else _pairs(rows)
        parsed: list[Row] = []
        problems: list[str] = []
        for left, right in pairs:
            try:
                parsed.append(parsed_row(left, right))  # pyright: ignore[reportArgumentType]  # an Iterable may be a Mapping
            except PatternError as error:
                problems.append(str(error))
        if problems:
            raise PatternError(lines(problems))
        self._rows = tuple(parsed)

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> Table:
        """A table of rows that other tables have checked already.

        Args:
            rows: rows of other tables.
        """
        table = cls(())
        table._rows = tuple(rows)
        return table

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows, for other parts of this package; `for row in table` gives them as text."""
        return self._rows

    @property
    def inverse(self) -> Table:
        """The table of the way back. What goes one way is marked in its plan."""
        return self.of_rows(row.inverse for row in self._rows)

    def plan(self, source: PyTree, like: PyTree = None, *, carried: Mapping[str, np.ndarray] | None = None) -> Plan:
        """What the table would do with a source, before anything is read: print it.

        >>> import numpy as np, ptree as pt
        >>> from ptree import convert
        >>> table = convert.Table({"*.weight": ("*/kernel", convert.linear)})
        >>> print(table.plan({"0.weight": np.ones((8, 4), "f4")}, like={"0": {"kernel": pt.Param((4, 8))}}))
        0.weight  f32[8,4]  ->  0/kernel  f32[4,8]  linear

        Args:
            source: a tree, a spec, a state dict, a module of PyTorch or Keras, an open file, or the path of a file.
            like: the tree or spec to be filled; without it, the names on the right are not compared with any.
            carried: as in `apply`.

        Raises:
            FileError, OSError: the path of a file that cannot be read.
        """
        template = tied_template(self._rows, like)
        with opened_arrays(source) as arrays:
            return planned(self._rows, arrays, template.like, carried)

    def apply(
        self,
        source: PyTree,
        like: PyTree = None,
        *,
        cast: bool = False,
        carried: Mapping[str, np.ndarray] | None = None,
    ) -> PyTree:
        """Convert a source: the tree `like` with the arrays of the source, or without `like` a flat dict, name -> array.

        A stack in `like` is filled from single layers, and the other way round. Arrays that the operations do not change are not
        copied without `like`; with it they come as the leaves of `like` are: on JAX's default device, or as NumPy's.

        Args:
            source: as in `plan`.
            like: the tree or spec to be filled. For a module of PyTorch, Keras or nnx the result is its state, to be loaded into
                it: a `state_dict`, a dict of `variable.path`, an `nnx.State`. For one of Equinox, or a pair with its state, it
                is a new one.
            cast: convert floats to the floats of `like`, whole numbers to its whole numbers; a value that the new dtype does not
                hold is an error.
            carried: the arrays that the inverse of this table kept, `table.carried(source)`, for rows of `carry`; `{}` leaves
                them out.

        Raises:
            StructureError: one error lists all of these, and nothing is converted:
                names without a row, or two arrays for one name;
                arrays of `carry` that are not given;
                leaves of `like` without an array, or of another shape or dtype;
                two values for what is tied in `like`.
            FileError, OSError: a file, or an array in it, that cannot be read.

        Warns:
            UserWarning: without `like`, arrays in `carried` for some layers only, of those that the other rows give; or a constant
                of `fill` whose name has a wildcard that may stand for anything, so that it is not written.
        """
        template = tied_template(self._rows, like)
        with opened_arrays(source) as arrays:
            values = applied(self._rows, arrays, template.like, cast=cast, carried=carried)
        values = template.completed(values)
        state = framework_state(like)
        return values if state is None else state.filled(values)

    def carried(self, source: PyTree) -> dict[str, np.ndarray]:
        """The arrays that rows of `carry` keep, by their names in the source, to be written back by `inverse.apply`.

        Args:
            source: as for `plan`.
        """
        with opened_arrays(source) as arrays:
            kept = planned(self._rows, arrays, None, {}).carried
            by_name = {array.name: array for array in arrays.by_path.values()}
            return {name: by_name[name].fetch() for name in kept}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table as JSON: a list of rows `{"from": ..., "to": ..., "operation": "linear >> heads(12)"}`.

        Args:
            path: the file.

        Raises:
            OSError: the file cannot be written.
        """
        write_rows(os.fspath(path), self._rows)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Table:
        """The table in a JSON file: rows as `save` writes them, or one dict, name -> name. Nothing in it is run.

        Args:
            path: the file.

        Raises:
            PatternError: a row that makes no sense; all of them are listed.
            FileError: no JSON, or of another form.
            OSError: the file is not there or cannot be read.
        """
        return cls(read_rows(os.fspath(path)))

    def __iter__(self) -> Iterator[str]:
        """The rows as text."""
        return (row.text for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __or__(self, other: Table) -> Table:
        """The rows of this table, and after them those of another."""
        if not isinstance(other, Table):
            raise PatternError(f"expected a table after `|`, such as Table({{...}}); got {describe(other)}")
        return self.of_rows((*self._rows, *other._rows))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._rows == other._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return "\n".join(["Table(", *(f"  {row}" for row in self), ")"]) if self._rows else "Table()"


def _pairs(rows: Iterable[tuple[Source, Target]]) -> list[tuple[Source, Target]]:
    """Rows as pairs.

    Raises:
        PatternError: what is no pair.
    """
    pairs = [*rows]
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise PatternError(f"a row is a pair, names of the source and names of the target; got {quoted(pair)}")
    return pairs
