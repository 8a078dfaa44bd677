"""The class that Triton's python backend makes an instance of for every model instance."""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from .binding import bind
from .errors import BackendError, InternalError, UnavailableError
from .execution import Executor
from .lending import lend_torch
from .parameters import Parameters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TritonPythonModel"]


class TritonPythonModel:
    """One instance of a model: https://github.com/triton-inference-server/python_backend."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Return the configuration as it is: a script says too little about itself.

        Args:
            auto_complete_model_config: ``pb_utils.ModelConfig``.
        """
        return auto_complete_model_config

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model and check the configuration against it.

        Args:
            args: What the server says of the instance; ``model_config`` is JSON.
        """
        try:
            self._executor = _load(args)
        except BackendError as error:
            # The server reports the frames of a traceback; ours say nothing to its user.
            raise error.with_traceback(None) from None
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
    filename = config.get("default_model_filename") or "model.pt"
    path = f"{args['model_repository']}/{args['model_version']}/{filename}"
    parameters = Parameters.of(config)
    if not os.path.exists(path):  # noqa: PTH110 - a string, as everything that Triton hands over
        raise UnavailableError(f"unable to find '{path}' for model instance '{config['name']}'")
    if args["model_instance_kind"] == "GPU":
        sys.stderr.write("pytorch backend: it runs on the CPU here\n")
    lend_torch()
    script = _load_script(path, config["name"], parameters)
    return Executor(config, script, bind(config, script.forward.schema), parameters)


def _load_script(path: str, model: str, parameters: Parameters) -> Any:
    import torch

    parameters.apply()
    warnings.simplefilter("ignore")  # of TorchScript's age, and of arrays that are read only
    try:
        with torch.inference_mode(parameters.inference_mode):
            return torch.jit.load(path, map_location="cpu")
    except Exception as error:
        raise InternalError(f"failed to load model '{model}': {error}") from error
