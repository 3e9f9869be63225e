"""Square kernels: a plan refuses a weight that becomes a kernel if neither its shape nor its row says which way round it lies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from ..._words import quoted
from ...files._kernels import fits_both_layouts, is_between_layouts, layout_of_name
from .._operations import parts
from .._operations.operation import Described, Operation, steps_of
from .step import Step, folded

_TRANSPOSED = re.compile(r"transpose|deconv", re.IGNORECASE)


def square_kernels(steps: Sequence[Step]) -> list[str]:
    """A sentence for steps of a row that give kernels as they lie, where the shape does not tell whether that is right."""
    doubtful = [step for step in steps if _is_in_doubt(step)]
    return [_sentence(alike) for alike in folded(doubtful)]


def _is_in_doubt(step: Step) -> bool:
    if not step.targets or _says_layout(step):
        return False
    if not (_is_between_layouts(step) or _is_transposed_convolution(step)):
        return False
    return _has_square(step.operation, _described(step))


def _described(step: Step) -> list[Described]:
    return [source.described for source in step.sources if source.described is not None]


def _sentence(steps: Sequence[Step]) -> str:
    """What is in doubt, by the names of one step, or by the patterns of a row for several."""
    step, times = steps[0], ""
    described = _described(step)
    sources, targets = [source.name for source in step.sources], [*step.targets]
    if len(steps) > 1:
        sources = [pattern.text for pattern in step.row.sources]
        targets = [pattern.text for pattern in step.row.targets]
        times = f" {len(steps)} times"
    squares = [array for array in described if fits_both_layouts(array.shape)]
    shape = [*(squares or described)[0].shape]
    becomes = "becomes" if len(sources) == 1 else "become"
    return (
        f"{', '.join(map(quoted, sources))} {shape} {becomes} {', '.join(map(quoted, targets))}{times}, and its shape does not"
        f" tell whether it is to be transposed: say {_fixes(step)}"
    )


def _fixes(step: Step) -> str:
    """The operations of which one is right, as they are written in the row."""
    if not step.row.says_operation:
        return "`linear` or `conv` in its row, or `as_is`"
    operation = repr(step.operation)
    if isinstance(steps_of(step.operation)[0], parts.Split):
        first, *others = map(repr, steps_of(step.operation))
        choices = [" >> ".join((first, layout, *others)) for layout in ("linear", "as_is")]
        return f"`{choices[0]}` or `{choices[1]}` in its row"
    return f"`linear >> {operation}` or `as_is >> {operation}` in its row"


def _is_between_layouts(step: Step) -> bool:
    """Whether the names of the sources and the targets are of frameworks that differ in layout."""
    # of `w` and `kernel`, an operation that is said, such as `heads(4)`, is enough
    is_short_sure = step.row.says_operation
    pairs = product([source.path for source in step.sources], step.targets)
    return any(is_between_layouts(source, target, is_short_sure=is_short_sure) for source, target in pairs)


def _is_transposed_convolution(step: Step) -> bool:
    """Whether a name says that a kernel is of a transposed convolution, whose features Keras stores the other way round."""
    names = [*(source.path for source in step.sources), *step.targets]
    is_kernel = all(layout_of_name(name) == "kernel" for name in names)
    is_window = all(len(source.described.shape) > 2 for source in step.sources if source.described is not None)
    return is_kernel and is_window and any(map(says_transposed, names))


def says_transposed(name: str) -> bool:
    """Whether a name is that of a transposed convolution: `conv2d_transpose/kernel`, `deconv.weight`."""
    return _TRANSPOSED.search(name) is not None


def _says_layout(step: Step) -> bool:
    return step.row.says_operation and step.operation.says_layout


def _has_square(operation: Operation, arrays: list[Described]) -> bool:
    """Whether an array fits several layouts, before the operation or between its steps."""
    if any(fits_both_layouts(array.shape) for array in arrays):
        return True
    for step in steps_of(operation):
        arrays = step.outcome(arrays)
        if any(fits_both_layouts(array.shape) for array in arrays):
            return True
    return False
