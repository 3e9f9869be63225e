"""PRNG keys by path: derive the key words of a leaf, or of each layer of a stack, by hashing segments into the root key;
refuse swapped keys.

From the root key, `fold_in` the hash of each segment in turn: the first 64 bits of its SHA-256 as two
big-endian words. This is version 1 and never changes. So a subtree draws the same values alone as inside
a larger tree, and adding a layer changes no other value.

Where `fold_in` does not hash the key together with the number, the order of the segments would not count, and
`a/b` would have the key of `b/a`. Keys of `unsafe_rbg`, whose `fold_in` is an exclusive or, are therefore derived with
that of `rbg`; an implementation that is not JAX's gets numbers that are hashed with the words of the key first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._edit import leaves, replace_leaves
from .._errors import InitError, PathError
from .._paths import STACKED, split
from .._tree import PyTree
from .._words import describe, quoted
from ..stacks import stack_sizes
from .threefry import Implementation, threefry

Words: TypeAlias = np.ndarray | jax.Array
"""The uint32 words of keys, as an array of NumPy, or of JAX inside of `jit`."""


class KeyRows(NamedTuple):
    """PRNG keys as rows of key words, and their implementation, such as 'threefry2x32'."""

    words: Words
    impl: Implementation


class LayerKeys(NamedTuple):
    """The PRNG keys of each leaf's layers, path -> rows of key words, and their implementation."""

    words: dict[str, Words]
    impl: Implementation

    @property
    def inside_jit(self) -> bool:
        """Whether they are computed in a function that JAX is tracing."""
        return any(isinstance(words, Tracer) for words in self.words.values())


# ---------------------------------------------------------------------- keys for people


def keys(tree: PyTree, key: jax.Array) -> PyTree:
    """Derive the PRNG key of each leaf, in a tree of the same structure.

    >>> from ptree import Tree
    >>> tree = keys(Tree({"enc": {"kernel": 0, "bias": 0}}), jax.random.key(0))
    >>> bool(tree["enc/kernel"] == child_key(jax.random.key(0), "enc/kernel"))
    True

    A leaf in a stack has an array of keys, one for each layer. Typed keys give typed keys, raw ones
    (`jax.random.PRNGKey`) raw ones, of the same implementation.

    Args:
        tree: any pytree.
        key: `jax.random.key(seed)`, or a raw `jax.random.PRNGKey(seed)`.

    Raises:
        InitError: the key is not a JAX PRNG key, or the arguments are swapped.
    """
    refuse_swapped(tree, key, "keys(tree, key)")
    layers = {path: stack_sizes(path, leaf) for path, leaf in leaves(tree)}
    rows, impl = layer_keys(key, layers)
    made: dict[str, jax.Array] = {}
    for path, sizes in layers.items():
        words = rows[path].reshape(*sizes, *rows[path].shape[1:])
        made[path] = _typed_like(key, words, impl)
    return replace_leaves(tree, made)


def child_key(key: jax.Array, path: str | int) -> jax.Array:
    """Derive the key of the node or leaf at a path: `init(spec, key)[path]` is `init(spec[path], child_key(key, path))`.

    >>> key = jax.random.key(0)
    >>> bool(child_key(key, "enc/bias") == child_key(child_key(key, "enc"), "bias"))
    True

    Args:
        key: `jax.random.key(seed)`, or a raw `jax.random.PRNGKey(seed)`.
        path: of a node or leaf; an int is one name.

    Raises:
        InitError: the key is not a JAX PRNG key, or the arguments are swapped.
        PathError: the path is malformed.
    """
    refuse_swapped(path, key, "child_key(key, path)", order=(key, path))
    # without axes it is an index such as np.int64(3)
    if isinstance(path, (jax.Array, np.ndarray)) and path.ndim > 0:
        raise PathError(f"no path can be an array, {describe(path)}: a path is a string such as 'blocks/3', or an int")
    rows, impl = path_keys(key, ["/".join(split(path))])
    return _typed_like(key, rows[0], impl)


def _typed_like(key: jax.Array, words: Words, impl: Implementation) -> jax.Array:
    """Make keys of key words, typed or raw (as of `jax.random.PRNGKey`) like the root key."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jnp.asarray(words)
    return jax.random.wrap_key_data(words, impl=impl)  # pyright: ignore[reportArgumentType]  it takes NumPy's too


def refuse_swapped(other: object, key: object, call: str, order: tuple[object, ...] | None = None) -> None:
    """Raise an InitError if the PRNG key is swapped with another argument; it shows no values of arrays.

    Args:
        other: the argument that a key is easily swapped with.
        key: what was given as the key.
        call: the call with its arguments in the right order.
        order: the arguments in the order in which they were given; by default `other`, then `key`.
    """
    if implementation(other) is None or implementation(key) is not None:
        return
    function = call.partition("(")[0]
    given = ", ".join(describe(argument) for argument in order or (other, key))
    raise InitError(f"swapped arguments: got {function}({given}); the order is {call}")


# ---------------------------------------------------------------------- keys for drawing


def layer_keys(key: jax.Array, layers: Mapping[str, tuple[int, ...]]) -> LayerKeys:
    """Derive the keys of the layers of each path, as rows of key words; one row for a leaf in no stack.

    Args:
        key: the root key.
        layers: for each path the number of layers of each stack on the way to it.
    """
    names = {path: layer_paths(path, sizes) for path, sizes in layers.items()}
    # all in one call: a row costs little beside starting a program
    words, impl = path_keys(key, [name for several in names.values() for name in several])
    rows: dict[str, Words] = {}
    start = 0
    for path, several in names.items():
        rows[path] = words[start : start + len(several)]
        start += len(several)
    return LayerKeys(rows, impl)


def layer_paths(path: str, sizes: Sequence[int]) -> list[str]:
    """List the path of each layer of a leaf in a stack, from which the layer's key is derived.

    >>> layer_paths("blocks/:/w", (2,)), layer_paths("head/w", ())
    (['blocks/0/w', 'blocks/1/w'], ['head/w'])
    """
    segments = path.split("/")
    stacks = [at for at, segment in enumerate(segments) if segment == STACKED]
    paths: list[str] = []
    for index in np.ndindex(*sizes):
        numbered = list(segments)
        for at, layer in zip(stacks, index, strict=False):  # a leaf without a shape has no sizes
            numbered[at] = str(layer)
        paths.append("/".join(numbered))
    return paths


def path_keys(key: jax.Array, paths: Sequence[str]) -> KeyRows:
    """Derive the keys of these paths, one row of key words each."""
    data, impl = _words_of(key)
    segments = [split(path) for path in paths]
    depth = max(map(len, segments), default=0)
    words = np.zeros((depth, len(paths), 3), np.uint32)  # two words of hash, and whether there is a segment
    for at, path in enumerate(segments):
        for level, segment in enumerate(path):
            words[level, at] = *_hash(segment), 1
    if isinstance(data, Tracer):
        return KeyRows(_fold(data, jnp.asarray(words), impl), impl)
    if impl == "threefry2x32":  # fast path for JAX's default generator: there is nothing to compile
        return KeyRows(_fold_on_host(np.asarray(data), words), impl)
    return KeyRows(np.asarray(_fold(data, jnp.asarray(words), impl)), impl)


def _words_of(key: jax.Array) -> KeyRows:
    """Read the key words of a single PRNG key, typed or raw."""
    impl = implementation(key)
    if impl is None:
        is_seed = isinstance(key, int) and not isinstance(key, bool)
        seed = quoted(key) if is_seed else "seed"
        raise InitError(f"not a PRNG key: {describe(key)}; use jax.random.key({seed})")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return KeyRows(jax.random.key_data(key), impl)
    return KeyRows(jnp.asarray(key), impl)


def implementation(key: object) -> Implementation | None:
    """The implementation of a single PRNG key, typed or raw, by its name if JAX knows one; None for everything else."""
    if not isinstance(key, (jax.Array, np.ndarray)):
        return None
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        is_single = key.ndim == 0
        return jax.random.key_impl(key) if is_single else None
    is_raw = key.dtype == np.uint32 and key.ndim == 1
    return _implementation_with(key.shape[0]) if is_raw else None


def _implementation_with(length: int) -> str | None:
    """Guess the implementation of a raw PRNG key by its number of key words: a raw key does not say which it is."""
    default = str(jax.config.jax_default_prng_impl)  # pyright: ignore[reportAttributeAccessIssue]
    for impl in (default, "threefry2x32", "rbg"):  # the default first, as JAX does with raw keys
        if _length(impl) == length:
            return impl
    return None


@lru_cache
def _length(impl: str) -> int:
    """How many key words a PRNG key of this implementation has."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape[0]


@lru_cache(maxsize=1 << 16)
def _hash(segment: str) -> tuple[int, int]:
    """Hash a segment of a path: the first 64 bits of its SHA-256, as two big-endian words."""
    from hashlib import sha256

    # surrogatepass: a name that is not valid Unicode can be drawn too, though no file can hold it
    digest = sha256(segment.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def _fold_on_host(data: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Derive key words as `_fold` does, for JAX's default generator, with NumPy: there is nothing to compile."""
    a, b = (np.full(words.shape[1], word) for word in data)
    for level in words:
        c, d = threefry(*threefry(a, b, level[:, 0]), level[:, 1])
        has_segment = level[:, 2]
        a, b = np.where(has_segment, c, a), np.where(has_segment, d, b)
    return np.stack([a, b], axis=1)


_HASHING = frozenset({"threefry2x32", "threefry4x32", "philox2x32", "philox4x32", "rbg"})
"""JAX's implementations whose `fold_in` hashes the key together with the number."""


@partial(jax.jit, static_argnums=2)
def _fold(data: jax.Array, words: jax.Array, impl: Implementation) -> jax.Array:
    """Derive one row of key words for each path: all paths go down one level at a time."""
    if impl == "unsafe_rbg":  # its keys have the same words as those of rbg
        impl = "rbg"

    def child(key_words: jax.Array, level: jax.Array) -> jax.Array:
        first, second, has_segment = level
        if impl not in _HASHING:
            first, second = _hashed_with(key_words, first, second)
        key = jax.random.wrap_key_data(key_words, impl=impl)
        folded = jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, first), second))
        return jnp.where(has_segment == 1, folded, key_words)

    def children(rows: jax.Array, level: jax.Array) -> jax.Array:
        if impl in _HASHING:
            return jax.vmap(child)(rows, level)
        # vmap may change what another generator draws: then a key would depend on how many others are made with it
        return jax.lax.map(lambda pair: child(*pair), (rows, level))

    rows = jnp.broadcast_to(data, (words.shape[1], *data.shape))
    return jax.lax.scan(lambda rows, level: (children(rows, level), None), rows, words)[0]


def _hashed_with(key_words: jax.Array, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hash the two words of a segment together with the words of a key."""
    for word in key_words.ravel():
        first, second = threefry(first, second, word)
    return first, second
