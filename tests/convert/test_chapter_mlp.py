"""The MLP with a shared layer, in PyTorch live, and in MXNet, TensorFlow and Keras by files that they wrote: outputs, and the way back.

The samples and the scripts that wrote them are in tests/foreign/samples.
"""

from pathlib import Path

import jax
import keras
import numpy as np
import pytest
from conversions import assert_own_inverse, assert_same_arrays, assert_same_trees

import ptree as pt
from ptree import convert, nn
from ptree import initializers as I
from ptree.convert import carry, linear

SAMPLES = Path(__file__).parent.parent / "foreign" / "samples"
X = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")

shared = nn.Dense(8)
net = nn.Sequential(nn.Dense(8), jax.nn.relu, shared, jax.nn.relu, shared, jax.nn.relu, nn.Dense(1))
plain = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))
SPEC, PLAIN_SPEC = net.spec(X), plain.spec(X)

TORCH = convert.Table({"*.weight": ("*/kernel", linear), "*.bias": "*/bias"})
MXNET = convert.Table({"{0,1,2,3}.weight": ("{0,2,4,6}/kernel", linear), "{0,1,2,3}.bias": "{0,2,4,6}/bias"})
# names of layers in `.keras` and in files of Keras 2; classes with a count in `.weights.h5`
KERAS = convert.Table({"{hidden,shared,output}/{kernel,bias}": "{0,2,6}/{kernel,bias}"})
KERAS_WEIGHTS = convert.Table({"layers/{dense,dense_1,dense_2}/vars/{0,1}": "{0,2,6}/{kernel,bias}"})
TENSORFLOW = convert.Table({
    "model/layer_with_weights-{0,1}/{kernel,bias}": "{0,2}/{kernel,bias}",
    "model/optimizer/**": carry,
})  # fmt: skip


def of_sample(writer, name):
    """The inputs that a framework was given when the samples were written, and the outputs of one of its networks."""
    with np.load(SAMPLES / f"{writer}_outputs.npz") as outputs:
        return outputs["inputs"], outputs[name]


# ------------------------------------------------------------------------------- PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def peer(torch):
    torch.manual_seed(0)
    one = torch.nn.Linear(8, 8)
    layers = [torch.nn.Linear(4, 8), torch.nn.ReLU(), one, torch.nn.ReLU(), one, torch.nn.ReLU(), torch.nn.Linear(8, 1)]
    return torch.nn.Sequential(*layers)


def of_torch(torch, module):
    return module(torch.tensor(X)).detach().numpy()


@pytest.mark.parametrize("where", ["module", "state", "zip", "legacy"])
def test_pytorch_in(torch, peer, tmp_path, where):
    source = {"module": peer, "state": peer.state_dict()}.get(where, tmp_path / "mlp.pt")
    if where in ("zip", "legacy"):
        torch.save(peer.state_dict(), source, _use_new_zipfile_serialization=where == "zip")
    params = TORCH.apply(source, like=SPEC)
    assert pt.ties(params) == pt.ties(SPEC)
    np.testing.assert_allclose(net(params, X), of_torch(torch, peer), atol=5e-6)


def test_pytorch_out_and_in_again(torch, peer, tmp_path):
    assert_own_inverse(TORCH, peer.state_dict(), SPEC)
    params = net.init(jax.random.key(0), X, {"**": I.normal(0.5)})  # biases too
    convert.write(tmp_path / "mlp.pt", TORCH.inverse.apply(params))
    state = torch.load(tmp_path / "mlp.pt", weights_only=True)
    peer.load_state_dict(state, strict=True)
    np.testing.assert_allclose(of_torch(torch, peer), net(params, X), atol=5e-6)
    assert_same_trees(TORCH.apply(tmp_path / "mlp.pt", like=SPEC), params)


def test_two_layers_of_pytorch_do_not_become_one(torch, peer):
    peer[4] = torch.nn.Linear(8, 8)
    with pytest.raises(pt.StructureError, match="'4/kernel'"):
        TORCH.apply(peer, like=SPEC)


def test_the_square_layer_is_not_taken_untransposed(peer):
    silent = convert.Table({"*.{weight,bias}": "*/{kernel,bias}"})
    with pytest.raises(pt.StructureError, match=r"'2.weight' \[8, 8\] becomes '2/kernel', and its shape does not tell"):
        silent.apply({"2.weight": peer[2].weight, "2.bias": peer[2].bias})


# ------------------------------------------------------------------------------- MXNet


def test_mxnet_in():
    inputs, outputs = of_sample("mxnet", "shared_mlp")
    params = MXNET.apply(SAMPLES / "mxnet_shared_mlp.params", like=SPEC)
    np.testing.assert_allclose(net(params, inputs), outputs, atol=5e-6)


def test_mxnet_out_is_the_file_that_mxnet_wrote_byte_for_byte(tmp_path):
    sample = SAMPLES / "mxnet_shared_mlp.params"
    params = MXNET.apply(sample, like=SPEC)
    assert_own_inverse(MXNET, convert.read(sample), SPEC)
    convert.write(tmp_path / "mlp.params", MXNET.inverse.apply(params))
    assert (tmp_path / "mlp.params").read_bytes() == sample.read_bytes()


# ------------------------------------------------------------------------------- Keras and TensorFlow


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("keras_shared_mlp.keras", KERAS),
        ("keras_shared_mlp.weights.h5", KERAS_WEIGHTS),
        ("keras2_shared_mlp.h5", KERAS),
    ],
)
def test_keras_in(name, table):
    inputs, outputs = of_sample("tensorflow", name.split(".")[0])
    params = table.apply(SAMPLES / name, like=SPEC)
    np.testing.assert_allclose(net(params, inputs), outputs, atol=5e-6)
    assert_own_inverse(table, convert.read(SAMPLES / name), SPEC)


def keras_mlp():
    layers = keras.layers
    one = layers.Dense(8, activation="relu", name="shared")
    inputs = keras.Input((4,))
    hidden = one(one(layers.Dense(8, activation="relu", name="hidden")(inputs)))
    return keras.Model(inputs, layers.Dense(1, name="output")(hidden))


@pytest.mark.parametrize(("name", "table"), [("mlp.h5", KERAS), ("mlp.weights.h5", KERAS_WEIGHTS)])
def test_keras_out(tmp_path, name, table):
    params = net.init(jax.random.key(0), X, {"**": I.normal(0.5)})  # biases too
    convert.write(tmp_path / name, table.inverse.apply(params))
    model = keras_mlp()
    model.load_weights(tmp_path / name)
    np.testing.assert_allclose(np.asarray(model(X)), net(params, X), atol=5e-6)
    assert_same_trees(KERAS.apply(model, like=SPEC), params)


def test_a_layer_that_is_tied_stays_in_its_place_among_the_others(tmp_path):
    """Keras assigns weights by the order of the layers in a file."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), *(layers.Dense(8) for _ in range(3)), layers.Dense(1)])
    params = net.init(jax.random.key(0), X, {"**": I.normal(0.5)})
    table = convert.Table({"layer_{0,1,2,3}/{kernel,bias}": "{0,2,4,6}/{kernel,bias}"})
    convert.write(tmp_path / "mlp.h5", table.inverse.apply(params))
    model.load_weights(tmp_path / "mlp.h5")
    for path, layer in zip(("0", "2", "4", "6"), model.layers):
        np.testing.assert_array_equal(np.asarray(layer.kernel.value), params[f"{path}/kernel"])


def test_tensorflow_in_and_out(tmp_path):
    sample = SAMPLES / "tensorflow_mlp"
    params = TENSORFLOW.apply(sample, like=PLAIN_SPEC)
    inputs, outputs = of_sample("tensorflow", "tensorflow_mlp")
    np.testing.assert_allclose(plain(params, inputs), outputs, atol=5e-6)
    source = convert.read(sample)
    assert_own_inverse(TENSORFLOW, source, PLAIN_SPEC)
    back = TENSORFLOW.inverse.apply(params, carried=TENSORFLOW.carried(sample))
    convert.write(tmp_path / "mlp", back, to="tensorflow")
    assert_same_arrays(convert.read(tmp_path / "mlp"), source)
