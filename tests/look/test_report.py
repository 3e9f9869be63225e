"""report: what is in the page's data, where it goes, what is refused; without JAX for files."""

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from trees import SPECS, TREES, language_model, mlp

import ptree as pt
from ptree.look import report
from ptree.look._diff.text import KINDS
from ptree.look._report.leaf_numbers import BINS, leaf_numbers
from ptree.look._sources.source_of import source_of

ROOT = Path(pt.__file__).parent


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found[1])


@pytest.fixture
def page(tmp_path):
    return lambda *things, **options: report(*things, out=tmp_path / "page.html", **options)


def test_the_page_has_every_name_its_size_and_its_tie(page):
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    data = data_of(page(params))
    assert data["path"] == pt.paths(params, aliases=True)
    at = {path: row for row, path in enumerate(data["path"])}
    assert data["ties"] == [[at["head/kernel"], at["embed/table"], "transposed(embed/table)"]]
    assert data["shapes"][data["shape"][at["head/kernel"]]] == "[4, 10]"
    assert data["count"][at["embed/table"]] == 40
    assert data["bytes"][at["embed/table"]] == 160
    assert data["totals"] == f"{pt.count(params)} parameters · {pt.count(params) * 4} B · 14 leaves · f32"
    assert ["blocks/{0..2}/q/kernel", [at[f"blocks/{layer}/q/kernel"] for layer in range(3)]] in data["layers"]


@pytest.mark.parametrize("name", [*TREES, *SPECS])
def test_any_pytree_has_a_page(name, page):
    tree = TREES.get(name, SPECS.get(name))
    data = data_of(page(tree))
    assert len(data["path"]) == len(data["numbers"]) == len(data["shape"])
    assert (data["path"] == [""]) == (name == "a bare array")


DTYPES = ["float32", "float64", "float16", "int8", "uint32", "bool", "bfloat16", "float8_e4m3fn", "int4", "complex64"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 1000, 400_000])
def test_statistics_and_histogram_are_numpys(dtype, size):
    rng = np.random.default_rng(0)
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = rng.standard_normal(size) * (1.5 if kind.itemsize == 1 else 100)
    if kind.kind == "c":
        values = values + 1j * rng.standard_normal(size)
    if kind.kind in "ub":
        values = np.abs(values)
    leaf = values.astype(kind).reshape(1, -1)
    with source_of({"w": leaf}) as source:
        found = leaf_numbers(source, "w")
    exact = (np.abs(leaf) if kind.kind == "c" else leaf).astype(np.float64).reshape(-1)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-4, abs=1e-5 * np.abs(exact).max())
    assert found.std == pytest.approx(exact.std(), rel=1e-4, abs=1e-9)
    assert (found.least, found.largest) == (exact.min(), exact.max())
    assert (found.zeros, found.nonfinite, found.first) == (size - np.count_nonzero(exact), 0, None)
    histogram = found.histogram
    assert histogram.below == np.sum(exact < histogram.low)
    assert histogram.above == np.sum(exact > histogram.high)
    if histogram.low == histogram.high:
        assert histogram.counts == (size,)
        return
    expected, edges = np.histogram(exact, BINS, (histogram.low, histogram.high))
    # a number at an edge may go to either bin: rounding
    at_edge = sum(np.sum(np.abs(exact - edge) < 1e-12 * max(1, abs(edge))) for edge in edges)
    assert np.abs(np.subtract(histogram.counts, expected)).sum() <= 2 * at_edge
    assert sum(histogram.counts) == expected.sum()


def test_one_outlier_does_not_press_the_histogram_into_one_bin():
    leaf = np.random.default_rng(0).standard_normal(100_000).astype("f")
    leaf[7] = 1000
    with source_of({"w": leaf}) as source:
        histogram = leaf_numbers(source, "w").histogram
    assert (histogram.below, histogram.above) == (0, 1)
    assert histogram.high < 30
    assert max(histogram.counts) < 50_000


@pytest.mark.parametrize(
    ("leaf", "zeros", "nonfinite", "first"),
    [
        (np.float32([[0, np.nan], [np.inf, 2]]), 1, 2, (0, 1)),
        (np.full(5, np.nan), 0, 5, (0,)),
        (np.float64([1e308, -1e308]), 0, 0, None),
        (np.complex64([1, complex(np.inf, 0)]), 0, 1, (1,)),
    ],
)
def test_numbers_that_are_not_finite_are_counted_and_left_out(leaf, zeros, nonfinite, first, page):
    row = data_of(page({"w": leaf}))["numbers"][0]
    assert row[4:7] == [zeros, nonfinite, None if first is None else list(first)]


def test_what_has_no_numbers_has_no_statistics(page):
    tree = {
        "text": "a",
        "function": len,
        "empty": np.zeros((0, 3)),
        "key": jax.random.key(0),
        "texts": np.array(["a", "b"]),
        "dates": np.array([1, 2], "M8[s]"),
        "number": 3,
        "w": np.ones(2),
    }
    data = data_of(page(tree))
    numbers = dict(zip(data["path"], data["numbers"]))
    assert [path for path, row in numbers.items() if row] == ["w"]
    assert {data["path"][row] for row, _ in data["problems"]} == {"text", "function"}
    spec = data_of(page(SPECS["spec"]))
    assert spec["numbers"] == [None] * 3
    assert spec["problems"] == []


def test_a_file_is_shown_as_its_tree_is(tmp_path, page):
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    pt.save(tmp_path / "model.safetensors", params)
    of_file, of_tree = data_of(page(tmp_path / "model.safetensors")), data_of(page(params))
    assert of_file.pop("title") == "model.safetensors"
    assert of_file.pop("about").startswith("safetensors, ")
    assert of_file == {name: value for name, value in of_tree.items() if name not in ("title", "about")}
    np.savez(tmp_path / "model.npz", **{"a/w": np.ones((2, 3)), "text": np.array("x", object)}, allow_pickle=True)
    assert data_of(page(tmp_path / "model.npz"))["problems"]


def test_a_damaged_leaf_is_named_and_the_others_are_shown(tmp_path, page):
    path = tmp_path / "model.npz"
    np.savez(path, first=np.arange(1000.0), second=np.arange(1000.0) + 1)
    data = bytearray(path.read_bytes())
    data[3000] ^= 255
    path.write_bytes(data)
    data = data_of(page(path))
    assert data["path"] == ["first", "second"]
    assert [row is None for row in data["numbers"]] == [True, False]
    [[row, problem]] = data["problems"]
    assert row == 0
    assert "CRC" in problem


@pytest.mark.parametrize("count", [5, 1 << 19], ids=["read at once", "read in chunks"])
def test_a_leaf_that_is_not_what_its_checksum_says_shows_no_numbers(tmp_path, page, count):
    path = tmp_path / "model.safetensors"
    pt.save(path, {"first": np.ones(count, "f4"), "second": np.ones(3, "f4")})
    data = bytearray(path.read_bytes())
    data[-12 - 4 * count + 3] ^= 1  # in the sign and exponent of a number of `first`
    path.write_bytes(data)
    found = data_of(page(path))
    assert found["path"] == ["first", "second"]
    assert [row is None for row in found["numbers"]] == [True, False]
    [[row, problem]] = found["problems"]
    assert row == 0
    assert "its bytes are not what its checksum says" in problem
    of_two = data_of(page({"first": np.ones(count, "f4"), "second": np.ones(3, "f4")}, path))
    assert [row is None for row in of_two["numbers"]] == [True, False]


def test_a_selector_takes_leaves_and_is_strict(page):
    params = pt.tie(mlp(), {"4": "2"})
    assert data_of(page(params, selector="4/kernel"))["path"] == ["2/kernel", "4/kernel"]
    with pytest.raises(pt.PatternError, match="'9' matches nothing"):
        page(params, selector="9")
    assert data_of(page({"a": np.ones(2)}, {"b": np.zeros(2)}, selector="a"))["path"] == ["a"]


def test_a_stack_has_the_spread_of_each_layer(page):
    scale = np.arange(1, 6, dtype="f").reshape(5, 1, 1)
    stack = np.random.default_rng(0).standard_normal((5, 300, 400)).astype("f") * scale
    [row] = data_of(page({"blocks/:/w": stack}))["numbers"]
    np.testing.assert_allclose(row[12], stack.astype(np.float64).std(axis=(1, 2)), rtol=1e-4)


# ------------------------------------------------------------------------------ two inputs


def test_two_inputs_are_compared(page):
    rng = np.random.default_rng(0)
    before = {f"h/{layer}/w": rng.standard_normal((4, 4)).astype("f") for layer in range(3)}
    before |= {"old": rng.standard_normal(3), "wide": np.ones(6), "half": rng.standard_normal(4).astype("f")}
    after = {f"blocks/{layer}/w": leaf for layer, leaf in enumerate(before[f"h/{layer}/w"] for layer in range(3))}
    after["blocks/1/w"] = after["blocks/1/w"] + np.float32(0.5)
    after |= {"wide": np.ones(7), "half": before["half"].astype("float16"), "new": np.zeros((2, 2))}
    data = data_of(page(before, after))
    changes = dict(zip(data["path"], data["changes"]))
    assert changes["blocks/0/w"]["kinds"] == ["renamed"]
    assert changes["blocks/0/w"]["from"] == "h/0/w"
    assert changes["blocks/1/w"]["kinds"] == ["changed", "renamed"]
    one, other = before["h/1/w"].astype(float), after["blocks/1/w"].astype(float)
    expected = np.linalg.norm(other - one) / np.linalg.norm(one)
    assert changes["blocks/1/w"]["relative"] == pytest.approx(expected, rel=1e-4)
    assert changes["wide"] == {"kinds": ["reshaped"], "note": "[6] → [7]"}
    assert changes["half"]["kinds"] == ["retyped"]
    assert changes["new"] == {"kinds": ["added"]}
    assert changes["old"] == {"kinds": ["removed"]}
    assert data["notes"] == ["renamed h/** → blocks/**, 3 leaves"]
    at = data["path"].index("blocks/1/w")
    assert data["before"][at][0] == pytest.approx(one.mean(), rel=1e-4)
    assert data["before"][data["path"].index("blocks/0/w")] is None
    # what was removed does not count
    assert data["totals"].startswith(f"{48 + 7 + 4 + 4} parameters")


def test_the_page_knows_every_kind_of_difference():
    flags = re.search(
        r"const FLAGS = \[(.*?)\]", (ROOT / "look" / "_report" / "page_files" / "data.js").read_text(), re.DOTALL
    )
    assert {*KINDS} <= {*re.findall(r'"([^"]+)"', flags[1])}


def test_a_tree_is_compared_with_its_file(tmp_path, page):
    params = pt.tie(mlp(), {"4": "2"})
    pt.save(tmp_path / "a.safetensors", params)
    data = data_of(page(tmp_path / "a.safetensors", pt.set(params, "0/bias", jnp.ones(8))))
    assert [path for path, change in zip(data["path"], data["changes"]) if change] == ["0/bias"]


# -------------------------------------------------------------------------- where it goes


def test_the_page_replaces_a_file_and_its_path_is_returned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("report.html").write_text("old")
    assert report({"w": np.ones(2)}) == Path("report.html")
    assert "application/json" in Path("report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_report_leaves_the_old_page_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ptree.look._report.report.write_all", full)
    with pytest.raises(OSError, match="No space left"):
        report({"w": np.ones(2)}, out=path)
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_no_place_for_a_page_is_refused_before_anything_is_read(tmp_path):
    tree = {"w": np.ones(2)}
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing'"):
        report(tree, out=tmp_path / "missing" / "page.html")
    with pytest.raises(pt.FileError, match=r"it is a folder\. Write out='.*report.html'"):
        report(tree, out=tmp_path)
    pt.save(tmp_path / "a.safetensors", tree)
    before = (tmp_path / "a.safetensors").read_bytes()
    np.savez(tmp_path / "a.npz", **tree)
    for out in ("a.safetensors", "a.npz"):
        with pytest.raises(pt.FileError, match="parameters are in this file"):
            report(tree, out=tmp_path / out)
    assert (tmp_path / "a.safetensors").read_bytes() == before
    with pytest.raises(pt.FileError, match=r"Write report\(thing, out='page.html'\)"):
        report(tree, "page.html")


def test_an_open_file_stays_open(tmp_path, page):
    pt.save(tmp_path / "a.safetensors", mlp())
    with pt.open(tmp_path / "a.safetensors") as file:
        page(file, file)
        assert file["0/bias"].shape == (8,)


def test_a_file_is_reported_without_jax(tmp_path):
    pt.save(tmp_path / "a.safetensors", mlp())
    pt.save(tmp_path / "b.safetensors", language_model())
    code = (
        "import sys, ptree.look as look\n"
        "folder = sys.argv[1]\n"
        "look.report(f'{folder}/a.safetensors', out=f'{folder}/one.html')\n"
        "look.report(f'{folder}/a.safetensors', f'{folder}/b.safetensors', out=f'{folder}/two.html', selector='**')\n"
        "assert 'jax' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------ where leaves live


def spread_model():
    """A small model, its plan on four devices, and its arrays on them."""
    tree = pt.Tree({
        "blocks": {":": {"kernel": jnp.ones((3, 8, 4)), "bias": jnp.ones((3, 4))}},
        "embed": jnp.ones((6, 8)),
        "head": jnp.ones((8, 6)),
    })  # fmt: skip
    tree = pt.tie(tree, {"head": pt.transposed("embed")})
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])
    plan = pt.shard.plan(tree, {"**/kernel": P("data", "model"), "embed": P("model"), "**": P()}, mesh)
    return tree, plan, pt.shard.place(tree, plan)


def placed_rows(data):
    """path -> (how it lives, bytes on each device, what divides it, the shape of a part)."""
    placed, kinds = data["placed"], ("divided", "whole", "alone")
    return {
        path: (kinds[kind], held, placed["specs"][spec], placed["parts"][part])
        for path, (kind, held, spec, part, _) in zip(data["path"], placed["rows"])
    }


def test_a_plan_is_on_the_page_of_a_spec_a_file_and_arrays_that_are_placed_so(page, tmp_path):
    tree, plan, spread = spread_model()
    pt.save(tmp_path / "m.safetensors", tree)
    expected = {
        "blocks/:/kernel": ("divided", 3 * 4 * 2 * 4, "-, data, model", "[3, 4, 2]"),
        "blocks/:/bias": ("whole", 48, "replicated", "[3, 4]"),
        "embed": ("divided", 96, "model", "[3, 8]"),
        "head": ("divided", 96, "model", "[3, 8]"),
    }
    for thing, options in (
        (pt.abstract(tree), {"plan": plan}),
        (tmp_path / "m.safetensors", {"plan": plan}),
        (spread, {}),
    ):
        data = data_of(page(thing, **options))
        assert placed_rows(data) == expected
        assert data["placed"]["totals"] == (
            "4 devices: data=2, model=2 · 240 B of 624 B on each device · 48 B (20.0%) of it the same on every device"
        )
    abstract = AbstractMesh((2, 2), ("data", "model"))
    elsewhere = pt.shard.plan(tree, {"**/kernel": P("data", "model"), "embed": P("model"), "**": P()}, abstract)
    assert placed_rows(data_of(page(tree, plan=elsewhere))) == expected


def test_a_leaf_that_is_on_one_device_alone_is_told_apart(page):
    _, _, spread = spread_model()
    spread = pt.set(spread, "blocks/:/bias", jax.device_put(jnp.ones((3, 4)), jax.devices()[1]))
    data = data_of(page(spread))
    assert placed_rows(data)["blocks/:/bias"] == ("alone", 48, "on one device", "[3, 4]")
    assert "240 B of 624 B on the fullest device · 48 B on one device alone · 0 B (0.0%)" in data["placed"]["totals"]


def test_arrays_on_one_device_and_files_have_no_places(page, tmp_path):
    pt.save(tmp_path / "m.safetensors", mlp())
    assert data_of(page(mlp()))["placed"] is None
    assert data_of(page(tmp_path / "m.safetensors"))["placed"] is None


def test_a_plan_for_another_tree_or_none_is_refused(page, tmp_path):
    tree, plan, _ = spread_model()
    larger = pt.put(pt.set(tree, "embed", jnp.ones((6, 8))), "extra", jnp.ones(3))
    with pytest.raises(
        pt.StructureError, match=r"for another tree:\n  'extra': in the plan no such leaf, in the tree \[3\]"
    ):
        page(larger, plan=plan)
    with pytest.raises(TypeError, match="report"):
        page(tree, plan={"**": P()})
    assert not (tmp_path / "page.html").exists()


# ------------------------------------------------------------------------------- the page


NASTY = [
    "</script><script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<!--<script>",
    "{{script}}",
    "\u2028\u2029\u202e\x1b[31m\n",
    "\ud800",
    "&lt;b&gt;",
]


def test_no_name_is_markup(page):
    path = page({name: np.ones(2) for name in NASTY})
    text = path.read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert "<!--" not in text
    assert "\u2028" not in text
    names = data_of(path)["path"]
    assert names[0] == NASTY[0]
    assert names[3] == "{{script}}"
    assert not re.search(r"[\x00-\x1f\u2028\u202e\ud800]", "".join(names))


def test_the_policy_allows_this_page_and_nothing_else(page):
    import base64
    import hashlib
    import html

    text = page({"w": np.ones(2)}).read_text()
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for name, pattern in [("script-src", r"<script>(.*?)</script>"), ("style-src", r"<style>(.*?)</style>")]:
        [content] = re.findall(pattern, text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert not re.search(r"https?://(?!www.w3.org/2000/svg)", text)


def test_the_files_of_the_page_are_in_the_package():
    globs = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["ptree"]
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "look" / "_report" / "page_files").iterdir()]
    assert len(files) >= 3
    assert all(any(fnmatch(file, glob) for glob in globs) for file in files)
