"""Licenses of Sam packages: who may open one, where, and until when."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Unpack

from modelseal import _modelseal
from modelseal._options import LOG_N, Key, Location, Options, opening, resolved_key, within

__all__ = ["add", "issue", "keygen", "machine", "show", "verify"]


def keygen(path: Location) -> str:
    """Makes an issuer's key in a new file, which only its owner may read. Returns its public key, for `issuer`."""
    return _modelseal.generate_issuer_key(path)


def issue(
    location: Location,
    key: Key | None = None,
    *,
    issuer_key: Location,
    new_key: Key | None = None,
    key_id: str | None = None,
    license_config: Location | Mapping[str, Any] | None = None,
    scrypt_n: int = 16,
    output: Location | None = None,
    replace: bool = False,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """Issues a further license for a package, whose content stays as it is, under `new_key`, or the same key.

    It is written into the package, or to the new file `output`. Returns what it says.
    """
    config = None
    if isinstance(license_config, Mapping):
        config = json.dumps(dict(license_config)).encode()
    elif license_config is not None:
        with open(license_config, "rb") as file:
            config = file.read()
    text, shown = _modelseal.issue_license(
        location,
        resolved_key(key),
        new_key,
        issuer_key,
        key_id,
        config,
        within(LOG_N, "scrypt_n", scrypt_n),
        output is None,
        replace,
        opening(options),
    )
    if output is not None:
        with open(output, "x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    return dict(json.loads(shown))


def add(location: Location, license: Location, *, replace: bool = False) -> dict[str, Any]:
    """Adds the license in a file to the package that it is for. Returns what it says."""
    return dict(json.loads(_modelseal.add_license(location, license, replace)))


def show(location: Location, **options: Unpack[Options]) -> list[dict[str, Any]]:
    """What the license in a file says, or each in a package. Only their signatures are checked."""
    return [dict(json.loads(text)) for text in _modelseal.show_licenses(location, opening(options))]


def verify(location: Location, **options: Unpack[Options]) -> dict[str, Any]:
    """Checks a license, or that of a package, as when it is opened, but without its key. Returns what it says."""
    return dict(json.loads(_modelseal.check_license(location, opening(options))))


def machine() -> str:
    """The identity of this machine, for the list of machines in a license."""
    return _modelseal.machine()
