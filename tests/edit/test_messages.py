"""What a mistaken call says: another order of arguments, other spellings of a path, values of another kind; what it recommends works."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says

import ptree as pt

PARAMS = {"enc": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
BOTH = pytest.mark.parametrize("tree", [pt.Tree(PARAMS), PARAMS], ids=["Tree", "dict"])


@BOTH
@pytest.mark.parametrize(
    "call",
    [
        lambda tree: pt.get("enc/kernel", tree),
        lambda tree: pt.set("enc/kernel", tree, 1),
        lambda tree: pt.put("enc/kernel", tree, 1),
        lambda tree: pt.stacks.stack("enc", tree),
        lambda tree: pt.set(tree, jnp.zeros(3), "enc/bias"),
        lambda tree: pt.items("**", tree),
        lambda tree: pt.select("**", tree),
        lambda tree: pt.mask("**", tree),
        lambda tree: pt.drop("**", tree),
        lambda tree: pt.update("enc/kernel", tree, abs),
    ],
)
def test_arguments_in_another_order_are_called_so(tree, call):
    with pytest.raises(pt.PtreeError, match=r"[Tt]he tree comes first, and then the (path|selector)"):
        call(tree)


def test_a_tree_in_the_place_of_rules_or_ties_is_called_so():
    tree = pt.Tree(PARAMS)
    says(pt.PatternError, "rules are a dict, selector -> value; got a Tree. The tree comes first, and then the rules",
         pt.label, {"**": 1}, tree)  # fmt: skip
    says(pt.PatternError, "rules are a dict, selector -> value; got a Tree. The tree comes first, and then the rules",
         pt.explain, {"**": 1}, tree)  # fmt: skip
    says(pt.TieError, "the ties are a dict, alias -> source; got a Tree. The tree comes first, and then the ties",
         pt.tie, {"a": "b"}, tree)  # fmt: skip
    says(pt.TieError, "cannot tie 'w': expected the path of its source, or ptree.transposed(path), got f32[2]."
         " The order is tie(tree, table)", pt.tie, {"a": "b"}, {"w": jnp.ones(2)})  # fmt: skip
    says(pt.StructureError, "update takes a function of a leaf, got 'enc/kernel'; the order is update(tree, selector, function)",
         pt.update, tree, abs, "enc/kernel")  # fmt: skip
    says(pt.StructureError, "cannot scan with a Tree: the order is scan(function, carry, layers)",
         pt.stacks.scan, tree, lambda carry, layer: (carry, None), 1)  # fmt: skip


@BOTH
@pytest.mark.parametrize(
    "path", ["enc.kernel", "['enc']['kernel']", "enc['kernel']", "enc[kernel]", '["enc"]["kernel"]', ".enc.kernel"]
)
def test_another_spelling_of_a_path_suggests_it(tree, path):
    says(
        pt.PathError,
        f"no path {path!r}: its segments are joined by '/'. Did you mean 'enc/kernel'?",
        pt.get,
        tree,
        path,
    )


def test_slashes_for_the_dots_in_names_suggest_the_names():
    tree = pt.Tree({"h.0.w": 1, "h.1.w": 2, "head.w": 3, "model": {"fc.w": 4}})
    dots = "the names there have dots in them"
    says(pt.PathError, f"no path 'h/0/w': {dots}. Did you mean 'h.0.w'?", pt.get, tree, "h/0/w")
    says(pt.PathError, f"no path 'model/fc/w': {dots}. Did you mean 'model/fc.w'?", pt.get, tree, "model/fc/w")
    for pattern, meant in (
        ("h/0/w", "h.0.w"), ("h/*/w", "h.*.w"), ("h", "h.*"), ("h/**", "h.*"), ("**/w", "*.w"), ("model/fc", "model/fc.*"),
        ("model/*/w", "model/*.w"), ("h/{0..1}/w", "h.{0..1}.w"), ("!head/w", "head.w"),
    ):  # fmt: skip
        text = f"the pattern {pattern.removeprefix('!')!r} matches nothing: {dots}. Did you mean {meant!r}?"
        says(pt.PatternError, text, pt.items, tree, ["**", pattern])
        assert pt.items(tree, meant)
    plain = pt.Tree({"h": {"0": {"w": 1}}})
    text = "the pattern 'h.*.w' matches nothing: segments are joined by '/'. Did you mean 'h/*/w'?"
    says(pt.PatternError, text, pt.items, plain, "h.*.w")


@BOTH
def test_a_path_as_a_sequence_of_keys_is_written_out(tree):
    (keys, _), *_ = jax.tree_util.tree_flatten_with_path(tree)[0]
    for path in [("enc", "bias"), ["enc", "bias"], keys]:
        with pytest.raises(
            pt.PathError, match=r"a path is a string such as 'blocks/3/kernel', or an int. Write 'enc/bias'"
        ):
            pt.get(tree, path)
    with pytest.raises(pt.PathError, match=r"Write 'blocks/3/w'"):
        pt.set(tree, ("blocks", 3, "w"), 1)


def test_names_with_dots_and_brackets_are_still_names():
    assert pt.get({"enc.kernel": 1, "layer[0]": 2}, "layer[0]") == 2
    says(pt.PathError, "no path 'enc.bais': at the root there are ['enc.bias']. Did you mean 'enc.bias'?",
         pt.get, {"enc.bias": 1}, "enc.bais")  # fmt: skip


def test_no_message_prints_an_array():
    for path in [PARAMS, [jnp.ones(3)], (np.ones(3), "a"), {"a": [jnp.ones(2)]}]:
        with pytest.raises(pt.PathError) as raised:
            pt.get(pt.Tree(PARAMS), path)
        assert "1." not in str(raised.value)


VALUES = {
    "another dtype": (np.zeros(3), "To keep the dtype, cast the value with .astype('float32').", lambda value: value.astype("float32")),
    "an int array": (jnp.arange(3), "To keep the dtype, cast the value with .astype('float32').", lambda value: value.astype("float32")),
    "a number": (1.0, "For an array of this number write jnp.full((3,), 1.0, 'float32').", lambda value: jnp.full((3,), 1.0, "float32")),
    "a bool": (True, "For an array of this number write jnp.full((3,), True, 'float32').", lambda value: jnp.full((3,), True, "float32")),
    "a list": ([1, 2, 3], "Convert it with jnp.asarray(value, 'float32').", lambda value: jnp.asarray(value, "float32")),
}  # fmt: skip


@BOTH
@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
def test_a_value_of_another_kind_says_how_to_convert_it_and_that_works(tree, case):
    value, advice, convert = case
    with pytest.raises(pt.StructureError) as raised:
        pt.set(tree, "enc/bias", value)
    assert f". {advice} Use ptree.put to replace it" in str(raised.value)
    assert pt.get(pt.set(tree, "enc/bias", convert(value)), "enc/bias").dtype == jnp.float32


@BOTH
def test_arrays_that_read_the_same_say_of_which_library_they_are(tree):
    torch = pytest.importorskip("torch")
    says(pt.StructureError, "cannot set 'enc/bias': expected f32[3] (jax.Array), got f32[3] (torch.Tensor)."
         " Convert it with jnp.asarray(value, 'float32'). Use ptree.put to replace it by something of another shape or dtype.",
         pt.set, tree, "enc/bias", torch.zeros(3))  # fmt: skip
    other = pt.put(tree, "enc/bias", torch.zeros(3))
    says(pt.StructureError, "the tree is not like `like`: 'enc/bias': expected f32[3] (torch.Tensor) in `like`,"
         " got f32[3] (jax.Array) in the tree.", pt.check, tree, other)  # fmt: skip
    assert (pt.set(tree, "enc/bias", jnp.asarray(torch.ones(3), "float32"))["enc"]["bias"] == 1).all()


ON_PURPOSE = (
    "To change shapes or dtypes, write chosen, rest = ptree.partition(tree, selector), and then"
    " ptree.merge(jax.tree.map(function, chosen), rest)."
)


def changed_on_purpose(tree, selector, function):
    """What the message of `update` recommends."""
    chosen, rest = pt.partition(tree, selector)
    return pt.merge(jax.tree.map(function, chosen), rest)


@BOTH
@pytest.mark.parametrize("selector", ["enc/bias", "**/bias", ["**", "!**/kernel"]])
def test_update_that_changes_the_dtype_says_how_to_keep_and_how_to_change_it(tree, selector):
    def half(b):
        return b.astype(jnp.bfloat16)

    says(pt.StructureError, "cannot update 'enc/bias': expected f32[3], got bf16[3]. To keep the dtype, cast the result with"
         f" .astype('float32'). {ON_PURPOSE}", pt.update, tree, selector, half)  # fmt: skip
    kept = pt.update(tree, selector, lambda b: half(b).astype("float32"))
    assert pt.get(kept, "enc/bias").dtype == jnp.float32
    changed = changed_on_purpose(tree, selector, half)
    assert type(changed) is type(tree)
    assert {path: leaf.dtype.name for path, leaf in pt.items(changed)} == {
        "enc/kernel": "float32",
        "enc/bias": "bfloat16",
    }


@BOTH
def test_update_that_changes_the_shape_says_how_to_change_it(tree):
    says(pt.StructureError, f"cannot update 'enc/kernel': expected f32[2,3], got f32[3,2]. {ON_PURPOSE}",
         pt.update, tree, "enc/kernel", jnp.transpose)  # fmt: skip
    assert pt.get(changed_on_purpose(tree, "enc/kernel", jnp.transpose), "enc/kernel").shape == (3, 2)


def test_update_of_single_layers_says_that_they_have_one_dtype():
    stacked = pt.stacks.stack(pt.Tree({"blocks": [{"w": jnp.ones(2)}] * 3}), "blocks")
    says(pt.StructureError, "cannot update 'blocks/1/w': expected f32[2], got bf16[2]. To keep the dtype, cast the result with"
         " .astype('float32'). One layer of a stack cannot have a shape or dtype of its own: ptree.stacks.unstack it first.",
         pt.update, stacked, "blocks/1/w", lambda w: w.astype("bfloat16"))  # fmt: skip
    whole = changed_on_purpose(stacked, "blocks/*/w", lambda w: w.astype("bfloat16"))
    assert whole["blocks/1/w"].dtype == jnp.bfloat16


def test_what_update_recommends_keeps_ties_and_stacks():
    tree = {"embed": jnp.ones((5, 3)), "head": {"kernel": jnp.ones((3, 5))}, "blocks": [{"w": jnp.ones(2)}] * 3}
    tree = pt.stacks.stack(pt.tie(tree, {"head/kernel": pt.transposed("embed")}), "blocks")
    changed = changed_on_purpose(tree, "{embed,blocks}", lambda w: w.astype("bfloat16"))
    assert pt.ties(changed) == pt.ties(tree)
    assert changed["head/kernel"].dtype == changed["blocks/2/w"].dtype == jnp.bfloat16


def test_a_new_name_beside_the_layers_of_a_stack_is_refused():
    tree = pt.stacks.stack(pt.Tree({"blocks": [{"w": jnp.ones(2)}] * 3}), "blocks")
    says(pt.StructureError, "cannot put 'blocks/a': 'blocks' is a stack of 3 layers. A leaf of all its layers is at 'blocks/:/a',"
         " with an axis for the layers in front", pt.put, tree, "blocks/a", jnp.ones(3))  # fmt: skip
    assert pt.put(tree, "blocks/:/a", jnp.ones(3))["blocks/1/a"] == 1


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("kernel", "**/kernel"),
        ("attn/q", "**/attn/q"),
        ("attn/q/kernel", "**/attn/q/kernel"),
        ("atn/q/kernel", "**/attn/q/kernel"),
        ("attn/q/kernal", "**/attn/q/kernel"),
        ("attn/{q,k}", "**/attn/{q,k}"),
    ],
)
def test_a_pattern_that_begins_in_the_middle_of_a_path_is_told_its_beginning(pattern, meant):
    tree = pt.Tree({"blocks": [{"attn": {"q": {"kernel": 1}, "k": {"kernel": 2}}}]})
    with pytest.raises(pt.PatternError) as raised:
        pt.items(tree, pattern)
    assert f"Did you mean '{meant}'?" in str(raised.value)
    assert pt.items(tree, meant)
