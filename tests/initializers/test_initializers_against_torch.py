"""Each initialiser, and each preset, beside what PyTorch itself draws."""

import jax
import numpy as np
import pytest

import ptree as pt
from ptree import initializers as I

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (I.normal(0.01), lambda w: torch.nn.init.normal_(w, 0, 0.01)),
        (I.uniform(-0.2, 0.1), lambda w: torch.nn.init.uniform_(w, -0.2, 0.1)),
        (I.truncated_normal(0.5), lambda w: torch.nn.init.trunc_normal_(w, 0, 0.5, -1, 1)),
        (I.xavier_uniform(), torch.nn.init.xavier_uniform_),
        (I.xavier_normal(), torch.nn.init.xavier_normal_),
        (I.kaiming_uniform(), lambda w: torch.nn.init.kaiming_uniform_(w, nonlinearity="relu")),
        (I.kaiming_normal(), lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="relu")),
        (I.orthogonal(), torch.nn.init.orthogonal_),
        (I.constant(42), lambda w: torch.nn.init.constant_(w, 42)),
        (I.zeros, torch.nn.init.zeros_),
        (I.ones, torch.nn.init.ones_),
        (I.identity(), torch.nn.init.eye_),
    ],
    ids=lambda value: repr(value) if isinstance(value, I.Recipe) else "",
)
@pytest.mark.parametrize("shape", [(400, 600), (600, 250)], ids=str)
def test_initialisers_have_the_mean_spread_and_range_of_torchs(ours, theirs, shape):
    torch.manual_seed(0)
    w = np.asarray(ours(jax.random.key(0), shape))
    peer = theirs(torch.empty(shape[::-1])).numpy()  # torch's kernels are (out, in)
    assert w.std() == pytest.approx(peer.std(), rel=0.02, abs=1e-9)
    assert w.mean() == pytest.approx(peer.mean(), abs=8 * peer.std() / np.sqrt(peer.size) + 1e-9)
    cut_at_two = any(name in repr(ours) for name in ("xavier_normal", "kaiming_normal", "orthogonal"))
    if not cut_at_two and "normal(" not in repr(ours).replace("truncated_normal(", ""):
        assert w.min() == pytest.approx(peer.min(), rel=0.01, abs=1e-3)
        assert w.max() == pytest.approx(peer.max(), rel=0.01, abs=1e-3)


def torch_draw(make, *axes):
    torch.manual_seed(0)
    with torch.no_grad():
        return make().detach().numpy().transpose(axes) if axes else make().detach().numpy()


def filled(function, *shape):
    return lambda: function(torch.empty(*shape))


@pytest.mark.parametrize(
    ("init", "theirs"),
    [
        (I.torch_linear, torch_draw(lambda: torch.nn.Linear(300, 200).weight, 1, 0)),
        (I.torch_conv, torch_draw(lambda: torch.nn.Conv2d(32, 128, 3).weight, 2, 3, 1, 0)),
        (I.torch_conv, torch_draw(lambda: torch.nn.Conv2d(64, 256, 3, groups=4).weight, 2, 3, 1, 0)),
        (I.torch_conv(in_axis=-1, out_axis=-2), torch_draw(lambda: torch.nn.ConvTranspose2d(64, 96, 3).weight, 2, 3, 0, 1)),
        (I.torch_embedding, torch_draw(lambda: torch.nn.Embedding(1000, 64).weight)),
        (I.xavier_uniform(gain=2.0), torch_draw(filled(lambda w: torch.nn.init.xavier_uniform_(w, 2.0), 200, 300), 1, 0)),
        (I.kaiming_uniform(0.3, "fan_out"), torch_draw(filled(lambda w: torch.nn.init.kaiming_uniform_(w, 0.3, "fan_out"), 200, 300), 1, 0)),
        (I.variance_scaling(2.0, "fan_in", "normal"), torch_draw(filled(torch.nn.init.kaiming_normal_, 200, 300), 1, 0)),
        (I.truncated_normal(0.5), torch_draw(filled(lambda w: torch.nn.init.trunc_normal_(w, 0, 0.5, -1, 1), 200, 300), 1, 0)),
        (I.sparse(0.3, 0.1), torch_draw(filled(lambda w: torch.nn.init.sparse_(w, 0.3, 0.1), 200, 300), 1, 0)),
    ],
    ids=repr,
)  # fmt: skip
def test_draws_have_the_distribution_of_pytorchs_own(init, theirs):
    from scipy.stats import ks_2samp

    ours = np.asarray(pt.init({"w": pt.Param(theirs.shape, init=init)}, jax.random.key(2))["w"])
    assert ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-3
    assert ks_2samp(ours.ravel() * 1.05, theirs.ravel()).pvalue < 1e-3 or "sparse" in repr(init)  # it would notice
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)


def test_structured_initialisers_are_pytorchs():
    for groups in (1, 2):
        theirs = torch_draw(filled(lambda w, g=groups: torch.nn.init.dirac_(w, g), 6, 4, 3, 5), 2, 3, 1, 0)
        np.testing.assert_array_equal(I.dirac(groups)(None, theirs.shape), theirs)
    zeros = (torch_draw(filled(lambda w: torch.nn.init.sparse_(w, 0.3), 10, 7), 1, 0) == 0).sum(1)
    assert ((np.asarray(I.sparse(0.3)(jax.random.key(0), (7, 10))) == 0).sum(1) == zeros).all()
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert I.gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
