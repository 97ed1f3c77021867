"""The command that the wheel carries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import KEY, trust

import modelseal

COMMAND = Path(sys.executable).with_name("modelseal")


def run(*args: object, check: int = 0, **more: object) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)  # type: ignore[call-overload]
    assert done.returncode == check, done.stderr
    return done  # type: ignore[no-any-return]


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY)
    return f"file:{tmp_path / 'key'}"


@pytest.fixture(autouse=True)
def installed() -> None:
    if not COMMAND.exists():
        pytest.skip("the package is not installed, only on the path")


def test_it_is_the_command(sealed: Path, source: Path, key: str) -> None:
    assert run("--version").stdout == f"modelseal {modelseal.__version__}\n"
    listed = run("ls", "--quiet", "--key", key, sealed).stdout.split()
    assert "deep/er/big.bin" in listed
    assert run("cat", "--quiet", "--key", key, sealed, "config.json").stdout == (source / "config.json").read_text()
    as_module = [sys.executable, "-m", "modelseal", "info", str(sealed)]
    assert subprocess.run(as_module, capture_output=True, text=True, check=True).stdout == run("info", sealed).stdout
    assert "Usage: modelseal ls" in run("ls", "--help").stdout
    assert "complete -F" in run("completions", "bash").stdout


def test_it_ends_as_the_command_does(sealed: Path, key: str, tmp_path: Path) -> None:
    assert "MODEL" in run("ls", check=2).stderr
    (tmp_path / "wrong").write_text("not the key at all")
    assert "wrong" in run("ls", "--key", f"file:{tmp_path / 'wrong'}", sealed, check=3).stderr
    assert "not a sealed model" in run("ls", "--key", key, tmp_path, check=4).stderr
    # Nobody reads what it prints.
    command = [str(COMMAND), "cat", "--quiet", "--key", key, str(sealed), "deep/er/big.bin"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True)
    assert "Traceback" not in done.stderr and done.returncode == 5, done.stderr


def test_ctrl_c_kills_it_while_it_waits(sealed: Path, key: str) -> None:
    command = [str(COMMAND), "ls", "--key", "cmd:echo started >&2; sleep 600", str(sealed)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stderr.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT


def may_mount() -> bool:
    return os.path.exists("/dev/fuse") and shutil.which("fusermount3") is not None and os.geteuid() == 0


@pytest.mark.skipif(not may_mount(), reason="needs root, fusermount3 and /dev/fuse")
def test_a_mount_goes_to_the_background(sealed: Path, source: Path, key: str, tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    run("mount", "--background", "--quiet", "--key", key, sealed, place)
    try:
        assert (place / "deep/er/big.bin").read_bytes() == (source / "deep/er/big.bin").read_bytes()
    finally:
        subprocess.run(["fusermount3", "-u", str(place)], check=True)
    deadline = time.monotonic() + 60
    while os.path.ismount(place):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(not may_mount(), reason="needs root, fusermount3 and /dev/fuse")
def test_a_command_is_run_with_a_model(sealed: Path, source: Path, key: str) -> None:
    script = (
        'cat {}/config.json; trap "exit 3" TERM; grep -E "^Sig(Blk|Ign)" /proc/self/status; '
        'test -z "$TEST_KEY" || exit 9; exit 7'
    )
    environment = {**os.environ, "TEST_KEY": KEY.decode()}
    done = run("run", "--quiet", "--key", "env:TEST_KEY", sealed, "--", "sh", "-c", script, check=7, env=environment)
    content, blocked, ignored = done.stdout.rsplit("Sig", 2)
    assert content == (source / "config.json").read_text()
    # As it would be without the command: Python itself ignores some.
    usual = subprocess.run(["sh", "-c", 'grep -E "^Sig(Blk|Ign)" /proc/self/status'], capture_output=True, text=True, check=True)
    assert f"Sig{blocked}Sig{ignored}" == usual.stdout
