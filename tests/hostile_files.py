"""Damaged files: cut at every byte, or with other bytes, and what a reader may do with them."""

import random
import tracemalloc

import numpy as np

from ptree import FileError

_MEASURED = 10
"""Of so many versions of a file the memory of one is measured, which takes ten times as long as to read it."""
MOST_MEMORY = 32 << 20
"""Bytes that a reader may take for a damaged file of a few KB."""


def cut(data, step=1):
    """The first bytes of a file: none, the first, and so on."""
    for length in range(0, len(data), step):
        yield data[:length]


def changed(data, count, seed=0):
    """Files with one to three bytes changed: inverted, or with the values that break most parsers."""
    numbers = random.Random(seed)
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(numbers.randint(1, 3)):
            at = numbers.randrange(len(copy))
            copy[at] = numbers.choice([0x00, 0x01, 0x7F, 0x80, 0xFF, copy[at] ^ (1 << numbers.randrange(8))])
        yield bytes(copy)


def read_all(open_file, path):
    """All arrays of a file that can be read; None if it is refused."""
    try:
        with open_file(str(path)) as file:
            found = {}
            for name, array in file.arrays.items():
                try:
                    found[name] = file.read(name)
                except FileError:
                    found[name] = None
                    continue
                assert found[name].shape == array.shape
                assert found[name].dtype == array.dtype
            return found
    except FileError:
        return None


def check_damaged(open_file, path, versions, right=None):
    """Read damaged versions of a file; each is refused, or arrays are what the file says.

    Args:
        open_file: the function that opens a file by its path.
        path: where to write them.
        versions: their bytes.
        right: the values of a format with checksums: an array has them, if it is read at all.

    Returns:
        How many versions were refused as a whole, and how many there were.
    """
    refused = count = 0
    for data in versions:
        path.write_bytes(data)
        is_measured = count % _MEASURED == 0
        found = _with_measured_memory(open_file, path) if is_measured else read_all(open_file, path)
        count += 1
        refused += found is None
        for name, values in (found or {}).items():
            if right is not None and values is not None and name in right:
                np.testing.assert_array_equal(values, right[name])
    return refused, count


def _with_measured_memory(open_file, path):
    tracemalloc.start()
    try:
        found = read_all(open_file, path)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    return found
