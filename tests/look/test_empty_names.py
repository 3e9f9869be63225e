"""A name that is empty is written '' in every table."""

import jax
import numpy as np
import pytest

import ptree as pt
from ptree import look

ONES = np.ones(3, "float32")


@pytest.mark.parametrize(
    ("tree", "shown"), [({"": ONES, "b": ONES[:2]}, "''"), ({"a": {"": ONES, "c": ONES[:2]}}, "a/''")]
)
def test_an_empty_name_is_shown(tree, shown):
    changed = jax.tree.map(lambda leaf: leaf + 1, tree)
    assert "''" in str(pt.summary(tree))
    assert f"\n{shown} " in str(look.stats(tree))
    assert f" {shown} " in str(look.diff(tree, changed))


def test_an_empty_name_that_is_renamed_is_shown():
    assert "'' -> c" in str(look.diff({"": ONES, "b": ONES[:2]}, {"c": ONES, "b": ONES[:2]}))


def test_a_single_array_has_an_empty_name():
    assert str(pt.summary(ONES)).startswith("''  [3]")
    assert "\n''  " in str(look.stats(ONES))
    assert " '' " in str(look.diff(ONES, ONES + 1))
