"""``stlab doctor``: what an export needs on this machine."""

from __future__ import annotations

import os

from exporter.cli.options import (
    AsJson,
    Repository,
    TritonRelease,
    TritonUrls,
    finish,
    server_addresses,
    tracking_uri,
)
from exporter.names import DEFAULT_REPOSITORY

__all__ = ["doctor"]


def doctor(
    repository: Repository = DEFAULT_REPOSITORY,
    triton_url: TritonUrls = None,
    triton_release: TritonRelease = "",
    as_json: AsJson = False,
) -> None:
    """Check what an export needs, and say how to install what is missing."""
    from exporter.cli.tables import print_checks
    from exporter.commands import DoctorRequest
    from exporter.commands import doctor as run

    result = run(
        DoctorRequest(
            repository=repository,
            tracking_uri=tracking_uri(),
            registry_named=bool(os.environ.get("MLFLOW_TRACKING_URI")),
            triton_urls=server_addresses(triton_url),
            triton_release=triton_release,
        )
    )
    finish(result, print_checks, as_json=as_json)
