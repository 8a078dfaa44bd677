"""The class that Triton's python backend instantiates for every model instance."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as backend_utils

from ..shared.datatypes import DATATYPES
from ..shared.errors import BackendError
from ..shared.instance import Instance, stub_arguments
from .completion import complete, is_complete
from .execution import OnnxExecutor
from .interface import read_interface
from .session import load_session, run_options
from .strings import deserialize, serialize
from .validation import validate

__all__ = ["TritonPythonModel"]


class TritonPythonModel(Instance):
    """One instance of an ONNX model."""

    default_filename = "model.onnx"

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Complete a ``pb_utils.ModelConfig`` in place from the model, and return it."""
        config = auto_complete_model_config.as_dict()
        if not is_complete(config):
            try:
                # At this time only the stub's command line has the path of the model.
                session = load_session(config, stub_arguments()[1], "CPU", 0)
                complete(config, read_interface(session))
            except BackendError as error:
                raise error.with_traceback(None) from None
        return auto_complete_model_config

    def load(self, config: Mapping[str, Any], path: str, args: Mapping[str, str]) -> OnnxExecutor:
        """Load the model and check the configuration against it; see `Instance.load`."""
        kind, device = args["model_instance_kind"], int(args["model_instance_device_id"])
        session = load_session(config, path, kind, device)
        interface = read_interface(session)
        options = run_options(config)
        validate(config, interface)
        _accelerate_stub()
        return OnnxExecutor(config, session, interface, options)


def _accelerate_stub() -> None:
    """Replace what the python backend's stub does slowly for every tensor, in Python."""
    # A data type takes a dozen comparisons each way, and strings are read element by element. The
    # stub looks the functions up at every call.
    names = [name for name in DATATYPES if name != "bfloat16"]
    by_number: dict[int, Any] = {n: np.dtype(name) for n, name in enumerate(names, start=1)}
    numbers = {numpy_type: number for number, numpy_type in by_number.items()}
    backend_utils.triton_to_numpy_type = by_number.get
    backend_utils.numpy_to_triton_type = numbers.__getitem__
    backend_utils.deserialize_bytes_tensor = deserialize
    backend_utils.serialize_byte_tensor = serialize
    # Called for every batch with the list of responses.
    asyncio.iscoroutine = types.CoroutineType.__instancecheck__  # type: ignore[assignment]
