"""auto: propose rules for a tree and a mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from jax.sharding import AbstractMesh, Mesh

from ..._edit import leaves
from ..._errors import InitError
from ..._paths import STACKED
from ..._tree import Leaf, PyTree, aliases
from ..._words import describe
from .few_rules import few_rules
from .leaf_splits import EXPERTS, KernelAxes, LayerLeaf, splits_of
from .mesh_roles import mesh_roles
from .rules import Rules


def auto(
    tree: PyTree,
    mesh: Mesh | AbstractMesh,
    *,
    min_size: int = 2**20,
    axes: Mapping[str, str | Sequence[str]] | None = None,
    kernels: KernelAxes | None = None,
) -> Rules:
    """Propose rules of shardings, to print, edit, and give to `plan`, `init` and `load`.

    >>> from ptree import Param, Tree
    >>> attention = {"q": {"kernel": Param((512, 8, 64))}, "o": {"kernel": Param((8, 64, 512))}}
    >>> mlp = {"up": {"kernel": Param((512, 2048)), "bias": Param((2048,))}, "down": {"kernel": Param((2048, 512))}}
    >>> tree = Tree({"embed": {"table": Param((50257, 512))}, "blocks": [attention | mlp] * 12})
    >>> auto(tree, AbstractMesh((8, 4), ("data", "model")))
    {
        "**/table": P(None, "data"),  # vocabulary: 50257 is not divisible by model=4
        "**/q/kernel": P(None, "model"),  # column
        "**/o/kernel": P("model"),  # row
        "**/up/kernel": P("data", "model"),  # column
        "**/bias": P("model"),  # column
        "**/down/kernel": P("model", "data"),  # row
    }

    Args:
        tree: a spec, parameters, an opened file, or another pytree of leaves with a shape.
        mesh: a mesh, or an AbstractMesh of devices that are not here.
        min_size: how many numbers one layer of a leaf has at least to be split by size; smaller ones are replicated,
            unless the role of their layer splits them.
        axes: what the axes of the mesh are for, role -> axis or axes; other axes are not used. By default by their names.
        kernels: the order of the axes of kernels, `"in_out"` or `"out_in"`.

    Raises:
        InitError: no axis of the mesh has a known name and `axes` says nothing, or `axes` does not fit the mesh.
    """
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise InitError(f"auto takes a Mesh or an AbstractMesh, got {describe(mesh)}")
    roles = mesh_roles(mesh, axes)
    layer_leaves = {path: _layer_leaf(path, leaf) for path, leaf in leaves(tree)}
    splits = splits_of(layer_leaves, roles, min_size, kernels)
    tied = {tie.source for tie in aliases(tree).values()}
    head = f"not used: {', '.join(f'{name}={mesh.shape[name]}' for name in roles.unused)}" if roles.unused else ""
    sizes = {path: prod(leaf.shape) for path, leaf in layer_leaves.items()}
    return few_rules(tree, splits, sizes, tied, head)


def _layer_leaf(path: str, leaf: Leaf) -> LayerLeaf:
    """A leaf without the axes of the stacks that it is in."""
    shape = tuple(getattr(leaf, "shape", ()))
    names = path.split("/") if "/" in path else path.split(".")
    stacks = [at for at, name in enumerate(names) if name == STACKED]
    experts = None
    for stack, at in enumerate(stacks):
        if at and names[at - 1] in EXPERTS:
            experts = shape[stack]
    return LayerLeaf(tuple(names), shape[len(stacks) :], experts)
