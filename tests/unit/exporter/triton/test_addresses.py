from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest

from exporter.triton import addresses
from exporter.triton.addresses import expand_addresses, is_loopback

KNOWN = {
    "one": ["10.0.0.1"],
    "pods": ["10.0.0.3", "10.0.0.2", "10.0.0.3"],
    "both": ["10.0.0.1", "fd00::1"],
    "six": ["fd00::2", "fd00::1"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(host: str, port: int, **_: Any) -> list[Any]:
        if host not in KNOWN:
            raise socket.gaierror(host)
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, 1, 6, "", (one, port))
            for one in KNOWN[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("one:8001", ["one:8001"]),
        ("grpcs://one:8001", ["grpcs://one:8001"]),
        ("both:8001", ["both:8001"]),
        ("gone:8001", ["gone:8001"]),
        ("nonsense", ["nonsense"]),
        ("unix:/run/triton.sock", ["unix:/run/triton.sock"]),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8001", ["ipv4:10.0.0.1:8001,10.0.0.2:8001"]),
        ("pods:8001", ["10.0.0.2:8001#pods", "10.0.0.3:8001#pods"]),
        ("dns:///pods:8001", ["10.0.0.2:8001#pods", "10.0.0.3:8001#pods"]),
        ("grpcs://pods:8001", ["grpcs://10.0.0.2:8001#pods", "grpcs://10.0.0.3:8001#pods"]),
        ("six:8001", ["[fd00::1]:8001#six", "[fd00::2]:8001#six"]),
    ],
)
def test_a_name_stands_for_its_servers(url: str, servers: list[str]) -> None:
    assert list(expand_addresses([url])) == servers


def test_each_once_and_in_order() -> None:
    assert expand_addresses(["pods:8001", "one:8001", "dns:///pods:8001"]) == (
        *("10.0.0.2:8001#pods", "10.0.0.3:8001#pods", "one:8001"),
    )


def test_what_this_machine_alone_reaches() -> None:
    for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"):
        assert is_loopback(host), host
    for host in ("127.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "localhost.evil"):
        assert not is_loopback(host, unspecified=True), host
    for host in ("0.0.0.0", "::"):
        assert not is_loopback(host)
        assert is_loopback(host, unspecified=True)


def test_a_name_that_does_not_resolve_in_time_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(60))
    monkeypatch.setattr(addresses, "RESOLVE_SECONDS", 0.05)
    started = time.monotonic()
    assert expand_addresses(["pods:8001", "one:8001"]) == ("pods:8001", "one:8001")
    assert time.monotonic() - started < 10
    answered.set()
