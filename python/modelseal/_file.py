"""Files of sealed models, as Python's own."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from modelseal import _modelseal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from modelseal._model import Model


class SealedFile(io.RawIOBase):
    """A file of a sealed model, open for reading: its plaintext, of which every byte was verified.

    `readinto_at` may be called from any number of threads at once. The position that `read`, `readinto` and `seek` share is
    the file's own, so whoever uses those from several threads needs a lock.

    It can be pickled where its model can: the other process opens it anew.
    """

    def __init__(self, model: Model, path: str, handle: _modelseal.File) -> None:
        super().__init__()
        self._model = model
        self._path = path
        self._handle = handle
        self._position = 0

    @property
    def name(self) -> str:
        """Its path in the model."""
        return self._path

    @property
    def mode(self) -> str:
        return "rb"

    @property
    def size(self) -> int:
        """Length of the plaintext in bytes."""
        return self._handle.size

    def __len__(self) -> int:
        return self._handle.size

    def __bool__(self) -> bool:
        return True

    def readable(self) -> bool:
        self._check()
        return True

    def seekable(self) -> bool:
        self._check()
        return True

    def tell(self) -> int:
        self._check()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check()
        if whence == os.SEEK_SET:
            base = 0
        elif whence == os.SEEK_CUR:
            base = self._position
        elif whence == os.SEEK_END:
            base = self.size
        else:
            raise ValueError(f"whence is {whence!r}, and none of 0, 1 and 2")
        self._position = _position(base + operator.index(offset))
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills `buffer` from the position on, as far as the file goes. Returns how many bytes that is."""
        read = self.readinto_at(buffer, self._position)
        self._position += read
        return read

    def readinto_at(self, buffer: WriteableBuffer, offset: int) -> int:
        """Fills `buffer` from the byte `offset` on, on all cores. Returns how many bytes there were."""
        self._check()
        return self._handle.read_into(buffer, _position(operator.index(offset)))

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes from the position on; all that are left where it is negative or None."""
        self._check()
        rest = max(0, self.size - self._position)
        wanted = -1 if size is None else operator.index(size)
        read = self._handle.read(self._position, rest if wanted < 0 else min(wanted, rest))
        self._position += len(read)
        return read

    def readall(self) -> bytes:
        return self.read()

    def write(self, data: ReadableBuffer, /) -> NoReturn:
        raise io.UnsupportedOperation("a sealed file is read-only")

    def memfd(self) -> io.FileIO:
        """The whole plaintext in memory that nobody can change any more, as a file of the system.

        Any program of this user can open `/proc/PID/fd/N` with its `fileno()` for as long as it is open.
        """
        self._check()
        return io.FileIO(self._handle.memfd(), "r")

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        self._model._check()

    def __repr__(self) -> str:
        return f"<modelseal.SealedFile {self._path!r} of {self._model.location!r}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        self._check()
        return _reopen, (self._model, self._path, self._position)

    def __getstate__(self) -> object:
        return None


def _position(position: int) -> int:
    # As far as a file of the system goes.
    if not 0 <= position < 1 << 63:
        raise ValueError(f"there is no position {position}")
    return position


def _reopen(model: Model, path: str, position: int) -> SealedFile:
    file = model.file(path)
    file.seek(position)
    return file
