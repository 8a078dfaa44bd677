"""Bearer tokens of an OpenID Connect issuer, checked with the keys that it publishes.

Where they are is read from the issuer's ``/.well-known/openid-configuration`` (OpenID Connect
Discovery 1.0, section 4).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from exporter.errors import UsageError
from stlab_api.problems import Problem
from stlab_web.asgi import LOOPBACK_HOSTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Tokens"]

_log = logging.getLogger("stlab_api.oidc")
_ALGORITHMS = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
_FETCH_SECONDS = 5.0
_MOST_BYTES = 1024 * 1024
# How long keys are used before they are looked for again, and how long while the issuer is away.
_FRESH_SECONDS = 600.0
_STALE_SECONDS = 3600.0
# How long the issuer is left alone after it failed, and between tokens of unknown keys.
_FAILED_SECONDS = 2.0
_UNKNOWN_SECONDS = 10.0
_SKEW_SECONDS = 30


class _UnusableError(Exception):
    """What an issuer answers cannot be used."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """What an issuer published.

    Attributes:
        by_id: Its keys for signatures, by their id, each with the algorithms that fit it.
        since: When it was read, on the monotonic clock.
    """

    by_id: dict[str, list[tuple[Any, tuple[str, ...]]]]
    since: float


class Tokens:
    """Lets in who has a token of an issuer; see `stlab_api.auth.Guard`.

    Args:
        issuer: The issuer, exactly as its tokens and its configuration name it.
        audience: What a token must be for; empty for anything.
        jwks_url: Where its keys are; read from its configuration by default.

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
        self._keys: _Keys | None = None
        self._asked = self._failed = float("-inf")
        self._lock = asyncio.Lock()

    async def __call__(self, header: Callable[[bytes], str]) -> None:
        """Check a request's token.

        Raises:
            Problem: 401: it has none that is good. 503: the issuer's keys are not known.
        """
        scheme, _, token = header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("give a bearer token")
        try:
            about = jwt.get_unverified_header(token)
            key_id = about.get("kid")
            if not isinstance(key_id, str):
                raise jwt.InvalidTokenError("it names no key")
            self._check(token, await self._fitting(key_id, str(about.get("alg"))))
        except (jwt.PyJWTError, ValueError) as error:
            raise _unauthorized(f"the token is refused: {error}") from error

    def _check(self, token: str, fitting: tuple[Any, str]) -> None:
        key, algorithm = fitting
        jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=self._issuer,
            audience=self._audience or None,
            leeway=_SKEW_SECONDS,
            options={"require": ["exp", "iss"], "verify_aud": bool(self._audience)},
        )

    async def _fitting(self, key_id: str, algorithm: str) -> tuple[Any, str]:
        """Return the key of an id, for an algorithm that it is made for."""
        keys = await self._known(key_id)
        found = keys.by_id.get(key_id)
        if found is None:
            raise jwt.InvalidTokenError("the issuer has no such key")
        for key, algorithms in found:
            if algorithm in algorithms:
                return key, algorithm
        raise jwt.InvalidAlgorithmError("the key is not for its algorithm")

    async def _known(self, key_id: str) -> _Keys:
        """Return the issuer's keys, read anew where they are old, or lack one."""
        if self._keys is not None and not self._is_due(self._keys, key_id):
            return self._keys
        async with self._lock:  # one asks, and the others wait for what it gets
            if self._keys is None or self._is_due(self._keys, key_id):
                await self._refresh()
        if self._keys is None or monotonic() - self._keys.since > _STALE_SECONDS:
            raise Problem(
                503,
                "unavailable",
                "the issuer of tokens does not answer with its keys",
                headers={"Retry-After": "1"},
            )
        return self._keys

    def _is_due(self, keys: _Keys, key_id: str) -> bool:
        now = monotonic()
        if key_id not in keys.by_id and now - self._asked > _UNKNOWN_SECONDS:
            return True
        return now - keys.since > _FRESH_SECONDS

    async def _refresh(self) -> None:
        if monotonic() - self._failed < _FAILED_SECONDS:
            return
        self._asked = monotonic()
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                self._keys = await self._read()
        except (httpx.HTTPError, httpx.InvalidURL, _UnusableError, TimeoutError) as error:
            self._failed = monotonic()
            _log.warning("no keys of the issuer '%s': %s", self._issuer, error or "no answer")

    async def _read(self) -> _Keys:
        supported: Iterable[str] | None = None
        async with httpx.AsyncClient(follow_redirects=False) as client:
            url = self._jwks_url
            if not url:
                base = self._issuer.rstrip("/")
                found = await _fetch(client, f"{base}/.well-known/openid-configuration")
                url, supported = self._configured(found)
            return _Keys(_by_id(await _fetch(client, url), supported), monotonic())

    def _configured(self, found: dict[str, Any]) -> tuple[str, Iterable[str] | None]:
        named, url = found.get("issuer"), found.get("jwks_uri")
        if named != self._issuer:
            raise _UnusableError(
                f"it calls itself {str(named)[:200]!r}; STLAB_API_OIDC_ISSUER must be the same"
            )
        if not isinstance(url, str) or not _is_private(url):
            raise _UnusableError("its jwks_uri does not begin with https://")
        supported = found.get("id_token_signing_alg_values_supported")
        return url, supported if isinstance(supported, list) else None


def _by_id(
    found: dict[str, Any], supported: Iterable[str] | None
) -> dict[str, list[tuple[Any, tuple[str, ...]]]]:
    keys: dict[str, list[tuple[Any, tuple[str, ...]]]] = {}
    listed = found.get("keys")
    for entry in listed if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # of a kind that is not known here
        allowed = _ALGORITHMS.get(str(entry.get("kty")), ())
        algorithms = tuple(
            name
            for name in allowed
            if entry.get("alg", name) == name and (supported is None or name in supported)
        )
        if algorithms and isinstance(key.key_id, str):
            keys.setdefault(key.key_id, []).append((key.key, algorithms))
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
