"""The line of the user's code, and the layer of ptree.nn, that an equation of a jaxpr comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jax.extend.core import JaxprEqn

from ..._jaxprs import frames_of, user_frame

_LAYERS = str(Path(__file__).parents[2] / "nn") + os.sep


def source_of(equations: Iterable[JaxprEqn]) -> str:
    """`model.py:31 in loss, in Dropout.apply of ptree.nn`; empty where nothing is known.

    Args:
        equations: an equation, then the one of the call that it is in, and so on: what JAX has traced before, such as its
            own functions, does not know where it is called from.
    """
    user, layer = "", ""
    for equation in equations:
        frames = frames_of(equation)
        user = user or _user(frames)
        layer = layer or _layer(frames)
    return ", ".join(filter(None, (user, layer)))


def _user(frames: Sequence[Any]) -> str:
    """The innermost call that is neither in JAX nor in ptree."""
    frame = user_frame(frames)
    if frame is None:
        return ""
    return f"at {os.path.basename(frame.file_name)}:{frame.line_num} in {frame.function_name}"


def _layer(frames: Sequence[Any]) -> str:
    """The innermost method `apply` of a layer of ptree.nn."""
    for frame in frames:
        if frame.file_name.startswith(_LAYERS) and frame.function_name.endswith(".apply"):
            return f"in {frame.function_name} of ptree.nn"
    return ""
