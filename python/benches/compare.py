"""Compares loading sealed tensors with loading plain ones, and with what others encrypt with.

Each load is in a process of its own, as when a server starts; the loaders take turns, and before it loads each touches memory and
gives it back, as a host may have taken it. The ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import JWK, KEY, SIGNER
from picture import picture

HERE = Path(__file__).resolve().parent
NAMES = {
    "plain": "safetensors of plain files, load_file and clone",
    "mounted": "the same over a gocryptfs mount",
    "sam": "modelseal, Sam",
    "gocryptfs": "modelseal, gocryptfs",
    "cryptotensors": "cryptotensors, AES-256-GCM",
    "tensorizer": "tensorizer, encrypted, 2 readers",
}
# Those that load again in one process.
AGAIN = ("plain", "sam", "gocryptfs")


@dataclass
class Row:
    """A line of the table."""

    name: str
    work: str
    against: str
    ours: str
    theirs: str
    value: float
    target: float
    # Whether less is better.
    limit: bool = False
    unit: str = "x"

    @property
    def is_reached(self) -> bool:
        return self.value <= self.target if self.limit else self.value >= self.target

    @property
    def part(self) -> float:
        """How much of the target is reached."""
        return self.target / self.value if self.limit else self.value / self.target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the tensors together")
    parser.add_argument("--rounds", type=int, default=7, help="processes for each loader")
    parser.add_argument("--folder", type=Path, help="where the files lie; in the system's temporary folder unless given")
    parser.add_argument("--no-write", action="store_true", help="print the table and leave RESULTS.md as it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelseal-bench-", dir=options.folder) as folder:
        place = Path(folder)
        prepare(place, options.mib)
        with mount(place) as is_mounted:
            loaders = [name for name in NAMES if name != "mounted" or is_mounted]
            runs = measure(place, loaders, options.rounds)
            rows = evaluate(runs)
        rows += slices(place)
    report = table(rows, runs, options)
    print(report)
    if not options.no_write:
        (HERE / "RESULTS.md").write_text(report)
        (HERE / "results.svg").write_text(picture(rows))


def prepare(place: Path, mib: int) -> None:
    """The same tensors for every loader: bf16, 64 of them."""
    import torch
    from cryptotensors.torch import save_file as save_encrypted
    from safetensors.torch import save_file
    from tensorizer import EncryptionParams, TensorSerializer

    import modelseal

    warnings.simplefilter("ignore")
    generator = torch.Generator().manual_seed(1)
    rows = mib * 1024 // 64 // 8
    tensors = {
        f"layers.{number:02}.weight": torch.randint(
            -(2**15), 2**15, (rows, 4096), dtype=torch.int16, generator=generator
        ).view(torch.bfloat16)
        for number in range(64)
    }
    for name in ("plain", "cryptotensors", "tensorizer", "mounted"):
        (place / name).mkdir()
    save_file(tensors, place / "plain/model.safetensors")
    save_encrypted(tensors, place / "cryptotensors/model.safetensors", config={"enc_key": JWK, "sign_key": SIGNER})
    writer = TensorSerializer(
        str(place / "tensorizer/model.tensors"), encryption=EncryptionParams.from_string(KEY)
    )
    writer.write_state_dict(tensors)
    writer.close()
    (place / "key").write_text(KEY)
    key = f"file:{place / 'key'}"
    modelseal.seal(place / "plain", place / "vault", key)
    modelseal.seal(place / "plain", place / "sam", key, format="sam", key_id="LD_Bench_0001")


@contextlib.contextmanager
def mount(place: Path) -> Iterator[bool]:
    """The vault by gocryptfs, where that is there."""
    if not (shutil.which("gocryptfs") and shutil.which("fusermount3") and os.path.exists("/dev/fuse")):
        yield False
        return
    command = ["gocryptfs", "-q", "-ro", "-passfile", str(place / "key"), str(place / "vault"), str(place / "mounted")]
    subprocess.run(command, check=True)
    try:
        yield True
    finally:
        subprocess.run(["fusermount3", "-u", str(place / "mounted")], check=True)


def measure(place: Path, loaders: list[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each run of each loader took."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in loaders}
    for number in range(rounds + 1):
        for name in loaders:
            again = "4" if name in AGAIN else "1"
            command = [sys.executable, str(HERE / "contenders.py"), name, str(place), again]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            # The first one fills the page cache.
            if number:
                runs[name].append(json.loads(done.stdout))
    return runs


def evaluate(runs: dict[str, list[dict[str, Any]]]) -> list[Row]:
    def fresh(name: str) -> float:
        return statistics.median(run["times"][0] for run in runs[name])

    def again(name: str) -> float:
        return statistics.median(min(run["times"][1:]) for run in runs[name])

    size = runs["plain"][0]["size"]

    def rate(seconds: float) -> str:
        return f"{size / seconds / 1e9:.2f} GB/s"

    rows = []

    def compare(ours: str, theirs: str, target: float) -> None:
        if theirs in runs:
            mine, other = fresh(ours), fresh(theirs)
            rows.append(
                Row(f"fresh-{ours}-{theirs}", f"load_file in a fresh process, {NAMES[ours]}", NAMES[theirs],
                    rate(mine), rate(other), other / mine, target)  # fmt: skip
            )

    for ours, target in (("sam", 1.3), ("gocryptfs", 1.2)):
        compare(ours, "plain", target)
        compare(ours, "cryptotensors", 3)
        compare(ours, "mounted", 6)
        # Nothing was asked of it, but users have it.
        compare(ours, "tensorizer", 3)
    for ours, target in (("sam", 1.0), ("gocryptfs", 0.9)):
        mine, other = again(ours), again("plain")
        rows.append(
            Row(f"again-{ours}", f"load_file again in one process, {NAMES[ours]}", NAMES["plain"], rate(mine),
                rate(other), other / mine, target)  # fmt: skip
        )
    for ours in ("sam", "gocryptfs"):
        grown = max(run["grown"] - run["size"] for run in runs[ours]) / (1 << 20)
        rows.append(
            Row(f"memory-{ours}", f"memory beyond the tensors, {NAMES[ours]}", "", f"{grown:.1f} MiB", "", grown, 64,
                limit=True, unit="MiB")  # fmt: skip
        )
    return rows


def slices(place: Path) -> list[Row]:
    """How much is decrypted for half of each tensor."""
    import modelseal
    from modelseal.safetensors import Tensors

    rows = []
    for name, folder in (("sam", "sam"), ("gocryptfs", "vault")):
        with modelseal.open(place / folder, f"file:{place / 'key'}") as model:
            tensors = Tensors(model)
            before = model.decrypted_bytes
            for tensor in tensors:
                part = tensors.slice(tensor)
                part[: part.get_shape()[0] // 2]
            share = (model.decrypted_bytes - before) / model.info("model.safetensors").size
        rows.append(
            Row(f"slice-{name}", f"decrypted for half of each tensor, {NAMES[name]}", "", f"{share:.3f} of the file", "",
                share, 0.51, limit=True, unit="of the file")  # fmt: skip
        )
    return rows


def table(rows: list[Row], runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> str:
    lines = [
        "# Results of the Python package",
        "",
        f"One run of `make bench-python`: {options.mib} MiB of bf16 in 64 tensors, page cache warm, {options.rounds} processes for "
        "each loader, which take turns. The ratio is that of the medians; above the target is good, but for memory and slices, "
        "which are to stay below it.",
        "",
        "| row | work | against | ours | peer | ratio | target | reached |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        sign = "<=" if row.limit else ">="
        lines.append(
            f"| {row.name} | {row.work} | {row.against} | {row.ours} | {row.theirs} | {row.value:.3g} {row.unit} | "
            f"{sign} {row.target:g} {row.unit} | {'yes' if row.is_reached else 'NO'} |"
        )
    lines += ["", "Unlocking (scrypt, N = 2^16) comes before that, and once for a process:", "", "|  | seconds |", "| --- | --- |"]
    for name in ("sam", "gocryptfs"):
        lines.append(f"| {NAMES[name]} | {statistics.median(run['unlocked'] for run in runs[name]):.3f} |")
    lines += ["", "## All runs", "", "|  | fresh, GB/s: least, median, most | again, GB/s: median |", "| --- | --- | --- |"]
    for name, each in runs.items():
        size = each[0]["size"]
        rates = sorted(size / run["times"][0] / 1e9 for run in each)
        again = "-"
        if name in AGAIN:
            again = f"{statistics.median(size / min(run['times'][1:]) / 1e9 for run in each):.2f}"
        lines.append(f"| {NAMES[name]} | {rates[0]:.2f}, {statistics.median(rates):.2f}, {rates[-1]:.2f} | {again} |")
    lines += ["", "## Machine", "", "|  |  |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in machine()]
    return "\n".join(lines) + "\n"


def machine() -> Iterator[tuple[str, str]]:
    """What this ran on."""
    import importlib.metadata
    import platform

    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            yield "processor", line.split(":", 1)[1].strip()
            break
    yield "threads", str(os.cpu_count())
    yield "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.1f} GiB"
    yield "kernel", f"{platform.system()} {platform.release()}"
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if pages.exists():
        yield "huge pages", pages.read_text().strip()
    yield "python", platform.python_version()
    for package in ("torch", "safetensors", "cryptotensors", "tensorizer"):
        yield package, importlib.metadata.version(package)
    yield "load after", " ".join(f"{load:.2f}" for load in os.getloadavg())


if __name__ == "__main__":
    main()
