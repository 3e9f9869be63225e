"""auto: the rules that it proposes for models of ptree.nn and of others, and that a model runs under them as on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from published_models import example

import ptree as pt
from ptree import nn, shard

gpt = example("07_gpt")

ONE_AXIS = AbstractMesh((8,), ("data",))
TWO_AXES = AbstractMesh((2, 4), ("data", "model"))


def shapes(**of):
    """A Tree of shapes, `__` in a name for a slash."""
    return pt.Tree({
        name.replace("__", "/"): jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in of.items()
    })  # fmt: skip


def mesh_of(sizes, names):
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(sizes))


def small(stacked=True):
    return gpt.GPT(vocabulary=96, context=64, width=64, layers=2, heads=4, stacked=stacked)


# ------------------------------------------------------------------- what is proposed


@pytest.mark.parametrize("stacked", [True, False])
def test_a_gpt_is_split_by_size_on_one_axis(stacked):
    rules = shard.auto(small(stacked).spec(), ONE_AXIS, min_size=1024)
    assert rules == {
        "{wte,wpe}": P("data"),
        "**/{q,k,v,down}/kernel": P("data"),
        "**/o/kernel": P(None, None, "data"),
        "**/up/kernel": P(None, "data"),
        "**": P(),
    }


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("sizes", [(4, 2), (2, 4), (1, 1)])
def test_a_gpt_is_tensor_parallel_by_roles_on_two_axes_and_prints_as_code(stacked, sizes):
    rules = shard.auto(small(stacked).spec(), AbstractMesh(sizes, ("data", "model")), min_size=1024)
    assert (
        repr(rules)
        == """{
    "wte": P("model", "data"),  # vocabulary
    "wpe": P("data"),
    "**/{q,k,v,up}/kernel": P("data", "model"),  # column
    "**/{q,k,v,up}/bias": P("model"),  # column
    "**/o/kernel": P("model", None, "data"),  # row
    "**/down/kernel": P("model", "data"),  # row
    "**": P(),
}"""
    )
    assert eval(repr(rules), {"P": P}) == rules
    plan = shard.plan(small(stacked).spec(), rules, AbstractMesh(sizes, ("data", "model")))
    assert plan["blocks/1/attn/o/kernel"].spec == P("model", None, "data")


def test_thousands_of_devices_need_none_and_what_does_not_divide_is_said():
    mesh = AbstractMesh((64, 64), ("data", "model"))
    rules = shard.auto(gpt.GPT().spec(), mesh)
    plan = shard.plan(gpt.GPT().spec(), rules, mesh)
    assert plan.devices == 4096
    assert plan.bytes_per_device < plan.bytes / 3
    assert repr(rules) == (
        "{\n"
        '    "wte": P(None, "data"),  # vocabulary: 50257 is not divisible by model=64\n'
        '    "**/up/kernel": P("data", "model"),  # column\n'
        '    "**/up/bias": P("model"),  # column\n'
        '    "**/down/kernel": P("model", "data"),  # row\n'
        '    "**": P(),  # heads: 12 is not divisible by model=64\n'
        "}"
    )


def test_a_size_that_no_axis_divides_is_said():
    rules = shard.auto(shapes(a__kernel=(9, 7), b__kernel=(9, 8)), ONE_AXIS, min_size=1)
    assert repr(rules) == (
        '{\n    "b/kernel": P(None, "data"),\n    "**": P(),  # no axis of [9, 7] that is left is divisible by data=8\n}'
    )


def test_few_heads_of_keys_are_replicated_over_the_tensor_axis():
    attention = nn.MultiHeadAttention(8, kv_heads=2)
    rules = shard.auto(attention.spec(jnp.ones((2, 8, 64))), TWO_AXES, min_size=1024)
    assert rules == {
        "q/kernel": P("data", "model"),
        "q/bias": P("model"),
        "{k,v}/kernel": P("data"),
        "o/kernel": P("model", None, "data"),
        "**": P(),
    }


def test_an_mlp_without_names_is_told_by_its_shapes():
    mlp = nn.Sequential(nn.LayerNorm(), nn.Dense(256), jax.nn.gelu, nn.Dense(64))
    rules = shard.auto(mlp.spec(jnp.ones((2, 64))), TWO_AXES)
    assert rules == {"1/kernel": P(None, "model"), "1/bias": P("model"), "3/kernel": P("model"), "**": P()}
    narrow = nn.Sequential(nn.Dense(16), jax.nn.gelu, nn.Dense(64))
    assert shard.auto(narrow.spec(jnp.ones((2, 64))), TWO_AXES) == {"**": P()}


def test_convolutions_and_recurrent_layers_are_split_by_size_alone():
    net = nn.Sequential(nn.Conv(64, (3, 3)), nn.Conv(96, (3, 3)), nn.Flatten(), nn.Dense(10))
    assert shard.auto(net.spec(jnp.ones((2, 4, 4, 16))), TWO_AXES, min_size=1024) == {
        "{0,1}/kernel": P(None, None, None, "data"),
        "3/kernel": P("data"),
        "**": P(),
    }
    assert shard.auto(nn.LSTM(64).spec(jnp.ones((2, 4, 64))), TWO_AXES, min_size=1024) == {
        "**/kernel": P(None, "data"),
        "**": P(),
    }


def test_a_table_comes_before_rules_that_its_tied_kernel_would_match():
    spec = pt.Tree({
        "blocks": [{"kernel": pt.Param((64, 64)), "bias": pt.Param((64,))}] * 2,
        "embed": {"table": pt.Param((96, 64))},
        "head": {"kernel": pt.Param((64, 96))},
    })  # fmt: skip
    spec = pt.tie(spec, {"head/kernel": pt.transposed("embed/table")})
    rules = shard.auto(spec, TWO_AXES, min_size=1024)
    assert list(rules.items()) == [("**/table", P("model", "data")), ("**/kernel", P("data")), ("**", P())]
    mesh = mesh_of((2, 4), ("data", "model"))
    params = pt.init(spec, jax.random.key(0), {"**": pt.initializers.normal()}, shardings=rules, mesh=mesh)
    assert params["embed/table"].sharding.spec == P("model", "data")


def test_an_untied_head_is_split_by_its_vocabulary():
    net = nn.Sequential({"embed": nn.Embedding(96, 128), "head": nn.Dense(96)})
    rules = shard.auto(net.spec(jnp.ones((2, 4), int)), TWO_AXES)
    assert rules == {"**/{table,bias}": P("model"), "**/kernel": P(None, "model")}


def test_experts_in_a_stack_are_split_over_their_own_axis():
    tree = {"embed/table": (96, 64), "blocks/:/moe/experts/:/up/kernel": (3, 8, 64, 128)}
    tree |= {"blocks/:/moe/experts/:/down/kernel": (3, 8, 128, 64), "blocks/:/moe/router/kernel": (3, 64, 8)}
    tree = pt.Tree({path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in tree.items()})
    rules = shard.auto(tree, AbstractMesh((2, 2, 2), ("data", "model", "expert")), min_size=1024)
    assert rules == {
        "**/table": P("model", "data"),
        "**/experts/:/up/kernel": P("expert", "data", "model"),
        "**/experts/:/down/kernel": P("expert", "model", "data"),
        "**": P(),
    }
    mesh = mesh_of((2, 2, 2), ("data", "model", "expert"))
    params = pt.init(tree, jax.random.key(0), {"**": pt.initializers.normal()}, shardings=rules, mesh=mesh)
    up = params["blocks/:/moe/experts/:/up/kernel"]
    assert up.sharding.spec == P(None, "expert", "data", "model")
    assert up.addressable_shards[0].data.shape == (3, 4, 32, 64)


def test_a_tree_of_experts_alone_has_a_rule_that_spells_their_stack():
    tree = pt.Tree({"experts/:/w": jax.ShapeDtypeStruct((8, 64, 64), jnp.float32)})
    mesh = AbstractMesh((2, 2), ("data", "expert"))
    rules = shard.auto(tree, mesh, min_size=1024)
    assert rules == {"experts/:/w": P("expert", "data")}
    assert shard.plan(tree, rules, mesh)["experts/:/w"].spec == P("expert", "data")


# ---------------------------------------------------------------------- other libraries


def llama(separator):
    width, wide, keys = 64, 256, 32
    tree = {"model.embed_tokens.weight": (96, width), "lm_head.weight": (96, width), "model.norm.weight": (width,)}
    for at in range(2):
        tree |= {f"model.layers.{at}.self_attn.{name}_proj.weight": (width, width) for name in "qo"}
        tree |= {f"model.layers.{at}.self_attn.{name}_proj.weight": (keys, width) for name in "kv"}
        tree |= {f"model.layers.{at}.mlp.{name}_proj.weight": (wide, width) for name in ("gate", "up")}
        tree |= {f"model.layers.{at}.mlp.down_proj.weight": (width, wide)}
    return {
        name.replace(".", separator): jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in tree.items()
    }  # fmt: skip


def test_weights_of_pytorch_are_out_in_also_under_dotted_names():
    rules = shard.auto(pt.Tree(llama("/")), TWO_AXES, min_size=1024)
    assert rules == {
        "**/{embed_tokens,q_proj,k_proj,v_proj,gate_proj,up_proj}/weight": P("model", "data"),
        "**/{o_proj,down_proj}/weight": P("data", "model"),
        "lm_head/weight": P("model", "data"),
        "**": P(),
    }
    dotted = shard.auto(llama("."), TWO_AXES, min_size=1024)
    assert "*.{o_proj,down_proj}.weight" in dotted
    assert pt.explain(llama("."), dotted).dead == {}


def test_the_kernels_of_gpt_2_are_in_out_though_they_are_called_weights():
    shape = {"attn__c_attn": (64, 192), "attn__c_proj": (64, 64), "mlp__c_fc": (64, 256), "mlp__c_proj": (256, 64)}
    tree = shapes(**{f"h__0__{name}__weight": size for name, size in shape.items()}, wte__weight=(96, 64))
    tree = pt.put(tree, "lm_head/weight", jax.ShapeDtypeStruct((96, 64), jnp.float32))
    rules = pt.label(tree, shard.auto(tree, TWO_AXES))
    assert rules["h/0/attn/c_attn/weight"] == rules["h/0/mlp/c_fc/weight"] == P(None, "model")
    assert rules["h/0/attn/c_proj/weight"] == rules["h/0/mlp/c_proj/weight"] == P("model")
    assert rules["wte/weight"] == rules["lm_head/weight"] == P("model")


def test_the_kernels_of_pytorchs_own_attention_are_fused_and_out_in():
    attention = {"self_attn__in_proj_weight": (192, 64), "self_attn__in_proj_bias": (192,)}
    layer = attention | {"self_attn__out_proj__weight": (64, 64), "self_attn__out_proj__bias": (64,)}
    layer |= {"linear1__weight": (256, 64), "linear1__bias": (256,), "linear2__weight": (64, 256)}
    rules = pt.label(shapes(**layer), shard.auto(shapes(**layer), TWO_AXES))
    split = {path: spec for path, spec in pt.items(rules) if spec != P()}
    assert split == {
        "self_attn/in_proj_weight": P("model"),
        "self_attn/in_proj_bias": P("model"),
        "self_attn/out_proj/weight": P(None, "model"),
        "linear1/weight": P("model"),
        "linear1/bias": P("model"),
        "linear2/weight": P(None, "model"),
    }


def test_square_kernels_are_read_as_the_fused_one_beside_them():
    attention = shapes(c_attn__weight=(64, 192), c_proj__weight=(64, 64))
    assert shard.auto(attention, TWO_AXES) == {"c_attn/weight": P(None, "model"), "c_proj/weight": P("model")}


def test_tables_of_positions_have_no_vocabulary():
    tables = {"word_embeddings": 96, "position_embeddings": 32}
    bert = shapes(**{f"embeddings__{name}__weight": (rows, 64) for name, rows in tables.items()})
    assert shard.auto(bert, TWO_AXES) == {"**/word_embeddings/weight": P("model"), "**": P()}
    positions = nn.Sequential({"pos": nn.Embedding(32, 64)}).spec(jnp.ones((2, 4), int))
    assert shard.auto(positions, TWO_AXES) == {"**": P()}


def test_names_of_an_mlp_without_its_shapes_are_no_mlp():
    chained = shapes(fc1__weight=(256, 64), fc2__weight=(32, 256), fc3__weight=(8, 32))
    assert shard.auto(chained, TWO_AXES) == {"fc1/weight": P("model"), "fc2/weight": P(None, "model"), "**": P()}
    apart = shapes(fc1__weight=(256, 64), fc2__weight=(32, 128), fc3__weight=(8, 32))
    assert shard.auto(apart, TWO_AXES) == {"**": P()}


def test_the_order_of_axes_can_be_said():
    tree = shapes(attn__q_proj__weight=(64, 64), attn__o_proj__weight=(64, 64))
    assert shard.auto(tree, TWO_AXES) == {"**/q_proj/weight": P("model"), "**/o_proj/weight": P(None, "model")}
    assert shard.auto(tree, TWO_AXES, kernels="in_out") == {
        "**/q_proj/weight": P(None, "model"),
        "**/o_proj/weight": P("model"),
    }


def test_numbered_names_of_linen_are_ranges_where_they_are_needed():
    tree = {f"Block_{at}/Dense_0/kernel": (64, 256) for at in range(12)} | {"Dense_0/kernel": (64, 8)}
    tree |= {f"Block_{at}/Dense_1/kernel": (256, 64) for at in range(12)}
    rules = shard.auto(shapes(**tree), TWO_AXES)
    assert rules == {
        "Block_{0..11}/Dense_0/kernel": P(None, "model"),
        "**/Dense_1/kernel": P("model"),
        "**": P(),
    }
    assert pt.explain(shapes(**tree), rules).dead == {}


def test_flax_names_and_parameters_that_are_layers_themselves():
    flax = shapes(a__query__kernel=(64, 8, 8), a__key__kernel=(64, 8, 8), a__out__kernel=(8, 8, 64))
    assert shard.auto(flax, TWO_AXES) == {"**/{query,key}/kernel": P(None, "model"), "**/out/kernel": P("model")}
    by_hand = shapes(attn__wq=(64, 64), attn__wk=(64, 64), attn__wo=(64, 64), up=(64, 128), down=(128, 64))
    assert shard.auto(by_hand, TWO_AXES) == {
        "**/{wq,wk}": P(None, "model"),
        "**/wo": P("model"),
        "up": P(None, "model"),
        "down": P("model"),
    }


def test_gates_of_a_recurrent_layer_are_no_attention():
    gates = shapes(**{f"cell__{name}__kernel": (64, 64) for name in "ifgo"})
    assert shard.auto(gates, TWO_AXES) == {"**": P()}


# ------------------------------------------------------------------------- few rules


def test_numbers_decide_where_layers_of_one_name_differ():
    tree = pt.Tree({f"conv/{at}/kernel": jax.ShapeDtypeStruct((8 * (at + 1), 8), jnp.float32) for at in range(6)})
    rules = shard.auto(tree, ONE_AXIS, min_size=200)
    assert rules == {"conv/{3..5}/kernel": P("data"), "**": P()}
    assert pt.explain(tree, rules).dead == {}


def test_a_short_path_is_not_the_end_of_a_longer_one():
    tree = shapes(**{"0__w": (64, 64), "1__w": (64, 64), "a__0__w": (8, 8), "w": (8, 8)})
    assert shard.auto(tree, ONE_AXIS, min_size=1000) == {"*/w": P("data"), "**": P()}


def test_a_star_for_a_number_takes_no_name_wrongly():
    tree = shapes(x__0__w=(64, 64), x__1__w=(64, 64), x__a__w=(8, 8), y__0__w=(8, 8), x__w=(8, 8))
    rules = shard.auto(tree, ONE_AXIS, min_size=1000)
    assert dict(pt.items(pt.label(tree, rules))) == {
        path: P("data") if leaf.size == 64 * 64 else P() for path, leaf in pt.items(tree)
    }


def test_a_pattern_that_matches_an_alias_does_not_take_its_leaf():
    tree = pt.tie(shapes(small=(8, 2), x__w=(8, 2), y__w=(64, 64), z__w=(64, 64)), {"x/w": "small"})
    rules = shard.auto(tree, ONE_AXIS, min_size=1000)
    assert dict(pt.items(pt.label(tree, rules))) == {"small": P(), "y/w": P("data"), "z/w": P("data")}


def test_an_open_file_has_rules_too(tmp_path):
    pt.save(tmp_path / "m.safetensors", {"up": jnp.ones((64, 64)), "norm": jnp.ones(64)})
    with pt.open(tmp_path / "m.safetensors") as file:
        rules = shard.auto(file, ONE_AXIS, min_size=1000)
        assert rules == {"up": P("data"), "**": P()}
        assert shard.plan(file, rules, ONE_AXIS).bytes_per_device == 64 * 64 * 4 // 8 + 64 * 4


def test_special_characters_stay_names():
    tree = pt.Tree({"a*b": {"w{1}": jnp.ones((64, 64)), "n, m": jnp.ones((64, 64))}, "aab": {"w{1}": jnp.ones(3)}})
    rules = shard.auto(tree, ONE_AXIS, min_size=1000)
    assert dict(pt.items(pt.label(tree, rules))) == {"a*b/w{1}": P("data"), "a*b/n, m": P("data"), "aab/w{1}": P()}


def test_thousands_of_names_without_order_get_rules_for_the_largest():
    draw = np.random.default_rng(0)
    tree = {
        f"{draw.integers(1 << 60):x}": jax.ShapeDtypeStruct((8 - at % 2, 8), jnp.float32) for at in range(29_999)
    }  # fmt: skip
    tree["largest"] = jax.ShapeDtypeStruct((800, 8), jnp.float32)
    rules = shard.auto(tree, ONE_AXIS, min_size=1)
    assert any("largest" in selector for selector in rules)
    assert len(rules) == 2
    assert "29,900 leaves would need rules of their own" in repr(rules)


def test_one_rule_is_enough_where_all_leaves_are_split_alike():
    tree = {f"name of {at}": jax.ShapeDtypeStruct((8, 4), jnp.float32) for at in range(100)}
    assert shard.auto(tree, ONE_AXIS, min_size=1) == {"**": P("data")}
    assert shard.auto({}, ONE_AXIS) == {"**": P()}


def test_rules_are_edited_as_a_dict():
    rules = shard.auto(small().spec(), TWO_AXES, min_size=1024)
    rules["wte"] = P()
    assert '"wte": P(),\n' in repr(rules)
    del rules["wpe"]
    assert "wpe" not in repr(rules)
    assert type({**rules}) is dict


# --------------------------------------------------------------------- axes of a mesh


def test_axes_of_other_names_are_said():
    mesh = AbstractMesh((2, 4, 3), ("x", "y", "z"))
    spec = small().spec()
    says(
        shard.ShardingError,
        "no axis of the mesh (x=2, y=4, z=3) has a name that says what it is for (fsdp 'fsdp', 'data', 'dp'; tensor 'model',"
        " 'tensor', 'tp'; expert 'expert', 'ep'). Say it: axes={\"fsdp\": \"x\"}",
        shard.auto, spec, mesh,
    )  # fmt: skip
    rules = shard.auto(spec, mesh, axes={"fsdp": "x", "tensor": "y"}, min_size=1024)
    assert rules["wte"] == P("y", "x")
    assert "# not used: z=3" in repr(rules)
    assert shard.auto(spec, mesh, axes={"fsdp": ("x", "y")}, min_size=1024)["{wte,wpe}"] == P(("x", "y"))
    says(
        shard.ShardingError,
        "axes=: there is no role 'fdsp'; the roles are 'fsdp', 'tensor', 'expert'. Did you mean 'fsdp'?\n"
        "axes=: the mesh has no axis 'yy' for 'tensor'; it has (x=2, y=4, z=3). Did you mean 'y'?",
        lambda: shard.auto(spec, mesh, axes={"tensor": "yy", "fdsp": "x"}),
    )  # fmt: skip
    says(
        shard.ShardingError,
        "axes=: the axis 'x' is for both 'fsdp' and 'tensor'; one role is enough",
        lambda: shard.auto(spec, mesh, axes={"fsdp": "x", "tensor": "x"}),
    )
    with pytest.raises(shard.ShardingError, match=r"kernels= is 'in_out' or 'out_in', got 'torch'"):
        shard.auto(spec, TWO_AXES, kernels="torch")  # pyright: ignore[reportArgumentType]
    says(pt.InitError, "mesh= takes a jax.sharding.Mesh, got 'data'", shard.auto, spec, "data")
    says(
        pt.InitError,
        "a PartitionSpec needs a mesh: give mesh=, or call it under jax.set_mesh(mesh)",
        shard.auto, spec,
    )  # fmt: skip


def test_a_mesh_with_fsdp_and_data_replicates_over_data():
    rules = shard.auto(small().spec(), AbstractMesh((2, 4), ("data", "fsdp")), min_size=1024)
    assert rules["{wte,wpe}"] == P("fsdp")
    assert "# not used: data=2" in repr(rules)


# ------------------------------------------------------------------------------ it runs


def losses(model, params, place=lambda batch: batch):
    optimiser = optax.sgd(0.1)

    def loss(params, ids):
        logits, _ = model(params, ids[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, ids[:, 1:]).mean()

    @jax.jit
    def step(params, ids):
        value, grads = jax.value_and_grad(loss)(params, ids)
        updates, _ = optimiser.update(grads, optimiser.init(params))
        return optax.apply_updates(params, updates), value

    draw = np.random.default_rng(0)
    values = []
    for _ in range(4):
        params, value = step(params, place(draw.integers(96, size=(8, 33))))
        values.append(float(value))
    return values


@pytest.mark.parametrize("sizes", [(8, 1), (4, 2), (2, 4)])
def test_a_gpt_trains_under_its_rules_as_on_one_device(sizes):
    model, key = small(), jax.random.key(0)
    mesh = mesh_of(sizes, ("data", "model"))
    rules = shard.auto(model.spec(), mesh, min_size=1024)
    spread = pt.init(model.spec(), key, shardings=rules, mesh=mesh)
    batches = jax.sharding.NamedSharding(mesh, P("data"))
    expected = losses(model, pt.init(model.spec(), key))
    got = losses(model, spread, lambda batch: jax.device_put(batch, batches))
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    parts = {"{wte,**/kernel}": 8, "wpe": sizes[0], "**/{q,k,v,up}/bias": sizes[1], "**": 1}
    expected_bytes = sum(
        leaf.nbytes // count for leaf, count in zip(jax.tree.leaves(spread), jax.tree.leaves(pt.label(spread, parts)))
    )
    on_first = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(spread))
    assert on_first == expected_bytes < sum(leaf.nbytes for leaf in jax.tree.leaves(spread)) / 6
