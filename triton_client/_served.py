"""What a model of either client knows of itself."""

from __future__ import annotations

from copy import deepcopy
from os import getpid
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client._failures import is_unimplemented
from triton_client._plan import Inferences
from triton_client._spec import SequenceIds, model_spec, sequence_ids
from triton_client._tensors import decode_tensor
from triton_client.errors import InvalidInput, PermissionDenied, TritonClientError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triton_client._calls import Call, Calls
    from triton_client._origin import Origin
    from triton_client._plan import Outputs
    from triton_client._regions import Regions
    from triton_client.types import ModelSpec

__all__ = ["PARTS_AT_ONCE", "ServedModel", "copied", "is_withheld", "sent_inputs"]

PARTS_AT_ONCE: Final = 4
"""How many requests of one split inference are under way together."""

CONFIRMED_SECONDS: Final = 1.0
"""How long an interface counts as the server's after it was found unchanged."""


class ServedModel:
    """One model of a server, with its interface.

    Attributes:
        name: The model's name.
        version: The version asked for; empty where the server chooses.
    """

    __slots__ = (
        "_calls", "_config", "_confirmed_until", "_inferences", "_locks", "_origin", "_regions",
        "_sequence_ids", "_server", "name", "version",
    )  # fmt: skip

    _inferences: Inferences
    _config: Any

    def __init__(
        self,
        calls: Calls,
        server: str,
        name: str,
        version: str,
        regions: Regions,
        origin: Origin,
    ) -> None:
        self._origin = origin
        self._regions = regions
        self._calls = calls
        self._server = server
        self.name = name
        self.version = version
        self._sequence_ids = SequenceIds()
        self._confirmed_until = 0.0
        self._locks: dict[int, Lock] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        config = self._config
        if not isinstance(config, TritonClientError):
            config = config.SerializeToString()  # its class cannot be pickled
        return _restored, (self._origin, self.name, self.version, self.spec, config)

    def __repr__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        return f"<{type(self).__name__} {self.name!r}{version} at {self._server}>"

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives, as the server said when it was fetched."""
        return self._inferences.spec

    @property
    def config(self) -> Any:
        """The model's ``tritonclient.grpc.model_config_pb2.ModelConfig``, as the server sees it.

        Raises:
            PermissionDenied: The server keeps it to itself.
            ServerError: The server has none, as servers other than Triton.
        """
        if isinstance(self._config, TritonClientError):
            error = self._config
            raise type(error)(
                error.message, server=self._server, model=self.name, version=self.version
            )
        return self._config

    def _learn(self, metadata: Any, config: Any) -> None:
        """Take over what the server says of the model.

        Args:
            metadata: The ``ModelMetadataResponse``.
            config: The ``ModelConfig``, or the error that came in its place.
        """
        known = None if isinstance(config, TritonClientError) else config
        self.adopt(model_spec(metadata, known, self.version), config)

    def adopt(self, spec: ModelSpec, config: Any) -> None:
        """Take over an interface, and the config or the error that came in its place."""
        failed = isinstance(config, TritonClientError)
        known = None if failed else config
        # Of an error its words alone: its traceback holds on to much more.
        self._config = type(config)(config.message) if failed else config
        before, self._sequence_ids = self._sequence_ids, sequence_ids(known)
        found = getattr(self, "_inferences", None)
        if found is None or (found.spec, before) != (spec, self._sequence_ids):
            self._inferences = Inferences(self._server, spec, self.version, self._regions)

    def _newer(self, used: Inferences) -> Inferences | None:
        """Return what has taken the place of what was used, if anything has."""
        return None if self._inferences is used else self._inferences

    @property
    def _is_confirmed(self) -> bool:
        """Whether the server was looked at a moment ago, and the interface was its own.

        A wrong request that is repeated then makes the client look now and then, not every time.
        """
        return monotonic() < self._confirmed_until

    def _confirm(self, used: Inferences) -> Inferences | None:
        """Take note that the server was looked at; return what is to be used from now on."""
        newer = self._newer(used)
        if newer is None:
            self._confirmed_until = monotonic() + CONFIRMED_SECONDS
        return newer

    def _lock(self) -> Lock:
        """Return this process's lock: a child may have got its parent's as it was held."""
        return self._locks.setdefault(getpid(), Lock())


def _restored(origin: Origin, name: str, version: str, spec: ModelSpec, config: Any) -> ServedModel:
    """Return a model of a client as it was pickled, without asking the server."""
    model: ServedModel = origin.client().known_model(name, version)
    if isinstance(config, bytes):
        config = model_config_pb2.ModelConfig.FromString(config)
    model.adopt(spec, config)
    return model


def is_withheld(error: TritonClientError) -> bool:
    """Whether a server keeps a model's config to itself, or has none; its model can be used."""
    return isinstance(error, PermissionDenied) or is_unimplemented(error)


def copied(inputs: Mapping[str, object], refused: InvalidInput) -> dict[str, object]:
    """Return a copy of inputs, which the caller may change meanwhile.

    Raises:
        InvalidInput: They cannot be copied; it is what they were refused for.
    """
    try:
        return deepcopy(dict(inputs))
    except Exception:  # noqa: BLE001 - what is no array raises whatever it likes
        raise refused from None


def sent_inputs(calls: Sequence[Call[Outputs]]) -> dict[str, np.ndarray[Any, Any]] | None:
    """Return the inputs that requests hold, whatever the caller's arrays hold by now.

    Args:
        calls: The requests of one inference, in order.

    Returns:
        The inputs by name; ``None`` where they are in shared memory.
    """
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for call in calls:
        if call.segments:
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
