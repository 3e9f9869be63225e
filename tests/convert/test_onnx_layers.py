"""Each layer of ptree.nn, exported as ONNX with open sizes and run in onnxruntime at two sizes, against JAX."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grids import data, drawn
from onnx_sessions import check, nodes, spec, symbols

from ptree import nn

BATCH, LENGTH = symbols()


class Case(NamedTuple):
    layer: Any
    specs: Any
    """Shapes; BATCH and LENGTH are open."""


def sequence(features: int) -> Any:
    return [spec(BATCH, LENGTH, features)]


def image(*space: int, features: int = 4) -> Any:
    return [spec(BATCH, *space, features)]


MASKED = nn.MultiHeadAttention(4)
CASES = {
    "Dense": Case(nn.Dense((4, 3)), sequence(6)),
    "Dense over two axes": Case(nn.Dense(3, axis=(-2, -1)), image(5, features=6)),
    "Conv": Case(nn.Conv(6, 3), sequence(4)),
    "Conv with a stride along an open axis": Case(nn.Conv(6, 3, stride=2), sequence(4)),
    "causal Conv": Case(nn.Conv(6, 3, padding="CAUSAL", dilation=2), sequence(4)),
    "2-D Conv in groups": Case(nn.Conv(6, (3, 3), stride=2, groups=2), image(9, 8)),
    "3-D Conv": Case(nn.Conv(6, (3, 3, 2)), image(5, 4, 3)),
    **{f"{mode} Conv": Case(nn.Conv(6, 3, padding=mode), image(9)) for mode in ("CIRCULAR", "REFLECT", "REPLICATE")},
    **{
        f"{mode} ConvTranspose": Case(nn.ConvTranspose(6, 3, stride=2, padding=mode), image(9))
        for mode in ("CIRCULAR", "REFLECT", "REPLICATE")
    },
    "ConvTranspose": Case(nn.ConvTranspose(6, 4, stride=2), sequence(4)),
    "ConvTranspose with output padding": Case(nn.ConvTranspose(6, 3, stride=2, padding=((1, 0),)), image(9)),
    "ConvTranspose with a kernel below the stride": Case(nn.ConvTranspose(6, 1, stride=2), image(9)),
    "2-D ConvTranspose in groups": Case(nn.ConvTranspose(6, (4, 3), stride=2, groups=2, padding="VALID"), image(9, 8)),
    "3-D ConvTranspose": Case(nn.ConvTranspose(6, (4, 3, 2), stride=(1, 2, 3), dilation=(1, 2, 1)), image(4, 3, 3)),
    "MaxPool": Case(nn.MaxPool(2), image(8, 6)),
    "MaxPool with two axes of batch": Case(nn.MaxPool((2, 2)), [spec(BATCH, LENGTH, 8, 6, 3)]),
    "MaxPool along an open axis": Case(nn.MaxPool(2), sequence(3)),
    "padded MaxPool": Case(nn.MaxPool((3, 2), (2, 1), padding="SAME"), image(8, 6)),
    "3-D MaxPool": Case(nn.MaxPool((2, 2, 2)), image(4, 4, 4)),
    "AvgPool": Case(nn.AvgPool(2), image(8, 6)),
    "AvgPool that counts no padding": Case(nn.AvgPool((3, 2), padding="SAME", count_padding=False), image(8, 6)),
    "LayerNorm": Case(nn.LayerNorm(), sequence(8)),
    "LayerNorm over two axes": Case(nn.LayerNorm(axis=(-2, -1)), image(5, features=8)),
    "RMSNorm": Case(nn.RMSNorm(), sequence(8)),
    "GroupNorm": Case(nn.GroupNorm(2), [spec(BATCH, LENGTH, 6, 8)]),
    "BatchNorm": Case(nn.BatchNorm(), sequence(8)),
    "attention": Case(MASKED, sequence(8)),
    "attention with dropout": Case(nn.MultiHeadAttention(4, dropout=0.5), sequence(8)),
    "causal attention with rotary positions": Case(nn.MultiHeadAttention(4, causal=True, rotary=1e4), sequence(8)),
    "grouped attention with a window and a cap": Case(
        nn.MultiHeadAttention(
            4,
            kv_heads=2,
            causal=True,
            window=3,
            soft_cap=5.0,
            rotary=nn.Rotary(100.0, pairs=True, fraction=0.5),
            qk_norm=nn.RMSNorm(),
        ),
        sequence(16),
    ),
    "LSTM": Case(nn.LSTM(6), sequence(4)),
    "reversed LSTM": Case(nn.LSTM(6, reverse=True), sequence(4)),
    "GRU": Case(nn.GRU(6), sequence(4)),
    "reversed GRU": Case(nn.GRU(6, reverse=True, unroll=2), sequence(4)),
    "RNN": Case(nn.RNN(6), sequence(4)),
    "Bidirectional": Case(nn.Bidirectional(nn.LSTM(6)), sequence(4)),
    "Residual": Case(nn.Residual(nn.Dense(8)), sequence(8)),
    "Parallel": Case(nn.Parallel(nn.Dense(3), nn.Dense(3)), sequence(8)),
    "Dropout and Flatten": Case(nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Lambda(jnp.sin)), image(5)),
}


def arrays(specs: Any, batch: int, length: int) -> list[np.ndarray]:
    sizes = {str(BATCH): batch, str(LENGTH): length}
    return [data(*(sizes.get(str(size), size) for size in shape.shape)) for shape in specs]


@pytest.mark.parametrize("name", CASES)
def test_layers_with_open_sizes(tmp_path, name):
    layer, specs = CASES[name]
    runs = [tuple(arrays(specs, 2, 6)), tuple(arrays(specs, 3, 4))]
    params = drawn(layer, runs[0][0])
    check(tmp_path / "layer.onnx", layer, params, *runs, specs=specs, tolerance=2e-5)


def test_a_layer_without_a_batch(tmp_path):
    for layer, x in ((nn.Conv(6, (3, 3)), data(9, 8, 4)), (nn.MaxPool((2, 2)), data(8, 6, 3))):
        check(tmp_path / "layer.onnx", layer, drawn(layer, x), (x,))


def test_embeddings_of_all_integers(tmp_path):
    ids = np.array([[1, 2, -1], [9, 10, 0]])
    layer = nn.Embedding(10, 4, padding_idx=0)
    params = drawn(layer, ids)
    for dtype in ("int8", "uint8", "int32"):
        check(tmp_path / "ids.onnx", layer, params, (ids.astype(dtype),), specs=[spec(BATCH, LENGTH, dtype=dtype)])
    x = data(2, 3, 4)
    attend = lambda params, x: layer.attend(params, x)
    check(tmp_path / "attend.onnx", attend, params, (x,), specs=sequence(4))


def test_attention_with_masks_biases_and_a_context(tmp_path):
    x, context = data(2, 5, 8), data(2, 3, 8)
    params = drawn(MASKED, x)
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
    masked = lambda params, x, mask: MASKED(params, x, mask=mask[:, None, None, :])
    specs = [spec(BATCH, LENGTH, 8), spec(BATCH, LENGTH, dtype="bool")]
    check(tmp_path / "masked.onnx", masked, params, (x, mask), (x[:1, :3], mask[:1, :3]), specs=specs)
    bias = np.where(data(1, 1, 5, 3) > 1, -np.inf, data(1, 1, 5, 3)).astype("float32")
    biased = lambda params, x, context, bias: MASKED(params, x, context=context, bias=bias)
    check(tmp_path / "biased.onnx", biased, params, (x, context, bias))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", ["one", "for each row"])
def test_decoding_with_a_cache(tmp_path, causal, length):
    layer = nn.MultiHeadAttention(4, head_dim=4, causal=causal, rotary=1e4 if causal else None)
    x = data(2, 2, 8)
    filled = {**layer.cache(2, 7), "k": data(2, 7, 4, 4), "v": data(2, 7, 4, 4, seed=1)}
    lengths = [np.int32(3), np.int32(6)] if length == "one" else [np.array([3, 6], "int32")]
    runs = [(x, {**filled, "length": at}) for at in lengths]  # from 6 on one place does not fit, and its output is NaN
    of_length = spec(dtype="int32") if length == "one" else spec(BATCH, dtype="int32")
    of_cache = {"k": spec(BATCH, 7, 4, 4), "v": spec(BATCH, 7, 4, 4), "length": of_length}
    decode = lambda params, x, cache: layer(params, x, cache=cache)
    written = check(tmp_path / "step.onnx", decode, drawn(layer, x), *runs, specs=[spec(BATCH, 2, 8), of_cache])
    assert list(written.inputs) == ["x", "cache/k", "cache/length", "cache/v"]


@pytest.mark.parametrize("layer", [nn.LSTM(6), nn.GRU(6), nn.RNN(6), nn.Bidirectional(nn.LSTM(6))], ids=repr)
def test_sequences_of_different_lengths(tmp_path, layer):
    x = data(2, 7, 4)
    run = lambda params, x, lengths: layer.run(params, x, lengths=lengths)
    specs = [spec(BATCH, LENGTH, 4), spec(BATCH, dtype="int32")]
    runs = (x, np.array([7, 3], "int32")), (data(3, 5, 4), np.array([1, 0, 5], "int32"))
    check(tmp_path / "lengths.onnx", run, drawn(layer, x), *runs, specs=specs)


def test_an_lstm_of_160_steps(tmp_path):
    x = data(2, 160, 16)
    layer = nn.LSTM(32)
    check(tmp_path / "long.onnx", layer, drawn(layer, x), (x,), (x[:, :3],), specs=sequence(16))


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"scan": False, "remat": True}], ids=repr)
def test_repeated_blocks(tmp_path, options):
    block = nn.Residual(nn.Sequential(nn.LayerNorm(), nn.MultiHeadAttention(4, causal=True), nn.Dropout(0.1)))
    layer = nn.Repeat(block, 3, **options)
    x = data(2, 5, 8)
    # a product of three blocks of large random kernels: float32 errors of a few units in the fifth place
    check(tmp_path / "repeat.onnx", layer, drawn(layer, x), (x,), (x[:1, :3],), specs=sequence(8), tolerance=5e-5)
    has_loop = {"Scan", "Loop"} & set(nodes(tmp_path / "repeat.onnx"))
    assert bool(has_loop) == options.get("scan", True)


def test_a_network_of_convolutions(tmp_path):
    convolution = partial(nn.Conv, 8, (3, 3))
    net = nn.Sequential(
        convolution(), nn.BatchNorm(), jax.nn.relu, nn.MaxPool((2, 2)), convolution(), nn.AvgPool((2, 2)), nn.Flatten(),
        nn.Dense(10), jax.nn.log_softmax,
    )  # fmt: skip
    x = data(2, 8, 8, 1)
    check(tmp_path / "net.onnx", net, drawn(net, x), (x,), (x[:1],), specs=image(8, 8, features=1), tolerance=2e-5)
