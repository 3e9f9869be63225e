"""The docstrings of all public names: an example that is run, each argument, what is raised, plain words; links of the reference."""

import importlib.util
import inspect
import re
import sys
import types
from pathlib import Path

import pytest

import ptree as pt

DOCS = Path(pt.__file__).parents[1] / ".ci" / "docs"
MODULES = [pt, *(value for name in pt.__all__ if isinstance(value := getattr(pt, name), types.ModuleType))]
SECTIONS = ("Args:", "Returns:", "Yields:", "Raises:", "Warns:")
OF_SUBCLASSES = {"ptree.nn.Layer"}
"""Classes that are called only as subclasses, which have their own arguments."""


def public():
    """The public name and the object of each function, class and value; what has two names comes once for each."""
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, types.ModuleType):
                yield f"{module.__name__}.{name}", value


def methods():
    """The public name and the function of each method that has a docstring of its own."""
    for address, cls in public():
        if not isinstance(cls, type):
            continue
        for name, value in vars(cls).items():
            function = getattr(value, "__func__", value)
            if inspect.isfunction(function) and function.__doc__ and not name.startswith("_"):
                yield f"{address}.{name}", function


def section(docstring, title):
    """The lines of a section, without their indentation; [] if there is none."""
    lines = inspect.cleandoc(docstring).splitlines()
    if title not in lines:
        return []
    rest = lines[lines.index(title) + 1 :]
    end = next((at for at, line in enumerate(rest) if line and not line.startswith(" ")), len(rest))
    return [line.removeprefix("    ") for line in rest[:end]]


def arguments(docstring):
    """The names in the section Args: `key` of "key: a PRNG key.", and `a` and `b` of "a, b: two trees."."""
    named = [re.match(r"([*\w]+(?:, [*\w]+)*):", line) for line in section(docstring, "Args:")]
    return {name.strip("*") for found in named if found for name in found[1].split(", ")}


def parameters(function):
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return set()
    return {*names} - {"self", "cls"}


def calls_itself(address, cls):
    """Whether an example of a class calls it, so that its arguments are for users."""
    code = "\n".join(line for line in inspect.getdoc(cls).splitlines() if line.startswith((">>>", "...")))
    return re.search(rf"\b{address.rpartition('.')[2]}\(", code) is not None


def test_each_public_name_has_an_example():
    without = [address for address, value in public() if callable(value) and ">>>" not in (inspect.getdoc(value) or "")]
    # an initialiser as it stands: the docstring of a variable cannot be read here
    assert without == ["ptree.initializers.zeros", "ptree.initializers.ones"]


def test_each_example_is_collected():
    """pytest runs the examples of what a module defines, or of what says that it is of this module."""
    lost = []
    for address, value in public():
        if not isinstance(value, (type, types.FunctionType)):
            continue
        function = inspect.unwrap(value)
        if getattr(sys.modules[function.__module__], function.__name__, None) is not value:
            lost.append(address)
    assert not lost


def test_each_argument_of_a_function_is_described():
    wrong = {}
    functions = [(address, value) for address, value in public() if isinstance(value, types.FunctionType)]
    for address, function in [*functions, *methods()]:
        difference = parameters(function) ^ arguments(function.__doc__)
        if difference:
            wrong[address] = difference
    assert not wrong


def test_each_argument_of_a_class_is_described():
    wrong = {}
    for address, cls in public():
        if not isinstance(cls, type) or address in OF_SUBCLASSES:
            continue
        described = arguments(cls.__doc__)
        has_arguments = described or calls_itself(address, cls)
        if has_arguments and not issubclass(cls, Exception) and described != parameters(cls):
            wrong[address] = described ^ parameters(cls)
    assert not wrong


def test_each_function_says_what_it_raises():
    functions = [(address, value) for address, value in public() if isinstance(value, types.FunctionType)]
    raising = [
        (address, method) for address, method in methods() if re.search(r"^ +raise ", inspect.getsource(method), re.M)
    ]
    assert not [address for address, function in [*functions, *raising] if "Raises:" not in function.__doc__]


@pytest.mark.parametrize("title", SECTIONS)
def test_sections_come_last_and_in_one_order(title):
    earlier = SECTIONS[: SECTIONS.index(title)]
    for address, value in [*public(), *methods()]:
        lines = (inspect.getdoc(value) or "").splitlines()
        if title in lines:
            rest = lines[lines.index(title) :]
            assert not {*earlier} & {*rest}, address
            # no text comes after the sections, where a reader would not look for it
            assert not [line for line in rest if line and not line.startswith(" ") and line not in SECTIONS], address


def texts():
    for module in MODULES:
        yield module.__name__, module.__doc__
    for address, value in [*public(), *methods()]:
        yield address, inspect.getdoc(value) or ""


PRIVATE_WORDS = r"\b(rooms?|wings?|the judge|a like|likes|one of them|crumbs)\b"


def test_docstrings_have_no_private_words():
    assert not {address: found for address, text in texts() if (found := re.findall(PRIVATE_WORDS, text))}


def test_the_first_line_is_a_sentence_of_its_own():
    wrong = []
    for address, text in texts():
        first = text.split("\n\n")[0]
        if not first.endswith((".", ":", "?")) or first.startswith(">>>"):
            wrong.append(address)
    assert not wrong


def links_module():
    spec = importlib.util.spec_from_file_location("links", DOCS / "links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_broken_link_of_the_reference_is_found(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "style.css").write_text("")
    (tmp_path / "index.html").write_text(
        '<link href="style.css"><a href="a/b.html#here"><code>ptree.load</code></a><img src="no.png">'
        '<a href="a/b.html#gone">x</a><a href="#top">x</a><a href="https://jax.dev/a">x</a><a href="https:///a">x</a>'
        "<p><code>ptree.lode</code> <code>load</code><pre><code>ptree.lode</code></pre>"
    )
    (tmp_path / "a" / "b.html").write_text('<p id="here"><a href="../index.html">x</a><a href="javascript:x()">x</a>')
    assert links_module().broken_links(tmp_path) == [
        "a/b.html: javascript:x(): a link of the scheme javascript",
        "index.html: #top: no such anchor",
        "index.html: `ptree.lode` is no public name",
        "index.html: a/b.html#gone: no such anchor",
        "index.html: https:///a: no such host can be",
        "index.html: no.png: no such file",
    ]
