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


# ------------------------------------------------------------------- what names and shapes do not prove


@pytest.mark.parametrize("leaf", ["w", "kernel", "weight"])
@pytest.mark.parametrize("name", ["tok_emb", "vocabulary", "codes", "wte", "x"])
def test_the_table_of_an_embedding_proves_nothing_of_weights_beside_it(name, leaf):
    """It stays as it is in all frameworks, whatever it is called, and a Linear of PyTorch beside it does not."""
    source = drawn({f"{name}.weight": (10, 8), "proj.weight": (8, 8), "pos.weight": (16, 8)})
    like = {at: {leaf: pt.Param(shape)} for at, shape in ((name, (10, 8)), ("proj", (8, 8)), ("pos", (16, 8)))}
    suggestion = c.suggest(source, like)
    assert [row.sources for row in suggestion.ambiguous] == [("proj.weight",)]
    (row,) = suggestion.ambiguous
    assert {repr(choice.operation) for choice in (row, *row.alternatives)} == {"as_is", "linear"}


def test_a_matrix_with_a_bias_that_stays_as_it_is_proves_the_layout_of_others():
    source = drawn({"up.w": (8, 12), "up.b": (12,), "proj.w": (8, 8), "proj.b": (8,)})
    like = pt.unflatten({name.replace(".", "/"): pt.Param(array.shape) for name, array in source.items()})
    suggestion = c.suggest(source, like)
    assert suggestion.ambiguous == ()
    assert not wrong_results(suggestion.table, source, {name.replace(".", "/"): x for name, x in source.items()})


def test_convolutions_that_stay_as_they_are_prove_that_others_do():
    source = drawn({"conv1.w": (3, 3, 3, 8), "conv2.w": (3, 3, 3, 3)})
    like = pt.unflatten({name.replace(".", "/"): pt.Param(array.shape) for name, array in source.items()})
    right = {name.replace(".", "/"): array for name, array in source.items()}
    suggestion = c.suggest(source, like)
    assert wrong_results(suggestion.table, source, right) == []
    assert len((suggestion.table | KEEP).apply(source)) == 2


@pytest.mark.parametrize(
    "name",
    [
        "running_std",
        "inv_std",
        "rstd",
        "running_inv_std",
        "moving_std",
        "logvar",
        "log_var",
        "inv_var",
        "spread",
        "var_inv",
    ],
)
def test_a_variance_is_filled_from_a_variance_alone(name):
    source = drawn({"n.running_mean": (6,), f"n.{name}": (6,)})
    like = {"n": {"mean": pt.Param((6,)), "var": pt.Param((6,))}}
    assert [*c.suggest(source, like).table] == ["'n.running_mean' -> 'n/mean'"]
    back = {"n": {"mean": pt.Param((6,)), name: pt.Param((6,))}}
    assert [*c.suggest(drawn({"n.running_mean": (6,), "n.running_var": (6,)}), back).table] == [
        "'n.running_mean' -> 'n/mean'"
    ]
    alike = c.suggest(drawn({f"n.{name}": (6,)}), {"n": {name: pt.Param((6,))}})
    assert [*alike.table] == [f"'n.{name}' -> 'n/{name}'"]


@pytest.mark.parametrize("name", ["log_scale", "inv_scale", "scale_inv"])
def test_a_scale_is_not_filled_from_its_logarithm_or_inverse(name):
    assert [*c.suggest(drawn({f"n.{name}": (6,)}), {"n": {"scale": pt.Param((6,))}}).table] == []


def test_the_moving_averages_of_haiku_are_the_statistics_of_their_names():
    source = drawn({"bn/~/mean_ema/average": (1, 6), "bn/~/var_ema/average": (1, 6)})
    like = {"bn": {"mean": pt.Param((6,)), "var": pt.Param((6,))}}
    rows = c.suggest(source, like).rows
    assert [(row.targets, row.alternatives) for row in rows] == [(("bn/mean",), ()), (("bn/var",), ())]


@pytest.mark.parametrize(("source", "target", "doubt"), [
    ("encoder.l.weight", "decoder/l/kernel", "opposites"), ("a.q_proj.weight", "a/k_proj/kernel", "opposites"),
    ("pre_norm.weight", "post_norm/scale", "opposites"), ("target_net.out.weight", "online/out/kernel", "opposites"),
    ("n.min", "n/max", "opposites"), ("teacher.l.weight", "student/l/kernel", "opposites"),
    ("h.3.weight", "h/4/kernel", "but for a number"), ("fc1.weight", "fc2/kernel", "but for a number"),
    ("exp_avg.l.weight", "l/kernel", "no weight"), ("ema.l.weight", "l/kernel", "no weight"),
    ("q.zero_point", "q/scale", "no weight"), ("n.eps", "n/bias", "no weight"),
])  # fmt: skip
def test_names_that_contradict_each_other_are_in_doubt_whatever_the_shape(source, target, doubt):
    shape = (3, 4) if target.endswith("kernel") else (4,)
    like = pt.unflatten({target: pt.Param(shape), "other/kernel": pt.Param((5, 7))})
    suggestion = c.suggest(drawn({source: shape[::-1], "other.weight": (7, 5)}), like)
    assert [*suggestion.table] == ["'other.weight' -> 'other/kernel', linear"]
    (row,) = suggestion.ambiguous
    assert row.targets == (target,)
    assert doubt in row.doubts[-1]


@pytest.mark.parametrize(("source", "target"), [
    ("layer1.weight", "layers/0/kernel"), ("2.weight", "1/kernel"), ("conv2d_1.weight", "conv/0/kernel"),
    ("ema.l.weight", "ema/l/kernel"), ("encoder.decoder.weight", "decoder/kernel"), ("query.out.weight", "o/kernel"),
])  # fmt: skip
def test_names_that_do_not_contradict_each_other_are_certain_by_the_shape(source, target):
    assert c.suggest(drawn({source: (4, 3)}), pt.unflatten({target: pt.Param((3, 4))})).ambiguous == ()


def test_the_short_names_of_embeddings_say_that_they_are_embeddings():
    source = drawn({"wte.weight": (10, 4), "lm_head.weight": (10, 4)})
    assert [*c.suggest(source, {"embed": {"table": pt.Param((10, 4))}}).table] == ["'wte.weight' -> 'embed/table'"]


def test_layers_of_one_name_are_not_shifted():
    source = drawn({f"h.{at}.weight": (4, 3) for at in range(3)})
    shifted = {"h": {str(at): {"kernel": pt.Param((3, 4))} for at in (1, 2, 3)}}
    (row,) = c.suggest(source, shifted).ambiguous
    assert row.entry[0] == "h.{0..2}.weight"
    renamed = {"blocks": shifted["h"]}
    assert [*c.suggest(source, renamed).table] == ["'h.{0..2}.weight' -> 'blocks/{1..3}/kernel', linear"]


@pytest.mark.parametrize("is_new", [False, True])
def test_weight_norm_of_pytorch_is_a_row_of_magnitude_and_direction(is_new):
    torch = pytest.importorskip("torch")
    norm = torch.nn.utils.parametrizations.weight_norm if is_new else _old_weight_norm(torch)
    modules = {"up": torch.nn.Linear(4, 6), "square": torch.nn.Linear(6, 6), "conv": torch.nn.Conv1d(3, 5, 3)}
    model = torch.nn.ModuleDict({name: norm(module) for name, module in modules.items()})
    model["blocks"] = torch.nn.ModuleList([norm(torch.nn.Linear(6, 7)) for _ in range(3)])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.rand_like(parameter) + 0.5)
    like = {
        "up": {"kernel": pt.Param((4, 6)), "bias": pt.Param((6,))},
        "square": {"kernel": pt.Param((6, 6)), "bias": pt.Param((6,))},
        "conv": {"kernel": pt.Param((3, 3, 5)), "bias": pt.Param((5,))},
        "blocks": {str(at): {"kernel": pt.Param((6, 7)), "bias": pt.Param((7,))} for at in range(3)},
    }
    suggestion = c.suggest(model.state_dict(), like)
    (row,) = suggestion.ambiguous or (None,)
    assert row is None or row.sources[0].startswith("conv") or row.sources[0].startswith("square")
    assert suggestion.unused == suggestion.missing == ()
    params = (suggestion.table | KEEP).apply(model.state_dict())
    for path, module in {**modules, **{f"blocks/{at}": model["blocks"][at] for at in range(3)}}.items():
        if f"{path}/kernel" in params:
            for hook in module._forward_pre_hooks.values():  # which computes the weight in the older form
                hook(module, ())
            weight = module.weight.detach().numpy()
            right = weight.transpose(2, 1, 0) if weight.ndim == 3 else weight.T
            np.testing.assert_allclose(params[f"{path}/kernel"], right, rtol=1e-5, atol=1e-6)
    assert {"up/kernel", "blocks/0/kernel", "blocks/2/kernel"} <= {*params}


def _old_weight_norm(torch):
    def norm(module):
        with pytest.warns(FutureWarning, match="weight_norm"):
            return torch.nn.utils.weight_norm(module)

    return norm


@pytest.mark.parametrize("names", [
    ("weight_orig", "weight_u", "weight_v"), ("weight_orig", "weight_mask"), ("parametrizations.weight.original",),
    ("weight_v",), ("parametrizations.weight.original1",),
])  # fmt: skip
def test_a_weight_that_is_computed_from_others_is_in_doubt(names):
    shapes = {"weight_u": (6,), "weight_mask": (6, 4)}
    source = drawn({f"l.{name}": shapes.get(name, (6, 4)) for name in names})
    if "weight_u" in names:
        source["l.weight_v"] = np.ones(4, "f4")
    suggestion = c.suggest(source, {"l": {"kernel": pt.Param((4, 6)), "bias": pt.Param((6,))}})
    assert [*suggestion.table] == []
    (row,) = suggestion.ambiguous
    assert row.sources == (f"l.{names[0]}",)
    assert "the weight is computed from this array and others" in row.doubts[-1]


def test_parts_of_weights_that_the_target_has_too_are_plain():
    source = drawn({"l.weight_g": (6, 1), "l.weight_v": (6, 4)})
    suggestion = c.suggest(source, {"l": {"weight_g": pt.Param((6, 1)), "weight_v": pt.Param((6, 4))}})
    assert [*suggestion.table] == ["'l.weight_{g,v}' -> 'l/weight_{g,v}'"] or len(suggestion.table.rows) == 2


def test_the_direction_of_a_weight_norm_is_proven_by_weights_and_said():
    source = drawn({"up.weight": (8, 4), "q.weight_g": (4, 1), "q.weight_v": (4, 4)})
    like = {"up": {"kernel": pt.Param((4, 8))}, "q": {"kernel": pt.Param((4, 4))}}
    norm = "'q.weight_g', 'q.weight_v' -> 'q/kernel', weight_norm() >> linear"
    assert [*c.suggest(source, like).table] == ["'up.weight' -> 'up/kernel', linear", norm]
    del source["up.weight"], like["up"]
    (row,) = c.suggest(source, like).ambiguous
    assert {repr(choice.operation) for choice in (row, *row.alternatives)} == {
        "weight_norm() >> as_is",
        "weight_norm() >> linear",
    }


def test_values_and_gates_are_no_weight_norm():
    source = drawn({"a.proj_g": (6, 1), "a.proj_v": (6, 4)})
    rows = c.suggest(source, {"a": {"proj_g": pt.Param((6, 1)), "proj_v": pt.Param((6, 4))}}).rows
    assert "weight_norm" not in repr(rows)


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_tied_head_has_a_row_where_the_target_has_a_head(is_tied, tmp_path):
    table = drawn({"wte": (10, 8)})["wte"]
    c.write(tmp_path / "m.pt", {"wte.weight": table, "lm_head.weight": table})
    like = {"wte": {"embedding": pt.Param((10, 8))}, "lm_head": {"kernel": pt.Param((8, 10))}}
    if is_tied:
        like = pt.tie(pt.Tree(like), {"lm_head/kernel": pt.transposed("wte/embedding")})
    suggestion = c.suggest(tmp_path / "m.pt", like)
    assert [*suggestion.table] == ["'wte.weight' -> 'wte/embedding'", "'lm_head.weight' -> 'lm_head/kernel', linear"]
    assert suggestion.unused == suggestion.missing == ()
    assert suggestion.table.plan(tmp_path / "m.pt", like).ok
    plain = c.suggest({"wte.weight": table, "lm_head.weight": table.copy()}, like)
    assert plain.table.plan({"wte.weight": table, "lm_head.weight": table.copy()}, like).ok


def test_counters_of_batches_have_a_row():
    source = drawn({"bn.running_mean": (6,)}) | {f"{at}.num_batches_tracked": np.array(3) for at in ("bn", "a.b")}
    suggestion = c.suggest(source, {"bn": {"mean": pt.Param((6,))}})
    assert suggestion.unused == ()
    assert '"**.num_batches_tracked": convert.fill(dtype=' in str(suggestion)
    assert suggestion.table.plan(source).ok


def test_all_that_an_array_may_fill_is_an_alternative_and_only_beside_its_siblings():
    """The norms of BERT's blocks beside `ln1` and `ln2`, whose numbers are no layers."""
    block = {"output.dense.weight": (8, 24), "output.dense.bias": (8,)}
    for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
        block |= {f"{norm}.weight": (8,), f"{norm}.bias": (8,)}
    source = {f"layer.{at}.{name}": np.zeros(shape) for at in range(3) for name, shape in block.items()}
    source |= {"final.weight": np.zeros(8), "final.bias": np.zeros(8)}
    ours = {"down": {"kernel": pt.Param((24, 8)), "bias": pt.Param((8,))}}
    ours |= {norm: {"scale": pt.Param((8,)), "bias": pt.Param((8,))} for norm in ("ln1", "ln2")}
    norms = {name: {"scale": pt.Param((8,)), "bias": pt.Param((8,))} for name in ("begin", "end")}
    suggestion = c.suggest(source, pt.Tree({"blocks": {str(at): ours for at in range(3)}, **norms}))
    choices = {
        row.sources: [row.targets, *(other.targets for other in row.alternatives)] for row in suggestion.ambiguous
    }
    for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
        for name, leaf in (("weight", "scale"), ("bias", "bias")):
            found = choices[(f"layer.*.{norm}.{name}",)]
            assert sorted(found) == [(f"blocks/*/ln1/{leaf}",), (f"blocks/*/ln2/{leaf}",)]
    assert "'layer.*.output.dense.bias' -> 'blocks/*/down/bias'" in list(suggestion.table)
    assert sorted(choices[("final.bias",)]) == [("begin/bias",), ("end/bias",)]
    assert suggestion.missing == ()


def test_layers_of_one_numbered_name_are_the_same_layer():
    """`ln1` and `ln2` in a block, in layers of other names here."""
    source = {
        f"blocks.{at}.{norm}.{name}": np.zeros(8)
        for at in range(2)
        for norm in ("ln1", "ln2")
        for name in ("weight", "bias")
    }
    norm = {"scale": pt.Param((8,)), "bias": pt.Param((8,))}
    block = {"a": {"ln1": norm}, "b": {"ln2": norm}}
    suggestion = c.suggest(source, pt.Tree({"blocks": {"0": block, "1": block}}))
    assert not suggestion.ambiguous
    assert "'blocks.*.ln2.weight' -> 'blocks/*/b/ln2/scale'" in list(suggestion.table)
    # a name that stands there twice, or another one, says nothing
    twice = {"a": {"ln1": norm}, "b": {"ln1": norm}}
    assert len(c.suggest(source, pt.Tree({"blocks": {"0": twice, "1": twice}})).ambiguous) == 4
    other = {"a": {"norm1": norm}, "b": {"norm2": norm}}
    assert len(c.suggest(source, pt.Tree({"blocks": {"0": other, "1": other}})).ambiguous) == 4


def test_the_weight_of_a_norm_over_several_axes_is_a_scale():
    names = ("blocks.0.norm1", "final_norm", "LayerNorm_0", "head.ln")
    source = {f"{name}.{leaf}": np.zeros((6, 4), "f4") for name in names for leaf in ("weight", "bias")}
    paths = {name: name.replace(".", "/") for name in names}
    like = pt.unflatten({f"{paths[name]}/{leaf}": pt.Param((6, 4)) for name in names for leaf in ("scale", "bias")})
    suggestion = c.suggest(source, like)
    assert not suggestion.ambiguous
    plan = suggestion.table.plan(source, like)
    assert plan.ok
    assert not plan.missing
    # a projection behind a norm has a matrix
    matrix = c.suggest({"norm_proj.weight": np.zeros((6, 4))}, {"norm_proj": {"scale": pt.Param((6, 4))}})
    assert not matrix.table
    assert matrix.unused == ("norm_proj.weight",)
