"""URLs of files: tell them from paths, show them without secrets, find the file, index or folder that one may stand for."""

from __future__ import annotations

import re
from urllib.parse import unquote

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a disk of Windows
_CUT_URL = re.compile(r"(https?|gs|gcs|s3|az|abfs|hf|memory|file):/[^/]")
_LOCAL = re.compile(r"file://(localhost)?(?=/)")


def is_url(path: str) -> bool:
    """Whether a path is a URL, such as `https://host/model.safetensors` or `s3://bucket/run`."""
    return _URL.match(path) is not None


def is_cut_url(path: str) -> bool:
    """Whether a path is what `pathlib` makes of a URL: `https:/host`."""
    return _CUT_URL.match(path) is not None


def without_file_scheme(path: str) -> str:
    """The path of a file of this machine that is given as a URL, `file:///tmp/a`; any other path as it is.

    >>> without_file_scheme("file:///tmp/my%20model.safetensors"), without_file_scheme("s3://bucket/a")
    ('/tmp/my model.safetensors', 's3://bucket/a')
    """
    match = _LOCAL.match(path)
    return path if match is None else unquote(path[match.end() :])


def scheme_of(url: str) -> str:
    return url.partition("://")[0]


def shown_url(path: str) -> str:
    """A URL for messages, without a password and without what follows `?`, which may be a key; a path as it is.

    >>> shown_url("https://user:secret@host/m.safetensors?token=secret")
    'https://host/m.safetensors'
    """
    if not is_url(path):
        return path
    base, _ = _split_query(path)
    scheme, _, rest = base.partition("://")
    host, slash, place = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{place}"


def url_with(url: str, ending: str) -> str:
    """The URL with an ending after its path."""
    base, query = _split_query(url)
    return base + ending + query


def url_beside(url: str, name: str) -> str:
    """The URL of another file in the folder of one."""
    base, query = _split_query(url)
    return f"{base.rpartition('/')[0]}/{name}{query}"


def url_ends_with(url: str, ending: str) -> bool:
    return _split_query(url)[0].endswith(ending)


def name_at(url: str) -> str:
    """The name of the file at a URL."""
    return _split_query(url)[0].rstrip("/").rpartition("/")[2]


def urls_to_try(url: str, index_suffix: str) -> list[str]:
    """The URLs of the file, or of the index of shards, that a URL may stand for: a file, one in shards, or a folder."""
    if url_ends_with(url, index_suffix):
        return [url]
    if url_ends_with(url, ".safetensors"):
        return [url, url_with(url, index_suffix)]
    base, query = _split_query(url)
    inside = f"{base.rstrip('/')}/model.safetensors{query}"
    # the folder first: a server may send a list of the files as a page
    return [inside, url_with(inside, index_suffix), url]


def _split_query(url: str) -> tuple[str, str]:
    """The URL, and what follows `?` where that is no part of a name."""
    if not url.startswith(("http://", "https://")):
        return url, ""
    base, mark, query = url.partition("?")
    return base, mark + query
