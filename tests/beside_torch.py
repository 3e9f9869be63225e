"""Models beside PyTorch modules with channels first: equal outputs by a layer table, or a refusal that names the layer."""

import numpy as np
import pytest
from layouts import agrees

import ptree as pt
from ptree import convert, nn

torch = pytest.importorskip("torch")


def one():
    """A convolution that keeps shape and channels."""
    return nn.Conv(4, 1)


def modules(**by_path):
    """A module that holds others at paths: `modules(**{"0": ..., "1/inner": ...})`."""
    root = torch.nn.Module()
    for path, module in by_path.items():
        *parents, name = path.split("/")
        holder = root
        for parent in parents:
            if not hasattr(holder, parent):
                holder.add_module(parent, torch.nn.Module())
            holder = holder.get_submodule(parent)
        holder.add_module(name, module)
    return root.eval()


def turned(x, channels_first):
    """An input for PyTorch."""
    moved = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if channels_first and x.ndim > 2 else x
    return torch.from_numpy(moved)


def check(net, by_path, forward, *inputs, channels_first=True, tolerance=2e-4, **options):
    """Convert all arrays, compare with `forward(module at path, torch inputs...)`, and convert back."""
    root = modules(**by_path)
    source = root.state_dict()
    given = [turned(x, channels_first) for x in inputs]
    with torch.no_grad():
        expected = forward(lambda path: root.get_submodule(path.replace("/", ".")), *given)
    _, table = agrees(net, inputs, source, "torch", expected.numpy(), tolerance=tolerance, **options)
    return table


def refused(net, match, *inputs, **options):
    with pytest.raises(pt.LayerError, match=match):
        convert.layer_table(net, *inputs, **options)
