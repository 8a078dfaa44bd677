"""Who may ask: callers with a key, or with a bearer token of an OpenID Connect issuer."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Any, Protocol

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
        return _Tokens(settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks_url)
    return _Keys(settings.api_keys) if settings.api_keys else None


class _Keys:
    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = [key.encode() for key in keys]

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        given = header(b"x-api-key").encode()
        # All of them, so that the time tells nothing.
        if not sum(hmac.compare_digest(given, key) for key in self._keys):
            raise Problem(401, "unauthorized", "give a known key in the header X-API-Key")


class _Tokens:
    def __init__(self, issuer: str, audience: str, jwks_url: str) -> None:
        import jwt

        self._issuer, self._audience = issuer, audience
        url = jwks_url or f"{issuer.rstrip('/')}/.well-known/jwks.json"
        self._jwks = jwt.PyJWKClient(url, timeout=5)

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        import jwt

        scheme, _, token = header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("give a bearer token")
        try:
            await asyncio.to_thread(self._decoded, token)
        except jwt.PyJWTError as error:
            raise _unauthorized(f"the token is refused: {error}") from error

    def _decoded(self, token: str) -> dict[str, Any]:
        import jwt

        jwt.get_unverified_header(token)  # for what is no token nobody is asked
        try:
            self._jwks.get_jwk_set()
        except (jwt.PyJWTError, ValueError, OSError) as error:
            raise _away() from error
        try:
            key = self._jwks.get_signing_key_from_jwt(token).key
        except (jwt.PyJWKClientConnectionError, ValueError, OSError) as error:
            raise _away() from error
        try:
            return self._checked(token, key)
        except TypeError as error:  # its algorithm is for another kind of key
            raise jwt.InvalidAlgorithmError("the key is not for its algorithm") from error

    def _checked(self, token: str, key: Any) -> dict[str, Any]:
        import jwt

        decoded: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA"],
            issuer=self._issuer,
            audience=self._audience or None,
            options={"require": ["exp"], "verify_aud": bool(self._audience)},
        )
        return decoded


def _away() -> Problem:
    return Problem(
        503,
        "unavailable",
        "the issuer of tokens does not answer with its keys",
        headers={"Retry-After": "1"},
    )


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
