"""Check the arguments of a layer's constructor: what PyTorch, Keras and Flax take by position or keyword is answered with
what to write here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import jax

from .._errors import LayerError
from .._words import listed, name_of, shortened, suggestion


@dataclass(frozen=True)
class Positions:
    """The arguments that a layer takes by position, and what to write instead of more."""

    takes: str
    instead: Mapping[int, str] = field(default_factory=dict)
    """Number of sizes -> what to write; `{0}`, `{1}` stand for the sizes, `{least}` for the smallest."""


_WIDTH = "the input width comes from the input"
_LAST_AXIS = "no sizes: it normalises over the last axis, whose width comes from the input"
# PyTorch writes the input width first: of three sizes the first is either that or, in Keras and Flax, the features.
_CONV = {
    3: "{name}({1}, {2}) from PyTorch's order, {name}({0}, {1}, stride={2}) from Keras' and Flax'",
    4: "{name}({1}, {2}, stride={3})",
    5: "{name}({1}, {2}, stride={3}, padding={4})",
}
_RECURRENT = {2: "{name}({1})", 3: "Sequential(*[{name}({1}) for _ in range({2})])"}
_POOL = {3: "{name}({0}, {1}, padding={2})"}

POSITIONS = {
    "Dense": Positions(f"the output features only; {_WIDTH}", {2: "Dense({1})", 3: "Dense({1})"}),
    "Conv": Positions(f"features and kernel_size; {_WIDTH}", _CONV),
    "ConvTranspose": Positions(f"features and kernel_size; {_WIDTH}", _CONV),
    "Embedding": Positions("num_embeddings and features"),
    "LayerNorm": Positions(_LAST_AXIS, {1: "LayerNorm()"}),
    "RMSNorm": Positions(_LAST_AXIS, {1: "RMSNorm()"}),
    "BatchNorm": Positions("no sizes: the width comes from the input", {1: "BatchNorm()"}),
    "GroupNorm": Positions("the number of groups only; the width comes from the input", {2: "GroupNorm({least})"}),
    "MultiHeadAttention": Positions(
        "the number of heads only; the width comes from the input",
        {2: "MultiHeadAttention({1}) from PyTorch's order, MultiHeadAttention({0}, head_dim={1}) from Keras'"},
    ),
    "LSTM": Positions(f"the features of the state only; {_WIDTH}", _RECURRENT),
    "GRU": Positions(f"the features of the state only; {_WIDTH}", _RECURRENT),
    "MaxPool": Positions("window and stride", _POOL),
    "AvgPool": Positions("window and stride", _POOL),
    "Dropout": Positions("the rate only"),
    "Flatten": Positions(
        "nothing: it keeps the first axis, and makes one of the others", {1: "Flatten()", 2: "Flatten()"}
    ),
    "Lambda": Positions("a function and a name"),
    "Sequential": Positions("layers, or one dict of them"),
    "Parallel": Positions("layers, or one dict of them"),
    "Residual": Positions("one layer; several are one layer as Sequential(...)"),
    "Repeat": Positions("a layer and how many times it is repeated"),
}
"""Name of the layer's class -> its positions."""

RENAMED = {
    "features": ("units", "filters", "out_features", "out_channels", "output_size", "output_channels", "hidden_size",
                 "embedding_dim", "output_dim", "embed_dim", "out_size"),
    "num_embeddings": ("input_dim", "vocab_size"),
    "kernel_size": ("kernel_shape",),
    "window": ("kernel_size", "pool_size", "window_shape", "sliding_window", "local_window_size"),
    "stride": ("strides", "window_strides"),
    "dilation": ("dilation_rate", "kernel_dilation", "rate"),
    "groups": ("num_groups", "feature_group_count"),
    "heads": ("num_heads",),
    "head_dim": ("key_dim", "key_size"),
    "kv_heads": ("num_kv_heads", "num_key_value_heads"),
    "dropout": ("dropout_rate", "attention_dropout", "dropout_p"),
    "rotary": ("rope", "rope_theta", "rotary_base"),
    "qk_norm": ("normalize_qk",),
    "soft_cap": ("softcap", "logit_soft_cap"),
    "causal": ("is_causal", "use_causal_mask"),
    "epsilon": ("eps",),
    "use_bias": ("bias", "with_bias", "center", "create_offset"),
    "rate": ("p",),
    "reverse": ("go_backwards",),
    "count_padding": ("count_include_pad",),
    "kernel_init": ("kernel_initializer", "w_init"),
    "recurrent_init": ("recurrent_initializer", "recurrent_kernel_init"),
    "bias_init": ("bias_initializer", "b_init"),
    "table_init": ("embedding_init", "embeddings_initializer", "w_init"),
    "n": ("times", "num_layers"),
}  # fmt: skip
"""Option of a layer here -> its names in other libraries."""

_FROM_INPUT = "comes from the input: leave it out"
_IN_THE_CALL = "is an option of the call: layer(params, x, train=True)"
_KEY = "is given to init: layer.init(jax.random.key(0), x)"
_ALWAYS_SCALED = "is no option: there is always a scale"
EXPLAINED = {
    **dict.fromkeys(("in_features", "in_channels", "input_size", "input_dim", "input_shape", "in_size"), _FROM_INPUT),
    **dict.fromkeys(("num_features", "num_channels", "normalized_shape", "embed_dim", "out_features"), _FROM_INPUT),
    **dict.fromkeys(("train", "training", "deterministic", "inference", "use_running_average"), _IN_THE_CALL),
    **dict.fromkeys(("rngs", "rng", "key", "seed"), _KEY),
    **dict.fromkeys(("affine", "elementwise_affine", "scale", "use_scale", "create_scale"), _ALWAYS_SCALED),
    "activation": "goes after the layer: Sequential({name}(...), jax.nn.relu)",
    "dropout": "is a layer: Sequential({name}(...), Dropout(0.1))",
    "dropout_rate": "is a layer: Sequential({name}(...), Dropout(0.1))",
    "name": "comes from the container: Sequential({{'name': {name}(...)}})",
    "axis": "is no option: features are the last axis",
    "data_format": "is no option: features are the last axis",
    "batch_first": "is no option: axes are (batch, time, features)",
    "num_layers": "is written as layers: Sequential({name}(8), {name}(8))",
    "bidirectional": "is two layers: Parallel({name}(8), {name}(8, reverse=True), combine=...)",
    "return_sequences": "is no option: the call gives the outputs of all times",
    "return_state": "is no option: layer.run(params, x) gives the last state too",
    "precision": "is set for all of JAX: jax.default_matmul_precision",
    "inplace": "is no option: arrays are immutable",
}
"""Keyword of other libraries without an option here -> what to do instead. `{name}` is the layer's class."""


def check_arguments(kind: type, given: Sequence[object], options: Mapping[str, object]) -> None:
    """Check the arguments of a layer's constructor, and say what to write instead of another library's.

    Only layers of this package and classes that derive from them are checked: others raise Python's `TypeError`.

    Raises:
        LayerError: more arguments by position than the layer takes, or an unknown keyword.
    """
    positions = _positions_of(kind)
    if positions is None:  # a class of the user, whose arguments Python checks
        return
    accepted = _accepted(kind)
    if accepted.most_by_position is not None and len(given) > accepted.most_by_position:
        raise LayerError(_too_many(kind, given, positions, accepted))
    unknown = {name: value for name, value in options.items() if name not in accepted.names}
    # All of them in one message: a call that is copied from another library often has several.
    if unknown and not accepted.takes_others:
        problems = [_unknown(kind, name, accepted) for name in unknown]
        raise LayerError(f"{_call(kind, (), unknown)}: {'; '.join(problems)}")


@dataclass(frozen=True)
class _Accepted:
    """The arguments that a constructor accepts. `most_by_position` is None if it accepts any number."""

    most_by_position: int | None
    names: tuple[str, ...]
    takes_others: bool


_PACKAGE = __name__.rpartition(".")[0]


# Bounded, as classes made in a notebook would be kept for ever.
@lru_cache(maxsize=1024)
def _positions_of(kind: type) -> Positions | None:
    """The positions of a layer's constructor: those of its class, or of the first base that has an entry."""
    for base in kind.__mro__:
        # A user's class may be called Dense too.
        if base.__module__.startswith(_PACKAGE) and base.__name__ in POSITIONS:
            return POSITIONS[base.__name__]
    return None


@lru_cache(maxsize=1024)  # `inspect.signature` is slow, and each layer of a network asks
def _accepted(kind: type) -> _Accepted:
    _, *arguments = inspect.signature(kind.__init__).parameters.values()
    kinds = [argument.kind for argument in arguments]
    by_position = None
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        by_position = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = tuple(argument.name for argument in arguments if argument.kind not in variable)
    return _Accepted(by_position, names, inspect.Parameter.VAR_KEYWORD in kinds)


def _too_many(kind: type, given: Sequence[object], positions: Positions, accepted: _Accepted) -> str:
    """The message for too many arguments by position in a call of a constructor."""
    call = _call(kind, given, {})
    activations = [name for name in map(_as_activation, given) if name]
    sizes = [value for value in given if _is_size(value)]
    # As in Keras, Dense(8, "relu"). With anything else among the arguments it is not clear what was meant.
    if sizes and activations and len(activations) + len(sizes) == len(given):
        layer = _instead(kind, sizes, positions) or _call(kind, sizes, {})
        return f"{call}: put the activation after it: Sequential({layer}, {', '.join(activations)})"
    takes = f"{call}: {kind.__name__} takes {positions.takes}"
    instead = _instead(kind, sizes, positions) if len(sizes) == len(given) else None
    if instead is not None:
        return f"{takes}: {instead}"
    options = accepted.names[accepted.most_by_position :]
    if not options:
        return takes
    return f"{takes}; options go by keyword: {', '.join(options)}"


def _instead(kind: type, sizes: Sequence[object], positions: Positions) -> str | None:
    """What to write instead of this number of sizes; None if it is not clear what was meant."""
    template = positions.instead.get(len(sizes))
    if template is None:
        return None
    numbers = [size for size in sizes if isinstance(size, int)]  # a size may be a tuple
    return template.format(*sizes, name=kind.__name__, least=min(numbers, default=sizes[0]))


def _unknown(kind: type, name: str, accepted: _Accepted) -> str:
    """What to write instead of a keyword that the constructor does not take."""
    # Renamed before explained: `out_features` is `features` of Dense, but in a norm it comes from the input.
    for option in accepted.names:
        if name in RENAMED.get(option, ()):
            return f"{name} is called {option} here"
    if name in EXPLAINED:
        return f"{name} {EXPLAINED[name].format(name=kind.__name__)}"
    near = suggestion(name, accepted.names)
    if near:
        return f"no option {name!r}.{near}"
    return f"no option {name!r}; there are {listed(accepted.names)}"


def _call(kind: type, given: Sequence[object], options: Mapping[str, object]) -> str:
    """The call of a constructor as it was written, for the message."""
    by_keyword = [f"{name}={_shown(value)}" for name, value in options.items()]
    return f"{kind.__name__}({', '.join([*map(_shown, given), *by_keyword])})"


def _shown(value: object) -> str:
    text = name_of(value) if callable(value) else repr(value)
    return shortened(" ".join(text.split()), 60)  # on one line: a Sequential is shown on several


def _is_size(value: object) -> bool:
    """Whether an argument is a size or sizes, such as a number of features, rather than an option."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_size, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _as_activation(value: object) -> str | None:
    """An argument that is an activation, as it would be written: a function, or its name as in Keras; else None."""
    if isinstance(value, str):
        return f"jax.nn.{value}" if value in vars(jax.nn) else None
    # `jax.nn.relu` is a jitted function, which is an object of its own type.
    is_function = inspect.isroutine(value) or isinstance(value, type(jax.nn.relu))
    return name_of(value) if is_function else None
