"""State of optimisers that follows parameters: every optimiser of optax, every change of a model; shapes, counts, reports, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimisers import OPTIMISERS, loss

import ptree as pt
from ptree import train
from ptree.train import FROZEN, groups


def message(call):
    with pytest.raises(pt.PtreeError) as raised:
        call()
    return str(raised.value)


def array(number, *shape):
    return jax.random.normal(jax.random.fold_in(jax.random.key(0), number), shape)


def adversarial():
    """Parameters named as the fields of states are; leaves of equal shapes, so that another order would go unnoticed."""
    return {
        "mu": {"nu": array(1, 4, 3), "0": array(2, 3)},
        "0": {"count": array(3, 4, 3), "mu": {"mu": array(4, 4, 3)}},
        "count": array(5, 4, 3),
        "inner_state": {"mu": array(6, 3)},
        "learning_rate": array(7, 3),
    }


SWAPS = {
    "mu/nu": "count",
    "count": "0/count",
    "0/count": "mu/nu",
    "learning_rate": "inner_state/mu",
    "inner_state/mu": "learning_rate",
}


def numbered(tree, start=1.0):
    """Each leaf of a state with numbers of its own, so that any confusion of two shows."""
    leaves, structure = jax.tree.flatten(tree)
    new = []
    for at, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            leaf = (start + at + jnp.arange(leaf.size).reshape(leaf.shape) / 100).astype(leaf.dtype)
        elif jnp.issubdtype(leaf.dtype, jnp.integer):
            leaf = jnp.full_like(leaf, 7)
        new.append(leaf)
    return jax.tree.unflatten(structure, new)


def plain(leaf):
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(plain(x), plain(y))


def count_of(state):
    return int(optax.tree.get(state, "count"))


# -------------------------------------------------------------------------------- any optimiser


# what optax itself warns of
pytestmark = pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated:DeprecationWarning")


@pytest.mark.parametrize("kind", [dict, pt.Tree])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_any_optimiser_stays_as_it_is_where_nothing_changes(name, kind):
    params, optimiser = kind(adversarial()), OPTIMISERS[name]()
    state = numbered(optimiser.init(params))
    new, report = train.carry(state, params, params, optimiser)
    assert_equal(new, state)
    assert not report.fresh
    assert not report.dropped


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_state_of_any_optimiser_follows_names_that_change_places(name):
    # the optimiser itself says what is right: the state that it makes of renamed parameters is numbered by their values
    params, optimiser = adversarial(), OPTIMISERS[name]()
    renamed = pt.rename(params, SWAPS)
    state = numbered(optimiser.init(params))
    new, report = train.carry(state, params, renamed, optimiser, renames=SWAPS)
    assert not report.fresh
    back, _ = train.carry(new, renamed, params, optimiser, renames={to: name for name, to in SWAPS.items()})
    assert_equal(back, state)
    moments = {path: leaf for path, leaf in pt.items(state) if path.endswith("mu/mu/nu")}
    for path, leaf in moments.items():
        np.testing.assert_array_equal(pt.get(new, path.removesuffix("mu/nu") + "count"), leaf)


@pytest.mark.parametrize(
    "name", ["adam", "adafactor of small", "muon", "sm3", "schedule_free_adamw", "lbfgs without line search"]
)
def test_training_goes_on_with_renamed_parameters_as_with_the_old_names(name):
    optimiser = optax.with_extra_args_support(OPTIMISERS[name]())

    def steps(params, state, number):
        for _ in range(number):
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimiser.update(grads, state, params, value=value, grad=grads, value_fn=loss)
            params = optax.apply_updates(params, updates)
        return params, state

    before = pt.Tree(adversarial())
    params, state = steps(before, optimiser.init(before), 1)
    moved, _ = train.carry(state, params, pt.rename(params, SWAPS), optimiser, renames=SWAPS)
    expected = pt.rename(steps(params, state, 1)[0], SWAPS)
    got, _ = steps(pt.rename(params, SWAPS), moved, 1)
    for path, leaf in pt.items(expected):
        np.testing.assert_allclose(got[path], leaf, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_parameter_that_joins_in_groups_starts_as_with_a_new_optimiser_and_the_rest_goes_on(name):
    old, optimiser = pt.Tree(adversarial()), OPTIMISERS[name]()
    state = numbered(optimiser.init(old))
    new = pt.put(old, "mu/new", array(9, 3))
    carried, report = train.carry(state, old, new, groups({"**": optimiser}), before=optimiser)
    assert {*report.fresh} <= {"mu/new"}
    assert not report.dropped
    cohorts = {cohort.paths: cohort.state for cohort in carried.groups["**"]}
    if len(cohorts) == 1:  # nothing counts steps
        return
    assert_equal(cohorts[tuple(pt.paths(old))], state)
    joined = cohorts[("mu/new",)]
    expected = optimiser.init(pt.select(new, "mu/new"))
    assert jax.tree.structure(joined) == jax.tree.structure(expected)
    for path, leaf in pt.items(expected):
        if path.endswith("mu/new"):
            np.testing.assert_array_equal(pt.get(joined, path), leaf)


def test_a_state_of_a_single_leaf():
    optimiser = optax.adam(1e-3)
    state = numbered(optimiser.init(jnp.ones(3)))
    new, report = train.carry(state, jnp.ones(3), jnp.ones(3), optimiser)
    assert_equal(new, state)
    assert report.kept == ("",)
    assert str(report) == "kept 1: ['']"


def test_optimisers_in_optimisers():
    params = adversarial()
    labels = lambda p: jax.tree.map(lambda leaf: "matrix" if leaf.ndim == 2 else "vector", p)
    optimiser = optax.MultiSteps(
        optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.partition(
                {
                    "matrix": optax.inject_hyperparams(optax.adamw)(learning_rate=optax.linear_schedule(1.0, 0.0, 9)),
                    "vector": optax.masked(optax.sgd(0.1, momentum=0.9), lambda p: jax.tree.map(lambda leaf: True, p)),
                },
                labels,
            ),
        ),
        4,
    )
    state = numbered(optimiser.init(params))
    new, report = train.carry(state, params, params, optimiser)
    assert_equal(new, state)
    moved, report = train.carry(state, params, pt.rename(params, SWAPS), optimiser, renames=SWAPS)
    assert len(report.kept) == 7
    back, _ = train.carry(moved, pt.rename(params, SWAPS), params, optimiser, renames={b: a for a, b in SWAPS.items()})
    assert_equal(back, state)


def test_masks_by_whole_paths_and_masks_as_trees():
    params = pt.Tree({"enc": {"kernel": array(1, 4, 3), "bias": array(2, 3)}, "head": array(3, 3)})
    by_path = lambda p: jax.tree_util.tree_map_with_path(lambda keys, _: len(keys) == 2 and keys[1].key == "kernel", p)
    for mask in (by_path, by_path(params), pt.mask(params, "enc/kernel"), {"enc": True, "head": False}):
        if isinstance(mask, dict):
            mask = pt.Tree(mask)
        optimiser = optax.masked(optax.adam(1e-3), mask)
        state = numbered(optimiser.init(params))
        new, report = train.carry(state, params, params, optimiser)
        assert_equal(new, state)
        assert "enc/kernel" in report.kept


def test_an_array_over_all_parameters_is_kept_only_where_they_are_the_same_ones_in_order():
    params = {"a": array(1, 3), "b": array(2, 3)}
    optimiser = optax.flatten(optax.adam(1e-3))
    state = numbered(optimiser.init(params))
    new, _ = train.carry(state, params, params, optimiser)
    assert_equal(new, state)
    swapped, _ = train.carry(state, params, params, optimiser, renames={"a": "b", "b": "a"})
    assert_equal(swapped, optimiser.init(params))  # the count too


# ------------------------------------------------------------------------------------- changes


def test_an_old_count_is_not_for_new_slots():
    old = {"a": jnp.ones(3)}
    new = {**old, "head": jnp.ones(5)}
    optimiser = optax.adam(1e-3)
    state = optimiser.init(old)
    for _ in range(3):
        _, state = optimiser.update(old, state)
    state = (state[0]._replace(count=jnp.array(1000)), state[1])
    with pytest.raises(pt.StructureError) as error:
        train.carry(state, old, new, optimiser)
    assert str(error.value) == (
        "cannot carry the state over: ScaleByAdamState has one count for all leaves, and ['head'] must not go by that of the"
        ' others (a new parameter). ptree.train.groups({"**": optimiser}), with before=optimiser, has a count for them; or'
        " say if_counts_differ='keep', or 'restart' for all"
    )
    kept, _ = train.carry(state, old, new, optimiser, if_counts_differ="keep")
    assert count_of(kept) == 1000
    assert float(kept[0].mu["a"][0]) > 0
    restarted, report = train.carry(state, old, new, optimiser, if_counts_differ="restart")
    assert_equal(restarted, optimiser.init(new))
    assert report.fresh == {"a": "starts anew with the others", "head": "a new parameter"}
    assert "3" in message(lambda: train.carry(state, old, new, optimiser, if_counts_differ=3))

    # the recommended way: the first step of the new leaf is the rate, that of a leaf under the old count is larger
    divided = groups({"**": optimiser})
    joined, _ = train.carry(state, old, new, divided, before=optimiser)
    updates, _ = divided.update(jax.tree.map(jnp.ones_like, new), joined, new)
    np.testing.assert_allclose(updates["head"], -1e-3, rtol=1e-4)
    updates, _ = optimiser.update(jax.tree.map(jnp.ones_like, new), kept, new)
    assert float(-updates["head"][0]) > 2.5e-3


def test_new_slots_join_a_state_that_counts_nothing_or_only_a_schedule():
    old = {"a": jnp.ones(3)}
    new = {**old, "head": jnp.ones(5)}
    optimiser = optax.sgd(optax.linear_schedule(1.0, 0.0, 10), momentum=0.9)
    state = numbered(optimiser.init(old))
    carried, report = train.carry(state, old, new, optimiser)
    assert (report.kept, report.fresh) == (("a",), {"head": "a new parameter"})
    assert count_of(carried) == 7
    assert float(carried[0].trace["a"][0]) == 1
    assert float(carried[0].trace["head"].sum()) == 0


def test_a_slot_of_another_shape_is_never_broadcast():
    old, new = {"head": jnp.ones(1), "w": jnp.ones(3)}, {"head": jnp.ones(5), "w": jnp.ones(3)}
    optimiser = optax.sgd(1.0, momentum=0.9)
    state = numbered(optimiser.init(old))
    carried, report = train.carry(state, old, new, optimiser)
    assert carried[0].trace["head"].tolist() == [0] * 5
    assert report.fresh == {"head": "its shape is (5,) now, (1,) before"}
    assert report.dropped == ("head",)
    assert str(report) == "kept 1: ['w']\nfresh 1:\n  head: its shape is (5,) now, (1,) before\ndropped 1: ['head']"


def test_rows_and_columns_of_adafactor_start_anew_together():
    # v_row keeps its shape where only the columns change
    optimiser = optax.adafactor(1e-3, min_dim_size_to_factor=2)
    old, new = {"w": jnp.ones((4, 6)), "b": jnp.ones(2)}, {"w": jnp.ones((4, 8)), "b": jnp.ones(2)}
    state = numbered(optimiser.init(old))
    carried, _ = train.carry(state, old, new, optimiser, if_counts_differ="keep")
    assert float(pt.get(carried, "0/v_row/w").sum()) == 0
    assert float(pt.get(carried, "0/v_col/w").sum()) == 0
    assert float(pt.get(carried, "0/v/b")[0]) > 0


def test_dropped_parameters():
    old = {"a": jnp.ones(3), "b": jnp.ones(2)}
    optimiser = optax.adam(1e-3)
    state = numbered(optimiser.init(old))
    carried, report = train.carry(state, old, {"a": old["a"]}, optimiser)
    assert (report.kept, report.dropped, count_of(carried)) == (("a",), ("b",), 7)


def test_ties_that_are_made_and_ties_that_go():
    table = array(1, 5, 3)
    apart = pt.Tree({"embed": table, "head": table.T, "bias": jnp.ones(5)})
    tied = pt.tie(apart, {"head": pt.transposed("embed")})
    optimiser = optax.adam(1e-3)
    state = numbered(optimiser.init(apart))
    together, report = train.carry(state, apart, tied, optimiser)
    assert report.dropped == ("head",)
    np.testing.assert_array_equal(together[0].mu["embed"], state[0].mu["embed"])
    again, report = train.carry(together, tied, apart, optimiser)
    assert report.kept == ("embed", "head", "bias")
    np.testing.assert_array_equal(again[0].mu["head"], state[0].mu["embed"].T)
    assert_equal(jax.jit(lambda s: s, donate_argnums=0)(jax.tree.map(jnp.copy, again)), again)
    # the source is the other one now, seen through the transpose
    other = pt.tie(apart, {"embed": pt.transposed("head")})
    turned, report = train.carry(together, tied, other, optimiser)
    assert report.kept == ("head", "bias")
    np.testing.assert_array_equal(turned[0].mu["head"], state[0].mu["embed"].T)


def test_leaves_that_share_a_slot_get_arrays_of_their_own():
    tied = pt.tie({"a": jnp.ones(3), "b": jnp.ones(3)}, {"b": "a"})
    optimiser = optax.sgd(1.0, momentum=0.9)
    state = numbered(optimiser.init(tied))
    carried, _ = train.carry(state, tied, pt.untie(tied), optimiser)
    expected = (2 * state[0].trace["a"]).tolist()
    doubled = jax.jit(lambda s: jax.tree.map(lambda x: 2 * x, s), donate_argnums=0)(
        carried
    )  # the same buffer twice raises
    assert doubled[0].trace["b"].tolist() == expected


def test_rows_that_a_transpose_would_turn_start_anew():
    optimiser = optax.adafactor(1e-3, min_dim_size_to_factor=2)
    apart = pt.Tree({"embed": array(1, 4, 4), "head": array(2, 4, 4), "b": jnp.ones(2)})
    tied = pt.tie(pt.set(apart, "head", apart["embed"].T), {"head": pt.transposed("embed")})
    state = numbered(optimiser.init(tied))
    _, report = train.carry(state, tied, apart, optimiser, if_counts_differ="keep")
    assert [*report.fresh] == ["head"]


LIKE_APART = ("adam", "lion", "sgd with momentum", "rmsprop", "schedule_free_adamw", "lbfgs without line search")


@pytest.mark.parametrize("name", LIKE_APART)
def test_stacks_that_are_made_and_stacks_that_go(name):
    optimiser = OPTIMISERS[name]()
    block = lambda at: {"kernel": array(at, 4, 3), "bias": array(9 + at, 3)}
    apart = pt.Tree({"embed": array(0, 3), "blocks": [block(1), block(2), block(3)]})
    stacked = pt.stacks.stack(apart, "blocks")
    state = numbered(optimiser.init(apart))
    carried, report = train.carry(state, apart, stacked, optimiser)
    assert not report.fresh
    assert not report.dropped
    back, report = train.carry(carried, stacked, apart, optimiser)
    assert_equal(back, state)
    for path, leaf in pt.items(state):
        before, found, below = path.partition("blocks/1/")
        if found:
            own_axes = (
                leaf.ndim - pt.get(apart, f"blocks/1/{below}").ndim
            )  # lbfgs has one before those of the parameter
            stacked_slot = pt.get(carried, f"{before}blocks/:/{below}")
            np.testing.assert_array_equal(jnp.take(stacked_slot, 1, own_axes), leaf)


def test_stacks_in_stacks():
    layer = lambda at: {"w": array(at, 3)}
    apart = pt.Tree({"a": [{"b": [layer(1), layer(2)]}, {"b": [layer(3), layer(4)]}, {"b": [layer(5), layer(6)]}]})
    inner = apart
    for at in range(3):
        inner = pt.stacks.stack(inner, f"a/{at}/b")
    both = pt.stacks.stack(inner, "a")
    optimiser = optax.adam(1e-3)
    state = numbered(optimiser.init(apart))
    for other in (inner, both):
        carried, report = train.carry(state, apart, other, optimiser)
        assert not report.fresh
        back, _ = train.carry(carried, other, apart, optimiser)
        assert_equal(back, state)
    from_inner, _ = train.carry(train.carry(state, apart, inner, optimiser)[0], inner, both, optimiser)
    assert_equal(from_inner, train.carry(state, apart, both, optimiser)[0])
    assert from_inner[0].mu["a/2/b/1/w"].tolist() == state[0].mu["a/2/b/1/w"].tolist()


def test_norms_of_a_whole_stack_are_not_those_of_its_layers():
    optimiser = optax.novograd(1e-3)  # one number for each leaf
    apart = pt.Tree({"blocks": [{"w": array(at, 3)} for at in range(2)], "b": jnp.ones(2)})
    stacked = pt.stacks.stack(apart, "blocks")
    _, report = train.carry(numbered(optimiser.init(apart)), apart, stacked, optimiser, if_counts_differ="keep")
    assert [*report.fresh] == ["blocks/:/w"]
    _, report = train.carry(numbered(optimiser.init(stacked)), stacked, apart, optimiser, if_counts_differ="keep")
    assert [*report.fresh] == ["blocks/0/w", "blocks/1/w"]


def test_by_layer_between_a_stack_and_single_layers():
    optimiser = train.by_layer(optax.novograd(1e-3))
    apart = pt.Tree({"blocks": [{"w": array(at, 3)} for at in range(2)], "b": jnp.ones(2)})
    stacked = pt.stacks.stack(apart, "blocks")
    state = numbered(optimiser.init(apart))
    carried, report = train.carry(state, apart, stacked, optimiser)
    assert not report.fresh
    back, report = train.carry(carried, stacked, apart, optimiser)
    assert not report.fresh
    assert_equal(back, state)


def test_slots_change_their_width_and_not_their_kind():
    params = {"w": jnp.ones(3)}
    wide, narrow = optax.adam(1e-3), optax.adam(1e-3, mu_dtype=jnp.bfloat16)
    state = numbered(wide.init(params))
    carried, report = train.carry(state, params, params, narrow, before=wide)
    assert carried[0].mu["w"].dtype == jnp.bfloat16
    assert report.kept == ("w",)
    back, _ = train.carry(carried, params, params, wide, before=narrow)
    assert back[0].mu["w"].dtype == jnp.float32


def test_parts_of_optimisers_around_others():
    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    before = optax.adam(1e-3)
    after = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.inject_hyperparams(optax.adamw)(learning_rate=optax.linear_schedule(1e-3, 0.0, 10)),
    )
    state = numbered(before.init(params))
    carried, report = train.carry(state, params, params, after, before=before)
    assert report.kept == ("w", "b")
    np.testing.assert_array_equal(optax.tree.get(carried, "mu")["w"], state[0].mu["w"])


def test_slots_of_another_kind_are_not_taken_for_ones_of_equal_shape():
    params = {"w": jnp.ones(3)}
    before, after = optax.sgd(0.1, momentum=0.9), optax.adam(1e-3)
    carried, report = train.carry(numbered(before.init(params)), params, params, after, before=before)
    assert_equal(carried, after.init(params))
    assert report.fresh == {"w": "the old optimiser keeps no such slots"}
    assert report.dropped == ("w",)


# -------------------------------------------------------------------------------------- groups


def three():
    return pt.Tree(
        {"embed": array(1, 5, 3), "enc": {"kernel": array(2, 3, 3), "bias": array(3, 3)}, "head": array(4, 3, 2)}
    )


def counts(state, rule="**"):
    return {cohort.paths: count_of(cohort.state) for cohort in state.groups[rule]}


def stepped(optimiser, params, state, number=1):
    for _ in range(number):
        _, state = optimiser.update(jax.tree.map(jnp.ones_like, params), state, params)
    return state


def test_leaves_are_unfrozen_one_after_the_other():
    params, inner = three(), optax.adam(1e-3)
    head = groups({"head": inner, "**": FROZEN})
    top = groups({"{head,enc}": inner, "embed": FROZEN})
    every = groups({"**": inner})
    state = stepped(head, params, head.init(params), 3)
    state, report = train.carry(state, params, params, top, before=head)
    assert report.fresh == {"enc/kernel": "was not trained before", "enc/bias": "was not trained before"}
    state = stepped(top, params, state, 2)
    state, report = train.carry(state, params, params, every, before=top)
    assert counts(state) == {("enc/kernel", "enc/bias"): 2, ("head",): 5, ("embed",): 0}
    updates, state = every.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_allclose(updates["embed"], -1e-3, rtol=1e-4)
    assert set(counts(state).values()) == {3, 6, 1}
    # frozen again, and thawed: what was dropped starts anew
    frozen, report = train.carry(state, params, params, head, before=every)
    assert {*report.dropped} == {"enc/kernel", "enc/bias", "embed"}
    assert {*report.kept} == {"head"}
    thawed, _ = train.carry(frozen, params, params, every, before=head)
    assert counts(thawed) == {("head",): 6, ("embed", "enc/kernel", "enc/bias"): 0}


def test_leaves_that_go_by_equal_counts_are_one_cohort():
    params, inner = three(), optax.adam(1e-3)
    divided = groups({"embed": optax.adam(1e-4), "**": inner})
    state = stepped(divided, params, divided.init(params), 2)
    together, report = train.carry(state, params, params, groups({"**": inner}), before=divided)
    assert counts(together) == {tuple(pt.paths(params)): 2}
    assert not report.fresh
    new = pt.put(params, "other", jnp.ones(2))  # before the first step a new leaf joins the others
    joined, _ = train.carry(groups({"**": inner}).init(params), params, new, groups({"**": inner}))
    assert counts(joined) == {tuple(pt.paths(new)): 0}


def test_a_leaf_that_joins_goes_by_the_schedule_of_its_rule():
    inner = optax.adam(optax.linear_schedule(1.0, 0.0, 10))
    before, after = groups({"embed": FROZEN, "**": inner}), groups({"**": inner})
    params = three()
    state = stepped(before, params, before.init(params), 4)
    state, _ = train.carry(state, params, params, after, before=before)
    updates, _ = after.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_allclose(updates["embed"], -0.6, rtol=1e-4)
    np.testing.assert_allclose(updates["head"], -0.6, rtol=1e-4)


def test_rules_change_and_slots_go_to_the_leaf_wherever_it_is():
    params = three()
    before = groups({"**/bias": optax.adam(1e-2), "**": optax.adam(1e-3)})
    after = groups({"{embed,head}": optax.adam(1e-4), "enc/*": optax.sgd(0.1)})
    state = numbered(before.init(params))
    carried, report = train.carry(state, params, params, after, before=before)
    assert report.kept == ("embed", "head")
    assert report.dropped == ("enc/kernel", "enc/bias")
    mu = carried.groups["{embed,head}"][0].state[0].mu
    np.testing.assert_array_equal(mu["head"], state.groups["**"][0].state[0].mu["head"])


def test_groups_on_other_optimisers_and_back():
    params, inner = three(), optax.adamw(1e-3)
    state = numbered(inner.init(params))
    divided = groups({"**": inner})
    inside, report = train.carry(state, params, params, divided, before=inner)
    assert_equal(inside.groups["**"][0].state, state)
    outside, report = train.carry(inside, params, params, inner, before=divided)
    assert_equal(outside, state)
    assert not report.fresh


def test_a_reshaped_leaf_of_a_group_has_a_count_of_its_own():
    params, optimiser = three(), groups({"**": optax.adam(1e-3)})
    new = pt.put(params, "head", jnp.ones((3, 7)))
    state, _ = train.carry(stepped(optimiser, params, optimiser.init(params), 5), params, new, optimiser)
    assert counts(state) == {("embed", "enc/kernel", "enc/bias"): 5, ("head",): 0}


def test_a_stack_of_layers_that_joined_at_different_times_starts_anew():
    inner = optax.adam(1e-3)
    apart = pt.Tree({"blocks": [{"w": array(at, 3)} for at in range(2)]})
    first, both = groups({"blocks/0": inner, "**": FROZEN}), groups({"**": inner})
    state = stepped(first, apart, first.init(apart), 2)
    state, _ = train.carry(state, apart, apart, both, before=first)
    stacked = pt.stacks.stack(apart, "blocks")
    carried, report = train.carry(state, apart, stacked, both)
    assert report.fresh == {"blocks/:/w": "its step counts differ, or do not fit"}
    assert counts(carried) == {("blocks/:/w",): 0}


# -------------------------------------------------------------------------------------- resized


@pytest.mark.parametrize("name", ["adam", "adafactor of small", "sm3", "sgd with momentum", "novograd"])
def test_rows_of_slots_stay_where_a_table_grows_or_shrinks(name):
    optimiser = OPTIMISERS[name]()
    old = pt.Tree({"table": array(1, 5, 3), "b": jnp.ones(2)})
    for rows in (8, 4):
        new = pt.put(old, "table", jnp.ones((rows, 3)))
        state = numbered(optimiser.init(old))
        carried, report = train.carry(state, old, new, optimiser, resized="table")
        assert report.kept == ("table", "b")
        assert jax.tree.structure(carried) == jax.tree.structure(optimiser.init(new))
        for path, leaf in pt.items(carried):
            before, fresh = pt.get(state, path), pt.get(optimiser.init(new), path)
            assert leaf.shape == fresh.shape
            shared = tuple(slice(min(a, b)) for a, b in zip(leaf.shape, before.shape, strict=True))
            np.testing.assert_array_equal(leaf[shared], before[shared])
            if rows == 8 and leaf.shape != before.shape and leaf.shape[0] == 8:
                np.testing.assert_array_equal(leaf[5:], fresh[5:])


def test_rows_of_which_an_optimiser_begins_to_keep_sums_start_anew():
    optimiser = optax.adafactor(1e-3, min_dim_size_to_factor=6)
    old, new = {"w": jnp.ones((5, 7)), "b": jnp.ones(2)}, {"w": jnp.ones((8, 7)), "b": jnp.ones(2)}
    state = numbered(optimiser.init(old))
    carried, report = train.carry(state, old, new, optimiser, resized="w", if_counts_differ="keep")
    assert [*report.fresh] == ["w"]
    assert float(pt.get(carried, "0/v_row/w").sum()) == 0


def test_a_deeper_stack_by_resized():
    optimiser = optax.adam(1e-3)
    blocks = lambda n: pt.stacks.stack(pt.Tree({"blocks": [{"w": array(at, 3)} for at in range(n)]}), "blocks")
    state = numbered(optimiser.init(blocks(2)))
    carried, _ = train.carry(state, blocks(2), blocks(3), optimiser, resized="blocks")
    np.testing.assert_array_equal(carried[0].mu["blocks/1/w"], state[0].mu["blocks/1/w"])
    assert carried[0].mu["blocks/2/w"].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------ placement


def test_slots_are_where_their_parameters_are():
    mesh = jax.make_mesh((8,), ("data",))
    spread = jax.NamedSharding(mesh, jax.P("data"))
    params = {"w": jax.device_put(array(1, 8, 2), spread), "b": jnp.ones(3)}
    optimiser = groups({"**": optax.adam(1e-3)})
    state = stepped(optimiser, params, optimiser.init(params))
    new = {**params, "other": jax.device_put(array(2, 16), spread)}
    carried, _ = train.carry(state, params, new, optimiser)
    first, second = carried.groups["**"]
    assert first.state[0].mu["w"].sharding == spread
    assert second.state[0].nu["other"].sharding == spread
    turned = {"w": jax.device_put(params["w"], jax.NamedSharding(mesh, jax.P(None))), "b": params["b"]}
    carried, _ = train.carry(state, params, turned, optimiser)
    assert carried.groups["**"][0].state[0].mu["w"].sharding == turned["w"].sharding


def test_only_fresh_slots_take_memory():
    # the old parameters may be shapes alone, and kept slots are the same arrays
    old = {"w": jnp.ones(3)}
    optimiser = optax.adam(1e-3)
    state = optimiser.init(old)
    carried, _ = train.carry(state, pt.abstract(old), old, optimiser)
    assert carried[0].mu["w"] is state[0].mu["w"]
    assert carried[0].count is state[0].count


# --------------------------------------------------------------------------------------- errors


def test_a_state_of_another_optimiser():
    params = {"w": jnp.ones(3)}
    error = message(lambda: train.carry(optax.sgd(0.1, momentum=0.9).init(params), params, params, optax.adam(1e-3)))
    assert error == (
        "the state is of another optimiser, or of other parameters:\n"
        "  missing in the state: ['0/count', '0/mu/w', '0/nu/w']\n"
        "  unexpected in the state: ['0/trace/w']\n"
        "Give the optimiser that made the state as before=, and the parameters that it was made for as `old`."
    )


def test_a_state_of_other_parameters():
    optimiser = optax.adam(1e-3)
    state = optimiser.init({"w": jnp.ones(1)})
    error = message(lambda: train.carry(state, {"w": jnp.ones(5)}, {"w": jnp.ones(5)}, optimiser))
    assert "'0/mu/w': expected f32[5] by the optimiser, got f32[1] in the state" in error
    error = message(lambda: train.carry(state, {"v": jnp.ones(1)}, {"v": jnp.ones(1)}, optimiser))
    assert "0/mu/v" in error
    assert "0/mu/w" in error


def test_states_of_other_groups():
    params, inner = three(), optax.adam(1e-3)
    optimiser = groups({"**": inner})
    error = message(lambda: train.carry(inner.init(params), params, params, optimiser))
    assert "makes a GroupsState, got tuple" in error
    assert "before=" in error
    other = groups({"enc": inner, "**": FROZEN})
    error = message(lambda: train.carry(other.init(params), params, params, optimiser))
    assert error == (
        "the state is of other groups: it has the rules ['enc'], the optimiser has ['**']."
        " Give the groups that made it as before="
    )
    smaller = pt.drop(params, "head")
    error = message(lambda: train.carry(optimiser.init(params), smaller, smaller, optimiser))
    assert error == "the state is of other parameters: it has slots of ['head'], which are not in `old`"
    with pytest.raises(pt.PatternError, match="haed"):
        train.carry(optimiser.init(params), params, params, groups({"haed": inner, "**": inner}), before=optimiser)


def test_names_and_selectors_that_match_nothing():
    params, optimiser = three(), optax.adam(1e-3)
    state = optimiser.init(params)
    with pytest.raises(pt.PatternError, match="encoder"):
        train.carry(state, params, params, optimiser, renames={"encoder": "enc"})
    with pytest.raises(pt.PatternError, match="embde"):
        train.carry(state, params, params, optimiser, resized="embde")


def test_a_sum_over_a_leaf_that_is_turned_now_says_why_it_starts_anew():
    old = pt.Tree({"e": jnp.ones((3, 2)), "h": pt.transposed("e")})
    new = pt.Tree({"h": jnp.ones((2, 3)), "e": pt.transposed("h")})
    optimiser = optax.novograd(0.1)
    _, state = optimiser.update(old, optimiser.init(old), old)
    _, report = train.carry(state, old, new, train.groups({"**": optimiser}), before=optimiser)
    assert report.fresh["h"].startswith("'nu' was made of the whole leaf as it was, with other axes")
