"""Square kernels: no table and no `load` takes one the wrong way round in silence."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree import convert as c

DOES_NOT_TELL = "its shape does not tell whether it is to be transposed"


def numbers(*shape):
    return np.arange(np.prod(shape)).reshape(shape).astype("float32")


QKV = tuple(f"attn/{name}/kernel" for name in "qkv")
SILENT = {
    "weight": ({"a.weight": numbers(4, 4)}, {"*.weight": "*/kernel"}),
    "back to a weight": ({"a/kernel": numbers(4, 4)}, {"*/kernel": "*.weight"}),
    "w of programs": ({"a/w": numbers(4, 4)}, {"*/w": "*/kernel"}),
    "W": ({"a/W": numbers(4, 4)}, {"*/W": "*/kernel"}),
    "nnx": ({"a.weight": numbers(4, 4)}, {"a.weight": "a/kernel/value"}),
    "kernels in a list": ({"a.weight": numbers(4, 4)}, {"a.weight": "a/kernels/0"}),
    "kernels with numbers": ({"a.weight": numbers(4, 4)}, {"a.weight": "a/kernel_0"}),
    "weights": ({"a/weights:0": numbers(4, 4)}, {"*/weights:0": "*/kernel"}),
    "Gluon": ({"dense0_weight": numbers(4, 4)}, {"dense0_weight": "dense/kernel"}),
    "in_proj_weight whole": ({"attn.in_proj_weight": numbers(4, 4)}, {"*.in_proj_weight": "*/qkv/kernel"}),
    "fused, split": ({"attn.in_proj_weight": numbers(12, 4)}, {"attn.in_proj_weight": (*QKV, c.split(3))}),
    "fused, with heads": ({"attn.in_proj_weight": numbers(12, 4)}, {"attn.in_proj_weight": (*QKV, c.split(3) >> c.heads(2))}),
    "heads": ({"q.weight": numbers(4, 4)}, {"q.weight": ("q/kernel", c.heads(2))}),
    "heads in front": ({"o.weight": numbers(4, 4)}, {"o.weight": ("o/kernel", c.heads(2, axis=0))}),
    "stacked": (
        {"h.0.weight": numbers(4, 4), "h.1.weight": numbers(4, 4)},
        {("h.0.weight", "h.1.weight"): ("h/kernel", c.stack(2))},
    ),
    "experts": ({"experts.weight": numbers(3, 4, 4)}, {"experts.weight": "experts/kernel"}),
    "recurrent": ({"rnn.weight_ih_l0": numbers(4, 4)}, {"rnn.weight_ih_l0": "rnn/kernel"}),
    "recurrent, reverse": ({"rnn.weight_hh_l1_reverse": numbers(4, 4)}, {"rnn.weight_hh_l1_reverse": "rnn/recurrent_kernel"}),
    "gates, split": ({"rnn.weight_hh_l0": numbers(12, 4)}, {"rnn.weight_hh_l0": (*QKV, c.split(3))}),
    "direction": ({"a.weight_v": numbers(4, 4)}, {"a.weight_v": "a/kernel"}),
    "spectral norm": ({"a.weight_orig": numbers(4, 4)}, {"a.weight_orig": "a/kernel"}),
    "parametrised": ({"a.parametrizations.weight.original1": numbers(4, 4)}, {"*.parametrizations.weight.original1": "*/kernel"}),
    "weight_norm": (
        {"a.weight_g": numbers(4, 1), "a.weight_v": numbers(4, 4)},
        {("a.weight_g", "a.weight_v"): ("a/kernel", c.weight_norm())},
    ),
    "to w": ({"a.weight": numbers(4, 4)}, {"a.weight": "a/w"}),
    "to w, with heads": ({"a.weight": numbers(4, 4)}, {"a.weight": ("a/w", c.heads(2))}),
    "from w to a weight": ({"a/w": numbers(4, 4)}, {"a/w": "a.weight"}),
    "cast": ({"a.weight": numbers(4, 4)}, {"a.weight": ("a/kernel", c.cast("float32", "float64"))}),
    "convolution": ({"a.weight": numbers(3, 3, 3)}, {"a.weight": "a/kernel"}),
    "squeezed": ({"a.weight": numbers(4, 4, 1)}, {"a.weight": ("a/kernel", c.squeeze(-1))}),
    "Keras' transposed": ({"conv2d_transpose/kernel": numbers(3, 3, 4, 4)}, {"conv2d_transpose/kernel": "up/kernel"}),
}  # fmt: skip


@pytest.mark.parametrize("case", SILENT)
def test_a_table_that_does_not_say_the_layout_is_refused(case):
    source, rows = SILENT[case]
    with pytest.raises(pt.StructureError, match=DOES_NOT_TELL):
        c.Table(rows).apply(source)
    assert not c.Table(rows).plan(source).ok


SAID = {
    "linear": ({"a.weight": numbers(4, 4)}, {"a.weight": ("a/kernel", c.linear)}),
    "as it is": ({"a.weight": numbers(4, 4)}, {"a.weight": ("a/kernel", c.as_is)}),
    "heads of GPT-2": ({"o.weight": numbers(4, 4)}, {"o.weight": ("o/kernel", c.as_is >> c.heads(2, axis=0))}),
    "split of GPT-2": ({"a.weight": numbers(4, 12)}, {"a.weight": (*QKV, c.split(3, axis=1) >> c.heads(2))}),
    "split, turned": ({"a.weight": numbers(12, 4)}, {"a.weight": (*QKV, c.split(3) >> c.linear)}),
    "Haiku's heads": ({"q/w": numbers(4, 4)}, {"q/w": ("q/kernel", c.heads(2))}),
    "left out": ({"a_transpose/kernel": numbers(3, 3, 4, 4), "b": numbers(2)}, {"b": "b", "**": c.carry}),
    "kernels": ({"a/kernel": numbers(4, 4)}, {"a/kernel": "b/kernel"}),
}


@pytest.mark.parametrize("case", SAID)
def test_a_table_that_says_the_layout_runs_both_ways(case):
    source, rows = SAID[case]
    table = c.Table(rows)
    params = table.apply(source)
    back = table.inverse.apply(params, carried=table.carried(source))
    for name, array in source.items():
        np.testing.assert_array_equal(back[name], array)


def test_as_is_in_a_chain_is_kept_in_the_text_of_a_table(tmp_path):
    table = c.Table({"o.weight": ("o/kernel", c.as_is >> c.heads(2, axis=0))})
    assert [*table] == ["'o.weight' -> 'o/kernel', as_is >> heads(2, axis=0)"]
    table.save(tmp_path / "t.json")
    assert c.Table.load(tmp_path / "t.json") == table


FILES = {
    "square": ("fc.weight", numbers(4, 4), "fc/kernel"),
    "in_proj_weight": ("attn.in_proj_weight", numbers(4, 4), "attn/kernel"),
    "convolution": ("conv.weight", numbers(3, 3, 3), "conv/kernel"),
    "experts": ("experts.weight", numbers(3, 4, 4), "experts/kernel"),
    "recurrent": ("rnn.weight_ih_l0", numbers(4, 4), "rnn/kernel"),
    "parametrised": ("a.parametrizations.weight.original1", numbers(4, 4), "a/kernel"),
    "w": ("fc.weight", numbers(4, 4), "fc/w"),
}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("case", FILES)
def test_load_warns_and_the_call_that_it_recommends_runs(case, ending, tmp_path):
    name, array, path = FILES[case]
    file = str(tmp_path / f"m.{ending}")
    c.write(file, {name: array})
    layer, last = path.split("/")
    like = {layer: {last: jnp.zeros(array.shape)}}
    for template in (like, None):
        with pytest.warns(UserWarning, match="these kernels may be transposed") as seen:
            pt.load(file, template, rename={name: path})
        call = re.search(r"ptree[.]convert[.]Table.*?(?=; with)", str(seen[0].message))[0]
        if case != "experts":  # `conv` is not theirs
            turned = eval(call, {"ptree": pt})[path]
            expected = array.T if array.ndim == 2 else array.transpose(2, 1, 0)
            np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("nothing", [c.swap(0, 0), c.permute((0, 1)), c.swap(1, 1) >> c.permute((0, 1))])
def test_an_order_of_axes_that_is_none_does_not_say_the_layout(nothing):
    source = {"fc.weight": numbers(4, 4)}
    with pytest.raises(pt.StructureError, match="does not tell whether it is to be transposed"):
        c.Table({"fc.weight": ("fc/kernel", nothing)}).apply(source)
    for said in (c.swap(0, 1), c.permute((1, 0)), c.as_is >> nothing):
        assert c.Table({"fc.weight": ("fc/kernel", said)}).plan(source).ok
