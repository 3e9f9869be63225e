"""Signatures as the source writes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping

import pdoc.doc


class Source(str):
    """Text that `inspect` shows without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def annotation_source(annotation: object, names: Mapping[str, object], addresses: Mapping[int, str]) -> object:
    """An annotation as the source writes it; public names in it get their address, so that pdoc links them."""
    if not isinstance(annotation, str):
        return annotation

    def address(word: re.Match[str]) -> str:
        return addresses.get(id(names.get(word[0])), word[0])

    return Source(re.sub(r"(?<![\w.'\"])[A-Za-z_]\w*(?![\w.'\"])", address, annotation))


def default_source(value: object) -> object:
    """A default value as the source writes it: `float32` for `<class 'jax.numpy.float32'>`, `tanh` for a function."""
    name = getattr(value, "__name__", None)
    return Source(name) if callable(value) and name else value


def signature(function: object, addresses: Mapping[int, str]) -> inspect.Signature:
    """The signature with the annotations and defaults of the source: what `Selector` stands for would fill five lines."""
    names = getattr(function, "__globals__", {})
    plain = inspect.signature(function)  # type: ignore[arg-type]
    parameters: list[inspect.Parameter] = []
    for parameter in plain.parameters.values():
        annotation = annotation_source(parameter.annotation, names, addresses)
        shown = parameter.replace(annotation=annotation)
        if parameter.default is not parameter.empty:
            shown = shown.replace(default=default_source(parameter.default))
        parameters.append(shown)
    returned = annotation_source(plain.return_annotation, names, addresses)
    return pdoc.doc._PrettySignature(parameters, return_annotation=returned)
