"""Say what a folder holds in which `load` finds no file by itself."""

from __future__ import annotations

import os

from .._words import listed, quoted


def folder_problem(path: str) -> str:
    """What a folder without `model.safetensors` has instead; "" where it is no folder."""
    if not os.path.isdir(path):
        return ""
    inside = sorted(os.listdir(path))
    there = f"it has {listed(inside)}; name the file" if inside else "it is empty"
    return f"no model.safetensors in the folder {quoted(path)}: {there}"
