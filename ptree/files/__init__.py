"""Keeping parameters: one safetensors file, with names, ties and structure."""

from ._load import load as load
from ._save import save as save
