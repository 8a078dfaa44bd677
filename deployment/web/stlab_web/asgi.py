"""ASGI middleware of both web applications: allowed hosts and path prefixes behind proxies."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.errors import UsageError
from exporter.triton.addresses import is_loopback

__all__ = [
    "LOOPBACK_HOSTS",
    "AllowedHosts",
    "PathPrefix",
    "Refuse",
    "host_names",
    "path_prefix",
    "trusted_networks",
]

Refuse = Callable[[str, Scope, Receive, Send], Awaitable[None]]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_FORWARDED_PREFIX = b"x-forwarded-prefix"


def host_names(given: str) -> tuple[str, ...]:
    """Return the hosts of a list with commas, lowercase, IPv6 without brackets."""
    names = (name.strip().lower().strip("[]") for name in given.split(","))
    return tuple(name for name in names if name)


def path_prefix(given: str) -> str:
    """Return a path prefix such as ``/ml``; empty for none.

    Raises:
        UsageError: It is not a plain path.
    """
    prefix = given.strip().rstrip("/")
    if not _PREFIX.fullmatch(prefix) or "/." in prefix:
        raise UsageError(f"'{given}' is not a path prefix", hint="Give one such as /ml.")
    return prefix


def trusted_networks(given: str) -> tuple[Network, ...]:
    """Return the networks of a list with commas; all of them for ``*``.

    Raises:
        UsageError: An entry is neither an address nor a network.
    """
    names = ("0.0.0.0/0", "::/0") if given.strip() == "*" else host_names(given)
    try:
        return tuple(ipaddress.ip_network(name, strict=False) for name in names)
    except ValueError as error:
        raise UsageError(
            f"the list of trusted proxies is not valid: {error}",
            hint="Give IP addresses or networks such as 10.0.0.0/8, with commas between.",
        ) from error


class AllowedHosts:
    """Refuses requests for other hosts, and requests of other sites' pages.

    Another site's page can reach this machine by a name of its own that it points here (DNS
    rebinding), and by requests and WebSockets that a browser sends for it. Such requests show the
    name in ``Host`` and the site in ``Origin``.

    Args:
        app: The application.
        hosts: The allowed names; ``*`` allows all.
        refuse: Answers a refused HTTP request; its first argument is the reason.
        always: Paths that are open to any host, such as those of health checks.
    """

    def __init__(
        self, app: ASGIApp, hosts: Iterable[str], refuse: Refuse, always: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._sites = frozenset(host for host in self._hosts if not is_loopback(host))
        self._refuse = refuse
        self._always = frozenset(always)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        why = "" if "*" in self._hosts or scope["type"] == "lifespan" else self._why_not(scope)
        if not why:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        else:
            await self._refuse(why, scope, receive, send)

    def _why_not(self, scope: Scope) -> str:
        root = scope.get("root_path", "")
        if scope["path"].removeprefix(root) in self._always:
            return ""
        given, origins = [], []
        for name, value in scope["headers"]:
            if name == b"host":
                given.append(value)
            elif name == b"origin":
                origins.append(value)
        host = given[0].decode("latin-1").lower() if len(given) == 1 else ""
        if _name_of(f"//{host}") not in self._hosts:
            return "this host is not among those that are answered for"
        for origin in origins:
            site = origin.decode("latin-1").lower()
            # If a proxy puts its own name into Host, the site must be a listed one.
            if site.partition("://")[2] != host and _name_of(site) not in self._sites:
                return "pages of other sites may not send requests"
        return ""


class PathPrefix:
    """Serves an application below a path prefix, whether a proxy strips it or not.

    Args:
        app: The application.
        prefix: The prefix; empty for the one in a proxy's ``X-Forwarded-Prefix``.
        trusted: The networks of trusted proxies.
    """

    def __init__(self, app: ASGIApp, prefix: str, trusted: Iterable[Network]) -> None:
        self._app = app
        self._prefix = prefix
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] in {"http", "websocket"}:
            scope = self._placed(scope)
        await self._app(scope, receive, send)

    def _placed(self, scope: Scope) -> Scope:
        named = [value for name, value in scope["headers"] if name == _FORWARDED_PREFIX]
        prefix = self._prefix
        if named:
            # NiceGUI would accept it from every caller.
            rest = [pair for pair in scope["headers"] if pair[0] != _FORWARDED_PREFIX]
            scope = {**scope, "headers": rest}
            if not prefix and self._trusts(scope):
                prefix = _forwarded(named)
        if not prefix:
            return scope
        path = scope["path"]
        below = path == prefix or path.startswith(f"{prefix}/")
        whole = path if below else f"{prefix}{path}"
        raw = scope.get("raw_path") or path.encode()
        return {
            **scope,
            "root_path": prefix,
            "path": f"{prefix}/" if whole == prefix else whole,
            "raw_path": raw if below else prefix.encode() + raw,
        }

    def _trusts(self, scope: Scope) -> bool:
        try:
            peer = ipaddress.ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        return any(peer in network for network in self._trusted)


def _forwarded(named: list[bytes]) -> str:
    try:
        return path_prefix(named[0].decode("latin-1")) if len(named) == 1 else ""
    except UsageError:
        return ""


def _name_of(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
