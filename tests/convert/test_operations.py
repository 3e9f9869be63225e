"""The operations of tables: each undoes its inverse, says its shapes beforehand, and is written and read as text."""

import ml_dtypes
import numpy as np
import pytest
from errors import says

import ptree as pt
from ptree import convert as c
from ptree.convert._operations.operation import Described, MisfitError
from ptree.convert._operations.text import parse_operation

BF16 = np.dtype(ml_dtypes.bfloat16)


def numbers(*shape, dtype="float32"):
    return np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


CASES = {
    "as_is": (c.as_is, [numbers(3, 3)]),
    "linear": (c.linear, [numbers(2, 3)]),
    "linear of layers": (c.linear, [numbers(4, 2, 3)]),
    "conv 1d": (c.conv, [numbers(2, 3, 5)]),
    "conv 3d": (c.conv, [numbers(2, 3, 5, 6, 7)]),
    "conv_transpose": (c.conv_transpose(), [numbers(4, 3, 5, 6)]),
    "conv_transpose in groups": (c.conv_transpose(2), [numbers(4, 3, 5)]),
    "permute": (c.permute((2, 0, 1)), [numbers(2, 3, 5)]),
    "swap": (c.swap(-1, 0), [numbers(2, 3, 5)]),
    "flip": (c.flip((0, -1)), [numbers(2, 3, 5)]),
    "squeeze": (c.squeeze(-1), [numbers(2, 3, 1)]),
    "expand": (c.expand(1), [numbers(2, 3)]),
    "heads": (c.heads(3), [numbers(4, 6)]),
    "heads of a bias": (c.heads(3), [numbers(6)]),
    "heads in front": (c.heads(2, axis=0), [numbers(4, 6)]),
    "split_axis": (c.split_axis(0, (-1, 2)), [numbers(4, 6)]),
    "merge_axes": (c.merge_axes(1, (3, 2)), [numbers(4, 3, 2, 5)]),
    "merge_axes from the end": (c.merge_axes(-2, (3, 2)), [numbers(4, 3, 2)]),
    "depthwise": (c.depthwise(2), [numbers(3, 3, 4, 2)]),
    "flatten_order": (c.flatten_order((2, 3, 4), (1, 2, 0), axis=1), [numbers(5, 24)]),
    "reshape": (c.reshape((2, 6), (3, 4)), [numbers(2, 6)]),
    "split": (c.split(3), [numbers(6, 2)]),
    "split by sizes": (c.split((4, 1, 1), axis=-1), [numbers(2, 6)]),
    "concatenate": (c.concatenate(2), [numbers(2, 3), numbers(2, 3)]),
    "concatenate by sizes": (c.concatenate((1, 3), axis=1), [numbers(2, 1), numbers(2, 3)]),
    "stack": (c.stack(2, axis=-1), [numbers(2, 3), numbers(2, 3)]),
    "unstack": (c.unstack(2, axis=1), [numbers(3, 2)]),
    "gates": (c.gates("zrn", "rzn"), [numbers(2, 6)]),
    "gates in front": (c.gates("ifgo", "igfo", axis=0), [numbers(8, 2)]),
    "repeat": (c.repeat(3), [numbers(2)]),
    "add": (c.add(1.0), [numbers(4)]),
    "add to a part": (c.add(1.0, (1, 4)), [numbers(3, 8)]),
    "cast": (c.cast("float16", "float32"), [numbers(4, dtype="float16")]),
    "cast up": (c.cast("bfloat16", "float32"), [numbers(4, dtype=BF16)]),
    "zero_fill": (c.zero_fill(), [numbers(4)]),
    "zero_part": (c.zero_part(3), [numbers(6)]),
    "unsummed": (c.unsummed(3), [numbers(4)]),
    "shared_bias": (c.shared_bias(3, 1), [numbers(8)]),
    "chain": (c.split(3) >> c.linear >> c.heads(2), [numbers(12, 5)]),
    "chain that joins": (c.linear >> c.concatenate(2, axis=-1), [numbers(3, 2), numbers(3, 2)]),
}


@pytest.mark.parametrize(("operation", "arrays"), CASES.values(), ids=CASES)
def test_an_operation_is_undone_by_its_inverse_and_knows_its_shapes(operation, arrays):
    before = [array.copy() for array in arrays]
    changed = operation.apply(arrays)
    described = [Described(array.shape, array.dtype) for array in arrays]
    assert operation.outcome(described) == [(array.shape, array.dtype) for array in changed]
    back = operation.inverse.apply(changed)
    assert len(back) == len(before)
    for one, other, given in zip(back, before, arrays, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(given, other)  # nothing was written into an argument
        assert one.dtype == other.dtype
    assert operation.inverse.inverse == operation
    assert not operation.is_one_way


@pytest.mark.parametrize("operation", [case[0] for case in CASES.values()], ids=CASES)
def test_an_operation_is_read_as_it_is_written(operation):
    assert parse_operation(repr(operation)) == operation
    assert parse_operation(repr(operation.inverse)) == operation.inverse
    assert hash(parse_operation(repr(operation))) == hash(operation)


def test_kernels_are_those_of_the_frameworks():
    kernel = numbers(6, 4, 3, 2)  # (out, in, height, width)
    (turned,) = c.conv.apply([kernel])
    assert turned.shape == (3, 2, 4, 6)
    assert turned[2, 1, 3, 5] == kernel[5, 3, 2, 1]
    kernel = numbers(4, 3, 5)  # (in, out of a group, window) in two groups
    (turned,) = c.conv_transpose(2).apply([kernel])
    assert turned.shape == (5, 2, 6)  # (window, in of a group, out)
    for group in range(2):
        np.testing.assert_array_equal(
            turned[:, :, 3 * group : 3 * group + 3], kernel[2 * group : 2 * group + 2].transpose(2, 0, 1)
        )


def test_rows_of_flattened_features_take_their_new_places():
    features = numbers(2, 3, 4)  # (channels, height, width)
    matrix = np.random.default_rng(0).normal(size=(24, 5))
    (turned,) = c.flatten_order((2, 3, 4), (1, 2, 0)).apply([matrix])
    np.testing.assert_allclose(features.transpose(1, 2, 0).reshape(-1) @ turned, features.reshape(-1) @ matrix)


def test_one_way_operations_say_so_and_give_back_what_is_equivalent():
    one, other = numbers(4), numbers(4) * 2
    (total,) = c.summed().apply([one, other])
    np.testing.assert_array_equal(total, one + other)
    np.testing.assert_array_equal(sum(c.summed().inverse.apply([total])), one + other)
    assert c.summed().is_one_way
    assert c.summed(3).inverse.inverse == c.summed(3)
    assert c.first().is_one_way
    assert c.first(3).inverse.apply([one])[2] is one
    assert (c.linear >> c.weight_norm()).is_one_way
    assert c.fill(0).is_one_way
    assert c.cast("float32", "bfloat16").is_one_way
    assert c.cast("float32", "float16").is_one_way
    assert c.cast("float16", "bfloat16").is_one_way  # which has fewer digits
    assert c.cast("int64", "int32").is_one_way
    assert not c.cast("int32", "int64").is_one_way


def test_a_weight_of_magnitude_and_direction_is_pytorchs():
    torch = pytest.importorskip("torch")
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 4, 5))
    state = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    magnitude, direction = (state[f"parametrizations.weight.original{number}"] * 2 for number in range(2))
    (weight,) = c.weight_norm().apply([magnitude, direction])
    np.testing.assert_allclose(weight, 2 * layer.weight.detach().numpy(), rtol=1e-6)
    again = c.weight_norm().apply(c.weight_norm().inverse.apply([weight]))
    np.testing.assert_allclose(again[0], weight, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_weight_of_16_bits_is_rounded_once_as_by_pytorch(dtype):
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    magnitude, direction = draw.normal(size=(16, 1)), draw.normal(size=(16, 32))
    tensors = [torch.tensor(array).to(getattr(torch, dtype)) for array in (direction, magnitude)]
    expected = torch._weight_norm(*tensors).float().numpy()
    direction, magnitude = (tensor.float().numpy().astype(np.dtype(dtype)) for tensor in tensors)
    (weight,) = c.weight_norm().apply([magnitude, direction])
    np.testing.assert_array_equal(weight.astype("float32"), expected)


def test_a_row_of_zeros_has_no_magnitude_and_any_direction():
    torch = pytest.importorskip("torch")
    weight = np.array([[3, 4], [0, 0]], "f4")
    magnitude, direction = c.weight_norm().inverse.apply([weight])
    np.testing.assert_array_equal(magnitude, [[5], [0]])
    given = torch._weight_norm(torch.tensor(direction), torch.tensor(magnitude)).numpy()
    np.testing.assert_allclose(given, weight, rtol=1e-6)
    np.testing.assert_allclose(c.weight_norm().apply([magnitude, direction])[0], weight, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_norms_have_no_range_but_that_of_float64(scale):
    weight = np.array([[3.0, 4.0]]) * scale
    magnitude, _ = c.weight_norm().inverse.apply([weight])
    np.testing.assert_allclose(magnitude, [[5 * scale]], rtol=1e-15)


@pytest.mark.parametrize(
    "join",
    [
        lambda: c.linear >> c.carry, lambda: c.carry >> c.linear, lambda: c.as_is >> c.carry,
        lambda: c.linear >> c.fill(0), lambda: c.fill(0) >> c.fill(1), lambda: c.fill(0).inverse >> c.linear,
        lambda: c.carry.inverse >> c.linear, lambda: parse_operation("linear >> carry"),
    ],
)  # fmt: skip
def test_what_keeps_or_drops_an_array_stands_alone(join):
    with pytest.raises(pt.PatternError, match="stands alone in its row"):
        join()


MISFITS = {
    "linear needs 2 axes or more, and the array has the shape [3]": (c.linear, [numbers(3)]),
    "an axis of size 6 is not [4, -1]: the array has the shape [2, 6]": (c.heads(4), [numbers(2, 6)]),
    "squeeze needs size 1 at axis 0, and the array has the shape [2, 1]": (c.squeeze(0), [numbers(2, 1)]),
    "squeeze needs axis 3, and the array has the shape [2]": (c.squeeze(3), [numbers(2)]),
    "axis 0 is not divided into 3 parts: the array has the shape [4, 2]": (c.split(3), [numbers(4, 2)]),
    "split needs 5 at axis 0, and the array has the shape [4, 2]": (c.split((3, 2)), [numbers(4, 2)]),
    "4 channels are not divided by 3 groups: the array has the shape [4, 3, 5]": (c.conv_transpose(3), [numbers(4, 3, 5)]),
    "reshape needs the shape [2, 3], and the array has [3, 2]": (c.reshape((2, 3), (6,)), [numbers(3, 2)]),
    "concatenate needs arrays of one dtype, and they are float32 and float64": (
        c.concatenate(2), [numbers(2, 2), numbers(2, 2, dtype="float64")],
    ),
    "concatenate needs arrays that differ in axis 0 alone, and they are [2, 2], [2, 3]": (
        c.concatenate(2), [numbers(2, 2), numbers(2, 3)],
    ),
    "array 1 of 2 is not zero, and the other side has no place for it": (c.zero_fill().inverse, [numbers(2), numbers(2)]),
    "the numbers of a group of 2 differ, and the other side has one number for a group": (c.repeat(2).inverse, [numbers(4)]),
    "cast is from float16, and the array is float32": (c.cast("float16", "float32"), [numbers(2)]),
    "float16 does not hold 1000000.0": (c.cast("float32", "float16"), [np.array([1e6, 1], "float32")]),
    "float8_e4m3fn does not hold 1000000.0": (c.cast("float32", "float8_e4m3fn"), [np.array([1e6, 1], "float32")]),
    "float4_e2m1fn does not hold nan": (c.cast("float32", "float4_e2m1fn"), [np.array([np.nan, 1], "float32")]),
    "int32 does not hold 1099511627776": (c.cast("int64", "int32"), [np.array([2**40, 1])]),
    "uint8 does not hold -1": (c.cast("int64", "uint8"), [np.array([-1])]),
    "int4 does not hold 8": (c.cast("int8", "int4"), [np.array([8], "int8")]),
    "complex64 does not hold 1e+300": (c.cast("complex128", "complex64"), [np.array([1 + 1e300j])]),
    "add: the sum 1.0 + 1000000.0 is out of the range of float16": (c.add(1e6), [np.ones(2, "float16")]),
    "flip(0, -2) names an axis twice: the array has the shape [2, 3]": (c.flip((0, -2)), [numbers(2, 3)]),
    "weight_norm: a direction of zeros has the norm 0": (c.weight_norm(), [numbers(2, 1), np.zeros((2, 3), "f4")]),
    "weight_norm: a norm is out of the range of float16": (c.weight_norm().inverse, [np.full((2, 3), 6e4, "f2")]),
    "weight_norm needs real floats, and the array is complex64": (
        c.weight_norm(), [numbers(2, 1, dtype="complex64"), numbers(2, 3, dtype="complex64")],
    ),
    "weight_norm_back needs real floats, and the array is complex64": (
        c.weight_norm().inverse, [numbers(2, 3, dtype="complex64")],
    ),
    "weight_norm needs real floats, and the array is int32": (
        c.weight_norm(), [numbers(2, 1, dtype="int32"), numbers(2, 3, dtype="int32")],
    ),
    "add needs floats, and the array is int32": (c.add(0.5), [numbers(2, dtype="int32")]),
    "summed needs floats, and the array is uint8": (c.summed(), [np.full(2, 200, "uint8")] * 2),
    "summed: the sum 60000.0 + 60000.0 is out of the range of float16": (c.summed(), [np.full(2, 6e4, "float16")] * 2),
    "shared_bias_back needs floats, and the array is int8": (c.shared_bias(3, 1).inverse, [numbers(3, dtype="int8")] * 2),
}  # fmt: skip


@pytest.mark.parametrize(("message", "case"), MISFITS.items(), ids=MISFITS)
def test_arrays_that_do_not_fit_are_refused(message, case):
    operation, arrays = case
    says(MisfitError, message, operation.apply, arrays)


def test_nothing_is_run_of_a_text():
    for text in (
        "__import__('os').system('true')",
        "linear.change",
        "(lambda: 1)()",
        "heads(print(1))",
        "linear >",
        "",
        "1",
    ):
        with pytest.raises(pt.PatternError):
            parse_operation(text)
    says(pt.PatternError, "in 'linaer': no operation 'linaer'. Did you mean 'linear'?", parse_operation, "linaer")
    says(pt.PatternError, "in 'heads': heads takes options, write heads(...)", parse_operation, "heads")


def test_options_that_make_no_sense_are_refused():
    for make in (
        lambda: c.permute((0, 2)), lambda: c.gates("ab", "ac"), lambda: c.reshape((2,), (3,)), lambda: c.cast("f99", "float32"),
        lambda: c.flatten_order((2, 3), (0, 0)),
    ):  # fmt: skip
        with pytest.raises(pt.PatternError):
            make().apply([numbers(2)])


NONSENSE = {
    "split: expected sizes of 0 or more; got (2, -2, 4)": lambda: c.split((2, -2, 4)),
    "split: expected parts, a whole number or a tuple of them; got 3.0": lambda: c.split(3.0),
    "split: expected parts, a whole number or a tuple of them; got True": lambda: c.split(True),
    "concatenate: expected parts, 1 or more; got 0": lambda: c.concatenate(0),
    "stack: expected count, 1 or more; got 0": lambda: c.stack(0),
    "unstack: expected count, 1 or more; got -1": lambda: c.unstack(-1),
    "repeat: expected count, 1 or more; got 0": lambda: c.repeat(0),
    "unsummed: expected count, 1 or more; got 0": lambda: c.unsummed(0),
    "zero_fill: expected count, 1 or more; got 0": lambda: c.zero_fill(0),
    "first: expected count, 1 or more; got 0": lambda: c.first(0),
    "zero_part: expected parts, 1 or more; got 0": lambda: c.zero_part(0),
    "shared_bias: 4 of 3 gates cannot have a bias of their own": lambda: c.shared_bias(3, 4),
    "conv_transpose: expected groups, 1 or more; got 0": lambda: c.conv_transpose(0),
    "depthwise: expected multiplier, 1 or more; got 0": lambda: c.depthwise(0),
    "heads: expected count, a whole number; got 2.0": lambda: c.heads(2.0),
    "heads: expected count, 1 or more; got -2": lambda: c.heads(-2),
    "split_axis: one size at most may be -1; got (-1, -1)": lambda: c.split_axis(0, (-1, -1)),
    "swap: expected second, a whole number; got 'b'": lambda: c.swap(0, "b"),
    "flip: expected axes, a tuple of whole numbers; got 0": lambda: c.flip(0),
    "add: expected constant, a number; got '1'": lambda: c.add("1"),
    "add: expected a finite number; got inf": lambda: c.add(float("inf")),
    "add: part 3 is none of 2 parts, which count from 0": lambda: c.add(1, (3, 2)),
    "fill: 'foo' is no dtype": lambda: c.fill(0, "foo"),
    "fill: int32 does not hold 1.5": lambda: c.fill(1.5, "int32"),
    f"fill: int64 does not hold {2**70}": lambda: c.fill(2**70, "int64"),
    "fill: int8 does not hold nan": lambda: c.fill(float("nan"), "int8"),
    "fill: bool does not hold 2": lambda: c.fill(2, "bool"),
    "fill: float16 does not hold 1000000.0": lambda: c.fill(1e6, "float16"),
    "cast: expected two dtypes, of the source and of the target, such as cast('bfloat16', 'float32'); got 'float16' alone."
    " Table.apply(..., cast=True) casts to what `like` has": lambda: c.cast("float16"),
    "cast: 'str' is no dtype of numbers": lambda: c.cast("str", "float32"),
    "cast: 'object' is no dtype of numbers": lambda: c.cast("float32", "object"),
    "cast: expected two dtypes of floats, of whole numbers or of complex numbers; got float32 and int32": lambda: (
        c.cast("float32", "int32")
    ),
    "cast: expected two dtypes of floats, of whole numbers or of complex numbers; got complex64 and float32": lambda: (
        c.cast("complex64", "float32")
    ),
    "linear >> 3: expected an operation after `>>`, such as heads(12)": lambda: c.linear >> 3,
}


@pytest.mark.parametrize(("message", "make"), NONSENSE.items(), ids=NONSENSE)
def test_an_option_that_makes_no_sense_is_refused_where_it_is_written(message, make):
    says(pt.PatternError, message, make)


def test_options_of_numpy_and_lists_are_taken_as_python_s_own():
    assert c.heads(np.int64(2)) == c.heads(2)
    assert repr(c.permute([np.int32(1), 0])) == "permute((1, 0))"


def test_whole_numbers_of_narrow_dtypes_go_one_way_where_they_lose_their_range():
    assert c.cast("int8", "int4").is_one_way
    assert not c.cast("int4", "int8").is_one_way
    assert c.cast("uint8", "int8").is_one_way
    assert c.cast("complex128", "complex64").is_one_way
    assert not c.cast("complex64", "complex128").is_one_way


def test_options_in_a_text_are_refused_in_plain_words():
    says(
        pt.PatternError,
        "in 'heads(print(1))': an option is a number, a text or a tuple of these; got 'print(1)'",
        parse_operation, "heads(print(1))",
    )  # fmt: skip
    says(pt.PatternError, "in 'split(0)': split: expected parts, 1 or more; got 0", parse_operation, "split(0)")
    says(
        pt.PatternError, "in 'heads(1, 2, 3)': heads has the options count, axis",
        parse_operation, "heads(1, 2, 3)",
    )  # fmt: skip


def test_biases_of_a_gru_are_shared_but_for_the_gate_that_the_reset_gate_multiplies():
    of_input, of_state = numbers(6), 10 * numbers(6)
    (shared,) = c.shared_bias(3, 1).inverse.apply([of_input, of_state])
    np.testing.assert_array_equal(shared, [11, 22, 33, 44, 5, 6, 50, 60])
    one, other = c.shared_bias(3, 1).apply([shared])
    np.testing.assert_array_equal(one + other, [11, 22, 33, 44, 55, 66])
    np.testing.assert_array_equal(other, [0, 0, 0, 0, 50, 60])
    assert c.shared_bias(3, 1).inverse.is_one_way
    assert not c.shared_bias(3, 1).is_one_way
    with pytest.raises(MisfitError, match="the last of 4 parts is not zero"):
        (c.zero_part(3) >> c.shared_bias(3, 1)).inverse.apply([of_input, of_state])
    with pytest.raises(MisfitError, match="two biases of one shape"):
        c.shared_bias(3, 1).inverse.outcome([Described((6,), of_input.dtype), Described((3,), of_input.dtype)])
