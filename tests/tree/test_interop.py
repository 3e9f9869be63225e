"""The guide's line for each library: run on a tied and on a stacked Tree, and what a Tree alone would give there.

The lines of libraries that are not installed are left out. Those that the guide marks "by hand" are in no extra:
`pip install clu distrax jaxopt jraph kfac-jax penzai rlax` before this file is run.
"""

import contextlib
import importlib
import json
import pickle
import re
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from foreign import TwoDense
from jax.flatten_util import ravel_pytree
from trees import arange

import ptree as pt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import chex
    import cloudpickle
    import equinox as eqx
    import h5py
    import haiku as hk
    import jmp
    import orbax.checkpoint as ocp
    import treescope
    from flax import linen, nnx, serialization, struct, traverse_util
    from flax.training import checkpoints
    from flax.training.train_state import TrainState
    from jaxtyping import Array, Float, PyTree
    from safetensors.flax import load_file, save_file

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "examples" / "guides" / "interop.md").read_text()
KEPT = "the Tree, ties and stacks kept"
SLOTS = "a state whose slots are Trees"
KEY = jax.random.key(0)
X = jnp.ones((2, 3))


def double(tree):
    return jax.tree.map(lambda leaf: 2 * leaf, tree)


def loss(params):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


# ------------------------------------------------------------------------------- the rows of the page


@dataclass
class Row:
    name: str
    works: str
    line: str
    back: str


def rows_of_the_page():
    table = GUIDE[GUIDE.index("| with | a Tree | the line |") :].split("\n\n")[0]
    lines = table.splitlines()[2:]
    rows = [Row(*re.fullmatch(r"\| (.*?) \| (.*?) \| `(.*)` \| (.*) \|", line).groups()) for line in lines]
    assert all(row.works in ("as it is", "one line") for row in rows)
    return rows


ROWS = rows_of_the_page()


def small(form):
    """A small Tree of each form: tied through a transpose, or stacked."""
    if form == "tied":
        tree = {"embed": {"table": arange(5, 3)}, "head": {"kernel": arange(3, 5), "bias": jnp.ones(5)}}
        return {
            "params": pt.tie(tree, {"head/kernel": pt.transposed("embed/table")}),
            "name": "bias",
            "path": "head/bias",
        }
    tree = pt.Tree({"blocks": [{"w": arange(2, 2, start=at)} for at in range(3)], "n": jnp.ones(3)})
    return {"params": pt.stacks.stack(tree, "blocks"), "name": "n", "path": "n"}


@dataclass
class Case:
    """How a row of the page is run."""

    names: Callable = small
    """form -> the names that the line uses, `params` among them."""
    check: Callable | None = None
    """What comes back, names -> asserts it; without one the row says that the Tree does, or a state of Trees."""
    fails: tuple[str, str] = ("", "")
    """What a Tree alone gives where one line is needed: an expression, and the error that it raises."""
    gives: tuple[str, object] = ("", None)
    """The same where it raises nothing: an expression, and its value."""
    needs: str = ""
    """The library, where the extra `test` does not have it."""
    forms: tuple[str, ...] = ("tied", "stacked")
    context: Callable = contextlib.nullcontext


# ----------------------------------------------------------------------------- models of the libraries


class OneDense(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return linen.Dense(3)(x), None


class Scanned(linen.Module):
    @linen.compact
    def __call__(self, x):
        layers = linen.scan(OneDense, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return layers(name="layers")(x, None)[0]


def linen_model(form):
    module = TwoDense()
    params = pt.tie(module.init(KEY, X)["params"], {"Dense_1": "Dense_0"})
    kernel, bias = params["Dense_0/kernel"], params["Dense_0/bias"]
    return {"module": module, "params": params, "expected": jnp.tanh(X @ kernel + bias) @ kernel + bias}


def scanned_model(form):
    module = Scanned()
    variables = module.init(KEY, X)
    params = pt.rename(pt.Tree(variables["params"]), {"layers": "layers/:"})
    return {"module": module, "params": params, "expected": module.apply(variables, X)}


class Layers(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(3)])

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


def by_hand(x, kernels, biases):
    for kernel, bias in zip(kernels, biases, strict=True):
        x = jnp.tanh(x @ kernel + bias)
    return x


def tied_or_stacked(form, model):
    """A model with three equal layers, of which two are tied, or all are one stack."""
    return (
        pt.tie(model, {"layers/{1,2}": "layers/0"}) if form == "tied" else pt.stacks.stack(pt.tie(model, {}), "layers")
    )


def nnx_model(form):
    module = Layers(nnx.Rngs(0))
    graphdef, state = nnx.split(module)
    params = tied_or_stacked(form, state)
    kernels = [params[f"layers/{at}/kernel/value"] for at in range(3)]
    expected = by_hand(X, kernels, [params[f"layers/{at}/bias/value"] for at in range(3)])
    return {
        "nnx": nnx,
        "module": Layers(nnx.Rngs(1)),
        "graphdef": graphdef,
        "state": state,
        "params": params,
        "expected": expected,
    }


def equinox_model(form):
    model = eqx.nn.MLP(3, 3, 3, 2, activation=jnp.tanh, final_activation=jnp.tanh, key=KEY)
    arrays, static = eqx.partition(model, eqx.is_array)
    params = tied_or_stacked(form, arrays)
    kernels = [params[f"layers/{at}/weight"].T for at in range(3)]
    expected = by_hand(X[0], kernels, [params[f"layers/{at}/bias"] for at in range(3)])
    return {"arrays": arrays, "static": static, "params": params, "x": X[0], "expected": expected}


def haiku_model(form):
    net = hk.transform(lambda x: hk.nets.MLP([3, 3], activation=jnp.tanh)(x))
    haiku_params = net.init(jax.random.PRNGKey(0), X)
    params = pt.tie(haiku_params, {"mlp/~/linear_1": "mlp/~/linear_0"})
    w, b = haiku_params["mlp/~/linear_0"]["w"], haiku_params["mlp/~/linear_0"]["b"]
    expected = jnp.tanh(X @ w + b) @ w + b
    return {"net": net, "haiku_params": haiku_params, "params": params, "expected": expected}


def haiku_stack(form):
    net = hk.transform(lambda x: hk.experimental.layer_stack(3)(lambda x: hk.Linear(3)(x))(x))
    haiku_params = net.init(jax.random.PRNGKey(0), X)
    name = next(iter(haiku_params)).partition("/")[0]
    params = pt.rename(pt.Tree(haiku_params), {name: f"{name}/:"})
    assert params[f"{name}/2/linear/w"].shape == (3, 3)
    expected = net.apply(haiku_params, None, X)
    return {"net": net, "haiku_params": haiku_params, "name": name, "params": params, "expected": expected}


def keras_model(form):
    import keras

    model = keras.Sequential([keras.layers.Dense(3, activation="tanh", name=str(at)) for at in range(3)], name="layers")
    model.build((None, 3))
    params = tied_or_stacked(form, pt.Tree({variable.path: variable.value for variable in model.trainable_variables}))
    expected = by_hand(X, *([params[f"layers/{at}/{name}"] for at in range(3)] for name in ("kernel", "bias")))
    return {"model": model, "params": params, "expected": expected}


def computes_the_same(result, names):
    np.testing.assert_allclose(result[0] if isinstance(result, tuple) else result, names["expected"], rtol=1e-5)


def the_module_computes_the_same(result, names):
    assert result is None
    np.testing.assert_allclose(names["module"](X), names["expected"], rtol=1e-5)


def is_no_state_for_nnx(names, form):
    """A Tree has no keys that are numbers: newer versions refuse it, older ones take it if its names are those of the module."""
    module = names["module"]
    try:
        nnx.update(module, names["params"])
    except KeyError as error:
        assert "Invalid key" in str(error)
        return
    assert form == "tied" or not np.allclose(module(X), names["expected"])


class Holder(nnx.Module):
    def __init__(self, param):
        self.p = param


@struct.dataclass
class Struct:
    params: pt.Tree


class Module(eqx.Module):
    params: pt.Tree


@chex.dataclass
class Chex:
    params: pt.Tree


# ------------------------------------------------------------------------------------ checks and names


def is_the_tree(result, names):
    params = names["params"]
    assert type(result) is pt.Tree
    assert jax.tree.structure(result) == jax.tree.structure(params)
    assert pt.ties(result) == pt.ties(params)


def is_the_tree_of_cloudpickle_too(result, names):
    is_the_tree(result, names)
    is_the_tree(cloudpickle.loads(cloudpickle.dumps(names["params"])), names)


def has_trees_as_slots(result, names):
    nodes = jax.tree.leaves(result, is_leaf=lambda node: type(node) is pt.Tree)
    slots = [node for node in nodes if type(node) is pt.Tree]
    assert len(slots) == 2
    for slot in slots:
        assert pt.ties(slot) == pt.ties(names["params"])
        assert {*pt.paths(slot)} <= {*pt.paths(names["params"])}


def has_two_slots_of_the_name(result, names):
    assert [path for path, _ in result] == [f"0/mu/{names['path']}", f"0/nu/{names['path']}"]


def has_every_name(result, names):
    every_name = dict(pt.items(names["params"], aliases=True))
    assert result.keys() == every_name.keys()
    assert all(np.array_equal(result[path], leaf) for path, leaf in every_name.items())


def is_haikus_dict(result, names):
    assert jax.tree.structure(result) == jax.tree.structure(names["haiku_params"])
    doubled = double(pt.unflatten(names["params"], like=names["haiku_params"]))
    assert all(map(np.array_equal, jax.tree.leaves(result), jax.tree.leaves(doubled)))


def can_be_read_by_path(result, names):
    file = names["hdf5"]
    again = pt.unflatten({path: file[path][...] for path in pt.paths(names["params"])}, like=names["params"])
    is_the_tree(again, names)
    assert again == jax.tree.map(np.asarray, names["params"])


def holds_each_leaf_once(result, names):
    assert json.loads(result).keys() == {*pt.paths(names["params"])}


def was_logged(result, names):
    (logged,) = names["logged"]
    assert logged == {
        f"norm/{path}": pytest.approx(float(jnp.linalg.norm(leaf))) for path, leaf in pt.items(names["params"])
    }


def keeps_ties_in_optree(result, names):
    import optree

    for form in ("tied", "stacked"):
        is_the_tree(optree.tree_map(lambda leaf: 2 * leaf, small(form)["params"], namespace="params"), small(form))


def is_apart_for_dm_tree(names, form):
    import tree

    params = names["params"]
    assert len(tree.flatten(params)) > len(jax.tree.leaves(params))
    if form == "stacked":
        assert pt.paths(tree.map_structure(lambda leaf: 2 * leaf, params))[0] == "blocks/0/w"


def with_names(*more, **others):
    """The names of a small Tree, and others; those of functions are made for each run."""

    def names(form):
        found = {**small(form), **others}
        for make in more:
            found |= make(found)
        return found

    return names


def gradients(names):
    return {"grads": jax.grad(loss)(names["params"])}


def matrices(names):
    return {"matrices": lambda path, leaf: leaf.ndim > 1}


def other_value(names):
    return {"value": 2 * names["params"][names["path"]]}


def stored_in_memory(names):
    return {"hdf5": h5py.File("none", "w", driver="core", backing_store=False)}


def as_text(names):
    return {"text": json.dumps({path: leaf.tolist() for path, leaf in pt.items(names["params"])})}


def logger(names):
    logged = []
    return {"logged": logged, "run": SimpleNamespace(log=logged.append)}


def sampler(names):
    from numpyro.infer import HMC, MCMC

    kernel = HMC(potential_fn=loss, step_size=0.01, num_steps=1, adapt_step_size=False, adapt_mass_matrix=False)
    return {"mcmc": MCMC(kernel, num_warmup=0, num_samples=2, progress_bar=False)}


def seeded():
    import numpyro

    return numpyro.handlers.seed(rng_seed=0)


def orbax(names):
    return {"checkpointer": ocp.StandardCheckpointer()}


def clu_table(result, names):
    for path in pt.paths(names["params"]):
        assert path in result


KERAS_FAILS = ("model.stateless_call(params, [], x)", ".")
HAIKU_FAILS = ("net.apply(params, None, x)", "Unable to retrieve parameter")
LINEN_FAILS = ('module.apply({"params": params}, x)', "should be a dictionary of collections")

CASES = {
    "JAX 0.9.0 to 0.12.0: transformations": Case(),
    "JAX: loops": Case(),
    "JAX: maps with paths": Case(),
    "JAX: one vector": Case(),
    "JAX: export": Case(),
    "optax 0.2.8: a step": Case(with_names(gradients)),
    "optax: `contrib`": Case(),
    "optax: masks": Case(with_names(matrices)),
    "optax: groups": Case(with_names(matrices)),
    "optax: arithmetic": Case(),
    "optax: slots": Case(),
    "optax: a leaf of a state by its name": Case(
        check=has_two_slots_of_the_name, gives=("optax.tree.get_all_with_path(tx.init(params), name)", [])
    ),
    "optax: a leaf of a state is set": Case(
        with_names(other_value), gives=("optax.tree.get_all_with_path(tx.init(params), name)", [])
    ),
    "linen 0": Case(linen_model, computes_the_same, LINEN_FAILS, forms=("tied",)),
    "linen: layers of": Case(scanned_model, computes_the_same, LINEN_FAILS, forms=("stacked",)),
    "nnx 0": Case(nnx_model, computes_the_same, ("nnx.merge(graphdef, params)", "leaves|PathError|mismatch")),
    "nnx: into a module": Case(nnx_model, the_module_computes_the_same, gives=(is_no_state_for_nnx, None)),
    "nnx: a Tree in a variable": Case(),
    "flax: `TrainState`": Case(with_names(gradients)),
    "flax: `serialization`": Case(),
    "flax: `training.checkpoints`": Case(),
    "flax: `traverse_util`": Case(check=has_every_name, fails=("traverse_util.flatten_dict(params)", r"expected \(frozen\)dict"), forms=("tied",)),
    "flax: `struct.dataclass`": Case(),
    "Equinox 0": Case(equinox_model, computes_the_same, ("eqx.combine(params, static)", ".")),
    "Equinox: `filter_jit`": Case(),
    "Equinox: `partition`": Case(),
    "Equinox: a Tree in a field": Case(),
    "Equinox: files": Case(),
    "Equinox: `tree_at`": Case(),
    "Haiku 0": Case(haiku_model, computes_the_same, HAIKU_FAILS, forms=("tied",)),
    "Haiku: `layer_stack`": Case(haiku_stack, computes_the_same, HAIKU_FAILS, forms=("stacked",)),
    "Haiku: `hk.data_structures`": Case(
        haiku_model, is_haikus_dict, ("hk.data_structures.map(lambda module, name, leaf: 2 * leaf, params)", "unsupported operand"), forms=("tied",)
    ),
    "Keras": Case(keras_model, computes_the_same, KERAS_FAILS),
    "jmp": Case(),
    "chex 0": Case(check=lambda result, names: result is None),
    "chex: `dataclass`": Case(),
    "jaxtyping": Case(check=lambda result, names: result is True),
    "einops": Case(needs="einops"),
    "treescope": Case(check=lambda result, names: result.startswith("Tree({")),
    "Orbax 0": Case(with_names(orbax)),
    "Orbax: `CheckpointManager`": Case(),
    "pickle": Case(check=is_the_tree_of_cloudpickle_too),
    "safetensors": Case(fails=("save_file(params, file)", ".")),
    "NumPy's npz": Case(fails=("np.savez(file, **params)", "a Tree is no array")),
    "h5py": Case(with_names(stored_in_memory), can_be_read_by_path, ('hdf5.create_dataset("params", data=params)', "."), needs="h5py"),
    "json; yaml": Case(check=holds_each_leaf_once, fails=("json.dumps(params)", "not JSON serializable")),
    "json, back": Case(with_names(as_text), fails=("pt.check(json.loads(text), params)", ".")),
    "wandb": Case(with_names(logger), was_logged, ("json.dumps(params)", "not JSON serializable")),
    "clu": Case(check=clu_table, fails=("parameter_overview.get_parameter_overview(params)", "to be a dictionary"), needs="clu"),
    "dm-tree": Case(gives=(is_apart_for_dm_tree, None), needs="tree"),
    "optree": Case(check=keeps_ties_in_optree, gives=("len(optree.tree_leaves(params))", 1), needs="optree", forms=("tied",)),
    "NumPyro 0.22.0: a Tree": Case(needs="numpyro"),
    "NumPyro: a prior": Case(needs="numpyro", context=seeded, fails=('numpyro.sample("net", jax.tree.map(lambda leaf: dist.Normal(0, 1), params))', ".")),
    "NumPyro: `MCMC`": Case(with_names(sampler) if find_spec("numpyro") else small, needs="numpyro"),
    "blackjax": Case(needs="blackjax"),
    "diffrax": Case(needs="diffrax"),
    "optimistix": Case(needs="optimistix"),
    "lineax": Case(needs="lineax"),
    "jaxopt": Case(needs="jaxopt"),
    "penzai": Case(needs="penzai"),
    "jraph": Case(needs="jraph"),
    "distrax": Case(needs="distrax"),
    "rlax": Case(needs="rlax"),
    "kfac-jax": Case(needs="kfac_jax"),
}  # fmt: skip

MODULES = {
    "blackjax": "blackjax", "diffrax": "diffrax", "einops": "einops", "jaxopt": "jaxopt", "jraph": "jraph", "kfac_jax": "kfac_jax",
    "optree": "optree", "rlax": "rlax", "distrax": "distrax", "numpyro": "numpyro", "tree": "tree",
    "lx": "lineax", "optx": "optimistix", "dist": "numpyro.distributions", "parameter_overview": "clu.parameter_overview", "pz": "penzai.pz",
}  # fmt: skip


def is_installed(library):
    spec = find_spec(library) if library else None
    # `tree` is dm-tree, and without it the folder of these tests, which has no origin
    return not library or (spec is not None and spec.origin is not None)


def names_of_libraries(needs):
    """The names in a line that stand for modules: those that every line may use, and those of the library that it is for."""
    found = {
        "pt": pt, "jax": jax, "jnp": jnp, "np": np, "optax": optax, "ravel_pytree": ravel_pytree, "nnx": nnx, "eqx": eqx, "hk": hk, "chex": chex,
        "jmp": jmp, "treescope": treescope, "ocp": ocp, "pickle": pickle, "json": json, "serialization": serialization, "checkpoints": checkpoints,
        "traverse_util": traverse_util, "TrainState": TrainState, "PyTree": PyTree, "Float": Float, "Array": Array, "load_file": load_file,
        "save_file": save_file, "Holder": Holder, "Struct": Struct, "Module": Module, "Chex": Chex,
        "double": double, "loss": loss, "logdensity": lambda params: -loss(params), "tx": optax.adam(1e-2), "key": jax.random.PRNGKey(0), "x": X,
    }  # fmt: skip
    for name, module in MODULES.items():
        if needs and module.partition(".")[0] == needs:
            found[name] = imported(module)
    return found


def imported(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def case_of(row):
    (case,) = [case for start, case in CASES.items() if row.name.startswith(start)]
    return case


SLOW = {"blackjax", "diffrax", "distrax", "jaxopt", "kfac_jax", "lineax", "numpyro", "optimistix", "rlax"}
"""Libraries that compile a program for a line, or take seconds to import."""


def runs(rows):
    """Each of the rows whose library is installed, in each form."""
    found = []
    for row in rows:
        case = case_of(row)
        if is_installed(case.needs):
            found += [pytest.param(row, form, id=f"{row.name.partition(', ')[0]}, {form}") for form in case.forms]
    return found


def is_slow(row):
    return case_of(row).needs in SLOW or row.name.startswith("Keras")


def test_each_row_has_a_case_and_each_case_a_row():
    assert len(ROWS) == len(CASES)
    assert all(any(row.name.startswith(start) for row in ROWS) for start in CASES)
    for row in ROWS:
        case = case_of(row)
        assert case.check or row.back.startswith((KEPT, SLOTS))
        assert (row.works == "one line") == bool(case.fails[0] or case.gives[0])


def check_line(row, form, folder):
    """Run the line of a row, and check what comes back."""
    case = case_of(row)
    file = folder / ("file.npz" if "npz" in row.name else "file.eqx")  # both write under a name that ends so
    names = names_of_libraries(case.needs) | {"file": str(file), "folder": str(folder / "folder")} | case.names(form)
    if "CheckpointManager" in row.name:
        names["manager"] = ocp.CheckpointManager(folder / "manager")
    with case.context():
        result = eval(row.line, names)
    check = case.check or (has_trees_as_slots if row.back.startswith(SLOTS) else is_the_tree)
    check(result, names)


def check_tree_alone(row, form, folder):
    """Check what a Tree gives without the line."""
    case = case_of(row)
    names = names_of_libraries(case.needs) | {"file": str(folder / "file.npz")} | case.names(form)
    code, expected = case.gives
    if callable(code):
        code(names, form)
    elif code:
        assert eval(code, names) == expected
    code, message = case.fails
    if code:
        with case.context(), pytest.raises(Exception, match=message):
            eval(code, names)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "form"), runs(row for row in ROWS if not is_slow(row)))
def test_the_line_of_a_library_gives_what_the_page_says(row, form, tmp_path):
    check_line(row, form, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "form"), runs(row for row in ROWS if is_slow(row)))
def test_the_line_of_a_library_that_compiles_gives_what_the_page_says(row, form, tmp_path):
    check_line(row, form, tmp_path)
    check_tree_alone(row, form, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("row", "form"), runs(row for row in ROWS if row.works == "one line" and not is_slow(row)))
def test_a_tree_alone_does_not_do_where_the_page_gives_a_line(row, form, tmp_path):
    check_tree_alone(row, form, tmp_path)


def lowest_versions():
    """Library -> the lowest version that pyproject.toml allows, in the dependencies and all extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    found = [re.fullmatch(r"([\w-]+)>=([\d.]+)", line) for line in needed]
    return {match[1].lower(): match[2] for match in found if match}


def test_the_versions_of_the_page_begin_with_the_lowest_that_are_tested():
    names = {"orbax": "orbax-checkpoint", "haiku": "dm-haiku", "linen": "flax", "nnx": "flax"}
    lowest = lowest_versions()
    checked = 0
    for row in ROWS:
        for library, version in re.findall(r"([A-Za-z][\w-]*) (\d+(?:\.\d+)+)", row.name):
            name = names.get(library.lower(), library.lower())
            if name in lowest:
                assert version.startswith(lowest[name]), row.name
                checked += 1
    assert checked >= 12


# ------------------------------------------------------------------------------- what the page says besides


def test_one_leaf_for_a_tied_parameter_is_what_others_see():
    params = small("tied")["params"]
    assert ravel_pytree(params)[0].size == 20
    assert len(jax.tree.leaves(optax.adam(1e-2).init(params))) == 5  # a count, and two slots for two leaves
    paths = jax.tree_util.tree_leaves_with_path(params)
    assert [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths] == pt.paths(params)
    assert not isinstance(params, PyTree[Float[Array, "a b"]])


def test_chex_names_the_path_and_the_ties_that_differ():
    params = small("tied")["params"]
    with pytest.raises(AssertionError, match=r"differ in leaves 'embed/table'"):
        chex.assert_trees_all_close(params, pt.update(params, "embed", lambda leaf: leaf + 1))
    with pytest.raises(AssertionError, match=r"head/kernel = transposed\(embed/table\)"):
        chex.assert_trees_all_equal_structs(params, pt.untie(params))


@pytest.mark.filterwarnings("ignore")
def test_orbax_gives_dicts_of_each_leaf_without_a_template(tmp_path):
    for form in ("tied", "stacked"):
        params = small(form)["params"]
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / form, params)
            checkpointer.wait_until_finished()
            restored = checkpointer.restore(tmp_path / form)
        assert type(restored) is dict
        assert {*pt.paths(restored)} == {*pt.paths(params)}


@pytest.mark.parametrize("form", ["tied", "stacked"])
def test_an_optimiser_of_nnx_trains_a_tree_in_a_variable(form):
    params = small(form)["params"]
    holder = Holder(nnx.Param(params))
    optimiser = nnx.Optimizer(holder, optax.sgd(0.25), wrt=nnx.Param)
    grads = nnx.grad(lambda holder: loss(holder.p.get_value()))(holder)
    optimiser.update(holder, grads)
    found = holder.p.get_value()
    is_the_tree(found, {"params": params})
    assert all(map(np.allclose, jax.tree.leaves(double(found)), jax.tree.leaves(params)))  # 1 - 0.25 * 2


def test_equinox_sets_no_alias_with_a_transform_and_no_layer_and_ptree_does():
    tied, stacked = small("tied")["params"], small("stacked")["params"]
    for params, path in ((tied, "head/kernel"), (stacked, "blocks/1/w")):
        value = 2 * params[path]
        with pytest.raises(ValueError, match="`where` must"):
            eqx.tree_at(lambda params, path=path: params[path], params, value)
        np.testing.assert_array_equal(pt.set(params, path, value)[path], value)


def test_keras_takes_a_tree_for_one_leaf():
    import keras

    assert len(keras.tree.flatten(small("tied")["params"])) == 1


def test_tie_without_a_table_finds_arrays_that_a_module_shares():
    layers = [eqx.nn.Linear(3, 3, key=KEY) for _ in range(2)]
    shared = eqx.tree_at(lambda layers: layers[1].weight, layers, layers[0].weight)
    assert pt.ties(pt.tie(pt.flatten(shared))) == {"1/weight": "0/weight"}
    model = eqx.nn.Sequential(shared)
    assert pt.ties(pt.tie(model)) == {"layers/1/weight": "layers/0/weight"}

    module = Layers(nnx.Rngs(0))
    module.layers[2].kernel = module.layers[0].kernel
    assert pt.ties(pt.tie(module)) == {"layers/2/kernel/value": "layers/0/kernel/value"}


def test_boxes_of_linen_stay_whole_or_are_opened():
    def boxed():
        init = linen.with_partitioning(linen.initializers.ones, ("in", "out"))
        return linen.Dense(3, kernel_init=init).init(KEY, X)["params"]

    both = {"a": boxed(), "b": boxed()}
    tied = pt.tie(both, {"b": "a"})
    assert pt.ties(tied) == {"b/kernel": "a/kernel", "b/bias": "a/bias"}
    opened = pt.tie(pt.flatten(both), {"b/kernel/value": "a/kernel/value"})
    for tree in (tied, opened):
        back = pt.unflatten(pt.update(tree, "a/kernel", lambda leaf: 2 * leaf), like=both)
        assert type(back["b"]["kernel"]) is type(both["b"]["kernel"])
        assert float(back["b"]["kernel"].value[0, 0]) == 2


def formats():
    import msgpack
    import yaml

    return {
        "json": (json.dumps, json.loads),
        "yaml": (yaml.safe_dump, yaml.safe_load),
        "msgpack": (msgpack.packb, msgpack.unpackb),
    }


@pytest.mark.parametrize("name", ["json", "yaml", "msgpack"])
@pytest.mark.parametrize("form", ["tied", "stacked"])
def test_text_and_bytes_hold_the_leaves_and_like_gives_the_ties(name, form):
    dump, load = formats()[name]
    there, back = (next(row.line for row in ROWS if row.name.startswith(start)) for start in ("json;", "json, back"))
    names = {"pt": pt, "jnp": jnp, "params": small(form)["params"], "json": SimpleNamespace(dumps=dump, loads=load)}
    names["text"] = eval(there, names)
    again = eval(back, names)
    is_the_tree(again, names)
    assert again == names["params"]


if find_spec("numpyro"):

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("form", ["tied", "stacked"])
    def test_numpyro_trains_a_tree_and_has_one_site_for_a_tied_leaf(form):
        import numpyro
        from numpyro import distributions as dist
        from numpyro.infer import SVI, Trace_ELBO

        params = small(form)["params"]

        def model():
            net = numpyro.param("net", params)
            numpyro.sample("seen", dist.Normal(loss(net), 1.0), obs=0.0)

        svi = SVI(model, lambda: None, optax.sgd(1e-6), Trace_ELBO())
        state = svi.init(KEY)
        state, _ = jax.jit(svi.update)(state)
        is_the_tree(svi.get_params(state)["net"], {"params": params})
        line = next(row.line for row in ROWS if row.name.startswith("NumPyro: a prior"))
        names = {"pt": pt, "numpyro": numpyro, "dist": dist, "params": params}
        trace = numpyro.handlers.trace(numpyro.handlers.seed(lambda: eval(line, names), 0)).get_trace()
        assert [*trace] == pt.paths(params)
