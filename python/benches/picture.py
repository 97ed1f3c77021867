"""The results as a picture: one bar a row, as long as the part of its target that is reached."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

WIDTH, ROW, TOP = 920, 34, 44
# Where bars begin, and how long one is that just reaches its target.
LEFT, UNIT = 430, 130
# Bars are cut off at so many times the target.
LONGEST = 2.2

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #7d8590 }
.small { font-size: 11px }
.value { font-weight: 600 }
.reached { fill: #2da44e }
.missed { fill: #e5534b }
.tick { stroke: #7d8590; stroke-width: 1.5; stroke-dasharray: 4 3 }
"""


class Result(Protocol):
    work: str
    against: str
    value: float
    target: float
    limit: bool
    unit: str

    @property
    def part(self) -> float: ...
    @property
    def is_reached(self) -> bool: ...


def picture(rows: Sequence[Result]) -> str:
    """In greys and colours that can be read on light and on dark pages."""
    bottom = TOP + ROW * len(rows)
    tick = LEFT + UNIT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 14}" viewBox="0 0 {WIDTH} {bottom + 14}" '
        'role="img" aria-label="How much of each target of the Python package is reached">',
        f"<style>{STYLE}</style>",
        f'<text x="{tick}" y="20" text-anchor="middle">target</text>',
        f'<line class="tick" x1="{tick}" y1="28" x2="{tick}" y2="{bottom}"/>',
        *(bar(row, TOP + ROW * number) for number, row in enumerate(rows)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def bar(row: Result, top: int) -> str:
    width = UNIT * min(max(row.part, 0.01), LONGEST)
    right = LEFT + width
    # One that is longer than there is room for ends in a point.
    point = right + (8 if row.part > LONGEST else 0)
    kind = "reached" if row.is_reached else "missed"
    sign = "≤" if row.limit else "≥"
    label = LEFT - 12
    lines = [f'<text x="{label}" y="{top + (11 if row.against else 17)}" text-anchor="end">{escape(row.work)}</text>']
    if row.against:
        lines.append(
            f'<text class="small" x="{label}" y="{top + 24}" text-anchor="end">beside {escape(row.against)}</text>'
        )
    lines.append(
        f'<path class="{kind}" d="M{LEFT} {top + 4}H{right:.1f}L{point:.1f} {top + 13}L{right:.1f} {top + 22}H{LEFT}Z"/>'
    )
    lines.append(
        f'<text x="{max(point, LEFT + UNIT) + 8:.1f}" y="{top + 17}"><tspan class="value">{row.value:.3g} {row.unit}</tspan> '
        f"({sign} {row.target:g} {row.unit})</text>"
    )
    return "\n".join(lines)
