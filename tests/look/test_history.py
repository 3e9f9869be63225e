"""History: steps recorded without waiting, kept through crashes, read by statistic and path."""

import csv
import doctest
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ptree as pt
from ptree.look import History, observe
from ptree.look._training import history as _history
from ptree.look._training import history_parts as _history_parts

RANDOM = np.random.default_rng(0)


def tree():
    return {
        "enc": {"w": RANDOM.standard_normal((3, 4)).astype(np.float32)},
        "z": RANDOM.standard_normal(5).astype(np.float32),
    }


@jax.jit
def observed(params, grads=None, updates=None):
    return observe(params, grads, updates)


def run(history, steps, start=0):
    """Record random trees, and return them."""
    trees = []
    for step in range(start, start + steps):
        params, grads, updates = tree(), tree(), {"enc": tree()["enc"]}
        history.record(step, observed(params, grads, updates), loss=jnp.float32(step / 2), rate=0.1)
        trees.append((params, grads, updates))
    return trees


def norms(trees, which, path):
    return [np.linalg.norm(pt.get(part[which], path).astype(float)) for part in trees]


def test_the_example_in_the_docstring_runs():
    for test in doctest.DocTestFinder().find(History, "History", module=False, globs={"History": History}):
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(test)
        assert not runner.failures


def test_statistics_are_those_of_the_trees(tmp_path):
    with History(tmp_path / "run") as history:
        trees = run(history, 5)
        assert history.statistics == [
            "params/mean", "params/norm", "params/largest", "params/std", "grads/mean", "grads/norm", "grads/largest",
            "grads/std", "updates/mean", "updates/norm", "updates/largest", "updates/std", "updates/ratio", "loss", "rate",
        ]  # fmt: skip
        assert history.paths == ["enc/w", "z"]
    for again in (history, History(tmp_path / "run")):
        np.testing.assert_array_equal(again.steps, range(5))
        np.testing.assert_array_equal(again.values("loss"), np.arange(5) / 2)
        np.testing.assert_allclose(again.values("grads/norm", "**/w")[:, 0], norms(trees, 1, "enc/w"), rtol=1e-6)
        spread = [part[0]["z"].astype(float).std() for part in trees]
        np.testing.assert_allclose(again.values("params/std", "z")[:, 0], spread, rtol=1e-4)
        ratio = again.values("updates/ratio")
        expected = np.divide(norms(trees, 2, "enc/w"), norms(trees, 0, "enc/w"))
        np.testing.assert_allclose(ratio[:, 0], expected, rtol=1e-6)
        assert np.isnan(ratio[:, 1]).all()  # z was not updated
        assert repr(again) == f"<History {str(tmp_path / 'run')!r}: steps 0 to 4, 2 leaves>"


def test_files_are_trees_that_load_reads(tmp_path):
    with History(tmp_path) as history:
        run(history, 3)
    (file,) = tmp_path.iterdir()
    loaded = pt.load(file)
    assert loaded["grads/norm"].shape == (3, 2)
    np.testing.assert_array_equal(loaded["step"], [0, 1, 2])


def test_what_a_crash_leaves_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(_history, "_MOST_STEPS", 4)
    crashed = History(tmp_path)
    trees = run(crashed, 10)
    crashed._wait()  # the thread has written what it was given; the last two steps are lost with the process
    history = History(tmp_path)
    np.testing.assert_array_equal(history.steps, range(8))
    trees = trees[:8] + run(history, 5, start=8)
    history.close()
    np.testing.assert_array_equal(History(tmp_path).steps, range(13))
    np.testing.assert_allclose(History(tmp_path).values("params/norm")[:, 0], norms(trees, 0, "enc/w"), rtol=1e-6)


@pytest.mark.parametrize("again", [0, 2, 4, 5, 9, 11, 12])
def test_a_run_that_went_back_records_its_steps_again(tmp_path, monkeypatch, again):
    monkeypatch.setattr(_history, "_MOST_STEPS", 4)
    history = History(tmp_path)
    trees = run(history, 12)
    trees = trees[:again] + run(history, 3, start=again)
    history.close()
    for reader in (history, History(tmp_path)):
        np.testing.assert_array_equal(reader.steps, range(again + 3))
        np.testing.assert_allclose(reader.values("grads/norm")[:, 1], norms(trees, 1, "z"), rtol=1e-6)


def test_parts_are_merged_so_that_there_are_few_files(tmp_path, monkeypatch):
    monkeypatch.setattr(_history, "_MOST_STEPS", 2)
    history = History(tmp_path)
    trees = run(history, 60)
    history.close()
    assert len(list(tmp_path.iterdir())) <= 7
    np.testing.assert_array_equal(history.steps, range(60))
    np.testing.assert_allclose(history.values("params/norm")[:, 0], norms(trees, 0, "enc/w"), rtol=1e-6)
    largest = max(file.stat().st_size for file in tmp_path.iterdir())
    monkeypatch.setattr(_history_parts, "_LARGEST", largest)
    run(history, 60, start=60)
    history.close()
    assert max(file.stat().st_size for file in tmp_path.iterdir()) <= largest
    np.testing.assert_array_equal(history.steps, range(120))


def test_a_merge_that_a_crash_cut_short_counts_no_step_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(_history, "_MOST_STEPS", 2)
    monkeypatch.setattr(_history_parts.Path, "unlink", lambda self: None)  # the process ends before it removes the old
    history = History(tmp_path)
    run(history, 9)
    history.close()
    assert len(list(tmp_path.iterdir())) > 4
    np.testing.assert_array_equal(History(tmp_path).steps, range(9))


def test_other_leaves_later_in_a_run(tmp_path):
    history = History(tmp_path)
    history.record(0, observe({"a": jnp.ones(2)}))
    history.record(7, observe({"b": jnp.ones(3), "a": jnp.ones(2) * 2}), loss=1.0)
    history.close()
    assert history.paths == ["a", "b"]
    np.testing.assert_allclose(history.values("params/mean"), [[1, np.nan], [2, 1]])
    np.testing.assert_allclose(history.values("loss"), [np.nan, 1])


def test_memory_is_bounded_by_bytes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(_history, "_MOST_BYTES", 1000)
    history = History(tmp_path)
    for step in range(50):
        history.record(step, observe({f"w{at}": jnp.ones(1) for at in range(20)}))
        assert len(history._rows) <= 5
        assert len(history._on_the_way) <= _history._MOST_WAITING
    history.close()
    np.testing.assert_array_equal(history.steps, range(50))


class Late:
    """An array that has not arrived; it counts how often someone waits for it."""

    waited = 0
    shape = (1, 3)

    def copy_to_host_async(self):
        pass

    def is_ready(self):
        return False

    def __array__(self, dtype=None, copy=None):
        Late.waited += 1
        return np.ones((1, 3), np.float32)


def test_record_does_not_wait_for_the_device(tmp_path):
    history = History(tmp_path)
    given = observe({"w": jnp.ones(1)})
    for step in range(_history._MOST_WAITING):
        history.record(step, type(given)(Late(), given.names))
    assert Late.waited == 0
    history.record(100, type(given)(Late(), given.names))
    assert Late.waited == 1  # of more, memory would not be bounded
    assert len(history.steps) == 65


def test_what_cannot_be_recorded_is_an_error(tmp_path):
    history = History(tmp_path)
    one = observe({"w": jnp.ones(2)})
    with pytest.raises(pt.StructureError, match="expected a step"):
        history.record(1.5, one)
    with pytest.raises(pt.StructureError, match=r"one number for 'loss', got f32\[2\]"):
        history.record(1, one, loss=jnp.ones(2))
    _, stacked = jax.lax.scan(lambda carry, _: (carry, observe({"w": carry})), jnp.ones(2), None, length=3)
    with pytest.raises(pt.StructureError, match=r"f32\[3,1,3\]. Inside of scan"):
        history.record(1, stacked)
    history.record(1, jax.tree.map(lambda array: array[1], stacked))
    with pytest.raises(pt.PathError, match="Did you mean 'params/norm'"):
        history.values("params/norms")
    with pytest.raises(pt.PatternError):
        history.values("params/norm", "v")
    (tmp_path / "file").write_text("")
    with pytest.raises(pt.FileError, match="expected a folder"):
        History(tmp_path / "file")


def test_an_empty_history_has_no_steps(tmp_path):
    history = History(tmp_path / "new")
    assert (len(history.steps), history.paths, history.statistics) == (0, [], [])
    history.close()
    assert not (tmp_path / "new").exists()


def test_csv_has_a_line_for_each_step_and_leaf(tmp_path):
    with History(tmp_path / "run") as history:
        run(history, 3)
    history.to_csv(tmp_path / "run.csv")
    with open(tmp_path / "run.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["path"]) for row in rows] == [(str(s), p) for s in range(3) for p in ("enc/w", "z")]
    np.testing.assert_allclose(
        [float(row["grads/norm"]) for row in rows], history.values("grads/norm").reshape(-1), rtol=1e-6
    )
    assert [row["loss"] for row in rows[::2]] == ["0", "0.5", "1"]


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    history = History(tmp_path)
    with pytest.raises(ImportError, match=r"pip install 'ptree-jax\[parquet\]'"):
        history.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ImportError, match=r"pip install 'ptree-jax\[tensorboard\]'"):
        history.to_tensorboard(tmp_path)


def test_parquet_and_tensorboard_hold_the_same_numbers(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with History(tmp_path / "run") as history:
        run(history, 3)
    history.to_parquet(tmp_path / "run.parquet")
    table = parquet.read_table(tmp_path / "run.parquet").to_pydict()
    assert table["path"] == ["enc/w", "z"] * 3
    np.testing.assert_allclose(table["grads/norm"], history.values("grads/norm").reshape(-1))
    history.to_tensorboard(tmp_path / "board")
    board = accumulator.EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [event.value for event in board.Scalars("loss")] == [0, 0.5, 1]
    found = [event.value for event in board.Scalars("grads/norm/enc/w")]
    np.testing.assert_allclose(found, history.values("grads/norm", "enc/w")[:, 0], rtol=1e-6)
    assert "updates/norm/z" not in board.Tags()["scalars"]


def test_a_history_is_read_without_jax(tmp_path):
    with History(tmp_path) as history:
        run(history, 3)
    code = (
        "import sys\nfrom ptree.look import History\nhistory = History(sys.argv[1])\n"
        "print(history.values('grads/norm', '**/w').sum(), history)\nhistory.to_csv(sys.argv[1] + '/a.csv')\n"
        "assert 'jax' not in sys.modules, 'jax was imported'"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.split()[0]) == pytest.approx(history.values("grads/norm", "**/w").sum())
