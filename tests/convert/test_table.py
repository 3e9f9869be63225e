"""Tables: rows that run both ways, plans that say everything, trees that are filled or left alone."""

import re
from collections import OrderedDict

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from flax import nnx

import ptree as pt
from ptree import convert as c
from ptree.convert import Table


def numbers(*shape, dtype="float32", start=0):
    return np.arange(start, start + np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


BLOCKS = Table({"layers.*.weight": ("blocks/*/kernel", c.linear), "layers.*.bias": "blocks/*/bias"})


def pytorch_like(count=3, features=4):
    source = {}
    for at in range(count):
        source[f"layers.{at}.weight"] = numbers(features, features, start=100 * at)
        source[f"layers.{at}.bias"] = numbers(features, start=1000 * at)
    return source


def spec_of_blocks(count=3, features=4):
    block = {"kernel": pt.Param((features, features)), "bias": pt.Param((features,))}
    return pt.Tree({"blocks": {str(at): block for at in range(count)}})


def same_arrays(one, other):
    assert list(one) == list(other) or sorted(one) == sorted(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)
        assert array.dtype == other[name].dtype


# ------------------------------------------------------------------------------- both ways


def test_a_table_fills_a_tree_and_its_inverse_writes_the_names_back():
    source = pytorch_like()
    params = BLOCKS.apply(source, like=spec_of_blocks())
    assert isinstance(params, pt.Tree)
    assert isinstance(params["blocks/1/kernel"], jax.Array)
    np.testing.assert_array_equal(params["blocks/1/kernel"], source["layers.1.weight"].T)
    same_arrays(BLOCKS.inverse.apply(params), source)
    assert BLOCKS.inverse.inverse == BLOCKS


def test_the_same_table_fills_a_stack_and_reads_one():
    source = pytorch_like()
    stacked = pt.stacks.stack(spec_of_blocks(), "blocks")
    params = BLOCKS.apply(source, like=stacked)
    chex.assert_trees_all_equal(params, pt.stacks.stack(BLOCKS.apply(source, like=spec_of_blocks()), "blocks"))
    same_arrays(BLOCKS.inverse.apply(params), source)


def test_a_pattern_that_spells_the_stack_takes_it_whole():
    stacked = pt.stacks.stack(BLOCKS.apply(pytorch_like(), like=spec_of_blocks()), "blocks")
    table = Table({"blocks/:/kernel": ("all.weight", c.linear), "blocks/:/bias": "all.bias"})
    written = table.apply(stacked)
    assert {name: array.shape for name, array in written.items()} == {
        "all.weight": (3, 4, 4), "all.bias": (3, 4)
    }  # fmt: skip
    chex.assert_trees_all_equal(table.inverse.apply(written, like=stacked), stacked)


def test_a_fused_array_is_split_and_joined():
    table = Table(
        {
            "attn.in_proj_weight": (
                "attn/q/kernel",
                "attn/k/kernel",
                "attn/v/kernel",
                c.split(3) >> c.linear >> c.heads(2),
            )
        }
    )
    source = {"attn.in_proj_weight": numbers(12, 4)}
    params = table.apply(source)
    assert {name: array.shape for name, array in params.items()} == dict.fromkeys(
        ["attn/q/kernel", "attn/k/kernel", "attn/v/kernel"], (4, 2, 2)
    )
    np.testing.assert_array_equal(params["attn/k/kernel"].reshape(4, 4), source["attn.in_proj_weight"][4:8].T)
    same_arrays(table.inverse.apply(params), source)


def test_braces_of_as_many_choices_correspond_by_position():
    table = Table({"{query,key,value}.{weight,bias}": "{q,k,v}/{w,b}", "h.{0..2}.x": "layers/{1..3}/x"})
    source = {"key.weight": numbers(2), "value.bias": numbers(3), "h.0.x": numbers(1), "h.2.x": numbers(4)}
    params = table.apply(source)
    assert [*params] == ["k/w", "v/b", "layers/1/x", "layers/3/x"]
    same_arrays(table.inverse.apply(params), source)


def test_several_segments_correspond_to_several():
    table = Table({"model.**.weight": "params/**/w"})
    source = {"model.a.b.weight": numbers(2), "model.weight": numbers(3)}
    assert [*table.apply(source)] == ["params/a/b/w", "params/w"]
    same_arrays(table.inverse.apply(table.apply(source)), source)


def test_the_first_row_that_matches_takes_a_name():
    table = Table({"a.special": "b/first", "a.*": "b/*", "*.special": "other/*"})
    assert [*table.apply({"a.plain": numbers(1), "a.special": numbers(1), "c.special": numbers(1)})] == [
        "b/plain", "b/first", "other/c"
    ]  # fmt: skip


def test_names_with_slashes_and_dots_keep_their_dots():
    table = Table({"params/layers_0.x/kernel": "a/b.c"})
    source = {"params/layers_0.x/kernel": numbers(2)}
    params = table.apply(source)
    assert [*params] == ["a/b.c"]
    same_arrays(table.inverse.apply(params), source)


def test_names_that_differ_in_dots_and_slashes_alone_are_two():
    source = {"a/b": numbers(2), "a.b": numbers(3), "a.c": numbers(4)}
    table = Table({"a/b": "x", "a.b": "y", "a.c": "z"})
    params = table.apply(source)
    assert {name: array.size for name, array in params.items()} == {"x": 2, "y": 3, "z": 4}
    same_arrays(table.inverse.apply(params, like=source), source)
    says(
        pt.StructureError,
        "cannot convert a dict: no row takes 'a.c' of the source. A row `name: carry` keeps an array to write it back, `name:"
        " fill(0)` leaves it out. Other names in the source have slashes, so that a dot in 'a.c' is a character of it: a row of"
        " this very name takes it, or a pattern such as 'a?c'.",
        Table({"a/b": "x", "a.b": "y", "a.*": "z/*"}).apply, source,
    )  # fmt: skip
    assert Table({"a/b": "x", "a?b": "y?b", "a?c": "z?c"}).plan(source).ok


def test_rows_that_write_dots_and_slashes_are_refused_without_like():
    table = Table({"a": "m.x", "b": "n/y"})
    source = {"a": numbers(2), "b": numbers(3)}
    says(
        pt.StructureError,
        "cannot convert a dict: the rows write names with dots, such as 'm.x', and names with slashes, such as 'n/y': write all"
        " in one way, or give `like`, whose names they then get.",
        table.apply, source,
    )  # fmt: skip
    assert [*table.apply(source, like={"m.x": numbers(2), "n.y": numbers(3)})] == ["m.x", "n.y"]
    like = pt.Tree({"m": {"x": pt.Param((2,))}, "n": {"y": pt.Param((3,))}})
    assert pt.paths(table.apply(source, like=like)) == ["m/x", "n/y"]


# ---------------------------------------------------------------------- what is on one side alone


def test_what_is_carried_is_written_back():
    table = BLOCKS | Table({"pooler.**": c.carry, "*.position_ids": c.carry})
    source = {
        **pytorch_like(),
        "pooler.dense.weight": numbers(2, 2),
        "embeddings.position_ids": numbers(1, 8, dtype="int64"),
    }
    params = table.apply(source, like=spec_of_blocks())
    carried = table.carried(source)
    assert [*carried] == ["pooler.dense.weight", "embeddings.position_ids"]
    same_arrays(table.inverse.apply(params, carried=carried), source)
    same_arrays(table.inverse.apply(params, carried={}), pytorch_like())


def test_arrays_that_were_kept_are_not_left_out_in_silence():
    table = BLOCKS | Table({"pooler.**": c.carry, "mask": c.carry})
    source = {**pytorch_like(), "pooler.bias": numbers(2), "mask": numbers(3)}
    params, carried = table.apply(source), table.carried(source)
    not_given = (
        "the arrays that `carry` kept are not given: ['pooler.**', 'mask']. carried=table.carried(source) writes"
    )
    with pytest.raises(pt.StructureError, match=re.escape(not_given)):
        table.inverse.apply(params)
    plan = table.inverse.plan(params)
    assert not plan.ok
    assert not_given in plan.text(200)
    assert table.inverse.plan(params, carried=carried).ok
    with pytest.raises(pt.StructureError, match=re.escape("no row writes back what carried has: ['typo']")):
        table.inverse.apply(params, carried={**carried, "typo": numbers(2)})
    with pytest.raises(
        pt.StructureError, match=re.escape("carried has no 'mask', which the row () -> 'mask', write_back")
    ):
        table.inverse.apply(params, carried={"pooler.bias": numbers(2)})
    plan = table.inverse.plan(params, carried={"mask": numbers(3)})
    assert plan.ok
    assert "() -> 'pooler.**', write_back" in plan.idle_rows


LAYERS = Table({"l.*.w": "l/*/w", "l.*.b": "l/*/b", "l.*.mask": c.carry, "pooler.*": c.carry})


def of_layers(numbers_of_layers, *names):
    return {f"l.{at}.{name}": numbers(2, start=at) for at in numbers_of_layers for name in names}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((0,), "'l.*.mask' is there for ['l.0'], and not for ['l.1', 'l.2'] as 'l.*.w' is."),
        ((0, 2), "'l.*.mask' is there for ['l.0', 'l.2'], and not for ['l.1'] as 'l.*.w' is."),
        ((9,), "and not for ['l.0', 'l.1', 'l.2'] as 'l.*.w' is; 'l.*.w' is not there for ['l.9']."),
        ((0, 1, 2, 3), "'l.*.w' is not there for ['l.3']."),
        ((0, 1, 2), None),
        ((), None),
    ],
)
def test_what_is_carried_for_some_layers_only_is_a_warning(given, said):
    params = LAYERS.apply(of_layers(range(3), "w", "b"))
    carried = of_layers(given, "mask")
    plan = LAYERS.inverse.plan(params, carried=carried)
    assert plan.ok
    if said is None:
        assert plan.partial_layers == ()
        assert LAYERS.inverse.apply(params, carried=carried).keys() == {*of_layers(range(3), "w", "b"), *carried}
        return
    assert len(plan.partial_layers) == 1
    with pytest.warns(UserWarning, match=re.escape(said)) as record:
        back = LAYERS.inverse.apply(params, carried=carried)
    assert [warning.filename for warning in record] == [__file__]
    assert back.keys() == {*of_layers(range(3), "w", "b"), *carried}


def test_layers_that_are_right_to_differ_are_no_warning():
    # as of batch norms between convolutions: another array is in the same layers; and a row that names its layers
    table = Table({"*.weight": "*/w", "*.running_mean": "*/mean", "*.num_batches_tracked": c.carry})
    source = {f"{at}.weight": numbers(2) for at in range(6)}
    source |= {f"{at}.{name}": numbers(2) for at in (1, 4) for name in ("running_mean", "num_batches_tracked")}
    same_arrays(table.inverse.apply(table.apply(source), carried=table.carried(source)), source)
    table = Table({"l.*.w": "l/*/w", "l.[02].mask": c.carry})
    source = of_layers(range(3), "w") | of_layers((0, 2), "mask")
    same_arrays(table.inverse.apply(table.apply(source), carried=table.carried(source)), source)
    table = Table({"*.l.*.w": "*/l/*/w", "*.l.*.mask": c.carry})  # of an encoder, and not of a decoder
    source = {f"{part}.{name}": array for part in "ed" for name, array in of_layers(range(2), "w").items()}
    source |= {f"e.{name}": array for name, array in of_layers(range(2), "mask").items()}
    same_arrays(table.inverse.apply(table.apply(source), carried=table.carried(source)), source)


def test_a_whole_stack_that_is_carried_has_as_many_layers_as_the_others():
    table = Table({"b/:/w": "b/:/w", "b/:/mask": c.carry})
    params = table.apply(pt.unflatten({"b/:/w": numbers(4, 2), "b/:/mask": numbers(4, 2)}))
    assert table.inverse.apply(params, carried={"b/:/mask": numbers(4, 2)})["b/:/mask"].shape == (4, 2)
    with pytest.warns(UserWarning, match=re.escape("and not for ['b/3'] as 'b/*/w' is")):
        table.inverse.apply(params, carried={"b/:/mask": numbers(3, 2)})


def test_a_plan_says_which_rows_take_some_layers_only():
    table = Table({"l.*.w": "l/*/w", "l.*.b": "l/*/b"})
    source = of_layers(range(3), "w") | of_layers((0, 2), "b")
    plan = table.plan(source)
    assert plan.ok
    assert "in some layers only: 'l/*/b' is there for ['l/0', 'l/2'], and not for ['l/1'] as 'l/*/w' is" in plan.text(
        200
    )
    table.apply(source)  # without a warning: a model may be so
    assert not table.plan(of_layers(range(3), "w", "b")).partial_layers


def test_constants_are_written_where_their_names_are_known():
    params = {f"bn/{at}/scale": numbers(2) for at in range(2)}
    rows = {"bn.*.weight": "bn/*/scale"}
    by_range = Table({**rows, "bn.{0..1}.num_batches_tracked": c.fill(0, dtype="int64")})
    back = by_range.inverse.apply(params)
    assert back["bn.1.num_batches_tracked"].dtype == np.int64
    assert [*back] == ["bn.0.weight", "bn.1.weight", "bn.0.num_batches_tracked", "bn.1.num_batches_tracked"]
    by_star = Table({**rows, "bn.*.num_batches_tracked": c.fill(0, dtype="int64")})
    with pytest.warns(
        UserWarning, match=re.escape("nothing says for which names: [\"() -> 'bn.*.num_batches_tracked'")
    ):
        by_star.inverse.apply(params)
    assert "() -> 'bn.*.num_batches_tracked', constant(dtype='int64')" in by_star.inverse.plan(params).idle_rows
    same_arrays(by_star.inverse.apply(params, like=back), back)


def test_a_tied_tensor_needs_no_row_and_is_not_kept_in_silence():
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"wte": torch.nn.Embedding(4, 3), "head": torch.nn.Linear(3, 4, bias=False)})
    module["head"].weight = module["wte"].weight
    for source in (module, module.state_dict()):
        assert Table({"wte.weight": "embed"}).plan(source).ok
        plan = Table({"wte.weight": "embed", "head.weight": c.carry}).plan(source)
        assert "'head.weight' is tied to 'wte.weight' in the source, and would be written back as it was" in plan.text(
            200
        )
    apart = {"wte.weight": torch.ones(4, 3), "head.weight": torch.ones(4, 3)}
    assert Table({"wte.weight": "embed"}).plan(apart).unused == ("head.weight",)
    parts = torch.ones(8, 3)  # halves, and the same memory transposed, are other arrays
    for other in (parts[4:], parts[:4].T, parts[:3]):
        assert not Table({"a": "a"}).plan({"a": parts[:4], "b": other}).ok


@pytest.mark.parametrize("given", ["wte.weight", "head.weight"])
def test_tied_names_of_a_module_are_filled_from_the_one_that_has_a_row(given):
    torch = pytest.importorskip("torch")
    module = torch.nn.ModuleDict({"wte": torch.nn.Embedding(4, 3), "head": torch.nn.Linear(3, 4, bias=True)})
    module["head"].weight = module["wte"].weight
    params = {"embed": numbers(4, 3), "bias": numbers(4)}
    table = Table({given: "embed", "head.bias": "bias"}).inverse
    for like in (module, module.state_dict()):
        assert table.plan(params, like=like).ok
        state = table.apply(params, like=like)
        assert [*state] == ["wte.weight", "head.weight", "head.bias"]
        assert type(state) is (dict if like is module else OrderedDict)
    module.load_state_dict(state)
    np.testing.assert_array_equal(module["wte"].weight.detach().numpy(), params["embed"])
    both = Table({"wte.weight": "embed", "head.weight": "head", "head.bias": "bias"}).inverse
    both.apply({**params, "head": params["embed"].copy()}, like=module)
    says(
        pt.StructureError,
        "cannot fill `like`: 'wte.weight' and 'head.weight' are tied in `like` and get different values",
        both.apply, {**params, "head": numbers(4, 3, start=1)}, like=module,
    )  # fmt: skip
    with pytest.raises(pt.StructureError, match=re.escape("missing from the source: ['wte.weight']")):
        Table({"head.bias": "bias"}).inverse.apply({"bias": numbers(4)}, like=module)


def test_the_first_row_of_carry_and_of_a_constant_writes_back():
    table = Table({"a.*": "x/*", "b.*": c.carry, "**": c.carry})
    source = {"a.w": numbers(2), "b.w": numbers(3), "c": numbers(4)}
    same_arrays(table.inverse.apply(table.apply(source), carried=table.carried(source)), source)
    table = Table({"a.*": "x/*", "**": c.fill(0, shape=(3,))})
    like = {"a.w": numbers(2), "b.w": numbers(3)}
    same_arrays(table.inverse.apply(table.apply(like), like=like), {"a.w": numbers(2), "b.w": np.zeros(3, "f4")})


@pytest.mark.parametrize(
    ("rows", "names", "lost"),
    [
        ([("*.w", "x/*"), ("special", "x/a")], ["b.w", "special"], ("special",)),
        ({"a.*": "x/*", "b.*": "x/*"}, ["a.c", "b.d"], ("b.d",)),
        ([("a", ("x/k", "x/v", c.split(2))), ("b.*", "x/*")], ["a", "b.q"], ()),
        ([("b.*", "x/*"), ("a", ("x/k", "x/v", c.split(2)))], ["a", "b.q"], ("a",)),
        ({"a.*": "x/*", "b.*": c.carry}, ["a.c", "b.d"], ()),
    ],
)
def test_names_that_would_not_come_back_are_marked_in_the_plan(rows, names, lost):
    table, source = Table(rows), {name: numbers(4) for name in names}
    plan = table.plan(source)
    assert plan.not_written_back == lost
    assert ("not written back by the inverse under this name" in str(plan)) == bool(lost)
    assert plan.ok
    back = table.inverse.apply(table.apply(source), carried=table.carried(source))
    assert (sorted(back) == sorted(source)) == (not lost)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_plan_is_as_wide_as_it_may_be(width):
    block = "transformer.encoder.a_rather_long_name_of_a_block.attention.in_proj"
    source = {f"{block}.{at}.weight": numbers(4, 4) for at in range(12)} | {
        f"{block}.bias": numbers(4),
        "left": numbers(1),
    }
    target = block.replace(".", "/")
    table = Table(
        {f"{block}.*.weight": f"{target}/*/kernel", f"{block}.bias": (f"{target}/bias", c.as_is >> c.heads(2))}
    )
    plan = table.plan(source, {target: {"bias": pt.Param((3,))}})
    text = plan.text(width)
    assert max(map(len, text.splitlines())) <= width
    flat = "".join(text.split())
    for part in (
        f"{block}.*.weight",
        f"{target}/*/kernel",
        "as_is>>heads(2)",
        "leftoverinthesource",
        "12times",
        "linear",
    ):
        assert part in flat
    assert text != plan.text(200)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("1", "2", "3"), "; missing from the source: ['0']; not in `like`: ['3']"),
        (("0", "2"), "; missing from the source: ['1']"),
        (("00", "01", "02"), "; missing from the source: ['0', '1', '2']; not in `like`: ['00', '01', '02']"),
        (("0", "1"), "; missing from the source: ['2']"),
        (("0", "1", "2", "3"), "; not in `like`: ['3']"),
    ],
)
def test_layers_that_do_not_fit_a_stack_are_named(names, said):
    table, like = Table({"l.*.w": "l/*/w"}), {"l": {":": {"w": pt.Param((3, 2))}}}
    sentence = f"the stack 'l' of `like` has the layers 0 to 2{said}"
    plan = table.plan({f"l.{name}.w": numbers(2) for name in names}, like)
    assert sentence in plan.text(200).splitlines()
    assert not plan.ok
    with pytest.raises(pt.StructureError, match=re.escape(sentence)):
        table.apply({f"l.{name}.w": numbers(2) for name in names}, like)
    right = {f"l.{name}.w": numbers(2) for name in "012"}
    assert table.plan(right, like).problems == ()
    assert table.plan({**right, "l.1.w": numbers(3)}, like).problems


def test_sources_are_named_in_plain_words():
    with pytest.raises(
        pt.StructureError, match=r"expected i32\[2\] in `like`, got f32\[2\] in the source. cast=True changes"
    ):
        Table({"a": "b"}).apply({"a": numbers(2)}, like={"b": np.zeros(2, "int32")}, cast=True)
    with pytest.raises(pt.StructureError, match="cannot convert an OrderedDict: no row takes 'b'"):
        Table({"a": "c"}).apply(OrderedDict(a=numbers(2), b=numbers(2)))
    for source in (3, numbers(2)):
        with pytest.raises(pt.StructureError, match=r"the source is .* without a name: expected a dict, name -> array"):
            Table({"a": "b"}).apply(source)
    with pytest.raises(pt.FileError, match=r"'a' is datetime64\[D\]\[1\], which is no dtype of parameters"):
        Table({"a": "b"}).apply({"a": np.array(["2020-01-01"], "M8[D]")})


def test_misfits_of_layers_are_one_line():
    table = Table({"l.*.w": ("l/*/w", c.as_is), "l.*.b": "l/*/b"})
    source = {f"l.{at}.{name}": numbers(4) for at in range(12) for name in "wb"}
    like = {"l": {str(at): {"w": jnp.zeros(3), "b": jnp.zeros(4)} for at in range(12)}}
    like["l"]["11"]["w"] = jnp.zeros(5)
    assert table.plan(source, like).text().splitlines()[2:] == [
        "l/*/w x11: expected f32[3] in `like`, got f32[4]",
        "l/11/w: expected f32[5] in `like`, got f32[4]",
    ]


def test_an_array_of_a_split_is_not_lost_to_another():
    with pytest.raises(pt.PatternError, match="the name 'b' stands there twice"):
        Table({"a": ("b", "b", c.split(2))})
    with pytest.raises(pt.PatternError, match="the name 'b/c' stands there twice"):
        Table({"a": ("b/c", "b.c", c.split(2))})
    with pytest.raises(pt.PatternError, match="the name 'a' stands there twice"):
        Table({("a", "a"): ("b", c.summed())})
    table = Table({"a.*.*": ("x/*/*", "x/*/{v,w}", c.split(2))})
    with pytest.raises(pt.StructureError, match=r"several arrays of the row .* become 'x/b/v'"):
        table.apply({"a.b.v": numbers(4)})


def test_a_constant_is_left_out_and_written_again():
    table = Table({"*.running_mean": "*/mean", "*.num_batches_tracked": c.fill(0, "int64")})
    source = {"bn.running_mean": numbers(4), "bn.num_batches_tracked": np.array(7)}
    params = table.apply(source)
    assert [*params] == ["bn/mean"]
    back = table.inverse.apply(params, like={"bn.running_mean": numbers(4), "bn.num_batches_tracked": np.array(1)})
    assert back["bn.num_batches_tracked"] == 0


def test_what_goes_one_way_is_marked_in_the_plan():
    table = Table({("a.bias_ih", "a.bias_hh"): ("a/bias", c.summed())})
    plan = table.plan({"a.bias_ih": numbers(4), "a.bias_hh": numbers(4)})
    assert str(plan) == "a.bias_ih  f32[4]  ->  a/bias  f32[4]  summed()  (one way)\na.bias_hh  f32[4]  ->"
    written = table.inverse.apply({"a/bias": numbers(4)})
    same_arrays(written, {"a.bias_ih": numbers(4), "a.bias_hh": np.zeros(4, "f4")})


# ---------------------------------------------------------------------------------- ties


def tied_spec():
    tree = pt.Tree({"wte": {"table": pt.Param((5, 3))}, "head": {"kernel": pt.Param((3, 5))}})
    return pt.tie(tree, {"head/kernel": pt.transposed("wte/table")})


HEAD = Table({"wte.weight": "wte/table", "head.weight": ("head/kernel", c.linear)})


def test_a_tied_head_may_be_absent_or_equal():
    table = numbers(5, 3)
    for source in ({"wte.weight": table}, {"wte.weight": table, "head.weight": table}, {"head.weight": table}):
        params = HEAD.apply(source, like=tied_spec())
        np.testing.assert_array_equal(params["wte/table"], table)
        assert pt.ties(params) == pt.ties(tied_spec())
    same_arrays(HEAD.inverse.apply(params), {"wte.weight": table, "head.weight": table})


def test_tied_names_with_different_values_are_one_error():
    source = {"wte.weight": numbers(5, 3), "head.weight": numbers(5, 3, start=1)}
    says(
        pt.StructureError,
        "cannot convert a dict: 'head/kernel', f32[3,5], and 'transposed(wte/table)', f32[3,5], are tied in `like` and"
        " differ in the source, by up to 1",
        HEAD.apply, source, like=tied_spec(),
    )  # fmt: skip


# ----------------------------------------------------------------------------- plans and errors


def test_a_plan_shows_everything_before_anything_is_done():
    table = Table({
        "layers.*.weight": ("blocks/*/kernel", c.linear), "layers.*.bias": "blocks/*/bias", "norm.weight": "norm/scale",
        "pooler.*": c.carry,
    })  # fmt: skip
    source = {**pytorch_like(12), "norm.weight": numbers(4), "pooler.bias": numbers(2), "extra": numbers(1)}
    like = pt.merge(spec_of_blocks(12), pt.Tree({"norm": {"scale": pt.Param((5,)), "bias": pt.Param((5,))}}))
    plan = table.plan(source, like)
    assert not plan.ok
    assert plan.text(80).splitlines() == [
        "layers.*.weight  f32[4,4]  ->  blocks/*/kernel  f32[4,4]  linear  x12",
        "layers.*.bias    f32[4]    ->  blocks/*/bias    f32[4]    x12",
        "norm.weight      f32[4]    ->  norm/scale       f32[4]",
        "pooler.bias      f32[2]    ->                             carry",
        "kept to be written back, 1: ['pooler.bias']",
        "left over in the source, 1: ['extra']",
        "missing for `like`, 1: ['norm/bias']",
        "norm/scale: expected f32[5] in `like`, got f32[4]",
    ]
    assert max(map(len, plan.text(40).splitlines())) <= 52  # a line holds at least a name and a shape


def test_all_problems_are_one_error_and_nothing_is_changed():
    like = spec_of_blocks(2)
    source = {"layers.0.weight": numbers(4, 5), "layers.0.bias": numbers(4, dtype="float64"), "other": numbers(1)}
    says(
        pt.StructureError,
        "cannot convert a dict:\n"
        "  'blocks/0/bias': expected f32[4] in `like`, got f64[4] from the source\n"
        "  'blocks/0/kernel': expected f32[4,4] in `like`, got f32[5,4] from the source\n"
        "  missing from the source: ['blocks/1/bias', 'blocks/1/kernel']\n"
        "  no row takes 'other' of the source\n"
        "A row `name: carry` keeps an array to write it back, `name: fill(0)` leaves it out.",
        BLOCKS.apply, source, like=like,
    )  # fmt: skip


def test_a_square_kernel_is_not_taken_as_it_is_in_silence():
    silent = Table({"a.weight": "a/kernel"})
    source = {"a.weight": numbers(4, 4)}
    says(
        pt.StructureError,
        "cannot convert a dict: 'a.weight' [4, 4] becomes 'a/kernel', and its shape does not tell whether it is to be"
        " transposed: say `linear` or `conv` in its row, or `as_is`.",
        silent.apply, source,
    )  # fmt: skip
    with pytest.raises(pt.StructureError, match="does not tell"):
        silent.inverse.apply({"a/kernel": numbers(4, 4)})
    said = Table({"a.weight": ("a/kernel", c.as_is)})
    np.testing.assert_array_equal(said.apply(source)["a/kernel"], source["a.weight"])
    assert silent.apply({"a.weight": numbers(4)})["a/kernel"].shape == (4,)
    for shape in ((3, 3, 3, 3), (1, 1, 1, 1)):  # kernels of convolutions whose shape fits both
        with pytest.raises(pt.StructureError, match=r"does not tell|expected"):
            silent.apply({"a.weight": numbers(*shape)}, like={"a": {"kernel": pt.Param(shape)}})


def test_two_names_that_become_one_are_refused():
    table = Table({"a.x": "t/x", "b.*": "t/*"})
    says(
        pt.StructureError,
        "cannot convert a dict: 'a.x' and 'b.x' both become 't/x'.",
        table.apply, {"a.x": numbers(1), "b.x": numbers(1)},
    )  # fmt: skip


def test_a_part_of_what_a_row_joins_is_refused():
    table = Table({("*.q", "*.k"): ("*/qk", c.concatenate(2))})
    assert table.apply({"0.q": numbers(2), "0.k": numbers(2)})["0/qk"].shape == (4,)
    says(
        pt.StructureError,
        "cannot convert a dict: the row '*.q', '*.k' -> '*/qk', concatenate(2) takes '0.q' together with '0.k', which the"
        " source lacks.",
        table.apply, {"0.q": numbers(2)},
    )  # fmt: skip


def test_values_that_do_not_fit_an_operation_are_refused_together():
    table = Table({"*.bias": ("*.b_ih", "*.b_hh", c.zero_fill())}).inverse
    ones = {"0.b_ih": numbers(2), "0.b_hh": np.ones(2), "1.b_ih": numbers(2), "1.b_hh": np.ones(2)}
    ones = {name: array.astype("f4") for name, array in ones.items()}
    with pytest.raises(pt.StructureError) as raised:
        table.apply(ones)
    assert str(raised.value).count("is not zero") == 2


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float16"), ("float64", "float16")])
def test_layers_of_several_dtypes_are_cast_into_a_stack(dtypes, tmp_path):
    source = pytorch_like(2)
    for at, dtype in enumerate(dtypes):
        source[f"layers.{at}.weight"] = source[f"layers.{at}.weight"].astype(np.dtype(jnp.dtype(dtype)))
    like = pt.stacks.stack(spec_of_blocks(2), "blocks")
    with pytest.raises(pt.StructureError):
        BLOCKS.apply(source, like)
    params = BLOCKS.apply(source, like, cast=True)
    assert params["blocks/:/kernel"].dtype == jnp.float32
    for at in range(2):
        expected = source[f"layers.{at}.weight"].astype("float32").T
        np.testing.assert_array_equal(params["blocks/:/kernel"][at], expected)
    layers = {f"blocks/{at}/kernel": source[f"layers.{at}.weight"].T for at in range(2)}
    file = tmp_path / "m.safetensors"
    pt.save(file, pt.unflatten({**layers, "blocks/0/bias": numbers(4), "blocks/1/bias": numbers(4)}))
    loaded = pt.load(file, like, cast=True)
    np.testing.assert_array_equal(loaded["blocks/:/kernel"], params["blocks/:/kernel"])


def test_a_number_that_a_stack_does_not_hold_is_found_in_its_layer():
    source = {"l.0.w": numbers(2, dtype="float16"), "l.1.w": np.array([1e6, 1], "float32")}
    like = {"l": {":": {"w": jax.ShapeDtypeStruct((2, 2), "float16")}}}
    with pytest.raises(
        pt.StructureError, match=r"'l/1/w' has 1000000.0 in the source, which f16 in `like` does not hold"
    ):
        Table({"l.*.w": "l/*/w"}).apply(source, like, cast=True)


def test_axes_in_another_order_are_a_hint_of_an_operation(tmp_path):
    like = {"a": {"kernel": pt.Param((3, 4))}}
    hint = "'a/kernel' has its axes in another order: a row of ptree.convert.Table puts them right, such as with"
    with pytest.raises(pt.StructureError, match=re.escape(f"{hint} ptree.convert.linear,")):
        Table({"a.weight": "a/kernel"}).apply({"a.weight": numbers(4, 3)}, like)
    c.write(tmp_path / "m.pt", {"a.weight": numbers(4, 3)})
    with pytest.raises(pt.StructureError, match=re.escape(f"{hint} ptree.convert.linear,")):
        pt.load(tmp_path / "m.pt", like, rename={"a.weight": "a/kernel"})
    with pytest.raises(pt.StructureError) as raised:
        Table({"a.weight": "a/kernel"}).apply({"a.weight": numbers(4, 5)}, like)
    assert "another order" not in str(raised.value)


def test_casts_are_said():
    table = Table({"w": "w"})
    like = {"w": pt.Param((3,), "bfloat16")}
    with pytest.raises(pt.StructureError, match="expected bf16"):
        table.apply({"w": numbers(3)}, like=like)
    assert table.apply({"w": numbers(3)}, like=like, cast=True)["w"].dtype == jnp.bfloat16
    with pytest.raises(pt.StructureError, match=r"1.00000002"):
        table.apply({"w": np.array([1e20, 0, 0], "f4")}, like={"w": pt.Param((3,), "float16")}, cast=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a.*": "b/c"}, "the wildcards of 'b/c' do not correspond to those of 'a.*' one to one, in order"),
        ({"a.**": "b/*"}, "the wildcards of 'b/*' do not correspond to those of 'a.**'"),
        (
            {"a": ("b", "c")},
            "as_is changes one array, and the row has 1 name on the left and 2 on the right: say one that splits",
        ),
        (
            {"a": ("b", "linear")},
            "'linear' is read as the name of a leaf, and the operation is ptree.convert.linear, without quotes",
        ),
        ({"a": ("b", "weight_norm")}, "the operation is ptree.convert.weight_norm, without quotes"),
        ({"a": ("b", "axes")}, "say one that splits or joins them, such as split(3)"),
        ({"a": ("b", c.split(3))}, "split(3) takes 1 name on the left and 3 on the right, and the row has 1"),
        ({"a": (c.linear, "b")}, "expected patterns, then at most one operation"),
        ({"a": 3}, "expected patterns, then at most one operation"),
        ({"a[": "b"}, "bad pattern 'a['"),
        ({"a/{b/c,d}": "a/{b/c,d}"}, "braces that hold a whole path cannot be written back"),
        ({"{a,b}.w": "{x,y,z}/w"}, "nothing that the wildcards of '{a,b}.w' stand for is in those of '{x,y,z}/w'"),
        ({"[ab].w": "[xy]/w"}, "nothing that the wildcards of '[ab].w' stand for is in those of '[xy]/w'"),
        ({"{a{b,c},d}.w": "{x{b,c},z}/w"}, "nothing that the wildcards of '{a{b,c},d}.w' stand for"),
        ({"{0..3}.w": "{x,y}/w"}, "nothing that the wildcards of '{0..3}.w' stand for"),
        ("a -> b", "a table is a dict, names of the source -> names of the target; got 'a -> b'"),
    ],
)
def test_rows_that_make_no_sense_are_refused(rows, message):
    with pytest.raises(pt.PatternError) as raised:
        Table(rows)
    assert message in str(raised.value)


def test_wildcards_that_have_something_in_common_stay():
    for rows in (
        {"{a,b}.w": "{b,c,d}/w"},
        {"[0-9].w": "[0-5]/w"},
        {"*.w": "{x,y}/w"},
        {"{a{b,c},d}.w": "{a{b,c},d}/w"},
    ):
        assert len(Table(rows)) == 1


def test_an_operation_in_quotes_is_found():
    with pytest.raises(pt.PatternError, match=re.escape("the operation is ptree.convert.heads(4), without quotes")):
        Table({"a": ("b", "heads(4)")})


def test_a_matrix_that_is_transposed_in_like_is_told_the_operation():
    table, like = Table({"fc.weight": "fc/kernel"}), {"fc": {"kernel": pt.Param((3, 4))}}
    with pytest.raises(pt.StructureError, match=r"such as with ptree\.convert\.linear"):
        table.apply({"fc.weight": numbers(4, 3)}, like)
    with pytest.raises(pt.StructureError) as caught:
        table.apply({"fc.weight": numbers(4, 5)}, like)
    assert "linear" not in str(caught.value)


def test_a_table_of_which_nothing_matches_says_what_its_rows_are_for():
    table = Table({"c.kernel": "c/kernel", "d.kernel": "d/kernel"})
    with pytest.raises(pt.StructureError, match=r"they are for \['c.kernel', 'd.kernel'\]. .* names= says what layers"):
        table.apply({"seq.c.kernel": numbers(2), "seq.d.kernel": numbers(2)})


def test_all_rows_that_make_no_sense_are_listed():
    with pytest.raises(pt.PatternError) as raised:
        Table({"a.*": "b", "c": ("d", "e"), "fine": "fine"})
    assert len(str(raised.value).splitlines()) == 2


# ---------------------------------------------------------------------------- sources of all kinds


class Net(eqx.Module):
    layers: list
    activation: object = jax.nn.relu


def test_modules_and_states_of_other_frameworks_are_sources_and_targets():
    net = Net([eqx.nn.Linear(4, 4, key=jax.random.key(0)), eqx.nn.Linear(4, 4, key=jax.random.key(1))])
    params = BLOCKS_OF_LAYERS.apply(net, like=spec_of_blocks(2))
    np.testing.assert_array_equal(params["blocks/1/kernel"], net.layers[1].weight.T)
    again = BLOCKS_OF_LAYERS.inverse.apply(params, like=net)
    assert isinstance(again, Net)
    assert again.activation is net.activation
    chex.assert_trees_all_equal(eqx.filter(again, eqx.is_array), eqx.filter(net, eqx.is_array))

    layer = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
    state = nnx.state(layer)
    table = Table({"kernel": ("a/kernel", c.as_is), "bias": "a/bias"})
    params = table.apply(nnx.to_pure_dict(state))
    np.testing.assert_array_equal(params["a/kernel"], layer.kernel[...])


BLOCKS_OF_LAYERS = Table({"layers/*/weight": ("blocks/*/kernel", c.linear), "layers/*/bias": "blocks/*/bias"})


def test_modules_and_state_dicts_of_pytorch_are_sources_and_targets():
    torch = pytest.importorskip("torch")
    net = torch.nn.ModuleDict({"layers": torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))})
    for source in (net, net.state_dict()):
        params = BLOCKS.apply(source, like=spec_of_blocks())
        np.testing.assert_array_equal(params["blocks/2/kernel"], net["layers"][2].weight.detach().numpy().T)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    state = BLOCKS.inverse.apply(doubled, like=net.state_dict())
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    before = net["layers"][2].weight.detach().clone()
    net.load_state_dict(state)
    assert torch.equal(net["layers"][2].weight, 2 * before)


def test_tensors_of_narrow_dtypes_come_through():
    torch = pytest.importorskip("torch")
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64):
        source = {"w": torch.ones(2, 3).to(dtype)}
        table = Table({"w": ("v", c.linear)})
        back = table.inverse.apply(table.apply(source), like=source)
        assert torch.equal(back["w"].view(torch.uint8), source["w"].contiguous().view(torch.uint8))


def test_files_are_sources(tmp_path):
    pt.save(tmp_path / "m.safetensors", pytorch_like())
    params = BLOCKS.apply(tmp_path / "m.safetensors", like=spec_of_blocks())
    chex.assert_trees_all_equal(params, BLOCKS.apply(pytorch_like(), like=spec_of_blocks()))
    with pt.open(tmp_path / "m.safetensors") as file:
        assert BLOCKS.plan(file).ok
    with pytest.raises(FileNotFoundError):
        BLOCKS.apply(tmp_path / "none.safetensors")
    pt.save(tmp_path / "stacked.safetensors", pt.stacks.stack(params, "blocks"))
    same_arrays(BLOCKS.inverse.apply(tmp_path / "stacked.safetensors"), pytorch_like())


def test_a_spec_can_be_planned_but_not_converted():
    table = BLOCKS.inverse
    assert table.plan(spec_of_blocks()).ok
    with pytest.raises(pt.FileError, match="not drawn yet"):
        table.apply(spec_of_blocks())


@pytest.mark.parametrize("source", [{}, 3.0, jax.nn.relu, {"f": jax.nn.relu}, None, []])
def test_what_holds_no_array_is_no_source(source):
    with pytest.raises(pt.PtreeError):
        BLOCKS.apply(source)


def test_arrays_are_not_copied_where_nothing_changes_them():
    source = {"w": numbers(4)}
    assert Table({"w": "v"}).apply(source)["v"] is source["w"]


def test_a_table_prints_itself():
    assert repr(BLOCKS) == (
        "Table(\n  'layers.*.weight' -> 'blocks/*/kernel', linear\n  'layers.*.bias' -> 'blocks/*/bias'\n)"
    )
    assert len(BLOCKS) == 2
    assert hash(BLOCKS) == hash(BLOCKS.inverse.inverse)


def test_what_is_filled_shares_no_memory_with_the_source():
    torch = pytest.importorskip("torch")  # whose memory is aligned so that JAX would use it
    table = Table({"w": "w", "v": ("v", c.linear)})
    source = {"w": torch.zeros(4096), "v": torch.zeros(64, 64)}
    for like in (
        {"w": pt.Param((4096,)), "v": pt.Param((64, 64))},
        {"w": np.zeros(4096, "f4"), "v": np.zeros((64, 64), "f4")},
    ):
        params = table.apply(source, like=like)
        source["w"] += 1
        source["v"] += 1
        assert not np.asarray(params["w"]).any()
        assert not np.asarray(params["v"]).any()
        source["w"] -= 1
        source["v"] -= 1


def test_checkpoints_of_orbax_are_sources(tmp_path):
    ocp = pytest.importorskip("orbax.checkpoint")
    params = BLOCKS.apply(pytorch_like(), like=spec_of_blocks())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "by_orbax", pt.asdict(params))
    with pt.Checkpoints(tmp_path / "run", backend="orbax") as checkpoints:
        checkpoints.save(1, params)
    for folder in ("by_orbax", "run/step_1"):
        same_arrays(BLOCKS.inverse.apply(tmp_path / folder), pytorch_like())
        assert sorted(c.read(tmp_path / folder)) == sorted(pt.paths(params))
