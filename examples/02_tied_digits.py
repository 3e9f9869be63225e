"""Train an MLP with a tied layer on real handwritten digits, save it, and use it in a new process.

Run it with `python examples/02_tied_digits.py`. The data are the 1,797 images of 8x8 pixels that ship with
scikit-learn. Layers 2 and 4 are one layer: its gradient is the sum over both uses, the optimiser has one
slot for it, the file holds it once, and the new process finds it tied.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import ptree as pt
from ptree import initializers as I
from ptree import nn

EPOCHS, BATCH = 30, 64
shared = nn.Dense(64)
net = nn.Sequential(nn.Dense(64), jax.nn.relu, shared, jax.nn.relu, shared, jax.nn.relu, nn.Dense(10))


def digits() -> list[Any]:
    """Training images f32[n, 64] in 0..1, test images, training labels i32[n], test labels; always the same split."""
    images, labels = load_digits(return_X_y=True)
    images, labels = images.astype("float32") / 16, labels.astype("int32")
    return train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)


@jax.jit
def predict(params: pt.Tree, x: jax.Array) -> jax.Array:
    return net(params, x).argmax(-1)


def loss(params: pt.Tree, x: jax.Array, y: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(net(params, x), y).mean()


optimiser = optax.adamw(2e-3)


@jax.jit
def step(params: pt.Tree, state: optax.OptState, x: jax.Array, y: jax.Array):
    value, grads = jax.value_and_grad(loss)(params, x, y)
    updates, state = optimiser.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value, jax.tree.map(jnp.linalg.norm, grads)


def norms(title: str, params: pt.Tree, grads: pt.Tree) -> str:
    lines = [title, f"  {'path':10}  {'parameter':>9}  {'gradient':>9}"]
    for path, leaf in pt.items(params):
        lines.append(f"  {path:10}  {jnp.linalg.norm(leaf):9.4f}  {grads[path]:9.5f}")
    return "\n".join(lines)


def train() -> tuple[pt.Tree, np.ndarray, float]:
    train_x, test_x, train_y, test_y = digits()
    params = net.init(jax.random.key(0), train_x[:1], {"**/kernel": I.kaiming_normal(), "**/bias": I.zeros})
    print(net)
    print(pt.summary(params))
    state = optimiser.init(params)
    order = np.random.default_rng(0)
    with tqdm(range(EPOCHS), desc="training", unit="epoch") as bar:
        for epoch in bar:
            shuffled = order.permutation(len(train_x))[: len(train_x) // BATCH * BATCH]
            for batch in shuffled.reshape(-1, BATCH):
                params, state, value, grads = step(params, state, train_x[batch], train_y[batch])
            bar.set_postfix(loss=f"{value:.4f}", refresh=False)
            if epoch % 10 == 0 or epoch == EPOCHS - 1:
                bar.write(norms(f"after epoch {epoch + 1}, loss {value:.4f}", params, grads))
    predictions = np.asarray(predict(params, test_x))
    return params, predictions, float((predictions == test_y).mean())


def evaluate(file: str) -> None:
    """In the new process: nothing but the file and the data."""
    _, test_x, _, test_y = digits()
    params = pt.load(file)
    assert params["4/kernel"] is params["2/kernel"], "the tie is in the file"
    predictions = np.asarray(predict(params, test_x))
    print(repr(float((predictions == test_y).mean())), *predictions)


def main() -> None:
    params, predictions, accuracy = train()
    print(f"test accuracy: {accuracy:.2%} of {len(predictions)} images")
    assert accuracy >= 0.95
    assert params["2/kernel"] is params["4/kernel"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "digits.safetensors"
        pt.save(file, params)
        print(f"saved {file.stat().st_size:,} bytes; a new process loads it")
        command = [sys.executable, __file__, "--evaluate", str(file)]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert float(words[0]) == accuracy, "identical accuracy"
    assert [int(word) for word in words[1:]] == predictions.tolist(), "identical predictions"
    print(f"the new process: {float(words[0]):.2%}, and all {len(predictions)} predictions are identical")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--evaluate", metavar="FILE", help="only load the file and predict")
    arguments = parser.parse_args()
    evaluate(arguments.evaluate) if arguments.evaluate else main()
