"""Equality of layers: type, fields with their types, and which layers inside are one object."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from functools import cached_property


class FieldEquality:
    """Base of objects that are equal when their types and dataclass fields are, stricter than Python's `==`.

    1, 1.0 and True differ, and so do 0.0 and -0.0: they compute different results. An object that keeps something else
    than frozen fields is equal to itself alone.
    """

    def _sharing(self) -> Mapping[str, str]:
        """Which parts are one object: path -> path of its first place. Objects that share differently are not equal."""
        return {}

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, FieldEquality):
            return False
        identity = identity_of(self)
        return identity is not None and identity == identity_of(other)

    def __hash__(self) -> int:
        identity = identity_of(self)
        return object.__hash__(self) if identity is None else hash(identity)

    @cached_property
    def _identity(self) -> Identity:
        # Cached: the hash of a deep network walks all its layers, and each call of a compiled function asks for it.
        values = [getattr(self, field.name) for field in fields_of(self)]
        facts = (type(self), *map(_fact, values), *self._sharing().items())
        return Identity(facts, all(map(_is_constant, values)))

    def __getstate__(self) -> dict[str, object]:
        """All attributes but cached properties: a hash is not the same in another process."""
        return {name: value for name, value in vars(self).items() if not _is_cache(self, name)}


class Identity:
    """An object's type, fields and sharing, as the key of a dict. Hashed once."""

    def __init__(self, facts: tuple[Hashable, ...], is_constant: bool):
        self.facts = facts
        self.is_constant = is_constant
        """Whether no layer inside can change: only then may what was compiled for it serve again."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Identity) and self.facts == other.facts)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.facts)


def identity_of(value: FieldEquality) -> Identity | None:
    """What an object is, as the key of a dict; None if it keeps something else than frozen fields."""
    return value._identity if _keeps_only_fields(value) else None


def fields_of(value: object) -> tuple[dataclasses.Field[object], ...]:
    """The fields of a dataclass; of any other object none."""
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()


def _keeps_only_fields(value: object) -> bool:
    """Whether an object is a frozen dataclass, or no dataclass, without attributes besides its fields."""
    frozen = not dataclasses.is_dataclass(value) or type(value).__dataclass_params__.frozen  # pyright: ignore
    names = {field.name for field in fields_of(value)}
    others = [name for name in vars(value) if name not in names and not _is_cache(value, name)]
    return frozen and not others


def _is_cache(value: object, name: str) -> bool:
    return isinstance(getattr(type(value), name, None), cached_property)


def _fact(value: object) -> Hashable:
    """A field's value such that only values of one type are equal; what can change is equal to itself alone."""
    if isinstance(value, FieldEquality):
        identity = identity_of(value)
        return id(value) if identity is None else identity
    if isinstance(value, tuple):
        return tuple(map(_fact, value))
    if isinstance(value, (float, complex)):
        return type(value), repr(value)
    return type(value), value


def _is_constant(value: object) -> bool:
    """Whether a field's value cannot change. Lists and dicts are not looked into: they have no hash, so nothing is kept for them."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    if isinstance(value, FieldEquality):
        identity = identity_of(value)
        return identity is not None and identity.is_constant
    return True
