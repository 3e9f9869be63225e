"""The spread that a spec declares for each leaf: mean, standard deviation and bounds of its initialiser."""

from __future__ import annotations

import math

import jax
import numpy as np

from ..._draw import declared_jobs
from ..._draw.programs import Job
from ..._edit import Rules
from ..._tree import PyTree
from ...initializers._spread import Spread, spread_of

_MOST_DRAWN = 1 << 22
"""Numbers: a leaf of an initialiser without a formula is drawn to see its spread, unless it is larger."""


def declared_spreads(spec: PyTree, rules: Rules | None = None) -> dict[str, Spread]:
    """The declared spread of each leaf of a spec, by path; leaves without an initialiser, or of complex numbers, have none.

    It is that of the formula where the initialiser is one of ptree's. Another one, such as a function of the user, is
    run once for a leaf of at most four million numbers: its mean and spread are those of what it drew.

    Raises:
        InitError: an initialiser does not fit its leaf.
        PatternError: a rule applies to no leaf.
    """
    found: dict[str, Spread] = {}
    for path, job in declared_jobs(spec, rules).items():
        spread = _spread_of_job(job)
        if spread is not None:
            found[path] = spread
    return found


def _spread_of_job(job: Job) -> Spread | None:
    dtype = np.dtype(job.dtype)
    spread = spread_of(job.initializer, job.shape, dtype)
    if spread is not None or dtype.kind == "c" or not 0 < job.size <= _MOST_DRAWN:
        return spread
    drawn = np.asarray(job.initializer(jax.random.key(0), job.shape, dtype)).astype(np.float64)
    std = float(drawn.std())
    return Spread(float(drawn.mean()), std) if math.isfinite(std) else None
