"""A Hugging Face folder of over 100 GiB, sparse on the disk: it opens by its headers, and one layer is read by its own bytes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import ptree as pt
from ptree._command_line import main

LAYERS, WIDTH, INNER, SHARDS = 256, 4096, 14336, 40
SHAPES = {
    "self_attn.q_proj.weight": (WIDTH, WIDTH), "self_attn.k_proj.weight": (1024, WIDTH), "self_attn.v_proj.weight": (1024, WIDTH),
    "self_attn.o_proj.weight": (WIDTH, WIDTH), "mlp.gate_proj.weight": (INNER, WIDTH), "mlp.up_proj.weight": (INNER, WIDTH),
    "mlp.down_proj.weight": (WIDTH, INNER), "input_layernorm.weight": (WIDTH,), "post_attention_layernorm.weight": (WIDTH,),
}  # fmt: skip
LAYER = "model.layers.41."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """256 layers as LLaMA-8B has 32, in bfloat16: 104 GiB; a norm of one layer holds numbers."""
    folder = tmp_path_factory.mktemp("llama")
    names = {f"model.layers.{at}.{name}": shape for at in range(LAYERS) for name, shape in SHAPES.items()}
    names |= {
        "model.embed_tokens.weight": (32000, WIDTH),
        "lm_head.weight": (32000, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    weight_map = {
        name: f"model-{1 + at * SHARDS // len(names):05}-of-{SHARDS:05}.safetensors" for at, name in enumerate(names)
    }
    for shard in dict.fromkeys(weight_map.values()):
        table, end = {"__metadata__": {"format": "pt"}}, 0
        for name in (name for name, there in weight_map.items() if there == shard):
            start, end = end, end + 2 * int(np.prod(names[name]))
            table[name] = {"dtype": "BF16", "shape": names[name], "data_offsets": [start, end]}
        text = json.dumps(table).encode()
        with open(folder / shard, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
            norm = LAYER + "input_layernorm.weight"
            if norm in table:
                file.seek(8 + len(text) + table[norm]["data_offsets"][0])
                file.write(np.arange(WIDTH).astype(jnp.bfloat16).tobytes())
    total = sum(2 * int(np.prod(shape)) for shape in names.values())
    assert total > 100 << 30
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))  # fmt: skip
    return folder


def mesh_of_8():
    return jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


def test_it_opens_by_its_headers(folder, capsys):
    with pt.open(folder) as file:
        assert file.size > 100 << 30
        assert len(file) == LAYERS * len(SHAPES) + 3
        headers = file.bytes_read
        assert headers < 400_000
        np.testing.assert_array_equal(file[LAYER + "input_layernorm.weight"][3:5], [3, 4])
        file[LAYER + "mlp.down_proj.weight"][::64, 5:13]
        assert file.bytes_read - headers == 4 + 64 * 16
    assert main(["show", str(folder)]) == 0
    assert "104." in capsys.readouterr().out.splitlines()[0]


def test_one_layer_goes_onto_a_mesh_by_its_own_bytes(folder):
    mesh = mesh_of_8()
    chosen = [LAYER + name for name in SHAPES]
    specs = {name: PartitionSpec("model", "data") if "_proj" in name else PartitionSpec() for name in chosen}
    with pt.open(folder) as file:
        before = file.bytes_read
        shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
        values = file.read([file.leaves[name] for name in chosen], shardings).values
        assert file.bytes_read - before == sum(value.nbytes for value in values.values())
    assert all(values[name].sharding == sharding for name, sharding in shardings.items())
    del values
    rules = {"*_proj.weight": PartitionSpec("model", "data"), "*norm.weight": PartitionSpec()}
    loaded = pt.load(folder, select=f"{LAYER}*", shardings=rules, mesh=mesh)
    assert [*loaded] == chosen
    assert loaded[LAYER + "input_layernorm.weight"][5] == 5
    assert loaded[LAYER + "mlp.up_proj.weight"].sharding.spec == PartitionSpec("model", "data")


@pytest.mark.parametrize(("name", "spec"), [("self_attn.q_proj.weight", ("model", "data")), ("mlp.down_proj.weight", (None, "model")), ("mlp.up_proj.weight", ("model",))])  # fmt: skip
def test_each_device_reads_its_own_shard_alone(folder, name, spec):
    sharding = NamedSharding(mesh_of_8(), PartitionSpec(*spec))
    shape = SHAPES[name]
    index = sharding.devices_indices_map(shape)[jax.devices()[6]]
    with pt.open(folder, verify=False) as file:
        before = file.bytes_read
        shard = file.stored.by_leaf[LAYER + name].block(file.leaves[LAYER + name], [range(size)[along] for along, size in zip(index, shape)])  # fmt: skip
        assert shard.shape == sharding.shard_shape(shape)
        assert (
            file.bytes_read - before == shard.nbytes == 2 * np.prod(shape) // (8 if len(spec) == 2 and spec[0] else 4)
        )
