"""vLLM as a program of its own, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
# What the tests ask for, of servers and without them.
ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.3,
}
FORMATS = ("--load-format", "modelseal", "--config-format", "modelseal", "--tokenizer-mode", "modelseal")


class Place:
    """Where a vLLM keeps all that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home, self.temporary = folder / "home", folder / "tmp"
        for made in (self.home, self.temporary):
            made.mkdir(parents=True)
        # Of files that are older, nothing is new.
        self.begin = time.time()

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODELSEAL_", "VLLM_"))}
        return kept | {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            **more,
        }

    def new_files(self) -> Iterator[Path]:
        """All files of anybody that are new, and can be looked into."""
        for root in (self.folder, "/tmp", "/var/tmp", "/dev/shm", "/run", Path.home()):
            for folder, _, names in os.walk(root):
                for name in names:
                    path = Path(folder, name)
                    try:
                        status = path.lstat()
                    except OSError:
                        continue
                    if stat.S_ISREG(status.st_mode) and status.st_mtime >= self.begin - 1:
                        yield path

    def found(self, needles: Iterable[bytes]) -> set[Path]:
        """New files that have one of the needles in them."""
        needles = list(needles)
        found = set()
        for path in self.new_files():
            try:
                content = path.read_bytes()
            except OSError:
                continue
            if any(needle in content for needle in needles):
                found.add(path)
        return found


class Server:
    """A server that answers."""

    def __init__(self, port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.port, self.log, self.process = port, log, process

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            json.dumps(body).encode() if body else None,
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=240) as answer:
            return json.load(answer)

    def is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def arguments(port: int) -> list[str]:
    """The options of a server."""
    options = ["--port", str(port), "--host", "127.0.0.1"]
    for name, value in ENGINE.items():
        options += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return options


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(place: Place, command: list[str], port: int, **environment: str) -> Iterator[Server]:
    """Runs a command until it ends, which serves at a port."""
    log = place.folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=place.environment(**environment),
            cwd=place.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(port, log, process)
    try:
        until = time.monotonic() + 420
        while not server.is_healthy():
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-8000:]
            time.sleep(0.2)
        yield server
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        # All that it started, too.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(60)


# Prints what a model answers without a server, as JSON in the last line.
OFFLINE = """
import json, os, sys
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
from vllm import LLM, SamplingParams

def main(model, questions, options):
    llm = LLM(model, **options)
    if questions.get("embed"):
        answer = [output.outputs.embedding for output in llm.embed(questions["embed"])]
    else:
        greedy = SamplingParams(temperature=0, repetition_penalty=1, max_tokens=16)
        defaults = llm.get_default_sampling_params()
        answer = {
            "prompt": list(llm.generate([questions["prompt"]], greedy)[0].outputs[0].token_ids),
            "chat": list(llm.chat(questions["chat"], greedy)[0].outputs[0].token_ids),
            "defaults": [defaults.temperature, defaults.top_k, defaults.repetition_penalty],
        }
    print(json.dumps(answer))

main(*json.loads(sys.argv[1]))
"""


def offline(place: Place, model: Path, questions: dict[str, Any], options: dict[str, Any], **environment: str) -> Any:
    """What a model answers; and what vLLM said to it stands in the log."""
    log = place.folder / "log"
    with log.open("ab") as errors:
        done = subprocess.run(
            [sys.executable, "-c", OFFLINE, json.dumps([str(model), questions, ENGINE | options])],
            env=place.environment(**environment),
            cwd=place.folder,
            stdout=subprocess.PIPE,
            stderr=errors,
            timeout=420,
        )
        errors.write(done.stdout)
    assert done.returncode == 0, log.read_text()[-8000:]
    return json.loads(done.stdout.splitlines()[-1])
