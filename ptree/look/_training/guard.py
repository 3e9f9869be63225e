"""Guard a training step: stop at the first step whose outputs are not finite, name the leaves, keep the inputs of that step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..._edit import leaves as leaves_of
from ..._edit import map_leaves
from ..._errors import PtreeError, StructureError
from ..._paths import Pattern, compile
from ..._tree import Leaf, PyTree, signature
from ..._words import SHOWN, name_of, quoted
from .._arguments import refuse_no_function
from .._stats.nonfinite import NonFinite, nonfinite
from .observe import Observed

P = ParamSpec("P")
R = TypeVar("R")

_OUTPUT = "output"


class NonFiniteError(PtreeError, ArithmeticError):
    """Error for a step of training that gave NaN or infinite numbers. It keeps what went into that step.

    >>> import jax.numpy as jnp
    >>> from ptree import look
    >>> try:
    ...     look.guard(jnp.log)(jnp.zeros(2))
    ... except look.NonFiniteError as error:
    ...     print(error.call, error.output, error.found.paths)
    1 [-inf -inf] ['output']
    """

    __module__ = "ptree.look"

    def __init__(self, text: str, call: int, inputs: inspect.BoundArguments, output: PyTree, found: NonFinite):
        super().__init__(text)
        self.call = call
        """Which call of the step it was; the first one is 1."""
        self.inputs = inputs
        """The arguments: `step(*error.inputs.args, **error.inputs.kwargs)` runs the step again."""
        self.output = output
        """What the step returned."""
        self.found = found
        """Each leaf that is not finite, arguments first: `params/w`, `output/0/w`."""

    def __reduce__(self):
        return type(self), (self.args[0], self.call, self.inputs, self.output, self.found)


def guard(step: Callable[P, R], *, keep_donated: bool = True, ignore: Sequence[str] = ()) -> Guarded[P, R]:
    """A step that stops with an error as soon as something that it returns is NaN or infinite.

    >>> import jax, jax.numpy as jnp
    >>> @jax.jit
    ... def step(params, x):
    ...     return {"w": jnp.log(params["w"] - x)}, jnp.sum(x)
    >>> step, params = guard(step), {"w": jnp.array([2.0, 3.0])}
    >>> for _ in range(5):
    ...     params, loss = step(params, 1.0)
    Traceback (most recent call last):
    ptree.look.NonFiniteError: call 2 of step gave numbers that are not finite, from inputs that are all finite:
    'output/0/w': 2 of 2 are not finite, first at (0,)

    It looks at all that the step returns: parameters, state, loss, and gradients where the step returns them or what
    `observe` says of them. A call waits for the step, and then for one number from the device. `error.inputs` are the
    arguments of that call, for another run in a debugger.

    Arguments that the step donates are gone after it, so they are copied before each call, which takes as much memory
    again; without `keep_donated` they are not, and `error.inputs` holds deleted arrays in their place.

    Args:
        step: a function, jitted or not.
        keep_donated: whether arguments that the step donates are kept for the error.
        ignore: patterns of outputs that may be infinite, such as `"1/best_loss"`.

    Raises:
        PatternError: a pattern is malformed.
        NonFiniteError: raised by the guarded step.
        TypeError: the step is no function.
    """
    refuse_no_function(step, "guard(step)")
    return Guarded(step, keep_donated, [compile(pattern) for pattern in ignore])


class Guarded(Generic[P, R]):
    """A step that `guard` watches; `calls` counts how often it was called."""

    def __init__(self, step: Callable[P, R], keep_donated: bool, ignore: Sequence[Pattern]):
        update_wrapper(self, step)
        self.calls = 0
        self._step, self._ignore = step, ignore
        self._signature = _signature(step)
        self._donated: frozenset[str] | None = None if keep_donated else frozenset()
        """Paths of the inputs that are copied because the step donates them; None before the first call has shown it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._donated is None and _donates_nothing(self._step, args, kwargs):
            self._donated = frozenset()
        inputs = self._inputs(args, kwargs)
        kept = self._kept(inputs)
        output = self._step(*args, **kwargs)
        self.calls += 1
        if self._donated is None:
            self._donated = frozenset(path for path, leaf in leaves_of(inputs.arguments) if _is_deleted(leaf))
        checked = self._checked(output)
        if not _is_finite(checked):
            self._check_each(kept, checked, output)
        return output

    def _inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError:  # wrong arguments, for which the call itself has the better message
            return _ANY_ARGUMENTS.bind(*args, **kwargs)

    def _kept(self, inputs: inspect.BoundArguments) -> inspect.BoundArguments:
        """The inputs, with copies of what is donated; in the first call of everything, as that is not known yet."""
        donated = self._donated
        if donated == frozenset():
            return inputs

        arrays = {
            path: leaf
            for path, leaf in leaves_of(inputs.arguments)
            if _is_array(leaf) and (donated is None or path in donated)
        }
        return _with_leaves(inputs, _copies(arrays))

    def _checked(self, output: PyTree) -> dict[str, Leaf]:
        """Path -> array, for the outputs that must be finite."""
        found: dict[str, Leaf] = {}
        for path, leaf in leaves_of(output):
            about = signature(leaf)
            is_number = isinstance(leaf, float | complex) or (
                isinstance(about, tuple) and jnp.issubdtype(about[1], jnp.inexact)
            )
            if is_number and not any(pattern.matches(path) for pattern in self._ignore):
                found[path] = leaf
        return found

    def _check_each(self, kept: inspect.BoundArguments, checked: Mapping[str, Leaf], output: PyTree) -> None:
        """Raise if a number is not finite: a sum of squares is infinite also where one is larger than 1e19."""
        bad_outputs = nonfinite({_OUTPUT: checked} if checked.keys() != {""} else {_OUTPUT: checked[""]})
        if not bad_outputs:
            return
        bad_inputs = nonfinite({path: leaf for path, leaf in leaves_of(kept.arguments) if not _is_deleted(leaf)})
        found = NonFinite((*bad_inputs.rows, *bad_outputs.rows))
        text = _message(name_of(self._step), self.calls, bad_inputs, bad_outputs, _observed_leaves(output))
        raise NonFiniteError(text, self.calls, kept, output, found)


_ANY_ARGUMENTS = inspect.signature(lambda *args, **kwargs: None)


def _signature(step: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(step)
    except (TypeError, ValueError):  # some functions in C do not say it
        return _ANY_ARGUMENTS


def _donates_nothing(step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a jitted step says that it keeps all its arguments; JAX traces it for the call that follows as well."""
    if not isinstance(step, jax.stages.Wrapped):
        return False
    traced = step.trace(*args, **kwargs)
    return not any(argument.donated for argument in jax.tree.leaves(traced.args_info))


def _with_leaves(inputs: inspect.BoundArguments, leaves: Mapping[str, Leaf]) -> inspect.BoundArguments:
    arguments = {
        name: map_leaves(value, lambda path, leaf: leaves.get(path, leaf), f"{name}/")
        for name, value in inputs.arguments.items()
    }
    return inspect.BoundArguments(inputs.signature, arguments)  # pyright: ignore[reportArgumentType]


def _copies(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Copies of arrays, on their devices. One program for all takes a tenth of the time of one for each."""
    copies: dict[str, jax.Array] = {}
    for group in _by_devices(arrays).values():
        copies |= _copy_all(group)
    return copies


def _by_devices(leaves: Mapping[str, Leaf]) -> dict[frozenset[Any], dict[str, Leaf]]:
    """The leaves by the devices that they are on: a program takes arrays of one set of devices."""
    groups: dict[frozenset[Any], dict[str, Leaf]] = {}
    for path, leaf in leaves.items():
        devices = frozenset(leaf.sharding.device_set) if isinstance(leaf, jax.Array) else frozenset()
        groups.setdefault(devices, {})[path] = leaf
    return groups


@jax.jit
def _copy_all(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: jnp.copy(array) for path, array in arrays.items()}


def _is_array(leaf: Leaf) -> bool:
    return isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)


def _is_deleted(leaf: Leaf) -> bool:
    return _is_array(leaf) and leaf.is_deleted()


def _is_finite(leaves: Mapping[str, Leaf]) -> bool:
    """Whether the sum of squares of all leaves is finite: one number from the device, or from each set of devices."""
    if any(isinstance(leaf, Tracer) for leaf in leaves.values()):
        raise StructureError("a guarded step is called inside a jitted function. Guard the outer function")
    squares = [_squares(group) for group in _by_devices(leaves).values()]
    return all(bool(square < jnp.inf) for square in squares)


@jax.jit
def _squares(leaves: dict[str, Leaf]) -> jax.Array:
    """The sum of all squares: of everything that shows what is not finite it costs the least."""
    total = jnp.float32(0)
    for leaf in leaves.values():
        numbers = jnp.asarray(leaf)
        if jnp.issubdtype(numbers.dtype, jnp.complexfloating):
            numbers = jnp.abs(numbers)
        total += jnp.square(numbers.astype(jnp.float32)).sum()
    return total


def _message(name: str, call: int, inputs: NonFinite, outputs: NonFinite, observed: Sequence[str]) -> str:
    start = f"call {call} of {name} gave numbers that are not finite"
    if inputs:
        start += f". Its inputs were not finite before:\n{inputs}\nThen its outputs:"
    else:
        start += ", from inputs that are all finite:"
    text = f"{start}\n{outputs}"
    if observed:
        text += f"\nObserved, not finite or larger than 1e19: {', '.join(observed[:SHOWN])}"
        if len(observed) > SHOWN:
            text += f", and {len(observed) - SHOWN} more"
    return text


def _observed_leaves(output: PyTree) -> list[str]:
    """What `observe` says of the leaves of the step, by their own names: `grads of 'enc/w'`."""
    found: list[str] = []
    for observed in jax.tree.leaves(output, is_leaf=lambda node: isinstance(node, Observed)):
        if isinstance(observed, Observed):
            for name, group in observed.groups.items():
                rows = jnp.isfinite(group.numbers).all(-1).reshape(-1, len(group.paths)).all(0)
                found += [f"{name} of {quoted(path)}" for path, is_finite in zip(group.paths, rows) if not is_finite]
    return found
