"""The floating-point operations of each primitive that counts, from the shapes of one equation; primitives of unknown work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jax.extend.core import JaxprEqn


def _shapes(equation: JaxprEqn) -> tuple[tuple[int, ...], ...]:
    atoms: list[Any] = [*equation.invars, equation.outvars[0]]
    return tuple(tuple(atom.aval.shape) for atom in atoms)


def _dot_general(equation: JaxprEqn) -> int:
    left, *_, out = _shapes(equation)
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _ragged_dot(equation: JaxprEqn) -> int:
    """Each row of the left side meets one of the groups of the right side."""
    left, *_, out = _shapes(equation)
    numbers = equation.params["ragged_dot_dimension_numbers"].dot_dimension_numbers
    (contracted, _), _ = numbers
    ragged = equation.params["ragged_dot_dimension_numbers"].lhs_ragged_dimensions
    if ragged and ragged[0] in contracted:  # of a gradient: the groups share the rows between them
        return 2 * math.prod(out[1:]) * math.prod(left[axis] for axis in contracted)
    return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)


def _convolution(equation: JaxprEqn) -> int:
    """Each place of the kernel for each output; of a transposed convolution for each input.

    Zeros that are put between or around the inputs to make the output larger are no work.
    """
    left, kernel, out = _shapes(equation)
    numbers = equation.params["dimension_numbers"]
    places = 1
    for axis_in, axis_out in zip(numbers.lhs_spec[2:], numbers.out_spec[2:]):
        places *= min(left[axis_in], out[axis_out])
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    inputs = kernel[numbers.rhs_spec[1]]  # of one group
    size = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
    return 2 * batch * features * places * inputs * size


OPERATIONS: dict[str, Callable[[JaxprEqn], int]] = {
    "dot_general": _dot_general,
    "ragged_dot": _ragged_dot,
    "ragged_dot_general": _ragged_dot,
    "conv_general_dilated": _convolution,
}

UNCOUNTED = frozenset({
    "while", "pallas_call", "pure_callback", "io_callback", "ffi_call", "custom_partitioning",
    "cholesky", "eig", "eigh", "fft", "geqrf", "geqp3", "hessenberg", "householder_product", "lu", "qr", "schur", "svd",
    "triangular_solve", "tridiagonal", "tridiagonal_solve", "lu_pivots_to_permutation", "custom_linear_solve",
})  # fmt: skip
"""Primitives whose work is not known from shapes, or for which there is no agreed number."""
