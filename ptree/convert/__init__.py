"""From other frameworks, and to other software: files, tables of names and operations, proof by numbers, ONNX and StableHLO.

>>> import numpy as np
>>> from ptree import convert
>>> table = convert.Table({"0.weight": ("dense/kernel", convert.linear), "0.bias": "dense/bias"})
>>> arrays = table.apply({"0.weight": np.ones((8, 4), "f4"), "0.bias": np.zeros(8, "f4")})
>>> {path: array.shape for path, array in arrays.items()}
{'dense/kernel': (4, 8), 'dense/bias': (8,)}
>>> list(table.inverse.apply(arrays))
['0.weight', '0.bias']

Most used are `Table`, `layer_table`, which makes one for a model of `ptree.nn`, and `verify`, which calls both models on the same inputs.
Guide: `examples/guides/converting.md`.

The names in lower case from `add` to `zero_part` are operations: what a row of a table does with its arrays. `a >> b` is one after the other,
`operation.inverse` the way back, and `operation.apply([array])` gives the changed arrays, views where NumPy can. An option
that makes no sense is a `ptree.PatternError`; arrays that an operation does not fit are listed by `Table.plan`.
"""

# files of other frameworks
from ._files import read as read  # all arrays of a file, by name
from ._files import write as write  # named arrays as a file

# isort: split
# a conversion, planned, applied and inverted
from ._layouts.layer_table import layer_table as layer_table  # the table of a model of layers and another framework
from ._table.conversion_plan import Plan as Plan  # what a table would do
from ._table.table import Table as Table  # names of a source -> names of a target

# isort: split
# proposals of tables
from ._suggest.suggest import suggest as suggest  # a table from names and shapes, its doubts marked
from ._suggest.suggestion import SuggestedRow as SuggestedRow  # one row of it
from ._suggest.suggestion import Suggestion as Suggestion  # the proposal

# isort: split
# the operations of a table
from ._operations.public import add as add  # a constant added
from ._operations.public import as_is as as_is  # no change, said
from ._operations.public import carry as carry  # kept, to be written back
from ._operations.public import cast as cast  # another dtype
from ._operations.public import concatenate as concatenate  # several arrays as one
from ._operations.public import conv as conv  # (out, in, *window) -> (*window, in, out)
from ._operations.public import conv_transpose as conv_transpose  # (in, out, *window) -> (*window, in, out)
from ._operations.public import depthwise as depthwise  # (*window, in, multiplier) -> (*window, 1, in * multiplier)
from ._operations.public import expand as expand  # a further axis of size 1
from ._operations.public import fill as fill  # left out, and a constant on the way back
from ._operations.public import first as first  # of arrays that hold the same; one way
from ._operations.public import flatten_order as flatten_order  # rows that read flattened features, in another order
from ._operations.public import flip as flip  # numbers along axes in reverse
from ._operations.public import gates as gates  # equal parts of an axis in another order
from ._operations.public import heads as heads  # (..., heads * size) -> (..., heads, size)
from ._operations.public import linear as linear  # (out, in) <-> (in, out)
from ._operations.public import merge_axes as merge_axes  # several axes as one
from ._operations.public import permute as permute  # axes in another order
from ._operations.public import repeat as repeat  # each number several times
from ._operations.public import reshape as reshape  # another shape, both said
from ._operations.public import shared_bias as shared_bias  # one bias for the two of a GRU
from ._operations.public import split as split  # one array as several
from ._operations.public import split_axis as split_axis  # one axis as several
from ._operations.public import squeeze as squeeze  # without an axis of size 1
from ._operations.public import stack as stack  # arrays of one shape along a new axis
from ._operations.public import summed as summed  # the sum of several arrays; one way
from ._operations.public import swap as swap  # two axes in each other's place
from ._operations.public import unstack as unstack  # the inverse of stack
from ._operations.public import unsummed as unsummed  # the inverse of summed: an array, and zeros
from ._operations.public import weight_norm as weight_norm  # g * v / ||v||; one way
from ._operations.public import zero_fill as zero_fill  # an array, and zeros of its shape
from ._operations.public import zero_part as zero_part  # a further part of zeros along an axis

# isort: split
# proof by numbers, and out to other software
from ._onnx.to_onnx import OnnxFile as OnnxFile  # what to_onnx wrote
from ._onnx.to_onnx import to_onnx as to_onnx  # a function for any software that runs ONNX
from ._stablehlo.to_stablehlo import StableHlo as StableHlo  # what to_stablehlo wrote
from ._stablehlo.to_stablehlo import to_stablehlo as to_stablehlo  # a function for any process with JAX
from ._verify.comparison import Comparison as Comparison  # one value of the source beside ours
from ._verify.verification import Verification as Verification  # what verify found
from ._verify.verification import VerificationError as VerificationError  # the error of Verification.check
from ._verify.verify import verify as verify  # both functions on the same inputs

__all__ = [
    "read", "write", "Table", "layer_table", "suggest", "verify", "to_onnx", "to_stablehlo", "as_is", "linear", "conv",
    "conv_transpose", "depthwise", "permute", "swap", "flip", "squeeze", "expand", "split_axis", "merge_axes", "heads",
    "reshape", "flatten_order", "split", "concatenate", "gates", "stack", "unstack", "repeat", "add", "cast", "fill",
    "carry", "first", "summed", "unsummed", "zero_fill", "zero_part", "shared_bias", "weight_norm", "Plan", "Suggestion",
    "SuggestedRow", "Verification", "Comparison", "VerificationError", "OnnxFile", "StableHlo",
]  # fmt: skip
