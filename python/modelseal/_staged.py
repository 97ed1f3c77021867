"""Tensors into the memory of a GPU, through a few buffers that it reads while the next one is being decrypted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from modelseal import _modelseal

Place = tuple[str, str, list[int], int, int, int]

# Bytes of a buffer, and how many there are.
PIECE = 64 << 20
BUFFERS = 3


def load(
    handle: _modelseal.Tensors,
    shards: Iterable[tuple[int, list[Place]]],
    make: Callable[[str, list[int]], Any],
    *,
    pinned: bool,
    chunk_len: int,
    advance: Callable[[int], None],
    piece: int = PIECE,
) -> dict[str, Any]:
    """Fills tensors that `make` makes of a dtype and a shape, wherever they lie. `advance` is told how many bytes are on their
    way. With `pinned` the buffers are locked, and copies from them go on in the background until the end."""
    import torch

    staging = [torch.empty(piece, dtype=torch.uint8, pin_memory=pinned) for _ in range(BUFFERS)]
    free: list[Any] = [None] * BUFFERS
    tensors: dict[str, Any] = {}
    turn = 0
    for shard, places in shards:
        waiting = []
        for name, dtype, shape, _, start, end in places:
            tensors[name] = tensor = make(dtype, shape)
            if end > start:
                waiting.append((start, end, tensor.view(-1).view(torch.uint8)))
        offset, last = (waiting[0][0], waiting[-1][1]) if waiting else (0, 0)
        while offset < last:
            # A piece ends where a chunk does, so that none is decrypted twice; unless it is within one.
            end = (offset + piece) // chunk_len * chunk_len
            end = min(last, end if end > offset else offset + piece)
            if free[turn] is not None:
                free[turn].synchronize()
            into = staging[turn][: end - offset]
            handle.read_into(shard, offset, into.numpy())
            for start, stop, target in waiting:
                first, behind = max(start, offset), min(stop, end)
                if first < behind:
                    source = into[first - offset : behind - offset]
                    target[first - start : behind - start].copy_(source, non_blocking=pinned)
            while waiting and waiting[0][1] <= end:
                waiting.pop(0)
            if pinned:
                # The GPU of the tensors need not be the current one.
                free[turn] = torch.cuda.current_stream(target.device).record_event()
            advance(end - offset)
            offset, turn = end, (turn + 1) % BUFFERS
    for event in free:
        if event is not None:
            event.synchronize()
    return tensors
