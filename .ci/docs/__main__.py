"""Build the API reference, a page for each public module, with pdoc: `python .ci/docs [FOLDER]`, by default `site`.

Warnings, broken links and public names without a docstring are errors. It needs the extra `docs`. pdoc shows what the package
exports, with three changes: classes are shown under their public names, signatures as the source writes them, and of a class
what its docstrings describe.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pdoc
import pdoc.doc
import pdoc.doc_ast
import pdoc.render
from classes import show_class
from links import broken_links
from markdown import as_markdown
from public_names import PACKAGE, modules_with, public_addresses, public_modules, use_public_names
from signatures import annotation_source, signature


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
