"""What the models of both clients share: the interface, its age, and how it is pickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from time import monotonic
from typing import Any, Final

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client._config import ModelConfig, model_config
from triton_client._failures import is_unimplemented
from triton_client._origin import Origin
from triton_client._plan import RequestBuilder
from triton_client._requests import Call
from triton_client._result import Result
from triton_client._shared_memory import ShmRegistry
from triton_client._spec import SequenceIds, model_spec, sequence_ids
from triton_client._tensors import decode_tensor
from triton_client.errors import InvalidInput, PermissionDenied, TritonClientError
from triton_client.types import ModelSpec

__all__ = ["PARTS_AT_ONCE", "ModelBase", "copied", "is_withheld", "sent_inputs"]

PARTS_AT_ONCE: Final = 4
"""How many requests of one split inference run at a time."""

CONFIRMED_SECONDS: Final = 1.0
"""How long an interface counts as current after it was found unchanged."""


class ModelBase:
    """One model of a server, with its interface.

    Attributes:
        name: The model's name.
        version: The version called; empty where the server chooses.
    """

    __slots__ = (
        "_builder", "_config", "_confirmed_until", "_origin", "_sequence_ids", "_server", "_shm",
        "name", "version",
    )  # fmt: skip

    _builder: RequestBuilder
    _config: ModelConfig | TritonClientError

    def __init__(
        self, server: str, name: str, version: str, shm: ShmRegistry, origin: Origin
    ) -> None:
        self._origin = origin
        self._shm = shm
        self._server = server
        self.name = name
        self.version = version
        self._sequence_ids = SequenceIds()
        self._confirmed_until = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        config: Any = self._config
        if isinstance(config, ModelConfig):
            config = config.raw.SerializeToString()  # the message's class cannot be pickled
        return _restored, (self._origin, self.name, self.version, self.spec, config)

    def __repr__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        return f"<{type(self).__name__} {self.name!r}{version} at {self._server}>"

    @property
    def spec(self) -> ModelSpec:
        """The model's inputs and outputs, as last fetched from the server."""
        return self._builder.spec

    @property
    def config(self) -> ModelConfig:
        """The model's config as the server sees it.

        Raises:
            PermissionDenied: The server does not show it.
            ServerError: The server has none, as servers other than Triton.
        """
        if isinstance(self._config, TritonClientError):
            error = self._config
            raise type(error)(
                error.message, server=self._server, model=self.name, version=self.version
            )
        return self._config

    def _learn(self, metadata: Any, config: Any) -> None:
        """Adopt what the server says of the model.

        Args:
            metadata: The ``ModelMetadataResponse``.
            config: The ``ModelConfig`` message, or the error that came in its place.
        """
        known = None if isinstance(config, TritonClientError) else config
        self.adopt(model_spec(metadata, known, self.version), config)

    def adopt(self, spec: ModelSpec, config: Any) -> None:
        """Adopt an interface, and the config or the error that came in its place."""
        failed = isinstance(config, TritonClientError)
        # Of an error only its words: its traceback would keep much more alive.
        self._config = type(config)(config.message) if failed else model_config(config)
        before, self._sequence_ids = self._sequence_ids, sequence_ids(None if failed else config)
        found = getattr(self, "_builder", None)
        if found is None or (found.spec, before) != (spec, self._sequence_ids):
            self._builder = RequestBuilder(self._server, spec, self.version, self._shm)

    def _newer(self, used: RequestBuilder) -> RequestBuilder | None:
        """Return what has replaced the builder that was used; ``None`` for nothing."""
        return None if self._builder is used else self._builder

    @property
    def _is_confirmed(self) -> bool:
        """Whether the interface was compared with the server's a moment ago and was the same.

        A wrong request that is repeated then makes the client fetch it now and then, not each time.
        """
        return monotonic() < self._confirmed_until

    def _confirm(self, used: RequestBuilder) -> RequestBuilder | None:
        """Record that the interface was fetched; return the builder to use from now on."""
        newer = self._newer(used)
        if newer is None:
            self._confirmed_until = monotonic() + CONFIRMED_SECONDS
        return newer


def _restored(origin: Origin, name: str, version: str, spec: ModelSpec, config: Any) -> ModelBase:
    """Return a model of a client as it was pickled, without a call to the server."""
    model: ModelBase = origin.client().known_model(name, version)
    if isinstance(config, bytes):
        config = model_config_pb2.ModelConfig.FromString(config)
    model.adopt(spec, config)
    return model


def is_withheld(error: TritonClientError) -> bool:
    """Whether a server does not show a model's config, or has none; its model can be used."""
    return isinstance(error, PermissionDenied) or is_unimplemented(error)


def copied(inputs: Mapping[str, object], refused: InvalidInput) -> dict[str, object]:
    """Return a copy of inputs that the caller may change meanwhile.

    Raises:
        InvalidInput: They cannot be copied; the error is the one they were refused with.
    """
    try:
        return deepcopy(dict(inputs))
    except Exception:  # noqa: BLE001 - an object that is no array may raise anything
        raise refused from None


def sent_inputs(calls: Sequence[Call[Result]]) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return the inputs that requests hold; the caller's arrays may have changed since.

    Args:
        calls: The requests of one inference, in order.

    Returns:
        The inputs by name; ``None`` where they are in shared memory.
    """
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for call in calls:
        if call.regions:
            return None
        request = service_pb2.ModelInferRequest.FromString(call.request)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            array = decode_tensor(
                raw, tensor.datatype, tuple(tensor.shape), offset=0, size=len(raw)
            )
            found.setdefault(tensor.name, []).append(array)
    return {
        name: parts[0] if len(parts) == 1 else np.concatenate(parts)
        for name, parts in found.items()
    }
