"""plot_kernels: a leaf as an image, whose colours are symmetric around 0: matrices, filters of convolutions, stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._sources.source_of import source_of
from .figures import BAD, figure_for, label
from .kernel_image import KernelImage, kernel_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from ..._tree import PyTree

_CUT = 0.999
"""The share of the numbers that the scale of colours covers; a few outliers would make all others pale."""


def plot_kernels(
    thing: PyTree, path: str, *, ax: Axes | None = None, figure: Figure | SubFigure | None = None
) -> Figure:
    """Draw the leaf at a path as an image: blue for negative numbers, red for positive ones, white for 0.

    >>> import numpy as np
    >>> figure = plot_kernels({"conv": np.random.randn(3, 3, 4, 8)}, "conv")
    >>> figure.axes[0].get_title(loc="left")
    'conv  [3, 3, 4, 8]: 3 x 3 filters'

    A matrix is an image. The filters of a convolution are a grid with a row for each input and a column for each output;
    `(spatial..., in, out)` and PyTorch's `(out, in, spatial...)` are told apart by the smaller side. The layers of a
    stack, `blocks/:/kernel`, are side by side; `blocks/3/kernel` is a single one. Of a matrix with more than 768 rows or
    columns evenly spread ones are drawn, of filters the first 16 inputs and 32 outputs.

    Colours go from -m to m, where 99.9 % of the numbers are at most m in size. NaN and inf are black.

    Args:
        thing: a tree, an open file, or the path of a file or of a folder of checkpoints.
        path: of one leaf, or of one layer of a stack.
        ax: axes to draw in.
        figure: a figure, or a part of one; a new one by default.

    Raises:
        ImportError: matplotlib is not installed.
        PatternError: there is no such leaf.
        StructureError: it has no numbers, or complex ones.
        FileError: it cannot be read.
    """
    with source_of(thing) as source:
        image = kernel_image(source, path)
    height, width = image.pixels.shape
    inches = min(max(8 * height / max(width, 1), 1.6), 9)
    target, axes = figure_for(ax, figure, (8.5, inches + 1.2))
    _draw(target, axes[0] if axes else target.subplots(), path, image)
    return target


def _draw(figure: Any, ax: Axes, path: str, image: KernelImage) -> None:
    limit = _limit(image.pixels)
    bad = ~np.isfinite(image.pixels.data) & ~np.ma.getmaskarray(image.pixels)
    # infinite numbers below the mask would warn
    finite = np.ma.masked_array(np.where(bad, 0, image.pixels.data), bad | np.ma.getmaskarray(image.pixels))
    drawn = ax.imshow(finite, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect=_aspect(image))
    if bad.any():
        # over the image, which has one colour for all that is no number, also between tiles
        black = np.zeros((*bad.shape, 4))
        black[bad] = (0, 0, 0, 1)
        ax.imshow(black, interpolation="nearest", aspect=_aspect(image))
    ax.set_facecolor("#b5b5b5")  # between tiles: white is the colour of 0
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xlabel(image.columns, fontsize=8)
    ax.set_ylabel(image.rows, fontsize=8)
    title = f"{label(path)}  {image.about}"
    ax.set_title(title, fontsize=9, loc="left")
    if bad.any():
        ax.set_title(f"{np.count_nonzero(bad):,} NaN or inf drawn black", fontsize=8, loc="right", color=BAD)
    # as high as the image, which one beside the axes would not be
    bar = figure.colorbar(drawn, cax=ax.inset_axes((1.01, 0, 0.02, 1)), extend=_extend(image.pixels, limit))
    bar.ax.tick_params(labelsize=8)


def _limit(pixels: np.ma.MaskedArray) -> float:
    numbers = pixels.compressed()
    finite = np.abs(numbers[np.isfinite(numbers)])
    if not finite.size:
        return 1.0
    cut = float(np.quantile(finite, _CUT))
    return cut or float(finite.max()) or 1.0


def _extend(pixels: np.ma.MaskedArray, limit: float) -> Any:
    numbers = pixels.compressed()
    below, above = bool((numbers < -limit).any()), bool((numbers > limit).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def _aspect(image: KernelImage) -> Any:
    height, width = image.pixels.shape
    return "equal" if 1 / 8 < height / width < 2 else "auto"
