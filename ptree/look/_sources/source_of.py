"""Find the source of what is looked at: a tree, a spec, the path of a file or folder, or an open file."""

from __future__ import annotations

import os
from typing import Any

from .file_source import file_source
from .source import Source


def source_of(thing: Any) -> Source:
    """The source of a tree, a spec or another pytree, the path of a file or of a folder of checkpoints, or an open file.

    Raises:
        FileError: it is a path, and there is no file that ptree reads.
        OSError: there is nothing at the path, or it cannot be read.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    if isinstance(thing, Source):
        return thing
    if isinstance(thing, (str, os.PathLike)):
        return file_source(thing)
    from .tree_source import tree_source  # with JAX, which a look at a file does without

    return tree_source(thing)
