"""The class that Triton's python backend makes an instance of for every model instance."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .completion import complete, is_complete
from .errors import BackendError, InternalError
from .execution import Executor
from .interface import read_interface
from .session import load_session, run_options
from .stub import accelerate
from .validation import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """One instance of a model: https://github.com/triton-inference-server/python_backend."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Complete the configuration from the model, where the server was told to.

        Args:
            auto_complete_model_config: ``pb_utils.ModelConfig``; changed in place.

        Returns:
            The same.
        """
        config = auto_complete_model_config.as_dict()
        if not is_complete(config):
            try:
                session = load_session(config, _model_path_of_stub(), "CPU", 0)
                complete(config, read_interface(session))
            except BackendError as error:
                # The server reports the frames of a traceback; ours say nothing to its user.
                raise error.with_traceback(None) from None
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model and check the configuration against it.

        Args:
            args: What the server says of the instance; ``model_config`` is JSON.
        """
        try:
            self._executor = _load(args)
        except BackendError as error:
            raise error.with_traceback(None) from None
        accelerate()
        # What is loaded now stays for good: the collector need not look at it again.
        gc.collect()
        gc.freeze()

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Answer a batch of requests; see :meth:`Executor.execute`."""
        return self._executor.execute(requests)


def _load(args: Mapping[str, str]) -> Executor:
    if int(np.__version__.split(".", 1)[0]) >= 2:
        raise InternalError(
            f"numpy {np.__version__} cannot be used: with numpy 2 this server reads wrong values"
        )
    config = json.loads(args["model_config"])
    filename = config.get("default_model_filename") or "model.onnx"
    path = f"{args['model_repository']}/{args['model_version']}/{filename}"
    kind, device = args["model_instance_kind"], int(args["model_instance_device_id"])
    session = load_session(config, path, kind, device)
    interface = read_interface(session)
    options = run_options(config)
    validate(config, interface)
    return Executor(config, session, interface, options)


def _model_path_of_stub() -> str:
    """Return the path of the model file, which only the stub's command line holds at this time."""
    return Path("/proc/self/cmdline").read_bytes().split(b"\0")[1].decode()
