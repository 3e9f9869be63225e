"""Files between ptree and other programs: what it saves they read, bit for bit, and what they write it loads."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from trees import TREES

import ptree as pt
from ptree._stored.dtypes import CODES, DTYPES

CORPUS = {name: tree for name, tree in TREES.items() if name != "a bare array"} | {
    "each dtype": {code: (np.arange(12) % 2).astype(dtype).reshape(3, 4) for code, dtype in DTYPES.items()}
}
F8 = {code for code in DTYPES if code.startswith("F8")}
UNREAD = {"numpy": F8, "flax": F8, "torch": set(), "node": {"F16", "BF16", "C64"} | F8}
"""The dtypes that a reader does not know; Node.js itself has float16 from version 24 on."""


def stored(file):
    """Name -> dtype, shape and bytes, in the order of the data."""
    whole = file.read_bytes()
    first = 8 + int.from_bytes(whole[:8], "little")
    table = json.loads(whole[8:first])
    table.pop("__metadata__", None)
    order = sorted(table, key=lambda name: (table[name]["data_offsets"], name))
    places = {name: [first + place for place in table[name]["data_offsets"]] for name in order}
    return {name: (table[name]["dtype"], table[name]["shape"], whole[slice(*places[name])]) for name in order}


def read_by(reader, name):
    """The tree, without the leaves that the reader does not know."""
    tree = CORPUS[name]
    if "dtype" not in name:
        return tree
    return {path: leaf for path, leaf in pt.items(tree) if CODES[np.dtype(leaf.dtype)] not in UNREAD[reader]}


def bytes_of(tensor):
    if type(tensor).__module__ == "torch":
        tensor = tensor.contiguous().reshape(-1).view(importlib.import_module("torch").uint8).numpy()
    return np.asarray(tensor).tobytes()


@pytest.mark.parametrize("reader", ["numpy", "torch", "flax"])
@pytest.mark.parametrize("name", CORPUS)
def test_safetensors_reads_each_file_and_what_it_writes_loads(tmp_path, name, reader):
    program = pytest.importorskip(f"safetensors.{reader}")
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    pt.save(ours, read_by(reader, name), expand_ties=True)
    with jax.enable_x64(True):
        tensors = program.load_file(ours)
        expected = stored(ours)
        assert tensors.keys() == expected.keys()
        for path, (_, shape, data) in expected.items():
            assert [*tensors[path].shape] == shape
            assert bytes_of(tensors[path]) == data
        program.save_file(tensors, theirs)
        assert sorted(stored(theirs)) == sorted(expected)
        back = pt.load(theirs)
    assert pt.paths(back) == [*stored(theirs)]
    for path, leaf in pt.items(back):
        code, shape, data = expected[path]
        assert (leaf.dtype, [*leaf.shape], bytes_of(leaf)) == (DTYPES[code], shape, data)


@pytest.mark.parametrize("reader", ["numpy", "flax"])
def test_what_a_reader_is_said_not_to_read_it_does_not(tmp_path, reader):
    program = importlib.import_module(f"safetensors.{reader}")
    for code in UNREAD[reader]:
        pt.save(tmp_path / "m.safetensors", {"a": np.ones(3, DTYPES[code])})
        with pytest.raises(AttributeError, match=f"'numpy' has no attribute '{DTYPES[code]}'"):
            program.load_file(tmp_path / "m.safetensors")


NODE = """
import { readdirSync, readFileSync } from "node:fs";
import { safetensors } from "@jax-js/loaders";
const read = {};
for (const file of readdirSync(process.argv[1])) {
  const { tensors, metadata } = safetensors.parse(new Uint8Array(readFileSync(process.argv[1] + "/" + file)));
  const leaves = Object.entries(tensors).map(([name, { dtype, shape, data }]) => [
    name, [dtype, shape, Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("hex"), Array.from(data, Number)]]);
  read[file] = [Object.fromEntries(leaves), metadata.run];
}
console.log(JSON.stringify(read));
"""

if shutil.which("node") and (Path(sys.prefix) / "node_modules/@jax-js/loaders").is_dir():

    def test_node_reads_each_file(tmp_path):
        read = {name: read_by("node", name) for name in CORPUS}
        for name, tree in read.items():
            pt.save(tmp_path / name, tree, metadata={"run": "é 7"})
        command = ["node", "--input-type=module", "-e", NODE, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=sys.prefix)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found.keys() == read.keys()
        for name in read:
            tensors, run = found[name]
            assert run == "é 7"
            assert tensors == {
                path: [code, shape, data.hex(), np.frombuffer(data, DTYPES[code]).tolist()]
                for path, (code, shape, data) in stored(tmp_path / name).items()
            }
