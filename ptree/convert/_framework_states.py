"""The arrays of modules in memory by name, and the module's state with other arrays: PyTorch, Keras, Flax nnx, Equinox."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np
from jax.tree_util import keystr

from .._errors import StructureError
from .._tree import Leaf, PyTree
from .._words import listed

if TYPE_CHECKING:
    import equinox
    import keras
    import torch
    from flax import nnx

KeyPath: TypeAlias = tuple[Any, ...]


class FrameworkState(ABC):
    """The arrays of a module of another framework."""

    @abstractmethod
    def arrays(self) -> Mapping[str, Leaf]:
        """The arrays by name."""

    @abstractmethod
    def filled(self, values: Mapping[str, Leaf]) -> PyTree:
        """The state with other arrays, in the form that the framework takes; the module itself is not changed."""


def framework_state(value: PyTree) -> FrameworkState | None:
    """The state of a module of a framework that is imported; None for all else, such as trees and dicts."""
    modules = sys.modules
    torch, keras = modules.get("torch"), modules.get("keras")
    nnx, equinox = modules.get("flax.nnx"), modules.get("equinox")
    if torch is not None and isinstance(value, torch.nn.Module):
        return _OfPyTorch(value)
    if keras is not None and isinstance(value, keras.Model):
        return _OfKeras(value)
    if nnx is not None and isinstance(value, nnx.Module):
        return _OfNnx(nnx.state(value))
    if nnx is not None and isinstance(value, nnx.State):
        return _OfNnx(value)
    if equinox is not None and isinstance(value, equinox.Module):
        return _OfEquinox(value)
    if equinox is not None and _is_equinox_pair(value, equinox):
        return _OfEquinoxPair(*value)
    return None


class _OfPyTorch(FrameworkState):
    """The `state_dict` of a module of PyTorch."""

    def __init__(self, module: torch.nn.Module):
        self._state = module.state_dict()

    def arrays(self) -> Mapping[str, Leaf]:
        return self._state

    def filled(self, values: Mapping[str, Leaf]) -> PyTree:
        return dict(values)


class _OfKeras(FrameworkState):
    """The weights of a Keras model by `variable.path`; not the states of random numbers and metrics."""

    def __init__(self, model: keras.Model):
        self._variables = {variable.path: variable for variable in model.weights}
        if len(self._variables) < len(model.weights):
            names = [variable.path for variable in model.weights]
            again = sorted({name for name in names if names.count(name) > 1})
            raise StructureError(f"several weights of the Keras model have one path: {listed(again)}. Name its layers.")

    def arrays(self) -> Mapping[str, Leaf]:
        return {path: np.asarray(variable.value) for path, variable in self._variables.items()}

    def filled(self, values: Mapping[str, Leaf]) -> PyTree:
        return dict(values)


class _OfNnx(FrameworkState):
    """A state of Flax nnx by paths, without the states of random numbers."""

    def __init__(self, state: nnx.State):
        from flax import nnx

        self._flat = [*nnx.to_flat_state(state)]
        self._parameters = {
            "/".join(map(str, path)): variable
            for path, variable in self._flat
            if not (isinstance(variable, nnx.Variable) and issubclass(variable.type, nnx.RngState))
        }

    def arrays(self) -> Mapping[str, Leaf]:
        from flax import nnx

        return {
            path: variable.get_raw_value() if isinstance(variable, nnx.Variable) else variable
            for path, variable in self._parameters.items()
        }

    def filled(self, values: Mapping[str, Leaf]) -> PyTree:
        from flax import nnx

        pairs: list[tuple[Any, Any]] = []
        for path, variable in self._flat:
            value = values.get("/".join(map(str, path)))
            if value is not None:
                variable = variable.replace(value) if isinstance(variable, nnx.Variable) else value
            pairs.append((path, variable))
        return nnx.from_flat_state(pairs)


class _OfEquinox(FrameworkState):
    """The arrays in a module of Equinox."""

    def __init__(self, module: equinox.Module):
        self._module = module

    def arrays(self) -> Mapping[str, Leaf]:
        return dict(_arrays_in(self._module))

    def filled(self, values: Mapping[str, Leaf]) -> PyTree:
        return _with_arrays(self._module, values)


class _OfEquinoxPair(FrameworkState):
    """A module of Equinox and its state, of which an array has the path of its index in the module."""

    def __init__(self, module: equinox.Module, state: equinox.nn.State):
        self._module, self._state = module, state

    def arrays(self) -> Mapping[str, Leaf]:
        found = dict(_arrays_in(self._module))
        for path, index in _indices_in(self._module):
            for inside, leaf in jax.tree_util.tree_leaves_with_path(self._state.get(index)):
                found[_name((*path, *inside))] = leaf
        return found

    def filled(self, values: Mapping[str, Leaf]) -> PyTree:
        state = _copied(self._state)
        for path, index in _indices_in(self._module):
            value = jax.tree_util.tree_map_with_path(
                lambda inside, leaf, path=path: values.get(_name((*path, *inside)), leaf), state.get(index)
            )
            state = state.set(index, value)
        return _with_arrays(self._module, values), state


def _is_equinox_pair(value: PyTree, equinox: Any) -> bool:
    is_pair = isinstance(value, tuple) and len(value) == 2
    return is_pair and isinstance(value[0], equinox.Module) and isinstance(value[1], equinox.nn.State)


def _copied(state: equinox.nn.State) -> equinox.nn.State:
    """The same state in an object of its own: `set` makes the object that it is called on unusable."""
    leaves, structure = jax.tree_util.tree_flatten(state)
    return jax.tree_util.tree_unflatten(structure, leaves)


def _arrays_in(module: equinox.Module) -> Iterator[tuple[str, Leaf]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(module):
        if isinstance(leaf, (jax.Array, np.ndarray)):  # flags such as `inference` are no parameters
            yield _name(path), leaf


def _with_arrays(module: equinox.Module, values: Mapping[str, Leaf]) -> equinox.Module:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: values.get(_name(path), leaf), module)


def _indices_in(module: equinox.Module) -> Iterator[tuple[KeyPath, equinox.nn.StateIndex]]:
    import equinox

    def is_index(node: PyTree) -> bool:
        return isinstance(node, equinox.nn.StateIndex)

    for path, node in jax.tree_util.tree_leaves_with_path(module, is_leaf=is_index):
        if is_index(node):
            yield path, node


def _name(path: KeyPath) -> str:
    return keystr(path, simple=True, separator="/")
