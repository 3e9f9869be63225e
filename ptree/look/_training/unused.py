"""Find parameters that a loss does not depend on: from the traced program, not from gradients that happen to be zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ..._edit import leaves as leaves_of
from ..._edit import replace_leaves
from ..._errors import StructureError
from ..._jaxprs import scan_counts
from ..._tree import Leaf, PyTree, shape_only, signature
from ..._words import describe, name_of
from .._arguments import refuse_no_function

Used = list[bool]
"""For each input or output of a program, whether the loss depends on it."""


def unused(loss: Callable[..., Any], params: PyTree, *batch: PyTree) -> list[str]:
    """The paths of the parameters that `loss(params, *batch)` does not depend on.

    >>> import jax.numpy as jnp
    >>> params = {"w": jnp.ones((3, 2)), "old": jnp.ones(2), "gain": jnp.zeros(2)}
    >>> unused(lambda params, x: jnp.sum(x @ params["w"] * params["gain"]), params, jnp.zeros((4, 3)))
    ['old']

    A parameter whose gradient is zero by chance, as that of `w` above, is used. So is one behind `stop_gradient`, and
    one that only decides which branch of a condition runs. A tied parameter is used if one of its names is. Where the
    loss returns `(loss, aux)` the first counts alone. Nothing is computed: specs and `jax.ShapeDtypeStruct` will do for
    parameters and batch, and the loss is traced once, through loops, conditions and functions with derivatives of their
    own.

    Args:
        loss: `loss(params, *batch)`, which returns one number, or a pair whose first value is one.
        params: any pytree of arrays; a spec or shapes will do.
        *batch: further arguments of the loss; shapes will do.

    Raises:
        StructureError: the loss returns no single number.
        PathError: two leaves of the parameters have one path, or they have more than 256 levels.
        TypeError: the loss is no function.
    """
    refuse_no_function(loss, "unused(loss, params, *batch)")
    arrays = {path: _abstract(leaf) for path, leaf in leaves_of(params) if isinstance(signature(leaf), tuple)}
    batch_leaves, batch_tree = jax.tree.flatten(batch)
    places = [at for at, leaf in enumerate(batch_leaves) if isinstance(signature(leaf), tuple)]

    def traced(arrays: dict[str, Leaf], data: list[Leaf]) -> Leaf:
        inputs = [*batch_leaves]
        for place, leaf in zip(places, data):
            inputs[place] = leaf
        return _single(loss, loss(replace_leaves(params, arrays), *jax.tree.unflatten(batch_tree, inputs)))

    program = jax.make_jaxpr(traced)(arrays, [_abstract(batch_leaves[place]) for place in places])
    used = _used_inputs(program.jaxpr, [True])
    in_order = jax.tree.leaves({path: path for path in arrays})
    is_used = dict(zip(in_order, used))
    return [path for path in arrays if not is_used[path]]


def _abstract(leaf: Leaf) -> Leaf:
    """Shape and dtype of an array, of a `Param` or of an array of another library."""
    leaf = shape_only(leaf)
    dtype = leaf.dtype
    if not jnp.issubdtype(dtype, jax.dtypes.extended):  # as jnp.asarray would make it: f32 of f64, without x64
        dtype = jax.dtypes.canonicalize_dtype(str(dtype).removeprefix("torch."))
    return jax.ShapeDtypeStruct(tuple(leaf.shape), dtype)


def _single(loss: Callable[..., Any], value: PyTree) -> Leaf:
    """The loss itself, without the auxiliary values beside it."""
    if isinstance(value, tuple) and value:
        value = value[0]
    if np.shape(value) != () or len(jax.tree.leaves(value)) != 1:
        raise StructureError(
            f"{name_of(loss)} should return the loss, one number, or a tuple that begins with it; it returns {describe(value)}"
        )
    return value


# ----------------------------------------------------------------- dependence in a program


def _used_inputs(program: Jaxpr, outputs: Used) -> Used:
    """Which inputs of a program these of its outputs depend on: from its last line to its first."""
    needed = {var for var, is_used in zip(program.outvars, outputs) if is_used and isinstance(var, Var)}
    for equation in reversed(program.eqns):
        of_equation = [var in needed for var in equation.outvars]
        if any(_is_needed_reference(var, needed) for var in equation.invars):
            needed |= {var for var in equation.invars if isinstance(var, Var)}
        elif any(of_equation):
            inputs = zip(equation.invars, _used_by(equation, of_equation), strict=True)
            needed |= {var for var, is_used in inputs if is_used and not isinstance(var, Literal)}
    return [var in needed for var in program.invars]


def _is_needed_reference(var: Var | Literal, needed: set[Var]) -> bool:
    """Whether it is memory that is read further down, so that this operation may write what is read there."""
    return isinstance(var, Var) and var in needed and type(var.aval).__name__ == "AbstractRef"


def _used_by(equation: JaxprEqn, outputs: Used) -> Used:
    """Which operands of an operation these of its results depend on."""
    rule = _RULES.get(equation.primitive.name, _of_call)
    return rule(equation, outputs)


def _of_call(equation: JaxprEqn, outputs: Used) -> Used:
    """Operands of a function that is called, with derivatives of its own or none; of a plain operation all of them."""
    for value in equation.params.values():
        program = _program(value)
        if program is None or len(program.outvars) != len(outputs):
            continue
        if _shapes(program.invars) == _shapes(equation.invars):  # the function of a reduction takes single numbers
            return _used_inputs(program, outputs)
    return [True for _ in equation.invars]


def _shapes(variables: Sequence[Any]) -> list[tuple[int, ...]]:
    return [tuple(var.aval.shape) for var in variables]


def _program(value: Any) -> Jaxpr | None:
    if isinstance(value, ClosedJaxpr):
        return value.jaxpr
    return value if isinstance(value, Jaxpr) else None


def _of_cond(equation: JaxprEqn, outputs: Used) -> Used:
    """The number of the branch, and what any branch uses."""
    branches = [_used_inputs(branch.jaxpr, outputs) for branch in equation.params["branches"]]
    return [True, *(any(used) for used in zip(*branches))]


def _of_scan(equation: JaxprEqn, outputs: Used) -> Used:
    """A step may use the constants, a slice of the inputs, and what the step before carried over."""
    constants, carried = scan_counts(equation.params)
    step = equation.params["jaxpr"].jaxpr
    carry, stacked = outputs[:carried], outputs[carried:]
    while True:
        inputs = _used_inputs(step, [*carry, *stacked])
        before = _either(carry, inputs[constants : constants + carried])
        if before == carry:
            return [*inputs[:constants], *carry, *inputs[constants + carried :]]
        carry = before


def _of_while(equation: JaxprEqn, outputs: Used) -> Used:
    """How often the loop runs decides all its results, so that the condition is used if any of them is."""
    of_condition, of_body = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    condition = _used_inputs(equation.params["cond_jaxpr"].jaxpr, [True])
    carry = _either(outputs, condition[of_condition:])
    while True:
        inputs = _used_inputs(equation.params["body_jaxpr"].jaxpr, carry)
        before = _either(carry, inputs[of_body:])
        if before == carry:
            return [*condition[:of_condition], *inputs[:of_body], *carry]
        carry = before


def _either(a: Sequence[bool], b: Sequence[bool]) -> Used:
    return [one or other for one, other in zip(a, b, strict=True)]


_RULES: dict[str, Callable[[JaxprEqn, Used], Used]] = {"cond": _of_cond, "scan": _of_scan, "while": _of_while}
