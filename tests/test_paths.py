"""Paths and patterns, as strings."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ptree as pt
from ptree._paths.paths import in_order, natural, split
from ptree._paths import compile, escape


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
        (r"[Z-\]]x", ["Zx", "]x", "[x"], ["ax"]),
        (r"[\^a]", ["^", "a"], ["b"]),
        (r"{a\..c}", ["a..c"], ["b"]),
        ("{{0..11},x}", ["0", "11", "x"], ["12"]),
        ("a..b", ["a..b"], ["a.b"]),
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
        (
            "[^a]",
            "bad pattern '[^a]': '[^' at position 0: the other characters are '[!...]'; for the character write '[\\^'",
        ),
        (
            "{a..c}",
            "bad pattern '{a..c}': '..' at position 2: a range, as in {0..11}, is of two whole numbers and alone"
            " in its braces; for two dots write '\\..'",
        ),
        (
            "{0..11,x}",
            "bad pattern '{0..11,x}': '..' at position 2: a range, as in {0..11}, is of two whole numbers and"
            " alone in its braces; for two dots write '\\..'",
        ),
        (
            "a\\/b",
            "bad pattern 'a\\\\/b': '/' cannot be escaped: a key that holds one is spelled out, as in 'mlp/linear_0'",
        ),
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
    compile("{*,*a}" * 40).matches("a" * 20_000 + "b")
    compile("*a" * 2000 + "b").matches("a" * 20_000)
    assert compile("*a" * 200 + "b").captures(["a" * 5000 + "b"])[-1].strip("a") == ""
    compile("{{*,a},{*b,{*,c}}}" * 10).matches("a" * 20_000)
    assert compile("*a" * 40 + "*").captures(["a" * 2000])[:2] == ("", "")
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


# A pattern as data: a list of segments, each "**" or a list of elements. `printed` writes it down, `slow` matches
# it by trying everything; neither shares a line with the machine.


def printed(segments):
    def element(e):
        match e:
            case str():
                return escape(e)
            case ("any",):
                return "*"
            case ("one",):
                return "?"
            case ("class", characters, negated):
                return f"[{'!' if negated else ''}{''.join(characters)}]"
            case ("range", low, high):
                return f"{{{low}..{high}}}"
            case ("either", options):
                return "{" + ",".join("".join(map(element, option)) for option in options) + "}"

    return "/".join(s if s == "**" else "".join(map(element, s)) for s in segments)


def slow(segments, path):
    def ends(elements, text):
        """What may be left of the text after these elements."""
        if not elements:
            return {text}
        first, *rest = elements
        match first:
            case str():
                left = {text[len(first) :]} if text.startswith(first) else set()
            case ("any",):
                left = {text[k:] for k in range(len(text) + 1)}
            case ("one",):
                left = {text[1:]} if text else set()
            case ("class", characters, negated):
                left = {text[1:]} if text and (text[0] in characters) != negated else set()
            case ("range", low, high):
                left = {text[len(str(n)) :] for n in range(low, high + 1) if text.startswith(str(n))}
            case ("either", options):
                left = {end for option in options for end in ends(option, text)}
        return {end for after in left for end in ends(rest, after)}

    def whole(ps, ss):
        if not ps:
            return True  # it matched this node or one above
        if ps[0] == "**":
            return any(whole(ps[1:], ss[k:]) for k in range(len(ss) + 1))
        return bool(ss) and "" in ends(ps[0], ss[0]) and whole(ps[1:], ss[1:])

    return whole(segments, path.split("/"))


LITERAL = st.text("ab1", min_size=1, max_size=2)
FLAT = st.one_of(
    LITERAL,
    st.just(("any",)),
    st.just(("one",)),
    st.tuples(st.just("class"), st.lists(st.sampled_from("ab1"), min_size=1, max_size=2), st.booleans()),
    st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda ends: ("range", min(ends), max(ends))),
)


def one_segment(element, most):
    """Lists of elements in which no two stars meet: `**` is something else."""
    return st.lists(element, min_size=1, max_size=most).filter(
        lambda parts: not any(a == b == ("any",) for a, b in itertools.pairwise(parts))
    )


ELEMENT = st.recursive(
    FLAT,
    lambda inner: st.tuples(st.just("either"), st.lists(one_segment(inner, 2), min_size=1, max_size=3)),
    max_leaves=4,
)
SEGMENT = st.just("**") | one_segment(ELEMENT, 3)


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(SEGMENT, min_size=1, max_size=4), st.lists(st.text("ab12", min_size=1, max_size=4), min_size=1, max_size=4)
)
def test_parsing_undoes_printing_and_matching_agrees_with_a_slow_reference(pattern, path):
    compiled = compile(printed(pattern))
    assert compiled.matches("/".join(path)) == slow(pattern, "/".join(path))
    captured = compiled.captures(path)
    exact = [n for n in range(len(path) + 1) if compile(printed(pattern)).captures(path[:n]) is not None]
    assert (captured is not None) <= compiled.matches("/".join(path))
    assert compiled.matches("/".join(path)) == bool(exact)


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
