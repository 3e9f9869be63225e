"""Tree: building, reading, immutability, equality, and what JAX sees."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import arange, language_model, mlp

import ptree as pt


@pytest.fixture
def params():
    return pt.tie(mlp(), {"4": "2"})


def test_mappings_lists_ints_and_slashes_nest():
    tree = pt.Tree({"a": {"b": 1}, "a/c": 2, 3: [4, (5, {"x": 6})]})
    assert pt.flatten(tree) == {"a/b": 1, "a/c": 2, "3/0": 4, "3/1/0": 5, "3/1/1/x": 6}
    assert tree[3][1][1]["x"] == tree["3/1/1/x"] == 6
    assert pt.Tree(tree) is tree
    assert pt.Tree([1, 2])[1] == 2


def test_reading_by_path_name_and_position_gives_one_object(params):
    assert params["2/bias"] is params["2"]["bias"] is params[2]["bias"]
    assert "2/bias" in params
    assert "2/bais" not in params
    assert 2 in params
    assert None not in params
    assert params.get("2/bais", 5) == 5
    assert params.get("2/bias") is params["2/bias"]


def test_iteration_is_in_declared_order_and_includes_tied_names(params):
    tree = pt.Tree({"z": 1, "a": 2, "m": {"y": 3, "b": 4}})
    assert list(tree) == ["z", "a", "m"]
    assert list(tree["m"].items()) == [("y", 3), ("b", 4)]
    assert list(params) == ["0", "2", "4", "6"]
    assert len(params) == 4
    assert dict(**params["4"]) == dict(**params["2"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("2/bais", "no path '2/bais': at '2' there are ['bias', 'kernel']. Did you mean '2/bias'?"),
        ("4/bais", "no path '4/bais': at '4' there are ['bias', 'kernel']. Did you mean '4/bias'?"),
        ("2/bias/x", "no path '2/bias/x': at '2/bias' is f32[8], not a node"),
        ("x", "no path 'x': at the root there are ['0', '2', '4', '6']."),
        ("2//bias", "no path '2//bias': it has an empty segment (a '/' too many)"),
        ("/2", "no path '/2': it has an empty segment (a '/' too many)"),
        (None, "no path None: a path is a string such as 'blocks/3/kernel', or an int"),
    ],
)
def test_a_missing_path_says_where_it_stopped(params, path, message):
    for read in (params.__getitem__, lambda p: pt.get(params, p)):
        with pytest.raises(pt.PathError) as error:
            read(path)
        assert str(error.value) == message
        assert isinstance(error.value, KeyError)


def test_a_wide_node_lists_ten_names_and_a_count():
    tree = pt.Tree({f"layer_{i}": i for i in range(30)})
    with pytest.raises(pt.PathError) as error:
        tree["layer_30"]
    assert str(error.value).startswith("no path 'layer_30': at the root there are ['layer_0', 'layer_1', 'layer_2',")
    assert "'layer_9', and 20 more]. Did you mean 'layer_" in str(error.value)


@pytest.mark.parametrize(
    ("mapping", "error", "message"),
    [
        ({1.5: 2}, pt.PathError, "bad key 1.5 at the root: it is not a string or an int"),
        ({"a": {None: 2}}, pt.PathError, "bad key None in 'a': it is not a string or an int"),
        ({("a", "b"): 1}, pt.PathError, "bad key ('a', 'b') at the root: it is not a string or an int"),
        ({"": 1}, pt.PathError, "bad key '' at the root: it is empty or has an empty segment"),
        ({"a": {"/b": 1}}, pt.PathError, "bad key '/b' in 'a': it is empty or has an empty segment"),
        ({1: 2, "1": 3}, pt.StructureError, "two keys land on the path '1': 2 and 3"),
        ({"a/b": 1, "a": {"b": 2}}, pt.StructureError, "two keys land on the path 'a/b': 1 and 2"),
        ({"a": 1, "a/b": 2}, pt.StructureError, "two keys land on the path 'a': 1, and a node with keys below it"),
        ({"a/b": 2, "a": 1}, pt.StructureError, "two keys land on the path 'a': a node and 1"),
        (3, pt.StructureError, "a Tree is made of a mapping, a list or a tuple; got 3"),
    ],
)
def test_a_bad_mapping_names_the_path(mapping, error, message):
    with pytest.raises(error) as raised:
        pt.Tree(mapping)
    assert str(raised.value) == message


def test_it_is_really_immutable(params):
    message = r"a Tree is immutable: use ptree.set\(tree, '0/bias', value\), which returns a new tree"
    with pytest.raises(TypeError, match=message):
        params["0/bias"] = 1
    with pytest.raises(TypeError, match="immutable"):
        del params["0/bias"]
    with pytest.raises(TypeError, match="immutable"):
        params.bias = 1
    with pytest.raises(TypeError, match="immutable"):
        params._children = ()
    with pytest.raises(TypeError, match="immutable"):
        params |= {"a": 1}
    with pytest.raises(TypeError, match="cannot be subclassed"):
        type("Sub", (pt.Tree,), {})


def test_a_node_with_an_alias_from_outside_is_read_with_it_filled_in():
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    assert list(params["head"]) == ["kernel", "bias"]
    assert (params["head"]["kernel"] == params["embed/table"].T).all()
    x = jnp.ones((2, 4))

    def forward(params):  # written by somebody who knows of no tie
        return (x @ params["head"]["kernel"] + params["head"]["bias"]).sum()

    grads = jax.jit(jax.grad(forward))(params)
    assert (grads["embed/table"] == 2).all()
    assert grads["head/kernel"].shape == (4, 10)


def test_a_whole_tied_node_is_the_sources_object(params):
    assert params["4"] is params["2"]
    nested = pt.Tree({"a": {"model": params}})
    assert nested["a/model"] is params
    assert nested["a/model/4"] is params["2"]


def test_layouts_are_shared_and_order_does_not_count():
    a, b = pt.Tree({"x": 1, "y": 2}), pt.Tree({"x": 3, "y": 4})
    assert a._layout is b._layout
    other = pt.Tree({"y": 2, "x": 1})
    assert jax.tree.structure(a) == jax.tree.structure(other)
    assert hash(jax.tree.structure(a)) == hash(jax.tree.structure(other))
    assert a == other
    assert list(other) == ["y", "x"]
    assert jax.tree.map(lambda p, q: p + q, a, other) == pt.Tree({"x": 2, "y": 4})


def test_trees_that_differ_in_ties_are_different_structures(params):
    assert jax.tree.structure(params) != jax.tree.structure(pt.untie(params))
    assert params != pt.untie(params)
    to_x, to_y = (pt.tie({"x": 1, "y": 1, "z": 1}, {"z": source}) for source in "xy")
    with pytest.raises(ValueError, match="z = x"):
        jax.tree.map(lambda a, b: a, to_x, to_y)


def test_jax_names_leaves_with_its_own_key_types(params):
    paths, _ = jax.tree_util.tree_flatten_with_path(params)
    assert all(type(entry) is jax.tree_util.DictKey for path, _ in paths for entry in path)
    assert [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths] == [
        "0/bias", "0/kernel", "2/bias", "2/kernel", "6/bias", "6/kernel",
    ]  # fmt: skip


def test_unflatten_takes_anything_as_a_child(params):
    structure = jax.tree.structure(params)
    for filler in (None, object(), True, "label"):
        tree = structure.unflatten([filler] * structure.num_leaves)
        assert tree["4/kernel"] is filler
        assert repr(tree)


def test_trees_work_as_axes_and_shardings_of_the_same_structure(params):
    axes = jax.tree.map(lambda leaf: 0, params)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    sums = jax.vmap(lambda p: sum(leaf.sum() for leaf in jax.tree.leaves(p)), in_axes=(axes,))(stacked)
    assert sums.shape == (2,)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert jax.device_put(params, jax.tree.map(lambda leaf: device, params)) == params


def test_repr_is_a_short_table(params):
    assert repr(params) == (
        "Tree(\n"
        "  0/kernel  f32[4,8]\n"
        "  0/bias    f32[8]\n"
        "  2/kernel  f32[8,8]\n"
        "  2/bias    f32[8]\n"
        "  4/kernel  = 2/kernel\n"
        "  4/bias    = 2/bias\n"
        "  6/kernel  f32[8,1]\n"
        "  6/bias    f32[1]\n"
        ")"
    )
    wide = repr(pt.Tree({f"l{i}": arange(2) for i in range(500)}))
    assert len(wide.splitlines()) == 42
    assert wide.splitlines()[-2] == "  ... and 461 more"
    assert repr(pt.Tree()) == "Tree()"
    assert repr(pt.Tree({"k": jax.random.key(0), "e": {}, "b": jnp.zeros((), jnp.bfloat16)})) == (
        "Tree(\n  k  key<fry>[]\n  e  (empty)\n  b  bf16[]\n)"
    )


def test_equality_compares_structure_and_values():
    a = pt.Tree({"w": jnp.array([1.0, jnp.nan]), "n": None})
    assert a == jax.tree.map(jnp.array, a)
    assert a != pt.Tree({"w": jnp.array([1.0, 2.0]), "n": None})
    assert a != pt.Tree({"w": jnp.array([1.0, jnp.nan], jnp.bfloat16), "n": None})
    assert (a == 3) is False
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_trees_of_more_than_256_levels_are_refused_with_a_sentence():
    with pytest.raises(pt.PathError, match=r"bad key .* at the root: it has more than 256 segments"):
        pt.Tree({"/".join("a" * 300): 1})
    nested = {}
    for _ in range(400):
        nested = {"a": nested}
    with pytest.raises(pt.PathError, match="no path can have more than 256 segments"):
        pt.Tree(nested)


def test_a_tree_is_no_array():
    tree = pt.Tree({"blocks": {":": {"w": jnp.ones((3, 2))}}, "n": jnp.ones(2)})
    for call in (np.asarray, np.array, jnp.asarray, lambda tree: np.savez(io.BytesIO(), **tree), np.sum, np.float32):
        with pytest.raises(TypeError):
            call(tree)
    with pytest.raises(TypeError, match=r"a Tree is no array: ptree.items\(tree\) lists the arrays in it"):
        np.asarray(tree)
    for array in (np.ones(2), jnp.ones(2)):
        assert array != tree
        assert tree != array
        with pytest.raises(TypeError):
            array * tree
    assert pt.set(tree, "n", tree["n"]) is not None
    with pytest.raises(pt.StructureError, match=r"cannot set 'n': expected f32\[2\]"):
        pt.set(tree, "n", tree)
