"""Cut passwords out of what is shown, logged and recorded.

In free text these are the account and the query of every address, the values of environment
variables such as ``MLFLOW_TRACKING_TOKEN``, and the accounts of addresses that were given to
`learn`. An account may be any word, such as ``mlflow``: it is cut where it is a whole word of at
least eight characters; a shorter one only inside an address.

Values that stlab computes, such as a digest or a model's name, are no free text and stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["learn", "redact", "redact_addresses", "redact_all", "redact_each"]

CUT = "***"

_SEPARATOR = "\x1f"  # a blank to every pattern here, so that no match crosses it
_LEAST = 8  # a shorter value may be any word
# Where a word begins, also after an escape sequence of a URL or a string.
_BEGIN = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"
_SECRET = re.compile(rb"PASSWORD|PASSWD|TOKEN|SECRET|(^|_)KEYS?$")
_NO_SECRET = re.compile(rb"CERT|_(FILE|PATH|ID|URL|URI)$")
# Each has a bound, since a hostile text would take hours.
_URL = re.compile(r"\b((?:[A-Za-z][A-Za-z0-9+.\-]{0,30}:/{2,3})+)([^\s'\"<>]+)")
# The account of a URL, also where its password has characters that should be escaped.
_ACCOUNT = re.compile(r"[^/?#]*|[^/?#@:]*:(?!\d*[/?#]).*")
_BARE_ACCOUNT = re.compile(r"(?<![\w/@:.\-])[^\s/@:'\"()]{1,128}:(?!/)[^\s@'\"]{1,256}@(?=[\w\[])")
_PARAMETER = re.compile(r"([?&;])([^=?&;\s]*)=([^?&;\s'\")]*)")
_SECRET_PARAMETER = re.compile("pass|pwd|token|secret|key|sig|credential", re.IGNORECASE)

# Fields of stlab's own objects that hold no free text.
_FACTS = frozenset({
    "alias", "at", "base64", "batching", "bundle", "data", "datatype", "format", "from", "kind",
    "level", "mode", "model", "name", "precision", "release", "report", "run_id", "sha256",
    "shape", "status", "step", "strength", "time", "verdict", "version", "worst_output",
})  # fmt: skip

_learned: set[str] = set()


def learn(address: str) -> None:
    """Remember what precedes the ``@`` of an address as a secret, in every way of writing it."""
    account = address.rpartition("@")[0]
    if "://" in account:
        account = account.partition("://")[2]
    password = account.partition(":")[2]
    _learned.update(one for one in (account, password) if one)


def redact(text: str) -> str:
    """Return free text without secrets."""
    for secret, pattern in _known():
        if secret in text:
            text = pattern.sub(CUT, text)
    return redact_addresses(text)


def redact_addresses(text: str) -> str:
    """Return a text without the accounts and queries of the addresses in it."""
    if "@" in text or "?" in text:
        text = _URL.sub(_cut, text)
    if "@" in text:
        text = _BARE_ACCOUNT.sub(f"{CUT}@", text)
    return _PARAMETER.sub(_cut_parameter, text) if "=" in text else text


def redact_each(texts: Sequence[str]) -> list[str]:
    """Return texts without secrets, at the cost of one text: for use in every request."""
    if not texts or any(_SEPARATOR in text for text in texts):
        return [redact(text) for text in texts]
    return redact(_SEPARATOR.join(texts)).split(_SEPARATOR)


def redact_all(content: Any) -> Any:
    """Return one of stlab's JSON objects with its free text redacted.

    Keys that are addresses are redacted as well.
    """
    return _redacted(content, is_fact=False)


def _redacted(content: Any, *, is_fact: bool) -> Any:
    if isinstance(content, str):
        return redact_addresses(content) if is_fact else redact(content)
    if isinstance(content, dict):
        return {
            redact_addresses(key): _redacted(value, is_fact=key in _FACTS)
            for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [_redacted(value, is_fact=is_fact) for value in content]
    return content


def _known() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return every known secret in all its spellings, each with its pattern, the longest first."""
    # As bytes: this runs for every line of a log, and decoding would take most of the time.
    values = tuple(os.environb[name] for name in os.environb if _is_secret(name))
    return _forms(values, frozenset(_learned))


@lru_cache(maxsize=4096)
def _is_secret(name: bytes) -> bool:
    return bool(_SECRET.search(name) and not _NO_SECRET.search(name))


@lru_cache(maxsize=8)
def _forms(
    values: tuple[bytes, ...], learned: frozenset[str]
) -> tuple[tuple[str, re.Pattern[str]], ...]:
    given = (one for value in values for one in os.fsdecode(value).split(","))
    found = {form: _word(form) for one in learned for form in _written(one)}
    found |= {
        form: re.escape(form) for one in given if len(one) >= _LEAST for form in _written(one)
    }
    longest_first = sorted(found, key=len, reverse=True)
    return tuple((form, re.compile(found[form])) for form in longest_first)


def _written(secret: str) -> tuple[str, ...]:
    return secret, unquote(secret), quote(secret, safe="")


def _word(secret: str) -> str:
    """Return the pattern of a learned secret."""
    begin, end = (re.fullmatch(r"\w", secret[place]) for place in (0, -1))
    pattern = f"{_BEGIN if begin else ''}{re.escape(secret)}"
    if len(secret) < _LEAST:
        return f"(?<!/){pattern}(?=@|%40)"
    return pattern + (r"(?!\w)" if end else "")


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
