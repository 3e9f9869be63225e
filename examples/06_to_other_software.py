"""Train a network on real handwritten digits, and run it in ONNX Runtime, in a process without ptree, and in PyTorch.

Run it with `python examples/06_to_other_software.py`. The weights are saved once, in `digits.safetensors`: the ONNX file and the
program for JAX (StableHLO) are a few kilobytes each and read their weights from there. PyTorch gets a file of its own, with its names
and layouts, by the inverse of the table that would convert its file to ours; where PyTorch is installed it is run.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ptree as pt
from ptree import convert, nn
from ptree.convert import conv, flatten_order, linear

EPOCHS, BATCH = 20, 64
net = nn.Sequential(
    nn.Conv(16, (3, 3)), jax.nn.relu, nn.MaxPool((2, 2)), nn.Flatten(), nn.Dense(64), jax.nn.relu, nn.Dense(10)
)

# ------------------------------------------------------------------------------- training


def digits() -> list[Any]:
    """Training images f32[n, 8, 8, 1] in 0..1, test images, training labels i32[n], test labels."""
    images, labels = load_digits(return_X_y=True)
    images = images.astype("float32").reshape(-1, 8, 8, 1) / 16
    return train_test_split(images, labels.astype("int32"), test_size=0.2, random_state=0, stratify=labels)


optimiser = optax.adam(3e-3)


@jax.jit
def step(params: pt.Tree, state: optax.OptState, x: jax.Array, y: jax.Array):
    def loss(params: pt.Tree) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(net(params, x), y).mean()

    updates, state = optimiser.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state


def train(images: np.ndarray, labels: np.ndarray) -> pt.Tree:
    params = net.init(jax.random.key(0), images[:1])
    state = optimiser.init(params)
    order = np.random.default_rng(0)
    for _ in range(EPOCHS):
        shuffled = order.permutation(len(images))[: len(images) // BATCH * BATCH]
        for batch in shuffled.reshape(-1, BATCH):
            params, state = step(params, state, images[batch], labels[batch])
    return params


# ------------------------------------------------------------------------------- in ONNX Runtime


def logits_by_onnx(params: pt.Tree, images: np.ndarray, folder: Path) -> np.ndarray:
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, 8, 8, 1), "float32")
    print(convert.to_onnx(net, params, x, path=folder / "digits.onnx", weights=folder / "digits.safetensors"))
    session = onnxruntime.InferenceSession(folder / "digits.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(logits)


# ------------------------------------------------------------------------------- in a process without ptree

WITHOUT_PTREE = """
import sys
from pathlib import Path
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder = Path(sys.argv[1])
program = export.deserialize(bytearray((folder / "digits.stablehlo").read_bytes()))
weights = load_file(folder / "digits.safetensors")
np.save(folder / "by_jax.npy", program.call(weights, np.load(folder / "images.npy")))
assert "ptree" not in sys.modules
"""


def logits_without_ptree(params: pt.Tree, images: np.ndarray, folder: Path) -> np.ndarray:
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, 8, 8, 1), "float32")
    print(convert.to_stablehlo(net, params, x, path=folder / "digits.stablehlo", weights=folder / "digits.safetensors"))
    subprocess.run([sys.executable, "-c", WITHOUT_PTREE, str(folder)], check=True)
    return np.load(folder / "by_jax.npy")


# ------------------------------------------------------------------------------- in PyTorch

# From PyTorch's names to ours. Its images are (channels, height, width), so its flattened features come in another order.
FROM_PYTORCH = convert.Table(
    {
        "0.weight": ("0/kernel", conv),
        "4.weight": ("4/kernel", linear >> flatten_order((16, 4, 4), (1, 2, 0))),
        "6.weight": ("6/kernel", linear),
        "{0,4,6}.bias": "{0,4,6}/bias",
    }
)

IN_PYTORCH = """
import sys
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file

folder = Path(sys.argv[1])
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten(),
    torch.nn.Linear(256, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10),
)
net.load_state_dict(load_file(folder / "digits_pytorch.safetensors"), strict=True)
images = torch.tensor(np.load(folder / "images.npy")).permute(0, 3, 1, 2)
np.save(folder / "by_pytorch.npy", net(images).detach().numpy())
"""


def write_for_pytorch(params: pt.Tree, folder: Path) -> None:
    convert.write(folder / "digits_pytorch.safetensors", FROM_PYTORCH.inverse.apply(params))


def logits_by_pytorch(params: pt.Tree, folder: Path) -> np.ndarray:
    print(FROM_PYTORCH.inverse.plan(params))
    write_for_pytorch(params, folder)
    subprocess.run([sys.executable, "-c", IN_PYTORCH, str(folder)], check=True)
    return np.load(folder / "by_pytorch.npy")


def main() -> None:
    train_images, images, train_labels, labels = digits()
    params = train(train_images, train_labels)
    ours = np.asarray(net(params, images))
    accuracy = (ours.argmax(-1) == labels).mean()
    print(f"here: {accuracy:.1%} of {len(labels)} test images are read right")
    assert accuracy > 0.95

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        pt.save(folder / "digits.safetensors", params)
        np.save(folder / "images.npy", images)
        theirs = {
            "ONNX Runtime": logits_by_onnx(params, images, folder),
            "JAX without ptree": logits_without_ptree(params, images, folder),
        }
        if importlib.util.find_spec("torch"):
            theirs["PyTorch"] = logits_by_pytorch(params, folder)
        sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.suffix != ".npy"}

    for name, size in sorted(sizes.items()):
        print(f"{name:28} {size:9,} bytes")
    for name, logits in theirs.items():
        print(f"{name:18} the largest difference of {logits.size:,} logits is {np.abs(logits - ours).max():.1e}")
    assert all(np.allclose(logits, ours, atol=1e-4) for logits in theirs.values())


if __name__ == "__main__":
    main()
