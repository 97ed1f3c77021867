"""Tensors of torch that are decrypted when what is in them is needed first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_iter, tree_map

from modelseal._frameworks import Torch, torch_dtype, torch_shape

if TYPE_CHECKING:
    from modelseal._modelseal import Tensors

# They look into memory without asking the tensor's class for an operation.
_LOOK_INTO_MEMORY = frozenset(
    getattr(torch.Tensor, name)
    for name in (
        "__array__",
        "__deepcopy__",
        "__dlpack__",
        "__reduce_ex__",
        "data_ptr",
        "numpy",
        "set_",
        "share_memory_",
        "storage",
        "tolist",
        "untyped_storage",
    )
)


class Sealed:
    """A tensor in a sealed model, and where it is decrypted to as a whole, if it is."""

    def __init__(self, handle: Tensors, dtype: str, shape: Sequence[int], shard: int, start: int, end: int) -> None:
        self._handle = handle
        self._described = dtype, shape
        self._place = shard, start, end
        self._whole: torch.Tensor | None = None

    def deferred(self) -> Deferred:
        dtype, shape = self._described
        like = torch.empty(torch_shape(dtype, shape), dtype=torch_dtype(dtype), device="meta")
        made: Deferred = Deferred(self, like)
        return made

    def whole(self) -> torch.Tensor:
        if self._whole is None:
            memory = self._handle.read(*self._place)
            self._whole = Torch().make(memory, *self._described)
        return self._whole

    def fill(self, out: torch.Tensor, offset: int) -> bool:
        """Decrypts what lies `offset` bytes from its start to `out`; False where it is in memory already."""
        if self._whole is not None:
            return False
        shard, start, _ = self._place
        if out.numel():
            self._handle.read_into(shard, start + offset, out.detach().view(-1).view(torch.uint8).numpy())
        return True


class Deferred(torch.Tensor):  # type: ignore[misc]
    """A tensor that is decrypted when what is in it is needed first: as a whole, to memory of its own. But where it, or a part
    of it that lies in one piece, is copied to a tensor of the same kind on the CPU, it is decrypted to the memory of that.

    Parts and other views of it are such tensors as well. What is calculated from it is not, and neither is a view that does not
    lie in one piece.
    """

    _sealed: Sealed
    _like: torch.Tensor
    """What it is and how it lies in the whole, on the device `meta`."""

    @staticmethod
    def __new__(cls, sealed: Sealed, like: torch.Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device="cpu")
        made._sealed, made._like = sealed, like
        return made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _LOOK_INTO_MEMORY:
            args, kwargs = _decrypted((args, kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.copy_.default and _fill(*args[:2]):
            return args[0]
        if func.is_view and isinstance(args[0], Deferred):
            views = _views(args[0], func, args[1:], kwargs)
            if views is not None:
                return views
        args, kwargs = _decrypted((args, kwargs))
        return func(*args, **kwargs)

    def __repr__(self, **_: Any) -> str:
        return f"Deferred(shape={tuple(self.shape)}, dtype={self.dtype})"

    def _decrypt(self) -> torch.Tensor:
        like, start = self._like, self._offset()
        whole = self._sealed.whole().view(-1).view(torch.uint8)
        return whole[start : start + like.nbytes].view(like.dtype).view(like.shape)

    def _offset(self) -> int:
        """Bytes from the start of the whole."""
        return int(self._like.storage_offset() * self._like.element_size())


def _decrypted(tree: Any) -> Any:
    """The same with all tensors decrypted."""
    return tree_map(lambda leaf: leaf._decrypt() if isinstance(leaf, Deferred) else leaf, tree)


def _fill(out: torch.Tensor, source: torch.Tensor) -> bool:
    """Decrypts `source` to `out`, where that is what copying comes to."""
    return (
        isinstance(source, Deferred)
        and type(out).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
        and out.device.type == "cpu"
        and out.layout is torch.strided
        and (out.dtype, out.shape) == (source.dtype, source.shape)
        and out.is_contiguous()
        and not (out.is_conj() or out.is_neg())
        and source._sealed.fill(out, source._offset())
    )


def _views(whole: Deferred, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Views of a tensor, as many as `func` makes of it; None where one does not lie in one piece."""
    made = func(whole._like, *args, **kwargs)
    leaves: Iterator[Any] = tree_iter(made)
    if not all(leaf.is_contiguous() for leaf in leaves):
        return None
    return tree_map(lambda like: Deferred(whole._sealed, like), made)
