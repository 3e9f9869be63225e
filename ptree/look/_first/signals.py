"""Measure what flows through the layers of a traced function: activations forward, gradients backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._tree import PyTree
from .equations import Program, Scan, Step, is_float, program_of, run_step
from .layer_calls import Call, Calls, Loop, find_calls

_MOST_COMPILED = 300
"""Equations that are compiled as one program. Of more, each is run for itself: of 1,200, a sixth of the time."""


@dataclass(frozen=True)
class Size:
    """How large numbers are, the NaN and infinite ones included: their root mean square and the largest."""

    rms: float
    largest: float


@dataclass(frozen=True)
class Signal:
    """What flows in and out of one call of a layer."""

    layer: str
    source: Size | None
    """The activations that flow in; None of whole numbers, such as tokens."""
    output: Size
    gradient: Size
    """Of the loss, with respect to the output."""


@dataclass(frozen=True)
class Signals:
    """The signals of all layers in the order in which they are computed, and the gradient of each leaf."""

    layers: tuple[Signal, ...]
    gradients: Mapping[str, Size]


def signals_of(
    function: Callable[[Mapping[str, Any], PyTree], PyTree],
    leaves: Mapping[str, Any],
    x: PyTree,
    loss: Callable[[PyTree], jax.Array],
) -> Signals:
    """Run a function of leaves, path -> array, and an input forward and backward, and measure at each layer.

    Arrays are measured where they are computed: none is kept for it, and a stack of layers stays one loop.
    """
    paths = sorted(leaves)  # as JAX orders the inputs that a dict becomes
    program = program_of(jax.make_jaxpr(function)({path: leaves[path] for path in paths}, x))
    others = [None] * (len(program.inputs) - len(paths))
    calls = find_calls(program, [*paths, *others])
    ordered = calls.in_order(program)
    outputs = jax.tree.structure(jax.eval_shape(function, leaves, x))
    floats = [path for path in paths if jnp.issubdtype(jnp.result_type(leaves[path]), jnp.floating)]

    def run(trained: Mapping[str, Any], slots: _Slots, leaves: Mapping[str, Any], x: PyTree) -> tuple[jax.Array, Any]:
        every = {**leaves, **trained}
        inputs = [every[path] for path in paths] + jax.tree.leaves(x)
        values, measured = _run_measured(program, calls, inputs, slots)
        return loss(jax.tree.unflatten(outputs, values)), measured

    def measure(leaves: Mapping[str, Any], x: PyTree) -> tuple[Any, Any, Any]:
        trained = {path: leaves[path] for path in floats}
        gradient = jax.grad(run, argnums=(0, 1), has_aux=True)
        (of_leaves, of_slots), measured = gradient(trained, _slots(ordered), leaves, x)
        sizes = {path: _measure(value) for path, value in of_leaves.items() if value.size}
        return measured, of_slots, sizes

    compute = jax.jit(measure) if len(program.steps) <= _MOST_COMPILED else measure
    measured, of_slots, of_leaves = jax.device_get(compute(dict(leaves), x))
    reader = _Reader(measured, of_slots)
    gradients = {path: _size(numbers) for path, numbers in of_leaves.items()}
    return Signals(tuple(_with_counts(reader.read(ordered, ()))), gradients)


# ------------------------------------------------------------------------------ the measured pass

_Slots = dict[int, jax.Array]
"""The number of a call -> zeros, whose gradient is what was measured of the gradient of the call's output."""
_Measured = dict[tuple[int, str], jax.Array]
"""The number of a call and "source" or "output" -> what was measured, with an axis for each loop around."""


def _slots(ordered: Sequence[Call | Loop], lengths: tuple[int, ...] = ()) -> _Slots:
    slots: _Slots = {}
    for item in ordered:
        if isinstance(item, Loop):
            slots.update(_slots(item.calls, (*lengths, item.length)))
        else:
            slots[item.number] = jnp.zeros((*lengths, 2))
    return slots


def _run_measured(program: Program, calls: Calls, inputs: Sequence[Any], slots: _Slots) -> tuple[list[Any], _Measured]:
    """Compute the outputs of a program, and measure at its calls."""
    values = program.start(inputs)
    measured: _Measured = {}
    for at, step in enumerate(program.steps):
        arguments = [values[number] for number in step.inputs]
        if step.scan is None or (step.scan.is_whole and at not in calls.loops):
            outputs = run_step(step, arguments)
        else:
            outputs, inner = _run_scan(step, step.scan, calls.loops.get(at, Calls()), arguments, slots)
            measured.update(inner)
        values.update(zip(step.outputs, outputs))
        for call in calls.ends.get(at, []):
            output = values[call.output]
            if is_float(program.shapes[call.source]):
                measured[call.number, "source"] = _measure(values[call.source])
            measured[call.number, "output"] = _measure(output)
            values[call.output] = _with_slot(output, slots[call.number])
    return [values[number] for number in program.outputs], measured


def _run_scan(
    step: Step, scan: Scan, calls: Calls, inputs: Sequence[Any], slots: _Slots
) -> tuple[list[Any], _Measured]:
    """A scan with the slots of its calls among what it scans over, and with what they measure among what it stacks."""
    same, carried = scan.same, scan.carried
    options = step.equation.params
    inside = {number: slots[number] for number in _numbers(calls)}

    def one(carry: list[Any], scanned: tuple[list[Any], _Slots]) -> tuple[list[Any], tuple[list[Any], _Measured]]:
        parts, own_slots = scanned
        outputs, measured = _run_measured(scan.body, calls, [*inputs[:same], *carry, *parts], own_slots)
        return outputs[:carried], (outputs[carried:], measured)

    carry, (stacked, measured) = jax.lax.scan(
        one,
        list(inputs[same : same + carried]),
        (list(inputs[same + carried :]), inside),
        scan.length,
        reverse=options["reverse"],
        unroll=options["unroll"],
    )
    return [*carry, *stacked], measured


def _numbers(calls: Calls) -> list[int]:
    """The numbers of all calls, those in inner loops included."""
    outermost = [call.number for ending in calls.ends.values() for call in ending]
    inner = [number for loop in calls.loops.values() for number in _numbers(loop)]
    return outermost + inner


@jax.custom_vjp
def _with_slot(value: jax.Array, slot: jax.Array) -> jax.Array:
    """The value as it is; the gradient of the slot becomes what is measured of the gradient of the value."""
    return value


def _forward(value: jax.Array, slot: jax.Array) -> tuple[jax.Array, None]:
    return value, None


def _backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gradient, _measure(gradient)


_with_slot.defvjp(_forward, _backward)


@jax.jit
def _measure(value: jax.Array) -> jax.Array:
    """The mean square in units of the largest, and the largest: squares of small gradients would be 0 in float32."""
    sizes = jnp.abs(value).astype(jnp.float32)
    largest = sizes.max()
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1.0)
    return jnp.stack([jnp.square(sizes / unit).mean(), largest])


# ------------------------------------------------------------------------------ reading what was measured


class _Reader:
    """Reads the numbers of calls in the order of the layers."""

    def __init__(self, measured: Mapping[tuple[int, str], np.ndarray], of_slots: Mapping[int, np.ndarray]):
        self.measured, self.of_slots = measured, of_slots

    def read(self, ordered: Sequence[Call | Loop], index: tuple[int | slice, ...]) -> list[Signal]:
        """The signals in this iteration of the loops around; `slice(None)` is all iterations of a loop as one."""
        signals: list[Signal] = []
        for item in ordered:
            if isinstance(item, Call):
                signals.append(self._signal(item, index))
                continue
            iterations = range(item.length) if _is_over_layers(item, len(index)) else [slice(None)]
            for iteration in iterations:
                signals += self.read(item.calls, (*index, iteration))
        return signals

    def _signal(self, call: Call, index: tuple[int | slice, ...]) -> Signal:
        source = self.measured.get((call.number, "source"))
        return Signal(
            _name(call, index),
            None if source is None else _size(source[index]),
            _size(self.measured[call.number, "output"][index]),
            _size(self.of_slots[call.number][index]),
        )


def _is_over_layers(loop: Loop, axis: int) -> bool:
    """Whether the iterations of a loop use different leaves; else it is over time, or one layer again and again."""
    names = [_first_names(item) for item in loop.calls]
    return any(name.shape[axis] > 1 for name in names)


def _first_names(item: Call | Loop) -> np.ndarray:
    while isinstance(item, Loop):
        item = item.calls[0]
    return item.names


def _name(call: Call, index: tuple[int | slice, ...]) -> str:
    places = [at if isinstance(at, int) and size > 1 else 0 for at, size in zip(index, call.names.shape)]
    return str(call.names[tuple(places)])


def _size(numbers: np.ndarray) -> Size:
    """The size of an array, or of one array in each iteration of a loop, from what was measured."""
    mean_squares, largest = numbers.reshape(-1, 2).astype(np.float64).T
    is_unit = (largest > 0) & np.isfinite(largest)
    units = np.where(is_unit, largest, 1.0)
    rms = np.sqrt(np.mean(mean_squares * units**2))
    return Size(float(rms), float(largest.max()))


def _with_counts(signals: Sequence[Signal]) -> list[Signal]:
    """The signals, with a count behind the name of a layer that is called again: `wte (2)`."""
    times: dict[str, int] = {}
    counted: list[Signal] = []
    for signal in signals:
        times[signal.layer] = times.get(signal.layer, 0) + 1
        count = times[signal.layer]
        name = signal.layer if count == 1 else f"{signal.layer} ({count})"
        counted.append(Signal(name, signal.source, signal.output, signal.gradient))
    return counted
