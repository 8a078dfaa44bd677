"""Triton model repositories; a store is added in `url` and `fsspec_drivers`."""

from __future__ import annotations

from pathlib import Path

from exporter.repository.base import Publication, Repository
from exporter.repository.local_repository import LocalRepository
from exporter.repository.object_repository import ObjectRepository
from exporter.repository.url import StoreUrl, is_url

__all__ = [
    "LocalRepository",
    "ObjectRepository",
    "Publication",
    "Repository",
    "StoreUrl",
    "is_url",
    "open_repository",
]


def open_repository(url: str) -> Repository:
    """Return the repository at a folder or a URL such as ``s3://bucket/prefix``.

    Raises:
        UsageError: The URL's store is not supported, or Triton would misread the URL.
    """
    return ObjectRepository(StoreUrl.parse(url)) if is_url(url) else LocalRepository(Path(url))
