"""One session with everything that a person does with parameters, in the words that a person would use."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import ptree as pt
from ptree import initializers as I
from ptree import nn


def test_the_whole_session(tmp_path, capsys):
    key = jax.random.key(7)
    net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(1))
    x = jax.random.uniform(jax.random.key(0), (2, 4))
    params = net.init(jax.random.key(1), x)
    assert net(params, x).shape == (2, 1)

    # access
    assert list(params["2"]) == ["kernel", "bias"]
    assert isinstance(params["2/bias"], jax.Array)
    assert params["2"]["bias"] is params["2/bias"] is params[2]["bias"] is pt.get(params, "2/bias")
    assert pt.paths(params) == list(pt.flatten(params)) == ["0/kernel", "0/bias", "2/kernel", "2/bias"]
    assert [(path, leaf.shape) for path, leaf in pt.items(params, "**/kernel")] == [
        ("0/kernel", (4, 8)),
        ("2/kernel", (8, 1)),
    ]
    grads = jax.grad(lambda p: net(p, x).sum())(params)
    assert grads["2/bias"] == 2

    # nested blocks, made by factories, with names
    def block1():
        return nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(4), jax.nn.relu)

    def block2():
        return nn.Sequential({f"block {i}": block1() for i in range(4)})

    rgnet = nn.Sequential(block2(), nn.Dense(1))
    print(rgnet)
    p = rgnet.init(key, x)
    print(pt.summary(p))
    shown = capsys.readouterr().out
    assert "    block 1: Sequential(\n      0: Dense(8)\n" in shown
    assert "309 parameters, 1.2 KiB, 18 leaves" in shown
    assert p["0/block 1/0/bias"] is p[0]["block 1"][0]["bias"]

    # initialisers: by rule, when first drawn or again later
    drawn = net.init(key, x, {"**/kernel": I.normal(0.01), "**/bias": I.zeros})
    assert 0 < abs(drawn["0/kernel"]).max() < 0.06
    assert not drawn["0/bias"].any()
    assert (pt.reinit(params, key, {"**/kernel": I.constant(1)})["0/kernel"] == 1).all()
    mixed = pt.reinit(params, key, {"0/kernel": I.xavier_uniform(), "2/kernel": I.constant(42)})
    assert abs(mixed["0/kernel"]).max() <= np.sqrt(6 / 12)
    assert (mixed["2/kernel"] == 42).all()

    def strange(key, shape, dtype):
        w = jax.random.uniform(key, shape, dtype, -10, 10)
        return w * (abs(w) >= 5)

    odd = pt.reinit(params, key, {"**/kernel": strange})["0/kernel"]
    assert ((odd == 0) | (abs(odd) >= 5)).all()
    assert (odd == 0).any()
    direct = pt.update(params, "0/kernel", lambda w: (w + 1).at[0, 0].set(42))
    assert direct["0/kernel"][0, 0] == 42

    # ties
    shared = nn.Dense(8)
    net = nn.Sequential(nn.Dense(8), jax.nn.relu, shared, jax.nn.relu, shared, jax.nn.relu, nn.Dense(1))
    params = net.init(key, x)
    assert params["2/kernel"] is params["4/kernel"]
    params = pt.update(params, "2/kernel", lambda w: w.at[0, 0].set(100))
    assert params["4/kernel"][0, 0] == 100
    tied = jax.grad(lambda p: net(p, x).sum())(params)
    apart = jax.grad(lambda p: net(p, x).sum())(pt.untie(params))
    np.testing.assert_allclose(tied["2/kernel"], apart["2/kernel"] + apart["4/kernel"], rtol=1e-5, atol=1e-4)
    assert len(jax.tree.leaves(tied)) == 6

    # keep; in a fresh process: equal, still tied
    file = tmp_path / "mlp.safetensors"
    pt.save(file, params)
    assert pt.load(file) == params
    code = (
        "import sys, ptree as pt; p = pt.load(sys.argv[1]); assert p['4/kernel'] is p['2/kernel']\n"
        "print(*(leaf.tobytes().hex() for leaf in map(__import__('numpy').asarray, __import__('jax').tree.leaves(p))))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True).stdout
    assert out.split() == [np.asarray(leaf).tobytes().hex() for leaf in jax.tree.leaves(params)]
    assert jnp.array_equal(net(pt.load(file), x), net(params, x))
