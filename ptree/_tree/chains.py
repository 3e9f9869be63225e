"""Resolve chains of ties, ties of ties, to the leaf that each alias leads to; raise for circles and missing sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import eq

from .._errors import TieError
from .._words import quoted, suggestion
from .branches import Branch, Segments, is_empty, leaves_of, paths_in, plant, set_at, ties_in
from .layout import MISSING, BareTree
from .leaf import PyTree
from .path_keys import Containers, KeySplitter
from .tie import Tie

MOST_TIES = 100_000
"""For how many leaves ties may stand in any tree: each tie of a node to one with ties doubles them, in a hostile file."""
MOST_TIES_OF_A_LEAF = 4
"""In a large tree, for how many on average of each of its leaves."""
MOST_LEVELS_OF_A_TIE = 30
"""How many segments the paths of these leaves may have on average."""
TiesByHome = dict[str, list[tuple[str, Tie]]]
"""Path of a node -> its ties, alias path and source relative to the node: the lowest that holds both ends."""


def ties_by_home(root: Branch, containers: Containers, keys: KeySplitter, allowed: int = 0) -> TiesByHome:
    """Resolve chains of ties to their leaf, split the tie of a node into one for each leaf in it, and give them by home.

    Raises:
        TieError: a tie without a source, or in a circle; ties of nodes that stand for very many leaves, and for more than
            are `allowed`.
    """
    foreign = {path: node for path, node in containers.items() if not isinstance(node, BareTree)}
    _Resolution(root, foreign, keys, allowed).resolve_all()
    homes: TiesByHome = {}
    for alias, tie in ties_in(root):
        _add_to_home(homes, alias, tie, keys.of(tie.source))
    return homes


class _Resolution:
    """Resolves the ties in a branch, in place: each one after the tie that its source lies behind."""

    def __init__(self, root: Branch, foreign: Containers, keys: KeySplitter, allowed: int):
        self.root, self.foreign, self.keys, self.allowed = root, foreign, keys, allowed
        self.waiting = ties_in(root)[::-1]
        self.begun: set[Segments] = set()
        """Aliases that wait for another tie."""
        self.settled: set[Segments] = set()
        self.tie_count, self.level_count = len(self.waiting), 0

    def resolve_all(self) -> None:
        while self.waiting:
            alias, tie = self.waiting.pop()
            if alias in self.settled:
                continue
            first = self._unsettled_on_the_way(tie)
            if first is not None:
                first_alias, first_tie = first
                if first_alias not in self.begun:
                    # the tie on the way comes first: followed from every end, a long chain of ties would take hours
                    self.begun.add(alias)
                    self.waiting += [(alias, tie), first]
                    continue
                alias, tie = first_alias, first_tie  # a circle: following it from here raises the error
            self.settled.add(alias)
            self._settle(alias, tie)

    def _unsettled_on_the_way(self, tie: Tie) -> tuple[Segments, Tie] | None:
        """The first alias, with its tie, on the way to a source; None if there is none, or if it is resolved already."""
        source = self.keys.of(tie.source)
        node: PyTree = self.root
        for depth, segment in enumerate(source):
            node = node.get(segment) if type(node) is Branch else None
            if type(node) is Tie:
                alias = tuple(source[: depth + 1])
                return None if alias in self.settled else (alias, node)
        return None

    def _settle(self, alias: Segments, tie: Tie) -> None:
        """Set the tie to the leaf or container at its end; for a branch, a tie to each leaf in it."""
        tie, end = _Chain(self.root, self.foreign, self.keys, alias, tie).followed()
        if type(end) is not Branch:
            set_at(self.root, alias, tie)
            return
        image = _image_of(end, tie, self.foreign)
        self._count(alias, image)
        set_at(self.root, alias, Branch())
        for path, value in image.items():
            plant(self.root, [*alias, *path], value, "")
        inner_ties = [((*alias, *path), value) for path, value in image.items() if type(value) is Tie]
        self.waiting += inner_ties[::-1]

    def _count(self, alias: Segments, image: Mapping[Segments, PyTree]) -> None:
        """Raise where ties of ties stand for too many leaves, as a small hostile file can make them."""
        self.tie_count += len(image)
        self.level_count += sum(2 * len(path) + len(alias) for path in image)
        if not self._is_above(MOST_TIES):  # before the leaves of the tree are counted
            return
        if self._is_above(self.most_ties):
            levels = MOST_LEVELS_OF_A_TIE * self.most_ties
            raise TieError(f"ties of ties stand for more than {self.most_ties:,} leaves, or {levels:,} levels of them")

    def _is_above(self, most_ties: int) -> bool:
        return self.tie_count > most_ties or self.level_count > MOST_LEVELS_OF_A_TIE * most_ties

    @cached_property
    def most_ties(self) -> int:
        leaves = sum(type(value) is not Tie for _, value in leaves_of(self.root))
        return max(MOST_TIES, MOST_TIES_OF_A_LEAF * leaves, self.allowed)


def _add_to_home(homes: TiesByHome, alias: Segments, tie: Tie, source: Sequence[str]) -> None:
    shared = 0
    while alias[shared] == source[shared]:
        shared += 1
    inner = Tie("/".join(source[shared:]), tie.via)
    homes.setdefault("/".join(alias[:shared]), []).append(("/".join(alias[shared:]), inner))


def _image_of(branch: Branch, tie: Tie, foreign: Containers) -> dict[Segments, PyTree]:
    """The image that an alias of a branch shows: a tie to each leaf, alias or container that is no Tree, and empty nodes."""
    found: dict[Segments, PyTree] = {}
    waiting: list[tuple[Segments, PyTree]] = [((), branch)]
    while waiting:
        path, value = waiting.pop()
        source = "/".join((tie.source, *path))
        if type(value) is Branch and source not in foreign:
            waiting += [((*path, name), below) for name, below in value.items()][::-1]
        elif value is not MISSING:
            found[path] = value if is_empty(value) else Tie(source, tie.via)
    return found


class _Chain:
    """Follows one tie to the leaf, the container or the branch that it leads to, through ties of ties."""

    def __init__(self, root: Branch, foreign: Containers, keys: KeySplitter, alias: Segments, tie: Tie):
        self.root, self.foreign, self.keys = root, foreign, keys
        self.alias, self.tie = alias, tie
        self.passed = ["/".join(alias)]

    @property
    def attempt(self) -> str:
        return f"cannot tie {quoted(self.passed[0])} to {quoted(self.tie.source)}"

    def followed(self) -> tuple[Tie, PyTree]:
        tie = self.tie
        while True:
            source = self.keys.of(tie.source)
            self._check_ends(source)
            depth, end = self._reached(source)
            if type(end) is not Tie:
                return tie, end
            tie = self._next(tie, source, depth, end)

    def _check_ends(self, source: list[str]) -> None:
        is_nested = all(map(eq, source, self.alias))  # up to the end of the shorter one
        if not is_nested:
            return
        if len(self.passed) > 1 or len(source) == len(self.alias):
            raise self._circle("/".join(source))
        raise TieError(f"{self.attempt}: one lies inside the other")

    def _reached(self, source: list[str]) -> tuple[int, PyTree]:
        """Find the end at the source, or the first tie on the way, and after how many segments it is."""
        node: PyTree = self.root
        for depth, segment in enumerate(source):
            node = node.get(segment, MISSING) if type(node) is Branch else MISSING
            if node is MISSING:
                raise self._lost("/".join(source))
            if type(node) is Tie:
                return depth + 1, node
            if not self.foreign or tuple(source[: depth + 1]) == self.alias[: depth + 1]:
                continue  # both ends lie in this node
            path = "/".join(source[: depth + 1])
            if type(node) is Branch and path in self.foreign:
                if depth + 1 < len(source):
                    raise TieError(
                        f"{self.attempt}: {quoted(path)} is a container that is no Tree, which is tied as a whole"
                    )
                return len(source), self.foreign[path]
        return len(source), node

    def _next(self, tie: Tie, source: list[str], depth: int, met: Tie) -> Tie:
        where = "/".join(source[:depth])
        if where in self.passed:
            raise self._circle(tie.source)
        self.passed.append(where)
        following = met.then(tie.via)
        return Tie("/".join([following.source, *source[depth:]]), following.via)

    def _circle(self, end: str) -> TieError:
        chain = " -> ".join(map(repr, [*self.passed, end]))
        return TieError(f"{self.attempt}: the ties go in a circle, {chain}. Leave one of them out")

    def _lost(self, source: str) -> TieError:
        hint = suggestion(source, paths_in(self.root))
        return TieError(f"{self.attempt}: there is no {quoted(source)}.{hint}")
