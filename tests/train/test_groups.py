"""Groups of leaves with an optimiser each: what is trained, clipped, kept; states and gradients that do not fit."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import ptree as pt
from ptree import train


def model():
    draw = np.random.default_rng(0)
    numbers = lambda *shape: jnp.asarray(draw.normal(size=shape), jnp.float32)
    block = lambda: {"kernel": numbers(4, 4), "bias": numbers(4)}
    tree = pt.Tree(
        {"embed": numbers(5, 4), "blocks": [block() for _ in range(3)], "head/bias": numbers(5), "step": jnp.int32(7)}
    )
    tree = pt.put(tree, "head/kernel", pt.transposed("embed"))
    return pt.stacks.stack(tree, "blocks")


def loss(params, x):
    x = x @ params["embed"]
    x, _ = pt.stacks.scan(
        lambda x, layer: (x + jnp.tanh(x @ layer["kernel"] + layer["bias"]), None), x, params["blocks"]
    )
    return ((x @ params["head/kernel"] + params["head/bias"]) ** 2).mean()


X = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5)), jnp.float32)
RULES = {
    "step": train.FROZEN,
    "embed": train.FROZEN,
    "**/bias": optax.sgd(0.1),
    "**": optax.adamw(1e-2, weight_decay=0.1),
}


def gradients(params):
    return jax.grad(loss, allow_int=True)(params, X)


def by_hand(params, steps):
    """The same in plain JAX and optax, on dicts of arrays: Adam for the kernel, SGD for the biases, and one clip for both."""
    trained = {"kernel": params["blocks/:/kernel"], "bias": params["blocks/:/bias"], "out": params["head/bias"]}

    def own_loss(trained):
        x = X @ params["embed"]
        for kernel, bias in zip(trained["kernel"], trained["bias"]):
            x = x + jnp.tanh(x @ kernel + bias)
        return ((x @ params["embed"].T + trained["out"]) ** 2).mean()

    optimiser = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.partition(
            {"a": optax.adamw(1e-2, weight_decay=0.1), "b": optax.sgd(0.1)}, {"kernel": "a", "bias": "b", "out": "b"}
        ),
    )
    state = optimiser.init(trained)
    for _ in range(steps):
        updates, state = optimiser.update(jax.grad(own_loss)(trained), state, trained)
        trained = optax.apply_updates(trained, updates)
    return trained


@pytest.mark.parametrize("of_all", [True, False], ids=["gradients of all", "of what is trained"])
def test_three_steps_are_those_of_optax_on_plain_dicts(of_all):
    params = before = model()
    optimiser = train.groups(RULES, clip=0.5)
    state = optimiser.init(params)

    @jax.jit
    def step(params, state):
        _, trained = train.value_and_grad(loss, wrt=optimiser)(params, X)
        updates, state = optimiser.update(gradients(params) if of_all else trained, state, params)
        return train.apply_updates(params, updates), state

    for _ in range(3):
        params, state = step(params, state)
    expected = by_hand(before, 3)
    for path, name in {"blocks/:/kernel": "kernel", "blocks/:/bias": "bias", "head/bias": "out"}.items():
        np.testing.assert_allclose(params[path], expected[name], rtol=2e-5, atol=1e-6)
    assert params["step"].tolist() == 7
    assert params["embed"].tobytes() == before["embed"].tobytes()
    assert pt.ties(params) == pt.ties(before)


def test_frozen_leaves_are_bit_identical_and_their_updates_are_nothing():
    odd = jnp.asarray([-0.0, 0.0, 1e-30, -jnp.inf, jnp.nan], jnp.float32)  # XLA makes 0 of subnormal sums
    params = {
        "odd": odd,
        "key": jax.random.key(3),
        "flag": jnp.array([True, False]),
        "count": jnp.uint8(3),
        "w": jnp.ones(2),
    }
    optimiser = train.groups({"w": optax.sgd(1.0), "**": train.FROZEN})
    grads = {"odd": jnp.full(5, 1e9), "w": jnp.ones(2), "flag": params["flag"], "count": params["count"]}
    updates, _ = optimiser.update(grads, optimiser.init(params), params)
    new = optax.apply_updates({name: params[name] for name in updates}, updates)
    assert new["odd"].tobytes() == odd.tobytes()
    assert new["flag"].tolist() == [True, False]
    assert new["count"].dtype == jnp.uint8
    assert new["w"].tolist() == [0, 0]


def test_leaves_without_a_gradient_are_the_same_objects():
    params = {"odd": jnp.asarray([-0.0, 1e-45], jnp.float32), "w": jnp.ones(2)}
    optimiser = train.groups({"w": optax.sgd(1.0), "**": train.FROZEN})
    updates, _ = optimiser.update({"w": jnp.ones(2)}, optimiser.init(params), params)
    assert list(updates) == ["w"]
    assert train.apply_updates(params, updates)["odd"] is params["odd"]


def test_frozen_alone_is_a_transformation_that_changes_nothing():
    params = {"w": jnp.array([-0.0, 2.0])}
    optimiser = optax.chain(optax.identity(), train.FROZEN)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    assert optax.apply_updates(params, updates)["w"].tobytes() == params["w"].tobytes()


def test_frozen_is_known_after_copies_and_pickles():
    assert copy.deepcopy(train.FROZEN) is pickle.loads(pickle.dumps(train.FROZEN)) is train.FROZEN
    rules = copy.deepcopy(train.groups({"a": train.FROZEN, "**": optax.sgd(0.1)}, clip=2.0))
    assert rules.trained({"a": jnp.ones(2), "b": jnp.ones(2)}) == ["b"]
    assert rules.clip == 2.0
    assert repr(train.FROZEN) == "ptree.train.FROZEN"


def test_the_clip_counts_what_is_trained_alone():
    """`chain(clip_by_global_norm, multi_transform)` counts frozen gradients too: then the trained part is far too small."""
    params = {"body": jnp.zeros(100), "head": jnp.zeros(4)}
    grads = {"body": jnp.full(100, 50.0), "head": jnp.full(4, 3.0)}
    optimiser = train.groups({"body": train.FROZEN, "head": optax.sgd(1.0)}, clip=1.0)
    updates, _ = optimiser.update(grads, optimiser.init(params), params)
    np.testing.assert_allclose(updates["head"], -np.full(4, 0.5), rtol=1e-6)
    assert not updates["body"].any()


def test_the_clip_counts_a_tied_leaf_once_and_all_groups_together():
    params = pt.tie({"a": jnp.zeros(3), "b": jnp.zeros(3), "c": jnp.zeros(4)}, {"b": "a"})
    grads = pt.tie({"a": jnp.full(3, 2.0), "b": jnp.full(3, 2.0), "c": jnp.full(4, 1.0)}, {"b": "a"})
    optimiser = train.groups({"c": optax.sgd(1.0), "**": optax.sgd(10.0)}, clip=2.0)
    updates, _ = optimiser.update(grads, optimiser.init(params), params)
    np.testing.assert_allclose(updates["a"], -10 * np.full(3, 2.0) / 2, rtol=1e-6)  # the norm is 4
    np.testing.assert_allclose(updates["c"], -np.full(4, 1.0) / 2, rtol=1e-6)


def test_the_norm_of_float16_gradients_does_not_overflow():
    params = {"w": jnp.zeros(1000, jnp.float16)}
    optimiser = train.groups({"**": optax.sgd(1.0)}, clip=1.0)
    updates, _ = optimiser.update({"w": jnp.full(1000, 300.0, jnp.float16)}, optimiser.init(params), params)
    np.testing.assert_allclose(updates["w"], np.full(1000, -(1000**-0.5)), rtol=1e-3)
    assert updates["w"].dtype == jnp.float16


def test_what_frozen_leaves_have_in_the_state_is_nothing():
    params = model()
    slots = jax.tree.leaves(train.groups({"blocks/*/kernel": optax.adam(1e-3), "**": train.FROZEN}).init(params))
    assert sorted(slot.shape for slot in slots) == [(), (3, 4, 4), (3, 4, 4)]
    state = train.groups(RULES).init(params)
    assert {rule: [cohort.paths for cohort in cohorts] for rule, cohorts in state.groups.items()} == {
        "**/bias": [("blocks/:/bias", "head/bias")],
        "**": [("blocks/:/kernel",)],
    }


def test_trained_and_explain_say_what_the_rules_do():
    params, optimiser = model(), train.groups(RULES)
    assert optimiser.trained(params) == ["blocks/:/kernel", "blocks/:/bias", "head/bias"]
    assert str(optimiser.explain(params)).splitlines()[1].split() == ["embed", "embed", "**"]
    tied = train.groups({"head/kernel": train.FROZEN, "step": train.FROZEN, "**": optax.sgd(0.1)})
    assert "embed" not in tied.trained(params), "a leaf has all its names"


# ------------------------------------------------------------------------------------ other trees


def test_lists_modules_and_states_keep_their_types():
    plain = [{"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}]
    module = eqx.filter(eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0)), eqx.is_array)
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    rules = {"**/{b,bias,bias/value}": train.FROZEN, "**": optax.adam(0.1)}
    for params, frozen in [(plain, "b"), (module, "bias"), (state, "bias/value")]:
        optimiser = train.groups({f"**/{frozen}": rules["**/{b,bias,bias/value}"], "**": rules["**"]}, clip=1.0)
        grads = jax.tree.map(jnp.ones_like, params)
        for form in (grads, pt.select(grads, ["**", f"!**/{frozen}"])):
            updates, _ = optimiser.update(form, optimiser.init(params), params)
            assert jax.tree.structure(updates) == jax.tree.structure(form)
            new = train.apply_updates(params, updates)
            assert jax.tree.structure(new) == jax.tree.structure(params)
            for path, leaf in pt.items(new):
                assert np.array_equal(leaf, pt.get(params, path)) == path.endswith(frozen), path


def test_a_schedule_multistep_and_injected_rate_are_rules_like_any_other():
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2), "c": jnp.zeros(2)}
    optimiser = train.groups(
        {
            "a": optax.sgd(optax.piecewise_constant_schedule(1.0, {1: 0.5})),
            "b": optax.MultiSteps(optax.sgd(1.0), 2),
            "c": optax.inject_hyperparams(optax.sgd)(learning_rate=1.0),
        }
    )
    state = optimiser.init(params)
    for _ in range(2):
        state = pt.set(state, "groups/c/0/state/hyperparams/learning_rate", jnp.float32(0.25))
        updates, state = optimiser.update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    assert [float(params[name][0]) for name in "abc"] == [-1.5, -1.0, -0.5]


def test_groups_are_a_transformation_like_any_other():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    inner = train.groups({"a": train.FROZEN, "**": optax.adam(0.1)})
    for optimiser in (
        optax.chain(inner, optax.scale(2.0)),
        optax.apply_if_finite(inner, 2),
        optax.MultiSteps(inner, 1),
    ):
        updates, _ = optimiser.update(params, optimiser.init(params), params)
        assert not updates["a"].any()
        assert updates["b"].all()


def test_a_cohort_that_joins_late_has_a_step_count_of_its_own():
    """Fresh moments under an old count make steps of some times the rate, as Adam's bias is no longer corrected."""
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    adam = optax.adam(1.0)
    old = optax.tree.set(adam.init({"a": params["a"]}), count=jnp.int32(1000))
    fresh = adam.init({"b": params["b"]})
    optimiser = train.groups({"**": adam})
    state = train.GroupsState({"**": (train.Cohort(old, ("a",)), train.Cohort(fresh, ("b",)))})
    updates, state = optimiser.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert updates["a"][0] < -2.5, "what a fresh slot under an old count does"
    np.testing.assert_allclose(updates["b"], -np.ones(2), rtol=1e-5)
    assert [int(cohort.state[0].count) for cohort in state.groups["**"]] == [1001, 1]


def test_an_ensemble_is_initialised_and_updated_by_vmap():
    params = {"a": jnp.ones((3, 2)), "b": jnp.arange(6.0).reshape(3, 2)}
    optimiser = train.groups({"a": train.FROZEN, "**": optax.adam(0.1)}, clip=1.0)
    state = jax.vmap(optimiser.init)(params)
    updates, state = jax.vmap(optimiser.update)(params, state, params)
    alone = {name: leaf[2] for name, leaf in params.items()}
    expected, _ = optimiser.update(alone, optimiser.init(alone), alone)
    np.testing.assert_allclose(updates["b"][2], expected["b"], rtol=1e-6)


def test_gradients_through_a_learning_rate():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}

    def after(rate):
        optimiser = train.groups({"a": train.FROZEN, "**": optax.adam(rate)})
        updates, _ = optimiser.update(params, optimiser.init(params), params)
        return optax.apply_updates(params, updates)["b"].sum()

    np.testing.assert_allclose(jax.jit(jax.grad(after))(0.1), -2.0, rtol=1e-5)


def test_a_state_is_saved_and_loaded(tmp_path):
    params = model()
    optimiser = train.groups(RULES, clip=1.0)
    _, state = optimiser.update(gradients(params), optimiser.init(params), params)
    pt.save(tmp_path / "state.safetensors", state)
    loaded = pt.load(tmp_path / "state.safetensors", like=optimiser.init(params))
    assert jax.tree.structure(loaded) == jax.tree.structure(state)
    assert all(map(np.array_equal, jax.tree.leaves(loaded), jax.tree.leaves(state)))


def test_what_optimisers_get_besides_is_cut_to_their_leaves():
    """L-BFGS with a line search, which asks for values of the loss: of a part of the parameters, the rest being fixed."""
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, -1.0])}
    loss = lambda p: ((p["a"] - 5) ** 2).sum() + (p["a"] * p["b"]).sum() ** 2
    optimiser = train.groups({"b": train.FROZEN, "**": optax.lbfgs()})
    alone = optax.lbfgs()
    of_a = lambda a: loss({"a": a, "b": params["b"]})

    @jax.jit
    def both(params, state, a, own_state):
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(grads, state, params, value=value, grad=grads, value_fn=loss)
        value, grad = jax.value_and_grad(of_a)(a)
        own, own_state = alone.update(grad, own_state, a, value=value, grad=grad, value_fn=of_a)
        return optax.apply_updates(params, updates), state, a + own, own_state

    a, state, own_state = params["a"], optimiser.init(params), alone.init(params["a"])
    for _ in range(3):
        params, state, a, own_state = both(params, state, a, own_state)
    np.testing.assert_allclose(params["a"], a, rtol=1e-5)
    assert params["b"].tolist() == [3, -1]


# -------------------------------------------------------------------------------------- bad input


def fails(error, function, *args):
    with pytest.raises(error) as caught:
        function(*args)
    return str(caught.value)


def test_all_that_is_wrong_with_rules_is_one_error():
    params = model()
    text = fails(
        pt.PatternError,
        train.groups({"embde": train.FROZEN, "blocks/1/kernel": train.FROZEN, "blocks": optax.sgd(1.0)}).init,
        params,
    )
    assert "the pattern 'embde' matches nothing" in text
    assert "'blocks/1/kernel' is a single layer of 'blocks/:/kernel', one leaf for all layers" in text
    assert "ptree.stacks.unstack first" in text
    assert "no rule matches ['embed', 'head/bias', 'step']: add a rule for '**'" in text


def test_an_optimiser_for_integers_is_an_error():
    params = {"w": jnp.ones(2), "count": jnp.int32(0), "key": jax.random.key(0), "name": "x"}
    text = fails(pt.PatternError, train.groups({"**": optax.sgd(1.0)}).init, params)
    assert "the rule '**' has an optimiser for ['count', 'key', 'name'], which hold no floating-point numbers" in text
    assert "('count' is i32[])" in text


@pytest.mark.parametrize("rules", [{"**": train.FROZEN}, {"a": train.FROZEN, "b": train.FROZEN}])
def test_rules_that_train_nothing_are_an_error(rules):
    assert "nothing is trained: the rules" in fails(
        pt.PatternError, train.groups(rules).init, {"a": jnp.ones(2), "b": jnp.ones(2)}
    )
    assert "the tree has no leaves" in fails(pt.PatternError, train.groups({"**": optax.sgd(1.0)}).init, {})


def test_a_rule_that_comes_too_late_is_an_error():
    text = fails(pt.PatternError, train.groups({"**": optax.sgd(1.0), "a": train.FROZEN}).trained, {"a": jnp.ones(2)})
    assert text == "the rule 'a' applies to no leaf: ['**'] before it applies to all that it matches"


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"a": 0.1}, "the rule 'a' has 0.1 as its value: expected an optimiser of optax"),
        ({"a": None}, "the rule 'a' has None as its value"),
        ({"a": optax.adam}, "the rule 'a' has function as its value"),
        ({"a": train.groups({"**": optax.sgd(1.0)})}, "has groups as its value: write their rules into these"),
        ([("a", optax.sgd(1.0))], "groups takes a dict, selector -> optimiser"),
    ],
)
def test_rules_without_optimisers_are_an_error(rules, text):
    assert text in fails(pt.PatternError, train.groups, rules)


@pytest.mark.parametrize("clip", [0, -1.0, True, "1", float("nan")])
def test_a_clip_that_is_no_norm_is_an_error(clip):
    with pytest.raises(pt.PatternError, match="above 0"):
        train.groups({"**": optax.sgd(1.0)}, clip=clip)


def test_a_state_of_another_optimiser_or_of_other_groups_is_an_error():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    optimiser = train.groups({"a": train.FROZEN, "**": optax.adam(0.1)})
    text = fails(pt.StructureError, optimiser.update, params, optax.adam(0.1).init(params), params)
    assert text == "cannot update: expected the state that groups(...).init(params) makes, got tuple"
    other = train.groups({"b": train.FROZEN, "**": optax.adam(0.1)}).init(params)
    with pytest.raises(pt.StructureError) as caught:
        optimiser.update(params, other, params)
    assert "trained by the rules, and not in the state: ['b (**)']" in str(caught.value)
    assert "in the state, and not trained by the rules: ['a (**)']" in str(caught.value)
    assert (caught.value.missing, caught.value.unexpected) == (["b"], ["a"])


def test_a_leaf_in_two_cohorts_and_one_without_a_rule_are_errors():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    optimiser = train.groups({"{a,b}": optax.adam(0.1)})
    state = optimiser.init(params)
    doubled = train.GroupsState({rule: (*cohorts, *cohorts) for rule, cohorts in state.groups.items()})
    assert "in more than one cohort: ['a', 'b']" in fails(pt.StructureError, optimiser.update, params, doubled, params)
    more = {**params, "c": jnp.ones(2)}
    text = "no rule, or no parameter, for the gradients of ['c']"
    assert text in fails(pt.StructureError, optimiser.update, more, state, more)
    assert text in fails(pt.StructureError, optimiser.update, more, state, params)


def test_gradients_that_do_not_fit_are_an_error():
    params = {"a": jnp.ones((2, 5)), "b": jnp.ones(5), "c": jnp.ones(5)}
    optimiser = train.groups({"c": train.FROZEN, "**": optax.adam(0.1)})
    with pytest.raises(pt.StructureError) as caught:
        optimiser.update({"a": jnp.ones((1, 5)), "c": jnp.ones(5)}, optimiser.init(params), params)
    assert "no gradient of ['b']" in str(caught.value)
    assert "'a' is f32[2,5], its gradient f32[1,5]" in str(caught.value)
    assert (caught.value.missing, caught.value.misshapen) == (["b"], ["a"])


def test_updates_that_do_not_fit_are_an_error():
    with pytest.raises(pt.StructureError) as caught:
        train.apply_updates({"a": jnp.ones(5)}, {"a": jnp.ones(1), "b": jnp.ones(1)})
    assert "updates of no parameter: ['b']" in str(caught.value)
    assert "'a' is f32[5], its update f32[1]" in str(caught.value)


@pytest.mark.parametrize(
    "around", [lambda tx: optax.chain(optax.clip_by_global_norm(1.0), tx), lambda tx: optax.MultiSteps(tx, 2)]
)
def test_groups_inside_of_others_are_refused_by_a_step(around):
    params = pt.Tree({"frozen": jnp.ones(3), "w": jnp.ones(3)})
    optimiser = around(train.groups({"frozen": train.FROZEN, "**": optax.adam(0.1)}))
    step = train.step(lambda params, x: (params["w"] * params["frozen"] * x).sum(), optimiser)
    with pytest.raises(pt.StructureError, match="Make groups the outermost: clip with groups"):
        step.init(params)


def test_a_gradient_with_respect_to_another_transformation_is_refused():
    with pytest.raises(pt.PatternError, match="wrt= takes a selector or groups"):
        train.value_and_grad(lambda params: params["w"].sum(), wrt=optax.adam(0.1))({"w": jnp.ones(3)})


@pytest.mark.parametrize("is_stacked", [False, True])
def test_factors_go_over_all_groups(is_stacked):
    params = pt.Tree(
        {"embed": jnp.ones(2), "blocks": [{"w": jnp.ones(2), "bias": jnp.ones(1)}] * 3, "head": jnp.ones(2)}
    )
    params = pt.stacks.stack(params, "blocks") if is_stacked else params
    factors = train.depth_factors(params, 0.5, ["embed", "blocks/*", "head"])
    rules = {"embed": train.FROZEN, "**/bias": optax.sgd(1.0), "**": optax.sgd(2.0)}
    optimiser = train.groups(rules, factors=factors)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimiser.update(ones, optimiser.init(params), params)
    assert [float(updates[f"blocks/{at}/w"][0]) for at in range(3)] == [-0.25, -0.5, -1.0]
    assert [float(updates[f"blocks/{at}/bias"][0]) for at in range(3)] == [-0.125, -0.25, -0.5]
    assert (updates["head"][0], updates["embed"][0]) == (-2.0, 0.0)
    trained = pt.select(ones, optimiser.trained(params))
    alone, _ = optimiser.update(trained, optimiser.init(params), params)
    assert alone == pt.select(updates, optimiser.trained(params))
    with pytest.raises(pt.PatternError, match="matches nothing"):
        train.groups(rules, factors={"encoder": 0.5, "**": 1.0}).init(params)


@pytest.mark.parametrize(
    "make",
    [optax.lbfgs, lambda: optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(5))],
    ids=["lbfgs", "backtracking"],
)
def test_a_search_along_a_line_takes_the_steps_that_it_takes_alone(make):
    loss = lambda params, x: (params["a"].sum() + params["b"].sum()) ** 2 * x
    params = lambda: {"a": jnp.ones(2), "b": jnp.ones(3)}
    runs = []
    for optimiser in (make(), train.groups({"**": make()})):
        step = train.step(loss, optimiser)
        state = step.init(params())
        for _ in range(3):
            state, _ = step(state, 1.0)
        value, grad = jax.value_and_grad(loss)(params(), 1.0)
        of_hand = optimiser.init(params())
        by_hand, _ = optimiser.update(grad, of_hand, params(), value=value, grad=grad, value_fn=loss, x=1.0)
        runs.append((state.params, by_hand))
    jax.tree.map(np.testing.assert_array_equal, *runs)


@pytest.mark.parametrize("other", [train.FROZEN, optax.sgd(0.01)], ids=["frozen", "sgd"])
def test_a_search_along_a_line_beside_other_groups(other):
    loss = lambda params, x: (params["a"].sum() + params["b"].sum()) ** 2 * x
    step = train.step(loss, train.groups({"a": other, "**": optax.lbfgs()}))
    alone = train.step(lambda params, x: (2 + params["b"].sum()) ** 2 * x, optax.lbfgs())
    state, _ = step(step.init({"a": jnp.ones(2), "b": jnp.ones(3)}), 1.0)
    expected, _ = alone(alone.init({"b": jnp.ones(3)}), 1.0)
    np.testing.assert_allclose(state.params["b"], expected.params["b"], rtol=1e-6)
