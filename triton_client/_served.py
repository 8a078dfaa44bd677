"""What a model of either client knows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triton_client._plan import Inferences
from triton_client._spec import model_spec
from triton_client.errors import PermissionDenied

if TYPE_CHECKING:
    from triton_client._calls import Calls
    from triton_client._regions import Regions
    from triton_client.types import ModelSpec

__all__ = ["PARTS_AT_ONCE", "ServedModel"]

PARTS_AT_ONCE: Final = 4
"""How many requests of one split inference are under way together."""


class ServedModel:
    """One model of a server, with its interface.

    Attributes:
        name: The model's name.
        version: The version asked for; empty where the server chooses.
    """

    __slots__ = ("_calls", "_config", "_inferences", "_regions", "_server", "name", "version")

    _inferences: Inferences
    _config: Any | None

    def __init__(
        self, calls: Calls, server: str, name: str, version: str, regions: Regions
    ) -> None:
        self._regions = regions
        self._calls = calls
        self._server = server
        self.name = name
        self.version = version

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
        """
        if self._config is None:
            raise PermissionDenied(
                "the server keeps model configs to itself",
                server=self._server,
                model=self.name,
                version=self.version,
            )
        return self._config

    def _learn(self, metadata: Any, config: Any | None) -> None:
        spec = model_spec(metadata, config, self.version)
        self._config = config
        self._inferences = Inferences(self._server, spec, self.version, self._regions)
