"""g2p-en, which spells words in phonemes by two GRUs, beside its own NumPy code: states, logits, phonemes of words, and its npz file."""

import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conversions import assert_own_inverse
from published_models import file_of

import ptree as pt
from ptree import convert, nn
from ptree.convert import linear

FILE = file_of("g2p_en", "checkpoint20.npz")
LETTERS, PHONEMES, WIDTH = 29, 74, 256
START, END, MOST = 2, 3, 20  # tokens of the decoder, and how many phonemes it gives at most

WORDS = [
    "activationist",
    "parameter",
    "pytree",
    "einsum",
    "safetensors",
    "xylophonist",
    "quixotically",
    "zzyzx",
    "a",
    "strengths",
    "onomatopoeia",
    "queueing",
    "tensorflow",
    "gluon",
    "keras",
    "unforgettable",
    "jazzy",
    "worcestershire",
    "knightley",
    "psychobabble",
    "mcflurry",
    "antidisestablishmentarianism",
]


TABLE = convert.Table({
    "{enc,dec}_emb": "{encoder,decoder}/embedding/table",
    "{enc,dec}_w_{ih,hh}": ("{encoder,decoder}/gru/{input,hidden}/kernel", linear),
    "{enc,dec}_b_{ih,hh}": "{encoder,decoder}/gru/{input,hidden}/bias",
    "fc_w": ("head/kernel", linear),
    "fc_b": "head/bias",
})  # fmt: skip

gru, head = nn.GRU(WIDTH), nn.Dense(PHONEMES)
embeddings = {"encoder": nn.Embedding(LETTERS, WIDTH), "decoder": nn.Embedding(PHONEMES, WIDTH)}


def spec():
    ids, x = jax.ShapeDtypeStruct((1, 1), "int32"), jax.ShapeDtypeStruct((1, 1, WIDTH), "float32")
    tree = {name: {"embedding": layer.spec(ids), "gru": gru.spec(x)} for name, layer in embeddings.items()}
    return pt.Tree({**tree, "head": head.spec(x)})


def run(params, name, ids, state=None, lengths=None):
    """Outputs and the last state of the encoder or the decoder for i32[words, time]."""
    return gru.run(params[name]["gru"], embeddings[name](params[name]["embedding"], ids), state, lengths=lengths)


@jax.jit
def phonemes_of(params, letters, lengths):
    """Letters i32[words, time] -> the likeliest phoneme of each step, i32[words, MOST]; what follows END does not count."""
    _, state = run(params, "encoder", letters, lengths=lengths)

    def step(carry, _):
        state, last = carry
        outputs, state = run(params, "decoder", last[:, None], state)
        likeliest = head(params["head"], outputs[:, -1]).argmax(-1).astype("int32")
        return (state, likeliest), likeliest

    _, phonemes = jax.lax.scan(step, (state, jnp.full(len(letters), START, "int32")), length=MOST)
    return phonemes.T


@pytest.fixture(scope="module")
def g2p():
    """g2p_en.G2p, with empty modules for what it imports to split texts and to look words up."""

    class Nltk(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args: types.SimpleNamespace(tokenize=None)

    corpus = types.ModuleType("nltk.corpus")
    corpus.cmudict = types.SimpleNamespace(dict=dict)
    nltk = Nltk("nltk")
    nltk.data = types.SimpleNamespace(find=lambda name: None)
    inflect = types.ModuleType("inflect")
    inflect.engine = lambda: None
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its patterns are no raw strings
        stubs = {"nltk": nltk, "nltk.corpus": corpus, "nltk.tokenize": Nltk("nltk.tokenize"), "inflect": inflect}
        for name, module in stubs.items():
            patch.setitem(sys.modules, name, module)
        from g2p_en.g2p import G2p

        yield G2p()


@pytest.fixture(scope="module")
def params():
    return TABLE.apply(FILE, like=spec())


def letters_of(g2p, words):
    """The letters of words, padded, i32[words, time], and how many there are of each."""
    unknown = g2p.g2idx["<unk>"]
    rows = [[g2p.g2idx.get(letter, unknown) for letter in [*word, "</s>"]] for word in words]
    longest = max(map(len, rows))
    padded = [row + [0] * (longest - len(row)) for row in rows]
    return np.array(padded, "int32"), np.array([*map(len, rows)], "int32")


def spelled(g2p, phonemes):
    """The names of phonemes up to the end of the word."""
    numbers = [*map(int, phonemes)]
    until_end = numbers[: numbers.index(END)] if END in numbers else numbers
    return [g2p.idx2p[number] for number in until_end]


def test_words_have_the_phonemes_of_its_own_code(g2p, params):
    ours = phonemes_of(params, *letters_of(g2p, WORDS))
    for word, phonemes in zip(WORDS, np.asarray(ours)):
        assert spelled(g2p, phonemes) == g2p.predict(word), word
    assert g2p.predict("parameter") == ["P", "ER0", "AE1", "M", "AH0", "T", "ER0"]  # no empty answers on both sides


def test_states_and_logits_are_those_of_its_own_code(g2p, params):
    word = "parameter's"  # the apostrophe is an unknown letter
    letters, _ = letters_of(g2p, [word])
    ours, (state,) = run(params, "encoder", letters)
    weights = (g2p.enc_w_ih, g2p.enc_w_hh, g2p.enc_b_ih, g2p.enc_b_hh)
    theirs = g2p.gru(g2p.encode(word), len(word) + 1, *weights)
    np.testing.assert_allclose(ours, theirs, atol=5e-6)
    decoder = (g2p.dec_w_ih, g2p.dec_w_hh, g2p.dec_b_ih, g2p.dec_b_hh)
    after = g2p.grucell(g2p.dec_emb[[START]], theirs[:, -1], *decoder)
    outputs, _ = run(params, "decoder", np.full((1, 1), START, "int32"), (state,))
    logits = head(params["head"], outputs[:, -1])
    np.testing.assert_allclose(logits, after @ g2p.fc_w.T + g2p.fc_b, atol=5e-5)


def test_the_table_is_its_own_inverse():
    with np.load(FILE) as arrays:
        assert_own_inverse(TABLE, dict(arrays), spec())


def test_written_back_its_own_code_runs_it(g2p, params, tmp_path):
    trained = pt.update(params, "head/bias", lambda bias: bias.at[END].set(-100.0))  # so that no word ends
    convert.write(tmp_path / "checkpoint.npz", TABLE.inverse.apply(trained))
    with np.load(tmp_path / "checkpoint.npz") as arrays:
        names = dict(arrays)
    before = {name: getattr(g2p, name) for name in names}
    try:
        for name, array in names.items():
            setattr(g2p, name, array)
        theirs = g2p.predict("gluon")
    finally:
        for name, array in before.items():
            setattr(g2p, name, array)
    assert len(theirs) == MOST > len(g2p.predict("gluon"))
    (ours,) = np.asarray(phonemes_of(trained, *letters_of(g2p, ["gluon"])))
    assert spelled(g2p, ours) == theirs
