"""Write the contents of the cookbook, and under its recipes the lines that the same takes in other libraries.

`python tests/cookbook/count.py` writes `examples/README.md`; a test fails where the page is not what this gives. A function of
`linen.py`, `nnx.py`, `equinox.py` or `pytorch.py` belongs to the recipe whose title is the first line of its docstring, and an address
in the docstring is that of the page in the library's documentation. Counted are the lines of its body, without docstring, comments, blank
lines and what a `yield` hands to the tests; of a recipe all lines that one types.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "examples" / "README.md"
LIBRARIES = {"linen": "linen", "nnx": "nnx", "equinox": "Equinox", "pytorch": "PyTorch"}
MODELS = "The models"
START = "Lines: "


class Counterpart(NamedTuple):
    """A function that does what a recipe does, in another library."""

    file: str
    line: int
    """Where the function begins."""
    lines: int
    page: str
    """Of the library's documentation; empty where there is none."""


def counterparts() -> dict[str, dict[str, Counterpart]]:
    """The title of a recipe -> library -> function."""
    found: dict[str, dict[str, Counterpart]] = {}
    for library in LIBRARIES:
        text = (FOLDER / f"{library}.py").read_text()
        for function in ast.parse(text).body:
            docstring = ast.get_docstring(function) if isinstance(function, ast.FunctionDef) else None
            if isinstance(function, ast.FunctionDef) and docstring and docstring.splitlines()[0].endswith("?"):
                title = docstring.splitlines()[0]
                page = re.search(r"https://\S+", docstring)
                lines = lines_of_body(function, text.splitlines())
                one = Counterpart(f"{library}.py", function.lineno, lines, page[0] if page else "")
                found.setdefault(title, {})[library] = one
    return found


def lines_of_body(function: ast.FunctionDef, source: list[str]) -> int:
    first_statement = function.body[1]  # the docstring is before it
    assert function.end_lineno is not None
    body = source[first_statement.lineno - 1 : function.end_lineno]
    stripped = [line.strip() for line in body]
    return sum(bool(line) and not line.startswith(("#", "yield ")) for line in stripped)


def anchor(title: str) -> str:
    """The name that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", title.lower())
    return "#" + kept.replace(" ", "-")


def contents(page: str) -> list[str]:
    """A line for each group of recipes, with links."""
    lines: list[str] = []
    for heading in re.findall(r"(?m)^##+ .*$", page):
        marks, _, title = heading.partition(" ")
        if marks == "##":
            lines.append(f"- **[{title}]({anchor(title)})**")
        else:
            question = title.removeprefix("How do I ").removesuffix("?") if title.startswith("How do I ") else title
            before = ": " if lines[-1].endswith("**") else " · "
            lines[-1] += f"{before}[{question}]({anchor(title)})"
    return lines


def typed_lines(recipe: str) -> int:
    """How many lines one types for a recipe."""
    blocks = re.findall(r"```(?:python|console)\n(.*?)```", recipe, flags=re.DOTALL)
    return sum(line.startswith((">>> ", "... ", "$ ")) for block in blocks for line in block.splitlines())


def count_line(recipe: str, by_library: dict[str, Counterpart]) -> str:
    """The line below a recipe: its lines, those in other libraries, and the pages there."""
    counts = [f"ptree {typed_lines(recipe)}"]
    pages: list[str] = []
    for library, name in LIBRARIES.items():
        one = by_library.get(library)
        if one is None:
            counts.append(f"{name} -")
            continue
        counts.append(f"{name} [{one.lines}](../tests/cookbook/{one.file}#L{one.line})")
        if one.page:
            pages.append(f"[{name}]({one.page})")
    told = f"{START}{', '.join(counts)}."
    return f"{told} Their pages: {', '.join(pages)}." if pages else told


def written(page: str) -> str:
    """The page with contents and counts."""
    by_title = counterparts()
    parts = re.split(r"(?m)^(?=##+ )", page)
    for number, part in enumerate(parts):
        title = part.splitlines()[0].lstrip("# ")
        kept = [line for line in part.splitlines() if not line.startswith(START)]
        text = "\n".join(kept).rstrip("\n") + "\n"
        if title in by_title:
            text += "\n" + count_line(text, by_title[title]) + "\n"
        parts[number] = text
    text = "\n".join(parts)
    before, after = re.split(r"(?:^- \*\*\[.*\n)+", text, maxsplit=1, flags=re.MULTILINE)
    return before + "\n".join(contents(text)) + "\n" + after


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
