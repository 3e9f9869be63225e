"""Optimisers by layer of a stack, and the warning where one takes a stack for one parameter."""

import copy
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from optimisers import OPTIMISERS, RANKS_AND_NORMS

import ptree as pt
from ptree import train
from ptree.train._groups.stack_probe import leaves_updated_otherwise


def numbers(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype("f")


def stacks_of_stacks():
    """Two stacks of other sizes, one with stacks in it, a leaf outside, and a tie in each layer."""
    block = lambda at: {"kernel": 2.0 ** (at % 4) * numbers(4, 4, seed=at), "bias": numbers(4, seed=at + 50)}
    again = lambda at: {**block(at), "again": pt.transposed(f"side/{at - 7}/kernel")}
    groups = [{"blocks": [block(3 * at + i) for i in range(3)], "norm/scale": numbers(4, seed=at)} for at in range(2)]
    apart = pt.Tree({"deep": groups, "side": [again(7 + i) for i in range(5)], "table": numbers(6, 4)})
    stacked = pt.stacks.stack(pt.stacks.stack(apart, "deep/0/blocks"), "deep/1/blocks")
    return apart, pt.stacks.stack(pt.stacks.stack(stacked, "deep"), "side")


def two_steps(optimiser, params):
    state = optimiser.init(params)
    for scale in (1.0, 5.0):
        grads = jax.tree.map(lambda leaf, scale=scale: scale * jnp.cos(3 * leaf), params)
        updates, state = optimiser.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("name", ["lamb", "adafactor of small", "muon"])
def test_stacks_of_stacks_are_optimised_as_their_layers(name):
    apart, stacked = stacks_of_stacks()
    optimiser = OPTIMISERS[name]()
    expected, _ = jax.jit(lambda params: two_steps(optimiser, params))(apart)
    found, state = jax.jit(lambda params: two_steps(train.by_layer(optimiser), params))(stacked)
    assert set(state.stacks) == {"others", "deep/:", "deep/:/blocks/:", "side/:"}
    assert pt.ties(found) == pt.ties(stacked)
    for path, leaf in pt.items(expected):
        np.testing.assert_allclose(pt.get(found, path), leaf, rtol=1e-5, atol=1e-6, err_msg=path)


def test_the_state_names_stacks_as_the_parameters_do():
    _, stacked = stacks_of_stacks()
    state = train.by_layer(optax.adam(0.1)).init(stacked)
    assert pt.get(state, "stacks/side/:/0/mu/side/:/kernel").shape == (5, 4, 4)
    assert state.stacks["side/:"][0].count.shape == (5,)
    again = train.by_layer(optax.adam(0.1)).update(stacked, state, stacked)[1]
    assert jax.tree.structure(again) == jax.tree.structure(state)


def test_the_state_is_saved_and_a_rule_can_name_what_is_in_no_stack(tmp_path):
    stacked = pt.stacks.stack({"blocks": [{"w": jnp.ones((4, 4))}] * 2, "out": {"w": jnp.ones((4, 4))}}, "blocks")
    state = train.by_layer(optax.adam(0.1)).init(stacked)
    path = "stacks/others/0/mu/out/w"
    assert pt.get(state, path).shape == (4, 4)
    pt.save(tmp_path / "state.safetensors", state)
    loaded = pt.load(tmp_path / "state.safetensors", like=state)
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    plan = pt.shard.plan(stacked, jax.sharding.PartitionSpec(), mesh)
    zero = pt.shard.like(state, plan, {path: jax.sharding.PartitionSpec("data")})
    assert [leaf.path for leaf in zero.leaves if not leaf.is_replicated] == [path]


def test_masks_see_single_layers():
    _, stacked = stacks_of_stacks()
    seen = []

    def mask(params):
        seen.append({path: leaf.shape for path, leaf in pt.items(params)})
        return train.decayed(params)

    train.by_layer(optax.adamw(0.1, mask=mask)).init(stacked)
    assert {"deep/*/blocks/*/kernel": (4, 4), "deep/*/blocks/*/bias": (4,)} in seen
    by_rank = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    optimiser = train.by_layer(optax.chain(optax.add_decayed_weights(1.0, mask=by_rank)))
    updates, _ = optimiser.update(jax.tree.map(jnp.zeros_like, stacked), optimiser.init(stacked), stacked)
    assert updates["side/:/kernel"].all()
    assert not updates["side/:/bias"].any()


def test_noise_differs_from_layer_to_layer():
    params = pt.stacks.stack(pt.Tree({"b": [{"w": jnp.zeros(4)}] * 3}), "b")
    optimiser = train.by_layer(optax.noisy_sgd(1.0, key=jax.random.key(0)))
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    assert len({row.tobytes() for row in np.asarray(updates["b/:/w"])}) == 3


def test_by_layer_goes_into_groups_and_without_parameters():
    apart, stacked = stacks_of_stacks()
    rules = lambda optimiser: {"table": train.FROZEN, "**": optimiser}
    grads = lambda params: jax.tree.map(jnp.cos, params)
    plain, by_layer = (
        train.groups(rules(optax.lamb(0.1))),
        train.groups(rules(train.by_layer(optax.lamb(0.1))), clip=1e9),
    )
    expected, _ = plain.update(grads(apart), plain.init(apart), apart)
    found, _ = by_layer.update(grads(stacked), by_layer.init(stacked), stacked)
    np.testing.assert_allclose(found["side/3/kernel"], expected["side/3/kernel"], rtol=1e-5)
    optimiser = train.by_layer(optax.sgd(1.0))
    updates, _ = optimiser.update(stacked, optimiser.init(stacked))
    np.testing.assert_array_equal(updates["table"], -stacked["table"])
    assert copy.deepcopy(optimiser).init(stacked) == optimiser.init(stacked)


def test_bad_input_of_by_layer():
    with pytest.raises(pt.PatternError, match=r"by_layer takes an optimiser of optax; got 0\.1"):
        train.by_layer(0.1)
    uneven = {"b": {":": {"v": jnp.ones((3, 2)), "w": jnp.ones((4, 2))}}}
    with pytest.raises(pt.StructureError, match=r"'b/:' have different numbers of layers: \['b/:/v 3', 'b/:/w 4'\]"):
        train.by_layer(optax.lamb(0.1)).init(uneven)


# ------------------------------------------------------------------------------------ the warning


def transformer():
    block = {"kernel": jnp.ones((8, 8)), "bias": jnp.ones(8)}
    return pt.stacks.stack(pt.Tree({"embed": jnp.ones((7, 4)), "blocks": [block] * 3}), "blocks")


LARGE = pt.stacks.stack(pt.Tree({"b": [{"w": np.ones((200, 200), "f")}] * 2}), "b")
"""Large enough for `optax.adafactor` to factor a layer."""


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
@pytest.mark.parametrize("name", [name for name in OPTIMISERS if name not in RANKS_AND_NORMS])
def test_optimisers_that_treat_layers_alike_are_not_warned_of(name):
    assert leaves_updated_otherwise(OPTIMISERS[name](), transformer()) == []


@pytest.mark.parametrize("name", RANKS_AND_NORMS)
def test_optimisers_that_look_at_ranks_or_norms_are_found_and_by_layer_is_right(name):
    params = transformer()
    found = leaves_updated_otherwise(OPTIMISERS[name](), params)
    assert found == (["blocks/:/bias"] if name == "adamw with a mask by rank" else found)
    assert found or leaves_updated_otherwise(OPTIMISERS[name](), LARGE)
    assert leaves_updated_otherwise(train.by_layer(OPTIMISERS[name]()), params) == []


def warnings_of(optimiser, params):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train.groups({"embed": train.FROZEN, "**": optimiser}).init(params)
    return [str(one.message) for one in caught], [one.filename for one in caught]


def test_groups_warn_where_a_stack_is_taken_for_one_parameter():
    texts, files = warnings_of(optax.lamb(0.1), transformer())
    assert texts == [
        "the optimiser for '**' looks at ranks or norms, and would update the layers of ['blocks/:/kernel', 'blocks/:/bias']"
        " otherwise if they were not stacked: use ptree.train.by_layer(optimiser)"
    ]
    assert files == [__file__]
    assert warnings_of(optax.lamb(0.1), pt.stacks.unstack(transformer(), "blocks"))[0] == []
    assert warnings_of(train.by_layer(optax.lamb(0.1)), transformer())[0] == []


def test_groups_warn_of_a_global_norm_inside_of_by_layer():
    clip = optax.clip_by_global_norm(1.0)
    texts, _ = warnings_of(train.by_layer(optax.chain(clip, optax.adam(0.1))), transformer())
    assert len(texts) == 1
    assert "put what looks at all leaves, such as optax.clip_by_global_norm, outside of by_layer" in texts[0]
    assert warnings_of(optax.chain(clip, train.by_layer(optax.novograd(0.1))), transformer())[0] == []


def test_the_warning_comes_in_traces_too_and_leaves_no_trace_of_float64():
    for init in (lambda optimiser: jax.jit(optimiser.init), lambda optimiser: partial(jax.eval_shape, optimiser.init)):
        with pytest.warns(UserWarning, match="looks at ranks or norms"):
            init(train.groups({"**": optax.lars(0.1)}))(transformer())
    assert jnp.ones(2).dtype == jnp.float32


def test_an_optimiser_that_cannot_be_tried_is_left_alone():
    assert leaves_updated_otherwise(contrib.sophia(0.1), transformer()) == []
    broken = optax.GradientTransformation(lambda params: (), lambda updates, state, params=None: 1 / 0)
    assert leaves_updated_otherwise(broken, transformer()) == []
