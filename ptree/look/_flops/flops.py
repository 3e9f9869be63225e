"""Count the floating-point operations of a function from its jaxpr: matrix products and convolutions, by primitive and by leaf."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from jax.extend import core

from ..._draw import abstract
from ..._jaxprs import inner_jaxprs, opened, scan_counts
from ..._shardings import as_traced
from ..._tree import Leaf, PyTree, leaves
from .._arguments import refuse_no_function
from .operations import OPERATIONS, UNCOUNTED


@dataclass(frozen=True, repr=False)
class Flops:
    """The floating-point operations of one call; a multiplication and an addition are two.

    >>> import jax.numpy as jnp
    >>> from ptree import look
    >>> found = look.flops(lambda params, x: x @ params["w"], {"w": jnp.ones((3, 5))}, jnp.ones((2, 3)))
    >>> found.total, found.by_leaf, found.outputs
    (60, {'w': 60}, {'w': (2, 5)})
    """

    total: int
    """All operations that are counted."""
    by_primitive: dict[str, int]
    """The same by primitive of JAX, such as `dot_general`."""
    by_leaf: dict[str, int]
    """For each leaf of the first argument, by its path: the operations in which it is a factor."""
    outputs: dict[str, tuple[int, ...]]
    """For each leaf of the first argument: the shape of what it first gives together with the other arguments."""
    unknown: tuple[str, ...]
    """What is not counted, since its work is not known before it runs: loops with a condition, kernels, callbacks."""

    __module__ = "ptree.look"

    def __repr__(self) -> str:
        parts = [f"{name} {count:,}" for name, count in self.by_primitive.items()]
        text = f"{self.total:,} FLOP"
        if len(parts) > 1:
            text += f" ({', '.join(parts)})"
        if self.unknown:
            text += f"; not counted: {', '.join(self.unknown)}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain dicts and lists, which `json.dumps` takes."""
        return {
            "total": self.total,
            "by_primitive": dict(self.by_primitive),
            "by_leaf": dict(self.by_leaf),
            "unknown": [*self.unknown],
        }


def flops(function: Any, *args: PyTree) -> Flops:
    """Count the floating-point operations of one call, without computing anything.

    >>> import jax.numpy as jnp
    >>> flops(lambda p, x: jnp.tanh(x @ p["kernel"]) + p["bias"], {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}, jnp.ones((2, 3)))
    60 FLOP

    Matrix products and convolutions count, as in PyTorch's FlopCounterMode; elementwise functions and reductions do not.
    A scan counts as often as it runs, of `cond` the branch with the most operations, and a `shard_map` on all its
    devices. What `jax.grad` adds is counted where the function has it: `flops(jax.grad(loss), params, x)`. A
    rematerialized part counts each time it runs.

    Args:
        function: any function of JAX; `model.__call__` or a step of training.
        *args: trees of arrays, of `jax.ShapeDtypeStruct` or of `Param`; other leaves are constants.

    Raises:
        TypeError: it is no function.
        Whatever the function raises when it is traced.
    """
    refuse_no_function(function, "flops(function, *args)")
    flat, treedef = jax.tree.flatten(abstract(args))
    places = [at for at, leaf in enumerate(flat) if _is_array(leaf)]

    def of_arrays(*arrays: jax.Array) -> PyTree:
        filled = list(flat)
        for at, array in zip(places, arrays):
            filled[at] = array
        return function(*jax.tree.unflatten(treedef, filled))

    closed = jax.make_jaxpr(of_arrays)(*[as_traced(flat[at]) for at in places])
    names = _names_of_first(args, places)
    return _counted(closed, names)


def _is_array(leaf: Leaf) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _names_of_first(args: Sequence[PyTree], places: Sequence[int]) -> list[str | None]:
    """The path of each array that is a leaf of the first argument; None of the others."""
    if not args:
        return []
    first, treedef = jax.tree.flatten(args[0])
    numbered = jax.tree.unflatten(treedef, range(len(first)))
    path_of = {number: path for path, number in leaves(numbered)}
    return [path_of.get(at) for at in places]


# -------------------------------------------------------------------------------- counting


class _Origin(NamedTuple):
    """What a value is made of: leaves of the first argument, and whether anything else that is not constant."""

    leaves: frozenset[str] = frozenset()
    has_input: bool = False


_CONSTANT = _Origin()
_INPUT = _Origin(has_input=True)


@dataclass
class _Count:
    """The operations of a jaxpr so far."""

    by_primitive: Counter[str] = field(default_factory=Counter)
    by_leaf: Counter[str] = field(default_factory=Counter)
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.by_primitive.values())

    def add(self, other: _Count, times: int) -> None:
        for name, count in other.by_primitive.items():
            self.by_primitive[name] += count * times
        for path, count in other.by_leaf.items():
            self.by_leaf[path] += count * times
        self.outputs = {**other.outputs, **self.outputs}  # what a leaf gives first
        self.unknown.update(other.unknown)


def _counted(closed: core.ClosedJaxpr, names: Sequence[str | None]) -> Flops:
    origins = [_INPUT if name is None else _Origin(frozenset([name])) for name in names]
    count, _ = _Walk(closed.jaxpr, origins).run()
    unknown = [name if times == 1 else f"{name} ({times})" for name, times in count.unknown.items()]
    in_order = {name: count.by_leaf[name] for name in names if name is not None and name in count.by_leaf}
    return Flops(count.total, dict(count.by_primitive.most_common()), in_order, count.outputs, tuple(unknown))


class _Walk:
    """Counts the equations of one jaxpr, and follows what each value is made of."""

    def __init__(self, jaxpr: core.Jaxpr, origins: Sequence[_Origin]):
        self.jaxpr = jaxpr
        self.count = _Count()
        self._origins: dict[Any, _Origin] = dict(zip(jaxpr.invars, origins))

    def run(self) -> tuple[_Count, list[_Origin]]:
        """The operations, and what the results are made of."""
        for equation in self.jaxpr.eqns:
            origins = [self._origin(atom) for atom in equation.invars]
            for variable, origin in zip(equation.outvars, self._read(equation, origins)):
                self._origins[variable] = origin
        return self.count, [self._origin(atom) for atom in self.jaxpr.outvars]

    def _origin(self, atom: Any) -> _Origin:
        return _CONSTANT if isinstance(atom, core.Literal) else self._origins.get(atom, _CONSTANT)

    def _read(self, equation: core.JaxprEqn, origins: list[_Origin]) -> list[_Origin]:
        """Count one equation; returns what its results are made of."""
        name = equation.primitive.name
        if name in UNCOUNTED:
            self.count.unknown[name] += 1
        elif name == "scan":
            return self._scan(equation, origins)
        elif name == "cond":
            return self._cond(equation, origins)
        else:
            inner = [opened(function) for function in inner_jaxprs(equation)]
            if len(inner) == 1 and len(inner[0].invars) == len(origins):
                return self._call(equation, inner[0], origins)
            for jaxpr in inner:  # of a primitive whose arguments are not those of its jaxpr
                self._call(equation, jaxpr, [_INPUT] * len(jaxpr.invars))
        operations = OPERATIONS[name](equation) if name in OPERATIONS else 0
        return self._primitive(equation, origins, operations)

    def _primitive(self, equation: core.JaxprEqn, origins: Sequence[_Origin], operations: int) -> list[_Origin]:
        made = _Origin(
            frozenset().union(*[origin.leaves for origin in origins if not origin.has_input]),
            any(origin.has_input for origin in origins),
        )
        if operations:
            self.count.by_primitive[equation.primitive.name] += operations
        if made.leaves and operations:
            self.count.by_leaf[self._largest(made.leaves, equation, origins)] += operations
        if made.leaves and made.has_input:
            shape = tuple(equation.outvars[0].aval.shape)  # pyright: ignore[reportAttributeAccessIssue]
            for path in made.leaves:
                self.count.outputs.setdefault(path, shape)
        made = _INPUT if made.has_input else made
        return [made] * len(equation.outvars)

    @staticmethod
    def _largest(paths: frozenset[str], equation: core.JaxprEqn, origins: Sequence[_Origin]) -> str:
        """The leaf that the operations are counted for: the one that makes up the largest factor."""
        factors = [
            (math.prod(atom.aval.shape), origin.leaves)  # pyright: ignore[reportAttributeAccessIssue]
            for atom, origin in zip(equation.invars, origins)
            if origin.leaves and not origin.has_input
        ]
        return min(max(factors, key=lambda factor: factor[0])[1], default=min(paths))

    # ------------------------------------------------------------------ jaxprs in equations

    def _call(self, equation: core.JaxprEqn, inner: core.Jaxpr, origins: list[_Origin]) -> list[_Origin]:
        count, made = _Walk(inner, origins).run()
        self.count.add(count, _devices(equation))
        return made

    def _scan(self, equation: core.JaxprEqn, origins: list[_Origin]) -> list[_Origin]:
        consts, carry = scan_counts(equation.params)
        # what is carried comes from the step before, in which it met the inputs
        origins = [*origins[:consts], *[_INPUT] * carry, *origins[consts + carry :]]
        count, made = _Walk(equation.params["jaxpr"].jaxpr, origins).run()
        self.count.add(count, equation.params["length"])
        return made

    def _cond(self, equation: core.JaxprEqn, origins: list[_Origin]) -> list[_Origin]:
        branches = [_Walk(branch.jaxpr, origins[1:]).run() for branch in equation.params["branches"]]
        count, made = max(branches, key=lambda branch: branch[0].total)
        self.count.add(count, 1)
        return made


def _devices(equation: core.JaxprEqn) -> int:
    """How many devices run the jaxpr of a `shard_map`, whose shapes are those of one device; 1 of other calls."""
    if equation.primitive.name != "shard_map":
        return 1
    shape = equation.params["mesh"].shape
    axes = equation.params.get("manual_axes") or shape.keys()
    return math.prod(shape[axis] for axis in axes)
