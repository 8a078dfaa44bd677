"""How a channel to Triton is set up: its address, its options, its credentials."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, Self

import grpc
import grpc.aio

from triton_client._headers import Headers, HeaderSource, Token

__all__ = ["MAX_RESPONSE_BYTES", "TLS", "ChannelSettings", "Compression", "channel_settings"]

Compression = Literal["gzip", "deflate"]
MAX_RESPONSE_BYTES: Final = 512 << 20

# Triton tolerates one ping in 300 s without data (--grpc-http2-min-recv-ping-interval-without-data)
# and closes the connection with too_many_pings after two more.
_OPTIONS: Final[dict[str, int | str]] = {
    "grpc.max_send_message_length": -1,
    # A model's error may be a long traceback; gRPC's own bound is 16 KiB.
    "grpc.max_metadata_size": 1 << 20,
    "grpc.absolute_max_metadata_size": 1 << 20,
    "grpc.keepalive_time_ms": 330_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 5_000,
    # No retry policy of gRPC, not from a name server either: retries have a budget, see _retry.
    "grpc.service_config_disable_resolution": 1,
    # Not the process's pool of connections, from which a child would take its parent's.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.service_config": json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}),
}
_COMPRESSIONS: Final = {
    None: None,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
_RESOLVERS: Final = ("dns:", "ipv4:", "ipv6:", "unix:", "unix-abstract:", "xds:", "passthrough:")


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates for an encrypted connection.

    Attributes:
        root_certificates: PEM bytes or a file of the authorities to trust; gRPC's own by default.
        private_key: PEM bytes or a file of the client's key, for mutual TLS.
        certificate_chain: PEM bytes or a file of the client's certificate, for mutual TLS.
        server_name: The name the server's certificate is for, where the address is another.
    """

    root_certificates: bytes | str | PathLike[str] | None = None
    private_key: bytes | str | PathLike[str] | None = None
    certificate_chain: bytes | str | PathLike[str] | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What ``grpc`` and ``grpc.aio`` need to open a channel.

    ``credentials`` are ``None`` for plain text; ``host_port`` is that of an address in plain text.
    """

    target: str
    credentials: Any | None
    options: tuple[tuple[str, int | str], ...]
    headers: Headers = field(repr=False)
    compression: Any | None = None
    interceptors: tuple[Any, ...] = ()
    host_port: tuple[str, int] | None = None

    def open(self) -> grpc.Channel:
        """Return a channel for threads."""
        if self.credentials is None:
            channel = grpc.insecure_channel(self.target, self.options, self.compression)
        else:
            channel = grpc.secure_channel(
                self.target, self.credentials, self.options, self.compression
            )
        return grpc.intercept_channel(channel, *self.interceptors)

    def open_aio(self) -> grpc.aio.Channel:
        """Return a channel for the running event loop."""
        rest = (self.options, self.compression, self.interceptors)
        if self.credentials is None:
            return grpc.aio.insecure_channel(self.target, *rest)
        return grpc.aio.secure_channel(self.target, self.credentials, *rest)

    def pinned(self) -> Self:
        """Return the same with all calls going to one server, whatever the address stands for."""
        options = dict(self.options)
        config = json.loads(str(options.get("grpc.service_config", "{}")))
        config["loadBalancingConfig"] = [{"pick_first": {}}]
        options["grpc.service_config"] = json.dumps(config)
        return replace(self, options=tuple(options.items()))


def channel_settings(
    url: str,
    *,
    tls: TLS | bool,
    credentials: Any | None,
    headers: HeaderSource | None,
    options: Mapping[str, int | str] | None,
    token: Token | None = None,
    protocol_keys: Mapping[str, str] | None = None,
    compression: Compression | None = None,
    max_response_bytes: int = MAX_RESPONSE_BYTES,
    interceptors: Sequence[Any] = (),
) -> ChannelSettings:
    """Return the settings of a channel, from the arguments of a client.

    Raises:
        ValueError: The address is not that of a gRPC server, or an argument is invalid.
    """
    target, encrypted = _target(url)
    if credentials is not None and tls:
        raise ValueError("give credentials or tls, not both")
    if compression not in _COMPRESSIONS:
        raise ValueError(f"compression is gzip, deflate or None, not {compression!r}")
    if not 0 < max_response_bytes < 2**31:
        raise ValueError(f"max_response_bytes is from 1 to 2**31 - 1, not {max_response_bytes}")
    host_port = _host_port(target)
    arguments = {**_OPTIONS, "grpc.max_receive_message_length": max_response_bytes}
    host, _ = host_port or ("", 0)
    ip = _ip(host)
    if host == "localhost" or (ip is not None and ip.is_loopback):
        # No proxy reaches this machine by that name.
        arguments["grpc.enable_http_proxy"] = 0
    arguments |= dict(options or {})
    if credentials is None and (tls or encrypted):
        certificates = tls if isinstance(tls, TLS) else TLS()
        credentials = grpc.ssl_channel_credentials(
            _pem(certificates.root_certificates),
            _pem(certificates.private_key),
            _pem(certificates.certificate_chain),
        )
        if certificates.server_name:
            arguments["grpc.ssl_target_name_override"] = certificates.server_name
    return ChannelSettings(
        target=target,
        credentials=credentials,
        options=tuple(arguments.items()),
        headers=Headers(headers, token, protocol_keys),
        compression=_COMPRESSIONS[compression],
        interceptors=tuple(interceptors),
        host_port=None if credentials else host_port,
    )


def _target(url: str) -> tuple[str, bool]:
    if not isinstance(url, str):
        raise TypeError(f"an address is text, such as 'localhost:8001', not {url!r}")
    if url.startswith(_RESOLVERS):
        return url, False
    scheme, separator, rest = url.rpartition("://")
    problem = _problem(rest)
    if "@" in rest:
        # What comes before it may be a password.
        problem = "has an account in it; give it with token= or headers="
        url = f"…@{rest.rpartition('@')[2]}"
    elif separator and scheme not in ("grpc", "grpcs"):
        problem = "is not a gRPC address"
    if problem:
        raise ValueError(f"{url!r} {problem}; write host:port, usually port 8001")
    return f"dns:///{rest}", scheme == "grpcs"


def _problem(authority: str) -> str:
    """Return what is wrong with a host and its port; nothing where they are right."""
    host, colon, port = authority.rpartition(":")
    is_bare = ":" in host and not host.startswith("[")
    if is_bare and _ip(host):
        return "is an IPv6 address without brackets: [address]:port"
    if is_bare or "/" in authority or "," in authority or authority.split() != [authority]:
        return "is not an address"
    if not colon or not (port.isascii() and port.isdecimal()):
        return "has no port"
    if not host:
        return "has no host"
    if not 0 < int(port) < 2**16:
        return f"has the port {port}, and ports are from 1 to 65535"
    return ""


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(host)
    return None


def _host_port(target: str) -> tuple[str, int] | None:
    found = re.fullmatch(r"dns:///\[?(.*?)\]?:(\d+)", target)
    return None if found is None else (found[1], int(found[2]))


def _pem(source: bytes | str | PathLike[str] | None) -> bytes | None:
    return source if source is None or isinstance(source, bytes) else Path(source).read_bytes()
