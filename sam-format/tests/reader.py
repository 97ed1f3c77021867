"""Opens Sam packages. Written from FORMAT.md alone: it suffices. [n] is a section, (n) a step of 6.1."""
import base64, datetime, hmac, json, os, re, struct, sys, time
from hashlib import sha256
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
MAX, HEADER, TAG, SEGMENT = 2**53 - 1, 4096, 16, 1 << 20
P, Y8 = 2**255 - 19, 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826  # y, order 8
# [5, 6] Canonical JSON spells a value in one way, so patterns say what members may be; "" stands for missing.
HEX16, HEX32, HEX48 = ('"[0-9a-f]{%d}"' % (2 * size) for size in (16, 32, 48))
KEY, WRAP, SIGN = ('"[A-Za-z0-9+/]{%s"' % end for end in ("42}[AEIMQUYcgkosw048]=", "80}", "85}[AQgw]=="))
TEXT, LIST, COUNT, CHAR = '|".*"', r"|\[.*\]", r"\d+", r'([!#-\[\]-~]|\\["\\])'
ID, DATE = r"(?!\.)[\w.-]{8,48}", r'|"(19[7-9]|[2-9]\d\d)\d-\d\d-\d\dT([01]\d|2[0-3]):\d\d:\d\dZ"'
REGISTER = rf"\[{HEX48}(,{HEX48}){{0,63}}\]"
LICENSE = {"format": '"sam-license"', "version": "1", "critical": LIST, "license_id": f'"{ID}"',
    "serial": COUNT, "company": f'|"( |{CHAR}){{4,8}}"', "valid_from": DATE, "expires": DATE, "extras": TEXT,
    "tdx": rf'|{{(?=.*\[)("mrtd":{REGISTER},)?"required":(true|false)(,"rtmr[0-3]":{REGISTER})*}}',
    "machines": rf'|\["{CHAR}{{8,128}}"(,"{CHAR}{{8,128}}"){{0,1023}}\]', "issuer_key": KEY,
    "scrypt": rf'{{"log_n":(1[4-9]|2[0-4]),"p":([1-9]|1[0-6]),"r":8,"salt":{KEY}}}', "signature": SIGN,
    "content_id": HEX16, "manifest_sha256": HEX32, "kek_commitment": HEX32, "wrapped_key": WRAP}
MANIFEST = {"format": '"sam-manifest"', "version": "1", "content_id": HEX16, "content_key_commitment": HEX32,
    "critical": LIST, "entries": LIST, "chunk_length": "|".join(str(1 << n) for n in range(12, 25))}
LINK = dict.fromkeys(("path", "path_base64", "target", "target_base64"), TEXT) | {"kind": '"symlink"',
    "modified": r"\[-?\d+,\d{1,9}\]", "mode": "", "length": "", "file_id": "", "digest": ""}
DIR = LINK | {"kind": '"dir"', "mode": r"\d\d?|[1-4]\d\d|50\d|51[01]", "target": "", "target_base64": ""}
FILE = DIR | {"kind": '"file"', "length": COUNT, "file_id": HEX32, "digest": HEX32}
PATH = rb"(?s)(?=.{,4096}\Z)(?:%b(?:/%b)*)?" % ((rb"(?!\.\.?(?:/|\Z))[^/\0]{1,255}",) * 2)  # [4]

def need(holds, what):
    if not holds:
        raise ValueError(what)
def hkdf(ikm, salt, info):  # RFC 5869: of its output the first 32 bytes
    return hmac.digest(hmac.digest(salt, ikm, "sha256"), info + b"\1", "sha256")

def canonical(value, *without, depth=1):  # [1] leaves out members of the outermost object
    need(depth <= 32 if type(value) in (dict, list) else type(value) is not int or abs(value) <= MAX, "JSON")
    if type(value) is list:
        return b"[" + b",".join(canonical(item, depth=depth + 1) for item in value) + b"]"
    if type(value) is dict:
        names = sorted(value.keys() - without, key=lambda name: name.encode("utf-16-be"))
        items = (canonical(name) + b":" + canonical(value[name], depth=depth + 1) for name in names)
        return b"{" + b",".join(items) + b"}"
    return json.dumps(value, ensure_ascii=False).encode()  # which escapes what RFC 8785 does

def check(value, members):
    for name, pattern in members.items():
        need(re.fullmatch(pattern.encode(), canonical(value[name]) if name in value else b"", re.S), name)

def document(path, limit, members, others=(), digest=None):
    data = open(path, "rb").read(limit + 1)
    need(len(data) <= limit and digest in (None, sha256(data).hexdigest()), "too long, or not as signed")
    value = json.loads(data.decode(), parse_float=int, parse_constant=int)  # neither is an int's form
    need(type(value) is dict and canonical(value) == data, "JSON: no object, or not canonical")
    check(value, members)
    need(set(value.get("critical", ())) <= {*members, *others}, "critical: unknown here")
    return value

def name_in(entry, member):  # [4] a string if it is UTF-8, else base64
    plain, encoded = entry.get(member), entry.get(member + "_base64")
    name = base64.b64decode(encoded) if plain is None else plain.encode()
    is_utf8 = name.decode(errors="replace").encode() == name
    need(encoded == (None if is_utf8 else base64.b64encode(name).decode()), f"{member}: in the wrong form")
    return name

def entries_of(manifest):  # [4, 5] by path
    entries = {}
    for entry in manifest["entries"]:
        check(entry, {"dir": DIR, "file": FILE}.get(entry["kind"], LINK))
        path = name_in(entry, "path")
        need(re.fullmatch(PATH, path) and (path > next(reversed(entries)) if entries else not path), "path")
        need((entries[path.rpartition(b"/")[0]] if path else entry)["kind"] == "dir", "path: its parent")
        if entry["kind"] == "symlink":
            target = name_in(entry, "target")
            steps = [step for step in target.split(b"/") if step not in (b"", b".")]
            ups = steps.count(b"..")
            need(0 < len(target) < 4096 and target[:1] != b"/" and ups <= path.count(b"/"), "target: bounds")
            need(re.fullmatch(PATH, b"/".join(steps[ups:])), "target: a component, or `..` behind one")
        entries[path] = entry
    need(len({entries[path].get("file_id", path) for path in entries}) == len(entries) > 0, "file_id")
    return entries

def read_file(stored, output, entry, size, content_key):  # [3] in chunks of `size`
    file, length, file_id = open(stored, "rb"), entry["length"], bytes.fromhex(entry["file_id"])
    header, count = file.read(HEADER), max(1, -(-length // size))
    need(struct.unpack("<8sIIQI4x32s", header[:64]) == (b"SAM-FILE", 1, 0, length, size, file_id), "header")
    cipher = AESGCM(hkdf(content_key, file_id, b"sam/1 file key" + sha256(header).digest()))
    for i in range(count if content_key else 0):
        file.seek(HEADER + i * size)
        body = file.read(min(size, length - i * size))
        file.seek(HEADER + length + i * TAG)
        output.write(cipher.decrypt(struct.pack(">?3xQ", i == count - 1, i), body + file.read(TAG), None))
    file.seek(0)
    pieces = [min(SEGMENT, n - at) for n in (HEADER, length, TAG * count) for at in range(0, n, SEGMENT)]
    hashes = b"".join(sha256(file.read(piece)).digest() for piece in pieces)
    need(sha256(b"sam/1 file digest" + hashes).hexdigest() == entry["digest"], "digest")

def main(package, key=None, license=None, issuer=None, serial=0, now=None, machine=None, to=None):
    files = [] if license else os.listdir(package + "/licenses")  # [6]
    ids = {file[:-5] for file in files if re.fullmatch(ID + r"\.json", file, re.A)}
    [name] = [None] if license else ids & {os.path.basename(os.path.abspath(package))} or ids
    license = document(license or f"{package}/licenses/{name}.json", 1 << 16, LICENSE)  # (1)
    need(name in (None, license["license_id"]), "license_id: not the file's name")
    begin = datetime.datetime.fromisoformat(license.get("valid_from", "1970-01-01T00:00:00Z")).timestamp()
    end = datetime.datetime.fromisoformat(license.get("expires", "9999-12-31T23:59:59Z")).timestamp()
    need(begin < end and len(license.get("extras", "").encode()) <= 256, "valid_from, expires or extras")
    public, signature = base64.b64decode(license["issuer_key"]), base64.b64decode(license["signature"])
    for y in (int.from_bytes(point, "little") % 2**255 for point in (public, signature[:32])):  # (2)
        need(1 < y < P - 1 and y not in (Y8, P - Y8), "signature: a point of small order")
    signed = b"sam/1 license signature" + canonical(license, "signature")
    Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    need(issuer in (None, license["issuer_key"]), "issuer_key: another is pinned")
    need(license["serial"] >= int(serial), "serial: below the minimum")  # (3)
    need(not key or begin <= float(now or time.time()) < end, "valid_from, expires: not now")  # (4)
    need(not key or machine in license.get("machines", [machine]), "machines: not this one")
    need(not key or not license.get("tdx", {}).get("required"), "tdx: nothing is measured here")
    manifest = document(package + "/manifest.json", 1 << 26, MANIFEST, FILE, license["manifest_sha256"])
    need(manifest["content_id"] == license["content_id"], "content_id: of another manifest")  # (5)
    entries, size, content_key = entries_of(manifest), manifest["chunk_length"], b""
    if key:  # (6)
        cost, wrapped = license["scrypt"], base64.b64decode(license["wrapped_key"])
        secret = open(key, "rb").read()
        need(4 <= len(secret) <= 128, "key: its length")
        secret = Scrypt(base64.b64decode(cost["salt"]), 32, 1 << cost["log_n"], 8, cost["p"]).derive(secret)
        commitment = hkdf(secret, b"", b"sam/1 kek commitment").hex()
        need(hmac.compare_digest(commitment, license["kek_commitment"]), "the key is wrong")
        aad = b"sam/1 license" + canonical(license, "wrapped_key", "signature")
        content_key = AESGCM(hkdf(secret, b"", b"sam/1 kek")).decrypt(wrapped[:12], wrapped[12:], aad)
        commitment = hkdf(content_key, b"", b"sam/1 content key commitment").hex()
        need(commitment == manifest["content_key_commitment"], "content_key_commitment: of another key")
    content, found, folders = os.fsencode(package + "/content"), {}, [b""]
    lengths = {path: entry["length"] for path, entry in entries.items() if entry["kind"] == "file"}
    lengths = {path: HEADER + L + TAG * max(1, -(-L // size)) for path, L in lengths.items()}
    for folder in folders:  # (7)
        for item in os.scandir(os.path.join(content, folder)) if lengths or os.path.lexists(content) else ():
            path = os.path.join(folder, item.name)
            if item.is_dir(follow_symlinks=False) and entries[path]["kind"] == "dir":
                folders.append(path)
            else:
                found[path] = item.is_file(follow_symlinks=False) and item.stat().st_size
    need(found == lengths, "content: its files are not those of the entries")
    for path, entry in entries.items():
        sys.stdout.buffer.write(canonical(entry) + b"\n")
        output = os.path.join(os.fsencode(to), path) if key and to else os.devnull
        if entry["kind"] == "file":
            read_file(os.path.join(content, path), open(output, "wb"), entry, size, content_key)
        elif key and to:
            os.mkdir(output) if entry["kind"] == "dir" else os.symlink(name_in(entry, "target"), output)

sys.excepthook = lambda kind, error, trace: print(f"refused: {error!r}", file=sys.stderr)
main(sys.argv[1], **dict(option[2:].split("=", 1) for option in sys.argv[2:]))  # PACKAGE --key=FILE ...
