"""Credentials for Triton servers: the key of restricted protocols, and certificates.

They come from the environment and go to the servers that the user names; a private server gets
none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.triton.addresses import SERVER_NAME
from exporter.triton.flags import KEY_NAME
from exporter.triton.keys import LocalKey, local_port
from triton_client import TLS

__all__ = ["Credentials"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials for Triton servers; empty by default.

    Attributes:
        key: ``STLAB_TRITON_KEY``, the secret of the restricted protocols.
        authorities: ``STLAB_TRITON_CA``, the authorities that sign servers' certificates, as PEM
            or a file of it; gRPC's own by default.
        certificate: ``STLAB_TRITON_CERT``, the client's certificate for mutual TLS, as PEM or a
            file of it.
        private_key: ``STLAB_TRITON_CERT_KEY``, its key, as PEM or a file of it.
    """

    key: str = field(default="", repr=False)
    authorities: str = ""
    certificate: str = ""
    private_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Return the credentials in an environment.

        Raises:
            UsageError: A file cannot be read, or one of certificate and key is missing.
        """
        files = {
            name: environment.get(name, "")
            for name in ("STLAB_TRITON_CA", "STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY")
        }
        for name, file in files.items():
            if file and not _is_pem(file) and not os.access(file, os.R_OK):
                raise UsageError(
                    f"{name} names {file}, which cannot be read",
                    hint="Give PEM, a file of it, or leave it out.",
                )
        authorities, certificate, private_key = files.values()
        if bool(certificate) != bool(private_key):
            raise UsageError(
                "STLAB_TRITON_CERT and STLAB_TRITON_CERT_KEY belong together, and one is missing",
                hint="Give both for mutual TLS, or neither.",
            )
        return cls(
            environment.get("STLAB_TRITON_KEY", "").strip(), authorities, certificate, private_key
        )

    def for_server(self, url: str) -> dict[str, Any]:
        """Return the arguments of `TritonClient` and `AsyncTritonClient` for a server.

        A server that stlab started on this machine gets its own key, unless one is set.

        Args:
            url: Its address, perhaps with `SERVER_NAME` and a name after it.
        """
        address, _, name = url.partition(SERVER_NAME)
        arguments = self.arguments(name, encrypted=address.startswith("grpcs://"))
        port = None if arguments else local_port(address)
        if port is not None:
            # By number: localhost may also be ::1, where another user's server may listen.
            address = f"127.0.0.1:{port}"
            arguments["headers"] = LocalKey(port)
        return {"url": address, **arguments}

    def arguments(self, server_name: str = "", *, encrypted: bool = False) -> dict[str, Any]:
        """Return the credentials as arguments of `TritonClient` and `AsyncTritonClient`.

        Args:
            server_name: The name in the server's certificate, where the address has another.
            encrypted: Whether the address asks for TLS.
        """
        arguments: dict[str, Any] = {}
        if self.key:
            arguments["protocol_keys"] = {KEY_NAME: self.key}
        if self.authorities or self.certificate or (server_name and encrypted):
            arguments["tls"] = TLS(
                root_certificates=_pem(self.authorities),
                private_key=_pem(self.private_key),
                certificate_chain=_pem(self.certificate),
                server_name=server_name or None,
            )
        return arguments


def _is_pem(text: str) -> bool:
    return text.lstrip().startswith("-----BEGIN ")


def _pem(text: str) -> bytes | Path | None:
    if _is_pem(text):
        return text.encode()
    return Path(text) if text else None
