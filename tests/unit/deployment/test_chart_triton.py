"""A real server accepts the chart's flags, and restricts what the chart says it does."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tritonclient.grpc import service_pb2, service_pb2_grpc

from exporter.errors import ConflictError, UnavailableError
from exporter.rollout.live_servers import check_servers
from exporter.triton.connection import connect
from tests.support.embedded import embedded_tritonserver, loopback_flags
from triton_client import TritonClient
from triton_client.errors import ModelNotFound

from .chart_files import ci_case, of_kind, pods, rendered

pytestmark = pytest.mark.triton

KEY = "sesame"
_SECONDS = 60


@dataclass(frozen=True)
class Started:
    """A running server and its ports."""

    process: subprocess.Popen[bytes]
    http: int
    grpc: int
    metrics: int


def _free(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _status(port: int, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@contextmanager
def _started(folder: Path, name: str) -> Iterator[Started]:
    """Start Triton as the chart does in an example: its ConfigMap, its command, its flags."""
    items = rendered(ci_case(name))
    (config,) = of_kind(items, "ConfigMap")
    for file, text in config["data"].items():
        (folder / file).write_text(text)
    (pod,) = [pod for pod in pods(items) if pod.part == "triton"]
    container = pod.main
    shell, script = container["command"]
    (folder / "bin").mkdir()
    program = embedded_tritonserver(folder / "bin")
    ports = _free(3)
    flags = [re.sub("=.*", f"={folder}/models", container["args"][0])]
    (folder / "models").mkdir()
    flags += [word.replace("/etc/stlab/tls", str(folder)) for word in container["args"][1:]]
    flags += loopback_flags(http=ports[0], grpc=ports[1], metrics=ports[2])
    path = f"{program.parent}:{os.environ['PATH']}"
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [shell, str(folder / Path(script).name), *flags],
            env={**os.environ, "PATH": path, "STLAB_TRITON_KEY": KEY},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + _SECONDS
        while _status(ports[0], "/v2/health/ready") != 200:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield Started(process, *ports)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """Start a server without TLS."""
    with _started(tmp_path_factory.mktemp("triton"), "pvc") as started:
        yield started


def test_probes_need_no_key(server: Started) -> None:
    assert _status(server.http, "/v2/health/live") == 200
    assert _status(server.http, "/v2/health/ready") == 200
    assert _status(server.metrics, "/metrics") == 200


def test_http_is_closed_without_the_key(server: Started) -> None:
    for path in ("/v2", "/v2/models/stats", "/v2/logging", "/v2/trace/setting"):
        assert _status(server.http, path) == 403, path
        assert _status(server.http, path, stlab="wrong") == 403, path
        assert _status(server.http, path, stlab=KEY) == 200, path


def test_inference_needs_no_key(server: Started) -> None:
    with TritonClient(f"127.0.0.1:{server.grpc}") as client:
        assert client.ready()
        assert client.metadata().name == "triton"
        with pytest.raises(ModelNotFound):
            client.model("missing")


def test_only_the_key_loads_models(server: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"127.0.0.1:{server.grpc}"
    for key in (None, "wrong"):
        if key is not None:
            monkeypatch.setenv("STLAB_TRITON_KEY", key)
        with pytest.raises(ConflictError, match="requires credentials") as caught:
            check_servers([url])
        assert "STLAB_TRITON_KEY" in caught.value.hint
        with pytest.raises(ConflictError, match="requires credentials"), connect(url) as client:
            client.repository.index()
    monkeypatch.setenv("STLAB_TRITON_KEY", KEY)
    check_servers([url])
    with connect(url) as client:
        assert list(client.repository.index()) == []


def test_traces_logs_and_shared_memory_need_the_key(server: Started) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.TraceSetting, service_pb2.TraceSettingRequest()),
            (stub.LogSettings, service_pb2.LogSettingsRequest()),
            (stub.SystemSharedMemoryStatus, service_pb2.SystemSharedMemoryStatusRequest()),
            (stub.CudaSharedMemoryStatus, service_pb2.CudaSharedMemoryStatusRequest()),
        ):
            with pytest.raises(grpc.RpcError, match="restricted"):
                call(request, timeout=30)
            call(request, timeout=30, metadata=[("triton-grpc-protocol-stlab", KEY)])


def test_sigterm_ends_the_server(server: Started) -> None:
    """start.sh replaces its shell, so SIGTERM reaches the server."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0


# ---- TLS ----


def write_certificates(folder: Path) -> None:
    """Write the keys of a TLS Secret, and a client certificate: ca.crt, tls.*, client.*."""
    now = datetime.now(UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    for name, key in {
        "ca": authority,
        "tls": ec.generate_private_key(ec.SECP256R1()),
        "client": ec.generate_private_key(ec.SECP256R1()),
    }.items():
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(issuer if name == "ca" else subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(name == "ca", None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .sign(authority, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        (folder / f"{name}.crt").write_bytes(pem)
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


def _answers(monkeypatch: pytest.MonkeyPatch, url: str, **files: Path | str) -> bool:
    """Tell whether stlab's commands reach a server with these credentials."""
    for name in ("STLAB_TRITON_CA", "STLAB_TRITON_CERT", "STLAB_TRITON_CERT_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, file in files.items():
        monkeypatch.setenv(name, str(file))
    monkeypatch.setenv("STLAB_TRITON_KEY", KEY)
    try:
        check_servers([url])
    except UnavailableError:
        return False
    return True


def test_clients_verify_the_server_with_the_pods_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_certificates(tmp_path)
    with _started(tmp_path, "tls") as server:
        address = f"localhost:{server.grpc}"
        # The last one is one server of a name with several addresses.
        for url in (address, f"grpcs://{address}", f"grpcs://127.0.0.1:{server.grpc}#localhost"):
            assert _answers(monkeypatch, url, STLAB_TRITON_CA=tmp_path / "ca.crt")
            assert not _answers(monkeypatch, url)
        # The kubelet's probes have no certificate.
        assert _status(server.http, "/v2/health/live") == 200


def test_mutual_tls_requires_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_certificates(tmp_path)
    with _started(tmp_path, "mtls") as server:
        url, authority = f"localhost:{server.grpc}", tmp_path / "ca.crt"
        assert _answers(
            monkeypatch,
            url,
            STLAB_TRITON_CA=authority,
            STLAB_TRITON_CERT=tmp_path / "client.crt",
            STLAB_TRITON_CERT_KEY=tmp_path / "client.key",
        )
        assert not _answers(monkeypatch, url, STLAB_TRITON_CA=authority)
        # A pipeline has PEM text in place of files.
        assert _answers(
            monkeypatch,
            url,
            STLAB_TRITON_CA=authority.read_text(),
            STLAB_TRITON_CERT=(tmp_path / "client.crt").read_text(),
            STLAB_TRITON_CERT_KEY=(tmp_path / "client.key").read_text(),
        )
