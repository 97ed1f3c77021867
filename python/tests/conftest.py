"""Models to test with, sealed in both formats."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import modelseal

KEY = b"4gSn-kW7 mRz.Qe19_xTvB"
BIG = (9 << 20) + 1
FORMATS = ("gocryptfs", "sam")


@pytest.fixture(autouse=True, scope="session")
def clean_environment() -> None:
    for name in list(os.environ):
        if name.startswith(("MODELSEAL_", "TRUSTEE_", "AWS_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with files of all lengths."""
    folder = tmp_path_factory.mktemp("source") / "model"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (folder / "empty").touch()
    (folder / "deep/er/big.bin").write_bytes(random.Random(1).randbytes(BIG))
    (folder / "deep/ümläut").write_bytes(b"x" * 4097)
    (folder / "link").symlink_to("config.json")
    return folder


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and all that is started from there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


Sealer = Callable[[Path, str], Path]


@pytest.fixture(scope="session")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    """Seals a directory."""

    def seal(source: Path, format: str) -> Path:
        place = tmp_path_factory.mktemp(format) / "sealed"
        if format == "sam":
            issuer = place.with_name("issuer.pem")
            modelseal.license.keygen(issuer)
            modelseal.seal(source, place, KEY, format="sam", key_id="LD_Test_0001", issuer_key=issuer, scrypt_n=14)
        else:
            modelseal.seal(source, place, KEY, scrypt_n=10)
        return place

    return seal


@pytest.fixture(scope="session", params=FORMATS)
def sealed(request: pytest.FixtureRequest, source: Path, sealer: Sealer) -> Path:
    """That directory, sealed."""
    return sealer(source, request.param)


def trust(place: Path) -> dict[str, object]:
    """The options by which a model is opened without warnings."""
    license = place / "licenses/LD_Test_0001.json"
    if not license.exists():
        return {}
    return {"issuer": json.loads(license.read_text())["issuer_key"], "min_serial": 0}


@pytest.fixture
def model(sealed: Path) -> Iterator[modelseal.Model]:
    with modelseal.open(sealed, KEY, **trust(sealed)) as model:
        yield model


@pytest.fixture
def broker() -> Iterator[modelseal.DevKbs]:
    """A broker with the key."""
    with modelseal.DevKbs() as broker:
        broker.put("default/model/key", KEY + b"\n")
        yield broker
