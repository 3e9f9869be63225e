"""Everything one does with parameters, section by section: access, initialisation, ties, keeping.

Run it with `python examples/01_parameters.py`. It prints what a person would look at, and asserts what it
claims. The sections are those of a textbook's chapters on parameter management and custom layers.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ptree as pt
from ptree import initializers as I
from ptree import nn


def section(title: str) -> None:
    print(f"\n{'=' * 78}\n{title}\n{'=' * 78}")


key = jax.random.key(1)
x = jax.random.uniform(jax.random.key(0), (2, 4))

section("1. A net, its parameters, and a forward pass")
net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))  # sizes of inputs are inferred
params = net.init(key, x)  # an immutable Tree
print(net)
print(params)
print("output:", net(params, x).tolist())
assert net(params, x).shape == (2, 1)

section("2. Access: one layer, one parameter, all of them")
print(params["2"])
print("bias:", params["2/bias"])
assert params["2/bias"] is params["2"]["bias"] is params[2]["bias"] is pt.get(params, "2/bias")
print("paths:", pt.paths(params))
print("kernels:", [(path, leaf.shape) for path, leaf in pt.items(params, "**/kernel")])
assert pt.paths(params) == list(pt.flatten(params)) == ["0/kernel", "0/bias", "2/kernel", "2/bias"]
grads = jax.grad(lambda p: net(p, x).sum())(params)  # a gradient has the same paths
print("gradient of 2/bias:", grads["2/bias"])
assert grads["2/bias"] == 2.0
try:
    params["2/bais"]
except pt.PathError as error:
    print("a typo:", error)
else:
    raise AssertionError("a typo must not pass")

section("3. Nested blocks, made by factories, with names")


def block1() -> nn.Sequential:
    return nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(4), jax.nn.relu)


def block2() -> nn.Sequential:
    return nn.Sequential({f"block {i}": block1() for i in range(4)})


rgnet = nn.Sequential(block2(), nn.Dense(1))
nested = rgnet.init(key, x)
print(rgnet)
print(pt.summary(nested))
assert pt.summary(nested).count == 309
assert nested["0/block 1/0/bias"] is nested[0]["block 1"][0]["bias"]
print("second block, first layer's bias:", nested["0/block 1/0/bias"])

section("4. Built-in initialisation, by rule")
params = net.init(key, x, {"**/kernel": I.normal(0.01), "**/bias": I.zeros})
print("normal(0.01):", params["0/kernel"][0])
assert not params["0/bias"].any()
assert 0 < params["0/kernel"].std() < 0.02
ones = pt.reinit(params, key, {"**/kernel": I.constant(1)})
assert (ones["0/kernel"] == 1).all()
assert ones["0/bias"] is params["0/bias"]  # what no rule matches is the same object
mixed = pt.reinit(params, key, {"0/kernel": I.xavier_uniform(), "2/kernel": I.constant(42)})
print("xavier_uniform():", mixed["0/kernel"][0])
print("constant(42):", mixed["2/kernel"].ravel())
assert abs(mixed["0/kernel"]).max() <= np.sqrt(6 / 12)
assert (mixed["2/kernel"] == 42).all()

section("5. Custom initialisation: any function of (key, shape, dtype)")


def strange(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    w = jax.random.uniform(key, shape, dtype, -10, 10)
    return w * (abs(w) >= 5)


odd = pt.reinit(params, key, {"**/kernel": strange})
print(odd["0/kernel"][:2])
assert all(((abs(leaf) >= 5) | (leaf == 0)).all() for _, leaf in pt.items(odd, "**/kernel"))
moved = pt.update(params, "0/kernel", lambda w: (w + 1).at[0, 0].set(42))  # or set values directly
print("set directly:", moved["0/kernel"][0])
assert moved["0/kernel"][0, 0] == 42
assert moved["0/kernel"][1, 1] == params["0/kernel"][1, 1] + 1

section("6. Adding a layer changes no other layer's values")
longer = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1), nn.Dense(3)).init(key, x)
assert (longer["0/kernel"] == net.init(key, x)["0/kernel"]).all()
print("layer 0 has the same values in the longer net")

section("7. Tied parameters: one leaf, two names")
shared = nn.Dense(8)
net = nn.Sequential(nn.Dense(8), jax.nn.relu, shared, jax.nn.relu, shared, jax.nn.relu, nn.Dense(1))
params = net.init(key, x)
print(net)
print(pt.summary(params))
assert params["2/kernel"] is params["4/kernel"]
params = pt.update(params, "2/kernel", lambda w: w.at[0, 0].set(100))
assert params["4/kernel"][0, 0] == 100
grads = jax.grad(lambda p: net(p, x).sum())(params)
apart = jax.grad(lambda p: net(p, x).sum())(pt.untie(params))
difference = abs(grads["2/kernel"] - (apart["2/kernel"] + apart["4/kernel"])).max()
print("its gradient is the sum over both uses; largest difference:", float(difference))
assert difference <= 1e-4 * abs(grads["2/kernel"]).max()
assert len(jax.tree.leaves(params)) == 6

section("8. Keeping: one file, ties included")
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "mlp.safetensors"
    pt.save(file, params)
    loaded = pt.load(file)
    print(f"{file.stat().st_size} bytes;", "equal:", loaded == params)
    assert loaded == params
    assert loaded["4/kernel"] is loaded["2/kernel"]
    try:
        pt.load(file, like=longer)
    except pt.StructureError as error:
        print("into another model:", str(error).replace(str(file), file.name))
    else:
        raise AssertionError("another model's parameters must not load")

section("9. The same functions on any pytree")
plain = {"encoder": {"layers": [{"w": jnp.ones(2)}, {"w": jnp.ones(3)}]}}
print(pt.paths(plain), "->", pt.update(plain, "**/0/w", lambda w: w * 2))
assert pt.get(plain, "encoder/layers/1/w").shape == (3,)

print("\nAll of the chapter's claims hold.")
