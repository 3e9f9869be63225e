"""Norms against Flax and PyTorch: over several axes, without scale and bias, of complex numbers, and BatchNorm over parts of a
batch and with padding; values, gradients and running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from grids import data, drawn, grid, shown
from jax.sharding import PartitionSpec

import ptree as pt
from ptree import nn

linen = pytest.importorskip("flax.linen")


def numbers(*shape, dtype="float32", seed=0):
    """Numbers far from 0, where a variance that forgets the mean would show."""
    x = data(*shape, seed=seed) + 1.5
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * (data(*shape, seed=seed + 100) - 0.5)
    return jnp.asarray(x, dtype)


def with_gradients(function, params, x):
    """The output, and the gradients of a real loss that weighs every output differently."""

    def loss(params, x):
        y = function(params, x)
        weights = data(*y.shape, seed=7)
        return (y.real * weights).sum() + (y.imag * weights[::-1]).sum(), y

    (_, y), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    return y, gradients


def agree(ours, theirs, params, x, tolerance=2e-5):
    y, (of_params, of_x) = with_gradients(ours, params, x)
    expected, (their_params, their_x) = with_gradients(theirs, pt.asdict(params), x)
    assert y.dtype == expected.dtype
    assert of_x.dtype == x.dtype
    close(y, expected, tolerance)
    close(of_x, their_x, tolerance)
    for path, gradient in pt.items(of_params):
        close(gradient, their_params[path], tolerance)


def close(got, expected, tolerance):
    got, expected = (np.asarray(a, complex if jnp.iscomplexobj(a) else "float64") for a in (got, expected))
    scale = max(1.0, float(abs(expected).max()))
    np.testing.assert_allclose(got / scale, expected / scale, atol=tolerance)


# ----------------------------------------------------------------------- over several axes


AXES = [
    (-1, None),
    ((-2, -1), None),
    (1, None),
    ((1, 3), None),
    ((-3, -2, -1), -1),
    (-1, (-2, -1)),
    ((1, 2), 3),
    ((-1, -3), 1),
    ((0, 2), (1, 3)),
]


@pytest.mark.parametrize("kind", ["LayerNorm", "RMSNorm"])
@pytest.mark.parametrize(("axis", "feature_axes"), AXES)
def test_norms_over_axes_are_those_of_flax(kind, axis, feature_axes):
    x = numbers(2, 3, 4, 5)
    layer = getattr(nn, kind)(axis=axis, feature_axes=feature_axes, epsilon=0.01)
    features = axis if feature_axes is None else feature_axes
    theirs = getattr(linen, kind)(reduction_axes=axis, feature_axes=features, epsilon=0.01)
    agree(layer, lambda p, x: theirs.apply({"params": p}, x), drawn(layer, x), x)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
def test_norms_over_the_last_axes_are_those_of_pytorch(shape):
    torch = pytest.importorskip("torch")
    x, axis = numbers(2, 3, 4, 5), tuple(range(-len(shape), 0))
    layer, rms = nn.LayerNorm(axis=axis), nn.RMSNorm(axis=axis, epsilon=1e-5)
    params = drawn(layer, x)
    tensors = {name: torch.tensor(np.asarray(leaf), requires_grad=True) for name, leaf in params.items()}
    theirs = torch.nn.functional.layer_norm(torch.tensor(np.asarray(x)), shape, tensors["scale"], tensors["bias"])
    close(layer(params, x), theirs.detach(), 2e-5)
    weights = data(*x.shape, seed=7)
    (theirs * torch.tensor(weights)).sum().backward()
    grads = jax.grad(lambda p: (layer(p, x) * weights).sum())(params)
    for name in ("scale", "bias"):
        close(grads[name], tensors[name].grad, 2e-5)
    theirs = torch.nn.functional.rms_norm(torch.tensor(np.asarray(x)), shape, tensors["scale"], 1e-5)
    close(rms({"scale": params["scale"]}, x), theirs.detach(), 2e-5)
    plain = nn.LayerNorm(axis=axis, use_scale=False, use_bias=False)  # elementwise_affine=False
    close(plain({}, x), torch.nn.functional.layer_norm(torch.tensor(np.asarray(x)), shape), 2e-5)


NORMS = {
    "LayerNorm": (nn.LayerNorm, linen.LayerNorm),
    "GroupNorm": (lambda **options: nn.GroupNorm(2, **options), lambda **options: linen.GroupNorm(2, **options)),
    "BatchNorm": (nn.BatchNorm, lambda **options: linen.BatchNorm(use_running_average=True, **options)),
    "RMSNorm": (nn.RMSNorm, linen.RMSNorm),
}


def in_linen(module):
    def call(params, x):
        statistics = {name: params[name] for name in ("mean", "var") if name in params}
        trained = {name: leaf for name, leaf in params.items() if name not in statistics}
        return module.apply({"params": trained, "batch_stats": statistics}, x)

    return call


def positive_variance(params):
    return pt.update(params, "var", lambda var: abs(var) + 0.5) if "var" in params else params


@pytest.mark.parametrize("options", grid(kind=[*NORMS], use_scale=[True, False], use_bias=[True, False]), ids=shown)
def test_norms_without_scale_or_bias_are_those_of_flax(options):
    kind, x = options.pop("kind"), numbers(3, 5, 4)
    if kind == "RMSNorm":  # it never has a bias
        del options["use_bias"]
    ours, theirs = NORMS[kind]
    layer = ours(**options, epsilon=0.01)
    params = positive_variance(drawn(layer, x))
    wanted = {"scale": options["use_scale"], "bias": options.get("use_bias", False)}
    assert {name for name, is_used in wanted.items() if is_used} == {*params} - {"mean", "var"}
    agree(layer, in_linen(theirs(**options, epsilon=0.01)), params, x)


def test_a_norm_without_parameters_has_no_node_and_keeps_the_dtype():
    norm = nn.LayerNorm(use_scale=False, use_bias=False)
    net = nn.Sequential(norm, nn.Dense(3), nn.RMSNorm(use_scale=False))
    x = numbers(2, 4)
    params = net.init(jax.random.key(0), x)
    assert [*params] == ["1"]
    assert jax.jit(net)(params, x).shape == (2, 3)
    assert norm({}, x.astype("bfloat16")).dtype == jnp.bfloat16
    assert norm({}, x.astype("float16")).dtype == jnp.float16


def test_axes_that_an_input_does_not_have_are_refused():
    says(pt.LayerError, "LayerNorm(axis=(-3, -1)): expected an input with the axes (-3, -1), got f32[4,4]",
         nn.LayerNorm(axis=(-3, -1)).spec, jnp.ones((4, 4)))  # fmt: skip
    says(pt.LayerError, "LayerNorm(axis=(0, -2)): expected an input with the axes (0, -2), got f32[4,4]",
         nn.LayerNorm(axis=(0, -2)).spec, jnp.ones((4, 4)))  # fmt: skip
    says(pt.LayerError, "RMSNorm(axis=(1, 1)): expected axis to be an axis such as -1, or a tuple of different ones such as"
         " (-2, -1), got (1, 1)", nn.RMSNorm, axis=(1, 1))  # fmt: skip
    layer = nn.LayerNorm(axis=(-2, -1))
    params = layer.init(jax.random.key(0), jnp.ones((2, 3, 4)))
    says(pt.LayerError, "LayerNorm(axis=(-2, -1)): expected a scale of the shape (4, 3), got f32[3,4]",
         layer, params, jnp.ones((2, 4, 3)))  # fmt: skip


# ------------------------------------------------------------------------------- of any dtype


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("kind", [*NORMS])
def test_norms_of_any_dtype_are_those_of_flax(kind, dtype):
    x = numbers(3, 5, 4, dtype=dtype)
    ours, theirs = NORMS[kind]
    parameters = "float32" if dtype == "complex64" else dtype
    layer, peer = ours(param_dtype=parameters, epsilon=0.01), theirs(param_dtype=parameters, epsilon=0.01)
    params = positive_variance(drawn(layer, x))
    agree(layer, in_linen(peer), params, x, 2e-5 if dtype == "complex64" else 4e-2)


@pytest.mark.parametrize("layer", [nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(2), nn.BatchNorm()], ids=repr)
def test_a_normalised_complex_input_has_the_power_1(layer):
    x = numbers(6, 4, dtype="complex64") * jnp.exp(0.3j)
    y = layer(layer.init(jax.random.key(0), x), x, **({"train": True} if isinstance(layer, nn.BatchNorm) else {}))
    assert y.dtype == jnp.complex64
    power = (abs(y) ** 2).mean()
    assert float(power) == pytest.approx(1, abs=1e-3)  # c * c has another mean, which is not real
    turned = layer(
        layer.init(jax.random.key(0), x), x * 1j, **({"train": True} if isinstance(layer, nn.BatchNorm) else {})
    )
    close(turned, y * 1j, 1e-5)  # a turn of the input is a turn of the output


def test_running_statistics_of_complex_numbers_are_a_complex_mean_and_a_real_variance():
    x, layer = numbers(8, 3, dtype="complex64"), nn.BatchNorm(momentum=0)
    params = layer.init(jax.random.key(0), x)
    assert (params["mean"].dtype, params["var"].dtype) == (jnp.complex64, jnp.float32)
    _, new = layer.updated(params, x)
    close(new["mean"], np.mean(x, 0), 1e-5)
    close(new["var"], np.var(x, 0, ddof=1), 1e-5)
    real = layer.init(jax.random.key(0), x.real)
    says(
        pt.LayerError, "BatchNorm(momentum=0): expected a complex mean for a complex input, got f32[3]", layer, real, x
    )


# ------------------------------------------------------------------------ over parts of a batch


def mesh_of_two():
    return jax.make_mesh((2,), ("parts",), axis_types=(jax.sharding.AxisType.Auto,))


def mapped(how, layer):
    """The layer's update on parts f[parts, batch, ...], by each of the ways to map over them."""
    if how == "vmap":
        return jax.vmap(layer.updated, in_axes=(None, 0), out_axes=(0, None), axis_name="parts")
    if how == "pmap":
        both = jax.pmap(layer.updated, in_axes=(None, 0), axis_name="parts")

        def call(params, x):
            y, new = both(params, x)
            return y, jax.tree.map(lambda leaf: leaf[0], new)

        return call
    mesh = mesh_of_two()
    specs = {
        "in_specs": (PartitionSpec(), PartitionSpec("parts")),
        "out_specs": (PartitionSpec("parts"), PartitionSpec()),
    }

    def one(params, x):
        y, new = layer.updated(params, x[0])
        return y[None], new

    return jax.jit(jax.shard_map(one, mesh=mesh, **specs))  # operation by operation, each is compiled


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pmap
@pytest.mark.parametrize("how", ["vmap", "shard_map", "pmap"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 5, 4)])
def test_batch_norm_over_parts_is_that_of_the_whole_batch(how, shape):
    """What SyncBatchNorm computes: mean, biased variance, and the unbiased one of the running statistics, over all parts."""
    torch = pytest.importorskip("torch")
    parts = numbers(2, *shape) * jnp.array([1.0, 3.0]).reshape(2, *(1,) * len(shape))  # each part has other statistics
    layer = nn.BatchNorm(axis_name="parts", momentum=0.7)
    params = positive_variance(drawn(layer, parts[0]))
    whole = torch.tensor(np.asarray(parts).reshape(-1, 4), requires_grad=True)
    tensors = {
        name: torch.tensor(np.asarray(leaf), requires_grad=name in ("scale", "bias")) for name, leaf in params.items()
    }
    expected = torch.nn.functional.batch_norm(
        whole, tensors["mean"], tensors["var"], tensors["scale"], tensors["bias"], True, 0.3
    )
    weights = data(*parts.shape, seed=7)
    (expected * torch.tensor(weights.reshape(-1, 4))).sum().backward()
    call = mapped(how, layer)

    def loss(params, parts):
        y, new = call(params, parts)
        return (y * weights).sum(), (y, new)

    (_, (y, new)), (of_params, of_parts) = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, parts)
    close(y.reshape(-1, 4), expected.detach(), 2e-5)
    close(of_parts.reshape(-1, 4), whole.grad, 2e-5)
    for name in ("scale", "bias"):
        close(of_params[name], tensors[name].grad, 2e-5)
    for name in ("mean", "var"):
        close(new[name], tensors[name], 1e-5)


def test_batch_norm_over_parts_is_that_of_flax():
    parts, layer = numbers(2, 3, 4), nn.BatchNorm(axis_name="parts")
    params = drawn(layer, parts[0])
    peer = linen.BatchNorm(use_running_average=False, axis_name="parts")

    def theirs(p, x):
        own = {"params": {name: p[name] for name in ("scale", "bias")}}
        own["batch_stats"] = {name: p[name] for name in ("mean", "var")}
        return jax.vmap(lambda x: peer.apply(own, x, mutable=["batch_stats"])[0], axis_name="parts")(x)

    ours = jax.vmap(lambda p, x: layer(p, x, train=True), in_axes=(None, 0), axis_name="parts")
    agree(ours, theirs, params, parts)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_batch_norm_in_a_shard_map_over_the_whole_mesh_or_one_axis_of_it(kind):
    """Without `axis_name` each device normalises by the statistics of its own part, and is far off."""
    kinds = (getattr(jax.sharding.AxisType, kind),) * 2
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=kinds, devices=jax.devices()[:4])
    x = numbers(4, 3) * jnp.array([1.0, 1.0, 5.0, 5.0])[:, None]
    layer, alone = nn.BatchNorm(axis_name="data"), nn.BatchNorm()
    params = positive_variance(drawn(layer, x))
    expected, statistics = alone.updated(params, x)
    both = {"in_specs": (PartitionSpec(), PartitionSpec("data")), "out_specs": (PartitionSpec("data"), PartitionSpec())}
    with jax.set_mesh(mesh):
        parts = jax.device_put(x, jax.NamedSharding(mesh, PartitionSpec("data")))
        for manual in ({"data", "model"}, {"data"}):
            y, new = jax.jit(jax.shard_map(layer.updated, axis_names=manual, **both))(params, parts)
            close(y, expected, 2e-5)
            for name in ("mean", "var"):
                close(new[name], statistics[name], 1e-5)
        of_parts = jax.shard_map(
            lambda p, x: alone(p, x, train=True), in_specs=both["in_specs"], out_specs=PartitionSpec("data")
        )
        assert abs(np.asarray(of_parts(params, parts)) - np.asarray(expected)).max() > 0.5


def test_batch_norm_over_two_axes_and_inside_of_containers():
    parts = numbers(2, 3, 5, 4)
    net = nn.Sequential(nn.BatchNorm(axis_name=("a", "b"), momentum=0), nn.Dense(2))
    params = net.init(jax.random.key(0), parts[0, 0])
    step = jax.vmap(net.updated, in_axes=(None, 0), out_axes=(0, None), axis_name="b")
    step = jax.jit(jax.vmap(step, in_axes=(None, 0), out_axes=(0, None), axis_name="a"))
    y, new = step(params, parts)
    alone = nn.Sequential(nn.BatchNorm(momentum=0), nn.Dense(2))
    expected, whole = alone.updated(params, parts.reshape(-1, 4))
    close(y.reshape(-1, 2), expected, 1e-5)
    close(new["0/var"], whole["0/var"], 1e-5)


def test_an_axis_that_is_not_mapped_is_refused_in_training_only():
    x, layer = numbers(3, 4), nn.BatchNorm(axis_name="parts")
    params = layer.init(jax.random.key(0), x)
    assert layer(params, x).shape == (3, 4)
    message = ("BatchNorm(axis_name='parts'): expected a call inside of jax.shard_map, jax.vmap or jax.pmap over the axis"
               " 'parts', got one outside, in training")  # fmt: skip
    for function in (layer.updated, jax.jit(layer.updated), lambda p, x: layer(p, x, train=True)):
        says(pt.LayerError, message, function, params, x)
    mapped("vmap", layer)(params, x[None])  # the refusal is not kept with the compiled call
    alone = numbers(1, 4)
    assert mapped("vmap", layer)(params, jnp.stack([alone, alone]))[0].shape == (2, 1, 4)  # two values in all
    with pytest.raises(pt.LayerError, match="more than one value for each feature"):
        mapped("vmap", layer)(params, alone[None])


# ----------------------------------------------------------------------------------- with a mask


MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]], bool)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_a_mask_leaves_padding_out_as_in_flax(dtype):
    x = numbers(3, 5, 4, dtype=dtype)
    layer, peer = nn.BatchNorm(epsilon=0.01), linen.BatchNorm(use_running_average=False, epsilon=0.01)
    params = positive_variance(drawn(layer, x))

    def theirs(p, x):
        own = {"params": {name: p[name] for name in ("scale", "bias")}}
        own["batch_stats"] = {name: p[name] for name in ("mean", "var")}
        return peer.apply(own, x, mask=MASK[..., None], mutable=["batch_stats"])[0]

    agree(lambda p, x: layer(p, x, train=True, mask=MASK), theirs, params, x)


def test_a_mask_over_parts_of_images_is_that_of_flax():
    """Where each part has as many valid places: Flax takes the mean of the parts, whatever their number."""
    parts, mask = numbers(2, 3, 4, 5, 6), np.random.default_rng(1).permuted(np.arange(60).reshape(1, 60) < 23, axis=1)
    mask = np.stack([mask, mask[:, ::-1]]).reshape(2, 3, 4, 5, 1)
    layer = nn.BatchNorm(axis_name="parts", momentum=0.8)
    peer = linen.BatchNorm(use_running_average=False, axis_name="parts", momentum=0.8, epsilon=layer.epsilon)
    params = positive_variance(drawn(layer, parts[0]))
    own = {"params": {name: params[name] for name in ("scale", "bias")}}
    own["batch_stats"] = {name: params[name] for name in ("mean", "var")}
    theirs = jax.vmap(lambda x, m: peer.apply(own, x, mask=m, mutable=["batch_stats"]), axis_name="parts")
    ours = jax.vmap(lambda x, m: layer.updated(params, x, mask=m), axis_name="parts")
    (y, new), (expected, state) = ours(parts, mask), theirs(parts, mask)
    close(y, expected, 2e-5)
    statistics = state["batch_stats"]
    close(new["mean"], statistics["mean"], 2e-5)
    # The running variance is PyTorch's, of `n - 1` for n values, where Flax's is of n.
    of_batch = (statistics["var"] - 0.8 * params["var"]) * 46 / 45
    close(new["var"], 0.8 * params["var"] + of_batch, 2e-5)


def test_statistics_with_a_mask_are_those_of_the_values_that_it_keeps():
    torch = pytest.importorskip("torch")
    x, layer = numbers(3, 5, 4), nn.BatchNorm(momentum=0.7)
    params = positive_variance(drawn(layer, x))
    tensors = {name: torch.tensor(np.array(leaf)) for name, leaf in params.items()}
    kept = torch.tensor(np.asarray(x)[MASK])
    expected = torch.nn.functional.batch_norm(
        kept, tensors["mean"], tensors["var"], tensors["scale"], tensors["bias"], True, 0.3
    )
    for mask in (MASK, MASK[..., None], jnp.asarray(MASK), np.repeat(MASK[..., None], 4, -1)):
        y, new = jax.jit(layer.updated)(params, x, mask=mask)
        close(y[MASK], expected, 2e-5)
        for name in ("mean", "var"):
            close(new[name], tensors[name], 1e-5)
    poisoned = jnp.where(MASK[..., None], x, jnp.nan)
    y, again = layer.updated(params, poisoned, mask=MASK)
    close(y[MASK], expected, 2e-5)
    close(again["var"], tensors["var"], 1e-5)


@pytest.mark.parametrize("how", ["vmap", "shard_map"])
def test_a_mask_over_parts_counts_values_rather_than_parts(how):
    """A part with more padding counts less, also one that is all padding; Flax would average the means of the parts."""
    parts, seen = numbers(2, 3, 5, 4), np.stack([MASK, np.zeros_like(MASK)])
    seen[1, 0, 0] = True
    layer = nn.BatchNorm(axis_name="parts", momentum=0.7)
    params = positive_variance(drawn(layer, parts[0]))
    whole = nn.BatchNorm(momentum=0.7)
    for mask in (seen, np.stack([MASK, np.zeros_like(MASK)])):
        expected, statistics = whole.updated(params, parts[mask])
        if how == "vmap":
            run = jax.vmap(lambda x, m: layer.updated(params, x, mask=m), out_axes=(0, None), axis_name="parts")
        else:
            both = jax.P("parts")
            one = lambda x, m: layer.updated(params, x[0], mask=m[0])
            run = jax.jit(jax.shard_map(one, mesh=mesh_of_two(), in_specs=(both, both), out_specs=(both, jax.P())))
        y, new = run(parts, jnp.asarray(mask))
        close(y.reshape(parts.shape)[mask], expected, 2e-5)
        for name in ("mean", "var"):
            close(new[name], statistics[name], 1e-5)


def test_a_batch_of_padding_keeps_the_statistics_and_stays_finite():
    x, layer = numbers(3, 5, 4), nn.BatchNorm()
    params = positive_variance(drawn(layer, x))
    one = np.zeros_like(MASK)
    one[0, 0] = True
    for mask in (np.zeros_like(MASK), one):
        y, new = jax.jit(layer.updated)(params, x, mask=mask)
        assert np.isfinite(y).all()
        assert all((new[name] == params[name]).all() for name in ("mean", "var"))
        gradients = jax.grad(lambda p, mask=mask: layer.updated(p, x, mask=mask)[0].sum())(params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_a_mask_that_does_not_fit_is_refused_also_outside_of_training():
    x, layer = numbers(3, 5, 4), nn.BatchNorm()
    params = layer.init(jax.random.key(0), x)
    for mask, got in ((MASK.astype("float32"), "f32[3,5]"), (MASK[0], "bool[5]"), (MASK[:, :, None, None], "bool[3,5,1,1]"),
                      ([True], "list"), (np.ones((3, 4), bool), "bool[3,4]")):  # fmt: skip
        for train in (False, True):
            says(pt.LayerError, f"BatchNorm(): expected a mask bool[3, 5], or of 3 axes that broadcast to bool[3, 5, 4], got {got}",
                 layer, params, x, train=train, mask=mask)  # fmt: skip


@pytest.mark.parametrize("mask", [None, MASK])
def test_an_update_works_under_strict_promotion_and_takes_the_options_of_a_call(mask):
    x, net = numbers(3, 5, 4), nn.Sequential(nn.BatchNorm())
    params = net.init(jax.random.key(0), x)
    expected, _ = net.updated(params, x, mask=mask)
    with jax.numpy_dtype_promotion("strict"):
        y, _ = net.updated(params, x, train=True, mask=mask)
    np.testing.assert_array_equal(y, expected)


def test_a_mask_goes_through_containers():
    x = numbers(3, 5, 4)
    net = nn.Repeat(nn.Residual(nn.Sequential(nn.BatchNorm(), nn.Dense(4))), 2)
    params = net.init(jax.random.key(0), x)
    poisoned = jnp.where(MASK[..., None], x, 1e6)
    y, new = jax.jit(net.updated)(params, x, mask=jnp.asarray(MASK))
    other, same = net.updated(params, poisoned, mask=jnp.asarray(MASK))
    close(other[MASK], y[MASK], 1e-4)
    close(same[":/inner/0/var"], new[":/inner/0/var"], 1e-4)
    assert not np.allclose(new[":/inner/0/var"], net.updated(params, poisoned)[1][":/inner/0/var"])
