"""Metrics of a training step: check the numbers and the option `best`, write them as text in the metadata of the file, rank
steps by one of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .._errors import FileError
from .._words import describe, listed, quoted, suggestion

Mode: TypeAlias = Literal["min", "max"]

NAME = "metrics"
"""Of the metrics in the metadata of a file."""


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Check the metrics that a step is saved with; each is a number, also as an array of JAX, NumPy or PyTorch."""
    if not isinstance(metrics, Mapping):
        raise FileError(f"expected metrics by name, such as {{'loss': 0.3}}, got {describe(metrics)}")
    checked: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise FileError(f"expected the name of a metric, got {quoted(name)}")
        checked[name] = _number(name, value)
    return checked


def _number(name: str, value: Any) -> float:
    # float() takes text too, which would be a slip
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise FileError(f"expected a number for the metric {quoted(name)}, got {describe(value)}")


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Encode metrics as JSON; it has no NaN and no infinity, which are text there."""
    return json.dumps({name: value if math.isfinite(value) else str(value) for name, value in metrics.items()})


def metrics_in(metadata: Mapping[str, str]) -> dict[str, float]:
    """The metrics in the metadata of a file; none, where another program wrote something else under this name."""
    try:
        return {name: float(value) for name, value in json.loads(metadata.get(NAME, "{}")).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}


@dataclass(frozen=True)
class Best:
    """Which steps are the best: those with the least or the greatest value of a metric."""

    metric: str
    mode: Mode

    def refuse_without_metric(self, metrics: Mapping[str, float] | None) -> None:
        if metrics is None:
            given = f"metrics={{{self.metric!r}: ...}}"
            raise FileError(
                f"best= goes by the metric {quoted(self.metric)}: give {given}, float('nan') where it is not measured"
            )
        if self.metric not in metrics:
            near = suggestion(self.metric, metrics)
            raise FileError(f"no metric {quoted(self.metric)}, which best= goes by, in {listed(metrics)}.{near}")

    def has_score(self, metrics: Mapping[str, float]) -> bool:
        """Whether the metric is there, and a number: NaN, as of a run that has diverged, is never the best."""
        return not math.isnan(metrics.get(self.metric, math.nan))

    def rank(self, metrics: Mapping[str, float]) -> tuple[bool, float]:
        """Rank metrics by a sort key: the greatest for the best step, the least for a step without a score."""
        if not self.has_score(metrics):
            return False, 0.0
        value = metrics[self.metric]
        return True, value if self.mode == "max" else -value


def checked_best(best: tuple[str, Mode] | None) -> Best | None:
    """Check the option `best` of Checkpoints."""
    if best is None:
        return None
    if isinstance(best, (tuple, list)) and len(best) == 2:
        metric, mode = best
        if isinstance(metric, str) and mode in ("min", "max"):
            return Best(metric, mode)
    raise FileError(f"expected best to be a metric and 'min' or 'max', such as ('loss', 'min'); got {quoted(best)}")
