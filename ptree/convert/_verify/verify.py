"""verify: run a source and its conversion on the same inputs, pair their values by name, compare them, and explain the first
difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..._errors import StructureError
from ..._words import lines, quoted, suggestion
from .calls import Batch, Failure, batches_of, called
from .causes import cause
from .checklist import facts
from .comparison import Comparison, as_double, compare
from .order_patterns import order_pattern, shape_pattern
from .size_patterns import size_pattern
from .values import OUTPUT, Values, values_of
from .verification import Verification

_GRADUAL = 10
"""A relative error that is at most so many times that of the value before grew gradually."""


def verify(
    f_source: Callable[..., Any],
    f_ours: Callable[..., Any],
    inputs: Any,
    *,
    tolerance: float | None = None,
    names: Mapping[str, str] | None = None,
) -> Verification:
    """Call a source and its conversion on the same inputs, and compare all that they return.

    >>> import numpy as np, jax.numpy as jnp
    >>> from ptree import convert
    >>> x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    >>> convert.verify(np.tanh, jnp.tanh, x).ok
    True
    >>> def source(x):
    ...     h = x * 2
    ...     y = h / np.sqrt(np.mean(h ** 2, -1, keepdims=True) + 1e-6)
    ...     return y, {"double": h, "norm": y}                  # intermediate values, in the order of computation
    >>> def ours(x):
    ...     h = x * 2
    ...     y = h / np.sqrt(np.mean(h ** 2, -1, keepdims=True) + 1e-3)
    ...     return y, {"double": h, "norm": y}
    >>> print(convert.verify(source, ours, x).text(80).split("What is no weight")[0].rstrip())
    not the same: 2 of 3 values differ
    value   shape  dtype    error  relative  cosine  allowed
    ...
    The first that differs in the order of computation: 'norm', ...

    Values are compared by name, in the order of the source: the intermediate ones first. The first that differs is
    described: another shape, another order, a factor, an offset, a few positions, an epsilon, the form of gelu, a square
    kernel that is transposed. These are what the numbers suggest, not proofs. Where something differs, the checklist
    of what is no weight comes last. Equal outputs prove nothing for inputs that leave parts of a model at zero: take real ones.

    Args:
        f_source: a module of PyTorch, which is called without gradients on tensors where it lies, or any function of NumPy
            arrays. Arrays of PyTorch, TensorFlow, Keras, MXNet, JAX and NumPy in what it returns are understood.
        f_ours: the same of the conversion, such as `functools.partial(net, params)`.
        inputs: an array; a tuple, the arguments of one call; a dict, its keyword arguments; or a list of several of
            these. Each function gets its own copy.
        tolerance: the largest absolute error; by default 256 eps of the coarser dtype (4 eps of 16 bits and less) times the largest
            absolute value of the source. Integers and bools are exact by default.
        names: name in the source -> name in ours, for those that differ; in the order of computation.

    Returns:
        A verification: true where all agrees, `rows` are its numbers, `text(width)` a report, and `check()` raises in tests.

    Raises:
        StructureError: no inputs, or `names` that are in none of the two. What the functions raise is part of the report.
    """
    batches = batches_of(inputs)
    failures: list[Failure] = []
    runs: list[_Run] = []
    for number, batch in enumerate(batches):
        source = called(f_source, "source", number, batch)
        ours = called(f_ours, "ours", number, batch)
        failures += [side for side in (source, ours) if isinstance(side, Failure)]
        if isinstance(source, Values) and isinstance(ours, Values):
            runs.append(_Run(number, batch, source, ours))
    rows: list[Comparison] = []
    unmatched = ((), ())
    for run in runs:
        pairing = _paired(run.source, run.ours, names or {})
        rows += _compared(run, pairing, tolerance)
        unmatched = (pairing.only_source, pairing.only_ours)
    return Verification(tuple(rows), tuple(failures), len(batches), *unmatched, facts(f_source, f_ours))


@dataclass(frozen=True)
class _Run:
    """What both functions returned for one batch."""

    number: int
    batch: Batch
    source: Values
    ours: Values


# ----------------------------------------------------------------------------------- names


@dataclass(frozen=True)
class _Pairing:
    """Names of the source, each with the name of ours, in the order of computation."""

    pairs: tuple[tuple[str, str], ...]
    """One of the two is "" for an output that only one side has."""
    only_source: tuple[str, ...]
    only_ours: tuple[str, ...]


def _paired(source: Values, ours: Values, names: Mapping[str, str]) -> _Pairing:
    """Pair the values by the given names, then by equal names, then outputs without names by their order."""
    _check_names(source, ours, names)
    partner = {name: name for name in source.names if name in ours}
    partner.update(names)
    taken = set(partner.values())
    left = [name for name in source.names if name not in partner]
    left_ours = [name for name in ours.names if name not in taken]
    outputs = [name for name in left if name in source.outputs]
    outputs_ours = [name for name in left_ours if name in ours.outputs]
    if len(outputs) == len(outputs_ours) and (_are_unnamed(outputs) or _are_unnamed(outputs_ours)):
        partner.update(zip(outputs, outputs_ours))
        outputs, outputs_ours = [], []
    pairs = [(name, partner[name]) for name in _order(source, names) if name in partner]
    pairs += [(name, "") for name in outputs] + [("", name) for name in outputs_ours]
    only_source = tuple(name for name in left if name not in source.outputs)
    only_ours = tuple(name for name in left_ours if name not in ours.outputs)
    return _Pairing(tuple(pairs), only_source, only_ours)


def _order(source: Values, names: Mapping[str, str]) -> list[str]:
    """The names of the source in the order of computation: those of `names` first if it lists all intermediate values."""
    intermediate = [name for name in source.names if name not in source.outputs]
    given = [name for name in names if name in intermediate]
    rest = [name for name in source.names if name not in names or name in source.outputs]
    if len(given) == len(intermediate):  # a jitted function returns them sorted
        return given + rest
    return source.names


def _are_unnamed(names: Sequence[str]) -> bool:
    """Whether outputs have positions for names."""
    segments = [segment for name in names for segment in name.split("/")]
    return all(segment == OUTPUT or segment.isdecimal() for segment in segments)


def _check_names(source: Values, ours: Values, names: Mapping[str, str]) -> None:
    problems: list[str] = []
    for name, name_ours in names.items():
        if name not in source:
            problems.append(f"{quoted(name)} is no value of the source.{suggestion(name, source.names)}")
        if name_ours not in ours:
            problems.append(f"{quoted(name_ours)} is no value of ours.{suggestion(name_ours, ours.names)}")
    if problems:
        raise StructureError(
            f"verify: `names` do not fit what the functions returned:\n  {lines(problems, chr(10) + '  ')}"
        )


# -------------------------------------------------------------------------------- comparing


def _compared(run: _Run, pairing: _Pairing, tolerance: float | None) -> list[Comparison]:
    """Compare all values of a batch; the first that differs, and outputs, are described."""
    rows: list[Comparison] = []
    equal_before = _inputs(run.batch)
    is_described = False
    for name, name_ours in pairing.pairs:
        row = Comparison(name or name_ours, name_ours, run.number, name in run.source.outputs or not name)
        problem = _problem(run, name, name_ours)
        if problem:
            rows.append(replace(row, problem=problem))
            continue
        source, ours = run.source.arrays[name], run.ours.arrays[name_ours]
        row, a, b = compare(row, source, ours, tolerance)
        if row.ok:
            equal_before.append(a)
        elif not is_described:
            row = replace(row, hints=_hints(row, a, b, equal_before, rows))
            is_described = True
        rows.append(row)
    return rows


def _problem(run: _Run, name: str, name_ours: str) -> str:
    if not name:
        return "an output that only ours has"
    if not name_ours:
        return "an output that only the source has"
    if name in run.source.problems:
        return f"in the source it {run.source.problems[name]}"
    if name_ours in run.ours.problems:
        return f"in ours it {run.ours.problems[name_ours]}"
    return ""


def _inputs(batch: Batch) -> list[np.ndarray]:
    """The arrays of a batch in double precision: what the first layer saw."""
    return [as_double(array) for array in values_of(dict(enumerate_batch(batch))).arrays.values()]


def enumerate_batch(batch: Batch) -> list[tuple[str, Any]]:
    if isinstance(batch, Mapping):
        return list(batch.items())
    return [(str(at), value) for at, value in enumerate(batch)]


def _hints(
    row: Comparison, a: np.ndarray, b: np.ndarray, equal_before: Sequence[np.ndarray], before: Sequence[Comparison]
) -> tuple[str, ...]:
    """Describe what an error looks like, from the most certain on."""
    if a.shape != b.shape:
        return (shape_pattern(a, b, row.tolerance),)
    if row.absolute is None or row.absolute <= row.tolerance or not a.size:
        return ()
    found = [
        cause(equal_before, a, b, row.tolerance),
        order_pattern(a, b, row.tolerance) or size_pattern(a, b, row.tolerance),
        _growth(row, before),
    ]
    return tuple(hint for hint in found if hint)


def _growth(row: Comparison, before: Sequence[Comparison]) -> str:
    """Say that an error grew gradually, which is rounding rather than one wrong layer."""
    errors = [(earlier.name, earlier.relative) for earlier in before if earlier.ok and earlier.relative]
    if len(errors) < 3 or not row.relative:
        return ""
    name, last = errors[-1]
    if row.relative > _GRADUAL * last or errors[0][1] * _GRADUAL > row.relative:
        return ""
    return (
        f"the error grew gradually, from {errors[0][1]:.1e} at {quoted(errors[0][0])} to {last:.1e} at {quoted(name)} and"
        f" {row.relative:.1e} here: rounding, so a precision or a dtype rather than one wrong layer"
    )
