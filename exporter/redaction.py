"""Cuts passwords out of what is shown, logged and recorded.

What is cut: the account and the query of every address in a text, and values that are known to be
secrets, wherever they stand: those of environment variables such as ``MLFLOW_TRACKING_TOKEN``, and
the accounts in addresses that were given to `learn`.
"""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["learn", "redact", "redact_all"]

CUT = "***"

_LEAST = 8  # a shorter value of the environment may be any word
_LEAST_LEARNED = 3
_SECRET = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|(^|_)KEYS?$")
_NO_SECRET = re.compile(r"CERT|_(FILE|PATH|ID|URL|URI)$")
_URL = re.compile(r"\b((?:[A-Za-z][A-Za-z0-9+.\-]*:/{2,3})+)([^\s'\"<>]+)")
# The account of a URL; also one whose password holds what it should not hold as it is.
_ACCOUNT = re.compile(r"[^/?#]*|[^/?#@:]*:(?!\d*[/?#]).*")
_BARE_ACCOUNT = re.compile(r"(?<![\w/@:.\-])[^\s/@:'\"()]+:(?!/)[^\s@'\"]+@(?=[\w\[])")
_PARAMETER = re.compile(
    r"([?&;][^=&\s]*(?:pass|pwd|token|secret|key|sig|credential)[^=&\s]*=)[^&\s'\")]+",
    re.IGNORECASE,
)

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
        text = text.replace(secret, CUT)
    text = _URL.sub(_cut, text)
    text = _BARE_ACCOUNT.sub(f"{CUT}@", text)
    return _PARAMETER.sub(rf"\1{CUT}", text)


def redact_all(content: Any) -> Any:
    """Return what JSON can hold with every text in it redacted, keys included."""
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, dict):
        return {redact_all(key): redact_all(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redact_all(value) for value in content]
    return content


def _known() -> list[str]:
    """Return every known secret as it may be written, the longest first."""
    found = {
        value
        for name, values in os.environ.items()
        if _SECRET.search(name) and not _NO_SECRET.search(name)
        for value in values.split(",")
        if len(value) >= _LEAST
    } | _learned
    forms = {form for one in found for form in (one, unquote(one), quote(one, safe=""))}
    return sorted(forms, key=len, reverse=True)


def _cut(found: re.Match[str]) -> str:
    scheme, rest = found.groups()
    account, at, host = rest.rpartition("@")
    if at and _ACCOUNT.fullmatch(account):
        rest = f"{CUT}@{host}"
    path, mark, _ = rest.partition("?")
    return f"{scheme}{path}{mark}{CUT if mark else ''}"
