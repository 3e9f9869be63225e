"""Weights of Equinox are (out, in): a warning where an initialiser takes them for (in, out), and none where it cannot be wrong."""

import re
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ptree as pt
from ptree import initializers as I
from ptree import nn

KEY = jax.random.key(0)
LINEAR = eqx.nn.Linear(300, 200, key=KEY)
CONV = eqx.nn.Conv2d(40, 60, 3, key=KEY)
GRU = eqx.nn.GRUCell(100, 50, key=KEY)
SWAPPED = {
    "lecun_normal()": (I.lecun_normal(), I.lecun_normal(in_axis=-1, out_axis=-2)),
    "lecun_uniform()": (I.lecun_uniform(), I.lecun_uniform(in_axis=-1, out_axis=-2)),
    "he_normal": (I.he_normal(), I.he_normal(in_axis=-1, out_axis=-2)),
    "kaiming_uniform": (I.kaiming_uniform(mode="fan_out"), I.kaiming_uniform(mode="fan_out", in_axis=-1, out_axis=-2)),
    "variance_scaling": (I.variance_scaling(1.0), I.variance_scaling(1.0, in_axis=-1, out_axis=-2)),
    "torch_linear": (I.torch_linear, I.torch_linear(in_axis=-1, out_axis=-2)),
    "flax_dense": (I.flax_dense, I.flax_dense(in_axis=-1, out_axis=-2)),
    "mup": (I.mup(64), I.mup(64, in_axis=-1, out_axis=-2)),
    "a mixture": (
        I.mixture((0.5, I.he_normal()), (0.5, I.zeros)),
        I.mixture((0.5, I.he_normal(in_axis=-1, out_axis=-2)), (0.5, I.zeros)),
    ),
    "a scheme": (I.Scheme(I.lecun_normal()), I.Scheme(I.lecun_normal(in_axis=-1, out_axis=-2))),
    "a scheme of a preset": (
        I.Scheme(I.torch_linear, bias=lambda site: I.zeros),
        I.Scheme(I.torch_linear(in_axis=-1, out_axis=-2), bias=lambda site: I.zeros),
    ),
}
SEEN = r"^{}:\n  wrong standard deviation by .*,\n  as weights of {} are {}\.\n  Right: .*{}"


def expected(layer, order, paths, axes):
    return SEEN.format(", ".join(map(repr, paths)), re.escape(layer), re.escape(order), re.escape(axes))


def of_linear(*paths):
    return expected("equinox.nn.Linear", "(out, in)", paths, "in_axis=-1, out_axis=-2")


@pytest.mark.parametrize("name", SWAPPED)
def test_swapped_axes_of_a_linear_layer_warn_and_the_line_that_is_named_does_not(name):
    wrong, right = SWAPPED[name]
    with pytest.warns(UserWarning, match=of_linear("weight")) as caught:
        pt.reinit(LINEAR, KEY, {"weight": wrong})
    assert [one.filename for one in caught] == [__file__]
    drawn = pt.reinit(LINEAR, KEY, {"weight": right}).weight  # a warning would be an error here
    transposed = pt.reinit({"w": LINEAR.weight.T}, KEY, {"w": wrong})["w"]  # (in, out)
    np.testing.assert_allclose(drawn.std(), transposed.std(), rtol=0.02)
    assert drawn.shape == (200, 300)


def test_the_warning_names_the_initialiser_and_all_leaves_of_a_model_once():
    model = {"mlp": eqx.nn.MLP(30, 20, 50, 2, key=KEY), "more": [eqx.nn.Linear(3, 4, key=KEY)]}
    with pytest.warns(UserWarning, match="wrong standard deviation") as caught:
        pt.reinit(model, KEY, {"**/weight": I.he_normal(), "**/bias": I.zeros})
    assert [str(one.message) for one in caught] == [
        "'mlp/layers/0/weight', 'mlp/layers/2/weight', 'more/0/weight':\n"
        "  wrong standard deviation by kaiming_normal(),\n"
        "  as weights of equinox.nn.Linear are (out, in).\n"
        "  Right: kaiming_normal(in_axis=-1, out_axis=-2)"
    ]


def test_of_many_leaves_two_are_named_and_the_others_counted_in_lines_that_fit_a_terminal():
    model = [eqx.nn.Linear(3, 4, key=KEY) for _ in range(4)]
    with pytest.warns(UserWarning, match=r"^'0/weight', '1/weight' and 2 more:\n  wrong") as caught:
        pt.reinit(model, KEY, {"**/weight": I.lecun_normal(), "**/bias": I.zeros})
    assert max(map(len, str(caught[0].message).splitlines())) <= 80


@pytest.mark.parametrize(
    ("wrong", "right"), [(I.lecun_normal(), "lecun_normal({})"), (I.torch_linear, "torch_linear({})")]
)
def test_the_line_that_is_right_is_the_whole_call_where_the_initialiser_has_no_options(wrong, right):
    with pytest.warns(UserWarning, match="wrong") as caught:
        pt.reinit(LINEAR, KEY, {"weight": wrong})
    line = str(caught[0].message).partition("Right: ")[2]
    assert line == right.format("in_axis=-1, out_axis=-2")
    pt.reinit(LINEAR, KEY, {"weight": eval(f"I.{line}")})  # a warning would be an error here


def test_of_an_initialiser_with_options_the_axes_are_named():
    for wrong in (I.kaiming_uniform(mode="fan_out"), I.lecun_normal(in_axis=0, out_axis=1), I.Scheme(I.lecun_normal())):
        with pytest.warns(UserWarning, match=r"\n  Right: the same with in_axis=-1, out_axis=-2$"):
            pt.reinit(LINEAR, KEY, {"weight": wrong})


def test_a_bias_that_is_drawn_by_the_weight_beside_it_warns_too():
    with pytest.warns(UserWarning, match=of_linear("bias")):
        pt.reinit(LINEAR, KEY, {"bias": I.torch_linear})
    with pytest.warns(UserWarning, match=of_linear("weight", "bias")):
        pt.reinit(LINEAR, KEY, {"**": I.torch_linear})
    drawn = pt.reinit(LINEAR, KEY, {"**": I.torch_linear(in_axis=-1, out_axis=-2)})
    for leaf in (drawn.weight, drawn.bias):
        assert 0.9 * 300**-0.5 < float(abs(leaf).max()) <= 300**-0.5
    pt.reinit(LINEAR, KEY, {"bias": I.flax_dense})  # 0, whatever the weight


def test_convolutions_are_out_in_and_then_spatial():
    axes = ("equinox.nn.Conv", "(out, in, spatial...)", ["weight"], "in_axis=1, out_axis=0")
    for wrong in (I.he_normal(), I.xavier_uniform(), I.torch_conv, I.lecun_normal(in_axis=-1, out_axis=-2)):
        with pytest.warns(UserWarning, match=expected(*axes)):
            pt.reinit(CONV, KEY, {"weight": wrong})
    drawn = pt.reinit(CONV, KEY, {"weight": I.he_normal(in_axis=1, out_axis=0)}).weight
    np.testing.assert_allclose(drawn.std(), (2 / (40 * 9)) ** 0.5, rtol=0.02)
    like_torch = pt.reinit(CONV, KEY, {"weight": I.torch_conv(in_axis=1, out_axis=0)}).weight
    np.testing.assert_allclose(like_torch.std(), (1 / (40 * 9) / 3) ** 0.5, rtol=0.02)
    turned = eqx.nn.ConvTranspose1d(40, 60, 3, key=KEY)
    with pytest.warns(UserWarning, match=expected("equinox.nn.ConvTranspose", *axes[1:])):
        pt.reinit(turned, KEY, {"weight": I.lecun_normal()})


def test_recurrent_cells_have_two_weights():
    with pytest.warns(
        UserWarning,
        match=expected("equinox.nn.GRUCell", "(out, in)", ["weight_ih", "weight_hh"], "in_axis=-1, out_axis=-2"),
    ):
        pt.reinit(GRU, KEY, {"weight_*": I.lecun_normal()})
    drawn = pt.reinit(GRU, KEY, {"weight_*": I.lecun_normal(in_axis=-1, out_axis=-2)})
    np.testing.assert_allclose(drawn.weight_ih.std(), 0.1, rtol=0.02)


@pytest.mark.parametrize("options", [{}, {"batch_axis": 0}, {"in_axis": -1, "out_axis": -2}])
def test_ensembles_have_an_axis_in_front(options):
    many = eqx.filter_vmap(lambda key: eqx.nn.Linear(300, 200, key=key))(jax.random.split(KEY, 3))
    with pytest.warns(UserWarning, match=of_ensemble("Linear", "out, in", "in_axis=-1, out_axis=-2")):
        pt.reinit(many, KEY, {"weight": I.lecun_normal(**options)})
    convolutions = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(4, 6, 3, key=key))(jax.random.split(KEY, 3))
    with pytest.warns(UserWarning, match=of_ensemble("Conv", "out, in, spatial...", "in_axis=-3, out_axis=-4")):
        pt.reinit(convolutions, KEY, {"weight": I.lecun_normal(**options)})


def of_ensemble(layer, order, axes):
    return expected(f"equinox.nn.{layer}", f"(members, {order})", ["weight"], f"{axes}, batch_axis=0")


def test_ensembles_by_the_line_that_is_named_have_the_standard_deviation_of_one():
    many = eqx.filter_vmap(lambda key: eqx.nn.Linear(300, 200, key=key))(jax.random.split(KEY, 3))
    rules = {"weight": I.lecun_normal(in_axis=-1, out_axis=-2, batch_axis=0)}
    np.testing.assert_allclose(pt.reinit(many, KEY, rules).weight.std(), 300**-0.5, rtol=0.02)
    convolutions = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(40, 60, 3, key=key))(jax.random.split(KEY, 3))
    rules = {"weight": I.lecun_normal(in_axis=-3, out_axis=-4, batch_axis=0)}
    np.testing.assert_allclose(pt.reinit(convolutions, KEY, rules).weight.std(), (40 * 9) ** -0.5, rtol=0.02)


def test_a_square_ensemble_is_seen_by_its_axis_in_front():
    many = eqx.filter_vmap(lambda key: eqx.nn.Linear(64, 64, key=key))(jax.random.split(KEY, 3))
    with pytest.warns(UserWarning, match="batch_axis=0"):
        pt.reinit(many, KEY, {"weight": I.lecun_normal()})
    two_axes = eqx.filter_vmap(eqx.filter_vmap(lambda key: eqx.nn.Linear(64, 64, key=key)))(
        jax.random.split(KEY, (3, 2))
    )
    with pytest.warns(UserWarning, match=r"batch_axis=\(0, 1\)"):
        pt.reinit(two_axes, KEY, {"weight": I.lecun_normal()})


class Scaled(eqx.nn.Linear):
    """A subclass of a layer, whose weight is as there."""


def test_subclasses_and_layers_in_wrappers_are_seen():
    with pytest.warns(UserWarning, match=of_linear("weight")):
        pt.reinit(Scaled(30, 20, key=KEY), KEY, {"weight": I.lecun_normal()})
    attention = eqx.nn.MultiheadAttention(2, 30, vo_size=7, key=KEY)
    with pytest.warns(UserWarning, match=of_linear("value_proj/weight", "output_proj/weight")):
        pt.reinit(attention, KEY, {"{value,output}_proj/weight": I.lecun_normal()})
    wrapped = eqx.nn.WeightNorm(eqx.nn.Linear(30, 20, key=KEY), "weight")
    with pytest.warns(UserWarning, match=of_linear("layer/weight")):
        pt.reinit(wrapped, KEY, {"layer/weight": I.lecun_normal()})


def test_a_spec_that_holds_a_module_warns_too():
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), eqx.filter(LINEAR, eqx.is_array))
    with pytest.warns(UserWarning, match=of_linear("net/weight")) as caught:
        pt.init({"net": shapes}, KEY, {"net/weight": I.lecun_normal(), "net/bias": I.zeros})
    assert [one.filename for one in caught] == [__file__]


class Own(eqx.Module):
    """A module of the user's, whose layout nobody knows."""

    weight: jax.Array


TABLE = eqx.nn.Embedding(50, 8, key=KEY)
SQUARE = eqx.nn.Linear(30, 30, key=KEY)
NO_FAULT = {
    "a table": (TABLE, {"weight": I.lecun_normal()}),
    "a norm": (eqx.nn.LayerNorm((4, 8)), {"weight": I.lecun_normal()}),
    "a module of the user's": (Own(jnp.zeros((4, 8))), {"weight": I.lecun_normal()}),
    "as many in as out": (SQUARE, {"weight": I.he_normal()}),
    "both fans together": (LINEAR, {"weight": I.xavier_normal()}),
    "no fan": (LINEAR, {"weight": I.normal(0.02), "bias": I.zeros}),
    "a matrix of rows or columns": (LINEAR, {"weight": I.orthogonal()}),
    "a function": (LINEAR, {"weight": lambda key, shape, dtype: jnp.zeros(shape, dtype)}),
    "a dict of that name": ({"fc": {"weight": jnp.zeros((4, 8))}}, {"**": I.lecun_normal()}),
    "a Tree of the leaves": (pt.tie(eqx.filter(LINEAR, eqx.is_array), {}), {"weight": I.lecun_normal()}),
    "nnx": (nnx.state(nnx.Linear(4, 8, rngs=nnx.Rngs(0))), {"kernel": I.lecun_normal()}),
    "ptree's own layers": (nn.Dense(8).init(KEY, jnp.ones((2, 4))), {"kernel": I.lecun_normal(), "bias": I.zeros}),
}


@pytest.mark.parametrize("name", NO_FAULT)
def test_nothing_is_said_where_the_draw_is_the_same_or_the_layout_is_not_known(name):
    tree, rules = NO_FAULT[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pt.reinit(tree, KEY, rules)


def test_a_draw_that_fails_says_so_without_a_warning():
    with pytest.raises(
        pt.InitError, match=r"(?s)cannot draw .weight.*torch_linear takes every axis as in, out or batch"
    ):
        pt.reinit(CONV, KEY, {"weight": I.torch_linear})
    with pytest.raises(pt.InitError, match="in_axis=5 is not there"):
        pt.reinit(LINEAR, KEY, {"weight": I.lecun_normal(in_axis=5)})


def test_inside_of_jit_where_a_scale_is_not_known():
    def drawn(scale):
        return pt.reinit(LINEAR, KEY, {"weight": I.normal(scale)}).weight

    assert jax.jit(drawn)(2.0).shape == (200, 300)
