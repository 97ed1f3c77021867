"""The phase of vLLM in which it loads weights, from a sealed model and from the plain one, by its own log.

    python python/benches/vllm_load.py [GIB] [ROUNDS]

A Qwen2 with random bf16 weights is loaded on the CPU, each time in a process of its own, in turns; no token is asked for. Prints
the best times and their ratio to the plain model's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import modelseal

KEY = b"a key for measuring alone"

# Ends once the weights are there. Just before, memory that the host of a virtual machine has taken back is made to be there again:
# what that takes varies more than all else.
LOAD = """
import json, mmap, os, sys
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
from vllm.config import set_current_vllm_config
from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader import get_model
config = EngineArgs(model=sys.argv[1], dtype="bfloat16", enforce_eager=True, **json.loads(sys.argv[2])).create_engine_config()
with set_current_vllm_config(config), tempfile.NamedTemporaryFile() as meeting:
    init_distributed_environment(1, 0, f"file://{meeting.name}", 0, "gloo")
    ensure_model_parallel_initialized(1, 1)
    with mmap.mmap(-1, int(sys.argv[3]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as free:
        free.madvise(mmap.MADV_HUGEPAGE)
        for place in range(0, len(free), 4096):
            free[place] = 1
    get_model(vllm_config=config)
os._exit(0)
"""
TOOK = re.compile(r"Loading weights took ([\d.]+) seconds")
OPENING = re.compile(r"of which ([\d.]+) s for the key and opening")


def main(gib: float, rounds: int) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("MODELSEAL_BENCH_DIR")) as name:
        folder = Path(name)
        plain = make(folder / "plain", gib)
        size = sum(path.stat().st_size for path in plain.glob("*.safetensors"))
        (folder / "key").write_bytes(KEY)
        modelseal.license.keygen(folder / "issuer.pem")
        modelseal.seal(plain, folder / "sam", KEY, format="sam", key_id="LD_Bench_0001", issuer_key=folder / "issuer.pem")
        modelseal.seal(plain, folder / "gocryptfs", KEY)
        options = {"load_format": "modelseal", "model_loader_extra_config": {"key": f"file:{folder / 'key'}"}}
        ways = {"plain": {}, "sam": options, "gocryptfs": options}
        times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, given in ways.items():
                taken = load(folder / way, given, 2 * size)
                # The first round fills the page cache.
                if number:
                    times[way].append(taken)
        print(f"{size / 2**30:.2f} GiB of bf16, {os.cpu_count()} cores, best of {rounds}")
        best = {way: min(each) for way, each in times.items()}
        for way, (took, opening) in best.items():
            apart = f", key and opening {opening:.2f} s besides" if way != "plain" else ""
            print(f"{way:10} {took:6.2f} s  {took / best['plain'][0]:5.2f} x plain{apart}")


def make(folder: Path, gib: float) -> Path:
    """A model of about that size."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hidden, inner = 2048, 8192
    layers = max(1, round(gib * 2**30 / 2 / (hidden * (2.5 * hidden + 3 * inner))))
    config = Qwen2Config(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    Qwen2ForCausalLM(config).save_pretrained(folder, max_shard_size="512MB")
    return folder


def load(model: Path, options: dict[str, object], memory: int) -> tuple[float, float]:
    """Seconds that vLLM says it took, and of those before that the loader opened the model."""
    command = [sys.executable, "-c", f"import tempfile{LOAD}", str(model), json.dumps(options), str(memory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took = TOOK.search(done.stdout)
    if done.returncode or not took:
        raise SystemExit(done.stdout)
    opening = OPENING.search(done.stdout)
    return float(took[1]), float(opening[1]) if opening else 0.0


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
