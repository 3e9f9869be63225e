"""What people from PyTorch, Keras and Flax write in a constructor is refused with what to write in ptree, and every argument of every
layer is checked."""

import copy
import dataclasses
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says

import ptree as pt
from ptree import initializers as I
from ptree import nn
from ptree.nn import _argument_values, _arguments

relu = jax.nn.relu
DENSE = "Dense takes the output features only; the input width comes from the input"
CONV = "takes features and kernel_size; the input width comes from the input"
NORM = "takes no sizes, which come from the input: it normalises over the last axis, or those of axis="
HEADS = "MultiHeadAttention takes the number of heads only; the width comes from the input"
STATE = "takes the features of the state only; the input width comes from the input"

BY_POSITION = [
    (lambda: nn.Dense(8, 64), f"Dense(8, 64): {DENSE}: Dense(64)"),
    (lambda: nn.Dense(8, 64, True), f"Dense(8, 64, True): {DENSE}; options go by keyword: use_bias, kernel_init, bias_init,"
     " param_dtype, dtype, axis"),
    (lambda: nn.Dense(8, False), f"Dense(8, False): {DENSE}; options go by keyword: use_bias, kernel_init, bias_init,"
     " param_dtype, dtype, axis"),
    (lambda: nn.Dense(8, relu), "Dense(8, relu): put the activation after it: Sequential(Dense(8), relu)"),
    (lambda: nn.Dense(8, jnp.tanh), "Dense(8, tanh): put the activation after it: Sequential(Dense(8), tanh)"),
    (lambda: nn.Dense(8, "relu"), "Dense(8, 'relu'): put the activation after it: Sequential(Dense(8), jax.nn.relu)"),
    (lambda: nn.Dense(4, 8, relu), "Dense(4, 8, relu): put the activation after it: Sequential(Dense(8), relu)"),
    (lambda: nn.Conv(3, 16, 3), f"Conv(3, 16, 3): Conv {CONV}: Conv(16, 3) from PyTorch's order, Conv(3, 16, stride=3) from"
     " Keras' and Flax' order"),
    (lambda: nn.Conv(3, 16, (3, 3), 2), f"Conv(3, 16, (3, 3), 2): Conv {CONV}: Conv(16, (3, 3), stride=2)"),
    (lambda: nn.Conv(3, 16, 3, 2, 1), f"Conv(3, 16, 3, 2, 1): Conv {CONV}: Conv(16, 3, stride=2, padding=1)"),
    (lambda: nn.Conv(16, 3, relu), "Conv(16, 3, relu): put the activation after it: Sequential(Conv(16, 3), relu)"),
    (lambda: nn.ConvTranspose(3, 16, 4), f"ConvTranspose(3, 16, 4): ConvTranspose {CONV}: ConvTranspose(16, 4) from PyTorch's"
     " order, ConvTranspose(3, 16, stride=4) from Keras' and Flax' order"),
    (lambda: nn.Embedding(50, 8, 0), "Embedding(50, 8, 0): Embedding takes num_embeddings and features; options go by"
     " keyword: padding_idx, table_init, param_dtype, dtype"),
    (lambda: nn.LayerNorm(8), f"LayerNorm(8): LayerNorm {NORM}: LayerNorm()"),
    (lambda: nn.LayerNorm((8,)), f"LayerNorm((8,)): LayerNorm {NORM}: LayerNorm()"),
    (lambda: nn.LayerNorm((8, 8, 3), eps=0.1), f"LayerNorm((8, 8, 3), eps=0.1): LayerNorm {NORM}:"
     " LayerNorm(axis=(-3, -2, -1), epsilon=0.1); eps is called epsilon in ptree"),
    (lambda: nn.LayerNorm(1e-6), f"LayerNorm(1e-06): LayerNorm {NORM}; options go by keyword: epsilon, use_scale, use_bias,"
     " param_dtype, dtype, axis, feature_axes"),
    (lambda: nn.RMSNorm(8), f"RMSNorm(8): RMSNorm {NORM}: RMSNorm()"),
    (lambda: nn.BatchNorm(8), "BatchNorm(8): BatchNorm takes no sizes: the width comes from the input: BatchNorm()"),
    (lambda: nn.GroupNorm(4, 8), "GroupNorm(4, 8): GroupNorm takes the number of groups only; the width comes from the"
     " input: GroupNorm(4)"),
    (lambda: nn.GroupNorm(8, 4), "GroupNorm(8, 4): GroupNorm takes the number of groups only; the width comes from the"
     " input: GroupNorm(4)"),
    (lambda: nn.MultiHeadAttention(64, 4), f"MultiHeadAttention(64, 4): {HEADS}: MultiHeadAttention(4) from PyTorch's order,"
     " MultiHeadAttention(64, head_dim=4) from Keras' order"),
    (lambda: nn.LSTM(8, 16), f"LSTM(8, 16): LSTM {STATE}: LSTM(16)"),
    (lambda: nn.LSTM(8, 16, 2), f"LSTM(8, 16, 2): LSTM {STATE}: Sequential(*[LSTM(16) for _ in range(2)])"),
    (lambda: nn.GRU(8, 16), f"GRU(8, 16): GRU {STATE}: GRU(16)"),
    (lambda: nn.RNN(8, 16), f"RNN(8, 16): RNN {STATE}: RNN(16)"),
    (lambda: nn.Bidirectional(nn.GRU(8), nn.GRU(8, reverse=True), relu), "Bidirectional(GRU(8), GRU(8, reverse=True), relu):"
     " Bidirectional takes one or two recurrent layers; options go by keyword: combine"),
    (lambda: nn.MaxPool(2, 2, 0), "MaxPool(2, 2, 0): MaxPool takes window and stride: MaxPool(2, 2, padding=0)"),
    (lambda: nn.AvgPool(2, 2, "SAME"), "AvgPool(2, 2, 'SAME'): AvgPool takes window and stride; options go by keyword:"
     " padding, count_padding"),
    (lambda: nn.Dropout(0.5, True), "Dropout(0.5, True): Dropout takes the rate only"),
    (lambda: nn.Flatten(1), "Flatten(1): Flatten takes nothing: it keeps the first axis, and makes one of the others: Flatten()"),
    (lambda: nn.Lambda(relu, "a", 1), "Lambda(relu, 'a', 1): Lambda takes a function and a name"),
    (lambda: nn.Residual(nn.Dense(8), relu),
     "Residual(Dense(8), relu): Residual takes one layer; several are one layer as Sequential(...)"),
    (lambda: nn.Repeat(nn.Dense(8), 3, True), "Repeat(Dense(8), 3, True): Repeat takes a layer and how many times it is"
     " repeated; options go by keyword: shared, scan, remat, unroll"),
    (lambda: nn.Sequential([nn.Dense(8), relu]),
     "at '0', Sequential: expected a layer or a function, got a list; several are one layer as Sequential(*layers)"),
]  # fmt: skip

BY_KEYWORD = [
    (lambda: nn.Dense(units=8), "Dense(units=8): units is called features in ptree"),
    (lambda: nn.Dense(in_features=4, out_features=8), "Dense(in_features=4, out_features=8): in_features comes from the"
     " input: leave it out; out_features is called features in ptree"),
    (lambda: nn.Dense(8, activation=relu),
     "Dense(8, activation=relu): activation goes after the layer: Sequential(Dense(...), jax.nn.relu)"),
    (lambda: nn.Dense(8, bias=False), "Dense(8, bias=False): bias is called use_bias in ptree"),
    (lambda: nn.Dense(8, name="out"), "Dense(8, name='out'): name comes from the container: Sequential({'name': Dense(...)})"),
    (lambda: nn.Dense(8, rngs=0), "Dense(8, rngs=0): rngs is given to init: layer.init(jax.random.key(0), x)"),
    (lambda: nn.Dense(8, use_bais=False), "Dense(8, use_bais=False): no option 'use_bais'. Did you mean 'use_bias'?"),
    (lambda: nn.Dropout(0.1, x=1), "Dropout(0.1, x=1): no option 'x'; there are ['rate']"),
    (lambda: nn.Conv(filters=16, kernel_size=3, strides=2),
     "Conv(filters=16, kernel_size=3, strides=2): filters is called features in ptree; strides is called stride in ptree"),
    (lambda: nn.Conv(16, 3, in_channels=3), "Conv(16, 3, in_channels=3): in_channels comes from the input: leave it out"),
    (lambda: nn.Conv(16, 3, data_format="channels_last"),
     "Conv(16, 3, data_format='channels_last'): data_format is no option: features are the last axis"),
    (lambda: nn.Embedding(input_dim=5, output_dim=3), "Embedding(input_dim=5, output_dim=3): input_dim is called"
     " num_embeddings in ptree; output_dim is called features in ptree"),
    (lambda: nn.LayerNorm(eps=1e-6), "LayerNorm(eps=1e-06): eps is called epsilon in ptree"),
    (lambda: nn.LayerNorm(normalized_shape=8), "LayerNorm(normalized_shape=8): normalized_shape comes from the input: leave it out,"
     " or for two axes write axis=(-2, -1)"),
    (lambda: nn.LayerNorm(elementwise_affine=False),
     "LayerNorm(elementwise_affine=False): elementwise_affine is use_scale and use_bias in ptree"),
    (lambda: nn.RMSNorm(use_bias=True), "RMSNorm(use_bias=True): no option 'use_bias'; there are ['epsilon', 'use_scale', 'param_dtype', 'dtype', 'axis', 'feature_axes']"),
    (lambda: nn.BatchNorm(num_features=8), "BatchNorm(num_features=8): num_features comes from the input: leave it out"),
    (lambda: nn.BatchNorm(use_running_average=True), "BatchNorm(use_running_average=True): use_running_average is an option of"
     " the call: layer(params, x, train=True)"),
    (lambda: nn.GroupNorm(num_groups=4), "GroupNorm(num_groups=4): num_groups is called groups in ptree"),
    (lambda: nn.MultiHeadAttention(num_heads=4, embed_dim=64), "MultiHeadAttention(num_heads=4, embed_dim=64): num_heads is"
     " called heads in ptree; embed_dim comes from the input: leave it out"),
    (lambda: nn.MultiHeadAttention(4, key_dim=16), "MultiHeadAttention(4, key_dim=16): key_dim is called head_dim in ptree"),
    (lambda: nn.LSTM(4, dropout=0.1), "LSTM(4, dropout=0.1): dropout is a layer: Sequential(LSTM(...), Dropout(0.1))"),
    (lambda: nn.MultiHeadAttention(4, dropout_rate=0.1),
     "MultiHeadAttention(4, dropout_rate=0.1): dropout_rate is called dropout in ptree"),
    (lambda: nn.LSTM(hidden_size=8), "LSTM(hidden_size=8): hidden_size is called features in ptree"),
    (lambda: nn.LSTM(8, bidirectional=True), "LSTM(8, bidirectional=True): bidirectional is a layer around it:"
     " Bidirectional(LSTM(8))"),
    (lambda: nn.LSTM(8, unit_forget_bias=True),
     "LSTM(8, unit_forget_bias=True): unit_forget_bias is written as forget_bias=1.0"),
    (lambda: nn.RNN(8, nonlinearity="relu"), "RNN(8, nonlinearity='relu'): nonlinearity is called activation in ptree"),
    (lambda: nn.Bidirectional(layer=nn.GRU(8), merge_mode="sum"), "Bidirectional(layer=GRU(8), merge_mode='sum'): layer is"
     " called forward in ptree; merge_mode is called combine in ptree"),
    (lambda: nn.LSTM(8, return_state=True),
     "LSTM(8, return_state=True): return_state is no option: layer.run(params, x) gives the last state too"),
    (lambda: nn.MaxPool(pool_size=2), "MaxPool(pool_size=2): pool_size is called window in ptree"),
    (lambda: nn.MaxPool(kernel_size=2), "MaxPool(kernel_size=2): kernel_size is called window in ptree"),
    (lambda: nn.Dropout(p=0.5), "Dropout(p=0.5): p is called rate in ptree"),
    (lambda: nn.Repeat(nn.Dense(8), times=3), "Repeat(Dense(8), times=3): times is called n in ptree"),
    (lambda: nn.Parallel(nn.Dense(8), combin=max), "Parallel(Dense(8), combin=max): no option 'combin'. Did you mean 'combine'?"),
    (lambda: nn.Sequential(nn.Dense(8), name="net"),
     "Sequential(Dense(8), name='net'): name comes from the container: Sequential({'name': Sequential(...)})"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BY_POSITION)
def test_more_by_position_than_a_layer_takes_is_refused_with_what_to_write(call, message):
    says(pt.LayerError, message, call)


@pytest.mark.parametrize(("call", "message"), BY_KEYWORD)
def test_keywords_of_other_libraries_are_refused_with_ours(call, message):
    says(pt.LayerError, message, call)


def test_the_tables_name_layers_and_options_that_exist():
    layers = {name: getattr(nn, name) for name in nn.__all__ if name not in ("Layer", "Rotary")}
    assert {*layers} == {*_arguments.POSITIONS}
    options = {option for layer in layers.values() for option in inspect.signature(layer).parameters}
    assert {*_arguments.RENAMED} <= options
    for ours, theirs in _arguments.RENAMED.items():
        assert ours not in theirs


@pytest.mark.parametrize(
    "code", ["Dense(64)", "Sequential(Dense(8), relu)", "Conv(16, 3)", "Conv(16, 3, stride=2, padding=1)", "LayerNorm()",
             "Conv(3, 16, stride=3)", "GroupNorm(4)", "MultiHeadAttention(4)", "MultiHeadAttention(64, head_dim=4)", "LSTM(16)",
             "Sequential(*[LSTM(16) for _ in range(2)])", "MaxPool(2, 2, padding=0)", "Flatten()",
             "Bidirectional(LSTM(8))", "LSTM(8, forget_bias=1.0)"],
)  # fmt: skip
def test_what_the_messages_recommend_is_accepted(code):
    assert isinstance(eval(code, {**vars(nn), "relu": relu}), nn.Layer)


def test_what_everyone_gives_by_position_is_accepted():
    given = [nn.Dense(8), nn.Conv(8, 3), nn.ConvTranspose(8, 3), nn.Embedding(9, 4), nn.GroupNorm(2), nn.LSTM(8), nn.GRU(8),
             nn.RNN(8), nn.Bidirectional(nn.GRU(8)), nn.MultiHeadAttention(4), nn.MaxPool(2), nn.MaxPool(3, 2), nn.AvgPool(3, 2), nn.Dropout(0.5), nn.Lambda(relu, "r"),
             nn.Residual(relu), nn.Repeat(relu, 3), nn.Sequential(relu), nn.Parallel(relu)]  # fmt: skip
    assert repr(given[0]) == "Dense(8)"
    assert nn.Dense(features=8) == nn.Dense(8)
    assert nn.MaxPool(3, stride=2) == nn.MaxPool(3, 2)


# ----------------------------------------------------------------------------- values of arguments

REQUIRED = {
    "Dense": (8,), "Conv": (8, 3), "ConvTranspose": (8, 3), "Embedding": (9, 4), "LayerNorm": (), "RMSNorm": (), "GroupNorm": (2,),
    "BatchNorm": (), "MultiHeadAttention": (4,), "LSTM": (8,), "GRU": (8,), "RNN": (8,), "Bidirectional": (nn.LSTM(8),), "MaxPool": (2,), "AvgPool": (2,), "Dropout": (0.5,),
    "Flatten": (), "Lambda": (relu,), "Residual": (relu,), "Repeat": (relu, 3), "Sequential": (relu,), "Parallel": (relu,),
}  # fmt: skip
"""The arguments by position of a call that every layer takes."""

NO_SIZE = [
    0,
    -1,
    8.0,
    "8",
    "8x",
    True,
    None,
    2**31,
    10**30,
    1.5,
    float("nan"),
    (),
    [0],
    (3, "3"),
    np.zeros(3),
    object(),
    relu,
    b"8",
    {},
]
NO_NUMBER = ["0.1", None, True, float("nan"), float("inf"), -1, 1j, [0.1], np.zeros(2), 10**400, object(), jnp.bfloat16]
NO_FLAG = ["yes", None, 1, 0, 2.0, [], np.int64(1), jnp.ones(()), "False"]
NO_DTYPE = ["flaot32", "float23", 32, object(), "str", [], "M8[s]", bool, "key<fry>", str]
NO_INITIALIZER = ["xavier_uniform", "xaver", 0.1, 3, [], I.normal, I.lecun_normal, nn.Dense, object(), {}]
NO_AXIS = [0.0, "0", True, (), (1, 1), [None], 1.5, object(), ("a",)]
NO_PADDING = ["same", "FULL", -1, 1.0, True, None, (), ((1, 2, 3),), ((1,),), ("SAME", None), object(), 2**40]
NO_NAME = [3, None, b"a", ["a"], object()]

BAD = {
    "features": NO_SIZE, "num_embeddings": NO_SIZE, "kernel_size": NO_SIZE, "window": NO_SIZE, "dilation": NO_SIZE, "stride": NO_SIZE,
    "groups": NO_SIZE, "heads": NO_SIZE, "head_dim": NO_SIZE, "kv_heads": NO_SIZE, "n": NO_SIZE, "unroll": NO_SIZE,
    "padding_idx": [0.0, "0", True, 9, -10, (1,), object()],
    "epsilon": NO_NUMBER, "momentum": [*NO_NUMBER, 1, 1.5], "rate": [*NO_NUMBER, 1, 1.5], "rotary": [*NO_NUMBER, 1, 0.5],
    "soft_cap": [*NO_NUMBER, 0], "dropout": [*NO_NUMBER, 1, 1.5],
    "scale": ["0.1", True, float("nan"), float("inf"), 1j, [0.1], np.zeros(2), object()],
    "forget_bias": ["0.1", None, True, float("nan"), float("inf"), 1j, [0.1], np.zeros(2), object()], "activation": [None, 3, "relu", [relu]],
    "param_dtype": [*NO_DTYPE, None], "dtype": [*NO_DTYPE, int, "int32", "uint8"],
    "axis": NO_AXIS, "feature_axes": NO_AXIS, "axis_name": ["", 3, (), ("a", 3), True, [None]],
    "padding": NO_PADDING, "padding_mode": ["wrap", "CIRCULAR", None, 3, (), ("zeros", 3), True],
    "implementation": ["cuda", 3, True, [], np.zeros(2)], "remat": ["yes", None, 1, 2.0], "function": [3, None, "relu", [relu]],
    "name": NO_NAME,
    **dict.fromkeys(("use_bias", "use_scale", "causal", "reverse", "shared", "scan", "count_padding"), NO_FLAG),
    **dict.fromkeys(("kernel_init", "recurrent_init", "table_init", "bias_init"), NO_INITIALIZER),
}  # fmt: skip
"""Name of an argument -> values that no layer takes."""

TAKEN = {
    "MaxPool": {"stride": [None]}, "AvgPool": {"stride": [None]},
    "MultiHeadAttention": {"head_dim": [None], "kv_heads": [None], "window": [None], "rotary": [None], "soft_cap": [None]},
    "Repeat": {"unroll": [True]}, "LSTM": {"unroll": [True]}, "GRU": {"unroll": [True]}, "RNN": {"unroll": [True]},
    "ConvTranspose": {"padding": [-1]},
}  # fmt: skip
"""Of these, the values that a layer does take."""


LAYERS = ("layer", "inner", "forward", "backward", "combine", "qk_norm")
"""Arguments that containers check: layers, and how their outputs are combined."""


def arguments_of(name):
    """The arguments of a layer that are checked, each with whether it goes by position."""
    if name in ("Sequential", "Parallel"):  # with a constructor of their own
        return []
    kind = getattr(nn, name)
    fields = [field.name for field in dataclasses.fields(kind) if field.init]
    return [name for name in fields if name not in LAYERS]


def call_with(name, argument, value):
    given = dict(zip(inspect.signature(getattr(nn, name)).parameters, REQUIRED[name]))
    if (name, argument) == ("MultiHeadAttention", "window"):
        given["causal"] = True  # only causal attention has a window
    return getattr(nn, name)(**{**given, argument: value})


def is_taken(name, argument, value):
    taken = TAKEN.get(name, {}).get(argument, ())
    return isinstance(value, bool | int | None) and value in taken


@pytest.mark.parametrize("name", REQUIRED)
def test_nonsense_in_any_argument_of_any_layer_is_refused_by_its_name(name):
    for argument in arguments_of(name):
        for value in BAD[argument]:
            if is_taken(name, argument, value):
                call_with(name, argument, value)
                continue
            with pytest.raises(pt.LayerError) as raised:
                call_with(name, argument, value)
            message = str(raised.value)
            assert message.startswith(f"{name}("), message
            assert f"expected {argument} to be" in message or f"a {argument} from" in message, message
            assert ", got " in message
            assert len(message) < 600


def test_every_argument_of_every_layer_is_checked():
    for name in REQUIRED:
        assert {*arguments_of(name)} <= {*BAD}, name
        checked = {argument for argument, _, _ in _argument_values.checks_of(getattr(nn, name))}
        assert checked >= {*arguments_of(name)}, name


def test_the_table_of_checks_names_arguments_that_exist():
    for name in _argument_values.CHECKS:
        kind, _, argument = name.rpartition(".")
        layers = [kind] if kind else REQUIRED
        assert any(argument in arguments_of(layer) for layer in layers), name


WHOLE = [np.int64(2), np.int8(2), np.uint64(2), np.array(2), np.array(2, "int16"), jnp.array(2), jnp.uint8(2)]
SIZED = {"features", "num_embeddings", "kernel_size", "window", "dilation", "stride", "groups", "heads", "head_dim", "kv_heads", "n", "unroll",
         "padding_idx", "padding"}  # fmt: skip
IN_TUPLES = {"kernel_size", "window", "dilation", "stride", "padding"}


@pytest.mark.parametrize("name", REQUIRED)
def test_whole_numbers_of_numpy_and_jax_are_taken_as_pythons(name):
    for argument in SIZED.intersection(arguments_of(name)):
        if name in ("MaxPool", "AvgPool") and argument == "padding":
            continue  # it must be below the window: below
        plain = call_with(name, argument, 2)
        for value in WHOLE:
            layer = call_with(name, argument, value)
            assert layer == plain
            assert hash(layer) == hash(plain)
            assert repr(layer) == repr(plain)
            assert type(getattr(layer, argument)) is int
        if name == "MultiHeadAttention":
            continue  # its window is a number of places, not a size for each axis
        if argument in IN_TUPLES or (name, argument) == ("Dense", "features"):
            plain = call_with(name, argument, (2, 2))
            for value in ([2, 2], (np.int64(2), 2), [np.array(2), jnp.array(2)], np.array([2, 2]), jnp.array([2, 2])):
                assert call_with(name, argument, value) == plain
                assert repr(call_with(name, argument, value)) == repr(plain)


def test_real_numbers_flags_and_axes_of_numpy_are_taken_as_pythons():
    assert repr(nn.LayerNorm(epsilon=np.float32(0.5))) == "LayerNorm(epsilon=0.5)"
    assert nn.LayerNorm(epsilon=jnp.bfloat16(0.5)) == nn.LayerNorm(epsilon=np.array(0.5)) == nn.LayerNorm(epsilon=0.5)
    assert repr(nn.Dropout(np.float16(0.5))) == "Dropout(0.5)"
    assert nn.Dropout(0).rate == 0
    assert nn.BatchNorm(momentum=np.float64(0.5)) == nn.BatchNorm(momentum=jnp.array(0.5))
    assert nn.MultiHeadAttention(2, rotary=np.int64(10000)).rotary == 10000
    assert nn.Dense(8, use_bias=np.True_) == nn.Dense(8)
    assert nn.Dense(8, use_bias=np.False_) == nn.Dense(8, use_bias=False)
    assert nn.LayerNorm(axis=[np.int64(-2), -1]) == nn.LayerNorm(axis=np.array([-2, -1])) == nn.LayerNorm(axis=(-2, -1))
    assert nn.BatchNorm(axis_name=["a", "b"]) == nn.BatchNorm(axis_name=("a", "b"))
    assert nn.MaxPool(np.int64(3), padding=np.int64(1)) == nn.MaxPool(3, padding=1)
    assert nn.Conv(8, 3, padding=[[np.int64(1), 2]]) == nn.Conv(8, 3, padding=((1, 2),))
    assert nn.Conv(8, 3, padding=np.array([[1, 2], [0, 3]])) == nn.Conv(8, 3, padding=((1, 2), (0, 3)))
    with pytest.raises(pt.LayerError, match=r"expected features to be a whole number .* got i32\[\]"):
        jax.jit(lambda n: nn.Dense(n)({}, jnp.ones(3)))(3)


def test_all_bad_arguments_of_a_call_are_told_at_once_with_what_to_write():
    says(pt.LayerError, "Conv(8.0, '3', stride=0, padding='same', use_bias=1, kernel_init='glorot_uniform', param_dtype='flaot32'):"
         " expected features to be a whole number of at least 1, got 8.0: write 8;"
         " expected kernel_size to be a whole number of at least 1, or a tuple of them, got '3': write 3;"
         " expected stride to be a whole number of at least 1, or a tuple of them, got 0;"
         " expected padding to be 'SAME', 'VALID', 'CAUSAL', 'CIRCULAR', 'REFLECT', 'REPLICATE', a number of at least 0, or for each axis"
         " one of these or (before, after), got 'same': write 'SAME';"
         " expected use_bias to be True or False, got 1: write True;"
         " expected kernel_init to be an initialiser, a function (key, shape, dtype) -> array, or None, got 'glorot_uniform': write"
         " initializers.glorot_uniform(...);"
         " expected param_dtype to be a dtype of numbers such as jnp.float32, got 'flaot32'. Did you mean 'float32'?",
         lambda: nn.Conv(8.0, "3", stride=0, padding="same", use_bias=1, param_dtype="flaot32", kernel_init="glorot_uniform"))  # fmt: skip
    says(pt.LayerError, "Dense(-1, bias=False, dtype='int8', activation=relu): bias is called use_bias in ptree; activation goes after the"
         " layer: Sequential(Dense(...), jax.nn.relu); expected features to be a whole number of at least 1, or a tuple of them, got -1;"
         " expected dtype to be a dtype of floats such as jnp.bfloat16, or None, got 'int8'",
         lambda: nn.Dense(-1, bias=False, dtype="int8", activation=relu))  # fmt: skip
    says(pt.LayerError, "Dense(8, kernel_init=normal): expected kernel_init to be an initialiser, a function (key, shape, dtype) ->"
         " array, or None, got normal: call it first, initializers.normal(...)", lambda: nn.Dense(8, kernel_init=I.normal))  # fmt: skip


def test_a_suggestion_keeps_the_options_of_the_call():
    for call, suggested in (
        (lambda: nn.Dense(8, 64, bias=False), "Dense(64, use_bias=False)"),
        (lambda: nn.Dense(8, 64, use_bias=False, dtype="bfloat16"), "Dense(64, use_bias=False, dtype='bfloat16')"),
        (lambda: nn.Dense(8, 64, in_features=3), "Dense(64)"),
        (lambda: nn.Dense(8, relu, use_bias=False), "Sequential(Dense(8, use_bias=False), relu)"),
        (lambda: nn.Conv(8, (3, 3), 2), "Conv(8, (3, 3), stride=2)"),
        (lambda: nn.Conv(8, (3, 3), 2, bias=False), "Conv(8, (3, 3), stride=2, use_bias=False)"),
        (lambda: nn.Conv(3, 8, (3, 3)), "Conv(8, (3, 3))"),
        (lambda: nn.Conv(8, (3, 3), (2, 2)), "Conv(8, (3, 3), stride=(2, 2))"),
        (lambda: nn.Conv(3, 8, (3, 3), groups=2), "Conv(8, (3, 3), groups=2)"),
        (lambda: nn.Conv(3, 16, 3, 2, dilation=2), "Conv(16, 3, stride=2, dilation=2)"),
        (lambda: nn.LSTM(8, 16, reverse=True), "LSTM(16, reverse=True)"),
        (lambda: nn.LSTM(8, 16, 2, reverse=True), "Sequential(*[LSTM(16, reverse=True) for _ in range(2)])"),
        (lambda: nn.LayerNorm(8, eps=0.1), "LayerNorm(epsilon=0.1)"),
        (lambda: nn.LayerNorm((8, 8)), "LayerNorm(axis=(-2, -1))"),
        (lambda: nn.GroupNorm(4, 8, eps=0.1), "GroupNorm(4, epsilon=0.1)"),
        (lambda: nn.MaxPool(2, 2, 1), "MaxPool(2, 2, padding=1)"),
    ):
        with pytest.raises(pt.LayerError) as raised:
            call()
        assert f": {suggested}" in str(raised.value)
        assert f"{suggested} from" not in str(raised.value)  # the order is clear
        eval(suggested, {**vars(nn), "relu": relu})
    with pytest.raises(pt.LayerError, match=r"MultiHeadAttention\(4, use_bias=False\) from PyTorch's order, MultiHeadAttention\(64,"
                       r" head_dim=4, use_bias=False\) from Keras'"):  # fmt: skip
        nn.MultiHeadAttention(64, 4, bias=False)


def test_a_missing_argument_is_named_beside_what_else_is_wrong():
    says(pt.LayerError, "Conv(8): expected kernel_size too", nn.Conv, 8)
    says(
        pt.LayerError,
        "Conv(filters=8): filters is called features in ptree; expected kernel_size too",
        lambda: nn.Conv(filters=8),
    )
    says(pt.LayerError, "Embedding(9): expected features too", nn.Embedding, 9)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'features'"):
        nn.Dense()


def test_layers_are_checked_however_they_are_made():
    with pytest.raises(pt.LayerError, match="expected features to be"):
        dataclasses.replace(nn.Dense(8), features="8")
    assert copy.copy(nn.Conv(8, 3)) == copy.deepcopy(nn.Conv(8, 3)) == pickle.loads(pickle.dumps(nn.Conv(8, 3)))

    @dataclasses.dataclass(frozen=True)
    class Wide(nn.Dense):
        rate: float = "any"  # an argument of the class's own is its own affair, although others have a `rate` too

    assert Wide(np.int64(8), rate="x").features == 8
    with pytest.raises(pt.LayerError, match=r"Wide\(-1\): expected features to be"):
        Wide(-1)
