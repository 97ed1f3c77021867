"""Tensors that are decrypted when they are needed: the same as others in all that is done with them, and where they go to is
where they are decrypted to."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, KEY, Sealer, trust

import modelseal

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from modelseal._deferred import Deferred  # noqa: E402
from modelseal.safetensors import Tensors  # noqa: E402


def numbers(dtype: Any, *shape: int) -> Any:
    count = torch.empty(shape).numel()
    return (torch.arange(count) % 120 + 1).to(dtype).view(shape)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """Tensors of different kinds."""
    return {
        "big": numbers(torch.bfloat16, 512, 3, 256),
        "complex": numbers(torch.complex64, 3, 5) * (1 + 2j),
        "bytes": numbers(torch.uint8, 13),
        "doubles": numbers(torch.float64, 10, 7),
        "empty": torch.empty(0, 4),
        "flags": numbers(torch.uint8, 33) > 9,
        "scalar": torch.tensor(2.5),
        "small": numbers(torch.float8_e4m3fn, 8, 8),
    }


@pytest.fixture(scope="module", params=FORMATS)
def place(
    request: pytest.FixtureRequest, plain: dict[str, Any], sealer: Sealer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("deferred")
    save_file(plain, folder / "model.safetensors")
    return sealer(folder, request.param)


@pytest.fixture
def model(place: Path) -> Iterator[modelseal.Model]:
    with modelseal.open(place, KEY, **trust(place)) as model:
        yield model


@pytest.fixture
def chunk(model: modelseal.Model) -> int:
    return model._check().chunk_len


@pytest.fixture
def tensors(model: modelseal.Model) -> Tensors:
    return model.tensors()


def same(left: Any, right: Any) -> bool:
    if type(left) is not torch.Tensor or (left.dtype, left.shape) != (right.dtype, right.shape):
        return False
    pair = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (left, right)]
    return torch.equal(*pair)


def copied(tensor: Any) -> Any:
    """What comes by copying."""
    out = torch.full(tensor.shape, 1, dtype=torch.float32).to(tensor.dtype)
    assert out.copy_(tensor) is out
    return out


def test_they_are_known_without_being_decrypted(
    model: modelseal.Model, tensors: Tensors, plain: dict[str, Any]
) -> None:
    before = model.decrypted_bytes
    for name, expected in plain.items():
        if not expected.shape:
            continue
        tensor = tensors.deferred(name)
        assert isinstance(tensor, torch.Tensor)
        assert (tensor.shape, tensor.dtype, tensor.device) == (expected.shape, expected.dtype, expected.device)
        assert tensor.is_contiguous() and not tensor.requires_grad and tensor.nbytes == expected.nbytes
        assert str(tuple(expected.shape)) in repr(tensor)
    assert model.decrypted_bytes == before
    assert [name for name, _ in tensors.deferred_items()] == tensors.offset_keys()
    with pytest.raises(KeyError, match="no tensor 'none'"):
        tensors.deferred("none")


def test_all_are_copied(
    model: modelseal.Model, tensors: Tensors, plain: dict[str, Any], chunk: int
) -> None:
    before = model.decrypted_bytes
    for name, tensor in tensors.deferred_items():
        assert same(copied(tensor), plain[name]), name
    # Each chunk once for each tensor that has a part of it.
    chunks = sum(-(-end // chunk) - start // chunk for *_, start, end in tensors._places.values())
    assert model.decrypted_bytes - before <= chunks * chunk


def test_they_lie_in_the_memory_that_they_were_copied_to(tensors: Tensors, plain: dict[str, Any]) -> None:
    tensor = tensors.deferred("big")
    out = torch.nn.Parameter(torch.zeros_like(plain["big"]), requires_grad=True)
    with torch.no_grad():
        out.copy_(tensor)
    assert torch.equal(out, plain["big"])
    assert tensor._sealed._whole is None
    half = torch.zeros(1024, 3, 256, dtype=torch.bfloat16)
    half.narrow(0, 512, 512).copy_(tensor)
    assert torch.equal(half[512:], plain["big"]) and not half[:512].any()
    assert tensor._sealed._whole is None


# Each with whether what it makes lies in one piece.
VIEWS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "narrow": (lambda each: each.narrow(0, 100, 200), True),
    "slice": (lambda each: each[7:9], True),
    "most": (lambda each: each[100:500], True),
    "number": (lambda each: each[511], True),
    "numbers": (lambda each: each[5, 2], True),
    "none": (lambda each: each[3:3], True),
    "view": (lambda each: each.view(-1), True),
    "reshape": (lambda each: each.reshape(1536, 256)[1:], True),
    "dtype": (lambda each: each[1:].view(torch.uint8), True),
    "flatten": (lambda each: each.flatten(0, 1), True),
    "unsqueeze": (lambda each: each.unsqueeze(0).squeeze(0), True),
    "detach": (lambda each: each.detach(), True),
    "data": (lambda each: each.data, True),
    "chunk": (lambda each: each.chunk(4)[3], True),
    "unbind": (lambda each: each.unbind()[9], True),
    "of a view": (lambda each: each[10:20][3:5].view(-1)[768:], True),
    "columns": (lambda each: each[..., 5:9], False),
    "transposed": (lambda each: each.transpose(0, 2), False),
    "steps": (lambda each: each[::3], False),
    "expanded": (lambda each: each[:1].expand(4, 3, 256), False),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(model: modelseal.Model, tensors: Tensors, plain: dict[str, Any], chunk: int, name: str) -> None:
    view, in_one_piece = VIEWS[name]
    expected = view(plain["big"])
    before = model.decrypted_bytes
    made = view(tensors.deferred("big"))
    assert isinstance(made, Deferred) is in_one_piece
    if in_one_piece:
        assert model.decrypted_bytes == before
        assert same(copied(made), expected)
        # Small parts are of the whole.
        is_small = 0 < expected.nbytes < 8 * chunk
        taken = plain["big"].nbytes if is_small else expected.nbytes
        assert model.decrypted_bytes - before <= taken + 2 * chunk
        before = model.decrypted_bytes
    assert same(copied(made), expected)
    assert same(made.clone(), expected)
    if in_one_piece and is_small:
        assert model.decrypted_bytes == before


def test_nothing_else_of_the_shard_is_seen(tensors: Tensors) -> None:
    small = tensors.deferred("doubles")
    assert small.as_strided((2, 7), (7, 1), 56).sum() == sum(range(57, 71))
    for shape, start in (((71,), 0), ((7,), 64), ((1 << 30,), 0)):
        with pytest.raises(RuntimeError, match="storage"):
            torch.zeros(shape, dtype=torch.float64).copy_(small.as_strided(shape, (1,), start))


def test_signs_are_kept(tensors: Tensors, plain: dict[str, Any]) -> None:
    number, double = plain["complex"], plain["doubles"]
    given = tensors.deferred("complex").conj()
    assert given.is_conj() and torch.equal(given, number.conj())
    assert torch.equal(copied(tensors.deferred("complex").conj()), number.conj())
    assert torch.equal(tensors.deferred("complex").conj().imag, number.conj().imag)
    assert torch.equal(tensors.deferred("complex").mH, number.mH)
    assert torch.equal(copied(torch._neg_view(tensors.deferred("doubles"))), -double)


def test_they_are_copied_to_all_kinds_of_tensors(tensors: Tensors, plain: dict[str, Any]) -> None:
    big = plain["big"]
    wide = torch.zeros(512, 3, 256)
    assert wide.copy_(tensors.deferred("big")).equal(big.float())
    across = torch.zeros(256, 3, 512, dtype=torch.bfloat16).transpose(0, 2)
    assert across.copy_(tensors.deferred("big")).equal(big)
    several = torch.zeros(2, 512, 3, 256, dtype=torch.bfloat16)
    assert several.copy_(tensors.deferred("big")).equal(torch.stack([big, big]))
    double = torch.zeros(10, 7, dtype=torch.complex128)
    assert double.imag.copy_(tensors.deferred("doubles")).equal(plain["doubles"])
    other = tensors.deferred("doubles")
    assert other.copy_(tensors.deferred("doubles")).equal(plain["doubles"])


def test_they_are_calculated_with(tensors: Tensors, plain: dict[str, Any]) -> None:
    double = plain["doubles"]
    assert same(tensors.deferred("doubles") * 2, double * 2)
    assert same(2 + tensors.deferred("doubles"), 2 + double)
    assert same(torch.cat([tensors.deferred("doubles"), double]), torch.cat([double, double]))
    assert same(tensors.deferred("doubles").to(torch.float16), double.half())
    assert same(tensors.deferred("doubles")[torch.tensor([1, 3])], double[[1, 3]])
    assert tensors.deferred("scalar").item() == 2.5
    assert float(tensors.deferred("scalar")) == 2.5
    assert torch.equal(tensors.deferred("flags"), plain["flags"])
    # Views of it see what is written to it.
    changed = tensors.deferred("doubles")
    row = changed[1]
    changed.mul_(3)
    row[0] = 1000
    expected = double * 3
    expected[1, 0] = 1000
    assert changed.equal(expected) and row.equal(expected[1])
    assert torch.zeros(7, dtype=torch.float64).copy_(row).equal(expected[1])


def test_their_memory_is_looked_into(tensors: Tensors, plain: dict[str, Any], tmp_path: Path) -> None:
    double = plain["doubles"]
    assert (tensors.deferred("doubles").numpy() == double.numpy()).all()
    assert (tensors.deferred("doubles").__array__() == double.numpy()).all()
    assert tensors.deferred("doubles").tolist() == double.tolist()
    assert same(torch.from_dlpack(tensors.deferred("doubles")), double)
    held = tensors.deferred("doubles")
    assert held.data_ptr() == held.data_ptr() != 0
    assert bytes(held.untyped_storage()) == bytes(double.untyped_storage())
    assert same(copy.deepcopy(tensors.deferred("doubles")), double)
    assert same(pickle.loads(pickle.dumps(tensors.deferred("doubles"))), double)
    file = io.BytesIO()
    torch.save({"doubles": tensors.deferred("doubles")}, file)
    file.seek(0)
    assert same(torch.load(file)["doubles"], double)
    save_file(dict(tensors.deferred_items()), tmp_path / "again.safetensors")
    with (tmp_path / "again.safetensors").open("rb") as again:
        assert plain["big"].view(torch.uint8).numpy().tobytes() in again.read()


def test_a_module_takes_them(
    model: modelseal.Model, tensors: Tensors, plain: dict[str, Any], chunk: int
) -> None:
    module = torch.nn.Module()
    module.big = torch.nn.Parameter(torch.zeros_like(plain["big"]))
    module.register_buffer("doubles", torch.zeros_like(plain["doubles"]))
    before = module.big.data_ptr(), model.decrypted_bytes
    missing, unexpected = module.load_state_dict(dict(tensors.deferred_items()), strict=False)
    assert not missing and "flags" in unexpected
    assert module.big.data_ptr() == before[0]
    assert torch.equal(module.big, plain["big"]) and module.doubles.equal(plain["doubles"])
    taken = plain["big"].nbytes + plain["doubles"].nbytes
    assert model.decrypted_bytes - before[1] <= taken + 4 * chunk


def test_a_tensor_without_memory_is_never_looked_into(tensors: Tensors, plain: dict[str, Any]) -> None:
    other = torch.zeros(10, 7, dtype=torch.float64)
    other.data = tensors.deferred("doubles")
    for use in (lambda: other + 1, other.sum, other.clone, other.numpy, other.data_ptr, lambda: other.fill_(1)):
        with pytest.raises(RuntimeError, match="not decrypted yet"):
            use()
    with pytest.raises(RuntimeError, match="not decrypted yet"):
        torch.utils.dlpack.to_dlpack(tensors.deferred("doubles"))
    called = tensors.deferred("doubles").apply_(lambda each: -each)
    assert called.equal(-plain["doubles"])


CHANGES: dict[str, Callable[[Any], object]] = {
    "squeeze_": lambda each: each.squeeze_(),
    "unsqueeze_": lambda each: each.unsqueeze_(0),
    "t_": lambda each: each.t_(),
    "transpose_": lambda each: each.transpose_(0, 1),
    "as_strided_": lambda each: each.as_strided_((2,), (1,)),
    "resize_": lambda each: each.resize_(2),
    "set_": lambda each: each.set_(torch.ones(2, dtype=torch.float64)),
    "share_memory_": lambda each: each.share_memory_(),
    "data": lambda each: setattr(each, "data", torch.ones(10, 7, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_they_cannot_be_made_something_else(tensors: Tensors, plain: dict[str, Any], name: str) -> None:
    tensor = tensors.deferred("doubles")
    with pytest.raises(TypeError, match=r"take what clone\(\) makes of it"):
        CHANGES[name](tensor)
    assert tensor.detach_() is tensor and tensor.equal(plain["doubles"])
    CHANGES[name](tensor.clone())


def test_scalars_are_usual_ones(tensors: Tensors) -> None:
    scalar = tensors.deferred("scalar")
    assert f"{scalar:.2f}" == "2.50" and type(scalar) is torch.Tensor
    row = tensors.deferred("doubles")[3]
    assert torch.tensor([row[0], row[6]]).tolist() == [22, 28]
    assert torch.tensor(list(row)).equal(row) and f"{row[1]:.1f}" == "23.0"
    assert f"{row}" == str(row.clone())


def test_modes_do_not_matter(tensors: Tensors, plain: dict[str, Any]) -> None:
    before = tensors.deferred("big")
    with torch.inference_mode():
        inside = tensors.deferred("big")
        for tensor in (before, inside):
            assert same(copied(tensor[100:500]), plain["big"][100:500])
    assert same(copied(inside[0]), plain["big"][0])
    with torch.device("meta"):
        assert same(tensors.deferred("big").clone(), plain["big"])
        assert tensors.deferred("empty").clone().device.type == tensors.load("empty").device.type == "cpu"


def test_threads_share_one(tensors: Tensors, plain: dict[str, Any]) -> None:
    for _ in range(5):
        tensor = tensors.deferred("big")
        begin = threading.Barrier(4)

        def change(number: int, tensor: Any = tensor, begin: Any = begin) -> int:
            begin.wait()
            tensor[number].fill_(-7)
            return int(tensor.data_ptr())

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(change, range(4)))) == 1
        assert (tensor[:4] == -7).all() and same(tensor[4:].clone(), plain["big"][4:])


def test_they_outlive_their_model(place: Path, plain: dict[str, Any]) -> None:
    with modelseal.open(place, KEY, **trust(place)) as model:
        tensors = model.tensors()
        tensor = tensors.deferred("big")
    assert same(copied(tensor), plain["big"])
    with pytest.raises(ValueError, match="closed"):
        tensors.deferred("big")


def test_a_torch_that_is_too_old_is_refused(tensors: Tensors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_set_storage_access_error_msg")
    monkeypatch.delitem(sys.modules, "modelseal._deferred")
    with pytest.raises(ImportError, match="too old"):
        tensors.deferred("big")


def test_nothing_is_left_where_it_is_damaged(plain: dict[str, Any], sealer: Sealer, tmp_path: Path) -> None:
    save_file({"big": plain["big"]}, tmp_path / "model.safetensors")
    place = sealer(tmp_path, "gocryptfs")
    with modelseal.open(place, KEY) as model:
        tensor = model.tensors().deferred("big")
        (file,) = (path for path in place.iterdir() if path.stat().st_size > plain["big"].nbytes)
        with file.open("r+b") as damaged:
            damaged.seek(plain["big"].nbytes // 2)
            damaged.write(b"damaged")
        out = torch.ones_like(plain["big"])
        with pytest.raises(modelseal.AuthenticationError):
            out.copy_(tensor)
        assert not out.any()
        with pytest.raises(modelseal.AuthenticationError):
            tensor.sum()
