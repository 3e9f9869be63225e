"""Which way round a kernel lies, where its shape fits several layouts: said by the framework, proven by other kernels, or in doubt."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..._tree import PyTree
from .._operations import axes
from .._operations.operation import AsIs, Operation
from .families import Family
from .fitting import Shape, is_turned, steps_of
from .matching import Pair
from .name_words import all_words, last_segment

SQUARE = "the shape does not tell the layout"
GATES = "the order of gates may differ"
FLATTENED = "if it reads flattened features of a convolution, their order may differ: flatten_order(...)"
_RECURRENT = {"lstm", "gru", "rnn", "recurrent", "ih", "hh", "cell", "gates"}
_TRANSPOSED = {"transpose", "transposed", "trans", "deconv", "deconvolution", "up", "upsample", "upconv", "upsampling",
               "decoder", "dec", "generator", "gen"}  # fmt: skip
_CONVOLUTION = {"conv", "convs", "convolution"}


@dataclass(frozen=True)
class _Proof:
    """A matrix of the source whose shape fits one direction only."""

    scope: tuple[str, ...]
    """The segments of its name."""
    leaf: str
    """The last of them: proofs go for arrays that are called so."""
    is_turned: bool


def layouts_of_module(source: PyTree) -> dict[str, type[Operation]]:
    """The layout of each weight of a module of PyTorch, by its path, as the module's own class says."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(source, torch.nn.Module):
        return {}
    transposed = (torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
    plain = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    found: dict[str, type[Operation]] = {}
    for name, module in source.named_modules():
        path = f"{name}.weight".lstrip(".").replace(".", "/")
        if isinstance(module, torch.nn.Linear):
            found[path] = axes.Linear
        elif isinstance(module, transposed):
            found[path] = axes.ConvTranspose
        elif isinstance(module, plain):
            found[path] = axes.Conv
        elif type(module).__name__ == "Conv1D":  # of transformers: GPT-2's, which lies (in, out)
            found[path] = AsIs
    return found


def directed(pairs: Sequence[Pair], layouts: Mapping[str, type[Operation]], order: Mapping[str, int]) -> list[Pair]:
    """The pairs with one operation each where that is certain, and with their doubts.

    Args:
        pairs: what is matched.
        layouts: what the classes of modules say of each path.
        order: the place of each path in the source.
    """
    pairs = [_as_its_framework_says(pair, layouts) for pair in pairs]
    proofs = [proof for pair in pairs for proof in _proof_of(pair)]
    is_conv_alone = _has_no_transposed_convolution(pairs)
    directed = [_directed(pair, proofs, is_conv_alone=is_conv_alone) for pair in pairs]
    flattened = _may_read_flattened(directed, order)
    found: list[Pair] = []
    for pair in directed:
        doubts = pair.doubts
        if _is_recurrent(pair):
            doubts = (*doubts, GATES)
        if id(pair) in flattened:
            doubts = (*doubts, FLATTENED)
        found.append(replace(pair, doubts=doubts))
    return found


def _as_its_framework_says(pair: Pair, layouts: Mapping[str, type[Operation]]) -> Pair:
    """The pair with those operations alone that have the layout that the classes of the modules say."""
    classes = {layouts.get(member.path) for member in pair.source.members.values()}
    if len(classes) != 1 or None in classes:
        return pair
    (layout,) = classes
    assert layout is not None
    fitting = tuple(operation for operation in pair.operations if _has_layout(operation, layout))
    return replace(pair, operations=fitting) if fitting else pair


def _has_layout(operation: Operation, layout: type[Operation]) -> bool:
    kinds = (axes.Linear, axes.Conv, axes.ConvTranspose, axes.Swap, axes.Depthwise)
    there = [type(step) for step in steps_of(operation) if isinstance(step, kinds)]
    if layout is AsIs:
        return not there
    if layout is axes.Conv and not there:
        return False
    return there == [layout] or (layout is axes.Conv and there == [axes.Linear])


def _proof_of(pair: Pair) -> list[_Proof]:
    """What a pair proves of the directions of other matrices: nothing where several operations fit."""
    if len(pair.operations) != 1 or not _is_matrix(pair.source, pair.targets[0]):
        return []
    scope = tuple("*".join(pair.source.texts).split("/"))
    return [_Proof(scope, scope[-1], is_turned(pair.operations[0]))]


def _is_matrix(source: Family, target: Family) -> bool:
    is_kernel = "kernel" in target.roles or not target.roles
    return len(source.shapes[0]) == 2 and is_kernel


def _directed(pair: Pair, proofs: Sequence[_Proof], *, is_conv_alone: bool) -> Pair:
    if len(pair.operations) == 1:
        return pair
    names = {last_segment(pair.source.path), last_segment(pair.targets[0].path)}
    rank = len(pair.source.shapes[0])
    if names == {"kernel"} and rank == 2:  # all frameworks that call it so store (in, out)
        return _decided(pair, [operation for operation in pair.operations if not is_turned(operation)])
    if _is_matrix(pair.source, pair.targets[0]):
        direction = _nearest_direction(pair, proofs)
        if direction is not None:
            return _decided(pair, [operation for operation in pair.operations if is_turned(operation) == direction])
    if rank > 2 and is_conv_alone and _says_convolution(pair):
        layout = AsIs if names == {"kernel"} else axes.Conv
        return _decided(pair, [operation for operation in pair.operations if _has_layout(operation, layout)])
    return replace(pair, doubts=(*pair.doubts, SQUARE))


def _decided(pair: Pair, operations: Sequence[Operation]) -> Pair:
    if len(operations) == 1:
        return replace(pair, operations=tuple(operations))
    return replace(pair, doubts=(*pair.doubts, SQUARE))


def _nearest_direction(pair: Pair, proofs: Iterable[_Proof]) -> bool | None:
    """The direction of the matrices that lie nearest, by how many segments their names have in common; None if they differ.

    GPT-2's kernels are not transposed, and its head is: what lies in the same block goes for a block.
    """
    scope = tuple("*".join(pair.source.texts).split("/"))
    found: dict[int, set[bool]] = {}
    for proof in proofs:
        if proof.leaf == scope[-1]:
            found.setdefault(_shared(scope, proof.scope), set()).add(proof.is_turned)
    if not found:
        return None
    directions = found[max(found)]
    return next(iter(directions)) if len(directions) == 1 else None


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for here, there in zip(one[:-1], other[:-1], strict=False):
        if here != there:
            break
        count += 1
    return count


def _says_convolution(pair: Pair) -> bool:
    """Whether a name says that it is a convolution, and nothing that it may be a transposed one."""
    words = {*all_words(pair.source.path), *all_words(pair.targets[0].path)}
    return bool(words & _CONVOLUTION) and not words & _TRANSPOSED


def _has_no_transposed_convolution(pairs: Iterable[Pair]) -> bool:
    """Whether some kernel of the source fits as a convolution alone, and none as a transposed one alone."""
    only: set[type[Operation]] = set()
    for pair in pairs:
        if len(pair.operations) == 1 and len(pair.source.shapes[0]) > 2:
            only |= {type(step) for step in steps_of(pair.operations[0])}
    return bool(only & {axes.Conv, AsIs}) and not only & {axes.ConvTranspose, axes.Swap}


def _is_recurrent(pair: Pair) -> bool:
    words = {word for family in (pair.source, *pair.targets) for word in all_words(family.path)}
    return bool(words & _RECURRENT)


def _may_read_flattened(pairs: Sequence[Pair], order: Mapping[str, int]) -> set[int]:
    """The matrices whose features in may be the flattened features of a convolution, which PyTorch orders differently.

    Features are clear if they are those of the convolution before, or if another matrix gives them and there is none.
    """
    convolutions = [pair for pair in pairs if _is_convolution_of_pytorch(pair)]
    channels = {shape[-1] for pair in convolutions for shape in pair.targets[0].shapes}
    given = Counter(shape[-1] for pair in pairs if _is_kernel(pair) for shape in pair.targets[0].shapes)
    found: set[int] = set()
    last_channels: int | None = None
    for _, pair, before, after in sorted(_members(pairs, order), key=lambda member: member[0]):
        if _is_convolution_of_pytorch(pair):
            last_channels = after[-1]
        elif _is_kernel(pair):
            features = before[1] if is_turned(pair.operations[0]) else before[0]
            is_first = last_channels not in (None, features)
            is_given = given[features] > 0 or features in channels
            is_several_times = any(features > count and features % count == 0 for count in channels)
            if is_several_times and (is_first or not is_given):
                found.add(id(pair))
            last_channels = None
    return found


def _members(pairs: Sequence[Pair], order: Mapping[str, int]) -> Iterator[tuple[int, Pair, Shape, Shape]]:
    """Each array of the source: its place in it, its pair, its shape and that of its target."""
    for pair in pairs:
        shapes = zip(pair.source.members.values(), pair.source.shapes, pair.targets[0].shapes, strict=True)
        for member, before, after in shapes:
            yield order[member.path], pair, before, after


def _is_kernel(pair: Pair) -> bool:
    return _is_matrix(pair.source, pair.targets[0])


def _is_convolution_of_pytorch(pair: Pair) -> bool:
    steps = {type(step) for step in steps_of(pair.operations[0])}
    return bool(steps & {axes.Conv, axes.ConvTranspose}) and len(pair.source.shapes[0]) > 2
