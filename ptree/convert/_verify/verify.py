"""verify: run a source and its conversion on the same inputs, pair their values by name, compare them, and explain the first
difference."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..._errors import StructureError
from ..._words import describe
from .calls import Batch, Failure, batches_of, called
from .checklist import modes_of_modules, precision_of_products
from .comparison import Comparison, compare
from .hints import hints
from .pairing import Pairing, paired
from .values import Values, values_of
from .verification import Verification

_MOST_BEFORE = 16
"""How many values before the first difference are looked at for its input."""


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
    >>> print(convert.verify(source, ours, x).text(80).split("Other causes")[0].rstrip())
    not the same: 2 of 3 values differ
    value   shape  dtype    error  relative  cosine  allowed
    ...
    The first that differs in the order of computation: 'norm', ...

    Values are compared by name, in the order of the source: the intermediate ones first. The first that differs is
    described: another shape, another order, a factor, an offset, a few positions, an epsilon, the form of gelu, a square
    kernel that is transposed. These are what the numbers suggest, not proofs. Where something differs, a checklist
    of causes besides the weights comes last. Equal outputs prove nothing for inputs that leave parts of a model at zero: take real ones.

    Args:
        f_source: a module of PyTorch, which is called without gradients on tensors where it lies and gives the outputs of the
            submodules in `names` too, or any function of NumPy arrays. Arrays of PyTorch, TensorFlow, Keras, MXNet, JAX and NumPy in what it returns are understood.
        f_ours: the same of the conversion, such as `functools.partial(net, params)`.
        inputs: an array; a tuple, the arguments of one call; a dict, its keyword arguments; or a list of several of
            these. Each function gets its own copy.
        tolerance: the largest absolute error; by default 256 eps of the coarser dtype (4 eps of 16 bits and less) times the largest
            absolute value of the source. Beside one large value that lets other numbers differ: then the report says how many
            do. Integers and bools are exact by default.
        names: name in the source -> name in ours, for those that differ; in the order of computation.

    Returns:
        A verification: true where all agrees, `rows` are its numbers, `text(width)` a report, and `check()` raises in tests.

    Raises:
        StructureError: no inputs, a tolerance that is no number of at least 0, or `names` that are in none of the two. What
            the functions raise is part of the report.
    """
    tolerance = _checked_tolerance(tolerance)
    batches = batches_of(inputs)
    names = names or {}
    failures: list[Failure] = []
    rows: list[Comparison] = []
    unmatched = ((), ())
    for number, batch in enumerate(batches):
        source = called(f_source, "source", number, batch, names.keys())
        ours = called(f_ours, "ours", number, batch, names.values())
        failures += [side for side in (source, ours) if isinstance(side, Failure)]
        if isinstance(source, Values) and isinstance(ours, Values):
            pairing = paired(source, ours, names)
            rows += _compared(_Run(number, batch, source, ours), pairing, tolerance)
            unmatched = (pairing.only_source, pairing.only_ours)
    modes = modes_of_modules(f_source, f_ours)
    return Verification(
        tuple(rows), tuple(failures), len(batches), *unmatched, modes=modes, precision=precision_of_products()
    )


def _checked_tolerance(tolerance: float | None) -> float | None:
    if tolerance is None:
        return None
    number = _float_of(tolerance)
    # no error is larger than NaN or infinity: all would agree
    if 0 <= number < np.inf:
        return number
    raise StructureError(
        f"verify(..., tolerance={describe(tolerance)}): expected the largest absolute error that is allowed, a finite number"
        " of at least 0, or None for that of the dtype"
    )


def _float_of(number: float) -> float:
    """A number, also one of NumPy or JAX, as a float; NaN for what is no number."""
    if isinstance(number, (bool, str, bytes)):
        return np.nan
    try:
        return float(number)
    except (TypeError, ValueError):
        return np.nan


@dataclass(frozen=True)
class _Run:
    """What both functions returned for one batch."""

    number: int
    batch: Batch
    source: Values
    ours: Values


def _compared(run: _Run, pairing: Pairing, tolerance: float | None) -> list[Comparison]:
    """Compare all values of a batch, and describe the first that differs."""
    rows: list[Comparison] = []
    inputs = list(values_of(_by_name(run.batch)).arrays.values())
    equal_before: deque[np.ndarray] = deque(inputs, maxlen=_MOST_BEFORE)
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
            equal_before.append(source)
        elif not is_described:
            row = replace(row, hints=hints(row, a, b, equal_before, rows))
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


def _by_name(batch: Batch) -> dict[str, Any]:
    if isinstance(batch, Mapping):
        return dict(batch)
    return {str(at): value for at, value in enumerate(batch)}
