"""Licenses of packages, and signed manifests of vaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import KEY

import modelseal

NEW = b"another key: 88-Tq.zz_0"


@pytest.fixture
def package(source: Path, tmp_path: Path) -> tuple[Path, Path, str]:
    """A package, its issuer's key, and the public half of that."""
    issuer = tmp_path / "issuer.pem"
    public = modelseal.license.keygen(issuer)
    assert issuer.stat().st_mode & 0o777 == 0o600
    place = tmp_path / "package"
    modelseal.seal(
        source, place, KEY, format="sam", key_id="LD_Test_0002", issuer_key=issuer, scrypt_n=14, chunk_size=4096,
        license_config={"company": "ACME"},
    )  # fmt: skip
    return place, issuer, public


def test_licenses_are_issued_without_touching_the_content(package: tuple[Path, Path, str], tmp_path: Path) -> None:
    place, issuer, public = package
    said = modelseal.license.issue(
        place, KEY, new_key=NEW, issuer_key=issuer, key_id="LD_Other_0001", scrypt_n=14, issuer=public, min_serial=0
    )
    assert said["license_id"] == "LD_Other_0001" and "wrapped_key" not in said
    shown = {each["license_id"]: each for each in modelseal.license.show(place)}
    assert shown.keys() == {"LD_Test_0002", "LD_Other_0001"}
    assert shown["LD_Test_0002"]["company"] == "ACME"
    trust = {"issuer": public, "min_serial": 0}
    with modelseal.open(place, NEW, license="LD_Other_0001", **trust) as model:
        assert model.license is not None and model.license["license_id"] == "LD_Other_0001"
        assert model.read("config.json")
    with pytest.raises(modelseal.LicenseError, match="several"):
        modelseal.open(place, KEY, **trust)
    # Or apart from the package.
    apart = tmp_path / "apart.json"
    modelseal.license.issue(
        place, KEY, issuer_key=issuer, license="LD_Test_0002", key_id="LD_Apart_0001", output=apart, scrypt_n=14, **trust
    )
    assert modelseal.license.show(apart)[0]["license_id"] == "LD_Apart_0001"
    with modelseal.open(place, KEY, license=apart, **trust) as model:
        assert model.exists("config.json")
    assert modelseal.license.add(place, apart)["license_id"] == "LD_Apart_0001"
    assert len(modelseal.license.show(place)) == 3
    with pytest.raises(OSError, match="exist|there"):
        modelseal.license.add(place, apart)
    modelseal.license.add(place, apart, replace=True)


def test_a_license_for_another_time_or_machine_does_not_open(package: tuple[Path, Path, str]) -> None:
    place, issuer, public = package
    trust = {"issuer": public, "min_serial": 0, "license": "LD_Later_0001"}
    config = {"machines": ["another-machine"]}
    modelseal.license.issue(
        place, KEY, issuer_key=issuer, key_id="LD_Later_0001", scrypt_n=14, license_config=config,
        **trust | {"license": "LD_Test_0002"},
    )  # fmt: skip
    with pytest.raises(modelseal.LicenseError, match="machine"):
        modelseal.open(place, KEY, **trust)
    with pytest.raises(modelseal.LicenseError, match="machine"):
        modelseal.license.verify(place, **trust)
    assert modelseal.license.verify(place, machine="another-machine", **trust)["license_id"] == "LD_Later_0001"
    with modelseal.open(place, KEY, machine="another-machine", **trust) as model:
        assert model.exists("config.json")
    config["expires"] = "2020-01-01T00:00:00Z"
    modelseal.license.issue(
        place, KEY, issuer_key=issuer, key_id="LD_Later_0001", scrypt_n=14, license_config=config, replace=True,
        **trust | {"license": "LD_Test_0002"},
    )  # fmt: skip
    with pytest.raises(modelseal.LicenseError, match="expired at 2020"):
        modelseal.open(place, KEY, machine="another-machine", **trust)


def test_who_issued_is_checked_or_warned_about(package: tuple[Path, Path, str], tmp_path: Path) -> None:
    place, _, public = package
    with pytest.warns(modelseal.ModelsealWarning, match="issuer"):
        modelseal.open(place, KEY).close()
    with pytest.warns(modelseal.ModelsealWarning, match="serial"):
        modelseal.open(place, KEY, issuer=public).close()
    other = modelseal.license.keygen(tmp_path / "other.pem")
    with pytest.raises(modelseal.LicenseError, match="not a trusted issuer"):
        modelseal.open(place, KEY, issuer=other)
    modelseal.open(place, KEY, issuer=[other, public], min_serial=0).close()
    with pytest.raises(modelseal.LicenseError, match="serial"):
        modelseal.open(place, KEY, issuer=public, min_serial=1 << 50)
    with pytest.raises(ValueError, match="issuer"):
        modelseal.open(place, KEY, issuer="nobody")


def test_sealing_without_an_issuer_is_warned_about(source: Path, tmp_path: Path) -> None:
    with pytest.warns(modelseal.ModelsealWarning, match="thrown away"):
        modelseal.seal(source, tmp_path / "package", KEY, format="sam", key_id="LD_Test_0003", scrypt_n=14)
    with pytest.warns(modelseal.ModelsealWarning, match="guess"):
        modelseal.seal(source, tmp_path / "vault", b"1234", scrypt_n=10)
    with pytest.raises(ValueError, match="key-id"):
        modelseal.seal(source, tmp_path / "other", KEY, format="sam")


def test_a_vault_with_a_signed_manifest(source: Path, tmp_path: Path) -> None:
    place, issuer = tmp_path / "vault", tmp_path / "issuer.pem"
    modelseal.seal(source, place, KEY, scrypt_n=10)
    public = modelseal.license.keygen(issuer)
    assert modelseal.sign_manifest(place, issuer, serial=7) > 4
    manifest = tmp_path / "vault.manifest.json"
    assert json.loads(manifest.read_text())["serial"] == 7
    options = {"manifest": manifest, "issuer": public, "min_serial": 7}
    with modelseal.open(place, KEY, **options) as model:
        assert model.exists("config.json")
    assert modelseal.verify(place, **options).files > 4
    with pytest.raises(modelseal.LicenseError, match="serial"):
        modelseal.open(place, KEY, **options | {"min_serial": 8})
    victim = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    victim.chmod(0o600)
    victim.write_bytes(victim.read_bytes()[:-4096])
    with modelseal.open(place, KEY, **options) as model, pytest.raises(modelseal.ModelsealError, match="big"):
        model.read("deep/er/big.bin")


def test_this_machine_has_an_identity() -> None:
    try:
        assert modelseal.license.machine()
    except modelseal.LicenseError as error:
        assert "machine" in str(error)
