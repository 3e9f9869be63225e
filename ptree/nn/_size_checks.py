"""Check arguments that are sizes, axes or positions: features, kernel sizes, windows, and a convolution's padding and its mode."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ._argument_checks import LARGEST_SIZE, Check, UnfitError, nearest_fix, sequence, whole_fix, whole_from

PADDING_MODES: Mapping[str, str] = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "replicate": "edge",
}
"""What the padding of a convolution is filled with, in PyTorch's words -> in those of `jnp.pad`."""


def size(value: object) -> int:
    """Check a number of features, groups, steps or the like: a whole number of at least 1."""
    return whole_from(1, value, "a whole number of at least 1")


def sizes(value: object) -> int | tuple[int, ...]:
    """Check a size, or a tuple with one for each axis."""
    several = sequence(value)
    if several is None:
        return whole_from(1, value, "a whole number of at least 1, or a tuple of them")
    if not several:
        raise UnfitError("a whole number of at least 1, or a tuple of them")
    return tuple(whole_from(1, one, "a tuple of whole numbers of at least 1") for one in several)


def axes(value: object) -> int | tuple[int, ...]:
    """Check an axis, or a tuple of different axes."""
    expected = "an axis such as -1, or a tuple of different ones such as (-2, -1)"
    several = sequence(value)
    if several is None:
        return whole_from(-LARGEST_SIZE, value, expected)
    numbers = tuple(whole_from(-LARGEST_SIZE, one, expected) for one in several)
    if not numbers or len({*numbers}) < len(numbers):
        raise UnfitError(expected)
    return numbers


def last_axes(value: object) -> int | tuple[int, ...]:
    """Check axes that are the last ones in their order: -1, (-2, -1) and so on."""
    checked = axes(value)
    several = checked if isinstance(checked, tuple) else (checked,)
    if several != tuple(range(-len(several), 0)):
        raise UnfitError("the last axes, such as -1 or (-2, -1)")
    return checked


def index(value: object) -> int:
    """Check a position, which may count from the end: any whole number."""
    return whole_from(-LARGEST_SIZE, value, "a whole number")


def padding(names: Collection[str], least: int = 0) -> Check:
    """Make a check of the padding of a window: one of these names, a number, or for each axis a name, a number or
    (before, after).

    Args:
        names: such as "SAME" and "VALID".
        least: the smallest number; below 0 it removes places.
    """
    quoted_names = ", ".join(map(repr, names))
    number = "a number of at least 0" if least == 0 else "a whole number"
    expected = f"{quoted_names}, {number}, or for each axis one of these or (before, after)"

    def check(value: object) -> object:
        if isinstance(value, str):
            return one_padding(value)
        several = sequence(value)
        if several is None:
            return one_padding(value)
        if not several:  # it has the length of no input
            raise UnfitError(expected)
        return tuple(map(one_axis, several))

    def one_axis(value: object) -> object:
        pair = sequence(value)
        if pair is None:
            return one_padding(value)
        if len(pair) != 2:
            raise UnfitError(expected)
        before, after = pair
        return whole_from(least, before, expected), whole_from(least, after, expected)

    def one_padding(value: object) -> object:
        if not isinstance(value, str):
            return whole_from(least, value, expected)
        if value in names:
            return value
        raise UnfitError(expected, _in_capitals(value, names) or whole_fix(value))

    return check


def _in_capitals(value: str, names: Collection[str]) -> str:
    """What to write instead of the name of a padding as in PyTorch and Keras, "same"."""
    return f": write {value.upper()!r}" if value.upper() in names else ""


def padding_mode(value: object) -> str | tuple[str, ...]:
    """Check what padding is filled with: a name, or a tuple with one for each axis."""
    several = sequence(value)
    modes = [value] if several is None else several
    for mode in modes or [None]:
        if not isinstance(mode, str) or mode not in PADDING_MODES:
            names = ", ".join(map(repr, PADDING_MODES))
            raise UnfitError(f"one of {names}, or a tuple with one for each axis", nearest_fix(mode, PADDING_MODES))
    return value if isinstance(value, str) else tuple(map(str, modes))
