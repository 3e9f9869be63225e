"""Equality and hash of layers, as an identity: the type, constant fields with their types, and which parts are one object."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from functools import cached_property


class FieldEquality:
    """Base of objects with equality by type and dataclass fields, stricter than Python's `==`.

    1, 1.0 and True differ, and so do 0.0 and -0.0: they compute different results. An object with attributes besides
    frozen fields is equal to itself only.
    """

    def _sharing(self) -> Mapping[str, str]:
        """Which parts are one object: path -> path of its first place. It counts in equality, as such parts share parameters."""
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
        # Cached: it takes a walk over all layers of a network, and each compiled call needs it.
        values = [getattr(self, field.name) for field in fields_of(self)]
        facts = (type(self), *map(_fact, values), *self._sharing().items())
        return Identity(facts, all(map(_is_constant, values)))

    def __getstate__(self) -> dict[str, object]:
        """The attributes to pickle: without cached properties, since a hash is different in another process."""
        return {name: value for name, value in vars(self).items() if not _is_cache(self, name)}


class Identity:
    """Identity of an object, for equality and as a key: its type, fields and shared parts. The hash is cached."""

    def __init__(self, facts: tuple[Hashable, ...], is_constant: bool):
        self.facts = facts
        self.is_constant = is_constant
        """Whether no layer inside can change: only then a compiled function stays valid."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Identity) and self.facts == other.facts)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.facts)


def identity_of(value: FieldEquality) -> Identity | None:
    """The identity of an object, by which it is compared; None if it has attributes besides frozen fields."""
    # Checked at each call: an attribute may have been set since the last one.
    return value._identity if _keeps_only_fields(value) else None


def fields_of(value: object) -> tuple[dataclasses.Field[object], ...]:
    """The fields of a dataclass; () for any other object."""
    return dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()


def _keeps_only_fields(value: object) -> bool:
    """Whether an object is a frozen dataclass, or no dataclass, without attributes besides its fields."""
    frozen = not dataclasses.is_dataclass(value) or type(value).__dataclass_params__.frozen  # pyright: ignore
    names = {field.name for field in fields_of(value)}
    attributes = vars(value).keys() - names
    return frozen and all(_is_cache(value, name) for name in attributes)


def _is_cache(value: object, name: str) -> bool:
    return isinstance(getattr(type(value), name, None), cached_property)


def _fact(value: object) -> Hashable:
    """A field's value as it counts in equality: with its type, or by `id` for an object that can change."""
    if isinstance(value, FieldEquality):
        identity = identity_of(value)
        return id(value) if identity is None else identity
    if isinstance(value, tuple):
        return tuple(map(_fact, value))
    if isinstance(value, (float, complex)):
        return type(value), repr(value)  # by text -0.0 differs from 0.0, and nan equals nan
    return type(value), value


def _is_constant(value: object) -> bool:
    """Whether a field's value is constant. A list or dict counts as constant: it has no hash, so nothing is cached for it."""
    if isinstance(value, tuple):
        return all(map(_is_constant, value))
    if isinstance(value, FieldEquality):
        identity = identity_of(value)
        return identity is not None and identity.is_constant
    return not _may_change(value)


_LIBRARIES = ("builtins", "functools", "jax", "jaxlib", "numpy")
"""Packages whose functions are objects with attributes of their own, which nobody sets."""


def _may_change(value: object) -> bool:
    """Whether an object that is called, a layer of another class or a function, has attributes that may be set later."""
    if not callable(value) or isinstance(value, type):
        return False
    if type(value).__module__.partition(".")[0] in _LIBRARIES or not hasattr(value, "__dict__"):
        return False
    return not _keeps_only_fields(value)
