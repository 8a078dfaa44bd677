"""The service's settings, with the environment variables that every part of stlab uses."""

from __future__ import annotations

from functools import partial
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from exporter.errors import UsageError
from exporter.names import ALIAS_ORDER, model_name
from exporter.triton.addresses import is_loopback
from stlab_web.application import WebSettings, shared
from stlab_web.asgi import host_names

__all__ = ["Settings"]

_shared = partial(shared, "STLAB_API_")


class Settings(WebSettings):
    """``docs/api.md`` has the table."""

    model_config = SettingsConfigDict(env_prefix="STLAB_API_")

    tracking_uri: str = _shared("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    model_names: str = _shared("MLFLOW_MODEL_NAME", "")
    alias: str = _shared("MLFLOW_MODEL_ALIAS", "prod")
    triton_url: str = _shared("STLAB_TRITON_URL", "127.0.0.1:8001")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _shared("LOG_LEVEL", "INFO")
    log_format: Literal["text", "json"] = _shared("LOG_FORMAT", "text")

    backend: Literal["local", "triton"] = "local"
    port: int = Field(8080, ge=0, le=65535)
    max_body_bytes: int = Field(16 * 1024 * 1024, gt=0)
    max_plugin_bytes: int = Field(1024 * 1024, gt=0)
    max_buffered_bytes: int = Field(256 * 1024 * 1024, gt=0)
    max_connections: int = Field(1000, gt=0)
    max_rows: int = Field(1024, gt=0)
    max_concurrency: int = Field(64, gt=0)
    timeout_seconds: float = Field(10.0, gt=0)
    header_seconds: float = Field(10.0, gt=0)
    send_seconds: float = Field(30.0, gt=0)
    refresh_seconds: float = Field(5.0, gt=0)
    drain_seconds: float = Field(3.0, ge=0)
    stop_seconds: float = Field(20.0, gt=0)
    threads: int = Field(1, gt=0)
    keys: SecretStr = SecretStr("")
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_jwks_url: str = ""

    @field_validator("alias")
    @classmethod
    def _known_alias(cls, alias: str) -> str:
        if alias not in ALIAS_ORDER:
            raise ValueError(f"an alias is one of {', '.join(ALIAS_ORDER)}")
        return alias

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: str) -> str:
        return level.upper()

    @property
    def models(self) -> tuple[str, ...]:
        """The registered models to serve; ``MLFLOW_MODEL_NAME`` may list several with commas.

        Raises:
            UsageError: None is named, or a name is not valid.
        """
        names = tuple(
            model_name(name.strip()) for name in self.model_names.split(",") if name.strip()
        )
        if not names:
            raise UsageError(
                "MLFLOW_MODEL_NAME is not set",
                hint="Set it to the registered model to serve; several with commas.",
            )
        return names

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts to answer for; any if none is set and other machines can connect."""
        if host_names(self.allowed_hosts) or is_loopback(self.host):
            return super().hosts
        return ("*",)

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The keys of which a caller must send one; empty without authentication by key."""
        given = self.keys.get_secret_value().split(",")
        return tuple(key.strip() for key in given if key.strip())
