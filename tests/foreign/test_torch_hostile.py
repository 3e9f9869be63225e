"""Files of PyTorch that are damaged, or made to run code or to fill the memory: a FileError that says why, or the right numbers."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptree import FileError
from ptree._foreign import open_foreign

torch = pytest.importorskip("torch")

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.arange(5, dtype=torch.bfloat16),
    "n": {"c": torch.arange(7).to(torch.uint16), "epoch": 3, "name": "x"},
}
TENSORS["tied"] = TENSORS["a.weight"]
EXPECTED = {"a.weight": TENSORS["a.weight"], "a.bias": TENSORS["a.bias"], "n/c": TENSORS["n"]["c"]}


def saved_bytes(value: object, is_zip: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


ZIP, LEGACY = saved_bytes(TENSORS), saved_bytes(TENSORS, is_zip=False)


def read_all(path: Path) -> dict[str, np.ndarray]:
    with open_foreign(path) as file:
        return {name: np.array(file.read(name)) for name in file.arrays}


def error_of(path: Path) -> str:
    with pytest.raises(FileError) as error:
        read_all(path)
    return str(error.value)


def as_archive(path: Path, content: bytes, members: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in (members or {}).items():
            archive.writestr(f"archive/{name}", data)
    return path


def as_legacy(path: Path, content: bytes) -> Path:
    preamble = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    path.write_bytes(preamble + content + pickle.dumps([], 2))
    return path


# ---------------------------------------------------------------------------- any damage


def check_damaged(path: Path, *, has_checksums: bool) -> None:
    """Read a damaged file: only FileError may come of it, and where there are checksums no wrong number."""
    try:
        read = read_all(path)
    except FileError as error:
        assert str(path) in str(error)
        return
    if not has_checksums:
        return
    for name, array in read.items():
        if name in EXPECTED:  # other names cannot be told from a file that has them
            expected = EXPECTED[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            assert array.tobytes() == expected


def test_every_cut_of_a_file_is_an_error(tmp_path, long):
    path = tmp_path / "m.pt"
    for content in (ZIP, LEGACY):
        for length in range(0, len(content), 1 if long else 13):
            path.write_bytes(content[:length])
            with pytest.raises(FileError):
                read_all(path)


@pytest.mark.parametrize("content", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_every_changed_byte_is_an_error_or_of_no_account(tmp_path, content, long):
    path = tmp_path / "m.pt"
    for place in range(0, len(content), 1 if long else 7):
        for change in (0x01, 0xFF):
            damaged = bytearray(content)
            damaged[place] ^= change
            path.write_bytes(damaged)
            check_damaged(path, has_checksums=content is ZIP)


@given(data=st.data(), is_zip=st.booleans())
def test_any_mutation_of_a_file_is_an_error_or_of_no_account(tmp_path_factory, data, is_zip):
    content = bytearray(ZIP if is_zip else LEGACY)
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(content) - 1))
        old = data.draw(st.integers(0, 8))
        content[first : first + old] = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.mktemp("mutated") / "m.pt"
    path.write_bytes(content)
    check_damaged(path, has_checksums=False)


@given(content=st.binary(max_size=60))
def test_any_bytes_as_a_pickle_are_an_error_or_plain_values(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("pickle")
    for path in (as_archive(folder / "m.pt", b"\x80\x02" + content + b"."), as_legacy(folder / "n.pt", content + b".")):
        check_damaged(path, has_checksums=False)


OPCODES = [
    bytes([code])
    for code in b"\x80\x95(012qr\x94hjN\x88\x89JKM\x8a\x8bIG\x8cX\x8dCB\x8e\x96UT)\x85\x86\x87t]l\x8f\x90\x91}daesuc\x93R\x81\x92bQ"
]
PIECES = [
    *OPCODES,
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"ctorch\nFloatStorage\n",
    b"ccollections\nOrderedDict\n",
    b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cos\nsystem\n",
    b"X\x07\x00\x00\x00storage",
    b"X\x01\x00\x00\x000",
    b"K\x03",
    b"(K\x01K\x02t",
]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_opcodes_are_an_error_or_plain_values(tmp_path_factory, pieces):
    folder = tmp_path_factory.mktemp("opcodes")
    check_damaged(as_archive(folder / "m.pt", b"\x80\x02" + b"".join(pieces) + b"."), has_checksums=False)


# ---------------------------------------------------------------------------- code


class Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("place", ["value", "key", "dropped"])
def test_code_does_not_run_and_is_named(tmp_path, is_zip, place):
    marker = tmp_path / "ran"
    call = pickle.dumps(Evil(marker), 2)[2:-1]
    content = {
        "value": b"\x80\x02}X\x01\x00\x00\x00a" + call + b"s.",
        "key": b"\x80\x02}" + call + b"K\x01s.",
        "dropped": b"\x80\x02" + call + b"0}.",
    }[place]
    path = as_archive(tmp_path / "m.pt", content) if is_zip else as_legacy(tmp_path / "m.pt", content)
    assert "its pickle calls ['posix.mkdir'], and nothing that a pickle names is called" in error_of(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
        b"\x8c\x08builtins\x8c\x04exec\x93(X\x01\x00\x00\x001tR.",
        b"cbuiltins\nobject\n)\x81.",
        b"ctorch.storage\n_load_from_bytes\n(C\x01xtR.",
        b"ccollections\nOrderedDict.fromkeys\n(X\x01\x00\x00\x001tR.",
        b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R.",
        b"ctorch\njit.load\n(X\x01\x00\x00\x001tR.",
    ],
)
def test_no_name_outside_the_list_is_called(tmp_path, content):
    text = error_of(as_archive(tmp_path / "m.pt", b"\x80\x04" + content))
    assert "whole object of the class" in text or "its pickle calls" in text


@pytest.mark.parametrize(
    "opcode", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"P1\n", b"ios\nsystem\n", b"o"]
)
def test_opcodes_that_pytorch_does_not_write_are_refused(tmp_path, opcode):
    assert "which PyTorch does not write" in error_of(as_archive(tmp_path / "m.pt", b"\x80\x02(" + opcode + b"."))


def test_setting_the_state_of_a_function_changes_nothing(tmp_path):
    set_code = b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x08\x00\x00\x00__code__K\x01stb0}."
    assert read_all(as_archive(tmp_path / "m.pt", b"\x80\x02" + set_code)) == {}
    path = tmp_path / "n.pt"
    path.write_bytes(ZIP)
    assert set(read_all(path)) == set(EXPECTED)


@pytest.mark.parametrize("key", [b"X\x01\x00\x00\x000", b"(X\x06\x00\x00\x00moduleK\x01t", b"K\x01", b")", b"]"])
def test_persistent_ids_that_are_no_storages_are_refused(tmp_path, key):
    with_calls = b"\x80\x02}X\x01\x00\x00\x00a" + key + b"QQs."
    assert "its pickle refers to something that is no storage" in error_of(as_archive(tmp_path / "m.pt", with_calls))


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_is_refused_by_its_class(tmp_path, is_zip):
    path = tmp_path / "m.pt"
    path.write_bytes(saved_bytes(Inner(), is_zip))
    text = error_of(path)
    assert f"it is a whole object of the class {__name__}.Inner" in text
    assert "torch.save(torch.load(path, weights_only=False).state_dict(), new_path)" in text
    path.write_bytes(saved_bytes({"model": Inner()}, is_zip))
    assert f"its pickle calls ['{__name__}.Inner', 'torch.nn.modules.linear.Linear'" in error_of(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "m.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), path)
    assert "it is a TorchScript archive (torch.jit.save)" in error_of(path)


# ---------------------------------------------------------------------------- archives


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.removeprefix("archive/"): archive.read(name) for name in archive.namelist()}


def test_compressed_members_are_refused(tmp_path):
    members = members_of(ZIP)
    path = as_archive(tmp_path / "m.pt", members.pop("data.pkl"), members, zipfile.ZIP_DEFLATED)
    assert "is compressed" in error_of(path)
    assert "zip -0 -r" in error_of(path)


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path):
    path = as_archive(tmp_path / "m.pt", b"\x80\x02" + bytes(50_000_000), {}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "is compressed" in error_of(path)


def test_a_storage_that_is_missing_or_short_is_a_problem_of_its_tensors(tmp_path):
    members = members_of(ZIP)
    content = members.pop("data.pkl")
    members["data/0"] = members["data/0"][:20]
    del members["data/1"]
    with open_foreign(as_archive(tmp_path / "m.pt", content, members)) as file:
        assert file.arrays["a.weight"].problem == "ends behind the end of its storage '0' of 20 bytes"
        assert file.arrays["a.bias"].problem == "lies in the storage '1', which is not in the file"
        np.testing.assert_array_equal(file.read("n/c"), np.arange(7))
        with pytest.raises(FileError, match="it lies in the storage '1'"):
            file.read("a.bias")


def test_a_changed_number_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "m.pt"
    start = ZIP.index(TENSORS["a.weight"].numpy().tobytes())
    path.write_bytes(ZIP[: start + 5] + b"\x55" + ZIP[start + 6 :])
    with open_foreign(path) as file:
        with pytest.raises(FileError) as error:
            file.read("a.weight")
        assert str(error.value) == (
            f"cannot read 'a.weight' in {str(path)!r}: its member 'archive/data/0' is damaged: its bytes are not what"
            " its checksum says"
        )
        assert error.value.is_damage
        assert error.value.damaged == ["a.weight"]
        np.testing.assert_array_equal(file.read("n/c"), np.arange(7))


def test_members_that_overlap_or_share_a_name_are_refused(tmp_path):
    path = tmp_path / "m.pt"
    start = ZIP.rindex(b"PK\x01\x02", 0, ZIP.index(b"archive/data/1", ZIP.index(b"PK\x01\x02")))
    # the second storage begins where the first does
    first = ZIP.rindex(b"PK\x01\x02", 0, ZIP.index(b"archive/data/0", ZIP.index(b"PK\x01\x02")))
    path.write_bytes(ZIP[: start + 42] + ZIP[first + 42 : first + 46] + ZIP[start + 46 :])
    assert "two of its members overlap" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("archive/data.pkl", b"\x80\x02}.")
    assert "two of its members have the same name" in error_of(path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(100), "zip archive that is empty, cut short or damaged"),
        (pickle.dumps([1]), "a pickle that torch.save did not write"),
        (b"<!DOCTYPE html><html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"hello", "of no format that ptree reads"),
    ],
)
def test_other_files_are_refused_with_what_to_do(tmp_path, content, problem):
    path = tmp_path / "m.pt"
    path.write_bytes(content)
    assert problem in error_of(path)


def test_folders_and_missing_files(tmp_path):
    (tmp_path / "model.pt").write_bytes(ZIP)
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*model.pt'\?"):
        open_foreign(tmp_path / "modle.pt")
    with pytest.raises(FileError, match="of no format"):
        open_foreign(tmp_path)


# ---------------------------------------------------------------------------- bombs


def tensor(shape: bytes, strides: bytes, count: bytes = b"K\x01", offset: bytes = b"K\x00") -> bytes:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides + b"\x89NtR"


BIG = b"\x8a\x08" + struct.pack("<q", 1 << 40)
HUGE = b"\x8a\x08" + struct.pack("<q", (1 << 63) - 1)


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (tensor(BIG + b"\x85", b"K\x00\x85"), "repeats a storage of 4 B to 4.0 TiB"),
        (tensor(BIG + b"\x85", b"K\x01\x85", BIG), "ends behind the end of its storage '0' of 4 bytes"),
        (tensor(HUGE + HUGE + b"\x86", HUGE + HUGE + b"\x86"), "ends behind the end"),
        (tensor(b"K\x01\x85", b"K\x01\x85", offset=HUGE), "ends behind the end"),
    ],
)
def test_tensors_larger_than_their_storage_have_a_problem(tmp_path, one, problem):
    content = b"\x80\x02}X\x01\x00\x00\x00a" + one + b"s."
    with open_foreign(as_archive(tmp_path / "m.pt", content, {"data/0": bytes(4)})) as file:
        assert problem in file.arrays["a"].problem


@pytest.mark.parametrize(
    "one",
    [
        tensor(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
        tensor(b"K\x01\x85", b"J\xff\xff\xff\xff\x85"),
        tensor(b"K\x01\x85", b"K\x01K\x01\x86"),
        tensor(b"X\x01\x00\x00\x00a", b"K\x01\x85"),
        tensor(b"\x88\x85", b"K\x01\x85"),
        tensor(b"(" + b"K\x01" * 65 + b"t", b"(" + b"K\x01" * 65 + b"t"),
    ],
)
def test_tensors_of_impossible_shapes_are_refused(tmp_path, one):
    path = as_archive(tmp_path / "m.pt", b"\x80\x02}X\x01\x00\x00\x00a" + one + b"s.", {"data/0": bytes(4)})
    assert "a tensor in its pickle has a s" in error_of(path)


def test_an_axis_of_one_may_have_any_stride(tmp_path):
    one = tensor(b"K\x01\x85", HUGE + b"\x85")
    path = as_archive(tmp_path / "m.pt", b"\x80\x02}X\x01\x00\x00\x00a" + one + b"s.", {"data/0": bytes(4)})
    np.testing.assert_array_equal(read_all(path)["a"], np.zeros(1))


def test_many_views_of_one_storage_are_a_bomb(tmp_path):
    shapes = [b"J" + struct.pack("<i", count) + b"\x85" for count in range(900_000, 1_000_000, 100)]
    views = b"".join(tensor(shape, b"K\x01\x85", b"J" + struct.pack("<i", 1_000_000)) for shape in shapes)
    path = as_archive(tmp_path / "m.pt", b"\x80\x02](" + views + b"e.", {"data/0": bytes(4_000_000)})
    assert "so often that they would take" in error_of(path)


def nested(content: bytes, times: int) -> bytes:
    return b"\x80\x02" + content * times + b"."


LAUGHS = (
    b"\x80\x02]q\x00"
    + b"".join(
        b"](" + b"h" + bytes([place]) + b"h" + bytes([place]) + b"eq" + bytes([place + 1]) for place in range(60)
    )
    + b"."
)
CIRCLE = b"\x80\x02]q\x00h\x00a."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (nested(b"]", 1) + b"", ""),
        (LAUGHS, "its containers hold each other very many times over"),
        (CIRCLE, "nested more than 100 levels deep, or hold each other in a circle"),
        (b"\x80\x02]" + b"\x85" * 300_000 + b".", "nested more than 100 levels deep, or hold each other in a circle"),
        (b"\x80\x02}" + b"]" + b"\x85" * 300_000 + b"K\x01s.", "a key that is no text"),
        (b"\x80\x02" + b"(" * 300_000 + b".", "damaged"),
        (b"\x80\x02X\xff\xff\xff\xff.", "cut short"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "cut short"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "a number of"),
        (b"\x80\x02Nr\xff\xff\xff\xff0}.", ""),
        (b"\x80\x02I" + b"9" * 5000 + b"\n.", "cut short, or has a name of over"),
        (b"\x80\x02h\x05.", "damaged near byte"),
        (b"\x80\x09.", "of protocol 9"),
    ],
)
def test_pickles_that_are_made_to_fill_memory_or_stack(tmp_path, content, problem):
    path = as_archive(tmp_path / "m.pt", content)
    if problem:
        assert problem in error_of(path)
    else:
        assert read_all(path) == {}


def test_subclasses_nested_in_each_other_are_refused(tmp_path):
    of_type = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    args = b")"
    for _ in range(5000):
        args = b"(" + of_type + b"ctorch\nTensor\n" + args + b"Nt"
    text = error_of(as_archive(tmp_path / "m.pt", b"\x80\x02" + of_type + args + b"R."))
    assert "a class inside another class" in text or "damaged" in text


def test_names_that_read_the_same_are_refused(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(saved_bytes({0: torch.ones(1), "0": torch.zeros(1)}))
    assert "a dict in it has two keys that both read '0'" in error_of(path)
    path.write_bytes(saved_bytes({"a": {"b": torch.ones(1)}, "a/b": torch.zeros(1)}))
    assert "two of its tensors would have the name 'a/b'" in error_of(path)


def test_names_with_escape_codes_are_inert_in_messages(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(saved_bytes({"\x1b[31mred": torch.eye(2).to_sparse(), "plain": torch.ones(1)}))
    with open_foreign(path) as file, pytest.raises(FileError) as error:
        file.read("\x1b[31mred")
    assert "\x1b" not in str(error.value)
    call = b"cos\x1b[31m\nsystem\n)R."
    assert "\x1b" not in error_of(as_archive(tmp_path / "n.pt", b"\x80\x02}X\x01\x00\x00\x00a" + call[:-1] + b"s."))
    assert "\x1b" not in error_of(as_archive(tmp_path / "o.pt", b"\x80\x02" + call))


def test_hostile_files_need_little_memory(tmp_path):
    """A million containers in a file of a megabyte: each may take some 100 bytes, and no more."""
    as_archive(tmp_path / "lists.pt", b"\x80\x02]" + b"(" + b"]" * 1_000_000 + b"e.")
    as_archive(tmp_path / "memo.pt", b"\x80\x02N" + b"\x94" * 1_000_000 + b".")
    names = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000
    many = b"\x80\x02}" + names + b"](" + b"K\x01\x85" * 500_000 + b"es."
    as_archive(tmp_path / "names.pt", many)
    code = (
        "import sys, resource; from ptree import FileError; from ptree._foreign import open_foreign\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_foreign(path)\n"
        "    except FileError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    paths = [str(tmp_path / f"{name}.pt") for name in ("lists", "memo", "names")]
    run = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(run.stdout) * unit < 500_000_000


def test_the_crc_of_a_pickle_is_compared(tmp_path):
    path = tmp_path / "m.pt"
    path.write_bytes(ZIP.replace(b"a.weight", b"a.weighs", 1))
    assert "'archive/data.pkl' is damaged" in error_of(path)
