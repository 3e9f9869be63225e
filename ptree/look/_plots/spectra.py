"""Singular values of matrices, convolutions and stacks, from products of bounded size rather than from the matrix itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from .._sources.source import Source
from .distributions import LayerOfLeaf, chunks_of

LARGEST_SIDE = 2048
"""The shorter side of a matrix up to which all singular values are computed; of a larger one, the first ones."""
MOST_VALUES = 256
"""Singular values of a matrix both of whose sides are larger."""

_NUMBERS_AT_ONCE = 1 << 20
_ITERATIONS = 4


def is_matrix(layer: LayerOfLeaf) -> bool:
    """Whether a layer has rows and columns: two axes or more, and more than one number along both."""
    rows, columns = matrix_shape(layer)
    return len(layer.shape) >= 2 and min(rows, columns) > 1


def matrix_shape(layer: LayerOfLeaf) -> tuple[int, int]:
    """A leaf as a matrix: the last axis against all others, so that a kernel (3, 3, in, out) is (9 in, out)."""
    if not layer.shape:
        return 1, 1
    columns = layer.shape[-1]
    return math.prod(layer.shape[:-1]), columns


def singular_values(source: Source, layer: LayerOfLeaf) -> np.ndarray:
    """The singular values of a layer, the largest first; empty where a number is not finite or is complex.

    They are the roots of the eigenvalues of the smaller of the products `A' A` and `A A'`, added up in float64 from
    blocks of rows: values below 1e-8 of the largest are rounding errors. Where both sides have more than 2,048 numbers, the
    largest 256 come from four steps of subspace iteration with random vectors (Halko, Martinsson and Tropp 2011, 4.4),
    which are a little too small where the values fall slowly.

    Raises:
        FileError: the numbers cannot be read.
    """
    rows, columns = matrix_shape(layer)

    def blocks() -> Iterator[np.ndarray]:
        return _row_blocks(source, layer, columns)

    if columns <= LARGEST_SIDE:
        return _roots(_gram(blocks, columns), min(rows, columns))
    if rows <= LARGEST_SIDE:
        return _roots(_gram_of_rows(source, layer, rows), min(rows, columns))
    return _by_subspace_iteration(blocks, columns)


def largest_directions(source: Source, layer: LayerOfLeaf, count: int) -> np.ndarray:
    """Right singular vectors of so many largest singular values, as columns, on the side of the outputs of a kernel.

    Empty where a number is not finite or is complex. Above 256 columns they come from subspace iteration with the eighth
    power of `A' A`, which takes a tenth of the time of all eigenvectors.
    """
    _, columns = matrix_shape(layer)
    gram = _gram(lambda: _row_blocks(source, layer, columns), columns)
    if not np.isfinite(gram).all():
        return np.zeros((columns, 0))
    if columns <= 256:
        return np.linalg.eigh(gram)[1][:, ::-1][:, :count]
    for _ in range(3):
        gram /= np.trace(gram) or 1.0  # so that no power overflows
        gram = gram @ gram
    basis = np.random.default_rng(0).standard_normal((columns, count + 24))
    for _ in range(30):
        basis = np.linalg.qr(gram @ basis)[0]
    vectors, _, _ = np.linalg.svd(basis.T @ gram @ basis)
    return (basis @ vectors)[:, :count]


def _row_blocks(source: Source, layer: LayerOfLeaf, columns: int) -> Iterator[np.ndarray]:
    """Blocks of whole rows in float64, of bounded size."""
    at_once = max(1, _NUMBERS_AT_ONCE // columns) * columns
    parts: list[np.ndarray] = []
    size = 0
    for chunk in chunks_of(source, layer):
        parts.append(_as_floats(chunk))
        size += chunk.size
        if size >= at_once:
            joined = np.concatenate(parts)
            whole = size // columns * columns
            yield joined[:whole].reshape(-1, columns)
            parts, size = [joined[whole:]], size - whole
    if size:
        yield np.concatenate(parts).reshape(-1, columns)


def _as_floats(chunk: np.ndarray) -> np.ndarray:
    """A copy in float64; NaN of complex numbers, whose singular values are not computed."""
    if chunk.dtype.kind == "c":
        return np.full(chunk.shape, np.nan)
    return chunk.astype(np.float64)


def _gram(blocks: Callable[[], Iterator[np.ndarray]], columns: int) -> np.ndarray:
    gram = np.zeros((columns, columns))
    with np.errstate(all="ignore"):  # of numbers that are not finite
        for block in blocks():
            gram += block.T @ block
    return gram


def _gram_of_rows(source: Source, layer: LayerOfLeaf, rows: int) -> np.ndarray:
    """The products of all rows with each other, of a matrix of few long rows, which is held in its own dtype."""
    matrix = np.concatenate([chunk.copy() for chunk in chunks_of(source, layer)]).reshape(rows, -1)
    gram = np.zeros((rows, rows))
    at_once = max(1, _NUMBERS_AT_ONCE // rows)
    with np.errstate(all="ignore"):
        for first in range(0, matrix.shape[1], at_once):
            block = _as_floats(matrix[:, first : first + at_once])
            gram += block @ block.T
    return gram


def _roots(gram: np.ndarray, most: int) -> np.ndarray:
    if not np.isfinite(gram).all():
        return np.zeros(0)
    squares = np.linalg.eigvalsh(gram)[::-1][:most]
    return np.sqrt(np.maximum(squares, 0))


def _by_subspace_iteration(blocks: Callable[[], Iterator[np.ndarray]], columns: int) -> np.ndarray:
    random = np.random.default_rng(0)  # so that the same matrix has the same values each time
    basis = np.linalg.qr(random.standard_normal((columns, MOST_VALUES + 16)))[0]
    triangle = np.eye(basis.shape[1])
    for _ in range(_ITERATIONS):
        products = np.zeros_like(basis)
        with np.errstate(all="ignore"):
            for block in blocks():
                products += block.T @ (block @ basis)
        if not np.isfinite(products).all():
            return np.zeros(0)
        basis, triangle = np.linalg.qr(products)
    squares = np.linalg.svd(triangle, compute_uv=False)
    return np.sqrt(squares[:MOST_VALUES])
