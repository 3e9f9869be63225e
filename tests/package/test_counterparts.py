"""The functions of other libraries, whose lines the cookbook counts, do what the recipes do; the page is what the counts give."""

import importlib.util
import sys
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

import ptree as pt
from ptree import convert

PAGE = Path(__file__).parents[2] / "examples" / "README.md"
COUNTERPARTS = Path(__file__).parents[1] / "cookbook"
STATE_DICT = {
    "embed.weight": (20, 8), "head.weight": (3, 8), "head.bias": (3,),
    "layers.0.norm.weight": (8,), "layers.0.norm.bias": (8,), "layers.0.fc.weight": (8, 8), "layers.0.fc.bias": (8,),
    "layers.1.norm.weight": (8,), "layers.1.norm.bias": (8,), "layers.1.fc.weight": (8, 8), "layers.1.fc.bias": (8,),
}  # fmt: skip
DRAW = np.random.default_rng(0)
STATE_DICT = {name: DRAW.normal(size=shape).astype("float32") for name, shape in STATE_DICT.items()}
IDS, LABELS = DRAW.integers(0, 20, (16, 5)).astype("int32"), (np.arange(16) % 3).astype("int32")
IN_JAX = ["linen", "nnx", "equinox"]
ALL = [*IN_JAX, "pytorch"] if importlib.util.find_spec("torch") else IN_JAX

# Flax 0.12.1 calls jax.jit with an argument that JAX 0.9 and later do not have
HAS_NNX_JIT = tuple(map(int, flax.__version__.split(".")[:3])) > (0, 12, 1)
WITH_JIT = ALL if HAS_NNX_JIT else [library for library in ALL if library != "nnx"]


def imported(name):
    """A module of functions, which is no test."""
    spec = importlib.util.spec_from_file_location(f"counterparts_{name}", COUNTERPARTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MODULES = {name: imported(name) for name in ALL}
COUNT = imported("count")


def module_of(library):
    return MODULES[library]


def model_of(library, state_dict=STATE_DICT):
    """A model of the library with the arrays of a state dict."""
    module = MODULES[library]
    model = module.make(0)
    if library != "pytorch":
        return module.from_pytorch(state_dict, model)
    import torch

    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state_dict.items()})
    return model


def batch_of(library):
    if library != "pytorch":
        return jnp.asarray(IDS), jnp.asarray(LABELS)
    import torch

    return torch.from_numpy(IDS).long(), torch.from_numpy(LABELS).long()


def number(value):
    """A number of either framework."""
    return float(value.detach() if hasattr(value, "detach") else value)


def is_same(a, b, names=None):
    """Whether two sets of arrays agree, in all or some of their names."""
    return all(np.allclose(a[name], b[name], atol=1e-5) for name in names or a)


def largest_change(a, b, name):
    return float(abs(a[name] - b[name]).max())


KERNELS = ["layers.0.fc.weight", "layers.1.fc.weight", "head.weight"]
HEAD = ["head.weight", "head.bias"]
ENCODER = [name for name in STATE_DICT if name not in HEAD]


def test_every_function_belongs_to_a_recipe():
    titles = [line.lstrip("# ") for line in PAGE.read_text().splitlines() if line.startswith("###")]
    assert set(COUNT.counterparts()) <= set(titles)
    assert len(COUNT.counterparts()) >= 20


def test_the_contents_and_counts_of_the_page_are_written_by_the_script():
    page = PAGE.read_text()
    assert COUNT.written(page) == page, "run: python tests/cookbook/count.py"


@pytest.mark.parametrize("library", ALL)
def test_models_have_the_arrays_of_a_state_dict_and_one_loss(library):
    model = model_of(library)
    assert is_same(module_of(library).arrays(model), STATE_DICT)
    here = number(module_of(library).loss(model, batch_of(library)))
    assert here == pytest.approx(number(MODULES["linen"].loss(model_of("linen"), batch_of("linen"))), rel=1e-5)


@pytest.mark.parametrize("library", WITH_JIT)
def test_all_parameters_are_shown(library):
    see_all = module_of(library).see_all
    text = see_all() if library == "linen" else see_all(model_of(library))
    assert "head" in text
    assert "8,3" in text.replace(" ", "") or "3,8" in text.replace(" ", "")


@pytest.mark.parametrize("library", ALL)
def test_numbers_are_counted(library):
    assert module_of(library).count(model_of(library)) == (363, 152, 27)


def test_one_weight_of_equinox_and_nnx_is_changed():
    import equinox as eqx

    before = eqx.nn.MLP(4, 3, 8, 2, key=jax.random.key(0))
    after = MODULES["equinox"].change_one(before)
    assert (after.layers[0].bias == 1).all()
    assert (after.layers[2].weight == before.layers[2].weight / 2).all()
    layer = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    MODULES["nnx"].change_one(layer)
    assert (layer.kernel[...] == 1).all()


@pytest.mark.parametrize("library", ALL)
def test_flat_names_go_there_and_back(library):
    model = model_of(library)
    flat, back = module_of(library).flat_names_and_back(model)
    assert len(flat) == 11
    assert any("head" in name for name in flat)
    if library == "nnx":
        back = nnx.merge(nnx.graphdef(model), back)
    assert is_same(module_of(library).arrays(back), STATE_DICT)


def test_an_mlp_of_equinox_takes_the_weights_of_pytorch():
    import equinox as eqx

    mlp = eqx.nn.MLP(4, 3, 8, 2, key=jax.random.key(0))
    shapes = {
        "0.weight": (8, 4),
        "0.bias": (8,),
        "2.weight": (8, 8),
        "2.bias": (8,),
        "4.weight": (3, 8),
        "4.bias": (3,),
    }
    arrays = {name: DRAW.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    filled = MODULES["equinox"].mlp_from_pytorch(arrays, mlp)
    x = np.ones(4, "float32")
    hidden = np.maximum(arrays["0.weight"] @ x + arrays["0.bias"], 0)
    hidden = np.maximum(arrays["2.weight"] @ hidden + arrays["2.bias"], 0)
    np.testing.assert_allclose(filled(x), arrays["4.weight"] @ hidden + arrays["4.bias"], rtol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        MODULES["equinox"].mlp_from_pytorch(arrays | {"4.bias": np.ones(7, "float32")}, mlp)


def test_parts_are_renamed():
    renamed = MODULES["linen"].rename(model_of("linen"))
    assert set(renamed) == {"blocks", "encoder", "out"}
    assert pt.paths(renamed, "blocks/*/fc/kernel") == ["blocks/0/fc/kernel", "blocks/1/fc/kernel"]
    if "pytorch" in ALL:
        renamed = MODULES["pytorch"].rename(model_of("pytorch"))
        assert {name.split(".")[0] for name in renamed} == {"embed", "blocks", "out"}


@pytest.mark.parametrize("library", ALL)
def test_a_head_is_replaced(library):
    model = module_of(library).replace_head(model_of(library), 10)
    arrays = module_of(library).arrays(model)
    assert arrays["head.weight"].shape == (10, 8)
    assert is_same(arrays, STATE_DICT, ENCODER)


@pytest.mark.parametrize("library", ALL)
def test_parts_of_two_models_are_mixed(library):
    other = {name: array + 1 for name, array in STATE_DICT.items()}
    mixed = module_of(library).arrays(module_of(library).mix(model_of(library, other), model_of(library)))
    assert is_same(mixed, other, ENCODER)
    assert is_same(mixed, STATE_DICT, HEAD)


@pytest.mark.parametrize("library", ALL)
def test_models_are_averaged(library):
    other = {name: 3 * array for name, array in STATE_DICT.items()}
    mean = module_of(library).average([model_of(library), model_of(library, other)])
    assert is_same(module_of(library).arrays(mean), {name: 2 * array for name, array in STATE_DICT.items()})


@pytest.mark.parametrize("library", ALL)
def test_the_smallest_weights_of_all_kernels_are_pruned(library):
    pruned = module_of(library).arrays(module_of(library).prune(model_of(library)))
    zeros = sum(int((pruned[name] == 0).sum()) for name in KERNELS)
    assert zeros in (121, 122)  # of 152, 80 percent
    assert is_same(pruned, STATE_DICT, [name for name in STATE_DICT if name not in KERNELS])


@pytest.mark.parametrize("library", ALL)
def test_all_but_norms_are_cast(library):
    cast = module_of(library).cast(model_of(library))
    arrays = cast.state_dict() if library == "pytorch" else module_of(library).arrays(cast)
    single = {name for name, array in arrays.items() if str(array.dtype) in ("float32", "torch.float32")}
    assert single == {name for name in STATE_DICT if "norm" in name}


def test_moments_of_a_layer_are_looked_up():
    params, adam = model_of("linen"), optax.adam(1e-3)
    assert [slot.shape for slot in MODULES["linen"].moments_of_a_layer(adam.init(params))] == [(8, 3), (8, 3)]
    model = model_of("nnx")
    optimizer = nnx.Optimizer(model, adam, wrt=nnx.Param)
    assert [slot.shape for slot in MODULES["nnx"].moments_of_a_layer(optimizer)] == [(8, 3), (8, 3)]
    model = model_of("equinox")
    slots = adam.init(jax.tree.map(lambda leaf: leaf, model))
    assert [slot.shape for slot in MODULES["equinox"].moments_of_a_layer(slots)] == [(3, 8), (3, 8)]
    if "pytorch" in ALL:
        import torch

        model = model_of("pytorch")
        optimizer = torch.optim.Adam(model.parameters())
        MODULES["pytorch"].loss(model, batch_of("pytorch")).backward()
        optimizer.step()
        assert [tuple(slot.shape) for slot in MODULES["pytorch"].moments_of_a_layer(model, optimizer)] == [(3, 8)] * 2


@pytest.mark.parametrize("library", ALL)
def test_layers_are_initialised_differently(library):
    key = () if library == "pytorch" else (jax.random.key(0),)
    arrays = module_of(library).arrays(module_of(library).initialise(model_of(library), *key))
    for at in range(2):
        kernel = arrays[f"layers.{at}.fc.weight"]
        assert np.allclose(kernel @ kernel.T, np.eye(8), atol=1e-5)
    assert 0.003 < arrays["head.weight"].std() < 0.02
    assert is_same(arrays, STATE_DICT, [name for name in STATE_DICT if name not in KERNELS])


def test_an_equinox_model_is_initialised():
    import equinox as eqx

    mlp = MODULES["equinox"].initialise_all(eqx.nn.MLP(4, 3, 256, 2, key=jax.random.key(0)), jax.random.key(1))
    assert float(mlp.layers[1].weight.std()) == pytest.approx(1 / 16, rel=0.05)
    assert all((layer.bias == 0).all() for layer in mlp.layers)


def test_the_output_is_tied_to_the_embedding():
    module, params = MODULES["linen"].tie()
    assert pt.count(params) == 450
    assert module.apply({"params": params}, MODULES["linen"].IDS).shape == (2, 5, 50)
    model = MODULES["nnx"].tie()
    assert pt.count(nnx.state(model, nnx.Param)) == 450
    assert model(MODULES["nnx"].IDS).shape == (2, 5, 50)
    model = MODULES["equinox"].tie()
    assert pt.count(model) == 450
    assert model(jnp.zeros(5, "int32")).shape == (5, 50)
    if "pytorch" in ALL:
        assert sum(p.numel() for p in MODULES["pytorch"].tie().parameters()) == 450


@pytest.mark.parametrize("library", ALL)
def test_the_encoder_is_frozen_and_unfrozen(library):
    module = module_of(library)
    first, second = (module.arrays(one) for one in module.freeze_and_unfreeze(model_of(library), batch_of(library)))
    assert is_same(first, STATE_DICT, ENCODER)
    assert largest_change(first, STATE_DICT, "head.weight") == pytest.approx(0.01, rel=1e-3)
    assert largest_change(second, first, "head.weight") < 0.0105  # its slots are kept: the second step of Adam
    for name in ENCODER:
        assert largest_change(second, first, name) == pytest.approx(0.01, rel=1e-3)  # its first


def changes_by(library, optimiser, gradient):
    """The change of each array by one step with constant gradients."""
    module, model = module_of(library), model_of(library)
    if library == "pytorch":
        import torch

        optimisers = optimiser(model)
        for p in model.parameters():
            p.grad = torch.full_like(p, gradient)
        for one in optimisers if isinstance(optimisers, list) else [optimisers]:
            one.step()
        new = module.arrays(model)
    else:
        transform = optimiser(model)
        arrays = nnx.state(model, nnx.Param) if library == "nnx" else model
        grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), arrays)
        updates, _ = transform.update(grads, transform.init(arrays), arrays)
        changed = optax.apply_updates(arrays, updates)
        new = module.arrays(nnx.merge(nnx.graphdef(model), changed) if library == "nnx" else changed)
    return {name: new[name] - STATE_DICT[name] for name in STATE_DICT}


@pytest.mark.parametrize("library", ALL)
def test_layers_have_rates_of_their_own(library):
    changes = changes_by(library, module_of(library).rates, 2.0)
    assert np.allclose(changes["head.bias"], -0.2, atol=1e-6)
    assert np.allclose(changes["head.weight"], -1e-3, atol=1e-6)
    assert all(np.allclose(changes[name], -1e-5, atol=1e-6) for name in ENCODER)


@pytest.mark.parametrize("library", ALL)
def test_kernels_alone_decay(library):
    changes = changes_by(library, module_of(library).decay, 0.0)
    for name, change in changes.items():
        expected = -1e-4 * STATE_DICT[name] if name in KERNELS else 0 * STATE_DICT[name]
        assert np.allclose(change, expected, atol=1e-6)


def step_of_whole_batch():
    """What a step of Adam over the whole batch gives."""
    module, params, adam = MODULES["linen"], model_of("linen"), optax.adam(1e-2)
    updates, _ = adam.update(jax.grad(module.loss)(params, batch_of("linen")), adam.init(params))
    return module.arrays(optax.apply_updates(params, updates))


@pytest.mark.parametrize("library", ALL)
def test_gradients_are_accumulated(library):
    after = module_of(library).arrays(module_of(library).accumulate(model_of(library), batch_of(library)))
    assert is_same(after, step_of_whole_batch(), [name for name in KERNELS if name != "embed.weight"])


@pytest.mark.parametrize("library", ALL)
def test_an_average_moves_behind(library):
    module, batch = module_of(library), batch_of(library)
    before = number(module.loss(model_of(library), batch))
    trained, averaged = module.moving_average(model_of(library), batch)
    assert number(module.loss(trained, batch)) < number(module.loss(averaged, batch)) < before


@pytest.mark.parametrize("library", WITH_JIT)
def test_three_seeds_train_at_once(library):
    seeds = () if library == "pytorch" else (jax.random.split(jax.random.key(0), 3),)
    losses = module_of(library).three_seeds(*seeds, batch_of(library))
    assert losses.shape == (3,)
    assert len({round(number(one), 4) for one in losses}) == 3


@pytest.mark.parametrize("library", ALL)
def test_a_run_is_resumed(library, tmp_path):
    module, batch, path = module_of(library), batch_of(library), str(tmp_path / "run.bin")
    first, _ = module.resume(model_of(library), batch, path, 2)
    again, resumed = module.resume(model_of(library), batch, path, 3)
    _, whole = module.resume(model_of(library), batch, str(tmp_path / "whole.bin"), 3)
    assert (first, again) == (0, 2)
    assert is_same(module.arrays(resumed), module.arrays(whole))


@pytest.mark.parametrize("library", ALL)
def test_the_vocabulary_is_resized(library):
    key = () if library == "pytorch" else (jax.random.key(0),)
    table = module_of(library).arrays(module_of(library).resize(model_of(library), 25, *key))["embed.weight"]
    assert table.shape == (25, 8)
    assert (table[:20] == STATE_DICT["embed.weight"]).all()
    assert 0.005 < table[20:].std() < 0.05


@pytest.mark.parametrize("library", ALL)
def test_kernels_are_penalised(library):
    module, batch = module_of(library), batch_of(library)
    expected = sum((STATE_DICT[name] ** 2).sum() for name in KERNELS)
    added = number(module.penalty(model_of(library), batch)) - number(module.loss(model_of(library), batch))
    assert added == pytest.approx(1e-3 * expected, rel=1e-3)


@pytest.mark.parametrize("library", ALL)
def test_gradients_of_one_kernel(library):
    grads = module_of(library).gradients_of_some(model_of(library), batch_of(library))
    (grad,) = jax.tree.leaves(grads) if library != "pytorch" else [grads]
    expected = jax.grad(MODULES["linen"].loss)(model_of("linen"), batch_of("linen"))["head"]["kernel"]
    assert np.allclose(grad, expected if library in ("linen", "nnx") else expected.T, atol=1e-5)


def test_flax_and_equinox_save_and_load(tmp_path):
    import equinox as eqx

    module, path = MODULES["linen"], str(tmp_path / "params")
    loaded = module.save_and_load(model_of("linen"), path, module.make(1))
    assert is_same(module.arrays(loaded), STATE_DICT)
    with pytest.raises(ValueError, match="head/kernel: expected"):
        module.save_and_load(model_of("linen"), path, module.make(1, classes=10))
    mlp = eqx.nn.MLP(4, 3, 8, 2, key=jax.random.key(0))
    like = eqx.nn.MLP(4, 3, 8, 2, key=jax.random.key(1))
    loaded = MODULES["equinox"].save_and_load(mlp, str(tmp_path / "mlp"), like)
    assert (loaded(jnp.ones(4)) == mlp(jnp.ones(4))).all()


@pytest.mark.parametrize("library", [library for library in ALL if library != "nnx"])
def test_differences_are_found(library):
    other = STATE_DICT | {"head.bias": STATE_DICT["head.bias"] * 2}
    found = module_of(library).differences(model_of(library), model_of(library, other))
    assert list(found.values()) == ["changed by 1"]
    assert "bias" in next(iter(found))


def test_a_part_is_loaded_under_other_names():
    arrays = {name: np.full(array.shape, 7, "f4") for name, array in STATE_DICT.items()}
    body = {"body": MODULES["linen"].from_pytorch(arrays, MODULES["linen"].make(0))["encoder"]}
    checkpoint = body | {"old_head": {"kernel": np.ones((8, 7))}}
    new, kept, dropped = MODULES["linen"].load_a_part(model_of("linen"), checkpoint)
    check_part("linen", new, kept, dropped)
    state = nnx.state(MODULES["nnx"].from_pytorch(arrays, MODULES["nnx"].make(0)).encoder)
    flat = {tuple(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(state)}
    checkpoint = {"body": traverse_util.unflatten_dict(flat), "old_head": {"kernel": np.ones((8, 7))}}
    new, kept, dropped = MODULES["nnx"].load_a_part(model_of("nnx"), checkpoint)
    check_part("nnx", new, kept, dropped)
    if "pytorch" in ALL:
        import torch

        checkpoint = {f"body.{name}": torch.from_numpy(arrays[name]) for name in ENCODER}
        new, kept, dropped = MODULES["pytorch"].load_a_part(
            model_of("pytorch"), checkpoint | {"old_head.kernel": torch.ones(8, 7)}
        )
        check_part("pytorch", new, kept, dropped)


def check_part(library, new, kept, dropped):
    arrays = module_of(library).arrays(new)
    assert all((arrays[name] == 7).all() for name in ENCODER)
    assert is_same(arrays, STATE_DICT, HEAD)
    assert len(kept) == 2
    assert len(dropped) == 1


def test_linen_goes_to_nnx():
    params = model_of("linen")["head"]
    layer = MODULES["nnx"].from_linen(params, nnx.Linear(8, 3, rngs=nnx.Rngs(0)))
    assert (layer.kernel[...] == params["kernel"]).all()
    assert layer(jnp.ones(8)).shape == (3,)


@pytest.mark.parametrize("library", ALL)
def test_leaves_that_are_not_finite_are_found(library):
    bad = STATE_DICT["layers.1.fc.weight"].copy()
    bad[2, 2] = np.nan
    found = module_of(library).not_finite(model_of(library, STATE_DICT | {"layers.1.fc.weight": bad}))
    assert list(found.values()) == [(1, (2, 2))]


@pytest.mark.parametrize("library", ALL)
def test_norms_of_gradients_are_those_of_ptree(library):
    grads = jax.grad(MODULES["linen"].loss)(model_of("linen"), batch_of("linen"))
    expected = sorted(float(jnp.linalg.norm(leaf)) for _, leaf in pt.items(grads, "**/kernel"))
    found = module_of(library).gradient_norms(model_of(library), batch_of(library))
    assert np.allclose(sorted(found.values()), expected, atol=1e-5)


@pytest.mark.parametrize("library", [library for library in ALL if library != "nnx"])
def test_ratios_of_updates(library):
    found = module_of(library).update_ratios(model_of(library), batch_of(library))
    (name,) = [name for name in found if "head" in name and ("kernel" in name or "weight" in name)]
    expected = 1e-3 * np.sqrt(24) / np.linalg.norm(STATE_DICT["head.weight"])
    assert len(found) == 11
    assert number(found[name]) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("library", IN_JAX)
def test_models_are_sharded_by_rules(library):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    placed = module_of(library).shard(model_of(library), mesh)
    placed = nnx.state(placed, nnx.Param) if library == "nnx" else placed
    split = [leaf for leaf in jax.tree.leaves(placed) if hasattr(leaf, "sharding") and len(leaf.devices()) == 8]
    assert len(split) == 11
    assert sum(not leaf.sharding.is_fully_replicated for leaf in split) == 3


def test_tables_of_ptree_give_the_same_models():
    rows = {
        "embed.weight": "encoder/Embed_0/embedding",
        "layers.*.norm.{weight,bias}": "encoder/LayerNorm_*/{scale,bias}",
        "layers.*.fc.weight": ("encoder/Dense_*/kernel", convert.linear),
        "layers.*.fc.bias": "encoder/Dense_*/bias",
        "head.weight": ("head/kernel", convert.linear),
        "head.bias": "head/bias",
    }
    by_table = convert.Table(rows).apply(STATE_DICT, like=MODULES["linen"].make(0))
    pt.check(by_table, like=model_of("linen"))
    assert is_same(MODULES["linen"].arrays(by_table), STATE_DICT)
