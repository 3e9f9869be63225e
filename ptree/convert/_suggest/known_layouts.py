"""What the classes of modules say: the operation that makes each weight the kernel of a layer of ptree.nn."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
from jax.tree_util import keystr

from ..._tree import PyTree
from .._named_arrays import NamedArray
from .._operations import axes
from .._operations.operation import AsIs, Operation, chain
from .name_words import name_of_weight

_WeightLayout = tuple[str, Operation]
"""The path of a weight, and the operation."""


def layouts_of_module(source: PyTree) -> dict[str, Operation]:
    """The operation for each weight of a module of PyTorch, Keras, Flax nnx or Equinox, by its path; empty for all else."""
    modules = sys.modules
    torch, keras = modules.get("torch"), modules.get("keras")
    nnx, equinox = modules.get("flax.nnx"), modules.get("equinox")
    if torch is not None and isinstance(source, torch.nn.Module):
        return dict(_of_pytorch(source, torch))
    if keras is not None and isinstance(source, keras.Model):
        return dict(_of_keras(source, keras))
    if nnx is not None and isinstance(source, nnx.Module):
        return dict(_of_nnx(source, nnx))
    if equinox is not None and isinstance(source, tuple) and source:  # a module and its state
        source = source[0]
    if equinox is not None and isinstance(source, equinox.Module):
        return dict(_of_equinox(source, equinox))
    return {}


def with_layouts(arrays: Iterable[NamedArray], layouts: Mapping[str, Operation]) -> list[NamedArray]:
    """The arrays with what the classes say of each; the weight may be stored in parts."""
    return [replace(array, layout=layouts.get(name_of_weight(array.path))) for array in arrays]


def _of_pytorch(module: Any, torch: Any) -> Iterator[_WeightLayout]:
    transposed = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
    plain = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    for name, layer in module.named_modules(remove_duplicate=False):  # the state dict has all names of a shared layer
        path = f"{name}.weight".lstrip(".").replace(".", "/")
        if isinstance(layer, torch.nn.Linear):
            yield path, axes.Linear()
        elif isinstance(layer, transposed):
            yield path, axes.ConvTranspose(layer.groups)
        elif isinstance(layer, plain):
            yield path, axes.Conv()
        elif isinstance(layer, torch.nn.Embedding) or type(layer).__name__ == "Conv1D":
            yield path, AsIs()  # Conv1D is that of transformers, for GPT-2, which lies (in, out)


def _of_keras(model: Any, keras: Any) -> Iterator[_WeightLayout]:
    layers = keras.layers
    transposed = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
    plain = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D)
    kinds = [(transposed, axes.Swap(-1, -2)), (plain, AsIs())]
    kernels = {variable.path for variable in model.weights if variable.path.endswith("/kernel")}
    for layer in model._flatten_layers():
        of_class = [operation for kind, operation in kinds if isinstance(layer, kind)]
        for variable in layer.weights if of_class else ():
            if variable.path in kernels:
                yield variable.path, of_class[0]


def _of_nnx(module: Any, nnx: Any) -> Iterator[_WeightLayout]:
    for path, layer in nnx.iter_modules(module):
        kernel = "/".join(map(str, (*path, "kernel")))
        if isinstance(layer, (nnx.Linear, nnx.Conv)):
            yield kernel, AsIs()
        elif isinstance(layer, nnx.ConvTranspose) and layer.transpose_kernel:
            yield kernel, axes.Swap(-1, -2)
        elif isinstance(layer, nnx.ConvTranspose):
            yield kernel, AsIs() >> mirror(len(layer.kernel.shape) - 2)


def _of_equinox(module: Any, equinox: Any) -> Iterator[_WeightLayout]:
    layers = (equinox.nn.Linear, equinox.nn.Conv, equinox.nn.ConvTranspose)
    found = jax.tree_util.tree_leaves_with_path(module, is_leaf=lambda node: isinstance(node, layers))
    for path, layer in found:
        weight = f"{keystr(path, simple=True, separator='/')}/weight".lstrip("/")
        if isinstance(layer, equinox.nn.Linear):
            yield weight, axes.Linear()
        elif isinstance(layer, equinox.nn.Conv):
            yield weight, axes.Conv()
        elif isinstance(layer, equinox.nn.ConvTranspose):
            yield weight, chain(axes.Conv(), mirror(layer.num_spatial_dims))


def mirror(window: int) -> axes.Flip:
    """The operation that mirrors a kernel whose window has this many axes."""
    return axes.Flip(tuple(range(window)))
