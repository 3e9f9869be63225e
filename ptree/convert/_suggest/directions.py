"""Which way round a kernel lies, where its shape fits several layouts: said by the framework, proven by other kernels, or in doubt."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..._tree import PyTree
from .._operations import axes
from .._operations.operation import AsIs, Operation
from .families import Family
from .fitting import fitting_shapes, is_turned, steps_of
from .flattened import is_matrix, may_read_flattened, without_flattened
from .name_words import all_words, last_segment, name_of_weight
from .possible_pairs import Pair

SQUARE = "the shape does not tell the layout"
GATES = "the order of gates may differ"
_RECURRENT = {"lstm", "gru", "rnn", "recurrent", "ih", "hh", "cell", "gates"}
_TRANSPOSED = {"transpose", "transposed", "trans", "deconv", "deconvolution", "up", "upsample", "upconv", "upsampling",
               "decoder", "dec", "generator", "gen"}  # fmt: skip
_CONVOLUTION = {"conv", "convs", "convolution"}
_Filter = Callable[[Operation], bool]
_Witness = Callable[[Pair], _Filter | None]
"""What admits the operations of a pair that have the layout it knows; None where it knows none."""


@dataclass(frozen=True)
class _Proof:
    """A matrix of the source whose shape fits one direction only."""

    container: tuple[str, ...]
    """The segments of the name of the block that its layer lies in."""
    leaf: str
    """The last segment of its name: it proves the direction of arrays with the same one."""
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
    witnesses = (
        _names_of_kernels,
        partial(_other_matrices, proofs=_Proofs(_proofs_of(pairs))),
        partial(_other_convolutions, layout=_layout_of_convolutions(pairs)),
    )
    found = [_directed(pair, layouts, witnesses) for pair in pairs]
    flattened = may_read_flattened(found, order)
    found = [part for pair in found for part in without_flattened(pair, flattened)]
    recurrent = _recurrent_layers(pairs)
    return [replace(pair, doubts=(*pair.doubts, GATES)) if _is_recurrent(pair, recurrent) else pair for pair in found]


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


def _proofs_of(pairs: Sequence[Pair]) -> list[_Proof]:
    """The directions that pairs prove for other matrices; nothing where several operations fit.

    An embedding is stored as (number, features) by all frameworks, whatever its leaf is called. So a matrix that stays as it is
    proves nothing, unless it has a bias for each feature out, or the matrix beside it has its sizes the other way round.
    """
    matrices = [pair for pair in pairs if _is_kernel_of_one_direction(pair)]
    features = _features_of_biases(pairs)
    shapes = {(*_container_and_leaf(pair.source), pair.source.shapes[0]) for pair in matrices}
    found: list[_Proof] = []
    for pair in matrices:
        *container, leaf = _container_and_leaf(pair.source)
        shape = pair.source.shapes[0]
        has_bias = shape[-1] in features.get(pair.source.parent, ())
        has_opposite = (*container, leaf, shape[::-1]) in shapes
        direction = is_turned(pair.operations[0])
        if direction or ((has_bias or has_opposite) and not _says_embedding(pair)):
            found.append(_Proof(tuple(container), leaf, direction))
    return found


def _is_kernel_of_one_direction(pair: Pair) -> bool:
    target = pair.targets[0]
    return len(pair.operations) == 1 and is_matrix(pair.source, target) and "kernel" in target.roles


def _says_embedding(pair: Pair) -> bool:
    words = pair.source.words | pair.targets[0].words
    return bool(words & {"embedding", "token", "position"})


def _features_of_biases(pairs: Iterable[Pair]) -> dict[str, set[int]]:
    """The sizes of the biases of each layer of the source."""
    found: dict[str, set[int]] = {}
    for pair in pairs:
        if "bias" in pair.source.roles | pair.targets[0].roles and pair.source.parent:
            found.setdefault(pair.source.parent, set()).update(shape[-1] for shape in pair.source.shapes if shape)
    return found


def _container_and_leaf(family: Family) -> list[str]:
    """The segments of a name without that of the layer itself."""
    segments = name_of_weight(family.template).split("/")
    return [*segments[:-2], segments[-1]]


def _directed(pair: Pair, layouts: Mapping[str, type[Operation]], witnesses: Sequence[_Witness]) -> Pair:
    """The pair with the operations that the first witness admits that knows its layout."""
    is_said = all(member.path in layouts for member in pair.source.members.values())
    if len(pair.operations) == 1 and (is_said or not _has_square_window(pair)):
        return pair
    for witness in witnesses:
        is_right = witness(pair)
        if is_right is not None:
            return _decided(pair, [operation for operation in pair.operations if is_right(operation)])
    return replace(pair, doubts=(*pair.doubts, SQUARE))


def _names_of_kernels(pair: Pair) -> _Filter | None:
    """All frameworks that call a matrix `kernel` store it as (in, out)."""
    if not _is_kernel_on_both_sides(pair) or len(pair.source.shapes[0]) != 2:
        return None
    return lambda operation: not is_turned(operation)


def _is_kernel_on_both_sides(pair: Pair) -> bool:
    return {last_segment(pair.source.path), last_segment(pair.targets[0].path)} == {"kernel"}


def _other_matrices(pair: Pair, proofs: _Proofs) -> _Filter | None:
    """The matrices that lie nearest prove a direction."""
    direction = proofs.nearest_direction(pair.source) if is_matrix(pair.source, pair.targets[0]) else None
    if direction is None:
        return None
    return lambda operation: is_turned(operation) == direction


def _other_convolutions(pair: Pair, layout: type[Operation] | None) -> _Filter | None:
    """The convolutions that fit one layout alone prove it for others."""
    if layout is None or len(pair.source.shapes[0]) < 3 or not _says_convolution(pair):
        return None
    there = AsIs if _is_kernel_on_both_sides(pair) else layout
    return lambda operation: _has_layout(operation, there)


def _has_square_window(pair: Pair) -> bool:
    """Whether a member is a kernel of a convolution that fits several layouts: another member, such as one of a Sequential with
    convolutions and transposed ones, proves nothing for it."""
    target = pair.targets[0]
    if len(pair.source.shapes[0]) < 3 or not (not target.roles or "kernel" in target.roles):
        return False
    return any(len(fitting_shapes(*shapes)) > 1 for shapes in zip(pair.source.shapes, target.shapes, strict=True))


def _decided(pair: Pair, operations: Sequence[Operation]) -> Pair:
    if len(operations) == 1:
        return replace(pair, operations=tuple(operations))
    return replace(pair, doubts=(*pair.doubts, SQUARE))


class _Proofs:
    """The directions that matrices prove, by the containers that they lie in: quick, as a source may have 10,000 of them."""

    def __init__(self, proofs: Iterable[_Proof]):
        self._below: dict[tuple[str, tuple[str, ...]], set[bool]] = {}
        self._beside_root: dict[str, set[bool]] = {}
        for proof in proofs:
            if not proof.container:
                self._beside_root.setdefault(proof.leaf, set()).add(proof.is_turned)
            for length in range(1, len(proof.container) + 1):
                self._below.setdefault((proof.leaf, proof.container[:length]), set()).add(proof.is_turned)

    def nearest_direction(self, family: Family) -> bool | None:
        """The direction of the matrices that lie nearest, by how many segments their names have in common; None if they differ.

        GPT-2's kernels are not transposed, and its head is: what lies in the same block goes for a block, and what has nothing
        in common with a name proves nothing for it.
        """
        *container, leaf = _container_and_leaf(family)
        directions: set[bool] = self._beside_root.get(leaf, set()) if not container else set()
        for length in range(len(container), 0, -1):
            found = self._below.get((leaf, tuple(container[:length])))
            if found:
                directions = found
                break
        return next(iter(directions)) if len(directions) == 1 else None


def _says_convolution(pair: Pair) -> bool:
    """Whether a name says that it is a convolution, and nothing that it may be a transposed one."""
    words = {*all_words(pair.source.path), *all_words(pair.targets[0].path)}
    return bool(words & _CONVOLUTION) and not words & _TRANSPOSED


def _layout_of_convolutions(pairs: Iterable[Pair]) -> type[Operation] | None:
    """The layout of all kernels of convolutions that fit one layout alone; None if they differ or one is a transposed one."""
    only: set[type[Operation]] = set()
    for pair in pairs:
        target = pair.targets[0]
        is_kernel = not target.roles or "kernel" in target.roles
        if len(pair.operations) == 1 and len(pair.source.shapes[0]) > 2 and is_kernel:
            only |= {type(step) for step in steps_of(pair.operations[0])}
    found = only & {axes.Conv, AsIs}
    if len(found) != 1 or only & {axes.ConvTranspose, axes.Swap}:
        return None
    return next(iter(found))


def _recurrent_layers(pairs: Sequence[Pair]) -> set[str]:
    """The layers of a target with a kernel for the input and one for the hidden state, of several gates each."""
    shapes = {family.path: family.shapes[0] for pair in pairs for family in pair.targets}
    found: set[str] = set()
    for path, shape in shapes.items():
        layer, is_hidden, _ = path.partition("/hidden/kernel")
        if is_hidden and len(shape) == 2 and shape[1] in (3 * shape[0], 4 * shape[0]):
            found.add(layer)
    return found


def _is_recurrent(pair: Pair, layers: set[str]) -> bool:
    """Whether the arrays of a pair may be of an LSTM or GRU, by the words of their names or the layers of the target."""
    if any(target.path.rsplit("/", 2)[0] in layers for target in pair.targets):
        return True
    words = {word for family in (pair.source, *pair.targets) for word in all_words(family.path)}
    return bool(words & _RECURRENT)
