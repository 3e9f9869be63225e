"""The table of examples/06_to_other_software.py, which writes a trained network for PyTorch: the script that the example runs there."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from conversions import assert_own_inverse
from published_models import example

from ptree import initializers as I

for package in ("torch", "sklearn", "onnxruntime"):
    pytest.importorskip(package)


def test_what_the_example_writes_for_pytorch_gives_the_same_logits(tmp_path):
    digits = example("06_to_other_software")
    images = np.random.default_rng(0).uniform(size=(5, 8, 8, 1)).astype("float32")
    params = digits.net.init(jax.random.key(0), images, {"**/bias": I.normal(0.5), "**": I.lecun_normal()})
    digits.write_for_pytorch(params, tmp_path)
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", digits.IN_PYTORCH, str(tmp_path)], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "by_pytorch.npy"), digits.net(params, images), atol=1e-5)
    assert_own_inverse(digits.FROM_PYTORCH, digits.FROM_PYTORCH.inverse.apply(params), params)
