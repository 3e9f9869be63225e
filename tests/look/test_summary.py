"""summary: rows as data, folded blocks as text that fits, totals that count once, files without JAX."""

import csv
import io
import json
import math
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import TREES, Pair, language_model, mlp

import ptree as pt
from ptree import nn
from ptree._words import columns
from ptree.look import Row, Summary, Total
from ptree.look._summary.fold import fold


def lines(text):
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def shown(tree, width=80, **options):
    return pt.summary(tree, **options).text(width).splitlines()


def test_the_table_shows_every_parameter_and_counts_a_tied_leaf_once():
    params = pt.tie(mlp(), {"4": "2"})
    assert str(pt.summary(params)).splitlines() == lines("""
0/  kernel [4, 8], bias [8]  40  33.1%
2/  kernel [8, 8], bias [8]  72  59.5%
4/  = 2
6/  kernel [8, 1], bias [1]   9   7.4%
--------------------------------------------
121 parameters, 484 B, 6 leaves, 2 tied; f32
""")


def test_rows_are_data():
    spec = pt.Tree(
        {
            "embed": {"table": pt.Param((10, 4), "bfloat16")},
            "head": {"kernel": pt.transposed("embed/table"), "mean": pt.Param((3,), trainable=False)},
        }
    )
    summary = pt.summary(spec)
    assert [row[:7] for row in summary.rows] == [
        ("embed/table", (10, 4), "bf16", 40, 80, True, None),
        ("head/kernel", (4, 10), "bf16", 0, 0, True, "transposed(embed/table)"),
        ("head/mean", (3,), "f32", 3, 12, False, None),
    ]
    assert summary.rows[1].source == "embed/table"
    assert (summary.count, summary.bytes, summary.trainable) == (43, 92, 40)
    assert str(summary).splitlines() == lines("""
embed/table  [10, 4]                                               40  93.0%
head/        kernel = transposed(embed/table), mean [3] f32 frozen  3   7.0%
----------------------------------------------------------------------------
43 parameters, 92 B, 2 leaves, 1 tied; bf16 93.0%, f32 7.0%; 40 trainable
""")


def test_trainable_can_be_told_by_a_mask():
    spec = pt.Tree(
        {
            "a": pt.Param((2,), init=pt.initializers.ones),
            "b": pt.Param((3,), init=pt.initializers.ones, trainable=False),
        }
    )
    params = pt.init(spec, jax.random.key(0))
    assert pt.summary(params).trainable is None
    mask = pt.mask(spec, lambda path, leaf: leaf.trainable)
    assert pt.summary(params, trainable=mask).trainable == 2
    with pytest.raises(pt.StructureError, match="does not have the tree's paths: \\['b'\\]"):
        pt.summary(params, trainable={"a": True})


@pytest.mark.parametrize("name", TREES)
def test_any_pytree_has_a_summary_that_counts_its_numbers(name):
    tree = TREES[name]
    summary = pt.summary(tree)
    assert summary.count == sum(
        np.size(leaf) if "key" not in str(leaf.dtype) else leaf.size for leaf in jax.tree.leaves(tree)
    )
    for width in (40, 80, 120):
        for is_folded in (True, False):
            text = pt.summary(tree, fold=is_folded).text(width)
            assert max(map(columns, text.splitlines())) <= width
    assert json.loads(json.dumps(summary.to_dict()))["count"] == summary.count


@pytest.mark.parametrize("name", TREES)
def test_what_is_folded_adds_up_to_the_whole(name):
    summary = pt.summary(TREES[name])
    for depth in (None, 1, 2):
        blocks = fold(summary.rows, depth=depth)
        assert sum(block.size.count for block in blocks) == summary.count
        assert sum(block.size.leaves for block in blocks) == len(summary.leaves)


def test_it_works_on_gradients_optimiser_states_and_a_selection():
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    assert pt.summary(jax.grad(lambda p: p["head/kernel"].sum())(params)).count == pt.summary(params).count
    assert pt.summary(optax.adam(1.0).init(params)).count == 2 * pt.summary(params).count + 1
    assert [row.path for row in pt.summary(params, "embed").rows] == ["embed/table", "head/kernel"]


def test_only_numbers_are_parameters():
    assert pt.summary(Pair(1, "label")).count == 1
    assert pt.summary({"act": jnp.tanh, "w": jnp.ones(3)}).count == 3
    assert shown({"act": jnp.tanh, "w": jnp.ones(3)})[:2] == [
        "act  PjitFunction  0    0.0%",
        "w    [3]           3  100.0%",
    ]


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (nn.Dense(3), "Give the parameters of the layer, or layer.spec\\(x\\)"),
        (jnp.tanh, "not a tree: "),
        (object(), "not a tree: object"),
        (np, "not a tree: the module numpy. Give a dict of arrays"),
        (jnp, "not a tree: the module jax.numpy. "),
        (nn.Dense, "not a tree: the class Dense. Give a dict"),
        (lambda x: x, "not a tree: the function <lambda>. "),
        (io.BytesIO(), "not a tree: BytesIO. Give the path of the file"),
        (iter([1.0]), "not a tree: list_iterator. Give a dict or a list of the arrays that it yields"),
    ],
)
def test_what_is_no_tree_is_an_error_that_helps(thing, message, tmp_path):
    tree = {"w": np.ones(2)}
    calls = [
        lambda: pt.summary(thing),
        lambda: pt.look.stats(thing),
        lambda: pt.look.diff(thing, tree),
        lambda: pt.look.diff(tree, thing),
        lambda: pt.look.report(thing, out=tmp_path / "report.html"),
    ]
    for call in calls:
        with pytest.raises(pt.StructureError, match=message):
            call()


def test_a_missing_file_is_an_error_that_suggests_the_nearest(tmp_path):
    pt.save(tmp_path / "gpt2.safetensors", {"w": np.ones(2)})
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*gpt2.safetensors'\?"):
        pt.summary(tmp_path / "gpt2.safetensor")


# ------------------------------------------------------------------------------------ folding


def dense(i, o, dtype="float32"):
    return {"kernel": pt.Param((i, o), dtype), "bias": pt.Param((o,), dtype)}


def test_equal_blocks_fold_and_one_that_differs_splits_the_fold():
    blocks = [{"up": dense(4, 8), "down": dense(8, 4)} for _ in range(12)]
    assert shown(pt.Tree({"h": blocks}))[0] == "h/{0..11}/ x12                    912  100.0%"
    blocks[5] = {"up": dense(4, 8), "down": dense(8, 4, "bfloat16")}
    table = shown(pt.Tree({"h": blocks}))
    assert [line.split()[0] for line in table if "x" in line or "5/" in line] == ["{0..4,6..11}/", "5/"]
    assert any("kernel [8, 4] bf16, bias [4] bf16" in line for line in table)


def test_siblings_fold_if_they_are_equal_and_numbers_in_names_too():
    tree = pt.Tree({"attn": {"key": dense(4, 4), "query": dense(4, 4), "value": dense(4, 4), "out": dense(4, 8)}})
    assert [line.split()[0] for line in shown(tree)[:3]] == ["attn/", "{key,query,value}/", "out/"]
    assert shown(pt.Tree({f"layer_{i}": dense(2, 2) for i in range(11)}))[0].startswith("layer_{0..10}/ x11")
    assert shown({f"b{i}": jnp.ones(2) for i in (0, 1, 3)})[0].startswith("b{0..1,3} x3")


def test_many_siblings_are_named_in_full():
    names = [f"{letter * 9}" for letter in "abcdefgh"]
    text = "\n".join(shown(pt.Tree({name: dense(2, 2) for name in names})))
    assert all(name in text for name in names)


def test_every_second_block_is_of_another_kind():
    kinds = [dense(4, 4), {"experts": [dense(4, 4)] * 3}]
    table = shown(pt.Tree({"h": [kinds[i % 2] for i in range(48)]}))
    names = "".join(line.split()[0] for line in table if line)
    even, odd = (",".join(map(str, range(start, 48, 2))) for start in (0, 1))
    assert f"{{{even}}}/" in names
    assert f"{{{odd}}}/experts/{{0..2}}/" in names


def test_ties_between_and_inside_of_layers_fold():
    albert = pt.tie(pt.Tree({"h": [{"up": dense(4, 8), "down": dense(8, 4)}] * 12}), {"h/*": "h/0"})
    assert [line.split()[:4] for line in shown(albert)[:4]] == [
        ["h/", "76", "100.0%"],
        ["0/", "76", "100.0%"],
        ["up/", "kernel", "[4,", "8],"],
        ["down/", "kernel", "[8,", "4],"],
    ]
    assert shown(albert)[4] == "  {1..11}/ x11  = h/0"
    inside = pt.tie(pt.Tree({"h": [{"q": pt.Param((4, 4)), "k": pt.Param((4, 4))}] * 6}), {"h/*/k": "h/*/q"})
    assert shown(inside)[0] == "h/{0..5}/ x6  q [4, 4], k = h/{0..5}/q  96  100.0%"


def test_a_stack_is_its_layers():
    stacked = pt.stacks.stack(pt.Tree({"h": [dense(4, 4)] * 6}), "h")
    assert shown(stacked)[0] == "h/:/ x6  kernel [4, 4], bias [4]  120  100.0%"


def test_depth_and_no_fold():
    tree = pt.Tree({"h": [{"up": dense(4, 8)}] * 3, "head": pt.Param((4,))})
    assert shown(tree, depth=1)[:2] == ["h/    6 leaves  120  96.8%", "head  [4]         4   3.2%"]
    flat = shown(tree, fold=False)
    assert [line.split()[0] for line in flat[:7]] == pt.paths(tree)
    with pytest.raises(ValueError, match="depth=0"):
        pt.summary(tree, depth=0)


# ------------------------------------------------------------------------------------ widths


def test_no_path_is_cut():
    long = "/".join(["a_rather_long_name_of_a_module"] * 4)
    text = pt.summary(pt.Tree({long: pt.Param((12, 34)), "日本/" + "x" * 100: pt.Param((2,))})).text(40)
    assert long in text.replace("\n  ", "")  # where a line ends the name goes on in the next, below the first
    assert "x" * 100 in text.replace("\n  ", "")
    assert "..." not in text


def test_names_are_inert_in_text_html_and_the_longest_are_cut():
    names = ["\x1b[2J", "a\nb", "\u202e", "\ud800", "<script>alert(1)</script>", "z" * 10_000]
    summary = pt.summary({name: np.ones(2) for name in names})
    for text in (summary.text(40), summary.text(120), pt.summary(dict.fromkeys(names, 1), fold=False).text()):
        assert text.replace("\n", "").isprintable()
        assert len(text) < 3000
        assert "\\x1b[2J" in text
        assert "(10,000 characters)" in " ".join(text.split())
    html = summary._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.replace("\n", "").isprintable()


def test_a_bar_shows_the_share_where_there_is_room():
    tree = {"a": np.ones(75), "b": np.ones(25)}
    assert "█" not in pt.summary(tree).text(80)
    assert [line.count("█") for line in shown(tree, 120)[:2]] == [15, 5]


def test_color_is_put_around_the_same_text():
    summary = pt.summary(pt.tie(mlp(), {"4": "2"}))
    colored = summary.text(color=True)
    assert "\x1b[" in colored
    assert colored.replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "") == summary.text()


# ------------------------------------------------------------------------------------ totals and data


def test_totals_by_dtype_node_and_selector():
    enc = dense(4, 8, "bfloat16")
    spec = pt.tie(pt.Tree({"enc": enc, "head": {"kernel": pt.Param((8, 2))}, "again": enc}), {"again": "enc"})
    summary = pt.summary(spec)
    assert summary.by_dtype == {"bf16": Total(40, 80, 2), "f32": Total(16, 64, 1)}
    assert summary.by_node() == {"enc": Total(40, 80, 2), "head": Total(16, 64, 1)}
    assert summary.total("**/kernel") == Total(48, 128, 2)
    assert summary.total("again/bias") == Total(8, 16, 1)
    assert summary.total(lambda path, row: row.dtype == "f32") == Total(16, 64, 1)
    with pytest.raises(pt.PatternError, match="Did you mean"):
        summary.total("**/kernl")


def test_a_tree_of_70_billion_is_summed_exactly():
    spec = pt.Tree({f"l{i}": {"w": pt.Param((8192, 28672), "bfloat16"), "b": pt.Param((1,))} for i in range(298)})
    assert pt.summary(spec).count == 298 * (8192 * 28672 + 1)
    assert shown(spec, 100)[-1].startswith("69,994,545,450 parameters, 130.4 GiB, 596 leaves")


def test_csv_and_dicts_hold_every_row():
    summary = pt.summary(pt.tie(mlp(), {"4": "2"}))
    read = list(csv.DictReader(io.StringIO(summary.to_csv())))
    assert [row["path"] for row in read] == [row.path for row in summary.rows]
    assert sum(int(row["count"]) for row in read) == summary.count == 121
    assert read[0]["shape"] == "4x8"
    data = json.loads(json.dumps(summary.to_dict()))
    assert data["rows"][4] == {
        "path": "4/kernel", "shape": [8, 8], "dtype": "f32", "count": 0, "bytes": 0, "trainable": None,
        "tied_to": "2/kernel", "source": "2/kernel", "problem": "", "output": None, "flops": None,
    }  # fmt: skip
    assert data["by_dtype"] == {"f32": {"count": 121, "bytes": 484, "leaves": 6}}


def test_leaves_of_every_kind():
    tree = {
        "int4": jnp.ones(4, jnp.int4),
        "fp8": jnp.ones(4, jnp.float8_e5m2),
        "complex": np.ones(2, "complex64"),
        "key": jax.random.key(0),
        "none": jnp.zeros((0, 3)),
        "number": 2.5,
        "text": "label",
    }
    found = {row.path: (row.shape, row.dtype, row.count) for row in pt.summary(tree).rows}
    assert found == {
        "int4": ((4,), "i4", 4), "fp8": ((4,), "f8_e5m2", 4), "complex": ((2,), "c64", 2), "key": ((), "key<fry>", 1),
        "none": ((0, 3), "f32", 0), "number": (None, "float", 1), "text": (None, "str", 0),
    }  # fmt: skip


def test_tensors_of_pytorch_are_leaves():
    torch = pytest.importorskip("torch")
    (row,) = pt.summary({"w": torch.zeros(2, 3, dtype=torch.bfloat16)}).rows
    assert (row.shape, row.dtype, row.count) == ((2, 3), "bf16", 6)


# ------------------------------------------------------------------------------------ files


def test_a_file_is_what_was_saved(tmp_path):
    tree = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    pt.save(tmp_path / "m.safetensors", tree)
    in_memory, on_disk = pt.summary(tree), pt.summary(tmp_path / "m.safetensors")
    assert on_disk.rows == in_memory.rows
    assert on_disk.text().splitlines()[1:] == in_memory.text().splitlines()
    assert on_disk.text().splitlines()[0].startswith("m.safetensors: safetensors, ")
    with pt.open(tmp_path / "m.safetensors") as file:
        assert pt.summary(file).rows == in_memory.rows
        assert float(file["head/bias"][0]) == float(tree["head/bias"][0])  # it is still open
    assert [row.path for row in pt.summary(tmp_path / "m.safetensors", "embed").rows] == ["embed/table", "head/kernel"]


def test_a_file_has_no_outputs(tmp_path):
    pt.save(tmp_path / "m.safetensors", {"w": np.ones(2)})
    with pytest.raises(pt.StructureError, match=r"ptree.load it first"):
        pt.summary(tmp_path / "m.safetensors", of=(lambda p, x: x, np.ones(2)))


def test_rows_and_summaries_pickle():
    summary = pt.summary(mlp())
    again = pickle.loads(pickle.dumps(summary))
    assert again == summary
    assert repr(type(again.rows[0])) == "<class 'ptree.look.Row'>"


def test_npz_and_a_folder_of_checkpoints(tmp_path):
    np.savez(tmp_path / "m.npz", **{"a/w": np.ones((2, 3)), "b": np.ones(4, "int8")})
    assert pt.summary(tmp_path / "m.npz").by_dtype == {"f64": Total(6, 48, 1), "i8": Total(4, 4, 1)}
    with pt.Checkpoints(tmp_path / "run", keep=2) as steps:
        for step in (1, 2):
            steps.save(step, {"w": np.ones(step)})
    assert pt.summary(tmp_path / "run").count == 2
    assert "the latest of 2 steps" in pt.summary(tmp_path / "run").text(200)


def test_a_file_is_looked_at_without_jax(tmp_path):
    pt.save(tmp_path / "m.safetensors", pt.Tree({"h": [{"w": np.ones((2, 2), "float32")}] * 3}))
    code = "import sys, ptree; print(ptree.summary(sys.argv[1], '**/w').text(60)); print('jax' in sys.modules)"
    run = [sys.executable, "-c", code, str(tmp_path / "m.safetensors")]
    text = subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()
    assert text[1] == "h/{0..2}/w x3  [2, 2]  12  100.0%"
    assert text[-1] == "False"


def test_the_order_of_leaves_does_not_split_a_fold():
    first = {"ln": np.ones(2, "float32"), "w": np.ones((2, 2), "float32")}
    other = {"w": first["w"], "ln": first["ln"]}  # as where a layer is in two shards
    assert shown({"h": [first, other, first]})[0].startswith("h/{0..2}/ x3")


def test_a_leaf_that_cannot_be_read_is_named(tmp_path):
    leaves = {
        "good": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "strange": {"dtype": "F99", "shape": [2], "data_offsets": [12, 20]},
    }
    header = json.dumps(leaves).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(20))
    text = pt.summary(tmp_path / "m.safetensors").text()
    assert "good     [3]" in text
    assert "strange  [2] ? (unreadable)" in text
    assert "! 'strange' " in text


# ------------------------------------------------------------------------------------ of a model


def test_output_shapes_and_flops_of_each_layer():
    model = nn.Sequential(nn.Conv(16, 3), jax.nn.relu, nn.Flatten(), nn.Dense(8), nn.LayerNorm(), nn.Dense(10))
    x = jax.ShapeDtypeStruct((4, 8, 8, 3), "float32")
    summary = pt.summary(model.spec(x), of=(model, x), flops=True)
    rows = {row.path: row for row in summary.rows}
    assert rows["0/kernel"].output == rows["0/bias"].output == (4, 8, 8, 16)
    assert rows["3/kernel"].output == rows["4/scale"].output == (4, 8)
    assert rows["5/bias"].output == (4, 10)
    assert rows["0/kernel"].flops == 2 * 4 * 8 * 8 * 16 * 3 * 9
    assert rows["3/kernel"].flops == 2 * 4 * 1024 * 8
    assert sum(row.flops for row in summary.rows) == summary.flops.total
    assert "[4, 8, 8, 16]" in summary.text(80)
    assert "a call: " in summary.text(80)
    assert summary.to_dict()["flops"]["total"] == summary.flops.total
    for width in (40, 80, 120):
        assert max(map(columns, summary.text(width).splitlines())) <= width


def test_each_name_of_a_tied_leaf_has_its_own_work():
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    model = lambda p, tokens: p["embed/table"][tokens] @ p["head/kernel"]
    summary = pt.summary(params, of=(model, jnp.zeros(7, "int32")), flops=True)
    rows = {row.path: row for row in summary.rows}
    assert (rows["embed/table"].output, rows["embed/table"].flops) == ((7, 4), 0)
    assert (rows["head/kernel"].output, rows["head/kernel"].flops) == ((7, 10), 2 * 7 * 4 * 10)
    assert rows["blocks/0/q/kernel"].output is None


def test_memory_is_what_the_compiler_says():
    w, x = jnp.ones((64, 32)), jnp.ones((8, 64))
    memory = pt.summary({"w": w}, of=(lambda p, x: x @ p["w"], x), memory=True).memory
    assert (memory["arguments"], memory["outputs"]) == (4 * (64 * 32 + 8 * 64), 4 * 8 * 32)
    with pytest.raises(TypeError, match="need the model and its inputs"):
        pt.summary({"w": w}, flops=True)
    with pytest.raises(TypeError, match="a tuple of the model and its inputs"):
        pt.summary({"w": w}, of=lambda p, x: x)


# ------------------------------------------------------------------------------------ any names

NAMES = st.one_of(
    st.sampled_from(["a", "b", "a1", "a2", "0", "1", "10", "01", ":", "", "\0", "日本", "x" * 60]), st.text(max_size=6)
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LEAVES = st.dictionaries(PATHS, st.lists(st.integers(0, 5), max_size=3).map(tuple), max_size=12)


@given(LEAVES, st.integers(40, 130), st.sampled_from([None, 1, 2]))
def test_names_of_any_file_fold_to_the_same_total_and_fit(shapes, width, depth):
    rows = tuple(
        Row(path, shape, "f32", math.prod(shape), 4 * math.prod(shape), None, None) for path, shape in shapes.items()
    )
    blocks = fold(rows, depth=depth)
    assert sum(block.size.count for block in blocks) == sum(math.prod(shape) for shape in shapes.values())
    assert sum(block.size.leaves for block in blocks) == len(shapes)
    for summary in (Summary(rows, "a file", depth), Summary(rows, fold=False)):
        text = summary.text(width)
        assert max(map(columns, text.splitlines())) <= width
        assert text.replace("\n", "").isprintable()
        assert summary._repr_html_().replace("\n", "").isprintable()


def test_a_leaf_and_a_node_of_one_path_are_both_shown():
    rows = [Row(path, (2,), "f32", 2, 8, None, None) for path in ("a", "a/b", "a/b/c", "d/e", "d")]
    assert sum(block.size.count for block in fold(rows)) == 10
    text = Summary(tuple(rows)).text()
    assert "5 leaves" in text


def test_shapes_stay_in_one_line_at_40_columns_where_outputs_leave_no_room():
    net = pt.nn.Sequential(pt.nn.Conv(8, (3, 3)), pt.nn.Conv(16, (3, 3)))
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), "float32")
    text = pt.summary(pt.init(net.spec(x), jax.random.key(0)), of=(net, x), flops=True).text(40)
    assert "[3, 3, 3, 8]" in text
    assert "kFLOP" in text
    assert max(map(len, text.splitlines())) <= 40
