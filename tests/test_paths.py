"""Paths and patterns, as strings."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptree as pt
from ptree._paths import compile, escape, in_order, natural, split


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a/b", ["a/b", "a/b/c"], ["a", "b", "x/a/b", "ab"]),
        ("a/*", ["a/b", "a/b/c"], ["a"]),
        ("**/bias", ["bias", "a/bias", "a/b/bias", "bias/x"], ["a/biass", "xbias"]),
        ("a/**", ["a", "a/b/c"], ["b"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a", "a/b"]),
        ("**", ["a", "a/b"], []),
        ("?", ["a", "a/b"], ["ab"]),
        ("layer_[0-3]", ["layer_2"], ["layer_4", "layer_"]),
        ("[!ab]x", ["cx"], ["ax", "x"]),
        ("{a,b}/c", ["a/c", "b/c"], ["c", "ab/c"]),
        ("{a,{b,c}d}", ["a", "bd", "cd"], ["b", "d"]),
        ("{a/b,c}d", ["a/bd", "cd"], ["a/b", "ad"]),
        ("{a,}x", ["ax", "x"], ["aax"]),
        ("l{0..11}", ["l0", "l9", "l11"], ["l12", "l011", "l", "l1a"]),
        ("l{8..11}{a,b}", ["l8a", "l10b"], ["l7a", "l1a"]),
        ("l{00..11}", ["l00", "l05", "l11"], ["l5", "l12"]),
        ("*a*b*", ["xaxb", "ab"], ["ba"]),
        ("*{ab,a}*b", ["xab", "abab"], ["a"]),
        (r"\*\*", ["**"], ["a", "*"]),
        (r"a\[0\]", ["a[0]"], ["a0"]),
        ("block 1/β", ["block 1/β"], ["block 1/b"]),
    ],
)  # fmt: skip
def test_a_pattern_matches_just_these_paths(pattern, yes, no):
    assert [path for path in yes if not compile(pattern).matches(path)] == []
    assert [path for path in no if compile(pattern).matches(path)] == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "bad pattern '': it is empty. Use '**' for everything"),
        ("a//b", "bad pattern 'a//b': it has an empty segment (a '/' too many)"),
        ("/a", "bad pattern '/a': it has an empty segment (a '/' too many)"),
        ("{a", "bad pattern '{a': '{' at position 0 is not closed. For the character itself write '\\{'"),
        ("a}", "bad pattern 'a}': '}' at position 1 closes nothing. For the character itself write '\\}'"),
        ("[a", "bad pattern '[a': '[' at position 0 is not closed. For the character itself write '\\['"),
        ("{5..1}", "bad pattern '{5..1}': the range {5..1} is empty; write {1..5}"),
        ("a**", "bad pattern 'a**': '**' must be a whole segment; inside a segment use '*'"),
        ("***", "bad pattern '***': '***'; use '*' inside a segment, or '**' as a whole segment"),
        ("a\\", "bad pattern 'a\\\\': it ends in a backslash"),
        ("{}", "bad pattern '{}': '{}' holds no alternative"),
        ("[b-a]", "bad pattern '[b-a]': the range 'b-a' is empty"),
    ],
)
def test_a_malformed_pattern_says_what_is_wrong(pattern, message):
    with pytest.raises(pt.PatternError) as error:
        pt.items(pt.Tree({"a": 1}), pattern)
    assert str(error.value) == message


def test_captures_are_in_order_and_the_first_wildcard_takes_the_least():
    assert compile("*/layer_{0..11}/**").captures(["enc", "layer_3", "attn", "kernel"]) == ("enc", "3", "attn/kernel")
    assert compile("a*b*").captures(["aXbYbZ"]) == ("X", "YbZ")
    assert compile("**/x/**").captures(["x", "x"]) == ("", "x")
    assert compile("a/?").captures(["a"]) is None


def test_no_pattern_takes_for_ever():  # by backtracking each of these would run for years
    compile("/".join(["**", "a"] * 40) + "/x").matches("/".join("a" * 300))
    compile("*a" * 50 + "b").matches("a" * 2000)
    compile("{*,*}" * 10).matches("a" * 200)
    compile("{0..1000000000}").matches("7" * 5000)
    with pytest.raises(pt.PatternError, match="stand for more than 1000 patterns"):
        compile("{a/b,c}" * 30)
    with pytest.raises(pt.PatternError, match="nested more than 50 deep"):
        compile("{" * 500)


NAME = st.text(st.sampled_from("ab*?[]{}\\!,-.0/ β"), min_size=1, max_size=8).filter(lambda s: "/" not in s)


@given(st.lists(NAME, min_size=1, max_size=4))
def test_an_escaped_path_matches_itself_only(segments):
    path = "/".join(segments)
    pattern = compile(escape(path))
    assert pattern.literal == segments
    assert pattern.matches(path)
    assert not pattern.matches(path + "x")


def slow(pattern, path):
    """A reference: `*`, `?` and `**` by recursion over characters, nothing shared with the machine."""

    def segment(p, s):
        if not p:
            return not s
        if p[0] == "*":
            return any(segment(p[1:], s[k:]) for k in range(len(s) + 1))
        return bool(s) and p[0] in ("?", s[0]) and segment(p[1:], s[1:])

    def whole(ps, ss):
        if not ps:
            return True  # it matched this node or one above
        if ps[0] == "**":
            return any(whole(ps[1:], ss[k:]) for k in range(len(ss) + 1))
        return bool(ss) and segment(ps[0], ss[0]) and whole(ps[1:], ss[1:])

    return whole(pattern.split("/"), path.split("/"))


@settings(max_examples=500)
@given(
    st.lists(st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=4).filter(lambda s: "**" not in s)), min_size=1, max_size=4),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=5),
)  # fmt: skip
def test_matching_agrees_with_a_slow_reference(pattern, path):
    assert compile("/".join(pattern)).matches("/".join(path)) == slow("/".join(pattern), "/".join(path))


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 400))
def test_a_range_is_the_numbers_between(low, high, number):
    if low <= high:
        assert compile(f"x{{{low}..{high}}}").matches(f"x{number}") == (low <= number <= high)


@given(st.text(max_size=12))
def test_any_text_is_a_pattern_or_a_pattern_error(text):
    try:
        compile(text).matches("a/b")
    except pt.PatternError as error:
        assert str(error).startswith("bad pattern")


def test_splitting_takes_strings_and_whole_numbers_only():
    assert split("a/b") == ["a", "b"]
    assert split(3) == ["3"]
    assert split("") == []
    for bad in (None, 1.5, True, b"a", ["a"]):
        with pytest.raises(pt.PathError, match=re.escape(f"no path {bad!r}: a path is a string")):
            split(bad)


def test_names_are_listed_as_a_person_would():
    assert sorted(["layer_10", "layer_2", "a"], key=natural) == ["a", "layer_2", "layer_10"]
    assert in_order(("head", "body")) == ("head", "body")
    assert in_order(("l1", "l10", "l2")) == ("l1", "l2", "l10")
