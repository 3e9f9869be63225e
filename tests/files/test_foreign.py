"""Files that other programs wrote, or newer ones: what the reference reader opens loads, and what is not known is refused by name."""

import json
import random
import re
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from errors import says
from safetensors import safe_open
from safetensors.numpy import save_file

import ptree as pt


@pytest.fixture
def file(tmp_path):
    return tmp_path / "m.safetensors"


def written(file, header, data=b""):
    """Write a file with this header, a table or JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def entry(dtype="U8", shape=(1,), start=0, stop=1, **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop], **more}


def opens_by_reference(file):
    """The names of the leaves in a file, by the safetensors package; None if it refuses the file."""
    try:
        with safe_open(file, "np") as opened:
            return sorted(opened.keys())
    except Exception as error:
        assert type(error).__name__ == "SafetensorError"
        return None


# ----------------------------------------------------------------------------- headers of any form

PLAIN = json.dumps(entry()).encode()
FORMS = {
    "unknown fields": {"a": entry(scale=0.5, origin={"x": [1, None, {"y": "z"}]})},
    "null metadata": {"__metadata__": None, "a": entry()},
    "metadata behind": {"a": entry(), "__metadata__": {"format": "pt"}},
    "spaces behind": b'{"a":' + PLAIN + b"}" + b" " * 61,
    "lines behind": b'{"a":' + PLAIN + b"}\n\t\r ",
    "spaces in front": b'  {"a":' + PLAIN + b"}",
    "indented": json.dumps({"a": entry()}, indent=2).encode(),
    "no leaves": {},
    "no leaves and metadata": {"__metadata__": {"format": "pt"}},
    "other order of fields": {"a": dict(reversed(entry().items()))},
    "a long name": {"a" * 100_000: entry()},
    "names that are no paths": {"/a//b/": entry()},
    "a NUL in a name": {"a\0b": entry()},
    "escape codes in a name": {"\x1b[31m\n": entry()},
    "leaves of no bytes": {"a": entry(shape=[0], stop=0), "b": entry(), "c": entry("F32", [3, 0], 1, 1)},
    "an empty name": {"": entry()},
    "a name above another": {"a": entry(), "a/b": entry(start=1, stop=2)},
    "a deep name": {"a/" * 300 + "b": entry()},
    "65 axes": {"a": entry(shape=[1] * 65)},
    "a shape that NumPy lacks": {"a": entry("F32", [0, 2**62], 0, 0), "b": entry()},
    "numbers of 4 bits": {"a": entry("F4", [2])},
    "numbers of 6 bits": {"a": entry("F6_E2M3", [4], 0, 3), "b": entry("F6_E3M2", [4], 3, 6)},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_the_reference_reader_opens_opens(file, form):
    written(file, FORMS[form], b"1" * {"numbers of 6 bits": 6, "a name above another": 2, "no leaves": 0, "no leaves and metadata": 0}.get(form, 1))  # fmt: skip
    names = opens_by_reference(file)
    assert names is not None
    with pt.open(file) as opened:
        assert sorted(opened) == names
        for leaf in opened.values():
            if not leaf.stored.unreadable:
                assert leaf[...].shape == leaf.shape


CANNOT_BE_PATHS = ["an empty name", "a name above another", "a deep name"]


@pytest.mark.parametrize("form", CANNOT_BE_PATHS)
def test_names_that_cannot_be_paths_are_read_leaf_by_leaf(file, form):
    written(file, FORMS[form], b"12" if form == "a name above another" else b"1")
    with pytest.raises(pt.FileError, match=r"ptree.open reads leaf by leaf") as raised:
        pt.load(file)
    assert not raised.value.is_damage


def test_int64_is_read_leaf_by_leaf_without_x64(file):
    tree = {"n": np.array([2**40, 1]), "f": np.array([1 / 3]), "w": np.ones(2, "float32")}
    save_file(tree, file)
    with pt.open(file) as opened:
        for name in ("n", "f"):
            for read in (opened[name][...], opened[name][:1], opened[name][()]):
                assert isinstance(read, np.ndarray)
                assert read.dtype == tree[name].dtype
        assert int(opened["n"][0]) == 2**40
        assert isinstance(opened["w"][...], jax.Array)
    with pytest.raises(pt.FileError, match=r"'n' is i64, 'f' is f64, and JAX would cut them|'f' is f64, 'n' is i64"):
        pt.load(file)
    with jax.enable_x64(True), pt.open(file) as opened:
        assert isinstance(opened["n"][...], jax.Array)


# ----------------------------------------------------------------------------- dtypes that are not known

UNKNOWN = ["F4", "F6_E2M3", "F6_E3M2", "I4", "U4", "F128", "Q9", "f32", "", "F8_E9M9", "\x1b[31m"]


@pytest.mark.parametrize("code", UNKNOWN)
def test_a_dtype_that_is_not_known_refuses_its_leaf_alone(file, code):
    new = entry(code, [4], 4, {"F4": 6, "F6_E2M3": 7, "F6_E3M2": 7}.get(code, 8))
    data = np.float32(7).tobytes() + b"1234"[: new["data_offsets"][1] - 4]
    written(file, {"old": entry("F32", [1], 0, 4), "new": new}, data)
    message = f"'new' is of the dtype {code!r}, which this ptree does not know. select= loads the others."
    error = says(pt.FileError, f"cannot load {str(file)!r}: {message}", pt.load, file)
    assert not error.is_damage
    assert not says(
        pt.FileError, f"cannot load {str(file)!r}: {message}", pt.load, file, {"new": jnp.ones(4)}
    ).is_damage
    assert float(pt.load(file, select="old")["old"][0]) == 7
    assert float(pt.load(file, {"old": jnp.zeros(1)}, select="old")["old"][0]) == 7
    assert float(pt.load(file, {"a": jnp.zeros(1)}, select="old", rename={"old": "a"})["a"][0]) == 7
    with pt.open(file) as opened:
        assert (opened["new"].shape, opened["new"].nbytes) == ((4,), len(data) - 4)
        assert "which is of the dtype" in repr(opened["new"])
        assert float(opened["old"][0]) == 7
        for read in (lambda leaf: leaf[...], lambda leaf: leaf[0], np.asarray):
            with pytest.raises(pt.FileError, match="is of the dtype"):
                read(opened["new"])


def newer(file, **facts):
    """A file as a newer ptree would write it: another name in the facts of one of its leaves."""
    stated = {"version": 1, "order": ["new", "old"], "kinds": {"new": "numpy", "old": "numpy"}}
    for name, value in facts.items():
        stated[name] = {**stated.get(name, {}), "new": value}
    save_file({"new": np.zeros(2, "uint8"), "old": np.ones(1)}, file, {"ptree": json.dumps(stated)})


@pytest.mark.parametrize(
    ("facts", "problem"), [({"dtypes": "int5"}, "dtype 'int5'"), ({"kinds": "tensor"}, "kind 'tensor'")]
)
def test_a_dtype_or_kind_of_a_newer_ptree_refuses_its_leaf_alone(file, facts, problem):
    newer(file, **facts)
    with pytest.raises(pt.FileError, match=f"'new' is of the {problem}, which this ptree does not know") as raised:
        pt.load(file, verify=False)
    assert not raised.value.is_damage
    assert pt.load(file, select="old", verify=False)["old"].tolist() == [1]
    with pt.open(file, verify=False) as opened:
        assert [*opened] == ["new", "old"]
        assert opened["old"][...].tolist() == [1]


def test_all_leaves_of_unknown_dtypes_are_listed_at_once(file):
    written(file, {f"w{at:02}": entry("Q9", [1], at, at + 1) for at in range(12)}, b"1" * 12)
    with pytest.raises(pt.FileError, match=r"'w09' is of the dtype 'Q9'.*\nand 2 more\nselect= loads the others\."):
        pt.load(file)


def test_checkpoints_take_no_older_step_for_a_dtype_that_is_not_known(tmp_path):
    with pt.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jnp.ones(1)})
        checkpoints.wait()
        written(tmp_path / "step_2.safetensors", {"w": entry("F32", [1], 0, 4), "x": entry("Q9", [1], 4, 5)}, b"12345")
        with pytest.raises(pt.FileError, match="'x' is of the dtype 'Q9'"):
            checkpoints.load()
        assert checkpoints.load(select="w")[0] == 2


# ----------------------------------------------------------------------------- hostile headers

SIZE = 3_000_000
EMPTY = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
MANY = ",".join(f'"{at}":{EMPTY}' for at in range(SIZE // 60))
HOSTILE = {
    "many leaves, the last one wrong": f'{{{MANY},"z":{{"dtype":"U8","shape":[1],"data_offsets":[0,0]}}}}',
    "many leaves, and bytes too few": f'{{{MANY},"z":{{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}}}',
    "one name many times": "{" + ",".join([f'"a":{EMPTY}'] * (SIZE // 55)) + "}",
    "nested lists": "[" * SIZE,
    "nested tables": '{"a":' * (SIZE // 5),
    "a long shape": '{"a":{"dtype":"U8","shape":[' + "2," * (SIZE // 2) + '2],"data_offsets":[0,1]}}',
    "a long shape of huge sizes": '{"a":{"dtype":"U8","shape":[' + ",".join(["9" * 4000] * (SIZE // 4001)) + '],"data_offsets":[0,1]}}',
    "64 huge sizes": '{"a":{"dtype":"U8","shape":[' + ",".join(["9" * 4000] * 64) + '],"data_offsets":[0,1]}}',
    "one huge number": '{"a":{"dtype":"U8","shape":[' + "9" * SIZE + '],"data_offsets":[0,1]}}',
    "long offsets": '{"a":{"dtype":"U8","shape":[0],"data_offsets":[' + "0," * (SIZE // 2) + "0]}}",
    "a list of lists": '{"a":[' + "[]," * (SIZE // 3) + "[]]}",
    "a shape of lists": '{"a":{"dtype":"U8","shape":[' + "[]," * (SIZE // 3) + '[]],"data_offsets":[0,0]}}',
    "a long dtype": '{"a":{"dtype":"' + "F" * SIZE + '","shape":[0],"data_offsets":[0,0]}}',
    "a long name": '{"' + "a" * SIZE + '":{"dtype":"U8","shape":[1],"data_offsets":[0,0]}}',
    "a name of many levels": '{"' + "a/" * (SIZE // 2) + f'a":{EMPTY}' + "}",
    "many names of many levels": "{" + ",".join(f'"{at}/{"b/" * 254}c":{EMPTY}' for at in range(SIZE // 570)) + "}",
    "lone surrogates": '{"' + "\\ud800" * (SIZE // 6) + f'":{EMPTY}' + "}",
    "much metadata": '{"__metadata__":{' + ",".join(f'"{at}":"x"' for at in range(SIZE // 13)) + ',"z":1}}',
    "spaces": "{" + " " * SIZE,
}  # fmt: skip


@pytest.mark.parametrize("form", HOSTILE)
def test_a_hostile_header_is_refused_soon_and_in_few_words(file, form):
    written(file, HOSTILE[form].encode())
    start = time.process_time()
    with pytest.raises(pt.FileError) as raised:
        pt.load(file)
    # it takes some 0.2 seconds; this is no measurement, but finds what takes minutes
    assert time.process_time() - start < 5
    assert len(str(raised.value)) < 1000 + len(str(file))


def test_what_load_would_refuse_for_its_levels_is_not_saved(file):
    leaf = jnp.ones(1)
    deep = {f"{at}/{'b/' * 254}c": leaf for at in range(1000)}
    with pytest.raises(pt.FileError, match="its 1,000 names have 255,000 levels, more than 32 each"):
        pt.save(file, deep)
    assert not file.exists()
    pt.save(file, {f"{at}/{'b/' * 254}c": leaf for at in range(3)})
    assert len(pt.paths(pt.load(file))) == 3


HOSTILE_NAMES = ["\x1b[31mred", "a\nb", "\x07", "\u202e", "x" * 10_000]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_reach_no_terminal_as_they_are(file, name):
    refused = [
        {name: entry("Q9")},
        {name: entry("F32")},
        {"a": entry(name)},
        {name: entry(), f"{name}/b": entry(start=1, stop=2)},
        {name: entry(start=1, stop=2)},
    ]
    for table in refused:
        written(file, table, b"1" * max(row["data_offsets"][1] for row in table.values()))
        with pytest.raises(pt.FileError) as raised:
            pt.load(file)
        shown = str(raised.value)
        assert shown.isprintable()
        assert len(shown) < 1000 + len(str(file))
    for facts in (
        {"kinds": {"new": name}},
        {"dtypes": {"new": name}},
        {"ties": {name: ["new", [name]]}},
        {"order": [name]},
    ):
        save_file({"new": np.zeros(2, "uint8")}, file, {"ptree": json.dumps({"version": 1, "order": ["new"], **facts})})
        with pytest.raises(pt.FileError) as raised:
            pt.load(file, verify=False)
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 1000 + len(str(file))


# ----------------------------------------------------------------------------- a fuzzer, with the reference reader as judge


def base_header():
    return {
        "__metadata__": {"format": "pt"},
        "a.weight": entry("F32", [2, 3], 0, 24),
        "b": entry("BF16", [4], 24, 32),
        "c/0": entry("U8", [], 32, 33),
        "c/1": entry("I64", [0, 5], 33, 33),
        "d": entry("F8_E4M3", [7], 33, 40),
        "e": entry("F4", [8], 40, 44),
    }


STRANGE = [None, True, -1, 0, 1, 2, 7, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, "", "a", "F32", "F4", "F6_E3M2", "Q9", "C64", "\x00", "/", "a/b",
           "c", [], {}, [[]], [0, 0], [1] * 70, {"dtype": "U8"}, [0, 2**62]]  # fmt: skip


def places_in(node):
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, (dict, list)):
            yield from places_in(value)


def mutated(draw):
    """The base header with some values, names or characters changed, and its data."""
    table = base_header()
    for _ in range(draw.choice([1, 1, 2, 3])):
        node, key = draw.choice(list(places_in(table)) or [(table, None)])
        if key is None:
            break
        what = draw.randrange(5)
        if what == 0:
            del node[key]
        elif what == 1:
            node[key] = draw.choice(STRANGE)
        elif what == 2 and isinstance(node[key], int):
            node[key] += draw.choice([-1, 1, 8])
        elif what == 3 and isinstance(node, dict):
            node[draw.choice([text for text in STRANGE if isinstance(text, str)])] = node.pop(key)
        elif isinstance(node, dict):
            node[f"extra {draw.randrange(3)}"] = draw.choice(STRANGE)
    text = json.dumps(table)
    if draw.random() < 0.3:
        at = draw.randrange(len(text))
        text = text[:at] + draw.choice('0129-.eE"\\[]{},: \n\ttrue') + text[at + draw.randrange(2) :]
    return text.encode() + b" " * draw.randrange(9), bytes(range(draw.choice([44, 44, 44, 43, 45, 40])))


def check_against_reference(file, draw):
    """Whatever the reference reader opens opens here with the same leaves; whatever it refuses is refused or no danger."""
    text, data = mutated(draw)
    written(file, text, data)
    names = opens_by_reference(file)
    try:
        with pt.open(file) as opened:
            ours = sorted(opened)
            for leaf in opened.values():
                if not leaf.stored.unreadable:
                    start, stop = leaf.stored.start, leaf.stored.stop
                    assert np.asarray(leaf).tobytes() == file.read_bytes()[start:stop]
    except pt.FileError as error:
        is_allowed = names is None or "it has a name twice" in str(error)
        assert is_allowed, (names, str(error))
        return False
    assert names is None or ours == names
    try:
        pt.load(file)
    except pt.PtreeError as error:
        assert str(file) in str(error)
    return True


def test_headers_with_any_change_open_as_the_reference_reader_opens_them(file, long):
    opened = 0
    for seed in range(40_000 if long else 600):
        try:
            opened += check_against_reference(file, random.Random(seed))
        except Exception as error:
            raise AssertionError(seed) from error
    assert opened > 50


# ----------------------------------------------------------------------------- layouts that the shape does not tell


def test_a_weight_that_becomes_a_kernel_warns_where_its_shape_does_not_tell(file):
    torch = pytest.importorskip("torch")
    net = torch.nn.ModuleDict({
        "square": torch.nn.Linear(4, 4), "wide": torch.nn.Linear(4, 8), "conv": torch.nn.Conv2d(3, 3, 3), "line": torch.nn.Conv1d(5, 2, 5),
        "up": torch.nn.ConvTranspose1d(3, 3, 3), "norm": torch.nn.LayerNorm(4), "table": torch.nn.Embedding(4, 4),
    })  # fmt: skip
    tensors = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    save_file(tensors, file)
    kernels = {
        name: f"{name.split('.')[0]}/kernel"
        for name in tensors
        if name.split(".")[0] not in ("norm", "table") and "weight" in name
    }
    like = {path.split("/")[0]: {"kernel": jnp.zeros(tensors[name].shape)} for name, path in kernels.items()}
    with pytest.warns(UserWarning, match="these kernels may be transposed") as seen:
        pt.load(file, like, select=[*kernels], rename=kernels)
    (warning,) = seen
    assert warning.filename == __file__
    text = str(warning.message)
    doubtful = [name for name in like if f"'{name}/kernel'" in text]
    # `line` may be two experts, each to be transposed
    assert doubtful == ["square", "conv", "line", "up"]
    # the call that the warning recommends
    with pytest.warns(UserWarning, match="'square/kernel'") as seen:
        pt.load(file, select="square.weight", rename={"square.weight": "square/kernel"})
    call = re.search(r"ptree[.]convert[.]Table.*?(?=; with)", str(seen[0].message))[0]
    turned = eval(call, {"ptree": pt})
    x = torch.ones(1, 4)
    expected = net["square"](x) - net["square"].bias
    np.testing.assert_allclose(
        np.ones((1, 4)) @ np.asarray(turned["square/kernel"]), expected.detach().numpy(), atol=1e-6
    )
    with pytest.warns(UserWarning, match=r"'wide/kernel', f32.8,4., from 'wide.weight'"):
        pt.load(file, select=[*kernels], rename=kernels)  # no shape to compare with
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pt.load(file, select=[*kernels])
        pt.load(file, select="norm.weight", rename={"norm.weight": "norm/scale"})
        pt.load(
            file, {"wide": {"kernel": jnp.zeros((8, 4))}}, select="wide.weight", rename={"wide.weight": "wide/kernel"}
        )
        pt.save(file, {"square": {"weight": jnp.ones((4, 4))}})
        pt.load(file, rename={"square/weight": "square/kernel"})  # ptree wrote it: its layout is known
    pt.save(file, dict(net.state_dict()))
    with pytest.warns(UserWarning, match="'square/kernel'"):
        pt.load(file, select="square.weight", rename={"square.weight": "square/kernel"})


def test_layers_that_become_a_stack_of_kernels_warn_too(file):
    save_file({f"h.{at}.weight": np.ones((4, 4), "float32") for at in range(3)}, file)
    like = {"blocks": {":": {"kernel": jnp.zeros((3, 4, 4))}}}
    with pytest.warns(UserWarning, match="'blocks/2/kernel'"):
        pt.load(file, like, rename={f"h.{at}.weight": f"blocks/{at}/kernel" for at in range(3)})


# ----------------------------------------------------------------------------- one layer of a stack


def test_one_layer_of_a_stack_is_read_alone(file):
    layers = [
        {"w": jnp.arange(512.0).reshape(16, 32) + at, "n": np.arange(40) * at, "k": jax.random.key(at)}
        for at in range(6)
    ]
    apart = pt.Tree({"blocks": layers, "more": {"w": jnp.ones(3)}})
    tree = pt.stacks.stack(apart, "blocks")
    for size in (None, 4096):
        pt.save(file, tree, max_shard_size=size)
        with pt.open(file) as opened:
            for at in range(6):
                before = opened.bytes_read
                leaf = opened[f"blocks/{at}/w"]
                assert (leaf.shape, leaf.nbytes) == ((16, 32), 2048)
                np.testing.assert_array_equal(leaf[...], layers[at]["w"])
                assert opened.bytes_read - before == 2048
                np.testing.assert_array_equal(leaf[3:5, 1], layers[at]["w"][3:5, 1])
                assert isinstance(leaf[...], jax.Array)
                assert opened[f"blocks/{at}/n"][...].tolist() == layers[at]["n"].tolist()
                assert isinstance(opened[f"blocks/{at}/n"][...], np.ndarray)
                assert opened[f"blocks/{at}/k"][...] == layers[at]["k"]
            for missing in ("blocks/6/w", "blocks/01/w", "blocks/-1/w", "blocks/0", "blocks/0/x", "more/0/w"):
                with pytest.raises(pt.PathError, match="no leaf"):
                    opened[missing]


def test_one_layer_of_nested_stacks_and_through_ties(file):
    inner = {"w": jnp.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)}
    tree = pt.Tree(
        {
            "a": {":": {"b": {":": inner}}},
            "t": {":": {"x": jnp.arange(24.0).reshape(2, 3, 4), "y": jnp.zeros((2, 4, 3))}},
        }
    )
    tree = pt.put(tree, "t/:/y", jnp.swapaxes(tree["t/:/x"], 1, 2))
    tree = pt.tie(tree, {"t/:/y": pt.transposed("t/:/x")})
    pt.save(file, tree)
    with pt.open(file) as opened:
        for path in ("a/1/b/2/w", "a/1/b/:/w", "a/:/b/2/w", "t/1/y", "t/1/x", "t/:/y"):
            expected = pt.get(tree, path)
            assert opened[path].shape == expected.shape
            np.testing.assert_array_equal(opened[path][...], expected)
            np.testing.assert_array_equal(opened[path][1:, 0], expected[1:, 0])
        before = opened.bytes_read
        opened["t/1/y"][...]
        assert opened.bytes_read - before == 48


# ----------------------------------------------------------------------------- arguments


def test_paths_that_cannot_be_are_told(file):
    for path in ("a\0b", "\ud800"):
        for call in (pt.load, pt.open, lambda path: pt.save(path, {"a": 1})):
            with pytest.raises(pt.FileError, match="cannot be the path of a file"):
                call(path)


def test_a_pattern_or_path_in_the_place_of_like_is_told(file):
    for like in ("enc/*", file):
        with pytest.raises(
            pt.FileError, match=r"load\(path, like\): like= is a tree, and select= takes a pattern; got"
        ):
            pt.load(file, like)


def test_leaves_that_differ_in_their_library_alone_are_told_apart():
    torch = pytest.importorskip("torch")
    says(
        pt.StructureError,
        "the tree is not like `like`: 'a': expected f32[16] (jax.Array) in `like`, got f32[16] (torch.Tensor) in the tree.",
        lambda: pt.check({"a": torch.zeros(16)}, like={"a": jnp.zeros(16)}),
    )
