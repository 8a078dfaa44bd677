"""Where calls go: which targets need no grpcio, and the addresses of a name in turn."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from triton_client._addresses import Address, Addresses, Place, place_of

NAME = Place("triton", 8001, "triton:8001")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


def found(*hosts: str) -> list[Any]:
    """As ``getaddrinfo`` says it."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 8001)) for host in hosts]


def address(host: str) -> Address:
    return Address(socket.AF_INET, (host, 8001))


def firsts(addresses: Addresses, times: int) -> list[str]:
    return [addresses.turn()[0].sockaddr[0] for _ in range(times)]


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("dns:///triton:8001", NAME),
        ("dns:///[::1]:8001", Place("::1", 8001, "[::1]:8001")),
        ("unix:/run/triton.sock", Place("", "/run/triton.sock", "localhost")),
        ("unix:///run/triton.sock", Place("", "/run/triton.sock", "localhost")),
        ("dns:///triton", None),
        ("dns:///::1", None),
        ("dns://8.8.8.8/triton:8001", None),
        ("ipv4:10.0.0.1:8001,10.0.0.2:8001", None),
        ("xds:///triton", None),
    ],
)
def test_what_needs_no_grpcio(target: str, place: Place | None) -> None:
    assert place_of(target) == place


def test_a_proxy_is_grpcio_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert place_of("dns:///triton:8001") is None
    assert place_of("dns:///localhost:8001") is not None


def test_addresses_take_turns() -> None:
    addresses = Addresses(NAME)
    assert addresses.stale
    addresses.learn(found("a", "b", "c", "b"))
    assert not addresses.stale
    assert sorted(firsts(addresses, 6)) == ["a", "a", "b", "b", "c", "c"]


def test_an_address_that_refuses_is_tried_last() -> None:
    addresses = Addresses(NAME)
    addresses.learn(found("a", "b", "c"))
    addresses.failed(address("b"))
    assert {turn[-1] for turn in (addresses.turn() for _ in range(6))} == {address("b")}
    addresses.works(address("b"))
    assert "b" in firsts(addresses, 3)


def test_a_name_is_looked_up_again_when_none_of_its_addresses_answers() -> None:
    addresses = Addresses(NAME)
    addresses.learn(found("a", "b"))
    addresses.failed(address("a"))
    assert not addresses.stale
    addresses.failed(address("b"))
    assert addresses.stale


def test_a_broken_connection_is_a_reason_to_look_again_though_not_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr("triton_client._addresses.monotonic", lambda: now[0])
    addresses = Addresses(NAME)
    addresses.learn(found("a"))
    addresses.broke()
    assert not addresses.stale
    now[0] += 60
    assert addresses.stale


def test_what_is_pinned_stays_with_one_address_while_it_answers() -> None:
    addresses = Addresses(Place("triton", 8001, "triton:8001", pinned=True))
    addresses.learn(found("a", "b"))
    assert firsts(addresses, 4) == ["a"] * 4
    addresses.failed(address("a"))
    assert firsts(addresses, 2) == ["b"] * 2
