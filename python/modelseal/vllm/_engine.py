"""Where the plugin takes hold in vLLM."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from vllm.engine.arg_utils import EngineArgs
from vllm.logger import init_logger
from vllm.model_executor.model_loader import register_model_loader
from vllm.renderers.registry import RENDERER_REGISTRY
from vllm.tokenizers.hf import CachedHfTokenizer
from vllm.tokenizers.registry import TokenizerRegistry
from vllm.transformers_utils.config import HFConfigParser, register_config_parser

from modelseal.vllm._beside import beside, noted
from modelseal.vllm._loader import SealedModelLoader
from modelseal.vllm._options import LOCATIONS, NAME, checked, is_sealed

logger = init_logger("vllm.modelseal")

_registered = False


def register() -> None:
    """Makes vLLM know all that is called `modelseal` in its options."""
    global _registered
    if _registered:
        return
    # Both are there, or an AttributeError comes before anything is changed.
    making = (EngineArgs.create_engine_config, EngineArgs.create_model_config)
    register_model_loader(NAME)(SealedModelLoader)
    register_config_parser(NAME)(SealedConfigParser)
    TokenizerRegistry.register(NAME, __name__, SealedTokenizer.__name__)
    RENDERER_REGISTRY.register(NAME, "vllm.renderers.hf", "HfRenderer")
    for method in making:
        setattr(EngineArgs, method.__name__, _preparing(method))
    _registered = True


def _preparing(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` of the engine's options, which has them prepared before.

    The registries do not suffice: vLLM reads the defaults of generation, the pooling of embeddings, processors and more from
    paths below the model's, without asking any of them, and fetches what is at s3:// itself.
    """

    @functools.wraps(method)
    def prepared(self: Any, *args: Any, **kwargs: Any) -> Any:
        prepare(self)
        return method(self, *args, **kwargs)

    return prepared


def prepare(args: Any) -> None:
    """Puts the directory of what stands beside the weights in the place of a sealed model."""
    if NAME not in (args.load_format, args.config_format, args.tokenizer_mode):
        return
    if args.load_format not in (NAME, "auto"):
        raise ValueError(f"load format {args.load_format} knows no sealed models; use --load-format {NAME}")
    options = checked(args.model_loader_extra_config or {})
    if noted(args.model) is not None:
        return
    location = args.model
    args.load_format = NAME
    place = str(beside(location, options, args.trust_remote_code))
    if not args.served_model_name:
        args.served_model_name = [location]
    for name in ("tokenizer", "hf_config_path", "generation_config"):
        if getattr(args, name) == location:
            setattr(args, name, place)
    args.model = place
    # All there is plain, and vLLM's own ways with it are the best.
    for name in ("config_format", "tokenizer_mode"):
        if getattr(args, name) == NAME:
            setattr(args, name, "auto")
    locations = {place: _lasting(location)} | _prepare_draft(args, options)
    args.model_loader_extra_config = options | {LOCATIONS: locations}
    logger.info("%s is sealed; what stands beside its weights is linked from %s", location, place)


def _prepare_draft(args: Any, options: dict[str, Any]) -> dict[str, str]:
    """The same for the model that drafts tokens, where that is sealed as well. Returns what is of which model."""
    speculative = args.speculative_config
    given = speculative.get("model") if isinstance(speculative, dict) else None
    draft = given or getattr(args, "spec_model", None)
    if not isinstance(draft, str) or not is_sealed(draft, options):
        return {}
    place = str(beside(draft, options, args.trust_remote_code))
    if given:
        args.speculative_config = speculative | {"model": place}
    else:
        args.spec_model = place
    return {place: _lasting(draft)}


def _lasting(location: str) -> str:
    """A location that is the same in each working directory."""
    return location if "://" in location else os.path.abspath(location)


class SealedConfigParser(HFConfigParser):  # type: ignore[misc]
    """For whoever makes a configuration without the engine's options."""

    def parse(self, model: Any, trust_remote_code: bool, *args: Any, **kwargs: Any) -> Any:
        return super().parse(beside(str(model), {}, trust_remote_code), trust_remote_code, *args, **kwargs)


class SealedTokenizer(CachedHfTokenizer):  # type: ignore[misc]
    """The same, for tokenizers."""

    @classmethod
    def from_pretrained(cls, location: Any, *args: Any, trust_remote_code: bool = False, **kwargs: Any) -> Any:
        place = beside(str(location), {}, trust_remote_code)
        return super().from_pretrained(place, *args, trust_remote_code=trust_remote_code, **kwargs)
