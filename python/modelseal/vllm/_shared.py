"""One decryption for all processes of a node that load the same model at the same time.

The first of them decrypts, and hands memory that nobody can change any more to the others: over an abstract socket, on which
either side takes no one of another user or container. All go through the model side by side, so that no more than a few pieces
of it are in memory at once; nothing is left when they are through.

No process depends on another: whoever is late, or alone all of a sudden, decrypts the rest for itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from modelseal._frameworks import maker
from modelseal.safetensors import Tensors, _Bar
from modelseal.vllm._memory import filled_memory, sealed_memory

if TYPE_CHECKING:
    from modelseal.vllm._loader import Opening

# Others have no handler in the processes of vLLM.
logger = logging.getLogger("vllm.modelseal")

PIECE = 256 << 20
"""Bytes that are handed over together, unless one tensor has more."""

WINDOW = 2
"""Pieces that are in memory at once."""

JOIN = 30.0
"""Seconds that the others are waited for at first."""

SILENCE = 900.0
"""Seconds without a word after which a process is given up."""

_TABLE = 2**64 - 1
_THERE, _GONE = b"\1", b"\0"
_DESCRIPTOR = struct.Struct("i")

Named: TypeAlias = tuple[str, Any]
Described: TypeAlias = tuple[str, str, list[int], int, int]
"""A tensor in a piece: its name, dtype, shape, and where it begins and ends."""


@dataclass
class Piece:
    """Tensors that lie one behind the other in a shard."""

    shard: int
    start: int
    end: int
    tensors: list[Described]


def pieces(tensors: Tensors) -> list[Piece]:
    """All tensors of a model, in pieces."""
    made: list[Piece] = []
    for name, dtype, shape, shard, start, end in tensors._places.values():
        last = made[-1] if made else None
        if last is None or last.shard != shard or end - last.start > PIECE:
            last = Piece(shard, start, start, [])
            made.append(last)
        last.tensors.append((name, dtype, shape, start - last.start, end - last.start))
        last.end = max(last.end, end)
    return made


def shared(name: str, count: int, sealed: Opening, progress: bool) -> Iterator[Named]:
    """All tensors of a model, in each of `count` processes that call this by the same name."""
    address = "\0modelseal-" + hashlib.sha256(f"{os.geteuid()} {name}".encode()).hexdigest()
    for _ in range(100):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
        else:
            listener.listen(count)
            return _decrypted(listener, count - 1, sealed, progress)
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(SILENCE)
        try:
            peer.connect(address)
        except OSError:
            # It ended, or has not begun to listen.
            peer.close()
            time.sleep(0.1)
            continue
        if _is_ours(peer):
            return _received(peer, sealed, progress)
        peer.close()
        logger.warning(
            "another user or container has taken the name by which these processes meet; each decrypts for itself"
        )
        break
    return sealed.tensors().items(progress=progress)


def _is_ours(peer: socket.socket) -> bool:
    """Whether it is a process of this user, and of this container: abstract names are those of a network, which containers
    of one pod share, with the same user in each."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    process, user, _ = struct.unpack("3i", credentials)
    if user != os.geteuid():
        return False
    try:
        # As with the links, it must be a process that this one may look into.
        return os.readlink(f"/proc/{process}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def _decrypted(listener: socket.socket, others: int, sealed: Opening, progress: bool) -> Iterator[Named]:
    """The tensors in the process that decrypts."""
    with listener:
        tensors = sealed.tensors()
        table = pieces(tensors)
        server = Server(listener, others, tensors, table)
        try:
            with _Bar(sum(piece.end - piece.start for piece in table), progress) as bar:
                for number, piece in enumerate(table):
                    memory = server.take(server, number)
                    if memory is None:
                        raise server.error or RuntimeError("the memory of a piece is gone")
                    yield from _tensors(memory, piece.tensors)
                    bar.advance(piece.end - piece.start)
            server.finish()
        finally:
            server.close()


def _received(peer: socket.socket, sealed: Opening, progress: bool) -> Iterator[Named]:
    """The tensors in the other processes."""
    with peer:
        memory = _ask(peer, _TABLE)
        if memory is None:
            peer.close()
            yield from sealed.tensors().items(progress=progress)
            return
        # All have the same position in it.
        table: list[list[Described]] = json.loads(os.pread(memory, os.fstat(memory).st_size, 0))
        os.close(memory)
        total = sum(piece[-1][4] for piece in table)
        with _Bar(total, progress) as bar:
            for number, piece in enumerate(table):
                memory = None if memory is None else _ask(peer, number)
                if memory is not None:
                    yield from _tensors(memory, piece)
                else:
                    # Nobody is to wait for this process any more.
                    peer.close()
                    tensors = sealed.tensors()
                    for name, *_ in piece:
                        yield name, tensors.load(name)
                bar.advance(piece[-1][4])


def _ask(peer: socket.socket, number: int) -> int | None:
    """Memory of the process that decrypts, or None where that has it no more, or is no more."""
    try:
        peer.send(number.to_bytes(8, "little"))
        # No program that this process starts may inherit it, and recv_fds forgets its flags.
        answer, attached, _, _ = peer.recvmsg(1, socket.CMSG_LEN(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    return int(_DESCRIPTOR.unpack(attached[0][2])[0]) if answer == _THERE and attached else None


def _tensors(memory: int, described: list[Described]) -> Iterator[Named]:
    """The tensors in memory that was handed over, whose descriptor is closed. Each may be written to: it has pages of its own
    from then on."""
    make: Any = maker("pt").make
    try:
        size = os.fstat(memory).st_size
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        view = memoryview(mmap.mmap(memory, size, mmap.MAP_PRIVATE, protection) if size else b"")
    finally:
        os.close(memory)
    for name, dtype, shape, start, end in described:
        yield name, make(view[start:end], dtype, shape)


class Server:
    """Decrypts pieces for this process and `others`."""

    def __init__(self, listener: socket.socket, others: int, tensors: Tensors, table: list[Piece]) -> None:
        self.error: BaseException | None = None
        self._tensors = tensors
        self._pieces = table
        self._table = sealed_memory(json.dumps([piece.tensors for piece in table]).encode())
        self._listener = listener
        self._missing = others
        self._until = time.monotonic() + JOIN
        self._changed = threading.Condition()
        # The piece that each is at; whoever is missing is at the first one.
        self._places: dict[object, int] = {self: 0}
        self._ready: dict[int, int] = {}
        self._first = 0
        self._closed = False
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._produce, self._accept)]
        for thread in self._threads:
            thread.start()

    def take(self, who: object, number: int) -> int | None:
        """A descriptor of a piece, when there is one; None where there will be none."""
        with self._changed:
            self._places[who] = number
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: number in self._ready or number < self._first or self._closed or self.error is not None
            )
            # What is there may go when it is asked for the next one.
            memory = self._ready.get(number)
            return None if memory is None else os.dup(memory)

    def finish(self) -> None:
        """Waits until the others are through as well."""
        with self._changed:
            self._places.pop(self)
            self._changed.notify_all()
            while (self._places or self._missing) and self._wait():
                pass

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # Wakes the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        with self._changed:
            for memory in (*self._ready.values(), self._table):
                os.close(memory)
            self._ready.clear()
            self._table = -1

    def _wait(self) -> bool:
        """Waits for a change; False where there was none for too long."""
        left = self._until - time.monotonic()
        if self._missing and left <= 0:
            self._missing = 0
            return True
        return self._changed.wait(left if self._missing else SILENCE) or bool(self._missing)

    def _produce(self) -> None:
        try:
            for number, piece in enumerate(self._pieces):
                with self._changed:
                    while not self._closed and number >= self._let_go() + WINDOW:
                        self._wait()
                    if self._closed:
                        return
                memory = self._decrypt(piece)
                with self._changed:
                    self._ready[number] = memory
                    self._changed.notify_all()
            with self._changed:
                while not self._closed and self._ready:
                    self._let_go()
                    self._wait()
        except BaseException as error:
            with self._changed:
                self.error = error
                self._changed.notify_all()

    def _let_go(self) -> int:
        """Closes what nobody needs any more. Returns the first piece that somebody does."""
        needed = 0 if self._missing else min(self._places.values(), default=len(self._pieces))
        self._first = max(self._first, needed)
        for number in [number for number in self._ready if number < self._first]:
            os.close(self._ready.pop(number))
        return self._first

    def _decrypt(self, piece: Piece) -> int:
        handle = self._tensors._handle
        return filled_memory(
            piece.end - piece.start, lambda memory: handle.read_into(piece.shard, piece.start, memory)
        )

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            if not _is_ours(peer):
                peer.close()
                continue
            peer.settimeout(SILENCE)
            with self._changed:
                if self._closed:
                    peer.close()
                    return
                self._places[peer] = 0
                self._missing = max(0, self._missing - 1)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            while request := peer.recv(8):
                number = int.from_bytes(request, "little")
                memory = self._dup_table() if number == _TABLE else self.take(peer, number)
                if memory is None:
                    # It decrypts for itself from here on, and holds up nobody.
                    peer.send(_GONE)
                    break
                try:
                    socket.send_fds(peer, [_THERE], [memory])
                finally:
                    os.close(memory)
        except OSError:
            pass
        finally:
            peer.close()
            with self._changed:
                self._places.pop(peer, None)
                self._changed.notify_all()

    def _dup_table(self) -> int | None:
        with self._changed:
            return None if self._closed else os.dup(self._table)
