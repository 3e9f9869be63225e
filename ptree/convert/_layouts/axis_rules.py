"""What the axes of arrays become in one step of a JAX function: elementwise steps, transposes, reshapes, sums, slices, products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from jax.extend.core import JaxprEqn, Literal, Var

from .axis_order import BATCH, CHANNELS, FIXED, UNIFORM, Axes, axes_of, is_mixed, joined_axes, reshaped
from .framework import Shape

_Array: TypeAlias = tuple[Axes, ...]
"""For each axis of an array, what it is made of."""

ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp",
    "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "log2", "logistic", "lt", "max",
    "min", "mul", "ne", "neg", "nextafter", "not", "one_minus_square", "or", "polynomial", "pow", "reduce_precision", "rem",
    "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
))  # fmt: skip
_REDUCTIONS = frozenset(("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"))
_ALONG_ONE_AXIS = {
    "cumsum": "axis", "cumprod": "axis", "cummax": "axis", "cummin": "axis", "cumlogsumexp": "axis", "sort": "dimension", "split": "axis", "top_k": "axis",
}  # fmt: skip
"""Steps along one axis, of which each place depends on the order -> their parameter with the number of the axis."""


def axes_after(step: JaxprEqn, inputs: Sequence[_Array]) -> Sequence[_Array] | None:
    """The axes of each output of a step; None where they do not keep an order that both frameworks have."""
    name = step.primitive.name
    if name in ELEMENTWISE:
        return _one(_elementwise(inputs))
    if name in _ALONG_ONE_AXIS:
        return _along(step, inputs, [step.params[_ALONG_ONE_AXIS[name]]])
    if name == "rev":
        return _along(step, inputs, step.params["dimensions"])
    if name == "unstack":
        return _unstacked(step, inputs)
    rule = _RULES.get(name)
    return None if rule is None else _one(rule(step, inputs))


def _one(output: _Array | None) -> list[_Array] | None:
    return None if output is None else [output]


def shape_of(variable: Var | Literal) -> Shape:
    about: Any = variable.aval
    return getattr(about, "shape", ())  # a token has none


def _elementwise(inputs: Sequence[_Array]) -> _Array | None:
    arrays = [value for value in inputs if value]  # without numbers
    if not arrays:
        return ()
    result = arrays[0]
    for other in arrays[1:]:
        joined = [joined_axes(one, two) for one, two in zip(result, other, strict=True)]
        whole = [axes for axes in joined if axes is not None]
        if len(whole) < len(joined):
            return None
        result = tuple(whole)
    return result


def _along(step: JaxprEqn, inputs: Sequence[_Array], changed: Sequence[int]) -> list[_Array] | None:
    """The axes after a step that moves places along some axes, which must be single ones."""
    whole = _elementwise(inputs)
    if whole is None:
        return None
    after = [_changed(whole, shape_of(output), changed) for output in step.outvars]
    known = [axes for axes in after if axes is not None]
    return known if len(known) == len(after) else None


def _changed(axes: _Array, shape: Shape, changed: Sequence[int]) -> _Array | None:
    """The axes where single ones get other sizes, and their places are moved."""
    result = [*axes]
    for at in changed:
        if is_mixed(axes[at]):
            return None
        if axes[at]:
            result[at] = axes_of(axes[at][0].position, shape[at])
        elif shape[at] != 1:
            return None
    return tuple(result)


def _without(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array:
    """The axes after a step that removes some: the order along these does not matter."""
    name = "axes" if "axes" in step.params else "dimensions"
    return tuple(axes for at, axes in enumerate(inputs[0]) if at not in step.params[name])


def _best_place(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    """The axes after `argmax`, which gives numbers of places."""
    removed = step.params["axes"]
    return None if any(is_mixed(inputs[0][at]) for at in removed) else _without(step, inputs)


def _transposed(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array:
    return tuple(inputs[0][at] for at in step.params["permutation"])


def _reshaped(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    if step.params["dimensions"] is not None:  # another order than C
        return None
    return reshaped(inputs[0], step.params["new_sizes"])


def _broadcast(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array:
    shape, places = step.params["shape"], step.params["broadcast_dimensions"]
    result = [axes_of(UNIFORM, size) for size in shape]
    for axes, place in zip(inputs[0], places, strict=True):
        if axes:  # of another size than 1, so of the size of the output
            result[place] = axes
    return tuple(result)


def _resized(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    """The axes after a step that takes places from the start of some axes, or every second one."""
    before, after = shape_of(step.invars[0]), shape_of(step.outvars[0])
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    return _changed(inputs[0], after, changed)


def _padded(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    """The axes after a padding, which may also shift an axis and leave its size."""
    changed = [at for at, sides in enumerate(step.params["padding_config"]) if any(sides)]
    return _changed(inputs[0], shape_of(step.outvars[0]), changed)


def _windowed(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    """The axes after a pool."""
    changed = [
        at for at, size in enumerate(step.params["window_dimensions"]) if size > 1 or any(step.params["padding"][at])
    ]
    return _changed(inputs[0], shape_of(step.outvars[0]), changed)


def _tiled(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    return _changed(
        inputs[0], shape_of(step.outvars[0]), [at for at, count in enumerate(step.params["reps"]) if count > 1]
    )


def _concatenated(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    at = step.params["dimension"]
    whole = _elementwise([(*axes[:at], (), *axes[at + 1 :]) for axes in inputs])
    along = {axis.position for axes in inputs for axis in axes[at][:1]}
    positions = {position for position in along if position >= 0} or along or {_new_position(whole or (), at)}
    if whole is None or len(positions) != 1 or any(is_mixed(axes[at]) for axes in inputs):
        return None
    return (*whole[:at], axes_of(positions.pop(), shape_of(step.outvars[0])[at]), *whole[at + 1 :])


def _stacked(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    whole = _elementwise(inputs)
    if whole is None:
        return None
    at = step.params["axis"]
    single = (*whole[:at], (), *whole[at:])
    return (*whole[:at], axes_of(_new_position(single, at), len(inputs)), *whole[at:])


def _unstacked(step: JaxprEqn, inputs: Sequence[_Array]) -> list[_Array] | None:
    at = step.params["axis"]
    if is_mixed(inputs[0][at]):
        return None
    return [(*inputs[0][:at], *inputs[0][at + 1 :])] * len(step.outvars)


def _new_position(axes: _Array, at: int) -> int:
    """The position of an axis along which arrays of size 1 are put together: they may be single channels."""
    is_last = at == len(axes) - 1
    has_channels = any(axis.position == CHANNELS for parts in axes for axis in parts)
    return CHANNELS if is_last and not has_channels else BATCH


def _product(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    """The axes of a product of matrices; that with a constant matrix is a function along the axes that it sums over."""
    (summed_left, summed_right), (batch_left, batch_right) = step.params["dimension_numbers"]
    left, right = inputs
    summed = _elementwise([_chosen(left, summed_left), _chosen(right, summed_right)])
    batch = _elementwise([_chosen(left, batch_left), _chosen(right, batch_right)])
    if summed is None or batch is None:
        return None
    free_left = [axes for at, axes in enumerate(left) if at not in (*summed_left, *batch_left)]
    free_right = [axes for at, axes in enumerate(right) if at not in (*summed_right, *batch_right)]
    free = [_moved(axes, summed) for axes in (*free_left, *free_right)]
    return (*batch, *free)


def _chosen(array: _Array, places: Sequence[int]) -> _Array:
    return tuple(array[at] for at in places)


def _moved(free: Axes, summed: Sequence[Axes]) -> Axes:
    """A free axis of a matrix; one of a constant matrix comes in the place of the axes that are summed over."""
    positions = [axis.position for axes in summed for axis in axes]
    is_constant = any(axis.position == FIXED for axis in free)
    if not is_constant or not positions:
        return free
    position = CHANNELS if CHANNELS in positions else positions[0]
    size = 1
    for axis in free:
        size *= axis.size
    return axes_of(position, size)


def _gathered(step: JaxprEqn, inputs: Sequence[_Array]) -> _Array | None:
    """The axes after indexing by an array: one axis gets other places, or none is left of it."""
    about, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    before, after = inputs[0], shape_of(step.outvars[0])
    places = [at for at in range(len(after)) if at not in about.offset_dims]
    indexed = about.start_index_map
    if about.operand_batching_dims or len(indexed) != 1 or len(places) > 1 or is_mixed(before[indexed[0]]):
        return None
    kept = [at for at in range(len(before)) if at not in about.collapsed_slice_dims]
    result: list[Axes] = [()] * len(after)
    for place, at in zip(about.offset_dims, kept, strict=True):
        result[place] = before[at] if sizes[at] == after[place] and at not in indexed else ()
    for place in places:
        position = before[indexed[0]][0].position if before[indexed[0]] else UNIFORM
        result[place] = axes_of(position, after[place])
    is_part = any(at in indexed and sizes[at] > 1 for at in kept)
    return None if is_part else tuple(result)


_RULES: dict[str, Callable[[JaxprEqn, Sequence[_Array]], _Array | None]] = {
    **dict.fromkeys((*_REDUCTIONS, "squeeze"), _without),
    **dict.fromkeys(("argmax", "argmin"), _best_place),
    **dict.fromkeys(("slice", "dynamic_slice"), _resized),
    **dict.fromkeys(("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"), _windowed),
    "transpose": _transposed,
    "reshape": _reshaped,
    "broadcast_in_dim": _broadcast,
    "pad": _padded,
    "tile": _tiled,
    "concatenate": _concatenated,
    "stack": _stacked,
    "dot_general": _product,
    "gather": _gathered,
}
