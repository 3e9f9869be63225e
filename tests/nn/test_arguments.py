"""What people from PyTorch, Keras and Flax write in a constructor is refused with what to write here."""

import inspect

import jax
import jax.numpy as jnp
import pytest
from errors import says

import ptree as pt
from ptree import nn
from ptree.nn import _arguments

relu = jax.nn.relu
DENSE = "Dense takes the output features only; the input width comes from the input"
CONV = "takes features and kernel_size; the input width comes from the input"
NORM = "takes no sizes: it normalises over the last axis, whose width comes from the input"
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
     " keyword: table_init, param_dtype, dtype"),
    (lambda: nn.LayerNorm(8), f"LayerNorm(8): LayerNorm {NORM}: LayerNorm()"),
    (lambda: nn.LayerNorm((8,)), f"LayerNorm((8,)): LayerNorm {NORM}: LayerNorm()"),
    (lambda: nn.LayerNorm(1e-6), f"LayerNorm(1e-06): LayerNorm {NORM}; options go by keyword: epsilon, use_bias,"
     " param_dtype, dtype"),
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
    (lambda: nn.Dense(units=8), "Dense(units=8): units is called features here"),
    (lambda: nn.Dense(in_features=4, out_features=8), "Dense(in_features=4, out_features=8): in_features comes from the"
     " input: leave it out; out_features is called features here"),
    (lambda: nn.Dense(8, activation=relu),
     "Dense(8, activation=relu): activation goes after the layer: Sequential(Dense(...), jax.nn.relu)"),
    (lambda: nn.Dense(8, bias=False), "Dense(8, bias=False): bias is called use_bias here"),
    (lambda: nn.Dense(8, name="out"), "Dense(8, name='out'): name comes from the container: Sequential({'name': Dense(...)})"),
    (lambda: nn.Dense(8, rngs=0), "Dense(8, rngs=0): rngs is given to init: layer.init(jax.random.key(0), x)"),
    (lambda: nn.Dense(8, use_bais=False), "Dense(8, use_bais=False): no option 'use_bais'. Did you mean 'use_bias'?"),
    (lambda: nn.Dropout(0.1, x=1), "Dropout(0.1, x=1): no option 'x'; there are ['rate']"),
    (lambda: nn.Conv(filters=16, kernel_size=3, strides=2),
     "Conv(filters=16, kernel_size=3, strides=2): filters is called features here; strides is called stride here"),
    (lambda: nn.Conv(16, 3, in_channels=3), "Conv(16, 3, in_channels=3): in_channels comes from the input: leave it out"),
    (lambda: nn.Conv(16, 3, data_format="channels_last"),
     "Conv(16, 3, data_format='channels_last'): data_format is no option: features are the last axis"),
    (lambda: nn.Embedding(input_dim=5, output_dim=3), "Embedding(input_dim=5, output_dim=3): input_dim is called"
     " num_embeddings here; output_dim is called features here"),
    (lambda: nn.LayerNorm(eps=1e-6), "LayerNorm(eps=1e-06): eps is called epsilon here"),
    (lambda: nn.LayerNorm(normalized_shape=8), "LayerNorm(normalized_shape=8): normalized_shape comes from the input: leave it out"),
    (lambda: nn.LayerNorm(elementwise_affine=False),
     "LayerNorm(elementwise_affine=False): elementwise_affine is no option: there is always a scale"),
    (lambda: nn.RMSNorm(use_bias=True), "RMSNorm(use_bias=True): no option 'use_bias'; there are ['epsilon', 'param_dtype', 'dtype']"),
    (lambda: nn.BatchNorm(num_features=8), "BatchNorm(num_features=8): num_features comes from the input: leave it out"),
    (lambda: nn.BatchNorm(use_running_average=True), "BatchNorm(use_running_average=True): use_running_average is an option of"
     " the call: layer(params, x, train=True)"),
    (lambda: nn.GroupNorm(num_groups=4), "GroupNorm(num_groups=4): num_groups is called groups here"),
    (lambda: nn.MultiHeadAttention(num_heads=4, embed_dim=64), "MultiHeadAttention(num_heads=4, embed_dim=64): num_heads is"
     " called heads here; embed_dim comes from the input: leave it out"),
    (lambda: nn.MultiHeadAttention(4, key_dim=16), "MultiHeadAttention(4, key_dim=16): key_dim is called head_dim here"),
    (lambda: nn.LSTM(4, dropout=0.1), "LSTM(4, dropout=0.1): dropout is a layer: Sequential(LSTM(...), Dropout(0.1))"),
    (lambda: nn.MultiHeadAttention(4, dropout_rate=0.1),
     "MultiHeadAttention(4, dropout_rate=0.1): dropout_rate is called dropout here"),
    (lambda: nn.LSTM(hidden_size=8), "LSTM(hidden_size=8): hidden_size is called features here"),
    (lambda: nn.LSTM(8, bidirectional=True), "LSTM(8, bidirectional=True): bidirectional is a layer around it:"
     " Bidirectional(LSTM(8))"),
    (lambda: nn.LSTM(8, unit_forget_bias=True),
     "LSTM(8, unit_forget_bias=True): unit_forget_bias is written as forget_bias=1.0"),
    (lambda: nn.RNN(8, nonlinearity="relu"), "RNN(8, nonlinearity='relu'): nonlinearity is called activation here"),
    (lambda: nn.Bidirectional(layer=nn.GRU(8), merge_mode="sum"), "Bidirectional(layer=GRU(8), merge_mode='sum'): layer is"
     " called forward here; merge_mode is called combine here"),
    (lambda: nn.LSTM(8, return_state=True),
     "LSTM(8, return_state=True): return_state is no option: layer.run(params, x) gives the last state too"),
    (lambda: nn.MaxPool(pool_size=2), "MaxPool(pool_size=2): pool_size is called window here"),
    (lambda: nn.MaxPool(kernel_size=2), "MaxPool(kernel_size=2): kernel_size is called window here"),
    (lambda: nn.Dropout(p=0.5), "Dropout(p=0.5): p is called rate here"),
    (lambda: nn.Repeat(nn.Dense(8), times=3), "Repeat(Dense(8), times=3): times is called n here"),
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
