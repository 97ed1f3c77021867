"""Loads a sealed model of sentence-transformers by the Python package and compares it with the plain one: a digest of its
tensors, and an embedding where torch and transformers are there. `demo.py PLAIN SEALED KEY`"""

import hashlib
import importlib.util
import json
import os
import sys
import time
import warnings
from pathlib import Path

import modelseal
from modelseal.safetensors import Tensors

TEXT = "Weights stay sealed until they are in memory."


def main() -> None:
    plain, sealed, key = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    with modelseal.open(sealed, key) as model:
        begin = time.perf_counter()
        ours = sealed_digest(Tensors(model))
        seconds = time.perf_counter() - begin
        theirs = plain_digest(plain / "model.safetensors")
        print(f"tensors  {ours} in {seconds:.3f} s, hashed in one go")
        if ours != theirs:
            sys.exit(f"the plain ones have another digest: {theirs}")
        print("         as the plain ones have it")
        if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
            compare_embeddings(model, plain)


def sealed_digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    arrays = tensors.load_all("np")
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(memoryview(arrays[name]).cast("B"))
    return digest.hexdigest()


def plain_digest(path: Path) -> str:
    """The same of a plain file, read by nothing of ours."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    header.pop("__metadata__", None)
    digest = hashlib.sha256()
    for name in sorted(header):
        start, end = header[name]["data_offsets"]
        digest.update(name.encode())
        digest.update(content[data + start : data + end])
    return digest.hexdigest()


def compare_embeddings(model: modelseal.Model, plain: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    import torch
    import transformers

    from modelseal.transformers import from_pretrained

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    def embed(network, tokenizer):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            words = network(**tokenizer(TEXT, return_tensors="pt")).last_hidden_state
        return torch.nn.functional.normalize(words.mean(dim=1), dim=1)[0]

    ours = embed(from_pretrained(model), from_pretrained(model, auto_class="AutoTokenizer"))
    theirs = embed(transformers.AutoModel.from_pretrained(plain), transformers.AutoTokenizer.from_pretrained(plain))
    print(f"embedding of {TEXT!r}: {', '.join(f'{each:.6f}' for each in ours[:4])}, ... ({len(ours)} numbers)")
    if not torch.equal(ours, theirs):
        sys.exit("the plain model embeds it otherwise")
    print("         as the plain model embeds it")


if __name__ == "__main__":
    main()
