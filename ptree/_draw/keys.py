"""Keys: for each path its own PRNG key, made from the root key and the path alone.

From the root key, `fold_in` the hash of each segment in turn: the first 64 bits of its SHA-256 as two
big-endian words. This is version 1 and never changes. So a subtree draws the same values alone as inside
a larger tree, and adding a layer changes no other value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._edit import leaves, replace_leaves
from .._errors import InitError
from .._paths import STACKED, split
from .._words import describe
from .threefry import threefry


def keys(tree: Any, key: Any) -> Any:
    """For each leaf its own key, in a tree of the same structure.

    >>> from ptree import Tree
    >>> tree = keys(Tree({"enc": {"kernel": 0, "bias": 0}}), jax.random.key(0))
    >>> bool(tree["enc/kernel"] == child_key(jax.random.key(0), "enc/kernel"))
    True

    A leaf in a stack has an array of keys, one for each layer. Typed keys give typed keys, raw ones (`jax.random.PRNGKey`) raw ones, of the same implementation.

    Raises:
        InitError: the key is not a JAX PRNG key.
    """
    layers = {path: layers_of_leaf(path, leaf) for path, leaf in leaves(tree)}
    rows, impl = layer_keys(key, layers)
    made = {
        path: _of_kind(key, own.reshape(*layers[path], -1) if layers[path] else own[0], impl)
        for path, own in rows.items()
    }
    return replace_leaves(tree, made)


def child_key(key: Any, path: str | int) -> Any:
    """The key for what is at a path: `init(spec, key)[path]` is `init(spec[path], child_key(key, path))`.

    >>> key = jax.random.key(0)
    >>> bool(child_key(key, "enc/bias") == child_key(child_key(key, "enc"), "bias"))
    True

    Raises:
        InitError: the key is not a JAX PRNG key.
        PathError: the path is malformed.
    """
    data, impl = path_keys(key, ["/".join(split(path))])
    return _of_kind(key, data[0], impl)


def _of_kind(key: Any, row: Any, impl: str) -> Any:
    """A row of words as the kind of key that was given: typed or raw."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(row, impl=impl) if typed else jnp.asarray(row)


def layers_of_leaf(path: str, leaf: Any) -> tuple[int, ...]:
    """How many layers the stacks on the way to a leaf have: its first axes."""
    depth = path.split("/").count(STACKED)
    return tuple(getattr(leaf, "shape", ())[:depth])


def layer_keys(key: Any, layers: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Any], str]:
    """For each path the keys of its layers as rows of words, one row where it is in no stack."""
    numbered: list[str] = []
    ends = [0]
    for path, sizes in layers.items():
        parts = path.split(STACKED) if sizes else [path]
        for at in np.ndindex(*sizes):
            numbered.append("".join(map("".join, zip_longest(parts, map(str, at), fillvalue=""))))
        ends.append(len(numbered))
    data, impl = path_keys(key, numbered)
    return {path: data[a:b] for path, a, b in zip(layers, ends, ends[1:], strict=False)}, impl


def path_keys(key: Any, paths: Sequence[str]) -> tuple[Any, str]:
    """The keys of these paths as rows of words (NumPy's, outside of `jit`), and their implementation."""
    data, impl = _words_of(key)
    segments = [split(path) for path in paths]
    depth = max(map(len, segments), default=0)
    words = np.zeros((depth, len(paths), 3), np.uint32)  # two words of hash, and whether there is a segment
    for at, path in enumerate(segments):
        for level, segment in enumerate(path):
            words[level, at] = *_hash(segment), 1
    if isinstance(data, Tracer):
        return _fold(data, words, impl), impl
    if impl == "threefry2x32":
        return _fold_on_host(np.asarray(data), words), impl
    return np.asarray(_fold(data, words, impl)), impl


def _words_of(key: Any) -> tuple[Any, str]:
    """A typed or raw key as its words, and the name of its implementation."""
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ():
        return jax.random.key_data(key), str(jax.random.key_impl(key))
    if hasattr(key, "dtype") and key.dtype == np.uint32 and len(key.shape) == 1:
        default = str(jax.config.jax_default_prng_impl)  # pyright: ignore[reportAttributeAccessIssue]
        for impl in (default, "threefry2x32", "rbg"):  # a raw key does not say; its length does
            if _length(impl) == key.shape[0]:
                return jnp.asarray(key), impl
    hint = f"jax.random.key({key})" if isinstance(key, int) and not isinstance(key, bool) else "jax.random.key(seed)"
    raise InitError(f"not a PRNG key: {describe(key)}; use {hint}")


@lru_cache
def _length(impl: str) -> int:
    """How many words a key of this implementation has."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl))).shape[0]


@lru_cache(maxsize=1 << 16)
def _hash(segment: str) -> tuple[int, int]:
    from hashlib import sha256

    digest = sha256(segment.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")


def _fold_on_host(data: Any, words: Any) -> Any:
    """What `_fold` does for JAX's default generator, with nothing to compile."""
    a, b = (np.full(words.shape[1], word) for word in data)
    for level in words:
        c, d = threefry(*threefry(a, b, level[:, 0]), level[:, 1])
        a, b = np.where(level[:, 2], c, a), np.where(level[:, 2], d, b)
    return np.stack([a, b], axis=1)


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
