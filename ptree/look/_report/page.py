"""The HTML page of a report: style, scripts and data in one file, a policy that loads nothing, data as escaped JSON."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "page_files"
_SCRIPTS = (
    "data.js",
    "patterns.js",
    "drawing.js",
    "rows.js",
    "view.js",
    "search.js",
    "details.js",
    "keys.js",
    "report.js",
)


def page_of(data: dict[str, Any]) -> str:
    """The page of a report's data, as text."""
    style = _read("report.css")
    script = _script()
    # The browser runs and applies what has these hashes, and loads nothing, whatever the data hold.
    policy = (
        f"default-src 'none'; script-src {_hash_of(script)}; style-src {_hash_of(style)};"
        " base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(f"{data['title']} - ptree"),
        "style": style,
        "data": escaped_json(data),
        "script": script,
    }
    # in one pass, so that a name that looks like a place to fill in stays as it is
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("report.html"))


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _script() -> str:
    """All scripts as one function, whose names are not seen outside."""
    texts = "\n".join(_read(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{texts}}})();\n'


def _hash_of(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def escaped_json(data: dict[str, Any]) -> str:
    """JSON that holds no markup, so that no name in it ends its script element.

    >>> escaped_json({"</script>": "a < b & c"})
    '{"\\\\u003c/script\\\\u003e":"a \\\\u003c b \\\\u0026 c"}'
    """
    # only ASCII: line separators, which end a line of JavaScript, and half characters are escaped too
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
