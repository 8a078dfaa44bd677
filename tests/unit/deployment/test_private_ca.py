"""The libraries in the images read the variables by which the chart names a private CA."""

from __future__ import annotations

import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .chart_files import ci_case, pods, rendered
from .test_chart_triton import write_certificates

# Calls a URL with the clients of the registry, the issuer and the store, and prints what fails.
_CALLS = """
import sys
import botocore.session, httpx, requests

url = sys.argv[1]
store = botocore.session.get_session().create_client("s3", "us-east-1", endpoint_url=url)
for name, call in {
    "requests": lambda: requests.get(url, timeout=20),
    "httpx": lambda: httpx.get(url, timeout=20),
    "botocore": store.list_buckets,
}.items():
    try:
        call()
    except Exception as error:
        print(name, "CERTIFICATE_VERIFY_FAILED" in str(error))
"""


class _Buckets(http.server.BaseHTTPRequestHandler):
    """Lists no buckets, whatever the request."""

    def do_GET(self) -> None:
        """Respond."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<ListAllMyBucketsResult/>")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Start an HTTPS server with a certificate of a private CA, ca.crt."""
    write_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Buckets) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()


def test_every_client_reads_its_variable(url: str, tmp_path: Path) -> None:
    (pod,) = [pod for pod in pods(rendered(ci_case("extras"))) if pod.part == "api"]
    trusted = {
        name: str(tmp_path / "ca.crt")
        for name, value in pod.environment().items()
        if value == "/etc/stlab/ca/ca.crt"
    }
    plain = {name: value for name, value in os.environ.items() if name not in trusted}
    plain |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_MAX_ATTEMPTS": "1",
    }
    failures = {}
    for environment in (plain, plain | trusted):
        done = subprocess.run(
            [sys.executable, "-c", _CALLS, url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        failures[environment is plain] = done.stdout.splitlines()
    assert failures == {True: ["requests True", "httpx True", "botocore True"], False: []}
