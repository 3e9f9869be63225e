"""Claim: a checked file is saved as fast as plain bytes, and loads faster than any peer's.

GPT-2 small's leaves, 124 M float32 in 148 arrays (498 MB), from and to JAX arrays that are ready: saved with `fsync`, and loaded
from the page cache. The baseline is a plain write with `fsync` and a plain read of the same bytes. Peers: safetensors' own
`numpy` and `flax`, Orbax, Equinox, `np.savez`, Flax' msgpack and PyTorch. What comes back is checked to be equal. "Renamed" is a
plain write to a new file that then takes the place of the old one, as ptree's does. One leaf has 7 MB, where a format can
give it alone. Extra memory is what the process had more of while it saved, and while it loaded the 475 MiB.

Run it with `python benchmarks/files.py` (on Linux, with the `test`, `bench` and `torch` extras); `--sizes 124` are millions of
numbers, and the folder is `TMPDIR`'s, so `TMPDIR=/dev/shm` is in memory.
"""

import atexit
import ctypes
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _results import Aim, Row
from _timing import Clock, ratio
from _turns import Column, Facts, Made, Runs, numbers, run

LAYERS = 12
Tree = dict[str, Any]
Way = tuple[Callable[[Tree, Path], None], Callable[[Path], Tree], Callable[[Path], Any] | None]
"""How to save, how to load, and how to load one leaf."""
ONE = "blocks/5/attn/qkv/kernel"


def leaves(millions: int) -> Tree:
    """148 leaves in GPT-2's proportions."""
    draw, width = np.random.default_rng(0), 768 if millions == 124 else 64
    shapes: dict[str, tuple[int, ...]] = {"wte": (50257 if millions == 124 else 1024, width), "wpe": (1024, width)}
    for at in range(LAYERS):
        for name, shape in {
            "ln_1/scale": (width,), "ln_1/bias": (width,), "attn/qkv/kernel": (width, 3 * width), "attn/qkv/bias": (3 * width,),
            "attn/o/kernel": (width, width), "attn/o/bias": (width,), "ln_2/scale": (width,), "ln_2/bias": (width,),
            "up/kernel": (width, 4 * width), "up/bias": (4 * width,), "down/kernel": (4 * width, width), "down/bias": (width,),
        }.items():  # fmt: skip
            shapes[f"blocks/{at}/{name}"] = shape
    shapes |= {"ln_f/scale": (width,), "ln_f/bias": (width,)}
    return {name: jnp.asarray(draw.standard_normal(shape, "float32")) for name, shape in shapes.items()}


def plain(renamed: bool) -> Way:
    def save(tree: Tree, path: Path) -> None:
        place = path.with_name("new") if renamed else path
        with open(place, "wb", buffering=0) as file:
            for leaf in tree.values():
                view = memoryview(np.asarray(leaf).reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())
        os.replace(place, path)

    def load(path: Path) -> Tree:
        return {"": np.frombuffer(path.read_bytes(), "float32")}

    return save, load, None


def ptree(**options: Any) -> Way:
    import ptree as pt

    def one(path: Path) -> Any:
        with pt.open(path, **options) as file:
            return file[ONE][...]

    return lambda tree, path: pt.save(path, tree) and None, lambda path: dict(pt.items(pt.load(path, **options))), one


def safetensors(kind: str) -> Way:
    from importlib import import_module

    from safetensors import safe_open

    room = import_module(f"safetensors.{kind}")
    on_host = (lambda tree: {name: np.asarray(leaf) for name, leaf in tree.items()}) if kind == "numpy" else dict

    def save(tree: Tree, path: Path) -> None:
        room.save_file(on_host(tree), path)
        synced(path)

    def one(path: Path) -> Any:
        with safe_open(path, kind) as file:
            return jnp.asarray(file.get_tensor(ONE))

    return save, lambda path: {name: jnp.asarray(leaf) for name, leaf in room.load_file(path).items()}, one


def orbax() -> Way:
    import orbax.checkpoint as ocp

    keeper = ocp.StandardCheckpointer()

    def save(tree: Tree, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        keeper.save(path, {name.replace("/", "."): leaf for name, leaf in tree.items()})
        keeper.wait_until_finished()

    return save, lambda path: {name.replace(".", "/"): leaf for name, leaf in keeper.restore(path).items()}, None


def equinox(millions: int) -> Way:
    import equinox as eqx

    like = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves(millions).items()}

    def save(tree: Tree, path: Path) -> None:
        eqx.tree_serialise_leaves(path, tree)
        synced(path)

    return save, lambda path: eqx.tree_deserialise_leaves(path, like), None


def numpy_() -> Way:
    def save(tree: Tree, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **{name: np.asarray(leaf) for name, leaf in tree.items()})  # pyright: ignore[reportArgumentType]
        synced(path)

    def load(path: Path) -> Tree:
        with np.load(path) as file:
            return {name: jnp.asarray(file[name]) for name in file}

    def one(path: Path) -> Any:
        with np.load(path) as file:
            return jnp.asarray(file[ONE])

    return save, load, one


def msgpack() -> Way:
    from flax import serialization

    def save(tree: Tree, path: Path) -> None:
        path.write_bytes(serialization.to_bytes(tree))
        synced(path)

    def load(path: Path) -> Tree:
        restored: Any = serialization.msgpack_restore(path.read_bytes())
        return {name: jnp.asarray(leaf) for name, leaf in restored.items()}

    return save, load, None


def pytorch() -> Way:
    import torch

    def save(tree: Tree, path: Path) -> None:
        torch.save({name: torch.from_numpy(np.asarray(leaf)) for name, leaf in tree.items()}, path)
        synced(path)

    return (
        save,
        lambda path: {name: jnp.asarray(leaf.numpy()) for name, leaf in torch.load(path).items()},
        lambda path: jnp.asarray(torch.load(path, mmap=True)[ONE].numpy()),
    )


def synced(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


WAYS: dict[str, Callable[[int], Way]] = {
    "ptree": lambda _: ptree(), "plain bytes": lambda _: plain(False), "plain bytes, renamed": lambda _: plain(True), "ptree, mmap": lambda _: ptree(mmap=True),
    "safetensors.numpy": lambda _: safetensors("numpy"), "safetensors.flax": lambda _: safetensors("flax"),
    "Orbax": lambda _: orbax(), "Equinox": equinox, "np.savez": lambda _: numpy_(), "Flax msgpack": lambda _: msgpack(),
    "PyTorch": lambda _: pytorch(),
}  # fmt: skip


def make(who: str, millions: int) -> Made:
    tree = leaves(millions)
    save, load, one = WAYS[who](millions)
    folder = Path(tempfile.mkdtemp(prefix="ptree-files-"))
    path = folder / "m.data"  # whatever library writes it
    save(tree, path)
    back = load(path)
    total = sum(float(jnp.sum(leaf)) for leaf in back.values())
    del back

    def turn() -> Facts:
        held = peak("VmRSS")
        clock = Clock()
        save(tree, path)
        taken: Facts = {"save": clock.lap(), "save extra": peak() - held}
        held = peak("VmRSS")
        clock = Clock()
        back = load(path)
        jax.block_until_ready(back)
        taken |= {"load": clock.lap(), "load extra": peak() - held}
        del back
        if one is not None:
            clock = Clock()
            jax.block_until_ready(one(path))
            taken["one"] = clock.lap()
        return taken

    atexit.register(shutil.rmtree, folder, True)
    return {"check": [total], "leaves": len(tree)}, turn


def peak(what: str = "VmHWM") -> int:
    """Bytes of memory this process had at most since it last counted anew; VmRSS is what it has now, and counts anew."""
    if what == "VmRSS":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free is given back
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(rf"{what}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


FILES = [who for who in WAYS if not who.startswith(("ptree", "plain"))]
COLUMNS = [
    Column("save", ("save",), aims={"plain bytes": 1.1}),
    Column("load", ("load",), aims={"plain bytes": 1.3} | dict.fromkeys(FILES, 1.0)),
    Column("load one leaf of 7 MB", ("one",), most=0.005),
    Column("extra memory, save", ("save extra",), "B", in_file_only=True),
    Column("extra memory, load", ("load extra",), "B", in_file_only=True),
]


def mapped(found: dict[int, Runs]) -> Iterator[Row]:
    """The mapped load, which reads nothing, beside those of the peers."""
    for size, runs in found.items():
        ours = numbers(runs.get("ptree, mmap", []), ("load",))
        for who in FILES:
            theirs = numbers(runs.get(who, []), ("load",))
            if ours and theirs:
                share, spread = ratio(ours, theirs)
                name = f"{size} M numbers"
                row = Row("load, mapped", who, median(theirs), "s", name, share, "ptree, mmap", spread, Aim(0.05))
                yield row


if __name__ == "__main__":
    run(__file__, make, list(WAYS), [124], COLUMNS, noun="M numbers", further=mapped, rounds=1, turns=7,
        packages=("safetensors", "orbax-checkpoint", "equinox", "flax", "torch"))  # fmt: skip
