"""Files of sealed models under paths of this process, for programs that only open paths."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from modelseal._model import Model

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot")
"""How files of weights end."""


def is_small(path: PurePosixPath) -> bool:
    """Whether it is one of the files that stand beside the weights."""
    return path.suffix not in WEIGHTS and not path.name.endswith(".index.json")


@contextmanager
def linked(
    model: Model, path: str = "", wanted: Callable[[PurePosixPath], bool] = is_small
) -> Iterator[Path]:
    """A directory with those files below `path` in the model that are wanted, for as long as the context lasts.

    It holds links alone, to memory that nobody can change any more; no plaintext is in any file system. Only this process can
    follow them.
    """
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelseal-")))
        link(model, path, place, stack, wanted)
        yield place


def link(
    model: Model,
    path: str,
    place: Path,
    stack: ExitStack,
    wanted: Callable[[PurePosixPath], bool] = is_small,
    process: int | str = "self",
) -> None:
    """Fills the directory `place` with links to the memory of `process`, which is this one under the name that whoever is to
    follow them knows it by. `stack` keeps the memory."""
    for entry in model.walk(path):
        inner = PurePosixPath(entry.path).relative_to(path or ".")
        if entry.kind == "directory":
            (place / inner).mkdir()
        elif entry.kind == "file" and wanted(inner):
            memory = stack.enter_context(model.file(entry.path).memfd())
            os.symlink(f"/proc/{process}/fd/{memory.fileno()}", place / inner)
