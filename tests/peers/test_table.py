"""The README's table of what libraries do and what one writes by hand there: each cell runs the library."""

import fnmatch
import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

import ptree as pt
from ptree import convert, nn, shard, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import equinox as eqx
    import h5py
    import haiku as hk
    import keras
    import orbax.checkpoint as ocp
    from flax import nnx
try:
    import torch
except ModuleNotFoundError:  # it is not among the extras of the test command
    torch = None

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # in Keras
README = (Path(__file__).parents[2] / "README.md").read_text()
LIBRARIES = ("ptree", "Flax nnx", "Equinox", "Haiku", "PyTorch", "Keras")
KEY = jax.random.key(0)
X = jnp.ones((2, 4))


@dataclass(frozen=True)
class Cell:
    row: str
    library: str
    claim: str  # does; by hand: with code around it
    check: Callable[..., None]


CELLS: list[Cell] = []


def cell(row: str, library: str, claim: str):
    """Registers the check of a cell: what it asserts is why the table says `claim` there."""

    def register(check: Callable[..., None]):
        CELLS.append(Cell(row, library, claim, check))
        return check

    return register


def rows_of_readme() -> dict[str, dict[str, str]]:
    table = README[README.index("| | ptree | Flax nnx |") :].split("\n\n")[0]
    found = {}
    for line in table.splitlines()[2:]:
        row, *cells = [text.strip() for text in line.strip("|").split("|")]
        found[row] = dict(zip(LIBRARIES, cells))
    return found


def test_the_readme_says_what_the_cells_show():
    in_tests: dict[str, dict[str, str]] = {}
    for this in CELLS:
        in_tests.setdefault(this.row, {})[this.library] = this.claim
    assert rows_of_readme() == in_tests


def by_row_and_library(this: Cell) -> str:
    return f"{this.library}-{this.row}"


# models of two layers, with the same names as far as the libraries allow


class NnxModel(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, features: int = 8):
        self.encoder = nnx.Linear(4, 8, rngs=rngs)
        self.head = nnx.Linear(8, features, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.encoder(x)))


class EqxModel(eqx.Module):
    encoder: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key, features: int = 8):
        self.encoder = eqx.nn.Linear(4, 8, key=key)
        self.head = eqx.nn.Linear(8, features, key=key)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.encoder(x)))


def haiku_params(features: int = 8):
    net = hk.transform(lambda x: hk.Linear(features, name="head")(jax.nn.relu(hk.Linear(8, name="encoder")(x))))
    return net, net.init(KEY, X)


def torch_model(features: int = 8):
    assert torch is not None
    model = torch.nn.Sequential()
    model.add_module("encoder", torch.nn.Linear(4, 8))
    model.add_module("head", torch.nn.Linear(8, features))
    return model


def keras_model(features: int = 8):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, name="encoder"), keras.layers.Dense(features, name="head")]
    )


def tree(features: int = 8) -> pt.Tree:
    net = nn.Sequential({"encoder": nn.Dense(8), "head": nn.Dense(features)})
    return net.init(KEY, X)


# select parameters by a pattern over whole paths
ROW = "select by a pattern over whole paths, `enc*/**/bias`"


@cell(ROW, "ptree", "does")
def _(folder):
    assert pt.paths(tree(), "enc*/**/bias") == ["encoder/bias"]


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = NnxModel(nnx.Rngs(0))
    by_filter = nnx.state(model, nnx.PathContains("bias"))  # a name anywhere in the path: no order, no wildcards
    assert [path for path, _ in nnx.to_flat_state(by_filter)] == [("encoder", "bias"), ("head", "bias")]
    assert not nnx.to_flat_state(nnx.state(model, nnx.PathContains("enc*")))
    by_pattern = nnx.state(model, lambda path, _: fnmatch.fnmatch("/".join(map(str, path)), "enc*/bias"))
    assert [path for path, _ in nnx.to_flat_state(by_pattern)] == [("encoder", "bias")]


@cell(ROW, "Equinox", "by hand")
def _(folder):
    leaves = jax.tree.leaves_with_path(EqxModel(KEY))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    assert fnmatch.filter(names, "enc*/bias") == ["encoder/bias"]


@cell(ROW, "Haiku", "by hand")
def _(folder):
    params = haiku_params()[1]
    biases, _ = hk.data_structures.partition(
        lambda module, name, _: fnmatch.fnmatch(f"{module}/{name}", "enc*/b"), params
    )
    assert [(module, name) for module, name, _ in hk.data_structures.traverse(biases)] == [("encoder", "b")]


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    names = [name for name, _ in torch_model().named_parameters()]
    assert fnmatch.filter(names, "enc*.bias") == ["encoder.bias"]


@cell(ROW, "Keras", "by hand")
def _(folder):
    names = [weight.path.partition("/")[2] for weight in keras_model().weights]  # after the model's name
    assert fnmatch.filter(names, "enc*/bias") == ["encoder/bias"]


# set one parameter
ROW = "set a parameter; another shape is refused"


@cell(ROW, "ptree", "does")
def _(folder):
    with pytest.raises(pt.StructureError, match=r"'head/bias'"):
        pt.set(tree(), "head/bias", jnp.ones(1))


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = NnxModel(nnx.Rngs(0))
    model.head.bias[...] = jnp.ones(1)  # in place: what broadcasts is taken
    assert model.head.bias.shape == (8,)
    nnx.update(model, {"head": {"bias": jnp.ones(1)}})  # whole: any shape is
    assert model.head.bias.shape == (1,)


@cell(ROW, "Equinox", "by hand")
def _(folder):
    changed = eqx.tree_at(lambda model: model.head.bias, EqxModel(KEY), jnp.ones(1))
    assert changed.head.bias is not None
    assert changed.head.bias.shape == (1,)


@cell(ROW, "Haiku", "by hand")
def _(folder):
    params = haiku_params()[1]
    assert params["head"]["b"].shape == (8,)
    changed = {**params, "head": {**params["head"], "b": jnp.ones(1)}}  # a dict takes anything: the check is yours
    assert changed["head"]["b"].shape == (1,)


@cell(ROW, "PyTorch", "does")
def _(folder):
    assert torch is not None
    model = torch_model()
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.bias"):
        model.load_state_dict({"head.bias": torch.ones(1)}, strict=False)
    model.load_state_dict({"head.bias": torch.full((8,), 2.0)}, strict=False)
    assert model.get_parameter("head.bias").tolist() == [2.0] * 8
    with torch.no_grad():
        model.get_parameter("head.bias").copy_(
            torch.ones(1)
        )  # this other way broadcasts in silence, as the README says
    assert model.get_parameter("head.bias").tolist() == [1.0] * 8


@cell(ROW, "Keras", "does")
def _(folder):
    with pytest.raises(ValueError, match="shape"):
        keras_model().get_layer("head").bias.assign(np.ones(1))


# tie two parameters
ROW = "tie any two parameters, also through a transpose"


@cell(ROW, "ptree", "does")
def _(folder):
    tied = pt.tie({"table": jnp.ones((5, 3)), "kernel": jnp.ones((3, 5))}, {"kernel": pt.transposed("table")})
    grads = jax.grad(lambda p: (2 * p["table"]).sum() + (3 * p["kernel"]).sum())(tied)
    assert len(jax.tree.leaves(grads)) == 1
    assert (grads["table"] == 5).all()


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    class Tied(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embed = nnx.Embed(5, 3, rngs=rngs)

        def __call__(self, ids):
            return self.embed.attend(self.embed(ids))  # the transpose is in the code of the model

    assert len(jax.tree.leaves(nnx.state(Tied(nnx.Rngs(0))))) == 1


@cell(ROW, "Equinox", "does")
def _(folder):
    class Pair(eqx.Module):
        table: jax.Array
        kernel: jax.Array

    pair = Pair(jnp.ones((5, 3)), jnp.ones((3, 5)))
    shared = eqx.nn.Shared(pair, lambda pair: pair.kernel, lambda pair: pair.table.T)

    def loss(shared):
        pair = shared()
        return (2 * pair.table).sum() + (3 * pair.kernel).sum()

    leaves = jax.tree.leaves(eqx.filter(eqx.filter_grad(loss)(shared), eqx.is_array))
    assert len(leaves) == 1
    assert (leaves[0] == 5).all()


@cell(ROW, "Haiku", "by hand")
def _(folder):
    def logits(ids):
        embed = hk.Embed(5, 3)
        return embed(ids) @ embed.embeddings.T  # the transpose is in the code of the model

    assert len(jax.tree.leaves(hk.transform(logits).init(KEY, jnp.arange(2)))) == 1


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    embed, head = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False)
    head.weight = embed.weight  # one shape, so that no transpose is needed
    assert len(list(torch.nn.ModuleList([embed, head]).parameters())) == 1
    decoder = torch.nn.Linear(5, 3, bias=False)  # its weight is (3, 5)
    with pytest.raises(TypeError, match="cannot assign"):
        decoder.weight = embed.weight.T
    model = torch.nn.ModuleList([embed, decoder])
    decoder.weight = torch.nn.Parameter(embed.weight.T)  # the memory is one, the parameters are two
    assert len(list(model.parameters())) == 2


@cell(ROW, "Keras", "by hand")
def _(folder):
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.embed = keras.layers.Embedding(5, 3)
            self.embed.build(None)

        def call(self, ids):
            table = keras.ops.transpose(self.embed.embeddings)  # the transpose is in the code of the model
            return keras.ops.matmul(self.embed(ids), table)

    model = Tied()
    assert model(np.arange(2)).shape == (2, 5)
    assert len(model.trainable_weights) == 1


# ties in files
ROW = "a file of weights carries the tie"
TIED = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b": np.arange(6, dtype="f4").reshape(2, 3)}


@cell(ROW, "ptree", "does")
def _(folder):
    pt.save(folder / "tied.safetensors", pt.tie(TIED, {"b": "a"}))
    assert pt.ties(pt.load(folder / "tied.safetensors")) == {"b": "a"}


class NnxPair(nnx.Module):
    def __init__(self):
        self.a = nnx.Param(jnp.ones(3))
        self.b = nnx.Param(jnp.ones(3))


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = NnxPair()
    model.b = model.a
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "tied", nnx.to_pure_dict(nnx.state(model)))
        checkpointer.wait_until_finished()
        loaded = checkpointer.restore(folder / "tied")
    assert list(loaded) == ["a"]  # the other name is gone, and nothing says that there was one


@cell(ROW, "Equinox", "by hand")
def _(folder):
    class Pair(eqx.Module):
        a: jax.Array
        b: jax.Array

    shared = eqx.nn.Shared(Pair(jnp.ones(3), jnp.ones(3)), lambda pair: pair.b, lambda pair: pair.a)
    eqx.tree_serialise_leaves(folder / "tied.eqx", shared)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever NumPy says at the end of the file
        eqx.tree_deserialise_leaves(folder / "tied.eqx", Pair(jnp.zeros(3), jnp.zeros(3)))


@cell(ROW, "Haiku", "by hand")
def _(folder):
    shared = jnp.ones(3)
    loaded = pickle.loads(pickle.dumps({"a": {"w": shared}, "b": {"w": shared}}))
    assert loaded["a"]["w"] is loaded["b"]["w"]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, loaded)
    assert doubled["a"]["w"] is not doubled["b"]["w"]  # trained apart from here on: the code has to tie them again


@cell(ROW, "PyTorch", "does")
def _(folder):
    assert torch is not None
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    tied.get_submodule("1").weight = tied.get_parameter("0.weight")
    torch.save(tied.state_dict(), folder / "tied.pt")
    loaded = torch.load(folder / "tied.pt")
    loaded["0.weight"].fill_(7)
    assert (loaded["1.weight"] == 7).all()  # one array with two names
    untied = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    untied.load_state_dict(loaded)
    assert len(list(untied.parameters())) == 4  # that the model is tied too is said by its code


@cell(ROW, "Keras", "does")
def _(folder):
    inputs, shared = keras.Input((4,)), keras.layers.Dense(4)
    tied = keras.Model(inputs, shared(keras.ops.relu(shared(inputs))))
    tied.save(folder / "tied.keras")
    loaded = keras.models.load_model(folder / "tied.keras")
    assert len(loaded.weights) == 2
    tied.save_weights(folder / "tied.weights.h5")  # this other format has the layer once, without its second use
    untied = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"expected|variables"):
        untied.load_weights(folder / "tied.weights.h5")


# loads that do not fit
ROW = "a load that does not fit names every leaf and changes nothing"


@cell(ROW, "ptree", "does")
def _(folder):
    pt.save(folder / "a.safetensors", {"encoder": {"kernel": jnp.ones((4, 8))}, "old": jnp.ones(2)})
    with pytest.raises(pt.StructureError) as error:
        pt.load(folder / "a.safetensors", like={"encoder": {"kernel": jnp.ones((4, 9))}, "new": jnp.ones(2)})
    assert all(name in str(error.value) for name in ("'encoder/kernel'", "'new'", "'old'"))


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = NnxModel(nnx.Rngs(0))
    nnx.update(model, nnx.state(NnxModel(nnx.Rngs(1), features=5)))
    assert model.head.kernel.shape == (8, 5)  # another shape is taken in silence
    with ocp.StandardCheckpointer() as checkpointer:  # nnx has no files of its own
        checkpointer.save(folder / "m", nnx.to_pure_dict(nnx.state(model)))
        checkpointer.wait_until_finished()
        with pytest.raises(ValueError, match=r"(?s)encoder:.*new:"):  # other names are one report
            checkpointer.restore(folder / "m", {"head": nnx.to_pure_dict(nnx.state(model.head)), "new": jnp.ones(2)})


@cell(ROW, "Equinox", "by hand")
def _(folder):
    class AB(eqx.Module):
        a: jax.Array
        b: jax.Array

    class BA(eqx.Module):
        b: jax.Array
        a: jax.Array

    eqx.tree_serialise_leaves(folder / "m.eqx", AB(a=jnp.zeros(2), b=jnp.ones(2)))
    loaded = eqx.tree_deserialise_leaves(folder / "m.eqx", BA(b=jnp.zeros(2), a=jnp.zeros(2)))
    assert loaded.a.tolist() == [1.0, 1.0]  # by position, so that the two are swapped in silence
    with pytest.raises(RuntimeError, match="has changed shape") as error:
        eqx.tree_deserialise_leaves(folder / "m.eqx", BA(b=jnp.zeros(3), a=jnp.zeros(3)))
    assert "'a'" not in str(error.value)  # the first leaf alone is named


@cell(ROW, "Haiku", "by hand")
def _(folder):
    params, other = haiku_params()[1], haiku_params(features=5)[1]
    loaded = pickle.loads(pickle.dumps(other))
    misfits: list[str] = []

    def compare(path, ours, theirs):
        if ours.shape != theirs.shape:
            misfits.append(jax.tree_util.keystr(path, simple=True, separator="/"))

    jax.tree_util.tree_map_with_path(compare, params, loaded)
    assert misfits == ["head/b", "head/w"]


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    model, other = torch_model(), torch_model(features=5)
    with pytest.raises(RuntimeError, match=r"(?s)size mismatch for head\.weight.*size mismatch for head\.bias"):
        model.load_state_dict(other.state_dict())
    encoder = model.get_parameter("encoder.weight")
    assert torch.equal(encoder, other.get_parameter("encoder.weight"))  # what fits was copied before the error


@cell(ROW, "Keras", "by hand")
def _(folder):
    keras_model(features=5).save_weights(folder / "m.weights.h5")
    model, other = keras_model(), keras_model(features=5)
    other.load_weights(folder / "m.weights.h5")
    with pytest.raises(ValueError, match=r"shape|Shape"):
        model.load_weights(folder / "m.weights.h5")
    ours, theirs = model.get_layer("encoder").kernel, other.get_layer("encoder").kernel
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))  # what came before was loaded


# damage
ROW = "a changed bit in a file is noticed"
VALUE = np.float32(1.2345678)


def change_a_bit(path: Path) -> None:
    """Change the numbers of an array of VALUE in a file."""
    content = bytearray(path.read_bytes())
    at = content.index(VALUE.tobytes() * 8)
    content[at] ^= 1
    path.write_bytes(content)


@cell(ROW, "ptree", "does")
def _(folder):
    pt.save(folder / "a.safetensors", {"w": np.full(64, VALUE)})
    change_a_bit(folder / "a.safetensors")
    with pytest.raises(pt.FileError, match="'w'"):
        pt.load(folder / "a.safetensors")


def digest_of(path: Path) -> str:
    """What one writes beside a file, or a folder, to compare later."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = nnx.Linear(256, 256, rngs=nnx.Rngs(0))
    values = np.asarray(model.kernel[...])
    with ocp.StandardCheckpointer() as checkpointer:  # nnx has no files of its own
        checkpointer.save(folder / "m", nnx.to_pure_dict(nnx.state(model)))
        checkpointer.wait_until_finished()
        written = digest_of(folder / "m")
        largest = max((file for file in (folder / "m").rglob("*") if file.is_file()), key=os.path.getsize)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        assert (checkpointer.restore(folder / "m")["kernel"] != values).any()  # in silence
    assert digest_of(folder / "m") != written


@cell(ROW, "Equinox", "by hand")
def _(folder):
    model = eqx.tree_at(lambda model: model.weight, eqx.nn.Linear(8, 8, key=KEY), jnp.full((8, 8), VALUE))
    eqx.tree_serialise_leaves(folder / "m.eqx", model)
    written = digest_of(folder / "m.eqx")
    change_a_bit(folder / "m.eqx")
    loaded = eqx.tree_deserialise_leaves(folder / "m.eqx", model)
    assert (loaded.weight != VALUE).sum() == 1  # in silence
    assert digest_of(folder / "m.eqx") != written


@cell(ROW, "Haiku", "by hand")
def _(folder):
    params = hk.data_structures.map(lambda *_: np.full((8, 8), VALUE), haiku_params()[1])
    (folder / "m.pkl").write_bytes(pickle.dumps(params))  # Haiku has no files of its own
    written = digest_of(folder / "m.pkl")
    change_a_bit(folder / "m.pkl")
    loaded = pickle.loads((folder / "m.pkl").read_bytes())
    assert sum(int((leaf != VALUE).sum()) for leaf in jax.tree.leaves(loaded)) == 1  # in silence
    assert digest_of(folder / "m.pkl") != written


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    torch.save({"w": torch.full((64,), float(VALUE))}, folder / "m.pt")
    change_a_bit(folder / "m.pt")
    assert int((torch.load(folder / "m.pt")["w"] != float(VALUE)).sum()) == 1  # in silence
    with zipfile.ZipFile(folder / "m.pt") as archive:
        assert archive.testzip() is not None


@cell(ROW, "Keras", "does")
def _(folder):
    model = keras_model()
    model.get_layer("head").kernel.assign(np.full((8, 8), VALUE))
    model.save(folder / "m.keras")
    change_a_bit(folder / "m.keras")
    with pytest.raises(zipfile.BadZipFile):  # in .keras; .weights.h5 has no checksums
        keras.models.load_model(folder / "m.keras")


# freezing
ROW = "freeze a part: no gradient, no moments, no decay"


@cell(ROW, "ptree", "does")
def _(folder):
    params = tree()
    optimiser = train.groups({"encoder": train.FROZEN, "**": optax.adamw(1e-2, weight_decay=0.1)})
    step = train.step(lambda p, x: ((x @ p["encoder/kernel"]) @ p["head/kernel"]).sum(), optimiser)
    before = np.asarray(params["encoder/kernel"])
    state, _ = step(step.init(params), X)
    assert np.array_equal(state.params["encoder/kernel"], before)
    assert not any("encoder" in path for path in pt.paths(state.optimiser))


@cell(ROW, "Flax nnx", "does")
def _(folder):
    model = NnxModel(nnx.Rngs(0))
    head = nnx.All(nnx.Param, nnx.PathContains("head"))
    optimiser = nnx.Optimizer(model, optax.adamw(1e-2, weight_decay=0.1), wrt=head)
    before = np.asarray(model.encoder.kernel[...])
    grads = nnx.grad(lambda model: model(X).sum(), argnums=nnx.DiffState(0, head))(model)
    optimiser.update(model, grads)
    assert np.array_equal(model.encoder.kernel[...], before)
    states = grads, nnx.state(optimiser)
    assert not [path for state in states for path, _ in nnx.to_flat_state(state) if "encoder" in path]


@cell(ROW, "Equinox", "does")
def _(folder):
    model = EqxModel(KEY)
    which = eqx.tree_at(lambda model: model.head, jax.tree.map(lambda _: False, model), replace_fn=lambda _: True)
    trained, frozen = eqx.partition(model, which)
    grads = jax.grad(lambda trained: jax.vmap(eqx.combine(trained, frozen))(X).sum())(trained)
    assert jax.tree.leaves(grads.encoder) == []
    optimiser = optax.adamw(1e-2, weight_decay=0.1)
    updates, slots = optimiser.update(grads, optimiser.init(trained), trained)
    after = eqx.combine(eqx.apply_updates(trained, updates), frozen)
    assert jax.tree.leaves(slots[0].mu.encoder) == []
    assert np.array_equal(after.encoder.weight, model.encoder.weight)
    assert not np.array_equal(after.head.weight, model.head.weight)


@cell(ROW, "Haiku", "does")
def _(folder):
    net, params = haiku_params()
    trained, frozen = hk.data_structures.partition(lambda module, *_: module == "head", params)
    grads = jax.grad(lambda trained: net.apply(hk.data_structures.merge(trained, frozen), None, X).sum())(trained)
    assert list(grads) == ["head"]
    optimiser = optax.adamw(1e-2, weight_decay=0.1)
    updates, slots = optimiser.update(grads, optimiser.init(trained), trained)
    after = hk.data_structures.merge(optax.apply_updates(trained, updates), frozen)
    assert list(slots[0].mu) == ["head"]
    assert np.array_equal(after["encoder"]["w"], params["encoder"]["w"])
    assert not np.array_equal(after["head"]["w"], params["head"]["w"])


@cell(ROW, "PyTorch", "does")
def _(folder):
    assert torch is not None
    model = torch_model()
    model.get_submodule("encoder").requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    before = model.get_parameter("encoder.weight").clone()
    model(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    assert torch.equal(model.get_parameter("encoder.weight"), before)
    assert len(optimiser.state) == 2


@cell(ROW, "Keras", "does")
def _(folder):
    model = keras_model()
    model.get_layer("encoder").trainable = False
    before = np.asarray(model.get_layer("encoder").kernel)
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1), loss="mse")
    model.fit(np.ones((2, 4)), np.ones((2, 8)), verbose=0)
    assert np.array_equal(np.asarray(model.get_layer("encoder").kernel), before)
    assert not [variable.path for variable in model.optimizer.variables if "encoder" in variable.path]


# optimiser state
ROW = "a saved optimiser state goes on in a changed model"
# In each cell the head was trained alone, its state is saved, and the encoder is trained from there on as well.


def head_alone(params, x):
    return (jax.nn.relu(x @ params["encoder/kernel"]) @ params["head/kernel"] + params["head/bias"]).sum()


@cell(ROW, "ptree", "does")
def _(folder):
    small = train.step(head_alone, train.groups({"encoder": train.FROZEN, "**": optax.adam(1e-2)}))
    state, _ = small(small.init(tree()), X)
    with pt.Checkpoints(folder / "run") as checkpoints:
        checkpoints.save(1, state)
        large = train.step(head_alone, train.groups({"**": optax.adam(1e-2)}))
        carried, report = train.load_state(checkpoints, tree(), large, before=small)
    assert sorted(report.kept) == ["head/bias", "head/kernel"]
    assert sorted(report.fresh) == ["encoder/bias", "encoder/kernel"]
    assert carried.params == state.params


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = NnxModel(nnx.Rngs(0))
    head = nnx.All(nnx.Param, nnx.PathContains("head"))
    small = nnx.Optimizer(model, optax.adam(1e-2), wrt=head)
    small.update(model, nnx.grad(lambda model: model(X).sum(), argnums=nnx.DiffState(0, head))(model))
    (folder / "state.pkl").write_bytes(pickle.dumps(nnx.to_pure_dict(nnx.state(small))))
    large = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    stored = pickle.loads((folder / "state.pkl").read_bytes())
    fresh = nnx.to_pure_dict(nnx.state(large))
    assert jax.tree.structure(stored) != jax.tree.structure(fresh)
    for slots in ("mu", "nu"):  # the names of Adam's slots are in the code
        fresh["opt_state"][0][slots] |= stored["opt_state"][0][slots]
    nnx.update(large, fresh)
    moved = nnx.to_pure_dict(nnx.state(large))["opt_state"][0]["mu"]
    assert moved["head"]["kernel"].any()
    assert not moved["encoder"]["kernel"].any()


@cell(ROW, "Equinox", "by hand")
def _(folder):
    model, optimiser = EqxModel(KEY), optax.adam(1e-2)
    everything = eqx.filter(model, eqx.is_inexact_array)
    head = eqx.tree_at(lambda model: model.encoder, everything, None)
    grads = jax.grad(lambda head: jax.vmap(eqx.combine(head, model))(X).sum())(head)
    _, state = optimiser.update(grads, optimiser.init(head))
    eqx.tree_serialise_leaves(folder / "state.eqx", state)
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever it says of other leaves at these positions
        eqx.tree_deserialise_leaves(folder / "state.eqx", optimiser.init(everything))
    stored = eqx.tree_deserialise_leaves(folder / "state.eqx", optimiser.init(head))
    large = optimiser.init(everything)  # the slots of Adam are named in the code
    moved = eqx.tree_at(lambda s: (s[0].mu.head, s[0].nu.head), large, (stored[0].mu.head, stored[0].nu.head))
    assert jax.tree.structure(moved) == jax.tree.structure(large)
    assert moved[0].mu.head.weight.any()
    assert not moved[0].mu.encoder.weight.any()


@cell(ROW, "Haiku", "by hand")
def _(folder):
    net, params = haiku_params()
    optimiser = optax.adam(1e-2)
    head, encoder = hk.data_structures.partition(lambda module, *_: module == "head", params)
    grads = jax.grad(lambda head: net.apply(hk.data_structures.merge(head, encoder), None, X).sum())(head)
    _, state = optimiser.update(grads, optimiser.init(head))
    (folder / "state.pkl").write_bytes(pickle.dumps(state))
    stored = pickle.loads((folder / "state.pkl").read_bytes())
    large = optimiser.init(params)
    assert jax.tree.structure(stored) != jax.tree.structure(large)
    merge = hk.data_structures.merge  # the slots of Adam are named in the code
    adam = large[0]._replace(mu=merge(large[0].mu, stored[0].mu), nu=merge(large[0].nu, stored[0].nu))
    assert jax.tree.structure((adam, *large[1:])) == jax.tree.structure(large)
    assert adam.mu["head"]["w"].any()
    assert not adam.mu["encoder"]["w"].any()


@cell(ROW, "PyTorch", "does")
def _(folder):
    assert torch is not None
    from torch.distributed.checkpoint import state_dict as by_name

    model = torch_model()
    small = torch.optim.Adam(model.get_submodule("head").parameters())
    model.get_submodule("encoder").requires_grad_(False)
    model(torch.ones(2, 4)).sum().backward()
    small.step()
    torch.save(by_name.get_optimizer_state_dict(model, small), folder / "state.pt")
    model.get_submodule("encoder").requires_grad_(True)
    large = torch.optim.Adam(model.parameters())
    with pytest.raises(ValueError, match="doesn't match the size"):
        large.load_state_dict(small.state_dict())  # the other way is by number
    options = by_name.StateDictOptions(strict=False)
    by_name.set_optimizer_state_dict(model, large, torch.load(folder / "state.pt"), options=options)
    assert sorted(large.state_dict()["state"]) == [2, 3]
    moments = large.state[model.get_parameter("head.weight")]["exp_avg"]
    assert torch.equal(moments, small.state[model.get_parameter("head.weight")]["exp_avg"])
    model(torch.ones(2, 4)).sum().backward()
    large.step()
    assert sorted(large.state_dict()["state"]) == [0, 1, 2, 3]


@cell(ROW, "Keras", "by hand")
def _(folder):
    model = keras_model()
    small, large = keras.optimizers.Adam(), keras.optimizers.Adam()
    small.build(model.get_layer("head").trainable_variables)
    large.build(model.trainable_variables)
    for variable in small.variables:
        if "velocity" in variable.path:
            variable.assign(np.ones(variable.shape, "f4"))
    stored: dict = {}
    small.save_own_variables(stored)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        large.load_own_variables(stored)  # warns, and loads nothing: by number
    assert not any(np.asarray(variable).any() for variable in large.variables if "velocity" in variable.path)
    by_name = {variable.path.partition("/")[2]: variable for variable in small.variables}  # after the optimiser's name
    for variable in large.variables:
        name = variable.path.partition("/")[2]
        if name in by_name:
            variable.assign(by_name[name])
    moved = [
        variable.path for variable in large.variables if "velocity" in variable.path and np.asarray(variable).any()
    ]
    assert len(moved) == 2
    assert all("head" in path for path in moved)


# stacks
ROW = "layers stacked for a scan, and apart: the same paths, either file"


@cell(ROW, "ptree", "does")
def _(folder):
    apart = pt.Tree({"blocks": [{"w": np.full(2, at, "f4")} for at in range(3)]})
    stacked = pt.stacks.stack(apart, "blocks")
    assert stacked["blocks/2/w"].tolist() == apart["blocks/2/w"].tolist()
    pt.save(folder / "apart.safetensors", apart)
    assert pt.load(folder / "apart.safetensors", like=stacked) == stacked


# The other libraries run stacked layers too. Which leaf is which layer of a model that is not stacked is in the user's code.


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    apart = [nnx.Linear(4, 4, rngs=nnx.Rngs(at)) for at in range(3)]
    graph, states = nnx.graphdef(apart[0]), [nnx.state(layer) for layer in apart]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    y, _ = jax.lax.scan(lambda x, state: (nnx.merge(graph, state)(x), None), X, stacked)
    assert np.allclose(y, apart[2](apart[1](apart[0](X))), atol=1e-6)
    assert [path for path, _ in nnx.to_flat_state(nnx.state(nnx.merge(graph, stacked)))] == [("bias",), ("kernel",)]
    third = nnx.merge(graph, jax.tree.map(lambda leaf: leaf[2], stacked))
    assert np.array_equal(third.kernel[...], apart[2].kernel[...])


@cell(ROW, "Equinox", "by hand")
def _(folder):
    keys = jax.random.split(KEY, 3)
    apart = [eqx.nn.Linear(4, 4, key=key) for key in keys]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *apart)
    made_so = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 4, key=key))(keys)
    assert eqx.tree_equal(stacked, made_so, rtol=1e-6)
    y, _ = jax.lax.scan(lambda x, layer: (layer(x), None), jnp.ones(4), stacked)
    assert np.allclose(y, apart[2](apart[1](apart[0](jnp.ones(4)))), atol=1e-6)
    eqx.tree_serialise_leaves(folder / "apart.eqx", apart)
    with pytest.raises(RuntimeError, match="has changed shape"):  # a file of one is no file of the other
        eqx.tree_deserialise_leaves(folder / "apart.eqx", stacked)


@cell(ROW, "Haiku", "by hand")
def _(folder):
    def in_turn(x):
        for at in range(3):
            x = hk.Linear(4, name=f"block_{at}")(x)
        return x

    def scanned(x):
        return hk.experimental.layer_stack(3)(lambda x: hk.Linear(4, name="block")(x))(x)

    apart, stack = (hk.without_apply_rng(hk.transform(f)) for f in (in_turn, scanned))
    params = apart.init(KEY, X)
    (name,) = stack.init(KEY, X)
    assert name not in params  # other names, and the code says which is which
    stacked = {name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params[f"block_{at}"] for at in range(3)])}
    assert np.allclose(stack.apply(stacked, X), apart.apply(params, X), atol=1e-6)


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    apart = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(3)])
    stacked, _ = torch.func.stack_module_state(list(apart))
    x = torch.ones(2, 4)
    for at in range(3):
        x = torch.func.functional_call(apart[0], {name: leaf[at] for name, leaf in stacked.items()}, x)
    assert torch.allclose(x, apart(torch.ones(2, 4)))
    assert list(stacked) == ["weight", "bias"]
    assert "2.weight" in apart.state_dict()


@cell(ROW, "Keras", "by hand")
def _(folder):
    apart = keras.Sequential([keras.Input((4,)), *[keras.layers.Dense(4, name=f"block_{at}") for at in range(3)]])
    block = apart.layers[0]
    stacked = [keras.ops.stack(leaves) for leaves in zip(*[layer.trainable_variables for layer in apart.layers])]
    y, _ = keras.ops.scan(lambda x, leaves: (block.stateless_call(list(leaves), [], x)[0], None), X, stacked)
    assert np.allclose(y, apart(X), atol=1e-6)
    apart.layers[2].set_weights([leaf[2] for leaf in stacked])
    assert np.allclose(y, apart(X), atol=1e-6)


# conversion
ROW = "weights of other frameworks by a table that runs both ways"


@cell(ROW, "ptree", "does")
def _(folder):
    net = nn.Sequential(nn.Dense(8), nn.Dense(2))
    params = net.init(KEY, X)
    table = convert.layer_table(net, X, framework="torch")
    assert table.apply(table.inverse.apply(params), like=net.spec(X)) == params


OF_PYTORCH = {"weight": np.arange(32, dtype="f4").reshape(8, 4), "bias": np.arange(8, dtype="f4")}
OUTPUT = np.ones((2, 4), "f4") @ OF_PYTORCH["weight"].T + OF_PYTORCH["bias"]


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    layer = nnx.Linear(4, 8, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.bias[...] = OF_PYTORCH["weight"].T, OF_PYTORCH["bias"]
    assert np.allclose(layer(X), OUTPUT)


@cell(ROW, "Equinox", "by hand")
def _(folder):
    layer = eqx.nn.Linear(4, 8, key=KEY)
    layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (OF_PYTORCH["weight"], OF_PYTORCH["bias"]))
    assert np.allclose(jax.vmap(layer)(X), OUTPUT)


@cell(ROW, "Haiku", "by hand")
def _(folder):
    net = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(8, name="linear")(x)))
    assert np.allclose(net.apply({"linear": {"w": OF_PYTORCH["weight"].T, "b": OF_PYTORCH["bias"]}}, X), OUTPUT)


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    layer = torch.nn.Linear(4, 8)
    of_keras = {"weight": OF_PYTORCH["weight"].T, "bias": OF_PYTORCH["bias"]}
    layer.load_state_dict({"weight": torch.tensor(of_keras["weight"].T), "bias": torch.tensor(of_keras["bias"])})
    assert np.allclose(layer(torch.ones(2, 4)).detach().numpy(), OUTPUT)


@cell(ROW, "Keras", "by hand")
def _(folder):
    layer = keras.layers.Dense(8)
    layer.build((None, 4))
    layer.set_weights([OF_PYTORCH["weight"].T, OF_PYTORCH["bias"]])
    assert np.allclose(layer(np.ones((2, 4))), OUTPUT)


# placement
ROW = "place on a mesh by patterns of names"


@cell(ROW, "ptree", "does")
def _(folder):
    mesh = AbstractMesh((4, 3), ("data", "model"))
    with pytest.raises(shard.ShardingError) as error:
        shard.plan(tree(), {"**/kernel": P(None, "model"), "**": P()}, mesh)
    assert "'encoder/kernel'" in str(error.value)
    assert "'head/kernel'" in str(error.value)


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))  # in the code of the model
    with jax.set_mesh(jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))):
        layer = nnx.Linear(4, 8, kernel_init=init, rngs=nnx.Rngs(0))
    assert layer.kernel[...].sharding.spec == P(None, "model")


@cell(ROW, "Equinox", "by hand")
def _(folder):
    _placed_by_hand(eqx.filter(EqxModel(KEY), eqx.is_array))


@cell(ROW, "Haiku", "by hand")
def _(folder):
    _placed_by_hand(haiku_params()[1])


def _placed_by_hand(params):
    mesh = jax.make_mesh((8,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))

    def sharding(path, leaf):
        is_kernel = jax.tree_util.keystr(path).endswith(("weight", "['w']"))
        return NamedSharding(mesh, P("model") if is_kernel and leaf.shape[0] == 8 else P())

    placed = jax.device_put(params, jax.tree_util.tree_map_with_path(sharding, params))
    assert any(leaf.sharding.spec == P("model") for leaf in jax.tree.leaves(placed))


@cell(ROW, "PyTorch", "does")
def _(folder):
    from torch import distributed
    from torch.distributed.tensor import parallel

    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    try:
        mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = parallel.parallelize_module(torch_model(), mesh, {"enc*": parallel.ColwiseParallel()})
    finally:
        distributed.destroy_process_group()
    assert isinstance(model.get_parameter("encoder.weight"), distributed.tensor.DTensor)
    assert not isinstance(model.get_parameter("head.weight"), distributed.tensor.DTensor)


@cell(ROW, "Keras", "does")
def _(folder):
    mesh = keras.distribution.DeviceMesh((4, 2), ("data", "model"), devices=[f"cpu:{at}" for at in range(8)])
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*enc.*/kernel"] = (None, "model")
    with keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="data").scope():
        model = keras_model()
    assert model.get_layer("encoder").kernel.value.sharding.spec == P(None, "model")
    assert model.get_layer("head").kernel.value.sharding.is_fully_replicated


# what ptree lacks
ROW = "a published model by its name, with its weights"


def publish(folder: Path) -> np.ndarray:
    """Write the weights of an MLP under PyTorch's names, and give what it computes for X."""
    draw = np.random.default_rng(0)
    shapes = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (3, 8), "2.bias": (3,)}
    weights = {name: draw.normal(size=shape).astype("f4") for name, shape in shapes.items()}
    np.savez(folder / "published.npz", **weights)
    hidden = np.maximum(np.asarray(X) @ weights["0.weight"].T + weights["0.bias"], 0)
    return hidden @ weights["2.weight"].T + weights["2.bias"]


# In these libraries one writes the model, and its weights come from a file.
@cell(ROW, "ptree", "by hand")
def _(folder):
    expected = publish(folder)
    net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dense(3))
    table = convert.layer_table(net, X, framework="torch")
    params = table.apply(dict(np.load(folder / "published.npz")), like=net.spec(X))
    assert np.allclose(net(params, X), expected, atol=1e-5)


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    expected, weights = publish(folder), np.load(folder / "published.npz")
    model = nnx.Sequential(nnx.Linear(4, 8, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(8, 3, rngs=nnx.Rngs(0)))
    for at in (0, 2):
        model.layers[at].kernel[...] = weights[f"{at}.weight"].T
        model.layers[at].bias[...] = weights[f"{at}.bias"]
    assert np.allclose(model(X), expected, atol=1e-5)


@cell(ROW, "Equinox", "by hand")
def _(folder):
    expected, weights = publish(folder), np.load(folder / "published.npz")
    model = eqx.nn.MLP(4, 3, 8, 1, key=KEY)
    arrays = [weights[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias")]

    def leaves(model):
        return [leaf for layer in model.layers for leaf in (layer.weight, layer.bias)]

    model = eqx.tree_at(leaves, model, arrays)
    assert np.allclose(jax.vmap(model)(X), expected, atol=1e-5)


@cell(ROW, "Haiku", "by hand")
def _(folder):
    expected, weights = publish(folder), np.load(folder / "published.npz")
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 3], name="mlp")(x)))
    params = {
        f"mlp/~/linear_{at}": {"w": weights[f"{name}.weight"].T, "b": weights[f"{name}.bias"]}
        for at, name in enumerate(("0", "2"))
    }
    assert np.allclose(net.apply(params, X), expected, atol=1e-5)


HUBCONF = """
import torch

def mlp(pretrained=True):
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    model.load_state_dict(torch.hub.load_state_dict_from_url({url!r}, model_dir={cache!r}, progress=False))
    return model
"""


@cell(ROW, "PyTorch", "does")
def _(folder):
    assert torch is not None
    expected = publish(folder)
    weights = {name: torch.from_numpy(array) for name, array in np.load(folder / "published.npz").items()}
    torch.save(weights, folder / "published.pt")
    source = HUBCONF.format(url=(folder / "published.pt").as_uri(), cache=str(folder / "cache"))
    (folder / "hubconf.py").write_text(source)  # as in the repositories of the hub
    model = torch.hub.load(str(folder), "mlp", source="local")
    assert np.allclose(model(torch.ones(2, 4)).detach().numpy(), expected, atol=1e-5)


@cell(ROW, "Keras", "does")
def _(folder):
    options = {"include_top": False, "input_shape": (32, 32, 3)}
    keras.applications.VGG16(weights=None, **options).save_weights(folder / "published.weights.h5")
    with h5py.File(folder / "published.weights.h5", "r+") as file:
        bias = file["layers/conv2d/vars/1"]
        bias[...] = np.full(bias.shape, 7, "f4")
    # with "imagenet", the default, such a file is downloaded
    model = keras.applications.VGG16(weights=str(folder / "published.weights.h5"), **options)
    assert (np.asarray(model.get_layer("block1_conv1").bias) == 7).all()


@pytest.mark.parametrize("this", [this for this in CELLS if this.library != "PyTorch" or torch], ids=by_row_and_library)
def test_a_cell_is_so(this, tmp_path):
    this.check(tmp_path)
