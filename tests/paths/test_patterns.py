"""Paths and patterns, as strings."""

import itertools
import re
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import ptree as pt
from ptree._paths import PathIndex, compile, escape, unused_alternatives
from ptree._paths.paths import in_order, natural, split
from ptree._paths.positions import Name


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
        (r"{layer a,\ b,c\ }", ["layer a", " b", "c "], ["a", "b", "c"]),
        ("a, b", ["a, b"], ["a", "b"]),
        ("{a/{b,c/d},**/e}/f", ["a/b/f", "a/c/d/f", "e/f", "x/y/e/f"], ["a/f", "a/c/f", "f"]),
        ("{**,a}/b", ["b", "a/b", "x/y/b"], ["a/c"]),
        ("x{095..101}", ["x095", "x099", "x100", "x101"], ["x94", "x95", "x102", "x0100"]),
        ("{0..0}", ["0"], ["1", "00", ""]),
        ("*{8..123}*", ["8", "123", "a9b", "77777"], ["0", "7", "a"]),
        ("[a-cb-ex]", ["a", "d", "e", "x"], ["f", "w", "y"]),
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


def test_a_pattern_spells_a_segment_where_it_has_no_star_for_it():
    assert compile("blocks/:/w").spells("blocks/:/w", 1)
    assert compile("{a,**/q}/kernel").spells("attn/q/kernel", 1)
    assert not compile("{a,**/q}/kernel").spells("attn/q/kernel", 0)
    assert not compile("{*,q}/kernel").spells("q/kernel", 0)
    assert compile("a*/kernel").spells("attn/kernel", 0)
    assert not compile("blocks").spells("blocks/:/w", 1)  # it matches the node above
    assert not compile("{**/w,blocks/:/w}").spells("blocks/:/w", 1)
    assert not compile("q/kernel").spells("k/kernel", 0)


def test_captures_are_in_order_and_the_first_wildcard_takes_the_least():
    assert compile("*/layer_{0..11}/**").captures(["enc", "layer_3", "attn", "kernel"]) == ("enc", "3", "attn/kernel")
    assert compile("a*b*").captures(["aXbYbZ"]) == ("X", "YbZ")
    assert compile("**/x/**").captures(["x", "x"]) == ("", "x")
    assert compile("a/?").captures(["a"]) is None


@pytest.mark.parametrize(
    ("spaced", "meant"),
    [
        ("{enc, dec}", "{enc,dec}"),
        ("{enc ,dec}", "{enc,dec}"),
        ("{ enc,dec }", "{enc,dec}"),
        ("{enc,\n\tdec}", "{enc,dec}"),
        ("a, b/{c,  d}", "a, b/{c,d}"),
        ("{a b, {c, d} ,e f}", "{a b,{c,d},e f}"),
        ("x{ 0 .. 11 }", "x{0..11}"),
        (r"{a\ , b}", r"{a\ ,b}"),
        ("{enc/a, dec/b}/w", "{enc/a,dec/b}/w"),
    ],
)
def test_a_space_at_the_edge_of_an_alternative_is_refused_with_what_was_meant(spaced, meant):
    with pytest.raises(pt.PatternError, match=re.escape(f"Write {meant!r}, or")):
        compile(spaced)
    compile(meant)


def test_captures_of_braces_with_a_slash_are_those_of_the_alternative_that_matches():
    assert compile("{a/*,b}/c*").captures(["a", "x", "c1"]) == ("x", "1")
    assert compile("{a/*,b}/c*").captures(["b", "c1"]) == ("1",)
    assert compile("{a,b}/c*").captures(["b", "c1"]) == ("b", "1")


def test_a_new_path_is_filled_in_by_the_spelling_that_matches():
    pattern = compile("{a/{p,q},b}/c{0..2}")
    assert pattern.fill_in("{x,y}/d{5..7}", ["a", "q", "c2"]) == ["y", "d7"]
    assert pattern.fill_in("b/*", ["b", "c2"]) == ["b", "2"]
    with pytest.raises(pt.PatternError, match=r"the left has 1 wildcard, the right has 2 of"):
        pattern.fill_in("{x,y}/d{5..7}", ["b", "c2"])
    assert compile("a").fill_in("b/c", ["a"]) == ["b", "c"]


# ------------------------------------------------------------------------- single layers of a stack


def state_after(pattern, *names):
    state = pattern.start
    for name in names:
        assert state is not None
        state = pattern.step(state, name) if isinstance(name, str) else pattern.step_layer(state, name)
    return state


@pytest.mark.parametrize(
    ("pattern", "whole", "layers"),
    [
        ("blocks/*/w", True, []),
        ("blocks/:/w", True, []),
        ("blocks/**/w", True, []),
        ("blocks/{:,x}/w", True, []),
        ("blocks/3/w", False, [3]),
        ("blocks/{0..2}/w", False, [0, 1, 2]),
        ("blocks/{4..99}/w", False, [4, 5]),
        ("blocks/{1,4,9}/w", False, [1, 4]),
        ("blocks/{1,{3..4}}/w", False, [1, 3, 4]),
        ("blocks/{0/w,2/w}", False, [0, 2]),
        ("blocks/{*,3}/w", True, [3]),
        ("blocks/{:,3}/w", True, [3]),
        ("blocks/03/w", False, []),
        ("blocks/\u0663/w", False, []),
        ("blocks/{00..05}/w", False, []),
        ("blocks/?/w", False, []),
        ("blocks/[0-9]/w", False, []),
        ("blocks/{?,x}/w", False, []),
        ("blocks/1*/w", False, []),
        ("blocks/x/w", False, []),
        ("blocks/**/3/w", True, [3]),
        ("**/3/w", True, [3]),
    ],
)
def test_a_stack_is_named_as_a_whole_or_by_the_numbers_of_its_layers(pattern, whole, layers):
    pattern = compile(pattern)
    at_the_stack = state_after(pattern, "blocks")
    assert (pattern.step(at_the_stack, ":") is not None) == whole
    assert pattern.layers(at_the_stack, 6) == layers
    for number in range(6):
        after = pattern.step_layer(at_the_stack, number)
        assert (after is not None) == (number in layers)
        assert after is None or pattern.step(after, "w").accepts


def test_double_stars_name_no_single_layer():
    pattern = compile("**/w")
    assert pattern.step_layer(pattern.start, 0) is None
    assert pattern.layers(pattern.start, 1000) == []
    nested = compile("**/1/**/2/w")
    assert state_after(nested, "blocks", 1, "inner", 2, "w").accepts
    assert state_after(nested, "blocks", 1, 2, "w").accepts
    assert nested.step_layer(state_after(nested, "blocks", 1), 1) is None


# --------------------------------------------------------------------------- time


def calls(function):
    """How many calls of Python and C functions a function makes."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "piece",
    ["{a*,*a}", "{a,aa,aaa}", "{*,*a}", "*a", "{0..11}*", "{{*,a},{*b,{*,c}}}", "[a-z]*", "{0..1000000000}", "?"],
)
@pytest.mark.parametrize("letter", ["a", "1"])
def test_matching_and_captures_take_steps_in_proportion_to_the_pattern_whatever_the_name(piece, letter):
    for pieces, length in ((10, 500), (40, 500), (10, 4000), (400, 20_000)):
        pattern, name = compile(piece * pieces), letter * length
        steps = calls(lambda pattern=pattern, name=name: (pattern.matches(name), pattern.captures([name])))
        assert steps <= 20 * (len(pattern.text) + length)


def test_a_class_of_many_characters_takes_memory_and_steps_in_proportion_to_its_text():
    every_other = "".join(map(chr, range(0x4E00, 0x9E00, 2)))
    for text in (f"[{every_other}]", f"[!{every_other}]*", "[!\x00-.0-\U0010ffff]*", f"[{every_other * 3}]" * 2):
        tracemalloc.start()
        steps = calls(lambda text=text: [compile(text).matches(name * 50) for name in ("\u4e00", "a", "\u4e01")])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert steps <= 20 * len(text) + 1000
        assert peak <= 400 * len(text) + 100_000


@pytest.mark.parametrize("piece", ["*?", "*[a-c]", "*[!x]?", "{*[ab],b*}", "*{0..5}", "*a"])
def test_the_letters_of_a_name_are_looked_at_once_for_each_kind_of_wildcard(piece, monkeypatch):
    looked = []
    flags = Name.flags
    monkeypatch.setattr(Name, "flags", lambda name, taken: looked.append(taken) or flags(name, taken))
    compile(piece * 400).matches("ab1" * 2000)
    assert len(looked) <= 5


def test_no_pattern_takes_for_ever():  # by backtracking most of these would run for years; all take 0.3 s together
    start = time.perf_counter()
    compile("/".join(["**", "a"] * 40) + "/x").matches("/".join("a" * 250))
    assert compile("/".join(["**", "a"] * 128)).captures(["a"] * 256)[:2] == ("", "")
    compile("*a" * 50 + "b").matches("a" * 2000)
    compile("{*,*a}" * 40).matches("a" * 20_000 + "b")
    compile("*a" * 2000 + "b").matches("a" * 20_000)
    assert compile("*a" * 200 + "b").captures(["a" * 5000 + "b"])[-1].strip("a") == ""
    assert len(compile("{a*,*a}" * 200).captures(["a" * 20_000])) == 200
    compile("{a,aa,aaa}" * 300).matches("a" * 20_000)
    compile("{0..11}" * 300).matches("1" * 20_000)
    compile("".join(f"{{{n}..{n * n}}}" for n in range(1, 300))).matches("1" * 20_000)
    compile("{{*,a},{*b,{*,c}}}" * 10).matches("a" * 20_000)
    assert compile("*a" * 40 + "*").captures(["a" * 2000])[:2] == ("", "")
    compile("{0..1000000000}").matches("7" * 5000)
    assert compile("[\x00-.0-\U0010ffff]" * 1000).captures(["β" * 1000]) == ("β",) * 1000
    compile("[" + "".join(map(chr, range(0x4E00, 0x9000))) + "]" + "*x" * 100).matches("日" * 20_000)
    for refused, message in (
        ("{a/b,c}" * 30, "stand for more than 1000 patterns"),
        ("{" * 500, "nested more than 50 deep"),
        ("[\x00-\U0010ffff]", "'/' cannot stand inside"),
        ("{a" + " " * 100_000 + "b, c}", "a space beside"),
    ):
        with pytest.raises(pt.PatternError, match=re.escape(message)):
            compile(refused)
    assert time.perf_counter() - start < 20


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


def slow_captures(segments, path):
    """Captures found by trying everything: of all the ways the one in which the first wildcard takes the least."""

    def pieces(elements, text):
        """All ways to cut a text into what the elements take."""
        if not elements:
            return [[]] if not text else []
        first, *rest = elements
        return [
            [text[:end], *others]
            for end in range(len(text) + 1)
            if takes(first, text[:end])
            for others in pieces(rest, text[end:])
        ]

    def takes(element, text):
        return slow([[element]], text) if text else may_be_empty(element)

    def may_be_empty(element):
        return element == ("any",) or (
            element[0] == "either" and any(all(map(may_be_empty, option)) for option in element[1])
        )

    def counts(parts, names):
        """All ways to give each part its number of names."""
        if not parts:
            return [[]] if not names else []
        first, *rest = parts
        if first == "**":
            return [[n, *others] for n in range(len(names) + 1) for others in counts(rest, names[n:])]
        fits = names and pieces(first, names[0])
        return [[1, *others] for others in counts(rest, names[1:])] if fits else []

    ways = counts(segments, path)
    if not ways:
        return None
    taken, at = [], 0
    for part, count in zip(segments, min(ways), strict=True):
        if part == "**":
            taken.append("/".join(path[at : at + count]))
        else:
            cut = min(pieces(part, path[at]), key=lambda texts: list(map(len, texts)))
            taken += [text for element, text in zip(part, cut, strict=True) if not isinstance(element, str)]
        at += count
    return tuple(taken)


def without_neighbours(segments):
    """The pattern with `**` next to `**`, and texts next to texts, as the one that they are."""
    merged = []
    for part in segments:
        if part == "**":
            merged += [part] if merged[-1:] != ["**"] else []
            continue
        elements = []
        for element in part:
            if isinstance(element, str) and elements and isinstance(elements[-1], str):
                elements[-1] += element
            else:
                elements.append(element)
        merged.append(elements)
    return merged


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(SEGMENT, min_size=1, max_size=4), st.lists(st.text("ab12", min_size=1, max_size=4), min_size=1, max_size=4)
)
def test_parsing_undoes_printing_and_matching_agrees_with_a_slow_reference(pattern, path):
    compiled = compile(printed(pattern))
    assert compiled.matches("/".join(path)) == slow(pattern, "/".join(path))
    reached = [n for n in range(len(path) + 1) if compiled.captures(path[:n]) is not None]
    assert compiled.reaches(path) == (reached[0] if reached else None)
    assert compiled.captures(path) == slow_captures(without_neighbours(pattern), path)


# Patterns with braces anywhere, also around slashes, as data: texts, ranges, and lists of alternatives that are lists of these.


def as_text(sequence):
    def one(element):
        match element:
            case str():
                return element
            case tuple():
                return "{{{}..{}}}".format(*element)
        return "{" + ",".join(map(as_text, element)) + "}"

    return "".join(map(one, sequence))


def written_out(sequence, where=()):
    """Each text without braces that a pattern stands for, and the choices made for it, as places in the data."""
    if not sequence:
        return [("", frozenset())]
    *before, last = sequence
    here = (*where, len(before))
    match last:
        case str():
            ends = [(last, frozenset())]
        case tuple():
            ends = [(str(n), frozenset([(here, n)])) for n in range(last[0], last[1] + 1)]
        case _:
            ends = [
                (text, choices | {(here, at)})
                for at, alternative in enumerate(last)
                for text, choices in written_out(alternative, (*here, at))
            ]
    return [(a + b, some | more) for a, some in written_out(before, where) for b, more in ends]


def slow_unused(sequence, used, where=()):
    found = []
    for at, element in enumerate(sequence):
        here = (*where, at)
        match element:
            case str():
                pass
            case tuple():
                found += [str(n) for n in range(element[0], element[1] + 1) if (here, n) not in used]
            case _:
                for at_option, alternative in enumerate(element):
                    if (here, at_option) in used:
                        found += slow_unused(alternative, used, (*here, at_option))
                    else:
                        found.append(as_text(alternative))
    return found


def numbers_one_by_one(texts):
    """`{9..11}` as 9, 10 and 11."""
    for text in texts:
        ends = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", text)
        yield from map(str, range(int(ends[1]), int(ends[2]) + 1)) if ends else [text]


PIECE = st.sampled_from(["a", "b", "/", "*", "/a", "b/", "?", "**", "1", ""])
RANGE = st.sampled_from([(0, 2), (1, 1), (9, 11)])
BRACED = st.recursive(
    st.lists(PIECE | RANGE, min_size=1, max_size=3),
    lambda inner: st.lists(PIECE | st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=3),
    max_leaves=6,
)


def joins_stars(sequence):
    """Whether two stars of a pattern come together once its braces are written out: they would read as one `**`."""

    def marked(piece):
        if isinstance(piece, str):
            return piece.replace("**", "S").replace("*", "S")
        return piece if isinstance(piece, tuple) else [[*map(marked, alternative)] for alternative in piece]

    return any("SS" in text for text, _ in written_out([*map(marked, sequence)]))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(BRACED, st.lists(st.text("ab1/", min_size=1, max_size=5), min_size=1, max_size=3))
@example(["*", [["*"]], [["/b", "/", "**"]]], ["a/b/1"])
def test_unused_alternatives_agree_with_writing_all_of_them_out(sequence, paths):
    assume(not joins_stars(sequence))
    try:
        pattern = compile(as_text(sequence))
        plain = [(compile(text), choices) for text, choices in written_out(sequence)]
    except pt.PatternError:
        assume(False)
    used = {choice for one, choices in plain if any(map(one.matches, paths)) for choice in choices}
    assert pattern.matches(paths[0]) == any(one.matches(paths[0]) for one, _ in plain)
    found = list(numbers_one_by_one(unused_alternatives(pattern, paths)))
    assert found == list(numbers_one_by_one(slow_unused(sequence, used)))


@pytest.mark.parametrize(
    ("pattern", "paths", "unused"),
    [
        ("enc/*", ["enc/w"], []),
        ("{enc,haed}/kernel", ["enc/kernel"], ["haed"]),
        ("{enc,head}/kernel", ["enc/kernel", "head/kernel"], []),
        ("{0..5}/w", ["0/w", "2/w", "3/w"], ["1", "{4..5}"]),
        ("l{08..11}", ["l09"], ["08", "{10..11}"]),
        ("{0..999999999}", ["5", "7/x"], ["{0..4}", "6", "{8..999999999}"]),
        ("{a,a,b}", ["a"], ["b"]),
        ("{a,*}", ["a"], []),
        ("{a,{b,c}d}/{x,y}", ["a/x"], ["{b,c}d", "y"]),
        ("{a,{b,c}d}/{x,y}", ["bd/x", "a/y"], ["c"]),
        ("{enc/q,dec/{k,v}}/w", ["enc/q/w", "dec/v/w/b"], ["k"]),
        ("{enc/q,dec}/w", ["dec/w"], ["enc/q"]),
        ("**/{a,b}/**/{c,d}", ["x/a/y/c", "b/z/d"], []),
        ("**/{a,b}", ["a/b"], []),
        ("{a,ab}{b,}", ["ab"], []),
        ("{,x}a", ["a"], ["x"]),
        ("{x,}a", ["xa"], [""]),
        ("blocks/{*,3,?}", ["blocks/:"], ["3", "?"]),
        ("blocks/{:,{*,x}}", ["blocks/:/w"], ["x"]),
        (r"{a\,b,c}", ["c"], [r"a\,b"]),
    ],
)
def test_an_alternative_that_matches_nothing_is_named_as_it_is_written(pattern, paths, unused):
    assert unused_alternatives(compile(pattern), paths) == unused


def test_unused_alternatives_of_many_paths_cost_little():
    paths = [f"layers/{layer}/{block}/{name}" for layer in range(2500) for block in ("attn", "mlp") for name in "qkvo"]
    few = calls(lambda: unused_alternatives(compile("layers/*/{attn,mlp}/{q,k,v,o}"), paths))
    assert few < 5_000
    braced = compile("layers/{0..2499}/{attn,mpl}/{q,v}")
    most = calls(lambda: unused_alternatives(braced, paths))
    assert most < 100 * len(paths)
    assert unused_alternatives(braced, paths) == ["mpl"]


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
    assert split(3) == split(np.int64(3)) == split(np.array(3)) == ["3"]
    assert split("") == []
    for bad in (None, 1.5, True, b"a", ["a"]):
        with pytest.raises(pt.PathError, match=re.escape(f"no path {bad!r}: a path is a string")):
            split(bad)
    with pytest.raises(pt.PathError, match=re.escape("no path f64[2]: a path is a string")):
        split(np.ones(2))
    with pytest.raises(pt.PathError, match="more digits than Python prints"):
        split(10**5000)


def test_names_are_listed_as_a_person_would():
    assert sorted(["layer_10", "layer_2", "a", "2", "10"], key=natural) == ["2", "10", "a", "layer_2", "layer_10"]
    assert in_order(("head", "body")) == ("head", "body")
    assert in_order(("l1", "l10", "l2")) == ("l1", "l2", "l10")


# --------------------------------------------------------------------------- suggestions


LAYERS = [
    f"blocks/{layer}/{sub}/{name}" for layer in range(3) for sub in ("attn", "mlp") for name in ("kernel", "bias")
]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("kernel", "**/kernel"),
        ("kernal", "**/kernel"),
        ("attn/bias", "**/attn/bias"),
        ("{attn,mlp}/bias", "**/{attn,mlp}/bias"),
        ("blocks/1/atn/kernel", "blocks/1/attn/kernel"),
        ("block/*/attn/bais", "blocks/*/attn/bias"),
        ("**/atn*/bias", "**/attn/bias"),
        ("blocks/attn", None),
        ("optimiser/**", None),
        ("**/{atn,mpl}", None),
        ("x" * 5000, None),
        ("/".join("x" * 100), None),
    ],
)
def test_a_pattern_that_matches_nothing_has_a_likely_meaning(wrong, meant):
    assert PathIndex(LAYERS).suggest(wrong) == meant
    assert meant is None or any(map(compile(meant).matches, LAYERS))


def test_names_with_special_characters_are_suggested_as_patterns():
    assert PathIndex(["a[0]/w"]).suggest(r"b\[0\]/w") == r"a\[0\]/w"


def test_suggestions_cost_little_however_many_paths_there_are():
    paths = [f"tables/{at}x{at * 7919 % 20_000}/{name}" for at in range(10_000) for name in ("weight", "bias")]
    index = PathIndex(paths)
    assert index.suggest("tables/*/wieght") == "tables/*/weight"
    for wrong in (
        "tables/17x2/weight",
        "weight",
        "zzz",
        "tables/?????????????/weight",
        "tables/{a,b}/weight",
        "*/*/*/*",
    ):
        assert calls(lambda wrong=wrong: index.suggest(wrong)) < 60_000
