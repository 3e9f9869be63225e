"""The links of a built website that lead nowhere, and names in backquotes that read like public ones and are not linked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_HOST = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?")
_PUBLIC_NAME = re.compile(r"(ptree|pt)(\.\w+)+(\(\))?")


class Page(HTMLParser):
    """The anchors of a page, its links, and the texts in `<code>` that are no links."""

    def __init__(self, html: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.code: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            if name in ("href", "src") and value is not None:
                self.links.append(value)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._open:
            return
        while self._open.pop() != tag:
            pass  # tags such as <img> are never closed

    def handle_data(self, data: str) -> None:
        is_inline = "pre" not in self._open and "a" not in self._open
        if "code" in self._open and is_inline:
            self.code.append(data)


def broken_links(folder: Path) -> list[str]:
    """One line for each broken link, and for each name such as `ptree.load` in backquotes that pdoc did not find."""
    folder = folder.resolve()
    pages = {file: Page(file.read_text()) for file in sorted(folder.rglob("*.html"))}
    lines: set[str] = set()
    for file, page in pages.items():
        where = file.relative_to(folder)
        for link in page.links:
            problem = _problem(link, file, pages)
            if problem:
                lines.add(f"{where}: {link}: {problem}")
        for text in page.code:
            if _PUBLIC_NAME.fullmatch(text):
                lines.add(f"{where}: `{text}` is no public name")
    return sorted(lines)


def _problem(link: str, file: Path, pages: Mapping[Path, Page]) -> str:
    """Why a link on a page leads nowhere; "" if it leads somewhere. Of links to other sites only the form is checked."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return "" if _HOST.fullmatch(parts.netloc) else "no such host can be"
    if parts.scheme == "data":
        return ""
    if parts.scheme:
        return f"a link of the scheme {parts.scheme}"
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target not in pages:
        return "" if target.is_file() else "no such file"
    if parts.fragment and unquote(parts.fragment) not in pages[target].anchors:
        return "no such anchor"
    return ""
