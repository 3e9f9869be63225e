"""The recipes of the cookbook run, print what the page says, and are short; its contents and counts are up to date."""

import contextlib
import doctest
import importlib.util
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import pytest
from flax import nnx

from ptree._command_line import main

PAGE = Path(__file__).parents[2] / "examples" / "README.md"
MODELS = "The models"
MOST_LINES = 10
WIDEST_LINE = 120
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    language: str
    """"python", a session, or "console", commands of the shell with their outputs."""
    text: str

    def code(self) -> list[str]:
        """The lines that one types."""
        prompts = ("$ ",) if self.language == "console" else (">>> ", "... ")
        return [line for line in self.text.splitlines() if line.startswith(prompts)]


def blocks_by_title() -> dict[str, list[Block]]:
    found = {}
    for part in re.split(r"(?m)^##+ ", PAGE.read_text())[1:]:
        blocks = [Block(*pair) for pair in re.findall(r"```(python|console)\n(.*?)```", part, flags=re.DOTALL)]
        if blocks:
            found[part.splitlines()[0]] = blocks
    return found


BLOCKS = blocks_by_title()
RECIPES = [title for title in BLOCKS if title != MODELS]


def runs_here(title):
    """Recipes that import PyTorch are for where it is installed."""
    needs_torch = any("import torch" in block.text for block in BLOCKS[title])
    return not needs_torch or importlib.util.find_spec("torch") is not None


def run_session(text, names, title):
    """Run a session over some global names, and return these with what it has assigned."""
    test = doctest.DocTestParser().get_doctest(text, names, title, str(PAGE), 0)
    assert test.examples
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    runner.run(test, out=report.append, clear_globs=False)
    assert not runner.failures, "".join(report)
    return test.globs


def run_commands(text):
    """Run the commands of a console block, and compare what each one prints."""
    for part in re.split(r"(?m)^\$ ", text)[1:]:
        command, _, expected = part.partition("\n")
        name, *arguments = shlex.split(command)
        assert name == "ptree"
        printed = printed_by(arguments)
        lines = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
        assert doctest.OutputChecker().check_output(expected, lines, OPTIONS), f"$ {command}\n{lines}"


def printed_by(arguments):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), contextlib.suppress(SystemExit):
        main(arguments)
    return output.getvalue()


def copied(value):
    """A copy with arrays of its own, as a training step deletes those that it is given."""
    if isinstance(value, jax.Array):
        return value.copy()
    if type(value) is dict:
        return {name: copied(child) for name, child in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copied(child) for child in value)
    if isinstance(value, nnx.Module):
        return nnx.clone(value)  # which a recipe changes in place
    return value


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The names that the section about the models assigns, and the folder of the files that it writes."""
    folder = tmp_path_factory.mktemp("models")
    (block,) = BLOCKS[MODELS]
    with contextlib.chdir(folder):
        names = run_session(block.text, {}, MODELS)
    del names["__builtins__"]
    return names, folder


@pytest.mark.parametrize("title", [title for title in RECIPES if runs_here(title)])
def test_a_recipe_prints_what_it_says(title, models, tmp_path, monkeypatch):
    names, folder = models
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names = {name: copied(value) for name, value in names.items()}
    for block in BLOCKS[title]:
        if block.language == "python":
            names = run_session(block.text, names, title)
        else:
            run_commands(block.text)


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_is_a_question_and_short_and_shows_something(title):
    assert title.endswith("?")
    code = [line for block in BLOCKS[title] for line in block.code()]
    lines = [line for block in BLOCKS[title] for line in block.text.splitlines()]
    assert len(code) <= MOST_LINES
    assert max(map(len, code)) <= WIDEST_LINE
    assert len(lines) > len(code), "it prints nothing"
