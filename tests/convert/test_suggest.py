"""Proposals of tables: what is certain is right, what is not is marked, over the names of real models and random renamings."""

import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_names import MODELS

import ptree as pt
from ptree import convert as c

KEEP = c.Table({"**": c.carry})


def drawn(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def spec_of(params):
    return pt.unflatten({name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in params.items()})


def wrong_results(table, source, right):
    """The leaves that a table gives otherwise than the right one."""
    results = (table | KEEP).apply(source)
    return [name for name, array in results.items() if name not in right or not np.array_equal(array, right[name])]


def right_choice(row, source, right):
    """The row, or the one of its alternatives, that gives the right numbers; None if it is none of them."""
    for choice in (row, *row.alternatives):
        if not wrong_results(c.Table([choice.entry]), source, right):
            return choice
    return None


# ------------------------------------------------------------------------------- real models

# how many leaves of how many are certain
CERTAIN = {
    "bert": (47, 53), "gpt2": (52, 52), "gpt2_unfused": (12, 12), "llama": (30, 30), "resnet": (90, 102), "vit": (56, 56),
    "keras_cnn": (10, 14), "autoencoder": (4, 8), "lenet": (9, 10), "mlp": (8, 8), "mlp_of_names": (4, 8),
    "flax_transformer": (25, 25), "lstm": (0, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_what_is_certain_is_right_and_the_right_choices_complete_it(name):
    shapes, truth = MODELS[name]()
    source = drawn(shapes)
    right = truth.apply(source)
    suggestion = c.suggest(source, spec_of(right))
    assert wrong_results(suggestion.table, source, right) == []
    assert (len((suggestion.table | KEEP).apply(source)), len(right)) == CERTAIN[name]
    if name == "lstm":  # the order of gates is for the user to say
        return
    choices = [right_choice(row, source, right) for row in suggestion.ambiguous]
    rows = [row.entry for row in suggestion.rows if not row.doubts] + [choice.entry for choice in choices if choice]
    carried = [(name, c.carry) for name in suggestion.unused]
    whole = c.Table([*rows, *carried]).apply(source, like=spec_of(right))
    for path, array in right.items():
        np.testing.assert_array_equal(np.asarray(whole[path]), array, err_msg=path)


@pytest.mark.parametrize("name", MODELS)
def test_the_text_is_code_that_makes_the_table(name):
    shapes, truth = MODELS[name]()
    source = drawn(shapes)
    suggestion = c.suggest(source, spec_of(truth.apply(source)))
    for width in (40, 80, 120):
        names = {}
        exec(suggestion.text(width), names)
        assert names["table"] == suggestion.table
        # what is a comment is a row too, once it is uncommented
        rows = re.sub(r"^    # ", "    ", suggestion.text(width), flags=re.M)
        if not suggestion.ambiguous:
            continue
        exec(rows, names)
        assert len(names["table"]) > len(suggestion.table)
    assert max(map(len, str(suggestion).split("\n"))) <= 120
    assert str(suggestion) == suggestion.text(80)


# ------------------------------------------------------------------------------- random names

WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_renaming_of_a_source_makes_a_wrong_row_certain(data):
    name = data.draw(st.sampled_from([*MODELS]))
    shapes, truth = MODELS[name]()
    source = drawn(shapes)
    right = truth.apply(source)
    words = sorted({word for path in shapes for word in re.split(r"[./]", path) if not word.isdigit()})
    renamed_words = data.draw(st.lists(st.sampled_from(words), unique=True))
    new_words = data.draw(st.lists(WORDS, min_size=len(renamed_words), max_size=len(renamed_words), unique=True))
    renaming = dict(zip(renamed_words, new_words, strict=True))
    renamed = {
        re.sub(r"[^./]+", lambda match: renaming.get(match[0], match[0]), path): array for path, array in source.items()
    }
    names = data.draw(st.permutations([*renamed])) if data.draw(st.booleans()) else [*renamed]
    suggestion = c.suggest({path: renamed[path] for path in names}, spec_of(right))
    assert wrong_results(suggestion.table, renamed, right) == [], str(suggestion)
