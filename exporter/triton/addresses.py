"""Addresses of Triton servers, and the servers behind a name.

Any server behind a name can answer a request; loading a model, or reading what is served, needs
every one of them.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from exporter.errors import UsageError
from exporter.text.redaction import learn

__all__ = ["SERVER_NAME", "check_addresses", "expand_addresses", "split_addresses"]

SERVER_NAME = "#"
"""Stands between an address and the name that the server's certificate is for."""

RESOLVE_SECONDS = 5.0
"""How long the system may take to resolve a name."""

# gRPC's own lists of addresses, with commas between them.
_LISTS = ("ipv4:", "ipv6:")


def check_addresses(*urls: str) -> None:
    """Refuse addresses that hold an account, without showing it.

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
    """Return whether a host, without brackets, is this machine's loopback.

    With ``unspecified``, ``0.0.0.0`` and ``::`` count: connecting to them reaches this machine,
    while a server that listens on them can be reached from others.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    return address.is_loopback or (unspecified and address.is_unspecified)


def split_addresses(urls: str) -> tuple[str, ...]:
    """Return the addresses in a text such as STLAB_TRITON_URL, separated by blanks or commas.

    Raises:
        UsageError: One has an account in it.
    """
    check_addresses(urls)
    return tuple((urls if urls.startswith(_LISTS) else urls.replace(",", " ")).split())


def expand_addresses(urls: Iterable[str]) -> tuple[str, ...]:
    """Return the gRPC addresses of all servers, in order and each once.

    They are ``HOST:PORT``, ``grpc://``, ``grpcs://`` or ``dns:///`` addresses. A name of several
    addresses, as a headless Service of Kubernetes has, is replaced by them; one that does not
    resolve within `RESOLVE_SECONDS` stays as it is.

    Raises:
        UsageError: One has an account in it.
    """
    urls = tuple(urls)
    check_addresses(*urls)
    return tuple(dict.fromkeys(server for url in urls for server in _behind(url)))


def _behind(url: str) -> list[str]:
    scheme, separator, rest = url.rpartition("://")
    host, _, port = rest.lstrip("/").rpartition(":")
    named = scheme in {"", "grpc", "grpcs", "dns"} and not url.startswith((*_LISTS, "unix:"))
    if not named or not host or not port.isdigit():
        return [url]
    found = _resolve(host.strip("[]"), int(port))
    # A server that has both kinds of address is one server.
    addresses = sorted({entry[4][0] for entry in found if entry[0] == socket.AF_INET})
    if not addresses:
        addresses = sorted({f"[{entry[4][0]}]" for entry in found if entry[0] == socket.AF_INET6})
    if len(addresses) < 2:
        return [url]
    start = "" if scheme == "dns" else scheme + separator
    return [f"{start}{one}:{port}{SERVER_NAME}{host}" for one in addresses]


def _resolve(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    """Return a name's entries; none where it does not resolve, which connecting to it will say."""
    found: queue.SimpleQueue[Sequence[tuple[Any, ...]]] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError:
            found.put(())

    # The system's resolver takes no deadline.
    threading.Thread(target=resolve, name=f"resolve-{host}", daemon=True).start()
    try:
        return found.get(timeout=RESOLVE_SECONDS)
    except queue.Empty:
        return ()
