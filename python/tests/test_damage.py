"""What is damaged or missing is an error that says where, and nothing of it is seen."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import BIG, KEY, trust

import modelseal


def stored_file(place: Path) -> Path:
    """The largest file of a sealed model."""
    return max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.fixture
def damaged(sealed: Path, tmp_path: Path) -> Path:
    """A model with one flipped bit near the end of its largest file's content."""
    place = tmp_path / "damaged"
    shutil.copytree(sealed, place, symlinks=True)
    victim = stored_file(place)
    victim.chmod(0o600)
    content = bytearray(victim.read_bytes())
    content[BIG - 10_000] ^= 1
    victim.write_bytes(content)
    return place


def test_a_damaged_chunk_is_refused(damaged: Path) -> None:
    with modelseal.open(damaged, KEY, **trust(damaged)) as model:
        with pytest.raises(modelseal.AuthenticationError, match="deep/er/big.bin"):
            model.read("deep/er/big.bin")
        file = model.file("deep/er/big.bin")
        assert file.read(1000)
        into = bytearray(b"\xff" * BIG)
        with pytest.raises(modelseal.AuthenticationError, match="chunk"):
            file.readinto_at(into, 0)
        assert into == bytes(BIG)
        with pytest.raises(modelseal.AuthenticationError):
            file.memfd()
        checked = model.verify()
        assert not checked and [path for path, _ in checked.damaged] == ["deep/er/big.bin"]
        assert model.verify("deep").damaged == checked.damaged
    assert not modelseal.verify(damaged, KEY, **trust(damaged))


def test_a_sound_model_verifies(sealed: Path) -> None:
    checked = modelseal.verify(sealed, KEY, **trust(sealed))
    assert checked and checked.files == 4 and checked.bytes > BIG


def test_a_package_is_checked_without_a_key(sealed: Path, damaged: Path) -> None:
    if not trust(sealed):
        with pytest.raises(modelseal.FormatError, match="manifest"):
            modelseal.verify(sealed)
        return
    assert modelseal.verify(sealed, **trust(sealed)).files == 4
    checked = modelseal.verify(damaged, **trust(damaged))
    assert [path for path, _ in checked.damaged] == ["deep/er/big.bin"]


def test_a_missing_file_is_told(sealed: Path, tmp_path: Path) -> None:
    place = tmp_path / "missing"
    shutil.copytree(sealed, place, symlinks=True)
    stored_file(place).unlink()
    if trust(place):
        with pytest.raises(modelseal.AuthenticationError, match="big.bin is in the manifest"):
            modelseal.open(place, KEY, **trust(place))
    else:
        with modelseal.open(place, KEY) as model, pytest.raises(FileNotFoundError, match="big.bin") as caught:
            model.read("deep/er/big.bin")
        assert caught.value.filename == str(place)


def test_a_missing_shard_is_told(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from modelseal.safetensors import load_file

    source = tmp_path / "source"
    source.mkdir()
    save_file({"a": torch.zeros(3)}, source / "one.safetensors")
    (source / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}'
    )
    modelseal.seal(source, tmp_path / "sealed", KEY, scrypt_n=10)
    with pytest.raises(FileNotFoundError, match="two.safetensors"):
        load_file(tmp_path / "sealed", key=KEY)


def test_what_is_no_model_says_so(tmp_path: Path, sealed: Path) -> None:
    with pytest.raises(modelseal.FormatError, match="not a sealed model"):
        modelseal.open(tmp_path, KEY)
    with pytest.raises(FileNotFoundError) as caught:
        modelseal.open(tmp_path / "nowhere", KEY)
    assert caught.value.filename == str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="ftp"):
        modelseal.open("ftp://host/vault", KEY)
    with modelseal.open(sealed, KEY, **trust(sealed)) as model:
        with pytest.raises(FileNotFoundError, match="nothing"):
            model.file("nothing")
        with pytest.raises(IsADirectoryError):
            model.file("deep")
        with pytest.raises(NotADirectoryError):
            model.ls("config.json")


def test_whoever_raises_in_progress_ends_the_work(source: Path, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Enough

    for number in range(50):
        try:
            modelseal.seal(source, tmp_path / str(number), KEY, scrypt_n=15, progress=stop)
        except Enough:
            break
    else:
        pytest.fail("it was never asked")
    # What is there does not pass for a model.
    assert not (tmp_path / str(number) / "gocryptfs.conf").exists()


INTERRUPTED = """
import sys
import modelseal
place, key = sys.argv[1:]
print("ready", flush=True)
{work}
"""

WORK = {
    "a broker that does not answer": """
modelseal.open(place, "kbs:///default/model/key", kbs_url=key, evidence="sample")
""",
    "a command that does not end": """
modelseal.open(place, "cmd:sleep 600; cat " + key)
""",
    "a load": """
with modelseal.open(place, "file:" + key) as model:
    file = model.file("deep/er/big.bin")
    into = bytearray(file.size)
    while True:
        for _ in range(1000):
            file.readinto_at(into, 0)
""",
}


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_ends_it(work: str, source: Path, tmp_path: Path) -> None:
    place = tmp_path / "vault"
    modelseal.seal(source, place, KEY, scrypt_n=10)
    silent = Silent()
    key = tmp_path / "key"
    key.write_bytes(KEY)
    given = silent.url if "broker" in work else str(key)
    script = INTERRUPTED.format(work=WORK[work])
    command = [sys.executable, "-c", script, str(place), given]
    errors = tmp_path / "errors"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if "broker" in work:
            assert silent.asked.wait(60)
        else:
            # Until it is at work.
            wait_for_threads(process.pid)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
        # What it has started.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "KeyboardInterrupt" in errors.read_text()
    assert status in (-signal.SIGINT, 1, 130)
    silent.close()


def wait_for_threads(pid: int) -> None:
    deadline = time.monotonic() + 60
    while len(os.listdir(f"/proc/{pid}/task")) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Silent:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        import socket

        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        kept = []
        while True:
            try:
                kept.append(self._socket.accept())
            except OSError:
                return
            self.asked.set()

    def close(self) -> None:
        self._socket.close()
