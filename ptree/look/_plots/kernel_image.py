"""One leaf as one image: a vector, a matrix, the filters of a convolution as a grid, the layers of a stack side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._errors import PatternError, StructureError
from ..._paths import PathIndex
from ..._words import quoted
from .._sources.source import LeafInfo, Source
from .distributions import LayerOfLeaf, layers_of_leaves, problem_of

_MOST_PIXELS = 768
"""Rows and columns of a matrix that are drawn: of more, evenly spread ones."""
_MOST_TILES = 16
"""Filters of a convolution along each side of the grid, and layers of a stack along each side."""
_TILE_OF_STACK = 192


@dataclass(frozen=True)
class KernelImage:
    """The numbers of a leaf laid out as an image."""

    pixels: np.ma.MaskedArray
    """What is no number of the leaf, such as the lines between tiles, is masked."""
    rows: str
    """What the rows are."""
    columns: str
    about: str
    """The shape, and what of the leaf is not drawn."""


def kernel_image(source: Source, path: str) -> KernelImage:
    """Lay out the leaf at a path, or one layer of a stack: `blocks/3/kernel` of the leaf `blocks/:/kernel`.

    Raises:
        PatternError: there is no such leaf; the nearest path is suggested.
        StructureError: it has no real numbers, or none at all.
    """
    layer = _found(source, path)
    leaf = source.leaves[layer.leaf]
    _refuse_without_numbers(path, leaf)
    stacks = leaf.shape[: len(leaf.shape) - len(layer.shape)] if leaf.shape else ()
    if len(stacks) == len(layer.shape) == 1:  # vectors: a row for each layer
        return _layer_image(_numbers(source, LayerOfLeaf(path, layer.leaf, leaf.shape or ())), leaf.shape or ())
    if stacks and not layer.index:
        return _stack_image(source, layer.leaf, leaf)
    return _layer_image(_numbers(source, layer), layer.shape)


def _found(source: Source, path: str) -> LayerOfLeaf:
    if not isinstance(path, str):
        raise TypeError(f"expected the path of one leaf, such as 'encoder/0/kernel', got {quoted(path)}")
    leaf_path = source.aliases[path].source if path in source.aliases else path
    if leaf_path in source.leaves:
        shape = source.leaves[leaf_path].shape or ()
        stacked = leaf_path.split("/").count(":")
        return LayerOfLeaf(path, leaf_path, shape[stacked:])
    for layer in layers_of_leaves(source, source.leaves):
        if layer.name == leaf_path:
            return layer
    near = PathIndex([*source.leaves, *source.aliases]).suggest(path)
    hint = "" if near is None else f" Did you mean {quoted(near)}?"
    raise PatternError(f"no leaf {quoted(path)} in {len(source.leaves)} leaves.{hint}")


def _refuse_without_numbers(path: str, leaf: LeafInfo) -> None:
    problem = problem_of(leaf)
    if not problem and leaf.dtype.startswith("c") and leaf.dtype[1:].isdecimal():
        problem = "is complex: draw its real part, jnp.real(leaf)"
    if problem:
        raise StructureError(f"cannot draw {quoted(path)}: it {problem.removeprefix('it ')}")


def _layer_image(numbers: np.ndarray, shape: Sequence[int]) -> KernelImage:
    if len(shape) < 2:
        return _vector_image(numbers.reshape(-1), shape)
    if len(shape) == 2:
        pixels = _thinned(numbers, _MOST_PIXELS)
        return KernelImage(
            np.ma.masked_array(pixels), f"axis 0, {shape[0]:,}", f"axis 1, {shape[1]:,}", _about(shape, pixels)
        )
    if len(shape) == 3:
        return _tiled_matrices(numbers, shape)
    return _filter_grid(numbers, shape)


def _vector_image(numbers: np.ndarray, shape: Sequence[int]) -> KernelImage:
    """A vector as a row, or as several rows one below the other where it is long."""
    columns = min(max(numbers.size, 1), 64 if numbers.size <= 64 * _MOST_PIXELS else _MOST_PIXELS)
    rows = -(-numbers.size // columns)
    padded = _masked((rows * columns,))
    padded[: numbers.size] = numbers
    text = "" if rows == 1 else f"rows of {columns}"
    pixels = padded.reshape(rows, columns)[:_MOST_PIXELS]
    return KernelImage(pixels, text, "axis 0" if shape else "", _about(shape, None))


def _tiled_matrices(numbers: np.ndarray, shape: Sequence[int]) -> KernelImage:
    """Three axes as matrices side by side, one for each place along the first axis."""
    shown = numbers[: _MOST_TILES**2]
    size = max(16, _TILE_OF_STACK // math.isqrt(len(shown)) * 2)
    tiles = [_thinned(matrix, size) for matrix in shown]
    columns = math.ceil(math.sqrt(len(tiles) * tiles[0].shape[0] / tiles[0].shape[1]))
    pixels = _montage(tiles, max(1, min(columns, len(tiles))))
    what = f"{len(shown)} of {shape[0]} matrices" if len(shown) < shape[0] else f"{shape[0]} matrices"
    return KernelImage(
        pixels, f"axis 1, {shape[1]:,}", f"axis 2, {shape[2]:,}", f"{_shown(shape)}: {what} along axis 0"
    )


def _filter_grid(numbers: np.ndarray, shape: Sequence[int]) -> KernelImage:
    """The filters of a convolution: a row of tiles for each input, a column for each output."""
    is_last = is_spatial_last(shape)
    if is_last:  # (out, in, spatial...), as PyTorch has it
        by_channel = np.moveaxis(numbers, 0, 1)
    else:  # (spatial..., in, out)
        by_channel = np.moveaxis(numbers, (-2, -1), (0, 1))
    inputs, outputs = by_channel.shape[:2]
    shown = by_channel[:_MOST_TILES, : 2 * _MOST_TILES]
    spatial = shown.shape[2:]
    # of three spatial axes the first are rows of the tile
    tiles = shown.reshape(-1, math.prod(spatial[:-1]), spatial[-1]).astype(np.float64)
    pixels = _montage([_thinned(tile, 32) for tile in tiles], shown.shape[1])
    rows = _counted(shown.shape[0], inputs, "inputs")
    columns = _counted(shown.shape[1], outputs, "outputs")
    return KernelImage(pixels, rows, columns, f"{_shown(shape)}: {' x '.join(map(str, spatial))} filters")


def is_spatial_last(shape: Sequence[int]) -> bool:
    """Whether the spatial axes of a convolution are its last, as in PyTorch, rather than its first: those are smaller."""
    spatial = len(shape) - 2
    return math.prod(shape[2:]) < math.prod(shape[:spatial])


def _counted(shown: int, count: int, what: str) -> str:
    return f"{count:,} {what}" if shown == count else f"the first {shown} of {count:,} {what}"


def _stack_image(source: Source, path: str, leaf: LeafInfo) -> KernelImage:
    """The layers of a stack side by side, each as the image of that layer, made small."""
    layers = layers_of_leaves(source, [path])
    shown = layers[:: -(-len(layers) // _MOST_TILES**2)]
    size = max(24, _MOST_PIXELS // math.isqrt(len(shown)))
    tiles: list[np.ndarray] = []
    for layer in shown:
        image = _layer_image(_numbers(source, layer), layer.shape)
        tiles.append(_thinned(image.pixels, size))
    columns = math.ceil(math.sqrt(len(tiles) * tiles[0].shape[0] / tiles[0].shape[1]))
    pixels = _montage(tiles, max(1, min(columns, len(tiles))), gap=3)
    what = _counted(len(shown), len(layers), "layers").replace("the first ", "")
    return KernelImage(pixels, "", "", f"{_shown(leaf.shape or ())}: {what}, row by row")


def _numbers(source: Source, layer: LayerOfLeaf) -> np.ndarray:
    """The numbers of a layer in float64; of a large matrix only the rows that are drawn."""
    if layer.index or len(layer.shape) != 2:
        part = source.part(layer.leaf, layer.index or ...)
        return np.asarray(part).astype(np.float64).reshape(layer.shape)
    rows = _places(layer.shape[0], _MOST_PIXELS)
    if len(rows) == layer.shape[0]:
        return np.asarray(source.part(layer.leaf)).astype(np.float64)
    columns = _places(layer.shape[1], _MOST_PIXELS)
    picked = [np.asarray(source.part(layer.leaf, int(row))).astype(np.float64)[columns] for row in rows]
    return np.stack(picked)


def _thinned(matrix: np.ndarray, most: int) -> np.ndarray:
    """A matrix, or evenly spread rows and columns of it where it has more than so many."""
    rows, columns = _places(matrix.shape[0], most), _places(matrix.shape[1], most)
    return matrix[np.ix_(rows, columns)]


def _places(size: int, most: int) -> np.ndarray:
    if size <= most:
        return np.arange(size)
    return np.linspace(0, size - 1, most).round().astype(int)


def _montage(tiles: Sequence[np.ndarray], columns: int, gap: int = 1) -> np.ma.MaskedArray:
    """Tiles of one shape in rows, with masked lines between them."""
    height, width = tiles[0].shape
    rows = -(-len(tiles) // columns)
    canvas = _masked((rows * (height + gap) - gap, columns * (width + gap) - gap))
    for at, tile in enumerate(tiles):
        top, left = at // columns * (height + gap), at % columns * (width + gap)
        canvas[top : top + height, left : left + width] = tile
    return canvas


def _masked(shape: tuple[int, ...]) -> np.ma.MaskedArray:
    # not numpy's masked_all, whose numbers below the mask are what was in memory
    return np.ma.masked_array(np.zeros(shape), mask=np.ones(shape, bool))


def _about(shape: Sequence[int], pixels: np.ndarray | None) -> str:
    if pixels is None or pixels.shape == tuple(shape):
        return _shown(shape)
    return f"{_shown(shape)}: {pixels.shape[0]} rows and {pixels.shape[1]} columns, evenly spread"


def _shown(shape: Sequence[int]) -> str:
    return f"[{', '.join(f'{size:,}' for size in shape)}]"
