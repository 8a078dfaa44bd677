"""The request that commands about one alias share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from exporter.names import DEFAULT_REPOSITORY, DEFAULT_TRACKING_URI, alias_name, model_name

__all__ = ["AliasRequest"]


@dataclass(frozen=True, slots=True)
class AliasRequest:
    """A request about an alias of a registered model.

    Attributes:
        model: The registered model.
        alias: ``dev``, ``staging`` or ``prod``.
        repository: The model repository: a folder, or a URL such as ``s3://bucket/prefix``.
        tracking_uri: The MLflow registry.

    Raises:
        UsageError: The model's name is invalid.
        NotFoundError: The alias does not exist.
    """

    model: str
    alias: str
    _: KW_ONLY
    repository: str = DEFAULT_REPOSITORY
    tracking_uri: str = DEFAULT_TRACKING_URI

    def __post_init__(self) -> None:
        model_name(self.model)
        alias_name(self.alias)
