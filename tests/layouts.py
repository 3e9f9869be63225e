"""Layers beside those of other frameworks: parameters converted by a layer table give equal outputs, and go back unchanged."""

from functools import partial

import jax
import numpy as np

from ptree import convert

TOLERANCE = 64 * np.finfo(np.float32).eps
"""Of outputs near 1 that are sums of at most some hundred products, in another order of the terms."""


def draws(*shape, seed=0):
    """Numbers that are all different, near 1 in size."""
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype("f4")


def converted(net, inputs, source, framework, expected, *, tolerance=TOLERANCE, call=None, **options):
    """The parameters that the table of a layer makes of a framework's arrays, after a check of the outputs."""
    table = convert.layer_table(net, *inputs, framework=framework, **options)
    params = table.apply(source, like=net.spec(*inputs))
    output = jax.jit(partial(net, **(call or {})))(params, *inputs)  # compiled once rather than each operation
    np.testing.assert_allclose(output, np.asarray(expected), rtol=tolerance, atol=tolerance)
    return params, table


def agrees(net, inputs, source, framework, expected, *, exact=True, **options):
    """Convert, compare the outputs, convert back into the same form and compare each number."""
    params, table = converted(net, inputs, source, framework, expected, **options)
    back = table.inverse.apply(params, like=source)
    assert table.inverse.inverse == table
    same_arrays(back, source, exact)
    again = table.apply(back, like=net.spec(*inputs))
    same_arrays(again, params, exact)
    return params, table


def same_arrays(one, other, exact=True):
    leaves, structure = jax.tree.flatten(one)
    expected, structure_of_other = jax.tree.flatten(other)
    assert structure == structure_of_other
    assert leaves
    for got, leaf in zip(leaves, expected, strict=True):
        if not hasattr(leaf, "dtype"):  # an option of a module
            assert got == leaf
            continue
        if jax.dtypes.issubdtype(got.dtype, jax.dtypes.prng_key):
            got, leaf = jax.random.key_data(got), jax.random.key_data(leaf)
        got, leaf = np.asarray(got), np.asarray(leaf)
        assert got.dtype == leaf.dtype
        if exact:
            np.testing.assert_array_equal(got, leaf)
        else:
            np.testing.assert_allclose(got, leaf, rtol=1e-6, atol=1e-6)


def with_noise(tree, seed=0):
    """A tree of JAX with other numbers: variances above 0, all leaves of floats different."""
    generator = np.random.default_rng(seed)

    def noisy(path, leaf):
        if not np.issubdtype(np.asarray(leaf).dtype, np.floating):
            return leaf
        values = (0.5 * generator.normal(size=np.shape(leaf))).astype("f4")
        is_variance = "var" in jax.tree_util.keystr(path)
        return jax.numpy.asarray(np.abs(values) + 0.5 if is_variance else values)

    return jax.tree_util.tree_map_with_path(noisy, tree)
