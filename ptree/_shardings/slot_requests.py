"""Rules for slots: a PartitionSpec that a rule gives a slot is for the axes of one layer of the parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jax.sharding import NamedSharding, PartitionSpec

from .._tree import Leaf, Leaves, stacked_axes
from .._words import describe, lines, quoted
from .meshes import ShardingError
from .request import Request
from .slot_axes import possible_axes, slot_role
from .slot_parameters import Followed
from .spec_fit import Shape


def slot_requests(
    given: Mapping[str, Request], pairs: Leaves, parameter_of: Mapping[str, str], parameters: Mapping[str, Followed]
) -> dict[str, Request]:
    """What rules give the leaves of a state, with entries for the axes of the parameters of slots: path -> request.

    Args:
        given: what the rules give, by the paths of the state.
        pairs: the leaves of the state, in listing order.
        parameter_of: path of a slot -> that of its parameter.
        parameters: path -> shape.

    Raises:
        ShardingError: slots of which it is unclear which axes of the parameter they have.
    """
    made: dict[tuple[int, tuple[bool, ...]], Request] = {}  # few, which many slots share
    found: dict[str, Request] = {}
    problems: list[str] = []
    for path, leaf in pairs:
        if path not in given:
            continue
        request = found[path] = given[path]
        name = parameter_of.get(path)
        if name is None or _has_no_entries(request):
            continue
        whole = parameters[name].shape
        if not request.stack_axes and leaf.shape == whole:  # most slots
            continue
        has_entry = _axes_with_entry(request, path, tuple(leaf.shape), name, whole)
        if has_entry is None:
            problems.append(_unclear(request, path, leaf, name, whole))
            continue
        key = id(request), has_entry
        if key not in made:
            made[key] = replace(request, stack_axes=has_entry, of_parameter=True)
        found[path] = made[key]
    if problems:
        raise ShardingError(lines(problems))
    return found


def _has_no_entries(request: Request) -> bool:
    """Whether nothing is divided, whatever the axes are."""
    given = request.given
    spec = given.spec if isinstance(given, NamedSharding) else given
    return isinstance(spec, PartitionSpec) and not any(spec)


def _axes_with_entry(request: Request, path: str, shape: Shape, name: str, whole: Shape) -> tuple[bool, ...] | None:
    """For each axis of a slot, whether the spec of a rule has an entry for it; None where that is unclear.

    That is so for the axes of one layer of the parameter, and for those of stacks that the rule spells. A stack that is in the
    path twice has one axis, which the rule may spell at either place.
    """
    stacks = stacked_axes(name)
    in_front = request.stack_axes[: len(request.stack_axes) - stacks]
    spelled = request.stack_axes[len(in_front) :]
    role = slot_role(path, name)
    if role.layers:
        first, last = role.stacks_before, role.stacks_before + role.layers
        spelled = tuple(once or again for once, again in zip(spelled, in_front[first:last], strict=True))
        in_front = in_front[:first] + in_front[last:]
    of_parameter = [*spelled, *[True] * (len(whole) - stacks)]
    possible = possible_axes(role, shape, whole, of_parameter)
    if len(possible) > 1:
        return None
    if not possible:  # an array of another kind, by the name of the parameter
        is_of_layers = shape[:stacks] == whole[:stacks]
        return (*spelled, *[True] * (len(shape) - stacks)) if is_of_layers else (False,) * len(shape)
    more = iter(in_front)  # a state that is in a stack itself has the axis of that in front; a history is in no path
    return tuple(next(more, False) if axis is None else of_parameter[axis] for axis in possible[0])


def _unclear(request: Request, path: str, leaf: Leaf, name: str, whole: Shape) -> str:
    return (
        f"the rule {quoted(request.rule)} gives {quoted(path)}, {describe(leaf)}, {request.given}, and it is unclear which axes of"
        f" {quoted(name)}, of shape {whole}, it has: give it P() by a rule that comes before, or spell the stack ':' in the rule"
    )
