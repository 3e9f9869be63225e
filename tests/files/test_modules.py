"""Modules and states of Equinox, Flax and Optax as templates: their arrays come from the file, all else stays what it is."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import ptree as pt


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


ADD = functools.partial(jnp.add, 1)


class Net(eqx.Module):
    mlp: eqx.nn.MLP
    conv: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    layers: eqx.nn.Sequential
    kind: str
    dtype: object
    scale: float
    nothing: object = None
    static: int = eqx.field(static=True, default=3)

    def __init__(self, key, kind="x"):
        keys = jax.random.split(key, 3)
        self.mlp = eqx.nn.MLP(2, 3, 4, 2, activation=jax.nn.gelu, key=keys[0])
        self.conv = eqx.nn.Conv2d(1, 2, 3, use_bias=False, key=keys[1])
        self.norm = eqx.nn.LayerNorm(3)
        self.dropout = eqx.nn.Dropout(0.25)
        self.layers = eqx.nn.Sequential([eqx.nn.Linear(2, 2, key=keys[2]), eqx.nn.Lambda(ADD)])
        self.kind, self.dtype, self.scale = kind, jnp.bfloat16, 0.5


def is_equal(a, b):
    """Bit for bit, and the same objects where they are no arrays."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if isinstance(one, jax.Array) and jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        if isinstance(one, (jax.Array, np.ndarray)):
            np.testing.assert_array_equal(one, other)
        elif one is not other and one != other:
            return False
    return True


@pytest.mark.parametrize("shard_size", [None, 40])
def test_an_equinox_module_is_saved_without_its_functions_and_loads_into_another_one(file, shard_size):
    net, other = Net(jax.random.key(0)), Net(jax.random.key(1), "y")
    says(
        pt.FileError,
        "cannot save these leaves, a file holds arrays, numbers and PRNG keys:\n"
        "  'mlp/activation' is gelu, a function\n"
        "  'mlp/final_activation' is <lambda>, a function\n"
        "  'layers/layers/1/fn' is add, a partial\n"
        "  'kind' is 'x', a str\n"
        "  'dtype' is bfloat16, a _ScalarMeta\n"
        "The option only_arrays=True leaves out what is no array and no number.",
        lambda: pt.save(file, net),
    )
    pt.save(file, net, only_arrays=True, max_shard_size=shard_size)
    back, report = pt.load_report(file, other)
    assert report.kept == ["mlp/activation", "mlp/final_activation", "layers/layers/1/fn", "kind", "dtype"]
    assert back.kind == "y"
    assert is_equal(eqx.tree_at(lambda net: net.kind, back, "x"), net)
    x = jnp.arange(2.0)
    np.testing.assert_array_equal(back.mlp(x), net.mlp(x))
    plain = pt.load(file)
    assert "mlp/activation" not in plain
    assert plain["dropout/p"] == 0.25


def test_arrays_that_are_missing_are_told_though_functions_are_kept(file):
    net = Net(jax.random.key(0))
    pt.save(file, eqx.filter(net, eqx.is_array))
    says(
        pt.StructureError,
        f"cannot load {str(file)!r} into `like`: missing in the file: ['dropout/inference',"
        " 'dropout/p', 'scale']."
        " missing='keep' keeps the values of `like`.",
        lambda: pt.load(file, net),
    )
    assert is_equal(pt.load(file, Net(jax.random.key(1)), missing="keep"), net)
    pt.save(file, {"norm": {"bias": net.norm.bias}})
    with pytest.raises(pt.StructureError, match=r"missing in the file: \['norm/weight'\]") as raised:
        pt.load(file, {"norm": net.norm, "activation": len})
    assert raised.value.missing == ["norm/weight"]


def test_a_module_goes_to_devices_by_rules_and_its_functions_stay(file):
    net = eqx.nn.MLP(8, 8, 8, 1, key=jax.random.key(0))
    pt.save(file, net, only_arrays=True)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    back = pt.load(file, net, shardings=PartitionSpec("d"), mesh=mesh)
    assert back.layers[0].weight.sharding == NamedSharding(mesh, PartitionSpec("d"))
    assert back.activation is net.activation


def test_a_tie_to_what_is_left_out_is_left_out(file):
    tree = pt.tie({"a": {"f": len, "w": jnp.ones(2)}, "b": {"f": len, "w": jnp.ones(2)}}, {"b": "a"})
    pt.save(file, tree, only_arrays=True)
    assert pt.paths(pt.load(file), aliases=True) == ["a/w", "b/w"]
    back = pt.load(file, tree)
    assert back["b/f"] is len
    assert pt.ties(back) == pt.ties(tree)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)


def test_states_and_modules_of_nnx_come_back(file):
    model, other = Model(nnx.Rngs(0)), Model(nnx.Rngs(1))
    for tree, like in ((nnx.state(model), nnx.state(other)), (model, other)):
        pt.save(file, tree)
        assert is_equal(pt.load(file, like), tree)


def optimiser():
    decay = {"w": True, "b": False}
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(1.0, 0.0, 10)),
        optax.masked(optax.trace(0.9), decay),
        optax.multi_transform({"a": optax.sgd(0.1), "b": optax.set_to_zero()}, {"w": "a", "b": "b"}),
    )


@pytest.mark.parametrize(
    "params", [{"w": jnp.ones((2, 3)), "b": jnp.ones(3)}, {"w": jnp.ones((2, 3)), "b": None}], ids=["whole", "None"]
)
def test_states_of_optax_come_back(file, params):
    if params["b"] is None:
        optimise = optax.adam(0.1)
    else:
        optimise = optimiser()
    state = optimise.init(params)
    _, later = optimise.update(jax.tree.map(jnp.ones_like, params), state, params)
    pt.save(file, {"params": params, "state": later})
    back = pt.load(file, {"params": params, "state": state})
    assert is_equal(back["state"], later)


KEPT = [
    len, jax.nn.relu, functools.partial(max, 1), "text", b"bytes", np.dtype("float32"), np.float32, jnp.float32, object(), 1j, 2**70, 0.5, True,
    np.datetime64("2020"), np.array(["x"]), np.array([None]), PartitionSpec("d"), jax.devices()[0], jax.random.key(0), range(3), Ellipsis,
    slice(1, 2), {1, 2}, NotImplemented,
]  # fmt: skip


def test_any_value_of_like_is_kept(file):
    pt.save(file, {"w": jnp.ones(2)})
    like = {"w": jnp.zeros(2), **{f"value {at}": value for at, value in enumerate(KEPT)}}
    back = pt.load(file, like, missing="keep")
    assert float(back["w"].sum()) == 2
    assert all(back[name] is like[name] for name in like if name != "w")
    spec = {"w": pt.Param((2,)), "s": jax.ShapeDtypeStruct((2,), "float32"), "p": pt.Param((2,))}
    says(pt.FileError, f"cannot load {str(file)!r} into `like`: there is no value to keep in `like` for ['s', 'p']",
         lambda: pt.load(file, spec, missing="keep"))  # fmt: skip


@pytest.mark.parametrize("backend", ["ptree", "orbax"])
def test_a_run_whose_state_has_functions_is_kept_without_them(tmp_path, backend):
    net, other = Net(jax.random.key(0)), Net(jax.random.key(1))
    with pt.Checkpoints(tmp_path / "run", backend=backend) as checkpoints:
        with pytest.raises(pt.FileError, match="The option only_arrays=True leaves out"):
            checkpoints.save(1, net)
        assert checkpoints.steps() == []
    with pt.Checkpoints(tmp_path / "run", backend=backend, only_arrays=True) as checkpoints:
        checkpoints.save(1, net)
        step, back = checkpoints.load(like=other)
    assert step == 1
    assert is_equal(back, net)
