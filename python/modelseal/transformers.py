"""Models and tokenizers of transformers, of which nothing but ciphertext is ever in a file.

    from modelseal.transformers import from_pretrained

    model = from_pretrained("vault", key="kbs:///models/llm/key", auto_class="AutoModelForCausalLM")
    tokenizer = from_pretrained("vault", key="kbs:///models/llm/key", auto_class="AutoTokenizer")

Code that comes with a model is not run: whoever needs `trust_remote_code` mounts the model or stages it (`modelseal run`).
"""

from __future__ import annotations

import json
from typing import Any, Unpack

from modelseal._model import Model, opened
from modelseal._modelseal import FormatError
from modelseal._options import Key, Location, Options
from modelseal.safetensors import Tensors

__all__ = ["config", "from_pretrained", "generation_config", "tokenizer"]


def from_pretrained(
    location: Location | Model,
    key: Key | None = None,
    *,
    auto_class: str | type = "AutoModel",
    path: str = "",
    device: Any = "cpu",
    progress: bool = False,
    model_args: dict[str, Any] | None = None,
    **options: Unpack[Options],
) -> Any:
    """What `auto_class.from_pretrained` makes of a plain directory.

    `auto_class` is a class of transformers or its name: AutoModelForCausalLM, BertModel, AutoTokenizer, AutoConfig,
    GenerationConfig. `path` is a directory in the model, and `model_args` goes to a model's own `from_pretrained`: dtype,
    attn_implementation and the like.
    """
    import transformers

    kind: Any = getattr(transformers, auto_class) if isinstance(auto_class, str) else auto_class
    model, inner, is_ours = opened(location, key, options)
    try:
        place = _Directory(model, path or inner)
        if kind is transformers.AutoConfig or issubclass(kind, transformers.PretrainedConfig):
            return place.config()
        if kind is transformers.GenerationConfig:
            return place.generation_config()
        if kind is transformers.AutoTokenizer or issubclass(kind, transformers.PreTrainedTokenizerBase):
            return place.tokenizer()
        return place.model(kind, device, progress, dict(model_args or {}))
    finally:
        if is_ours:
            model.close()


def config(location: Location | Model, key: Key | None = None, **options: Unpack[Options]) -> Any:
    """The configuration of a model."""
    return from_pretrained(location, key, auto_class="AutoConfig", **options)


def generation_config(location: Location | Model, key: Key | None = None, **options: Unpack[Options]) -> Any:
    """What a model generates by, where it says so."""
    return from_pretrained(location, key, auto_class="GenerationConfig", **options)


def tokenizer(location: Location | Model, key: Key | None = None, **options: Unpack[Options]) -> Any:
    """The tokenizer of a model, from its tokenizer.json."""
    return from_pretrained(location, key, auto_class="AutoTokenizer", **options)


class _Directory:
    """A directory of transformers in a sealed model."""

    def __init__(self, model: Model, path: str) -> None:
        self._model = model
        self._path = f"{path.rstrip('/')}/" if path else ""

    def _json(self, name: str) -> Any:
        """A file's JSON; None where there is no such file."""
        text = self._text(name)
        try:
            return None if text is None else json.loads(text)
        except ValueError as error:
            raise FormatError(f"{self._path}{name} is not JSON: {error}") from error

    def _text(self, name: str) -> str | None:
        if not self._model.exists(self._path + name):
            return None
        return self._model.read(self._path + name).decode()

    def config(self) -> Any:
        from transformers import AutoConfig

        content = self._needed("config.json")
        if "auto_map" in content and content.get("model_type") not in _known_types():
            raise FormatError(
                f"{self._path}config.json names code of its own (auto_map), which is not run from a sealed model; mount the "
                "model or stage it: modelseal run --key REF LOCATION -- COMMAND {}"
            )
        kind = content.pop("model_type", None)
        if kind is None:
            raise FormatError(f"{self._path}config.json has no model_type")
        return AutoConfig.for_model(kind).from_dict(content)

    def generation_config(self) -> Any:
        from transformers import GenerationConfig

        content = self._json("generation_config.json")
        return None if content is None else GenerationConfig.from_dict(content)

    def tokenizer(self) -> Any:
        import transformers
        from tokenizers import Tokenizer

        text = self._text("tokenizer.json")
        if text is None:
            raise FormatError(
                f"there is no {self._path}tokenizer.json; save the tokenizer as a fast one before it is sealed, or mount the "
                "model or stage it"
            )
        said = self._json("tokenizer_config.json") or {}
        special = self._json("special_tokens_map.json") or {}
        template = self._text("chat_template.jinja")
        if template is not None:
            said["chat_template"] = template
        kind = getattr(transformers, str(said.pop("tokenizer_class", None)), None)
        if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedTokenizerFast)):
            kind = transformers.PreTrainedTokenizerFast
        for unneeded in ("auto_map", "name_or_path", "tokenizer_file", "vocab_file", "merges_file"):
            said.pop(unneeded, None)
        arguments = {name: _token(value) for name, value in {**special, **said}.items()}
        return kind(tokenizer_object=Tokenizer.from_str(text), **arguments)

    def model(self, kind: Any, device: Any, progress: bool, arguments: dict[str, Any]) -> Any:
        import torch

        config = self.config()
        state = Tensors(self._model, self._path).load_all("pt", device, progress=progress)
        if hasattr(kind, "from_config"):
            with torch.device("meta"):
                kind = type(kind.from_config(config))
        arguments.setdefault("dtype", "auto")
        made = kind.from_pretrained(None, config=config, state_dict=state, **arguments)
        # Nothing can be read from there as it is; it only says where the model came from.
        made.config.name_or_path = self._model.location
        generation = self.generation_config()
        if generation is not None and hasattr(made, "generation_config"):
            made.generation_config = generation
        return made

    def _needed(self, name: str) -> dict[str, Any]:
        content = self._json(name)
        if not isinstance(content, dict):
            raise FormatError(f"there is no {self._path}{name}")
        return content


def _known_types() -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING


def _token(value: Any) -> Any:
    """A token with its properties, as tokenizer configurations write it."""
    if isinstance(value, dict) and "content" in value:
        from tokenizers import AddedToken

        kept = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        return AddedToken(**{name: value[name] for name in kept if name in value})
    return value
