"""Bearer tokens of an OpenID Connect issuer, verified with the keys that it publishes.

Their address comes from the issuer's ``/.well-known/openid-configuration`` (OpenID Connect
Discovery 1.0, section 4). PyJWT verifies tokens. Its `PyJWKClient` is not used: it blocks, reads
answers of any size for any time, and fetches keys for every unknown key id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from exporter.errors import UsageError
from stlab_api.problems import Problem
from stlab_web.asgi import LOOPBACK_HOSTS

__all__ = ["Tokens"]

_log = logging.getLogger("stlab_api.oidc")
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
_FETCH_SECONDS = 5.0
_MOST_BYTES = 1024 * 1024
# How long keys are used before they are fetched again, and how long if that fails.
_FRESH_SECONDS = 600.0
_STALE_SECONDS = 3600.0
# The least time between fetches after a failure, and for tokens of unknown keys.
_FAILED_SECONDS = 2.0
_UNKNOWN_SECONDS = 10.0
_SKEW_SECONDS = 30


class _UnusableError(Exception):
    """An issuer's answer cannot be used."""


_Keys = dict[str, dict[str, Any]]
"""The keys for signatures by key id and algorithm."""


class Tokens:
    """Accepts requests with a token of an issuer; see `stlab_api.auth.Authenticator`.

    The issuer is written exactly as its tokens and its configuration do. An empty audience is any;
    the address of the keys is by default that of the configuration.

    Raises:
        UsageError: An address is neither https nor on this machine.
    """

    def __init__(self, issuer: str, audience: str, jwks_url: str) -> None:
        for name, url in (("ISSUER", issuer), ("JWKS_URL", jwks_url)):
            if url and not _is_private(url):
                raise UsageError(
                    f"STLAB_API_OIDC_{name} must begin with https://, not '{url}'",
                    hint="Only an issuer on this machine may be read without TLS.",
                )
        if not audience:
            _log.warning(
                "STLAB_API_OIDC_AUDIENCE is not set: a token of '%s' for any application is "
                "accepted",
                issuer,
            )
        self._issuer, self._audience, self._jwks_url = issuer, audience, jwks_url
        self._keys: _Keys = {}
        self._read = self._tried = self._failed = float("-inf")
        self._lock = asyncio.Lock()

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        """Verify a request's token.

        Raises:
            Problem: 401: the token is missing or not valid. 503: the issuer's keys are unknown.
        """
        scheme, _, token = header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("give a bearer token")
        try:
            head = jwt.get_unverified_header(token)
            key_id, algorithm = head.get("kid"), str(head.get("alg"))
            if not isinstance(key_id, str):
                raise jwt.InvalidTokenError("it has no key id")
            keys = (await self._known(key_id)).get(key_id)
            if keys is None:
                raise jwt.InvalidTokenError("the issuer has no such key")
            # The key decides which algorithms are allowed, not the token.
            if algorithm not in keys:
                raise jwt.InvalidAlgorithmError("the key is not for its algorithm")
            jwt.decode(
                token,
                keys[algorithm],
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience or None,
                leeway=_SKEW_SECONDS,
                options={"require": ["exp", "iss"], "verify_aud": bool(self._audience)},
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise _unauthorized(f"the token is refused: {error}") from error

    async def _known(self, key_id: str) -> _Keys:
        """Return the issuer's keys, fetched again if they are old or lack this one."""
        if self._is_due(key_id):
            async with self._lock:  # one request fetches, the others wait for its result
                if self._is_due(key_id):
                    await self._fetch_keys()
        if monotonic() - self._read > _STALE_SECONDS:
            raise Problem(503, "unavailable", "the issuer of tokens does not answer with its keys")
        return self._keys

    def _is_due(self, key_id: str) -> bool:
        now = monotonic()
        return now - self._read > _FRESH_SECONDS or (
            key_id not in self._keys and now - self._tried > _UNKNOWN_SECONDS
        )

    async def _fetch_keys(self) -> None:
        if monotonic() - self._failed < _FAILED_SECONDS:
            return
        self._tried = monotonic()
        try:
            async with (
                asyncio.timeout(_FETCH_SECONDS),
                httpx.AsyncClient(follow_redirects=False) as client,
            ):
                url, supported = self._jwks_url, None
                if not url:
                    url, supported = await self._discover(client)
                self._keys = _signing_keys(await _fetch(client, url), supported)
                self._read = monotonic()
        except (httpx.HTTPError, httpx.InvalidURL, _UnusableError, TimeoutError) as error:
            self._failed = monotonic()
            _log.warning("no keys of the issuer '%s': %s", self._issuer, error or "no answer")

    async def _discover(self, client: httpx.AsyncClient) -> tuple[str, list[str] | None]:
        """Return the address of the keys, and the algorithms that the issuer uses."""
        base = self._issuer.rstrip("/")
        found = await _fetch(client, f"{base}/.well-known/openid-configuration")
        issuer, url = found.get("issuer"), found.get("jwks_uri")
        if issuer != self._issuer:
            raise _UnusableError(
                f"it calls itself {str(issuer)[:200]!r}; STLAB_API_OIDC_ISSUER must be the same"
            )
        if not isinstance(url, str) or not _is_private(url):
            raise _UnusableError("its jwks_uri does not begin with https://")
        supported = found.get("id_token_signing_alg_values_supported")
        return url, supported if isinstance(supported, list) else None


def _signing_keys(published: dict[str, Any], supported: list[str] | None) -> _Keys:
    """Return the keys of a JSON Web Key Set that can verify signatures; skip all others."""
    keys: _Keys = {}
    entries = published.get("keys")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        for name in _ALGORITHMS.get(str(key.key_type), ()):
            fits = entry.get("alg", name) == name and (supported is None or name in supported)
            if fits and isinstance(key.key_id, str):
                keys.setdefault(key.key_id, {}).setdefault(name, key.key)
    if not keys:
        raise _UnusableError("it has no key for signatures that can be used")
    return keys


async def _fetch(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    content = b""
    async with client.stream("GET", url, headers={"accept": "application/json"}) as answer:
        if answer.status_code != 200:
            raise _UnusableError(f"{url} answers with status {answer.status_code}")
        async for part in answer.aiter_bytes():
            content += part
            if len(content) > _MOST_BYTES:
                raise _UnusableError(f"{url} answers with more than {_MOST_BYTES} bytes")
    try:
        found = orjson.loads(content)
    except ValueError as error:
        raise _UnusableError(f"{url} answers with no JSON") from error
    if not isinstance(found, dict):
        raise _UnusableError(f"{url} answers with no JSON object")
    return found


def _is_private(url: str) -> bool:
    """Return whether an address is https, or on this machine."""
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError:
        return False
    return scheme == "https" or (scheme == "http" and host in LOOPBACK_HOSTS)


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
