"""Tensors of torch that are decrypted when what is in them is needed first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from modelseal._frameworks import Torch, torch_dtype, torch_shape

if TYPE_CHECKING:
    from modelseal.safetensors import Tensors

if not hasattr(torch._C, "_set_storage_access_error_msg"):
    # Without it what looks for their memory would end the interpreter.
    raise ImportError(f"torch {torch.__version__} is too old for tensors that are decrypted when needed; take load() or items()")

# They look into memory, or at what a tensor's class is, without asking the class for an operation.
_LOOK_INTO_MEMORY = frozenset(
    getattr(torch.Tensor, name)
    for name in (
        "__array__",
        "__deepcopy__",
        "__dlpack__",
        "__format__",
        "__reduce_ex__",
        "_typed_storage",
        "apply_",
        "data_ptr",
        "is_shared",
        "numpy",
        "storage",
        "tolist",
        "untyped_storage",
    )
)

# They put a tensor over other memory.
_REPLACE_MEMORY = frozenset((torch.Tensor.data.__set__, torch.Tensor.set_, torch.Tensor.share_memory_))

_SMALL = 8
"""A part of fewer chunks is copied from the whole: those at its ends would be decrypted for its neighbours as well."""


class Sealed:
    """A tensor in a sealed model, and where it is decrypted to as a whole, if it is."""

    def __init__(self, tensors: Tensors, name: str) -> None:
        _, self._dtype, self._shape, *place = tensors._place(name)
        self._shard, self._start, self._end = place
        self._handle = tensors._handle
        self._small = _SMALL * tensors._model._check().chunk_len
        self._whole: torch.Tensor | None = None
        self._lock = threading.Lock()

    def deferred(self) -> Deferred:
        shape = torch_shape(self._dtype, self._shape)
        made: Deferred = Deferred(self, torch.empty(shape, dtype=torch_dtype(self._dtype), device="meta"))
        return made

    def whole(self) -> torch.Tensor:
        with self._lock:
            if self._whole is None:
                memory = self._handle.read(self._shard, self._start, self._end)
                self._whole = Torch().make(memory, self._dtype, self._shape)
            return self._whole

    def fill(self, out: torch.Tensor, offset: int) -> bool:
        """Decrypts what lies `offset` bytes from its start to `out`; False where it is to be copied from the whole."""
        if not out.nbytes:
            return True
        if self._whole is not None or out.nbytes < min(self._small, self._end - self._start):
            return False
        self._handle.read_into(self._shard, self._start + offset, out.detach().view(-1).view(torch.uint8).numpy())
        return True

    def has(self, part: torch.Tensor) -> bool:
        """Whether a part lies within it."""
        return bool(_offset(part) + part.nbytes <= self._end - self._start)


class Deferred(torch.Tensor):  # type: ignore[misc]
    """A tensor that is decrypted when what is in it is needed first: as a whole, to memory of its own. But where it, or a part
    of it that lies in one piece, is copied to a tensor of the same kind on the CPU, it is decrypted to the memory of that, each
    time anew.

    Parts and other views of it are such tensors as well, but for scalars, and views that do not lie in one piece. What is
    calculated from it is not. It has no memory that another tensor could be put over (`other.data = ...`: whoever uses `other`
    then gets an error), and it cannot be given another shape or memory in place; `clone` makes a usual tensor of it.
    """

    _sealed: Sealed
    _like: torch.Tensor
    """What it is and how it lies in the whole, on the device `meta`."""

    @staticmethod
    def __new__(cls, sealed: Sealed, like: torch.Tensor) -> Any:
        # Else it would have no views in another mode.
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device="cpu")
        # For whoever looks there in spite of all below.
        message = "this tensor of a sealed model is not decrypted yet: copy it, or make a usual tensor of it by clone()"
        torch._C._set_storage_access_error_msg(made, message)
        made._sealed, made._like = sealed, like
        return made

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _REPLACE_MEMORY and isinstance(args[0], Deferred):
            raise _fixed(func)
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
        if isinstance(args[0], Deferred):
            if func is torch.ops.aten.detach_.default:
                return args[0]
            if torch.Tag.inplace_view in func.tags:
                raise _fixed(func)
            views = _views(args[0], func, args[1:], kwargs) if func.is_view else None
            if views is not None:
                return views
        args, kwargs = _decrypted((args, kwargs))
        return func(*args, **kwargs)

    def __repr__(self, **_: Any) -> str:
        return f"Deferred(shape={tuple(self.shape)}, dtype={self.dtype})"

    def _decrypt(self) -> torch.Tensor:
        like, start = self._like, _offset(self._like)
        whole = self._sealed.whole().view(-1).view(torch.uint8)
        return whole[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _offset(like: torch.Tensor) -> int:
    """Bytes from the start of the whole."""
    return int(like.storage_offset() * like.element_size())


def _fixed(func: Any) -> TypeError:
    name = getattr(func, "__name__", str(func))
    return TypeError(f"{name}: a tensor of a sealed model that is not decrypted yet is as it is; take what clone() makes of it")


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
        and source._sealed.fill(out, _offset(source._like))
    )


def _views(whole: Deferred, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Views of a tensor, as many as `func` makes of it; None where one is not what can be deferred."""
    made = func(whole._like, *args, **kwargs)
    for like in tree_flatten(made)[0]:
        if like.dim() == 0 or not like.is_contiguous() or like.is_conj() or like.is_neg() or not whole._sealed.has(like):
            return None
    return tree_map(lambda like: Deferred(whole._sealed, like), made)
