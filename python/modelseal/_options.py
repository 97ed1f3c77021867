"""Options by the names that the command's have, with `_` for `-`.

Where one is not given, its variable of the environment counts, as for the command: MODELSEAL_KBS_URL for kbs_url, and so on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

# Anything with the buffer protocol. A name for it is in the standard library from Python 3.12 on.
Bytes: TypeAlias = bytes | bytearray | memoryview
Key: TypeAlias = str | Bytes | Callable[[], str | Bytes]
Location: TypeAlias = str | os.PathLike[str]


class Sources(TypedDict, total=False):
    """Where the keys of brokers come from."""

    kbs_url: str
    """The key broker of `kbs:` references: http(s)://HOST[:PORT][/PREFIX]."""
    kbs_ca: Location
    """PEM file of the CA that signed the broker's certificate, besides those that the system trusts."""
    evidence: Literal["tdx", "sample"]
    """What the broker is shown; `sample` proves nothing and is for brokers under test."""
    cdh_url: str
    """Where the guest's own services listen, for `cdh:` references."""
    key_timeout: int
    """Seconds that a key may take to be had."""
    kbs_protocol: str
    """The version of the KBS protocol to speak, and no other."""
    tee_key: Literal["p256", "p521", "rsa-oaep-256"]
    """The kind of key that the broker seals to."""
    event_log: Literal["leave-out", "warn", "fail"]
    """What becomes of an event log that does not fit the quote."""
    init_data: Location
    """The TOML file that this guest was launched with."""
    instance_info: Location
    """JSON file of what the attestation agent knows of this instance."""


class Common(Sources, total=False):
    """What sealing and opening have in common."""

    s3_endpoint: str
    """Where an S3-compatible service is."""
    s3_region: str
    """The region of s3:// locations."""
    s3_virtual_hosted: bool
    """Whether the bucket is part of the host's name."""
    storage_ca: Location
    """PEM file of the CA that signed the certificate of the object storage."""
    part_size: int
    """What one request to object storage is for, in MiB."""
    connections: int
    """Requests to object storage that are under way at once."""
    threads: int
    """Number of threads; 0 for one a core."""
    read_mode: Literal["auto", "copy"]
    """How stored bytes are read."""
    scrypt_memory: int
    """Memory that a model's scrypt parameters may ask for, in MiB."""


class Options(Common, total=False):
    """How a model is opened."""

    license: Location
    """The license that a Sam package is opened with: the ID of one in it, or a file."""
    issuer: str | Iterable[str]
    """Only take what this issuer signed: its public key, or a file with it; or several."""
    min_serial: int
    """Only take a license, or a vault's manifest, of at least this serial."""
    manifest: Location
    """The signed manifest that a vault must agree with."""
    machine: str
    """The identity of this machine, instead of the one that its machine ID gives."""


class SealOptions(Common, total=False):
    """How a directory is sealed."""

    format: Literal["gocryptfs", "sam"]
    key_id: str
    """Sam: the name of the key, of the first license and of the package."""
    license_config: Location | Mapping[str, Any]
    """Sam: what the license shall be like, or a JSON file that says so."""
    issuer_key: Location
    """Sam: the issuer's private key, which signs the license."""
    chunk_size: int
    """Sam: bytes a chunk."""
    xchacha: bool
    aessiv: bool
    plaintext_names: bool
    deterministic_names: bool
    longnamemax: int
    scrypt_n: int
    """Base-2 logarithm of scrypt's cost."""
    symlinks: Literal["keep", "follow", "refuse"]
    """What becomes of links that lead out of the directory."""
    resume: bool
    """Go on with what an interrupted run left."""


_OPEN = Options.__required_keys__ | Options.__optional_keys__
_SEAL = SealOptions.__required_keys__ | SealOptions.__optional_keys__
# Those that take no value on a command line.
_SWITCHES = frozenset({"xchacha", "aessiv", "plaintext_names", "deterministic_names", "resume"})


def opening(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options of opening as the command has them."""
    return _flags(options, _OPEN)


def sealing(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The options of sealing as the command has them."""
    return _flags(options, _SEAL)


def _flags(options: Mapping[str, Any], known: frozenset[str]) -> list[tuple[str, str]]:
    flags = []
    for name, value in options.items():
        if name not in known:
            raise TypeError(f"there is no option {name!r}; there are: {', '.join(sorted(known))}")
        if value is None:
            continue
        flag = name.replace("_", "-")
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise TypeError(f"the option {name} is True or False, and not {value!r}")
            if value:
                flags.append((flag, ""))
            continue
        several = [value]
        if name == "issuer" and not isinstance(value, str | os.PathLike | bytes) and isinstance(value, Iterable):
            several = list(value)
            if not several:
                # Else whatever is signed by anybody would do.
                raise ValueError("the option issuer names nobody")
        flags += [(flag, _text(name, each)) for each in several]
    return flags


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"the option {name} takes no {type(value).__name__}")
    if not text:
        raise ValueError(f"the option {name} has no value")
    return text


LOG_N = (10, 28)
"""From where to where the base-2 logarithm of scrypt's cost goes."""

SERIALS = (0, 2**63 - 1)


def within(bounds: tuple[int, int], name: str, value: int) -> int:
    """A number that is neither too small nor too large."""
    first, last = bounds
    if not first <= value <= last:
        raise ValueError(f"{name} is {value}, and none of {first} to {last}")
    return value


def resolved_key(key: Key | None) -> Key:
    """The key that was given, or the reference that the environment has."""
    if key is not None:
        return key
    reference = os.environ.get("MODELSEAL_KEY")
    if not reference:
        raise ValueError("there is no key: give key=, or a reference in MODELSEAL_KEY")
    return reference
