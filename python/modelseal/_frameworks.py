"""Tensors of frameworks over memory that was decrypted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol, TypeAlias

from modelseal._modelseal import Memory

Framework: TypeAlias = Literal["pt", "torch", "pytorch", "np", "numpy"]

# The dtypes of safetensors: in torch, in numpy, and in ml_dtypes where numpy has none.
_DTYPES: dict[str, tuple[str, str | None, str | None]] = {
    "BOOL": ("bool", "bool", None),
    "U8": ("uint8", "uint8", None),
    "I8": ("int8", "int8", None),
    "U16": ("uint16", "uint16", None),
    "I16": ("int16", "int16", None),
    "U32": ("uint32", "uint32", None),
    "I32": ("int32", "int32", None),
    "U64": ("uint64", "uint64", None),
    "I64": ("int64", "int64", None),
    "F16": ("float16", "float16", None),
    "BF16": ("bfloat16", None, "bfloat16"),
    "F32": ("float32", "float32", None),
    "F64": ("float64", "float64", None),
    "C64": ("complex64", "complex64", None),
    "F8_E5M2": ("float8_e5m2", None, "float8_e5m2"),
    "F8_E4M3": ("float8_e4m3fn", None, "float8_e4m3fn"),
    "F8_E8M0": ("float8_e8m0fnu", None, "float8_e8m0fnu"),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", None, "float8_e5m2fnuz"),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", None, "float8_e4m3fnuz"),
    "F4": ("float4_e2m1fn_x2", None, None),
}


class Maker(Protocol):
    """What makes the tensors of a framework."""

    def make(self, memory: Memory | memoryview, dtype: str, shape: Sequence[int]) -> Any:
        """A tensor over this memory, which becomes its own."""

    def own(self, tensor: Any, whole: Any) -> Any:
        """A tensor that does not keep more of `whole` in memory than it shows."""


def maker(framework: str) -> Maker:
    """That of a framework, by the names that safetensors has for it."""
    if framework in ("pt", "torch", "pytorch"):
        return Torch()
    if framework in ("np", "numpy"):
        return Numpy()
    raise ValueError(f"the framework {framework!r} is not known; there are pt and numpy")


class Torch:
    def make(self, memory: Memory | memoryview, dtype: str, shape: Sequence[int]) -> Any:
        import torch

        kind, shape = torch_dtype(dtype), torch_shape(dtype, shape)
        if len(memory) == 0:
            return torch.empty(shape, dtype=kind, device="cpu")
        raw = torch.frombuffer(memory, dtype=torch.uint8)
        if raw.data_ptr() % kind.itemsize:
            # What was saved without alignment.
            raw = raw.clone()
        return raw.view(kind).view(shape)

    def empty(self, dtype: str, shape: Sequence[int], device: Any) -> Any:
        """A tensor to be filled, on a device."""
        import torch

        return torch.empty(torch_shape(dtype, shape), dtype=torch_dtype(dtype), device=device)

    def own(self, tensor: Any, whole: Any) -> Any:
        if tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size():
            return tensor.contiguous()
        return tensor.clone(memory_format=_contiguous())


class Numpy:
    def make(self, memory: Memory | memoryview, dtype: str, shape: Sequence[int]) -> Any:
        import numpy as np

        kind = _numpy_dtype(dtype)
        if len(memory) == 0:
            return np.empty(shape, dtype=kind)
        return np.frombuffer(memoryview(memory), dtype=kind).reshape(shape)

    def own(self, tensor: Any, whole: Any) -> Any:
        import numpy as np

        # Of a single element numpy makes a scalar.
        part = np.asarray(tensor)
        return part if part.size == whole.size else part.copy()


def _contiguous() -> Any:
    import torch

    return torch.contiguous_format


def torch_shape(dtype: str, shape: Sequence[int]) -> list[int]:
    """The shape in torch of a tensor that has this one in safetensors."""
    if dtype != "F4":
        return list(shape)
    # Two elements a byte, which torch counts as one.
    if not shape or shape[-1] % 2:
        raise TypeError(f"torch takes two elements of F4 together, and there are {shape}")
    return [*shape[:-1], shape[-1] // 2]


@cache
def torch_dtype(name: str) -> Any:
    """That of torch, by the name that safetensors has for it."""
    import torch

    dtype = getattr(torch, _DTYPES.get(name, ("", None, None))[0], None)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"torch {torch.__version__} has no dtype {name}")
    return dtype


@cache
def _numpy_dtype(name: str) -> Any:
    import numpy as np

    _, own, others = _DTYPES.get(name, ("", None, None))
    if own is not None:
        return np.dtype(own).newbyteorder("<")
    if others is None:
        raise TypeError(f"numpy has no dtype {name}; load it with framework='pt'")
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError(
            f"numpy has no dtype {name}; install ml_dtypes (pip install 'modelseal[bfloat16]'), or load it with "
            "framework='pt'"
        ) from None
    return np.dtype(getattr(ml_dtypes, others))
