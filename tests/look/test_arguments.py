"""Wrong arguments of `ptree.look` are named with what is expected, not by an error from inside."""

import numpy as np
import pytest

import ptree as pt
from ptree import look, nn

TREE = {"w": np.ones(3, "float32")}


def with_a_model_alone():
    net = nn.Dense(4)
    return pt.summary(pt.abstract(net.spec(np.ones((2, 3)))), of=(net,))


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda: look.diff(TREE, TREE, tolerance="x"), "expected a number as tolerance, .*, got 'x'"),
        (lambda: look.diff(TREE, TREE, tolerance=None), "expected a number as tolerance"),
        (lambda: look.diff(TREE, TREE, tolerance=True), "expected a number as tolerance"),
        (lambda: look.diff(TREE, TREE, tolerance=float("nan")), "from 0 on, got nan"),
        (lambda: pt.summary(TREE, depth="a"), "expected a whole number of levels as depth, got 'a'"),
        (lambda: pt.summary(TREE, depth=1.5), "expected a whole number of levels as depth, got 1.5"),
        (lambda: pt.summary(TREE, depth=0), "at least 1 name deep"),
        (lambda: look.stats(TREE, quantiles=0.5), r"expected quantiles such as .*, got 0.5"),
        (lambda: look.stats(TREE, quantiles=("x",)), "expected numbers as quantiles"),
        (lambda: look.stats(TREE, quantiles=(2,)), "between 0 and 1"),
        (lambda: look.stats(TREE)[3], "no statistics of 3"),
        (lambda: look.flops(3, 3), "expected a function, got 3"),
        (lambda: look.guard(3), r"guard\(step\): expected a function, got 3"),
        (lambda: look.unused(None, TREE), "expected a function, got None"),
        (lambda: look.History(3), "expected a folder for a history, got 3"),
    ],
)
def test_a_wrong_argument_is_named(call, why):
    with pytest.raises((pt.PtreeError, TypeError, ValueError), match=why):
        call()


def test_a_history_takes_what_observe_returns(tmp_path):
    with look.History(tmp_path / "run") as history:
        with pytest.raises(pt.StructureError, match=r"what ptree.look.observe\(params, ...\) returns, got dict"):
            history.record(2, {"loss": 3})
        history.record(2, look.observe(TREE), loss=3)
    assert look.History(tmp_path / "run").values("loss").tolist() == [3.0]


def test_an_input_that_is_missing_is_in_the_call_of_the_summary():
    with pytest.raises(TypeError) as raised:
        with_a_model_alone()
    assert "in the call model(params, x, ...) that of=(model, x, ...) stands for" in raised.value.__notes__


def test_quantiles_may_be_an_array():
    assert look.stats(TREE, quantiles=np.array([0.5])).rows[0].quantiles.keys() == {0.5}
