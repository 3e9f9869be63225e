"""The factors of low-rank changes in a delta tree: their paths, which hold the scale, and how they fit parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..._edit import aliases, leaves
from ..._errors import StructureError
from ..._tree import Leaf, PyTree, stacked_axes
from ..._words import describe, lines, listed, quoted
from .low_rank import LowRank

_SCALE = "scale="


@dataclass(frozen=True)
class Factors:
    """The two factors of one kernel's change, and their scale."""

    a: Leaf
    b: Leaf
    scale: float

    def kernel(self, path: str, base: Leaf) -> LowRank:
        """The low-rank kernel with these factors, in the place of the one at a path."""
        inputs = len(self.a.shape) - stacked_axes(path) - 1
        return LowRank(base, self.a, self.b, self.scale, inputs)

    def misfit(self, path: str, base: Leaf) -> str:
        """Why the factors do not fit the kernel; "" if they do."""
        shape = getattr(base, "shape", None)
        if shape is None:
            return f"{quoted(path)} is {describe(base)}, no kernel"
        before = stacked_axes(path)
        of_a, of_b = self.a.shape, self.b.shape
        fits = (
            len(of_a) >= before + 2
            and len(of_b) >= before + 2
            and of_a[:before] == of_b[:before] == shape[:before]
            and of_a[-1] == of_b[before]
            and (*of_a[before:-1], *of_b[before + 1 :]) == shape[before:]
        )
        if fits:
            return ""
        return f"{quoted(path)} is {describe(base)}, and its factors are a {describe(self.a)} and b {describe(self.b)}"


def factor_path(kernel: str, scale: float, name: str) -> str:
    """The path of a factor in a delta tree; the scale is a part of it, so no file, selection or optimiser loses it.

    >>> factor_path("blocks/:/q/kernel", 2.0, "a")
    'blocks/:/q/kernel/scale=2/a'
    """
    return f"{kernel}/{_SCALE}{repr(float(scale)).removesuffix('.0')}/{name}"


def factors_in(delta: PyTree) -> dict[str, Factors]:
    """The factors in a delta tree, by the path of their kernel.

    Raises:
        StructureError: leaves that are no factors, a factor without the other, without its scale, or with two.
    """
    found: dict[str, dict[str, tuple[float, Leaf]]] = {}
    problems: list[str] = []
    for path, leaf in leaves(delta):
        kernel, scale, name = _parsed(path)
        if name not in ("a", "b") or not kernel or not hasattr(leaf, "shape"):
            problems.append(f"{quoted(path)} is no factor, KERNEL/scale=NUMBER/a or b: {describe(leaf)}")
        elif scale is None:
            problems.append(f"{quoted(path)} does not say its scale, as in {quoted(factor_path(kernel, 1, name))}")
        elif name in found.setdefault(kernel, {}):
            problems.append(
                f"{quoted(kernel)} has two factors {name}, of the scales {found[kernel][name][0]} and {scale}"
            )
        else:
            found[kernel][name] = (scale, leaf)
    for kernel, both in found.items():
        if len(both) == 1:
            problems.append(f"{quoted(kernel)} has the factor {listed(both)} alone")
        elif both["a"][0] != both["b"][0]:
            problems.append(f"the factors of {quoted(kernel)} have the scales {both['a'][0]} and {both['b'][0]}")
    if problems or not found:
        raise StructureError(f"no delta of ptree.train.lora: {lines(problems) or 'it has no factors'}")
    return {kernel: Factors(both["a"][1], both["b"][1], both["a"][0]) for kernel, both in found.items()}


def _parsed(path: str) -> tuple[str, float | None, str]:
    """Read a factor's path: kernel, scale and name; the scale is None where the path has none."""
    above, _, name = path.rpartition("/")
    kernel, _, scale = above.rpartition("/")
    if not scale.startswith(_SCALE):
        return above, None, name
    try:
        value = float(scale.removeprefix(_SCALE))
    except ValueError:
        return above, None, name
    if not math.isfinite(value) or value <= 0:
        return above, None, name
    return kernel, value, name


def fitted(params: PyTree, delta: PyTree) -> dict[str, LowRank]:
    """The low-rank kernel of each pair of factors, by path, checked to fit the parameters.

    Raises:
        StructureError: no delta, or one of other parameters; it names all kernels that do not fit.
    """
    kernels = dict(leaves(params))
    tied = aliases(params)
    made: dict[str, LowRank] = {}
    problems: list[str] = []
    for path, factors in factors_in(delta).items():
        if path in kernels:
            problem = factors.misfit(path, kernels[path])
            if problem:
                problems.append(problem)
            else:
                made[path] = factors.kernel(path, kernels[path])
        elif path in tied:
            problems.append(
                f"{quoted(path)} is an alias of {quoted(tied[path].shown())}, and the delta has factors of its own for it"
            )
        else:
            problems.append(f"there is no {quoted(path)}{_in_other_form(path, kernels)}")
    if problems:
        raise StructureError(f"the delta is of other parameters: {lines(problems)}")
    return made


def _in_other_form(path: str, kernels: Mapping[str, Leaf]) -> str:
    """What to do where the parameters have the kernel in a stack and the delta apart, or the other way round."""
    form = _stacked_form(path)
    if form not in {_stacked_form(name) for name in kernels}:
        return ""
    change = "unstack" if ":" in path.split("/") else "stack"
    return f", but layers of it: ptree.stacks.{change} the delta, as the parameters are"


def _stacked_form(path: str) -> str:
    segments = path.split("/")
    return "/".join(":" if segment.isdecimal() else segment for segment in segments)
