"""fer's network, which reads emotions off faces, from the hdf5 file of Keras 2.0.5, beside Keras 3 that runs it: outputs, both ways.

Its convolutions are separable, and each array's name has its layer's name twice, so the table is made of the layers' names.
"""

import functools
import json
import shutil

import h5py
import jax
import keras
import numpy as np
import pytest
from conversions import assert_own_inverse, assert_same_trees
from published_models import file_of

import ptree as pt
from ptree import convert, nn
from ptree.convert import carry, depthwise

FILE = file_of("fer", "data/emotion_model.hdf5")
STEM, WIDTHS = 8, (16, 32, 64, 128)


def norm():
    return nn.BatchNorm(epsilon=1e-3)  # Keras' default


def separable(features_in, features):
    depth = nn.Conv(features_in, (3, 3), groups=features_in, use_bias=False)
    return nn.Sequential({"depth": depth, "point": nn.Conv(features, (1, 1), use_bias=False)})


def block(features_in, features):
    """Two separable convolutions beside a strided one, added up (Arriaga et al. 2017, mini-Xception)."""
    main = {
        "first": separable(features_in, features),
        "first_norm": norm(),
        "relu": jax.nn.relu,
        "second": separable(features, features),
        "second_norm": norm(),
        "pool": nn.MaxPool((3, 3), 2, padding="SAME"),
    }
    shortcut = {"conv": nn.Conv(features, (1, 1), stride=2, use_bias=False), "norm": norm()}
    return nn.Parallel({"main": nn.Sequential(main), "shortcut": nn.Sequential(shortcut)})


def network():
    layers = {}
    for at in range(2):
        layers[f"stem_{at}"] = nn.Conv(STEM, (3, 3), padding="VALID", use_bias=False)
        layers[f"stem_norm_{at}"] = norm()
        layers[f"relu_{at}"] = jax.nn.relu
    for at, (features_in, features) in enumerate(zip((STEM, *WIDTHS), WIDTHS)):
        layers[f"block_{at}"] = block(features_in, features)
    layers["emotions"] = nn.Conv(7, (3, 3))
    layers["mean"] = lambda x: x.mean((1, 2))
    layers["softmax"] = jax.nn.softmax
    return nn.Sequential(layers)


run = jax.jit(network())


def places():
    """The layers' names in the file, by kind -> the paths of their parameters here."""
    convolutions, separables, norms = {}, {}, {}
    for at in range(2):
        convolutions[f"conv2d_{at + 1}"] = f"stem_{at}"
        norms[f"batch_normalization_{at + 1}"] = f"stem_norm_{at}"
    for at in range(4):
        path = f"block_{at}"
        convolutions[f"conv2d_{at + 3}"] = f"{path}/shortcut/conv"
        separables[f"separable_conv2d_{2 * at + 1}"] = f"{path}/main/first"
        separables[f"separable_conv2d_{2 * at + 2}"] = f"{path}/main/second"
        norms[f"batch_normalization_{3 * at + 3}"] = f"{path}/shortcut/norm"
        norms[f"batch_normalization_{3 * at + 4}"] = f"{path}/main/first_norm"
        norms[f"batch_normalization_{3 * at + 5}"] = f"{path}/main/second_norm"
    convolutions["conv2d_7"] = "emotions"
    return convolutions, separables, norms


def table_of(name_of):
    """The table of the network, in which `name_of(layer)` is how the names of a layer's arrays begin."""
    convolutions, separables, norms = places()
    rows = []
    for layer, path in convolutions.items():
        rows.append((f"{name_of(layer)}/kernel", f"{path}/kernel"))
    for layer, path in separables.items():
        rows.append((f"{name_of(layer)}/depthwise_kernel", (f"{path}/depth/kernel", depthwise(1))))
        rows.append((f"{name_of(layer)}/pointwise_kernel", f"{path}/point/kernel"))
    for layer, path in norms.items():
        rows.append((f"{name_of(layer)}/{{gamma,beta,moving_mean,moving_variance}}", f"{path}/{{scale,bias,mean,var}}"))
    rows.append((f"{name_of('conv2d_7')}/bias", "emotions/bias"))
    return convert.Table(rows)


OF_FILE = table_of(lambda layer: f"{layer}/{layer}_1") | convert.Table(
    {"optimizer/**": carry}
)  # conv2d_1/conv2d_1_1/kernel
OF_MODEL = table_of(lambda layer: layer)  # the paths of variables in Keras 3


@functools.cache
def spec():
    return network().spec(jax.ShapeDtypeStruct((1, 64, 64, 1), "float32"))


def from_zeros(config):
    """A configuration in which weights start as zeros: that they are drawn, and overwritten, would take most of the time."""
    if isinstance(config, list):
        return [from_zeros(part) for part in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "VarianceScaling":
        return {"class_name": "Zeros", "config": {}}
    return {name: from_zeros(part) for name, part in config.items()}


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    path = tmp_path_factory.mktemp("fer") / "emotions.h5"
    shutil.copy(FILE, path)
    with h5py.File(path, "r+") as file:
        file.attrs["model_config"] = json.dumps(from_zeros(json.loads(file.attrs["model_config"])))
    return keras.models.load_model(path, compile=False)


def outputs_of(peer, images):
    return peer.predict(images, verbose=0)


@pytest.fixture(scope="module")
def images():
    """Blobs of light in the range of the network's inputs, f32[6, 64, 64, 1]."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64]
    made = [sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 80) for a, b in draw.uniform(0, 64, (5, 2))) for _ in range(6)]
    return np.clip(np.stack(made), 0, 1).astype("float32")[..., None] * 2 - 1


def test_outputs_are_those_of_keras(peer, images):
    params = OF_FILE.apply(FILE, like=spec())
    assert pt.count(params) == peer.count_params()
    ours, theirs = run(params, images), outputs_of(peer, images)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert len({*theirs.argmax(-1)}) > 1  # the images are not all the same to it


def test_the_file_and_the_model_in_memory_give_the_same(peer):
    assert_same_trees(OF_MODEL.apply(peer, like=spec()), OF_FILE.apply(FILE, like=spec()))


def test_the_tables_are_their_own_inverses(peer):
    assert_own_inverse(OF_FILE, convert.read(FILE), spec())
    assert_own_inverse(OF_MODEL, {variable.path: np.asarray(variable.value) for variable in peer.variables}, spec())


def test_written_back_into_a_file_keras_runs_it(peer, images, tmp_path):
    params = OF_FILE.apply(FILE, like=spec())
    trained = pt.update(params, "**/bias", lambda bias: bias + 0.05)
    path = tmp_path / "emotions.h5"
    convert.write(path, OF_FILE.inverse.apply(trained, carried={}), template=FILE)
    try:
        peer.load_weights(path)
        theirs = outputs_of(peer, images)
    finally:
        peer.load_weights(FILE)
    np.testing.assert_allclose(run(trained, images), theirs, atol=1e-6)
    assert np.abs(theirs - run(params, images)).max() > 1e-2


def test_a_depthwise_kernel_with_another_multiplier_is_refused():
    name = "separable_conv2d_1/separable_conv2d_1_1/depthwise_kernel"
    with pytest.raises(
        pt.StructureError, match=r"depthwise\(1\) needs this size at the end, and the shape is \[3, 3, 8, 2\]"
    ):
        OF_FILE.apply({name: np.zeros((3, 3, 8, 2), "float32")})
