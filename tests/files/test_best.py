"""Checkpoints that keep the best steps by a metric; the metrics are in the files, so that a run that goes on knows them."""

import itertools
import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
from errors import says

import ptree as pt

NAN, INF = math.nan, math.inf
BACKENDS = ["ptree", "orbax"]


def tree(at):
    return {"w": np.full(2, float(at))}


def run(folder, losses, start=0, **options):
    with pt.Checkpoints(folder, **options) as checkpoints:
        for step, loss in enumerate(losses, start):
            checkpoints.save(step, tree(step), metrics=None if loss is None else {"loss": loss, "other": -1})
    return checkpoints


def expected(losses, keep, mode):
    """The steps that stay, the definition: after each step the newest and the best `keep`, of what was still there."""
    there = []
    for step in range(len(losses)):
        there.append(step)

        def order(at):
            loss = losses[at]
            if math.isnan(loss):
                return (0, 0, at)
            return (1, loss if mode == "max" else -loss, at)

        there = sorted({step, *sorted(there, key=order)[-keep:]})
    return there


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_best_and_the_newest_stay(tmp_path, mode, keep):
    values = [0.5, 0.5, 1.5, NAN, INF, -INF, NAN, 0.25]
    draw = np.random.default_rng(keep)
    for at in range(6):
        losses = [values[index] for index in draw.integers(len(values), size=8)]
        checkpoints = run(tmp_path / str(at), losses, keep=keep, best=("loss", mode))
        assert checkpoints.steps() == expected(losses, keep, mode), losses
        with_loss = [step for step in checkpoints.steps() if not math.isnan(losses[step])]
        if not with_loss:
            assert checkpoints.best_step() is None
            continue
        best = (min if mode == "min" else max)(losses[step] for step in with_loss)
        latest = max(step for step in with_loss if losses[step] == best)  # of equal ones
        assert checkpoints.best_step() == latest
        step, back = checkpoints.load(step="best", like=tree(0))
        assert (step, back["w"][0]) == (latest, latest)
        assert checkpoints.load()[0] == 7  # the newest is what a run goes on from


def test_as_orbax_keeps_the_best(tmp_path):
    import orbax.checkpoint as ocp

    losses = [0.9, 0.4, 0.6, 0.3, 0.35, 0.8]
    options = ocp.CheckpointManagerOptions(max_to_keep=2, best_fn=lambda metrics: metrics["loss"], best_mode="min")
    with ocp.CheckpointManager(tmp_path / "orbax", options=options) as manager:
        for step, loss in enumerate(losses):
            manager.save(step, args=ocp.args.StandardSave(tree(step)), metrics={"loss": loss})
        manager.wait_until_finished()
        best, kept = manager.best_step(), {*manager.all_steps()}
    checkpoints = run(tmp_path / "ptree", losses, keep=2, best=("loss", "min"))
    assert checkpoints.best_step() == best
    assert {*checkpoints.steps()} == kept | {5}  # and the newest


@pytest.mark.parametrize("first", BACKENDS)
@pytest.mark.parametrize("second", BACKENDS)
def test_a_run_that_goes_on_knows_the_metrics_of_the_steps_before(tmp_path, first, second):
    run(tmp_path, [0.1, 0.5, 0.4], keep=2, best=("loss", "min"), backend=first)
    again = run(tmp_path, [0.9, 0.3, 0.8], start=3, keep=2, best=("loss", "min"), backend=second)
    assert again.steps() == [0, 4, 5]
    assert again.metrics(0) == {"loss": 0.1, "other": -1}
    assert pt.Checkpoints(tmp_path, best=("loss", "min")).best_step() == 0
    assert pt.Checkpoints(tmp_path, best=("loss", "max")).best_step() == 5  # another question to the same files


@pytest.mark.parametrize("size", [None, 8])
def test_metrics_are_numbers_of_any_kind_and_text_in_the_file(tmp_path, size):
    metrics = {
        "int": 3,
        "numpy": np.float32(0.5),
        "array": np.array(2),
        "jax": jnp.bfloat16(0.25),
        "nan": NAN,
        "inf": -INF,
    }
    with pt.Checkpoints(tmp_path, max_shard_size=size) as checkpoints:
        checkpoints.save(1, {"a": jnp.ones(2), "b": jnp.ones(2)}, metrics=metrics)
        found = checkpoints.metrics(1)
    assert {name: found[name] for name in list(found)[:4]} == {
        "int": 3.0, "numpy": 0.5, "array": 2.0, "jax": 0.25
    }  # fmt: skip
    assert math.isnan(found["nan"])
    assert found["inf"] == -INF
    with pt.open(tmp_path / "step_1.safetensors") as file:

        def refuse(constant):
            raise AssertionError(f"{constant} is no JSON")

        assert json.loads(file.metadata["metrics"], parse_constant=refuse)["numpy"] == 0.5
        assert file.metadata["step"] == "1"


def test_without_best_metrics_are_kept_and_the_newest_stay(tmp_path):
    checkpoints = run(tmp_path, [0.1, 0.5, None], keep=2)
    assert checkpoints.steps() == [1, 2]
    assert (checkpoints.metrics(1), checkpoints.metrics(2)) == ({"loss": 0.5, "other": -1}, {})
    says(pt.FileError, f"no step 0 in '{tmp_path}': it has 1, 2", lambda: checkpoints.metrics(0))


def test_without_any_metric_the_newest_stay(tmp_path):
    assert run(tmp_path, [NAN] * 6, keep=3, best=("loss", "min")).steps() == [3, 4, 5]


def test_older_steps_without_metrics_are_worse_than_all_with_one(tmp_path):
    run(tmp_path, [None] * 4, keep=None)
    checkpoints = run(tmp_path, [0.5, NAN, 0.7], start=4, keep=3, best=("loss", "min"))
    assert checkpoints.steps() == [4, 5, 6]
    assert checkpoints.best_step() == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_without_metrics_is_refused_where_best_goes_by_one(tmp_path, backend):
    with pt.Checkpoints(tmp_path, every=2, best=("loss", "min"), backend=backend) as checkpoints:
        assert not checkpoints.save(1, tree(1))  # it is not written
        message = "cannot save step 2: best= goes by the metric 'loss': give metrics={'loss': ...}, float('nan') where it is not measured"  # fmt: skip
        says(pt.FileError, message, lambda: checkpoints.save(2, tree(2)))
        assert checkpoints.steps() == []
        assert checkpoints.save(2, tree(2), metrics={"loss": NAN})
    assert checkpoints.steps() == [2]
    assert checkpoints.best_step() is None


def test_that_the_metric_is_nan_in_all_steps_is_told(tmp_path):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree(0))
    best = pt.Checkpoints(tmp_path, best=("loss", "min"))
    says(pt.FileError, f"no step with the metric 'loss' in '{tmp_path}'", lambda: best.load(step="best"))
    run(tmp_path, [NAN, -NAN], start=1, best=("loss", "max"))
    message = f"no best step in '{tmp_path}': the metric 'loss' is NaN in all steps"
    says(pt.FileError, f"{message} that have it, 1, 2", lambda: best.load(step="best"))
    best.remove(0)
    says(pt.FileError, f"{message}, 1, 2", lambda: best.load(step="best"))
    assert best.best_step() is None


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[1]", "3", '{"loss": "low"}', '{"loss": null}', '{"loss": [1]}', "{" * 5000]
)
def test_metrics_by_others_that_are_none_count_as_missing(tmp_path, text):
    run(tmp_path, [0.5], best=("loss", "min"))
    pt.save(tmp_path / "step_1.safetensors", tree(1), metadata={"metrics": text})
    with pt.Checkpoints(tmp_path, keep=1, best=("loss", "min")) as checkpoints:
        assert checkpoints.best_step() == 0
        checkpoints.save(2, tree(2), metrics={"loss": 0.6})
    assert checkpoints.steps() == [0, 2]


def test_a_damaged_best_step_is_passed_over(tmp_path):
    run(tmp_path, [0.1, 0.2, 0.3, 0.4], keep=None, best=("loss", "min"))
    path = tmp_path / "step_0.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    checkpoints = pt.Checkpoints(tmp_path, keep=1, best=("loss", "min"))
    checkpoints_of_data = tmp_path / "step_1.safetensors"
    content = bytearray(checkpoints_of_data.read_bytes())
    content[-1] ^= 1  # a header that is whole, with the best metric of those, and data that are not
    checkpoints_of_data.write_bytes(content)
    with pytest.warns(UserWarning, match="step 1 is passed over"):
        assert checkpoints.load(step="best")[0] == 2
    with checkpoints:
        checkpoints.save(4, tree(4), metrics={"loss": 0.5})
    assert checkpoints.steps() == [2, 4]  # the damaged ones are older


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_step_whose_metrics_cannot_be_read_now_stays(tmp_path, monkeypatch, error):
    run(tmp_path, [0.1, 0.9, 0.2], keep=3, best=("loss", "min"))
    real = os.open

    def fails(path, *args, **options):
        if str(path).endswith("step_0.safetensors"):
            raise error
        return real(path, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        checkpoints = run(tmp_path, [0.8], start=3, keep=1, best=("loss", "min"))
        assert checkpoints.steps() == [0, 2, 3]
    assert run(tmp_path, [0.7], start=4, keep=1, best=("loss", "min")).steps() == [0, 4]


def test_bad_metrics_are_told_and_nothing_is_saved(tmp_path):
    checkpoints = pt.Checkpoints(tmp_path, best=("loss", "min"))

    def save(metrics):
        return lambda: checkpoints.save(1, tree(1), metrics=metrics)

    says(
        pt.FileError,
        "cannot save step 1: no metric 'loss', which best= goes by, in ['los']. Did you mean 'los'?",
        save({"los": 1}),
    )
    says(pt.FileError, "cannot save step 1: no metric 'loss', which best= goes by, in [].", save({}))
    says(pt.FileError, "cannot save step 1: expected a number for the metric 'loss', got '0.5'", save({"loss": "0.5"}))
    says(
        pt.FileError,
        "cannot save step 1: expected a number for the metric 'loss', got f64[2]",
        save({"loss": np.ones(2)}),
    )
    says(pt.FileError, "cannot save step 1: expected a number for the metric 'loss', got None", save({"loss": None}))
    says(pt.FileError, "cannot save step 1: expected metrics by name, such as {'loss': 0.3}, got 0.5", save(0.5))
    says(pt.FileError, "cannot save step 1: expected the name of a metric, got 1", save({1: 2.0}))
    assert checkpoints.steps() == []
    says(pt.FileError, f"no step with the metric 'loss' in '{tmp_path}'", lambda: checkpoints.load(step="best"))
    says(
        pt.FileError,
        "the best step is of Checkpoints(folder, best=('loss', 'min')), with a metric of yours",
        lambda: pt.Checkpoints(tmp_path).load(step="best"),
    )
    for best in ("loss", ("loss",), ("loss", "least"), ("loss", 1), (1, "min"), ("a", "b", "c"), lambda m: m):
        with pytest.raises(
            pt.FileError, match=r"expected best to be a metric and 'min' or 'max', such as \('loss', 'min'\)"
        ):
            pt.Checkpoints(tmp_path, best=best)


# ----------------------------------------------------------------------------- the number of a step


@pytest.mark.parametrize("step", [np.int64(3), np.uint8(3), np.array(3), jnp.int32(3), 0, 10**18])
def test_a_step_is_any_whole_number(tmp_path, step):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(step, tree(1))
        checkpoints.wait()
        assert checkpoints.load(step=step)[0] == int(step)
    assert checkpoints.steps() == [int(step)]


def test_a_step_and_a_metric_may_be_tensors_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(torch.tensor(3), tree(1), metrics={"loss": torch.tensor(1.5)})
        assert checkpoints.metrics(3) == {"loss": 1.5}
        says(
            pt.FileError,
            "Checkpoints.save(step, tree): the step comes first, a whole number; got bool[]",
            lambda: checkpoints.save(torch.tensor(True), tree(1)),
        )


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        ("1", "'1'"),
        (1.0, "1.0"),
        (NAN, "nan"),
        (True, "True"),
        (np.True_, "bool[]"),
        (jnp.bool_(True), "bool[]"),
        (np.float32(1), "f32[]"),
        (np.array([3]), "i64[1]"),
        (None, "None"),
        ("latest", "'latest'"),
        ({"w": 1}, "dict"),
    ],
)
def test_what_is_no_step_is_told(tmp_path, step, shown):
    message = f"Checkpoints.save(step, tree): the step comes first, a whole number; got {shown}"
    checkpoints = pt.Checkpoints(tmp_path)
    says(pt.FileError, message, lambda: checkpoints.save(step, tree(1)))
    for other in (5, np.int64(5), jnp.int32(5)):
        says(pt.FileError, f"{message}. The two are swapped", lambda other=other: checkpoints.save(step, other))
    with pytest.raises(TypeError):  # which a caller may expect too
        checkpoints.save(step, tree(1))
    with pytest.raises(pt.FileError, match="no step"):
        checkpoints.load(step="1")
    assert os.listdir(tmp_path) == []


def test_steps_that_are_too_small_or_too_great_are_told(tmp_path):
    checkpoints = pt.Checkpoints(tmp_path)
    says(pt.FileError, "cannot save step -1: expected one from 0 on", lambda: checkpoints.save(np.int64(-1), tree(1)))
    for step in (10**18 + 1, 10**300, 10**5000):
        with pytest.raises(pt.FileError, match="expected one up to 1,000,000,000,000,000,000"):
            checkpoints.save(step, tree(1))


# ----------------------------------------------------------------------------- the end of a run


@pytest.mark.parametrize("way", ["with", "close"])
def test_a_run_that_ends_between_two_steps_that_are_saved_is_told(tmp_path, way):
    def train(last, always):
        checkpoints = pt.Checkpoints(tmp_path / f"{last}{always}", every=100)
        for step in range(1, last + 1):
            checkpoints.save(step, tree(step), always=always and step == last)
        if way == "close":
            checkpoints.close()
        else:
            with checkpoints:
                pass
        return checkpoints.steps()

    message = (
        "step 1050 is not saved, as every=100 passes over it; the newest that is: 1000."
        r" Save the last step with save\(step, tree, always=True\)"
    )
    with pytest.warns(UserWarning, match=message):
        assert train(1050, always=False) == [800, 900, 1000]
    with pytest.warns(UserWarning, match="the newest that is: none"):
        assert train(99, always=False) == []
    assert train(1050, always=True) == [900, 1000, 1050]
    assert train(200, always=False) == [100, 200]


def test_a_run_that_an_exception_ends_tells_that_alone(tmp_path):
    def train():
        with pt.Checkpoints(tmp_path, every=100) as checkpoints:
            checkpoints.save(1, tree(1))
            1 / 0

    with pytest.raises(ZeroDivisionError):
        train()


def test_all_kinds_of_tree_keep_their_metrics(tmp_path):
    for backend, step in itertools.product(BACKENDS, range(2)):
        with pt.Checkpoints(tmp_path / backend, backend=backend) as checkpoints:
            checkpoints.save(step, [{}, {"a": None, "b": jnp.zeros((0, 3))}][step], metrics={"loss": step})
            assert checkpoints.metrics(step) == {"loss": step}
