"""Every optimiser of optax: in groups, on Trees with ties and stacks, and by layer, beside plain dicts without ptree."""

import numpy as np
import pytest
from optimisers import OPTIMISERS, RANKS_AND_NORMS, compiled, take_steps

import ptree as pt
from ptree import train


def tied_layers():
    """Three layers of which each has a matrix and a vector, and a table that is tied through a transpose."""
    draw = np.random.default_rng(0)
    layer = lambda at: {
        "kernel": (at + 1) * draw.normal(size=(4, 5)).astype("f"),
        "bias": draw.normal(size=5).astype("f"),
    }
    params = {"embed/table": draw.normal(size=(7, 4)).astype("f"), "blocks": [layer(at) for at in range(3)]}
    return pt.Tree({**params, "head/kernel": pt.transposed("embed/table")})


def by_path(tree):
    return {path: np.asarray(leaf) for path, leaf in pt.items(tree)}


@pytest.mark.filterwarnings("ignore:`optimistic_adam` is deprecated")
@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_is_the_same_in_groups_and_in_stacks(name, monkeypatch):
    monkeypatch.setattr(
        "ptree.train._groups.groups.warn_of_stacks", lambda *args, **options: None
    )  # has tests of its own
    apart = tied_layers()
    stacked = pt.stacks.stack(apart, "blocks")
    plain = lambda tree: {path.replace("/", "."): leaf for path, leaf in pt.items(tree)}
    optimiser = OPTIMISERS[name]()
    for_stacks = train.by_layer(OPTIMISERS[name]()) if name in RANKS_AND_NORMS else OPTIMISERS[name]()

    def all_forms(apart, stacked):
        return {
            "in groups": take_steps(name, train.groups({"**": optimiser}), stacked),
            "plain": take_steps(name, optimiser, plain(stacked)),
            "apart": take_steps(name, optimiser, plain(apart)),
            "by layer": take_steps(name, for_stacks, stacked),
        }

    found = compiled(all_forms, apart, stacked)
    for path, leaf in by_path(found["in groups"]).items():
        np.testing.assert_array_equal(leaf, found["plain"][path.replace("/", ".")], err_msg=path)
        assert not np.array_equal(leaf, pt.get(stacked, path)), "it moved"
    if name == "noisy_sgd" or name == "sophia":  # they draw for each leaf
        return
    for path, leaf in by_path(pt.stacks.unstack(found["by layer"], "blocks")).items():
        np.testing.assert_allclose(leaf, found["apart"][path.replace("/", ".")], rtol=1e-5, atol=1e-6, err_msg=path)
