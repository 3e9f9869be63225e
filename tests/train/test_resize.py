"""Leaves of another size: rows that stay, new rows as a larger draw has them, ties, stacks, places; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import initializers as I
from ptree import train

KEY = jax.random.key(3)


def model():
    params = pt.Tree({"embed": {"table": jnp.arange(10.0).reshape(5, 2)}, "head": {"bias": jnp.arange(5.0)}})
    return pt.tie(pt.put(params, "head/kernel", params["embed/table"].T), {"head/kernel": pt.transposed("embed/table")})


def refusal(call):
    with pytest.raises(pt.PtreeError) as raised:
        call()
    return str(raised.value)


def test_rows_stay_and_new_ones_are_those_of_a_larger_draw():
    params = model()
    larger = train.resize(
        params, {"embed/table": 8, "head/bias": 8}, init={"**/bias": I.zeros, "**": I.normal(0.02)}, key=KEY
    )
    drawn = pt.init(pt.Tree({"embed/table": pt.Param((8, 2), init=I.normal(0.02))}), KEY)
    assert larger["embed/table"][:5].tolist() == params["embed/table"].tolist()
    assert larger["embed/table"][5:].tolist() == drawn["embed/table"][5:].tolist()
    assert larger["head/bias"].tolist() == [0, 1, 2, 3, 4, 0, 0, 0]
    assert pt.ties(larger) == pt.ties(params)
    assert larger["head/kernel"].shape == (2, 8)


def test_smaller_ones_need_no_draw_and_what_does_not_change_is_shared():
    params = model()
    smaller = train.resize(params, {"embed/table": 3})
    assert smaller["embed/table"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert smaller["head/bias"] is params["head/bias"]
    assert train.resize(params, {"embed/table": 5})["embed/table"] is params["embed/table"]


def test_other_axes_and_aliases_have_the_sizes_that_they_show():
    params = model()
    larger = train.resize(params, {"head/kernel": (2, 7)}, init=I.ones, key=KEY)
    assert larger["embed/table"].shape == (7, 2)
    assert larger["embed/table"][5:].tolist() == [[1, 1], [1, 1]]
    wider = train.resize(params, {"embed/table": (4, 3)}, init=I.ones, key=KEY)  # fewer rows, more columns
    assert wider["embed/table"].tolist() == [[0, 1, 1], [2, 3, 1], [4, 5, 1], [6, 7, 1]]


def test_a_stack_grows_in_each_layer_as_its_layers_would():
    apart = pt.Tree({"blocks": [{"w": jnp.full((2, 3), float(at))} for at in range(2)]})
    stacked = pt.stacks.stack(apart, "blocks")
    grown = train.resize(stacked, {"blocks/*/w": 4}, init=I.normal(1.0), key=KEY)
    singly = train.resize(apart, {"blocks/*/w": 4}, init=I.normal(1.0), key=KEY)
    np.testing.assert_array_equal(grown["blocks/:/w"], pt.stacks.stack(singly, "blocks")["blocks/:/w"])
    assert grown["blocks/:/w"].shape == (2, 4, 3)
    assert grown["blocks/1/w"][:2].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_specs_shapes_and_other_arrays():
    spec = {"t": pt.Param((5, 2), init=I.zeros)}
    assert train.resize(spec, {"t": 8})["t"].shape == (8, 2)
    assert train.resize({"t": jax.ShapeDtypeStruct((5, 2), jnp.bfloat16)}, {"t": 8})["t"].shape == (8, 2)
    array = train.resize({"t": np.ones(2, np.float16)}, {"t": 3}, init=I.zeros, key=KEY)["t"]
    assert isinstance(array, np.ndarray)
    assert (array.dtype, array.tolist()) == (np.float16, [1, 1, 0])


def test_arrays_spread_over_devices_stay_so():
    spread = jax.NamedSharding(jax.make_mesh((8,), ("data",)), jax.P("data"))
    params = {"t": jax.device_put(jnp.ones((8, 2)), spread)}
    assert train.resize(params, {"t": 16}, init=I.zeros, key=KEY)["t"].sharding == spread
    assert "'t' cannot be f32[12,2] where it is" in refusal(
        lambda: train.resize(params, {"t": 12}, init=I.zeros, key=KEY)
    )


def test_training_goes_on_with_a_larger_tied_vocabulary():
    params, optimiser = model(), optax.adam(0.1)
    grads = jax.tree.map(jnp.ones_like, params)
    updates, state = optimiser.update(grads, optimiser.init(params), params)
    params = optax.apply_updates(params, updates)
    larger = train.resize(params, {"embed/table": 8, "head/bias": 8}, init=I.zeros, key=KEY)
    after, report = train.carry(state, params, larger, optimiser, resized=["embed/table", "head/bias"])
    assert report.kept == ("embed/table", "head/bias")
    expected, _ = optimiser.update(grads, state, params)
    got, _ = optimiser.update(jax.tree.map(jnp.ones_like, larger), after, larger)
    np.testing.assert_array_equal(got["embed/table"][:5], expected["embed/table"])


def test_what_cannot_be_resized():
    params = model()
    for sizes, text in [
        ({"embed/tabel": 8}, "Did you mean 'embed/table'?"),
        ({"embed/table": 0}, "'embed/table' would have the size 0: expected whole numbers from 1 on"),
        ({"embed/table": True}, "would have the size True"),
        ({"embed/table": 8.5}, "would have the size 8.5"),
        ({"embed/table": (8, 2, 1)}, "'embed/table' is (5, 2), which has 2 axes; got (8, 2, 1)"),
        ({"embed/table": 8, "head/kernel": (2, 9)}, "'embed/table' would be (8, 2) and (9, 2)"),
        (("embed/table", 8), "resize takes a dict, leaf -> size; got tuple"),
    ]:
        assert text in refusal(lambda sizes=sizes: train.resize(params, sizes, init=I.zeros, key=KEY))
    assert refusal(lambda: train.resize(params, {"embed/table": 8}, key=KEY)) == (
        "'embed/table' would grow: give init=, such as ptree.initializers.normal(0.02), for the new rows"
    )
    assert refusal(lambda: train.resize(params, {"embed/table": 8}, init=I.zeros)) == (
        "'embed/table' would grow: give key= for the new rows"
    )
    stacked = pt.stacks.stack(pt.Tree({"blocks": [{"w": jnp.ones((2, 3))}] * 2}), "blocks")
    assert "write '*'" in refusal(lambda: train.resize(stacked, {"blocks/1/w": 4}, init=I.zeros, key=KEY))
