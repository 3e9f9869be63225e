"""Whether a search for words, as a reader would make it, finds the file that a function is in."""

import ast
import math
import re
from collections import Counter
from collections.abc import Sequence

from _modules import Module

COMMON = """
the a an of to in and or is are it its that this what which with for as by on at be not no one where whether from than has have
how was were if do does only can all each any so
"""
ENDINGS = ("ings", "ing", "ies", "es", "ed", "s", "er", "ly")


def words(text: str) -> list[str]:
    """Split a text into words without their endings; words that are in every text are left out.

    >>> words("Loads trees from a safetensors file")
    ['load', 'tre', 'safetensor', 'file']
    """
    common = COMMON.split()
    text = re.sub("([a-z])([A-Z])", r"\1 \2", text).lower()
    stems = [_stem(word) for word in re.findall("[a-z]+", text)]
    return [stem for stem in stems if stem not in common and len(stem) > 1]


def _stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + ("y" if ending == "ies" else "")
    return word


class Search:
    """A lexical search (BM25) over the names of files and the first paragraphs of their docstrings."""

    def __init__(self, modules: Sequence[Module]) -> None:
        texts: dict[str, list[str]] = {}
        for module in modules:
            name = re.sub("[/_]", " ", module.path.removesuffix(".py"))
            paragraph = (ast.get_docstring(module.tree) or "").split("\n\n")[0]
            texts[module.path] = words(f"{name} {name} {paragraph}")
        self.counts = {path: Counter(text) for path, text in texts.items()}
        self.lengths = {path: len(text) / self._mean(texts) for path, text in texts.items()}
        self.spread = Counter(word for text in texts.values() for word in set(text))

    @staticmethod
    def _mean(texts: dict[str, list[str]]) -> float:
        return sum(map(len, texts.values())) / len(texts)

    def _score(self, query: set[str], path: str) -> float:
        total = 0.0
        for word in query:
            count, files = self.counts[path][word], self.spread[word]
            rarity = math.log(1 + (len(self.counts) - files + 0.5) / (files + 0.5))
            total += rarity * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * self.lengths[path]))
        return total

    def best(self, query: str, count: int) -> list[str]:
        """Give the `count` best files, best first; none that has no word of the query."""
        asked = set(words(query))
        scores = {path: self._score(asked, path) for path in self.counts}
        ranked = sorted(scores, key=lambda path: -scores[path])[:count]
        return [path for path in ranked if scores[path] > 0]


def questions(module: Module) -> list[str]:
    """List what is looked for: the name and the first line of each documented function and class."""
    found: list[str] = []
    for node in module.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                found.append(f"{node.name.replace('_', ' ')} {docstring.splitlines()[0]}")
    return found
