"""What to do where JAX cannot tell how the result of an operation is split over explicit mesh axes."""

from __future__ import annotations

import re
from pathlib import Path

import jax

from .._errors import PtreeError
from .explicit_axes import explicit_mesh

_MOST_CHARACTERS = 300
_OF_AXES = re.compile(r"shard|replicated|context mesh|\[[^\]]*@\w")


def explicit_axes_problem(error: Exception) -> str | None:
    """The problem and its fix, if an error is one of JAX about explicit mesh axes; None for any other."""
    if isinstance(error, PtreeError) or not _is_raised_by_jax(error):
        return None
    text = " ".join(str(error).split())
    has_mesh = explicit_mesh() is not None
    # By name, as JAX does not export the class; its loops and conditions raise others, with types such as f32[4@data].
    is_of_axes = has_mesh and isinstance(error, (TypeError, ValueError)) and _OF_AXES.search(text)
    if type(error).__name__ != "ShardingTypeError" and not is_of_axes:
        return None
    what = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
    what = what.rstrip(".")
    if not has_mesh:
        return (
            "expected a call under jax.set_mesh(mesh), as arrays are on a mesh with explicit axes, got none. Models of other"
            f" libraries may need automatic ones, jax.make_mesh(..., axis_types=(AxisType.Auto, ...)): {what}"
        )
    return (
        f"JAX cannot tell how a result is split over the explicit axes of the mesh: {what}. Write the function as"
        " jax.sharding.auto_axes(function, out_sharding=PartitionSpec(...)), with the sharding of its output, pass out_sharding="
        " to the operation, or jax.sharding.reshard its inputs. Models of other libraries may need automatic axes:"
        " jax.make_mesh(..., axis_types=(AxisType.Auto, ...))"
    )


_FOLDER_OF_JAX = str(Path(jax.__file__).parent)
_NOTE_OF_JAX = "JAX has removed its internal frames"


def _is_raised_by_jax(error: Exception) -> bool:
    """Whether an error comes from JAX's own code, whose frames JAX takes out of the traceback outside of `jit`, with a note."""
    if any(_NOTE_OF_JAX in note for note in getattr(error, "__notes__", ())):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and frame.tb_frame.f_code.co_filename.startswith(_FOLDER_OF_JAX)
