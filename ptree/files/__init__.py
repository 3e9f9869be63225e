"""Keeping parameters: safetensors files, with names, ties, structure and checksums. `FORMAT.md` is the format."""

from ._checkpoints import Checkpoints as Checkpoints
from ._load import load as load
from ._open import open as open
from ._save import save as save
