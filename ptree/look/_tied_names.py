"""Cut up what a tied name shows, such as `transposed(wte/weight)`, around the name of its source."""

from __future__ import annotations

import re


def around_source(shown: str, source: str) -> tuple[str, str]:
    """What is written before and after the source.

    >>> around_source("transposed(e)", "e")
    ('transposed(', ')')
    """
    found = re.search(rf"(?<![^(]){re.escape(source)}(?=$|[,)])", shown)
    if found is None:
        return shown, ""
    return shown[: found.start()], shown[found.end() :]
