"""Find the stacked leaves that an optimiser would update otherwise if their layers were apart; and leaves that an optimiser of
single layers takes together.

Optimisers that look at ranks or norms see a stack as one parameter. They do not say so, and chains hide them: only a trial
tells. The jaxprs of an update, for a stack and for its layers apart, show that most optimisers treat both alike. The others
take two steps with numbers, on two layers of at most 128 x 128.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..._edit import unflatten
from ..._paths import STACKED
from ..._tree import Leaf, PyTree, Tie, entries, layer_of, leaves, map_leaves, stacked_axes
from .by_layer import ByLayer
from .leaf_flow import LeafFlow

_LARGEST_AXIS = 128
"""Of a layer in a trial: `optax.adafactor` treats axes from 128 on otherwise than smaller ones."""
_LARGEST_OTHER_AXIS = 2
"""Of a leaf outside of stacks, which is the same in both forms."""
_MOST_OTHERS = 2
"""Leaves outside of stacks, for what takes them together with stacked ones."""
_TOLERANCE = 1e-4
"""Relative to the largest update of a leaf."""
_GRADIENT_SCALES = (1.0, 100.0)
"""Of each step: gradients of the second one are large, so that what clips them does so."""


def leaves_updated_otherwise(optimiser: optax.GradientTransformation, params: PyTree) -> list[str]:
    """The stacked leaves whose layers the optimiser would update otherwise if they were apart; none if it cannot be tried.

    For an optimiser by layer these are the stacked leaves, if the optimiser inside takes leaves together.

    Args:
        params: the leaves that it trains; only their paths, shapes and dtypes count.
    """
    shapes = map_leaves(params, lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    found = _few(entries(shapes))
    if not any(map(stacked_axes, found)):
        return []
    try:
        return list(_remembered(optimiser, tuple(found.items())))
    except Exception:  # a trial must not stop a run: some optimisers need a loss, or masks that fit the stack alone
        return []


def _few(found: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """The leaves in stacks, and a few of the others: beside 400 of them a trial took 17 seconds."""
    chosen: dict[str, PyTree] = {}
    others = 0
    for path, value in found.items():
        if type(value) is Tie:
            continue
        others += not stacked_axes(path)
        if stacked_axes(path) or others <= _MOST_OTHERS:
            chosen[path] = value
    ties = {path: tie for path, tie in found.items() if type(tie) is Tie and tie.source in chosen}
    return chosen | ties


@lru_cache(maxsize=32)  # `init` is called again for shapes, for shardings and for other states
def _remembered(optimiser: optax.GradientTransformation, found: tuple[tuple[str, PyTree], ...]) -> tuple[str, ...]:
    tree = unflatten(dict(found))
    if isinstance(optimiser, ByLayer):
        is_alone = _treats_leaves_alone(optimiser.optimiser, tree)
        return () if is_alone else tuple(path for path, _ in leaves(tree) if stacked_axes(path))
    if _draws(optimiser, tree) or _treats_layers_alike(optimiser, tree):
        return ()
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):  # in float64 sums in another order agree
        return tuple(_different(optimiser, tree))


# ---------------------------------------------------------------------------------- by the jaxpr


def _draws(optimiser: optax.GradientTransformation, tree: PyTree) -> bool:
    """Whether the optimiser draws numbers, which are others for other leaves."""
    state = jax.eval_shape(optimiser.init, _shapes(tree, layers=1))
    return any(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state))


def _treats_leaves_alone(optimiser: optax.GradientTransformation, tree: PyTree) -> bool:
    """Whether the update of each leaf comes from that leaf alone."""
    flow = LeafFlow(lambda params: _first_update(optimiser, params), _apart(_shapes(tree, layers=2)))
    return all(sources <= {path} for path, sources in flow.sources.items())


def _treats_layers_alike(optimiser: optax.GradientTransformation, tree: PyTree) -> bool:
    """Whether the optimiser does the same to each number, in a stack and apart, as far as its jaxpr tells."""
    alike = [[name for name, _ in _layers(path, 2)] for path, _ in leaves(tree) if stacked_axes(path)]

    def update(params: PyTree) -> PyTree:
        return _first_update(optimiser, params)

    stack, layer = _shapes(tree, layers=1), _apart(_shapes(tree, layers=1))
    layers = _apart(_shapes(tree, layers=2))
    flows = [LeafFlow(update, stack), LeafFlow(update, layer)]
    if flows[0].primitives != flows[1].primitives or not all(flow.is_by_number for flow in flows):
        return False
    return LeafFlow(update, layers, alike).is_by_number


def _shapes(tree: PyTree, layers: int) -> PyTree:
    """Shapes for a trial, with so many layers in each stack."""

    def shape_of(path: str, leaf: Leaf) -> jax.ShapeDtypeStruct:
        axes = stacked_axes(path)
        largest = _LARGEST_AXIS if axes else _LARGEST_OTHER_AXIS
        shape = [min(size, largest) for size in leaf.shape[axes:]]
        dtype = np.complex128 if np.dtype(leaf.dtype).kind == "c" else np.float64
        # without x64 they are half as wide: JAX 0.12 warns of shapes of a dtype that it cannot make
        return jax.ShapeDtypeStruct((*[layers] * axes, *shape), jax.dtypes.canonicalize_dtype(dtype))

    return map_leaves(tree, shape_of)


def _first_update(optimiser: optax.GradientTransformation, params: PyTree) -> PyTree:
    updates, _ = _update(optimiser, params, optimiser.init(params), params)
    return updates


def _update(
    optimiser: optax.GradientTransformation, grads: PyTree, state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    return optax.with_extra_args_support(optimiser).update(grads, state, params, value=1.0)


# ------------------------------------------------------------------------------------ by numbers


def _different(optimiser: optax.GradientTransformation, tree: PyTree) -> Iterator[str]:
    """The paths of stacked leaves whose updates differ from those of their layers apart."""
    draw = np.random.default_rng(0)
    shapes = _shapes(tree, layers=2)
    params = _drawn(shapes, draw, 1.0)
    gradients = [_drawn(shapes, draw, scale) for scale in _GRADIENT_SCALES]
    together = dict(leaves(_apart(_last_update(optimiser, params, gradients))))
    apart = dict(leaves(_last_update(optimiser, _apart(params), list(map(_apart, gradients)))))
    for path, _ in leaves(tree):
        names = [name for name, _ in _layers(path, 2)] if stacked_axes(path) else []
        sizes = [float(np.abs(apart[name]).max(initial=0)) for name in names]
        distances = [float(np.abs(np.asarray(together[name]) - apart[name]).max(initial=0)) for name in names]
        if any(distance > _TOLERANCE * size for distance, size in zip(distances, sizes, strict=True)):
            yield path


def _drawn(shapes: PyTree, draw: np.random.Generator, scale: float) -> PyTree:
    """Random numbers; those of the second layer of a stack are ten times as large, so that their norms differ."""

    def numbers(path: str, leaf: Leaf) -> np.ndarray:
        values = draw.normal(size=leaf.shape) * scale
        axes = stacked_axes(path)
        for at in product((0, 1), repeat=axes):
            values[at] *= 10.0 ** sum(at)
        return values.astype(leaf.dtype)

    return map_leaves(shapes, numbers)


def _last_update(optimiser: optax.GradientTransformation, params: PyTree, gradients: list[PyTree]) -> PyTree:
    @jax.jit
    def updates_of(params: PyTree, gradients: list[PyTree]) -> PyTree:
        state = optimiser.init(params)
        updates: PyTree = None
        for grads in gradients:
            updates, state = _update(optimiser, grads, state, params)
        return updates

    return updates_of(params, gradients)


# ----------------------------------------------------------------------------------------- apart


def _apart(tree: PyTree) -> PyTree:
    """A tree whose stacks are layers "0", "1", ... of their own."""
    found: dict[str, PyTree] = {}
    counts = {path: leaf.shape for path, leaf in leaves(tree)}
    for path, value in entries(tree).items():
        own_path = value.source if type(value) is Tie else path
        count = next(iter(counts.get(own_path, ())), 1)
        for name, index in _layers(path, count):
            if type(value) is Tie:
                found[name] = Tie(_numbered(value.source, index), value.via)
            else:
                found[name] = layer_of(value, index) if index else value
    return unflatten(found)


def _layers(path: str, count: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The path of each layer of a leaf, and its index."""
    for index in product(range(count), repeat=stacked_axes(path)):
        yield _numbered(path, index), index


def _numbered(path: str, index: tuple[int, ...]) -> str:
    """A path with the numbers of layers in the place of its stacks, from outside in."""
    left = iter(index)
    return "/".join(str(next(left)) if segment == STACKED else segment for segment in path.split("/"))
