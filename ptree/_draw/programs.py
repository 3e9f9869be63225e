"""Draw leaves by compiled programs, one for each distinct job (initialiser, shape, dtype, sharding); stack drawn layers;
refuse NaN and impossible jobs.

The programs are compiled side by side, and the largest arrays are drawn first: the memory that a program needs
beside its result is then needed while few results are there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec, Sharding
from jax.typing import DTypeLike

from .._errors import InitError
from .._shardings import constrained, placement
from .._words import describe, lines, name_of, quoted
from .compilers import Kind, MisfitError, compiled
from .keys import LayerKeys, Words, layer_keys
from .param import not_an_initializer
from .threefry import Implementation, fused

if TYPE_CHECKING:  # a sixth of the time of `import ptree`, which draws nothing
    from ..initializers import Initializer

FromWords: TypeAlias = Callable[[jax.Array], jax.Array]
"""From the words of one key to the array."""


@dataclass(frozen=True)
class Job:
    """A job, a leaf that a program is to draw: initialiser, shape and dtype of one layer, sharding, and its layers in stacks."""

    initializer: Initializer
    shape: tuple[int, ...]
    dtype: DTypeLike
    sharding: Sharding | None = None
    """Of the whole leaf, with the axes of its stacks."""
    layers: tuple[int, ...] = ()
    """The sizes of the stacks. Each layer is drawn with the key of its own path."""

    def one_layer(self) -> Job:
        """The job of one layer, which is what a program draws; leaves with equal ones share a program."""
        if not self.layers:
            return self
        sharding = self.sharding
        if isinstance(sharding, NamedSharding):
            sharding = sharding.update(spec=PartitionSpec(*sharding.spec[len(self.layers) :]))
        return replace(self, sharding=sharding, layers=())

    def kind(self, impl: Implementation) -> Kind:
        """The kind of leaf that one layer is, with keys of this implementation."""
        return Kind(self.shape, jnp.dtype(self.dtype), impl, self.sharding)

    def __str__(self) -> str:
        return f"{describe(jax.ShapeDtypeStruct(self.shape, self.dtype))}, with {name_of(self.initializer)}"

    @property
    def size(self) -> int:
        """The number of elements of one layer."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Batch:
    """The leaves that one program draws, and the job of it."""

    job: Job
    paths: list[str]


@dataclass(frozen=True)
class _Program:
    """A program: a function that draws one leaf of a batch, and the part of it that XLA has to compile yet."""

    draw: FromWords
    compiled: jax.stages.Wrapped | None = None
    """The compiled function that it calls, which programs that differ only in numbers share."""
    lowered: jax.stages.Lowered | None = None


def draw(jobs: Mapping[str, Job], key: jax.Array) -> dict[str, jax.Array]:
    """Draw each job by its program, with the key of its path: path -> array.

    Raises:
        InitError: a job that cannot be done, an initialiser that fails, or that returns NaN or another shape or dtype.
    """
    _refuse_impossible(jobs)
    jobs = _near_the_key(jobs, key)
    keys = layer_keys(key, {path: job.layers for path, job in jobs.items()})
    if keys.inside_jit:
        return {path: _draw_inside_jit(path, job, keys) for path, job in jobs.items()}
    values: dict[str, jax.Array] = {}
    batches = _batches(jobs)
    with _without_mesh():
        for batch, program in zip(batches, _compiled_programs(batches, keys), strict=True):
            for path in batch.paths:
                values[path] = _draw_leaf(path, jobs[path], program, keys.words[path])
    # ptree's own initialisers make no NaN that was not asked for
    _refuse_nan({path: value for path, value in values.items() if not _is_built_in(jobs[path].initializer)})
    return {path: values[path] for path in jobs}


def _near_the_key(jobs: Mapping[str, Job], key: jax.Array) -> Mapping[str, Job]:
    """Give jobs without a sharding that of the key: JAX draws an array on the devices that its key was placed on."""
    sharding = placement(key)
    if sharding is None:
        return jobs
    return {path: replace(job, sharding=job.sharding or sharding) for path, job in jobs.items()}


def _draw_leaf(path: str, job: Job, program: FromWords, words: Words) -> jax.Array:
    """Run the program that draws a leaf, once for each layer if it is in stacks."""
    rows = jax.device_put(list(words))  # an explicit transfer, which `jax.transfer_guard` lets pass
    with _failure_of(path, job):
        layers = [program(row) for row in rows]
    if not job.layers:
        return layers[0]
    whole_shape = (*job.layers, *job.shape)
    if job.sharding is None:
        return _stacked(layers, whole_shape)
    return _stacked_as(job.sharding)(layers, whole_shape)


def _draw_inside_jit(path: str, job: Job, keys: LayerKeys) -> jax.Array:
    """Draw a leaf inside of `jit`, as a part of the program that JAX is tracing."""
    layer = job.one_layer()
    with _failure_of(path, job):
        layers = [_trace(layer, keys.impl, words) for words in keys.words[path]]
    if not job.layers:
        return layers[0]
    whole = _stacked(layers, (*job.layers, *job.shape))
    return whole if job.sharding is None else constrained(whole, job.sharding)


def _stacked(layers: Sequence[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Stack drawn layers to one array of this shape."""
    return jnp.stack(layers).reshape(shape)


@lru_cache(maxsize=1024)
def _stacked_as(sharding: Sharding) -> jax.stages.Wrapped:
    """Compile `_stacked`, with each shard of its result made on its own device."""
    return jax.jit(_stacked, static_argnums=1, out_shardings=sharding)


def _batches(jobs: Mapping[str, Job]) -> list[_Batch]:
    """Group jobs by the program that draws them, the largest first; without a hash, each initialiser has a program alone."""
    by_program: dict[Job | str, _Batch] = {}
    for path, job in sorted(jobs.items(), key=lambda item: -item[1].size):
        layer = job.one_layer()
        program = layer if _is_hashable(job.initializer) else path
        by_program.setdefault(program, _Batch(layer, [])).paths.append(path)
    return list(by_program.values())


def _without_mesh() -> AbstractContextManager[object]:
    """A context without a mesh for the programs: one of `jax.set_mesh` would change the last bit of what they draw."""
    return jax.sharding.use_abstract_mesh(AbstractMesh((), ()))


# --------------------------------------------------------------------- what initialisers are


def _is_built_in(initializer: Initializer) -> bool:
    """Whether it runs ptree's functions alone, which work with keys of any implementation."""
    from ..initializers import Recipe  # a sixth of the time of `import ptree`, which draws nothing

    return isinstance(initializer, Recipe) and initializer.built_in


def _is_hashable(initializer: Initializer) -> bool:
    """Whether a cache of programs finds an initialiser by its value; a dataclass that holds an array has no hash."""
    try:
        hash(initializer)
        return bool(initializer == initializer)  # an array in it makes `==` an array, or an error
    except (TypeError, ValueError):
        return False


def _is_compilable(initializer: Initializer) -> bool:
    from ..initializers import Recipe

    if isinstance(initializer, Recipe) and initializer.holds_array:
        return False
    return _is_hashable(initializer)


# --------------------------------------------------------------------------- programs


_NEEDS_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)
"""What JAX raises for an initialiser that looks at values, so that it cannot be compiled."""


def _compiled_programs(batches: Sequence[_Batch], keys: LayerKeys) -> Iterator[FromWords]:
    """Compile the programs of all batches side by side, and yield each in turn as soon as it is compiled."""
    from concurrent.futures import ThreadPoolExecutor  # not needed to import ptree

    programs: list[_Program] = []
    for batch in batches:
        first = batch.paths[0]
        with _failure_of(first, batch.job):
            programs.append(_program(batch.job, keys.impl, keys.words[first][0]))
    # one of those that share a compiled function; JAX remembers the result, so that no other compiles again
    lowered = {program.compiled: program.lowered for program in programs if program.lowered is not None}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA compiles without Python's lock
        compiling = {compiled: pool.submit(lowered[compiled].compile) for compiled in lowered}
        for batch, program in zip(batches, programs, strict=True):
            if program.compiled is not None:
                with _failure_of(batch.paths[0], batch.job):
                    compiling[program.compiled].result()
            yield program.draw


def _program(job: Job, impl: Implementation, words: Words) -> _Program:
    """Choose the cheapest program that draws a job: copy an array, compile the initialiser, or call it as it is."""
    filled = _filled(job)
    if filled is not None:
        return _Program(lambda _: jax.device_put(filled.copy()))
    uncompiled = _Program(partial(_draw_eagerly, job, impl))
    if not _is_compilable(job.initializer):
        return uncompiled
    on_cpu = jax.default_backend() == "cpu"
    # 0.2 to 0.3 of the time and a quarter of the memory, measured for 16 M normal and uniform numbers
    key_kind = fused(impl) if on_cpu and _is_built_in(job.initializer) else impl
    found = compiled(job.initializer, job.kind(key_kind))
    numbers = jax.device_put(found.numbers)  # an explicit transfer, which `jax.transfer_guard` lets pass
    try:
        lowered = found.function.lower(words, numbers)
    except _NEEDS_VALUES:
        return uncompiled
    return _Program(lambda words: found.function(words, numbers), found.function, lowered)


def _filled(job: Job) -> np.ndarray | None:
    """The array of a job, made on the host, if it is small and one number fills it; None otherwise."""
    from ..initializers import Recipe

    if job.sharding is not None or not isinstance(job.initializer, Recipe):
        return None
    return job.initializer.filled(job.shape, job.dtype)


def _trace(job: Job, impl: Implementation, words: jax.Array) -> jax.Array:
    """Draw one layer as a part of the program that JAX is tracing."""
    value = _traced(job, impl, words)
    return value if job.sharding is None else constrained(value, job.sharding)


def _traced(job: Job, impl: Implementation, words: jax.Array) -> jax.Array:
    if not _is_compilable(job.initializer):
        return _draw(job, impl, words)
    try:
        found = compiled(job.initializer, replace(job, sharding=None).kind(impl))
        return found.function(words, found.numbers)  # traced once for all leaves of a kind
    except _NEEDS_VALUES:
        return _draw(job, impl, words)


def _draw_eagerly(job: Job, impl: Implementation, words: jax.Array) -> jax.Array:
    return jax.device_put(_draw(job, impl, words), job.sharding)


def _draw(job: Job, impl: Implementation, words: jax.Array) -> jax.Array:
    """Draw one layer without compiling the initialiser."""
    from ..initializers import draw_of

    return job.kind(impl).draw(draw_of(job.initializer, job.shape, job.dtype), words)


# ---------------------------------------------------------------------- what can go wrong


def _refuse_impossible(jobs: Mapping[str, Job]) -> None:
    """Raise one InitError for all jobs that no program can draw."""
    problems: list[str] = []
    for path, job in jobs.items():
        reason = _why_impossible(job)
        if reason is not None:
            problems.append(f"cannot draw {quoted(path)}: {reason}")
    if problems:
        raise InitError(lines(problems))


def _why_impossible(job: Job) -> str | None:
    """Say why no program can draw a job, as far as that is visible before running it; None if it may be possible."""
    from ..initializers import called_first, is_factory

    if not callable(job.initializer):
        return not_an_initializer(job.initializer)
    # `normal` without its call is callable too, and would take the key for `stddev`
    if is_factory(job.initializer):
        return called_first(job.initializer)
    what = describe(jax.ShapeDtypeStruct(job.shape, job.dtype))
    if any(size < 0 for size in job.shape):
        return f"{what} has a negative size"
    # NumPy and XLA count bytes in 64 bits, and fail with an overflow
    if job.size * jnp.dtype(job.dtype).itemsize >= 1 << 62:
        return f"{what} is larger than any memory"
    if 0 in job.layers:
        return "its stack has no layers"
    if job.size == 0:
        return f"{what} has no elements. Give an array in its place, such as jnp.zeros({job.shape}), or leave it out"
    # JAX would draw 32 bits instead, at most with a warning
    is_number = jnp.issubdtype(job.dtype, np.number)
    if is_number and jax.dtypes.canonicalize_dtype(job.dtype) != job.dtype:
        return f"{what} is of a 64-bit type; call jax.config.update('jax_enable_x64', True) first"
    return None


@contextmanager
def _failure_of(path: str, job: Job) -> Iterator[None]:
    """Raise errors of a job as an InitError that names the leaf to draw."""
    try:
        yield
    except MisfitError as misfit:
        raise InitError(f"cannot draw {quoted(path)}, {job}: {misfit}") from None
    except Exception as error:
        raise InitError(f"cannot draw {quoted(path)}, {job}: {error}") from error


def _refuse_nan(values: Mapping[str, jax.Array]) -> None:
    """Raise one InitError for all drawn leaves that hold NaN; check them in a compiled program."""
    # one transfer for all leaves: to wait for each alone would leave the device idle
    has_nan = jax.device_get({path: _any_nan(value) for path, value in values.items()})
    problems = [f"cannot draw {quoted(path)}: its initialiser returned NaN" for path in values if has_nan[path]]
    if problems:
        raise InitError(lines(problems))


@jax.jit
def _any_nan(value: jax.Array) -> jax.Array:
    return jnp.isnan(value).any()
