"""Models, tokenizers and processors of transformers, of which nothing but ciphertext is ever in a file.

    from modelseal.transformers import from_pretrained

    model = from_pretrained("vault", key="kbs:///models/llm/key", auto_class="AutoModelForCausalLM")
    tokenizer = from_pretrained("vault", key="kbs:///models/llm/key", auto_class="AutoTokenizer")

Code that comes with a model is not run: whoever needs `trust_remote_code` mounts the model or stages it (`modelseal run`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Unpack

from modelseal._links import linked
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
    arguments: dict[str, Any] | None = None,
    **options: Unpack[Options],
) -> Any:
    """What `auto_class.from_pretrained` makes of a plain directory.

    `auto_class` is a class of transformers or its name: AutoModelForCausalLM, BertModel, AutoTokenizer, AutoProcessor,
    AutoConfig, GenerationConfig. `path` is a directory in the model, and `arguments` goes to the class's own
    `from_pretrained`: dtype, attn_implementation, padding_side and the like.
    """
    import transformers

    kind: Any = getattr(transformers, auto_class) if isinstance(auto_class, str) else auto_class
    model, inner, is_ours = opened(location, key, options)
    path = path or inner
    try:
        given = {"trust_remote_code": False, **(arguments or {})}
        if given["trust_remote_code"]:
            raise ValueError(_STAGE.format("code that comes with it is not run"))
        with linked(model, path) as place:
            if _makes_models(kind):
                made = _model(kind, model, path, place, device, progress, given)
            else:
                made = _other(kind, place, given)
        # Nothing can be read from there as it is; it only says where this came from.
        if hasattr(made, "name_or_path"):
            made.name_or_path = model.location
        return made
    finally:
        if is_ours:
            model.close()


def config(location: Location | Model, key: Key | None = None, **options: Unpack[Options]) -> Any:
    """The configuration of a model."""
    return from_pretrained(location, key, auto_class="AutoConfig", **options)


def generation_config(location: Location | Model, key: Key | None = None, **options: Unpack[Options]) -> Any:
    """What a model generates by; None where it does not say."""
    return from_pretrained(location, key, auto_class="GenerationConfig", **options)


def tokenizer(location: Location | Model, key: Key | None = None, **options: Unpack[Options]) -> Any:
    """The tokenizer of a model."""
    return from_pretrained(location, key, auto_class="AutoTokenizer", **options)


_STAGE = "{}; mount the model or stage it for that: modelseal run --key REF LOCATION -- COMMAND {{}}"


def _makes_models(kind: Any) -> bool:
    from transformers import PreTrainedModel

    return issubclass(kind, PreTrainedModel) or hasattr(kind, "from_config")


def _other(kind: Any, place: Path, arguments: dict[str, Any]) -> Any:
    """What is no model."""
    from transformers import AutoConfig, GenerationConfig, PretrainedConfig

    if kind is GenerationConfig:
        if not (place / "generation_config.json").exists():
            return None
        arguments.pop("trust_remote_code")
    if kind is AutoConfig or issubclass(kind, PretrainedConfig):
        _expect_config(place)
    return kind.from_pretrained(place, local_files_only=True, **arguments)


def _model(
    kind: Any, model: Model, path: str, place: Path, device: Any, progress: bool, arguments: dict[str, Any]
) -> Any:
    import torch
    from transformers import AutoConfig

    _expect_config(place)
    config = AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    arguments.pop("trust_remote_code")
    state = Tensors(model, path).load_all("pt", device, progress=progress)
    if hasattr(kind, "from_config"):
        with torch.device("meta"):
            kind = type(kind.from_config(config))
    made = kind.from_pretrained(None, config=config, state_dict=state, **arguments)
    made.config.name_or_path = model.location
    generation = _other(_generation(), place, {"trust_remote_code": False})
    if generation is not None and hasattr(made, "generation_config"):
        made.generation_config = generation
    return made


def _generation() -> Any:
    from transformers import GenerationConfig

    return GenerationConfig


def _expect_config(place: Path) -> None:
    """Refuses what transformers would ask on the terminal about."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        content = json.loads((place / "config.json").read_text())
        kind = content.get("model_type")
    except FileNotFoundError:
        raise FormatError("there is no config.json") from None
    except (ValueError, AttributeError) as error:
        raise FormatError(f"config.json is not a configuration: {error}") from error
    if "auto_map" in content and kind not in CONFIG_MAPPING:
        raise FormatError(_STAGE.format("config.json names code of its own (auto_map), which is not run"))
