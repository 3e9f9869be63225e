"""Every python block of the README runs and prints what it says."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.strip().splitlines()[0][:60] for block in BLOCKS])
def test_the_readme_prints_what_it_says(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
    assert test.examples
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_the_first_screen_is_short():
    assert len(BLOCKS[0].strip().splitlines()) <= 15 + 12  # a session of 15 lines, with their outputs
    assert len([line for line in BLOCKS[0].splitlines() if line.startswith((">>>", "..."))]) <= 15
