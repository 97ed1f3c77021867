"""Which bytes of a tensor an index needs."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any


class Slice:
    """What is to be read of a tensor for an index, and what that makes of the index.

    Bytes `begin` to `end` hold a tensor of `shape`, of which `rest` is asked for. Where `parts` is not None, of what begins
    there only parts of a length are read, at a distance of each other, so many of them; they make the tensor.
    """

    def __init__(self, shape: Sequence[int], nbytes: int, index: Any, chunk_len: int) -> None:
        self.begin, self.end = 0, nbytes
        self.shape = list(shape)
        self.parts: tuple[int, int, int] | None = None
        given = _expanded(index, len(shape))
        self.rest: Any = tuple(given)
        row = nbytes // shape[0] if shape and shape[0] else 0
        if not given or row == 0 or row * shape[0] != nbytes:
            return
        rows = _narrowed(given[0], shape[0])
        if rows is None:
            return
        first, last, given[0] = rows
        self.begin, self.end = first * row, last * row
        self.shape[0] = last - first
        self.rest = tuple(given)
        self._narrow_columns(given, row, chunk_len)

    def _narrow_columns(self, given: list[Any], row: int, chunk_len: int) -> None:
        """Leaves out what lies between the parts of rows, where that is worth it."""
        if len(given) < 2 or not self.shape[0]:
            return
        count = self.shape[1]
        columns = _narrowed(given[1], count)
        size = row // count if count else 0
        # Elements of less than a byte are read with their neighbours.
        if columns is None or size * count != row or size == 0:
            return
        first, last, narrowed = columns
        if row - (last - first) * size < 2 * chunk_len:
            return
        given[1] = narrowed
        self.rest = tuple(given)
        self.parts = ((last - first) * size, row, self.shape[0])
        self.begin += first * size
        self.shape[1] = last - first


def _expanded(index: Any, rank: int) -> list[Any]:
    """The index of each dimension, as far as it tells."""
    given = list(index) if isinstance(index, tuple) else [index]
    if any(each is None for each in given):
        raise IndexError("new dimensions are not supported in an index here; add them to what it returns")
    dots = [place for place, each in enumerate(given) if each is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can have only one ellipsis")
    if dots:
        missing = rank - (len(given) - 1)
        given[dots[0] : dots[0] + 1] = [slice(None)] * missing
    if len(given) > rank:
        raise IndexError(f"there are {len(given)} indices for {rank} dimensions")
    return given


def _narrowed(index: Any, length: int) -> tuple[int, int, Any] | None:
    """From where to where an index reaches, and what it is within that; None where that cannot be told."""
    if isinstance(index, slice):
        start, stop, step = index.indices(length)
        picked = range(start, stop, step)
        if step < 1:
            raise IndexError("slices with a step below 1 are not supported")
        if not picked:
            return 0, 0, slice(0, 0)
        return picked[0], picked[-1] + 1, slice(None, None, step)
    if isinstance(index, bool):
        return None
    try:
        number = operator.index(index)
    except TypeError:
        return None
    if not -length <= number < length:
        raise IndexError(f"the index {number} is out of range for {length}")
    number %= length
    return number, number + 1, 0
