"""The README's table of what libraries do, what one writes by hand there, and what they cannot: each cell is run."""

import fnmatch
import os
import pickle
import re
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
    claim: str  # does; by hand: with code around it; cannot: only with another format of files or another library
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
ROW = "select by a pattern over whole paths, `**/bias`"


@cell(ROW, "ptree", "does")
def _(folder):
    assert pt.paths(tree(), "**/bias") == ["encoder/bias", "head/bias"]


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    biases = nnx.state(NnxModel(nnx.Rngs(0)), lambda path, _: fnmatch.fnmatch("/".join(map(str, path)), "*/bias"))
    assert [path for path, _ in nnx.to_flat_state(biases)] == [("encoder", "bias"), ("head", "bias")]


@cell(ROW, "Equinox", "by hand")
def _(folder):
    leaves = jax.tree.leaves_with_path(EqxModel(KEY))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    assert fnmatch.filter(names, "*/bias") == ["encoder/bias", "head/bias"]


@cell(ROW, "Haiku", "by hand")
def _(folder):
    biases, _ = hk.data_structures.partition(lambda module, name, _: name == "bias" or name == "b", haiku_params()[1])
    assert list(biases) == ["encoder", "head"]


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    names = [name for name, _ in torch_model().named_parameters()]
    assert fnmatch.filter(names, "*.bias") == ["encoder.bias", "head.bias"]


@cell(ROW, "Keras", "by hand")
def _(folder):
    names = [weight.path for weight in keras_model().weights]
    assert [name.partition("/")[2] for name in fnmatch.filter(names, "*/bias")] == ["encoder/bias", "head/bias"]


# set one parameter
ROW = "set a parameter; another shape is refused"


@cell(ROW, "ptree", "does")
def _(folder):
    with pytest.raises(pt.StructureError, match=r"'head/bias'"):
        pt.set(tree(), "head/bias", jnp.ones(1))


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    model = NnxModel(nnx.Rngs(0))
    nnx.update(model, {"head": {"bias": jnp.ones(1)}})
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
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict({"head.bias": torch.ones(1)}, strict=False)
    with torch.no_grad():
        model.get_parameter("head.bias").copy_(torch.ones(1))  # the way most use broadcasts in silence
    assert model.get_parameter("head.bias").tolist() == [1.0] * 8


@cell(ROW, "Keras", "does")
def _(folder):
    with pytest.raises(ValueError, match="shape"):
        keras_model().get_layer("head").bias.assign(np.ones(1))


# tie two parameters
ROW = "tie two parameters, also through a transpose"


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
    head.weight = embed.weight  # of one shape; a transposed one must be written into the code of the model
    assert len(list(torch.nn.ModuleList([embed, head]).parameters())) == 1


@cell(ROW, "Keras", "by hand")
def _(folder):
    embed = keras.layers.Embedding(5, 3)
    embed.build(None)
    assert keras.ops.matmul(embed(np.arange(2)), keras.ops.transpose(embed.embeddings)).shape == (2, 5)


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


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    tied, untied = torch_model(), torch_model()
    tied.encoder = tied.head
    torch.save(tied.state_dict(), folder / "tied.pt")
    untied.encoder = torch.nn.Linear(8, 8)
    loaded = torch.load(folder / "tied.pt")
    assert loaded["encoder.weight"].data_ptr() == loaded["head.weight"].data_ptr()
    untied.load_state_dict(loaded)
    assert len(list(untied.parameters())) == 4  # two parameters: the code has to tie them again


@cell(ROW, "Keras", "by hand")
def _(folder):
    shared = keras.layers.Dense(4, name="shared")
    tied = keras.Sequential([keras.Input((4,)), shared, keras.layers.Activation("relu"), shared])
    tied.save_weights(folder / "tied.weights.h5")
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
    with pytest.raises(RuntimeError, match=r"size mismatch"):
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


@cell(ROW, "Flax nnx", "cannot")
def _(folder):
    values = np.random.default_rng(0).normal(size=1 << 16).astype("f4")
    with ocp.StandardCheckpointer() as checkpointer:  # nnx has no files of its own
        checkpointer.save(folder / "m", {"w": jnp.asarray(values)})
        checkpointer.wait_until_finished()
        largest = max((file for file in (folder / "m").rglob("*") if file.is_file()), key=os.path.getsize)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        assert (checkpointer.restore(folder / "m")["w"] != values).any()


@cell(ROW, "Equinox", "cannot")
def _(folder):
    eqx.tree_serialise_leaves(folder / "m.eqx", {"w": jnp.full(64, VALUE)})
    change_a_bit(folder / "m.eqx")
    loaded = eqx.tree_deserialise_leaves(folder / "m.eqx", {"w": jnp.zeros(64)})
    assert (loaded["w"] != VALUE).sum() == 1


@cell(ROW, "Haiku", "cannot")
def _(folder):
    (folder / "m.pkl").write_bytes(pickle.dumps({"w": np.full(64, VALUE)}))
    change_a_bit(folder / "m.pkl")
    assert (pickle.loads((folder / "m.pkl").read_bytes())["w"] != VALUE).sum() == 1


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
ROW = "freeze by a rule: no gradient, no moments, no decay"


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


@cell(ROW, "Equinox", "by hand")
def _(folder):
    model = EqxModel(KEY)
    which = eqx.tree_at(lambda model: model.head, jax.tree.map(lambda _: False, model), replace_fn=lambda _: True)
    trained, frozen = eqx.partition(model, which)
    grads = jax.grad(lambda trained: jax.vmap(eqx.combine(trained, frozen))(X).sum())(trained)
    assert jax.tree.leaves(grads.encoder) == []


@cell(ROW, "Haiku", "by hand")
def _(folder):
    net, params = haiku_params()
    trained, frozen = hk.data_structures.partition(lambda module, *_: module == "head", params)
    grads = jax.grad(lambda trained: net.apply(hk.data_structures.merge(trained, frozen), None, X).sum())(trained)
    assert list(grads) == ["head"]


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


# optimiser state
ROW = "a saved optimiser state goes on in a changed model"


@cell(ROW, "ptree", "does")
def _(folder):
    step = train.step(lambda p, x: (x @ p["a"]).sum(), train.groups({"**": optax.adam(1e-2)}))
    state, _ = step(step.init({"a": jnp.ones((4, 2))}), X)
    other = train.step(lambda p, x: (x @ p["b"]).sum() + p["c"].sum(), train.groups({"**": optax.adam(1e-2)}))
    carried, report = train.carry_state(
        state, pt.put(pt.rename(state.params, {"a": "b"}), "c", jnp.ones(3)), other, before=step, renames={"a": "b"}
    )
    assert list(report.fresh) == ["c"]
    assert not np.any(np.isnan(carried.params["b"]))


def _adam_of(params):
    return optax.adam(1e-2).init(params)


@cell(ROW, "Flax nnx", "by hand")
def _(folder):
    _needs_a_map_by_hand(_adam_of({"a": jnp.ones(2)}))


@cell(ROW, "Equinox", "by hand")
def _(folder):
    _needs_a_map_by_hand(_adam_of({"a": jnp.ones(2)}))


@cell(ROW, "Haiku", "by hand")
def _(folder):
    _needs_a_map_by_hand(_adam_of({"a": jnp.ones(2)}))


def _needs_a_map_by_hand(state):
    """An optax state of a changed model is another tree: its parts are moved by code for this optimiser."""
    with pytest.raises(ValueError, match=r"[Kk]ey|Dict"):
        jax.tree.map(lambda new, old: old, _adam_of({"b": jnp.ones(2)}), state)
    moved = state[0]._replace(mu={"b": state[0].mu["a"]}, nu={"b": state[0].nu["a"]})
    assert jax.tree.structure((moved, state[1])) == jax.tree.structure(_adam_of({"b": jnp.ones(2)}))


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    model = torch_model()
    small = torch.optim.Adam([*model.get_submodule("head").named_parameters("head")])
    model(torch.ones(2, 4)).sum().backward()
    small.step()
    large = torch.optim.Adam([*model.named_parameters()])
    stored = small.state_dict()
    with pytest.raises(ValueError, match="doesn't match the size"):  # by number
        large.load_state_dict(stored)
    by_name = dict(zip(stored["param_groups"][0]["param_names"], stored["state"].values()))
    group = large.state_dict()["param_groups"][0]
    moved = {at: by_name[name] for at, name in enumerate(group["param_names"]) if name in by_name}
    large.load_state_dict({"state": moved, "param_groups": [group]})
    assert sorted(large.state_dict()["state"]) == [2, 3]


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


@cell(ROW, "Flax nnx", "by hand")
@cell(ROW, "Equinox", "by hand")
@cell(ROW, "Haiku", "by hand")
@cell(ROW, "Keras", "by hand")
def _(folder):
    apart = [{"w": np.full(2, at, "f4")} for at in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *apart)
    assert jax.tree.map(lambda leaf: leaf[2], stacked)["w"].tolist() == [2, 2]


@cell(ROW, "PyTorch", "by hand")
def _(folder):
    assert torch is not None
    stacked, _ = torch.func.stack_module_state([torch.nn.Linear(4, 4) for _ in range(3)])
    assert stacked["weight"].shape == (3, 4, 4)


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
    layouts["encoder.*kernel"] = (None, "model")
    assert layouts["encoder/kernel"].axes == (None, "model")


# what ptree lacks
ROW = "models that are trained already"


@cell(ROW, "ptree", "cannot")
def _(folder):
    assert not any(re.search("pretrained|hub|zoo", name) for name in [*pt.__all__, *nn.__all__])


@cell(ROW, "Flax nnx", "cannot")
def _(folder):
    assert not any(re.search("pretrained|hub|zoo", name) for name in dir(nnx))


@cell(ROW, "Equinox", "cannot")
def _(folder):
    assert not any(re.search("pretrained|hub|zoo", name) for name in [*dir(eqx), *dir(eqx.nn)])


@cell(ROW, "Haiku", "cannot")
def _(folder):
    assert not any(re.search("pretrained|hub|zoo", name) for name in dir(hk))


@cell(ROW, "PyTorch", "does")
def _(folder):
    assert torch is not None
    assert callable(torch.hub.load)


@cell(ROW, "Keras", "does")
def _(folder):
    assert "weights" in keras.applications.ResNet50.__code__.co_varnames


@pytest.mark.parametrize("this", [this for this in CELLS if this.library != "PyTorch" or torch], ids=by_row_and_library)
def test_a_cell_is_so(this, tmp_path):
    this.check(tmp_path)
