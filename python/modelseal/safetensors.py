"""Tensors of sealed models, in the shape of the safetensors package.

    from modelseal.safetensors import load_file, safe_open

    tensors = load_file("vault", key="file:password")                 # of all shards
    tensors = load_file("vault/model.safetensors", key=...)           # of one file
    with safe_open("vault", framework="pt", key=...) as f:
        half = f.get_slice("embedding")[:1024]                        # decrypts no more than that

What is decrypted lies in the memory of the final tensors at once: nothing is copied. Each tensor has a storage of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Unpack

from modelseal import _staged
from modelseal._frameworks import Framework, Maker, Torch, maker
from modelseal._model import Model, opened
from modelseal._options import Key, Location, Options
from modelseal._pinned import pin
from modelseal._slices import Slice

if TYPE_CHECKING:
    import torch

__all__ = ["SafeSlice", "TensorInfo", "Tensors", "load_file", "load_model", "safe_open"]

AHEAD = 256 << 20
"""Bytes that are decrypted ahead of whoever takes tensors one after another, unless told otherwise."""


# A tensor: its name, dtype, shape, the number of its shard, and where its bytes begin and end in that.
_Place: TypeAlias = tuple[str, str, list[int], int, int, int]


class TensorInfo(NamedTuple):
    """What is known of a tensor without reading it."""

    name: str
    dtype: str
    """As safetensors has it, such as BF16."""
    shape: tuple[int, ...]
    shard: str
    """The path of its shard in the model."""
    nbytes: int


class Tensors:
    """The tensors of a sealed model, or of one shard. Any number of threads may share it."""

    def __init__(self, model: Model, path: Location = "") -> None:
        self._model = model
        self._handle = model._check().tensors(path)
        shards = self._handle.shards()
        self._shards = [path for path, _ in shards]
        self._metadata = shards[0][1] if shards else {}
        # In the order of the file.
        self._places = {place[0]: place for place in self._handle.tensors()}

    @property
    def shards(self) -> list[str]:
        """The paths of the shards in the model."""
        return list(self._shards)

    def metadata(self) -> dict[str, str]:
        """What the header of the first shard says beside its tensors."""
        return dict(self._metadata)

    def keys(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self._places)

    def offset_keys(self) -> list[str]:
        """The names of all tensors, in the order in which they lie in the shards."""
        return list(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def info(self, name: str) -> TensorInfo:
        """What is known of a tensor without reading it."""
        _, dtype, shape, shard, start, end = self._place(name)
        return TensorInfo(name, dtype, tuple(shape), self._shards[shard], end - start)

    def load(self, name: str, framework: Framework = "pt", device: Any = "cpu") -> Any:
        """One tensor."""
        _, dtype, shape, shard, start, end = self._place(name)
        self._model._check()
        tensor = _maker(framework, device).make(self._handle.read(shard, start, end), dtype, shape)
        return _to(tensor, device)

    def deferred(self, name: str) -> torch.Tensor:
        """A tensor of torch on the CPU that is decrypted when what is in it is needed first.

        Where it, or a part of it that lies in one piece, is copied to another tensor of its dtype and shape on the CPU, it is
        decrypted to the memory of that, each time anew; else as a whole to memory of its own. It may be kept when the model is
        closed: the keys stay as long as it does. A scalar is decrypted at once.
        """
        if not self._place(name)[2]:
            return self.load(name)
        from modelseal._deferred import Sealed

        return Sealed(self, name).deferred()

    def slice(self, name: str, framework: Framework = "pt", device: Any = "cpu") -> SafeSlice:
        """A tensor to take parts of, of which nothing but those is decrypted."""
        return SafeSlice(self, name, _maker(framework, device), device)

    def load_all(
        self,
        framework: Framework = "pt",
        device: Any = "cpu",
        *,
        pin_memory: bool = False,
        progress: bool = False,
    ) -> dict[str, Any]:
        """All tensors, a shard at a time."""
        self._model._check()
        made_by = _maker(framework, device)
        if isinstance(made_by, Torch) and str(device).startswith("cuda"):
            return self._load_on_gpu(made_by, device, progress)
        if not _is_cpu(device):
            return dict(self.items(framework, device, progress=progress))
        make = made_by.make
        tensors: dict[str, Any] = {}
        with self._bar(progress) as bar:
            for number, places in self._by_shard():
                parts = self._handle.read_shard(number)
                if pin_memory:
                    pin(parts)
                for (name, dtype, shape, *_), part in zip(places, parts, strict=True):
                    tensors[name] = make(part, dtype, shape)
                    bar.advance(len(part))
        return tensors

    def items(
        self,
        framework: Framework = "pt",
        device: Any = "cpu",
        *,
        ahead: int = AHEAD,
        progress: bool = False,
    ) -> Iterator[tuple[str, Any]]:
        """All tensors, one after another in the order of the shards, each in memory of its own.

        A thread decrypts up to `ahead` bytes ahead, or one tensor where that is longer; no more than that and what the caller
        keeps is in memory, besides as much of dropped tensors that is about to serve again.
        """
        self._model._check()
        if ahead < 0:
            raise ValueError(f"ahead is a number of bytes, and not {ahead}")
        make = _maker(framework, device).make
        stream = self._handle.stream(ahead)
        try:
            with self._bar(progress) as bar:
                for (name, dtype, shape, *_), part in zip(self._places.values(), stream, strict=True):
                    tensor = make(part, dtype, shape)
                    bar.advance(len(part))
                    # It keeps what it needs.
                    del part
                    yield name, _to(tensor, device)
                    del tensor
        finally:
            stream.close()

    def deferred_items(self, *, progress: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
        """All tensors, one after another in the order of the shards, as `deferred` has them."""
        with self._bar(progress) as bar:
            for name, *_, start, end in self._places.values():
                yield name, self.deferred(name)
                # By now it is wherever it was to go.
                bar.advance(end - start)

    def _load_on_gpu(self, made_by: Torch, device: Any, progress: bool) -> dict[str, Any]:
        with self._bar(progress) as bar:
            return _staged.load(
                self._handle,
                self._by_shard(),
                lambda dtype, shape: made_by.empty(dtype, shape, device),
                pinned=True,
                chunk_len=self._model._check().chunk_len,
                advance=bar.advance,
            )

    def _bar(self, shown: bool) -> _Bar:
        return _Bar(sum(end - start for *_, start, end in self._places.values()), shown)

    def _place(self, name: str) -> _Place:
        try:
            return self._places[name]
        except KeyError:
            raise KeyError(f"there is no tensor {name!r} in {self._model.location}") from None

    def _by_shard(self) -> Iterator[tuple[int, list[_Place]]]:
        places: dict[int, list[_Place]] = {}
        for place in self._places.values():
            places.setdefault(place[3], []).append(place)
        return iter(places.items())


class SafeSlice:
    """A tensor of which parts are taken by indexing, as with numpy."""

    def __init__(self, tensors: Tensors, name: str, made_by: Maker, device: Any) -> None:
        self._tensors = tensors
        self._place = tensors._place(name)
        self._maker = made_by
        self._device = device

    def get_shape(self) -> list[int]:
        """Its dimensions."""
        return list(self._place[2])

    def get_dtype(self) -> str:
        """What its elements are, as safetensors has it, such as BF16."""
        return self._place[1]

    def __getitem__(self, index: Any) -> Any:
        _, dtype, shape, shard, start, end = self._place
        read = Slice(shape, end - start, index, self._tensors._model._check().chunk_len)
        handle = self._tensors._handle
        if read.parts is None:
            memory = handle.read(shard, start + read.begin, start + read.end)
        else:
            memory = handle.read_strided(shard, start + read.begin, *read.parts)
        whole = self._maker.make(memory, dtype, read.shape)
        return _to(self._maker.own(whole[read.rest], whole), self._device)


class safe_open:  # noqa: N801 (as safetensors calls it)
    """The tensors of a sealed model: of all its shards, or of one file in it.

    `location` is where the model lies, or a path in it such as `vault/model.safetensors`, or an open model, with `path`
    for a file in that.
    """

    def __init__(
        self,
        location: Location | Model,
        framework: Framework = "pt",
        device: Any = "cpu",
        *,
        key: Key | None = None,
        path: Location = "",
        **options: Unpack[Options],
    ) -> None:
        _maker(framework, device)
        self._model, inner, self._is_ours = opened(location, key, options)
        self._framework: Framework = framework
        self._device = device
        self._tensors = Tensors(self._model, os.path.join(inner, path) if inner and path else inner or path)

    def keys(self) -> list[str]:
        """The names of all tensors, sorted."""
        return self._tensors.keys()

    def offset_keys(self) -> list[str]:
        """The names of all tensors, in the order in which they lie in the shards."""
        return self._tensors.offset_keys()

    def metadata(self) -> dict[str, str] | None:
        """What the header of the first shard says beside its tensors."""
        return self._tensors.metadata() or None

    def get_tensor(self, name: str) -> Any:
        """One tensor."""
        return self._tensors.load(name, self._framework, self._device)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors."""
        return self._tensors.load_all(self._framework, self._device)

    def get_slice(self, name: str) -> SafeSlice:
        """A tensor to take parts of, of which nothing but those is decrypted."""
        return self._tensors.slice(name, self._framework, self._device)

    def __enter__(self) -> safe_open:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_ours:
            self._model.close()


def load_file(
    location: Location | Model,
    device: Any = "cpu",
    *,
    key: Key | None = None,
    path: Location = "",
    framework: Framework = "pt",
    pin_memory: bool = False,
    progress: bool = False,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """All tensors of a sealed model, or of one file in it; see `safe_open`.

    With `pin_memory` the memory is locked, so that a GPU copies from it by itself; `progress` shows a bar (tqdm).
    """
    with safe_open(location, framework, device, key=key, path=path, **options) as file:
        return file._tensors.load_all(framework, device, pin_memory=pin_memory, progress=progress)


def load_model(
    model: torch.nn.Module,
    location: Location | Model,
    strict: bool = True,
    device: Any = "cpu",
    *,
    key: Key | None = None,
    path: Location = "",
    **options: Unpack[Options],
) -> tuple[list[str], list[str]]:
    """Loads the tensors of a sealed model onto a module of torch. Returns the names that are missing, and those that are in
    excess. Names that share their memory in the module need be there only once."""
    state = load_file(location, device, key=key, path=path, **options)
    shared: dict[tuple[Any, ...], set[str]] = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() and tensor.device.type != "meta":
            at = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            shared.setdefault(at, set()).add(name)
    missing, unexpected = model.load_state_dict(state, strict=False)
    for names in shared.values():
        # One of them is enough.
        if not names <= set(missing):
            missing = [name for name in missing if name not in names]
    if strict and (missing or unexpected):
        raise RuntimeError(
            f"the tensors are not those of {type(model).__name__}: missing are {sorted(missing)}, and not known "
            f"{sorted(unexpected)}"
        )
    return list(missing), list(unexpected)


def _maker(framework: str, device: Any) -> Maker:
    made_by = maker(framework)
    if not isinstance(made_by, Torch) and not _is_cpu(device):
        raise ValueError(f"arrays of numpy lie in the memory of the CPU, and not on {device!r}; take framework='pt'")
    return made_by


def _is_cpu(device: Any) -> bool:
    return device is None or str(device) == "cpu"


def _to(tensor: Any, device: Any) -> Any:
    return tensor if _is_cpu(device) else tensor.to(device)


class _Bar:
    """A progress bar, where one is wanted."""

    def __init__(self, total: int, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="Decrypting")

    def advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
