"""Read operations that are written as text: `linear >> heads(12)`, without running any code."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import fields
from inspect import signature

from ..._errors import PatternError
from ..._words import quoted, suggestion
from .axes import LayoutOfKernel
from .operation import Chain, EachArray, Operation, public_name
from .public import heads


def _named_classes() -> dict[str, type[Operation]]:
    """Name -> class, of all operations; also of inverses that the contents page does not list, such as `conv_back`."""
    bases = {EachArray, LayoutOfKernel}
    classes = {*Operation.__subclasses__()}.union(*(base.__subclasses__() for base in bases)) - {*bases, Chain}
    return {public_name(operation): operation for operation in classes}


_CLASSES = _named_classes()
_CONSTANTS = {name: operation() for name, operation in _CLASSES.items() if not fields(operation)}  # pyright: ignore[reportArgumentType]  # each is a dataclass
"""Operations without options."""
_FUNCTIONS: dict[str, Callable[..., Operation]] = {
    **{name: operation for name, operation in _CLASSES.items() if name not in _CONSTANTS},
    "heads": heads,
}
"""Operations with options."""


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
    operation = _CONSTANTS.get(name)
    if operation is not None:
        return operation
    if name in _FUNCTIONS:
        raise PatternError(f"in {quoted(text)}: {name} takes options, write {name}(...)")
    raise _unknown(name, text)


def _called(name: str, call: ast.Call, text: str) -> Operation:
    make = _FUNCTIONS.get(name)
    if make is None:
        raise _unknown(name, text)
    given = [_option(argument, text) for argument in call.args]
    options = {keyword.arg: _option(keyword.value, text) for keyword in call.keywords if keyword.arg is not None}
    try:
        return make(*given, **options)
    except PatternError as error:
        raise PatternError(f"in {quoted(text)}: {error}") from None
    except TypeError:
        raise PatternError(
            f"in {quoted(text)}: {name} has the options {', '.join(signature(make).parameters)}"
        ) from None


def _option(node: ast.expr, text: str) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        written = quoted(ast.unparse(node))
        raise PatternError(
            f"in {quoted(text)}: an option is a number, a text or a tuple of these; got {written}"
        ) from None


def _unknown(name: str, text: str) -> PatternError:
    names = [*_CONSTANTS, *_FUNCTIONS]
    return PatternError(f"in {quoted(text)}: no operation {quoted(name)}.{suggestion(name, names)}")
