"""The comparison of plans between processes, here threads with a store of their own: whatever happens, every wait has an end."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

import ptree as pt
from ptree import shard
from ptree._shardings import process_agreement


class Store:
    """The key-value store of `jax.distributed`, in one process."""

    def __init__(self):
        self.values, self._changed = {}, threading.Condition()

    def key_value_set_bytes(self, key, value):
        with self._changed:
            assert key not in self.values, "JAX refuses to write twice"
            self.values[key] = value
            self._changed.notify_all()

    def blocking_key_value_get_bytes(self, key, timeout_in_ms):
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.values, timeout_in_ms / 1000):
                raise jax.errors.JaxRuntimeError(f"DEADLINE_EXCEEDED: {key}")
            return self.values[key]

    def key_value_delete(self, folder):
        with self._changed:
            self.values = {key: value for key, value in self.values.items() if not key.startswith(f"{folder}/")}


def checked(store, facts, turn=1, timeout=20.0, absent=()):
    """The message that each process gets, empty if they agree: rank -> text."""

    def check(rank):
        if rank in absent:
            return None
        try:
            process_agreement._Check(store, range(len(facts)), rank, turn, timeout).run(
                "plan", process_agreement._content(facts[rank])
            )
        except pt.StructureError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(len(facts)) as pool:
        return dict(enumerate(pool.map(check, range(len(facts)))))


def test_those_that_agree_go_on_and_leave_little_behind():
    store = Store()
    for turn in range(1, 30):
        assert checked(store, [{"w": f"P({turn})"}] * 5, turn) == dict.fromkeys(range(5), "")
    assert len(store.values) == 6  # the digests of five, and what the first said of them


def test_all_get_the_same_message_about_the_first_that_differs():
    same = {"w": "P()", "b": "P()"}
    found = checked(Store(), [same, same, {"w": "P('data')", "b": "P()"}, same, {"b": "P()"}])
    assert set(found.values()) == {
        "processes 2, 4 have another plan than process 0:\n"
        "  'w': P() in process 0, P('data') in process 2\n"
        "Give all processes the same rules, mesh and tree"
    }


def test_many_differences_and_many_processes_are_counted():
    first = {f"layer_{at}": "P()" for at in range(50)}
    others = dict.fromkeys(first, "P('data')")
    (message,) = set(checked(Store(), [first] + [others] * 12).values())
    lines = message.splitlines()
    assert lines[0] == "processes 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more have another plan than process 0:"
    assert len(lines) == 1 + 10 + 2
    assert lines[-2] == "and 40 more"


def test_the_order_of_declaration_does_not_count():
    assert set(checked(Store(), [{"a": "", "b": ""}, {"b": "", "a": ""}]).values()) == {""}


@pytest.mark.parametrize("absent", [(1,), (2, 3), (0,), (0, 2)])
def test_who_has_not_come_is_named_in_bounded_time(absent, monkeypatch):
    monkeypatch.setattr(process_agreement, "_LONGER", 1.5)
    start = time.monotonic()
    found = checked(Store(), [{"w": "P()"}] * 4, timeout=1.0, absent=absent)  # a thread on a busy machine may come late
    assert time.monotonic() - start < 20
    missing = "process 0" if 0 in absent else f"process{'es' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"
    for rank, message in found.items():
        if rank not in absent:
            assert message.startswith(
                f"waited 1 s for the plan of {missing}, to compare it with that of process {rank}."
            )


def test_one_that_comes_too_late_is_told_too():
    store, facts = Store(), [{"w": "P()"}] * 2
    assert "process 1" in checked(store, facts, timeout=0.1, absent=(1,))[0]
    assert "process 1" in checked(store, facts, timeout=0.1, absent=(0,))[1]


def test_one_process_agrees_with_itself():
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    shard.check_processes(shard.plan({"w": pt.Param((64, 8))}, jax.sharding.PartitionSpec("data"), mesh))
    with pytest.raises(TypeError, match=r"check_processes\(plan\): expected what ptree.shard.plan"):
        shard.check_processes({"w": jax.sharding.PartitionSpec()})
