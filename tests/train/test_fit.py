"""The short loop: how far it goes, its line of progress in terminals and logs, checkpoints to the bit, losses that are not finite."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ptree as pt
from ptree import look, nn, train
from ptree.train._step.progress_line import ProgressLine


def loss(params, x):
    return jnp.square(params["w"] - x).mean()


def make(**options):
    step = train.step(loss, optax.adam(0.1), **options)
    return step, step.init({"w": jnp.zeros(2)})


def batch(number):
    return jax.random.normal(jax.random.key(number), (4, 2))


def same_bits(a, b):
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(bool((x == y).all()) and x.dtype == y.dtype for x, y in zip(a, b))


# ------------------------------------------------------------------------------- how far it goes


def test_it_takes_the_steps_of_the_loop_that_one_would_write():
    step, state = make()
    for number in range(5):
        state, _ = step(state, batch(number))
    again, first = make()
    assert same_bits(train.fit(again, first, batch, until=5, show=False), state)
    again, first = make()
    assert same_bits(train.fit(again, first, map(batch, range(5)), show=False), state)


def test_an_iterable_is_read_as_far_as_it_is_needed():
    step, state = make()
    numbers = itertools.count()
    state = train.fit(step, state, map(batch, numbers), until=3, show=False)
    assert (int(state.step), next(numbers)) == (3, 3)
    state = train.fit(step, state, map(batch, numbers), until=3, show=False)  # it has so many already
    assert (int(state.step), next(numbers)) == (3, 4)


def test_batches_that_end_too_early_are_a_warning():
    step, state = make()
    with pytest.warns(UserWarning, match="the batches ended at step 2, before until=5"):
        state = train.fit(step, state, map(batch, range(2)), until=5, show=False)
    assert int(state.step) == 2


def test_arguments_that_do_not_fit(tmp_path):
    step, state = make()
    for arguments, options, error, match in (
        ((step.pure, state, batch), {"until": 1}, TypeError, "expected what ptree.train.step makes"),
        ((step, state.params, batch), {"until": 1}, TypeError, "expected what step.init"),
        ((step, state, 3), {}, TypeError, "expected batches, or a function of a number, got 3"),
        ((step, state, batch), {}, ValueError, "a function of a number has no end; give until="),
        ((step, state, batch), {"until": 2.5}, TypeError, "whole number of steps, got 2.5"),
        ((step, state, batch), {"until": 2, "history": look.History(tmp_path)}, ValueError, "observe=look.observe"),
    ):
        with pytest.raises(error, match=match):
            train.fit(*arguments, **options)


# --------------------------------------------------------------------- checkpoints, history


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    net = nn.Sequential(nn.Dense(8), jax.nn.relu, nn.Dropout(0.3), nn.Dense(1))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3)), jnp.float32)

    def noisy_loss(params, rows, key):
        return jnp.square(net(params, x[rows], key=key, train=True) - 1).mean()

    def rows(number):
        return jax.random.randint(jax.random.key(number), (4,), 0, 8)

    def run(until, checkpoints=None):
        rules = train.groups({"3/bias": train.FROZEN, "**": optax.adamw(0.01)}, clip=1.0)
        step = train.step(noisy_loss, rules, accumulate=2, ema=0.9, scale=train.LossScale(2.0**10))
        state = step.init(net.init(jax.random.key(0), x), key=jax.random.key(1))
        if checkpoints is not None and checkpoints.steps():
            number, state = checkpoints.load(like=state)
            assert number == int(state.step)
        return train.fit(step, state, rows, until=until, checkpoints=checkpoints, show=False)

    whole = run(7)
    for until, steps in ((3, [2, 3]), (7, [4, 6, 7])):
        with pt.Checkpoints(tmp_path / "run", keep=3, every=2) as checkpoints:
            resumed = run(until, checkpoints)
        assert checkpoints.steps()[-len(steps) :] == steps
    assert same_bits(jax.tree.map(jax.random.key_data, (whole.key,)), jax.tree.map(jax.random.key_data, (resumed.key,)))
    for name in ("params", "optimiser", "step", "ema", "scale"):
        assert same_bits(getattr(whole, name), getattr(resumed, name)), name
    assert type(resumed) is train.TrainState


def test_the_best_step_is_chosen_by_the_loss_and_the_end_is_saved_although_nobody_foresaw_it(tmp_path):
    step, state = make()
    with pt.Checkpoints(tmp_path / "run", keep=1, best=("loss", "min")) as checkpoints:
        train.fit(step, state, [batch(0), jnp.zeros((4, 2)), batch(2)], checkpoints=checkpoints, show=False)
    assert (checkpoints.best_step(), checkpoints.steps()) == (2, [2, 3])
    step, state = make()
    with pt.Checkpoints(tmp_path / "other", every=10) as checkpoints:
        train.fit(step, state, map(batch, range(3)), checkpoints=checkpoints, show=False)
    assert checkpoints.steps() == [3]


def test_what_is_observed_is_recorded(tmp_path):
    step, state = make(observe=look.observe)
    with look.History(tmp_path) as history:
        train.fit(step, state, batch, until=4, history=history, show=False)
    assert history.steps.tolist() == [1, 2, 3, 4]
    assert history.values("loss").shape[0] == 4
    assert history.values("grads/norm", "w").shape == (4, 1)


# ------------------------------------------------------------------------- losses that are not finite


def test_it_stops_at_a_loss_that_is_not_finite_and_saves_no_such_state(tmp_path):
    step, state = make()
    data = [batch(0), batch(1), batch(2) * jnp.inf, batch(3), batch(4)]
    with pt.Checkpoints(tmp_path / "run") as checkpoints, pytest.raises(train.LossError, match="the loss of step 3 is"):
        train.fit(step, state, data, checkpoints=checkpoints, show=False)
    assert checkpoints.steps() == [1, 2]
    step, state = make()
    with pytest.raises(train.LossError, match="the loss of step 3 is"):
        train.fit(step, state, data, show=False)


def test_steps_that_loss_scaling_skips_do_not_stop_it():
    step, state = make(scale=train.LossScale(8.0))
    state = train.fit(step, state, [batch(0), batch(1) * jnp.inf, batch(2)], show=False)
    assert (int(state.step), int(state.scale.skipped)) == (3, 1)


# --------------------------------------------------------------------------- the line of progress


class Screen(io.StringIO):
    """A terminal of a given width, with what is visible on it at any time."""

    def __init__(self, width):
        super().__init__()
        self.width, self.lines, self.written = width, [""], []

    def isatty(self):
        return True

    def write(self, text):
        self.written.append(text)
        for character in text:
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.lines.append("")
                self.column = 0
            else:
                line = self.lines[-1].ljust(self.column)
                self.lines[-1] = line[: self.column] + character + line[self.column + 1 :]
                self.column += 1
                assert self.column < self.width, "it would wrap"
        return len(text)

    column = 0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run_line(stream, last, steps, seconds, monkeypatch, width=80):
    """Show the steps, each of which takes so many seconds, the first 20 to compile."""
    import os

    monkeypatch.setattr(stream, "fileno", lambda: 1, raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((width, 24)))
    clock = Clock()
    with ProgressLine(0, last, stream, clock) as line:
        for number in range(1, steps + 1):
            clock.now += 20 if number == 1 else seconds
            line.show(number, 1 / number)
            yield stream


def test_on_a_terminal_one_line_is_rewritten(monkeypatch):
    screen = Screen(80)
    seen = [screen.lines[-1] for _ in run_line(screen, 5000, 1200, 0.05, monkeypatch)]
    assert seen[0] == "step 1/5,000  loss 1.000"
    assert seen[1] == seen[0]  # a tenth of a second has not passed
    assert seen[-1].rstrip() == "step 1,198/5,000  loss 0.0008347  3:10 left  20 steps/s"
    assert [line.rstrip() for line in screen.lines] == ["step 1,200/5,000  loss 0.0008333  3:10 left  20 steps/s", ""]
    assert len(screen.written) < 700


def test_a_narrow_terminal_shows_what_matters_most(monkeypatch):
    screen = Screen(40)
    for _ in run_line(screen, 500, 30, 5.0, monkeypatch, width=40):
        pass
    assert screen.lines[0].rstrip() == "step 30/500  loss 0.03333  39:10 left"
    tiny = Screen(8)
    for _ in run_line(tiny, 5000, 30, 5.0, monkeypatch, width=8):
        pass
    assert tiny.lines[0] == "step 30"


def test_in_a_log_a_line_comes_seldom_and_ever_less_often(monkeypatch):
    log = io.StringIO()
    for _ in run_line(log, None, 20_000, 0.5, monkeypatch):
        pass
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue()
    assert lines[:2] == ["step 1  loss 1.000", "step 21  loss 0.04762  0:30 in all  2 steps/s"]
    assert lines[-1] == "step 20,000  loss 5.000e-05  2:47:00 in all  2 steps/s"
    assert 60 < len(lines) < 120


def test_slow_steps_and_the_end_of_a_run(monkeypatch):
    log = io.StringIO()
    for _ in run_line(log, 10, 10, 90.0, monkeypatch):
        pass
    lines = log.getvalue().splitlines()
    assert lines[1] == "step 2/10  loss 0.5000  12:00 left  90 s a step"
    assert lines[-1] == "step 10/10  loss 0.1000  13:50 in all  90 s a step"


def test_it_is_written_to_the_standard_error_if_there_is_one(capsys, monkeypatch):
    step, state = make()
    train.fit(step, state, batch, until=2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith("step 2/2  loss ")
    monkeypatch.setattr("sys.stderr", None)
    step, state = make()
    train.fit(step, state, batch, until=2)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_in_the_loop_has_the_newest_state(error):
    def batches():
        yield batch(0)
        yield batch(1)
        raise error

    step, state = make()
    with pytest.raises(error) as caught:
        train.fit(step, state, batches(), show=False)
    assert int(caught.value.state.step) == 2
    state, _ = step(caught.value.state, batch(2))
    assert int(state.step) == 3
