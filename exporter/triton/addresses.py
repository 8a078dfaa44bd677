"""The servers that stand behind one name, each with an address of its own.

Who only asks may ask any of them; whoever loads a model or looks what is served means every one.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

from exporter.errors import UsageError
from exporter.text.redaction import learn

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SERVER_NAME", "check_addresses", "expand_addresses", "split_addresses"]

SERVER_NAME = "#"
"""Stands between an address and the name that the server's certificate is for."""


# gRPC's own lists, whose commas belong to the one address.
_LISTS = ("ipv4:", "ipv6:")


def check_addresses(*urls: str) -> None:
    """Refuse addresses with an account in them, without a word of it.

    Raises:
        UsageError: One has one.
    """
    for url in urls:
        learn(url)
    if any("@" in url for url in urls):
        raise UsageError(
            "the address of a Triton server holds an account, which gRPC has no use for",
            hint="Leave out everything up to the '@'; STLAB_TRITON_KEY holds the key of a server's "
            "restricted protocols.",
        )


def is_loopback(host: str, *, unspecified: bool = False) -> bool:
    """Return whether a host is this machine's loopback, which no other machine reaches.

    Args:
        host: A name or an address, without brackets.
        unspecified: Whether ``0.0.0.0`` and ``::`` count: who connects to them reaches this
            machine, while who listens on them is reached from every other.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback or (unspecified and address.is_unspecified)


def split_addresses(urls: str) -> tuple[str, ...]:
    """Return the addresses of a text, such as STLAB_TRITON_URL: with blanks or commas between.

    Raises:
        UsageError: One has an account in it.
    """
    check_addresses(urls)
    return tuple((urls if urls.startswith(_LISTS) else urls.replace(",", " ")).split())


def expand_addresses(urls: Iterable[str]) -> tuple[str, ...]:
    """Return the gRPC addresses of all servers, in order and each once.

    Args:
        urls: ``HOST:PORT``, ``grpc://``, ``grpcs://`` or ``dns:///`` addresses. A name of several
            addresses, as a headless Service of Kubernetes has, is replaced by them.

    Raises:
        UsageError: One has an account in it.
    """
    urls = tuple(urls)
    check_addresses(*urls)
    return tuple(dict.fromkeys(server for url in urls for server in _behind(url)))


def _behind(url: str) -> list[str]:
    scheme, separator, rest = url.rpartition("://")
    if scheme not in {"", "grpc", "grpcs", "dns"} or url.startswith((*_LISTS, "unix:")):
        return [url]
    host, _, port = rest.lstrip("/").rpartition(":")
    if not host or not port.isdigit():
        return [url]
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return [url]  # whoever asks it says so
    # A server that has both kinds of address is one server.
    for family in (socket.AF_INET, socket.AF_INET6):
        addresses = sorted({str(entry[4][0]) for entry in found if entry[0] == family})
        if len(addresses) > 1:
            kept = "" if scheme == "dns" else scheme + separator
            ends = [f"[{one}]" if family == socket.AF_INET6 else one for one in addresses]
            return [f"{kept}{end}:{port}{SERVER_NAME}{host}" for end in ends]
        if addresses:
            break
    return [url]
