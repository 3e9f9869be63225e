"""Drawing: arrays made by initialisers, one compiled program for each distinct (initialiser, shape, dtype, sharding).

The programs are compiled side by side, and the largest arrays are drawn first: what a program needs
beside its result is then needed while little else is there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from inspect import isfunction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from .._errors import InitError
from .._words import describe, lines, name_of, quoted
from .keys import layer_keys
from .shardings import constrained, placement
from .threefry import fused

Initializer = Callable[[Any, tuple[int, ...], Any], Any]
"""`(key, shape, dtype) -> array`, a pure function: it is traced once for all leaves of one shape and dtype."""


@dataclass(frozen=True)
class Job:
    """What is to be drawn; leaves with equal jobs share one program."""

    initializer: Initializer
    shape: tuple[int, ...]
    dtype: Any
    sharding: Any = None
    layers: tuple[int, ...] = ()
    """How many there are of it: a leaf in stacks is drawn layer by layer, each with the key of its own path."""

    @property
    def drawn(self) -> Job:
        """What one program draws."""
        if not self.layers:
            return self
        own = self.sharding
        if isinstance(own, NamedSharding):
            own = own.update(spec=PartitionSpec(*own.spec[len(self.layers) :]))
        return replace(self, sharding=own, layers=())

    def __str__(self) -> str:
        return f"{describe(jax.ShapeDtypeStruct(self.shape, self.dtype))}, with {name_of(self.initializer)}"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


_LOOKED = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""What JAX raises where an initialiser looks at values, so that it cannot be compiled."""


def drawn(jobs: Mapping[str, Job], key: Any) -> dict[str, Any]:
    """Path -> array, each drawn with the key of its path.

    Raises:
        InitError: an initialiser that is none, that fails, or that returns NaN or another shape or dtype.
    """
    refused = {path: why for path, job in jobs.items() if (why := _refused(job))}
    if refused:
        raise InitError(lines([f"cannot draw {quoted(path)}: {why}" for path, why in refused.items()]))
    rows, impl = layer_keys(key, {path: job.layers for path, job in jobs.items()})
    if (where := placement(key)) is not None:  # what is drawn follows the key, as in JAX
        jobs = {path: replace(job, sharding=job.sharding or where) for path, job in jobs.items()}
    kinds: dict[Any, list[str]] = {}
    for path, job in sorted(jobs.items(), key=lambda item: -item[1].size):
        kinds.setdefault(job.drawn if _hashable(job.initializer) else path, []).append(path)
    groups = [(jobs[paths[0]].drawn, paths) for paths in kinds.values()]
    values: dict[str, Any] = {}
    data = next(iter(rows.values()), np.zeros((1, 2), np.uint32))
    traced = isinstance(data, Tracer)
    outside = nullcontext() if traced else jax.sharding.use_abstract_mesh(AbstractMesh((), ()))
    with outside:  # a mesh in the context would change the last bit
        for (job, paths), program in zip(groups, _programs(groups, impl, data), strict=True):
            for path in paths:
                own = [row if traced else jax.device_put(row) for row in rows[path]]
                layers = [_guarded(path, job, partial(program, row)) for row in own]
                values[path] = _stacked(layers, jobs[path]) if jobs[path].layers else layers[0]
    _refuse_nan({path: value for path, value in values.items() if not _own(jobs[path].initializer)})
    return {path: values[path] for path in jobs}


def _stacked(layers: Sequence[Any], job: Job) -> Any:
    def stack(*layers: Any) -> Any:
        return jnp.stack(layers).reshape(*job.layers, *job.shape)

    if job.sharding is None:
        return stack(*layers)
    if isinstance(layers[0], Tracer):
        return constrained(stack(*layers), job.sharding)
    return jax.jit(stack, out_shardings=job.sharding)(*layers)


def _refused(job: Job) -> str:
    """Why something cannot be drawn, as far as can be known without trying."""
    if not callable(job.initializer):
        return not_an_initializer(job.initializer)
    if isfunction(job.initializer) and str(job.initializer.__module__).startswith("ptree.initializers."):
        name = job.initializer.__name__
        return f"{name} is called first, with its options: initializers.{name}()"
    what = describe(jax.ShapeDtypeStruct(job.shape, job.dtype))
    if any(size < 0 for size in job.shape):
        return f"{what} has a negative size"
    if job.size * jnp.dtype(job.dtype).itemsize >= 1 << 62:
        return f"{what} is larger than any memory"
    if 0 in job.layers:
        return "its stack has no layers"
    if not job.size:
        return f"{what} has no elements. Give an array in its place, such as jnp.zeros({job.shape}), or leave it out"
    if jnp.issubdtype(job.dtype, np.number) and jax.dtypes.canonicalize_dtype(job.dtype) != job.dtype:
        return f"{what} is of a 64-bit type; call jax.config.update('jax_enable_x64', True) first"
    return ""


def not_an_initializer(value: Any) -> str:
    """The sentence for what is given in the place of an initialiser."""
    hint = f". Use initializers.constant({value!r})" if isinstance(value, (int, float)) else ""
    return f"not an initialiser: {describe(value)}; an initialiser is a function (key, shape, dtype) -> array{hint}"


def _own(initializer: Any) -> bool:
    """Whether it is made of ptree's initialisers alone, which make NaN only where it was asked for."""
    return getattr(initializer, "only_draws", False)


def _programs(groups: Sequence[tuple[Job, list[str]]], impl: str, data: Any) -> Iterator[Callable[[Any], Any]]:
    """For each kind of leaf what makes it of a row of key words: compiled, where it can be."""
    if isinstance(data, Tracer):  # inside of somebody's jit: a function for each kind, compiled with the rest
        yield from (partial(_traced, job, impl) for job, _ in groups)
        return
    from concurrent.futures import ThreadPoolExecutor

    programs = [_guarded(paths[0], job, partial(_program, job, impl, data[0])) for job, paths in groups]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA compiles without Python's lock
        waiting = [lowered and pool.submit(lowered.compile) for _, lowered in programs]
        for (job, paths), (program, _), compiled in zip(groups, programs, waiting, strict=True):
            if compiled is not None:
                _guarded(paths[0], job, compiled.result)
            yield program


def _program(job: Job, impl: str, row: Any) -> tuple[Callable[[Any], Any], Any]:
    """What makes the leaves of one kind, and what of it is still to be compiled, if anything."""
    fill = getattr(job.initializer, "filled", lambda *_: None)(job.shape, job.dtype)
    if fill is not None and job.sharding is None:
        return lambda _: jax.device_put(fill.copy()), None
    eager = partial(_eager, job, impl)
    if not _compilable(job.initializer):
        return eager, None
    if _own(job.initializer) and jax.default_backend() == "cpu":
        impl = fused(impl)
    jitted = _jitted(job.sharding)
    try:
        return partial(jitted, job, impl), jitted.lower(job, impl, row)
    except _LOOKED:
        return eager, None


def _hashable(initializer: Any) -> bool:
    """Whether it can be found again by its value: a dataclass that holds an array cannot."""
    try:
        hash(initializer)
        return bool(initializer == initializer)
    except (TypeError, ValueError):
        return False


def _compilable(initializer: Any) -> bool:
    return _hashable(initializer) and not getattr(initializer, "holds_array", False)


@lru_cache(maxsize=1024)
def _jitted(sharding: Any) -> Any:
    placed = {} if sharding is None else {"out_shardings": sharding}
    return jax.jit(_draw, static_argnums=(0, 1), **placed)


def _traced(job: Job, impl: str, row: Any) -> Any:
    try:
        value = (_jitted(None) if _compilable(job.initializer) else _draw)(job, impl, row)
    except _LOOKED:
        value = _draw(job, impl, row)
    return value if job.sharding is None else constrained(value, job.sharding)


def _eager(job: Job, impl: str, row: Any) -> Any:
    value = _draw(job, impl, row)
    return value if job.sharding is None else jax.device_put(value, job.sharding)


def _draw(job: Job, impl: str, row: Any) -> Any:
    value = job.initializer(jax.random.wrap_key_data(row, impl=impl), job.shape, job.dtype)
    if callable(value):
        raise _MisfitError(f"it returned a function; call it first: {name_of(job.initializer)}()")
    value = value if hasattr(value, "dtype") else jnp.asarray(value)
    if value.shape != job.shape or value.dtype != job.dtype:
        raise _MisfitError(f"it returned {describe(value)}")
    return jax.lax.convert_element_type(value, job.dtype)  # a weak type would make a train step compile twice


class _MisfitError(Exception):
    """What an initialiser returned does not fit; the caller knows the path."""


def _guarded(path: str, job: Job, make: Callable[[], Any]) -> Any:
    what = f"cannot draw {quoted(path)}, {job}"
    try:
        return make()
    except _MisfitError as misfit:
        raise InitError(f"{what}: {misfit}") from None
    except Exception as error:
        raise InitError(f"{what}: {error}") from error


def _refuse_nan(values: Mapping[str, Any]) -> None:
    """Raise where a function of the user's own made NaN; inside of `jit` nobody can know."""
    known = {p: v for p, v in values.items() if not isinstance(v, Tracer) and jnp.issubdtype(v.dtype, jnp.inexact)}
    found = jax.device_get({path: _any_nan(value) for path, value in known.items()})
    bad = [path for path, nan in found.items() if nan]
    if bad:
        raise InitError(lines([f"cannot draw {quoted(path)}: its initialiser returned NaN" for path in bad]))


@jax.jit
def _any_nan(value: Any) -> Any:
    return jnp.isnan(value).any()
