"""TLS and mutual TLS, with certificates made for the test."""

from __future__ import annotations

import datetime as dt
import ipaddress
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.triton_client.fake_triton import FakeTriton
from triton_client import TLS, errors

X = np.ones((1, 2), np.float32)


def certificate() -> tuple[bytes, bytes]:
    """Return a private key and a certificate that it signed itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "triton.test")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("triton.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, made.public_bytes(serialization.Encoding.PEM)


def test_tls_and_mutual_tls(connect: Any) -> None:
    server_key, server_certificate = certificate()
    client_key, client_certificate = certificate()
    server = FakeTriton(
        grpc.ssl_server_credentials(
            [(server_key, server_certificate)], client_certificate, require_client_auth=True
        )
    )
    try:
        whole = TLS(server_certificate, client_key, client_certificate)
        answer = connect.infer(server.url, {"x": X}, options={"tls": whole})
        np.testing.assert_array_equal(answer["y"], X)
        url = f"grpcs://{server.url}"
        named = TLS(server_certificate, client_key, client_certificate, "triton.test")
        connect.infer(url, {"x": X}, options={"tls": named})
        for lacking in (TLS(server_certificate), TLS(client_certificate), True, False):
            assert connect.run(connect(server.url, tls=lacking).live()) is False
        with pytest.raises(errors.Unavailable):
            connect.infer(server.url, {"x": X}, options={"tls": True, "retries": 0})
    finally:
        server.stop()
