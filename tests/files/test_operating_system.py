"""Files on a system without flock, preadv, pwrite and folders that can be opened, where open files cannot be moved: as on Windows.

It is simulated in a process of its own: what is missing there is taken away before ptree is imported.
"""

import subprocess
import sys

import pytest

OTHER_SYSTEM = """
import os, sys
sys.modules["fcntl"] = None
for name in ("pread", "preadv", "pwrite", "pwritev", "O_DIRECTORY", "O_CLOEXEC"):
    delattr(os, name)
os.supports_fd.discard(os.chmod)
os.supports_dir_fd.clear()
real_open, real_close, open_files = os.open, os.close, {}

def open_file(path, *args, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    file = real_open(path, *args, **options)
    open_files[file] = os.path.abspath(path)
    return file

def close(file):
    open_files.pop(file, None)
    real_close(file)

def refuse_open(name):
    real = getattr(os, name)
    def call(*paths, **options):
        for path in paths:
            if os.path.abspath(path) in open_files.values():
                raise PermissionError(13, "The process cannot access the file because it is being used", str(path))
        return real(*paths, **options)
    return call

os.open, os.close = open_file, close
for name in ("replace", "rename", "unlink", "remove"):
    setattr(os, name, refuse_open(name))

import time, jax, jax.numpy as jnp, numpy as np, ptree as pt
from pathlib import Path
folder = Path(sys.argv[1])
file = folder / "m.safetensors"
tree = pt.tie({"a": jnp.arange(3000.0), "b": np.arange(5), "c": jnp.arange(3000.0), "key": jax.random.key(1), "n": 7}, {"c": "a"})

def holds(back):
    return pt.ties(back) == pt.ties(tree) and all(
        str(one) == str(other) and one.dtype == other.dtype if hasattr(one, "dtype") else one == other
        for (_, one), (_, other) in zip(pt.items(back), pt.items(tree))
    )
"""


def runs(code, folder):
    done = subprocess.run([sys.executable, "-c", OTHER_SYSTEM + code, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(2):\n"
        "    pt.save(file, tree)\n"
        "    assert holds(pt.load(file)) and holds(pt.load(file, like=tree))\n"
        "pt.save(file, tree, background=True).result()\n"
        "with pt.open(file) as opened:\n"
        "    assert opened['a'][10:12].tolist() == [10, 11] and opened['b'][...].tolist() == [0, 1, 2, 3, 4]\n"
        "assert os.listdir(folder) == [file.name]",
        "pt.save(file, tree)\nassert holds(pt.load(file, mmap=True))",
        "for size in (9000, 9000, None, 9000):\n"
        "    pt.save(file, tree, max_shard_size=size)\n"
        "    assert holds(pt.load(file)) and holds(pt.load(file, mmap=True))\n"
        "assert len(os.listdir(folder)) == 3, os.listdir(folder)",
        "for step in (1, 2, 3):\n"
        "    with pt.Checkpoints(folder, keep=2, max_shard_size=9000 if step == 2 else None) as checkpoints:\n"
        "        if step > 1: assert checkpoints.load(like=tree)[0] == step - 1\n"
        "        checkpoints.save(step, tree)\n"
        "assert checkpoints.steps() == [2, 3] and holds(checkpoints.load()[1])",
        "mesh = jax.make_mesh((1,), ('d',))\n"
        "pt.save(file, {'a': jnp.ones((4, 4))})\n"
        "assert pt.load(file, shardings=jax.sharding.PartitionSpec('d'), mesh=mesh)['a'].sum() == 16",
        "left, young = (folder / f'.m.safetensors.{digit * 32}.tmp' for digit in '01')\n"
        "for path in (left, young): path.write_bytes(b'half')\n"
        "os.utime(left, (time.time() - 4000,) * 2)\n"
        "pt.save(file, tree)\n"
        "assert sorted(os.listdir(folder)) == sorted([young.name, file.name])",  # an hour old, or written just now
        "import threading\n"
        "from ptree.files._shards import sweep_shards\n"
        "go, real_write, writes = threading.Event(), os.write, []\n"
        "def write(*args):\n"
        "    writes.append(1)\n"
        "    if len(writes) == 5: go.wait(60)\n"
        "    return real_write(*args)\n"
        "os.write = write\n"
        "saved = pt.save(file, tree, max_shard_size=9000, background=True)\n"
        "while len(writes) < 5: time.sleep(0.01)\n"
        "before = sorted(os.listdir(folder))\n"
        "for path in folder.iterdir(): os.utime(path, (0, 0))\n"
        "sweep_shards(file)\n"  # as another process that saves: it must not take what is still written for left behind
        "assert len(before) > 1 and sorted(os.listdir(folder)) == before, (before, os.listdir(folder))\n"
        "go.set()\n"
        "saved.result()\n"
        "assert holds(pt.load(file)) and len(os.listdir(folder)) == 3",
        "pt.save(file, tree)\n"
        "try:\n"
        "    pt.save(file, {'a': jnp.ones(3), 'b': object()})\n"
        "except pt.FileError: pass\n"
        "with open(file, 'rb') as held:\n"
        "    open_files[-1] = str(file)\n"
        "    try: pt.save(file, {'a': 1})\n"
        "    except PermissionError as error: assert error.filename == str(file)\n"
        "    else: raise AssertionError\n"
        "del open_files[-1]\n"
        "assert os.listdir(folder) == [file.name] and holds(pt.load(file))",
    ],
    ids=["one file", "mapped", "shards", "checkpoints", "sharded", "left drafts", "slow shards", "in use"],
)  # fmt: skip
def test_files_work_without_what_windows_lacks(tmp_path, code):
    runs(code, tmp_path)
