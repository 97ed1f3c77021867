"""Memory that several processes can have, and nobody change."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable


def sealed_memory(content: bytes) -> int:
    """A descriptor of memory with this content."""

    def fill(memory: mmap.mmap) -> None:
        memory[:] = content

    return filled_memory(len(content), fill)


def filled_memory(size: int, fill: Callable[[mmap.mmap], None]) -> int:
    """A descriptor of memory of this size that `fill` has filled."""
    memory = os.memfd_create("modelseal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, size)
        if size:
            with mmap.mmap(memory, size) as mapping:
                fill(mapping)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(memory)
        raise
    return memory
