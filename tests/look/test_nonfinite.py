"""nonfinite and guard: which leaves are not finite, and the step at which they became so."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

import ptree as pt
from ptree.look import NonFiniteError, guard, nonfinite, observe


def test_leaves_that_are_not_finite_are_named_with_count_and_first_index():
    tree = {
        "a": np.ones((2, 3), "float32"),
        "b": [jnp.array([[1, jnp.nan], [-jnp.inf, 0]], jnp.bfloat16)],
        "c": np.array([1, np.nan + 1j]),
        "d": np.array(float("inf")),
        "e": np.array([1, np.inf]).astype(ml_dtypes.float8_e5m2),
        "blocks": {":": {"w": np.array([[1.0, 2], [3, np.nan]])}},
    }
    found = nonfinite(tree)
    rows = [(row.path, row.nonfinite, row.count, row.first) for row in found.rows]
    assert rows == [
        ("b/0", 2, 4, (0, 1)),
        ("c", 1, 2, (1,)),
        ("d", 1, 1, ()),
        ("e", 1, 2, (1,)),
        ("blocks/1/w", 1, 2, (1,)),
    ]
    assert found
    assert str(found).splitlines()[0] == "'b/0': 2 of 4 are not finite, first at (0, 1)"
    assert found.to_dict()["rows"][0]["first"] == [0, 1]


def test_where_all_is_well_it_is_false_and_no_error():
    tree = {
        "f": np.tanh,
        "name": "x",
        "key": jax.random.key(0),
        "n": np.arange(3),
        "none": np.zeros((0, 3)),
        "w": 1.5,
        "t": np.array(["a"]),
    }
    found = nonfinite(tree)
    assert not found
    assert len(found) == 0
    assert str(found) == "all numbers are finite"
    assert not nonfinite({})
    assert not nonfinite({"huge": np.full(100_000, 3e38, "float32")})


def test_what_cannot_be_read_is_an_error_and_not_well():
    gone = jnp.ones(3)
    gone.delete()
    with pytest.raises(pt.StructureError, match="'w' is deleted"):
        nonfinite({"w": gone})
    with pytest.raises(pt.StructureError, match="tracer"):
        jax.jit(lambda tree: nonfinite(tree))({"w": jnp.ones(3)})


def test_files_are_read(tmp_path):
    pt.save(tmp_path / "a.safetensors", {"a": np.ones(3), "b": np.array([np.nan])})
    assert nonfinite(tmp_path / "a.safetensors").paths == ["b"]
    code = "import sys\nfrom ptree.look import nonfinite\nprint(nonfinite(sys.argv[1]).paths, 'jax' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "a.safetensors")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "['b'] False\n"


# ------------------------------------------------------------------------------------- guard


def sgd(params, x, rate=1.0):
    """The update is inf at the third call: 1 / (2 - 2)."""
    return {"w": params["w"] - rate * x / (params["w"] - 1), "n": params["n"] + 1}, params["w"].sum()


STEPS = {
    "plain": sgd,
    "jitted": jax.jit(sgd),
    "donating": jax.jit(sgd, donate_argnums=0),
    "donating by name": jax.jit(sgd, donate_argnames="params"),
    "a function that donates inside": lambda params, x, rate=1.0: jax.jit(sgd, donate_argnums=0)(params, x, rate),
}


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
@pytest.mark.parametrize("name", STEPS)
def test_the_first_bad_step_stops_and_its_inputs_are_kept(name):
    step = guard(STEPS[name])
    params = {"w": jnp.array([3.0, 5.0]), "n": jnp.array(0)}
    params, _ = step(params, jnp.array([4.0, 0.0]))  # w = [1, 5]
    before = jax.tree.map(np.asarray, params)
    with pytest.raises(NonFiniteError) as caught:
        step(params, x=jnp.array([1.0, 0.0]))
    error = caught.value
    assert error.call == step.calls == 2
    kept = error.inputs.arguments["params"]
    np.testing.assert_array_equal(kept["w"], before["w"])
    assert int(kept["n"]) == 1
    assert error.found.paths == ["output/0/w"]
    assert "from inputs that are all finite:\n'output/0/w': 1 of 2 are not finite, first at (0,)" in str(error)
    again, _ = STEPS[name](*error.inputs.args, **error.inputs.kwargs)
    assert np.isinf(again["w"][0])


def test_inputs_that_were_bad_before_come_first():
    step = guard(jax.jit(sgd))
    with pytest.raises(NonFiniteError) as caught:
        step({"w": jnp.ones(2) * 3, "n": 0}, jnp.array([jnp.nan, 1]), rate=0.5)
    assert caught.value.found.paths == ["x", "output/0/w"]
    assert "Its inputs were not finite before:\n'x': 1 of 2" in str(caught.value)


def test_without_keep_donated_no_copy_is_made():
    step = guard(jax.jit(lambda p: {"w": p["w"] / 0}, donate_argnums=0), keep_donated=False)
    params = {"w": jnp.ones(3)}
    with pytest.raises(NonFiniteError) as caught:
        step(params)
    assert caught.value.inputs.arguments["p"]["w"].is_deleted()


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_what_is_kept_stays_on_its_devices_and_in_its_shards():
    first, *_, last = jax.devices()
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
    spread = jax.NamedSharding(mesh, jax.P("d"))
    place = jax.jit(lambda w, key: (w / 0, key), donate_argnums=0)

    def step(w, other, key):
        return place(w, key), other + 1

    w = jax.device_put(jnp.ones(len(jax.devices())), spread)
    with pytest.raises(NonFiniteError) as caught:
        guard(step)(w, jax.device_put(jnp.ones(2), last), jax.random.key(0))
    assert w.is_deleted() or first == last
    kept = caught.value.inputs.arguments
    assert kept["w"].sharding == spread
    assert kept["other"].devices() == {last}


def test_what_observe_says_is_named_by_the_leaves():
    def step(params):
        grads = jax.tree.map(jnp.zeros_like, params)
        grads["b"] = grads["b"] / 0
        return params, observe(params, grads)

    with pytest.raises(NonFiniteError, match="Observed, not finite or larger than 1e19: grads of 'b'"):
        guard(jax.jit(step))({"a": jnp.ones(2), "b": jnp.ones(2)})


def test_large_finite_numbers_and_ignored_outputs_pass():
    step = guard(lambda x: {"w": x * 1e30, "best": jnp.inf}, ignore=["best"])
    assert step(jnp.ones(3))["w"][0] > 1e29
    with pytest.raises(pt.PatternError):
        guard(lambda x: x, ignore=["{"])


def test_a_whole_training_with_optax_and_a_scalar_loss():
    optimiser = optax.adam(1e-1)

    @jax.jit
    def step(params, state, x):
        loss, grads = jax.value_and_grad(lambda p: jnp.sum(p["w"] * x))(params)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    step = guard(step)
    params = {"w": jnp.ones(3)}
    state = optimiser.init(params)
    for _ in range(3):
        params, state, _ = step(params, state, jnp.ones(3))
    with pytest.raises(NonFiniteError) as caught:
        step(params, state, jnp.array([1, jnp.inf, 1]))
    assert caught.value.found.paths == ["x", "output/0/w", "output/1/0/mu/w", "output/1/0/nu/w", "output/2"]
    assert pickle.loads(pickle.dumps(caught.value)).call == 4
    assert step.__name__ == "step"


def test_a_guard_inside_jit_says_where_it_belongs():
    with pytest.raises(pt.StructureError, match="Guard the outer function"):
        jax.jit(guard(lambda x: x + 1))(1.0)
    with pytest.raises(NonFiniteError, match="'output': 1 of 1"):
        guard(lambda x: x)(float("nan"))
    with pytest.raises(TypeError):
        guard(lambda x: x)()


def test_one_leaf_without_numbers_does_not_hide_the_others():
    found = nonfinite({"w": np.array([np.nan, 1]), "o": np.array([None]), "s": jax.ShapeDtypeStruct((2,), "float32")})
    assert found.paths == ["w"]
    assert [*found.unread] == ["o", "s"]
    assert [line.split()[0] for line in repr(found).splitlines() if line] == ["'w':", "'o'", "'s'"]
    assert "all numbers are finite" not in repr(nonfinite({"w": np.ones(2), "o": np.array([None])}))
