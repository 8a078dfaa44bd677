"""bfloat16 tensors, a type that numpy lacks: as their bits, by DLPack and ONNX Runtime's values.

The layout is that of DLPack 0.8: https://github.com/dmlc/dlpack/blob/v0.8/include/dlpack/dlpack.h.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime

from ..shared.datatypes import Array

__all__ = ["bits_from_tensor", "bits_from_value", "tensor_from_bits", "value_from_bits"]

_CPU, _BFLOAT_CODE, _BITS = 1, 4, 16
_ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _ManagedTensor(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))


_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

# The target of a capsule lives until its consumer calls the deleter.
_alive: dict[int, tuple[Any, ...]] = {}
_release = _DELETER(lambda address: _alive.pop(address, None))


def bits_from_tensor(tensor: Any) -> Array:
    """Return a copy of the bits of a ``pb_utils.Tensor`` as an array of uint16."""
    capsule = tensor.to_dlpack()
    given = _ManagedTensor.from_address(_capsule_pointer(capsule, b"dltensor")).tensor
    return _copy(given.data, tuple(given.shape[: given.ndim]), given.byte_offset)


def tensor_from_bits(tensor_type: Any, name: str, bits: Array) -> Any:
    """Return a ``pb_utils.Tensor`` of an array of uint16 that holds the bits."""
    bits = np.ascontiguousarray(bits)
    shape = (ctypes.c_int64 * bits.ndim)(*bits.shape)
    managed = _ManagedTensor(
        tensor=_Tensor(
            data=bits.ctypes.data,
            device_type=_CPU,
            ndim=bits.ndim,
            code=_BFLOAT_CODE,
            bits=_BITS,
            lanes=1,
            shape=ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)),
        ),
        deleter=_release,
    )
    address = ctypes.addressof(managed)
    _alive[address] = (managed, shape, bits)
    return tensor_type.from_dlpack(name, _new_capsule(address, b"dltensor", None))


def value_from_bits(bits: Array) -> Any:
    """Return an ``onnxruntime.OrtValue`` of bfloat16 from an array of uint16."""
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def bits_from_value(value: Any) -> Array:
    """Return a copy of the bits of an ``onnxruntime.OrtValue`` as an array of uint16."""
    return _copy(value.data_ptr(), tuple(value.shape()), 0)


def _copy(address: int | None, shape: tuple[int, ...], offset: int) -> Array:
    bits = np.empty(shape, dtype=np.uint16)
    if bits.size and address is not None:
        ctypes.memmove(bits.ctypes.data, address + offset, bits.nbytes)
    return bits
