"""Folders by Orbax: trees that other programs saved load too, and ptree's own metadata are checked like the rest."""

import json
import os
import random
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from errors import says
from jax.sharding import NamedSharding, PartitionSpec

import ptree as pt
from ptree._stored.steps import saved_steps
from ptree.files import _checkpoints, _step_folders, _steps

ocp = pytest.importorskip("orbax.checkpoint")


def tree():
    return {
        "a": {"w": jnp.arange(6.0).reshape(2, 3), "b": np.arange(3, dtype="int16")},
        "list": [jnp.ones(2), (jnp.zeros(1), jnp.full(8, 3.0))],
        "n": 3,
        "f": 0.5,
        "none": None,
        "slash/ed": jnp.ones(1),
        "half": jnp.ones(2, jnp.bfloat16),
    }


NAMES = ["a/b", "a/w", "f", "half", "list/0", "list/1/0", "list/1/1", "n", "slash/ed"]


def save_by_standard(path):
    with ocp.StandardCheckpointer() as saver:
        saver.save(path, tree())
        saver.wait_until_finished()
    return path


def save_by_pytree(path):
    with ocp.PyTreeCheckpointer() as saver:
        saver.save(path, tree())
    return path


def save_without_one_database(path):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as saver:
        saver.save(path, tree())
    return path


def save_by_manager(path):
    with ocp.CheckpointManager(path) as manager:
        for step in (5, 10):
            manager.save(step, args=ocp.args.StandardSave(tree()))
        manager.wait_until_finished()
    return path / "10"


def save_as_one_of_several_items(path):
    with ocp.CheckpointManager(path) as manager:
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree()), notes=ocp.args.JsonSave({"x": 1}))
        manager.save(5, args=items)
        manager.wait_until_finished()
    return path / "5"


SAVERS = [save_by_standard, save_by_pytree, save_without_one_database, save_by_manager, save_as_one_of_several_items]


@pytest.mark.parametrize("saver", SAVERS)
def test_a_folder_by_another_program_loads(tmp_path, saver):
    path = saver(tmp_path / "run")
    back = pt.load(path)
    assert sorted(pt.paths(back)) == NAMES
    assert back["none"] is None
    for name, leaf in pt.items(tree()):
        np.testing.assert_array_equal(np.asarray(back[name]), np.asarray(leaf))
        assert np.asarray(back[name]).dtype == np.asarray(leaf).dtype
        assert isinstance(back[name], jax.Array) == isinstance(leaf, jax.Array)
    part = pt.load(path, select=["a/w", "list/1"])
    assert pt.paths(part) == ["a/w", "list/1/0", "list/1/1"]
    like = jax.tree.map(lambda leaf: leaf * 0, tree())
    again = pt.load(path, like=like)
    assert jax.tree.structure(again) == jax.tree.structure(like)
    np.testing.assert_array_equal(again["list"][1][1], tree()["list"][1][1])
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = pt.load(path, select="list/1/1", shardings=PartitionSpec("d"), mesh=mesh)
    assert spread["list/1/1"].sharding == NamedSharding(mesh, PartitionSpec("d"))
    if saver is save_by_manager:
        assert sorted(pt.paths(pt.load(path / "default"))) == NAMES


def test_a_state_of_optax_by_another_program_loads_into_its_containers(tmp_path):
    params = {"w": jnp.ones((2, 3))}
    state = optax.chain(optax.clip(1.0), optax.adam(0.1)).init(params)
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "run", {"params": params, "state": state})
        saver.wait_until_finished()
    back = pt.load(tmp_path / "run", {"params": params, "state": state})
    assert jax.tree.structure(back["state"]) == jax.tree.structure(state)


def test_folders_by_orbax_that_are_no_tree_say_what_they_are(tmp_path):
    path = save_by_manager(tmp_path / "run").parent
    says(
        pt.FileError,
        f"cannot load {str(path)!r}: it holds checkpoints by Orbax, ['5', '10']. Load one: {str(path / '10')!r}",
        pt.load, path,
    )  # fmt: skip
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as saver:
        saver.save(tmp_path / "json", {"a": 1})
    says(
        pt.FileError,
        f"cannot load {str(tmp_path / 'json')!r}: it is a checkpoint by Orbax without a tree of arrays",
        pt.load, tmp_path / "json",
    )  # fmt: skip
    with ocp.CheckpointManager(tmp_path / "two") as manager:
        manager.save(5, args=ocp.args.Composite(a=ocp.args.StandardSave({"w": jnp.ones(1)}), b=ocp.args.StandardSave({"w": jnp.ones(1)})))  # fmt: skip
        manager.wait_until_finished()
    with pytest.raises(pt.FileError, match=r"it has several trees, \['a', 'b'\]. Load the folder of one of them"):
        pt.load(tmp_path / "two" / "5")
    assert pt.paths(pt.load(tmp_path / "two" / "5" / "b")) == ["w"]


def test_what_is_no_array_is_refused_by_name(tmp_path):
    with ocp.PyTreeCheckpointer() as saver:
        saver.save(tmp_path / "run", {"w": jnp.ones(2), "name": "x"})
    with pytest.raises(
        pt.FileError, match=r"'name' is a StringMetadata of Orbax, and no array. select= loads the others"
    ):
        pt.load(tmp_path / "run")
    assert pt.paths(pt.load(tmp_path / "run", select="w")) == ["w"]


# ----------------------------------------------------------------------------- ptree's own


@pytest.fixture
def saved(tmp_path):
    """A checkpoint that ptree wrote, and what it holds."""
    state = pt.tie(
        {"a": {"w": jnp.arange(6.0).reshape(2, 3)}, "b": jnp.ones(2), "c": jnp.ones(2), "z": jnp.zeros((0, 3)), "n": 3},
        {"c": "b"},
    )
    with pt.Checkpoints(tmp_path, backend="orbax") as checkpoints:
        checkpoints.save(1, state)
    return tmp_path / "step_1", state


@pytest.fixture
def metadata_file(saved):
    return saved[0] / "_CHECKPOINT_METADATA"


def test_metadata_that_were_changed_are_damage(saved, metadata_file):
    path, state = saved
    assert pt.load(path) == state
    about = json.loads(metadata_file.read_text())
    facts, arrays = json.loads(about["custom_metadata"]["ptree"]), json.loads(about["custom_metadata"]["arrays"])
    changes = {
        "another tie": {"ptree": json.dumps({**facts, "ties": {"c": ["n", []]}})},
        "another order": {"ptree": json.dumps({**facts, "order": facts["order"][::-1]})},
        "another kind": {"ptree": json.dumps({**facts, "kinds": {"n": "float"}})},
        "no checksums of leaves": {"ptree": json.dumps({**facts, "sums": {}})},
        "another empty shape": {"arrays": json.dumps({**arrays, "z": ["float32", [3, 0]]})},
        "another checksum": {"ptree_sum": "0" * 32},
    }
    for name, change in changes.items():
        about_changed = {**about, "custom_metadata": {**about["custom_metadata"], **change}}
        metadata_file.write_text(json.dumps(about_changed))
        with pytest.raises(pt.FileError, match="its metadata are not what their checksum says") as raised:
            pt.load(path)
        assert raised.value.is_damage, name
    for key in ("ptree", "arrays", "ptree_sum"):
        kept = {other: text for other, text in about["custom_metadata"].items() if other != key}
        metadata_file.write_text(json.dumps({**about, "custom_metadata": kept}))
        with pytest.raises(pt.FileError, match="a part of what ptree wrote is missing") as raised:
            pt.load(path)
        assert raised.value.is_damage, key


def test_any_change_of_the_metadata_is_found_or_changes_nothing(saved, metadata_file, long):
    path, state = saved
    whole = metadata_file.read_bytes()
    for seed in range(2000 if long else 60):
        draw = random.Random(seed)
        changed = bytearray(whole)
        at = draw.randrange(len(whole))
        if draw.random() < 0.3:
            del changed[at : at + draw.choice([1, 4, 400])]
        else:
            changed[at] ^= draw.randrange(1, 256)
        metadata_file.write_bytes(bytes(changed))
        try:
            back = pt.load(path)
        except pt.FileError as error:
            assert error.is_damage, seed
            assert str(path) in str(error)
        else:
            assert back == state, seed
            assert pt.ties(back) == pt.ties(state)


def damaged_tree(path, draw):
    """Change one file of a folder: flip bytes, cut it, empty it, remove it, or copy another one over it."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    file = draw.choice(files)
    data = bytearray(file.read_bytes())
    what = draw.randrange(5)
    if what == 0 and data:
        for _ in range(draw.choice([1, 8])):
            data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        file.write_bytes(bytes(data))
    elif what == 1:
        file.write_bytes(bytes(data[: draw.randrange(len(data) + 1)]))
    elif what == 2:
        file.write_bytes(b"")
    elif what == 3:
        file.unlink()
    else:
        shutil.copy(draw.choice([other for other in files if other != file]), file)


def check_damaged_folders(path, count):
    """Load copies of a folder with some damage; each is refused by name, or loads."""
    copy = path.with_name("copy")
    for seed in range(count):
        shutil.copytree(path, copy)
        damaged_tree(copy, random.Random(seed))
        try:
            pt.load(copy)
        except (pt.PtreeError, FileNotFoundError) as error:  # without its metadata it is no checkpoint
            assert str(copy) in str(error), seed
        shutil.rmtree(copy)


def test_folders_of_other_programs_with_any_damage_load_or_are_refused(tmp_path, long):
    path = save_by_standard(tmp_path / "run")
    # in a process of its own: Orbax closes its event loop over unfinished tasks, which complain at any later moment
    code = (
        "import sys, pathlib, test_orbax; test_orbax.check_damaged_folders(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    folders = [os.path.dirname(__file__), os.path.dirname(os.path.dirname(__file__)), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), "2000" if long else "30"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    assert done.returncode == 0, done.stderr


# ----------------------------------------------------------------------------- URLs


def run_of(folder, steps, **options):
    """Save steps, and what is left of them."""
    with pt.Checkpoints(folder, backend="orbax", **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"w": jnp.full(4, float(step))}, metrics={"loss": abs(step - 2)})
    return checkpoints


def check_run(folder):
    checkpoints = run_of(folder, [1, 2, 3, 4], keep=2)
    assert checkpoints.steps() == [3, 4]
    assert checkpoints.metrics(3) == {"loss": 1.0}
    step, back = checkpoints.load(like={"w": jnp.zeros(4)})
    assert (step, back["w"].tolist()) == (4, [4.0] * 4)
    with pytest.raises(pt.FileError, match="it has later ones, 3, 4"):
        run_of(folder, [2])
    best = run_of(folder, [5], best=("loss", "min"), keep=1)
    assert best.steps() == [3, 5]
    assert best.load(step="best")[0] == 3
    best.remove(3)
    assert best.steps() == [5]
    assert pt.load(f"{folder}/step_5")["w"].tolist() == [5.0] * 4
    with pytest.raises(pt.FileError, match="no step 9 in"):
        best.load(step=9)


def test_a_run_in_a_folder_that_is_given_as_a_url(tmp_path):
    check_run((tmp_path / "my run").as_uri())
    assert sorted(os.listdir(tmp_path / "my run")) == ["step_5"]


def test_a_run_in_a_folder_that_orbax_alone_reaches(tmp_path, monkeypatch):
    """As at `gs://`, where the folder is listed, made, swept and removed by the library below Orbax; here it is a local one."""
    monkeypatch.setattr(_checkpoints, "step_folder", _step_folders.UrlFolder)
    monkeypatch.setattr(_steps, "is_url", lambda path: True)
    folder = tmp_path / "run"
    (folder / "step_7.orbax-checkpoint-tmp-8").mkdir(parents=True)  # of a crash
    (folder / "step_6").mkdir()  # where nothing is renamed, a save that was cut short has its name already
    (folder / "notes").mkdir()
    check_run(folder)
    assert sorted(os.listdir(folder)) == ["notes", "step_5", "step_6"]
    step = saved_steps(folder)[0]
    assert not _step_folders.UrlFolder(str(folder)).has_gone(step)
    shutil.rmtree(folder / "step_5")
    assert _step_folders.UrlFolder(str(folder)).has_gone(step)
    assert pt.Checkpoints(tmp_path / "nothing", backend="orbax").steps() == []


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/run", "gcsfs"), ("s3://bucket/run", "s3fs")])
def test_urls_reach_orbax_which_names_the_package_that_is_missing(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        pt.FileError, match=rf"cannot reach '{url}' by Orbax: .*{package}|cannot reach '{url}' by Orbax: .*"
    ) as raised:
        pt.Checkpoints(url, backend="orbax").steps()
    assert isinstance(raised.value.__cause__, ImportError)
    with (
        pytest.raises(pt.FileError, match=f"cannot reach '{url}' by Orbax"),
        pt.Checkpoints(url, backend="orbax") as checkpoints,
    ):
        checkpoints.save(1, {"w": jnp.ones(2)})
    with pytest.raises(pt.FileError, match=f"cannot read '{url}/step_1': .*{package}"):
        pt.load(f"{url}/step_1")


def test_urls_that_orbax_does_not_take(tmp_path):
    text = "Checkpoints(folder): 'memory://run' is of no kind that Orbax takes: gs:// and s3:// are, and folders of this machine"
    says(pt.FileError, text, lambda: pt.Checkpoints("memory://run", backend="orbax"))


# ----------------------------------------------------------------------------- other layouts


@pytest.mark.parametrize("backend", ["ptree", "orbax"])
@pytest.mark.parametrize(("shape", "spec"), [((1,), ("a",)), ((4,), ("a",)), ((4,), (None, "a")), ((2, 2), ("a", "b")), ((2, 4), ("b", "a"))])  # fmt: skip
def test_what_eight_devices_wrote_opens_on_fewer_and_on_another_mesh(tmp_path, backend, shape, spec):
    eight = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    whole = jnp.arange(64.0 * 16).reshape(64, 16)
    state = {"w": jax.device_put(whole, NamedSharding(eight, PartitionSpec("d"))), "b": jnp.ones(3)}
    with pt.Checkpoints(tmp_path, backend=backend) as checkpoints:
        checkpoints.save(1, state)
    count = int(np.prod(shape))
    mesh = jax.make_mesh(shape, ("a", "b")[: len(shape)], axis_types=(jax.sharding.AxisType.Auto,) * len(shape), devices=jax.devices()[:count])  # fmt: skip
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    _, back = checkpoints.load(shardings={"w": PartitionSpec(*spec), "b": PartitionSpec()}, mesh=mesh)
    assert back["w"].sharding == sharding
    np.testing.assert_array_equal(back["w"], whole)
    _, back = checkpoints.load(like={"w": jax.device_put(jnp.zeros((64, 16)), sharding), "b": jnp.zeros(3)})
    assert back["w"].sharding == sharding
    np.testing.assert_array_equal(back["w"], whole)
    _, back = checkpoints.load()
    assert len(back["w"].sharding.device_set) == 1
    three = jax.make_mesh((3,), ("c",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:3])
    with pytest.raises(pt.InitError, match="'w'"):  # 64 rows on 3 devices
        checkpoints.load(shardings={"w": PartitionSpec("c"), "b": PartitionSpec()}, mesh=three)
