"""A container of another library is tied by one call, and filled again by one: `tie(model, table)`, `unflatten(tied, like=model)`."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from foreign import FOREIGN, TwoDense, TwoLinear
from trees import arange, equal

import ptree as pt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox as eqx
    import haiku as hk
    from flax import nnx
    from flax.core import freeze
    from flax.struct import dataclass

KEY = jax.random.key(0)
X = jnp.ones((2, 3))


@dataclass
class Pair:
    a: dict
    b: dict


def haiku_params():
    net = hk.transform(lambda x: hk.nets.MLP([3, 3])(x))
    return net.init(jax.random.PRNGKey(0), X)


def with_pair(container):
    layer = {"w": arange(2, 2), "b": arange(2)}
    return container(layer, {name: leaf + 10 for name, leaf in layer.items()})


MODELS = {
    "linen": (TwoDense().init(KEY, X), {"params/Dense_1": "params/Dense_0"}),
    "FrozenDict": (freeze(TwoDense().init(KEY, X)), {"params/Dense_1": "params/Dense_0"}),
    "nnx state": (nnx.state(TwoLinear(nnx.Rngs(0))), {"b": "a"}),
    "nnx pure dict": (nnx.to_pure_dict(nnx.state(TwoLinear(nnx.Rngs(0)))), {"b": "a"}),
    "nnx module": (TwoLinear(nnx.Rngs(0)), {"b": "a"}),
    "equinox": (eqx.nn.MLP(3, 3, 3, 2, key=KEY), {"layers/2": "layers/1"}),
    "equinox arrays": (eqx.filter(eqx.nn.MLP(3, 3, 3, 2, key=KEY), eqx.is_array), {"layers/2": "layers/1"}),
    "haiku": (haiku_params(), {"mlp/~/linear_1": "mlp/~/linear_0"}),
    "list": (with_pair(lambda a, b: [a, b]), {"1": "0"}),
    "tuple": (with_pair(lambda a, b: (a, b)), {"1": "0"}),
    "flax dataclass": (with_pair(Pair), {"b": "a"}),
    "transposed": (with_pair(lambda a, b: [a, b]), {"1/w": pt.transposed("0/w")}),
    "adam's state": (optax.adam(1e-3).init(with_pair(Pair)), {"0/nu": "0/mu"}),
}


@pytest.mark.parametrize(("model", "table"), MODELS.values(), ids=MODELS)
def test_a_model_is_tied_by_one_call_and_filled_by_one(model, table):
    if isinstance(model, tuple) and isinstance(model[0], optax.ScaleByAdamState):
        model, table = model[0], {"nu": "mu"}  # a tuple becomes a Tree, and what lies in it stays whole
    tied = pt.tie(model, table)
    assert type(tied) is pt.Tree
    ties = pt.ties(tied)
    assert ties
    assert len(jax.tree.leaves(tied)) == len(jax.tree.leaves(model)) - len(ties)
    back = pt.unflatten(tied, like=model)
    assert type(back) is type(model)
    assert jax.tree.structure(back) == jax.tree.structure(model)
    at = dict(pt.items(back))
    every_name = dict(pt.items(tied, aliases=True))
    assert at.keys() == every_name.keys() == dict(pt.items(model)).keys()
    assert all(at[name] is leaf or np.array_equal(at[name], leaf) for name, leaf in every_name.items())
    (alias, source), *_ = pt.ties(tied).items()
    if isinstance(source, str):
        assert jax.tree.leaves(pt.get(back, alias))[0] is jax.tree.leaves(pt.get(back, source))[0]


def pairs_of_leaves():
    """In each pytree of the corpus two arrays of one shape and dtype that are not the same."""
    for name, tree in FOREIGN.items():
        arrays = [(path, leaf) for path, leaf in pt.items(tree) if isinstance(leaf, jax.Array)]
        found = [
            (a, b)
            for a, one in arrays
            for b, other in arrays
            if a < b and (one.shape, one.dtype) == (other.shape, other.dtype)
        ]
        if found:
            yield pytest.param(tree, *found[0], id=name)


PAIRS = list(pairs_of_leaves())


def test_the_corpus_has_many_pairs():
    assert len(PAIRS) > 60


@pytest.mark.parametrize(("tree", "source", "alias"), PAIRS)
def test_any_two_leaves_that_fit_are_tied_and_the_container_comes_back(tree, source, alias):
    tied = pt.tie(pt.flatten(tree), {alias: source})
    back = pt.unflatten(tied, like=tree)
    assert type(back) is type(tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    assert pt.get(back, alias) is pt.get(back, source) is pt.get(tree, source)
    for path, leaf in pt.items(tree):
        assert path == alias or pt.get(back, path) is leaf
    assert jax.tree.structure(pt.unflatten(pt.flatten(tied), like=tree)) == jax.tree.structure(tree)
    assert equal(pt.unflatten(tied, like=tied), tied)


def test_a_flat_dict_with_ties_fills_a_container_with_what_they_read():
    tied = pt.tie({"e": arange(2, 3), "h": arange(3, 2)}, {"h": pt.transposed("e")})
    like = Pair({"w": 0}, {"w": 0})
    flat = {"a/w": tied["e"], "b/w": pt.transposed("a/w")}
    back = pt.unflatten(flat, like=like)
    np.testing.assert_array_equal(back.b["w"], tied["h"])
    untied = pt.unflatten(pt.flatten(tied), like={"e": 0, "h": 0})
    np.testing.assert_array_equal(untied["h"], tied["h"])
    with pytest.raises(pt.TieError, match="'b/w'"):
        pt.unflatten({"a/w": pt.transposed("b/w"), "b/w": pt.transposed("a/w")}, like=like)


def blocks(count):
    return [{"w": arange(2, 3, start=10 * at), "b": arange(3, start=at)} for at in range(count)]


def test_a_stack_fills_single_layers():
    model = (Pair({"blocks": blocks(3)}, {}), arange(2))
    tree = pt.Tree(pt.flatten(model))
    stacked = pt.stacks.stack(tree, "0/a/blocks")
    assert len(jax.tree.leaves(stacked)) == 3
    assert equal(pt.unflatten(stacked, like=model), model)
    assert equal(pt.unflatten(stacked, like=tree), tree)
    assert equal(pt.unflatten(stacked, like=stacked), stacked)
    doubled = jax.jit(lambda stacked: pt.unflatten(stacked, like=model))(
        pt.update(stacked, "0/a/blocks/:", lambda w: 2 * w)
    )
    assert equal(doubled[0].a["blocks"][2]["w"], 2 * model[0].a["blocks"][2]["w"])


@pytest.mark.parametrize(
    ("count", "problem"),
    [(2, r"unexpected: \['blocks/2/b', 'blocks/2/w'\]"), (4, r"missing: \['blocks/3/b', 'blocks/3/w'\]")],
)
def test_a_stack_of_more_or_fewer_layers_is_refused(count, problem):
    stacked = pt.stacks.stack(pt.Tree({"blocks": blocks(3)}), "blocks")
    with pytest.raises(pt.StructureError, match=problem):
        pt.unflatten(stacked, like={"blocks": blocks(count)})


def test_stacks_in_stacks_and_tied_stacks_fill_single_layers():
    model = {"enc": [{"in": blocks(2)} for _ in range(3)], "dec": [{"in": blocks(2)} for _ in range(3)]}
    stacked = pt.Tree(model)
    for path in ("enc", "dec", "enc/:/in", "dec/:/in"):
        stacked = pt.stacks.stack(stacked, path)
    stacked = pt.tie(stacked, {"dec": "enc"})
    assert pt.ties(stacked) == {"dec/:/in/:/b": "enc/:/in/:/b", "dec/:/in/:/w": "enc/:/in/:/w"}
    back = pt.unflatten(stacked, like=model)
    assert equal(back, {"enc": model["enc"], "dec": model["enc"]})
    inside = pt.stacks.stack(
        pt.Tree({"blocks": [{"e": arange(2, 3), "h": pt.transposed(f"blocks/{at}/e")} for at in range(2)]}), "blocks"
    )
    back = pt.unflatten(inside, like={"blocks": [{"e": 0, "h": 0}] * 2})
    assert back["blocks"][1]["h"].shape == (3, 2)


def test_two_values_for_one_tied_leaf_are_an_error():
    like = pt.tie({"a": arange(2), "b": arange(2)}, {"b": "a"})
    for given in ({"a": arange(2), "b": arange(2) + 1}, pt.Tree({"a": arange(2), "b": arange(2) + 1})):
        says(
            pt.TieError,
            "cannot unflatten into `like`: 'b' is tied to 'a' there, and their values differ."
            " Give both the same value, or untie `like` first.",
            pt.unflatten, given, like,
        )  # fmt: skip
    assert pt.ties(pt.unflatten({"a": arange(2), "b": arange(2)}, like=like)) == {"b": "a"}
    assert pt.ties(jax.jit(lambda a, b: pt.unflatten({"a": a, "b": b}, like=like))(arange(2), arange(2) + 1)) == {
        "b": "a"
    }


def test_what_does_not_fit_a_container_is_one_error():
    model = eqx.filter(eqx.nn.MLP(3, 3, 3, 2, key=KEY), eqx.is_array)
    tied = pt.tie(model, {"layers/2": "layers/1"})
    says(
        pt.StructureError,
        "cannot unflatten into `like`:\n  missing: ['layers/1/bias']\n  unexpected: ['head']",
        pt.unflatten, pt.put(pt.drop(tied, "layers/1/bias"), "head", X), model,
    )  # fmt: skip
    says(
        pt.StructureError, "unflatten takes a flat dict, path -> leaf, or a Tree; got f32[2,3]", pt.unflatten, X, model
    )


def test_gradients_of_a_tied_model_are_the_sums_of_both_uses():
    model = eqx.nn.MLP(3, 3, 3, 2, activation=jnp.tanh, key=KEY)
    arrays, static = eqx.partition(model, eqx.is_array)

    def loss(tied):
        return jax.vmap(eqx.combine(pt.unflatten(tied, like=arrays), static))(X).sum()

    tied = pt.tie(arrays, {"layers/2": "layers/1"})
    grads = jax.grad(loss)(tied)
    both = pt.unflatten(tied, like=arrays)
    apart = jax.grad(lambda both: jax.vmap(eqx.combine(both, static))(X).sum())(both)
    for name in ("weight", "bias"):
        by_hand = pt.get(apart, f"layers/1/{name}") + pt.get(apart, f"layers/2/{name}")
        np.testing.assert_allclose(grads[f"layers/2/{name}"], by_hand, rtol=1e-5)
