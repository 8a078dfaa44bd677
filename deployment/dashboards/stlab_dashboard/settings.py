"""The dashboard's settings, from environment variables that all of stlab shares."""

from __future__ import annotations

from functools import partial

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from exporter.triton.addresses import split_addresses
from stlab_web.application import WebSettings, shared

__all__ = ["Settings"]

_shared = partial(shared, "STLAB_DASHBOARD_")


class Settings(WebSettings):
    """``docs/dashboard.md`` has the table."""

    model_config = SettingsConfigDict(env_prefix="STLAB_DASHBOARD_")

    tracking_uri: str = _shared("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    repository: str = _shared("STLAB_MODEL_REPOSITORY", "model_repository")
    triton_url: str = _shared("STLAB_TRITON_URL", "127.0.0.1:8001")
    triton_metrics_url: str = _shared("STLAB_TRITON_METRICS_URL", "http://127.0.0.1:8002/metrics")
    api_url: str = _shared("STLAB_API_URL", "http://127.0.0.1:8080")

    port: int = Field(8090, ge=0, le=65535)
    api_key: SecretStr = SecretStr("")
    cache_seconds: float = Field(5.0, ge=0)
    refresh_seconds: float = Field(2.0, ge=0.2)
    timeout_seconds: float = Field(10.0, gt=0)
    max_file_bytes: int = Field(16 * 1024 * 1024, gt=0)
    quick: bool = False

    @property
    def triton_urls(self) -> tuple[str, ...]:
        """The gRPC addresses of the servers; ``STLAB_TRITON_URL`` may list several."""
        return split_addresses(self.triton_url)
