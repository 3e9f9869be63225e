"""Draw the parameters of a spec by initialisers and rules (init, with jobs and placements), draw some again (reinit), give shapes
(abstract)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh, Sharding

from .._edit import (
    Rules,
    Selected,
    Selector,
    assign,
    assign_values,
    choose_layers,
    differences,
    get_or,
    leaves,
    replace_leaves,
    set,
    structure_error,
    with_masks,
)
from .._errors import InitError, PathError, PatternError
from .._shardings import Shardings, constrained, deleted, placement, shardings_for
from .._tree import MISSING, Leaf, Leaves, PyTree, Tree
from .._words import describe, lines, listed, quoted
from ..stacks import layer_shape, stack_sizes
from .equinox_weights import warn_of_swapped_axes
from .keys import refuse_swapped
from .param import Param, holds_numbers
from .programs import Job, draw
from .scheme_sites import initializer_at

if TYPE_CHECKING:  # a sixth of the time of `import ptree`, which draws nothing
    from ..initializers import Initializer


def init(
    spec: Tree | Mapping[str, PyTree],
    key: jax.Array,
    rules: Rules | None = None,
    *,
    strict: bool = True,
    shardings: Shardings | None = None,
    mesh: Mesh | None = None,
) -> Tree:
    """Draw every parameter of a spec.

    >>> from ptree import initializers as I
    >>> spec = Tree({"enc": {"kernel": Param((4, 8), init=I.normal(0.01)), "bias": Param((8,))}})
    >>> init(spec, jax.random.key(0), {"**/bias": I.zeros})
    Tree(
      enc/kernel  f32[4,8]
      enc/bias    f32[8]
    )

    A rule overrides what the spec declares. Arrays beside the Params stay as they are, the same objects, where no rule
    takes them, so a training step, which donates its parameters, deletes them in the spec too. A spec of arrays alone is refused, as `reinit` draws those again. Ties stay. The value at a path depends on the key and the path, not on what else is in
    the spec, nor on the shardings: a spec can be drawn piece by piece, `init(select(spec, piece), key)`.

    What a rule says of a leaf in a stack it says of one layer: an initialiser sees the layer's shape, and a
    `PartitionSpec` has entries for the layer's axes. A rule that spells the stack, `"blocks/:/kernel"`, gives a
    `PartitionSpec` for the whole stack, with an entry for its own axis.

    An initialiser must be pure, as all that JAX compiles: it is run once for each shape and dtype, and the program that
    JAX made of it then serves for the rest of the process. One that draws from `numpy.random`, or reads what changes
    later, gives every leaf of one shape the same values; initialisers that are equal share a program. Works under
    `jax.eval_shape`, and inside `jax.jit`, where XLA may round the last bit in another way.

    Args:
        spec: a Tree of `Param`, or a mapping that becomes one. `jax.ShapeDtypeStruct` leaves need a rule.
        key: `jax.random.key(seed)`, or a raw `jax.random.PRNGKey(seed)`.
        rules: selector -> initialiser, first match wins.
        strict: whether a rule that applies to no leaf is an error.
        shardings: where the parameters are to live: a `jax.sharding.Sharding` or `PartitionSpec` for all, a
            tree of them, rules selector -> one, or a `ptree.shard.Plan`. Each shard is drawn where it lives. A Sharding at
            a leaf's place in a tree is that of the whole array, stack axes included.
        mesh: the mesh of the PartitionSpecs; by default that of `jax.set_mesh`.

    Raises:
        PatternError: a rule that applies to no leaf, a parameter without a sharding.
        InitError: parameters without an initialiser, or one that fails, or that returns NaN or another shape
            or dtype; a spec that has arrays alone, without rules; a sharding that does not fit its parameter, or on a mesh
            without devices; a spec and a key in the wrong order; arrays of the spec that were donated.
        StructureError: a plan of another spec.
    """
    refuse_swapped(spec, key, "init(spec, key)")
    refuse_swapped(rules, key, "init(spec, key, rules)", order=(spec, key, rules))
    # a mesh alone would be ignored, and all parameters be on one device
    if mesh is not None and shardings is None:
        raise InitError("mesh= is the mesh of PartitionSpecs: give shardings= too")
    spec = Tree(spec)
    declared = dict(leaves(spec))
    initializers = _chosen_initializers(spec, declared, rules, strict)
    changes_nothing = not initializers and not rules and shardings is None
    if declared and changes_nothing:
        raise InitError(
            "init draws the Params of a spec and keeps its arrays, and in this spec every leaf is an array already:"
            " draw them again with reinit(params, key, rules)"
        )
    if shardings is None:  # a ShapeDtypeStruct may say where it is to live
        placed = _placements(declared, initializers)
    else:
        placed = shardings_for(spec, shardings, mesh)
    _refuse_deleted([(path, leaf) for path, leaf in declared.items() if path not in initializers])
    jobs = _jobs(spec, declared, initializers, placed)
    warn_of_swapped_axes(spec, declared, initializers, stacklevel=2)
    drawn = draw(jobs, key)
    return replace_leaves(spec, {**drawn, **_placed_arrays(declared, placed, drawn)})


def declared_jobs(spec: PyTree, rules: Rules | None = None) -> dict[str, Job]:
    """What `init` would draw with these rules, path -> job, without drawing; of leaves that have an initialiser alone.

    Raises:
        PatternError: a rule that applies to no leaf.
        InitError: a leaf without shape and dtype that a rule applies to.
    """
    ruled = assign(spec, rules, for_axes=True) if rules else {}
    declared = dict(leaves(spec))
    own = {path: leaf.init for path, leaf in declared.items() if _declares_initializer(leaf)}
    return _jobs(spec, declared, {**own, **ruled}, {})


def _chosen_initializers(
    spec: Tree, declared: Mapping[str, Leaf], rules: Rules | None, strict: bool
) -> dict[str, Initializer]:
    """Choose the initialiser of each leaf to draw, by the rules or as the spec declares it: path -> initialiser."""
    ruled = assign(spec, rules, strict, for_axes=True) if rules else {}
    initializers: dict[str, Initializer] = {}
    undeclared: list[str] = []
    for path, leaf in declared.items():
        if path in ruled:
            initializers[path] = ruled[path]
        elif _declares_initializer(leaf):
            initializers[path] = leaf.init
        elif not hasattr(leaf, "__array__"):  # an array of any library stays
            undeclared.append(path)
    if undeclared:
        raise InitError(
            f"no initialiser for {listed(undeclared)}: give Param(..., init=...), or a rule such as"
            " {'**/bias': initializers.zeros}"
        )
    return initializers


def _refuse_deleted(kept: Leaves) -> None:
    """Raise if arrays of a spec, which `init` hands on, are not there any more.

    Raises:
        InitError: their memory was donated.
    """
    gone = deleted(kept)
    if gone:
        raise InitError(
            f"the spec holds arrays that were deleted: {listed(gone)}. init hands on the arrays of a spec as they are, and a training"
            " step uses the memory of its parameters again. Make the spec again, with NumPy arrays, which stay, or give the step a"
            " copy: step.init(jax.tree.map(jnp.copy, params))"
        )


def _declares_initializer(leaf: Leaf) -> bool:
    return isinstance(leaf, Param) and leaf.init is not None


def _placements(leaf_at: Mapping[str, Leaf], paths: Iterable[str]) -> dict[str, Sharding]:
    """Find the shardings that leaves of a spec or tree have already: path -> sharding."""
    shardings: dict[str, Sharding] = {}
    for path in paths:
        sharding = placement(leaf_at[path])
        if sharding is not None:
            shardings[path] = sharding
    return shardings


def _placed_arrays(
    declared: Mapping[str, Leaf], placed: Mapping[str, Sharding], drawn: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Place the arrays of a spec, which are not drawn, by their shardings."""
    # inside of `jit` it is XLA that places arrays, by constraints
    inside_jit = any(isinstance(value, Tracer) for value in drawn.values())
    put = constrained if inside_jit else jax.device_put
    return {path: put(declared[path], sharding) for path, sharding in placed.items() if path not in drawn}


def reinit(
    params: PyTree,
    key: jax.Array,
    rules: Rules | Selector,
    *,
    spec: PyTree = None,
    strict: bool = True,
) -> PyTree:
    """Draw again the leaves that the rules match; all others stay the same objects.

    >>> from ptree import initializers as I
    >>> spec = Tree({"enc": {"kernel": Param((2, 2), init=I.normal(1.0)), "bias": Param((2,), init=I.zeros)}})
    >>> params = init(spec, jax.random.key(0))
    >>> reinit(params, jax.random.key(1), {"**/bias": I.constant(3)})["enc/bias"]
    Array([3., 3.], dtype=float32)
    >>> again = reinit(params, jax.random.key(0), "enc", spec=spec)      # as it was declared
    >>> bool((again["enc/kernel"] == params["enc/kernel"]).all())
    True

    Weights of Equinox are (out, in), and initialisers take (in, out) unless they are told: `lecun_normal(in_axis=-1,
    out_axis=-2)`. A warning says so where a layer of Equinox is in the tree.

    In a stack a number selects single layers, which draw what they would draw if the layers were apart. Works on any
    pytree of arrays, from their shapes; dtypes, ties, containers and shardings stay (inside of
    `jit` those of meshes with explicit axes, as JAX knows no others there). A leaf without elements is kept.

    Args:
        params: any pytree of arrays.
        key: as for `init`; the same key draws what `init` drew.
        rules: selector -> initialiser; or with `spec` a selector alone, which may be a mask.
        spec: the declaration of the parameters, for a selector alone.
        strict: whether a rule that applies to no leaf is an error.

    Raises:
        PatternError: a rule that applies to no leaf; a selector or a mask without `spec`.
        PathError: a selected leaf that the spec does not have.
        StructureError: a selected leaf of another shape or dtype than in the spec.
        InitError: a leaf that is no array, or an initialiser that fails or returns NaN or another shape or dtype;
            the tree and the key in the wrong order.
    """
    refuse_swapped(params, key, "reinit(params, key, rules)")
    refuse_swapped(rules, key, "reinit(params, key, rules)", order=(params, key, rules))
    if spec is not None:
        rules = with_masks(params, rules)  # a mask that is a mapping is no rules
    elif _is_mask(rules):
        raise PatternError(
            "reinit takes rules, selector -> initialiser, and got a mask: to draw its leaves as they were declared, give spec="
        )
    if isinstance(rules, Mapping):
        chosen = assign_values(params, rules, strict)
    elif spec is not None:
        chosen = _declared_initializers(choose_layers(params, rules), spec)
    else:
        raise PatternError(
            "reinit takes rules, selector -> initialiser; to draw the leaves of a selector as they were declared, give spec="
        )
    leaf_at: dict[str, Leaf] = {}
    initializers: dict[str, Initializer] = {}
    single_layers: list[str] = []
    for selected, initializer in chosen:
        leaf = selected.value()
        if _has_no_elements(leaf):  # there is nothing to draw, and `draw` would refuse it
            continue
        leaf_at[selected.path] = leaf
        initializers[selected.path] = initializer
        # layers are written one by one below: all other leaves are replaced in a single pass
        if selected.layers:
            single_layers.append(selected.path)
    jobs = _jobs(params, leaf_at, initializers, _placements(leaf_at, initializers))
    warn_of_swapped_axes(params, leaf_at, initializers, stacklevel=2)
    drawn = draw(jobs, key)
    changed = replace_leaves(params, drawn)
    for path in single_layers:
        changed = set(changed, path, drawn[path])
    return changed


def _has_no_elements(leaf: Leaf) -> bool:
    """Whether a leaf has no elements to draw."""
    return 0 in getattr(leaf, "shape", ())


def _is_mask(rules: object) -> bool:
    """Whether rules are a mask: its leaves are bools, and no initialisers."""
    if not isinstance(rules, Mapping):
        return False
    marks = leaves(rules)
    return bool(marks) and all(isinstance(mark, bool | np.bool_) for _, mark in marks)


def _declared_initializers(chosen: Sequence[Selected], spec: PyTree) -> list[tuple[Selected, Initializer]]:
    """Find the initialiser that the spec declares for each selected leaf, or layer of a leaf, to draw it again."""
    selected = {one.path: one.value() for one in chosen}
    declared = {path: get_or(spec, path, MISSING) for path in selected}
    missing = [path for path, leaf in declared.items() if leaf is MISSING]
    if missing:
        raise PathError(f"the spec has no {listed(missing)}")
    different = differences(declared, selected)
    if different:
        sides = (" in the spec", " in the tree")
        raise structure_error("cannot draw by the spec", different, declared, selected, sides=sides)
    undeclared = [path for path, leaf in declared.items() if not _declares_initializer(leaf)]
    if undeclared:
        raise InitError(f"the spec declares no initialiser for {listed(undeclared)}")
    return [(one, declared[one.path].init) for one in chosen]


# ------------------------------------------------------------------------------ jobs


def _jobs(
    tree: PyTree,
    leaf_at: Mapping[str, Leaf],
    initializers: Mapping[str, Initializer],
    placed: Mapping[str, Sharding],
) -> dict[str, Job]:
    """Make the job to draw each leaf, of its initialiser, shape, dtype and sharding: path -> job."""
    jobs: dict[str, Job] = {}
    problems: list[str] = []
    for path, initializer in initializers.items():
        leaf = leaf_at[path]
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):  # an array of any library, or a Param
            problems.append(f"cannot draw {quoted(path)}: {describe(leaf)} has no shape and dtype")
            continue
        if not holds_numbers(leaf.dtype):
            problems.append(
                f"cannot draw {quoted(path)}: {describe(leaf)} is no array of numbers or bools of JAX or NumPy"
            )
            continue
        one = initializer_at(initializer, tree, path, leaf)
        shape = layer_shape(path, leaf)
        jobs[path] = Job(one, shape, leaf.dtype, placed.get(path), stack_sizes(path, leaf))
    if problems:
        raise InitError(lines(problems))
    return jobs


def abstract(tree: PyTree) -> PyTree:
    """Give the shapes of a spec or tree, a `jax.ShapeDtypeStruct` for each parameter; nothing is drawn or allocated.

    >>> abstract(Tree({"bias": Param((8,))}))["bias"]
    ShapeDtypeStruct(shape=(8,), dtype=float32)

    Shardings are kept. For a layer give its spec, `abstract(layer.spec(x))`; for a function such as Flax's `model.init`
    there is `jax.eval_shape`.

    Args:
        tree: a spec, or any pytree of arrays.

    Raises:
        PathError: two leaves of a plain tree have one path, or it has more than 256 levels.
    """
    shapes: dict[str, jax.ShapeDtypeStruct] = {}
    for path, leaf in leaves(tree):
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):  # an array of any library, or a Param
            shapes[path] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement(leaf))
    return replace_leaves(tree, shapes)
