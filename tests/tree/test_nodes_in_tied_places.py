"""A node that is registered with JAX, in the place of a leaf that an alias sees through a transform: read rightly, or refused."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree.train import Rank, lora, view


@jax.tree_util.register_dataclass
@dataclass
class Boxed:
    """As boxes of other libraries are: without a shape."""

    value: jax.Array
    name: str = field(default="", metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass
class Shaped(Boxed):
    """With the shape and dtype of an array."""

    @property
    def shape(self):
        return self.value.shape

    @property
    def dtype(self):
        return self.value.dtype


def tied(via=pt.transposed):
    return pt.Tree({"w": jnp.arange(6.0).reshape(2, 3), "h": via("w"), "same": pt.Tree({"x": 1})})


@pytest.mark.parametrize("box", [Boxed, Shaped])
def test_an_alias_through_a_transpose_refuses_a_node(box):
    tree = jax.tree.map(lambda leaf: box(leaf) if hasattr(leaf, "shape") else leaf, tied())
    with pytest.raises(
        pt.TieError, match=f"a {box.__name__} is no array that 'transposed' can show: read it under its own path"
    ):
        tree["h"]
    assert "h/value" not in tree
    assert tree["w/value"].shape == (2, 3)
    assert pt.untie(tied())["h"].shape == (3, 2)


@pytest.mark.parametrize("box", [Boxed, Shaped])
def test_writing_through_a_transpose_is_refused_too(box):
    tree = jax.tree.map(lambda leaf: box(leaf) if hasattr(leaf, "shape") else leaf, tied())
    with pytest.raises(pt.PtreeError):
        pt.set(tree, "h", box(jnp.zeros((3, 2))))


def test_a_registered_transform_refuses_a_node():
    negated = pt.sharing.register_transform("negated_of_nodes", jnp.negative, jnp.negative)
    params = tied(negated)
    seen = view(params, lora(pt.drop(params, "h"), {"w": Rank(1)}, jax.random.key(0)))
    with pytest.raises(pt.TieError, match="a LowRank is no array that 'negated_of_nodes' can show"):
        seen["h"]


def test_a_plain_alias_reads_the_node_itself():
    tree = pt.Tree({"w": Boxed(jnp.ones(2)), "h": pt.transposed("w", (0,))})
    assert tree["h"] is tree["w"]
    assert tree["h/value"] is tree["w/value"]


def test_nodes_without_arrays_and_plain_containers_are_seen_as_they_are():
    for value in (None, "label", {"m": jnp.ones((2, 3))}, (jnp.ones((2, 3)), "x")):
        structure = jax.tree.structure(tied())
        tree = jax.tree.unflatten(structure, [jnp.ones(()), value])
        assert tree["h"] is tree["w"]


def test_a_derived_leaf_is_transposed_by_itself():
    params = tied()
    seen = view(params, lora(params, {"w": Rank(1)}, jax.random.key(0)))
    assert seen["h"].shape == (3, 2)
    np.testing.assert_array_equal(seen["h"].array(), params["h"])
    assert "h/base" not in seen
    assert jax.tree.structure(jax.jit(lambda t: t)(seen)) == jax.tree.structure(seen)


def test_an_untied_alias_is_what_it_read_and_a_list_with_aliases_is_refused():
    params = tied()
    seen = view(params, lora(params, {"w": Rank(1)}, jax.random.key(0)))
    apart = pt.untie(seen)
    assert (apart["h"].shape, apart["w"].shape) == ((3, 2), (2, 3))
    np.testing.assert_array_equal(apart["h"].array(), params["h"])
    assert pt.paths(seen, "h") == ["w/base", "w/a", "w/b"]  # a leaf has all its names
    with pytest.raises(pt.TieError, match=r"'h' is transposed\(w\), a LowRank: its arrays do not read one by one"):
        pt.items(seen, aliases=True)
    boxed = jax.tree.map(lambda leaf: Boxed(leaf) if hasattr(leaf, "shape") else leaf, params)
    with pytest.raises(pt.TieError, match="a Boxed is no array"):
        pt.untie(boxed)
