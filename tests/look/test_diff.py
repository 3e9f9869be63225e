"""diff: pairs of leaves by name, content and rules; sizes of changes; ties; damage; text, data and exit code."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import ptree as pt
from ptree._stored.leaf_parts import read_block
from ptree.look import Diff, diff


def gpt(prefix="h", layers=3, width=16, separator="/"):
    """The leaves of a small model in which biases are constant, as they are before training."""
    draw = np.random.default_rng(0)
    leaves = {"wte": draw.standard_normal((64, width), "float32")}
    for layer in range(layers):
        for name, shape in {"attn/w": (width, 3 * width), "mlp/w": (width, width)}.items():
            leaves[f"{prefix}/{layer}/{name}"] = draw.standard_normal(shape, "float32")
            leaves[f"{prefix}/{layer}/{name[:-1]}b"] = np.zeros(shape[1:], "float32")
    return {path.replace("/", separator): leaf for path, leaf in leaves.items()}


def kinds(found: Diff) -> dict[str, str]:
    return {row.path: row.kind for row in found.rows}


def only(found: Diff):
    assert len(found.rows) == 1, found
    return found.rows[0]


# ------------------------------------------------------------------------------- the whole


def test_everything_that_can_differ_is_found_at_once(tmp_path):
    before, after = gpt(), gpt("transformer/blocks")
    before["ln_f/bias"] = np.zeros(8, "float32")
    before["out"] = np.arange(12, dtype="float32").reshape(3, 4)
    after["lm_head/bias"] = np.zeros(9, "float32")
    after["out"] = before["out"].T.copy()
    after["wte"] = np.concatenate([before["wte"], before["wte"]])
    after["transformer/blocks/1/mlp/w"] = before["h/1/mlp/w"].astype("float16")
    after["transformer/blocks/2/mlp/w"] = before["h/2/mlp/w"] * 1.5
    after["transformer/blocks/2/mlp/w"][3, 7] = np.nan
    after["transformer/blocks/0/mlp/b"] = np.ones(16, "float32")
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(before, a)
    save_file(after, b)
    found = diff(a, b)
    rule = found.rules[0]
    assert (rule.before, rule.after, rule.count, len(found.rules)) == ("h/**", "transformer/blocks/**", 12, 1)
    assert found.counts == {
        "same": 0, "renamed": 9, "changed": 2, "retyped": 1, "transposed": 1, "reshaped": 1, "added": 1, "removed": 1,
    }  # fmt: skip
    assert kinds(found)["out"] == "transposed"
    assert kinds(found)["wte"] == "reshaped"
    changed = next(row for row in found.rows if row.path == "transformer/blocks/2/mlp/w")
    assert changed.path_before == "h/2/mlp/w"
    assert (changed.nonfinite_before, changed.nonfinite, changed.differing) == (0, 1, 256)
    assert changed.relative == pytest.approx(0.5)
    assert changed.cosine == pytest.approx(1.0)
    assert (found.is_same, found.exit_code, bool(found)) == (False, 1, True)
    assert [row.kind for row in found.rows[:9]] == ["renamed"] * 9
    assert found.rows[9] is changed  # what is no longer finite comes first


def test_what_is_the_same_is_false_and_has_exit_code_0():
    tree = {"w": np.array([1.0, np.nan, np.inf, -0.0]), "e": np.zeros((0, 3)), "f": len, "t": "text", "n": 3}
    other = {"w": np.array([1.0, np.nan, np.inf, 0.0]), "e": np.zeros((0, 3)), "f": len, "t": "text", "n": 3}
    found = diff(tree, other)
    assert (found.is_same, found.exit_code, bool(found), found.rows) == (True, 0, False, ())
    assert str(found) == "5 the same"
    assert diff({}, {}).is_same
    assert diff(np.float32(2), np.float32(2)).is_same


# ------------------------------------------------------------------------------- numbers


DTYPES = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4", "int8", "uint8",
    "int16", "int32", "uint32", "int64", "uint64", "complex64", "complex128", "bool",
]  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
def test_sizes_are_those_of_numpy_in_float64(name):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    draw = np.random.default_rng(1)
    before, after = (np.abs(draw.integers(0, 7, (50, 40))).astype(dtype) for _ in range(2))
    row = only(diff({"w": before}, {"w": after}))
    wide = np.complex128 if dtype.kind == "c" else np.float64
    x, y = before.astype(wide).ravel(), after.astype(wide).ravel()
    if name == "bool":
        x, y = x.real, y.real
    assert row.kind == "changed"
    assert row.differing == np.count_nonzero(x != y)
    assert row.relative == pytest.approx(np.linalg.norm(y - x) / np.linalg.norm(x), rel=1e-6)
    assert row.largest == pytest.approx(np.abs(y - x).max())
    cosine = np.vdot(x, y).real / np.linalg.norm(x) / np.linalg.norm(y)
    assert row.cosine == pytest.approx(cosine, rel=1e-5)
    assert diff({"w": before}, {"w": before.copy()}).is_same


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e25, 1e38])
def test_tiny_and_huge_numbers_keep_their_sizes(scale):
    draw = np.random.default_rng(1)
    x, y = (draw.uniform(1, 2, 1000) for _ in range(2))
    before, after = (x * scale).astype("float32"), (y * scale).astype("float32")
    row = only(diff({"w": before}, {"w": after}))
    wide, its = before.astype("float64"), after.astype("float64")
    assert row.relative == pytest.approx(np.linalg.norm(its - wide) / np.linalg.norm(wide), rel=1e-5)
    assert row.cosine == pytest.approx(wide @ its / np.linalg.norm(wide) / np.linalg.norm(its), rel=1e-5)


def test_the_last_bit_of_large_whole_numbers_counts():
    before = np.array([2**62, -(2**63), 5], "int64")
    row = only(diff({"n": before}, {"n": before + np.array([1, 0, 0])}))
    assert (row.differing, row.largest) == (1, 1.0)
    row = only(diff({"n": np.array([-(2**63)])}, {"n": np.array([2**63 - 1])}))
    assert row.largest == float(2**64 - 1)


def test_a_leaf_of_many_chunks_that_differs_at_its_end_is_changed(tmp_path):
    before = np.random.default_rng(0).standard_normal((1 << 18) + 3).astype("float32")
    after = before.copy()
    after[-1] += 1
    save_file({"w": before}, tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", w=after)
    row = only(diff(tmp_path / "a.safetensors", tmp_path / "b.npz"))
    assert (row.differing, row.largest) == (1, pytest.approx(abs(after[-1] - before[-1])))
    assert row.relative == pytest.approx(1 / np.linalg.norm(before.astype("float64")), rel=1e-4)


def test_new_and_old_nan_and_inf_are_counted_and_sizes_are_of_the_others():
    before = np.array([1.0, 2.0, np.nan, np.inf, 5.0], "float32")
    after = np.array([1.0, 3.0, np.nan, -np.inf, np.nan], "float32")
    row = only(diff({"w": before}, {"w": after}, tolerance=1e9))
    assert (row.differing, row.nonfinite_before, row.nonfinite) == (3, 2, 3)
    assert row.relative == pytest.approx(1 / np.sqrt(5))
    nothing = np.full(4, np.nan)
    assert only(diff({"w": nothing}, {"w": np.ones(4)})).nonfinite_before == 4
    assert diff({"w": nothing}, {"w": nothing.copy()}).is_same


def test_the_tolerance_is_of_the_relative_size():
    before, after = np.full(100, 2.0), np.full(100, 2.02)
    found = diff({"w": before}, {"w": after}, tolerance=0.011)
    assert found.is_same
    assert str(found) == "1 the same (1 of them within the tolerance 0.011)"
    assert not diff({"w": before}, {"w": after}, tolerance=0.009).is_same
    assert only(diff({"w": np.zeros(2)}, {"w": np.full(2, 1e-9)}, tolerance=1.0)).relative == np.inf
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the tolerance is a relative size from 0 on"):
            diff({}, {}, tolerance=wrong)


# --------------------------------------------------------------------------- other dtypes


@pytest.mark.parametrize(
    ("old", "new"), [("float32", "bfloat16"), ("float64", "float32"), ("float32", "float8_e4m3fn")]
)
def test_a_change_of_dtype_says_whether_it_is_the_rounding(old, new):
    old, new = (np.dtype(getattr(ml_dtypes, name, name)) for name in (old, new))
    before = np.random.default_rng(0).standard_normal(1000).astype(old)
    row = only(diff({"w": before}, {"w": before.astype(new)}))
    assert (row.kind, row.note) == ("retyped", "exactly the rounding")
    wide = before.astype("float64")
    error = np.linalg.norm(before.astype(new).astype("float64") - wide) / np.linalg.norm(wide)
    assert row.relative == pytest.approx(error, rel=1e-5)
    row = only(diff({"w": before}, {"w": (before * 1.2).astype(new)}))
    assert row.note == "more than the rounding"
    assert only(diff({"w": before.astype(new)}, {"w": before.astype(new).astype(old)})).note == "the same numbers"


def test_numbers_of_python_and_leaves_without_numbers_are_compared_too():
    found = diff({"n": 3, "f": max, "s": "relu", "x": 1.5}, {"n": 4, "f": min, "s": "gelu", "x": np.ones(2)})
    assert kinds(found) == {"n": "changed", "f": "changed", "s": "changed", "x": "reshaped"}
    assert "'relu' -> 'gelu'" in str(found)
    assert kinds(diff({"x": "a"}, {"x": np.ones(2)})) == {"x": "retyped"}


# -------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1), (2, 3, 1, 0)])
def test_other_orders_of_axes_are_found(order):
    shape = (700, 300) if len(order) == 2 else (5, 3, 40, 60)[: len(order)]
    before = np.random.default_rng(0).standard_normal(shape).astype("float32")
    row = only(diff({"w": before}, {"w": before.transpose(order).copy()}))
    assert (row.kind, row.differing) == ("transposed", 0)
    moved = before.transpose(order).copy()
    moved[(-1,) * len(order)] += 1
    row = only(diff({"w": before}, {"w": moved}))
    assert (row.kind, row.differing) == ("transposed", 1)


def test_split_heads_are_the_same_numbers_in_another_shape():
    kernel = np.random.default_rng(0).standard_normal((12, 8, 4))
    row = only(diff({"q": kernel}, {"q": kernel.reshape(12, 32)}))
    assert (row.kind, row.note) == ("reshaped", "the same numbers")
    assert only(diff({"q": kernel}, {"q": kernel.reshape(12, 32) + 1})).note == ""


def test_a_square_matrix_that_is_transposed_is_not_called_changed():
    before = np.random.default_rng(0).standard_normal((30, 30))
    assert only(diff({"w": before}, {"w": before.T.copy()})).kind == "transposed"
    assert only(diff({"w": before}, {"w": -before})).kind == "changed"
    other = np.random.default_rng(1).standard_normal((20, 30))
    assert only(diff({"w": other}, {"w": other[:, ::-1].T.reshape(30, 20) + 9})).kind == "reshaped"


# --------------------------------------------------------------------------------- names


def test_names_with_dots_find_their_partners_with_slashes(tmp_path):
    before, after = gpt(separator="."), gpt("transformer/blocks")
    after["transformer/blocks/1/attn/w"] += 1
    found = diff(before, after)
    assert [(rule.before, rule.after, rule.count) for rule in found.rules] == [("h.**", "transformer/blocks/**", 12)]
    assert found.counts == {"same": 1, "renamed": 11, "changed": 1}
    found = diff(gpt(separator="."), gpt())
    assert [(rule.before, rule.after, rule.count) for rule in found.rules] == [(".", "/", 12)]


@pytest.mark.parametrize(
    ("rename", "rule"),
    [
        (lambda path: f"model/{path}", ("**", "model/**")),
        (lambda path: path.replace("attn", "attention"), ("**/attn/**", "**/attention/**")),
        (lambda path: path[:-1] + path[-1].replace("w", "kernel"), ("**/w", "**/kernel")),
        (lambda path: path.replace("h/", "layers/").replace("mlp", "ff"), ("h/*/mlp/**", "layers/*/ff/**")),
    ],
)
def test_rules_of_several_forms_are_found(rename, rule):
    found = diff(gpt(), {rename(path): leaf for path, leaf in gpt().items()})
    assert rule in [(rule.before, rule.after) for rule in found.rules]
    assert set(found.counts) == {"same", "renamed"}


def test_leaves_that_have_all_changed_are_renamed_by_their_names_if_they_look_alike():
    draw = np.random.default_rng(3)
    tuned = {
        f"model/{path}": leaf + np.float32(0.1) * draw.standard_normal(leaf.shape, "float32")
        for path, leaf in gpt().items()
    }
    found = diff(gpt(), tuned)
    assert [(rule.before, rule.after, rule.count) for rule in found.rules] == [("**", "model/**", 13)]
    others = {f"model/{path}": draw.standard_normal(leaf.shape, "float32") for path, leaf in gpt().items()}
    assert not diff(gpt(), others).rules


def test_equal_leaves_are_not_paired_by_chance():
    before = {"a/w": np.arange(4.0), "b/w": np.arange(4.0), "one": np.float32(3)}
    after = {"x/w": np.arange(4.0), "y/w": np.arange(4.0), "step": np.float32(3)}
    assert diff(before, after).counts == {"same": 0, "added": 3, "removed": 3}


def test_the_layers_of_a_stack_are_compared_with_single_layers():
    layers = {f"blocks/{i}/w": np.random.default_rng(i).standard_normal((4, 5), "float32") for i in range(6)}
    stack = {"blocks": {":": {"w": np.stack([*layers.values()])}}}
    stack["blocks"][":"]["w"][4] *= 3
    row = only(diff(layers, stack))
    assert (row.kind, row.path, row.differing) == ("restacked", "blocks/:/w", 20)
    assert row.by_layer == pytest.approx((0, 0, 0, 0, 2, 0))
    assert only(diff(stack, {name: leaf * 1 for name, leaf in layers.items()})).by_layer[4] == pytest.approx(2 / 3)
    tree = pt.stacks.stack(pt.Tree(pt.unflatten(layers)), "blocks")
    assert only(diff(pt.Tree(pt.unflatten(layers)), tree)).differing == 0
    changed = pt.update(tree, "blocks/:/w", lambda w: w * np.arange(1, 7, dtype="float32").reshape(6, 1, 1))
    row = only(diff(tree, changed))
    assert (row.kind, row.by_layer) == ("changed", pytest.approx((0, 1, 2, 3, 4, 5), rel=1e-5))


@pytest.mark.parametrize("separator", ["/", "."])
def test_a_stack_and_its_layers_under_another_name_are_one(separator):
    layers = gpt(prefix="transformer/h", separator=separator)
    stacked: dict[str, np.ndarray] = {"wte": layers["wte"]}
    for name in ("attn/w", "attn/b", "mlp/w", "mlp/b"):
        paths = [f"transformer/h/{layer}/{name}".replace("/", separator) for layer in range(3)]
        stacked[f"blocks/:/{name}"] = np.stack([layers[path] for path in paths])
    stacked["blocks/:/mlp/w"] = 1.01 * stacked["blocks/:/mlp/w"]
    for before, after in ((stacked, layers), (layers, stacked)):
        found = diff(before, after)
        assert found.counts == {"same": 1, "restacked": 4}
        relative = {row.relative for row in found.rows}
        assert sorted(map(bool, relative)) == [False, True]  # of constant biases too
        assert max(size for size in relative if size is not None) == pytest.approx(0.01, rel=0.02)


def test_layers_that_look_otherwise_or_are_too_few_are_not_those_of_a_stack():
    draw = np.random.default_rng(1)
    stack = {"blocks/:/w": draw.standard_normal((3, 8, 8), "float32")}
    same = {f"h/{layer}/w": stack["blocks/:/w"][layer] for layer in range(3)}
    others = {path: draw.standard_normal((8, 8), "float32") for path in same}
    for after in (others, {**same, "g/0/w": others["h/0/w"], "g/1/w": others["h/1/w"], "g/2/w": others["h/2/w"]}):
        assert {row.kind for row in diff(stack, after).rows} == {"added", "removed"}
    del same["h/1/w"]
    assert {row.kind for row in diff(stack, same).rows} == {"added", "removed"}


def stacks_of_stacks():
    draw = np.random.default_rng(2)
    whole = draw.standard_normal((4, 3, 2, 5)).astype("float32")
    layers = {f"B/{i}/m/{j}/w": whole[i, j] for i in range(4) for j in range(3)}
    inner = {f"B/{i}/m/:/w": whole[i] for i in range(4)}
    outer = {f"B/:/m/{j}/w": whole[:, j].copy() for j in range(3)}
    return whole, layers, inner, outer


@pytest.mark.parametrize(
    ("which", "name", "count"),
    [(1, "B/{0..3}/m/{0..2}/w", 12), (2, "B/{0..3}/m/:/w", 4), (3, "B/:/m/{0..2}/w", 3)],
)
def test_a_stack_of_stacks_is_compared_with_layers_of_any_of_its_axes(which, name, count, tmp_path):
    whole, *others = stacks_of_stacks()
    layers = others[which - 1]
    changed = whole.copy()
    changed[2, 1] *= 3
    pt.save(tmp_path / "a.safetensors", pt.Tree(pt.unflatten(layers)))
    for before in (layers, tmp_path / "a.safetensors"):
        row = only(diff(before, {"B/:/m/:/w": whole}))
        assert (row.kind, row.path_before, row.path, row.differing) == ("restacked", name, "B/:/m/:/w", 0)
        assert row.note == f"{count} layers, the same numbers"
        row = only(diff(before, {"B/:/m/:/w": changed}))
        assert row.differing == 10
        assert row.by_layer == pytest.approx([2 if at == 7 else 0 for at in range(12)])
    back = only(diff({"B/:/m/:/w": changed}, layers))
    assert (back.path, back.path_before, back.differing) == (name, "B/:/m/:/w", 10)


def test_a_tree_in_which_layers_of_stacks_are_stacked_again():
    inner = pt.Tree(pt.unflatten(stacks_of_stacks()[1]))
    for layer in range(4):
        inner = pt.stacks.stack(inner, f"B/{layer}/m")
    assert only(diff(inner, pt.stacks.stack(inner, "B"))).kind == "restacked"


# ---------------------------------------------------------------------------------- ties


def test_a_tie_against_an_equal_copy_and_against_another_leaf():
    table = np.arange(12.0).reshape(3, 4)
    tied = pt.tie(pt.Tree({"wte": table, "head": table.copy()}), {"head": "wte"})
    row = only(diff(tied, {"wte": table, "head": table.copy()}))
    assert (row.kind, row.path, row.note) == ("untied", "head", "was = wte, is an equal copy")
    row = only(diff({"wte": table, "head": table * 2}, tied))
    assert (row.kind, row.note) == ("tied", "was another leaf (relative 1), is = wte")
    assert diff(tied, tied).is_same
    other = pt.tie(pt.Tree({"wte": table, "head": table.copy()}), {"wte": "head"})
    assert diff(tied, other).is_same  # the same tie, told from its other end
    row = only(diff(tied, {"wte": table}))
    assert (row.kind, row.path, row.note) == ("removed", "head", "= wte")


def test_a_selector_selects_on_both_sides_what_it_selects_on_one():
    table = np.arange(12.0).reshape(3, 4)
    tied = pt.tie(pt.Tree({"wte": table, "head": table.copy(), "b": np.ones(2)}), {"head": "wte"})
    apart = {"wte": table, "head": table.copy(), "b": np.zeros(2)}
    assert kinds(diff(tied, apart, selector="head")) == {"head": "untied"}
    assert kinds(diff(tied, apart, selector="b")) == {"b": "changed"}


def test_a_copy_that_another_program_left_out_is_called_a_copy():
    table = np.random.default_rng(0).standard_normal((5, 4))
    both = {"wte.weight": table, "lm_head.weight": table.copy(), "a.bias": np.zeros(4), "b.bias": np.zeros(4)}
    found = diff(both, {"wte.weight": table, "a.bias": np.zeros(4)})
    assert {row.path: (row.kind, row.note) for row in found.rows} == {
        "lm_head.weight": ("removed", "a copy of wte.weight"),
        "b.bias": ("removed", ""),
    }


def test_a_tie_of_another_source_is_a_difference():
    leaves = {"x": np.arange(3.0), "y": np.arange(3.0) + 1, "z": np.arange(3.0)}
    one = pt.tie(pt.Tree(leaves), {"z": "x"})
    other = pt.tie(pt.Tree({**leaves, "z": leaves["y"]}), {"z": "y"})
    row = only(diff(one, other))
    assert (row.kind, row.path, row.note) == ("retied", "z", "was = x, is = y")
    assert only(diff({"x": leaves["x"]}, pt.drop(one, "y"))).note == "= x"


def test_a_tie_through_a_transpose_and_in_files_under_other_names(tmp_path):
    table = np.random.default_rng(0).standard_normal((5, 4))
    tree = pt.Tree({"wte": table, "head": pt.transposed("wte")})
    pt.save(tmp_path / "a.safetensors", tree)
    save_file({"m.wte": table, "m.head": table.T.copy()}, tmp_path / "b.safetensors")
    found = diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert kinds(found) == {"m/wte": "renamed", "m/head": "untied"}
    assert found.rows[1].note == "was = transposed(wte), is an equal copy"


# ------------------------------------------------------------- files, specs, what cannot be read


def test_a_tree_is_the_same_as_its_file_with_keys_narrow_and_empty_leaves(tmp_path):
    tree = {
        "key": jax.random.key(0), "keys": jax.random.split(jax.random.key(0), 3), "n": 3, "x": 0.5, "flag": True,
        "i4": jnp.ones(3, jnp.int4), "f8": jnp.ones(3, jnp.float8_e4m3fn), "c": np.ones(2, complex), "s": np.float32(2),
        "e": np.zeros((0, 3)),
    }  # fmt: skip
    pt.save(tmp_path / "m.safetensors", tree)
    assert diff(tree, tmp_path / "m.safetensors").is_same
    row = only(diff(tree, {**tree, "key": jax.random.key(1)}))
    assert (row.kind, row.differing, row.relative) == ("changed", 1, None)
    with pt.open(tmp_path / "m.safetensors") as file:
        assert diff(file, tree).is_same
        assert file["n"][...] == 3  # still open


def test_a_spec_is_compared_by_shapes_and_dtypes():
    spec = pt.Tree({"w": pt.Param((3, 4)), "b": pt.Param((4,), "bfloat16")})
    params = pt.init(
        pt.Tree({"w": pt.Param((3, 4), init=pt.initializers.ones), "b": pt.Param((5,), init=pt.initializers.ones)}),
        jax.random.key(0),
    )
    found = diff(spec, params)
    assert kinds(found) == {"b": "reshaped"}
    assert not found.has_numbers
    assert "shapes and dtypes alone" in str(found)
    assert diff(spec, pt.abstract(spec)).is_same


def test_shards_and_the_latest_step_of_a_folder_are_compared_with_one_file(tmp_path):
    tree = {f"w{at}": np.random.default_rng(at).standard_normal(3000) for at in range(4)}
    pt.save(tmp_path / "one.safetensors", tree)
    pt.save(tmp_path / "many.safetensors", tree, max_shard_size=30_000)
    with pt.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, {**tree, "w0": tree["w0"] + 1})
        checkpoints.save(2, tree)
    assert diff(tmp_path / "one.safetensors", tmp_path / "many.safetensors").is_same
    assert diff(tmp_path / "many.safetensors", tmp_path / "run").is_same
    assert only(diff(tmp_path / "run", {**tree, "w3": tree["w3"] * 2})).relative == pytest.approx(1)


def test_damaged_leaves_are_named_and_all_others_compared(tmp_path):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tree = {"x": np.arange(64.0), "y": np.arange(64.0) + 5, "z": np.ones(64)}
    pt.save(a, tree)
    pt.save(b, {**tree, "z": np.ones(64) * 2})
    content = bytearray(b.read_bytes())
    at = bytes(content).index((np.arange(64.0) + 5).tobytes())
    content[at + 8] ^= 1
    b.write_bytes(content)
    found = diff(a, b)
    assert kinds(found) == {"z": "changed", "y": "unread"}
    assert "'y' is damaged" in next(row.note for row in found.rows if row.kind == "unread")
    assert kinds(diff(a, b, verify=False)) == {"z": "changed"}


def test_leaves_of_a_missing_shard_are_unread(tmp_path):
    tree = pt.Tree({str(layer): {"w": np.full(64, layer, "float32")} for layer in range(6)})
    (tmp_path / "all").mkdir()
    pt.save(f"{tmp_path}/all/", tree, max_shard_size=600)
    pt.save(tmp_path / "one.safetensors", tree)
    shards = sorted((tmp_path / "all").glob("*.safetensors"))
    assert len(shards) > 1
    shards[0].unlink()
    for sides in ((tmp_path / "one.safetensors", tmp_path / "all"), (tmp_path / "all", tmp_path / "one.safetensors")):
        found = diff(*sides)
        assert {row.kind for row in found.rows} == {"unread"}
        assert all(shards[0].name in row.note for row in found.rows)
    added = diff({}, tmp_path / "all").rows
    assert {row.note for row in added if row.dtype == "?"} == {found.rows[0].note.removeprefix("before: ")}


def test_a_leaf_without_numbers_does_not_make_a_tree_a_spec():
    before = {"w": np.ones(3), "v": np.ones(2)}
    found = diff(before, {"w": np.full(3, 2.0), "v": jax.ShapeDtypeStruct((2,), "float64")})
    assert (found.has_numbers, found.declared, found.counts["changed"]) == (True, 1, 1)
    assert "1 of all by shape and dtype alone, without numbers yet" in str(found)
    assert not diff(
        before, {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in before.items()}
    ).has_numbers


def test_numbers_that_became_nan_have_no_size_of_change():
    row = only(diff({"w": np.ones(3)}, {"w": np.array([1, np.nan, 1])}))
    assert (row.differing, row.nonfinite, row.relative, row.largest, row.cosine) == (1, 1, None, None, None)
    text = str(diff({"w": np.ones(3)}, {"w": np.array([1, np.nan, 1])}))
    assert "1 differ" in text
    assert "1.000" not in text


def test_a_tolerance_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="expected a number as tolerance"):
        diff({}, {}, tolerance="x")  # pyright: ignore[reportArgumentType]


def test_equal_checksums_spare_reading_where_they_are_not_verified(tmp_path):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pt.save(a, {"x": np.arange(64.0), "y": np.arange(640.0)})
    pt.save(b, {"x": np.arange(64.0), "y": np.arange(640.0)})
    with pt.open(a) as one, pt.open(b) as other:
        at_first = one.bytes_read
        assert diff(one, other, verify=False).is_same
        assert one.bytes_read == at_first
        assert diff(one, other).is_same
        assert one.bytes_read == at_first + 704 * 8


def test_tracers_and_deleted_leaves_are_named():
    rows = []

    @jax.jit
    def step(params):
        rows.extend(diff(params, {"w": np.ones(3, "float32"), "b": np.ones(2)}).rows)
        return params

    step({"w": jnp.ones(3), "b": np.ones(3)})
    assert {row.path: row.kind for row in rows} == {"w": "unread", "b": "reshaped"}
    gone = jnp.ones(3)
    gone.delete()
    assert "is deleted" in only(diff({"w": gone}, {"w": np.ones(3, "float32")})).note


def test_a_file_is_compared_without_jax_and_a_selector_may_match_one_side(tmp_path):
    save_file(gpt(), tmp_path / "a.safetensors")
    save_file({**gpt(), "extra": np.ones(3, "float32")}, tmp_path / "b.safetensors")
    script = (
        "import sys; from ptree.look import diff; found = diff('a.safetensors', 'b.safetensors'); print(found);"
        "found._repr_html_(), found.to_csv(); print('jax' in sys.modules, found.exit_code);"
        "print(diff('a.safetensors', 'b.safetensors', selector='extra').counts)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "13 the same, 1 added",
        "added       extra  [3] f32",
        "False 1",
        "{'same': 0, 'added': 1}",
    ]
    with pytest.raises(pt.PatternError, match="matches nothing"):
        diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors", selector="nothing")


# -------------------------------------------------------------------------- text and data


def changed_model() -> Diff:
    draw = np.random.default_rng(0)
    before = gpt(layers=12)
    after = {path.replace("h/", "transformer/blocks/"): leaf.copy() for path, leaf in before.items()}
    for layer in range(6, 12):
        leaf = after[f"transformer/blocks/{layer}/mlp/w"]
        leaf += np.float32(0.1 * (layer - 5)) * draw.standard_normal(leaf.shape, "float32")
    after["transformer/blocks/11/mlp/w"][0, 0] = np.inf
    return diff(before, after)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_text_fits_the_page_and_folds_layers(width):
    text = changed_model().text(width)
    assert all(len(line) <= width for line in text.splitlines())
    joined = "".join(text.split())
    assert "transformer/blocks/{6..11}/mlp/w" in joined
    assert "!1non-finite" in joined
    assert "▁▃▄▅▆█" in joined


def test_leaves_that_are_no_numbers_or_of_other_kinds_are_compared_as_what_they_are():
    class Odd:
        def __eq__(self, other):
            raise RuntimeError

    times = np.array(["2020", "2021"], "M8[D]")
    before = {"t": times, "s": np.array(["x", "y"]), "o": np.array([None]), "odd": Odd(), "key": jax.random.key(0)}
    after = {
        "t": times + np.timedelta64(1, "D"),
        "s": np.array(["x", "y"]),
        "o": np.array([1]),
        "odd": Odd(),
        "key": jax.random.key(0, impl="rbg"),
    }
    after["o"] = after["o"].astype(object)
    assert kinds(diff(before, after)) == {"t": "changed", "o": "unread", "odd": "changed", "key": "retyped"}
    same = {"w": np.arange(6.0).reshape(2, 3), "big": np.arange(4, dtype=">f4")}
    assert kinds(diff(same, {"w": np.asfortranarray(same["w"]), "big": np.arange(4, dtype="f4")})) == {"big": "retyped"}


def test_numbers_too_large_for_their_difference_are_sorted_first():
    found = diff({"x": np.full(9, 1e308), "y": np.ones(3)}, {"x": np.full(9, -1e308), "y": np.zeros(3)})
    assert [(row.path, row.relative) for row in found.rows] == [("x", np.inf), ("y", 1.0)]


def test_data_are_plain():
    found = changed_model()
    table = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert table["counts"] == {"same": 1, "renamed": 42, "changed": 6}
    assert table["rules"] == [{"before": "h/**", "after": "transformer/blocks/**", "count": 48}]
    assert len(found.to_csv().splitlines()) == 1 + 48
    assert diff({"w": np.zeros(2)}, {"w": np.ones(2)}).to_dict()["rows"][0]["relative"] == "inf"
    assert "\x1b[33mchanged\x1b[0m" in found.text(color=True)


def test_names_are_inert_in_text_and_html():
    name = "\x1b[31m<script>alert(1)</script>"
    found = diff({name: np.ones(2)}, {name: np.zeros(2)})
    assert "\x1b" not in str(found) + found._repr_html_()
    assert "<script>" not in found._repr_html_()


def test_100_000_rows_are_cut_to_a_page():
    names = ["leaf" + "".join("abcdefghij"[int(digit)] for digit in str(i)) for i in range(300)]
    before = {name: np.ones(1) * i for i, name in enumerate(names)}
    text = diff(before, {path: leaf + 1 for path, leaf in before.items()}).text()
    assert text.splitlines()[-1].strip() == "... and 250 more"
    assert len(diff(before, {}).text(most=None).splitlines()) == 301


def test_a_corner_of_a_leaf_with_huge_rows_is_not_read_with_the_rows():
    counts = []

    def fill(runs):
        counts.extend(memory.nbytes for _, memory in runs)

    ranges = (range(2), range(3), range(5))
    assert read_block(ranges, (2, 1 << 20, 8), np.dtype("float32"), fill).shape == (2, 3, 5)
    assert max(counts) == 4 * (2 * 8 + 5)  # to the last number of the corner
