"""summary: rows as data, a table that fits, totals that count once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from trees import TREES, Pair, language_model, mlp

import ptree as pt
from ptree import nn


def test_the_table_shows_every_parameter_and_counts_a_tied_leaf_once():
    params = pt.tie(mlp(), {"4": "2"})
    assert str(pt.summary(params)) == (
        "path      shape   dtype  count  bytes\n"
        "-------------------------------------\n"
        "0/kernel  (4, 8)  f32       32  128 B\n"
        "0/bias    (8,)    f32        8   32 B\n"
        "2/kernel  (8, 8)  f32       64  256 B\n"
        "2/bias    (8,)    f32        8   32 B\n"
        "4/kernel  (8, 8)  = 2/kernel\n"
        "4/bias    (8,)    = 2/bias\n"
        "6/kernel  (8, 1)  f32        8   32 B\n"
        "6/bias    (1,)    f32        1    4 B\n"
        "-------------------------------------\n"
        "total: 121 in 6 leaves, 484 B; 2 tied"
    )


def test_rows_are_data():
    spec = pt.Tree(
        {
            "embed": {"table": pt.Param((10, 4), "bfloat16")},
            "head": {"kernel": pt.transposed("embed/table"), "mean": pt.Param((3,), trainable=False)},
        }
    )
    summary = pt.summary(spec)
    assert [tuple(vars(row).values()) for row in summary.rows] == [
        ("embed/table", (10, 4), "bf16", 40, 80, True, None),
        ("head/kernel", (4, 10), "bf16", 40, 80, True, "transposed(embed/table)"),
        ("head/mean", (3,), "f32", 3, 12, False, None),
    ]
    assert (summary.count, summary.bytes, summary.trainable) == (43, 92, 40)
    assert str(summary).splitlines()[-1] == "total: 43 in 2 leaves, 92 B; 1 tied; 40 trainable"


def test_trainable_can_be_told_by_a_mask():
    spec = pt.Tree(
        {
            "a": pt.Param((2,), init=pt.initializers.ones),
            "b": pt.Param((3,), init=pt.initializers.ones, trainable=False),
        }
    )
    params = pt.init(spec, jax.random.key(0))
    assert pt.summary(params).trainable is None
    assert pt.summary(params, trainable=pt.mask(spec, lambda path, leaf: leaf.trainable)).trainable == 2


@pytest.mark.parametrize("name", TREES)
def test_any_pytree_has_a_summary_that_counts_its_numbers(name):
    tree = TREES[name]
    summary = pt.summary(tree)
    assert summary.count == sum(
        np.size(leaf) if "key" not in str(leaf.dtype) else leaf.size for leaf in jax.tree.leaves(tree)
    )
    assert all(len(line) <= 80 for line in str(summary).splitlines())


def test_it_works_on_gradients_optimiser_states_and_a_selection():
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    assert pt.summary(jax.grad(lambda p: p["head/kernel"].sum())(params)).count == pt.summary(params).count
    assert pt.summary(optax.adam(1.0).init(params)).count == 2 * pt.summary(params).count + 1
    assert [row.path for row in pt.summary(params, "embed").rows] == ["embed/table", "head/kernel"]
    assert pt.summary(Pair(1, "label")).count == 2


def test_it_fits_80_columns_and_leaves_out_the_middle_when_asked():
    tree = pt.Tree(
        {"/".join(["a_rather_long_name_of_a_module"] * 4): pt.Param((12, 34)), "日本/" + "x" * 100: pt.Param((2,))}
    )
    assert max(map(len, str(pt.summary(tree)).splitlines())) <= 80
    assert "..." in str(pt.summary(tree))
    net = nn.Sequential(*[nn.Dense(4) for _ in range(100)])
    table = pt.summary(net.spec(jnp.ones((1, 4)))).table(most=10)
    assert len(table.splitlines()) == 10 + 5
    assert "... 190 more" in table


def test_a_tree_of_70_billion_is_summed_exactly():
    spec = pt.Tree({f"l{i}": {"w": pt.Param((8192, 28672), "bfloat16"), "b": pt.Param((1,))} for i in range(298)})
    assert pt.summary(spec).count == 298 * (8192 * 28672 + 1)
    assert str(pt.summary(spec)).splitlines()[-1].startswith("total: 69,994,545,450 in 596 leaves, 130.4 GiB")
