"""Which hosts and sites are answered for, and what a path prefix does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exporter.errors import UsageError
from stlab_api.settings import Settings as ApiSettings
from stlab_dashboard.settings import Settings as DashboardSettings
from stlab_web.asgi import (
    LOOPBACK_HOSTS,
    AllowedHosts,
    PathPrefix,
    host_names,
    path_prefix,
    trusted_networks,
)


def seen_by(make: Any, headers: dict[str, str], **about: Any) -> dict[str, Any] | None:
    """Return the scope that an application gets; None where it gets none."""
    seen: list[dict[str, Any]] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def refuse(why: str, scope: Any, receive: Any, send: Any) -> None:
        sent.append(why)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {
        "type": "http",
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in headers.items()],
        **about,
    }
    asyncio.run(make(app, refuse)(scope, receive, send))
    assert bool(seen) != bool(sent)
    return seen[0] if seen else None


def allowed(headers: dict[str, str], hosts: tuple[str, ...] = LOOPBACK_HOSTS, **about: Any) -> bool:
    def make(app: Any, refuse: Any) -> Any:
        return AllowedHosts(app, hosts, refuse, always={"/health/live"})

    return seen_by(make, headers, **about) is not None


FOREIGN = ["evil.example", "evil.example:8090", "127.0.0.1.evil.example", "", "[::1",
           "127.0.0.1@evil.example", "2130706433", "evil.example#127.0.0.1"]  # fmt: skip


def test_only_known_hosts_are_answered_for() -> None:
    for kind in ("http", "websocket"):
        for host in ("localhost", "LOCALHOST:8090", "127.0.0.1:1", "[::1]:8090"):
            assert allowed({"host": host}, type=kind), host
        for host in FOREIGN:
            assert not allowed({"host": host}, type=kind), host
        assert not allowed({}, type=kind)
    assert allowed({"host": "evil.example"}, hosts=("*",))
    assert allowed({"host": "10.1.2.3:8080"}, path="/health/live")
    assert allowed({"host": "10.1.2.3:8080"}, path="/ml/health/live", root_path="/ml")
    assert not allowed({"host": "10.1.2.3:8080"}, path="/health/live/x")
    assert allowed({"host": "models.example"}, hosts=host_names("other, Models.Example"))


def test_localhost_and_the_own_address_stay_known_where_hosts_are_named() -> None:
    for listens in ("127.0.0.1", "0.0.0.0", "::", "127.0.0.2", "10.1.2.3"):
        own = {listens} - {"0.0.0.0", "::"}
        for kind in (ApiSettings, DashboardSettings):
            hosts = kind(_env_file=None, host=listens, allowed_hosts="ml.example").hosts
            for host in ("ml.example", "localhost", "127.0.0.1:8080", "[::1]:8080", *own):
                assert allowed({"host": host}, hosts=hosts), (kind, listens, host)
            for host in ("evil.example", "0.0.0.0", "[::]"):
                assert not allowed({"host": host}, hosts=hosts), (kind, listens, host)
            site = {"host": "ml.example", "origin": "http://127.0.0.2:3000"}
            assert not allowed(site, hosts=hosts)
    own = ApiSettings(_env_file=None, host="127.0.0.2").hosts
    assert allowed({"host": "127.0.0.2:8080"}, hosts=own)
    assert not allowed({"host": "ml.example"}, hosts=own)
    assert ApiSettings(_env_file=None, host="0.0.0.0").hosts == ("*",)


def test_pages_of_other_sites_may_not_ask() -> None:
    for kind in ("http", "websocket"):
        host = {"host": "localhost:8090"}
        assert allowed({**host, "origin": "http://localhost:8090"}, type=kind)
        for origin in ("https://evil.example", "null", "http://localhost:3000", "",
                       "http://localhost", "http://127.0.0.1:8090", "http://[::1"):  # fmt: skip
            assert not allowed({**host, "origin": origin}, type=kind), origin
        # A proxy may put another name into Host; the site is then one that was listed.
        listed = (*LOOPBACK_HOSTS, "models.example")
        origin = "https://models.example:8443"
        assert allowed({**host, "origin": origin}, hosts=listed, type=kind)


def placed(
    path: str,
    prefix: str = "",
    trusted: str = "127.0.0.1",
    client: str = "127.0.0.1",
    **headers: str,
) -> tuple[str, str]:
    def make(app: Any, refuse: Any) -> Any:
        return PathPrefix(app, path_prefix(prefix), trusted_networks(trusted))

    scope = seen_by(make, headers, path=path, raw_path=path.encode(), client=(client, 1))
    assert scope is not None
    assert scope["raw_path"].decode() == scope["path"] or path == prefix
    assert not [name for name, _ in scope["headers"] if name == b"x-forwarded-prefix"]
    return scope["root_path"], scope["path"]


def test_a_prefix_may_be_stripped_by_the_proxy_or_not() -> None:
    for path in ("/docs", "/ml/docs"):
        assert placed(path, "/ml") == ("/ml", "/ml/docs")
        assert placed(path, "/ml/") == ("/ml", "/ml/docs")
        assert placed(path, **{"x-forwarded-prefix": "/ml"}) == ("/ml", "/ml/docs")
    assert placed("/ml", "/ml") == ("/ml", "/ml/")
    assert placed("/mlx", "/ml") == ("/ml", "/ml/mlx")
    assert placed("/docs") == ("", "/docs")


def test_only_a_trusted_proxy_names_a_prefix() -> None:
    header = {"x-forwarded-prefix": "/ml"}
    assert placed("/docs", client="10.0.0.1", **header) == ("", "/docs")
    assert placed("/docs", client="10.0.0.1", trusted="10.0.0.0/8", **header)[0] == "/ml"
    assert placed("/docs", client="fe80::1", trusted="*", **header)[0] == "/ml"
    assert placed("/docs", client="", **header) == ("", "/docs")
    assert placed("/docs", "/other", **header) == ("/other", "/other/docs")
    for wrong in ("ml", "//evil.example", '/"><script>', "/a/../b", "/ml, /x", "/é", "https://x"):
        assert placed("/docs", **{"x-forwarded-prefix": wrong}) == ("", "/docs"), wrong


def test_settings_that_make_no_sense_are_refused() -> None:
    for prefix in ("ml", "//x", "/a b", "https://x/y", "/.."):
        with pytest.raises(UsageError):
            path_prefix(prefix)
    with pytest.raises(UsageError):
        trusted_networks("10.0.0.1, proxy")
