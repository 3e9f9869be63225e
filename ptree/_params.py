"""Param, a parameter that is declared but not drawn yet, and what makes arrays of it.

The key of a leaf depends on its path alone. From the root key, `fold_in` the hash of each segment in
turn: the first 64 bits of its SHA-256 as two big-endian words. This is version 1 and never changes. So a
subtree draws the same values alone as inside a larger tree, and adding a layer changes no other value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import isfunction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._access import replace_leaves
from ._errors import InitError, lines, listed
from ._leaf import describe, name_of, short_dtype
from ._paths import split
from ._rules import Rules, assign
from ._select import leaves
from ._tree import Tree

Initializer = Callable[[Any, tuple[int, ...], Any], Any]
"""`(key, shape, dtype) -> array`, a pure function: it is traced once for all leaves of one shape and dtype."""


@dataclass(frozen=True, repr=False)
class Param:
    """A parameter that is declared but not drawn yet: shape, dtype and initialiser.

    >>> Param((4, 8))
    Param(f32[4,8])
    >>> from ptree import initializers as I
    >>> Param((8,), "bfloat16", init=I.zeros, trainable=False)
    Param(bf16[8], init=zeros, trainable=False)

    A tree of these is a *spec*. Without an initialiser of its own, a rule must give one to `init`. What is
    not `trainable` is drawn and saved like the rest; `ptree.trainable` tells an optimiser to leave it alone.

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
            shape = tuple(map(operator.index, given))
        except TypeError:
            shape = (-1,)
        if any(size < 0 for size in shape):
            raise InitError(f"bad shape {self.shape!r}: a shape is a tuple of whole numbers of at least 0")
        try:
            dtype = jnp.dtype(self.dtype)
        except TypeError:
            raise InitError(f"bad dtype {self.dtype!r}: use jnp.float32, 'bfloat16' or the like") from None
        if self.init is not None and not callable(self.init):
            raise InitError(_not_an_initializer(self.init))
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


def _not_an_initializer(value: Any) -> str:
    hint = f". Use initializers.constant({value!r})" if isinstance(value, (int, float)) else ""
    return f"not an initialiser: {describe(value)}; an initialiser is a function (key, shape, dtype) -> array{hint}"


# --------------------------------------------------------------------------------- init


def init(spec: Any, key: Any, rules: Rules | None = None, *, strict: bool = True) -> Tree:
    """Draw every parameter of a spec.

    >>> from ptree import initializers as I
    >>> spec = Tree({"enc": {"kernel": Param((4, 8), init=I.normal(0.01)), "bias": Param((8,))}})
    >>> init(spec, jax.random.key(0), {"**/bias": I.zeros})
    Tree(
      enc/kernel  f32[4,8]
      enc/bias    f32[8]
    )

    A rule overrides what the spec declares. Leaves of the spec that are arrays already stay as they are,
    the same objects; ties stay. An initialiser must be pure, as all that JAX compiles: one that draws from
    `numpy.random` gives every leaf of one shape the same values. Works inside `jax.jit` and under `jax.eval_shape`. The value at a path
    depends on the key and the path, not on what else is in the spec.

    Args:
        spec: a Tree of `Param`, or a mapping that becomes one. `jax.ShapeDtypeStruct` leaves need a rule.
        key: `jax.random.key(seed)`, or a raw `jax.random.PRNGKey(seed)`.
        rules: pattern -> initialiser, first match wins.
        strict: whether a rule that matches nothing is an error.

    Raises:
        PatternError: a rule that matches nothing.
        InitError: parameters without an initialiser, or one that fails or returns another shape or dtype.
    """
    spec = Tree(spec)
    chosen = assign(spec, rules, strict) if rules else {}
    jobs: dict[str, tuple[Initializer, Any]] = {}
    undeclared: list[str] = []
    for path, leaf in leaves(spec):
        initializer = chosen.get(path, getattr(leaf, "init", None))
        if initializer is not None:
            jobs[path] = initializer, leaf
        elif not hasattr(leaf, "__array__"):
            undeclared.append(path)
    if undeclared:
        raise InitError(
            f"no initialiser for {listed(undeclared)}: give Param(..., init=...), or a rule such as"
            " {'**/bias': initializers.zeros}"
        )
    return replace_leaves(spec, _drawn(jobs, key))


def reinit(params: Any, key: Any, rules: Rules, *, strict: bool = True) -> Any:
    """Draw again the leaves that the rules match; all others stay the same objects.

    >>> from ptree import initializers as I
    >>> params = Tree({"enc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}})
    >>> reinit(params, jax.random.key(0), {"**/bias": I.constant(3)})["enc/bias"]
    Array([3., 3.], dtype=float32)

    Works on any pytree of arrays; shapes, dtypes, ties and containers stay. With `strict=False` a rule may
    match nothing.

    Raises:
        PatternError: a rule that matches nothing.
        InitError: a leaf that is no array, or an initialiser that fails or returns another shape or dtype.
    """
    chosen, tree = assign(params, rules, strict), dict(leaves(params))
    return replace_leaves(params, _drawn({path: (chosen[path], tree[path]) for path in chosen}, key))


def _drawn(jobs: Mapping[str, tuple[Initializer, Any]], key: Any) -> dict[str, Any]:
    """Path -> array; one compiled draw for each distinct (initialiser, shape, dtype)."""
    problems = {path: _problem(initializer, leaf) for path, (initializer, leaf) in jobs.items()}
    if any(problems.values()):
        raise InitError(lines([f"cannot draw {path!r}: {why}" for path, why in problems.items() if why]))
    data, impl = _keys(key, list(jobs))
    return {
        path: _draw_one(path, initializer, tuple(leaf.shape), leaf.dtype, data[at], impl)
        for at, (path, (initializer, leaf)) in enumerate(jobs.items())
    }


def _problem(initializer: Any, leaf: Any) -> str:
    """Why a leaf cannot be drawn, as far as can be known without trying."""
    if not callable(initializer):
        return _not_an_initializer(initializer)
    if isfunction(initializer) and initializer.__module__ == "ptree.initializers":
        return f"{initializer.__name__} is called first, with its options: initializers.{initializer.__name__}()"
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return f"{describe(leaf)} has no shape and dtype"
    if jnp.issubdtype(leaf.dtype, np.number) and jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        return f"{describe(leaf)} is of a 64-bit type; call jax.config.update('jax_enable_x64', True) first"
    return ""


def _draw_one(path: str, initializer: Any, shape: tuple[int, ...], dtype: Any, data: Any, impl: str | None) -> Any:
    what = f"cannot draw {path!r}, {short_dtype(dtype)}[{','.join(map(str, shape))}], with {name_of(initializer)}"
    facts = initializer, shape, dtype, impl, data
    try:
        try:
            compiled = isinstance(initializer, Hashable) and not getattr(initializer, "holds_array", False)
            value = _compiled_draw(*facts) if compiled else _draw(*facts)
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            value = _draw(*facts)  # Python code that looks at values
    except _MisfitError as misfit:
        raise InitError(f"{what}: {misfit}") from None
    except Exception as error:
        raise InitError(f"{what}: {error}") from error
    return value


class _MisfitError(Exception):
    """What an initialiser returned does not fit; the caller knows the path."""


def _draw(initializer: Any, shape: tuple[int, ...], dtype: Any, impl: str | None, data: Any) -> Any:
    value = initializer(data if impl is None else jax.random.wrap_key_data(data, impl=impl), shape, dtype)
    if callable(value):
        raise _MisfitError(f"it returned a function; call it first: {name_of(initializer)}()")
    value = value if hasattr(value, "dtype") else jnp.asarray(value)
    if value.shape != shape or value.dtype != dtype:
        raise _MisfitError(f"it returned {describe(value)}")
    return jax.lax.convert_element_type(value, dtype)  # a weak type would make a train step compile twice


_compiled_draw = jax.jit(_draw, static_argnums=(0, 1, 2, 3))


# --------------------------------------------------------------------------------- keys


def keys(tree: Any, key: Any) -> Any:
    """For each leaf its own key, in a tree of the same structure.

    >>> tree = keys(Tree({"enc": {"kernel": 0, "bias": 0}}), jax.random.key(0))
    >>> bool(tree["enc/kernel"] == child_key(jax.random.key(0), "enc/kernel"))
    True

    Raises:
        InitError: the key is not a JAX PRNG key.
    """
    names = [path for path, _ in leaves(tree)]
    data, impl = _keys(key, names)
    return replace_leaves(
        tree,
        {
            p: jnp.asarray(d) if impl is None else jax.random.wrap_key_data(d, impl=impl)
            for p, d in zip(names, data, strict=True)
        },
    )


def child_key(key: Any, path: str | int) -> Any:
    """The key for what is at a path: `init(spec, key)[path]` is `init(spec[path], child_key(key, path))`.

    >>> key = jax.random.key(0)
    >>> bool(child_key(key, "enc/bias") == child_key(child_key(key, "enc"), "bias"))
    True

    Raises:
        InitError: the key is not a JAX PRNG key.
        PathError: the path is malformed.
    """
    data, impl = _keys(key, ["/".join(split(path))])
    return jnp.asarray(data[0]) if impl is None else jax.random.wrap_key_data(data[0], impl=impl)


def _keys(key: Any, names: Sequence[str]) -> tuple[Any, str | None]:
    """The keys of these paths as rows of words, and how to wrap them (None for raw keys)."""
    impl: str | None = None
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        impl = str(jax.random.key_impl(key))
        typed = key
    elif hasattr(key, "dtype") and key.dtype == np.uint32 and len(key.shape) == 1:
        try:
            typed = jax.random.wrap_key_data(jnp.asarray(key))
        except TypeError as error:
            raise InitError(f"not a PRNG key of the default implementation: {describe(key)}, {error}") from None
    else:
        raise InitError(f"not a PRNG key: {describe(key)}; use jax.random.key(seed)")
    segments = [split(name) for name in names]
    depth = max(map(len, segments), default=0)
    words = np.zeros((depth, len(names), 3), np.uint32)  # two words of hash, and whether there is a segment
    for at, path in enumerate(segments):
        for level, segment in enumerate(path):
            words[level, at] = *_hash(segment), 1
    data = _fold(jax.random.key_data(typed), words, str(jax.random.key_impl(typed)))
    return (data if isinstance(data, Tracer) else np.asarray(data)), impl


@lru_cache(maxsize=1 << 16)
def _hash(segment: str) -> tuple[int, int]:
    from hashlib import sha256

    digest = sha256(segment.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


@partial(jax.jit, static_argnums=2)
def _fold(data: Any, words: Any, impl: str) -> Any:
    """One row of key words per path: all paths go down one level at a time."""

    def one_by_one(keys: Any, words: Any) -> Any:
        return jax.lax.map(lambda pair: jax.random.fold_in(*pair), (keys, words))

    # vmap changes what unsafe_rbg draws: then a key would depend on how many others are made with it
    each = one_by_one if impl == "unsafe_rbg" else jax.vmap(jax.random.fold_in)

    def down(rows: Any, level: Any) -> Any:
        keys = jax.random.wrap_key_data(rows, impl=impl)
        keys = each(each(keys, level[:, 0]), level[:, 1])
        return jnp.where(level[:, 2:] == 1, jax.random.key_data(keys), rows), None

    rows = jnp.broadcast_to(data, (words.shape[1], *data.shape))
    return jax.lax.scan(down, rows, words)[0]


# ---------------------------------------------------------------------- specs and masks


def abstract(tree: Any) -> Any:
    """The tree with a `jax.ShapeDtypeStruct` for each parameter or array; nothing is allocated.

    >>> abstract(Tree({"bias": Param((8,))}))["bias"]
    ShapeDtypeStruct(shape=(8,), dtype=float32)
    """
    return replace_leaves(
        tree,
        {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            for path, leaf in leaves(tree)
            if hasattr(leaf, "shape") and hasattr(leaf, "dtype")
        },
    )


def trainable(spec: Any) -> Any:
    """A mask: False where a `Param` was declared `trainable=False`, else True.

    >>> import optax
    >>> spec = Tree({"scale": Param((8,)), "mean": Param((8,), trainable=False)})
    >>> trainable(spec)["mean"]
    False
    >>> freezing = optax.multi_transform({True: optax.adam(1e-3), False: optax.set_to_zero()}, trainable(spec))

    Note that `optax.masked(optax.adam(1e-3), mask)` does not freeze: it adds the raw gradient to the leaves
    outside of the mask. Or keep them away from `jax.grad` too, with `ptree.partition`.

    Raises:
        InitError: a tree without any `Param`, such as drawn parameters, which no longer know.
    """
    found = leaves(spec)
    if found and not any(isinstance(leaf, Param) for _, leaf in found):
        raise InitError("the tree has no Param: what is trainable is declared in the spec, so give that")
    return replace_leaves(spec, {path: getattr(leaf, "trainable", True) for path, leaf in found})
