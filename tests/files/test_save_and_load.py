"""save and load: what was saved comes back, and a file that is damaged or does not fit is refused."""

import contextlib
import json
import os
import subprocess
import sys
import termios

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from errors import says
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from trees import TREES, arange, equal, language_model, mlp

import ptree as pt
from ptree._words import describe

Z, O = jnp.zeros(2), jnp.ones(2)  # noqa: E741


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


@pytest.mark.parametrize("name", [name for name, tree in TREES.items() if type(tree) is pt.Tree])
def test_law_5_what_was_saved_comes_back_bit_for_bit(file, name):
    tree = TREES[name]
    pt.save(file, tree)
    back = pt.load(file)
    assert equal(back, tree)
    assert pt.paths(back, aliases=True) == pt.paths(tree, aliases=True)
    assert pt.ties(back) == pt.ties(tree)
    assert equal(pt.load(file, like=tree), tree)


@pytest.mark.parametrize("name", [n for n, tree in TREES.items() if type(tree) is not pt.Tree and n != "a bare array"])
def test_other_containers_come_back_with_like(file, name):
    tree = TREES[name]
    pt.save(file, tree)
    assert equal(pt.load(file, like=tree), tree)
    assert pt.paths(pt.load(file)) == pt.paths(tree)


def test_a_fresh_process_reads_the_same(file):
    params = pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table")})
    pt.save(file, params)
    code = (
        "import sys, ptree as pt; p = pt.load(sys.argv[1])\n"
        "assert (p['head/kernel'] == p['embed/table'].T).all()\n"
        "print(list(pt.ties(p).items()), float(p['head']['kernel'].sum()))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True).stdout
    assert out.strip() == f"[('head/kernel', transposed('embed/table'))] {float(params['embed/table'].sum())}"


def test_python_numbers_and_views_are_written_right(file):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tree = {
        "t": array.T,
        "s": array[:, ::2],
        "big": array.astype(">f4"),
        "n": 3,
        "x": 0.5,
        "b": True,
        "z": np.float32(2),
    }
    pt.save(file, tree)
    back = pt.load(file)
    for name in ("t", "s", "big"):
        np.testing.assert_array_equal(back[name], tree[name])
    assert [type(back[name]) for name in "nxb"] == [int, float, bool]
    assert (array == np.arange(12).reshape(3, 4)).all()


def test_any_safetensors_reader_reads_it_and_any_safetensors_file_loads(file):
    pt.save(file, pt.tie(mlp(), {"4": "2"}))
    plain = safetensors.numpy.load_file(file)
    assert sorted(plain) == ["0/bias", "0/kernel", "2/bias", "2/kernel", "6/bias", "6/kernel"]
    safetensors.numpy.save_file({"model.layers.0.weight": np.ones(2, "float32"), "a/b": np.zeros(1, "int8")}, file)
    assert pt.load(file) == pt.Tree({"a": {"b": jnp.zeros(1, "int8")}, "model.layers.0.weight": jnp.ones(2)})


def test_like_may_be_a_spec_abstract_or_plain_and_gives_its_containers(file):
    params = pt.Tree(mlp())
    pt.save(file, params)
    for like in (
        pt.abstract(params),
        pt.asdict(params),
        jax.tree.map(lambda leaf: pt.Param(leaf.shape, leaf.dtype), params),
    ):
        back = pt.load(file, like=like)
        assert type(back) is type(like)
        assert pt.Tree(back) == params


def test_like_and_file_may_differ_in_ties_as_long_as_values_agree(file):
    tied = pt.tie(mlp(), {"4": "2"})
    pt.save(file, tied)
    apart = pt.load(file, like=mlp())
    assert pt.Tree(apart) == pt.untie(tied)
    assert apart["4"]["bias"] is not apart["2"]["bias"]
    pt.save(file, mlp())
    assert pt.load(file, like=tied) == tied
    pt.save(file, pt.put(pt.Tree(mlp()), "4/bias", jnp.full(8, 1e3)))
    with pytest.raises(pt.FileError) as error:
        pt.load(file, like=tied)
    assert str(error.value) == (
        f"cannot load {str(file)!r} into `like`: '4/bias', f32[8], and '2/bias', f32[8], are tied in `like` and differ in the file, by up to 953"
    )


def test_a_like_that_does_not_fit_is_one_error_that_lists_all(file):
    pt.save(file, mlp())
    like = pt.put(
        pt.put(pt.drop(pt.Tree(mlp()), ["2", "6/bias"]), "0/bias", arange(9)),
        "0/kernel",
        arange(4, 8, dtype=jnp.bfloat16),
    )
    like = pt.put(like, "head/scale", arange(1))
    error = says(
        pt.StructureError,
        f"cannot load {str(file)!r} into `like`:\n"
        "  '0/bias': expected f32[9] in `like`, got f32[8] in the file\n"
        "  '0/kernel': expected bf16[4,8] in `like`, got f32[4,8] in the file\n"
        "  missing in the file: ['head/scale']\n"
        "  unexpected in the file: ['2/bias', '2/kernel', '6/bias']\n"
        "cast=True converts to the dtypes of `like`.",
        pt.load, file, like,
    )  # fmt: skip
    assert error.missing == ["head/scale"]
    assert error.unexpected == ["2/bias", "2/kernel", "6/bias"]
    assert error.misshapen == ["0/bias"]
    assert error.mistyped == ["0/kernel"]


def test_what_is_no_safetensors_file_or_stops_half_way_is_refused(file):
    file.write_bytes(b"hello")
    says(
        pt.FileError,
        f"cannot load {str(file)!r}: it is not a whole safetensors file (5 bytes):"
        " it is shorter than the 8 bytes that say how long the header is",
        pt.load, file,
    )  # fmt: skip
    pt.save(file, pt.tie(mlp(), {"4": "2"}))
    whole = file.read_bytes()
    for cut in range(0, len(whole), 7):
        file.write_bytes(whole[:cut])
        with pytest.raises(pt.FileError, match=r"it is not a whole safetensors file \("):
            pt.load(file)
    with pytest.raises(FileNotFoundError):
        pt.load(file.with_name("nothing"))


def test_metadata_that_does_not_fit_is_refused(file):
    pt.save(file, pt.Tree({"a": arange(2)}))
    with safetensors.safe_open(file, "np") as opened:
        facts = json.loads(opened.metadata()["ptree"])
    edits = [
        {"version": 2},
        {"order": ["b"]},
        {"order": [], "ties": {"a": ["b", []]}},
        {"order": ["a", "c"], "ties": {"c": ["b", []]}},
        {"ties": {"c": ["a", ["rotated"]]}},
        {"kinds": {"a": "tensor"}},
        {"kinds": 5},
    ]
    for wrong in [*(json.dumps(facts | edit) for edit in edits), json.dumps(facts)[:-1], "[]"]:
        safetensors.numpy.save_file({"a": np.arange(2, dtype="float32")}, file, metadata={"ptree": wrong})
        with pytest.raises(pt.FileError):
            pt.load(file, verify=False)
        with pytest.raises(pt.FileError, match="its header is damaged: half of what ptree wrote is missing"):
            pt.load(file)


def test_leaves_that_a_file_cannot_hold_are_all_listed_and_nothing_is_written(file):
    pt.save(file, pt.Tree({"a": 1}))
    before = file.read_bytes()
    tree = {
        "w": arange(2),
        "label": "frozen",
        "spec": pt.Param((2,)),
        "o": np.array(["x"]),
        "c": np.zeros(2, "longdouble"),
    }
    says(
        pt.FileError,
        "cannot save these leaves, a file holds arrays, numbers and PRNG keys:\n"
        "  'label' is 'frozen', a str\n"
        "  'spec' is a Param, f32[2], not drawn yet: ptree.init first\n"
        "  'o' is <U1[1], a dtype that safetensors does not have\n"
        f"  'c' is {describe(np.zeros(2, 'longdouble'))}, a dtype that safetensors does not have\n"
        "The option only_arrays=True leaves out what is no array and no number.",
        pt.save, file, tree,
    )  # fmt: skip
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    with pytest.raises(pt.FileError, match=r"'w' is a tracer: save outside of jax\.jit"):
        jax.jit(lambda w: pt.save(file, {"w": w}))(1.0)
    says(pt.FileError, "cannot save f32[3]: a leaf needs a name; save Tree({'name': leaf})", pt.save, file, arange(3))


def test_names_and_leaves_that_would_make_a_file_that_cannot_load_are_refused(tmp_path):
    file = tmp_path / "f.safetensors"
    deep = {"a": Z}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(pt.PathError, match="no path can have more than 256 segments; got 'a/a/a"):
        pt.Tree(deep)
    with pytest.raises(pt.PathError, match="the tree has more than 256 levels: it goes on below 'a/a/a"):
        pt.save(file, deep)
    for tree in ({"__metadata__": Z}, {"\ud800": Z}, {"m": np.ma.masked_array([1, 2], [0, 1])}):
        with pytest.raises(pt.FileError, match="cannot save these leaves"):
            pt.save(file, tree)
    with pytest.raises(pt.PathError, match="the path 'a/b' is ambiguous"):
        pt.save(file, {"a/b": Z, "a": {"b": O}})
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        pt.save(tmp_path / "no" / "f.safetensors", {"a": Z})


def test_a_failed_write_leaves_the_old_file_and_no_draft(file, monkeypatch):
    pt.save(file, pt.Tree({"a": 1}))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        pt.save(file, pt.Tree({"a": 2}))
    assert os.listdir(file.parent) == [file.name]
    assert pt.load(file) == pt.Tree({"a": 1})


def test_a_file_keeps_its_mode(file):
    pt.save(file, {"a": Z})
    plain = file.with_name("plain")
    plain.touch()
    assert file.stat().st_mode == plain.stat().st_mode
    file.chmod(0o640)
    pt.save(file, {"a": O})
    assert file.stat().st_mode & 0o777 == 0o640
    assert (pt.load(file)["a"] == 1).all()


def test_64_bit_values_are_not_cut_in_silence(file):
    with jax.enable_x64(True):
        pt.save(file, {"w": jnp.ones(2, jnp.float64)})
    with pytest.raises(pt.FileError, match=r"'w' is f64, and JAX would cut it to 32 bits: call jax.config.update"):
        pt.load(file)
    with jax.enable_x64(True):
        assert pt.load(file)["w"].dtype == jnp.float64


def test_like_never_cuts_64_bits(tmp_path):
    file = tmp_path / "f.safetensors"
    tree = {"n": np.array([2**40 + 1]), "s": np.int64(2**40 + 1), "f": np.float64(1 / 3)}
    pt.save(file, tree)
    back = pt.load(file, like=tree)
    assert equal(back, tree)
    with pytest.raises(pt.FileError, match="'n' is i64, and JAX would cut it to 32 bits"):
        pt.load(file, like={"n": jax.ShapeDtypeStruct((1,), np.int64), "s": np.int64(0), "f": np.float64(0)})


# ------------------------------------------------------------------------------- ties in files


def tied_lm():
    return pt.tie(language_model(), {"head/kernel": pt.transposed("embed/table"), "blocks/1": "blocks/0"})


def test_expand_ties_writes_every_name_and_loads_tied(tmp_path):
    file = tmp_path / "lm.safetensors"
    pt.save(file, tied_lm(), expand_ties=True)
    other = load_file(file)  # a reader that knows no ties
    assert {name: array.tolist() for name, array in other.items()} == {
        name: leaf.tolist() for name, leaf in pt.items(tied_lm(), aliases=True)
    }
    assert pt.load(file) == tied_lm()
    assert equal(pt.load(file, like=pt.untie(tied_lm())), pt.untie(tied_lm()))
    small = tmp_path / "small.safetensors"
    pt.save(small, tied_lm())
    assert set(load_file(small)) == set(pt.paths(tied_lm()))
    assert equal(pt.load(small, like=pt.untie(tied_lm())), pt.untie(tied_lm()))


def test_an_expanded_file_that_was_edited_says_so_and_loads_apart(tmp_path):
    file = tmp_path / "lm.safetensors"
    pt.save(file, tied_lm(), expand_ties=True)
    with safe_open(file, "numpy") as opened:
        facts = opened.metadata()
    tensors = load_file(file)
    tensors["head/kernel"] = np.array(tensors["head/kernel"] + 0.25)
    save_file(tensors, file, facts)
    with pytest.raises(pt.FileError, match=r"anew, load\(path, verify=False\) loads it"):
        pt.load(file)
    says(pt.FileError, f"cannot load {str(file)!r}: 'head/kernel', f32[4,10], and 'transposed(embed/table)', f32[4,10], are tied in its metadata and"
         " differ in its tensors, by up to 0.25. Load them with a `like` in which they are apart", lambda: pt.load(file, verify=False))  # fmt: skip
    says(pt.FileError, f"cannot load {str(file)!r} into `like`: 'head/kernel', f32[4,10], and 'transposed(embed/table)', f32[4,10], are tied in"
         " `like` and differ in the file, by up to 0.25", lambda: pt.load(file, like=tied_lm(), verify=False))  # fmt: skip
    apart = pt.load(file, like=pt.tie(language_model(), {"blocks/1": "blocks/0"}), verify=False)
    assert pt.ties(apart) == pt.ties(pt.tie(language_model(), {"blocks/1": "blocks/0"}))
    np.testing.assert_array_equal(apart["head/kernel"], tensors["head/kernel"])


def test_a_file_without_ties_takes_those_of_like_and_never_guesses(tmp_path):
    file = tmp_path / "lm.safetensors"
    pt.save(file, pt.untie(tied_lm()))
    assert pt.ties(pt.load(file)) == {}  # equal, and nobody said that they are one
    assert equal(pt.load(file, like=tied_lm()), tied_lm())
    for gone in ("head/kernel", "embed/table", "blocks/1/*/kernel", "blocks/0/*/kernel"):
        pt.save(file, pt.drop(pt.untie(tied_lm()), gone))  # one name is enough
        assert equal(pt.load(file, like=tied_lm()), tied_lm())
    pt.save(file, pt.drop(pt.untie(tied_lm()), ["head/kernel", "embed"]))
    says(pt.StructureError, f"cannot load {str(file)!r} into `like`: missing in the file: ['embed/table'].",
         lambda: pt.load(file, like=tied_lm()))  # fmt: skip
    pt.save(file, pt.drop(pt.set(pt.untie(tied_lm()), "head/kernel", jnp.zeros((4, 10))), "**/bias"))
    says(pt.StructureError, f"cannot load {str(file)!r} into `like`:\n"
         "  missing in the file: ['blocks/0/q/bias', 'blocks/0/v/bias', 'blocks/2/q/bias', 'blocks/2/v/bias', 'head/bias']\n"
         "  'head/kernel', f32[4,10], and 'transposed(embed/table)', f32[4,10], are tied in `like` and differ in the file, by up to 39",
         lambda: pt.load(file, like=tied_lm()))  # fmt: skip


def test_a_file_with_other_ties_loads_only_where_the_values_agree(tmp_path):
    file = tmp_path / "f.safetensors"
    pt.save(file, pt.tie({"a": Z, "b": O, "c": O}, {"b": "c"}))
    with pytest.raises(
        pt.FileError, match=r"'b', f32\[2\], and 'a', f32\[2\], are tied in `like` and differ in the file, by up to 1"
    ):
        pt.load(file, like=pt.tie({"a": Z, "b": Z, "c": Z}, {"b": "a"}))
    w = arange(2, 2)
    pt.save(file, pt.tie({"a": w, "b": w}, {"b": pt.transposed("a")}))
    with pytest.raises(pt.FileError, match="differ in the file"):
        pt.load(file, like=pt.tie({"a": w, "b": w}, {"b": "a"}))


SLOW = """
import os, sys, time, numpy as np, ptree as pt
real = os.pwrite
os.pwrite = lambda *args: (time.sleep(0.4), real(*args))[1]
pt.save(sys.argv[1], {str(at): np.zeros(100) for at in range(4)}, background=len(sys.argv) > 2)
"""


@pytest.mark.parametrize(("more", "shown"), [((), True), (("background",), False)])
def test_a_bar_shows_on_a_terminal_what_takes_more_than_a_second(file, more, shown):
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(file), *more], stderr=theirs)
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # Linux' way to say that it has ended
        while read := os.read(ours, 1000):
            told += read
    os.close(ours)
    assert process.wait() == 0
    assert (b"saving m.safetensors:" in told) == shown
    assert all(len(line) <= 80 for line in told.decode().splitlines())


def test_save_and_load_import_no_more_than_they_need(file):
    code = (
        "import sys, jax.numpy as jnp, ptree as pt\n"
        "pt.save(sys.argv[1], {'a': jnp.ones(3)}); pt.load(sys.argv[1], like={'a': jnp.zeros(3)})\n"
        "print(sorted({'optax', 'orbax', 'safetensors', 'torch', 'tqdm'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
