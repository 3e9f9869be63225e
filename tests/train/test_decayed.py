"""The mask of weight decay."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import ptree as pt
from ptree import nn, train


def decayed_paths(params):
    return [path for path, is_decayed in pt.items(train.decayed(params)) if is_decayed]


def test_kernels_of_all_layers_are_decayed_and_nothing_else_stacked_or_not():
    block = nn.Sequential(
        nn.Residual(nn.Sequential(nn.LayerNorm(), nn.MultiHeadAttention(2))), nn.RMSNorm(), nn.Dense(8), nn.GroupNorm(2)
    )
    net = nn.Sequential(
        {"embed": nn.Embedding(11, 8), "conv": nn.Conv(8, (3,)), "blocks": nn.Repeat(block, 3), "lstm": nn.LSTM(8)}
    )
    spec = net.spec(jax.ShapeDtypeStruct((2, 5), jnp.int32))
    apart = pt.stacks.unstack(spec, "blocks")
    names = {path.split("/")[-1] for path in pt.paths(spec)}
    assert names >= {"kernel", "bias", "scale", "table"}
    kernels = [path for path in pt.paths(spec) if path.split("/")[-1] not in {"bias", "scale", "table"}]
    assert decayed_paths(spec) == kernels
    assert [
        path.replace("blocks/1", "blocks/:")
        for path in decayed_paths(apart)
        if "blocks/0" not in path and "blocks/2" not in path
    ] == kernels
    by_rank = [path for path, leaf in pt.items(spec) if len(leaf.shape) > 1]
    assert {path.split("/")[-1] for path in by_rank} >= {"bias", "scale", "table"}, (
        "which is why the rank alone will not do"
    )


def test_names_of_other_libraries():
    state = nnx.state(nnx.MultiHeadAttention(2, 8, rngs=nnx.Rngs(0), decode=False))
    assert {path.split("/")[-2] for path in decayed_paths(state)} == {"kernel"}
    shapes = {
        "linear": {"w": (4, 4), "b": (4,)},
        "embed": {"embeddings": (9, 4)},
        "wte": {"weight": (9, 4)},
        "fc": {"weight": (4, 4), "bias": (4,)},
        "embed_tokens": {"weight": (9, 4)},
        "patch_embed": {"kernel": (4, 4, 3, 8)},
        "pos_embedding": (1, 7, 8),
        "gru": {"bias_ih_l0": (3, 4), "weight_ih_l0": (12, 4)},
        "rel": {"relative_attention_bias": (32, 8)},
        "transformer": {"wte": (9, 4), "wpe": (7, 4), "pos_emb": (7, 4), "cls_token": (1, 1, 4), "bias_kernel": (4, 4)},
        "tok_emb": {"weight": (9, 4)},
        "scalar": (),
    }
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda node: isinstance(node, tuple))
    params["tokens"] = jnp.ones((2, 2), int)
    assert {*decayed_paths(params)} == {
        "linear/w",
        "fc/weight",
        "patch_embed/kernel",
        "gru/weight_ih_l0",
        "transformer/bias_kernel",
    }


def test_a_kernel_that_is_tied_to_a_table_is_a_table():
    params = {
        "embed/table": jnp.ones((9, 4)),
        "head/kernel": pt.transposed("embed/table"),
        "dense/kernel": jnp.ones((4, 4)),
    }
    assert decayed_paths(pt.Tree(params)) == ["dense/kernel"]
    params = {"head/kernel": jnp.ones((4, 9)), "embed/table": pt.transposed("head/kernel")}
    assert decayed_paths(pt.Tree(params)) == []


def test_a_stack_decays_as_its_layers():
    apart = pt.Tree({"blocks": [{"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}] * 3})
    stacked = pt.stacks.stack(apart, "blocks")
    optimiser = train.groups({"**": optax.adamw(1.0, weight_decay=0.5, mask=train.decayed)})
    for params in (apart, stacked):
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, _ = optimiser.update(zeros, optimiser.init(params), params)
        assert updates["blocks/1/kernel"].tolist() == [[-0.5, -0.5]] * 2
        assert updates["blocks/1/bias"].tolist() == [0, 0]


def test_biases_of_haiku_beside_images_and_of_attention_in_pytorch():
    shapes = {
        "conv2_d": {"w": (3, 3, 1, 4), "b": (4, 1, 1)},  # data_format="NCHW"
        "bias": {"b": (5, 5, 4)},
        "bias_1": {"b": (5, 5, 4)},
        "mha": {"in_proj_weight": (12, 4), "bias_k": (1, 1, 4), "bias_v": (1, 1, 4)},
        "alone": {"a": (4, 2), "b": (2, 4)},
    }
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda node: isinstance(node, tuple))
    kernels = ["alone/a", "alone/b", "conv2_d/w", "mha/in_proj_weight"]
    assert decayed_paths(params) == kernels
    apart = pt.Tree({"blocks": [params] * 2})
    assert decayed_paths(pt.stacks.stack(apart, "blocks")) == [f"blocks/:/{path}" for path in kernels]
    factors = train.lora({"bias/kernel": jnp.ones((4, 4))}, {"**": train.Rank(2)}, jax.random.key(0))
    assert [path[-1] for path in decayed_paths(factors)] == ["a", "b"]
