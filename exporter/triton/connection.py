"""Clients of live Triton servers that raise the exporter's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from exporter.errors import ConflictError, UnavailableError, UsageError, ValidationFailedError
from exporter.triton.addresses import check_addresses
from exporter.triton.credentials import Credentials
from triton_client import TritonClient
from triton_client.errors import DeadlineExceeded, PermissionDenied, TritonClientError, Unavailable

__all__ = ["connect", "make_client"]

CALL_SECONDS = 60.0


def make_client(url: str, timeout: float) -> TritonClient:
    """Return a client of a server that the user named, with the environment's credentials for it.

    The address has any form that `expand_addresses` takes; a call may take ``timeout`` seconds.

    Raises:
        ValueError: It is not an address, or a certificate is invalid.
        UsageError: It holds an account, or the credentials are incomplete.
    """
    check_addresses(url)
    return TritonClient(timeout=timeout, **Credentials.of().for_server(url))


@contextmanager
def connect(
    url: str, *, option: str = "--triton-url", timeout: float = CALL_SECONDS
) -> Iterator[TritonClient]:
    """Open a client of a live server; ``option`` is where the user named it, for hints.

    Raises:
        UsageError: It is not an address.
        UnavailableError: No server answers there, or the connection was lost.
        ConflictError: The server requires credentials.
        ValidationFailedError: It rejects a valid call.
    """
    try:
        client = make_client(url, timeout)
    except ValueError as error:
        raise UsageError(
            f"{option}: {error}", hint=f"Give {option} as HOST:PORT of the gRPC endpoint."
        ) from error
    with client:
        try:
            if not client.live():
                raise UnavailableError(
                    f"no Triton server answers at {url}",
                    hint=f"Start it, or correct {option} (the gRPC port, 8001 by default). "
                    "With TLS it needs grpcs:// or STLAB_TRITON_CA, and perhaps STLAB_TRITON_CERT.",
                )
            yield client
        except (Unavailable, DeadlineExceeded) as error:
            raise UnavailableError(
                f"the Triton server at {url} went away: {error.message}",
                hint="Nothing was promoted; run the same command again once it answers.",
            ) from error
        except PermissionDenied as error:
            raise ConflictError(
                f"the Triton server at {url} requires credentials: {error.message}",
                hint="Set STLAB_TRITON_KEY to the key of its restricted protocols. Commands of the "
                "user who started it with stlab serve on this machine need none: name it as "
                "localhost:PORT.",
            ) from error
        except TritonClientError as error:
            raise ValidationFailedError(
                f"the Triton server at {url} refuses: {error.message}",
                hint="The message is the server's own; its log may say more.",
                kind="target",
            ) from error
