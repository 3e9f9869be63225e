"""Claim: a checked file is saved as fast as plain bytes, and loads faster than any peer's.

GPT-2 small's leaves, 124 M float32 in 148 arrays (498 MB), from and to JAX arrays that are ready: saved with `fsync`, and loaded
from the page cache. The floor is a plain write with `fsync` and a plain read of the same bytes. Peers: safetensors' own
`numpy` and `flax`, Orbax, Equinox, `np.savez`, Flax' msgpack and PyTorch. What comes back is checked to be equal. Run it with
`python benchmarks/files.py` (with the `test`, `bench` and `torch` extras); `--sizes 124` are millions of numbers, and the
folder is `TMPDIR`'s, so `TMPDIR=/dev/shm` is in memory. In brackets is ptree's time over this one's.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _training import Clock
from _turns import Column, Facts, Made, run

LAYERS = 12
Tree = dict[str, Any]
Way = tuple[Callable[[Tree, Path], None], Callable[[Path], Tree]]


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


def plain() -> Way:
    import os

    def save(tree: Tree, path: Path) -> None:
        with open(path, "wb", buffering=0) as file:
            for leaf in tree.values():
                view = memoryview(np.asarray(leaf).reshape(-1).view(np.uint8))  # pyright: ignore[reportArgumentType]
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())

    def load(path: Path) -> Tree:
        return {"": np.frombuffer(path.read_bytes(), "float32")}

    return save, load


def ptree(**options: Any) -> Way:
    import ptree as pt

    return lambda tree, path: pt.save(path, tree) and None, lambda path: dict(pt.items(pt.load(path, **options)))


def safetensors(kind: str) -> Way:
    from importlib import import_module

    room = import_module(f"safetensors.{kind}")
    on_host = (lambda tree: {name: np.asarray(leaf) for name, leaf in tree.items()}) if kind == "numpy" else dict

    def save(tree: Tree, path: Path) -> None:
        room.save_file(on_host(tree), path)
        synced(path)

    return save, lambda path: {name: jnp.asarray(leaf) for name, leaf in room.load_file(path).items()}


def orbax() -> Way:
    import orbax.checkpoint as ocp

    keeper = ocp.StandardCheckpointer()

    def save(tree: Tree, path: Path) -> None:
        shutil.rmtree(path, ignore_errors=True)
        keeper.save(path, {name.replace("/", "."): leaf for name, leaf in tree.items()})
        keeper.wait_until_finished()

    return save, lambda path: {name.replace(".", "/"): leaf for name, leaf in keeper.restore(path).items()}


def equinox(millions: int) -> Way:
    import equinox as eqx

    like = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves(millions).items()}

    def save(tree: Tree, path: Path) -> None:
        eqx.tree_serialise_leaves(path, tree)
        synced(path)

    return save, lambda path: eqx.tree_deserialise_leaves(path, like)


def numpy_() -> Way:
    def save(tree: Tree, path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, **{name: np.asarray(leaf) for name, leaf in tree.items()})  # pyright: ignore[reportArgumentType]
        synced(path)

    def load(path: Path) -> Tree:
        with np.load(path) as file:
            return {name: jnp.asarray(file[name]) for name in file}

    return save, load


def msgpack() -> Way:
    from flax import serialization

    def save(tree: Tree, path: Path) -> None:
        path.write_bytes(serialization.to_bytes(tree))
        synced(path)

    def load(path: Path) -> Tree:
        restored: Any = serialization.msgpack_restore(path.read_bytes())
        return {name: jnp.asarray(leaf) for name, leaf in restored.items()}

    return save, load


def pytorch() -> Way:
    import torch

    def save(tree: Tree, path: Path) -> None:
        torch.save({name: torch.from_numpy(np.asarray(leaf)) for name, leaf in tree.items()}, path)
        synced(path)

    return save, lambda path: {name: jnp.asarray(leaf.numpy()) for name, leaf in torch.load(path).items()}


def synced(path: Path) -> None:
    import os

    with open(path, "rb+") as file:
        os.fsync(file.fileno())


WAYS: dict[str, Callable[[int], Way]] = {
    "ptree": lambda _: ptree(), "plain bytes": lambda _: plain(), "ptree, mmap": lambda _: ptree(mmap=True),
    "safetensors.numpy": lambda _: safetensors("numpy"), "safetensors.flax": lambda _: safetensors("flax"),
    "Orbax": lambda _: orbax(), "Equinox": equinox, "np.savez": lambda _: numpy_(), "Flax msgpack": lambda _: msgpack(),
    "PyTorch": lambda _: pytorch(),
}  # fmt: skip


def make(who: str, millions: int) -> Made:
    tree = leaves(millions)
    save, load = WAYS[who](millions)
    folder = Path(tempfile.mkdtemp(prefix="ptree-files-"))
    path = folder / "m.bin"
    save(tree, path)
    back = load(path)
    total = sum(float(jnp.sum(leaf)) for leaf in back.values())
    del back

    def turn() -> Facts:
        clock = Clock()
        save(tree, path)
        taken: Facts = {"save": clock.lap()}
        back = load(path)
        jax.block_until_ready(back)
        taken["load"] = clock.lap()
        return taken

    import atexit

    atexit.register(shutil.rmtree, folder, True)
    return {"check": [total], "leaves": len(tree)}, turn


if __name__ == "__main__":
    columns = [Column("save ms", ("save",), 1e3, 0, ratio=True), Column("load ms", ("load",), 1e3, 1, ratio=True)]
    run(__file__, make, list(WAYS), [124], [*columns, Column("peak MiB", ("peak",), 2**-20, 0)], rounds=1, turns=5,
        packages=("safetensors", "orbax-checkpoint", "equinox", "flax", "torch"))  # fmt: skip
