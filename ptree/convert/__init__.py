"""Convert parameters from other frameworks, and functions into the formats of other software."""

from ._onnx.to_onnx import OnnxFile as OnnxFile
from ._onnx.to_onnx import to_onnx as to_onnx
