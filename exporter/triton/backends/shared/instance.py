"""The class that Triton's python backend instantiates for every model instance."""

from __future__ import annotations

import gc
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from .errors import BackendError, InternalError, UnavailableError
from .execution import Executor

__all__ = ["Instance", "require_file", "stub_arguments"]


class Instance(ABC):
    """One instance of a model: https://github.com/triton-inference-server/python_backend."""

    default_filename: ClassVar[str]

    @abstractmethod
    def load(self, config: Mapping[str, Any], path: str, args: Mapping[str, str]) -> Executor:
        """Load a model file and check the configuration against it; ``args`` are `initialize`'s.

        Raises:
            BackendError: The model cannot be served with this configuration.
        """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model of the server's description; its ``model_config`` is JSON."""
        # Triton makes the region of requests and answers readable for other users.
        with suppress(OSError):
            Path("/dev/shm", stub_arguments()[2]).chmod(0o600)  # noqa: S108 - where regions are
        try:
            if int(np.__version__.split(".", 1)[0]) >= 2:
                raise InternalError(
                    f"numpy {np.__version__} cannot be used: with numpy 2 this server reads wrong "
                    "values"
                )
            config = json.loads(args["model_config"])
            filename = config.get("default_model_filename") or self.default_filename
            path = f"{args['model_repository']}/{args['model_version']}/{filename}"
            self._executor = self.load(config, path, args)
        except BackendError as error:
            # The server would show the frames of a traceback to its user.
            raise error.with_traceback(None) from None
        # What is loaded now stays for good: the collector need not visit it again.
        gc.collect()
        gc.freeze()

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Answer a batch of requests; see :meth:`Executor.execute`."""
        return self._executor.execute(requests)


def require_file(path: str, config: Mapping[str, Any]) -> None:
    """Raise UnavailableError unless a model's file exists."""
    if not Path(path).exists():
        raise UnavailableError(f"unable to find '{path}' for model instance '{config['name']}'")


def stub_arguments() -> list[str]:
    """Return the stub's command line: program, path of the model, name of its memory, and more."""
    return Path("/proc/self/cmdline").read_bytes().decode().split("\0")
