"""Roles of layers in tensor parallel models, by their names and shapes: column, row, vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

Names: TypeAlias = tuple[str, ...]
"""The segments of a path."""
Shape: TypeAlias = tuple[int, ...]


def separator_in(path: str) -> str:
    """What is between the names of a path: a state dict of PyTorch as it is has dots in one name."""
    return "/" if "/" in path else "."


class Kind(Enum):
    """How a layer is split over the devices of the tensor axis."""

    COLUMN = "column"
    """By its output features, or heads; its bias too."""
    ROW = "row"
    """By its input features, or heads; its outputs are summed over devices."""
    TABLE = "vocabulary"
    """A table by its rows."""
    HEAD = "vocabulary of the head"
    """A kernel by its output features, which are the rows of a table."""


class Role(NamedTuple):
    """The role of one layer."""

    kind: Kind
    has_heads: bool = False
    """Whether it belongs to attention: a kernel of three axes has one of heads."""


@dataclass(frozen=True)
class _Family:
    """Names of layers in one node that belong together: the row layer takes in what the column layers give."""

    columns: frozenset[str]
    rows: frozenset[str]
    has_heads: bool


def _family(columns: str, rows: str, *, has_heads: bool) -> _Family:
    return _Family(frozenset(columns.split()), frozenset(rows.split()), has_heads)


_FAMILIES = (
    _family("q k v qkv kv", "o out proj", has_heads=True),  # ptree.nn, T5, timm
    _family("query key value", "out o output attention_output", has_heads=True),  # Flax, Keras
    _family("q_proj k_proj v_proj qkv_proj in_proj", "o_proj out_proj", has_heads=True),  # Llama, OPT, PyTorch
    _family("wq wk wv wqkv", "wo", has_heads=True),
    _family("q_lin k_lin v_lin", "out_lin", has_heads=True),  # DistilBERT
    _family("self/query self/key self/value", "output/dense", has_heads=True),  # BERT
    _family("attention/query attention/key attention/value", "output/dense", has_heads=True),  # ViT
    _family("query_key_value", "dense", has_heads=True),  # GPT-NeoX, Falcon, BLOOM
    _family("c_attn", "c_proj", has_heads=True),  # GPT-2
    _family("up gate", "down", has_heads=False),
    _family("up_proj gate_proj gate_up_proj", "down_proj", has_heads=False),  # Llama
    _family("c_fc", "c_proj", has_heads=False),  # GPT-2
    _family("fc1", "fc2", has_heads=False),  # OPT, ViT
    _family("fc_in", "fc_out", has_heads=False),  # GPT-J
    _family("wi wi_0 wi_1", "wo", has_heads=False),  # T5
    _family("w1 w3", "w2", has_heads=False),  # Mixtral
    _family("lin1", "lin2", has_heads=False),  # DistilBERT
    _family("linear1", "linear2", has_heads=False),  # PyTorch
    _family("dense_h_to_4h", "dense_4h_to_h", has_heads=False),  # GPT-NeoX, Falcon, BLOOM
    _family("intermediate/dense", "output/dense", has_heads=False),  # BERT
)
_TABLE_LEAVES = frozenset({"table", "embedding"})
_TABLES = frozenset(
    [
        "wte",
        "embed",
        "embedding",
        "embed_tokens",
        "embed_in",
        "tok_embeddings",
        "token_embedding",
        "word_embeddings",
        "shared",
    ]
)
_HEADS = frozenset(["lm_head", "head", "logits", "output", "embed_out"])
_KERNELS = frozenset({"kernel", "weight", "w"})
_BIASES = frozenset({"bias", "b"})
_MOST_UNNAMED = 3
"""Kernels of an MLP whose layers have no names that say what they are: up, gate and down."""


class Part(NamedTuple):
    """The layer that a leaf belongs to, and which of its parameters it is."""

    layer: Names
    is_bias: bool
    leaf: str
    """The name of the leaf, such as `kernel`; empty where the layer is its kernel."""


def part_of(names: Names) -> Part:
    """Cut a path into its layer and the name of its parameter.

    >>> part_of(("attn", "q", "bias"))
    Part(layer=('attn', 'q'), is_bias=True, leaf='bias')
    >>> part_of(("attn", "in_proj_weight")).layer
    ('attn', 'in_proj')
    """
    *above, last = names
    if last in _KERNELS | _BIASES | _TABLE_LEAVES:
        return Part(tuple(above), last in _BIASES, last)
    for ending in ("weight", "bias"):  # of PyTorch's MultiheadAttention
        if last.endswith(f"_{ending}"):
            return Part((*above, last.removesuffix(f"_{ending}")), ending == "bias", ending)
    return Part(names, False, "")


def layer_roles(kernels: Mapping[Names, tuple[str, Shape]]) -> dict[Names, Role]:
    """Find the role of each layer that has one.

    Args:
        kernels: for each layer the name and the shape of its kernel; of a stack without the stack's axis.
    """
    roles: dict[Names, Role] = {}
    vocabularies: set[int] = set()
    for layer, (leaf, shape) in kernels.items():
        if _is_table(layer, leaf, shape):
            roles[layer] = Role(Kind.TABLE)
            vocabularies.add(shape[0])
    for layer, (_, shape) in kernels.items():
        is_head = layer[-1:] and layer[-1] in _HEADS and len(shape) == 2 and vocabularies & {*shape}
        if is_head and layer not in roles:
            roles[layer] = Role(Kind.HEAD)
    known: dict[object, dict[str, Role]] = {}
    for named in _by_node(kernels).values():
        # nodes that are alike, such as the layers of a model, are looked at once
        of_names = {name: kernels[layer] for name, layer in named.items()}
        alike = tuple(of_names.items())
        if alike not in known:
            known[alike] = _roles_in_node(of_names)
        roles.update((named[name], role) for name, role in known[alike].items())
    return roles


def _is_table(layer: Names, leaf: str, shape: Shape) -> bool:
    if len(shape) != 2 or any("pos" in name or name == "wpe" for name in layer[-2:]):
        return False
    return leaf in _TABLE_LEAVES or (bool(layer) and layer[-1] in _TABLES)


def _by_node(layers: Iterable[Names]) -> dict[Names, dict[str, Names]]:
    """The layers in each node, by name; those a level further down as `output/dense`."""
    nodes: dict[Names, dict[str, Names]] = {}
    for layer in layers:
        if layer:
            nodes.setdefault(layer[:-1], {})[layer[-1]] = layer
        if len(layer) > 1:
            nodes.setdefault(layer[:-2], {})["/".join(layer[-2:])] = layer
    return nodes


def _roles_in_node(kernels: Mapping[str, tuple[str, Shape]]) -> dict[str, Role]:
    """The roles of layers in one node, by their names: of families that are there with both sides, else by shape."""
    roles: dict[str, Role] = {}
    for family in _FAMILIES:
        columns, rows = family.columns & kernels.keys(), family.rows & kernels.keys()
        if not columns or not rows:
            continue
        outer, inner = [kernels[name][1] for name in columns], [kernels[name][1] for name in rows]
        if family.has_heads or _are_chained(outer, inner):
            roles.update(dict.fromkeys(columns, Role(Kind.COLUMN, family.has_heads)))
            roles.update(dict.fromkeys(rows, Role(Kind.ROW, family.has_heads)))
    return roles or _roles_by_shape(kernels)


def _are_chained(columns: Iterable[Shape], rows: Iterable[Shape]) -> bool:
    """Whether what column kernels give is what row kernels take, in either order of their axes; two in one kernel may be fused."""
    outer, inner = {shape[-2:] for shape in columns}, {shape[-2:] for shape in rows}
    if len(inner) != 1 or any(len(shape) != 2 for shape in outer | inner):
        return False
    [(first, last)] = inner
    fits = {(last, first), (last, 2 * first), (2 * last, first)}
    return outer <= fits


def _roles_by_shape(kernels: Mapping[str, tuple[str, Shape]]) -> dict[str, Role]:
    """The roles of two or three kernels that are all there is in a node: the last is narrow, those before it are wide."""
    direct = [name for name, (_, shape) in kernels.items() if "/" not in name and len(shape) == 2]
    if not 2 <= len(direct) <= _MOST_UNNAMED:
        return {}
    leaf = kernels[direct[0]][0]
    *wide, narrow = [kernels[name][1] for name in direct]
    widens = wide[0][0] > wide[0][1] if leaf == "weight" else wide[0][0] < wide[0][1]
    is_mlp = leaf in _KERNELS and widens and {shape[::-1] for shape in wide} == {narrow}
    if not is_mlp:
        return {}
    return {**dict.fromkeys(direct[:-1], Role(Kind.COLUMN)), direct[-1]: Role(Kind.ROW)}
