"""Tensors that are decrypted when they are needed: the same as others in all that is done with them, and where they go to is
where they are decrypted to."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FORMATS, KEY, Sealer, trust

import modelseal

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from modelseal._deferred import Deferred  # noqa: E402
from modelseal.safetensors import Tensors  # noqa: E402

CHUNK = 64 << 10
"""No format has longer ones unless asked for."""


def numbers(dtype: Any, *shape: int) -> Any:
    count = torch.empty(shape).numel()
    return (torch.arange(count) % 120 + 1).to(dtype).view(shape)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """Tensors of different kinds."""
    return {
        "big": numbers(torch.bfloat16, 512, 3, 256),
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
        tensor = tensors.deferred(name)
        assert isinstance(tensor, torch.Tensor)
        assert (tensor.shape, tensor.dtype, tensor.device) == (expected.shape, expected.dtype, expected.device)
        assert tensor.is_contiguous() and not tensor.requires_grad and tensor.nbytes == expected.nbytes
        assert str(tuple(expected.shape)) in repr(tensor)
    assert [name for name, _ in tensors.deferred_items()] == tensors.offset_keys()
    assert model.decrypted_bytes == before
    with pytest.raises(KeyError, match="no tensor 'none'"):
        tensors.deferred("none")


def test_all_are_copied(model: modelseal.Model, tensors: Tensors, plain: dict[str, Any]) -> None:
    before = model.decrypted_bytes
    for name, tensor in tensors.deferred_items():
        assert same(copied(tensor), plain[name]), name
    # Each chunk once, and those once more in which one tensor ends and the next begins.
    total = sum(tensor.nbytes for tensor in plain.values())
    assert total <= model.decrypted_bytes - before <= total + 2 * CHUNK * len(plain)


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
def test_views(model: modelseal.Model, tensors: Tensors, plain: dict[str, Any], name: str) -> None:
    view, in_one_piece = VIEWS[name]
    expected = view(plain["big"])
    before = model.decrypted_bytes
    made = view(tensors.deferred("big"))
    assert isinstance(made, Deferred) is in_one_piece
    if in_one_piece:
        assert model.decrypted_bytes == before
        assert same(copied(made), expected)
        assert model.decrypted_bytes - before <= expected.nbytes + 2 * CHUNK
    assert same(copied(made), expected)
    assert same(made.clone(), expected)


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


def test_a_module_takes_them(model: modelseal.Model, tensors: Tensors, plain: dict[str, Any]) -> None:
    module = torch.nn.Module()
    module.big = torch.nn.Parameter(torch.zeros_like(plain["big"]))
    module.register_buffer("doubles", torch.zeros_like(plain["doubles"]))
    before = module.big.data_ptr(), model.decrypted_bytes
    missing, unexpected = module.load_state_dict(dict(tensors.deferred_items()), strict=False)
    assert not missing and "flags" in unexpected
    assert module.big.data_ptr() == before[0]
    assert torch.equal(module.big, plain["big"]) and module.doubles.equal(plain["doubles"])
    taken = plain["big"].nbytes + plain["doubles"].nbytes
    assert model.decrypted_bytes - before[1] <= taken + 4 * CHUNK


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
