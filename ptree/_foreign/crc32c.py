"""The checksum CRC-32C of bytes, with NumPy: a long message is folded, so that most of it passes through a few large operations.

A message is the same to the checksum as a shorter one, in which each word that is left out is multiplied by a power of x, modulo
the polynomial, and added to a later word.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

_POLYNOMIAL = np.uint32(0x82F63B78)
"""Of CRC-32C (Castagnoli), the lowest bit first."""
_ROWS = (1 << 13, 1 << 6)
"""Words in a row: the message is folded row by row, first in long rows, then what is left in short ones."""
_ALL = np.uint32(0xFFFFFFFF)
_LOW = np.uint32(0xFFFF)


def crc32c(data: np.ndarray | bytes) -> int:
    """The CRC-32C of bytes.

    >>> hex(crc32c(b"123456789"))  # the check value that catalogues of checksums list
    '0xe3069283'
    """
    message = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data.reshape(-1).view(np.uint8)
    start = _ALL  # the initial value of the checksum is added to the first word
    for words in _ROWS:
        row_count = message.size // (4 * words)
        if row_count > 1:
            end = row_count * 4 * words
            message = np.concatenate([_folded(message[:end], 4 * words, start), message[end:]])
            start = np.uint32(0)
    return int(_by_bytes(message, start) ^ _ALL)


def masked_crc32c(data: np.ndarray | bytes) -> int:
    """The checksum as TensorFlow stores it: rotated, and with a constant added."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _folded(rows: np.ndarray, row_bytes: int, start: np.uint32) -> np.ndarray:
    """One row of bytes that is the same to the checksum as all rows together."""
    low_table, high_table = _advance_tables(row_bytes)
    state = np.frombuffer(rows[:row_bytes], np.uint32).copy()
    state[0] ^= start
    step = np.empty_like(state)
    for at in range(row_bytes, rows.size, row_bytes):
        np.take(low_table, state & _LOW, out=step)
        step ^= high_table[state >> 16]
        step ^= np.frombuffer(rows[at : at + row_bytes], np.uint32)
        state, step = step, state
    return state.view(np.uint8)


def _by_bytes(message: np.ndarray, state: np.uint32) -> np.uint32:
    table = _byte_table()
    crc = int(state)
    for byte in message.tolist():
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return np.uint32(crc)


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    """The checksum of each byte, from zero on."""
    return _advanced_by_a_byte(np.arange(256, dtype=np.uint32)).tolist()


def _advanced_by_a_byte(words: np.ndarray) -> np.ndarray:
    for _ in range(8):
        words = (words >> 1) ^ np.where(words & 1, _POLYNOMIAL, np.uint32(0))
    return words


@lru_cache(maxsize=len(_ROWS))
def _advance_tables(count: int) -> tuple[np.ndarray, np.ndarray]:
    """What each lower and each upper half of a word becomes when `count` zero bytes, a power of two, follow it."""
    images = _advanced_by_a_byte(np.uint32(1) << np.arange(32, dtype=np.uint32))  # of each bit
    for _ in range(count.bit_length() - 1):
        images = _applied(images, images)  # twice as far
    halves = np.arange(1 << 16, dtype=np.uint32)
    return _applied(images, halves), _applied(images, halves << 16)


def _applied(images: np.ndarray, words: np.ndarray) -> np.ndarray:
    """A linear map, given by the image of each bit, of words."""
    result = np.zeros_like(words)
    for bit in range(32):
        result ^= np.where((words >> np.uint32(bit)) & 1, images[bit], np.uint32(0))
    return result
