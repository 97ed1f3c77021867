"""Tensors: the same as from plain files, in memory of their own, and no more decrypted than asked for."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, KEY, Sealer, trust

import modelseal
from modelseal.safetensors import Tensors, load_file, load_model, safe_open

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")

from safetensors.torch import save_file  # noqa: E402

FLOATS = ["float64", "float32", "float16", "bfloat16", "float8_e5m2", "float8_e4m3fn"]
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


def make(dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """A tensor of random bits, but for what is no number of the dtype."""
    count = torch.empty(shape, dtype=dtype).numel() * dtype.itemsize
    if dtype == torch.bool:
        return torch.frombuffer(bytearray(random.Random(seed).randbytes(count)), dtype=torch.uint8).view(shape) > 99
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(random.Random(seed).randbytes(count)), dtype=dtype).view(shape)


def same(left: Any, right: Any) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return not left.numel() or raw(left).equal(raw(right))


def raw(tensor: Any) -> Any:
    """The bytes of a tensor."""
    return tensor.contiguous().view(-1).view(torch.uint8)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Tensors of every dtype, in shards with an index."""
    folder = tmp_path_factory.mktemp("tensors")
    tensors = {
        name: make(getattr(torch, name), (7, 5, 3), seed) for seed, name in enumerate([*FLOATS, *INTEGERS, "bool", "complex64"])
    }
    tensors["scalar"] = make(torch.float32, (), 40)
    tensors["empty"] = make(torch.int64, (0, 4), 41)
    tensors["odd"] = make(torch.uint8, (13,), 42)
    tensors["tall"] = make(torch.bfloat16, (640, 1000), 43)
    tensors["wide"] = make(torch.bfloat16, (4, 400_000), 44)
    names = sorted(tensors)
    weight_map = {}
    for number in range(3):
        shard = f"model-{number + 1:05}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[number::3]}
        save_file(part, folder / shard, metadata={"format": "pt", "number": str(number)})
        weight_map |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder, tensors


@pytest.fixture(scope="module", params=FORMATS)
def place(request: pytest.FixtureRequest, plain: tuple[Path, Any], sealer: Sealer) -> Path:
    return sealer(plain[0], request.param)


@pytest.fixture
def model(place: Path) -> Iterator[modelseal.Model]:
    with modelseal.open(place, KEY, **trust(place)) as model:
        yield model


def test_all_tensors_are_those_of_the_plain_files(place: Path, plain: tuple[Path, dict[str, Any]]) -> None:
    _, expected = plain
    loaded = load_file(place, key=KEY, **trust(place))
    assert loaded.keys() == expected.keys()
    assert all(same(loaded[name], expected[name]) for name in expected)


def test_one_file_of_a_model(place: Path, plain: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = plain
    shard = "model-00002-of-00003.safetensors"
    expected = safetensors.torch.load_file(folder / shard)
    loaded = load_file(place / shard, key=KEY, **trust(place))
    assert loaded.keys() == expected.keys()
    assert all(same(loaded[name], expected[name]) for name in expected)
    with safe_open(place / shard, "pt", key=KEY, **trust(place)) as ours, safetensors.safe_open(folder / shard, "pt") as theirs:
        assert ours.keys() == sorted(theirs.keys())
        assert ours.offset_keys() == list(theirs.offset_keys())
        assert ours.metadata() == theirs.metadata() == {"format": "pt", "number": "1"}
        for name in theirs.keys():
            assert same(ours.get_tensor(name), theirs.get_tensor(name))
            assert ours.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
            assert ours.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()


def test_tensors_have_storages_of_their_own(model: modelseal.Model, tmp_path: Path) -> None:
    loaded = load_file(model)
    for name, tensor in loaded.items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size(), name
        assert tensor.storage_offset() == 0
    # It refuses tensors that share memory.
    save_file(loaded, tmp_path / "saved.safetensors")
    again = safetensors.torch.load_file(tmp_path / "saved.safetensors")
    assert all(same(again[name], loaded[name]) for name in loaded)
    assert len(pickle.dumps(loaded["odd"])) < 2000
    assert same(pickle.loads(pickle.dumps(loaded["tall"])), loaded["tall"])
    torch.save(loaded, tmp_path / "saved.pt")
    assert (tmp_path / "saved.pt").stat().st_size < 2 * sum(t.untyped_storage().nbytes() for t in loaded.values())
    # They can be written to, and what is written stays apart.
    before = loaded["wide"].clone()
    loaded["tall"].zero_()
    assert same(loaded["wide"], before)


def test_tensors_outlive_the_model_and_each_other(place: Path, plain: tuple[Path, dict[str, Any]]) -> None:
    _, expected = plain
    with modelseal.open(place, KEY, **trust(place)) as model:
        loaded = load_file(model)
    for name in sorted(loaded):
        tensor = loaded.pop(name)
        assert same(tensor, expected[name])
        del tensor


def test_numpy_has_the_same(model: modelseal.Model, plain: tuple[Path, dict[str, Any]]) -> None:
    numpy = pytest.importorskip("numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    _, expected = plain
    loaded = load_file(model, framework="np")
    for name, tensor in expected.items():
        array = loaded[name]
        assert isinstance(array, numpy.ndarray) and array.shape == tuple(tensor.shape)
        assert array.tobytes() == (raw(tensor).numpy().tobytes() if tensor.numel() else b"")
    assert loaded["bfloat16"].dtype == ml_dtypes.bfloat16
    assert loaded["float32"].dtype == numpy.float32
    with safe_open(model, "numpy") as file:
        assert file.get_slice("tall")[3:5, 7].tobytes() == loaded["tall"][3:5, 7].tobytes()
        for single in (file.get_slice("scalar")[...], file.get_slice("float32")[1, 2, -1]):
            assert isinstance(single, numpy.ndarray) and single.shape == () and single.dtype == numpy.float32
        assert file.get_slice("float32")[1, 2, -1] == loaded["float32"][1, 2, -1]
    for use in (load_file, lambda model, device, framework: safe_open(model, framework, device)):
        with pytest.raises(ValueError, match="numpy lie in the memory of the CPU"):
            use(model, device="cuda", framework="np")


@pytest.mark.parametrize("shape", ["rows", "columns", "both"])
def test_slices_are_those_of_the_whole(model: modelseal.Model, plain: tuple[Path, dict[str, Any]], shape: str) -> None:
    _, expected = plain
    rng = random.Random(shape)
    with safe_open(model) as file:
        for name in ("tall", "wide", "float32", "odd", "empty", "scalar"):
            whole, part = expected[name], file.get_slice(name)
            for _ in range(40):
                index = random_index(rng, whole.shape, shape)
                taken = part[index]
                assert same(taken, whole[index]), (name, index)
                assert taken.untyped_storage().nbytes() == taken.numel() * taken.element_size()


def random_index(rng: random.Random, shape: Any, kind: str) -> Any:
    def one(length: int) -> Any:
        if rng.random() < 0.2 and length:
            return rng.randrange(-length, length)
        ends = [None if rng.random() < 0.2 else rng.randrange(-length - 2, length + 3) for _ in range(2)]
        return slice(ends[0], ends[1], rng.choice([None, 1, 1, 2, 3]))

    if not shape:
        return ...
    if kind == "rows":
        return one(shape[0])
    index = [slice(None)] * len(shape) if kind == "columns" else [one(length) for length in shape]
    index[-1] = one(shape[-1])
    if rng.random() < 0.3:
        return (..., index[-1])
    return tuple(index[: rng.randint(1, len(index))])


def test_what_was_closed_says_so(model: modelseal.Model) -> None:
    with safe_open(model.location, key=KEY, **trust(Path(model.location))) as file:
        part, tensors = file.get_slice("tall"), file._tensors
    for use in (
        lambda: file.get_tensor("tall"),
        file.get_tensors,
        lambda: part[:3],
        lambda: tensors.load("tall"),
        tensors.load_all,
        lambda: next(tensors.items()),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    # What was opened elsewhere is closed there.
    with safe_open(model) as file:
        pass
    assert file.get_tensor("scalar").shape == ()


def test_an_index_that_is_none_is_refused(model: modelseal.Model) -> None:
    with safe_open(model) as file:
        part = file.get_slice("tall")
        for index in (640, -641, (0, 0, 0), (slice(None), 1000), None, slice(None, None, -1), (..., ...)):
            with pytest.raises((IndexError, ValueError)):
                part[index]
        with pytest.raises(KeyError, match="nothing"):
            file.get_slice("nothing")
        with pytest.raises(KeyError, match="nothing"):
            file.get_tensor("nothing")


def test_half_of_a_tensor_is_half_of_the_work(model: modelseal.Model, plain: tuple[Path, dict[str, Any]]) -> None:
    _, expected = plain
    with safe_open(model) as file:
        chunk = model._check().chunk_len
        for name, index, size in [
            ("tall", slice(0, 320), 640_000),
            ("wide", slice(2, 4), 1_600_000),
            ("wide", (slice(None), slice(0, 200_000)), 1_600_000),
        ]:
            before = model.decrypted_bytes
            assert same(file.get_slice(name)[index], expected[name][index])
            # Each of the four parts of rows may lie in two chunks more.
            assert size <= model.decrypted_bytes - before <= size + 8 * chunk, (name, index)
        before = model.decrypted_bytes
        assert file.get_slice("tall")[5:5].shape == (0, 1000)
        assert model.decrypted_bytes == before


def test_all_come_one_after_another(model: modelseal.Model, plain: tuple[Path, dict[str, Any]]) -> None:
    _, expected = plain
    tensors = Tensors(model)
    with pytest.raises(ValueError, match="ahead is a number of bytes, and not -1"):
        next(tensors.items(ahead=-1))
    for ahead in (0, 1 << 20, 1 << 30):
        seen = []
        for name, tensor in tensors.items(ahead=ahead):
            assert same(tensor, expected[name])
            seen.append(name)
        assert seen == tensors.offset_keys() and sorted(seen) == tensors.keys() == sorted(expected)
    # Whoever has enough leaves.
    for name, _ in tensors.items():
        break
    assert len(tensors) == len(expected) and "tall" in tensors and "none" not in tensors
    info = tensors.info("tall")
    assert (info.dtype, info.shape, info.nbytes) == ("BF16", (640, 1000), 1_280_000)
    assert info.shard in tensors.shards and len(tensors.shards) == 3


def test_progress_is_shown(model: modelseal.Model, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    load_file(model, progress=True)
    assert "100%" in capsys.readouterr().err
    assert len(dict(model.tensors().items(progress=True))) == len(model.tensors())
    assert "100%" in capsys.readouterr().err


def test_a_module_is_loaded(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(10, 4)
            self.head = torch.nn.Linear(4, 10, bias=False)
            self.head.weight = self.embed.weight

    before, after = Tied(), Tied()
    safetensors.torch.save_model(before, tmp_path / "model.safetensors")
    modelseal.seal(tmp_path, tmp_path.with_name("sealed"), KEY, scrypt_n=10)
    assert load_model(after, tmp_path.with_name("sealed"), key=KEY) == ([], [])
    assert same(after.head.weight.detach(), before.embed.weight.detach())
    other = torch.nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="weight"):
        load_model(other, tmp_path.with_name("sealed"), key=KEY)
    missing, unexpected = load_model(other, tmp_path.with_name("sealed"), strict=False, key=KEY)
    assert sorted(missing) == ["bias", "weight"] and len(unexpected) == 1


def test_what_is_no_tensor_file_is_refused(model: modelseal.Model, sealed: Path) -> None:
    with pytest.raises(modelseal.FormatError, match="no model.safetensors.index.json"):
        load_file(sealed, key=KEY, **trust(sealed))
    with pytest.raises(modelseal.FormatError, match="header"):
        load_file(sealed / "deep/er/big.bin", key=KEY, **trust(sealed))
    with pytest.raises(FileNotFoundError, match="none.safetensors"):
        load_file(model, path="none.safetensors")
    with pytest.raises(ValueError, match="framework 'tf'"):
        load_file(model, framework="tf")  # type: ignore[arg-type]


def test_the_way_to_a_gpu_gives_the_same(model: modelseal.Model, plain: tuple[Path, dict[str, Any]]) -> None:
    from modelseal import _staged
    from modelseal._frameworks import Torch

    _, expected = plain
    tensors = Tensors(model)
    for piece in (70_000, 1 << 20, 64 << 20):
        advanced: list[int] = []
        loaded = _staged.load(
            tensors._handle,
            tensors._by_shard(),
            lambda dtype, shape: Torch().empty(dtype, shape, "cpu"),
            pinned=False,
            chunk_len=model._check().chunk_len,
            advance=advanced.append,
            piece=piece,
        )
        assert loaded.keys() == expected.keys()
        assert all(same(loaded[name], expected[name]) for name in expected)
        assert sum(advanced) == sum(tensors.info(name).nbytes for name in tensors)


def test_chunks_may_be_longer_than_the_buffers_of_a_gpu(model: modelseal.Model) -> None:
    from modelseal import _staged
    from modelseal._frameworks import Torch

    tensors = Tensors(model)
    advanced: list[int] = []
    _staged.load(
        tensors._handle,
        tensors._by_shard(),
        lambda dtype, shape: Torch().empty(dtype, shape, "cpu"),
        pinned=False,
        chunk_len=1 << 30,
        advance=advanced.append,
        piece=70_000,
    )
    whole = sum(tensors.info(name).nbytes for name in tensors)
    assert len(advanced) <= whole // 70_000 + len(tensors.shards)


def test_buffers_wait_for_the_gpu_that_they_are_copied_to(
    model: modelseal.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelseal import _staged
    from modelseal._frameworks import Torch

    class Stream:
        def __init__(self, device: object) -> None:
            self.device = device

        def record_event(self) -> Stream:
            return self

        def synchronize(self) -> None:
            waited.append(self.device)

    waited: list[object] = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **more: empty(*shape, **more))
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    tensors = Tensors(model)
    _staged.load(
        tensors._handle,
        tensors._by_shard(),
        lambda dtype, shape: Torch().empty(dtype, shape, "cpu"),
        pinned=True,
        chunk_len=model._check().chunk_len,
        advance=lambda count: None,
        piece=70_000,
    )
    assert len(waited) > _staged.BUFFERS and set(waited) == {torch.device("cpu")}


def test_pinned_memory_is_unlocked_before_it_goes(model: modelseal.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="GPU"):
            load_file(model, pin_memory=True)
    runtime = Runtime()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "check_error", lambda status: None)
    loaded = load_file(model, pin_memory=True)
    assert len(runtime.locked) == 3
    for tensor in loaded.values():
        if tensor.numel():
            assert any(start <= tensor.data_ptr() < start + length for start, length in runtime.locked.items())
    _, kept = loaded.popitem()
    loaded.clear()
    del tensor
    assert len(runtime.locked) == 1
    del kept
    assert not runtime.locked


class Runtime:
    """What is locked, in place of CUDA."""

    def __init__(self) -> None:
        self.locked: dict[int, int] = {}

    def cudaHostRegister(self, address: int, length: int, flags: int) -> int:
        assert length > 0 and flags == 0
        assert is_mapped(address)
        self.locked[address] = length
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        assert is_mapped(address)
        del self.locked[address]
        return 0


def is_mapped(address: int) -> bool:
    with open("/proc/self/maps") as maps:
        spans = [line.split()[0].split("-") for line in maps]
    return any(int(first, 16) <= address < int(last, 16) for first, last in spans)


def own_memory() -> int:
    """Memory of this process alone, in bytes, without what the system may take whenever it likes."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    counts = {line.split()[0]: int(line.split()[1]) << 10 for line in rollup.splitlines()[1:]}
    return counts["Anonymous:"] - counts["LazyFree:"]


def test_memory_goes_with_the_tensors(tmp_path: Path) -> None:
    size = 32 << 20
    source = tmp_path / "source"
    source.mkdir()
    save_file({name: make(torch.uint8, (size,), seed) for seed, name in enumerate("abcd")}, source / "x.safetensors")
    modelseal.seal(source, tmp_path / "sealed", KEY, scrypt_n=10)
    with modelseal.open(tmp_path / "sealed", KEY) as model:
        before = own_memory()
        loaded = load_file(model)
        expected = {name: tensor.clone() for name, tensor in loaded.items()}
        addresses = {tensor.data_ptr() for tensor in loaded.values()}
        assert own_memory() - before > 7 * size
        del loaded["b"], expected["b"]
        assert own_memory() - before < 6.5 * size
        kept = loaded["a"]
        loaded.clear()
        assert own_memory() - before < 4.5 * size
        assert same(kept, expected["a"])
        del kept
        # What was given back serves again, with the right content.
        again = load_file(model)
        assert {tensor.data_ptr() for tensor in again.values()} == addresses
        assert all(same(again[name], expected[name]) for name in expected)
        # One after another, in turns.
        addresses = set()
        for name, tensor in model.tensors().items(ahead=2 * size):
            assert same(tensor, again[name])
            addresses.add(tensor.data_ptr())
            del tensor
        assert len(addresses) < 4
    # The model is closed: nothing is kept any more.
    del again["b"], again["c"], model
    assert own_memory() - before < 5.5 * size
    again.clear()
    assert own_memory() - before < 3.5 * size
