"""Observe parameters, gradients and updates inside a jitted step: sum, sum of squares and largest absolute value of each leaf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ..._edit import leaves as leaves_of
from ..._errors import PathError, StructureError
from ..._paths import Selector
from ..._tree import Leaf, PyTree, signature
from ..._words import listed, quoted, suggestion
from .._stats.stack_layers import Layers, layers_of
from .history_columns import ratio_of, select_paths, statistics_of_groups

Numbers: TypeAlias = Any
"""An array of JAX or NumPy, or a tracer."""

_STATISTICS = 3


@dataclass(frozen=True)
class ObservedLeaves:
    """Sum, sum of squares and largest size of the numbers of each leaf: `[leaf, 3]`, with the names of the leaves.

    >>> import jax.numpy as jnp
    >>> from ptree import look
    >>> observed = look.observe({"w": jnp.ones(4), "b": jnp.zeros(2)})
    >>> observed.params.paths, observed.params.norm.tolist()
    (('w', 'b'), [2.0, 0.0])
    """

    paths: tuple[str, ...]
    """The paths of the leaves."""
    counts: tuple[int, ...]
    """How many numbers each leaf has."""
    numbers: Numbers
    """Sum, sum of squares and largest size of each leaf, `[leaf, 3]`."""

    __module__ = "ptree.look"

    @property
    def mean(self) -> Numbers:
        """The mean of each leaf."""
        return self.numbers[..., 0] / self._counts

    @property
    def norm(self) -> Numbers:
        """The square root of the sum of squares."""
        return self.numbers[..., 1] ** 0.5

    @property
    def std(self) -> Numbers:
        """From the mean and the sum of squares in f32: not exact where the mean is far larger than the standard deviation."""
        square = self.numbers[..., 1] / self._counts - self.mean**2
        return (square * (square > 0) if isinstance(square, np.ndarray) else jnp.maximum(square, 0)) ** 0.5

    @property
    def largest(self) -> Numbers:
        """The largest size of a number of each leaf."""
        return self.numbers[..., 2]

    @property
    def _counts(self) -> np.ndarray:
        return np.maximum(np.array(self.counts, np.float32), 1)


Group: TypeAlias = tuple[str, tuple[str, ...], tuple[int, ...]]
"""The name of a group, the paths of its leaves, and how many numbers each has."""


@dataclass(frozen=True, repr=False)
class Observed:
    """What `observe` computes: a pytree of one small array, `[leaf, 3]` for parameters, gradients and updates in turn.

    >>> import jax.numpy as jnp
    >>> from ptree import look
    >>> observed = look.observe({"w": jnp.ones(4), "b": jnp.zeros(2)})
    >>> observed
    <Observed params: 2 leaves>
    >>> observed.by_path("params/norm")
    {'w': Array(2., dtype=float32), 'b': Array(0., dtype=float32)}
    """

    numbers: Numbers
    """One array for all groups, `[leaf, 3]`."""
    names: tuple[Group, ...]
    """For each group its name, the paths of its leaves, and how many numbers each has."""

    __module__ = "ptree.look"

    @property
    def groups(self) -> dict[str, ObservedLeaves]:
        """What was observed, by name: "params", and "grads" and "updates" where they were given."""
        groups: dict[str, ObservedLeaves] = {}
        first = 0
        for name, paths, counts in self.names:
            rows = self.numbers[..., first : first + len(paths), :]
            groups[name] = ObservedLeaves(paths, counts, rows)
            first += len(paths)
        return groups

    @property
    def params(self) -> ObservedLeaves:
        """What was observed of the parameters."""
        return self._group("params")

    @property
    def grads(self) -> ObservedLeaves:
        """What was observed of the gradients.

        Raises:
            StructureError: they were not given to `observe`.
        """
        return self._group("grads")

    @property
    def updates(self) -> ObservedLeaves:
        """What was observed of the updates.

        Raises:
            StructureError: they were not given to `observe`.
        """
        return self._group("updates")

    def _group(self, name: str) -> ObservedLeaves:
        groups = self.groups
        if name not in groups:
            raise StructureError(f"no {name} were observed. Give them: observe(params, grads, updates)")
        return groups[name]

    @property
    def ratio(self) -> Numbers:
        """|update| / |parameter| of each leaf of the updates, in the order of `updates.paths`: about 1e-3 in a run that goes well.

        Of a leaf of zeros, such as a bias at the first step, it is NaN, undefined; and 0 where that leaf is not updated.
        """
        places = {path: at for at, path in enumerate(self.params.paths)}
        at = np.array([places[path] for path in self.updates.paths], np.int32)
        return ratio_of(self.updates.norm, self.params.norm[..., at])

    @property
    def statistics(self) -> list[str]:
        """The names of what `by_path` gives: `params/norm`, `grads/largest`, `updates/ratio`; as in a `History`."""
        return statistics_of_groups(self.groups)

    def by_path(self, statistic: str, selector: Selector | None = None) -> dict[str, Numbers]:
        """One statistic of each leaf, as a dict, path -> number. Leaves that were not given to `observe` are not in it.

        >>> import jax.numpy as jnp
        >>> from ptree import look
        >>> params = {"enc": {"w": jnp.ones(4)}, "head": {"w": jnp.ones(4)}}
        >>> observed = look.observe(params, updates={"head": {"w": jnp.full(4, 0.5)}})     # the encoder is frozen
        >>> {path: float(ratio) for path, ratio in observed.by_path("updates/ratio").items()}
        {'head/w': 0.5}

        A statistic of gradients or updates has the leaves that these have: a frozen leaf is in `params/norm`, and not in
        `updates/norm`. `updates/ratio` is |update| / |parameter|. Of a leaf of zeros, such as a bias at the first step, it is
        NaN, undefined; and 0 where that leaf is not updated.

        Args:
            statistic: its name, from `statistics`.
            selector: which leaves: a pattern, a regex, a predicate, a mask of the parameters, or a sequence of these; all by
                default. A predicate gets the path and an object whose `count` is how many numbers the leaf has.

        Raises:
            PathError: there is no such statistic, as gradients or updates were not given to `observe`.
            PatternError: the selector is malformed, or a part of it matches nothing.
        """
        names = self.statistics
        if statistic not in names:
            hint = suggestion(str(statistic), names)
            raise PathError(f"no statistic {quoted(statistic)} was observed: there are {listed(names)}.{hint}")
        group, _, kind = statistic.partition("/")
        leaves = self._group(group)
        numbers = self.ratio if kind == "ratio" else getattr(leaves, kind)
        places = {path: at for at, path in enumerate(leaves.paths)}
        chosen = select_paths(dict(zip(leaves.paths, leaves.counts, strict=True)), selector)
        return {path: numbers[..., places[path]] for path in chosen}

    def __repr__(self) -> str:
        groups = [f"{name}: {len(paths)} leaves" for name, paths, _ in self.names]
        return f"<Observed {', '.join(groups)}>"


jax.tree_util.register_dataclass(Observed, ["numbers"], ["names"])


def observe(params: PyTree, grads: PyTree = None, updates: PyTree = None) -> Observed:
    """Sum, sum of squares and largest absolute value of each leaf, to be returned from a jitted training step.

    >>> import jax, jax.numpy as jnp
    >>> @jax.jit
    ... def step(params, x):
    ...     loss, grads = jax.value_and_grad(lambda params: (params["w"] @ x).sum())(params)
    ...     updates = jax.tree.map(lambda grad: -0.1 * grad, grads)
    ...     return jax.tree.map(jnp.add, params, updates), loss, observe(params, grads, updates)
    >>> params, loss, observed = step({"w": jnp.ones((2, 3))}, jnp.float32([0, 0, 2]))
    >>> observed.by_path("grads/largest")
    {'w': Array(2., dtype=float32)}
    >>> {path: round(float(ratio), 4) for path, ratio in observed.by_path("updates/ratio").items()}
    {'w': 0.1155}

    Mean, norm and std follow from these three, which cost the least. What they add to a step is in `benchmarks/README.md`, under
    "Looking": least without updates. A sum of squares that is not finite says that a number is not finite, or larger than 1e19. The
    layers of a stacked leaf, `blocks/:/kernel`, are observed one by one. Leaves of whole numbers, keys and texts are left out.
    Inside `jax.lax.scan` or `jax.vmap` the arrays get the axes of these in front. `History` keeps what a run observes.

    Args:
        params: the parameters.
        grads: their gradients; leaves that are not trained may be missing.
        updates: what the optimiser adds to them.

    Raises:
        StructureError: gradients or updates have a leaf that the parameters do not have, or one of another shape.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    groups = {"params": dict(_observable(params))}
    for name, tree in (("grads", grads), ("updates", updates)):
        if tree is not None:
            groups[name] = dict(_observable(tree))
            _refuse_strangers(name, groups[name], groups["params"])
    names: list[Group] = []
    numbers = [jnp.zeros((0, _STATISTICS))]
    for name, leaves in groups.items():
        layers = [layers_of(path, leaf.shape) for path, leaf in leaves.items()]
        paths = [path for inside in layers for path in inside.paths]
        counts = [inside.size for inside in layers for _ in inside.paths]
        names.append((name, tuple(paths), tuple(counts)))
        numbers += map(_statistics, leaves.values(), layers)
    return Observed(jnp.concatenate(numbers), tuple(names))


def _observable(tree: PyTree) -> Iterator[tuple[str, Leaf]]:
    """The leaves that are arrays of floats or complex numbers."""
    for path, leaf in leaves_of(tree):
        about = signature(leaf)
        if isinstance(about, tuple) and jnp.issubdtype(about[1], jnp.inexact):
            yield path, leaf


def _refuse_strangers(name: str, found: dict[str, Leaf], params: dict[str, Leaf]) -> None:
    for path, leaf in found.items():
        if path not in params:
            raise StructureError(f"{name} have a leaf {path!r}, which the parameters do not have")
        if leaf.shape != params[path].shape:
            raise StructureError(f"at {path!r} {name} have the shape {leaf.shape}, the parameters {params[path].shape}")


def _statistics(leaf: Leaf, layers: Layers) -> jax.Array:
    """`[layer, 3]` in f32. Axes are reduced as they are: a reshape would gather an array that is sharded."""
    # else XLA may compute the leaf once more for its statistics, which takes longer than to keep it
    numbers = jax.lax.optimization_barrier(jnp.asarray(leaf))
    axes = tuple(range(numbers.ndim - len(layers.shape), numbers.ndim))
    if jnp.issubdtype(numbers.dtype, jnp.complexfloating):
        numbers = jnp.abs(numbers)
    numbers = numbers.astype(jnp.float32)
    # on a CPU two comparisons take less time than one of sizes
    largest = jnp.maximum(numbers.max(axes, initial=0), -numbers.min(axes, initial=0))
    return jnp.stack([numbers.sum(axes), jnp.square(numbers).sum(axes), largest], axis=-1).reshape(-1, _STATISTICS)
