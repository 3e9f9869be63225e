"""The `console` blocks of the guides: each command of ptree prints what the page shows, and ends with the code that it shows."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from commands import ended

GUIDES = sorted((Path(__file__).parents[2] / "examples" / "guides").glob("*.md"))
BLOCK = re.compile(r"```(python|console)\n(.*?)```", flags=re.DOTALL)
COLUMNS = 88  # of the terminal in which the pages were written


def sections_with_commands():
    """Page, title and text of each section that has commands."""
    found = []
    for page in GUIDES:
        for text in page.read_text().split("\n## "):
            if "```console" in text:
                found.append(pytest.param(text, id=f"{page.stem}-{text.splitlines()[0].strip('# ')}"))
    return found


def commands_in(block):
    """Each command of a console block, with the lines that are shown below it."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def without_trailing_spaces(text):
    return "\n".join(line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("section", sections_with_commands())
def test_commands_print_what_the_page_shows(section, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    names: dict[str, object] = {}
    code = 0
    for language, block in BLOCK.findall(section):
        if language == "python":  # it writes the files; test_readme.py compares what it prints
            for example in doctest.DocTestParser().get_examples(block):
                exec(compile(example.source, "<page>", "single"), names)
            capsys.readouterr()
            continue
        for command, shown in commands_in(block):
            if command == "echo $?":
                out = str(code)
            else:
                program, *arguments = shlex.split(command)
                assert program == "ptree"
                code, out, err = ended(capsys, *arguments)
                out += err
            assert without_trailing_spaces(out) == without_trailing_spaces(shown), command
