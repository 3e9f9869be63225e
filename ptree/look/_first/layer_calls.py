"""Find where a traced function uses its parameters: calls of layers, with the values that flow in and out of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..._paths import STACKED
from .equations import Program, Scan, Step, is_float

_SHAPE_ONLY = {"reshape", "convert_element_type", "transpose", "squeeze", "broadcast_in_dim", "expand_dims", "copy"}
"""Primitives after which a value is still the output of the layer before: they change its shape or dtype alone."""

_ARITHMETIC = {"mul", "add", "sub", "div", "neg"}
"""Primitives between two uses of leaves of one node: of a scale and a bias, say, with a product by 1 / std between them."""

Names = np.ndarray
"""Paths of one leaf, an array of strings with an axis for each scan around: of its iterations, or of size 1 where all use the
same leaf."""


@dataclass(frozen=True)
class Call:
    """A use of the leaves of one node one after the other, such as a product with the kernel and a sum with the bias."""

    number: int
    names: Names
    """The paths of the layer: of the node that its leaves are in; of the leaf where the node has several calls."""
    source: int
    """The number of the value that flows in."""
    output: int


@dataclass(frozen=True)
class Loop:
    """A scan with calls inside."""

    calls: tuple[Call | Loop, ...]
    length: int


@dataclass(frozen=True)
class Calls:
    """The calls of a program, by the place of the equation that each ends with, and the loops, by that of their scan."""

    ends: dict[int, list[Call]] = field(default_factory=dict)
    loops: dict[int, Calls] = field(default_factory=dict)

    def in_order(self, program: Program) -> tuple[Call | Loop, ...]:
        """The calls in the order in which they are computed."""
        ordered: list[Call | Loop] = []
        for at, step in enumerate(program.steps):
            ordered += self.ends.get(at, [])
            if at in self.loops and step.scan is not None:
                inner = self.loops[at].in_order(step.scan.body)
                ordered.append(Loop(inner, step.scan.length))
        return tuple(ordered)


def find_calls(program: Program, names: Sequence[str | None]) -> Calls:
    """Find the calls of layers; `names` has the path of each input that is a leaf, and None of what flows through."""
    leaves = {number: (np.array(name, object),) for number, name in zip(program.inputs, names) if name is not None}
    flowing = {number for number, name in zip(program.inputs, names) if name is None}
    return _Finder(program, leaves, flowing, _Counter()).found()


@dataclass
class _Counter:
    value: int = 0

    def next(self) -> int:
        self.value += 1
        return self.value - 1


@dataclass
class _Use:
    """A chain of uses of leaves of one node."""

    node: Names
    leaf: Names
    source: int
    output: int
    end: int
    scope: int
    """The call of a function that all of it is in; 0 if there is none."""


class _Finder:
    """Goes through the equations in order, and tells values that depend on the input from those of leaves alone."""

    def __init__(self, program: Program, leaves: dict[int, tuple[Names, ...]], flowing: set[int], counter: _Counter):
        self.program, self.leaves, self.flowing, self.counter = program, leaves, flowing, counter
        self.uses: list[_Use] = []
        self.use_of: dict[int, _Use] = {}
        """A value that is the output of a use so far, also in another shape -> that use."""
        self.loops: dict[int, Calls] = {}

    def found(self) -> Calls:
        for at, step in enumerate(self.program.steps):
            self._visit_step(at, step)
        ends: dict[int, list[Call]] = {}
        for use in self.uses:
            ends.setdefault(use.end, []).append(self._call(use))
        return Calls(ends, self.loops)

    def _visit_step(self, at: int, step: Step) -> None:
        flows = any(number in self.flowing for number in step.inputs)
        leaves = _merged(self.leaves.get(number, ()) for number in step.inputs)
        if not flows:
            if leaves:
                self.leaves.update(dict.fromkeys(step.outputs, leaves))
            return
        self.flowing.update(step.outputs)
        if step.scan is not None:
            self._visit_inner_program(at, step, step.scan)
        elif leaves:
            self._add_use(at, step, leaves)
        else:
            self._carry_signals(step)

    def _carry_signals(self, step: Step) -> None:
        """Keep a value as the output of a use through equations that may stand inside of a layer."""
        name = step.equation.primitive.name
        uses = [self.use_of[number] for number in step.inputs if number in self.use_of]
        if not uses:
            return
        is_inside = name in _ARITHMETIC and all(uses[-1].node.flat)
        if name in _SHAPE_ONLY or is_inside:
            self.use_of[step.outputs[0]] = uses[-1]

    def _add_use(self, at: int, step: Step, leaves: tuple[Names, ...]) -> None:
        shapes = self.program.shapes
        outputs = [number for number in step.outputs if is_float(shapes[number])]
        if not outputs:
            return
        source = self._floating([number for number in step.inputs if number in self.flowing])
        node = _node(leaves)
        before = self.use_of.get(source)
        if before is not None and _is_same(before.node, node):
            before.output, before.end = outputs[0], at
            before.scope = step.scope if step.scope == before.scope else 0
            self.use_of[outputs[0]] = before
            return
        use = _Use(node, _common(leaves), source, outputs[0], at, step.scope)
        self.uses.append(use)
        self.use_of[outputs[0]] = use

    def _call(self, use: _Use) -> Call:
        is_alone = all(_is_same(other.leaf, use.leaf) for other in self.uses if _is_same(other.node, use.node))
        # the leaves of the root have no node with a name
        has_name = all(use.node.flat)
        names = use.node if is_alone and has_name else use.leaf
        return Call(self.counter.next(), names, self._source(use), use.output)

    def _source(self, use: _Use) -> int:
        """What flows in: into the compiled call that is this layer's alone, or else into its first equation.

        The first equation with a leaf of a norm comes after it has divided by the standard deviation of what flows in.
        """
        is_shared = any(other.scope == use.scope for other in self.uses if other is not use)
        if not use.scope or is_shared:
            return use.source
        flowing = [number for number in self.program.scopes[use.scope] if number in self.flowing]
        return self._floating(flowing) if flowing else use.source

    def _floating(self, numbers: Sequence[int]) -> int:
        """The first value of floats, rather than tokens or a mask; the first value where there is none."""
        floats = [number for number in numbers if is_float(self.program.shapes[number])]
        return (floats or numbers)[0]

    def _visit_inner_program(self, at: int, step: Step, scan: Scan) -> None:
        body, same, carried, length = scan.body, scan.same, scan.carried, scan.length
        leaves: dict[int, tuple[Names, ...]] = {}
        flowing: set[int] = set()
        for place, (outside, inside) in enumerate(zip(step.inputs, body.inputs)):
            names = self.leaves.get(outside, ())
            if same <= place < same + carried or outside in self.flowing:
                flowing.add(inside)
            elif names and place < same:
                leaves[inside] = tuple(name[..., None] for name in names)
            elif names:
                leaves[inside] = _of_iterations(names, length)
        calls = _Finder(body, leaves, flowing, self.counter).found()
        if calls.ends or calls.loops:
            self.loops[at] = calls


# ------------------------------------------------------------------------------ names


def _merged(several: Iterable[tuple[Names, ...]]) -> tuple[Names, ...]:
    """The names of several values, each once."""
    by_text: dict[tuple[str, ...], Names] = {}
    for names in several:
        by_text.update({tuple(name.flat): name for name in names})
    return tuple(by_text.values())


def _of_iterations(names: tuple[Names, ...], length: int) -> tuple[Names, ...]:
    """The names in each iteration of a scan, of a stacked leaf or of so many leaves that were stacked for it."""
    if len(names) == length and length > 1:
        return (np.stack(names, -1),)
    return tuple(np.stack([_of_layer(name, at) for at in range(length)], -1) for name in names)


def _of_layer(names: Names, at: int) -> Names:
    return _mapped(lambda path: _path_of_layer(path, at), names)


def _path_of_layer(path: str, at: int) -> str:
    segments = path.split("/")
    if STACKED not in segments:
        return f"{path}[{at}]"
    segments[segments.index(STACKED)] = str(at)
    return "/".join(segments)


def _node(leaves: tuple[Names, ...]) -> Names:
    """The node that the leaves are in; of leaves from several nodes the node around them."""
    return _common(tuple(_mapped(_parent, leaf) for leaf in leaves))


def _parent(path: str) -> str:
    parent, _, name = path.rpartition("/")
    layer = name[name.index("[") :] if name.endswith("]") else ""
    return parent + layer


def _common(several: tuple[Names, ...]) -> Names:
    common = several[0]
    for names in several[1:]:
        first, second = np.broadcast_arrays(common, names)
        pairs = [_common_path(one, other) for one, other in zip(first.flat, second.flat)]
        common = np.array(pairs, object).reshape(first.shape)
    return common


def _common_path(one: str, other: str) -> str:
    shared: list[str] = []
    for left, right in zip(one.split("/"), other.split("/")):
        if left != right:
            break
        shared.append(left)
    return "/".join(shared)


def _mapped(function: Callable[[str], str], names: Names) -> Names:
    return np.array([function(name) for name in names.flat], object).reshape(names.shape)


def _is_same(one: Names, other: Names) -> bool:
    return one.shape == other.shape and bool((one == other).all())
