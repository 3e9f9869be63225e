"""open_torch_zip: files of torch.save since PyTorch 1.6, a zip archive of a pickle and one member for each storage."""

from __future__ import annotations

from .._errors import FileError
from .._words import quoted
from .foreign_file import ForeignFile
from .restricted_pickle import MOST_BYTES, PickleError, RestrictedPickle
from .torch_file import Storages, TorchError, TorchFile, checked_contents, damage, mapped
from .torch_tensors import TensorMakers
from .zip_directory import ZipDirectory, ZipError

_PICKLE = "data.pkl"
_ORDERS = {b"little": False, b"big": True}
_LONGEST_RECORD = 1000


def open_torch_zip(path: str) -> ForeignFile:
    """Open a zip archive by torch.save; only its directory and its pickle are read.

    Raises:
        FileError: TorchScript, a whole module, a pickle that calls functions, or a damaged archive.
    """
    data = mapped(path)
    try:
        directory = ZipDirectory(data)
        folder = _folder(directory)
        _refuse_scripts(path, directory, folder)
        content = directory.read(f"{folder}{_PICKLE}", MOST_BYTES)
        makers = TensorMakers()
        root = RestrictedPickle(content, makers).load()
        contents = checked_contents(path, root, makers, len(content))
        return TorchFile(path, "PyTorch (zip)", data, contents, _ZipStorages(directory, folder))
    except (ZipError, PickleError, TorchError) as error:
        raise damage(path, error) from error


def _folder(directory: ZipDirectory) -> str:
    """The folder in the archive that holds all of its members: its name with a slash."""
    found = [name for name in directory.members if name == _PICKLE or name.endswith(f"/{_PICKLE}")]
    if not found:
        raise ZipError("it has no member data.pkl")
    shortest = min(found, key=len)
    return shortest.removesuffix(_PICKLE)


def _refuse_scripts(path: str, directory: ZipDirectory, folder: str) -> None:
    has_code = any(name.startswith(f"{folder}code/") for name in directory.members)
    if has_code or f"{folder}constants.pkl" in directory.members:
        raise FileError(
            f"cannot read {quoted(path)}: it is a TorchScript archive (torch.jit.save), a program with its weights, and programs"
            " are not run: torch.save(torch.jit.load(path).state_dict(), new_path)"
        )


class _ZipStorages(Storages):
    def __init__(self, directory: ZipDirectory, folder: str):
        self._directory, self._folder = directory, folder
        self._compared: set[str] = set()
        self.is_swapped = self._is_big_endian()
        self.has_checksum_of_pickle = directory.members[f"{folder}{_PICKLE}"].has_checksum

    def _is_big_endian(self) -> bool:
        name = f"{self._folder}byteorder"
        if name not in self._directory.members:
            return False  # files of before 2.1, which count as little-endian
        order = self._directory.read(name, _LONGEST_RECORD)
        if order not in _ORDERS:
            raise TorchError(f"its member {name!a} says {order[:20]!a}, and not little or big")
        return _ORDERS[order]

    def size(self, key: str) -> int | None:
        member = self._directory.members.get(self._name(key))
        return None if member is None else member.size

    def start(self, key: str) -> int:
        return self._directory.start_of(self._directory.members[self._name(key)])

    def has_checksum(self, key: str) -> bool:
        member = self._directory.members.get(self._name(key))
        return member is not None and member.has_checksum

    def refuse_changed(self, key: str) -> None:
        if key in self._compared:  # tensors that share a storage
            return
        member = self._directory.members[self._name(key)]
        self._directory.refuse_changed(member, self._directory.start_of(member))
        self._compared.add(key)

    def _name(self, key: str) -> str:
        return f"{self._folder}data/{key}"
