"""summary: every parameter of a tree, spec or file, with its shape, dtype, count and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._errors import StructureError
from ..._garbage_collection import collection_paused
from .._arguments import checked_depth
from .._sources.source_of import source_of
from .result import Summary
from .rows import rows_of

if TYPE_CHECKING:
    from ..._paths import Selector
    from ..._tree import PyTree


def summary(
    thing: PyTree,
    selector: Selector | None = None,
    *,
    depth: int | None = None,
    fold: bool = True,
    of: tuple[Any, ...] | None = None,
    flops: bool = False,
    memory: bool = False,
    trainable: PyTree = None,
) -> Summary:
    """Every parameter with its shape, dtype, count and bytes; print it for a table.

    >>> from ptree import Param, Tree
    >>> block = {"attn": {"q": Param((4, 4)), "k": Param((4, 4))}, "norm": {"scale": Param((4,))}}
    >>> print(summary(Tree({"embed": Param((9, 4)), "blocks": [block] * 3, "head": Param((4,), "bfloat16")})))
    embed         [9, 4]              36  24.3%
    blocks/{0..2}/ x3                108  73.0%
      attn/       q [4, 4], k [4, 4]  96  64.9%
      norm/scale  [4]                 12   8.1%
    head          [4] bf16             4   2.7%
    ---------------------------------------------------------------------
    148 parameters, 584 B, 11 leaves; f32 97.3%, bf16 2.7%; all trainable
    >>> summary({"w": [0.5, 1]}).count
    2

    Blocks that are equal but for their names are one row with a count; one that differs has its own. It works on specs,
    abstract trees, parameters, gradients and any other pytree, and on files, of which it reads the header alone and does
    not import JAX. No values are read. A tied leaf counts once, and a Python number as one number without bytes.

    Args:
        thing: any pytree; the path of a safetensors file, its shards or index, an npz file or a folder of checkpoints; or
            a file that `ptree.open` opened.
        selector: which leaves; all by default.
        depth: how many names deep the table goes; nodes below are one row each.
        fold: False for one row for each leaf.
        of: a model and its inputs, arrays or `jax.ShapeDtypeStruct`: `of=(model, x)` adds the shape of what each leaf
            first gives in `model(thing, x)`. Nothing is computed.
        flops: with `of`, counts the floating-point operations of one call.
        memory: with `of`, compiles the call and adds what `compile().memory_analysis()` says.
        trainable: a mask, such as `ptree.mask(spec, lambda path, leaf: leaf.trainable)`, for a tree whose
            leaves do not say themselves whether they are trained.

    Raises:
        PatternError: the selector is malformed, or a part of it matches nothing.
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
        StructureError: `thing` is no tree, such as a layer; or the mask does not have the tree's paths.
        FileError, OSError: there is no file that ptree reads.
    """
    if of is None and (flops or memory):
        raise TypeError("flops=True and memory=True need the model and its inputs: of=(model, x)")
    depth = checked_depth(depth)
    with collection_paused():
        found = _without_outputs(thing, selector, trainable, depth, fold)
    if of is None:
        return found
    if found.title:
        raise StructureError("of= takes the parameters as a tree, not as a file: ptree.load it first")
    from .outputs import with_outputs  # with JAX, which a look at a file does without

    return with_outputs(found, thing, of, flops=flops, memory=memory)


def _without_outputs(
    thing: PyTree, selector: Selector | None, trainable: PyTree, depth: int | None, fold: bool
) -> Summary:
    source = source_of(thing)
    try:
        rows = rows_of(source, selector, trainable)
        about = f": {source.about}" if source.about else ""
        title = f"{source.title}{about}" if source.is_file else ""
        return Summary(tuple(rows), title, depth, fold)
    finally:
        if source is not thing:
            source.close()
