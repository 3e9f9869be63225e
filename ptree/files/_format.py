"""The header of a file, as `FORMAT.md` beside this says: plain safetensors, and what only ptree knows in its metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
import xxhash

from .._errors import FileError, PtreeError
from .._tree import Tie, Tree, assemble, transform_named
from .._words import quoted

VERSION = 1
ALIGNED = 64
"""Bytes: where data begin, and every tensor whose size is a multiple of it."""

_SEAL = b'"ptree_sum":"'
_START = b'{"__metadata__":{' + _SEAL
NO_SUM = "0" * 32
"""What stands where a checksum will be."""
_LONGEST = 100_000_000  # bytes of a header; safetensors' own limit

_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
DTYPES = {code: np.dtype(getattr(ml_dtypes, name, name)) for code, name in _NAMES.items()}
"""safetensors' name of a dtype -> the dtype."""
CODES = {dtype: code for code, dtype in DTYPES.items()}

_WIDENED = (
    "int2", "int4", "uint2", "uint4", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn",
    "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz",
)  # fmt: skip
STORED: dict[np.dtype[Any], tuple[np.dtype[Any], tuple[int, ...]]] = {
    **{np.dtype(getattr(ml_dtypes, name)): (np.dtype("uint8"), ()) for name in _WIDENED if hasattr(ml_dtypes, name)},
    np.dtype("complex128"): (np.dtype("float64"), (2,)),
}
"""A dtype that safetensors does not have -> the one that its bytes are stored as, and the axes behind."""
_BY_NAME = {dtype.name: dtype for dtype in STORED}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: what it is, and its bytes, counted from the start of the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass
class Facts:
    """What the metadata say of a tree."""

    order: list[str] = field(default_factory=list)
    ties: dict[str, Tie] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    shards: dict[str, str] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    index: str = ""

    def to_json(self) -> str:
        ties = {alias: [tie.source, [step.name for step in tie.via]] for alias, tie in self.ties.items()}
        told = {name: value for name, value in {**vars(self), "ties": ties}.items() if value}
        return json.dumps({"version": VERSION, "order": [], **told})

    def of(self, names: Iterable[str], index: str) -> Facts:
        """What there is to say of these leaves in a shard."""
        kinds, dtypes, sums = (
            {name: table[name] for name in names if name in table} for table in (self.kinds, self.dtypes, self.sums)
        )
        return Facts([*names], kinds=kinds, dtypes=dtypes, sums=sums, index=index)

    @staticmethod
    def from_json(text: str) -> Facts:
        """Raises ValueError, TypeError, KeyError or AttributeError where the text is not what `to_json` writes."""
        facts = json.loads(text)
        if (version := facts.pop("version")) > VERSION:
            raise FileError(f"it has version {version} of the format; this ptree reads up to {VERSION}")
        ties = {a: Tie(s, tuple(map(transform_named, names))) for a, (s, names) in facts.pop("ties", {}).items()}
        known = {name: type(value)(facts[name]) for name, value in asdict(Facts()).items() if name in facts}
        made = Facts(**known, ties=ties)
        tables = (made.empty, made.kinds, made.dtypes, made.containers, made.sums, made.shards)
        values = (value for table in tables for value in table.values())
        names = [*made.order, *made.replaced, *(tie.source for tie in ties.values()), *values]
        if not all(type(text) is str and text for text in names):
            raise TypeError("a name in its metadata is not a string, or is empty")
        return made


@dataclass(frozen=True)
class Header:
    """All that a file says before its data; `facts` is None in a file that ptree did not write."""

    entries: dict[str, Entry]
    facts: Facts | None
    metadata: dict[str, str]
    sum: str = ""
    """Its checksum."""


def digest(data: Any) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def digest_of(parts: Iterable[Any]) -> str:
    """The digest of what follows each other."""
    whole = xxhash.xxh3_128()
    for part in parts:
        whole.update(part)
    return whole.hexdigest()


def digest_beside(pool: Executor, data: Any) -> Callable[[], str]:
    """The digest, in another thread where that is worth it; call the result to have it."""
    if data.nbytes < 1 << 20:
        found = digest(data)
        return lambda: found
    return pool.submit(digest, data).result


# ------------------------------------------------------------------------------- writing


def placed(tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> list[str]:
    """The names in the order in which their data follow each other, without gaps, each as aligned as can be.

    First those whose size is a multiple of 64 bytes, then the others by the size of a number: no gap is allowed
    between tensors, and so all but the small and odd ones can be mapped.
    """

    def key(name: str) -> tuple[bool, int]:
        dtype, shape = tensors[name]
        return dtype.itemsize * prod(shape) % ALIGNED != 0, -dtype.itemsize

    return sorted(tensors, key=key)


def header_of(
    tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], facts: Facts, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, Entry]]:
    """The bytes before the data, and where each tensor goes, in that order; the length does not depend on the sums."""
    entries: dict[str, Entry] = {}
    end = 0
    for name in placed(tensors):
        dtype, shape = tensors[name]
        entries[name] = Entry(dtype, shape, end, end := end + dtype.itemsize * prod(shape))
    table: dict[str, Any] = {"__metadata__": metadata_of(facts, metadata)}
    for name, entry in entries.items():
        offsets = [entry.start, entry.stop]
        table[name] = {"dtype": CODES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(table, separators=(",", ":")).encode()
    text = sealed(text + b" " * (-(8 + len(text)) % ALIGNED))
    first = 8 + len(text)
    moved = {name: Entry(e.dtype, e.shape, e.start + first, e.stop + first) for name, e in entries.items()}
    return len(text).to_bytes(8, "little") + text, moved


def metadata_of(facts: Facts, metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata: what ptree says, and what the user does."""
    return {"ptree_sum": NO_SUM, "ptree": facts.to_json(), **metadata}


def sealed(text: bytes) -> bytes:
    """JSON of which the first text are the zeros of `metadata_of`, with its checksum in their place."""
    at = text.index(_SEAL) + len(_SEAL)
    return text[:at] + digest(text).encode() + text[at + len(NO_SUM) :]


def sum_of(start: bytes) -> str:
    """The checksum in what `header_of` gives."""
    at = start.index(_SEAL) + len(_SEAL)
    return start[at : at + len(NO_SUM)].decode()


# ------------------------------------------------------------------------------- reading


def header_length(first: bytes, size: int) -> int:
    """How many bytes the header has, from the first eight of a file; raises ValueError where it cannot be."""
    if len(first) < 8:
        raise ValueError("it is shorter than the 8 bytes that say how long the header is")
    length = int.from_bytes(first, "little")
    if length > min(size - 8, _LONGEST):
        raise ValueError(f"its first 8 bytes say that the header has {length:,} bytes, and it has {size:,} in all")
    return length


def parsed(text: bytes, size: int, verify: bool) -> Header:
    """What the header says, every offset checked against the size of the file; raises ValueError or TieError."""
    try:
        table = json.loads(text.decode(), object_pairs_hook=once)
        metadata = table.pop("__metadata__", {})
        if not all(type(part) is str for pair in metadata.items() for part in pair):
            raise ValueError("its metadata are not text")
        entries = {name: _entry(name, about, 8 + len(text)) for name, about in table.items()}
    except (AttributeError, TypeError, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its header is damaged: {error}") from error
    _fill(entries, 8 + len(text), size)
    claimed = metadata.get("ptree_sum", "")
    facts = taken_out(text, _START, metadata, verify)
    _true_of(entries, facts or Facts())
    return Header(entries, facts, metadata, claimed)


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("it has a name twice")
    return table


def _entry(name: str, about: Any, first: int) -> Entry:
    if not name or any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(f"{quoted(name)} cannot be a name: that is valid Unicode, and not empty")
    code, shape, (start, stop) = about["dtype"], about["shape"], about["data_offsets"]
    if len(about) != 3 or not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
        raise ValueError(f"{quoted(name)} has sizes or places that are no whole numbers from 0 on")
    if code not in DTYPES:
        raise ValueError(f"{quoted(name)} is of the dtype {quoted(code)}, which NumPy and JAX do not have")
    if len(shape) > 64:
        raise ValueError(f"{quoted(name)} has {len(shape)} axes, and NumPy has at most 64")
    dtype = DTYPES[code]
    if dtype.itemsize * prod(shape) != stop - start:
        raise ValueError(f"{quoted(name)} is {code}{shape}, which does not take {stop - start:,} bytes")
    if dtype.itemsize * prod(filter(None, shape)) >= 1 << 63:
        raise ValueError(f"{quoted(name)} is {code}{shape}, longer than what NumPy can have")
    return Entry(dtype, tuple(shape), first + start, first + stop)


def _fill(entries: Mapping[str, Entry], first: int, size: int) -> None:
    """The tensors follow each other without a gap, from the first byte of the data to the last."""
    end, last = first, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            what = "overlap" if entry.start < end else "leave a gap"
            raise ValueError(f"the bytes of {quoted(name)} and of {last} {what}")
        end, last = entry.stop, quoted(name)
    if end != size:
        raise ValueError(f"it is to have {end:,} bytes, and has {size:,}")


def taken_out(text: bytes, start: bytes, metadata: dict[str, str], verify: bool) -> Facts | None:
    """What ptree wrote, taken out of the metadata, where the text begins with its checksum; None where it wrote nothing."""
    told, claimed = metadata.pop("ptree", None), metadata.pop("ptree_sum", None)
    if told is None and claimed is None:
        return None
    if told is None or (verify and claimed is None):
        raise ValueError("its header is damaged: half of what ptree wrote is missing")
    at = len(start)
    if verify and (
        not text.startswith(start) or digest(text[:at] + NO_SUM.encode() + text[at + len(NO_SUM) :]) != claimed
    ):
        raise ValueError(
            "its header is damaged: it is not what its checksum says. If another program wrote it anew, verify=False loads it"
        )
    try:
        return Facts.from_json(told)
    except PtreeError:
        raise  # what only another process or a newer ptree knows
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its metadata are damaged: {error}") from error


def _true_of(entries: Mapping[str, Entry], facts: Facts) -> None:
    """What the metadata say of a tensor can be true of it."""
    for name in facts.kinds.keys() & entries.keys() | facts.dtypes.keys() & entries.keys():
        dtype, shape, kind = entries[name].dtype, entries[name].shape, facts.kinds.get(name, "")
        if (own := stored_as(name, facts)) is not None:
            first = max(0, len(shape) - len(own[1]))
            fits, shape = (dtype, shape[first:]) == STORED[own[0]], shape[:first]
            # what only NumPy has is of NumPy
            if not fits or kind == "torch" or (kind == "" and own[0].name.startswith("float6")):
                raise ValueError(f"{quoted(name)} is {dtype}{[*entries[name].shape]}, and cannot be {own[0]} too")
        if kind in ("scalar", "bool", "int", "float") and shape:
            raise ValueError(f"{quoted(name)} has the shape {[*shape]}, and is to be one number")


def put_together(leaves: Mapping[str, Any], facts: Facts) -> Tree:
    """The tree of leaves and facts; raises ptree's errors, or ValueError where they do not fit each other."""
    empty = {path: None if kind == "none" else Tree() for path, kind in facts.empty.items()}
    values = {**empty, **facts.ties, **leaves}
    if sorted(values) != sorted(facts.order):
        lost, strange = {*facts.order} - {*values}, {*values} - {*facts.order}
        raise ValueError(f"its metadata do not fit its leaves: {sorted(lost or strange)[:3]}")
    return assemble({path: values[path] for path in facts.order})


def stored_as(name: str, facts: Facts) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """The dtype that a tensor's bytes are of, and how many axes of the tensor that takes; None where it is its own."""
    if name not in facts.dtypes:
        return None
    dtype = _BY_NAME.get(facts.dtypes[name])
    if dtype is None:
        raise FileError(f"{quoted(name)} is of the dtype {quoted(facts.dtypes[name])}, which this ptree does not know")
    return dtype, STORED[dtype][1]
