"""Sealed models as file systems of fsspec."""

from __future__ import annotations

import datetime
import functools
import http.server
import importlib
import pickle
import threading
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import pytest
from conftest import KEY, trust

import modelseal

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY)
    return f"file:{tmp_path / 'key'}"


def test_the_protocol_is_known_to_fsspec() -> None:
    from modelseal.fsspec import SealedFileSystem

    assert fsspec.get_filesystem_class("modelseal") is SealedFileSystem


def test_a_model_is_a_file_system(sealed: Path, source: Path, key: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("modelseal", location=sealed, key=key, **trust(sealed))
    assert fs.ls("", detail=False) == ["config.json", "deep", "empty", "link"]
    assert sorted(fs.find("")) == ["config.json", "deep/er/big.bin", "deep/ümläut", "empty", "link"]
    assert fs.glob("deep/**/*.bin") == ["deep/er/big.bin"]
    assert fs.isdir("deep") and fs.isfile("empty") and not fs.exists("nothing")
    assert fs.info("link")["islink"] and fs.size("deep/ümläut") == 4097
    content = (source / "deep/er/big.bin").read_bytes()
    assert fs.cat_file("deep/er/big.bin") == content
    assert fs.cat_file("deep/er/big.bin", start=-100, end=-50) == content[-100:-50]
    assert fs.cat_file("deep/er/big.bin", start=7) == content[7:]
    assert fs.cat(["config.json", "empty"]) == {"config.json": (source / "config.json").read_bytes(), "empty": b""}
    with fs.open("deep/er/big.bin") as file:
        file.seek(4095)
        assert file.read(3) == content[4095:4098] and file.size == len(content)
    with fs.open("config.json", "rt") as text:
        assert text.read() == (source / "config.json").read_text()
    fs.get("deep", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got/er/big.bin").read_bytes() == content
    with pytest.raises(FileNotFoundError) as caught:
        fs.open("nothing")
    assert caught.value.filename == "nothing"


def test_ranges_are_read_at_once(sealed: Path, source: Path, key: str) -> None:
    fs = fsspec.filesystem("modelseal", location=sealed, key=key, **trust(sealed))
    content = (source / "deep/er/big.bin").read_bytes()
    starts = [number * 100_003 for number in range(60)]
    ends = [start + 5_000 + start % 70_001 for start in starts]
    read = fs.cat_ranges(["deep/er/big.bin"] * 60, starts, ends)
    assert read == [content[start:end] for start, end in zip(starts, ends, strict=True)]
    first, second = fs.cat_ranges(["nothing", "config.json"], 0, 1)
    assert isinstance(first, FileNotFoundError) and second == b"{"
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["nothing"], 0, 1, on_error="raise")
    with pytest.raises(ValueError, match="as many"):
        fs.cat_ranges(["config.json"], [0, 1], [1])


def test_a_path_may_begin_where_the_model_lies(sealed: Path, source: Path, key: str) -> None:
    fs = fsspec.filesystem("modelseal", key=key, **trust(sealed))
    assert fs.ls(f"{sealed}", detail=False)[0] == f"{sealed}/config.json"
    assert fs.ls(f"modelseal://{sealed}/deep", detail=False) == [f"{sealed}/deep/er", f"{sealed}/deep/ümläut"]
    with fsspec.open(f"modelseal://{sealed}/config.json", key=key, **trust(sealed)) as file:
        assert file.read() == (source / "config.json").read_bytes()
    with pytest.raises(modelseal.FormatError, match="not a sealed model"):
        fs.cat_file(str(source / "config.json"))


def test_a_location_may_be_chained(sealed: Path, source: Path, key: str) -> None:
    options = {"key": key, **trust(sealed)}
    for target in (f"file://{sealed}", f"local://{sealed}"):
        with fsspec.open(f"modelseal://config.json::{target}", modelseal=options) as file:
            assert file.read() == (source / "config.json").read_bytes()
    fs, path = fsspec.core.url_to_fs(f"modelseal::file://{sealed}", modelseal=options)
    assert fs.isdir(path) and fs.exists("deep/er/big.bin")
    with pytest.raises(ValueError, match="memory://"):
        fsspec.open("modelseal://config.json::memory://vault", modelseal=options)
    with pytest.raises(ValueError, match="anon.*s3_endpoint"):
        fsspec.filesystem("modelseal", fo="s3://b/v", target_protocol="s3", target_options={"anon": True}, key=key)


def test_a_chained_location_may_be_on_a_web_server(sealed: Path, source: Path, key: str) -> None:
    pytest.importorskip("aiohttp")
    if not trust(sealed):
        # Names of vaults are listed, which a web server cannot.
        return
    handler = functools.partial(Quiet, directory=str(sealed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {"key": key, "license": str(next((sealed / "licenses").iterdir())), **trust(sealed)}
        url = f"modelseal://config.json::http://127.0.0.1:{server.server_port}"
        with fsspec.open(url, modelseal=options) as file:
            assert file.read() == (source / "config.json").read_bytes()
        server.shutdown()


def test_a_chained_location_may_be_in_a_bucket(
    sealed: Path, source: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked for by fsspec, though nothing is read by it.
    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "s3", fsspec.get_filesystem_class("memory"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    handler = functools.partial(Bucket, directory=str(sealed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        options = {"key": key, "s3_endpoint": endpoint, "s3_region": "here", **trust(sealed)}
        with fsspec.open("modelseal://config.json::s3://bucket/vault", modelseal=options) as file:
            assert file.read() == (source / "config.json").read_bytes()
        fs, path = fsspec.core.url_to_fs("modelseal::s3://bucket/vault", modelseal=options)
        assert fs.model()[0].location == "s3://bucket/vault" and fs.isdir(path)
        assert fs.ls("deep", detail=False) == ["deep/er", "deep/ümläut"]
        content = (source / "deep/er/big.bin").read_bytes()
        assert fs.cat_file("deep/er/big.bin", -70_000, -5) == content[-70_000:-5]
        assert fs.cat_ranges(["deep/er/big.bin"] * 2, [0, 5 << 20], [9, 6 << 20]) == [content[:9], content[5 << 20 : 6 << 20]]
        # A location of its own, with no other file system in between.
        fs = fsspec.filesystem("modelseal", **options)
        assert fs.cat_file("s3://bucket/vault/config.json") == (source / "config.json").read_bytes()
        with pytest.raises(FileNotFoundError):
            fs.cat_file("s3://bucket/vault/nothing")
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server with ranges."""

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        status = 200
        if (wanted := self.headers.get("Range", "")).startswith("bytes="):
            begin, _, end = wanted[6:].partition("-")
            first, last = int(begin), min(last, int(end or last))
            status = 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[first : last + 1])


class Bucket(Quiet):
    """The sealed model as `s3://bucket/vault`, with as much of S3 as reading needs."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if query.get("list-type") == "2":
            self.list(query.get("prefix", ""), query.get("delimiter", ""))
        elif url.path.startswith("/bucket/vault/"):
            self.path = url.path.removeprefix("/bucket/vault")
            super().do_GET()
        else:
            self.send_error(404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def list(self, prefix: str, delimiter: str) -> None:
        root = Path(self.directory)
        keys = {f"vault/{path.relative_to(root)}": path for path in root.rglob("*") if path.is_file()}
        parts = []
        folders = set()
        for key, path in sorted(keys.items()):
            if not key.startswith(prefix):
                continue
            folder, slash, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if slash:
                folders.add(prefix + folder + slash)
                continue
            stat = path.stat()
            time = datetime.datetime.fromtimestamp(int(stat.st_mtime), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            parts.append(
                f"<Contents><Key>{escape(key)}</Key><Size>{stat.st_size}</Size><LastModified>{time}</LastModified>"
                f'<ETag>"{stat.st_mtime_ns}"</ETag></Contents>'
            )
        parts += [f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)]
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(parts)}</ListBucketResult>".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_nothing_is_ever_written(sealed: Path, key: str) -> None:
    fs = fsspec.filesystem("modelseal", location=sealed, key=key, **trust(sealed))
    writes = [
        lambda: fs.open("new", "wb"),
        lambda: fs.mkdir("new"),
        lambda: fs.makedirs("new/er"),
        lambda: fs.rm("config.json"),
        lambda: fs.mv("config.json", "new"),
        lambda: fs.copy("config.json", "new"),
        lambda: fs.pipe("new", b"x"),
        lambda: fs.touch("new"),
    ]
    for write in writes:
        with pytest.raises(OSError, match="read-only"):
            write()


def test_references_travel_and_keys_do_not(sealed: Path, key: str) -> None:
    fs = fsspec.filesystem("modelseal", location=sealed, key=key, **trust(sealed))
    assert pickle.loads(pickle.dumps(fs)).cat_file("config.json") == fs.cat_file("config.json")
    assert KEY.decode() not in fs.to_json()
    fs = fsspec.filesystem("modelseal", location=sealed, key=KEY, **trust(sealed))
    assert fs.cat_file("config.json")
    for way in (pickle.dumps, lambda fs: fs.to_json()):
        with pytest.raises(TypeError, match="goes nowhere"):
            way(fs)
