"""What an initialiser of a rule or spec draws at a path: a scheme draws a bias by the kernel beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._edit import get_or
from .._errors import InitError
from .._paths import join
from .._tree import MISSING, Leaf, PyTree
from .._words import quoted
from ..stacks import layer_shape

if TYPE_CHECKING:  # a sixth of the time of `import ptree`, which draws nothing
    from ..initializers import Initializer, Scheme


def initializer_at(initializer: Initializer, tree: PyTree, path: str, leaf: Leaf) -> Initializer:
    """The initialiser that draws the leaf at this path; of a scheme that for a kernel, or for a bias.

    Raises:
        InitError: the scheme has none for this leaf.
    """
    scheme = as_scheme(initializer)
    if scheme is None:
        return initializer
    from ..initializers import Site

    site = Site(path, layer_shape(path, leaf), np.dtype(leaf.dtype), _kernel_beside(tree, path, scheme))
    try:
        return scheme.at(site)
    except Exception as error:  # `bias=` may be any function of the user
        raise InitError(f"cannot draw {quoted(path)} by {quoted(scheme)}: {error}") from error


def as_scheme(initializer: Initializer) -> Scheme | None:
    """The initialiser of a rule or spec if it is a Scheme, which draws biases by another one; None for others."""
    from ..initializers import Scheme  # a sixth of the time of `import ptree`, which draws nothing

    return initializer if isinstance(initializer, Scheme) else None


def _kernel_beside(tree: PyTree, path: str, scheme: Scheme) -> tuple[int, ...] | None:
    """The shape of the kernel beside a bias, of one layer in a stack; None if the leaf is no bias or has no kernel beside it."""
    node, _, name = path.rpartition("/")
    if name not in scheme.bias_names:
        return None
    for kernel_name in scheme.kernel_names:
        kernel_path = join(node, kernel_name)
        kernel = get_or(tree, kernel_path, MISSING)
        shape = layer_shape(kernel_path, kernel)
        if len(shape) > 1:  # a kernel has at least (in, out)
            return shape
    return None
