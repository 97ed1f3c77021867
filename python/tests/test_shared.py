"""Processes that load one model at the same time decrypt it once."""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY, Sealer, trust

import modelseal
from modelseal.safetensors import Tensors
from modelseal.vllm import _shared

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

SPAWN = multiprocessing.get_context("spawn")
NAME = "the processes of a test"


class Sealed:
    """A model that is opened when it is needed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.opened: modelseal.Model | None = None

    def tensors(self) -> Tensors:
        self.opened = self.opened or modelseal.open(self.place, KEY, **trust(self.place))
        return Tensors(self.opened)

    @property
    def decrypted(self) -> int:
        return 0 if self.opened is None else self.opened.decrypted_bytes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sealer: Sealer) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "plain"
    folder.mkdir()
    for shard in range(3):
        tensors = {f"{shard}.{number}": torch.randn(65_536 + number) for number in range(8)}
        tensors[f"{shard}.odd"] = torch.arange(7, dtype=torch.uint8)
        tensors[f"{shard}.empty"] = torch.empty(0, 3)
        save_file(tensors, folder / f"model-{shard}.safetensors")
    return sealer(folder, "gocryptfs")


def digests(tensors: Any) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in tensors}


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, str]:
    return digests(Sealed(place).tensors().items())


def small(piece: int = 300_000, join: float = 30.0) -> None:
    """Makes this process hand over a tensor or two at a time."""
    _shared.PIECE, _shared.JOIN = piece, join


def load(place: Path, count: int, answer: Connection, join: float, last: int | None) -> None:
    """Loads as one of so many; up to a number of tensors, and then ends at once."""
    small(join=join)
    sealed = Sealed(place)
    found = {}
    for number, (name, tensor) in enumerate(_shared.shared(NAME, count, sealed, False)):  # type: ignore[arg-type]
        if number == last:
            answer.send("ended")
            os._exit(1)
        found |= digests([(name, tensor)])
        if tensor.numel():
            # It is this process's own.
            tensor.zero_()
    answer.send((found, sealed.decrypted))


Loader = Callable[..., list[Any]]


@pytest.fixture
def load_in_processes(place: Path) -> Loader:
    def loaded(count: int, present: list[int | None], join: float = 30.0) -> list[Any]:
        pipes = [SPAWN.Pipe(duplex=False) for _ in present]
        processes = [
            SPAWN.Process(target=load, args=(place, count, answer, join, last))
            for (_, answer), last in zip(pipes, present, strict=True)
        ]
        for process in processes:
            process.start()
        for _, answer in pipes:
            answer.close()
        answers = [reader.recv() for reader, _ in pipes]
        for process in processes:
            process.join(60)
        return answers

    return loaded


def test_three_processes_decrypt_once(load_in_processes: Loader, expected: dict[str, str]) -> None:
    answers = load_in_processes(3, [None] * 3)
    assert [found for found, _ in answers] == [expected] * 3
    first, second, busy = sorted(decrypted for _, decrypted in answers)
    # Chunks of 4 KiB that two pieces have a part of are decrypted twice.
    assert (first, second) == (0, 0) and busy < 3 * 8 * 65_543 * 4 * 1.05


def test_who_ends_too_early_keeps_nobody_from_it(load_in_processes: Loader, expected: dict[str, str]) -> None:
    ended, (one, _), (other, _) = load_in_processes(3, [9, None, None])
    assert ended == "ended" and one == other == expected


def test_who_never_comes_is_not_waited_for(load_in_processes: Loader, expected: dict[str, str]) -> None:
    [(found, decrypted)] = load_in_processes(2, [None], join=1.0)
    assert found == expected and decrypted > 0


def test_who_comes_too_late_decrypts_for_himself(
    place: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shared, "PIECE", 300_000)
    monkeypatch.setattr(_shared, "JOIN", 0.0)
    one, other = Sealed(place), Sealed(place)
    tensors = _shared.shared("late", 2, one, False)  # type: ignore[arg-type]
    begun = digests(next(tensors) for _ in range(20))
    found: dict[str, str] = {}
    late = threading.Thread(target=lambda: found.update(digests(_shared.shared("late", 2, other, False))))  # type: ignore[arg-type]
    late.start()
    late.join(60)
    assert found == expected and other.decrypted > 0
    assert begun | digests(tensors) == expected


def test_who_comes_too_late_holds_up_nobody(
    place: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shared, "PIECE", 300_000)
    monkeypatch.setattr(_shared, "JOIN", 0.0)
    tensors = _shared.shared("slow", 2, Sealed(place), False)  # type: ignore[arg-type]
    found = digests(next(tensors) for _ in range(20))
    late = _shared.shared("slow", 2, Sealed(place), False)  # type: ignore[arg-type]
    next(late)
    # It goes on no more, and the other one does.
    assert found | digests(tensors) == expected
    late.close()  # type: ignore[attr-defined]


def test_no_program_inherits_what_is_handed_over() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, open(os.devnull) as file:
        socket.send_fds(theirs, [b"\1"], [file.fileno()])
        memory = _shared._ask(ours, 0)
    assert memory is not None and not os.get_inheritable(memory)
    os.close(memory)


def test_what_is_damaged_is_an_error_everywhere(place: Path, tmp_path: Path) -> None:
    model = modelseal.open(place, KEY)
    copy = tmp_path / "damaged"
    modelseal.reseal(model, copy, KEY, scrypt_n=10, plaintext_names=True)
    stored = copy / "model-1.safetensors"
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    errors: list[BaseException] = []

    def load() -> None:
        try:
            digests(_shared.shared("damaged", 2, Sealed(copy), False))  # type: ignore[arg-type]
        except modelseal.AuthenticationError as error:
            errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(errors) == 2 and all("model-1.safetensors" in str(error) for error in errors)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
@pytest.mark.parametrize("first", ["ours", "theirs"])
@pytest.mark.parametrize("other", ["user", "container"])
def test_others_get_nothing_and_give_nothing(
    first: str, other: str, place: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shared, "SILENCE", 10.0)
    name = f"{other}s {first}"
    address = "\0modelseal-" + hashlib.sha256(f"{os.geteuid()} {name}".encode()).hexdigest()
    sealed = Sealed(place)
    go, ready = os.pipe(), os.pipe()
    stranger = os.fork()
    if stranger == 0:
        status = 2
        try:
            os.close(go[1])
            status = NOT_ALLOWED if not become(other) else meet(address, first, go[0], ready[1])
        finally:
            os._exit(status)
    # Whichever process ends, the other one reads to the end.
    os.close(ready[1])
    if first == "theirs" and os.read(ready[0], 1) != b"x":
        status = os.waitstatus_to_exitcode(os.waitpid(stranger, 0)[1])
        assert status == NOT_ALLOWED
        pytest.skip("namespaces cannot be made here")
    tensors = _shared.shared(name, 2, sealed, False)  # type: ignore[arg-type]
    found = digests([next(tensors)])
    if first == "theirs":
        found |= digests(tensors)
        assert found == expected
    os.write(go[1], b"x")
    status = os.waitstatus_to_exitcode(os.waitpid(stranger, 0)[1])
    tensors.close()  # type: ignore[attr-defined]
    for end in (go[0], go[1], ready[0]):
        os.close(end)
    if status == NOT_ALLOWED:
        pytest.skip("namespaces cannot be made here")
    assert status == 0


NOT_ALLOWED = 77
CLONE_NEWPID = 0x20000000


def become(other: str) -> bool:
    """Makes this process one of another user, or this user's in another container."""
    if other == "user":
        os.setgid(65534)
        os.setuid(65534)
        return True
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWPID):
        return False
    # Only children are in it.
    inner = os.fork()
    if inner:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
    return True


def meet(address: str, first: str, go: int, ready: int) -> int:
    """Takes part in a handover, first or last. Returns whether something was got, as a program does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        if first == "theirs":
            peer.bind(address)
            peer.listen(1)
            os.write(ready, b"x")
            os.read(go, 1)
            return 0
        os.read(go, 1)
        peer.connect(address)
        return 0 if _shared._ask(peer, _shared._TABLE) is None else 1
