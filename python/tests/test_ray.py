"""Sealing across a cluster: the same as on one machine, whatever becomes of the workers."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, KEY, trust
from s3_server import BUCKET, Server

import modelseal

ray = pytest.importorskip("ray")

import modelseal.ray as cluster  # noqa: E402

BIG = 3 << 20
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
FILES = {
    "big.bin": random.Random(2).randbytes(BIG),
    "config.json": b"{}",
    "deep/er/middle": random.Random(3).randbytes(500_001),
    "deep/small": b"x" * 4097,
    "empty": b"",
}


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    """A cluster of two workers on this machine."""
    os.environ.update(VARIABLES)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    for name in VARIABLES:
        del os.environ[name]


@pytest.fixture
def server() -> Iterator[Server]:
    """Object storage with a model in it."""
    server = Server()
    for path, content in FILES.items():
        server.put(f"plain/{path}", content)
    yield server
    server.close()


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY)
    return f"file:{tmp_path / 'key'}"


def how(format: str, tmp_path: Path) -> dict[str, Any]:
    """The options of a format, as cheap as it allows."""
    if format == "gocryptfs":
        return {"scrypt_n": 10}
    issuer = tmp_path / "issuer.pem"
    if not issuer.exists():
        modelseal.license.keygen(issuer)
    return {"format": "sam", "key_id": "LD_Test_0001", "issuer_key": issuer, "scrypt_n": 14}


def check(location: Path | str, files: dict[str, bytes], **options: Any) -> None:
    """A sealed model holds just this."""
    with modelseal.open(location, KEY, **options) as model:
        assert model.verify()
        found = {entry.path: model.read(entry.path) for entry in model.walk() if entry.kind == "file"}
    assert found == files


def peer(port: int) -> int:
    """The worker that has a connection from `port`."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].split(":")[1], 16) == port:
            wanted = Path(f"socket:[{fields[9]}]")
            for place in Path("/proc").glob("[0-9]*"):
                if wanted in opened(int(place.name)):
                    return int(place.name)
    raise LookupError(port)


def opened(process: int) -> list[Path]:
    """What a process has open."""
    found = []
    try:
        for link in Path(f"/proc/{process}/fd").iterdir():
            found.append(link.readlink())
    except OSError:
        # Another user's, or it has ended.
        pass
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_a_cluster_makes_what_one_process_makes(
    format: str, source: Path, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = how(format, tmp_path)
    told: list[tuple[int, int]] = []
    # Workers have another directory than this process may have.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").symlink_to(source)
    done = cluster.seal("there", "sealed", "file:key", progress=lambda *far: told.append(far), **options)
    alone = modelseal.seal(source, tmp_path / "alone", key, **options)
    assert done == alone and done["kept"] == 0
    size = done["bytes"]
    assert told[-1] == (size, size)
    files = {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    link = files.pop("link")
    check(tmp_path / "sealed", files, **trust(tmp_path / "sealed"))
    with modelseal.open(tmp_path / "sealed", KEY, **trust(tmp_path / "sealed")) as model:
        assert model.readlink("link") == "config.json" and link == files["config.json"]
    with pytest.raises(FileExistsError, match="complete already"):
        cluster.seal(source, tmp_path / "sealed", key, resume=True, **options)


@pytest.mark.parametrize("format", FORMATS)
def test_a_worker_that_is_killed_in_the_middle_of_a_file_is_replaced(
    format: str, server: Server, key: str, tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed"
    killed: list[int] = []
    left: list[bytes] = []
    lock = threading.Lock()

    def meets(method: str, path: str, port: int) -> int | None:
        with lock:
            if killed or method != "GET" or path != "plain/big.bin":
                return None
            killed.append(peer(port))
        # It has half of the file, and what it has sealed of it is in a file that has no name yet.
        left.extend(path.read_bytes()[:64] for path in opened(killed[0]) if "pending" in path.name)
        os.kill(killed[0], signal.SIGKILL)
        return 0

    server.meets = meets
    options = how(format, tmp_path)
    done = cluster.seal(f"s3://{BUCKET}/plain", sealed, key, s3_endpoint=server.endpoint, **options)
    assert len(killed) == 1 and done["files"] == len(FILES)
    assert len(left) == 1, "it was killed before it had begun"
    check(sealed, FILES, **trust(sealed))
    files = [each for each in sealed.rglob("*") if each.is_file()]
    assert not [each for each in files if "pending" in each.name or "partial" in each.name]
    # What was sealed again has another file ID.
    at = slice(2, 18) if format == "gocryptfs" else slice(32, 64)
    assert any(left[0][at]) and left[0][at] not in {each.read_bytes()[at] for each in files}


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_run_is_gone_on_with(format: str, server: Server, key: str, tmp_path: Path) -> None:
    prefix = f"s3://{BUCKET}"
    options = {**how(format, tmp_path), "s3_endpoint": server.endpoint}

    def own(name: str) -> bool:
        return name.startswith("gocryptfs.") or name == "partial.json"

    def meets(method: str, path: str, _port: int) -> int | None:
        if method != "GET" or path != "plain/deep/small":
            return None
        # The others are sealed by then.
        with server.changed:
            there = lambda: [each for each in server.objects if each.startswith("sealed/") and not own(Path(each).name)]  # noqa: E731
            assert server.changed.wait_for(lambda: len(there()) >= len(FILES) - 1, 25)
        return 403

    server.meets = meets
    with pytest.raises(PermissionError, match="plain/deep/small"):
        cluster.seal(f"{prefix}/plain", f"{prefix}/sealed", key, **options)
    with pytest.raises(modelseal.FormatError, match="incomplete"):
        modelseal.open(f"{prefix}/sealed", key, s3_endpoint=server.endpoint)
    before = server.below("sealed/")
    server.meets = lambda _method, _path, _port: None
    with pytest.raises(OSError, match="--resume"):
        cluster.seal(f"{prefix}/plain", f"{prefix}/sealed", key, **options)
    done = cluster.seal(f"{prefix}/plain", f"{prefix}/sealed", key, resume=True, **options)
    assert done["kept"] == len(FILES) - 1
    after = server.below("sealed/")
    assert all(after[name] == before[name] for name in before if not own(Path(name).name))
    check(f"{prefix}/sealed", FILES, s3_endpoint=server.endpoint, **_trusted(after))


def _trusted(objects: dict[str, bytes]) -> dict[str, Any]:
    license = objects.get("licenses/LD_Test_0001.json")
    return {"issuer": json.loads(license)["issuer_key"], "min_serial": 0} if license else {}


def test_what_is_called_off_ends(server: Server, key: str, tmp_path: Path) -> None:
    reached, called_off = threading.Event(), threading.Event()

    def meets(method: str, path: str, _port: int) -> int | None:
        if method != "GET" or path != "plain/big.bin" or called_off.is_set():
            return None
        # A file that takes its time.
        reached.set()
        called_off.wait(25)
        return 0

    def interrupt(_done: int, _total: int) -> None:
        assert reached.wait(25)
        called_off.set()
        raise KeyboardInterrupt

    server.meets = meets
    options = {"s3_endpoint": server.endpoint, "scrypt_n": 10}
    with pytest.raises(KeyboardInterrupt):
        cluster.seal(f"s3://{BUCKET}/plain", tmp_path / "sealed", key, progress=interrupt, **options)
    # Nobody writes there any more.
    assert not [path for path in (tmp_path / "sealed").iterdir() if "pending" in path.name]
    cluster.seal(f"s3://{BUCKET}/plain", tmp_path / "sealed", key, resume=True, **options)
    check(tmp_path / "sealed", FILES)


def test_what_a_worker_raises_is_raised(source: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(KEY)
    # The right key at first, for whoever begins.
    script = f"mkdir {tmp_path}/first 2>/dev/null && cat {tmp_path}/key || echo another-key-entirely"
    with pytest.raises(modelseal.AuthenticationError, match="password") as caught:
        cluster.seal(source, tmp_path / "sealed", f"cmd:{script}", scrypt_n=10)
    assert type(caught.value) is modelseal.AuthenticationError
    for kind in (modelseal.ModelsealError, modelseal.FormatError, modelseal.LicenseError, modelseal.AttestationError):
        error = pickle.loads(pickle.dumps(kind("what")))
        assert type(error) is kind and str(error) == "what"


def test_keys_themselves_go_nowhere(source: Path, tmp_path: Path) -> None:
    for given in (KEY, bytearray(KEY), lambda: KEY):
        with pytest.raises(TypeError, match="by reference"):
            cluster.seal(source, tmp_path / "sealed", given)  # type: ignore[arg-type]
    for prompt in ("prompt:", "hex:prompt:"):
        with pytest.raises(ValueError, match="terminals"):
            cluster.seal(source, tmp_path / "sealed", prompt)
    with pytest.raises(TypeError, match="progress"):
        cluster.seal(source, tmp_path / "sealed", "file:key", progress=True)  # type: ignore[arg-type]
    assert not (tmp_path / "sealed").exists()


def test_ray_is_asked_for_where_it_is_missing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **more: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return original(name, *args, **more)

    monkeypatch.delitem(sys.modules, "ray")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"modelseal\[ray\]"):
        cluster.seal(source, tmp_path / "sealed", "file:key")
