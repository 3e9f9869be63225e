"""Many processes, two of them on this machine: each reads its own part, and both write one checkpoint."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from processes import outputs, started
from safetensors.numpy import load_file
from trees import equal

import ptree as pt
from ptree._command_line import main

PROCESS = """
folder = arguments[0]
import jax.numpy as jnp, numpy as np, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P

assert (jax.process_count(), jax.device_count(), len(jax.local_devices())) == (2, 8, 4)
mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
whole = np.arange(64 * 32, dtype="float32").reshape(64, 32)
with pt.open(folder + "/m.safetensors") as file:
    before = file.bytes_read
    loaded = file.read([file.leaves["rows"]], {"rows": NamedSharding(mesh, P("d"))}).values["rows"]
    assert file.bytes_read - before == whole.nbytes // 2, file.bytes_read
shardings = {"rows": P("d"), "columns": P(None, "d"), "bias": P(), "key": P()}
state = pt.load(folder + "/m.safetensors", shardings=shardings, mesh=mesh)
for name in ("rows", "columns"):
    assert not state[name].is_fully_addressable
    for shard in state[name].addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])
with pt.Checkpoints(folder + "/spread", keep=1, backend="orbax") as checkpoints:
    for step in (1, 2):
        checkpoints.save(step, state)
with pt.Checkpoints(folder + "/spread", backend="orbax") as checkpoints:
    step, back = checkpoints.load(like=state)
    assert step == 2
    for name, leaf in state.items():
        assert back[name].sharding == leaf.sharding, name
        for one, other in zip(back[name].addressable_shards, leaf.addressable_shards):
            assert (one.data == other.data).all()

same = pt.select(state, ["bias", "key"])  # each process has it whole
with pt.Checkpoints(folder + "/same") as checkpoints:
    checkpoints.save(3, same)
jax.experimental.multihost_utils.sync_global_devices("saved")
step, back = pt.Checkpoints(folder + "/same").load(like=same)
assert step == 3 and not back["bias"].is_fully_addressable and back["bias"].is_fully_replicated
print("done")
"""


def run_two(code, folder):
    """Run the code in two processes with four devices each, which both end well."""
    for printed in outputs(code, folder, timeout=120):
        assert printed.endswith("done\n")


def test_two_processes_read_their_own_parts_and_write_one_checkpoint(tmp_path):
    whole = np.arange(64 * 32, dtype="float32").reshape(64, 32)
    tree = pt.Tree(
        {"rows": jnp.asarray(whole), "columns": jnp.asarray(whole), "bias": jnp.arange(5.0), "key": jax.random.key(3)}
    )
    pt.save(tmp_path / "m.safetensors", tree)
    run_two(PROCESS, tmp_path)
    for folder in ("spread", "same"):
        step, back = pt.Checkpoints(tmp_path / folder).load()
        assert len(os.listdir(tmp_path / folder)) == 1
        assert equal(back, pt.select(tree, [*back]))
    assert step == 3


# ----------------------------------------------------------------------------- files that all processes write

SAVER = """
folder = arguments[0]
import os, jax.numpy as jnp, numpy as np, ptree as pt
from jax.sharding import NamedSharding, PartitionSpec as P
from ptree._stored.safetensors import SafetensorsFile

mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
def placed(array, *spec):
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))

keys = jax.jit(lambda: jax.random.split(jax.random.key(3), 8), out_shardings=NamedSharding(mesh, P("data")))

def tree(start):
    table = np.arange(64 * 32, dtype="float32").reshape(64, 32) + start
    spread = {
        "fsdp": placed(table, "data"), "both": placed(table, "data", "model"), "inner": placed(table, ("model", "data")),
        "tensor": placed(table, None, "model"), "bias": placed(np.arange(5.0, dtype="float32") + start),
        "half": placed(table.astype(jnp.bfloat16), "model", "data"), "keys": keys(),
        "step": 7 + rank, "local": np.full(3, start + rank, "float32"), "stack": {":": {"w": placed(table.reshape(4, 16, 32), None, "data")}},
    }
    return pt.tie(pt.Tree({**spread, "head": spread["fsdp"].T}), {"head": pt.transposed("fsdp")})
"""

SPREAD = (
    SAVER
    + """
path = folder + "/model.safetensors"
first = tree(0.0)
saved = pt.save(path, first, metadata={"run": "7"})
assert saved.done() and str(saved).startswith(f"<saved {path + '.index.json'!r}, "), saved
for options in ({}, {"verify": True}):
    back = pt.load(path, like=first, **options)
    for name, leaf in pt.items(first):
        if isinstance(leaf, jax.Array):
            assert back[name].sharding == leaf.sharding, name
            for one, other in zip(back[name].addressable_shards, leaf.addressable_shards):
                assert (one.data == other.data).all(), name
with pt.open(path) as file:  # each process reads its own half, and compares its part with the part's checksum
    before = file.bytes_read
    file.read([file.leaves["fsdp"]], {"fsdp": first["fsdp"].sharding})
    assert file.bytes_read - before == 64 * 32 * 4 // 2
    before = file.bytes_read
    columns = NamedSharding(mesh, P(None, "data"))  # another layout: of each row its own half, with short gaps between them
    file.read([file.leaves["fsdp"]], {"fsdp": columns})
    assert file.bytes_read - before <= 64 * 32 * 4
with jax.set_mesh(mesh):
    pt.save(path, tree(1.0), max_shard_size=2_000, metadata={"run": "8"})  # in its place, with names of their own
assert float(pt.load(path, select="fsdp", shardings=P("data"), mesh=mesh)["fsdp"].addressable_shards[0].data[0, 0]) == rank * 1024 + 1

def refused(text, *args, **options):
    try:
        pt.save(*args, **options)
    except (pt.FileError, OSError) as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)

refused("parts of it are in other processes, which wait for each other", path, first, background=True)
refused("the processes save different trees, shardings or metadata", path, {**first, f"more{rank}": 1})
refused("the processes save different trees", path, first, metadata={"rank": str(rank)})
if rank:  # a disk that is full in one process alone
    real = os.pwrite
    def full(*args):
        raise OSError(28, "No space left on device")
    os.pwrite = full
refused("No space left on device" if rank else "as another process failed: process 1: OSError: [Errno 28] No space left", path, first)
if rank:
    os.pwrite = real
else:  # which has the draft of the index
    assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
other = folder + f"/apart{rank}"
os.mkdir(other)
refused("which another process wrote, is not there. All processes save into one folder", other, first)
try:
    pt.Checkpoints(folder + "/steps").save(1, first)
except pt.FileError as error:
    assert "a part is in other processes: save it with ptree.save, all processes together, or with Checkpoints(..., backend='orbax')" in str(error), error
else:
    raise AssertionError
print("done")
"""
)


def spread_tree(start=0.0):
    table = np.arange(64 * 32, dtype="float32").reshape(64, 32) + start
    return pt.tie(
        pt.Tree({
            "fsdp": jnp.asarray(table), "both": jnp.asarray(table), "inner": jnp.asarray(table), "tensor": jnp.asarray(table),
            "bias": jnp.arange(5.0) + start, "half": jnp.asarray(table, "bfloat16"), "keys": jax.random.split(jax.random.key(3), 8),
            "step": 7, "local": np.full(3, start, "float32"), "stack": {":": {"w": jnp.asarray(table.reshape(4, 16, 32))}}, "head": jnp.asarray(table.T),
        }),
        {"head": pt.transposed("fsdp")},
    )  # fmt: skip


CUT = ["fsdp", "both", "inner", "half", "keys", "stack/:/w"]


def test_two_processes_save_a_tree_that_is_spread_over_them(tmp_path):
    run_two(SPREAD, tmp_path)
    path = tmp_path / "model.safetensors"
    expected = spread_tree(1.0)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    # leaves of which one process has all are whole, as every reader of such a folder expects
    whole = {name: shard for name, shard in index["weight_map"].items() if "[" not in name}
    assert sorted(whole) == ["bias", "local", "step", "tensor"]
    for name, shard in whole.items():
        np.testing.assert_array_equal(load_file(tmp_path / shard)[name], np.asarray(expected[name]))
    assert {name.partition("[")[0] for name in index["weight_map"]} - {*whole} == {*CUT}
    part = load_file(tmp_path / index["weight_map"]["fsdp[32:64,0:32]"])["fsdp[32:64,0:32]"]
    np.testing.assert_array_equal(part, np.asarray(expected["fsdp"])[32:])
    assert {*index["weight_map"].values()} == {
        name for name in os.listdir(tmp_path) if name.endswith("00.safetensors") or "-of-" in name
    }
    # one device, eight, four; another mesh
    assert equal(pt.load(path), expected)
    assert equal(pt.load(path, like=expected, verify=True), expected)
    for shape, spec in (((8,), ("a",)), ((4,), (None, "a")), ((2, 4), ("b", "a")), ((1,), ("a",))):
        names = ("b", "a")[2 - len(shape) :]
        mesh = jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(shape), devices=jax.devices()[: int(np.prod(shape))])  # fmt: skip
        rules = {"{fsdp,both,inner,half,tensor}": PartitionSpec(*spec), "**": PartitionSpec()}
        for options in ({}, {"verify": True}, {"mmap": True}):
            back = pt.load(path, shardings=rules, mesh=mesh, **options)
            assert equal(jax.device_get(back), jax.device_get(expected))
            assert back["both"].sharding == NamedSharding(mesh, PartitionSpec(*spec))
    with pt.open(path) as opened:
        assert [*opened] == pt.paths(expected, aliases=True)
        assert opened.metadata == {"run": "8"}
        both = np.asarray(expected["both"])
        for at in (
            (slice(None, None, -3), slice(5, 30, 7)),
            40,
            (..., -1),
            (slice(30, 34), slice(7, 9)),
            (None, slice(0)),
        ):
            np.testing.assert_array_equal(opened["both"][at], both[at])
        np.testing.assert_array_equal(opened["head"][3:5, ::9], both.T[3:5, ::9])
        np.testing.assert_array_equal(opened["stack/2/w"][1:, :3], np.asarray(expected["stack/:/w"])[2, 1:, :3])
        before = opened.bytes_read
        opened["both"][33:35, 9:11]
        assert opened.bytes_read - before == 2 * 32 + 8 - 32 + 8 - 8 or opened.bytes_read - before < 64
    assert main(["check", str(path)]) == 0
    assert main(["show", str(path)]) == 0
    pt.save(tmp_path / "one.safetensors", pt.load(path))  # a file that every reader reads
    assert equal(pt.load(tmp_path / "one.safetensors"), expected)


SAVED = SAVER + "pt.save(folder + '/model.safetensors', tree(0.0))\nprint('done')"


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    run_two(SAVED, folder)
    return folder


def test_damage_of_one_part_is_found_and_named(saved_by_two, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(saved_by_two, folder)
    name = "fsdp[32:64,0:32]"
    shard = folder / json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    with pt.open(shard) as opened:
        at = opened.leaves[name].start + 5
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(bytes(data))
    text = rf"damaged, its bytes are not what its checksum says: 'fsdp\[32:64,0:32\]', in '{re.escape(str(shard))}'"
    for load in (
        lambda: pt.load(folder),
        lambda: pt.load(folder, like=spread_tree()),
        lambda: pt.open(folder)["fsdp"][...],
    ):
        with pytest.raises(pt.FileError, match=text) as raised:
            load()
        assert raised.value.is_damage
        assert raised.value.damaged == ["fsdp"]
    assert equal(pt.load(folder, select="!fsdp"), pt.drop(spread_tree(), ["fsdp", "head"]))
    pt.load(folder, verify=False)
    # devices that read just this part compare it, and others with verify=True
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    with pytest.raises(pt.FileError, match=text):
        pt.load(folder, select="fsdp", shardings=PartitionSpec("d"), mesh=mesh)
    alone = NamedSharding(jax.sharding.Mesh(np.array(jax.devices()[:8]), "d"), PartitionSpec("d"))
    columns = {"select": "fsdp", "shardings": alone}
    pt.load(folder, **columns)
    with pytest.raises(pt.FileError, match=text):
        pt.load(folder, **columns, verify=True)
    assert main(["check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"'fsdp' is damaged: the bytes of {name!r}, in {str(shard)!r}, are not what its checksum says"
    assert re.fullmatch(r"model\.safetensors\.index\.json: damaged or unreadable, 1 of \d+ leaves", lines[1])
    shard.unlink()
    with pytest.raises(pt.FileError, match="these shards are not beside it"):
        pt.load(folder)
    assert main(["show", str(folder)]) == 1
    assert "has a part that is in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0]}], "do not fill axis 0, of 64, one after the other"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0], "fsdp[32:64,0:32]": [0, 0]}], "do not fill axis 0"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0], "fsdp[32:64,0:32]": [31, 0]}], "do not fill axis 0"),
        ([[64, 64], {"fsdp[0:32,0:32]": [0, 0], "fsdp[32:64,0:32]": [32, 32]}], "are 2, and not the 4 of a grid"),
        ([[64, 32, 1], {"fsdp[0:32,0:32]": [0, 0, 0], "fsdp[32:64,0:32]": [32, 0, 0]}], "have another number of axes than the leaf, 3"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0], "fsdp[32:64,0:32]": [32]}], "have another number of axes"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0], "half[0:16,0:16]": [32, 0]}], "are of several dtypes or kinds"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0], "gone": [32, 0]}], "parts of 'fsdp' are not in it"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, 0], "bias": [32]}], "have another number of axes"),
        ([[64, 32], {}], "are none"),
        ([[64, 32], {"fsdp[0:32,0:32]": [0, -1]}], "is not a whole index of shards"),
        ([[64, True], {"fsdp[0:32,0:32]": [0, 0]}], "is not a whole index of shards"),
        ([[1 << 70, 32], {"fsdp[0:32,0:32]": [0, 0]}], "is not a whole index of shards"),
        ([5, {"fsdp[0:32,0:32]": [0, 0]}], "is not a whole index of shards"),
        ("parts", "is not a whole index of shards"),
    ],
)  # fmt: skip
def test_parts_that_do_not_make_up_a_leaf_are_refused(saved_by_two, tmp_path, parts, why):
    folder = tmp_path / "copy"
    shutil.copytree(saved_by_two, folder)
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    facts = json.loads(index["metadata"]["ptree"])
    facts["parts"]["fsdp"] = parts
    index["metadata"]["ptree"] = json.dumps(facts)
    file.write_text(json.dumps(index))
    with pytest.raises(pt.FileError, match=re.escape(why)) as raised:
        pt.load(folder, verify=False)
    assert raised.value.is_damage
    assert str(file) in str(raised.value)


KILLED = (
    SAVER
    + """
import os, signal
path = folder + "/model.safetensors"
pt.save(path, tree(0.0))
print("saved", flush=True)
if rank == 1:
    real, count = os.pwrite, [0]
    def pwrite(*args):
        count[0] += 1
        if count[0] == 3:  # in the middle of its file
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    os.pwrite = pwrite
pt.save(path, tree(1.0))
print("not reached", flush=True)
"""
)


def test_a_process_that_is_killed_leaves_the_old_tree_and_the_others_end(tmp_path):
    with started(KILLED, tmp_path) as processes:
        for process in processes:
            printed, code = process.wait(timeout=100)
            assert code != 0
            assert "saved\n" in printed
            assert "not reached" not in printed
    assert equal(pt.load(tmp_path), spread_tree(0.0))
    pt.save(tmp_path, spread_tree(2.0), max_shard_size="10KB")  # and sweeps up what was left
    assert equal(pt.load(tmp_path), spread_tree(2.0))
    named = {*json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values()}
    assert {*os.listdir(tmp_path)} == {*named, "model.safetensors.index.json"}


RELEASES = Path(__file__).parent / "releases_in_parts"


@pytest.mark.parametrize("version", sorted(os.listdir(RELEASES)))
def test_what_two_processes_of_a_release_wrote_loads_as_it_was_saved(version):
    """Folders that are never changed. To add one: `PYTHONPATH=tests python tests/files/test_processes.py VERSION`."""
    assert equal(pt.load(RELEASES / version), spread_tree())
    assert equal(pt.load(RELEASES / version, like=spread_tree(), verify=True), spread_tree())


if __name__ == "__main__":
    (RELEASES / sys.argv[1]).mkdir(parents=True)  # never over one that is there
    run_two(SAVED, RELEASES / sys.argv[1])
