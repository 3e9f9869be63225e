"""Scheme: one initialiser for the kernel of a layer and one for its bias, which is drawn at a Site; Preset, a scheme with options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .._errors import InitError
from .._words import describe, name_of
from ._options import called, refuse_factory
from ._recipe import Initializer, Recipe


@dataclass(frozen=True)
class Site:
    """The site of a bias that is drawn: its path, the shape and dtype of one layer, and the kernel beside it.

    >>> import jax, ptree as pt
    >>> from ptree import initializers as I
    >>> def small(site):
    ...     return I.constant(1 / site.kernel[0])
    >>> spec = pt.Tree({"kernel": pt.Param((4, 2)), "bias": pt.Param((2,))})
    >>> pt.init(spec, jax.random.key(0), {"**": I.Scheme(I.zeros, bias=small)})["bias"].tolist()
    [0.25, 0.25]
    """

    path: str
    """The path of the bias."""
    shape: tuple[int, ...]
    """Its shape, of one layer in a stack."""
    dtype: np.dtype
    """Its dtype."""
    kernel: tuple[int, ...] | None = None
    """The shape of the kernel in the same node, of one layer of it in a stack; None if there is no such kernel."""

    __module__ = "ptree.initializers"


@dataclass(frozen=True, repr=False)
class Scheme:
    """What a framework draws for a layer: one initialiser for its kernel, one for the bias beside it.

    >>> import jax, ptree as pt
    >>> from ptree import initializers as I
    >>> small_bias = I.Scheme(I.lecun_normal(), bias=lambda site: I.constant(1 / site.kernel[0]))
    >>> spec = pt.Tree({"dense": {"kernel": pt.Param((4, 2)), "bias": pt.Param((2,))}})
    >>> pt.init(spec, jax.random.key(0), {"dense": small_bias})["dense/bias"].tolist()
    [0.25, 0.25]

    It stands where an initialiser does: in rules, in `Param(init=...)`, in a layer's options. A leaf is a bias if it
    is named as one and a kernel, of two axes or more, is in the same node; `bias` is then called with its `Site`.
    Every other leaf is drawn by `kernel`. The presets are schemes: `torch_linear.kernel`, `torch_linear.bias`.

    Args:
        kernel: an initialiser.
        bias: from a `Site` to an initialiser; None draws biases as kernels.
        kernel_names: the names that a kernel can have; the first in the node that has two axes counts.
        bias_names: the names that a bias can have.

    Raises:
        InitError: a kernel or bias that is no function.
    """

    kernel: Initializer
    bias: Callable[[Site], Initializer] | None = None
    kernel_names: tuple[str, ...] = ("kernel", "weight", "w")
    bias_names: tuple[str, ...] = ("bias", "b")

    __module__ = "ptree.initializers"

    def __post_init__(self) -> None:
        if not callable(self.kernel):
            raise InitError(f"kernel must be an initialiser, (key, shape, dtype) -> array, got {describe(self.kernel)}")
        if self.bias is not None and not callable(self.bias):
            raise InitError(f"bias must be a function from a site to an initialiser, got {describe(self.bias)}")
        refuse_factory(self.kernel)

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        """Draw a kernel, as any initialiser does."""
        return self.kernel(key, tuple(shape), dtype)

    def at(self, site: Site) -> Initializer:
        """The initialiser for the leaf at this site.

        Args:
            site: where the leaf is.
        """
        if site.kernel is None or self.bias is None:
            chosen = self.kernel
        else:
            chosen = self.bias(site)
        # schemes nest: `Scheme(torch_linear, bias=...)` changes the bias of a preset
        return chosen.at(site) if isinstance(chosen, Scheme) else chosen

    def __repr__(self) -> str:
        bias = "" if self.bias is None else f", bias={name_of(self.bias)}"
        return f"Scheme({name_of(self.kernel)}{bias})"


class Preset(Scheme):
    """A scheme that stands as it is, `torch_linear`, or is called with options, `torch_linear(fan_in=784)`."""

    def __init__(self, make: Callable[..., Scheme], options: Mapping[str, Any] | None = None):
        options = options or {}
        made = make(**options)
        name = make.__name__.strip("_")
        text = name
        if options:
            text = called(name, **{option: (value, None) for option, value in options.items()})
        kernel = made.kernel
        if isinstance(kernel, Recipe):  # it prints as the preset, not as the recipe that the preset uses
            kernel = replace(kernel, text=text)
        super().__init__(kernel, made.bias)
        # the dataclass is frozen; `help(torch_linear)` shows the docstring of its function
        object.__setattr__(self, "__doc__", make.__doc__)
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_options", options)

    _make: Callable[..., Scheme]
    _options: Mapping[str, Any]

    def __call__(self, *given: Any, **options: Any) -> Any:
        """Draw a kernel, given a key, a shape and perhaps a dtype; otherwise the preset with these options."""
        # `torch_linear(784, -2)` gives options, `torch_linear(key, (4, 8))` draws: a key is no number
        gives_key = len(given) > 1 and not isinstance(given[0], Real)
        if gives_key or "shape" in options:
            return super().__call__(*given, **options)
        return Preset(self._make, {**self._options, **self._named(given, options)})

    def _named(self, given: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Check the options, and give each its name."""
        names = list(inspect.signature(self._make).parameters)
        unknown = [name for name in options if name not in names]
        if unknown or len(given) > len(names):
            got = unknown or [describe(value) for value in given]
            raise InitError(f"{self._make.__name__.strip('_')} takes the options {names}, got {got}")
        return {**dict(zip(names, given, strict=False)), **options}

    def __repr__(self) -> str:
        return name_of(self.kernel)
