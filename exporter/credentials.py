"""What a Triton server is shown by its clients: the key of its restricted protocols, certificates.

All of it is the environment's, and goes to the servers that the user names; a private server gets
none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError
from triton_client import TLS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Credentials"]

# The name of the key in deployment/triton/server.args.
_PROTOCOLS = "stlab"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the environment has for Triton servers; nothing by default.

    Attributes:
        key: ``STLAB_TRITON_KEY``, the secret of the restricted protocols.
        authorities: ``STLAB_TRITON_CA``, a PEM file of the authorities that sign servers'
            certificates; gRPC's own by default.
        certificate: ``STLAB_TRITON_CERT``, a PEM file of the client's certificate, for mutual TLS.
        private_key: ``STLAB_TRITON_CERT_KEY``, a PEM file of the key to it.
    """

    key: str = field(default="", repr=False)
    authorities: str = ""
    certificate: str = ""
    private_key: str = ""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Return those of an environment.

        Raises:
            UsageError: A file cannot be read, or one of certificate and key is missing.
        """
        files = {
            name: environment.get(name, "")
            for name in ("STLAB_TRITON_CA", "STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY")
        }
        for name, file in files.items():
            if file and not os.access(file, os.R_OK):
                raise UsageError(
                    f"{name} names {file}, which cannot be read",
                    hint="Give a PEM file, or leave it out.",
                )
        authorities, certificate, private_key = files.values()
        if bool(certificate) != bool(private_key):
            raise UsageError(
                "STLAB_TRITON_CERT and STLAB_TRITON_CERT_KEY belong together, and one is missing",
                hint="Give both for mutual TLS, or neither.",
            )
        return cls(environment.get("STLAB_TRITON_KEY", ""), authorities, certificate, private_key)

    def arguments(self) -> dict[str, Any]:
        """Return them as `TritonClient` and `AsyncTritonClient` take them."""
        arguments: dict[str, Any] = {}
        if self.key:
            arguments["restricted"] = {_PROTOCOLS: self.key}
        if self.authorities or self.certificate:
            arguments["tls"] = TLS(
                root_certificates=_file(self.authorities),
                private_key=_file(self.private_key),
                certificate_chain=_file(self.certificate),
            )
        return arguments


def _file(name: str) -> Path | None:
    return Path(name) if name else None
