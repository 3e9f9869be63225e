"""Layers against those of MXNet's Gluon: arrays, inputs and outputs that MXNet 1.9.1 wrote (samples/write_gluon_layers.py)."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from layouts import agrees, draws

import ptree as pt
from ptree import convert, nn


@pytest.fixture(scope="module")
def samples():
    with np.load(Path(__file__).parent / "samples" / "gluon_layers.npz") as file:
        return {name: file[name] for name in file.files}


def first(x):
    return np.moveaxis(x, -1, 1)


def last(x):
    return np.moveaxis(x, 1, -1)


def as_is(x):
    return x


def check(net, samples, case, turned=as_is, turned_back=None, **options):
    arrays = {name.split("|p|")[1]: value for name, value in samples.items() if name.startswith(f"{case}|p|")}
    x, y = turned(samples[f"{case}|x"]), (turned_back or turned)(samples[f"{case}|y"])
    return agrees(net, (x,), arrays, "gluon", y, **options)


def test_dense(samples):
    check(nn.Sequential(nn.Dense(4), nn.Dense(4, use_bias=False)), samples, "dense")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_and_their_transposes_in_groups(samples, rank):
    window, groups = (2 if rank == 3 else 4,) * rank, 1 if rank == 1 else 2
    net = nn.Sequential(
        nn.Conv(4, window, padding=1, groups=2), nn.ConvTranspose(4, window, stride=2, padding=1, groups=groups),
        nn.Conv(4, window, padding=1, groups=4),
    )  # fmt: skip
    check(net, samples, f"conv{rank}", last, tolerance=1e-4)


def test_embeddings(samples):
    check(nn.Embedding(4, 4), samples, "embedding", lambda x: x.astype("int32"), as_is)


def test_norms_have_a_scale_for_each_group_and_one_that_is_not_used(samples):
    net = nn.Sequential(nn.BatchNorm(), nn.BatchNorm(use_scale=False), nn.GroupNorm(2))
    params, table = check(net, samples, "norms", last, tolerance=1e-4)
    assert {"'1.gamma' -> fill(constant=1.0, shape=(4,))", "'2.gamma' -> '2/scale', repeat(2)"} < set(table)
    trained = pt.set(params, "2/scale", jnp.arange(4.0))
    with pytest.raises(pt.StructureError, match="the numbers of a group of 2 differ"):
        table.inverse.apply(trained)
    check(nn.LayerNorm(), samples, "layer_norm")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_in_both_directions(samples, kind):
    layer = getattr(nn, kind)
    net = nn.Sequential(nn.Bidirectional(layer(4)), nn.Bidirectional(layer(4)))
    _, table = check(net, samples, kind, names={"*": ":*"})
    assert "'_unfused.1.r_cell.h2h_weight' -> '1/backward/hidden/kernel', linear" in list(table)


def test_a_recurrent_layer_in_one_direction(samples):
    _, table = check(nn.Sequential(nn.LSTM(4)), samples, "one_way")
    assert "'0._unfused.0.i2h_weight' -> '0/input/kernel', linear" in list(table)
    exported = convert.layer_table(
        nn.Sequential(nn.LSTM(4)), draws(2, 5, 4), framework="gluon", names={"0": "lstm0_:1"}
    )
    assert "'arg:lstm0_l1_i2h_weight' -> '0/input/kernel', linear" in list(exported)


def test_flattened_features_have_the_channels_first_there(samples):
    net = nn.Sequential(nn.Conv(4, 3, padding="VALID"), nn.MaxPool(2), nn.Flatten(), nn.Dense(4))
    check(net, samples, "flatten", last, as_is)


def test_exported_names_are_prefixes(samples):
    net = nn.Sequential(nn.Dense(4), nn.Sequential({"a": nn.Dense(4), "b": nn.BatchNorm()}))
    _, table = check(net, samples, "exported", names={"0": "dense0_", "1/a": "a_", "1/b": "b_"}, tolerance=1e-4)
    assert "'aux:b_running_var' -> '1/b/var', as_is" in list(table)


def test_what_gluon_lacks():
    x = draws(2, 5, 4)
    with pytest.raises(pt.LayerError, match="the model, RMSNorm in Gluon: it has no RMSNorm"):
        convert.layer_table(nn.RMSNorm(), x, framework="gluon")
    attention = convert.layer_table(nn.MultiHeadAttention(2), x, framework="gluon", names={"q": "query"})
    assert {"'query.weight' -> 'q/kernel', linear >> split_axis(1, (2, 2))", "'o.bias' -> 'o/bias', as_is"} < set(
        attention
    )
