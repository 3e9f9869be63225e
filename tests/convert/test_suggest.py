"""Proposals of tables: what is certain is right, what is not is marked, over the names of real models and random renamings."""

import re

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from model_names import MODELS, bert, gpt2, mlp

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
    "bert": (47, 53), "gpt2": (52, 52), "gpt2_unfused": (12, 12), "llama": (30, 30), "resnet": (90, 102), "vit": (50, 56),
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


# a failing example is large, and shrinking it takes minutes
@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.generate))
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


# ------------------------------------------------------------------------------- directions


def test_the_direction_of_square_kernels_that_nothing_proves_is_marked():
    source = {"a.weight": np.ones((4, 4), "f4"), "a.bias": np.ones(4, "f4")}
    like = {"a": {"kernel": pt.Param((4, 4)), "bias": pt.Param((4,))}}
    suggestion = c.suggest(source, like)
    assert [*suggestion.table] == ["'a.bias' -> 'a/bias'"]
    (row,) = suggestion.ambiguous
    assert row.doubts == ("the shape does not tell the layout",)
    assert [repr(choice.operation) for choice in (row, *row.alternatives)] == ["as_is", "linear"]


def test_the_class_of_a_module_proves_its_direction():
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(4, 4), "up": torch.nn.ConvTranspose2d(3, 3, 3), "conv": torch.nn.Conv2d(2, 2, 2)}
    )
    source = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    like = {
        "a": {"kernel": pt.Param((4, 4)), "bias": pt.Param((4,))},
        "up": {"kernel": pt.Param((3, 3, 3, 3)), "bias": pt.Param((3,))},
        "conv": {"kernel": pt.Param((2, 2, 2, 2)), "bias": pt.Param((2,))},
    }
    suggestion = c.suggest(module, like)
    params = suggestion.table.apply(source)
    np.testing.assert_array_equal(params["a/kernel"], source["a.weight"].T)
    np.testing.assert_array_equal(params["up/kernel"], source["up.weight"].transpose(2, 3, 0, 1))
    np.testing.assert_array_equal(params["conv/kernel"], source["conv.weight"].transpose(2, 3, 1, 0))
    assert len(c.suggest(source, like).ambiguous) == 3


def test_a_head_of_another_layout_proves_nothing_for_the_blocks():
    shapes = {f"h.{at}.proj.weight": (4, 4) for at in range(3)} | {"head.weight": (9, 4)}
    like = {"h": {":": {"proj": {"kernel": pt.Param((3, 4, 4))}}}, "head": {"kernel": pt.Param((4, 9))}}
    suggestion = c.suggest(drawn(shapes), like)
    assert [*suggestion.table] == ["'head.weight' -> 'head/kernel', linear"]
    assert [row.sources for row in suggestion.ambiguous] == [("h.*.proj.weight",)]


def test_a_stack_is_filled_from_layers_and_a_source_may_be_a_stack():
    shapes, _ = mlp()
    del shapes["0.weight"], shapes["0.bias"], shapes["6.weight"], shapes["6.bias"]
    source = {name: np.ones((64, 32) if "weight" in name else 64, "f4") for name in shapes}
    like = {"blocks": {":": {"kernel": pt.Param((2, 32, 64)), "bias": pt.Param((2, 64))}}}
    suggestion = c.suggest({name.replace("4.", "3."): array for name, array in source.items()}, like)
    assert [*suggestion.table] == [
        "'{2..3}.weight' -> 'blocks/{0..1}/kernel', linear", "'{2..3}.bias' -> 'blocks/{0..1}/bias'"
    ]  # fmt: skip


def test_leftovers_are_named_on_both_sides():
    suggestion = c.suggest(
        {"a.weight": np.ones((4, 8), "f4"), "steps": np.ones(3, "i4")},
        {"a": {"kernel": pt.Param((8, 4))}, "b": pt.Param((5,))},
    )
    assert suggestion.unused == ("steps",)
    assert suggestion.missing == ("b",)
    assert str(suggestion).split("\n")[-2:] == [
        "# not matched in the source, 1: ['steps']", "# not matched in the target, 1: ['b']"
    ]  # fmt: skip


def test_a_fused_projection_of_unknown_order_is_marked():
    shapes = {"attn.qkv.weight": (12, 4)}
    like = {"attn": {name: {"kernel": pt.Param((4, 2, 2))} for name in "qkv"}}
    (row,) = c.suggest(drawn(shapes), like).rows
    assert row.doubts
    assert row.targets == ("attn/q/kernel", "attn/k/kernel", "attn/v/kernel")


def test_the_rows_of_large_models_are_as_few_as_those_of_small_ones():
    for model in (bert, gpt2):
        shapes, truth = model(layers=40)
        source = {name: np.broadcast_to(np.zeros((), "f4"), shape) for name, shape in shapes.items()}
        small, _ = model()
        like = spec_of(truth.apply(source))
        rows = c.suggest(source, like).rows
        assert len(rows) == len(c.suggest(drawn(small), spec_of(truth.apply(drawn(small)))).rows)
