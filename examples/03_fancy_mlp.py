"""A model by hand, without layers: constant weights, one dense layer used twice, control flow on values.

Run it with `python examples/03_fancy_mlp.py`. A model is any pure function of a tree of parameters, and its
spec is a dict of `Param`. What is never trained is declared so, and is kept away from grad and the optimiser.
"""

import jax
import jax.numpy as jnp
import optax

import ptree as pt
from ptree import initializers as I

spec = {
    "constant": {"kernel": pt.Param((20, 20), init=I.uniform(), trainable=False)},
    "dense": {"kernel": pt.Param((20, 20), init=I.xavier_uniform()), "bias": pt.Param((20,), init=I.zeros)},
}


def dense(p: pt.Tree, x: jax.Array) -> jax.Array:
    return x @ p["kernel"] + p["bias"]


def hidden(params: pt.Tree, x: jax.Array) -> jax.Array:
    """f32[batch, 20] -> f32[batch, 20]"""
    x = dense(params["dense"], x)
    x = jax.nn.relu(x @ params["constant/kernel"] + 1)
    return dense(params["dense"], x)  # the same layer again: plain reuse, nothing to declare


def fancy_mlp(params: pt.Tree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f32[batch, 20] -> f32[], and how often the values were halved"""
    x = hidden(params, x)
    x, times = jax.lax.while_loop(
        lambda at: jnp.linalg.norm(at[0]) > 1, lambda at: (at[0] / 2, at[1] + 1), (x, jnp.int32(0))
    )
    x = jnp.where(jnp.linalg.norm(x) < 0.8, x * 10, x)
    return x.sum(), times


x = jax.random.uniform(jax.random.key(0), (2, 20))
params = pt.init(spec, jax.random.key(1))

print("the parameters, by path:")
for path, leaf in pt.items(params):
    print(f"  {path:16} {leaf.shape!s:9} first value {leaf.ravel()[0]: .4f}")
trainable = pt.mask(spec, lambda path, leaf: leaf.trainable)
print(pt.summary(params, trainable=trainable))
assert pt.paths(params) == ["constant/kernel", "dense/kernel", "dense/bias"]
assert pt.summary(spec).trainable == 420

y, times = jax.jit(fancy_mlp)(params, x)
norm = jnp.linalg.norm(hidden(params, x))
print(f"output {y:.4f}: the while loop halved values of the norm {norm:.2f} {times} times")
assert times == jnp.ceil(jnp.log2(norm)) > 0

# Train what is trainable. A while loop has no reverse mode, so the loss leaves the loop out.
trained, fixed = pt.partition(params, lambda path, leaf: pt.get(trainable, path))


def loss(trained: pt.Tree) -> jax.Array:
    return jnp.mean((hidden(pt.merge(trained, fixed), x) - 1.0) ** 2)


optimiser = optax.adam(1e-2)


@jax.jit
def step(trained: pt.Tree, state: optax.OptState):
    value, grads = jax.value_and_grad(loss)(trained)
    updates, state = optimiser.update(grads, state)
    return optax.apply_updates(trained, updates), state, value


state = optimiser.init(trained)
first = float(loss(trained))
for _ in range(400):
    trained, state, value = step(trained, state)
after = pt.merge(trained, fixed)
print(f"loss {first:.3f} -> {value:.6f}")
assert value < first / 20
assert after["constant/kernel"] is params["constant/kernel"], "constant weights are the same object after training"
assert not (after["dense/kernel"] == params["dense/kernel"]).all()
assert pt.paths(state, "**/mu/**") == ["0/mu/dense/kernel", "0/mu/dense/bias"], (
    "and the optimiser holds nothing for them"
)
print("the constant weights are untouched; the optimiser holds nothing for them")
