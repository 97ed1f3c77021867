"""What stands beside a model's weights, under paths that the processes of one engine can open."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

from modelseal._links import is_small, link
from modelseal._model import Model
from modelseal.vllm._memory import sealed_memory
from modelseal.vllm._options import opened

NOTE = ".modelseal.json"
"""Says where the model lies."""

_MAX_HEADER = 100_000_000
_STAGE = "serve it with `modelseal run --key REF LOCATION -- vllm serve {{}}` instead: {}"


class Beside:
    """A directory of links to memory of this process, for as long as the process lives.

    Its path depends on nothing but the model and what stands beside its weights, as vLLM keeps what it compiled by that path;
    only a second engine with the same model has another.
    """

    def __init__(self, location: str, model: Model, digest: str) -> None:
        self._stack = ExitStack()
        self._pid = os.getpid()
        self.place, self._lock = _room(digest)
        try:
            link(model, "", self.place, self._stack, is_small, self._pid)
            for entry in model.walk():
                if entry.kind == "file" and entry.path.endswith(".safetensors"):
                    self._link_header(model, entry.path)
            (self.place / NOTE).write_text(json.dumps({"location": location}))
        except BaseException:
            self.close()
            raise
        atexit.register(self.close)

    def close(self) -> None:
        # A forked process has all of this, too.
        if os.getpid() == self._pid:
            self._stack.close()
            shutil.rmtree(self.place, ignore_errors=True)
            os.close(self._lock)
            self._pid = -1

    def _link_header(self, model: Model, path: str) -> None:
        """vLLM looks at which tensors there are. Whoever looks for their values there is told that the file is too short."""
        with model.file(path) as file:
            length = file.read(8)
            size = int.from_bytes(length, "little")
            header = length + file.read(min(size, _MAX_HEADER))
        memory = sealed_memory(header)
        self._stack.callback(os.close, memory)
        os.symlink(f"/proc/{self._pid}/fd/{memory}", self.place / path)


_made: dict[str, Beside] = {}


def beside(location: str, options: Mapping[str, Any], remote_code: bool = False) -> Path:
    """The directory for the model at `location`, or that directory itself where it is one already."""
    if noted(location) is not None:
        return Path(location)
    if "://" not in location:
        location = os.path.abspath(location)
    with opened(location, options) as model:
        _refuse_unfit(model, remote_code)
        digest = _digest(location, model)
        if digest not in _made or not _made[digest].place.is_dir():
            _made[digest] = Beside(location, model, digest)
    return _made[digest].place


def noted(place: str) -> str | None:
    """The location of the model that `place` is the directory of; None where it is none."""
    try:
        return str(json.loads((Path(place) / NOTE).read_text())["location"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _refuse_unfit(model: Model, remote_code: bool) -> None:
    files = [PurePosixPath(entry.path) for entry in model.walk() if entry.kind == "file"]
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(_STAGE.format(f"there are no *.safetensors in {model.location}"))
    if remote_code and any(path.suffix == ".py" for path in files):
        what = "it brings code along (*.py), which --trust-remote-code would have copied to Hugging Face's cache on disk"
        raise ValueError(_STAGE.format(what))
    modules = json.loads(model.read("modules.json")) if PurePosixPath("modules.json") in files else []
    if isinstance(modules, list) and any(str(module.get("type", "")).endswith(".Dense") for module in modules):
        raise ValueError(_STAGE.format("it has dense layers behind its pooling (modules.json), which vLLM reads from files"))


def _digest(location: str, model: Model) -> str:
    digest = hashlib.sha256(hashlib.sha256(os.fsencode(location)).digest())
    for entry in model.walk():
        digest.update(hashlib.sha256(os.fsencode(entry.path)).digest())
        if entry.kind == "file" and is_small(PurePosixPath(entry.path)):
            digest.update(hashlib.sha256(model.read(entry.path)).digest())
    return digest.hexdigest()[:24]


def _room(digest: str) -> tuple[Path, int]:
    """A new directory that is this process's for as long as it has the descriptor, and nobody else's."""
    parent = Path(tempfile.gettempdir()) / f"modelseal-vllm-{os.geteuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    status = parent.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{parent} is not a directory of this user alone; remove it, or set TMPDIR")
    _sweep(parent)
    for number in range(10_000):
        lock = os.open(parent / f"{digest}.{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        place = parent / f"{digest}.{number}"
        # Left by a process that was killed: links that lead nowhere.
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        return place, lock
    raise OSError(f"there is no room left in {parent}")


def _sweep(parent: Path) -> None:
    """Removes the links of processes that were killed."""
    for path in parent.glob("*.lock"):
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
