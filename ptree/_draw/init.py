"""Param, a parameter that is declared but not drawn yet, and what makes arrays of a tree of them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._edit import Rules, Selector, assign, choose, differences, leaves, read_or, replace_leaves, structure_error
from .._errors import InitError, PathError, PatternError
from .._paths import join, split
from .._tree import MISSING, Tree
from .._words import describe, lines, listed, name_of, quoted
from .keys import layers_of_leaf
from .programs import Initializer, Job, drawn, not_an_initializer
from .shardings import Shardings, constrained, placement, shardings_for


@dataclass(frozen=True, repr=False)
class Param:
    """A parameter that is declared but not drawn yet: shape, dtype and initialiser.

    >>> Param((4, 8))
    Param(f32[4,8])
    >>> from ptree import initializers as I
    >>> Param((8,), "bfloat16", init=I.zeros, trainable=False)
    Param(bf16[8], init=zeros, trainable=False)

    A tree of these is a *spec*. Without an initialiser of its own, a rule must give one to `init`. What is
    not `trainable` is drawn and saved like the rest; `ptree.mask(spec, lambda path, leaf: leaf.trainable)` is the mask.

    Raises:
        InitError: a shape that is not a tuple of whole numbers of at least 0, or an unknown dtype.
    """

    shape: tuple[int, ...]
    dtype: Any = jnp.float32
    init: Initializer | None = None
    trainable: bool = True

    __module__ = "ptree"

    def __post_init__(self) -> None:
        given = self.shape if isinstance(self.shape, (tuple, list)) else (self.shape,)
        try:
            shape = (-1,) if any(isinstance(size, bool) for size in given) else tuple(map(operator.index, given))
        except TypeError:
            shape = (-1,)
        if any(size < 0 for size in shape):
            raise InitError(f"bad shape {self.shape!r}: a shape is a tuple of whole numbers of at least 0")
        try:
            dtype = jnp.dtype(self.dtype)
            if self.dtype is None or not (jnp.issubdtype(dtype, np.number) or dtype.kind == "b"):
                raise TypeError
        except TypeError:
            raise InitError(f"bad dtype {self.dtype!r}: use jnp.float32, 'bfloat16' or the like") from None
        if not isinstance(self.trainable, bool):
            raise InitError(f"trainable is True or False, got {describe(self.trainable)}")
        if self.init is not None and not callable(self.init):
            raise InitError(not_an_initializer(self.init))
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", dtype)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=object))

    def __repr__(self) -> str:
        init = "" if self.init is None else f", init={name_of(self.init)}"
        return f"Param({describe(self)}{init}{'' if self.trainable else ', trainable=False'})"


def init(
    spec: Any,
    key: Any,
    rules: Rules | None = None,
    *,
    strict: bool = True,
    shardings: Shardings | None = None,
    mesh: Any = None,
) -> Tree:
    """Draw every parameter of a spec.

    >>> from ptree import initializers as I
    >>> spec = Tree({"enc": {"kernel": Param((4, 8), init=I.normal(0.01)), "bias": Param((8,))}})
    >>> init(spec, jax.random.key(0), {"**/bias": I.zeros})
    Tree(
      enc/kernel  f32[4,8]
      enc/bias    f32[8]
    )

    A rule overrides what the spec declares. Leaves of the spec that are arrays already stay as they are,
    the same objects; ties stay. The value at a path depends on the key and the path, not on what else is in
    the spec, nor on the shardings: a spec can be drawn piece by piece, `init(select(spec, piece), key)`.

    An initialiser must be pure, as all that JAX compiles: it is run once for each shape and dtype, and what it
    did then serves for the rest of the process. One that draws from `numpy.random`, or reads what changes later,
    gives every leaf of one shape the same values; initialisers that are equal are one. Works under
    `jax.eval_shape`, and inside `jax.jit`, where XLA may round the last bit in another way.

    Args:
        spec: a Tree of `Param`, or a mapping that becomes one. `jax.ShapeDtypeStruct` leaves need a rule.
        key: `jax.random.key(seed)`, or a raw `jax.random.PRNGKey(seed)`.
        rules: selector -> initialiser, first match wins.
        strict: whether a rule that takes no leaf is an error.
        shardings: where the parameters are to live: a `jax.sharding.Sharding` or `PartitionSpec` for all, a
            tree of them, or rules selector -> one. Each shard is drawn where it lives.
        mesh: the mesh of the PartitionSpecs; by default that of `jax.set_mesh`.

    Raises:
        PatternError: a rule that takes no leaf, a parameter without a sharding.
        InitError: parameters without an initialiser, or one that fails, or that returns NaN or another shape
            or dtype; a sharding that does not fit its parameter.
    """
    spec = Tree(spec)
    chosen = assign(spec, rules, strict) if rules else {}
    wanted: dict[str, Any] = {}
    undeclared: list[str] = []
    known = dict(leaves(spec))
    for path, leaf in known.items():
        initializer = chosen.get(path, getattr(leaf, "init", None))
        if initializer is not None:
            wanted[path] = initializer
        elif not hasattr(leaf, "__array__"):
            undeclared.append(path)
    if undeclared:
        raise InitError(
            f"no initialiser for {listed(undeclared)}: give Param(..., init=...), or a rule such as"
            " {'**/bias': initializers.zeros}"
        )
    if shardings is not None:
        placed = shardings_for(spec, shardings, mesh)
    elif mesh is not None:
        raise InitError("mesh= is that of shardings=, which are not given")
    else:  # a ShapeDtypeStruct may say where it is to live
        placed = {path: where for path in wanted if (where := placement(known[path])) is not None}
    new = drawn(_jobs(spec, known, wanted, placed), key)
    inside_jit = any(isinstance(value, Tracer) for value in new.values())
    for path, leaf in known.items():
        if path in placed and path not in new:
            new[path] = (constrained if inside_jit else jax.device_put)(leaf, placed[path])
    return replace_leaves(spec, new)


def reinit(params: Any, key: Any, rules: Rules | Selector, *, spec: Any = None, strict: bool = True) -> Any:
    """Draw again the leaves that the rules match; all others stay the same objects.

    >>> from ptree import initializers as I
    >>> spec = Tree({"enc": {"kernel": Param((2, 2), init=I.normal(1.0)), "bias": Param((2,), init=I.zeros)}})
    >>> params = init(spec, jax.random.key(0))
    >>> reinit(params, jax.random.key(1), {"**/bias": I.constant(3)})["enc/bias"]
    Array([3., 3.], dtype=float32)
    >>> again = reinit(params, jax.random.key(0), "enc", spec=spec)      # as it was declared
    >>> bool((again["enc/kernel"] == params["enc/kernel"]).all())
    True

    Works on any pytree of arrays, from their shapes; dtypes, ties, containers and shardings stay (inside of
    `jit` those of meshes with explicit axes, as JAX knows no others there). A leaf without elements is kept.

    Args:
        params: any pytree of arrays.
        key: as for `init`; the same key draws what `init` drew.
        rules: selector -> initialiser; or with `spec` a selector alone.
        spec: what the parameters were declared as, for a selector alone.
        strict: whether a rule that takes no leaf is an error.

    Raises:
        PatternError: a rule that takes no leaf.
        PathError: a selected leaf that the spec does not have.
        StructureError: a selected leaf of another shape or dtype than in the spec.
        InitError: a leaf that is no array, or an initialiser that fails or returns NaN or another shape or dtype.
    """
    tree = dict(leaves(params))
    if isinstance(rules, Mapping):
        chosen = assign(params, rules, strict)
    elif spec is None:
        raise PatternError(
            "reinit takes rules, selector -> initialiser; to draw what a selector matches by what was declared, give spec="
        )
    else:
        chosen = _declared(dict(choose(params, rules)), spec)
    empty = {path for path in chosen if 0 in getattr(tree[path], "shape", ())}
    chosen = {path: initializer for path, initializer in chosen.items() if path not in empty}
    placed = {path: sharding for path in chosen if (sharding := placement(tree[path])) is not None}
    return replace_leaves(params, drawn(_jobs(params, tree, chosen, placed), key))


def _declared(selected: Mapping[str, Any], spec: Any) -> dict[str, Any]:
    """Path -> the initialiser that the spec declares for it."""
    there = {path: read_or(spec, split(path), MISSING) for path in selected}
    lost = [path for path, leaf in there.items() if leaf is MISSING]
    if lost:
        raise PathError(f"the spec has no {listed(lost)}")
    differ = differences(there, selected)
    if differ:
        raise structure_error(
            "cannot draw by the spec", differ, there, selected, sides=(" in the spec", " in the tree")
        )
    undeclared = [path for path, leaf in there.items() if getattr(leaf, "init", None) is None]
    if undeclared:
        raise InitError(f"the spec declares no initialiser for {listed(undeclared)}")
    return {path: leaf.init for path, leaf in there.items()}


def _jobs(tree: Any, known: Mapping[str, Any], chosen: Mapping[str, Any], placed: Mapping[str, Any]) -> dict[str, Job]:
    shapeless = [path for path in chosen if not (hasattr(known[path], "shape") and hasattr(known[path], "dtype"))]
    if shapeless:
        raise InitError(
            lines([f"cannot draw {quoted(path)}: {describe(known[path])} has no shape and dtype" for path in shapeless])
        )
    jobs: dict[str, Job] = {}
    for path, initializer in chosen.items():
        leaf = known[path]
        try:
            layers = layers_of_leaf(path, leaf)
            shape = tuple(leaf.shape[len(layers) :])
            jobs[path] = Job(_fitted(tree, path, initializer), shape, leaf.dtype, placed.get(path), layers)
        except InitError as error:
            raise InitError(f"cannot draw {quoted(path)}: {error}") from None
    return jobs


def _fitted(tree: Any, path: str, initializer: Any) -> Any:
    """A preset on a bias draws what its framework draws beside the kernel that is there."""
    above, _, name = path.rpartition("/")
    if hasattr(initializer, "for_bias") and name in ("bias", "b"):
        for kernel in ("kernel", "weight", "w"):
            found = read_or(tree, split(join(above, kernel)), MISSING)
            shape = tuple(getattr(found, "shape", ())[len(layers_of_leaf(path, found)) :])
            if len(shape) > 1:
                return initializer.for_bias(shape)
    return initializer


def abstract(tree: Any) -> Any:
    """The tree with a `jax.ShapeDtypeStruct` for each parameter or array; nothing is allocated.

    >>> abstract(Tree({"bias": Param((8,))}))["bias"]
    ShapeDtypeStruct(shape=(8,), dtype=float32)

    Shardings are kept. For a layer give its spec, `abstract(layer.spec(x))`; for a function such as Flax's `model.init`
    there is `jax.eval_shape`.
    """
    shapes = {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement(leaf))
        for path, leaf in leaves(tree)
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
    }
    return replace_leaves(tree, shapes)
