"""open_torch_legacy: files of torch.save before PyTorch 1.6, five pickles and then the storages, one after the other."""

from __future__ import annotations

import mmap

from .foreign_file import ForeignFile
from .pickled_values import PickledDict
from .restricted_pickle import PickleError, RestrictedPickle
from .torch_file import Storages, TorchError, TorchFile, checked_contents, damage, mapped
from .torch_tensors import StorageInfo, TensorMakers

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = 8  # bytes before each storage, the number of its numbers


def open_torch_legacy(path: str) -> ForeignFile:
    """Open a file of the old format; only its pickles are read. It has no checksums.

    Raises:
        FileError: a whole module, a pickle that calls functions, or a damaged file.
    """
    data = mapped(path)
    makers = TensorMakers()
    try:
        start = _end_of_preamble(data)
        pickle = RestrictedPickle(data, makers, start)
        root = pickle.load()
        contents = checked_contents(path, root, makers, pickle.at - start)
        keys = RestrictedPickle(data, makers, pickle.at)
        storages = _LegacyStorages(data, keys.load(), makers.storages, keys.at)
        return TorchFile(path, "PyTorch (legacy)", data, contents, storages)
    except (PickleError, TorchError) as error:
        raise damage(path, error) from error


def _end_of_preamble(data: mmap.mmap) -> int:
    """Read the three pickles before the contents: a magic number, a version, and the order of bytes."""
    makers = TensorMakers()
    magic = RestrictedPickle(data, makers)
    if magic.load() != _MAGIC:
        raise TorchError("it does not begin with the magic number of torch.save")
    version = RestrictedPickle(data, makers, magic.at)
    number = version.load()
    if number != _VERSION:
        raise TorchError(f"it is of version {number!a} of PyTorch's old format, and 1001 is read")
    system = RestrictedPickle(data, makers, version.at)
    if not isinstance(system.load(), PickledDict):
        raise TorchError("it does not say on which system it was written")
    return system.at


class _LegacyStorages(Storages):
    """Storages one after the other, each behind the count of its numbers; on every system least significant byte first."""

    def __init__(self, data: mmap.mmap, keys: object, infos: dict[str, StorageInfo], at: int):
        self._places: dict[str, tuple[int, int]] = {}
        """Key -> first byte and number of bytes."""
        if not isinstance(keys, list):
            raise TorchError("it does not list its storages")
        for key in keys:
            if not isinstance(key, str) or key not in infos or key in self._places:
                raise TorchError("its list of storages is damaged")
            count = int.from_bytes(data[at : at + _COUNT], "little")
            nbytes = count * infos[key].dtype.numpy.itemsize
            at += _COUNT
            if at + nbytes > len(data):
                raise TorchError(f"it is cut short: its storages need {at + nbytes - len(data):,} bytes more")
            self._places[key] = (at, nbytes)
            at += nbytes

    def size(self, key: str) -> int | None:
        place = self._places.get(key)
        return None if place is None else place[1]

    def start(self, key: str) -> int:
        return self._places[key][0]

    def has_checksum(self, key: str) -> bool:
        return False

    def refuse_changed(self, key: str) -> None:
        """The format has no checksums."""
