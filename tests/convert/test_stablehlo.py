"""Programs that to_stablehlo writes, run in a process that has JAX and safetensors and cannot import ptree."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import flax.linen as linen
import haiku as hk
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax import export
from safetensors.flax import load_file
from safetensors.numpy import save_file

import ptree as pt
from ptree import convert, nn

pytest.importorskip("flatbuffers")  # which jax.export needs to write bytes

KEY = jax.random.key(0)
(BATCH,) = export.symbolic_shape("batch")

# what the guide shows
RUN = """
from pathlib import Path
from jax import export
from safetensors.flax import load_file
program = export.deserialize(bytearray(Path("net.stablehlo").read_bytes()))
weights = load_file("net.safetensors")
y = program.call(weights, x)
"""


def in_another_process(folder, before, code, after):
    """Run code where `import ptree` fails, and return what it prints."""
    blocked = "import sys; sys.modules['ptree'] = None\nimport jax, jax.numpy as jnp, numpy as np\n"
    text = blocked + textwrap.dedent(before) + code + textwrap.dedent(after)
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "PYTHONPATH")}
    ended = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def symbolic(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((BATCH, *shape), dtype)


def called(folder, *inputs, name="net"):
    """The outputs of a program with the arrays of the file beside it."""
    program = export.deserialize(bytearray(Path(folder, f"{name}.stablehlo").read_bytes()))
    return program.call(load_file(Path(folder, f"{name}.safetensors")), *inputs)


def close(a, b):
    np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-6, atol=1e-6)


def a_model():
    """Blocks as a stack, bf16 weights, an embedding that is the output layer too, and a key that is used."""
    block = nn.Sequential(nn.LayerNorm(), nn.Dense(8), jax.nn.gelu)
    x = jnp.ones((2, 8))
    blocks = [block.init(jax.random.fold_in(KEY, n), x) for n in range(3)]
    params = pt.Tree(
        {
            "embed": {"table": jax.random.normal(KEY, (11, 8)).astype(jnp.bfloat16)},
            "blocks": blocks,
            "head": {"kernel": pt.transposed("embed/table")},
            "noise": jax.random.key(3, impl="rbg"),
            "shift": jnp.arange(8, dtype=jnp.int32),
            "scale": 0.5,
        }
    )
    params = pt.stacks.stack(params, "blocks")

    def f(params, tokens):
        x = params["embed/table"][tokens].astype(jnp.float32) + params["shift"]
        for layer in params["blocks"].values():
            x = x + block(layer, x)
        x = x * params["scale"] + jax.random.normal(params["noise"], (8,))
        logits = x.astype(jnp.bfloat16) @ params["head/kernel"]
        return {"logits": logits, "layers": [x.mean(0), params["blocks"]]}

    return f, params


def test_a_program_runs_where_ptree_cannot_be_imported(tmp_path):
    f, params = a_model()
    written = convert.to_stablehlo(f, params, symbolic(dtype=jnp.int32), path=tmp_path / "net.stablehlo")
    assert written.platforms == ("cpu", "cuda", "tpu")
    assert written.size < 40_000
    assert sorted(load_file(tmp_path / "net.safetensors")) == sorted(pt.paths(params))  # the tied leaf once
    expected = jax.jit(f)(params, jnp.array([1, 5, 10, 0]))
    before = "x = jnp.array([1, 5, 10, 0])"
    after = """
    assert y["logits"].dtype == jnp.bfloat16
    np.savez("y.npz", logits=y["logits"].astype(jnp.float32), mean=y["layers"][0], kernel=y["layers"][1][":/1/kernel"])
    print(program.platforms, sys.modules["ptree"])
    """
    printed = in_another_process(tmp_path, before, RUN, after)
    assert printed == "('cpu', 'cuda', 'tpu') None\n"
    with np.load(tmp_path / "y.npz") as y:
        close(y["logits"], expected["logits"])
        close(y["mean"], expected["layers"][0])
        close(y["kernel"], params["blocks/:/1/kernel"])


def test_the_file_of_weights_can_be_exchanged_and_differentiated(tmp_path):
    net = nn.Sequential(nn.Dense(4), jnp.tanh, nn.Dense(1))
    params = net.init(KEY, jnp.ones((1, 3)))
    convert.to_stablehlo(net, params, symbolic(3), path=tmp_path / "net.stablehlo", vjp_order=1)
    tuned = pt.update(params, "**/kernel", lambda w: w + 1)
    pt.save(tmp_path / "net.safetensors", tuned)
    x = jax.random.normal(KEY, (5, 3))
    close(called(tmp_path, x), net(tuned, x))
    program = export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    arrays = dict(pt.items(tuned))
    gradients = jax.grad(lambda arrays: program.call(arrays, x).sum())(arrays)
    close(gradients["0/kernel"], jax.grad(lambda p: net(p, x).sum())(tuned)["0/kernel"])


# ------------------------------------------------------------------------------------ leaves


def test_leaves_of_every_dtype_come_from_the_file_as_they_were(tmp_path):
    params = {
        "bf16": jnp.full(3, 1.5, jnp.bfloat16),
        "f16": jnp.full(3, 2.5, jnp.float16),
        "int4": jnp.array([-8, -1, 7], jnp.int4),
        "uint2": jnp.array([0, 3, 1], jnp.uint2),
        "e3m4": jnp.array([0.5, -1.5, 3], ml_dtypes.float8_e3m4),
        "complex": np.array([1 + 2j, 3 - 4j]),
        "complex64": jnp.array([1 + 2j, 3 - 4j]),
        "bool": jnp.array([True, False]),
        "int64": np.array([1, 2**20]),
        "float64": np.array([1.5, 2.5]),
        "keys": jax.random.split(jax.random.key(1, impl="threefry2x32"), 3),
        "empty": jnp.zeros((0, 4)),
        "one": 1.5,
        "yes": True,
    }

    def f(params, x):
        shown = {name: leaf for name, leaf in params.items() if name != "keys"}
        shown["uint2"] = shown["uint2"].astype(jnp.uint8)
        return {**shown, "keys": jax.random.key_data(params["keys"]), "weak": params["one"] * x}

    convert.to_stablehlo(f, params, symbolic(dtype=jnp.bfloat16), path=tmp_path / "net.stablehlo")
    x = jnp.ones(2, jnp.bfloat16)
    got, expected = called(tmp_path, x), jax.jit(f)(params, x)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in got.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in expected.items()
    }
    assert got["weak"].dtype == jnp.bfloat16  # a number of Python stays one
    for name, leaf in got.items():
        assert np.asarray(leaf).tobytes() == np.asarray(expected[name]).tobytes(), name


def test_what_cannot_be_unpacked_is_refused_by_name(tmp_path):
    params = {"a": {"w": np.zeros(4, ml_dtypes.float4_e2m1fn)}}
    with pytest.raises(
        pt.FileError, match=r"'a/w' is float4_e2m1fn\[4\], which a program cannot unpack.*Cast it|cast it"
    ):
        convert.to_stablehlo(lambda p, x: x, params, symbolic(), path=tmp_path / "net.stablehlo")
    assert not [*tmp_path.iterdir()]


def test_keys_and_nested_containers_are_inputs_and_outputs(tmp_path):
    class State(NamedTuple):
        h: jax.Array
        c: jax.Array

    def f(params, inputs, key):
        x, state = inputs["x"], inputs["state"]
        assert type(state) is State
        assert type(inputs["tree"]) is pt.Tree
        h = x @ params["w"] + state.h + inputs["tree"]["a/b"]
        return jax.random.normal(key, h.shape), [State(h, state.c)], key, None

    params = {"w": jnp.eye(3)}
    inputs = {"x": symbolic(3), "state": State(symbolic(3), jnp.ones(2)), "tree": pt.Tree({"a": {"b": jnp.ones(3)}})}
    convert.to_stablehlo(f, params, inputs, KEY, path=tmp_path / "net.stablehlo")
    plain = {"x": jnp.ones((2, 3)), "state": {"h": jnp.ones((2, 3)), "c": jnp.ones(2)}, "tree": {"a/b": jnp.ones(3)}}
    noise, (state,), key, nothing = called(tmp_path, plain, KEY)
    assert type(state) is dict
    assert nothing is None
    assert key == KEY
    close(state["h"], jnp.full((2, 3), 3.0))
    close(noise, jax.random.normal(KEY, (2, 3)))


def test_a_norms_state_is_returned_by_path(tmp_path):
    norm = nn.BatchNorm()
    x = jax.random.normal(KEY, (5, 3))
    params = norm.init(KEY, x)
    convert.to_stablehlo(norm, params, symbolic(3), path=tmp_path / "net.stablehlo")
    close(called(tmp_path, x), norm(params, x))


# --------------------------------------------------------------------------- other libraries


def test_a_function_of_linen(tmp_path):
    module = linen.Sequential([linen.Dense(4), linen.gelu, linen.Dense(2)])
    x = jax.random.normal(KEY, (5, 3))
    params = module.init(KEY, x)["params"]
    convert.to_stablehlo(
        lambda p, x: module.apply({"params": p}, x), params, symbolic(3), path=tmp_path / "net.stablehlo"
    )
    close(called(tmp_path, x), module.apply({"params": params}, x))


def test_a_function_of_nnx(tmp_path):
    graph, state = nnx.split(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    x = jax.random.normal(KEY, (5, 3))
    convert.to_stablehlo(
        lambda state, x: nnx.merge(graph, state)(x), state, symbolic(3), path=tmp_path / "net.stablehlo"
    )
    close(called(tmp_path, x), nnx.merge(graph, state)(x))


def test_a_function_of_haiku(tmp_path):
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 2])(x)))
    x = jax.random.normal(KEY, (5, 3))
    params = net.init(KEY, x)
    convert.to_stablehlo(net.apply, params, symbolic(3), path=tmp_path / "net.stablehlo")
    assert "mlp/~/linear_0/w" in load_file(tmp_path / "net.safetensors")
    close(called(tmp_path, x), net.apply(params, x))


def test_a_module_of_equinox_with_functions_in_it(tmp_path):
    module = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    x = jax.random.normal(KEY, (5, 3))
    convert.to_stablehlo(lambda m, x: jax.vmap(m)(x), module, symbolic(3), path=tmp_path / "net.stablehlo")
    close(called(tmp_path, x), jax.vmap(module)(x))


def test_donated_arguments_are_kept(tmp_path):
    step = jax.jit(lambda params, x: params["w"] + x, donate_argnums=(0, 1))
    params, x = {"w": jnp.ones(3)}, jnp.ones(3)
    convert.to_stablehlo(step, params, x, path=tmp_path / "net.stablehlo")
    assert not params["w"].is_deleted()
    arrays = {"w": jnp.ones(3)}
    program = export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    close(program.call(arrays, x), jnp.full(3, 2.0))
    assert not arrays["w"].is_deleted()


# ---------------------------------------------------------------------------- weights that are there


def dense(tmp_path):
    net = nn.Dense(2)
    params = net.init(KEY, jnp.ones((1, 3)))
    return net, params, {"kernel": np.asarray(params["kernel"]), "bias": np.asarray(params["bias"])}


def test_a_file_by_another_program_is_used_with_all_that_is_in_it(tmp_path):
    net, params, arrays = dense(tmp_path)
    save_file({**arrays, "pooler": np.ones(4, np.float64)}, tmp_path / "other.safetensors")
    before = (tmp_path / "other.safetensors").read_bytes()
    spec = net.spec(jnp.ones((1, 3)))
    for given in (params, spec, pt.abstract(spec)):
        written = convert.to_stablehlo(
            net, given, symbolic(3), path=tmp_path / "net.stablehlo", weights=tmp_path / "other.safetensors"
        )
        assert sorted(written.arrays) == ["bias", "kernel", "pooler"]
    program = export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    x = jnp.ones((4, 3))
    close(program.call(load_file(tmp_path / "other.safetensors"), x), net(params, x))
    assert (tmp_path / "other.safetensors").read_bytes() == before
    assert not (tmp_path / "net.safetensors").exists()


def test_ties_and_keys_of_a_file_by_ptree(tmp_path):
    f, params = a_model()
    pt.save(tmp_path / "own.safetensors", params, expand_ties=True)
    convert.to_stablehlo(
        f, params, symbolic(dtype=jnp.int32), path=tmp_path / "net.stablehlo", weights=tmp_path / "own.safetensors"
    )
    program = export.deserialize(bytearray((tmp_path / "net.stablehlo").read_bytes()))
    arrays = load_file(tmp_path / "own.safetensors")
    assert "head/kernel" in arrays
    tokens = jnp.array([1, 2])
    close(program.call(arrays, tokens)["logits"], jax.jit(f)(params, tokens)["logits"])


def test_shards_are_taken_as_one_file_and_specs_keep_their_ties(tmp_path):
    net = nn.Sequential(nn.Dense(300), jax.nn.relu, nn.Dense(300))
    spec = pt.tie(net.spec(jnp.ones((1, 300))), {"2/kernel": "0/kernel"})
    pt.save(tmp_path / "big.safetensors", pt.init(spec, KEY), max_shard_size=200_000)
    for name in ("big.safetensors", "big.safetensors.index.json"):
        path = tmp_path / "net.stablehlo"
        written = convert.to_stablehlo(net, spec, symbolic(300), path=path, weights=tmp_path / name)
        assert sorted(written.arrays) == ["0/bias", "0/kernel", "2/bias"]


def test_a_file_that_does_not_hold_the_weights_is_one_error(tmp_path):
    net, params, arrays = dense(tmp_path)
    params = pt.put(params, "scale", jnp.ones(2))
    wrong = {"kernel": arrays["kernel"].T.copy(), "bias": arrays["bias"].astype(np.float16)}
    save_file(wrong, tmp_path / "other.safetensors")
    with pytest.raises(pt.StructureError) as caught:
        convert.to_stablehlo(
            net, params, symbolic(3), path=tmp_path / "net.stablehlo", weights=tmp_path / "other.safetensors"
        )
    assert "'kernel': f32[2,3] in the file, f32[3,2] in `params`" in str(caught.value)
    assert "'bias': f16[2] in the file, f32[2] in `params`" in str(caught.value)
    assert "missing in the file: ['scale']" in str(caught.value)
    assert (caught.value.missing, caught.value.misshapen, caught.value.mistyped) == (["scale"], ["kernel"], ["bias"])
    assert not (tmp_path / "net.stablehlo").exists()


def test_other_values_in_the_file_are_named(tmp_path):
    net, params, arrays = dense(tmp_path)
    save_file({**arrays, "bias": arrays["bias"] + 1}, tmp_path / "other.safetensors")
    with pytest.raises(pt.StructureError, match=r"other values in the file: \['bias'\]"):
        convert.to_stablehlo(
            net, params, symbolic(3), path=tmp_path / "net.stablehlo", weights=tmp_path / "other.safetensors"
        )


def test_a_file_of_weights_is_not_written_over(tmp_path):
    f, params = lambda p, x: x @ p["w"], {"w": jnp.ones((3, 3))}
    file = tmp_path / "net.safetensors"
    pt.save(file, {**params, "step": jnp.ones(2)})
    before = file.read_bytes()
    with pytest.raises(pt.FileError, match=r"is the file of weights= itself"):
        convert.to_stablehlo(f, params, symbolic(3), path=file, weights=tmp_path / "." / "net.safetensors")
    for path in (tmp_path / "net", tmp_path / "net.stablehlo"):
        with pytest.raises(pt.FileError, match=r"that to_stablehlo did not write.* give weights='.*net.safetensors'"):
            convert.to_stablehlo(f, params, symbolic(3), path=path)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_the_files_of_an_earlier_export_are_replaced(tmp_path):
    f = lambda p, x: x @ p["w"]
    for number in (1.0, 2.0):
        convert.to_stablehlo(f, {"w": jnp.full((3, 3), number)}, symbolic(3), path=tmp_path / "net.stablehlo")
    close(called(tmp_path, jnp.ones((1, 3))), jnp.full((1, 3), 6.0))


def test_a_spec_without_a_file_is_refused(tmp_path):
    net = nn.Dense(2)
    with pytest.raises(pt.FileError, match=r"\['kernel', 'bias'\] have a shape and no values.*weights="):
        convert.to_stablehlo(net, net.spec(jnp.ones((1, 3))), symbolic(3), path=tmp_path / "net.stablehlo")


# --------------------------------------------------------------------------------- refusals


def refused(tmp_path, f, *inputs, params=None, **options):
    """The message of a refusal; nothing is written."""
    params = {"w": jnp.ones(3)} if params is None else params
    with pytest.raises(pt.FileError) as caught:
        convert.to_stablehlo(f, params, *inputs, path=tmp_path / "net.stablehlo", **options)
    assert not [*tmp_path.iterdir()]
    return str(caught.value)


def test_callbacks_are_refused_by_name_also_inside_a_scan(tmp_path):
    def f(params, x):
        def body(carry, x):
            jax.debug.print("{x}", x=x)
            return carry + jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x[0]), x

        return jax.lax.scan(body, 0.0, x)

    message = refused(tmp_path, f, symbolic(3))
    assert "calls back into Python by ['jax.debug." in message
    assert "jax.pure_callback" in message


def test_large_constants_are_refused_with_their_size_and_allowed_by_an_option(tmp_path):
    table = np.random.default_rng(0).normal(size=(512, 1024)).astype(np.float32)

    def f(params, x):
        return jax.jit(lambda x: x @ table)(x) + params["w"][0]

    message = refused(tmp_path, f, symbolic(512), max_constants="1MiB")
    assert "captured constants of 2.0 MiB: f32[512,1024]" in message
    assert "max_constants (now 1.0 MiB)" in message
    written = convert.to_stablehlo(f, {"w": jnp.ones(3)}, symbolic(512), path=tmp_path / "net.stablehlo")
    assert written.size > table.nbytes


def test_parameters_that_are_captured_are_refused_whatever_their_size(tmp_path):
    params = {"w": jnp.ones(3), "b": jnp.ones(3)}
    message = refused(tmp_path, lambda _, x: x * params["w"], symbolic(3), params=params)
    assert "it reads ['w'] from outside instead of from its first argument" in message


def test_symbolic_sizes_that_cannot_be_decided_say_what_to_do(tmp_path):
    message = refused(tmp_path, lambda p, x: x.reshape(4, -1), symbolic(3))
    assert "symbolic_shape('batch', constraints=['batch >= 4'])" in message
    (other,) = export.symbolic_shape("other")
    message = refused(
        tmp_path, lambda p, x, y: (x.sum(), y.sum()), symbolic(3), jax.ShapeDtypeStruct((other,), jnp.float32)
    )
    assert "Make them in one: batch, length = jax.export.symbolic_shape('batch, length')" in message


def test_wrong_arguments(tmp_path):
    f = lambda p, x: x
    assert "among 'cpu', 'cuda', 'rocm' and 'tpu'; got ['gpu']" in refused(tmp_path, f, symbolic(), platforms=("gpu",))
    assert "platforms=('cpu',)" in refused(tmp_path, f, symbolic(), platforms="cpu")
    assert "got []" in refused(tmp_path, f, symbolic(), platforms=())
    assert "inputs are arrays, and these are none: [\"1: 'train'\"]" in refused(tmp_path, f, symbolic(), "train")
    assert "inputs are arrays, and these are none" in refused(tmp_path, f, np.array(["a"]))
    message = refused(tmp_path, lambda p, x: {"y": x, "mode": "train"}, symbolic())
    assert "f returns arrays, and these are none: [\"mode: 'train'\"]" in message
    assert "a leaf needs a name" in refused(tmp_path, f, symbolic(), params=jnp.ones(3))
    with pytest.raises(pt.FileError, match=r"its weights get this name\. Call it 'net\.stablehlo'"):
        convert.to_stablehlo(f, {"w": 1.0}, symbolic(), path=tmp_path / "net.safetensors")
    (tmp_path / "net.stablehlo").mkdir()
    with pytest.raises(pt.FileError, match="is a folder"):
        convert.to_stablehlo(f, {"w": jnp.ones(3)}, symbolic(), path=tmp_path / "net.stablehlo")


def test_a_dtype_that_jax_cannot_export_is_named(tmp_path):
    params = {"w": jnp.array([0, 3], jnp.uint2)}
    message = refused(tmp_path, lambda p, x: p["w"], symbolic(), params=params)
    assert "jax.export cannot write dtype(uint2) of an input or output" in message


def test_an_operation_that_a_platform_lacks_is_named(tmp_path):
    def f(params, x):
        return jax.scipy.linalg.schur(x * params["w"])[0]

    message = refused(tmp_path, f, jnp.ones((3, 3)))
    assert "'schur' not found for platforms ['cuda', 'tpu']. Choose among platforms=" in message
    convert.to_stablehlo(f, {"w": jnp.ones(3)}, jnp.ones((3, 3)), path=tmp_path / "net.stablehlo", platforms=["cpu"])


def test_an_error_of_the_function_itself_leaves_old_files(tmp_path):
    net, params, _ = dense(tmp_path)
    convert.to_stablehlo(net, params, symbolic(3), path=tmp_path / "net.stablehlo")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(pt.LayerError):
        convert.to_stablehlo(net, params, symbolic(4), path=tmp_path / "net.stablehlo")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_without_flatbuffers_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r"pip install 'ptree-jax\[stablehlo\]'"):
        convert.to_stablehlo(lambda p, x: x, {"w": jnp.ones(3)}, symbolic(), path=tmp_path / "net.stablehlo")
    assert not [*tmp_path.iterdir()]


# -------------------------------------------------------------------- exports by jax.export itself


def test_a_users_own_export_over_trees_is_read_in_a_new_process_with_ptree(tmp_path):
    f, params = a_model()
    nested = {"models": [params, {"state": (pt.Tree({"a": {"b": jnp.ones(2)}}), None)}]}

    def both(trees, tokens):
        return f(trees["models"][0], tokens), trees["models"][1]

    data = export.export(jax.jit(both), platforms=("cpu", "cuda", "tpu"))(nested, jnp.array([1, 2])).serialize()
    (tmp_path / "own.bin").write_bytes(data)
    pt.save(tmp_path / "own.safetensors", params)
    code = """
    import jax, jax.numpy as jnp, ptree as pt
    from pathlib import Path
    from jax import export
    program = export.deserialize(bytearray(Path("own.bin").read_bytes()))
    params = pt.load("own.safetensors")
    nested = {"models": [params, {"state": (pt.Tree({"a": {"b": jnp.ones(2)}}), None)}]}
    out, state = program.call(nested, jnp.array([1, 2]))
    assert type(state["state"][0]) is pt.Tree and out["layers"][1] == params["blocks"], out
    print(pt.ties(params), out["logits"].sum().item())
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(pt.__file__).parent.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    total = jax.jit(both)(nested, jnp.array([1, 2]))[0]["logits"].sum().item()
    assert ended.stdout == f"{pt.ties(params)} {total}\n"
