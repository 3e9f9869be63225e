"""Doubts of names that contradict each other: encoder and decoder, layer 1 and layer 2, a moment of an optimiser and a weight."""

from __future__ import annotations

import re
from dataclasses import replace

from .families import Family
from .possible_pairs import Pair

OPPOSITE = "the names say opposites, such as encoder and decoder"
NUMBER = "the names are alike but for a number"
NO_WEIGHT = "one name says that it is no weight, such as a moment of an optimiser, a moving average or a zero point"

_EXCLUSIVE: tuple[frozenset[str], ...] = tuple(
    frozenset(words.split())
    for words in (
        "encoder decoder", "query key value", "left right", "forward backward", "fwd bwd", "teacher student", "up down", "wi wo",
        "generator discriminator", "pre post", "in output", "input output", "src tgt", "source target", "online target",
        "start end", "begin end", "begin stop", "start stop", "old new", "min max", "low high", "lower upper", "actor critic",
        "text vision", "text image", "text audio", "image audio", "positive negative", "pos neg", "real imag", "row col", "rows cols",
        "height width", "first second", "first last", "before after", "inner outer", "local global", "top bottom",
        "mean var", "mean std", "mean logvar", "mu var", "mu sigma", "mu logvar",
    )
)  # fmt: skip
"""Words of which a name with one is not that of an array with another one; in the common form of `words_of`."""
_NO_WEIGHT = re.compile(
    r"(?:^|[/_])((?:max_)?exp_avg(?:_sq)?|(?<!mean_)(?<!var_)ema|zero_points?|eps|epsilon|momentum(?:_buffer)?|optim(?:izer)?"
    r"|optimiser|adamw?|grads?|gradients?|(?:weight|input|output|act)_scale)(?=[/_]|$)"
)
_NUMBERED = re.compile(r"([a-z_]+/?)(\d+)(?!\d*d)")
"""A number and the name before it: `layer/3`, `fc1`; of `conv2d` it is no count."""


def with_doubts_of_contradictions(pair: Pair) -> Pair:
    """A pair with a doubt for each way in which its names contradict each other, whatever the shapes say."""
    doubts = [*pair.doubts]
    if any(_are_opposite(pair.source, target) for target in pair.targets):
        doubts.append(OPPOSITE)
    if any(_have_other_numbers(pair.source.path, target.path) for target in pair.targets):
        doubts.append(NUMBER)
    if any(_no_weights(pair.source.path) != _no_weights(target.path) for target in pair.targets):
        doubts.append(NO_WEIGHT)
    return replace(pair, doubts=tuple(dict.fromkeys(doubts)))


def _are_opposite(source: Family, target: Family) -> bool:
    """Whether each name has a word that the other lacks, and that excludes one of the other."""
    only_source, only_target = source.words - target.words, target.words - source.words
    return any(only_source & words and only_target & words for words in _EXCLUSIVE)


def _have_other_numbers(source: str, target: str) -> bool:
    """Whether the same text has another number: of `layer1` and `layers/0` the texts differ, and so may the counts."""
    numbers, others = _numbers_by_text(source), _numbers_by_text(target)
    return any(numbers[text] != others[text] for text in numbers.keys() & others.keys())


def _numbers_by_text(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text, number in _NUMBERED.findall(path.lower()):
        found.setdefault(text, []).append(number)
    return found


def _no_weights(path: str) -> set[str]:
    return {*_NO_WEIGHT.findall(path.lower())}
