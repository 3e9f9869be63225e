"""Graph: the ONNX graph under construction, with bodies of loops and branches, constants, casts and symbolic sizes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from .kernels import computed_dtype
from .sizes import evaluate, expression_of
from .values import Array, Shape, Shaped, Size, Value, broadcast_shape, is_static, same_size

Attribute: TypeAlias = "int | float | str | Sequence[int] | np.dtype | Body"
END = 2**62
"""The end of a slice that goes on to the end of an axis."""


@dataclass(frozen=True)
class Node:
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True)
class Typed:
    """An input or output of a graph."""

    name: str
    dtype: np.dtype
    shape: Shape


@dataclass
class Body:
    """The nodes of the whole graph, or of a loop's or branch's body inside of it."""

    is_branch: bool = False
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Typed] = field(default_factory=list)
    outputs: list[Typed] = field(default_factory=list)
    outputs_of: dict[Any, tuple[str, ...]] = field(default_factory=dict)
    """Operation, inputs and attributes -> outputs: the same is computed once."""


class Graph:
    """The ONNX graph under construction.

    A node is put into the outermost body in which its inputs are there, unless it is in a branch: what is the same in
    all iterations of a loop is computed once, before the loop.
    """

    def __init__(self, opset: int, reserved: Collection[str]):
        self.opset = opset
        self.main = Body()
        self.constants: dict[str, np.ndarray] = {}
        self.symbols: dict[str, str] = {}
        """Symbol -> the tensor i64[1] that has its value."""
        self._bodies = [self.main]
        self._levels: dict[str, int] = {}
        """Tensor -> the place in `_bodies` of the body that computes it; 0 where none is entered."""
        self._node_of: dict[str, Node] = {}
        """Tensor -> the node that computes it."""
        self._constant_of: dict[Any, str] = {}
        self._reserved = set(reserved)
        self._count: dict[str, int] = {}

    # ------------------------------------------------------------------------------- nodes

    def add(self, op: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node with one output, or find the one that computes the same; returns the output's name."""
        (output,) = self.add_many(op, 1, *inputs, **attributes)
        return output

    def add_many(self, op: str, count: int, *inputs: str, **attributes: Attribute) -> tuple[str, ...]:
        """`add` with so many outputs."""
        has_body = any(isinstance(value, Body) for value in attributes.values())
        level = len(self._bodies) - 1 if has_body else self._level_for(inputs)
        body = self._bodies[level]
        key = None if has_body else (op, inputs, count, repr(sorted(attributes.items())))
        if key in body.outputs_of:
            return body.outputs_of[key]
        outputs = tuple(self.new_name(op.lower()) for _ in range(count))
        node = Node(op, inputs, outputs, attributes)
        body.nodes.append(node)
        for output in outputs:
            self._levels[output] = level
            self._node_of[output] = node
        if key is not None:
            body.outputs_of[key] = outputs
        return outputs

    def add_output(self, name: str, value: Value) -> None:
        """Give a value the name of an output of the whole graph."""
        self.main.nodes.append(Node("Identity", (self.full(value),), (name,), {}))
        self.main.outputs.append(Typed(name, value.dtype, value.shape))

    def _level_for(self, inputs: Sequence[str]) -> int:
        level = max((self._levels.get(name, 0) for name in inputs), default=0)
        branches = [at for at, body in enumerate(self._bodies) if body.is_branch]
        return max(level, *branches) if branches else level

    def new_name(self, stem: str) -> str:
        """A name that no tensor has."""
        while True:
            count = self._count[stem] = self._count.get(stem, 0) + 1
            name = f"{stem}_{count}"
            if name not in self._reserved:
                return name

    def prune(self) -> None:
        """Leave out nodes and constants that no output of the whole graph depends on."""
        used = _prune(self.main)
        self.constants = {name: array for name, array in self.constants.items() if name in used}

    # ------------------------------------------------------------------------------- bodies

    @contextmanager
    def body(self, *, is_branch: bool = False) -> Iterator[Body]:
        """Enter the body of a loop or a branch: nodes are put there while the block runs."""
        inner = Body(is_branch)
        self._bodies.append(inner)
        try:
            yield inner
        finally:
            self._bodies.pop()

    def add_body_input(self, stem: str, shape: Shape, dtype: np.dtype) -> Value:
        """Add an input to the innermost body."""
        name = self.new_name(stem)
        self._levels[name] = len(self._bodies) - 1
        self._bodies[-1].inputs.append(Typed(name, dtype, shape))
        return Value(shape, dtype, name, shape)

    def add_body_output(self, value: Value) -> None:
        """Add an output to the innermost body; the same value may be several outputs."""
        name = self.new_name("result")
        body = self._bodies[-1]
        body.nodes.append(Node("Identity", (self.full(value),), (name,), {}))
        body.outputs.append(Typed(name, value.dtype, value.shape))

    # ------------------------------------------------------------------------------- values

    def tensor(self, value: Value) -> str:
        """The name of a value's tensor, which may still have to be broadcast."""
        if value.tensor:
            return value.tensor
        return self.constant(value.constant)

    def full(self, value: Value) -> str:
        """The name of a tensor with the value's whole shape."""
        if value.is_broadcast:
            return self.tensor(value)
        if any(same_size(size, 0) for size in value.shape):  # ONNX Runtime expands 1 to 0 places as to 1
            return self.cast(self.add("ConstantOfShape", self.sizes(value.shape)), value.dtype)
        return self.add("Expand", self.tensor(value), self.sizes(value.shape))

    def value(self, tensor: str, result: Shaped, tensor_shape: Shape | None = None) -> Value:
        """A tensor as a value of this shape and dtype; `tensor_shape` where the tensor is not broadcast yet."""
        return Value(result.shape, result.dtype, tensor, result.shape if tensor_shape is None else tensor_shape)

    def elementwise(self, op: str, result: Shaped, *values: Value, **attributes: Attribute) -> Value:
        """An operation that broadcasts its operands; `result` is its shape and dtype."""
        tensors = [self.tensor(value) for value in values]
        tensor = self.typed(op, values[0].dtype, result.dtype, *tensors, attributes=attributes)
        return self.value(tensor, result, broadcast_shape([value.tensor_shape for value in values]))

    def typed(
        self,
        op: str,
        dtype: np.dtype,
        result: np.dtype,
        *tensors: str,
        uncast: Collection[str] = (),
        attributes: Mapping[str, Attribute] = MappingProxyType({}),
    ) -> str:
        """An operation on tensors of one dtype, computed in a wider one where that of the tensors has no kernel.

        Args:
            result: the dtype of the output.
            uncast: inputs that are of a dtype of their own, such as axes.
        """
        computed = computed_dtype(op, dtype)
        if computed == dtype:
            return self.add(op, *tensors, **attributes)
        inputs = [tensor if tensor in uncast else self.cast(tensor, computed) for tensor in tensors]
        output = self.add(op, *inputs, **attributes)
        return output if result != dtype else self.cast(output, result)

    def cast(self, tensor: str, dtype: np.dtype | type) -> str:
        return self.add("Cast", tensor, to=np.dtype(dtype))

    def map(self, value: Value, result: Shaped, *ops: str) -> Value:
        """Operations on one operand, one after the other."""
        tensor = self.tensor(value)
        for op in ops:
            tensor = self.add(op, tensor)
        return self.value(tensor, result, value.tensor_shape)

    def multiple(self, tensor: str) -> tuple[str, float]:
        """The tensor of which a tensor is computed as a multiple, by nodes that negate or have one number, and the factor."""
        node = self._node_of.get(tensor)
        if node is None:
            return tensor, 1.0
        if node.op == "Neg":
            origin, factor = self.multiple(node.inputs[0])
            return origin, -factor
        if node.op not in ("Mul", "Div"):
            return tensor, 1.0
        left, right = node.inputs
        if node.op == "Mul" and self._one_number(left) is not None:
            left, right = right, left
        number = self._one_number(right)
        if not number:
            return tensor, 1.0
        origin, factor = self.multiple(left)
        return origin, factor * number if node.op == "Mul" else factor / number

    def _one_number(self, tensor: str) -> float | None:
        """The number of a constant of one; None of any other tensor."""
        constant = self.constants.get(tensor)
        return float(constant.item()) if constant is not None and constant.size == 1 else None

    # ---------------------------------------------------------------------------- constants

    def constant(self, array: Array) -> str:
        """The name of a constant; equal ones share it."""
        array = np.asarray(array)
        key = (array.dtype.name, array.shape, array.tobytes()) if array.nbytes <= 4096 else id(array)
        if key not in self._constant_of:
            name = self.new_name("constant")
            self.constants[name] = array
            self._constant_of[key] = name
        return self._constant_of[key]

    def number(self, value: float, dtype: np.dtype | type) -> str:
        """A constant without axes."""
        return self.constant(np.asarray(value, dtype))

    def numbers(self, values: Sequence[int]) -> str:
        """A constant i64[n]."""
        return self.constant(np.asarray(values, np.int64).reshape(-1))

    # -------------------------------------------------------------------------------- sizes

    def size(self, size: Size) -> str:
        """A size as a tensor i64[1]."""
        if is_static((size,)):
            return self.numbers([size])
        return evaluate(expression_of(size), lambda number: self.numbers([number]), self.symbols.__getitem__, self.add)

    def sizes(self, shape: Sequence[Size]) -> str:
        """Sizes as a tensor i64[n]."""
        if is_static(shape):
            return self.numbers(shape)
        return self.add("Concat", *map(self.size, shape), axis=0)

    def scalar(self, size: Size) -> str:
        """A size as a tensor i64[] without axes."""
        if is_static((size,)):
            return self.number(size, np.int64)
        return self.reshape(self.size(size), (1,), ())

    # ------------------------------------------------------------------------------- shapes

    def reshape(self, tensor: str, old: Shape, new: Shape) -> str:
        """Reshape a tensor, where possible without computing symbolic sizes."""
        if len(old) == len(new) and all(map(same_size, old, new)):
            return tensor
        short = _short_form(old, new)
        if short is not None:
            return self.add("Reshape", tensor, self.numbers(short))
        return self.add("Reshape", tensor, self.sizes(new), allowzero=1)

    def transpose(self, tensor: str, permutation: Sequence[int]) -> str:
        permutation = [int(axis) for axis in permutation]
        if permutation == sorted(permutation):
            return tensor
        return self.add("Transpose", tensor, perm=permutation)

    def unsqueeze(self, tensor: str, axes: Sequence[int]) -> str:
        return self.add("Unsqueeze", tensor, self.numbers(axes)) if axes else tensor

    def slice(
        self, tensor: str, starts: Sequence[Size], ends: Sequence[Size], axes: Sequence[int], steps: Sequence[int]
    ) -> str:
        if not axes:
            return tensor
        return self.add("Slice", tensor, self.sizes(starts), self.sizes(ends), self.numbers(axes), self.numbers(steps))


def _prune(body: Body) -> set[str]:
    """Leave out nodes of a body that nothing uses; returns the tensors that are used inside."""
    used = {output.name for output in body.outputs}
    kept: list[Node] = []
    for node in reversed(body.nodes):
        if used.isdisjoint(node.outputs):
            continue
        kept.append(node)
        used.update(node.inputs)
        for attribute in node.attributes.values():
            if isinstance(attribute, Body):
                used |= _prune(attribute)
    body.nodes = kept[::-1]
    return used


def _short_form(old: Shape, new: Shape) -> list[int] | None:
    """A shape with 0 for a symbolic size that stays in its place, and -1 for another one; None if there are more, or zeros."""
    if any(is_static((size,)) and size == 0 for size in (*old, *new)):
        return None  # would be read as a size that stays
    sizes: list[int] = []
    for axis, size in enumerate(new):
        if is_static((size,)):
            sizes.append(int(size))
        elif axis < len(old) and same_size(old[axis], size):
            sizes.append(0)
        else:
            sizes.append(-1)
    return sizes if sizes.count(-1) <= 1 else None
