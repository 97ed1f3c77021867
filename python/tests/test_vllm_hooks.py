"""The plugin's parts in vLLM, without starting it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import KEY, Sealer

import modelseal

pytest.importorskip("vllm")
torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

from vllm.config import VllmConfig, set_current_vllm_config  # noqa: E402
from vllm.config.load import LoadConfig  # noqa: E402

from modelseal._deferred import Deferred  # noqa: E402
from modelseal.vllm import _engine, _loader  # noqa: E402
from modelseal.vllm._beside import beside, noted  # noqa: E402


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_bytes(KEY)
    return f"file:{tmp_path / 'key'}"


def make(folder: Path, **shards: Iterable[str]) -> Path:
    """A model with tensors of these names in its shards."""
    folder.mkdir()
    for shard, names in shards.items():
        save_file({name: torch.ones(4) for name in names}, folder / f"{shard}.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def loader(key: str, **options: Any) -> _loader.SealedModelLoader:
    config = LoadConfig(load_format="modelseal", model_loader_extra_config={"key": key, **options})
    return _loader.SealedModelLoader(config)


def names(loader: _loader.SealedModelLoader, model: object, **attributes: Any) -> set[str]:
    """Of the tensors that a model is loaded with."""
    config = SimpleNamespace(model=str(model), revision=None)
    return {name for name, _ in loader.get_all_weights(config, SimpleNamespace(**attributes))}


def test_each_model_gets_its_own_weights(tmp_path: Path, sealer: Sealer, key: str) -> None:
    plain = make(tmp_path / "plain", model=["plain"])
    one = sealer(make(tmp_path / "one", model=["one"]), "gocryptfs")
    other = sealer(make(tmp_path / "other", model=["other"]), "gocryptfs")
    # The directory of links is of another machine.
    loading = loader(key, locations={"/elsewhere/links": str(one)})
    assert names(loading, "/elsewhere/links") == {"one"}
    assert names(loading, plain) == {"plain"}
    assert names(loading, other) == {"other"}
    assert names(loading, beside(str(other), {"key": key})) == {"other"}


@pytest.mark.parametrize("indexed", [False, True])
def test_files_of_mistral_go_first(indexed: bool, tmp_path: Path, sealer: Sealer, key: str) -> None:
    shards = {"consolidated": ["theirs"], "model": ["others"]}
    plain = make(tmp_path / "plain", **shards)
    if indexed:
        index = '{"weight_map": {"theirs": "consolidated.safetensors"}}'
        (plain / "consolidated.safetensors.index.json").write_text(index)
    assert names(loader(key), sealer(plain, "gocryptfs")) == names(loader(key), plain) == {"theirs"}


@pytest.mark.parametrize("what", [{"allow_patterns_overrides": ["part/*"]}, {"secondary_weights": [None]}, {}])
def test_weights_that_are_more_than_files_of_tensors_are_refused(
    what: dict[str, Any], tmp_path: Path, sealer: Sealer, key: str
) -> None:
    sealed = sealer(make(tmp_path / "plain", model=["one"]), "gocryptfs")
    loading = loader(key)
    if not what:
        # As vLLM does itself.
        loading.load_config.safetensors_load_strategy = "torchao"
    with pytest.raises(ValueError, match="modelseal run"):
        names(loading, sealed, **what)


@pytest.mark.parametrize("by", ["speculative_config", "spec_model"])
def test_what_drafts_may_be_sealed_or_plain(by: str, tmp_path: Path, sealer: Sealer, key: str) -> None:
    plain = make(tmp_path / "plain", model=["plain"])
    sealed = sealer(make(tmp_path / "one", model=["one"]), "gocryptfs")
    for draft in (str(plain), "somebody/something", str(sealed)):
        args = SimpleNamespace(
            model=str(sealed),
            load_format="modelseal",
            config_format="auto",
            tokenizer_mode="auto",
            tokenizer=None,
            hf_config_path=None,
            generation_config="auto",
            model_loader_extra_config={"key": key},
            trust_remote_code=False,
            served_model_name=None,
            speculative_config={"model": draft} if by == "speculative_config" else None,
            spec_model=draft if by == "spec_model" else None,
        )
        _engine.prepare(args)
        given = args.spec_model or args.speculative_config["model"]
        assert noted(given) == str(sealed) if draft == str(sealed) else given == draft
        assert args.model_loader_extra_config["locations"][args.model] == str(sealed)


def test_a_model_that_was_sealed_anew_is_read_anew(tmp_path: Path, sealer: Sealer, key: str) -> None:
    plain = make(tmp_path / "plain", model=["one"])
    sealed = tmp_path / "sealed"
    modelseal.seal(plain, sealed, KEY, scrypt_n=10)
    before = beside(str(sealed), {"key": key})
    assert beside(str(sealed), {"key": key}) == before
    sealed.rename(tmp_path / "old")
    (plain / "config.json").write_text('{"new": 1}')
    modelseal.seal(plain, sealed, KEY, scrypt_n=10)
    assert (beside(str(sealed), {"key": key}) / "config.json").read_text() == '{"new": 1}'
    assert (before / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("expected", "nodes", "options"),
    [
        (1, 1, {}),
        (8, 1, {"world_size": 8}),
        (8, 2, {"world_size": 16}),
        (16, 1, {"world_size": 8, "data_parallel_size": 2, "data_parallel_size_local": 2}),
        (8, 2, {"world_size": 8, "data_parallel_size": 2}),
        (8, 1, {"world_size": 8, "data_parallel_size": 2}),
        (1, 1, {"world_size": 8, "distributed_executor_backend": "external_launcher"}),
    ],
)
def test_the_processes_of_a_node_are_counted(
    expected: int, nodes: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parallel = {"world_size": 1, "data_parallel_size": 1, "data_parallel_size_local": 1, "data_parallel_index": 0}
    parallel |= {"tensor_parallel_size": 8, "distributed_executor_backend": "mp"} | options
    model = SimpleNamespace(model="here")
    config = SimpleNamespace(instance_id="1", model_config=model, parallel_config=SimpleNamespace(**parallel))
    monkeypatch.setattr("vllm.config.get_current_vllm_config", lambda: config)
    monkeypatch.setattr("vllm.distributed.parallel_state.get_node_count", lambda: nodes)
    ranks = _loader._ranks(model)
    assert ranks.count == expected
    parallel["data_parallel_index"] = 1
    config.parallel_config = SimpleNamespace(**parallel)
    together = parallel["data_parallel_size"] > 1 or expected == 1 < parallel["world_size"]
    assert (_loader._ranks(model).name == ranks.name) is together


def test_parameters_are_to_lie_in_huge_pages(
    tmp_path: Path, sealer: Sealer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(_loader, "prefer_huge_pages", lambda array: asked.append((array.ctypes.data, array.nbytes)))
    big = torch.nn.Parameter(torch.empty(1024, 1024, dtype=torch.bfloat16))
    others = [torch.empty(4), torch.empty(2048, 1024).t(), torch.empty(1 << 20, device="meta")]
    parameters = [big, *(torch.nn.Parameter(other) for other in others)]
    sealed = sealer(make(tmp_path / "plain", model=["there"]), "gocryptfs")
    assert names(loader(key), sealed, parameters=lambda: parameters) == {"there"}
    assert asked == [(big.data_ptr(), 2 << 20)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_on_the_cpu_weights_are_decrypted_into_the_parameters(
    device: str, tmp_path: Path, sealer: Sealer, key: str
) -> None:
    sealed = sealer(make(tmp_path / "plain", model=["there"]), "gocryptfs")
    parameters = [torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(4, device=device))]
    config = SimpleNamespace(model=str(sealed), revision=None)
    model = SimpleNamespace(parameters=lambda: parameters)
    for name, tensor in loader(key).get_all_weights(config, model):
        assert (name, type(tensor) is Deferred) == ("there", device == "cpu")
        parameters[0].data.copy_(tensor)
        assert device != "cpu" or tensor._sealed._whole is None
    assert parameters[0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("collects", [False, True])
def test_what_was_decrypted_is_told(
    collects: bool, tmp_path: Path, sealer: Sealer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(_loader.logger, "info", lambda _, *values: told.append(values))
    sealed = sealer(make(tmp_path / "plain", model=["one", "other"]), "gocryptfs")

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = (torch.nn.Parameter(torch.zeros(4)) for _ in range(2))

        def load_weights(self, weights: Iterable[tuple[str, Any]]) -> set[str]:
            for name, tensor in list(weights) if collects else weights:
                self.get_parameter(name).data.copy_(tensor)
            return {"one", "other"}

    model = Model()
    config = SimpleNamespace(model=str(sealed), revision=None, quantization=None, is_moe=False, multimodal_config=None)
    loading = loader(key)
    with set_current_vllm_config(VllmConfig()):
        loading.load_weights(model, config)
    ((location, decrypted, *_),) = [values for values in told if values[0] == str(sealed)]
    assert decrypted > 0
    # Whoever takes them without it is told as well.
    model.load_weights(loading.get_all_weights(config, model))
    assert model.one.tolist() == [1, 1, 1, 1]
    assert len([values for values in told if values[0] == str(sealed)]) == 2
