"""The python blocks of the README and the guides run, those of a page's section one after the other, and print what they say."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))


def blocks_of(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def sections_of(page):
    """The sections of a page that hold python blocks: title -> blocks."""
    found = {}
    for text in page.read_text().split("\n## "):
        blocks = blocks_of(text)
        if blocks:
            found[text.splitlines()[0].strip("# ")] = blocks
    return found


SECTIONS = [(page.stem, title) for page in [README, *GUIDES] for title in sections_of(page)]


@pytest.mark.parametrize(("name", "title"), SECTIONS)
def test_a_page_prints_what_it_says(name, title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = next(page for page in [README, *GUIDES] if page.stem == name)
    test = doctest.DocTestParser().get_doctest("\n".join(sections_of(page)[title]), {}, title, page.name, 0)
    assert test.examples
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


OTHERS = [ROOT / "examples" / "README.md", ROOT / ".github" / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]


def text_of(page):
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text())


def anchors_of(page):
    """The names that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", text_of(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_between_the_pages_lead_somewhere():
    broken = []
    links = 0
    for page in [README, *GUIDES, *OTHERS]:
        for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
            if link.startswith("http"):
                continue
            links += 1
            target, _, anchor = link.partition("#")
            file = page.parent / target if target else page
            is_heading = file.suffix == ".md" and anchor
            if not file.exists() or (is_heading and anchor not in anchors_of(file)):
                broken.append((page.name, link))
    assert links > 100
    assert not broken
