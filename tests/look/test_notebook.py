"""HTML tables for notebooks, and Trees in treescope."""

import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import treescope
from trees import SPECS, TREES, language_model

import ptree as pt
from ptree.look import diff, stats
from ptree.look._notebook.tables import Column, html_table


class Table(HTMLParser):
    """The texts of a table's cells by row, and the elements of a page; an element that is not closed is an error."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.elements, self.open = [], set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("br",):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & {*self.open} and self.rows:
            self.rows[-1][-1] += data


SAFE = {"style", "table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "bdi", "div", "br", "span"}


def model():
    rng = np.random.default_rng(0)
    blocks = {str(layer): {"w": rng.standard_normal((4, 4)).astype("f") * (layer + 1)} for layer in range(6)}
    tree = {"embed": rng.standard_normal((10, 4)).astype("f"), "blocks": blocks, "head": np.float32([1, np.nan])}
    return pt.tie(pt.put(pt.Tree(tree), "out", tree["embed"]), {"out": "embed"})


@pytest.mark.parametrize("name", [*TREES, *SPECS])
def test_any_tree_is_a_table_in_a_notebook(name):
    tree = TREES.get(name, SPECS.get(name))
    if isinstance(tree, pt.Tree):
        assert Table(tree._repr_html_()).elements <= SAFE


def test_a_tree_is_its_summary():
    params = model()
    assert params._repr_html_() == pt.summary(params)._repr_html_()
    assert "= embed" in params._repr_html_()


def test_statistics_have_a_row_for_all_layers():
    rows = Table(stats(model())._repr_html_()).rows
    params = model()
    assert rows[0] == ["path", "mean", "std", "|max|", "std by layer"]  # no column of zeros, as there are none
    [blocks] = [row for row in rows if row[0] == "blocks/{0..5}/w"]
    spreads = [params[f"blocks/{layer}/w"].std() for layer in range(6)]
    assert blocks[2] == f"{min(spreads):.3g}..{max(spreads):.3g}"
    assert len(blocks[4]) == 6
    assert rows[-1] == ["! head: 1 non-finite, first at (1,)"]


def test_differences_have_a_row_for_all_layers():
    before = model()
    after = pt.update(before, "blocks/{3..5}/w", lambda w: w * 2)
    after = pt.put(pt.drop(after, "head"), "scale", np.ones(3, "f"))
    rows = Table(diff(before, after)._repr_html_()).rows
    assert rows[1][:3] == ["changed", "blocks/{3..5}/w", "1"]  # all by the same, so no bars by layer
    assert [row[:2] + row[-1:] for row in rows[2:4]] == [
        ["added", "scale", "(3,) f32"],
        ["removed", "head", "(2,) f32"],
    ]
    assert rows[-1] == ["4 same, 3 changed, 1 added, 1 removed"]


NASTY = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202e&amp;"


def test_names_are_escaped_everywhere():
    before, after = {NASTY: np.ones(2), "w": np.ones(1)}, {NASTY: np.zeros(2), "w": np.ones(1)}
    for shown in (pt.Tree(before), pt.summary(before), stats(before), diff(before, after)):
        text = shown._repr_html_()
        assert Table(text).elements <= SAFE
        assert "\u202e" not in text
        assert "\x1b" not in text


def test_tables_are_small_whatever_they_show():
    names = [f"{at}{'&' * 400}" for at in range(3000)]
    columns = [Column("path"), Column("a", is_number=True), Column("b")]
    text = html_table(columns, [[name, "1", name] for name in names])
    assert len(text) < 300_000
    rows = Table(text).rows
    assert len(rows) == 202
    assert rows[101] == ["... 2,800 more"]
    many = {f"w{at}x": np.ones(2) for at in range(2_000)}
    for shown in (pt.Tree(many), stats(many), diff(many, {name: leaf * 2 for name, leaf in many.items()})):
        assert len(shown._repr_html_()) < 200_000


# ------------------------------------------------------------------------------ treescope

# treescope 0.1.10 looks at all names of NumPy, of which 2.5 deprecates some
of_treescope = pytest.mark.filterwarnings("ignore:The chararray class is deprecated:DeprecationWarning")


@of_treescope
def test_treescope_shows_ties_and_stacks():
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    text = treescope.render_to_text(pt.stacks.stack(params, "blocks"))
    assert "'kernel': = transposed(embed/table)" in text
    assert "'blocks': Tree({  # 3 layers, stacked" in text
    assert "':': Tree({" in text
    assert "'table': <jax.Array float32(10, 4)" in text


# treescope calls itself at each level, and fails at 60 levels of plain dicts too
ONLY_TREES = [name for name, tree in TREES.items() if isinstance(tree, pt.Tree) and name != "deep"]


@of_treescope
@pytest.mark.parametrize("name", ONLY_TREES)
def test_treescope_shows_any_tree(name):
    tree = TREES[name]
    text = treescope.render_to_text(tree)
    assert text.startswith("Tree({")
    assert text.count(": = ") == len(pt.ties(tree))


@of_treescope
def test_treescope_copies_paths_that_read_the_tree():
    page = treescope.render_to_html({"params": pt.Tree({"enc": {"w": np.ones(3)}})}, compressed=False)
    paths = {html.unescape(path) for path in re.findall(r'data-copy="([^"]*)"', page)}
    assert "['params']['enc/w']" in paths
