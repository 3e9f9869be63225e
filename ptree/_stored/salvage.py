"""Salvage the header of a damaged safetensors file: which leaves can be read, and what is wrong with the others and the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import attrgetter

from .._errors import PtreeError
from .._garbage_collection import collection_paused
from .._words import quoted
from .facts import Facts
from .header import START, Header, Json, levels_problem, split_metadata, table_of, tensor_of, with_facts
from .stored_leaf import StoredLeaf


def salvaged(text: bytes, size: int, verify: bool) -> Header | None:
    """Parse a header that `parsed` refuses, of a file of this size; None if no leaf of it can be read.

    Raises:
        FileError: a version of the format that this ptree does not know.
    """
    with collection_paused():
        try:
            return _salvaged(text, size, verify)
        except PtreeError:
            raise
        except (ValueError, AttributeError, TypeError):  # it is no table of names
            return None


def _salvaged(text: bytes, size: int, verify: bool) -> Header | None:
    table, metadata = table_of(text)
    if levels_problem(table):
        return None
    facts, own_metadata, problems = _split(text, metadata, verify)
    leaves: list[StoredLeaf] = []
    damaged: dict[str, str] = {}
    for name, about in table.items():
        found = _leaf_of(name, about, 8 + len(text), facts)
        if isinstance(found, str):
            damaged[name] = found
        else:
            leaves.append(found)
    apart = _without_overlaps([_without_what_is_cut(leaf, size) for leaf in leaves])
    if all(leaf.is_damaged for leaf in apart):
        return None
    if not damaged:  # else the bytes of those are some that no other leaf has
        problems += _unused_bytes(leaves, 8 + len(text), size)
    in_order = {leaf.name: leaf for leaf in apart}
    found = {name: in_order[name] for name in table if name in in_order}
    return Header(found, facts, own_metadata, metadata.get("ptree_sum", ""), damaged, problems)


def _split(
    text: bytes, metadata: Mapping[str, str], verify: bool
) -> tuple[Facts | None, dict[str, str], tuple[str, ...]]:
    """Facts and metadata, as far as they can be parsed, and what is wrong with them."""
    try:
        return (*split_metadata(text, START, metadata, verify), ())
    except PtreeError:  # a newer format
        raise
    except ValueError as error:
        problem = str(error)
    try:
        return (*split_metadata(text, START, metadata, False), (problem,))
    except ValueError:
        others = {name: value for name, value in metadata.items() if name not in ("ptree", "ptree_sum")}
        return None, others, (problem,)


def _leaf_of(name: str, about: Json, data_start: int, facts: Facts | None) -> StoredLeaf | str:
    """A leaf as the header and the facts describe it; or why that cannot be true."""
    try:
        leaf = tensor_of(name, about, data_start)
        return leaf if facts is None else with_facts(leaf, facts)
    except ValueError as error:
        return str(error).removeprefix(f"{quoted(name)} ")
    except (AttributeError, TypeError, KeyError):
        return "is damaged: its entry in the header is not a dtype, a shape and two data_offsets"


def _without_what_is_cut(leaf: StoredLeaf, size: int) -> StoredLeaf:
    """A leaf of a file that ends too early: unreadable where its bytes are not all there."""
    if leaf.stop <= size:
        return leaf
    why = f"is cut off: its last byte is number {leaf.stop:,}, and the file has {size:,}"
    return replace(leaf, unreadable=why, is_damaged=True)


def _without_overlaps(leaves: Iterable[StoredLeaf]) -> list[StoredLeaf]:
    """The leaves by place; those that share bytes are unreadable, as only one of them can be right."""
    found: list[StoredLeaf] = []
    furthest = -1  # where in `found` the leaf is that ends last
    for leaf in sorted(leaves, key=attrgetter("start", "stop")):
        before = found[furthest] if found else None
        if before is not None and leaf.start < before.stop and leaf.start < leaf.stop:
            found[furthest] = _sharing(before, leaf)
            leaf = _sharing(leaf, before)
        found.append(leaf)
        if before is None or leaf.stop >= before.stop:
            furthest = len(found) - 1
    return found


def _sharing(leaf: StoredLeaf, other: StoredLeaf) -> StoredLeaf:
    if leaf.is_damaged:
        return leaf
    return replace(leaf, unreadable=f"is damaged: it shares bytes with {quoted(other.name)}", is_damaged=True)


def _unused_bytes(leaves: Iterable[StoredLeaf], data_start: int, size: int) -> tuple[str, ...]:
    """Sentences on bytes of the file that belong to no leaf."""
    problems: list[str] = []
    end = data_start
    for leaf in sorted(leaves, key=attrgetter("start", "stop")):
        if leaf.start > end:
            problems.append(f"the {leaf.start - end:,} bytes before {quoted(leaf.name)} belong to no leaf")
        end = max(end, leaf.stop)
    if end < size:
        problems.append(f"the last {size - end:,} of its {size:,} bytes belong to no leaf")
    return tuple(problems)
