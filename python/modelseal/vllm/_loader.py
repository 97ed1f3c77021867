"""The loader of weights."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

from vllm.logger import init_logger
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from modelseal._model import Model
from modelseal._modelseal import prefer_huge_pages
from modelseal.safetensors import Tensors
from modelseal.vllm._beside import noted
from modelseal.vllm._options import LOCATIONS, NAME, checked, is_sealed, opened
from modelseal.vllm._shared import shared

logger = init_logger("vllm.modelseal")

AHEAD = 64 << 20
"""Bytes that are decrypted ahead: enough for one tensor to be decrypted while another is copied, in memory that serves again."""

HUGE_PAGE = 2 << 20


class SealedModelLoader(DefaultModelLoader):  # type: ignore[misc]
    """vLLM's own loader, to which the tensors of sealed models come decrypted."""

    def __init__(self, load_config: Any) -> None:
        self._options = checked(load_config.model_loader_extra_config or {})
        self._to_tell: list[Callable[[], None]] | None = None
        super().__init__(dataclasses.replace(load_config, load_format="auto", model_loader_extra_config={}))

    def download_model(self, model_config: Any) -> None:
        """It is read from where it lies."""

    def load_weights(self, model: Any, model_config: Any) -> None:
        # Some models take all weights before they use the first.
        self._to_tell = []
        try:
            super().load_weights(model, model_config)
            for tell in self._to_tell:
                tell()
        finally:
            self._to_tell = None

    def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Any]]:
        location = self._location(model_config.model)
        if location is None:
            # Such as a plain model that drafts for a sealed one.
            yield from super().get_all_weights(model_config, model)
            return
        self._refuse_unfit(model)
        on_cpu = _expect_weights(model)
        ranks = _ranks(model_config)
        progress = _shows_progress(self.load_config.use_tqdm_on_load)
        begin = time.perf_counter()
        with Opening(location, self._options) as sealed:
            if ranks.count > 1:
                tensors = shared(ranks.name, ranks.count, sealed, progress)
            elif on_cpu and "://" not in location:
                tensors = sealed.tensors().deferred_items(progress=progress)
            else:
                tensors = sealed.tensors().items(ahead=AHEAD, progress=progress)
            # What vLLM logs is the time from here on.
            self.counter_before_loading_weights = time.perf_counter()
            for name, tensor in tensors:
                if not self._is_elsewhere(name):
                    yield name, tensor
                del tensor

        def tell() -> None:
            logger.info(
                "%s: %d bytes decrypted in this process, for %d on this node, in %.2f s, of which %.2f s for the key and opening",
                location,
                sealed.decrypted_bytes,
                ranks.count,
                time.perf_counter() - begin,
                sealed.seconds,
            )

        if self._to_tell is None:
            tell()
        else:
            self._to_tell.append(tell)

    def _location(self, model: str) -> str | None:
        """Where a model lies that vLLM knows by a path; None where it is not sealed."""
        known = noted(model) or self._options.get(LOCATIONS, {}).get(model)
        if known is None and is_sealed(model, self._options):
            known = model
        return known

    def _refuse_unfit(self, model: Any) -> None:
        what = None
        if getattr(model, "secondary_weights", ()) or getattr(model, "allow_patterns_overrides", None):
            what = "takes weights from other files than those of the model"
        if self.load_config.safetensors_load_strategy == "torchao":
            what = "is put together from what torchao has taken apart"
        if what is not None:
            raise ValueError(
                f"{type(model).__name__} {what}, which load format {NAME} does not know; serve it with "
                "`modelseal run --key REF LOCATION -- vllm serve {}`"
            )

    def _is_elsewhere(self, name: str) -> bool:
        """Whether a tensor is of an expert that another rank has."""
        local = getattr(self, "local_expert_ids", None)
        if local is None:
            return False
        from vllm.model_executor.model_loader.ep_weight_filter import should_skip_weight

        return bool(should_skip_weight(name, local))


def _expect_weights(model: Any) -> bool:
    """Has the parameters of a model on the CPU, which nothing was written to yet, lie in huge pages. Returns whether all are
    there."""
    import torch

    on_cpu = True
    for parameter in getattr(model, "parameters", tuple)():
        data = parameter.data
        if data.device.type != "cpu":
            on_cpu = False
        elif data.is_contiguous() and data.nbytes >= HUGE_PAGE:
            prefer_huge_pages(data.view(-1).view(torch.uint8).numpy())
    return on_cpu


class Opening:
    """A model that is opened when it is needed first."""

    def __init__(self, location: str, options: dict[str, Any]) -> None:
        self.location = location
        self.seconds = 0.0
        self._options = options
        self._model: Model | None = None
        self._handle: Any = None

    def model(self) -> Model:
        if self._model is None:
            begin = time.perf_counter()
            self._model = opened(self.location, self._options)
            self.seconds = time.perf_counter() - begin
            self._handle = self._model._check()
        return self._model

    def tensors(self) -> Tensors:
        model = self.model()
        # As vLLM does: where Mistral's own files are there as well, it takes them.
        own = sorted(entry.path for entry in model.ls() if fnmatch(entry.path, "consolidated*.safetensors*"))
        index = "consolidated.safetensors.index.json"
        if index in own:
            return Tensors(model, index)
        return Tensors(model, own[0]) if len(own) == 1 else Tensors(model)

    @property
    def decrypted_bytes(self) -> int:
        return 0 if self._handle is None else int(self._handle.decrypted_bytes)

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

    try:
        config = get_current_vllm_config()
    except AssertionError:
        # Older versions have none where weights are loaded anew.
        return Ranks(1, "")
    parallel = config.parallel_config
    if parallel.distributed_executor_backend == "external_launcher":
        # Each has an engine of its own, and nothing in common that others do not have.
        return Ranks(1, "")
    local = max(1, parallel.data_parallel_size_local)
    count = min(parallel.world_size * local, parallel.world_size * parallel.data_parallel_size // _nodes(parallel))
    if model_config is not config.model_config:
        # Only the last stage of a pipeline drafts.
        count = min(count, parallel.tensor_parallel_size * local)
    # Replicas that know nothing of each other start at any time.
    replica = parallel.data_parallel_index if parallel.data_parallel_size == 1 else "all"
    return Ranks(max(1, count), f"{config.instance_id} {replica} {model_config.model}")


def _nodes(parallel: Any) -> int:
    try:
        from vllm.distributed.parallel_state import get_node_count

        return max(1, int(get_node_count()))
    except (ImportError, AssertionError):
        return max(1, int(getattr(parallel, "nnodes", 1)))


def _shows_progress(asked: bool) -> bool:
    from vllm.model_executor.model_loader.weight_utils import enable_tqdm

    return bool(enable_tqdm(asked))
