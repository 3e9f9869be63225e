"""Rotary position embedding: in halves or in pairs, of a part of the head, with the frequency scalings of long contexts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import LayerError
from .._numbers import real_number
from ._equality import FieldEquality

Frequencies: TypeAlias = np.ndarray | jax.Array
"""Radians per place, one for each pair of features; the first is the fastest."""
Scaling: TypeAlias = Callable[[np.ndarray], Frequencies]


@dataclass(frozen=True, eq=False, repr=False)
class Rotary(FieldEquality):
    """Rotary position embedding (Su et al. 2021), for `MultiHeadAttention(rotary=...)`: turn pairs of features by the position.

    >>> from ptree import nn
    >>> llama = nn.MultiHeadAttention(8, rotary=Rotary(500_000).llama3(factor=8, context=8192))   # Llama 3.1
    >>> pairs = Rotary(10_000, pairs=True, fraction=0.25)                               # GPT-J
    >>> pairs.frequencies(64).round(4).tolist()
    [1.0, 0.3162, 0.1, 0.0316, 0.01, 0.0032, 0.001, 0.0003]

    Pair i of n turns by `position * base ** (-i / n)` radians. Weights are tied to how features are paired: GPT-J, Cohere
    and Meta's own Llama files use `pairs=True`; GPT-NeoX, Hugging Face's Llama, Mistral, Qwen and Gemma the default.

    Args:
        base: of the frequencies, above 1 (`rope_theta`).
        pairs: pair feature 2 i with 2 i + 1, interleaved; by default feature i with i + n, the two halves.
        fraction: the part of each head, its first features, that is rotated (`partial_rotary_factor`, `rotary_pct`).
        scaling: any function of the frequencies, f64[n] of NumPy in radians per place, that returns those to use. `linear`,
            `llama3` and `yarn` set it.
        amplitude: a factor of sines and cosines, as YaRN's attention factor.

    Raises:
        LayerError: a base of at most 1, a fraction that is not above 0 and at most 1, or a scaling that is not a function.
    """

    base: float = 10_000.0
    _: KW_ONLY
    pairs: bool = False
    fraction: float = 1.0
    scaling: Scaling | None = None
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        base, fraction = real_number(self.base), real_number(self.fraction)
        # With the base 1 all frequencies would be equal.
        if base is None or not base > 1:
            raise LayerError(f"Rotary: expected a base above 1, such as 1e4, got {self.base!r}")
        if fraction is None or not 0 < fraction <= 1:
            raise LayerError(f"Rotary: expected a fraction above 0 and at most 1, got {self.fraction!r}")
        # Numbers of NumPy and JAX become Python's, as in layers: arrays have no hash.
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "fraction", fraction)
        if self.scaling is not None and not callable(self.scaling):
            expected = "a function of the frequencies as scaling, such as lambda f: f / 4"
            raise LayerError(f"Rotary: expected {expected}, got {self.scaling!r}")

    def linear(self, factor: float) -> Rotary:
        """Position interpolation (Chen et al. 2023): all frequencies divided by the factor.

        Args:
            factor: how many times longer the context becomes.
        """
        return replace(self, scaling=_Linear(_at_least_1("linear", factor)))

    def llama3(self, factor: float, *, context: int, low: float = 1.0, high: float = 4.0) -> Rotary:
        """The scaling of Llama 3.1: low frequencies divided by the factor, high ones kept, those between interpolated.

        Args:
            factor: how many times longer the context becomes.
            context: the length that the model was first trained on (`original_max_position_embeddings`).
            low: frequencies below `low` turns per context are divided (`low_freq_factor`).
            high: frequencies above `high` turns per context are kept (`high_freq_factor`).

        Raises:
            LayerError: a factor below 1, or `high` that is not above `low`.
        """
        if not high > low:
            raise LayerError(f"Rotary.llama3: expected high above low, got low={low} and high={high}")
        return replace(self, scaling=_Llama3(_at_least_1("llama3", factor), context, low, high))

    def yarn(
        self, factor: float, *, context: int, slow: float = 1.0, fast: float = 32.0, amplitude: float | None = None
    ) -> Rotary:
        """YaRN (Peng et al. 2023): as `llama3`, with a ramp over the pairs, and larger sines and cosines.

        Args:
            factor: how many times longer the context becomes.
            context: the length that the model was first trained on.
            slow: frequencies below `slow` turns per context are divided by the factor (`beta_slow`).
            fast: frequencies above `fast` turns per context are kept (`beta_fast`).
            amplitude: the attention factor; by default the paper's `0.1 ln(factor) + 1`.

        Raises:
            LayerError: a factor below 1, or `fast` that is not above `slow`.
        """
        factor = _at_least_1("yarn", factor)
        if not fast > slow:
            raise LayerError(f"Rotary.yarn: expected fast above slow, got slow={slow} and fast={fast}")
        if amplitude is None:
            amplitude = 0.1 * math.log(factor) + 1
        return replace(self, scaling=_Yarn(factor, context, slow, fast, self.base), amplitude=amplitude)

    def size(self, head_dim: int) -> int:
        """How many features of a head of this size are rotated.

        Args:
            head_dim: the features of each head.
        """
        return int(head_dim * self.fraction)

    def frequencies(self, head_dim: int) -> Frequencies:
        """The radians per place of each pair of features, after the scaling.

        Args:
            head_dim: the features of each head.

        Raises:
            LayerError: the scaling returns another number of frequencies.
        """
        count = self.size(head_dim) // 2
        # In float64, as constants of the program: errors grow with the position.
        frequencies = float(self.base) ** (-np.arange(count) / count)
        if self.scaling is None:
            return frequencies
        scaled = self.scaling(frequencies)
        if np.shape(scaled) != (count,):
            expected = f"a scaling that returns {count} frequencies, f[{count}]"
            raise LayerError(f"{self!r}: expected {expected}, got the shape {np.shape(scaled)}")
        return scaled

    def rotate(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Rotate queries or keys f32[batch, time, heads, head_dim] by positions [batch or 1, time].

        Args:
            x: f32[batch, time, heads, head_dim].
            positions: i32[batch or 1, time].
        """
        # Angles in float32 at least: in bfloat16 positions above 256 would be rounded to their neighbours.
        wide = jnp.promote_types(x.dtype, jnp.float32)
        frequencies = jnp.asarray(self.frequencies(x.shape[-1]), wide)
        angle = positions[..., None].astype(wide) * frequencies
        sin, cos = jnp.sin(angle)[:, :, None, :], jnp.cos(angle)[:, :, None, :]
        if self.amplitude != 1:
            sin, cos = sin * self.amplitude, cos * self.amplitude
        size = 2 * angle.shape[-1]
        turned = _turned_pairs(x[..., :size], sin, cos) if self.pairs else _turned_halves(x[..., :size], sin, cos)
        turned = turned.astype(x.dtype)
        if size == x.shape[-1]:
            return turned
        return jnp.concatenate([turned, x[..., size:]], -1)

    def __repr__(self) -> str:
        """As a call of its constructor, with the options that differ from their defaults."""
        changed: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                changed.append(f"{field.name}={value!r}")
        return f"Rotary({', '.join(changed)})"


def _turned_halves(x: jax.Array, sin: jax.Array, cos: jax.Array) -> jax.Array:
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _turned_pairs(x: jax.Array, sin: jax.Array, cos: jax.Array) -> jax.Array:
    a, b = x[..., 0::2], x[..., 1::2]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], -1).reshape(x.shape)


@dataclass(frozen=True)
class _Linear:
    factor: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        return frequencies / self.factor


@dataclass(frozen=True)
class _Llama3:
    """The formula of Meta's `apply_scaling` (llama-models, Llama 3.1)."""

    factor: float
    context: int
    low: float
    high: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        turns = self.context * frequencies / (2 * math.pi)  # in the first context
        kept = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
        return kept * frequencies + (1 - kept) * frequencies / self.factor


@dataclass(frozen=True)
class _Yarn:
    """Equations 17 to 23 of the paper, with the ends of the ramp at whole pairs, as in the authors' code."""

    factor: float
    context: int
    slow: float
    fast: float
    base: float

    def __call__(self, frequencies: np.ndarray) -> np.ndarray:
        count = len(frequencies)
        first = max(math.floor(self._pair(self.fast, count)), 0)
        last = min(math.ceil(self._pair(self.slow, count)), 2 * count - 1)
        divided = np.clip((np.arange(count) - first) / max(last - first, 1e-3), 0, 1)
        return (1 - divided) * frequencies + divided * frequencies / self.factor

    def _pair(self, turns: float, count: int) -> float:
        """The pair of features that makes so many turns in the first context, between whole numbers."""
        return count * math.log(self.context / (turns * 2 * math.pi)) / math.log(self.base)


def _at_least_1(method: str, factor: float) -> float:
    number = real_number(factor)
    if number is None or not number >= 1:
        raise LayerError(f"Rotary.{method}: expected a factor of at least 1, got {factor!r}")
    return number
