"""Param, init, reinit, abstract, keys."""

import hashlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from trees import TREES, mlp

import ptree as pt
from ptree import initializers as I

SPEC = pt.Tree({
    "enc": {"0": {"kernel": pt.Param((4, 8), init=I.normal(1.0)), "bias": pt.Param((8,), init=I.uniform(-1, 1))}},
    "head": {"kernel": pt.Param((8, 2), init=I.normal(1.0))},
})  # fmt: skip


@pytest.fixture
def key():
    return jax.random.key(0)


def test_version_1_of_the_keys_never_changes():
    golden = {
        "kernel": [3003202364, 2494141583],
        "enc/0/kernel": [2884592824, 4020884266],
        "block 1/β": [696340904, 1941874685],
    }
    for path, words in golden.items():
        assert jax.random.key_data(pt.random.child_key(jax.random.key(0), path)).tolist() == words, path
    assert pt.random.child_key(jax.random.PRNGKey(0), "kernel").tolist() == golden["kernel"]


def test_the_keys_are_fold_in_of_64_bits_of_sha256_per_segment():
    for make in (jax.random.key, lambda seed: jax.random.key(seed, impl="rbg"), jax.random.PRNGKey):
        key = make(7)
        for segment in ("enc", "0", "kernel"):
            digest = hashlib.sha256(segment.encode()).digest()
            for word in (digest[:4], digest[4:8]):
                key = jax.random.fold_in(key, int.from_bytes(word, "big"))
        ours = pt.random.child_key(make(7), "enc/0/kernel")
        assert ours.dtype == key.dtype
        assert (ours == key).all()


def test_a_value_depends_on_key_and_path_alone(key):
    params = pt.init(SPEC, key)
    alone = pt.init(SPEC["enc"], pt.random.child_key(key, "enc"))
    chex.assert_trees_all_equal(params["enc"], alone)
    more = pt.Tree({"new": {"w": pt.Param((3,), init=I.ones)}, "head": SPEC["head"], "enc": SPEC["enc"]})
    chex.assert_trees_all_equal(pt.select(pt.init(more, key), ["enc", "head"]), params)
    tied = pt.tie(pt.put(SPEC, "copy", SPEC["head"]), {"copy": "head"})
    chex.assert_trees_all_equal(pt.drop(pt.init(tied, key), "copy"), params)
    assert not (pt.init(SPEC, jax.random.key(1))["enc/0/kernel"] == params["enc/0/kernel"]).any()


def test_no_two_paths_of_a_tree_share_a_key(key):
    names = [f"{a}/{b}" for a in range(60) for b in ("x", "y", "xy", "q")] + [
        "ab/cdef",
        "abc/def",
        "abcdef",
        "a/b/cdef",
    ]
    tree = pt.Tree(dict.fromkeys(names, 0))
    data = {tuple(jax.random.key_data(leaf).tolist()) for leaf in jax.tree.leaves(pt.random.keys(tree, key))}
    assert len(data) == len(names)
    assert (pt.random.keys(tree, key)["3/xy"] == pt.random.child_key(key, "3/xy")).all()


def test_leaves_in_a_stack_have_a_key_for_each_layer_also_where_there_is_none(key):
    tree = {"blocks": {":": {"w": jnp.zeros((0, 3)), "v": jnp.zeros((2, 3)), "label": "x"}}}
    for root in (key, jax.random.key_data(key)):
        made = pt.random.keys(tree, root)["blocks"][":"]
        assert made["w"].shape[0] == 0
        assert (made["v"][1] == pt.random.child_key(root, "blocks/1/v")).all()
        assert (made["label"] == pt.random.child_key(root, "blocks/:/label")).all()


def test_raw_and_typed_keys_draw_the_same(key):
    chex.assert_trees_all_equal(pt.init(SPEC, jax.random.PRNGKey(0)), pt.init(SPEC, key))


def test_init_is_the_same_inside_jit_and_works_abstractly(key):
    params = pt.init(SPEC, key)
    chex.assert_trees_all_equal(jax.jit(lambda k: pt.init(SPEC, k))(key), params)
    assert jax.eval_shape(lambda k: pt.init(SPEC, k), key) == pt.abstract(SPEC) == pt.abstract(params)
    ensemble = jax.vmap(lambda k: pt.init(SPEC, k))(jax.random.split(key, 3))
    assert ensemble["enc/0/kernel"].shape == (3, 4, 8)


def test_rules_override_and_the_first_match_wins(key):
    params = pt.init(SPEC, key, {"head": I.constant(3), "**/kernel": I.constant(2)})
    assert (params["head/kernel"] == 3).all()
    assert (params["enc/0/kernel"] == 2).all()
    assert (params["enc/0/bias"] == pt.init(SPEC, key)["enc/0/bias"]).all()


def test_arrays_in_a_spec_stay_the_same_objects(key):
    constant = jnp.arange(3.0)
    params = pt.init({"w": pt.Param((2,), init=I.zeros), "constant": constant}, key)
    assert params["constant"] is constant
    assert type(params) is pt.Tree


def test_initialisers_are_any_function_of_key_shape_and_dtype(key):
    def looks_at_values(key, shape, dtype):
        while float(jax.random.uniform(key)) > 0.3:  # no tracer can answer this
            key = jax.random.fold_in(key, 1)
        return jax.random.uniform(key, shape, dtype)

    assert pt.init({"w": pt.Param((2,), init=looks_at_values)}, key)["w"].shape == (2,)
    assert pt.init({"w": pt.Param((2,), init=lambda k, s, d: np.ones(s, d))}, key)["w"].tolist() == [1, 1]
    assert pt.init({"w": pt.Param((2,), init=jax.nn.initializers.normal())}, key)["w"].dtype == jnp.float32
    table = np.arange(6.0, dtype="float32").reshape(3, 2)
    assert (pt.init({"w": pt.Param((3, 2), init=I.constant(table))}, key)["w"] == table).all()


def test_one_compiled_draw_serves_all_leaves_of_a_kind(key):
    traced = []

    def counted(key, shape, dtype):
        traced.append(shape)
        return jax.random.normal(key, shape, dtype)

    spec = pt.Tree(
        {f"layer_{i}": {"a": pt.Param((3, 2), init=counted), "b": pt.Param((5,), init=counted)} for i in range(20)}
    )
    params = pt.init(spec, key)
    assert sorted(traced) == [(3, 2), (5,)]
    assert len({leaf.tobytes() for leaf in map(np.asarray, jax.tree.leaves(params))}) == 40


def test_no_weak_types_come_out_so_a_train_step_compiles_once(key):
    params = pt.init({"a": pt.Param((2,), init=I.constant(1.5)), "b": pt.Param((), init=lambda k, s, d: 0.5)}, key)
    assert not any(leaf.aval.weak_type for leaf in jax.tree.leaves(params))


def test_reinit_redraws_only_what_the_rules_match(key):
    params = pt.tie(mlp(), {"4": "2"})
    new = pt.reinit(params, key, {"2/kernel": I.normal(1.0)})
    assert new["4/kernel"] is new["2/kernel"]
    assert new["0/kernel"] is params["0/kernel"]
    assert (new["2/kernel"] == I.normal(1.0)(pt.random.child_key(key, "2/kernel"), (8, 8), jnp.float32)).all()
    plain = pt.reinit({"a": [jnp.zeros(2), jnp.zeros(3)]}, key, {"a/1": I.ones})
    assert plain["a"][1].tolist() == [1, 1, 1]
    assert type(plain["a"]) is list


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "complex64", "int32", "bool"])
def test_every_dtype_can_be_drawn(key, name):
    init = I.normal(1.0) if "float" in name or "complex" in name else I.ones
    assert pt.init({"w": pt.Param((2, 2), name, init)}, key)["w"].dtype == jnp.dtype(name)


def test_abstract_allocates_nothing():
    spec = pt.Tree({f"l{i}": {"kernel": pt.Param((100_000, 700_000))} for i in range(100)})
    assert pt.abstract(spec)["l0/kernel"] == jax.ShapeDtypeStruct((100_000, 700_000), jnp.float32)
    assert pt.summary(spec).count == 7_000_000_000_000


def test_what_is_trainable_is_a_mask_by_a_predicate():
    spec = pt.Tree({"a": pt.Param((2,), trainable=False), "b": {"w": pt.Param((2,))}})
    assert pt.mask(spec, lambda path, leaf: leaf.trainable) == pt.Tree({"a": False, "b": {"w": True}})


def test_params_know_their_size_and_say_what_they_are():
    param = pt.Param((4, 8), jnp.bfloat16, I.xavier_uniform(), trainable=False)
    assert (param.ndim, param.size) == (2, 32)
    assert repr(param) == "Param(bf16[4,8], init=xavier_uniform(), trainable=False)"
    assert pt.Param(3).shape == (3,)
    assert pt.Param([np.int64(2), 3]).shape == (2, 3)
    assert hash(param) == hash(pt.Param((4, 8), "bfloat16", I.xavier_uniform(), False))


A = "an initialiser is a function (key, shape, dtype) -> array"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda k: pt.Param((2, -1)), "bad shape (2, -1): a shape is a tuple of whole numbers of at least 0"),
        (lambda k: pt.Param("ab"), "bad shape 'ab': a shape is a tuple of whole numbers of at least 0"),
        (lambda k: pt.Param((2.5,)), "bad shape (2.5,): a shape is a tuple of whole numbers of at least 0"),
        (lambda k: pt.Param(2, "floot"), "bad dtype 'floot': use jnp.float32, 'bfloat16' or another dtype of numbers or bools"),
        (lambda k: pt.Param(2, init=0.5), f"not an initialiser: 0.5; {A}. Use initializers.constant(0.5)"),
        (lambda k: pt.init({"a": pt.Param(2), "b": jax.ShapeDtypeStruct((2,), jnp.float32)}, k),
         "no initialiser for ['a', 'b']: give Param(..., init=...), or a rule such as {'**/bias': initializers.zeros}"),
        (lambda k: pt.init({"a": pt.Param(2)}, k, {"a": 0.0}),
         f"cannot draw 'a': not an initialiser: 0.0; {A}. Use initializers.constant(0.0)"),
        (lambda k: pt.init({"a": pt.Param(2)}, k, {"a": I.xavier_uniform}),
         "cannot draw 'a': xavier_uniform is called first, with its options: initializers.xavier_uniform()"),
        (lambda k: pt.init({"a": pt.Param(2)}, k, {"a": lambda k, s, d: I.ones}),
         "cannot draw 'a', f32[2], with <lambda>: it returned a function; call it first: <lambda>()"),
        (lambda k: pt.init({"a": {"b": pt.Param(2, init=lambda k, s, d: jnp.zeros(3))}}, k),
         "cannot draw 'a/b', f32[2], with <lambda>: it returned f32[3]"),
        (lambda k: pt.init({"a": pt.Param(2, init=lambda k, s, d: jnp.zeros(s, "bfloat16"))}, k),
         "cannot draw 'a', f32[2], with <lambda>: it returned bf16[2]"),
        (lambda k: pt.init({"a": pt.Param(2, init=lambda k, s, d: 1 / 0)}, k),
         "cannot draw 'a', f32[2], with <lambda>: division by zero"),
        (lambda k: pt.init({"a": pt.Param(2, "float64", I.zeros)}, k),
         "cannot draw 'a': f64[2] is of a 64-bit type; call jax.config.update('jax_enable_x64', True) first"),
        (lambda k: pt.init({"a": pt.Param(2, init=I.zeros)}, 3), "not a PRNG key: 3; use jax.random.key(3)"),
        (lambda k: pt.init({"a": pt.Param(2, init=I.zeros)}, jax.random.split(k)),
         "not a PRNG key: key<fry>[2]; use jax.random.key(seed)"),
        (lambda k: pt.reinit({"a": "x"}, k, {"a": I.zeros}), "cannot draw 'a': 'x' has no shape and dtype"),
        (lambda k: pt.reinit(TREES["mlp"], k, {"0/bias": I.xavier_uniform()}),
         "cannot draw '0/bias', f32[8], with xavier_uniform(): in_axis=-2 is not there in a shape with 1 axis"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_says_path_and_reason(key, call, message):
    says(pt.InitError, message, call, key)


def test_a_rule_may_match_nothing_where_that_is_asked_for(key):
    rules = {"nothing": I.zeros, "**": I.ones}
    assert (pt.init(SPEC, key, rules, strict=False)["head/kernel"] == 1).all()
    assert pt.reinit(TREES["mlp"], key, {"nothing": I.zeros}, strict=False) is TREES["mlp"]


def test_rules_that_match_nothing_are_all_listed(key):
    says(
        pt.PatternError,
        "the pattern '**/bais' matches nothing in 3 leaves. Did you mean '**/bias'?\n"
        "the pattern 'haed' matches nothing: at the root there are ['enc', 'head']. Did you mean 'head'?",
        pt.init, SPEC, key, {"**/bais": I.zeros, "**": I.ones, "haed": I.zeros},
    )  # fmt: skip
