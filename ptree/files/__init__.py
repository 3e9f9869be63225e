"""Saving and loading trees: safetensors files with names, ties, structure and checksums. `FORMAT.md` describes the format."""

from ._checkpoints import Checkpoints as Checkpoints  # a run's last states
from ._load import load as load  # a tree from a file
from ._load import load_report as load_report  # and what became of each leaf
from ._open import open as open  # a file, read leaf by leaf
from ._save import save as save  # a tree to a file
