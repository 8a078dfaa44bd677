"""The fsspec filesystem behind each kind of object store, and what its errors mean.

No text of an error goes to the user as it came: only its class or the store's own code, which
cannot hold a secret. The original is the cause.
"""

from __future__ import annotations

import errno
import importlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.errors import (
    ConflictError,
    NotFoundError,
    StlabError,
    UnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.repository.url import StoreUrl

__all__ = ["OPERATION_SECONDS", "connect", "error_code", "translate_errors"]

OPERATION_SECONDS = 15.0
"""How long one small request may take, with whatever is tried again below."""

_CONNECT_SECONDS = 4
_ATTEMPTS = 3
_IN_THE_WAY = frozenset({"PreconditionFailed", "412", "BlobAlreadyExists"})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_REFUSED = "PermissionError"


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What some codes of stores, or names of exceptions, mean to a user."""

    codes: frozenset[str]
    error: type[StlabError]
    message: str
    hint: str
    kind: str | None = None


# By name, since none of botocore, google-auth and azure-core need be installed.
_MEANINGS = (
    _Meaning(
        _NO_BUCKET,
        NotFoundError,
        "there is no bucket '{bucket}' for {address}",
        "Create it, or name another one with --repository.",
    ),
    _Meaning(
        frozenset(
            {_REFUSED, "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
             "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError",
             "InvalidToken", "ExpiredToken", "TokenRefreshRequired", "InvalidAccessKeyId",
             "SignatureDoesNotMatch", "AccessDenied", "AuthenticationFailed", "401", "403"}
        ),
        UsageError,
        "{address} refuses the credentials, or this to them: {code}",
        "Check {keys}, and what they may do there.",
    ),
    _Meaning(
        frozenset(
            {"PermanentRedirect", "AuthorizationHeaderMalformed",
             "IllegalLocationConstraintException"}
        ),
        UsageError,
        "the bucket of {address} lies in another region: {code}",
        "Set AWS_DEFAULT_REGION to the bucket's region.",
    ),
    _Meaning(
        frozenset({"NotImplemented", "501"}),
        UsageError,
        "the store of {address} cannot do what the lock needs: {code}",
        "Use one with conditional writes (If-None-Match), as S3, GCS and Azure have.",
    ),
    _Meaning(
        frozenset({"ValueError", "ParamValidationError"}),
        UsageError,
        "{address} cannot be used with these settings: {code}",
        "Check {keys}.",
    ),
    _Meaning(
        frozenset({"ConditionalRequestConflict"}),
        ConflictError,
        "somebody else writes to {address} at this moment",
        "Run the same command again.",
        "busy",
    ),
)  # fmt: skip
_SILENT = _Meaning(
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
        package: What it is installed with.
        extra: The extra of stlab that installs it.
        credentials: Where its credentials come from.
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
    """Return a filesystem of fsspec of our own, which remembers no listings.

    Raises:
        UsageError: The package that it needs is not installed, or it wants settings.
    """
    driver = _DRIVERS[address.scheme]
    try:
        importlib.import_module(driver.package)
    except ImportError as error:
        raise UsageError(
            f"{address} needs {driver.package}, which is not installed",
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
        # botocore's own are enough, and do not multiply.
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
                # What is uploaded is read back; some stores refuse checksums that they do not know.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            # One request a read, with nothing asked before it.
            "max_concurrency": 1,
        }
    if address.scheme == "az":
        key = os.environ.get("AZURE_STORAGE_ACCOUNT_KEY") or os.environ.get("AZURE_STORAGE_KEY")
        return {"account_name": address.account or None, "account_key": key}
    return {}


@contextmanager
def translate_errors(address: StoreUrl, *, writes: bool = False) -> Iterator[None]:
    """Translate what a driver raises.

    A missing object and one that is in the way are the caller's matter, and pass.

    Args:
        address: Where the repository lies.
        writes: Whether something is written, so that what is missing can only be the bucket.

    Raises:
        FileNotFoundError: The object is missing.
        FileExistsError: An object is in the way.
        NotFoundError: There is no such bucket.
        UsageError: The credentials are missing or refused, or a setting is.
        ConflictError: Somebody else writes the same object at this moment; its kind is ``busy``.
        UnavailableError: The store does not answer, or fails.
    """
    try:
        yield
    except (StlabError, FileExistsError):
        raise
    except FileNotFoundError as error:
        if writes or error_code(error) in _NO_BUCKET:
            raise _meaning(address, "NoSuchBucket") from error
        raise
    except PermissionError as error:
        code = error_code(error)
        known = any(code in meaning.codes for meaning in _MEANINGS)
        raise _meaning(address, code if known else _REFUSED) from error
    except Exception as error:
        code = error_code(error)
        if code in _IN_THE_WAY:
            raise FileExistsError(code) from error
        raise _meaning(address, code) from error


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


def _meaning(address: StoreUrl, code: str) -> StlabError:
    meaning = next((one for one in _MEANINGS if code in one.codes), _SILENT)
    credentials = _DRIVERS[address.scheme].credentials
    names = {"address": address, "code": code, "bucket": address.bucket, "keys": credentials}
    return meaning.error(
        meaning.message.format(**names), hint=meaning.hint.format(**names), kind=meaning.kind
    )
