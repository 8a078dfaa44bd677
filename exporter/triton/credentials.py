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
        names = ("STLAB_TRITON_CA", "STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY")
        authorities, certificate, private_key = files = [environment.get(n, "") for n in names]
        for name, file in zip(names, files, strict=True):
            if isinstance(_pem(file), Path) and not os.access(file, os.R_OK):
                raise UsageError(
                    f"{name} names {file}, which cannot be read",
                    hint="Give PEM, a file of it, or leave it out.",
                )
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

        The address may have `SERVER_NAME` after it, and the name in the server's certificate. A
        server that stlab started on this machine gets its own key, unless one is set.
        """
        address, _, name = url.partition(SERVER_NAME)
        arguments: dict[str, Any] = {"url": address}
        if self.key:
            arguments["protocol_keys"] = {KEY_NAME: self.key}
        if self.authorities or self.certificate or (name and address.startswith("grpcs://")):
            arguments["tls"] = TLS(
                root_certificates=_pem(self.authorities),
                private_key=_pem(self.private_key),
                certificate_chain=_pem(self.certificate),
                server_name=name or None,
            )
        port = local_port(address)
        if port is not None and len(arguments) == 1:
            # By number: localhost may also be ::1, where another user's server may listen.
            return {"url": f"127.0.0.1:{port}", "headers": LocalKey(port)}
        return arguments


def _pem(text: str) -> bytes | Path | None:
    if text.lstrip().startswith("-----BEGIN "):
        return text.encode()
    return Path(text) if text else None
