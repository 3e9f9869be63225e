"""Trace a function of parameters and inputs to a jaxpr without dead equations; names of parameters, inputs and outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.interpreters import partial_eval

from ..._draw import Param
from ..._errors import FileError
from ..._tree import Leaf, PyTree, map_leaves
from ..._words import describe, listed, quoted
from .._symbolic_sizes import hint_at_symbols
from .sizes import expression_of, symbols_in
from .values import Shape, is_static


@dataclass(frozen=True)
class Parameter:
    """A parameter that the outputs depend on."""

    name: str
    """Its path."""
    leaf: Leaf
    """Its numbers, or only its shape and dtype."""
    dtype: np.dtype
    """In which the function computes with it."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.leaf.shape)

    @property
    def has_numbers(self) -> bool:
        return not isinstance(self.leaf, (jax.ShapeDtypeStruct, Param))


@dataclass(frozen=True)
class Input:
    name: str
    shape: Shape
    dtype: np.dtype
    """As it was given; without x64 JAX computes with 32 bits."""


@dataclass(frozen=True)
class Traced:
    """A traced function. The variables of its jaxpr are the parameters, then the inputs."""

    jaxpr: ClosedJaxpr
    parameters: list[Parameter]
    inputs: list[Input]
    outputs: list[str]
    """The name of each output."""


@dataclass(frozen=True)
class _Marked:
    """A leaf with its path, which JAX takes for a leaf."""

    path: str
    leaf: Leaf


def _marked_leaves(tree: PyTree) -> list[_Marked]:
    """The leaves with their paths in JAX's order, which sorts the keys of a dict; None is no leaf to JAX."""
    return [marked for marked in jax.tree.leaves(map_leaves(tree, _Marked)) if marked.leaf is not None]


def trace(
    f: Callable[..., PyTree],
    params: PyTree,
    inputs: Sequence[PyTree],
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> Traced:
    """Trace `f(params, *inputs)`, whose inputs are arrays, or shapes and dtypes with sizes that may be symbols.

    Raises:
        FileError: an input that is no array, or names that are too few, too many, or used twice.
    """
    marked, structure = jax.tree.flatten(map_leaves(params, _Marked))
    arrays = [leaf for leaf in marked if _is_array(leaf.leaf)]
    flat_inputs, input_structure = jax.tree.flatten(tuple(inputs))
    all_inputs = _named_inputs(f, inputs, flat_inputs, input_names)
    _check_symbols(all_inputs)

    def call(new: Sequence[PyTree], given: Sequence[PyTree]) -> PyTree:
        arriving = iter(new)
        whole = [next(arriving) if _is_array(leaf.leaf) else leaf.leaf for leaf in marked]
        return f(jax.tree.unflatten(structure, whole), *jax.tree.unflatten(input_structure, given))

    specs = [_spec(leaf.leaf) for leaf in arrays]
    input_specs = [_spec(given) for given in all_inputs]
    with hint_at_symbols():
        closed, results = jax.make_jaxpr(call, return_shape=True)(specs, input_specs)
    is_input = [False] * len(arrays) + [True] * len(all_inputs)
    live, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), is_input)
    used_arrays = compress(arrays, used[: len(arrays)])
    parameters = [Parameter(leaf.path, leaf.leaf, _computed_dtype(leaf.leaf.dtype)) for leaf in used_arrays]
    outputs = _output_names(results, output_names)
    if not outputs:
        raise FileError("expected a function that returns arrays, got none")
    _check_names(parameters, all_inputs, outputs)
    return Traced(_closed(live, closed), parameters, all_inputs, outputs)


def _closed(live: Any, closed: ClosedJaxpr) -> ClosedJaxpr:
    constants = dict(zip(closed.jaxpr.constvars, closed.consts))
    return ClosedJaxpr(live, [constants[variable] for variable in live.constvars])


def _is_array(leaf: Leaf) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, Param))


def _computed_dtype(dtype: Any) -> np.dtype:
    canonical: Any = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
    return canonical


def _spec(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, _computed_dtype(array.dtype))


# -------------------------------------------------------------------------------- names


def _named_inputs(
    f: Callable[..., PyTree], inputs: Sequence[PyTree], flat: Sequence[PyTree], names: Sequence[str] | None
) -> list[Input]:
    if names is None:
        names = _default_names(f, inputs)
    if len(names) != len(flat):
        raise FileError(f"expected a name for each of the {len(flat)} inputs in input_names, got {listed(names)}")
    named: list[Input] = []
    problems: list[str] = []
    for name, given in zip(names, flat):
        if not isinstance(given, jax.ShapeDtypeStruct) and not _is_array(given):
            given = np.asarray(given)  # a number of Python, which has no dtype of its own
            given = given.astype(_computed_dtype(given.dtype))
        if not jnp.issubdtype(given.dtype, np.number) and given.dtype != np.bool_:
            problems.append(f"{name}: {describe(given)}")
        named.append(Input(name, tuple(given.shape), given.dtype))
    if problems:
        raise FileError(f"expected inputs of numbers, as ONNX has them, got {', '.join(problems)}")
    return named


def _default_names(f: Callable[..., PyTree], inputs: Sequence[PyTree]) -> list[str]:
    """The names of the function's arguments; of an input that is a pytree with the path inside."""
    stems = [f"input_{number}" for number in range(len(inputs))] if len(inputs) > 1 else ["input"]
    for number, name in enumerate(_argument_names(f)[: len(inputs)]):
        stems[number] = name
    names: list[str] = []
    for stem, given in zip(stems, inputs):
        for leaf in _marked_leaves(given):
            names.append(f"{stem}/{leaf.path}" if leaf.path else stem)
    return names


def _argument_names(f: Callable[..., PyTree]) -> list[str]:
    """The names of the arguments after the parameters."""
    try:
        arguments = [*inspect.signature(f).parameters.values()]
    except (TypeError, ValueError):  # a function that is not written in Python
        return []
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [argument.name for argument in arguments if argument.kind in by_place][1:]


def _output_names(results: PyTree, names: Sequence[str] | None) -> list[str]:
    count = len(jax.tree.leaves(results))
    if names is not None:
        if len(names) != count:
            raise FileError(f"expected a name for each of the {count} outputs in output_names, got {listed(names)}")
        return list(names)
    named: list[str] = []
    for leaf in _marked_leaves(results):
        starts_with_number = leaf.path[:1].isdigit()
        named.append(f"output_{leaf.path}" if starts_with_number else leaf.path or "output")
    return named


def _check_names(parameters: Sequence[Parameter], inputs: Sequence[Input], outputs: Sequence[str]) -> None:
    paths = [parameter.name for parameter in parameters]
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for name in (*paths, *(given.name for given in inputs), *outputs):
        if name in seen:
            twice[name] = None
        seen.add(name)
    if twice:
        raise FileError(
            f"expected a different name for each parameter, input and output, got {listed(twice)} twice;"
            " give input_names= and output_names="
        )
    if "" in seen:
        raise FileError("expected a name for each parameter, input and output, got ''")


def _check_symbols(inputs: Sequence[Input]) -> None:
    """Check that the value of each symbol can be read from the shape of an input."""
    plain: set[str] = set()
    used: dict[str, None] = {}
    for given in inputs:
        for size in given.shape:
            if is_static((size,)):
                continue
            expression = expression_of(size)
            used.update(dict.fromkeys(symbols_in(expression)))
            if isinstance(expression, str):
                plain.add(expression)
    missing = [name for name in used if name not in plain]
    if missing:
        names = ", ".join(map(quoted, missing))
        raise FileError(f"expected an input with an axis of the size {names} itself, from which its value is read")
