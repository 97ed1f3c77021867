"""The loader of weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

from vllm.logger import init_logger
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from modelseal._model import Model
from modelseal.safetensors import Tensors
from modelseal.vllm._beside import noted
from modelseal.vllm._options import LOCATION, NAME, checked, opened
from modelseal.vllm._shared import shared

logger = init_logger("vllm.modelseal")


class SealedModelLoader(DefaultModelLoader):  # type: ignore[misc]
    """vLLM's own loader, whose tensors come from a sealed model."""

    def __init__(self, load_config: Any) -> None:
        self._options = checked(load_config.model_loader_extra_config or {})
        super().__init__(dataclasses.replace(load_config, load_format="auto", model_loader_extra_config={}))
        self.load_config = load_config

    def download_model(self, model_config: Any) -> None:
        """It is read from where it lies."""

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Any]]:
        if getattr(model, "secondary_weights", ()):
            raise ValueError(
                f"{type(model).__name__} has weights besides those of the model, which load format {NAME} does not know; serve "
                "it with `modelseal run --key REF LOCATION -- vllm serve {}`"
            )
        location = noted(model_config.model) or self._options.get(LOCATION) or model_config.model
        self.counter_before_loading_weights = time.perf_counter()
        ranks = _ranks(model_config)
        progress = _shows_progress(self.load_config.use_tqdm_on_load)
        begin = time.perf_counter()
        with Opening(location, self._options) as sealed:
            if ranks.count == 1:
                tensors = sealed.tensors().items(progress=progress)
            else:
                tensors = shared(ranks.name, ranks.count, sealed, progress)
            for name, tensor in tensors:
                if not self._is_elsewhere(name):
                    yield name, tensor
                del tensor
            logger.info(
                "%s: %d bytes decrypted in this process, for %d on this node, in %.2f s, of which %.2f s for the key and opening",
                location,
                sealed.decrypted_bytes,
                ranks.count,
                time.perf_counter() - begin,
                sealed.seconds,
            )

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a tensor is of an expert that another rank has."""
        local = getattr(self, "local_expert_ids", None)
        if local is None:
            return False
        from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

        return bool(should_skip_weight(name, local))


class Opening:
    """A model that is opened when it is needed first."""

    def __init__(self, location: str, options: dict[str, Any]) -> None:
        self.location = location
        self.seconds = 0.0
        self._options = options
        self._model: Model | None = None

    def model(self) -> Model:
        if self._model is None:
            begin = time.perf_counter()
            self._model = opened(self.location, self._options)
            self.seconds = time.perf_counter() - begin
        return self._model

    def tensors(self) -> Tensors:
        return Tensors(self.model())

    @property
    def decrypted_bytes(self) -> int:
        return 0 if self._model is None else self._model.decrypted_bytes

    def __enter__(self) -> Opening:
        return self

    def __exit__(self, *_: object) -> None:
        if self._model is not None:
            self._model.close()


@dataclasses.dataclass
class Ranks:
    """The processes on this node that load the same model at the same time."""

    count: int
    name: str
    """What they, and nobody else, call it."""


def _ranks(model_config: Any) -> Ranks:
    from vllm.config import get_current_vllm_config

    config = get_current_vllm_config()
    parallel = config.parallel_config
    count = parallel.world_size
    if model_config is not config.model_config:
        # Only the last stage of a pipeline drafts.
        count = parallel.tensor_parallel_size
    count = max(1, count // _nodes(parallel)) * max(1, getattr(parallel, "data_parallel_size_local", 1))
    return Ranks(count, f"{config.instance_id} {model_config.model}")


def _nodes(parallel: Any) -> int:
    try:
        from vllm.distributed.parallel_state import get_node_count

        return max(1, int(get_node_count()))
    except (ImportError, AssertionError):
        return max(1, int(getattr(parallel, "nnodes", 1)))


def _shows_progress(asked: bool) -> bool:
    from vllm.model_executor.model_loader.weight_utils import enable_tqdm

    return bool(enable_tqdm(asked))
