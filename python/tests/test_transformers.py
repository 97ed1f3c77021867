"""Models and tokenizers of transformers, without a plaintext file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, KEY, Sealer, trust

import modelseal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from modelseal.transformers import config, from_pretrained, generation_config, tokenizer  # noqa: E402

TEXTS = ["the quick brown fox", "jumps over the lazy dog", "weights stay sealed", "Ünïcode too: 1234"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with tied weights in shards, and its tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(1)
    kind = transformers.Qwen2Config(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=0,
    )  # fmt: skip
    model = transformers.Qwen2ForCausalLM(kind).to(torch.bfloat16)
    model.generation_config.max_new_tokens = 7
    model.generation_config.repetition_penalty = 1.25
    model.save_pretrained(folder, max_shard_size="100KB")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=["<end>", "<user>"]))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="<end>", model_max_length=99)
    made.chat_template = "{% for m in messages %}<user>{{ m['content'] }}{% endfor %}"
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FORMATS)
def place(request: pytest.FixtureRequest, plain: Path, sealer: Sealer) -> Path:
    return sealer(plain, request.param)


def test_a_model_is_the_same_as_from_plain_files(place: Path, plain: Path) -> None:
    expected = transformers.AutoModelForCausalLM.from_pretrained(plain)
    model = from_pretrained(place, KEY, auto_class="AutoModelForCausalLM", **trust(place))
    assert type(model) is type(expected) and model.dtype == expected.dtype == torch.bfloat16
    assert not model.training
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ours, theirs = model.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for (name, buffer), (other, same) in zip(model.named_buffers(), expected.named_buffers(), strict=True):
        assert name == other and torch.equal(buffer, same) and buffer.device.type == "cpu"
    assert model.generation_config.to_dict() == expected.generation_config.to_dict()
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(model.generate(tokens), expected.generate(tokens))
    assert model.config.name_or_path == str(place)


def test_classes_are_named_or_given(place: Path) -> None:
    with modelseal.open(place, KEY, **trust(place)) as model:
        base = from_pretrained(model)
        assert type(base) is transformers.Qwen2Model
        same = from_pretrained(model, auto_class=transformers.Qwen2ForCausalLM, arguments={"dtype": torch.float32})
        assert same.dtype == torch.float32
        assert torch.equal(base.embed_tokens.weight.float(), same.model.embed_tokens.weight)
        assert config(model).hidden_size == 64
        assert generation_config(model).max_new_tokens == 7


def test_a_tokenizer_is_the_same(place: Path, plain: Path) -> None:
    expected = transformers.AutoTokenizer.from_pretrained(plain)
    made = tokenizer(place, KEY, **trust(place))
    for text in [*TEXTS, "<end> <user> and what was never seen: 日本"]:
        assert made(text)["input_ids"] == expected(text)["input_ids"]
        assert made.decode(made(text)["input_ids"]) == expected.decode(expected(text)["input_ids"])
    chat = [{"role": "user", "content": TEXTS[0]}]
    assert made.apply_chat_template(chat, tokenize=False) == expected.apply_chat_template(chat, tokenize=False)
    assert (made.eos_token, made.model_max_length) == ("<end>", 99)
    assert made.special_tokens_map == expected.special_tokens_map


def test_what_cannot_be_made_from_memory_says_what_to_do(plain: Path, tmp_path: Path, sealer: Sealer) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content: dict[str, Any] = {"model_type": "not_known", "auto_map": {"AutoModel": "code.Model"}}
    (source / "config.json").write_text(json.dumps(content))
    place = sealer(source, "gocryptfs")
    with pytest.raises(modelseal.FormatError, match="modelseal run"):
        from_pretrained(place, KEY)
    with pytest.raises((OSError, ValueError), match="okenizer|model"):
        tokenizer(place, KEY)
    with pytest.raises(ValueError, match="modelseal run"):
        from_pretrained(place, KEY, arguments={"trust_remote_code": True})
    assert generation_config(place, KEY) is None
    (tmp_path / "nothing").mkdir()
    empty = sealer(tmp_path / "nothing", "gocryptfs")
    with pytest.raises(modelseal.FormatError, match="config.json"):
        config(empty, KEY)


def test_no_plaintext_is_in_any_file_system(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from modelseal._links import linked

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with modelseal.open(place, KEY, **trust(place)) as model:
        with linked(model) as links:
            held = sorted(links.iterdir())
            assert {link.name for link in held} >= {"config.json", "tokenizer.json", "generation_config.json"}
            assert all(link.is_symlink() and str(link.readlink()).startswith("/proc/self/fd/") for link in held)
            assert (links / "config.json").read_bytes() == model.read("config.json")
            assert not any(link.name.endswith(("safetensors", "index.json")) for link in held)
            assert links.stat().st_mode & 0o777 == 0o700
        assert list(tmp_path.iterdir()) == []
        assert tokenizer(model) and config(model)
    assert list(tmp_path.iterdir()) == []
