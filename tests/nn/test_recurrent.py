"""Recurrent layers against PyTorch: padded batches with lengths, both directions, stacked, in every float."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from grids import data, drawn, grid, shown

import ptree as pt
from ptree import initializers as I
from ptree import nn

torch = pytest.importorskip("torch")
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
PARTS = (("input", "ih"), ("hidden", "hh"))


def torch_module(kind, features_in, features, **options):
    return getattr(torch.nn, kind)(features_in, features, batch_first=True, dtype=torch.float64, **options)


def torch_weights(cells):
    """The tensors of a PyTorch module, of which each cell, named by its ending, has the parameters of a layer here."""
    tensors = {}
    for ending, params in cells.items():
        for ours, theirs in PARTS:
            kernel, bias = np.asarray(params[ours]["kernel"], "float64"), np.asarray(params[ours]["bias"], "float64")
            tensors[f"weight_{theirs}_{ending}"] = torch.tensor(kernel.T.copy(), requires_grad=True)
            tensors[f"bias_{theirs}_{ending}"] = torch.tensor(bias.copy(), requires_grad=True)
    return tensors


def ours_of(tensors, ending):
    """The gradients of a cell in PyTorch, as this layer's parameters."""
    return {
        ours: {
            "kernel": tensors[f"weight_{theirs}_{ending}"].grad.T,
            "bias": tensors[f"bias_{theirs}_{ending}"].grad,
        }
        for ours, theirs in PARTS
    }


def packed(module, tensors, x, lengths, state=None):
    """PyTorch's outputs with zeros in the padding, and the last states as a list, h first."""
    time = x.shape[1]
    given = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    arguments = (given,) if state is None else (given, state)
    ys, last = torch.func.functional_call(module, tensors, arguments)
    ys, _ = torch.nn.utils.rnn.pad_packed_sequence(ys, batch_first=True, total_length=time)
    return ys, [*last] if isinstance(last, tuple) else [last]


def flipped(x, lengths):
    """Each sequence backward in time; the padding stays behind."""
    rows = [torch.cat([row[:length].flip(0), row[length:]]) for row, length in zip(x, lengths, strict=True)]
    return torch.stack(rows)


def close(got, wanted, tolerance, what=""):
    wanted = wanted.detach().numpy() if isinstance(wanted, torch.Tensor) else np.asarray(wanted)
    scale = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(np.asarray(got, "float64") / scale, wanted / scale, atol=tolerance, rtol=0, err_msg=what)


def same_values_and_gradients(ours, theirs, params, x, cells, tolerance=1e-5):
    """The same outputs, last states and gradients of a loss that weighs each number differently.

    `ours(params, x) -> (ys, states)`, `theirs(tensors, x) -> (ys, states)`; cells are ending -> node of `params`.
    """
    tensors = torch_weights({ending: pt.get(params, path) for ending, path in cells.items()})
    theirs_x = torch.tensor(np.asarray(x, "float64"), requires_grad=True)
    expected = theirs(tensors, theirs_x)
    value = jax.jit(ours)(params, x)
    flat, wanted = jax.tree.leaves(value), [expected[0], *expected[1]]
    assert len(flat) == len(wanted)
    weights = [data(*leaf.shape, seed=at) for at, leaf in enumerate(flat)]
    for at, (got, other) in enumerate(zip(flat, wanted, strict=True)):
        close(got, other, tolerance, f"output {at}")

    def loss(params, x):
        return sum((leaf * w).sum() for leaf, w in zip(jax.tree.leaves(ours(params, x)), weights, strict=True))

    sum((leaf * torch.tensor(w)).sum() for leaf, w in zip(wanted, weights, strict=True)).backward()
    of_params, of_x = jax.jit(jax.grad(loss, (0, 1)))(params, x)
    close(of_x, theirs_x.grad, tolerance, "input")
    for ending, path in cells.items():
        for name, leaf in pt.items(pt.Tree(ours_of(tensors, ending))):
            close(pt.get(of_params, f"{path}/{name}" if path else name), leaf, tolerance, f"{path}/{name}")


@pytest.mark.parametrize("options", grid(kind=[*KINDS], reverse=[False, True], given=[False, True]), ids=shown)
def test_lengths_are_those_of_pytorchs_packed_sequences(options):
    kind, reverse = options["kind"], options["reverse"]
    layer, x, lengths = KINDS[kind](5, reverse=reverse), data(4, 6, 3), [6, 1, 4, 2]
    x[1, 1:] = 1e3  # what is in the padding does not count
    params = drawn(layer, x)
    states = tuple(data(4, 5, seed=at) for at in range(1, layer.states + 1)) if options["given"] else None
    module = torch_module(kind, 3, 5)

    def theirs(tensors, x):
        state = None
        if states is not None:
            state = tuple(torch.tensor(part, dtype=torch.float64)[None] for part in states)
            state = state if kind == "LSTM" else state[0]
        x = flipped(x, lengths) if reverse else x
        ys, last = packed(module, tensors, x, lengths, state)
        return flipped(ys, lengths) if reverse else ys, [part[0] for part in last]

    ours = lambda p, x: layer.run(p, x, states, lengths=jnp.array(lengths))
    same_values_and_gradients(ours, theirs, params, x, {"l0": ""})
    np.testing.assert_array_equal(layer(params, x, state=states, lengths=np.array(lengths)), ours(params, x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_and_stacked_are_pytorchs(kind):
    layers = [nn.Bidirectional(KINDS[kind](5)) for _ in range(2)]
    x, lengths = data(4, 6, 3), [6, 1, 4, 2]
    net = nn.Sequential(*layers)
    params = drawn(net, x)
    module = torch_module(kind, 3, 5, num_layers=2, bidirectional=True)
    ends = {"l0": "0/forward", "l0_reverse": "0/backward", "l1": "1/forward", "l1_reverse": "1/backward"}

    def ours(p, x):
        lengths_ = jnp.array(lengths)
        y, first = layers[0].run(p["0"], x, lengths=lengths_)
        y, second = layers[1].run(p["1"], y, lengths=lengths_)
        # in PyTorch all h, then all c, each (layers * directions, batch, features)
        return y, [jnp.stack(parts) for parts in zip(*first, *second, strict=True)]

    same_values_and_gradients(ours, lambda t, x: packed(module, t, x, lengths), params, x, ends, tolerance=2e-5)
    np.testing.assert_allclose(net(params, x, lengths=jnp.array(lengths)), ours(params, x)[0], atol=1e-6)
    full, _ = packed(
        module, torch_weights({end: pt.get(params, at) for end, at in ends.items()}), torch.tensor(x).double(), [6] * 4
    )
    close(net(params, x), full, 2e-5)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_bidirectional_from_given_states_where_no_sequence_fills_the_time(kind):
    layer, x, lengths = nn.Bidirectional(KINDS[kind](5)), data(4, 7, 3), [2, 5, 5, 3]
    first = data(2, 4, 5, seed=3)
    module = torch_module(kind, 3, 5, bidirectional=True)

    def ours(p, x):
        y, last = layer.run(p, x, ((first[0],), (first[1],)), lengths=np.array(lengths, "uint8"))
        return y, [jnp.stack(parts) for parts in zip(*last, strict=True)]

    theirs = lambda t, x: packed(module, t, x, lengths, torch.tensor(first, dtype=torch.float64))
    same_values_and_gradients(ours, theirs, drawn(layer, x), x, {"l0": "forward", "l0_reverse": "backward"})


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.relu])
def test_the_plain_rnn_is_pytorchs_with_each_of_its_activations(activation):
    layer, x = nn.RNN(5, activation=activation), data(4, 6, 3)
    module = torch_module("RNN", 3, 5, nonlinearity="tanh" if activation is jnp.tanh else "relu")
    theirs = lambda t, x: (lambda ys, last: (ys, [last[0]]))(*torch.func.functional_call(module, t, (x,)))
    same_values_and_gradients(layer.run, theirs, drawn(layer, x), x, {"l0": ""})


TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-12}


@pytest.mark.parametrize(("dtype", "kind"), [*itertools.product(TOLERANCES, KINDS)])
def test_every_float_and_every_shape_of_a_batch(dtype, kind):
    """The first and the last length, none at all, and sequences without a batch."""
    with jax.enable_x64(dtype == "float64"):
        layer, x = nn.Bidirectional(KINDS[kind](5, param_dtype=dtype)), jnp.asarray(data(2, 3, 4, 3) / 3, dtype)
        params = drawn(layer, x)
        lengths = np.array([[4, 1, 0], [3, 0, 2]])
        ys, last = layer.run(params, x, lengths=lengths)
        assert {leaf.dtype for leaf in jax.tree.leaves((ys, last))} == {jnp.dtype(dtype)}
        tensors = torch_weights({"l0": params["forward"], "l0_reverse": params["backward"]})
        module = torch_module(kind, 3, 5, bidirectional=True)
        for at in np.ndindex(2, 3):
            length, alone = int(lengths[at]), x[at]
            y, states = layer.run(params, alone, lengths=jnp.array(length))
            close(y, np.asarray(ys[at], "float64"), TOLERANCES[dtype])
            assert not np.asarray(ys[at][length:]).any()
            if not length:  # PyTorch refuses it; without a step the state is the first one
                assert not any(np.asarray(leaf[at]).any() for leaf in jax.tree.leaves(last))
                continue
            given = torch.tensor(np.asarray(alone, "float64"))[None]
            expected, wanted = packed(module, tensors, given, [length])
            close(ys[at], expected[0], TOLERANCES[dtype])
            of_each = [jnp.stack(parts) for parts in zip(*states, strict=True)]
            for got, other in zip(of_each, wanted, strict=True):
                close(got, other[:, 0], TOLERANCES[dtype])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_without_a_step_keeps_the_state_that_is_given(kind):
    for reverse in (False, True):
        layer, x = KINDS[kind](5, reverse=reverse), data(2, 4, 3)
        params = drawn(layer, x)
        state = tuple(data(2, 5, seed=at) for at in range(layer.states))
        ys, last = layer.run(params, x, state, lengths=jnp.array([0, 4]))
        assert not ys[0].any()
        for got, first in zip(last, state, strict=True):
            np.testing.assert_array_equal(got[0], first[0])
        grads = jax.grad(lambda p, layer=layer, x=x: layer(p, x, lengths=jnp.zeros(2, int)).sum())(params)
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("filler", [np.nan, 1e30])
def test_padding_counts_neither_in_values_nor_in_gradients(filler):
    for layer in (nn.GRU(5, reverse=True), nn.Bidirectional(nn.LSTM(5))):
        x, lengths = data(3, 5, 4), jnp.array([5, 2, 0])
        params = drawn(layer, x)
        spoilt = np.where(np.arange(5)[None, :, None] < lengths[:, None, None], x, filler).astype("float32")

        def value(p, x, layer=layer, lengths=lengths):
            ys, last = layer.run(p, x, lengths=lengths)
            return (ys**2).sum() + sum((leaf**2).sum() for leaf in jax.tree.leaves(last)), (ys, last)

        both = [jax.jit(jax.grad(value, (0, 1), has_aux=True))(params, given) for given in (x, spoilt)]
        for clean, dirty in zip(*map(jax.tree.leaves, both), strict=True):
            np.testing.assert_allclose(dirty, clean, atol=1e-6)


def test_a_length_that_is_impossible_gives_nan_in_jit_and_others_their_values():
    layer, x = nn.LSTM(5), data(4, 3, 4)
    params = drawn(layer, x)
    run = jax.jit(lambda lengths: layer.run(params, x, lengths=lengths))
    for given in (jnp.array([3, 4, -1, 0]), np.array([3, 4, -1, 0], "int8")):
        ys, last = run(given)
        for leaf in (ys, *last):
            assert np.isnan(leaf).reshape(4, -1).all(-1).tolist() == [False, True, True, False]
            assert np.isfinite(leaf).reshape(4, -1).all(-1).tolist() == [True, False, False, True]


IMPOSSIBLE = "expected lengths from 0 to 3, the time of the input f32[4,3,5], got 4 in row 1, -1 in row 2"


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.LSTM(5), f"LSTM(5): {IMPOSSIBLE}"),
        (nn.GRU(5, reverse=True), f"GRU(5, reverse=True): {IMPOSSIBLE}"),
        (nn.Bidirectional(nn.RNN(5)), f"at 'forward', RNN(5): {IMPOSSIBLE}"),
        (nn.Sequential({"a": nn.Dense(5), "b": nn.Bidirectional(nn.LSTM(5))}), f"at 'b/forward', LSTM(5): {IMPOSSIBLE}"),
        (nn.Repeat(nn.GRU(5), 2), f"at ':', GRU(5): {IMPOSSIBLE}"),
    ],
)  # fmt: skip
def test_a_length_that_is_impossible_is_refused_where_it_is_known(layer, text):
    x, lengths = data(4, 3, 5), [3, 4, -1, 0]
    params = layer.init(jax.random.key(0), x)
    calls = [layer, jax.grad(lambda params, x, lengths: layer(params, x, lengths=lengths).sum())]
    if not isinstance(layer, (nn.Sequential, nn.Repeat)):
        calls.append(layer.run)
    for given in (jnp.array(lengths), np.array(lengths, "int8"), lengths):
        says(pt.LayerError, text, layer, params, x, lengths=given)
        for call in calls[2:]:
            says(pt.LayerError, text, call, params, x, lengths=given)
    says(pt.LayerError, text, calls[1], params, x, jnp.array(lengths))


def test_impossible_lengths_of_one_sequence_of_many_axes_and_of_many_rows():
    layer = nn.GRU(2)
    params = layer.init(jax.random.key(0), jnp.ones((3, 1)))
    expected = "GRU(2): expected lengths from 0 to 3, the time of the input"
    says(pt.LayerError, f"{expected} f32[3,1], got 9", layer, params, jnp.ones((3, 1)), lengths=9)
    given = np.array([[3, 0], [5, 1]])
    says(
        pt.LayerError,
        f"{expected} f32[2,2,3,1], got 5 in row 1, 0",
        layer,
        params,
        jnp.ones((2, 2, 3, 1)),
        lengths=given,
    )
    rows = ", ".join(f"-1 in row {row}" for row in range(10))
    many = jnp.full(64, -1)
    says(
        pt.LayerError,
        f"{expected} f32[64,3,1], got {rows}, and 54 more",
        layer,
        params,
        jnp.ones((64, 3, 1)),
        lengths=many,
    )


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, lambda n: nn.Bidirectional(nn.RNN(n))])
def test_lengths_reach_layers_in_containers_that_train_scan_and_batch(make):
    one = nn.Sequential(make(4), nn.Dense(4), nn.Dropout(0.5))
    net, x, lengths = nn.Repeat(nn.Residual(one), 2), data(3, 5, 4), jnp.array([5, 2, 1])
    params = net.init(jax.random.key(0), x)
    value = lambda p, x, lengths, key=None: net(p, x, lengths=lengths, key=key)
    y = jax.jit(value)(params, x, lengths, jax.random.key(1))
    np.testing.assert_allclose(net.updated(params, x, lengths=lengths, key=jax.random.key(1))[0], y, atol=1e-5)
    alone = jax.vmap(value, (None, 0, 0))(params, x, lengths)
    np.testing.assert_allclose(value(params, x, lengths), alone, atol=1e-5)
    apart = nn.Repeat(nn.Residual(one), 2, scan=False)
    unstacked = pt.stacks.unstack(params, "")
    np.testing.assert_allclose(apart(unstacked, x, lengths=lengths), value(params, x, lengths), atol=1e-5)


def test_directions_can_be_layers_of_their_own_combined_and_tied():
    x = data(2, 5, 3)
    layer = nn.Bidirectional(nn.LSTM(4), nn.GRU(4, reverse=True), combine=jnp.add)
    params = drawn(layer, x)
    assert [leaf.shape for leaf in jax.tree.leaves(params["backward"])] == [(12,), (4, 12), (12,), (3, 12)]
    forward, backward = nn.LSTM(4)(params["forward"], x), nn.GRU(4, reverse=True)(params["backward"], x)
    np.testing.assert_allclose(layer(params, x), forward + backward, atol=1e-6)
    pair = nn.Bidirectional(nn.GRU(4))
    tied = pt.init(pt.tie(pair.spec(x), {"backward": "forward"}), jax.random.key(0))
    assert len(jax.tree.leaves(tied)) == 4
    palindrome = np.concatenate([x, x[:, ::-1]], 1)
    ys = pair(tied, palindrome)
    np.testing.assert_allclose(ys[..., :4], ys[:, ::-1, 4:], atol=1e-6)
    ys, state = pair.run(params := drawn(pair, x), x)
    assert [[part.shape for part in each] for each in state] == [[(2, 4)], [(2, 4)]]
    again, _ = pair.run(params, x, state)
    np.testing.assert_allclose(again[..., :4], nn.GRU(4)(params["forward"], x, state=state[0]), atol=1e-6)


# ----------------------------------------------------------------------------- the start


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_forget_gate_starts_at_its_bias_and_the_others_as_given(dtype):
    layer = nn.LSTM(3, forget_bias=1.0, bias_init=I.constant(0.25), param_dtype=dtype)
    params = layer.init(jax.random.key(0), jnp.ones((1, 2, 4), dtype))
    assert params["input/bias"].tolist() == [0.25] * 3 + [1.0] * 3 + [0.25] * 6
    assert params["hidden/bias"].tolist() == [0.25] * 12
    assert params["input/bias"].dtype == dtype
    plain = nn.LSTM(3, param_dtype=dtype).init(jax.random.key(0), jnp.ones((1, 2, 4), dtype))
    assert not plain["input/bias"].any()
    np.testing.assert_array_equal(plain["input/kernel"], params["input/kernel"])


def test_the_forget_gate_starts_as_in_keras_also_in_stacks_and_both_directions():
    keras = pytest.importorskip("keras")
    theirs = keras.layers.LSTM(3, unit_forget_bias=True)
    theirs.build((None, 2, 3))
    expected = np.asarray(theirs.cell.bias)
    one, x = nn.LSTM(3, forget_bias=1.0), jnp.ones((1, 2, 3))
    stacked = nn.Repeat(one, 4).init(jax.random.key(0), x)
    apart = nn.Repeat(one, 4, scan=False).init(jax.random.key(0), x)
    both = nn.Bidirectional(one).init(jax.random.key(0), x)
    for params in (
        one.init(jax.random.key(0), x),
        *(stacked[at] for at in range(4)),
        apart["3"],
        both["forward"],
        both["backward"],
    ):
        np.testing.assert_array_equal(params["input/bias"] + params["hidden/bias"], expected)
    spec = one.spec(x)
    assert spec == nn.LSTM(3, forget_bias=1.0).spec(x)
    assert repr(spec["input/bias"]) == "Param(f32[12], init=zeros, forget gate 1.0)"


# ----------------------------------------------------------------------------- what does not fit

X = jnp.ones((2, 5, 4))


def lstm(x=X, **options):
    layer = nn.LSTM(3)
    return layer(layer.init(jax.random.key(0), X), x, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lstm(lengths=jnp.ones(3, int)), "LSTM(3): expected lengths i32[2], the valid steps of each sequence, got i32[3]"),
        (lambda: lstm(lengths=jnp.ones(2)), "LSTM(3): expected lengths i32[2], the valid steps of each sequence, got f32[2]"),
        (lambda: lstm(lengths=jnp.ones(2, bool)), "LSTM(3): expected lengths i32[2], the valid steps of each sequence, got bool[2]"),
        (lambda: lstm(lengths=jnp.ones((2, 5), bool)), "LSTM(3): expected lengths i32[2], the valid steps of each sequence, got bool[2,5]"),
        (lambda: lstm(lengths=3), "LSTM(3): expected lengths i32[2], the valid steps of each sequence, got i32[]"),
        (lambda: lstm(lengths="ab"), "LSTM(3): expected lengths i32[2], the valid steps of each sequence, got 'ab'"),
        (lambda: lstm(state=jnp.ones((2, 3))), "LSTM(3): expected a state of 2 arrays of the shape (2, 3) in a tuple, got f32[2,3]"),
        (lambda: lstm(state=()), "LSTM(3): expected a state of 2 arrays of the shape (2, 3), got none"),
        (lambda: nn.LSTM(3, forget_bias=True), "LSTM(3, forget_bias=True): expected forget_bias to be a finite number, got True"),
        (lambda: nn.LSTM(3, forget_bias="1"), "LSTM(3, forget_bias='1'): expected forget_bias to be a finite number, got '1': write 1.0"),
        (lambda: nn.RNN(3, activation="relu"), "RNN(3, activation='relu'): expected activation to be a function, got 'relu'"),
        (lambda: nn.Bidirectional(nn.LSTM), "Bidirectional: expected a recurrent layer, such as LSTM(8), as forward, got the class LSTM; call it first"),
        (lambda: nn.Bidirectional(nn.Dense(3)), "Bidirectional: expected a recurrent layer, such as LSTM(8), as forward, got Dense(3)"),
        (lambda: nn.Bidirectional(nn.LSTM(3), nn.LSTM(3)), "Bidirectional: expected reverse=True of the backward layer, got LSTM(3)"),
        (lambda: nn.Bidirectional(nn.LSTM(3, reverse=True)), "Bidirectional: expected reverse=False of the forward layer, got LSTM(3, reverse=True)"),
        (lambda: nn.Bidirectional(nn.LSTM(3), combine="sum"),
         "Bidirectional: expected a function of both outputs as combine, such as jnp.add, got 'sum'"),
        (lambda: nn.Bidirectional(nn.LSTM(3)).spec(jnp.ones(4)),
         "at 'forward', LSTM(3): expected an input of an axis of time and one of features, got f32[4]"),
        (lambda: nn.Sequential({"rnn": nn.Bidirectional(nn.GRU(3))})({"rnn": {"forward": {}}}, X),
         "at 'rnn/forward', GRU(3): expected the parameter 'input', got parameters []"),
        (lambda: nn.Bidirectional(nn.GRU(3)).run(nn.Bidirectional(nn.GRU(3)).init(jax.random.key(0), X), X, jnp.ones((2, 3))),
         "Bidirectional(GRU(3)): expected a pair of states, (forward, backward), got f32[2,3]"),
        (lambda: nn.Bidirectional(nn.GRU(3)).run(nn.Bidirectional(nn.GRU(3)).init(jax.random.key(0), X), X, ((jnp.ones((2, 3)),),)),
         "Bidirectional(GRU(3)): expected a pair of states, (forward, backward), got 1 of them"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_recurrent_layer_is_refused_by_name(call, message):
    says(pt.LayerError, message, call)


def test_an_activation_that_changes_the_state_is_refused_or_cast():
    params = nn.RNN(3).init(jax.random.key(0), X)
    with pytest.raises(pt.LayerError, match=r"expected an activation that keeps the shape \(2, 3\), got f32\[\]"):
        nn.RNN(3, activation=jnp.sum)(params, X)
    doubled = nn.RNN(3, activation=lambda x: x * jnp.float32(2), dtype=jnp.bfloat16)
    assert doubled(params, X).dtype == jnp.bfloat16
