"""Selection of leaves of a source: of a file what the same selector means in the tree that was saved, without JAX."""

import re
import subprocess
import sys

import numpy as np
import pytest
from trees import TREES, language_model, tied

import ptree as pt
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
