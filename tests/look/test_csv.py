"""CSV is one format in all tables of `ptree.look`, and a name in it is inert in terminals and spreadsheets."""

import csv
import io

import numpy as np
import pytest

import ptree as pt
from ptree import look

TREE = {"w": np.ones((16, 48), "float32"), "b": np.ones((), "float32")}
FORMULA, ESCAPE = "=cmd|'/c calc'!A1", "a\x1b[31mb\n"


def tables(tree):
    other = {name: leaf + 1 for name, leaf in tree.items()}
    return {
        "summary": pt.summary(tree).to_csv(),
        "stats": look.stats(tree, quantiles=(0.5,)).to_csv(),
        "diff": look.diff(tree, other).to_csv(),
    }


@pytest.mark.parametrize("table", ["summary", "stats", "diff"])
def test_a_shape_is_written_in_one_way(table):
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(tables(TREE)[table]))}
    assert rows["w"]["shape"] == "16x48"
    assert rows["b"]["shape"] == ""


@pytest.mark.parametrize("table", ["summary", "stats", "diff"])
def test_a_name_is_inert(table):
    names = [FORMULA, ESCAPE, "+1+2", "-x", "@sum", "-1", "x=1", "h.0-w", "β/日本"]
    text = tables({name: np.ones(2, "float32") for name in names})[table]
    paths = [row["path"] for row in csv.DictReader(io.StringIO(text))]
    shown = {"'" + FORMULA, "a\\x1b[31mb\\n", "'+1+2", "'-x", "'@sum", "-1", "x=1", "h.0-w", "β/日本"}
    assert {*paths} == shown
    assert "\x1b" not in text


def test_numbers_stay_numbers():
    text = look.stats({"w": -np.ones(2, "float32")}).to_csv()
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["mean"] == "-1.0"


def test_names_in_a_history_are_inert(tmp_path):
    tree = {FORMULA: np.ones(2, "float32")}
    with look.History(tmp_path / "run") as history:
        history.record(0, look.observe(tree))
    history.to_csv(tmp_path / "run.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "run.csv").read_text()))
    assert row["path"] == "'" + FORMULA
