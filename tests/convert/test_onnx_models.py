"""Whole models, exported as ONNX and run in onnxruntime: a GPT, a sentence encoder, and functions of Flax, Haiku and Equinox."""

from __future__ import annotations

from collections import Counter
from typing import Any

import equinox as eqx
import flax.linen as linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from grids import data
from onnx_sessions import check, initializers, nodes, spec, symbols

import ptree as pt
from ptree import convert, nn
from ptree import initializers as I

BATCH, LENGTH = symbols("batch, length", "length <= 16")
KEY = jax.random.key(0)
IDS = np.array([[1, 5, 2, 0, 7], [3, 3, 9, 11, 0]], "int32")


def numbers_for(shapes: Any) -> Any:
    """Positive numbers in the place of shapes: drawing them by a library's own initialisers would compile for seconds."""

    def numbers(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # of a Dropout, which reads it in training
            return KEY
        return np.abs(data(*leaf.shape) / 3).astype(leaf.dtype)

    return jax.tree.map(numbers, shapes)


def block(heads: int, width: int, *, causal: bool, approximate: bool) -> nn.Layer:
    gelu = nn.Lambda(lambda x: jax.nn.gelu(x, approximate=approximate))
    attention = nn.Sequential(nn.LayerNorm(), nn.MultiHeadAttention(heads, causal=causal, dropout=0.1), nn.Dropout(0.1))
    return nn.Sequential(
        nn.Residual(attention), nn.Residual(nn.Sequential(nn.LayerNorm(), nn.Dense(4 * width), gelu, nn.Dense(width)))
    )


@pytest.mark.parametrize("scan", [True, False], ids=["stacked", "one after the other"])
def test_a_gpt_with_a_tied_head(tmp_path, scan):
    blocks = nn.Repeat(block(4, 16, causal=True, approximate=True), 3, scan=scan)
    x = spec(1, 8, 16)
    declared = {
        "wte": pt.Param((12, 16)),
        "wpe": pt.Param((16, 16)),
        "blocks": blocks.spec(x),
        "ln": nn.LayerNorm().spec(x),
    }
    tree = pt.tie(pt.Tree({**declared, "head": pt.Param((16, 12))}), {"head": pt.transposed("wte")})
    params = pt.init(tree, KEY, {"**": I.normal(0.3)})

    def gpt(params, ids):
        x = params["wte"][ids] + params["wpe"][: ids.shape[1]]
        return nn.LayerNorm()(params["ln"], blocks(params["blocks"], x)) @ params["head"]

    runs = (IDS,), (IDS[:1, :2],)
    written = check(
        tmp_path / "gpt.onnx", gpt, params, *runs, specs=[spec(BATCH, LENGTH, dtype="int32")], tolerance=5e-5
    )
    assert repr(written).startswith(
        f"OnnxFile({str(tmp_path / 'gpt.onnx')!r}: ids: i32[batch,length] -> output: f32[batch,length,12]"
    )
    stored = initializers(tmp_path / "gpt.onnx")
    weights = {name for name in stored if not name.startswith("constant")}
    assert weights == set(pt.paths(params)) - {"head"}
    assert ("blocks/:/0/layer/1/q/kernel" if scan else "blocks/2/0/layer/1/q/kernel") in weights
    assert Counter(nodes(tmp_path / "gpt.onnx"))["Scan"] == scan
    assert not {"Bernoulli", "RandomUniform", "RandomUniformLike"} & set(nodes(tmp_path / "gpt.onnx"))


def test_a_sentence_encoder(tmp_path):
    encoder = nn.Repeat(block(4, 16, causal=False, approximate=False), 2, scan=False)
    x = spec(1, 8, 16)
    tables = {"words": pt.Param((12, 16)), "places": pt.Param((16, 16)), "kinds": pt.Param((2, 16))}
    tree = pt.Tree({**tables, "norm": nn.LayerNorm().spec(x), "encoder": encoder.spec(x), "pooler": pt.Param((16, 16))})
    params = pt.init(tree, KEY, {"**": I.normal(0.3)})

    def embed(params, input_ids, attention_mask):
        x = params["words"][input_ids] + params["places"][: input_ids.shape[1]] + params["kinds"][0]
        seen = attention_mask.astype(bool)[:, None, None, :]
        x = encoder(params["encoder"], nn.LayerNorm(epsilon=1e-12)(params["norm"], x), mask=seen)
        weights = attention_mask[..., None].astype(x.dtype)
        mean = (x * weights).sum(1) / jnp.maximum(weights.sum(1), 1e-9)
        return {"sentence_embedding": mean / jnp.linalg.norm(mean, axis=-1, keepdims=True), "token_embeddings": x}

    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    # what tokenizers give, which JAX without x64 computes with as int32
    specs = [spec(BATCH, LENGTH, dtype="int64"), spec(BATCH, LENGTH, dtype="int64")]
    runs = (IDS.astype("int64"), mask), (IDS[:1, :3].astype("int64"), mask[:1, :3])
    written = check(tmp_path / "encoder.onnx", embed, params, *runs, specs=specs, tolerance=2e-5)
    assert list(written.inputs) == ["input_ids", "attention_mask"]
    assert written.inputs["input_ids"] == "i64[batch,length]"
    assert sorted(written.outputs) == ["sentence_embedding", "token_embeddings"]
    assert "pooler" not in initializers(tmp_path / "encoder.onnx")


# ------------------------------------------------------------------------- other libraries


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Conv(8, (3, 3), strides=2)(x))
        x = linen.BatchNorm(use_running_average=True)(x)
        x = linen.ConvTranspose(4, (3, 3), strides=(2, 2))(x)
        x = linen.avg_pool(linen.max_pool(x, (2, 2), (2, 2)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1, 4)
        x = linen.MultiHeadDotProductAttention(2)(x)
        x = linen.RNN(linen.LSTMCell(5), reverse=True, keep_order=True)(x)
        return linen.Dropout(0.5, deterministic=True)(linen.Dense(3)(x))


def test_flax_linen(tmp_path):
    net, x = LinenNet(), data(2, 8, 8, 3)
    variables = numbers_for(jax.eval_shape(net.init, KEY, x))
    check(tmp_path / "linen.onnx", net.apply, variables, (x,), (x[:1],), specs=[spec(BATCH, 8, 8, 3)])
    assert "params/Conv_0/kernel" in initializers(tmp_path / "linen.onnx")


def test_flax_nnx(tmp_path):
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embed = nnx.Embed(12, 8, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
            self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
            self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
            self.out = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, ids: Any) -> Any:
            x = self.embed(ids)
            return self.out(self.drop(self.norm(x + self.attention(x))))

    graph, shapes = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    state = numbers_for(shapes)
    f = lambda state, ids: nnx.merge(graph, state)(ids)
    check(tmp_path / "nnx.onnx", f, state, (IDS,), (IDS[:1, :2],), specs=[spec(BATCH, LENGTH, dtype="int32")])


def test_haiku(tmp_path):
    @hk.transform_with_state
    def net(x, train=False):
        x = jax.nn.relu(hk.Conv2D(4, 3, stride=2, padding="VALID")(x))
        x = hk.BatchNorm(True, True, 0.9)(x, is_training=train)
        x = hk.max_pool(x, (2, 2, 1), (1, 1, 1), "SAME")
        x = hk.Conv2DTranspose(4, 3, stride=2)(x)
        x = hk.Flatten()(x).reshape(x.shape[0], -1, 16)
        x, _ = hk.dynamic_unroll(hk.GRU(5), x.swapaxes(0, 1), hk.GRU(5).initial_state(x.shape[0]))
        return hk.LayerNorm(-1, True, True)(hk.Linear(3)(x))

    x = data(2, 9, 9, 3)
    params, state = numbers_for(jax.eval_shape(lambda: net.init(KEY, x, True)))
    f = lambda everything, x: net.apply(everything[0], everything[1], None, x)[0]
    check(tmp_path / "haiku.onnx", f, (params, state), (x,), (x[:1],), specs=[spec(BATCH, 9, 9, 3)])


def test_equinox(tmp_path):
    class Net(eqx.Module):
        convolution: eqx.nn.Conv2d
        pool: eqx.nn.MaxPool2d
        cell: eqx.nn.GRUCell
        mlp: eqx.nn.MLP
        norm: eqx.nn.LayerNorm

        def __call__(self, x: Any) -> Any:
            x = self.pool(self.convolution(x))
            state, _ = jax.lax.scan(lambda h, row: (self.cell(row, h), None), jnp.zeros(6), x.reshape(x.shape[0], -1))
            return self.mlp(self.norm(state))

    def model_of(key: Any) -> Net:
        convolution, pool = eqx.nn.Conv2d(3, 4, 3, key=key), eqx.nn.MaxPool2d(2, 2)
        return Net(
            convolution, pool, eqx.nn.GRUCell(9, 6, key=key), eqx.nn.MLP(6, 2, 8, 2, key=key), eqx.nn.LayerNorm(6)
        )

    shapes, functions = eqx.partition(eqx.filter_eval_shape(model_of, KEY), lambda leaf: hasattr(leaf, "shape"))
    model = eqx.combine(numbers_for(shapes), functions)
    x = data(2, 3, 8, 8)
    apply = lambda model, x: jax.vmap(model)(x)
    # a module as it is, with functions among its leaves, and its arrays alone
    check_model = lambda f, params: check(
        tmp_path / "eqx.onnx", f, params, (x,), (x[:1],), specs=[spec(BATCH, 3, 8, 8)]
    )
    arrays, static = numbers_for(shapes), functions
    check_model(lambda arrays, x: apply(eqx.combine(arrays, static), x), arrays)
    assert "mlp/layers/0/weight" in initializers(tmp_path / "eqx.onnx")
    written = convert.to_onnx(apply, model, x, path=tmp_path / "module.onnx")
    assert written.weights_inside > 0
