"""A training run that is killed twice and goes on, to the very same bits as one that never was.

Run it with `python examples/08_resume.py`. The state is all that training depends on: parameters, the optimiser's
moments, the PRNG key of dropout and of the batches. It is saved in the background, and each time whole or not at all.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import ptree as pt
from ptree import nn

State = dict[str, Any]
LAST = 300
net = nn.Sequential(nn.Dense(32), jax.nn.relu, nn.Dropout(0.2), nn.Dense(10))
optimiser = optax.adam(3e-3)
digits: Any = load_digits()
images, labels = jnp.asarray(digits.data / 16, "float32"), jnp.asarray(digits.target)


def loss(params: pt.Tree, batch: jax.Array, key: jax.Array) -> jax.Array:
    logits = net(params, images[batch], train=True, key=key)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()


@jax.jit
def train(state: State) -> State:
    key, chosen, noise = jax.random.split(state["key"], 3)
    grads = jax.grad(loss)(state["params"], jax.random.choice(chosen, len(labels), (64,)), noise)
    updates, moments = optimiser.update(grads, state["moments"])
    return {"params": optax.apply_updates(state["params"], updates), "moments": moments, "key": key}


def run(folder: Path, killed_at: int = -1) -> State:
    """Train to the last step, from the newest one that is in the folder."""
    params = net.init(jax.random.key(0), images[:1])
    state: State = {"params": params, "moments": optimiser.init(params), "key": jax.random.key(1)}
    with pt.Checkpoints(folder, keep=2, every=20) as checkpoints:
        step, state = checkpoints.load(like=state) if checkpoints.steps() else (0, state)
        print(f"from step {step}", flush=True)
        while step < LAST:
            state, step = train(state), step + 1
            checkpoints.save(step, state)
            if step == killed_at:
                signal.raise_signal(signal.SIGKILL)
    return state


if __name__ == "__main__":
    if len(sys.argv) > 1:  # a process that is to be killed
        run(Path(sys.argv[1]), int(sys.argv[2]))
    with tempfile.TemporaryDirectory() as place:
        for killed_at in (131, 222):
            subprocess.run([sys.executable, __file__, f"{place}/killed", str(killed_at)])
        resumed, whole = run(Path(place, "killed")), run(Path(place, "whole"))
        print(sorted(file.name for file in Path(place, "killed").iterdir()))
    assert all((a == b).all() for (_, a), (_, b) in zip(pt.items(resumed), pt.items(whole), strict=True))
    accuracy = float((net(resumed["params"], images).argmax(1) == labels).mean())
    print(f"killed at steps 131 and 222, and the same in every bit: {accuracy:.1%} of the digits")
