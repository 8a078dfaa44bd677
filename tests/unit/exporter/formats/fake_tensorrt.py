"""A stand-in for TensorRT and for NVIDIA's driver, since the real ones do nothing without a GPU.

It has the names that the exporter uses (`test_tensorrt_bindings` holds these against the real
bindings), keeps what it is told, and answers as ONNX Runtime does, from memory of the host.
"""

from __future__ import annotations

import base64
import ctypes
import enum
import json
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

OUT_OF_MEMORY = 2
_UNSUPPORTED = {"Det", "NonZero"}
_TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64"}
_DTYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64}


class FakeDriver:
    """The calls of libcuda, on memory of the host; those that are not here do nothing."""

    def __init__(self, devices: int = 1, most: int = 1 << 30) -> None:
        self.devices, self.most = devices, most
        self.lent: dict[int, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *arguments: 0

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.devices
        return 0

    def cuDeviceGetName(self, name: Any, size: Any, device: Any) -> int:  # noqa: N802
        name.value = b"Fake GPU"
        return 0

    def cuDeviceTotalMem_v2(self, size: Any, device: Any) -> int:  # noqa: N802
        size._obj.value = self.most
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: Any, device: Any) -> int:  # noqa: N802
        value._obj.value = {75: 8, 76: 6}[attribute]
        return 0

    def cuStreamCreate(self, stream: Any, flags: Any) -> int:  # noqa: N802
        stream._obj.value = 77
        return 0

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:  # noqa: N802
        if size.value > self.most:
            return OUT_OF_MEMORY
        block = ctypes.create_string_buffer(size.value)
        address._obj.value = ctypes.addressof(block)
        self.lent[ctypes.addressof(block)] = block
        return 0

    def cuMemFree_v2(self, address: Any) -> int:  # noqa: N802
        del self.lent[address.value]
        return 0

    def cuMemcpyHtoD_v2(self, to: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, to: Any, source: Any, size: Any) -> int:  # noqa: N802
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuGetErrorName(self, code: Any, text: Any) -> int:  # noqa: N802
        text._obj.value = b"CUDA_ERROR_OUT_OF_MEMORY"
        return 0


class Mode(enum.Enum):
    INPUT, OUTPUT = 0, 1


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR, ERROR, WARNING = 0, 1, 2


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.shapes[name] = [list(least), list(usual), list(most)]


class Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"."


class Config:
    def __init__(self) -> None:
        self.flags = {"TF32"}
        self.pools: dict[str, int] = {}
        self.profiles: list[Profile] = []
        self.cache: Cache | None = None

    def set_flag(self, flag: enum.Enum) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: enum.Enum) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> Cache | None:
        return None if content == b"garbage" else Cache(content)

    def set_timing_cache(self, cache: Cache, *, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Cache | None:
        return self.cache


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.content = b""

    @property
    def session(self) -> ort.InferenceSession:
        return ort.InferenceSession(self.content, providers=["CPUExecutionProvider"])

    @property
    def num_inputs(self) -> int:
        return len(self.session.get_inputs())

    def get_input(self, index: int) -> Any:
        name = self.session.get_inputs()[index].name
        return SimpleNamespace(name=name, is_shape_tensor=name == "sizes")


class OnnxParser:
    def __init__(self, network: Network, log: ILogger) -> None:
        self.network, self.errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        node = self.errors[index]
        return SimpleNamespace(
            desc=lambda: "no importer registered",
            node_name=lambda: node.name,
            node_operator=lambda: node.op_type,
        )

    def parse_from_file(self, path: str) -> bool:
        model = onnx.load(path)
        self.errors = [node for node in model.graph.node if node.op_type in _UNSUPPORTED]
        self.network.content = model.SerializeToString()
        return not self.errors


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.profile.get(name, [shape, shape, shape])
        self.shapes[name] = shape
        return all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._answers()[name].shape

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        for name, array in self._answers().items():
            ctypes.memmove(self.addresses[name], array.tobytes(), array.nbytes)
        return True

    def _answers(self) -> dict[str, Any]:
        session = self.engine.session
        given = {}
        for node in session.get_inputs():
            dtype = np.dtype(_DTYPES[_TYPES[node.type]])
            shape = self.shapes[node.name]
            size = int(np.prod(shape)) * dtype.itemsize
            content = ctypes.string_at(self.addresses[node.name], size)
            given[node.name] = np.frombuffer(content, dtype).reshape(shape)
        names = [node.name for node in session.get_outputs()]
        answers = dict(zip(names, session.run(names, given), strict=True))
        if self.engine.error:
            answers = {name: (a + self.engine.error).astype(a.dtype) for name, a in answers.items()}
        return answers


class Engine:
    def __init__(self, plan: bytes, error: float) -> None:
        told = json.loads(plan)
        self.error, self.profile = error, told["profile"]
        content = base64.b64decode(told["onnx"])
        self.session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.nodes = {node.name: node for node in self.session.get_outputs()}
        self.nodes |= {node.name: node for node in self.session.get_inputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self.nodes)

    def create_execution_context(self) -> Context:
        return Context(self)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> Mode:
        inputs = {node.name for node in self.session.get_inputs()}
        return Mode.INPUT if name in inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_TYPES[self.nodes[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else -1 for d in self.nodes[name].shape)


class FakeTensorRT(ModuleType):
    """The module.

    Args:
        version: What it says that it is.
        error: What its engines add to every answer.
    """

    def __init__(self, version: str, error: float = 0.0) -> None:
        super().__init__("tensorrt")
        self.__spec__ = ModuleSpec("tensorrt", None)
        self.__version__ = version
        flags = ["TF32", "STRICT_NANS"]
        if version.startswith("10"):
            flags += ["FP16", "INT8"]
        self.BuilderFlag = enum.Enum("BuilderFlag", flags)
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Flags", ["STRONGLY_TYPED"])
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.TensorIOMode = Mode
        self.ILogger = ILogger
        self.OnnxParser = OnnxParser
        self.built: list[tuple[Network, Config]] = []
        fake = self

        class Builder:
            def __init__(self, log: ILogger) -> None:
                self.log = log

            create_network = staticmethod(Network)
            create_builder_config = staticmethod(Config)
            create_optimization_profile = staticmethod(Profile)

            def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
                fake.built.append((network, config))
                shapes = config.profiles[0].shapes if config.profiles else {}
                for node in network.session.get_inputs():
                    if not all(isinstance(d, int) for d in node.shape) and node.name not in shapes:
                        message = f"dynamic input {node.name} has no profile"
                        self.log.log(ILogger.Severity.ERROR, message)  # type: ignore[attr-defined]
                        return None
                onnx_text = base64.b64encode(network.content).decode()
                return json.dumps({"onnx": onnx_text, "profile": shapes}).encode()

        class Runtime:
            def __init__(self, log: ILogger) -> None:
                self.log = log

            def deserialize_cuda_engine(self, plan: bytes) -> Engine:
                return Engine(plan, error)

        self.Builder, self.Runtime = Builder, Runtime
