"""Foreign modules with parameters, of Flax, Equinox, Haiku, Keras and PyTorch, in the place of a layer, and classes without
its methods."""

from __future__ import annotations

import jax
import numpy as np

from .._tree import PyTree

_KEEP_PARAMETERS_ELSEWHERE = (
    "flax.linen.module.Module",
    "haiku._src.module.Module",
    "keras.src.layers.layer.Layer",
    "torch.nn.modules.module.Module",
)
"""Base classes of modules that hold no arrays of JAX: by name, as their libraries need not be installed."""


def has_parameters(value: PyTree) -> bool:
    """Whether an object that can be called is another library's module with parameters, rather than a function."""
    bases = [f"{base.__module__}.{base.__qualname__}" for base in type(value).__mro__]
    if any(base in _KEEP_PARAMETERS_ELSEWHERE for base in bases):
        return True
    # `jax.tree_util.Partial` is how JAX itself writes a function with arrays.
    if isinstance(value, jax.tree_util.Partial):
        return False
    return any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in jax.tree.leaves(value))


def module_misfit(value: PyTree) -> str:
    """Describe a module with parameters in the place of a layer, and say what to write instead."""
    library = type(value).__module__.split(".")[0]
    return (
        f"a {type(value).__name__} of {library}, whose parameters would not be in the tree: write a layer around it, with"
        " spec(x) and a call (params, x), or lambda x: module(x) if they are to stay as they are"
    )


def missing_methods(value: PyTree) -> str:
    """What an object lacks to be a layer, as the end of a sentence; empty if it does not look like one."""
    names = dir(type(value))
    for name in ("forward", "call"):
        if name in names:
            return f"; {name} is called apply in ptree"
    if "spec" in names and "__call__" not in names:
        return "; it has spec(x), but no __call__(self, params, x)"
    return ""
