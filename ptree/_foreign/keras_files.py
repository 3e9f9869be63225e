"""Read Keras' files: `.keras`, `.weights.h5`, Keras 2's h5, and the datasets of any other HDF5 file, by the package h5py."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from .._errors import FileError, PtreeError
from .._stored.locations import regular_file
from .._words import listed, quoted
from .file_bytes import FileBytes
from .foreign_file import ForeignArray
from .hdf5_file import Dataset, Group, Hdf5File, all_datasets, damage_as_file_error, open_h5, parent
from .keras_layers import Config, LayerGroup, layer_groups
from .stored_member import ZIP_DAMAGE, MemberFile, is_stored, open_archive

WEIGHTS_MEMBER = "model.weights.h5"
CONFIG_MEMBER = "config.json"
_MOST_CONFIG = 1 << 27
_MOST_EXPANSION = 100
"""Keras stores weights uncompressed: a member that grows more than this is refused."""
_TOP_LEVEL = "top_level_model_weights"
"""The group of Keras 2 for variables that belong to no layer."""
_OPTIMIZER = ("optimizer", "optimizer_weights")


def open_h5_file(path: str) -> Hdf5File:
    """Open an HDF5 file: of Keras 3, of Keras 2, or of any other program, whose arrays are named by their paths.

    In a `.weights.h5` of Keras 3 names are those of its groups, `layers/dense/vars/0`: it has no others. In a file of Keras 2
    they are `hidden/kernel`. Those of the optimizer come last, under `optimizer/`. The library of HDF5 is known to crash on some
    damaged files: open those that nobody you trust has written in a process of its own.

    Raises:
        FileError: h5py is not installed, the file is damaged, or there is no array in it.
    """
    file = open_h5(str(regular_file(path)), path)
    try:
        with damage_as_file_error(path):
            return _opened(path, file)
    except BaseException:
        file.close()
        raise


def _opened(path: str, file: Group) -> Hdf5File:
    legacy = _legacy_weights(file)
    if legacy is not None:
        return _legacy(path, file, legacy)
    datasets = all_datasets(file)
    if not datasets:
        raise FileError(f"cannot read {quoted(path)}: no array is in this HDF5 file{_architecture_alone(file)}")
    is_keras = any(_is_variable(name) for name in datasets)
    return Hdf5File(path, "Keras 3 weights" if is_keras else "HDF5", file, _optimizer_last(datasets), {})


def _architecture_alone(file: Group) -> str:
    return ": it holds the architecture of a Keras model alone" if "model_config" in file.attrs else ""


def _is_variable(path: str) -> bool:
    group, _, number = path.rpartition("/")
    return number.isdigit() and (group == "vars" or group.endswith("/vars"))


def _optimizer_last(datasets: Mapping[str, Dataset]) -> dict[str, Dataset]:
    order = sorted(datasets, key=lambda name: name.split("/")[0] in _OPTIMIZER)
    return {name: datasets[name] for name in order}


# ---------------------------------------------------------------------------------- Keras 2


def _legacy_weights(file: Group) -> Group | None:
    """The group with the weights of a model in Keras 2's form; None of another file."""
    for group in (file, file.get("model_weights")):
        if group is not None and attribute_names(group, "layer_names") is not None:
            return group
    return None


def attribute_names(group: Group, name: str) -> list[str] | None:
    """Read a list of names from the attributes of a group, where Keras splits a list of more than 64 KB; None if there is none."""
    if name in group.attrs:
        return _texts(group.attrs[name])
    names: list[str] = []
    part = 0
    while f"{name}{part}" in group.attrs:
        names += _texts(group.attrs[f"{name}{part}"])
        part += 1
    return names if part else None


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.ravel(values)]


def _legacy(path: str, file: Group, weights: Group) -> Hdf5File:
    layers = attribute_names(weights, "layer_names") or []
    if _TOP_LEVEL in weights:
        layers = [*layers, _TOP_LEVEL]
    datasets: dict[str, Dataset] = {}
    for layer in layers:
        datasets = _merged(path, datasets, _legacy_layer(weights[layer], layer))
    if not datasets:
        raise FileError(f"cannot read {quoted(path)}: no layer in this file of Keras has weights")
    if "optimizer_weights" in file:
        state = all_datasets(file["optimizer_weights"])
        datasets = _merged(path, datasets, {f"optimizer/{_plain(name)}": state[name] for name in state})
    metadata = {name: _texts(weights.attrs[name])[0] for name in ("keras_version", "backend") if name in weights.attrs}
    return Hdf5File(path, "Keras 2 weights", file, datasets, metadata)


def _legacy_layer(group: Group, layer: str) -> dict[str, Dataset]:
    datasets: dict[str, Dataset] = {}
    for weight in attribute_names(group, "weight_names") or []:
        name = _legacy_name(layer, _plain(weight))
        # a name that another weight has already keeps its number: `kernel:1`
        datasets[weight if name in datasets else name] = group[weight]
    return datasets


def _legacy_name(layer: str, weight: str) -> str:
    """The name of a weight from that of its layer on, which it may repeat: `net/hidden/kernel` in `hidden` is `hidden/kernel`."""
    if layer == _TOP_LEVEL:
        return weight
    _, is_repeated, inside = f"/{weight}".partition(f"/{layer}/")
    return f"{layer}/{inside if is_repeated else weight}"


def _plain(name: str) -> str:
    return name.removesuffix(":0")


def _merged(path: str, one: Mapping[str, Dataset], other: Mapping[str, Dataset]) -> dict[str, Dataset]:
    both = one.keys() & other.keys()
    if both:
        raise FileError(f"cannot read {quoted(path)}: several arrays have the same name: {listed(sorted(both))}")
    return {**one, **other}


# ---------------------------------------------------------------------------------- .keras


class KerasFile(Hdf5File):
    """An open `.keras`. The HDF5 file in it is compared with its checksum once, before the first array is read whole."""

    def __init__(
        self,
        path: str,
        file: Group,
        datasets: Mapping[str, Dataset],
        metadata: Mapping[str, str],
        content: IO[bytes] | MemberFile,
    ):
        super().__init__(path, "Keras", file, datasets, metadata)
        self._content = content

    def has_checksum(self, name: str) -> bool:
        return True  # zip has a CRC-32 of each member

    @cached_property
    def _has_its_checksum(self) -> bool:
        if isinstance(self._content, MemberFile):
            return self._content.has_its_checksum()
        return True  # zipfile has compared what it unpacked

    def _read(self, array: ForeignArray) -> np.ndarray:
        if self.verify and not self._has_its_checksum:
            why = f"its member {WEIGHTS_MEMBER!a} is damaged: its bytes are not what its checksum says"
            raise self.damage(array, why)
        return super()._read(array)

    def close(self) -> None:
        super().close()
        self._content.close()


def open_keras(path: str) -> KerasFile:
    """Open a `.keras` file, whose arrays are named by the layers of its config: `encoder/hidden/kernel`.

    Variables of a layer of another package keep their number, `encoder/mine/vars/0`, as its class names them.

    Raises:
        FileError: h5py is not installed, or the file is damaged, or has no weights.
    """
    with open_archive(path, ".keras file") as archive, _damage_of_archive(path):
        config = _config(path, archive)
        content = _unpacked(path, archive)
    with ExitStack() as opened:
        opened.callback(content.close)
        file = open_h5(path, content)
        opened.callback(file.close)
        with damage_as_file_error(path):
            datasets = named_by_layers(all_datasets(file), config)
            keras_file = KerasFile(path, file, _optimizer_last(datasets), _versions(config), content)
        opened.pop_all()
    return keras_file


@contextmanager
def _damage_of_archive(path: str) -> Iterator[None]:
    try:
        yield
    except PtreeError:
        raise
    except ZIP_DAMAGE as error:
        raise FileError(
            f"cannot read {quoted(path)}: it is not a whole .keras file: {error}", is_damage=True
        ) from error


def _unpacked(path: str, archive: zipfile.ZipFile) -> IO[bytes] | MemberFile:
    """The HDF5 file in an archive: read in place where it is not compressed, else from a temporary file."""
    if WEIGHTS_MEMBER not in archive.namelist():
        raise FileError(f"cannot read {quoted(path)}: it has no {WEIGHTS_MEMBER}, the weights of a Keras model")
    member = archive.getinfo(WEIGHTS_MEMBER)
    if member.file_size > _MOST_EXPANSION * max(member.compress_size, 1):
        raise FileError(
            f"cannot read {quoted(path)}: {member.file_size:,} bytes of weights in {member.compress_size:,}"
        )
    if is_stored(member):
        return _in_place(path, member)
    copy = TemporaryFile()  # noqa: SIM115  # closed with the file of Keras, which reads it
    try:
        with archive.open(member) as packed:
            shutil.copyfileobj(packed, copy)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy


def _in_place(path: str, member: zipfile.ZipInfo) -> MemberFile:
    file = FileBytes(path)
    try:
        return MemberFile(file, member)
    except BaseException:
        file.close()
        raise


def _config(path: str, archive: zipfile.ZipFile) -> Config:
    if CONFIG_MEMBER not in archive.namelist():
        return None
    if archive.getinfo(CONFIG_MEMBER).file_size > _MOST_CONFIG:
        raise FileError(f"cannot read {quoted(path)}: its {CONFIG_MEMBER} has more than {_MOST_CONFIG:,} bytes")
    try:
        return json.loads(archive.read(CONFIG_MEMBER))
    except RecursionError as error:
        raise ValueError(f"{CONFIG_MEMBER} is nested too deeply") from error


def _versions(config: Config) -> dict[str, str]:
    name = config.get("class_name") if isinstance(config, dict) else None
    return {"class_name": name} if isinstance(name, str) else {}


def named_by_layers(datasets: Mapping[str, Dataset], config: Config) -> dict[str, Dataset]:
    """Name the variables of a Keras model by its layers, in the order of the model; where two have one name, by their groups."""
    layers = layer_groups(config)
    counts: dict[str, int] = {}
    for place in datasets:
        counts[parent(place)] = counts.get(parent(place), 0) + 1
    names = {place: _name_by_layer(place, layers, counts) for place in datasets}
    uses: dict[str, int] = {}
    for name in names.values():
        uses[name] = uses.get(name, 0) + 1
    named = {place: name if uses[name] == 1 else place for place, name in names.items()}
    order = {group: at for at, group in enumerate(layers)}
    places = sorted(datasets, key=lambda place: order.get(_layer_group(place), len(order)))
    return {named[place]: datasets[place] for place in places}


def _layer_group(place: str) -> str:
    """The group of the layer of a variable: `layers/dense` of `layers/dense/vars/0`."""
    return parent(parent(place))


def _name_by_layer(place: str, layers: Mapping[str, LayerGroup], counts: Mapping[str, int]) -> str:
    group = _layer_group(place)
    number = place.rpartition("/")[2]
    if not _is_variable(place) or not group:
        return place
    layer = layers.get(group)
    if layer is not None and len(layer.variables) == counts[parent(place)] and int(number) < len(layer.variables):
        return f"{layer.name}/{layer.variables[int(number)]}"
    if layer is not None:
        return f"{layer.name}/vars/{number}"
    return _name_in_unknown_layer(group, number, layers)


def _name_in_unknown_layer(group: str, number: str, layers: Mapping[str, LayerGroup]) -> str:
    """The name of a variable inside a layer of an unknown class: by the nearest layer around it that has a name."""
    above = parent(group)
    while above and above not in layers:
        above = parent(above)
    if not above:
        return f"{group}/vars/{number}"
    inside = group.removeprefix(f"{above}/")
    variable = "seed_generator_state" if inside == "seed_generator" else f"vars/{number}"
    return f"{layers[above].name}/{inside}/{variable}"
