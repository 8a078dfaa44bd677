"""The dashboard's settings, from environment variables that all of stlab shares."""

from __future__ import annotations

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from exporter.triton.addresses import split_addresses
from stlab_web.asgi import known_hosts

__all__ = ["Settings"]


def _shared(name: str) -> AliasChoices:
    return AliasChoices(name, f"STLAB_DASHBOARD_{name}")


class Settings(BaseSettings):
    """Environment over ``.env`` over default; ``docs/dashboard.md`` has the table."""

    model_config = SettingsConfigDict(
        env_prefix="STLAB_DASHBOARD_",
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    tracking_uri: str = Field(
        "sqlite:///mlflow.db", validation_alias=_shared("MLFLOW_TRACKING_URI")
    )
    repository: str = Field("model_repository", validation_alias=_shared("STLAB_MODEL_REPOSITORY"))
    triton_url: str = Field("127.0.0.1:8001", validation_alias=_shared("STLAB_TRITON_URL"))
    triton_metrics_url: str = Field(
        "http://127.0.0.1:8002/metrics", validation_alias=_shared("STLAB_TRITON_METRICS_URL")
    )
    api_url: str = Field("http://127.0.0.1:8080", validation_alias=_shared("STLAB_API_URL"))

    host: str = "127.0.0.1"
    port: int = Field(8090, ge=0, le=65535)
    root_path: str = ""
    allowed_hosts: str = ""
    forwarded_allow_ips: str = "127.0.0.1,::1"
    api_key: SecretStr = SecretStr("")
    cache_seconds: float = Field(5.0, ge=0)
    refresh_seconds: float = Field(2.0, ge=0.2)
    timeout_seconds: float = Field(10.0, gt=0)
    max_file_bytes: int = Field(16 * 1024 * 1024, gt=0)
    quick: bool = False

    @property
    def hosts(self) -> tuple[str, ...]:
        """The accepted hosts: those in the setting, localhost and its own address."""
        return known_hosts(self.allowed_hosts, self.host)

    @property
    def triton_urls(self) -> tuple[str, ...]:
        """The gRPC addresses of the servers; ``STLAB_TRITON_URL`` may list several."""
        return split_addresses(self.triton_url)
