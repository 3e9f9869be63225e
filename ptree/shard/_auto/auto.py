"""auto: propose rules for a tree and a mesh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ..._edit import leaves
from ..._garbage_collection import collection_paused
from ..._paths import STACKED
from ..._shardings import AnyMesh, ShardingError, mesh_for_plan
from ..._tree import PyTree, aliases
from ..._words import quoted
from ...files._leaf_targets import shapes_of
from ...files._saved_tree import SavedTree
from .alike_leaves import AlikeLeaves, alike_paths
from .few_rules import few_rules
from .layer_roles import Shape, separator_in
from .leaf_splits import EXPERTS, KernelAxes, LayerLeaf, splits_of
from .mesh_roles import MeshRoles, mesh_roles
from .rules import Rules


def auto(
    tree: PyTree,
    mesh: AnyMesh | None = None,
    *,
    min_size: int = 2**20,
    axes: Mapping[str, str | Sequence[str]] | None = None,
    kernels: KernelAxes | None = None,
) -> Rules:
    """Propose rules of shardings, to print, edit, and give to `plan`, `init` and `load`.

    >>> from jax.sharding import AbstractMesh
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

    A table is split over the tensor axis by its vocabulary, kernels of q, k, v, up and gate by their output features or heads, and
    those of o and down by their inputs; then the largest axis that divides is split over the axis "fsdp" or "data". A layer has
    a role by its name beside those of its partners, as in ptree.nn, Flax and Hugging Face, or by its shape: of two kernels in a
    node the first widens and the second narrows. Other layers are split by size. In a stack of experts, `experts/:`, the axis
    "expert" of the mesh splits the stack. Every proposal computes the same numbers, up to rounding; it may only be slower than a better one.

    A leaf named `weight` does not say which axis is which: the shapes of MLPs and of fused q, k, v tell, and else it is PyTorch's
    (out, in). Where heads are in one axis with their features, as in Hugging Face's files, `auto` cannot see how many there are.

    Args:
        tree: a spec, parameters, an opened file, or another pytree of leaves with a shape.
        mesh: a mesh, or an AbstractMesh of devices that this machine does not have; by default that of `jax.set_mesh`.
        min_size: how many numbers one layer of a leaf has at least to be split by size; smaller ones are replicated,
            unless the role of their layer splits them.
        axes: what the axes of the mesh are for, `"fsdp"`, `"tensor"` or `"expert"` -> an axis, or several; other axes are not used. By
            default their names say it: fsdp, data or dp; model, tensor or tp; expert or ep.
        kernels: the order of the axes of kernels, `"in_out"` or `"out_in"`.

    Raises:
        ShardingError: no axis of the mesh has a known name and `axes` says nothing, or an option that does not fit.
    """
    if isinstance(tree, SavedTree):
        tree = shapes_of(tree.stored_tree())
    mesh = mesh_for_plan(mesh)
    roles = mesh_roles(mesh, axes)
    if kernels not in (None, "in_out", "out_in"):
        raise ShardingError(f"kernels= is 'in_out' or 'out_in', got {quoted(kernels)}")
    with collection_paused():
        shapes = {path: tuple(getattr(leaf, "shape", ())) for path, leaf in leaves(tree)}
        alike = alike_paths(shapes)
        layer_leaves = {path: _layer_leaf(path, shapes[path]) for path in alike}
        splits = splits_of(layer_leaves, roles, min_size, kernels)
        kinds = [AlikeLeaves(alike[path], splits[path], prod(leaf.shape)) for path, leaf in layer_leaves.items()]
        return few_rules(kinds, aliases(tree), _unused_in_words(mesh, roles))


def _unused_in_words(mesh: AnyMesh, roles: MeshRoles) -> str:
    unused = ", ".join(f"{name}={mesh.shape[name]}" for name in roles.unused)
    return f"not used: {unused}" if unused else ""


def _layer_leaf(path: str, shape: Shape) -> LayerLeaf:
    """A leaf without the axes of the stacks that it is in."""
    names = path.split(separator_in(path))
    if STACKED not in names:
        return LayerLeaf(tuple(names), shape)
    stacks = [at for at, name in enumerate(names) if name == STACKED]
    experts = None
    for stack, at in enumerate(stacks):
        if at and names[at - 1] in EXPERTS:
            experts = shape[stack]
    return LayerLeaf(tuple(names), shape[len(stacks) :], experts)
