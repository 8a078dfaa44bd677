"""The fsspec filesystem of each object store, and the translation of its errors.

A message holds the error's class or the store's code, which cannot hold a secret, and never the
error's text. The original error is the cause.
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
)
from exporter.repository.url import StoreUrl

__all__ = ["OPERATION_SECONDS", "connect", "error_code", "translate_errors"]

OPERATION_SECONDS = 15.0
"""How long one small request may take, its retries included."""

_CONNECT_SECONDS = 4
_ATTEMPTS = 3
_ALREADY_EXISTS = frozenset({"PreconditionFailed", "412", "BlobAlreadyExists"})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_DENIED = "PermissionError"


@dataclass(frozen=True, slots=True)
class _Translation:
    """The error for a set of store codes or exception names."""

    codes: frozenset[str]
    error: type[StlabError]
    message: str
    hint: str
    kind: str | None = None


# By name, since botocore, google-auth and azure-core are optional.
_TRANSLATIONS = (
    _Translation(
        _NO_BUCKET,
        NotFoundError,
        "the bucket '{bucket}' of {address} does not exist",
        "Create it, or use another --repository.",
    ),
    _Translation(
        frozenset(
            {_DENIED, "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
             "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError",
             "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidAccessKeyId",
             "SignatureDoesNotMatch", "AccessDenied", "AuthenticationFailed", "401", "403"}
        ),
        UsageError,
        "{address} denies access: {code}",
        "Check {keys} and their permissions.",
    ),
    _Translation(
        frozenset(
            {"PermanentRedirect", "AuthorizationHeaderMalformed",
             "IllegalLocationConstraintException"}
        ),
        UsageError,
        "the bucket of {address} is in another region: {code}",
        "Set AWS_DEFAULT_REGION to the bucket's region.",
    ),
    _Translation(
        frozenset({"NotImplemented", "501"}),
        UsageError,
        "the store of {address} lacks conditional writes, which the lock requires: {code}",
        "Use a store with conditional writes (If-None-Match), such as S3, GCS or Azure.",
    ),
    _Translation(
        frozenset({"ValueError", "ParamValidationError"}),
        UsageError,
        "{address} cannot be used with these settings: {code}",
        "Check {keys}.",
    ),
    _Translation(
        frozenset({"ConditionalRequestConflict"}),
        ConflictError,
        "another process is writing to {address}",
        "Run the same command again.",
        "busy",
    ),
)  # fmt: skip
_NO_ANSWER = _Translation(
    frozenset(),
    UnavailableError,
    "the store of {address} does not answer: {code}",
    "Check the address and the network, then run the same command again.",
)


@dataclass(frozen=True, slots=True)
class _Driver:
    """A filesystem of fsspec.

    Attributes:
        protocol: Its name in fsspec.
        package: The package that provides it.
        extra: The extra of stlab that installs the package.
        credentials: The environment variables with the credentials.
    """

    protocol: str
    package: str
    extra: str
    credentials: str


_DRIVERS = {
    "s3": _Driver("s3", "s3fs", "s3", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "gs": _Driver("gs", "gcsfs", "gcs", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": _Driver(
        "abfs", "adlfs", "azure", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
    ),
}


def connect(address: StoreUrl) -> Any:
    """Return a new fsspec filesystem that caches no listings.

    Raises:
        UsageError: The package of the store is not installed, or a setting is missing.
    """
    driver = _DRIVERS[address.scheme]
    try:
        importlib.import_module(driver.package)
    except ImportError as error:
        raise UsageError(
            f"{address} requires {driver.package}, which is not installed",
            hint=f"pip install 'stlab[{driver.extra}]'",
        ) from error
    import fsspec

    with translate_errors(address):
        filesystem = fsspec.filesystem(
            driver.protocol,
            use_listings_cache=False,
            skip_instance_cache=True,
            **_options(address),
        )
    if address.scheme == "s3":
        # botocore retries by itself; both together would multiply.
        filesystem.retries = 1
    return filesystem


def _options(address: StoreUrl) -> dict[str, Any]:
    if address.scheme == "s3":
        region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
        return {
            "endpoint_url": address.endpoint or None,
            "client_kwargs": {"region_name": region} if region else {},
            "config_kwargs": {
                "connect_timeout": _CONNECT_SECONDS,
                "read_timeout": OPERATION_SECONDS,
                "retries": {"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                # Uploads are read back instead; some stores reject unknown checksums.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            # One request per read, without a preceding one for the size.
            "max_concurrency": 1,
        }
    if address.scheme == "az":
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
        return {"account_name": address.account or None, "account_key": key}
    return {}


@contextmanager
def translate_errors(address: StoreUrl, *, writes: bool = False) -> Iterator[None]:
    """Translate the errors of a driver; where the block writes, only the bucket can be missing.

    Raises:
        FileNotFoundError: The object is missing; the caller handles it.
        FileExistsError: The object exists already; the caller handles it.
        NotFoundError: The bucket does not exist.
        UsageError: Credentials or settings are missing or rejected.
        ConflictError: Another process writes the same object; the kind is ``busy``.
        UnavailableError: The store does not answer, or fails.
    """
    try:
        yield
    except (StlabError, FileExistsError):
        raise
    except FileNotFoundError as error:
        if writes or error_code(error) in _NO_BUCKET:
            raise _translate(address, "NoSuchBucket") from error
        raise
    except PermissionError as error:
        code = error_code(error)
        known = any(code in entry.codes for entry in _TRANSLATIONS)
        raise _translate(address, code if known else _DENIED) from error
    except Exception as error:
        code = error_code(error)
        if code in _ALREADY_EXISTS:
            raise FileExistsError(code) from error
        raise _translate(address, code) from error


def error_code(error: BaseException) -> str:
    """Return the store's code for an error, or the name of its class."""
    cause: BaseException | None = error
    while cause is not None:
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code"):
            return str(response["Error"]["Code"])
        for name in ("error_code", "code"):
            code = getattr(cause, name, None)
            code = getattr(code, "value", code)
            if isinstance(code, str | int) and str(code).isalnum():
                return str(code)
        cause = cause.__cause__
    if isinstance(error, OSError) and error.errno == errno.ENOSYS:
        return "NotImplemented"
    return type(error).__name__


def _translate(address: StoreUrl, code: str) -> StlabError:
    found = next((entry for entry in _TRANSLATIONS if code in entry.codes), _NO_ANSWER)
    credentials = _DRIVERS[address.scheme].credentials
    names = {"address": address, "code": code, "bucket": address.bucket, "keys": credentials}
    return found.error(
        found.message.format(**names), hint=found.hint.format(**names), kind=found.kind
    )
