"""Flax writes a Tree as a state dict that holds each leaf once, and reads it back with its ties."""

import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import arange, equal

import ptree as pt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from flax import serialization
    from flax.core import freeze
    from flax.training.train_state import TrainState


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
    again = serialization.from_bytes(params, serialization.to_bytes(params))
    assert equal(jax.tree.map(jnp.asarray, again), jax.tree.map(jnp.asarray, params))
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
