"""contents_of: the tensors of what torch.save wrote, by name, and the numbers and texts beside them.

The tensors of a plain state_dict have its keys as names. In `{"model": {...}, "epoch": 3}` and deeper, names are joined with
slashes, "model/encoder.weight"; an element of a list has its index.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._words import quoted, shortened
from .pickled_values import Global, PickledDict, PickledObject
from .restricted_pickle import PickleError
from .torch_tensors import (
    ATTRIBUTE_DICTS,
    DEVICE,
    NAMESPACES,
    NUMPY_ARRAYS,
    NUMPY_DTYPE,
    NUMPY_SCALARS,
    PATHS,
    StorageInfo,
    TensorInfo,
)

LONE_TENSOR = "tensor"
"""The name of the tensor in a file that holds nothing else."""
_DEEPEST = 100
_MOST_SHOWN = 16  # values of a list in the metadata
_LONGEST_QUOTED = 200
_SCALARS = str | int | float | complex | bytes | None
_NUMPY_NAME = re.compile(r"[biufc]([0-9]{1,2})")


@dataclass(frozen=True)
class PickledArray:
    """An array of NumPy, whose bytes are in the pickle."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool
    data: bytes

    def array(self) -> np.ndarray:
        flat = np.frombuffer(self.data, self.dtype)
        native = flat.astype(self.dtype.newbyteorder("="), copy=False)
        return native.reshape(self.shape, order="F" if self.is_fortran else "C")


@dataclass(frozen=True)
class TorchContents:
    """What is in a file, by name."""

    tensors: dict[str, TensorInfo | PickledArray]
    metadata: dict[str, str]


def contents_of(root: object, pickle_size: int) -> TorchContents:
    """Find the tensors and the metadata in the value of a pickle.

    Raises:
        PickleError: two tensors have one name; or containers are nested too deep, or one holds itself, or so much more than the
            pickle has bytes that the file is made to fill the memory.
    """
    tensors: dict[str, TensorInfo | PickledArray] = {}
    metadata: dict[str, str] = {}
    for name, leaf in _Walk(pickle_size).leaves(root, "", 0):
        place = name or LONE_TENSOR
        if isinstance(leaf, str):
            metadata[place] = leaf
        elif place in tensors:
            raise PickleError(f"two of its tensors would have the name {quoted(place)}")
        else:
            tensors[place] = leaf
    return TorchContents(tensors, metadata)


_Leaf = TensorInfo | PickledArray | str


class _Walk:
    """The leaves of a pickled value: tensors, and texts for the metadata.

    A pickle may refer to one container many times, in another one that it refers to many times: the number of values, and of the
    characters of their names, is bounded by the size of the pickle, of which honest files use a small part.
    """

    def __init__(self, pickle_size: int):
        self._values = 1000 + 4 * pickle_size
        self._characters = (1 << 20) + 16 * pickle_size

    def leaves(self, value: object, name: str, depth: int) -> Iterator[tuple[str, _Leaf]]:
        self._values -= 1
        if depth > _DEEPEST:
            raise PickleError(
                f"its containers are nested more than {_DEEPEST} levels deep, or hold each other in a circle"
            )
        if self._values < 0:
            raise PickleError("its containers hold each other very many times over")
        children = _children(value)
        if children is None:
            leaf = _leaf(value)
            self._characters -= len(name)
            if self._characters < 0:
                raise PickleError("the names of its values would fill the memory")
            yield name, leaf
            return
        for key, child in children.items():
            yield from self.leaves(child, f"{name}/{key}" if name else key, depth + 1)


def _children(value: object) -> dict[str, object] | None:
    """The values in a container, by the texts of their keys; None of a leaf, and a list of numbers or texts is one."""
    if isinstance(value, PickledDict):
        return _by_text(value)
    if isinstance(value, list | tuple):
        if value and all(isinstance(element, _SCALARS) for element in value):
            return None
        return {str(place): element for place, element in enumerate(value)}
    if not isinstance(value, PickledObject):
        return None
    if value.made_by.full_name in ATTRIBUTE_DICTS:
        return _by_text(value.items)
    if value.made_by.full_name in NAMESPACES:
        return _by_text(value.state) if isinstance(value.state, PickledDict) else {}
    return None


def _by_text(pickled: PickledDict) -> dict[str, object]:
    """The values of a dict by the texts of their keys; of one key that was set twice the later value."""
    kinds: dict[str, type] = {}
    values: dict[str, object] = {}
    for key, value in pickled.items():
        text = _key_text(key)
        if kinds.setdefault(text, type(key)) is not type(key):
            raise PickleError(f"a dict in it has two keys that both read {quoted(text)}")
        values[text] = value
    return values


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, Global):
        return key.full_name
    if isinstance(key, _SCALARS) or (isinstance(key, tuple) and all(isinstance(part, _SCALARS) for part in key)):
        return str(key)
    raise PickleError("a dict in it has a key that is no text and no number")


# ---------------------------------------------------------------------------- leaves


def _leaf(value: object) -> _Leaf:
    if isinstance(value, TensorInfo):
        return value
    if isinstance(value, StorageInfo):  # all of its numbers
        return TensorInfo(value.dtype, (value.count,), value, 0, (1,), problem=value.dtype.problem)
    if isinstance(value, PickledObject) and value.made_by.full_name in NUMPY_ARRAYS:
        return _numpy_array(value)
    return _text(value)


def _text(value: object) -> str:
    """A number, a text, or a list of such, as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, Global):
        return value.full_name
    if isinstance(value, list | tuple):
        shown = ", ".join(_quoted_if_text(element) for element in value[:_MOST_SHOWN])
        more = len(value) - _MOST_SHOWN
        return f"[{shown}, and {more:,} more]" if more > 0 else f"[{shown}]"
    if isinstance(value, PickledObject):
        return _object_text(value)
    return str(value)


def _quoted_if_text(value: object) -> str:
    return shortened(repr(value), _LONGEST_QUOTED) if isinstance(value, str) else _text(value)


def _object_text(value: PickledObject) -> str:
    name = value.made_by.full_name
    if name in PATHS:
        return "/".join(_text(part) for part in value.args)
    if name == DEVICE:
        return ":".join(_text(part) for part in value.args)
    if name in NUMPY_SCALARS and len(value.args) == 2:
        dtype, data = value.args
        number = PickledArray(_numpy_dtype(dtype), (), False, _array_bytes(data))
        return str(_checked(number).array()[()])
    return name


# ---------------------------------------------------------------------------- arrays of NumPy


def _numpy_array(value: PickledObject) -> _Leaf:
    """An array of NumPy by the state that its pickle sets: version, shape, dtype, order and bytes."""
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise PickleError("an array of NumPy in its pickle has no numbers")
    _, shape, dtype, is_fortran, data = state
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise PickleError("an array of NumPy in its pickle has a shape that is no shape")
    if not isinstance(data, bytes | str):
        return "an array of Python objects"
    sizes = tuple(size for size in shape if isinstance(size, int))
    return _checked(PickledArray(_numpy_dtype(dtype), sizes, is_fortran is True, _array_bytes(data)))


def _array_bytes(data: object) -> bytes:
    if isinstance(data, str):  # of Python 2
        return data.encode("latin-1")
    if isinstance(data, bytes):
        return data
    raise PickleError("an array of NumPy in its pickle has numbers that are no bytes")


def _checked(array: PickledArray) -> PickledArray:
    count = 1
    for size in array.shape:  # in Python's numbers, which do not overflow
        count *= size
    if count * array.dtype.itemsize != len(array.data) or len(array.shape) > 32:
        raise PickleError("an array of NumPy in its pickle has another number of bytes than its shape says")
    return array


def _numpy_dtype(value: object) -> np.dtype:
    """The dtype of a NumPy array by its pickle: a name such as "f4", and a state with the order of its bytes."""
    if not isinstance(value, PickledObject) or value.made_by.full_name != NUMPY_DTYPE or not value.args:
        raise PickleError("an array of NumPy in its pickle has an unknown dtype")
    name, state = value.args[0], value.state
    if not isinstance(name, str) or not _NUMPY_NAME.fullmatch(name):
        raise PickleError("an array of NumPy in its pickle has a dtype that is not of numbers")
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    try:
        return np.dtype(f"{order}{name}" if order in ("<", ">") else name)
    except TypeError:
        raise PickleError("an array of NumPy in its pickle has an unknown dtype") from None
