"""Words of names: a path as the words that frameworks have in common, the role of a leaf, how alike two names are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

# Each set holds other words for its key.
_SYNONYMS = {
    "attention": {
        "attn",
        "att",
        "mha",
        "self_attn",
        "selfattention",
        "multiheadattention",
        "multi_head_attention",
        "multiheaddotproductattention",
    },
    "query": {"q"},
    "key": {"k"},
    "value": {"v"},
    "output": {"o", "out", "outputs"},
    "layer": {"layers", "h", "block", "blocks"},
    "norm": {"ln", "layernorm", "rmsnorm", "bn", "batchnorm", "gn", "groupnorm", "normalization"},
    "mlp": {"ffn", "ff", "feedforward", "intermediate"},
    "dense": {"linear", "fc", "lin"},
    "embedding": {"embeddings", "embed", "emb", "table", "wte", "wpe", "embedder"},
    "position": {"pos", "positional", "positions", "wpe"},
    "token": {"word", "tok", "tokens", "words", "wte"},
    "head": {"classifier", "logits"},
    "patch": {"patches"},
    "convolution": {"conv", "convs"},
    "encoder": {"enc"},
    "decoder": {"dec"},
    "final": {"f"},
    "down": {"downsample"},
    "projection": {"proj", "project"},
}
_CANONICAL = {other: word for word, others in _SYNONYMS.items() for other in others}
# In nearly every name of some framework, and no hint which array is meant.
_EMPTY_WORDS = {"model", "module", "params", "param", "vars", "self", "transformer", "backbone", "net", "network", "d"}

_ROLES = {
    "kernel": {"kernel"},
    "w": {"kernel", "scale"},
    "weight": {"kernel", "scale", "embedding"},
    "weights": {"kernel", "scale", "embedding"},
    "gamma": {"scale"},
    "scale": {"scale"},
    "beta": {"bias"},
    "bias": {"bias"},
    "b": {"bias"},
    "running_mean": {"mean"},
    "moving_mean": {"mean"},
    "mean": {"mean"},
    "running_var": {"variance"},
    "moving_variance": {"variance"},
    "moving_var": {"variance"},
    "var": {"variance"},
    "running_std": {"deviation"},
    "moving_std": {"deviation"},
    "std": {"deviation"},
    "stddev": {"deviation"},
    "sigma": {"deviation"},
    "inv_std": {"inverse deviation"},
    "running_inv_std": {"inverse deviation"},
    "invstd": {"inverse deviation"},
    "rstd": {"inverse deviation"},
    "inv_var": {"inverse variance"},
    "precision": {"inverse variance"},
    "variance": {"variance"},
    "embedding": {"embedding"},
    "embeddings": {"embedding"},
    "table": {"embedding"},
}
STATISTICS = frozenset({"mean", "variance", "deviation", "inverse deviation", "inverse variance"})
"""Roles of which one is computed from the other: a leaf of one is never filled from another."""
_MOVING_AVERAGES = {"mean_ema": "mean", "var_ema": "variance"}
"""Haiku's moving averages, whose leaf is called `average`."""
_PART_OF_WEIGHT = re.compile(r"(?:^|(?<=/))(?:(weights?)_(?:v|g|orig)|parametrizations/(\w+)/original[01]?)$")
"""PyTorch's names of the arrays that a weight is computed from: `weight_v`, `weight_orig`, `parametrizations/weight/original1`."""
_COUNTER = re.compile(r"_?[\d*]+$")
"""The counter of a name such as Flax's `LayerNorm_0`."""
_FLAT_ENDING = re.compile(r"_(weight|bias|gamma|beta|running_mean|running_var|moving_mean|moving_var)$")
"""The leaf's part of a name such as Gluon's `dense0_weight`."""


def last_segment(path: str) -> str:
    """The last segment of a path: what the layer calls its leaf."""
    return path.rpartition("/")[2]


def is_part_of_weight(path: str) -> bool:
    """Whether a name is that of an array from which a layer computes its weight."""
    return _PART_OF_WEIGHT.search(path) is not None


def name_of_weight(path: str) -> str:
    """The name that a weight would have that is not stored in parts; other names as they are."""
    return _PART_OF_WEIGHT.sub(lambda match: match[1] or match[2], path)


def roles_of(path: str, rank: int) -> frozenset[str]:
    """What a leaf may be by its last segment and its rank: "kernel", "scale", "bias", ...; empty where that is not known."""
    path = name_of_weight(path)
    last = last_segment(path).lower().removesuffix(":0")
    if last == "average":
        average_of = last_segment(path.rpartition("/")[0])
        return frozenset({_MOVING_AVERAGES[average_of]} if average_of in _MOVING_AVERAGES else ())
    ending = _FLAT_ENDING.search(last)
    if last not in _ROLES and ending:
        last = ending[1]
    roles = frozenset(_ROLES.get(last, ()))
    if len(roles) > 1:  # a `weight`: of a norm, or of anything else
        return roles & {"scale"} if rank < 2 or _is_of_norm(path) else roles - {"scale"}
    return roles


def _is_of_norm(path: str) -> bool:
    """Whether the layer's name ends in a word for norms, whose scale may have several axes: `norm1/weight`, `LayerNorm_0/weight`."""
    words = [word.lower() for word in _WORD.findall(last_segment(layer_of(path))) if not word.isdigit()]
    whole = "".join(words)
    return any(_CANONICAL.get(name, name) == "norm" for name in (whole, *words[-1:]))


def may_be_same_role(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two leaves may be the same by their roles."""
    return not one or not other or bool(one & other)


def words_of(path: str) -> frozenset[str]:
    """The words of a name by which leaves are told apart, in the field's common form; numbers and roles are left out.

    >>> sorted(words_of("encoder/layer/0/attention/self/query/weight"))
    ['attention', 'encoder', 'layer', 'query']
    >>> sorted(words_of("h/0/attn/q/kernel"))
    ['attention', 'layer', 'query']
    """
    path = name_of_weight(path)
    layer_path, _, last = path.rpartition("/")
    if last.lower() not in _ROLES:
        layer_path = _without_role(path)
    words: set[str] = set()
    for segment in layer_path.split("/"):
        whole = _COUNTER.sub("", segment.lower())
        if whole in _CANONICAL:  # `LayerNorm` says nothing of a layer
            words |= _common_forms(whole)
            continue
        for word in _WORD.findall(segment):
            words |= _common_forms(word.lower())
    return frozenset(word for word in words if word not in _EMPTY_WORDS and not word.isdigit() and word.isalpha())


def _without_role(path: str) -> str:
    """A path without an ending such as `_weight`."""
    return _FLAT_ENDING.sub("", path)


def layer_of(path: str) -> str:
    """The path of the layer that a leaf belongs to: `a/b` of `a/b/weight`, and of `a/b_weight`; empty where there is none."""
    path = name_of_weight(path)
    without = _without_role(path)
    return without if without != path else path.rpartition("/")[0]


def _common_forms(word: str) -> set[str]:
    if word in ("wte", "wpe"):
        return {"embedding", "token" if word == "wte" else "position"}
    return {_CANONICAL.get(word, word)}


def all_words(path: str) -> list[str]:
    """Every word of a name as it is written, in small letters: for convolutions that say that they are transposed."""
    return [word.lower() for word in _WORD.findall(path)]


def likeness(one: Collection[str], other: Collection[str], weights: Mapping[str, float]) -> float:
    """How alike two sets of words are, from 0 to 1: the weight of those in both, of the weight of all (Jaccard's index)."""
    all_of_them = {*one, *other}
    total = sum(weights.get(word, 1.0) for word in all_of_them)
    if not total:
        return 0.0
    shared = {*one} & {*other}
    return sum(weights.get(word, 1.0) for word in shared) / total
