"""The dashboard's settings: the names that all of stlab uses, and nothing secret in sight."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from stlab_dashboard.settings import Settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # no .env
    for field in Settings.model_fields:
        monkeypatch.delenv(f"STLAB_DASHBOARD_{field.upper()}", raising=False)
    for name in ("MLFLOW_TRACKING_URI", "STLAB_MODEL_REPOSITORY", "STLAB_TRITON_URL",
                 "STLAB_API_URL", "STLAB_TRITON_METRICS_URL"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_listen_on_loopback() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8090)
    assert settings.api_url == "http://127.0.0.1:8080"
    assert settings.triton_urls == ("127.0.0.1:8001",)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STLAB_DASHBOARD_PORT", "9000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setenv("STLAB_TRITON_URL", "a:8001, b:8001")
    monkeypatch.setenv("STLAB_DASHBOARD_API_KEY", "geheim")
    settings = Settings()
    assert settings.port == 9000
    assert settings.tracking_uri == "https://mlflow.example"
    assert settings.triton_urls == ("a:8001", "b:8001")
    assert "geheim" not in repr(settings)


def test_a_port_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STLAB_DASHBOARD_PORT", "70000")
    with pytest.raises(ValidationError):
        Settings()
