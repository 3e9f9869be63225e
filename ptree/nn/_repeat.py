"""Repeat: a loop over one layer n times, scanned over a stack of parameters or over steps that share the same ones; output
problems of a step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial

import jax

from .._draw import child_key
from .._edit import items, set
from .._errors import LayerError
from .._paths import STACKED
from .._tree import PyTree, Tree, like_placed
from .._words import describe
from ..stacks import checkpointed, is_rolled, loop, scan, stack
from ._compiled import compile_key
from ._container import Container, Options, as_layer, check_options, check_part, declared, located, options_for
from ._inputs import misfit, shapes_of
from ._layer import Layer, P, Params


@dataclass(frozen=True, eq=False, repr=False)
class Repeat(Container):
    """Repeat a layer `n` times in a row, each time with its own parameters, which are stacked and scanned over.

    >>> import jax.numpy as jnp
    >>> from ptree.nn import Dense, LayerNorm, Residual, Sequential
    >>> net = Repeat(Residual(Sequential(LayerNorm(), Dense(8), jax.nn.relu)), 24)
    >>> params = net.init(jax.random.key(0), jnp.ones((2, 8)))
    >>> params
    Tree(
      :/inner/0/scale   f32[24,8]
      :/inner/0/bias    f32[24,8]
      :/inner/1/kernel  f32[24,8,8]
      :/inner/1/bias    f32[24,8]
    )
    >>> net(params, jnp.ones((2, 8))).shape
    (2, 8)

    Its compile time does not grow with `n`. Parameters may also be unstacked, under "0", "1", ..., with the same result;
    `scan=False` declares them so. Keys, and so dropout masks, are the same in both forms. Groups of different
    layers repeat as one layer: `Repeat(Sequential(local, local, globally), 8)`.

    Args:
        layer: the layer to repeat; its output has the shape and dtype of its input.
        n: how many times.
        shared: use the same parameters each time; their paths are the layer's, without `:` (ALBERT, Lan et al. 2020).
        scan: declare the parameters as a stack.
        remat: compute the inside of each layer again in the backward pass; True, or a `jax.checkpoint_policies`.
        unroll: how many layers are compiled in a row; True for all.

    Raises:
        LayerError: a layer whose output is not like its input, parameters of another number of layers, or `updated`
            with `shared=True`.
    """

    is_loop = True
    layer: PyTree
    n: int
    _: KW_ONLY
    shared: bool = False
    scan: bool = True
    remat: bool | Callable[..., bool] = False
    unroll: int | bool = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_part("Repeat", self.layer)

    @cached_property
    def _layer(self) -> Layer:
        return as_layer(self.layer)

    def parts(self) -> Iterator[tuple[str, Layer]]:
        return iter([(self._name, self._layer)])

    @property
    def _name(self) -> str:
        """The path of the layer's parameters: that of the stack, or of Repeat itself if they are shared."""
        return "" if self.shared else STACKED

    def declare(self, x: PyTree) -> Tree:
        x = shapes_of(x)
        spec, y = declared(self._name, self._layer, x)
        problem = _output_problem(x, y)
        if problem is not None:
            raise LayerError(f"{self!r}: {problem}")
        if self.shared or not len(spec):  # nothing to stack
            return spec
        layers = Tree({str(at): spec for at in range(self.n)})
        return stack(layers, "") if self.scan else layers

    def _check_values(self, inputs: tuple[PyTree, ...], options: Options) -> None:
        try:
            self._layer._check_values(inputs, options)
        except LayerError as error:
            raise located(error, self._name) from None

    def apply(self, params: Params, x: PyTree, **options: PyTree) -> PyTree:
        check_options(self, options)
        key = options.pop("key", None)
        # `key` is accepted in any case; only a layer with dropout inside takes one.
        takes_key = "key" in self._layer.call_options()
        keys = self._keys(key) if takes_key else None
        y, _ = self._loop(_Step(self._layer, _loop_key(self._layer)), params, x, keys, options)
        return y

    def updated(self, params: P, x: PyTree, *, key: jax.Array | None = None, **options: PyTree) -> tuple[PyTree, P]:
        check_options(self, options)
        if self.shared:  # each step would give other statistics for the same leaves
            raise LayerError(f"{self!r}: running statistics of a layer that is used {self.n} times are not defined")
        step = _UpdatingStep(self._layer, _loop_key(self._layer))
        y, statistics = self._loop(step, params, x, self._keys(key), options)
        for path, values in statistics.items():
            params = self._with_layers(params, path, values)
        return y, params

    def _keys(self, key: jax.Array | None) -> jax.Array | None:
        """A key for each step of the loop: the one that an unstacked layer of this number gets from a container."""
        if key is None:
            return None
        return jax.numpy.stack([child_key(key, at) for at in range(self.n)])

    def _loop(
        self, step: Callable[..., PyTree], params: Params, x: PyTree, keys: jax.Array | None, options: Options
    ) -> tuple[PyTree, PyTree]:
        """Run the loop; return the last output, and the second results of all steps, stacked."""
        taken = options_for(self._layer, "", options)
        if taken:
            # Two partials are never equal, so JAX compiles the loop again: only with options.
            step = partial(step, options=taken)
        is_same = self.shared or (isinstance(params, Mapping) and not params)
        if not is_same:
            self._check_count(params)
        try:
            # The parameters are not stacked, or there are none: scan over the keys only.
            if is_same:
                same = checkpointed(step, self.remat, is_rolled(self.unroll))
                return loop(lambda x, key: same(x, params, key), x, keys, self.n, unroll=self.unroll)
            return scan(step, x, params, keys, remat=self.remat, unroll=self.unroll)
        except _OutputError as error:  # of the loop itself, not of the layer at the loop's name
            raise LayerError(f"{self!r}: {error.what}") from None
        except LayerError as error:
            raise located(error, self._name) from None

    def _with_layers(self, params: P, path: str, values: jax.Array) -> P:
        """Set one leaf of the repeated layer in all layers; `values` has a row for each."""
        if STACKED in params:  # set at once: layer by layer the stacked leaf would be copied n times
            name = f"{STACKED}/{path}"
            return set(params, name, like_placed(values, params[name]))
        for at in range(self.n):
            params = set(params, f"{at}/{path}", values[at])
        return params

    def _check_count(self, params: Params) -> None:
        if not isinstance(params, Mapping):
            raise misfit(self, f"the parameters of {self.n} layers", describe(params))
        if STACKED in params:
            # `scan` checks that the sizes agree.
            sizes = [leaf.shape[0] for leaf in jax.tree.leaves(params)]
            count = sizes[0] if sizes else self.n
        else:
            count = len(params)
        if count != self.n:
            raise misfit(self, f"the parameters of {self.n} layers", f"those of {count}")


@dataclass(frozen=True)
class _Step:
    """A step of Repeat's loop, which calls the layer; equal for equal layers, so that JAX compiles the loop once."""

    layer: Layer = field(compare=False)
    loop_key: Hashable

    def __call__(
        self, x: PyTree, params: Params, key: jax.Array | None = None, *, options: Options = Tree()
    ) -> tuple[PyTree, dict[str, PyTree]]:
        y = self.layer(params, x, **_with_key(options, key))
        _check_output(x, y)
        return like_placed(y, x), {}


@dataclass(frozen=True)
class _UpdatingStep:
    """A step of Repeat's loop in training, which also returns the leaves that have new values: running statistics."""

    layer: Layer = field(compare=False)
    loop_key: Hashable

    def __call__(
        self, x: PyTree, params: Params, key: jax.Array | None = None, *, options: Options = Tree()
    ) -> tuple[PyTree, dict[str, PyTree]]:
        y, new = self.layer.updated(params, x, **_with_key(options, key))
        _check_output(x, y)
        old = dict(items(params))
        # By identity, as no values are known inside of a loop; `updated` keeps all other leaves the same objects.
        return like_placed(y, x), {path: leaf for path, leaf in items(new) if leaf is not old[path]}


class _OutputError(LayerError):
    """Error for a step whose output is not like its input; the loop, which equal steps do not share, adds its own call."""


def _output_problem(x: PyTree, y: PyTree) -> str | None:
    """Why a step's output cannot be the next one's input; None if it can."""
    expected, got = jax.tree.map(describe, x), jax.tree.map(describe, y)
    if expected == got:
        return None
    has_same_shapes = jax.tree.map(jax.numpy.shape, x) == jax.tree.map(jax.numpy.shape, y)
    fix = "; cast the input, or give the layers dtype=, to have one dtype throughout" if has_same_shapes else ""
    return f"expected a layer whose output is like its input, {expected}, got {got}{fix}"


def _check_output(x: PyTree, y: PyTree) -> None:
    # `scan` has the same condition, but its message names neither the layer nor the path.
    problem = _output_problem(x, y)
    if problem is not None:
        raise _OutputError(problem)


def _loop_key(layer: Layer) -> Hashable:
    """The key by which the loops of equal layers share their compilation; for a layer that can change, a unique one."""
    return compile_key(layer) or object()


def _with_key(options: Options, key: jax.Array | None) -> dict[str, PyTree]:
    if key is None:
        return dict(options)
    return {**options, "key": key}
