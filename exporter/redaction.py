"""Cuts passwords out of what is shown, logged and recorded.

What is cut: the account and the query of every address in a text, and values that are known to be
secrets, wherever they stand: those of environment variables such as ``MLFLOW_TRACKING_TOKEN``, and
the accounts in addresses that were given to `learn`.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["learn", "redact", "redact_all", "redact_each"]

CUT = "***"

_SEPARATOR = "\x1f"  # a blank to every pattern here, so that none goes on beyond it
_LEAST = 8  # a shorter value of the environment may be any word
_LEAST_LEARNED = 3
_SECRET = re.compile(rb"PASSWORD|PASSWD|TOKEN|SECRET|(^|_)KEYS?$")
_NO_SECRET = re.compile(rb"CERT|_(FILE|PATH|ID|URL|URI)$")
# Each with a bound, or a text that somebody made up would take hours.
_URL = re.compile(r"\b((?:[A-Za-z][A-Za-z0-9+.\-]{0,30}:/{2,3})+)([^\s'\"<>]+)")
# The account of a URL; also one whose password holds what it should not hold as it is.
_ACCOUNT = re.compile(r"[^/?#]*|[^/?#@:]*:(?!\d*[/?#]).*")
_BARE_ACCOUNT = re.compile(r"(?<![\w/@:.\-])[^\s/@:'\"()]{1,128}:(?!/)[^\s@'\"]{1,256}@(?=[\w\[])")
_PARAMETER = re.compile(r"([?&;])([^=?&;\s]*)=([^?&;\s'\")]*)")
_SECRET_PARAMETER = re.compile("pass|pwd|token|secret|key|sig|credential", re.IGNORECASE)

_learned: set[str] = set()


def learn(address: str) -> None:
    """Remember the account in an address as a secret, however it is written later.

    Args:
        address: Of a server or a registry, in which nothing else stands before an ``@``.
    """
    account, at, _ = address.partition("://")[2].rpartition("@")
    if not at:
        account, at, _ = address.rpartition("@")
    password = account.partition(":")[2]
    _learned.update(one for one in (account, password) if len(one) >= _LEAST_LEARNED)


def redact(text: str) -> str:
    """Return a text without secrets."""
    for secret in _known():
        if secret in text:
            text = text.replace(secret, CUT)
    if "@" in text or "?" in text:
        text = _URL.sub(_cut, text)
    if "@" in text:
        text = _BARE_ACCOUNT.sub(f"{CUT}@", text)
    return _PARAMETER.sub(_cut_parameter, text) if "=" in text else text


def redact_each(texts: Sequence[str]) -> list[str]:
    """Return texts without secrets, at the price of one: for what is done at every request."""
    if not texts or any(_SEPARATOR in text for text in texts):
        return [redact(text) for text in texts]
    return redact(_SEPARATOR.join(texts)).split(_SEPARATOR)


def redact_all(content: Any) -> Any:
    """Return what JSON can hold with every text in it redacted, keys included."""
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, dict):
        return {redact_all(key): redact_all(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redact_all(value) for value in content]
    return content


def _known() -> tuple[str, ...]:
    """Return every known secret as it may be written, the longest first."""
    # As bytes, since this is done for every line of a log and decoding takes most of the time.
    values = tuple(os.environb[name] for name in os.environb if _is_secret(name))
    return _forms(values, frozenset(_learned))


@lru_cache(maxsize=4096)
def _is_secret(name: bytes) -> bool:
    return bool(_SECRET.search(name) and not _NO_SECRET.search(name))


@lru_cache(maxsize=8)
def _forms(values: tuple[bytes, ...], learned: frozenset[str]) -> tuple[str, ...]:
    given = (one for value in values for one in os.fsdecode(value).split(","))
    found = {one for one in given if len(one) >= _LEAST} | learned
    forms = {form for one in found for form in (one, unquote(one), quote(one, safe=""))}
    return tuple(sorted(forms, key=len, reverse=True))


def _cut(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    account, at, host = rest.rpartition("@")
    if at and _ACCOUNT.fullmatch(account):
        rest = f"{CUT}@{host}"
    path, mark, _ = rest.partition("?")
    return f"{scheme}{path}{mark}{CUT if mark else ''}"


def _cut_parameter(found: re.Match[str]) -> str:
    mark, name, value = found.groups()
    secret = value and _SECRET_PARAMETER.search(name)
    return f"{mark}{name}={CUT}" if secret else found[0]
