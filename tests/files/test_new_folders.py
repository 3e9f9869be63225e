"""A save to a path where nothing is yet: a folder where a folder is meant, and a file where a file is."""

import os
import re

import jax.numpy as jnp
import numpy as np
import pytest
from trees import equal

import ptree as pt

TREE = {"a": np.arange(4.0), "b": np.ones(4), "c": jnp.ones(2)}
SHARDS = [f"model-0000{at}-of-00002.safetensors" for at in (1, 2)]
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", ["repo", "llama-3.1-8B", "deep/in/repo", "repo/", "repo//"])
def test_shards_go_into_a_new_folder_under_the_names_of_hugging_face(folder, name, background):
    for path in (name, os.path.join(folder, "other", name)):
        saved = pt.save(path, TREE, max_shard_size=40, background=background)
        saved.result()
        assert sorted(os.listdir(path)) == [*SHARDS, INDEX]
        assert repr(saved).startswith(f"<saved {os.path.join(path.rstrip('/'), INDEX)!r}, ")
        assert equal(pt.load(path), pt.Tree(TREE))
        pt.save(path, TREE, max_shard_size=1000)  # now it is a folder
        assert os.listdir(path) == ["model.safetensors"]


def test_a_slash_at_the_end_names_a_folder_also_of_one_file():
    pt.save("repo/", TREE)
    assert os.listdir("repo") == ["model.safetensors"]
    assert equal(pt.load("repo/"), pt.Tree(TREE))


@pytest.mark.parametrize("size", [None, 1000])
def test_a_slash_after_the_ending_of_a_file_changes_nothing(size):
    pt.save("net.safetensors/", TREE, max_shard_size=size)
    assert os.listdir() == ["net.safetensors"]
    assert os.path.isfile("net.safetensors")


@pytest.mark.parametrize("name", ["net", "net.safetensors", "net.v2"])
def test_one_file_has_the_name_that_it_is_given(name):
    pt.save(name, TREE)
    assert os.listdir() == [name]
    pt.save(name, TREE, max_shard_size=1000)  # a file is there, and is replaced
    assert os.listdir() == [name]


@pytest.mark.parametrize("path", ["net.safetensors", "net.safetensors.index.json"])
def test_shards_beside_a_file_have_its_name(path):
    pt.save(path, TREE, max_shard_size=40)
    assert sorted(os.listdir()) == ["net-00001-of-00002.safetensors", "net-00002-of-00002.safetensors",
                                    "net.safetensors.index.json"]  # fmt: skip
    assert equal(pt.load("net.safetensors"), pt.Tree(TREE))


def test_shards_without_an_ending_are_replaced_where_they_are():
    """As this function wrote them before."""
    pt.save("net.index.json", TREE, max_shard_size=40)
    names = ["net-00001-of-00002", "net-00002-of-00002", "net.index.json"]
    assert sorted(os.listdir()) == names
    pt.save("net", {name: leaf + 1 for name, leaf in TREE.items()}, max_shard_size=40)
    assert len(os.listdir()) == 3
    assert not os.path.isdir("net")
    assert pt.load("net")["a"][1] == 2


def test_nothing_is_made_for_what_cannot_be_saved():
    with pytest.raises(pt.FileError, match="cannot save these leaves"):
        pt.save("repo", {"a": object()}, max_shard_size=40)
    with pytest.raises(pt.FileError, match="expected max_shard_size"):
        pt.save("repo/", TREE, max_shard_size="many")
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("path", "shown", "size"),
    [
        ("repo/", "repo/model.safetensors", None),
        ("repo/", f"repo/{INDEX}", 40),
        ("repo", f"repo/{INDEX}", 40),
        ("./repo//", "repo/model.safetensors", None),
        ("deep/in/repo/", "deep/in/repo/model.safetensors", None),
        ("there", "there/model.safetensors", None),
        (".", "model.safetensors", None),
        ("there/net.safetensors", "there/net.safetensors.index.json", 40),
        ("there/net", "there/net", None),
        ("there/../net.safetensors", "there/../net.safetensors", None),
        ("link", "link/model.safetensors", None),
        ("net.safetensors/", "net.safetensors", None),
        ("net.safetensors.index.json", "net.safetensors.index.json", 40),
    ],
)
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("is_absolute", [False, True])
def test_the_handle_shows_a_path_that_can_be_loaded_from_the_working_folder(
    folder, path, shown, size, background, is_absolute
):
    os.mkdir("there")
    os.symlink("there", "link")
    before = f"{folder}/" if is_absolute else ""
    saved = pt.save(before + path, TREE, max_shard_size=size, background=background)
    saved.result()
    name = re.fullmatch(r"<saved '(.*)', .*>", repr(saved))[1]
    assert name == os.path.join(before, shown)
    assert equal(pt.load(name), pt.Tree(TREE))


def test_the_handle_of_a_save_that_fails_shows_it_too(folder):
    with pytest.raises(FileNotFoundError):
        pt.save("no/net.safetensors", TREE)
    saved = pt.save("no/net.safetensors", TREE, background=True)
    with pytest.raises(FileNotFoundError):
        saved.result()
    assert repr(saved) == "<'no/net.safetensors' was not saved: FileNotFoundError>"


def test_shards_that_the_shell_renames_go_into_a_new_folder_too(capsys):
    from ptree._command_line import main

    pt.save("repo", TREE, max_shard_size=40)
    assert main(["rename", "repo", "a", "z", "-o", "renamed"]) == 0
    assert INDEX in os.listdir("renamed")
    assert pt.paths(pt.load("renamed")) == ["z", "b", "c"]
