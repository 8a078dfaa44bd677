"""Who may ask: callers with a key, or with a bearer token of an OpenID Connect issuer."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Protocol

from stlab_api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from stlab_api.settings import Settings

__all__ = ["Guard", "guard_of"]


class Guard(Protocol):
    """Lets a request in, or does not."""

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        """Look at a request's headers.

        Args:
            header: Returns a header by its lowercase name; empty where there is none.

        Raises:
            Problem: 401: it may not.
        """


def guard_of(settings: Settings) -> Guard | None:
    """Return what the settings ask for; None where everybody may ask."""
    if settings.oidc_issuer:
        from stlab_api.oidc import Tokens

        return Tokens(settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks_url)
    return _Keys(settings.api_keys) if settings.api_keys else None


class _Keys:
    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        given = header(b"x-api-key").encode()
        # All of them, so that the time tells nothing.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise Problem(401, "unauthorized", "give a known key in the header X-API-Key")
