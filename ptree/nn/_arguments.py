"""Check the arguments of a layer's constructor, by position or keyword, and its field values; instead of a call in the words
of PyTorch, Keras or Flax, show ours."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jax

from .._errors import LayerError
from .._numbers import whole_number
from .._words import listed, name_of, shortened, suggestion
from ._argument_checks import UnfitError
from ._argument_values import checks_of, problems_with, shown


@dataclass(frozen=True)
class Instead:
    """A call to write instead of one with too many sizes by position."""

    call: str
    """`{0}`, `{1}` stand for the sizes, `{least}` for the smallest, `{axes}` for as many last axes as the first has sizes,
    `{options}` for the options given by keyword."""
    numbers: tuple[int, ...]
    """Which of the sizes are numbers in this order of arguments: where one is a tuple, it is hardly meant."""
    order: str = ""
    """The library whose order of arguments this is, where it is not clear."""


@dataclass(frozen=True)
class Positions:
    """The arguments that a layer takes by position, and what to write instead of more."""

    takes: str
    instead: Mapping[int, Sequence[Instead]] = dataclasses.field(default_factory=dict)
    """Number of sizes -> what to write, by which order of arguments was meant."""


_WIDTH = "the input width comes from the input"
_LAST_AXIS = "no sizes, which come from the input: it normalises over the last axis, or those of axis="
# PyTorch writes the input width first: of three sizes the first is either that or, in Keras and Flax, the features.
_CONV = {
    3: (
        Instead("{name}({1}, {2}{options})", (1,), "PyTorch's"),
        Instead("{name}({0}, {1}, stride={2}{options})", (0, 2), "Keras' and Flax'"),
    ),
    4: (Instead("{name}({1}, {2}, stride={3}{options})", (1,)),),
    5: (Instead("{name}({1}, {2}, stride={3}, padding={4}{options})", (1,)),),
}
_RECURRENT = {
    2: (Instead("{name}({1}{options})", (1,)),),
    3: (Instead("Sequential(*[{name}({1}{options}) for _ in range({2})])", (1,)),),
}
_DENSE = (Instead("{name}({1}{options})", (1,)),)
_HEADS = (
    Instead("{name}({1}{options})", (1,), "PyTorch's"),
    Instead("{name}({0}, head_dim={1}{options})", (0,), "Keras'"),
)
_NO_SIZES = {1: (Instead("{name}({options})", (0,)),)}
_AXES = {1: (Instead("{name}({axes}{options})", (0,)),)}
_GROUPS = (Instead("{name}({least}{options})", (0,)),)
_POOL = {3: (Instead("{name}({0}, {1}, padding={2}{options})", (2,)),)}
_FLATTEN = (Instead("{name}()", (0,)),)

POSITIONS = {
    "Dense": Positions(f"the output features only; {_WIDTH}", {2: _DENSE, 3: _DENSE}),
    "Conv": Positions(f"features and kernel_size; {_WIDTH}", _CONV),
    "ConvTranspose": Positions(f"features and kernel_size; {_WIDTH}", _CONV),
    "Embedding": Positions("num_embeddings and features"),
    "LayerNorm": Positions(_LAST_AXIS, _AXES),
    "RMSNorm": Positions(_LAST_AXIS, _AXES),
    "BatchNorm": Positions("no sizes: the width comes from the input", _NO_SIZES),
    "GroupNorm": Positions("the number of groups only; the width comes from the input", {2: _GROUPS}),
    "MultiHeadAttention": Positions("the number of heads only; the width comes from the input", {2: _HEADS}),
    "LSTM": Positions(f"the features of the state only; {_WIDTH}", _RECURRENT),
    "GRU": Positions(f"the features of the state only; {_WIDTH}", _RECURRENT),
    "RNN": Positions(f"the features of the state only; {_WIDTH}", _RECURRENT),
    "Bidirectional": Positions("one or two recurrent layers"),
    "MaxPool": Positions("window and stride", _POOL),
    "AvgPool": Positions("window and stride", _POOL),
    "Dropout": Positions("the rate only"),
    "Flatten": Positions("nothing: it keeps the first axis, and makes one of the others", {1: _FLATTEN, 2: _FLATTEN}),
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
    "use_scale": ("scale", "create_scale"),
    "axis": ("reduction_axes",),
    "axis_name": ("cross_replica_axis", "bn_cross_replica_axis_name"),
    "rate": ("p",),
    "reverse": ("go_backwards",),
    "count_padding": ("count_include_pad",),
    "kernel_init": ("kernel_initializer", "w_init"),
    "recurrent_init": ("recurrent_initializer", "recurrent_kernel_init"),
    "bias_init": ("bias_initializer", "b_init"),
    "table_init": ("embedding_init", "embeddings_initializer", "w_init"),
    "n": ("times", "num_layers"),
    "activation": ("nonlinearity", "activation_fn"),
    "forward": ("layer", "forward_rnn"),
    "backward": ("backward_layer", "backward_rnn"),
    "combine": ("merge_mode", "merge_fn"),
}  # fmt: skip
"""Option of a layer of ptree -> its names in other libraries."""

_FROM_INPUT = "comes from the input: leave it out"
_IN_THE_CALL = "is an option of the call: layer(params, x, train=True)"
_KEY = "is given to init: layer.init(jax.random.key(0), x)"
_SCALE_AND_BIAS = "is use_scale and use_bias in ptree"
EXPLAINED = {
    **dict.fromkeys(("in_features", "in_channels", "input_size", "input_dim", "input_shape", "in_size"), _FROM_INPUT),
    **dict.fromkeys(("num_features", "num_channels", "embed_dim", "out_features"), _FROM_INPUT),
    "normalized_shape": "comes from the input: leave it out, or for two axes write axis=(-2, -1)",
    **dict.fromkeys(("train", "training", "deterministic", "inference", "use_running_average"), _IN_THE_CALL),
    **dict.fromkeys(("rngs", "rng", "key", "seed"), _KEY),
    **dict.fromkeys(("affine", "elementwise_affine"), _SCALE_AND_BIAS),
    "activation": "goes after the layer: Sequential({name}(...), jax.nn.relu)",
    "dropout": "is a layer: Sequential({name}(...), Dropout(0.1))",
    "dropout_rate": "is a layer: Sequential({name}(...), Dropout(0.1))",
    "name": "comes from the container: Sequential({{'name': {name}(...)}})",
    "axis": "is no option: features are the last axis",
    "data_format": "is no option: features are the last axis",
    "batch_first": "is no option: axes are (batch, time, features)",
    "num_layers": "is written as layers: Sequential({name}(8), {name}(8))",
    "bidirectional": "is a layer around it: Bidirectional({name}(8))",
    "unit_forget_bias": "is written as forget_bias=1.0",
    "return_sequences": "is no option: the call gives the outputs of all times",
    "return_state": "is no option: layer.run(params, x) gives the last state too",
    "precision": "is set for all of JAX: jax.default_matmul_precision",
    "inplace": "is no option: arrays are immutable",
}
"""Keyword of other libraries without an option in ptree -> what to do instead. `{name}` is the layer's class."""


def check_arguments(kind: type, given: Sequence[object], options: Mapping[str, object]) -> None:
    """Check the names of a constructor's arguments, and say what to write instead of another library's.

    Only layers of this package and classes that derive from them are checked: others raise Python's `TypeError`. The
    values are checked by `check_values`, once they are fields; here only beside names that are wrong, for one message.

    Raises:
        LayerError: more arguments by position than the layer takes, an unknown keyword, or a missing argument.
    """
    base = _package_class(kind)
    if base is None:  # a class of the user, whose arguments Python checks
        return
    accepted = _accepted(kind)
    too_many = accepted.most_by_position is not None and len(given) > accepted.most_by_position
    unknown = [] if accepted.takes_others else [name for name in options if name not in accepted.names]
    # Without any argument it may be `copy` or `pickle`, which sets the fields afterwards.
    missing = _missing(accepted, given, options) if given or options else []
    if not (too_many or unknown or missing):
        return
    problems = [_unknown(kind, name, accepted) for name in unknown]
    # Arguments by position have no names where there are too many: 8 in Dense(8, 64) is no number of features.
    if not too_many:
        problems += [f"expected {name} too" for name in missing]
        problems += problems_with(base, {**dict(zip(accepted.names, given)), **options}).values()
    else:
        problems += problems_with(base, options).values()
        problems.insert(0, _too_many(kind, given, options, accepted))
    raise LayerError(f"{_call(kind, given, options)}: {'; '.join(problems)}")


def check_values(layer: object) -> None:
    """Check the fields of a layer that has been made, and set those that are NumPy's numbers, or lists, to Python's
    numbers and tuples, which have a hash.

    Fields that a class of the user adds are not checked.

    Raises:
        LayerError: values that do not fit; it names all of them.
    """
    base = _package_class(type(layer))
    if base is None:
        return
    values = {name: getattr(layer, name) for name, _, _ in checks_of(base)}
    for name, check, default in checks_of(base):
        value = values[name]
        if value is default:  # a fast path: most arguments are left out
            continue
        try:
            fitted = check(value)
        except UnfitError:
            problems = problems_with(base, values)
            raise LayerError(f"{_call_by_fields(layer, [*problems])}: {'; '.join(problems.values())}") from None
        if fitted is not value:
            object.__setattr__(layer, name, fitted)


@dataclass(frozen=True)
class _Accepted:
    """The arguments that a constructor accepts. `most_by_position` is None if it accepts any number."""

    most_by_position: int | None
    names: tuple[str, ...]
    required: tuple[str, ...]
    takes_others: bool


_PACKAGE = __name__.rpartition(".")[0]


# Bounded, as classes made in a notebook would be kept for ever.
@lru_cache(maxsize=1024)
def _package_class(kind: type) -> type | None:
    """The layer of this package that a class is or derives from; None for other classes."""
    for base in kind.__mro__:
        # A user's class may be called Dense too.
        if base.__module__.startswith(_PACKAGE) and base.__name__ in POSITIONS:
            return base
    return None


@lru_cache(maxsize=1024)  # `inspect.signature` is slow, and each layer of a network asks
def _accepted(kind: type) -> _Accepted:
    _, *arguments = inspect.signature(kind.__init__).parameters.values()
    kinds = [argument.kind for argument in arguments]
    by_position = None
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        by_position = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [argument for argument in arguments if argument.kind not in variable]
    names = tuple(argument.name for argument in named)
    required = tuple(argument.name for argument in named if argument.default is inspect.Parameter.empty)
    return _Accepted(by_position, names, required, inspect.Parameter.VAR_KEYWORD in kinds)


def _missing(accepted: _Accepted, given: Sequence[object], options: Mapping[str, object]) -> list[str]:
    """The arguments without a default that a call does not give, neither by position nor, in another library's words, by keyword."""
    there = {*accepted.names[: len(given)], *options}
    missing: list[str] = []
    for name in accepted.required:
        if there.isdisjoint((name, *RENAMED.get(name, ()))):
            missing.append(name)
    return missing


def _too_many(kind: type, given: Sequence[object], options: Mapping[str, object], accepted: _Accepted) -> str:
    """The problem of too many arguments by position in a call of a constructor."""
    positions = _positions_of(kind)
    kept = _kept(options, accepted)
    activations = [name for name in map(_as_activation, given) if name]
    sizes = [value for value in given if _is_size(value)]
    # As in Keras, Dense(8, "relu"). With anything else among the arguments it is not clear what was meant.
    if sizes and activations and len(activations) + len(sizes) == len(given):
        layer = _instead(kind, sizes, kept) or _call(kind, sizes, kept)
        return f"put the activation after it: Sequential({layer}, {', '.join(activations)})"
    takes = f"{kind.__name__} takes {positions.takes}"
    instead = _instead(kind, sizes, kept) if len(sizes) == len(given) else None
    if instead is not None:
        return f"{takes}: {instead}"
    by_keyword = accepted.names[accepted.most_by_position :]
    if not by_keyword:
        return takes
    return f"{takes}; options go by keyword: {', '.join(by_keyword)}"


def _positions_of(kind: type) -> Positions:
    base = _package_class(kind)
    return POSITIONS["" if base is None else base.__name__]


def _kept(options: Mapping[str, object], accepted: _Accepted) -> dict[str, object]:
    """The options of a call that ptree has, under the names of ptree."""
    kept: dict[str, object] = {}
    for name, value in options.items():
        ours = name if name in accepted.names else _our_name(name, accepted)
        if ours is not None:
            kept[ours] = value
    return kept


def _our_name(name: str, accepted: _Accepted) -> str | None:
    """The option of ptree for a keyword of other libraries; None if there is none."""
    for option in accepted.names:
        if name in RENAMED.get(option, ()):
            return option
    return None


def _instead(kind: type, sizes: Sequence[object], options: Mapping[str, object]) -> str | None:
    """What to write instead of this number of sizes, with the options; None if it is not clear what was meant."""
    orders = _positions_of(kind).instead.get(len(sizes), ())
    # Where a size is a tuple it is clear whose order it is: Conv(8, (3, 3), 2), where 8 are the features in any case.
    tuples = {at for at, size in enumerate(sizes) if whole_number(size) is None}
    fitting = [order for order in orders if tuples.isdisjoint(order.numbers)]
    fitting = fitting or [order for order in orders if order.numbers[0] not in tuples] or orders
    calls = {order.order: _filled_in(order.call, kind, sizes, options) for order in fitting}
    if len(calls) < 2:
        return next(iter(calls.values()), None)
    return ", ".join(f"{call} from {order} order" for order, call in calls.items())


def _filled_in(template: str, kind: type, sizes: Sequence[object], options: Mapping[str, object]) -> str:
    """The call of `Instead.call` with the sizes and options filled in."""
    numbers = [number for number in map(whole_number, sizes) if number is not None]
    least = min(numbers, default=sizes[0])
    given = "".join(f", {name}={_shown(value)}" for name, value in options.items())
    filled = template.format(*sizes, name=kind.__name__, least=least, axes=_last_axes(sizes[0]), options=given)
    return filled.replace("(, ", "(")


def _last_axes(sizes: object) -> str:
    """The option `axis` for PyTorch's `normalized_shape`; none for one size, which is the default."""
    count = len(sizes) if isinstance(sizes, (list, tuple)) else 1
    return f", axis={tuple(range(-count, 0))}" if count > 1 else ""


def _unknown(kind: type, name: str, accepted: _Accepted) -> str:
    """What to write instead of a keyword that the constructor does not take."""
    # Renamed before explained: `out_features` is `features` of Dense, but in a norm it comes from the input.
    ours = _our_name(name, accepted)
    if ours is not None:
        return f"{name} is called {ours} in ptree"
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


def _call_by_fields(layer: object, named: Sequence[str]) -> str:
    """The call of a layer's constructor, for the message: arguments without a default, and those that are named."""
    given: list[object] = []
    options: dict[str, object] = {}
    for field in dataclasses.fields(layer):  # pyright: ignore[reportArgumentType]
        value = getattr(layer, field.name)
        if field.default is dataclasses.MISSING and not field.kw_only:
            given.append(value)
        elif field.name in named:
            options[field.name] = value
    return _call(type(layer), given, options)


def _shown(value: object) -> str:
    return shortened(shown(value), 60)


def _is_size(value: object) -> bool:
    """Whether an argument is a size or sizes, such as a number of features, rather than an option."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_size, value))
    return whole_number(value) is not None


def _as_activation(value: object) -> str | None:
    """An argument that is an activation, as it would be written: a function, or its name as in Keras; else None."""
    if isinstance(value, str):
        return f"jax.nn.{value}" if value in vars(jax.nn) else None
    # `jax.nn.relu` is a jitted function, which is an object of its own type.
    is_function = inspect.isroutine(value) or isinstance(value, type(jax.nn.relu))
    return name_of(value) if is_function else None
