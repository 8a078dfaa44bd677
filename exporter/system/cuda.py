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

    Attributes:
        name: As its maker calls it.
        capability: The compute capability, such as ``8.6``: its architecture.
        memory: Its memory in bytes.
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
        self.call("cuInit", ctypes.c_uint(0))

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Args:
            name: The function.
            arguments: Values of ctypes, whose types are the function's.

        Raises:
            CudaError: It failed.
        """
        code = getattr(self._library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text))
            raise CudaError(f"{name} failed: {(text.value or b'unknown').decode()} ({code})")

    def device(self, index: int) -> ctypes.c_int:
        """Return the driver's handle of a GPU."""
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
        return device

    def gpu(self, index: int) -> Gpu:
        """Return the properties of a GPU."""
        device, memory = self.device(index), _size()
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, ctypes.c_int(256), device)
        self.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
        capability = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(attribute), device)
            capability.append(str(value.value))
        return Gpu(name.value.decode(errors="replace"), ".".join(capability), memory.value)


class Memory:
    """Blocks of memory on the first GPU, and a stream to work on; use it in ``with``.

    Every method raises `CudaError` where the driver fails, as it does when memory runs out.
    """

    def __init__(self) -> None:
        self._driver = _Driver()
        self._device = self._driver.device(0)
        self._blocks: dict[str, tuple[int, int]] = {}
        self._stream = ctypes.c_void_p()

    def __enter__(self) -> Self:
        context = ctypes.c_void_p()
        # The context that TensorRT works in as well.
        self._driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._driver.call("cuCtxSetCurrent", context)
        # A stream that waits for the copies, which are put on the default one.
        self._driver.call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(0))
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(CudaError):
            for address, _ in self._blocks.values():
                self._driver.call("cuMemFree_v2", ctypes.c_uint64(address))
            self._driver.call("cuStreamDestroy_v2", self._stream)
        self._blocks.clear()
        with suppress(CudaError):
            self._driver.call("cuDevicePrimaryCtxRelease_v2", self._device)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return self._stream.value or 0

    def block(self, name: str, size: int) -> int:
        """Return the address of a block of at least so many bytes.

        Args:
            name: Its name; a smaller block of the same name is freed, a larger one reused.
            size: The bytes; a block has one at least.
        """
        address, there = self._blocks.get(name, (0, 0))
        if there < max(size, 1):
            if address:
                self._driver.call("cuMemFree_v2", ctypes.c_uint64(address))
                del self._blocks[name]
            block = ctypes.c_uint64()
            self._driver.call("cuMemAlloc_v2", ctypes.byref(block), _size(max(size, 1)))
            address = block.value
            self._blocks[name] = (address, max(size, 1))
        return address

    def upload(self, name: str, array: npt.NDArray[Any]) -> int:
        """Copy an array into a block, and return the block's address."""
        whole = np.ascontiguousarray(array)
        address = self.block(name, whole.nbytes)
        if whole.nbytes:
            pointer = ctypes.c_void_p(whole.ctypes.data)
            size = _size(whole.nbytes)
            self._driver.call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), pointer, size)
        return address

    def download(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a copy of the start of a block."""
        array = np.empty(shape, dtype)
        if array.nbytes:
            pointer, size = ctypes.c_void_p(array.ctypes.data), _size(array.nbytes)
            address = ctypes.c_uint64(self._blocks[name][0])
            self._driver.call("cuMemcpyDtoH_v2", pointer, address, size)
        return array

    def wait(self) -> None:
        """Wait until the stream has finished its work."""
        self._driver.call("cuStreamSynchronize", self._stream)


def _load() -> Any:
    return ctypes.CDLL(_LIBRARY)


def _size(value: int = 0) -> ctypes.c_size_t:
    return ctypes.c_size_t(value)
