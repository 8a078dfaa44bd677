"""What the models of both clients share: the interface, its age, and how it is pickled."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from time import monotonic
from typing import Any, Final

import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2

from triton_client._config import ModelConfig, model_config
from triton_client._deadline import Deadline
from triton_client._failures import Place
from triton_client._headers import call_headers
from triton_client._origin import Origin
from triton_client._parameters import Parameter, RequestOptions
from triton_client._plan import RequestBuilder
from triton_client._requests import Call
from triton_client._result import Result
from triton_client._shared_memory import ShmRegistry
from triton_client._spec import SequenceIds, sequence_ids
from triton_client._tensors import decode_tensor
from triton_client.errors import InvalidInput, TritonClientError
from triton_client.types import ModelSpec

__all__ = ["PARTS_AT_ONCE", "ModelBase", "copied", "sent_inputs"]

PARTS_AT_ONCE: Final = 4
"""How many requests of one split inference run at a time."""

CONFIRMED_SECONDS: Final = 1.0
"""How long an interface counts as current after it was found unchanged."""


class ModelBase:
    """One model of a server, with its interface."""

    __slots__ = (
        "_builder", "_config", "_confirmed_until", "_origin", "_place", "_sequence_ids", "_shm",
        "_timeout", "name", "version",
    )  # fmt: skip

    _builder: RequestBuilder
    _config: tuple[ModelConfig, TritonClientError | None]
    """The config, and the error that came in its place; one object, since threads share it."""

    def __init__(
        self, place: Place, timeout: float | None, shm: ShmRegistry, origin: Origin
    ) -> None:
        self._place = place
        self._timeout = timeout
        self._shm = shm
        self._origin = origin
        _, self.name, self.version = place
        self._sequence_ids = SequenceIds()
        self._confirmed_until = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        config, withheld = self._config
        raw = config.raw.SerializeToString()  # the message's class cannot be pickled
        return _restored, (self._origin, self.name, self.version, self.spec, raw, withheld)

    def __repr__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        return f"<{type(self).__name__} {self.name!r}{version} at {self._place.server}>"

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
        config, withheld = self._config
        if withheld is not None:
            raise self._place.error(type(withheld), withheld.message)
        return config

    def adopt(self, spec: ModelSpec, config: Any, withheld: TritonClientError | None) -> None:
        """Adopt an interface, and a ``ModelConfig`` message: an empty one where it is withheld."""
        # Of an error only its words: its traceback would keep much more alive.
        words = None if withheld is None else type(withheld)(withheld.message)
        self._config = model_config(config), words
        before, self._sequence_ids = self._sequence_ids, sequence_ids(config)
        found = getattr(self, "_builder", None)
        if found is None or (found.spec, before) != (spec, self._sequence_ids):
            self._builder = RequestBuilder(self._place, spec, self._shm)

    def _sequence_id(self, given: int | str | None) -> int | str:
        """Return the identifier of a new sequence, a random one where none is given."""
        ids = self._sequence_ids
        if given is None:
            return 1 + secrets.randbelow(ids.largest) if ids.largest else secrets.token_hex(16)
        if not ids.allows(given):
            raise self._builder.invalid(
                f"the id of a sequence of this model is {ids}, not {given!r}"
            )
        return given

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds)

    def _names(self, outputs: Iterable[str] | None) -> tuple[str, ...] | None:
        """Return the names of outputs; unknown ones too while the interface may have changed."""
        if outputs is None:
            return None
        if not isinstance(outputs, Mapping | str):
            outputs = tuple(outputs)
            if not self._is_confirmed:
                return outputs
        return self._builder.names(outputs)

    def _options(
        self,
        outputs: Iterable[str] | None,
        deadline: float | None,
        parameters: Mapping[str, Parameter] | None,
        priority: int,
        headers: Mapping[str, str | bytes] | None,
    ) -> RequestOptions:
        return RequestOptions(
            self._names(outputs),
            self._deadline(deadline).seconds,
            parameters,
            priority=priority,
            headers=call_headers(headers),
        )

    @property
    def _is_confirmed(self) -> bool:
        """Whether the interface was compared with the server's a moment ago and was the same.

        A wrong request that is repeated then makes the client fetch it now and then, not each time.
        """
        return monotonic() < self._confirmed_until

    def _confirm(self, used: RequestBuilder) -> None:
        """Record that the interface was fetched, if it was found unchanged."""
        if self._builder is used:
            self._confirmed_until = monotonic() + CONFIRMED_SECONDS


def _restored(
    origin: Origin,
    name: str,
    version: str,
    spec: ModelSpec,
    config: bytes,
    withheld: TritonClientError | None,
) -> ModelBase:
    """Return a model of a client as it was pickled, without a call to the server."""
    model: ModelBase = origin.client().known_model(name, version)
    model.adopt(spec, model_config_pb2.ModelConfig.FromString(config), withheld)
    return model


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
    """Return the inputs that one inference's requests hold; ``None`` where shared memory does.

    The caller's arrays may have changed since.
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
