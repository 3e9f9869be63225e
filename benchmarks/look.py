"""Claims: looking at parameters costs a few reads of memory, and watching a training step next to nothing.

- stats of the 124 M parameters of GPT-2 small: at most 8 times one read of memory;
- observe in a step of 1,000 tokens: under 3 percent, gradients, parameters and updates together;
- guard: one more pass over what a step returns;
- History.record: under 1 ms a step;
- summary: a table of 100,000 leaves in under 0.3 s of the processor; folded, where other tables have hundreds of lines;
- flops: counted from the jaxpr, the numbers of PyTorch's FlopCounterMode;
- diff of two files of 500 MB: at most 1.5 times reading both where they are the same, with at most 64 MiB;
- report: a page of 5,000 leaves is ready in Chromium in under 0.3 s, one of 50,000 in about a second; 100,000 open.

Run it with `python benchmarks/look.py [PART ...]`. Times are of the processor, the least of several rounds in which all
take turns; results are checked equal first.
"""

import argparse
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _look_diff import diff_part
from _look_report import report_part
from _look_summary import summary_part
from _look_times import least_times, print_times

import ptree as pt
from ptree import look

# ------------------------------------------------------------------------------------- stats


def gpt2_small() -> dict[str, np.ndarray]:
    """The shapes of GPT-2 small, 124,439,808 numbers in 148 leaves."""
    draw = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"wte/weight": (50257, 768), "wpe/weight": (1024, 768)}
    for layer in range(12):
        for name, (i, o) in {
            "attn/c_attn": (768, 2304),
            "attn/c_proj": (768, 768),
            "mlp/c_fc": (768, 3072),
            "mlp/c_proj": (3072, 768),
        }.items():
            shapes |= {f"h/{layer}/{name}/weight": (i, o), f"h/{layer}/{name}/bias": (o,)}
        for name in ("ln_1", "ln_2"):
            shapes |= {f"h/{layer}/{name}/weight": (768,), f"h/{layer}/{name}/bias": (768,)}
    shapes |= {"ln_f/weight": (768,), "ln_f/bias": (768,)}
    return {name: 0.02 * draw.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def by_hand(leaves: Mapping[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    """What one writes in NumPy; its sums are in f32."""
    return {
        name: (leaf.mean(), leaf.std(), np.abs(leaf).max(), (leaf == 0).sum(), (~np.isfinite(leaf)).sum())
        for name, leaf in leaves.items()
    }


def stats_part() -> None:
    leaves = gpt2_small()
    assert sum(leaf.size for leaf in leaves.values()) == 124_439_808
    found, expected = look.stats(leaves), by_hand(leaves)
    for name, numbers in expected.items():
        row = found[name]
        np.testing.assert_allclose([row.std, row.largest, row.zeros, row.nonfinite], numbers[1:], rtol=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "gpt2.safetensors")
        pt.save(file, leaves)
        times = least_times(
            {
                "one read of memory": lambda: [np.dot(leaf.ravel(), leaf.ravel()) for leaf in leaves.values()],
                "ptree.look.stats": lambda: look.stats(leaves),
                "ptree.look.stats of a file": lambda: look.stats(file),
                "ptree.look.stats, three quantiles too": lambda: look.stats(leaves, quantiles=(0.05, 0.5, 0.95)),
                "ptree.look.stats, relative_to": lambda: look.stats(leaves, relative_to=leaves),
                "ptree.look.nonfinite": lambda: look.nonfinite(leaves),
                "NumPy by hand": lambda: by_hand(leaves),
                "np.quantile of three": lambda: [np.quantile(leaf, (0.05, 0.5, 0.95)) for leaf in leaves.values()],
            },
            rounds=3,
        )
    print_times("statistics of 124,439,808 numbers", times, "one read of memory")
    many = {f"h/{layer}/{name}": np.ones(64, np.float32) for layer in range(1000) for name in ("a", "b", "c", "d", "e")}
    times = least_times(
        {"stats of 5,000 small leaves": lambda: look.stats(many), "and its text": lambda: look.stats(many).text()}
    )
    print_times("many leaves", times, "stats of 5,000 small leaves")


# ----------------------------------------------------------------------------------- observe


def training_step(observe: Callable[..., Any], *, donate: bool = False) -> tuple[Callable[..., Any], Any, Any]:
    """A jitted step of Adam for a network of 4.2 M parameters on 1,024 tokens, the kept state, and a batch."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = {"h": [{"w": jax.random.normal(key, (1024, 1024)) / 32, "b": jnp.zeros(1024)} for key in keys[:4]]}
    optimiser = optax.adam(1e-4)
    batch = jax.random.normal(keys[4], (1024, 1024))

    def loss(params: Any, x: Any) -> Any:
        for layer in params["h"]:
            x = jax.nn.gelu(x @ layer["w"] + layer["b"])
        return jnp.square(x - 1).mean()

    def step(kept: Any, x: Any) -> Any:
        params, state = kept
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value, observe(params, grads, updates)

    jitted = jax.jit(step, donate_argnums=0) if donate else jax.jit(step)
    return jitted, (params, optimiser.init(params)), batch


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


def observe_part() -> None:
    ways = {
        "a step alone": lambda *trees: None,
        "ptree.look.observe": look.observe,
        "sum, vdot, max by hand": observe_by_hand,
        "mean, std, zeros, isfinite in jnp": plain_statistics,
    }
    turns: dict[str, Callable[[], Any]] = {}
    results: dict[str, Any] = {}
    for name, way in ways.items():
        step, kept, batch = training_step(way)
        results[name] = jax.block_until_ready(step(kept, batch))
        turns[name] = lambda step=step, kept=kept, batch=batch: jax.block_until_ready(step(kept, batch))
    observed = results["ptree.look.observe"][2]
    expected = np.array(results["sum, vdot, max by hand"][2])
    paths = [path for group in observed.groups.values() for path in group.paths]
    in_jax_order = np.argsort([f"{at // 8}{path}" for at, path in enumerate(paths)], kind="stable")
    np.testing.assert_allclose(observed.numbers[in_jax_order], expected, rtol=1e-3, atol=1e-2)
    times = least_times(turns, rounds=25)
    print_times("a step of Adam, 4.2 M parameters, 1,024 tokens", times, "a step alone")


def guard_part() -> None:
    step, kept, batch = training_step(lambda *trees: None)
    guarded = look.guard(step)
    turns = {
        "a step alone": lambda: jax.block_until_ready(step(kept, batch)),
        "ptree.look.guard": lambda: jax.block_until_ready(guarded(kept, batch)),
    }
    for turn in turns.values():
        turn()
    print_times("a guarded step", least_times(turns, rounds=25), "a step alone")


def history_part() -> None:
    leaf = jnp.ones(8)
    tree = {f"h/{layer}/{name}": leaf for layer in range(12) for name in "abcdefghijkl"}
    observed = jax.block_until_ready(jax.jit(look.observe)(tree, tree, tree))
    with tempfile.TemporaryDirectory() as folder:
        history = look.History(folder)
        steps, count = iter(range(10**9)), 2000

        def record() -> None:
            for _ in range(count):
                history.record(next(steps), observed, loss=0.5)

        times = least_times({"record, 144 leaves, 1,296 numbers": record}, rounds=3)
        times = {name: seconds / count for name, seconds in times.items()}
        print_times("history, a step", times, "record, 144 leaves, 1,296 numbers", "us")
        reading = least_times(
            {
                "one statistic of all steps": lambda: history.values("grads/norm"),
                "CSV of all steps": lambda: history.to_csv(Path(folder, "all.csv")),
            },
            rounds=1,
        )
        print_times(f"reading {3 * count:,} steps", reading, "one statistic of all steps")
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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parts = arguments.parse_args().parts or [*PARTS]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        arguments.error(f"there is no part {unknown[0]!r}, but {', '.join(PARTS)}")
    print(f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}, NumPy {np.__version__}")
    for part in parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
