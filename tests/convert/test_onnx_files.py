"""The file that to_onnx writes: names, weights inside and outside, what is refused, and that nothing is left half written."""

from __future__ import annotations

import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import onnx
import pytest
from errors import says
from grids import data, drawn
from onnx_runs import assert_equal, check, initializers, nodes, run, session, spec, symbols

import ptree as pt
from ptree import FileError, convert, nn
from ptree.convert._onnx import model_file

X = data(2, 4)
NET = nn.Sequential(nn.Dense(5), jax.nn.relu, nn.Dense(3))


def params_of(net: Any = NET, x: Any = X) -> pt.Tree:
    return drawn(net, x)


def refusal(f: Any, params: Any, *inputs: Any, **options: Any) -> str:
    with pytest.raises(FileError) as raised:
        convert.to_onnx(f, params, *inputs, **options)
    return str(raised.value)


# --------------------------------------------------------------------------------------- names


def test_inputs_and_outputs_have_the_names_of_arguments_and_keys(tmp_path):
    def f(params, ids, options, *rest):
        return {"logits": ids * params["w"], "state": {"h": options["a"]["b"]}}, rest[0]

    path = tmp_path / "names.onnx"
    written = convert.to_onnx(f, {"w": X}, X, {"a": {"b": X}}, X, path=path)
    assert list(written.inputs) == ["ids", "options/a/b", "input_2"]
    assert list(written.outputs) == ["output_0/logits", "output_0/state/h", "output_1"]
    written = convert.to_onnx(NET, params_of(), X, path=path, input_names=["image"], output_names=["logits"])
    assert (written.inputs, written.outputs) == ({"image": "f32[2,4]"}, {"logits": "f32[2,3]"})
    model = onnx.load(path)
    assert [given.name for given in model.graph.input] == ["image"]
    assert [given.name for given in model.graph.output] == ["logits"]
    assert {"0/kernel", "0/bias", "2/kernel", "2/bias"} <= initializers(path).keys()


def test_names_of_a_dict_input_are_those_of_its_values(tmp_path):
    # JAX sorts the keys of a dict
    f = lambda params, given: given["z"] - 2 * given["a"]
    check(tmp_path / "f.onnx", f, {}, ({"z": X, "a": X + 1},))
    running = session(tmp_path / "f.onnx")
    (got,) = running.run(None, {"given/z": X, "given/a": X + 1})
    assert_equal([got], X - 2 * (X + 1))


def test_none_is_no_input_and_no_output(tmp_path):
    def f(params, x, mask, scale):
        jax.debug.print("{}", x.sum())  # changes no number, and is left out
        return {"y": x * scale if mask is None else x, "cache": None}

    written = convert.to_onnx(f, {"none": None, "rate": 0.5}, X, None, 2.0, path=tmp_path / "f.onnx")
    assert (list(written.inputs), list(written.outputs)) == (["x", "scale"], ["y"])
    assert_equal(session(tmp_path / "f.onnx").run(None, {"x": X, "scale": np.asarray(2, "float32")}), 2 * X)


def test_names_that_clash_or_are_too_few(tmp_path):
    path = tmp_path / "f.onnx"
    assert "got ['x'] twice; give input_names=" in refusal(lambda p, x: p["x"] + x, {"x": X}, X, path=path)
    assert "['a'] twice" in refusal(lambda p, x, y: x + y, {}, X, X, path=path, input_names=["a", "a"])
    assert "each of the 1 inputs in input_names, got ['a', 'b']" in refusal(
        NET, params_of(), X, path=path, input_names=["a", "b"]
    )
    assert "each of the 1 outputs in output_names, got []" in refusal(NET, params_of(), X, path=path, output_names=[])
    assert not os.listdir(tmp_path)


def test_tensors_take_no_name_that_a_parameter_has(tmp_path):
    f = lambda p, x: jnp.tanh(x * p["tanh_1"] + p["constant_1"]) * 3 + p["mul_1"]
    check(tmp_path / "f.onnx", f, {"tanh_1": X, "constant_1": X, "mul_1": X}, (X,))


# --------------------------------------------------------------------------------- what is in it


def test_dead_parameters_and_equations_are_left_out(tmp_path):
    def f(params, x, unused):
        jnp.sin(params["dead"]).sum()
        return x @ params["w"]

    path = tmp_path / "f.onnx"
    written = convert.to_onnx(f, {"w": X.T.copy(), "dead": X, "key": jax.random.key(0)}, X, X, path=path)
    assert initializers(path).keys() == {"w"}
    assert nodes(path) == ["MatMul", "Identity"]
    assert list(written.inputs) == ["x", "unused"]  # who runs it may give all inputs


def test_dropout_without_a_key_is_gone(tmp_path):
    net = nn.Sequential(nn.Dropout(0.5), nn.Dense(3), nn.Dropout(0.5))
    check(tmp_path / "f.onnx", net, params_of(net), (X,))
    assert nodes(tmp_path / "f.onnx") == ["MatMul", "Add", "Identity"]


@pytest.mark.parametrize("kind", ["one array at two places", "a tie", "a tie in a stack"])
def test_a_tied_weight_is_written_once(tmp_path, kind):
    square = data(4, 4)
    if kind == "one array at two places":
        params: Any = {"a": {"w": square}, "b": {"w": square}}
    else:
        params = pt.tie(pt.Tree({"a": {"w": square}, "b": {"w": square}}), {"b/w": "a/w"})
    f = lambda params, x: jnp.tanh(x @ params["a"]["w"]) @ params["b"]["w"]
    written = check(tmp_path / "f.onnx", f, params, (X,))
    assert initializers(tmp_path / "f.onnx").keys() == {"a/w"}
    assert written.weights_inside == square.nbytes


def test_numbers_captured_by_the_function_are_constants(tmp_path):
    large = data(300, 4, 100)
    check(tmp_path / "f.onnx", lambda params, x: (x @ large).sum(0) + jnp.asarray(X).sum(), {}, (X,))
    assert sum(tensor.name.startswith("constant") for tensor in initializers(tmp_path / "f.onnx").values()) >= 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int8", "uint32", "bool"])
def test_dtypes_of_parameters_and_inputs(tmp_path, dtype):
    weight = (10 * data(2, 4)).astype(dtype)
    f = lambda params, x: (params["w"][:1], jnp.where(x > 0, x, x), params["w"] == x)
    check(tmp_path / "f.onnx", f, {"w": weight}, ((10 * X).astype(dtype),))


def test_64_bits(tmp_path):
    f = lambda params, x, ids: (x @ params["w"].T, jnp.log1p(x * x), params["w"][ids], jnp.cumsum(ids))
    weight, ids = data(2, 4).astype("float64"), np.array([1, 0])
    # without x64 JAX computes in 32 bits: the weights are written so, and an input of int64 stays one
    written = convert.to_onnx(f, {"w": weight}, X, ids, path=tmp_path / "32.onnx")
    assert written.inputs == {"x": "f32[2,4]", "ids": "i64[2]"}
    assert_equal(run(tmp_path / "32.onnx", (X, ids)), f({"w": jnp.asarray(weight, "float32")}, X, ids.astype("int32")))
    with jax.enable_x64(True):
        written = check(tmp_path / "64.onnx", f, {"w": weight}, (X.astype("float64"), ids), tolerance=1e-12)
    assert written.inputs == {"x": "f64[2,4]", "ids": "i64[2]"}


def test_parameters_that_32_bits_do_not_hold_are_refused(tmp_path):
    f = lambda params, x: x * params["w"] + params["n"] + params["v"]
    params = {"w": np.float64([1e300]), "n": np.array([2**40]), "v": np.float64([0.1])}
    text = refusal(f, params, np.ones(1, "float32"), path=tmp_path / "f.onnx")
    assert "'w' has 1e+300, which float32 does not hold; set jax_enable_x64 to write it in float64" in text
    assert "'n' has 1099511627776, which int32 does not hold" in text
    assert "'v'" not in text
    with jax.enable_x64(True):
        check(tmp_path / "64.onnx", f, params, (np.ones(1),))


def test_a_bfloat16_model_is_valid(tmp_path):
    # ONNX Runtime's CPU has no kernels for it; the reference implementation of the package onnx computes it
    weight = data(4, 3).astype(ml_dtypes.bfloat16)
    convert.to_onnx(
        lambda params, x: jnp.tanh(x @ params["w"]),
        {"w": weight},
        X.astype(ml_dtypes.bfloat16),
        path=tmp_path / "f.onnx",
    )
    onnx.checker.check_model(tmp_path / "f.onnx", full_check=True)
    (tensor,) = [tensor for tensor in initializers(tmp_path / "f.onnx").values() if tensor.name == "w"]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), weight)


@pytest.mark.parametrize("opset", [18, 19, 20, 21, 22, 23])
def test_versions_of_the_operations(tmp_path, opset):
    net = nn.Sequential(
        nn.Conv(4, (3, 3)),
        nn.BatchNorm(),
        nn.MaxPool((2, 2)),
        nn.AvgPool((2, 2)),
        nn.Flatten(),
        nn.Dense(3),
        jax.nn.softmax,
    )
    x = data(2, 8, 8, 3)
    check(tmp_path / "f.onnx", net, drawn(net, x), (x,), opset=opset)
    assert onnx.load(tmp_path / "f.onnx").opset_import[0].version == opset


def test_an_opset_that_is_too_low_or_not_there(tmp_path):
    for opset in (17, 1000):
        assert "expected an opset from 18 to" in refusal(NET, params_of(), X, path=tmp_path / "f.onnx", opset=opset)


# ------------------------------------------------------------------------------------ refusals


def test_all_that_has_no_onnx_form_is_named_at_once_with_its_line(tmp_path):
    def inner(x):
        return jnp.linalg.cholesky(x @ x.T)

    def f(params, x):
        y = jnp.fft.rfft(x).real
        return inner(x) * params["blocks"]["0"]["w"], jax.lax.scan(lambda c, r: (c, jax.lax.lgamma(r)), x[0], x)[1], y

    path = tmp_path / "f.onnx"
    path.write_bytes(b"the old file")
    text = refusal(f, {"blocks": {"0": {"w": np.ones((2, 2), "float32")}}}, X, path=path)
    head, *problems = text.split("\n")
    assert head == f"cannot write {str(path)!r}: 4 operations have no form in ONNX that ptree writes"
    here = r", at test_onnx_files.py:\d+ in "
    patterns = [
        f"fft{here}.*f",
        f"real{here}.*f",
        f"cholesky{here}.*inner",
        f"lgamma{here}.*, after the parameter 'blocks/0/w'",
    ]
    for pattern, problem in zip(patterns, problems, strict=True):
        assert re.fullmatch(pattern, problem), problem
    assert path.read_bytes() == b"the old file"
    assert os.listdir(tmp_path) == ["f.onnx"]


def test_dropout_with_a_key_is_refused(tmp_path):
    net = nn.Sequential(nn.Dense(4), nn.Dropout(0.5))
    text = refusal(
        lambda params, x, key: net(params, x, key=key), params_of(net), X, jax.random.key(0), path=tmp_path / "f.onnx"
    )
    assert "expected inputs of numbers, as ONNX has them, got key: key<fry>[]" in text
    f = lambda params, x: net(params["net"], x, key=params["key"])
    text = refusal(f, {"net": params_of(net), "key": jax.random.key(0)}, X, path=tmp_path / "f.onnx")
    assert re.fullmatch(
        r"cannot write '.*': an operation has no form in ONNX that ptree writes\n"
        r"random numbers \(give dropout no key, as in inference\), at test_onnx_files.py:\d+ in .*<lambda>"
        r", in Container.apply of ptree.nn, after the parameter 'key'",
        text,
    ), text


def test_symbols_whose_value_no_input_has(tmp_path):
    batch, length = symbols()
    text = refusal(lambda p, x: x, {}, spec(2 * batch, length), path=tmp_path / "f.onnx")
    assert "an axis of the size 'batch' itself" in text


def test_integers_of_which_onnx_has_no_windows(tmp_path):
    whole = np.ones((1, 4, 1), "int32")
    unsigned = whole.astype("uint8")

    def f(params, a, b):
        window = (1, 2, 1)
        convolved = jax.lax.conv_general_dilated(
            a, a[0, :2, :, None], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        total = jax.lax.reduce_window(a, 0, jax.lax.add, window, window, "VALID")
        return convolved, total, jax.lax.reduce_window(b, np.uint8(255), jax.lax.min, window, window, "VALID")

    text = refusal(f, {}, whole, unsigned, path=tmp_path / "f.onnx")
    assert "conv_general_dilated (integers; ONNX has convolutions of floats), at test_onnx_files.py" in text
    assert "reduce_window_sum (sums of integers; ONNX has means of floats)" in text
    assert "reduce_window_min (windows of uint8; ONNX has those of floats, and float64 does not hold them)" in text


def test_numbers_of_less_than_a_byte_are_refused_by_name(tmp_path):
    f = lambda params, x: x * params["q"].astype("float32")
    text = refusal(f, {"q": np.ones((2, 4), ml_dtypes.int4)}, X, path=tmp_path / "f.onnx")
    assert "'q' is of int4, and ONNX packs numbers of less than a byte; cast it" in text
    (tmp_path / "f8.onnx").touch()
    check(tmp_path / "f8.onnx", f, {"q": X.astype(ml_dtypes.float8_e4m3fn)}, (X,))


def test_a_function_without_inputs_or_outputs(tmp_path):
    check(tmp_path / "f.onnx", lambda params: params["w"] * 2, {"w": X}, ())
    assert "a function that returns arrays, got none" in refusal(
        lambda params, x: None, {}, X, path=tmp_path / "g.onnx"
    )


def test_without_the_package(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    says(
        ImportError,
        "to_onnx needs onnx: pip install 'ptree-jax[onnx]'",
        convert.to_onnx,
        NET,
        params_of(),
        X,
        path=tmp_path / "f",
    )


# -------------------------------------------------------------------------------- weights outside


def test_an_onnx_file_points_into_the_safetensors_file(tmp_path):
    params = params_of()
    pt.save(tmp_path / "net.safetensors", params)
    options: dict[str, Any] = {"weights": tmp_path / "net.safetensors"}
    written = check(tmp_path / "net.onnx", NET, params, (X,), **options)
    count = sum(leaf.nbytes for _, leaf in pt.items(params))
    assert (written.weights_inside, written.weights_outside, written.notes) == (0, count, ())
    tensors = initializers(tmp_path / "net.onnx")
    external = {name for name, tensor in tensors.items() if tensor.data_location == onnx.TensorProto.EXTERNAL}
    assert external == set(dict(pt.items(params)))
    # the spec alone, without numbers in memory
    declared = NET.spec(X)
    convert.to_onnx(NET, declared, X, path=tmp_path / "spec.onnx", **options)
    assert_equal(run(tmp_path / "spec.onnx", (X,)), NET(params, X))


def test_weights_in_a_folder_below_and_not_beside(tmp_path):
    params = params_of()
    (tmp_path / "below").mkdir()
    pt.save(tmp_path / "below" / "net.safetensors", params)
    check(tmp_path / "net.onnx", NET, params, (X,), weights=tmp_path / "below" / "net.safetensors")
    (tmp_path / "other").mkdir()
    text = refusal(NET, params, X, path=tmp_path / "other" / "net.onnx", weights=tmp_path / "below" / "net.safetensors")
    assert "ONNX reads weights from its own folder or one below" in text
    assert os.listdir(tmp_path / "other") == []


def test_shards_stacks_and_ties_outside(tmp_path):
    block = nn.Residual(nn.Dense(4))
    layers = nn.Repeat(block, 3, scan=False)
    params = pt.Tree({"layers": params_of(layers), "a": data(4, 4), "b": data(4, 4)})
    params = pt.tie(pt.set(params, "b", params["a"]), {"b": "a"})

    def f(params, x):
        return layers(params["layers"], x) @ params["a"] @ params["b"]

    pt.save(tmp_path / "model.safetensors", pt.stacks.stack(params, "layers"), max_shard_size=100)
    options: dict[str, Any] = {"weights": tmp_path / "model.safetensors.index.json"}
    written = check(tmp_path / "f.onnx", f, params, (X,), tolerance=1e-4, **options)
    assert (written.weights_inside, written.notes) == (0, ())
    # untied in memory, tied in the file; one array in each, so both names point at the same bytes
    written = check(tmp_path / "f.onnx", f, pt.untie(params), (X,), tolerance=1e-4, **options)
    places = {
        tensor.name: [entry.value for entry in tensor.external_data]
        for tensor in initializers(tmp_path / "f.onnx").values()
    }
    assert places["a"] == places["b"]


def test_what_is_stored_in_another_form_is_copied_inside_with_a_note(tmp_path):
    params = {"w": data(4, 3), "b": data(3), "new": data(3)}
    pt.save(tmp_path / "p.safetensors", {"w": params["w"].astype("float16"), "b": params["b"]})
    f = lambda params, x: x @ params["w"] + params["b"] + params["new"]
    written = check(tmp_path / "f.onnx", f, params, (X,), weights=tmp_path / "p.safetensors")
    assert sorted(written.notes) == [
        "'new' is not in the file: copied into the ONNX file",
        "'w' is stored as f16[4,3], and needed as f32[4,3]: copied into the ONNX file",
    ]
    assert (written.weights_inside, written.weights_outside) == (60, 12)
    assert str(written).endswith(written.notes[-1])


def test_a_file_with_other_numbers_is_refused(tmp_path):
    params = params_of()
    pt.save(tmp_path / "net.safetensors", params)
    trained = pt.update(params, "**/bias", lambda leaf: leaf + 1)
    text = refusal(NET, trained, X, path=tmp_path / "f.onnx", weights=tmp_path / "net.safetensors")
    assert "'0/bias' has other numbers there than in the parameters\n'2/bias' has other numbers" in text
    assert "Save these parameters first" in text
    missing = refusal(NET, NET.spec(X), X, path=tmp_path / "f.onnx")
    assert "no numbers for\n'0/bias'" in missing
    pt.save(tmp_path / "part.safetensors", {"0": {"bias": data(5)}})
    text = refusal(NET, NET.spec(X), X, path=tmp_path / "f.onnx", weights=tmp_path / "part.safetensors")
    assert "'0/kernel' is not in the file" in text
    assert not (tmp_path / "f.onnx").exists()


def test_more_than_a_message_holds_is_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "LARGEST_MESSAGE", 3000)
    net = nn.Sequential(nn.Dense(50), nn.Dense(40))
    check(tmp_path / "large.onnx", net, params_of(net), (X,))
    assert sorted(os.listdir(tmp_path)) == ["large.onnx", "large.onnx.data"]
    external = [tensor.name for tensor in initializers(tmp_path / "large.onnx").values() if tensor.external_data]
    assert external == ["1/kernel"]  # small ones stay inside, where readers look for shapes


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.onnx"
    convert.to_onnx(NET, params_of(), X, path=path)
    old = path.read_bytes()

    def broken(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(model_file, "write_all", broken)
    with pytest.raises(OSError, match="no space"):
        convert.to_onnx(NET, params_of(), X, path=path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["net.onnx"]


def test_the_same_function_makes_the_same_bytes(tmp_path):
    for name in "ab":
        convert.to_onnx(NET, params_of(), X, path=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ["net.safetensors", "net.onnx.data"])
def test_a_file_of_weights_is_not_written_over(name, tmp_path, monkeypatch):
    params = params_of()
    pt.save(tmp_path / name, params)
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / name).read_bytes()
    path = f"./{name.removesuffix('.data')}"
    assert "is the file of weights= itself" in refusal(NET, params, X, path=path, weights=tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_the_current_folder_is_no_file():
    assert "'.' is a folder" in refusal(NET, params_of(), X, path=".")


@pytest.mark.parametrize(
    ("f", "hint"),
    [
        (lambda _, x: x.reshape(len(x), 2, 2), "write x.shape[0] for len(x), or -1 for one size"),
        (lambda _, x: sum(x[at] for at in range(x.shape[0])), "or give the input a fixed size"),
        (lambda _, x: x if x.shape[0] > 4 else -x, "constraints=['batch >= 4']"),
    ],
)
def test_errors_of_symbolic_sizes_say_what_to_write(tmp_path, f, hint):
    (batch,) = jax.export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, 4), "float32")
    for export, path in ((convert.to_onnx, "f.onnx"), (convert.to_stablehlo, "f.stablehlo")):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - JAX's own, or ptree's
            export(f, {}, x, path=tmp_path / path)
        said = [str(caught.value), *getattr(caught.value, "__notes__", ())]
        assert hint.lower() in " ".join(said).lower()
        assert not (tmp_path / path).exists()
