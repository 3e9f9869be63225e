"""Write gluon_layers.npz beside this script: the arrays of layers of MXNet 1.9.1 by their names, an input and the output.

With Python 3.11 and NumPy 1.26.4; MXNet uses names that NumPy has removed, which are put back first. Nothing here is run by
the tests.
"""

import tempfile
from pathlib import Path

import numpy as np

for name, kind in (("bool", bool), ("int", int), ("float", float), ("object", object)):
    setattr(np, name, kind)

import mxnet as mx  # noqa: E402
from mxnet.gluon import nn, rnn  # noqa: E402

FOUND = {}


def random(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype("float32")


def add(case, net, x, exported=False):
    """The arrays of `save_parameters`, or of an exported file."""
    net.initialize(mx.init.Normal(0.5))
    x = mx.nd.array(x)
    net(x)
    for at, (key, parameter) in enumerate(net.collect_params().items()):
        if parameter.grad_req == "null" and "gamma" in key:  # a scale that is not used stays 1
            continue
        values = 0.5 * random(*parameter.shape, seed=at)
        parameter.set_data(mx.nd.array(np.abs(values) + 0.5 if "running_var" in key else values))
    if exported:
        net.hybridize()
    FOUND[f"{case}|x"], FOUND[f"{case}|y"] = x.asnumpy(), net(x).asnumpy()
    with tempfile.TemporaryDirectory() as folder:
        if exported:
            net.export(f"{folder}/net")
            arrays = mx.nd.load(f"{folder}/net-0000.params")
        else:
            net.save_parameters(f"{folder}/net.params")
            arrays = mx.nd.load(f"{folder}/net.params")
    for key, array in arrays.items():
        FOUND[f"{case}|p|{key}"] = array.asnumpy()


def chain(*layers, kind=nn.Sequential, **options):
    net = kind(**options)
    net.add(*layers)
    return net


add("dense", chain(nn.Dense(4, flatten=False), nn.Dense(4, flatten=False, use_bias=False)), random(2, 3, 4))
for rank in (1, 2, 3):
    x = random(2, 4, *(5, 6, 4)[:rank])
    conv, transposed = (getattr(nn, f"Conv{rank}D{kind}") for kind in ("", "Transpose"))
    size = 2 if rank == 3 else 4
    groups = 1 if rank == 1 else 2  # MXNet refuses groups of a transposed convolution over one axis
    layers = [
        conv(4, size, padding=1, groups=2, in_channels=4),
        transposed(4, size, strides=2, padding=1, groups=groups, in_channels=4),
        conv(4, size, padding=1, groups=4, in_channels=4),
    ]
    add(f"conv{rank}", chain(*layers), x)
add("embedding", nn.Embedding(4, 4), np.array([[1, 2], [3, 0]]))
norms = [nn.BatchNorm(), nn.BatchNorm(scale=False), nn.GroupNorm(2)]
add("norms", chain(*norms), random(3, 4, 4, 4))
add("layer_norm", nn.LayerNorm(), random(2, 4, 4))
for kind in ("LSTM", "GRU", "RNN"):
    options = {"activation": "tanh"} if kind == "RNN" else {}
    add(kind, getattr(rnn, kind)(4, 2, layout="NTC", bidirectional=True, **options), random(2, 5, 4))
add("one_way", chain(rnn.LSTM(4, layout="NTC")), random(2, 5, 4))
add("flatten", chain(nn.Conv2D(4, 3), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(4)), random(2, 4, 6, 6))
block = chain(nn.Dense(4, prefix="a_"), nn.BatchNorm(prefix="b_"), kind=nn.HybridSequential, prefix="inner_")
exported = chain(nn.Dense(4, prefix="dense0_"), block, kind=nn.HybridSequential, prefix="")
add("exported", exported, random(3, 4), exported=True)
np.savez_compressed(Path(__file__).parent / "gluon_layers.npz", **FOUND)
