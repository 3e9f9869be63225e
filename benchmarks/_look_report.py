"""The part `report` of look.py: a page of 5,000 leaves is ready in Chromium in under 0.3 s, one of 50,000 in about a second."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import treescope
from _command import Given
from _results import Aim, Row
from _timing import least_times, rows_of_times

from ptree import look


def many_leaves(count: int) -> dict[str, np.ndarray]:
    """Blocks of ten small leaves each."""
    draw = np.random.default_rng(0)
    names = [
        f"{place}/{name}"
        for place in ("attn/query", "attn/key", "attn/value", "mlp/in", "mlp/out")
        for name in ("kernel", "bias")
    ]
    return {f"blocks/{at // 10}/{names[at % 10]}": draw.standard_normal(32, np.float32) for at in range(count)}


def histograms_by_hand(leaves: Mapping[str, np.ndarray]) -> str:
    """The least that a page needs: sizes and histograms as JSON."""
    rows = []
    for name, leaf in leaves.items():
        counts, edges = np.histogram(leaf, 41)
        spread = [float(leaf.mean()), float(leaf.std()), float(edges[0]), float(edges[-1])]
        rows.append([name, leaf.shape, str(leaf.dtype), leaf.size, leaf.nbytes, *spread, counts.tolist()])
    return json.dumps(rows)


def ready_in_chromium(page: Path, tries: int = 5) -> float | None:
    """Seconds from the start of the page's loading until its rows are drawn, at the least; None without Chromium."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        return None
    command = [
        browser,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1280,800",
        "--dump-dom",
        page.as_uri(),
    ]
    found: list[float] = []
    for _ in range(tries):
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        ready = re.search(r'data-ready="([0-9.]+)"', text)
        assert ready is not None, "the page did not become ready"
        found.append(float(ready[1]) / 1000)
    return min(found)


def check_report(leaves: Mapping[str, np.ndarray], page: Path) -> None:
    """The numbers of a page are those by hand."""
    look.report(leaves, out=page)
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    data, expected = json.loads(found[1]), json.loads(histograms_by_hand(leaves))
    assert data["path"] == [row[0] for row in expected]
    for numbers, row in zip(data["numbers"], expected):
        np.testing.assert_allclose([*numbers[:2], *numbers[7:9]], row[5:9], rtol=1e-3, atol=1e-6)
        counts = np.array(numbers[11].split(","), int)
        assert np.abs(counts - row[9]).sum() <= 2  # a number at the edge of a bin


SIZES = {5_000: 0.3, 50_000: 1.0, 100_000: None}
"""Leaves -> the target for the seconds until the page is ready in Chromium."""


def report_part(given: Given) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        check_report(many_leaves(100), page)
        for full, limit in SIZES.items():
            count = full // given.shrink
            leaves = many_leaves(count)
            turns: dict[str, Callable[[], Any]] = {
                "ptree": lambda leaves=leaves: look.report(leaves, out=page),
                "np.histogram and json.dumps by hand": lambda leaves=leaves: histograms_by_hand(leaves),
            }
            if full <= 5_000:
                turns["treescope.render_to_html"] = lambda leaves=leaves: treescope.render_to_html(leaves)
            times = least_times(turns, rounds=1 if full > 5_000 else min(3, given.rounds))
            size = f"{count:,} leaves"
            yield from rows_of_times("report", times, size=size)
            yield Row("report, size of the page", "ptree", page.stat().st_size, "B", size, in_file_only=True)
            seconds = ready_in_chromium(page)
            if seconds is not None:
                aim = None if limit is None else Aim(limit, "value")
                yield Row("report, ready in Chromium (wall time)", "ptree", seconds, "s", size, aim=aim)
        shape = (4096 // given.shrink, 3072 // given.shrink)
        large = {f"{at}/kernel": np.random.default_rng(at).standard_normal(shape, np.float32) for at in range(8)}
        turns = {
            "ptree": lambda: look.report(large, out=page),
            "np.histogram alone": lambda: [np.histogram(leaf, 41) for leaf in large.values()],
        }
        yield from rows_of_times("report of 100,663,296 numbers", least_times(turns, rounds=min(2, given.rounds)))
