"""Words: how names, leaves, lists and tables are written for people."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptree as pt
from ptree._words import columns, describe, listed, nearest, printable, quoted, shortened, table, with_fixes


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("kernel", "kernel"),
        ("β/日本 é", "β/日本 é"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\u2066\u200b\u2028", "\\u2066\\u200b\\u2028"),
        ("\u3164\u2800\ufe0f", "\\u3164\\u2800\\ufe0f"),
    ],
)
def test_characters_that_a_terminal_would_obey_are_shown_as_escapes(name, shown):
    assert printable(name) == shown


@given(st.text())
def test_whatever_a_name_holds_what_is_printed_is_printable(name):
    assert printable(name).isprintable()
    assert quoted(name).isprintable()
    assert printable(printable(name)) == printable(name)
    if name.isascii() and name.isprintable():
        assert printable(name) == name


@given(st.text(), st.integers(3, 40))
def test_no_name_takes_more_columns_than_the_width_that_is_given(name, width):
    shown = printable(name, width)
    assert columns(shown) <= width
    assert shown.isprintable()


def test_a_wide_character_takes_two_columns():
    assert [columns(text) for text in ("", "kernel", "日本", "ｗ", "é")] == [0, 6, 4, 2, 1]
    rows = table([("日本", "1"), ("kernel", "22")], right={1})
    assert rows == ["日本     1", "kernel  22"]
    assert [columns(line) for line in rows] == [10, 10]
    assert shortened("日本" * 10, 9) == "日...本"


def test_a_summary_of_names_with_escape_codes_shows_them():
    text = str(pt.summary({"\x1b[2J": np.ones(2, "float32"), "a\nb": np.ones(1, "float32")}))
    assert "\x1b" not in text
    assert text.splitlines()[:2] == ["\\x1b[2J  [2]  2  66.7%", "a\\nb     [1]  1  33.3%"]


def test_a_table_has_columns_as_wide_as_their_cells_and_lines_without_spaces_at_the_end():
    rows = [("leaf", "n", "rule"), ("a/kernel", "10", ""), ("b", "= a/kernel and more"), ("c", "2", "**")]
    assert table(rows, right={1}) == [
        "leaf       n  rule",
        "a/kernel  10",
        "b         = a/kernel and more",
        "c          2  **",
    ]
    assert table([]) == []
    assert table([], width=80) == []


@given(st.lists(st.lists(st.text(max_size=30), min_size=1, max_size=4)), st.integers(20, 60))
def test_no_line_of_a_table_is_wider_than_asked(rows, width):
    lines = table(rows, right={1}, width=width)
    assert len(lines) == len(rows)
    assert all(columns(line) <= width and line.isprintable() for line in lines)


def test_texts_lose_their_middle_and_lists_their_end():
    assert shortened("a_rather_long_name", 11) == "a_ra...name"
    assert shortened("short", 5) == "short"
    assert listed(map(str, range(12))) == "['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', and 2 more]"
    assert quoted(10**5000) == "a number of 16610 bits"
    assert quoted(np.ones((2, 3))) == "f64[2,3]"
    assert quoted(np.int64(3)) == repr(np.int64(3))


def test_a_fix_is_said_once_after_the_problems():
    assert with_fixes(["a is wrong", "b is wrong"], ["Mend it.", "", "Mend it."]) == "a is wrong\nb is wrong\nMend it."
    assert with_fixes(["is it?"], ["Yes."]) == "is it? Yes."
    assert with_fixes(["a is wrong"], [""]) == "a is wrong"


def test_leaves_are_described_in_a_few_characters():
    described = [describe(leaf) for leaf in (np.ones((2, 3)), 1, 1.5, None, "x" * 40, 10**5000, b"ab", [1])]
    assert described == ["f64[2,3]", "1", "1.5", "None", "str", "int", "b'ab'", "list"]


def test_no_name_is_looked_for_where_it_would_take_long():
    assert nearest("bais", ["bias"]) == "bias"
    assert nearest("x" * 300, ["x" * 300]) is None
    assert nearest("bais", ["bias"] * 5001) is None
