"""GPT-2 by its published names, into the model of examples/07_gpt.py and back, beside transformers on PyTorch: logits, files.

Its kernels are fused and not transposed (`Conv1D` is `(in, out)`), those of attention are square, the head is the embedding and not in
the file, and OpenAI's file holds the causal masks.
"""

import jax
import numpy as np
import pytest
import torch
import transformers
from conversions import assert_own_inverse, assert_same_arrays, assert_same_trees
from published_models import example
from safetensors.numpy import load_file

import ptree as pt
from ptree import convert
from ptree.convert import as_is, carry, linear

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
