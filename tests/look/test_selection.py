"""Selection of leaves of a source: of a file what the same selector means in the tree that was saved, without JAX."""

import re
import subprocess
import sys

import numpy as np
import pytest
from errors import says
from trees import TREES, language_model, tied

import ptree as pt
from ptree import look
from ptree.look._sources.selection import selected
from ptree.look._sources.source_of import source_of

SELECTORS = [
    "**",
    "blocks",
    "blocks/*/q",
    "**/kernel",
    "head/kernel",
    "blocks/*/{q,v}/bias",
    re.compile(r".*/bias"),
    ["**", "!**/bias"],
    ["!blocks"],
    ["**/kernel", "!blocks", "**/bias"],
    lambda path, leaf: len(leaf.shape) == 2,
]


@pytest.fixture(params=["tree", "file"])
def source(request, tmp_path):
    tree = tied({"head/kernel": pt.transposed("embed/table")}, language_model())
    if request.param == "tree":
        yield source_of(tree)
        return
    pt.save(tmp_path / "m.safetensors", tree)
    with source_of(tmp_path / "m.safetensors") as opened:
        yield opened


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_means_the_same_leaves_in_a_tree_and_in_its_file(source, selector):
    tree = tied({"head/kernel": pt.transposed("embed/table")}, language_model())
    assert selected(source, selector) == pt.paths(tree, selector)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("kind", ["mask", "as dicts", "before the tie", "in a list"])
def test_a_mask_means_in_a_file_what_it_means_in_its_tree(source, selector, kind):
    tree = tied({"head/kernel": pt.transposed("embed/table")}, language_model())
    expected = pt.paths(tree, selector)
    mask = pt.mask(tree, selector)
    if kind == "as dicts":
        mask = pt.asdict(mask)
    elif kind == "before the tie":
        mask = pt.untie(mask)
    elif kind == "in a list":
        mask = [mask, pt.mask(tree, "embed")]
        expected = pt.paths(tree, ["embed", expected])
    assert selected(source, mask) == expected


@pytest.mark.parametrize("call", [pt.summary, look.stats, look.plot_distributions, look.report])
def test_what_looks_at_files_takes_masks(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the page of `report` goes
    pt.save(
        tmp_path / "m.safetensors", {"w": np.ones((2, 3), "f4"), "b": np.zeros(3, "f4"), "l": [np.ones(1, "f4")] * 2}
    )
    mask = {"w": False, "b": True, "l": [np.False_, True]}
    seen, expected = (call(tmp_path / "m.safetensors", selector=by) for by in (mask, ["b", "l/1"]))
    if call is look.plot_distributions:
        assert [ax.get_title(loc="left") for ax in seen.axes] == [ax.get_title(loc="left") for ax in expected.axes]
    else:
        assert str(seen) == str(expected)


def test_masks_compare_the_leaves_of_two_files(tmp_path):
    before, after = {"w": np.ones(2), "b": np.ones(3)}, {"w": np.zeros(2), "b": np.zeros(3)}
    pt.save(tmp_path / "a.safetensors", before)
    pt.save(tmp_path / "b.safetensors", after)
    mask = {"w": True, "b": False}
    found = look.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors", selector=mask)
    assert str(found) == str(look.diff(before, after, selector="w"))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"w": False, "b": False}, "the mask is True at no leaf"),
        ({"w": True}, "a mask has True or False at each leaf of the tree: missing in the mask: ['b']"),
        ([True, False], "a mask has True or False at each leaf of the tree: missing in the mask: ['w', 'b']\n"
         "unexpected in the mask: ['0', '1']"),
        ({"w": True, "b": 2}, "a mask has True or False at each leaf of the tree: 'b' is 2, and not True or False"),
        ({"w": 1, "b": 0}, "not a selector: a dict; the tree comes first, and then the selector (a mask has True or False"
         " at each leaf)"),
        (["w", True], "not a selector: True; a selector is a pattern such as '**/bias', a compiled regex, a function"
         " (path, leaf) -> bool, or a sequence of these"),
    ],
)  # fmt: skip
def test_a_mask_that_does_not_fit_says_the_same_of_a_file_and_of_its_tree(tmp_path, mask, message):
    tree = pt.Tree({"w": np.ones(2), "b": np.ones(3)})
    pt.save(tmp_path / "m.safetensors", tree)
    says(pt.PatternError, message, pt.paths, tree, mask)
    with source_of(tmp_path / "m.safetensors") as source:
        says(pt.PatternError, message, selected, source, mask)
    says(pt.PatternError, message, pt.summary(tree).total, mask)


@pytest.mark.parametrize("name", ["stacked", "a stack of stacks", "tied chain", "tied across models", "PRNG keys"])
def test_the_corpus(name, tmp_path):
    pt.save(tmp_path / "m.safetensors", TREES[name])
    with source_of(tmp_path / "m.safetensors") as source:
        assert selected(source) == selected(source, "**") == pt.paths(TREES[name])
        for path in pt.paths(TREES[name], aliases=True):
            assert selected(source, path) == pt.paths(TREES[name], path)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("**/bais", "the pattern '**/bais' matches nothing in 14 leaves. Did you mean '**/bias'?"),
        ("embd", "the pattern 'embd' matches nothing in 14 leaves. Did you mean 'embed'?"),
        ("{embed,haed}", "in the pattern '{embed,haed}' the alternative 'haed' matches nothing. Did you mean 'head'?"),
        (re.compile("x"), "the regex 'x' matches the whole of no path"),
        (lambda path, leaf: False, "the predicate '<lambda>' is true of no leaf"),
        (["a", "b"], "the pattern 'a' matches nothing in 14 leaves.\nthe pattern 'b' matches nothing in 14 leaves."),
        (["head", "!head"], "the selector removes all that it selects"),
        ([], "not a selector: []; a selector is a pattern such as '**/bias', a compiled regex, a function (path, leaf)"
             " -> bool, or a sequence of these"),
    ],
)  # fmt: skip
def test_what_matches_nothing_is_an_error_with_a_suggestion(tmp_path, selector, message):
    pt.save(tmp_path / "m.safetensors", tied({"head/kernel": pt.transposed("embed/table")}, language_model()))
    with source_of(tmp_path / "m.safetensors") as source, pytest.raises(pt.PatternError) as raised:
        selected(source, selector)
    assert str(raised.value) == message


def test_a_single_layer_of_a_stack_in_a_file_is_an_error_that_says_so(tmp_path):
    pt.save(tmp_path / "m.safetensors", TREES["stacked"])
    with source_of(tmp_path / "m.safetensors") as source, pytest.raises(pt.PatternError, match="is all layers"):
        selected(source, "blocks/1/q")


def test_nothing_of_an_empty_file(tmp_path):
    pt.save(tmp_path / "m.safetensors", pt.Tree())
    with source_of(tmp_path / "m.safetensors") as source:
        assert selected(source) == selected(source, "**") == []
        with pytest.raises(pt.PatternError, match="matches nothing in 0 leaves"):
            selected(source, "a")


def test_it_does_not_import_jax(tmp_path):
    pt.save(tmp_path / "m.safetensors", {"a": np.ones(2), "b": np.ones(1)})
    code = (
        "import sys; from ptree.look._sources.selection import selected; from ptree.look._sources.source_of import source_of;"
        "print(selected(source_of(sys.argv[1]), ['**', '!b']), 'jax' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.safetensors")], check=True, capture_output=True, text=True
    )
    assert shown.stdout == "['a'] False\n"
