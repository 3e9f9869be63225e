"""The layers of a Keras model by its config: the group of each in a weights file, its name, and the names of its variables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Config: TypeAlias = Any
"""JSON of a layer: `{"class_name": ..., "config": {"name": ..., ...}}`; a file may hold anything, and is checked."""

_MOST_LEVELS = 100
_ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")
_ATTENTION_PARTS = {
    "query_dense": "query", "key_dense": "key", "value_dense": "value", "output_dense": "attention_output", "gate_dense": "gate",
}  # fmt: skip
_CLASSES = {"GroupQueryAttention": "GroupedQueryAttention"}
"""The name of a class in configs -> its name in Keras' code, by which groups are named, where the two differ."""
_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_WITH_KERNEL = (
    "Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
    "DepthwiseConv1D", "DepthwiseConv2D",
)  # fmt: skip
_FIXED = {
    "Embedding": ["embeddings"],
    "PReLU": ["alpha"],
    "RMSNormalization": ["scale"],
    "Normalization": ["mean", "variance", "count"],
}


@dataclass(frozen=True)
class LayerGroup:
    """A layer of a model, and where a weights file has its variables."""

    group: str
    """The path of the group: `layers/dense_1`."""
    name: str
    """The names of the layer and of those around it: `encoder/hidden`."""
    variables: tuple[str, ...]
    """The names of its variables in the order in which they are stored; empty where the class is not known."""


def layer_groups(config: Config) -> dict[str, LayerGroup]:
    """Find all layers of a model by its config, by their groups; layers in an unknown class are left out.

    >>> dense = {"class_name": "Dense", "config": {"name": "hidden", "use_bias": False}}
    >>> layer_groups({"class_name": "Sequential", "config": {"name": "net", "layers": [dense]}})["layers/dense"]
    LayerGroup(group='layers/dense', name='hidden', variables=('kernel',))
    """
    return {found.group: found for found in _walk(config, "", "", _MOST_LEVELS)}


def _walk(layer: Config, group: str, name: str, levels: int) -> Iterator[LayerGroup]:
    if levels == 0:
        return
    yield LayerGroup(group, name, tuple(_variables(layer)))
    for inner_group, inner_name, inner in _inner_layers(layer):
        yield from _walk(inner, _joined(group, inner_group), _joined(name, inner_name), levels - 1)


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


# ----------------------------------------------------------------- layers in a layer


def _inner_layers(layer: Config) -> Iterator[tuple[str, str, Config]]:
    """The layers directly in a layer: the group of each below that of the layer, its name, and its config."""
    kind, config = _class_of(layer), _config_of(layer)
    if kind in _ATTENTION:
        yield from _attention_parts(config)
    elif kind in _RECURRENT:
        cell = {"class_name": f"{kind}Cell", "config": config}
        yield "cell", _snake_case(f"{kind}Cell"), cell
    elif kind == "Bidirectional":
        yield from _directions(config)
    elif kind == "StackedRNNCells":
        yield from _numbered("cells", config.get("cells"))
    elif kind == "RNN":
        yield "cell", _name_of(config.get("cell")), config.get("cell")
    elif isinstance(config.get("layers"), list):
        yield from _numbered("layers", config["layers"])
    elif isinstance(config.get("layer"), dict):  # TimeDistributed and other wrappers
        yield "layer", _name_of(config["layer"]), config["layer"]


def _numbered(folder: str, layers: Any) -> Iterator[tuple[str, str, Config]]:
    """Layers in a list: Keras names their groups by class and count, `dense`, `dense_1`."""
    counts: dict[str, int] = {}
    for layer in layers if isinstance(layers, list) else []:
        key = _snake_case(_class_name(layer))
        count = counts.get(key, 0)
        counts[key] = count + 1
        group = f"{key}_{count}" if count else key
        yield f"{folder}/{group}", _name_of(layer), layer


def _attention_parts(config: dict[str, Any]) -> Iterator[tuple[str, str, Config]]:
    bias = "has one" if config.get("use_bias", True) else None
    for part, name in _ATTENTION_PARTS.items():
        dense = {"class_name": "EinsumDense", "config": {"bias_axes": bias}}
        yield part, name, dense
        yield f"_{part}", name, dense  # of GroupedQueryAttention


def _directions(config: dict[str, Any]) -> Iterator[tuple[str, str, Config]]:
    forward = config.get("layer")
    backward = config.get("backward_layer") or forward
    for direction, layer in (("forward", forward), ("backward", backward)):
        name = _name_of(layer)
        if not name.startswith(f"{direction}_"):
            name = f"{direction}_{name.removeprefix('forward_')}"
        yield f"{direction}_layer", name, layer


# --------------------------------------------------------------- variables of a layer


def _variables(layer: Config) -> Sequence[str]:
    kind, config = _class_of(layer), _config_of(layer)
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _WITH_KERNEL:
        return ["kernel", *_bias(kind, config)]
    if kind.startswith("Separable"):
        return ["depthwise_kernel", "pointwise_kernel", *_bias(kind, config)]
    if kind.endswith("Cell"):
        return ["kernel", "recurrent_kernel", *_bias(kind, config)]
    if kind == "BatchNormalization":
        return [*_scale_and_center(config), "moving_mean", "moving_variance"]
    if kind in ("LayerNormalization", "GroupNormalization"):
        return _scale_and_center(config)
    return []


def _bias(kind: str, config: dict[str, Any]) -> list[str]:
    has_bias = config.get("bias_axes") if kind == "EinsumDense" else config.get("use_bias", True)
    return ["bias"] if has_bias else []


def _scale_and_center(config: dict[str, Any]) -> list[str]:
    gamma = ["gamma"] if config.get("scale", True) else []
    beta = ["beta"] if config.get("center", True) else []
    return [*gamma, *beta]


# ------------------------------------------------------------------------ JSON, checked


def _class_of(layer: Config) -> str:
    """The class of a layer of Keras; "" of a class of another package, which may have any variables."""
    registered = layer.get("registered_name") if isinstance(layer, dict) else None
    is_custom = isinstance(registered, str) and ">" in registered
    return "" if is_custom else _class_name(layer)


def _class_name(layer: Config) -> str:
    name = layer.get("class_name") if isinstance(layer, dict) else None
    return _CLASSES.get(name, name) if isinstance(name, str) else ""


def _config_of(layer: Config) -> dict[str, Any]:
    config = layer.get("config") if isinstance(layer, dict) else None
    return config if isinstance(config, dict) else {}


def _name_of(layer: Config) -> str:
    name = _config_of(layer).get("name")
    return name if isinstance(name, str) else ""


def _snake_case(name: str) -> str:
    """As Keras writes the name of a class: `MultiHeadAttention` is `multi_head_attention`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
