"""Check that all processes of a mesh were given the same plan or shardings, before a collective operation of one waits for those of others.

They compare texts in the key-value store of `jax.distributed`: no device takes part, and every wait has an end.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import jax
from jax.sharding import Mesh, NamedSharding, Sharding

from .._errors import StructureError
from .._tree import Leaf, Leaves
from .._words import SHOWN, describe, lines, quoted
from .meshes import AnyMesh
from .sharding_plan import Plan
from .spec_fit import in_words

Facts = Mapping[str, str]
"""What must be the same in all processes: what is said of each path, or of another thing with a name."""

TIMEOUT = 300.0
"""Seconds to wait for other processes, as many as `jax.distributed.initialize` does: one may still read its data."""
_LONGER = 10.0
"""The others wait this many seconds longer, so that the first process can still name who is missing."""


class Store(Protocol):
    """The part of JAX's distributed client that is used here."""

    def key_value_set_bytes(self, key: str, value: bytes) -> None: ...
    def blocking_key_value_get_bytes(self, key: str, timeout_in_ms: int) -> bytes: ...
    def key_value_delete(self, key: str) -> None: ...


def check_plan_in_processes(plan: Plan, *, timeout: float = TIMEOUT) -> None:
    """Raise in every process of a mesh if the plan of one differs from that of the first.

    Raises:
        StructureError: the plans differ, or a process has not come.
    """
    if _are_several(plan.mesh):
        check_same_in_processes("plan", plan_facts(plan), plan.mesh, timeout=timeout)


def check_same_in_processes(what: str, facts: Facts, mesh: AnyMesh, *, timeout: float = TIMEOUT) -> None:
    """Raise in every process of a mesh if the facts of one differ from those of the first.

    All processes of the mesh must call it, in the same order as other checks. Nothing happens on an AbstractMesh, and on a
    mesh of one process. It takes some milliseconds, and under a second for 100,000 paths.

    Args:
        what: what the facts describe, for messages: "plan".
        facts: a text for each path.
        mesh: the mesh whose processes must agree.
        timeout: how many seconds to wait for the others.

    Raises:
        StructureError: the facts differ, or a process has not come.
    """
    if _are_several(mesh):
        _check_same(what, facts, _processes_of(mesh), timeout)


def check_shardings_in_processes(tree_leaves: Leaves, shardings: Mapping[str, Sharding]) -> None:
    """Raise in every process if the shardings of one differ from those of the first, where they are over several processes.

    Args:
        tree_leaves: the leaves by path.
        shardings: path -> the sharding that was found for it.

    Raises:
        StructureError: the shardings differ, or a process has not come.
    """
    if jax.process_count() == 1:  # fast path: there are no others
        return
    shared: defaultdict[tuple[int, ...], dict[str, Sharding]] = defaultdict(dict)
    processes_of: dict[int, tuple[int, ...]] = {}  # many leaves share few shardings
    for path, sharding in shardings.items():
        if id(sharding) not in processes_of:
            processes_of[id(sharding)] = _processes_of_sharding(sharding)
        shared[processes_of[id(sharding)]][path] = sharding
    leaf_at = dict(tree_leaves)
    # in the same order in all processes, as one may be in several groups
    for processes, its_shardings in sorted(shared.items(), key=lambda item: item[0]):
        if len(processes) > 1 and jax.process_index() in processes:
            _check_same("placement", sharding_facts(leaf_at, its_shardings), list(processes), TIMEOUT)


def _check_same(what: str, facts: Facts, processes: Sequence[int], timeout: float) -> None:
    """Compare facts with those of other processes, of which this is one."""
    store = _store()
    if store is None:
        return
    with _LOCK:  # checks of two threads come one after the other
        turn = _TURNS.next(store, processes)
        check = _Check(store, processes, jax.process_index(), turn, timeout)
        check.run(what, _content(facts))


def _store() -> Store | None:
    """The key-value store of `jax.distributed`; None where that is not initialised, and with a warning where JAX does not give it."""
    try:
        from jax._src import distributed  # the client has no public name

        return distributed.global_state.client
    except (ImportError, AttributeError):
        warnings.warn(
            f"jax {jax.__version__} does not give the key-value store of its processes: whether all of them have the same plan is not"
            " checked, and where they have not, they may wait for each other for ever",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def _are_several(mesh: AnyMesh) -> bool:
    """Whether a mesh has devices of this process and of others."""
    if jax.process_count() == 1:  # fast path: there are no others
        return False
    processes = _processes_of(mesh)
    return len(processes) > 1 and jax.process_index() in processes


def _processes_of(mesh: AnyMesh) -> list[int]:
    if not isinstance(mesh, Mesh):
        return []
    return sorted({device.process_index for device in mesh.devices.flat})


def _processes_of_sharding(sharding: Sharding) -> tuple[int, ...]:
    if isinstance(sharding, NamedSharding):
        return tuple(_processes_of(sharding.mesh))
    return tuple(sorted({device.process_index for device in sharding.device_set}))


class _Turns:
    """How many checks there were among which processes, with the present client of `jax.distributed`."""

    def __init__(self) -> None:
        self._store: Store | None = None
        self._counts: Counter[tuple[int, ...]] = Counter()

    def next(self, store: Store, processes: Sequence[int]) -> int:
        """The number of the next check, which is the same in all processes."""
        if store is not self._store:  # initialised again, with an empty store
            self._store = store
            self._counts.clear()
        self._counts[tuple(processes)] += 1
        return self._counts[tuple(processes)]


_TURNS = _Turns()
_LOCK = threading.Lock()


@dataclass(frozen=True)
class _Check:
    """One comparison: each process writes a digest, the first one compares, the first one that differs says in what."""

    store: Store
    processes: Sequence[int]
    me: int
    turn: int
    timeout: float

    @property
    def first(self) -> int:
        return self.processes[0]

    def run(self, what: str, content: bytes) -> None:
        """
        Raises:
            StructureError: the contents differ, or a process has not come.
        """
        self._write(f"digest/{self.me}", _digest(content))
        if self.me == self.first:
            self._judge(content)
        found = self._read("verdict", self.timeout + _LONGER)
        if found is None:
            raise StructureError(self._absence(what, [self.first]))
        verdict: dict[str, list[int]] = json.loads(found)
        if verdict["absent"]:
            raise StructureError(self._absence(what, verdict["absent"]))
        if verdict["differing"]:
            raise StructureError(self._difference(what, verdict["differing"], content))

    def _judge(self, content: bytes) -> None:
        """Compare the digests of all processes, and write which of them differ or are absent."""
        end = time.monotonic() + self.timeout
        expected = _digest(content)
        absent: list[int] = []
        differing: list[int] = []
        for process in self.processes[1:]:
            digest = self._read(f"digest/{process}", max(end - time.monotonic(), 0.0))
            if digest is None:
                absent.append(process)
            elif digest != expected:
                differing.append(process)
        if differing:
            self._write("content", zlib.compress(content, 1))
        if not absent:
            self.store.key_value_delete(self._key(self.turn - 1))  # all have come here, so nobody reads it any more
        self._write("verdict", json.dumps({"absent": absent, "differing": differing}).encode())

    def _difference(self, what: str, differing: list[int], content: bytes) -> str:
        """The message about the first process that differs, which that process writes for all."""
        other = differing[0]
        if self.me == other:
            expected = zlib.decompress(self._read("content", self.timeout) or zlib.compress(b"{}"))
            self._write("message", _differences(json.loads(expected), json.loads(content), self.first, other).encode())
        message = self._read("message", self.timeout)
        text = f"{_subject(differing)} another {what} than process {self.first}"
        if message is not None:
            text += f":\n{message.decode()}\n"
        return f"{text}Give all processes the same rules, mesh and tree"

    def _absence(self, what: str, absent: list[int]) -> str:
        return (
            f"waited {self.timeout:.0f} s for the {what} of {_numbered(absent)}, to compare it with that of process"
            f" {self.me}. All processes of a mesh must make this call: see whether one has raised an error, or does not call it"
        )

    def _key(self, turn: int) -> str:
        return f"ptree/{_digest(str(self.processes).encode()).hex()}/{turn}"

    def _write(self, name: str, value: bytes) -> None:
        self.store.key_value_set_bytes(f"{self._key(self.turn)}/{name}", value)

    def _read(self, name: str, seconds: float) -> bytes | None:
        """A value that another process writes; None if it has not in this time."""
        try:
            # at least a moment, for what is there already
            return self.store.blocking_key_value_get_bytes(
                f"{self._key(self.turn)}/{name}", max(int(1000 * seconds), 100)
            )
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            return None


# ---------------------------------------------------------------------------------- in words


def plan_facts(plan: Plan) -> dict[str, str]:
    """What must be the same of a plan: its mesh, and for each path shape, spec and rule.

    >>> from jax.sharding import PartitionSpec as P
    >>> from ptree import Param, shard
    >>> mesh = jax.sharding.AbstractMesh((2, 4), ("data", "model"))
    >>> plan_facts(shard.plan({"w": Param((8, 8))}, {"*": P("model")}, mesh))
    {'the mesh': 'data=2, model=4', 'w': "f32[8,8] over P('model',) by the rule '*'"}
    """
    shardings = {leaf.path: leaf.sharding for leaf in plan.leaves}
    facts = {"the mesh": mesh_text(plan.mesh)} | sharding_facts(plan.by_path, shardings)
    for leaf in plan.leaves:
        if leaf.rule:
            facts[leaf.path] += f" by the rule {quoted(leaf.rule)}"
    return facts


def sharding_facts(leaf_at: Mapping[str, Leaf], shardings: Mapping[str, Sharding]) -> dict[str, str]:
    """What must be the same of the shardings of leaves: their mesh, and for each path shape and spec.

    >>> from ptree import Param
    >>> mesh = jax.make_mesh((2, 4), ("data", "model"))
    >>> rows = NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    >>> sharding_facts({"w": Param((8, 8))}, {"w": rows})
    {'the mesh': 'data=2, model=4 over the devices 0..7', 'w': "f32[8,8] over P('data',)"}
    """
    distinct = {id(sharding): sharding for sharding in shardings.values()}  # many leaves share few
    mesh_of = {key: _mesh_text_of(sharding) for key, sharding in distinct.items()}
    spec_of = {key: _spec_text_of(sharding) for key, sharding in distinct.items()}
    meshes = sorted({text for text in mesh_of.values() if text})
    facts = {"the mesh": meshes[0]} if len(meshes) == 1 else {}
    for path, sharding in shardings.items():
        key = id(sharding)
        facts[path] = f"{describe(leaf_at[path])} over {spec_of[key]}"
        if len(meshes) > 1 and mesh_of[key]:
            facts[path] += f" of the mesh {mesh_of[key]}"
    return facts


def _mesh_text_of(sharding: Sharding) -> str:
    return mesh_text(sharding.mesh) if isinstance(sharding, NamedSharding) else ""


def _spec_text_of(sharding: Sharding) -> str:
    """The spec of a sharding; one of another kind as JAX writes it."""
    if not isinstance(sharding, NamedSharding):
        return str(sharding)
    return str(sharding.spec).replace("PartitionSpec", "P")


def mesh_text(mesh: AnyMesh) -> str:
    """A mesh as a fact to compare: its axes, and its devices in their order.

    >>> mesh_text(jax.make_mesh((2, 4), ("data", "model")))
    'data=2, model=4 over the devices 0..7'
    """
    if not isinstance(mesh, Mesh):
        return in_words(mesh.shape)
    numbers = [device.id for device in mesh.devices.flat]
    runs = _runs(numbers)
    order = ", ".join(runs)
    if len(runs) > SHOWN:
        order = f"{', '.join(runs[:SHOWN])}, ... (the order {_digest(order.encode()).hex()[:8]})"
    return f"{in_words(mesh.shape)} over the devices {order}"


def _runs(numbers: list[int]) -> list[str]:
    """
    >>> _runs([0, 1, 2, 9, 8, 7])
    ['0..2', '9', '8', '7']
    """
    starts = [at for at, number in enumerate(numbers) if at == 0 or number != numbers[at - 1] + 1]
    runs: list[str] = []
    for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
        first, last = numbers[start], numbers[end - 1]
        runs.append(str(first) if first == last else f"{first}..{last}")
    return runs


def _differences(expected: Facts, got: Facts, first: int, other: int) -> str:
    """A line for each fact that differs.

    >>> print(_differences({"w": "P()", "b": "P()"}, {"w": "P('data')", "b": "P()", "c": "P()"}, 0, 3))
      'w': P() in process 0, P('data') in process 3
      'c': not in process 0, P() in process 3
    """
    problems: list[str] = []
    for name in [*expected, *(name for name in got if name not in expected)]:
        if expected.get(name) != got.get(name):
            problems.append(f"  {quoted(name)}: {_said(expected, name, first)}, {_said(got, name, other)}")
    return lines(problems)


def _said(facts: Facts, name: str, process: int) -> str:
    return f"{facts[name]} in process {process}" if name in facts else f"not in process {process}"


def _subject(processes: list[int]) -> str:
    return f"{_numbered(processes)} {'has' if len(processes) == 1 else 'have'}"


def _numbered(processes: list[int]) -> str:
    """
    >>> _numbered([3]), _numbered([1, 2])
    ('process 3', 'processes 1, 2')
    """
    shown = ", ".join(map(str, processes[:SHOWN]))
    more = f" and {len(processes) - SHOWN} more" if len(processes) > SHOWN else ""
    return f"process{'es' if len(processes) > 1 else ''} {shown}{more}"


def _content(facts: Facts) -> bytes:
    """Facts as bytes that are equal in all processes; the order of declaration does not count."""
    return json.dumps(dict(facts), sort_keys=True).encode()


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
