"""Calls of initialisers that make no sense, each refused with what was meant; and options of NumPy, which are taken."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says

import ptree as pt
from ptree import initializers as I

KEY = jax.random.key(0)
NUMBERS = {  # each option that is a number, with what it may be at least
    "normal stddev": (lambda x: I.normal(x), 0), "normal mean": (lambda x: I.normal(1.0, x), None),
    "truncated_normal stddev": (lambda x: I.truncated_normal(x), 0), "truncated_normal mean": (lambda x: I.truncated_normal(1.0, x), None),
    "rescaled stddev": (lambda x: I.rescaled_truncated_normal(x), 0), "rescaled mean": (lambda x: I.rescaled_truncated_normal(1.0, x), None),
    "lower": (lambda x: I.truncated_normal(1.0, lower=x, upper=9), None), "upper": (lambda x: I.rescaled_truncated_normal(1.0, lower=-9, upper=x), None),
    "low": (lambda x: I.uniform("x" if x is None else x, 9), None), "high": (lambda x: I.uniform(-9, x), None), "sparsity": (lambda x: I.sparse(x), 0),
    "sparse stddev": (lambda x: I.sparse(0.5, x), 0), "scale": (lambda x: I.variance_scaling(x), 0), "xavier gain": (lambda x: I.xavier_normal(x), 0),
    "glorot gain": (lambda x: I.glorot_uniform(x), 0), "kaiming slope": (lambda x: I.kaiming_normal(x), None), "he slope": (lambda x: I.he_uniform(x), None),
    "orthogonal gain": (lambda x: I.orthogonal(x), None), "identity gain": (lambda x: I.identity(x), None), "gain slope": (lambda x: I.gain("relu", x), None),
    "layers": (lambda x: I.gpt2_residual(x), 1), "gpt2 stddev": (lambda x: I.gpt2_residual(2, x), 0), "base_width": (lambda x: I.mup(x), 1),
    "mup stddev": (lambda x: I.mup(8, x), 0), "torch fan_in": (lambda x: I.torch_linear(x) if x is not None else I.torch_linear("x"), 1),
    "conv fan_in": (lambda x: I.torch_conv(x) if x is not None else I.torch_conv("x"), 1), "mxnet scale": (lambda x: I.mxnet_default(x), 0),
    "groups": (lambda x: I.lecun_normal(groups=x), 1), "dirac groups": (lambda x: I.dirac(x), 1), "share": (lambda x: I.mixture((x, I.zeros), (0.5, I.ones)), 0),
    "padding_idx": (lambda x: I.torch_embedding(x) if x is not None else I.torch_embedding("x"), None),
    "in_axis": (lambda x: I.lecun_uniform(in_axis=x), None), "out_axis": (lambda x: I.orthogonal(out_axis=x), None), "batch_axis": (lambda x: I.identity(batch_axis=x), None),
}  # fmt: skip
WHOLE = ["layers", "groups", "dirac groups", "padding_idx", "in_axis", "out_axis", "batch_axis"]
NO_NUMBERS = [
    "0.5",
    b"1",
    None,
    True,
    np.True_,
    {},
    [None],
    object(),
    jnp.float32,
    KEY,
    np.array(["a"]),
    jnp.array([True]),
    I.normal,
]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), 10**400]


@pytest.mark.parametrize("option", NUMBERS)
def test_an_option_that_is_no_number_is_refused_when_it_is_given(option):
    make, least = NUMBERS[option]
    wrong = [*NO_NUMBERS]
    if option not in ("lower", "upper"):  # a cut may be infinite
        wrong += NOT_FINITE
    if option in WHOLE:
        wrong += [0.5, 2.0, np.float32(1)]
    if least is not None:
        wrong += [least - 1, -1e-3]
    for value in wrong:
        with pytest.raises(pt.InitError) as error:
            make(value)
        assert len(str(error.value)) < 300, value


def test_options_of_numpy_are_taken_as_those_of_python():
    for numpy, python in (
        (I.normal(np.float64(0.5)), I.normal(0.5)), (I.lecun_normal(in_axis=np.int64(0), out_axis=(np.int32(1),)), I.lecun_normal(in_axis=0, out_axis=1)),
        (I.kaiming_normal(groups=np.int64(2)), I.kaiming_normal(groups=2)), (I.gpt2_residual(np.int32(3)), I.gpt2_residual(3)),
        (I.dirac(np.uint8(2)), I.dirac(2)), (I.torch_embedding(np.int64(1)), I.torch_embedding(1)), (I.truncated_normal(np.float32(0.5), lower=np.float32(-1)), I.truncated_normal(0.5, lower=-1)),
    ):  # fmt: skip
        shape = (2, 3, 4, 4) if "dirac" in repr(numpy) or "groups" in repr(numpy) else (4, 4)
        assert (numpy(KEY, shape) == python(KEY, shape)).all()


@pytest.mark.parametrize(
    "array", [np.array([0.1, 1.0, 10.0], "float32"), jnp.array([0.1, 1.0, 10.0])], ids=["NumPy", "JAX"]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_array_is_broadcast_against_the_shape(array, dtype):
    w = pt.init({"w": pt.Param((5000, 3), dtype, I.normal(array))}, KEY)["w"]
    np.testing.assert_allclose(np.asarray(w, np.float64).std(0), [0.1, 1, 10], rtol=0.05)
    w = pt.init({"w": pt.Param((5000, 3), dtype, I.uniform(-array, array))}, KEY)["w"]
    assert (np.asarray(w, np.float64) < np.asarray(array, np.float64)).all()
    np.testing.assert_allclose(np.asarray(w, np.float64).std(0), np.array([0.1, 1, 10]) / 3**0.5, rtol=0.05)
    w = jax.jit(lambda a: I.truncated_normal(a)(KEY, (5000, 3), dtype))(jnp.asarray(array))
    np.testing.assert_allclose(np.abs(np.asarray(w, np.float64)).max(0), [0.2, 2, 20], rtol=0.02)


@pytest.mark.parametrize("make", [
    I.normal, lambda s: I.uniform(-s, s), I.truncated_normal, I.rescaled_truncated_normal, I.variance_scaling, I.orthogonal, I.identity, I.xavier_uniform,
    lambda s: I.sparse(0.5, s), lambda s: I.mup(4, s), lambda s: I.mixture((0.5, I.normal(s)), (0.5, I.ones)), lambda s: I.truncated_normal(1.0, s, 3.0, 4.0),
])  # fmt: skip
def test_numbers_may_be_traced_and_have_a_derivative(make):
    """What scales or shifts noise linearly has the derivative of a difference."""

    def total(number, dtype="float32"):
        return make(number)(KEY, (4, 4), dtype).astype("float32").sum()

    numeric = (total(0.75) - total(0.25)) / 0.5
    if make not in (I.variance_scaling,):  # it goes with the square root
        assert float(jax.grad(total)(0.5)) == pytest.approx(float(numeric), rel=1e-3, abs=1e-4)
    for dtype in ("float32", "bfloat16"):
        assert float(jax.jit(total, static_argnums=1)(0.5, dtype)) == pytest.approx(
            float(total(0.5, dtype)), rel=1e-3, abs=1e-3
        )


@pytest.mark.parametrize(("call", "message"), [
    (lambda: I.zeros(), "zeros is an initialiser as it stands: write it without (), or draw with zeros(key, shape, dtype)"),
    (lambda: I.ones(KEY), "ones is an initialiser as it stands: write it without (), or draw with ones(key, shape, dtype)"),
    (lambda: I.zeros((3,)), "zeros is an initialiser as it stands: write it without (), or draw with zeros(key, shape, dtype)"),
    (lambda: I.normal(0.02)(), "normal(0.02) is an initialiser as it stands: write it without (), or draw with normal(0.02)(key, shape, dtype)"),
    (lambda: I.zeros(KEY, "ab"), "bad shape 'ab': a shape is a tuple of whole numbers"),
    (lambda: I.zeros(KEY, (2.5,)), "bad shape (2.5,): a shape is a tuple of whole numbers"),
    (lambda: I.zeros(KEY, (3,), "floot"), "bad dtype 'floot': use jnp.float32, 'bfloat16' or another dtype"),
    (lambda: I.normal(KEY, (2, 3)), "stddev must be a number, got a PRNG key, key<fry>[]; call it with its options first: normal(0.02)(key, shape, dtype)"),
    (lambda: I.normal(KEY, (2, 3), "float32"), "normal takes the options ['stddev', 'mean'], got (key<fry>[], tuple, 'float32'): too many positional arguments"),
    (lambda: I.normal(std=0.02), "normal takes the options ['stddev', 'mean'], got (std=0.02): got an unexpected keyword argument 'std'"),
    (lambda: I.gpt2_residual(), "gpt2_residual takes the options ['layers', 'stddev'], got (): missing a required argument: 'layers'"),
    (lambda: I.uniform(0.1), "uniform takes both ends, and got low=0.1 alone: uniform(0, 0.1) is JAX's uniform(0.1); uniform(0.1, 1) goes up to 1"),
    (lambda: I.uniform(low=0.1), "uniform takes both ends, and got low=0.1 alone: uniform(0, 0.1) is JAX's uniform(0.1); uniform(0.1, 1) goes up to 1"),
    (lambda: I.mixture((0.5, I.normal), (0.5, I.zeros)), "normal is called first, with its options: initializers.normal()"),
    (lambda: I.Scheme(I.lecun_normal), "lecun_normal is called first, with its options: initializers.lecun_normal()"),
    (lambda: I.constant([1, [2, 3]]), "constant takes a number or an array of numbers: "),
    (lambda: I.normal(1j), "stddev must be a number, got 1j"),
])  # fmt: skip
def test_calls_that_are_not_the_right_ones_say_what_was_meant(call, message):
    with pytest.raises(pt.InitError) as error:
        call()
    assert str(error.value).startswith(message)


def test_an_initialiser_that_was_not_called_is_refused_in_rules_and_declarations():
    for factory in (
        I.normal,
        I.uniform,
        I.truncated_normal,
        I.rescaled_truncated_normal,
        I.orthogonal,
        I.xavier_uniform,
        I.constant,
        I.dirac,
        I.mup,
    ):
        message = (
            f"cannot draw 'w': {factory.__name__} is called first, with its options: initializers.{factory.__name__}()"
        )
        says(pt.InitError, message, pt.init, {"w": pt.Param((2, 2), init=factory)}, KEY)
        says(pt.InitError, message, pt.init, {"w": pt.Param((2, 2))}, KEY, {"**": factory})
        says(pt.InitError, message, pt.reinit, {"w": jnp.ones((2, 2))}, KEY, {"**": factory})


def test_a_function_without_a_module_is_an_initialiser():
    """What `exec` or a doctest defines has the module None."""
    names = {}
    exec("def draw(key, shape, dtype): return [3.0, 3.0]", {}, names)
    assert names["draw"].__module__ is None
    assert pt.init({"w": pt.Param((2,), init=names["draw"])}, KEY)["w"].tolist() == [3, 3]
    assert repr(I.mixture((1.0, names["draw"]))) == "mixture((1.0, draw))"


def test_the_ends_of_uniform_are_those_of_jax_and_pytorch():
    ours = I.uniform(high=0.1)
    assert repr(ours) == "uniform(0.0, 0.1)"
    assert ours == I.uniform(0.0, 0.1)
    np.testing.assert_allclose(ours(KEY, (50,)), jax.nn.initializers.uniform(0.1)(KEY, (50,)), rtol=1e-6)
    assert I.uniform() == I.uniform(0.0, 1.0)  # as torch.nn.init.uniform_(w)


def test_truncated_normal_is_that_of_jax_and_the_rescaled_one_has_its_spread_after_the_cut():
    ours = I.truncated_normal(0.02)(KEY, (400, 500))
    assert (ours == jax.nn.initializers.truncated_normal(0.02)(KEY, (400, 500))).all()
    assert float(ours.std()) == pytest.approx(0.02 * 0.87962566, rel=0.01)
    assert float(I.rescaled_truncated_normal(0.02)(KEY, (400, 500)).std()) == pytest.approx(0.02, rel=0.01)
    with pytest.raises(
        AttributeError, match=r"no trunc_normal\. truncated_normal\(stddev\) has the standard deviation before the cut"
    ):
        _ = I.trunc_normal


# ------------------------------------------------------------------ leaves of other dtypes


def test_arrays_alone_are_no_spec_and_the_error_names_reinit():
    spec = pt.Tree({"a": {"w": pt.Param((3,), init=I.normal(1.0))}, "b": pt.Param((2,), init=I.zeros)})
    params = pt.init(spec, KEY)
    message = (
        "init draws the Params of a spec and keeps its arrays, and in this spec every leaf is an array already: draw them again"
        " with reinit(params, key, rules)"
    )
    for arrays in (params, pt.asdict(params), pt.update(params, "**", np.asarray)):
        says(pt.InitError, message, pt.init, arrays, KEY)
        says(pt.InitError, message, pt.init, arrays, KEY, {})
    assert not (
        pt.init(params, jax.random.key(1), {"a": I.normal(1.0)})["a/w"] == params["a/w"]
    ).any()  # a rule takes it
    mixed = pt.init({"old": params["a/w"], "new": spec["b"]}, KEY)
    assert mixed["old"] is params["a/w"]
    assert pt.init({}, KEY) == pt.Tree({})


@pytest.mark.parametrize(("leaf", "shown"), [
    (jax.random.key(0), "key<fry>[]"), (jax.random.split(jax.random.key(0), 3), "key<fry>[3]"), (np.array(["a"]), "<U1[1]"),
    (np.array([None]), "object[1]"), (np.array(["2020-01-01"], "datetime64[D]"), "datetime64[D][1]"),
], ids=str)  # fmt: skip
def test_leaves_that_hold_no_numbers_are_refused_by_their_path_and_kept_otherwise(leaf, shown):
    for rule in (I.ones, I.normal(1.0), lambda key, shape, dtype: leaf):
        says(pt.InitError, f"cannot draw 'a/k': {shown} is no array of numbers or bools of JAX or NumPy",
             pt.reinit, {"a": {"k": leaf}}, KEY, {"**": rule})  # fmt: skip
    assert pt.init({"k": leaf, "w": pt.Param((2,), init=I.ones)}, KEY)["k"] is leaf


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "bool", "int4"])
def test_whole_numbers_and_bools_take_constants_and_no_distribution(dtype):
    for init in (I.zeros, I.ones, I.constant(1), I.identity(), I.mixture((0.5, I.zeros), (0.5, I.ones))):
        w = pt.init({"w": pt.Param((6, 6), dtype, init)}, KEY)["w"]
        assert w.dtype == dtype
        assert {int(value) for value in np.unique(np.asarray(w).astype(int))} <= {0, 1}
    for init in (
        I.normal(1.0),
        I.uniform(0, 2),
        I.truncated_normal(1.0),
        I.lecun_normal(),
        I.orthogonal(),
        I.sparse(0.5),
        I.torch_linear,
        I.mup(8),
    ):
        with pytest.raises(pt.InitError, match="it draws floats, and the leaf is"):
            pt.init({"w": pt.Param((6, 6), dtype, init)}, KEY)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_leaves_have_the_variance_and_real_distributions_are_refused(dtype):
    with jax.enable_x64(dtype == "complex128"):
        for init, spread in (
            (I.normal(0.5), 0.5), (I.lecun_normal(), 1 / 8), (I.lecun_uniform(), 1 / 8), (I.variance_scaling(2.0, "fan_out", "normal"), 0.1), (I.xavier_uniform(), (2 / 264) ** 0.5),
        ):  # fmt: skip
            w = np.asarray(init(KEY, (64, 200), dtype))
            assert w.dtype == dtype
            assert np.sqrt((abs(w) ** 2).mean()) == pytest.approx(spread, rel=0.03)
            assert (
                abs((w**2).mean()) < 0.05 * spread**2
            )  # real and imaginary parts share the variance and are independent
        unitary = np.asarray(I.orthogonal(2j)(KEY, (6, 4), dtype))
        np.testing.assert_allclose(unitary.conj().T @ unitary, 4 * np.eye(4), atol=1e-5)
        assert I.normal(1.0, 3 + 4j)(KEY, (50, 50), dtype).mean() == pytest.approx(3 + 4j, rel=0.02)
        for init in (I.uniform(-1, 1), I.truncated_normal(1.0), I.torch_linear):
            with pytest.raises(pt.InitError, match="it draws real numbers, and the leaf is"):
                init(KEY, (4, 4), dtype)


def test_a_complex_option_needs_a_complex_leaf():
    for init in (I.normal(1.0, 1j), I.orthogonal(1j), I.identity(1j)):
        with pytest.raises(pt.InitError, match="f32 cannot hold"):
            pt.init({"w": pt.Param((3, 3), init=init)}, KEY)
