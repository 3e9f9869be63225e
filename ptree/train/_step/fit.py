"""fit: a short loop of steps over batches, with a line of progress, checkpoints and a history."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import jax
import numpy as np

from ..._numbers import whole_number
from ..._tree import PyTree
from ..._words import describe, quoted
from .progress_line import ProgressLine, standard_stream
from .state_checks import LossError, refuse_used
from .step import Step
from .train_state import Metrics, TrainState

if TYPE_CHECKING:
    from ...files import Checkpoints
    from ...look import History

_MOST_WAITING = 2
"""Steps that may be on the device before the loop waits for the first of them: more would pile up batches there."""

Batches = Iterable[PyTree] | Callable[[int], PyTree]
"""Batches one after the other, or a function of the number of steps before that gives the next one."""


def fit(
    step: Step,
    state: TrainState,
    batches: Batches,
    *,
    until: int | None = None,
    checkpoints: Checkpoints | None = None,
    history: History | None = None,
    show: bool = True,
) -> TrainState:
    """Take steps until the batches end, or until the run has so many steps; with a line of progress.

    >>> import jax, jax.numpy as jnp, optax
    >>> from ptree import train
    >>> step = train.step(lambda params, x: jnp.square(params["w"] - x).mean(), optax.sgd(0.5))
    >>> state = step.init({"w": jnp.zeros(2)})
    >>> batch = lambda n: jax.random.normal(jax.random.key(n), (4, 2))       # of a number: a run that goes on sees the same
    >>> state = train.fit(step, state, batch, until=20, show=False)
    >>> int(state.step)
    20

    It does what one would write: `for batch in batches: state, metrics = step(state, batch)`. Anything else that a run
    does between steps is better written as that loop. It waits for a step when two more are on the way, and stops where the loss
    of a step is not finite, unless loss scaling skipped that step.

    An error in the loop, and Ctrl-C, has the newest state as its attribute `state`, as the given one is gone.

    Args:
        step: what `train.step` made.
        state: the state to begin with; it is donated. One that comes from `checkpoints.load` goes on at its step.
        batches: an iterable, which is read from its beginning; or a function `n -> batch` of the number of steps before.
        until: the number of steps of the whole run, those before included.
        checkpoints: where states are saved, those that its `every` chooses and the last one; the loss is their metric.
        history: where what the step observes is recorded, with the loss.
        show: whether there is a line of progress, on the standard error of the first process: on a terminal it is
            rewritten in place, elsewhere a line is added after ten seconds, and then less and less often.

    Returns:
        The state after the last step.

    Raises:
        LossError: the loss of a step is NaN or infinite. What was saved before is finite.
        TypeError, ValueError: an argument is not what it should be.
    """
    _check(step, state, batches, until, history)
    first = int(state.step)
    last = whole_number(until)
    stream = standard_stream() if show and jax.process_index() == 0 else None
    done = saved = first
    with ProgressLine(first, last, stream) as line:
        losses = _Losses(line)
        try:
            for batch in _until(batches, first, last):
                state, metrics = step(state, batch)
                done += 1
                losses.add(done, metrics)
                if history is not None:
                    history.record(done, metrics.observed, loss=metrics.loss)
                if checkpoints is not None and done % checkpoints.every == 0:
                    checkpoints.save(done, state, metrics={"loss": losses.wait()})
                    saved = done
            loss = losses.wait()
            if checkpoints is not None and saved != done:
                checkpoints.save(done, state, metrics={"loss": loss}, always=True)
        except BaseException as error:
            error.state = state  # pyright: ignore[reportAttributeAccessIssue] - the caller has no other name for it
            raise
    if last is not None and done < last:
        warnings.warn(f"the batches ended at step {done}, before until={last}", stacklevel=2)
    return state


def _check(step: object, state: object, batches: object, until: object, history: object) -> None:
    """
    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """
    if not isinstance(step, Step):
        raise TypeError(f"fit(step, state, batches): expected what ptree.train.step makes, got {describe(step)}")
    refuse_used(state)
    if not callable(batches) and not isinstance(batches, Iterable):
        raise TypeError(
            f"fit(step, state, batches): expected batches, or a function of a number, got {describe(batches)}"
        )
    number = whole_number(until)
    if until is not None and number is None:
        raise TypeError(f"fit(until=): expected a whole number of steps, got {quoted(until)}")
    if callable(batches) and number is None:
        raise ValueError("fit(step, state, batches): a function of a number has no end; give until=, a number of steps")
    if history is not None and step.pure.observe is None:
        raise ValueError("fit(history=): the step observes nothing. Make it with train.step(..., observe=look.observe)")


def _until(batches: Batches, first: int, last: int | None) -> Iterator[PyTree]:
    """The batches from a step to another; an iterable is not read beyond what is needed."""
    if callable(batches):
        assert last is not None
        for number in range(first, last):
            yield batches(number)
        return
    iterator = iter(batches)
    number = first
    while last is None or number < last:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        yield batch
        number += 1


class _Losses:
    """The losses of steps that are on their way from the device, and the check of each that has arrived."""

    def __init__(self, line: ProgressLine):
        self._line = line
        self._waiting: deque[tuple[int, Metrics]] = deque()
        self._loss = math.nan

    def add(self, step: int, metrics: Metrics) -> None:
        self._waiting.append((step, metrics))
        while len(self._waiting) > _MOST_WAITING:
            self._take()

    def wait(self) -> float:
        """The loss of the last step, once it is there."""
        while self._waiting:
            self._take()
        return self._loss

    def _take(self) -> None:
        step, metrics = self._waiting.popleft()
        self._loss = float(np.asarray(metrics.loss.addressable_data(0)))
        self._line.show(step, self._loss)
        is_skipped = metrics.skipped is not None and bool(np.asarray(metrics.skipped.addressable_data(0)))
        if not math.isfinite(self._loss) and not is_skipped:
            raise LossError(
                f"the loss of step {step} is {self._loss}. ptree.look.guard(step) names the leaves where it begins;"
                " checkpoints hold the steps before"
            )
