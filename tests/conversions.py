"""Checks of conversions: that a table is its own inverse, and that arrays or trees have the same bits."""

import numpy as np

import ptree as pt


def assert_own_inverse(table, source, like):
    """From the source to `like` and back: the same names, shapes, dtypes and bits."""
    assert table.inverse.inverse == table
    params = table.apply(source, like=like)
    assert_same_arrays(table.inverse.apply(params, carried=table.carried(source)), source)


def assert_same_arrays(got, expected):
    """Equal names, shapes, dtypes and bits, in any order."""
    assert set(got) == set(expected)
    for name, array in expected.items():
        one, other = np.asarray(got[name]), np.asarray(array)
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        assert one.tobytes() == other.tobytes(), name


def assert_same_trees(got, expected):
    """Trees of the same paths, ties, dtypes and bits; by NumPy, as `==` would compile a comparison for each shape."""
    assert pt.ties(got) == pt.ties(expected)
    assert_same_arrays(dict(pt.items(got)), dict(pt.items(expected)))
