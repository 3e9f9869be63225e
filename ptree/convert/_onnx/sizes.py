"""Symbolic sizes as arithmetic: parse the expressions that JAX writes for them, such as `2*batch + 1`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from .values import Size

_BINARY = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}
_CALLS = {"floordiv": "floordiv", "mod": "Mod", "max": "Max", "min": "Min"}


@dataclass(frozen=True)
class Operation:
    """An operation on sizes; those inside are numbers, names of symbols, or operations again."""

    name: str
    """The ONNX operation, or "floordiv", which ONNX has for whole numbers above 0 only."""
    inside: tuple[Expression, ...]


Expression = int | str | Operation


def expression_of(size: Size) -> Expression:
    """Parse a symbolic size, which JAX writes in the syntax that `jax.export.symbolic_shape` reads."""
    text = str(size).replace("^", "**")
    return _parsed(ast.parse(text, mode="eval").body)


def symbols_in(expression: Expression) -> list[str]:
    """The names of the symbols, in the order in which they are written."""
    if isinstance(expression, str):
        return [expression]
    if isinstance(expression, int):
        return []
    return [name for part in expression.inside for name in symbols_in(part)]


def _parsed(node: ast.expr) -> Expression:
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return Operation("Neg", (_parsed(inner),))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            return Operation(_BINARY[type(operator)], (_parsed(left), _parsed(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _CALLS:
            return Operation(_CALLS[name], tuple(map(_parsed, arguments)))
    raise ValueError(f"the symbolic size {ast.unparse(node)!r}, which is no sum, product, quotient, maximum or minimum")


def evaluate(
    expression: Expression, number: Callable[[int], str], symbol: Callable[[str], str], add: Callable[..., str]
) -> str:
    """Compute a size by ONNX operations; returns the tensor's name.

    Args:
        number: makes a constant.
        symbol: the tensor of a symbol.
        add: adds an operation on tensors.
    """
    if isinstance(expression, int):
        return number(expression)
    if isinstance(expression, str):
        return symbol(expression)
    inside = [evaluate(part, number, symbol, add) for part in expression.inside]
    if expression.name == "floordiv":
        # ONNX cuts the quotient off towards zero; without the remainder both are the same
        a, b = inside
        return add("Div", add("Sub", a, add("Mod", a, b)), b)
    return add(expression.name, *inside)
