"""Memory locked for a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from modelseal._modelseal import Memory


def pin(parts: Sequence[Memory]) -> None:
    """Locks the memory that these are parts of until the last of them is gone, so that a GPU copies from it by itself."""
    import torch

    if not parts:
        return
    if not torch.cuda.is_available():
        raise RuntimeError("memory can be pinned only where torch has a GPU (torch.cuda.is_available())")
    runtime = torch.cuda.cudart()
    _, address, length = parts[0].address
    if length == 0:
        return
    torch.cuda.check_error(int(runtime.cudaHostRegister(address, length, 0)))
    parts[0].on_release(lambda: runtime.cudaHostUnregister(address))
