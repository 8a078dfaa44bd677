"""The class that Triton's python backend instantiates for every model instance."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from ..shared.errors import InternalError
from ..shared.instance import Instance, require_file
from .binding import bind
from .execution import TorchExecutor
from .lending import lend_torch
from .parameters import Parameters

__all__ = ["TritonPythonModel"]


class TritonPythonModel(Instance):
    """One instance of a TorchScript model; a script describes too little to complete a config."""

    default_filename = "model.pt"

    def load(self, config: Mapping[str, Any], path: str, args: Mapping[str, str]) -> TorchExecutor:
        """Load the model and check the configuration against it; see `Instance.load`."""
        parameters = Parameters.of(config)
        require_file(path, config)
        if args["model_instance_kind"] == "GPU":
            sys.stderr.write("pytorch backend: it runs on the CPU here\n")
        lend_torch()
        import torch

        parameters.apply()
        warnings.simplefilter("ignore")  # about TorchScript's age, and read-only arrays
        try:
            with torch.inference_mode(parameters.inference_mode):
                script = torch.jit.load(path, map_location="cpu")
        except Exception as error:
            raise InternalError(f"failed to load model '{config['name']}': {error}") from error
        return TorchExecutor(config, script, bind(config, script.forward.schema), parameters)
