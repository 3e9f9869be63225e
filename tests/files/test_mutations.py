"""Seeded mutations of whole files: each one is found, or, behind a checksum that fits again, read as just what it says.

The long run, 100,000 of them: `pytest --hypothesis-profile=long tests/files/test_mutations.py`.
"""

import copy
import json
import random
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import xxhash
from trees import equal, language_model

import ptree as pt
from ptree._stored.dtypes import DTYPES
from ptree._tree.tie import Tie

START = len(b'{"__metadata__":{"ptree_sum":"')


def many():
    """20 kB in 160 leaves."""
    return {f"block_{i}": {"kernel": jnp.arange(24.0).reshape(4, 6) + i, "bias": np.arange(6) + i} for i in range(80)}


def kinds():
    """150 kB: each kind of leaf and dtype, keys, empty nodes, and nodes of other types."""
    numbers = np.arange(3000) % 2
    names = (
        "bool",
        "int8",
        "uint16",
        "int64",
        "float64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8_e5m2",
        "int4",
        "float4_e2m1fn",
    )
    dtypes = {name: numbers.astype(getattr(ml_dtypes, name, name)).reshape(3, -1) for name in names}
    jaxs = {
        name: jnp.asarray(numbers[:50], name)
        for name in ("float32", "int32", "bfloat16", "float8_e4m3fn", "int4", "bool")
    }
    scalars = {"i": 7, "f": 0.5, "b": True, "n": np.float32(2), "z": jnp.float32(1)}
    rest = {
        "key": jax.random.key(3),
        "keys": jax.random.split(jax.random.key(1, impl="rbg"), 4),
        "none": None,
        "empty": {},
        "size 0": jnp.zeros((0, 5)),
    }
    return {"numpy": dtypes, "jax": jaxs, "scalars": scalars, **rest}  # fmt: skip


def ties():
    """25 kB: stacks, and ties between leaves, nodes and through transforms, written out under each name."""
    model = pt.stacks.stack(pt.Tree(language_model()), "blocks")
    square = {"a": jnp.arange(1600.0).reshape(40, 40), "b": jnp.arange(1600.0).reshape(40, 40).T}
    tree = {"lm": model, "square": square, "odd \"'\\name β": jnp.ones(3), "same": {"x": square["a"]}}
    tied = {
        "lm/head/kernel": pt.transposed("lm/embed/table"),
        "square/b": pt.transposed("square/a"),
        "same/x": "square/a",
    }
    return pt.tie(tree, tied)  # fmt: skip


TREES = {"many": (many, {}), "kinds": (kinds, {}), "ties": (ties, {}), "ties, expanded": (ties, {"expand_ties": True})}


@pytest.fixture(params=TREES)
def saved(request, tmp_path):
    """The file, what it holds, and its bytes."""
    make, ways = TREES[request.param]
    file, tree = tmp_path / "m.safetensors", pt.Tree(make())
    pt.save(file, tree, metadata={"run": "7"}, **ways)
    return file, tree, file.read_bytes()


def first(data):
    return 8 + int.from_bytes(data[:8], "little")


# ----------------------------------------------------------------------------- damage


def run(draw, size, longest=4096):
    start = draw.randrange(size)
    return start, min(size, start + draw.choice([1, 2, 8, 64, longest]))


def flipped(data, draw):
    new = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 16])):
        new[draw.randrange(len(data))] ^= draw.randrange(1, 256)
    return bytes(new)


def overwritten(data, draw):
    start, stop = run(draw, len(data))
    return data[:start] + draw.choice([bytes, draw.randbytes])(stop - start) + data[stop:]


def truncated(data, draw):
    return data[: draw.randrange(len(data))]


def appended(data, draw):
    return data + draw.choice([bytes, draw.randbytes])(draw.choice([1, 8, 64, 5000]))


def doubled(data, draw):
    start, stop = run(draw, len(data))
    return data[:stop] + data[start:]


def deleted(data, draw):
    start, stop = run(draw, len(data))
    return data[:start] + data[stop:]


def swapped(data, draw):
    (a, b), (c, d) = sorted([run(draw, len(data), 256), run(draw, len(data), 256)])
    return data if c < b else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def of_another_length(data, draw):
    old = int.from_bytes(data[:8], "little")
    length = draw.choice([old + draw.randrange(-64, 64), draw.randrange(len(data)), draw.getrandbits(64), 2**64 - 1, 0])
    return max(0, length).to_bytes(8, "little") + data[8:]


def spliced(data, draw):
    """A piece of the header elsewhere in it, and the length that fits."""
    header = data[8 : first(data)]
    (a, b), (c, d) = run(draw, len(header)), run(draw, len(header))
    new = header[:a] + header[c:d] + header[b:]
    return len(new).to_bytes(8, "little") + new + data[first(data) :]


def edited(data, draw):
    """One character of the header is another, most often one that JSON knows; one digit another digit."""
    header = bytearray(data[8 : first(data)])
    at = draw.randrange(len(header))
    if draw.random() < 0.7:
        at = draw.choice([place for place, byte in enumerate(header) if 48 <= byte <= 57])
        header[at] = draw.choice(b"0123456789")
    else:
        header[at] = draw.choice(b'0129-.eE"\\[]{},: truefalsn\x00\xff/:~')
    return data[:8] + bytes(header) + data[first(data) :]


DAMAGE = [flipped, overwritten, truncated, appended, doubled, deleted, swapped, of_another_length, spliced, edited]


def test_any_damage_is_found_and_named(saved, long):
    file, tree, whole = saved
    with pt.open(file) as opened:
        places = {name: (entry.start, entry.stop) for name, entry in opened.leaves.items()}
    data_start = first(whole)
    for seed in range(12_500 if long else 250):
        draw = random.Random(seed)
        made = draw.choice(DAMAGE)
        data = made(whole, draw)
        file.write_bytes(data)
        try:
            back = pt.load(file)
        except pt.FileError as error:
            assert data != whole, (made, seed)
            assert str(file) in str(error)
            hurt = []
            if data[:data_start] == whole[:data_start] and len(data) == len(whole):
                hurt = [name for name, (a, b) in places.items() if data[a:b] != whole[a:b]]
            assert sorted(error.damaged) == sorted(hurt), (made, seed)
        else:
            assert data == whole, (made, seed)
            assert equal(back, tree)


# ----------------------------------------------------------------------------- a header that its checksum fits

STRANGE = [None, True, -1, 0, 1, 3, 2**31, 2**63, 2**64, 10**400, 0.5, 1e308, "", "a", "none", "int", "bool", "float", "scalar", "numpy",
           "torch", "key:rbg", "key:threefry2x32", "key:", "int4", "complex128", "float6_e2m3fn", "transposed", "transpose(0,1,2)", "F64", "U8",
           "C64", "BF16", "F8_E8M0", "F4", "\ud800", "\x00", "/", "a//b", ":", "a/" * 300, "x" * 5000, [], {}, [[]], [0, 0], [0, 2**62],
           [1] * 70, {"a": "b"}, {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}]  # fmt: skip


def places_in(node):
    """Each (container, key) of a JSON value."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from places_in(value)


def changed(table, draw):
    """One value, or name, is a strange one, another one of the same table, a number nearby, gone, or there twice."""
    places = list(places_in(table))
    node, key = draw.choice(places)
    if draw.random() < 0.5:  # what is rare in the table, as likely as what is not
        sort = draw.choice(sorted({type(node[key]).__name__ for node, key in places}))
        node, key = draw.choice([(node, key) for node, key in places if type(node[key]).__name__ == sort])
    other, name = draw.choice(places)
    what = draw.randrange(6)
    if what == 0 and isinstance(node[key], int):
        node[key] += draw.choice([-64, -4, -1, 1, 4, 64])
    elif what == 1:
        node[key] = copy.deepcopy(other[name])
    elif what == 2:
        del node[key]
    elif what == 3 and isinstance(node, dict):
        new = draw.choice([str(name), *(text for text in STRANGE if isinstance(text, str))])
        node[new] = node.pop(key) if draw.random() < 0.5 else copy.deepcopy(node[key])
    elif what == 4 and isinstance(node, list):
        node.insert(key, draw.choice([node[key], *STRANGE]))
    else:
        node[key] = copy.deepcopy(draw.choice(STRANGE))


def rewritten(data, draw):
    """The header changed as JSON, inside of what ptree wrote in its metadata too; half of them without checksums of the data."""
    table = json.loads(data[8 : first(data)])
    facts = json.loads(table["__metadata__"]["ptree"])
    if draw.random() < 0.5:
        facts["sums"] = {}
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        part = draw.choice(
            [
                table,
                facts,
                facts,
                *(facts[name] for name in ("order", "ties", "empty", "kinds", "dtypes") if facts.get(name)),
            ]
        )
        if isinstance(part, (dict, list)) and part:
            changed(part, draw)
    if isinstance(metadata := table.get("__metadata__"), dict) and "ptree" in metadata:
        metadata["ptree"] = json.dumps(facts)
    text = json.dumps(table, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data[first(data) :]


def sealed(data):
    """The file with the checksum of its header put right, where there is room for one."""
    header, end = data[8 : first(data)], START + 32
    blank = header[:START] + b"0" * 32 + header[end:]
    if len(header) < end or len(data) < first(data):
        return data
    return data[:8] + blank[:START] + xxhash.xxh3_128_hexdigest(blank).encode() + blank[end:] + data[first(data) :]


def bytes_of(leaf, code):
    if type(leaf).__module__ == "torch":
        return leaf.contiguous().reshape(-1).view(sys.modules["torch"].uint8).numpy().tobytes()
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf, DTYPES[code] if isinstance(leaf, (bool, int, float, complex)) else None).tobytes()


def is_what_the_header_says(tree, data):
    """Order, ties and the bytes of each leaf, by a reading of the header that has nothing of ptree's."""
    table = json.loads(data[8 : first(data)])
    metadata = table.pop("__metadata__", {})
    facts = json.loads(metadata.get("ptree", "{}"))
    ties = facts.get("ties", {})
    order = [path for path in facts.get("order", table) if path in table and path not in ties]
    assert (pt.paths(tree) if facts else sorted(pt.paths(tree))) == (order if facts else sorted(order))
    told = {alias: Tie(tie) if isinstance(tie, str) else tie for alias, tie in pt.ties(tree).items()}
    assert told.keys() == ties.keys()
    for alias, (source, names) in ties.items():
        if source not in ties:  # or it is tied to what that is tied to
            assert (told[alias].source, [step.name for step in told[alias].via]) == (source, [*names])
    for path, leaf in pt.items(tree):
        start, stop = table[path]["data_offsets"]
        assert bytes_of(leaf, table[path]["dtype"]) == data[first(data) + start : first(data) + stop], path


def test_a_damaged_header_with_a_checksum_that_fits_is_refused_or_read_as_what_it_says(saved, long):
    file, _, whole = saved
    read = 0
    for seed in range(12_500 if long else 400):
        draw = random.Random(seed)
        made = draw.choice([rewritten, rewritten, rewritten, rewritten, edited, spliced])
        data = sealed(made(whole, draw))
        file.write_bytes(data)
        measured = seed % 10 == 0
        if measured:
            tracemalloc.start()
        try:
            back = pt.load(file)
        except pt.PtreeError as error:
            assert str(file) in str(error), (made, seed)
        except Exception as error:
            raise AssertionError((made, seed)) from error
        else:
            is_what_the_header_says(back, data)
            read += 1
        if measured:
            assert tracemalloc.get_traced_memory()[1] < 10 * len(data) + 2**20
            tracemalloc.stop()
    assert read > 0
