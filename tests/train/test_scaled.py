"""Factors of updates by path and by layer: rates that fall with the depth, multipliers of widths."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import train


def factors_of(params, rules):
    optimiser = train.scaled(rules)
    updates, _ = optimiser.update(jax.tree.map(jnp.ones_like, params), optimiser.init(params), params)
    return updates


def stacks_of_stacks():
    apart = pt.Tree({"enc": [{"blocks": [{"w": jnp.ones((2, 3))}] * 3}] * 2, "0/w": jnp.ones(2)})
    stacked = pt.stacks.stack(pt.stacks.stack(apart, "enc/0/blocks"), "enc/1/blocks")
    return apart, pt.stacks.stack(stacked, "enc")


@pytest.mark.parametrize(
    ("pattern", "array", "expected"),
    [
        ("enc/*/blocks/*", np.arange(6.0).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        ("enc/*", np.array([1.0, 2.0]), [[1, 1, 1], [2, 2, 2]]),
        ("enc/**/blocks/*", np.arange(3.0), [[0, 1, 2]] * 2),
        ("**/blocks/*/**", np.arange(3.0), [[0, 1, 2]] * 2),
        ("enc/*/blocks/*/w", jnp.full((2, 3), 0.5), [[0.5] * 3] * 2),
    ],
)
def test_arrays_have_a_factor_for_each_layer_stacked_or_not(pattern, array, expected):
    for params in stacks_of_stacks():
        updates = factors_of(params, {pattern: array, "**": 9.0})
        found = [[pt.get(updates, f"enc/{i}/blocks/{j}/w") for j in range(3)] for i in range(2)]
        np.testing.assert_array_equal(found, np.broadcast_to(np.array(expected)[..., None, None], (2, 3, 2, 3)))
        assert updates["0/w"].tolist() == [9, 9]


def test_factors_hold_for_gradients_of_what_is_trained_and_keep_dtypes():
    params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    optimiser = train.scaled({"b": 3.0, "a": np.float64(0.5)})
    updates, _ = optimiser.update({"a": params["a"]}, optimiser.init(params), params)
    assert updates["a"].dtype == jnp.bfloat16
    assert updates["a"].tolist() == [0.5, 0.5]


def test_factors_that_do_not_fit_are_an_error():
    apart, stacked = stacks_of_stacks()
    for params, rules, text in [
        (
            stacked,
            {"enc/*": np.ones(3), "**": 1.0},
            "the rule 'enc/*' has f64[3], and the stack of 'enc/:/blocks/:/w' has 2 layers",
        ),
        (apart, {"enc/*": np.ones(3), "**": 1.0}, "the rule 'enc/*' has f64[3], and there are [2] layers"),
        (apart, {"enc/*": np.ones(1), "**": 1.0}, "the rule 'enc/*' has f64[1], and no factor for 'enc/1/blocks/0/w'"),
        (apart, {"enc": np.ones(2), "**": 1.0}, "names 0 layers with '*' in 'enc/0/blocks/0/w': expected 1"),
        (apart, {"enc/{0..1}": np.ones(2), "**": 1.0}, "its pattern has '*' in the place of the layers"),
        (apart, {lambda path, leaf: True: np.ones(2)}, "its pattern has '*' in the place of the layers"),
        (apart, {"enc": 1.0}, "no rule matches ['0/w']: add a rule such as {'**': 1.0}"),
        (apart, {"dec": 1.0, "**": 1.0}, "the pattern 'dec' matches nothing"),
        (stacked, {"enc/0": 1.0, "**": 1.0}, "unstack"),
    ]:
        with pytest.raises(pt.PatternError) as caught:
            train.scaled(rules).init(params)
        assert text in str(caught.value)
    inside = train.by_layer(train.scaled({"enc/*": np.ones(2), "**": 1.0}))
    with pytest.raises(pt.PatternError, match="inside of by_layer, which sees one layer: put scaled behind it"):
        inside.init(stacked)


def test_depths_that_do_not_fit_are_an_error():
    params = {"a": [jnp.ones(2)] * 2, "b": [jnp.ones(2)] * 3, "c": jnp.ones(2)}
    with pytest.raises(
        pt.PatternError, match=r"other numbers of layers at one depth: \['a/\*: 2 layers', 'b/\*: 3 layers'\]"
    ):
        train.depth_factors(params, 0.5, [("a/*", "b/*")])
    with pytest.raises(pt.PatternError, match="the pattern 'd' matches nothing"):
        train.depth_factors(params, 0.5, ["d", "c"])
    with pytest.raises(pt.PatternError, match=r"one '\*' for the layers; got 'deep/\*/\*'"):
        train.depth_factors({"deep": [[jnp.ones(2)]]}, 0.5, ["deep/*/*"])


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["1", "2"], "its layers are ['1', '2'], expected numbers from 0 on without gaps"),
        (["0", "2"], "its layers are ['0', '2'], expected numbers from 0 on without gaps"),
        (["0", "1", "norm"], "it also matches ['blocks/norm/w'], which is in no layer"),
    ],
)
def test_layers_for_which_an_array_has_no_factors_are_given_one_by_one(layers, text):
    params = {"blocks": {name: {"w": jnp.ones(2)} for name in layers}, "head": jnp.ones(2)}
    with pytest.raises(pt.PatternError) as caught:
        train.depth_factors(params, 0.5, ["blocks/*", "head"])
    assert text in str(caught.value)
    assert f"order=[..., 'blocks/{layers[0]}', ...]" in str(caught.value)
    rules = train.depth_factors(params, 0.5, [*(f"blocks/{name}" for name in layers), "head"])
    optimiser = train.groups({"**": optax.sgd(1.0)}, factors=rules)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    found = [-float(updates["blocks"][name]["w"][0]) for name in layers]
    assert found == [0.5 ** (len(layers) - at) for at in range(len(layers))]


def test_what_an_earlier_pattern_takes_need_be_in_no_layer():
    params = {"blocks": {"0": jnp.ones(2), "1": jnp.ones(2), "norm": jnp.ones(2)}, "head": jnp.ones(2)}
    rules = train.depth_factors(params, 0.5, ["blocks/norm", "blocks/*", "head"])
    optimiser = train.groups({"**": optax.sgd(1.0)}, factors=rules)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    assert {name: -float(update[0]) for name, update in updates["blocks"].items()} == {
        "0": 0.25,
        "1": 0.5,
        "norm": 0.125,
    }
