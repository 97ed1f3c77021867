"""Opening, listing and reading models."""

from __future__ import annotations

import array
import ctypes
import io
import mmap
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import BIG, KEY, trust

import modelseal
from modelseal.safetensors import load_file


def test_what_is_sealed_is_listed_and_read(model: modelseal.Model, source: Path) -> None:
    assert [entry.path for entry in model.ls()] == ["config.json", "deep", "empty", "link"]
    kinds = {entry.path: entry.kind for entry in model.walk()}
    assert kinds == {
        "config.json": "file",
        "deep": "directory",
        "deep/er": "directory",
        "deep/er/big.bin": "file",
        "deep/ümläut": "file",
        "empty": "file",
        "link": "symlink",
    }
    assert model.readlink("link") == "config.json"
    for path, kind in kinds.items():
        if kind == "file":
            content = (source / path).read_bytes()
            assert model.read(path) == content
            assert model.info(path).size == len(content)
    assert [entry.path for entry in model.ls("deep")] == ["deep/er", "deep/ümläut"]
    assert model.exists("deep") and not model.exists("shallow")


def test_files_are_those_of_python(model: modelseal.Model, source: Path) -> None:
    content = (source / "deep/er/big.bin").read_bytes()
    with model.file("deep/er/big.bin") as file:
        assert isinstance(file, io.RawIOBase)
        assert file.readable() and file.seekable() and not file.writable()
        assert (file.size, file.name, file.mode) == (BIG, "deep/er/big.bin", "rb")
        assert file.read(5) == content[:5]
        assert file.seek(-7, os.SEEK_END) == BIG - 7
        assert file.read() == content[-7:]
        assert file.read() == b"" and file.read(9) == b""
        file.seek(4095)
        into = bytearray(3)
        assert file.readinto(into) == 3 and into == content[4095:4098]
        assert file.tell() == 4098
        assert file.seek(BIG + 10) == BIG + 10 and file.readinto(into) == 0
        assert file.seek(0) == 0 and file.readall() == content
        into = bytearray(b"\xff" * 10)
        assert file.readinto_at(into, BIG - 4) == 4
        assert into == content[-4:] + b"\xff" * 6
        for wrong in (-1, 1 << 63, -(1 << 70)):
            with pytest.raises(ValueError, match=f"position {wrong}"):
                file.seek(wrong)
            with pytest.raises(ValueError, match=f"position {wrong}"):
                file.readinto_at(into, wrong)
        for use in (file.seek, file.read, lambda size: file.readinto_at(into, size)):
            with pytest.raises(TypeError, match="float"):
                use(1.5)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 3)
        with pytest.raises(io.UnsupportedOperation, match="read-only"):
            file.write(b"x")
        assert file.tell() == BIG
        with pytest.raises(BufferError, match="written"):
            file.readinto_at(bytes(9), 0)
        file.seek(0)
        with io.BufferedReader(file) as buffered:
            assert buffered.read(10) == content[:10]
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with model.file("empty") as file:
        assert file.read() == b"" and file.size == 0 and file
    with io.TextIOWrapper(io.BufferedReader(model.file("config.json"))) as text:
        assert text.readline().startswith("{")


def test_any_writable_memory_is_filled(model: modelseal.Model, source: Path) -> None:
    numpy = pytest.importorskip("numpy")
    content = (source / "deep/er/big.bin").read_bytes()
    with model.file("deep/er/big.bin") as file:
        floats = numpy.zeros((100, 10), dtype=numpy.float32)
        assert file.readinto_at(floats, 64) == 4000
        assert floats.tobytes() == content[64:4064]
        for strided in (floats[:, ::2], floats[::-1], floats.T):
            with pytest.raises(ValueError, match="one piece"):
                file.readinto_at(strided, 0)
        kinds = [
            "?", "i1", ">i2", "u4", "<i8", "f2", ">f8", "longdouble", "c8", "c16", "clongdouble", "S3", "U2", "V5",
            [("O", "<f4"), ("P", "u1", (2, 3)), ("deep", [("z", "i2"), ("&<O", "?")])],
        ]  # fmt: skip
        for kind in kinds:
            records = numpy.zeros((3, 7), dtype=kind)
            assert file.readinto_at(records, 5) == records.nbytes, kind
            assert records.tobytes() == content[5 : 5 + records.nbytes], kind
        scalar = numpy.zeros((), dtype=numpy.int64)
        assert file.readinto_at(scalar, 1) == 8 and scalar.tobytes() == content[1:9]
        for code in array.typecodes:
            numbers = array.array(code, "" if code in "uw" else [0] * 9)
            assert file.readinto_at(numbers, 0) == len(numbers) * numbers.itemsize
            assert numbers.tobytes() == content[: len(numbers) * numbers.itemsize]
        c = (ctypes.c_double * 4)()
        assert file.readinto_at(c, 0) == 32 and bytes(c) == content[:32]
        view = memoryview(bytearray(24)).cast("q", (3, 1))
        assert file.readinto_at(view, 0) == 24 and view.tobytes() == content[:24]
        for nothing in (bytearray(), numpy.zeros((4, 0)), memoryview(bytearray(9))[9:]):
            assert file.readinto_at(nothing, 0) == 0
        for frozen in (bytes(9), memoryview(bytes(9)), numpy.frombuffer(bytes(8))):
            with pytest.raises(BufferError, match="written"):
                file.readinto_at(frozen, 0)


def test_nothing_is_written_over_objects_and_addresses(sealed: Path) -> None:
    pytest.importorskip("numpy")
    script = (
        "import ctypes, sys\n"
        "import numpy\n"
        "import modelseal\n"
        "class Record(ctypes.Structure):\n"
        "    _fields_ = [('number', ctypes.c_int), ('object', ctypes.py_object)]\n"
        "thing = object()\n"
        "arrays = [\n"
        "    numpy.full(4, thing, dtype=object),\n"
        "    numpy.full((2, 2), thing, dtype=object),\n"
        "    numpy.full((), thing, dtype=object),\n"
        "    memoryview(numpy.full(4, thing, dtype=object)),\n"
        "    numpy.array([(1, thing)] * 3, dtype=[('i', '<i4'), ('what', object)]),\n"
        "    numpy.array([((1, thing),)] * 3, dtype=[('deep', [('i', 'u1'), ('two', object, (2,))])]),\n"
        "    (ctypes.py_object * 2)(thing, thing),\n"
        "    (Record * 2)((1, thing), (2, thing)),\n"
        "    (ctypes.c_void_p * 2)(),\n"
        "    (ctypes.c_char_p * 2)(b'one', b'two'),\n"
        "    (ctypes.c_wchar_p * 2)('one', 'two'),\n"
        "    (ctypes.POINTER(ctypes.c_int) * 2)(),\n"
        "    (ctypes.CFUNCTYPE(None) * 2)(),\n"
        "]\n"
        f"model = modelseal.open({str(sealed)!r}, {KEY!r}, **{trust(sealed)!r})\n"
        "file = model.file('deep/er/big.bin')\n"
        "for each in arrays:\n"
        "    try:\n"
        "        file.readinto_at(each, 0)\n"
        "    except TypeError as error:\n"
        "        print(error)\n"
        "    else:\n"
        "        sys.exit(f'{each!r} was written over')\n"
        "assert arrays[0].tolist() == [thing] * 4 and arrays[9][1] == b'two'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 13 and all("objects or addresses (format" in line for line in said), said


def test_a_memory_file_holds_all_and_cannot_be_changed(model: modelseal.Model, source: Path) -> None:
    with model.file("deep/er/big.bin") as file, file.memfd() as memory:
        path = f"/proc/self/fd/{memory.fileno()}"
        assert Path(path).read_bytes() == (source / "deep/er/big.bin").read_bytes()
        with pytest.raises(PermissionError), open(path, "r+b") as writable:
            writable.write(b"x")


def test_entries_are_compared_and_pickled(model: modelseal.Model, sealed: Path) -> None:
    entries = list(model.walk())
    with modelseal.open(sealed, KEY, **trust(sealed)) as other:
        assert list(other.walk()) == entries
    assert len(set(entries)) == len(entries) > 3
    assert len({*entries, *model.walk()}) == len(entries)
    assert pickle.loads(pickle.dumps(entries)) == entries
    assert entries[0] != entries[1] and entries[0] != entries[0].path
    zeros = [modelseal.Entry("path", "file", 1, 0, modified) for modified in (0.0, -0.0)]
    assert zeros[0] == zeros[1] and len(set(zeros)) == 1
    with pytest.raises(ValueError, match="no kind of entry"):
        modelseal.Entry("path", "pipe", 0, 0, 0.0)


def test_what_is_sealed_anew_is_an_open_model(sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="open model .* not a PosixPath"):
        modelseal.reseal(sealed, tmp_path / "sealed", KEY)
    assert not list(tmp_path.iterdir())


def test_many_threads_read_one_model(model: modelseal.Model, source: Path) -> None:
    content = (source / "deep/er/big.bin").read_bytes()
    file = model.file("deep/er/big.bin")
    begin = threading.Barrier(8)

    def read(number: int) -> bool:
        begin.wait()
        same = True
        for step in range(20):
            offset = (number * 7919 + step * 104729) % (BIG - 100_000)
            into = bytearray(100_000)
            same &= file.readinto_at(into, offset) == len(into) and into == content[offset : offset + len(into)]
            same &= model.read("config.json") == (source / "config.json").read_bytes()
        return same

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_a_closed_model_says_so(sealed: Path) -> None:
    with modelseal.open(sealed, KEY, **trust(sealed)) as model:
        file = model.file("config.json")
    assert model.closed
    for use in (model.ls, lambda: model.read("config.json"), file.read):
        with pytest.raises(ValueError, match="closed"):
            use()
    model.close()


def test_what_is_known_without_a_key(sealed: Path) -> None:
    info = modelseal.inspect(sealed)
    assert info["format"] in ("gocryptfs", "sam")
    if info["format"] == "sam":
        assert info["licenses"][0]["license_id"] == "LD_Test_0001"
        assert "wrapped_key" not in info["licenses"][0]


def test_unsealing_gives_back_what_was_sealed(sealed: Path, source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    counts = modelseal.unseal(
        sealed, tmp_path / "plain", KEY, progress=lambda done, total: told.append((done, total)), **trust(sealed)
    )
    assert counts["files"] == 4 and counts["symlinks"] == 1
    assert told[-1] == (counts["bytes"], counts["bytes"])
    for path in ("config.json", "deep/er/big.bin", "deep/ümläut", "empty"):
        assert (tmp_path / "plain" / path).read_bytes() == (source / path).read_bytes()
    with pytest.raises(OSError, match="not empty"):
        modelseal.unseal(sealed, tmp_path / "plain", KEY, **trust(sealed))


def test_sealing_anew_changes_format_and_key(model: modelseal.Model, source: Path, tmp_path: Path) -> None:
    new = b"another key: 88-Tq.zz_0"
    modelseal.reseal(model, tmp_path / "new", new, scrypt_n=10)
    with modelseal.open(tmp_path / "new", new) as again:
        assert again.read("deep/er/big.bin") == (source / "deep/er/big.bin").read_bytes()


def test_a_vault_gets_a_new_key(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "vault"
    modelseal.seal(source, place, KEY, scrypt_n=10, xchacha=True, plaintext_names=True)
    assert (place / "config.json").exists()
    modelseal.change_password(place, KEY, b"another key: 88-Tq.zz_0")
    with pytest.raises(modelseal.AuthenticationError):
        modelseal.open(place, KEY)
    with modelseal.open(place, b"another key: 88-Tq.zz_0") as model:
        assert model.exists("config.json")


def test_options_are_those_of_the_command(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with modelseal.open(sealed, KEY, threads=1, read_mode="copy", **trust(sealed)) as model:
        assert model.read("config.json")
    with pytest.raises(TypeError, match="no option 'kbs_urll'"):
        modelseal.open(sealed, KEY, kbs_urll="http://localhost")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="threads"):
        modelseal.open(sealed, KEY, threads=5000, **trust(sealed))
    with pytest.raises(ValueError, match="evidence"):
        modelseal.open(sealed, KEY, evidence="none", **trust(sealed))  # type: ignore[arg-type]
    with pytest.raises(modelseal.FormatError, match="scrypt"):
        modelseal.open(sealed, KEY, scrypt_memory=0, **trust(sealed))
    for wrong in ({"threads": [4]}, {"threads": 1.5}, {"read_mode": b"copy"}, {"kbs_url": {"a": 1}}):
        with pytest.raises(TypeError, match=f"the option {next(iter(wrong))} takes no"):
            modelseal.open(sealed, KEY, **wrong)  # type: ignore[arg-type]
    # Nobody is not anybody.
    with pytest.raises(ValueError, match="issuer names nobody"):
        modelseal.open(sealed, KEY, issuer=[])
    with pytest.raises(ValueError, match="issuer"):
        modelseal.open(sealed, KEY, issuer=["nobody"])
    monkeypatch.setenv("MODELSEAL_THREADS", "many")
    with pytest.raises(ValueError, match="many"):
        modelseal.open(sealed, KEY, **trust(sealed))


def test_options_of_sealing_go_together(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "sealed"
    for options, what in [
        ({"license_config": {"expires": "2030-01-01T00:00:00Z"}}, "license-config is for --format sam"),
        ({"chunk_size": 4096}, "chunk-size is for --format sam"),
        ({"format": "sam"}, "key-id is missing"),
        ({"format": "sam", "key_id": "LD_Test_0001", "xchacha": True}, "xchacha is for --format gocryptfs"),
        ({"xchacha": True, "aessiv": True}, "aessiv"),
        ({"scrypt_n": 40}, "40"),
    ]:
        with pytest.raises(ValueError, match=what):
            modelseal.seal(source, place, KEY, **options)  # type: ignore[arg-type]
    for wrong in ("no", 0, []):
        with pytest.raises(TypeError, match="xchacha is True or False"):
            modelseal.seal(source, place, KEY, xchacha=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress"):
        modelseal.seal(source, place, KEY, progress=True)  # type: ignore[arg-type]
    assert not place.exists()
    with pytest.raises(ValueError, match="scrypt_n is 400"):
        modelseal.change_password(place, KEY, KEY, scrypt_n=400)
    with pytest.raises(ValueError, match="serial is -1"):
        modelseal.sign_manifest(place, "issuer", serial=-1)
    with pytest.raises(ValueError, match="scrypt_n is 9"):
        modelseal.license.issue(place, KEY, issuer_key="issuer", scrypt_n=9)


def test_a_path_that_cannot_be_one_says_so(model: modelseal.Model) -> None:
    for path, what in [("../x", "leads out"), ("deep/../config.json", "leads out"), ("a\0b", "NUL"), ("x" * 256, "255")]:
        for use in (model.file, model.exists, model.ls, model.info, model.tensors):
            with pytest.raises(ValueError, match=what):
                use(path)
    for listed in (model.ls, model.walk):
        with pytest.raises(NotADirectoryError, match="config.json") as caught:
            listed("config.json")
        assert caught.value.filename == f"{model.location}/config.json"


def test_messages_are_without_what_a_location_has_of_secrets() -> None:
    for url in ("https://me:s3cr3t@host/vault", "https://host/vault?X-Amz-Signature=s3cr3t"):
        for use in (
            lambda url: modelseal.open(url, KEY),
            lambda url: modelseal.seal(".", url, KEY),
            lambda url: load_file(url, key=KEY, framework="np"),
            modelseal.inspect,
        ):
            with pytest.raises(ValueError, match="https://") as caught:
                use(url)
            assert "s3cr3t" not in str(caught.value)


def test_huge_pages_are_asked_for_where_memory_is_to_be_filled() -> None:
    from modelseal._modelseal import prefer_huge_pages

    def flags() -> str:
        smaps = Path("/proc/self/smaps").read_text().split("\n")
        spans = [line.split()[0].split("-") for line in smaps if re.match("[0-9a-f]+-[0-9a-f]+ ", line)]
        kinds = [line for line in smaps if line.startswith("VmFlags:")]
        return next(kind for (low, high), kind in zip(spans, kinds, strict=True) if int(low, 16) <= inner < int(high, 16))

    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("this kernel has none")
    memory = mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[0:3] = b"abc"
    inner = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + (4 << 20)
    assert " hg" not in flags()
    # Only whole pages of it.
    prefer_huge_pages(memoryview(memory)[:4095])
    assert " hg" not in flags()
    prefer_huge_pages(memoryview(memory)[1:])
    assert " hg" in flags() and memory[0:3] == b"abc"
    with pytest.raises(BufferError):
        prefer_huge_pages(b"constant")
