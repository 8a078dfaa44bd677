"""Authentication: by a key, or by a bearer token of an OpenID Connect issuer."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from stlab_api.problems import Problem

if TYPE_CHECKING:
    from stlab_api.settings import Settings

__all__ = ["Authenticator", "make_authenticator"]


class Authenticator(Protocol):
    """Accepts or rejects a request."""

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        """Check a request's headers.

        Args:
            header: Returns a header by its lowercase name; empty if it is missing.

        Raises:
            Problem: 401: the credentials are missing or wrong.
        """


def make_authenticator(settings: Settings) -> Authenticator | None:
    """Return what the settings require; None without authentication."""
    if settings.oidc_issuer:
        from stlab_api.oidc import Tokens

        return Tokens(settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks_url)
    return _Keys(settings.api_keys) if settings.api_keys else None


class _Keys:
    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        given = header(b"x-api-key").encode()
        # Compares all keys, so that the time reveals nothing.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise Problem(401, "unauthorized", "give a known key in the header X-API-Key")
