"""Claims: looking at parameters costs a few reads of memory, and watching a training step next to nothing.

- stats of the 124 M parameters of GPT-2 small: at most 8 times one read of memory;
- observe in a step of 1,024 tokens: at most 3 percent of the step, gradients, parameters and updates together;
- guard: one more pass over what a step returns;
- History.record: under 1 ms a step;
- summary: a table of 100,000 leaves in under 0.3 s of the processor; folded, where other tables have hundreds of lines;
- flops: counted from the jaxpr, the numbers of PyTorch's FlopCounterMode;
- diff of two files of 500 MB: at most 1.5 times reading both where they are the same, with at most 64 MiB;
- report: a page of 5,000 leaves is ready in Chromium in under 0.3 s, one of 50,000 in about a second; 100,000 open.

Run it with `python benchmarks/look.py [PART ...]`. Times are of the processor, the least of several rounds in which all
take turns; results are checked equal first.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _command import Given, Option, main
from _look_diff import diff_part, gpt2_small
from _look_report import report_part
from _look_summary import summary_part
from _results import Aim, Row
from _timing import least_times, rows_of_times

import ptree as pt
from ptree import look

# ------------------------------------------------------------------------------------- stats


def by_hand(leaves: Mapping[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    """What one writes in NumPy; its sums are in f32."""
    return {
        name: (leaf.mean(), leaf.std(), np.abs(leaf).max(), (leaf == 0).sum(), (~np.isfinite(leaf)).sum())
        for name, leaf in leaves.items()
    }


def processes(file: Path) -> dict[str, float]:
    """What a process that prints statistics of the file takes, beside the command `sft` where it is installed."""
    commands = {"ptree": [sys.executable, "-c", f"from ptree.look import stats; print(stats({str(file)!r}))"]}
    if shutil.which("sft"):
        commands["sft stat"] = ["sft", "stat", str(file)]
    times: dict[str, float] = {}
    for name, command in commands.items():
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        times[name] = after.children_user + after.children_system - before.children_user - before.children_system
    return times


def stats_rows(form: str, ours: str, times: Mapping[str, float], *others: str) -> list[Row]:
    chosen = {name: times[name] for name in (ours, *others)}
    return rows_of_times(f"statistics of GPT-2 small{form}", chosen, ours=ours, ratios={"one read of memory": 8.0})


def show_rows(file: Path, rounds: int) -> Iterator[Row]:
    """`ptree show` as a whole process, and the imports that it needs."""
    commands = {
        "ptree show": [sys.executable, "-m", "ptree", "show", str(file)],
        "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
    }
    for who, command in commands.items():
        times: list[float] = []
        for _ in range(rounds):
            before = os.times()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after = os.times()
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)
        aim = Aim(0.15, "value") if who == "ptree show" else None
        yield Row("a whole process that shows a file of 500 MB", who, min(times), "s", aim=aim)


def stats_part(given: Given) -> Iterator[Row]:
    leaves = gpt2_small(given.shrink)
    found, expected = look.stats(leaves), by_hand(leaves)
    for name, numbers in expected.items():
        row = found[name]
        np.testing.assert_allclose([row.std, row.largest, row.zeros, row.nonfinite], numbers[1:], rtol=1e-3)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "gpt2.safetensors")
        pt.save(file, leaves)
        times = least_times(
            {
                "ptree": lambda: look.stats(leaves),
                "one read of memory": lambda: [np.dot(leaf.ravel(), leaf.ravel()) for leaf in leaves.values()],
                "NumPy by hand": lambda: by_hand(leaves),
                "ptree, a file": lambda: look.stats(file),
                "ptree, quantiles": lambda: look.stats(leaves, quantiles=(0.05, 0.5, 0.95)),
                "np.quantile of three": lambda: [np.quantile(leaf, (0.05, 0.5, 0.95)) for leaf in leaves.values()],
                "ptree, relative_to": lambda: look.stats(leaves, relative_to=leaves),
                "ptree, nonfinite alone": lambda: look.nonfinite(leaves),
            },
            rounds=min(3, given.rounds),
        )
        yield from stats_rows("", "ptree", times, "one read of memory", "NumPy by hand")
        yield from stats_rows(" in a file", "ptree, a file", times, "one read of memory")
        yield from stats_rows(", with three quantiles", "ptree, quantiles", times, "np.quantile of three")
        for name in ("ptree, relative_to", "ptree, nonfinite alone"):
            yield Row("statistics of GPT-2 small", name, times[name], "s", in_file_only=True)
        yield from rows_of_times(
            "statistics of GPT-2 small, a whole process", processes(file), ratios={"sft stat": 0.05}
        )
        yield from show_rows(file, min(3, given.rounds))
    draw = np.random.default_rng(0)
    many = {
        f"h/{at // 5}/{'abcde'[at % 5]}": draw.standard_normal(64, np.float32) for at in range(5000 // given.shrink)
    }
    times = least_times({"look.stats": lambda: look.stats(many), "and its text": lambda: look.stats(many).text()}, 5)
    for who, seconds in times.items():
        yield Row(f"statistics of {len(many):,} small leaves", who, seconds, "s", in_file_only=True)


# ----------------------------------------------------------------------------------- observe


OBSERVE, WITHOUT_UPDATES = "look.observe", "look.observe(params, grads)"


def training_step(observe: Callable[..., Any], width: int) -> tuple[Callable[..., Any], Any, Any]:
    """A jitted step of Adam for four layers of this width on as many tokens, the kept state, and a batch."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "h": [{"w": jax.random.normal(key, (width, width)) / width**0.5, "b": jnp.zeros(width)} for key in keys[:4]]
    }
    optimiser = optax.adam(1e-4)
    batch = jax.random.normal(keys[4], (width, width))

    def loss(params: Any, x: Any) -> Any:
        for layer in params["h"]:
            x = jax.nn.gelu(x @ layer["w"] + layer["b"])
        return jnp.square(x - 1).mean()

    def step(kept: Any, x: Any) -> Any:
        params, state = kept
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value, observe(params, grads, updates)

    return jax.jit(step), (params, optimiser.init(params)), batch


def observe_by_hand(*trees: Any) -> Any:
    """The same three numbers of each leaf, each its own output."""
    return [(leaf.sum(), jnp.vdot(leaf, leaf), jnp.abs(leaf).max()) for tree in trees for leaf in jax.tree.leaves(tree)]


def plain_statistics(*trees: Any) -> Any:
    """What one writes without a thought: mean, std, largest, zeros, non-finite."""
    return [
        (leaf.mean(), leaf.std(), jnp.abs(leaf).max(), (leaf == 0).mean(), jnp.isfinite(leaf).all())
        for tree in trees
        for leaf in jax.tree.leaves(tree)
    ]


def observe_part(given: Given) -> Iterator[Row]:
    ways = {
        "a step alone": lambda *trees: None,
        OBSERVE: look.observe,
        WITHOUT_UPDATES: lambda params, grads, _: look.observe(params, grads),
        "sum, vdot, max by hand": observe_by_hand,
        "mean, std, zeros, isfinite in jnp": plain_statistics,
    }
    turns: dict[str, Callable[[], Any]] = {}
    results: dict[str, Any] = {}
    for name, way in ways.items():
        step, kept, batch = training_step(way, 1024 // given.shrink)
        results[name] = jax.block_until_ready(step(kept, batch))
        turns[name] = lambda step=step, kept=kept, batch=batch: jax.block_until_ready(step(kept, batch))
    observed = results[OBSERVE][2]
    expected = np.array(results["sum, vdot, max by hand"][2])
    paths = [path for group in observed.groups.values() for path in group.paths]
    in_jax_order = np.argsort([f"{at // 8}{path}" for at, path in enumerate(paths)], kind="stable")
    np.testing.assert_allclose(observed.numbers[in_jax_order], expected, rtol=1e-3, atol=1e-2)
    times = least_times(turns, given.rounds)
    alone = {WITHOUT_UPDATES: times.pop(WITHOUT_UPDATES), "a step alone": times["a step alone"]}
    three_percent = {"a step alone": 1.03}
    yield from rows_of_times("a step of Adam on 1,024 tokens, observed", times, ours=OBSERVE, ratios=three_percent)
    yield from rows_of_times("... without its updates", alone, ours=WITHOUT_UPDATES, ratios=three_percent)


def guard_part(given: Given) -> Iterator[Row]:
    step, kept, batch = training_step(lambda *trees: None, 1024 // given.shrink)
    guarded = look.guard(step)
    turns = {
        "a step alone": lambda: jax.block_until_ready(step(kept, batch)),
        "look.guard": lambda: jax.block_until_ready(guarded(kept, batch)),
    }
    for turn in turns.values():
        turn()
    yield from rows_of_times("a guarded step of Adam", least_times(turns, given.rounds), ours="look.guard")


def history_part(given: Given) -> Iterator[Row]:
    leaf = jnp.ones(8)
    tree = {f"h/{layer}/{name}": leaf for layer in range(12) for name in "abcdefghijkl"}
    observed = jax.block_until_ready(jax.jit(look.observe)(tree, tree, tree))
    with tempfile.TemporaryDirectory() as folder:
        history = look.History(folder)
        steps, count = iter(range(10**9)), 2000 // given.shrink

        def record() -> None:
            for _ in range(count):
                history.record(next(steps), observed, loss=0.5)

        seconds = least_times({"record": record}, rounds=3)["record"] / count
        yield Row("History.record of 1,296 numbers, a step", "ptree", seconds, "s", aim=Aim(0.001, "value"))
        reading = least_times(
            {
                "one statistic of all steps": lambda: history.values("grads/norm"),
                "CSV of all steps": lambda: history.to_csv(Path(folder, "all.csv")),
            },
            rounds=1,
        )
        for name, seconds in reading.items():
            yield Row(f"History of {3 * count:,} steps: {name}", "ptree", seconds, "s", in_file_only=True)
        history.close()


PARTS = {
    "stats": stats_part,
    "observe": observe_part,
    "guard": guard_part,
    "history": history_part,
    "summary": summary_part,
    "diff": diff_part,
    "report": report_part,
}


OPTIONS = [Option("--rounds", 25, "how often a step takes its turn; longer things do it at most three times")]

if __name__ == "__main__":
    main(PARTS, OPTIONS, ["optax", "flax", "torch", "treescope", "torchinfo", "clu", "sft-cli"])
