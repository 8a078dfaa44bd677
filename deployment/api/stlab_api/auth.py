"""Authentication: by a key, or by a bearer token of an OpenID Connect issuer."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from stlab_api.problems import Problem
from stlab_api.settings import Settings

__all__ = ["Authenticator", "make_authenticator"]

Authenticator = Callable[[Callable[[bytes], str]], Awaitable[None]]
"""Takes a function that returns a request's headers; raises `Problem` 401 to reject it."""


def make_authenticator(settings: Settings) -> Authenticator | None:
    """Return what the settings require; None without authentication."""
    if settings.oidc_issuer:
        from stlab_api.oidc import Tokens

        return Tokens(settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks_url)
    keys = [key.encode() for key in settings.api_keys]

    async def check_key(header: Callable[[bytes], str]) -> None:
        given = header(b"x-api-key").encode()
        # Compares all keys, so that the time reveals nothing.
        if not sum(hmac.compare_digest(given, key) for key in keys):
            raise Problem(401, "unauthorized", "give a known key in the header X-API-Key")

    return check_key if keys else None
