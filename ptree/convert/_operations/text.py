"""Read operations that are written as text: `linear >> heads(12)`, without running any code."""

from __future__ import annotations

import ast

from ..._errors import PatternError
from ..._words import quoted, suggestion
from .operation import Operation
from .public import BACK, BACK_FUNCTIONS, CONSTANTS, FUNCTIONS


def parse_operation(text: str) -> Operation:
    """The operation of a text such as `linear >> heads(12)`; no code in it is run.

    Raises:
        PatternError: an unknown name, or options that the operation does not take.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise PatternError(f"not an operation: {quoted(text)}; write it as `linear >> heads(12)`") from None
    return _operation_of(tree, text)


def _operation_of(node: ast.expr, text: str) -> Operation:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.RShift):
        return _operation_of(node.left, text) >> _operation_of(node.right, text)
    if isinstance(node, ast.Name):
        return _constant_named(node.id, text)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _called(node.func.id, node, text)
    raise PatternError(f"not an operation: {quoted(text)}; write it as `linear >> heads(12)`")


def _constant_named(name: str, text: str) -> Operation:
    operation = {**CONSTANTS, **BACK}.get(name)
    if operation is not None:
        return operation
    if name in FUNCTIONS or name in BACK_FUNCTIONS:
        raise PatternError(f"in {quoted(text)}: {name} takes options, write {name}(...)")
    raise _unknown(name, text)


def _called(name: str, call: ast.Call, text: str) -> Operation:
    make = {**FUNCTIONS, **BACK_FUNCTIONS}.get(name)
    if make is None:
        raise _unknown(name, text)
    try:
        given = [ast.literal_eval(argument) for argument in call.args]
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg is not None}
        return make(*given, **options)
    except (ValueError, TypeError) as error:
        raise PatternError(f"in {quoted(text)}: {error}") from None


def _unknown(name: str, text: str) -> PatternError:
    names = [*CONSTANTS, *FUNCTIONS]
    return PatternError(f"in {quoted(text)}: no operation {quoted(name)}.{suggestion(name, names)}")
