"""The layouts after loops and branches of a traced model: `scan`, `while` and `cond`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from jax.extend.core import ClosedJaxpr, JaxprEqn

from ..._jaxprs import scan_counts
from .axis_order import BATCH, ChannelsFirst, Constant, Layout, Unknown, axes_of, constant, is_mixed, leaves_of
from .axis_rules import shape_of
from .framework import Shape
from .layout_rules import described
from .model_layers import of_repetition

Run: TypeAlias = Callable[[ClosedJaxpr, Sequence[Layout]], list[Layout]]
"""Follows a function: its inputs' layouts -> its outputs'."""

_MOST_STEPS_OF_A_LOOP = 8
"""After so many steps without parameters of their own, the layouts of a loop have settled or never will."""


def after_scan(step: JaxprEqn, inputs: Sequence[Layout], run: Run) -> Sequence[Layout]:
    """The layouts after a loop over slices, of which each may have parameters of its own."""
    about = step.params
    fixed, carried = scan_counts(about)
    constants, carry, sliced = inputs[:fixed], inputs[fixed : fixed + carried], inputs[fixed + carried :]
    shapes = [shape_of(variable)[1:] for variable in step.invars[fixed + carried :]]
    given: list[list[Layout]] = []
    numbers = range(about["length"])
    for number in reversed(numbers) if about["reverse"] else numbers:
        slices = [_sliced(layout, shape, number) for layout, shape in zip(sliced, shapes, strict=True)]
        outputs = run(about["jaxpr"], [*constants, *carry, *slices])
        before, carry = carry, outputs[:carried]
        given.append(outputs[carried:])
        if carry == before and not leaves_of(sliced):  # all others are the same as this one
            break
    stacked = [
        _stacked(_one_of(step, each), shape_of(variable)) for each, variable in zip(zip(*given), step.outvars[carried:])
    ]
    return [*carry, *stacked]


def after_while(step: JaxprEqn, inputs: Sequence[Layout], run: Run) -> Sequence[Layout]:
    """The layouts after a loop with a condition."""
    about = step.params
    start = about["cond_nconsts"]
    fixed = start + about["body_nconsts"]
    constants, carry = inputs[start:fixed], inputs[fixed:]
    for _ in range(_MOST_STEPS_OF_A_LOOP):
        outputs = run(about["body_jaxpr"], [*constants, *carry])
        if outputs == carry:
            break
        carry = [_one_of(step, pair) for pair in zip(carry, outputs, strict=True)]
    return carry


def after_cond(step: JaxprEqn, inputs: Sequence[Layout], run: Run) -> Sequence[Layout]:
    """The layouts after one of several branches."""
    outputs = [run(branch, inputs[1:]) for branch in step.params["branches"]]
    return [_one_of(step, each) for each in zip(*outputs, strict=True)]


def _sliced(layout: Layout, shape: Shape, number: int) -> Layout:
    """The layout of one slice along the first axis."""
    if isinstance(layout, Constant):
        leaves = tuple(of_repetition(leaf, number) for leaf in layout.leaves)
        return replace(layout, axes=layout.axes[1:], leaves=leaves)
    if not isinstance(layout, ChannelsFirst):
        return layout
    if is_mixed(layout.axes[0]):
        return Unknown("a loop runs over flattened features")
    return replace(layout, axes=layout.axes[1:])


def _stacked(layout: Layout, shape: Shape) -> Layout:
    """The layout of the slices that a loop gives, along a first axis."""
    if isinstance(layout, Constant):
        return constant(shape, layout.leaves)
    if not isinstance(layout, ChannelsFirst):
        return layout
    return replace(layout, axes=(axes_of(BATCH, shape[0]), *layout.axes))


def _one_of(step: JaxprEqn, layouts: Sequence[Layout]) -> Layout:
    """The layout of a value that is one of several."""
    data = [layout for layout in layouts if not isinstance(layout, Constant)]
    if not data:
        return layouts[0]
    if all(layout == data[0] for layout in data):
        return data[0]
    return Unknown(f"{described(step)} gives features in different orders")
