"""Files at URLs are read by ranges: of `memory://` and of a server on this machine, with ranges and without, that may fail."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file
from trees import equal

import ptree as pt
from ptree._command_line import main
from ptree._stored import url_bytes

URL_PATTERN = r"http://127\.0\.0\.1:\d+"


class Server(ThreadingHTTPServer):
    """Sends files, and does what tests want of it: no ranges, statuses, connections that break, wrong sizes."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.has_ranges = True
        self.has_length = True
        self.statuses = {}
        self.says_size = {}
        self.breaks = 0
        """How many of the next answers of more than 1,000 bytes end in the middle."""
        self.requests, self.sent = [], 0
        self.seconds_to_answer = 0
        self.now, self.together = Counter(), set()
        """The names that are asked for now, and those that were asked for while another was."""
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def wait(self, name):
        with self.lock:
            self.now[name] += 1
        time.sleep(self.seconds_to_answer)
        with self.lock:
            if sum(count > 0 for count in self.now.values()) > 1:
                self.together.update(each for each, count in self.now.items() if count)
            self.now[name] -= 1


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        server, name = self.server, self.path.partition("?")[0]
        server.requests.append((self.command, self.path, self.headers.get("Range")))
        if server.seconds_to_answer:
            server.wait(name)
        status = server.statuses.get(name, 200 if name in server.files else 404)
        if status != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = server.files[name]
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        size = server.says_size.get(name, len(data))
        if asked and server.has_ranges:
            start, stop = int(asked[1]), int(asked[2]) + 1
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            data = data[start:stop]
            size = len(data)
        else:
            self.send_response(200)
        if server.has_length:
            self.send_header("Content-Length", str(size))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if not with_body:
            return
        if server.breaks and len(data) > 1000:
            server.breaks -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        server.sent += len(data)
        try:
            self.wfile.write(data)
        except ConnectionError:  # the client wants no more
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving(files):
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tree():
    table = jnp.arange(512 * 4096.0).reshape(512, 4096)  # 8 MiB
    return pt.tie(
        {"table": table, "head": table.T, "bias": np.arange(5), "key": jax.random.key(1), "n": 3},
        {"head": pt.transposed("table")},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote")
    pt.save(folder / "m.safetensors", tree(), metadata={"run": "7"})
    pt.save(folder / "model.safetensors", tree(), max_shard_size="1MB")
    save_file({"h.0.w": np.arange(6.0)}, folder / "plain.safetensors")
    return {f"/run/{name}": (folder / name).read_bytes() for name in os.listdir(folder)}


@pytest.fixture
def server(files, monkeypatch):
    monkeypatch.setattr(url_bytes, "_WAIT", 0.001)
    with serving(dict(files)) as server:
        yield server


@pytest.fixture
def memory(files):
    system = fsspec.filesystem("memory")
    system.store.clear()
    for name, data in files.items():
        system.pipe(f"memory:/{name}", data)
    yield "memory:/"
    system.store.clear()


# ----------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("name", ["/run/m.safetensors", "/run/model.safetensors", "/run/model.safetensors.index.json", "/run", "/run/"])  # fmt: skip
@pytest.mark.parametrize("where", ["server", "memory"])
def test_a_file_an_index_and_a_folder_open_and_load(where, name, request):
    place = request.getfixturevalue(where)
    url = (place.url if where == "server" else place) + name
    assert equal(pt.load(url), tree())
    with pt.open(url) as opened:
        assert [*opened] == pt.paths(tree(), aliases=True)
        assert opened["table"].shape == (512, 4096)
        np.testing.assert_array_equal(opened["head"][5:, 7], tree()["table"][7, 5:])
        if name == "/run/m.safetensors":
            assert opened.metadata == {"run": "7"}
            assert opened.path == url


@pytest.mark.parametrize("where", ["server", "memory"])
def test_only_what_is_asked_for_is_sent(where, request):
    place = request.getfixturevalue(where)
    url = (place.url if where == "server" else place) + "/run/m.safetensors"
    with pt.open(url) as opened:
        header = opened.bytes_read
        assert header < 2000
        np.testing.assert_array_equal(opened["table"][3], tree()["table"][3])
        assert opened.bytes_read - header == 4096 * 4
        np.testing.assert_array_equal(opened["table"][::64, -128:], tree()["table"][::64, -128:])
        assert opened.bytes_read - header == 4096 * 4 + 8 * 128 * 4  # rows of which parts are far from each other
        if where == "server":
            assert place.sent == opened.bytes_read
            assert max(len(asked) for _, _, asked in place.requests if asked) > 0
            assert {command for command, _, asked in place.requests if not asked} == {"HEAD"}


def test_shards_of_devices_are_sent_once(server):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    url = server.url + "/run/m.safetensors"
    for spec in (PartitionSpec("d"), PartitionSpec(None, "d")):
        with pt.open(url) as opened:
            before = opened.bytes_read
            sharding = NamedSharding(mesh, spec)
            back = opened.read([opened.leaves["table"]], {"table": sharding}).values["table"]
            assert opened.bytes_read - before == back.nbytes
        assert back.sharding == sharding
        assert equal(back, tree()["table"])
    loaded = pt.load(url, select="table", shardings=PartitionSpec(None, "d"), mesh=mesh)
    assert equal(loaded["table"], tree()["table"])


def test_shards_are_opened_together(tmp_path):
    layers = {f"layer{at}": np.full(100, float(at)) for at in range(6)}
    pt.save(tmp_path / "model.safetensors", layers, max_shard_size="1kB")
    with serving({f"/{name}": (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}) as server:
        server.seconds_to_answer = 0.1
        with pt.open(server.url) as opened:
            np.testing.assert_array_equal(opened["layer4"][...], layers["layer4"])
        shards = [name for name in server.files if not name.endswith(".json")]
        assert len(shards) == 6
        assert server.together.issuperset(shards)


def test_a_long_leaf_is_asked_for_in_pieces(server, monkeypatch):
    monkeypatch.setattr(url_bytes, "_PIECE", 1 << 20)
    with pt.open(server.url + "/run/m.safetensors") as opened:
        np.testing.assert_array_equal(opened["table"][...], tree()["table"])
    asked = [asked for _, _, asked in server.requests if asked]
    assert len(asked) == 2 + 8


def test_the_command_line_reads_urls(server, capsys):
    url = server.url + "/run/m.safetensors"
    assert main(["show", url]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("m.safetensors: safetensors, 8.0 MiB, run=7\n")
    assert "table" in shown
    assert server.sent < 3000
    assert main(["get", url, "table", "3,:5"]) == 0
    assert server.sent < 3500
    assert main(["show", server.url + "/run/plain.safetensors"]) == 0
    assert main(["show", server.url + "/run"]) == 0
    assert "shards" in capsys.readouterr().out
    assert main(["check", url]) == 0
    assert main(["show", server.url + "/nothing.safetensors"]) == 2
    assert "/nothing.safetensors.index.json" in capsys.readouterr().err
    assert main(["get", url, "tabel"]) == 2
    assert "Did you mean 'table'" in capsys.readouterr().err


def test_a_file_of_this_machine_may_be_given_as_a_url(tmp_path):
    path = tmp_path / "my model.safetensors"
    pt.save(path.as_uri(), {"a": jnp.ones(3)})
    assert pt.load(path) == pt.load(path.as_uri(), mmap=True) == pt.load(f"file://{path}")


def test_files_of_other_programs_and_damage_are_found(server):
    with pt.open(server.url + "/run/plain.safetensors") as opened:
        np.testing.assert_array_equal(opened["h.0.w"][1:3], [1.0, 2.0])
    whole = server.files["/run/m.safetensors"]
    server.files["/run/flipped.safetensors"] = whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:]
    with pytest.raises(
        pt.FileError, match=rf"cannot load '{URL_PATTERN}/run/flipped.safetensors': damaged.*\['table'\]"
    ):
        pt.load(server.url + "/run/flipped.safetensors")
    server.files["/run/page"] = b"<!DOCTYPE html><html>" * 9
    with pytest.raises(
        pt.FileError, match=r"whole safetensors file.*Files of other frameworks are read from this machine alone"
    ):
        pt.open(server.url + "/run/page")


# ----------------------------------------------------------------------------- what goes wrong


def test_what_is_not_there_is_named(server, memory):
    with pytest.raises(FileNotFoundError) as raised:
        pt.load(server.url + "/no.safetensors")
    assert re.fullmatch(
        rf"no file '({URL_PATTERN}/no.safetensors)': there is none of \['\1', '\1.index.json'\]", str(raised.value)
    )
    with pytest.raises(
        FileNotFoundError, match=r"no file 'memory://no/thing': .*'memory://no/thing/model.safetensors', "
    ):
        pt.open("memory://no/thing")
    with pytest.raises(FileNotFoundError, match=r"no.index.json'$"):
        pt.open(server.url + "/no.index.json")
    del server.files["/run/" + json.loads(server.files["/run/model.safetensors.index.json"])["weight_map"]["bias"]]
    with pytest.raises(pt.FileError, match=rf"cannot load '{URL_PATTERN}/run/model.safetensors.index.json': these shards are not beside it"):  # fmt: skip
        pt.load(server.url + "/run")


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses(server, status):
    server.statuses["/run/m.safetensors"] = status
    with pytest.raises(PermissionError) as raised:
        pt.load(server.url + "/run/m.safetensors?token=secret")
    assert re.fullmatch(rf"cannot read '{URL_PATTERN}/run/m.safetensors', its size: HTTP {status}", str(raised.value))


def test_a_server_that_fails_is_asked_three_times(server):
    server.statuses["/run/m.safetensors"] = 503
    with pytest.raises(
        ConnectionError, match=rf"cannot read '{URL_PATTERN}/run/m.safetensors', its size: HTTP 503; tried 3 times"
    ):
        pt.load(server.url + "/run/m.safetensors")
    assert sum(command == "HEAD" for command, _, _ in server.requests) == 3


def test_no_server_at_all(server):
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(
        ConnectionError, match=rf"cannot read '{url}/m.safetensors', its size: ClientConnectorError.*tried 3 times"
    ):
        pt.open(url + "/m.safetensors")


def test_a_server_without_ranges_is_not_asked_for_all(server):
    server.has_ranges = False
    for url in ("/run/m.safetensors", "/run"):
        with pytest.raises(pt.FileError) as raised:
            pt.load(server.url + url)
        text = str(raised.value)
        assert re.match(rf"cannot read '{URL_PATTERN}/run/m", text), text
        assert "by ranges: the server sends only the whole file, not parts of it. Copy it, fsspec.filesystem('http').get('http://" in text  # fmt: skip
    server.has_length = False
    with pytest.raises(pt.FileError, match=r"the server does not say how long it is, or sends no parts of it. Copy it"):
        pt.load(server.url + "/run/m.safetensors")


def test_the_call_that_an_error_recommends_copies_the_file(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.has_ranges = False
    with pytest.raises(pt.FileError) as raised:
        pt.load(server.url + "/run/m.safetensors")
    call = re.search(r"fsspec\.filesystem\(.*?\)\.get\(.*?\)", str(raised.value))
    eval(call[0])
    assert equal(pt.load("model.safetensors"), tree())


def test_a_connection_that_breaks_once_is_made_again(server):
    server.breaks = 2
    assert equal(pt.load(server.url + "/run/m.safetensors"), tree())
    assert server.breaks == 0


def test_a_connection_that_always_breaks_is_an_error(server):
    with pt.open(server.url + "/run/m.safetensors") as opened:
        server.breaks = 10**6
        with pytest.raises(ConnectionError) as raised:
            opened["table"][...]
        start = opened.leaves["table"].start
    expected = rf"cannot read '{URL_PATTERN}/run/m.safetensors', 8,388,608 bytes from {start:,} on: ClientPayloadError: .*; tried 3 times"
    assert re.fullmatch(expected, str(raised.value))


def test_a_file_that_changes_while_it_is_read(server):
    with pt.open(server.url + "/run/m.safetensors") as opened:
        server.files["/run/m.safetensors"] = server.files["/run/m.safetensors"][:5000]
        with pytest.raises(pt.FileError, match=r"it ends at 5,000 bytes, and had 8,\d+,\d+ when opened") as raised:
            opened["table"][...]
        assert raised.value.is_damage
        server.statuses["/run/m.safetensors"] = 404
        with pytest.raises(FileNotFoundError, match=rf"no file '{URL_PATTERN}/run/m.safetensors'"):
            opened["table"][...]
        server.statuses["/run/m.safetensors"] = 403  # a link that is valid for an hour
        with pytest.raises(PermissionError, match=r"from [\d,]+ on: HTTP 403"):
            opened["bias"][...]
        opened.close()
        with pytest.raises(pt.FileError, match=r"m.safetensors' is closed"):
            opened["bias"][...]


def test_wrong_sizes_are_found(server):
    server.says_size["/run/m.safetensors"] = 10**9
    with pytest.raises(
        pt.FileError,
        match=rf"{URL_PATTERN}/run/m.safetensors'.*its header describes 8,[\d,]+ bytes, and it has 1,000,000,000",
    ):
        pt.open(server.url + "/run/m.safetensors")
    server.says_size["/run/m.safetensors"] = 100
    with pytest.raises(pt.FileError, match=r"says? that the header has .* and it has 100 in all"):
        pt.open(server.url + "/run/m.safetensors")
    server.files["/run/cut.safetensors"] = server.files["/run/m.safetensors"][:-100]
    with pytest.raises(pt.FileError, match="its header describes"):
        pt.open(server.url + "/run/cut.safetensors")


def test_what_a_url_cannot_do_is_said(memory, tmp_path):
    url = memory + "/run/m.safetensors"
    with pytest.raises(
        pt.FileError, match=rf"cannot read '{url}' with mmap=True: only files of this machine can be mapped"
    ):
        pt.load(url, mmap=True)
    refused = r"'memory://x.safetensors' is a URL, and this call takes a path of this machine. fsspec.filesystem\('memory'\).get\(url, path\) copies"
    with pytest.raises(pt.FileError, match=r"save\(path, tree\): " + refused):
        pt.save("memory://x.safetensors", {"a": 1})
    with pytest.raises(pt.FileError, match=r"read\(path\): " + refused):
        pt.convert.read("memory://x.safetensors")
    with pytest.raises(pt.FileError, match=r"write\(path, arrays\): " + refused):
        pt.convert.write("memory://x.safetensors", {"a": np.ones(1)})
    with pytest.raises(
        pt.FileError, match=r"open\(path\): 'https:/host/m.safetensors' was a URL, of which pathlib removes a slash"
    ):
        pt.open(type(tmp_path)("https://host/m.safetensors"))
    with pytest.raises(pt.FileError, match="cannot read 'nonsense://a/b': Protocol not known: nonsense"):
        pt.open("nonsense://a/b")
    # what is refused for writing is done so
    pt.save(tmp_path / "m.safetensors", {"a": 1})
    fsspec.filesystem("memory").put(str(tmp_path / "m.safetensors"), "memory://x.safetensors")
    assert pt.load("memory://x.safetensors") == pt.Tree({"a": 1})


def test_a_file_of_another_format_at_a_url_is_to_be_copied():
    fsspec.filesystem("memory").pipe("/other/z.npz", b"PK\x03\x04" + bytes(100))
    with pytest.raises(pt.FileError, match=r"'memory://other/z.npz': .* from this machine alone: copy it"):
        pt.load("memory://other/z.npz")


WITHOUT_FSSPEC = """
import sys, ptree as pt, numpy as np
from ptree._command_line import main
assert not {name for name in sys.modules if name.startswith(("fsspec", "aiohttp"))}
pt.save(sys.argv[1], {"a": np.ones(3)})
pt.load(sys.argv[1])
with pt.open(sys.argv[1]) as file: file["a"][1:]
main(["show", sys.argv[1]])
assert not {name for name in sys.modules if name.startswith(("fsspec", "aiohttp"))}
sys.modules["fsspec"] = None
try:
    pt.open("https://host/m.safetensors")
except pt.FileError as error:
    assert str(error) == "cannot read 'https://host/m.safetensors': URLs are read by fsspec: pip install 'ptree-jax[remote]'", error
else:
    raise AssertionError
"""


def test_fsspec_is_imported_for_urls_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FSSPEC, str(tmp_path / "m.safetensors")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_package_that_fsspec_lacks_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(pt.FileError, match=r"cannot read 'gs://bucket/m.safetensors': .*: pip install gcsfs$"):
        pt.open("gs://bucket/m.safetensors")
