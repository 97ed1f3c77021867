"""Where keys come from, and that they go nowhere."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import KEY, trust

import modelseal


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    return path


def test_a_key_is_a_reference_bytes_or_what_returns_one(
    sealed: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY.decode())
    asked: list[int] = []

    def ask() -> bytes:
        asked.append(1)
        return bytearray(KEY)

    keys = [KEY, bytearray(KEY), memoryview(KEY), f"file:{key_file}", "env:TEST_KEY", ask, lambda: f"file:{key_file}"]
    for key in [*keys, f"cmd:cat {key_file}"]:
        with modelseal.open(sealed, key, **trust(sealed)) as model:
            assert model.exists("config.json")
    assert asked == [1]
    monkeypatch.setenv("MODELSEAL_KEY", f"file:{key_file}")
    with modelseal.open(sealed, **trust(sealed)) as model:
        assert model.exists("config.json")


def test_what_is_no_key_is_refused(sealed: Path) -> None:
    with pytest.raises(ValueError, match="MODELSEAL_KEY"):
        modelseal.open(sealed)
    with pytest.raises(ValueError, match="has no scheme") as caught:
        modelseal.open(sealed, "a secret by mistake")
    assert "mistake" not in str(caught.value)
    with pytest.raises(TypeError, match="neither a reference"):
        modelseal.open(sealed, 7)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError) as missing:
        modelseal.open(sealed, "file:/nowhere/key")
    assert missing.value.filename == "/nowhere/key"
    with pytest.raises(modelseal.AuthenticationError, match="NOT_THERE"):
        modelseal.open(sealed, "env:NOT_THERE")
    with pytest.raises(ZeroDivisionError):
        modelseal.open(sealed, lambda: 1 // 0)  # type: ignore[arg-type, return-value]


def test_a_wrong_key_is_told_from_all_else(sealed: Path) -> None:
    with pytest.raises(modelseal.AuthenticationError, match="wrong") as caught:
        modelseal.open(sealed, b"not the key at all", **trust(sealed))
    assert str(sealed) in str(caught.value)


def test_a_broker_hands_out_the_key(sealed: Path, broker: modelseal.DevKbs) -> None:
    options = trust(sealed) | {"kbs_url": broker.url, "evidence": "sample"}
    with modelseal.open(sealed, "kbs:///default/model/key", **options) as model:
        assert model.exists("config.json")
    assert modelseal.get_resource("kbs:///default/model/key", kbs_url=broker.url, evidence="sample") == KEY + b"\n"
    broker.put("default/model/binary", b"a\nb\0c")
    resource = "kbs:///default/model/binary"
    assert modelseal.get_resource(resource, kbs_url=broker.url, evidence="sample") == b"a\nb\0c"
    broker.delete(resource)
    with pytest.raises(modelseal.AttestationError, match="default/model/binary"):
        modelseal.get_resource(resource, kbs_url=broker.url, evidence="sample")
    with pytest.raises(modelseal.AuthenticationError, match="kbs:"):
        modelseal.get_resource("file:/etc/hostname")


def test_a_denied_attestation_says_what_to_do(sealed: Path) -> None:
    with modelseal.DevKbs(policy="deny-sample") as broker:
        broker.put("default/model/key", KEY)
        with pytest.raises(modelseal.AttestationError, match="polic"):
            modelseal.open(sealed, "kbs:///default/model/key", kbs_url=broker.url, evidence="sample")
        # Nothing falls back to it.
        with pytest.raises(modelseal.AttestationError, match="tdx"):
            modelseal.open(sealed, "kbs:///default/model/key", kbs_url=broker.url)
    with pytest.raises(modelseal.AttestationError, match="cannot be reached"):
        modelseal.open(
            sealed, "kbs:///default/model/key", kbs_url=broker.url, evidence="sample", key_timeout=1
        )


def test_a_broker_with_tls_needs_its_authority(sealed: Path, tmp_path: Path) -> None:
    with modelseal.DevKbs(tls=True) as broker:
        assert broker.url.startswith("https://") and broker.ca_pem is not None
        broker.put("default/model/key", KEY)
        ca = tmp_path / "ca.pem"
        ca.write_text(broker.ca_pem)
        options = trust(sealed) | {"kbs_url": broker.url, "evidence": "sample"}
        with modelseal.open(sealed, "kbs:///default/model/key", kbs_ca=ca, **options) as model:
            assert model.exists("config.json")
        with pytest.raises(modelseal.AttestationError, match="certificate"):
            modelseal.open(sealed, "kbs:///default/model/key", key_timeout=2, **options)


def test_evidence_is_taken_apart() -> None:
    evidence = modelseal.attest(b"\x01\x02", evidence="sample")
    assert evidence["tee"] == "sample"
    with pytest.raises(modelseal.AttestationError, match="no TDX guest|tdx"):
        modelseal.attest()
    with pytest.raises(ValueError, match="64 bytes"):
        modelseal.attest(bytes(65), evidence="sample")


def test_references_are_pickled_and_keys_never(sealed: Path, key_file: Path) -> None:
    with modelseal.open(sealed, f"file:{key_file}", **trust(sealed)) as model:
        pickled = pickle.dumps(model)
        assert KEY not in pickled and f"file:{key_file}".encode() in pickled
        with pickle.loads(pickled) as again:
            assert again.read("config.json") == model.read("config.json")
        file = model.file("config.json")
        file.seek(3)
        with pickle.loads(pickle.dumps(file)) as same:
            assert same.tell() == 3 and same.read() == file.read()
    for key in (KEY, lambda: KEY):
        with modelseal.open(sealed, key, **trust(sealed)) as model:
            for way in (pickle.dumps, copy.deepcopy):
                with pytest.raises(TypeError, match="goes nowhere"):
                    way(model)
            assert KEY.decode() not in repr(vars(model))


def _sizes(model: modelseal.Model) -> list[tuple[str, int]]:
    big = model.file("deep/er/big.bin")
    return [("read", len(big.read())), ("config", len(model.read("config.json")))]


def test_spawned_processes_open_it_anew(sealed: Path, key_file: Path) -> None:
    with modelseal.open(sealed, f"file:{key_file}", **trust(sealed)) as model:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(_sizes, [model, model]) == [_sizes(model)] * 2


def test_forked_processes_share_it(sealed: Path) -> None:
    with modelseal.open(sealed, KEY, **trust(sealed)) as model:
        # The threads that decrypt are there in this process, and not in the other.
        expected = _sizes(model)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.write(writer, repr(_sizes(model)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            assert answer.read().decode() == repr(expected)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_variables_with_keys_are_kept_from_commands(sealed: Path, key_file: Path) -> None:
    script = (
        "import modelseal, sys\n"
        f"options = {trust(sealed)!r}\n"
        f"modelseal.open({str(sealed)!r}, 'env:TEST_KEY', **options).close()\n"
        f"modelseal.open({str(sealed)!r}, 'cmd:test -z \"$TEST_KEY\" && cat {key_file}', **options).close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "TEST_KEY": KEY.decode()}, timeout=120
    )
