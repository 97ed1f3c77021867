"""Models for vLLM, small enough to be made for a test."""

from __future__ import annotations

import json
from pathlib import Path

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "sealed weights are opened in memory alone",
    "a key is fetched once the machine has been judged",
]
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tiny(folder: Path, seed: int = 0) -> Path:
    """A Qwen2 with random weights in several shards, with defaults of generation and a chat template."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=512,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder, max_shard_size="1MB")
    base = ByteLevelBPETokenizer()
    base.train_from_iterator(SENTENCES, vocab_size=400, special_tokens=["<|end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base._tokenizer, eos_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    # What is served differs from greedy sampling where this is not read.
    GenerationConfig(do_sample=True, temperature=0.6, top_k=7, repetition_penalty=1.9).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1 and json.loads((folder / "generation_config.json").read_text())
    return folder
