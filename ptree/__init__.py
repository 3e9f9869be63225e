"""ptree: the parameters of JAX models, by path.

A model is a pure function `f(params, x)`, and `params` is a `Tree`: an immutable nested dict that JAX flattens as fast as a
plain one. The functions on this page take a Tree or any other pytree, such as a dict or an optimiser's state, and name what
is in it by path.

>>> import numpy as np, ptree as pt
>>> params = pt.Tree({"enc": {"kernel": np.ones((4, 8)), "bias": np.zeros(8)}, "head": {"bias": np.zeros(2)}})
>>> pt.get(params, "enc/kernel").shape, pt.paths(params, "**/bias")
((4, 8), ['enc/bias', 'head/bias'])
>>> params = pt.update(params, "**/bias", lambda bias: bias + 1)    # a new tree, which shares the other leaves

Most used are `get`, `update` and `partition` on trees, `tie` for shared parameters, and `save` and `load` for files.
Below this page:

- `ptree.nn`: layers that declare their parameters; `ptree.initializers`: how these are drawn; `ptree.random`: the key of each path.
- `ptree.sharing`: more about tied parameters; `ptree.stacks`: layers of one structure as one, and a scan over them.
- `ptree.look`: statistics, differences, plots and reports of trees and files.
- `ptree.convert`: from other frameworks, and to other software.
- `ptree.train`: optimisers by path, training steps, low-rank adaptation; `ptree.shard`: where each leaf lives on many devices.

Some names in signatures stand for more than one type:

- `PyTree`: a Tree, dicts, lists, tuples, dataclasses, an optimiser's state, a module of Equinox or nnx, or a single leaf.
- `Leaf`: an array of JAX, NumPy or PyTorch, a `Param`, a number, a label.
- `Selector`: which leaves. A pattern such as `"**/bias"` or `"blocks/{0..3}/*/kernel"`, which also selects all that is below a node; a
  compiled regex for whole paths; a function `(path, leaf) -> bool`; a mask, as `mask` makes and optax takes; or a sequence of these,
  in which `"!pattern"` removes what it matches.
- `Rules`: an ordered table, selector -> value. The first that matches a leaf counts, and a rule that applies to no leaf is an error.
- `T`: the type of the tree that is given, which the result has too.

The guides are in the folder `examples/guides/`: paths, initialisation, ties, stacks, layers, files, looking, converting,
training, many devices, interop.
"""

# Each module is imported when a name of it is first used: `import ptree` stays quick, and the command line looks at files
# without JAX.
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._imports import late_names as _late_names
from ._imports import when_imported as _when_imported

__version__ = "0.2.0"

# what can go wrong
from ._errors import FileError as FileError
from ._errors import InitError as InitError
from ._errors import LayerError as LayerError
from ._errors import PathError as PathError
from ._errors import PatternError as PatternError
from ._errors import PtreeError as PtreeError
from ._errors import StructureError as StructureError
from ._errors import TieError as TieError

if _TYPE_CHECKING:
    # the tree
    from ._tree import Tree as Tree

    # reading and writing, on any pytree
    from ._edit import get as get  # what is at a path
    from ._edit import set as set  # another value at a path that exists
    from ._edit import put as put  # anything at any path
    from ._edit import update as update  # a function of each selected leaf
    from ._edit import items as items  # (path, leaf) pairs
    from ._edit import paths as paths  # the paths alone
    from ._edit import count as count  # how many numbers
    from ._edit import select as select  # the selected leaves only
    from ._edit import partition as partition  # the selected leaves, and the rest
    from ._edit import mask as mask  # True at the selected leaves
    from ._edit import merge as merge  # the inverse of partition
    from ._edit import drop as drop  # without the selected leaves
    from ._edit import rename as rename  # other names, by pattern
    from ._edit import flatten as flatten  # one flat dict, path -> leaf
    from ._edit import unflatten as unflatten  # the inverse of flatten
    from ._edit import asdict as asdict  # nested plain dicts

    # rules, and trees that should fit
    from ._edit import label as label  # a value for each leaf, by rule
    from ._edit import explain as explain  # which rule applies to which leaf
    from ._edit import check as check  # one error for all in which two trees differ

    # sharing
    from ._ties import tie as tie  # two names for one leaf
    from ._ties import untie as untie  # a leaf for each name
    from ._ties import ties as ties  # alias -> source
    from ._ties import prefix as prefix  # one value for all below a path: axes of vmap, labels
    from ._tree import transposed as transposed  # a tie through a transpose
    from . import sharing as sharing  # equal leaves, transforms of your own, the gradient of each use

    # layers as one
    from . import stacks as stacks  # stack, unstack, scan

    # drawing
    from ._draw import Param as Param  # a parameter that is not drawn yet
    from ._draw import init as init  # every parameter of a spec
    from ._draw import reinit as reinit  # some leaves again
    from ._draw import abstract as abstract  # shapes and dtypes only
    from . import random as random  # the key of each path

    # initialisers, layers, looking and keeping
    from . import initializers as initializers  # (key, shape, dtype) -> array
    from . import nn as nn  # layers
    from .files import Checkpoints as Checkpoints  # a run's last states, to go on from
    from .files import load as load  # a tree from a file
    from .files import load_report as load_report  # the same, and what became of each leaf
    from .files import open as open  # a file, read leaf by leaf
    from .files import save as save  # a tree to a file
    from . import look as look  # statistics, differences, plots, reports
    from . import convert as convert  # in from other frameworks, out to other software
    from . import shard as shard  # where each leaf lives on many devices
    from . import train as train  # optimisers by path, steps, state that follows parameters
    from .look import summary as summary  # every parameter, its shape and size

_ROOMS = {
    "_tree": "Tree transposed",
    "_edit": "get set put update items paths count select partition mask merge drop rename flatten unflatten asdict label explain check",
    "_ties": "tie untie ties prefix",
    "sharing": "sharing",
    "stacks": "stacks",
    "_draw": "Param init reinit abstract",
    "random": "random",
    "initializers": "initializers",
    "nn": "nn",
    "files": "Checkpoints load load_report open save",
    "look": "look summary",
    "convert": "convert",
    "shard": "shard",
    "train": "train",
}

__getattr__ = _late_names("ptree", _ROOMS)

# JAX must know Trees before it reads an exported function that takes one
_when_imported("jax", lambda _: _import_module("ptree._tree"))


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "Tree", "get", "set", "put", "update", "items", "paths", "count", "select", "partition", "mask", "merge", "drop",
    "rename", "flatten", "unflatten", "asdict", "label", "explain", "check", "tie", "untie", "ties", "prefix",
    "transposed", "Param", "init", "reinit", "abstract", "save", "load", "load_report", "open", "Checkpoints", "summary",
    "PtreeError", "PathError", "PatternError", "StructureError", "TieError", "InitError", "LayerError", "FileError",
    "nn", "initializers", "random", "stacks", "sharing", "look", "convert", "train", "shard",
]  # fmt: skip
