"""Evidence of this machine, and what key brokers have."""

from __future__ import annotations

import json
from typing import Any, Unpack

from modelseal import _modelseal
from modelseal._options import Sources, opening


def attest(report_data: bytes = bytes(64), **options: Unpack[Sources]) -> dict[str, Any]:
    """The evidence that this machine has for a key broker, bound to `report_data`, and taken apart: `tee`, `evidence`, and
    of a TDX guest `quote` and `event_log`."""
    return dict(json.loads(_modelseal.evidence(report_data, opening(options))))


def get_resource(reference: str, **options: Unpack[Sources]) -> bytes:
    """What a key broker (`kbs:///R/TYPE/TAG`) or the guest's own service (`cdh:///R/TYPE/TAG`) has under a reference."""
    return _modelseal.get_resource(reference, opening(options))
