"""Object-store URLs: what a user writes, and what a Triton server must be told.

| written | to Triton |
|---|---|
| ``s3://bucket/prefix`` | the same, or with the endpoint of ``AWS_ENDPOINT_URL`` in it |
| ``s3://http://host:port/bucket/prefix`` | the same |
| ``gs://bucket/prefix`` | the same |
| ``az://container/prefix``, ``abfs://container/prefix`` | ``as://account/container/prefix`` |
| ``as://account/container/prefix`` | the same |

Triton takes an endpoint apart by a pattern that wants a port, and knows letters, digits, ``.``,
``-`` and ``_`` alone in a path: what it would misread is refused here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.errors import UsageError
from exporter.text.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["StoreUrl", "is_url"]

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "as": "az"}
_ENDPOINT = re.compile(r"(https?)://([0-9A-Za-z.\-]+)(?::([0-9]{1,5}))?/?")
_OWN_ENDPOINT = re.compile(r"(?:(https?)://)?([0-9A-Za-z.\-]+:[0-9]{1,5})/(.*)")
_BUCKET = re.compile(r"[0-9a-z][0-9a-z._\-]{1,62}")
_SEGMENT = re.compile(r"[0-9A-Za-z._\-]+")
_PORTS = {"http": "80", "https": "443"}
# What fsspec's drivers read, and what Triton reads.
_SAME = (
    ("AWS_REGION", "AWS_DEFAULT_REGION"),
    ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
)

# What the stores' libraries in the server read: credentials, and the way to the store.
_PREFIXES = {"s3": ("AWS_",), "gs": ("GOOGLE_", "CLOUDSDK_"), "az": ("AZURE_",)}
_REACHING = (
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
        """Read a URL.

        Args:
            url: What the user wrote.
            environment: Where an endpoint or an account may be named.

        Raises:
            UsageError: There is no such store, or a name that a server would misread.
        """
        written, _, rest = url.partition("://")
        scheme = _SCHEMES.get(written, "")
        if not scheme:
            raise UsageError(
                f"{redact(url)} is neither a folder nor on a store that Triton reads",
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
                f"{redact(url)} has a name in it that Triton would misread",
                hint="Use letters, digits, '.', '-' and '_' between single slashes.",
            )
        if not prefix:
            raise UsageError(
                f"{redact(url)} has no prefix: beside the repository there must be room for its "
                "lock, and every folder in it is a model to Triton",
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
        """Return the URL that a Triton server must be given.

        Raises:
            UsageError: Triton needs the name of Azure's account, and nothing tells it.
        """
        if self.scheme == "az" and not self.account:
            raise UsageError(
                f"{self} does not say of which storage account",
                hint="Set AZURE_STORAGE_ACCOUNT_NAME, or write as://account/container/prefix.",
            )
        return str(self)

    def server_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return what a Triton server needs of an environment to reach the store, and no more."""
        prefixes = (*_PREFIXES[self.scheme], *_REACHING)
        told = {
            name: value for name, value in environment.items() if name.upper().startswith(prefixes)
        }
        for ours, theirs in _SAME:
            if ours in told:
                told.setdefault(theirs, told[ours])
        if self.account:
            told["AZURE_STORAGE_ACCOUNT"] = self.account
        return told


def _is_clean(segment: str) -> bool:
    return bool(_SEGMENT.fullmatch(segment)) and segment not in {".", ".."}


def _endpoint(rest: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Return the endpoint of an S3 URL, and the URL's rest from the bucket on."""
    own = _OWN_ENDPOINT.fullmatch(rest)
    if own is not None:
        return f"{own[1] or 'http'}://{own[2]}", own[3]
    if rest.startswith(("http://", "https://")):
        # Without a port; also where there are a user and a password, which are refused.
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
            hint="Triton takes no path, no user and no IPv6 address in it; secrets come from "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
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
