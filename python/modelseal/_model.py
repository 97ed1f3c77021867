"""Opening, sealing and checking models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from modelseal import _modelseal
from modelseal._file import SealedFile
from modelseal._modelseal import Entry
from modelseal._options import (
    LOG_N,
    SERIALS,
    Key,
    Location,
    Options,
    SealOptions,
    opening,
    resolved_key,
    sealing,
    within,
)

if TYPE_CHECKING:
    from modelseal.safetensors import Tensors

Progress: TypeAlias = Callable[[int, int], object]
"""Told every now and then how many bytes are done, and of how many; what it raises ends the work."""


class Model:
    """A sealed model, open for reading. `open` makes one.

    Any number of threads may share it, and so may processes that are forked, but for models in object storage. It can be
    pickled where its key is a reference: only its location, its options and the reference are, and the other process fetches
    the key for itself.
    """

    def __init__(self, handle: _modelseal.Model, location: str, reference: str | None, options: Options) -> None:
        self._handle: _modelseal.Model | None = handle
        self._location = location
        self._reference = reference
        self._options = options

    @property
    def location(self) -> str:
        """Where it lies."""
        return self._location

    @property
    def license(self) -> dict[str, Any] | None:
        """What the license says that a Sam package was opened with."""
        text = self._check().license
        return None if text is None else dict(json.loads(text))

    @property
    def decrypted_bytes(self) -> int:
        """Bytes of content that were decrypted up to now, in whole chunks."""
        return self._check().decrypted_bytes

    def ls(self, path: Location = "") -> list[Entry]:
        """What the directory at `path` holds, sorted by name."""
        return self._check().list(path)

    def walk(self, path: Location = "") -> Iterator[Entry]:
        """All below the directory at `path`: directories before what they hold, sorted by name within each."""
        return iter(self._check().walk(path))

    def info(self, path: Location) -> Entry:
        """What is known of the file or directory at `path`."""
        return self._check().entry(path)

    def exists(self, path: Location) -> bool:
        """Whether there is something at `path`."""
        try:
            self._check().entry(path)
        except FileNotFoundError:
            return False
        return True

    def readlink(self, path: Location) -> str:
        """Where the symlink at `path` leads. Links are not followed by anything here."""
        return self._check().read_link(path)

    def file(self, path: Location) -> SealedFile:
        """Opens the file at `path`."""
        return SealedFile(self, os.fspath(path), self._check().file(path))

    def read(self, path: Location) -> bytes:
        """The whole file at `path`."""
        with self.file(path) as file:
            return file.read()

    def tensors(self, path: Location = "") -> Tensors:
        """The tensors of the whole model, or of the file or directory at `path`."""
        from modelseal.safetensors import Tensors

        return Tensors(self, path)

    def verify(self, path: Location = "", *, progress: Progress | None = None) -> Verified:
        """Reads everything below `path`, and tells what is damaged instead of ending at it."""
        return Verified._of(self._check().verify(path, progress))

    def close(self) -> None:
        """Lets go of the keys, as soon as nothing that was made of it is in use any more."""
        self._handle = None

    @property
    def closed(self) -> bool:
        return self._handle is None

    def __enter__(self) -> Model:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<modelseal.Model {self._location!r}{' (closed)' if self.closed else ''}>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        self._check()
        if self._reference is None:
            raise TypeError(
                "this model cannot be pickled: it was opened with a key itself, which goes nowhere; open it by a "
                "reference such as file:PATH or kbs:///REPOSITORY/TYPE/TAG"
            )
        return _reopen, (self._location, self._reference, self._options)

    def _check(self) -> _modelseal.Model:
        if self._handle is None:
            raise ValueError(f"the model {self._location!r} is closed")
        return self._handle


@dataclass(frozen=True)
class Verified:
    """What was checked, and what was found."""

    files: int
    dirs: int
    symlinks: int
    bytes: int
    holes: int
    """Chunks that read as zeros, of which nothing shows whether they always did."""
    damaged: list[tuple[str, str]]
    """Paths, each with what is wrong there."""

    def __bool__(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    @classmethod
    def _of(cls, checked: tuple[list[tuple[str, int]], list[tuple[str, str]]]) -> Verified:
        counts, damaged = checked
        return cls(**dict(counts), damaged=damaged)


def open(location: Location, key: Key | None = None, **options: Unpack[Options]) -> Model:
    """Unlocks the sealed model in a directory or in object storage (`s3://BUCKET/PREFIX`, `https://HOST/PATH`).

    The key is a reference, bytes, or a function that returns either; that of MODELSEAL_KEY where it is not given.
    """
    key = resolved_key(key)
    handle = _modelseal.open(location, key, opening(options))
    reference = key if isinstance(key, str) else None
    place = os.fspath(location)
    if "://" not in place:
        place = os.path.abspath(place)
    return Model(handle, place, reference, options)


def _reopen(location: str, reference: str, options: Options) -> Model:
    return open(location, reference, **options)


def opened(location: Location | Model, key: Key | None, options: Options) -> tuple[Model, str, bool]:
    """The model at `location`, or what that lies in, the path within it, and whether it was opened here."""
    if isinstance(location, Model):
        return location, "", False
    place, inner = _modelseal.locate(location, opening(options))
    return open(place, key, **options), inner, True


def inspect(location: Location, **options: Unpack[Options]) -> dict[str, Any]:
    """What is known of a model without its key."""
    return dict(json.loads(_modelseal.inspect(location, opening(options))))


def seal(
    source: Location,
    destination: Location,
    key: Key | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[SealOptions],
) -> dict[str, int]:
    """Seals the directory `source` into `destination`: a directory that is empty or not there yet. Both may be in object
    storage. `modelseal.ray.seal` does the same on many machines.

    Returns counts: files, dirs, symlinks, bytes, kept, followed, strays.
    """
    how, config = _how(options)
    return dict(_modelseal.seal(source, destination, resolved_key(key), how, config, progress))


def reseal(
    model: Model,
    destination: Location,
    new_key: Key,
    *,
    progress: Progress | None = None,
    **options: Unpack[SealOptions],
) -> dict[str, int]:
    """Seals what a model holds anew, under a new content key and `new_key`. No plaintext touches a disk."""
    if not isinstance(model, Model):
        raise TypeError(f"an open model is sealed anew, as modelseal.open returns it, and not a {type(model).__name__}")
    how, config = _how(options)
    return dict(_modelseal.reseal(model._check(), destination, new_key, how, config, progress))


def _how(options: SealOptions) -> tuple[list[tuple[str, str]], bytes | None]:
    given: dict[str, Any] = dict(options)
    config = None
    if isinstance(given.get("license_config"), Mapping):
        config = json.dumps(dict(given.pop("license_config"))).encode()
    return sealing(given), config


def unseal(
    location: Location | Model,
    destination: Location,
    key: Key | None = None,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> dict[str, int]:
    """Unseals a whole model into `destination`, a directory that is empty or not there yet. Returns counts."""
    if isinstance(location, Model):
        return dict(_modelseal.unseal(location._check(), destination, resume, progress))
    with open(location, key, **options) as model:
        return dict(_modelseal.unseal(model._check(), destination, resume, progress))


def verify(
    location: Location | Model,
    key: Key | None = None,
    *,
    path: Location = "",
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> Verified:
    """Checks every byte of a model. A package, and a vault with a signed manifest, can be checked without a key."""
    if isinstance(location, Model):
        return location.verify(path, progress=progress)
    if key is None and "MODELSEAL_KEY" not in os.environ:
        return Verified._of(_modelseal.verify_without_key(location, path, opening(options), progress))
    with open(location, key, **options) as model:
        return model.verify(path, progress=progress)


def change_password(
    location: Location,
    key: Key | None,
    new_key: Key,
    *,
    scrypt_n: int | None = None,
    **options: Unpack[Options],
) -> None:
    """Puts a vault under a new key. Its content stays as it is, and opens with the old key and the old conf."""
    if scrypt_n is not None:
        within(LOG_N, "scrypt_n", scrypt_n)
    _modelseal.change_password(location, resolved_key(key), new_key, scrypt_n, opening(options))


def sign_manifest(
    location: Location,
    issuer_key: Location,
    *,
    manifest: Location | None = None,
    serial: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Signs what a vault holds, in a file beside it unless `manifest` says where. Returns the number of entries."""
    if serial is None:
        import time

        serial = int(time.time())
    within(SERIALS, "serial", serial)
    return _modelseal.sign_manifest(location, manifest, issuer_key, serial, progress)
