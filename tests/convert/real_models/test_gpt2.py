"""GPT-2 by its published names, into the model of examples/07_gpt.py and back, beside transformers on PyTorch: logits, files.

Its kernels are fused and not transposed (`Conv1D` is `(in, out)`), those of attention are square, the head is the embedding and not in
the file, and OpenAI's file holds the causal masks.
"""

import copy

import jax
import numpy as np
import pytest
from conversions import assert_own_inverse, assert_same_arrays, assert_same_trees
from published_models import example
from safetensors.numpy import load_file

import ptree as pt
from ptree import convert, nn
from ptree.convert import as_is, carry, linear

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

gpt = example("07_gpt")
WIDTH, HEADS, LAYERS, VOCABULARY, CONTEXT = 64, 4, 3, 97, 32
PREFIX = "transformer."  # transformers writes it; in OpenAI's file names begin with `h.0`


TABLE = gpt.published_names(HEADS, PREFIX)
WITH_HEAD = TABLE | convert.Table({"lm_head.weight": ("head", linear)})


def model(stacked=False):
    return gpt.GPT(VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS, stacked)


@pytest.fixture(scope="module")
def peer():
    """GPT-2 of transformers, small, with numbers that are far from their start: norms and biases too."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    made = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module")
def folder(peer, tmp_path_factory):
    """The files that transformers writes."""
    path = tmp_path_factory.mktemp("gpt2")
    peer.save_pretrained(path)
    return path


IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, CONTEXT)).astype("int32")


def logits_of(peer):
    with torch.no_grad():
        return peer(torch.tensor(IDS).long()).logits.numpy()


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
def test_logits_are_those_of_transformers(peer, folder, stacked):
    params = TABLE.apply(folder / "model.safetensors", like=model(stacked).spec())
    ours, _ = jax.jit(model(stacked))(params, IDS)
    np.testing.assert_allclose(ours, logits_of(peer), atol=2e-5)


def test_a_stack_and_layers_are_filled_alike_and_both_are_written_back(folder):
    source = load_file(folder / "model.safetensors")
    assert "lm_head.weight" not in source
    layers = TABLE.apply(source, like=model().spec())
    stack = TABLE.apply(source, like=model(stacked=True).spec())
    assert_same_trees(stack, pt.stacks.stack(layers, "blocks"))
    assert_own_inverse(TABLE, source, model().spec())
    assert_own_inverse(TABLE, source, model(stacked=True).spec())


def test_the_head_stays_tied_whether_or_not_the_source_has_it(peer, folder):
    absent = TABLE.apply(folder / "model.safetensors", like=model().spec())
    present = WITH_HEAD.apply(peer, like=model().spec())  # a module's own state names both
    assert_same_trees(absent, present)
    assert "head" in pt.ties(absent)
    assert_own_inverse(WITH_HEAD, peer.state_dict(), model().spec())
    assert "lm_head.weight" not in TABLE.inverse.apply(absent)


def test_a_head_with_other_numbers_than_the_embedding_is_refused(peer):
    state = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    with pytest.raises(pt.StructureError, match="head"):
        WITH_HEAD.apply(state, like=model().spec())


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
def test_written_back_transformers_loads_it_and_gives_the_same_logits(peer, folder, tmp_path, stacked):
    params = TABLE.apply(folder / "model.safetensors", like=model(stacked).spec())
    trained = pt.update(params, "**/{bias,scale}", lambda leaf: leaf * 1.5 + 0.1)
    convert.write(tmp_path / "model.safetensors", TABLE.inverse.apply(trained))
    peer.config.save_pretrained(tmp_path)
    loaded, report = transformers.GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    ours, _ = jax.jit(model(stacked))(trained, IDS)
    np.testing.assert_allclose(ours, logits_of(loaded.eval()), atol=5e-5)
    assert np.abs(logits_of(loaded) - logits_of(peer)).max() > 0.1


def test_every_file_that_holds_the_model_gives_the_same(peer, folder, tmp_path):
    expected = TABLE.apply(folder / "model.safetensors", like=model().spec())
    peer.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len([*(tmp_path / "shards").glob("model-*.safetensors")]) > 5
    torch.save(peer.state_dict(), tmp_path / "pytorch_model.bin")
    torch.save(peer.state_dict(), tmp_path / "legacy.bin", _use_new_zipfile_serialization=False)
    shards = tmp_path / "shards"
    for source in (shards, shards / "model.safetensors.index.json"):
        assert_same_trees(TABLE.apply(source, like=model().spec()), expected)
    for source in (tmp_path / "pytorch_model.bin", tmp_path / "legacy.bin"):  # these name the head too
        assert_same_trees(WITH_HEAD.apply(source, like=model().spec()), expected)


def test_a_model_in_bfloat16_is_cast_if_that_is_said(peer, tmp_path):
    half = copy.deepcopy(peer).to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    with pytest.raises(
        pt.StructureError, match=r"'blocks/0/attn/k/bias': expected f32\[4,16\] in `like`, got bf16\[4,16\]"
    ):
        TABLE.apply(file, like=model().spec())
    params = TABLE.apply(file, like=model().spec(), cast=True)
    ours, _ = jax.jit(model())(params, IDS)
    np.testing.assert_allclose(ours, logits_of(half.to(torch.float32)), atol=2e-5)
    assert_own_inverse(TABLE, load_file(file), None)  # without `like`, bfloat16 stays


@pytest.mark.parametrize("stacked", [False, True], ids=["unrolled", "stacked"])
@pytest.mark.parametrize("layers", [LAYERS - 1, LAYERS + 1])
def test_more_or_fewer_layers_are_one_report_and_nothing_is_converted(folder, layers, stacked):
    other = gpt.GPT(VOCABULARY, CONTEXT, WIDTH, layers, HEADS, stacked)
    with pytest.raises(pt.StructureError) as caught:
        TABLE.apply(folder / "model.safetensors", like=other.spec())
    if stacked:
        assert f"'blocks/:/attn/k/bias': expected f32[{layers},4,16] in `like`, got f32[{LAYERS},4,16]" in str(
            caught.value
        )
    else:
        side = "missing" if layers > LAYERS else "unexpected"
        assert f"{side} from the source: ['blocks/{min(layers, LAYERS)}/attn/k/bias'" in str(caught.value)


def test_what_is_missing_and_what_is_transposed_is_one_report(peer):
    state = {name: tensor for name, tensor in peer.state_dict().items() if name != "lm_head.weight"}
    del state["transformer.h.1.attn.c_attn.weight"]
    state["transformer.h.0.mlp.c_fc.weight"] = state["transformer.h.0.mlp.c_fc.weight"].T  # as of a Linear
    with pytest.raises(pt.StructureError) as caught:
        TABLE.apply(state, like=model().spec())
    assert "'blocks/0/up/kernel': expected f32[64,256] in `like`, got f32[256,64]" in str(caught.value)
    assert "['blocks/1/attn/k/kernel', 'blocks/1/attn/q/kernel', 'blocks/1/attn/v/kernel']" in str(caught.value)


@pytest.mark.parametrize(
    ("count", "problem"),
    [
        (8, r"'blocks/0/attn/k/bias': expected f32\[4,16\] in `like`, got f32\[8,8\]"),
        (7, r"an axis of size 64 is not \[7, -1\]"),
    ],
)
def test_another_number_of_heads_is_refused(folder, count, problem):
    with pytest.raises(pt.StructureError, match=problem):
        gpt.published_names(count, PREFIX).apply(folder / "model.safetensors", like=model().spec())


def test_files_that_hold_no_arrays_say_what_they_are(peer, folder, tmp_path):
    torch.save(peer, tmp_path / "module.bin")
    with pytest.raises(
        pt.FileError, match=r"it is a whole object of the class transformers.*GPT2LMHeadModel.*which is not run"
    ):
        TABLE.apply(tmp_path / "module.bin")
    torch.save(peer.state_dict(), tmp_path / "model.bin")
    (tmp_path / "cut.bin").write_bytes((tmp_path / "model.bin").read_bytes()[:-1000])
    with pytest.raises(pt.FileError, match="it is a zip archive that is empty, cut short or damaged"):
        TABLE.apply(tmp_path / "cut.bin")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(pt.FileError, match="it is a pointer of Git LFS"):
        TABLE.apply(tmp_path / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(pt.FileError, match="it is not a whole safetensors file"):
        TABLE.apply(tmp_path / "cut.safetensors")


def test_openais_file_with_its_masks_converts_and_is_written_back(peer):
    state = {
        name.removeprefix(PREFIX): tensor.numpy()
        for name, tensor in peer.state_dict().items()
        if name != "lm_head.weight"
    }
    mask = np.tril(np.ones((1, 1, CONTEXT, CONTEXT), "float32"))
    published = state | {f"h.{layer}.attn.bias": mask for layer in range(LAYERS)}
    table = gpt.published_names(HEADS) | convert.Table({"h.*.attn.bias": carry})
    with pytest.raises(pt.StructureError, match=r"no row takes 'h\.0\.attn\.bias'"):
        gpt.published_names(HEADS).apply(published, like=model().spec())
    assert_own_inverse(table, published, model().spec())
    assert_same_trees(table.apply(published, like=model().spec()), WITH_HEAD.apply(peer, like=model().spec()))


def test_square_kernels_are_refused_until_the_table_says_their_layout(peer):
    """With an MLP as wide as its input, no shape tells `Conv1D` from `Linear`."""
    weight = np.arange(16, dtype="float32").reshape(4, 4)
    source = {"h.0.attn.c_proj.weight": weight}
    unsaid = convert.Table({"h.*.attn.c_proj.weight": "blocks/*/o/kernel"})
    with pytest.raises(pt.StructureError, match="say `linear` or `conv` in its row, or `as_is`"):
        unsaid.apply(source)
    said = convert.Table({"h.*.attn.c_proj.weight": ("blocks/*/o/kernel", as_is)})
    assert_same_arrays(said.apply(source), {"blocks/0/o/kernel": weight})
    assert_own_inverse(said, source, None)


def test_the_published_sizes_are_planned_without_their_numbers():
    """GPT-2 small by its configuration alone: 148 names, the shapes of which are all that a plan needs."""
    with torch.device("meta"):
        small = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    shapes = {
        name: jax.ShapeDtypeStruct(tuple(tensor.shape), "float32")
        for name, tensor in small.state_dict().items()
        if name != "lm_head.weight"
    }
    assert len(shapes) == 148
    plan = gpt.published_names(12, PREFIX).plan(shapes, gpt.GPT().spec())
    assert plan.ok, plan
    assert not plan.unused
    assert not plan.missing
    assert "x12" in str(plan)
    back = gpt.published_names(12, PREFIX).inverse.plan(gpt.GPT().spec(), shapes)
    assert back.ok, back


def test_the_model_of_124_million_parameters_gives_the_logits_of_transformers():
    torch.manual_seed(0)
    small = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    state = small.state_dict()
    del state["lm_head.weight"]
    params = gpt.published_names(12, PREFIX).apply(state, like=gpt.GPT(stacked=True).spec())
    assert pt.count(params) == 124_439_808  # as published
    ids = np.random.default_rng(1).integers(0, 50257, (1, 24)).astype("int32")
    with torch.no_grad():
        theirs = small(torch.tensor(ids).long()).logits.numpy()
    ours, _ = jax.jit(gpt.GPT(stacked=True))(params, ids)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.array_equal(ours.argmax(-1), theirs.argmax(-1))


def test_suggest_leaves_a_conv1d_beside_linear_layers_as_it_is():
    from transformers.pytorch_utils import Conv1D

    module = torch.nn.Sequential(torch.nn.Linear(4, 8), Conv1D(8, 8), torch.nn.Linear(8, 8))
    net = nn.Sequential(nn.Dense(8), nn.Dense(8), nn.Dense(8))
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("f4")
    suggestion = convert.suggest(module, net.spec(x))
    assert suggestion.ambiguous == ()
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(net(suggestion.table.apply(module, like=net.spec(x)), x), expected, rtol=1e-5, atol=1e-5)
