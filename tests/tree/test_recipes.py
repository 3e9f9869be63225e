"""The guide's line for each library: it is run, on tied parameters; for those that are not installed, on their call form."""

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import arange, equal

import ptree as pt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox as eqx
    import haiku as hk
    from flax import linen, nnx, serialization, traverse_util
    from flax.core import freeze
    from flax.training.train_state import TrainState

GUIDE = (Path(__file__).parents[2] / "examples" / "guides" / "interop.md").read_text()
TABLE = GUIDE[GUIDE.index("| for | the line |") :].split("\n\n")[0]
LINES = dict(re.findall(r"^\| (.*?) \| `(.*?)`.*? \|$", TABLE, flags=re.MULTILINE))
X = jnp.ones((2, 3))


def line(library):
    """The code that the guide gives for a library."""
    found = [code for name, code in LINES.items() if name.startswith(library)]
    assert len(found) == 1, (library, [*LINES])
    return found[0]


def run(library, **names):
    return eval(line(library), {"pt": pt, "jnp": jnp, "json": json, "X": X, "x": X, **names})


def test_each_line_of_the_table_is_tried_here():
    assert len(LINES) == TABLE.count("\n") - 1
    tried = (
        "linen",
        "nnx",
        "Haiku",
        "Equinox",
        "`flax.serialization`",
        "`flax.traverse_util`",
        "what `optax.tree.get",
        "clu",
        "wandb",
        "json",
        "... and back",
    )
    assert len(LINES) == len(tried)
    assert all(line(name) for name in tried)


class TwoDense(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(jnp.tanh(linen.Dense(3)(x)))


def test_linen():
    module = TwoDense()
    params = pt.tie(module.init(jax.random.key(0), X)["params"], {"Dense_1": "Dense_0"})
    by_hand = (
        jnp.tanh(X @ params["Dense_0/kernel"] + params["Dense_0/bias"]) @ params["Dense_0/kernel"]
        + params["Dense_0/bias"]
    )
    np.testing.assert_allclose(run("linen", module=module, params=params), by_hand, rtol=1e-5)
    grads = jax.grad(lambda params: run("linen", module=module, params=params).sum())(params)
    assert pt.ties(grads) == pt.ties(params)
    with pytest.raises(Exception, match="should be a dictionary of collections"):  # what linen says of a Tree
        module.apply({"params": params}, X)


class TwoLinear(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.b(jnp.tanh(self.a(x)))


def test_nnx():
    graphdef, state = nnx.split(TwoLinear(nnx.Rngs(0)))
    for given in (state, nnx.to_pure_dict(state)):
        model = run("nnx", nnx=nnx, graphdef=graphdef, state=given, table={"b": "a"})
        first = nnx.to_pure_dict(state)["a"]
        by_hand = jnp.tanh(X @ first["kernel"] + first["bias"]) @ first["kernel"] + first["bias"]
        np.testing.assert_allclose(model(X), by_hand, rtol=1e-5)
    tied = pt.tie(state, {"b": "a"})
    grads = jax.grad(lambda tied: nnx.merge(graphdef, pt.asdict(tied))(X).sum())(tied)
    assert pt.ties(grads) == {"b/bias": "a/bias", "b/kernel": "a/kernel"}
    with pytest.raises(ValueError, match="Incorrect number of leaves"):  # what nnx says of a Tree
        nnx.merge(graphdef, tied)


def test_haiku():
    net = hk.transform(lambda x: hk.nets.MLP([3, 3], activation=jnp.tanh)(x))
    rng = jax.random.PRNGKey(0)
    haiku_params = net.init(rng, X)
    params = pt.tie(haiku_params, {"mlp/~/linear_1": "mlp/~/linear_0"})
    out = run("Haiku", net=net, params=params, haiku_params=haiku_params, rng=rng)
    first = haiku_params["mlp/~/linear_0"]
    np.testing.assert_allclose(out, jnp.tanh(X @ first["w"] + first["b"]) @ first["w"] + first["b"], rtol=1e-5)
    shapes = jax.eval_shape(net.init, rng, X)
    np.testing.assert_array_equal(run("Haiku", net=net, params=params, haiku_params=shapes, rng=rng), out)
    with pytest.raises(ValueError, match="Unable to retrieve parameter"):  # what Haiku says of a Tree
        net.apply(params, rng, X)


def test_equinox():
    model = eqx.nn.MLP(3, 3, 3, 2, activation=jnp.tanh, key=jax.random.key(0))
    arrays, static = eqx.partition(model, eqx.is_array)
    tied = pt.tie(pt.flatten(arrays), {"layers/2": "layers/1"})
    again = run("Equinox", eqx=eqx, tied=tied, arrays=arrays, static=static)
    assert type(again) is eqx.nn.MLP
    assert again.layers[2].weight is again.layers[1].weight
    grads = jax.grad(lambda tied: jax.vmap(run("Equinox", eqx=eqx, tied=tied, arrays=arrays, static=static))(X).sum())(
        tied
    )
    w, v = (arrays.layers[at].weight for at in (0, 1))
    b, c = (arrays.layers[at].bias for at in (0, 1))
    by_hand = jax.grad(lambda v: (jnp.tanh(jnp.tanh(X @ w.T + b) @ v.T + c) @ v.T + c).sum())(v)
    np.testing.assert_allclose(grads["layers/2/weight"], by_hand, rtol=1e-5)


# -------------------------------------------------------------------------- flax.serialization


def lm():
    whole = {"embed": {"table": arange(5, 3)}, "head": {"kernel": arange(3, 5), "bias": jnp.ones(5, jnp.bfloat16)}}
    return pt.tie(whole, {"head/kernel": pt.transposed("embed/table")})


STATES = {
    "tied, transposed": lm(),
    "tied nodes": pt.tie({"a": {"w": arange(2)}, "b": {"w": arange(2)}, "c": {"w": arange(2), "v": arange(3)}}, {"b": "a", "c/w": "a/w"}),
    "stacked": pt.stacks.stack(pt.Tree({"blocks": [{"w": arange(2)}] * 3, "n": arange(1)}), "blocks"),
    "other containers": pt.Tree({"a": 1, "l": 2.5, "n": None}) | {"state": pt.unflatten({"x": arange(2)}, like=freeze({"x": 0}))},
    "empty nodes": pt.Tree({"a": {}, "b": {"c": {}, "w": arange(2)}}),
    "empty": pt.Tree(),
}  # fmt: skip


@pytest.mark.parametrize("params", STATES.values(), ids=STATES)
def test_flax_serialization_keeps_ties(params):
    assert equal(
        jax.tree.map(jnp.asarray, run("`flax.serialization`", serialization=serialization, params=params)),
        jax.tree.map(jnp.asarray, params),
    )
    zeros = jax.tree.map(lambda leaf: leaf * 0, params)
    again = serialization.from_bytes(zeros, serialization.to_bytes(params))
    assert pt.ties(again) == pt.ties(params)
    assert jax.tree.map(jnp.asarray, again) == jax.tree.map(jnp.asarray, params)
    restored = serialization.msgpack_restore(serialization.to_bytes(params))
    assert len(jax.tree.leaves(restored)) == len(jax.tree.leaves(params))  # a tied leaf once


def test_a_train_state_with_tied_parameters_goes_through_flax():
    params = lm()
    state = TrainState.create(apply_fn=None, params=params, tx=optax.adamw(1e-2))
    state = state.apply_gradients(grads=jax.tree.map(jnp.ones_like, params))
    fresh = TrainState.create(apply_fn=None, params=params, tx=state.tx)
    again = serialization.from_bytes(fresh, serialization.to_bytes(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True))
    shapes = jax.eval_shape(lambda: params)
    assert pt.ties(serialization.from_bytes(shapes, serialization.to_bytes(params))) == pt.ties(params)


def test_a_state_dict_with_every_name_is_read_if_the_names_agree():
    params = lm()
    assert serialization.from_bytes(params, serialization.to_bytes(pt.asdict(params))) == params
    other = pt.asdict(pt.put(params, "head/kernel", jnp.zeros((3, 5))))
    with pytest.raises(
        pt.StructureError, match=r"'head/kernel' is tied to 'transposed\(embed/table\)', and their values differ"
    ):
        serialization.from_state_dict(params, serialization.to_state_dict(other))


def test_all_that_does_not_fit_a_state_dict_is_told_at_once():
    state = {"embed": {"table": arange(5, 4), "more": arange(1)}, "head": {"kernel": arange(3, 5)}, "x": {"y": 1}}
    with pytest.raises(pt.StructureError) as raised:
        serialization.from_state_dict(lm(), state)
    assert str(raised.value).splitlines() == [
        "cannot restore the Tree from the state dict:",
        "  missing in the state dict: ['head/bias']",
        "  'embed/table': expected f32[5,3], got f32[5,4]",
        "  unexpected in the state dict: ['embed/more', 'x']",
        "  'head/kernel' is tied to 'transposed(embed/table)', and their values differ",
    ]
    with pytest.raises(pt.StructureError, match=r"'head/bias': expected bf16\[5\], got f32\[5\]"):
        serialization.from_state_dict(lm(), {"embed": {"table": arange(5, 3)}, "head": {"bias": arange(5)}})
    with pytest.raises(pt.StructureError, match="missing in the state dict"):
        serialization.from_state_dict(lm(), {"embed": 3})


ORDERS = {
    "Flax first": "import flax, ptree",
    "ptree first": "import ptree; assert 'flax' not in __import__('sys').modules; import flax",
    "ptree first, linen": "import ptree; from flax import linen",
    "the module alone": "import ptree; import flax.serialization",
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_flax_knows_trees_whichever_is_imported_first(order):
    import subprocess
    import sys

    code = f"""
import warnings; warnings.simplefilter("ignore")
{order}
import sys, inspect, ptree as pt
from flax import serialization
assert serialization.is_serializable(pt.Tree)
assert "def to_bytes" in inspect.getsource(serialization.to_bytes)
assert not [finder for finder in sys.meta_path if type(finder).__module__.startswith("ptree")]
tree = pt.tie({{"a": 1, "b": 1}}, {{"b": "a"}})
assert pt.ties(serialization.from_bytes(tree, serialization.to_bytes(tree))) == {{"b": "a"}}
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# ----------------------------------------------------------------------------------- and the rest


def test_flatten_dict():
    params = lm()
    flat = run("`flax.traverse_util`", traverse_util=traverse_util, params=params)
    every_name = dict(pt.items(params, aliases=True))
    assert flat.keys() == every_name.keys()
    assert all(np.array_equal(flat[path], every_name[path]) for path in flat)


def test_optax_finds_no_names_in_a_tree_and_ptree_does():
    params = pt.Tree({"enc": {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}})
    optimiser = optax.adam(1e-3)
    state = optimiser.init(params)
    assert optax.tree.get_all_with_path(state, "bias") == []
    found = run("what `optax.tree.get", state=state)
    expected = optax.tree.get_all_with_path(optimiser.init(pt.asdict(params)), "bias")
    assert [path for path, _ in found] == ["0/mu/enc/bias", "0/nu/enc/bias"]
    assert len(found) == len(expected)
    new = pt.set(state, "0/mu/enc/bias", jnp.ones(2))
    by_optax = optax.tree.set(optimiser.init(pt.asdict(params)), lambda path, _: path[1].name == "mu", bias=jnp.ones(2))
    np.testing.assert_array_equal(new[0].mu["enc/bias"], by_optax[0].mu["enc"]["bias"])
    assert int(optax.tree.get(state, "count")) == 0  # what lies in optax's own nodes it finds


def test_clu_gets_the_dict_that_it_asks_for():
    def get_parameter_overview(params):
        """As clu documents: a dict, possibly nested, of arrays with a shape, a dtype and a size."""
        assert type(params) is dict
        return sorted((name, tuple(leaf.shape), str(leaf.dtype), int(leaf.size)) for name, leaf in params.items())

    rows = run("clu", parameter_overview=SimpleNamespace(get_parameter_overview=get_parameter_overview), params=lm())
    assert rows == [("embed/table", (5, 3), "float32", 15), ("head/bias", (5,), "bfloat16", 5)]


def test_wandb_gets_a_flat_dict_of_numbers():
    logged = []
    run("wandb", run=SimpleNamespace(log=logged.append), params=lm())
    assert logged == [
        {
            "norm/embed/table": pytest.approx(float(np.linalg.norm(np.arange(15.0)))),
            "norm/head/bias": pytest.approx(5**0.5, rel=1e-2),
        }
    ]


def formats():
    import msgpack
    import yaml

    return {
        "json": (json.dumps, json.loads),
        "yaml": (yaml.safe_dump, yaml.safe_load),
        "msgpack": (msgpack.packb, msgpack.unpackb),
    }


@pytest.mark.parametrize("name", ["json", "yaml", "msgpack"])
def test_text_and_bytes_hold_the_leaves_and_like_gives_the_ties(name):
    dump, load = formats()[name]
    as_json = SimpleNamespace(dumps=dump, loads=load)
    params = lm()
    text = run("json", json=as_json, params=params)
    assert equal(run("... and back", json=as_json, text=text, params=params), params)
