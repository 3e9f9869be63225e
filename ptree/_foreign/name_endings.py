"""NameEnding: what the ending of a file's name says of its format, and which function of ptree writes that format."""

from __future__ import annotations

from dataclasses import dataclass

from .._words import quoted


@dataclass(frozen=True)
class NameEnding:
    """An ending of names that other programs give to files of their format."""

    ending: str
    kind: str
    """For messages, "a file of PyTorch"."""
    writer: str = "ptree.convert.write({path}, tree)"
    """The call that writes such a file to a path; "" where ptree has none."""
    is_read: bool = True

    def call_that_writes(self, path: str) -> str:
        """The call that writes such a file to this path; "" where ptree has none."""
        return self.writer.format(path=quoted(path))

    def safetensors_name(self, path: str) -> str:
        """The name that a file of safetensors has instead of this one."""
        return path.removesuffix(self.ending) + ".safetensors"


_ENDINGS = (
    NameEnding(".pt", "a file of PyTorch"),
    NameEnding(".pth", "a file of PyTorch"),
    NameEnding(".bin", "a file of PyTorch"),
    NameEnding(".ckpt", "a checkpoint of PyTorch or TensorFlow"),
    NameEnding(".h5", "an HDF5 file"),
    NameEnding(".hdf5", "an HDF5 file"),
    NameEnding(".keras", "a file of Keras", "ptree.convert.write({path}, tree, template=)"),
    NameEnding(".msgpack", "a file of Flax"),
    NameEnding(".params", "a file of MXNet"),
    NameEnding(".index", "the index of a checkpoint of TensorFlow"),
    NameEnding(".npz", "an archive of NumPy"),
    NameEnding(".gguf", "a file of GGUF"),
    NameEnding(
        ".onnx", "a model of ONNX", "ptree.convert.to_onnx(function, params, *inputs, path={path})", is_read=False
    ),
    NameEnding(".npy", "an array of NumPy", "", is_read=False),
    NameEnding(".pkl", "a pickle of Python", "", is_read=False),
    NameEnding(".pickle", "a pickle of Python", "", is_read=False),
)


def name_ending(path: str) -> NameEnding | None:
    """Find the ending of a path that is another format's than safetensors; None where it ends otherwise.

    >>> name_ending("run/model.pt").kind
    'a file of PyTorch'
    """
    return next((known for known in _ENDINGS if path.endswith(known.ending)), None)


def ends_as_a_read_format(name: str) -> bool:
    """Whether a name ends as those of files of another format do that ptree reads."""
    ending = name_ending(name)
    return ending is not None and ending.is_read
