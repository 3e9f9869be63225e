"""Call a function, or a module of PyTorch, on batches of NumPy arrays: copies of the inputs, tensors for modules, errors kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..._errors import StructureError
from .values import Values, to_numpy, values_of

Batch = tuple[Any, ...] | Mapping[str, Any]
"""The arguments of one call: in order, or by keyword."""


@dataclass(frozen=True)
class Failure:
    """An exception that one of the two functions raised."""

    side: str
    """"source" or "ours"."""
    batch: int
    error: Exception = field(compare=False)

    @property
    def message(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


def batches_of(inputs: Any) -> list[Batch]:
    """The arguments of each call: a list has several batches; a tuple is the arguments of one, a dict its keywords."""
    if not isinstance(inputs, list):
        return [_batch(inputs)]
    if not inputs:
        raise StructureError(
            "verify(f_source, f_ours, inputs): inputs is an empty list, so there is nothing to compare"
        )
    return [_batch(batch) for batch in inputs]


def _batch(inputs: Any) -> Batch:
    if isinstance(inputs, tuple) or type(inputs) is dict:
        return inputs
    return (inputs,)


def called(
    function: Callable[..., Any], side: str, number: int, batch: Batch, names: Iterable[str] = ()
) -> Values | Failure:
    """What a function returns for a batch, as NumPy arrays, or the exception that it raised.

    Args:
        function: a function or a module of PyTorch.
        side, number: "source" or "ours", and which batch it is, for the exception.
        batch: the arguments.
        names: of intermediate values; of a module, the outputs of the submodules with these names are taken.
    """
    try:
        return values_of(_returned(function, batch, names))
    except Exception as error:
        return Failure(side, number, error)


def _returned(function: Callable[..., Any], batch: Batch, names: Iterable[str]) -> Any:
    # a function that writes into its input must not change what the other one gets
    batch = jax.tree.map(_copied, batch)
    module = torch_module(function)
    if module is not None:
        return _returned_by_torch(function, module, batch, names)
    if isinstance(batch, Mapping):
        return function(**batch)
    return function(*batch)


def _copied(leaf: Any) -> Any:
    if hasattr(leaf, "detach"):  # a tensor, which JAX does not take
        leaf = to_numpy(leaf)
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def torch_module(function: Any) -> Any:
    """The module of PyTorch that a function is, or is a method of; None for any other function."""
    torch = sys.modules.get("torch")  # where it is not imported, nothing is a module of it
    if torch is None:
        return None
    for candidate in (function, getattr(function, "__self__", None)):
        if isinstance(candidate, torch.nn.Module):
            return candidate
    return None


def _returned_by_torch(function: Callable[..., Any], module: Any, batch: Batch, names: Iterable[str]) -> Any:
    torch = sys.modules["torch"]
    parameter = next(module.parameters(), None)
    device = "cpu" if parameter is None else parameter.device

    def tensor(leaf: Any) -> Any:
        if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
            return leaf
        array = np.asarray(leaf)
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.astype(np.float32)).to(device=device, dtype=torch.bfloat16)
        return torch.from_numpy(np.array(array)).to(device)

    tensors = jax.tree.map(tensor, batch)
    with torch.no_grad(), _buffers_kept(module), _submodule_outputs(module, names) as outputs:
        returned = function(**tensors) if isinstance(tensors, Mapping) else function(*tensors)
    return (returned, outputs) if outputs else returned


@contextmanager
def _submodule_outputs(module: Any, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Name -> output of each submodule with one of these names, in the order of the calls; of several calls the first."""
    submodules = dict(module.named_modules())
    outputs: dict[str, Any] = {}
    handles: list[Any] = []

    def hook(name: str) -> Callable[..., None]:
        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            if name not in outputs:
                outputs[name] = jax.tree.map(_copied, output)  # a layer after it may write into it

        return keep

    try:
        for name in names:
            if name in submodules and name:
                handles.append(submodules[name].register_forward_hook(hook(name)))
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _buffers_kept(module: Any) -> Iterator[None]:
    """Put the buffers of a module back after a call: in training mode it changes running statistics."""
    buffers = list(module.buffers()) if is_training(module) else []
    before = [(buffer, buffer.clone()) for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def is_training(module: Any) -> bool:
    """Whether a module of PyTorch, or one in it, is in training mode."""
    return any(inner.training for inner in module.modules())
