"""Repeat, one layer many times: a stack that is scanned, or the same parameters again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from .._draw import child_key
from .._edit import items, set
from .._errors import LayerError
from .._paths import STACKED
from .._tree import Tree
from .._words import describe
from ..stacks import checkpointed, is_rolled, scan, stack
from ._branches import Lambda
from ._call import check_options, shape_after, shape_of, unfit
from ._layer import Layer, takes
from ._sequential import check_part


@dataclass(frozen=True, repr=False)
class Repeat(Layer):
    """A layer `n` times, one after the other, each with parameters of its own, kept as a stack and scanned.

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

    It is compiled in the time of one layer. Parameters that are not stacked, "0", "1", ..., run too, with the same result;
    `scan=False` declares them so. Keys, and so dropout, are the same in both forms. Groups of different layers are
    a layer too: `Repeat(Sequential(local, local, globally), 8)`.

    Args:
        layer: what is repeated; its output is of the shape and dtype of its input.
        n: how many times.
        shared: the same parameters each time, which are then the layer's own, without `:` (ALBERT, Lan et al. 2020).
        scan: whether the parameters are declared as a stack.
        remat: compute the inside of each layer again in the backward pass; True, or a `jax.checkpoint_policies`.
        unroll: how many layers are compiled in a row; True for all.

    Raises:
        LayerError: a layer whose output is not like its input, parameters of another number of layers, or `updated`
            where they are shared.
    """

    is_loop = True
    layer: Any
    n: int
    shared: bool = False
    scan: bool = True
    remat: bool | Callable[..., bool] = False
    unroll: int | bool = 1

    def parts(self) -> Any:
        return iter([("" if self.shared else STACKED, self.layer)])

    def spec(self, x: Any) -> Tree:
        x = shape_of(x)
        try:
            own = self.layer.spec(x)
            y = shape_after(self.layer, "layer", own, x)
        except LayerError as error:
            raise error if self.shared else error.inside(STACKED) from None
        like, got = jax.tree.map(describe, x), jax.tree.map(describe, y)
        if like != got:
            raise unfit(self, f"a layer whose output is like its input, {like}", f"{got}")
        if self.shared or not len(own):
            return own
        layers = Tree({str(at): own for at in range(self.n)})
        return stack(layers, "") if self.scan else layers

    def __call__(self, params: Any, x: Any, *, key: Any = None, train: bool = False, **options: Any) -> Any:
        check_options(self, options)
        options |= {"train": True} if train and takes(self.layer, "train") else {}
        return self._run(_Body(self.layer, False), options, params, x, key)[0]

    def updated(self, params: Any, x: Any, *, key: Any = None, **options: Any) -> tuple[Any, Any]:
        check_options(self, options)
        if self.shared:
            raise LayerError(f"{self!r}: running statistics of a layer that is used {self.n} times are not defined")
        y, new = self._run(_Body(self.layer, True), options, params, x, key)
        for path, values in new.items():  # a leaf of each layer, stacked
            if STACKED in params:
                params = set(params, f"{STACKED}/{path}", values)
            else:
                for at in range(self.n):
                    params = set(params, f"{at}/{path}", values[at])
        return y, params

    def _run(self, body: Any, options: dict[str, Any], params: Any, x: Any, key: Any) -> tuple[Any, dict[str, Any]]:
        """The output, and what else the layers give, stacked."""
        keys = None
        if key is not None and (body.updating or takes(self.layer, "key")):
            keys = jax.numpy.stack([child_key(key, at) for at in range(self.n)])
        if options:
            body = partial(body, options=options)
        nothing = isinstance(params, Mapping) and not len(params)  # to stack
        own = not self.shared and not nothing
        if own:
            self._count(params)
        try:
            if own:
                return scan(body, x, params, keys, remat=self.remat, unroll=self.unroll)
            step = checkpointed(body, self.remat, is_rolled(self.unroll))
            return jax.lax.scan(lambda x, key: step(x, params, key), x, keys, self.n, unroll=self.unroll)
        except LayerError as error:
            raise error if self.shared else error.inside(STACKED) from None

    def _count(self, params: Any) -> None:
        there = [*params] if hasattr(params, "keys") else []
        if there == [STACKED]:
            leaf = next(iter(jax.tree.leaves(params)), None)
            count = self.n if leaf is None else leaf.shape[0]
        else:
            count = len(there)
        if count != self.n:
            raise unfit(self, f"the parameters of {self.n} layers", f"those of {count}" if there else describe(params))

    def __post_init__(self) -> None:
        check_part("Repeat", self.layer)
        if not hasattr(self.layer, "spec"):
            object.__setattr__(self, "layer", Lambda(self.layer))
        if not isinstance(self.n, int) or self.n < 1:
            raise LayerError(f"Repeat: expected a number of layers of at least 1, got {self.n!r}")


@dataclass(frozen=True)
class _Body:
    """What one layer does, as `scan` calls it; equal for equal layers, so that JAX compiles it once."""

    layer: Any
    updating: bool
    """Whether the leaves that the layer gives new values come out too."""

    def __call__(
        self, x: Any, own: Any, key: Any = None, *, options: Mapping[str, Any] = Tree()
    ) -> tuple[Any, dict[str, Any]]:
        options = {**options, **({} if key is None else {"key": key})}
        if not self.updating:
            return self.layer(own, x, **options), {}
        y, new = self.layer.updated(own, x, **options)
        old = dict(items(own))
        return y, {path: leaf for path, leaf in items(new) if leaf is not old[path]}
