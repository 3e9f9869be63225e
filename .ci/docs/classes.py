"""What pdoc shows of a class: the members with a docstring, the call, the public bases."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import cached_property
from types import ModuleType

import pdoc.doc
import pdoc.doc_ast
from markdown import as_markdown
from public_names import PACKAGE
from signatures import signature

UNLISTED = {"Operation", "EachArray", "BareTree", "Container"}
"""Private bases with methods that only ptree calls, such as those of the operations of `ptree.convert`, which stand in tables."""


def show_class(doc: pdoc.doc.Class, module: ModuleType, addresses: Mapping[int, str]) -> list[str]:
    """Prepare what pdoc shows of a class: the members with a docstring, those of private bases as its own.

    The constructor is shown if the class describes its arguments: the others are results, which ptree makes. Returns the names of
    fields, properties and methods that nothing describes.
    """
    cls = doc.obj
    undescribed: list[str] = []
    own: list[pdoc.doc.Doc] = []
    inherited: dict[tuple[str, str], list[pdoc.doc.Doc]] = {}
    if "\nArgs:" in doc.docstring:
        own.append(constructor(doc, addresses))
    for name, member in doc.members.items():
        base = describing_class(cls, name)
        if base is None and is_undescribed(cls, name):
            undescribed.append(f"{doc.fullname}.{name}")
        if name.startswith("_") or base is None or base.__name__ in UNLISTED:
            continue
        show_member(member, base, addresses)
        member.docstring = as_markdown(member.docstring, module)
        if base is not cls and id(base) in addresses:
            member.taken_from = (base.__module__, f"{base.__qualname__}.{name}")
            inherited.setdefault((base.__module__, base.__qualname__), []).append(member)
        else:
            own.append(member)
    doc.own_members = own
    doc.members = {member.name: member for member in [*own, *(m for docs in inherited.values() for m in docs)]}
    doc.inherited_members = inherited
    doc.bases = public_bases(cls, addresses)
    return undescribed


def constructor(doc: pdoc.doc.Class, addresses: Mapping[int, str]) -> pdoc.doc.Function:
    """The call of a class, which pdoc would not show of one with a `__new__`."""
    name = f"{doc.qualname}.__init__"
    call = pdoc.doc.Function(doc.modulename, name, doc.obj.__init__, (doc.modulename, name))
    call.docstring = ""
    call.signature = call.signature_without_self = signature(doc.obj, addresses).replace(
        return_annotation=inspect.Signature.empty
    )
    return call


def describing_class(cls: type, name: str) -> type | None:
    """The class nearest to `cls` in which this member has a docstring; None if it has none, or is not of this package."""
    for base in cls.__mro__:
        if not base.__module__.startswith(PACKAGE):
            continue
        described = pdoc.doc_ast.walk_tree(base)
        if name in described.var_docstrings or name in described.func_docstrings:
            return base
    return None


def is_undescribed(cls: type, name: str) -> bool:
    """Whether a member without a docstring is a field, property or method of this package that `Args` does not describe either.

    Constants of a class, and fields that no argument sets, are for the class itself.
    """
    if name.startswith("_") or re.search(rf"^ +{name}: ", inspect.getdoc(cls) or "", re.MULTILINE):
        return False
    for base in cls.__mro__:
        if not base.__module__.startswith(PACKAGE):
            continue
        value = vars(base).get(name)
        if inspect.isfunction(value) or isinstance(value, (property, cached_property)):
            return True
        if name in vars(base).get("__annotations__", {}):
            return name in inspect.signature(cls).parameters
    return False


def show_member(member: pdoc.doc.Doc, base: type, addresses: Mapping[int, str]) -> None:
    """Prepare what pdoc shows of a class's field, property or method."""
    described = pdoc.doc_ast.walk_tree(base)
    text = described.var_docstrings.get(member.name) or described.func_docstrings.get(member.name) or ""
    member.docstring = inspect.cleandoc(text)
    if isinstance(member, pdoc.doc.Function):
        member.signature = signature(member.obj, addresses)
        member.decorators = [text for text in member.decorators if text in ("@classmethod", "@staticmethod")]
    if isinstance(member, pdoc.doc.Variable):
        member.default_value = pdoc.doc.empty
        value = vars(base).get(member.name)
        getter = value.fget if isinstance(value, property) else getattr(value, "func", None)
        if getter is not None:
            member.annotation = signature(getter, addresses).return_annotation


def public_bases(cls: type, addresses: Mapping[int, str]) -> list[tuple[str, str, str]]:
    """The bases that pdoc shows in the head of a class: of private ones, their own bases."""
    shown: list[tuple[str, str, str]] = []
    for base in cls.__bases__:
        is_private = base.__module__.startswith(PACKAGE) and id(base) not in addresses
        if is_private:
            shown += public_bases(base, addresses)
        elif base is not object:
            name = addresses.get(id(base), f"{base.__module__}.{base.__qualname__}".removeprefix("builtins."))
            shown.append((base.__module__, base.__qualname__, name))
    return shown
