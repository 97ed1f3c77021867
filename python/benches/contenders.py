"""The loaders that are compared. Run by itself, in a process of its own, it loads with one of them and prints what it took.

    python contenders.py NAME FOLDER ROUNDS
"""

from __future__ import annotations

import json
import mmap
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "4gSn-kW7 mRz.Qe19_xTvB-0123456789"
JWK = {"kty": "oct", "alg": "aes256gcm", "kid": "bench", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
SIGNER = {
    "kty": "okp",
    "crv": "Ed25519",
    "alg": "ed25519",
    "kid": "signer",
    "d": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "x": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
}

Loader = Callable[[], dict[str, Any]]


def main() -> None:
    name, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    import torch  # noqa: F401 (loaded beforehand, as a server has it)

    begin = time.perf_counter()
    load = LOADERS[name](folder)
    unlocked = time.perf_counter() - begin
    touch(3 * (folder / "plain/model.safetensors").stat().st_size)
    before = held()
    peak = Peak()
    times = []
    for number in range(rounds):
        begin = time.perf_counter()
        tensors = load()
        times.append(time.perf_counter() - begin)
        if number == 0:
            grown = peak.stop() - before
            size = sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())
        # Before the next one, as a server would.
        del tensors
    print(json.dumps({"unlocked": unlocked, "times": times, "grown": grown, "size": size}))


def plain(folder: Path) -> Loader:
    from safetensors.torch import load_file

    path = folder / "plain/model.safetensors"
    return lambda: {name: tensor.clone() for name, tensor in load_file(path).items()}


def mounted(folder: Path) -> Loader:
    from safetensors.torch import load_file

    path = folder / "mounted/model.safetensors"
    return lambda: {name: tensor.clone() for name, tensor in load_file(path).items()}


def sealed(name: str) -> Callable[[Path], Loader]:
    def unlock(folder: Path) -> Loader:
        import modelseal
        from modelseal.safetensors import load_file

        model = modelseal.open(folder / name, f"file:{folder / 'key'}")
        return lambda: load_file(model)

    return unlock


def cryptotensors(folder: Path) -> Loader:
    import cryptotensors
    from cryptotensors.torch import load_file

    cryptotensors.register_direct_key_provider(keys=[JWK, SIGNER])
    return lambda: load_file(folder / "cryptotensors/model.safetensors")


def tensorizer(folder: Path) -> Loader:
    from tensorizer import DecryptionParams, TensorDeserializer

    keys = DecryptionParams.from_string(KEY)

    def load() -> dict[str, Any]:
        with TensorDeserializer(
            folder / "tensorizer/model.tensors", device="cpu", encryption=keys, num_readers=2
        ) as reader:
            return dict(reader)

    return load


LOADERS: dict[str, Callable[[Path], Loader]] = {
    "plain": plain,
    "mounted": mounted,
    "sam": sealed("sam"),
    "gocryptfs": sealed("vault"),
    "cryptotensors": cryptotensors,
    "tensorizer": tensorizer,
}


def touch(size: int) -> None:
    """Touches memory, in huge pages and in small ones, and gives it back: a host may have taken it from this machine, and
    whoever comes first would wait for it."""
    for huge in (True, False):
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1
        memory.close()


def held() -> int:
    """Memory that is this process's own: RssAnon and RssShmem, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


class Peak:
    """The most that is held, looked at each millisecond."""

    def __init__(self) -> None:
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self._most = max(self._most, held())

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return max(self._most, held())


if __name__ == "__main__":
    main()
