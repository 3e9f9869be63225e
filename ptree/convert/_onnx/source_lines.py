"""The line of the user's code that an equation of a jaxpr comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax

_JAX = str(Path(jax.__file__).parent) + os.sep
_PTREE = str(Path(__file__).parents[2]) + os.sep


def source_of(equation: Any) -> str:
    """`model.py:31 in Block.apply`, the innermost call that is neither in JAX nor in ptree; of ptree.nn where there is none."""
    traceback = equation.source_info.traceback
    frames = [] if traceback is None else list(traceback.frames)
    users = [frame for frame in frames if not frame.file_name.startswith((_JAX, _PTREE))]
    layers = [frame for frame in frames if frame.file_name.startswith(_PTREE)]
    chosen = users or layers
    if not chosen:
        return ""
    frame = chosen[0]
    return f"{os.path.basename(frame.file_name)}:{frame.line_num} in {frame.function_name}"
