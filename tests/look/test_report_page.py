"""The page of a report in headless Chromium: search, folding, ties, keys, details, differences, hostile names."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree._paths import compile
from ptree.look import report

PATTERNS_SCRIPT = Path(pt.__file__).parent / "look" / "_report" / "page_files" / "patterns.js"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        browser.resize(1280, 800)
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return report(model(), out=tmp_path_factory.mktemp("page") / "page.html")


def dense(rng, shape):
    return {"kernel": rng.standard_normal(shape).astype("f"), "bias": np.zeros(shape[-1], "f")}


def model(layers=12):
    rng = np.random.default_rng(0)
    blocks = {}
    for layer in range(layers):
        attention = {name: dense(rng, (8, 8)) for name in ("query", "key", "value")}
        blocks[str(layer)] = {"attn": attention, "mlp": dense(rng, (8, 32))}
    tree = {
        "embed": {
            "table": rng.standard_normal((100, 8)).astype("f"),
            "position": rng.standard_normal((16, 8)).astype("f"),
        },
        "blocks": blocks,
        "head": {"kernel": np.zeros((8, 100), "f"), "bias": np.float32([1, np.nan] * 50)},
    }
    return pt.tie(tree, {"head/kernel": pt.transposed("embed/table")})


ROWS = "return [...document.querySelectorAll('.row')].map((row) => row.querySelector('.text').textContent)"
ACTIVE = "return document.querySelector('.row[aria-selected=true]')?.querySelector('.name').title"
FOUND = "return document.getElementById('found').textContent"


def search(browser, text):
    """Write a search as a person does, and return what the page says of it."""
    browser.run("const box = document.getElementById('search'); box.value = ''; box.focus()")
    browser.keys(*text)
    browser.run(
        "return new Promise((resolve) => setTimeout(resolve, 20))"
    )  # behind the search, which waits for more keys
    return browser.run(FOUND)


def test_it_opens_and_asks_no_network(browser, page):
    browser.open(page)
    assert browser.run("return document.querySelector('h1').textContent") == "Tree"
    assert browser.run("return document.getElementById('totals').textContent").startswith(
        f"{pt.count(model()):,} parameters · "
    )
    assert browser.run(ROWS)[:5] == ["embed/", "table", "position", "blocks/{0..11}/", "attn/"]
    assert browser.requests() == [page.as_uri()]
    assert browser.log("browser") == []


def test_layers_are_folded_and_can_be_shown_each(browser, page):
    browser.open(page)
    shapes = (
        "return [...document.querySelectorAll('.row.layers')].map((row) => row.querySelector('.shape').textContent)"
    )
    assert browser.run(shapes) == ["12 × [8, 8]", "12 × [8]"] * 3 + ["12 × [8, 32]", "12 × [32]"]
    browser.click("#layers")
    assert browser.run(ROWS)[3:6] == ["blocks/", "0/", "attn/"]


def test_only_rows_in_view_are_made(browser, tmp_path):
    browser.open(report({f"w{at:04}": np.zeros(1) for at in range(5000)}, out=tmp_path / "page.html"))
    browser.click("#layers")
    assert len(browser.run(ROWS)) < 60
    browser.run("document.getElementById('grid').scrollTop = 26 * 4000")
    assert browser.wait(f"{ROWS.replace('return', 'const rows =')}; return rows.includes('w4010') && rows.length < 60")


def test_a_search_by_text(browser, page):
    browser.open(page)
    assert search(browser, "KERNEL query") == "12 of 100 rows: 768 parameters, 3.0 KiB"
    assert browser.run(ROWS)[:6] == ["blocks/{0..11}/", "attn/", "query/", "kernel", "0", "1"]
    browser.click("#fold")
    assert browser.run(ROWS) == ["blocks/{0..11}/"]
    assert search(browser, "qqq") == "nothing matches in 100 rows"
    assert browser.run(ROWS) == []


def test_a_search_by_pattern(browser, page):
    browser.open(page)
    assert search(browser, "blocks/{{2..3},11}/**/{query,key}/*").startswith("12 of 100 rows")
    # a pattern that matches an alias selects the leaf, under all its names
    assert search(browser, "head/k*").startswith("2 of 100 rows: 800 parameters")
    assert search(browser, "blocks/{2") == "bad pattern: '{' is not closed"
    assert browser.run("return document.getElementById('search').getAttribute('aria-invalid')") == "true"


PIECES = ["a", "b", "12", "0", "x", "*", "**", "?", "[ab]", "[!a]", "[0-9]", "{a,b}", "{0..12}", "{00..12}", "{a/b,x}", "{**,b}", "{*,0}", "{0,3}", "{0..3,12}", "..", "\\*", "{", "}", "[", ",", ":", "!", "😀"]  # fmt: skip
NAMES = ["a", "b", "ab", "12", "0", "007", "12a", ":", "*", "x", "a,b", "!a", "😀", "é", "{", "[a]"]


def test_patterns_match_as_in_python(browser, page):
    rng = random.Random(0)
    patterns = [random_pattern(rng) for _ in range(1500)]
    paths = ["/".join(rng.choices(NAMES, k=rng.randint(1, 4))) for _ in range(150)]
    expected = {}
    for pattern in patterns:
        try:
            compiled = compile(pattern)
        except pt.PatternError:
            expected[pattern] = None
        else:
            expected[pattern] = [path for path in paths if matches(compiled, path)]
    browser.open(page)
    script = PATTERNS_SCRIPT.read_text() + (
        "\nconst [patterns, paths] = arguments;"
        "return patterns.map((pattern) => {"
        "  try { return paths.filter(patternMatcher(pattern)); }"
        "  catch (error) { if (error instanceof PatternError) return null; throw error; }"
        "})"
    )
    found = dict(zip(patterns, browser.run(script, patterns, paths)))
    assert sum(value is not None for value in expected.values()) > 500
    assert {key: value for key, value in found.items() if value != expected[key]} == {}


def random_pattern(rng):
    segments = [rng.choices(PIECES, k=rng.choice([1, 1, 2, 3])) for _ in range(rng.randint(1, 4))]
    return "/".join("".join(segment) for segment in segments)


def matches(pattern, path):
    """Whether a pattern takes a path, or layers of it, if it has stacks."""
    if ":" not in path.split("/"):
        return pattern.matches(path)
    reached = [pattern.start]
    for segment in path.split("/"):
        if any(state.accepts for state in reached):
            return True
        following = []
        for state in reached:
            after = pattern.step(state, segment)
            if after is not None:
                following.append(after)
            if segment == ":":
                following += [pattern.step_layer(state, number) for number in pattern.layers(state, 100)]
        reached = following
    return any(state.accepts for state in reached)


def test_a_hostile_search_ends(browser, tmp_path):
    browser.open(report({"a" * 150: np.zeros(1)}, out=tmp_path / "page.html"))
    assert search(browser, "*a" * 30 + "b").startswith("nothing matches")


def test_folding_by_mouse_and_keys(browser, page):
    browser.open(page)
    expanded = "return document.querySelector('.row').getAttribute('aria-expanded')"
    assert browser.run(expanded) == "true"
    browser.click(".row")
    assert browser.run(expanded) == "false"
    assert browser.run(ROWS)[:2] == ["embed/", "blocks/{0..11}/"]
    browser.click("#fold")
    assert browser.run(ROWS) == ["embed/", "blocks/{0..11}/", "head/"]
    browser.run("document.getElementById('grid').focus()")
    browser.keys("ArrowDown", "ArrowUp", "ArrowUp", "ArrowRight")
    assert browser.run(ROWS)[:3] == ["embed/", "table", "position"]
    browser.keys("ArrowRight")
    assert browser.run(ACTIVE) == "embed/table"
    browser.keys("ArrowLeft", "ArrowLeft", "End")
    assert browser.run(ROWS) == ["embed/", "blocks/{0..11}/", "head/"]
    assert browser.run(ACTIVE) == "head/"
    browser.click("#unfold")
    assert "11" in browser.run(ROWS)


def test_keys_lead_from_the_search_to_details_and_back(browser, page):
    browser.open(page)
    browser.keys("/", *"mlp/kernel")
    assert browser.run("return document.activeElement.id") == "search"
    browser.run("document.getElementById('search').value = ''")
    browser.keys(*"5/mlp")
    browser.keys("Enter")
    assert browser.run(ACTIVE) == "blocks/5/mlp/kernel"
    assert browser.run("return document.querySelector('#panel h2').textContent") == "blocks/5/mlp/kernel"
    browser.keys("Escape")
    assert browser.run("return document.getElementById('panel').hidden")
    browser.keys("Escape")
    assert browser.run("return document.getElementById('search').value") == ""


def test_a_tie_is_a_link_that_jumps_to_its_source(browser, page):
    browser.open(page)
    browser.click("#fold")
    search(browser, "head")
    browser.click(".row .tie a")
    assert browser.wait(ACTIVE) == "embed/table"
    assert browser.run("return document.activeElement.id") == "grid"
    facts = browser.run("return document.querySelector('#panel dl').textContent")
    assert "also namedhead/kernel" in facts
    browser.click("#panel dd a")
    assert browser.wait("return document.querySelector('#panel h2').textContent === 'head/kernel'")


def test_an_address_leads_to_a_leaf(browser, page):
    browser.open(page, "#blocks/7/mlp/kernel")
    assert browser.run(ACTIVE) == "blocks/7/mlp/kernel"
    browser.open(page, "#no/such%2")
    assert browser.run(ACTIVE) is None


def test_details_show_statistics_and_a_histogram(browser, page):
    browser.open(page, "#embed/table")
    table = model()["embed/table"].astype(np.float64)
    texts = browser.run(
        "return [...document.querySelectorAll('#panel tr')].map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    values = dict(texts)
    assert float(values["std"]) == pytest.approx(table.std(), rel=1e-3)
    assert float(values["largest"]) == pytest.approx(table.max(), rel=1e-3)
    titles = browser.run("return [...document.querySelectorAll('.bars title')].map((title) => title.textContent)")
    counts = [int(title.rpartition(": ")[2].replace(",", "")) for title in titles]
    expected, _ = np.histogram(table, 41)
    assert counts == [count for count in expected if count]
    browser.open(page, "#head/bias")
    text = browser.run("return document.getElementById('panel').textContent")
    assert "not finite50" in text
    assert "first not finite(1)" in text


def test_a_leaf_of_a_layer_shows_all_layers(browser, page):
    browser.open(page, "#blocks/7/mlp/kernel")
    points = browser.run("return [...document.querySelectorAll('.point title')].map((title) => title.textContent)")
    params = model()
    for layer, point in enumerate(points):
        path, _, value = point.partition(": ")
        assert path == f"blocks/{layer}/mlp/kernel"
        assert float(value) == pytest.approx(params[path].std(), rel=1e-3)
    browser.run("document.querySelectorAll('.point')[2].dispatchEvent(new Event('click'))")
    assert browser.run(ACTIVE) == "blocks/2/mlp/kernel"


def test_filters_show_what_is_not_finite(browser, page):
    browser.open(page)
    browser.click(".chip.not-finite")
    assert browser.run(ROWS) == ["head/", "bias"]
    browser.click(".chip.not-finite")
    assert browser.run(ROWS)[0] == "embed/"


def test_rows_are_ordered_by_size(browser, page):
    browser.open(page)
    browser.run(
        "const order = document.getElementById('order'); order.value = 'largest'; order.dispatchEvent(new Event('change'))"
    )
    assert browser.run(ROWS)[:3] == ["blocks/{0..11}/", "mlp/", "kernel"]


def test_no_name_runs_as_a_script(browser, tmp_path):
    nasty = [
        "</script><script>window.hit = 1</script>",
        "<img src=x onerror=window.hit=1>",
        "<!--<script>",
        "\u2028\u202e\x1b[31m\n",
        "<svg onload=window.hit=1>",
        "javascript:window.hit=1",
    ]
    tree = pt.Tree({name: np.ones(2, "f") for name in nasty} | {"w": np.ones(2, "f")})
    tree = pt.tie(pt.put(tree, "<b>tied", np.ones(2, "f")), {"<b>tied": nasty[1]})
    pt.save(tmp_path / "<img src=x onerror=window.hit=1>.safetensors", tree)
    page = report(tmp_path / "<img src=x onerror=window.hit=1>.safetensors", out=tmp_path / "page.html")
    browser.open(page)
    browser.click("#unfold")
    for name in ("<img src=x onerror=window.hit=1>", "javascript:window.hit=1"):
        browser.open(page, f"#{name}")
        browser.wait(ACTIVE)
    search(browser, "<img")
    assert browser.run("return window.hit ?? null") is None
    assert browser.run("return document.querySelectorAll('img, #rows svg, #rows script').length") == 0
    assert browser.requests() == [page.as_uri()]
    assert browser.log("browser") == []
    title = browser.run("return document.querySelector('h1').textContent")
    assert title == "<img src=x onerror=window.hit=1>.safetensors"


def test_the_policy_stops_a_script_that_is_not_the_pages(browser, page):
    browser.open(page)
    browser.run(
        "const made = document.createElement('script'); made.textContent = 'window.hit = 1'; document.body.append(made)"
    )
    assert browser.run("return window.hit ?? null") is None
    assert any("Content Security Policy" in message for message in browser.log("browser"))


def test_two_inputs_show_what_changed(browser, tmp_path):
    before = model()
    after = pt.update(before, "blocks/{6..11}/mlp/kernel", lambda kernel: kernel + np.float32(0.5))
    after = pt.put(pt.drop(after, "head/bias"), "head/scale", np.ones(3, "f"))
    browser.open(report(before, after, out=tmp_path / "page.html"))
    chips = browser.run("return [...document.querySelectorAll('.chip')].map((chip) => chip.textContent)")
    assert chips == ["6 changed", "1 added", "1 removed", "92 the same", "1 alias", "1 not finite"]
    browser.click(".chip.changed")
    assert browser.run(ROWS) == ["blocks/{0..11}/", "mlp/", "kernel", "6", "7", "8", "9", "10", "11"]
    group = browser.run("return document.querySelectorAll('.row .change')[2].textContent")
    assert re.fullmatch(r"6 differ, up to 0\.\d+", group)
    browser.keys("/", "Enter")
    assert browser.run(ACTIVE) == "blocks/6/mlp/kernel"
    assert browser.run("return document.querySelectorAll('#panel .outline, #panel .bars').length") == 2
    one, other = before["blocks/6/mlp/kernel"].astype(float), after["blocks/6/mlp/kernel"].astype(float)
    facts = browser.run("return document.getElementById('panel').innerText")
    relative = np.linalg.norm(other - one) / np.linalg.norm(one)
    assert float(re.search(r"relative\s+(\S+)", facts)[1]) == pytest.approx(relative, rel=1e-3)


def test_renamed_leaves_are_the_same_and_layers_stand_in_the_order_of_their_numbers(browser, tmp_path):
    draw = np.random.default_rng(0)
    before = {f"h/{layer}/w": draw.standard_normal((3, layer + 2)) for layer in range(12)}
    after = {f"x/{path}": before[path] for path in sorted(before)}
    after["x/h/11/w"] = after["x/h/11/w"] * 2
    browser.open(report(before, after, out=tmp_path / "page.html"))
    chips = browser.run("return [...document.querySelectorAll('.chip')].map((chip) => chip.textContent)")
    assert chips == ["1 changed", "12 renamed", "11 the same"]
    change = browser.run("return document.querySelector('.row .change').textContent")
    assert change.startswith("1 differ")
    browser.click(".chip.renamed")
    browser.click("#layers")
    assert browser.run(ROWS)[1:] == [f"{layer}/w" for layer in range(12)]


def test_empty_names_are_seen_and_dtypes_left_out_are_counted(browser, tmp_path):
    names = ["float32", "float64", "int32", "int16", "uint8", "int8"]
    leaves = {"": np.ones(2), **{name: np.ones(3, name) for name in names}}
    browser.open(report(leaves, out=tmp_path / "page.html"))
    assert browser.run(ROWS)[0] == "''"
    assert "2 more dtypes" in browser.run("return document.body.innerText")


def test_a_spec_and_an_empty_tree_open(browser, tmp_path):
    spec = pt.Tree({"kernel": pt.Param((4, 8)), "fixed": pt.Param((3,), trainable=False)})
    browser.open(report(spec, out=tmp_path / "page.html"), "#kernel")
    assert "It has no numbers to count." in browser.run("return document.getElementById('panel').textContent")
    assert browser.run("return document.querySelector('.chip').textContent") == "1 not trained"
    browser.open(report(pt.Tree(), out=tmp_path / "page.html"))
    browser.keys("/", "x")
    assert browser.wait(FOUND) == "nothing matches in 0 rows"
    browser.open(report(np.ones(3), out=tmp_path / "page.html"))
    assert browser.log("browser") == []


# ------------------------------------------------------------------------------ for everyone


CONTRAST = """
const channel = (value) => { const part = value / 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; };
const luminance = (color) => { const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const backgroundOf = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$|transparent/.test(color)) return color;
  }
};
const low = [];
for (const element of document.querySelectorAll("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!hasText || !element.checkVisibility() || element.closest("svg, script, noscript, style")) continue;
  const style = getComputedStyle(element);
  const [one, two] = [luminance(style.color), luminance(backgroundOf(element))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (two + 0.05);
  if (ratio < 4.5) low.push([element.className || element.tagName, element.textContent.slice(0, 20), style.color, backgroundOf(element), ratio]);
}
return low;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(browser, tmp_path, scheme):
    after = pt.put(pt.drop(model(), "head/bias"), "head/scale", np.ones(3, "f"))
    after = pt.update(after, "blocks/0/mlp/kernel", lambda kernel: kernel * 2)
    path = report(model(), after, out=tmp_path / "page.html")
    browser.prefer(scheme)
    try:
        browser.open(path, "#head/scale")
        paper = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == paper[scheme]
        browser.click(".chip")
        assert browser.run(CONTRAST) == []
        browser.click("#theme")
        assert browser.run(CONTRAST) == []
    finally:
        browser.prefer("light")


def test_roles_and_names_for_screen_readers(browser, page):
    browser.open(page, "#embed/table")
    assert (
        browser.run("return document.querySelectorAll('.row:not([role=row]), .row > :not([role=gridcell])').length")
        == 0
    )
    active = browser.run("return document.getElementById('grid').getAttribute('aria-activedescendant')")
    assert browser.run(f"return document.getElementById('{active}').getAttribute('aria-selected')") == "true"
    rows = browser.run("return Number(document.getElementById('grid').getAttribute('aria-rowcount'))")
    assert rows == 1 + 3 + 1 + 4 + 6 + 3 + 3
    unnamed = "return [...document.querySelectorAll('button, input, select, svg, a')].filter((one) => !(one.ariaLabel || one.textContent.trim())).length"
    assert browser.run(unnamed) == 0


def test_where_leaves_live_is_shown_sorted_and_filtered(browser, tmp_path):
    tree = {"a": {"w": np.ones((8, 8), "f"), "b": np.ones(8, "f")}, "c": np.ones((4, 8), "f")}
    mesh = AbstractMesh((8,), ("data",))
    plan = pt.shard.plan(tree, {"a/w": P("data"), "**": P()}, mesh)
    browser.open(report(tree, plan=plan, out=tmp_path / "page.html"))
    assert browser.run("return document.getElementById('placed').textContent").startswith(
        "8 devices: data=8 · 192 B of"
    )
    cells = "return [...document.querySelectorAll('.row')].map((row) => ['.text', '.divided', '.held'].map((cell) => row.querySelector(cell).textContent).join(' '))"
    assert browser.run(cells) == ["a/  64 B", "w data 32 B", "b replicated 32 B", "c replicated 128 B"]
    browser.run(
        "const box = document.getElementById('order'); box.value = 'held'; box.dispatchEvent(new Event('change'))"
    )
    assert browser.run(cells)[0] == "c replicated 128 B"
    browser.click(".chip.on-every-device")
    assert browser.run(cells) == ["c replicated 128 B", "a/  64 B", "b replicated 32 B"]
    browser.run("location.hash = 'a/w'")
    facts = browser.wait("return document.querySelector('#panel dl')?.innerText")
    assert "[1, 8], 32 B" in facts
    assert "by 'a/w'" in facts
    browser.resize(400, 800)
    try:
        assert browser.run(
            "return document.getElementById('grid').scrollWidth <= document.getElementById('grid').clientWidth"
        )
    finally:
        browser.resize(1280, 800)


def test_it_fits_a_phone(browser, page):
    browser.resize(400, 800)
    try:
        browser.open(page, "#blocks/7/mlp/kernel")
        assert browser.run("return document.documentElement.scrollWidth") == 400
        assert browser.run(
            "return document.getElementById('grid').scrollWidth <= document.getElementById('grid').clientWidth"
        )
        overlapping = """
        const boxes = [...document.querySelectorAll('.row')].map((row) => [...row.children].filter((cell) => cell.checkVisibility() && cell.textContent).map((cell) => cell.getBoundingClientRect()));
        const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        return boxes.filter((cells) => cells.some((a, i) => cells.slice(i + 1).some((b) => meet(a, b)))).length
        """
        assert browser.run(overlapping) == 0
    finally:
        browser.resize(1280, 800)
