"""Memory on a GPU, with a stand-in for NVIDIA's driver."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.system import cuda
from tests.unit.exporter.formats.fake_tensorrt import FakeDriver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver(devices=2, most=4096)
    monkeypatch.setattr(cuda, "_load", lambda: fake)
    return fake


def test_every_gpu_is_told(driver: FakeDriver) -> None:
    assert cuda.gpus() == (cuda.Gpu("Fake GPU", "8.6", 4096),) * 2


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16"])
@pytest.mark.parametrize("shape", [(3, 4), (), (0, 4)])
def test_what_is_uploaded_comes_back(
    driver: FakeDriver, dtype: str, shape: tuple[int, ...]
) -> None:
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 2).astype(dtype)
    with cuda.Memory() as memory:
        assert memory.stream
        address = memory.upload("x", array.T)
        assert address in driver.lent
        memory.wait()
        back = memory.download("x", array.dtype, array.T.shape)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array.T)
    assert driver.lent == {}


def test_a_block_grows_and_is_used_again(driver: FakeDriver) -> None:
    with cuda.Memory() as memory:
        first = memory.block("x", 100)
        assert memory.block("x", 50) == first
        assert len(driver.lent) == 1
        memory.block("x", 200)
        memory.block("y", 0)
        assert sorted(len(block) for block in driver.lent.values()) == [1, 200]
    assert driver.lent == {}


def test_what_fails_says_how_and_frees_the_rest(driver: FakeDriver) -> None:
    full = pytest.raises(cuda.CudaError, match="cuMemAlloc_v2 failed: CUDA_ERROR_OUT_OF_MEMORY")
    with cuda.Memory() as memory:
        memory.block("x", 100)
        with full:
            memory.block("y", 5000)
    assert driver.lent == {}
