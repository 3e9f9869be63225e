"""report: an HTML page of one tree or file, or of the differences of two, that opens without a network."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._errors import FileError
from ..._paths import Selector
from ..._stored.drafts import draft
from ..._stored.locations import checked_path
from ..._stored.operating_system import write_all
from ..._words import quoted
from .._sources.source import Source
from .._sources.source_of import source_of
from .data import diff_page_data, page_data
from .page import page_of

if TYPE_CHECKING:
    from ..._shardings import Plan
    from .devices import Placement


def report(
    thing: Any,
    other: Any = None,
    *,
    selector: Selector | None = None,
    plan: Plan | None = None,
    out: str | os.PathLike[str] = "report.html",
) -> Path:
    """Write an HTML page of a tree or file, or of the differences of two; return its path.

    >>> import numpy as np, tempfile
    >>> params = {"enc": {"kernel": np.ones((4, 8), "f"), "bias": np.zeros(8, "f")}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = report(params, out=f"{folder}/enc.html")
    ...     page.name, "enc/kernel" in page.read_text()
    ('enc.html', True)

    The page is one file, which loads nothing: rows that fold, sizes as bars, a search by text or by pattern
    (`**/{query,key}/*`), ties as links, and for each leaf statistics and a histogram. All numbers of the selected
    leaves are read once or twice when the page is written; of a spec there are none. Files are read without JAX, in chunks, and
    compared with their checksums: of a damaged leaf the page says so, and shows no numbers.

    Of arrays on several devices, and with `plan=`, the page shows where each leaf lives: what divides it, what each device holds, what
    is whole on every device. A plan may be for devices that this machine does not have, and for a file.

    Args:
        thing: a tree, a spec or another pytree, the path of a file or of a folder of checkpoints, or an open file.
        other: what it is compared with, as the state after: the page shows what changed.
        selector: which leaves; all by default.
        plan: where the leaves of `thing`, or of `other` if it is there, are to live, from `ptree.shard.plan`.
        out: where the page goes; a file that is there is replaced, once the new one is whole.

    Raises:
        FileError: an input is not a file that ptree reads, or `out` is a folder or a file of parameters.
        PatternError: the selector is malformed, or a part of it matches nothing.
        StructureError: the plan is for another tree.
        OSError: the folder of `out` does not exist, or a file cannot be read or written.
    """
    return write_report(thing, other, selector, plan, out).path


class WrittenReport(NamedTuple):
    path: Path
    damaged: tuple[str, ...]
    """Path and problem of each damaged leaf of the inputs."""


def write_report(
    thing: Any, other: Any, selector: Selector | None, plan: Plan | None, out: str | os.PathLike[str]
) -> WrittenReport:
    """Write the page of `report`, and say which leaves of its inputs are damaged."""
    _refuse_page(other)
    place = _checked_place(out)
    with ExitStack() as opened:
        source = _opened(thing, opened)
        after = source if other is None else _opened(other, opened)
        placement = _placement(after, plan)
        if other is None:
            data = page_data(source, selector, placement)
        else:
            data = diff_page_data(source, after, selector, placement)
        page = page_of(data.columns)
    with draft(place) as file:
        write_all(file, page.encode(), 0)
    return WrittenReport(place, data.damaged)


def _opened(thing: Any, opened: ExitStack) -> Source:
    """The source of an input; it is closed in the end only if it was opened here."""
    source = source_of(thing)
    if isinstance(thing, str | os.PathLike):
        opened.callback(source.close)
    return source


def _placement(source: Source, plan: Plan | None) -> Placement | None:
    """Where the leaves live, from the plan or as the arrays are; None where nothing says it."""
    if plan is None and source.is_file:
        return None
    from .devices import placement_of_arrays, placement_of_plan  # with JAX, which a look at a file does without

    if plan is not None:
        return placement_of_plan(plan, source.leaves.values())
    return placement_of_arrays(source)


def _refuse_page(other: Any) -> None:
    if isinstance(other, str | os.PathLike) and os.fspath(other).endswith((".html", ".htm")):
        raise FileError(
            f"the second argument is what is compared, and {quoted(os.fspath(other))} is a page."
            f" Write report(thing, out={os.fspath(other)!r})"
        )


def _checked_place(out: str | os.PathLike[str]) -> Path:
    """The path of the page, if a page can go there and no parameters are lost."""
    place = Path(checked_path(out, "report(thing, out=path)"))
    if place.is_dir():
        raise FileError(
            f"cannot write the report to {str(place)!r}: it is a folder. Write out={str(place / 'report.html')!r}"
        )
    if not place.parent.is_dir():
        raise FileNotFoundError(f"cannot write the report to {str(place)!r}: there is no folder {str(place.parent)!r}")
    if _holds_parameters(place):
        raise FileError(f"cannot write the report to {str(place)!r}: parameters are in this file. Choose another `out`")
    return place


_MARKS = (b"PK", b"\x80", b"\x89HDF", b"GGUF")
"""The first bytes of archives of NumPy, PyTorch and Keras, of old files of PyTorch, and of those of Keras and llama.cpp."""


def _holds_parameters(place: Path) -> bool:
    """Whether a file looks like safetensors, npz or one of another framework: a slip of the hand must not replace an input, or another checkpoint."""
    if not place.is_file():
        return False
    with place.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or start.startswith(_MARKS)
