"""NVIDIA's driver, called through its C interface: the GPUs of this machine, and memory on one.

The driver's library needs neither a CUDA runtime nor a torch that was built for one.

Source: the CUDA driver API reference (cuda.h), whose names are a stable ABI.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["CudaError", "Gpu", "Memory", "driver_version", "gpus"]

_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_MODULE = Path("/sys/module/nvidia/version")


class CudaError(Exception):
    """The driver or the GPU is missing, or a call of the driver failed."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that this process may use.

    Its compute capability, such as ``8.6``, is its architecture; its memory is in bytes.
    """

    name: str
    capability: str
    memory: int


def driver_version() -> str:
    """Return the version of the kernel's NVIDIA driver; empty where it is unknown."""
    with suppress(OSError):
        return _MODULE.read_text().strip()
    return ""


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, the one that is used first.

    Raises:
        CudaError: The driver is missing or does not work.
    """
    driver = _Driver()
    count = ctypes.c_int()
    driver.call("cuDeviceGetCount", ctypes.byref(count))
    return tuple(driver.gpu(index) for index in range(count.value))


class _Driver:
    """The driver, initialised."""

    def __init__(self) -> None:
        try:
            self._library = _load()
        except OSError as error:
            raise CudaError(f"there is no NVIDIA driver ({_LIBRARY})") from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; it takes an int as C's, and all else as of ctypes."""
        code = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(text))
            raise CudaError(f"{name} failed: {(text.value or b'unknown').decode()} ({code})")

    def device(self, index: int) -> ctypes.c_int:
        """Return the driver's handle of a GPU."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), index)
        return device

    def gpu(self, index: int) -> Gpu:
        """Return the properties of a GPU."""
        device, memory = self.device(index), ctypes.c_size_t()
        name = ctypes.create_string_buffer(256)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGetName", name, len(name), device)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        self.call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
        capability = f"{major.value}.{minor.value}"
        return Gpu(name.value.decode(errors="replace"), capability, memory.value)


class Memory:
    """Blocks of memory on the first GPU, and a stream to work on; use it in ``with``.

    Every method raises `CudaError` where the driver fails, as it does when memory runs out.
    """

    def __init__(self) -> None:
        driver = _Driver()
        self._call, self._device = driver.call, driver.device(0)
        self._blocks: dict[str, tuple[ctypes.c_uint64, int]] = {}
        self._stream = ctypes.c_void_p()

    def __enter__(self) -> Self:
        context = ctypes.c_void_p()
        # The context that TensorRT works in as well.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxSetCurrent", context)
        # A stream that waits for the copies, which are put on the default one.
        self._call("cuStreamCreate", ctypes.byref(self._stream), 0)
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(CudaError):
            for address, _ in self._blocks.values():
                self._call("cuMemFree_v2", address)
            self._call("cuStreamDestroy_v2", self._stream)
        self._blocks.clear()
        with suppress(CudaError):
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return self._stream.value or 0

    def block(self, name: str, size: int) -> int:
        """Return the address of a block of at least so many bytes, and one at least.

        A smaller block of the same name is freed, a larger one is used again.
        """
        size = max(size, 1)
        address, there = self._blocks.get(name, (ctypes.c_uint64(), 0))
        if there < size:
            if there:
                self._call("cuMemFree_v2", address)
                del self._blocks[name]
            address = ctypes.c_uint64()
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
            self._blocks[name] = (address, size)
        return address.value

    def upload(self, name: str, array: npt.NDArray[Any]) -> int:
        """Copy an array into a block, and return the block's address."""
        whole = np.ascontiguousarray(array)
        address = self.block(name, whole.nbytes)
        if whole.nbytes:
            pointer, size = ctypes.c_void_p(whole.ctypes.data), ctypes.c_size_t(whole.nbytes)
            self._call("cuMemcpyHtoD_v2", self._blocks[name][0], pointer, size)
        return address

    def download(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a copy of the start of a block."""
        array = np.empty(shape, dtype)
        if array.nbytes:
            pointer, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
            self._call("cuMemcpyDtoH_v2", pointer, self._blocks[name][0], size)
        return array

    def wait(self) -> None:
        """Wait until the stream has finished its work."""
        self._call("cuStreamSynchronize", self._stream)


def _load() -> Any:
    return ctypes.CDLL(_LIBRARY)
