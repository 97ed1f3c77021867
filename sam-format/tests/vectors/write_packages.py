"""Writes the packages in this directory, and prints the example of FORMAT.md: an implementation of the format that has
nothing in common with the crate. Everything random is fixed. Needs the `cryptography` package."""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

HERE = pathlib.Path(__file__).parent
KEY = b"0Bn4Q1wwY9fN3P"
CONTENT_KEY = bytes(range(0x00, 0x20))
CONTENT_ID = bytes(range(0x40, 0x50))
SALT = bytes(range(0x60, 0x80))
NONCE = bytes(range(0x80, 0x8C))
ISSUER = Ed25519PrivateKey.from_private_bytes(bytes(range(0xA0, 0xC0)))
MODIFIED = [1700000000, 123456789]


def hkdf(ikm, salt, info):
    return HKDF(hashes.SHA256(), 32, salt, info).derive(ikm)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def b64(data):
    return base64.b64encode(data).decode()


def canonical(value):
    """RFC 8785, as far as all names are ASCII and all numbers are integers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def named(member, data):
    try:
        return {member: data.decode()}
    except UnicodeDecodeError:
        return {member + "_base64": b64(data)}


def seal(plain, file_id, chunk_length, reserved=b""):
    """The stored file, its digest, and what is secret or intermediate in it."""
    header = struct.pack("<8sIIQII32s", b"SAM-FILE", 1, 0, len(plain), chunk_length, 0, file_id)
    header = (header + reserved).ljust(4096, b"\0")
    key = hkdf(CONTENT_KEY, file_id, b"sam/1 file key" + sha256(header))
    count = max(1, -(-len(plain) // chunk_length))
    body, tags, nonces = b"", b"", []
    for i in range(count):
        nonces.append(struct.pack(">B3xQ", i == count - 1, i))
        chunk = plain[i * chunk_length : (i + 1) * chunk_length]
        sealed = AESGCM(key).encrypt(nonces[-1], chunk, None)
        body, tags = body + sealed[:-16], tags + sealed[-16:]
    segments = [part[i : i + (1 << 20)] for part in (body, tags) for i in range(0, len(part), 1 << 20)]
    digest = sha256(b"sam/1 file digest", sha256(header), *map(sha256, segments))
    return header, body, tags, digest, key, nonces


def issue(members, manifest):
    secret = Scrypt(salt=SALT, length=32, n=1 << 14, r=8, p=1).derive(KEY)
    kek, commitment = hkdf(secret, b"", b"sam/1 kek"), hkdf(secret, b"", b"sam/1 kek commitment")
    public = ISSUER.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    license = members | {
        "format": "sam-license",
        "version": 1,
        "content_id": CONTENT_ID.hex(),
        "manifest_sha256": sha256(manifest).hex(),
        "issuer_key": b64(public),
        "scrypt": {"log_n": 14, "p": 1, "r": 8, "salt": b64(SALT)},
        "kek_commitment": commitment.hex(),
    }
    aad = b"sam/1 license" + canonical(license)
    license["wrapped_key"] = b64(NONCE + AESGCM(kek).encrypt(NONCE, CONTENT_KEY, aad))
    license["signature"] = b64(ISSUER.sign(b"sam/1 license signature" + canonical(license)))
    return license, secret, kek


def write(name, entries, chunk_length, licenses, more):
    """`entries`: path, kind, and content or target. `more`: members that no version knows. Returns what the example shows."""
    package = HERE / name
    shutil.rmtree(package, ignore_errors=True)
    (package / "licenses").mkdir(parents=True)
    listed, sealed = [], None
    for number, (path, kind, data) in enumerate(sorted(entries)):
        entry = {"kind": kind, "modified": MODIFIED} | named("path", path)
        where = os.fsencode(package / "content") + (b"/" + path if path else b"")
        if kind == "dir":
            os.makedirs(where, exist_ok=True)
            entry["mode"] = 0o755
        elif kind == "symlink":
            entry |= named("target", data)
        else:
            file_id = bytes(range(0x20, 0x40)) if number < 2 else sha256(path)
            sealed = seal(data, file_id, chunk_length, b"reserved" if b"reserved" in path else b"")
            entry |= {"mode": 0o644, "length": len(data), "file_id": file_id.hex(), "digest": sealed[3].hex()}
            pathlib.Path(os.fsdecode(where)).write_bytes(b"".join(sealed[:3]))
        listed.append(entry | more)
    commitment = hkdf(CONTENT_KEY, b"", b"sam/1 content key commitment")
    manifest = canonical(more | {
        "format": "sam-manifest",
        "version": 1,
        "content_id": CONTENT_ID.hex(),
        "content_key_commitment": commitment.hex(),
        "chunk_length": chunk_length,
        "entries": listed,
    })
    (package / "manifest.json").write_bytes(manifest)
    issued = None
    for members in licenses:
        issued = issue(members, manifest)
        path = package / "licenses" / (members["license_id"] + ".json")
        path.write_bytes(canonical(issued[0]))
    return sealed, manifest, issued


def example():
    """The least there can be: one file, one license without a condition."""
    plain = b'{"a": 1}\n'
    entries = [(b"", "dir", None), (b"config.json", "file", plain)]
    (header, body, tags, digest, key, nonces), manifest, (license, secret, kek) = write(
        "example", entries, 65536, [{"license_id": "LD_Demo_0001", "serial": 1}], {}
    )
    unsigned = {name: license[name] for name in license if name not in ("signature", "wrapped_key")}
    lines = [
        ("key", KEY.decode()),
        ("content key", CONTENT_KEY.hex()),
        ("issuer's seed", bytes(range(0xA0, 0xC0)).hex()),
        (),
        ("header", header[:64].hex() + " and 4032 zeros"),
        ("SHA-256(header)", sha256(header).hex()),
        ("file key", key.hex()),
        ("nonce", nonces[0].hex()),
        ("plaintext", plain.hex()),
        ("body", body.hex()),
        ("tag", tags.hex()),
        ("digest", digest.hex()),
        (),
        ("manifest.json", manifest.decode()),
        ("SHA-256(manifest.json)", sha256(manifest).hex()),
        (),
        ("scrypt", secret.hex()),
        ("KEK", kek.hex()),
        ("AAD", "sam/1 license" + canonical(unsigned).decode()),
        ("license", canonical(license).decode()),
    ]
    for line in lines:
        print(f"{line[0]:22} {line[1]}" if line else "")


def full():
    """Whatever the format can hold, members that no version knows, and a header with something reserved in it."""
    counting = bytes(i % 251 for i in range(2 * 4096 + 100))
    entries = [
        (b"", "dir", None),
        (b"a", "dir", None),
        (b"a-b", "file", counting[:4096]),
        (b"a/empty", "file", b""),
        (b"a/empty dir", "dir", None),
        (b"a/link", "symlink", b"../a-b"),
        (b"a/reserved", "file", counting),
        # Symlinks lie in the manifest alone, so that no file here has such a name.
        (b"two\xffbytes\n", "symlink", b"caf\xe9"),
        ("caf\u00e9".encode(), "file", counting[:4097]),
    ]
    licenses = [
        {"license_id": "LD_Demo_0001", "serial": 7, "x_unknown": [{"a": None}, -1, "\u00e9\n"], "critical": ["tdx"]},
        {
            "license_id": "everything.in-it",
            "serial": 2**53 - 1,
            "company": "ACME",
            "valid_from": "2026-01-01T00:00:00Z",
            "expires": "2028-02-29T23:59:59Z",
            "machines": ["mid-a3f7b0d3c597c9dd3598b7f8dfbe36ad", "i-bp67acfmxazb4p"],
            "tdx": {"required": True, "mrtd": ["11" * 48, "22" * 48], "rtmr3": ["33" * 48]},
            "extras": 'for the "caller"\n\u00e9\u20ac\U0001f600\x7f\x01',
        },
    ]
    write("full", entries, 4096, licenses, {"x_unknown": {"b": [], "a": False}})


if __name__ == "__main__":
    example()
    full()
