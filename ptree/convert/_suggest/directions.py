"""Which way round a kernel lies, where its shape fits several layouts: said by the framework, proven by other kernels, or in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ...files._kernels import layout_of_name
from .._operations import axes
from .._operations.operation import AsIs, Operation
from .families import Family, described_of, part_of
from .fitting import fitting, fitting_shapes, gives, is_turned, steps_of
from .flattened import is_matrix, may_read_flattened, without_flattened
from .name_words import all_words, last_segment, name_of_weight
from .possible_pairs import Pair

SQUARE = "the shape does not tell the layout"
OTHER_CLASS = "the class of the module says another layout than the shapes"
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


def directed(pairs: Sequence[Pair], targets: Mapping[str, Operation], order: Mapping[str, int]) -> list[Pair]:
    """The pairs with one operation each where that is certain, and with their doubts.

    Args:
        pairs: what is matched; the arrays of the source have the layouts that the classes of modules say.
        targets: what these classes say of each path of the target.
        order: the place of each path in the source.
    """
    pairs = [_as_its_class_says(part, targets) for pair in pairs for part in _by_class(pair, targets)]
    features = _features_of_biases(pairs)
    # what the class of one layer says proves nothing for a layer of another class, or of one's own
    alike: dict[Operation | None, list[Pair]] = {}
    for pair in pairs:
        alike.setdefault(_layout_in_source(pair), []).append(pair)
    witnesses = {layout: _witnesses(some, features) for layout, some in alike.items()}
    found = [_directed(pair, targets, witnesses[_layout_in_source(pair)]) for pair in pairs]
    flattened = may_read_flattened(found, order)
    found = [part for pair in found for part in without_flattened(pair, flattened)]
    recurrent = _recurrent_layers(pairs)
    return [replace(pair, doubts=(*pair.doubts, GATES)) if _is_recurrent(pair, recurrent) else pair for pair in found]


def _witnesses(pairs: Sequence[Pair], features: Mapping[str, set[int]]) -> Sequence[_Witness]:
    """What may know the layout of one of these pairs, best first."""
    return (
        _names_of_kernels,
        partial(_other_matrices, proofs=_Proofs(_proofs_of(pairs, features))),
        partial(_other_convolutions, layout=_layout_of_convolutions(pairs)),
    )


def _layout_in_source(pair: Pair) -> Operation | None:
    """What the class of the source's modules says of all members of a pair."""
    return next(iter(pair.source.members.values())).layout


def _by_class(pair: Pair, targets: Mapping[str, Operation]) -> list[Pair]:
    """A pair in parts, so that the classes say the same of all members of a part: of `*.weight` one may be a convolution, and
    another a transposed one."""
    first, *others = pair.targets
    if others:  # a fused projection, of one class
        return [pair]
    places: dict[object, list[int]] = {}
    members = zip(pair.source.members.values(), first.members.values(), strict=True)
    for at, (source, target) in enumerate(members):
        places.setdefault((source.layout, targets.get(target.path)), []).append(at)
    if len(places) == 1:
        return [pair]
    return [_part_of(pair, part) for part in places.values()]


def _part_of(pair: Pair, places: Sequence[int]) -> Pair:
    """A part of a pair, with all operations that fit it: of the whole some may fit only one part."""
    source, target = part_of(pair.source, places), part_of(pair.targets[0], places)
    return replace(pair, source=source, targets=(target,), operations=tuple(fitting(source, target)))


def _layout_by_class(pair: Pair, targets: Mapping[str, Operation]) -> Operation | None:
    """What the classes of the modules say is done with all members of a pair; None where they say nothing."""
    source = _layout_in_source(pair)
    target = next(iter(pair.targets[0].members.values()))
    there = targets.get(target.path)
    if source is None:
        return None
    if there == source:
        return AsIs()
    is_kernel = layout_of_name(target.path) == "kernel" if there is None else there == AsIs()
    return source if is_kernel else None


def _as_its_class_says(pair: Pair, targets: Mapping[str, Operation]) -> Pair:
    """The pair with the operation alone that the classes of the modules say, or with those that have its layout."""
    layout = _layout_by_class(pair, targets)
    if layout is None:
        return pair
    members = zip(pair.source.members.values(), pair.targets[0].shapes, strict=True)
    is_single = len(pair.targets) == 1
    if is_single and all(gives(layout, described_of(member), shape) for member, shape in members):
        return replace(pair, operations=(layout,))
    alike = tuple(operation for operation in pair.operations if _has_layout(operation, layout))
    if not alike:
        return replace(pair, doubts=(*pair.doubts, OTHER_CLASS))
    return replace(pair, operations=alike)


def _has_layout(operation: Operation, layout: Operation) -> bool:
    kinds = (axes.Linear, axes.Conv, axes.ConvTranspose, axes.Swap, axes.Depthwise, axes.Flip)
    there = [step for step in steps_of(operation) if isinstance(step, kinds)]
    if there == [axes.Linear()] and layout == axes.Conv():
        return True  # of a convolution with a window of 1
    return there == [step for step in steps_of(layout) if not isinstance(step, AsIs)]


def _proofs_of(pairs: Sequence[Pair], features: Mapping[str, set[int]]) -> list[_Proof]:
    """The directions that pairs prove for other matrices; nothing where several operations fit.

    An embedding is stored as (number, features) by all frameworks, whatever its leaf is called. So a matrix that stays as it is
    proves nothing, unless it has a bias for each feature out, or the matrix beside it has its sizes the other way round.

    Args:
        features: the sizes of the biases of each layer.
    """
    matrices = [pair for pair in pairs if _is_kernel_of_one_direction(pair)]
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


def _directed(pair: Pair, targets: Mapping[str, Operation], witnesses: Sequence[_Witness]) -> Pair:
    """The pair with the operations that the first witness admits that knows its layout."""
    has_class = _layout_by_class(pair, targets) is not None
    if len(pair.operations) == 1 and (has_class or not _has_square_window(pair)):
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


def _other_convolutions(pair: Pair, layout: Operation | None) -> _Filter | None:
    """The convolutions that fit one layout alone prove it for others."""
    if layout is None or len(pair.source.shapes[0]) < 3 or not _says_convolution(pair):
        return None
    there = AsIs() if _is_kernel_on_both_sides(pair) else layout
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


def _layout_of_convolutions(pairs: Iterable[Pair]) -> Operation | None:
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
    return next(iter(found))()


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
