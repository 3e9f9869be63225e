"""Write the samples of MXNet 1.9.1 (Python 3.11, NumPy 1.26.4), into the folder of this script.

MXNet uses names that NumPy has removed; they are put back first. Nothing here is run by the tests.
"""

import struct
from pathlib import Path

import numpy as np

for name, kind in (("bool", bool), ("int", int), ("float", float), ("object", object)):
    setattr(np, name, kind)

import mxnet as mx  # noqa: E402
from mxnet.gluon import nn  # noqa: E402

HERE = Path(__file__).parent
mx.random.seed(0)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


# ------------------------------------------------ the networks of the chapter on parameters


def mlp():
    net = nn.Sequential()
    net.add(nn.Dense(8, activation="relu"))
    net.add(nn.Dense(1))
    return net


def shared_mlp():
    net = nn.Sequential()
    shared = nn.Dense(8, activation="relu")
    net.add(nn.Dense(8, activation="relu"), shared)
    net.add(nn.Dense(8, activation="relu", params=shared.params), nn.Dense(1))
    return net


x = mx.nd.array(random(2, 4))
outputs = {"inputs": x.asnumpy()}
for name, net in (("mlp", mlp()), ("shared_mlp", shared_mlp())):
    net.initialize(mx.init.Normal(0.5))
    for at, parameter in enumerate(net.collect_params(".*bias").values()):
        parameter.initialize(mx.init.Constant(0.1 * (at + 1)), force_reinit=True)
    outputs[name] = net(x).asnumpy()
    net.save_parameters(str(HERE / f"mxnet_{name}.params"))

hybrid = nn.HybridSequential()
hybrid.add(nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dense(1))
hybrid.initialize(mx.init.Normal(0.5))
for at, (key, parameter) in enumerate(hybrid.collect_params().items()):
    if "running" in key or "gamma" in key or "beta" in key:
        hybrid(x)  # shapes are known after the first call
        parameter.set_data(mx.nd.array(0.5 + 0.1 * np.arange(8) + 0.01 * at))
hybrid.hybridize()
outputs["exported"] = hybrid(x).asnumpy()
hybrid.export(str(HERE / "mxnet_exported"))
(HERE / "mxnet_exported-symbol.json").unlink()
np.savez(HERE / "mxnet_outputs.npz", **outputs)

# ------------------------------------------------------- dtypes, lists, sparse, old versions

kinds = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64")
arrays = {kind: mx.nd.array(np.arange(6).reshape(2, 3), dtype=kind) for kind in kinds}
arrays["bfloat16"] = mx.nd.array(np.arange(6).reshape(2, 3)).astype(np.dtype([("bfloat16", np.uint16)]))
mx.nd.save(str(HERE / "mxnet_dtypes.params"), arrays)
mx.nd.save(str(HERE / "mxnet_list.params"), [mx.nd.array([1.0, 2.0]), mx.nd.array([[3.0]])])

dense = np.zeros((4, 3), "float32")
dense[1], dense[3] = 1, 2
sparse = {
    "before": mx.nd.array([1.0]),
    "rows": mx.nd.array(dense).tostype("row_sparse"),
    "csr": mx.nd.array(dense).tostype("csr"),
    "no rows": mx.nd.sparse.zeros("row_sparse", (4, 3)),
    "after": mx.nd.array([2.0]),
}
mx.nd.save(str(HERE / "mxnet_sparse.params"), sparse)

mx.npx.set_np()
numpy_arrays = {
    "scalar": mx.np.array(1.5),
    "empty": mx.np.zeros((0, 3)),
    "bool": mx.np.array([True, False], dtype=bool),
}
mx.npx.save(str(HERE / "mxnet_numpy.params"), numpy_arrays)
mx.npx.reset_np()


# MXNet no longer writes its two older layouts; it reads these, which is checked here
def old(version):
    header = struct.pack("<I", 2) + struct.pack("<2I", 2, 3)
    if version == 1:
        header = struct.pack("<Ii2q", 0xF993FAC8, 2, 2, 3)
    numbers = np.arange(6, dtype="float32").tobytes()
    entry = header + struct.pack("<3i", 1, 0, 0) + numbers
    return struct.pack("<3Q", 0x112, 0, 1) + entry + struct.pack("<QQ", 1, 1) + b"w"


for version in (0, 1):
    file = HERE / f"mxnet_v{version}.params"
    file.write_bytes(old(version))
    assert (mx.nd.load(str(file))["w"].asnumpy() == np.arange(6).reshape(2, 3)).all()
