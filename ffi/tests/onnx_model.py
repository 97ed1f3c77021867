"""Writes a tiny model in ONNX: y = w x, w being 2 x 3 of the numbers 1 to 6. `onnx_model.py FILE`"""

import struct
import sys

FLOAT = 1


def varint(number: int) -> bytes:
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low if number <= 0x7F else low + varint(number >> 7)


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def matrix(name: str, rows: int) -> bytes:
    """What goes in and comes out: rows x 1 numbers."""
    shape = field(1, field(1, rows)) + field(1, field(1, 1))
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, shape)))


weights = field(1, 2) + field(1, 3) + field(2, FLOAT) + field(8, "w") + field(9, struct.pack("<6f", *range(1, 7)))
node = field(1, "w") + field(1, "x") + field(2, "y") + field(4, "MatMul")
graph = field(1, node) + field(2, "tiny") + field(5, weights) + field(11, matrix("x", 3)) + field(12, matrix("y", 2))
model = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))

with open(sys.argv[1], "wb") as file:
    file.write(model)
