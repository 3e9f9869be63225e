"""Norms with a scale over several axes, whose order another framework may have with channels first: refused until it is said."""

from __future__ import annotations

from .framework import NoEqualError, Place


def require_one_order(place: Place) -> None:
    """Refuse a norm with a scale of several axes, in a framework with channels first.

    Raises:
        NoEqualError: the order of the axes cannot be known.
    """
    shapes = [shape for name, shape in place.leaves.items() if name in ("scale", "bias") and len(shape) > 1]
    if shapes:
        raise NoEqualError(
            f"a scale of the shape {[*shapes[0]]} may have its axes in another order there, such as (channels, *space): say"
            " `as_is` or `permute(...)` for it in own={...}"
        )
