"""Write an ONNX model from a graph: messages by the package onnx, weights streamed into the file leaf by leaf."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..._stored.drafts import draft, sweep
from ..._stored.locations import refuse_other_kinds
from ..._stored.operating_system import write_all
from ..._tree import Leaf
from .graph import Body, Graph, Node, Typed
from .stored_weights import External, data_path
from .values import is_static

LARGEST_MESSAGE = 2**31 - 2**20
"""Bytes: a larger file no reader of protobuf takes. Then the weights are in a file of their own."""
_SMALL = 1024
"""Bytes: smaller constants, such as shapes, which readers need before the weights, are always inside."""
_ALIGNED = 4096
"""Bytes: weights in a file of their own begin at pages, so that they can be mapped."""
# The numbers of fields in onnx.proto.
_GRAPH_OF_MODEL, _INITIALIZER_OF_GRAPH, _RAW_DATA_OF_TENSOR = 7, 5, 9


@dataclass(frozen=True)
class Model:
    """All that an ONNX file holds."""

    graph: Graph
    weights: Mapping[str, tuple[Leaf, np.dtype]]
    """Name -> numbers, and the dtype in which they are written."""
    external: Mapping[str, tuple[External, tuple[int, ...], np.dtype]]
    """Name -> place in another file, shape and dtype."""
    opset: int
    metadata: Mapping[str, str]


@dataclass
class _Layout:
    """Which weights go where."""

    inside: dict[str, tuple[Leaf, np.dtype]] = field(default_factory=dict)
    beside: dict[str, tuple[Leaf, np.dtype]] = field(default_factory=dict)


def dtype_code(onnx: Any, dtype: np.dtype) -> int:
    """ONNX's number of a dtype."""
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def write_model(onnx: Any, model: Model, path: str) -> None:
    """Write a model atomically; weights that are too large for one file go into a second one beside it.

    Args:
        onnx: the package.
    """
    all_weights = {
        **dict(model.weights),
        **{name: (array, array.dtype) for name, array in model.graph.constants.items()},
    }
    layout = _layout(all_weights)
    message = _message(onnx, model)
    place = Path(path)
    refuse_other_kinds(place)
    data_place = Path(data_path(path))
    for old in (place, data_place):
        sweep(old)
    with ExitStack() as opened:
        file = opened.enter_context(draft(place))
        beside = _beside(layout.beside, data_place.name)
        if beside:
            data_file = opened.enter_context(draft(data_place))
            for name, (leaf, dtype) in layout.beside.items():
                write_all(data_file, _bytes_of(leaf, dtype), beside[name].start)
        described = {name: (place, *_about(layout.beside[name])) for name, place in beside.items()}
        for name, about in {**model.external, **described}.items():
            message.graph.initializer.append(_external_tensor(onnx, name, *about))
        _write_message(onnx, file, message, layout.inside)


def _about(weight: tuple[Leaf, np.dtype]) -> tuple[tuple[int, ...], np.dtype]:
    leaf, dtype = weight
    return tuple(leaf.shape), dtype


def _size(leaf: Leaf, dtype: np.dtype) -> int:
    return math.prod(leaf.shape) * dtype.itemsize


def _layout(weights: Mapping[str, tuple[Leaf, np.dtype]]) -> _Layout:
    total = sum(_size(leaf, dtype) for leaf, dtype in weights.values())
    if total <= LARGEST_MESSAGE:
        return _Layout(inside=dict(weights))
    layout = _Layout()
    for name, (leaf, dtype) in weights.items():
        group = layout.inside if _size(leaf, dtype) < _SMALL else layout.beside
        group[name] = (leaf, dtype)
    return layout


def _beside(weights: Mapping[str, tuple[Leaf, np.dtype]], location: str) -> dict[str, External]:
    """Where each of these weights goes in a file beside the ONNX file."""
    places: dict[str, External] = {}
    end = 0
    for name, (leaf, dtype) in weights.items():
        start = -(-end // _ALIGNED) * _ALIGNED
        end = start + _size(leaf, dtype)
        places[name] = External(location, start, end - start)
    return places


def _bytes_of(leaf: Leaf, dtype: np.dtype) -> np.ndarray:
    """The bytes of a leaf in C order; of one on a GPU a copy."""
    array = np.asarray(leaf)
    if array.dtype != dtype:
        array = array.astype(dtype)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


# ------------------------------------------------------------------------ streaming


def _write_message(onnx: Any, file: int, message: Any, inside: Mapping[str, tuple[Leaf, np.dtype]]) -> None:
    """Write a model whose weights are added while it is written: in memory there is one leaf at a time.

    A message of protobuf is a sequence of fields, each a key, a length and bytes, in any order. The weights are further
    fields `initializer` at the end of the graph.
    """
    graph = message.graph.SerializeToString()
    message.ClearField("graph")
    heads: list[tuple[bytes, Leaf, np.dtype]] = []
    length = len(graph)
    for name, (leaf, dtype) in inside.items():
        head = _tensor_head(onnx, name, leaf, dtype)
        heads.append((head, leaf, dtype))
        length += len(head) + _size(leaf, dtype)
    start = message.SerializeToString() + _key(_GRAPH_OF_MODEL) + _varint(length) + graph
    write_all(file, start, 0)
    offset = len(start)
    for head, leaf, dtype in heads:
        write_all(file, head, offset)
        data = _bytes_of(leaf, dtype)
        write_all(file, data, offset + len(head))
        offset += len(head) + data.nbytes


def _tensor_head(onnx: Any, name: str, leaf: Leaf, dtype: np.dtype) -> bytes:
    """All of an initializer's field but the numbers at its end."""
    about = onnx.TensorProto(name=name, dims=leaf.shape, data_type=dtype_code(onnx, dtype)).SerializeToString()
    size = _size(leaf, dtype)
    about += _key(_RAW_DATA_OF_TENSOR) + _varint(size)
    return _key(_INITIALIZER_OF_GRAPH) + _varint(len(about) + size) + about


def _key(field_number: int) -> bytes:
    """The key of a field of bytes or of a message, whose length follows."""
    return _varint(field_number << 3 | 2)


def _varint(number: int) -> bytes:
    """A number in groups of 7 bits, the lowest first; the highest bit says that another group follows."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


# ------------------------------------------------------------------------- messages


def _message(onnx: Any, model: Model) -> Any:
    """The model without weights."""
    graph = _graph_message(onnx, model.graph.main, "main_graph")
    opsets = [onnx.helper.make_opsetid("", model.opset)]
    message = onnx.helper.make_model(
        graph,
        opset_imports=opsets,
        producer_name="ptree",
        ir_version=onnx.helper.find_min_ir_version_for(opsets),
    )
    onnx.helper.set_model_props(message, dict(model.metadata))
    return message


def _graph_message(onnx: Any, body: Body, name: str) -> Any:
    nodes = [_node_message(onnx, node) for node in body.nodes]
    inputs = [_typed_message(onnx, given) for given in body.inputs]
    outputs = [_typed_message(onnx, given) for given in body.outputs]
    return onnx.helper.make_graph(nodes, name, inputs, outputs)


def _node_message(onnx: Any, node: Node) -> Any:
    attributes: dict[str, Any] = {}
    for name, value in node.attributes.items():
        if isinstance(value, Body):
            value = _graph_message(onnx, value, f"{node.outputs[0]}_{name}")
        elif isinstance(value, np.dtype):
            value = dtype_code(onnx, value)
        attributes[name] = value
    return onnx.helper.make_node(node.op, node.inputs, node.outputs, name=node.outputs[0], **attributes)


def _typed_message(onnx: Any, given: Typed) -> Any:
    shape = [int(size) if is_static((size,)) else str(size) for size in given.shape]
    return onnx.helper.make_tensor_value_info(given.name, dtype_code(onnx, given.dtype), shape)


def _external_tensor(onnx: Any, name: str, place: External, shape: Sequence[int], dtype: np.dtype) -> Any:
    tensor = onnx.TensorProto(name=name, dims=shape, data_type=dtype_code(onnx, dtype))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place.location), ("offset", place.start), ("length", place.count)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return tensor
