"""The python blocks of the README run, those of a section one after the other, and print what they say."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks_of(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


BLOCKS = blocks_of(README.read_text())
SECTIONS = {text.splitlines()[0]: text for text in README.read_text().split("\n## ") if blocks_of(text)}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_readme_prints_what_it_says(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks_of(SECTIONS[title])), {}, title, "README.md", 0)
    assert test.examples
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_the_first_screen_is_short():
    assert len(BLOCKS[0].strip().splitlines()) <= 15 + 12  # a session of 15 lines, with their outputs
    assert len([line for line in BLOCKS[0].splitlines() if line.startswith((">>>", "..."))]) <= 15
