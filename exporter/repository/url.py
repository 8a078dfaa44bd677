"""Object-store URLs: as a user writes them, and as a Triton server reads them.

| user | Triton |
|---|---|
| ``s3://bucket/prefix`` | the same, or with the endpoint of ``AWS_ENDPOINT_URL`` in it |
| ``s3://http://host:port/bucket/prefix`` | the same |
| ``gs://bucket/prefix`` | the same |
| ``az://container/prefix``, ``abfs://container/prefix`` | ``as://account/container/prefix`` |
| ``as://account/container/prefix`` | the same |

Triton's pattern for an endpoint requires a port, and its paths allow letters, digits, ``.``, ``-``
and ``_`` only: a URL that it would misread is rejected here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.errors import UsageError
from exporter.text.redaction import redact

__all__ = ["StoreUrl", "is_url"]

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "as": "az"}
_ENDPOINT = re.compile(r"(https?)://([0-9A-Za-z.\-]+)(?::([0-9]{1,5}))?/?")
_OWN_ENDPOINT = re.compile(r"(?:(https?)://)?([0-9A-Za-z.\-]+:[0-9]{1,5})/(.*)")
_BUCKET = re.compile(r"[0-9a-z][0-9a-z._\-]{1,62}")
_SEGMENT = re.compile(r"[0-9A-Za-z._\-]+")
_PORTS = {"http": "80", "https": "443"}
# A variable of fsspec's drivers, and its name in Triton.
_SYNONYMS = (
    ("AWS_REGION", "AWS_DEFAULT_REGION"),
    ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
)

# What the server's store libraries read: credentials and network settings.
_PREFIXES = {"s3": ("AWS_",), "gs": ("GOOGLE_", "CLOUDSDK_"), "az": ("AZURE_",)}
_NETWORK = (
    "TRITON_CLOUD_CREDENTIAL_PATH",
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_", "CURL_CA_BUNDLE"),
)


def is_url(repository: str) -> bool:
    """Whether a repository is a URL and not a local folder."""
    return "://" in repository


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A model repository on an object store.

    Attributes:
        scheme: ``s3``, ``gs`` or ``az``.
        endpoint: An S3 endpoint such as ``http://host:9000``; empty for the cloud's own.
        account: Azure's storage account; empty elsewhere.
        bucket: The bucket or container.
        prefix: The root's path in it, of at least one segment.
    """

    scheme: str
    endpoint: str
    account: str
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str] = os.environ) -> StoreUrl:
        """Parse a URL as the user wrote it; the environment may hold the endpoint or the account.

        Raises:
            UsageError: The store is not supported, or Triton would misread a name.
        """
        written, _, rest = url.partition("://")
        scheme = _SCHEMES.get(written, "")
        if not scheme:
            raise UsageError(
                f"{redact(url)} is neither a folder nor on a store that Triton supports",
                hint="Use a local folder, s3://bucket/prefix, gs://bucket/prefix or "
                "az://container/prefix.",
            )
        endpoint = account = ""
        if scheme == "s3":
            endpoint, rest = _endpoint(rest, environment)
        elif scheme == "az":
            account, rest = _account(written, rest, environment)
        bucket, _, prefix = rest.rstrip("/").partition("/")
        segments = prefix.split("/")
        if not _BUCKET.fullmatch(bucket) or not all(map(_is_clean, segments if prefix else ())):
            raise UsageError(
                f"{redact(url)} contains a name that Triton would misread",
                hint="Use letters, digits, '.', '-' and '_' between single slashes.",
            )
        if not prefix:
            raise UsageError(
                f"{redact(url)} has no prefix: the lock must be next to the repository, since "
                "Triton takes every folder inside for a model",
                hint=f"Use a prefix: {redact(url).rstrip('/')}/models",
            )
        return cls(scheme, endpoint, account, bucket, prefix)

    def __str__(self) -> str:
        names = (self.account, self.bucket, self.prefix)
        if self.scheme == "s3" and self.endpoint:
            names = (self.endpoint, *names[1:])
        scheme = "as" if self.account else self.scheme
        return f"{scheme}://{'/'.join(name for name in names if name)}"

    @property
    def parent(self) -> str:
        """The path that holds the root, from the bucket on."""
        return f"{self.bucket}/{self.prefix}".rpartition("/")[0]

    @property
    def name(self) -> str:
        """The last segment of the root's path."""
        return self.prefix.rpartition("/")[2]

    def for_server(self) -> str:
        """Return the URL for a Triton server.

        Raises:
            UsageError: The Azure storage account is missing.
        """
        if self.scheme == "az" and not self.account:
            raise UsageError(
                f"{self} lacks the storage account",
                hint="Set AZURE_STORAGE_ACCOUNT_NAME, or use as://account/container/prefix.",
            )
        return str(self)

    def server_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return only those environment variables that a Triton server needs for the store."""
        prefixes = (*_PREFIXES[self.scheme], *_NETWORK)
        variables = {
            name: value for name, value in environment.items() if name.upper().startswith(prefixes)
        }
        for name, triton_name in _SYNONYMS:
            if name in variables:
                variables.setdefault(triton_name, variables[name])
        if self.account:
            variables["AZURE_STORAGE_ACCOUNT"] = self.account
        return variables


def _is_clean(segment: str) -> bool:
    return bool(_SEGMENT.fullmatch(segment)) and segment not in {".", ".."}


def _endpoint(rest: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the endpoint of an S3 URL, and the URL's rest from the bucket on."""
    own = _OWN_ENDPOINT.fullmatch(rest)
    if own is not None:
        return f"{own[1] or 'http'}://{own[2]}", own[3]
    if rest.startswith(("http://", "https://")):
        # Without a port, or with a user and a password, which are rejected.
        scheme, _, rest = rest.partition("://")
        host, _, rest = rest.partition("/")
        return _with_port(f"{scheme}://{host}", "the URL"), rest
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if environment.get(name):
            return _with_port(environment[name], name), rest
    return "", rest


def _with_port(endpoint: str, where: str) -> str:
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None:
        raise UsageError(
            f"the S3 endpoint in {where} is not of the form http://host:port",
            hint="Triton supports no path, user or IPv6 address in it; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY for credentials.",
        )
    return f"{found[1]}://{found[2]}:{found[3] or _PORTS[found[1]]}"


def _account(written: str, rest: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the storage account, and the URL's rest from the container on."""
    if written == "as":
        account, _, rest = rest.partition("/")
        return account.partition(".")[0], rest
    container, at, remote = rest.partition("@")
    if at:
        host, _, path = remote.partition("/")
        return host.partition(".")[0], f"{container}/{path}"
    names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    return next((environment[name] for name in names if environment.get(name)), ""), rest
