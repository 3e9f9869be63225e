"""Build the API reference, a page for each public module, with pdoc: `python .ci/docs [FOLDER]`, by default `site`.

Warnings, broken links and public names without a docstring are errors. It needs the extra `docs`. pdoc shows what the package
exports, with three changes: classes are shown under their public names, signatures as the source writes them, and of a class
what its docstrings describe.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.doc
import pdoc.doc_ast
import pdoc.render
from links import broken_links

PACKAGE = "ptree"
UNLISTED = {"Operation", "EachArray", "BareTree", "Container"}
"""Private bases with methods that only ptree calls, such as those of the operations of `ptree.convert`, which stand in tables."""

# ---------------------------------------------------------------------------------------- public names


def public_modules() -> list[ModuleType]:
    """The package, and the modules among its public names."""
    package = import_module(PACKAGE)
    values = [getattr(package, name) for name in package.__all__]
    return [package, *(value for value in values if isinstance(value, ModuleType))]


def public_objects() -> Iterator[tuple[str, str, object]]:
    """(module, name, object) for each public name. Reading a name also imports what the package imports late."""
    for module in public_modules():
        for name in module.__all__:
            yield module.__name__, name, getattr(module, name)


def public_addresses() -> dict[int, str]:
    """The id of each public object -> its public name, `ptree.nn.Dense`; an object with two has the shorter one."""
    addresses: dict[int, str] = {}
    for module, name, value in public_objects():
        addresses.setdefault(id(value), f"{module}.{name}")
    return addresses


def modules_with(name: str, value: object) -> Iterator[ModuleType]:
    """The package's modules in which this name is this object, its own module among them."""
    for module in [*sys.modules.values()]:
        if getattr(module, "__name__", "").startswith(PACKAGE) and vars(module).get(name) is value:
            yield module


def class_source(cls: type) -> str:
    """The source of a class; `inspect` does not find it where the class names its public module instead of its own."""
    for module in modules_with(cls.__name__, cls):
        for node in pdoc.doc_ast.parse(module).body:
            if getattr(node, "name", "") == cls.__name__:
                lines = inspect.getsource(module).splitlines(keepends=True)
                return "".join(lines[node.lineno - 1 : node.end_lineno])
    return ""


def use_public_names() -> None:
    """Give each public class the name and module by which it is used; pdoc still finds its source."""
    classes = {value: (module, name) for module, name, value in public_objects() if isinstance(value, type)}
    bases = {base for cls in classes for base in cls.__mro__ if base.__module__.startswith(PACKAGE)}
    sources = {base: class_source(base) for base in bases}
    for cls, (module, name) in classes.items():
        cls.__module__, cls.__name__, cls.__qualname__ = module, name, name
    find_source = pdoc.doc_ast.get_source

    def get_source(value: object) -> str:
        known = isinstance(value, type) and value in sources
        return sources[value] if known else find_source(value)

    pdoc.doc_ast.get_source = get_source


# ---------------------------------------------------------------------------------------- signatures


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


# ---------------------------------------------------------------------------------------- what pdoc shows


def as_markdown(docstring: str, module: ModuleType) -> str:
    """A docstring as pdoc should read it: examples as fenced blocks, and classes of `ptree` with their module.

    Markdown takes a line of dashes in an example for a heading if it has no fence, and the stars of `**options` for bold letters.
    """
    text = re.sub(r"^( *)>>> (?:.*\n?)(?:^\1\S.*\n?|^\1  +\S.*\n?)*", _fenced, docstring, flags=re.MULTILINE)

    def with_module(name: re.Match[str]) -> str:
        is_elsewhere = name[1] in import_module(PACKAGE).__all__ and name[1] not in module.__all__
        return f"`{PACKAGE}.{name[1]}`" if is_elsewhere else name[0]

    text = re.sub(
        r"^    (\*+)(\w+:)", lambda found: "    " + r"\*" * len(found[1]) + found[2], text, flags=re.MULTILINE
    )
    return re.sub(r"`([A-Z]\w+)`", with_module, text)


def _fenced(example: re.Match[str]) -> str:
    indent = example[1]
    return f"{indent}```pycon\n{example[0].rstrip()}\n{indent}```\n"


def show_module(doc: pdoc.doc.Module, addresses: Mapping[int, str]) -> list[str]:
    """Prepare what pdoc shows of a module. Returns the names without a docstring."""
    doc.docstring = as_markdown(doc.docstring, doc.obj)
    undescribed: list[str] = []
    for name, member in doc.members.items():
        value = getattr(doc.obj, name)
        if isinstance(member, pdoc.doc.Class):
            undescribed += show_class(member, doc.obj, addresses)
        elif isinstance(member, pdoc.doc.Function):
            member.signature = signature(member.obj, addresses)
            member.decorators = []  # those of the package check arguments
        elif isinstance(member, pdoc.doc.Variable):
            member.docstring = variable_docstring(name, value)
            member.default_value = pdoc.doc.empty
        member.docstring = as_markdown(member.docstring, doc.obj)
    members = [member for member in doc.members.values() if not isinstance(member, pdoc.doc.Module)]
    return [*undescribed, *(member.fullname for member in members if not member.docstring)]


def variable_docstring(name: str, value: object) -> str:
    """The docstring below the assignment of a module's variable, or that of the object itself."""
    for module in modules_with(name, value):
        found = pdoc.doc_ast.walk_tree(module).var_docstrings.get(name)
        if found:
            return inspect.cleandoc(found)
    return inspect.getdoc(value) or ""


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
    base = next(
        (base for base in cls.__mro__ if name in vars(base) or name in vars(base).get("__annotations__", {})), cls
    )
    is_field = name in vars(base).get("__annotations__", {}) and name in inspect.signature(cls).parameters
    is_code = inspect.isfunction(vars(base).get(name)) or isinstance(vars(base).get(name), (property, cached_property))
    return base.__module__.startswith(PACKAGE) and (is_field or is_code)


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


def build(folder: Path) -> list[str]:
    """Write the pages. Returns the problems."""
    use_public_names()
    addresses = public_addresses()

    def annotations(written: Mapping[str, object], module: ModuleType | None, *_: object) -> dict[str, object]:
        names = vars(module) if module else {}
        return {name: annotation_source(annotation, names, addresses) for name, annotation in written.items()}

    pdoc.doc.resolve_annotations = annotations
    pdoc.render.configure(docformat="google", show_source=False, template_directory=Path(__file__).parent / "style")
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for module in public_modules():
            undescribed = show_module(pdoc.doc.Module.from_name(module.__name__), addresses)
            problems += [f"{name} has no docstring" for name in undescribed]
        pdoc.pdoc(PACKAGE, output_directory=folder)  # from_name gives it the modules that are prepared here
    return [*problems, *(str(warning.message) for warning in caught)]


def main(folder: Path) -> int:
    problems = [*build(folder), *broken_links(folder)]
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    pages = [*folder.rglob("*.html")]
    print(f"{folder / 'index.html'}: {len(pages)} pages, every link leads somewhere")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
