"""Write and parse the header of a safetensors file: tensors with offsets, shapes and facts, metadata in Unicode, length and
checksum; limits of counts.

FORMAT.md describes the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np

from .._errors import PtreeError
from .._garbage_collection import collection_paused
from .._words import printable, quoted, shortened
from .checksums import NO_CHECKSUM, digest
from .dtypes import BITS, CODES, DTYPES, LACKING, LACKING_BY_NAME, UNKNOWN, Storage
from .facts import Facts
from .kinds import may_have_dtype, misfit_of
from .stored_leaf import StoredLeaf

ALIGNED = 64
"""Bytes: the data begin at a multiple of it, and so does every tensor whose size is one; JAX uses such memory as it is."""

_SUM_KEY = b'"ptree_sum":"'
START = b'{"__metadata__":{' + _SUM_KEY
LONGEST_HEADER = 100_000_000
"""Bytes of a header; safetensors' own limit."""
_LONGEST_REASON = 300  # characters of a message about a header, which may hold anything
_SIZE_LIMIT = 1 << 64
_MOST_AXES = 64  # of an array of NumPy
_LEVELS_OF_A_NAME = 32  # on average
_MORE_LEVELS = 200_000  # than that, of all names together

Json: TypeAlias = Any
"""What JSON can hold; a file of another program may hold anything, and is checked."""


@dataclass(frozen=True)
class Header:
    """The header of a file, parsed; `facts` is None in a file that ptree did not write."""

    leaves: dict[str, StoredLeaf]
    facts: Facts | None
    metadata: dict[str, str]
    checksum: str = ""
    damaged: dict[str, str] = field(default_factory=dict)
    """Name -> why nothing is known of this leaf, in a header that was salvaged."""
    problems: tuple[str, ...] = ()
    """What is wrong with the file beside its leaves, in a header that was salvaged."""


# ------------------------------------------------------------------------------- writing


def laid_out(leaves: Iterable[StoredLeaf]) -> list[StoredLeaf]:
    """Lay out the tensors of a file: give each leaf its offsets, counted from the first byte of the data.

    First come those whose size is a multiple of 64 bytes, then the others by the size of a number: safetensors
    allows no gap between tensors, and so all but the small and odd ones can be mapped.
    """
    leaves = list(leaves)
    sizes = {leaf.name: leaf.nbytes for leaf in leaves}
    widths = {leaf.name: _storage(leaf).dtype.itemsize for leaf in leaves}
    leaves.sort(key=lambda leaf: (sizes[leaf.name] % ALIGNED != 0, -widths[leaf.name]))
    placed: list[StoredLeaf] = []
    end = 0
    for leaf in leaves:
        start, end = end, end + sizes[leaf.name]
        placed.append(replace(leaf, start=start, stop=end))
    return placed


def header_bytes(leaves: Sequence[StoredLeaf], facts: Facts, metadata: Mapping[str, str]) -> bytes:
    """Encode the header of a file; its length does not depend on the checksums, so it can be written again in place."""
    table: dict[str, Json] = {"__metadata__": dict(metadata_of(facts, metadata))}
    for leaf in leaves:
        storage = _storage(leaf)
        table[leaf.name] = {
            "dtype": CODES[storage.dtype],
            "shape": [*leaf.shape, *storage.axes],
            "data_offsets": [leaf.start, leaf.stop],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    # spaces after the JSON are allowed by safetensors; the 8 bytes are the length in front of it
    text = sealed(text + b" " * (-(8 + len(text)) % ALIGNED))
    return len(text).to_bytes(8, "little") + text


def _storage(leaf: StoredLeaf) -> Storage:
    return LACKING.get(leaf.dtype) or Storage(leaf.dtype)


def metadata_of(facts: Facts, metadata: Mapping[str, str]) -> dict[str, str]:
    """Compose the metadata of a header: zeros in the place of its checksum, ptree's part, and the user's."""
    return {"ptree_sum": NO_CHECKSUM, "ptree": facts.to_json(), **metadata}


def sealed(text: bytes) -> bytes:
    """Seal the JSON of a header: write its checksum over the zeros in its metadata."""
    at = text.index(_SUM_KEY) + len(_SUM_KEY)
    return text[:at] + digest(text).encode() + text[at + len(NO_CHECKSUM) :]


def seal_of(header: bytes) -> str:
    """Read the checksum out of a sealed header."""
    at = header.index(_SUM_KEY) + len(_SUM_KEY)
    return header[at : at + len(NO_CHECKSUM)].decode()


# ------------------------------------------------------------------------------- reading


def header_length(first: bytes, size: int) -> int:
    """Read the length of the header from the first eight bytes of a file.

    Raises:
        ValueError: a file of this size cannot have such a header.
    """
    if len(first) < 8:
        raise ValueError("it is shorter than the 8 bytes that say how long the header is")
    length = int.from_bytes(first, "little")
    # before anything is read: eight random bytes would ask for exabytes of memory
    if length > min(size - 8, LONGEST_HEADER):
        raise ValueError(f"its first 8 bytes say that the header has {length:,} bytes, and it has {size:,} in all")
    return length


def parsed(text: bytes, size: int, verify: bool) -> Header:
    """Parse a header, and check the offsets of each tensor.

    Raises:
        ValueError: the header is damaged, or does not fit the size of the file.
        FileError: a version of the format that this ptree does not know.
        TieError: a transform that this process has not registered.
    """
    with collection_paused():
        return _parsed(text, size, verify)


def _parsed(text: bytes, size: int, verify: bool) -> Header:
    data_start = 8 + len(text)
    try:
        table, metadata = table_of(text)
        tensors = [tensor_of(name, about, data_start) for name, about in table.items()]
    # what JSON of any other form leads to above
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            "its header is damaged: it is not a table of names, each with a dtype, a shape and two data_offsets"
        ) from error
    end = _checked_end(tensors, data_start)
    if end != size:
        raise ValueError(f"its header describes {end:,} bytes, and it has {size:,}")
    facts, own_metadata = split_metadata(text, START, metadata, verify)
    problem = levels_problem(table) or levels_problem(facts.order if facts else ())
    if problem:
        raise ValueError(problem)
    if facts is not None:
        tensors = [with_facts(tensor, facts) for tensor in tensors]
    leaves = {tensor.name: tensor for tensor in tensors}
    return Header(leaves, facts, own_metadata, metadata.get("ptree_sum", ""))


def table_of(text: bytes) -> tuple[dict[str, Json], dict[str, str]]:
    """Parse the JSON of a header: name -> what it says of the tensor, and the metadata.

    Raises:
        ValueError: it is damaged.
        AttributeError, TypeError: it is JSON of another form.
    """
    try:
        table = json.loads(text.decode(), object_pairs_hook=unique)
    except (UnicodeDecodeError, RecursionError) as error:  # of deep nesting
        raise ValueError(f"its header is damaged: {_shown(error)}") from error
    metadata = table.pop("__metadata__", None) or {}  # some programs write null
    _check_metadata(metadata)
    return table, metadata


def _shown(error: Exception) -> str:
    return shortened(printable(str(error)), _LONGEST_REASON)


def unique(pairs: Sequence[tuple[str, Json]]) -> dict[str, Json]:
    """Parse a JSON object of a header, in which each name must be unique.

    Raises:
        ValueError: a name that stands twice.
    """
    # by itself, json.loads keeps the last value in silence
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("it has a name twice")
    return table


def _check_metadata(metadata: Mapping[str, str]) -> None:
    for name, text in metadata.items():
        if type(name) is not str or type(text) is not str:
            raise ValueError("its metadata are not text")


def tensor_of(name: str, about: Mapping[str, Json], data_start: int) -> StoredLeaf:
    """Parse one tensor of the header, as a program that does not know ptree reads it; fields of no meaning here are ignored."""
    if not is_unicode(name):
        raise ValueError(f"{quoted(name)} cannot be a name: that is valid Unicode")
    code, shape, (start, stop) = about["dtype"], about["shape"], about["data_offsets"]
    if type(code) is not str:
        raise ValueError(f"{quoted(name)} has a dtype that is no text")
    for number in (*shape, start, stop):
        # by type: to isinstance True is an int
        if type(number) is not int or not 0 <= number < _SIZE_LIMIT:
            raise ValueError(
                f"{quoted(name)} has sizes or places that are no whole numbers from 0 on, or are too large"
            )
    dtype = DTYPES.get(code)
    places = data_start + start, data_start + stop
    if dtype is None:
        _check_bits(name, code, shape, stop - start)
        unreadable = f"is of the dtype {quoted(code)}, which this ptree does not know"
        return StoredLeaf(name, "", UNKNOWN, tuple(shape), *places, unreadable=unreadable)
    if dtype.itemsize * _count(shape, stop) != stop - start:
        raise ValueError(f"{quoted(name)} is {_tensor_shown(code, shape)}, which does not take {stop - start:,} bytes")
    unreadable = _obstacle_of_shape(code, shape, dtype)
    return StoredLeaf(name, "", dtype, tuple(shape), *places, unreadable=unreadable)


def is_unicode(text: str) -> bool:
    """Whether a name or metadata can be written as UTF-8: a string of Python, and JSON, may hold lone surrogates."""
    # `isprintable` is much faster than the loop, and true of nearly all names
    return text.isprintable() or not any("\ud800" <= character <= "\udfff" for character in text)


def _check_bits(name: str, code: str, shape: Sequence[int], size: int) -> None:
    """Raise ValueError where a tensor of less than a byte for each number, which NumPy lacks, has another size in the file."""
    bits = BITS.get(code)
    if bits is not None and bits * _count(shape, 8 * size) != 8 * size:
        raise ValueError(f"{quoted(name)} is {_tensor_shown(code, shape)}, which does not take {size:,} bytes")


def _count(shape: Sequence[int], limit: int) -> int:
    """How many numbers an array of a shape has; -1 if it has very many axes, and more numbers than the limit."""
    if len(shape) <= _MOST_AXES:
        return prod(shape)
    if 0 in shape:
        return 0
    # one by one: the product of a million sizes has millions of digits, which takes seconds
    count = 1
    for size in shape:
        count *= size
        if count > limit:
            return -1
    return count


def _obstacle_of_shape(code: str, shape: Sequence[int], dtype: np.dtype) -> str:
    """Say why NumPy cannot have an array of this shape; "" if it can."""
    if len(shape) > _MOST_AXES:
        return f"has {len(shape)} axes, and NumPy has at most {_MOST_AXES}"
    # NumPy refuses such a shape although an axis of size 0 makes it take no bytes
    if 0 in shape and dtype.itemsize * prod(filter(None, shape)) >= 1 << 63:
        return f"is {_tensor_shown(code, shape)}, longer than what NumPy can have"
    return ""


def _tensor_shown(code: str, shape: Sequence[int]) -> str:
    return shortened(f"{code}{[*shape[:_MOST_AXES]]}", _LONGEST_REASON)


def levels_problem(names: Collection[str]) -> str:
    """Say that names have so many levels that a small file would make millions of nodes; "" if they have not."""
    levels = sum(name.count("/") for name in names)
    if levels <= _LEVELS_OF_A_NAME * len(names) + _MORE_LEVELS:
        return ""
    return f"its {len(names):,} names have {levels:,} levels, more than {_LEVELS_OF_A_NAME} each"


def _checked_end(tensors: Iterable[StoredLeaf], data_start: int) -> int:
    """Where the last tensor ends; ValueError unless the tensors follow the header without a gap and without an overlap."""
    end, last = data_start, None
    for tensor in sorted(tensors, key=attrgetter("start", "stop")):
        if tensor.start != end:
            what = "overlap" if tensor.start < end else "leave a gap"
            before = "the header" if last is None else quoted(last.name)
            raise ValueError(f"the bytes of {quoted(tensor.name)} and of {before} {what}")
        end, last = tensor.stop, tensor
    return end


def split_metadata(
    text: bytes, start: bytes, metadata: Mapping[str, str], verify: bool
) -> tuple[Facts | None, dict[str, str]]:
    """Split the metadata of a header into ptree's part, checked by its checksum, and the user's.

    The facts are None if ptree wrote none. `text` is the whole JSON, which begins with `start` and its checksum; with
    `verify` they are compared.
    """
    stated, checksum = metadata.get("ptree"), metadata.get("ptree_sum")
    others = {name: value for name, value in metadata.items() if name not in ("ptree", "ptree_sum")}
    if stated is None and checksum is None:
        return None, others
    if stated is None or (verify and checksum is None):
        raise ValueError("its header is damaged: half of what ptree wrote is missing")
    if verify and (not text.startswith(start) or _recomputed(text, len(start)) != checksum):
        raise ValueError(
            "its header is damaged: it is not what its checksum says. If another program wrote it anew, load(path, verify=False) loads it"
        )
    try:
        return Facts.from_json(stated), others
    except PtreeError:
        raise  # a transform that only another process knows, or a newer format
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its metadata are damaged: {_shown(error)}") from error


def _recomputed(text: bytes, at: int) -> str:
    """Recompute the checksum of a header that holds its checksum at this place, where zeros are hashed instead."""
    return digest(text[:at] + NO_CHECKSUM.encode() + text[at + len(NO_CHECKSUM) :])


def with_facts(tensor: StoredLeaf, facts: Facts) -> StoredLeaf:
    """Add to a tensor of the header what the facts state about it.

    Raises:
        ValueError: that cannot be true of this tensor.
    """
    name = tensor.name
    leaf = replace(tensor, kind=facts.kinds.get(name, ""), checksum=facts.sums.get(name, ""))
    if name in facts.dtypes and not leaf.unreadable:
        leaf = _as_lacking(leaf, facts.dtypes[name])
    # a kind that this ptree does not know is an error only when the leaf is read
    misfit = "" if leaf.unreadable else misfit_of(leaf)
    if misfit:
        raise ValueError(f"{quoted(name)} {misfit}")
    return leaf


def _as_lacking(tensor: StoredLeaf, dtype_name: str) -> StoredLeaf:
    """Read a tensor of the header as the storage of a dtype that safetensors lacks."""
    dtype = LACKING_BY_NAME.get(dtype_name)
    if dtype is None:
        return replace(tensor, unreadable=f"is of the dtype {quoted(dtype_name)}, which this ptree does not know")
    storage = LACKING[dtype]
    # a damaged file may have fewer axes than the storage adds
    shape = tensor.shape[: max(0, len(tensor.shape) - len(storage.axes))]
    is_stored_so = (storage.dtype, (*shape, *storage.axes)) == (tensor.dtype, tensor.shape)
    if not (is_stored_so and may_have_dtype(tensor.kind, dtype)):
        raise ValueError(f"{quoted(tensor.name)} is {tensor.dtype}{[*tensor.shape]}, and cannot be {dtype} too")
    return replace(tensor, dtype=dtype, shape=shape)
