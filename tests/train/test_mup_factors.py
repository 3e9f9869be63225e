"""The factors of muP: by the table of the paper, and by the coordinate check, which trains models of several widths."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import initializers as I
from ptree import nn, train

BASE = 64


def shapes(width, layers=2):
    layer = {"kernel": jnp.ones((width, width)), "bias": jnp.ones(width), "norm/scale": jnp.ones(width)}
    return pt.Tree(
        {
            "embed/table": jnp.ones((9, width)),
            "blocks": [layer] * layers,
            "head": {"kernel": jnp.ones((width, 9)), "bias": jnp.ones(9)},
        }
    )


def by_path(tree, rules):
    return {path: pt.get(pt.label(tree, rules), path) for path in pt.paths(tree)}


def test_adam_and_sgd_have_the_factors_of_the_table():
    wide, base = shapes(256), shapes(BASE)
    adam = by_path(wide, train.mup_factors(wide, base))
    sgd = by_path(wide, train.mup_factors(wide, base, family="sgd"))
    assert {path: (adam[path], sgd[path]) for path in adam if not path.startswith("blocks/1")} == {
        "embed/table": (1, 4),
        "blocks/0/kernel": (1 / 4, 1),
        "blocks/0/bias": (1, 4),
        "blocks/0/norm/scale": (1, 4),
        "head/kernel": (1 / 4, 1 / 4),
        "head/bias": (1, 1),
    }


def test_one_table_of_rules_fits_stacked_and_single_layers_of_any_depth():
    wide = shapes(256, 5)
    rules = train.mup_factors(wide, shapes(BASE, 5))
    assert rules == {"blocks/*/kernel": 0.25, "head/kernel": 0.25, "**": 1.0}
    stacked = pt.stacks.stack(wide, "blocks")
    assert train.mup_factors(stacked, pt.stacks.stack(shapes(BASE), "blocks")) == rules
    optimiser = train.groups({"embed": train.FROZEN, "**": optax.sgd(1.0)}, factors=rules)
    updates, _ = optimiser.update(stacked, optimiser.init(stacked), stacked)
    assert float(updates["blocks/3/kernel"][0, 0]) == -0.25
    assert float(updates["blocks/:/bias"][3, 0]) == -1


def test_layers_of_other_widths_have_rules_of_their_own():
    wide = pt.Tree({"a": [jnp.ones((8, 8)), jnp.ones((8, 16))], "a[0]": jnp.ones((16, 2))})
    base = pt.Tree({"a": [jnp.ones((4, 4)), jnp.ones((4, 4))], "a[0]": jnp.ones((4, 2))})
    assert train.mup_factors(wide, base) == {r"a/*": 0.5, r"a\[0\]": 0.25}
    base = pt.Tree({"a": [jnp.ones((4, 4)), jnp.ones((2, 4))], "a[0]": jnp.ones((4, 2))})
    assert train.mup_factors(wide, base) == {"a/0": 0.5, "a/1": 0.25, r"a\[0\]": 0.25}


def test_attention_without_a_bias_says_what_it_sums_over():
    def attention(heads):
        return pt.Tree(
            {"q": {"kernel": jnp.ones((4 * heads, heads, 4))}, "o": {"kernel": jnp.ones((heads, 4, 4 * heads))}}
        )

    with pytest.raises(
        pt.StructureError, match=r"'q/kernel' is f32\[16,4,4\].*inputs=\{'q/kernel': 1\}, or 2"
    ) as caught:
        train.mup_factors(attention(4), attention(2))
    assert "'o/kernel'" not in str(caught.value)  # heads alone have grown, which are summed over either way
    rules = train.mup_factors(attention(4), attention(2), inputs={"q/kernel": 1, "o/kernel": 2})
    assert by_path(attention(4), rules) == {"q/kernel": 0.5, "o/kernel": 0.5}
    net = nn.MultiHeadAttention(2)
    x = jax.ShapeDtypeStruct((1, 3, 8), jnp.float32)
    with_bias = net.init(jax.random.key(0), x)
    assert train.mup_factors(with_bias, with_bias) == {"**": 1.0}


def test_other_models_are_refused():
    with pytest.raises(pt.StructureError, match=r"the base model is another one: missing in `base`.*blocks/2"):
        train.mup_factors(shapes(128, 3), shapes(BASE))
    other = pt.put(shapes(BASE), "head/kernel", jnp.ones((BASE, 3, 3)))
    with pytest.raises(pt.StructureError, match=r"'head/kernel' is f32\[128,9\], and f32\[64,3,3\] in `base`"):
        train.mup_factors(shapes(128), other)
    with pytest.raises(pt.PatternError, match=r"expected a family of \['adam', 'sgd'\], got 'lion'"):
        train.mup_factors(shapes(128), shapes(BASE), family="lion")


# The coordinate check of Yang et al. 2022, appendix D.1: with muP the size of what each layer computes
# after some steps does not depend on the width; with one rate for all it grows with it.

X = jax.random.normal(jax.random.key(1), (16, 8))
Y = jnp.sin(3 * X[:, :1])


def test_biases_of_attention_and_of_channels_first_keep_adams_rate():
    def attention(heads):
        return nn.MultiHeadAttention(heads, use_bias=True).spec(jax.ShapeDtypeStruct((2, 5, 16 * heads), jnp.float32))

    wide, base = attention(8), attention(2)
    kernels = {"q/kernel": 1 / 4, "k/kernel": 1 / 4, "v/kernel": 1 / 4, "o/kernel": 1 / 4}
    assert train.mup_factors(wide, base) == {**kernels, "**": 1.0}
    channels_first = [{"b": {"bias": jnp.ones((width, 1, 1))}} for width in (256, BASE)]
    assert train.mup_factors(*channels_first) == {"**": 1.0}
    assert train.mup_factors(*channels_first, family="sgd") == {"b/bias": 4.0}


def equinox_model(width):
    keys = jax.random.split(jax.random.key(0), 5)
    return {
        "table": eqx.nn.Embedding(9, width, key=keys[0]),
        "mlp": eqx.nn.MLP(4, 3, width, 2, key=keys[1]),
        "conv": eqx.nn.Conv1d(width, 3, 3, key=keys[2]),
        "from_image": eqx.nn.Conv2d(3, width, 3, key=keys[3]),
        "cell": eqx.nn.GRUCell(4, width, key=keys[4]),
    }


def test_weights_of_equinox_are_out_in():
    wide, base = [eqx.filter(equinox_model(width), eqx.is_array) for width in (256, BASE)]
    adam = by_path(wide, train.mup_factors(wide, base))
    sgd = by_path(wide, train.mup_factors(wide, base, family="sgd"))
    weights = {path: (adam[path], sgd[path]) for path in adam if "bias" not in path}
    assert weights == {
        "table/weight": (1, 4),
        "mlp/layers/0/weight": (1, 4),
        "mlp/layers/1/weight": (1 / 4, 1),
        "mlp/layers/2/weight": (1 / 4, 1 / 4),
        "conv/weight": (1 / 4, 1 / 4),
        "from_image/weight": (1, 4),
        "cell/weight_ih": (1, 4),
        "cell/weight_hh": (1 / 4, 1),
    }
    assert {adam[path] for path in adam if "bias" in path} == {1}


def test_members_of_an_ensemble_of_equinox_have_the_factors_of_one():
    def members(width):
        made = eqx.filter_vmap(lambda key: eqx.nn.Linear(width, 3, key=key))(jax.random.split(jax.random.key(0), 5))
        return {"head": made}

    assert train.mup_factors(members(256), members(BASE)) == {"head/weight": 1 / 4, "**": 1.0}


def test_inputs_count_axes_of_features_in_of_equinox_too():
    wide, base = [{"head": eqx.nn.Linear(width, 3, key=jax.random.key(0))} for width in (256, BASE)]
    assert train.mup_factors(wide, base, inputs={"head/weight": 1}) == {"head/weight": 1 / 4, "**": 1.0}


def test_a_weight_of_which_no_layer_says_the_order_gives_a_warning():
    def torch_like(width):
        return {
            "first/weight": jnp.ones((width, 4)),
            "first/bias": jnp.ones(width),
            "mid/weight": jnp.ones((width, width)),
        }

    with pytest.warns(UserWarning, match=r"mup_factors reads \['first/weight'\] as \(in, out\)"):
        train.mup_factors(torch_like(256), torch_like(BASE))
    table = [{"wte/weight": jnp.ones((9, width))} for width in (256, BASE)]
    assert train.mup_factors(*table) == {"**": 1.0}  # without a warning: a table is no kernel


def spec(width, with_mup):
    last = I.mup(BASE, BASE**-0.5, "output" if with_mup else "hidden")
    return pt.Tree(
        {
            "first": pt.Param((8, width), init=I.mup(8, 0.3, "input")),
            "hidden": pt.Param((width, width), init=I.mup(BASE, BASE**-0.5)),
            "last": pt.Param((width, 1), init=last),
        }
    )


@jax.jit
def computed(params):
    hidden = jnp.tanh(X @ params["first"]) @ params["hidden"]
    return hidden, jnp.tanh(hidden) @ params["last"]


def changes_by_training(width, with_mup):
    """How much two steps of Adam change the hidden layer and the output, in the mean over examples."""
    factors = train.mup_factors(spec(width, True), spec(BASE, True)) if with_mup else None
    optimiser = train.groups({"**": optax.adam(0.001)}, factors=factors)
    step = train.step(lambda params, y: jnp.square(computed(params)[1] - y).mean(), optimiser, donate=False)
    first = step.init(pt.init(spec(width, with_mup), jax.random.key(0)))
    state = first
    for _ in range(2):
        state, _ = step(state, Y)
    pairs = zip(computed(first.params), computed(state.params), strict=True)
    return np.array([float(jnp.abs(after - before).mean()) for before, after in pairs])


def test_the_coordinate_check_tells_the_factors_from_one_rate_for_all():
    growth = {}
    for with_mup in (True, False):
        narrow, middle, wide = [changes_by_training(width, with_mup) for width in (64, 128, 256)]
        growth[with_mup] = np.array([middle / narrow, wide / middle])
    assert np.all(growth[True] > 0.7)
    assert np.all(growth[True] < 1.4)
    assert np.all(growth[False] > 1.5)
