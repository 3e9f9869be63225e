"""What a call of a model adds to the summary of its parameters: output shapes, operations of each leaf, memory analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from ..._draw import abstract
from ..._shardings import as_traced
from ..._ties import untie
from ..._tree import PyTree
from ..._words import describe
from .._flops.flops import Flops
from .._flops.flops import flops as flops_of
from .result import Summary
from .row import Row

_MEMORY = {
    "arguments": "argument_size_in_bytes",
    "outputs": "output_size_in_bytes",
    "temporary": "temp_size_in_bytes",
    "aliased": "alias_size_in_bytes",
    "code": "generated_code_size_in_bytes",
}


def with_outputs(summary: Summary, params: PyTree, of: Sequence[Any], *, flops: bool, memory: bool) -> Summary:
    """The summary with the output shapes of `model(params, *inputs)`; with its operations and memory, where they are wanted.

    Raises:
        TypeError: `of` is no tuple of a model and its inputs.
    """
    model, inputs = _model_and_inputs(of)
    names_apart = untie(abstract(params)) if _has_ties(summary) else params
    try:
        count = flops_of(model, names_apart, *inputs)
    except TypeError as error:  # such as an input that is missing in `of`
        error.add_note("in the call model(params, x, ...) that of=(model, x, ...) stands for")
        raise
    rows = tuple(_with_output(row, count, flops) for row in summary.rows)
    return replace(
        summary,
        rows=rows,
        flops=count if flops else None,
        memory=_memory(model, params, inputs) if memory else None,
    )


def _model_and_inputs(of: Sequence[Any]) -> tuple[Callable[..., Any], Sequence[Any]]:
    if not isinstance(of, tuple) or not of or not callable(of[0]):
        raise TypeError(f"of=(model, x, ...): a tuple of the model and its inputs; got {describe(of)}")
    return of[0], of[1:]


def _has_ties(summary: Summary) -> bool:
    return len(summary.leaves) < len(summary.rows)


def _with_output(row: Row, count: Flops, flops: bool) -> Row:
    operations = count.by_leaf.get(row.path, 0) if flops else None
    return row._replace(output=count.outputs.get(row.path), flops=operations)


def _memory(model: Callable[..., Any], params: PyTree, inputs: Sequence[Any]) -> dict[str, int]:
    shapes = jax.tree.map(as_traced, abstract(params))
    compiled = jax.jit(model).lower(shapes, *inputs).compile()
    analysis = compiled.memory_analysis()
    if analysis is None:  # some backends have none
        return {}
    return {name: int(getattr(analysis, attribute)) for name, attribute in _MEMORY.items()}
