"""Sealed models as file systems of fsspec, read-only.

    fs = fsspec.filesystem("modelseal", location="/models/vault", key="file:password")
    fs.cat_file("config.json")
    pandas.read_parquet("modelseal:///models/vault/table.parquet", storage_options={"key": "file:password"})
    fsspec.open("modelseal://config.json::s3://bucket/vault", key="kbs:///models/llm/key")

Where a location is given or chained, paths are those in the model; else they begin with where the model lies. A chained
location is read by modelseal itself, not by the file system that its scheme names: s3, http, https and file.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import RLock
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from fsspec import AbstractFileSystem
from fsspec.utils import stringify_path

from modelseal import _modelseal
from modelseal._file import SealedFile
from modelseal._model import Model, open as open_model
from modelseal._options import Key, opening

__all__ = ["SealedFileSystem"]

_CHAINED = ("s3", "http", "https")
# Files that are read at once: each large one is decrypted on all cores by itself.
_READERS = 8


class SealedFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """The files of sealed models. Takes the options of `modelseal.open`."""

    protocol = "modelseal"
    root_marker = ""

    def __init__(
        self,
        location: str | os.PathLike[str] | Model | None = None,
        key: Key | None = None,
        *,
        fo: str | None = None,
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        **storage_options: Any,
    ) -> None:
        named = {name: storage_options.pop(name) for name in list(storage_options) if name not in _OF_FSSPEC}
        super().__init__(**storage_options)
        self._options = {**(options or {}), **named}
        self._key = key
        self._lock = RLock()
        self._models: dict[str, Model] = {}
        opening(self._options)
        if fo and location is None:
            location = _chained(fo, target_protocol)
        if target_options:
            raise ValueError(
                f"the options {', '.join(target_options)} are for a file system that is not used: modelseal reads "
                f"{target_protocol or 'the location'} itself; give s3_endpoint, s3_region or storage_ca, and credentials in "
                "the environment or the profile, as for the AWS command"
            )
        if isinstance(location, Model):
            self._location: str | None = location.location
            self._models[location.location] = location
        else:
            self._location = None if location is None else os.fspath(location)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = stringify_path(path)
        text = text.removeprefix("modelseal://")
        return text.rstrip("/") if text.strip("/") else ""

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        return {}

    def model(self, path: str = "") -> tuple[Model, str]:
        """The model that `path` is in, and the path there."""
        path = self._strip_protocol(path)
        with self._lock:
            if self._location is not None:
                if self._location not in self._models:
                    self._models[self._location] = open_model(self._location, self._key, **self._options)
                return self._models[self._location], path.strip("/")
            for place, model in self._models.items():
                if path == place or path.startswith(f"{place}/"):
                    return model, path[len(place) :].strip("/")
            place, inner = _modelseal.locate(path, opening(self._options))
            model = open_model(place, self._key, **self._options)
            self._models[place] = model
            return model, inner

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        model, inner = self.model(path)
        if not inner:
            return {"name": self._strip_protocol(path), "size": 0, "type": "directory"}
        with _named(path):
            return self._described(model.info(inner), path, inner)

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        model, inner = self.model(path)
        with _named(path):
            if inner and model.info(inner).kind != "directory":
                found = [self.info(path)]
            else:
                found = [self._described(entry, path, inner) for entry in model.ls(inner)]
        return found if detail else [each["name"] for each in found]

    def modified(self, path: str) -> Any:
        import datetime

        return datetime.datetime.fromtimestamp(self.info(path)["mtime"], tz=datetime.UTC)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        model, inner = self.model(path)
        with _named(path), model.file(inner) as file:
            first, last, _ = slice(start, end).indices(file.size)
            file.seek(first)
            return file.read(max(0, last - first))

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | Sequence[int],
        ends: int | Sequence[int],
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        first = [starts] * len(paths) if isinstance(starts, int) or starts is None else starts
        last = [ends] * len(paths) if isinstance(ends, int) or ends is None else ends
        if not len(paths) == len(first) == len(last):
            raise ValueError("there are not as many starts and ends as paths")
        with ThreadPoolExecutor(min(_READERS, max(1, len(paths)))) as pool:
            jobs = [pool.submit(self.cat_file, *job) for job in zip(paths, first, last, strict=True)]
            results: list[Any] = []
            for job in jobs:
                error = job.exception()
                if error is None:
                    results.append(job.result())
                elif on_error == "return" and isinstance(error, Exception):
                    results.append(error)
                else:
                    raise error
        return results

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> io.BufferedReader:
        if mode != "rb":
            self._refuse(path)
        model, inner = self.model(path)
        with _named(path):
            file = model.file(inner)
        return _Reader(file, block_size or io.DEFAULT_BUFFER_SIZE)

    def _described(self, entry: _modelseal.Entry, path: str, inner: str) -> dict[str, Any]:
        base = self._strip_protocol(path)
        base = base[: len(base) - len(inner)].rstrip("/") if inner else base
        return {
            "name": f"{base}/{entry.path}" if base else entry.path,
            "size": entry.size,
            "type": "other" if entry.kind == "symlink" else entry.kind,
            "islink": entry.kind == "symlink",
            "mode": entry.mode,
            "mtime": entry.modified,
        }

    def __reduce__(self) -> Any:
        self._expect_reference()
        return super().__reduce__()

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        self._expect_reference()
        made: dict[str, Any] = super().to_dict(include_password=include_password)
        return made

    def _expect_reference(self) -> None:
        if self._key is not None and not isinstance(self._key, str):
            raise TypeError("it has a key itself, which goes nowhere; name the key by a reference such as file:PATH")

    def _refuse(self, path: Any, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, "a sealed model is read-only; seal a directory with modelseal.seal", str(path))

    # What else would write, or be silent about that it does not.
    mkdir = makedirs = rmdir = rm_file = _rm = rm = cp_file = mv = touch = pipe_file = put_file = _refuse


_OF_FSSPEC = frozenset(
    {
        "asynchronous",
        "auto_mkdir",
        "batch_size",
        "dircache",
        "listings_expiry_time",
        "loop",
        "max_paths",
        "skip_instance_cache",
        "use_listings_cache",
    }
)


class _Reader(io.BufferedReader):
    """A file with what fsspec's have besides."""

    raw: SealedFile

    @property
    def size(self) -> int:
        return self.raw.size

    @property
    def path(self) -> str:
        return self.raw.name


class _named:
    """Errors of the system are about this path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, OSError):
            error.filename = self._path


def _chained(target: str, protocol: str | None) -> str:
    """The location that a chained URL is for."""
    scheme = urlsplit(target).scheme if "://" in target else protocol or "file"
    if scheme in ("file", "local"):
        return unquote(urlsplit(target).path) if "://" in target else target
    if scheme in _CHAINED:
        return target if "://" in target else f"{scheme}://{target}"
    raise ValueError(
        f"a sealed model cannot be read by {scheme}://; it can from a directory, {', '.join(f'{name}://' for name in _CHAINED)}"
    )
