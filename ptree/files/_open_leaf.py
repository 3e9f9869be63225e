"""OpenLeaf and OpenAlias: a leaf, or a tied name, in an open file; its shape is known, and `[...]` or a slice reads numbers."""

from __future__ import annotations

from functools import cached_property

import jax
import numpy as np

from .._errors import FileError
from .._tree import Leaf, Tie
from ._checksums import digest
from ._kinds import JAX_ARRAY, leaf_of
from ._leaf_parts import Index, run_of
from ._safetensors import SafetensorsFile
from ._saved_tree import damage_error
from ._stored_leaf import StoredLeaf


class OpenLeaf:
    """A leaf in an open file; `[...]` reads it as it was saved, `[:8]` reads a part as an array."""

    def __init__(self, stored: StoredLeaf, file: SafetensorsFile, verify: bool):
        self.stored, self._file, self._verify = stored, file, verify
        self.name, self.shape, self.dtype, self.nbytes = stored.name, stored.shape, stored.dtype, stored.nbytes

    def __getitem__(self, index: Index) -> Leaf:
        try:
            # the whole leaf as it was saved, a number as a number; a part is an array, which has no kind of its own
            if index is ...:
                return leaf_of(self._array(()), self.stored)
            part = np.asarray(self._array(index))
            return JAX_ARRAY.leaf_of(part, self.stored) if self.stored.kind == "" else part
        except FileError as error:
            if error.is_damage:
                raise
            raise FileError(f"cannot load {self._file.path!r}: {error}") from None

    def _array(self, index: Index) -> np.ndarray:
        """Read a part as a NumPy array: the bytes from its first number to its last, compared if these are all of the leaf."""
        run = run_of(index, self.shape)
        flat = self._file.run(self.stored, run.first, run.count)
        checksum = self.stored.checksum if self._verify else ""
        if checksum and flat.nbytes == self.nbytes and digest(flat.view(np.uint8)) != checksum:
            raise damage_error(self._file.path, [self.name])
        return flat.reshape(run.shape)[run.index]

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array(()), dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{self.name!r}: {self.dtype}{[*self.shape]} in {self._file.path!r}"


class OpenAlias:
    """A tied name in an open file: it reads as its source does through the tie."""

    nbytes = 0  # the bytes are those of its source

    def __init__(self, name: str, tie: Tie, source: OpenLeaf):
        self.name, self.tie, self.source = name, tie, source

    def __getitem__(self, index: Index) -> Leaf:
        # whole: which of its bytes a part takes depends on the tie, a transpose for example
        whole = self.tie.read(self.source[...])
        return whole if index is ... else whole[index]

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def _abstract(self) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(self.tie.read, jax.ShapeDtypeStruct(self.source.shape, self.source.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._abstract.shape

    @property
    def dtype(self) -> np.dtype:
        return self._abstract.dtype

    def __repr__(self) -> str:
        return f"{self.name!r}: {self.tie.shown()!r} in {self.source.stored.name!r}"
