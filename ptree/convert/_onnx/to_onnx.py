"""to_onnx: write a function of parameters and inputs as an ONNX file, which other software runs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._errors import FileError
from ..._stored.locations import checked_path
from ..._tree import PyTree, aliases
from ..._words import in_bytes, lines, quoted, short_dtype
from ...files._cast import lost_value
from . import (  # noqa: F401  registers the rules
    calls,
    casts,
    convolutions,
    elementwise,
    error_function,
    gather,
    loops,
    numerics,
    pools,
    products,
    reductions,
    scatter,
    shapes,
    slices,
    sorting,
)
from .graph import Graph, Typed
from .model_file import Model, write_model
from .sizes import expression_of
from .stored_weights import External, find_stored
from .traced import Input, Parameter, Traced, trace
from .translation import Problem, Translation
from .values import Value, is_static

OPSET = 21
_LOWEST_OPSET = 18
"""From which on reductions take their axes as an input."""
_PACKED = {"int2", "uint2", "int4", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"}


@dataclass(frozen=True)
class OnnxFile:
    """What `to_onnx` wrote.

    >>> import tempfile, jax.numpy as jnp
    >>> from ptree import convert
    >>> path = tempfile.mkdtemp() + "/double.onnx"
    >>> written = convert.to_onnx(lambda params, x: params["w"] * x, {"w": jnp.ones(2)}, jnp.ones(2), path=path)
    >>> written.inputs, written.outputs, written.weights_inside
    ({'x': 'f32[2]'}, {'output': 'f32[2]'}, 8)
    """

    path: str
    """The file that was written."""
    inputs: dict[str, str]
    """Name -> dtype and shape, such as `i32[batch,length]`."""
    outputs: dict[str, str]
    """Name -> dtype and shape."""
    weights_inside: int
    """Bytes of parameters in the ONNX file; above 2 GB in `<path>.data` beside it."""
    weights_outside: int
    """Bytes of weights that are read from the file of `weights=`."""
    notes: tuple[str, ...]
    """Parameters that `weights=` does not hold as they are needed, which were copied into the ONNX file."""

    def __repr__(self) -> str:
        given = [f"{name}: {about}" for name, about in self.inputs.items()]
        result = [f"{name}: {about}" for name, about in self.outputs.items()]
        sizes = f"{in_bytes(self.weights_inside)} of weights inside"
        if self.weights_outside:
            sizes += f", {in_bytes(self.weights_outside)} outside"
        text = f"OnnxFile({self.path!r}: {', '.join(given)} -> {', '.join(result)}; {sizes})"
        return lines([text, *self.notes])


def to_onnx(
    f: Callable[..., PyTree],
    params: PyTree,
    *inputs: PyTree,
    path: str | os.PathLike[str],
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    weights: str | os.PathLike[str] = "inside",
    opset: int = OPSET,
) -> OnnxFile:
    """Write a function as an ONNX file, for ONNX Runtime and other software without JAX.

    >>> import tempfile, jax, jax.numpy as jnp
    >>> from ptree import convert, nn
    >>> net = nn.Sequential(nn.Dense(16), jax.nn.relu, nn.Dense(3))
    >>> params = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> (batch,) = jax.export.symbolic_shape("batch")
    >>> x = jax.ShapeDtypeStruct((batch, 4), "float32")
    >>> convert.to_onnx(net, params, x, path=tempfile.mkdtemp() + "/net.onnx")
    OnnxFile('...net.onnx': input: f32[batch,4] -> output: f32[batch,3]; 524 B of weights inside)

    `f(params, *inputs)` is any function that JAX can trace: a layer of `ptree.nn`, or one of Flax, Equinox or Haiku. A size
    that is a symbol of `jax.export.symbolic_shape` is left open. Loops stay loops, equations that no output
    depends on are left out, and so is dropout that is given no key. Parameters keep their paths as names, and one
    that is tied is written once.

    The dtype of an input is the one in `inputs`: tokenizers mostly give int64, which JAX without x64 cannot make, so
    give a `jax.ShapeDtypeStruct` of int64. In bfloat16, and with convolutions or erf in float64, the file is valid, but ONNX
    Runtime's CPU cannot run it. NaN is handled as in JAX, but for maxima and minima of windows (pooling) and of numbers
    that are scattered to one place: there ONNX Runtime may leave NaN out, and gives the lowest number where all are -inf.
    Floats become integers as in JAX: the nearest one for a number out of range, 0 for NaN. Sums, products and powers of
    integers that overflow wrap in JAX, and in ONNX Runtime they may be the nearest integer there is. Sizes of inputs that
    share a symbol are not compared: ONNX Runtime broadcasts a size of 1, where JAX refuses it.

    Args:
        f: any function of `params` and inputs that JAX can trace.
        params: a Tree or any other pytree; leaves that are no arrays are constants of the function.
        inputs: arrays, of which shape and dtype count, or `jax.ShapeDtypeStruct`s, or pytrees of them.
        path: the file, which is replaced at once when it is whole.
        input_names: by default the names of the function's arguments.
        output_names: by default `output`; of several `output_0`, ..., or the keys of a dict.
        weights: "inside", or a safetensors file in the same folder or below, which `ptree.save` wrote: the ONNX file then
            points to places in it and holds only what is stored there in another dtype or shape, such as a stack of layers
            that the file has one by one. Then params may be a spec, without numbers; numbers that are given are compared
            with the file. Export again whenever that file is saved again: ONNX Runtime would read other numbers, unnoticed.
        opset: the version of ONNX's operations, at least 18.

    Returns:
        The inputs and outputs, and where the weights are.

    Raises:
        FileError: operations that have no ONNX form, each with the line it comes from; weights that do not fit, or that
            32 bits do not hold where JAX computes in them; names that are used twice. Nothing is written then.
        ImportError: the package onnx is not installed.
    """
    onnx = _package()
    place = checked_path(path, "to_onnx(f, params, *inputs, path=...)")
    _check_opset(onnx, opset)
    traced = trace(f, params, inputs, input_names, output_names)
    _check_dtypes(place, traced)
    external, notes = _external(traced, weights, place)
    graph, problems = _translated(traced, opset)
    if problems:
        raise FileError(_refusal(place, problems))
    tied = {alias: tie.source for alias, tie in aliases(params).items()}
    inside = _distinct([parameter for parameter in traced.parameters if parameter.name not in external])
    model = Model(
        graph=graph,
        weights={parameter.name: (parameter.leaf, parameter.dtype) for parameter in inside},
        external=_described(traced.parameters, external),
        opset=opset,
        metadata={f"ptree.tie:{alias}": source for alias, source in tied.items()},
    )
    write_model(onnx, model, place)
    count = sum(math.prod(parameter.shape) * parameter.dtype.itemsize for parameter in inside)
    outside = sum(part.count for part in external.values())
    return OnnxFile(
        place, _shown(graph.main.inputs), _shown(graph.main.outputs), count, outside,
        tuple(f"{quoted(name)} {reason}: copied into the ONNX file" for name, reason in notes.items()),
    )  # fmt: skip


def _package() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError("to_onnx needs onnx: pip install 'ptree-jax[onnx]'") from error
    return onnx


def _check_opset(onnx: Any, opset: int) -> None:
    highest = onnx.defs.onnx_opset_version()
    if not _LOWEST_OPSET <= opset <= highest:
        raise FileError(f"expected an opset from {_LOWEST_OPSET} to {highest}, which the package onnx has, got {opset}")


# ----------------------------------------------------------------------------- translation


def _translated(traced: Traced, opset: int) -> tuple[Graph, list[Problem]]:
    name_of = {id(parameter.leaf): parameter.name for parameter in reversed(traced.parameters)}
    names = {parameter.name for parameter in traced.parameters}
    graph = Graph(opset, {*names, *(given.name for given in traced.inputs), *traced.outputs})
    values: list[Value] = []
    for parameter in traced.parameters:
        # one array at two places is written once
        name = name_of[id(parameter.leaf)] if parameter.has_numbers else parameter.name
        values.append(Value(parameter.shape, parameter.dtype, name, parameter.shape))
    for given in traced.inputs:
        values.append(_input_value(graph, given))
    translation = Translation(graph, frozenset(names))
    with _on_cpu():
        outputs = translation.run(traced.jaxpr.jaxpr, traced.jaxpr.consts, values)
    if not translation.problems:
        for name, value in zip(traced.outputs, outputs):
            graph.add_output(name, value)
        graph.prune()
    return graph, translation.problems


def _on_cpu() -> AbstractContextManager[None]:
    """Compute constants on the CPU, where JAX has it."""
    try:
        devices = jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return nullcontext()
    return jax.default_device(devices[0])


def _input_value(graph: Graph, given: Input) -> Value:
    graph.main.inputs.append(Typed(given.name, given.dtype, given.shape))
    for axis, size in enumerate(given.shape):
        expression = None if is_static((size,)) else expression_of(size)
        if isinstance(expression, str) and expression not in graph.symbols:
            graph.symbols[expression] = graph.add("Shape", given.name, start=axis, end=axis + 1)
    dtype = jax.dtypes.canonicalize_dtype(given.dtype)
    tensor = given.name if dtype == given.dtype else graph.cast(given.name, dtype)
    return Value(given.shape, dtype, tensor, given.shape)


def _refusal(path: str, problems: Sequence[Problem]) -> str:
    different = list(dict.fromkeys(map(_line, problems)))
    count = "an operation has" if len(different) == 1 else f"{len(different)} operations have"
    return f"cannot write {path!r}: {count} no form in ONNX that ptree writes\n{lines(different)}"


def _line(problem: Problem) -> str:
    text = problem.primitive
    if problem.reason:
        text += f" ({problem.reason})"
    if problem.source:
        text += f", {problem.source}"
    if problem.parameter:
        text += f", after the parameter {quoted(problem.parameter)}"
    return text


# --------------------------------------------------------------------------------- weights


def _check_dtypes(path: str, traced: Traced) -> None:
    """Refuse parameters of less than a byte, which ONNX packs and NumPy does not, and numbers that 32 bits do not hold."""
    problems: list[str] = []
    for parameter in traced.parameters:
        if parameter.dtype.name in _PACKED:
            problems.append(
                f"{quoted(parameter.name)} is of {parameter.dtype.name}, and ONNX packs numbers of less than a byte; cast it"
            )
        elif parameter.has_numbers and parameter.leaf.dtype != parameter.dtype:
            lost = lost_value(parameter.leaf, parameter.dtype)
            if lost:
                problems.append(
                    f"{quoted(parameter.name)} has {lost}, which {parameter.dtype} does not hold; set jax_enable_x64 to write it"
                    f" in {parameter.leaf.dtype}"
                )
    if problems:
        raise FileError(f"cannot write {path!r}\n{lines(problems)}")


def _external(traced: Traced, weights: str | os.PathLike[str], path: str) -> tuple[dict[str, External], dict[str, str]]:
    """Where parameters are in the file of `weights`, and why others are not read from there."""
    parameters = _distinct(traced.parameters)
    if os.fspath(weights) == "inside":
        empty = [quoted(parameter.name) for parameter in parameters if not parameter.has_numbers]
        if empty:
            raise FileError(f"cannot write {path!r}: no numbers for\n{lines(empty)}\nGive weights=, a file of them")
        return {}, {}
    return find_stored(checked_path(weights, "to_onnx(weights=...)"), parameters, path)


def _distinct(parameters: Sequence[Parameter]) -> list[Parameter]:
    """The parameters without those that are the same array as one before."""
    seen: set[int] = set()
    distinct: list[Parameter] = []
    for parameter in parameters:
        if parameter.has_numbers and id(parameter.leaf) in seen:
            continue
        seen.add(id(parameter.leaf))
        distinct.append(parameter)
    return distinct


def _described(
    parameters: Sequence[Parameter], external: dict[str, External]
) -> dict[str, tuple[External, tuple[int, ...], np.dtype]]:
    described: dict[str, tuple[External, tuple[int, ...], np.dtype]] = {}
    for parameter in parameters:
        if parameter.name in external:
            described[parameter.name] = (external[parameter.name], parameter.shape, parameter.dtype)
    return described


def _shown(arrays: Sequence[Typed]) -> dict[str, str]:
    return {array.name: f"{short_dtype(array.dtype)}[{','.join(map(str, array.shape))}]" for array in arrays}
