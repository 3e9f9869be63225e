"""Mean, standard deviation and bounds of what an initialiser draws, from the formulas of its distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike

from . import _distributions, _fans, _values
from ._dtypes import is_complex
from ._recipe import Draw, Initializer, draw_of


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and bounds of numbers; an end without a bound is infinite."""

    mean: float
    std: float
    low: float = -math.inf
    high: float = math.inf


def spread_of(initializer: Initializer, shape: tuple[int, ...], dtype: DTypeLike) -> Spread | None:
    """The spread of what an initialiser draws for one leaf; None where no formula is known or the numbers are complex.

    >>> round(spread_of(_fans.he_normal(), (50, 8), np.dtype("float32")).std, 6)        # sqrt(2 / 50)
    0.2

    Raises:
        InitError: the initialiser does not fit the shape or the dtype.
    """
    if is_complex(dtype):
        return None
    return _of_draw(draw_of(initializer, shape, dtype), shape)


def _of_draw(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    formula = _FORMULAS.get(draw.function)
    if formula is None or any(isinstance(number, Tracer) for number in draw.numbers):
        return None
    return formula(draw, shape)


def _normal(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    stddev, mean = draw.numbers
    return Spread(_number(mean), _number(stddev))


def _truncated(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    stddev, mean, cuts, bounds = draw.numbers
    cut_mean, cut_stddev = _distributions._cut_moments(float(cuts.lower), float(cuts.upper))
    scale = _number(stddev)
    mean_after_cut = _number(mean) + scale * cut_mean
    return Spread(mean_after_cut, scale * cut_stddev, _number(bounds.least), _number(bounds.greatest))


def _uniform(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    low, high, _ = draw.numbers
    return _between(_number(low), _number(high))


def _symmetric(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    bound = _number(draw.numbers[0])
    return _between(-bound, bound)


def _between(low: float, high: float) -> Spread:
    """The spread of uniform numbers."""
    return Spread((low + high) / 2, (high - low) / math.sqrt(12), low, high)


def _filled(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    values = np.asarray(draw.numbers[0]).astype(np.float64)
    if not values.size:
        return None
    # of an array that is broadcast each number is there equally often
    return Spread(float(values.mean()), float(values.std()), float(values.min()), float(values.max()))


def _orthogonal(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    gain = abs(_number(draw.numbers[0]))
    rest, out, _ = draw.fixed
    rows = math.prod(shape[axis] for axis in rest)
    columns = math.prod(shape[axis] for axis in out)
    # the rows, or the columns if they are longer, are unit vectors
    longer = max(rows, columns, 1)
    return Spread(0.0, gain / math.sqrt(longer), -gain, gain)


def _sparse(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    zeros_per_input, gaussian = draw.numbers
    inner = _of_draw(gaussian, shape)
    if inner is None or not shape[1]:
        return None
    share = 1 - int(zeros_per_input) / shape[1]
    return Spread(0.0, inner.std * math.sqrt(share))


def _mixture(draw: Draw, shape: tuple[int, ...]) -> Spread | None:
    bounds, draws = draw.numbers
    ends = [*map(_number, bounds), 1.0]
    starts = [0.0, *ends[:-1]]
    shares = [end - start for start, end in zip(starts, ends)]
    parts = [_of_draw(part, shape) for part in draws]
    return _mixed(shares, [part for part in parts if part is not None]) if None not in parts else None


def _mixed(shares: Sequence[float], parts: Sequence[Spread]) -> Spread:
    """The spread of numbers each of which is from a part, with this probability."""
    mean = sum(share * part.mean for share, part in zip(shares, parts))
    second_moment = sum(share * (part.std**2 + part.mean**2) for share, part in zip(shares, parts))
    std = math.sqrt(max(second_moment - mean**2, 0.0))
    return Spread(mean, std, min(part.low for part in parts), max(part.high for part in parts))


def _number(value: object) -> float:
    """An option of a draw as a number of Python; None is a mean that is left out."""
    if value is None:
        return 0.0
    return float(np.asarray(value).astype(np.float64))


_FORMULAS: dict[Callable[..., jax.Array], Callable[[Draw, tuple[int, ...]], Spread | None]] = {
    _distributions._draw_normal: _normal,
    _distributions._draw_truncated: _truncated,
    _distributions._draw_tail: _truncated,
    _distributions._draw_uniform: _uniform,
    _distributions._draw_sparse: _sparse,
    _distributions._draw_mixture: _mixture,
    _fans._draw_symmetric: _symmetric,
    _fans._draw_orthogonal: _orthogonal,
    _values._fill: _filled,
}
